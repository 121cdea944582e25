"""Classical face swaps: one person's face is warped onto another's photo, matched in colour and blended in.

The warp is piecewise affine: triangles over the target's points, each taken from the source's. Colour follows Reinhard
et al., "Color Transfer between Images" (2001), blending Pérez et al., "Poisson Image Editing" (2003). There is no
learned generator and no self-blending: it is another kind of fake, made of nothing but photos. Real and fake pictures
are cropped and stored in the same way.

Legend: points float (n, 2) x, y in pixels, the same n >= 3 points in the same order on both faces.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import LinearNDInterpolator
from scipy.spatial import Delaunay

from sharpstudent.modalities.faces.crop import compute_box_margins, compute_landmark_box
from sharpstudent.modalities.faces.landmarks import INNER_MOUTH, check_landmarks, convert_mesh_to_81, fill_hulls
from sharpstudent.modalities.faces.swap.blend import HARD, MULTIBAND, POISSON, blend_bands, blend_poisson, mix
from sharpstudent.modalities.faces.swap.colour import find_covered, match_colour, match_sharpness, to_lab
from sharpstudent.modalities.faces.swap.match import measure_opening
from sharpstudent.modalities.faces.swap.region import (
    draw_cheeks,
    draw_core,
    draw_features,
    draw_region,
    draw_whites,
    feather,
    measure_face_width,
    remove_from_rim,
)

# Points far outside, moved by the affine map that fits all points best, extend the warp beyond the face.
RING_REACH = 2.0  # their distance from the face's middle / that of the face's outline
# A source larger than the target is brought to its size first; below this ratio the warp itself samples finely enough.
SHRINK_FROM = 1.15


class FaceWarp:
    """The piecewise affine map from points of the target's picture to points of the source's picture."""

    def __init__(self, source_points: NDArray[np.generic], target_points: NDArray[np.generic]) -> None:
        """Build the warp.

        Args:
            source_points: (n, 2) [px of the source].
            target_points: (n, 2) [px of the target].

        Raises:
            ValueError: Where the points are not n >= 3 pairs of finite points that span a plane.
        """
        source, target = (np.asarray(points, np.float64) for points in (source_points, target_points))
        if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 2 or len(source) < 3:
            raise ValueError(f"points: expected the same (n, 2) twice, n >= 3, got {source.shape} and {target.shape}")
        if not (np.isfinite(source).all() and np.isfinite(target).all()):
            raise ValueError("points: must be finite")
        # The affine (2, 3) that maps the target's points closest to the source's, by least squares.
        affine = np.linalg.lstsq(np.column_stack([target, np.ones(len(target))]), source, rcond=None)[0].T
        outline = cv2.convexHull(target.astype(np.float32))[:, 0].astype(np.float64)
        middle = target.mean(axis=0)
        ring = middle + RING_REACH * (outline - middle)
        self._from = np.concatenate([target, ring])
        self._to = np.concatenate([source, ring @ affine[:, :2].T + affine[:, 2]])
        if min(abs(np.linalg.det(affine[:, :2])), np.linalg.matrix_rank(target - middle) - 1) < 1e-6:
            raise ValueError("points: lie on a line")
        self._triangles = Delaunay(self._from)
        self.scale = float(np.sqrt(abs(np.linalg.det(affine[:, :2]))))  # source pixels / target pixel

    def locate(self, points: NDArray[np.generic]) -> NDArray[np.float64]:
        """Map points (m, 2) of the target to the source: float64 (m, 2), NaN far outside the face."""
        return LinearNDInterpolator(self._triangles, self._to)(np.asarray(points, np.float64))

    def measure_folds(self) -> float:
        """Measure the share of the target's triangles, by area, that come from a triangle turned inside out: 0..1."""
        areas = [_compute_areas(points[self._triangles.simplices]) for points in (self._from, self._to)]
        folded = areas[0] * areas[1] <= 0
        return float(np.abs(areas[0])[folded].sum() / np.abs(areas[0]).sum())

    def apply(
        self, image: NDArray[np.uint8], box_xyxy: NDArray[np.integer] | tuple[int, int, int, int]
    ) -> NDArray[np.uint8]:
        """Warp the source's picture into a box of the target.

        Beyond the source's border its outermost pixels are repeated.

        Args:
            image: The source, uint8 (H, W, 3).
            box_xyxy: Whole-pixel edges in the target (4,).

        Returns:
            uint8 (h, w, 3).
        """
        left, top, right, bottom = (int(value) for value in box_xyxy)
        grid = np.stack(np.meshgrid(np.arange(left, right), np.arange(top, bottom)), axis=-1).reshape(-1, 2)
        places = self.locate(grid).reshape(bottom - top, right - left, 2)
        if self.scale > SHRINK_FROM:
            height, width = image.shape[:2]
            size = (max(1, round(width / self.scale)), max(1, round(height / self.scale)))
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
            places = (places + 0.5) * (size[0] / width, size[1] / height) - 0.5
        x, y = cv2.split(places.astype(np.float32))
        return np.asarray(cv2.remap(image, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _compute_areas(triangles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute twice the signed areas of (n, 3, 2) triangles."""
    one, two = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    return one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]


# Lengths are shares of the face's width.
MARGIN = 0.1
FEATHER = 0.1
MOUTH_FEATHER = 0.015
# Height of the inner lips / width of the mouth: a target whose mouth is more open than the source's by this keeps its
# own teeth, as the source has none to show.
LEAST_OPENING = 0.08
LARGEST_FOLDS = 0.03  # share of the face that the warp may turn inside out
LEAST_SKIN = 50  # px
LEAST_INSIDE = 0.85  # share of the 68 points that lie in the picture
SEAM_BELOW = 0.6  # the rim, where the seam is measured: less than this of each pixel is the source's


class UnfitPair(Exception):
    """Raised for two faces that cannot be swapped; its text is the reason."""


@dataclass(frozen=True)
class PointedFace:
    """A picture with the points of a face.

    Attributes:
        image: uint8 (H, W, 3) RGB.
        points: float32 (468, 2) of the face mesh, or (81, 2) in dlib's order [px].
    """

    image: NDArray[np.uint8]
    points: NDArray[np.float32]

    @cached_property
    def landmarks(self) -> NDArray[np.float32]:
        """The points in dlib's order, float32 (81, 2)."""
        return convert_mesh_to_81(self.points) if len(self.points) == 468 else check_landmarks(self.points)


@dataclass(frozen=True)
class SwapDraft:
    """A swap before its blend: enough to estimate how good it would be.

    Attributes:
        target: The target's picture.
        box_xyxy: The part of the target, h x w pixels, that the other attributes show.
        own: The target's own pixels in that part, uint8 (h, w, 3).
        face: The source's face in its place and colours, uint8 (h, w, 3).
        region: What is replaced, uint8 (h, w), 0 or 255.
        share: The source's share of each pixel, float32 (h, w).
        skin: Where both show skin, bool (h, w).
        teeth: The target's share inside its lips, float32 (h, w), or None.
        margin: How far the part goes beyond the region, where the picture does [px].
        kept: Share of the face's region that no hair or hand covers.
        covered: Share of the middle of one of the two faces that something covers.
        seam: Mean difference of the two along the region's rim [CIELAB units].
    """

    target: NDArray[np.uint8]
    box_xyxy: tuple[int, int, int, int]
    own: NDArray[np.uint8]
    face: NDArray[np.uint8]
    region: NDArray[np.uint8]
    share: NDArray[np.float32]
    skin: NDArray[np.bool_]
    teeth: NDArray[np.float32] | None
    margin: float
    kept: float
    covered: float
    seam: float

    @property
    def flaw(self) -> float:
        """How visible the swap would be: 0 where nothing of it would be noticed, without an upper limit.

        The weights were found by looking at some hundred swaps (docs/swaps.md).
        """
        return self.seam / 3 + 4 * (1 - self.kept) + 5 * self.covered


@dataclass(frozen=True)
class Swap:
    """A finished swap.

    Attributes:
        image: uint8 (H, W, 3) RGB.
        mask: The source's share of each pixel, float32 (H, W); where it is 0, the image is the target bit for bit.
        method: `poisson`, `feather`, `hard` or `multiband`.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.float32]
    method: str


def draft_swap(source: PointedFace, target: PointedFace) -> SwapDraft:
    """Warp the source's face, choose the region, and match the colour.

    Args:
        source: Whose face is used.
        target: Whose picture it is put into.

    Returns:
        The draft.

    Raises:
        UnfitPair: Where the poses differ too much, or no skin is seen in both.
    """
    _check_in_picture(source)
    _check_in_picture(target)
    landmarks = target.landmarks
    face_width = measure_face_width(landmarks)
    region = draw_region(landmarks, *target.image.shape[:2])
    box = _find_box(region, MARGIN * face_width)
    inside = np.s_[box[1] : box[3], box[0] : box[2]]
    own, region = np.ascontiguousarray(target.image[inside]), np.ascontiguousarray(region[inside])
    landmarks = landmarks - np.array(box[:2], np.float32)
    warped = _warp(source, target, box)

    not_skin = draw_features(landmarks, *region.shape) > 0
    cheeks = (draw_cheeks(landmarks, *region.shape) > 0) & ~not_skin & (region > 0)
    if np.count_nonzero(cheeks) < LEAST_SKIN:
        raise UnfitPair("too little of the cheeks is in the picture")
    core = draw_core(landmarks, *region.shape)
    covered = [find_covered(picture, cheeks, face_width) for picture in (own, warped)]
    chosen = remove_from_rim(region, covered[0] | covered[1], core, face_width)
    skin = (chosen > 0) & ~not_skin
    middle = skin & (core > 0)
    share = feather(chosen, FEATHER * face_width)
    rim = (share > 0) & (share < SEAM_BELOW)
    if min(np.count_nonzero(middle), np.count_nonzero(rim)) < LEAST_SKIN:
        raise UnfitPair("too little skin is seen in both")
    face = match_colour(warped, own, skin, draw_whites(landmarks, *region.shape) > 0, face_width)
    return SwapDraft(
        target=target.image,
        box_xyxy=box,
        own=own,
        face=face,
        region=chosen,
        share=share,
        skin=skin,
        teeth=_find_teeth(source, target, landmarks, region.shape, face_width),
        margin=MARGIN * face_width,
        kept=np.count_nonzero(chosen) / np.count_nonzero(region),
        covered=max(float(part[middle].mean()) for part in covered),
        seam=float(np.abs(to_lab(face)[rim] - to_lab(own)[rim]).mean()),
    )


def finish_swap(draft: SwapDraft, blending: str = POISSON) -> Swap:
    """Match the sharpness and blend.

    Args:
        draft: The swap.
        blending: `poisson`, which is `feather` where it would drag colour in; `feather`, where the source's share
            falls evenly to 0 along the rim; `hard`, where all of the region is the source's and nothing beyond it;
            `multiband`, where each frequency band has a rim of its own width.

    Returns:
        The swap.
    """
    face = match_sharpness(draft.face, draft.own, draft.skin)
    if draft.teeth is not None:
        face = mix(draft.own, face, draft.teeth)
    part, share, method = _blend(face, draft, blending)
    left, top, right, bottom = draft.box_xyxy
    image = draft.target.copy()
    mask = np.zeros(image.shape[:2], np.float32)
    image[top:bottom, left:right] = part
    mask[top:bottom, left:right] = share
    return Swap(image, mask, method)


def _blend(
    face: NDArray[np.uint8], draft: SwapDraft, blending: str
) -> tuple[NDArray[np.uint8], NDArray[np.float32], str]:
    """Blend the face in; return the draft's part of the picture, the source's share of it, and the method."""
    if blending == MULTIBAND:
        return *blend_bands(face, draft.own, draft.region, draft.margin), blending
    share = (draft.region > 0).astype(np.float32) if blending == HARD else draft.share
    if blending == POISSON:
        face, blending = blend_poisson(face, draft.own, draft.region, draft.share)
    return mix(face, draft.own, share), share, blending


def _check_in_picture(face: PointedFace) -> None:
    points = face.landmarks[:68]
    if not ((points >= 0) & (points < face.image.shape[1::-1])).all(axis=1).mean() >= LEAST_INSIDE:
        raise UnfitPair("a face is cut off by its picture's edge")


def _find_box(region: NDArray[np.uint8], margin: float) -> tuple[int, int, int, int]:
    left, top, width, height = cv2.boundingRect(region)
    if width == 0:
        raise UnfitPair("the face is too small")
    wide = max(4, round(margin))
    return (
        max(0, left - wide),
        max(0, top - wide),
        min(region.shape[1], left + width + wide),
        min(region.shape[0], top + height + wide),
    )


def _warp(source: PointedFace, target: PointedFace, box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    try:
        warp = FaceWarp(source.points, target.points)
    except ValueError as error:
        raise UnfitPair(str(error)) from None
    if warp.measure_folds() > LARGEST_FOLDS:
        raise UnfitPair("the two heads are turned too differently")
    return warp.apply(source.image, box)


def _find_teeth(
    source: PointedFace, target: PointedFace, landmarks: NDArray[np.float32], shape: tuple[int, ...], face_width: float
) -> NDArray[np.float32] | None:
    if measure_opening(target.landmarks) - measure_opening(source.landmarks) <= LEAST_OPENING:
        return None
    return feather(fill_hulls([landmarks[INNER_MOUTH]], *shape[:2]), MOUTH_FEATHER * face_width)


CONTEXT = 0.15  # around the face's points and the final crop, share of their box
SPARE = 1.5  # the final crop is at most this times the wanted size when the swap is made


@dataclass(frozen=True)
class PhotoFace:
    """A face in the part of a photo that a swap needs.

    Attributes:
        face: The photo's part around the face, scaled down (never up).
        final_xyxy: The crop that is stored, (4,) whole pixels in it.
    """

    face: PointedFace
    final_xyxy: tuple[int, int, int, int]


def crop_photo(
    image: NDArray[np.uint8], points: NDArray[np.float32], box_xyxy: NDArray[np.float32], image_size: int
) -> PhotoFace:
    """Crop a photo to the part that a swap needs. The stored crop is that of evaluation: 12.5 % around the box.

    Args:
        image: The photo, uint8 (H, W, 3) RGB.
        points: (468 or 81, 2) [px].
        box_xyxy: The detector's (4,) [px].
        image_size: Side of the picture to store [px].

    Returns:
        The face.
    """
    height, width = image.shape[:2]
    final = compute_box_margins(box_xyxy, height, width, None)
    spread = compute_landmark_box(points)
    low, high = np.minimum(spread[:2], final[:2]), np.maximum(spread[2:], final[2:])
    context = CONTEXT * (high - low)
    left, top = (int(value) for value in np.clip(np.floor(low - context), 0, (width - 1, height - 1)))
    right, bottom = (int(value) for value in np.clip(np.ceil(high + context), (left + 1, top + 1), (width, height)))
    part = image[top:bottom, left:right]
    factor = min(1.0, SPARE * image_size / float(max(final[2] - final[0], final[3] - final[1])))
    scale = np.ones(2)
    if factor < 1:
        size = (max(1, round(part.shape[1] * factor)), max(1, round(part.shape[0] * factor)))
        scale = np.array([size[0] / part.shape[1], size[1] / part.shape[0]])
        part = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
    moved = (np.asarray(points, np.float64) - (left, top) + 0.5) * scale - 0.5
    corners = np.rint((final - np.array([left, top] * 2)) * np.tile(scale, 2)).astype(int)
    corners[2:] = np.maximum(corners[2:], corners[:2] + 1)
    return PhotoFace(PointedFace(np.ascontiguousarray(part), moved.astype(np.float32)), tuple(corners.tolist()))


def resize_crop(image: NDArray[np.uint8], final_xyxy: tuple[int, int, int, int], image_size: int) -> NDArray[np.uint8]:
    """Resize the crop to a square, real and fake alike.

    Args:
        image: uint8 (H, W, 3) RGB.
        final_xyxy: Edges of the crop in it (4,).
        image_size: Side S of the square [px].

    Returns:
        uint8 (S, S, 3).
    """
    left, top, right, bottom = final_xyxy
    part = image[top:bottom, left:right]
    smaller = max(part.shape[:2]) > image_size
    interpolation = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(part, (image_size, image_size), interpolation=interpolation), np.uint8)
