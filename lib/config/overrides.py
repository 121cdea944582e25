"""`--set a.b=value`: changes keys of a config after the file has been read."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any, cast

from lib.config.read import parse_json5
from lib.errors import Problem, ProblemList, UserError

DEEPEST_KEY = 8  # names in a dotted key; the shared keys need two


def apply_overrides(keys: dict[str, Any], items: Sequence[str]) -> dict[str, Any]:
    """A copy of `keys` with every `a.b=value` applied in order; the last one for a key wins.

    A value that reads as JSON5 is that value; anything else (`1.pth`, `nan`, `weights/x.pth`) is the text itself.
    """
    changed = copy.deepcopy(keys)
    problems = ProblemList()
    for item in items:
        try:
            _apply(changed, item)
        except UserError as error:
            problems.take(error)
    problems.raise_if_any()
    return changed


def parse_value(text: str) -> Any:
    """JSON5 where it parses, else the text. No comments: `1//2` is text, and so are NaN and 1e999."""
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
            raise UserError(
                Problem(
                    f"--set {item}",
                    f"{parent} holds a single value, so it has no key {names[depth + 1]}",
                    remedy=f"write --set {parent}=VALUE",
                )
            )
        group = cast(dict[str, Any], inner)
    group[names[-1]] = value


def _split(item: str) -> tuple[list[str], Any]:
    key, equals, text = item.partition("=")
    names = key.strip().split(".")
    if not equals or len(names) > DEEPEST_KEY or not all(re.fullmatch(r"[A-Za-z_]\w*", name) for name in names):
        raise UserError(
            Problem(
                f"--set {item}",
                "is not of the form key=value",
                expected="a key, an equals sign, a value; a dot leads into a group",
                remedy="write it like --set lr=0.0001 or --set stage1.epoch=3, without spaces",
            )
        )
    return names, parse_value(text)
