"""Photos by person: folders or a CSV; faces are found once, people are kept apart, unusable photos are named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from drawn_sources import (
    LANDMARKS_BY_PICTURE,
    LookupDetector,
    LookupMesh,
    draw_registered_face,
    write_faces,
    write_picture,
)
from sharpstudent.core.errors import UserError
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.tasks.deepfake.samples import BlendedPairs
from sharpstudent.tasks.deepfake.section import DeepfakeSection
from sharpstudent.tasks.deepfake.sources import face_crops, photos
from sharpstudent.tasks.deepfake.sources.face import FaceSplits
from sharpstudent.tasks.deepfake.task import DeepfakeTask
from sharpstudent.train.build import open_training_data

REAL = Path(__file__).resolve().parents[5] / "shared" / "data" / "faces"
MODELS = Path(__file__).resolve().parents[4] / "weights"
ROOT = Path("photos")


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Networks that look the drawn faces up; the list grows when they are loaded."""
    loaded: list[int] = []

    def load() -> tuple[LookupDetector, LookupMesh]:
        loaded.append(1)
        return LookupDetector(), LookupMesh()

    monkeypatch.setattr(face_crops, "load_face_models", load)
    return loaded


def find(root: Path = ROOT, *, share: float = 0.25, seed: int = 0, allow: bool = False, size: int = 64) -> FaceSplits:
    return photos.find_faces(root, image_size=size, validation_share=share, split_seed=seed, allow_shared=allow)


def people_of(faces: tuple) -> set[str]:
    return {face.identity for face in faces}


# --- Folders --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("networks")
def test_each_folder_is_a_person_and_people_are_in_one_split_only() -> None:
    write_faces(ROOT, {"ann": 2, "bob": 1, "cy": 3, "Dörte Ü": 1})
    splits = find()
    assert people_of(splits.train) | people_of(splits.validation) == {"ann", "bob", "cy", "Dörte Ü"}
    assert not people_of(splits.train) & people_of(splits.validation)
    assert len(people_of(splits.validation)) == 1
    assert len(splits.train) + len(splits.validation) == 7
    assert all(face.label == 0 for face in splits.train)
    assert {face.name for face in find().validation} == {face.name for face in splits.validation}


@pytest.mark.usefixtures("networks")
def test_hidden_files_and_folders_and_other_files_are_left_out() -> None:
    write_faces(ROOT, {"ann": 1, "bob": 1, ".cache": 2, "cy/.thumbs": 1})
    (ROOT / "ann" / "notes.txt").write_text("hello")
    (ROOT / "readme.md").write_text("hello")
    splits = find()
    assert people_of(splits.train + splits.validation) == {"ann", "bob"}


@pytest.mark.usefixtures("networks")
def test_one_person_only_is_refused() -> None:
    write_faces(ROOT, {"ann": 4})
    with pytest.raises(UserError, match="at least 2 people"):
        find()


@pytest.mark.usefixtures("folder")
def test_an_empty_or_absent_folder_is_refused_with_the_layout() -> None:
    with pytest.raises(UserError, match="does not exist"):
        find()
    ROOT.mkdir()
    with pytest.raises(UserError) as caught:
        find()
    assert "holds no picture" in caught.value.as_text()
    assert "ROOT/PERSON/*.jpg" in caught.value.as_text()


def test_faces_are_found_once_and_a_second_run_loads_no_network(networks: list[int], folder: Path) -> None:
    write_faces(ROOT, {"ann": 2, "bob": 2})
    first = find()
    made = sorted((folder / "data/face_crops").glob("*.npz"))
    assert len(made) == 4
    assert networks
    networks.clear()
    second = find()
    assert networks == []
    for one, two in zip(first.train, second.train, strict=True):
        assert np.array_equal(one.load().image, two.load().image)
    find(size=96)  # another size of input wants other crops
    assert networks


