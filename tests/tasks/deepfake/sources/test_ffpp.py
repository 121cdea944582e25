"""FaceForensics++ in the layout of self-blending: which frames are taken, and what is never opened."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from drawn_sources import SIDE, write_clip, write_splits
from sharpstudent.core.errors import UserError
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.tasks.deepfake.samples import BlendedPairs
from sharpstudent.tasks.deepfake.section import DeepfakeSection
from sharpstudent.tasks.deepfake.sources import ffpp
from sharpstudent.tasks.deepfake.sources.face import Face
from sharpstudent.tasks.deepfake.task import DeepfakeTask
from sharpstudent.train.build import open_training_data

ROOT = Path("data/FaceForensics++")


@pytest.fixture
def tree(folder: Path) -> Path:
    """Four training clips and two for validation; frame 5 of clip 000 lacks a file, frame 6 another."""
    write_clip(ROOT, "000", range(8), without={5: ("retina",), 6: ("landmarks",)}, faces=2)
    write_clip(ROOT, "001", range(3))
    write_clip(ROOT, "002_sideways", [7])
    write_clip(ROOT, "010", range(2))
    write_clip(ROOT, "099", range(2))  # of no split
    write_splits(ROOT, train=[["000", "001"], ["002", "003"]], val=[["010", "011"]], test=[["020", "021"]])
    return folder / ROOT


def find(*, compression: str = "c23", frames: int = 8, **settings: bool) -> tuple[list[Face], list[Face]]:
    splits = ffpp.find_faces(ROOT, compression=compression, frames_per_clip=frames, **settings)
    return list(splits.train), list(splits.validation)


def frames_of(faces: list[Face], clip: str) -> list[int]:
    return [int(Path(face.name).stem) for face in faces if face.clip_id == clip]


@pytest.mark.usefixtures("tree")
def test_folders_belong_to_a_split_by_their_first_three_characters() -> None:
    train, validation = find()
    assert {face.clip_id for face in train} == {"000", "001", "002_sideways"}
    assert {face.identity for face in train} == {"000", "001", "002"}
    assert {face.clip_id for face in validation} == {"010"}
    assert all(face.label == 0 for face in train + validation)


@pytest.mark.usefixtures("tree")
def test_frames_without_both_landmark_files_are_left_out_before_the_choice() -> None:
    assert frames_of(find()[0], "000") == [0, 1, 2, 3, 4, 7]


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize(("wanted", "frames"), [(1, [0]), (2, [0, 7]), (3, [0, 2, 7]), (6, [0, 1, 2, 3, 4, 7])])
def test_frames_are_spread_evenly_over_the_usable_ones(wanted: int, frames: list[int]) -> None:
    assert frames_of(find(frames=wanted)[0], "000") == frames


@pytest.mark.usefixtures("tree")
def test_a_short_clip_gives_all_its_frames_once() -> None:
    train, _ = find(frames=32)
    assert frames_of(train, "001") == [0, 1, 2]
    assert frames_of(train, "002_sideways") == [7]
    assert len({face.name for face in train}) == len(train)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("compression", ["raw", "c23", "c40"])
def test_frames_have_the_compression_of_the_config(compression: str) -> None:
    for clip in ("000", "010"):
        write_clip(ROOT, clip, [0], compression=compression)
    write_splits(ROOT, train=[["000", "001"]], val=[["010", "011"]])
    train, _ = find(compression=compression)
    assert f"/{compression}/" in train[0].name
    other = "c40" if compression == "c23" else "c23"
    with pytest.raises(UserError, match=f"youtube/{other}/frames"):
        find(compression=other)


def test_the_test_split_is_never_opened(tree: Path) -> None:
    (tree / "test.json").write_text("{ this is no JSON")
    write_clip(ROOT, "020", [0])
    train, validation = find()
    assert "020" not in {face.clip_id for face in train + validation}
    (tree / "test.json").unlink()
    find()


@pytest.mark.usefixtures("tree")
def test_a_loaded_frame_has_the_largest_face_and_all_boxes() -> None:
    loaded = find()[0][0].load()
    assert loaded.image.shape == (SIDE, SIDE, 3)
    assert loaded.landmarks is not None
    assert loaded.boxes is not None
    assert loaded.landmarks.shape == (81, 2)
    assert loaded.boxes.shape == (2, 4)
    left, top, right, bottom = loaded.boxes[0]
    inside = loaded.landmarks[:68]
    assert abs(inside.min(axis=0) - (left, top)).max() <= 1.0
    assert abs(inside.max(axis=0) - (right, bottom)).max() <= 1.0


@pytest.mark.usefixtures("folder")
def test_every_missing_path_is_named_with_what_it_is_and_how_to_get_it() -> None:
    base = ROOT / "original_sequences" / "youtube" / "c23"
    with pytest.raises(UserError) as caught:
        find()
    (problem,) = caught.value.problems
    for path in (base / "frames", base / "landmarks", base / "retina", ROOT / "train.json", ROOT / "val.json"):
        assert f"{path} (" in str(problem.got)
    assert str(ROOT) in problem.where
    assert "make demo" in str(problem.remedy)
    write_clip(ROOT, "000", [0])
    write_splits(ROOT, train=[["000", "001"]])
    with pytest.raises(UserError) as caught:
        find()
    got = str(caught.value.problems[0].got)
    assert f"{ROOT / 'val.json'} (" in got
    assert "train.json" not in got
    assert "retina" not in got


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize("content", ["", "{", '{"a": 1}', "3", '["000", "001"]', "[1, 2]", '"000"'])
def test_a_malformed_split_file_is_refused_by_name(content: str) -> None:
    (ROOT / "val.json").write_text(content)
    with pytest.raises(UserError, match=r"val\.json(: cannot be read as JSON|, entry 0: is not a pair)"):
        find()


def test_a_split_without_its_videos_is_refused_with_those_that_are_there(tree: Path) -> None:
    write_splits(ROOT, val=[["500", "501"]])
    with pytest.raises(UserError) as caught:
        find()
    assert "val.json" in caught.value.as_text()
    assert "5 folders under frames/: 000, 001" in caught.value.as_text()
    shutil.rmtree(tree / "original_sequences/youtube/c23/retina")
    (tree / "original_sequences/youtube/c23/retina").mkdir()
    with pytest.raises(UserError, match="no usable frame"):
        find()


@pytest.mark.usefixtures("tree")
def test_a_video_in_both_splits_is_named_and_refused_unless_allowed() -> None:
    write_splits(ROOT, val=[["010", "001"]])
    with pytest.raises(UserError) as caught:
        find()
    assert "001" in str(caught.value.problems[0].got)
    assert "--allow shared-people" in str(caught.value.problems[0].remedy)
    _, validation = find(allow_shared=True)
    assert {face.clip_id for face in validation} == {"001", "010"}
    section = DeepfakeSection(data_root=str(ROOT), image_size=64)
    with pytest.raises(UserError, match="stand in training and in validation"):
        open_training_data(DeepfakeTask(section))
    open_training_data(DeepfakeTask(section, allow=("shared-people",)))


@pytest.mark.parametrize("kind", ["landmarks", "retina", "frames"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"\x93NUMPY\x01\x00"])
def test_a_damaged_file_of_a_frame_is_unreadable_by_name(tree: Path, kind: str, content: bytes) -> None:
    face = find()[0][0]
    suffix = "png" if kind == "frames" else "npy"
    path = tree / f"original_sequences/youtube/c23/{kind}/000/000.{suffix}"
    path.write_bytes(content)
    with pytest.raises(UnreadableSample) as caught:
        face.load()
    assert caught.value.path.endswith(f"{kind}/000/000.{suffix}")


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((0, 81, 2)), "expected landmarks of shape"),
        (np.zeros((1, 5, 2)), "expected landmarks of shape"),
        (np.array([["a"]]), "expected an array of numbers"),
        (np.zeros((1, 81, 2), bool), "expected an array of numbers"),
        (np.full((1, 81, 2), np.nan), "no pixel positions"),
        (np.full((1, 81, 2), 1e30), "no pixel positions"),
        (np.full((1, 81, 2), 5000), "far outside the picture"),
    ],
)
def test_landmarks_of_another_shape_or_kind_are_unreadable(tree: Path, array: np.ndarray, reason: str) -> None:
    face = find()[0][0]
    np.save(tree / "original_sequences/youtube/c23/landmarks/000/000.npy", array)
    with pytest.raises(UnreadableSample, match=reason):
        face.load()


def test_a_pickled_array_is_refused_and_does_not_run(tree: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.write_text, (tree / "mark", "ran")

    face = find()[0][0]
    np.save(
        tree / "original_sequences/youtube/c23/retina/000/000.npy", np.array([Payload()], object), allow_pickle=True
    )
    with pytest.raises(UnreadableSample):
        face.load()
    assert not (tree / "mark").exists()


@pytest.mark.parametrize("points", [np.full((1, 81, 2), np.nan), np.full((1, 81, 2), 1e9), np.zeros((1, 81, 2))])
def test_impossible_landmarks_give_a_sample_or_a_reason(tree: Path, points: np.ndarray) -> None:
    """Not numbers, far outside, or all in one place: a sample or a clear reason, nothing else."""
    np.save(tree / "original_sequences/youtube/c23/landmarks/000/000.npy", points)
    source = BlendedPairs(find()[0], image_size=48, train=True)
    for seed in range(4):
        with contextlib.suppress(UnreadableSample):
            assert source.make(0, np.random.default_rng(seed)).inputs["image"].shape == (2, 48, 48, 3)


@pytest.mark.usefixtures("tree")
def test_the_task_makes_pairs_of_a_real_and_a_blended_face_and_reports_what_it_used() -> None:
    task = DeepfakeTask(DeepfakeSection(data_root=str(ROOT), image_size=64, repeats=3, split_seed=7))
    data = open_training_data(task)
    assert (len(data.train), len(data.validation)) == (10, 2)
    assert (data.train.repeats, data.validation.repeats, data.validation.seed) == (3, 1, 7)
    assert data.notes == (
        "data (ffpp) train: 10 frames of 3 clips (c23)",
        "data (ffpp) validation: 2 frames of 1 clip (c23)",
    )
    sample = data.train.make(0, np.random.default_rng(0))
    assert sample.targets["label"].tolist() == [0, 1]
    assert sample.inputs["image"].shape == (2, 64, 64, 3)
    assert sample.rows["group"] == ("000", "000")
    assert data.train.group(0) == "000"
    assert sample.rows["id"][0].endswith("000.png#real")
    assert not sample.rows["mask"][0].any()
    assert sample.rows["mask"][1].any()
