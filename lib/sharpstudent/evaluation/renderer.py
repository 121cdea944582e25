"""What draws and reports for a task: the general form, of which a task's own renderer overrides what it knows better.

A task names its renderer as `module:Class`; it is loaded when it is needed. Importing this loads no torch: a renderer
reads the command line, too.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpstudent.config.run_config import RunConfig, Stage
from sharpstudent.evaluation.command_line import EvaluationRequest, ModelRequest, parse_request
from sharpstudent.report.results import CostResult
from sharpstudent.task import Task

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from sharpstudent.core.types import Batch, Table
    from sharpstudent.evaluation.evaluate import EvalResult, Evaluation, Heading
    from sharpstudent.evaluation.opened import OpenedModel
    from sharpstudent.evaluation.tables import EvalSet
    from sharpstudent.report.guide import DistillationSettings


def load_renderer(task: Task | type[Task]) -> Renderer:
    """The renderer of a task: the one that it names, else the general one."""
    named = task.renderer
    if named is None:
        return Renderer(task)
    module, name = named.split(":")
    return getattr(importlib.import_module(module), name)(task)


@dataclass(frozen=True)
class StageEnd:
    """How a stage of training ended, for the lines that say what to do next.

    metric, value: of the selected epoch, `val_accuracy` and 0.91; best: all metrics of its model; start: those of the
    student that stage 2 began with, {} where they are not known; checkpoint: its path. For the command of stage 2:
    config: path of the file to name; options: further words, with a space before each; finds_weights: whether the file
    finds the checkpoint. settings: of the distillation, None where its loss is not written in the guide's keys.
    """

    stage: Stage
    metric: str
    value: float
    best: Mapping[str, float]
    start: Mapping[str, float]
    checkpoint: str
    config: str = ""
    options: str = ""
    finds_weights: bool = False
    settings: DistillationSettings | None = None


@dataclass(frozen=True)
class FinishedRun:
    """A training run that ends with a report.

    folder: its own; checkpoint: of the best model; metric: that selected it, as logs name it; data: the validation
    samples as the run opened them; device; read_others: gives the models that the best one is held against, for its
    table.
    """

    config: RunConfig
    folder: Path
    checkpoint: Path
    metric: str
    data: Any
    device: torch.device
    read_others: Callable[[Table], Sequence[EvalResult]]


@dataclass(frozen=True)
class Session:
    """An evaluation under way: what was asked for, who is told, and what has been opened for it. run: whose report it
    is, None for an evaluation of its own.
    """

    request: EvaluationRequest
    device: torch.device
    models: tuple[OpenedModel, ...]
    sets: tuple[EvalSet, ...] = ()
    console: Console | None = None
    run: FinishedRun | None = None

    def say(self, line: str) -> None:
        """A line for the user, where there is a console."""
        if self.console is not None:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Measured:
    """What an evaluation found beside its tables, as far as the task's renderer looks for it.

    calibrations, costs: of each opened model; mistakes, with pictures, and robustness: in the renderer's own form.
    """

    calibrations: Sequence[Any] = ()
    costs: Sequence[CostResult | None] = ()
    mistakes: Sequence[Any] = ()
    pictures: Sequence[Any] = ()
    robustness: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Renderer:
    """One for each run of a script. task: the task of a run, or its class where only that is known."""

    def __init__(self, task: Task | type[Task]) -> None:
        self.task = task
        self.kind: type[Task] = task if isinstance(task, type) else type(task)

    # While a run trains and at its end.

    def draw_batch(self, path: Path, batch: Batch) -> None:
        """Draw one batch as the student sees it, for a person to look at; where there is nothing to see, no file."""

    def describe_next(self, end: StageEnd) -> list[str]:
        """What to do after a stage of training, as lines."""
        from sharpstudent.report.guide import Gain, describe_next_after_stage1, describe_next_after_stage2

        best = f"{end.metric} {end.value:.4f}"
        if end.stage == 1:
            return describe_next_after_stage1(
                best=best,
                checkpoint=end.checkpoint,
                config=end.config,
                options=end.options,
                weights_key_set=end.finds_weights,
            )
        start, gain = end.start.get(end.metric), "its value of the metric"
        if start is None:
            return describe_next_after_stage2(best=best, checkpoint=end.checkpoint, gain=gain, settings=end.settings)
        name = end.metric.removeprefix("val_")
        sign = 1.0 if self.task.metrics[name].direction == "higher" else -1.0
        told = f"Against stage 1 ({start:.4f}): {end.value - start:+.4f}"
        found = Gain(sign * (end.value - start), told, what=self.kind.title(name))
        return describe_next_after_stage2(best=best, checkpoint=end.checkpoint, gain=found, settings=end.settings)

    # What is asked for, and opened.

    def parse(self, argv: Sequence[str], *, script: str) -> EvaluationRequest:
        """The command line of evaluate_model.py or compare_models.py, without the program's name."""
        return parse_request(argv, script=script, task=self.kind)

    def default_request(self, models: tuple[ModelRequest, ...], **more: Any) -> EvaluationRequest:
        """What the report at the end of a run asks for. more: fields that every request has."""
        return EvaluationRequest(models, **more)

    def check(self, session: Session) -> None:
        """Raise UserError for what is wrong with a request before anything long is begun."""

    def open_model(self, request: ModelRequest, device: torch.device) -> OpenedModel:
        """A model, on the device. Raises UserError for one that cannot be evaluated."""
        from sharpstudent.evaluation.opened import open_checkpoint

        return open_checkpoint(request, self.kind, device)

    def open_sets(self, session: Session) -> Sequence[EvalSet]:
        """The data sets that were asked for, or the validation data of the run that made the last model that has one.

        Raises UserError for data that is not there.
        """
        from sharpstudent.evaluation.tables import open_sets

        return open_sets(session, self.kind)

    def open_run_data(self, run: FinishedRun) -> EvalSet:
        """The validation data of a run, as the run opened it."""
        from sharpstudent.evaluation.tables import build_validation_set

        assert isinstance(self.task, Task)
        return build_validation_set(self.task, run.data, run.config)

    # What is looked for.

    def calibrate(self, session: Session) -> Sequence[Any]:
        """What each opened model's checkpoint keeps of its own validation, or what other data gives."""
        return [opened.about.get("calibration") for opened in session.models]

    def find_mistakes(self, session: Session, evaluation: Evaluation) -> tuple[Sequence[Any], Sequence[Any]]:
        """The samples that models are most wrong about, and pictures of them."""
        return (), ()

    def measure_robustness(self, session: Session) -> Mapping[str, Any]:
        """What worse samples do to each model, by its name."""
        return {}

    # What is told.

    def build_results(self, session: Session, evaluation: Evaluation, measured: Measured, heading: Heading) -> Any:
        """The results as data, the verdict among them. Raises UserError for data that has no figures."""
        from sharpstudent.evaluation.compare import build_results

        return build_results(self.kind, session, evaluation, measured, heading)

    def write(
        self, folder: Path, results: Any, evaluation: Evaluation, measured: Measured, *, run: FinishedRun | None
    ) -> list[Path]:
        """Write all files of a report into its folder; returns them, the page first.

        Raises UserError where the disk refuses.
        """
        from sharpstudent.evaluation.compare import write_tables
        from sharpstudent.report.evaluation import write_report
        from sharpstudent.report.page import FIGURE_FILES, remove_earlier

        if run is None:
            write_tables(folder, evaluation)
        written = write_report(folder, results)
        remove_earlier(folder, FIGURE_FILES, written)
        return written

    def store(self, session: Session, measured: Measured) -> None:
        """Keep what was chosen, where the request asks for it."""

    def say_results(self, session: Session, results: Any, folder: Path) -> None:
        """The tables, the verdict, and where the rest is."""
        from sharpstudent.report.evaluation import list_console_tables

        assert session.console is not None
        for table in list_console_tables(results):
            session.console.print(table)
        say_verdict(session, results.verdict)
        session.say(
            f"\nThe report: {folder / 'report.html'} (opens in any browser, without a network). Beside it: "
            "results.json, tables.csv, tables.npz, figures/."
        )


SENTENCES = 5  # of the verdict that the console shows after its first line


def say_verdict(session: Session, verdict: Sequence[str]) -> None:
    """The first sentences."""
    headline, *sentences = verdict
    for line in (headline, *(f"- {sentence}" for sentence in sentences[:SENTENCES])):
        session.say(line)
    if len(sentences) > SENTENCES:
        session.say(f"  ({len(sentences) - SENTENCES} more in the report)")
