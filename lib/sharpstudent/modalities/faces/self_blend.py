"""Self-blended images: fakes that are made of one real face.

After Shiohara and Yamasaki, "Detecting Deepfakes with Self-Blended Images", CVPR 2022 (arXiv:2204.08376). The face is
blended with a slightly moved, slightly recoloured copy of itself through a soft mask. This leaves the traces that face
swaps share (a blending boundary, mismatches of colour, sharpness and landmarks) and no others.

The mask is one of four regions drawn from landmarks. Their names are those of the paper's code; the shapes are this
project's own. Lengths that are not landmarks themselves are shares of the face's width, so that a region scales with
the face.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.modalities.faces.augment import DrawnTransform, apply_drawn, draw_color_shift
from sharpstudent.modalities.faces.landmarks import (
    BROWS,
    FOREHEAD,
    JAW,
    LEFT_BROW,
    LEFT_EYE,
    NOSE,
    NOSE_BASE,
    NOSE_BRIDGE,
    OUTER_MOUTH,
    RIGHT_BROW,
    RIGHT_EYE,
    check_landmarks,
    fill_hulls,
    raise_brows,
)
from sharpstudent.modalities.faces.picture_parts import (
    PicturePart,
    Window,
    find_warp_input,
    get_whole,
    take_whole,
    warp_part,
)

HULL_KINDS = ("full", "extended", "components", "parts")

# Without forehead points a brow is raised by this share of its height above the chin; with them it goes this share of
# the way to the forehead.
BROW_RAISE = 0.15
BROW_TO_FOREHEAD = 0.5
# Radius / face width. Softening shrinks a region by up to 12 px of 192-256, which must not remove the mouth.
COMPONENT_DILATION = 0.1


def draw_hull(
    kind: str,
    landmarks: NDArray[np.float32],
    height: int,
    width: int,
    *,
    dilation: float = COMPONENT_DILATION,
) -> NDArray[np.uint8]:
    """Draw one region of the face.

    Args:
        kind: One of HULL_KINDS. `full` is the convex hull of all points; `extended` the hull of points 0-67 with the
            brows raised; `components` widened patches of eyes with brows, nose and mouth; `parts` a union of part-wise
            convex hulls, which follows the face's outline more closely than one hull.
        landmarks: (68 or 81, 2) [px], which may lie outside the image.
        height: The height of the image [px].
        width: The width of the image [px].
        dilation: How far `components` are widened, as a share of the face's width.

    Returns:
        uint8 (height, width), 0 or 255; all zero where no part of the region is inside the image or a landmark is not
        finite.

    Raises:
        ValueError: For an unknown kind.
    """
    if kind not in HULL_KINDS:
        raise ValueError(f"kind: expected one of {HULL_KINDS}, got {kind!r}")
    if not np.isfinite(landmarks).all():
        return np.zeros((height, width), np.uint8)
    limit = 4 * max(height, width)
    landmarks = np.clip(landmarks, -limit, limit)
    if kind == "full":
        return fill_hulls([landmarks], height, width)
    if kind == "extended":
        return fill_hulls([np.concatenate([landmarks[:68], compute_raised_brows(landmarks)])], height, width)
    if kind == "components":
        radius = _compute_radius(landmarks, height, width, dilation)
        return fill_hulls(_list_components(landmarks), height, width, radius=radius)
    return fill_hulls(_list_parts(landmarks), height, width)


def compute_raised_brows(landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Move the ten brow points up the face: float32 (10, 2)."""
    if len(landmarks) > 68:
        return raise_brows(landmarks, BROW_TO_FOREHEAD).astype(np.float32)
    return landmarks[BROWS] + BROW_RAISE * (landmarks[BROWS] - landmarks[8])


