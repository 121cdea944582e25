"""The leak probe: can trivial statistics of pictures tell training's fakes from its real faces?

A boosted tree learns from the statistics of `modalities/faces/trivia.py`, and is tested on people whom it has not seen,
twice:

- On whole pictures. The blend itself moves the statistics, the more the more alike the photos are; the generator
  published with self-blended images was found to have .75 to .77.
- Outside the blend: the fake, with the real face's pixels where something was blended in. What the tree finds there has
  nothing to do with a blend: it is compression, size, noise or colour of whole fakes, and a network would learn it.
  Here chance is right, whatever the photos.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.errors import UserError, format_count_of
from sharpstudent.core.random import build_generator
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.metrics.binary import compute_auc
from sharpstudent.metrics.bootstrap import compute_interval
from sharpstudent.metrics.intervals import Estimate
from sharpstudent.modalities.faces.trivia import measure_trivia
from sharpstudent.tasks.deepfake.metrics import METRICS
from sharpstudent.tasks.deepfake.samples import FaceSamples

PUBLISHED_AUC = 0.77  # the most that the published generator had, on whole pictures
# Outside the blend, the probe speaks of a leak from here on. Without one, 320 pairs measured .49 to .51: codecs carry a
# trace of the blend a few blocks beyond it.
LEAK_AUC = 0.55
BLEND_REACH = 1 / 12  # how far around the blend pixels are taken for the blend's, share of the picture's side
PAIRS = 320
FOLDS = 5
SHOWN = 3  # single statistics that are named
ROUNDS = 300  # of the interval's bootstrap


@dataclass(frozen=True)
class PairStatistics:
    """The statistics of pairs of a real face and its fake.

    Attributes:
        names: The statistics.
        real: (n, names).
        fake: (n, names).
        outside: Those of the fakes with the blend undone, (n, names).
        people: The person of each pair.
    """

    names: tuple[str, ...]
    real: NDArray[np.float64]
    fake: NDArray[np.float64]
    outside: NDArray[np.float64]
    people: tuple[str, ...]


@dataclass(frozen=True)
class LeakProbe:
    """How well trivial statistics tell fakes from real faces.

    Attributes:
        whole: The AUC of the boosted tree on whole pictures of people whom it has not seen, with its interval.
        outside: The same outside the blend.
        pairs: The number of pairs.
        people: The number of people.
        strongest: The single statistics that tell most outside the blend, each with its own AUC (at least .5).
    """

    whole: Estimate
    outside: Estimate
    pairs: int
    people: int
    strongest: tuple[tuple[str, float], ...]

    @property
    def has_leak(self) -> bool:
        """Whether something outside the blend gives fakes away."""
        return self.outside.value >= LEAK_AUC

    def describe(self) -> list[str]:
        """Say what was found, in lines."""
        counted = f"{format_count_of(self.pairs, 'pair')} of {format_count_of(self.people, 'person')}"
        told = ", ".join(f"{name} ({auc:.3f})" for name, auc in self.strongest)
        lines = [
            f"a boosted tree on trivial statistics, {counted}, people held out:",
            f"whole pictures: AUC {_format(self.whole)} (the published self-blends: .75 to .77; more where photos are "
            "alike, as in a studio)",
            f"outside the blend: AUC {_format(self.outside)} (chance .5)",
        ]
        if self.has_leak:
            lines.append(
                "something outside the blend gives the fakes away, such as compression, size, noise or colour; the "
                f"single statistics that tell most: {told}"
            )
        return lines


def _format(estimate: Estimate) -> str:
    ends = "" if estimate.low is None else f" [{estimate.low:.3f}, {estimate.high:.3f}]"
    return f"{estimate.value:.3f}{ends}"


def measure_pairs(samples: FaceSamples, count: int, seed: int, say: Callable[[str], None] = print) -> PairStatistics:
    """Draw pairs as training does, and measure them.

    Args:
        samples: Training samples that draw a real face and a fake.
        count: The number of pairs; faces are visited in order, and again in further epochs where they are too few.
        seed: The seed of the run.
        say: Gets a line for each hundred pairs.

    Returns:
        The statistics.

    Raises:
        UserError: Where samples are single pictures, or no pair can be read.
    """
    rows: list[list[dict[str, float]]] = []
    people: list[str] = []
    steps = np.linspace(0, len(samples), min(count, len(samples)), endpoint=False).astype(int).tolist()
    for visit in range(count):
        epoch, index = 1 + visit // len(steps), steps[visit % len(steps)]
        try:
            drawing = samples.draw(index, build_generator(seed, epoch, index))
        except UnreadableSample:  # training takes another face in its place, and names it in the log
            continue
        if drawing.mask is None:
            remedy = "set fakes to blend; labelled pictures differ by what their makers did, not by this program"
            raise UserError.about("the leak probe", "needs pairs of a real face and its fake", remedy=remedy)
        one, other = drawing.pictures
        rows.append([measure_trivia(picture) for picture in (one, other, undo_blend(one, other, drawing.mask))])
        people.append(samples.group(index))
        if len(people) % 100 == 0:
            say(f"measured {len(people)} of {count} pairs")
    if not rows:
        raise UserError.about("the leak probe", "has no face that can be read", remedy="check data_root")
    real, fake, outside = (np.array([[*row[side].values()] for row in rows]) for side in range(3))
    return PairStatistics(tuple(rows[0][0]), real, fake, outside, tuple(people))


def undo_blend(real: NDArray[np.uint8], fake: NDArray[np.uint8], mask: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Put the real face's pixels into a fake where something was blended in, and around it.

    Args:
        real: uint8 (S, S, 3) RGB.
        fake: uint8 (S, S, 3) RGB.
        mask: The blended-in share of each pixel, float32 (S, S).

    Returns:
        uint8 (S, S, 3); the real face where the two differ by their blend only.
    """
    reach = 2 * math.ceil(BLEND_REACH * len(mask)) + 1
    is_blend = cv2.dilate((mask > 0).view(np.uint8), np.ones((reach, reach), np.uint8)) > 0
    return np.where(is_blend[..., None], real, fake)


