"""Open all that an evaluation was asked for, and refuse what cannot be; temperature and thresholds of each model.

Temperature and thresholds of each model: what its checkpoint has stored, or what other validation data gives.

Open everything that an evaluation was asked for, and refuse what cannot be, before anything is judged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import torch
from pydantic import ValidationError
from rich.console import Console

from sharpstudent.checkpoint.store import SUFFIX, export_model, load_checkpoint, save_checkpoint
from sharpstudent.core.errors import Problem, ProblemList, UserError
from sharpstudent.evaluation.evaluate import Judged, JudgedModel, JudgedSet
from sharpstudent.evaluation.load_model import ModelSpec, OpenedModel, open_model
from sharpstudent.evaluation.model_files import read_selection
from sharpstudent.metrics.aggregation import Aggregation
from sharpstudent.metrics.checks import MetricError
from sharpstudent.metrics.figures import FPRS
from sharpstudent.report.results import CalibrationResult
from sharpstudent.tasks.deepfake.evaluation.command_line import DataChoices, DataWish, EvaluationRequest, ModelWish
from sharpstudent.tasks.deepfake.evaluation.datasets import FacesSet, SetRequest, find_kind, open_sets
from sharpstudent.tasks.deepfake.evaluation.output import check_folder
from sharpstudent.tasks.deepfake.evaluation.robustness import choose_disturbances
from sharpstudent.tasks.deepfake.evaluation.run_validation import open_last_validation
from sharpstudent.tasks.deepfake.task import DeepfakeTask
from sharpstudent.train.run import choose_device
from sharpstudent.train.validate import calibrate_on_validation

KEY = "calibration"  # in a checkpoint's description


def read_calibration(opened: OpenedModel) -> CalibrationResult | None:
    """As the model's own file says; None where it says none. Raises UserError for one that cannot be understood."""
    stored = opened.about.get(KEY)
    if stored is None:
        return None
    try:
        return CalibrationResult.model_validate(stored)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            Problem(
                where=f"{opened.path}: {KEY}",
                what="cannot be understood: it is not what this version writes",
                got=f"{'.'.join(map(str, first['loc'])) or KEY}: {first['msg']}",
                remedy="choose it anew: evaluate_model.py MODEL --validation SET --store",
            )
        ) from None


def choose_calibrations(judged: Judged, *, fprs: Sequence[float]) -> list[CalibrationResult]:
    """Of each model, on the sets of `judged`; fprs: wanted shares of false alarms, besides 1 % and 0.1 %.

    Raises UserError where these sets cannot tell: one class only, no face.
    """
    named = ", ".join(data.name for data in judged.data)
    return [_choose(model, named, sorted({*FPRS, *fprs}, reverse=True)) for model in judged.models]


def _choose(model: JudgedModel, named: str, fprs: Sequence[float]) -> CalibrationResult:
    try:
        return calibrate_on_validation(model.frames, where=named, fprs=fprs)
    except MetricError as error:
        raise UserError(
            Problem(
                f"--validation: {named}",
                "cannot choose temperature and thresholds",
                got=str(error),
                remedy="give a set with real and fake faces",
            )
        ) from None


def check_storable(models: Sequence[OpenedModel]) -> None:
    """Raise UserError for models whose files have no place for thresholds, before anything is judged."""
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
    """Write them into the checkpoints, and into the .safetensors beside those; atomically, the tensors as they were."""
    for opened, calibration in zip(models, calibrations, strict=True):
        checkpoint = load_checkpoint(opened.path)
        about = {**checkpoint.about, KEY: calibration.model_dump(mode="json")}
        save_checkpoint(opened.path, checkpoint.tensors, about=about)
        say(f"stored in {opened.path}: temperature {calibration.temperature:.4g} and thresholds")
        exported = opened.path.with_suffix(SUFFIX)
        if exported.is_file():
            export_model(opened.path, read_selection(about))
            say(f"and in {exported.name}")


@dataclass(frozen=True)
class Opened:
    """Everything that was asked for, open and checked, before anything is judged."""

    models: tuple[OpenedModel, ...]
    sets: tuple[JudgedSet, ...]
    validation: tuple[JudgedSet, ...]
    device: torch.device


