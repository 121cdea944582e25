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
    if "anyOf" in found:
        return ", or ".join(describe_type(option) for option in found["anyOf"])
    if "enum" in found:
        return f"one of {', '.join(show(choice) for choice in found['enum'])}"
    if "const" in found:
        return show(found["const"])
    if "$ref" in found:
        return "a group of keys in braces"
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
    """The property that a key path leads to; groups are resolved through `$defs`."""
    place: dict[str, Any] = schema
    for name in path:
        properties = _follow(schema, place).get("properties", {})
        if name not in properties:
            return None
        place = properties[name]
    return place


def list_keys(schema: dict[str, Any], prefix: str = "", place: dict[str, Any] | None = None) -> list[str]:
    """Every dotted key that a file may hold, groups before their members."""
    keys: list[str] = []
    properties = cast(dict[str, dict[str, Any]], _follow(schema, place or schema).get("properties", {}))
    for name, found in properties.items():
        keys.append(prefix + name)
        if "$ref" in found:
            keys += list_keys(schema, f"{prefix}{name}.", found)
    return keys


def _follow(schema: dict[str, Any], place: dict[str, Any]) -> dict[str, Any]:
    reference = place.get("$ref")
    return schema["$defs"][reference.rsplit("/", 1)[-1]] if isinstance(reference, str) else place
