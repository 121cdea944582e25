"""Cropping of frames and face crops that come with landmarks and boxes as files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from block_clips import (
    BlockDetector,
    BlockMesh,
    build_cropper,
    draw_blocks,
    place_landmarks,
    read_picture,
    reasons,
    write_picture,
)
from sharpstudent.tasks.deepfake.layouts.clip import FrameFiles, RawClip
from sharpstudent.tasks.deepfake.prepare.crop_clip import ClipCropper
from sharpstudent.tasks.deepfake.prepare.crop_frame import Networks
from sharpstudent.tasks.deepfake.prepare.settings import CropSettings

BOX = (100, 60, 180, 160)
# An array file of 127 bytes that claims 1.3 petabytes.
HUGE = (
    b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 81, 2), }".ljust(127)
    + b"\n"
)


def frames_clip(frames: list[FrameFiles], kind: str = "frames") -> RawClip:
    return RawClip("a/b", kind, 0, ("ann",), frames=tuple(frames))  # type: ignore[arg-type]


def write_frames(folder: Path, count: int, *, landmarks: bool = True, boxes: bool = False) -> list[FrameFiles]:
    frames = []
    for i in range(count):
        picture = write_picture(folder / f"{i:03d}.png", draw_blocks(BOX))
        files = FrameFiles(i, picture)
        if landmarks:
            np.save(folder / f"{i:03d}.npy", place_landmarks(BOX)[None].round().astype(np.int64))
            files = replace(files, landmarks=folder / f"{i:03d}.npy")
        if boxes:
            given = np.zeros((2, 7, 2))
            given[0, :2], given[1, :2] = ((5, 5), (300, 30)), ((98, 58), (182, 162))
            np.save(folder / f"{i:03d}_boxes.npy", given)
            files = replace(files, boxes=folder / f"{i:03d}_boxes.npy")
        frames.append(files)
    return frames


def test_given_landmarks_and_boxes_are_used_as_they_are(tmp_path: Path) -> None:
    class Blind(BlockDetector):
        def detect(self, image: np.ndarray) -> list:
            raise AssertionError("nothing is to be detected")

    cropper = ClipCropper(CropSettings(frames=4), networks=lambda: Networks(Blind(), BlockMesh(), "blocks"))
    clip_crops = cropper.crop(frames_clip(write_frames(tmp_path, 10, boxes=True)))
    assert [face.frame_index for face in clip_crops.faces] == [0, 3, 6, 9]
    assert reasons(clip_crops) == []
    for face in clip_crops.faces:
        assert face.score == 1
        assert face.detector == "given landmarks, cut 2"
        assert face.box_xyxy.tolist() == [98, 58, 182, 162]  # the box on the landmarks, not the largest
        np.testing.assert_allclose(face.landmarks + face.crop_xyxy[:2], place_landmarks(BOX).round(), atol=0.01)
    without = cropper.crop(frames_clip(write_frames(tmp_path / "b", 1)))
    np.testing.assert_allclose(without.faces[0].box_xyxy, [108, 70, 172, 150], atol=1)  # the landmarks' own box


def test_frames_without_arrays_are_detected(tmp_path: Path) -> None:
    clip_crops = build_cropper().crop(frames_clip(write_frames(tmp_path, 3, landmarks=False)))
    assert [face.score for face in clip_crops.faces] == [pytest.approx(0.95)] * 3
    assert "given" not in clip_crops.faces[0].detector


@pytest.mark.parametrize("missing", ["000.png", "000.npy", "000_boxes.npy"])
def test_frames_are_sampled_from_those_on_disk_and_missing_files_are_rejected(missing: str, tmp_path: Path) -> None:
    frames = write_frames(tmp_path, 5, boxes=True)
    (tmp_path / missing).unlink()
    clip_crops = build_cropper(CropSettings(frames=2)).crop(frames_clip(frames))
    assert [face.frame_index for face in clip_crops.faces] == [1, 4]
    (rejected,) = clip_crops.rejected
    assert (rejected.source, rejected.frame) == (str(tmp_path / "000.png"), 0)
    assert "is no file" in rejected.reason
    assert (missing in rejected.reason) == (missing != "000.png")


def make_bad_array(kind: str) -> np.ndarray | bytes:
    good = place_landmarks(BOX).astype(np.float64)
    spoilt = good.copy()
    if kind == "far":
        spoilt[5] = (9000, 50)
    elif kind == "nan":
        spoilt[80, 1] = np.nan
    elif kind == "infinite":
        spoilt[0, 0] = np.inf
    bad = {
        "points": good[:70],
        "axes": good[None, None],
        "three": np.zeros((81, 3)),
        "none": np.zeros((0, 81, 2)),
        "scalar": np.float64(3),
        "text": np.full((81, 2), "a"),
        "complex": good.astype(complex),
        "bool": np.ones((81, 2), bool),
        "zeros": np.zeros((81, 2)),
        "empty": b"",
        "garbage": b"not an array" * 20,
        "huge": HUGE,
        "zip": b"PK\x03\x04" + b"x" * 60,
    }
    return bad.get(kind, spoilt)


@pytest.mark.parametrize(
    "kind",
    ["far", "nan", "infinite", "points", "axes", "three", "none", "scalar", "text", "complex", "bool", "zeros", "empty",
     "garbage", "huge", "zip", "pickle"],
)  # fmt: skip
@pytest.mark.parametrize("clip_kind", ["frames", "crops"])
def test_impossible_landmarks_are_rejected(kind: str, clip_kind: str, tmp_path: Path) -> None:
    frames = write_frames(tmp_path, 2)
    target = tmp_path / "001.npy"
    if kind == "pickle":
        np.save(target, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    else:
        bad = make_bad_array(kind)
        target.write_bytes(bad) if isinstance(bad, bytes) else np.save(target, bad)
    clip_crops = build_cropper().crop(frames_clip(frames, clip_kind))
    assert [face.frame_index for face in clip_crops.faces] == [0]
    (rejected,) = clip_crops.rejected
    assert (rejected.source, rejected.frame) == (str(tmp_path / "001.png"), 1)
    assert "001.npy" in rejected.reason or kind == "zeros"


def test_boxes_of_another_shape_are_rejected(tmp_path: Path) -> None:
    frames = write_frames(tmp_path, 2, boxes=True)
    np.save(tmp_path / "000_boxes.npy", np.zeros((1, 5)))
    assert "expected boxes of shape (faces, 7, 2), got (1, 5)" in reasons(build_cropper().crop(frames_clip(frames)))[0]


def test_of_several_given_faces_the_largest_is_taken_or_all(tmp_path: Path) -> None:
    boxes = [(20, 60, 80, 130), BOX]
    picture = write_picture(tmp_path / "a.png", draw_blocks(*boxes))
    np.save(tmp_path / "a.npy", np.stack([place_landmarks(box, 68) for box in boxes]))
    clip = frames_clip([FrameFiles(3, picture, tmp_path / "a.npy")])
    (face,) = build_cropper().crop(clip).faces
    assert face.box_xyxy[0] > 90
    assert face.landmarks.shape == (68, 2)
    assert [face.face_index for face in build_cropper(CropSettings(faces="all")).crop(clip).faces] == [0, 1]


def test_crops_keep_their_own_bytes_unless_they_are_larger_than_needed(tmp_path: Path) -> None:
    clip = frames_clip(write_frames(tmp_path, 2), "crops")
    kept = build_cropper().crop(clip).faces[0]
    assert kept.content == (tmp_path / "000.png").read_bytes()
    assert kept.crop_xyxy == (0, 0, 320, 240)
    assert kept.scale == 1
    np.testing.assert_allclose(kept.landmarks, place_landmarks(BOX).round())
    small = build_cropper(CropSettings(image_size=32)).crop(clip).faces[0]
    assert small.scale == pytest.approx(0.5, abs=0.02)
    assert read_picture(small.content).shape[0] == pytest.approx(240 * small.scale, abs=1)
    np.testing.assert_allclose(small.landmarks, place_landmarks(BOX).round() * small.scale, rtol=1e-5)
    assert build_cropper(CropSettings(picture="jpg")).crop(clip).faces[0].content.startswith(b"\xff\xd8")
