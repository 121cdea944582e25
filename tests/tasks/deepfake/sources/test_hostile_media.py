"""Pictures, kept crops and landmarks that are damaged or hostile: each is refused by name, in bounded memory."""

from __future__ import annotations

import contextlib
import io
import resource
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from damage import SPECIAL, cut_off, flip_bits, no_hang, without_permission
from drawn_faces import draw_face
from drawn_sources import LookupDetector, LookupMesh, write_faces
from sharpstudent.core.errors import UserError
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.tasks.deepfake.sources import face_crops, labelled, photos
from sharpstudent.tasks.deepfake.sources.face import (
    FaceSplits,
    LoadedFace,
    read_boxes,
    read_landmarks,
    read_picture,
)
from sharpstudent.tasks.deepfake.sources.face_crops import CropFile

PHOTO = Path("ann.jpg")


@pytest.fixture
def crop(folder: Path) -> CropFile:
    """A kept crop, as `FaceCrops` writes it."""
    image, landmarks = draw_face(1, 60)
    box = np.concatenate([landmarks[:68].min(axis=0), landmarks[:68].max(axis=0)])[None]
    np.savez(folder / "crop.npz", image=image, landmarks=landmarks.astype(np.float32), boxes=box.astype(np.float32))
    return CropFile(folder / "crop.npz", PHOTO)


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face_crops, "load_face_models", lambda: (LookupDetector(), LookupMesh()))


def are_equal(one: LoadedFace, other: LoadedFace) -> bool:
    return all(np.array_equal(vars(one)[name], vars(other)[name]) for name in vars(one))


# --- Kept crops -----------------------------------------------------------------------------------------------------


def count_changed(path: Path, read: Callable[[], LoadedFace], contents: object) -> int:
    """How many of the damaged contents are read with other values and without an error."""
    expected, changed = read(), 0
    for content in contents:  # type: ignore[attr-defined]
        path.write_bytes(content)
        try:
            changed += not are_equal(read(), expected)
        except UnreadableSample as error:
            changed += error.path != str(PHOTO)
    return changed


def test_no_flipped_bit_changes_a_kept_crop(crop: CropFile) -> None:
    """The end of the file, with the archive's table, and the headers of its arrays have the most ways to fail."""
    whole = crop.file.read_bytes()
    tail = [whole[:-400] + end for end in flip_bits(whole[-400:], 300)]
    assert count_changed(crop.file, crop.load, [*flip_bits(whole, 200), *flip_bits(whole, 300, until=200), *tail]) == 0


def test_no_cut_changes_a_kept_crop(crop: CropFile) -> None:
    assert count_changed(crop.file, crop.load, cut_off(crop.file.read_bytes())) == 0


def test_one_changed_digit_of_the_width_is_damage_and_not_a_sheared_picture(crop: CropFile) -> None:
    whole = crop.file.read_bytes()
    assert whole.count(b"(60, 60, 3)") == 1
    crop.file.write_bytes(whole.replace(b"(60, 60, 3)", b"(60, 20, 3)"))
    with np.load(crop.file) as stored:
        assert stored["image"].shape == (60, 20, 3)  # NumPy takes it
    with pytest.raises(UnreadableSample, match="CRC"):
        crop.load()


@pytest.mark.parametrize(
    "arrays",
    [
        {"image": np.zeros((9, 9), np.uint8)},
        {"image": np.zeros((9, 9, 3), np.float32)},
        {"image": np.zeros((0, 9, 3), np.uint8)},
        {"landmarks": np.zeros((5, 2), np.float32)},
        {"landmarks": np.full((81, 2), np.nan, np.float32)},
        {"landmarks": np.full((81, 2), 1e30, np.float32)},
        {"boxes": np.zeros(4, np.float32)},
        {"boxes": np.full((1, 4), np.inf, np.float32)},
        {"boxes": np.array([["a"]])},
    ],
)
def test_a_kept_crop_with_arrays_that_are_no_face_is_unreadable(crop: CropFile, arrays: dict[str, np.ndarray]) -> None:
    with np.load(crop.file) as stored:
        np.savez(crop.file, **{**stored, **arrays})
    with pytest.raises(UnreadableSample, match="kept crop"):
        crop.load()


@pytest.mark.usefixtures("networks")
def test_a_damaged_kept_crop_is_named_and_made_anew_at_the_next_start(folder: Path) -> None:
    write_faces(Path("photos"), {"ann": 2, "bob": 2})
    before = find()
    broken = sorted((folder / "data/face_crops").glob("*.npz"))[0]
    whole = broken.read_bytes()
    broken.write_bytes(whole[:100])
    after = find()
    assert [note for note in after.notes if "kept crops were damaged" in note] == [
        f"1 kept crops were damaged: {broken.relative_to(folder)}; made anew"
    ]
    assert broken.read_bytes() == whole
    assert all(are_equal(a.load(), b.load()) for a, b in zip(before.train, after.train, strict=True))
    assert not any("damaged" in note for note in find().notes)


def find() -> FaceSplits:
    return photos.find_faces(Path("photos"), image_size=64, validation_share=0.5, split_seed=0, allow_shared=False)


