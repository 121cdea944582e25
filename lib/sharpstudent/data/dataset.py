"""The contract of a data set: samples by index. Importing this loads neither torch nor NumPy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sharpstudent.core.types import Sample

if TYPE_CHECKING:
    import numpy as np


class UnreadableSample(Exception):
    """Raised for a file that cannot be used. The loader takes another sample in its place and reports the file once."""

    def __init__(self, path: str, reason: str) -> None:
        """Name the file.

        Args:
            path: The path of the file.
            reason: Why it cannot be used.
        """
        self.path = path
        self.reason = reason
        super().__init__(f"{path}: {reason}")

    def __reduce__(self) -> tuple[type[UnreadableSample], tuple[str, str]]:
        return type(self), (self.path, self.reason)  # without this, an exception with two arguments cannot be unpickled


class Samples(ABC):
    """One split of a data set, by index.

    Attributes:
        notes: Lines that a run prints about the split.
        depends_on: Further files on which the samples depend, such as a manifest.
        seed: The seed of the random draws of evaluated samples. It does not depend on the run, so that all runs are
            evaluated on the same samples.
        repeats: How often a training epoch visits each sample.
    """

    notes: Sequence[str] = ()
    depends_on: Sequence[Path] = ()
    seed: int = 0
    repeats: int = 1

    @abstractmethod
    def __len__(self) -> int:
        """The number of samples."""

    @abstractmethod
    def name(self, index: int) -> str:
        """The name of a sample for users: its path below the data's folder, where it has one.

        It goes into logs and reports, which are passed on. `core.naming.name_file` makes such a name.
        """

    @abstractmethod
    def group(self, index: int) -> str:
        """The group of a sample, such as a person or a speaker, without opening a file. No group is in two splits."""

    @abstractmethod
    def make(self, index: int, rng: np.random.Generator) -> Sample:
        """Make a sample. The same index and state of the generator give the same bytes in any process.

        Args:
            index: The number of the sample, from 0.
            rng: The generator of all random draws, also those of a second sample to mix in.

        Raises:
            UnreadableSample: Where its files cannot be used.
        """

    def find_groups(self) -> frozenset[str]:
        """Find all groups of the split. The data set may override this with a faster way."""
        return frozenset(self.group(index) for index in range(len(self)))
