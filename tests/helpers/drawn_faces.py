"""Draws synthetic faces with exact landmarks, for tests and pictures where no photographs are at hand."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

SKIN_TONES = ((255, 224, 196), (238, 195, 160), (216, 165, 124), (168, 116, 82), (112, 74, 52), (78, 52, 40))
HAIR_TONES = ((28, 22, 20), (70, 46, 30), (120, 78, 44), (198, 160, 96), (150, 64, 34), (150, 148, 146))
IRIS_TONES = ((74, 48, 30), (92, 112, 60), (70, 110, 150), (50, 34, 24))
OVERSAMPLING = 2  # drawn this much larger, then averaged down: smooth edges
SHIFT_BITS = 4  # drawing calls take 1/16 px


@dataclass(frozen=True)
class _Colors:
    skin: NDArray[np.float32]
    hair: NDArray[np.float32]
    iris: NDArray[np.float32]
    lips: NDArray[np.float32]
    shirt: NDArray[np.float32]


def draw_face(seed: int, size: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Draw one face.

    seed: the person and the pose; size: side of the square image [px]. Returns image uint8 (size, size, 3) RGB and
    landmarks float32 (81, 2) in dlib's order; the same seed gives the same face at every size.
    """
    rng = np.random.default_rng(seed)
    shape = _draw_unit_landmarks(rng)
    colors = _draw_colors(rng)
    pose = _draw_pose(rng)
    backdrop = (rng.uniform(70, 215, (2, 2, 1)) + rng.uniform(-22, 22, (2, 2, 3))).astype(np.float32)
    hair_length, light = rng.uniform(0.1, 0.95), rng.uniform(-0.2, 0.2, 2)
    grain = rng.integers(2**32)

    side = size * OVERSAMPLING
    to_pixels = pose * side
    points = shape @ to_pixels[:, :2].T + to_pixels[:, 2]
    canvas = cv2.resize(backdrop, (side, side), interpolation=cv2.INTER_LINEAR)
    _draw_head(canvas, to_pixels, points, colors, hair_length)
    _draw_features(canvas, points, colors)
    _shade(canvas, to_pixels, light)
    image = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    image += _make_texture(np.random.default_rng(grain), size)
    landmarks = (points + 0.5) / OVERSAMPLING - 0.5
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), landmarks.astype(np.float32)


def _draw_unit_landmarks(rng: np.random.Generator) -> NDArray[np.float64]:
    """81 points of an upright face about 2 units wide: x to the right, y down, origin on the nose."""
    points = np.zeros((81, 2))
    chin, jaw_width = rng.uniform(1.18, 1.36), rng.uniform(0.82, 0.95)
    angle = np.linspace(np.pi, 0, 17)
    lower = np.sin(angle)
    squareness = rng.uniform(0.75, 1.0)
    points[0:17] = np.c_[
        np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** squareness * jaw_width, -0.2 + (chin + 0.2) * lower
    ]
    brow_height, brow_bend = rng.uniform(-0.52, -0.44), rng.uniform(0.04, 0.12)
    brow = np.linspace(0.68, 0.16, 5)
    arch = brow_height - brow_bend * np.sin(np.linspace(0.25, 1.0, 5) * np.pi * 0.8)
    points[17:22], points[22:27] = np.c_[-brow, arch], np.c_[brow, arch][::-1]
    nose_end, nose_width = rng.uniform(0.28, 0.38), rng.uniform(0.15, 0.22)
    points[27:31] = np.c_[np.zeros(4), np.linspace(-0.2, nose_end - 0.08, 4)]
    base = np.linspace(-1, 1, 5)
    points[31:36] = np.c_[base * nose_width, nose_end + 0.05 * (1 - base**2)]
    eye_x, eye_half, lid = rng.uniform(0.37, 0.43), rng.uniform(0.14, 0.18), rng.uniform(0.05, 0.085)
    eye = np.array([[-1, 0.1], [-0.4, -1], [0.4, -1], [1, 0.1], [0.4, 0.9], [-0.4, 0.9]]) * (eye_half, lid)
    points[36:42] = eye + np.array([-eye_x, -0.22])
    points[42:48] = (eye * (-1, 1))[[3, 2, 1, 0, 5, 4]] + np.array([eye_x, -0.22])
    points[48:68] = _draw_unit_mouth(rng) + np.array([0, nose_end + 0.33])
    top, bulge = rng.uniform(-1.0, -0.86), np.linspace(np.pi, 0, 15)[1:-1]
    forehead = np.c_[np.cos(bulge) * jaw_width, -0.2 + (top + 0.2) * np.sin(bulge) ** 0.8]
    points[[77, 75, 76, 68, 69, 70, 71, 80, 72, 73, 79, 74, 78]] = forehead
    return points


