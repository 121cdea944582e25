"""Metrics of wake words. A window counts as the word where its probability is at least one half.

F1 = 2 TP / (2 TP + FP + FN). The partial AUC is the area under the ROC up to a false positive rate of 0.1, on
McClish's scale: 0.5 for chance, 1 for a perfect model (McClish 1989, "Analyzing a portion of the ROC curve").

False alarms an hour: of the windows of `test-stream`, the detections of the streaming detector; of other windows, those
called positive, each counted for the seconds that it shows. Recall at r alarms an hour is the largest recall of a
threshold with at most r.

NumPy is imported where it is used: a command line reads the metrics before anything heavy is loaded.

Legend: N rows, B draws, G groups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from sharpstudent.core.types import Table
from sharpstudent.metrics.metric import Counts, Metric, OnBlock, make_binary_metric, make_mean_metric

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Column = NDArray[np.float64]

MOST_FPR = 0.1  # of the partial AUC
THRESHOLD = 0.5


def find_margin(table: Table) -> Column:
    """Compute the log-odds of the word (N,)."""
    from sharpstudent.metrics.checks import check_logits

    logits, _ = check_logits(table["logits"], table["label"])
    return (logits[:, 1] - logits[:, 0]).astype("float64")


def find_probability(table: Table) -> Column:
    """Compute the probability of the word (N,)."""
    from scipy.special import expit

    return expit(find_margin(table))


def _find_correct(table: Table) -> Column:
    return ((find_margin(table) >= 0) == (table["label"] == 1)).astype("float64")


def _find_called(label: int, wrong: bool) -> Callable[[Table], Column]:
    """Build a function: 1 for each row of this label that is called wrongly, NaN for rows of the other label."""

    def compute(table: Table) -> Column:
        import numpy as np

        called = find_margin(table) >= 0
        return np.where(table["label"] == label, (called != (label == 1)) == wrong, np.nan)

    return compute


def _divide(above: Any, below: Any) -> Any:
    """Divide; NaN where the divisor is not above 0."""
    import numpy as np

    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=np.asarray(below) > 0)


def _make_ratio(build: Callable[[Table], tuple[Column, Column]], **more: Any) -> Metric:
    """Build a metric that is a sum over rows divided by another; build returns both summands of each row (N,)."""

    def compute(table: Table, counts: Counts) -> float:
        above, below = build(table)
        return float(_divide(above @ counts, below @ counts))

    def on_groups(table: Table, group_of: NDArray[np.int64]) -> OnBlock:
        import numpy as np

        sums = [np.bincount(group_of, part, int(group_of.max()) + 1) for part in build(table)]
        return lambda drawn: _divide(drawn @ sums[0], drawn @ sums[1])

    return Metric(compute, on_groups=on_groups, **more)


def _count_for_f1(table: Table) -> tuple[Column, Column]:
    called, label = find_margin(table) >= 0, table["label"] == 1
    hits = 2.0 * (called & label)
    return hits, hits + (called != label)


def _count_alarms(table: Table) -> tuple[Column, Column]:
    """Count false alarms, and the hours in which there can be some, by row."""
    import numpy as np

    negative = table["label"] == 0
    hours = np.where(negative, table["seconds"], 0.0) / 3600.0
    if not (table["recording"] != "").any():
        return (negative & (find_margin(table) >= 0)).astype("float64"), hours
    return count_detections(table, find_probability(table), THRESHOLD), hours


def count_detections(table: Table, probability: Column, threshold: float) -> Column:
    """Give each detection of the streaming detector to the first row of its recording.

    Args:
        table: Windows of streams, with `recording` and `start`; rows of no recording get none.
        probability: Of the word in each window (N,).
        threshold: That of the detector.

    Returns:
        How many detections each row has (N,).
    """
    import numpy as np

    from sharpstudent.tasks.wakeword.detections import detect

    alarms = np.zeros(len(table["label"]))
    names, inverse = np.unique(table["recording"], return_inverse=True)
    order = np.lexsort((table["start"], inverse))
    bounds = np.searchsorted(inverse[order], np.arange(len(names) + 1))
    for first, last in pairwise(bounds.tolist()):
        rows = order[first:last]
        if table["recording"][rows[0]] != "":
            alarms[rows[0]] = len(detect(table["start"][rows], probability[rows], threshold, 0.0))
    return alarms


def _on_draws(table: Table, group_of: NDArray[np.int64]) -> Any:
    """Sort the scores of a table once, for any number of draws; None where a class is missing."""
    import numpy as np

    from sharpstudent.metrics.binary_draws import GroupedScores

    labels = table["label"].astype(np.int64)
    return GroupedScores(find_margin(table), labels, group_of) if len(np.unique(labels)) == 2 else None


def _sum_hours(table: Table, group_of: NDArray[np.int64]) -> Column:
    """Sum the hours without the word of each group (G,)."""
    import numpy as np

    seconds = np.where(table["label"] == 1, 0.0, table["seconds"])
    return np.bincount(group_of, seconds, int(group_of.max(initial=0)) + 1) / 3600.0


def _make_recall_at(rate: float, **more: Any) -> Metric:
    """Build the recall at this many false alarms an hour; NaN without positives or negatives."""

    def on_groups(table: Table, group_of: NDArray[np.int64]) -> OnBlock:
        import numpy as np

        scores, hours = _on_draws(table, group_of), _sum_hours(table, group_of)

        def compute(drawn: NDArray[Any]) -> Column:
            if scores is None:
                return np.full(len(drawn), np.nan)
            found, ranked = scores.draw(drawn), scores.ranked
            hits = found.positives_among.take(ranked.positives, axis=1)
            alarms = found.negatives_among.take(ranked.negatives, axis=1)
            best = np.where(alarms <= rate * (drawn @ hours)[:, None], hits, 0).max(axis=1)
            return _divide(best, hits[:, -1] * (alarms[:, -1] > 0))

        return compute

    return Metric(_compute_by(on_groups), on_groups=on_groups, **more)


def _draw_partial_auc(table: Table, group_of: NDArray[np.int64]) -> OnBlock:
    """Build the partial AUC of draws: trapezoids of the ROC up to MOST_FPR, on McClish's scale."""
    import numpy as np

    scores = _on_draws(table, group_of)

    def compute(drawn: NDArray[Any]) -> Column:
        if scores is None:
            return np.full(len(drawn), np.nan)
        found = scores.draw(drawn)
        x, y = (_divide(one, one[:, -1:]) for one in (found.negatives, found.positives))
        widths = np.minimum(x[:, 1:], MOST_FPR) - np.minimum(x[:, :-1], MOST_FPR)
        share = _divide(widths, x[:, 1:] - x[:, :-1])  # of the step that lies below MOST_FPR; NaN for upright ones
        heights = y[:, :-1] + 0.5 * np.nan_to_num(share) * (y[:, 1:] - y[:, :-1])
        area, least = (widths * heights).sum(axis=1), 0.5 * MOST_FPR**2
        return 0.5 * (1.0 + (area - least) / (MOST_FPR - least))

    return compute


