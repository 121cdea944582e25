"""The command line of both training scripts.

It gives the config, the task, the run, and new values of single keys. Some options print something and train nothing.
Every mistake is a `UserError` with a remedy.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from sharpstudent.config.describe import print_resolved
from sharpstudent.config.keys import FileKeys
from sharpstudent.config.load import (
    apply_overrides,
    drop_overridden,
    find_config,
    read_config_file,
    read_task_name,
    validate_keys,
)
from sharpstudent.config.messages import show
from sharpstudent.config.presets import describe_weights
from sharpstudent.config.resolve import check_allow, check_name, describe_choices, resolve
from sharpstudent.config.run_config import ALLOWANCES, SCRIPTS, FindTask, RunConfig, Stage, TaskKind
from sharpstudent.config.stored import (
    AUTO,
    FREE_KEYS,
    STORED_NAME,
    compare_configs,
    find_own_run,
    find_run,
    keep_choices,
    load_run_config,
    only_task,
    take_free,
)
from sharpstudent.config.terms import list_terms
from sharpstudent.core.arguments import SHARED, Parser, add_option, expand_path, read_path
from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.naming import printable_lines

__all__ = [
    "CommandLine",
    "compare_configs",
    "load_run_config",
    "parse_command_line",
    "print_resolved",
    "read_command_line",
]

PURPOSE: dict[Stage, str] = {
    1: "Stage 1: train a model on hard labels, with SAM. Makes the student's starting point, or a teacher.",
    2: "Stage 2: distil a frozen teacher into the student of stage 1, with SAM.",
}
EXAMPLES: dict[Stage, str] = {
    1: "train_student_only.py configs/config_SBI.json -n pretrain_mobilevit",
    2: "main_distillation.py configs/config_SBI.json -n distill_mobilevit",
}
EXIT_CODES = """exit codes:
  0         the run is complete
  2         something must be changed first: the command, the config, the data, the weights, the disk. In most cases
            nothing was trained yet; whatever the run had saved is intact
  3         training stopped itself (non-finite steps in a row, or a non-finite score); the last good state is saved
  130, 143  interrupted by Ctrl-C or SIGTERM; the state is saved and --resume continues from it
  141       nobody reads the output any more, as in `... | head`; what a run had saved is intact

relaunched by a scheduler: use the same command each time, with --resume auto. It continues its own run (the newest
under output_root with this -n, CONFIG and stage whose config does not differ), starts one where there is none, and
exits 0 when the run is complete. A lock keeps two processes from training the same run, also after a kill."""


@dataclass(frozen=True)
class CommandLine:
    """The parsed command line of a training script.

    Attributes:
        config: One stage of one run, resolved.
        task: The class of the task.
        config_path: CONFIG as it was named; None where the run's own config is used.
        resume: The folder of the run to continue; None for a new run.
        print_config: Whether to print the resolved config and do nothing else.
        dry_run: Whether to take one batch through everything and write nothing.
        notes: Sentences for the log.
        overrides: The values of `--set`, for the commands that messages advise.
        replay: The file of a skipped step to repeat; None to train.
        list_layers: Whether to print the layers of the models and do nothing else.
        preview: The picture of augmented samples to write and do nothing else; None to train.
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
    preview: Path | None = None


def read_command_line(argv: Sequence[str], *, stage: Stage, find_task: FindTask) -> CommandLine:
    """Read the command line, and print the config where `--print-config` asks for that alone.

    Args:
        argv: The arguments, without the program's name.
        stage: The stage that the script trains.
        find_task: `sharpstudent.registry.find_task`.

    Returns:
        What the script shall do.

    Raises:
        UserError: For every mistake.
        SystemExit: With 0, after `--print-config` and `--help`.
    """
    command = parse_command_line(argv, stage=stage, find_task=find_task)
    if command.print_config:
        print(printable_lines(print_resolved(command.config)))
        raise SystemExit(0)
    return command