def _list_components(landmarks: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    groups = (np.r_[LEFT_BROW, LEFT_EYE], np.r_[RIGHT_BROW, RIGHT_EYE], NOSE, OUTER_MOUTH)
    return [landmarks[group] for group in groups]


def _list_parts(landmarks: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """List the point sets whose hulls make `parts`.

    These are cheeks with the nose, chin with the mouth, brows with the nose and, where it is known, with the forehead.
    """
    groups = [
        np.r_[JAW[:7], LEFT_BROW, NOSE_BRIDGE, NOSE_BASE],
        np.r_[JAW[10:], RIGHT_BROW, NOSE_BRIDGE, NOSE_BASE],
        np.r_[JAW[3:14], OUTER_MOUTH, NOSE_BASE],
        np.r_[BROWS, NOSE_BRIDGE],
    ]
    if len(landmarks) > 68:
        groups.append(np.r_[BROWS, FOREHEAD])
    return [landmarks[group] for group in groups]


def _compute_radius(landmarks: NDArray[np.float32], height: int, width: int, dilation: float) -> int:
    """Compute how far the components are widened [px], at most an eighth of the image's longer side."""
    face_width = float(np.linalg.norm(landmarks[16] - landmarks[0]))
    return int(np.clip(round(dilation * face_width), 1, max(1, max(height, width) // 8)))


DROP_FOREHEAD_P = 0.25
SHIFT_SOURCE_P = 0.5  # otherwise the target is recoloured
TRANSLATE_X, TRANSLATE_Y = 0.03, 0.015  # shares of the image's sides
SCALE_RANGE = (0.95, 1 / 0.95)
ELASTIC_ALPHA, ELASTIC_SIGMA = 50.0, 7.0  # px
# The displacement field is smooth over ELASTIC_SIGMA, so it is drawn on a grid this much coarser.
ELASTIC_STEP = 4  # px
ELASTIC_REACH = 8  # px, more than a displacement ever is (its standard deviation is 1.2 px)
SOFTEN_SIDES = (192, 256)  # px
BLUR_KERNELS = np.arange(5, 26, 2)  # px, odd
SECOND_BLUR_SIGMA = (5.0, 45.0)  # px
BLEND_RATIOS = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)
# Where no part of the region is inside the image, an ellipse in the middle of the image replaces it. Its semi-axes are
# these shares of half the image's sides.
FALLBACK_AXES = (0.5, 0.7)


@dataclass(frozen=True)
class BlendForm:
    """What two forms of the self-blend differ in.

    Attributes:
        dilation: How far the region `components` is widened, as a share of the face's width.
        scales_apart: Whether the factors of both axes are drawn apart; else one factor scales both.
    """

    dilation: float = COMPONENT_DILATION
    scales_apart: bool = False


OWN_FORM = BlendForm()
# The distributions of the published generator, whose softened components cover .133 of the loose crop, those of
# OWN_FORM .06 to .07. With this dilation they cover .12 to .14 (60 photos of a studio, 60 in the wild).
PUBLISHED_FORM = BlendForm(dilation=0.18, scales_apart=True)


@dataclass(frozen=True)
class DrawnBlend:
    """A self-blend of which everything is drawn and nothing but the mask computed.

    Attributes:
        recolouring: What changes the colour and sharpness of one side.
        recolours_source: Whether that side is the source; otherwise it is the target.
        matrix: Moves and scales the source, float64 (2, 3) [px].
        mask: The share of the source in each pixel, 0..1, float32 (H, W).
        box: The smallest window with all pixels of the mask above 0.
    """

    recolouring: tuple[DrawnTransform, ...]
    recolours_source: bool
    matrix: NDArray[np.float64]
    mask: NDArray[np.float32]
    box: Window

    def render(self, image: NDArray[np.uint8], window: Window) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Compute a part of the target, which is the real face, and of the fake.

        Args:
            image: The picture that is blended with itself, uint8 (H, W, 3) RGB, which may be a mirrored view.
            window: The part that is wanted.

        Returns:
            Both, uint8 (h, w, 3). Where the mask is 0 they are equal.
        """
        target = apply_drawn(take_whole(image), () if self.recolours_source else self.recolouring, window)
        blended = self.box.intersect(window)
        fake = target.copy()
        if not blended.is_empty:
            inside = blended.move_into(window)
            source = self._render_source(image, blended)
            inside.cut(fake)[...] = blend(source, inside.cut(target), blended.cut(self.mask))
        return target, fake

    def _render_source(self, image: NDArray[np.uint8], window: Window) -> NDArray[np.uint8]:
        """Compute a part of the moved source."""
        needed = find_warp_input(self.matrix, window, get_whole(image))
        recolouring = self.recolouring if self.recolours_source else ()
        source = apply_drawn(take_whole(image), recolouring, needed)
        return warp_part(PicturePart(source, needed, get_whole(image)), self.matrix, window)


def draw_blend(
    height: int, width: int, landmarks: NDArray[np.generic], rng: np.random.Generator, form: BlendForm = OWN_FORM
) -> DrawnBlend:
    """Draw a self-blend of a picture with these landmarks, whatever its pixels are.

    Args:
        height: The height of the picture [px].
        width: Its width [px].
        landmarks: (68 or 81, 2) [px].
        rng: Draws everything that is random.
        form: The distributions.

    Returns:
        The blend.

    Raises:
        ValueError: For another shape of landmarks.
    """
    points = check_landmarks(landmarks)
    if rng.random() < DROP_FOREHEAD_P:
        points = points[:68]
    kind = HULL_KINDS[rng.integers(len(HULL_KINDS))]
    recolours_source = bool(rng.random() < SHIFT_SOURCE_P)
    recolouring = draw_color_shift(height, width, rng)
    matrix = _draw_affine(rng, height, width, form)
    # Moving the points moves the region as warping the drawn mask would, without resampling it.
    moved = (points * matrix.diagonal() + matrix[:, 2]).astype(np.float32)
    mask = draw_hull(kind, moved, height, width, dilation=form.dilation)
    if not mask.any():
        mask = _draw_fallback(height, width)
    soft = soften(deform_elastically(mask, rng), rng)
    soft *= np.float32(rng.choice(BLEND_RATIOS))
    left, top, box_width, box_height = cv2.boundingRect((soft > 0).view(np.uint8))
    return DrawnBlend(
        recolouring, recolours_source, matrix, soft, Window(left, top, left + box_width, top + box_height)
    )


def self_blend(
    image: NDArray[np.uint8],
    landmarks: NDArray[np.generic],
    rng: np.random.Generator,
    form: BlendForm = OWN_FORM,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]]:
    """Make a real and a fake of one face.

    Where the mask is 0, the two are equal bit for bit: only the blend tells them apart, never the recolouring of a
    whole picture.

    Args:
        image: uint8 (H, W, 3) RGB.
        landmarks: (68 or 81, 2) [px].
        rng: Draws everything that is random.
        form: The distributions.

    Returns:
        The target, which is the real face (the image itself or, half of the time, its recoloured copy), and the fake,
        both uint8 (H, W, 3); and the share of the source in each pixel, 0..1, float32 (H, W).

    Raises:
        ValueError: For another shape of landmarks.
    """
    height, width = image.shape[:2]
    drawn = draw_blend(height, width, landmarks, rng, form)
    return *drawn.render(image, get_whole(image)), drawn.mask


def blend(source: NDArray[np.uint8], target: NDArray[np.uint8], mask: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Compute mask * source + (1 - mask) * target, rounded to uint8.

    Args:
        source: uint8 (H, W, 3).
        target: uint8 (H, W, 3).
        mask: float32 (H, W) in 0..1.

    Returns:
        uint8 (H, W, 3).
    """
    return np.asarray(cv2.blendLinear(source, target, mask, 1 - mask), np.uint8)


def deform_elastically(mask: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Shift every point of a mask by smooth noise (Simard et al., ICDAR 2003).

    The displacement field is uniform noise in -1..1, smoothed with a Gaussian of ELASTIC_SIGMA and multiplied by
    ELASTIC_ALPHA [px]. It is drawn on a grid that is s times coarser: there the noise of a cell stands for s^2 pixels,
    so that its smoothed deviation is s times larger.

    Args:
        mask: uint8 (H, W), 0 or 255.
        rng: Draws the noise.

    Returns:
        uint8 (H, W).
    """
    height, width = mask.shape
    left, top, box_width, box_height = cv2.boundingRect(mask)
    right, bottom = min(left + box_width + ELASTIC_REACH, width), min(top + box_height + ELASTIC_REACH, height)
    left, top = max(left - ELASTIC_REACH, 0), max(top - ELASTIC_REACH, 0)
    if right <= left or bottom <= top:
        return mask
    size = (right - left, bottom - top)
    noise = rng.random((size[1] // ELASTIC_STEP + 2, size[0] // ELASTIC_STEP + 2, 2), dtype=np.float32)
    noise *= 2
    noise -= 1
    field = cv2.resize(
        cv2.GaussianBlur(noise, (0, 0), ELASTIC_SIGMA / ELASTIC_STEP), size, interpolation=cv2.INTER_LINEAR
    )
    field *= np.float32(ELASTIC_ALPHA / ELASTIC_STEP)
    map_x, map_y = cv2.split(field)
    map_x += np.arange(left, right, dtype=np.float32)
    map_y += np.arange(top, bottom, dtype=np.float32)[:, None]
    deformed = np.zeros_like(mask)
    deformed[top:bottom, left:right] = cv2.remap(mask, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return deformed


def soften(mask: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """Shrink a mask by a blur, and blur what is left.

    Args:
        mask: uint8 (H, W), 0 or 255.
        rng: Draws sizes and blurs.

    Returns:
        float32 (H, W) in 0..1, 1 at its highest.
    """
    height, width = mask.shape
    low, high = SOFTEN_SIDES
    size = (int(rng.integers(low, high + 1)), int(rng.integers(low, high + 1)))
    first, second = (int(kernel) for kernel in rng.choice(BLUR_KERNELS, size=2))
    sigma = rng.uniform(*SECOND_BLUR_SIGMA)
    core = _keep_plateau(np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_LINEAR), np.uint8), first)
    soft = cv2.GaussianBlur(core.astype(np.float32), (second, second), sigma)
    highest = float(soft.max())
    if highest > 0:
        soft *= 1 / highest
    back = np.asarray(cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    return np.clip(back, 0, 1, out=back)


def _keep_plateau(mask: NDArray[np.uint8], kernel: int) -> NDArray[np.uint8]:
    """Find where a Gaussian blur of the mask, normalised by its maximum, is 1: uint8, 0 or 1.

    Where a whole kernel fits into the region the blur is 1 exactly there, which is an erosion by the kernel's square
    (in floating point the blur would leave holes). A region too thin for that keeps the blur's highest points.
    """
    plateau = cv2.erode(mask, np.ones((kernel, kernel), np.uint8), borderType=cv2.BORDER_REFLECT_101) == 255
    if not plateau.any() and mask.any():
        blurred = cv2.GaussianBlur(mask.astype(np.float32), (kernel, kernel), 0)
        plateau = blurred >= blurred.max()
    return plateau.view(np.uint8)


def _draw_affine(rng: np.random.Generator, height: int, width: int, form: BlendForm = OWN_FORM) -> NDArray[np.float64]:
    """Draw a random translation and a scaling about the image's centre, (2, 3)."""
    shift_x = rng.uniform(-TRANSLATE_X, TRANSLATE_X) * width
    shift_y = rng.uniform(-TRANSLATE_Y, TRANSLATE_Y) * height
    scale_x = scale_y = rng.uniform(*SCALE_RANGE)
    if form.scales_apart:
        scale_y = rng.uniform(*SCALE_RANGE)
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    return np.array(
        [[scale_x, 0, shift_x + centre_x * (1 - scale_x)], [0, scale_y, shift_y + centre_y * (1 - scale_y)]], np.float64
    )


def _draw_fallback(height: int, width: int) -> NDArray[np.uint8]:
    mask = np.zeros((height, width), np.uint8)
    axes = (max(1, round(FALLBACK_AXES[0] * width / 2)), max(1, round(FALLBACK_AXES[1] * height / 2)))
    cv2.ellipse(mask, (width // 2, height // 2), axes, 0, 0, 360, 255, thickness=-1)
    return mask
