"""Builds the results of an evaluation of detectors, and writes the files of its folder.

`assemble` builds `Results`, from which the report, results.json and the console are made. scores.csv holds the score of
every model for every frame, so that any other metric can be computed from it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from sharpstudent.core.errors import UserError
from sharpstudent.core.io import write_text_atomically
from sharpstudent.core.naming import format_csv
from sharpstudent.evaluation.compare import NON_INFERIORITY, describe_intervals
from sharpstudent.evaluation.evaluate import EvalResult, Evaluation, Heading
from sharpstudent.evaluation.renderer import Measurements, Session, say_summary
from sharpstudent.evaluation.tables import EvalSet
from sharpstudent.metrics.checks import MetricError
from sharpstudent.models.widths import Lighter, find_lighter_width, is_clearly_less
from sharpstudent.report.page import FIGURE_FILES, remove_earlier
from sharpstudent.tasks.deepfake.evaluation.command_line import FaceRequest
from sharpstudent.tasks.deepfake.evaluation.datasets import read_groups
from sharpstudent.tasks.deepfake.evaluation.evaluation_set import FaceSet, find_input
from sharpstudent.tasks.deepfake.evaluation.frames import Aggregation, ScoredFrames, join_frames
from sharpstudent.tasks.deepfake.evaluation.run_validation import ValidationSet
from sharpstudent.tasks.deepfake.metrics import compute_probabilities
from sharpstudent.tasks.deepfake.report.card import render_model_card
from sharpstudent.tasks.deepfake.report.from_frames import (
    PAIRED_ROUNDS,
    ROUNDS,
    build_comparisons,
    build_drawings,
    build_group_errors,
    build_metrics,
    choose_rules,
)
from sharpstudent.tasks.deepfake.report.guide import list_bands
from sharpstudent.tasks.deepfake.report.model_table import render_csv, render_markdown, render_tables
from sharpstudent.tasks.deepfake.report.page import write_report
from sharpstudent.tasks.deepfake.report.pictures import ReportPicture
from sharpstudent.tasks.deepfake.report.results import (
    CalibrationResult,
    ComparisonResult,
    DataResult,
    ModelResult,
    Results,
)
from sharpstudent.tasks.deepfake.report.tiles import build_tiles, list_limits
from sharpstudent.tasks.deepfake.report.verdict import write_headed_verdict
from sharpstudent.tasks.deepfake.task import BLEND


def collect_frames(evaluation: Evaluation) -> list[ScoredFrames]:
    """Collect the scored frames of all sets together, for each model."""
    parts = [
        [
            one.to_frames(table, unreadable)
            for one, table, unreadable in zip(list_sets(evaluation), model.tables, evaluation.unreadable, strict=True)
        ]
        for model in evaluation.models
    ]
    return [join_frames(of_model) for of_model in parts]


def _leave_out_stills(results: Results, sets: Sequence[EvalSet]) -> Results:
    """Leave the AUC of "videos" out of what early versions wrote of a run whose validation data are stills.

    The curves of a run that it selected keep it.
    """
    section = (results.config or {}).get("task_section") or {}
    is_stills = any(isinstance(one, ValidationSet) and not one.has_videos() for one in sets)
    if not is_stills and section.get("data_source") != "photos":
        return results

    def keep(columns: Mapping[str, Any]) -> dict[str, Any]:
        return {name: column for name, column in columns.items() if not name.startswith("val_video_auc")}

    models = tuple(one.model_copy(update={"validation": keep(one.validation)}) for one in results.models)
    training = results.training
    if training is not None and "video_auc" not in training.metric:
        training = training.model_copy(update={"columns": keep(training.columns)})
    return results.model_copy(update={"models": models, "training": training})


def assemble(
    session: Session, evaluation: Evaluation, frames: Sequence[ScoredFrames], measured: Measurements, heading: Heading
) -> Results:
    """Build the results: metrics, curves, comparisons and the verdict.

    Args:
        session: The evaluation in progress.
        evaluation: The tables of all models on each set.
        frames: The scored frames of each model, as `collect_frames` returns them.
        measured: The calibrations, costs, mistakes and robustness.
        heading: The title, time, command and environment.

    Returns:
        The results.

    Raises:
        UserError: For data that has no metrics, such as data of one class.
        MetricError: The same, at the end of a training run.
    """
    data = tuple(
        one.describe(table, unreadable)
        for one, table, unreadable in zip(
            list_sets(evaluation), evaluation.models[0].tables, evaluation.unreadable, strict=True
        )
    )
    assert isinstance(session.request, FaceRequest)
    columns = read_groups(session.request, list_sets(evaluation))(frames[0])
    try:
        models = tuple(_describe_models(session, evaluation, frames, measured, columns))
        comparisons = tuple(_compare_pairs(session, evaluation, frames))
    except MetricError as error:
        if session.run is not None:
            raise
        named = ", ".join(one.name for one in data)
        raise UserError.about(
            f"--data: {named}", "cannot be evaluated", got=str(error), remedy="give real and fake faces, each once"
        ) from None
    has_roles = session.run is None and any(model.role != "model" for model in models)
    results = Results(
        verdict=(),
        protocol=_describe_protocol(session, frames[0], data, measured.calibrations),
        data=data,
        models=models,
        comparisons=comparisons,
        mistakes=tuple(measured.mistakes),
        bands=list_bands(models) if has_roles and _is_guides_data(heading.config) else (),
        **vars(heading),
    )
    results = _leave_out_stills(results, session.sets)
    first = {
        "verdict": write_headed_verdict(results, lighter=find_lighter(results)),
        "tiles": build_tiles(results, frames, rounds=session.request.rounds),
        "limits": list_limits(results),
    }
    return results.model_copy(update=first)


def list_sets(evaluation: Evaluation) -> list[FaceSet]:
    """List the sets of an evaluation; in this task all of them are sets of faces."""
    return [one for one in evaluation.sets if isinstance(one, FaceSet)]


def _describe_models(
    session: Session,
    evaluation: Evaluation,
    frames: Sequence[ScoredFrames],
    measured: Measurements,
    columns: Mapping[str, Sequence[str]],
) -> list[ModelResult]:
    models: list[ModelResult] = []
    with session.progress("metrics with intervals", len(evaluation.models), "model") as progress:
        for number, one in enumerate(evaluation.models):
            models.append(_describe_model(session, number, one, frames[number], measured, columns))
            progress.add()
    return models


def _compare_pairs(session: Session, evaluation: Evaluation, frames: Sequence[ScoredFrames]) -> list[ComparisonResult]:
    """Compare the pairs of models; of several seeds all together."""
    found: list[ComparisonResult] = []
    with session.progress("comparisons", len(evaluation.pairs), "pair") as progress:
        for a, b in evaluation.pairs:
            first, second = ((evaluation.models[side[0]].name, [frames[number] for number in side]) for side in (a, b))
            found += build_comparisons(first, second)
            progress.add()
    return found


def _describe_model(
    session: Session,
    number: int,
    model: EvalResult,
    frames: ScoredFrames,
    measured: Measurements,
    columns: Mapping[str, Sequence[str]],
) -> ModelResult:
    """Describe a model by its number; only the models that were opened have a calibration, a cost and robustness.

    columns: The values of the columns of --by (N,).
    """
    request, is_opened = session.request, number < len(session.models)
    assert isinstance(request, FaceRequest)
    calibration = measured.calibrations[number] if is_opened else None
    views = None if model.input_key is None else find_input(model.input_key).views
    scored = "" if views is None else f" for the views {views}"
    without = f"no temperature and thresholds are stored with it{scored}; choose them with --validation SET"
    return ModelResult(
        **model.describe(),
        image_size=None if model.input_key is None else find_input(model.input_key).image_size,
        figures=build_metrics(
            frames,
            calibration=calibration,
            rules=[Aggregation(name) for name in request.rules],
            rounds=request.rounds,
        ),
        drawings=build_drawings(frames, None if calibration is None else calibration.temperature),
        calibration=calibration,
        cost=measured.costs[number] if is_opened else None,
        robustness=measured.robustness.get(model.name, ()),
        by_group=build_group_errors(frames, columns, calibration, rounds=request.rounds),
        learnt=read_learnt(model.about),
        wrong=int((((frames.margins >= 0.0) != (frames.labels == 1)) & frames.decided).sum()),
        notes=(without,) if calibration is None and session.run is None else (),
    )


_ONLY_BLENDS = re.compile(rf"validation of this run: .* fake \({BLEND}\)")


def read_learnt(about: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Read which kinds of fake a model learnt from, from its file's description.

    Checkpoints from before December 2026 do not list them. Where the fakes of such a run's validation data, on which
    it was calibrated, were self-blends, those of its training data were, too.

    Args:
        about: The description.

    Returns:
        The kinds; None where the file does not say it.
    """
    named = (about.get("facts") or {}).get("fakes")
    if isinstance(named, list | tuple):
        return tuple(map(str, named))
    fitted_on = (about.get("calibration") or {}).get("fitted_on")
    return (BLEND,) if _ONLY_BLENDS.fullmatch(str(fitted_on)) else None


