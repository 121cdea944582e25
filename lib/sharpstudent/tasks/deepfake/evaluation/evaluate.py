"""evaluate_model.py and compare_models.py: open, judge, hold against each other, write the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from sharpstudent.deploy.cost import measure_costs
from sharpstudent.deploy.mistakes import HeatMaps, find_mistakes
from sharpstudent.evaluation.evaluate import Judged, JudgedSet, judge_models
from sharpstudent.evaluation.load_model import OpenedModel
from sharpstudent.report.console import format_duration
from sharpstudent.report.html import ReportPicture
from sharpstudent.report.results import CalibrationResult, CostResult, DisturbanceCurve, MistakeResult
from sharpstudent.tasks.deepfake.evaluation.assemble import Parts, assemble
from sharpstudent.tasks.deepfake.evaluation.command_line import EvaluationRequest
from sharpstudent.tasks.deepfake.evaluation.datasets import FacesSet
from sharpstudent.tasks.deepfake.evaluation.opening import (
    Opened,
    choose_calibrations,
    open_all,
    read_calibration,
    store_calibrations,
)
from sharpstudent.tasks.deepfake.evaluation.output import make_out_folder, say_results, write_evaluation
from sharpstudent.tasks.deepfake.evaluation.robustness import measure_robustness


def run_evaluation(request: EvaluationRequest, console: Console) -> Path:
    """Do what was asked; returns the folder with the report. Writes nothing before all models have been judged.

    Raises UserError for what the user can mend, with all problems of models and sets together.
    """

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    begun = time.monotonic()
    opened = open_all(request, console, say)
    judge = partial(
        judge_models,
        opened.models,
        device=opened.device,
        num_workers=request.workers,
        batch_size=request.batch_size,
        say=say,
    )
    calibrations = _calibrate(request, opened, judge)
    judged = judge(opened.sets)
    mistakes, pictures = _find_mistakes(request, opened, judged, say)
    parts = Parts(
        request=request,
        judged=judged,
        calibrations=calibrations,
        costs=_measure_costs(request, opened, say),
        robustness=_measure_robustness(request, opened, say),
        mistakes=mistakes,
    )
    results = assemble(parts)
    folder = make_out_folder(request.out)
    write_evaluation(folder, results, pictures, judged)
    if request.store:
        store_calibrations(opened.models, [one for one in calibrations if one is not None], say)
    say_results(results, folder, console)
    say(f"all of it took {format_duration(time.monotonic() - begun)}")
    return folder


def _calibrate(
    request: EvaluationRequest, opened: Opened, judge: Callable[[Sequence[JudgedSet]], Judged]
) -> list[CalibrationResult | None]:
    if not opened.validation:
        return [read_calibration(model) for model in opened.models]
    return list(choose_calibrations(judge(opened.validation), fprs=request.fprs))


def _measure_costs(request: EvaluationRequest, opened: Opened, say: Callable[[str], None]) -> list[CostResult | None]:
    if not request.costs:
        return [None for _ in opened.models]
    say("measuring parameters, MACs, memory and latency ...")
    return [*measure_costs(opened.models, device=opened.device)]


def _measure_robustness(
    request: EvaluationRequest, opened: Opened, say: Callable[[str], None]
) -> dict[str, tuple[DisturbanceCurve, ...]]:
    faces = [judged.faces for judged in opened.sets if isinstance(judged, FacesSet)]
    if request.robustness is None:
        return {}
    if not faces:
        say("robustness: not measured; it needs --data with faces of both classes")
        return {}
    found: dict[str, tuple[DisturbanceCurve, ...]] = {}
    for size in sorted({model.image_size for model in opened.models}):
        found |= measure_robustness(
            [(model.name, model.model) for model in opened.models if model.image_size == size],
            faces,
            image_size=size,
            num_workers=request.workers,
            device=opened.device,
            names=request.robustness or None,
            most_faces=request.robustness_faces,
            say=say,
        )
    return found


def _find_mistakes(
    request: EvaluationRequest, opened: Opened, judged: Judged, say: Callable[[str], None]
) -> tuple[list[MistakeResult], list[ReportPicture]]:
    mistakes: list[MistakeResult] = []
    pictures: list[ReportPicture] = []
    for model in judged.models:
        of_model, shown = find_mistakes(
            model,
            opened.sets,
            judged.unreadable,
            first_picture=len(pictures),
            heat_maps=_open_heat_maps(model.opened, say) if request.heat_maps else None,
        )
        mistakes += of_model
        pictures += shown
    return mistakes, pictures


def _open_heat_maps(opened: OpenedModel, say: Callable[[str], None]) -> HeatMaps | None:
    from sharpstudent.deploy.heat_map import compute_heat_maps, explain_no_heat_maps

    reason = explain_no_heat_maps(opened.model, image_size=opened.image_size)
    if reason is not None:
        say(f"{opened.name}: no heat maps: {reason}")
        return None
    return compute_heat_maps
