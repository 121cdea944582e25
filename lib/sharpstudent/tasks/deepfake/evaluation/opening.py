"""Open the data that an evaluation of detectors was asked for, and refuse what cannot be, before anything is judged."""

from __future__ import annotations

from collections.abc import Sequence

from sharpstudent.core.errors import Problem, UserError
from sharpstudent.evaluation.command_line import DataRequest
from sharpstudent.evaluation.renderer import Session
from sharpstudent.metrics.checks import MetricError
from sharpstudent.tasks.deepfake.evaluation.calibration import check_storable
from sharpstudent.tasks.deepfake.evaluation.command_line import DataChoices, FaceRequest
from sharpstudent.tasks.deepfake.evaluation.datasets import FacesSet, find_kind, open_sets
from sharpstudent.tasks.deepfake.evaluation.frames import Aggregation
from sharpstudent.tasks.deepfake.evaluation.robustness import choose_disturbances
from sharpstudent.tasks.deepfake.evaluation.run_validation import ValidationSet, open_last_validation
from sharpstudent.tasks.deepfake.evaluation.set_request import SetRequest


def check_request(session: Session) -> None:
    """Raise UserError for options that cannot be met by what was opened."""
    request = session.request
    assert isinstance(request, FaceRequest)
    if request.store:
        check_storable(session.models)
    _check_rules(request.rules)
    if request.robustness is not None:
        choose_disturbances(request.robustness, lambda _: None)


def open_data(session: Session) -> tuple[list[FacesSet | ValidationSet], list[FacesSet]]:
    """The sets to judge on, and those to choose thresholds on. Raises UserError for what cannot be used."""
    request = session.request
    assert isinstance(request, FaceRequest)
    size = max(opened.input_key for opened in session.models if isinstance(opened.input_key, int))
    sets: list[FacesSet | ValidationSet] = [*_open_sets(request.data, session, size)]
    sets = sets or [open_last_validation([model.path for model in request.models])]
    validation = _open_sets(request.validation, session, size, is_validation=True)
    _check_apart(sets, validation)
    return sets, validation


def _check_rules(names: Sequence[str]) -> None:
    for name in names:
        try:
            Aggregation(name)
        except MetricError as error:
            raise UserError(Problem("--video-rules", str(error), got=name, remedy="choose among these")) from None


def _open_sets(
    wanted: Sequence[DataRequest], session: Session, image_size: int, *, is_validation: bool = False
) -> list[FacesSet]:
    if not wanted:
        return []
    request = session.request
    assert isinstance(request, FaceRequest)
    choices = request.choices
    asked = [
        SetRequest(
            path=one.path,
            name=one.name,
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
        for one in wanted
    ]
    _check_choices(asked)
    return [FacesSet(found) for found in open_sets(asked, say=session.say, console=session.console)]


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


def _check_apart(sets: Sequence[FacesSet | ValidationSet], validation: Sequence[FacesSet]) -> None:
    """Thresholds that were chosen on the data that they are judged on would say nothing."""
    known = {judged.faces.about.fingerprint: judged.name for judged in sets if isinstance(judged, FacesSet)}
    for judged in validation:
        if judged.faces.about.fingerprint in known:
            raise UserError(
                Problem(
                    f"--validation {judged.name}",
                    f"holds the very faces of --data {known[judged.faces.about.fingerprint]}",
                    expected="other people: thresholds are chosen on one set and judged on another",
                    remedy="give another set, or another --split",
                )
            )
