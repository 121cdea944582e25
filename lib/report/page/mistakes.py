"""The mistakes for which the page has no picture, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from lib.report.page.numbers import DASH, format_probability
from lib.report.page.table import Cell, Group, Row, Table, word
from lib.report.results import MistakeResult

MOST_ROWS = 200


def build_mistakes_table(mistakes: Sequence[MistakeResult]) -> Table:
    """A group a model, a row a sample; the first MOST_ROWS, and a note where there are more."""
    shown = mistakes[:MOST_ROWS]
    groups = tuple(
        Group(model, tuple(_build_row(mistake) for mistake in shown if mistake.model == model))
        for model in dict.fromkeys(mistake.model for mistake in shown)
    )
    left = len(mistakes) - len(shown)
    notes = (("1", f"{left:,} more are in results.json."),) if left else ()
    columns = (Cell("Probability of fake"), word("Truth"), word("Source"), word("Kind of fake"))
    return Table("Further mistakes", "Sample", columns, groups, notes)


def _build_row(mistake: MistakeResult) -> Row:
    kind = mistake.manipulation if mistake.label and mistake.manipulation else DASH
    truth = "fake" if mistake.label else "real"
    said = Cell(format_probability(mistake.probability))
    return Row(word(mistake.sample_id), (said, word(truth), word(mistake.source), word(kind)))
