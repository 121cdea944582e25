"""Any name becomes printable text, and no absolute path, home folder or user stays in what is passed on."""

from __future__ import annotations

import ast
import csv
import io
import json
import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sharpstudent.core.naming import (
    SOURCE_FOLDER,
    PathHider,
    clean_name,
    escape_cell,
    format_csv,
    name_file,
    printable,
    printable_lines,
    unescape_cell,
)

HOSTILE = {
    os.fsdecode(b"caf\xe9.png"): "caf⟨U+DCE9⟩.png",
    "a\nEpoch 9/9 | loss 0.0": "a⟨U+000A⟩Epoch 9/9 | loss 0.0",
    "red\x1b[31m\x07": "red⟨U+001B⟩[31m⟨U+0007⟩",
    "gpj\u202egnp.exe": "gpj⟨U+202E⟩gnp.exe",
    "a\u2028b\u2029c\x85d": "a⟨U+2028⟩b⟨U+2029⟩c⟨U+0085⟩d",
    "zero\u200bwidth\ufeff": "zero⟨U+200B⟩width⟨U+FEFF⟩",
}


@pytest.mark.parametrize(("name", "shown"), HOSTILE.items())
def test_each_kind_of_hostile_name_becomes_visible(name: str, shown: str) -> None:
    assert printable(name) == shown


@pytest.mark.parametrize("name", ["plain.png", "Zoë/Müller 3.jpg", "李明.png", "👩\u200d👩\u200d👧", "क्\u200dष", ""])
def test_a_name_without_them_is_not_changed(name: str) -> None:
    assert printable(name) == name


@given(st.text(st.characters(codec=None)))
def test_any_name_becomes_one_line_of_utf_8_and_stays_so(name: str) -> None:
    shown = printable(name)
    assert len(shown.encode("utf-8").decode().splitlines()) <= 1
    assert not any(unicodedata.category(c) in ("Cc", "Cs") or c in "\u202a\u202e\u2066" for c in shown)
    assert printable(shown) == shown
    assert printable_lines(name).count("\n") == name.count("\n")


def test_white_space_of_a_given_name_becomes_single_spaces() -> None:
    assert [clean_name(name) for name in (" a\n\tb ", "", "\x00")] == ["a b", "unnamed", "⟨U+0000⟩"]


def test_a_file_of_a_set_is_named_below_its_folder_and_two_files_elsewhere_differ(tmp_path: Path) -> None:
    root = tmp_path / "alice"
    assert name_file(root / "p" / "1\n.png", root) == "p/1⟨U+000A⟩.png"
    one, other = (name_file(tmp_path / folder / "1.png", root) for folder in ("bob", "eve"))
    assert one != other
    assert not any(word in one + other for word in ("alice", "bob", "eve", str(tmp_path)))


@pytest.fixture
def alice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(Path, "home", lambda: Path("/home/alice"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_lies_below_source_or_working_folder_is_relative_and_a_home_is_a_tilde(alice: Path) -> None:
    words = [
        f"{SOURCE_FOLDER}/main.py",
        f"{alice}/c.json",
        "data_root=/home/alice/my set",
        "/Users/eve/x.tar",
        str(alice),
    ]
    hider = PathHider(words)
    assert [hider.word(word) for word in words] == ["main.py", "c.json", "data_root=~/my set", "~/x.tar", "."]


@pytest.mark.usefixtures("alice")
def test_what_the_user_named_keeps_its_own_name_and_what_lies_below() -> None:
    config = {
        "data_root": "/mnt/lab of alice/ff",
        "teachers": [{"weights": "/nas/alice/weights/FFc23.tar"}],
        "student": {"weights": "/scratch/alice/out/first_*/weights/best_model.pth"},
        "plain": ["data/ff", "hard/weight", 3, None, "https://example.org/a/b"],
    }
    hider = PathHider(config)
    hidden = hider.within(config, words=True)
    assert "alice" not in json.dumps(hidden)
    assert hidden["data_root"] == "…/ff"
    assert hidden["teachers"][0]["weights"] == "…/FFc23.tar"
    assert hidden["plain"] == config["plain"]
    line = "left out /mnt/lab of alice/ff/p 1/x.png: empty; took /scratch/alice/out/first_2/weights/best_model.pth."
    assert hider.text(line) == "left out …/ff/p 1/x.png: empty; took …/out/first_2/weights/best_model.pth."
    assert hider.text("of /mnt/lab of alice/ff2, not named") == "of …/ff2, not named"


@pytest.mark.usefixtures("alice")
@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("reads /opt/models/of/alice/a.pth (9 B)", "reads …/a.pth (9 B)"),
        ('"/var/alice/b.json": broken', '"…/b.json": broken'),
        (r"C:\Users\alice\faces\1.png", r"~\faces\1.png"),
        ("file:///home/alice/a", "file://~/a"),
        ("and/or 1/2 hard/weight </b></i> 10 MB/s /x", "and/or 1/2 hard/weight </b></i> 10 MB/s /x"),
    ],
)
def test_other_absolute_paths_keep_their_last_part_only(line: str, shown: str) -> None:
    assert PathHider().text(line) == shown


