"""The description of a run's checkpoints, and the end of each stage: totals, what to do next, and the report."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sharpstudent.checkpoint.selection import BEST_NAME
from sharpstudent.config.load import read_config_file, read_task_name
from sharpstudent.config.run_config import SCRIPTS, RunConfig, Stage, advise_teacher, find_run_name
from sharpstudent.core.errors import UserError
from sharpstudent.core.types import Table
from sharpstudent.deploy.familiar import store_run_reference
from sharpstudent.evaluation import run as evaluation
from sharpstudent.evaluation.command_line import ModelRequest
from sharpstudent.evaluation.evaluate import EvalResult
from sharpstudent.evaluation.renderer import FinishedRun, StageEnd, load_renderer
from sharpstudent.metrics.bootstrap import join_tables
from sharpstudent.metrics.checks import MetricError
from sharpstudent.models.teachers import name_teacher
from sharpstudent.report.console import format_duration
from sharpstudent.report.guide import DistillationSettings
from sharpstudent.report.results import Role
from sharpstudent.task import Task
from sharpstudent.train.build import TrainingData
from sharpstudent.train.preflight.run import TABLES_NAME
from sharpstudent.train.preflight.table_cache import load_tables
from sharpstudent.train.run import Run
from sharpstudent.train.state import FitResult
from sharpstudent.train.validate import PREFIX

REPORT_NAME = "report.html"
LARGEST_CONFIG = 100_000  # bytes: larger JSON files beside a config are data


def describe_checkpoint(config: RunConfig, task: Task, *, start: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Collect what a later program needs to rebuild the model, as JSON values.

    Args:
        config: The config of the run.
        task: The task; its facts are part of the description.
        start: The file of the trained model that the run starts from, with its sha256; None for a run without one, and
            for one that is resumed: its state keeps it.
    """
    facts, student = task.facts(), config.student.model_dump(mode="json")
    return {
        **facts,  # also at the top level, where earlier versions and other readers look for them
        "architecture": config.student.name,
        "dropout": config.student.dropout,
        **{name: value for name, value in student.items() if name in ("options", "tune")},  # where they are set
        "facts": facts,
        "task": config.task,
        "stage": config.stage,
        "run": config.name,
        "seed": config.seed,
        "selection_metric": f"{PREFIX}{config.training.selection_metric}",
        **({} if start is None else {"start": dict(start)}),
    }


def close_stage(run: Run, task: Task, data: TrainingData, result: FitResult | None) -> None:
    """End a stage: print its totals and what to do next, and write the report.

    After stage 1, the next step is the command of stage 2. After stage 2, the totals include the gain over stage 1 on
    the same validation data, with the guide's advice if it is small. The report is written last, so that its failure
    loses nothing else. A run that had no step left to take keeps its report. After that the folder is unlocked.

    Args:
        run: The run.
        task: Its task.
        data: Its samples.
        result: The result of the training; None after a dry run, which prints nothing.
    """
    if result is None:
        return
    _say_totals(run, result)
    checkpoint = run.weights_folder / BEST_NAME
    best, start = (
        {f"{PREFIX}{name}": value for name, value in metrics.items()} for metrics in (result.best_metrics, result.start)
    )
    end = StageEnd(
        stage=run.config.stage,
        metric=f"{PREFIX}{run.config.training.selection_metric}",
        value=result.best_value,
        best=best,
        start=start,
        checkpoint=str(checkpoint),
        control=_write_control(run.config, task),
        following=_say_what_follows(run, task, checkpoint) if run.config.stage == 1 else (),
        settings=_read_settings(run.config) if run.config.stage == 2 else None,
    )
    for line in load_renderer(task).describe_next(end):
        run.say(line)
    path = run.folder / REPORT_NAME
    if run.config.report and (result.epochs_done > 0 or not path.is_file()):
        run.say(f"report: {write_run_report(run, task, data)}")
        run.say(_store_reference(run, task, data))
    run.unlock_folder()


def _write_control(config: RunConfig, task: Task) -> str:
    """Write the terms of a control of stage 2, which leaves the teacher out, as JSON; "" in stage 1."""
    if config.stage == 1:
        return ""
    from sharpstudent.evaluation.arms import make_alone

    return json.dumps(make_alone(config, type(task)).keys["terms"])


