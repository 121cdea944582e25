"""The deepfake task: real 0, fake 1; data from one of four sources; a validation metric of choice selects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2

from sharpstudent.config.run_config import Direction
from sharpstudent.data.dataset import ItemSource
from sharpstudent.evaluation.task import Scores, TaskData
from sharpstudent.metrics.tables import ScoredFrames
from sharpstudent.tasks.deepfake.samples import BlendedPairs, LabelledFaces, RepeatedBlends
from sharpstudent.tasks.deepfake.section import DeepfakeSection
from sharpstudent.tasks.deepfake.sources import ffpp, labelled, photos
from sharpstudent.tasks.deepfake.sources.face import Face, FaceSplits
from sharpstudent.tasks.deepfake.validation import build_frames, compute_figures_of_validation


class DeepfakeTask:
    """What the engine asks of a task: classes, data, metrics and the one that selects."""

    classes = ("real", "fake")
    selection_metrics: Mapping[str, Direction] = {
        f"val_{word}": direction for word, direction in DeepfakeSection.selection_metrics.items()
    }

    def __init__(self, section: DeepfakeSection, *, allow: Sequence[str] = (), selection_metric: str = "auc") -> None:
        """selection_metric: a word of the section's `selection_metrics`."""
        self._section = section
        self.selection_metric = f"val_{selection_metric}"
        self._allow_shared = "shared-people" in allow

    @property
    def has_published_bands(self) -> bool:
        """The guide's expected figures are those of FaceForensics++."""
        return self._section.data_source == "ffpp"

    @property
    def image_size(self) -> int:
        """Side of the network's input [px]."""
        return self._section.image_size

    def build_data(self) -> TaskData:
        """Training and validation items. Raises UserError that names what is missing or wrong with the source."""
        section = self._section
        splits = self._find_faces(Path(section.data_root))
        # Cutting face crops starts OpenCV's threads; a loader process forked beside them hangs in setNumThreads.
        cv2.setNumThreads(1)
        make = self._make_blended if self._is_blended else self._make_labelled
        return TaskData(
            train=make(splits.train, True),
            validation=make(splits.validation, False),
            repeats=section.repeats,
            evaluation_seed=section.split_seed,
            notes=tuple(f"data ({section.data_source}) {note}" for note in splits.notes),
            depends_on=splits.depends_on,
        )

    def compute_metrics(self, scores: Scores) -> dict[str, float]:
        """`val_auc`, `val_accuracy`, `val_ap`, `val_eer`, `val_video_auc`. Raises MetricError for NaN or one class."""
        return compute_figures_of_validation(scores, self.to_frames(scores))

    def to_frames(self, scores: Scores) -> ScoredFrames:
        """Validation scores as frames of the data source; a self-blended fake is of a clip of its own."""
        return build_frames(scores, source=self._section.data_source, is_blended=self._is_blended)

    @property
    def _is_blended(self) -> bool:
        """Whether fakes are made of the real faces."""
        source = (self._section.data_source, self._section.fakes)
        return source[0] != "labelled" and source != ("manifest", "labels")

    def _find_faces(self, root: Path) -> FaceSplits:
        section = self._section
        finders: dict[str, Callable[[], FaceSplits]] = {
            "ffpp": lambda: ffpp.find_faces(
                root,
                compression=section.compression,
                frames_per_clip=section.frames_per_clip,
                allow_shared=self._allow_shared,
            ),
            "photos": lambda: photos.find_faces(
                root,
                image_size=section.image_size,
                validation_share=section.validation_share,
                split_seed=section.split_seed,
                allow_shared=self._allow_shared,
            ),
            "labelled": lambda: labelled.find_faces(
                root,
                validation_share=section.validation_share,
                split_seed=section.split_seed,
                allow_shared=self._allow_shared,
            ),
            "manifest": lambda: self._open_manifest(root),
        }
        return finders[section.data_source]()

    def _open_manifest(self, root: Path) -> FaceSplits:
        from sharpstudent.tasks.deepfake.sources import manifest  # Arrow: 0.3 s, for the one source that needs it

        return manifest.find_faces(root, fakes=self._section.fakes, allow_shared=self._allow_shared)

    def _make_blended(self, faces: Sequence[Face], train: bool) -> ItemSource:
        size = self._section.image_size
        if train:
            return BlendedPairs(faces, image_size=size, train=True)
        return RepeatedBlends(faces, image_size=size, repeats=self._section.validation_repeats)

    def _make_labelled(self, faces: Sequence[Face], train: bool) -> ItemSource:
        return LabelledFaces(faces, image_size=self._section.image_size, train=train)
