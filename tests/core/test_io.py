"""Files that are whole or absent, and members of a registry package that are the right ones or refused."""

import hashlib
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
from sharpstudent.core.errors import UserError
from sharpstudent.core.io import (
    append_text,
    atomic_path,
    compute_sha256,
    disk_errors_as_user_errors,
    make_folder,
    remove_stray_temporaries,
    write_bytes_atomically,
    write_text_atomically,
)


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_write_makes_the_folders_and_leaves_only_the_file(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "weights" / "last.pth"
    write_bytes_atomically(path, b"state")
    assert path.read_bytes() == b"state"
    assert list_names(path.parent) == ["last.pth"]


def test_text_is_written_as_utf_8_without_translated_line_ends(tmp_path: Path) -> None:
    write_text_atomically(tmp_path / "note.txt", "α = 0.95\n")
    assert (tmp_path / "note.txt").read_bytes() == "α = 0.95\n".encode()


def test_a_new_file_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "last.pth"
    write_bytes_atomically(path, b"a long old state")
    write_bytes_atomically(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_reader_that_has_the_old_file_open_goes_on_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "last.pth"
    path.write_bytes(b"old")
    with open(path, "rb") as reader:
        write_bytes_atomically(path, b"new")
        assert reader.read() == b"old"


def test_until_the_end_a_reader_sees_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "last.pth"
    path.write_bytes(b"old")
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
        assert temporary.parent == path.parent  # a rename across file systems would not be atomic
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError("inside"), KeyboardInterrupt("inside"), SystemExit("inside")], ids=repr)
def test_an_exception_inside_keeps_the_old_file_and_leaves_no_stray(error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "last.pth"
    path.write_bytes(b"old")

    def fail() -> None:
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"half of the ne")
            raise error

    with pytest.raises(type(error), match="inside"):
        fail()
    assert path.read_bytes() == b"old"
    assert list_names(tmp_path) == ["last.pth"]


def test_a_full_disk_is_the_users_error_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "last.pth"
    path.write_bytes(b"old")

    def fill() -> None:
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"last\.pth: could not be written \(No space left on device\)"):
        fill()
    assert path.read_bytes() == b"old"
    assert list_names(tmp_path) == ["last.pth"]


def test_a_folder_that_is_a_file_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "output").write_text("in the way")
    with pytest.raises(UserError, match="could not be written"):
        write_bytes_atomically(tmp_path / "output" / "last.pth", b"state")


def test_strays_of_killed_writers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    write_bytes_atomically(tmp_path / "last.pth", b"state")
    stray = tmp_path / ".last.pth.4711.partial"
    stray.write_bytes(b"hal")
    (tmp_path / ".hidden").write_text("the user's")
    assert remove_stray_temporaries(tmp_path) == [stray]
    assert list_names(tmp_path) == [".hidden", "last.pth"]


def test_what_a_killed_writer_leaves_is_recognised_as_a_stray(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "last.pth") as temporary:
        temporary.write_bytes(b"hal")
        left = tmp_path / temporary.name
        copy = temporary.read_bytes()
    left.write_bytes(copy)
    assert remove_stray_temporaries(tmp_path) == [left]


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_sha256_is_that_of_the_whole_content(size: int, tmp_path: Path) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    assert compute_sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_text_is_appended_as_utf_8(tmp_path: Path) -> None:
    append_text(tmp_path / "a.log", "α\n")
    append_text(tmp_path / "a.log", "β\n", sync=True)
    assert (tmp_path / "a.log").read_bytes() == "α\nβ\n".encode()


def at_most(size: int, write: Callable[[], None]) -> None:
    """`write` while the system lets no file grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_line_that_only_half_fits_is_not_appended_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("first line\n")
    with pytest.raises(UserError, match="could not be written") as caught:
        at_most(15, lambda: append_text(path, "second line\n"))
    assert path.read_text() == "first line\n"
    assert "12 bytes of free space" in str(caught.value)
    assert "bytes free" in str(caught.value)


def test_nothing_can_be_appended_to_a_full_device() -> None:
    with pytest.raises(UserError, match="/dev/full: could not be written"):
        append_text(Path("/dev/full"), "line\n")


def test_a_folder_is_made_with_those_above_and_kept_where_it_is(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "a" / "b", exist_ok=False)


@pytest.mark.parametrize("name", ["a_file", "a_file/below", "x" * 300, "/proc/x"])
def test_a_folder_that_cannot_be_made_is_the_users_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "a_file").write_text("in the way")
    with pytest.raises(UserError, match=r"could not be written|is a file where a folder must be made"):
        make_folder(tmp_path / name)


def test_the_disk_errors_of_another_librarys_writer_are_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"events: could not be written \(No space left on device\)"):
        with_disk_error(tmp_path / "events")


def with_disk_error(path: Path) -> None:
    with disk_errors_as_user_errors(path):
        raise OSError(28, "No space left on device")
