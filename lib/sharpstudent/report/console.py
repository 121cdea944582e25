"""The console: in a terminal, one progress bar for the whole stage; otherwise a plain line from time to time.

Steps count from 0 within an epoch and epochs from 1, as in `sharpstudent.core.schedules.Progress`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from sharpstudent.core.errors import format_count_of
from sharpstudent.core.naming import printable_lines

DRAW_SECONDS = 0.2  # seconds between two drawings of the bar
LINE_SECONDS = 30.0  # seconds between two plain lines where there is no terminal


def build_console() -> Console:
    """Build the console of a script: standard output, without coloured numbers."""
    return Console(highlight=False)


def print_line(console: Console, line: str) -> None:
    """Print a text as it is, without markup and colours; names in it become printable, and long lines stay whole."""
    console.print(printable_lines(line), markup=False, highlight=False, soft_wrap=True)


def format_duration(seconds: float) -> str:
    """Format a duration: `1:02:03`, `2:03`, or `-:--` where it is not known."""
    if not 0 <= seconds < 1e9:
        return "-:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class ProgressLine:
    """Shows how far a stage is, with elapsed and remaining time; use it as a context manager.

    No thread draws it: `step` does, at most every `DRAW_SECONDS`, and costs a microsecond otherwise. The remaining time
    is estimated from the steps since the start (or since the resume), validation included.
    """

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
        self._console, self._title, self._clock = console, title, clock
        self._epochs, self._steps = total_epochs, steps_per_epoch
        self._started = clock()
        self._first_done: int | None = None  # steps done before this process began
        self._done = 0
        self._next_draw = self._started
        self._text = ""
        self._line_seconds = line_seconds
        self._live: Live | None = None  # in a terminal only
        self._bar = Progress(
            TextColumn("{task.description}", style="bold"),
            BarColumn(bar_width=None, complete_style="cyan", finished_style="green"),
            TextColumn("{task.percentage:.0f}%"),
            TextColumn("{task.fields[times]}"),
            expand=True,
        )
        self._task: TaskID = self._bar.add_task(title, total=total_epochs * steps_per_epoch, times="")

    def __enter__(self) -> ProgressLine:
        self._started = self._clock()
        self._next_draw = self._started if self._console.is_terminal else self._started + self._line_seconds
        if self._console.is_terminal:
            # No thread (auto_refresh): loaders may fork, and drawing must not steal time from a step.
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
            self._draw(self._started)
        else:
            epochs, steps = format_count_of(self._epochs, "epoch"), format_count_of(self._steps, "step")
            self._print(f"{self._title}: {epochs} of {steps}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._draw(self._clock())
            self._live.stop()
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
        elapsed = now - self._started
        here = self._done - (self._first_done or 0)
        left = elapsed / here * (self._epochs * self._steps - self._done) if here else float("nan")
        return f"{format_duration(elapsed)} elapsed, {format_duration(left)} left"

    def _draw(self, now: float) -> None:
        times = self._describe_times(now)
        if self._live is None:
            self._next_draw = now + self._line_seconds
            self._print(f"{self._title}: {self._text} | {times}")
            return
        self._next_draw = now + DRAW_SECONDS
        self._bar.update(self._task, completed=self._done, times=times)
        self._live.update(Group(self._bar, Text(f"  {self._text}", style="dim")), refresh=True)

    def _print(self, line: str) -> None:
        print_line(self._console, line)
