"""The single pictures that a model was asked about, before faces are made frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Samples:
    """N of each, in the order of the scores. labels: int64, real 0, fake 1; margins: float64, log-odds of fake; names:
    as the user knows the pictures.
    """

    labels: NDArray[np.int64]
    margins: NDArray[np.float64]
    names: Sequence[str]
    clip_ids: Sequence[str]
    manipulations: Sequence[str]
