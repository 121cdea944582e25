"""Reads a config file: JSON with comments. Whatever may be wrong with the file becomes one `UserError`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import json5

from lib.errors import Problem, UserError

LARGEST_FILE = 256 * 1024  # bytes; a config is a few KiB, and what is larger is some other file


def read_config_file(path: Path) -> dict[str, Any]:
    """The object in a JSON file with // and /* */ comments; a top-level "$schema" (for editors) is dropped."""
    keys = parse_json5(_read_text(path), str(path))
    if not isinstance(keys, dict):
        raise UserError(
            Problem(
                str(path),
                "does not hold a JSON object",
                expected='keys and values in braces, like { "epoch": 100 }',
                got=f"a JSON {_name_kind(keys)}",
                remedy="see configs/config_SBI.json for a complete file",
            )
        )
    found = cast(dict[str, Any], keys)
    schema = found.pop("$schema", "")
    if not isinstance(schema, str):
        raise UserError(Problem(f"{path}: $schema", "is not a string", remedy='write "$schema": "./schema.json"'))
    return found


def parse_json5(text: str, source: str) -> Any:
    """The value that `text` holds; `source` names it in messages. Refuses duplicate keys and numbers not finite."""
    if not text.strip():
        raise UserError(Problem(source, "is empty", remedy="see configs/config_SBI.json for a complete file"))
    try:
        value = json5.loads(text, allow_duplicate_keys=False)
    except RecursionError:
        raise UserError(
            Problem(source, "is nested too deeply", expected="at most two levels of braces", remedy="flatten it")
        ) from None
    except ValueError as error:
        raise UserError(_explain_syntax(str(error), text, source)) from None
    for key in _find_not_finite(value, ""):
        number = Problem(
            f"{source}: {key}" if key else source,
            "NaN, Infinity and numbers too large for a double are not allowed",
            remedy="write a finite number",
        )
        raise UserError(number)
    return value


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise UserError(_explain_missing(path)) from None
    except IsADirectoryError:
        raise UserError(
            Problem(str(path), "is a folder, not a config file", remedy=f"name a file: {_list_configs(path)}")
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            Problem(str(path), f"cannot be read: {reason}", remedy="check the path and its rights")
        ) from None
    if len(data) > LARGEST_FILE:
        raise UserError(
            Problem(
                str(path),
                "is too large for a config file",
                expected=f"at most {LARGEST_FILE // 1024} KiB of JSON",
                remedy="check that this is the config and not, say, a file of weights",
            )
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = _locate(data[: error.start].decode("utf-8", "replace"))
        raise UserError(
            Problem(
                f"{path}: line {line}, column {column}",
                "is not UTF-8 text",
                got=f"byte 0x{data[error.start]:02x}",
                remedy="save the file as UTF-8 in your editor",
            )
        ) from None


def _explain_missing(path: Path) -> Problem:
    return Problem(str(path), "does not exist", remedy=f"name an existing file: {_list_configs(path.parent)}")


def _list_configs(folder: Path) -> str:
    """The JSON files that lie in a folder, for a remedy; else the one that we ship."""
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
    """Key paths of NaN and infinite numbers."""
    if isinstance(value, float) and value - value != 0.0:
        yield path
    elif isinstance(value, dict):
        for key, inner in cast(dict[str, Any], value).items():
            yield from _find_not_finite(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for index, inner in enumerate(cast(list[Any], value)):
            yield from _find_not_finite(inner, f"{path}[{index}]")


def _locate(before: str) -> tuple[int, int]:
    """Line and column, from 1, of the place that follows `before`."""
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _name_kind(value: Any) -> str:
    if value is None:
        return "null"
    return {"list": "list", "str": "string", "bool": "boolean"}.get(type(value).__name__, "number")
