"""The checks of a prepared set: each problem is provoked and named once; a sound set has none."""

from __future__ import annotations

import csv
import io
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from drawn_faces import draw_face
from numpy.typing import NDArray
from sharpstudent.core.errors import UserError
from sharpstudent.tasks.deepfake.dataset.manifest import SPLITS, FaceRow, write_manifest
from sharpstudent.tasks.deepfake.dataset.shards import write_shard
from sharpstudent.tasks.deepfake.prepare import check_copies, check_near
from sharpstudent.tasks.deepfake.prepare import check_copies as check_crops
from sharpstudent.tasks.deepfake.prepare.check import run_check
from sharpstudent.tasks.deepfake.prepare.check_near import ALIKE, describe_face
from sharpstudent.tasks.deepfake.prepare.crop_frame import crop_face, measure_face
from sharpstudent.tasks.deepfake.sources.face import read_picture

ROOT = Path(__file__).resolve().parents[4]
SIDE = 192
ABOUT: dict[str, Any] = {"image_size": 128, "min_face": 40, "layout": "folder"}
Picture = tuple[NDArray[np.uint8], NDArray[np.float32]]


class PreparedSet:
    """Drawn faces on disk as prepare_faces.py leaves them; `rows` and `about` may be changed before `write`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[FaceRow] = []
        self.about = dict(ABOUT)

    def add(self, seed: int, split: str, label: int, *, picture: Picture | None = None, **fields: Any) -> FaceRow:
        """One crop of its own clip and person, unless `fields` say otherwise. picture: another one than the seed's."""
        image, landmarks = picture or draw_face(seed, SIDE)
        corners = (landmarks[:68].min(axis=0), landmarks[:68].max(axis=0))
        crop = crop_face(image, landmarks, np.concatenate(corners), largest_face=SIDE)
        sharpness, phash = measure_face(crop.image, crop.landmarks)
        content = cv2.imencode(".png", cv2.cvtColor(crop.image, cv2.COLOR_RGB2BGR))[1].tobytes()
        row = FaceRow(
            path=f"crops/clip {seed} é/{len(self.rows):06d}_0.png",
            offset=0,
            size=len(content),
            crc32=zlib.crc32(content),
            label=label,
            clip_id=f"clip {seed} é",
            identity=f"person {seed}",
            group=f"person {seed}",
            split=split,
            source_set="Drawn",
            manipulation="Deepfakes" if label else "",
            compression="c23",
            source=f"clip {seed} é.mp4",
            frame_index=len(self.rows),
            face_index=0,
            score=0.9,
            sharpness=sharpness,
            face_size=float((corners[1] - corners[0]).min()),
            frame_size=(image.shape[1], image.shape[0]),
            box_xyxy=np.concatenate(corners).astype(np.float32),
            crop_xyxy=crop.crop_xyxy,
            scale=crop.scale,
            landmarks=crop.landmarks,
            detector="drawn",
            phash=phash,
        )
        row = replace(row, **fields)
        path = self.folder / row.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.rows.append(row)
        return row

    def change(self, place: int, **fields: Any) -> None:
        self.rows[place] = replace(self.rows[place], **fields)

    def write(self) -> Path:
        path = self.folder / "manifest.arrow"
        write_manifest(path, sorted(self.rows, key=lambda row: SPLITS.index(row.split)), self.about)
        return path


def make_sound_set(folder: Path) -> PreparedSet:
    """Two clips each of real and fake in train, val and test: rows 0..11."""
    made = PreparedSet(folder)
    for number, split in enumerate(("train", "val", "test")):
        for label in (0, 0, 1, 1):
            made.add(len(made.rows) + 10 * number, split, label)
    return made


@pytest.fixture
def sound(tmp_path: Path) -> PreparedSet:
    return make_sound_set(tmp_path / "a set")


def check(made: PreparedSet, **options: bool) -> tuple[bool, list[str], list[str]]:
    """Whether the set passed, the problems as texts, and the notes."""
    said: list[str] = []
    verdict = run_check(made.write(), say=said.append, **options)
    return (
        verdict,
        [line for line in said if line.startswith("PROBLEM")],
        [line for line in said if line.startswith("note")],
    )


def test_a_sound_set_passes_without_problems_or_notes(sound: PreparedSet) -> None:
    assert check(sound) == (True, [], [])


def blur(picture: Picture, quality: int = 60, shrink: float = 0.75) -> Picture:
    """The same picture as somebody else would have saved it."""
    image, landmarks = picture
    small = cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    saved = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(saved, cv2.IMREAD_COLOR_RGB), np.uint8), (landmarks * shrink).astype(np.float32)