def probe_leak(statistics: PairStatistics, seed: int = 0) -> LeakProbe:
    """Train and test boosted trees on the statistics, people held out.

    Args:
        statistics: The pairs.
        seed: Draws the folds.

    Returns:
        What was found.

    Raises:
        UserError: For fewer than FOLDS people.
    """
    people = np.unique(np.array(statistics.people))
    if len(people) < FOLDS:
        got = format_count_of(len(people), "person")
        raise UserError.about("the leak probe", f"needs {FOLDS} people or more", got=got, remedy="give more people")
    return LeakProbe(
        whole=_probe(statistics.real, statistics.fake, statistics.people, seed),
        outside=_probe(statistics.real, statistics.outside, statistics.people, seed),
        pairs=len(statistics.people),
        people=len(people),
        strongest=_find_strongest(statistics),
    )


def _probe(real: NDArray[np.float64], fake: NDArray[np.float64], people: Sequence[str], seed: int) -> Estimate:
    values, labels = np.concatenate([real, fake]), np.repeat([0, 1], len(people))
    groups = np.array([*people, *people])
    scores = _score_held_out(values, labels, groups, seed)
    table = {
        "logits": np.stack([np.zeros_like(scores), scores], axis=1),
        "label": labels,
        "group": groups,
        "id": np.array([str(row) for row in range(len(labels))]),
    }
    return compute_interval(METRICS["auc"], table, rounds=ROUNDS, group_unit="person")


def _score_held_out(
    values: NDArray[np.float64], labels: NDArray[np.int64], groups: NDArray[np.str_], seed: int
) -> NDArray[np.float64]:
    """Compute the log-odds of fake of each row, by a tree that was trained without its people."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import GroupKFold

    scores = np.zeros(len(labels))
    folds = GroupKFold(FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(values, labels, groups):
        tree = HistGradientBoostingClassifier(
            max_iter=120, learning_rate=0.08, max_leaf_nodes=12, l2_regularization=1.0, random_state=seed
        )
        scores[test] = tree.fit(values[train], labels[train]).decision_function(values[test])
    return scores


def _find_strongest(statistics: PairStatistics) -> tuple[tuple[str, float], ...]:
    labels = np.repeat([0, 1], len(statistics.people))
    columns = np.concatenate([statistics.real, statistics.outside]).T
    aucs = [compute_auc(column, labels) for column in columns]
    ranked = sorted(zip(statistics.names, (max(auc, 1 - auc) for auc in aucs), strict=True), key=lambda one: -one[1])
    return tuple(ranked[:SHOWN])
