"""Face crops that come with labels: two layouts, both classes in both splits, people kept together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn_sources import write_faces, write_picture
from sharpstudent.core.errors import UserError
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.tasks.deepfake.section import DeepfakeSection
from sharpstudent.tasks.deepfake.sources import labelled
from sharpstudent.tasks.deepfake.sources.face import FaceSplits
from sharpstudent.tasks.deepfake.task import DeepfakeTask
from sharpstudent.train.build import TrainingData, open_training_data

ROOT = Path("faces")


def write_classes(root: Path, people: list[str], *, start: int = 0) -> None:
    for label, name in enumerate(("real", "fake")):
        write_faces(root / name, dict.fromkeys(people, 2), start=start + 100 * label)


def find(*, share: float = 0.25, seed: int = 0, **settings: bool) -> FaceSplits:
    return labelled.find_faces(ROOT, validation_share=share, split_seed=seed, **settings)


@pytest.mark.usefixtures("folder")
def test_a_subfolder_is_a_person_under_both_classes_and_goes_to_one_split() -> None:
    write_classes(ROOT, ["ann", "bob", "cy", "di"])
    splits = find()
    assert len(splits.train) + len(splits.validation) == 16
    held_out = {face.identity for face in splits.validation}
    assert len(held_out) == 1
    assert not held_out & {face.identity for face in splits.train}
    for faces in (splits.train, splits.validation):
        assert {face.label for face in faces} == {0, 1}
        assert all(("fake" in Path(face.name).parts) == (face.label == 1) for face in faces)
    assert "validation_share 0.25, split_seed 0" in splits.notes[0]


@pytest.mark.usefixtures("folder")
def test_a_file_outside_a_subfolder_is_a_group_of_its_own() -> None:
    for i in range(10):
        for name in ("real", "fake"):
            write_picture(ROOT / name / f"{i}.png", np.full((8, 8, 3), i + 10 * (name == "fake"), np.uint8))
    splits = find(share=0.5)
    identities = {face.identity for face in splits.train + splits.validation}
    assert len(identities) == 20
    assert {"real/3", "fake/3"} <= identities


@pytest.mark.usefixtures("folder")
def test_folders_train_and_val_are_taken_as_they_are() -> None:
    write_classes(ROOT / "train", ["ann", "bob"])
    write_classes(ROOT / "val", ["cy"], start=50)
    splits = find(share=0.9)
    assert {face.identity for face in splits.train} == {"ann", "bob"}
    assert {face.identity for face in splits.validation} == {"cy"}
    assert "split by the folders" in splits.notes[0]


@pytest.mark.usefixtures("folder")
def test_a_person_under_train_and_val_is_refused_unless_allowed_and_equal_file_names_are_not() -> None:
    for number, place in enumerate(("train/real", "train/fake", "val/real", "val/fake")):
        write_picture(ROOT / place / "001.png", np.full((8, 8, 3), number, np.uint8))
    assert len(find().train) == 2
    write_classes(ROOT / "train", ["ann"])
    write_classes(ROOT / "val", ["ann"], start=50)
    with pytest.raises(UserError) as caught:
        find()
    assert "ann" in str(caught.value.problems[0].got)
    assert "--allow shared-people" in caught.value.as_text()
    assert len(find(allow_shared=True).train) == 6


@pytest.mark.usefixtures("folder")
def test_folders_that_say_no_class_are_named() -> None:
    write_faces(ROOT / "ann", {"1": 2})
    write_faces(ROOT / "bob", {"1": 2})
    with pytest.raises(UserError) as caught:
        find()
    text = caught.value.as_text()
    assert "does not say what is real and what is fake" in text
    assert "ann, bob" in text
    assert "ROOT/train/{real,fake}" in text


@pytest.mark.usefixtures("folder")
def test_a_train_folder_without_a_val_folder_is_divided_and_a_val_folder_alone_is_refused() -> None:
    write_classes(ROOT / "train", ["ann", "bob"])
    splits = find(share=0.5)
    assert {len({face.identity for face in faces}) for faces in (splits.train, splits.validation)} == {1}
    (ROOT / "train").rename(ROOT / "val")
    with pytest.raises(UserError, match="no picture of the class real and fake"):
        find()


@pytest.mark.usefixtures("folder")
def test_pictures_of_test_are_never_opened() -> None:
    write_classes(ROOT / "train", ["ann", "bob"])
    for name in ("real", "fake"):
        (ROOT / "test" / name).mkdir(parents=True)
        (ROOT / "test" / name / "x.png").write_bytes(b"no picture")
    splits = find(share=0.5)
    assert len(splits.train) + len(splits.validation) == 8
    assert "test: 1 real, 1 fake, not opened" in splits.notes


@pytest.mark.usefixtures("folder")
def test_one_picture_under_both_labels_or_in_both_splits_is_refused() -> None:
    write_classes(ROOT, ["ann", "bob", "cy", "di"])
    copy = ROOT / "fake" / "ann" / "copy.png"
    copy.write_bytes((ROOT / "real" / "ann" / "0.png").read_bytes())
    for allow in (False, True):
        with pytest.raises(UserError, match=r"1 picture under both labels(.|\n)*copy\.png"):
            find(allow_shared=allow)
    copy.unlink()
    for person in ("bob", "cy", "di"):
        (ROOT / "real" / person / "copy.png").write_bytes((ROOT / "real" / "ann" / "0.png").read_bytes())
    with pytest.raises(UserError, match=r"identical files stand in two splits(.|\n)*copy\.png"):
        find()
    assert find(allow_shared=True).train


@pytest.mark.usefixtures("folder")
def test_frames_of_one_film_stay_in_one_split_and_are_one_clip() -> None:
    for film in range(6):
        for frame in range(3):
            for label, name in enumerate(("real", "fake")):
                picture = np.full((8, 8, 3), 40 * film + 4 * frame + label, np.uint8)
                write_picture(ROOT / name / f"{film:03}_{frame:04}.png", picture)
    splits = find(share=0.5)
    sides = [{face.identity for face in faces} for faces in (splits.train, splits.validation)]
    assert sides[0] | sides[1] == {f"{film:03}" for film in range(6)}
    assert not sides[0] & sides[1]
    clips = {(face.clip_id, face.label) for faces in (splits.train, splits.validation) for face in faces}
    assert clips == {(f"{name}/{film:03}", label) for label, name in enumerate(("real", "fake")) for film in range(6)}
    assert any("named like frames of 6 films" in note for note in splits.notes)
    assert build_task_data().validation.has_videos()


def build_task_data() -> TrainingData:
    section = DeepfakeSection(data_source="labelled", data_root=str(ROOT), validation_share=0.5)
    return open_training_data(DeepfakeTask(section))


@pytest.mark.usefixtures("folder")
def test_pictures_in_a_folder_are_stills_and_equal_ones_count_once_in_validation() -> None:
    write_classes(ROOT / "train", ["ann", "bob"])
    write_classes(ROOT / "val", ["cy"], start=50)
    for place in ("train/real/ann", "val/real/cy", "val/fake/cy"):
        (ROOT / place / "copy.png").write_bytes((ROOT / place / "0.png").read_bytes())
    data = build_task_data()
    assert (len(data.train), len(data.validation)) == (9, 4)
    assert not data.validation.has_videos()
    assert any("training: 5 real, 4 fake; validation: 2 real, 2 fake" in note for note in data.notes)
    assert any("val: 2 pictures are copies of others of the same class" in note for note in data.notes)
    assert any("train: 1 picture is a copy" in note and "delete the copies" in note for note in data.notes)


@pytest.mark.usefixtures("folder")
def test_equal_frames_of_a_film_are_frames_all_the_same() -> None:
    for label, name in enumerate(("real", "fake")):
        for split in ("train", "val"):
            for film in range(2):
                for frame in range(2):
                    picture = np.full((8, 8, 3), 40 * film + 20 * label + len(split), np.uint8)
                    write_picture(ROOT / split / name / f"{film + 10 * len(split):03}_{frame:04}.png", picture)
    assert len(find().validation) == 8


@pytest.mark.usefixtures("folder")
def test_an_absent_root_is_refused() -> None:
    with pytest.raises(UserError, match="faces: does not exist"):
        find()


@pytest.mark.usefixtures("folder")
def test_a_class_without_pictures_is_refused() -> None:
    write_faces(ROOT / "real", {"ann": 2, "bob": 2})
    (ROOT / "fake").mkdir()
    with pytest.raises(UserError, match="no picture of the class fake"):
        find()


@pytest.mark.usefixtures("folder")
def test_a_split_that_leaves_a_class_out_of_validation_is_refused() -> None:
    write_faces(ROOT / "real", {"ann": 1})
    write_faces(ROOT / "fake", {"bob": 1}, start=9)
    with pytest.raises(UserError) as caught:
        find()
    assert "both classes" in caught.value.as_text()
    assert "split_seed" in caught.value.as_text()


@pytest.mark.usefixtures("folder")
def test_one_person_only_cannot_be_split() -> None:
    write_classes(ROOT, ["ann"])
    with pytest.raises(UserError, match="at least 2 people"):
        find()


@pytest.mark.usefixtures("folder")
def test_samples_are_single_pictures_with_their_label_and_no_blend() -> None:
    write_classes(ROOT, ["ann", "bob"])
    task = DeepfakeTask(
        DeepfakeSection(data_source="labelled", data_root=str(ROOT), image_size=40, validation_share=0.5)
    )
    data = open_training_data(task)
    assert len(data.train) == len(data.validation) == 4
    labels = set()
    for i in range(4):
        sample = data.validation.make(i, np.random.default_rng(0))
        assert sample.inputs["image"].shape == (1, 40, 40, 3)
        assert "mask" not in sample.rows
        assert sample.rows["id"] == (data.validation.name(i),)
        again = data.validation.make(i, np.random.default_rng(99))
        assert np.array_equal(sample.inputs["image"], again.inputs["image"])  # validation pictures are not augmented
        labels.update(sample.targets["label"].tolist())
    assert labels == {0, 1}


@pytest.mark.usefixtures("folder")
def test_a_corrupt_picture_is_unreadable_by_name() -> None:
    write_classes(ROOT, ["ann", "bob"])
    task = DeepfakeTask(DeepfakeSection(data_source="labelled", data_root=str(ROOT), image_size=40))
    data = open_training_data(task)
    (ROOT / data.train.name(0)).write_bytes(b"\x89PNG cut")
    with pytest.raises(UnreadableSample, match=r"is no picture, or is cut off"):
        data.train.make(0, np.random.default_rng(0))


@pytest.mark.usefixtures("folder")
def test_a_checkpoint_lists_the_kinds_of_fake_in_training_as_the_table_names_them() -> None:
    write_classes(ROOT, ["ann", "bob", "cy", "di"])
    kinds = {"ann": "swap", "bob": "swap", "cy": "blend", "di": ""}
    lines = ["path,label,person,split,manipulation"]
    for file in sorted(ROOT.rglob("*.png")):
        label, person = file.relative_to(ROOT).parts[:2]
        split = "val" if person == "cy" else "train"
        lines.append(f"{file.relative_to(ROOT)},{label},{person},{split},{kinds[person] if label == 'fake' else ''}")
    (ROOT / "table.csv").write_text("\n".join(lines))
    section = DeepfakeSection(data_source="labelled", data_root=str(ROOT / "table.csv"), image_size=32)
    task = DeepfakeTask(section)
    assert "fakes" not in task.facts()
    task.open_data("train", "validation")
    assert task.facts()["fakes"] == ["fake", "swap"]
    assert DeepfakeTask(facts=task.facts()).facts() == task.facts()
    assert DeepfakeTask().facts()["fakes"] == ["self-blend"]
