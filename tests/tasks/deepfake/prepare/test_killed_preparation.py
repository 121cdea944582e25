"""A preparation that is killed at random instants and relaunched by the same command ends as one that was not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("killed_preparation.py")


def kill_often(folder: Path, kills: int, workers: int, form: str, seed: int = 3) -> dict[str, object]:
    words = [sys.executable, str(PROGRAM), str(folder), str(kills), str(seed), str(workers), form]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("workers", "form"), [(2, "shards")])
def test_four_kills_change_no_byte(tmp_path: Path, workers: int, form: str) -> None:
    result = kill_often(tmp_path, 4, workers, form)
    assert result["failures"] == []
    assert result["killed"] == 4


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "form"), [(1, "files"), (2, "files"), (2, "shards")])
def test_twenty_kills_change_no_byte(tmp_path: Path, workers: int, form: str) -> None:
    result = kill_often(tmp_path, 20, workers, form, seed=workers)
    assert result["failures"] == []
    assert result["killed"] == 20
