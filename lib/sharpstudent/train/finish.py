"""The description of a run's checkpoints, and the end of each stage: totals, what to do next, and the report."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from sharpstudent.checkpoint.selection import BEST_NAME
from sharpstudent.config.load import read_config_file
from sharpstudent.config.run_config import SCRIPTS, RunConfig
from sharpstudent.core.errors import UserError
from sharpstudent.core.types import Table
from sharpstudent.deploy.familiar import store_run_reference
from sharpstudent.evaluation import run as evaluation
from sharpstudent.evaluation.command_line import ModelRequest
from sharpstudent.evaluation.evaluate import EvalResult
from sharpstudent.evaluation.renderer import FinishedRun, StageEnd, load_renderer
from sharpstudent.metrics.bootstrap import join_tables
from sharpstudent.metrics.checks import MetricError
from sharpstudent.models.teachers import name_teacher
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

REPORT_NAME = "report.html"


def describe_checkpoint(config: RunConfig, task: Task) -> dict[str, Any]:
    """Collect what a later program needs to rebuild the model, as JSON values.

    Args:
        config: The config of the run.
        task: The task; its facts are part of the description.
    """
    facts = task.facts()
    return {
        **facts,  # also at the top level, where earlier versions and other readers look for them
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


def close_stage(run: Run, task: Task, data: TrainingData, result: FitResult | None) -> None:
    """End a stage: print its totals and what to do next, and write the report.

    After stage 1, the next step is the command of stage 2. After stage 2, the totals include the gain over stage 1 on
    the same validation data, with the guide's advice if it is small. The report is written last, so that its failure
    loses nothing else. A run that had no step left to take keeps its report. After that the folder is unlocked.

    Args:
        run: The run.
        task: Its task.
        data: Its samples.
        result: The result of the training; None after a dry run, which prints nothing.
    """
    if result is None:
        return
    _say_totals(run, result)
    checkpoint = run.weights_folder / BEST_NAME
    best, start = (
        {f"{PREFIX}{name}": value for name, value in metrics.items()} for metrics in (result.best_metrics, result.start)
    )
    end = StageEnd(
        stage=run.config.stage,
        metric=f"{PREFIX}{run.config.training.selection_metric}",
        value=result.best_value,
        best=best,
        start=start,
        checkpoint=str(checkpoint),
        control=_write_control(run.config, task),
        **_describe_options(run, checkpoint),
    )
    for line in load_renderer(task).describe_next(end):
        run.say(line)
    path = run.folder / REPORT_NAME
    if run.config.report and (result.epochs_done > 0 or not path.is_file()):
        run.say(f"report: {write_run_report(run, task, data)}")
        run.say(_store_reference(run, task, data))
    run.unlock_folder()


def _write_control(config: RunConfig, task: Task) -> str:
    """Write the terms of a control of stage 2, which leaves the teacher out, as JSON; "" in stage 1."""
    if config.stage == 1:
        return ""
    from sharpstudent.evaluation.arms import make_alone

    return json.dumps(make_alone(config, type(task)).keys["terms"])


def write_run_report(run: Run, task: Task, data: TrainingData) -> Path:
    """Evaluate RUN/weights/best_model.pth on the run's validation data and write the report into the run folder.

    In stage 2 the tables of its first student and of its teachers are those of the preflight; where they are gone, the
    report is about the best model alone.

    Args:
        run: The run.
        task: Whose renderer writes the report.
        data: The validation samples.

    Returns:
        The path of the page.

    Raises:
        UserError: Where the disk refuses.
        MetricError: Where a metric is undefined on the validation data.
    """
    finished = FinishedRun(
        config=run.config,
        folder=run.folder,
        checkpoint=run.weights_folder / BEST_NAME,
        metric=f"{PREFIX}{run.config.training.selection_metric}",
        data=data.validation,
        device=run.device,
        read_others=lambda own: _read_others(run, own),
        console=run.console,
    )
    return evaluation.write_run_report(load_renderer(task), finished)


def _store_reference(run: Run, task: Task, data: TrainingData) -> str:
    """Store what is ordinary for the best model, so that predict.py can say what is unlike it; return a line."""
    opened = load_renderer(task).open_model(ModelRequest(run.weights_folder / BEST_NAME), run.device)
    return store_run_reference(opened, task, data.validation, run.device, workers=run.config.num_workers)


def _read_others(run: Run, own: Table) -> list[EvalResult]:
    """Read the results of stage 2's first student and teachers; none if their tables do not have the rows of `own`."""
    config, path = run.config, run.logs_folder / TABLES_NAME
    if not path.is_file():  # stage 1, or a run begun by an earlier version
        return []
    try:
        kept = load_tables(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        run.say(f"report: {path} cannot be read ({type(error).__name__}: {error}); the best model stands alone")
        return []
    other: Role = "teacher" if len(config.teachers) == 1 else "model"
    names = ["student before", *(name_teacher(config, number) for number in range(1, len(config.teachers) + 1))]
    roles: list[Role] = ["before", *(other for _ in config.teachers)]
    try:
        kept = join_tables([own, *kept])[1:]
    except MetricError:
        kept = []
    if len(kept) != len(names):
        run.say(f"report: {path} is of other models or pictures; the best model stands alone")
        return []
    return [
        EvalResult(name, role, Path(section.weights or "none").name, None, section.name, (table,))
        for name, role, section, table in zip(names, roles, (config.student, *config.teachers), kept, strict=True)
    ]


def _describe_options(run: Run, checkpoint: Path) -> dict[str, Any]:
    """Collect what the advice after a stage needs.

    After stage 2 these are the settings of the distillation. After stage 1, for the command of stage 2: the config file
    to name, whether its pattern of stage-1 weights finds the checkpoint, and the `--set` words of this command without
    which stage 2 would build another student.

    A run resumed without its CONFIG knows only the config's name; its own config.json has another form.
    """
    if run.config.stage == 2:
        return {"settings": _read_settings(run.config)}
    words = [word for word in run.overrides if not word.startswith("stage1.")]
    options = "".join(f" --set {shlex.quote(word)}" for word in words)
    path = run.config_path or Path("configs") / f"{run.config.config_name}.json"
    try:
        pattern = read_config_file(path).get("pretrained_student_weights")
    except UserError:
        return {"config": "CONFIG", "options": options}
    finds_weights = isinstance(pattern, str) and checkpoint.match(pattern)
    return {"config": str(path), "options": options, "finds_weights": finds_weights}


def _say_totals(run: Run, result: FitResult) -> None:
    best = f"best {PREFIX}{run.config.training.selection_metric} {result.best_value:.4f} in epoch {result.best_epoch}"
    ending = f"{best}; curves: {run.logs_folder / 'curves.png'}"
    if result.epochs_done == 0:
        run.say(f"nothing left to do: {result.stopped or 'all epochs of this run are done'}; {ending}")
    else:
        per_epoch = result.seconds / result.epochs_done
        epochs = f"{result.epochs_done} epoch{'s' if result.epochs_done > 1 else ''}"
        skipped = f", {result.skipped} step{'s' if result.skipped > 1 else ''} skipped" if result.skipped else ""
        run.say(
            f"{epochs} in {format_duration(result.seconds)} ({per_epoch:.1f} s an epoch, 100 would take "
            f"{format_duration(100 * per_epoch)}){skipped}; {ending}"
        )
    if result.stopped is not None:
        command = f"python {SCRIPTS[run.config.stage]} --resume {shlex.quote(str(run.folder))} --set patience=null"
        again = "" if result.epochs_done == 0 else f"{result.stopped}; "
        run.say(f"{again}to train the epochs that are left all the same: {command}")


def _read_settings(config: RunConfig) -> DistillationSettings | None:
    """Read the settings that the guide's advice changes; None if the loss is not written in the guide's keys."""
    terms = {term.term: term for term in config.criterion}
    hard, kd = terms.get("hard"), terms.get("kd")
    if hard is None or kd is None or len(config.criterion) != 2 or not kd.weight.complement:
        return None
    alpha, temperature = [*hard.weight.numbers.values()], kd.numbers["temperature"].numbers.get("value")
    if hard.weight.kind in ("ramp", "table") or temperature is None:
        return None
    epochs = getattr(hard.weight, "epochs", None)
    return DistillationSettings(alpha[0], alpha[-1], epochs, temperature, config.training.epochs)
