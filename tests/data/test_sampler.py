"""The order of samples: each once a pass, from any step on, always the same."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sharpstudent.data.sampler import SampleKey, Shuffle, TrainSampler, evaluation_batches

sizes = st.integers(1, 40)


@given(
    items=sizes, batch_size=sizes, repeats=st.integers(1, 4), seed=st.integers(0, 2**32 - 1), epoch=st.integers(1, 99)
)
@settings(max_examples=60, deadline=None)
def test_each_pass_is_a_permutation_split_into_full_batches(
    items: int, batch_size: int, repeats: int, seed: int, epoch: int
) -> None:
    order = TrainSampler(items, batch_size, repeats, seed)
    batches = list(order.batches(epoch))
    assert len(batches) == order.steps_per_epoch
    keys = [key for batch in batches for key in batch]
    assert len(set(keys)) == len(keys)
    assert all(key.epoch == epoch and 0 <= key.index < items for key in keys)
    if items * repeats >= batch_size:
        assert {len(batch) for batch in batches} == {batch_size}
        assert items * repeats - len(keys) < batch_size
    else:
        assert len(keys) == items * repeats
    for visit in range(repeats):
        indices = [key.index for key in keys if key.visit == visit]
        whole = len(keys) >= items * (visit + 1)
        assert len(set(indices)) == len(indices)
        assert not whole or sorted(indices) == list(range(items))


@given(items=sizes, batch_size=sizes, repeats=st.integers(1, 3), start=st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_an_epoch_resumes_at_any_step_as_if_it_had_never_stopped(
    items: int, batch_size: int, repeats: int, start: int
) -> None:
    order = TrainSampler(items, batch_size, repeats, seed=5)
    assert list(order.batches(3, start_step=start)) == list(order.batches(3))[start:]


def test_a_batch_larger_than_the_set_is_one_batch_of_all_there_is() -> None:
    order = TrainSampler(items=5, batch_size=64, repeats=1, seed=0)
    assert order.steps_per_epoch == 1
    (batch,) = order.batches(1)
    assert sorted(key.index for key in batch) == [0, 1, 2, 3, 4]


def test_every_sample_is_repeated_with_its_own_randomness_each_time() -> None:
    keys = [key for batch in TrainSampler(6, 4, 4, 0).batches(1) for key in batch]
    assert set(Counter(key.index for key in keys).values()) == {4}
    assert len(set(keys)) == 24


def test_epochs_seeds_and_passes_are_shuffled_differently() -> None:
    def shuffle(seed: int, epoch: int, visit: int = 0) -> list[int]:
        batches = TrainSampler(50, 50, 2, seed).batches(epoch)
        return [key.index for batch in batches for key in batch if key.visit == visit]

    shuffles = [shuffle(0, 1), shuffle(0, 2), shuffle(1, 1), shuffle(0, 1, visit=1), list(range(50))]
    assert len({tuple(s) for s in shuffles}) == 5
    assert shuffle(0, 1) == shuffles[0]


@pytest.mark.parametrize(("items", "batch_size"), [(7, 3), (6, 3), (2, 5)])
def test_an_evaluation_visits_every_sample_once_in_order_with_the_randomness_of_epoch_0(
    items: int, batch_size: int
) -> None:
    batches = list(evaluation_batches(items, batch_size))
    assert [key for batch in batches for key in batch] == [SampleKey(0, i) for i in range(items)]
    assert max(len(batch) for batch in batches) <= batch_size


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 16, 17, 1000, 4096, 65_537])
def test_a_shuffle_is_a_permutation_of_any_size(size: int) -> None:
    shuffle = Shuffle(size, np.random.default_rng(size))
    assert sorted(shuffle(np.arange(size))) == list(range(size))


@pytest.mark.parametrize("size", [3, 10, 65])
def test_a_shuffle_sends_every_place_to_every_sample_equally_often(size: int) -> None:
    """Chi-square of place against sample over 4000 keys: its mean is its degrees of freedom, its spread sqrt(2 of
    them)."""
    rounds = 4000
    counts = np.zeros((size, size))
    for number in range(rounds):
        counts[np.arange(size), Shuffle(size, np.random.default_rng(number))(np.arange(size))] += 1
    expected = rounds / size
    degrees = (size - 1) ** 2
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert abs(chi_square - degrees) < 5 * np.sqrt(2 * degrees)


def test_neighbours_in_the_set_are_no_neighbours_in_a_shuffle() -> None:
    apart = [
        np.mean(np.abs(np.diff(Shuffle(300, np.random.default_rng(number))(np.arange(300))))) for number in range(300)
    ]
    assert abs(np.mean(apart) - 301 / 3) < 1.0  # of a uniform permutation


def test_a_billion_samples_are_shuffled_without_a_list_of_them() -> None:
    order = TrainSampler(items=10**9, batch_size=8, repeats=3, seed=1)
    batch = next(order.batches(2, start_step=10**8))
    assert len({key.index for key in batch}) == 8
    assert all(0 <= key.index < 10**9 and key.visit == 0 for key in batch)
