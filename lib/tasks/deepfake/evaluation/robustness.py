"""How models stand disturbed pictures: a curve of frame AUC for each disturbance, and the area under it.

Legend: n chosen faces of a set, V variants of each, K strengths of a disturbance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lib.engine.evaluate import compute_scores_of_several
from lib.metrics.figures import Resampling, compute_figures
from lib.metrics.scored import ScoredFrames, join_frames
from lib.modalities.faces.disturb import Disturbance
from lib.report.results import DisturbanceCurve, DisturbancePoint, FigureResult
from lib.tasks.deepfake.evaluation.evaluation_set import EvaluationSet
from lib.tasks.deepfake.evaluation.robustness_choice import choose_disturbances, choose_faces
from lib.tasks.deepfake.evaluation.robustness_items import DisturbedFaces, Variant, list_variants
from lib.tasks.deepfake.evaluation.robustness_parts import take_in_parts

ROUNDS = 200  # of the bootstrap, for each point of each curve
CHUNK = 1000  # faces whose scores are held as the loader gives them

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Look:
    """What each model is shown of each chosen face, and how it is loaded."""

    variants: tuple[Variant, ...]
    image_size: int
    num_workers: int
    device: torch.device
    seed: int


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
) -> dict[str, tuple[DisturbanceCurve, ...]]:
    """The curves of each model by its name, over the frames of all sets together.

    models: with names of their own; images (B, 3, S, S) -> Outputs, logits (B, 2), on `device`. image_size: S [px];
    names: of `DISTURBANCES`, None or empty for all; most_faces: see `choose_faces`. A face that cannot be read has no
    decision. Intervals are over people: 95 %, percentile bootstrap. Raises UserError as `choose_disturbances`, and
    MetricError where there is no AUC: one class, no face, scores that are not finite.
    """
    disturbances = choose_disturbances(names, say)
    chosen = choose_faces([judged.labels for judged in sets], most_faces, seed=seed, say=say)
    look = _Look(tuple(list_variants(disturbances)), image_size, num_workers, device, seed)
    frames: list[list[list[ScoredFrames]]] = [[[] for _ in look.variants] for _ in models]
    for judged, faces in zip(sets, chosen, strict=True):
        if len(faces):
            of_set = _score([model for _, model in models], judged, faces, look, say)
            for of_model, by_variant in zip(frames, of_set, strict=True):
                for parts, scored in zip(of_model, by_variant, strict=True):
                    parts.append(scored)
    return {
        name: _draw_curves(disturbances, look.variants, [join_frames(parts) for parts in of_model])
        for (name, _), of_model in zip(models, frames, strict=True)
    }


def compute_area(values: Sequence[float]) -> float:
    """Mean height of a curve of K >= 2 points at equal distances, by the trapezoid rule."""
    return float(np.trapezoid(values)) / (len(values) - 1)


def _score(
    models: Sequence[nn.Module], judged: EvaluationSet, faces: NDArray[np.int64], look: _Look, say: Say
) -> list[list[ScoredFrames]]:
    """The frames that the chosen faces (n,) of a set are in: of each model, in each variant."""
    of = f"robustness: {judged.name}:"
    say(f"{of} {len(faces):,} faces, each in {len(look.variants)} variants, at {look.image_size} px ...")
    margins = np.empty((len(models), len(look.variants), len(faces)))
    unreadable: dict[str, str] = {}
    with take_in_parts(models, image_size=look.image_size, device=look.device) as in_parts:
        for chunk in _split(len(faces)):
            source = DisturbedFaces(
                judged.faces, faces[chunk].tolist(), look.variants, image_size=look.image_size, seed=look.seed
            )
            scores, replaced = compute_scores_of_several(
                in_parts, source, seed=look.seed, batch_size=1, num_workers=look.num_workers, device=look.device
            )
            for number, of_model in enumerate(scores):
                margins[number, :, chunk] = of_model.margin.reshape(len(source), len(look.variants)).T
            unreadable |= {item.path: item.reason for item in replaced}
    if unreadable:
        say(f"{of} {len(unreadable):,} faces could not be read and have no decision")
    looked_at = judged.take(faces) if len(faces) < len(judged) else judged
    return [[looked_at.build_frames(row, unreadable) for row in of_model] for of_model in margins]


def _split(faces: int) -> Iterator[slice]:
    """Parts of nearly equal size: in a small last one, whose few items were unreadable, none could stand in."""
    parts = math.ceil(faces / CHUNK)
    ends = [faces * part // parts for part in range(parts + 1)]
    return (slice(start, end) for start, end in pairwise(ends))


def _draw_curves(
    disturbances: Sequence[Disturbance], variants: Sequence[Variant], frames: Sequence[ScoredFrames]
) -> tuple[DisturbanceCurve, ...]:
    figures = [_find_auc(of_variant) for of_variant in frames]
    return tuple(
        _draw_curve(
            disturbance,
            [figures[0]]
            + [f for f, v in zip(figures, variants, strict=True) if v.disturbance is disturbance and v.level],
        )
        for disturbance in disturbances
    )


def _draw_curve(disturbance: Disturbance, aucs: Sequence[FigureResult]) -> DisturbanceCurve:
    points = tuple(
        DisturbancePoint(strength=strength, label=disturbance.tell(level), auc=auc)
        for level, (strength, auc) in enumerate(zip(disturbance.strengths, aucs, strict=True))
    )
    values = [auc.value for auc in aucs if auc.value is not None]
    area = compute_area(values) if len(values) == len(aucs) else None
    return DisturbanceCurve(name=disturbance.name, unit=disturbance.unit, points=points, area=area)


def _find_auc(frames: ScoredFrames) -> FigureResult:
    wanted = Resampling(rounds=ROUNDS, figures=("auc",), of_parts=False)
    found = compute_figures(frames, aggregations=(), resampling=wanted)
    interval = found.intervals.get("frame_auc")
    return FigureResult(
        value=found.values.get("frame_auc"),
        low=None if interval is None else interval.low,
        high=None if interval is None else interval.high,
        note=found.notes.get("frame_auc"),
    )
