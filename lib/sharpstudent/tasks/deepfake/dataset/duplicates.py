"""Finds equal keys and near hashes among a million rows, without comparing every pair of rows.

Near hashes: the 64 bits are divided among bands; two hashes at Hamming distance <= d are near in at least one band
(Norouzi et al. 2012, "Fast search in Hamming space with multi-index hashing"; the radii of the bands as in Qin et al.
2018, "GPH: similarity search in Hamming space").

Legend: n rows, k pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

BITS = 64
CHUNK = 1 << 20  # pairs compared at once: a few tens of MB
WIDEST_BAND = 22  # bits; a band's table has 2^bits entries of 8 bytes
MOST_COMPARED = 2_000_000_000  # pairs in all, a minute or so
PROBE_COST = 2.0  # the time of one lookup in a band's table, in comparisons of two hashes (measured)

Rows = NDArray[np.int64]


def find_mixed(codes: NDArray[np.integer], kinds: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the codes, ascending, whose rows are of more than one kind.

    Args:
        codes: Integers (n,), 0 or more.
        kinds: Integers (n,), from 0 to below 2^16.

    Returns:
        int64, each such code once.
    """
    seen = np.unique(codes.astype(np.int64) << 16 | kinds.astype(np.int64)) >> 16  # each (code, kind) once
    return np.unique(seen[1:][seen[1:] == seen[:-1]])


@dataclass(frozen=True)
class _Band:
    """A band: some of the 64 bits of a hash.

    Attributes:
        bits: The positions of the bits.
        radius: The most bits in which two near hashes may differ in this band.
    """

    bits: tuple[int, ...]
    radius: int


class NearPairs:
    """All pairs of rows whose hashes are near: iterate once, in chunks int64 (k, 2) with i < j.

    Every pair comes once, in an order that the hashes alone decide. Memory: about 60 bytes a row, and one chunk.

    Attributes:
        left_out: How many rows took no part, because more than `most_equal` share their hash.
        complete: Whether the search reached its end before `most_compared` comparisons.
    """

    def __init__(
        self, hashes: NDArray[np.uint64], distance: int, *, most_equal: int = 64, most_compared: int = MOST_COMPARED
    ) -> None:
        """Prepare the search.

        Args:
            hashes: uint64 (n,).
            distance: The most bits in which the hashes of a pair differ, 0..64.
            most_equal: Where more rows than this share a hash, only the first of them take part.
            most_compared: After so many comparisons the search ends.
        """
        if not 0 <= distance <= BITS:
            raise ValueError(f"distance must be 0..{BITS} bits, got {distance}")
        self._rows = _take_first_of_equal(np.asarray(hashes, np.uint64), most_equal)
        self._hashes = np.asarray(hashes, np.uint64)[self._rows]
        self._distance = distance
        self._left = most_compared
        self.left_out = len(hashes) - len(self._rows)
        self.complete = True

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        bands = _choose_bands(self._hashes, self._distance)
        keys = [_take_bits(self._hashes, band.bits) for band in bands]
        for number, band in enumerate(bands):
            for one, two in self._propose(keys[number], band):
                near = np.bitwise_count(self._hashes[one] ^ self._hashes[two]) <= self._distance
                one, two = one[near], two[near]
                for earlier in range(number):  # a pair belongs to the first band that finds it
                    apart = np.bitwise_count(keys[earlier][one] ^ keys[earlier][two])
                    new = apart > bands[earlier].radius
                    one, two = one[new], two[new]
                if len(one):
                    pairs = self._rows[np.stack([one, two], axis=1)]
                    yield np.sort(pairs, axis=1)

    def _propose(self, keys: NDArray[np.int64], band: _Band) -> Iterator[tuple[Rows, Rows]]:
        """Give pairs that are near enough in one band, in chunks, until the budget is spent."""
        order = np.argsort(keys, kind="stable")
        in_order = keys[order]
        starts = np.append(0, np.cumsum(np.bincount(keys, minlength=1 << len(band.bits))))
        places = np.arange(len(keys))
        for mask in _list_masks(band):
            if mask == 0:  # the partners of a row are those after it in its own bucket
                mine, first = places, places + 1
                last = starts[in_order + 1]
            else:  # only rows of the lower bucket look for partners in the other one
                mine = places[in_order < (in_order ^ mask)]
                first, last = starts[in_order[mine] ^ mask], starts[(in_order[mine] ^ mask) + 1]
            for one, two in _pair_up(mine, first, last):
                if self._left <= 0:
                    self.complete = False
                    return
                self._left -= len(one)
                yield order[one], order[two]