def parse_command_line(argv: Sequence[str], *, stage: Stage, find_task: FindTask) -> CommandLine:
    """Read the command line and the files that it names.

    Args:
        argv: The arguments, without the program's name.
        stage: The stage that the script trains.
        find_task: `sharpstudent.registry.find_task`.

    Returns:
        What the script shall do.

    Raises:
        UserError: For every mistake.
        SystemExit: With 0, after `--help`.
    """
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # its search of all installed packages takes time
    _refuse_several_processes(stage)
    read = _build_parser(stage).read(argv, lambda read: _list_keys(read, stage, find_task))
    if getattr(read, "start", None) is not None:
        read.overrides.append(f"start={json.dumps(read.start, ensure_ascii=False)}")
    _check_combination(read, stage)
    return _Command(read, stage, find_task).build()


def _refuse_several_processes(stage: Stage) -> None:
    """Raise UserError where another launcher than torchrun started several: each would train the whole run."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        # Before torch is loaded: DDP else warns on every rank that its search for unused weights found none.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    count = os.environ.get("WORLD_SIZE", "1")
    if count != "1" and "TORCHELASTIC_RUN_ID" not in os.environ:
        raise UserError.about(
            "WORLD_SIZE",
            f"says that {count} processes share the run, and torchrun has not started them",
            remedy=f"torchrun --nproc-per-node {count} {SCRIPTS[stage]} CONFIG -n NAME; or unset WORLD_SIZE",
        )


def _build_parser(stage: Stage) -> Parser:
    allowances = "\n".join(f"  {name:<21} {meaning}" for name, meaning in ALLOWANCES.items())
    more = f"names for --allow:\n{allowances}\n\n{EXIT_CODES}\n\nevery key of CONFIG is explained in docs/config.md"
    examples = (EXAMPLES[stage], f"{SCRIPTS[stage]} --resume RUN")
    parser = Parser(SCRIPTS[stage], PURPOSE[stage], more=more, examples=examples)
    add = parser.add_argument
    text = "JSON file with comments; one file serves both stages"
    add("config_path", metavar="CONFIG", nargs="?", type=find_config, help=text)
    add("-n", "--name", help="name of the run; its folder is OUTPUT_ROOT/NAME_CONFIG_mm_dd_HH_MM_SS")
    text = "change a key of CONFIG, for example --set lr=0.0001 --set stage1.epoch=3 (repeatable)"
    add("--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[], help=text)
    text = "the task, in place of the key `task`: an installed one, or package.module:Class, looked up beside "
    add_option(parser, SHARED, "--task", help=text + "CONFIG and in the current folder")
    if stage == 1:
        text = "start from this trained model, in place of the key `start`: a run, a checkpoint, or the name of one "
        add("--start", metavar="MODEL", type=expand_path, help=text + "that comes with the package")
    add("--print-config", action="store_true", help="print the resolved config and the weights by epoch; open nothing")
    text = "print the layers of the models by name, with the shapes of their outputs; needs no data and no weights"
    add("--list-layers", action="store_true", help=text)
    text = "draw what training sees of some samples, and what was done to them, as a picture; train nothing"
    add("--preview-augmentation", dest="preview", metavar="PNG", type=read_path, help=text)
    add("--dry-run", action="store_true", help="take one batch through everything, then stop")
    text = "continue a run: its folder, its name, or a beginning that fits one; `auto`: the newest run of this CONFIG "
    text += "and NAME, or a new one where there is none (a folder named auto is ./auto)"
    add("--resume", metavar="RUN", type=expand_path, help=text)
    text = "repeat a skipped step, output/RUN/skipped/epoch_E_step_S.pth, and say where its values stop being "
    add("--replay", metavar="FILE", type=read_path, help=text + "finite; needs no data and writes nothing")
    text = "permit something that is refused otherwise, see below (repeatable)"
    add("--allow", metavar="NAME", action="append", default=[], help=text)
    return parser


def _list_keys(read: Namespace, stage: Stage, find_task: FindTask) -> dict[str, str]:
    """List the keys that CONFIG may have, those of its task too if that can be found -> how `--set` names them.

    A key that CONFIG sets for this stage alone is named with its group: the flat key would have no effect.
    """
    shared = {key: key for key in FileKeys.model_fields}
    try:
        written = {} if read.config_path is None else read_config_file(read.config_path)
        task = _find_named(read, written, find_task)[1]
    except UserError:
        return shared
    group: Any = written.get(f"stage{stage}")
    named = cast(dict[str, Any], group) if isinstance(group, dict) else {}
    own = {key: f"stage{stage}.{key}" for key in named}
    return {**shared, **{key: key for key in task.Section.model_fields}, **own}


def _find_named(read: Namespace, keys: dict[str, Any], find_task: FindTask) -> tuple[str, type[TaskKind]]:
    """Find the task that the user names: in CONFIG, or by `--task`, which has precedence."""
    name = read_task_name(keys) if read.task is None else read.task
    folders = [Path()] if read.config_path is None else [read.config_path.parent, Path()]
    return name, find_task(name, beside=folders, trusted=True, where="task" if read.task is None else "--task")


def _check_combination(read: Namespace, stage: Stage) -> None:
    """Raise UserError for options that do not go together, or that lack another one."""
    names = {
        "CONFIG": "config_path",
        "-n/--name": "name",
        "--resume": "resume",
        "--allow": "allow",
        "--print-config": "print_config",
        "--dry-run": "dry_run",
        "--list-layers": "list_layers",
        "--preview-augmentation": "preview",
    }
    given = [option for option, name in names.items() if getattr(read, name) not in (None, False, [])]
    missing = [option for option in ("CONFIG", "-n/--name") if option not in given]
    example = f"python {EXAMPLES[stage]}"
    if read.replay is not None and given:
        what = f"cannot be combined with {', '.join(given)}: the run that kept the step decides all of that"
        remedy = f"python {SCRIPTS[stage]} --replay {shlex.quote(str(read.replay))}"
        raise UserError.about("--replay", what, remedy=remedy)
    if read.resume == AUTO and missing:
        what = f"needs {' and '.join(missing)}: they tell which run is meant, or what a new one is"
        remedy = f"{example} --resume auto; or --resume RUN for a run that you name yourself"
        raise UserError.about("--resume auto", what, remedy=remedy)
    ends_early = {"--print-config", "--list-layers", "--preview-augmentation", "--dry-run"}
    needs_name = not {*ends_early, "--resume"} & {*given} and read.replay is None
    if needs_name and read.name is None:
        raise UserError.about("-n/--name", "is missing: the run needs a name", remedy=example)
    if read.config_path is None and read.resume is None and read.replay is None:
        raise UserError.about("CONFIG", "is missing", remedy=example)


@dataclass(frozen=True)
class _Given:
    """The keys of CONFIG with every `--set`, and the class of their task."""

    keys: FileKeys
    task: type[TaskKind]


class _Command:
    """Turns the options of a command line into the config of the run that they ask for."""

    def __init__(self, read: Namespace, stage: Stage, find_task: FindTask) -> None:
        self.read, self.find_task = read, find_task
        self.stage: Stage = stage
        self.given = None if read.config_path is None else self._read_config(read.config_path)

    def build(self) -> CommandLine:
        """Build the command line for a new run, for a run to continue, or for a step to replay."""
        if self.read.replay is not None:
            return self._replay(self.read.replay)
        # Where torchrun starts its processes again after a failure, they go on with the run that they had begun.
        was_restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
        if self.read.resume is None and not was_restarted:
            return self._start()
        if self.read.resume in (None, AUTO):
            return self._resume_or_start()
        free = self._read_free() if self.given is None else self.given.keys
        return self._continue(find_run(self.read.resume, free.output_root), self._find_stored)

    def _read_config(self, path: Path) -> _Given:
        """Read CONFIG and apply every `--set`; its problems are reported together with those of the command line."""
        try:
            keys = apply_overrides(read_config_file(path), self.read.overrides)
            name, task = _find_named(self.read, keys, self.find_task)
            keys = drop_overridden({**keys, "task": name}, self.read.overrides, task.Section)
            return _Given(validate_keys(keys, task), task)
        except UserError as error:
            problems = (*check_name(self.read.name or "unnamed"), *check_allow(self.read.allow))
            raise UserError(*problems, *error.problems) from None

    def _resolve(self, given: _Given, name: str, config_name: str, allow: Sequence[str]) -> RunConfig:
        return resolve(given.keys, stage=self.stage, name=name, config_name=config_name, task=given.task, allow=allow)

    def _describe(self, given: _Given, config: RunConfig) -> list[str]:
        """Explain the values of the stage, and warn of those that are odd."""
        odd = [*describe_choices(given.keys, self.stage), *describe_weights(config, list_terms(given.task.terms))]
        return [*odd, *self._list_idle(given.keys)]

    def _list_idle(self, keys: FileKeys) -> list[str]:
        """Warn of each `--set` of a key that CONFIG sets for this stage alone, which wins."""
        named = {item.partition("=")[0].strip(): item.partition("=")[2] for item in self.read.overrides}
        group, set_there = f"stage{self.stage}", keys.get_group(self.stage).model_fields_set
        idle = [key for key in named if key in set_there and f"{group}.{key}" not in named]
        return [
            f"warning: --set {key} has no effect, because CONFIG has {group}.{key}: --set {group}.{key}={named[key]}"
            for key in idle
        ]

    def _start(self) -> CommandLine:
        assert self.given is not None
        config_name = clean_name(self.read.config_path.stem)
        name = config_name if self.read.name is None else self.read.name
        config = self._resolve(self.given, name, config_name, self.read.allow)
        return self._finish(config, self.given.task, None, self._describe(self.given, config))

    def _resume_or_start(self) -> CommandLine:
        """For `--resume auto`, continue the run that the same command started before, or start a new one.

        The notes say which of the two it is, and why.
        """
        fresh = self._start()
        own, notes = find_own_run(fresh.config, fresh.task)
        if own is not None:
            again = self._continue(own, only_task(fresh.task, fresh.config.task))
            return replace(again, notes=(*notes, f"--resume auto: found this command's run {own}", *again.notes))
        root = fresh.config.output_root
        none = f"--resume auto: no run under {root} has this name, stage and config and a saved state; "
        none += "starting a new one"
        return replace(fresh, notes=(*notes, none, *fresh.notes))

    def _continue(self, folder: Path, find: FindTask) -> CommandLine:
        """Continue a run with its stored config; if CONFIG is given, it must have the same values."""
        stored = self._load_stored(folder, "--resume", folder, find)
        # A permission to change the config is valid for one command; the others belong to the run.
        kept = [name for name in stored.allow if name != "changed-config"]
        allow = tuple(dict.fromkeys((*kept, *self.read.allow)))
        name = stored.name if self.read.name is None else self.read.name
        if self.given is None:
            config = self._take_free(stored).model_copy(update={"name": name, "allow": allow})
            notes = [f"continuing {folder} with its own config, {folder / STORED_NAME}"]
        else:
            config = keep_choices(stored, self._resolve(self.given, name, stored.config_name, allow))
            notes = [f"continuing {folder}", *self._describe(self.given, config)]
        for problem in (*check_name(config.name), *check_allow(allow)):
            raise UserError(problem)
        changes = compare_configs(stored, config)
        if changes and "changed-config" not in self.read.allow:
            raise UserError(_explain_changes(folder, changes))
        notes += [f"changed since the run began: {change}" for change in changes]
        return self._finish(config, find(config.task), folder, notes)

    def _replay(self, file: Path) -> CommandLine:
        """For `--replay FILE`, repeat a step of the run that has skipped/FILE in its folder, with its stored config."""
        folder = file.absolute().parent.parent
        if not file.is_file() or not (folder / STORED_NAME).is_file():
            raise UserError(_explain_no_skip(file, folder))
        config = self._take_free(self._load_stored(folder, "--replay", file, self._find_stored))
        notes = [f"replaying {file} with its run's own config; nothing is written"]
        command = self._finish(config, self._find_stored(config.task), None, notes)
        return replace(command, replay=file, dry_run=True)

    def _load_stored(self, folder: Path, option: str, named: Path, find: FindTask) -> RunConfig:
        """Load the config of a run, whose stage must be that of the script."""
        stored = load_run_config(folder, find)
        if stored.stage != self.stage:
            what = f"is of a run of stage {stored.stage}, and this script trains stage {self.stage}"
            remedy = f"python {SCRIPTS[stored.stage]} {option} {shlex.quote(str(named))}"
            raise UserError.about(f"{option} {named}", what, remedy=remedy)
        return stored

    def _find_stored(self, name: str, *, where: str = "task", **others: Any) -> type[TaskKind]:
        """Find the task of a run to continue.

        A class that the stored config names must be named by the user, too: in CONFIG or by `--task`.
        """
        task = self.read.task
        if self.given is not None and (":" in name or name == self.given.keys.task):
            return self.given.task
        if self.given is None and task is not None:
            if ":" not in name and name != task:
                what = f"names another task than the run, which learns {show(name)}"
                raise UserError.about("--task", what, got=show(task), remedy="leave --task out")
            return self.find_task(task, beside=[Path()], trusted=True, where="--task")
        option, run = ("--resume", self.read.resume) if self.read.replay is None else ("--replay", self.read.replay)
        command = f"python {SCRIPTS[self.stage]} {option} {shlex.quote(str(run))} --task {shlex.quote(name)}"
        remedy = f"if you know that code, name it, with its folder on PYTHONPATH: {command}"
        return self.find_task(name, where=where, remedy=remedy)

    def _take_free(self, stored: RunConfig) -> RunConfig:
        """Apply the values of `--set`, which may change FREE_KEYS only, to the stored config of a run."""
        free = self._read_free()
        return take_free(stored, {name: getattr(free, name) for name in free.model_fields_set})

    def _read_free(self) -> FileKeys:
        """Read the `--set` values of a resume without CONFIG, or of a replay: only keys that may change freely."""
        values = apply_overrides({}, self.read.overrides)
        fixed = sorted(set(values) - set(FREE_KEYS))
        if fixed and self.read.replay is not None:
            what = f"cannot change {', '.join(fixed)}: a step is replayed as it was"
            raise UserError.about("--set", what, expected="device", remedy=f"leave out --set {fixed[0]}=...")
        if fixed:
            what = f"cannot change {', '.join(fixed)} of a run that is resumed without its CONFIG"
            remedy = "repeat the whole command with its CONFIG and each --set, and add --allow changed-config"
            raise UserError.about("--set", what, f"one of {', '.join(FREE_KEYS)}", remedy=remedy)
        return validate_keys(values, None)

    def _finish(
        self, config: RunConfig, task: type[TaskKind], resume: Path | None, notes: Sequence[str]
    ) -> CommandLine:
        return CommandLine(
            config=config,
            task=task,
            config_path=self.read.config_path,
            resume=resume,
            print_config=self.read.print_config,
            dry_run=self.read.dry_run,
            notes=tuple(notes),
            overrides=tuple(self.read.overrides),
            list_layers=self.read.list_layers,
            preview=self.read.preview,
        )


def _explain_no_skip(file: Path, folder: Path) -> Problem:
    """Explain why a file cannot be replayed."""
    return Problem(
        f"--replay {file}",
        f"has no {STORED_NAME} of a run two folders above it: {folder}" if file.is_file() else "does not exist",
        expected="output/RUN/skipped/epoch_E_step_S.pth, in the folder of its run",
        remedy="look for --replay in logs/losses.logs of the run",
    )


def _explain_changes(folder: Path, changes: Sequence[str]) -> Problem:
    """Build the problem that says how the config of the command differs from that of the run."""
    return Problem(
        str(folder / STORED_NAME),
        f"differs in {len(changes)} value{'s' if len(changes) > 1 else ''} from the command",
        expected="the config that the run was started with",
        got="\n".join(("run -> now", *changes)),
        remedy="leave CONFIG and --set out to continue as it was, or permit the change with --allow changed-config",
    )


def clean_name(stem: str) -> str:
    """Make a part of a folder name from a file stem: characters with a meaning in a path or a glob become "-"."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip(".-")[:60] or "config"
