"""Ctrl-C and SIGTERM kept out of the instants in which a process is started or ended."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Generator


@contextlib.contextmanager
def stop_signals_held() -> Generator[None]:
    """Inside, Ctrl-C and SIGTERM wait, for the processes started here too: they would die of them before they ignore
    them.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
