"""The command lines of evaluate_model.py and compare_models.py. Importing this loads no torch.

They are read in two passes. The first one finds the task: by `--task`, by the user's config, or by what the model files
say. Then the renderer of that task reads its own options. Every mistake is a `UserError` with a remedy.
"""

from __future__ import annotations

import re
import struct
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpstudent.config.load import read_config_file
from sharpstudent.config.presets import DEFAULT_TASK
from sharpstudent.core.archive import BEST, read_about
from sharpstudent.core.arguments import EXIT_CODES, SHARED, Parser, add_option, fill, read_number, read_path
from sharpstudent.core.errors import UserError
from sharpstudent.core.files import open_plain, parse_json
from sharpstudent.core.onnx_file import read_onnx_metadata, read_program_metadata, read_xml_metadata
from sharpstudent.core.shipped import find_shipped
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
    "--control": ("control", "a student trained as many further steps on hard labels: shows what the teacher adds"),
}  # each may be given several times: runs that differ in their seed alone
_NAMED = re.compile(r"(?P<name>[^=/\\]+)=(?P<path>.+)")
_MOST_HEADER = 2**20  # bytes; a longer header of a .safetensors file is not read


@dataclass(frozen=True)
class ModelRequest:
    """One model as the user names it.

    Attributes:
        path: The model's file, or a run folder.
        name: The model's name in reports; None to derive it from the path.
        role: The model's role in a comparison.
        options: What the command line says about a file that does not describe itself. `config` is a file with the
            task's keys.
    """

    path: Path
    name: str | None = None
    role: Role = "model"
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class DataRequest:
    """One data set as the user names it.

    Attributes:
        path: The path of the data; a task may take it for the name of a split.
        name: The data set's name in reports; None to derive it from the path.
    """

    path: Path
    name: str | None = None


@dataclass(frozen=True)
class EvaluationRequest:
    """The request for an evaluation, of any task.

    Attributes:
        models: The models to evaluate.
        data: The data sets to evaluate on; empty for the validation data of the last model's own run.
        config: A config file of the user's with the task's keys.
        title: The title of the report; None for a default that counts the models.
        costs: Whether parameters, time and memory are measured.
        rounds: How many resamples the bootstrap draws.
        by: The columns by whose values metrics or errors are reported.
        by_table: The table that holds these columns; None where --by is not given, or the data has them.
        device: The value of `--device`, such as `auto`.
        workers: How many loader processes run.
        batch_size: How many samples form a batch.
        out: The folder of the report; None for a new one under output/.
    """

    models: tuple[ModelRequest, ...]
    data: tuple[DataRequest, ...] = ()
    config: Path | None = None
    title: str | None = None
    costs: bool = False
    rounds: int = 1000
    by: tuple[str, ...] = ()
    by_table: Path | None = None
    device: str = "auto"
    workers: int = 2
    batch_size: int = 16
    out: Path | None = None


def parse_command_line(argv: Sequence[str], *, script: str) -> tuple[Renderer, EvaluationRequest]:
    """Read the command line of a script.

    Args:
        argv: The arguments, without the program's name.
        script: EVALUATE or COMPARE.

    Returns:
        The renderer of the task, and the request.

    Raises:
        UserError: For every mistake.
        SystemExit: With 0, after `--help`.
    """
    from sharpstudent.evaluation.renderer import load_renderer

    renderer = load_renderer(choose_task(argv))
    return renderer, renderer.parse(argv, script=script)


def choose_task(argv: Sequence[str]) -> type[Task]:
    """Find the class of the task that a command line is about.

    `--task` comes first, then the task of `--config`, then the one that the model files name, then the default. A model
    file may name registered tasks only: a module that it names is never imported. Raises UserError for models of
    different tasks, and for a task that cannot be found.
    """
    parser = Parser("", "", add_help=False)
    parser.add_argument("--task")
    parser.add_argument("--config", type=read_path)
    named, words = parser.parse_known_args(list(argv))
    beside = [Path.cwd()]
    if named.task is not None:
        return find_task(named.task, beside=beside, trusted=True, where="--task")
    if named.config is not None:
        keys = read_config_file(named.config)
        if isinstance(keys.get("task"), str):
            folders = [named.config.parent, *beside]
            return find_task(keys["task"], beside=folders, trusted=True, where=f"{named.config}: task")
    said = {str(path): task for path, task in map(_read_task, words) if task is not None}
    if len(set(said.values())) > 1:
        what = "names models of different tasks, which have no metrics in common"
        got = "; ".join(f"{path}: {task}" for path, task in said.items())
        raise UserError.about("command line", what, got=got, remedy="compare models of one task")
    for path, task in said.items():
        return find_task(task, where=f"{path}: its task")
    return find_task(DEFAULT_TASK)


