"""The command lines of evaluate_model.py and compare_models.py. Torch-free, so that a slip costs no seconds.

They are read in two passes: the first one finds the task, by `--task`, by a config of the user's own or by what the
models say of themselves; then that task's renderer reads the options that it knows. Every mistake is a `UserError` with
a remedy.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import struct
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sharpstudent.checkpoint.description import read_about
from sharpstudent.config.load import read_config_file
from sharpstudent.config.presets import DEFAULT_TASK
from sharpstudent.core.errors import Problem, UserError
from sharpstudent.registry import find_task
from sharpstudent.report.results import Role
from sharpstudent.task import Task

if TYPE_CHECKING:
    from sharpstudent.evaluation.renderer import Renderer

EVALUATE, COMPARE = "evaluate_model.py", "compare_models.py"
ROLES: dict[str, tuple[Role, str]] = {
    "--teacher": ("teacher", "the frozen teacher (FFc23.tar, a checkpoint, ...)"),
    "--before": ("before", "the student before distillation: a run of stage 1"),
    "--distilled": ("distilled", "the student after it: a run of stage 2"),
    "--control": ("control", "a student trained as many further steps on hard labels: tells what the teacher is worth"),
}
BEST = Path("weights") / "best_model.pth"  # in a run folder
_NAMED = re.compile(r"(?P<name>[^=/\\]+)=(?P<path>.+)")
_MOST_HEADER = 2**20  # bytes of the description in a .safetensors file


@dataclass(frozen=True)
class ModelRequest:
    """One model as it was named: NAME=PATH or PATH, a file or a run folder, and its role in a comparison.

    told: what the command line says of a file that does not say it itself; `config`: a file with the task's keys.
    """

    path: Path
    name: str | None = None
    role: Role = "model"
    told: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class DataRequest:
    """One data set as it was named, NAME=PATH or PATH; a task may take the name of a split for the path."""

    path: Path
    name: str | None = None


@dataclass(frozen=True)
class EvaluationRequest:
    """What an evaluation of any task is asked for.

    data: none of them means the validation data of the last model's own run; config: of the user, for the task's keys;
    title: of the report, None for one that counts the models; costs: whether parameters, time and memory are measured;
    rounds: of the bootstrap; out: a folder of its own, None for a new one under output/.
    """

    models: tuple[ModelRequest, ...]
    data: tuple[DataRequest, ...] = ()
    config: Path | None = None
    title: str | None = None
    costs: bool = False
    rounds: int = 1000
    device: str = "auto"
    workers: int = 2
    batch_size: int = 16
    out: Path | None = None


def parse_command_line(argv: Sequence[str], *, script: str) -> tuple[Renderer, EvaluationRequest]:
    """What is asked for (without the program's name), and what draws and reports for its task.

    Raises UserError; `--help` exits 0.
    """
    from sharpstudent.evaluation.renderer import load_renderer

    renderer = load_renderer(choose_task(argv))
    return renderer, renderer.parse(argv, script=script)


def choose_task(argv: Sequence[str]) -> type[Task]:
    """The class of the task that the command line is about: `--task`, else that of `--config`, else what the models say
    of themselves, else the default.

    Raises UserError for models of different tasks, and for a task that cannot be found. What a model file says is never
    imported by the name of a module: it names registered tasks only.
    """
    beside, named = [Path.cwd()], _find_value(argv, "--task")
    if named is not None:
        return find_task(named, beside=beside, trusted=True, where="--task")
    config = _find_value(argv, "--config")
    if config is not None:
        path = Path(config)
        keys = read_config_file(path)
        if isinstance(keys.get("task"), str):
            return find_task(keys["task"], beside=[path.parent, *beside], trusted=True, where=f"{path}: task")
    said = {str(path): task for path, task in map(_read_task, argv) if task is not None}
    if len(set(said.values())) > 1:
        raise UserError(
            Problem(
                "command line",
                "names models of different tasks, which have no figures in common",
                got="; ".join(f"{path}: {task}" for path, task in said.items()),
                remedy="compare models of one task",
            )
        )
    for path, task in said.items():
        return find_task(task, where=f"{path}: its task")
    return find_task(DEFAULT_TASK)


def _find_value(argv: Sequence[str], option: str) -> str | None:
    """The last value of an option, before it is known which others there are."""
    found = None
    for place, word in enumerate(argv):
        if word == "--":
            break
        if word.startswith(f"{option}="):
            found = word.partition("=")[2]
        elif word == option and place + 1 < len(argv):
            found = argv[place + 1]
    return found


def _read_task(word: str) -> tuple[Path, str | None]:
    """The task that a model says it is of; None for what is no model, or says nothing. Opens no tensors."""
    _, path = split_name(word)
    file = path / BEST if path.is_dir() else path
    try:
        about = _read_metadata(file) if file.suffix == ".safetensors" else read_about(file)
    except (OSError, ValueError, struct.error):
        return path, None
    task = about.get("task") if isinstance(about, Mapping) else None
    return path, task if isinstance(task, str) and task else None


def _read_metadata(file: Path) -> Any:
    """The description at the beginning of a .safetensors file."""
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        if length > _MOST_HEADER:
            return None
        return json.loads(opened.read(length)).get("__metadata__")


def split_name(word: str) -> tuple[str | None, Path]:
    """NAME=PATH in its parts; a path that is there with a = in it is meant as it stands."""
    found = _NAMED.fullmatch(word)
    if found is None or Path(word).exists():
        return None, Path(word)
    return found["name"], Path(found["path"])


class Parser(argparse.ArgumentParser):
    """Mistakes become a `UserError`, so that they look and exit like every other mistake."""

    def error(self, message: str) -> NoReturn:
        raise UserError(Problem("command line", message, remedy=f"python {self.prog} --help"))


def build_parser(script: str, usage: str, purpose: str, epilog: str) -> Parser:
    """A parser whose texts keep their lines."""
    return Parser(
        prog=script,
        usage=usage,
        description=purpose,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_models(parser: argparse.ArgumentParser, *, script: str) -> None:
    """MODEL, and the roles of a comparison."""
    if script == EVALUATE:
        parser.add_argument("models", metavar="MODEL", nargs="+", help="models to judge, see below")
        return
    parser.add_argument("models", metavar="MODEL", nargs="*", help="further models, see below")
    for option, (_, text) in ROLES.items():
        parser.add_argument(option, metavar="MODEL", help=text)


def read_models(read: Namespace, *, script: str) -> list[ModelRequest]:
    """The models in the order of their roles. Raises UserError for a comparison of fewer than two."""
    found: list[ModelRequest] = []
    for option, (role, _) in ROLES.items() if script == COMPARE else ():
        word: str | None = getattr(read, option.removeprefix("--"))
        if word is not None:
            found.append(_build_request(word, role))
    found += [_build_request(word, "model") for word in read.models]
    if script == COMPARE and len(found) < 2:
        raise UserError(
            Problem(
                "command line",
                "names fewer than two models: nothing can be compared",
                expected="two models or more, such as --before output/pretrain_... --distilled output/run_...",
                got="none" if not found else str(found[0].path),
                remedy=f"name another model, or judge one alone: python {EVALUATE} MODEL",
            )
        )
    return found


def _build_request(word: str, role: Role) -> ModelRequest:
    name, path = split_name(word)
    return ModelRequest(path, name, role)


def add_running_options(group: Any, *, script: str, unit: str) -> None:
    """Options of every task: costs, device, loader processes, batch, folder of the report, task."""
    add, default = group.add_argument, EvaluationRequest(())
    if script == COMPARE:
        add("--no-costs", dest="costs", action="store_false", help="leave out MACs, memory and latency")
    else:
        add("--costs", action="store_true", help="measure parameters, MACs, memory and latency too")
    add("--device", choices=("auto", "cpu", "cuda", "mps"), default=default.device, help="default: %(default)s")
    add("--workers", metavar="N", type=read_number(int, 0, 256), default=default.workers, help="loader processes")
    text = f"{unit}s at once"
    add("--batch-size", metavar="N", type=read_number(int, 1, 4096), default=default.batch_size, help=text)
    add("--out", metavar="FOLDER", type=Path, help="where the report goes (default: a new folder under output/)")
    text = "what the models were trained for, by name or as MODULE:CLASS (default: what they say)"
    add("--task", metavar="TASK", help=text)


def add_rounds(group: Any) -> None:
    """How often the bootstrap draws."""
    text = "bootstrap rounds of the intervals (%(default)s)"
    rounds = read_number(int, 10, 100_000)
    group.add_argument("--rounds", metavar="N", type=rounds, default=EvaluationRequest(()).rounds, help=text)


def read_running_options(read: Namespace) -> dict[str, Any]:
    """The fields of a request that the options of every task fill."""
    names = ("costs", "rounds", "device", "workers", "batch_size", "out")
    return {name: getattr(read, name) for name in names}


def read_number(
    kind: Callable[[str], float], low: float, high: float, *, open_ends: bool = False
) -> Callable[..., Any]:
    """A reader of numbers from `low` to `high`; open_ends: without these two."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (low < value < high if open_ends else low <= value <= high):
            noun = "a whole number" if kind is int else "a number"
            between = f"between {low:g} and {high:g}" if open_ends else f"from {low:g} to {high:g}"
            raise argparse.ArgumentTypeError(f"{text!r} is not {noun} {between}")
        return value

    return read


_EPILOG = """models and data:
  MODEL   a run folder, or a checkpoint of one (.pth, .safetensors); NAME=MODEL gives it the name that the report calls
          it by
  SET     the name of a split of the task's data, or a path that the task can open; NAME=SET gives it a name. Without
          --data: the validation data of the run that made the last model that has one

exit codes:
  0         done
  2         something must be mended first: the command, a file, the data, the disk
  130, 143  interrupted by Ctrl-C or SIGTERM; nothing half is left"""
_USAGES = {
    EVALUATE: f"python {EVALUATE} MODEL... [--data SET...] [options]",
    COMPARE: f"""python {COMPARE} --teacher MODEL --before MODEL --distilled MODEL [--control MODEL] [options]
       python {COMPARE} FIRST=output/RUN_A SECOND=output/RUN_B --data test""",
}
_PURPOSES = {
    EVALUATE: """Judge trained models: the metrics of their task with intervals over {groups}, as a report that opens
from disk, results.json and tables of what each model said.""",
    COMPARE: """Hold models against each other on the same samples: did distillation help, and is the student lighter
at all? The metrics of their task with cost, paired differences over {groups} and plain sentences.""",
}


def parse_request(argv: Sequence[str], *, script: str, task: type[Task]) -> EvaluationRequest:
    """Arguments of a task that has no options of its own. Raises UserError; `--help` exits 0."""
    purpose = _PURPOSES[script].format(groups=f"{task.group_unit}s")
    parser = build_parser(script, _USAGES[script], purpose, _EPILOG)
    add_models(parser, script=script)
    group = parser.add_argument_group("data")
    group.add_argument("--data", metavar="SET", nargs="+", action="extend", default=[], help="data sets, see below")
    text = "config with the task's keys, for the data and for models outside of a run folder (default: that of the run"
    text += " of the last model that has one)"
    group.add_argument("--config", metavar="CONFIG", type=Path, help=text)
    group = parser.add_argument_group("judging")
    add_rounds(group)
    group.add_argument("--name", metavar="TITLE", help="of the report")
    add_running_options(parser.add_argument_group("running"), script=script, unit="sample")
    read = parser.parse_args(list(argv))
    told = {} if read.config is None else {"config": str(read.config)}
    return EvaluationRequest(
        models=tuple(replace(model, told=told) for model in read_models(read, script=script)),
        data=tuple(DataRequest(path, name) for name, path in map(split_name, read.data)),
        config=read.config,
        title=read.name,
        **read_running_options(read),
    )
