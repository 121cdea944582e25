"""What is done to positions before a model sees them: augmentation, resampling, and the three streams.

Augmentation works on positions alone, so that velocity and bone, which are computed afterwards, always fit them: a
mirrored body has its left joints where the right ones were, and a reversed movement has negated velocities. Legend: n
frames of a sequence, T of a sample, V joints; y is up.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpstudent.tasks.skeleton.graph import Skeleton
from sharpstudent.tasks.skeleton.section import SkeletonSection

Positions = NDArray[np.float64]


def resample(xyz: NDArray[Any], start: float, end: float, frames: int) -> Positions:
    """Interpolate a sequence linearly at evenly spaced times.

    Args:
        xyz: The sequence (n, V, 3).
        start: The first time, in frames.
        end: The last time, in frames, at most n - 1.
        frames: T.

    Returns:
        The positions (T, V, 3).
    """
    times = np.linspace(start, end, frames)
    before = np.minimum(times.astype(np.int64), len(xyz) - 2)
    share = (times - before)[:, None, None]
    return (1.0 - share) * xyz[before] + share * xyz[before + 1]


def rotate(xyz: Positions, degrees: float) -> Positions:
    """Turn positions (..., 3) about the vertical axis y."""
    angle = np.deg2rad(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    return xyz @ np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]]).T


def mirror(xyz: Positions, skeleton: Skeleton) -> Positions:
    """Mirror positions (..., V, 3) at the plane x = 0; left joints become right ones."""
    return xyz[..., skeleton.mirror, :] * np.array([-1.0, 1.0, 1.0])


def reverse(xyz: Positions) -> Positions:
    """Let a movement (..., T, V, 3) run backwards; its velocities change their sign."""
    return xyz[..., ::-1, :, :]


def cut(bodies: NDArray[Any], section: SkeletonSection, rng: np.random.Generator | None) -> Positions:
    """Resample bodies (M, n, V, 3) to (M, T, V, 3); in training, part of both ends is cut off.

    Args:
        bodies: The positions [m].
        section: The config keys.
        rng: Draws what is cut off; None for the whole sequence.

    Returns:
        The positions.
    """
    first, last = 0.0, bodies.shape[1] - 1.0
    if rng is not None:
        length = rng.uniform(0.0, section.crop) * last
        first = rng.uniform(0.0, length)
        last -= length - first
    return np.stack([resample(body, first, last, section.frames) for body in bodies])


def augment(bodies: Positions, skeleton: Skeleton, section: SkeletonSection, rng: np.random.Generator) -> Positions:
    """Turn, scale, mirror and reverse bodies together, and add noise to each joint.

    Args:
        bodies: The positions (M, T, V, 3) [m].
        skeleton: The layout of the joints.
        section: The config keys, with the limits and shares.
        rng: Draws all of it.

    Returns:
        The positions; a body that is 0 in a frame stays so.
    """
    is_there: Any = bodies.any(axis=(2, 3), keepdims=True)
    turned = rotate(bodies, rng.uniform(-section.rotation, section.rotation))
    found = turned * rng.uniform(1.0 - section.scale, 1.0 + section.scale)
    found = found + rng.normal(0.0, section.noise, found.shape)
    if section.mirror > 0.0 and rng.uniform() < section.mirror:
        found = mirror(found, skeleton)
    if section.reverse > 0.0 and rng.uniform() < section.reverse:
        found, is_there = reverse(found), is_there[:, ::-1]
    return found * is_there


def build_streams(bodies: Positions, skeleton: Skeleton) -> dict[str, NDArray[np.float32]]:
    """Build the inputs of the models from one sequence.

    Args:
        bodies: The positions (M, T, V, 3) of one or two bodies; a body that is absent in a frame is 0 there.
        skeleton: The layout of the joints.

    Returns:
        `joint`, relative to the root of the first body in the first frame; `velocity`, the next frame minus this one, 0
        in the last; `bone`, a joint minus its parent. Each float32 (1, 3, T, V); of a second body `second_joint` and so
        on.
    """
    is_there: Any = bodies.any(axis=(2, 3), keepdims=True)
    joint = (bodies - bodies[0, 0, skeleton.root]) * is_there
    velocity = np.zeros_like(joint)
    velocity[:, :-1] = (joint[:, 1:] - joint[:, :-1]) * (is_there[:, 1:] & is_there[:, :-1])
    bone = joint - joint[:, :, list(skeleton.parents)]
    streams = {"joint": joint, "velocity": velocity, "bone": bone}
    return {
        f"{prefix}{name}": one[body].transpose(2, 0, 1)[None].astype(np.float32)
        for body, prefix in enumerate(("", "second_")[: len(bodies)])
        for name, one in streams.items()
    }
