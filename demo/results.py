"""Three seeds of the demo with its control, evaluated on people used neither for training, tuning nor selection.

    make results            writes output/results/ablation.md; finished runs are kept and not repeated

Per seed: a teacher, stage 1, and five ways to take the same further steps from the same stage-1 checkpoint
(demo/arms.json): hard labels alone, distillation as the demo has it, and distillation with one thing more. Each part is
one of the project's own command lines, printed before it runs. docs/results.md has the figures of November 2026.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SEEDS = (1, 2, 3)
OUTPUT = "output/results"
CONFIG, ARMS = "configs/demo.json", "demo/arms.json"
FIRST = {"teacher": "configs/demo_teacher.json", "student": CONFIG}  # what the arms begin with
DATA = ("--data", "self-blends=data/demo/blends/blends.csv", "--crops")  # of demo/write_blends.py
PREPARATION = (("fetch_models.py", "demo"), ("demo/fetch_portraits.py",), ("demo/write_blends.py",))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=min(len(SEEDS), os.cpu_count() or 1), help="runs at a time")
    jobs: int = parser.parse_args().jobs
    for words in PREPARATION:
        run(words)
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda words: run(words, threads=threads), plan_first()))
    run(plan_ablation(jobs))
    return 0


def plan_first() -> list[tuple[str, ...]]:
    """The command lines of teachers and students of stage 1, by seed; one that is done already does nothing."""
    return [
        (
            *("train_student_only.py", config, "-n", f"s{seed}_{what}", "--resume", "auto"),
            *(word for change in (f"seed={seed}", f"output_root={OUTPUT}") for word in ("--set", change)),
        )
        for seed in SEEDS
        for what, config in FIRST.items()
    ]


def plan_ablation(jobs: int) -> tuple[str, ...]:
    """The command line of the ablation."""
    settings = ("--seeds", str(len(SEEDS)), "--jobs", str(jobs), "--rounds", "2000", "--out", OUTPUT)
    return ("compare_models.py", "ablate", CONFIG, "--arms", ARMS, *DATA, *settings)


def run(words: Sequence[str], *, threads: str | None = None) -> None:
    """Run a script of this repository; ends the command where it fails."""
    print(f"\npython {shlex.join(words)}", flush=True)
    environment = {**os.environ, **({"OMP_NUM_THREADS": threads} if threads else {})}
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, check=False)
    if done.returncode != 0:
        raise SystemExit(f"`make results` ended here: exit code {done.returncode}. What is done stays; run it again.")


if __name__ == "__main__":
    sys.exit(main())
