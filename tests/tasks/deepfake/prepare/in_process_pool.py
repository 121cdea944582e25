"""The worker pool without worker processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any


class InProcessPool:
    """Runs the tasks in this process; starting workers takes a second or two."""

    def __init__(self, build: Callable[[], Callable[[Any], Any]], count: int, *, timeout_s: float) -> None:
        self._build = build

    def __enter__(self) -> InProcessPool:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, tasks: Sequence[Any], tick: Callable[[], None]) -> Iterator[tuple[Any, Any]]:
        work = self._build()
        for task in reversed(tasks):
            yield task, work(task)
