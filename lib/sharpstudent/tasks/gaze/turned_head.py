"""Draws a head that is turned to a target: rays through each pixel meet the surface of a portrait.

Axes: x to the viewer's right, y down, z towards the camera. Projection is parallel.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.tasks.gaze.portraits import SIDE, Portrait

STEPS = 24  # along each ray
HALVINGS = 4  # of the step in which a ray meets the head
EVERY = 3  # px of the cut-out between two rays
RIM = 0.06  # share of the depth of a head below which its photo shows what is beside it
CROWN = 0.8  # where hair is taken from for what a photo does not show: up, in half axes
AHEAD = np.array([0.0, 0.0, 1.0])


def turn_towards(direction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the rotation (3, 3) of a level head whose nose points along a direction (3,).

    It nods first and turns aside then. A head that faces the camera has the identity.
    """
    x, y, z = direction / np.linalg.norm(direction)
    yaw, pitch = np.arctan2(x, z), np.arcsin(np.clip(y, -1.0, 1.0))
    aside = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    down = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    return aside @ down


def draw_head(portrait: Portrait, direction: NDArray[np.float64]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Draw a head whose nose points along a direction.

    Args:
        portrait: The head.
        direction: (3,), any length.

    Returns:
        The picture, uint8 (SIDE, SIDE, 3) RGB, and how far each pixel is covered, float32 (SIDE, SIDE) in 0..1.
    """
    rotation = (turn_towards(direction) @ portrait.facing.T).astype(np.float32)
    place = (np.arange(0, SIDE, EVERY) - SIDE / 2).astype(np.float32)
    x, y = np.meshgrid(place, place)
    depth, found = _find_surface(portrait, rotation, x, y)
    full, shares = (SIDE, SIDE), found.astype(np.float32)
    x, y, summed, shares = (
        cv2.resize(one, full, interpolation=cv2.INTER_LINEAR) for one in (x, y, depth * shares, shares)
    )
    point = np.stack([x, y, summed / np.maximum(shares, 1e-3)], -1) @ rotation
    is_hair = point[..., 2] < RIM * portrait.axes[2]
    texture_x = np.where(is_hair, 0.3 * point[..., 0], point[..., 0])
    texture_y = np.where(is_hair, 0.1 * point[..., 1] - CROWN * portrait.axes[1], point[..., 1])
    maps = [one + SIDE / 2 for one in (texture_x, texture_y)]
    covered = cv2.GaussianBlur(shares, (0, 0), 1.5)
    drawn = cv2.remap(portrait.image, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return drawn.astype(np.uint8, copy=False), np.clip(2 * covered - 1, 0, 1).astype(np.float32)


def _find_surface(
    portrait: Portrait, rotation: NDArray[np.float32], x: NDArray[np.float32], y: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Find where rays towards the picture meet the head first: in steps, then halving the last one.

    Args:
        portrait: The head.
        rotation: (3, 3).
        x: Of each ray [px].
        y: Of each ray [px].

    Returns:
        The depth of each ray's first point on the head [px], and whether it meets the head at all.
    """
    reach = 1.15 * max(portrait.axes)
    steps, length = np.linspace(reach, -reach, STEPS, retstep=True)
    depth, found = np.zeros_like(x), np.zeros(x.shape, bool)
    for step in steps:
        new = _is_within(portrait, np.stack([x, y, np.full_like(x, step)], -1) @ rotation) & ~found
        depth[new], found[new] = step, True
    outside = depth - np.float32(length)  # length is negative: the step before
    for _ in range(HALVINGS):
        middle = (depth + outside) / 2
        within = _is_within(portrait, np.stack([x, y, middle], -1) @ rotation)
        depth, outside = np.where(within, middle, depth), np.where(within, outside, middle)
    return depth, found


def _is_within(portrait: Portrait, point: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether points (..., 3), in the axes of the photo, lie within the head."""
    column, row = point[..., 0] + SIDE / 2, point[..., 1] + SIDE / 2
    front = cv2.remap(
        portrait.height, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(-1e3,)
    )
    in_front = (point[..., 2] <= front) & (point[..., 2] >= 0)
    return in_front | (_is_inside(point, portrait.axes) & (point[..., 2] < 0))


def _is_inside(point: NDArray[np.float32], axes: tuple[float, float, float]) -> NDArray[np.bool_]:
    return ((point / np.array(axes, np.float32)) ** 2).sum(-1) <= 1.0
