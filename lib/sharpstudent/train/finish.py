"""What a checkpoint says of itself, and how each stage ends: figures, files, the report, and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sharpstudent.checkpoint.selection import BEST_NAME
from sharpstudent.config.load import read_config_file
from sharpstudent.config.run_config import SCRIPTS, RunConfig, StudentSection, TeacherSection
from sharpstudent.core.errors import UserError
from sharpstudent.core.types import Table
from sharpstudent.evaluation import run as evaluation
from sharpstudent.evaluation.evaluate import EvalResult
from sharpstudent.evaluation.renderer import FinishedRun, StageEnd, load_renderer
from sharpstudent.metrics.bootstrap import join_tables
from sharpstudent.metrics.checks import MetricError
from sharpstudent.report.console import format_duration
from sharpstudent.report.guide import DistillationSettings
from sharpstudent.report.results import Role
from sharpstudent.task import Task
from sharpstudent.train.build import TrainingData
from sharpstudent.train.preflight.run import TABLES_NAME
from sharpstudent.train.preflight.table_cache import load_tables
from sharpstudent.train.run import Run
from sharpstudent.train.state import FitResult
from sharpstudent.train.validate import PREFIX

BEFORE = "student before"


def write_run_report(run: Run, task: Task, data: TrainingData) -> Path:
    """Evaluate RUN/weights/best_model.pth on the run's validation data and write the report of the task's renderer into
    the run folder; returns the page.

    In stage 2 the tables of its first student and of its teachers are those of the preflight; where they are gone, the
    report is about the best model alone. Raises UserError where the disk refuses, MetricError where the validation data
    has no figures.
    """
    finished = FinishedRun(
        config=run.config,
        folder=run.folder,
        checkpoint=run.weights_folder / BEST_NAME,
        metric=f"{PREFIX}{run.config.training.selection_metric}",
        data=data.validation,
        device=run.device,
        read_others=lambda own: _read_others(run, own),
    )
    return evaluation.write_run_report(load_renderer(task), finished)


def _read_others(run: Run, own: Table) -> list[EvalResult]:
    """The student that stage 2 began with, and each teacher, where their tables are of these very rows."""
    config, path = run.config, run.logs_folder / TABLES_NAME
    if not path.is_file():  # stage 1, or a run that an earlier version began
        return []
    try:
        kept = load_tables(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        run.say(f"report: {path} cannot be read ({type(error).__name__}: {error}); the best model stands alone")
        return []
    is_alone = len(config.teachers) == 1
    named: list[tuple[str, Role, StudentSection | TeacherSection]] = [(BEFORE, "before", config.student)]
    for number, section in enumerate(config.teachers, 1):
        named.append(("teacher" if is_alone else f"teacher {number}", "teacher" if is_alone else "model", section))
    try:
        kept = join_tables([own, *kept])[1:]
    except MetricError:
        kept = []
    if len(kept) != len(named):
        run.say(f"report: {path} is of other models or pictures; the best model stands alone")
        return []
    return [
        EvalResult(name, role, Path(section.weights or "none").name, None, section.name, (table,))
        for (name, role, section), table in zip(named, kept, strict=True)
    ]


REPORT_NAME = "report.html"


def describe_checkpoint(config: RunConfig, task: Task) -> dict[str, Any]:
    """What a later program needs to rebuild the model, as JSON values."""
    facts = task.facts()
    return {
        **facts,  # where earlier versions and readers of these files look for them
        "architecture": config.student.name,
        "dropout": config.student.dropout,
        **({"options": config.student.options} if config.student.options else {}),
        "facts": facts,
        "task": config.task,
        "stage": config.stage,
        "run": config.name,
        "seed": config.seed,
        "selection_metric": f"{PREFIX}{config.training.selection_metric}",
    }


def close_stage_1(run: Run, task: Task, data: TrainingData, result: FitResult | None) -> None:
    """End stage 1: the best checkpoint, the command of stage 2, and the report."""
    if result is None:  # a dry run
        return
    _say_totals(run, task, result)
    checkpoint = run.weights_folder / BEST_NAME
    config, finds_it = _find_file_for_stage_2(run, checkpoint)
    options = _repeat_overrides(run.overrides)
    _say_next(run, task, result, config=config, options=options, finds_weights=finds_it)
    _write_report(run, task, data, result)


def close_stage_2(run: Run, task: Task, data: TrainingData, result: FitResult | None) -> None:
    """End stage 2: the gain over stage 1 on the same validation data, the guide's advice where it is small, and the
    report.
    """
    if result is None:
        return
    _say_totals(run, task, result)
    _say_next(run, task, result, settings=_read_settings(run.config))
    _write_report(run, task, data, result)


def _say_next(run: Run, task: Task, result: FitResult, **more: Any) -> None:
    """What the stage came to and what to do next, in the words of the task's renderer."""
    best, start = (
        {f"{PREFIX}{name}": value for name, value in metrics.items()} for metrics in (result.best_metrics, result.start)
    )
    end = StageEnd(
        stage=run.config.stage,
        metric=f"{PREFIX}{run.config.training.selection_metric}",
        value=result.best_value,
        best=best,
        start=start,
        checkpoint=str(run.weights_folder / BEST_NAME),
        **more,
    )
    for line in load_renderer(task).describe_next(end):
        run.say(line)


