"""Recordings for the tests of the task: generated words, and those of people where there are any."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent))
from spoken_words import write_words

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "wakeword"


@pytest.fixture
def words(tmp_path: Path) -> Path:
    (tmp_path / "words").mkdir()
    return write_words(tmp_path / "words")


@pytest.fixture
def real_words() -> Path:
    folder = Path(os.environ.get("WAKEWORD_DATA", SHARED))
    if not (folder / "splits" / "train.json").is_file():
        pytest.skip("no recordings of people: WAKEWORD_DATA names no folder with splits/train.json")
    pytest.importorskip("soundfile", reason="soundfile is not installed: the extra wakeword")
    return folder
