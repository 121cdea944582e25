"""Samples of the gaze task: a picture with its heads, augmented, and the target maps.

Legend: k heads of a picture, S side of the picture [px].
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.files import explain, read_plain
from sharpstudent.core.naming import name_file
from sharpstudent.core.types import Sample
from sharpstudent.data.dataset import Samples, UnreadableSample
from sharpstudent.tasks.gaze.heads import Scene, find_box_fault
from sharpstudent.tasks.gaze.map_metrics import MAP_SIDE
from sharpstudent.tasks.gaze.section import GazeSection

MOST_POINTS = 16  # people who marked one head; GazeFollow's test has ten
MOST_OBJECTS = 16
MOST_BYTES = 256 << 20  # of a picture file


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Read a picture, uint8 (H, W, 3) RGB. Raises UnreadableSample where it is missing or damaged."""
    try:
        content = read_plain(path, most_bytes=MOST_BYTES)
    except OSError as error:
        raise UnreadableSample(str(path), explain(error)) from None
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    if image is None:
        raise UnreadableSample(str(path), "is no picture that can be decoded" if content else "is empty")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def draw_target(point: tuple[float, float], sigma: float) -> NDArray[np.float32]:
    """Draw the target map (64, 64): a bell of height 1 and deviation `sigma` cells at the cell of the point in 0..1."""
    column, row = (min(int(value * MAP_SIDE), MAP_SIDE - 1) for value in point)
    cells = np.arange(MAP_SIDE)
    along = [np.exp(-((cells - centre) ** 2) / (2 * sigma**2)) for centre in (row, column)]
    return np.outer(*along).astype(np.float32)


class GazeScenes(Samples):
    """The pictures of one split with their heads."""

    def __init__(self, scenes: Sequence[Scene], section: GazeSection, *, train: bool) -> None:
        """Keep the scenes.

        Args:
            scenes: The scenes.
            section: Sizes and augmentation.
            train: Whether samples are augmented.
        """
        self.scenes, self.section, self.train = tuple(scenes), section, train
        self.root = Path(section.data_root)
        self.seed = section.split_seed

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.scenes)

    def name(self, index: int) -> str:
        """The path of the picture below the data's folder."""
        return name_file(self.scenes[index].path, self.root)

    def group(self, index: int) -> str:
        """The picture, or the show that it is from."""
        return self.scenes[index].group

    def make(self, index: int, rng: np.random.Generator) -> Sample:
        """Read, augment and resize a picture.

        Args:
            index: The number of the picture.
            rng: Draws the augmentation.

        Raises:
            UnreadableSample: For a picture or a box that cannot be used.
        """
        scene = self.scenes[index]
        image = read_picture(scene.path)
        boxes, points = _to_shares(scene, image)
        if self.train:
            image, boxes, points = self._augment(image, boxes, points, rng)
        side = self.section.image_size
        resized = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        looks = np.array([len(marks) > 0 for marks in points], np.float32)
        means = [tuple(np.mean(marks, 0)) if len(marks) else (0.0, 0.0) for marks in points]
        maps = [draw_target(mean, self.section.sigma) * look for mean, look in zip(means, looks, strict=True)]
        count = len(boxes)
        return Sample(
            inputs={"image": resized[None], "image_index": np.zeros(count, np.int64), "box": boxes},
            targets={
                "heatmap": np.stack(maps),
                "inside": looks,
                "points": np.stack([_pad(marks, MOST_POINTS) for marks in points]),
                "objects": np.stack([_pad(np.array(scene.objects, np.float32), MOST_OBJECTS)] * count),
                "size": np.tile(np.array([image.shape[1], image.shape[0]], np.int64), (count, 1)),
            },
            weights={"heatmap": looks},
            rows={
                "id": tuple(f"{self.name(index)}, head {number}" for number in range(1, count + 1)),
                "group": tuple(head.person or scene.group for head in scene.heads),
            },
            shared={"image": "image_index"},
        )

    def _augment(
        self,
        image: NDArray[np.uint8],
        boxes: NDArray[np.float32],
        points: list[NDArray[np.float32]],
        rng: np.random.Generator,
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], list[NDArray[np.float32]]]:
        """Crop, mirror and move the boxes; every number is drawn in any case, so that keys do not shift the others."""
        draws = rng.random(2)
        corners, moves, chosen = rng.random(4), rng.normal(size=(len(boxes), 4)), rng.random(len(boxes))
        if draws[0] < self.section.crop:
            image, boxes, points = _crop(image, boxes, points, corners)
        if draws[1] < self.section.flip:
            image = np.ascontiguousarray(image[:, ::-1])
            boxes = boxes[:, [2, 1, 0, 3]]
            boxes[:, ::2] = 1.0 - boxes[:, ::2]
            points = [np.stack([1.0 - marks[:, 0], marks[:, 1]], 1) for marks in points]
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        moved = (boxes + 0.05 * moves * sides).clip(0.0, 1.0).astype(np.float32)
        usable = (chosen < self.section.jitter) & (moved[:, 2:] > moved[:, :2]).all(1)
        return image, np.where(usable[:, None], moved, boxes), points


def _to_shares(scene: Scene, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
    """Bring boxes (k, 4), clipped to the picture, and the points of each head (n, 2) into 0..1."""
    height, width = image.shape[:2]
    for number, head in enumerate(scene.heads, 1):
        fault = find_box_fault(head.box, (width, height))
        if fault is not None:
            raise UnreadableSample(str(scene.path), f"head {number}: {fault}")
    # Labels state another size only where the pictures were shrunk after they were labelled.
    wide, high = scene.size or (width, height)
    boxes = np.array([head.box for head in scene.heads], np.float64) / [wide, high, wide, high]
    scale = [wide, high] if scene.in_pixels else [1, 1]
    points = [np.array(head.points, np.float64).reshape(-1, 2) / scale for head in scene.heads]
    return boxes.clip(0.0, 1.0).astype(np.float32), [marks.clip(0.0, 1.0).astype(np.float32) for marks in points]


def _crop(
    image: NDArray[np.uint8],
    boxes: NDArray[np.float32],
    points: list[NDArray[np.float32]],
    corners: NDArray[np.float64],
) -> tuple[NDArray[np.uint8], NDArray[np.float32], list[NDArray[np.float32]]]:
    """Cut out a part that keeps all heads and their targets; corners: how much of each free edge goes, 0..1."""
    height, width = image.shape[:2]
    kept = np.concatenate([boxes[:, :2], boxes[:, 2:], *points])
    low, high = kept.min(0) * corners[:2], 1 - (1 - kept.max(0)) * corners[2:]
    x0, y0 = (int(low[axis] * size) for axis, size in enumerate((width, height)))
    x1, y1 = (int(np.ceil(high[axis] * size)) for axis, size in enumerate((width, height)))
    start, extent = np.array([x0 / width, y0 / height]), np.array([(x1 - x0) / width, (y1 - y0) / height])
    moved = ((boxes - np.tile(start, 2)) / np.tile(extent, 2)).clip(0.0, 1.0).astype(np.float32)
    marks = [((one - start) / extent).clip(0.0, 1.0).astype(np.float32) for one in points]
    return np.ascontiguousarray(image[y0:y1, x0:x1]), moved, marks


def _pad(points: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    """Put up to `most` points (n, 2) into an array of that length, filled with NaN."""
    padded = np.full((most, 2), np.nan, np.float32)
    padded[: min(most, len(points))] = points.reshape(-1, 2)[:most]
    return padded