def _write_report(run: Run, task: Task, data: TrainingData, result: FitResult) -> None:
    """Last of all: what is said and saved before does not hang on it. A run with nothing left to do keeps the one that
    it has.
    """
    path = run.folder / REPORT_NAME
    if not run.config.report or (result.epochs_done == 0 and path.is_file()):
        return

    run.say(f"report: {write_run_report(run, task, data)}")


def _find_file_for_stage_2(run: Run, checkpoint: Path) -> tuple[str, bool]:
    """The config file to name in the command of stage 2, and whether its pattern of stage-1 weights finds `checkpoint`.

    A run that was resumed without its CONFIG knows the config's name only; its own config.json is of another form.
    """
    path = run.config_path or Path("configs") / f"{run.config.config_name}.json"
    try:
        pattern = read_config_file(path).get("pretrained_student_weights")
    except UserError:
        return "CONFIG", False
    return str(path), isinstance(pattern, str) and checkpoint.match(pattern)


def _repeat_overrides(overrides: Sequence[str]) -> str:
    """The `--set` words of this command that stage 2 needs too: without them it would build another student."""
    return "".join(f" --set {shlex.quote(word)}" for word in overrides if not word.startswith("stage1."))


def _say_totals(run: Run, task: Task, result: FitResult) -> None:
    best = f"best {PREFIX}{run.config.training.selection_metric} {result.best_value:.4f} in epoch {result.best_epoch}"
    curves = f"curves: {run.logs_folder / 'curves.png'}"
    if result.epochs_done == 0:
        run.say(f"nothing left to do: {result.stopped or 'all epochs of this run are done'}; {best}; {curves}")
    else:
        _say_epochs(run, result, f"{best}; {curves}")
    if result.stopped is not None:
        go_on = f"python {SCRIPTS[run.config.stage]} --resume {shlex.quote(str(run.folder))} --set patience=null"
        again = "" if result.epochs_done == 0 else f"{result.stopped}; "
        run.say(f"{again}to train the epochs that are left all the same: {go_on}")


def _say_epochs(run: Run, result: FitResult, ending: str) -> None:
    per_epoch = result.seconds / result.epochs_done
    epochs = f"{result.epochs_done} epoch{'s' if result.epochs_done > 1 else ''}"
    skipped = f", {result.skipped} step{'s' if result.skipped > 1 else ''} skipped" if result.skipped else ""
    run.say(
        f"{epochs} in {format_duration(result.seconds)} ({per_epoch:.1f} s an epoch, 100 would take "
        f"{format_duration(100 * per_epoch)}){skipped}; {ending}"
    )


def _read_settings(config: RunConfig) -> DistillationSettings | None:
    """The settings that the guide's advice changes; None where the loss is not written in its keys."""
    terms = {term.term: term for term in config.criterion}
    hard, kd = terms.get("hard"), terms.get("kd")
    if hard is None or kd is None or len(config.criterion) != 2 or not kd.weight.complement:
        return None
    alpha, temperature = [*hard.weight.numbers.values()], kd.numbers["temperature"].numbers.get("value")
    if hard.weight.kind in ("ramp", "table") or temperature is None:
        return None
    return DistillationSettings(
        alpha_start=alpha[0],
        alpha_end=alpha[-1],
        progressive_epochs=getattr(hard.weight, "epochs", None),
        temperature=temperature,
        epochs=config.training.epochs,
    )
