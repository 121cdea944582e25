"""Chooses the temperature of a detector's scores and its decision thresholds, and stores them in checkpoints.

They are chosen on the validation data of the detector's run, or on other validation data.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import ValidationError

from sharpstudent.checkpoint.store import export_model, load_checkpoint, save_checkpoint
from sharpstudent.core.archive import SAFETENSORS
from sharpstudent.core.errors import Problem, UserError, format_count_of
from sharpstudent.evaluation.model_files import read_selection
from sharpstudent.evaluation.opened import OpenedModel
from sharpstudent.metrics.binary import describe_resolution, to_logits
from sharpstudent.metrics.calibration import compute_ece, compute_log_loss, describe_temperature, fit_temperature
from sharpstudent.metrics.checks import MetricError
from sharpstudent.metrics.curves import OperatingPoint, choose_thresholds
from sharpstudent.tasks.deepfake.evaluation.evaluation_set import find_input
from sharpstudent.tasks.deepfake.evaluation.frames import (
    Aggregation,
    FrameTable,
    ScoredFrames,
    build_clip_table,
    build_frame_table,
)
from sharpstudent.tasks.deepfake.evaluation.set_metrics import AGGREGATIONS, FPRS, FRAME, name_level
from sharpstudent.tasks.deepfake.report.from_frames import choose_rules
from sharpstudent.tasks.deepfake.report.results import CalibrationResult, OperatingPointResult

MOST_KINDS = 4  # the most kinds of fake that a description names


def calibrate_on_validation(
    frames: ScoredFrames,
    *,
    where: str = "validation of this run",
    fprs: Sequence[float] = FPRS,
    aggregations: Sequence[Aggregation] = AGGREGATIONS,
) -> CalibrationResult:
    """Fit a temperature on single frames (Guo et al. 2017) and choose operating points.

    Operating points are of frames, and of videos where a clip has more frames than one. Their thresholds are log-odds
    before the temperature.

    Args:
        frames: The validation data with the model's scores.
        where: The data in words, for readers.
        fprs: Wanted false positive rates (reals called fake), 0..1; each gets a threshold that the reals can show.
        aggregations: The rules that score videos, where there are any; each gets thresholds of its own.

    Returns:
        Temperature, thresholds, and how well calibrated the scores are before and after.

    Raises:
        MetricError: As `choose_operating_points`: for scores that are not finite, one class, or no decision at all.
    """
    # This comes first, because it checks the frames.
    points = choose_operating_points(frames, fprs=fprs, aggregations=choose_rules(frames, aggregations))
    logits, labels = to_logits(frames.margins[frames.decided]), frames.labels[frames.decided]
    temperature = fit_temperature(logits, labels)
    return CalibrationResult(
        fitted_on=f"{where}: {describe_frames(frames)}",
        temperature=temperature,
        note=describe_temperature(temperature),
        log_loss=(compute_log_loss(logits, labels), compute_log_loss(logits / temperature, labels)),
        ece=(compute_ece(logits, labels), compute_ece(logits / temperature, labels)),
        operating_points={
            level: {name: OperatingPointResult(**vars(point)) for name, point in named.items()}
            for level, named in points.items()
        },
        notes=_list_left_out(frames, fprs),
    )


def describe_frames(frames: ScoredFrames) -> str:
    """Describe frames in words: `640 frames of 26 people, 320 real, 320 fake (self-blend)`.

    Frames without a decision are counted, too.
    """
    fakes = Counter(kind for kind, label in zip(frames.manipulations, frames.labels, strict=True) if label == 1)
    named = [kind for kind, _ in fakes.most_common(MOST_KINDS) if kind not in ("", "fake")]
    more = [f"{len(fakes) - MOST_KINDS} more kinds"] if len(fakes) > MOST_KINDS else []
    kinds = f" ({', '.join([*named, *more])})" if named else ""
    people = format_count_of(len(set(zip(frames.sources, frames.groups, strict=True))), "person")
    counted = f"{len(frames) - fakes.total()} real, {fakes.total()} fake"
    return f"{format_count_of(len(frames), 'frame')} of {people}, {counted}{kinds}"


def choose_operating_points(
    frames: ScoredFrames, *, fprs: Sequence[float] = FPRS, aggregations: Sequence[Aggregation] = AGGREGATIONS
) -> dict[str, dict[str, OperatingPoint]]:
    """Choose thresholds on validation data.

    Args:
        frames: The validation data with the scores of one model.
        fprs: Wanted false positive rates (reals called fake), 0..1. A rate gets a threshold where there are so many
            reals that one of them is not more than it.
        aggregations: The rules by which videos are scored; none where frames make no clips.

    Returns:
        The points by level (`frame`, `video_mean`, ...) and name (`eer`, `youden`, `fpr_1pct`, `fpr_0.1pct`); their
        thresholds are log-odds.

    Raises:
        MetricError: As `compute_set_metrics`.
    """
    return {
        level: choose_thresholds(rows.margins, rows.labels, fprs=list_shown_rates(fprs, int((rows.labels == 0).sum())))
        for level, rows in _build_levels(frames, aggregations).items()
        if level == FRAME or len(np.unique(rows.labels)) == 2
    }


def list_shown_rates(fprs: Sequence[float], reals: int) -> list[float]:
    """List the rates that so many reals can show: those of one real or more."""
    return [rate for rate in fprs if describe_resolution(rate, reals) is None]


def _build_levels(frames: ScoredFrames, aggregations: Sequence[Aggregation]) -> dict[str, FrameTable]:
    """Build the rows with a decision of frames, and of videos by each rule."""
    table, _ = build_frame_table(frames, has_clips=bool(aggregations))
    levels = {FRAME: table} | {name_level(how): build_clip_table(table, how) for how in aggregations}
    return {level: rows.take(rows.decided) for level, rows in levels.items()}


def _list_left_out(frames: ScoredFrames, fprs: Sequence[float]) -> tuple[str, ...]:
    """Say for which rates there is no threshold, because too few reals could show them."""
    reals = int(((frames.labels == 0) & frames.decided).sum())
    return tuple(
        f"no threshold for {100 * rate:g} % false alarms: {format_count_of(reals, 'real frame')}, where "
        f"{math.ceil(1 / rate):,} are needed to show that rate"
        for rate in fprs
        if rate not in list_shown_rates(fprs, reals)
    )


SELECTS = "val_auc"  # the metric that selected checkpoints which do not name it
KEY = "calibration"  # in a checkpoint's description
KEY_OF_VIEWS = "calibration_of_views"  # there, too: a calibration by the name of the views that it was chosen with


def find_stored(about: Mapping[str, Any], views: str | None) -> Mapping[str, Any] | None:
    """Find the calibration that was chosen with these views: another one does not hold for them.

    Args:
        about: A checkpoint's description.
        views: The name of the views; None without.

    Returns:
        The calibration as JSON values; None where none is stored.
    """
    return about.get(KEY) if views is None else (about.get(KEY_OF_VIEWS) or {}).get(views)


def read_calibration(opened: OpenedModel) -> CalibrationResult | None:
    """Read what the model's own file stores for the views that it is given; None where it stores nothing.

    Raises UserError for a calibration that cannot be read.
    """
    stored = find_stored(opened.about, find_input(opened.input_key).views)
    if stored is None:
        return None
    try:
        return CalibrationResult.model_validate(stored)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError.about(
            where=f"{opened.path}: {KEY}",
            what="cannot be understood: it is not what this version writes",
            got=f"{'.'.join(map(str, first['loc'])) or KEY}: {first['msg']}",
            remedy="choose it anew: evaluate_model.py MODEL --validation SET --store",
        ) from None


def choose_calibrations(
    frames: Sequence[ScoredFrames],
    *,
    named: str,
    fprs: Sequence[float],
    views: Sequence[str | None] | None = None,
    rules: Sequence[str] = (),
) -> list[CalibrationResult]:
    """Choose the calibration of each model on validation data.

    Args:
        frames: The data with the scores of each model.
        named: The data in words, for readers.
        fprs: Wanted false positive rates (reals called fake), besides 1 % and 0.1 %.
        views: The name of each model's views; None for models without.
        rules: The names of rules that score videos, besides those that always get thresholds.

    Returns:
        A calibration for each model.

    Raises:
        UserError: Where the data does not allow it: one class only, or no face.
    """
    wanted = sorted({*FPRS, *fprs}, reverse=True)
    aggregations = tuple(dict.fromkeys((*AGGREGATIONS, *map(Aggregation, rules))))
    of_models = [None] * len(frames) if views is None else views
    try:
        return [
            calibrate_on_validation(
                of_model,
                where=named if one is None else f"{named} in the views {one}",
                fprs=wanted,
                aggregations=aggregations,
            )
            for of_model, one in zip(frames, of_models, strict=True)
        ]
    except MetricError as error:
        raise UserError.about(
            f"--validation: {named}",
            "cannot choose temperature and thresholds",
            got=str(error),
            remedy="give a set with real and fake faces",
        ) from None


def check_storable(models: Sequence[OpenedModel]) -> None:
    """Raise UserError for models whose files cannot store thresholds, before anything is evaluated."""
    problems = [
        Problem(
            str(opened.path),
            "has no description to store thresholds in",
            expected="a checkpoint that this project wrote (.pth)",
            got=f"a file of the kind: {opened.kind}",
            remedy="leave --store out; results.json holds the thresholds",
        )
        for opened in models
        if opened.kind != "checkpoint"
    ]
    if problems:
        raise UserError(*problems)


def store_calibrations(
    models: Sequence[OpenedModel], calibrations: Sequence[CalibrationResult], say: Callable[[str], None]
) -> None:
    """Write calibrations into checkpoints, and into the .safetensors beside them. The tensors stay as they are.

    Args:
        models: The opened checkpoints.
        calibrations: The calibration of each model.
        say: Prints a line for the user.
    """
    for opened, calibration in zip(models, calibrations, strict=True):
        checkpoint = load_checkpoint(opened.path)
        views, content = find_input(opened.input_key).views, calibration.model_dump(mode="json")
        of_views = {KEY_OF_VIEWS: {**checkpoint.about.get(KEY_OF_VIEWS, {}), views: content}}
        about = {**checkpoint.about, **({KEY: content} if views is None else of_views)}
        save_checkpoint(opened.path, checkpoint.tensors, about=about)
        scored = "" if views is None else f" of the views {views}"
        say(f"stored in {opened.path}: temperature {calibration.temperature:.4g} and thresholds{scored}")
        exported = opened.path.with_suffix(SAFETENSORS)
        if exported.is_file():
            export_model(opened.path, read_selection(about, default=SELECTS))
            say(f"and in {exported.name}")
