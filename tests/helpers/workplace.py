"""A folder as a user has it, and the two scripts run in it: as subprocesses, or in this process where that suffices."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
STAGE_1, STAGE_2 = "train_student_only.py", "main_distillation.py"
SHIPPED = "configs/config_SBI.json"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}

# A stage in a second or two: drawn faces of two classes at 32 px, 8 steps of 2 pictures an epoch.
TINY = """{
  "data_source": "labelled", "data_root": "data/labelled", "validation_share": 0.34,
  "image_size": 32, "student": "test_efficientnet", "student_init": "random",
  "epoch": 2, "batch_size": 2, "stage2": { "batch_size": 2 }, "lr": 0.01, "num_workers": 0, "device": "cpu",
  "report": false,
  "teacher": "test_resnet", "teacher_weights": "weights/tiny_teacher.pth",
  "pretrained_student_weights": "output/first_*/weights/best_model.pth"
}
"""


@dataclass(frozen=True)
class Ended:
    """What a command left: exit code, and what it printed (standard output, standard error)."""

    code: int
    out: str
    err: str


class Workplace:
    """A folder with the scripts and configs of this repository linked or copied into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for script in (STAGE_1, STAGE_2):
            (folder / script).symlink_to(ROOT / script)
        shutil.copytree(ROOT / "configs", folder / "configs")

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def start(self, *words: str) -> subprocess.Popen[str]:
        """`python WORDS` in the folder, in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, *words],
            cwd=self.folder,
            env=ENVIRONMENT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def run(self, *words: str, timeout: float = 400) -> Ended:
        """`python WORDS`, to its end."""
        process = self.start(*words)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            pytest.fail(f"{words} did not end in {timeout} s\n{out}\n{err}")
        return Ended(process.returncode, out, err)

    def call(self, *words: str) -> Ended:
        """As `run`, within this process: the script's own `main` under `exit_codes`, without seconds of imports.

        Locks of folders are released, as at the end of a process. Else the garbage collector empties the file of a lock
        at any later time, while a test compares the folder.
        """
        from sharpstudent.core import io as core_io
        from sharpstudent.core.errors import exit_codes

        spec = importlib.util.spec_from_file_location(Path(words[0]).stem, ROOT / words[0])
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        out, err, code, before = io.StringIO(), io.StringIO(), 0, (sys.argv, os.getcwd())
        try:
            sys.argv = list(words)
            os.chdir(self.folder)
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), exit_codes():
                module.main()
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            sys.argv = before[0]
            os.chdir(before[1])
            for lock in list(core_io._HELD.values()):
                lock.release()
        return Ended(code, out.getvalue(), err.getvalue())

    def find_run(self, name: str) -> Path:
        """The only run folder of that name."""
        (found,) = self.folder.glob(f"output/{name}_*")
        return found

    def list_output(self) -> list[str]:
        """Everything below output/, relative."""
        output = self.folder / "output"
        return sorted(str(path.relative_to(output)) for path in output.rglob("*")) if output.exists() else []


def note_passes(patch: pytest.MonkeyPatch) -> list[int]:
    """Of how many models each pass over the validation samples is, from now on."""
    from sharpstudent.train import validate

    compute, passes = validate.compute_tables, []

    def note_and_compute(models: Sequence[object], *args: Any, **settings: Any) -> Any:
        passes.append(len(models))
        return compute(models, *args, **settings)

    patch.setattr(validate, "compute_tables", note_and_compute)
    return passes


# What a run loads while it runs: together it takes longer to load than to train a tiny model.
RUN_MODULES = (
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "scipy.optimize",
    "sklearn.metrics",
    "tensorboard.compat.proto.event_pb2",
    "tensorboard.summary.writer.record_writer",
    "sharpstudent.models.build",
    "sharpstudent.optim.build",
    "sharpstudent.tasks.deepfake.evaluation.calibration",
    "sharpstudent.tasks.deepfake.evaluation.renderer",
    "sharpstudent.tasks.deepfake.samples",
    "sharpstudent.tasks.deepfake.sources.labelled",
    "sharpstudent.tasks.deepfake.task",
    "sharpstudent.train.build",
    "sharpstudent.train.finish",
    "sharpstudent.train.trainer",
)


def prepare_forks() -> None:
    """Load all that a run loads, so that a fork of this process has it; this trains nothing and starts no thread that a
    fork would lose. Nothing is drawn in logs/curves.png, which would take most of a fork's time.
    """
    import torch
    from sharpstudent.report import curves

    for name in RUN_MODULES:
        importlib.import_module(name)
    torch.set_num_threads(1)
    curves.render_sheet = lambda *_: b""
    gc.freeze()  # or each fork's first collection would copy all of it


def wait_for(found: Callable[[], bool], process: subprocess.Popen[str], *, seconds: float = 300) -> None:
    """Until `found`; fails when the process ends before, or after that many seconds."""
    end = time.monotonic() + seconds
    while not found():
        if process.poll() is not None or time.monotonic() > end:
            os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
            out, err = process.communicate()
            pytest.fail(f"waited in vain\n{out}\n{err}")
        time.sleep(0.005)
