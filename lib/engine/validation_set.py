"""The validation data of a run as a set to judge models on, drawn as the run drew it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from lib.data.items import ItemSource
from lib.engine.samples import Samples
from lib.engine.task import Scores, Task, TaskData
from lib.metrics.scored import ScoredFrames
from lib.report.results import DataResult

Build = Callable[[int], tuple[Task, TaskData]]


class ValidationSet:
    """run: its name; image_size: of its pictures [px]; build: the task and its data at a size of input."""

    def __init__(self, run: str, image_size: int, build: Build) -> None:
        self._run, self._image_size, self._build = run, image_size, build
        self.name = f"validation of {run}".replace("/", "-")
        self._built: dict[int, tuple[Task, TaskData]] = {}
        self._frames: ScoredFrames | None = None

    @property
    def seed(self) -> int:
        """What keys the randomness of the items: that of every validation of the run."""
        return self._get(self._image_size)[1].evaluation_seed

    def build_source(self, image_size: int) -> ItemSource:
        """Its items at the size of a network's input. Raises UserError where the run's data is no longer there."""
        return self._get(image_size)[1].validation

    def to_frames(self, scores: Scores, unreadable: dict[str, str]) -> ScoredFrames:
        """As the run itself was judged: items that could not be read were replaced there too; `describe` names them."""
        frames = self._get(self._image_size)[0].to_frames(scores)
        self._frames = replace(frames, sources=[self.name] * len(frames))
        return self._frames

    def list_samples(self, scores: Scores) -> Samples:
        frames = self._get(self._image_size)[0].to_frames(scores)
        return Samples(frames.labels, scores.margin, frames.sample_ids, frames.clip_ids, frames.manipulations)

    def describe(self, unreadable: dict[str, str]) -> DataResult:
        """After `to_frames`. The fingerprint is over names, labels and the seed of the items' randomness."""
        frames = self._frames
        assert frames is not None
        labels = frames.labels.tolist()
        text = "\n".join(f"{name} {label}" for name, label in zip(frames.sample_ids, labels, strict=True))
        kinds = Counter(kind for kind, label in zip(frames.manipulations, labels, strict=True) if label == 1)
        notes = [f"the validation data of the run {self._run}: it chose the checkpoint, so its figures flatter it"]
        notes += [f"{name} could not be read ({reason}); another item stood in" for name, reason in unreadable.items()]
        return DataResult(
            name=self.name,
            kind="validation",
            split="val",
            fingerprint=hashlib.sha256(f"{self.seed}\n{text}".encode("utf-8", "surrogatepass")).hexdigest(),
            frames=len(frames),
            faces=len(frames),
            real=labels.count(0),
            fake=labels.count(1),
            videos=len(set(frames.clip_ids)),
            people=len(set(frames.groups)),
            faces_rule="one face a picture, as the run's own validation",
            manipulations=dict(sorted(kinds.items())),
            notes=tuple(notes),
        )

    def _get(self, image_size: int) -> tuple[Task, TaskData]:
        if image_size not in self._built:
            self._built[image_size] = self._build(image_size)
        return self._built[image_size]
