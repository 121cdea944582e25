"""A program that waits for a worker that hangs; tests end it in several ways. python hanging_pool.py FILE"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[4]), str(Path(__file__).resolve().parent)]
    import worker_tasks
    from sharpstudent.core.errors import exit_codes
    from sharpstudent.core.io import stop_signals_raised
    from sharpstudent.tasks.deepfake.prepare.pool import WorkerPool

    with exit_codes(), stop_signals_raised(), WorkerPool(worker_tasks.build, 1, timeout_s=600.0) as pool:
        for _ in pool.run([f"pid {sys.argv[1]}"], lambda: None):
            pass
