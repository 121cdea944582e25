"""Near hashes against comparing each with each; what degenerate sets cost."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sharpstudent.tasks.deepfake.dataset import duplicates
from sharpstudent.tasks.deepfake.dataset.duplicates import NearPairs, find_mixed


def compare_all(hashes: NDArray[np.uint64], distance: int) -> set[tuple[int, int]]:
    one, two = np.triu_indices(len(hashes), 1)
    near = np.bitwise_count(hashes[one] ^ hashes[two]) <= distance
    return set(zip(one[near].tolist(), two[near].tolist(), strict=True))


def collect(search: NearPairs) -> list[tuple[int, int]]:
    return [(one, two) for chunk in search for one, two in chunk.tolist()]


def make_hashes(count: int, seed: int, *, bits: int = 64) -> NDArray[np.uint64]:
    """Of which every second one is a copy of an earlier one with up to 12 flipped bits."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(2**64, size=count, dtype=np.uint64) & np.uint64(2**bits - 1)
    for place in range(1, count, 2):
        hashes[place] = hashes[rng.integers(place)]
        for bit in rng.integers(bits, size=rng.integers(13)):
            hashes[place] ^= np.uint64(1) << np.uint64(bit)
    return hashes


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(0, 60), seed=st.integers(0, 2**32), bits=st.sampled_from((3, 20, 64)), distance=st.integers(0, 64)
)
def test_near_pairs_are_those_that_comparing_each_with_each_finds(
    count: int, seed: int, bits: int, distance: int
) -> None:
    hashes = make_hashes(count, seed, bits=bits)
    found = collect(NearPairs(hashes, distance))
    assert len(found) == len(set(found)), "a pair came twice"
    assert set(found) == compare_all(hashes, distance)


@pytest.mark.parametrize("bands", [3, 4, 7, 11])
@pytest.mark.parametrize("distance", [0, 1, 2, 3, 6, 8, 12])
def test_every_number_of_bands_finds_the_same_pairs(bands: int, distance: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        duplicates, "_estimate_cost", lambda band, _: 1.0 if band[0] in (64 // bands, 64 // bands + 1) else 1e9
    )
    monkeypatch.setattr(duplicates, "CHUNK", 50)
    hashes = make_hashes(400, seed=bands)
    plan = duplicates._choose_bands(hashes, distance)
    assert len(plan[0].bits) in (64 // bands, 64 // bands + 1), "the plan is another one"
    found = collect(NearPairs(hashes, distance, most_equal=400))
    assert len(found) == len(set(found))
    assert set(found) == compare_all(hashes, distance)
    assert len(found) > 5, "nothing was near: the test shows nothing"


def test_many_equal_hashes_cost_no_more_than_their_share_and_are_counted() -> None:
    hashes = np.full(200_000, 77, np.uint64)
    hashes[150_000] = 78
    search = NearPairs(hashes, 4, most_equal=8)
    found = collect(search)
    assert len(found) == 8 * 7 // 2 + 8
    assert search.left_out == 200_000 - 9
    assert search.complete


def test_a_search_that_would_never_end_stops_and_says_so() -> None:
    hashes = np.arange(20_000, dtype=np.uint64)  # all within 15 bits of one another
    search = NearPairs(hashes, 15, most_compared=3_000_000)
    found = sum(len(chunk) for chunk in search)
    assert not search.complete
    assert 0 < found <= 3_000_000 + duplicates.CHUNK


def test_two_hundred_thousand_hashes_take_seconds() -> None:
    hashes = np.random.default_rng(0).integers(2**64, size=200_000, dtype=np.uint64)
    hashes[123_456] = hashes[7] ^ np.uint64(0b1011 << 20)
    begin = time.process_time()
    found = collect(NearPairs(hashes, 6))
    assert (7, 123_456) in found
    assert time.process_time() - begin < 10  # about 1 s on one quiet core


def test_the_distance_must_be_one_of_64_bits() -> None:
    with pytest.raises(ValueError, match=r"0\.\.64"):
        NearPairs(np.zeros(2, np.uint64), 65)


@pytest.mark.parametrize(
    ("codes", "kinds", "mixed"),
    [
        ([], [], []),
        ([5], [1], []),
        ([5, 5, 5], [1, 1, 1], []),
        ([9, 2, 9, 2, 4], [0, 1, 3, 1, 2], [9]),
        ([1, 1, 1, 0, 0], [2, 1, 0, 0, 3], [0, 1]),
    ],
)
def test_codes_of_more_than_one_kind_are_found(codes: list[int], kinds: list[int], mixed: list[int]) -> None:
    assert find_mixed(np.array(codes, np.int64), np.array(kinds, np.int64)).tolist() == mixed
