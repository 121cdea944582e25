"""The manifest: the same rows back, splits as ranges, and no file that takes the process down."""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import resource
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from damage import SPECIAL, flip_bits, no_hang
from made_rows import describe_row, find_value, make_row, make_rows
from sharpstudent.core.errors import UserError
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.tasks.deepfake.dataset.manifest import (
    BATCH_ROWS,
    FORMAT,
    SCHEMA,
    SPLITS,
    FaceRow,
    Manifest,
    to_batch,
    write_manifest,
)

ABOUT = {"frames": 32, "source": "vidéos"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "set" / "manifest.arrow"


def write(path: Path, count: int = 40) -> list[FaceRow]:
    rows = make_rows(count)
    write_manifest(path, rows, ABOUT)
    return rows


# --- The same rows back ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, BATCH_ROWS, 2 * BATCH_ROWS + 1])
def test_rows_come_back_as_they_were_to_the_last_bit(path: Path, count: int) -> None:
    rows = write(path, count)
    manifest = Manifest.open(path)
    assert len(manifest) == count
    assert (manifest.about, manifest.folder, manifest.is_part) == (ABOUT, path.parent, False)
    assert all(describe_row(a) == describe_row(b) for a, b in zip(rows, manifest, strict=True))
    for index in {0, count // 2, BATCH_ROWS - 1, BATCH_ROWS, count - 1} & set(range(count)):
        assert describe_row(manifest.face(index)) == describe_row(rows[index])
    manifest.verify()


def test_the_same_rows_give_the_same_bytes(path: Path) -> None:
    write(path)
    first = path.read_bytes()
    write(path)
    assert path.read_bytes() == first


def test_it_is_a_plain_arrow_file_for_any_reader(path: Path) -> None:
    rows = write(path)
    table = pa.ipc.open_file(path).read_all()
    assert table.schema.metadata[b"format"] == FORMAT.encode()
    assert table.column("source").to_pylist() == [row.source for row in rows]
    assert table.schema.field("path").type == pa.utf8()


def test_each_split_is_a_range_of_rows(path: Path) -> None:
    rows = write(path)
    manifest = Manifest.open(path)
    ranges = [manifest.rows_of(split) for split in SPLITS]
    assert [i for found in ranges for i in found] == list(range(40))
    assert all(rows[i].split == split for split, found in zip(SPLITS, ranges, strict=True) for i in found)
    write_manifest(path, [make_row(0, "val"), make_row(1, "none")], {})
    manifest = Manifest.open(path)
    assert [list(manifest.rows_of(split)) for split in SPLITS] == [[], [0], [], [1]]


def test_columns_are_numbers_by_row_or_arrows_texts(path: Path) -> None:
    rows = write(path, BATCH_ROWS + 5)
    manifest = Manifest.open(path)
    for name in ("offset", "crc32", "phash", "label", "scale"):
        column = manifest.column(name)
        assert isinstance(column, np.ndarray)
        assert column.tolist() == [getattr(row, name) for row in rows]
    boxes = manifest.column("box_xyxy")
    assert isinstance(boxes, np.ndarray)
    assert (boxes.dtype, boxes.shape) == (np.float32, (len(rows), 4))
    assert np.array_equal(boxes[-1], rows[-1].box_xyxy)
    assert manifest.column("group").to_pylist() == [row.group for row in rows]  # type: ignore[union-attr]


def test_columns_of_no_rows_have_their_types(path: Path) -> None:
    write(path, 0)
    manifest = Manifest.open(path)
    assert manifest.column("phash").dtype == np.uint64  # type: ignore[union-attr]
    assert manifest.column("crop_xyxy").shape == (0, 4)  # type: ignore[union-attr]
    assert len(manifest.column("path")) == 0


@pytest.mark.parametrize("index", [-1, 40, 10**9])
def test_a_row_beyond_the_end_is_an_index_error(path: Path, index: int) -> None:
    write(path)
    with pytest.raises(IndexError):
        Manifest.open(path).face(index)


def test_a_copy_in_another_process_reads_the_same_file(path: Path) -> None:
    rows = write(path)
    again = pickle.loads(pickle.dumps(Manifest.open(path)))
    assert describe_row(again.face(7)) == describe_row(rows[7])


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="this system cannot let go of mapped pages")
def test_rows_that_were_read_do_not_stay_in_memory(path: Path) -> None:
    write(path, 10 * BATCH_ROWS)
    manifest = Manifest.open(path)
    largest = 0
    for index in np.random.default_rng(0).integers(len(manifest), size=150).tolist():
        manifest.face(index)
        largest = max(largest, _measure_resident(path)) if index % 6 == 0 else largest
    assert largest < 20e6 < path.stat().st_size / 1.5  # all of it, had it stayed


def _measure_resident(path: Path) -> int:
    """Bytes of a mapped file that this process has in memory."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        if line.endswith(str(path)):
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss:"))
    raise LookupError(path)


# --- Writing --------------------------------------------------------------------------------------------------------


def test_rows_that_are_not_sorted_are_refused_and_the_old_file_stays(path: Path) -> None:
    write(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="sort the rows by SPLITS"):
        write_manifest(path, [make_row(0, "val"), make_row(1, "train")], {})
    assert path.read_bytes() == before
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_a_part_takes_splits_in_any_order_and_has_no_ranges(path: Path) -> None:
    rows = [make_row(0, "val"), make_row(1, "train")]
    write_manifest(path, rows, {"frames_read": 3}, is_part=True)
    part = Manifest.open(path)
    assert (part.is_part, part.about) == (True, {"frames_read": 3})
    assert [describe_row(row) for row in part] == [describe_row(row) for row in rows]
    with pytest.raises(ValueError, match="part"):
        part.rows_of("train")


@pytest.mark.parametrize(
    "fields",
    [
        {"path": "/etc/passwd"},
        {"path": "a/../../b.png"},
        {"path": ""},
        {"split": "dev"},
        {"label": 2},
        {"landmarks": np.zeros((5, 2), np.float32)},
    ],
)
def test_a_row_that_no_reader_takes_is_refused(path: Path, fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        write_manifest(path, [make_row(0, **fields)], {})
    assert not list(path.parent.iterdir())


def test_a_name_that_is_no_utf8_is_the_users_to_mend(path: Path) -> None:
    with pytest.raises(UserError, match="not UTF-8"):
        write_manifest(path, [make_row(0, source="videos/\udcff.mp4")], {})


def test_a_failure_while_rows_come_leaves_the_old_file(path: Path) -> None:
    def fail() -> Iterator[FaceRow]:
        yield from make_rows(BATCH_ROWS + 1)
        raise KeyboardInterrupt

    write(path)
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write_manifest(path, fail(), {})
    assert path.read_bytes() == before


def test_a_full_disk_leaves_the_old_file_and_names_the_new_one(path: Path) -> None:
    write(path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
    try:
        with pytest.raises(UserError, match="could not be written") as caught:
            write_manifest(path, make_rows(2 * BATCH_ROWS), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(path) in caught.value.as_text()
    assert path.read_bytes() == before
    assert [found.name for found in path.parent.iterdir()] == [path.name]


# --- Files that are no manifest -------------------------------------------------------------------------------------


def make_table(**columns: pa.Array) -> pa.Table:
    """Three good rows with other columns in the place of some; None leaves one out."""
    batch = to_batch(make_rows(3))
    kept = {name: columns.get(name, batch.column(name)) for name in SCHEMA.names}
    kept = {name: column for name, column in kept.items() if column is not None}
    return pa.table(kept, pa.schema([SCHEMA.field(name).with_type(column.type) for name, column in kept.items()]))


def save(path: Path, table: pa.Table, *, rows: int = 3) -> None:
    text = b'{"frames": 32}'
    about = {b"format": FORMAT.encode(), b"is_part": b"false", b"about": text, b"crc32": str(zlib.crc32(text)).encode()}
    table = table.replace_schema_metadata(about)
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_batch(table.to_batches()[0])
        writer.write_batch(table.to_batches()[0].slice(0, 0), custom_metadata={"rows": str(rows)})


def save_unsorted(path: Path) -> None:
    save(path, make_table(split=pa.array(["val", "train", "val"])))


def save_unknown_split(path: Path) -> None:
    save(path, make_table(split=pa.array(["train", "train", "dev"])))


def save_without_a_column(path: Path) -> None:
    save(path, make_table(crc32=None))  # type: ignore[arg-type]


def save_wrong_type(path: Path) -> None:
    save(path, make_table(label=pa.array(["real", "fake", "real"])))


def save_stream(path: Path) -> None:
    table = make_table()
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table)


def save_other_arrow_file(path: Path) -> None:
    with pa.ipc.new_file(path, pa.schema([("a", pa.int64())])) as writer:
        writer.write_batch(pa.record_batch({"a": [1, 2]}))


FORMS: dict[str, Callable[[Path], object]] = {
    "nothing in it": lambda path: path.write_bytes(b""),
    "random bytes": lambda path: path.write_bytes(np.random.default_rng(0).bytes(10_000)),
    "arrow's sign and nothing else": lambda path: path.write_bytes(b"ARROW1"),
    "arrow's signs around nothing": lambda path: path.write_bytes(b"ARROW1\0\0" + bytes(40) + b"ARROW1"),
    "a CSV file": lambda path: path.write_text("path,label\na.png,0\n"),
    "a folder": lambda path: path.mkdir(),
    "another Arrow file": save_other_arrow_file,
    "an Arrow stream": save_stream,
    "a column is missing": save_without_a_column,
    "a column of another type": save_wrong_type,
    "rows that are not sorted": save_unsorted,
    "a split that nobody knows": save_unknown_split,
    "nothing at all": lambda path: None,
}


@pytest.mark.parametrize("form", FORMS)
def test_any_other_file_is_one_error_with_a_remedy(path: Path, form: str) -> None:
    path.parent.mkdir()
    FORMS[form](path)
    with pytest.raises(UserError) as caught:
        Manifest.open(path)
    (problem,) = caught.value.problems
    assert problem.where == str(path)
    assert problem.got
    assert "prepare_faces.py" in str(problem.remedy)


def test_what_is_missing_is_named(path: Path) -> None:
    path.parent.mkdir()
    save_without_a_column(path)
    with pytest.raises(UserError, match="lacks the columns crc32"):
        Manifest.open(path)
    save_wrong_type(path)
    with pytest.raises(UserError, match="label is string"):
        Manifest.open(path)
    save_unsorted(path)
    with pytest.raises(UserError, match="not sorted by split"):
        Manifest.open(path)
    save(path, make_table(), rows=4)
    with pytest.raises(UserError, match="3 rows are not all"):
        Manifest.open(path)


def test_a_foreign_file_of_the_right_form_opens(path: Path) -> None:
    path.parent.mkdir()
    save(path, make_table())
    manifest = Manifest.open(path)
    assert [describe_row(row) for row in manifest] == [describe_row(row) for row in make_rows(3)]
    assert manifest.notes == (f"{path} is not verified: it has no checksums, so damage would not be noticed",)


def test_a_file_cut_anywhere_is_refused(path: Path) -> None:
    write(path, 10)
    whole = path.read_bytes()
    for length in {*range(0, len(whole), 997), len(whole) - 1, len(whole) - 7}:
        path.write_bytes(whole[:length])
        with pytest.raises(UserError):
            Manifest.open(path)


# --- Damage inside --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "buffer", "bad"),
    [
        ("path", 1, b"\xff\xff\xff\x7f"),  # an offset of 2 GB
        ("source", 1, b"\x00\x00\x00\x80"),  # a negative one
        ("landmarks", 1, b"\x00\xff\xff\x7f"),
        ("clip_id", 2, b"\xff\xfe\xfd\xfc"),  # no UTF-8
    ],
)
def test_a_row_damaged_after_the_opening_is_unreadable_and_the_others_are_not(
    path: Path, name: str, buffer: int, bad: bytes
) -> None:
    rows = write(path, 40)
    place = find_value(path, name, buffer, 20 * 4 if buffer == 1 else sum(len(r.clip_id) for r in rows[:20]))
    manifest = Manifest.open(path)
    with open(path, "r+b") as file:
        file.seek(place)
        file.write(bad)
    with pytest.raises(UnreadableSample, match=r"row 20: is damaged"):
        manifest.face(20)
    for index in (0, 10, 30, 39):
        assert describe_row(manifest.face(index)) == describe_row(rows[index])
    with pytest.raises(UserError):
        manifest.column(name)
    with pytest.raises(UserError, match="rows 0 to 39"):
        manifest.verify()


def flip(path: Path, place: int) -> None:
    with open(path, "r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1]))


def test_a_flipped_bit_that_no_row_shows_is_refused_when_it_is_opened(path: Path) -> None:
    write(path, BATCH_ROWS + 40)
    flip(path, find_value(path, "phash", 1, 8))
    with pytest.raises(UserError, match=f"rows 0 to {BATCH_ROWS - 1:,}: other bytes than were written"):
        Manifest.open(path)


def test_no_flipped_bit_changes_a_value_of_an_opened_manifest(path: Path) -> None:
    """400 over the file and 400 in its footer, each in a file that Arrow must not take the process down for."""
    write(path, 30)
    whole, changed = path.read_bytes(), 0

    def read() -> list[object]:
        manifest = Manifest.open(path)
        splits = [manifest.rows_of(split) for split in SPLITS]
        return [manifest.about, manifest.is_part, splits, *(describe_row(row) for row in manifest)]

    expected = read()
    for content in (*flip_bits(whole, 400), *(whole[:-3000] + end for end in flip_bits(whole[-3000:], 400))):
        path.write_bytes(content)
        with contextlib.suppress(UserError):
            changed += read() != expected
    assert changed == 0


def test_a_copy_in_another_process_does_not_verify_again_unless_the_file_has_changed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(path, 30)
    verified: list[int] = []
    verify = Manifest.verify
    monkeypatch.setattr(Manifest, "verify", lambda self: (verified.append(1), verify(self)))
    sent = pickle.dumps(Manifest.open(path))
    pickle.loads(sent)
    assert len(verified) == 1
    os.utime(path, ns=(1, 1))
    pickle.loads(sent)
    assert len(verified) == 2


def test_a_split_that_nobody_knows_is_named_with_its_row(path: Path) -> None:
    path.parent.mkdir()
    save_unknown_split(path)
    with pytest.raises(UserError, match="row 2 has the split 'dev', which is none of train, val, test, none"):
        Manifest.open(path)


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_file_under_a_manifests_name_is_the_users_error(path: Path, kind: str) -> None:
    path.parent.mkdir()
    SPECIAL[kind](path)
    with no_hang(), pytest.raises(UserError):
        Manifest.open(path)


def test_no_damage_takes_the_process_down_and_opening_finds_it(path: Path) -> None:
    """In a process of its own: a wrong step of Arrow's would end it."""
    write(path, 30)
    program = Path(__file__).with_name("mutated_manifest.py")
    words = [sys.executable, str(program), str(path), "400"]
    done = subprocess.run(words, timeout=400, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    refused, whole = map(int, done.stdout.split())
    assert refused > 200
    assert refused + whole == 400


# --- Crops ----------------------------------------------------------------------------------------------------------


def make_crop(path: Path, content: bytes = b"a picture's bytes") -> FaceRow:
    row = make_row(0, path="crops/a b/é.png", size=len(content), crc32=zlib.crc32(content))
    (path.parent / "crops/a b").mkdir(parents=True, exist_ok=True)
    (path.parent / row.path).write_bytes(content)
    write_manifest(path, [row], {})
    return row


def test_a_crop_is_read_whole(path: Path) -> None:
    make_crop(path)
    assert Manifest.open(path).read_crop(0) == b"a picture's bytes"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file"), (b"", "0 bytes, expected 17"), (b"a picture's byte", "16 bytes"), (b"x" * 17, "checksum")],
)
def test_a_crop_that_is_not_what_was_prepared_is_unreadable(path: Path, content: bytes | None, reason: str) -> None:
    row = make_crop(path)
    (path.parent / row.path).unlink()
    if content is not None:
        (path.parent / row.path).write_bytes(content)
    with pytest.raises(UnreadableSample, match=reason) as caught:
        Manifest.open(path).read_crop(0)
    assert caught.value.path == row.path
    assert row.source in caught.value.reason


def test_a_pipe_or_a_folder_under_a_crops_name_does_not_hang(path: Path) -> None:
    row = make_crop(path)
    crop = path.parent / row.path
    crop.unlink()
    os.mkfifo(crop)
    with pytest.raises(UnreadableSample, match="no regular file"):
        Manifest.open(path).read_crop(0)
    crop.unlink()
    crop.mkdir()
    with pytest.raises(UnreadableSample):
        Manifest.open(path).read_crop(0)


@pytest.mark.parametrize(
    "fields",
    [
        {"path": "../secret.png"},
        {"path": "/etc/passwd"},
        {"path": "a\0b"},
        {"size": 2**50},
        {"size": -1},
        {"offset": -5},
    ],
)
def test_a_crafted_row_reads_nothing_else(path: Path, fields: dict[str, object]) -> None:
    row = make_crop(path)
    (path.parent.parent / "secret.png").write_bytes(b"a picture's bytes")
    with pytest.raises(UnreadableSample):
        Manifest.open(path).read_crop_of(replace(row, **fields))  # type: ignore[arg-type]
