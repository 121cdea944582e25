"""Runs an evaluation: opens models and data, evaluates, compares, writes a report.

evaluate_model.py, compare_models.py and the end of a training run call it.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from sharpstudent.config.load import read_config_file
from sharpstudent.config.stored import STORED_NAME
from sharpstudent.core.errors import ProblemList, UserError
from sharpstudent.core.io import (
    LOCK_NAME,
    check_writable,
    list_foreign,
    lock_folder,
    make_folder,
    make_new_folder,
    remove_stray_temporaries,
    write_text_atomically,
)
from sharpstudent.core.naming import PathHider
from sharpstudent.evaluation.command_line import EvaluationRequest, ModelRequest
from sharpstudent.evaluation.cost import count_measurements, measure_costs
from sharpstudent.evaluation.evaluate import Evaluation, Heading, Pair, evaluate_models
from sharpstudent.evaluation.model_files import read_selection_metric
from sharpstudent.evaluation.opened import OpenedModel, choose_device
from sharpstudent.evaluation.renderer import FinishedRun, Measurements, Renderer, Session
from sharpstudent.evaluation.tables import find_run_folder
from sharpstudent.models.weights import compute_weights_hash
from sharpstudent.report.console import format_duration
from sharpstudent.report.curves import read_training
from sharpstudent.report.results import ResultsBase, TrainingResult

ROOT = Path("output")
RESULTS = "results.json"
MARK = ".unfinished"  # in a folder that a report is being written to, until it has its results.json
ALL_PAIRS = 4  # up to this many models without roles, every pair is compared; above it, each one with the first


def run_evaluation(renderer: Renderer, request: EvaluationRequest, console: Console) -> Path:
    """Evaluate the models of a request and write a report; no file of it is written before all have been evaluated.

    Args:
        renderer: The task's renderer.
        request: The command line.
        console: The console for lines and tables.

    Returns:
        The folder with the report.

    Raises:
        UserError: For what the user can correct, with all problems of models and sets together.
    """
    begun = time.monotonic()
    renderer.console = console
    session = _open(renderer, request, console)
    with reserve_folder(request.out, session.say):
        folder = _evaluate_session(renderer, session)
    session.say(f"the evaluation took {format_duration(time.monotonic() - begun)}")
    return folder


def _evaluate_session(renderer: Renderer, session: Session) -> Path:
    """Open the data, evaluate the models on it, and write the report."""
    session = replace(session, sets=tuple(renderer.open_sets(session)))
    request = session.request
    names = [opened.name for opened in session.models]
    title = f"Evaluation of {names[0]}" if len(names) == 1 else f"Comparison of {len(names)} models"
    subject = session.models[_find_subject([model.role for model in request.models])]
    training, config = _read_run(subject, next(iter(renderer.task.metrics)))
    notes = tuple(f"{opened.name}: {note}" for opened in session.models for note in opened.notes)
    heading = Heading(request.title or title, training, config, notes)
    results, evaluation, measured = _report(renderer, session, heading)
    folder = request.out or make_new_folder(ROOT / f"evaluation_{datetime.now():%m_%d_%H_%M_%S}")
    renderer.write(folder, results, evaluation, measured, run=None)
    renderer.store(session, measured)
    renderer.say_results(session, results, folder)
    return folder


def write_run_report(renderer: Renderer, run: FinishedRun) -> Path:
    """Evaluate the best model of a run on the run's validation data and write the report into its folder.

    Args:
        renderer: The task's renderer.
        run: The run that has ended.

    Returns:
        The page.

    Raises:
        UserError: Where the disk refuses.
        MetricError: Where the validation data has no metrics.
    """
    config = run.config
    role = "distilled" if config.stage == 2 else "model"
    request = renderer.default_request((ModelRequest(run.checkpoint, config.name, role),), workers=config.num_workers)
    opened = renderer.open_model(request.models[0], run.device)
    renderer.console = run.console
    session = Session(request, run.device, (opened,), (renderer.open_run_data(run),), console=run.console, run=run)
    metrics = run.folder / "logs" / "metrics.csv"
    training = read_training(metrics, best_epoch=opened.about.get("epoch"), metric=run.metric)
    heading = Heading(f"Stage {config.stage}: {config.name}", training, _hide_config(config.model_dump(mode="json")))
    results, evaluation, measured = _report(renderer, session, heading)
    return renderer.write(run.folder, results, evaluation, measured, run=run)[0]


def list_pairs(roles: Sequence[str]) -> list[Pair]:
    """List which models are compared, by number, first minus second. Models of one role are seeds of one model.

    The pairs of the two-stage comparison come first, the most important one before the others; then every further
    model is compared with the first of all.
    """
    place = {
        role: tuple(number for number, other in enumerate(roles) if other == role) for role in roles if role != "model"
    }
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
        return [((b,), (a,)) for a in others for b in others if b > a]
    return pairs + [((number,), (0,)) for number in others if number != 0]


def _report(renderer: Renderer, session: Session, heading: Heading) -> tuple[Any, Evaluation, Measurements]:
    """Evaluate and measure, and build the results: the common part of an evaluation and of the end of a run."""
    calibrations = renderer.calibrate(session)
    evaluation = evaluate_models(session, session.sets)
    mistakes, pictures = renderer.find_mistakes(session, evaluation)
    measured = Measurements(
        calibrations=calibrations,
        costs=_measure_costs(session),
        mistakes=mistakes,
        pictures=pictures,
        robustness=renderer.measure_robustness(session),
    )
    pairs = list_pairs([model.role for model in evaluation.models])
    if session.run is not None:
        models = (*evaluation.models, *session.run.read_others(evaluation.models[0].tables[0]))
        evaluation = replace(evaluation, models=models)
        pairs = [((0,), (number,)) for number in range(1, len(models))]
    evaluation = replace(evaluation, pairs=pairs)
    results = renderer.build_results(session, evaluation, measured, heading)
    return _hide_paths(results, session), evaluation, measured


def _hide_paths(results: ResultsBase, session: Session) -> ResultsBase:
    """Shorten the absolute paths in results, of which every file of a report is made that may be passed on."""
    config = {} if session.run is None else session.run.config.model_dump(mode="json")
    folder = "" if session.run is None else str(session.run.folder.absolute())
    hider = PathHider(config, sys.argv, folder)
    return type(results).model_validate(hider.within(results.model_dump(mode="json", by_alias=True)))


def _open(renderer: Renderer, request: EvaluationRequest, console: Console) -> Session:
    """Open the models, and check the request and the folder to write to; all problems are raised together.

    The data is opened later, because that may take long.
    """
    problems = ProblemList()
    device = choose_device(request.device, remedy="--device auto")
    models: list[OpenedModel] = []
    for wanted in request.models:
        try:
            models.append(renderer.open_model(wanted, device))
        except UserError as error:
            problems.take(error)
    models = note_equal_weights(models)
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
    problems.raise_if_any()
    return session


def note_equal_weights(models: Sequence[OpenedModel]) -> list[OpenedModel]:
    """Add a note to each model with the same weights as an earlier one: a comparison of the two means nothing.

    Weights that read inputs of another form, such as several views of each picture, are another model.
    """
    first: dict[tuple[str, Hashable], str] = {}
    noted: list[OpenedModel] = []
    for opened in models:
        digest = compute_weights_hash(opened.model) if opened.model.state_dict() else opened.sha256
        key = (digest, opened.input_key)
        if key in first:
            note = f"its weights are those of {first[key]} to the last bit: this is one model, named twice"
            opened = replace(opened, notes=(*opened.notes, note))
        first.setdefault(key, opened.name)
        noted.append(opened)
    return noted


def _check_names(models: Sequence[OpenedModel]) -> None:
    names = [opened.name for opened in models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        files = ", ".join(str(opened.path) for opened in models if opened.name in twice)
        raise UserError.about(
            "command line",
            f"two models would be called {' and '.join(twice)}",
            got=files,
            remedy="give them names: NAME=MODEL",
        )


def _check_folder(wanted: Path | None) -> None:
    """Raise UserError if a report cannot go there: a file, a folder with other content, one without write access."""
    if wanted is not None and wanted.exists() and not wanted.is_dir():
        raise UserError.about(f"--out {wanted}", "is a file", expected="a folder", remedy="choose another name")
    is_ours = wanted is not None and any((wanted / name).is_file() for name in (RESULTS, MARK))
    if wanted is not None and wanted.is_dir() and not is_ours and list_foreign(wanted):
        raise UserError.about(
            f"--out {wanted}",
            "holds other things: a report is not written among them",
            expected="a new or empty folder, or one with an earlier evaluation",
            remedy="choose another folder",
        )
    check_writable(ROOT if wanted is None else wanted, f"--out {ROOT if wanted is None else wanted}")


@contextlib.contextmanager
def reserve_folder(wanted: Path | None, say: Callable[[str], None]) -> Generator[None]:
    """Keep other commands out of a report's folder, and mark it, so that a command that is stopped can be repeated.

    The mark stands until the report is whole, which `results.json` then shows. After an error before the first file of
    the report, the folder is as it was.

    Args:
        wanted: The folder; None where the report gets a new one of its own.
        say: Prints a line.

    Raises:
        UserError: If another process writes there, or if the disk refuses.
    """
    if wanted is None:
        yield
        return
    is_new = not wanted.exists()
    make_folder(wanted)
    lock = lock_folder(wanted, say, doing="written")
    remove_stray_temporaries(wanted)
    if not (wanted / RESULTS).is_file():
        write_text_atomically(wanted / MARK, "")
    try:
        yield
        (wanted / MARK).unlink(missing_ok=True)
    finally:
        if lock is not None:
            lock.release()
        if is_new and not set(list_foreign(wanted)) - {MARK}:
            for name in (MARK, LOCK_NAME):
                (wanted / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # another command has begun to write here at this moment
                wanted.rmdir()


def _measure_costs(session: Session) -> list[Any]:
    if not session.request.costs:
        return [None for _ in session.models]
    session.say("measuring parameters, MACs, memory and latency ...")
    with session.progress("cost", count_measurements(session.models), "measurement") as progress:
        return [*measure_costs(session.models, device=session.device, tick=progress.add)]


def _find_subject(roles: Sequence[str]) -> int:
    """Find the model that the report is about."""
    if "distilled" in roles:
        return roles.index("distilled")
    return len(roles) - 1 if any(role != "model" for role in roles) else 0


def _read_run(opened: OpenedModel, default: str) -> tuple[TrainingResult | None, dict[str, Any] | None]:
    """Read metrics.csv and the resolved config of the run that the model lies in; None for a file elsewhere.

    default: The metric that selected its epoch, where the checkpoint does not say.
    """
    folder = find_run_folder(opened.path)
    if folder is None:
        return None, None
    metric = read_selection_metric(opened.about, default=f"val_{default}")
    training = read_training(folder / "logs" / "metrics.csv", best_epoch=opened.about.get("epoch"), metric=metric)
    return training, _hide_config(read_config_file(folder / STORED_NAME))


def _hide_config(config: dict[str, Any]) -> dict[str, Any]:
    return PathHider(config).within(config, words=True)
