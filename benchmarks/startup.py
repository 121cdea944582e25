"""Compare the start-up time of the training command of two checkouts, before torch is imported.

    python benchmarks/startup.py ../before ../after --rounds 21

Four commands run in turn, in processes of their own: `--help`, a mistyped option, a mistyped key and `--print-config`.
The medians of both [CPU seconds] and the median of the ratios of pairs are printed. Both checkouts use the packages of
this Python.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

SCRIPT, CONFIG = "main_distillation.py", "configs/config_SBI.json"
COMMANDS = {
    "--help": ("--help",),
    "a mistyped option": (CONFIG, "--ressume", "run"),
    "a mistyped key": (CONFIG, "-n", "run", "--set", "lrr=3"),
    "--print-config": (CONFIG, "--print-config"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, help="checkout before a change")
    parser.add_argument("new", type=Path, help="checkout after it")
    parser.add_argument("--rounds", type=int, default=21)
    options = parser.parse_args()
    checkouts = [options.old.resolve(), options.new.resolve()]
    for name, words in COMMANDS.items():
        pairs = [_measure_pair(checkouts, words, swap=bool(turn % 2)) for turn in range(options.rounds)]
        old, new = (statistics.median(one) for one in zip(*pairs, strict=True))
        ratio = statistics.median(after / before for before, after in pairs)
        print(f"{name}: {old:.3f} s before, {new:.3f} s after, ratio of pairs {ratio:.3f}")


def _measure_pair(checkouts: list[Path], words: tuple[str, ...], *, swap: bool) -> tuple[float, float]:
    """Measure both checkouts once [s]; which of them is first alternates, so that neither finds warmer files."""
    seconds = {checkout: _measure(checkout, words) for checkout in (reversed(checkouts) if swap else checkouts)}
    return seconds[checkouts[0]], seconds[checkouts[1]]


def _measure(checkout: Path, words: tuple[str, ...]) -> float:
    environment = {**os.environ, "PYTHONPATH": str(checkout / "lib")}
    begun = _read_cpu_seconds()
    subprocess.run([sys.executable, SCRIPT, *words], cwd=checkout, env=environment, capture_output=True, check=False)
    return _read_cpu_seconds() - begun


def _read_cpu_seconds() -> float:
    """Read the CPU time of all finished child processes [s]: other programs on the machine disturb it the least."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
