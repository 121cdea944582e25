"""Ctrl-C and SIGTERM answered once, and at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Generator
from typing import NoReturn

from lib.errors import ExitCode, RunInterrupted


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
