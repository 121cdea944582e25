"""Operations of an augmentation that is a list: they act in order, on a real face and its fake alike.

Every operation draws its numbers once and applies the same change to each picture, noise included. Where two pictures
are equal they stay equal, so that no operation can tell a fake from its real face.

The pictures are loose crops, larger than what a network sees: the grid of a compression then lies at any offset in the
final crop, as it does when whole photos and frames are compressed. Lengths are shares of the side of the face's box.

Legend: pictures uint8 (H, W, 3) RGB of one shape; ranges are (lowest, highest), and uniform unless something else is
said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.modalities.faces.corruptions import (
    Picture,
    add_sensor_noise,
    blur,
    compress_jpeg,
    enlarge,
    recompress_h264,
    share_online,
    shrink,
)
from sharpstudent.modalities.faces.crop import EVALUATION_MARGIN, MARGIN_SHARE, expand_box
from sharpstudent.modalities.faces.landmarks import flip_box

Range = tuple[float, float]


@dataclass
class PairScene:
    """Pictures of one face that are changed alike.

    Attributes:
        pictures: uint8 (H, W, 3) RGB each, such as the real face and its fake.
        mask: The blended-in share of each pixel, float32 (H, W); None where nothing is blended.
        box: The detector's box, float32 (4,) [px]; None where the whole pictures are the face.
        margins: How far the final crop's left, top, right and bottom edges lie outside the box [shares of its sides].
        applied: What was drawn so far, for people to read.
    """

    pictures: list[Picture]
    mask: NDArray[np.float32] | None = None
    box: NDArray[np.float32] | None = None
    margins: NDArray[np.float64] = field(default_factory=lambda: np.full(4, MARGIN_SHARE * EVALUATION_MARGIN))
    applied: list[str] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures [px]."""
        return self.pictures[0].shape[0], self.pictures[0].shape[1]

    @property
    def side(self) -> float:
        """Side of a square with the area of the face's box, or of the picture without one; at least 1 [px]."""
        height, width = self.size
        if self.box is not None:
            width, height = (float(one) for one in self.box[2:] - self.box[:2])
        return max(1.0, math.sqrt(max(width, 0.0) * max(height, 0.0)))

    def change(self, function: Callable[[Picture], Picture]) -> None:
        """Apply one change to every picture."""
        self.pictures = [function(picture) for picture in self.pictures]

    def map_levels(self, levels: NDArray[np.floating]) -> None:
        """Replace each level by another, levels (256,) or (256, 3) by channel, rounded and clipped."""
        table = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
        table = table[None] if table.ndim == 2 else table
        self.change(lambda picture: np.asarray(cv2.LUT(picture, table), np.uint8))

    def find_final_box(self) -> NDArray[np.int64]:
        """Return the final crop in whole pixels (4,): the box with its margins, or the whole picture."""
        height, width = self.size
        if self.box is None:
            return np.array([0, 0, width, height], np.int64)
        return expand_box(self.box, self.margins, height, width)


@dataclass(frozen=True)
class Step:
    """One operation of an augmentation.

    Attributes:
        name: A name in OPERATIONS.
        p: The probability that it is applied.
        settings: Its parameters.
    """

    name: str
    p: float
    settings: Mapping[str, Any]


def apply_steps(scene: PairScene, steps: Sequence[Step], rng: np.random.Generator) -> None:
    """Apply operations in order, each with its probability.

    Each has a generator of its own: what it draws depends neither on the others nor on the pictures' size.

    Args:
        scene: What is changed in place.
        steps: The operations.
        rng: Draws everything that is random.

    Raises:
        UserError: For H.264 where the package av is absent.
    """
    for step in steps:
        is_applied, key = rng.random() < step.p, int(rng.integers(2**63))
        if is_applied:
            told = OPERATIONS[step.name](scene, np.random.default_rng(key), **step.settings)
            scene.applied += [] if told is None else [f"{step.name} {told}".strip()]


def _flip(scene: PairScene, rng: np.random.Generator) -> str:
    width = scene.size[1]
    scene.change(lambda picture: np.ascontiguousarray(picture[:, ::-1]))
    if scene.mask is not None:
        scene.mask = np.ascontiguousarray(scene.mask[:, ::-1])
    if scene.box is not None:
        scene.box = flip_box(scene.box, width)
    scene.margins = scene.margins[[2, 1, 0, 3]]
    return ""


