"""Batches from an item source, through torch's DataLoader; the same bytes for any number of workers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from lib.data.items import Item, ItemSource, UnreadableItem
from lib.data.order import ItemKey
from lib.errors import Problem, TrainingStopped, UserError
from lib.random import build_generator
from lib.types import Batch

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
                remedy="the data folder is missing or broken: check it",
            )
        )


def load_batches(
    source: ItemSource, batches: Iterable[list[ItemKey]], *, seed: int, num_workers: int
) -> Iterator[LoadedBatch]:
    """Yield the batches in order. num_workers 0 loads in this process. Worker errors come out as what they were.

    Raises TrainingStopped when a worker process dies (torch notices within seconds).
    """
    loader = DataLoader(
        KeyedItems(source, seed=seed),
        batch_sampler=list(batches),
        num_workers=num_workers,
        collate_fn=_collate_or_fail,
        worker_init_fn=_calm_worker,
        # Its own generator: the loader would otherwise draw from the global one and shift dropout.
        generator=torch.Generator(),
        multiprocessing_context="fork" if num_workers and _can_fork() else None,
    )
    with _no_threads_of_opencv() if num_workers else contextlib.nullcontext():
        batches_of_workers = iter(loader)  # starts the workers
    try:
        for loaded in batches_of_workers:
            if isinstance(loaded, UserError):
                raise loaded
            yield loaded
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise TrainingStopped(
            f"a loader process died ({error}). What was saved is intact: go on with --resume. If memory ran out, use "
            f"fewer processes: --set num_workers={num_workers // 2}"
        ) from None


def _collate_or_fail(items: list[Loaded | UserError]) -> LoadedBatch | UserError:
    for item in items:
        if isinstance(item, UserError):
            return item
    return collate([item for item in items if not isinstance(item, UserError)])


def collate(items: list[Loaded]) -> LoadedBatch:
    """Reals first, then fakes, each in the order of the items: inputs (N, 3, S, S) float32 RGB in 0..1, no mean/std."""
    rows = [(item, i) for item, _ in items for i in range(len(item.labels))]
    rows.sort(key=lambda row: row[0].labels[row[1]])
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
    )
    return LoadedBatch(batch, tuple(r for _, replaced in items for r in replaced))


@contextlib.contextmanager
def _no_threads_of_opencv() -> Iterator[None]:
    """Inside, OpenCV has no threads, so that a process forked here inherits none.

    A fork copies a pool's locks but not its threads: a worker that then sets its own number of threads, or uses them,
    waits for ever. Stopped here, in the process that owns it, the pool is started again when it is next needed.
    """
    import cv2

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _calm_worker(_: int) -> None:
    """One thread a worker: the processes are the parallelism. Ctrl-C is the training process's to answer."""
    import signal

    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _can_fork() -> bool:
    import multiprocessing
    import sys

    return "fork" in multiprocessing.get_all_start_methods() and sys.platform == "linux"
