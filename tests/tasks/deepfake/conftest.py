"""Makes tests/drawn_faces.py importable, and gives every test of the tasks a folder of its own to stand in."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[2]
if str(TESTS) not in sys.path:
    sys.path.insert(0, str(TESTS))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Crops are kept under data/face_crops of the current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
