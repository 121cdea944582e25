"""Many figures from one set of draws: the scores are sorted once, and the counts of each round summed up once.

Legend: N samples, G groups, R rounds in blocks of B; labels real 0, fake 1.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lib.metrics.draw_statistics import DrawStatistic
from lib.metrics.draws import GroupedScores
from lib.metrics.group_sums import SumStatistic
from lib.metrics.groups import draw_blocks


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
