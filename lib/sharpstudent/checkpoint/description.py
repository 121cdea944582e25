"""Reads the JSON beside a checkpoint, which describes it without its tensors.

Importing this loads no torch, so that a command line can read what a checkpoint is before torch is imported.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sharpstudent.core.archive import read_record


def read_about(path: Path) -> dict[str, Any] | None:
    """Read the description of a checkpoint without its tensors; None where there is no JSON beside it."""
    record = read_record(path)
    return None if record is None else record["about"]


def read_sha256(path: Path) -> str | None:
    """Read the sha256 that the JSON beside a checkpoint gives; None where there is no JSON."""
    record = read_record(path)
    return None if record is None else record["sha256"]