def _read_task(word: str) -> tuple[Path, str | None]:
    """Read the path of a model and the task that its file names; None where the file is no model or names no task."""
    _, path = split_model(word)
    file = path / BEST if path.is_dir() else path
    try:
        about = _READERS.get(file.suffix, read_about)(file)
    except (OSError, ValueError, AttributeError, struct.error):
        return path, None
    task = about.get("task") if isinstance(about, Mapping) else None
    return path, task if isinstance(task, str) and task else None


def _read_metadata(file: Path) -> Any:
    """Read the description at the beginning of a .safetensors file; None where it is too long to be one."""
    with open_plain(file) as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        if length > _MOST_HEADER:
            return None
        return parse_json(opened.read(length)).get("__metadata__")


_READERS: Mapping[str, Callable[[Path], Any]] = {
    ".safetensors": _read_metadata,
    ".onnx": read_onnx_metadata,
    ".xml": read_xml_metadata,
    ".pte": read_program_metadata,
}


def split_model(word: str) -> tuple[str | None, Path]:
    """Split NAME=MODEL into name and path; MODEL may be the name of a model that comes with the package.

    Args:
        word: What the user wrote.

    Returns:
        The name, or None; and the path.

    Raises:
        UserError: For a shipped model whose file is damaged.
    """
    name, path = split_name(word)
    return name, find_shipped(str(path)) or path


def split_name(word: str) -> tuple[str | None, Path]:
    """Split NAME=PATH into name and path. A path that exists is taken whole, even with a "=" in it."""
    found = _NAMED.fullmatch(word)
    if found is None or Path(word).exists():
        return None, read_path(word)
    return found["name"], read_path(found["path"])


def _add_models(group: Any, *, script: str) -> None:
    """Add the argument MODEL and, for a comparison, an option for each role."""
    if script == EVALUATE:
        group.add_argument("models", metavar="MODEL", nargs="+", help="models to evaluate, see below")
        return
    group.add_argument("models", metavar="MODEL", nargs="*", help="further models, see below")
    for option, (_, text) in ROLES.items():
        group.add_argument(option, metavar="MODEL", action="append", default=[], help=text)


def read_models(read: Namespace, *, script: str) -> list[ModelRequest]:
    """Collect the models: those with a role first, in the order of ROLES.

    Args:
        read: The parsed options.
        script: EVALUATE or COMPARE.

    Returns:
        The models.

    Raises:
        UserError: For a comparison of fewer than two, and for roles with different numbers of seeds.
    """
    found: list[ModelRequest] = []
    counts: dict[str, int] = {}
    for option, (role, _) in ROLES.items() if script == COMPARE else ():
        words: list[str] = getattr(read, option.removeprefix("--"))
        found += [_build_request(word, role) for word in words]
        counts[option] = len(words)
    several = {option: count for option, count in counts.items() if count > 1}
    if len(set(several.values())) > 1:
        raise UserError.about(
            "command line",
            "names different numbers of seeds",
            expected="as many runs of each model that has several",
            got=", ".join(f"{count} of {option}" for option, count in several.items()),
            remedy="give each of these options as often as the others, or once",
        )
    found += [_build_request(word, "model") for word in read.models]
    if script == COMPARE and len(found) < 2:
        raise UserError.about(
            "command line",
            "names fewer than two models: nothing can be compared",
            expected="two models or more, such as --before output/pretrain_... --distilled output/run_...",
            got=str(found[0].path) if found else "none",
            remedy=f"name another model, or evaluate one alone: python {EVALUATE} MODEL",
        )
    return found


def _build_request(word: str, role: Role) -> ModelRequest:
    name, path = split_model(word)
    return ModelRequest(path, name, role)


def build_parser(script: str, purpose: str, more: str, *, data: str) -> Parser:
    """Make the parser of a script, with its models.

    Args:
        script: EVALUATE or COMPARE.
        purpose: What the script does, for `--help`.
        more: The text below the options in `--help`.
        data: The data set that the examples name.

    Returns:
        The parser.
    """
    examples = {
        EVALUATE: (f"{EVALUATE} output/RUN", f"{EVALUATE} output/RUN --data {data}"),
        COMPARE: (
            f"{COMPARE} --teacher MODEL --before MODEL --distilled MODEL --control MODEL",
            f"{COMPARE} FIRST=output/RUN_A SECOND=output/RUN_B --data {data}",
        ),
    }
    also = f"; train arms: python {COMPARE} ablate --help" if script == COMPARE else ""
    usage = f"python {script} MODEL... [--data SET...] [options]{also}"
    parser = Parser(script, purpose, usage=usage, more=f"{more}\n{EXIT_CODES}", examples=examples[script])
    _add_models(parser.add_argument_group("models"), script=script)
    return parser


