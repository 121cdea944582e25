"""Reading a config file: what parses, and what is refused with a place and a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from sharpstudent.config.load import LARGEST_FILE, read_config_file
from sharpstudent.core.errors import UserError


def write(tmp_path: Path, content: str | bytes) -> Path:
    file = tmp_path / "config.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def refuse(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_config_file(path)
    text = caught.value.as_text()
    assert str(path) in text
    assert all(problem.remedy for problem in caught.value.problems)
    return text


def test_comments_of_both_kinds_and_trailing_commas_are_read_over(tmp_path: Path):
    file = write(tmp_path, '/* a\n b */ { // c\n "lr": 0.1, // "lr": 0.2\n "teacher": "a//b", }')
    assert read_config_file(file) == {"lr": 0.1, "teacher": "a//b"}


def test_a_byte_order_mark_is_read_over(tmp_path: Path):
    assert read_config_file(write(tmp_path, b"\xef\xbb\xbf{}")) == {}


def test_the_editors_schema_key_is_dropped_at_the_top_only(tmp_path: Path):
    file = write(tmp_path, '{"$schema": "./schema.json", "stage1": {"$schema": "x"}}')
    assert read_config_file(file) == {"stage1": {"$schema": "x"}}
    assert "$schema" in refuse(write(tmp_path, '{"$schema": 3}'))


def test_a_mistake_in_the_json_names_its_line_and_column(tmp_path: Path):
    assert "line 3, column 8" in refuse(write(tmp_path, '{\n  "epoch": 3,\n  "lr" 0.1\n}'))


def test_a_key_written_twice_names_the_lines(tmp_path: Path):
    text = refuse(write(tmp_path, '{\n  "epoch": 3,\n  // epoch: 5\n  "epoch": 4\n}'))
    assert '"epoch" is written twice' in text
    assert "lines 2, 4" in text


def test_a_key_written_twice_in_a_group_is_refused(tmp_path: Path):
    assert "written twice" in refuse(write(tmp_path, '{"stage1": {"lr": 1, "lr": 2}}'))


@pytest.mark.parametrize("number", ["NaN", "-NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_numbers_that_are_not_finite_are_refused_by_key(tmp_path: Path, number: str):
    text = refuse(write(tmp_path, f'{{"stage1": {{"lr": {number}}}, "x": [1]}}'))
    assert "stage1.lr" in text
    assert "finite" in text
    assert "[1]" in refuse(write(tmp_path, f'{{"x": [1, {number}]}}'))


@pytest.mark.parametrize("content", ["[]", "3", '"text"', "null", "true", "[{}]"])
def test_anything_but_an_object_at_the_top_is_refused(tmp_path: Path, content: str):
    assert "does not contain a JSON object" in refuse(write(tmp_path, content))


@pytest.mark.parametrize("content", ["", "  \n\t ", "\ufeff"])
def test_an_empty_file_is_refused_as_empty(tmp_path: Path, content: str):
    assert "is empty" in refuse(write(tmp_path, content))


@pytest.mark.parametrize(
    "content", ["{", "// only a comment", "}", "{]", '{"a": tru}', "\x00", "{'a': 012}", '{"a": "']
)
def test_broken_json_is_refused(tmp_path: Path, content: str):
    assert "is not valid JSON" in refuse(write(tmp_path, content))


def test_a_number_with_too_many_digits_is_refused(tmp_path: Path):
    refuse(write(tmp_path, f'{{"epoch": {"9" * 5000}}}'))


def test_text_that_is_not_utf8_names_the_place(tmp_path: Path):
    assert "line 2, column 3" in refuse(write(tmp_path, b"{\n  \xff}"))
    assert "UTF-8" in refuse(write(tmp_path, '{"lr": 1}'.encode("utf-16")))


@pytest.mark.parametrize("opening", ["[", '{"a":', "[{a:"])
@pytest.mark.parametrize("depth", [100, 10_000])
def test_deep_nesting_is_refused_without_a_recursion_error(tmp_path: Path, opening: str, depth: int):
    assert "nested too deeply" in refuse(write(tmp_path, opening * depth))


def test_a_missing_file_lists_the_configs_beside_it(tmp_path: Path):
    write(tmp_path, "{}")
    text = refuse(tmp_path / "confg.json")
    assert "does not exist" in text
    assert str(tmp_path / "config.json") in text


def test_a_missing_folder_points_at_the_shipped_config(tmp_path: Path):
    assert "configs/config_SBI.json" in refuse(tmp_path / "nowhere" / "config.json")


def test_a_folder_is_refused_as_a_folder(tmp_path: Path):
    assert "is a folder" in refuse(tmp_path)


def test_a_path_through_a_file_is_refused(tmp_path: Path):
    refuse(write(tmp_path, "{}") / "config.json")


def test_a_file_that_is_far_too_large_is_refused_before_it_is_parsed(tmp_path: Path):
    assert "too large" in refuse(write(tmp_path, b" " * (LARGEST_FILE + 1)))
