"""Batches of samples, through torch's DataLoader; the same bytes for any number of workers."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.random import build_generator
from sharpstudent.core.types import Batch, Sample
from sharpstudent.data.dataset import Samples, UnreadableSample
from sharpstudent.data.sampler import ItemKey
from sharpstudent.data.workers import SHARED_MEMORY_REMEDY, Workers, calm_worker, choose_start_method


def collate(samples: Sequence[Sample], groups: Sequence[str]) -> Batch:
    """The batch of these samples. groups: that of each sample, for rows that name none of their own.

    Every sample must have the same inputs, targets and columns; a weight that only some have is 1 for the others.
    Raises ValueError where they differ.
    """
    sizes = [count_rows(sample) for sample in samples]
    rows = _join_rows(samples, sizes, groups)
    shared = samples[0].shared
    inputs = _stack([sample.inputs for sample in samples], "inputs")
    for name, index in shared.items():
        inputs[index] = _number_anew(
            [sample.inputs[index] for sample in samples], [len(s.inputs[name]) for s in samples]
        )
    return Batch(
        inputs=inputs,
        targets=_stack([sample.targets for sample in samples], "targets"),
        weights=_join_weights(samples, sizes),
        rows=rows,
        shared=shared,
    )


def count_rows(sample: Sample) -> int:
    """How many rows a sample owns."""
    return len(sample.rows["id"])


def pictures_to_tensor(pictures: Tensor) -> Tensor:
    """uint8 (R, H, W, 3) to float32 (R, 3, H, W) in 0..1, without mean or standard deviation."""
    return pictures.permute(0, 3, 1, 2).contiguous().float().div_(255)


def _join_rows(samples: Sequence[Sample], sizes: Sequence[int], groups: Sequence[str]) -> dict[str, Any]:
    names = dict.fromkeys(name for sample in samples for name in sample.rows if name != "group")
    rows: dict[str, Any] = {}
    for name in names:
        parts = [sample.rows[name] for sample in samples]
        is_array = isinstance(parts[0], np.ndarray)
        rows[name] = torch.from_numpy(np.concatenate(parts)) if is_array else tuple(v for part in parts for v in part)
    rows["group"] = tuple(
        name
        for sample, size, group in zip(samples, sizes, groups, strict=True)
        for name in sample.rows.get("group", (group,) * size)
    )
    rows["sample"] = tuple(number for number, size in enumerate(sizes) for _ in range(size))
    return rows


def _stack(parts: Sequence[Mapping[str, NDArray[Any]]], what: str) -> dict[str, Tensor]:
    names = list(parts[0])
    for part in parts:
        if list(part) != names:
            raise ValueError(f"samples of one batch must have the same {what}, got {names} and {list(part)}")
    return {name: torch.from_numpy(np.concatenate([part[name] for part in parts])) for name in names}


def _number_anew(indices: Sequence[NDArray[Any]], counts: Sequence[int]) -> Tensor:
    """Indices into each sample's shared inputs as indices into those of the batch."""
    starts = np.cumsum([0, *counts[:-1]])
    return torch.from_numpy(
        np.concatenate([i + start for i, start in zip(indices, starts, strict=True)]).astype(np.int64)
    )


def _join_weights(samples: Sequence[Sample], sizes: Sequence[int]) -> dict[str, Tensor]:
    names = dict.fromkeys(name for sample in samples for name in sample.weights)
    return {
        name: torch.from_numpy(
            np.concatenate(
                [
                    np.asarray(sample.weights.get(name, np.ones(size)), np.float32)
                    for sample, size in zip(samples, sizes, strict=True)
                ]
            )
        )
        for name in names
    }


REPLACEMENT_TRIES = 20  # a set in which 20 random samples in a row are unreadable is beyond saving

Collate = Callable[[Sequence[Sample], Sequence[str]], Batch]


@dataclass(frozen=True)
class Replaced:
    """A sample that could not be read and was replaced: its path and the reason."""

    path: str
    reason: str


class LoadedBatch(NamedTuple):
    """A batch and the unreadable samples that others were taken for."""

    batch: Batch
    replaced: tuple[Replaced, ...]


