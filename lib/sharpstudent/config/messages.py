"""Plain words for what is wrong with the keys of a config: key, what was expected, what came, remedy. The words for
types and values are those of the generated page, too.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sharpstudent.config.keys import NAME_BRANCH, NUMBER_BRANCH, OPTIONS_BRANCH, SCHEDULE_BRANCH
from sharpstudent.config.run_config import SCHEDULE_FIELDS, ScheduleSection
from sharpstudent.core.errors import Problem, UserError

LONGEST_VALUE = 80  # characters of a value that a message shows


def show(value: Any) -> str:
    """A value as a config file would spell it, cut where it is long; 0.00005 and not 5e-05."""
    if isinstance(value, float) and 1e-7 <= abs(value) < 1e7:
        return format(Decimal(repr(value)), "f")
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def describe_type(found: dict[str, Any]) -> str:
    """What a property accepts, in plain words: `a whole number, 1 or more`, `one of "sgd", "adamw"`, `text or null`."""
    options = list_options(found)
    if options:
        return ", or ".join(describe_type(option) for option in options)
    if "enum" in found:
        return f"one of {', '.join(show(choice) for choice in found['enum'])}"
    if "const" in found:
        return show(found["const"])
    if "$ref" in found:
        return "a schedule in braces" if found["$ref"].endswith("/ScheduleSection") else "a group of keys in braces"
    kinds = {"integer": "a whole number", "number": "a number", "string": "text", "boolean": "true or false"}
    kinds |= {"null": "null", "object": "a group of keys in braces", "array": "a list in brackets"}
    return kinds.get(str(found.get("type")), "a value") + _describe_bounds(found)


def _describe_bounds(found: dict[str, Any]) -> str:
    """`, above 0 and at most 1`, or nothing."""
    names = {"exclusiveMinimum": "above", "minimum": "at least", "exclusiveMaximum": "below", "maximum": "at most"}
    bounds = [f"{word} {_show_bound(found[key])}" for key, word in names.items() if key in found]
    return f", {' and '.join(bounds)}" if bounds else ""


def _show_bound(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else show(value)


def find_property(schema: dict[str, Any], path: Sequence[str | int]) -> dict[str, Any] | None:
    """The property that a key path leads to; groups are resolved through `$defs`, unions through their options."""
    place: dict[str, Any] = schema
    for name in path:
        inner = _step_into(schema, place, name)
        if inner is None:
            return None
        place = inner
    return place


def list_members(schema: dict[str, Any], path: Sequence[str | int]) -> list[str]:
    """The keys that the object at a path may hold; none where the path leads to no object."""
    place = find_property(schema, path)
    options = () if place is None else _flatten(schema, place)
    return [name for option in options for name in option.get("properties", {})]


def list_options(found: dict[str, Any]) -> list[dict[str, Any]]:
    """What a union is made of; nothing for what is no union."""
    return found.get("anyOf") or found.get("oneOf") or []


def list_keys(schema: dict[str, Any], prefix: str = "", place: dict[str, Any] | None = None) -> list[str]:
    """Every dotted key that a file may hold, groups before their members."""
    keys: list[str] = []
    properties = cast(dict[str, dict[str, Any]], _follow(schema, place or schema).get("properties", {}))
    for name, found in properties.items():
        keys.append(prefix + name)
        if "$ref" in found:
            keys += list_keys(schema, f"{prefix}{name}.", found)
    return keys


def _step_into(schema: dict[str, Any], place: dict[str, Any], name: str | int) -> dict[str, Any] | None:
    """The property or the item called `name`, in whichever option of `place` has one."""
    for option in _flatten(schema, place):
        if isinstance(name, int):
            inner = option.get("items")
        else:
            inner = option.get("properties", {}).get(name, option.get("additionalProperties"))
        if isinstance(inner, dict):
            return cast(dict[str, Any], inner)
    return None


def _flatten(schema: dict[str, Any], place: dict[str, Any]) -> list[dict[str, Any]]:
    """A property without references and unions: itself, or its options."""
    followed = _follow(schema, place)
    options = list_options(followed)
    return [inner for option in options for inner in _flatten(schema, option)] if options else [followed]


def _follow(schema: dict[str, Any], place: dict[str, Any]) -> dict[str, Any]:
    reference = place.get("$ref")
    return schema["$defs"][reference.rsplit("/", 1)[-1]] if isinstance(reference, str) else place


# Other programs' names for our keys, where the nearest spelling would mislead.
OTHER_NAMES = {
    "learning_rate": "lr",
    "base_lr": "lr",
    "epochs": "epoch",
    "num_epochs": "epoch",
    "max_epochs": "epoch",
    "tau": "temperature",
    "t": "temperature",
    "dropout": "student_dropout",
    "workers": "num_workers",
    "grad_clip": "clip_norm",
    "gpu": "device",
}


def explain(error: ValidationError, model: type[BaseModel], keys: Mapping[str, Any]) -> UserError:
    """One `Problem` a key, in the order of the file. `keys` is what was validated."""
    schema = model.model_json_schema()
    details = {_trim(detail, keys): detail for detail in error.errors(include_url=False)}
    order = {path: place for place, path in enumerate(_walk(keys))}
    problems = [
        problem
        for path, detail in sorted(details.items(), key=lambda d: order.get(d[0], 0))
        for problem in _explain_one(path, detail, schema)
    ]
    return UserError(*problems)


def find_bare_alpha(keys: Mapping[str, Any]) -> list[Problem]:
    """A key that is called just `alpha`, anywhere: two dialects read it in opposite ways, so it is never guessed. The
    task's own keys and options of models are no business of the loss.
    """
    found = [path for path in _walk(keys) if str(path[-1]).lower() == "alpha"]
    return [_refuse_alpha(path, keys) for path in found if path[0] not in _NOT_OF_THE_LOSS or len(path) == 1]


_NOT_OF_THE_LOSS = ("data", "student", "teacher", "teachers")


def find_unwritable_text(keys: Mapping[str, Any]) -> list[Problem]:
    """Keys or texts that no UTF-8 file can hold (lone surrogates) or no path can (NUL)."""
    return [
        Problem(_join(path), "holds characters that are not valid text", got=show(text), remedy="retype the text")
        for path in _walk(keys)
        for text in (_look_up(keys, path), path[-1])
        if isinstance(text, str) and re.search("[\ud800-\udfff\0]", text)
    ]


def _explain_one(path: tuple[str | int, ...], detail: ErrorDetails, schema: dict[str, Any]) -> list[Problem]:
    if detail["type"] == "schedule_fields":
        return _explain_fields(path, detail)
    if detail["type"] == "schedule_points":
        return [_explain_points(path, detail)]
    if detail["type"] in ("value_error", "assertion_error"):  # a check that the section of a task makes itself
        words = detail["msg"].split(", ", 1)[-1]
        return [Problem(_join(path), words, got=show(detail["input"]), remedy="see the keys of the task")]
    return [_explain_key(path, detail, schema)]


def _explain_fields(path: tuple[str | int, ...], detail: ErrorDetails) -> list[Problem]:
    """What a schedule lacks and what it has too much, each by its own place."""
    context = detail.get("ctx", {})
    needs, place = context["needs"], "" if path == ("config",) else f"{_join(path)}."
    missing = [
        Problem(
            f"{place}{name}",
            "is missing",
            expected=needs,
            got=context["given"],
            remedy=f'write "{name}": {_SAMPLES[name]}',
        )
        for name in context["missing"]
    ]
    extra = [
        Problem(
            f"{place}{name}",
            "does not belong to this kind of schedule",
            expected=needs,
            remedy=f'remove it, or choose a "kind" that has it: {_name_kinds(name)}',
        )
        for name in context["extra"]
    ]
    return missing + extra


def _explain_points(path: tuple[str | int, ...], detail: ErrorDetails) -> Problem:
    wrong: list[str] = detail.get("ctx", {})["wrong"]
    place = "points" if path == ("config",) else f"{_join(path)}.points"
    return Problem(
        place,
        f"has a key that is no epoch: {show(wrong[0])}" if wrong else "says nothing about epoch 1",
        expected="epochs from 1 on, in quotation marks, and the value from each on",
        remedy=f'write for instance "points": {_SAMPLES["points"]}',
    )


# What a remedy writes for a missing field.
_SAMPLES = {
    "kind": '"linear"',
    "value": "0.5",
    "start": "0.9",
    "end": "0.5",
    "epochs": "20",
    "stairs": "4",
    "points": '{"1": 0.9, "10": 0.5}',
}


def _name_kinds(field: str) -> str:
    kinds = [kind for kind, (needed, optional) in SCHEDULE_FIELDS.items() if field in needed | optional]
    return ", ".join(kinds)


def _explain_key(path: tuple[str | int, ...], detail: ErrorDetails, schema: dict[str, Any]) -> Problem:
    where = _join(path)
    if detail["type"] == "extra_forbidden":
        return Problem(where, "is not a known key", remedy=_suggest(path, schema))
    found = find_property(schema, path)
    if found is None:
        return Problem(where, detail["msg"], got=show(detail["input"]))
    siblings = list_members(schema, path[:-1])
    if detail["type"] == "missing":
        return Problem(
            where,
            "is missing",
            expected=describe_type(found),
            remedy=f'write "{path[-1]}": {_SAMPLES.get(str(path[-1]), "...")}',
        )
    return Problem(
        where,
        _name_mistake(detail["type"]),
        expected=f"{describe_type(found)}: {found.get('description', 'see docs/config.md')}",
        got=show(detail["input"]),
        remedy=_remedy(path, detail["input"], found, in_schedule=set(siblings) == set(ScheduleSection.model_fields)),
    )


def _name_mistake(kind: str) -> str:
    if kind.endswith("_type") or kind in ("int_from_float", "float_parsing", "int_parsing"):
        return "has a value of the wrong type"
    if kind == "literal_error":
        return "is not one of the choices"
    if kind in ("string_too_short", "string_type_too_short"):
        return "is empty"
    return "is out of range"


def _remedy(path: tuple[str | int, ...], value: Any, found: dict[str, Any], *, in_schedule: bool = False) -> str:
    """The shortest way from what came to something that is accepted."""
    name = path[-1]
    words = describe_type(found)
    choices: list[str] = found.get("enum", [])
    near = difflib.get_close_matches(value.lower(), choices, n=1, cutoff=0.7) if isinstance(value, str) else []
    if near:
        return f'did you mean "{name}": "{near[0]}"?'
    if isinstance(value, str) and not words.startswith(("text", "one of")) and _is_plain_value(value):
        return f'write it without quotation marks: "{name}": {value.strip().lower()}'
    if isinstance(value, float) and value.is_integer() and words.startswith("a whole number"):
        return f'write "{name}": {int(value)}'
    if isinstance(value, int | float) and not isinstance(value, bool) and words.startswith("text"):
        return f'write it in quotation marks: "{name}": "{value}" (--set \'{_join(path)}="{value}"\')'
    if in_schedule and name in _SAMPLES:
        return f'write for instance "{name}": {_SAMPLES[str(name)]}'
    if "null" in words:
        return f'write "{name}": null, or leave the key out'
    if "default" in found:
        return f'write for instance "{name}": {show(found["default"])} (the default), or leave the key out'
    return "see docs/config.md"


def _is_plain_value(text: str) -> bool:
    return re.fullmatch(r"\s*([-+]?[\d.]+(e[-+]?\d+)?|true|false|null)\s*", text, re.IGNORECASE) is not None


def _suggest(path: tuple[str | int, ...], schema: dict[str, Any]) -> str:
    """The nearest known name: in the same group, then the same name in another group, then anywhere."""
    *group, last = path
    prefix = "".join(f"{name}." for name in group)
    known = list_keys(schema)
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", str(last)).replace("-", "_").lower()
    if name in known and "." in name:
        outer, inner = name.split(".", 1)
        return f'a dot leads into a group only in --set; in the file write "{outer}": {{ "{inner}": ... }}'
    siblings = list_members(schema, group)
    alias = OTHER_NAMES.get(name, name)
    if alias in siblings:
        return f'did you mean "{prefix}{alias}"?'
    elsewhere = [key for key in known if key.split(".")[-1] == alias]
    if alias in elsewhere:  # of a task's key that has two places, one is enough to know
        elsewhere = [key for key in elsewhere if key != f"data.{alias}"]
    if elsewhere:
        return f"that key is known as {' and as '.join(elsewhere)}"
    near = difflib.get_close_matches(name, siblings if group else [*siblings, *known], n=1)
    if not near:
        return f"remove it; known here: {', '.join(siblings)}"
    return f'did you mean "{prefix}{near[0]}"?'


def _refuse_alpha(path: tuple[str | int, ...], keys: Mapping[str, Any]) -> Problem:
    value = _look_up(keys, path)
    as_hard, as_teacher = "...", "1 - ..."
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        as_hard, as_teacher = show(float(value)), show(round(1.0 - value, 12))
    return Problem(
        _join(path),
        "has two opposite meanings, so it is not guessed",
        expected='"alpha_start" and "alpha_end", which always weigh the HARD labels',
        got=f'"{path[-1]}": {show(value)}',
        remedy=f"if you mean the weight of the HARD labels (alpha * hard + (1 - alpha) * teacher, as in the two-stage "
        f'guide and the token task), write "alpha_end": {as_hard}; '
        f"if you mean the weight of the TEACHER (as most other recipes do), "
        f'write "alpha_end": {as_teacher}. A constant weight also needs "use_progressive_distillation": false',
    )


def _trim(detail: ErrorDetails, keys: Mapping[str, Any]) -> tuple[str | int, ...]:
    """The error's place as a path in the user's own keys: pydantic appends the tried member of a union to it."""
    place: Any = keys
    path: list[str | int] = []
    for part in detail["loc"]:
        if part in (NUMBER_BRANCH, SCHEDULE_BRANCH, NAME_BRANCH, OPTIONS_BRANCH):
            continue
        inside = (isinstance(place, Mapping) and part in place) or (
            isinstance(place, list) and isinstance(part, int) and part < len(cast(list[Any], place))
        )
        if not inside and detail["type"] != "missing":
            break
        path.append(part)
        place = cast(Any, place)[part] if inside else None
    return tuple(path) or ("config",)


def _walk(keys: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every path in nested objects and lists, outer before inner, in the order of the file."""
    items: Any = ()
    if isinstance(keys, Mapping):
        items = cast(Mapping[str, Any], keys).items()
    elif isinstance(keys, list):
        items = enumerate(cast(list[Any], keys))
    for name, value in items:
        yield (*path, name)
        yield from _walk(value, (*path, name))


def _look_up(keys: Any, path: tuple[str | int, ...]) -> Any:
    for name in path:
        keys = keys[name]
    return keys


def _join(path: tuple[str | int, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
    return text if text.isprintable() and text else json.dumps(text)
