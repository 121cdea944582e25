"""The processes that load batches: started safely, watched while a batch is awaited, and killed at the end."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import multiprocessing.connection
import multiprocessing.util
import os
import signal
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

import torch
import torch.multiprocessing  # tensors cross process borders in shared memory

from sharpstudent.core.errors import TrainingStopped
from sharpstudent.core.io import leave_signals_to_parent, stop_signals_blocked

A = TypeVar("A")
T = TypeVar("T")
AHEAD = 2  # results per worker that are ready or in preparation while another one is used

SHARED_MEMORY = Path("/dev/shm")
SAVED = "What was saved is intact: go on with --resume"
SHARED_MEMORY_REMEDY = (
    "give the container more shared memory (docker run --shm-size=2g), or fewer loader processes or smaller batches: "
    "--set num_workers=0, or a smaller batch_size"
)


class Workers(Generic[A, T]):
    """A pool of the standard library whose processes call one function; none of them outlives `run` or the program.

    Torch's DataLoader is not used for three reasons: its timeout does not cover a worker that hangs while it hands a
    batch over, its handler of SIGCHLD raises at any point of the training process, even in the middle of a step, and it
    waits up to 5 s for each worker to end.
    """

    def __init__(self, load: Callable[[A], T], count: int, timeout_s: float) -> None:
        """Prepare the processes; `run` starts them.

        Args:
            load: The function that the processes call; it is sent to each process once.
            count: Number of processes.
            timeout_s: Seconds of waiting after which they count as hung.
        """
        self._count, self._timeout_s, self._owner = count, timeout_s, os.getpid()
        # The workers inherit the temporary folder made here, which is removed at exit. Otherwise each worker would make
        # one of its own, and leave it behind when it is killed.
        multiprocessing.util.get_temp_dir()
        context = multiprocessing.get_context(choose_start_method())
        self._pool = ProcessPoolExecutor(count, context, initializer=_begin, initargs=(load,))
        _OPEN.add(self)

    def run(self, arguments: Iterable[A], name: Callable[[A], str]) -> Generator[T]:
        """Yield `load(argument)` for each argument, in their order; at the end the processes are killed.

        Args:
            arguments: The arguments; AHEAD for each worker are taken in advance.
            name: Gives the name of an argument, for error messages.

        Raises:
            TrainingStopped: When a worker cannot be started, dies, or none brings the next result in time.
            Exception: What `load` raised.
        """
        waiting = deque[tuple[str, Future[T]]]()
        try:
            self._start()
            for argument in arguments:
                waiting.append((name(argument), self._pool.submit(_load, argument)))
                if len(waiting) > AHEAD * self._count:
                    yield self._receive(*waiting.popleft())
            while waiting:
                yield self._receive(*waiting.popleft())
        except BrokenProcessPool:
            # The pool may notice a closed connection before the process counts as ended.
            ended = multiprocessing.connection.wait([process.sentinel for process in self._list_processes()], 1.0)
            dead = [process for process in self._list_processes() if process.sentinel in ended]
            if not dead:
                raise  # a defect, with its traceback
            self.close()
            raise TrainingStopped(self._explain_death(dead)) from None
        finally:
            self.close()

    def _start(self) -> None:
        try:
            with _no_threads_of_opencv(), stop_signals_blocked():
                for _ in range(self._count):
                    self._pool.submit(os.getpid)  # starts the processes
        except OSError as error:
            raise TrainingStopped(
                f"a loader process could not be started ({error.strerror or error}). {SAVED}, and fewer processes: "
                f"--set num_workers={self._count // 2}"
            ) from None

    def _receive(self, name: str, future: Future[T]) -> T:
        """Wait for a result. Short waits are counted instead of clock time, which goes on during suspension."""
        tick = min(1.0, self._timeout_s / 4)
        if any(wait([future], tick).done for _ in range(math.ceil(self._timeout_s / tick) + 1)):
            return future.result()
        raise TrainingStopped(
            f"no batch came from the loader processes for {self._timeout_s:g} s; waited for the one that begins "
            f"with {name}. {SAVED}. A disk or a network folder may hang; where reading is only slow, --set "
            f"loader_timeout={2 * self._timeout_s:g}; --set num_workers=0 shows where it hangs"
        )

    def close(self) -> None:
        """Kill the processes at once; there is nothing in them to save."""
        if os.getpid() != self._owner:
            return  # a copy of this object in a worker of another loader
        processes = self._list_processes()
        for process in processes:
            process.kill()
        self._pool.shutdown(cancel_futures=True)
        for process in processes:
            process.join(1.0)
            # Torch unlinks the file of a shared tensor at once, unless the worker is killed or fails just before.
            for left in SHARED_MEMORY.glob(f"torch_{process.pid}_*"):
                with contextlib.suppress(OSError):
                    left.unlink()

    def _list_processes(self) -> list[BaseProcess]:
        return list((self._pool._processes or {}).values())

    def _explain_death(self, dead: list[BaseProcess]) -> str:
        # Workers that end in order (code 0) when the pool breaks are its consequence; the cause is another one's death.
        codes = [process.exitcode for process in dead if process.exitcode] or [process.exitcode for process in dead]
        how = ", ".join(
            f"killed by {signal.Signals(-code).name}" if code and code < 0 else f"exited unexpectedly, exit code {code}"
            for code in codes
        )
        fewer = f"use fewer processes: --set num_workers={self._count // 2}"
        return (
            f"a loader process died ({how}). {SAVED}. If memory ran out, "
            f"{SHARED_MEMORY_REMEDY if 'SIGBUS' in how else fewer}"
        )


_OPEN: weakref.WeakSet[Workers[Any, Any]] = weakref.WeakSet()


def _close_all() -> None:
    for workers in list(_OPEN):
        workers.close()


# Runs at the end of the program, before the pool's own function, which waits for every worker without a limit.
threading._register_atexit(_close_all)  # type: ignore[attr-defined]


@contextlib.contextmanager
def _no_threads_of_opencv() -> Generator[None]:
    """Context manager: inside, OpenCV has no threads, so that a process forked there inherits none.

    A fork copies a pool's locks but not its threads: a worker that then sets its own number of threads, or uses them,
    waits for ever. This process, which owns the pool, starts it again when it is next needed.
    """
    import cv2

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def choose_start_method() -> str | None:
    """Choose how workers start: by fork where that is safe, else by Python's default method."""
    return "fork" if "fork" in multiprocessing.get_all_start_methods() and sys.platform == "linux" else None


_loading: list[Callable[[Any], Any]] = []  # in a worker: the function that it calls


def _begin(load: Callable[[Any], Any]) -> None:
    """Begin a worker: it ignores signals and has one thread, since the processes are the parallelism.

    Ctrl-C and the SIGTERM of a job scheduler reach all processes alike: workers go on until the training process has
    saved.
    """
    import cv2

    leave_signals_to_parent()
    sys.excepthook = _tell_all_but_lost_connections
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _loading[:] = [load]


def _load(argument: Any) -> Any:
    return _loading[0](argument)


def _tell_all_but_lost_connections(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print an error of the thread that hands batches over, unless it lost its connection.

    The connection is lost when the training process ends meanwhile, and that process reports the reason itself.
    """
    if not issubclass(kind, EOFError | ConnectionError):
        sys.__excepthook__(kind, error, trace)
