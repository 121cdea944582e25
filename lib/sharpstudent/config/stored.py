"""Finds and loads the config that a run folder keeps, and compares it with the config of the present command."""

from __future__ import annotations

import difflib
import glob
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError, create_model

from sharpstudent.config.load import read_config_file, read_task_name
from sharpstudent.config.messages import explain, show
from sharpstudent.config.run_config import FindTask, RunConfig, TaskKind
from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.files import read_json
from sharpstudent.core.naming import PathHider

AUTO = "auto"  # the word of `--resume auto`; a run folder of that name is `./auto`
STORED_NAME = "config.json"
PRIVATE_NAME = "private.json"  # the paths that are shortened in config.json; nothing that is passed on copies it

STATE_NAMES = ("last.pth", "last_previous.pth")  # files in weights/ that a run can resume from
MOST_CHANGES = 5  # the most differences that a note lists

# Keys that a resume may change freely, because they do not affect what is learnt.
FREE_KEYS = (
    "device", "num_workers", "output_root", "allow", "loader_timeout", "save_every_steps", "save_every_minutes",
    "keep_freed_memory", "report", "teacher_answers", "threads", "callback_errors",
    "patience",
)  # fmt: skip
OF_TRAINING = ("patience",)  # the free keys that the resolved config has in its section `training`


def split_private(config: RunConfig, hider: PathHider) -> tuple[str, str | None]:
    """Split a config into what may be passed on and what a resume needs besides.

    Args:
        config: The resolved config.
        hider: Shortens its paths.

    Returns:
        The contents of config.json, and of private.json with each path that was shortened in the former; None where
        there is none.
    """
    plain: dict[str, Any] = config.model_dump(mode="json")
    shown: dict[str, Any] = hider.within(plain, words=True)
    private = list(_list_changes(plain, shown))
    text = None if not private else json.dumps({"paths": private}, indent=2, ensure_ascii=False) + "\n"
    return json.dumps(shown, indent=2, ensure_ascii=False) + "\n", text


def _list_changes(plain: Any, shown: Any, key: tuple[str | int, ...] = ()) -> Iterator[dict[str, Any]]:
    """List the key, the shortened form and the original of each text that differs between two trees of one form."""
    if isinstance(plain, dict):
        for name, inner in cast(dict[str, Any], plain).items():
            yield from _list_changes(inner, shown[name], (*key, name))
    elif isinstance(plain, list):
        for place, inner in enumerate(cast(list[Any], plain)):
            yield from _list_changes(inner, shown[place], (*key, place))
    elif plain != shown:
        yield {"key": list(key), "shown": shown, "path": plain}


def _restore_private(folder: Path, stored: dict[str, Any]) -> None:
    """Put the paths of private.json back into a stored config, in those places that still have the shortened form.

    Raises:
        UserError: If the file is there and cannot be read.
    """
    file = folder / PRIVATE_NAME
    if not file.exists():
        return
    try:
        for one in read_json(file)["paths"]:
            *above, last = one["key"]
            place: Any = stored
            for name in above:
                place = place[name]
            if place[last] == one["shown"] and isinstance(one["path"], str):
                place[last] = one["path"]
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError.about(
            str(file),
            f"cannot be read, and {STORED_NAME} has its paths in a shortened form only ({type(error).__name__})",
            expected="the file as the run wrote it",
            remedy="restore it; or delete it, and name CONFIG with --allow changed-config at the next --resume",
        ) from None


def find_run(run: str, output_root: str) -> Path:
    """Find the run folder that `--resume RUN` means.

    Args:
        run: A folder, its name under `output_root`, or a glob or prefix of one.
        output_root: The folder of the run folders.

    Returns:
        The run folder.

    Raises:
        UserError: If none or several fit.
    """
    if not run.strip():
        raise UserError(_explain_none(run, output_root))
    roots = [Path(), Path(output_root)]  # an absolute `run` ignores both
    for find in (_find_exact, glob.glob, _find_beginning):
        for root in roots:
            found = [Path(match) for match in sorted(find(str(root / run))) if Path(match, STORED_NAME).is_file()]
            if len(found) == 1:
                return found[0]
            if found:
                raise UserError(_explain_several(run, found))
    raise UserError(_explain_none(run, output_root))


