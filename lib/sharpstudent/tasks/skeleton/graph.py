"""Skeletons: their joints, what each joint hangs on, and the adjacencies that a graph convolution reads.

Legend: V joints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Skeleton:
    """A layout of joints.

    Attributes:
        parents: The joint that each joint hangs on (V,); the root names itself.
        root: The joint in the middle, which positions are relative to and distances are counted from.
    """

    parents: Sequence[int]
    root: int

    @property
    def joints(self) -> int:
        """V, the number of joints."""
        return len(self.parents)

    def find_hops(self) -> NDArray[np.int64]:
        """Count the bones from the root to each joint (V,)."""
        neighbours: list[set[int]] = [set() for _ in self.parents]
        for joint, parent in enumerate(self.parents):
            if joint != parent:
                neighbours[joint].add(parent)
                neighbours[parent].add(joint)
        hops = np.full(self.joints, -1, np.int64)
        hops[self.root], front, distance = 0, {self.root}, 0
        while front:
            distance += 1
            front = {near for joint in front for near in neighbours[joint] if hops[near] < 0}
            hops[list(front)] = distance
        return hops

    def build_adjacencies(self) -> NDArray[np.float32]:
        """Build the three normalised adjacencies of the distance partition (3, V, V).

        A joint's neighbours are divided into itself, those nearer the root and those further away (Yan et al. 2018,
        "Spatial Temporal Graph Convolutional Networks", section 3.3). Entry (k, v, w) weighs what w gets from v; the
        columns of each of the three sum to 1, or to 0 where a joint has no such neighbour.
        """
        hops, found = self.find_hops(), np.zeros((3, self.joints, self.joints))
        found[0] = np.eye(self.joints)
        for joint, parent in enumerate(self.parents):
            for one, other in ((joint, parent), (parent, joint)) if joint != parent else ():
                found[1 if hops[one] < hops[other] else 2, one, other] = 1.0
        sums = found.sum(axis=1, keepdims=True)
        return (found / np.where(sums > 0.0, sums, 1.0)).astype(np.float32)


# The Kinect's skeletons count from the waist; ntu25 is the order of NTU RGB+D, uiprmd22 that of UI-PRMD, coco17 that of
# COCO key points, whose root is the nose.
NTU25 = (0, 0, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18, 1, 22, 7, 24, 11)
UIPRMD22 = (0, 0, 1, 2, 3, 4, 2, 6, 7, 8, 2, 10, 11, 12, 0, 14, 15, 16, 0, 18, 19, 20)
COCO17 = (0, 0, 0, 1, 2, 0, 0, 5, 6, 7, 8, 5, 6, 11, 12, 13, 14)
SKELETONS: Mapping[str, Skeleton] = {
    "ntu25": Skeleton(NTU25, 20),
    "uiprmd22": Skeleton(UIPRMD22, 2),
    "coco17": Skeleton(COCO17, 0),
}
