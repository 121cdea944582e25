"""Count the files that one epoch of stage 2 enters.

These are the Python files of the package with a function that runs in the epoch, from its first batch to its saved
state: so many files a newcomer opens who follows it.

    python benchmarks/epoch_files.py

Both stages are trained on a few drawn faces, stage 2 with SAM, hard labels, a teacher's logits and features, and
averaged weights; without loader processes, so that making samples counts, too. Stage 2 is run twice and the second run
is counted: all modules are loaded then, and what runs only while a module is imported is no part of an epoch.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import inspect
import io
import json
import os
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MOST_FILES = 60
FIRST, LAST = "_train_epoch", "_finish_epoch"  # of the trainer: an epoch begins with the one and ends with the other

CONFIG: dict[str, Any] = {
    "data_source": "labelled",
    "data_root": "labelled",
    "validation_share": 0.34,
    "image_size": 32,
    "student": "test_efficientnet",
    "student_init": "random",
    "teacher": "test_efficientnet",
    "teacher_weights": "output/first_*/weights/best_model.pth",
    "pretrained_student_weights": "output/first_*/weights/best_model.pth",
    "epoch": 1,
    "batch_size": 4,
    "stage2": {
        "batch_size": 4,
        "rho": 0.05,
        "ema_decay": 0.9,
        "terms": [
            {"term": "hard", "weight": 0.5},
            {"term": "kd", "weight": 0.5, "temperature": 2.0},
            {
                "term": "features",
                "weight": 0.1,
                "student_layer": "backbone.blocks.3",
                "teacher_layer": "backbone.blocks.3",
            },
        ],
    },
    "num_workers": 0,
    "device": "cpu",
    "report": False,
}


class EpochProfile:
    """Collects the files below `package` with a function that is entered: while an epoch lasts, and at any time.

    Both sets hold paths relative to the package.
    """

    def __init__(self, package: Path) -> None:
        self._package = f"{package}{os.sep}"
        self._is_on = False
        self.files: set[str] = set()
        self.of_command: set[str] = set()

    def __call__(self, frame: FrameType, event: str, arg: object) -> None:
        code = frame.f_code
        if event not in ("call", "return") or not code.co_filename.startswith(self._package):
            return
        if event == "call" and code.co_name == FIRST:
            self._is_on = True
        if event == "call" and code.co_flags & inspect.CO_OPTIMIZED:  # no body of a module or a class
            file = code.co_filename.removeprefix(self._package)
            self.of_command.add(file)
            if self._is_on:
                self.files.add(file)
        if event == "return" and code.co_name == LAST:
            self._is_on = False

    @contextlib.contextmanager
    def watching(self) -> Any:
        threading.setprofile(self)
        sys.setprofile(self)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkout", type=Path, default=ROOT, help="count another checkout's files (default: this one)"
    )
    checkout: Path = parser.parse_args().checkout.resolve()
    package = checkout / "lib" / "sharpstudent"
    package = package if package.is_dir() else checkout / "lib"  # as it was called before November 2026
    sys.path[:0] = [str(package.parent), str(ROOT / "tests" / "helpers")]
    profile = watch_epoch(checkout, package)
    print(*sorted(profile.files), "", sep="\n")
    print(f"{len(profile.of_command)} files entered by the whole command of stage 2, checks and closing included")
    print(f"{len(profile.files)} files entered by one epoch of stage 2, at most {MOST_FILES} wanted")
    return int(len(profile.files) > MOST_FILES)


def watch_epoch(checkout: Path, package: Path) -> EpochProfile:
    """What one epoch of stage 2 enters in a checkout."""
    import ffpp_tree  # pyright: ignore[reportMissingImports]

    profile = EpochProfile(package)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        ffpp_tree.write_labelled(Path("labelled"), people=6)
        Path("tiny.json").write_text(json.dumps(CONFIG))
        run_script(checkout / "train_student_only.py", "tiny.json", "-n", "first")
        run_script(checkout / "main_distillation.py", "tiny.json", "-n", "loaded")
        with profile.watching():
            run_script(checkout / "main_distillation.py", "tiny.json", "-n", "counted")
    return profile


def run_script(path: Path, *words: str) -> None:
    """A script's `main` in this process; its output is kept back unless it fails."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    output = io.StringIO()
    before, sys.argv = sys.argv, [str(path), *words]
    try:
        with contextlib.redirect_stdout(output):
            module.main()
    except BaseException:  # SystemExit too: what the script printed explains it
        print(output.getvalue())
        raise
    finally:
        sys.argv = before


if __name__ == "__main__":
    sys.exit(main())
