"""The comparison of the two-stage guide, measured: compare_models.py on the demo's three models and two test sets."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sharpstudent.core.errors import exit_codes

from demo.measure import SWAPS, find_run
from demo.write_blends import TABLE as BLENDS

OUT = "output/demo_comparison"
CORRUPTIONS = ("jpeg", "resize", "blur", "social_media")  # all of them take two minutes more
ROLES = (
    ("--teacher", "Teacher", "demo_teacher_*"),
    ("--before", "Student pre-trained", "demo_student_demo_*"),
    ("--distilled", "Student + distillation", "demo_distill_demo_*"),
)


def build_arguments() -> list[str]:
    """The command line of compare_models.py. Raises UserError where a part of the demo has not been trained."""
    models = [word for role, name, run in ROLES for word in (role, f"{name}={find_run(run).parents[1]}")]
    data = ["--data", f"self-blends={BLENDS}", f"swaps={SWAPS}", "--crops"]
    return [*models, *data, "--robustness", *CORRUPTIONS, "--robustness-faces", "200", "--out", OUT]


def main() -> None:
    import shlex

    from sharpstudent.evaluation.command_line import COMPARE, parse_command_line
    from sharpstudent.evaluation.run import run_evaluation
    from sharpstudent.report.console import build_console

    arguments = build_arguments()
    print(f"    that is: python compare_models.py {shlex.join(arguments)}", flush=True)
    renderer, request = parse_command_line(arguments, script=COMPARE)
    run_evaluation(renderer, request, build_console())
    print("Stage 2 also trained longer: docs/results.md compares it with hard labels for as many further steps.")
    print("Next: your own photos (README, 'Your own data'): copy configs/demo.json and set data_root.")


if __name__ == "__main__":
    with exit_codes():
        main()