def _take_first_of_equal(hashes: NDArray[np.uint64], most: int) -> Rows:
    """Return the rows, ascending, of which no more than `most` share a hash."""
    order = np.argsort(hashes, kind="stable")
    in_order = hashes[order]
    begins = np.flatnonzero(np.append(True, in_order[1:] != in_order[:-1])[: len(hashes)])
    rank = np.arange(len(hashes)) - np.repeat(begins, np.diff(np.append(begins, len(hashes))))
    return np.sort(order[rank < most])


def _choose_bands(hashes: NDArray[np.uint64], distance: int) -> list[_Band]:
    """Choose the cheapest number of bands for so many hashes; one band without bits compares each with each."""
    plans = [[(0, 0)], *(_plan(bands, distance) for bands in range(-(-BITS // WIDEST_BAND), BITS // 4))]
    plan = min(plans, key=lambda plan: sum(_estimate_cost(band, len(hashes)) for band in plan))
    # Bits that are nearly constant tell little: each band gets its share of them.
    bias = [abs(int(((hashes >> np.uint64(bit)) & np.uint64(1)).sum()) - len(hashes) / 2) for bit in range(BITS)]
    bits = sorted(range(BITS), key=lambda bit: bias[bit])
    return [
        _Band(tuple(bits[number :: len(plan)][:width]), radius)
        for number, (width, radius) in enumerate(plan)
        if radius >= 0
    ]


def _plan(bands: int, distance: int) -> list[tuple[int, int]]:
    """Return width and radius of each band.

    Hashes further apart than its radius in every band differ by sum(radius + 1) bits or more, so the radii add up to
    distance + 1 - bands; a band of radius -1 is not needed.
    """
    least, more = divmod(distance + 1 - bands, bands)
    widths = [BITS // bands + (number < BITS % bands) for number in range(bands)]
    return [(width, least + (number >= bands - more)) for number, width in enumerate(widths)]


def _estimate_cost(band: tuple[int, int], count: int) -> float:
    """Return the cost of a band in comparisons.

    Every mask costs a lookup in the table for half of the hashes, and a comparison with each row in the buckets found.
    """
    width, radius = band
    masks = sum(comb(width, flipped) for flipped in range(radius + 1))
    return masks * count / 2 * (PROBE_COST + count / 2**width)


def _list_masks(band: _Band) -> Iterator[int]:
    """List which bits of a band may differ: all choices of at most `radius`, fewest first."""
    for flipped in range(band.radius + 1):
        for places in combinations(range(len(band.bits)), flipped):
            yield sum(1 << place for place in places)


def _take_bits(hashes: NDArray[np.uint64], bits: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the chosen bits of each hash as one number."""
    taken = np.zeros(len(hashes), np.int64)
    for place, bit in enumerate(bits):
        taken |= ((hashes >> np.uint64(bit)) & np.uint64(1)).astype(np.int64) << place
    return taken


def _pair_up(mine: Rows, first: Rows, last: Rows) -> Iterator[tuple[Rows, Rows]]:
    """Pair each place of `mine` with every place of first..last (exclusive), in chunks of about `CHUNK` pairs."""
    some = last > first
    mine, first, counts = mine[some], first[some], (last - first)[some]
    ends = np.cumsum(counts)
    begin = 0
    while begin < len(mine):
        done = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, done + CHUNK, side="right")))
        of = counts[begin:end]
        within = np.arange(ends[end - 1] - done) - np.repeat(ends[begin:end] - of - done, of)
        yield np.repeat(mine[begin:end], of), np.repeat(first[begin:end], of) + within
        begin = end
