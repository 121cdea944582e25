"""The console: lines, and the progress of whatever takes long.

In a terminal, progress is drawn in place; elsewhere it is a plain line from time to time. No thread draws it: whoever
reports progress does, and that costs a microsecond where nothing is due.

Steps count from 0 within an epoch and epochs from 1, as in `sharpstudent.core.schedules.Progress`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from sharpstudent.core.errors import format_count_of, plural
from sharpstudent.core.naming import count_columns, name_commands, printable, printable_lines, shorten, wrap_words

DRAW_SECONDS = 0.2  # seconds between two drawings in a terminal
FIRST_SECONDS = 10.0  # seconds until the first plain line of a piece of work: what takes less gets none
LINE_SECONDS = 30.0  # seconds between two plain lines where there is no terminal
MOST_TITLE = 32  # characters of a title beside a bar


def build_console(*, quiet: bool = False) -> Console:
    """Build the console of a script: standard output, without coloured numbers; a quiet one prints nothing."""
    return Console(highlight=False, quiet=quiet)


def print_line(console: Console, line: str) -> None:
    """Print a text as it is, without markup and colours; names in it become printable.

    In a terminal, long lines are wrapped at words; elsewhere, such as in a log, they stay whole.
    """
    text = name_commands(printable_lines(line))
    if console.is_terminal:
        text = wrap_words(text, console.width)
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def format_duration(seconds: float) -> str:
    """Format a duration: `1:02:03`, `2:03`, or `-:--` where it is not known."""
    if not 0 <= seconds < 1e9:
        return "-:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Display(ABC):
    """Shows text that changes while something goes on; use it as a context manager.

    Subclasses say what to draw, and call `_draw_if_due` when something has changed.
    """

    _transient = True  # whether nothing stays in the terminal at the end

    def __init__(
        self, console: Console | None, *, first_seconds: float, line_seconds: float, clock: Callable[[], float]
    ) -> None:
        """Start the clock.

        Args:
            console: Where it is shown; None for nowhere.
            first_seconds: Until the first plain line [s].
            line_seconds: Between two plain lines [s].
            clock: Returns the time [s].
        """
        self._console, self._clock = console, clock
        self._first_seconds, self._line_seconds = first_seconds, line_seconds
        self._live: Live | None = None  # in a terminal only
        self._started = self._next_draw = clock()

    def __enter__(self) -> Self:
        self._started = self._next_draw = self._clock()
        if self._console is not None and self._console.is_terminal:
            # No thread (auto_refresh): loaders may fork, and drawing must not steal time from the work.
            self._live = Live(console=self._console, auto_refresh=False, transient=self._transient)
            self._live.start()
            self._draw(self._started)
        else:
            self._next_draw += self._first_seconds
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._draw(self._clock())
            self._live.stop()

    @abstractmethod
    def _render(self, now: float, width: int) -> RenderableType:
        """Render what a terminal of `width` columns shows at the time `now`."""

    @abstractmethod
    def _describe(self, now: float) -> str:
        """Say in a plain line what is done at the time `now`."""

    def _draw_if_due(self) -> None:
        now = self._clock()
        if now >= self._next_draw:
            self._draw(now)

    def _draw(self, now: float) -> None:
        if self._live is None:
            self._next_draw = now + self._line_seconds
            self._print(self._describe(now))
        else:
            self._next_draw = now + DRAW_SECONDS
            self._live.update(self._render(now, self._live.console.width), refresh=True)

    def _print(self, line: str) -> None:
        if self._console is not None:
            print_line(self._console, line)


class WorkProgress(Display):
    """Shows how much of a piece of work is done, with elapsed and remaining time; work of a moment shows nothing."""

    def __init__(
        self,
        console: Console | None,
        title: str,
        total: int,
        unit: str,
        *,
        first_seconds: float = FIRST_SECONDS,
        line_seconds: float = LINE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start to count.

        Args:
            console: Where it is shown; None for nowhere.
            title: The work in words.
            total: How many units there are.
            unit: The unit in the singular, such as `batch of 16`.
            first_seconds: Until the first plain line [s].
            line_seconds: Between two plain lines [s].
            clock: Returns the time [s].
        """
        seen = console if total > 0 else None
        super().__init__(seen, first_seconds=first_seconds, line_seconds=line_seconds, clock=clock)
        self._title, self._total, self._unit = printable(title), total, unit
        self._done = 0

    def add(self, count: int = 1) -> None:
        """Report that so many more units are done."""
        self._done += count
        self._draw_if_due()

    def _render(self, now: float, width: int) -> RenderableType:
        facts = f": {self._describe_count()}, {self._describe_times(now)}"
        title = shorten(self._title, max(8, width - len(facts) - count_columns(self._title) + len(self._title)))
        return Text(title + facts, style="dim", no_wrap=True, overflow="crop")

    def _describe(self, now: float) -> str:
        return f"{self._title}: {self._describe_count()}, {self._describe_times(now)}"

    def _describe_count(self) -> str:
        return f"{self._done:,} of {self._total:,} {self._unit if self._total == 1 else plural(self._unit)}"

    def _describe_times(self, now: float) -> str:
        return describe_times(now - self._started, self._done, self._total - self._done)


