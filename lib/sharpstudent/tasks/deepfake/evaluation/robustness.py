"""How models stand disturbed pictures: a curve of frame AUC for each disturbance, and the area under it.

A face is read and cut once for all of its variants, and many pictures go through a model at once, in the parts and the
memory layout that it is fastest with.

Legend: n chosen faces of a set, V variants of each, K strengths of a disturbance.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sharpstudent.core.errors import UserError
from sharpstudent.core.random import build_generator
from sharpstudent.core.types import Outputs, Sample, Table
from sharpstudent.data.loader import Replaced
from sharpstudent.evaluation.compare import to_figure
from sharpstudent.evaluation.tables import compute_tables
from sharpstudent.metrics.bootstrap import compute_interval
from sharpstudent.metrics.metric import make_binary_metric
from sharpstudent.modalities.faces.corruptions import DISTURBANCES, Disturbance, cut_face, disturb, find_obstacle
from sharpstudent.report.results import MetricValue
from sharpstudent.tasks.deepfake.evaluation.evaluation_set import EvaluationSet
from sharpstudent.tasks.deepfake.evaluation.frames import ScoredFrames, join_frames
from sharpstudent.tasks.deepfake.metrics import compute_margins
from sharpstudent.tasks.deepfake.report.results import CorruptionCurve, CorruptionPoint
from sharpstudent.tasks.deepfake.samples import FaceSamples, build_sample
from sharpstudent.tasks.deepfake.sources.face import Face

# On a CPU, larger feature maps are given back to the system and asked for again at every layer: twice the time.
CPU_PIXELS, DEVICE_PIXELS = 12 * 112 * 112, 64 * 224 * 224


class InParts(nn.Module):
    """A model that is given so many pictures at a time, to the same answers but for rounding."""

    def __init__(self, model: nn.Module, most: int, layout: torch.memory_format) -> None:
        super().__init__()
        self._model, self._most, self._layout = model, most, layout
        self.training = model.training  # whoever puts its mode back puts back the model's

    def forward(self, image: torch.Tensor) -> Outputs:
        """image (B, 3, S, S) float32 in 0..1 -> logits (B, 2)."""
        parts = (part.contiguous(memory_format=self._layout) for part in image.split(self._most))
        return {"logits": torch.cat([self._model(part)["logits"] for part in parts])}


@contextlib.contextmanager
def take_in_parts(models: Sequence[nn.Module], *, image_size: int, device: torch.device) -> Generator[list[InParts]]:
    """The models for batches of any size. On a CPU their weights lie with channels last meanwhile: half the time."""
    is_cpu = device.type == "cpu"
    most = max(1, (CPU_PIXELS if is_cpu else DEVICE_PIXELS) // image_size**2)
    layout = torch.channels_last if is_cpu else torch.contiguous_format
    try:
        for model in models:
            model.to(memory_format=layout)
        yield [InParts(model, most, layout) for model in models]
    finally:
        for model in models:
            model.to(memory_format=torch.contiguous_format)


@dataclass(frozen=True)
class Variant:
    """A disturbance at one of its strengths; level: its place among them."""

    disturbance: Disturbance
    level: int


def list_variants(disturbances: Sequence[Disturbance]) -> list[Variant]:
    """The undisturbed picture, once for all, then every disturbance at each of its strengths."""
    return [Variant(disturbances[0], 0)] + [
        Variant(disturbance, level) for disturbance in disturbances for level in range(1, len(disturbance.strengths))
    ]


class DisturbedFaces(FaceSamples):
    """An item of V pictures a face: uint8 (V, S, S, 3) RGB in the variants' order.

    chosen: int64 (n,), numbers of faces in `faces`: the key of a face's randomness is its number there, so that it does
    not depend on which others were chosen. The pixels of the undisturbed variant are those of validation, cut around
    the detector's first box where there is one (`LabelledFaces`). Labels are those of the set: here all are 0.
    """

    def __init__(
        self, faces: Sequence[Face], chosen: Sequence[int], variants: Sequence[Variant], *, image_size: int, seed: int
    ) -> None:
        super().__init__([faces[number] for number in chosen], image_size=image_size, train=False)
        self._numbers, self._variants, self.seed = chosen, variants, seed

    def make(self, index: int, rng: np.random.Generator) -> Sample:
        """Nothing is drawn from the generator. Raises UnreadableSample as the face's own loading does."""
        face, side = self._faces[index], self._image_size
        loaded = face.load()
        cut = cut_face(loaded.image, None if loaded.boxes is None else loaded.boxes[0])
        count = len(self._variants)
        images = np.empty((count, side, side, 3), np.uint8)
        for place, variant in enumerate(self._variants):
            picture = disturb(cut, variant.disturbance, variant.level, seed=self.seed, index=self._numbers[index])
            # Bilinear, with no smoothing before it: as all items are resized.
            images[place] = cv2.resize(picture, (side, side), interpolation=cv2.INTER_LINEAR)
        return build_sample(face, images, labels=(0,) * count, ids=(face.name,) * count)


def choose_disturbances(names: Sequence[str] | None, say: Callable[[str], None]) -> tuple[Disturbance, ...]:
    """Those of these names, in their own order; all for None or none. Where H.264 cannot be had it is left out, and
    `say` is told why. Raises UserError for a name that is none, and where nothing is left.
    """
    known = [disturbance.name for disturbance in DISTURBANCES]
    unknown = sorted(set(names or ()) - set(known))
    if unknown:
        raise UserError.about(
            where="robustness",
            what="no disturbance has this name",
            expected=", ".join(known),
            got=", ".join(unknown),
            remedy="name some of these, or none of them for all",
        )
    wanted = [disturbance for disturbance in DISTURBANCES if not names or disturbance.name in names]
    obstacle = find_obstacle() if any(disturbance.name == "h264" for disturbance in wanted) else None
    if obstacle is None:
        return tuple(wanted)
    left = tuple(disturbance for disturbance in wanted if disturbance.name != "h264")
    if not left:
        raise UserError.about(where="robustness: h264", what=obstacle)
    say(f"robustness: h264 is left out: {obstacle}")
    return left


