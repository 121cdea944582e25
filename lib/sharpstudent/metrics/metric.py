"""What a metric is: a pure function of a table of rows and of how often each row was drawn.

Intervals over groups, pairs of models, averages over seeds and gates all follow from that one form. Legend: N rows,
G groups, B draws at once. NumPy is imported where it is used: a task names its metrics on the command line's way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sharpstudent.core.types import Direction, Table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Counts = NDArray[np.int64]  # (N,): how often each row was drawn; ones are the set itself
    OnBlock = Callable[[NDArray[Any]], NDArray[np.float64]]  # draws of groups (B, G) -> a value each (B,)
else:
    Counts, OnBlock = object, Callable


@dataclass(frozen=True)
class Metric:
    """One metric of a task.

    compute: (table, counts) -> value, NaN where it is undefined; a row that was not drawn is as if it were not there.
    chance: what guessing gives, perfect: the best value there is; None where there is none. They scale the limits of
    alarms and of weak teachers. format: of a value in tables. title: what readers call it, "" for its name.

    each: for a mean over rows, the value of each row (N,), NaN for a row that has none; a faster form of the draws
    follows from it. on_groups: a faster form of any other metric: (table, number of each row's group) -> `OnBlock`.
    strata: the column whose every value a draw must hold, as both classes of an AUC; other draws are drawn again.
    """

    compute: Callable[[Table, Counts], float]
    direction: Direction = "higher"
    chance: float | None = None
    perfect: float | None = None
    format: str = ".4f"
    title: str = ""
    each: Callable[[Table], NDArray[np.float64]] | None = None
    on_groups: Callable[[Table, NDArray[np.int64]], OnBlock] | None = None
    strata: str | None = None

    def value(self, table: Table) -> float:
        """Of the whole table."""
        import numpy as np

        return self.compute(table, np.ones(len(table["id"]), np.int64))

    def is_better(self, value: float, other: float) -> bool:
        """Whether a value beats another; of equal ones, neither does."""
        return value > other if self.direction == "higher" else value < other


def make_mean_metric(
    each: Callable[[Table], NDArray[np.float64]], direction: Direction = "higher", **more: Any
) -> Metric:
    """The mean over rows of `each`; rows without a value (NaN) do not count. more: other fields of `Metric`."""

    def compute(table: Table, counts: Counts) -> float:
        import numpy as np

        values = each(table)
        drawn = np.repeat(values, np.where(np.isnan(values), 0, counts))
        return float(drawn.mean()) if drawn.size else float("nan")

    return Metric(compute, direction, each=each, **more)


BinaryMetric = Literal["auc", "auc_by_rank", "average_precision", "eer"]
_BINARY: Mapping[BinaryMetric, dict[str, Any]] = {
    "auc": {"direction": "higher", "chance": 0.5, "perfect": 1.0, "title": "AUC"},
    "auc_by_rank": {"direction": "higher", "chance": 0.5, "perfect": 1.0, "title": "AUC"},
    "average_precision": {"direction": "higher", "perfect": 1.0, "title": "average precision"},
    "eer": {"direction": "lower", "chance": 0.5, "perfect": 0.0, "title": "EER"},
}


def make_binary_metric(
    kind: BinaryMetric, score: Callable[[Table], NDArray[np.float64]], *, label: str = "label", **more: Any
) -> Metric:
    """A metric of scores that separate two classes.

    Args:
        kind: `auc` and `average_precision` of a whole table are scikit-learn's to the last bit; `auc_by_rank` is the
            same AUC, but as on draws: the difference of two models is made of these.
        score: the scores (N,) of a table, which rise with class 1.
        label: the column of classes, 0 and 1; both must occur in what is drawn.
        more: other fields of `Metric`.
    """

    def compute(table: Table, counts: Counts) -> float:
        from sharpstudent.metrics.binary_draws import compute_counted

        return compute_counted(kind, score(table), table[label], counts, sample_ids=table["id"].tolist())

    def on_groups(table: Table, group_of: NDArray[np.int64]) -> OnBlock:
        from sharpstudent.metrics.binary_draws import build_on_block

        return build_on_block(kind, score(table), table[label], group_of)

    return Metric(compute, on_groups=on_groups, strata=label, **{**_BINARY[kind], **more})


def repeat_rows(table: Table, counts: Counts) -> Table:
    """The table with each row as often as it was drawn, for a metric that has no form of its own for draws."""
    import numpy as np

    rows = np.repeat(np.arange(len(counts)), counts)
    return {name: column[rows] for name, column in table.items()}
