"""Cropping a clip: every sampled frame gives a crop or a reason, and the fields of a crop agree with its pixels."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from block_clips import (
    BlockDetector,
    BlockMesh,
    Box,
    build_cropper,
    check_each_frame_has_crops_or_a_reason,
    draw_blocks,
    place_landmarks,
    read_picture,
    reasons,
    write_picture,
)
from made_videos import cut_end, write_video
from sharpstudent.modalities.faces.crop import compute_loose_box
from sharpstudent.tasks.deepfake.layouts.clip import RawClip
from sharpstudent.tasks.deepfake.prepare.crop_clip import ClipCropper
from sharpstudent.tasks.deepfake.prepare.crop_frame import Networks
from sharpstudent.tasks.deepfake.prepare.parts import ClipCrops, FaceCrop
from sharpstudent.tasks.deepfake.prepare.progress import Counts, describe_reasons
from sharpstudent.tasks.deepfake.prepare.settings import CropSettings
from sharpstudent.tasks.deepfake.sources import face_crops

ROOT = Path(__file__).resolve().parents[4]
CLIPS = ROOT.parent / "shared" / "data" / "videos"
PHOTOS = ROOT.parent / "shared" / "data" / "faces"
BOX = (100, 60, 180, 160)


def video_clip(path: Path) -> RawClip:
    return RawClip(path.stem, "video", 0, ("ann",), file=path)


def photo_clip(path: Path) -> RawClip:
    return RawClip(path.stem, "photo", 0, ("ann",), file=path)


# --- Videos ---------------------------------------------------------------------------------------------------------


def test_a_video_gives_one_crop_per_sampled_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", [draw_blocks((80 + i, 60, 160 + i, 160)) for i in range(20)])
    clip_crops = build_cropper(CropSettings(frames=5)).crop(video_clip(path))
    assert [face.frame_index for face in clip_crops.faces] == [0, 5, 10, 14, 19]
    assert (clip_crops.frames_read, clip_crops.frames_with_face, clip_crops.rejected) == (5, 5, ())
    for face in clip_crops.faces:
        assert face.source == str(path)
        assert face.frame_size == (320, 240)
        assert face.face_index == 0
        np.testing.assert_allclose(
            face.box_xyxy, np.array([80, 60, 160, 160]) + face.frame_index * np.array([1, 0, 1, 0]), atol=2
        )
        assert face.face_size == pytest.approx(80, abs=2)


def test_the_same_clip_gives_the_same_bytes_in_another_cropper(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", [draw_blocks((80 + i, 60, 160 + i, 160)) for i in range(9)])
    one, two = (build_cropper(CropSettings(frames=4)).crop(video_clip(path)) for _ in range(2))
    for first, second in zip(one.faces, two.faces, strict=True):
        assert first.content == second.content
        assert (first.phash, first.sharpness, first.crop_xyxy) == (second.phash, second.sharpness, second.crop_xyxy)
        assert np.array_equal(first.landmarks, second.landmarks)


def test_the_largest_person_is_followed_and_frames_without_that_person_are_rejected(tmp_path: Path) -> None:
    person, other = (40, 60, 130, 160), (220, 80, 280, 150)
    images = [
        draw_blocks(person, other),
        draw_blocks(other),
        draw_blocks(),
        draw_blocks(person),
        draw_blocks((0, 0, 20, 20)),
    ]
    path = write_video(tmp_path / "a.avi", images)
    clip_crops = build_cropper(CropSettings(frames=5)).crop(video_clip(path))
    assert [face.frame_index for face in clip_crops.faces] == [0, 3]
    assert (clip_crops.frames_read, clip_crops.frames_with_face) == (5, 3)
    assert {one.frame: one.reason for one in clip_crops.rejected} == {
        1: "the clip's largest person is not in it",
        2: "no face found",
        4: "no face of at least 40 px (the largest has 20 px)",
    }
    check_each_frame_has_crops_or_a_reason(clip_crops)


def test_all_people_are_numbered_by_their_summed_area(tmp_path: Path) -> None:
    person, other = (40, 60, 120, 160), (210, 60, 310, 170)  # the other is larger and seen once
    path = write_video(tmp_path / "a.avi", [draw_blocks(person), draw_blocks(person, other), draw_blocks(person)])
    clip_crops = build_cropper(CropSettings(faces="all")).crop(video_clip(path))
    assert [(face.frame_index, face.face_index) for face in clip_crops.faces] == [(0, 0), (1, 0), (1, 1), (2, 0)]
    assert build_cropper(CropSettings(faces="largest")).crop(video_clip(path)).faces[1].box_xyxy[0] < 50


def test_small_faces_beside_a_large_one_are_counted_as_rejected_with_faces_all(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png", draw_blocks(BOX, (0, 0, 20, 20), (280, 0, 300, 20)))
    clip_crops = build_cropper(CropSettings(faces="all")).crop(photo_clip(path))
    assert len(clip_crops.faces) == 1
    assert [one.reason for one in clip_crops.rejected] == ["2 more below 40 px"]
    assert build_cropper().crop(photo_clip(path)).rejected == ()


def test_a_photo_on_its_side_gives_the_crop_of_the_upright_one_and_is_named(tmp_path: Path) -> None:
    upright = draw_blocks(BOX)

    class Lying(BlockDetector):
        def detect(self, image: np.ndarray) -> list:
            score = 0.95 if np.array_equal(image, upright) else 0.8
            return [replace(face, score=score) for face in super().detect(image)]

    cropper = ClipCropper(CropSettings(), networks=lambda: Networks(Lying(), BlockMesh(), "blocks"))
    (expected,) = cropper.crop(photo_clip(write_picture(tmp_path / "upright.png", upright))).faces
    for quarters in (1, 2, 3):
        path = write_picture(tmp_path / f"{quarters}.png", np.ascontiguousarray(np.rot90(upright, quarters)))
        made = cropper.crop(photo_clip(path))
        (face,) = made.faces
        assert face.content == expected.content
        assert np.array_equal(face.landmarks, expected.landmarks)
        (remark,) = made.rejected
        assert (remark.is_used, remark.reason) == (True, f"used, turned upright by {90 * (4 - quarters)} degrees")
    counts = Counts()
    counts.reject(remark)
    assert describe_reasons(counts)[0] == "0 rejected, 1 used with a remark, each named in quarantine.csv:"


def test_a_video_of_one_colour_has_no_face_in_any_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", [np.full((120, 160, 3), 90, np.uint8)] * 6)
    clip_crops = build_cropper(CropSettings(frames=4)).crop(video_clip(path))
    assert reasons(clip_crops) == ["no face found"] * 4
    assert [one.frame for one in clip_crops.rejected] == [0, 2, 3, 5]
    assert (clip_crops.faces, clip_crops.frames_read, clip_crops.frames_with_face) == ((), 4, 0)


def test_a_truncated_video_gives_the_frames_that_can_be_read(tmp_path: Path) -> None:
    path = cut_end(write_video(tmp_path / "a.mkv", [draw_blocks(BOX)] * 30), 0.5)
    clip_crops = build_cropper(CropSettings(frames=6)).crop(video_clip(path))
    assert 1 <= len(clip_crops.faces) <= 6
    assert max(face.frame_index for face in clip_crops.faces) < 29
    check_each_frame_has_crops_or_a_reason(clip_crops)


@pytest.mark.parametrize("content", [None, b"", b"<html>gone</html>" * 99, os.urandom(5000)])
@pytest.mark.parametrize("kind", ["video", "photo"])
def test_a_file_that_is_no_video_or_photo_is_rejected_with_the_reason(
    kind: str, content: bytes | None, tmp_path: Path
) -> None:
    path = tmp_path / "Ä b.mp4"
    if content is not None:
        path.write_bytes(content)
    clip_crops = build_cropper().crop(RawClip("a", kind, 0, ("ann",), file=path))  # type: ignore[arg-type]
    assert clip_crops.faces == ()
    assert clip_crops.frames_with_face == 0
    (rejected,) = clip_crops.rejected
    assert (rejected.source, rejected.frame) == (str(path), None)
    assert rejected.reason


def test_a_clip_without_file_or_frames_is_rejected_by_its_key() -> None:
    for kind in ("video", "photo", "frames", "crops"):
        (rejected,) = build_cropper().crop(RawClip("a/b", kind, 0, ("ann",))).rejected  # type: ignore[arg-type]
        assert rejected.source == "a/b"


# --- Masks of the manipulated region --------------------------------------------------------------------------------

LARGE, SMALL = (40, 60, 130, 170), (210, 70, 280, 150)


def write_masked(folder: Path, *, region: Box | None, frames: int = 5, mask_frames: int = 5) -> RawClip:
    """A fake clip of two people, and the mask of what was manipulated."""
    file = write_video(folder / "a.avi", [draw_blocks(LARGE, SMALL)] * frames)
    black = np.full((240, 320, 3), 12, np.uint8)  # as dark as compression leaves it
    if region is not None:
        left, top, right, bottom = region
        black[top:bottom, left:right] = 220
    mask = write_video(folder / "masks" / "a.avi", [black] * mask_frames)
    return RawClip("a", "video", 1, ("ann", "bob"), file=file, mask=mask)


def list_boxes(crops: ClipCrops) -> set[tuple[int, ...]]:
    return {tuple(np.rint(face.box_xyxy).astype(int).tolist()) for face in crops.faces}


@pytest.mark.parametrize(("fake", "bystander"), [(LARGE, SMALL), (SMALL, LARGE)])
@pytest.mark.parametrize("rule", ["largest", "all"])
def test_the_person_in_the_mask_is_taken_however_large_the_bystander_is(
    rule: str, fake: Box, bystander: Box, tmp_path: Path
) -> None:
    inside = (fake[0] + 10, fake[1] + 20, fake[2] - 10, fake[3])
    clip = write_masked(tmp_path, region=inside)
    crops = build_cropper(CropSettings(frames=3, faces=rule)).crop(clip)  # type: ignore[arg-type]
    assert list_boxes(crops) == {fake}
    assert [face.face_index for face in crops.faces] == [0, 0, 0]
    assert crops.bystanders == 0
    remark = "used, 1 more left out: not in the mask of the manipulated region"
    assert [one.reason for one in crops.rejected] == ([remark] * 3 if rule == "all" else [])


def test_a_mask_that_reaches_into_a_neighbours_box_marks_one_person_and_one_over_both_marks_two(tmp_path: Path) -> None:
    cropper = build_cropper(CropSettings(frames=2, faces="all"))
    reaching = (LARGE[0], LARGE[1], SMALL[0] + 12, LARGE[3])  # 17 % of the small box
    assert list_boxes(cropper.crop(write_masked(tmp_path / "1", region=reaching))) == {LARGE}
    both = cropper.crop(write_masked(tmp_path / "2", region=(0, 0, 320, 240)))
    assert list_boxes(both) == {LARGE, SMALL}
    assert both.rejected == ()


def test_faces_outside_of_the_mask_are_left_out_where_the_fake_one_was_not_found(tmp_path: Path) -> None:
    crops = build_cropper(CropSettings(frames=3)).crop(write_masked(tmp_path, region=(140, 0, 200, 50)))
    assert reasons(crops) == ["its faces are not in the mask of the manipulated region"] * 3
    assert crops.faces == ()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("black", "shows no region"),
        ("gone", "No such file"),
        ("empty", "is empty"),
        ("shorter", "has other frames than the clip (4)"),
    ],
)
def test_a_clip_whose_mask_cannot_be_used_is_cropped_as_without_it_and_is_named(
    how: str, words: str, tmp_path: Path
) -> None:
    clip = write_masked(tmp_path, region=None if how == "black" else SMALL, mask_frames=4 if how == "shorter" else 5)
    assert clip.mask is not None
    if how == "gone":
        clip.mask.unlink()
    if how == "empty":
        clip.mask.write_bytes(b"")
    cropper = build_cropper(CropSettings(frames=3))
    crops = cropper.crop(clip)
    assert [face.content for face in crops.faces] == [f.content for f in cropper.crop(replace(clip, mask=None)).faces]
    assert crops.bystanders == 1
    (remark,) = crops.rejected
    assert remark.is_used
    assert remark.frame is None
    assert remark.reason.startswith("used, but without its mask, which ")
    assert words.lower() in remark.reason.lower()


def test_faces_in_one_frame_are_counted_as_bystanders_and_one_person_who_moves_is_not(tmp_path: Path) -> None:
    cropper = build_cropper(CropSettings(frames=4))
    one = write_video(tmp_path / "one.avi", [draw_blocks(LARGE), draw_blocks(SMALL)])
    two = write_video(tmp_path / "two.avi", [draw_blocks(LARGE), draw_blocks(LARGE, SMALL)])
    assert cropper.crop(video_clip(one)).bystanders == 0
    assert cropper.crop(video_clip(two)).bystanders == 1
    assert cropper.crop(photo_clip(write_picture(tmp_path / "a.png", draw_blocks(LARGE, SMALL)))).bystanders == 1


# --- What is said of a crop -----------------------------------------------------------------------------------------


def check_geometry(face: FaceCrop, image: np.ndarray) -> None:
    """The crop is the scaled region of the frame; landmarks and box are moved along."""
    stored = read_picture(face.content)
    left, top, right, bottom = face.crop_xyxy
    assert stored.shape[1] == pytest.approx((right - left) * face.scale, abs=1)
    assert stored.shape[0] == pytest.approx((bottom - top) * face.scale, abs=1)
    expected = image[top:bottom, left:right]
    if face.scale < 1:
        expected = cv2.resize(expected, stored.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(stored.astype(int) - expected).mean() < 3
    box = (face.box_xyxy - np.tile(face.crop_xyxy[:2], 2)) * face.scale
    np.testing.assert_allclose(face.landmarks, place_landmarks(box), atol=0.51)
    assert face.landmarks.dtype == np.float32
    assert face.box_xyxy.dtype == np.float32
    assert 0 <= face.phash < 2**64
    assert face.sharpness > 0


@pytest.mark.parametrize("size", [40, 64, 380])
@pytest.mark.parametrize("box", [BOX, (0, 0, 90, 100), (250, 150, 320, 240)])
def test_crops_are_scaled_down_never_up_and_landmarks_move_along(
    size: int, box: tuple[int, int, int, int], tmp_path: Path
) -> None:
    image = draw_blocks(box)
    (face,) = (
        build_cropper(CropSettings(image_size=size)).crop(photo_clip(write_picture(tmp_path / "a.png", image))).faces
    )
    check_geometry(face, image)
    longest = max(box[2] - box[0], box[3] - box[1])
    assert face.scale == pytest.approx(min(1, round(1.25 * size) / longest))
    assert face.crop_xyxy == tuple(compute_loose_box(place_landmarks(box), *image.shape[:2]).tolist())
    if face.scale == 1:
        left, top, right, bottom = face.crop_xyxy
        assert np.array_equal(read_picture(face.content), image[top:bottom, left:right])  # PNG loses nothing


def test_jpg_crops_are_jpeg_and_close(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png", draw_blocks(BOX))
    plain, packed = (
        build_cropper(CropSettings(picture=kind)).crop(photo_clip(path)).faces[0] for kind in ("png", "jpg")
    )
    assert plain.content.startswith(b"\x89PNG")
    assert packed.content.startswith(b"\xff\xd8")
    assert np.abs(read_picture(plain.content).astype(int) - read_picture(packed.content)).mean() < 6
    assert plain.phash == packed.phash


def test_min_face_applies_to_the_shorter_side(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png", draw_blocks((100, 60, 139, 160)))
    assert "39 px" in reasons(build_cropper(CropSettings(min_face=40)).crop(photo_clip(path)))[0]
    assert len(build_cropper(CropSettings(min_face=39)).crop(photo_clip(path)).faces) == 1


# --- Bad pictures ---------------------------------------------------------------------------------------------------


def test_a_picture_that_is_too_large_is_rejected_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """30,000 x 30,000 px of one colour: 110 kB on disk, 2.7 GB in memory."""
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    path = tmp_path / "wide.png"
    header = (30_000).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(30_001) * 100))
        + chunk(b"IEND", b"")
    )
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    assert "too large" in reasons(build_cropper().crop(photo_clip(path)))[0]


def test_a_wide_picture_within_the_limit_is_read(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "wide.png", np.full((100, 30_000, 3), 90, np.uint8))
    assert reasons(build_cropper().crop(photo_clip(path))) == ["no face found"]


def test_a_truncated_picture_is_rejected(tmp_path: Path) -> None:
    for suffix in (".png", ".jpg", ".webp", ".bmp"):
        path = cut_end(write_picture(tmp_path / f"a{suffix}", draw_blocks(BOX)), 0.6)
        assert "cut off" in reasons(build_cropper().crop(photo_clip(path)))[0]


# --- Real networks, real pictures -----------------------------------------------------------------------------------


@pytest.fixture
def cropper(folder: Path) -> ClipCropper:
    if not all((ROOT / path).is_file() for path in (face_crops.DETECTOR_FILE, face_crops.MESH_FILE)):
        pytest.skip(f"no face models in {ROOT / 'weights'}: make face-models")
    (folder / "weights").symlink_to(ROOT / "weights")
    return ClipCropper(CropSettings(frames=4))


def test_real_clips_give_a_face_in_every_sampled_frame(cropper: ClipCropper) -> None:
    if not CLIPS.is_dir():
        pytest.skip(f"no clips at {CLIPS}")
    for name in ("cap13_edit2", "d18", "s32"):
        clip_crops = cropper.crop(video_clip(CLIPS / f"{name}.mp4"))
        assert (clip_crops.frames_read, clip_crops.frames_with_face, len(clip_crops.faces)) == (4, 4, 4)
        for face in clip_crops.faces:
            stored = read_picture(face.content)
            assert (face.landmarks >= 0).all()
            assert (face.landmarks <= stored.shape[1::-1]).all()
            assert "yunet 2023mar" in face.detector


def test_a_copy_of_a_photo_has_a_nearer_hash_than_another_person(cropper: ClipCropper, folder: Path) -> None:
    photos = sorted(PHOTOS.glob("*/*neutral.jpg"))[:40:8]
    if not photos:
        pytest.skip(f"no photographs at {PHOTOS}")
    hashes, copies = [], []
    for photo in photos:
        hashes.append(cropper.crop(photo_clip(photo)).faces[0].phash)
        image = cv2.imread(str(photo))
        assert image is not None
        cv2.imwrite("copy.jpg", cv2.resize(image, None, fx=0.7, fy=0.7), [cv2.IMWRITE_JPEG_QUALITY, 60])
        copies.append(cropper.crop(photo_clip(folder / "copy.jpg")).faces[0].phash)
    apart = [(one ^ two).bit_count() for one, two in zip(hashes, copies, strict=True)]
    between = [(one ^ two).bit_count() for i, one in enumerate(hashes) for two in hashes[:i]]
    assert np.median(apart) <= 6
    assert max(apart) < np.median(between)


def test_a_photo_gives_the_crop_that_training_on_photos_makes(cropper: ClipCropper, folder: Path) -> None:
    """Both use one function."""
    photo = next(iter(sorted(PHOTOS.glob("canada/*.jpg"))), None)
    if photo is None:
        pytest.skip(f"no photographs at {PHOTOS}")
    stored = face_crops.FaceCrops(image_size=380).prepare([photo])[photo].load()
    (face,) = cropper.crop(photo_clip(photo)).faces
    assert np.array_equal(read_picture(face.content), stored.image)
    assert stored.landmarks is not None
    assert np.array_equal(face.landmarks, stored.landmarks)
