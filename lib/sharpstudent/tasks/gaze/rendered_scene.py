"""Draws a scene of people who look at things, with the place that each of them looks at.

All geometry is known: a head is turned so that its nose points at the thing. Things lie nearer to the camera than
people, at a depth of their own. No pupils are drawn, and no depth of field: such scenes try the machinery, not skill.
Legend: S side of the picture [px].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.tasks.gaze.portraits import SIDE, Portrait
from sharpstudent.tasks.gaze.turned_head import draw_head

PICTURE = 448  # px, S
PEOPLE = 2
THINGS = (4, 8)  # of a scene, the second excluded
HEAD_HEIGHT = (100.0, 140.0)  # px
THING_SIZE = (13.0, 20.0)  # px, half the width
DEPTH = (0.2, 0.45)  # of S, how much nearer than the people a thing is
APART = 46.0  # px between things, and between a thing and a head
TRIES = 200
SHAPES = ("disc", "square", "triangle", "diamond", "ring", "cross")
Point = tuple[float, float]


@dataclass(frozen=True)
class Looking:
    """One person of a drawn scene.

    Attributes:
        person: Who it is.
        box: The box of the head, x0, y0, x1, y1 [px].
        target: Where it looks [px]; None out of the picture.
    """

    person: str
    box: tuple[float, float, float, float]
    target: Point | None


@dataclass(frozen=True)
class RenderedScene:
    """A drawn scene.

    Attributes:
        image: uint8 (S, S, 3) RGB.
        people: Who is in it, and where each looks.
        things: The middle of each thing [px].
    """

    image: NDArray[np.uint8]
    people: tuple[Looking, ...]
    things: tuple[Point, ...]


def shrink(drawn: RenderedScene, side: int) -> RenderedScene:
    """Shrink a drawn scene with its labels to a side [px]."""
    factor = side / len(drawn.image)
    image = cv2.resize(drawn.image, (side, side), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    people = tuple(
        replace(
            one,
            box=(factor * one.box[0], factor * one.box[1], factor * one.box[2], factor * one.box[3]),
            target=None if one.target is None else (factor * one.target[0], factor * one.target[1]),
        )
        for one in drawn.people
    )
    return RenderedScene(image, people, tuple((factor * x, factor * y) for x, y in drawn.things))


@dataclass(frozen=True)
class Room:
    """What stays the same from frame to frame: places of people and things, and what they look like.

    Attributes:
        heads: The middle of each head [px] and its height [px].
        things: The middle of each thing [px], and its depth [px].
        backdrop: The picture without heads, uint8 (S, S, 3) RGB.
    """

    heads: tuple[tuple[Point, float], ...]
    things: tuple[tuple[Point, float], ...]
    backdrop: NDArray[np.uint8]


def build_room(rng: np.random.Generator) -> Room:
    """Place people and things, and draw all but the heads."""
    heads: list[tuple[Point, float]] = []
    lanes = rng.permutation(PEOPLE)
    for lane in lanes:
        height = float(rng.uniform(*HEAD_HEIGHT))
        x = PICTURE * (lane + rng.uniform(0.25, 0.75)) / PEOPLE
        heads.append(((float(x), float(rng.uniform(0.2, 0.6)) * PICTURE), height))
    count, things = int(rng.integers(*THINGS)), list[Point]()
    for _ in range(TRIES):
        place = (float(rng.uniform(22, PICTURE - 22)), float(rng.uniform(22, PICTURE - 22)))
        far_heads = all(np.hypot(place[0] - x, place[1] - y) > height / 2 + APART for (x, y), height in heads)
        if far_heads and all(np.hypot(place[0] - x, place[1] - y) > APART for x, y in things):
            things.append(place)
        if len(things) == count:
            break
    placed = tuple((thing, float(rng.uniform(*DEPTH)) * PICTURE) for thing in things)
    return Room(tuple(heads), placed, _draw_backdrop(rng, heads, things))


def draw_scene(room: Room, cast: Sequence[Portrait], targets: Sequence[int | None]) -> RenderedScene:
    """Draw people who look at things.

    Args:
        room: The places.
        cast: The portrait of each person.
        targets: The number of the thing that each looks at; None for one who looks out of the picture, to the side that
            is nearer.
    """
    image, people = room.backdrop.copy(), list[Looking]()
    for ((x, y), height), portrait, target in zip(room.heads, cast, targets, strict=True):
        if target is None:
            away = -1.0 if x < PICTURE / 2 else 1.0
            direction = np.array([2.0 * away, -0.15, 0.5])
        else:
            (tx, ty), depth = room.things[target]
            direction = np.array([tx - x, ty - y, depth])
        box = _put_head(image, portrait, (x, y), height, direction)
        people.append(Looking(portrait.person, box, None if target is None else room.things[target][0]))
    return RenderedScene(image, tuple(people), tuple(place for place, _ in room.things))


def _put_head(
    image: NDArray[np.uint8], portrait: Portrait, place: Point, height: float, direction: NDArray[np.float64]
) -> tuple[float, float, float, float]:
    """Draw a head into the picture, and return its box."""
    drawn, covered = draw_head(portrait, direction)
    scale = height / (2 * portrait.axes[1])
    matrix = np.array([[scale, 0.0, place[0] - scale * SIDE / 2], [0.0, scale, place[1] - scale * SIDE / 2]])
    size = (PICTURE, PICTURE)
    mask = cv2.warpAffine(covered, matrix, size, flags=cv2.INTER_AREA)
    rows, columns = np.flatnonzero(mask.max(1) > 0.5), np.flatnonzero(mask.max(0) > 0.5)
    head = cv2.warpAffine(drawn, matrix, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    area = slice(max(rows[0] - 3, 0), rows[-1] + 4), slice(max(columns[0] - 3, 0), columns[-1] + 4)
    share = mask[area][..., None]
    image[area] = (head[area] * share + image[area] * (1.0 - share)).round().astype(np.uint8)
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _draw_backdrop(
    rng: np.random.Generator, heads: Sequence[tuple[Point, float]], things: Sequence[Point]
) -> NDArray[np.uint8]:
    noise = rng.uniform(0, 255, (5, 5, 3)).astype(np.float32)
    grain = rng.normal(0.0, 4.0, (PICTURE, PICTURE, 1)).astype(np.float32)
    smooth = cv2.resize(noise, (PICTURE, PICTURE), interpolation=cv2.INTER_CUBIC)
    image = np.clip(0.45 * smooth + 90.0 + grain, 0, 255).astype(np.uint8)
    for (x, y), height in heads:
        colour = tuple(map(int, rng.integers(20, 235, 3)))
        _draw_body(image, (x, y), height, colour)
    for x, y in things:
        colour = tuple(map(int, rng.integers(0, 256, 3)))
        shape = SHAPES[int(rng.integers(len(SHAPES)))]
        _draw_thing(image, (x, y), float(rng.uniform(*THING_SIZE)), shape, colour)
    return image


def _draw_body(image: NDArray[np.uint8], head: Point, height: float, colour: tuple[int, ...]) -> None:
    x, y = head
    top = y + 0.52 * height
    cv2.rectangle(
        image, _whole(x - 0.16 * height, y), _whole(x + 0.16 * height, top + 0.1 * height), (150, 115, 95), -1
    )
    outline = [
        (x - 0.25 * height, top),
        (x + 0.25 * height, top),
        (x + 0.75 * height, top + 0.25 * height),
        (x + 0.85 * height, PICTURE + 10),
        (x - 0.85 * height, PICTURE + 10),
        (x - 0.75 * height, top + 0.25 * height),
    ]
    cv2.fillPoly(image, [np.array(outline, np.int32)], colour, lineType=cv2.LINE_AA)


def _draw_thing(image: NDArray[np.uint8], place: Point, size: float, shape: str, colour: tuple[int, ...]) -> None:
    x, y = place
    corners = {
        "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
        "triangle": [(0, -1.2), (1.1, 0.9), (-1.1, 0.9)],
        "diamond": [(0, -1.3), (1, 0), (0, 1.3), (-1, 0)],
    }
    dark = (20, 20, 20)
    if shape in corners:
        outline = np.array([(x + size * dx, y + size * dy) for dx, dy in corners[shape]], np.int32)
        cv2.fillPoly(image, [outline], colour, lineType=cv2.LINE_AA)
        cv2.polylines(image, [outline], True, dark, 2, lineType=cv2.LINE_AA)
    elif shape == "cross":
        for start, end in (((-1, -1), (1, 1)), ((-1, 1), (1, -1))):
            ends = [_whole(x + size * dx, y + size * dy) for dx, dy in (start, end)]
            cv2.line(image, ends[0], ends[1], colour, max(2, round(0.5 * size)), lineType=cv2.LINE_AA)
    else:
        thickness = -1 if shape == "disc" else max(2, round(0.4 * size))
        cv2.circle(image, _whole(x, y), round(size), colour, thickness, lineType=cv2.LINE_AA)
        cv2.circle(image, _whole(x, y), round(1.1 * size), dark, 2, lineType=cv2.LINE_AA)


def _whole(x: float, y: float) -> tuple[int, int]:
    return round(x), round(y)