def open_all(request: EvaluationRequest, console: Console, say: Callable[[str], None]) -> Opened:
    """Models, data and the folder to write to; all problems are raised together."""
    cv2.setNumThreads(1)  # a loader process that is forked beside OpenCV's threads hangs
    problems = ProblemList()
    device = choose_device(request.device, remedy="--device auto")
    models: list[OpenedModel] = []
    for wish in request.models:
        try:
            models.append(open_model(_build_spec(wish), classes=DeepfakeTask.classes, device=device))
        except UserError as error:
            problems.take(error)
    try:
        _check_names(models)
        if request.store:
            check_storable(models)
        _check_rules(request.rules)
        if request.robustness is not None:
            choose_disturbances(request.robustness, lambda _: None)
        check_folder(request.out)
    except UserError as error:
        problems.take(error)
    for opened in models:
        for note in opened.notes:
            say(f"{opened.name}: {note}")
    problems.raise_if_any()  # cutting the faces of videos takes long: first everything else must be right
    size = max(opened.image_size for opened in models)
    sets = _open_sets(request.data, request, size, console, say)
    sets = sets or [open_last_validation([wish.path for wish in request.models])]
    validation = _open_sets(request.validation, request, size, console, say, is_validation=True)
    _check_apart(sets, validation)
    return Opened(tuple(models), tuple(sets), tuple(validation), device)


def _build_spec(wish: ModelWish) -> ModelSpec:
    return ModelSpec(
        path=wish.path,
        name=wish.name,
        architecture=wish.architecture,
        image_size=wish.image_size,
        classes=wish.classes,
        mean=wish.mean,
        std=wish.std,
    )


def _check_rules(names: Sequence[str]) -> None:
    for name in names:
        try:
            Aggregation(name)
        except MetricError as error:
            raise UserError(Problem("--video-rules", str(error), got=name, remedy="choose among these")) from None


def _check_names(models: Sequence[OpenedModel]) -> None:
    names = [opened.name for opened in models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        files = ", ".join(str(opened.path) for opened in models if opened.name in twice)
        raise UserError(
            Problem(
                "command line",
                f"two models would be called {' and '.join(twice)}",
                got=files,
                remedy="give them names: NAME=MODEL",
            )
        )


def _open_sets(
    wishes: Sequence[DataWish],
    request: EvaluationRequest,
    image_size: int,
    console: Console,
    say: Callable[[str], None],
    *,
    is_validation: bool = False,
) -> list[JudgedSet]:
    if not wishes:
        return []
    choices = request.choices
    asked = [
        SetRequest(
            path=wish.path,
            name=wish.name,
            split="val" if is_validation and choices.split == "test" else choices.split,
            crops=choices.crops,
            layout=choices.layout,
            label=choices.label,
            faces=choices.faces,
            frames=choices.frames,
            min_face=choices.min_face,
            workers=max(1, request.workers),
            image_size=image_size,
        )
        for wish in wishes
    ]
    _check_choices(asked)
    return [FacesSet(found) for found in open_sets(asked, say=say, console=console)]


def _check_choices(asked: Sequence[SetRequest]) -> None:
    """Raise UserError for an option that none of these sets has a use for: it would be ignored without a word."""
    kinds = {find_kind(request) for request in asked if request.path.exists()}
    one, default = asked[0], DataChoices()
    wanted: list[tuple[str, object, set[str], str]] = [
        ("--layout", one.layout, {"folder"}, "folders of whole pictures or videos"),
        ("--label", one.label, {"folder"}, "folders of whole pictures or videos"),
        ("--split", None if one.split in (default.split, "val") else one.split, {"manifest"}, "prepared sets"),
        ("--faces", None if one.faces == default.faces else one.faces, {"folder", "manifest"}, "whole frames"),
    ]
    problems = [
        Problem(
            option,
            f"has no meaning here: it is for {what}",
            got=f"sets of the kind: {', '.join(sorted(kinds))}",
            remedy="leave it out",
        )
        for option, value, of, what in wanted
        if value is not None and kinds and not kinds & of
    ]
    if problems:
        raise UserError(*problems)


def _check_apart(sets: Sequence[JudgedSet], validation: Sequence[JudgedSet]) -> None:
    """Thresholds that were chosen on the data that they are judged on would say nothing."""
    known = {judged.faces.about.fingerprint: judged.name for judged in sets if isinstance(judged, FacesSet)}
    for judged in validation:
        if isinstance(judged, FacesSet) and judged.faces.about.fingerprint in known:
            raise UserError(
                Problem(
                    f"--validation {judged.name}",
                    f"holds the very faces of --data {known[judged.faces.about.fingerprint]}",
                    expected="other people: thresholds are chosen on one set and judged on another",
                    remedy="give another set, or another --split",
                )
            )
