"""Everything on real faces in one command: a teacher, stage 1, stage 2, and the metrics of each.

    make demo

Each part is one of the project's own command lines, printed before it runs; nothing here is special to the demo but
the data.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAKE_SWAPS = "make_swaps.py data/demo/faces.csv data/demo/swaps --split test --per-face 2 --image-size 112"
SHORT = "(it will warn that stage 1 was short: a demo has no time for more)"
PARTS = (
    ("fetch model files", ("fetch_models.py", "demo")),
    ("fetch portraits", ("demo/fetch_portraits.py",)),
    ("train the teacher", ("train_student_only.py", "configs/demo_teacher.json", "-n", "demo_teacher")),
    ("stage 1: the student alone", ("train_student_only.py", "configs/demo.json", "-n", "demo_student")),
    (f"stage 2: distillation {SHORT}", ("main_distillation.py", "configs/demo.json", "-n", "demo_distill")),
    ("test people, self-blended", ("demo/write_blends.py",)),
    ("another kind of fake, for the comparison", tuple(MAKE_SWAPS.split())),
    ("compare", ("demo/compare.py",)),
)


Words = tuple[str, ...]


def run_parts(parts: Sequence[tuple[str, Words | Callable[[], Words]]], *, end: str = "") -> int:
    """Run command lines one after the other; those that name what earlier ones made are built when their turn comes.

    Args:
        parts: What each does, and its words behind `python`.
        end: A last line, where all of them succeeded.

    Returns:
        The exit code of the first that fails, else 0.
    """
    started = time.monotonic()
    for number, (what, words) in enumerate(parts, start=1):
        arguments = words if isinstance(words, tuple) else words()
        print(f"\n[{number}/{len(parts)}] {what}: python {shlex.join(arguments)}", flush=True)
        begun = time.monotonic()
        done = subprocess.run([sys.executable, *arguments], cwd=ROOT, check=False)
        if done.returncode != 0:
            print(
                f"\nthe demo ended here: exit code {done.returncode}. What is done stays; run the same command again."
            )
            return done.returncode
        print(f"    {_format(time.monotonic() - begun)}", flush=True)
    print(f"\nAll of it took {_format(time.monotonic() - started)}.")
    if end:
        print(end)
    return 0


def main() -> int:
    return run_parts(PARTS)


def _format(seconds: float) -> str:
    return f"{int(seconds) // 60} min {int(seconds) % 60:02} s"


if __name__ == "__main__":
    sys.exit(main())
