"""Temperature and thresholds of each model: what its checkpoint has stored, or what other validation data gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import ValidationError

from lib.checkpoint.export import SUFFIX, export_model
from lib.checkpoint.store import load_checkpoint, save_checkpoint
from lib.engine.checkpoint_about import read_selection
from lib.engine.judging import Judged, JudgedModel
from lib.engine.open_model import OpenedModel
from lib.engine.validation_calibration import calibrate_on_validation
from lib.errors import Problem, UserError
from lib.metrics.checks import MetricError
from lib.metrics.figure_list import FPRS
from lib.report.results import CalibrationResult

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