def find_lighter(results: Results) -> Lighter | None:
    """Find the width of the student's family that would be lighter than the teacher.

    None where there is no such pair, where the student is lighter already, and where no width of its family is.
    """
    by_role = {model.role: model for model in reversed(results.models) if model.seed_of is None}
    student, teacher = by_role.get("distilled") or by_role.get("before"), by_role.get("teacher")
    if student is None or teacher is None or student.architecture is None or student.image_size is None:
        return None
    own, other = _count(student), _count(teacher)
    if own is None or other is None or all(map(is_clearly_less, own, other)):
        return None
    return find_lighter_width(
        student.architecture, side=student.image_size, below_parameters=other[0], below_macs=other[1]
    )


def _count(model: ModelResult) -> tuple[int, int] | None:
    """Return the parameters and multiply-accumulates of a model; None where one of them was not measured."""
    cost = model.cost
    return None if cost is None or cost.parameters is None or cost.macs is None else (cost.parameters, cost.macs)


def _is_guides_data(config: Mapping[str, Any] | None) -> bool:
    """Whether a run was made with the data that the guide's values are of: FaceForensics++ at 380 px."""
    section = (config or {}).get("task_section", {})
    return (section.get("data_source"), section.get("image_size")) == ("ffpp", 380)


def _describe_protocol(
    session: Session, frames: ScoredFrames, data: Sequence[DataResult], calibrations: Sequence[CalibrationResult | None]
) -> dict[str, str]:
    request = session.request
    assert isinstance(request, FaceRequest)
    rules = choose_rules(frames)
    if session.run is not None:
        return _describe_run_protocol(bool(rules)) | {"probabilities": _tell_probabilities(session, calibrations)}
    return {
        "samples": "frames and videos, kept apart in every metric's name"
        if rules
        else "frames; every clip is a single picture, so metrics of videos would be the same",
        "videos": f"scored by {', '.join(request.rules)} of their frames (top10: mean of the highest 10 %)"
        if rules
        else "none",
        "faces": "; ".join(dict.fromkeys(data.faces_rule for data in data)),
        "no decision": "frames without a face are counted, and are part of no metric",
        "intervals": describe_intervals("people (clips where people are not known)", "people", request.rounds),
        "comparisons": f"paired bootstrap over people, {PAIRED_ROUNDS} rounds: both models see the same drawn people. "
        + NON_INFERIORITY,
        "thresholds": _tell_thresholds(calibrations),
        "probabilities": _tell_probabilities(session, calibrations),
        "checkpoints": "chosen on the validation data of their own runs"
        + ("" if any(data.kind == "validation" for data in data) else ", never on the data evaluated here"),
        "preprocessing": "; ".join(dict.fromkeys(_PREPROCESSING[data.kind] for data in data)),
    }


