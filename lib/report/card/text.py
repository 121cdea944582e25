"""Text of others in the Markdown of a model card: without effect, whatever is in it."""

from __future__ import annotations

from lib.report.comparison import escape_markdown


def show_plain(text: str) -> str:
    """On one line, without markup."""
    return escape_markdown(text)


def show_code(text: str) -> str:
    """As code on one line, whatever backticks are in it."""
    line, ticks = " ".join(text.split()), "`" * (count_backticks(text) + 1)
    return f"{ticks}{line}{ticks}" if len(ticks) == 1 else f"{ticks} {line} {ticks}"


def count_backticks(text: str) -> int:
    """Backticks in a row, the longest."""
    return max((len(run) for run in "".join(c if c == "`" else " " for c in text).split()), default=0)
