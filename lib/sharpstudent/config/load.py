"""Reads a config file (JSON with comments), applies `--set a.b=value`, and validates the result.

All mistakes are reported at once, in one `UserError`.
"""

from __future__ import annotations

import copy
import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import json5
from pydantic import ValidationError

from sharpstudent.config.keys import FileKeys, build_file_model
from sharpstudent.config.messages import explain, find_bare_alpha, find_unwritable_text, show
from sharpstudent.config.presets import DEFAULT_TASK
from sharpstudent.config.run_config import TaskKind, TaskSection
from sharpstudent.core import files
from sharpstudent.core.arguments import read_path
from sharpstudent.core.errors import Problem, UserError

LARGEST_FILE = 256 * 1024  # bytes; a config is a few KiB, and what is larger is some other file


# Those that come with the package. In a checkout they are a link, which Windows may write as a file: then the folder.
_HERE = Path(__file__).resolve()
CONFIGS = next(
    (folder for folder in (_HERE.parents[1] / "configs", _HERE.parents[3] / "configs") if folder.is_dir()),
    _HERE.parents[1] / "configs",
)


def find_config(text: str) -> Path:
    """Find a config file, for the `type` of an option: the file itself, else the package's of that name.

    Args:
        text: The path; `configs/NAME.json`, `NAME.json` and `NAME` may mean one that comes with the package.

    Returns:
        The path of a file, or of what the user wrote where there is none.
    """
    path = read_path(text)
    own = CONFIGS / (path.name if path.suffix else f"{path.name}.json")
    is_own = str(path.parent) in (".", "configs") and own.is_file() and not path.exists()
    return own if is_own else path


def read_config_file(path: Path) -> dict[str, Any]:
    """Read the object in a JSON file with // and /* */ comments; a top-level "$schema" (for editors) is dropped."""
    keys = parse_json5(_read_text(path), str(path))
    if not isinstance(keys, dict):
        raise UserError.about(
            str(path),
            "does not contain a JSON object",
            expected='keys and values in braces, like { "epoch": 100 }',
            got=f"a JSON {_name_kind(keys)}",
            remedy="see configs/config_SBI.json for a complete file",
        )
    found = cast(dict[str, Any], keys)
    schema = found.pop("$schema", "")
    if not isinstance(schema, str):
        raise UserError.about(f"{path}: $schema", "is not a string", remedy='write "$schema": "./schema.json"')
    return found


def parse_json5(text: str, source: str) -> Any:
    """Parse JSON5; duplicate keys and numbers that are not finite are refused.

    Args:
        text: The text.
        source: What messages call it.

    Returns:
        Its value.

    Raises:
        UserError: For text that is empty, not valid, or refused.
    """
    if not text.strip():
        raise UserError.about(source, "is empty", remedy="see configs/config_SBI.json for a complete file")
    try:
        value = json5.loads(text, allow_duplicate_keys=False)
    except RecursionError:
        raise UserError.about(
            source, "is nested too deeply", expected="at most two levels of braces", remedy="flatten it"
        ) from None
    except ValueError as error:
        raise UserError(_explain_syntax(str(error), text, source)) from None
    lost = _find_lost_backslash(text)
    if lost is not None:
        line, _ = _locate(text[:lost])
        raise UserError.about(
            f"{source}: line {line}",
            "has a single backslash in a string, which JSON drops",
            got=text[max(0, lost - 20) : lost + 20].strip().splitlines()[0],
            remedy="write / between folders, or each backslash twice",
        )
    for key in _find_not_finite(value, ""):
        number = Problem(
            f"{source}: {key}" if key else source,
            "NaN, Infinity and numbers too large for a double are not allowed",
            remedy="write a finite number",
        )
        raise UserError(number)
    return value


_STRING_OR_COMMENT = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|//[^\n]*|/\*.*?\*/', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


def _find_lost_backslash(text: str) -> int | None:
    """Find the first single backslash of a string that JSON5 drops, as it does before most letters."""
    for found in _STRING_OR_COMMENT.finditer(text):
        if found[0][0] in "\"'":
            for escape in _ESCAPE.finditer(found[0]):
                if escape[1] not in "\"'\\/bfnrtuvx0\r\n":
                    return found.start() + escape.start()
    return None


