"""What a checkpoint says of itself, and how each stage ends: figures, files, and what to do next."""

from __future__ import annotations

from typing import Any

from lib.config.sections import RunConfig
from lib.engine.run import Run
from lib.engine.task import Task
from lib.engine.trainer import FitResult
from lib.report.console import format_duration
from lib.report.guide import DistillationSettings, describe_next_after_stage1, describe_next_after_stage2


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
    }


def close_stage_1(run: Run, task: Task, result: FitResult | None) -> None:
    """End stage 1: the best checkpoint and the command of stage 2."""
    if result is None:  # a dry run
        return
    _say_totals(run, task, result)
    lines = describe_next_after_stage1(
        val_auc=result.best_value,
        checkpoint=str(run.weights_folder / "best_model.pth"),
        config=str(run.config_path or run.folder / "config.json"),
        weights_key_set=run.weights_key_set,
        bands=task.has_published_bands,
    )
    for line in lines:
        run.say(line)


def close_stage_2(run: Run, task: Task, result: FitResult | None) -> None:
    """End stage 2: the gain over stage 1 on the same validation data, and the guide's advice where it is small."""
    if result is None:
        return
    _say_totals(run, task, result)
    lines = describe_next_after_stage2(
        val_auc=result.best_value,
        stage1_auc=result.start_value,
        checkpoint=str(run.weights_folder / "best_model.pth"),
        settings=_read_settings(run.config),
        bands=task.has_published_bands,
    )
    for line in lines:
        run.say(line)


def _say_totals(run: Run, task: Task, result: FitResult) -> None:
    per_epoch = result.seconds / max(1, result.epochs_done)
    skipped = f", {result.skipped} steps skipped" if result.skipped else ""
    run.say(
        f"{result.epochs_done} epochs in {format_duration(result.seconds)} ({per_epoch:.1f} s an epoch, 100 would take "
        f"{format_duration(100 * per_epoch)}){skipped}; best {task.selection_metric} {result.best_value:.4f} in epoch "
        f"{result.best_epoch}; curves: {run.logs_folder / 'curves.png'}"
    )


def _read_settings(config: RunConfig) -> DistillationSettings:
    """The settings that the guide's advice changes, out of the native terms."""
    hard = next(term.weight for term in config.criterion if term.name == "hard")
    kd = next(term for term in config.criterion if term.name == "kd")
    start, end = (hard.value, hard.value) if hard.kind == "constant" else (hard.start, hard.end)
    assert start is not None and end is not None and kd.temperature is not None
    return DistillationSettings(
        alpha_start=start,
        alpha_end=end,
        progressive_epochs=hard.epochs or 1,
        temperature=kd.temperature,
        epochs=config.training.epochs,
    )
