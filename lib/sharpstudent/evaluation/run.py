"""evaluate_model.py, compare_models.py and the report at the end of a run: open, evaluate, compare, write."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from sharpstudent.config.load import read_config_file
from sharpstudent.config.stored import STORED_NAME
from sharpstudent.core.errors import Problem, ProblemList, UserError
from sharpstudent.core.io import check_writable, make_folder, make_new_folder
from sharpstudent.evaluation.command_line import EvaluationRequest, ModelRequest
from sharpstudent.evaluation.cost import measure_costs
from sharpstudent.evaluation.evaluate import EvalResult, Evaluation, ModelRecord
from sharpstudent.evaluation.model_files import read_selection_metric
from sharpstudent.evaluation.opened import OpenedModel, choose_device
from sharpstudent.evaluation.renderer import FinishedRun, Heading, KeptModel, Measured, Renderer, Session
from sharpstudent.evaluation.tables import find_run_folder
from sharpstudent.report.console import format_duration
from sharpstudent.report.curves import read_training
from sharpstudent.report.environment import describe_environment, hide_home, hide_homes
from sharpstudent.report.results import TrainingResult

ROOT = Path("output")
RESULTS = "results.json"
ALL_PAIRS = 4  # up to so many models without roles, each is held against each; of more, each against the first


def run_evaluation(renderer: Renderer, request: EvaluationRequest, console: Console) -> Path:
    """Do what was asked; returns the folder with the report. Writes nothing before all models have been evaluated.

    Raises UserError for what the user can mend, with all problems of models and sets together.
    """
    begun = time.monotonic()
    session = _open(renderer, request, console)
    roles = [model.role for model in request.models]
    subject = session.models[_find_subject(roles)]
    heading = _build_heading(
        title=request.title or _choose_title(session.models),
        pairs=list_pairs(roles),
        training=_read_history(subject, next(iter(renderer.task.metrics))),
        config=_read_run_config(subject),
        notes=tuple(f"{opened.name}: {note}" for opened in session.models for note in opened.notes),
    )
    results, evaluation, measured = _report(renderer, session, heading)
    folder = _make_out_folder(request.out)
    renderer.write(folder, results, evaluation, measured, run=None)
    renderer.store(session, measured)
    renderer.say_results(session, results, folder)
    session.say(f"all of it took {format_duration(time.monotonic() - begun)}")
    return folder


def write_run_report(renderer: Renderer, run: FinishedRun) -> Path:
    """Evaluate the best model of a run on the run's validation data and write the report into its folder; returns it.

    Raises UserError where the disk refuses, MetricError where the validation data has no figures.
    """
    config = run.config
    request = renderer.default_request(
        (ModelRequest(run.checkpoint, config.name, "distilled" if config.stage == 2 else "model"),),
        workers=config.num_workers,
    )
    opened = renderer.open_model(request.models[0], run.device)
    session = Session(request, run.device, (opened,), run=run)
    session = replace(session, sets=(renderer.open_run_data(run),))
    metrics = run.folder / "logs" / "metrics.csv"
    heading = _build_heading(
        title=f"Stage {config.stage}: {config.name}",
        pairs=(),
        training=read_training(metrics, best_epoch=opened.about.get("epoch"), metric=run.metric),
        config=config.model_dump(mode="json"),
        notes=(),
    )
    results, evaluation, measured = _report(renderer, session, heading)
    return renderer.write(run.folder, results, evaluation, measured, run=run)[0]


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


def _report(renderer: Renderer, session: Session, heading: Heading) -> tuple[Any, Evaluation, Measured]:
    """What both an evaluation and the end of a run come to: everything found, as results."""
    calibrations = renderer.calibrate(session)
    evaluation = session.evaluate(session.sets)
    mistakes, pictures = renderer.find_mistakes(session, evaluation)
    measured = Measured(
        calibrations=calibrations,
        costs=_measure_costs(session),
        mistakes=mistakes,
        pictures=pictures,
        robustness=renderer.measure_robustness(session),
    )
    if session.run is not None:
        own = evaluation.models[0].tables[0]
        others = [_to_result(kept) for kept in session.run.read_others(own)]
        evaluation = replace(evaluation, models=(*evaluation.models, *others))
        heading = replace(heading, pairs=[(0, number) for number in range(1, len(evaluation.models))])
    return renderer.build_results(session, evaluation, measured, heading), evaluation, measured


def _to_result(kept: KeptModel) -> EvalResult:
    record = ModelRecord(kept.name, kept.role, kept.file, sha256=None, architecture=kept.architecture)
    return EvalResult(record, (kept.table,))


def _open(renderer: Renderer, request: EvaluationRequest, console: Console) -> Session:
    """Models, data and the folder to write to; all problems are raised together."""
    problems = ProblemList()
    device = choose_device(request.device, remedy="--device auto")
    models: list[OpenedModel] = []
    for wanted in request.models:
        try:
            models.append(renderer.open_model(wanted, device))
        except UserError as error:
            problems.take(error)
    session = Session(request, device, tuple(models), console=console)
    try:
        _check_names(models)
        renderer.check(session)
        _check_folder(request.out)
    except UserError as error:
        problems.take(error)
    for opened in models:
        for note in opened.notes:
            session.say(f"{opened.name}: {note}")
    problems.raise_if_any()  # opening data may take long: first everything else must be right
    return replace(session, sets=tuple(renderer.open_sets(session)))


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


def _check_folder(wanted: Path | None) -> None:
    """Raise UserError where a report cannot go: a file, a folder of other things, one that cannot be written to."""
    if wanted is not None and wanted.exists() and not wanted.is_dir():
        raise UserError(Problem(f"--out {wanted}", "is a file", expected="a folder", remedy="choose another name"))
    if wanted is not None and wanted.is_dir() and any(wanted.iterdir()) and not (wanted / RESULTS).is_file():
        raise UserError(
            Problem(
                f"--out {wanted}",
                "holds other things: a report is not written among them",
                expected="a new or empty folder, or one with an earlier evaluation",
                remedy="choose another folder",
            )
        )
    check_writable(ROOT if wanted is None else wanted, f"--out {ROOT if wanted is None else wanted}")


def _make_out_folder(wanted: Path | None) -> Path:
    """The folder of the report: `wanted`, or a new one under output/."""
    if wanted is None:
        return make_new_folder(ROOT / f"evaluation_{datetime.now():%m_%d_%H_%M_%S}")
    make_folder(wanted)
    return wanted


def _measure_costs(session: Session) -> list[Any]:
    if not session.request.costs:
        return [None for _ in session.models]
    session.say("measuring parameters, MACs, memory and latency ...")
    return [*measure_costs(session.models, device=session.device)]


def _find_subject(roles: Sequence[str]) -> int:
    """The model that the report is about."""
    if "distilled" in roles:
        return roles.index("distilled")
    return len(roles) - 1 if any(role != "model" for role in roles) else 0


def _choose_title(models: Sequence[OpenedModel]) -> str:
    return f"Evaluation of {models[0].name}" if len(models) == 1 else f"Comparison of {len(models)} models"


def _build_heading(
    *,
    title: str,
    pairs: Sequence[tuple[int, int]],
    training: TrainingResult | None,
    config: Any,
    notes: tuple[str, ...],
) -> Heading:
    return Heading(
        title=title,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        command=shlex.join(hide_home(sys.argv)),
        pairs=pairs,
        training=training,
        config=hide_homes(config),
        environment=describe_environment(),
        notes=notes,
    )


def _read_history(opened: OpenedModel, default: str) -> TrainingResult | None:
    """metrics.csv of the run that the model lies in; None for a file elsewhere. default: metric of the task."""
    folder = find_run_folder(opened.path)
    if folder is None:
        return None
    metric = read_selection_metric(opened.about, default=f"val_{default}")
    return read_training(folder / "logs" / "metrics.csv", best_epoch=opened.about.get("epoch"), metric=metric)


def _read_run_config(opened: OpenedModel) -> dict[str, Any] | None:
    """The resolved config of the run that the model lies in, as it is on disk."""
    folder = find_run_folder(opened.path)
    return None if folder is None else read_config_file(folder / STORED_NAME)
