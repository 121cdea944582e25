"""The layout of the package: how many files it has, and names that stand for one thing only."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "lib" / "sharpstudent"
FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
MOST_FILES = 220 + 65  # engine, first task, new features (decisions 18, 34, 38, 42); a further task adds its own
ALIKE = {
    "__init__": "a package",
    "build": "from the config to the objects of its package",
    "run": "what a script starts",
    "command_line": "the options of a script, and those that a task or a step adds to them",
    "commands": "the subcommands of the engine, and those that a task adds",
    "task": "the contract, and the task that fulfils it",
    "section": "the keys of a config that its package reads",
    "registry": "what is found by a name",
    "renderer": "what every task draws and tells, and what the deepfake's does",
    "results": "the results of any evaluation, and what those of the deepfake have besides",
    "page": "report.html of any evaluation, and that of the deepfake",
    "verdict": "the sentences of any evaluation, and those of the deepfake",
    "guide": "the advice of the two-stage guide, and what it expects of the deepfake's data",
    "calibration": "how far probabilities may be believed, and the calibration of a detector",
    "curves": "the points of a curve, and how it is drawn",
    "manifest": "the file of a prepared set, and the source that reads it",
    "ffpp": "how FaceForensics++ lies on disk, and the source that reads it",
    "describe": "what a config says, and what a prepared set holds",
    "assemble": "parts to a prepared set, and figures to results",
}


def find_twins(names: Iterable[tuple[str, Path]]) -> dict[str, list[str]]:
    """Names that several files have."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name, path in names:
        found[name].append(str(path))
    return {name: paths for name, paths in found.items() if len(paths) > 1}


def list_classes(path: Path) -> list[str]:
    """The public classes of a file."""
    tree = ast.parse((PACKAGE / path).read_text(encoding="utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]


def list_tasks() -> list[str]:
    """The packages of tasks."""
    return sorted({path.parts[1] for path in FILES if path.parts[0] == "tasks" and len(path.parts) > 2})


def list_files(task: str) -> list[Path]:
    """The files of the engine and of one task: tasks do not know each other, and their names may be alike."""
    return [path for path in FILES if path.parts[0] != "tasks" or len(path.parts) == 2 or path.parts[1] == task]


def test_the_engine_and_its_first_task_keep_within_their_number_of_files() -> None:
    assert len(list_files("deepfake")) <= MOST_FILES


@pytest.mark.parametrize("task", list_tasks())
def test_a_public_class_has_a_name_of_its_own(task: str) -> None:
    assert find_twins((name, path) for path in list_files(task) for name in list_classes(path)) == {}


@pytest.mark.parametrize("task", list_tasks())
def test_files_share_a_name_for_a_reason_only(task: str) -> None:
    twins = find_twins((path.stem, path) for path in list_files(task))
    assert twins.keys() - ALIKE.keys() == set(), "give it another name, or the list a reason"


def test_a_reason_that_is_no_longer_needed_leaves_the_list() -> None:
    assert ALIKE.keys() - find_twins((path.stem, path) for path in FILES).keys() == set()
