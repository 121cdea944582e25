"""The frames of a data set as columns, and what tells one set from another.

Legend: M frames, N faces.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class FrameColumns:
    """M of each. sample_ids: the frames' names, each once; clip_ids: their videos; groups: the people in them, whom
    intervals are made over; manipulations: the kind of fake, "" of reals; labels: int64, real 0, fake 1. faceless:
    frames that hold no face to judge, by number, with the reason.
    """

    sample_ids: list[str]
    clip_ids: list[str]
    groups: list[str]
    manipulations: list[str]
    labels: NDArray[np.int64]
    faceless: Mapping[int, str] = field(default_factory=dict[int, str])

    def __len__(self) -> int:
        return len(self.sample_ids)

    def take(self, frames: NDArray[np.int64]) -> FrameColumns:
        """Some of the frames, by number, in the order given."""
        chosen = frames.tolist()
        texts = (self.sample_ids, self.clip_ids, self.groups, self.manipulations)
        return FrameColumns(
            *([column[i] for i in chosen] for column in texts),
            labels=self.labels[frames],
            faceless={new: self.faceless[old] for new, old in enumerate(chosen) if old in self.faceless},
        )


def name_frame(clip_id: str, frame_index: int) -> str:
    """A frame's name in its set; a photo is frame 0 of itself."""
    return f"{clip_id}/{frame_index:06d}"


def compute_fingerprint(sample_ids: Iterable[str], labels: Iterable[int], contents: Iterable[int | str]) -> str:
    """sha256 over N faces in their order. contents: the crc32 of each face's picture file, or why there is none.

    Folders above the set and the packing of its crops do not enter.
    """
    digest = hashlib.sha256()
    for sample_id, label, content in zip(sample_ids, labels, contents, strict=True):
        digest.update(f"{sample_id}\0{label}\0{content}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