def _draw_unit_mouth(rng: np.random.Generator) -> NDArray[np.float64]:
    half, lip, smile, gap = (
        rng.uniform(0.27, 0.36),
        rng.uniform(0.07, 0.11),
        rng.uniform(-0.01, 0.09),
        rng.uniform(0, 0.06),
    )
    across = np.linspace(-1, 1, 7)
    bend = -smile * across**2
    upper = np.c_[across * half, bend - lip * (1 - across**2) * np.array([1, 1, 1.05, 0.85, 1.05, 1, 1])]
    lower = np.c_[across * half, bend + gap + 1.25 * lip * (1 - across**2)][::-1][1:-1]
    inside = np.linspace(-1, 1, 5)
    inner_bend = -smile * inside**2
    inner_upper = np.c_[inside * half * 0.82, inner_bend - 0.01 * (1 - inside**2)]
    inner_lower = np.c_[inside * half * 0.82, inner_bend + gap * (1 - inside**2) + 0.005][::-1][1:-1]
    return np.concatenate([upper, lower, inner_upper, inner_lower])


def _draw_colors(rng: np.random.Generator) -> _Colors:
    def pick(tones: tuple[tuple[int, int, int], ...], spread: float) -> NDArray[np.float32]:
        tone = np.array(tones[rng.integers(len(tones))], np.float32)
        return np.clip(tone + rng.normal(0, spread, 3), 5, 250).astype(np.float32)

    skin = pick(SKIN_TONES, 6)
    lips = (skin * (0.86, 0.6, 0.6)).astype(np.float32)
    hair = pick(HAIR_TONES, 6)
    if np.abs(hair - skin).max() < 45:
        hair *= 0.35
    return _Colors(
        skin, hair, pick(IRIS_TONES, 6), lips, (rng.uniform(30, 220) + rng.uniform(-30, 30, 3)).astype(np.float32)
    )


def _draw_pose(rng: np.random.Generator) -> NDArray[np.float64]:
    """From face units to shares of the image's side, (2, 3): roll, scale, a little turn, position."""
    roll, scale, turn = rng.uniform(-0.12, 0.12), rng.uniform(0.235, 0.275), rng.uniform(0.93, 1.0)
    cos, sin = np.cos(roll) * scale, np.sin(roll) * scale
    return np.array([[cos * turn, -sin, rng.uniform(0.47, 0.53)], [sin * turn, cos, rng.uniform(0.46, 0.5)]])


def _fill(canvas: NDArray[np.float32], outline: NDArray[np.floating], color: NDArray[np.floating]) -> None:
    fixed = np.rint(outline * (1 << SHIFT_BITS)).astype(np.int32)
    cv2.fillPoly(canvas, [fixed], [float(value) for value in color], lineType=cv2.LINE_8, shift=SHIFT_BITS)


def _make_ellipse(to_pixels: NDArray[np.float64], centre: tuple[float, float], radii: tuple[float, float]) -> NDArray:
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    unit = np.c_[centre[0] + radii[0] * np.cos(angle), centre[1] + radii[1] * np.sin(angle)]
    return unit @ to_pixels[:, :2].T + to_pixels[:, 2]


def _draw_head(
    canvas: NDArray[np.float32],
    to_pixels: NDArray[np.float64],
    points: NDArray[np.float64],
    colors: _Colors,
    hair_length: float,
) -> None:
    """Back of the hair, shoulders, neck, ears, face, then the hair above the forehead."""
    _fill(canvas, _make_ellipse(to_pixels, (0, -0.1 + hair_length / 2), (1.12, 1.12 + hair_length / 2)), colors.hair)
    _fill(canvas, _make_ellipse(to_pixels, (0, 2.6), (1.9, 0.95)), colors.shirt)
    _fill(canvas, _make_ellipse(to_pixels, (0, 1.3), (0.5, 0.62)), colors.skin * 0.8)
    for x in (-0.93, 0.93):
        _fill(canvas, _make_ellipse(to_pixels, (x, 0.0), (0.12, 0.26)), colors.skin * 0.88)
    forehead = points[[78, 74, 79, 73, 72, 80, 71, 70, 69, 68, 76, 75, 77]]
    _fill(canvas, np.concatenate([points[:17], forehead]), colors.skin)
    top = _make_ellipse(to_pixels, (0, -0.25), (1.08, 1.04))
    above = top[(np.linspace(0, 2 * np.pi, 72, endpoint=False) >= np.pi)]
    _fill(canvas, np.concatenate([above, forehead]), colors.hair)


