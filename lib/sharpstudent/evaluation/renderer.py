"""What draws and reports for a task: the general form, of which a task's own renderer overrides what it knows better.

A task names its renderer as `module:Class`; it is loaded when it is needed. Importing this loads no torch: a renderer
reads the command line, too.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpstudent.config.run_config import RunConfig, Stage
from sharpstudent.core.errors import Problem, UserError
from sharpstudent.evaluation.command_line import EvaluationRequest, ModelRequest, parse_request
from sharpstudent.report.results import CostResult, Role, TrainingResult
from sharpstudent.task import Task

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from sharpstudent.core.types import Batch, Table
    from sharpstudent.evaluation.evaluate import Evaluation
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
class KeptModel:
    """A model of a run of which only the table is at hand."""

    name: str
    role: Role
    architecture: str
    file: str
    table: Table


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
    read_others: Callable[[Table], Sequence[KeptModel]]


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

    def evaluate(self, sets: Sequence[EvalSet]) -> Evaluation:
        """All models on these sets."""
        from sharpstudent.evaluation.evaluate import evaluate_models

        return evaluate_models(
            self.models,
            sets,
            roles=[model.role for model in self.request.models],
            device=self.device,
            num_workers=self.request.workers,
            batch_size=self.request.batch_size,
            say=self.say,
        )


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


@dataclass(frozen=True)
class Heading:
    """What stands around the figures of a report.

    pairs: which models are compared, by number, first minus second; training: of the model that it is about; config: of
    that model's run; notes: on the models.
    """

    title: str
    made_at: str
    command: str
    pairs: Sequence[tuple[int, int]]
    training: TrainingResult | None
    config: Mapping[str, Any] | None
    environment: Mapping[str, Any]
    notes: tuple[str, ...]


class Renderer:
    """One for each run of a script. task: the task of a run, or its class where only that is known."""

    def __init__(self, task: Task | type[Task]) -> None:
        self.task = task

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
        found = Gain(sign * (end.value - start), told, what=self.task.metrics[name].title or name.replace("_", " "))
        return describe_next_after_stage2(best=best, checkpoint=end.checkpoint, gain=found, settings=end.settings)

    # What is asked for, and opened.

    def parse(self, argv: Sequence[str], *, script: str) -> EvaluationRequest:
        """The command line of evaluate_model.py or compare_models.py, without the program's name."""
        return parse_request(argv, script=script, task=self._find_class())

    def default_request(self, models: tuple[ModelRequest, ...], **more: Any) -> EvaluationRequest:
        """What the report at the end of a run asks for. more: fields that every request has."""
        return EvaluationRequest(models, **more)

    def check(self, session: Session) -> None:
        """Raise UserError for what is wrong with a request before anything long is begun."""

    def open_model(self, request: ModelRequest, device: torch.device) -> OpenedModel:
        """A model, on the device. Raises UserError for one that cannot be evaluated."""
        from sharpstudent.evaluation.opened import open_checkpoint
        from sharpstudent.evaluation.tables import load_config

        kind, config = self._find_class(), self._read_config(request.path)
        if config is None and "config" in request.told:
            config = load_config(Path(request.told["config"]), kind)
        section = None if config is None else config.task_section
        opened = open_checkpoint(request.path, name=request.name, kind=kind, section=section, device=device)
        task = f"{kind.__module__}:{kind.__qualname__}"
        told = {word: str(Path(path).resolve()) for word, path in request.told.items()}
        return replace(opened, again={"task": task, "folders": sys.path, "told": told})

    def open_sets(self, session: Session) -> Sequence[EvalSet]:
        """The data sets that were asked for, or the validation data of the run that made the last model that has one.

        Raises UserError for data that is not there.
        """
        from sharpstudent.evaluation.tables import SplitSet, choose_names

        request = session.request
        config = self._find_config(request)
        task = self._build_task(config)
        if request.data:
            words = [str(one.path) for one in request.data]
            names = choose_names([one.name or word for one, word in zip(request.data, words, strict=True)], words)
            splits = task.open_data(*words)
            return [
                SplitSet(name, task, samples, kind="split", split=word, notes=_note(config, word))
                for name, word, samples in zip(names, words, splits, strict=True)
            ]
        if config is None:
            raise UserError(
                Problem(
                    "--data",
                    "is not given, and none of the models lies in a run folder whose validation data could be used",
                    got=", ".join(str(model.path) for model in request.models),
                    remedy="--data SET: the name of a split, or a path that the task can open",
                )
            )
        (samples,) = task.open_data(VALIDATION)
        name, notes = _name_validation(config), _note(config, VALIDATION)
        return [SplitSet(name, task, samples, kind=VALIDATION, split=VALIDATION, notes=notes)]

    def open_run_data(self, run: FinishedRun) -> EvalSet:
        """The validation data of a run, as the run opened it."""
        from sharpstudent.evaluation.tables import SplitSet

        assert isinstance(self.task, Task)
        name, notes = _name_validation(run.config), _note(run.config, VALIDATION)
        return SplitSet(name, self.task, run.data, kind=VALIDATION, split=VALIDATION, notes=notes)

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

        return build_results(self._find_class(), session, evaluation, measured, heading)

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

    def _find_class(self) -> type[Task]:
        return self.task if isinstance(self.task, type) else type(self.task)

    def _build_task(self, config: RunConfig | None) -> Task:
        if config is None:
            return self._find_class()()
        return self._find_class()(config.task_section, allow=config.allow)

    def _find_config(self, request: EvaluationRequest) -> RunConfig | None:
        """The user's own, or that of the run of the last model that lies in one."""
        from sharpstudent.evaluation.tables import load_config

        if request.config is not None:
            return load_config(request.config, self._find_class())
        found = [self._read_config(model.path) for model in reversed(request.models)]
        return next((config for config in found if config is not None), None)

    def _read_config(self, path: Path) -> RunConfig | None:
        """That of the run that a model lies in; None for a file elsewhere."""
        from sharpstudent.evaluation.tables import find_run_folder, load_config

        folder = find_run_folder(path)
        return None if folder is None else load_config(folder, self._find_class())


VALIDATION = "validation"  # the split that chooses checkpoints
SENTENCES = 5  # of the verdict that the console shows after its first line


def say_verdict(session: Session, verdict: Sequence[str]) -> None:
    """The first sentences."""
    headline, *sentences = verdict
    for line in (headline, *(f"- {sentence}" for sentence in sentences[:SENTENCES])):
        session.say(line)
    if len(sentences) > SENTENCES:
        session.say(f"  ({len(sentences) - SENTENCES} more in the report)")


def _note(config: RunConfig | None, split: str) -> list[str]:
    """What a report says of a split that chose the checkpoint."""
    from sharpstudent.evaluation.tables import note_validation

    return [] if config is None or split != VALIDATION else [note_validation(config.name)]


def _name_validation(config: RunConfig) -> str:
    return f"validation of {config.name}".replace("/", "-")