def find_own_run(wanted: RunConfig, task: type[TaskKind]) -> tuple[Path | None, list[str]]:
    """Find the newest run under `output_root` that has a given config, for `--resume auto`.

    Such a run has the same name, config name and stage, no difference in its config, and a saved state. The newest is
    the one whose state was saved last.

    Args:
        wanted: The config.
        task: The class of its task.

    Returns:
        The run folder, None where there is none; and notes that name each folder of this name that was passed over, and
        why.

    Raises:
        UserError: If `output_root` cannot be listed.
    """
    found: list[tuple[int, str, Path]] = []
    notes: list[str] = []
    for folder in _list_folders(Path(wanted.output_root)):
        try:
            saved, reason = _find_last_save(folder, wanted, task)
        except OSError as error:  # the folder of another user, or one that was deleted meanwhile
            saved, reason = (
                None,
                f"it cannot be read ({error.strerror or error})" if _is_named(folder, wanted) else None,
            )
        if saved is not None:
            found.append((saved, folder.name, folder))
        elif reason is not None:
            notes.append(f"--resume auto: passed over {folder}: {reason}")
    return (max(found)[2] if found else None), notes


def _is_named(folder: Path, wanted: RunConfig) -> bool:
    return re.match(re.escape(wanted.folder_stem) + r"_\d\d_", folder.name) is not None


def _list_folders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError.about(
            f"output_root = {str(root)!r}",
            f"cannot be searched for runs ({error.strerror or error})",
            remedy="make the folder readable, or leave --resume auto out",
        ) from None


def _find_last_save(folder: Path, wanted: RunConfig, task: type[TaskKind]) -> tuple[int | None, str | None]:
    """Return (time of the last save [ns], None) for a run of the wanted config, else (None, reason) or (None, None)."""
    has_our_name = _is_named(folder, wanted)
    if not (folder / STORED_NAME).is_file():
        return None, f"it has no {STORED_NAME}, as after a kill right at the start" if has_our_name else None
    try:
        stored = load_run_config(folder, only_task(task, wanted.task))
    except UserError as error:
        return None, f"{error.problems[0].where}: {error.problems[0].what}" if has_our_name else None
    if (stored.name, stored.config_name, stored.stage) != (wanted.name, wanted.config_name, wanted.stage):
        return None, None
    changes = compare_configs(stored, wanted)
    if changes:
        shown = "; ".join(changes[:MOST_CHANGES]) + (
            f"; {len(changes) - MOST_CHANGES} more" * (len(changes) > MOST_CHANGES)
        )
        return None, f"its config differs (run -> now): {shown}"
    states = [path for path in (folder / "weights" / name for name in STATE_NAMES) if path.is_file()]
    if not states:
        return None, "it has no saved state, as after a kill right at the start"
    return max(path.stat().st_mtime_ns for path in states), None


def only_task(task: type[TaskKind], known: str) -> FindTask:
    """Make a `find_task` that knows a single task, so that no folder decides what is imported.

    Args:
        task: The class of the task.
        known: The name of the task.

    Returns:
        The function; it raises UserError for another name.
    """

    def find(name: str, *, where: str = "task", **others: Any) -> type[TaskKind]:
        if name == known:
            return task
        raise UserError.about(where, f"is {show(name)}, and {show(known)} is expected")

    return find


def _find_exact(path: str) -> list[str]:
    return [path]


def _find_beginning(path: str) -> list[str]:
    return glob.glob(glob.escape(path) + "*")


def load_run_config(path: Path, find_task: FindTask) -> RunConfig:
    """Load the resolved config of a run.

    Args:
        path: The run folder, or the file itself.
        find_task: `sharpstudent.registry.find_task`.

    Returns:
        The config.

    Raises:
        UserError: If the file cannot be read, or if its task is not a registered one: a stored config does not decide
            what is imported.
    """
    file = path / STORED_NAME if path.is_dir() else path
    stored = read_config_file(file)
    _restore_private(file.parent, stored)
    task = find_task(read_task_name(stored), where=f"{file}: task")
    training: Any = stored.get("training")
    if isinstance(training, dict):  # written by a version with a fixed selection metric
        stored["training"] = {"selection_metric": next(iter(task.metrics)), **training}
    if "teacher" in stored and "teachers" not in stored:  # written by a version with one teacher
        only: Any = stored.pop("teacher")
        stored["teachers"] = [] if only is None else [only]
    # A subclass that knows the task's own keys reads the file; the result is a plain RunConfig again.
    model = create_model("StoredConfig", __base__=RunConfig, task_section=(task.Section, ...))
    try:
        read = model.model_validate_json(json.dumps(stored))
    except ValidationError as error:
        problems = explain(error, model, stored).problems
        hint = Problem(str(file), "is not a config that this version wrote", remedy="restore it, or start a new run")
        raise UserError(hint, *problems) from None
    return RunConfig(**{name: getattr(read, name) for name in RunConfig.model_fields})


