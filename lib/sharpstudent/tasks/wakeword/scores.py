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
from sharpstudent.metrics.metric import Counts, Metric, OnBlock, make_binary_metric, make_mean_metric, repeat_rows

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


def _make_ratio(build: Callable[[Table], tuple[Column, Column]], **more: Any) -> Metric:
    """Build a metric that is a sum over rows divided by another; build returns both summands of each row (N,)."""

    def divide(above: Any, below: Any) -> Any:
        import numpy as np

        return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=np.asarray(below) > 0)

    def compute(table: Table, counts: Counts) -> float:
        above, below = build(table)
        return float(divide(above @ counts, below @ counts))

    def on_groups(table: Table, group_of: NDArray[np.int64]) -> OnBlock:
        import numpy as np

        sums = [np.bincount(group_of, part, int(group_of.max()) + 1) for part in build(table)]
        return lambda drawn: divide(drawn @ sums[0], drawn @ sums[1])

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
    return _detect_in_streams(table), hours


def _detect_in_streams(table: Table) -> Column:
    """Give each detection of the streaming detector to the first row of its recording (N,)."""
    import numpy as np

    from sharpstudent.tasks.wakeword.detections import detect

    probability, alarms = find_probability(table), np.zeros(len(table["label"]))
    names, inverse = np.unique(table["recording"], return_inverse=True)
    order = np.lexsort((table["start"], inverse))
    bounds = np.searchsorted(inverse[order], np.arange(len(names) + 1))
    for first, last in pairwise(bounds.tolist()):
        rows = order[first:last]
        if table["recording"][rows[0]] != "":
            alarms[rows[0]] = len(detect(table["start"][rows], probability[rows], THRESHOLD, 0.0))
    return alarms


def _make_recall_at(rate: float) -> Callable[[Table, Counts], float]:
    """Build the recall at this many false alarms an hour; NaN without positives or negatives."""

    def compute(table: Table, counts: Counts) -> float:
        import numpy as np

        margin, label = find_margin(table), table["label"] == 1
        hours = float(np.sum(np.where(label, 0.0, table["seconds"]) * counts)) / 3600.0
        positives = int(counts[label].sum())
        if not positives or hours <= 0.0:
            return float("nan")
        order = np.argsort(-margin, kind="stable")
        alarms = np.cumsum(np.where(label, 0, counts)[order])
        hits = np.cumsum(np.where(label, counts, 0)[order])
        is_last = np.append(margin[order][1:] != margin[order][:-1], True)  # of the rows of one score
        allowed = is_last & (alarms <= rate * hours)
        return float(hits[allowed].max(initial=0) / positives)

    return compute


def _compute_partial_auc(table: Table, counts: Counts) -> float:
    import numpy as np
    from sklearn.metrics import roc_auc_score

    drawn = repeat_rows({"label": table["label"], "margin": find_margin(table)}, counts)
    if len(np.unique(drawn["label"])) < 2:
        return float("nan")
    return float(roc_auc_score(drawn["label"], drawn["margin"], max_fpr=MOST_FPR))


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
        _compute_partial_auc, title="partial AUC", chance=0.5, perfect=1.0, strata="label", falls_with_share=False,
        **_SHARE,
    ),
    "fpr": make_mean_metric(_find_called(0, True), "lower", title="false positive rate", perfect=0.0, **_SHARE),
    "fnr": make_mean_metric(_find_called(1, True), "lower", title="false negative rate", perfect=0.0, **_SHARE),
    "false_alarms_per_hour": _make_ratio(
        _count_alarms, direction="lower", title="false alarms an hour", perfect=0.0, format=".2f", bounds=_ENDLESS,
        falls_with_share=False,
    ),
    "recall_at_1": Metric(
        _make_recall_at(1.0), title="recall at 1 false alarm an hour", perfect=1.0, falls_with_share=False, **_SHARE
    ),
    "recall_at_half": Metric(
        _make_recall_at(0.5), title="recall at 0.5 false alarms an hour", perfect=1.0, falls_with_share=False, **_SHARE
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
