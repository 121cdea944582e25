"""Metrics of many resamples at once: scores are sorted once, and each metric equals that of its plain function.

Draws of whole groups, people or clips, with replacement: how often each is in a resample.

A round draws as many groups as there are. Legend: N samples, G groups, R rounds in blocks of B.

Scores that are sorted once, and the ROCs of many resamples of their groups.

A resample that holds some group twice is the same samples, each counted twice: two running sums of the counts, over
fakes and reals from the highest score down, are its ROC in whole numbers. Nothing is sorted or copied again, and a
round takes time in proportion to the samples. Legend: N samples, F of them fakes and N - F reals, G groups, B rounds.

Brier score, log loss and calibration error of many resamples at once, from sums over each group.

All are means over samples, or made of them: a resample's sums are those of its groups, as often as they were drawn.
Legend: N samples, G groups, B resamples; margins: log-odds of fake; labels real 0, fake 1.

Figures of many resamples at once: each the same number as its plain form gives on the samples as often as they were
drawn, to 1e-12. Legend: B resamples, F fakes.

Many figures from one set of draws: the scores are sorted once, and the counts of each round summed up once.

Legend: N samples, G groups, R rounds in blocks of B; labels real 0, fake 1.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import neg
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpstudent.metrics.binary import Ranked, find_corners, find_eer, find_tpr_at_fpr, rank_scores
from sharpstudent.metrics.calibration import BINS, find_bins, find_confidence
from sharpstudent.metrics.checks import MetricError, number_names

# How often each group was drawn (B, G): whole numbers, no wider than they need be, for the tables that samples look
# their group up in are read N times a round.
Counts = NDArray[np.unsignedinteger[Any] | np.int64]
OnBlock = Callable[[Counts], NDArray[np.float64]]  # (B, G) -> (B,): a figure of each of B draws
BLOCK_CELLS = 2**18  # of a block of rounds over all samples: memory does not grow with the rounds


def number_groups(groups: Sequence[str], *, samples: int) -> NDArray[np.int64]:
    """Group names (N,) as numbers 0..G-1 in the names' order, so that the order of the samples does not matter.

    Raises MetricError for another number of samples, and for one group: one person says nothing about people.
    """
    if len(groups) != samples:
        raise MetricError(f"{len(groups)} groups for {samples} samples")
    names, numbers = number_names(groups)
    if len(names) < 2:
        raise MetricError(f"an interval over people needs two of them or more, all samples are of {names[0]!r}")
    return numbers


def draw_counts(
    group_of: NDArray[np.int64], labels: NDArray[np.int64], *, rounds: int, seed: int
) -> Iterator[NDArray[np.int64]]:
    """R times: how often each group was drawn (G,). Draws that hold one class only are drawn again."""
    generator = np.random.default_rng(seed)
    size = int(group_of.max()) + 1
    of_reals, of_fakes = (np.unique(group_of[labels == c]) for c in (0, 1))
    for _ in range(rounds):
        while True:
            counts = np.bincount(generator.integers(size, size=size), minlength=size)
            if _holds_any(counts, of_reals) and _holds_any(counts, of_fakes):
                break
        yield counts


def draw_blocks(group_of: NDArray[np.int64], labels: NDArray[np.int64], *, rounds: int, seed: int) -> Iterator[Counts]:
    """The same draws as `draw_counts`, B of them at a time: (B, G)."""
    most = max(1, BLOCK_CELLS // max(len(group_of), int(group_of.max()) + 1))
    waiting: list[Counts] = []
    for done, counts in enumerate(draw_counts(group_of, labels, rounds=rounds, seed=seed), start=1):
        waiting.append(counts.astype(np.uint16) if counts.max() < 2**16 else counts)
        if len(waiting) == most or done == rounds:
            yield np.stack(waiting)
            waiting.clear()


def _holds_any(counts: NDArray[np.int64], groups: NDArray[np.int64]) -> bool:
    """Whether any of the groups was drawn; the first few tell of nearly every draw."""
    return bool(counts[groups[:64]].any()) or bool(counts[groups].any())


class GroupedScores:
    """Checked scores (N,) and labels (N,) of both classes, in groups 0..G-1: group_of (N,)."""

    def __init__(self, scores: NDArray[np.float64], labels: NDArray[np.int64], group_of: NDArray[np.int64]) -> None:
        self.ranked: Ranked = rank_scores(scores, labels)
        is_fake = labels[self.ranked.order] == 1
        self._group_of_fakes = group_of[self.ranked.order[is_fake]]
        self._group_of_reals = group_of[self.ranked.order[~is_fake]]
        corners = find_corners(self.ranked.fakes, self.ranked.reals)
        self.fakes_at_corners, self.reals_at_corners = self.ranked.fakes[corners], self.ranked.reals[corners]

    @cached_property
    def steps_of_recall(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Fakes and reals at or above each distinct score that some fake has."""
        places = np.flatnonzero(np.diff(self.ranked.fakes)) + 1
        return self.ranked.fakes[places], self.ranked.reals[places]

    def draw(self, counts: Counts) -> Drawn:
        """The ROCs of B resamples; counts (B, G): how often each group is in each."""
        return Drawn(self, _sum_up(counts, self._group_of_fakes), _sum_up(counts, self._group_of_reals))


