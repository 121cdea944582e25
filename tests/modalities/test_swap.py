"""Face swaps of drawn faces, whose landmarks are exact, and of photographs where they are present."""

from __future__ import annotations

import csv
import sys
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
for folder in (ROOT, ROOT / "tests" / "helpers"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from drawn_faces import draw_face
from sharpstudent.modalities.faces.crop import compute_landmark_box
from sharpstudent.modalities.faces.swap.blend import blend_bands
from sharpstudent.modalities.faces.swap.colour import match_colour, match_sharpness, measure_detail, to_lab
from sharpstudent.modalities.faces.swap.match import LookTable, describe_look
from sharpstudent.modalities.faces.swap.region import (
    draw_core,
    draw_region,
    feather,
    measure_face_width,
    remove_from_rim,
)
from sharpstudent.modalities.faces.swap.swap import (
    FaceWarp,
    PointedFace,
    Swap,
    UnfitPair,
    crop_photo,
    draft_swap,
    finish_swap,
    resize_crop,
)

PHOTOS = ROOT.parent / "shared" / "data" / "faces"
SIDE = 200


def swap_face(source: PointedFace, target: PointedFace) -> Swap:
    return finish_swap(draft_swap(source, target))


def draw(seed: int, side: int = SIDE) -> PointedFace:
    return PointedFace(*draw_face(seed, side))


def shift(face: PointedFace, x: int, y: int) -> PointedFace:
    """The picture moved, with its outermost pixels repeated."""
    matrix = np.array([[1, 0, x], [0, 1, y]], np.float64)
    size = face.image.shape[1::-1]
    image = cv2.warpAffine(face.image, matrix, size, borderMode=cv2.BORDER_REPLICATE)
    return PointedFace(np.asarray(image, np.uint8), face.points + np.array([x, y], np.float32))


def find_pairs(count: int) -> list[tuple[PointedFace, PointedFace]]:
    """Drawn faces that can be swapped."""
    pairs = []
    for seed in range(0, 60, 2):
        try:
            draft_swap(draw(seed), draw(seed + 1))
        except UnfitPair:
            continue
        pairs.append((draw(seed), draw(seed + 1)))
        if len(pairs) == count:
            break
    return pairs


@pytest.mark.parametrize("size", [(SIDE, SIDE), (SIDE, 90), (90, SIDE)])
def test_the_warp_brings_every_landmark_to_its_partner(size):
    source, target = draw(3, size[0]), draw(8, size[1])
    warp = FaceWarp(source.points, target.points)
    np.testing.assert_allclose(warp.locate(target.points), source.points, atol=1e-3)


def test_a_mark_at_a_landmark_lands_on_the_same_landmark_of_the_target():
    source, target = draw(3), draw(8)
    for index in (8, 30, 36, 45, 48, 54, 69):
        marked = np.zeros((SIDE, SIDE, 3), np.uint8)
        x, y = source.points[index]
        cv2.circle(marked, (round(x * 16), round(y * 16)), 4 * 16, (255, 255, 255), -1, shift=4)
        pulled = FaceWarp(source.points, target.points).apply(marked, (0, 0, SIDE, SIDE))[..., 0].astype(float)
        # The disc is bent, so that its middle is not quite where the landmark is.
        middle = np.array([(pulled * axis).sum() for axis in np.indices(pulled.shape)[::-1]]) / pulled.sum()
        assert np.linalg.norm(middle - target.points[index]) < 1.5
        assert pulled[tuple(np.rint(target.points[index]).astype(int)[::-1])] > 200


def test_an_affine_move_is_undone_to_within_interpolation():
    face = draw(5)
    moved = shift(face, 9, -6)
    pulled = FaceWarp(moved.points, face.points).apply(moved.image, (40, 40, 160, 160))
    assert np.abs(pulled.astype(int) - face.image[40:160, 40:160]).max() <= 1


@pytest.mark.parametrize(
    "points",
    [np.zeros((81, 2)), np.c_[np.arange(81), np.arange(81)], np.full((81, 2), np.nan), np.zeros((2, 2)), np.zeros(81)],
)
def test_points_without_a_plane_are_refused(points):
    with pytest.raises(ValueError, match="points"):
        FaceWarp(points, points)


def test_a_mirrored_source_counts_as_folded_nearly_everywhere():
    face = draw(3)
    assert FaceWarp(face.points, face.points).measure_folds() < 1e-3
    twisted = face.points.copy()
    twisted[27:48] = twisted[27:48].mean(axis=0) - (twisted[27:48] - twisted[27:48].mean(axis=0))
    assert FaceWarp(twisted, face.points).measure_folds() > 0.03
    with pytest.raises(UnfitPair, match="turned"):
        draft_swap(PointedFace(face.image, twisted), draw(8))


def test_outside_the_mask_the_fake_is_the_target_bit_for_bit_and_inside_it_is_not():
    pairs = find_pairs(4)
    assert len(pairs) == 4
    for source, target in pairs:
        before = target.image.copy()
        swap = swap_face(source, target)
        assert swap.image.dtype == np.uint8
        assert swap.mask.shape == target.image.shape[:2]
        np.testing.assert_array_equal(swap.image[swap.mask == 0], target.image[swap.mask == 0])
        changed = np.abs(swap.image.astype(int) - target.image).max(axis=2)
        assert np.mean(changed[swap.mask > 0.9] > 0) > 0.7
        np.testing.assert_array_equal(target.image, before)
        assert 0.03 < np.mean(swap.mask > 0) < 0.6
        assert swap.mask[[0, -1]].max() == swap.mask[:, [0, -1]].max() == 0


def test_a_face_swapped_with_itself_stays_nearly_the_same():
    for seed in (3, 8, 12):
        face = draw(seed)
        swap = swap_face(face, face)
        assert np.abs(swap.image.astype(int) - face.image).mean() < 0.2
        assert np.abs(swap.image.astype(int) - face.image).max() <= 12


def test_the_middle_of_the_fake_follows_the_source_and_not_the_target():
    seeds = range(40)
    table = LookTable([describe_look(*draw_face(seed, SIDE)) for seed in seeds])
    for seed in (0, 11, 25):
        distances = table.compute_distances(describe_look(*draw_face(seed, SIDE)))
        source, target = draw(int(np.argmin(distances))), draw(seed)
        swap = swap_face(source, target)
        pulled = FaceWarp(source.points, target.points).apply(source.image, (0, 0, SIDE, SIDE))
        middle = swap.mask >= 1

        def detail(picture, middle=middle):
            grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(float)
            return (grey - cv2.GaussianBlur(grey, (0, 0), 12))[middle]

        like_source = np.corrcoef(detail(swap.image), detail(pulled))[0, 1]
        like_target = np.corrcoef(detail(swap.image), detail(target.image))[0, 1]
        assert like_source > 0.8
        assert like_source > like_target


def test_the_same_two_faces_give_the_same_bytes():
    source, target = find_pairs(1)[0]
    one, two = swap_face(source, target), swap_face(source, target)
    assert one.image.tobytes() == two.image.tobytes()
    assert one.mask.tobytes() == two.mask.tobytes()
    assert len({swap_face(source, target).mask.tobytes() for _ in range(20)}) == 1


def test_a_face_that_reaches_beyond_the_picture_is_blended_inside_it():
    source, target = find_pairs(1)[0]
    left, top, _, bottom = compute_landmark_box(target.points).astype(int)
    for x, y, x_end, y_end in ((left + 6, 0, SIDE, SIDE), (0, 0, SIDE, bottom - 6), (0, top + 22, SIDE, SIDE)):
        picture = np.ascontiguousarray(target.image[y:y_end, x:x_end])
        offset = np.array([x, y], np.float32)
        swap = swap_face(source, PointedFace(picture, target.points - offset))
        assert swap.image.shape == picture.shape
        np.testing.assert_array_equal(swap.image[[0, -1]], picture[[0, -1]])
        np.testing.assert_array_equal(swap.image[:, [0, -1]], picture[:, [0, -1]])


@pytest.mark.parametrize("shift_x", [0.4 * SIDE, 0.55 * SIDE, 5000.0, -5000.0, np.nan])
def test_faces_outside_the_picture_are_unfit_with_a_reason(shift_x):
    source, target = find_pairs(1)[0]
    gone = PointedFace(target.image, target.points + np.array([shift_x, 0], np.float32))
    for one, other in ((source, gone), (gone, source)):
        with pytest.raises(UnfitPair, match="cut off"):
            swap_face(one, other)


def test_a_tiny_face_is_unfit():
    tiny = PointedFace(*draw_face(8, 24))
    with pytest.raises(UnfitPair):
        swap_face(draw(3), tiny)


def test_colour_is_matched_on_the_skin_and_a_grey_target_stays_grey():
    face, like = draw(3).image, draw(8).image
    skin = np.zeros((SIDE, SIDE), bool)
    skin[110:140, 70:130] = True
    none = np.zeros_like(skin)
    matched = match_colour(face, like, skin, none, 100.0)
    np.testing.assert_allclose(
        np.median(to_lab(matched)[skin], axis=0), np.median(to_lab(like)[skin], axis=0), atol=2.5
    )
    grey = np.repeat(cv2.cvtColor(like, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    grey = np.ascontiguousarray(grey, np.uint8)
    assert np.ptp(match_colour(face, grey, skin, none, 100.0), axis=2).max() <= 2
    # Eyeballs and teeth keep more of their own colour.
    whites = np.zeros_like(skin)
    whites[60:90, 60:90] = True
    own, all_of_it, less = (
        face[75, 75].astype(int),
        matched[75, 75],
        match_colour(face, like, skin, whites, 100.0)[75, 75],
    )
    assert np.abs(less - own).sum() < 0.6 * np.abs(all_of_it - own).sum()


def test_sharpness_is_matched_both_ways():
    rng = np.random.default_rng(0)
    sharp = rng.integers(90, 166, (80, 80, 3)).astype(np.uint8)
    soft = np.asarray(cv2.GaussianBlur(sharp, (0, 0), 0.6), np.uint8)
    everywhere = np.ones((80, 80), bool)
    for face, like in ((sharp, soft), (soft, sharp)):
        before = abs(measure_detail(face, everywhere) - measure_detail(like, everywhere))
        after = abs(
            measure_detail(match_sharpness(face, like, everywhere), everywhere) - measure_detail(like, everywhere)
        )
        assert after < 0.7 * before
    assert match_sharpness(sharp, sharp, everywhere) is sharp


def test_hair_that_reaches_the_rim_is_left_out_and_a_spot_in_the_middle_is_not():
    landmarks = draw(3).landmarks
    region, core = draw_region(landmarks, SIDE, SIDE), draw_core(landmarks, SIDE, SIDE)
    width = measure_face_width(landmarks)
    assert not (core & ~region & region).any()
    fringe = np.zeros((SIDE, SIDE), bool)
    fringe[: int(landmarks[19, 1]) - 4] = True
    kept = remove_from_rim(region, fringe, core, width)
    assert not (kept[fringe & (core == 0)]).any()
    assert (kept[(core > 0) & (region > 0)] == 255).all()
    spot = np.zeros((SIDE, SIDE), bool)
    x, y = landmarks[30].astype(int)
    spot[y - 8 : y + 8, x - 8 : x + 8] = True
    whole = remove_from_rim(region, np.zeros_like(spot), core, width)
    np.testing.assert_array_equal(remove_from_rim(region, spot, core, width), whole)


def test_the_feather_rises_from_the_outline():
    region = np.zeros((40, 40), np.uint8)
    region[10:30, 10:30] = 255
    share = feather(region, 5)
    assert (share[region == 0] == 0).all()
    assert (share[region > 0] > 0).all()
    assert (np.diff(share[20, 9:20]) >= 0).all()
    assert share[20, 20] == 1


def test_the_nearest_partner_is_the_same_face_elsewhere_and_copies_are_infinitely_far():
    looks = [describe_look(*draw_face(seed, SIDE)) for seed in range(12)]
    table = LookTable(looks)
    for index, look in enumerate(looks):
        distances = table.compute_distances(look)
        assert np.isinf(distances[index])
        assert np.isfinite(np.delete(distances, index)).all()
    smaller = describe_look(*draw_face(4, SIDE // 2))  # the same drawing at another size, with other noise
    assert np.isinf(table.compute_distances(smaller)[4])
    moved = shift(draw(4), 7, 5)
    np.testing.assert_allclose(describe_look(moved.image, moved.landmarks).shape, looks[4].shape, atol=1e-4)


def test_a_bar_across_the_nose_raises_the_bridge_score():
    face = draw(4)
    plain = describe_look(face.image, face.landmarks).bridge
    glasses = face.image.copy()
    eyes = face.landmarks[36:48].mean(axis=0).astype(int)
    cv2.line(glasses, (int(eyes[0]) - 15, int(eyes[1])), (int(eyes[0]) + 15, int(eyes[1])), (10, 10, 10), 4)
    assert describe_look(glasses, face.landmarks).bridge > plain + 4


@pytest.mark.parametrize("image_size", [64, 380])
def test_real_and_fake_are_cropped_alike_and_differ_only_inside_the_swap(image_size):
    (source, target) = find_pairs(1)[0]
    box = compute_landmark_box(target.points[:68])
    crop = crop_photo(target.image, target.points, box, image_size)
    own = crop_photo(source.image, source.points, compute_landmark_box(source.points[:68]), image_size)
    swap = finish_swap(draft_swap(own.face, crop.face))
    real, fake = (resize_crop(image, crop.final_xyxy, image_size) for image in (crop.face.image, swap.image))
    assert real.shape == fake.shape == (image_size, image_size, 3)
    left, top, right, bottom = crop.final_xyxy
    mask = resize_crop(
        np.repeat((swap.mask > 0)[..., None].astype(np.uint8) * 255, 3, axis=2), crop.final_xyxy, image_size
    )
    np.testing.assert_array_equal(real[mask == 0], fake[mask == 0])
    assert (real != fake).mean() > 0.1
    height, width = crop.face.image.shape[:2]
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_a_hard_edge_is_all_source_inside_the_region_and_a_feathered_one_falls_evenly() -> None:
    (source, target) = find_pairs(1)[0]
    draft = draft_swap(source, target)
    left, top, right, bottom = draft.box_xyxy
    inside = np.s_[top:bottom, left:right]
    hard, soft = finish_swap(draft, "hard"), finish_swap(draft, "feather")
    assert (hard.method, soft.method) == ("hard", "feather")
    np.testing.assert_array_equal(hard.mask[inside], (draft.region > 0).astype(np.float32))
    np.testing.assert_array_equal(soft.mask[inside], draft.share)
    for swap in (hard, soft):
        np.testing.assert_array_equal(swap.image[swap.mask == 0], target.image[swap.mask == 0])
    face = hard.image[inside].astype(np.float64)  # where the region is hard, the face as it was matched
    mixed = np.rint(draft.share[..., None] * face + (1 - draft.share[..., None]) * draft.own)
    known = draft.region > 0
    assert np.abs(soft.image[inside].astype(int) - mixed)[known].max() <= 1


@pytest.mark.parametrize("number", range(3))
def test_frequency_bands_are_blended_near_the_edge_of_the_region_only(number: int) -> None:
    """Fine bands change within a few pixels of the edge, coarse ones further out, and nothing beyond the margin."""
    source, target = find_pairs(3)[number]
    draft = draft_swap(source, target)
    swap = finish_swap(draft, "multiband")
    left, top, right, bottom = draft.box_xyxy
    inside = np.s_[top:bottom, left:right]
    np.testing.assert_array_equal(swap.image[swap.mask == 0], target.image[swap.mask == 0])
    border = np.ones(draft.region.shape, bool)
    border[1:-1, 1:-1] = False
    assert swap.mask[inside][border].max() < 0.02
    depth, beyond = (cv2.distanceTransform(part, cv2.DIST_L2, 5) for part in (draft.region, 255 - draft.region))
    assert swap.mask[inside][depth > draft.margin].min() > 0.99
    assert swap.mask[inside][beyond > draft.margin].max() < 0.02
    at_edge = swap.mask[inside][(depth == 1) | (beyond == 1)]
    assert abs(at_edge.mean() - 0.5) < 0.05
    hard = finish_swap(draft, "hard").image[inside].astype(np.int64)  # within the region the source's face
    deep = depth > 2 * draft.margin
    assert deep.any()
    assert np.abs(swap.image[inside][deep] - hard[deep]).max() <= 2


def test_equal_pictures_stay_equal_when_their_bands_are_blended() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 72, 3)).astype(np.uint8)
    region = np.zeros((64, 72), np.uint8)
    region[20:40, 20:50] = 255
    for reach in (1.0, 4.0, 15.0):
        blended, share = blend_bands(picture, picture, region, reach)
        assert np.abs(blended.astype(int) - picture).max() == 0
        assert 0 <= share.min() <= share.max() <= 1


def load_photos(count: int) -> list[PointedFace]:
    """So many photographs of different people with their dense mesh."""
    from sharpstudent.modalities.faces.detect import FaceDetector
    from sharpstudent.modalities.faces.landmarks import LandmarkMesh
    from sharpstudent.tasks.deepfake.sources.face import read_picture

    files = [ROOT / "weights" / name for name in ("face_detection_yunet_2023mar.onnx", "face_landmark.tflite")]
    missing = [path for path in (*files, PHOTOS / "index.csv") if not path.is_file()]
    if missing:
        pytest.skip(f"absent: {missing[0]}")
    detector, mesh = FaceDetector(files[0]), LandmarkMesh(files[1])
    with (PHOTOS / "index.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))[:: 244 // count][:count]
    faces = []
    for row in rows:
        image = read_picture(PHOTOS / row["file"])
        faces.append(PointedFace(image, mesh.locate(image, detector.detect(image)[0].box_xyxy)[0]))
    return faces


def test_photographs_swap_through_the_dense_mesh_without_a_visible_seam():
    faces = load_photos(8)
    seams = []
    for source, target in pairwise(faces):
        draft = draft_swap(source, target)
        swap = finish_swap(draft)
        np.testing.assert_array_equal(swap.image[swap.mask == 0], target.image[swap.mask == 0])
        # Along the mask's outline the fake is no more uneven than the target.
        rim = (swap.mask > 0) & (swap.mask < 0.3)
        fake, real = (np.abs(cv2.Laplacian(image, cv2.CV_32F))[rim].mean() for image in (swap.image, target.image))
        assert fake < 1.25 * real
        seams.append(draft.seam)
        same = swap_face(target, target)
        assert np.abs(same.image.astype(int) - target.image).mean() < 0.2
    assert np.median(seams) < 6
