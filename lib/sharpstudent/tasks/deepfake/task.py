"""The deepfake task: real 0, fake 1, with data from one of four sources.

Importing this module loads neither torch nor OpenCV.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sharpstudent.core.errors import UserError, format_count_of
from sharpstudent.core.storage import read_place
from sharpstudent.core.types import Answer, Batch, ExportSpec, InputSource, ModelSpec, Outputs, Sample, Table
from sharpstudent.data.dataset import Samples
from sharpstudent.metrics.metric import Metric
from sharpstudent.task import ClassificationTask
from sharpstudent.tasks.deepfake.metrics import METRICS
from sharpstudent.tasks.deepfake.section import FAKE_NAMES, DeepfakeSection, FakeShares, check_fakes

if TYPE_CHECKING:
    from torch import nn

    from sharpstudent.modalities.faces.operations import Step
    from sharpstudent.tasks.deepfake.sources.face import Face, FaceSplits

BLEND, FAKE = "self-blend", "fake"  # kinds of fake in the column `manipulation`; "" for a real face
SPLITS = ("train", "validation")
# The keys that each source takes. Its module is imported only when it is read: Arrow takes 0.3 s, and only manifest
# needs it.
SOURCE_KEYS = {
    "ffpp": ("compression", "frames_per_clip"),
    "photos": ("image_size", "validation_share", "split_seed", "people"),
    "labelled": ("validation_share", "split_seed", "people"),
    "manifest": ("cache_folder", "cache_gb"),
}


class DeepfakeTask(ClassificationTask):
    """Tells real from fake faces.

    Inputs: `image` float32 (R, 3, S, S) RGB in 0..1, R rows of side S [px]. Groups are people.
    """

    Section = DeepfakeSection
    section: DeepfakeSection
    classes = ("real", "fake")
    metrics: ClassVar[Mapping[str, Metric]] = METRICS
    unit = "picture"
    group_unit = "person"
    details = "sharpstudent.tasks.deepfake.report.results:FaceDetails"
    renderer = "sharpstudent.tasks.deepfake.evaluation.renderer:FaceRenderer"
    facts_of_data = ("fakes",)
    heat_map_class = 1  # fake
    commands: ClassVar[Mapping[str, str]] = {
        name: f"sharpstudent.tasks.deepfake.commands:{name}" for name in ("prepare", "swaps", "check", "leaks")
    }
    scripts: ClassVar[Mapping[str, str]] = {
        "prepare_faces.py check": "check",
        "prepare_faces.py": "prepare",
        "make_swaps.py": "swaps",
    }
    demo: ClassVar[str | None] = "make demo"
    pretrained: ClassVar[Mapping[str, str]] = {"imagenet": "sharpstudent.models.pretrained:load_imagenet"}

    def __init__(
        self, section: Any = None, facts: Mapping[str, Any] | None = None, *, allow: Sequence[str] = ()
    ) -> None:
        """Build the task as `Task` does.

        Args:
            section: An instance of `DeepfakeSection`; None for the defaults of its keys.
            facts: The facts of a checkpoint; None in a training run.
            allow: The names given with `--allow`.
        """
        super().__init__(section, facts, allow=allow)
        known = self._list_made() if facts is None else facts.get("fakes")
        self._kinds: Sequence[str] | None = known  # of fakes in the training data; None where they are not known

    @property
    def image_size(self) -> int:
        """Side of the network's input [px]."""
        return int((self._facts or {}).get("image_size", self.section.image_size))

    @property
    def has_published_bands(self) -> bool:
        """Whether the two-stage guide's expected metrics apply: they are those of FaceForensics++."""
        return self.section.data_source == "ffpp"

    @property
    def is_blended(self) -> bool:
        """Whether fakes are made from the real faces, some of them at least."""
        return not self._is_labelled(self.section.fakes)

    def _is_labelled(self, fakes: str | FakeShares) -> bool:
        """Whether all pictures have labels of the set's own."""
        source = self.section.data_source
        return source == "labelled" or (source == "manifest" and fakes == "labels")

    def _list_made(self) -> tuple[str, ...] | None:
        """List the kinds of fake that training makes itself; None where the set has labels for all."""
        fakes = self.section.fakes
        if isinstance(fakes, FakeShares):
            return tuple(sorted({FAKE_NAMES[kind] for kind in fakes.list_shares() if kind != "labels"}))
        return (BLEND,) if self.is_blended else None

    def _get_fakes(self, split: str) -> str | FakeShares:
        """Return the fakes of a split."""
        other = self.section.validation_fakes if split == "validation" else None
        return self.section.fakes if other is None else other

    def facts(self) -> dict[str, Any]:
        """Return the facts that a checkpoint stores: classes, input size and form, and the kinds of fake learnt from.

        The kinds of labelled fakes are known once the data has been opened.
        """
        found = {"classes": list(self.classes), "image_size": self.image_size, "input": "RGB in 0..1, no mean/std"}
        return found if self._kinds is None else {**found, "fakes": list(self._kinds)}

    def open_data(self, *splits: str) -> tuple[Samples, ...]:
        """Open training and validation samples.

        Raises UserError that names what is missing or wrong with the source.
        """
        unknown = [split for split in splits if split not in SPLITS]
        if unknown:
            raise UserError.about("data", f"has no split {unknown[0]!r}", expected=" or ".join(SPLITS))
        import cv2

        from sharpstudent.tasks.deepfake.augmentation import build_steps

        # Before faces are looked for, which may take minutes: a package may be missing.
        section = self.section
        steps: dict[str, Sequence[Step] | None] = {}
        if "train" in splits:
            steps["train"] = build_steps(section.augmentation)
        if "validation" in splits and section.validation_augmentation is not None:
            steps["validation"] = build_steps(section.validation_augmentation, "validation_augmentation")
        check_fakes(section)
        found = self._find_faces(self._read_root())
        if self._facts is None and self._needs_labels("train"):
            self._kinds = (*(self._list_made() or ()), *found.kinds)
        # Cutting face crops starts OpenCV's threads; a loader process forked beside them hangs in setNumThreads.
        cv2.setNumThreads(1)
        return tuple(self._make_samples(found, split, steps.get(split)) for split in splits)

    def preview_augmentation(self, path: Path, seed: int) -> list[str]:
        """Draw real faces and fakes as validation and as three epochs of training see them, with what was done."""
        from sharpstudent.tasks.deepfake.report.contact_sheet import draw_contact_sheet
        from sharpstudent.tasks.deepfake.samples import FaceSamples

        (augmented,) = self.open_data("train")
        assert isinstance(augmented, FaceSamples)
        name = self.section.augmentation
        listed = name if isinstance(name, str) else ", ".join(one.op for one in name) or "none"
        title = f"augmentation: {listed}"
        shown = draw_contact_sheet(path, augmented.without_augmentation(), augmented, seed=seed, title=title)
        if not shown:
            raise UserError.about("--preview-augmentation", "has no face that can be read", remedy="check data_root")
        return [*augmented.notes, f"{path}: {format_count_of(shown, 'sample')}, {title}"]

    def build_student(self, spec: ModelSpec) -> nn.Module:
        """Build any timm model or EfficientNet-B4 with a head of two classes.

        Options: input_size [px], mean and std of each colour, for a model that expects pictures of another form; and
        unit_norm, for a head that reads features of L2 norm 1.
        Raises UserError for an unknown name or option.
        """
        from sharpstudent.models.vision import build_classifier

        return build_classifier(
            spec.name,
            classes=len(self.classes),
            dropout=spec.dropout,
            options=spec.options,
            side=self.image_size,
        )

    def collate(self, samples: Sequence[Sample], groups: Sequence[str]) -> Batch:
        """Join samples into a batch; pictures become float32 (R, 3, S, S) in 0..1.

        Args:
            samples: The samples, each with its rows.
            groups: The person of each sample.

        Returns:
            The batch.
        """
        from dataclasses import replace

        from sharpstudent.data.loader import collate, pictures_to_tensor

        batch = collate(samples, groups)
        return replace(batch, inputs={"image": pictures_to_tensor(batch.inputs["image"])})

    def name_fakes(self) -> str:
        """Return what kind of fake validation has, where its samples do not say it."""
        return FAKE if self._is_labelled(self._get_fakes("validation")) else BLEND

    def rows(self, outputs: Outputs, batch: Batch) -> Table:
        """Return a model's outputs for a batch as columns of a table.

        Args:
            outputs: The model's outputs, logits (R, 2).
            batch: The batch that it was given.

        Returns:
            The columns, each (R,), among them clip and manipulation.
        """
        import numpy as np

        table = super().rows(outputs, batch)
        kind = self.name_fakes()
        kinds = batch.rows.get("manipulation") or [kind if label == 1 else "" for label in table["label"].tolist()]
        return {**table, "clip": np.array(batch.rows["clip"]), "manipulation": np.array(kinds)}

    def example_batch(self, count: int) -> Batch:
        """Return a batch of `count` black pictures, for tracing a model."""
        import torch

        names, side = tuple(map(str, range(count))), self.image_size
        return Batch(
            inputs={"image": torch.zeros(count, 3, side, side)},
            targets={"label": torch.arange(count) % len(self.classes)},
            rows={"id": names, "group": names, "clip": names},
        )

    def calibrate(self, table: Table) -> dict[str, Any]:
        """Return temperature and operating points, of frames and of videos."""
        from sharpstudent.tasks.deepfake.evaluation.calibration import calibrate_on_validation
        from sharpstudent.tasks.deepfake.evaluation.frames import build_frames

        frames = build_frames(table, source=self.section.data_source)
        return calibrate_on_validation(frames).model_dump(mode="json")

    def export_spec(self) -> ExportSpec:
        """Return what an exported detector may lose: .005 of an AUC, 1 % of the rates of error."""
        return ExportSpec(
            tolerance={"auc": 0.005, "video_auc": 0.005, "accuracy": 0.01, "ap": 0.005, "eer": 0.01},
            picture="image",
            crop="one face a picture, cut with the margin that prepare_faces.py leaves around its box",
        )

    @classmethod
    def add_input_options(cls, inputs: Any, models: Any) -> None:
        """Add the options of predict.py for pictures, videos and detectors of other programs."""
        from sharpstudent.tasks.deepfake.options import add_input_options

        add_input_options(inputs, models)

    def list_suffixes(self) -> tuple[str, ...]:
        """List the endings of pictures and videos."""
        from sharpstudent.tasks.deepfake.read_input import SUFFIXES

        return SUFFIXES

    def open_input(self, source: InputSource) -> Iterator[Sample]:
        """Read the faces of a picture, a video, a camera or a stream, frame by frame."""
        from sharpstudent.tasks.deepfake.read_input import read_input

        return read_input(source, image_size=self.image_size)

    def make_example_input(self) -> tuple[str, bytes]:
        """Give a face that a program drew."""
        from importlib.resources import files

        return "example.jpg", (files("sharpstudent.tasks.deepfake.report") / "templates/example.jpg").read_bytes()

    def describe(self, tables: Iterator[Table], stored: Mapping[str, Any]) -> Iterator[Answer]:
        """Say by the stored thresholds whether an input is likely fake, by person and over time."""
        from sharpstudent.tasks.deepfake.answer import describe_faces

        return describe_faces(tables, stored)

    def finish_input(self, source: InputSource, answer: Answer, folder: Path) -> list[str]:
        """Write the video with the faces marked, where `--annotate` asks for it."""
        if not source.options.get("annotate") or source.path is None or answer.details.get("kind") != "video":
            return []
        from sharpstudent.tasks.deepfake.annotate import annotate_video

        return [annotate_video(source, answer, folder)]

    def check_metric(self, metric: str, validation: Samples) -> None:
        """Raise UserError for the AUC of videos where validation has none.

        Args:
            metric: The name of the metric that selects.
            validation: The validation samples.
        """
        from sharpstudent.tasks.deepfake.samples import FaceSamples

        if metric == "video_auc" and isinstance(validation, FaceSamples) and not validation.has_videos():
            raise UserError.about(
                "selection_metric",
                "needs videos, and the validation data has none: its pictures are stills",
                expected="clips of two pictures or more (data_source manifest or ffpp)",
                got=f"video_auc with {len(validation):,} stills",
                remedy="begin the run with --set selection_metric=auc",
            )

    @property
    def headline_metrics(self) -> tuple[str, ...]:
        """The metrics that a report names first."""
        return ("auc", "accuracy")

    def check_student(self, name: str, metrics: Mapping[str, float]) -> list[str]:
        """Compare a student with the two-stage guide's least accuracy of a student that stage 2 begins with.

        Args:
            name: What messages call the student.
            metrics: Its metrics on the validation data.

        Returns:
            Warnings, none where it is good enough.
        """
        from sharpstudent.report.guide import STAGE1_ACCURACY, STAGE1_EPOCHS

        accuracy = metrics["accuracy"]
        if accuracy >= STAGE1_ACCURACY:
            return []
        return [
            f"{name} is right on {accuracy:.1%} of the validation pictures, below the {STAGE1_ACCURACY:.0%} that stage "
            f"2 needs: run stage 1 longer, `stage1.epoch` {STAGE1_EPOCHS} or more"
        ]

    def _make_samples(self, found: FaceSplits, split: str, steps: Sequence[Step] | None) -> Samples:
        from sharpstudent.tasks.deepfake.mixture import MixedPairs
        from sharpstudent.tasks.deepfake.samples import BlendedPairs, LabelledFaces

        section, fakes = self.section, self._get_fakes(split)
        is_train = split == "train"
        faces: Sequence[Face] = found.train if is_train else found.validation
        options: dict[str, Any] = {"image_size": section.image_size, "train": is_train, "steps": steps}
        samples: Samples
        notes = [*found.notes]
        if self._is_labelled(fakes):
            samples = LabelledFaces(faces, **options)
        else:
            real, others = _divide(faces) if self._reads_labels() else (faces, ())
            options["times"] = 1 if is_train else section.validation_repeats
            if isinstance(fakes, FakeShares):
                samples = MixedPairs(real, shares=fakes.list_shares(), fakes=others, **options)
                notes.append(f"{split}: {samples.describe()}")
            else:
                samples = BlendedPairs(real, **options)
        samples.notes = tuple(f"data ({section.data_source}) {note}" for note in notes)
        samples.depends_on = found.depends_on
        samples.seed = section.split_seed
        samples.repeats = section.repeats if is_train else 1
        return samples

    def _needs_labels(self, split: str) -> bool:
        """Whether a split takes fakes that the set has."""
        fakes = self._get_fakes(split)
        return self._is_labelled(fakes) or (isinstance(fakes, FakeShares) and fakes.labels > 0)

    def _reads_labels(self) -> bool:
        """Whether the source is read with its fakes, because a split takes them."""
        return any(map(self._needs_labels, SPLITS))

    def _read_root(self) -> Path | str:
        """Return the path of the data, or its address; raises UserError where the source reads none of a storage."""
        root = read_place(self.section.data_root)
        if isinstance(root, str) and self.section.data_source != "manifest":
            raise UserError.about(
                "data_root",
                f"is in a storage, which data_source = {self.section.data_source!r} does not read",
                expected="a set that prepare_faces.py has written there, and data_source = 'manifest'",
                got=root,
                remedy="python prepare_faces.py SOURCE DEST --shards, then --set data_source=manifest",
            )
        return root

    def _find_faces(self, root: Path | str) -> FaceSplits:
        section = self.section
        source = import_module(f"sharpstudent.tasks.deepfake.sources.{section.data_source}")
        options = {name: getattr(section, name) for name in SOURCE_KEYS[section.data_source]}
        if section.data_source == "manifest":
            options["fakes"] = "labels" if self._reads_labels() else "blend"
        return source.find_faces(root, allow_shared="shared-people" in self.allow, **options)


def _divide(faces: Sequence[Face]) -> tuple[Sequence[Face], Sequence[Face]]:
    """Divide the faces of a prepared set by their labels: real faces, fakes."""
    from sharpstudent.tasks.deepfake.sources.manifest import ManifestFaces

    assert isinstance(faces, ManifestFaces)
    return faces.take_label(0), faces.take_label(1)
