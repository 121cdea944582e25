"""FaceForensics++: raw videos, and the tree of self-blended images."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from dataset_trees import COMPRESSIONS, PAIRS, REENACTMENTS, SWAPS, make_ffpp, make_sbi, touch, write_json
from ffpp_tree import build_tree
from sharpstudent.core.errors import UserError
from sharpstudent.data.splits import assign_splits
from sharpstudent.tasks.deepfake.layouts.clip import Found
from sharpstudent.tasks.deepfake.layouts.registry import find_clips


def find(root: Path, layout: str | None = None) -> Found:
    return find_clips(root, layout=layout, label=None)[1]


def test_every_manipulation_in_every_compression_is_found_with_its_people(tmp_path: Path) -> None:
    clips = {clip.key: clip for clip in find(make_ffpp(tmp_path)).clips}
    assert len(clips) == 3 * (6 + 5 * 6 + 2 + 1)
    for compression, name in itertools.product(COMPRESSIONS, SWAPS + REENACTMENTS):
        clip = clips[f"manipulated_sequences/{name}/{compression}/videos/000_003"]
        # A swap shows the source's face, a reenactment keeps the target's.
        assert clip.identities == (("003", "000") if name in SWAPS else ("000", "003"))
        assert (clip.label, clip.manipulation, clip.compression, clip.split) == (1, name, compression, "train")
    real = clips["original_sequences/youtube/c23/videos/011"]
    assert (real.label, real.manipulation, real.identities, real.split) == (0, "", ("011",), "val")
    actor = clips["original_sequences/actors/raw/videos/01__walking"]
    assert (actor.label, actor.identities, actor.split) == (0, ("actor_01",), None)
    fake = next(clip for key, clip in clips.items() if "DeepFakeDetection/c40" in key)
    assert (fake.label, fake.identities, fake.split) == (1, ("actor_02", "actor_01"), None)


def test_the_official_pairs_keep_their_people_in_one_split(tmp_path: Path) -> None:
    clips = find(make_ffpp(tmp_path)).clips
    assigned = assign_splits(
        [clip.identities for clip in clips],
        [clip.split for clip in clips],
        validation_share=0.2,
        test_share=0.2,
        seed=0,
    )
    where = {person: split.split for clip, split in zip(clips, assigned, strict=True) for person in clip.identities}
    for split, pairs in PAIRS.items():
        assert {where[person] for pair in pairs for person in pair} == {split}
    assert "none" not in where.values()


def test_a_missing_list_is_a_note(tmp_path: Path) -> None:
    found = find(make_ffpp(tmp_path, compressions=["c23"], lists=["train"]))
    assert len(found.notes) == 1
    assert "lacks val.json, test.json" in found.notes[0]
    assert {clip.split for clip in found.clips} == {"train", None}


def test_a_number_in_two_lists_has_no_split_and_is_noted(tmp_path: Path) -> None:
    root = make_ffpp(tmp_path, compressions=["c23"])
    write_json(root / "test.json", [["020", "021"], ["000", "999"]])
    found = find(root)
    assert any("video 000 stands in another list too" in note for note in found.notes)
    assert {clip.split for clip in found.clips if "000" in clip.identities} == {None}
    assert {clip.split for clip in found.clips if clip.identities == ("003",)} == {"train"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('[["000", "003"]', r"val\.json: cannot be read as JSON"),
        ('{"000": "003"}', r"val\.json, entry 0: is not a pair"),
        ('[["010", "011"], 12]', r"val\.json, entry 1: is not a pair"),
        ('[["010", 11]]', r"val\.json, entry 0: is not a pair"),
        ("[" * 100_000, r"val\.json: cannot be read as JSON"),
        ("", r"val\.json: cannot be read as JSON"),
    ],
)
def test_a_broken_list_is_one_error_with_file_and_place(content: str, words: str, tmp_path: Path) -> None:
    root = make_ffpp(tmp_path, compressions=["c23"])
    (root / "val.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=words) as caught:
        find(root)
    assert "remedy" in caught.value.as_text()


def test_each_fake_has_the_mask_of_its_name_and_those_without_are_counted(tmp_path: Path) -> None:
    root = make_ffpp(tmp_path, compressions=["c23"])
    actors = "01_02__walking_down_street_outside_angry__ABCDEFGH.mp4"
    masks = root / "manipulated_sequences"
    touch(masks / "Deepfakes" / "masks" / "videos", "000_003.mp4", "003_000.mp4")
    touch(masks / "DeepFakeDetection" / "masks" / "videos", actors)
    found = find(root)
    with_mask = {clip.key: clip.mask for clip in found.clips if clip.mask is not None}
    assert with_mask == {
        f"manipulated_sequences/{name}/c23/videos/{Path(file).stem}": masks / name / "masks" / "videos" / file
        for name, file in (("Deepfakes", "000_003.mp4"), ("Deepfakes", "003_000.mp4"), ("DeepFakeDetection", actors))
    }
    assert found.rejected == ()  # masks are no clips, and no files that are left over
    (note,) = (note for note in found.notes if "mask" in note)
    assert "4 of 6 fakes have no mask" in note
    assert "010_011.mp4" in note


def test_unexpected_names_and_folders_are_reported(tmp_path: Path) -> None:
    root = make_ffpp(tmp_path, compressions=["c23"])
    touch(root, "original_sequences/youtube/c23/videos/my holiday.mp4", "manipulated_sequences/Mine/c23/videos/1.mp4")
    found = find(root)
    clip = next(clip for clip in found.clips if clip.key.endswith("my holiday"))
    assert (clip.identities, clip.split) == ((clip.key,), None)
    assert any("1 files of" in note and "not named like" in note for note in found.notes)
    assert any("manipulated_sequences/{Mine}" in note for note in found.notes)


def test_prepared_frames_come_with_both_arrays_and_their_numbers(tmp_path: Path) -> None:
    found = find(make_sbi(tmp_path))
    assert [clip.identities for clip in found.clips] == [("000",), ("003",), ("010",), ("011",), ("020",), ("021",)]
    clip = found.clips[0]
    base = tmp_path / "original_sequences/youtube/c23"
    assert (clip.kind, clip.label, clip.compression, clip.split) == ("frames", 0, "c23", "train")
    assert [frame.index for frame in clip.frames] == [0, 13, 26]
    assert clip.frames[1].picture == base / "frames/000/013.png"
    assert clip.frames[1].landmarks == base / "landmarks/000/013.npy"
    assert clip.frames[1].boxes == base / "retina/000/013.npy"


def test_frames_with_one_array_only_are_counted_once_a_clip(tmp_path: Path) -> None:
    base = make_sbi(tmp_path) / "original_sequences/youtube/c23"
    (base / "retina/000/000.npy").unlink()
    (base / "landmarks/000/013.npy").unlink()
    for index in (0, 13, 26):
        (base / f"retina/003/{index:03d}.npy").unlink()
    found = find(tmp_path)
    assert [frame.index for frame in found.clips[0].frames] == [26]
    assert "003" not in [person for clip in found.clips for person in clip.identities]
    assert {Path(rejected.source).name: rejected.reason for rejected in found.rejected} == {
        "000": "2 of 3 frames left out: 1 lack landmarks, 1 lack retina",
        "003": "3 of 3 frames left out: 3 lack retina",
    }


def test_the_tree_that_training_reads_is_recognised(tmp_path: Path) -> None:
    found = find(build_tree(tmp_path))
    assert {clip.split for clip in found.clips} == {"train", "val"}
    assert all(len(clip.frames) == 2 for clip in found.clips)
    # One trap frame in each clip; the two clips of the test split have no arrays at all.
    assert len(found.rejected) == len(found.clips) + 2
