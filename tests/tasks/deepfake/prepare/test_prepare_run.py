"""A preparation from clips to manifest: what comes out, what is done again, what is refused."""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from block_clips import Box, build_cropper, draw_blocks
from in_process_pool import InProcessPool
from made_videos import write_video
from rich.console import Console
from sharpstudent.core.errors import UserError
from sharpstudent.tasks.deepfake.dataset.manifest import Manifest
from sharpstudent.tasks.deepfake.prepare import parts
from sharpstudent.tasks.deepfake.prepare.pool import WorkerPool
from sharpstudent.tasks.deepfake.prepare.run import run_preparation
from sharpstudent.tasks.deepfake.prepare.settings import CropSettings, Request
from sharpstudent.tasks.deepfake.sources import face_crops
from text_clips import prepare, read_all, write_clips, write_many
from text_cropper import TextCropper

POOL = "sharpstudent.tasks.deepfake.prepare.run.WorkerPool"
MODELS = "sharpstudent.tasks.deepfake.sources.face_crops.check_model_files"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """TextCropper needs no models, and most of these tests need no processes."""
    monkeypatch.setattr(MODELS, lambda: None)
    monkeypatch.setattr(POOL, InProcessPool)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_many(tmp_path / "my söurce", 8)


def read_quarantine(dest: Path) -> list[list[str]]:
    with open(dest / "quarantine.csv", newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_the_manifest_names_every_crop_in_the_order_of_split_clip_and_frame(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "my set"
    counts, text = prepare(source, dest)
    manifest = Manifest.open(dest / "manifest.arrow")
    rows = list(manifest)
    order = [(("train", "val", "test", "none").index(row.split), row.clip_id, row.frame_index) for row in rows]
    assert order == sorted(order)
    assert len(rows) == counts.faces == 0 + 1 + 2 + 3 + 4 + 0 + 1 + 2
    assert {row.label for row in rows if row.clip_id.startswith("fake")} == {1}
    assert all(manifest.read_crop_of(row) for row in rows)
    assert sorted(str(p.relative_to(dest)) for p in (dest / "crops").rglob("*.png")) == sorted(r.path for r in rows)
    assert (counts.clips, counts.clips_with_face, counts.rejected) == (8, 6, 4)
    assert "train_student_only.py" in text
    assert f"prepare_faces.py check '{dest}'" in text


def test_each_rejected_item_is_named_once_without_the_paths_of_this_machine(source: Path, tmp_path: Path) -> None:
    (source / "other.bad").write_text("")
    prepare(source, tmp_path / "set")
    rows = read_quarantine(tmp_path / "set")
    assert rows[0] == ["source", "frame", "reason"]
    assert ["other.bad", "", "is no text"] in rows
    assert len({tuple(row[:2]) for row in rows}) == len(rows) == 6
    for name, content in read_all(tmp_path / "set").items():
        assert str(tmp_path).encode() not in content, name


def test_one_and_three_workers_give_the_same_bytes(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(POOL, WorkerPool)
    prepare(source, tmp_path / "one", workers=1)
    prepare(source, tmp_path / "three", workers=3)
    assert read_all(tmp_path / "one") == read_all(tmp_path / "three")


def test_a_second_run_changes_nothing_and_starts_no_worker(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = prepare(source, tmp_path / "set")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "set").rglob("*") if path.name != ".lock"}
    monkeypatch.setattr(POOL, None)
    second, text = prepare(source, tmp_path / "set")
    assert second == first
    assert "done already" in text
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "set").rglob("*") if path.name != ".lock"}
    assert after == before


