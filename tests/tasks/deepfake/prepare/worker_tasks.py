"""Functions for the workers of the pool's tests: the text of a task says what its worker does."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import cv2
from sharpstudent.core.errors import Problem, UserError


def build() -> Callable[[str], str]:
    return do


def build_badly() -> Callable[[str], str]:
    raise UserError(Problem("weights/x.onnx", "is missing", remedy="make face-models"))


def build_and_die() -> Callable[[str], str]:
    os._exit(3)


def do(task: str) -> str:
    word, _, rest = task.partition(" ")
    if word == "signal":
        os.kill(os.getpid(), int(rest))
    if word == "exit":
        os._exit(int(rest))
    if word == "hang":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        time.sleep(1000)
    if word == "refuse":
        raise UserError(Problem("/full/disk", "could not be written", got="0 bytes free"))
    if word == "fail":
        raise KeyError("a defect")
    if word == "pid":
        Path(rest).write_text(str(os.getpid()))
        time.sleep(1000)
    if word == "print":
        os.write(2, b"noise of a decoder\n")
    if word == "threads":
        return str(cv2.getNumThreads())
    return f"done {task}"
