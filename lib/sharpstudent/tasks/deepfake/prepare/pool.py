"""Runs tasks in worker processes that may crash or hang: only the task at hand is lost with a worker.

Each worker gets one task at a time. It is made once, then does one task after the other until the parent closes the
pipe or ends.

The standard library's pool loses all tasks when one process dies. pebble's takes a task's time from the clock, so that
a computer which was suspended would lose the clip of every worker; here only time in which the parent was awake counts.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import sys
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.io import leave_signals_to_parent, stop_signals_blocked

KILLED = 9  # SIGKILL, for which Python on Windows has no name


def serve(connection: multiprocessing.connection.Connection, build: Callable[[], Callable[[Any], Any]]) -> None:
    """Do tasks in a worker process until the parent closes the pipe.

    The worker sends None when it is ready, then the result of each task, which is never None. An exception ends it: the
    parent raises it again.

    Args:
        connection: The pipe to the parent.
        build: Makes the function that does a task.
    """
    leave_signals_to_parent()
    import cv2

    cv2.setNumThreads(1)  # the processes are the parallelism
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            work = build()
            connection.send(None)
            _silence_decoders()
            while True:
                connection.send(work(connection.recv()))
        except UserError as error:
            connection.send(error)
        except Exception:  # noqa: BLE001 the parent raises it again, with its traceback
            connection.send(RuntimeError(f"a worker process failed\n{traceback.format_exc()}"))


def _silence_decoders() -> None:
    """Discard what decoders print about broken files: the quarantine names them. Errors go through the pipe."""
    sys.stderr.flush()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)


Task = TypeVar("Task")
Result = TypeVar("Result")

TICK = 0.5  # the longest time between two readings of the clock [s]
START_SECONDS = 300.0  # for a worker's imports and models; a loaded network folder is slow


@dataclass(frozen=True)
class Lost:
    """A task whose worker process crashed, or that exceeded the time limit.

    Attributes:
        how: "crashed" or "too slow".
        reason: The same in words.
    """

    how: Literal["crashed", "too slow"]
    reason: str


class WorkerPool(Generic[Task, Result]):
    """Spawned processes, each with a pipe. Use it as a context manager: at its end no process is left.

    They are spawned, not forked: a decoder's threads and locks would not survive a fork.
    """

    def __init__(self, build: Callable[[], Callable[[Task], Result]], count: int, *, timeout_s: float) -> None:
        """Prepare the pool; processes start with the first tasks.

        Args:
            build: Makes the function that does a task, once in each process. It and the tasks are pickled.
            count: How many processes there are.
            timeout_s: A task that takes longer is given up with its process [s].
        """
        self._build, self._count, self._timeout_s = build, count, timeout_s
        self._workers: list[_Worker] = []

    def __enter__(self) -> WorkerPool[Task, Result]:
        return self

    def __exit__(self, *_: object) -> None:
        with stop_signals_blocked():
            for worker in self._workers:
                worker.process.kill()
            for worker in self._workers:
                worker.end()
            self._workers = []

    def run(self, tasks: Sequence[Task], tick: Callable[[], None]) -> Generator[tuple[Task, Result | Lost]]:
        """Yield each task with its result, in the order in which they end.

        A task whose process died is not tried again.

        Args:
            tasks: The tasks.
            tick: Called now and then.

        Yields:
            Task and result, or task and `Lost`.

        Raises:
            UserError: The one that a worker raised, or that workers cannot start.
            RuntimeError: For anything else that a worker raised, with its traceback.
        """
        left, before = list(reversed(tasks)), time.monotonic()
        while left or any(worker.task is not None for worker in self._workers):
            self._start_missing(len(left))
            for worker in self._workers:
                if left and worker.is_idle:
                    worker.give(left.pop())
            ready = multiprocessing.connection.wait([worker.connection for worker in self._workers], TICK)
            for worker in [worker for worker in self._workers if worker.connection in ready]:
                yield from self._receive(worker)
            now = time.monotonic()
            # Ticks are counted, not the clock: a program that was suspended has not waited.
            yield from self._give_up_slow(min(now - before, 2 * TICK))
            before = now
            tick()

    def _start_missing(self, left: int) -> None:
        busy = sum(worker.task is not None for worker in self._workers)
        while len(self._workers) < min(self._count, busy + left):
            with stop_signals_blocked():
                self._workers.append(_Worker(self._build))

    def _receive(self, worker: _Worker) -> Generator[tuple[Task, Result | Lost]]:
        """Read what a worker sends, and yield the task that it ends, if any. Raises what went wrong in the worker."""
        task = worker.task
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join(5.0)
            exit_code = self._drop(worker)
            if not worker.is_ready:
                raise UserError(_explain_no_start(f"it ended with exit code {exit_code}")) from None
            if task is not None:
                yield task, Lost("crashed", _describe_end(exit_code))
            return
        if isinstance(message, Exception):
            raise message
        if message is None:
            worker.is_ready = True
        else:
            worker.task = None
            yield task, message

    def _give_up_slow(self, seconds: float) -> Generator[tuple[Task, Lost]]:
        for worker in list(self._workers):
            if worker.is_idle:
                continue
            worker.waited += seconds
            if not worker.is_ready and worker.waited > START_SECONDS:
                raise UserError(_explain_no_start(f"it was not ready after {START_SECONDS:g} s"))
            if worker.is_ready and worker.waited > self._timeout_s:
                task = worker.task
                self._drop(worker)
                yield task, Lost("too slow", f"took longer than {self._timeout_s:g} s")

    def _drop(self, worker: _Worker) -> int | None:
        with stop_signals_blocked():
            self._workers.remove(worker)
            return worker.end()


class IsolatedWork(Generic[Task, Result]):
    """Does one task after the other in a process of its own, for a caller that must not crash or hang with it."""

    def __init__(self, build: Callable[[], Callable[[Task], Result]], *, timeout_s: float) -> None:
        """Prepare the process, which starts with the first task.

        Args:
            build: Makes the function that does a task. It and the tasks are pickled.
            timeout_s: A task that takes longer is given up with the process [s].
        """
        self._pool = WorkerPool(build, 1, timeout_s=timeout_s)

    def __call__(self, task: Task) -> Result | Lost:
        """Do a task."""
        ((_, result),) = self._pool.run([task], lambda: None)
        return result


class _Worker:
    """One process as its parent sees it.

    Attributes:
        task: The task that the process is doing, or None.
        waited: How long it has been doing this task [s].
    """

    def __init__(self, build: Callable[[], Callable[[Any], Any]]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, build), daemon=True)
        self.process.start()
        theirs.close()
        self.task: Any = None
        self.is_ready, self.waited = False, 0.0

    @property
    def is_idle(self) -> bool:
        """Whether it can take a task."""
        return self.is_ready and self.task is None

    def give(self, task: Any) -> None:
        """Send it a task."""
        self.task, self.waited = task, 0.0
        with contextlib.suppress(OSError):  # it has just died: its connection says so when it is read next
            self.connection.send(task)

    def end(self) -> int | None:
        """End the process if it has not ended; one that hangs within the kernel is left to it."""
        self.process.kill()
        self.process.join(5.0)
        self.connection.close()
        return self.process.exitcode


def _describe_end(exit_code: int | None) -> str:
    if exit_code == -KILLED:
        time.sleep(1.0)  # a signal to the whole job ends this process meanwhile: nothing is recorded
        return "its process was killed (signal 9); perhaps the memory ran out"
    if exit_code is not None and exit_code < 0:
        return f"the decoder crashed (signal {-exit_code})"
    return f"the decoder ended its process (exit code {exit_code})"


def _explain_no_start(reason: str) -> Problem:
    return Problem(
        "worker process",
        "could not start",
        got=reason,
        remedy="see what it printed above; with little memory, take fewer: --workers 1. The same command goes on",
    )
