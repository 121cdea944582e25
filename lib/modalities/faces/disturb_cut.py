"""A face that is to be disturbed: where it is cut from its picture, and the cut."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lib.modalities.faces.crop import compute_box_margins


@dataclass(frozen=True)
class FaceCut:
    """A picture, uint8 (H, W, 3) RGB, and the box of the final crop in it: int64 (4,), whole pixels, inside it."""

    image: NDArray[np.uint8]
    box: NDArray[np.int64]

    @property
    def picture(self) -> NDArray[np.uint8]:
        """The crop as it is, uint8 (h, w, 3), a view: not to be written to."""
        left, top, right, bottom = (int(value) for value in self.box)
        return self.image[top:bottom, left:right]

    def jitter(self, share: float, rng: np.random.Generator) -> NDArray[np.uint8]:
        """The crop as a less exact detector would have cut it: moved by a share of its sides in a direction that is
        drawn, and larger or smaller by that share, with even chances.

        share: 0..0.5. What lies outside the picture is its mirror image: so beyond a face crop that is taken as it is.
        """
        angle = rng.uniform(0, 2 * np.pi)
        factor = 1 + share if rng.random() < 0.5 else 1 / (1 + share)
        sides = (self.box[2:] - self.box[:2]).astype(np.float64)
        centre = (self.box[2:] + self.box[:2]) / 2 + share * sides * np.array([np.cos(angle), np.sin(angle)])
        # At least a pixel, wherever it is rounded to.
        corner = np.rint(centre - factor * sides / 2).astype(np.int64)
        return self._cut_beyond(corner, corner + np.maximum(np.rint(factor * sides), 1).astype(np.int64))

    def _cut_beyond(self, start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.uint8]:
        """start, end: int64 (2,) x, y of a box with at least a pixel in the picture."""
        size = np.array([self.image.shape[1], self.image.shape[0]])
        (left, top), (right, bottom) = np.maximum(start, 0), np.minimum(end, size)
        (over_left, over_top), (over_right, over_bottom) = np.maximum(-start, 0), np.maximum(end - size, 0)
        inside = np.ascontiguousarray(self.image[top:bottom, left:right])
        whole = cv2.copyMakeBorder(
            inside, int(over_top), int(over_bottom), int(over_left), int(over_right), cv2.BORDER_REFLECT_101
        )
        return np.asarray(whole, np.uint8)


def cut_face(image: NDArray[np.uint8], box: NDArray[np.generic] | None) -> FaceCut:
    """The crop of evaluation: a detector's box (4,) with margins of 12.5 %, or None for the picture as it is."""
    height, width = image.shape[:2]
    if box is None:
        return FaceCut(image, np.array([0, 0, width, height], np.int64))
    return FaceCut(image, compute_box_margins(box, height, width, None))
