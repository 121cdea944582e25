"""Skeleton actions on real motion in one command: a teacher, a student alone, alone for longer, and distilled.

    make demo-skeleton

Each part is one of the project's own command lines, printed before it runs. People 9 and 10 of ten are the test: two
people carry no claim; five folds over all ten do (configs/skeleton_folds.json).
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from demo.run_demo import ROOT, run_parts

CONFIG = "configs/demo_skeleton.json"
STAGE_1, STAGE_2 = "train_student_only.py", "main_distillation.py"
TEACHER = ("--set", "student=last_e_base", "--set", "stage1.epoch=12", "--set", "stage1.lr=0.003")
RESUME = ("--resume", "auto")  # after an interruption the same command goes on
# The control: stage 2 with hard labels alone, from the same student, for as many steps.
ALONE = ("--set", "stage2.alpha_end=1")
PARTS = (
    ("train the teacher, LAST-E base", (STAGE_1, CONFIG, "-n", "skeleton_teacher", *TEACHER, *RESUME)),
    ("stage 1: LAST-E nano alone", (STAGE_1, CONFIG, "-n", "skeleton_nano", *RESUME)),
    ("stage 2: nano alone for as many further steps", (STAGE_2, CONFIG, "-n", "skeleton_alone", *ALONE, *RESUME)),
    ("stage 2: nano distilled", (STAGE_2, CONFIG, "-n", "skeleton_distilled", *RESUME)),
)
ROLES = (
    ("--teacher", "Teacher", "skeleton_teacher"),
    ("--before", "Nano", "skeleton_nano"),
    ("--control", "Nano for longer", "skeleton_alone"),
    ("--distilled", "Nano distilled", "skeleton_distilled"),
)
OUT = "output/skeleton_comparison"


def find_run(name: str) -> str:
    """The newest run of a name."""
    found = max((ROOT / "output").glob(f"{name}_demo_skeleton_*"), key=lambda path: path.stat().st_mtime_ns)
    return str(found.relative_to(ROOT))


def build_comparison() -> tuple[str, ...]:
    """The command of the comparison on the two people of the test."""
    models = [word for role, name, run in ROLES for word in (role, f"{name}={find_run(run)}")]
    return ("compare_models.py", *models, "--data", "test", "--by", "subject", "--out", OUT)


def main() -> int:
    end = "Two people carry no claim: five folds over all ten do (configs/skeleton_folds.json, docs/skeleton.md)."
    return run_parts([*PARTS, ("compare on the people of the test", build_comparison)], end=end)


if __name__ == "__main__":
    sys.exit(main())
