"""Loads batches of samples. Their bytes do not depend on the number of worker processes."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sharpstudent.core.errors import UserError
from sharpstudent.core.random import build_generator
from sharpstudent.core.types import Batch, Sample
from sharpstudent.data.dataset import Samples, UnreadableSample
from sharpstudent.data.sampler import SampleKey
from sharpstudent.data.workers import SHARED_MEMORY_REMEDY, Workers


def collate(samples: Sequence[Sample], groups: Sequence[str]) -> Batch:
    """Make one batch of several samples.

    Every sample must have the same inputs, targets and columns; a weight that only some have is 1 for the others.

    Args:
        samples: The samples in the order of the batch.
        groups: The group of each sample, for rows that do not name their own.

    Raises:
        ValueError: Where the samples differ.
    """
    sizes = [count_rows(sample) for sample in samples]
    shared = samples[0].shared
    inputs = _stack([sample.inputs for sample in samples], "inputs")
    for name, index in shared.items():  # each sample counts its shared inputs from 0
        starts = np.cumsum([0, *(len(sample.inputs[name]) for sample in samples[:-1])])
        indices = [sample.inputs[index] + start for sample, start in zip(samples, starts, strict=True)]
        inputs[index] = torch.from_numpy(np.concatenate(indices).astype(np.int64))
    return Batch(
        inputs=inputs,
        targets=_stack([sample.targets for sample in samples], "targets"),
        weights=_join_weights(samples, sizes),
        rows=_join_rows(samples, sizes, groups),
        shared=shared,
    )


def count_rows(sample: Sample) -> int:
    """Count the rows of a sample."""
    return len(sample.rows["id"])


def pictures_to_tensor(pictures: Tensor) -> Tensor:
    """Convert pictures from uint8 (R, ..., H, W, 3) to float32 (R, ..., 3, H, W) in 0..1."""
    return pictures.movedim(-1, -3).contiguous().float().div_(255)


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


def _join_weights(samples: Sequence[Sample], sizes: Sequence[int]) -> dict[str, Tensor]:
    joined: dict[str, Tensor] = {}
    for name in dict.fromkeys(name for sample in samples for name in sample.weights):
        parts = [sample.weights.get(name, np.ones(size)) for sample, size in zip(samples, sizes, strict=True)]
        joined[name] = torch.from_numpy(np.concatenate([np.asarray(part, np.float32) for part in parts]))
    return joined


PLACES = 2  # lines of a traceback that an error message quotes
REPLACEMENT_TRIES = 20  # when as many random samples in a row are unreadable, the run stops

Collate = Callable[[Sequence[Sample], Sequence[str]], Batch]


@dataclass(frozen=True)
class Replaced:
    """A sample that could not be read and was replaced.

    Attributes:
        path: The path of the file.
        reason: Why it cannot be used.
    """

    path: str
    reason: str


class LoadedBatch(NamedTuple):
    """A batch, and the samples that could not be read and were replaced.

    Attributes:
        batch: The batch.
        replaced: The samples that were replaced.
    """

    batch: Batch
    replaced: tuple[Replaced, ...]


@dataclass(frozen=True)
class BatchMaker:
    """Makes batches of samples by their keys, in the training process or in a worker.

    Attributes:
        samples: The split.
        seed: The seed of the random draws of the samples.
        collate: Makes a batch of samples.
        is_shared: Whether the batch goes to another process, through shared memory.
    """

    samples: Samples
    seed: int
    collate: Collate = collate
    is_shared: bool = False

    def __call__(self, keys: Sequence[SampleKey]) -> LoadedBatch:
        """Make the batch of these keys.

        A column `key` is added to its rows: the index and visit of the sample, and the number of the row within it.

        Raises:
            UserError: When a sample cannot be made, or the samples cannot be collated into a batch.
        """
        replaced: list[Replaced] = []
        made = [self.make(key, replaced) for key in keys]
        samples = [sample for _, sample in made]
        groups = ["" if "group" in sample.rows else self.samples.group(index) for index, sample in made]
        try:
            batch = self.collate(samples, groups)
        except (UserError, MemoryError):
            raise
        except Exception as error:
            raise explain_collation(samples, [self.samples.name(index) for index, _ in made], error) from error
        rows = tuple(
            (index, key.visit, place)
            for (index, sample), key in zip(made, keys, strict=True)
            for place in range(count_rows(sample))
        )
        batch = replace(batch, rows={**batch.rows, "key": rows})
        if self.is_shared:
            _share(batch)
        return LoadedBatch(batch, tuple(replaced))

    def make(self, key: SampleKey, replaced: list[Replaced]) -> tuple[int, Sample]:
        """Make a sample, and return its index with it.

        A sample that cannot be read is replaced by another one. The draw is seeded with the key, so that it does not
        depend on the process.

        Args:
            key: The key of the sample.
            replaced: A list to which samples that could not be read are added.

        Raises:
            UserError: When REPLACEMENT_TRIES samples in a row cannot be read, when `make` raises any other error, and
                for a sample that `check_sample` refuses.
        """
        index = key.index
        substitutes = build_generator(self.seed, key.epoch, key.index, "replacement")
        for _ in range(REPLACEMENT_TRIES):
            try:
                # The visit is part of the position, so that each pass over the set within an epoch draws other numbers.
                position = index + key.visit * len(self.samples)
                sample = self.samples.make(index, build_generator(self.seed, key.epoch, position))
                check_sample(sample, self.samples, index)
                return index, sample
            except UnreadableSample as error:
                replaced.append(Replaced(error.path, error.reason))
                index = int(substitutes.integers(len(self.samples)))
            except (UserError, MemoryError):
                raise
            except Exception as error:
                raise UserError.about(
                    where=f"sample {self.samples.name(index)}",
                    what=f"cannot be made: {type(self.samples).__name__}.make raised {type(error).__name__}",
                    got=f"{error}\n{_find_place(error)}",
                    remedy="correct `make` there; for a file that cannot be used, let it raise UnreadableSample: then "
                    "another sample is taken in its place",
                ) from error
        raise UserError.about(
            where=self.samples.name(key.index),
            what=f"and {REPLACEMENT_TRIES - 1} samples drawn in its place could not be read",
            got="\n".join(f"{one.path}: {one.reason}" for one in replaced[-REPLACEMENT_TRIES:][:5]),
            remedy="the data folder is missing or broken (an unmounted disk?): check it. What a run has saved is "
            "intact: go on with --resume",
        )


def check_sample(sample: Sample, samples: Samples, index: int) -> None:
    """Check that a sample has an `id` for each row, and a value for each row in every array.

    Args:
        sample: The sample that `make` returned.
        samples: The split; it gives the name of a refused sample. A name may need the disk, so no other is read.
        index: The index of the sample.

    Raises:
        UserError: When `id` or a value is missing; the message names the array.
    """
    if "id" not in sample.rows:
        raise UserError.about(
            f"sample {samples.name(index)}",
            "names no rows",
            'rows={"id": (NAME, ...)}, one name a row',
            str(dict(sample.rows)),
        )
    size = count_rows(sample)
    for part in ("inputs", "targets", "weights"):
        for key, value in getattr(sample, part).items():
            shape = getattr(value, "shape", None)
            if not shape or (shape[0] != size and key not in sample.shared):
                raise UserError.about(
                    where=f"sample {samples.name(index)}, {part} {key!r}",
                    what="has no row axis, or not as many rows as the sample",
                    expected=f"an array of shape ({size}, ...): `id` names {size} row{'s' if size != 1 else ''}",
                    got=type(value).__name__ if shape is None else f"shape {tuple(shape)}",
                    remedy="give it a first axis of the rows; `value[None]` does so for a sample of one row",
                )


def explain_collation(samples: Sequence[Sample], names: Sequence[str], error: Exception) -> UserError:
    """Explain why samples could not be collated into a batch.

    Args:
        samples: The samples of the batch.
        names: The names of the samples, for error messages.
        error: The exception that `collate` raised.
    """
    for name, sample in zip(names, samples, strict=True):
        for part in ("inputs", "targets", "rows"):
            first, other = getattr(samples[0], part), getattr(sample, part)
            if (first.keys() ^ other.keys()) - {"group"}:
                return UserError.about(
                    where=f"sample {name}, {part}",
                    what=f"are not named as those of {names[0]}, which is in the same batch",
                    expected=", ".join(first) or "none",
                    got=", ".join(other) or "none",
                    remedy=f"let `make` give the same {part} for every sample",
                )
            for key in first if part != "rows" else ():
                if first[key].shape[1:] != other[key].shape[1:]:
                    return UserError.about(
                        where=f"sample {name}, {part} {key!r}",
                        what=f"has another shape than in {names[0]}, which is in the same batch",
                        expected=f"shape {('rows', *first[key].shape[1:])}".replace("'", ""),
                        got=f"shape {tuple(other[key].shape)}",
                        remedy="let `make` give one shape (resize, crop or pad), or the task's `collate` join them",
                    )
    return UserError.about(
        where=f"the batch of {', '.join(names)}",
        what=f"cannot be put together: `collate` raised {type(error).__name__}",
        got=f"{error}\n{_find_place(error)}",
        remedy="correct `collate`, or the samples that `make` gives",
    )


def _find_place(error: Exception) -> str:
    """Name the innermost lines of the traceback of an error, without the one in this file."""
    frames = traceback.extract_tb(error.__traceback__)[1:][-PLACES:]
    return "\n".join(f"{frame.filename}, line {frame.lineno}, in {frame.name}" for frame in frames)


def load_batches(
    samples: Samples,
    batches: Iterable[list[SampleKey]],
    *,
    seed: int,
    num_workers: int,
    collate: Collate = collate,
    timeout_s: float = 300.0,
) -> Generator[LoadedBatch]:
    """Yield the batches in order. Closing the iterator, or an error in it, ends the workers at once.

    Args:
        samples: The split.
        batches: Keys of each batch.
        seed: The seed of the run in training, the seed of the samples in an evaluation.
        num_workers: Number of loader processes; 0 loads in this process.
        collate: Makes a batch of samples; normally the method of the task.
        timeout_s: Seconds without a batch after which a loader process counts as hung.

    Raises:
        TrainingStopped: When a worker process dies, or when none brings the next batch within timeout_s seconds.
        Exception: An exception that a worker raised, unchanged.
    """
    make = BatchMaker(samples, seed, collate, is_shared=num_workers > 0)
    if num_workers == 0:
        yield from map(make, batches)
    else:
        workers = Workers(make, num_workers, timeout_s)
        yield from workers.run(batches, lambda keys: samples.name(keys[0].index))


def _share(batch: Batch) -> None:
    """Move a batch to shared memory; raises UserError where that is full."""
    tensors = list(batch.tensors())
    try:
        for tensor in tensors:
            tensor.share_memory_()
    except RuntimeError as error:
        megabytes = sum(tensor.nbytes for tensor in tensors) / 1e6
        raise UserError.about(
            where="shared memory (/dev/shm)",
            what="a loader process could not put its batch there",
            expected=f"room for a few batches of {megabytes:.1f} MB a process",
            got=str(error),
            remedy=SHARED_MEMORY_REMEDY,
        ) from None
