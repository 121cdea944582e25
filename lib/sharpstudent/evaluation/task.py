"""What the engine asks of a task: the contract that every package under tasks/ keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sharpstudent.config.run_config import Direction
from sharpstudent.data.dataset import ItemSource
from sharpstudent.metrics.tables import ScoredFrames

# What a task calls the AUC of single pictures: the alarm for collapse and the two-stage guide's figures speak of it.
PICTURE_AUC = "val_auc"


@dataclass(frozen=True)
class TaskData:
    """Items to learn from and to validate on; they share no identity.

    repeats: visits of each training item an epoch; evaluation_seed: keys the randomness of validation items, so that
    runs with different seeds are judged on the same pictures; depends_on: files beside the items' own that decide what
    the items are, such as a manifest.
    """

    train: ItemSource
    validation: ItemSource
    repeats: int
    evaluation_seed: int
    notes: tuple[str, ...]
    depends_on: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Scores:
    """What a model says of a set: logits float32 (N, C), labels int64 (N,), and N ids of samples, clips and people."""

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    sample_ids: tuple[str, ...]
    clip_ids: tuple[str, ...]
    identities: tuple[str, ...]

    @property
    def margin(self) -> NDArray[np.float64]:
        """logits[:, 1] - logits[:, 0]: ranks as softmax[:, 1] does, without its rounding to ties near 0 and 1."""
        return self.logits[:, 1].astype(np.float64) - self.logits[:, 0].astype(np.float64)

    @property
    def fake_probability(self) -> NDArray[np.float64]:
        """softmax[:, 1] of two classes."""
        return 0.5 * (1.0 + np.tanh(0.5 * self.margin))


class Task(Protocol):
    """A task, as the engine sees it.

    selection_metric: the one of `compute_metrics` that ranks epochs; selection_metrics: all that could, and which
    values are the better ones; has_published_bands: whether the two-stage guide's expected figures speak of this data.
    """

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def has_published_bands(self) -> bool: ...

    @property
    def selection_metric(self) -> str: ...

    @property
    def selection_metrics(self) -> Mapping[str, Direction]: ...

    @property
    def image_size(self) -> int: ...

    def build_data(self) -> TaskData: ...

    def compute_metrics(self, scores: Scores) -> dict[str, float]: ...

    def to_frames(self, scores: Scores) -> ScoredFrames: ...
