"""How far a preparation is: a bar in a terminal, a plain line now and then where there is none."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from lib.report.console import DRAW_SECONDS, LINE_SECONDS, format_duration


class ClipProgress:
    """Clips done, frames a second, faces, rejected, time left. Use as a context manager; no thread draws it."""

    def __init__(self, console: Console, total: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._total, self._clock = console, total, clock
        self._done = self._faces = self._rejected = self._frames = 0
        self._started = clock()
        self._live: Live | None = None
        self._next_draw = self._started + (0.0 if console.is_terminal else LINE_SECONDS)
        self._bar = Progress(
            TextColumn("{task.description}", style="bold"),
            BarColumn(bar_width=None, complete_style="cyan", finished_style="green"),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[left]}"),
            expand=True,
        )
        self._task = self._bar.add_task("clips", total=total, left="")

    def __enter__(self) -> ClipProgress:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        if self._done:
            self._print(self._describe())

    def add(self, *, faces: int, rejected: int, frames: int) -> None:
        """One clip is done."""
        self._done += 1
        self._faces, self._rejected, self._frames = (
            self._faces + faces,
            self._rejected + rejected,
            self._frames + frames,
        )
        self.tick()

    def tick(self, doing: str = "") -> None:
        """Draw when it is time to; doing: what goes on after the clips."""
        now = self._clock()
        if now < self._next_draw:
            return
        text = doing or self._describe()
        if self._live is None:
            self._next_draw = now + LINE_SECONDS
            self._print(text)
            return
        self._next_draw = now + DRAW_SECONDS
        self._bar.update(self._task, completed=self._done, left=self._describe_left())
        self._live.update(Group(self._bar, Text(f"  {text}", style="dim")), refresh=True)

    def say(self, line: str) -> None:
        """A line that stays above the bar."""
        self._print(line)

    def _describe(self) -> str:
        elapsed = max(self._clock() - self._started, 1e-9)
        return (
            f"{self._done:,} of {self._total:,} clips done in {format_duration(elapsed)}, "
            f"{self._frames / elapsed:.1f} frames/s, {self._faces:,} faces, {self._rejected:,} rejected, "
            f"{self._describe_left()}"
        )

    def _describe_left(self) -> str:
        elapsed = self._clock() - self._started
        left = elapsed / self._done * (self._total - self._done) if self._done else float("nan")
        return f"{format_duration(left)} left"

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
