"""Every figure of a set of scores by its name: how it is computed, and how on many resamples at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib.metrics import draw_statistics as drawn
from lib.metrics.accuracy import compute_accuracy, compute_balanced_accuracy
from lib.metrics.attack_errors import compute_apcer, compute_bpcer
from lib.metrics.auc import compute_auc
from lib.metrics.average_precision import compute_average_precision
from lib.metrics.calibration import compute_brier, compute_ece, compute_log_loss
from lib.metrics.eer import compute_eer
from lib.metrics.group_sums import SumStatistic, find_briers, find_eces, find_log_losses, to_logits
from lib.metrics.tpr_at_fpr import compute_tpr_at_fpr

FPRS = (0.01, 0.001)
HALF = {"half": 0.0}  # log-odds of a probability of one half

Margins = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Figure:
    """needs: the labels that must occur; compute: of margins (N,) and labels (N,); of_draws or of_sums: the same on
    resamples.
    """

    name: str
    needs: frozenset[int]
    compute: Callable[[Margins, Labels], float]
    of_draws: drawn.DrawStatistic | None = None
    of_sums: SumStatistic | None = None


ANY, FAKES, REALS, BOTH = frozenset[int](), frozenset({1}), frozenset({0}), frozenset({0, 1})


def list_figures(thresholds: Mapping[str, float]) -> list[Figure]:
    """All of them, `thresholds` [log-odds] by name besides `half`; the order is that of reports."""
    return [
        Figure("auc", BOTH, compute_auc, drawn.find_aucs),
        Figure("ap", BOTH, compute_average_precision, drawn.find_average_precisions),
        Figure("eer", BOTH, compute_eer, drawn.find_eers),
        *(_build_at_fpr(wanted) for wanted in FPRS),
        *(figure for name, value in {**HALF, **thresholds}.items() for figure in _build_at_threshold(name, value)),
        Figure("brier", ANY, lambda m, y: compute_brier(to_logits(m), y), of_sums=find_briers),
        Figure("ece", ANY, lambda m, y: compute_ece(to_logits(m), y), of_sums=find_eces),
        Figure("log_loss", ANY, lambda m, y: compute_log_loss(to_logits(m), y), of_sums=find_log_losses),
    ]


def name_at_fpr(wanted: float) -> str:
    """`tpr_at_fpr_1pct`, `tpr_at_fpr_0.1pct`."""
    return f"tpr_at_fpr_{100 * wanted:g}pct"


def _build_at_fpr(wanted: float) -> Figure:
    return Figure(
        name_at_fpr(wanted), BOTH, lambda m, y: compute_tpr_at_fpr(m, y, wanted=wanted).tpr, drawn.at_fpr(wanted)
    )


def _build_at_threshold(name: str, threshold: float) -> list[Figure]:
    def at(compute: Callable[..., float]) -> Callable[[Margins, Labels], float]:
        return lambda m, y: compute(m, y, threshold=threshold)

    return [
        Figure(f"accuracy_at_{name}", ANY, at(compute_accuracy), drawn.accuracy_at(threshold)),
        Figure(
            f"balanced_accuracy_at_{name}", BOTH, at(compute_balanced_accuracy), drawn.balanced_accuracy_at(threshold)
        ),
        Figure(f"apcer_at_{name}", FAKES, at(compute_apcer), drawn.apcer_at(threshold)),
        Figure(f"bpcer_at_{name}", REALS, at(compute_bpcer), drawn.bpcer_at(threshold)),
    ]
