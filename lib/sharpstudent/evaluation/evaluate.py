"""Scores of models on sets of samples.

The single pictures that a model was asked about, before faces are made frames.

Scores of a model on an item source, and how long one picture takes.

Every model on every set: a picture is loaded once for all models that take it at the same size.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sharpstudent.core.errors import Problem, UserError
from sharpstudent.data.dataset import ItemSource
from sharpstudent.data.loader import Replaced, load_batches
from sharpstudent.data.sampler import evaluation_batches
from sharpstudent.evaluation.load_model import OpenedModel
from sharpstudent.evaluation.task import Scores
from sharpstudent.metrics.checks import MetricError, check_logits
from sharpstudent.metrics.tables import ScoredFrames, join_frames
from sharpstudent.report.console import format_duration
from sharpstudent.report.results import DataResult


@dataclass(frozen=True)
class Samples:
    """N of each, in the order of the scores. labels: int64, real 0, fake 1; margins: float64, log-odds of fake; names:
    as the user knows the pictures.
    """

    labels: NDArray[np.int64]
    margins: NDArray[np.float64]
    names: Sequence[str]
    clip_ids: Sequence[str]
    manipulations: Sequence[str]


LATENCY_ROUNDS = 30
WARM_UP_ROUNDS = 3


def compute_scores(
    model: nn.Module,
    source: ItemSource,
    *,
    seed: int,
    batch_size: int,
    num_workers: int,
    device: torch.device,
    timeout_s: float = 300.0,
    between_batches: Callable[[], None] = lambda: None,
) -> tuple[Scores, tuple[Replaced, ...]]:
    """Logits of every validation item, in order, with the model in evaluation mode; its mode is put back after.

    batch_size counts items; timeout_s: without a batch for so long, a loader process counts as hung; `between_batches`
    may raise to stop. Also returns the items that could not be read.
    """
    (scores,), replaced = compute_scores_of_several(
        [model],
        source,
        seed=seed,
        batch_size=batch_size,
        num_workers=num_workers,
        device=device,
        timeout_s=timeout_s,
        between_batches=between_batches,
    )
    return scores, replaced


@torch.inference_mode()
def compute_scores_of_several(
    models: Sequence[nn.Module],
    source: ItemSource,
    *,
    seed: int,
    batch_size: int,
    num_workers: int,
    device: torch.device,
    timeout_s: float = 300.0,
    between_batches: Callable[[], None] = lambda: None,
) -> tuple[tuple[Scores, ...], tuple[Replaced, ...]]:
    """As `compute_scores` for each of the models, to the same bits: a batch is loaded once and goes through all."""
    modes = [model.training for model in models]
    logits: list[list[torch.Tensor]] = [[] for _ in models]
    labels: list[np.ndarray] = []
    sample_ids: list[str] = []
    clip_ids: list[str] = []
    identities: list[str] = []
    replaced: list[Replaced] = []
    keys = evaluation_batches(len(source), batch_size)
    loader = load_batches(source, keys, seed=seed, num_workers=num_workers, timeout_s=timeout_s)
    try:
        for model in models:
            model.eval()
        with contextlib.closing(loader):
            for batch, unreadable in loader:
                between_batches()
                inputs = batch.inputs.to(device)
                for model, said in zip(models, logits, strict=True):
                    said.append(model(inputs).logits.float().cpu())
                # Copies: a batch that is kept holds its pictures in shared memory, and file descriptors, to the end.
                labels.append(batch.labels.numpy().copy())
                sample_ids += batch.sample_ids
                clip_ids += batch.clip_ids
                identities += batch.identities
                replaced += unreadable
    finally:
        for model, was_training in zip(models, modes, strict=True):
            model.train(was_training)
    scores = tuple(
        Scores(
            logits=torch.cat(said).numpy(),
            labels=np.concatenate(labels),
            sample_ids=tuple(sample_ids),
            clip_ids=tuple(clip_ids),
            identities=tuple(identities),
        )
        for said in logits
    )
    return scores, tuple(replaced)


def measure_latency_ms(model: nn.Module, *, image_size: int, device: torch.device) -> float:
    """Median time of one picture (batch 1) through the model in evaluation mode, on this device [ms]."""
    return statistics.median(measure_latencies_ms(model, image_size=image_size, device=device, rounds=LATENCY_ROUNDS))


@torch.inference_mode()
def measure_latencies_ms(model: nn.Module, *, image_size: int, device: torch.device, rounds: int) -> list[float]:
    """Times of one picture (batch 1), from the picture on `device` to its logits on the CPU [ms], `rounds` of them
    after some to warm up; the model in evaluation mode, its own mode is put back after.
    """
    was_training = model.training
    model.eval()
    # Its own generator: measuring must not shift the run's dropout.
    picture = torch.rand(1, 3, image_size, image_size, generator=torch.Generator().manual_seed(0)).to(device)
    times: list[float] = []
    try:
        for _ in range(WARM_UP_ROUNDS + rounds):
            start = time.perf_counter()
            model(picture).logits.cpu()
            times.append(1000 * (time.perf_counter() - start))
    finally:
        model.train(was_training)
    return times[WARM_UP_ROUNDS:]


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
