"""Data sets as they are evaluated: every frame has a score or a reason why it has none."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from block_sets import NOBODY, TWO_FACES, InProcessPool, make_face, prepare, use_block_networks, write_tree
from prepared_set import write_set
from sharpstudent.core.types import Outputs
from sharpstudent.evaluation.tables import compute_tables
from sharpstudent.tasks.deepfake.dataset.manifest import Manifest
from sharpstudent.tasks.deepfake.evaluation.datasets import open_sets
from sharpstudent.tasks.deepfake.evaluation.evaluation_set import LabelledFaceSet
from sharpstudent.tasks.deepfake.evaluation.set_metrics import compute_set_metrics
from sharpstudent.tasks.deepfake.evaluation.set_request import FacesRule, SetRequest, Split
from sharpstudent.tasks.deepfake.metrics import compute_margins
from sharpstudent.tasks.deepfake.prepare import run
from sharpstudent.tasks.deepfake.samples import LabelledFaces
from sharpstudent.tasks.deepfake.task import DeepfakeTask
from torch import nn

SIDE = 32


@pytest.fixture(autouse=True)
def block_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    use_block_networks(monkeypatch)


def open_one(path: Path, *, split: Split = "all", faces: FacesRule = "largest", crops: bool = False) -> LabelledFaceSet:
    (found,) = open_sets([SetRequest(path, split=split, faces=faces, crops=crops)], say=lambda _: None)
    return found


class Brightness(nn.Module):
    """Log-odds of fake: how bright a picture is."""

    def forward(self, image: torch.Tensor) -> Outputs:
        bright = image.mean(dim=(1, 2, 3))
        return {"logits": torch.stack([torch.zeros_like(bright), bright], dim=1)}


def score(found: LabelledFaceSet, *, batch_size: int = 5) -> tuple[np.ndarray, dict[str, str]]:
    (table,), replaced = compute_tables(
        [Brightness()],
        found.open(SIDE),
        DeepfakeTask(),
        batch_size=batch_size,
        num_workers=0,
        device=torch.device("cpu"),
    )
    return compute_margins(table), {one.path: one.reason for one in replaced}


# --- Frames without a face ------------------------------------------------------------------------------------------


def test_frames_without_a_face_are_counted_by_reason_and_never_scored(tmp_path: Path) -> None:
    found = open_one(write_tree(tmp_path / "videos"))
    about = found.about
    assert (about.kind, about.split, about.faces, about.frames) == ("folder", None, 11, 16)
    assert (about.real, about.fake, about.videos, about.people) == (6, 10, 5, 4)
    assert about.without_decision == {NOBODY: 4, "is no video that can be read, or is cut off": 1}
    frames = found.build_frames(np.linspace(-1, 1, 11), {})
    assert (len(frames), frames.decided.sum()) == (16, 11)
    undecided = {frames.sample_ids[i]: frames.labels[i] for i in np.flatnonzero(~frames.decided).tolist()}
    assert undecided == {
        "real/ann/a/000002": 0,
        "real/ben/b/000000": 0,
        "real/ben/b/000001": 0,
        "fake/dan/d/000005": 1,
        "fake/dan/broken/000000": 1,
    }
    values = compute_set_metrics(frames).values
    assert (values["frame_count"], values["frame_count_without_decision"]) == (11, 5)
    assert (values["video_count"], values["video_count_without_decision"]) == (3, 2)


def test_files_shards_a_moved_set_and_a_folder_give_the_same_frames(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "videos")
    prepare(source, tmp_path / "loose")
    prepare(source, tmp_path / "packed", shards=True)
    shutil.copytree(tmp_path / "loose", tmp_path / "elsewhere" / "moved")
    sets = [open_one(tmp_path / name) for name in ("loose", "packed", "elsewhere/moved", "videos")]
    assert [found.faces[0].name.partition(":")[2] != "" for found in sets] == [False, True, False, False]
    assert len({found.about.fingerprint for found in sets}) == 1
    margins = [score(found)[0] for found in sets]
    for found, scores in zip(sets, margins, strict=True):
        assert scores.tobytes() == margins[0].tobytes()
        assert found.frames.sample_ids == sets[0].frames.sample_ids
        assert found.faceless == sets[0].faceless
        assert found.frames.groups == sets[0].frames.groups
        assert found.name_faces() == [face.name for face in found.faces]


def test_a_manifest_without_its_parts_says_that_frames_without_a_face_are_not_known(tmp_path: Path) -> None:
    prepare(write_tree(tmp_path / "videos"), tmp_path / "set")
    shutil.rmtree(tmp_path / "set" / "parts")
    about = open_one(tmp_path / "set" / "manifest.arrow").about
    assert (about.frames, about.without_decision) == (11, {})
    assert any("not known" in note for note in about.notes)


# --- Scores and faces -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 4, 9])
def test_scores_of_mixed_labels_and_substitutes_come_in_the_order_of_the_faces(tmp_path: Path, batch_size: int) -> None:
    """A substitute of the other class shifts no score after it."""
    faces = [make_face(i, i % 2, f"clip {i}", 0, 0) for i in range(9)]
    manifest = Manifest.open(write_set(tmp_path / "set", faces))
    for broken in (2, 5):
        crop = manifest.folder / manifest.face(broken).path
        crop.write_bytes(crop.read_bytes()[:60])
    found = open_one(tmp_path / "set")
    margins, unreadable = score(found, batch_size=batch_size)
    plain = LabelledFaces(found.faces, image_size=SIDE, train=False)
    frames = found.build_frames(margins, unreadable)
    assert np.flatnonzero(~frames.decided).tolist() == [2, 5]
    for i in np.flatnonzero(frames.decided).tolist():
        picture = plain.make(i, np.random.default_rng(0)).inputs["image"]
        expected = Brightness()(torch.from_numpy(picture).permute(0, 3, 1, 2).float() / 255)["logits"]
        assert frames.margins[i] == pytest.approx(float(expected[0, 1]), abs=1e-6)
    (reason,) = found.describe({}, unreadable).without_decision
    assert found.describe({}, unreadable).without_decision[reason] == 2
    assert "cut from" not in reason


def test_rows_are_not_parsed_before_their_face_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path / "set", [make_face(i, i % 2, f"clip {i}", 0, 0) for i in range(4)], shards=True)

    def refuse(*_: object) -> None:
        raise AssertionError("a row was made an object")

    monkeypatch.setattr(Manifest, "face", refuse)
    monkeypatch.setattr(Manifest, "__iter__", refuse)
    found = open_one(tmp_path / "set")
    unreadable = {found.name_faces()[1]: "is empty"}
    assert found.build_frames(np.zeros(4), unreadable).decided is not None
    assert found.describe({}, unreadable).without_decision == {"is empty": 1}


def test_some_of_the_faces_score_the_frames_that_they_are_in(tmp_path: Path) -> None:
    write_set(tmp_path / "set", TWO_FACES)
    whole = open_one(tmp_path / "set", split="test", faces="max")
    frames = whole.build_frames(np.array([3.0, 1.0]), {}, chosen=np.array([3, 1]))
    some = frames.take(np.flatnonzero(frames.decided))
    assert dict(zip(some.sample_ids, some.margins.tolist(), strict=True)) == {"pair/000000": 1.0, "pair/000007": 3.0}
    assert whole.frame_of.tolist() == [0, 1, 1, 2]


def test_a_wrong_number_of_scores_raises_an_error(tmp_path: Path) -> None:
    write_set(tmp_path / "set", TWO_FACES)
    with pytest.raises(ValueError, match="4 faces"):
        open_one(tmp_path / "set", split="test", faces="max").build_frames(np.zeros(3), {})


def test_a_changed_picture_in_a_prepared_set_changes_the_fingerprint(tmp_path: Path) -> None:
    write_set(tmp_path / "one", TWO_FACES)
    write_set(tmp_path / "other", [make_face(9, 0, "alone", 4, 0), *TWO_FACES[1:]])
    one, other = (open_one(tmp_path / name, faces="max").about.fingerprint for name in ("one", "other"))
    assert one != other


# --- Real videos ----------------------------------------------------------------------------------------------------

ROOT = Path(__file__).resolve().parents[4]
VIDEOS, MODELS = ROOT.parent / "shared" / "data" / "videos", ROOT / "weights"


@pytest.mark.skipif(not (VIDEOS / "d18.mp4").is_file(), reason="the real videos are not on this machine")
@pytest.mark.skipif(not (MODELS / "face_landmark.tflite").is_file(), reason="weights/ lacks the two face models")
def test_real_videos_are_cropped_as_for_training_and_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real networks
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "WorkerPool", InProcessPool)
    (tmp_path / "weights").symlink_to(MODELS)
    for name, folder in (("d18", "real/ann"), ("s29", "fake/ben")):
        (tmp_path / "videos" / folder).mkdir(parents=True)
        (tmp_path / "videos" / folder / f"{name}.mp4").symlink_to(VIDEOS / f"{name}.mp4")
    request = SetRequest(tmp_path / "videos", frames=3, image_size=112)
    (found,) = open_sets([request], say=lambda _: None)
    assert (found.about.real, found.about.fake, found.about.faces) == (3, 3, 6)
    frames = found.build_frames(score(found)[0], {})
    assert frames.clip_ids.count("real/ann/d18") == 3
