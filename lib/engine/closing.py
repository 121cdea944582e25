"""What a checkpoint says of itself, and how each stage ends: figures, files, and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib.config.read import read_config_file
from lib.config.sections import RunConfig
from lib.engine.run import Run
from lib.engine.task import Task
from lib.engine.trainer import FitResult
from lib.errors import UserError
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
    checkpoint = run.weights_folder / "best_model.pth"
    config, finds_it = _find_file_for_stage_2(run, checkpoint)
    lines = describe_next_after_stage1(
        val_auc=result.best_value,
        checkpoint=str(checkpoint),
        config=config,
        options=_repeat_overrides(run.overrides),
        weights_key_set=finds_it,
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
        run.say(f"nothing left to do: all epochs of this run are done; {best}; {curves}")
        return
    per_epoch = result.seconds / result.epochs_done
    epochs = f"{result.epochs_done} epoch{'s' if result.epochs_done > 1 else ''}"
    skipped = f", {result.skipped} step{'s' if result.skipped > 1 else ''} skipped" if result.skipped else ""
    run.say(
        f"{epochs} in {format_duration(result.seconds)} ({per_epoch:.1f} s an epoch, 100 would take "
        f"{format_duration(100 * per_epoch)}){skipped}; {best}; {curves}"
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
