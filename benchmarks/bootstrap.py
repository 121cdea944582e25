"""Intervals over people of a million scores: seconds and peak memory; every row in a process of its own.

    python benchmarks/bootstrap.py --samples 1000000 --people 10000 --rounds 1000

Peak memory is the process's largest resident size, interpreter and libraries included.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from numpy.typing import NDArray
from sharpstudent.core.types import Table
from sharpstudent.metrics.bootstrap import compute_interval, compute_paired, draw_blocks, find_strata
from sharpstudent.metrics.checks import number_names
from sharpstudent.metrics.metric import make_binary_metric
from sharpstudent.tasks.deepfake.evaluation.frames import ScoredFrames
from sharpstudent.tasks.deepfake.evaluation.set_metrics import Resampling, compute_set_metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--people", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--row", choices=ROWS, help="measure this row alone, in this process")
    options = parser.parse_args()
    if options.row is not None:
        print(*measure_row(options))
        return
    print(f"{options.samples:,} samples of {options.people:,} people, {options.rounds:,} rounds")
    sizes = [f"--samples={options.samples}", f"--people={options.people}", f"--rounds={options.rounds}"]
    for row in ROWS:
        ended = subprocess.run([sys.executable, __file__, *sizes, "--row", row], capture_output=True, text=True)
        if ended.returncode != 0:
            print(f"{row:<44} failed: {ended.stderr.strip().splitlines()[-1]}")
            continue
        seconds, processor_seconds, megabytes, what = ended.stdout.strip().split(" ", 3)
        print(
            f"{row:<44} {float(seconds):6.1f} s ({float(processor_seconds):.1f} s of a core)   "
            f"{float(megabytes):5.0f} MB   {what}"
        )


def measure_row(options: argparse.Namespace) -> tuple[str, str, str, str]:
    """Seconds by the wall and of a core, peak megabytes, and what came out."""
    frames = draw_frames(options.samples, options.people)
    start, processor_start = time.perf_counter(), time.process_time()
    what = ROWS[options.row](frames, options.rounds)
    seconds, processor_seconds = time.perf_counter() - start, time.process_time() - processor_start
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kilobytes on Linux
    return f"{seconds:.2f}", f"{processor_seconds:.2f}", f"{megabytes:.0f}", what


def draw_frames(samples: int, people: int) -> ScoredFrames:
    """Half of the people are fakes; each has an offset of its own, and hardly two scores are equal."""
    generator = np.random.default_rng(0)
    person_of = np.sort(generator.integers(people, size=samples))
    labels = person_of % 2
    margins = 1.5 * labels + generator.normal(size=people)[person_of] + generator.normal(size=samples)
    names = [f"person {i:07d}" for i in person_of.tolist()]
    ids = [f"{name}/{i:07d}.png" for i, name in enumerate(names)]
    kinds = ["blend" if label else "" for label in labels.tolist()]
    return ScoredFrames(margins, labels, ids, names, names, ["made up"] * samples, kinds)


def draw_again(frames: ScoredFrames, rounds: int) -> str:
    """The floor: the draws alone."""
    _, group_of = number_names(frames.groups)
    strata = find_strata(group_of, frames.labels)
    drawn = sum(len(block) for block in draw_blocks(group_of, rounds=rounds, seed=0, must_hold=strata))
    return f"{drawn} draws"


AUC = make_binary_metric("auc_by_rank", lambda table: table["score"])


def make_table(frames: ScoredFrames, scores: NDArray[np.float64]) -> Table:
    return {
        "id": np.array(frames.sample_ids),
        "group": np.array(frames.groups),
        "label": frames.labels,
        "score": scores,
    }


def find_auc(frames: ScoredFrames, rounds: int) -> str:
    found = compute_interval(AUC, make_table(frames, frames.margins), rounds=rounds)
    return f"{found.value:.6f} [{found.low:.6f}, {found.high:.6f}]"


def compare_aucs(frames: ScoredFrames, rounds: int) -> str:
    other = frames.margins + np.random.default_rng(1).normal(size=len(frames))
    found = compute_paired(AUC, make_table(frames, frames.margins), make_table(frames, other), rounds=rounds)
    return f"{found.value:+.6f}, p {found.p_value:.4f}"


def find_frame_metrics(frames: ScoredFrames, rounds: int) -> str:
    metrics = compute_set_metrics(frames, aggregations=(), resampling=Resampling(rounds=rounds, of_parts=False))
    return f"{len(metrics.intervals)} intervals of {len(metrics.values)} metrics"


def find_all_metrics(frames: ScoredFrames, rounds: int) -> str:
    metrics = compute_set_metrics(frames, resampling=Resampling(rounds=rounds))
    return f"{len(metrics.intervals)} intervals of {len(metrics.values)} metrics"


ROWS: dict[str, Callable[[ScoredFrames, int], str]] = {
    "draws alone": draw_again,
    "AUC": find_auc,
    "AUC of two models, paired": compare_aucs,
    "all metrics of frames": find_frame_metrics,
    "all metrics, of videos and of each part, too": find_all_metrics,
}


if __name__ == "__main__":
    main()
