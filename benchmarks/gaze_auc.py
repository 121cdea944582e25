"""How much faster than scikit-learn, picture by picture, the AUC of gaze maps is computed.

    python benchmarks/gaze_auc.py

GazeFollow's AUC ranks the pixels of the picture: the map is brought to its size, and the marked pixels are positive.
VideoAttentionTarget's ranks the 4,096 cells, where a square of 19 x 19 around the target is positive. Processor time.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import cv2
import numpy as np
from sharpstudent.tasks.gaze.map_metrics import MAP_SIDE, compute_picture_aucs, compute_square_aucs, find_squares
from sklearn.metrics import roc_auc_score

COUNT = 6  # pictures
CLIP = 300  # maps of a clip, which are ranked together
SIZE = (1024, 768)  # of a picture [px]
MARKS = 10


def make_maps(rng: np.random.Generator, count: int) -> np.ndarray:
    """Smooth maps of logits, as models give them."""
    coarse = rng.normal(size=(count, 8, 8)).astype(np.float32)
    return np.stack([cv2.resize(one, (MAP_SIDE, MAP_SIDE), interpolation=cv2.INTER_CUBIC) for one in coarse])


def rank_pixels(heatmap: np.ndarray, points: np.ndarray) -> float:
    """GazeFollow's AUC of one map by scikit-learn."""
    pixels = cv2.resize(heatmap, SIZE, interpolation=cv2.INTER_LINEAR)
    labels = np.zeros(SIZE[::-1], bool)
    columns, rows = ((points[:, axis] * SIZE[axis]).astype(int) for axis in (0, 1))
    labels[rows, columns] = True
    return float(roc_auc_score(labels.ravel(), pixels.ravel()))


def rank_cells(heatmap: np.ndarray, point: np.ndarray) -> float:
    """VideoAttentionTarget's AUC of one map by scikit-learn."""
    (left, top), (right, bottom) = (edges[0] for edges in find_squares(point[None]))
    labels = np.zeros((MAP_SIDE, MAP_SIDE), bool)
    labels[top:bottom, left:right] = True
    return float(roc_auc_score(labels.ravel(), heatmap.ravel()))


def measure(compute: Callable[[], object]) -> tuple[object, float]:
    """The result, and the least processor time of two runs [s]."""
    times: list[float] = []
    for _ in range(2):
        begun = time.process_time()
        result = compute()
        times.append(time.process_time() - begun)
    return result, min(times)


def main() -> None:
    rng = np.random.default_rng(0)
    maps, points = make_maps(rng, CLIP), rng.uniform(0.02, 0.98, (CLIP, MARKS, 2)).astype(np.float32)
    sizes = np.tile(SIZE, (COUNT, 1))
    pairs = (
        (
            "GazeFollow, 1024 x 768 px",
            COUNT,
            lambda: [rank_pixels(*one) for one in zip(maps[:COUNT], points[:COUNT], strict=True)],
            lambda: compute_picture_aucs(maps[:COUNT], points[:COUNT], sizes),
        ),
        (
            "VideoAttentionTarget, 64 x 64 cells",
            CLIP,
            lambda: [rank_cells(one, some[0]) for one, some in zip(maps, points, strict=True)],
            lambda: compute_square_aucs(maps, points[:, 0]),
        ),
    )
    for name, count, slow, fast in pairs:
        (wanted, slowly), (found, quickly) = measure(slow), measure(fast)
        worst = float(np.abs(np.array(wanted) - np.array(found)).max())
        print(
            f"{name}: {1e3 * slowly / count:.2f} ms a map by scikit-learn, {1e3 * quickly / count:.3f} ms here: "
            f"{slowly / quickly:.0f} times as fast, differing by {worst:.1e} at most"
        )


if __name__ == "__main__":
    main()
