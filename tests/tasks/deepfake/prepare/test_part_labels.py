"""A part stores label and person of its clip: for a clip without any face, nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest
from in_process_pool import InProcessPool
from sharpstudent.tasks.deepfake.dataset.manifest import Manifest, write_manifest
from sharpstudent.tasks.deepfake.prepare.parts import Part, find_part_file, read_part
from text_clips import prepare, read_all, write_clips

KEYS = ("label", "identity", "source_set", "manipulation")
CLIPS = {"real/a": "face none", "real/b": "none", "fake/c": "fail", "fake/d": "face"}


@pytest.fixture
def dest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("sharpstudent.tasks.deepfake.sources.face_crops.check_model_files", lambda: None)
    monkeypatch.setattr("sharpstudent.tasks.deepfake.prepare.run.WorkerPool", InProcessPool)
    write_clips(tmp_path / "source", CLIPS)
    prepare(tmp_path / "source", tmp_path / "set")
    return tmp_path / "set"


def read(dest: Path) -> dict[str, Part]:
    return {key: read_part(find_part_file(dest, key))[1] for key in CLIPS}


def remove_label_fields(dest: Path) -> None:
    """Rewrite the parts as earlier versions wrote them, without these fields."""
    for key in CLIPS:
        path = find_part_file(dest, key)
        rows = Manifest.open(path)
        about = {name: value for name, value in rows.about.items() if name not in KEYS}
        write_manifest(path, list(rows), about, is_part=True)


def test_clips_with_and_without_faces_and_broken_ones_have_their_labels_kept(dest: Path) -> None:
    parts = read(dest)
    assert {key: part.label for key, part in parts.items()} == {"real/a": 0, "real/b": 0, "fake/c": 1, "fake/d": 1}
    assert all((part.identity, part.source_set) == (key, "made") for key, part in parts.items())
    assert parts["fake/c"].broken == "failed"


def test_parts_of_earlier_versions_are_read_and_nothing_is_cropped_again(
    dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_all(dest)
    remove_label_fields(dest)
    assert {part.label for part in read(dest).values()} == {None}
    monkeypatch.setattr("sharpstudent.tasks.deepfake.prepare.run.WorkerPool", None)
    _, text = prepare(dest.parent / "source", dest)
    assert "nothing was changed" in text
    prepare(dest.parent / "source", dest, validation_share=0.5)  # the set changes: what is missing is added
    prepare(dest.parent / "source", dest)
    assert read_all(dest) == before


def test_a_changed_label_is_stored_without_cropping_again(dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crops = {name: content for name, content in read_all(dest).items() if name.endswith(".png")}
    monkeypatch.setattr("sharpstudent.tasks.deepfake.prepare.run.WorkerPool", None)
    prepare(dest.parent / "source", dest, label=1)
    assert {part.label for part in read(dest).values()} == {1}
    assert {name: content for name, content in read_all(dest).items() if name.endswith(".png")} == crops
