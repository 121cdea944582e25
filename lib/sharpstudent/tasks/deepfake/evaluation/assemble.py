"""Put together what was measured.

What a run folder tells of a model's training: its epochs and its config.

The width of the student's family that is lighter than the teacher, for a verdict on a student that is not.

Put together what was measured: `Results`, as the report, the JSON and the console tell it.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sharpstudent.config.load import read_config_file
from sharpstudent.config.stored import STORED_NAME
from sharpstudent.core.errors import Problem, UserError
from sharpstudent.evaluation.evaluate import Judged, JudgedModel
from sharpstudent.evaluation.load_model import OpenedModel
from sharpstudent.evaluation.model_files import read_selection_metric, read_trained, read_validation
from sharpstudent.metrics.aggregation import Aggregation
from sharpstudent.metrics.checks import MetricError
from sharpstudent.metrics.tables import ScoredFrames
from sharpstudent.models.widths import Lighter, find_lighter_width, is_clearly_less
from sharpstudent.report.build import (
    LEVEL,
    PAIRED_ROUNDS,
    SEED,
    build_comparisons,
    build_drawings,
    build_figures,
    choose_rules,
)
from sharpstudent.report.comparison import list_bands
from sharpstudent.report.environment import describe_environment, hide_home, hide_homes
from sharpstudent.report.results import (
    CalibrationResult,
    ComparisonResult,
    CostResult,
    DisturbanceCurve,
    MistakeResult,
    ModelResult,
    Results,
    TrainingResult,
)
from sharpstudent.report.training import read_training
from sharpstudent.report.verdict.write import write_headed_verdict
from sharpstudent.tasks.deepfake.evaluation.command_line import EvaluationRequest
from sharpstudent.tasks.deepfake.evaluation.run_validation import find_run_folder


def read_history(opened: OpenedModel) -> TrainingResult | None:
    """metrics.csv of the run that the model lies in; None for a file elsewhere."""
    folder = find_run_folder(opened.path)
    if folder is None:
        return None
    metric = read_selection_metric(opened.about)
    return read_training(folder / "logs" / "metrics.csv", best_epoch=opened.about.get("epoch"), metric=metric)


def read_run_config(opened: OpenedModel) -> dict[str, Any] | None:
    """The resolved config of the run that the model lies in, as it is on disk."""
    folder = find_run_folder(opened.path)
    return None if folder is None else read_config_file(folder / STORED_NAME)


def find_lighter(results: Results) -> Lighter | None:
    """None where there is no such pair, where the student is lighter already, and where no width of its family is."""
    by_role = {model.role: model for model in reversed(results.models)}
    student, teacher = by_role.get("distilled") or by_role.get("before"), by_role.get("teacher")
    if student is None or teacher is None or student.architecture is None or student.image_size is None:
        return None
    own, other = _count(student), _count(teacher)
    if own is None or other is None or all(map(is_clearly_less, own, other)):
        return None
    return find_lighter_width(
        student.architecture, image_size=student.image_size, below_parameters=other[0], below_macs=other[1]
    )


def _count(model: ModelResult) -> tuple[int, int] | None:
    """Parameters and MACs."""
    cost = model.cost
    return None if cost is None or cost.parameters is None or cost.macs is None else (cost.parameters, cost.macs)


ALL_PAIRS = 4  # up to so many models without roles, each is held against each; of more, each against the first


@dataclass(frozen=True)
class Parts:
    """What was measured of the models, in the order of the request; robustness by the models' names."""

    request: EvaluationRequest
    judged: Judged
    calibrations: Sequence[CalibrationResult | None]
    costs: Sequence[CostResult | None]
    robustness: Mapping[str, tuple[DisturbanceCurve, ...]]
    mistakes: Sequence[MistakeResult]


def assemble(parts: Parts) -> Results:
    """Figures, pictures' points, comparisons and the verdict. Raises UserError for data that has no figures."""
    request, judged = parts.request, parts.judged
    try:
        models = tuple(_describe_model(parts, number) for number in range(len(judged.models)))
        comparisons = _compare(parts)
    except MetricError as error:
        named = ", ".join(data.name for data in judged.data)
        raise UserError(
            Problem(f"--data: {named}", "has no figures", got=str(error), remedy="give real and fake faces, each once")
        ) from None
    # Training is told of the model that the report is about.
    subject = judged.models[_find_subject(request)].opened
    config = read_run_config(subject)
    results = Results(
        title=_choose_title(models, request),
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        command=shlex.join(hide_home(sys.argv)),
        verdict=(),
        protocol=_describe_protocol(parts),
        data=judged.data,
        models=models,
        comparisons=comparisons,
        mistakes=tuple(parts.mistakes),
        training=read_history(subject),
        bands=list_bands(models, is_guides_data=_is_guides_data(config)) if _is_compared(request) else (),
        config=hide_homes(config),
        environment=describe_environment(),
        notes=tuple(f"{model.opened.name}: {note}" for model in judged.models for note in model.opened.notes),
    )
    return results.model_copy(update={"verdict": write_headed_verdict(results, lighter=find_lighter(results))})


