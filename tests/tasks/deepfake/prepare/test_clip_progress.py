"""Progress of a preparation: one line in a terminal, lines in a log."""

from __future__ import annotations

import io

from rich.console import Console
from sharpstudent.tasks.deepfake.prepare.progress import ClipProgress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def show(*, is_terminal: bool) -> str:
    clock, file = Clock(), io.StringIO()
    with ClipProgress(Console(file=file, width=200, force_terminal=is_terminal), 100, clock=clock) as progress:
        for _ in range(50):
            clock.now += 1.0
            progress.add_clip(faces=3, rejected=1, frames=4)
    return file.getvalue()


def test_a_log_gets_a_line_every_30_seconds_and_one_at_the_end() -> None:
    lines = show(is_terminal=False).splitlines()
    assert lines == [
        "30 of 100 clips done in 0:30, 4.0 frames/s, 90 faces, 30 rejected, 1:10 left",
        "50 of 100 clips done in 0:50, 4.0 frames/s, 150 faces, 50 rejected, 0:50 left",
    ]


def test_a_terminal_gets_a_line_that_is_drawn_in_place() -> None:
    text = show(is_terminal=True)
    assert "50 of 100 clips, 4.0 frames/s" in text
    assert "0:50 left" in text
