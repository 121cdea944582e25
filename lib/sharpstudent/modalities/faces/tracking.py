"""Follow faces from one sampled frame to the next by their boxes, so that a clip stays one person.

Sampled frames lie far apart (seconds, not 40 ms), so a face may have moved off its old box: then the nearest face of
about the same size within a face's width or so is taken for the same person. Boxes cannot tell people apart: who takes
another's place between two sampled frames, such as at a cut from one speaker to the other, is taken for them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LEAST_IOU = 0.2
LARGEST_STEP = 1.5  # distance of the centres / side of the face (geometric mean of both boxes)
LARGEST_GROWTH = 2.0  # side of the larger / side of the smaller


def number_tracks(frames: Sequence[NDArray[np.generic]]) -> list[NDArray[np.int64]]:
    """The person's number of every box, 0 for the one whose boxes have the largest summed area, and so on.

    frames: the boxes (n, 4) xyxy [px] of each frame, in order; n may be 0. Returns an int64 (n,) array a frame; no
    number comes twice in a frame. A person who is missing in some frames keeps the number. Equal areas: who was seen
    first, and stood first in that frame, has the lower number.
    """
    last = np.empty((0, 4))  # each track's latest box
    areas: list[float] = []
    found: list[NDArray[np.int64]] = []
    for frame in frames:
        boxes = np.asarray(frame, np.float64).reshape(-1, 4)
        tracks = _match(last, boxes)
        for box in np.flatnonzero(tracks < 0):
            tracks[box] = len(areas)
            areas.append(0.0)
            last = np.concatenate([last, boxes[box : box + 1]])
        last[tracks] = boxes
        for track, area in zip(tracks, _compute_areas(boxes), strict=True):
            areas[track] += float(area)
        found.append(tracks)
    number = np.empty(len(areas), np.int64)
    number[np.argsort(-np.array(areas), kind="stable")] = np.arange(len(areas))
    return [number[tracks] for tracks in found]


def _match(tracks: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.int64]:
    """The track of each box, -1 where there is none: pairs are taken by falling overlap, then by rising distance."""
    chosen = np.full(len(boxes), -1, np.int64)
    iou, step = _compute_iou(tracks, boxes), _compute_step(tracks, boxes)
    overlapping = iou >= LEAST_IOU
    # One figure to sort by: below 0 for pairs that overlap, above it for those that are only near.
    cost = np.where(overlapping, -iou, step)
    track_of, box_of = np.nonzero(overlapping | (step <= LARGEST_STEP))
    taken: set[int] = set()
    for pair in np.argsort(cost[track_of, box_of], kind="stable"):
        track, box = int(track_of[pair]), int(box_of[pair])
        if track not in taken and chosen[box] < 0:
            chosen[box] = track
            taken.add(track)
    return chosen


def _compute_iou(one: NDArray[np.float64], two: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of every pair, (len(one), len(two))."""
    low = np.maximum(one[:, None, :2], two[None, :, :2])
    high = np.minimum(one[:, None, 2:], two[None, :, 2:])
    overlap = np.prod(np.clip(high - low, 0, None), axis=2)
    union = _compute_areas(one)[:, None] + _compute_areas(two)[None] - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def _compute_step(one: NDArray[np.float64], two: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of the centres in face sides of every pair; infinite where the sizes differ too much."""
    sides = [np.sqrt(np.maximum(_compute_areas(boxes), 1e-9)) for boxes in (one, two)]
    distance = np.linalg.norm((one[:, None, :2] + one[:, None, 2:] - two[None, :, :2] - two[None, :, 2:]) / 2, axis=2)
    growth = sides[0][:, None] / sides[1][None]
    alike = np.maximum(growth, 1 / growth) <= LARGEST_GROWTH
    return np.where(alike, distance / np.sqrt(sides[0][:, None] * sides[1][None]), np.inf)


def _compute_areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1)
