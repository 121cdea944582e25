"""Defines `Metric`: a pure function of a table of rows and of how often each row was drawn.

From this form, intervals over groups, paired differences of models and averages over seeds can all be computed. NumPy
is imported where it is used, because a command line reads a task's metrics before anything heavy is imported.

Legend: N rows, G groups, B draws at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sharpstudent.core.types import Direction, Table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Counts = NDArray[np.int64]  # (N,): how often each row was drawn; all ones for the set itself
    OnBlock = Callable[[NDArray[Any]], NDArray[np.float64]]  # draws of groups (B, G) -> a value each (B,)
else:
    Counts, OnBlock = object, Callable


@dataclass(frozen=True)
class Metric:
    """One metric of a task.

    Attributes:
        compute: (table, counts) -> value, NaN where it is undefined. A row with a count of 0 has no influence.
        direction: Which values are better.
        chance: The value of guessing; None where it is not known. Limits of alarms and of weak teachers depend on it.
        perfect: The best possible value; None where there is none.
        format: How a value is written in tables, as Python's `format` takes it.
        title: What readers call it; "" for its name.
        each: For a mean over rows: the value of each row (N,), NaN for a row without one. It makes resampling fast.
        on_groups: For any other metric, a fast form for resampling: (table, number of each row's group) -> `OnBlock`.
        strata: A column; each draw must hold all its values, such as both classes of an AUC, or it is drawn again.
        bounds: The lowest and the highest possible value, infinite where there is none: (0, 1) for a share. Intervals
            keep to them. None where they are not known; a mean of zeros and ones is taken for a share.
        falls_with_share: Whether other groups, a share p of all, change the value by at most p of the way to a bound.
            It holds for means and AUC, but not for an average precision. Where it does, a value that no draw changes
            has an interval, too.
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
    bounds: tuple[float, float] | None = None
    falls_with_share: bool = True

    def value(self, table: Table) -> float:
        """Compute the metric of a whole table."""
        import numpy as np

        return self.compute(table, np.ones(len(table["id"]), np.int64))

    def is_better(self, value: float, other: float) -> bool:
        """Say whether a value is better than another.

        Args:
            value: The first.
            other: The second.

        Returns:
            True where the first is better; False also for equal values.
        """
        return value > other if self.direction == "higher" else value < other


def make_mean_metric(
    each: Callable[[Table], NDArray[np.float64]], direction: Direction = "higher", **more: Any
) -> Metric:
    """Build a metric that is a mean over rows.

    Args:
        each: The value of each row (N,) of a table; rows of NaN do not count.
        direction: Which values are better.
        more: Other fields of `Metric`.

    Returns:
        The metric.
    """

    def _compute(table: Table, counts: Counts) -> float:
        import numpy as np

        values = each(table)
        drawn = np.repeat(values, np.where(np.isnan(values), 0, counts))
        return float(drawn.mean()) if drawn.size else float("nan")

    return Metric(_compute, direction, each=each, **more)


BinaryMetric = Literal["auc", "auc_by_rank", "average_precision", "eer"]
_BINARY: Mapping[BinaryMetric, dict[str, Any]] = {
    "auc": {"direction": "higher", "chance": 0.5, "perfect": 1.0, "title": "AUC", "bounds": (0.0, 1.0)},
    "auc_by_rank": {"direction": "higher", "chance": 0.5, "perfect": 1.0, "title": "AUC", "bounds": (0.0, 1.0)},
    "average_precision": {
        **{"direction": "higher", "perfect": 1.0, "title": "average precision"},
        **{"bounds": (0.0, 1.0), "falls_with_share": False},
    },
    "eer": {"direction": "lower", "chance": 0.5, "perfect": 0.0, "title": "EER", "bounds": (0.0, 1.0)},
}


def make_binary_metric(
    kind: BinaryMetric, score: Callable[[Table], NDArray[np.float64]], *, label: str = "label", **more: Any
) -> Metric:
    """Build a metric of scores that separate two classes.

    Args:
        kind: `auc` and `average_precision` of a whole table equal scikit-learn's to the last bit. `auc_by_rank` is the
            same AUC computed as on draws, for paired differences.
        score: The scores (N,) of a table, which rise with class 1.
        label: The column of classes, 0 and 1; every draw must hold both.
        more: Other fields of `Metric`.

    Returns:
        The metric.
    """

    def _compute(table: Table, counts: Counts) -> float:
        from sharpstudent.metrics.binary_draws import compute_counted

        return compute_counted(kind, score(table), table[label], counts, sample_ids=table["id"].tolist())

    def _on_groups(table: Table, group_of: NDArray[np.int64]) -> OnBlock:
        from sharpstudent.metrics.binary_draws import build_on_block

        return build_on_block(kind, score(table), table[label], group_of)

    return Metric(_compute, on_groups=_on_groups, strata=label, **{**_BINARY[kind], **more})


def repeat_rows(table: Table, counts: Counts) -> Table:
    """Repeat each row as often as it was drawn, for a metric without a fast form for resampling.

    Args:
        table: N rows.
        counts: How often each was drawn (N,).

    Returns:
        The table of the drawn rows.
    """
    import numpy as np

    rows = np.repeat(np.arange(len(counts)), counts)
    return {name: column[rows] for name, column in table.items()}
