"""Finds, in the source, every function that opens a file for reading."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "lib" / "sharpstudent"

# What opens a file, by the last part of its name: of the standard library, of ours, and of the libraries that are used.
METHODS = {"read_text", "read_bytes", "open", "fromfile", "imread", "VideoCapture", "safe_open", "load_file", "ZipFile"}
METHODS |= {"InferenceSession", "readNet", "readNetFromTFLite", "readNetFromONNX", "readNetFromTflite", "Demuxer"}
METHODS |= {"open_file", "memory_map", "open_plain", "check_plain", "read_plain", "read_json", "compute_sha256"}
METHODS |= {"is_zipfile", "create", "load_config", "read_table"}
QUALIFIED = {
    "torch.load",
    "np.load",
    "json.load",
    "onnx.load",
    "tomllib.load",
    "pickle.load",
    "np.loadtxt",
    "files.read_text",
}
FREE = {"open", "read_text"}  # called by their bare names


def find_readers() -> set[str]:
    """Every function that reads, as `folder/file.py:function`, or `:Class.method`."""
    paths = [*sorted(PACKAGE.rglob("*.py")), *sorted(ROOT.glob("*.py"))]
    return {name for path in paths for name in _find_in(path)}


def _find_in(path: Path) -> Iterator[str]:
    place = path.relative_to(PACKAGE) if path.is_relative_to(PACKAGE) else path.relative_to(ROOT)
    for name, function in _list_functions(ast.parse(path.read_text(encoding="utf-8")), ""):
        if any(_reads(node) for node in ast.walk(function) if isinstance(node, ast.Call)):
            yield f"{place}:{name}"


def _list_functions(tree: ast.AST, prefix: str) -> Iterator[tuple[str, ast.AST]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{prefix}{node.name}", node
        elif isinstance(node, ast.ClassDef):
            yield from _list_functions(node, f"{prefix}{node.name}.")


def _reads(call: ast.Call) -> bool:
    function = call.func
    if isinstance(function, ast.Name):
        return (function.id in FREE or function.id in METHODS) and not _writes(call)
    if not isinstance(function, ast.Attribute):
        return False
    owner = function.value.id if isinstance(function.value, ast.Name) else ""
    if f"{owner}.{function.attr}" in QUALIFIED:
        return True
    return function.attr in METHODS and not _writes(call)


def _writes(call: ast.Call) -> bool:
    modes = [
        one.value for one in [*call.args, *(word.value for word in call.keywords)] if isinstance(one, ast.Constant)
    ]
    return any(isinstance(mode, str) and set(mode) & set("wax+") and len(mode) <= 3 for mode in modes)