def describe_times(elapsed: float, done: int, left: int) -> str:
    """Say how long work has taken, and how long the rest will.

    Args:
        elapsed: The time so far [s].
        done: How many units were done in it.
        left: How many units are left.

    Returns:
        Text such as `1:02 elapsed, 0:43 left`.
    """
    rest = elapsed / done * max(left, 0) if done else float("nan")
    return f"{format_duration(elapsed)} elapsed, {format_duration(rest)} left"


class ProgressLine(Display):
    """Shows how far a stage of training is, with elapsed and remaining time.

    The remaining time is estimated from the steps since the start (or since the resume), validation included.
    """

    _transient = False

    def __init__(
        self,
        console: Console,
        total_epochs: int,
        steps_per_epoch: int,
        title: str,
        *,
        line_seconds: float = LINE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(console, first_seconds=line_seconds, line_seconds=line_seconds, clock=clock)
        self._title = title
        self._epochs, self._steps = total_epochs, steps_per_epoch
        self._first_done: int | None = None  # steps done before this process began
        self._done = 0
        self._text = ""
        self._bar = Progress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=None, complete_style="cyan", finished_style="green"),
            TextColumn("{task.percentage:.0f}%"),
            TextColumn("{task.fields[times]}"),
            expand=True,
        )
        self._task: TaskID = self._bar.add_task(
            shorten(printable(title), MOST_TITLE), total=total_epochs * steps_per_epoch, times=""
        )

    def __enter__(self) -> Self:
        super().__enter__()
        if self._live is None:
            epochs, steps = format_count_of(self._epochs, "epoch"), format_count_of(self._steps, "step")
            self._print(f"{self._title}: {epochs} of {steps}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if kind is None and self._done:
            elapsed = format_duration(self._clock() - self._started)
            self._print(f"{self._title}: {self._done} of {self._epochs * self._steps} steps done in {elapsed}")

    def step(self, epoch: int, step: int, *, loss: float, lr: float, skipped: int = 0) -> None:
        """Report that a step is done.

        Args:
            epoch: The epoch, from 1.
            step: The step, from 0 within the epoch.
            loss: The loss of this step.
            lr: The learning rate of this step.
            skipped: How many steps were skipped so far.
        """
        done = (epoch - 1) * self._steps + step + 1
        if self._first_done is None:
            self._first_done = done - 1
        self._done = done
        now = self._clock()
        if now < self._next_draw:
            return
        skips = f", {skipped} skipped" if skipped else ""
        self._text = f"epoch {epoch}/{self._epochs} step {step + 1}/{self._steps} loss {loss:.4f} lr {lr:.2e}{skips}"
        self._draw(now)

    def status(self, text: str) -> None:
        """Show what happens outside the steps, such as `validating`; in a terminal only."""
        self._text = text
        if self._live is not None:
            self._draw(self._clock())

    def epoch(self, line: str) -> None:
        """Print the line that sums up an epoch; it stays above the bar, and in a plain log the times follow it."""
        if self._live is None:
            line = f"{line} | {self._describe_times(self._clock())}"
            self._next_draw = self._clock() + self._line_seconds
        self._print(line)

    def _describe_times(self, now: float) -> str:
        here = self._done - (self._first_done or 0)
        return describe_times(now - self._started, here, self._epochs * self._steps - self._done)

    def _describe(self, now: float) -> str:
        return f"{self._title}: {self._text} | {self._describe_times(now)}"

    def _render(self, now: float, width: int) -> RenderableType:
        self._bar.update(self._task, completed=self._done, times=self._describe_times(now))
        return Group(self._bar, Text(f"  {self._text}", style="dim"))
