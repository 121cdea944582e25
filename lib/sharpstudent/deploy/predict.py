"""Predicts: reads inputs, runs a model on their samples in batches, and lets the task say what the outputs mean.

Reading and the model overlap: inputs are read by threads of their own, a few samples ahead, and the model runs in the
main thread. Batches are filled across inputs in their order, as in an evaluation, so that the same samples get the same
outputs to the last bit. Memory does not grow with the number or length of the inputs: all queues are bounded.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from rich.console import Console, RenderableType
from rich.text import Text

from sharpstudent.core.errors import RunInterrupted, UserError, format_count_of
from sharpstudent.core.files import explain, open_plain, recognise_foreign
from sharpstudent.core.io import stop_signals_raised
from sharpstudent.core.naming import shorten
from sharpstudent.core.types import FEATURES, Answer, Batch, InputSource, Sample, Table
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.deploy.familiar import Familiar, FeatureStatistics, find_statistics, open_familiar, store_reference
from sharpstudent.deploy.inputs import FoundInputs, PredictionCommand, find_inputs
from sharpstudent.evaluation.opened import OpenedModel, choose_device
from sharpstudent.evaluation.renderer import load_renderer
from sharpstudent.models.forward import evaluation_mode, run_model
from sharpstudent.report.console import (
    FIRST_SECONDS,
    LINE_SECONDS,
    Display,
    format_duration,
    print_line,
)
from sharpstudent.report.predictions import (
    Prediction,
    PredictionFolder,
    PredictionRequest,
    build_prediction,
)
from sharpstudent.task import Task

DEPTH = 4  # samples that each thread reads ahead
PARTIAL_SECONDS = 60.0  # between two entries of the journal about an input that takes long

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
                yield source, self._list_tables(number, samples)
                self._read.pop(number, None)

    def _read_samples(self, sources: Sequence[InputSource], workers: int) -> Generator[_Event]:
        """Read all inputs; each ends with None, or with the reason why it cannot be read."""
        waiting, readers = deque(enumerate(sources)), deque[tuple[int, InputSource, ReadAhead[Sample]]]()
        try:
            while waiting or readers:
                while waiting and len(readers) < workers:
                    number, source = waiting.popleft()
                    readers.append((number, source, ReadAhead(self._task.open_input(source))))
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
            self._read[number].tables.append(_make_columns(sample))
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


def run_prediction(task_class: type[Task], command: PredictionCommand) -> None:
    """Answer about every input of a command.

    Args:
        task_class: The class of the task.
        command: The command line.

    Raises:
        UserError: For a model that cannot be opened, a folder that cannot be written, and where no input can be read.
        RunInterrupted: For Ctrl-C and SIGTERM; what is answered is kept.
    """
    console = Console(stderr=command.as_json, highlight=False)
    renderer = load_renderer(task_class)
    device = choose_device(command.device, remedy="--device auto")
    opened = renderer.open_model(command.model, device)
    for note in opened.notes:
        print_line(console, f"{opened.name}: {note}")
    task = renderer.open_task(opened)
    found = find_inputs(command.inputs, task.list_suffixes(), command.options)
    kept = "; nothing is kept without --out" if command.out is None else "; go on with the same command"
    with stop_signals_raised(f"stopped{kept}"):
        familiar = _open_familiar(command, opened, task, device, console)
        predictor = Predictor(opened, task, device, batch_size=command.batch_size, probe=familiar)
        run = _Run(command, opened, task, console, found, familiar)
        run.answer_all(predictor)


def _open_familiar(
    command: PredictionCommand, opened: OpenedModel, task: Task, device: torch.device, console: Console
) -> Familiar | None:
    """Open what is stored of ordinary material, or collect it first, where the command names some."""
    if command.reference:
        probe = find_statistics(opened, device)
        predictor = Predictor(opened, task, device, batch_size=command.batch_size, probe=probe)
        sources = find_inputs(command.reference, task.list_suffixes(), command.options).sources
        found: list[tuple[str, Table]] = []
        for source, tables in predictor.read(sources, workers=command.workers):
            try:
                found += [(source.name, table) for table in tables if probe.column in table]
            except UnreadableSample as error:
                print_line(console, f"{source.name}: {explain_unreadable(source, error)}")
        groups = [name for name, table in found for _ in table["id"]]
        rows = np.concatenate([table[probe.column] for _, table in found]) if found else np.empty((0, 0))
        print_line(console, store_reference(opened, probe.layers, rows, groups, where=", ".join(command.reference)))
    return open_familiar(opened, lambda line: print_line(console, line))


def build_request(opened: OpenedModel, task: Task, options: Mapping[str, Any]) -> PredictionRequest:
    """Describe what answers rest on.

    Args:
        opened: The model.
        task: Its task.
        options: The values of the task's own options, by name.

    Returns:
        The description, as it stands in predictions.json.
    """
    given = {name: value for name, value in options.items() if value not in (None, False)}
    return PredictionRequest(
        task=f"{type(task).__module__}:{type(task).__qualname__}",
        model=opened.name,
        sha256=opened.sha256,
        options=json.loads(json.dumps(given, default=str)),
    )


def describe_stored(opened: OpenedModel, familiar: Familiar | None) -> dict[str, Any]:
    """Describe what is stored with a model, for `Task.describe`: its own description, and what is ordinary for it."""
    return {
        **opened.about,
        "model": opened.name,
        "familiar": None if familiar is None else familiar.describe(),
    }


class _Run:
    """One command: its inputs are answered, printed and written one after the other."""

    def __init__(
        self,
        command: PredictionCommand,
        opened: OpenedModel,
        task: Task,
        console: Console,
        found: FoundInputs,
        familiar: Familiar | None,
    ) -> None:
        self._command, self._opened, self._task, self._console = command, opened, task, console
        self._sources, self._notes = found.sources, (*opened.notes, *found.notes)
        request = build_request(opened, task, command.options)
        self._folder = None if command.out is None else PredictionFolder(command.out, request, self._say)
        self._stored = describe_stored(opened, familiar)
        self._done: dict[InputSource, Prediction] = {}
        self._said = set[str]()
        for note in found.notes:
            self._say(note)

    def answer_all(self, predictor: Predictor) -> None:
        """Answer about all inputs that have no answer yet, and write and print a summary."""
        kept = {source: self._folder.find(source) for source in self._sources} if self._folder is not None else {}
        waiting = [source for source in self._sources if kept.get(source) is None]
        for source, prediction in kept.items():
            if prediction is not None:
                self._keep(source, prediction)
        if self._done:
            self._say(f"{format_count_of(len(self._done), 'input')} answered before; {len(waiting)} to go")
        begun, is_complete = time.monotonic(), False
        try:
            with (
                _InputProgress(self._console, len(waiting)) as progress,
                contextlib.closing(predictor.read(waiting, workers=self._command.workers)) as read,
            ):
                for source, tables in read:
                    self._answer(source, tables, progress)
                    progress.finish()
            is_complete = True
        finally:
            self._close(is_complete=is_complete)
        self._summarise(time.monotonic() - begun)

    def _answer(self, source: InputSource, tables: Iterator[Table], progress: _InputProgress) -> None:
        """Answer about one input; what is known of it when the command is stopped is written as a partial answer."""
        begun, last, noted = time.monotonic(), None, time.monotonic()
        try:
            for answer in self._task.describe(progress.follow(tables, source.name), self._stored):
                last = answer
                if self._folder is not None and time.monotonic() - noted > PARTIAL_SECONDS:
                    noted = time.monotonic()
                    self._add(source, answer, noted - begun, "partial")
            assert last is not None
            self._keep(source, self._add(source, last, time.monotonic() - begun, "answered"))
        except UnreadableSample as error:
            reason = explain_unreadable(source, error)
            prediction = Prediction(input=source.name, status="unreadable", sentence=reason)
            self._keep(source, prediction if self._folder is None else self._folder.add(source, prediction, None))
        except RunInterrupted:
            if last is not None:
                self._keep(source, self._add(source, last, time.monotonic() - begun, "partial"))
            raise

    def _add(self, source: InputSource, answer: Answer, seconds: float, status: Any) -> Prediction:
        prediction = build_prediction(source, answer, seconds=seconds, status=status)
        if self._folder is None:
            return prediction
        prediction = self._folder.add(source, prediction, answer)
        if status == "answered":
            assert self._command.out is not None
            for line in self._task.finish_input(source, answer, self._command.out):
                self._say(line)
        return prediction

    def _keep(self, source: InputSource, prediction: Prediction) -> None:
        self._done[source] = prediction
        if self._command.as_json:
            print(json.dumps(prediction.model_dump(mode="json")), flush=True)
            return
        is_partial = " (read in part)" if prediction.status == "partial" else ""
        self._say(f"{prediction.input}: {prediction.sentence}{is_partial}")
        for reason in prediction.reasons:
            if reason not in self._said:  # what holds for all inputs is said once
                self._said.add(reason)
                self._say(f"    {reason}")

    def _close(self, *, is_complete: bool) -> None:
        if self._folder is not None:
            done = [self._done[source] for source in self._sources if source in self._done]
            self._folder.close(done, notes=self._notes, is_complete=is_complete)

    def _summarise(self, seconds: float) -> None:
        counts = Counter(one.outcome or "not readable" for one in self._done.values())
        told = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts.most_common())
        if len(self._done) > 1:
            self._say(f"{format_count_of(len(self._done), 'input')} in {format_duration(seconds)}: {told}")
        if self._command.out is not None:
            self._say(f"answers: {self._command.out}/predictions.json, predictions.csv and a page for each input")
        if all(one.status == "unreadable" for one in self._done.values()):
            first = next(iter(self._done.values()))
            raise UserError.about(
                "INPUT",
                "nothing could be judged",
                got=f"{first.input}: {first.sentence}"
                + (f"\nand {len(self._done) - 1} more" if len(self._done) > 1 else ""),
                remedy="give files that can be read",
            )

    def _say(self, line: str) -> None:
        print_line(self._console, line)


class _InputProgress(Display):
    """Shows how many inputs are answered, how much of the present one is read, and the time left."""

    def __init__(self, console: Console, total: int) -> None:
        super().__init__(console, first_seconds=FIRST_SECONDS, line_seconds=LINE_SECONDS, clock=time.monotonic)
        self._total, self._finished, self._share, self._name = total, 0, 0.0, ""
        self._begun = self._started  # when the present input was begun

    def finish(self) -> None:
        """Count an input as done."""
        self._finished, self._share = self._finished + 1, 0.0
        self._draw_if_due()

    def follow(self, tables: Iterator[Table], name: str) -> Iterator[Table]:
        """Pass on the tables of an input, and show how far it is read, where its rows tell."""
        self._name, self._begun = name, self._clock()
        for table in tables:
            if "share" in table and len(table["share"]):
                self._share = float(np.max(table["share"].astype(np.float64)))
            self._draw_if_due()
            yield table

    def _render(self, now: float, width: int) -> RenderableType:
        return Text(shorten(self._describe(now), width), style="dim", no_wrap=True, overflow="crop")

    def _describe(self, now: float) -> str:
        elapsed, done = now - self._started, self._finished + self._share
        # By the inputs so far, but never less than the present one needs, which may be a long video after pictures.
        rest = elapsed / done * (self._total - done) if done else float("nan")
        own = (now - self._begun) / self._share * (1.0 - self._share) if self._share else 0.0
        return (
            f"{self._name}: {100 * self._share:.0f} % read; {self._finished:,} of {self._total:,} answered, "
            f"{format_duration(elapsed)} elapsed, {format_duration(max(rest, own))} left"
        )


def explain_unreadable(source: InputSource, error: UnreadableSample) -> str:
    """Say why an input cannot be read, and what lies in its place where that is known."""
    reason = error.reason
    if source.path is not None:
        try:
            with open_plain(source.path) as file:
                foreign = recognise_foreign(file.read(512))
            reason = reason if foreign is None else f"{foreign[0]}; {foreign[1]}"
        except OSError as problem:
            reason = explain(problem)
    is_predicate = reason.partition(" ")[0] in ("is", "has", "holds", "cannot")
    return f"Not readable: {'it ' if is_predicate else ''}{reason}."
