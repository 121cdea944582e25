"""A prepared set as data source: the same batches from files and shards, read lazily, and its errors."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_faces import draw_face
from prepared_set import SetFace, write_set
from sharpstudent.core.errors import TrainingStopped, UserError
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.data.loader import LoadedBatch, load_batches
from sharpstudent.data.sampler import TrainSampler
from sharpstudent.modalities.faces.sample import make_single
from sharpstudent.tasks.deepfake.dataset.manifest import Manifest, write_manifest
from sharpstudent.tasks.deepfake.evaluation.manifest_set import read_manifest_set
from sharpstudent.tasks.deepfake.section import DeepfakeSection
from sharpstudent.tasks.deepfake.sources import manifest as source
from sharpstudent.tasks.deepfake.task import DeepfakeTask
from sharpstudent.train.alarms import note_unreadable, stop_if_too_many
from sharpstudent.train.build import TrainingData, open_training_data

ROOT = Path("made set")
SIZE = 48


def make_face(seed: int, split: str = "train", label: int | None = None, **fields: Any) -> SetFace:
    """Every third is a fake unless `label` says otherwise; two faces a clip, of one person."""
    image, landmarks = draw_face(seed, 120)
    label = int(seed % 3 == 2) if label is None else label
    return SetFace(image, landmarks, split, label, f"clip {seed // 2}", f"person {seed // 2}", fields)


FACES = [
    *(make_face(i) for i in range(12)),
    *(make_face(i, "val") for i in range(12, 18)),
    *(make_face(i, "test") for i in range(18, 22)),
    make_face(22, "none"),
]


def build(root: Path = ROOT, *, allow: Sequence[str] = (), **keys: Any) -> TrainingData:
    section = DeepfakeSection(data_source="manifest", data_root=str(root), image_size=SIZE, **keys)
    return open_training_data(DeepfakeTask(section, allow=allow))


def load(data: TrainingData, *, workers: int = 0, start: int = 0) -> list[LoadedBatch]:
    order = TrainSampler(len(data.train), 3, 2, seed=1)
    return list(load_batches(data.train, order.batches(1, start_step=start), seed=1, num_workers=workers))


def to_bytes(batches: list[LoadedBatch]) -> list[object]:
    """All of a batch but the names, which say where a crop lies."""
    return [
        (
            b.batch.inputs["image"].numpy().tobytes(),
            b.batch.targets["label"].tolist(),
            b.batch.rows["clip"],
            b.batch.rows["group"],
            b.batch.rows["mask"].numpy().tobytes() if "mask" in b.batch.rows else None,
            len(b.replaced),
        )
        for b in batches
    ]


# --- Copies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [False, True])
def test_equal_photos_count_once_in_validation_and_training_names_them(shards: bool) -> None:
    """Equal frames of a video are frames; an equal picture of the other class is another sample."""
    image, landmarks = draw_face(90, 120)
    photos = [
        SetFace(image, landmarks, split, label, f"{split} photo {i}{label}", f"{split} {i}", {"frame_index": 0})
        for split in ("train", "val")
        for i in range(3)
        for label in (0, 1)
    ]
    videos = [SetFace(image, landmarks, "val", 0, "film", "someone", {"frame_index": i}) for i in range(2)]
    root = write_set(ROOT, [*FACES, *photos, *videos], shards=shards)
    plain = build(write_set(Path("plain"), FACES), fakes="labels")
    data = build(fakes="labels")
    assert len(data.train) == len(plain.train) + 6
    assert len(data.validation) == len(plain.validation) + 2 + 2
    names = {data.validation.name(index) for index in range(len(data.validation))}
    assert sum("val photo" in name for name in names) == 2
    (train, val) = (note for note in data.notes if "are copies" in note)
    assert "train: 4 pictures are copies of others of the same class" in train
    assert "delete the copies of these photos, and prepare the set again" in train
    assert "such as videos/val photo 10.mp4 (of videos/val photo 00.mp4): each picture counts once" in val
    assert any("val: 7 real, 3 fake; " in note for note in data.notes)
    assert len(build(fakes="blend").validation) == 7  # blends of one photo are as many as the photos
    found = read_manifest_set(root, name="set", split="val", faces="largest")
    assert (len(found), found.about.real, found.about.fake) == (10, 7, 3)
    assert any("are copies" in note for note in found.about.notes)


# --- The same bytes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fakes", ["blend", "labels"])
def test_batches_are_the_same_from_files_and_shards_for_any_workers_and_after_a_restart(fakes: str) -> None:
    write_set(ROOT, FACES)
    write_set(Path("shards"), FACES, shards=True)
    loose, shards = build(fakes=fakes), build(Path("shards"), fakes=fakes)
    whole = to_bytes(load(loose))
    assert to_bytes(load(shards)) == whole
    assert to_bytes(load(loose, workers=2)) == whole
    assert to_bytes(load(shards, workers=2)) == whole
    assert to_bytes(load(shards, workers=2, start=3)) == whole[3:]
    assert to_bytes(load(loose, start=3)) == whole[3:]


def test_damaged_crops_are_replaced_alike_from_files_and_shards_and_named_with_their_source() -> None:
    for root, shards in ((ROOT, False), (Path("shards"), True)):
        write_set(root, FACES, shards=shards)
        damage(root, 3)
    loose, shards_data = build(), build(Path("shards"))
    batches = load(loose)
    assert to_bytes(load(shards_data)) == to_bytes(batches) == to_bytes(load(shards_data, workers=2))
    unreadable: dict[str, str] = {}
    lines = note_unreadable([r for b in batches for r in b.replaced], unreadable)
    assert len(lines) == len(unreadable) == 1
    assert "left out crops/clip 1/000003_0.png: " in lines[0]
    assert "checksum" in lines[0]
    assert "cut from videos/clip 1.mp4, frame 3" in lines[0]
    note_unreadable([r for b in load(shards_data) for r in b.replaced], unreadable)
    assert "shards/000000.tar:clip 1/000003_0" in unreadable


def damage(root: Path, index: int) -> None:
    """Change a byte in the middle of a crop, wherever it lies."""
    row = Manifest.open(root / "manifest.arrow").face(index)
    content = bytearray((root / row.path).read_bytes())
    content[row.offset + row.size // 2] ^= 0xFF
    (root / row.path).write_bytes(content)


def test_too_many_damaged_crops_stop_the_run() -> None:
    write_set(ROOT, FACES)
    data = build()
    for index in (0, 3, 6):
        damage(ROOT, index)
    unreadable: dict[str, str] = {}
    note_unreadable([r for b in load(data, workers=2) for r in b.replaced], unreadable)
    assert len(unreadable) == 3
    with pytest.raises(TrainingStopped, match=r"3 of 12 samples cannot be read"):
        stop_if_too_many(unreadable, len(data.train) + len(data.validation))


def test_a_row_that_is_damaged_during_the_run_is_replaced_like_a_damaged_crop() -> None:
    path = write_set(ROOT, FACES)
    content = path.read_bytes()
    place = content.index(b"videos/clip 1.mp4") + len(b"videos/clip 1.mp4")  # the second of the clip, a real face
    data = build()
    with open(path, "r+b") as file:
        file.seek(place)
        file.write(b"\xff")
    for workers in (0, 2):
        replaced = {r.path: r.reason for b in load(data, workers=workers) for r in b.replaced}
        assert list(replaced) == [f"{path}, row 3"]
        assert "is damaged" in next(iter(replaced.values()))
    assert all(data.train.name(i) for i in range(len(data.train)))  # the engine names samples without reading them


# --- Faces ----------------------------------------------------------------------------------------------------------


def test_a_crop_comes_with_landmarks_and_box_in_its_own_pixels() -> None:
    face = make_face(0, "train", 0)
    write_set(ROOT, [face, make_face(4, "val", 0)], scale=0.5, border=8)
    loaded = source.find_faces(ROOT, fakes="blend").train[0].load()
    assert loaded.image.shape == (52, 52, 3)
    assert loaded.boxes is not None
    assert loaded.landmarks is not None
    expected = (face.landmarks - 8) / 2
    assert np.allclose(loaded.landmarks, expected, atol=1e-4)
    corners = [*expected[:68].min(axis=0), *expected[:68].max(axis=0)]
    assert np.allclose(loaded.boxes, [corners], atol=1e-4)


def test_a_crop_is_rgb_and_bit_for_bit_what_was_stored() -> None:
    faces = [make_face(0, "train", 0), make_face(4, "val", 0)]
    write_set(ROOT, faces)
    found = source.find_faces(ROOT, fakes="blend")
    assert np.array_equal(found.train[0].load().image, faces[0].image)
    assert np.array_equal(found.validation[0].load().image, faces[1].image)


def test_blending_takes_the_real_faces_and_labels_take_all() -> None:
    write_set(ROOT, FACES)
    blended = source.find_faces(ROOT, fakes="blend")
    assert [face.label for face in blended.train] == [0] * 8
    assert [face.clip_id for face in blended.train] == [f.clip for f in FACES[:12] if f.label == 0]
    assert [face.clip_id for face in blended.validation] == [f.clip for f in FACES[12:18] if f.label == 0]
    labelled = source.find_faces(ROOT, fakes="labels")
    assert [face.label for face in labelled.train] == [f.label for f in FACES[:12]]
    assert [face.label for face in labelled.validation] == [f.label for f in FACES[12:18]]


def test_rows_are_kept_as_a_range_where_all_are_used() -> None:
    write_set(ROOT, [make_face(i, split, 0) for i, split in ((0, "train"), (2, "train"), (4, "val"))])
    faces = source.find_faces(ROOT, fakes="blend").train
    assert isinstance(faces, source.ManifestFaces)
    assert isinstance(faces.rows, range)
    assert [face.clip_id for face in faces[1:]] == ["clip 1"]
    with pytest.raises(IndexError):
        faces[2]


def test_labelled_faces_are_cropped_around_the_detectors_box() -> None:
    write_set(ROOT, FACES)
    data = build(fakes="labels")
    face = source.find_faces(ROOT, fakes="labels").validation[2]
    loaded = face.load()
    assert loaded.boxes is not None
    rng = np.random.default_rng(0)
    expected = make_single(loaded.image, loaded.boxes[0], rng, SIZE, train=False)
    whole = make_single(loaded.image, None, rng, SIZE, train=False)
    sample = data.validation.make(2, np.random.default_rng(0))
    assert np.array_equal(sample.inputs["image"][0], expected)
    assert not np.array_equal(sample.inputs["image"][0], whole)
    assert sample.targets["label"].tolist() == [face.label]


@pytest.mark.parametrize("fakes", ["blend", "labels"])
def test_a_damaged_box_in_the_manifest_gives_a_sample_or_a_reason(fakes: str) -> None:
    nothing = np.full(4, np.nan, np.float32)
    write_set(
        ROOT,
        [
            make_face(i, s, i % 4 // 2, box_xyxy=nothing)
            for i, s in ((0, "train"), (2, "train"), (4, "val"), (6, "val"))
        ],
    )
    data = build(fakes=fakes)
    for index in range(len(data.train)):
        with contextlib.suppress(UnreadableSample):
            assert data.train.make(index, np.random.default_rng(0)).inputs["image"].shape[1:] == (SIZE, SIZE, 3)


def test_no_crop_of_the_test_split_is_opened() -> None:
    path = write_set(ROOT, FACES)
    manifest = Manifest.open(path)
    for index in (*manifest.rows_of("test"), *manifest.rows_of("none")):
        (ROOT / manifest.face(index).path).unlink()
    for fakes in ("blend", "labels"):
        data = build(fakes=fakes)
        assert not any(b.replaced for b in load(data))
        for index in range(len(data.validation)):
            data.validation.make(index, np.random.default_rng(0))


def test_the_notes_say_which_faces_are_used() -> None:
    write_set(ROOT, FACES)
    train, validation = build().notes[1:]
    assert "8 real faces, fakes by self-blending; 6 clips, 6 people" in train
    assert "val: 4 real faces" in validation
    assert "train: 8 real, 4 fake" in build(fakes="labels").notes[1]


# --- What is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["group", "identity", "clip_id"])
def test_people_or_clips_in_training_and_validation_are_refused_by_name(name: str) -> None:
    shared: dict[str, Any] = {name: "twice"}
    write_set(ROOT, [*FACES, make_face(30, "train", **shared), make_face(40, "val", **shared)])
    with pytest.raises(UserError) as caught:
        build()
    assert caught.value.problems[0].got == "twice"
    assert "--allow shared-people" in caught.value.as_text()
    assert len(build(allow=("shared-people",)).train) == 9


def test_people_in_training_and_test_are_no_error_for_a_run() -> None:
    write_set(ROOT, [*FACES, make_face(30, "train", group="twice"), make_face(40, "test", group="twice")])
    assert len(build().train) == 9


@pytest.mark.parametrize("absent", ["train", "val"])
@pytest.mark.parametrize("fakes", ["blend", "labels"])
def test_an_empty_split_is_one_clear_message(absent: str, fakes: str) -> None:
    write_set(ROOT, [face for face in FACES if face.split != absent])
    with pytest.raises(UserError) as caught:
        build(fakes=fakes)
    (problem,) = caught.value.problems
    assert f"no real face in {absent}" in problem.what
    assert f"{absent}: 0 real, 0 fake" in str(problem.got)


def test_a_missing_class_is_one_clear_message_and_blending_is_offered() -> None:
    write_set(ROOT, [face for face in FACES if face.label == 0])
    with pytest.raises(UserError) as caught:
        build(fakes="labels")
    (problem,) = caught.value.problems
    assert problem.what == "has no fake face in train and no fake face in val"
    assert "blend" in str(problem.remedy)
    assert len(build().train) == 8


def test_a_set_of_fakes_alone_cannot_be_blended() -> None:
    write_set(ROOT, [face for face in FACES if face.label == 1])
    with pytest.raises(UserError, match="no real face in train and no real face in val"):
        build()


def test_a_label_that_is_neither_real_nor_fake_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Manifest, "verify", lambda self: None)  # as if another program had written its checksums
    path = write_set(ROOT, FACES)
    manifest = Manifest.open(path)
    labels = manifest.column("label")
    assert isinstance(labels, np.ndarray)
    content = path.read_bytes()
    assert content.count(labels.tobytes()) == 1
    path.write_bytes(content.replace(labels.tobytes(), bytes([7]) + labels.tobytes()[1:]))
    with pytest.raises(UserError, match=r"neither 0 \(real\) nor 1 \(fake\)"):
        build()


def test_data_root_may_be_the_folder_or_its_manifest() -> None:
    path = write_set(ROOT, FACES)
    assert [f.name for f in source.find_faces(path, fakes="blend").train] == [
        f.name for f in source.find_faces(ROOT, fakes="blend").train
    ]


def test_a_folder_without_a_prepared_set_is_refused_with_the_command_that_makes_one() -> None:
    for root in (Path("absent"), Path("empty")):
        Path("empty").mkdir(exist_ok=True)
        with pytest.raises(UserError, match=r"prepare_faces\.py SOURCE DEST"):
            build(root)


def test_a_part_and_a_broken_manifest_are_refused() -> None:
    path = write_set(ROOT, FACES)
    rows = list(Manifest.open(path))
    write_manifest(Path("part.arrow"), rows, {}, is_part=True)
    with pytest.raises(UserError, match="part of one clip"):
        build(Path("part.arrow"))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="not a usable manifest"):
        build()


def test_a_set_that_moves_as_a_whole_is_read_from_its_new_place() -> None:
    write_set(ROOT, FACES, shards=True)
    before = to_bytes(load(build()))
    shutil.move(ROOT, Path("elsewhere ü"))
    assert to_bytes(load(build(Path("elsewhere ü")))) == before