# --- Landmarks and boxes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["landmarks", "boxes"])
def test_a_flipped_bit_in_the_header_of_an_array_is_unreadable_or_harmless(folder: Path, kind: str) -> None:
    image, landmarks = draw_face(1, 60)
    points = landmarks[None].astype(np.int64)
    path = folder / "0.npy"
    np.save(path, points if kind == "landmarks" else points[:, :7])

    def read() -> np.ndarray:
        return read_landmarks(path, image) if kind == "landmarks" else read_boxes(path)

    whole, expected, changed = path.read_bytes(), read(), 0
    for content in flip_bits(whole, 512, until=128):
        path.write_bytes(content)
        try:
            changed += not np.array_equal(read(), expected)
        except UnreadableSample:
            continue
    assert changed == 0


# --- Pictures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_file_under_a_pictures_name_is_unreadable_at_once(folder: Path, kind: str) -> None:
    SPECIAL[kind](folder / "x.jpg")
    with no_hang(), pytest.raises(UnreadableSample):
        read_picture(folder / "x.jpg")


def write_png(path: Path, side: int) -> None:
    """A picture of one colour and so many rows."""
    packed = zlib.compress(bytes(10**6))
    parts = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)), (b"IDAT", packed), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(p)) + name + p + struct.pack(">I", zlib.crc32(name + p)) for name, p in parts]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def test_a_huge_picture_and_a_sparse_one_take_no_memory(folder: Path) -> None:
    write_png(folder / "wide.png", 11_100)  # 123 megapixels
    (folder / "sparse.png").write_bytes((folder / "wide.png").read_bytes()[:40])
    with open(folder / "sparse.png", "ab") as file:
        file.truncate(3 * 2**30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, reason in (
        ("wide.png", "11100 x 11100 px, more than the 120 mega"),
        ("sparse.png", "3,221,225,472 bytes"),
    ):
        with pytest.raises(UnreadableSample, match=reason):
            read_picture(folder / name)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kilobytes


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
def test_any_flipped_bit_of_a_picture_leaves_a_picture_or_a_reason(folder: Path, suffix: str) -> None:
    whole = cv2.imencode(suffix, draw_face(1, 40)[0])[1].tobytes()
    path = folder / f"x{suffix}"
    for content in flip_bits(whole, 150):
        path.write_bytes(content)
        with contextlib.suppress(UnreadableSample):
            assert read_picture(path).ndim == 3


@pytest.mark.parametrize("suffix", [".tiff", ".gif", ".avif", ".jp2", ".ppm"])
def test_other_formats_under_a_jpgs_name_are_decoded_as_before(folder: Path, suffix: str) -> None:
    (folder / "x.jpg").write_bytes(cv2.imencode(suffix, draw_face(1, 40)[0])[1].tobytes())
    assert read_picture(folder / "x.jpg").shape == (40, 40, 3)


# --- Folders --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("networks")
def test_a_folder_without_permission_is_named_and_not_left_out_silently() -> None:
    write_faces(Path("photos"), {"ann": 2, "bob": 2})
    with without_permission(Path("photos/ann")), pytest.raises(UserError) as caught:
        find()
    assert "photos/ann: cannot be listed (Permission denied)" in caught.value.as_text()
    assert "chmod -R u+rX photos/ann" in caught.value.as_text()


@pytest.mark.usefixtures("networks")
def test_pipes_and_circles_among_photos_are_named_and_left_out(folder: Path) -> None:
    write_faces(Path("photos"), {"ann": 2, "bob": 2})
    SPECIAL["named pipe"](folder / "photos/ann/pipe.jpg")
    SPECIAL["link to itself"](folder / "photos/ann/loop.jpg")
    (folder / "photos/ann/up").symlink_to(folder / "photos/ann")
    with no_hang():
        found = find()
    assert len(found.train + found.validation) == 4
    notes = "\n".join(found.notes)
    assert "left out photos/ann/pipe.jpg: is no ordinary file" in notes
    assert "left out photos/ann/loop.jpg: is a link that cannot be followed (Too many levels" in notes
    assert "left out photos/ann/up: is a link back to a folder above it" in notes


def test_a_pipe_among_labelled_pictures_is_named_and_left_out(folder: Path) -> None:
    for number in range(6):
        person = folder / "data" / ("real", "fake")[number % 2] / ("ann", "bob", "cy")[number // 2]
        person.mkdir(parents=True)
        cv2.imwrite(str(person / "0.png"), draw_face(1 + number, 20)[0])
    SPECIAL["named pipe"](folder / "data/real/ann/x.jpg")
    found = labelled.find_faces(Path("data"), validation_share=0.34, split_seed=0)
    assert len(found.train) + len(found.validation) == 6
    assert "left out data/real/ann/x.jpg: is no ordinary file" in found.notes


def test_reading_from_memory_is_checked_alike() -> None:
    from sharpstudent.tasks.deepfake.sources.face import parse_array

    buffer = io.BytesIO()
    np.save(buffer, np.zeros((2, 2)))
    assert parse_array(buffer.getvalue(), "x").shape == (2, 2)
    with pytest.raises(UnreadableSample, match="more bytes than its array"):
        parse_array(buffer.getvalue() + b"\0", "x")
