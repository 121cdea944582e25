"""Messages about wrong keys of a config: the key, what was expected, what was found, a remedy.

The words for types and values are those of docs/config.md.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sharpstudent.config.run_config import BRANCH, UNKNOWN_MEMBER
from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.schedules import KINDS

KeyPath = tuple[str | int, ...]  # keys and places in lists, from the top of a file
LONGEST_VALUE = 80  # characters of a value that a message shows
_NAMED_TYPES = {"AnySchedule": "a schedule in braces", "Terms": "a list in brackets"}


def show(value: Any) -> str:
    """Write a value as a config file would spell it (0.00005 and not 5e-05), and cut it where it is long."""
    if isinstance(value, float) and 1e-7 <= abs(value) < 1e7:
        return format(Decimal(repr(value)), "f")
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def describe_type(found: dict[str, Any]) -> str:
    """Say what a property accepts: `a whole number, 1 or more`, `one of "sgd", "adamw"`, `text or null`."""
    options = found.get("anyOf") or found.get("oneOf")
    if options:
        return ", or ".join(dict.fromkeys(describe_type(option) for option in options))
    if "enum" in found:
        return f"one of {', '.join(show(choice) for choice in found['enum'])}"
    if "const" in found:
        return show(found["const"])
    if "$ref" in found:
        return _NAMED_TYPES.get(found["$ref"].rpartition("/")[2], "a group of keys in braces")
    kinds = {"integer": "a whole number", "number": "a number", "string": "text", "boolean": "true or false"}
    kinds |= {"null": "null", "object": "a group of keys in braces", "array": "a list in brackets"}
    return kinds.get(str(found.get("type")), "a value") + _describe_bounds(found)


def describe_usual(found: Mapping[str, Any]) -> str:
    """Write the usual range of a number: `0.5 to 50`, `at most 1`, `0.9 or more`."""
    low, high = found["low"], found["high"]
    if low is None:
        return f"at most {_show_bound(high)}"
    return f"{_show_bound(low)} or more" if high is None else f"{_show_bound(low)} to {_show_bound(high)}"


def _describe_bounds(found: dict[str, Any]) -> str:
    """Describe the bounds of a number, as in `, above 0 and at most 1`; empty text for a number without bounds."""
    names = {"exclusiveMinimum": "above", "minimum": "at least", "exclusiveMaximum": "below", "maximum": "at most"}
    bounds = [f"{word} {_show_bound(found[key])}" for key, word in names.items() if key in found]
    return f", {' and '.join(bounds)}" if bounds else ""


def _show_bound(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else show(float(value))


def find_property(schema: dict[str, Any], path: KeyPath, keys: Any = None) -> dict[str, Any] | None:
    """Find the property that a key path leads to; None where there is none.

    Args:
        schema: The JSON schema of a model. Groups are found through its `$defs`.
        path: The keys and places from the top.
        keys: What the user wrote, which chooses among the members of a union; None for the first one that fits.
    """
    place: dict[str, Any] | None = schema
    for name in path:
        found = [_find_member(option, name) for option in list_options(schema, place, keys)]
        place = next((member for member in found if member is not None), None)
        if place is None:
            return None
        keys = _step_into(keys, name)
    return place


def _find_member(place: dict[str, Any], name: str | int) -> dict[str, Any] | None:
    """Find the schema of the property of this name, of any additional property, or of an item of a list."""
    places = cast(list[Any], place.get("prefixItems", []))  # of a list of fixed length
    if isinstance(name, int) and name < len(places):
        return cast(dict[str, Any], places[name])
    any_other = place.get("items" if isinstance(name, int) else "additionalProperties")
    found = place.get("properties", {}).get(name, any_other)
    return cast(dict[str, Any], found) if isinstance(found, dict) else None


def list_members(schema: dict[str, Any], path: KeyPath, keys: Any = None) -> list[str]:
    """List the keys that an object may have.

    Args:
        schema: The JSON schema of a model.
        path: The keys and places that lead to the object.
        keys: As in `find_property`.

    Returns:
        Their names; none where the path leads to no object.
    """
    place = find_property(schema, path, keys)
    for name in path:
        keys = _step_into(keys, name)
    options = [] if place is None else list_options(schema, place, keys)
    return [name for option in options for name in option.get("properties", {})]


def list_options(schema: dict[str, Any], place: dict[str, Any], keys: Any = None) -> list[dict[str, Any]]:
    """List the alternatives of a property, with references and unions resolved.

    Args:
        schema: The JSON schema of a model.
        place: The property in it.
        keys: What the user wrote there; it excludes members of a union that are of another kind. None for all members.

    Returns:
        The property itself, or the members of its union.
    """
    if "$ref" in place:
        return list_options(schema, schema["$defs"][place["$ref"].rsplit("/", 1)[-1]], keys)
    union = place.get("anyOf") or place.get("oneOf")
    if union:
        return [found for option in union for found in list_options(schema, option, keys)]
    words = {name: found["const"] for name, found in place.get("properties", {}).items() if "const" in found}
    given = cast(Mapping[str, Any], keys) if isinstance(keys, Mapping) else words
    is_other = any(given.get(name) != word for name, word in words.items())
    return [] if is_other else [place]


def list_keys(schema: dict[str, Any], prefix: str = "", place: dict[str, Any] | None = None) -> list[str]:
    """List every dotted key that a file may have, groups before their members.

    Args:
        schema: The JSON schema of a model.
        prefix: What to put before the keys, such as `stage1.`.
        place: The object in the schema whose keys are listed; None for the top.

    Returns:
        The keys.
    """
    keys: list[str] = []
    for name, found in (place or schema).get("properties", {}).items():
        keys.append(prefix + name)
        if "$ref" in found:
            keys += list_keys(schema, f"{prefix}{name}.", list_options(schema, found)[0])
    return keys


# Names that other programs use for our keys; the nearest spelling would suggest a wrong key for these.
OTHER_NAMES = {
    "learning_rate": "lr",
    "base_lr": "lr",
    "dialect": "preset",
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
    """Turn an error of pydantic into problems: one for each key, in the order of the file.

    Args:
        error: The error.
        model: The model that was validated.
        keys: What was validated.

    Returns:
        The error with these problems.
    """
    schema = model.model_json_schema()
    details = {_trim(detail, keys): detail for detail in error.errors(include_url=False)}
    order = {path: place for place, path in enumerate(_walk(keys))}
    paths = sorted(details, key=lambda path: order.get(path, 0))
    return UserError(*(_explain_one(path, details[path], schema, keys) for path in paths))


def find_bare_alpha(keys: Mapping[str, Any]) -> list[Problem]:
    """Return a problem for each key that is called just `alpha`.

    Training recipes use this name for the weight of the hard labels or for that of the teacher, so its meaning is never
    guessed. The keys of a task, options of models and those of `tune` are not searched.
    """
    found = [path for path in _walk(keys) if str(path[-1]).lower() == "alpha" and path[-2:-1] != ("tune",)]
    return [_refuse_alpha(path, keys) for path in found if path[0] not in _NOT_OF_THE_LOSS or len(path) == 1]


_NOT_OF_THE_LOSS = ("data", "student", "teacher", "teachers")


def find_unwritable_text(keys: Mapping[str, Any]) -> list[Problem]:
    """Return a problem for each text that cannot be in a UTF-8 file (lone surrogates) or in a path (NUL)."""
    return [
        Problem(_join(path), "has characters that are not valid text", got=show(text), remedy="retype the text")
        for path in _walk(keys)
        for text in (_look_up(keys, path), path[-1])
        if isinstance(text, str) and re.search("[\ud800-\udfff\0]", text)
    ]


def _explain_one(path: KeyPath, detail: ErrorDetails, schema: dict[str, Any], keys: Mapping[str, Any]) -> Problem:
    where, kind, context = _join(path), detail["type"], detail.get("ctx", {})
    name, sample = path[-1], _SAMPLES.get(str(path[-1]), "...")
    if kind == "own_words":
        return Problem(where, context["what"], context["expected"], show(detail["input"]), context["remedy"])
    if kind == UNKNOWN_MEMBER:
        return _explain_member(where, detail["input"], list_options(schema, find_property(schema, path, keys) or {}))
    if kind in ("value_error", "assertion_error"):  # from the points of a schedule or a validator of a task's section
        remedy = f'write for instance "{name}": {sample}' if name in _SAMPLES else "see the keys of the task"
        return Problem(where, str(context["error"]), got=show(detail["input"]), remedy=remedy)
    found = find_property(schema, path, keys)
    if found is None:  # an earlier name of a key
        found = find_property(schema, (*path[:-1], OTHER_NAMES.get(str(name), name)), keys)
    if kind == "unexpected_keyword_argument" and name in _SAMPLES:
        kinds = ", ".join(kind for kind, model in KINDS.items() if str(name) in model.__dataclass_fields__)
        remedy = f'remove it, or choose a "kind" that has it: {kinds}'
        return Problem(where, "does not belong to this kind of schedule", remedy=remedy)
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return Problem(where, "is not a known key", remedy=_suggest(path, schema, keys))
    if found is None:
        return Problem(where, detail["msg"], got=show(detail["input"]))
    if kind == "missing":
        expected = f"{describe_type(found)}: {found['description']}" if "description" in found else describe_type(found)
        return Problem(where, "is missing", expected, remedy=f'write "{name}": {sample}')
    return Problem(
        where,
        _name_mistake(kind),
        expected=f"{describe_type(found)}: {found.get('description', 'see docs/config.md')}",
        got=show(detail["input"]),
        remedy=_remedy(path, detail["input"], found, "complement" in list_members(schema, path[:-1], keys)),
    )


def _explain_member(where: str, value: Any, options: list[dict[str, Any]]) -> Problem:
    """Explain an object whose kind is missing or unknown; one of its keys, such as `kind` or `term`, names the kind."""
    if not isinstance(value, Mapping):
        return Problem(where, "has a value of the wrong type", "a group of keys in braces", show(value), _SEE)
    objects = [option["properties"] for option in options if "properties" in option]
    key = next(name for name, found in objects[0].items() if "const" in found)
    choices = {members[key]["const"]: members[key].get("description") for members in objects}
    word = cast(Mapping[str, Any], value).get(key)
    near = difflib.get_close_matches(word.lower(), choices, n=1) if isinstance(word, str) else []
    return Problem(
        f"{where}.{key}",
        f"is not a known {key}" if key in value else "is missing",
        expected="; ".join(f"{name}: {meaning}" if meaning else name for name, meaning in choices.items()),
        got=show(word) if key in value else None,
        remedy=f'did you mean "{key}": "{near[0]}"?' if near else f'write for instance "{key}": "{[*choices][1]}"',
    )


# Examples that a remedy gives for a missing field of a schedule.
_SAMPLES = {
    "value": "0.5",
    "start": "0.9",
    "end": "0.5",
    "epochs": "20",
    "stairs": "4",
    "points": '{"1": 0.9, "10": 0.5}',
}
_SEE = "see docs/config.md"


def _name_mistake(kind: str) -> str:
    if kind.endswith("_type") or kind in ("int_from_float", "float_parsing", "int_parsing"):
        return "has a value of the wrong type"
    if kind == "literal_error":
        return "is not one of the choices"
    if kind == "string_too_short":
        return "is empty"
    return "is out of range"


def _remedy(path: KeyPath, value: Any, found: dict[str, Any], in_schedule: bool) -> str:
    """Advise the smallest change that makes the value valid."""
    name = path[-1]
    words = describe_type(found)
    options = cast(list[dict[str, Any]], [found, *found.get("anyOf", []), *found.get("oneOf", [])])
    words_of_choice = [word for option in options for word in option.get("enum", [])]
    choices = [word for word in words_of_choice if isinstance(word, str)]  # true and false may be others
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
    return _SEE


def _is_plain_value(text: str) -> bool:
    return re.fullmatch(r"\s*([-+]?[\d.]+(e[-+]?\d+)?|true|false|null)\s*", text, re.IGNORECASE) is not None


def _suggest(path: KeyPath, schema: dict[str, Any], keys: Mapping[str, Any]) -> str:
    """Suggest a known name: the nearest in the group, else the same one in another group, else the nearest anywhere."""
    group, last = path[:-1], path[-1]
    prefix = f"{_join(group)}." if group else ""
    known = list_keys(schema)
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", str(last)).replace("-", "_").lower()
    if name in known and "." in name:
        outer, inner = name.split(".", 1)
        return f'a dot leads into a group only in --set; in the file write "{outer}": {{ "{inner}": ... }}'
    siblings = list_members(schema, group, keys)
    alias = OTHER_NAMES.get(name, name)
    if alias in siblings:
        return f'did you mean "{prefix}{alias}"?'
    elsewhere = [key for key in known if key.split(".")[-1] == alias]
    if alias in elsewhere:  # a task's key may have two places; one is enough for the message
        elsewhere = [key for key in elsewhere if key != f"data.{alias}"]
    if elsewhere:
        return f"that key is known as {' and as '.join(elsewhere)}"
    near = difflib.get_close_matches(name, siblings if group else [*siblings, *known], n=1)
    if not near:
        nearest = difflib.get_close_matches(name, siblings, n=3, cutoff=0.0)
        return f"remove it; the nearest keys here: {', '.join(nearest)}; docs/config.md explains all {len(siblings)}"
    return f'did you mean "{prefix}{near[0]}"?'


def _refuse_alpha(path: KeyPath, keys: Mapping[str, Any]) -> Problem:
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


def _trim(detail: ErrorDetails, keys: Mapping[str, Any]) -> KeyPath:
    """Return the path of the wrong key in the user's file: pydantic's location without the tags of unions."""
    place: Any = keys
    path: list[str | int] = []
    for part in detail["loc"]:
        if str(part).startswith(BRANCH):
            continue
        inner = _step_into(place, part)
        if inner is None and not _has(place, part) and detail["type"] != "missing":
            break
        path.append(part)
        place = inner
    return tuple(path) or ("config",)


def _has(place: Any, name: str | int) -> bool:
    return isinstance(place, Mapping) and name in place


def _step_into(place: Any, name: str | int) -> Any:
    """Return the value of a key, or the item at a place in a list; None where there is none."""
    if isinstance(place, Mapping):
        return cast(Mapping[str | int, Any], place).get(name)
    is_inside = isinstance(place, list) and isinstance(name, int) and name < len(cast(list[Any], place))
    return cast(list[Any], place)[cast(int, name)] if is_inside else None


def _walk(keys: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """List every path in nested objects and lists, outer before inner, in the order of the file."""
    items: Any = ()
    if isinstance(keys, Mapping):
        items = cast(Mapping[str, Any], keys).items()
    elif isinstance(keys, list):
        items = enumerate(cast(list[Any], keys))
    for name, value in items:
        yield (*path, name)
        yield from _walk(value, (*path, name))


def _look_up(keys: Any, path: KeyPath) -> Any:
    for name in path:
        keys = keys[name]
    return keys


def _join(path: KeyPath) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
    return text if text.isprintable() and text else json.dumps(text)
