"""The gaze task: where each person of a picture looks, as a map of 64 x 64 cells, and whether within the picture.

Importing this module loads neither torch nor OpenCV.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sharpstudent.core.errors import UserError, choose
from sharpstudent.core.types import Answer, Batch, ExportSpec, InputSource, ModelSpec, Outputs, Sample, Table
from sharpstudent.data.dataset import Samples
from sharpstudent.metrics.metric import Metric
from sharpstudent.task import Advice, Task
from sharpstudent.tasks.gaze.map_metrics import METRICS
from sharpstudent.tasks.gaze.section import GazeSection

if TYPE_CHECKING:
    from torch import nn

    from sharpstudent.tasks.gaze.feature_cache import FeatureCache
    from sharpstudent.tasks.gaze.heads import Scene

# The data set's part that each split is taken from, where the data has no validation part.
PARTS = {"train": "train", "validation": "train", "test": "test"}


class GazeTask(Task):
    """Says where heads look.

    Inputs: `image` float32 (I, 3, S, S) RGB in 0..1, `image_index` int64 (R,), `box` float32 (R, 4) in 0..1. Outputs:
    logits `heatmap` (R, 64, 64), and `inside` (R,) of models with an in/out head.
    """

    Section = GazeSection
    demo = "make demo-gaze"
    section: GazeSection
    metrics: ClassVar[Mapping[str, Metric]] = METRICS
    details = "sharpstudent.tasks.gaze.gaze_answer:LookDetails"
    facts_of_data = ("layout",)
    unit, group_unit = "head", "group"  # a person where the labels name people, else a picture
    renderer = "sharpstudent.tasks.gaze.gaze_renderer:GazeRenderer"
    _is_training = False  # whether the training split has been opened
    pretrained: ClassVar[Mapping[str, str]] = {"imagenet": "sharpstudent.tasks.gaze.model:load_backbone"}

    @property
    def is_video(self) -> bool:
        """Whether the data is VideoAttentionTarget's, where every student has an in/out head."""
        return (self._facts or {}).get("layout", self.section.layout) == "vat"

    def facts(self) -> dict[str, Any]:
        """Return what a checkpoint stores: the layout, and the side of the pictures."""
        return {
            "layout": self.section.layout,
            "image_size": self.section.image_size,
            "input": "RGB in 0..1, no mean/std",
            **super().facts(),
        }

    def open_data(self, *splits: str) -> tuple[Samples, ...]:
        """Open the samples of these splits.

        Raises UserError that names what is missing or wrong with the labels.
        """
        from sharpstudent.tasks.gaze.layouts import has_validation
        from sharpstudent.tasks.gaze.scenes import GazeScenes

        for split in splits:
            choose(PARTS, split, "split")
        if "train" in splits:
            self._keep_features()
        named = {split: self._find_part(split) for split in splits}
        parts = {part: self._read_part(part) for part in dict.fromkeys(named.values())}
        has_own = has_validation(Path(self.section.data_root))
        opened: list[Samples] = []
        for split in splits:
            scenes, notes = parts[named[split]]
            if split != "test" and not has_own:
                scenes = self._split_off(scenes)[split == "validation"]
            samples = GazeScenes(scenes, self.section, train=split == "train")
            heads = sum(len(scene.heads) for scene in scenes)
            samples.notes = (
                f"gaze ({self.section.layout}), {split}: {len(scenes):,} pictures, {heads:,} heads",
                *notes,
            )
            opened.append(samples)
        return tuple(opened)

    def _find_part(self, split: str) -> str:
        """Find the data set's part that a split is taken from: its own where the data has a validation part."""
        from sharpstudent.tasks.gaze.layouts import has_validation

        is_own = split == "validation" and has_validation(Path(self.section.data_root))
        return split if is_own else PARTS[split]

    def _read_part(self, part: str) -> tuple[list[Scene], tuple[str, ...]]:
        from sharpstudent.tasks.gaze.layouts import read_scenes

        section = self.section
        every = section.every if part != "test" else 1
        return read_scenes(Path(section.data_root), section.layout, part, every=every, smooth=section.smooth)

    def _split_off(self, scenes: Sequence[Scene]) -> tuple[list[Scene], list[Scene]]:
        """Split the training part into what is learnt from, and the groups that choose epochs."""
        from sharpstudent.data.splits import choose_validation_identities

        groups = {scene.group for scene in scenes}
        if len(groups) < 2:
            unit = "show" if self.section.layout == "vat" else "picture"
            raise UserError.about(
                "validation",
                f"needs a {unit} that is not trained on, and the training part has only one",
                expected=f"2 {unit}s or more",
                got=f"{len(groups)}: {', '.join(groups)}",
                remedy="give more data",
            )
        share, seed = self.section.validation_share, self.section.split_seed
        held_out = choose_validation_identities(groups, share=share, seed=seed)
        parts: tuple[list[Scene], list[Scene]] = ([], [])
        for scene in scenes:
            parts[scene.group in held_out].append(scene)
        return parts

    def build_student(self, spec: ModelSpec) -> nn.Module:
        """Build a gaze model; with vat it has an in/out head, also where its name lacks `_inout`.

        Raises UserError for an unknown name or option.
        """
        return self._build(spec, inout=self.is_video)

    def build_teacher(self, spec: ModelSpec) -> nn.Module:
        """Build a teacher; only a name with `_inout` has an in/out head, as its file then does."""
        return self._build(spec, inout=False)

    def _build(self, spec: ModelSpec, *, inout: bool) -> nn.Module:
        from sharpstudent.tasks.gaze.backbones import INOUT
        from sharpstudent.tasks.gaze.feature_cache import FeatureCache
        from sharpstudent.tasks.gaze.model import GazeModel

        cache = None if self.section.feature_cache is None else FeatureCache(Path(self.section.feature_cache))
        if cache is not None:
            cache.is_on = self._is_training
            self._caches.append(cache)
        inout = inout or spec.name.endswith(INOUT)
        return GazeModel(spec.name, side=self.image_size, inout=inout, options=spec.options, cache=cache)

    def _keep_features(self) -> None:
        """Let the models of this training keep features. Latency, answers and exports are those of whole models."""
        self._is_training = True
        for cache in self._caches:
            cache.is_on = True

    @functools.cached_property
    def _caches(self) -> list[FeatureCache]:
        return []

    @property
    def image_size(self) -> int:
        """Side of the pictures [px]."""
        return int((self._facts or {}).get("image_size", self.section.image_size))

    def collate(self, samples: Sequence[Sample], groups: Sequence[str]) -> Batch:
        """Join samples into a batch; pictures become float32 (I, 3, S, S) in 0..1.

        Args:
            samples: The samples, each with the rows of its heads.
            groups: The group of each sample.

        Returns:
            The batch.
        """
        from sharpstudent.data.loader import collate, pictures_to_tensor

        batch = collate(samples, groups)
        return replace(batch, inputs={**batch.inputs, "image": pictures_to_tensor(batch.inputs["image"])})

    def rows(self, outputs: Outputs, batch: Batch) -> Table:
        """Compute the metrics of each row of a batch, NaN for a head that looks nowhere.

        Args:
            outputs: The model's outputs.
            batch: The batch that it was given.

        Returns:
            The columns `min_l2`, `avg_l2`, `auc`, `right_object`, `inside`, `looks` and the peak, each (R,).

        Raises:
            UserError: For a map that is not finite: it has no peak.
        """
        import numpy as np

        from sharpstudent.tasks.gaze import map_metrics

        maps = outputs["heatmap"].detach().float().cpu().numpy()
        if not np.isfinite(maps).all():
            raise UserError.about(
                f"the heat map of {batch.rows['id'][int(np.argwhere(~np.isfinite(maps))[0, 0])]}",
                "is not finite, so that it has no peak",
                remedy="the weights are damaged, or training diverged: lower lr",
            )
        points, objects = (batch.targets[name].cpu().numpy() for name in ("points", "objects"))
        peaks, looks = map_metrics.find_peaks(maps), batch.targets["inside"].cpu().numpy() > 0.5
        nearest, mean = map_metrics.compute_distances(peaks, points)
        inside = outputs.get("inside")
        return {
            "min_l2": nearest,
            "avg_l2": mean,
            "auc": self._compute_auc(maps, points, batch.targets["size"].cpu().numpy(), looks),
            "right_object": map_metrics.find_right_objects(peaks, points, objects),
            "inside": np.zeros(len(maps)) if inside is None else inside.detach().float().cpu().numpy().astype(float),
            "looks": looks.astype(np.int64),
            "peak_x": peaks[:, 0],
            "peak_y": peaks[:, 1],
        }

    def _compute_auc(self, maps: Any, points: Any, sizes: Any, looks: Any) -> Any:
        """Compute the AUC of each row in the way of its data set (N,), NaN for a head that looks nowhere."""
        import numpy as np

        from sharpstudent.tasks.gaze import map_metrics

        values = np.full(len(maps), np.nan)
        if self.is_video:
            values[looks] = map_metrics.compute_square_aucs(maps[looks], points[looks, 0])
        else:
            values[looks] = map_metrics.compute_picture_aucs(maps[looks], points[looks], sizes[looks])
        return values

    def check_metric(self, metric: str, validation: Samples) -> None:
        """Raise UserError for a metric that has no value on these validation samples.

        Args:
            metric: The metric that selects.
            validation: The validation samples.
        """
        from sharpstudent.tasks.gaze.scenes import GazeScenes

        if not isinstance(validation, GazeScenes):
            return
        looks = {bool(head.points) for scene in validation.scenes for head in scene.heads}
        lacks = {
            "inout_ap": len(looks) < 2 and "heads that look into the picture, and heads that look out of it",
            "right_object": not any(scene.objects for scene in validation.scenes) and "rendered scenes with objects",
        }
        if lacks.get(metric):
            raise UserError.about(
                "selection_metric",
                f"{metric} has no value on the validation data",
                expected=str(lacks[metric]),
                remedy="set selection_metric to min_l2, or leave it out",
            )

    def example_batch(self, count: int) -> Batch:
        """Return a batch of `count` black pictures with a head each, for shapes and tracing."""
        import torch

        names, side = tuple(map(str, range(count))), self.image_size
        nowhere = torch.full((count, 16, 2), torch.nan)
        return Batch(
            inputs={
                "image": torch.zeros(count, 3, side, side),
                "image_index": torch.arange(count),
                "box": torch.tensor([[0.2, 0.1, 0.4, 0.4]]).repeat(count, 1),
            },
            targets={
                "heatmap": torch.rand(count, 64, 64, generator=torch.Generator().manual_seed(0)),
                "inside": (torch.arange(count) % 2).float(),
                "points": torch.full((count, 16, 2), 0.5),
                "objects": nowhere,
                "size": torch.full((count, 2), side),
            },
            weights={"heatmap": torch.ones(count)},
            rows={"id": names, "group": names},
            shared={"image": "image_index"},
        )

    @classmethod
    def advise(cls, rows: Sequence[Mapping[str, Any]]) -> list[Advice]:
        """Read the curves of a distillation by the rules of its guide: is the teacher's weight too high or too low?"""
        from sharpstudent.tasks.gaze.weight_advice import read_curves

        return list(read_curves(rows))

    @classmethod
    def add_input_options(cls, inputs: Any, models: Any) -> None:
        """Add the options of predict.py for heads and videos.

        Args:
            inputs: The group of options for inputs.
            models: The group of options for models; it stays as it is.
        """
        from sharpstudent.tasks.gaze.gaze_input import add_input_options

        add_input_options(inputs)

    def list_suffixes(self) -> tuple[str, ...]:
        """List the endings of pictures and videos."""
        from sharpstudent.tasks.gaze.gaze_input import PICTURES, VIDEOS

        return (*PICTURES, *VIDEOS)

    def open_input(self, source: InputSource) -> Iterator[Sample]:
        """Read the heads of a picture, a video, a camera or a stream, frame by frame."""
        from sharpstudent.tasks.gaze.gaze_input import read_input

        return read_input(source, side=self.image_size)

    def describe(self, tables: Iterator[Table], stored: Mapping[str, Any]) -> Iterator[Answer]:
        """Say and draw where each person of an input looks."""
        from sharpstudent.tasks.gaze.gaze_answer import describe_gaze

        return describe_gaze(tables, stored)

    def finish_input(self, source: InputSource, answer: Answer, folder: Path) -> list[str]:
        """Write the picture with its lines beside the page."""
        drawn = answer.pictures.get("Where each looks")
        if not drawn:
            return []
        from sharpstudent.core.io import write_bytes_atomically
        from sharpstudent.report.predictions import name_files

        path = folder / f"{name_files(source)}.gaze.jpg"
        write_bytes_atomically(path, drawn[0][0])
        return [f"{source.name}: where each looks: {path}"]

    def export_spec(self) -> ExportSpec:
        """Return what an exported model may lose: .005 of a distance or an AUC."""
        return ExportSpec(tolerance={"min_l2": 0.005, "avg_l2": 0.005, "auc": 0.005, "inout_ap": 0.01})

    @property
    def headline_metrics(self) -> tuple[str, ...]:
        """The metrics that a report names first: AUC is near its best for a model that does not see the head."""
        return ("min_l2", "avg_l2", "auc") if not self.is_video else ("min_l2", "auc", "inout_ap")