@dataclass(frozen=True)
class Drawn:
    """B resamples of the same scores. fakes_among, reals_among: int64 (B, F + 1) and (B, N - F + 1), how often the
    highest 0, 1, 2, ... fakes and reals were drawn together.
    """

    of: GroupedScores
    fakes_among: NDArray[np.int64]
    reals_among: NDArray[np.int64]

    @cached_property
    def fakes(self) -> NDArray[np.int64]:
        """Of the corners of the ROC, as in `Ranked` (B, corners)."""
        return self.fakes_among.take(self.of.fakes_at_corners, axis=1)

    @cached_property
    def reals(self) -> NDArray[np.int64]:
        """Of the corners of the ROC, as in `Ranked` (B, corners)."""
        return self.reals_among.take(self.of.reals_at_corners, axis=1)

    def find_called_fake(self, threshold: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How many fakes and how many reals of each resample score at the threshold or above: (B,) and (B,)."""
        ranked = self.of.ranked
        place = bisect_right(ranked.thresholds, -threshold, key=neg)  # they fall
        return self.fakes_among[:, ranked.fakes[place]], self.reals_among[:, ranked.reals[place]]


def _sum_up(counts: Counts, group_of: NDArray[np.int64]) -> NDArray[np.int64]:
    sums = np.zeros((len(counts), len(group_of) + 1), np.int64)
    np.cumsum(counts.take(group_of, axis=1), axis=1, dtype=np.int64, out=sums[:, 1:])
    return sums


SumStatistic = Callable[[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]], OnBlock]


def find_briers(margins: NDArray[np.float64], labels: NDArray[np.int64], group_of: NDArray[np.int64]) -> OnBlock:
    """As `compute_brier`; all three (N,)."""
    probability = 0.5 * (1.0 + np.tanh(0.5 * margins))
    return _build_mean((probability - labels) ** 2, group_of)


def find_log_losses(margins: NDArray[np.float64], labels: NDArray[np.int64], group_of: NDArray[np.int64]) -> OnBlock:
    """As `compute_log_loss`; all three (N,)."""
    return _build_mean(np.logaddexp(0.0, np.where(labels == 1, -margins, margins)), group_of)


def find_eces(margins: NDArray[np.float64], labels: NDArray[np.int64], group_of: NDArray[np.int64]) -> OnBlock:
    """As `compute_ece` with its usual bins; all three (N,)."""
    confidence, right = find_confidence(to_logits(margins), labels)
    cell = group_of * BINS + find_bins(confidence, BINS)
    size = int(group_of.max()) + 1
    gaps = np.bincount(cell, right - confidence, minlength=size * BINS).reshape(size, BINS)
    samples = np.bincount(group_of).astype(np.float64)
    return lambda counts: np.abs(counts @ gaps).sum(axis=1) / (counts @ samples)


def to_logits(margins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logits (N, 2) of two classes, real and fake, with these log-odds."""
    return np.stack([np.zeros_like(margins), margins], axis=1)


def _build_mean(values: NDArray[np.float64], group_of: NDArray[np.int64]) -> OnBlock:
    sums, samples = np.bincount(group_of, values), np.bincount(group_of).astype(np.float64)
    return lambda counts: (counts @ sums) / (counts @ samples)


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


def resample_figures(
    scores: NDArray[np.float64],
    labels: NDArray[np.int64],
    group_of: NDArray[np.int64],
    *,
    of_draws: Mapping[str, DrawStatistic],
    of_sums: Mapping[str, SumStatistic],
    rounds: int,
    seed: int,
) -> dict[str, NDArray[np.float64]]:
    """The R values of each figure (R,). Checked scores (N,) and labels (N,) of both classes, group_of: 0..G-1 (N,).

    The draws are those of `compute_interval_by_group` for the same groups and seed. of_sums: scores are log-odds then.
    """
    grouped = GroupedScores(scores, labels, group_of) if of_draws else None
    on_blocks = {name: statistic(scores, labels, group_of) for name, statistic in of_sums.items()}
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in (*of_draws, *of_sums)}
    for counts in draw_blocks(group_of, labels, rounds=rounds, seed=seed):
        if grouped is not None:
            drawn = grouped.draw(counts)
            for name, statistic in of_draws.items():
                found[name].append(statistic(drawn))
        for name, on_block in on_blocks.items():
            found[name].append(on_block(counts))
    return {name: np.concatenate(parts) for name, parts in found.items()}