def take_free(stored: RunConfig, free: Mapping[str, Any]) -> RunConfig:
    """Change those values of a run's config that may change freely.

    Args:
        stored: The config.
        free: Values of FREE_KEYS.

    Returns:
        A changed copy.
    """
    training = {name: value for name, value in free.items() if name in OF_TRAINING}
    plain = {name: value for name, value in free.items() if name not in OF_TRAINING}
    return stored.model_copy(update={**plain, "training": stored.training.model_copy(update=training)})


def keep_choices(old: RunConfig, new: RunConfig) -> RunConfig:
    """Take what a run has chosen itself where a config leaves it to the run.

    Args:
        old: The config of the run.
        new: The config of the command.

    Returns:
        A copy of the second.
    """
    if new.compute.channels_last != "auto":
        return new
    compute = new.compute.model_copy(update={"channels_last": old.compute.channels_last})
    return new.model_copy(update={"compute": compute})


def compare_configs(old: RunConfig, new: RunConfig) -> list[str]:
    """List the differences between two configs, without the keys that may change freely.

    Args:
        old: The config of the run.
        new: The config of the command.

    Returns:
        A line `key: old -> new` for each value that differs.
    """
    before, after = _flatten(old), _flatten(keep_choices(old, new))
    free = {f"task_section.{name}" for name in type(new.task_section).free_keys}
    return [
        f"{key}: {_show(before, key)} -> {_show(after, key)}"
        for key in dict.fromkeys((*before, *after))
        if before.get(key) != after.get(key)
        and key.removeprefix("training.").split(".")[0] not in FREE_KEYS
        and key not in free
    ]


def _show(flat: Mapping[str, Any], key: str) -> str:
    return show(flat[key]) if key in flat else "nothing"


def _flatten(config: RunConfig) -> dict[str, Any]:
    """Return dotted key -> value, where terms are keyed by their names and teachers by their places.

    Values are not shortened as in messages: that could hide a difference at the end of a text.
    """
    plain: dict[str, Any] = config.model_dump(mode="json")
    plain["criterion"] = {term["name"]: term for term in plain["criterion"]}
    plain["teachers"] = {str(place): teacher for place, teacher in enumerate(plain["teachers"])}
    flat: dict[str, Any] = {}
    _collect(plain, "", flat)
    return flat


def _collect(value: dict[str, Any], prefix: str, flat: dict[str, Any]) -> None:
    for name, inner in value.items():
        if isinstance(inner, dict):
            _collect(cast(dict[str, Any], inner), f"{prefix}{name}.", flat)
        elif inner is not None:
            flat[prefix + name] = inner


def _explain_several(run: str, found: list[Path]) -> Problem:
    return Problem(
        f"--resume {run}",
        f"fits {len(found)} run folders",
        expected="exactly one",
        got=", ".join(map(str, found[:10])) + (", ..." if len(found) > 10 else ""),
        remedy="write the whole name of the one you mean",
    )


def _explain_none(run: str, output_root: str) -> Problem:
    runs = sorted(Path(output_root).glob(f"*/{STORED_NAME}"))
    shown = difflib.get_close_matches(run, [str(file.parent) for file in runs], n=10, cutoff=0.0)
    shown += [f"{len(runs) - len(shown)} more"] if len(runs) > len(shown) else []
    return Problem(
        f"--resume {run}",
        "is no run folder",
        expected=f"a folder with {STORED_NAME}, its name under {output_root}, or a beginning that fits one",
        got=f"runs there: {', '.join(shown)}" if runs else f"no run in {output_root}",
        remedy="name one of the runs, or leave --resume out to start a new one",
    )