def _describe_run_protocol(has_videos: bool) -> dict[str, str]:
    return {
        "data": "the run's own validation data: it chose the checkpoint, so these metrics are optimistic; "
        "use evaluate_model.py --data for data that nothing was chosen on",
        "videos": "scored by the mean of their frames' probabilities, their maximum, and the mean of the highest tenth"
        if has_videos
        else "none: every clip is a single picture",
        "intervals": describe_intervals("people", "people", ROUNDS),
        "comparisons": f"paired bootstrap over people, {PAIRED_ROUNDS} rounds. {NON_INFERIORITY}",
        "thresholds": "a probability of one half, and those chosen on this same data: their rates are optimistic",
    }


_CROP = "each face is cropped with 12.5 % around its box and resized to the network's input; no augmentation"
_PREPROCESSING = {
    "manifest": _CROP,
    "folder": _CROP,
    "crops": "each picture is one face, resized to the network's input as a whole; no augmentation",
    "validation": "as in the run's own validation: the same faces, blends and sizes in every epoch",
}


def _tell_thresholds(calibrations: Sequence[CalibrationResult | None]) -> str:
    known = {one.fitted_on for one in calibrations if one is not None}
    if not known:
        return "a probability of one half only: no thresholds are stored with these models"
    return "a probability of one half, and thresholds chosen on: " + "; ".join(sorted(known))