class Loaded(NamedTuple):
    """One sample: made from which key and index, of which group where its rows do not say it, and what could not be
    read before it.
    """

    sample: Sample
    key: ItemKey
    index: int
    group: str
    replaced: tuple[Replaced, ...]


class KeyedSamples(Dataset[Loaded | UserError]):
    """Samples by key. An unreadable one is replaced by another, drawn from the same key: every process agrees.

    A set that cannot be saved gives a UserError as a value: torch would rebuild a raised one from its text alone.
    """

    def __init__(self, samples: Samples, *, seed: int) -> None:
        self.samples = samples
        self.seed = seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: ItemKey) -> Loaded | UserError:
        replaced: list[Replaced] = []
        index = key.index
        substitutes = build_generator(self.seed, key.epoch, key.index, "replacement")
        for _ in range(REPLACEMENT_TRIES):
            try:
                # The visit is part of the counter: each pass over the set within an epoch draws afresh.
                position = index + key.visit * len(self.samples)
                sample = self.samples.make(index, build_generator(self.seed, key.epoch, position))
                group = "" if "group" in sample.rows else self.samples.group(index)
                return Loaded(sample, key, index, group, tuple(replaced))
            except UnreadableSample as error:
                replaced.append(Replaced(error.path, error.reason))
                index = int(substitutes.integers(len(self.samples)))
        return UserError(
            Problem(
                where=self.samples.name(key.index),
                what=f"and {REPLACEMENT_TRIES - 1} items drawn in its place could not be read",
                got="\n".join(f"{r.path}: {r.reason}" for r in replaced[:5]),
                remedy="the data folder is missing or broken (an unmounted disk?): check it. What a run has saved is "
                "intact: go on with --resume",
            )
        )


def load_batches(
    samples: Samples,
    batches: Iterable[list[ItemKey]],
    *,
    seed: int,
    num_workers: int,
    collate: Collate = collate,
    timeout_s: float = 300.0,
) -> Generator[LoadedBatch]:
    """Yield the batches in order. num_workers 0 loads in this process. Worker errors come out as what they were.

    Args:
        samples: The split.
        batches: Keys of each batch.
        seed: Of the run in training, of the samples in an evaluation.
        num_workers: Processes that load.
        collate: Makes a batch of samples; that of the task.
        timeout_s: Seconds without a batch after which a loader process counts as hung.

    Raises TrainingStopped when a worker process dies, or when none brings the next batch within timeout_s seconds.
    Closing the iterator, or an error in it, ends the workers at once.
    """
    wanted = _Wanted(batches)
    loader: DataLoader[Any] = DataLoader(
        KeyedSamples(samples, seed=seed),
        batch_sampler=wanted,
        num_workers=num_workers,
        collate_fn=_Collate(collate),
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
            yield _raise_or_return(workers.receive(samples.name(wanted.sent[0][0].index)))
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


@dataclass(frozen=True)
class _Collate:
    """Makes a batch in the process that loaded its samples. An object and no closure: it goes to other processes."""

    collate: Collate

    def __call__(self, loaded: list[Loaded | UserError]) -> LoadedBatch | UserError:
        for one in loaded:
            if isinstance(one, UserError):
                return one
        batch = collate_loaded([one for one in loaded if not isinstance(one, UserError)], self.collate)
        return batch if get_worker_info() is None else _share(batch)


def collate_loaded(loaded: Sequence[Loaded], collate: Collate = collate) -> LoadedBatch:
    """A batch whose rows also tell their `key`: index and visit of the sample that they were made of, and their place
    in it.
    """
    batch = collate([one.sample for one in loaded], [one.group for one in loaded])
    sizes = [len(one.sample.rows["id"]) for one in loaded]
    keys = tuple(
        (one.index, one.key.visit, place) for one, size in zip(loaded, sizes, strict=True) for place in range(size)
    )
    batch = replace(batch, rows={**batch.rows, "key": keys})
    return LoadedBatch(batch, tuple(replaced for one in loaded for replaced in one.replaced))


def _share(loaded: LoadedBatch) -> LoadedBatch | UserError:
    """Move a worker's batch to shared memory here, where a failure is told.

    torch would do so in a thread of the worker whose exceptions nobody receives: the batch would never come.
    """
    tensors = list(loaded.batch.tensors())
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
