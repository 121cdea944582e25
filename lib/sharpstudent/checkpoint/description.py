"""Reading the JSON beside a checkpoint, which describes it, without its tensors.

Importing this loads no torch, so that a command line can find out what a checkpoint is before anything heavy is
imported.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def path_of_json(path: Path) -> Path:
    """Return the path of the JSON that belongs to a checkpoint."""
    return path.with_name(path.name + ".json")


def read_record(path: Path) -> dict[str, Any] | None:
    """Read the JSON beside `path`; None where there is none that can be read. Then the .pth is read alone."""
    try:
        record = json.loads(path_of_json(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    known = isinstance(record, dict) and {"sha256", "contents", "about"} <= set(record)
    return record if known else None


def read_about(path: Path) -> dict[str, Any] | None:
    """Read the description of a checkpoint without its tensors; None where there is no JSON beside it."""
    record = read_record(path)
    return None if record is None else record["about"]


def read_sha256(path: Path) -> str | None:
    """Read the sha256 that the JSON beside a checkpoint gives; None where there is no JSON."""
    record = read_record(path)
    return None if record is None else record["sha256"]
