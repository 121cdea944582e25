"""What holds for all tests."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes depends on what else the machine does.
settings.register_profile("any load", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any load")


@pytest.fixture(scope="session", autouse=True)
def _no_test_waits_for_the_disk() -> Generator[None]:
    """What fsync promises shows after a power cut only, and a suite calls it tens of thousands of times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


def pytest_collection_finish() -> None:
    """Modules and tests stay to the end: no later collection need look through them, no fork copy them when it does."""
    gc.collect()
    gc.freeze()
