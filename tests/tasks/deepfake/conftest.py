"""Gives every test of the tasks a folder of its own to stand in."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Crops are kept under data/face_crops of the current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
