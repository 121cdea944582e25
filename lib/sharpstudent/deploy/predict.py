"""Answers about the inputs of one command: each is read and run, and the task says what the outputs mean.

Answers are printed and written as they come. What was read of an input is kept until its answer is there, so that the
same command goes on within it after Ctrl-C or a kill.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from rich.console import Console, RenderableType
from rich.text import Text

from sharpstudent.core.errors import RunInterrupted, UserError, format_count_of
from sharpstudent.core.files import explain, open_plain, recognise_foreign
from sharpstudent.core.io import stop_signals_raised
from sharpstudent.core.naming import shorten
from sharpstudent.core.types import Answer, InputSource, Table
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.deploy.cluster_predictor import ClusterPredictor
from sharpstudent.deploy.familiar import Familiar, find_statistics, open_familiar, store_reference
from sharpstudent.deploy.inputs import FoundInputs, PredictionCommand, find_inputs
from sharpstudent.deploy.kept_tables import KeptTables
from sharpstudent.deploy.predictor import Predictor
from sharpstudent.evaluation.opened import OpenedModel, choose_device
from sharpstudent.evaluation.renderer import load_renderer
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
    identify,
)
from sharpstudent.task import Task

PARTIAL_SECONDS = 60.0  # between two entries of the journal about an input that takes long


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
    found = find_inputs(command.inputs, task.list_suffixes(), command.options, device=task.device)
    kept = "; nothing is kept without --out" if command.out is None else "; go on with the same command"
    with stop_signals_raised(f"stopped{kept}"):
        familiar = _open_familiar(command, opened, task, device, console)
        run = _Run(command, opened, task, console, found, familiar)
        if command.ray is None:
            run.answer_all(Predictor(opened, task, device, batch_size=command.batch_size, probe=familiar))
        else:
            run.answer_all(ClusterPredictor(task_class, command, lambda line: print_line(console, line)))


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


def build_request(
    opened: OpenedModel, task: Task, options: Mapping[str, Any], stored: Mapping[str, Any]
) -> PredictionRequest:
    """Describe what answers rest on.

    Args:
        opened: The model.
        task: Its task.
        options: The values of the task's own options, by name.
        stored: What is stored with the model, as `describe_stored` gives it.

    Returns:
        The description, as it stands in predictions.json.
    """
    given = {name: value for name, value in options.items() if value not in (None, False)}
    reference = stored["familiar"]
    if reference is not None:
        given["reference"] = f"{reference['where']}, distance {reference['threshold']:.6g}"
    return PredictionRequest(
        task=f"{type(task).__module__}:{type(task).__qualname__}",
        model=opened.name,
        sha256=opened.sha256,
        options=json.loads(json.dumps(given, default=str)),
    )


def describe_stored(
    opened: OpenedModel, familiar: Familiar | None, options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Describe what an answer rests on, for `Task.describe`.

    Args:
        opened: The model, with its own description.
        familiar: What is ordinary for it.
        options: The values of the task's own options, by name; None for the defaults.

    Returns:
        What is stored with the model, and under `asked` the options.
    """
    return {
        **opened.about,
        "model": opened.name,
        "familiar": None if familiar is None else familiar.describe(),
        "asked": dict(options or {}),
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
        self._stored = describe_stored(opened, familiar, command.options)
        request = build_request(opened, task, command.options, self._stored)
        self._folder = None if command.out is None else PredictionFolder(command.out, request, self._say)
        self._done: dict[InputSource, Prediction] = {}
        self._kept: dict[InputSource, KeptTables] = {}  # what was read of inputs without an answer
        self._said = set[str]()
        for note in found.notes:
            self._say(note)

    def answer_all(self, predictor: Predictor | ClusterPredictor) -> None:
        """Answer about all inputs that have no answer yet, and write and print a summary."""
        kept = {source: self._folder.find(source) for source in self._sources} if self._folder is not None else {}
        waiting = [source for source in self._sources if kept.get(source) is None]
        for source, prediction in kept.items():
            if prediction is not None:
                self._keep(source, prediction)
        if self._done:
            self._say(f"{format_count_of(len(self._done), 'input')} answered before; {len(waiting)} to go")
        waiting = [self._find_kept(source) for source in waiting]
        begun, is_complete = time.monotonic(), False
        try:
            with (
                _InputProgress(self._console, len(waiting)) as progress,
                contextlib.closing(predictor.read(waiting, workers=self._command.workers)) as read,
            ):
                for source, tables in read:
                    self._answer(source, self._keep_tables(source, tables, predictor), progress)
                    progress.finish()
            is_complete = True
        finally:
            self._close(is_complete=is_complete)
        self._summarise(time.monotonic() - begun)

    def _find_kept(self, source: InputSource) -> InputSource:
        """Find what an earlier command has read of an input, and mark where the input is to be read on."""
        if self._folder is None or source.path is None:  # nobody knows where a camera or a stream was
            return source
        self._kept[source] = kept = KeptTables(self._folder.name_kept(source), identify(source))
        if kept.count:
            self._say(f"{source.name}: goes on after {format_count_of(kept.count, 'sample')} that were read before")
        return replace(source, skip=kept.count)

    def _keep_tables(
        self, source: InputSource, tables: Iterator[Table], predictor: Predictor | ClusterPredictor
    ) -> Iterator[Table]:
        """Give the tables that are kept of an input, then those that come, which are kept, too."""
        kept = self._kept.get(source)
        yield from () if kept is None else kept.read()
        for table in tables:
            if kept is not None:
                kept.add(table, is_settled=predictor.is_settled)
            yield table

    def _answer(self, source: InputSource, tables: Iterator[Table], progress: _InputProgress) -> None:
        """Answer about one input; what is known of it when the command is stopped is written as a partial answer."""
        begun, last, noted = time.monotonic(), None, time.monotonic()
        try:
            for answer in self._task.describe(progress.follow(tables, source.name), self._stored):
                last = answer
                if source.stream is not None and answer.news and not self._command.as_json:
                    self._say(f"{source.name}: {answer.news}")
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
        if prediction.status != "partial" and source in self._kept:
            self._kept.pop(source).remove()
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
