"""Runs a model on samples of inputs: read ahead in threads, in batches that are filled across inputs in their order.

Reading and the model overlap: inputs are read by threads of their own, a few samples ahead, and the model runs in the
main thread. The same samples in the same order get the same outputs to the last bit as in an evaluation. Memory does
not grow with the number or length of the inputs: all queues are bounded.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from sharpstudent.core.errors import UserError
from sharpstudent.core.types import FEATURES, Batch, InputSource, Sample, Table
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.deploy.familiar import Familiar, FeatureStatistics
from sharpstudent.evaluation.opened import OpenedModel
from sharpstudent.models.forward import evaluation_mode, run_model
from sharpstudent.task import Task

DEPTH = 4  # samples that each thread reads ahead
MOST_IDLE = 512  # samples without inputs of one source, after which the model runs on a batch that is not full

Item = TypeVar("Item")
# The number of an input, the input, and a sample of it; None at its end, or the reason why it cannot be read.
_Event = tuple[int, InputSource, Sample | UnreadableSample | None]


class ReadAhead(Generic[Item]):
    """Runs an iterator in a thread of its own, at most `depth` items ahead of its reader.

    An exception of the iterator is raised in its place. `close` ends the thread; the iterator is closed in it.
    """

    def __init__(self, items: Iterator[Item], depth: int = DEPTH) -> None:
        """Start the thread.

        Args:
            items: The iterator; no other thread may use it.
            depth: How many items may wait.
        """
        self._items, self._queue = items, queue.Queue[tuple[str, Any]](depth)
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        while True:
            kind, value = self._queue.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value

    def close(self) -> None:
        """End the thread, and wait until it has ended."""
        self._is_closed.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            for item in self._items:
                if not self._put("item", item):
                    return
            self._put("end", None)
        except BaseException as error:  # noqa: BLE001 (it is raised again where the item is waited for)
            self._put("error", error)
        finally:
            if isinstance(self._items, Generator):
                self._items.close()

    def _put(self, kind: str, value: Any) -> bool:
        """Put an item into the queue; False where nobody waits for it any more."""
        while not self._is_closed.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put((kind, value), timeout=0.1)
                return True
        return False


@dataclass
class _Read:
    """What has been read of one input and not been asked for yet."""

    tables: deque[Table] = field(default_factory=deque[Table])
    idle: int = 0  # how many of its samples had no inputs
    is_ended: bool = False
    error: UnreadableSample | None = None


class Predictor:
    """Gives the tables of inputs, in order, in batches that are filled across them."""

    def __init__(
        self,
        opened: OpenedModel,
        task: Task,
        device: torch.device,
        *,
        batch_size: int,
        probe: Familiar | FeatureStatistics | None = None,
        watch: Callable[[Batch, Mapping[str, Any]], None] | None = None,
    ) -> None:
        """Keep the model and the task.

        Args:
            opened: The model.
            task: Its task.
            device: The device of the model.
            batch_size: How many samples pass the model at once.
            probe: Adds a column made of the model's features, such as the distance from ordinary material; or None.
            watch: Is called with each batch and its outputs, by name, as arrays of a row each.
        """
        self._opened, self._task, self._device = opened, task, device
        self._batch_size, self._probe, self._watch = batch_size, probe, watch
        self._read: defaultdict[int, _Read] = defaultdict(_Read)
        self._waiting: list[tuple[int, Sample]] = []  # samples of the next batch, with the numbers of their inputs
        self._present = 0  # the number of the input whose tables are asked for

    def read(self, sources: Sequence[InputSource], *, workers: int) -> Generator[tuple[InputSource, Iterator[Table]]]:
        """Give each input with the iterator of its tables, which has to be used up before the next one is asked for.

        Args:
            sources: The inputs.
            workers: How many of them are read at the same time.

        Yields:
            The inputs, in order. The iterator raises UnreadableSample where its input cannot be read.
        """
        self._read.clear()
        self._waiting.clear()
        with evaluation_mode(self._opened.model), contextlib.closing(self._read_samples(sources, workers)) as samples:
            for number, source in enumerate(sources):
                self._present = number
                yield source, self._list_tables(number, samples)
                self._read.pop(number, None)

    @property
    def is_settled(self) -> bool:
        """Whether each sample that was read of the present input has been given as a table; tables may overtake."""
        return not self._read[self._present].tables and all(other != self._present for other, _ in self._waiting)

    def _read_samples(self, sources: Sequence[InputSource], workers: int) -> Generator[_Event]:
        """Read all inputs; each ends with None, or with the reason why it cannot be read."""
        waiting, readers = deque(enumerate(sources)), deque[tuple[int, InputSource, ReadAhead[Sample]]]()
        try:
            while waiting or readers:
                while waiting and len(readers) < workers:
                    number, source = waiting.popleft()
                    readers.append((number, source, ReadAhead(self._open(source))))
                number, source, reader = readers[0]
                try:
                    for sample in reader:
                        yield number, source, sample
                    yield number, source, None
                except UnreadableSample as error:
                    yield number, source, error
                readers.popleft()
                reader.close()
        finally:
            for _, _, reader in readers:
                reader.close()

    def _open(self, source: InputSource) -> Generator[Sample]:
        """Open an input after the samples that are to be skipped."""
        samples = self._task.open_input(source)
        try:
            yield from itertools.islice(samples, source.skip, None)
        finally:
            if isinstance(samples, Generator):
                samples.close()

    def _list_tables(self, number: int, samples: Iterator[_Event]) -> Iterator[Table]:
        """List the tables of one input; what is read of later ones meanwhile is kept."""
        read = self._read[number]
        while True:
            while read.tables:
                yield read.tables.popleft()
            if read.error is not None:
                raise read.error
            if read.is_ended and all(other != number for other, _ in self._waiting):
                return
            self._advance(next(samples, None))

    def _advance(self, event: _Event | None) -> None:
        """Take one sample; the model runs when a batch is full, and after the last sample."""
        if event is None:
            self._run_batch()
            return
        number, source, sample = event
        if sample is None or isinstance(sample, UnreadableSample):
            self._read[number].is_ended, self._read[number].error = True, sample
        elif not sample.inputs:
            read = self._read[number]
            read.tables.append(_make_columns(sample))
            read.idle += 1
            if self._waiting and read.idle % MOST_IDLE == 0:  # in a long video nobody shows up any more
                self._run_batch()
        else:
            self._waiting.append((number, sample))
            # Of a camera nobody can say when the next picture comes.
            if len(self._waiting) == self._batch_size or source.stream is not None:
                self._run_batch()

    @torch.inference_mode()
    def _run_batch(self) -> None:
        """Run the model on the samples that wait, and share out the rows."""
        taken, self._waiting = self._waiting, []
        outputs, start = self._compute([sample for _, sample in taken]) if taken else {}, 0
        for number, sample in taken:
            end = start + len(sample.rows["id"])
            of_sample = {name: column[start:end] for name, column in outputs.items()}
            self._read[number].tables.append({**_make_columns(sample), **of_sample})
            start = end

    def _compute(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Compute the outputs of samples, by name, as arrays of a row each."""
        batch = self._task.collate(samples, ["" for _ in samples]).to(self._device)
        outputs = run_model(self._opened.model, batch.inputs)
        columns = {
            name: values.detach().float().cpu().numpy()
            for name, values in outputs.items()
            if not name.startswith(FEATURES)
        }
        for name, column in columns.items():
            if not np.isfinite(column).all():
                raise UserError.about(
                    where=f"{self._opened.name} ({self._opened.path})",
                    what=f"cannot predict: its output {name} is not finite",
                    got=f"for {batch.rows['id'][0]} or one of the {len(batch)} rows of its batch",
                    remedy="its weights are damaged, or were made for other inputs: train or export it again",
                )
        if self._probe is not None:
            columns[self._probe.column] = self._probe.measure(outputs, batch)
        if self._watch is not None:
            self._watch(batch, columns)
        return columns


def _make_columns(sample: Sample) -> dict[str, Any]:
    """Turn the rows of a sample into arrays; what is no number or text, such as a picture, stays an object."""
    columns: dict[str, Any] = {}
    for name, values in sample.rows.items():
        if all(isinstance(value, bool | int | float | str | np.number) for value in values):
            columns[name] = np.array(values)
        else:
            columns[name] = np.empty(len(values), object)
            columns[name][:] = values
    return columns
