"""Figures of many resamples at once: each the same number as its plain form gives on the samples as often as they were
drawn, to 1e-12. Legend: B resamples, F fakes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lib.metrics.draws import Drawn
from lib.metrics.eer import find_eer
from lib.metrics.tpr_at_fpr import find_tpr_at_fpr

CHUNK_CELLS = 2**15  # in the processor's cache: three times as fast as a million at once
DrawStatistic = Callable[[Drawn], NDArray[np.float64]]  # -> (B,)


def find_aucs(drawn: Drawn) -> NDArray[np.float64]:
    """As `compute_auc_by_rank`, to the last bit: the pairs won are whole numbers here, too."""
    fakes, reals = drawn.fakes, drawn.reals
    twice_won = np.vecdot(reals[:, 1:] - reals[:, :-1], fakes[:, 1:] + fakes[:, :-1])
    # Above: pairs of each step to the right with the fakes before it, and half of those that are tied with it.
    return twice_won / (2 * fakes[:, -1] * reals[:, -1])


def find_average_precisions(drawn: Drawn) -> NDArray[np.float64]:
    """As `compute_average_precision`."""
    at_fakes, at_reals = drawn.of.steps_of_recall
    total = np.zeros(len(drawn.fakes_among))
    before = np.zeros((len(total), 1), np.int64)
    width = max(1, CHUNK_CELLS // len(total))
    for start in range(0, len(at_fakes), width):
        part = slice(start, start + width)
        fakes = drawn.fakes_among.take(at_fakes[part], axis=1)
        found = drawn.reals_among.take(at_reals[part], axis=1) + fakes
        # Before the first sample that was drawn nothing is found, and no recall gained: 0 / 1 of 0.
        precision = fakes / np.maximum(found, 1, out=found)
        total += np.vecdot(precision, np.diff(fakes, axis=1, prepend=before).astype(np.float64))
        before = fakes[:, -1:]
    return total / drawn.fakes_among[:, -1]


def find_eers(drawn: Drawn) -> NDArray[np.float64]:
    """As `compute_eer`."""
    return find_eer(drawn.fakes, drawn.reals)


def at_fpr(wanted: float) -> DrawStatistic:
    """As `compute_tpr_at_fpr`: the TPR."""
    return lambda drawn: find_tpr_at_fpr(drawn.fakes, drawn.reals, wanted)


def accuracy_at(threshold: float) -> DrawStatistic:
    """As `compute_accuracy`."""

    def find(drawn: Drawn) -> NDArray[np.float64]:
        found, alarms = drawn.find_called_fake(threshold)
        fakes, reals = drawn.fakes_among[:, -1], drawn.reals_among[:, -1]
        return (found + reals - alarms) / (fakes + reals)

    return find


def balanced_accuracy_at(threshold: float) -> DrawStatistic:
    """As `compute_balanced_accuracy`."""
    apcer, bpcer = apcer_at(threshold), bpcer_at(threshold)
    return lambda drawn: 1.0 - 0.5 * (apcer(drawn) + bpcer(drawn))


def apcer_at(threshold: float) -> DrawStatistic:
    """As `compute_apcer`."""
    return lambda drawn: 1.0 - drawn.find_called_fake(threshold)[0] / drawn.fakes_among[:, -1]


def bpcer_at(threshold: float) -> DrawStatistic:
    """As `compute_bpcer`."""
    return lambda drawn: drawn.find_called_fake(threshold)[1] / drawn.reals_among[:, -1]
