"""Runs tasks in processes on the nodes of a Ray cluster. Ray (Moritz et al. 2018) is the extra `ray`.

A node that is lost costs only the work at hand: its tasks run again elsewhere. What a task does must therefore leave
the same result when it runs twice.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import socket
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from sharpstudent.core.arguments import RAY_HERE, advise_extra
from sharpstudent.core.errors import UserError, format_count_of

Task = TypeVar("Task")
Result = TypeVar("Result")

TICK = 0.5  # the longest time between two calls of `tick` [s]
MOST_TRIES = 3  # of a task whose processes end without an answer
_OURS: tuple[str, ...] = (
    "sharpstudent",
    "ray",
    "torch",
    "numpy",
    "opencv-python-headless",
)  # what decides the bits of a result


class RayPool(Generic[Task, Result]):
    """Actors of a Ray cluster, each on a processor of its own. Use it as a context manager: at its end none is left.

    It takes processors as the cluster has them, so nodes that join later work, too.
    """

    def __init__(
        self,
        build: Callable[[], Callable[[Task], Result]],
        address: str,
        *,
        count: int | None,
        say: Callable[[str], None],
    ) -> None:
        """Prepare the pool.

        Args:
            build: Makes the function that does a task, once in each process. It, tasks and results are pickled.
            address: The value of `--ray`.
            count: The most processes; None for one on each processor of the cluster.
            say: Prints a line: each process names its node and its Ray worker.
        """
        self._build, self._address, self._count, self._say = build, address, count, say
        self._starting: dict[Any, Any] = {}  # reference of what an actor tells of itself -> actor
        self._running: dict[Any, tuple[Any, int, Task]] = {}  # reference of a result -> actor, number, task
        self._idle: list[Any] = []
        self._nodes: dict[Any, str] = {}  # actor -> its node
        self._done, self._tries = Counter[str](), Counter[int]()
        self._failed_starts = 0

    def __enter__(self) -> RayPool[Task, Result]:
        self._ray = connect(self._address)
        self._actor = self._ray.remote(num_cpus=1)(_Worker)
        return self

    def __exit__(self, *_: object) -> None:
        for actor in (*self._starting.values(), *(actor for actor, *_ in self._running.values()), *self._idle):
            with contextlib.suppress(Exception):  # it has ended, or the cluster has
                self._ray.kill(actor)
        self._ray.shutdown()

    def run(self, tasks: Sequence[Task], tick: Callable[[], None]) -> Generator[tuple[Task, Result]]:
        """Yield each task with its result, in the order in which they end.

        Args:
            tasks: The tasks.
            tick: Called now and then.

        Yields:
            Task and result.

        Raises:
            UserError: The one that a worker raised; for nodes with other versions; where the cluster is gone; and for a
                task whose process ended MOST_TRIES times.
            Exception: Anything else that a worker raised.
        """
        left = deque(enumerate(tasks))
        while left or self._running:
            self._start_missing(len(left))
            while left and self._idle:
                number, task = left.popleft()
                actor = self._idle.pop()
                self._running[actor.do.remote(task)] = (actor, number, task)
            ready, _ = self._ray.wait([*self._starting, *self._running], num_returns=1, timeout=TICK)
            for reference in ready:
                if reference in self._starting:
                    self._greet(reference)
                    continue
                actor, number, task = self._running.pop(reference)
                try:
                    result = self._get(reference)
                except self._ray.exceptions.RayActorError as error:
                    self._note_lost(actor, number, task, error)
                    left.appendleft((number, task))
                    continue
                self._done[self._nodes[actor]] += 1
                self._idle.append(actor)
                yield task, result
            tick()
        for node, done in sorted(self._done.items()):
            self._say(f"ray node {node[:12]}: {format_count_of(done, 'task')} done")

    def _start_missing(self, left: int) -> None:
        there = int(self._ray.cluster_resources().get("CPU", 1))
        wanted = min(self._count or there, there, left + len(self._running) + len(self._idle))
        for _ in range(wanted - len(self._starting) - len(self._running) - len(self._idle)):
            actor = self._actor.options(scheduling_strategy="SPREAD").remote()
            self._starting[actor.begin.remote(self._build, _list_versions(), Path.cwd())] = actor

    def _greet(self, reference: Any) -> None:
        """Take in an actor that is ready, or find out why it is not."""
        actor = self._starting.pop(reference)
        try:
            node, worker, host = self._get(reference)
        except self._ray.exceptions.RayActorError as error:
            self._failed_starts += 1
            if self._failed_starts >= MOST_TRIES:
                raise _explain("its workers do not start", error) from None
            return
        self._nodes[actor] = node
        self._idle.append(actor)
        self._say(f"ray worker {worker[:12]} on node {node[:12]} ({host})")

    def _get(self, reference: Any) -> Any:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayActorError:
            raise
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None
            raise
        except self._ray.exceptions.RayError as error:
            raise _explain("does not answer", error) from None

    def _note_lost(self, actor: Any, number: int, task: Task, error: Exception) -> None:
        self._tries[number] += 1
        self._say(f"a ray worker on node {self._nodes[actor][:12]} is lost; its task runs again")
        if self._tries[number] >= MOST_TRIES:
            raise _explain(f"lost {MOST_TRIES} workers, one after the other, at {task}", error)


class _Worker:
    """One process of the cluster, as Ray makes it."""

    def begin(
        self, build: Callable[[], Callable[[Any], Any]], versions: dict[str, str], folder: Path
    ) -> tuple[str, str, str]:
        """Make what does the tasks.

        Args:
            build: Makes it.
            versions: Those of the process that gives the tasks.
            folder: Its current folder, to which relative paths refer.

        Returns:
            The ids of the node and of this worker, and the name of the machine.

        Raises:
            UserError: For a node with other versions, or without the folder.
        """
        import ray  # pyright: ignore[reportMissingImports]

        context, ours = ray.get_runtime_context(), _list_versions()
        if ours != versions:
            unlike = [f"{name} {ours[name]}, here {versions[name]}" for name in ours if ours[name] != versions[name]]
            raise UserError.about(
                f"ray node {context.get_node_id()[:12]}",
                "has other versions, which may give other results",
                got="; ".join(unlike),
                remedy="install the same ones on every node",
            )
        try:
            os.chdir(folder)
        except OSError as error:
            raise UserError.about(
                f"ray node {context.get_node_id()[:12]}",
                "does not see the current folder; all nodes need the same paths",
                got=str(error),
                remedy="start the command in a folder that all nodes share",
            ) from None
        self._work = build()
        return context.get_node_id(), context.get_worker_id(), platform.node()

    def do(self, task: Any) -> Any:
        """Do one task."""
        return self._work(task)


def _list_versions() -> dict[str, str]:
    versions: dict[str, str] = dict.fromkeys(_OURS, "not installed")
    for name in _OURS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def connect(address: str) -> Any:
    """Connect to a Ray cluster.

    Args:
        address: The value of `--ray`.

    Returns:
        The module `ray`.

    Raises:
        UserError: Where Ray is not installed, no cluster answers, or the cluster has another version.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError.about("--ray", "needs the package ray", remedy=advise_extra("ray")) from None
    given = {} if address == RAY_HERE else {"address": address}
    try:
        if given:
            _knock(address)
        ray.init(**given, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise _explain("cannot connect" if address == RAY_HERE else f"cannot connect to {address}", error) from None
    return ray


def _knock(address: str) -> None:
    """Raise OSError or ValueError where nothing listens: Ray itself would try again for many minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError("an address is HOST:PORT or ray://HOST:PORT")
    socket.create_connection((host, int(port)), timeout=10.0).close()


def _explain(what: str, error: Exception) -> UserError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return UserError.about(
        "--ray",
        what,
        got=" ".join(lines[:4])[:400] or type(error).__name__,
        remedy="see `ray status`; the same command goes on where it was, with or without --ray",
    )
