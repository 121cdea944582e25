"""Every file that the project reads, damaged in every way: read as before, refused with a reason, or shown to differ.

The rows are in `tests/helpers/readers.py`. A function that opens a file and has no row is found in the source.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parent / "tasks/deepfake/dataset"))

from damage import SPECIAL, cut_off, flip_bits, no_hang, without_permission
from readers import NEEDS_NO_ROW, READERS, REFUSALS, Reader
from reading_calls import find_readers

REFUSED = "refused"


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest) -> Reader:
    return READERS[request.param]


@pytest.fixture
def path(reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A whole file of the row."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "whole").mkdir()
    return reader.make(tmp_path / "whole")


def read(reader: Reader, path: Path) -> Any:
    try:
        return reader.read(path)
    except REFUSALS:
        return REFUSED


def test_a_whole_file_is_read(reader: Reader, path: Path) -> None:
    assert read(reader, path) != REFUSED


def test_a_flipped_bit_gives_no_other_error_and_is_found_where_there_is_a_checksum(reader: Reader, path: Path) -> None:
    whole, expected, changed = path.read_bytes(), read(reader, path), 0
    for content in flip_bits(whole, reader.flips):
        path.write_bytes(content)
        changed += read(reader, path) not in (expected, REFUSED, None)
    assert changed == 0 or not reader.is_verified


def test_a_file_that_is_cut_off_gives_no_other_error(reader: Reader, path: Path) -> None:
    whole, expected, changed = path.read_bytes(), read(reader, path), 0
    for content in cut_off(whole):
        path.write_bytes(content)
        changed += read(reader, path) not in (expected, REFUSED, None)
    assert changed == 0 or not reader.is_verified


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_file_gives_no_other_error_and_does_not_hang(reader: Reader, path: Path, kind: str) -> None:
    os.unlink(path)
    SPECIAL[kind](path)
    with no_hang():
        read(reader, path)


def test_a_file_without_permission_gives_no_other_error(reader: Reader, path: Path) -> None:
    read(reader, path)  # what is imported late must be there before
    with without_permission(path):
        try:
            read(reader, path)
        except PermissionError as error:  # `exit_codes` makes one message of it
            assert error.filename  # noqa: PT017


def test_a_file_that_is_absent_gives_no_other_error(reader: Reader, path: Path) -> None:
    path.unlink()
    read(reader, path)
    shutil.rmtree(path.parent)
    read(reader, path)


def test_every_function_that_opens_a_file_has_a_row_or_a_reason() -> None:
    covered = {name for row in READERS.values() for name in row.covers}
    found = find_readers()
    assert sorted(found - covered - NEEDS_NO_ROW.keys()) == [], "add a row to tests/helpers/readers.py"
    assert sorted((covered | NEEDS_NO_ROW.keys()) - found) == [], "these open no file any more"
    assert covered & NEEDS_NO_ROW.keys() == set()