def choose_faces(
    labels: Sequence[NDArray[np.int64]], most: int | None, *, seed: int, say: Callable[[str], None]
) -> list[NDArray[np.int64]]:
    """The numbers of the faces to look at, rising, of each set: all of them, or at most so many of all sets together.

    labels: of the faces of each set, real 0 and fake 1, int64 (N,) each. Where it is fewer than all, half are real and
    half fake as far as there are, drawn by the seed alone. Raises UserError where less than one of each is allowed.
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


ROUNDS = 200  # of the bootstrap, for each point of each curve
CHUNK = 1000  # faces whose scores are held as the loader gives them

Say = Callable[[str], None]
Read = tuple[tuple[Table, ...], tuple[Replaced, ...]]  # a table for each model, and what could not be read


def measure_robustness(
    models: Sequence[tuple[str, nn.Module]],
    sets: Sequence[EvaluationSet],
    *,
    image_size: int,
    num_workers: int,
    device: torch.device,
    names: Sequence[str] | None = None,
    most_faces: int | None = None,
    seed: int = 0,
    say: Say,
) -> dict[str, tuple[CorruptionCurve, ...]]:
    """The curves of each model by its name, over the frames of all sets together.

    models: with names of their own; images (B, 3, S, S) -> Outputs, logits (B, 2), on `device`. image_size: S [px];
    names: of `DISTURBANCES`, None or empty for all; most_faces: see `choose_faces`. A face that cannot be read has no
    decision. Intervals are over people: 95 %, percentile bootstrap. Raises UserError as `choose_disturbances`, and
    MetricError for scores that are not finite.
    """
    disturbances = choose_disturbances(names, say)
    chosen = choose_faces([one.labels for one in sets], most_faces, seed=seed, say=say)
    variants = list_variants(disturbances)
    scored: list[list[list[ScoredFrames]]] = []
    with take_in_parts([model for _, model in models], image_size=image_size, device=device) as in_parts:

        def read(of_set: EvaluationSet, faces: NDArray[np.int64]) -> Read:
            source = DisturbedFaces(of_set.faces, faces.tolist(), variants, image_size=image_size, seed=seed)
            return compute_tables(in_parts, source, of_set.task, batch_size=1, num_workers=num_workers, device=device)

        for of_set, faces in zip(sets, chosen, strict=True):
            if len(faces):
                say(
                    f"robustness: {of_set.name}: {len(faces):,} faces, each in {len(variants)} variants, at "
                    f"{image_size} px ..."
                )
                scored.append(_score(of_set, faces, read, say))
    return {
        name: _draw_curves(disturbances, variants, [join_frames(parts) for parts in zip(*of_sets, strict=True)])
        for (name, _), *of_sets in zip(models, *scored, strict=True)
    }


def compute_area(values: Sequence[float]) -> float:
    """Mean height of a curve of K >= 2 points at equal distances, by the trapezoid rule."""
    return float(np.trapezoid(values)) / (len(values) - 1)


def _score(
    of_set: EvaluationSet,
    faces: NDArray[np.int64],
    read: Callable[[EvaluationSet, NDArray[np.int64]], Read],
    say: Say,
) -> list[list[ScoredFrames]]:
    """The frames that the chosen faces (n,) of a set are in and that have a score: of each model, in each variant.

    read: gives what the models say of some of the faces. They are read in parts of nearly equal size: in a small last
    one, whose few faces were unreadable, there would be no substitute.
    """
    margins: list[NDArray[np.float64]] = []  # (models, faces of the part, V)
    unreadable: dict[str, str] = {}
    for some in np.array_split(faces, math.ceil(len(faces) / CHUNK)):
        tables, replaced = read(of_set, some)
        margins.append(np.stack([compute_margins(table).reshape(len(some), -1) for table in tables]))
        unreadable |= {item.path: item.reason for item in replaced}
    if unreadable:
        say(f"robustness: {of_set.name}: {len(unreadable):,} faces could not be read and have no decision")

    def build(row: NDArray[np.float64]) -> ScoredFrames:
        frames = of_set.build_frames(row, unreadable, chosen=faces)
        return frames.take(np.flatnonzero(frames.decided))

    return [[build(row) for row in of_model.T] for of_model in np.concatenate(margins, axis=1)]


def _draw_curves(
    disturbances: Sequence[Disturbance], variants: Sequence[Variant], frames: Sequence[ScoredFrames]
) -> tuple[CorruptionCurve, ...]:
    plain, *others = map(_find_auc, frames)
    disturbed = {(v.disturbance.name, v.level): auc for v, auc in zip(variants[1:], others, strict=True)}
    curves: list[CorruptionCurve] = []
    for one in disturbances:
        aucs = [plain, *(disturbed[one.name, level] for level in range(1, len(one.strengths)))]
        points = tuple(
            CorruptionPoint(strength=strength, label=one.tell(level), auc=auc)
            for level, (strength, auc) in enumerate(zip(one.strengths, aucs, strict=True))
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
    return to_figure(compute_interval(AUC, table, rounds=ROUNDS, group_unit="person"))
