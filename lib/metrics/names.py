"""Names as numbers, so that sets of a million samples are counted and split without comparing texts again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def number_names(values: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """The distinct names in their order, and which of them each of N values is: 0..n-1 (N,)."""
    names = sorted({str(value) for value in values})
    number_of = {name: number for number, name in enumerate(names)}
    return names, np.fromiter((number_of[value] for value in values), np.int64, count=len(values))


def number_pairs(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Distinct pairs of numbers (N,) and (N,) as one number each, 0..n-1 (N,), in the order of the pairs."""
    _, numbers = np.unique(first * (int(second.max()) + 1) + second, return_inverse=True)
    return numbers.astype(np.int64)