def put_shard(made: PreparedSet, members: Callable[[tarfile.TarFile, bytes], None]) -> None:
    """Put the first crop into a shard, followed by the members that `members` adds."""
    content = (made.folder / made.rows[0].path).read_bytes()
    path = made.folder / "shards/000000.tar"
    ((offset, size),) = write_shard(path, [("clip/000000_0.png", content)])
    with tarfile.open(path, "a") as tar:
        members(tar, content)
    made.change(0, path="shards/000000.tar", offset=offset, size=size)


def add_link(tar: tarfile.TarFile, _: bytes) -> None:
    link = tarfile.TarInfo("clip/000001_0.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    tar.addfile(link)


def add_outside(tar: tarfile.TarFile, content: bytes) -> None:
    outside = tarfile.TarInfo("../000001_0.png")
    outside.size = len(content)
    tar.addfile(outside, io.BytesIO(content))


def save_other_bytes(made: PreparedSet) -> None:
    path = made.folder / made.rows[3].path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def claim_other_sides(made: PreparedSet) -> None:
    left, top, right, bottom = made.rows[2].crop_xyxy
    made.change(2, crop_xyxy=(left, top, right + 40, bottom))


def put_text_for_a_crop(made: PreparedSet) -> None:
    content = b"<html>not found</html>"
    (made.folder / made.rows[2].path).write_bytes(content)
    made.change(2, size=len(content), crc32=zlib.crc32(content))


def fill(made: PreparedSet, wanted: Callable[[FaceRow], bool]) -> None:
    made.rows = [row for row in made.rows if wanted(row)]


def in_other_source(made: PreparedSet) -> None:
    for place, row in enumerate(made.rows):
        if row.split == "val" and row.label == 1:
            made.change(place, source_set="Elsewhere")


FAULTS: dict[str, tuple[Callable[[PreparedSet], object], str, str]] = {
    "equal bytes in two splits": (
        lambda made: made.add(0, "val", 0, clip_id="again", identity="again", group="again"),
        "1 picture is in two splits, byte for byte",
        "(train, real) = ",
    ),
    "equal bytes with both labels": (
        lambda made: made.add(0, "train", 1, clip_id="again", identity="again", group="again"),
        "1 picture is with both labels, byte for byte",
        "(train, fake)",
    ),
    "one picture saved twice, in two splits": (
        lambda made: made.add(80, "val", 0, picture=blur(draw_face(0, SIDE))),
        "1 pair of clips looks the same in two splits",
        "clip 80 é",
    ),
    "one picture saved twice, with both labels": (
        lambda made: made.add(80, "train", 1, picture=blur(draw_face(0, SIDE))),
        "1 pair of clips looks the same with different labels",
        "clip 80 é",
    ),
    "a person in two splits": (
        lambda made: made.change(4, identity="person 0", group="person 0"),
        "1 person is in two splits",
        "person 0: 1 in train, 1 in val",
    ),
    "a group in two splits": (
        lambda made: made.change(4, group="person 0"),
        "1 group of people who meet in a clip is in two splits",
        "person 0: 1 in train, 1 in val",
    ),
    "a clip in two splits": (
        lambda made: made.add(70, "val", 0, clip_id="clip 0 é", identity="person 0", group="person 0"),
        "1 clip is in two splits",
        "clip 0 é: 1 in train, 1 in val",
    ),
    "a clip with two labels": (
        lambda made: made.add(71, "train", 1, clip_id="clip 0 é", identity="person 0", group="person 0"),
        "1 clip has faces of both labels",
        "clip 0 é: 1 real, 1 fake",
    ),
    "a crop that is gone": (
        lambda made: (made.folder / made.rows[5].path).unlink(),
        "1 crop is missing or not what was prepared (12 were read)",
        "No such file",
    ),
    "a flipped bit": (save_other_bytes, "1 crop is missing or not what was prepared", "checksum"),
    "a truncated crop": (
        lambda made: (made.folder / made.rows[5].path).write_bytes(b"cut"),
        "1 crop is missing or not what was prepared",
        "has 3 bytes",
    ),
    "a crop of other sides": (claim_other_sides, "1 crop is missing or not what was prepared", "the manifest says"),
    "a page for a crop": (put_text_for_a_crop, "1 crop is missing or not what was prepared", "no picture"),
    "a shard with a link": (lambda made: put_shard(made, add_link), "1 shard holds more than crops", "/etc/passwd"),
    "a shard that leads out": (lambda made: put_shard(made, add_outside), "1 shard holds more than crops", "outside"),
    "landmarks of another picture": (
        lambda made: made.change(1, landmarks=made.rows[1].landmarks + np.float32(SIDE)),
        "1 face has its landmarks outside the crop",
        "100% of the points",
    ),
    "landmarks that are no numbers": (
        lambda made: made.change(1, landmarks=np.full((68, 2), np.nan, np.float32)),
        "1 face has its landmarks outside the crop",
        "100% of the points",
    ),
    "a face smaller than min_face": (
        lambda made: made.change(1, face_size=39.0),
        "1 face is smaller than the 40 px that were asked for",
        "39 px",
    ),
    "no validation": (
        lambda made: fill(made, lambda row: row.split != "val"),
        "1 split that training needs is empty",
        "val: no face",
    ),
    "no fakes in validation": (
        lambda made: fill(made, lambda row: row.split != "val" or row.label == 0),
        "1 split has faces of one class only",
        "val: 2 real, no fake face",
    ),
    "no reals in training": (
        lambda made: fill(made, lambda row: row.split != "train" or row.label == 1),
        "1 split has faces of one class only",
        "train: 2 fake, no real face",
    ),
    "a source set that tells the label": (
        in_other_source,
        "2 source sets have one label only in a split",
        "val: Elsewhere has 2 fake faces only",
    ),
    "a compression that tells the label": (
        lambda made: [made.change(place, compression="c40") for place in (2, 3)],
        "2 compressions have one label only in a split",
        "train: c40 has 2 fake faces only",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_once_with_an_example(name: str, sound: PreparedSet) -> None:
    provoke, sentence, example = FAULTS[name]
    provoke(sound)
    verdict, faults, _ = check(sound)
    assert not verdict
    assert len(faults) == 1, faults
    first, *rest = faults[0].splitlines()
    assert sentence in first
    assert example in "\n".join(rest)
    assert rest[-1].strip().startswith("what to do: ")


def test_official_lists_that_share_people_are_named_as_such(sound: PreparedSet) -> None:
    sound.about["layout"] = "dfdc"
    sound.change(4, identity="person 0", group="person 0")
    verdict, (fault,), _ = check(sound)
    assert not verdict
    assert "the data set's own lists" in fault


def test_faces_kept_out_of_all_splits_leak_nothing(sound: PreparedSet) -> None:
    sound.add(0, "none", 0)  # the same person, clip and bytes as row 0
    sound.add(80, "none", 1, picture=blur(draw_face(1, SIDE)))
    assert check(sound) == (True, [], [])


def test_a_fake_may_resemble_the_real_clip_that_it_was_made_of(sound: PreparedSet) -> None:
    sound.add(80, "train", 1, picture=blur(draw_face(0, SIDE)), identity="person 0", group="person 0")
    assert check(sound) == (True, [], [])


def test_frames_of_one_clip_are_no_duplicates(sound: PreparedSet) -> None:
    first = sound.rows[0]
    for picture in (None, blur(draw_face(0, SIDE))):
        sound.add(0, "train", 0, picture=picture)
    assert sound.rows[-2].crc32 == first.crc32
    assert check(sound) == (True, [], [])


def test_copies_within_one_split_and_label_are_counted_only(sound: PreparedSet) -> None:
    sound.add(0, "train", 0, clip_id="again", identity="again", group="again")
    sound.add(80, "train", 0, picture=blur(draw_face(1, SIDE)))
    verdict, faults, notes = check(sound)
    assert verdict, faults
    assert any("1 crop is an exact copy" in note for note in notes)
    assert any("1 pair of clips within one split and label look the same" in note for note in notes)


def test_a_set_of_reals_only_is_for_self_blending(sound: PreparedSet) -> None:
    fill(sound, lambda row: row.label == 0)
    verdict, faults, notes = check(sound)
    assert verdict, faults
    assert notes == ["note     all faces are real: the fakes must come by self-blending"]


def test_a_set_for_testing_only_is_no_fault(sound: PreparedSet) -> None:
    fill(sound, lambda row: row.split == "test")
    verdict, faults, notes = check(sound)
    assert verdict, faults
    assert "for testing" in notes[0]


def test_no_more_than_five_examples_are_shown_and_the_rest_is_counted(sound: PreparedSet) -> None:
    for row in sound.rows[:7]:
        (sound.folder / row.path).unlink()
    _, (fault,), _ = check(sound)
    assert "7 crops are missing" in fault
    assert fault.count("No such file") == 5
    assert "and 2 more" in fault


def test_a_large_set_is_sampled_with_a_note_unless_full_is_set(
    sound: PreparedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_crops, "MOST_READ", 3)
    verdict, faults, notes = check(sound)
    assert verdict, faults
    assert notes == ["note     3 of 12 crops were read, drawn by seed 0"]
    (sound.folder / sound.rows[7].path).unlink()
    verdict, faults, notes = check(sound, full=True)
    assert not verdict
    assert notes == []


def test_equal_checksums_count_as_copies_only_if_the_bytes_are_equal(
    sound: PreparedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_copies, "encode_content", lambda faces: np.zeros(len(faces), np.int64))
    monkeypatch.setattr("sharpstudent.tasks.deepfake.prepare.check.encode_content", check_copies.encode_content)
    assert check(sound)[0]


def test_near_hashes_count_as_copies_only_if_the_pixels_are_alike(sound: PreparedSet) -> None:
    for place in range(12):
        sound.change(place, phash=place % 3)
    assert check(sound)[0]


def test_too_many_near_hashes_are_compared_from_the_nearest_on(
    sound: PreparedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_near, "MOST_COMPARED", 1)
    for place in range(12):
        sound.change(place, phash=0b1111 << (4 * place))
    sound.change(0, phash=0)
    sound.add(80, "val", 0, picture=blur(draw_face(0, SIDE)), phash=1)
    verdict, faults, notes = check(sound)
    assert not verdict
    assert len(faults) == 1
    assert "the nearest 1 were compared" in "".join(notes)


def test_the_threshold_separates_copies_from_other_faces_with_a_margin_on_both_sides() -> None:
    faces = [draw_face(seed, SIDE) for seed in range(8)]
    vectors = np.stack([describe_face(*face) for face in faces])
    saved = np.stack([describe_face(*blur(face)) for face in faces])
    assert (vectors * saved).sum(axis=1).min() > ALIKE + 0.05
    others = (vectors @ vectors.T)[np.triu_indices(8, 1)]
    assert others.max() < ALIKE - 0.05


@pytest.mark.parametrize("what", ["missing", "empty file", "text", "truncated", "part", "no rows", "damaged"])
def test_an_unusable_manifest_is_a_user_error(what: str, sound: PreparedSet) -> None:
    path = sound.write()
    content = path.read_bytes()
    if what == "missing":
        path.unlink()
    elif what == "part":
        write_manifest(path, sound.rows, {}, is_part=True)
    elif what == "no rows":
        write_manifest(path, [], {})
    else:
        middle = len(content) // 2
        damaged = content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
        path.write_bytes(
            {"empty file": b"", "text": b"path,label\n", "truncated": content[:middle], "damaged": damaged}[what]
        )
    with pytest.raises(UserError) as caught:
        run_check(path, say=lambda _: None)
    assert all(problem.where and problem.remedy for problem in caught.value.problems)


def test_a_folder_is_accepted_in_place_of_its_manifest(sound: PreparedSet) -> None:
    sound.write()
    assert run_check(sound.folder, say=lambda _: None)


@pytest.mark.slow
def test_recompressed_real_photos_are_found_as_copies_and_different_people_are_not() -> None:
    photos, weights = ROOT.parent / "shared/data/faces", ROOT / "weights"
    if not (photos / "index.csv").is_file() or not (weights / "face_landmark.tflite").is_file():
        pytest.skip(f"no photos at {photos}, or no face models in {weights}")
    from sharpstudent.modalities.faces.detect import FaceDetector
    from sharpstudent.modalities.faces.landmarks import LandmarkMesh

    detector = FaceDetector(weights / "face_detection_yunet_2023mar.onnx")
    mesh = LandmarkMesh(weights / "face_landmark.tflite")

    def describe(image: NDArray[np.uint8]) -> tuple[int, NDArray[np.float32]]:
        face = detector.detect(image)[0]
        crop = crop_face(image, mesh.locate_81(image, face), face.box_xyxy, largest_face=475)
        return measure_face(crop.image, crop.landmarks)[1], describe_face(crop.image, crop.landmarks)

    def save_again(image: NDArray[np.uint8], shrink: float, quality: int) -> NDArray[np.uint8]:
        return blur((image, np.zeros((68, 2), np.float32)), quality, shrink)[0]

    with (photos / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    images = [read_picture(photos / row["file"]) for row in rows]
    hashes, vectors = zip(*map(describe, images), strict=True)

    def find(one: int, phash: int, vector: NDArray[np.float32]) -> bool:
        return (hashes[one] ^ phash).bit_count() <= check_near.DISTANCE and float(vectors[one] @ vector) >= ALIKE

    people = [row["person"] for row in rows]
    pairs = [(one, two) for one in range(len(rows)) for two in range(one)]
    apart = [(one, two) for one, two in pairs if people[one] != people[two]]
    assert not [(people[one], people[two]) for one, two in apart if find(one, hashes[two], vectors[two])]
    assert len(apart) > 29_000
    for shrink, quality, least in ((1.0, 20, 1.0), (0.5, 95, 0.9)):
        found = [find(n, *describe(save_again(image, shrink, quality))) for n, image in enumerate(images)]
        assert np.mean(found) >= least, (shrink, quality)
