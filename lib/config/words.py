"""Words for the types and values of a JSON Schema property: shared by the error messages and the generated page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, cast

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
