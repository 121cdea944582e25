"""The deepfake task: real 0, fake 1; data from one of four sources; frame-level validation AUC selects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2

from lib.data.items import ItemSource
from lib.engine.task import Scores, TaskData
from lib.metrics.accuracy import compute_accuracy
from lib.metrics.auc import compute_auc
from lib.tasks.deepfake.items import BlendedPairs, LabelledFaces, RepeatedBlends
from lib.tasks.deepfake.section import DeepfakeSection
from lib.tasks.deepfake.sources import ffpp, labelled, photos
from lib.tasks.deepfake.sources.face import Face, FaceSplits


class DeepfakeTask:
    """What the engine asks of a task: classes, data, metrics and the one that selects."""

    classes = ("real", "fake")
    selection_metric = "val_auc"

    def __init__(self, section: DeepfakeSection, *, allow: Sequence[str] = ()) -> None:
        self._section = section
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
        has_fakes = section.data_source == "labelled" or (section.data_source, section.fakes) == ("manifest", "labels")
        make = self._make_labelled if has_fakes else self._make_blended
        return TaskData(
            train=make(splits.train, True),
            validation=make(splits.validation, False),
            repeats=section.repeats,
            evaluation_seed=section.split_seed,
            notes=tuple(f"data ({section.data_source}) {note}" for note in splits.notes),
            depends_on=splits.depends_on,
        )

    def compute_metrics(self, scores: Scores) -> dict[str, float]:
        """Frame-level `val_auc` and accuracy at 0.5 of softmax[:, 1]. Raises MetricError for NaN or one class."""
        fake = scores.fake_probability
        return {
            "val_auc": compute_auc(scores.margin, scores.labels, sample_ids=scores.sample_ids),
            "val_accuracy": compute_accuracy(fake, scores.labels, threshold=0.5),
        }

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
        from lib.tasks.deepfake.sources import manifest  # Arrow: 0.3 s, for the one source that needs it

        return manifest.find_faces(root, fakes=self._section.fakes, allow_shared=self._allow_shared)

    def _make_blended(self, faces: Sequence[Face], train: bool) -> ItemSource:
        size = self._section.image_size
        if train:
            return BlendedPairs(faces, image_size=size, train=True)
        return RepeatedBlends(faces, image_size=size, repeats=self._section.validation_repeats)

    def _make_labelled(self, faces: Sequence[Face], train: bool) -> ItemSource:
        return LabelledFaces(faces, image_size=self._section.image_size, train=train)
