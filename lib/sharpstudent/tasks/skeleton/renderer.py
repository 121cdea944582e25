"""The report of the skeleton task: a table of what was taken for what, and the worst mistakes as moving bodies.

Legend: N rows of a table, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sharpstudent.evaluation.renderer import Measurements, Renderer, Session

if TYPE_CHECKING:
    from sharpstudent.core.types import Table
    from sharpstudent.evaluation.evaluate import Evaluation
    from sharpstudent.report.evaluation import OwnPage
    from sharpstudent.report.text_table import TextTable
    from sharpstudent.tasks.skeleton.sequences import Sequences

SHOWN = 6  # mistakes of a model that are drawn, at most one of each pair of classes
PACKAGE, TEMPLATE = "sharpstudent.tasks.skeleton", "skeleton_report.html.j2"
MOST_CLASSES = 30  # of a table of what was taken for what; with more only the commonest mix-ups are listed
MIX_UPS = 20


@dataclass(frozen=True)
class Mistake:
    """A sequence that a model names wrongly.

    Attributes:
        model: The model.
        name: The sequence.
        person: Whose movement it is.
        truth: The class that it has.
        found: The class that the model names.
        probability: The probability that it gives to that class, by its logits alone.
        drawing: The moving body, an SVG element.
    """

    model: str
    name: str
    person: str
    truth: str
    found: str
    probability: float
    drawing: str


class SkeletonRenderer(Renderer):
    """The general renderer, with a section of mistakes."""

    def find_mistakes(self, session: Session, evaluation: Evaluation) -> tuple[Sequence[Any], Sequence[Any]]:
        """Find the sequences that each model is most sure of and wrong about.

        Args:
            session: The session, with the opened models.
            evaluation: The tables of the models.

        Returns:
            The mistakes, and no pictures: a mistake has its own drawing.
        """
        found = [
            one
            for model in evaluation.models
            for table, samples in zip(
                model.tables, (each.open(model.input_key) for each in evaluation.sets), strict=True
            )
            for one in _list_worst(model.name, table, samples, _list_classes(evaluation))
        ]
        return found, ()

    def build_own_page(self, evaluation: Evaluation, measured: Measurements) -> OwnPage:
        """Build the section of mix-ups and the moving bodies of the worst mistakes."""
        from markupsafe import Markup

        from sharpstudent.report.evaluation import OwnPage

        shown = [
            (name, [(one, Markup(one.drawing)) for one in measured.mistakes if one.model == name])
            for name in dict.fromkeys(one.model for one in measured.mistakes)
        ]
        classes = _list_classes(evaluation)
        models = sorted(evaluation.models, key=lambda model: model.role != "distilled")
        confusions = [build_confusion(model.name, _join(model.tables), classes) for model in models]
        return OwnPage(TEMPLATE, PACKAGE, {"confusions": confusions, "mistakes": shown})


def _list_classes(evaluation: Evaluation) -> Sequence[str]:
    return getattr(evaluation.sets[0].task, "classes", ())


def _join(tables: Sequence[Table]) -> Table:
    import numpy as np

    return {name: np.concatenate([table[name] for table in tables]) for name in ("logits", "label")}


def _list_worst(model: str, table: Table, samples: Any, classes: Sequence[str]) -> list[Mistake]:
    """List the mistakes of a model on a set that it is surest of, one of each pair of classes."""
    from scipy.special import softmax

    chances = softmax(table["logits"].astype("float64"), axis=1)
    found = chances.argmax(axis=1)
    wrong = sorted((found != table["label"]).nonzero()[0].tolist(), key=lambda row: -chances[row].max())
    listed, seen = list[Mistake](), set[tuple[int, int]]()
    for row in wrong:
        pair = int(table["label"][row]), int(found[row])
        if pair in seen or len(listed) == SHOWN:
            continue
        seen.add(pair)
        truth, named = classes[pair[0]], classes[pair[1]]
        drawing = _draw(samples, int(table["key"][row, 0]), f"{truth}, taken for {named}")
        name, person = str(table["id"][row]), str(table["group"][row])
        listed.append(Mistake(model, name, person, truth, named, float(chances[row].max()), drawing))
    return listed


def _draw(samples: Sequences, index: int, title: str) -> str:
    from sharpstudent.data.dataset import UnreadableSample
    from sharpstudent.tasks.skeleton.animation import draw_animation

    try:
        bodies = samples.read(index)
    except UnreadableSample:
        return ""  # another sequence took its place
    return draw_animation(bodies[0], samples.skeleton, seconds=bodies.shape[1] / samples.rate, title=title)


def build_confusion(model: str, table: Mapping[str, Any], classes: Sequence[str]) -> TextTable:
    """Build the table of what a model took for what; of many classes the commonest mix-ups.

    Args:
        model: The name of the model.
        table: Its outputs, `logits` (N, C) and `label` (N,).
        classes: The names of the classes (C,).

    Returns:
        The table. A row is what a sequence shows, a column what the model says.
    """
    import numpy as np

    from sharpstudent.report.text_table import Cell, Group, Notes, Row, TextTable, build_list, text_cell

    counts = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(counts, (table["label"], table["logits"].argmax(axis=1)), 1)
    if len(classes) > MOST_CLASSES:
        wrong = counts - np.diag(np.diag(counts))
        order = np.argsort(-wrong, axis=None)[:MIX_UPS]
        pairs = [(place // len(classes), place % len(classes)) for place in order.tolist()]
        rows = [
            Row(text_cell(str(classes[truth])), (text_cell(str(classes[named])), Cell(f"{wrong[truth, named]}")))
            for truth, named in pairs
            if wrong[truth, named]
        ]
        heads = [text_cell("taken for"), Cell("times")]
        return build_list(f"What {model} mixes up most", "Shown", heads, rows, Notes())
    used = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1)).tolist()
    heads = tuple(Cell(f"{place + 1}", title=classes[place]) for place in used)
    rows = tuple(
        Row(text_cell(f"{truth + 1} {classes[truth]}"), tuple(Cell(f"{counts[truth, named] or ''}") for named in used))
        for truth in used
    )
    return TextTable(f"What {model} says of each action: rows show it, columns name it", "Shown", heads,
                     (Group("", rows),), ())  # fmt: skip
