"""Checks that the trained model which stage 1 starts from fits the config, and says which file it was.

Tensors alone do not tell: a model of other pictures, another scale or another order of classes has the same shapes.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sharpstudent.config.run_config import RunConfig
from sharpstudent.core.errors import UserError
from sharpstudent.core.io import compute_sha256
from sharpstudent.models.weight_files import read_statement


def check_start(path: Path, config: RunConfig, facts: Mapping[str, Any], free: tuple[str, ...]) -> str | None:
    """Check what a file says of its model against the config of the run that is to start from it.

    Args:
        path: The file.
        config: The config of the run.
        facts: The facts of the run's task (`Task.facts`).
        free: The names of facts in which a start may differ (`Task.facts_of_data`).

    Returns:
        A note on a file that does not describe itself, of which its tensors alone are checked; else None.

    Raises:
        UserError: For another task, architecture, form of the inputs, or other classes.
    """
    stated = read_statement(path)
    if stated is None:
        return (
            f"start: {path} does not describe itself: that its inputs and the order of its classes are those of "
            "this config, nobody can check"
        )
    wanted, given, words = _list_differences(stated, config, facts, free)
    if wanted:
        options = " ".join(words)
        raise UserError.about(
            f"start = {str(path)!r}",
            "is a model of another form than the config's student, says the file",
            expected=", ".join(wanted),
            got=", ".join(given),
            remedy=f"add {options}" if len(words) == len(wanted) else "give a start of this form",
        )
    return None


def _list_differences(
    stated: Mapping[str, Any], config: RunConfig, facts: Mapping[str, Any], free: tuple[str, ...]
) -> tuple[list[str], list[str], list[str]]:
    """List what differs: the file's values, the config's, and the words of a command that take the former."""
    student, wanted, given, words = config.student, list[str](), list[str](), list[str]()
    if stated["task"] not in (None, config.task):
        wanted.append(f"task {stated['task']}")
        given.append(f"task {config.task}")
        return wanted, given, words
    theirs = {"name": stated["architecture"], **_drop_idle(stated["options"])}
    ours = {"name": student.name, **_drop_idle(student.options)}
    if theirs != ours:
        shown = [one["name"] if len(one) == 1 else json.dumps(one) for one in (theirs, ours)]
        wanted.append(f"student {shown[0]}")
        given.append(f"student {shown[1]}")
        words.append(f"--set {shlex.quote(f'student={shown[0]}')}")
    settable = type(config.task_section).model_fields
    for name, value in stated["facts"].items():
        if name in free or name not in facts or _plain(facts[name]) == value:
            continue
        wanted.append(f"{name} {json.dumps(value)}")
        given.append(f"{name} {json.dumps(_plain(facts[name]))}")
        if name in settable:
            words.append(f"--set {shlex.quote(f'{name}={json.dumps(value)}')}")
    return wanted, given, words


def _drop_idle(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as JSON gives them; one that is switched off is as one that is absent."""
    return {name: _plain(value) for name, value in options.items() if value not in (None, False)}


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def describe_start(path: Path) -> dict[str, str]:
    """Describe the file of a start for the checkpoints of the run: its name, without folders, and its sha256."""
    return {"file": path.name, "sha256": compute_sha256(path)}
