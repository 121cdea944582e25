"""The samples of a split: sequences as three streams of one or two bodies. Those of training are augmented."""

from __future__ import annotations

import numpy as np

from sharpstudent.core.errors import format_count_of
from sharpstudent.core.types import Sample
from sharpstudent.data.dataset import Samples
from sharpstudent.tasks.skeleton.graph import Skeleton
from sharpstudent.tasks.skeleton.motion import Bodies, Motion, find_split, read_checked
from sharpstudent.tasks.skeleton.movements import augment, build_streams, cut
from sharpstudent.tasks.skeleton.section import SkeletonSection


class Sequences(Samples):
    """The sequences of one split.

    Attributes:
        skeleton: The layout of the joints.
        rate: Frames a second of the recordings.
    """

    def __init__(self, motion: Motion, split: str, section: SkeletonSection, skeleton: Skeleton) -> None:
        """Choose the sequences of the split.

        Args:
            motion: All sequences.
            split: `train`, `validation` or `test`.
            section: The config keys.
            skeleton: The layout of the joints.
        """
        self._motion, self._section, self._is_train = motion, section, split == "train"
        self.skeleton, self.rate = skeleton, section.rate
        self._chosen = find_split(motion, split, section)
        people = len({motion.subjects[number] for number in self._chosen.tolist()})
        counts = f"{format_count_of(len(self), 'sequence')} of {format_count_of(people, 'person')}"
        self.notes = (f"skeletons ({section.data_source}), {split}: {counts}", *motion.notes)

    def __len__(self) -> int:
        return len(self._chosen)

    def name(self, index: int) -> str:
        """The name of a sequence in its data set."""
        return self._motion.names[int(self._chosen[index])]

    def group(self, index: int) -> str:
        """The person."""
        return f"subject {self._motion.subjects[int(self._chosen[index])]}"

    def read(self, index: int) -> Bodies:
        """Read the positions of a sequence as they are (M, n, V, 3) [m]. Raises UnreadableSample."""
        return read_checked(self._motion, int(self._chosen[index]), self.skeleton, self._section.unit)

    def make(self, index: int, rng: np.random.Generator) -> Sample:
        """Make the streams of a sequence."""
        bodies, wanted = self.read(index), self._section.bodies
        if len(bodies) < wanted:
            bodies = np.concatenate([bodies, np.zeros((wanted - len(bodies), *bodies.shape[1:]))])
        bodies = cut(bodies[:wanted], self._section, rng if self._is_train else None)
        if self._is_train:
            bodies = augment(bodies, self.skeleton, self._section, rng)
        label = self._motion.labels[int(self._chosen[index])]
        return Sample(
            inputs=build_streams(bodies, self.skeleton),
            targets={"label": np.array([label], np.int64)},
            rows={"id": (self.name(index),)},
        )
