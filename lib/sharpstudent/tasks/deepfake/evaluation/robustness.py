"""Measures robustness to corrupted pictures: a curve of frame AUC for each corruption, and the area under it.

A face is read and cropped once for all of its variants, and many pictures go through a model at once, in the parts and
the memory layout that are fastest for it.

Legend: n chosen faces of a set, V variants of each, K severities of a corruption.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sharpstudent.core.errors import UserError
from sharpstudent.core.random import build_generator
from sharpstudent.core.types import Outputs, Sample, Table
from sharpstudent.data.loader import Replaced
from sharpstudent.evaluation.compare import to_metric_value
from sharpstudent.evaluation.tables import compute_tables
from sharpstudent.metrics.bootstrap import compute_interval
from sharpstudent.metrics.metric import make_binary_metric
from sharpstudent.modalities.faces.corruptions import (
    CORRUPTIONS,
    Corruption,
    corrupt,
    explain_no_h264,
    find_evaluation_crop,
)
from sharpstudent.report.console import WorkProgress
from sharpstudent.report.results import MetricValue
from sharpstudent.tasks.deepfake.evaluation.evaluation_set import LabelledFaceSet
from sharpstudent.tasks.deepfake.evaluation.frames import ScoredFrames
from sharpstudent.tasks.deepfake.metrics import compute_margins
from sharpstudent.tasks.deepfake.report.results import CorruptionCurve, CorruptionPoint
from sharpstudent.tasks.deepfake.samples import DrawnSample, FaceSamples, build_sample
from sharpstudent.tasks.deepfake.sources.face import Face

# On a CPU, larger feature maps are freed and allocated again at every layer, which doubles the time.
CPU_PIXELS, DEVICE_PIXELS = 12 * 112 * 112, 64 * 224 * 224


class ChunkedModel(nn.Module):
    """Runs a model on a few pictures at a time. Its outputs are those of the whole batch, except for rounding."""

    def __init__(self, model: nn.Module, most: int, layout: torch.memory_format) -> None:
        super().__init__()
        self._model, self._most, self._layout = model, most, layout
        self.training = model.training  # whoever saves and restores this mode restores the model's

    def forward(self, image: torch.Tensor) -> Outputs:
        """Apply the model to each part of a batch, image (B, 3, S, S) float32 in 0..1, and give the logits (B, 2)."""
        parts = (part.contiguous(memory_format=self._layout) for part in image.split(self._most))
        return {"logits": torch.cat([self._model(part)["logits"] for part in parts])}


@contextlib.contextmanager
def chunk_models(
    models: Sequence[nn.Module], *, image_size: int, device: torch.device
) -> Generator[list[ChunkedModel]]:
    """Wrap models so that they take batches of any size quickly.

    On a CPU the weights are kept with channels last meanwhile, which halves the time.

    Args:
        models: The models, on `device`.
        image_size: The side of the pictures [px].
        device: The device of the models.

    Yields:
        The wrapped models, in the same order.
    """
    is_cpu = device.type == "cpu"
    most = max(1, (CPU_PIXELS if is_cpu else DEVICE_PIXELS) // image_size**2)
    layout = torch.channels_last if is_cpu else torch.contiguous_format
    try:
        for model in models:
            model.to(memory_format=layout)
        yield [ChunkedModel(model, most, layout) for model in models]
    finally:
        for model in models:
            model.to(memory_format=torch.contiguous_format)


@dataclass(frozen=True)
class Variant:
    """A corruption at one of its severities.

    Attributes:
        corruption: The corruption of the picture.
        level: The index of the severity among the corruption's severities; 0 is the clean picture.
    """

    corruption: Corruption
    level: int


def list_variants(corruptions: Sequence[Corruption]) -> list[Variant]:
    """List the clean picture, once for all, and then every corruption at each of its severities."""
    return [Variant(corruptions[0], 0)] + [
        Variant(corruption, level) for corruption in corruptions for level in range(1, len(corruption.severities))
    ]


class CorruptedFaces(FaceSamples):
    """Samples of V pictures of one face each, uint8 (V, S, S, 3) RGB, in the order of the variants.

    The randomness of a face is keyed on its number in the whole set, so that it does not depend on which others were
    chosen. The pixels of the clean variant are those of validation, cropped around the detector's first box where there
    is one (`LabelledFaces`).
    """

    def __init__(
        self, faces: Sequence[Face], chosen: Sequence[int], variants: Sequence[Variant], *, image_size: int, seed: int
    ) -> None:
        """Choose faces of a set.

        Args:
            faces: All faces of the set.
            chosen: The numbers of the n faces to read.
            variants: The V corruptions with their severities.
            image_size: The side of the pictures [px].
            seed: The seed of the corruptions' randomness.
        """
        super().__init__([faces[number] for number in chosen], image_size=image_size, train=False)
        self._numbers, self._variants, self.seed = chosen, variants, seed

    def make(self, index: int, rng: np.random.Generator) -> Sample:
        """Read a face and make its variants.

        Args:
            index: The index of the face among the chosen ones.
            rng: Not used: the corruptions have generators of their own.

        Returns:
            A sample of V rows.

        Raises:
            UnreadableSample: As the loading of the face does.
        """
        face, drawn = self._faces[index], self.draw(index, rng)
        count = len(drawn.pictures)
        return build_sample(face, np.stack(drawn.pictures), labels=drawn.labels, ids=(face.name,) * count)

    def draw(self, index: int, rng: np.random.Generator) -> DrawnSample:
        """Make the variants of a face, each with its corruption and severity."""
        face, side = self._faces[index], self._image_size
        loaded = face.read()
        crop = find_evaluation_crop(loaded.image, None if loaded.boxes is None else loaded.boxes[0])
        pictures = [
            corrupt(crop, variant.corruption, variant.level, seed=self.seed, index=self._numbers[index])
            for variant in self._variants
        ]
        # Bilinear, with no smoothing before it: as all samples are resized.
        resized = [cv2.resize(one, (side, side), interpolation=cv2.INTER_LINEAR) for one in pictures]
        told = tuple(f"{variant.corruption.name} {variant.level}" for variant in self._variants)
        return DrawnSample(tuple(np.asarray(one, np.uint8) for one in resized), (0,) * len(resized), told)


def choose_corruptions(names: Sequence[str] | None, say: Callable[[str], None]) -> tuple[Corruption, ...]:
    """Find the corruptions of these names, in the order of `CORRUPTIONS`.

    H.264 is left out where its encoder is not installed.

    Args:
        names: The names of the corruptions; None or empty for all.
        say: Prints a line for the user, where H.264 is left out.

    Returns:
        The corruptions.

    Raises:
        UserError: For an unknown name, and where nothing is left.
    """
    known = [corruption.name for corruption in CORRUPTIONS]
    unknown = sorted(set(names or ()) - set(known))
    if unknown:
        raise UserError.about(
            where="robustness",
            what="no corruption has this name",
            expected=", ".join(known),
            got=", ".join(unknown),
            remedy="name some of these, or none of them for all",
        )
    wanted = [corruption for corruption in CORRUPTIONS if not names or corruption.name in names]
    obstacle = explain_no_h264() if any(corruption.name == "h264" for corruption in wanted) else None
    if obstacle is None:
        return tuple(wanted)
    left = tuple(corruption for corruption in wanted if corruption.name != "h264")
    if not left:
        raise UserError.about(where="robustness: h264", what=obstacle)
    say(f"robustness: h264 is left out: {obstacle}")
    return left


def choose_faces(
    labels: Sequence[NDArray[np.int64]], most: int | None, *, seed: int, say: Callable[[str], None]
) -> list[NDArray[np.int64]]:
    """Choose the faces that robustness is measured on.

    Where there are more than `most`, half of the chosen are real and half fake as far as there are; they are drawn by
    the seed alone.

    Args:
        labels: The labels of each set's faces, real 0 and fake 1, int64 (N,) each.
        most: The largest number of faces over all sets together; None for all.
        seed: The seed of the draw.
        say: Prints a line for the user that says what was drawn.

    Returns:
        The numbers of the chosen faces of each set, rising.

    Raises:
        UserError: Where `most` allows less than one of each class.
    """
    everything = np.concatenate(labels)
    if most is None or len(everything) <= most:
        return [np.arange(len(of_set)) for of_set in labels]
    if most < 2:
        raise UserError.about(
            "robustness", "needs a real and a fake at least", expected="2 faces or more", got=str(most)
        )
    reals, fakes = (np.flatnonzero(everything == label) for label in (0, 1))
    of_reals = min(len(reals), max(most - most // 2, most - len(fakes)))
    rng = build_generator(seed, 0, 0, "order")
    some_reals = rng.permutation(reals)[:of_reals]
    some_fakes = rng.permutation(fakes)[: most - of_reals]
    say(
        f"robustness: {most:,} of {len(everything):,} faces, drawn with seed {seed}: {len(some_reals):,} of "
        f"{len(reals):,} real, {len(some_fakes):,} of {len(fakes):,} fake"
    )
    is_chosen = np.zeros(len(everything), np.bool_)
    is_chosen[some_reals] = is_chosen[some_fakes] = True
    ends = np.cumsum([len(of_set) for of_set in labels])
    return [np.flatnonzero(of_set) for of_set in np.split(is_chosen, ends[:-1])]


ROUNDS = 200  # resamples of the bootstrap for each point of each curve
CHUNK = 1000  # faces that are loaded and scored in one pass of the loader

Say = Callable[[str], None]
SILENT = partial(WorkProgress, None)
Read = tuple[tuple[Table, ...], tuple[Replaced, ...]]  # a table for each model, and what could not be read


def measure_robustness(
    models: Sequence[tuple[str, nn.Module]],
    sets: Sequence[LabelledFaceSet],
    *,
    image_size: int,
    num_workers: int,
    device: torch.device,
    names: Sequence[str] | None = None,
    most_faces: int | None = None,
    seed: int = 0,
    say: Say,
    progress: Callable[[str, int, str], WorkProgress] = SILENT,
) -> dict[str, tuple[CorruptionCurve, ...]]:
    """Measure the curves of each model, of each data set by itself: fakes of unlike kinds are not pooled.

    A face that cannot be read has no decision. Intervals are over people: 95 %, by bootstrap. With several sets, a
    curve is called CORRUPTION@SET.

    Args:
        models: The models with unique names, on `device`: images (B, 3, S, S) -> Outputs with logits (B, 2).
        sets: The data sets.
        image_size: Side S of the models' input [px].
        num_workers: How many loader processes run.
        device: The device of the models.
        names: The names of the corruptions, of `CORRUPTIONS`; None or empty for all.
        most_faces: The largest number of faces over all sets together, see `choose_faces`.
        seed: The seed of the choice of faces and of the corruptions.
        say: Prints a line for the user.
        progress: Shows how much is done of a piece of work, given its title, total and unit.

    Returns:
        The curves of each model by its name.

    Raises:
        UserError: As `choose_corruptions`.
        MetricError: For scores that are not finite.
    """
    corruptions = choose_corruptions(names, say)
    chosen = choose_faces([one.labels for one in sets], most_faces, seed=seed, say=say)
    variants = list_variants(corruptions)
    scored: dict[str, list[list[ScoredFrames]]] = {}
    with chunk_models([model for _, model in models], image_size=image_size, device=device) as in_parts:

        def read(of_set: LabelledFaceSet, faces: NDArray[np.int64], tick: Callable[[], None]) -> Read:
            """Evaluate all models on some faces of a set, given by number.

            Args:
                of_set: The data set.
                faces: The numbers of the faces, int64.
                tick: Called for each face.

            Returns:
                A table for each model, and the faces that could not be read.
            """
            source = CorruptedFaces(of_set.faces, faces.tolist(), variants, image_size=image_size, seed=seed)
            return compute_tables(
                in_parts,
                source,
                of_set.task,
                batch_size=1,
                num_workers=num_workers,
                device=device,
                between_batches=tick,
            )

        for of_set, faces in zip(sets, chosen, strict=True):
            if len(faces):
                say(
                    f"robustness: {of_set.name}: {len(faces):,} faces, each in {len(variants)} variants, at "
                    f"{image_size} px ..."
                )
                title = f"robustness: {of_set.name}, {len(corruptions)} corruptions"
                with progress(title, len(faces), "face") as shown:
                    scored[of_set.name] = _score(of_set, faces, partial(read, tick=shown.add), say)
    with progress("robustness: curves with intervals", len(scored) * len(models) * len(variants), "severity") as shown:
        return {
            name: tuple(
                curve if len(sets) == 1 else curve.model_copy(update={"name": f"{curve.name}@{of_set}"})
                for of_set, of_models in scored.items()
                for curve in _draw_curves(corruptions, variants, of_models[number], shown.add)
            )
            for number, (name, _) in enumerate(models)
        }


def compute_area(values: Sequence[float]) -> float:
    """Compute the mean height of a curve of K >= 2 points at equal distances, by the trapezoid rule."""
    return float(np.trapezoid(values)) / (len(values) - 1)


def _score(
    of_set: LabelledFaceSet,
    faces: NDArray[np.int64],
    read: Callable[[LabelledFaceSet, NDArray[np.int64]], Read],
    say: Say,
) -> list[list[ScoredFrames]]:
    """Score the frames of the chosen faces (n,) of a set: for each model and each variant those that have a score.

    The faces are read in parts of nearly equal size: in a small last part, whose few faces were unreadable, the loader
    would find no substitute.
    """
    margins: list[NDArray[np.float64]] = []  # (models, faces of the part, V)
    unreadable: dict[str, str] = {}
    for some in np.array_split(faces, math.ceil(len(faces) / CHUNK)):
        tables, replaced = read(of_set, some)
        margins.append(np.stack([compute_margins(table).reshape(len(some), -1) for table in tables]))
        unreadable |= {face.path: face.reason for face in replaced}
    if unreadable:
        say(f"robustness: {of_set.name}: {len(unreadable):,} faces could not be read and have no decision")

    def build(row: NDArray[np.float64]) -> ScoredFrames:
        frames = of_set.build_frames(row, unreadable, chosen=faces)
        return frames.take(np.flatnonzero(frames.decided))

    return [[build(row) for row in of_model.T] for of_model in np.concatenate(margins, axis=1)]


def _draw_curves(
    corruptions: Sequence[Corruption],
    variants: Sequence[Variant],
    frames: Sequence[ScoredFrames],
    tick: Callable[[], None],
) -> tuple[CorruptionCurve, ...]:
    def find(of_variant: ScoredFrames) -> MetricValue:
        auc = _find_auc(of_variant)
        tick()
        return auc

    plain, *others = map(find, frames)
    corrupted = {(v.corruption.name, v.level): auc for v, auc in zip(variants[1:], others, strict=True)}
    curves: list[CorruptionCurve] = []
    for one in corruptions:
        aucs = [plain, *(corrupted[one.name, level] for level in range(1, len(one.severities)))]
        points = tuple(
            CorruptionPoint(strength=severity, label=one.name_severity(level), auc=auc)
            for level, (severity, auc) in enumerate(zip(one.severities, aucs, strict=True))
        )
        values = [auc.value for auc in aucs if auc.value is not None]
        area = compute_area(values) if len(values) == len(aucs) else None
        curves.append(CorruptionCurve(name=one.name, unit=one.unit, points=points, area=area))
    return tuple(curves)


AUC = make_binary_metric("auc", lambda table: table["margin"])


def _find_auc(frames: ScoredFrames) -> MetricValue:
    people = [f"{source}\0{person}" for source, person in zip(frames.sources, frames.groups, strict=True)]
    names = np.array(frames.sample_ids)
    table = {"id": names, "group": np.array(people), "label": frames.labels, "margin": frames.margins}
    return to_metric_value(compute_interval(AUC, table, rounds=ROUNDS, group_unit="person"))
