"""A run that is killed at random instants and relaunched by the same command ends as one that was not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from workplace import ENVIRONMENT, TINY

PROGRAM = Path(__file__).with_name("killed_run.py")
SETTINGS = """
  "epoch": 3, "save_every_steps": 2, "ema_decay": 0.9, "optimizer": "adamw", "lr": 0.001,
"""


def kill_runs(folder: Path, labelled_root: Path, kills: int, workers: int) -> dict[str, object]:
    for name in ("data", "configs"):
        (folder / name).mkdir()
    (folder / "data/labelled").symlink_to(labelled_root)
    config = TINY.replace('"epoch": 2,', "").replace('"lr": 0.01,', SETTINGS.strip())
    (folder / "configs/killed.json").write_text(config)
    words = [sys.executable, str(PROGRAM), str(folder), str(kills), "5", str(workers)]
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_twenty_kills_lose_no_run_and_change_no_bit(tmp_path: Path, labelled_root: Path, workers: int) -> None:
    result = kill_runs(tmp_path, labelled_root, 10, workers)
    assert result["failures"] == []
    assert result["killed"] == 10


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_two_hundred_kills_lose_no_run_and_change_no_bit(tmp_path: Path, labelled_root: Path, workers: int) -> None:
    result = kill_runs(tmp_path, labelled_root, 100, workers)
    assert result["failures"] == []
    assert result["killed"] == 100