def _describe_model(parts: Parts, number: int) -> ModelResult:
    model, calibration = parts.judged.models[number], parts.calibrations[number]
    opened = model.opened
    notes = () if calibration is not None else ("no temperature and thresholds are stored with it: --validation SET",)
    return ModelResult(
        name=opened.name,
        role=parts.request.models[number].role,
        file=opened.path.name,
        sha256=opened.sha256,
        architecture=opened.architecture,
        image_size=opened.image_size,
        trained=read_trained(opened.about),
        validation=read_validation(opened.about),
        figures=build_figures(
            model.frames,
            calibration=calibration,
            rules=[Aggregation(name) for name in parts.request.rules],
            rounds=parts.request.rounds,
        ),
        drawings=build_drawings(model.frames),
        calibration=calibration,
        cost=parts.costs[number],
        robustness=parts.robustness.get(opened.name, ()),
        notes=notes,
    )


def _compare(parts: Parts) -> tuple[ComparisonResult, ...]:
    models = parts.judged.models
    return tuple(
        found
        for a, b in list_pairs([wish.role for wish in parts.request.models])
        for found in build_comparisons(_name(models[a]), _name(models[b]))
    )


def _name(model: JudgedModel) -> tuple[str, ScoredFrames]:
    return model.opened.name, model.frames


def list_pairs(roles: Sequence[str]) -> list[tuple[int, int]]:
    """Which models are held against which, by number, first minus second: those of the two-stage comparison, in the
    order of what they tell, then every further model against the first of all.
    """
    place = {role: number for number, role in enumerate(roles) if role != "model"}
    wanted = (
        ("distilled", "control"),
        ("distilled", "before"),
        ("control", "before"),
        ("distilled", "teacher"),
        ("before", "teacher"),
    )
    pairs = [(place[a], place[b]) for a, b in wanted if a in place and b in place]
    others = [number for number, role in enumerate(roles) if role == "model"]
    if not place and len(others) <= ALL_PAIRS:
        return [(b, a) for a in others for b in others if b > a]
    return pairs + [(number, 0) for number in others if number != 0]


def _find_subject(request: EvaluationRequest) -> int:
    roles = [wish.role for wish in request.models]
    return roles.index("distilled") if "distilled" in roles else len(roles) - 1 if _is_compared(request) else 0


def _is_compared(request: EvaluationRequest) -> bool:
    return any(wish.role != "model" for wish in request.models)


def _is_guides_data(config: Mapping[str, Any] | None) -> bool:
    """Whether a run was made with what the guide's figures speak of: FaceForensics++ at 380 px."""
    section = (config or {}).get("task_section", {})
    return (section.get("data_source"), section.get("image_size")) == ("ffpp", 380)


def _choose_title(models: Sequence[ModelResult], request: EvaluationRequest) -> str:
    if len(models) == 1:
        return f"Evaluation of {models[0].name}"
    return f"Comparison of {len(models)} models"


def _describe_protocol(parts: Parts) -> dict[str, str]:
    request, frames = parts.request, parts.judged.models[0].frames
    rules = choose_rules(frames)
    return {
        "samples": "frames and videos, told apart in every figure's name"
        if rules
        else "frames; every clip is a single picture, so figures of videos would be the same",
        "videos": f"scored by {', '.join(request.rules)} of their frames (top10: mean of the highest 10 %)"
        if rules
        else "none",
        "faces": "; ".join(dict.fromkeys(data.faces_rule for data in parts.judged.data)),
        "no decision": "frames without a face are counted, and are part of no figure",
        "intervals": f"{LEVEL:.0%}, percentile bootstrap over people (clips where people are not known), "
        f"{request.rounds} rounds, seed {SEED}",
        "comparisons": f"paired bootstrap over people, {PAIRED_ROUNDS} rounds: both models see the same drawn people",
        "thresholds": _tell_thresholds(parts),
        "checkpoints": "chosen on the validation data of their own runs"
        + ("" if any(data.kind == "validation" for data in parts.judged.data) else ", never on the data judged here"),
        "preprocessing": "; ".join(dict.fromkeys(_PREPROCESSING[data.kind] for data in parts.judged.data)),
    }


_CUT = "each face is cut with 12.5 % around its box and resized to the network's input; no augmentation"
_PREPROCESSING = {
    "manifest": _CUT,
    "folder": _CUT,
    "crops": "each picture is one face, resized to the network's input as a whole; no augmentation",
    "validation": "as in the run's own validation: the same faces, blends and sizes in every epoch",
}


def _tell_thresholds(parts: Parts) -> str:
    known = {one.fitted_on for one in parts.calibrations if one is not None}
    if not known:
        return "a probability of one half only: no thresholds are stored with these models"
    return "a probability of one half, and thresholds chosen on: " + "; ".join(sorted(known))