def add_running_options(group: Any, *, script: str, unit: str) -> None:
    """Add the options of every task: costs, device, loader processes, batch, folder of the report, task.

    Args:
        group: The group of options that they are added to.
        script: EVALUATE or COMPARE.
        unit: What the task calls a row.
    """
    add, default = group.add_argument, EvaluationRequest(())
    if script == COMPARE:
        add("--no-costs", dest="costs", action="store_false", help="leave out MACs, memory and latency")
    else:
        add("--costs", action="store_true", help="measure parameters, MACs, memory and latency too")
    add_option(group, SHARED, "--device")
    number = read_number(int, 0, 256)
    add_option(group, SHARED, "--workers", type=number, default=default.workers, help="loader processes")
    number, text = read_number(int, 1, 4096), f"{unit}s at once"
    add("--batch-size", metavar="N", type=number, default=default.batch_size, help=text)
    add("--out", metavar="FOLDER", type=read_path, help="where the report goes (default: a new folder under output/)")
    text = "task of the models, by name or as MODULE:CLASS (default: as their files say)"
    add_option(group, SHARED, "--task", help=text)


def add_rounds(group: Any) -> None:
    """Add the option for the number of bootstrap rounds."""
    text = "bootstrap rounds of the intervals (%(default)s)"
    rounds = read_number(int, 10, 100_000)
    group.add_argument("--rounds", metavar="N", type=rounds, default=EvaluationRequest(()).rounds, help=text)


def add_by(group: Any, *, what: str, keys: str, default: str) -> None:
    """Add the options for columns by whose values a model is reported.

    Args:
        group: The group of options that they are added to.
        what: What is reported by them.
        keys: What the lines of a table may name.
        default: Where the columns are taken from without a table.
    """
    text = f"{what} by the values of these columns, such as sex,age"
    group.add_argument("--by", metavar="COLUMN", nargs="+", default=[], help=text)
    text = f"CSV with them by {keys} (default: {default})"
    group.add_argument("--by-table", metavar="CSV", type=read_path, help=text)


def read_by(read: Namespace) -> tuple[str, ...]:
    """Read the columns of --by, which are separated by commas or spaces; each is taken once.

    Raises UserError for --by-table without --by.
    """
    names = tuple(dict.fromkeys(name.strip() for word in read.by for name in word.split(",") if name.strip()))
    if read.by_table is not None and not names:
        raise UserError.about("--by-table", "names a table, and --by no column of it", remedy="add --by COLUMN")
    return names


def add_data(group: Any) -> None:
    """Add the option that names the data sets."""
    group.add_argument("--data", metavar="SET", nargs="+", action="extend", default=[], help="data sets, see below")


def build_data_requests(words: Sequence[str]) -> tuple[DataRequest, ...]:
    """Build the requests for data sets from words of the form [NAME=]PATH."""
    return tuple(DataRequest(path, name) for name, path in map(split_name, words))


_MORE = """models and data:
  MODEL   a run folder, or a checkpoint of one (.pth, .safetensors); NAME=MODEL sets its name in the report
  SET     the name of a split of the task's data, or a path that the task can open; NAME=SET sets its name in
          the report. Default: the validation data of the last model's run"""
_PURPOSES = {
    EVALUATE: """Evaluate trained models: the metrics of their task with intervals over {groups}, as a report that opens
from disk, results.json and tables of each model's outputs.""",
    COMPARE: """Compare models on the same samples: did distillation help, and is the student lighter at all? The
metrics of their task with cost, paired differences over {groups} and plain sentences.""",
}


def parse_request(argv: Sequence[str], *, script: str, task: type[Task]) -> EvaluationRequest:
    """Read the arguments of a task that has no options of its own.

    Args:
        argv: The arguments, without the program's name.
        script: EVALUATE or COMPARE.
        task: The class of the task.

    Returns:
        The request.

    Raises:
        UserError: For every mistake.
        SystemExit: With 0, after `--help`.
    """
    purpose = _PURPOSES[script].format(groups=f"{task.group_unit}s")
    parser = build_parser(script, purpose, _MORE, data="test")
    group = parser.add_argument_group("data")
    add_data(group)
    text = "config with the task's keys, for the data and for models outside of a run folder (default: that of the last"
    group.add_argument("--config", metavar="CONFIG", type=read_path, help=text + " model's run)")
    group = parser.add_argument_group("evaluation")
    add_rounds(group)
    keys = f"{task.unit} or {task.group_unit}, as in tables.csv"
    add_by(group, what="metrics also", keys=keys, default="those of tables.csv")
    group.add_argument("--name", dest="title", metavar="TITLE", help="title of the report")
    add_running_options(parser.add_argument_group("running"), script=script, unit="sample")
    read = parser.read(argv)
    options = {} if read.config is None else {"config": str(read.config)}
    models = tuple(replace(model, options=options) for model in read_models(read, script=script))
    return fill(EvaluationRequest, read, models=models, data=build_data_requests(read.data), by=read_by(read))