@pytest.mark.usefixtures("alice")
def test_a_folder_that_has_the_users_name_is_not_named() -> None:
    assert PathHider("/data/alice").word("/data/alice") == "…"


PACKAGE = SOURCE_FOLDER / "lib" / "sharpstudent"
# Where text goes to a terminal, and why it holds no name as it is on the disk.
PRINTING = {
    "core/errors.py": "a message, made printable as a whole",
    "evaluation/cost_child.py": "a number, to the parent process",
    "report/console.py": "print_line itself",
    "evaluation/renderer.py": "tables, whose names are cleaned",
    "evaluation/measure_arms.py": "a table; arms have names of letters and digits",
    "evaluation/sweep.py": "a table; trials have numbers, and keys are those of the config",
    "tasks/wakeword/demo.py": "its own command lines, and lines of its runs, which are printable already",
    "tasks/tokens/demo.py": "a table, and names of runs that it gives itself",
    "deploy/benchmark.py": "tables, whose names are cleaned",
    "deploy/export.py": "a table of numbers",
    "deploy/predict.py": "JSON, which escapes what a terminal would not show",
    "tasks/deepfake/evaluation/assemble.py": "tables, whose names are cleaned",
    "tasks/deepfake/prepare/describe_tables.py": "a table, into text that is printed by print_line",
}


def test_nothing_is_printed_past_the_function_that_makes_names_printable() -> None:
    found: dict[str, list[int]] = {}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            name = getattr(getattr(node, "func", None), "attr", getattr(getattr(node, "func", None), "id", ""))
            if isinstance(node, ast.Call) and name == "print" and "printable" not in ast.dump(node):
                found.setdefault(file.relative_to(PACKAGE).as_posix(), []).append(node.lineno)
    assert {place: lines for place, lines in found.items() if place not in PRINTING} == {}


@pytest.mark.parametrize("name", ["=1+1", "+x", "-cmd|' /C calc'!A0", "@SUM(A1)", "\tx", "\rx", "＝1+1", "'=1", "''-x"])
def test_a_name_that_a_spreadsheet_would_run_gets_an_apostrophe(name: str) -> None:
    assert escape_cell(name) == f"'{name}"
    assert unescape_cell(escape_cell(name)) == name


@pytest.mark.parametrize("cell", ["", "p001/a=b.png", "'quoted'", "O'Hara", "-1.5", "+5", "-inf", "-1e-05", "0.25"])
def test_numbers_and_other_names_are_written_as_they_are(cell: str) -> None:
    assert escape_cell(cell) == cell
    assert unescape_cell(cell) == cell


@given(st.text(st.sampled_from("'=+-@\t\r1.ex\n,\"＝"), max_size=6))
def test_any_text_is_read_back_as_it_was(text: str) -> None:
    assert unescape_cell(escape_cell(text)) == text
    text = text.replace("\r", "")  # which ends a line where it stands alone; `printable` leaves none in a name
    ((cell, number, empty),) = csv.reader(io.StringIO(format_csv([(text, -1.5, None)]), newline=""))
    assert (unescape_cell(cell), number, empty) == (text, "-1.5", "")


def test_every_csv_file_is_written_by_the_function_that_escapes() -> None:
    folders = (PACKAGE, SOURCE_FOLDER / "demo", SOURCE_FOLDER / "benchmarks")
    writers = {
        file.name
        for folder in folders
        for file in folder.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("writer", "DictWriter") and "'csv'" in ast.dump(node)
    }
    assert writers == {"naming.py"}
