"""Scores of a model on an item source, and how long one picture takes."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from lib.data.items import ItemSource
from lib.data.loader import Replaced, load_batches
from lib.data.order import evaluation_batches
from lib.engine.task import Scores

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
