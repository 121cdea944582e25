"""Open everything that an evaluation was asked for, and refuse what cannot be, before anything is judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import torch
from rich.console import Console

from lib.engine.judging import JudgedSet
from lib.engine.open_model import ModelSpec, OpenedModel, open_model
from lib.engine.run import choose_device
from lib.errors import Problem, ProblemList, UserError
from lib.metrics.aggregation import Aggregation
from lib.metrics.checks import MetricError
from lib.tasks.deepfake.evaluation.calibrations import check_storable
from lib.tasks.deepfake.evaluation.datasets import SetRequest, find_kind, open_sets
from lib.tasks.deepfake.evaluation.faces_set import FacesSet
from lib.tasks.deepfake.evaluation.output import check_folder
from lib.tasks.deepfake.evaluation.robustness_choice import choose_disturbances
from lib.tasks.deepfake.evaluation.run_validation import open_last_validation
from lib.tasks.deepfake.evaluation.wishes import DataChoices, DataWish, EvaluationRequest, ModelWish
from lib.tasks.deepfake.task import DeepfakeTask


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
