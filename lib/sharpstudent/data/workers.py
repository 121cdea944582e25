"""The processes that load batches: started safely, watched while somebody waits for them, gone when nobody does."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import multiprocessing
import multiprocessing.connection
import multiprocessing.util
import os
import signal
import sys
import threading
from collections.abc import Generator, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

from sharpstudent.core.errors import TrainingStopped
from sharpstudent.core.io import stop_signals_held

T = TypeVar("T")

SHARED_MEMORY = Path("/dev/shm")
PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal that a process gets when its parent ends
SAVED = "What was saved is intact: go on with --resume"
SHARED_MEMORY_REMEDY = (
    "give the container more shared memory (docker run --shm-size=2g), or fewer loader processes or smaller batches: "
    "--set num_workers=0, --set batch_size=..."
)


class Workers(Generic[T]):
    """The processes of one pass over a loader: whoever waits for them is told when one dies or hangs, and none is left.

    torch's own means do not suffice. Its timeout does not end a wait for a worker that hangs while it hands a batch
    over; its handler of SIGCHLD raises wherever the training process is, be it in the middle of a step; and it gives
    each worker 5 s to end.
    """

    def __init__(self, loader: DataLoader[T], timeout_s: float) -> None:
        self._started, self._timeout_s, self._owner = loader.num_workers, timeout_s, os.getpid()
        self._processes: list[BaseProcess] = []
        self._closed, self._is_waiting, self._waited, self._hung = threading.Event(), False, 0, False
        others = multiprocessing.active_children()
        # Made here, it is inherited and removed at exit; each worker would make one of its own and, killed, leave it.
        multiprocessing.util.get_temp_dir()
        try:
            with _no_threads_of_opencv(), stop_signals_held(), self._deaths_raised():
                self._batches: Iterator[T] | None = iter(loader)
        except BaseException as error:
            self._processes = [process for process in multiprocessing.active_children() if process not in others]
            self._kill()  # those that did start
            if not isinstance(error, OSError):
                raise
            raise TrainingStopped(
                f"a loader process could not be started ({error.strerror or error}). {SAVED}, and fewer processes: "
                f"--set num_workers={loader.num_workers // 2}"
            ) from None
        self._processes = [process for process in multiprocessing.active_children() if process not in others]
        self._has_lost_one = len(self._processes) < loader.num_workers  # ended before it was seen here
        # Before multiprocessing's own exit function, which waits for every worker without a limit.
        atexit.register(self._kill)
        threading.Thread(target=self._watch, daemon=True).start()

    def receive(self, name: str) -> T:
        """The next batch, the one that begins with the item `name`. Raises what the worker raised, or
        TrainingStopped.
        """
        assert self._batches is not None
        try:
            with self._deaths_raised():
                if self._has_lost_one or self._find_dead():  # while nobody waited
                    raise RuntimeError("a loader process died")
                self._waited, self._is_waiting = 0, True
                return next(self._batches)
        except (RuntimeError, OSError, EOFError):
            # A worker's end shows first in its closed connections.
            dead = self._find_dead(patience_s=1.0)
            if not dead and not self._has_lost_one:
                raise  # a defect, with its traceback
            raise TrainingStopped(self._explain(name, dead)) from None
        finally:
            self._is_waiting = False

    def close(self) -> None:
        """End the processes at once; there is nothing in them to save."""
        self._closed.set()
        atexit.unregister(self._kill)
        self._kill()
        self._disarm()
        self._batches = None

    def _kill(self) -> None:
        if os.getpid() != self._owner:
            return  # a copy of this object in a worker of another loader
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join(1.0)
            # torch's name for a batch in shared memory, gone at once unless its worker is killed or fails in between.
            for left in SHARED_MEMORY.glob(f"torch_{process.pid}_*"):
                with contextlib.suppress(OSError):
                    left.unlink()

    def _disarm(self) -> None:
        """Take the place of torch's own shutdown, which begins by setting an event: its lock may have died with a
        worker that was killed just then, and the wait for it would never end.
        """
        batches: Any = self._batches
        if batches is None or batches._shutdown:
            return
        batches._shutdown = True
        for queue in (*batches._index_queues, batches._worker_result_queue):
            queue.cancel_join_thread()
            queue.close()
        if batches._worker_pids_set:
            signal_handling._remove_worker_pids(id(batches))
            batches._worker_pids_set = False

    def _watch(self) -> None:
        """Kill the processes when a wait takes too long: that ends the wait, whatever it hangs in.

        Ticks are counted, not the clock: a program that was suspended has not waited.
        """
        tick = min(1.0, self._timeout_s / 4)
        while not self._closed.wait(tick):
            self._waited += self._is_waiting
            if self._waited * tick > self._timeout_s:
                self._hung = True
                for process in self._processes:
                    process.kill()
                return

    @contextlib.contextmanager
    def _deaths_raised(self) -> Generator[None]:
        """Inside, a worker's death ends the wait at once; elsewhere than in the main thread torch looks every 5 s.

        torch sets a handler of its own when it starts workers; that one, too, ends with the block.
        """

        def tell(*_: object) -> None:
            if self._find_dead():
                raise RuntimeError("a loader process died")

        if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = signal.signal(signal.SIGCHLD, tell)
        try:
            yield
        finally:
            signal.signal(signal.SIGCHLD, previous)

    def _find_dead(self, *, patience_s: float = 0.0) -> list[BaseProcess]:
        """Workers that have ended, or do so within patience_s; while batches are wanted, none should."""
        ended = multiprocessing.connection.wait([process.sentinel for process in self._processes], patience_s)
        return [process for process in self._processes if process.sentinel in ended]

    def _explain(self, name: str, dead: list[BaseProcess]) -> str:
        if self._hung:
            return (
                f"no batch came from the loader processes for {self._timeout_s:g} s; waited for the one that begins "
                f"with {name}. {SAVED}. A disk or a network folder may hang; where reading is only slow, --set "
                f"loader_timeout={2 * self._timeout_s:g}; --set num_workers=0 shows where it hangs"
            )
        for process in dead:
            process.join(1.0)
        how = ", ".join(_describe_end(process.exitcode) for process in dead) or "exited unexpectedly"
        fewer = f"use fewer processes: --set num_workers={self._started // 2}"
        remedy = SHARED_MEMORY_REMEDY if "SIGBUS" in how else fewer
        return f"a loader process died ({how}). {SAVED}. If memory ran out, {remedy}"


def _describe_end(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"killed by {signal.Signals(-exit_code).name}"
    return f"exited unexpectedly, exit code {exit_code}"


@contextlib.contextmanager
def _no_threads_of_opencv() -> Generator[None]:
    """Inside, OpenCV has no threads, so that a process forked here inherits none.

    A fork copies a pool's locks but not its threads: a worker that then sets its own number of threads, or uses them,
    waits for ever. Stopped here, in the process that owns it, the pool is started again when it is next needed.
    """
    import cv2

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def calm_worker(_: int) -> None:
    """One thread a worker: the processes are the parallelism. Signals are the training process's to answer.

    Ctrl-C and the SIGTERM of a job scheduler reach all processes alike: workers go on until that one has saved.
    """
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.excepthook = _tell_all_but_lost_connections
    if sys.platform == "linux":  # a worker that hangs would outlive a training process that is killed
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        parent = multiprocessing.parent_process()
        if parent is not None and os.getppid() != parent.pid:
            os._exit(1)  # it ended before the line above
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def choose_start_method() -> str | None:
    """How workers start: forked where that is safe, else as Python does by itself."""
    return "fork" if "fork" in multiprocessing.get_all_start_methods() and sys.platform == "linux" else None


def _tell_all_but_lost_connections(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """For the thread that hands batches over: a training process that ends in the middle of it tells why itself."""
    if not issubclass(kind, EOFError | ConnectionError):
        sys.__excepthook__(kind, error, trace)
