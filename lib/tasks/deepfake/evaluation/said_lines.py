"""A console whose lines go to whoever has asked for them."""

from __future__ import annotations

import io
from collections.abc import Callable

from rich.console import Console


class SaidLines(io.StringIO):
    """A text file that keeps nothing and hands on every line that is written to it, without its end."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say, self._begun = say, ""

    def write(self, text: str, /) -> int:
        *whole, self._begun = (self._begun + text).split("\n")
        for line in whole:
            self._say(line)
        return len(text)


def build_line_console(say: Callable[[str], None]) -> Console:
    """Plain lines, no bar."""
    return Console(file=SaidLines(say), force_terminal=False, color_system=None, highlight=False)
