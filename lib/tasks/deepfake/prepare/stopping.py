"""Ctrl-C and SIGTERM: answered once, at once, and never in the middle of starting or ending a process."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Generator
from typing import NoReturn

from lib.errors import ExitCode, RunInterrupted


@contextlib.contextmanager
def stop_signals_held() -> Generator[None]:
    """Inside, Ctrl-C and SIGTERM wait, for a process started here too: it would die of them before it ignores them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def stop_signals_told() -> Generator[None]:
    """Inside, Ctrl-C and SIGTERM raise RunInterrupted, once: the clearing up after it is not interrupted again."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: object) -> NoReturn:
        for other in before:
            signal.signal(other, signal.SIG_IGN)
        code = ExitCode.INTERRUPTED if number == signal.SIGINT else ExitCode.TERMINATED
        raise RunInterrupted("stopped; what is finished is kept: go on with the same command", code)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
