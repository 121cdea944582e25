"""The command line of both training scripts: which config and task, which name, which changes, and what is only looked
at. Every mistake is a `UserError` with a remedy.
"""

from __future__ import annotations

import argparse
import difflib
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from sharpstudent.config.describe import print_resolved
from sharpstudent.config.keys import FileKeys
from sharpstudent.config.load import (
    apply_overrides,
    drop_overridden,
    read_config_file,
    read_task_name,
    validate_keys,
)
from sharpstudent.config.messages import show
from sharpstudent.config.resolve import check_allow, check_name, describe_choices, resolve
from sharpstudent.config.run_config import ALLOWANCES, SCRIPTS, FindTask, RunConfig, Stage, TaskKind
from sharpstudent.config.stored import (
    AUTO,
    FREE_KEYS,
    STORED_NAME,
    compare_configs,
    find_own_run,
    find_run,
    load_run_config,
    only_task,
    take_free,
)
from sharpstudent.core.errors import Problem, ProblemList, UserError

PURPOSE: dict[Stage, str] = {
    1: "Stage 1: train a model on hard labels, with SAM. Makes the student's starting point, or a teacher.",
    2: "Stage 2: distil a frozen teacher into the student of stage 1, with SAM.",
}
EXAMPLE: dict[Stage, str] = {
    1: "python train_student_only.py configs/config_SBI.json -n pretrain_mobilevit",
    2: "python main_distillation.py configs/config_SBI.json -n distill_mobilevit",
}
EXIT_CODES = """exit codes:
  0         the run is complete
  2         something must be mended first: the command, the config, the data, the weights, the disk; mostly nothing was
            trained yet, and what a run had saved is intact
  3         training stopped itself (non-finite steps in a row, or a non-finite score); the last good state is saved
  130, 143  interrupted by Ctrl-C or SIGTERM; the state is saved and --resume goes on from it
  141       nobody reads the output any more, as in `... | head`; what a run had saved is intact

relaunched by a scheduler: the same command each time, with --resume auto. It goes on with its own run (the newest of
this -n, CONFIG and stage under output_root whose config does not differ), starts one where there is none, and exits 0
when the run is complete. Whatever a kill leaves, no run is trained by two processes."""


@dataclass(frozen=True)
class Options:
    """The command line, word by word."""

    config_path: Path | None
    name: str | None
    overrides: tuple[str, ...]
    allow: tuple[str, ...]
    resume: str | None
    replay: Path | None
    print_config: bool
    dry_run: bool
    list_layers: bool = False
    task: str | None = None


class _Parser(argparse.ArgumentParser):
    """Mistakes become a `UserError`, so that they look and exit like every other mistake."""

    def error(self, message: str) -> NoReturn:
        raise UserError(Problem("command line", message, remedy=f"python {self.prog} --help"))


def parse_options(
    argv: Sequence[str], stage: Stage, list_own_keys: Callable[[Options], Sequence[str]] = lambda options: ()
) -> Options:
    """The options of one script. list_own_keys: the keys of the task that the command names, which the user may have
    meant by an unknown option.
    """
    parser = _build_parser(stage)
    read, rest = parser.parse_known_args(list(argv))
    options = Options(
        config_path=None if read.config is None else Path(read.config),
        name=read.name,
        overrides=tuple(read.overrides),
        allow=tuple(read.allow),
        resume=read.resume,
        replay=None if read.replay is None else Path(read.replay),
        print_config=read.print_config,
        dry_run=read.dry_run,
        list_layers=read.list_layers,
        task=read.task,
    )
    if rest:
        known_keys = [*FileKeys.model_fields, *list_own_keys(options)]
        raise UserError(*(_explain_unknown(word, parser, known_keys) for word in _pick_unknown(rest)))
    if options.replay is not None:
        _refuse_beside_replay(options, options.replay, stage)
        return options
    if options.resume == AUTO:
        _refuse_half_an_auto(options, stage)
    if options.name is None and not (
        options.print_config or options.list_layers or options.dry_run or options.resume is not None
    ):
        raise UserError(Problem("-n/--name", "is missing: the run needs a name", remedy=EXAMPLE[stage]))
    return options


