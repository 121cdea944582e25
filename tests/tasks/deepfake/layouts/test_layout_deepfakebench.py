"""DeepfakeBench: what its JSON files list and what is on disk."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from dataset_trees import list_bench_frames, make_bench, touch, touch_bench, write_json
from sharpstudent.core.errors import UserError
from sharpstudent.tasks.deepfake.layouts.clip import Found, RawClip
from sharpstudent.tasks.deepfake.layouts.registry import find_clips

REAL = "FaceForensics++/original_sequences/youtube/c23/frames/000"


def find(root: Path) -> Found:
    return find_clips(root, layout="deepfakebench", label=None)[1]


def by_key(root: Path) -> dict[str, RawClip]:
    return {clip.key: clip for clip in find(root).clips}


def write_one(root: Path, frames: Any, *, name: str = "UADFV", label: str = "UADFV_Real", video: str = "0000") -> Path:
    content = {name: {label: {"train": {video: {"label": label, "frames": frames}}}}}
    return write_json(root / f"{name}.json", content)


def test_the_four_manipulations_of_one_name_stay_apart(tmp_path: Path) -> None:
    clips = by_key(make_bench(tmp_path))
    for name in ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures"):
        clip = clips[f"FaceForensics++/manipulated_sequences/{name}/c23/frames/000_003"]
        assert (clip.manipulation, clip.label, clip.split, clip.compression) == (name, 1, "train", "c23")
        assert clip.source_set == "FaceForensics++"
        folder = tmp_path / "FaceForensics++" / "manipulated_sequences" / name / "c23"
        assert [frame.picture for frame in clip.frames] == [folder / f"frames/000_003/{i:03d}.png" for i in range(3)]
        assert clip.frames[2].landmarks == folder / "landmarks/000_003/002.npy"
        assert clip.frames[2].mask == folder / "masks/000_003/002.png"


def test_labels_compression_and_people_follow_the_family(tmp_path: Path) -> None:
    clips = by_key(make_bench(tmp_path))
    real, fake = clips[REAL], clips["Celeb-DF-v2/Celeb-synthesis/frames/id0_id1_0000"]
    assert (real.label, real.manipulation, real.identities, real.compression) == (0, "", ("000",), "c23")
    assert (fake.label, fake.manipulation, fake.identities) == (1, "CelebDFv2_fake", ("id1", "id0"))
    assert (fake.compression, fake.source_set, fake.kind) == ("", "Celeb-DF-v2", "crops")
    assert real.frames[0].mask is None


def test_a_video_that_several_files_list_is_one_clip_and_test_counts(tmp_path: Path) -> None:
    found = find(make_bench(tmp_path))
    assert len(found.clips) == 6 + 4 + 3
    clip = next(clip for clip in found.clips if clip.key.endswith("YouTube-real/frames/00170"))
    assert clip.split == "test"
    assert found.notes == ("Celeb-DF-v2: some videos are listed under val and test; they count as test",)


@pytest.mark.parametrize(
    ("crops", "listed"),
    [
        ("", "UADFV/real/frames/0000"),
        ("rgb", "UADFV/real/frames/0000"),
        ("datasets/rgb", "UADFV/real/frames/0000"),
        ("", "./datasets/rgb/UADFV/real/frames/0000"),
        ("", r".\datasets\rgb\UADFV\real\frames\0000"),
    ],
)
def test_listed_folders_are_found_wherever_in_the_root_they_begin(crops: str, listed: str, tmp_path: Path) -> None:
    touch_bench(tmp_path / crops, "UADFV/real/frames/0000")
    write_one(tmp_path, list_bench_frames(listed))
    (clip,) = find(tmp_path).clips
    assert len(clip.frames) == 3
    assert clip.frames[0].landmarks is not None


def test_missing_frames_are_counted_once_a_video(tmp_path: Path) -> None:
    root = make_bench(tmp_path)
    (root / REAL / "001.png").unlink()
    for file in (root / REAL.replace("/000", "/003")).iterdir():
        file.unlink()
    found = find(root)
    clip = next(clip for clip in found.clips if clip.key == REAL)
    assert [frame.index for frame in clip.frames] == [0, 2]
    assert not any(clip.key.endswith("youtube/c23/frames/003") for clip in found.clips)
    reasons = {rejected.source.rpartition(": ")[2]: rejected.reason for rejected in found.rejected}
    assert reasons["FF-DF/FF-real/train/c23/000"] == f"1 of 3 frames left out: 1 not in {root / REAL}"
    assert reasons["FaceForensics++/FF-real/train/c23/003"].startswith("3 of 3 frames left out")


def test_missing_landmarks_are_left_empty(tmp_path: Path) -> None:
    touch(tmp_path, "UADFV/real/frames/0000/000.png")
    write_one(tmp_path, ["UADFV/real/frames/0000/000.png"])
    assert find(tmp_path).clips[0].frames[0].landmarks is None


def test_files_that_list_nothing_on_disk_are_an_error_with_reasons(tmp_path: Path) -> None:
    write_one(tmp_path, list_bench_frames("UADFV/real/frames/0000"))
    with pytest.raises(UserError, match=r"nothing that layout deepfakebench(.|\n)*3 of 3 frames left out: 3 not in"):
        find(tmp_path)


@pytest.mark.parametrize(
    "path",
    [
        "../../secret/000.png",
        "UADFV/real/frames/0000/../../../../secret/000.png",
        "/secret/000.png",
        r"..\..\secret\000.png",
        r"C:\secret\000.png",
        "C:/secret/000.png",
        "UADFV/real/frames/\0/000.png",
        "UADFV/real/frames/\udc00/000.png",
        "UADFV/real/frames/" + "x" * 5000 + "/000.png",
        "UADFV/real/frames/0000/..",
        "000.png/",
        "",
        None,
        7,
        ["000.png"],
    ],
)
def test_a_path_outside_the_folder_or_invalid_is_rejected_and_the_rest_is_kept(path: Any, tmp_path: Path) -> None:
    root = tmp_path / "a" / "b"
    touch(tmp_path, "secret/000.png")
    touch_bench(root, "UADFV/real/frames/0000")
    write_one(root, [path, *list_bench_frames("UADFV/real/frames/0000")])
    found = find(root)
    (clip,) = found.clips
    assert [frame.index for frame in clip.frames] == [0, 1, 2]
    assert all(frame.picture.parent == root / "UADFV/real/frames/0000" for frame in clip.frames)
    assert len(found.rejected) == 1
    assert found.rejected[0].reason.startswith("1 of 4 frames left out: 1 ")
    assert str(root / "UADFV.json") in found.rejected[0].source


def test_an_absolute_path_below_the_root_is_accepted(tmp_path: Path) -> None:
    touch_bench(tmp_path, "UADFV/real/frames/0000")
    write_one(tmp_path, list_bench_frames(f"{tmp_path}/UADFV/real/frames/0000"))
    assert len(find(tmp_path).clips[0].frames) == 3


@pytest.mark.parametrize(
    ("about", "words"),
    [
        (7, "is not a video with a list of frames"),
        ({"label": "UADFV_Real"}, "is not a video with a list of frames"),
        ({"label": "UADFV_Real", "frames": "a.png"}, "is not a video with a list of frames"),
        ({"label": "UADFV_Real", "frames": []}, "lists no frame"),
        ({"label": "UADFV_Fake", "frames": ["x.png"]}, "says neither real nor fake"),
    ],
)
def test_a_bad_entry_is_rejected_with_its_place_and_the_others_are_kept(about: Any, words: str, tmp_path: Path) -> None:
    root = make_bench(tmp_path)
    write_json(root / "dataset_json" / "UADFV.json", {"UADFV": {"UADFV_Real": {"train": {"0000": about}}}})
    found = find(root)
    assert len(found.clips) == 13
    (rejected,) = found.rejected
    assert words in rejected.reason
    assert rejected.source == f"{root}/dataset_json/UADFV.json: UADFV/UADFV_Real/train/0000"


@pytest.mark.parametrize(
    "content",
    [
        {"UADFV": {"UADFV_Real": {"train": [], "val": {"0000": {}}}}},
        {"UADFV": {"UADFV_Real": {"train": {}, "holdout": {}}}},
        {"UADFV": {"UADFV_Real": {"train": {}}, "UADFV_Fake": None}},
        {"UADFV": {"UADFV_Real": {"train": {}}}, "more": "text"},
    ],
)
def test_wrong_types_at_any_level_are_rejected_with_their_place(content: Any, tmp_path: Path) -> None:
    root = make_bench(tmp_path)
    write_json(root / "dataset_json" / "UADFV.json", content)
    found = find(root)
    assert len(found.clips) == 13
    assert found.rejected
    assert all("dataset_json/UADFV.json: " in rejected.source for rejected in found.rejected)


def test_one_folder_of_two_labels_keeps_the_first(tmp_path: Path) -> None:
    frames = list_bench_frames("UADFV/frames/0000")
    touch_bench(tmp_path, "UADFV/frames/0000")
    video = {"0000": {"frames": frames}}
    write_json(tmp_path / "U.json", {"U": {"U_Real": {"train": video}, "U_Fake": {"train": video}}})
    found = find(tmp_path)
    assert [clip.label for clip in found.clips] == [0]
    assert "of the other label" in found.rejected[0].reason


def test_numbers_that_repeat_do_not_give_two_frames_one_number(tmp_path: Path) -> None:
    touch(tmp_path, "U/frames/a/7.png", "U/frames/a/007.png", "U/frames/a/frame.png")
    write_one(tmp_path, ["U/frames/a/7.png", "U/frames/a/007.png", "U/frames/a/7.png"], video="a")
    assert [frame.index for frame in find(tmp_path).clips[0].frames] == [0, 1]


def test_a_key_twice_in_a_file_is_an_error(tmp_path: Path) -> None:
    path = make_bench(tmp_path) / "dataset_json" / "FF-DF.json"
    path.write_text(path.read_text().replace('"003":', '"000":', 1), encoding="utf-8")
    with pytest.raises(UserError, match=r"FF-DF\.json(.|\n)*'000' stands there twice"):
        find(tmp_path)


def test_other_json_files_are_left_alone(tmp_path: Path) -> None:
    root = make_bench(tmp_path)
    write_json(root / "train.json", [["000", "003"]])
    (root / "half.json").write_text("{", encoding="utf-8")
    assert len(find(root).clips) == 13


def test_a_hundred_thousand_frames_take_one_listing_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch_bench(tmp_path, "UADFV/real/frames/0000", frames=32)
    names = frozenset(f"{index:03d}.png" for index in range(32))
    listed: list[Path] = []
    monkeypatch.setattr(
        "sharpstudent.tasks.deepfake.layouts.deepfakebench.read_names", lambda folder: (listed.append(folder), names)[1]
    )
    videos = {
        f"{video:05d}": {"frames": list_bench_frames(f"UADFV/real/frames/{video:05d}", frames=32)}
        for video in range(3125)
    }
    (tmp_path / "UADFV.json").write_text(json.dumps({"UADFV": {"UADFV_Real": {"train": videos}}}), encoding="utf-8")
    start = time.process_time()
    clips = find(tmp_path).clips
    assert sum(len(clip.frames) for clip in clips) == 100_000
    assert len(listed) == 3 * 3125, "frames, landmarks and masks"
    assert time.process_time() - start < 15, "far below a minute a million even on a busy machine"
