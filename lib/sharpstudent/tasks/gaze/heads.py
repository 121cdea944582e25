"""Pictures with labelled heads: the types that every layout of gaze data is read into, and the checks of a head.

Boxes are x0, y0, x1, y1. A gaze point is where the head looks; one that looks out of the picture has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sharpstudent.core.errors import UserError

SHOWN = 5  # broken rows that a note names


@dataclass(frozen=True)
class Head:
    """One labelled head.

    Attributes:
        box: The box of the head, in pixels of the picture.
        points: Where it looks, one point for each person who marked it, in 0..1 of width and height; () for a head that
            looks out of the picture.
        person: Who it is, where the data says so; "" else.
    """

    box: tuple[float, float, float, float]
    points: tuple[tuple[float, float], ...]
    person: str = ""


@dataclass(frozen=True)
class Scene:
    """One picture with its heads.

    Attributes:
        path: The file of the picture.
        heads: Its labelled heads.
        group: What splits never divide: the picture itself, or the show that a frame is from.
        size: Width and height [px], where the labels state them.
        objects: Places that a head may look at, in 0..1, where the scene is rendered and they are known.
        in_pixels: Whether gaze points are in pixels, because the labels do not state the size of the picture.
    """

    path: Path
    heads: tuple[Head, ...]
    group: str
    size: tuple[int, int] | None = None
    objects: tuple[tuple[float, float], ...] = ()
    in_pixels: bool = False


@dataclass
class BrokenRows:
    """Collects rows of labels that cannot be used, to name them once.

    Attributes:
        count: How many there are.
        first: The first of them, with their reasons.
    """

    count: int = 0
    first: list[str] = field(default_factory=list[str])

    def add(self, where: str, reason: str) -> None:
        """Count a row that is left out.

        Args:
            where: File and line, or picture and head.
            reason: Why it is left out.
        """
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(f"{where}: {reason}")

    def describe(self, rows: int, what: str) -> tuple[str, ...]:
        """Say how many rows of a file are left out, and name the first ones; () for none.

        Args:
            rows: How many rows the file has.
            what: What the note calls the file.
        """
        if not self.count:
            return ()
        more = f"; and {self.count - len(self.first):,} more" if self.count > len(self.first) else ""
        return (f"{what}: {self.count:,} of {rows:,} rows are left out: {'; '.join(self.first)}{more}",)


def find_box_fault(box: Sequence[float], size: tuple[int, int] | None = None) -> str | None:
    """Find what is wrong with a head box.

    Args:
        box: x0, y0, x1, y1 [px].
        size: Width and height of the picture [px]; None where they are not known yet.

    Returns:
        The fault in words; None for a box that can be used. A box that reaches beyond the edge is one.
    """
    x0, y0, x1, y1 = box
    shown = f"{x0:g}, {y0:g}, {x1:g}, {y1:g}"
    if not np.isfinite(box).all():
        return f"the head box {shown} has a number that is not finite"
    if max(abs(value) for value in box) <= 1.0:
        return f"the head box {shown} lies within one pixel: it is normalised, and pixels are expected"
    if x1 < x0 or y1 < y0:
        return f"the corners of the head box {shown} are swapped (x0 < x1 and y0 < y1 are expected)"
    if x1 - x0 < 1.0 or y1 - y0 < 1.0:
        return f"the head box {shown} is less than a pixel wide or high"
    if x1 <= 0.0 or y1 <= 0.0 or (size is not None and (x0 >= size[0] or y0 >= size[1])):
        picture = "" if size is None else f" of {size[0]} x {size[1]} px"
        return f"the head box {shown} lies outside the picture{picture}"
    return None


def find_point_fault(point: Sequence[float]) -> str | None:
    """Find what is wrong with a gaze point in 0..1; None where it can be used."""
    if not np.isfinite(point).all():
        return "the gaze point has a number that is not finite"
    if not all(0.0 <= value <= 1.0 for value in point):
        return f"the gaze point {point[0]:g}, {point[1]:g} lies outside 0..1 of the picture"
    return None


def refuse_normalised(broken: BrokenRows, rows: int, where: Path) -> None:
    """Refuse a file whose boxes are all normalised: somebody wrote it so, and no row of it is damaged.

    Args:
        broken: The rows that are left out.
        rows: How many rows the file has.
        where: The file.

    Raises:
        UserError: Where every row is left out for this reason, and also where none is left at all.
    """
    if broken.count < rows or not rows:
        return
    is_normalised = all("normalised" in line for line in broken.first)
    raise UserError.about(
        str(where),
        "has head boxes in 0..1, and pixels are expected" if is_normalised else "has no row that can be used",
        expected="x0, y0, x1, y1 of each head in pixels of its picture, x0 < x1 and y0 < y1",
        got="\n".join(broken.first),
        remedy="multiply x by the width and y by the height of the picture, or take the file of the data set",
    )