@pytest.mark.usefixtures("networks")
def test_a_crop_holds_the_face_its_landmarks_and_box() -> None:
    write_faces(ROOT, {"ann": 1, "bob": 1})
    loaded = find().train[0].load()
    assert loaded.landmarks is not None
    assert loaded.boxes is not None
    height, width = loaded.image.shape[:2]
    assert (loaded.landmarks >= -1).all()
    assert (loaded.landmarks[:68] <= (width, height)).all()
    assert loaded.boxes.shape == (1, 4)
    np.testing.assert_allclose(loaded.boxes[0, :2], loaded.landmarks[:68].min(axis=0), atol=0.01)


@pytest.mark.usefixtures("networks")
def test_a_large_face_is_scaled_down_to_what_training_needs_and_a_small_one_never_up() -> None:
    for person, side in (("ann", 400), ("bob", 60)):
        write_picture(ROOT / person / "0.png", draw_registered_face(1 if person == "ann" else 2, side))
    faces = {face.identity: face.load() for face in (*find(size=64).train, *find(size=64).validation)}
    box = faces["ann"].boxes[0]
    assert max(box[2] - box[0], box[3] - box[1]) == pytest.approx(80, abs=1)
    small = next(
        points
        for points in LANDMARKS_BY_PICTURE.values()
        if abs(faces["bob"].boxes[0, 2] - faces["bob"].boxes[0, 0] - np.ptp(points[:68, 0])) < 1e-3
    )
    assert small is not None
    assert max(faces["bob"].image.shape) <= 60