def _refuse_beside_replay(options: Options, file: Path, stage: Stage) -> None:
    """A replay takes everything from the run that kept the step; `--set` may move it to another device."""
    asked = {
        "CONFIG": options.config_path,
        "-n/--name": options.name,
        "--resume": options.resume,
        "--allow": options.allow or None,
        "--print-config": options.print_config or None,
        "--dry-run": options.dry_run or None,
        "--list-layers": options.list_layers or None,
    }
    given = [word for word, value in asked.items() if value is not None]
    if given:
        raise UserError(
            Problem(
                "--replay",
                f"cannot be combined with {', '.join(given)}: the run that kept the step says everything",
                remedy=f"python {SCRIPTS[stage]} --replay {shlex.quote(str(file))}",
            )
        )


def _refuse_half_an_auto(options: Options, stage: Stage) -> None:
    """`--resume auto` must know what a new run would be, and which runs could be its own."""
    missing = [word for word, value in (("CONFIG", options.config_path), ("-n/--name", options.name)) if value is None]
    if missing:
        raise UserError(
            Problem(
                "--resume auto",
                f"needs {' and '.join(missing)}: they tell which run is meant, or what a new one is",
                remedy=f"{EXAMPLE[stage]} --resume auto; or --resume RUN for a run that you name yourself",
            )
        )