def _crop_jitter(scene: PairScene, rng: np.random.Generator, margin: Range) -> str:
    scene.margins = rng.uniform(*margin, size=4)
    return "/".join(f"{100 * share:.0f}" for share in scene.margins) + " %"


def _rgb_shift(scene: PairScene, rng: np.random.Generator, levels: float) -> str:
    shift = rng.uniform(-levels, levels, size=3)
    scene.map_levels(np.arange(256)[:, None] + shift)
    return "/".join(f"{one:+.0f}" for one in shift)


def _hue_saturation(scene: PairScene, rng: np.random.Generator, hue: float, saturation: Range) -> str:
    """Turn colours about the grey axis, and scale their distance from it: the mean of R, G and B stays."""
    angle, factor = rng.uniform(-hue, hue), rng.uniform(*saturation)
    matrix = compute_colour_matrix(angle, factor)
    scene.change(lambda picture: np.asarray(cv2.transform(picture, matrix), np.uint8))
    return f"{angle:+.0f} deg x{factor:.2f}"


def compute_colour_matrix(angle: float, saturation: float) -> NDArray[np.float64]:
    """Compute the map of RGB that turns colours about the grey axis and scales their distance from it.

    Args:
        angle: [degrees].
        saturation: The factor of the distance; 0 makes all grey.

    Returns:
        The matrix (3, 3); its rows add up to 1.
    """
    grey = np.full((3, 3), 1 / 3)
    cross = np.array([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    turn = math.cos(math.radians(angle)) * (np.eye(3) - grey) + math.sin(math.radians(angle)) * cross
    return grey + saturation * turn


def _brightness_contrast(scene: PairScene, rng: np.random.Generator, brightness: float, contrast: float) -> str:
    added, factor = rng.uniform(-brightness, brightness), 1 + rng.uniform(-contrast, contrast)
    scene.map_levels(factor * np.arange(256) + 255 * added)
    return f"{added:+.2f} x{factor:.2f}"


def _gamma(scene: PairScene, rng: np.random.Generator, exponent: Range) -> str:
    power = _draw_log_uniform(rng, exponent)
    scene.map_levels(255 * (np.arange(256) / 255) ** power)
    return f"{power:.2f}"


def _grey(scene: PairScene, rng: np.random.Generator) -> str:
    scene.change(lambda picture: np.asarray(cv2.merge([cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)] * 3), np.uint8))
    return ""


def _blur(scene: PairScene, rng: np.random.Generator, sigma: Range) -> str | None:
    share = rng.uniform(*sigma)
    if share == 0:
        return None
    of_picture = share * scene.side / math.sqrt(math.prod(scene.size))
    scene.change(lambda picture: blur(picture, of_picture))
    return f"{share * scene.side:.1f} px"


def _motion_blur(scene: PairScene, rng: np.random.Generator, length: Range) -> str:
    pixels, angle = rng.uniform(*length) * scene.side, rng.uniform(0, math.pi)
    kernel = draw_motion(pixels, angle)
    scene.change(
        lambda picture: np.asarray(cv2.filter2D(picture, -1, kernel, borderType=cv2.BORDER_REFLECT_101), np.uint8)
    )
    return f"{pixels:.0f} px"


def draw_motion(length: float, angle: float) -> NDArray[np.float32]:
    """Draw the kernel of a straight motion: the mean over points along a line, each spread over its four pixels.

    Args:
        length: The length of the line [px].
        angle: Its angle to the x axis [rad].

    Returns:
        float32 (k, k), k odd; its sum is 1.
    """
    reach = math.ceil(length / 2) + 1
    along = np.linspace(-length / 2, length / 2, 8 * reach + 1)
    x, y = reach + along * math.cos(angle), reach + along * math.sin(angle)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    for dx in (0, 1):
        for dy in (0, 1):
            np.add.at(kernel, (top + dy, left + dx), (1 - np.abs(x - left - dx)) * (1 - np.abs(y - top - dy)))
    return (kernel / kernel.sum()).astype(np.float32)


def _noise(scene: PairScene, rng: np.random.Generator, sigma: Range) -> str:
    deviation = rng.uniform(*sigma)
    unit = rng.standard_normal((*scene.size, 3), dtype=np.float32)
    scene.change(lambda picture: add_sensor_noise(picture, deviation, unit))
    return f"{deviation:.0f} levels"


def _downscale(scene: PairScene, rng: np.random.Generator, side: Range, back: bool) -> str | None:
    """Scale down until the face's box has a drawn side; a face that is smaller already stays as it is."""
    height, width = scene.size
    share = _draw_log_uniform(rng, side) / scene.side
    if share >= 1:
        return None
    told = f"{scene.side * share:.0f} px"
    scene.change(lambda picture: shrink(picture, share))
    if back:
        scene.change(lambda picture: enlarge(picture, height, width))
        return f"{told} and back"
    small_height, small_width = scene.size
    if scene.mask is not None:
        resized = cv2.resize(scene.mask, (small_width, small_height), interpolation=cv2.INTER_AREA)
        scene.mask = np.asarray(resized, np.float32)
    if scene.box is not None:
        scene.box = scene.box * np.array([small_width / width, small_height / height] * 2, np.float32)
    return told


def _jpeg(scene: PairScene, rng: np.random.Generator, quality: tuple[int, int]) -> str:
    drawn = int(rng.integers(quality[0], quality[1], endpoint=True))
    scene.change(lambda picture: compress_jpeg(picture, drawn))
    return str(drawn)


def _h264(scene: PairScene, rng: np.random.Generator, crf: tuple[int, int]) -> str:
    drawn = int(rng.integers(crf[0], crf[1], endpoint=True))
    scene.change(lambda picture: recompress_h264(picture, drawn))
    return f"CRF {drawn}"


def _social_media(scene: PairScene, rng: np.random.Generator, passes: tuple[int, int]) -> str:
    drawn = int(rng.integers(passes[0], passes[1], endpoint=True))
    scene.change(lambda picture: share_online(picture, drawn))
    return f"x{drawn}"


def _occlusion(scene: PairScene, rng: np.random.Generator, area: Range) -> str:
    """Cover a part of the face with an ellipse or a turned rectangle of one colour."""
    height, width = scene.size
    box = np.array([0, 0, width, height]) if scene.box is None else scene.box
    share, is_round = rng.uniform(*area), rng.random() < 0.5
    longer = rng.uniform(1, 3)  # than the other side
    short = scene.side * math.sqrt(share / longer * (4 / math.pi if is_round else 1))
    centre = (float(rng.uniform(box[0], box[2])), float(rng.uniform(box[1], box[3])))
    turned = (centre, (short * longer, short), float(rng.uniform(0, 180)))
    cover = np.zeros((height, width), np.uint8)
    if is_round:
        cv2.ellipse(cover, turned, 1, thickness=-1)
    else:
        cv2.fillConvexPoly(cover, np.rint(cv2.boxPoints(turned)).astype(np.int32), 1)
    colour = rng.integers(0, 256, 3).astype(np.uint8)
    covered = cover.astype(bool)
    scene.change(lambda picture: np.where(covered[..., None], colour, picture))
    if scene.mask is not None:
        scene.mask = np.where(covered, np.float32(0), scene.mask)
    return f"{100 * share:.0f} %"


def _draw_log_uniform(rng: np.random.Generator, ends: Range) -> float:
    """Draw a number whose logarithm is uniform between the logarithms of two positive ends."""
    return math.exp(rng.uniform(math.log(ends[0]), math.log(ends[1])))


# What each operation does and its parameters are declared in tasks/deepfake/augmentation.py, under the same names. Each
# returns what it drew, for people to read, or None where it changed nothing.
OPERATIONS: Mapping[str, Callable[..., str | None]] = {
    "flip": _flip,
    "crop_jitter": _crop_jitter,
    "rgb_shift": _rgb_shift,
    "hue_saturation": _hue_saturation,
    "brightness_contrast": _brightness_contrast,
    "gamma": _gamma,
    "grey": _grey,
    "blur": _blur,
    "motion_blur": _motion_blur,
    "noise": _noise,
    "downscale": _downscale,
    "jpeg": _jpeg,
    "h264": _h264,
    "social_media": _social_media,
    "occlusion": _occlusion,
}
