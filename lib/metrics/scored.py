"""What a model says of a set of frames, with everything that figures are split and resampled by.

Legend: N frames (faces, where a frame holds several that are judged each by itself).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from lib.metrics.checks import MetricError


@dataclass(frozen=True)
class ScoredFrames:
    """One row a frame, in any order; N of each.

    margins: float64, log-odds of fake, log(p / (1 - p)): 0 is a probability of one half; labels: int64, real 0, fake 1;
    sample_ids: the frames' names, each once in a source; clip_ids: the video, a name of its source's own; groups: the
    person, or the people who appear together; sources: the data set; manipulations: the kind of fake, not read for
    reals; decided: bool, False where the model was not asked, as no face was found: such a row's margin is not read.
    None: all are decided.
    """

    margins: NDArray[np.float64]
    labels: NDArray[np.int64]
    sample_ids: Sequence[str]
    clip_ids: Sequence[str]
    groups: Sequence[str]
    sources: Sequence[str]
    manipulations: Sequence[str]
    decided: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        sizes = {field.name: len(column) for field in fields(self) if (column := getattr(self, field.name)) is not None}
        if len(set(sizes.values())) != 1:
            raise MetricError(f"columns of scored frames differ in length: {sizes}")

    def __len__(self) -> int:
        return len(self.sample_ids)


def join_frames(parts: Sequence[ScoredFrames]) -> ScoredFrames:
    """What several processes or files hold, as one: figures do not depend on how the frames were shared out.

    A frame that two parts hold is refused where figures are made. Raises MetricError for no parts.
    """
    if not parts:
        raise MetricError("no samples at all: no parts to join")

    def chain(name: str) -> list[str]:
        return [value for part in parts for value in getattr(part, name)]

    decided = [np.ones(len(part), np.bool_) if part.decided is None else part.decided for part in parts]
    return ScoredFrames(
        margins=np.concatenate([part.margins for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        sample_ids=chain("sample_ids"),
        clip_ids=chain("clip_ids"),
        groups=chain("groups"),
        sources=chain("sources"),
        manipulations=chain("manipulations"),
        decided=None if all(part.decided is None for part in parts) else np.concatenate(decided),
    )
