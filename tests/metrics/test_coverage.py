"""Intervals cover what they say: simulated people whose true AUC is known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm
from sharpstudent.core.types import Table
from sharpstudent.metrics.binary_draws import GroupedScores, compute_aucs
from sharpstudent.metrics.bootstrap import compute_interval, compute_paired
from sharpstudent.metrics.intervals import FEWEST_GROUPS
from sharpstudent.metrics.metric import make_binary_metric, make_mean_metric

AUC = make_binary_metric("auc_by_rank", lambda table: table["score"])
ACCURACY = make_mean_metric(lambda table: table["right"], bounds=(0.0, 1.0))
SETS = 400
NOISE = 3 * math.sqrt(0.95 * 0.05 / SETS)  # three standard errors of a simulated coverage


@dataclass(frozen=True)
class World:
    """People with real and fake pictures; each person shifts the scores of all own pictures, and of the own fakes."""

    people: int
    pictures: int = 4
    person: float = 0.7
    ease: float = 0.5
    alike: float = 0.6  # the share of all this that two models have in common

    def draw(self, generator: np.random.Generator, *aucs: float) -> list[Table]:
        """The tables of models with these true AUCs on one set of pictures."""
        person_of = np.repeat(np.arange(self.people), generator.geometric(1 / self.pictures, self.people))
        group, label = np.tile(person_of, 2), np.repeat([0, 1], len(person_of))
        common = self._draw_scores(generator, group, label)
        variance = 2 * (1 + self.person**2) + self.ease**2
        return [
            {
                "id": np.arange(len(label)),
                "group": group.astype(str),
                "label": label,
                "score": math.sqrt(self.alike) * common
                + math.sqrt(1 - self.alike) * self._draw_scores(generator, group, label)
                + label * norm.ppf(auc) * math.sqrt(variance),
            }
            for auc in aucs
        ]

    def _draw_scores(
        self, generator: np.random.Generator, group: NDArray[np.int64], label: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        person, ease = generator.normal(0, self.person, self.people), generator.normal(0, self.ease, self.people)
        return person[group] + label * ease[group] + generator.normal(size=len(label))


@pytest.mark.slow
@pytest.mark.parametrize("people", [10, 20, 42, 100])
@pytest.mark.parametrize("auc", [0.75, 0.9, 0.98])
def test_the_interval_of_an_auc_covers_the_truth_as_often_as_it_says(people: int, auc: float) -> None:
    generator, world = np.random.default_rng(people), World(people)
    covered = 0
    for number in range(SETS):
        (table,) = world.draw(generator, auc)
        found = compute_interval(AUC, table, rounds=300, seed=number)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= auc <= found.high
    assert 0.93 - NOISE <= covered / SETS <= 0.97 + NOISE


@pytest.mark.slow
@pytest.mark.parametrize("people", [FEWEST_GROUPS, 16, 26])
@pytest.mark.parametrize(("auc", "gain"), [(0.75, 0.0), (0.85, 0.05), (0.95, 0.0)])
def test_a_paired_difference_covers_the_truth_from_the_fewest_people_of_a_claim_on(
    people: int, auc: float, gain: float
) -> None:
    generator, world = np.random.default_rng(people), World(people)
    covered = 0
    for number in range(SETS):
        found = compute_paired(AUC, *world.draw(generator, auc + gain, auc), rounds=300, seed=number)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= gain <= found.high
    assert covered / SETS >= 0.95 - NOISE


def draw_rare_differences(generator: np.random.Generator, people: int, gain: float, loss: float) -> list[Table]:
    """Two models with one picture a person: the first alone is right on a share `gain`, the second on `loss`."""
    uniform = generator.random(people)
    names = np.arange(people).astype(str)
    rights = (uniform >= gain + loss) | (uniform < gain), uniform >= gain
    return [
        {"id": names, "group": names, "right": right.astype(float), "score": generator.normal(size=people)}
        for right in rights
    ]


@pytest.mark.slow
@pytest.mark.parametrize("people", [FEWEST_GROUPS, 12, 16, 26])
@pytest.mark.parametrize(("gain", "loss"), [(0.2, 0.0), (0.1, 0.05), (0.2, 0.1), (0.3, 0.3)])
def test_rare_differences_of_one_picture_a_person_are_covered_too(people: int, gain: float, loss: float) -> None:
    """Where few people differ at all, Student's t of all people covers .88 with 16."""
    generator, covered = np.random.default_rng(people), 0
    for number in range(SETS):
        found = compute_paired(ACCURACY, *draw_rare_differences(generator, people, gain, loss), rounds=200, seed=number)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= gain - loss <= found.high
    assert covered / SETS >= 0.95 - NOISE


@pytest.mark.slow
@pytest.mark.parametrize("people", [12, 26])
@pytest.mark.parametrize(("auc", "gain"), [(0.75, 0.1), (0.9, 0.05)])
def test_a_paired_difference_of_people_with_one_picture_each_covers_the_truth(
    people: int, auc: float, gain: float
) -> None:
    """A person is real or fake, not both, as in a set of portraits."""
    generator, label, covered = np.random.default_rng(people), np.arange(people) % 2, 0
    names = np.arange(people).astype(str)
    for number in range(SETS):
        common = generator.normal(size=people)
        tables = [
            {
                **{"id": names, "group": names, "label": label},
                "score": 0.8 * common + 0.6 * generator.normal(size=people) + label * norm.ppf(one) * math.sqrt(2),
            }
            for one in (auc + gain, auc)
        ]
        found = compute_paired(AUC, *tables, rounds=200, seed=number)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= gain <= found.high
    assert covered / SETS >= 0.95 - NOISE


@pytest.mark.slow
def test_random_scores_are_called_better_than_chance_at_most_as_often_as_the_level_allows() -> None:
    generator, world = np.random.default_rng(0), World(FEWEST_GROUPS, ease=0.0)
    better = 0
    for number in range(SETS):
        (table,) = world.draw(generator, 0.5)
        found = compute_interval(AUC, table, rounds=300, seed=number)
        better += found.low is not None and found.low > 0.5
    assert better / SETS <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / SETS)


def test_the_known_auc_of_the_simulation_is_that_of_many_people() -> None:
    (table,) = World(4000).draw(np.random.default_rng(1), 0.9)
    grouped = GroupedScores(table["score"], table["label"], np.arange(len(table["label"])))
    found = compute_aucs(grouped.draw(np.ones((1, len(table["label"])), np.int64)))[0]
    assert found == pytest.approx(0.9, abs=0.01)
