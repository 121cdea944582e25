"""Every writer of the package ends a refusal of the disk with one message; the old file stays whole."""

from __future__ import annotations

import ast
import builtins
import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from sharpstudent.checkpoint.store import copy_checkpoint, save_checkpoint
from sharpstudent.core import io
from sharpstudent.core.errors import UserError
from sharpstudent.core.io import append_text, lock_folder, make_folder, write_bytes_atomically, write_text_atomically
from sharpstudent.report.logs import LossesLog, MetricsFile
from sharpstudent.report.tensorboard import TensorBoardLog
from small_disk import small_disk

PACKAGE = Path(__file__).resolve().parents[2] / "lib" / "sharpstudent"
WRITING = {"write_text", "write_bytes", "savefig", "imwrite", "mkdir"}
GUARDS = {"atomic_path", "disk_errors_as_user_errors"}
# Calls that look like writing to a disk, and why each needs no guard.
ELSEWHERE = {
    ("core/io.py", "write_bytes"): "within the guards themselves",
    ("core/io.py", "mkdir"): "within make_folder and the guards themselves",
    ("core/io.py", "open"): "within append_text and the guards themselves",
    ("evaluation/cost_child.py", "write_text"): "a switch of the kernel's, below /proc",
    ("report/chart.py", "savefig"): "into memory",
    ("tasks/tokens/rules.py", "savefig"): "into memory",
    ("tasks/wakeword/renderer.py", "open"): "into memory",
    ("tasks/deepfake/annotate.py", "open"): "the temporary path that the caller has of atomic_path",
}


def find_writes(file: Path) -> Iterator[tuple[str, int]]:
    """The calls that write to a disk and stand in no `with` of a guard: name and line."""

    def walk(node: ast.AST, guarded: bool) -> Iterator[tuple[str, int]]:
        if isinstance(node, ast.With):
            names = {call.func.id for item in node.items for call in ast.walk(item) if is_named_call(call)}
            guarded = guarded or bool(names & GUARDS)
        if isinstance(node, ast.Call) and not guarded:
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            modes = [
                word.value
                for word in [*node.args[1:2], *(k.value for k in node.keywords)]
                if isinstance(word, ast.Constant)
            ]
            if name in WRITING or (name == "open" and any(set("wax+") & set(str(mode)[:3]) for mode in modes[:1])):
                yield name, node.lineno
        for child in ast.iter_child_nodes(node):
            yield from walk(child, guarded)

    return walk(ast.parse(file.read_text(encoding="utf-8")), False)


def find_mode(call: ast.Call) -> str:
    """The mode of a call of `open` or `PATH.open`; "" where it is none that is written there."""
    words = [*call.args, *(word.value for word in call.keywords if word.arg == "mode")]
    texts = [word.value for word in words if isinstance(word, ast.Constant) and isinstance(word.value, str)]
    return next((text for text in texts if re.fullmatch("[rwaxbt+]{1,3}", text)), "")


def is_named_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)


def test_no_file_of_the_package_writes_past_the_guards() -> None:
    found = {
        (str(file.relative_to(PACKAGE)), name): line
        for file in PACKAGE.rglob("*.py")
        for name, line in find_writes(file)
    }
    assert {place: line for place, line in found.items() if place not in ELSEWHERE} == {}
    assert set(ELSEWHERE) - set(found) == set(), "these no longer write"


def write_metrics(folder: Path) -> None:
    MetricsFile(folder / "metrics.csv").append({"epoch": 2, "loss": 0.5})


def log_scalar(folder: Path) -> None:
    with TensorBoardLog(folder / "events") as log:
        log.scalar("loss", 1.0, 1)


def save(folder: Path) -> None:
    save_checkpoint(folder / "old.pth", {"model": {"w": torch.ones(3)}}, about={"epoch": 2})