def _tell_probabilities(session: Session, calibrations: Sequence[CalibrationResult | None]) -> str:
    """Say which models' probabilities are calibrated: in scores.csv, reliability, scores and mistakes."""
    named = [(opened.name, one) for opened, one in zip(session.models, calibrations, strict=True)]
    after = [f"{name} {one.temperature:.3f}" for name, one in named if one is not None]
    plain = [name for name, one in named if one is None]
    parts = [f"calibrated: log-odds divided by the stored temperature ({', '.join(after)})"] if after else []
    parts += [f"as the model gives them, because no temperature is stored: {', '.join(plain)}"] if plain else []
    return "; ".join(parts)


COLUMNS = (
    *("model", "source", "sample_id", "clip_id", "person", "manipulation", "label", "decided"),
    *("margin", "fake", "fake_calibrated"),
)
Scored = tuple[str, ScoredFrames, float | None]  # a model's name, its scored frames, and its stored temperature


def write_scores(path: Path, models: Sequence[Scored]) -> None:
    """Write scores.csv: a row for each model and frame.

    `margin` is the log-odds of fake to its last digit and `fake` its probability, both as the model gives them;
    `fake_calibrated` is the probability after division of the log-odds by the stored temperature. All are empty where
    no face was found, the last one also where no temperature is stored with the model.

    Args:
        path: The path of the file, which is replaced as a whole.
        models: The models with their scored frames.

    Raises:
        UserError: Where the disk refuses.
    """
    rows: list[Sequence[object]] = [COLUMNS]
    for name, frames, temperature in models:
        margins = np.asarray(frames.margins, np.float64)
        plain = compute_probabilities(margins)
        calibrated = None if temperature is None else compute_probabilities(margins, temperature)
        for row in range(len(frames)):
            scores: tuple[object, ...] = (None, None, None)
            if frames.decided[row]:
                last = None if calibrated is None else f"{calibrated[row]:.6f}"
                scores = (float(margins[row]), f"{plain[row]:.6f}", last)
            rows.append(
                (
                    *(name, frames.sources[row], frames.sample_ids[row], frames.clip_ids[row], frames.groups[row]),
                    *(frames.manipulations[row], int(frames.labels[row]), int(frames.decided[row]), *scores),
                )
            )
    write_text_atomically(path, format_csv(rows))


RESULTS, SCORES, CARD, TABLE = "results.json", "scores.csv", "model_card", "models"


def write_evaluation(
    folder: Path,
    results: Results,
    pictures: Sequence[ReportPicture],
    models: Sequence[Scored],
    console: Console | None = None,
) -> list[Path]:
    """Write the files of an evaluation: tables, scores.csv, a model card for each model, and the report.

    Args:
        folder: The folder that the files go to.
        results: The results.
        pictures: The pictures of the mistakes.
        models: The models with their scored frames.
        console: Where progress is shown; None for nowhere.

    Returns:
        The files of the report, the page first.

    Raises:
        UserError: Where the disk refuses.
    """
    write_text_atomically(folder / f"{TABLE}.md", render_markdown(results))
    write_text_atomically(folder / f"{TABLE}.csv", render_csv(results))
    write_scores(folder / SCORES, models)
    cards = [folder / name_card(results.models, number) for number in range(len(results.models))]
    for card, model in zip(cards, results.models, strict=True):
        write_text_atomically(card, render_model_card(results, model))
    report = write_report(folder, results, pictures, console)
    remove_earlier(folder, (f"{CARD}*.md", *FIGURE_FILES), [*cards, *report])
    return report


def name_card(models: Sequence[ModelResult], number: int) -> str:
    """Name a model's card: model_card.md, or model_card_2.md and so on where there are several models.

    Args:
        models: All models of the results.
        number: The number of the model, from 0.

    Returns:
        The file's name.
    """
    return f"{CARD}.md" if len(models) == 1 else f"{CARD}_{number + 1}.md"


def say_results(session: Session, results: Results, folder: Path) -> None:
    """Print the tables, the verdict, and where the files are.

    Args:
        session: The evaluation in progress, with its console.
        results: The results.
        folder: The folder of the files.
    """
    assert session.console is not None
    for table in render_tables(results):
        session.console.print(table)
    if results.bands:
        session.say("What the two-stage guide expects, and what was measured here:")
    for band in results.bands:
        session.say(f"  {band.what}: {band.expected}; here {band.measured}")
    say_summary(session, results)
    session.say(
        f"\nThe report: {folder / 'report.html'} (opens in any browser, without a network). Beside it: {RESULTS}, "
        f"{SCORES}, {TABLE}.csv, {CARD}*.md, figures/."
    )
