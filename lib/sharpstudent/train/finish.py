"""How a stage ends: its report, its last lines, and what a checkpoint says of itself.

The report at the end of a run: the best model on the run's own validation data, beside the student that it started
from and the teacher that it learnt from, in RUN/report.html.

What a checkpoint says of itself, and how each stage ends: figures, files, and what to do next.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sharpstudent.checkpoint.selection import BEST_NAME
from sharpstudent.config.load import read_config_file
from sharpstudent.config.run_config import SCRIPTS, RunConfig, StudentSection, TeacherSection
from sharpstudent.core.errors import UserError
from sharpstudent.core.io import write_text_atomically
from sharpstudent.deploy.mistakes import find_mistakes
from sharpstudent.evaluation.evaluate import judge_models
from sharpstudent.evaluation.load_model import ModelSpec, open_model
from sharpstudent.evaluation.model_files import read_trained, read_validation
from sharpstudent.evaluation.task import PICTURE_AUC, Scores, Task, TaskData
from sharpstudent.metrics.tables import ScoredFrames
from sharpstudent.report.build import (
    LEVEL,
    PAIRED_ROUNDS,
    ROUNDS,
    SEED,
    build_comparisons,
    build_drawings,
    build_figures,
    choose_rules,
)
from sharpstudent.report.card import render_model_card
from sharpstudent.report.console import format_duration
from sharpstudent.report.environment import describe_environment, hide_home, hide_homes
from sharpstudent.report.guide import DistillationSettings, describe_next_after_stage1, describe_next_after_stage2
from sharpstudent.report.html import write_report
from sharpstudent.report.results import CalibrationResult, ModelResult, Results, Role
from sharpstudent.report.training import read_training
from sharpstudent.report.verdict.write import write_headed_verdict
from sharpstudent.train.preflight.run import SCORES_NAME
from sharpstudent.train.preflight.score_cache import load_scores, put_in_order
from sharpstudent.train.run import Run
from sharpstudent.train.state import FitResult
from sharpstudent.train.validate import EVALUATION_ITEMS, ValidationSet

CARD = "model_card.md"
BEFORE = "student before"


def write_run_report(run: Run, task: Task, data: TaskData) -> Path:
    """Judge RUN/weights/best_model.pth on the run's validation data and write report.html, results.json, figures/ and
    model_card.md into the run folder; returns the report.

    In stage 2 the scores of its first student and of its teachers are those of the preflight; where they are gone, the
    report is about the best model alone. Raises UserError where the disk refuses, MetricError where the
    validation data has no figures.
    """
    config = run.config
    opened = open_model(
        ModelSpec(run.weights_folder / BEST_NAME, name=config.name), classes=task.classes, device=run.device
    )
    validation = ValidationSet(config.name, task.image_size, lambda _: (task, data))
    judged = judge_models(
        [opened],
        [validation],
        device=run.device,
        num_workers=config.num_workers,
        batch_size=EVALUATION_ITEMS,
        say=lambda _: None,
    )
    best = judged.models[0]
    others = _read_others(run, validation, best.scores[0])
    mistakes, pictures = find_mistakes(best, [validation], judged.unreadable, first_picture=0)
    stored = opened.about.get("calibration")  # absent where an earlier version saved it
    calibration = None if stored is None else CalibrationResult.model_validate(stored)
    model = ModelResult(
        name=opened.name,
        role="distilled" if config.stage == 2 else "model",
        file=opened.path.name,
        sha256=opened.sha256,
        architecture=opened.architecture,
        image_size=opened.image_size,
        trained=read_trained(opened.about),
        validation=read_validation(opened.about),
        figures=build_figures(best.frames, calibration=calibration),
        drawings=build_drawings(best.frames),
        calibration=calibration,
    )
    results = Results(
        title=f"Stage {config.stage}: {config.name}",
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        command=shlex.join(hide_home(sys.argv)),
        verdict=(),
        protocol=_describe_protocol(best.frames),
        data=judged.data,
        models=(model, *(_describe(kept) for kept in others)),
        comparisons=tuple(
            found
            for kept in others
            for found in build_comparisons((opened.name, best.frames), (kept.name, kept.frames))
        ),
        mistakes=tuple(mistakes),
        training=read_training(
            run.logs_folder / "metrics.csv", best_epoch=opened.about.get("epoch"), metric=task.selection_metric
        ),
        config=hide_homes(config.model_dump(mode="json")),
        environment=describe_environment(),
    )
    results = results.model_copy(update={"verdict": write_headed_verdict(results)})
    write_text_atomically(run.folder / CARD, render_model_card(results, model))
    return write_report(run.folder, results, pictures)[0]


@dataclass(frozen=True)
class _Kept:
    """A model whose scores the preflight has kept."""

    name: str
    role: Role
    architecture: str
    file: str
    frames: ScoredFrames


def _read_others(run: Run, validation: ValidationSet, own: Scores) -> list[_Kept]:
    """The student that stage 2 began with, and each teacher, where their scores are of these very pictures."""
    config, path = run.config, run.logs_folder / SCORES_NAME
    if not path.is_file():  # stage 1, or a run that an earlier version began
        return []
    try:
        kept = load_scores(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        run.say(f"report: {path} cannot be read ({type(error).__name__}: {error}); the best model stands alone")
        return []
    is_alone = len(config.teachers) == 1
    named: list[tuple[str, Role, StudentSection | TeacherSection]] = [(BEFORE, "before", config.student)]
    for number, section in enumerate(config.teachers, 1):
        named.append(("teacher" if is_alone else f"teacher {number}", "teacher" if is_alone else "model", section))
    in_order = [ordered for scores in kept if (ordered := put_in_order(scores, own.sample_ids)) is not None]
    if len(in_order) != len(named) or len(in_order) != len(kept):
        run.say(f"report: {path} is of other models or pictures; the best model stands alone")
        return []
    return [
        _Kept(name, role, section.name, Path(section.weights or "none").name, validation.to_frames(scores, {}))
        for (name, role, section), scores in zip(named, in_order, strict=True)
    ]


def _describe(kept: _Kept) -> ModelResult:
    """Of a model whose scores alone are at hand."""
    return ModelResult(
        name=kept.name,
        role=kept.role,
        file=kept.file,
        sha256=None,
        architecture=kept.architecture,
        image_size=None,
        figures=build_figures(kept.frames),
        drawings=build_drawings(kept.frames),
    )


def _describe_protocol(frames: ScoredFrames) -> dict[str, str]:
    return {
        "data": "the run's own validation data: it chose the checkpoint, so these figures flatter it; "
        "evaluate_model.py --data judges on data that nothing was chosen on",
        "videos": "the mean of their frames' probabilities, their maximum, the mean of the highest tenth"
        if choose_rules(frames)
        else "none: every clip is a single picture",
        "intervals": f"{LEVEL:.0%}, percentile bootstrap over people, {ROUNDS} rounds, seed {SEED}",
        "comparisons": f"paired bootstrap over people, {PAIRED_ROUNDS} rounds",
        "thresholds": "a probability of one half, and those chosen on this same data: their rates are optimistic",
    }


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
