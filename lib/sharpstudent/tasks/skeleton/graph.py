"""Layouts of joints: what each joint hangs on, which are left and right, and the adjacencies of graph convolutions.

Legend: V joints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.errors import UserError
from sharpstudent.core.files import explain, read_json

FORM = '{"joints": ["hip", "knee", ...], "bones": [["knee", "hip"], ...], "root": "hip", "left_right": [[...], ...]}'


@dataclass(frozen=True)
class Skeleton:
    """A layout of joints.

    Attributes:
        parents: The joint that each joint hangs on (V,); the root of the tree names itself.
        root: The joint in the middle, which positions are relative to and distances are counted from.
        left_right: Pairs of joints that a mirror swaps.
        partition: How neighbours are divided: `distance`, or `truncated`, which counts no further than one bone.
    """

    parents: Sequence[int]
    root: int
    left_right: Sequence[tuple[int, int]] = ()
    partition: str = "distance"

    @property
    def joints(self) -> int:
        """V, the number of joints."""
        return len(self.parents)

    @property
    def mirror(self) -> list[int]:
        """The joint that takes the place of each joint in a mirror (V,)."""
        found = list(range(self.joints))
        for left, right in self.left_right:
            found[left], found[right] = right, left
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the layout as JSON values, for a checkpoint."""
        return {name: list(value) if isinstance(value, tuple | list) else value for name, value in asdict(self).items()}

    def find_hops(self) -> NDArray[np.int64]:
        """Count the bones from the root to each joint (V,); -1 for joints that no bone leads to."""
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
        """Build the three normalised adjacencies of the partition (3, V, V).

        A joint's neighbours are divided into itself, those nearer the root and those further away (Yan et al. 2018,
        "Spatial Temporal Graph Convolutional Networks", section 3.3). `truncated` counts distances up to one bone, and
        all joints further away as equally far; neighbours of equal distance then go with the nearer ones. Entry
        (k, v, w) weighs what w gets from v; the columns of each of the three sum to 1, or to 0 where a joint has no
        such neighbour.
        """
        hops, found = self.find_hops(), np.zeros((3, self.joints, self.joints))
        if self.partition == "truncated":
            hops = np.minimum(hops, 2)
        found[0] = np.eye(self.joints)
        for joint, parent in enumerate(self.parents):
            for one, other in ((joint, parent), (parent, joint)) if joint != parent else ():
                found[1 if hops[one] <= hops[other] else 2, one, other] = 1.0
        sums = found.sum(axis=1, keepdims=True)
        return (found / np.where(sums > 0.0, sums, 1.0)).astype(np.float32)


# The Kinect's skeletons count from the waist; ntu25 is the order of NTU RGB+D, uiprmd22 that of UI-PRMD, coco17 that of
# COCO key points, whose root is the nose.
SKELETONS: Mapping[str, Skeleton] = {
    "ntu25": Skeleton(
        (0, 0, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18, 1, 22, 7, 24, 11),
        20,
        ((4, 8), (5, 9), (6, 10), (7, 11), (12, 16), (13, 17), (14, 18), (15, 19), (21, 23), (22, 24)),
    ),
    "uiprmd22": Skeleton(
        (0, 0, 1, 2, 3, 4, 2, 6, 7, 8, 2, 10, 11, 12, 0, 14, 15, 16, 0, 18, 19, 20),
        2,
        ((6, 10), (7, 11), (8, 12), (9, 13), (14, 18), (15, 19), (16, 20), (17, 21)),
    ),
    "coco17": Skeleton(
        (0, 0, 0, 1, 2, 0, 0, 5, 6, 7, 8, 5, 6, 11, 12, 13, 14),
        0,
        ((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
    ),
}


def build_skeleton(layout: str | Mapping[str, Any], partition: str | None = None) -> Skeleton:
    """Build a layout from its name, from a file, or from what `Skeleton.to_json` gave.

    Args:
        layout: A name of `SKELETONS`, the path of a .json file, or the JSON values that a checkpoint keeps.
        partition: How neighbours are divided; None for what the layout says.

    Returns:
        The layout.

    Raises:
        UserError: For an unknown name, and a file that describes no tree of joints.
    """
    if isinstance(layout, str):
        found = SKELETONS[layout] if layout in SKELETONS else _read_skeleton(layout)
    else:
        pairs = tuple((int(left), int(right)) for left, right in layout["left_right"])
        found = Skeleton(tuple(map(int, layout["parents"])), int(layout["root"]), pairs, str(layout["partition"]))
    return found if partition is None else replace(found, partition=partition)


def _read_skeleton(path: str) -> Skeleton:
    """Read a layout that names its joints and bones."""
    if not path.endswith(".json"):
        expected = f"{', '.join(SKELETONS)}, or a .json file with a layout"
        raise UserError.about("data.skeleton", f"is no layout: {path!r}", expected, remedy="name one of them")
    try:
        given = read_json(Path(path))
        names = [str(name) for name in given["joints"]]
        places = {name: place for place, name in enumerate(names)}
        parents = list(range(len(names)))
        for child, parent in given["bones"]:
            if parents[places[child]] != places[child]:
                raise ValueError(f"{child!r} hangs on two joints")
            parents[places[child]] = places[parent]
        pairs = tuple((places[left], places[right]) for left, right in given.get("left_right", ()))
        found = Skeleton(tuple(parents), places[given["root"]], pairs)
        if len(places) != len(names) or len({joint for pair in pairs for joint in pair}) != 2 * len(pairs):
            raise ValueError("a joint is named twice")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = f"it names {error} without such a joint or key" if isinstance(error, KeyError) else explain(error)
        raise UserError.about(path, "describes no layout of joints", FORM, reason, "correct the file") from None
    loose = [name for name, hops in zip(names, found.find_hops().tolist(), strict=True) if hops < 0]
    if loose:
        got, remedy = ", ".join(loose), "add a bone for each of them"
        raise UserError.about(path, "has joints that no bone connects with the root", got=got, remedy=remedy)
    return found