# --- Bad photos -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("networks")
@pytest.mark.parametrize("content", [b"", b"no picture at all", None])
def test_a_photo_that_cannot_be_read_is_named_and_left_out(content: bytes | None) -> None:
    write_faces(ROOT, {"ann": 2, "bob": 2, "cy": 2})
    bad = ROOT / "ann" / "bad.jpg"
    whole = (ROOT / "ann" / "0.png").read_bytes()
    bad.write_bytes(whole[: len(whole) // 2] if content is None else content)
    splits = find()
    assert len(splits.train) + len(splits.validation) == 6
    (note,) = [note for note in splits.notes if "left out" in note]
    assert str(bad) in note


@pytest.mark.usefixtures("networks")
def test_a_photo_without_a_face_is_named_and_left_out() -> None:
    write_faces(ROOT, {"ann": 2, "bob": 2})
    wall = write_picture(ROOT / "ann" / "wall.png", np.full((80, 80, 3), 90, np.uint8))
    assert f"left out {wall}: no face of at least 40 px found" in find().notes


@pytest.mark.usefixtures("networks")
def test_no_face_at_all_is_refused_with_the_photos_named() -> None:
    for person in ("ann", "bob"):
        write_picture(ROOT / person / "0.png", np.full((80, 80, 3), ord(person[0]), np.uint8))
    with pytest.raises(UserError) as caught:
        find()
    assert "has no usable face" in caught.value.as_text()
    assert "0.png: no face" in caught.value.as_text()


@pytest.mark.usefixtures("networks")
def test_a_damaged_crop_is_an_unreadable_photo_not_a_crash(folder: Path) -> None:
    write_faces(ROOT, {"ann": 1, "bob": 1})
    face = find().train[0]
    for content in (b"", b"PK\x03\x04 cut off", b"garbage"):
        for path in (folder / "data/face_crops").glob("*.npz"):
            path.write_bytes(content)
        with pytest.raises(UnreadableSample) as caught:
            face.read()
        assert caught.value.path == face.name


@pytest.mark.usefixtures("folder")
def test_damaged_face_models_are_both_named_before_anything_else() -> None:
    write_faces(ROOT, {"ann": 1, "bob": 1})
    for path in (face_crops.DETECTOR_FILE, face_crops.MESH_FILE):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"not what was published")
    with pytest.raises(UserError) as caught:
        find()
    assert [problem.where for problem in caught.value.problems] == [
        str(face_crops.DETECTOR_FILE),
        str(face_crops.MESH_FILE),
    ]


# --- The same in two splits -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("networks")
def test_identical_files_of_two_people_are_refused_unless_allowed() -> None:
    write_faces(ROOT, {f"person{i}": 1 for i in range(4)})
    for i in range(1, 4):
        shutil.copy(ROOT / "person0" / "0.png", ROOT / f"person{i}" / "copy.png")
    with pytest.raises(UserError) as caught:
        find()
    text = caught.value.as_text()
    assert "identical files stand in two splits" in text
    assert "copy.png" in text
    assert "--allow shared-people" in text
    assert find(allow=True).train


@pytest.mark.usefixtures("networks")
def test_people_who_share_a_picture_stay_together_where_the_split_is_drawn() -> None:
    write_faces(ROOT, {f"person{i}": 1 for i in range(6)})
    (held_out, *_) = people_of(find(share=0.34).validation)
    other = min(people_of(find(share=0.34).train))
    shutil.copy(ROOT / other / "0.png", ROOT / held_out / "copy.png")
    splits = find(share=0.34)
    assert {held_out, other} <= set(people_of(splits.train))
    assert people_of(splits.validation)
    assert not set(people_of(splits.train)) & set(people_of(splits.validation))


@pytest.mark.usefixtures("networks")
def test_equal_photos_count_once_in_validation_and_training_names_them() -> None:
    write_faces(ROOT, {"ann": 2, "bob": 2})
    for person in ("ann", "bob"):
        shutil.copy(ROOT / person / "0.png", ROOT / person / "copy.png")
    splits = find()
    (held_out,) = people_of(splits.validation)
    (other,) = {"ann", "bob"} - {held_out}
    assert [face.name for face in splits.validation] == [f"{held_out}/0.png", f"{held_out}/1.png"]
    assert len(splits.train) == 3
    same = "1 picture is a copy of another of the same class, to the last byte, such as"
    assert f"val: {same} {held_out}/copy.png (of {held_out}/0.png): each picture counts once" in splits.notes
    (note,) = (note for note in splits.notes if note.startswith(f"train: {same} {other}/copy.png"))
    assert note.endswith("in training they count each time; delete the copies")
    assert "val: 2 faces of 1 person" in splits.notes


# --- CSV ------------------------------------------------------------------------------------------------------------


def write_csv(*lines: str, name: str = "people.csv", bom: bool = False) -> Path:
    path = ROOT / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((b"\xef\xbb\xbf" if bom else b"") + "\n".join(lines).encode())
    return path


@pytest.mark.usefixtures("networks")
@pytest.mark.parametrize("bom", [False, True])
def test_a_csv_gives_paths_relative_to_itself_and_people(bom: bool) -> None:
    write_faces(ROOT, {"a": 2, "b": 1, "c": 1})
    path = write_csv("path,person,remark", "a/0.png,Ann,x", "a/1.png,Ann,", "b/0.png,Bob,", "c/0.png,Cy,", bom=bom)
    splits = find(path)
    assert people_of(splits.train + splits.validation) == {"Ann", "Bob", "Cy"}
    assert not people_of(splits.train) & people_of(splits.validation)


@pytest.mark.usefixtures("networks")
def test_a_csv_may_give_its_own_split_and_test_rows_are_never_opened() -> None:
    write_faces(ROOT, {"a": 1, "b": 1})
    (ROOT / "secret.png").write_bytes(b"not a picture")
    lines = ("path,person,split", "a/0.png,Ann,train", "b/0.png,Bob,val", "secret.png,Cy,test", "absent.png,Di,test")
    splits = find(write_csv(*lines))
    assert people_of(splits.train) == {"Ann"}
    assert people_of(splits.validation) == {"Bob"}
    assert not [note for note in splits.notes if "left out" in note]


@pytest.mark.usefixtures("networks")
def test_a_person_of_the_test_split_who_also_trains_is_refused() -> None:
    write_faces(ROOT, {"a": 1, "b": 1})
    path = write_csv("path,person,split", "a/0.png,Ann,train", "b/0.png,Bob,val", "absent.png,Ann,test")
    with pytest.raises(UserError, match="person Ann"):
        find(path)
    assert people_of(find(path, allow=True).train) == {"Ann"}


@pytest.mark.usefixtures("networks")
def test_a_person_in_two_splits_of_a_csv_is_refused_unless_allowed() -> None:
    write_faces(ROOT, {"a": 2, "b": 1})
    path = write_csv("path,person,split", "a/0.png,Ann,train", "a/1.png,Ann,val", "b/0.png,Bob,train")
    with pytest.raises(UserError) as caught:
        find(path)
    assert "person Ann" in caught.value.as_text()
    assert people_of(find(path, allow=True).validation) == {"Ann"}
    task = DeepfakeTask(
        DeepfakeSection(data_source="photos", data_root=str(path), image_size=64), allow=("shared-people",)
    )
    assert len(open_training_data(task).train) == 2


@pytest.mark.usefixtures("networks")
@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((), "lacks the column path"),
        (("name,person", "a/0.png,Ann"), "lacks the column path"),
        (("path,person",), "holds no picture"),
        (("path,person", "a/0.png"), "line 2"),
        (("path,person", ",Ann"), "line 2"),
        (("path,person,split", "a/0.png,Ann,holdout"), "train, val, test"),
        (("path,person,split", "a/0.png,Ann,train", "b/0.png,Bob,"), "some rows have a split and some have none"),
        (("path,person,split", "a/0.png,Ann,train", "b/0.png,Ann,train"), "validation"),
        (("path,person,split", "a/0.png,Ann,test"), "no photo to train on"),
        (("path,label", "a/0.png,1", "b/0.png,0"), "do not say which is real"),
        (("path,label", "a/0.png,real", "b/0.png,perhaps"), "line 3"),
        (("path,label", "a/0.png,fake"), "holds fakes only"),
        (("path,person", "a/0.png,Ann,Bob"), "more values"),
        (("path,person", "a/0.png,Ann", "absent.png,Bob"), "absent.png"),
    ],
)
def test_an_unusable_csv_is_refused_with_the_reason(lines: tuple[str, ...], words: str) -> None:
    write_faces(ROOT, {"a": 1, "b": 1})
    with pytest.raises(UserError) as caught:
        find(write_csv(*lines))
    assert words in caught.value.as_text()