def test_only_new_and_changed_clips_are_cropped(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "set"
    prepare(source, dest)
    parts = {path: path.stat().st_mtime_ns for path in (dest / "parts").glob("*.arrow")}
    write_clips(source, {"real/new": "face face"})
    changed = source / "real" / "person é 1.txt"
    changed.write_text("face\nface\nface")
    counts, text = prepare(source, dest)
    assert "7 clips finished already, 2 left" in text
    same = [path for path in parts if path.stat().st_mtime_ns == parts[path]]
    assert len(same) == 7
    prepare(source, tmp_path / "fresh")
    assert read_all(dest) == read_all(tmp_path / "fresh")
    assert counts.clips == 9


def test_a_missing_or_truncated_crop_is_made_again(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "set"
    prepare(source, dest)
    before = read_all(dest)
    crops = sorted((dest / "crops").rglob("*.png"))
    crops[0].unlink()
    crops[-1].write_bytes(b"cut")
    (dest / "crops/real/person é 1/.000000_0.png.77.partial").write_bytes(b"left by a killed writer")
    prepare(source, dest)
    assert read_all(dest) == before


def test_a_damaged_part_is_made_again(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "set"
    prepare(source, dest)
    before = read_all(dest)
    (dest / "parts/finished.json").unlink()
    parts = sorted((dest / "parts").glob("*.arrow"))
    parts[0].write_bytes(parts[0].read_bytes()[:-100])
    parts[1].write_bytes(b"")
    prepare(source, dest)
    assert read_all(dest) == before


def test_changed_splits_rewrite_only_the_manifest(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "set"
    prepare(source, dest)
    kept = {name: value for name, value in read_all(dest).items() if name.endswith(".png")}
    times = {name: (dest / name).stat().st_mtime_ns for name in kept}
    _, text = prepare(source, dest, test_share=0.3)
    assert "test_share: 0.0 -> 0.3" in text
    assert len(Manifest.open(dest / "manifest.arrow").rows_of("test")) > 0
    assert {name: (dest / name).stat().st_mtime_ns for name in kept} == times
    prepare(source, dest, label=0)
    assert {row.label for row in Manifest.open(dest / "manifest.arrow")} == {0}
    prepare(source, dest)
    prepare(source, tmp_path / "fresh")
    assert read_all(dest) == read_all(tmp_path / "fresh")


def test_changed_crop_settings_are_refused_without_overwrite(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "set"
    prepare(source, dest)
    before = read_all(dest)
    with pytest.raises(UserError, match=r"(?s)other settings.*frames: 32 -> 2"):
        prepare(source, dest, crop=CropSettings(frames=2))
    assert read_all(dest) == before
    prepare(source, dest, crop=CropSettings(frames=2), overwrite=True)
    prepare(source, tmp_path / "fresh", crop=CropSettings(frames=2))
    assert read_all(dest) == read_all(tmp_path / "fresh")


def test_clips_that_the_source_lost_are_removed_only_with_overwrite(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "set"
    prepare(source, dest)
    before = read_all(dest)
    (source / "real" / "person é 3.txt").unlink()
    with pytest.raises(UserError, match=r"1 finished clip that SOURCE no longer has(?s:.*)person é 3"):
        prepare(source, dest)
    assert read_all(dest) == before
    prepare(source, dest, overwrite=True)
    prepare(source, tmp_path / "fresh")
    assert read_all(dest) == read_all(tmp_path / "fresh")


def test_a_clip_inside_another_clips_folder_keeps_its_crops(tmp_path: Path) -> None:
    source = write_clips(tmp_path / "source", {"a": "face", "a/b": "face face", "c": "face"})
    prepare(source, tmp_path / "set")
    (source / "a.txt").write_text("face\nface\nface")
    prepare(source, tmp_path / "set")
    prepare(source, tmp_path / "fresh")
    assert read_all(tmp_path / "set") == read_all(tmp_path / "fresh")


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("crash", "the decoder crashed (signal 11)"),
        ("exit", "the decoder ended its process (exit code 7)"),
        ("hang", "took longer than 2 s"),
        ("fail", "failed (ValueError: a strange file)"),
    ],
)
def test_a_clip_that_crashes_or_hangs_its_worker_is_named_and_the_others_are_prepared(
    word: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(POOL, WorkerPool)
    source = write_clips(tmp_path / "source", {"a": "face", "b": f"{word} face", "c": "face face"})
    dest = tmp_path / "set"
    counts, text = prepare(source, dest, workers=2, clip_timeout=2.0)
    assert read_quarantine(dest)[1:] == [["b.txt", "", reason]]
    assert counts.faces == 3
    assert "1 rejected" in text
    assert multiprocessing.active_children() == []
    _, again = prepare(source, dest, workers=2, clip_timeout=2.0)
    assert "done already" in again
    (source / "b.txt").touch()
    os.utime(source / "b.txt", ns=(1, 1))
    (source / "b.txt").write_text("face")
    prepare(source, dest)
    assert len(read_quarantine(dest)) == 1


def test_a_slow_clip_is_tried_again_with_more_time_and_a_broken_one_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(POOL, WorkerPool)
    source = write_clips(tmp_path / "source", {"a": "face", "b": ""})
    (source / "b.txt").write_text(f"wait {tmp_path / 'go'}\nface")
    dest = tmp_path / "set"
    prepare(source, dest, clip_timeout=2.0)
    assert read_quarantine(dest)[1:] == [["b.txt", "", "took longer than 2 s"]]
    _, text = prepare(source, dest, clip_timeout=1.9)
    assert "done already" in text
    (tmp_path / "go").touch()
    counts, _ = prepare(source, dest, clip_timeout=60.0)
    assert (counts.faces, counts.rejected) == (2, 0)
    _, text = prepare(source, dest, clip_timeout=60.0, retry=True)
    assert "left" not in text.split("frames read")[0]


def test_nothing_with_a_face_is_an_error_with_the_reasons_and_no_manifest(tmp_path: Path) -> None:
    source = write_clips(tmp_path / "source", {"a": "none none", "b": "none"})
    with pytest.raises(UserError, match=r"no face was found in anything(?s:.*)3 rejected(?s:.*)2 x no face in a.txt"):
        prepare(source, tmp_path / "set")
    assert not (tmp_path / "set/manifest.arrow").exists()
    assert len(read_quarantine(tmp_path / "set")) == 4
    assert not json.loads((tmp_path / "set/preparation.json").read_text())["is_finished"]


def test_damaged_models_are_reported_before_anything_starts(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    face_crops.DETECTOR_FILE.parent.mkdir()
    face_crops.DETECTOR_FILE.write_bytes(b"not the published detector")
    with pytest.raises(UserError, match=r"is not the file that MANIFEST\.json lists for it"):
        prepare(source, tmp_path / "set")
    assert not (tmp_path / "set/parts").exists()


def test_a_destination_that_holds_other_files_is_refused(source: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / "sub").mkdir(parents=True)
    (photos / "me.jpg").write_bytes(b"precious")
    (tmp_path / "link").symlink_to(source)
    for dest, what in (
        (source / "inside", "lies in SOURCE"),
        (tmp_path / "link" / "inside", "lies in SOURCE"),
        (source, "lies in SOURCE"),
        (tmp_path, "holds SOURCE"),
        (photos, "holds something else"),
        (photos / "me.jpg", "is a file"),
        (photos / "me.jpg" / "deeper", "is a file where a folder"),
    ):
        with pytest.raises(UserError, match=what):
            prepare(source, dest)
    for wrong, what in ((tmp_path / "none", "does not exist"), (photos / "me.jpg", "is a file"), (photos, "no layout")):
        with pytest.raises(UserError, match=what):
            prepare(wrong, tmp_path / "set")
    assert not (tmp_path / "set").exists()
    assert (photos / "me.jpg").read_bytes() == b"precious"


def test_users_own_files_in_dest_stay(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "set"
    prepare(source, dest)
    (dest / "notes.txt").write_text("mine")
    (dest / "crops" / "notes.txt").write_text("mine")
    write_clips(source, {"new": "face"})
    prepare(source, dest, shards=True)
    assert (dest / "notes.txt").read_text() == (dest / "crops" / "notes.txt").read_text() == "mine"


def test_fakes_of_several_people_without_a_mask_are_counted_in_summary_manifest_and_description(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crop = TextCropper.crop
    monkeypatch.setattr(TextCropper, "crop", lambda self, clip: replace(crop(self, clip), bystanders=1))
    dest = tmp_path / "set"
    counts, text = prepare(source, dest)
    assert counts.unsure_fakes == 4  # every second clip is a fake, and nobody minds a bystander of a real one
    sentence = (
        "nothing tells which person of a fake was manipulated in 4 fake clips of several people: "
        "real bystanders may be labelled fake there"
    )
    assert sentence in text
    assert Manifest.open(dest / "manifest.arrow").notes == (sentence,)
    again, text = prepare(source, dest)
    assert (again.unsure_fakes, sentence in text) == (4, True)
    counts, text = prepare(source, dest, label=0)  # the crops stay, and no clip is a fake any more
    assert (counts.unsure_fakes, "nothing tells" in text) == (0, False)
    assert Manifest.open(dest / "manifest.arrow").notes == ()


def test_a_part_of_an_older_version_has_as_many_bystanders_as_its_rows_show(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "set"
    prepare(source, dest)
    part = parts.StoredPart(dest, "fake/person é 2")
    about = asdict(replace(part.about, bystanders=None)) | {"rejected": []}
    del about["bystanders"]
    rows = [replace(row, face_index=number) for number, row in enumerate(part.rows)]
    parts.write_manifest(parts.find_part_file(dest, part.about.key), rows, about, is_part=True)
    counts, _ = prepare(source, dest, split_seed=1)
    assert counts.unsure_fakes == 1


def test_masks_of_faceforensics_choose_the_person_and_a_changed_mask_crops_its_clip_again(tmp_path: Path) -> None:
    large, small = (40, 60, 130, 170), (210, 70, 280, 150)
    fakes = tmp_path / "ff" / "manipulated_sequences" / "Deepfakes"
    for name in ("000_003", "003_000"):
        write_video(fakes / "c23" / "videos" / f"{name}.mp4", [draw_blocks(large, small)] * 4, codec="mp4v")

    def run(*, mask: Box | None) -> tuple[list[int], str]:
        """Prepare the set with a mask of one clip; return where the faces of that clip begin, and the summary."""
        if mask is not None:
            region = np.zeros((240, 320, 3), np.uint8)
            region[mask[1] : mask[3], mask[0] : mask[2]] = 255
            write_video(fakes / "masks" / "videos" / "000_003.mp4", [region] * 4, codec="mp4v")
        console = Console(file=io.StringIO(), width=300)
        request = Request(tmp_path / "ff", tmp_path / "set", crop=CropSettings(frames=2))
        run_preparation(request, console, build_cropper=build_cropper)
        assert isinstance(console.file, io.StringIO)
        rows = [row for row in Manifest.open(tmp_path / "set" / "manifest.arrow") if row.clip_id.endswith("000_003")]
        return [round(float(row.box_xyxy[0]) / 10) for row in rows], console.file.getvalue()

    places, text = run(mask=None)
    assert (places, "in 2 fake clips of several people" in text) == ([4, 4], True)
    places, text = run(mask=small)
    assert (places, "in 1 fake clip of several people" in text) == ([21, 21], True)
    assert "1 clip finished already, 1 left" in text
    assert "1 of 2 fakes have no mask" in text
    assert run(mask=large)[0] == [4, 4]
