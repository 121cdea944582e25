"""Scores of a model on an item source, and how long one picture takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from lib.data.items import ItemSource
from lib.data.loader import Replaced, load_batches
from lib.data.order import evaluation_batches
from lib.engine.task import Scores

LATENCY_ROUNDS = 30


@torch.inference_mode()
def compute_scores(
    model: nn.Module,
    source: ItemSource,
    *,
    seed: int,
    batch_size: int,
    num_workers: int,
    device: torch.device,
    between_batches: Callable[[], None] = lambda: None,
) -> tuple[Scores, tuple[Replaced, ...]]:
    """Logits of every validation item, in order, with the model in evaluation mode; its mode is put back after.

    batch_size counts items; `between_batches` may raise to stop. Also returns the items that could not be read.
    """
    was_training = model.training
    model.eval()
    logits: list[torch.Tensor] = []
    batches = []
    replaced: list[Replaced] = []
    try:
        keys = evaluation_batches(len(source), batch_size)
        for loaded in load_batches(source, keys, seed=seed, num_workers=num_workers):
            between_batches()
            logits.append(model(loaded.batch.inputs.to(device)).logits.float().cpu())
            batches.append(loaded.batch)
            replaced.extend(loaded.replaced)
    finally:
        model.train(was_training)
    return (
        Scores(
            logits=torch.cat(logits).numpy(),
            labels=np.concatenate([batch.labels.numpy() for batch in batches]),
            sample_ids=tuple(name for batch in batches for name in batch.sample_ids),
            clip_ids=tuple(name for batch in batches for name in batch.clip_ids),
            identities=tuple(name for batch in batches for name in batch.identities),
        ),
        tuple(replaced),
    )


@torch.inference_mode()
def measure_latency_ms(model: nn.Module, *, image_size: int, device: torch.device) -> float:
    """Median time of one picture (batch 1) through the model in evaluation mode, on this device [ms]."""
    was_training = model.training
    model.eval()
    # Its own generator: measuring must not shift the run's dropout.
    picture = torch.rand(1, 3, image_size, image_size, generator=torch.Generator().manual_seed(0)).to(device)
    times: list[float] = []
    try:
        for _ in range(3 + LATENCY_ROUNDS):
            start = time.perf_counter()
            model(picture).logits.cpu()
            times.append(1000 * (time.perf_counter() - start))
    finally:
        model.train(was_training)
    return statistics.median(times[3:])