@pytest.mark.usefixtures("networks")
def test_a_csv_that_is_absent_or_in_another_encoding_is_refused() -> None:
    with pytest.raises(UserError, match="does not exist"):
        find(ROOT / "absent.csv")
    path = write_csv()
    path.write_bytes("path,person\na.png,Dörte\n".encode("utf-16"))
    with pytest.raises(UserError, match="UTF-8"):
        find(path)


# --- Real photographs -----------------------------------------------------------------------------------------------


def test_real_photographs_give_real_crops_and_blends(folder: Path) -> None:
    if not (REAL / "index.csv").is_file():
        pytest.skip(f"no photographs at {REAL}")
    if not all((MODELS / path.name).is_file() for path in (face_crops.DETECTOR_FILE, face_crops.MESH_FILE)):
        pytest.skip(f"no face models in {MODELS}: make face-models")
    (folder / "weights").symlink_to(MODELS)
    for i, source in enumerate(sorted((REAL / "canada").glob("*.jpg"))[:4]):
        target = ROOT / f"person {i}" / "photo.jpg"
        target.parent.mkdir(parents=True)
        shutil.copy(source, target)
    splits = find(size=64)
    assert (len(splits.train), len(splits.validation)) == (3, 1)
    assert not [note for note in splits.notes if "left out" in note]
    sample = BlendedPairs(splits.train, image_size=64, train=False).make(0, np.random.default_rng(0))
    real, fake = sample.inputs["image"]
    difference = np.abs(real.astype(int) - fake).max(axis=2)
    assert difference.max() > 0
    assert not difference[sample.rows["mask"][1] == 0].max(initial=0) > 8  # resizing mixes the rim of the mask
    assert set(sample.rows["group"]) == {splits.train[0].identity}
