"""Run as a program: load with two workers of which each does FAULT, and say what came of it.

faulty_loading.py FAULT [fail]: with `fail`, the training process fails itself while a worker hangs.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent / "helpers"), str(HERE)]

import faulty_samples
from sharpstudent.core.errors import exit_codes
from sharpstudent.data.loader import load_batches
from sharpstudent.data.sampler import evaluation_batches

if __name__ == "__main__":
    fault, fails = getattr(faulty_samples, sys.argv[1]), "fail" in sys.argv[2:]
    source = faulty_samples.Faulty(40, fault, at=8)
    batches = load_batches(source, evaluation_batches(40, 4), seed=0, num_workers=2, timeout_s=100 if fails else 1)
    # The generator lives on in the traceback, as in a script that fails: its end must not depend on anybody's care.
    with exit_codes():
        for _ in batches:
            print("a batch", flush=True)
            if fails:
                time.sleep(1.5)  # both workers hang by now
                raise ZeroDivisionError("a defect of the training process")
