"""Generated skeletons that move in one of four ways, as an .npz of one's own data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLASSES = ("up", "down", "left", "right")
WAYS = np.array([[0, 1, 0], [0, -1, 0], [-1, 0, 0], [1, 0, 0]], np.float64)


def make_motion(subjects: int = 6, repetitions: int = 2) -> dict[str, NDArray[Any]]:
    """Arrays in metres: each person does each movement with the joints of one hand."""
    rng, parts, labels, people = np.random.default_rng(0), [], [], []
    body = rng.uniform(-0.8, 0.8, (17, 3))
    for subject in range(1, subjects + 1):
        for label in range(len(CLASSES)):
            for _ in range(repetitions):
                frames = int(rng.integers(12, 20))
                xyz = np.repeat(body[None] * (1.0 + 0.02 * subject), frames, 0)
                xyz[:, 9:11] += np.linspace(0.0, 0.5, frames)[:, None, None] * WAYS[label]
                parts.append(xyz + rng.normal(0.0, 0.01, xyz.shape))
                labels.append(label)
                people.append(str(subject))
    offsets = np.cumsum([0, *map(len, parts)])
    return {
        "xyz": np.concatenate(parts).astype(np.float32),
        "offsets": offsets,
        "label": np.array(labels),
        "subject": np.array(people),
    }


def write_motion(path: Path, **changes: NDArray[Any]) -> Path:
    np.savez(path, **{**make_motion(), **changes})
    return path
