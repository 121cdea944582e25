"""Files of others: only plain ones of a bounded size are read, and one that changes meanwhile is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from damage import SPECIAL, no_hang, without_permission
from sharpstudent.core.files import explain, open_plain, parse_json, read_json, read_plain, read_rest, read_text


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_plain_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.jpg"
    SPECIAL[kind](path)
    with no_hang(), pytest.raises(OSError, match=r"not a file|symbolic links|No such device") as caught:
        read_plain(path)
    assert explain(caught.value)


def test_a_file_without_permission_is_an_os_error(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(b"x")
    with without_permission(path), pytest.raises(PermissionError):
        read_plain(path)
    assert read_plain(path) == b"x"


def test_a_sparse_file_is_refused_by_its_size_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    with open(path, "wb") as file:
        file.truncate(3 * 2**30)
    with no_hang(), pytest.raises(OSError, match="3,221,225,472 bytes, more than the 1,000 that are read"):
        read_plain(path, most_bytes=1000)


@pytest.mark.parametrize("change", ["grows", "shrinks", "is rewritten"])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, change: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345678")
    os.utime(path, ns=(0, 0))
    with open_plain(path) as file:

        class Changing:
            """Changes the file after it was looked at, and before its bytes are read."""

            def __getattr__(self, name: str) -> object:
                return getattr(file, name)

            def read(self, size: int) -> bytes:
                path.write_bytes({"grows": b"1" * 100, "shrinks": b"1", "is rewritten": b"87654321"}[change])
                return file.read(size)

        with pytest.raises(OSError, match="changed while it was read"):
            read_rest(Changing(), path)  # type: ignore[arg-type]


def test_a_null_byte_in_a_name_is_an_os_error() -> None:
    with pytest.raises(OSError, match="null"):
        read_plain(Path("a\0b"))


def test_no_descriptor_is_left_open_by_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with pytest.raises(OSError, match="is a folder"):
            read_plain(tmp_path / "folder")
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, "{", ""])
def test_hostile_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def test_text_may_have_a_byte_order_mark_and_must_be_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(path) == {"a": 1}
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="utf-8"):
        read_text(path)
    assert read_text(path, errors="replace") == "�"