WRITERS: dict[str, Callable[[Path], object]] = {
    "bytes": lambda folder: write_bytes_atomically(folder / "old.bin", b"new"),
    "text": lambda folder: write_text_atomically(folder / "old.txt", "new"),
    "appended text": lambda folder: append_text(folder / "old.txt", "new"),
    "appended and synced": lambda folder: append_text(folder / "old.txt", "new", sync=True),
    "losses.logs": lambda folder: LossesLog(folder / "old.logs").append("new"),
    "metrics.csv": write_metrics,
    "folder": lambda folder: make_folder(folder / "new" / "newer"),
    "lock": lambda folder: lock_folder(folder, pytest.fail),
    "TensorBoard": log_scalar,
    "checkpoint": save,
    "copy of a checkpoint": lambda folder: copy_checkpoint(folder / "old.pth", folder / "copy.pth"),
}
REFUSALS = {"quota": errno.EDQUOT, "full": errno.ENOSPC, "read-only": errno.EROFS, "no right": errno.EACCES}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Old files of every kind."""
    for name in ("old.bin", "old.txt", "old.logs"):
        (tmp_path / name).write_text("old\n")
    MetricsFile(tmp_path / "metrics.csv").append({"epoch": 1, "loss": 1.0})
    save_checkpoint(tmp_path / "old.pth", {"model": {"w": torch.zeros(3)}}, about={"epoch": 1})
    return tmp_path


def read_all(folder: Path) -> dict[str, bytes]:
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name != ".lock"}


def refuse(patch: pytest.MonkeyPatch, code: int) -> None:
    """Make the system refuse to open a file for writing, to link one, and to make a folder."""
    opened, handle_of, made = builtins.open, os.open, Path.mkdir

    def fail(path: object) -> Any:
        raise OSError(code, os.strerror(code), str(path))

    def open_to_read(file: Any, mode: str = "r", *args: Any, **others: Any) -> Any:
        return fail(file) if set("wax+") & set(mode) else opened(file, mode, *args, **others)

    def open_handle(path: Any, flags: int, *args: Any, **others: Any) -> int:
        return fail(path) if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else handle_of(path, flags, *args, **others)

    def make(path: Path, *args: Any, **others: Any) -> None:
        return made(path, *args, **others) if path.is_dir() else fail(path)

    patch.setattr(builtins, "open", open_to_read)
    patch.setattr("io.open", open_to_read)
    patch.setattr(os, "open", open_handle)
    patch.setattr(os, "link", lambda source, target: fail(target))
    patch.setattr(Path, "mkdir", make)


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("writer", WRITERS)
def test_each_writer_ends_a_refusal_with_one_message_and_loses_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, writer: str, refusal: str
) -> None:
    before = read_all(folder)
    with monkeypatch.context() as patch:
        refuse(patch, REFUSALS[refusal])
        with pytest.raises(UserError) as caught:
            WRITERS[writer](folder)
    (problem,) = caught.value.problems
    assert problem.where.startswith(str(folder))
    assert os.strerror(REFUSALS[refusal]) in problem.what
    assert problem.remedy
    if refusal == "quota" and writer != "lock":
        assert "your quota of this disk is used up" in problem.remedy
    assert read_all(folder) == before
    WRITERS[writer](folder)  # and afterwards it can be done


def write_rows(folder: Path) -> None:
    from sharpstudent.tasks.deepfake.dataset.manifest import write_manifest

    write_manifest(folder / "old.bin", [], {})


def write_archive(folder: Path) -> None:
    from sharpstudent.tasks.deepfake.dataset.shards import write_shard

    write_shard(folder / "old.bin", [("a.png", b"crop")])


SYNCED = ("bytes", "text", "appended and synced", "metrics.csv", "checkpoint")
MORE: dict[str, Callable[[Path], object]] = {"manifest": write_rows, "shard": write_archive}


@pytest.mark.parametrize("code", [errno.EDQUOT, errno.ENOSPC], ids=["quota", "full"])
@pytest.mark.parametrize("writer", [*SYNCED, *MORE])
def test_a_quota_that_is_reached_while_a_file_is_written_is_treated_like_a_full_disk(
    folder: Path, monkeypatch: pytest.MonkeyPatch, writer: str, code: int
) -> None:
    """The system may take the bytes, and refuse them when they are passed to the disk."""
    before, write = read_all(folder), (WRITERS | MORE)[writer]
    with monkeypatch.context() as patch:

        def refuse_bytes(handle: int) -> None:
            raise OSError(code, os.strerror(code))

        patch.setattr(os, "fsync", refuse_bytes)
        with pytest.raises(UserError) as caught:
            write(folder)
    (problem,) = caught.value.problems
    assert problem.where.startswith(str(folder))
    assert os.strerror(code) in problem.what
    assert ("your quota of this disk is used up" in str(problem.remedy)) == (code == errno.EDQUOT)
    assert read_all(folder) == before
    write(folder)


def test_a_disk_that_takes_no_file_more_is_told_from_one_without_bytes(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "8m", files=8) as disk:
        number = 0
        while io.find_free_files(disk):
            (disk / f"filler_{number}").touch()
            number += 1
        for writer in ("bytes", "text", "appended text", "folder", "TensorBoard"):
            with pytest.raises(UserError, match=r"no number \(inode\) left for one file more"):
                WRITERS[writer](disk)
        (disk / "filler_0").unlink()
        WRITERS["bytes"](disk)
        assert (disk / "old.bin").read_bytes() == b"new"


def test_a_run_is_refused_before_anything_is_written_where_the_disk_takes_too_few_files(tmp_path: Path) -> None:
    from sharpstudent.checkpoint.disk_space import check_disk_space

    with (
        small_disk(tmp_path / "disk", "8m", files=50) as disk,
        pytest.raises(UserError, match=r"no numbers \(inodes\) left for the files of a run"),
    ):
        check_disk_space(disk / "output", {"w": torch.ones(3)}, optimizer_copies=1, keep_best=5, resumed=False)
