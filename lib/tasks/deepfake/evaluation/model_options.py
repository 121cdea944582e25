"""[NAME=]VALUE options: what is said of a model whose file does not say it itself."""

from __future__ import annotations

import math
import re
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lib.errors import Problem, ProblemList, UserError
from lib.report.results import Role
from lib.tasks.deepfake.evaluation.wishes import ModelWish

Wished = tuple[str | None, Path, Role]
_NAMED = re.compile(r"(?P<name>[^=/\\]+)=(?P<path>.+)")


def split_name(word: str) -> tuple[str | None, Path]:
    """NAME=PATH in its parts; a path that is there with a = in it is meant as it stands."""
    found = _NAMED.fullmatch(word)
    if found is None or Path(word).exists():
        return None, Path(word)
    return found["name"], Path(found["path"])


def build_wishes(read: Namespace, wished: Sequence[Wished]) -> tuple[ModelWish, ...]:
    """Each model with the values that are meant for it: those with its name, else those without a name.

    Raises UserError, all problems together, for values that are none and for names that no model has.
    """
    problems = ProblemList()
    values: dict[str, dict[str | None, Any]] = {}
    for key, reader in _READERS.items():
        try:
            values[key] = _read_named(getattr(read, key), f"--{key.replace('_', '-')}", reader)
        except UserError as error:
            problems.take(error)
    known = {name for name, _, _ in wished}
    for key, named in values.items():
        for name in named.keys() - known - {None}:
            what = f"is for a model called {name}, and there is none"
            got = f"models: {', '.join(sorted(name for name in known if name)) or 'none with a name'}"
            problems.add(Problem(f"--{key.replace('_', '-')}", what, got=got, remedy=f"call it {name}=MODEL"))
    problems.raise_if_any()
    return tuple(
        ModelWish(path, name, role, **{key: named.get(name, named.get(None)) for key, named in values.items()})
        for name, path, role in wished
    )


def _read_named(words: Sequence[str], option: str, reader: Callable[[str], Any]) -> dict[str | None, Any]:
    """[NAME=]VALUE by name, None for that of all others."""
    found: dict[str | None, Any] = {}
    for word in words:
        name, _, text = word.rpartition("=")
        value = reader(text) if text else None
        if value is None or (name or None) in found:
            what = "is given twice" if value is not None else "is no value for it"
            remedy = f"one {option} for all, or {option} NAME=...; such as {option} {_EXAMPLES[reader]}"
            raise UserError(Problem(option, what, got=word, remedy=remedy))
        found[name or None] = value
    return found


def _read_text(text: str) -> str:
    return text


def _read_size(text: str) -> int | None:
    return int(text) if text.isdecimal() and 32 <= int(text) <= 2048 else None


def _read_classes(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


def _read_colour(text: str) -> tuple[float, float, float] | None:
    try:
        red, green, blue = (float(word) for word in text.split(","))
    except ValueError:
        return None
    return (red, green, blue) if all(map(math.isfinite, (red, green, blue))) else None


_READERS: dict[str, Callable[[str], Any]] = {
    "architecture": _read_text,
    "image_size": _read_size,
    "classes": _read_classes,
    "mean": _read_colour,
    "std": _read_colour,
}
_EXAMPLES = {
    _read_text: "efficientnet-b4",
    _read_size: "380 (32 to 2048 pixels)",
    _read_classes: "fake,real",
    _read_colour: "0.5,0.5,0.5",
}
