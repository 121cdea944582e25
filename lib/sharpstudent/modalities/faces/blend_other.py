"""Fakes that are made of two people: another person's face blended into a picture.

After Li et al., "Face X-ray for More General Face Forgery Detection" (CVPR 2020): the other face is one whose landmarks
are near, it is brought into place by an affine map and matched in colour, and the mask is drawn, deformed and softened
as that of a self-blend. What a self-blend lacks is in it: the skin, the noise and the light of another photo. A
classical swap (modalities/faces/swap) warps triangle by triangle in place of the affine map, and keeps what covers a
face.

Legend: image uint8 (H, W, 3) RGB; landmarks float32 (68 or 81, 2) [px].
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.modalities.faces.landmarks import check_landmarks
from sharpstudent.modalities.faces.self_blend import HULL_KINDS, blend, deform_elastically, draw_hull, soften
from sharpstudent.modalities.faces.swap.colour import match_colour
from sharpstudent.modalities.faces.swap.match import normalise_points
from sharpstudent.modalities.faces.swap.region import measure_face_width
from sharpstudent.modalities.faces.swap.swap import PointedFace, UnfitPair, draft_swap, finish_swap

Picture = NDArray[np.uint8]
BlendResult = tuple[Picture, Picture, NDArray[np.float32]]

SHRINK_BELOW = 0.75  # of the other picture's size: below it, pixels would be skipped, and it is scaled down first


def blend_other(
    image: Picture,
    landmarks: NDArray[np.generic],
    other: Picture,
    other_landmarks: NDArray[np.generic],
    rng: np.random.Generator,
) -> BlendResult:
    """Blend another face into a picture.

    Args:
        image: The picture, which is the real face as it is.
        landmarks: Its landmarks.
        other: The picture of the other face.
        other_landmarks: Its landmarks.
        rng: Draws the region and its deformation.

    Returns:
        The real face and the fake, uint8 (H, W, 3), and the other face's share of each pixel, float32 (H, W).

    Raises:
        ValueError: For another shape of landmarks, and where one face's landmarks lie on a line.
    """
    height, width = image.shape[:2]
    points, other_points = check_landmarks(landmarks), check_landmarks(other_landmarks)
    warped = place_face(other, other_points, points, height, width)
    hull = draw_hull(HULL_KINDS[rng.integers(len(HULL_KINDS))], points, height, width)
    share = soften(deform_elastically(hull, rng), rng)
    left, top, box_width, box_height = cv2.boundingRect((share > 0).view(np.uint8))
    if box_width == 0:
        raise ValueError("landmarks: no part of the face is in the picture")
    inside = np.s_[top : top + box_height, left : left + box_width]
    skin, nothing = share[inside] > 0, np.zeros((box_height, box_width), bool)
    source = image.copy()
    source[inside] = match_colour(warped[inside], image[inside], skin, nothing, measure_face_width(points))
    return image, blend(source, image, share), share


def place_face(
    other: Picture, other_points: NDArray[np.float32], points: NDArray[np.float32], height: int, width: int
) -> Picture:
    """Bring a face to the landmarks of another by the affine map that fits points 0-67 best, by least squares.

    Args:
        other: The picture of the face that is moved.
        other_points: Its landmarks.
        points: The landmarks that it is brought to.
        height: The height of the result [px].
        width: The width of the result [px].

    Returns:
        uint8 (height, width, 3); beyond the border of `other` it is mirrored.

    Raises:
        ValueError: Where its landmarks lie on a line, or are not finite.
    """
    source, target = other_points[:68].astype(np.float64), points[:68].astype(np.float64)
    if not (np.isfinite(source).all() and np.isfinite(target).all()):
        raise ValueError("landmarks: must be finite")
    if min(np.linalg.matrix_rank(one - one.mean(axis=0), tol=1e-3) for one in (source, target)) < 2:
        raise ValueError("landmarks: lie on a line")
    matrix = _fit_affine(source, target)
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if scale < SHRINK_BELOW:
        size = (max(1, round(scale * other.shape[1])), max(1, round(scale * other.shape[0])))
        shrunk = np.array([size[0] / other.shape[1], size[1] / other.shape[0]])
        other = np.asarray(cv2.resize(other, size, interpolation=cv2.INTER_AREA), np.uint8)
        matrix = _fit_affine((source + 0.5) * shrunk - 0.5, target)
    placed = cv2.warpAffine(other, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(placed, np.uint8)


def _fit_affine(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    found = np.linalg.lstsq(np.column_stack([source, np.ones(len(source))]), target, rcond=None)[0]
    return found.T.astype(np.float64)


def swap_faces(
    image: Picture,
    landmarks: NDArray[np.generic],
    other: Picture,
    other_landmarks: NDArray[np.generic],
    *,
    largest_flaw: float,
) -> BlendResult:
    """Make a classical swap, as make_swaps.py does, at the size of the picture.

    Args:
        image: The picture, which is the real face as it is.
        landmarks: Its landmarks, (81, 2).
        other: The picture of the other face.
        other_landmarks: Its landmarks, (81, 2).
        largest_flaw: A swap that would be more visible than this is not made (`SwapDraft.flaw`).

    Returns:
        The real face and the fake, uint8 (H, W, 3), and the other face's share of each pixel, float32 (H, W).

    Raises:
        ValueError: Where the two cannot be swapped; the text is the reason.
    """
    points, other_points = check_landmarks(landmarks), check_landmarks(other_landmarks)
    if min(len(points), len(other_points)) < 81:
        raise ValueError("landmarks: a swap takes 81, the forehead among them")
    try:
        draft = draft_swap(PointedFace(other, other_points), PointedFace(image, points))
    except UnfitPair as error:
        raise ValueError(str(error)) from None
    if draft.flaw > largest_flaw:
        raise ValueError("the swap would be too visible")
    swap = finish_swap(draft)
    return image, swap.image, swap.mask


class NearestFaces:
    """Finds faces of other people whose landmarks are near."""

    def __init__(self, landmarks: list[NDArray[np.generic]], people: list[str]) -> None:
        """Keep the shapes of faces.

        Args:
            landmarks: The landmarks of each face, (68 or 81, 2) [px].
            people: The person of each.
        """
        shapes = [normalise_points(check_landmarks(points)[:68]) for points in landmarks]
        self._shapes = np.stack(shapes) if shapes else np.zeros((0, 68, 2), np.float32)
        self._people = np.array(people)

    def find(self, landmarks: NDArray[np.generic], person: str, count: int) -> NDArray[np.int64]:
        """Find the faces of other people that are nearest, the nearest first.

        The distance is the root mean square of the points' distances, after both faces are centred, levelled by their
        eyes and brought to one size.

        Args:
            landmarks: The landmarks of a face, (68 or 81, 2) [px].
            person: Who it is.
            count: The most that are returned.

        Returns:
            Their numbers.
        """
        shape = normalise_points(check_landmarks(landmarks)[:68])
        distances = np.square(self._shapes - shape).sum(axis=2).mean(axis=1, dtype=np.float64)
        distances[self._people == person] = np.inf
        order = np.argsort(distances, kind="stable")[:count]
        return order[np.isfinite(distances[order])]
