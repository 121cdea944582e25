"""docs/migration.md names modules and names that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "lib" / "sharpstudent"


def find_module(name: str) -> Path | None:
    path = PACKAGE.joinpath(*name.split("."))
    return next((one for one in (path.with_suffix(".py"), path / "__init__.py") if one.is_file()), None)


def list_rows() -> list[tuple[str, str]]:
    modules = PAGE.partition("## Modules")[2]
    return re.findall(r"^\| `(\w[\w.]*\w)` \| (.*) \|$", modules, flags=re.MULTILINE)


def test_every_module_of_the_table_is_there_and_holds_the_names_that_went_to_it() -> None:
    rows = list_rows()
    assert len(rows) > 200
    for old, cell in rows:
        for part in () if cell.startswith("gone") else cell.split("; "):
            names, _, homes = part.rpartition(" in ")
            for home in re.findall(r"`([\w.]+)`", homes):
                path = find_module(home)
                assert path is not None, f"{old}: no module {home}"
                words = set(re.findall(r"\w+", path.read_text(encoding="utf-8")))
                assert set(re.findall(r"`(\w+)`", names)) <= words, f"{old}: {names} in {home}"


def test_modules_that_kept_their_names_are_there() -> None:
    kept = re.findall(r"`([\w.]+)`", PAGE.partition("These kept their names:")[2])
    assert kept
    assert [name for name in kept if find_module(name) is None] == []


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`sharpstudent\.([\w.]+)`", PAGE.partition("## Modules")[0]))))
def test_a_name_that_the_page_gives_in_full_is_there(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    if find_module(name) is not None or name == "tasks":
        return
    path = find_module(module)
    assert path is not None, name
    assert re.search(rf"\b(def|class) {attribute}\b|^{attribute} =", path.read_text(encoding="utf-8"), re.MULTILINE)
