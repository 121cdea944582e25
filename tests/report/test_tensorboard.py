"""Scalars as TensorBoard itself reads them."""

import os
import subprocess
import sys
from pathlib import Path

from sharpstudent.report.tensorboard import TensorBoardLog

ROOT = Path(__file__).resolve().parents[2]


def read_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), purge_orphaned_data=True)
    events.Reload()
    return {tag: [(e.step, round(e.value, 4)) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_scalars_arrive_under_the_callers_tags(tmp_path: Path) -> None:
    with TensorBoardLog(tmp_path) as log:
        log.scalar("train/distill_loss", 0.5, 1)
        log.scalars({"train/distill_temperature": 3.0, "val/auc": None}, 1)
        log.scalar("train/distill_loss", 0.25, 2)
    assert read_scalars(tmp_path) == {
        "train/distill_loss": [(1, 0.5), (2, 0.25)],
        "train/distill_temperature": [(1, 3.0)],
    }


def test_a_resume_hides_the_steps_that_are_done_again(tmp_path: Path) -> None:
    with TensorBoardLog(tmp_path) as log:
        for step in range(1, 6):
            log.scalar("train/loss", step / 10, step)
    with TensorBoardLog(tmp_path, purge_step=4) as log:
        log.scalar("train/loss", 0.9, 4)
    assert read_scalars(tmp_path) == {"train/loss": [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.9)]}


PROGRAM = """
import sys
from pathlib import Path
from sharpstudent.report.tensorboard import TensorBoardLog
assert "tensorboard" not in sys.modules, "loaded before it is needed"
with TensorBoardLog(Path(sys.argv[1])) as log:
    log.scalar("a", 1.0, 1)
assert "tensorflow" not in sys.modules
"""


def test_tensorboard_is_loaded_late_and_tensorflow_never(tmp_path: Path) -> None:
    fake = tmp_path / "site" / "tensorflow"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("raise SystemExit('tensorflow was imported')")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{fake.parent}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "log")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
