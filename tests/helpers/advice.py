"""Finds the commands and options that the package's messages advise, so that a test can run each of them."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

LIB = Path(__file__).resolve().parents[2] / "lib" / "sharpstudent"
# Calls whose texts are the options themselves and their help.
DECLARE = ("add_argument", "add_option", "add_shared", "add_argument_group")
# Modules whose texts are command lines of other programs, or no command lines.
NOT_ADVICE = ("core/fetch.py", "report/environment.py", "report/chart.py")

_VALUE = r"""
    [A-Z]{2,}\b | \{\}(?:=\S*)? | [\w.\[\]{}]+=(?:\{\}|[^\s;,)'"`]+) | real\b | fake\b | all\b | auto\b | largest\b
"""
_ADVISED = re.compile(
    rf"""
    python\ (?:[\w./]+\.py|\{{\}})[^`;,)\n]*            # a script and its words
    | pip\ install\ [^`;,)]*
    | (?<=`)make\ [a-z-]+ | \bmake\ face-models
    | --allow\ [a-z]+-[a-z]+
    | (?<![\w(-])--[a-z][\w-]*(?:\ (?:{_VALUE}))?       # an option, and its value
    """,
    re.VERBOSE,
)


def list_advised() -> dict[str, list[str]]:
    """List what messages advise, with `{}` for what is filled in -> the places (file:line) that advise it."""
    found: dict[str, list[str]] = defaultdict(list)
    for file in sorted(LIB.rglob("*.py")):
        name = file.relative_to(LIB).as_posix()
        if name in NOT_ADVICE or file.name == "options.py" or file.name == "arguments.py":
            continue
        for line, text in _list_texts(ast.parse(file.read_text(encoding="utf-8"))):
            for match in _ADVISED.finditer(text):
                found[" ".join(match.group().split())].append(f"{name}:{line}")
    return dict(found)


def _list_texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """List the string literals that may be messages: no docstrings, no declarations of options, no bare options."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(id(node.value))
        if isinstance(node, ast.Call) and (_name_of(node.func) in DECLARE or _is_short_add(node.func)):
            skipped |= {id(inner) for inner in ast.walk(node)}
        if isinstance(node, ast.Assign) and any(_name_of(target) in _HELP for target in node.targets):
            skipped |= {id(inner) for inner in ast.walk(node)}
        if isinstance(node, ast.AnnAssign) and _name_of(node.target) in _HELP and node.value is not None:
            skipped |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and id(node) not in skipped:
            skipped |= {id(inner) for part in node.values for inner in ast.walk(part)}
            yield node.lineno, "".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in node.values)
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped
        if is_text and re.fullmatch(r"(-\w/)?--?[\w-]+", node.value) is None:
            yield node.lineno, node.value


_HELP = ("EXAMPLES", "EXIT_CODES", "PURPOSE", "USAGE", "MORE", "INSPECTIONS", "usage", "more", "epilog", "examples")


def _is_short_add(node: ast.AST) -> bool:
    """Whether it is `add`, as the parsers abbreviate `add_argument`; `problems.add` is no declaration."""
    return isinstance(node, ast.Name) and node.id == "add"


def _name_of(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