def _compute_by(on_groups: Callable[[Table, NDArray[np.int64]], OnBlock]) -> Callable[[Table, Counts], float]:
    """Build the function of single rows from that of groups: each row is a group of its own."""

    def compute(table: Table, counts: Counts) -> float:
        import numpy as np

        return float(on_groups(table, np.arange(len(counts)))(counts[None])[0])

    return compute


def _compute_log_loss(table: Table, counts: Counts) -> float:
    from sharpstudent.metrics.calibration import compute_log_loss

    return compute_log_loss(table["logits"], table["label"], counts)


_SHARE: Mapping[str, Any] = {"bounds": (0.0, 1.0)}
_ENDLESS = (0.0, float("inf"))
METRICS: Mapping[str, Metric] = {
    "f1": _make_ratio(_count_for_f1, title="F1", perfect=1.0, falls_with_share=False, **_SHARE),
    "accuracy": make_mean_metric(_find_correct, perfect=1.0, chance=0.5, **_SHARE),
    "eer": make_binary_metric("eer", find_margin),
    "auc": make_binary_metric("auc", find_margin),
    "partial_auc": Metric(
        _compute_by(_draw_partial_auc), title="partial AUC", chance=0.5, perfect=1.0, strata="label",
        on_groups=_draw_partial_auc, falls_with_share=False, **_SHARE,
    ),
    "fpr": make_mean_metric(_find_called(0, True), "lower", title="false positive rate", perfect=0.0, **_SHARE),
    "fnr": make_mean_metric(_find_called(1, True), "lower", title="false negative rate", perfect=0.0, **_SHARE),
    "false_alarms_per_hour": _make_ratio(
        _count_alarms, direction="lower", title="false alarms an hour", perfect=0.0, format=".2f", bounds=_ENDLESS,
        falls_with_share=False,
    ),
    "recall_at_1": _make_recall_at(
        1.0, title="recall at 1 false alarm an hour", perfect=1.0, falls_with_share=False, **_SHARE
    ),
    "recall_at_half": _make_recall_at(
        0.5, title="recall at 0.5 false alarms an hour", perfect=1.0, falls_with_share=False, **_SHARE
    ),
    "log_loss": Metric(_compute_log_loss, "lower", perfect=0.0, title="log loss", bounds=_ENDLESS),
}  # fmt: skip


def bound_rate(count: int, hours: float, confidence: float = 0.95) -> float:
    """Compute the upper bound of a Poisson rate, one-sided and exact (Garwood 1936): 3 / hours where nothing happened.

    Args:
        count: How many false alarms there were.
        hours: In how many hours.
        confidence: The confidence, 0..1.

    Returns:
        Alarms an hour.
    """
    from scipy.stats import chi2

    return float(chi2.ppf(confidence, 2 * count + 2) / 2 / hours) if hours > 0 else float("inf")
