"""A set of faces with labels of their own, as judging sees it."""

from __future__ import annotations

from dataclasses import dataclass

from lib.data.items import ItemSource
from lib.engine.samples import Samples
from lib.engine.task import Scores
from lib.metrics.scored import ScoredFrames
from lib.report.results import DataResult
from lib.tasks.deepfake.evaluation.evaluation_set import EvaluationSet


@dataclass(frozen=True)
class FacesSet:
    """Nothing about its items is random."""

    faces: EvaluationSet
    seed: int = 0

    @property
    def name(self) -> str:
        return self.faces.name

    def build_source(self, image_size: int) -> ItemSource:
        return self.faces.build_source(image_size)

    def to_frames(self, scores: Scores, unreadable: dict[str, str]) -> ScoredFrames:
        return self.faces.build_frames(scores.margin, unreadable)

    def list_samples(self, scores: Scores) -> Samples:
        columns, frame_of = self.faces.frames, self.faces.frame_of.tolist()
        return Samples(
            labels=self.faces.labels,
            margins=scores.margin,
            names=self.faces.name_faces(),
            clip_ids=[columns.clip_ids[frame] for frame in frame_of],
            manipulations=[columns.manipulations[frame] for frame in frame_of],
        )

    def describe(self, unreadable: dict[str, str]) -> DataResult:
        return self.faces.describe(unreadable)