def write_run_report(run: Run, task: Task, data: TrainingData) -> Path:
    """Evaluate RUN/weights/best_model.pth on the run's validation data and write the report into the run folder.

    In stage 2 the tables of its first student and of its teachers are those of the preflight; where they are gone, the
    report is about the best model alone.

    Args:
        run: The run.
        task: Whose renderer writes the report.
        data: The validation samples.

    Returns:
        The path of the page.

    Raises:
        UserError: Where the disk refuses.
        MetricError: Where a metric is undefined on the validation data.
    """
    finished = FinishedRun(
        config=run.config,
        folder=run.folder,
        checkpoint=run.weights_folder / BEST_NAME,
        metric=f"{PREFIX}{run.config.training.selection_metric}",
        data=data.validation,
        device=run.device,
        read_others=lambda own: _read_others(run, own),
        console=run.console,
    )
    return evaluation.write_run_report(load_renderer(task), finished)


def _store_reference(run: Run, task: Task, data: TrainingData) -> str:
    """Store what is ordinary for the best model, so that predict.py can say what is unlike it; return a line."""
    opened = load_renderer(task).open_model(ModelRequest(run.weights_folder / BEST_NAME), run.device)
    return store_run_reference(opened, task, data.validation, run.device, workers=run.config.num_workers)


