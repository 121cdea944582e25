"""Moving stick figures as SVG that plays by itself: no script, no picture file.

Each bone is a path whose two ends are moved by SMIL animations; a page that forbids scripts plays them. Legend: T
frames, V joints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpstudent.tasks.skeleton.graph import Skeleton

SIZE, EDGE = 150.0, 10.0  # side of the picture and its margin [px]
MOST_FRAMES = 24  # that an animation has; more are passed over
LEFT, RIGHT, MIDDLE = "var(--s0)", "var(--s1)", "currentColor"


def draw_animation(xyz: NDArray[Any], skeleton: Skeleton, *, seconds: float, title: str) -> str:
    """Draw a moving body from the front: x to the right, y up.

    Args:
        xyz: The positions (T, V, 3) [m].
        skeleton: The layout of the joints.
        seconds: How long one turn of the animation takes.
        title: What a reader who cannot see it is told; escaped by the caller's template.

    Returns:
        An SVG element. Bones of the left side and of the right have colours of their own.
    """
    chosen = np.linspace(0, len(xyz) - 1, min(len(xyz), MOST_FRAMES)).round().astype(np.int64)
    flat = _fit(xyz[chosen, :, :2])
    sides = {left: LEFT for left, _ in skeleton.left_right} | {right: RIGHT for _, right in skeleton.left_right}
    lines = [
        _draw_bone(flat[:, joint], flat[:, parent], sides.get(joint, MIDDLE), seconds)
        for joint, parent in enumerate(skeleton.parents)
        if joint != parent
    ]
    box = f"0 0 {SIZE:g} {SIZE:g}"
    return f'<svg class="body" viewBox="{box}" role="img" aria-label="{_escape(title)}">{"".join(lines)}</svg>'


def _fit(flat: NDArray[Any]) -> NDArray[np.float64]:
    """Scale positions (T, V, 2) into the picture, with the feet down and the middle of the movement in the middle."""
    low, high = flat.min(axis=(0, 1)), flat.max(axis=(0, 1))
    scale = (SIZE - 2.0 * EDGE) / max(float((high - low).max()), 1e-9)
    centred = (flat - (low + high) / 2.0) * scale
    return centred * np.array([1.0, -1.0]) + SIZE / 2.0


def _draw_bone(one: NDArray[np.float64], other: NDArray[np.float64], colour: str, seconds: float) -> str:
    places = {"x1": one[:, 0], "y1": one[:, 1], "x2": other[:, 0], "y2": other[:, 1]}
    first = " ".join(f'{name}="{values[0]:.1f}"' for name, values in places.items())
    moves = "".join(
        f'<animate attributeName="{name}" dur="{seconds:.2f}s" repeatCount="indefinite" values="{_list(values)}"/>'
        for name, values in places.items()
        if np.ptp(values) >= 0.05
    )
    return f'<line {first} stroke="{colour}" stroke-width="3" stroke-linecap="round">{moves}</line>'


def _list(values: Sequence[float] | NDArray[np.float64]) -> str:
    return ";".join(f"{value:.1f}" for value in values)


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
