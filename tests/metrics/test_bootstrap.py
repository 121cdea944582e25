"""Intervals over people: what they contain, when they widen, what is paired, and whether 95 % means 95 %."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest
from scored_tables import compute_auc_by_rank, find_difference, find_interval
from sharpstudent.metrics.binary import compute_auc
from sharpstudent.metrics.checks import MetricError
from sharpstudent.metrics.intervals import Estimate


@dataclass(frozen=True)
class People:
    """N = people * samples_each samples: one label a person, scores (S, N) that share a person's own offset."""

    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    groups: list[str]


def draw_people(
    seed: int, *, people: int = 40, samples_each: int = 6, seeds: int = 1, shift: float = 1.0, offset: float = 1.0
) -> People:
    generator = np.random.default_rng(seed)
    person_label = np.arange(people) % 2
    person_offset = offset * generator.normal(size=people)
    person_of = np.repeat(np.arange(people), samples_each)
    noise = generator.normal(size=(seeds, len(person_of)))
    labels = person_label[person_of]
    scores = shift * labels + person_offset[person_of] + noise
    return People(scores, labels, [f"person {i:03d}" for i in person_of])


def compute_one(data: People, *, rounds: int = 500, level: float = 0.95, seed: int = 0) -> Estimate:
    return find_interval(
        compute_auc_by_rank, data.scores[0], data.labels, data.groups, rounds=rounds, level=level, seed=seed
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_interval_contains_the_value_and_the_value_is_the_plain_auc(seed: int) -> None:
    data = draw_people(seed)
    interval = compute_one(data)
    assert interval.value == pytest.approx(compute_auc(data.scores[0], data.labels), abs=1e-12)
    assert 0.0 <= interval.low < interval.value < interval.high <= 1.0


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    data = draw_people(0)
    assert compute_one(data, seed=3) == compute_one(data, seed=3)
    assert compute_one(data, seed=3) != compute_one(data, seed=4)


def test_the_order_of_the_samples_does_not_matter() -> None:
    data = draw_people(0)
    order = np.random.default_rng(1).permutation(len(data.labels))
    shuffled = People(data.scores[:, order], data.labels[order], [data.groups[i] for i in order])
    assert compute_one(shuffled) == compute_one(data)


def test_global_random_states_are_neither_read_nor_moved() -> None:
    np.random.seed(0)
    before = compute_one(draw_people(0))
    state = np.random.get_state()[1].tolist()  # pyright: ignore
    np.random.seed(1)
    assert compute_one(draw_people(0)) == before
    np.random.seed(0)
    assert np.random.get_state()[1].tolist() == state  # pyright: ignore


def compute_width(people: int, *, samples_each: int = 6, level: float = 0.95) -> float:
    intervals = [compute_one(draw_people(s, people=people, samples_each=samples_each), level=level) for s in range(5)]
    return sum(i.high - i.low for i in intervals)


def test_fewer_people_make_it_wider() -> None:
    assert compute_width(16) > 1.5 * compute_width(120)


def test_more_frames_of_the_same_people_hardly_narrow_it() -> None:
    assert compute_width(30, samples_each=40) > 0.8 * compute_width(30, samples_each=10)


def test_a_higher_level_is_wider() -> None:
    assert compute_width(40, level=0.99) > compute_width(40, level=0.9)


def test_resampling_frames_as_if_independent_would_give_too_narrow_an_interval() -> None:
    data = draw_people(0, samples_each=20)
    by_person = compute_one(data)
    by_frame = compute_one(People(data.scores, data.labels, [str(i) for i in range(len(data.labels))]))
    assert by_person.high - by_person.low > 2 * (by_frame.high - by_frame.low)


def test_rounds_of_one_class_are_drawn_again() -> None:
    # Only one person of four is fake: a third of the plain draws would hold no fake at all.
    groups, labels = ["a", "a", "b", "b", "c", "c", "d", "d"], [0, 0, 0, 0, 0, 0, 1, 1]
    seen: list[int] = []

    def record(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
        seen.append(int(labels.min() != labels.max()))
        return compute_auc_by_rank(scores, labels)

    interval = find_interval(record, [0.1, 0.2, 0.6, 0.5, 0.3, 0.1, 0.4, 0.9], labels, groups, rounds=200, seed=0)
    assert len(seen) == 201
    assert all(seen)
    assert 0.0 <= interval.low <= interval.value <= interval.high <= 1.0


def test_all_samples_of_a_drawn_person_come_along() -> None:
    # Person a has three samples and b two: every round holds 6, 5 or 4 of them.
    sizes: set[int] = set()

    def record(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
        sizes.add(len(scores))
        return compute_auc_by_rank(scores, labels)

    find_interval(record, [0.1, 0.2, 0.3, 0.4, 0.5], [0, 1, 1, 0, 1], ["a", "a", "a", "b", "b"], rounds=50, seed=0)
    assert sizes == {6, 5, 4}


def test_people_who_are_all_alike_bound_the_value_from_one_side_by_those_who_may_be_otherwise() -> None:
    four = [p for p in "abcd" for _ in range(2)]
    right = find_interval(compute_auc_by_rank, [0.1, 0.9] * 4, [0, 1] * 4, four, rounds=50, seed=0)
    wrong = find_interval(compute_auc_by_rank, [0.9, 0.1] * 4, [0, 1] * 4, four, rounds=50, seed=0)
    unseen = binomtest(0, 4).proportion_ci(0.90).high  # two-sided 90 %: one-sided 95 %
    assert (right.value, right.low, right.high) == pytest.approx((1.0, 1.0 - unseen, 1.0))
    assert (wrong.value, wrong.low, wrong.high) == pytest.approx((0.0, 0.0, unseen))
    assert right.note is not None
    assert right.note.startswith("one-sided interval: every resample has this value")


def test_scikit_learns_auc_can_be_the_statistic_too() -> None:
    data = draw_people(2)
    slow = find_interval(compute_auc, data.scores[0], data.labels, data.groups, rounds=50, seed=0)
    fast = compute_one(data, rounds=50)
    assert (slow.value, slow.low, slow.high) == pytest.approx((fast.value, fast.low, fast.high), abs=1e-12)


def test_one_seed_is_the_plain_interval() -> None:
    data = draw_people(0)
    stacked = find_interval(compute_auc_by_rank, data.scores, data.labels, data.groups, rounds=500, seed=0)
    assert stacked == compute_one(data)


def test_over_seeds_the_value_is_the_mean_of_their_aucs() -> None:
    data = draw_people(0, seeds=3)
    interval = find_interval(compute_auc_by_rank, data.scores, data.labels, data.groups, rounds=200, seed=0)
    assert interval.value == pytest.approx(np.mean([compute_auc(row, data.labels) for row in data.scores]), abs=1e-12)
    assert interval.low < interval.value < interval.high


def test_every_seed_sees_the_same_drawn_people() -> None:
    # Three copies of one column average to that column in every round, so the interval is that of the column.
    data = draw_people(0)
    copies = find_interval(
        compute_auc_by_rank, np.repeat(data.scores, 3, axis=0), data.labels, data.groups, rounds=500, seed=0
    )
    one = compute_one(data)
    assert (copies.value, copies.low, copies.high) == pytest.approx((one.value, one.low, one.high), abs=1e-12)


def test_a_model_does_not_differ_from_itself() -> None:
    data = draw_people(0)
    scores = data.scores[0]
    same = find_difference(compute_auc_by_rank, scores, scores, data.labels, data.groups, rounds=100, seed=0)
    assert same == Estimate(0.0, 0.0, 0.0, p_value=1.0, groups=39)
    # The order is the same here, but what the two would do with other people is not known.
    near = find_difference(compute_auc_by_rank, scores, 3 * scores + 1, data.labels, data.groups, rounds=100, seed=0)
    assert near.low == pytest.approx(-near.high)
    assert 0.1 < near.high < 0.2


def test_swapping_the_models_turns_the_sign() -> None:
    data = draw_people(0, seeds=2)
    a, b = data.scores
    ab = find_difference(compute_auc_by_rank, a, b, data.labels, data.groups, rounds=300, seed=0)
    ba = find_difference(compute_auc_by_rank, b, a, data.labels, data.groups, rounds=300, seed=0)
    assert (ba.value, ba.low, ba.high) == pytest.approx((-ab.value, -ab.high, -ab.low), abs=1e-12)


def test_pairing_is_surer_than_two_separate_intervals() -> None:
    data = draw_people(0, seeds=2)
    a, b = data.scores
    paired = find_difference(compute_auc_by_rank, a, b, data.labels, data.groups, rounds=500, seed=0)
    widths = [compute_one(People(row[np.newaxis], data.labels, data.groups)) for row in (a, b)]
    unpaired = math.hypot(*(interval.high - interval.low for interval in widths))
    assert paired.high - paired.low < 0.7 * unpaired


def test_a_clearly_better_model_has_an_interval_above_zero() -> None:
    data = draw_people(0, seeds=3)
    better = data.scores + 2 * data.labels
    gain = find_difference(compute_auc_by_rank, better, data.scores, data.labels, data.groups, rounds=300, seed=0)
    means = [np.mean([compute_auc(row, data.labels) for row in stack]) for stack in (better, data.scores)]
    assert gain.value == pytest.approx(means[0] - means[1], abs=1e-12)
    assert 0.0 < gain.low < gain.value < gain.high


def test_two_thousand_rounds_of_three_seeds_take_a_few_seconds() -> None:
    data = draw_people(0, people=100, samples_each=20, seeds=3)
    start = time.process_time()
    find_interval(compute_auc_by_rank, data.scores, data.labels, data.groups, seed=0)
    assert time.process_time() - start < 5.0  # about 0.7 s


def compute_with(**changes: object) -> Estimate:
    arguments: dict[str, object] = {
        "scores": [0.1, 0.8, 0.3, 0.6],
        "labels": [0, 1, 0, 1],
        "groups": ["a", "a", "b", "b"],
        "rounds": 20,
        "seed": 0,
    }
    return find_interval(compute_auc_by_rank, **{**arguments, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": [0, 1, 0]}, r"scores \(4,\), labels \(3,\)"),
        ({"scores": [0.1, math.nan, 0.3, 0.6]}, r"sample 000001 \(nan\)"),
        ({"scores": [], "labels": [], "groups": []}, "no samples"),
    ],
    ids=["labels missing", "nan", "empty"],
)
def test_a_table_that_is_wrong_is_an_error(changes: dict[str, object], message: str) -> None:
    with pytest.raises(MetricError, match=message):
        compute_with(**changes)


@pytest.mark.parametrize("changes", [{"rounds": 0}, {"level": 0.0}, {"level": 1.0}, {"level": 95.0}], ids=str)
def test_rounds_and_level_are_checked(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="rounds must be >= 1 and level between 0 and 1"):
        compute_with(**changes)


def test_one_person_or_one_class_leaves_no_interval_and_a_note_that_says_so() -> None:
    alone = compute_with(groups=["ann"] * 4)
    assert (alone.value, alone.low, alone.note) == (1.0, None, "no interval: fewer than two groups")
    assert compute_with(groups=["ann"] * 4, group_unit="person").note == "no interval: fewer than two people"
    one_class = compute_with(labels=[1, 1, 1, 1])
    assert math.isnan(one_class.value)
    assert one_class.note is not None
    assert one_class.note.startswith("no value: one class only: all 4 samples have label 1 (sample 000000, ")


def count_covered(covers: Callable[[int], bool], trials: int) -> float:
    return sum(covers(trial) for trial in range(trials)) / trials


@pytest.mark.slow
def test_about_95_percent_of_intervals_over_people_cover_the_truth_and_those_over_frames_do_not() -> None:
    # A fake and a real person differ by N(1, 2 (1 + 1)): the true AUC is Phi(1 / 2).
    truth = 0.5 * (1 + math.erf(0.5 / math.sqrt(2)))

    def covers(trial: int, *, by_frame: bool) -> bool:
        data = draw_people(trial, people=60, samples_each=6)
        if by_frame:
            data = People(data.scores, data.labels, [str(i) for i in range(len(data.labels))])
        interval = compute_one(data, rounds=400, seed=trial)
        return interval.low <= truth <= interval.high

    assert 0.91 <= count_covered(lambda trial: covers(trial, by_frame=False), 400) <= 0.98
    assert count_covered(lambda trial: covers(trial, by_frame=True), 100) < 0.8


@pytest.mark.slow
def test_about_95_percent_of_paired_intervals_cover_the_difference_of_two_equally_good_models() -> None:
    def covers(trial: int) -> bool:
        data = draw_people(trial, people=60, samples_each=6, seeds=4)
        gain = find_difference(
            compute_auc_by_rank, data.scores[:2], data.scores[2:], data.labels, data.groups, rounds=400, seed=trial
        )
        return gain.low <= 0.0 <= gain.high

    assert 0.91 <= count_covered(covers, 300) <= 0.98