def _build_parser(stage: Stage) -> _Parser:
    allowances = "\n".join(f"  {name:<21} {meaning}" for name, meaning in ALLOWANCES.items())
    parser = _Parser(
        prog=SCRIPTS[stage],
        description=PURPOSE[stage],
        epilog=f"names for --allow:\n{allowances}\n\n{EXIT_CODES}\n\nexample:\n  {EXAMPLE[stage]}\n\n"
        "every key of CONFIG is explained in docs/config.md",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("config", metavar="CONFIG", nargs="?", help="JSON file with comments; one file serves both stages")
    add("-n", "--name", help="name of the run; its folder is OUTPUT_ROOT/NAME_CONFIG_mm_dd_HH_MM_SS")
    add(
        "--set",
        dest="overrides",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="change a key of CONFIG, for example --set lr=0.0001 --set stage1.epoch=3 (repeatable)",
    )
    add(
        "--task",
        metavar="NAME_OR_CLASS",
        help="what is learnt, in place of the key `task`: an installed task, or package.module:Class, looked up beside "
        "CONFIG and in the current folder",
    )
    add("--print-config", action="store_true", help="print the resolved config and the weights by epoch; open nothing")
    add(
        "--list-layers",
        action="store_true",
        help="print the layers of the models by name, with the shapes of their outputs; needs no data and no weights",
    )
    add("--dry-run", action="store_true", help="take one batch through everything, then stop")
    add(
        "--resume",
        metavar="RUN",
        help="continue a run: its folder, its name, or a beginning that fits one; `auto`: the newest run of this "
        "CONFIG and NAME, or a new one where there is none (a folder named auto is ./auto)",
    )
    add(
        "--replay",
        metavar="FILE",
        help="take a skipped step again, output/RUN/skipped/epoch_E_step_S.pth, and say where its values stop being "
        "finite; needs no data and writes nothing",
    )
    add(
        "--allow",
        metavar="NAME",
        action="append",
        default=[],
        help="permit something that is refused otherwise, see below (repeatable)",
    )
    return parser


def _pick_unknown(rest: Sequence[str]) -> Sequence[str]:
    """The words to complain about: options first, since a word after an unknown option is most likely its value."""
    return [word for word in rest if word.startswith("-")] or rest


def _explain_unknown(word: str, parser: _Parser, known_keys: Sequence[str]) -> Problem:
    bare = word.lstrip("-").split("=")[0]
    key = bare.replace("-", "_")
    if key.split(".")[0] in known_keys:
        value = word.split("=", 1)[1] if "=" in word else "VALUE"
        return Problem(word, "is a key of the config, not an option", remedy=f"write --set {key}={value}")
    if not word.startswith("-"):
        return Problem(word, "is one argument too many", expected="one CONFIG", remedy=f"python {parser.prog} --help")
    known = [option for action in parser._actions for option in action.option_strings]  # pyright: ignore[reportPrivateUsage]
    near = difflib.get_close_matches(word.split("=")[0], known, n=1)
    remedy = f"did you mean {near[0]}?" if near else f"known options: {', '.join(known)}"
    return Problem(word, "is not a known option", remedy=remedy)


__all__ = [
    "CommandLine",
    "compare_configs",
    "load_run_config",
    "parse_command_line",
    "print_resolved",
    "read_command_line",
]


@dataclass(frozen=True)
class CommandLine:
    """What a training script was asked to do; `notes` are sentences for the log.

    task: the class of the config's task; overrides: the `--set` words, for the commands that messages advise; replay: a
    skipped step to take again.
    """

    config: RunConfig
    task: type[Any]
    config_path: Path | None
    resume: Path | None
    print_config: bool
    dry_run: bool
    notes: tuple[str, ...]
    overrides: tuple[str, ...]
    replay: Path | None = None
    list_layers: bool = False


@dataclass(frozen=True)
class _Asked:
    """The keys of CONFIG with every `--set`, and the class of their task."""

    keys: FileKeys
    name: str
    task: type[TaskKind]


def read_command_line(argv: Sequence[str], *, stage: Stage, find_task: FindTask) -> CommandLine:
    """As `parse_command_line`; for `--print-config` it prints the resolved config and exits 0, as `--help` does."""
    command = parse_command_line(argv, stage=stage, find_task=find_task)
    if command.print_config:
        print(print_resolved(command.config))
        raise SystemExit(0)
    return command


def parse_command_line(argv: Sequence[str], *, stage: Stage, find_task: FindTask) -> CommandLine:
    """Read the arguments (without the program's name) and the files they name. Raises `UserError`; `--help` exits 0.

    find_task: `sharpstudent.registry.find_task`.
    """
    options = parse_options(argv, stage, lambda options: _list_own_keys(options, find_task))
    if options.replay is not None:
        return _replay(options, options.replay, stage, find_task)
    asked = None if options.config_path is None else _read_asked(options, options.config_path, find_task)
    if options.resume is None:
        return _start(options, asked, stage)
    if options.resume == AUTO:
        return _resume_or_start(options, asked, stage)
    free = _read_free(options) if asked is None else asked.keys
    find = _find_stored(options, asked, stage, find_task)
    return _continue(options, asked, find_run(options.resume, free.output_root), stage, find)


def _start(options: Options, asked: _Asked | None, stage: Stage) -> CommandLine:
    if options.config_path is None or asked is None:
        raise UserError(
            Problem("CONFIG", "is missing", remedy=f"python {SCRIPTS[stage]} configs/config_SBI.json -n NAME")
        )
    name = options.name if options.name is not None else clean_name(options.config_path.stem)
    config = resolve(
        asked.keys,
        stage=stage,
        name=name,
        config_name=clean_name(options.config_path.stem),
        task=asked.task,
        allow=options.allow,
    )
    return _finish(options, config, asked.task, None, describe_choices(asked.keys, stage))


def _resume_or_start(options: Options, asked: _Asked | None, stage: Stage) -> CommandLine:
    """`--resume auto`: the run that this very command made before, or a new one; the notes say which, and why."""
    fresh = _start(options, asked, stage)
    own, notes = find_own_run(fresh.config, fresh.task)
    if own is not None:
        again = _continue(options, asked, own, stage, only_task(fresh.task, fresh.config.task))
        return replace(again, notes=(*notes, f"--resume auto: found this command's run {own}", *again.notes))
    root = fresh.config.output_root
    none = f"--resume auto: no run under {root} has this name, stage and config and a saved state; starting a new one"
    return replace(fresh, notes=(*notes, none, *fresh.notes))


def _continue(options: Options, asked: _Asked | None, folder: Path, stage: Stage, find: FindTask) -> CommandLine:
    """Continue a run with the config it was started with; CONFIG, where given, must say the same."""
    stored = load_run_config(folder, find)
    if stored.stage != stage:
        raise UserError(_explain_other_stage("--resume", str(folder), stored.stage, stage))
    # A permission to change the config holds for one command; the others belong to the run.
    allow = tuple(dict.fromkeys((*(name for name in stored.allow if name != "changed-config"), *options.allow)))
    if asked is None:
        free = _read_free(options)
        given = {name: getattr(free, name) for name in free.model_fields_set}
        name = {} if options.name is None else {"name": options.name}
        config = take_free(stored, given).model_copy(update={**name, "allow": allow})
        notes = [f"continuing {folder} with its own config, {folder / STORED_NAME}"]
    else:
        config = resolve(
            asked.keys,
            stage=stage,
            name=options.name if options.name is not None else stored.name,
            config_name=stored.config_name,
            task=asked.task,
            allow=allow,
        )
        notes = [f"continuing {folder}", *describe_choices(asked.keys, stage)]
    for problem in (*check_name(config.name), *check_allow(allow)):
        raise UserError(problem)
    changes = compare_configs(stored, config)
    if changes and "changed-config" not in options.allow:
        raise UserError(_explain_changes(folder, changes))
    notes += [f"changed since the run began: {change}" for change in changes]
    return _finish(options, config, find(config.task), folder, notes)


def _find_stored(options: Options, asked: _Asked | None, stage: Stage, find_task: FindTask) -> FindTask:
    """Finds the task of a run that is taken up. A class that its config names must be named by the user, too: by CONFIG
    or `--task`.
    """

    def find(
        name: str, *, beside: Sequence[Path] = (), trusted: bool = False, where: str = "", remedy: str | None = None
    ) -> type[TaskKind]:
        if asked is not None and (":" in name or name == asked.name):
            return asked.task
        if asked is None and options.task is not None:
            if ":" not in name and name != options.task:
                what = f"names another task than the run, which learns {show(name)}"
                raise UserError(Problem("--task", what, got=show(options.task), remedy="leave --task out"))
            return find_task(options.task, beside=[Path()], trusted=True, where="--task")
        option, run = ("--resume", options.resume) if options.replay is None else ("--replay", options.replay)
        command = f"python {SCRIPTS[stage]} {option} {shlex.quote(str(run))} --task {shlex.quote(name)}"
        return find_task(
            name, where=where, remedy=f"if you know that code, name it, with its folder on PYTHONPATH: {command}"
        )

    return find


def _replay(options: Options, file: Path, stage: Stage, find_task: FindTask) -> CommandLine:
    """`--replay FILE`: a step of the run whose folder holds skipped/FILE, with that run's own config."""
    folder = file.absolute().parent.parent
    if not file.is_file() or not (folder / STORED_NAME).is_file():
        raise UserError(_explain_no_skip(file, folder))
    free = _read_free(options)
    find = _find_stored(options, None, stage, find_task)
    stored = load_run_config(folder, find)
    if stored.stage != stage:
        raise UserError(_explain_other_stage("--replay", str(file), stored.stage, stage))
    config = take_free(stored, {name: getattr(free, name) for name in free.model_fields_set})
    notes = [f"replaying {file} with its run's own config; nothing is written"]
    command = _finish(options, config, find(config.task), None, notes)
    return replace(command, replay=file, dry_run=True)


def _list_own_keys(options: Options, find_task: FindTask) -> list[str]:
    """The keys of the task that CONFIG or `--task` names; none where that cannot be told."""
    if options.config_path is None:
        return []
    try:
        return list(_find_asked(options, read_config_file(options.config_path), find_task)[1].Section.model_fields)
    except UserError:
        return []


def _find_asked(options: Options, keys: dict[str, Any], find_task: FindTask) -> tuple[str, type[TaskKind]]:
    """The task that the user names: in CONFIG, or by `--task`, which wins."""
    name = read_task_name(keys) if options.task is None else options.task
    folders = [Path()] if options.config_path is None else [options.config_path.parent, Path()]
    where = "task" if options.task is None else "--task"
    return name, find_task(name, beside=folders, trusted=True, where=where)


def _read_asked(options: Options, path: Path, find_task: FindTask) -> _Asked:
    """CONFIG with every `--set`; its problems are reported together with those of the command line."""
    try:
        keys = apply_overrides(read_config_file(path), options.overrides)
        name, task = _find_asked(options, keys, find_task)
        keys = drop_overridden({**keys, "task": name}, options.overrides, task.Section)
        return _Asked(validate_keys(keys, task), name, task)
    except UserError as error:
        problems = ProblemList()
        for problem in (*check_name(options.name or "unnamed"), *check_allow(options.allow)):
            problems.add(problem)
        problems.take(error)
        problems.raise_if_any()
        raise


def _read_free(options: Options) -> FileKeys:
    """The `--set` values of a resume without CONFIG, or of a replay: only what may change freely, the rest is in the
    flat dialect.
    """
    values: dict[str, Any] = apply_overrides({}, options.overrides)
    fixed = sorted(set(values) - set(FREE_KEYS))
    if fixed and options.replay is not None:
        what = f"cannot change {', '.join(fixed)}: a step is replayed as it was"
        raise UserError(Problem("--set", what, expected="device", remedy=f"leave out --set {fixed[0]}=..."))
    if fixed:
        raise UserError(
            Problem(
                "--set",
                f"cannot change {', '.join(fixed)} of a run that is resumed without its CONFIG",
                expected="device, num_workers, output_root or patience",
                remedy="name the CONFIG too, and permit the change with --allow changed-config",
            )
        )
    return validate_keys(values, None)


def _finish(
    options: Options, config: RunConfig, task: type[TaskKind], resume: Path | None, notes: Sequence[str]
) -> CommandLine:
    return CommandLine(
        config=config,
        task=task,
        config_path=options.config_path,
        resume=resume,
        print_config=options.print_config,
        dry_run=options.dry_run,
        notes=tuple(notes),
        overrides=tuple(options.overrides),
        list_layers=options.list_layers,
    )


def _explain_no_skip(file: Path, folder: Path) -> Problem:
    return Problem(
        f"--replay {file}",
        f"has no {STORED_NAME} of a run two folders above it: {folder}" if file.is_file() else "does not exist",
        expected="output/RUN/skipped/epoch_E_step_S.pth, in the folder of its run",
        remedy="look for --replay in logs/losses.logs of the run",
    )


def _explain_other_stage(option: str, path: str, stored: Stage, stage: Stage) -> Problem:
    return Problem(
        f"{option} {path}",
        f"is of a run of stage {stored}, and this script trains stage {stage}",
        remedy=f"python {SCRIPTS[stored]} {option} {shlex.quote(path)}",
    )


def _explain_changes(folder: Path, changes: Sequence[str]) -> Problem:
    return Problem(
        str(folder / STORED_NAME),
        f"differs in {len(changes)} value{'s' if len(changes) > 1 else ''} from what is asked for now",
        expected="the config that the run was started with",
        got="\n".join(("run -> now", *changes)),
        remedy="leave CONFIG and --set out to continue as it was, or permit the change with --allow changed-config",
    )


def clean_name(stem: str) -> str:
    """A file's stem as part of a folder's name: what means something in a path or a glob becomes '-'."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip(".-")[:60] or "config"
