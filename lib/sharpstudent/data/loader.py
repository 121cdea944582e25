"""Batches from an item source, through torch's DataLoader; the same bytes for any number of workers."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.random import build_generator
from sharpstudent.core.types import Batch
from sharpstudent.data.dataset import Item, ItemSource, UnreadableItem
from sharpstudent.data.sampler import ItemKey
from sharpstudent.data.workers import SHARED_MEMORY_REMEDY, Workers, calm_worker, choose_start_method

REPLACEMENT_TRIES = 20  # a set in which 20 random items in a row are unreadable is beyond saving


@dataclass(frozen=True)
class Replaced:
    """An item that could not be read and was replaced: its path and the reason."""

    path: str
    reason: str


class LoadedBatch(NamedTuple):
    """A batch and the unreadable items that others stand in for."""

    batch: Batch
    replaced: tuple[Replaced, ...]


Loaded = tuple[Item, tuple[Replaced, ...]]


class KeyedItems(Dataset[Loaded | UserError]):
    """Items by key. An unreadable item is replaced by another one, drawn from the same key: every process agrees.

    A set that cannot be saved gives a UserError as a value: torch would rebuild a raised one from its text alone.
    """

    def __init__(self, source: ItemSource, *, seed: int) -> None:
        self.source = source
        self.seed = seed

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: ItemKey) -> Loaded | UserError:
        replaced: list[Replaced] = []
        index = key.index
        stand_ins = build_generator(self.seed, key.epoch, key.index, "replacement")
        for _ in range(REPLACEMENT_TRIES):
            try:
                # The visit is part of the counter: each pass over the set within an epoch draws afresh.
                position = index + key.visit * len(self.source)
                return self.source.make(index, build_generator(self.seed, key.epoch, position)), tuple(replaced)
            except UnreadableItem as error:
                replaced.append(Replaced(error.path, error.reason))
                index = int(stand_ins.integers(len(self.source)))
        return UserError(
            Problem(
                where=self.source.name_of(key.index),
                what=f"and {REPLACEMENT_TRIES - 1} items drawn in its place could not be read",
                got="\n".join(f"{r.path}: {r.reason}" for r in replaced[:5]),
                remedy="the data folder is missing or broken (an unmounted disk?): check it. What a run has saved is "
                "intact: go on with --resume",
            )
        )


def load_batches(
    source: ItemSource, batches: Iterable[list[ItemKey]], *, seed: int, num_workers: int, timeout_s: float = 300.0
) -> Generator[LoadedBatch]:
    """Yield the batches in order. num_workers 0 loads in this process. Worker errors come out as what they were.

    Raises TrainingStopped when a worker process dies, or when none brings the next batch within timeout_s seconds.
    Closing the iterator, or an error in it, ends the workers at once.
    """
    wanted = _Wanted(batches)
    loader: DataLoader[Any] = DataLoader(
        KeyedItems(source, seed=seed),
        batch_sampler=wanted,
        num_workers=num_workers,
        collate_fn=_collate_or_fail,
        worker_init_fn=calm_worker,
        # Its own generator: the loader would otherwise draw from the global one and shift dropout.
        generator=torch.Generator(),
        multiprocessing_context=choose_start_method() if num_workers else None,
    )
    if num_workers == 0:
        yield from map(_raise_or_return, loader)
        return
    workers: Workers[LoadedBatch | UserError] = Workers(loader, timeout_s)
    with contextlib.closing(workers):
        while wanted.sent:
            yield _raise_or_return(workers.receive(source.name_of(wanted.sent[0][0].index)))
            wanted.sent.popleft()


class _Wanted:
    """The batches as the loader asks for them, a few ahead. sent: those that it has and we do not have yet."""

    def __init__(self, batches: Iterable[list[ItemKey]]) -> None:
        self._batches = batches
        self.sent: deque[list[ItemKey]] = deque()

    def __iter__(self) -> Iterator[list[ItemKey]]:
        for keys in self._batches:
            self.sent.append(keys)
            yield keys


def _raise_or_return(loaded: LoadedBatch | UserError) -> LoadedBatch:
    if isinstance(loaded, UserError):
        raise loaded
    return loaded


def _collate_or_fail(items: list[Loaded | UserError]) -> LoadedBatch | UserError:
    for item in items:
        if isinstance(item, UserError):
            return item
    loaded = collate([item for item in items if not isinstance(item, UserError)])
    return loaded if get_worker_info() is None else _share(loaded)


def _share(loaded: LoadedBatch) -> LoadedBatch | UserError:
    """Move a worker's batch to shared memory here, where a failure is told.

    torch would do so in a thread of the worker whose exceptions nobody receives: the batch would never come.
    """
    batch = loaded.batch
    tensors = [tensor for tensor in (batch.inputs, batch.labels, batch.masks) if tensor is not None]
    try:
        for tensor in tensors:
            tensor.share_memory_()
    except RuntimeError as error:
        megabytes = sum(tensor.nbytes for tensor in tensors) / 1e6
        return UserError(
            Problem(
                where="shared memory (/dev/shm)",
                what="a loader process could not put its batch there",
                expected=f"room for a few batches of {megabytes:.1f} MB a process",
                got=str(error),
                remedy=SHARED_MEMORY_REMEDY,
            )
        )
    return loaded


def collate(items: list[Loaded]) -> LoadedBatch:
    """The items' pictures in the order of the items: inputs (N, 3, S, S) float32 RGB in 0..1, no mean/std."""
    rows = [(item, i) for item, _ in items for i in range(len(item.labels))]
    images = np.stack([item.images[i] for item, i in rows])
    has_masks = all(item.masks is not None for item, _ in rows)
    masks = np.stack([item.masks[i] for item, i in rows if item.masks is not None]) if has_masks else None
    batch = Batch(
        inputs=torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float().div_(255),
        labels=torch.tensor([item.labels[i] for item, i in rows], dtype=torch.int64),
        sample_ids=tuple(item.sample_ids[i] for item, i in rows),
        clip_ids=tuple(item.clip_id for item, _ in rows),
        identities=tuple(item.identity for item, _ in rows),
        masks=None if masks is None else torch.from_numpy(masks),
        items=tuple(number for number, (item, _) in enumerate(items) for _ in item.labels),
    )
    return LoadedBatch(batch, tuple(r for _, replaced in items for r in replaced))
