"""The command line of both training scripts: which config, which name, which changes, and what is only looked at."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib.config.describe import print_resolved
from lib.config.keys import FileKeys
from lib.config.options import Options, parse_options
from lib.config.overrides import apply_overrides
from lib.config.read import read_config_file
from lib.config.resolve import check_allow, check_name, describe_choices, resolve
from lib.config.sections import SCRIPTS, RunConfig, Stage, TaskSection
from lib.config.stored import (
    AUTO,
    FREE_KEYS,
    STORED_NAME,
    compare_configs,
    find_own_run,
    find_run,
    load_run_config,
    take_free,
)
from lib.config.validate import choose_section, validate_keys
from lib.errors import Problem, ProblemList, UserError

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

    overrides: the `--set` words, for the commands that messages advise; replay: a skipped step to take again.
    """

    config: RunConfig
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
    """The keys of CONFIG with every `--set`, and the section model of their task."""

    keys: FileKeys
    section_model: type[TaskSection]


def read_command_line(argv: Sequence[str], *, stage: Stage, sections: Mapping[str, type[TaskSection]]) -> CommandLine:
    """As `parse_command_line`; for `--print-config` it prints the resolved config and exits 0, as `--help` does."""
    command = parse_command_line(argv, stage=stage, sections=sections)
    if command.print_config:
        print(print_resolved(command.config))
        raise SystemExit(0)
    return command


def parse_command_line(argv: Sequence[str], *, stage: Stage, sections: Mapping[str, type[TaskSection]]) -> CommandLine:
    """Read the arguments (without the program's name) and the files they name. Raises `UserError`; `--help` exits 0."""
    options = parse_options(argv, stage, sections)
    if options.replay is not None:
        return _replay(options, options.replay, stage, sections)
    asked = None if options.config_path is None else _read_asked(options, options.config_path, sections)
    if options.resume is None:
        return _start(options, asked, stage)
    if options.resume == AUTO:
        return _resume_or_start(options, asked, stage, sections)
    free = _read_free(options) if asked is None else asked.keys
    return _continue(options, asked, find_run(options.resume, free.output_root), stage, sections)


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
        section_model=asked.section_model,
        allow=options.allow,
    )
    return _finish(options, config, None, describe_choices(asked.keys, stage))


def _resume_or_start(
    options: Options, asked: _Asked | None, stage: Stage, sections: Mapping[str, type[TaskSection]]
) -> CommandLine:
    """`--resume auto`: the run that this very command made before, or a new one; the notes say which, and why."""
    fresh = _start(options, asked, stage)
    own, notes = find_own_run(fresh.config, sections)
    if own is not None:
        again = _continue(options, asked, own, stage, sections)
        return replace(again, notes=(*notes, f"--resume auto: found this command's run {own}", *again.notes))
    root = fresh.config.output_root
    none = f"--resume auto: no run under {root} has this name, stage and config and a saved state; starting a new one"
    return replace(fresh, notes=(*notes, none, *fresh.notes))


def _continue(
    options: Options, asked: _Asked | None, folder: Path, stage: Stage, sections: Mapping[str, type[TaskSection]]
) -> CommandLine:
    """Continue a run with the config it was started with; CONFIG, where given, must say the same."""
    stored = load_run_config(folder, sections)
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
            section_model=asked.section_model,
            allow=allow,
        )
        notes = [f"continuing {folder}", *describe_choices(asked.keys, stage)]
    for problem in (*check_name(config.name), *check_allow(allow)):
        raise UserError(problem)
    changes = compare_configs(stored, config)
    if changes and "changed-config" not in options.allow:
        raise UserError(_explain_changes(folder, changes))
    return _finish(options, config, folder, notes + [f"changed since the run began: {change}" for change in changes])


def _replay(options: Options, file: Path, stage: Stage, sections: Mapping[str, type[TaskSection]]) -> CommandLine:
    """`--replay FILE`: a step of the run whose folder holds skipped/FILE, with that run's own config."""
    folder = file.absolute().parent.parent
    if not file.is_file() or not (folder / STORED_NAME).is_file():
        raise UserError(_explain_no_skip(file, folder))
    free = _read_free(options)
    stored = load_run_config(folder, sections)
    if stored.stage != stage:
        raise UserError(_explain_other_stage("--replay", str(file), stored.stage, stage))
    config = take_free(stored, {name: getattr(free, name) for name in free.model_fields_set})
    command = _finish(options, config, None, [f"replaying {file} with its run's own config; nothing is written"])
    return replace(command, replay=file, dry_run=True)


def _read_asked(options: Options, path: Path, sections: Mapping[str, type[TaskSection]]) -> _Asked:
    """CONFIG with every `--set`; its problems are reported together with those of the command line."""
    try:
        keys = apply_overrides(read_config_file(path), options.overrides)
        section_model = choose_section(keys, sections)
        return _Asked(validate_keys(keys, section_model), section_model)
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
    return validate_keys(values, TaskSection)


def _finish(options: Options, config: RunConfig, resume: Path | None, notes: Sequence[str]) -> CommandLine:
    return CommandLine(
        config=config,
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
