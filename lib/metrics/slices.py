"""Parts of a set that have figures of their own: each source, and each kind of fake against all reals of its source."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib.metrics.checks import MetricError
from lib.metrics.tables import REAL, Names, Table


@dataclass(frozen=True)
class Slice:
    """suffix: what its figures' names end with, "", "@SOURCE" or "@SOURCE/MANIPULATION"; source, manipulation: their
    numbers in a table, None for all; within: the suffixes of the slices that it is a part of.
    """

    suffix: str
    source: int | None = None
    manipulation: int | None = None
    within: tuple[str, ...] = ()

    def find_rows(self, table: Table) -> NDArray[np.bool_]:
        """Which rows (N,) are in it."""
        rows = np.ones(len(table), np.bool_)
        if self.source is not None:
            rows &= table.sources == self.source
        if self.manipulation is not None:
            rows &= (table.manipulations == self.manipulation) | (table.manipulations == REAL)
        return rows


def list_slices(frames: Table, names: Names) -> list[Slice]:
    """The whole set, and then each source with its kinds of fake, in the order of their names.

    Raises MetricError for a source with a / in its name: its figures could be taken for those of a kind of fake.
    """
    slices = [Slice("")]
    for source, source_name in enumerate(names.sources):
        if "/" in source_name:
            raise MetricError(f"a source cannot be named {source_name!r}: / stands between source and kind of fake")
        suffix = f"@{source_name}"
        slices.append(Slice(suffix, source, within=("",)))
        for kind in np.unique(frames.manipulations[frames.sources == source]).tolist():
            if kind != REAL:
                slices.append(Slice(f"{suffix}/{names.manipulations[kind]}", source, kind, within=("", suffix)))
    return slices
