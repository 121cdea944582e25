"""Recognition of the layout of a folder, and the contract of every layout."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest
from dataset_trees import MAKERS, make_celebdf, make_ffpp, make_sbi, touch, write_json
from sharpstudent.core.errors import UserError
from sharpstudent.tasks.deepfake.layouts.clip import Found
from sharpstudent.tasks.deepfake.layouts.registry import LAYOUTS, find_clips


def check_layout_contract(root: Path, found: Found) -> None:
    keys = [clip.key for clip in found.clips]
    assert keys == sorted(keys)
    assert len({key.casefold() for key in keys}) == len(keys)
    for clip in found.clips:
        parts = PurePosixPath(clip.key).parts
        assert "/".join(parts) == clip.key, "no leading, double or trailing slash"
        assert not {"..", "."} & set(parts)
        assert "\\" not in clip.key
        assert all(len(part.encode()) <= 200 for part in parts)
        assert clip.label in (0, 1)
        assert (clip.label == 1) == bool(clip.manipulation)
        assert clip.identities
        assert clip.source_set
        assert "".join((clip.key, *clip.identities, clip.source_set, clip.manipulation, clip.compression)).encode()
        assert (clip.file is None) == bool(clip.frames)
        indices = [frame.index for frame in clip.frames]
        assert len(set(indices)) == len(indices)
        for path in [clip.file, *(frame.picture for frame in clip.frames)]:
            assert path is None or (path.is_file() and path.is_relative_to(root))
    sources = [rejected.source for rejected in found.rejected]
    assert len(set(sources)) == len(sources), "every rejected file is named once"


@pytest.mark.parametrize("name", MAKERS)
def test_each_tree_is_recognised_as_what_it_is(name: str, tmp_path: Path) -> None:
    root = MAKERS[name](tmp_path / "ein Körper mit Leerzeichen 脸" / name)
    found_name, found = find_clips(root, layout=None, label=None)
    assert found_name == name
    assert not found.rejected
    assert [key for key, layout in LAYOUTS.items() if layout.data_set and layout.finder.recognise(root)] == [name]
    check_layout_contract(root, found)


@pytest.mark.parametrize("name", MAKERS)
def test_the_same_tree_gives_the_same_clips_whatever_the_order_on_disk(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = MAKERS[name](tmp_path / name)
    first = find_clips(root, layout=None, label=None)
    scan, listing = os.scandir, os.listdir

    class Backwards:
        def __init__(self, folder: Path) -> None:
            with scan(folder) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(os, "scandir", Backwards)
    monkeypatch.setattr(os, "listdir", lambda folder: sorted(listing(folder), reverse=True))
    assert find_clips(root, layout=None, label=None) == first


@pytest.mark.parametrize("name", MAKERS)
def test_a_data_set_gives_its_own_labels_and_refuses_another(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--label.*the files of .* give the labels"):
        find_clips(MAKERS[name](tmp_path), layout=None, label=1)


def test_a_tree_of_two_layouts_names_both_and_the_option(tmp_path: Path) -> None:
    make_ffpp(make_sbi(tmp_path), compressions=["c23"])
    with pytest.raises(UserError) as caught:
        find_clips(tmp_path, layout=None, label=None)
    text = caught.value.as_text()
    assert "more than one layout" in text
    assert "add --layout ffpp|ffpp_sbi" in text
    assert "original_sequences/" in text
    assert find_clips(tmp_path, layout="ffpp", label=None)[1].clips[0].kind == "video"
    assert find_clips(tmp_path, layout="ffpp_sbi", label=None)[1].clips[0].kind == "frames"


def test_an_unknown_tree_is_refused_with_the_known_layouts_and_what_was_found(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt", "tables/a.csv")
    with pytest.raises(UserError) as caught:
        find_clips(tmp_path, layout=None, label=None)
    text = caught.value.as_text()
    assert all(name in text for name in LAYOUTS)
    assert "tables/, notes.txt" in text
    assert "--layout NAME" in text


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_named_layout_that_finds_nothing_is_an_error(name: str, tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt")
    with pytest.raises(UserError) as caught:
        find_clips(tmp_path, layout=name, label=None)
    assert caught.value.as_text().startswith(str(tmp_path))


def test_an_unknown_layout_a_file_and_a_missing_folder_are_user_errors(tmp_path: Path) -> None:
    touch(tmp_path, "x.mp4")
    for root, layout, words in (
        (tmp_path, "faceforensics", "ffpp or ffpp_sbi"),
        (tmp_path / "x.mp4", None, "is a file, not a folder"),
        (tmp_path / "gone", None, "does not exist"),
    ):
        with pytest.raises(UserError, match=words):
            find_clips(root, layout=layout, label=None)


def test_an_unreadable_folder_is_a_user_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_celebdf(tmp_path)
    scan = os.scandir

    def refuse(folder: Path) -> object:
        if Path(folder).name == "Celeb-synthesis":
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"Celeb-synthesis: cannot be listed \(Permission denied\)"):
        find_clips(root, layout=None, label=None)


def test_a_link_that_the_user_made_is_followed_and_not_resolved(tmp_path: Path) -> None:
    elsewhere = make_ffpp(tmp_path / "other disk", compressions=["c23"])
    root = tmp_path / "root"
    root.mkdir()
    for name in ("original_sequences", "manipulated_sequences", "train.json", "val.json", "test.json"):
        (root / name).symlink_to(elsewhere / name)
    name, found = find_clips(root, layout=None, label=None)
    assert name == "ffpp"
    assert len(found.clips) == 39
    check_layout_contract(root, found)


def test_recognising_does_not_walk_a_large_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, *(f"person {i}/notes {j}/x.txt" for i in range(60) for j in range(3)))
    listed: list[str] = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: (listed.append(str(folder)), scan(folder))[1])
    with pytest.raises(UserError):
        find_clips(tmp_path, layout=None, label=None)
    assert len(listed) < 80


def test_a_broken_bench_file_is_recognised_and_named(tmp_path: Path) -> None:
    path = write_json(tmp_path / "UADFV.json", {"UADFV": {"UADFV_Real": {"train": {}}}})
    path.write_text(path.read_text()[:-4], encoding="utf-8")
    with pytest.raises(UserError, match=r"UADFV\.json: cannot be read as JSON"):
        find_clips(tmp_path, layout=None, label=None)