def _read_text(path: Path) -> str:
    try:
        with files.open_plain(path) as file:
            data = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise UserError(_explain_missing(path)) from None
    except OSError as error:
        if path.is_dir():
            raise UserError.about(
                str(path), "is a folder, not a config file", remedy=f"name a file: {_list_configs(path)}"
            ) from None
        raise UserError.about(
            str(path), f"cannot be read: {files.explain(error)}", remedy="check the path and its rights"
        ) from None
    if len(data) > LARGEST_FILE:
        raise UserError.about(
            str(path),
            "is too large for a config file",
            expected=f"at most {LARGEST_FILE // 1024} KiB of JSON",
            remedy="check that this is the config and not, say, a file of weights",
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = _locate(data[: error.start].decode("utf-8", "replace"))
        raise UserError.about(
            f"{path}: line {line}, column {column}",
            "is not UTF-8 text",
            got=f"byte 0x{data[error.start]:02x}",
            remedy="save the file as UTF-8 in your editor",
        ) from None


def _explain_missing(path: Path) -> Problem:
    return Problem(str(path), "does not exist", remedy=f"name an existing file: {_list_configs(path.parent)}")


def _list_configs(folder: Path) -> str:
    """List the JSON files in a folder, for a remedy; if there are none, the config that comes with the program."""
    try:
        names = sorted(str(entry) for entry in folder.glob("*.json") if entry.name != "schema.json")
    except OSError:
        names = []
    return ", ".join(names[:8]) or "configs/config_SBI.json is the shipped one"


def _explain_syntax(message: str, text: str, source: str) -> Problem:
    if duplicate := re.fullmatch(r'Duplicate key "(.*)" found in object', message, re.DOTALL):
        key = duplicate[1]
        lines = [number for number, line in enumerate(text.splitlines(), 1) if _mentions(line, key)]
        where = f" (lines {', '.join(map(str, lines))})" if len(lines) > 1 else ""
        return Problem(source, f'the key "{key}" is written twice{where}', remedy="keep one of them")
    if found := re.fullmatch(r"\S*?:(\d+) (.*) at column (\d+)", message, re.DOTALL):
        return Problem(
            f"{source}: line {found[1]}, column {found[3]}",
            "is not valid JSON",
            expected="JSON; comments (// and /* */) and trailing commas are allowed",
            got=found[2].removeprefix("Unexpected ").replace("\n", "\\n"),
            remedy="look for a missing comma, quotation mark or brace at or just before that place",
        )
    return Problem(source, f"is not valid JSON: {message[:200]}", remedy="check the file in an editor")


def _mentions(line: str, key: str) -> bool:
    """Whether a line of the file sets `key`; a hint for the message, not a parser."""
    return re.search(rf"(?<![\w$]){re.escape(key)}[\"']?\s*:", line.split("//")[0]) is not None


def _find_not_finite(value: Any, path: str) -> Iterator[str]:
    """List the key paths of NaN and infinite numbers."""
    if isinstance(value, float) and value - value != 0.0:
        yield path
    elif isinstance(value, dict):
        for key, inner in cast(dict[str, Any], value).items():
            yield from _find_not_finite(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for index, inner in enumerate(cast(list[Any], value)):
            yield from _find_not_finite(inner, f"{path}[{index}]")


def _locate(before: str) -> tuple[int, int]:
    """Compute line and column, from 1, of the character that follows the text `before`."""
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _name_kind(value: Any) -> str:
    if value is None:
        return "null"
    return {"list": "list", "str": "string", "bool": "boolean"}.get(type(value).__name__, "number")


DEEPEST_KEY = 8  # names in a dotted key; the shared keys need two


def apply_overrides(keys: dict[str, Any], items: Sequence[str]) -> dict[str, Any]:
    """Apply the values of `--set` to the keys, in order; the last one for a key wins.

    A value that can be read as JSON5 is that value; anything else (`1.pth`, `nan`, `weights/x.pth`) is text.

    Args:
        keys: The keys of a config file.
        items: Arguments of the form `a.b=value`.

    Returns:
        A changed copy.

    Raises:
        UserError: For arguments of another form.
    """
    changed = copy.deepcopy(keys)
    problems: list[Problem] = []
    for item in items:
        try:
            _apply(changed, item)
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
    return changed


def parse_value(text: str) -> Any:
    """Parse text that is JSON5; any other text is returned as it is.

    Comments are not allowed: `1//2` is text, and so is 1e999.
    """
    quoted = text.lstrip()[:1] in ("'", '"', "{", "[")
    if not text.strip() or (not quoted and ("//" in text or "/*" in text)):
        return text
    try:
        return parse_json5(text, "--set")
    except UserError as error:
        if "is written twice" in error.problems[0].what:
            raise
        return text


def _apply(keys: dict[str, Any], item: str) -> None:
    names, value = _split(item)
    group = keys
    for depth, name in enumerate(names[:-1]):
        inner = group.setdefault(name, {})
        if not isinstance(inner, dict):
            parent = ".".join(names[: depth + 1])
            raise UserError.about(
                f"--set {item}",
                f"{parent} has a single value, so it has no key {names[depth + 1]}",
                remedy=f"write --set {parent}=VALUE",
            )
        group = cast(dict[str, Any], inner)
    group[names[-1]] = value


def _split(item: str) -> tuple[list[str], Any]:
    key, equals, text = item.partition("=")
    names = key.strip().split(".")
    if not equals or len(names) > DEEPEST_KEY or not all(re.fullmatch(r"[A-Za-z_]\w*", name) for name in names):
        raise UserError.about(
            f"--set {item}",
            "is not of the form key=value",
            expected="a key, an equals sign, a value; a dot leads into a group",
            remedy="write it like --set lr=0.0001 or --set stage1.epoch=3, without spaces",
        )
    return names, parse_value(text)


def drop_overridden(keys: dict[str, Any], items: Sequence[str], section: type[TaskSection]) -> dict[str, Any]:
    """Let `--set KEY` override `data.KEY` of the file, and the other way round.

    A task's key may be in the group `data` or at the top level. Where the keys now have both, and only one of them
    comes from `--set`, the other is dropped.

    Args:
        keys: The keys of a config file, with every `--set`.
        items: The arguments of `--set`.
        section: The section class of the task.

    Returns:
        The keys that are left.
    """
    given = {item.partition("=")[0].strip() for item in items}
    group: Any = keys.get("data")
    if not section.flat_keys or not isinstance(group, dict):
        return keys
    inner = cast(dict[str, Any], group)
    twins = [name for name in section.model_fields if name in keys and name in inner]
    flat_wins = {name for name in twins if name in given and f"data.{name}" not in given}
    group_wins = {name for name in twins if f"data.{name}" in given and name not in given}
    kept: dict[str, Any] = {name: value for name, value in keys.items() if name not in group_wins}
    return {**kept, "data": {name: value for name, value in inner.items() if name not in flat_wins}}


def validate_keys(keys: Mapping[str, Any], task: type[TaskKind] | None) -> FileKeys:
    """Validate the keys of a config file.

    Args:
        keys: JSON values.
        task: The task whose keys may be among them; None for the keys of every task alone.

    Returns:
        The typed keys.

    Raises:
        UserError: With all problems.
    """
    unwritable = find_unwritable_text(keys)
    if unwritable:
        raise UserError(*unwritable)
    problems = find_bare_alpha(keys)
    if task is not None:
        keys = {"data": {}, **keys} if not task.Section.flat_keys else keys  # so that a missing key has its path
        problems += _find_duplicates(keys, task.Section)
    model = FileKeys if task is None else build_file_model(task, has_terms=_has_terms(keys))
    try:
        # Through JSON, so that strictness means JSON's types: a list may fill a tuple, a string may not fill a number.
        validated = model.model_validate_json(json.dumps(keys))
    except ValidationError as error:
        named = {problem.where for problem in problems}
        found = [problem for problem in explain(error, model, keys).problems if problem.where not in named]
        raise UserError(*problems, *found) from None
    if problems:
        raise UserError(*problems)
    return validated


def _has_terms(keys: Mapping[str, Any]) -> bool:
    groups: list[Any] = [keys, keys.get("stage1"), keys.get("stage2")]
    return any("terms" in group for group in groups if isinstance(group, Mapping))


def _find_duplicates(keys: Mapping[str, Any], section: type[TaskSection]) -> list[Problem]:
    """Return a problem for each task key that is given both in the group `data` and outside of it."""
    group: Any = keys.get("data")
    inner = cast(dict[str, Any], group) if isinstance(group, dict) else {}
    names = [name for name in section.model_fields if section.flat_keys and name in keys and name in inner]
    return [
        Problem(
            name,
            f"stands here and as data.{name}",
            got=f"{show(keys[name])} and {show(inner[name])}",
            remedy="keep one of them",
        )
        for name in names
    ]


def read_task_name(keys: Mapping[str, Any]) -> str:
    """Read the name of the task from the keys. Raises UserError where the key is misspelt or its value is no name."""
    near = difflib.get_close_matches("task", [key for key in keys if key not in FileKeys.model_fields], n=1, cutoff=0.7)
    if near and "task" not in keys:  # first, or the keys of the intended task would be called unknown
        raise UserError.about(near[0], "is not a known key", got=show(keys[near[0]]), remedy='did you mean "task"?')
    task: Any = keys.get("task", DEFAULT_TASK)
    if isinstance(task, str) and task:
        return task
    raise UserError.about(
        "task",
        "is not a known task",
        expected=f"a name such as {show(DEFAULT_TASK)}, or package.module:Class",
        got=show(task),
        remedy="write one of these, or leave the key out",
    )
