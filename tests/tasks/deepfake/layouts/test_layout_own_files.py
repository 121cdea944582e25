"""A folder of one's own photos and videos."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from dataset_trees import touch
from sharpstudent.core.errors import UserError
from sharpstudent.tasks.deepfake.layouts.clip import RawClip
from sharpstudent.tasks.deepfake.layouts.registry import find_clips


def find(root: Path, *, layout: str | None = None, label: int | None = None) -> dict[str, RawClip]:
    return {clip.key: clip for clip in find_clips(root, layout=layout, label=label)[1].clips}


def test_photos_and_videos_are_found_alike_and_either_can_be_selected(tmp_path: Path) -> None:
    touch(tmp_path, "Ann/1.jpg", "Ann/deep/2.PNG", "Ann/3.MOV", "Bob/4.m4v", "alone.webp", "notes.txt", "Bob/x.npy")
    clips = find(tmp_path)
    assert {key: (clip.kind, clip.identities) for key, clip in clips.items()} == {
        "Ann/1": ("photo", ("Ann",)),
        "Ann/deep/2": ("photo", ("Ann",)),
        "Ann/3": ("video", ("Ann",)),
        "Bob/4": ("video", ("Bob",)),
        "alone": ("photo", ("alone",)),
    }
    assert {clip.label for clip in clips.values()} == {0}
    assert set(find(tmp_path, layout="photos")) == {"Ann/1", "Ann/deep/2", "alone"}
    assert set(find(tmp_path, layout="videos")) == {"Ann/3", "Bob/4"}
    assert find_clips(tmp_path, layout=None, label=None)[0] == "folder"


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mov", "mkv", "webm", "m4v", "MP4", "Avi"])
def test_every_kind_of_video_is_found(suffix: str, tmp_path: Path) -> None:
    assert find(touch(tmp_path, f"x.{suffix}"))["x"].kind == "video"


def test_real_and_fake_folders_are_the_labels(tmp_path: Path) -> None:
    touch(tmp_path, "real/Ann/1.jpg", "real/alone.mp4", "Fake/Ann/1.jpg", "Fake/alone.mp4")
    clips = find(tmp_path)
    assert {key: clip.label for key, clip in clips.items()} == {
        "real/Ann/1": 0,
        "real/alone": 0,
        "Fake/Ann/1": 1,
        "Fake/alone": 1,
    }
    assert clips["real/Ann/1"].identities == clips["Fake/Ann/1"].identities == ("Ann",)
    assert clips["real/alone"].identities != clips["Fake/alone"].identities


def test_files_beside_the_label_folders_are_left_out_with_the_reason(tmp_path: Path) -> None:
    touch(tmp_path, "real/1.jpg", "fake/2.jpg", "other/3.jpg", "4.jpg")
    found = find_clips(tmp_path, layout=None, label=None)[1]
    assert [clip.key for clip in found.clips] == ["fake/2", "real/1"]
    assert [rejected.source for rejected in found.rejected] == [str(tmp_path / "4.jpg"), str(tmp_path / "other/3.jpg")]
    assert all("beside fake/ and real/" in rejected.reason for rejected in found.rejected)


def test_a_label_option_is_used_and_is_refused_beside_real_and_fake_folders(tmp_path: Path) -> None:
    touch(tmp_path, "mine/1.jpg", "labelled/real/1.jpg")
    assert find(tmp_path / "mine", label=1)["1"].label == 1
    assert find(tmp_path / "mine", label=0)["1"].label == 0
    with pytest.raises(UserError, match="a label was given too"):
        find(tmp_path / "labelled", label=1)


@pytest.mark.parametrize("place", ["manipulated_sequences", "data/Deepfakes", "Celeb-synthesis"])
def test_the_fakes_of_a_data_set_are_not_labelled_real(place: str, tmp_path: Path) -> None:
    touch(tmp_path / place, "videos/000_003.mp4")
    assert {clip.label for clip in find(tmp_path, layout="folder").values()} == {1}
    with pytest.raises(UserError, match=r"would be taken for real faces(.|\n)*--label fake"):
        find(tmp_path / place, layout="folder")
    assert {clip.label for clip in find(tmp_path / place, layout="folder", label=1).values()} == {1}


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "Ann/1.jpg", "Ann/.2.jpg", ".thumbnails/3.jpg", "Ann/.cache/4.jpg")
    assert list(find(tmp_path)) == ["Ann/1"]


def test_names_that_differ_in_suffix_or_case_alone_stay_apart(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.jpg", "a/x.mp4", "a/X.png", "a/y.jpg", "b/x.jpg")
    clips = find(tmp_path)
    assert set(clips) == {"a/x.jpg", "a/x.mp4", "a/X.png", "a/y", "b/x"}
    assert len({clip.file for clip in clips.values()}) == 5


def test_odd_and_long_names_give_keys_that_are_paths(tmp_path: Path) -> None:
    long = "ü" * 120
    touch(
        tmp_path,
        f"{long}/{long}.jpg",
        "Zoë 脸/a\\b.jpg",
        "Zoë 脸/line\nbreak.jpg",
        "👩‍🚀/1.jpg",
        "x/ .jpg",
        "x/a..jpg",
    )
    found = find_clips(tmp_path, layout=None, label=None)[1]
    keys = [clip.key for clip in found.clips]
    assert len(keys) == len(set(keys)) == 6
    assert "👩‍🚀/1" in keys
    for number, clip in enumerate(found.clips):
        folder = tmp_path / "made" / str(number) / clip.key
        folder.mkdir(parents=True)
        assert "\n" not in clip.key
        assert "\\" not in clip.key
        assert clip.file is not None
        assert clip.file.is_file()


def test_a_name_that_is_not_text_is_rejected_and_nothing_else(tmp_path: Path) -> None:
    touch(tmp_path, "good.jpg")
    try:
        (Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.jpg"))).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    found = find_clips(tmp_path, layout=None, label=None)[1]
    assert [clip.key for clip in found.clips] == ["good"]
    assert len(found.rejected) == 1
    assert "not UTF-8" in found.rejected[0].reason
    found.rejected[0].source.encode("utf-8")


def test_a_link_in_a_circle_ends_and_a_pipe_is_not_opened(tmp_path: Path) -> None:
    touch(tmp_path, "Ann/1.jpg")
    (tmp_path / "Ann" / "again").symlink_to(tmp_path)
    (tmp_path / "dead.jpg").symlink_to(tmp_path / "gone.jpg")
    os.mkfifo(tmp_path / "pipe.mp4")
    results: list[list[str]] = []
    worker = threading.Thread(target=lambda: results.append(sorted(find(tmp_path))), daemon=True)
    worker.start()
    worker.join(60)
    assert results == [["Ann/1", "dead"]]
    rejected = find_clips(tmp_path, layout=None, label=None)[1].rejected
    assert [(Path(entry.source).name, entry.reason) for entry in rejected] == [
        ("pipe.mp4", "is no ordinary file"),
        ("again", "is a link back to a folder above it"),
    ]


def test_a_table_named_by_a_relative_path_may_name_files_outside_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "photos/ann.jpg", "photos/bob.jpg", "lists/x.txt")
    monkeypatch.chdir(tmp_path)
    Path("lists/faces.csv").write_text("path,person\n../photos/ann.jpg,ann\n../photos/bob.jpg,bob\n")
    assert {clip.identities for clip in find(Path("lists/faces.csv")).values()} == {("ann",), ("bob",)}


def test_a_column_that_looks_like_a_missing_one_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg")
    table = tmp_path / "faces.csv"
    table.write_text("file,persn,sex\n1.jpg,ann,f\n2.jpg,ann,f\n")
    with pytest.raises(UserError, match=r"column 'persn', which is not known, and none for person"):
        find(table)
    table.write_text("file,person,persn\n1.jpg,ann,x\n2.jpg,ann,y\n")
    assert len(find(table)) == 2
