"""Every model on every set: a picture is loaded once for all models that take it at the same size."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from lib.data.items import ItemSource
from lib.engine.evaluate import compute_scores_of_several
from lib.engine.open_model import OpenedModel
from lib.engine.samples import Samples
from lib.engine.task import Scores
from lib.errors import Problem, UserError
from lib.metrics.checks import MetricError, check_logits
from lib.metrics.scored import ScoredFrames, join_frames
from lib.report.console import format_duration
from lib.report.results import DataResult


class JudgedSet(Protocol):
    """A data set, as judging sees it; N faces."""

    @property
    def name(self) -> str: ...

    @property
    def seed(self) -> int:
        """What keys the randomness of its items, where they have any."""
        ...

    def build_source(self, image_size: int) -> ItemSource:
        """Its faces at the size of a network's input."""
        ...

    def to_frames(self, scores: Scores, unreadable: dict[str, str]) -> ScoredFrames:
        """scores: of its items in their order; unreadable: items by name with the reason; they have no decision."""
        ...

    def list_samples(self, scores: Scores) -> Samples:
        """Its items' pictures in the order of the scores."""
        ...

    def describe(self, unreadable: dict[str, str]) -> DataResult: ...


@dataclass(frozen=True)
class JudgedModel:
    """scores: of the items of each set; frames: of all sets together."""

    opened: OpenedModel
    scores: tuple[Scores, ...]
    frames: ScoredFrames


@dataclass(frozen=True)
class Judged:
    """All models as they were named, the sets as they were judged, and what could not be read of each."""

    models: tuple[JudgedModel, ...]
    data: tuple[DataResult, ...]
    unreadable: tuple[dict[str, str], ...]


def judge_models(
    models: Sequence[OpenedModel],
    sets: Sequence[JudgedSet],
    *,
    device: torch.device,
    num_workers: int,
    batch_size: int,
    say: Callable[[str], None],
) -> Judged:
    """Scores of all. Raises UserError for a model whose answers are not numbers, and for sets that have no figures: one
    class, no face at all, a frame that is there twice.
    """
    by_size: dict[int, list[int]] = defaultdict(list)
    for number, opened in enumerate(models):
        by_size[opened.image_size].append(number)
    scored: list[list[Scores]] = [[] for _ in models]
    frames: list[list[ScoredFrames]] = [[] for _ in models]
    data: list[DataResult] = []
    left_out: list[dict[str, str]] = []
    for judged in sets:
        unreadable: dict[str, str] = {}
        for size, numbers in by_size.items():
            source, begun = judged.build_source(size), time.monotonic()
            named = ", ".join(models[number].name for number in numbers)
            say(f"{judged.name}: {len(source):,} items at {size} px through {named} ...")
            scores, replaced = compute_scores_of_several(
                [models[number].model for number in numbers],
                source,
                seed=judged.seed,
                batch_size=batch_size,
                num_workers=num_workers,
                device=device,
            )
            say(f"{judged.name}: {format_duration(time.monotonic() - begun)}")
            unreadable |= {item.path: item.reason for item in replaced}
            for number, found in zip(numbers, scores, strict=True):
                _check_finite(models[number], judged.name, found)
                scored[number].append(found)
        # Only now is it known what no model could be shown: all are judged on the same frames.
        for path, reason in unreadable.items():
            say(f"not judged: {path}: {reason}")
        for number in range(len(models)):
            frames[number].append(judged.to_frames(scored[number][-1], unreadable))
        data.append(judged.describe(unreadable))
        left_out.append(unreadable)
    judged_models = [
        JudgedModel(opened, tuple(of_sets), join_frames(parts))
        for opened, of_sets, parts in zip(models, scored, frames, strict=True)
    ]
    return Judged(tuple(judged_models), tuple(data), tuple(left_out))


def _check_finite(opened: OpenedModel, of_set: str, scores: Scores) -> None:
    try:
        check_logits(scores.logits, scores.labels, sample_ids=scores.sample_ids)
    except MetricError as error:
        raise UserError(
            Problem(
                where=f"{opened.name} ({opened.path})",
                what=f"cannot be judged: its answers to pictures of {of_set} are not numbers",
                got=str(error),
                remedy="its weights are damaged, or were made for other pictures: train or export it again",
            )
        ) from None
