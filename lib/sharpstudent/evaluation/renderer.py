"""The general renderer, and the base of all others: it opens models and data, measures, draws and reports for a task.

A task that overrides parts of it names its own renderer as `module:Class`, which is loaded when it is needed. Importing
this file loads no torch, because a renderer also reads the command line.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpstudent.config.run_config import RunConfig, Stage
from sharpstudent.evaluation.command_line import EvaluationRequest, ModelRequest, parse_request
from sharpstudent.report.results import CostResult, EvaluationResults, ResultsBase, SummaryTile
from sharpstudent.task import ClassificationTask, Task

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from sharpstudent.core.types import Batch, Table
    from sharpstudent.evaluation.evaluate import EvalResult, Evaluation, Heading
    from sharpstudent.evaluation.opened import OpenedModel
    from sharpstudent.evaluation.tables import EvalSet
    from sharpstudent.report.console import WorkProgress
    from sharpstudent.report.evaluation import OwnPage
    from sharpstudent.report.guide import DistillationSettings


def load_renderer(task: Task | type[Task]) -> Renderer:
    """Load the renderer of a task: the one that it names, else the general one."""
    named = task.renderer
    if named is None:
        return Renderer(task)
    module, name = named.split(":")
    return getattr(importlib.import_module(module), name)(task)


@dataclass(frozen=True)
class StageEnd:
    """How a stage of training ended, for the lines that say what to do next.

    Attributes:
        stage: 1 or 2.
        metric: The metric that selected the epoch, such as `val_accuracy`.
        value: The value of that metric in the selected epoch.
        best: All metrics of the selected model.
        start: All metrics of the student that stage 2 began with; {} where they are not known.
        checkpoint: Path of the selected model.
        following: After stage 1, what comes next, and its command.
        settings: The settings of the distillation; None where its loss is not written in the guide's keys.
        control: The terms of the loss that need no teacher, as JSON.
    """

    stage: Stage
    metric: str
    value: float
    best: Mapping[str, float]
    start: Mapping[str, float]
    checkpoint: str
    following: Sequence[str] = ()
    settings: DistillationSettings | None = None
    control: str = ""


@dataclass(frozen=True)
class FinishedRun:
    """A training run that ends with a report.

    Attributes:
        config: The resolved config of the run.
        folder: The run's folder.
        checkpoint: The path of the best model's checkpoint.
        metric: The metric that selected it, as logs name it.
        data: The validation samples, as the run opened them.
        device: The device that models run on.
        read_others: Takes the best model's table and returns the results of the models to compare it with.
        console: The console of the run, for progress; None to show nothing.
    """

    config: RunConfig
    folder: Path
    checkpoint: Path
    metric: str
    data: Any
    device: torch.device
    read_others: Callable[[Table], Sequence[EvalResult]]
    console: Console | None = None


@dataclass(frozen=True)
class Session:
    """An evaluation in progress.

    Attributes:
        request: The command line.
        device: The device of the models.
        models: The opened models, in the order of the request.
        sets: The opened data sets.
        console: The console for lines and progress; None to print nothing.
        run: The run whose report this is; None for an evaluation of its own.
    """

    request: EvaluationRequest
    device: torch.device
    models: tuple[OpenedModel, ...]
    sets: tuple[EvalSet, ...] = ()
    console: Console | None = None
    run: FinishedRun | None = None

    def say(self, line: str) -> None:
        """Print a line for the user, where there is a console; at the end of a run only progress is shown."""
        if self.console is not None and self.run is None:
            from sharpstudent.report.console import (
                print_line,  # loads rich, which a command line's check can do without
            )

            print_line(self.console, line)

    def progress(self, title: str, total: int, unit: str) -> WorkProgress:
        """Return a context manager that shows how much of a piece of work is done, by its method `add`.

        Args:
            title: The work in words.
            total: How many units there are.
            unit: The unit in the singular.

        Returns:
            The context manager.
        """
        from sharpstudent.report.console import WorkProgress

        return WorkProgress(self.console, title, total, unit)


@dataclass(frozen=True)
class Measurements:
    """The measurements of an evaluation besides its tables; the task's renderer decides which of them are made.

    Attributes:
        calibrations: The calibration of each opened model; None for a model without one.
        costs: The cost of each opened model; None where it was not measured.
        mistakes: The samples that models are most wrong about, in the renderer's own form.
        pictures: Pictures of the mistakes, in the renderer's own form.
        robustness: The effect of corruptions, by the model's name, in the renderer's own form.
    """

    calibrations: Sequence[Any] = ()
    costs: Sequence[CostResult | None] = ()
    mistakes: Sequence[Any] = ()
    pictures: Sequence[Any] = ()
    robustness: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Renderer:
    """Opens, measures, draws and reports for one task; each script makes one instance.

    Attributes:
        console: The console of the script, for progress while files are written; None to show nothing.
    """

    console: Console | None = None

    def __init__(self, task: Task | type[Task]) -> None:
        """Keep the task of a run, or its class where only that is known."""
        self.task = task
        self.task_class: type[Task] = task if isinstance(task, type) else type(task)

    # While a run trains and at its end.

    def draw_batch(self, path: Path, batch: Batch) -> None:
        """Draw one batch as the student sees it; the general renderer draws nothing.

        Args:
            path: Where the picture is written.
            batch: The batch, after augmentation.
        """

    def describe_next(self, end: StageEnd) -> list[str]:
        """Say what to do after a stage of training, line by line."""
        from sharpstudent.report.guide import Gain, describe_next_after_stage1, describe_next_after_stage2

        best = f"{end.metric} {end.value:.4f}"
        if end.stage == 1:
            return describe_next_after_stage1(best=best, checkpoint=end.checkpoint, following=end.following)
        start, gain = end.start.get(end.metric), "its value of the metric"
        stage2 = functools.partial(
            describe_next_after_stage2,
            best=best,
            checkpoint=end.checkpoint,
            settings=end.settings,
            control=end.control,
        )
        if start is None:
            return stage2(gain=gain)
        name = end.metric.removeprefix("val_")
        sign = 1.0 if self.task.metrics[name].direction == "higher" else -1.0
        sentence = f"Against stage 1 ({start:.4f}): {end.value - start:+.4f}"
        return stage2(gain=Gain(sign * (end.value - start), sentence, what=self.task_class.title(name)))

    # The command line, models and data.

    def parse(self, argv: Sequence[str], *, script: str) -> EvaluationRequest:
        """Read a command line.

        Args:
            argv: The arguments, without the program's name.
            script: `evaluate_model.py` or `compare_models.py`.

        Returns:
            The request.

        Raises:
            UserError: For a command line that is wrong.
        """
        return parse_request(argv, script=script, task=self.task_class)

    def default_request(self, models: tuple[ModelRequest, ...], **more: Any) -> EvaluationRequest:
        """Build the request of the report at the end of a run; more: other fields of `EvaluationRequest`."""
        return EvaluationRequest(models, **more)

    def check(self, session: Session) -> None:
        """Check a request before anything slow begins; raise UserError for what is wrong."""
        from sharpstudent.evaluation.compare import check_table

        check_table(self.task_class, session.request)

    def open_model(self, request: ModelRequest, device: torch.device) -> OpenedModel:
        """Open a model.

        Args:
            request: The file, and what the command line says of it.
            device: The device that it goes to.

        Returns:
            The model, on the device.

        Raises:
            UserError: For one that cannot be evaluated.
        """
        from sharpstudent.evaluation.opened import open_checkpoint

        return open_checkpoint(request, self.task_class, device)

    def open_task(self, opened: OpenedModel) -> Task:
        """Build the task of an opened model, without its data."""
        from sharpstudent.evaluation.tables import read_run_config

        config = read_run_config(opened.path, self.task_class)
        return self.task_class(None if config is None else config.task_section, opened.about.get("facts"))

    def open_sets(self, session: Session) -> Sequence[EvalSet]:
        """Open the data sets of the request; without any, the validation data of the last model's run.

        Raises:
            UserError: For data that is not there.
        """
        from sharpstudent.evaluation.tables import open_sets

        return open_sets(session, self.task_class)

    def open_run_data(self, run: FinishedRun) -> EvalSet:
        """Return the validation data of a run, as the run opened it."""
        from sharpstudent.evaluation.tables import build_validation_set

        assert isinstance(self.task, Task)
        return build_validation_set(self.task, run.data, run.config)

    # Measurements.

    def calibrate(self, session: Session) -> Sequence[Any]:
        """Return the calibration of each opened model, as its checkpoint keeps it."""
        return [opened.about.get("calibration") for opened in session.models]

    def find_mistakes(self, session: Session, evaluation: Evaluation) -> tuple[Sequence[Any], Sequence[Any]]:
        """Find the samples that models are most wrong about.

        Args:
            session: The session, with the opened models.
            evaluation: The tables of the models.

        Returns:
            The mistakes, and pictures of them.
        """
        return (), ()

    def measure_robustness(self, session: Session) -> Mapping[str, Any]:
        """Measure how corrupted samples change each model's metrics, by the model's name."""
        return {}

    # Results.

    def build_results(self, session: Session, evaluation: Evaluation, measured: Measurements, heading: Heading) -> Any:
        """Build the results as data, with the verdict.

        Args:
            session: The session, with the request.
            evaluation: The tables of all models.
            measured: Calibrations, costs, mistakes and robustness.
            heading: Title, time, command and environment.

        Returns:
            The results, in the form of this renderer.

        Raises:
            UserError: For data on which no metric has a value.
        """
        from sharpstudent.evaluation.compare import build_results

        opened = next((one.task for one in evaluation.sets), None)
        task = self._name_classes(getattr(opened, "classes", ()))
        return build_results(task, session, evaluation, measured, heading, build_tiles=self.build_tiles)

    def _name_classes(self, classes: Sequence[str]) -> type[Task]:
        """The class of the task, with the chance level of classes that only its data or a checkpoint names."""
        known = self.task_class
        return known.name_classes(classes) if issubclass(known, ClassificationTask) else known

    def build_tiles(
        self, results: EvaluationResults, parts: Sequence[Mapping[str, Table]], *, classes: Sequence[str], rounds: int
    ) -> tuple[SummaryTile, ...]:
        """Build the three tiles that the report begins with.

        Args:
            results: The results, with models and metrics.
            parts: The tables of each model, by part of the data: "" for all, `@SET` for each of several sets.
            classes: The names of the classes, by the column `label`; none where there are no classes.
            rounds: How many resamples intervals are made of.

        Returns:
            The tiles.
        """
        from sharpstudent.report.summary import build_tiles

        return build_tiles(self._name_classes(classes).metrics, results, parts, classes=classes, rounds=rounds)

    def build_own_page(self, evaluation: Evaluation, measured: Measurements) -> OwnPage | None:
        """Build what the page of the task has beside that of every task; None for a task without a page of its own.

        Args:
            evaluation: The tables of all models.
            measured: Calibrations, costs, mistakes and robustness.
        """
        return None

    def write(
        self, folder: Path, results: Any, evaluation: Evaluation, measured: Measurements, *, run: FinishedRun | None
    ) -> list[Path]:
        """Write all files of a report.

        Args:
            folder: The folder that the files go to.
            results: The results, as `build_results` gave them.
            evaluation: The tables of all models.
            measured: Calibrations, costs, mistakes and robustness.
            run: The run whose report it is; None for an evaluation of its own.

        Returns:
            The files of the report, the page first.

        Raises:
            UserError: Where the disk refuses.
        """
        from sharpstudent.evaluation.compare import write_tables
        from sharpstudent.report.evaluation import write_report
        from sharpstudent.report.page import FIGURE_FILES, remove_earlier

        if run is None:
            write_tables(folder, evaluation)
        written = write_report(folder, results, self.console, self.build_own_page(evaluation, measured))
        remove_earlier(folder, FIGURE_FILES, written)
        return written

    def store(self, session: Session, measured: Measurements) -> None:
        """Store chosen thresholds in checkpoints, where the request wants it.

        Args:
            session: The session, with the opened models.
            measured: The measurements, with the calibrations.
        """

    def say_results(self, session: Session, results: Any, folder: Path) -> None:
        """Print the tables, the verdict, and where the report is.

        Args:
            session: The session, with the console.
            results: The results, as `build_results` gave them.
            folder: The folder of the report.
        """
        from sharpstudent.report.evaluation import list_console_tables

        assert session.console is not None
        for table in list_console_tables(results):
            session.console.print(table)
        say_summary(session, results)
        session.say(
            f"\nThe report: {folder / 'report.html'} (opens in any browser, without a network). Beside it: "
            "results.json, tables.csv, tables.npz, figures/."
        )


SENTENCES = 5  # sentences of the verdict that the console shows after the headline


def say_summary(session: Session, results: ResultsBase) -> None:
    """Print the headline and the tiles, all that limits the models, and the first sentences of the verdict.

    Args:
        session: The session, with the console.
        results: The results.
    """
    from sharpstudent.report.summary import say_tiles

    headline, *sentences = results.verdict
    lines = [headline, *say_tiles(results.tiles)]
    lines += ["What limits it:", *(f"- {line}" for line in results.limits)] if results.limits else []
    lines += ["In detail (in square brackets: 95 % intervals):"] if sentences else []
    for line in (*lines, *(f"- {sentence}" for sentence in sentences[:SENTENCES])):
        session.say(line)
    if len(sentences) > SENTENCES:
        session.say(f"  ({len(sentences) - SENTENCES} more in the report)")