def _draw_features(canvas: NDArray[np.float32], points: NDArray[np.float64], colors: _Colors) -> None:
    """Brows, eyes, nose and mouth."""
    unit = np.linalg.norm(points[16] - points[0]) / 2
    blush = colors.skin * (0.98, 0.86, 0.84)
    for brow in (points[17:22], points[22:27]):
        down = np.array([0, 0.07 * unit])
        _fill(
            canvas,
            np.concatenate([brow, (brow + down * np.array([[0.3], [1], [1.1], [1], [0.3]]))[::-1]]),
            colors.hair * 0.9,
        )
    for eye in (points[36:42], points[42:48]):
        _draw_eye(canvas, eye, unit, colors)
    _fill(canvas, np.concatenate([points[27:28], points[31:36][::-1], points[30:31]]), colors.skin * 0.92)
    _fill(canvas, points[31:36], blush * 0.9)
    for nostril in (points[32], points[34]):
        spot = tuple(int(value) for value in np.rint(nostril))
        cv2.circle(canvas, spot, max(1, round(0.035 * unit)), [float(value) for value in colors.skin * 0.45], -1)
    _fill(canvas, points[48:60], colors.lips)
    _fill(canvas, points[60:68], colors.lips * 0.45 + 60)


def _draw_eye(canvas: NDArray[np.float32], eye: NDArray[np.float64], unit: float, colors: _Colors) -> None:
    """Socket, then white, iris and pupil inside the lids. unit: half of the face's width [px]."""
    centre = eye.mean(axis=0)
    _fill(canvas, centre + (eye - centre) * (1.2, 1.45), colors.skin * 0.74)
    white = np.zeros(canvas.shape[:2], np.uint8)
    cv2.fillPoly(white, [np.rint(eye * (1 << SHIFT_BITS)).astype(np.int32)], 255, shift=SHIFT_BITS)
    ball = np.full_like(canvas, 236)
    spot = tuple(int(value) for value in np.rint(centre))
    for radius, color in ((0.085, colors.iris), (0.042, np.full(3, 12.0))):
        cv2.circle(ball, spot, max(1, round(radius * unit)), [float(value) for value in color], -1)
    glint = (spot[0] - round(0.03 * unit), spot[1] - round(0.03 * unit))
    cv2.circle(ball, glint, max(1, round(0.015 * unit)), (255, 255, 255), -1)
    canvas[white > 0] = ball[white > 0]


def _shade(canvas: NDArray[np.float32], to_pixels: NDArray[np.float64], light: NDArray[np.float64]) -> None:
    """Darken towards the head's rim, as on a ball lit from `light`, and soften the drawing's hard edges."""
    side = canvas.shape[0]
    cv2.GaussianBlur(canvas, (0, 0), side / 400, dst=canvas)
    back = cv2.invertAffineTransform(to_pixels)
    x, y = np.meshgrid(np.arange(side, dtype=np.float32), np.arange(side, dtype=np.float32))
    u, v = (back[row, 0] * x + back[row, 1] * y + back[row, 2] for row in (0, 1))
    distance = (u - light[0]) ** 2 / 1.2 + (v - 0.1 - light[1]) ** 2 / 1.9
    canvas *= (1.08 - 0.26 * np.clip(distance, 0, 1.3)).astype(np.float32)[..., None]


def _make_texture(rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    """Noise at two scales [of 255]: skin-like mottling and grain."""
    coarse = cv2.resize(rng.normal(0, 4, (max(2, size // 8),) * 2 + (1,)).astype(np.float32), (size, size))
    return coarse[..., None] + rng.normal(0, 2.5, (size, size, 3)).astype(np.float32)
