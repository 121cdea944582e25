"""Celeb-DF-v2, DFDC, its preview, and FFIW."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dataset_trees import make_celebdf, make_dfdc, make_dfdc_preview, make_ffiw, touch, write_json
from sharpstudent.core.errors import UserError
from sharpstudent.tasks.deepfake.layouts.clip import Found, RawClip
from sharpstudent.tasks.deepfake.layouts.registry import find_clips


def find(root: Path) -> tuple[dict[str, RawClip], Found]:
    found = find_clips(root, layout=None, label=None)[1]
    return {clip.key: clip for clip in found.clips}, found


@pytest.mark.parametrize(("inner", "youtube"), [("", "YouTube-real"), ("videos", "Youtube-real")])
def test_celeb_df_takes_the_label_from_the_folder_and_the_test_set_from_the_list(
    inner: str, youtube: str, tmp_path: Path
) -> None:
    clips, found = find(make_celebdf(tmp_path, inner=inner, youtube=youtube))
    middle = f"{inner}/" if inner else ""
    fake = clips[f"Celeb-synthesis/{middle}id0_id1_0000"]
    assert (fake.label, fake.split, fake.manipulation) == (1, "test", "Celeb-synthesis")
    assert fake.identities == ("id1", "id0"), "the face of the source on the target's video"
    assert clips[f"Celeb-real/{middle}id0_0000"].identities == ("id0",)
    assert [clip.split for clip in clips.values()].count("test") == 3
    unnamed = clips[f"{youtube}/{middle}00170"]
    assert (unnamed.label, unnamed.split, unnamed.identities) == (0, "test", (unnamed.key,))
    assert not found.notes


def test_a_celeb_df_list_that_contradicts_the_folders_or_is_missing_is_noted(tmp_path: Path) -> None:
    root = make_celebdf(tmp_path)
    (root / "List_of_testing_videos.txt").write_text("1 Celeb-synthesis/id0_id1_0000.mp4\n", encoding="utf-8")
    clips, found = find(root)
    assert clips["Celeb-synthesis/id0_id1_0000"].label == 1
    assert any("1 lines contradict their folders" in note for note in found.notes)
    (root / "List_of_testing_videos.txt").unlink()
    clips, found = find(root)
    assert {clip.split for clip in clips.values()} == {None}
    assert "List_of_testing_videos.txt is missing" in found.notes[0]


@pytest.mark.parametrize(
    "line",
    ["1 ../secret.mp4", "1 /etc/x.mp4", "2 Celeb-real/id0_0000.mp4", "Celeb-real/id0_0000.mp4", "1 Mine/x.mp4", "1"],
)
def test_a_bad_line_of_the_celeb_df_list_is_rejected_with_its_number(line: str, tmp_path: Path) -> None:
    root = make_celebdf(tmp_path)
    path = root / "List_of_testing_videos.txt"
    path.write_text(f"{path.read_text()}\n{line}\n1 Celeb-real/id9_0009.mp4\n", encoding="utf-8")
    clips, found = find(root)
    assert len(clips) == 7
    assert {rejected.source for rejected in found.rejected} == {
        f"{path}, line 5",
        f"{path}, line 6: Celeb-real/id9_0009.mp4",
    }


def test_a_celeb_df_list_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    (make_celebdf(tmp_path) / "List_of_testing_videos.txt").write_bytes(b"\xff\xfe1 \x00C")
    with pytest.raises(UserError, match=r"List_of_testing_videos\.txt: cannot be read as text"):
        find(tmp_path)


def test_dfdc_takes_labels_splits_and_originals_from_its_lists(tmp_path: Path) -> None:
    clips, found = find(make_dfdc(tmp_path))
    fields = {key: (clip.label, clip.split, clip.identities) for key, clip in clips.items()}
    assert fields == {
        "dfdc_train_part_0/aaaa": (0, "train", ("aaaa",)),
        "dfdc_train_part_0/bbbb": (1, "train", ("aaaa",)),
        "dfdc_train_part_1/cccc": (0, "train", ("cccc",)),
        "dfdc_train_part_1/dddd": (1, "train", ("cccc",)),
        "test/eeee": (0, "test", ("eeee",)),
        "test/ffff": (1, "test", ("ffff",)),
    }
    assert not found.rejected


@pytest.mark.parametrize("place", ["dfdc_train_part_0", "test"])
def test_a_part_of_dfdc_alone_is_recognised(place: str, tmp_path: Path) -> None:
    assert find_clips(make_dfdc(tmp_path) / place, layout=None, label=None)[0] == "dfdc"


def test_the_dfdc_tree_of_self_blended_images_is_read(tmp_path: Path) -> None:
    touch(tmp_path, "videos/eeee.mp4")
    (tmp_path / "labels.csv").write_text("filename,label\neeee.mp4,1\n", encoding="utf-8")
    clips, _ = find(tmp_path)
    assert (clips["videos/eeee"].label, clips["videos/eeee"].split) == (1, "test")


def test_dfdc_videos_without_entry_and_entries_without_video_are_rejected(tmp_path: Path) -> None:
    root = make_dfdc(tmp_path)
    part = touch(root / "dfdc_train_part_0", "stranger.mp4")
    content = json.loads((part / "metadata.json").read_text())
    good = {"label": "REAL", "split": "train", "original": None}
    content |= {"gone.mp4": good, "../../x.mp4": good, "/x.mp4": good, "sub/aaaa.mp4": good}
    content |= {"aaaa.mp4": 7, "bbbb.mp4": {"label": "MAYBE"}}
    write_json(part / "metadata.json", content)
    clips, found = find(root)
    assert "dfdc_train_part_0/aaaa" not in clips
    assert {rejected.source.rpartition("/metadata.json: ")[2] or "stranger" for rejected in found.rejected} >= {
        "gone.mp4",
        "../../x.mp4",
        "/x.mp4",
        "sub/aaaa.mp4",
        "aaaa.mp4",
        "bbbb.mp4",
    }
    assert any("stranger.mp4" in rejected.source and "no label" in rejected.reason for rejected in found.rejected)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,fake\nx.mp4,1\n", r"labels\.csv: lacks the column filename and label"),
        ("", r"labels\.csv: lacks the column filename and label(?s:.*)an empty file"),
        ('filename,label\n"x.mp4\n\0', r"labels\.csv"),
        ("filename,label\nx\udcff.mp4,1\n", r"labels\.csv: cannot be read as CSV"),
    ],
)
def test_a_broken_dfdc_table_is_an_error(text: str, words: str, tmp_path: Path) -> None:
    root = make_dfdc(tmp_path) / "test"
    (root / "labels.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=words):
        find_clips(root, layout="dfdc", label=None)


def test_bad_rows_of_a_dfdc_table_are_rejected_with_their_lines(tmp_path: Path) -> None:
    root = make_dfdc(tmp_path) / "test"
    (root / "labels.csv").write_text(
        "filename,label\neeee.mp4,0\nffff.mp4\n../x.mp4,1\neeee.mp4,1\nffff.mp4,fake,more\n", encoding="utf-8"
    )
    clips, found = find(root)
    assert {key: clip.label for key, clip in clips.items()} == {"eeee": 0, "ffff": 1}
    assert [rejected.source.partition("labels.csv, ")[2] for rejected in found.rejected] == [
        "line 3: ffff.mp4",
        "line 4: ../x.mp4",
        "line 5: eeee.mp4",
    ]


def test_dfdc_metadata_of_another_form_is_an_error(tmp_path: Path) -> None:
    root = make_dfdc(tmp_path)
    write_json(root / "dfdc_train_part_1" / "metadata.json", ["x.mp4"])
    with pytest.raises(UserError, match=r"dfdc_train_part_1/metadata\.json: cannot be read as such a list"):
        find(root)


def test_the_preview_gives_both_people_of_a_clip(tmp_path: Path) -> None:
    clips, found = find(make_dfdc_preview(tmp_path))
    fields = {key.split("/")[0]: (clip.label, clip.split, clip.identities) for key, clip in clips.items()}
    assert fields == {
        "original_videos": (0, "train", ("643049",)),
        "method_A": (1, "train", ("1075594", "643049")),
        "method_B": (1, "test", ("1044085", "1224068")),
    }
    assert {clip.manipulation for clip in clips.values()} == {"", "method_A", "method_B"}
    assert not found.rejected


@pytest.mark.parametrize(
    ("name", "about"),
    [
        ("../../x.mp4", {"label": "real", "set": "train"}),
        ("/x.mp4", {"label": "real", "set": "train"}),
        ("method_A/gone.mp4", {"label": "fake", "set": "train"}),
        ("method_A/643049/643049_A/1075594_643049_A_001.mp4", {"label": ["fake"], "set": {}}),
        ("method_A/643049/643049_A/1075594_643049_A_001.mp4", None),
    ],
)
def test_a_bad_entry_of_the_preview_is_rejected(name: str, about: Any, tmp_path: Path) -> None:
    root = make_dfdc_preview(tmp_path)
    content = json.loads((root / "dataset.json").read_text())
    write_json(root / "dataset.json", {**content, name: about})
    clips, found = find(root)
    assert len(clips) == len({*content} - {name})
    assert [rejected.source for rejected in found.rejected] == [f"{root}/dataset.json: {name}"]


@pytest.mark.parametrize("inner", ["", "videos"])
def test_ffiw_parts_are_the_splits_and_one_name_is_one_scene(inner: str, tmp_path: Path) -> None:
    clips, found = find(make_ffiw(tmp_path / "FFIW10K-v1-release", inner=inner))
    assert len(clips) == 6, "masks are not read"
    for clip in clips.values():
        branch, part, *_ = clip.key.split("/")
        assert (clip.label, clip.split) == (int(branch == "target"), part)
    assert {clip.identities for clip in clips.values()} == {("train/00000",), ("val/00001",), ("test/00002",)}
    name, above = find_clips(tmp_path, layout=None, label=None)
    assert name == "ffiw"
    assert len(above.clips) == len(found.clips)
