"""A worker's side of the pipe: made once, then one task after the other until the parent closes the pipe or ends."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

from lib.errors import UserError

PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal that a process gets when its parent ends
READY = "ready"


def serve(connection: multiprocessing.connection.Connection, build: Callable[[], Callable[[Any], Any]]) -> None:
    """A worker's life. build: makes the function that does a task; what that returns is sent, and is never None."""
    _calm_worker()
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        work = _answer(connection, build)
        if work is None:
            return
        connection.send((READY, None))
        _silence_decoders()
        while True:
            task = connection.recv()
            result = _answer(connection, lambda task=task: work(task))
            if result is None:
                return
            connection.send(("done", result))


def _answer(connection: multiprocessing.connection.Connection, work: Callable[[], Any]) -> Any:
    """What `work` returns; None where it failed, and the parent has been told."""
    try:
        return work()
    except UserError as error:
        connection.send(("user error", error))
    except Exception:  # noqa: BLE001 the parent raises it again, with this traceback
        connection.send(("defect", traceback.format_exc()))
    return None


def _calm_worker() -> None:
    """Ctrl-C and a scheduler's SIGTERM reach all processes alike and are the parent's to answer; it ends this one."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    if sys.platform == "linux":  # one that hangs in a decoder would outlive a parent that is killed
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        parent = multiprocessing.parent_process()
        if parent is not None and os.getppid() != parent.pid:
            os._exit(1)  # it ended before the line above
    import cv2

    cv2.setNumThreads(1)  # the processes are the parallelism


def _silence_decoders() -> None:
    """What decoders print about broken files goes nowhere: the quarantine names them. Errors go through the pipe."""
    sys.stderr.flush()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
