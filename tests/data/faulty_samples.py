"""Samples whose workers hang, die or fail, for the tests of the loader. In the training process they are sound."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable

import numpy as np
from made_samples import MadeSamples
from sharpstudent.core.types import Sample


def sleep() -> None:
    time.sleep(1000)


def block_in_a_system_call() -> None:
    """As a read from a network folder whose server is gone, with every signal that can be ignored ignored."""
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    os.read(os.pipe()[0], 1)


def halt() -> None:
    """No thread of the process goes on: not the one that hands the batch before over, either."""
    os.kill(os.getpid(), signal.SIGSTOP)


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run_out_of_shared_memory() -> None:
    """As in a container whose /dev/shm is full: no file there may grow beyond 10 bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))


def have_a_bus_error() -> None:
    signal.signal(signal.SIGBUS, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGBUS)


def raise_a_runtime_error() -> None:
    raise RuntimeError("a defect, not a death")


def raise_an_os_error() -> None:
    raise OSError("a defect, not a lost connection")


class Faulty(MadeSamples):
    """Samples up to `at` are sound and take `seconds` each; from there on a worker does `fault` first."""

    def __init__(self, count: int, fault: Callable[[], None], *, at: int = 0, seconds: float = 0.0) -> None:
        super().__init__(count)
        self._fault, self._at, self._seconds = fault, at, seconds

    def make(self, index: int, rng: np.random.Generator) -> Sample:
        if multiprocessing.parent_process() is not None and index >= self._at:
            self._fault()
        time.sleep(self._seconds)
        return super().make(index, rng)


def do_nothing() -> None:
    pass