def _read_others(run: Run, own: Table) -> list[EvalResult]:
    """Read the results of stage 2's first student and teachers; none if their tables do not have the rows of `own`."""
    config, path = run.config, run.logs_folder / TABLES_NAME
    if not path.is_file():  # stage 1, or a run begun by an earlier version
        return []
    try:
        kept = load_tables(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        run.say(f"report: {path} cannot be read ({type(error).__name__}: {error}); the best model stands alone")
        return []
    other: Role = "teacher" if len(config.teachers) == 1 else "model"
    names = ["student before", *(name_teacher(config, number) for number in range(1, len(config.teachers) + 1))]
    roles: list[Role] = ["before", *(other for _ in config.teachers)]
    try:
        kept = join_tables([own, *kept])[1:]
    except MetricError:
        kept = []
    if len(kept) != len(names):
        run.say(f"report: {path} is of other models or pictures; the best model stands alone")
        return []
    return [
        EvalResult(name, role, Path(section.weights or "none").name, None, section.name, (table,))
        for name, role, section, table in zip(names, roles, (config.student, *config.teachers), kept, strict=True)
    ]


def _say_what_follows(run: Run, task: Task, checkpoint: Path) -> tuple[str, ...]:
    """Say what comes after stage 1, with a command that can be pasted.

    A model that a config beside this one takes as its teacher teaches that config's student next. Otherwise a config
    that names a teacher goes on with stage 2. A run resumed without its CONFIG knows only the config's name; its own
    config.json has another form.
    """
    if run.config.student.weights is not None:
        return _say_forgetting(run)
    own = run.config_path or Path("configs") / f"{run.config.config_name}.json"
    words = [word for word in run.overrides if not word.startswith("stage1.")]
    of_the_data = [word for word in words if re.split(r"[.=]", word)[0] in type(task).Section.model_fields]
    try:
        keys = read_config_file(own)
    except UserError:
        return ("Next, stage 2: let the teacher help.", _write_command(2, "CONFIG", "run", words))
    keys |= {word.split("=", 1)[0]: word.split("=", 1)[1] for word in run.overrides if not word.endswith("=null")}
    configs = {own: keys, **_read_configs_beside(own, run.config.task)}
    for path, others in configs.items():
        if any(_matches(checkpoint, weights) for _, weights in _list_teachers(others)):
            return (f"This is the teacher that {path} names. Next, its student:", _start(path, others, of_the_data))
    if any(weights for _, weights in _list_teachers(keys)):
        if not _matches(checkpoint, keys.get("pretrained_student_weights")):
            words.append(f"pretrained_student_weights={checkpoint}")
        teachers = [_describe_teacher(weights) for _, weights in _list_teachers(keys) if isinstance(weights, str)]
        return ("Next, stage 2: let the teacher help.", _write_command(2, own, "run", words), *teachers)
    nothing = f"{own} names no teacher, so that there is no stage 2."
    for path, others in configs.items():
        if run.config.student.name in [name for name, _ in _list_teachers(others)]:
            words = [*of_the_data, f"teacher_weights={checkpoint}"]
            return (f"{nothing} This model can teach the student of {path}. Next:", _start(path, others, words))
    return (f"{nothing} Next, how good it is:", f"  python evaluate_model.py {shlex.quote(str(run.folder))}")


def _say_forgetting(run: Run) -> tuple[str, ...]:
    """Say how to see what a run that started from a trained model has learnt, and what it has forgotten."""
    models = (f"BEFORE={run.config.student.weights}", f"AFTER={run.folder}")
    command = f"  python compare_models.py {' '.join(map(shlex.quote, models))}"
    return (
        "Next, what it has learnt, on the validation data of this run:",
        command,
        "and what it has forgotten, on data like that which the start was made with:",
        f"{command} --data SET",
    )


def _read_configs_beside(own: Path, task: str) -> dict[Path, dict[str, Any]]:
    """Read the other configs of the same task in the folder of a config; files of another form are passed over."""
    found: dict[Path, dict[str, Any]] = {}
    for path in sorted(own.parent.glob("*.json")):
        with contextlib.suppress(UserError, OSError):
            if path != own and path.stat().st_size <= LARGEST_CONFIG:
                keys = read_config_file(path)
                if read_task_name(keys) == task:
                    found[path] = keys
    return found


def _list_teachers(keys: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """List architecture and weights of each teacher of a config; None for weights that it does not name."""
    several = keys.get("teachers")
    one = {"name": keys.get("teacher"), "weights": keys.get("teacher_weights")}
    teachers: list[Any] = several if isinstance(several, list) else [one]
    found: list[tuple[str, Any]] = []
    for teacher in teachers:
        if isinstance(teacher, Mapping):
            name = teacher.get("name")
            found.append((str(name.get("name") if isinstance(name, Mapping) else name), teacher.get("weights")))
    return found


def _describe_teacher(weights: str) -> str:
    """Say which file a teacher's weights are, or how to train it where there is none; stage 2 checks that it fits."""
    found = max(glob.glob(weights, recursive=True), key=os.path.getmtime, default=None)
    if found is not None:
        several = f", the newest that {weights} matches" if glob.has_magic(weights) else ""
        return f"     its teacher: {found}{several}"
    return f"     its teacher is not there yet: {advise_teacher(weights) or f'{weights} names it'}"


def _matches(checkpoint: Path, pattern: Any) -> bool:
    return isinstance(pattern, str) and bool(pattern) and checkpoint.match(pattern)


def _start(path: Path, keys: Mapping[str, Any], words: Sequence[str]) -> str:
    """Write the command of stage 1 of a config, under the name by which its stage 2 finds the run."""
    name = find_run_name(str(keys.get("pretrained_student_weights"))) or "student"
    return _write_command(1, path, name, words)


def _write_command(stage: Stage, config: Path | str, name: str, words: Sequence[str]) -> str:
    options = "".join(f" --set {shlex.quote(word)}" for word in words)
    return f"  python {SCRIPTS[stage]} {shlex.quote(str(config))} -n {name}{options}"


def _say_totals(run: Run, result: FitResult) -> None:
    best = f"best {PREFIX}{run.config.training.selection_metric} {result.best_value:.4f} in epoch {result.best_epoch}"
    ending = f"{best}; curves: {run.logs_folder / 'curves.png'}"
    if result.epochs_done == 0:
        run.say(f"nothing left to do: {result.stopped or 'all epochs of this run are done'}; {ending}")
    else:
        per_epoch = result.seconds / result.epochs_done
        epochs = f"{result.epochs_done} epoch{'s' if result.epochs_done > 1 else ''}"
        skipped = f", {result.skipped} step{'s' if result.skipped > 1 else ''} skipped" if result.skipped else ""
        run.say(
            f"{epochs} in {format_duration(result.seconds)} ({per_epoch:.1f} s an epoch, 100 would take "
            f"{format_duration(100 * per_epoch)}){skipped}; {ending}"
        )
    if result.stopped is not None:
        command = f"python {SCRIPTS[run.config.stage]} --resume {shlex.quote(str(run.folder))} --set patience=null"
        again = "" if result.epochs_done == 0 else f"{result.stopped}; "
        run.say(f"{again}to train the epochs that are left all the same: {command}")


def _read_settings(config: RunConfig) -> DistillationSettings | None:
    """Read the settings that the guide's advice changes; None if the loss is not written in the guide's keys."""
    terms = {term.term: term for term in config.criterion}
    hard, kd = terms.get("hard"), terms.get("kd")
    if hard is None or kd is None or len(config.criterion) != 2 or not kd.weight.complement:
        return None
    alpha, temperature = [*hard.weight.numbers.values()], kd.numbers["temperature"].numbers.get("value")
    if hard.weight.kind in ("ramp", "table") or temperature is None:
        return None
    epochs = getattr(hard.weight, "epochs", None)
    return DistillationSettings(alpha[0], alpha[-1], epochs, temperature, config.training.epochs)
