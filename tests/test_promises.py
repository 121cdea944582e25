"""docs/promises.md keeps its own promise: every row once, every test and command that it names is there."""

from __future__ import annotations

import ast
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "promises.md"
LAST = 71
STATUSES = ("kept", "measured instead", "open")


@dataclass(frozen=True)
class Row:
    """One promise. shown: what stands in backticks in the last column; text: the column as it is."""

    number: str
    promise: str
    status: str
    shown: tuple[str, ...]
    text: str

    @property
    def tests(self) -> list[str]:
        return [item for item in self.shown if item.startswith("tests/")]

    @property
    def commands(self) -> list[str]:
        return [item for item in self.shown if not item.startswith("tests/")]


def read_rows(starts: tuple[str, ...] = ("D-",)) -> list[Row]:
    rows: list[Row] = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith(tuple(f"| {start}" for start in starts)):
            number, promise, status, text = (cell.strip() for cell in line.strip("|").split("|"))
            rows.append(Row(number, promise, status, tuple(re.findall(r"`([^`]+)`", text)), text))
    return rows


@cache
def list_tests(path: Path) -> frozenset[str]:
    """Names of the test functions of a file, without importing it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name[:5] == "test_")


def test_every_promise_of_the_guide_has_one_row_in_order() -> None:
    assert [row.number for row in read_rows()] == [f"D-{i:03}" for i in range(1, LAST + 1)]


def test_every_row_says_what_is_promised_and_has_a_known_status() -> None:
    for row in read_rows():
        assert row.promise, row.number
        assert row.status in STATUSES, row.number


def test_the_counts_at_the_top_are_those_of_the_rows() -> None:
    counts = Counter(row.status for row in read_rows())
    wanted = ", ".join(f"{counts[status]} {status}" for status in STATUSES)
    assert f"**{wanted}.**" in PAGE.read_text(encoding="utf-8")


def test_a_kept_promise_names_a_test_a_measured_one_a_command_and_an_open_one_what_is_missing() -> None:
    for row in read_rows():
        if row.status == "kept":
            assert row.tests, f"{row.number} names no test"
        elif row.status == "measured instead":
            assert row.commands, f"{row.number} names no command"
        else:
            assert re.search(r"\bnot\b", re.sub(r"`[^`]+`", "", row.text)), f"{row.number} does not say what is missing"


def test_every_test_that_the_page_names_exists() -> None:
    absent: list[str] = []
    for row in read_rows():
        for node in row.tests:
            path, _, name = node.partition("::")
            file = ROOT / path
            if not file.is_file() or name.partition("[")[0] not in list_tests(file):
                absent.append(f"{row.number}: {node}")
    assert not absent, "\n".join(absent)


def test_every_command_that_the_page_names_can_be_given() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for row in read_rows():
        for command in row.commands:
            program, *words = command.split()
            assert program in ("make", "python"), f"{row.number}: {command}"
            if program == "make":
                assert set(words) <= targets, f"{row.number}: {command}"
            else:
                files = [word for word in words if word.endswith((".py", ".json"))]
                assert files, f"{row.number}: {command}"
                assert all((ROOT / file).is_file() for file in files), f"{row.number}: {command}"


@pytest.mark.parametrize("authors_and_year", ["Hinton.*2015", "Foret.*2020", "Mehta.*Rastegari.*2022"])
def test_the_readme_cites_the_three_papers_of_the_guide(authors_and_year: str) -> None:
    assert re.search(authors_and_year, (ROOT / "README.md").read_text(encoding="utf-8"))


def test_every_test_that_another_page_names_is_there() -> None:
    page = ROOT / "docs" / "reliability.md"
    named = re.findall(r"`(tests/[^`]+)`", page.read_text(encoding="utf-8"))
    assert len(named) > 20
    for item in named:
        file, _, name = item.partition("::")
        assert (ROOT / file).is_file(), item
        assert not name or name in list_tests(ROOT / file), item


def test_every_row_about_token_transformers_has_a_known_status_and_tests_that_are_there() -> None:
    rows = read_rows(("T-", "O-"))
    assert rows
    for row in rows:
        assert row.status in STATUSES, row.number
        assert row.tests, row.number
        for node in row.tests:
            path, name = node.split("::")
            assert name in list_tests(ROOT / path), node
