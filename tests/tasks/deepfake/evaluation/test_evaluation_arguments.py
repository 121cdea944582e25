"""Arguments of an evaluation: names, splits, the cache of crops, and one clear error for each invalid one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from block_clips import draw_blocks, write_picture
from block_sets import LARGE, NOBODY, prepare, use_block_networks, write_clip, write_crops, write_tree
from drawn_faces import draw_face
from prepared_set import SetFace, write_set
from sharpstudent.core.errors import UserError
from sharpstudent.tasks.deepfake.dataset.manifest import Manifest, write_manifest
from sharpstudent.tasks.deepfake.evaluation import crops_set as folder_set
from sharpstudent.tasks.deepfake.evaluation.datasets import open_sets
from sharpstudent.tasks.deepfake.evaluation.evaluation_set import MOST, OTHERS, LabelledFaceSet, count_reasons
from sharpstudent.tasks.deepfake.evaluation.set_request import SetRequest, Split
from sharpstudent.tasks.deepfake.prepare.settings import CropSettings


@pytest.fixture(autouse=True)
def block_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    use_block_networks(monkeypatch)


def open_several(*requests: SetRequest) -> tuple[list[LabelledFaceSet], str]:
    said: list[str] = []
    return open_sets(requests, say=said.append), "\n".join(said)


def make_set(root: Path, splits: str = "test", labels: tuple[int, ...] = (0, 1)) -> Path:
    faces = [
        SetFace(*draw_face(10 * number + i, 60), split, label, f"{split} {label}", f"person {split} {label}", {})
        for number, split in enumerate(splits.split())
        for i, label in enumerate(labels)
    ]
    return write_set(root, faces)


# --- Names and mistakes ---------------------------------------------------------------------------------------------


def test_sets_are_named_after_their_folders_or_as_given_and_names_are_unique(tmp_path: Path) -> None:
    for place in ("a/faces", "b/faces", "c/faces", "d/faces"):
        make_set(tmp_path / place)
    requests = [SetRequest(tmp_path / place / "faces") for place in "ab"]
    requests += [SetRequest(tmp_path / "c/faces/manifest.arrow"), SetRequest(tmp_path / "d/faces", name="faces-2")]
    sets, said = open_several(*requests)
    assert [found.name for found in sets] == ["faces", "faces-3", "faces-4", "faces-2"]
    assert "faces-3 (manifest, split test): 2 frames, 1 real and 1 fake" in said


def check_refused(*requests: SetRequest, says: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as raised:
        open_several(*requests)
    text = str(raised.value)
    for part in says:
        assert part in text, text
    assert "remedy" in text


def test_each_invalid_argument_is_one_clear_error(tmp_path: Path) -> None:
    root = tmp_path / "set"
    make_set(root)
    check_refused(says=("--data", "names no data set"))
    check_refused(SetRequest(tmp_path / "nowhere"), says=("nowhere", "does not exist"))
    check_refused(SetRequest(root), SetRequest(root / "manifest.arrow"), says=("set", "named twice"))
    check_refused(SetRequest(root, name="a/b"), says=("'a/b'", "cannot name a data set"))
    check_refused(SetRequest(root, name=" "), says=("' '", "cannot name a data set"))
    make_set(tmp_path / "other")
    alike = [SetRequest(path, name="x") for path in (root, tmp_path / "other")]
    check_refused(*alike, says=("'x'", "names two data sets"))
    (tmp_path / "a.mp4").write_bytes(b"video")
    check_refused(SetRequest(tmp_path / "a.mp4"), says=("a.mp4", "is a file", "name the folder"))
    (tmp_path / "b.arrow").write_bytes(b"no manifest")
    check_refused(SetRequest(tmp_path / "b.arrow"), says=("b.arrow", "is not a usable manifest"))
    (tmp_path / "empty").mkdir()
    check_refused(SetRequest(tmp_path / "empty"), says=("empty", "no layout that is known"))
    check_refused(SetRequest(tmp_path / "empty", crops=True), says=("empty", "holds no picture"))
    check_refused(SetRequest(root, crops=True), says=(str(root), "leave out --crops"))
    write_crops(tmp_path / "split", ["val/real/a.png", "val/fake/a.png"])
    check_refused(SetRequest(tmp_path / "split", crops=True), says=("has no split test", "--split val or --split all"))
    write_picture(tmp_path / "people/ann/a.png", draw_blocks(LARGE))
    check_refused(SetRequest(tmp_path / "people"), says=("does not say what is real", "ann", "--label real"))
    (tmp_path / "begun").mkdir()
    record = {"made_by": "prepare_faces.py", "is_finished": False, "settings": {}, "counts": None}
    (tmp_path / "begun/preparation.json").write_text(json.dumps(record))
    check_refused(SetRequest(tmp_path / "begun"), says=("begun", "not finished"))


def test_an_absent_split_is_refused_with_the_splits_that_exist(tmp_path: Path) -> None:
    make_set(tmp_path / "set", "train val")
    says = (
        "no face in its split test",
        "train: 2 faces",
        "val: 2 faces",
        "test: 0 faces",
        "--split val or train or all",
    )
    check_refused(SetRequest(tmp_path / "set"), says=says)
    (found,), _ = open_several(SetRequest(tmp_path / "set", split="val"))
    assert found.frames.clip_ids == ["val 0", "val 1"]
    assert found.about.split == "val"
    (whole,), _ = open_several(SetRequest(tmp_path / "set", split="all"))
    assert len(whole) == 4


def test_one_class_is_refused_only_if_all_sets_together_lack_the_other(tmp_path: Path) -> None:
    make_set(tmp_path / "real", labels=(0, 0))
    make_set(tmp_path / "fake", labels=(1,))
    sets, _ = open_several(SetRequest(tmp_path / "real"), SetRequest(tmp_path / "fake"))
    assert [found.labels.tolist() for found in sets] == [[0, 0], [1]]
    check_refused(
        SetRequest(tmp_path / "real"), says=("all 2 faces are real", "real: test 0/000000", "another --split")
    )


def test_an_error_in_the_last_set_is_raised_before_anything_is_cropped(tmp_path: Path) -> None:
    write_tree(tmp_path / "videos")
    (tmp_path / "empty").mkdir()
    check_refused(
        SetRequest(tmp_path / "videos"), SetRequest(tmp_path / "empty", crops=True), says=("holds no picture",)
    )
    assert not folder_set.CACHE.exists()


# --- Cached crops ---------------------------------------------------------------------------------------------------


def test_crops_are_cached_for_the_next_evaluation_and_follow_their_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_tree(tmp_path / "videos")
    (first,), said = open_several(SetRequest(source))
    (kept,) = folder_set.CACHE.iterdir()
    assert kept.name.startswith("videos-")
    assert len(kept.name) == len("videos-") + 12
    assert str(kept) in said
    assert "train" not in said
    with monkeypatch.context() as context:
        context.setattr("sharpstudent.tasks.deepfake.prepare.run.WorkerPool", None)  # nothing is left to crop
        (again,), _ = open_several(SetRequest(source))
    assert again.about == first.about
    shutil.rmtree(source / "real/ben")
    write_clip(source / "fake/eve/e.avi", "L")
    (changed,), _ = open_several(SetRequest(source))
    assert changed.about.without_decision[NOBODY] == 2
    assert (changed.about.faces, changed.about.people) == (12, 4)
    assert [path.name for path in folder_set.CACHE.iterdir()] == [kept.name]


@pytest.mark.parametrize(
    "other", [{"frames": 2}, {"faces": "max"}, {"image_size": 64}, {"min_face": 20}, {"layout": "videos"}]
)
def test_crops_of_other_settings_are_cached_beside(tmp_path: Path, other: dict[str, Any]) -> None:
    source = write_tree(tmp_path / "videos")
    plain = SetRequest(source)
    requests = (plain, replace(plain, **other), replace(plain, workers=7, name="x"))
    places = {folder_set.build_request(request).dest for request in requests}
    assert len(places) == 2


def test_a_folder_of_one_class_needs_a_label(tmp_path: Path) -> None:
    write_clip(tmp_path / "people/ann/a.avi", "LL")
    write_clip(tmp_path / "others/real/x.avi", "L")
    sets, _ = open_several(SetRequest(tmp_path / "people", label=1), SetRequest(tmp_path / "others"))
    assert [found.labels.tolist() for found in sets] == [[1, 1], [0]]


# --- The split of clips without a face ------------------------------------------------------------------------------


def test_a_clip_without_any_face_is_counted_where_its_person_is(tmp_path: Path) -> None:
    source = tmp_path / "videos"
    for person in ("ann", "ben", "cat", "dan"):
        write_clip(source / f"{'real' if person < 'c' else 'fake'}/{person}/a.avi", "LL")
        write_clip(source / f"{'real' if person < 'c' else 'fake'}/{person}/b.avi", "-")
    write_clip(source / "real/zoe/z.avi", "---")
    prepare(source, tmp_path / "set", validation_share=0.5)
    manifest = Manifest.open(tmp_path / "set/manifest.arrow")
    splits: tuple[Split, Split] = ("train", "val")
    people = {split: {row.identity for row in manifest if row.split == split} for split in splits}
    sets = {s: open_several(SetRequest(tmp_path / "set", split=s), other(tmp_path))[0][0] for s in splits}
    for split, found in sets.items():
        faceless = {found.frames.groups[frame] for frame in found.faceless}
        assert faceless == people[split]
        assert found.about.without_decision == {NOBODY: 2}
        assert any("1 clips without any face belong to no known split" in note for note in found.about.notes)
    (whole,), _ = open_several(SetRequest(tmp_path / "set", split="all"))
    assert whole.about.without_decision == {NOBODY: 4 + 3}
    assert not whole.about.notes


def test_a_clip_without_any_face_belongs_to_the_split_if_all_rows_do(tmp_path: Path) -> None:
    prepare(write_tree(tmp_path / "videos"), tmp_path / "set")
    (found,), _ = open_several(SetRequest(tmp_path / "set", split="train"))
    assert sum(found.about.without_decision.values()) == 5
    assert "ben" in found.frames.groups


def other(root: Path) -> SetRequest:
    """A set of both classes, so that the one beside it may hold one."""
    if not (root / "both").exists():
        make_set(root / "both")
    return SetRequest(root / "both")


def test_a_part_without_stored_label_counts_its_frames_without_a_label(tmp_path: Path) -> None:
    prepare(write_tree(tmp_path / "videos"), tmp_path / "set")
    for path in (tmp_path / "set/parts").glob("*.arrow"):
        rows = Manifest.open(path)
        about = {k: v for k, v in rows.about.items() if k not in ("label", "identity", "source_set", "manipulation")}
        write_manifest(path, list(rows), about, is_part=True)
    (found,), said = open_several(SetRequest(tmp_path / "set", split="all"))
    assert (found.about.frames, found.about.real + found.about.fake, len(found.frames)) == (16, 13, 13)
    assert sum(found.about.without_decision.values()) == 5
    assert "2 clips without any face were prepared before labels" in said


def test_a_broken_part_is_reported(tmp_path: Path) -> None:
    prepare(write_tree(tmp_path / "videos"), tmp_path / "set", crop=CropSettings(faces="all"))
    path = sorted((tmp_path / "set/parts").glob("*.arrow"))[0]
    path.write_bytes(path.read_bytes()[:100])
    (found,), said = open_several(SetRequest(tmp_path / "set", split="all"))
    assert len(found) == 11
    assert "1 files in parts/ cannot be read" in said


# --- Reasons --------------------------------------------------------------------------------------------------------


def test_reasons_that_differ_in_numbers_or_source_are_merged_and_rare_ones_are_summed() -> None:
    assert count_reasons([]) == {}
    assert count_reasons(["face of 12 px", "face of 12 px"]) == {"face of 12 px": 2}
    assert count_reasons(["face of 12 px", "face of 7.5 px", "none"]) == {"face of N px": 2, "none": 1}
    assert count_reasons(["is empty (cut from a.mp4, frame 3)", "is empty (cut from b (2).mp4)"]) == {"is empty": 2}
    many = count_reasons([*("common",) * 3, *(f"kind {chr(97 + i)}" for i in range(25))])
    assert list(many) == ["common", *(f"kind {chr(97 + i)}" for i in range(MOST - 1)), OTHERS]
    assert many[OTHERS] == 26 - MOST


def test_a_folder_of_swaps_is_not_cropped_again_by_default(tmp_path: Path) -> None:
    (tmp_path / "swaps.csv").write_text("file,label\n")
    with pytest.raises(UserError, match="--crops"):
        open_sets([SetRequest(tmp_path)], say=print)
