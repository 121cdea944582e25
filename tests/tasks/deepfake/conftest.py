"""Runs every test of the task in a working folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder while a test runs; crops are cached in its data/face_crops."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
