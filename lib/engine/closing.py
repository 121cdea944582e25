"""What a checkpoint says of itself, and how each stage ends: figures, files, and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib.config.read import read_config_file
from lib.config.sections import SCRIPTS, RunConfig
from lib.engine.fit_result import FitResult
from lib.engine.run import Run
from lib.engine.task import PICTURE_AUC, Task, TaskData
from lib.errors import UserError
from lib.report.console import format_duration
from lib.report.guide import DistillationSettings, describe_next_after_stage1, describe_next_after_stage2

REPORT_NAME = "report.html"


def describe_checkpoint(config: RunConfig, task: Task) -> dict[str, Any]:
    """What a later program needs to rebuild the model, as JSON values."""
    return {
        "architecture": config.student.name,
        "classes": list(task.classes),
        "dropout": config.student.dropout,
        "image_size": task.image_size,
        "input": "RGB in 0..1, no mean/std",
        "task": config.task,
        "stage": config.stage,
        "run": config.name,
        "seed": config.seed,
        "selection_metric": task.selection_metric,
    }


def close_stage_1(run: Run, task: Task, data: TaskData, result: FitResult | None) -> None:
    """End stage 1: the best checkpoint, the command of stage 2, and the report."""
    if result is None:  # a dry run
        return
    _say_totals(run, task, result)
    checkpoint = run.weights_folder / "best_model.pth"
    config, finds_it = _find_file_for_stage_2(run, checkpoint)
    lines = describe_next_after_stage1(
        val_auc=result.best_auc,
        checkpoint=str(checkpoint),
        config=config,
        options=_repeat_overrides(run.overrides),
        weights_key_set=finds_it,
        bands=task.has_published_bands,
        selected=_tell_selected(task, result),
    )
    for line in lines:
        run.say(line)
    _write_report(run, task, data, result)


def close_stage_2(run: Run, task: Task, data: TaskData, result: FitResult | None) -> None:
    """End stage 2: the gain over stage 1 on the same validation data, the guide's advice where it is small, and the
    report.
    """
    if result is None:
        return
    _say_totals(run, task, result)
    lines = describe_next_after_stage2(
        val_auc=result.best_auc,
        stage1_auc=result.start_auc,
        checkpoint=str(run.weights_folder / "best_model.pth"),
        settings=_read_settings(run.config),
        bands=task.has_published_bands,
        selected=_tell_selected(task, result),
    )
    for line in lines:
        run.say(line)
    _write_report(run, task, data, result)


def _write_report(run: Run, task: Task, data: TaskData, result: FitResult) -> None:
    """Last of all: what is said and saved before does not hang on it. A run with nothing left to do keeps the one that
    it has.
    """
    path = run.folder / REPORT_NAME
    if not run.config.report or (result.epochs_done == 0 and path.is_file()):
        return
    from lib.engine.end_report import write_run_report  # charts and templates: half a second, for the end of a run

    run.say(f"report: {write_run_report(run, task, data)}")


def _tell_selected(task: Task, result: FitResult) -> str | None:
    """The best value with its metric, where that is not the AUC which the guide speaks of."""
    return None if task.selection_metric == PICTURE_AUC else f"{task.selection_metric} {result.best_value:.4f}"


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
    best = f"best {task.selection_metric} {result.best_value:.4f} in epoch {result.best_epoch}"
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
    temperature = kd.numbers["temperature"].value
    start, end = (hard.weight.value,) * 2 if hard.weight.kind == "constant" else (hard.weight.start, hard.weight.end)
    if start is None or end is None or temperature is None:
        return None
    return DistillationSettings(
        alpha_start=start,
        alpha_end=end,
        progressive_epochs=hard.weight.epochs,
        temperature=temperature,
        epochs=config.training.epochs,
    )
