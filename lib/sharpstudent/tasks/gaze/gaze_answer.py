"""Says and draws where the people of a picture or a video look.

People of a video are followed from frame to frame by their boxes. Legend: R heads of a frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.errors import format_count_of
from sharpstudent.core.types import Answer, Table
from sharpstudent.modalities.faces.detect import Tracker
from sharpstudent.report.results import Plain
from sharpstudent.tasks.gaze.map_metrics import find_peaks

LOOKS, NO_HEAD = "looks", "no_head"
COLUMNS = ("frame", "second", "person", "left", "top", "right", "bottom", "gaze_x", "gaze_y", "inside", "spread")
FRAMES_SHOWN, PEOPLE_SHOWN, MAPS_SHOWN = 12, 6, 8
PARTIAL = 50  # frames between two partial answers
INSIDE = 0.5  # probability from which on somebody looks into the picture
# RGB of people, one after the other.
COLOURS = ((230, 75, 53), (0, 120, 190), (0, 150, 90), (240, 160, 0), (140, 80, 190), (90, 90, 90))


class LookDetails(Plain):
    """What predictions.json says besides the answer: people, frames, width and height of a frame [px]."""

    people: int
    frames: int
    width: int
    height: int


@dataclass
class _Seen:
    """What has been seen of an input so far."""

    rows: list[tuple[Any, ...]] = field(default_factory=list[tuple[Any, ...]])
    frames: int = 0
    empty: int = 0
    remarks: dict[str, int] = field(default_factory=dict[str, int])
    shown: list[tuple[bytes, str]] = field(default_factory=list[tuple[bytes, str]])
    step: int = 1
    maps: list[tuple[bytes, str]] = field(default_factory=list[tuple[bytes, str]])
    sizes: tuple[int, int] = (1, 1)


def describe_gaze(tables: Iterator[Table], stored: Mapping[str, Any]) -> Iterator[Answer]:
    """Say where the people of an input look.

    Args:
        tables: A table a frame, with the output `heatmap` and, of some models, `inside`.
        stored: The description of the model.

    Yields:
        Partial answers of a long video, then the final one.
    """
    seen, tracker = _Seen(), Tracker()
    for table in tables:
        seen.frames += 1
        if "heatmap" not in table:
            seen.empty += 1
            reason = str(table["reason"][0])
            seen.remarks[reason] = seen.remarks.get(reason, 0) + 1
        else:
            _add_frame(seen, table, tracker)
        if seen.frames % PARTIAL == 0:
            yield _answer(seen, tracker, is_final=False)
    yield _answer(seen, tracker, is_final=True)


def _add_frame(seen: _Seen, table: Table, tracker: Tracker) -> None:
    boxes = np.array([list(box) for box in table["box"]], np.float64)
    people = tracker.add(boxes)
    peaks, (width, height) = find_peaks(table["heatmap"]) + 0.5 / table["heatmap"].shape[-1], table["size"][0]
    inside = None if "inside" not in table else 1.0 / (1.0 + np.exp(-table["inside"]))
    spreads = [compute_spread(one) for one in table["heatmap"]]
    for row, box in enumerate(boxes):
        seen.rows.append(
            (
                *(int(table["frame"][row]), round(float(table["second"][row]), 3), int(people[row])),
                *(round(float(value), 1) for value in box),
                *(round(float(value), 1) for value in peaks[row] * (width, height)),
                None if inside is None else round(float(inside[row]), 4),
                round(spreads[row], 4),
            )
        )
    seen.sizes = (width, height)
    number = seen.frames - seen.empty
    if (number - 1) % seen.step == 0:
        second = float(table["second"][0])
        looks = np.ones(len(boxes), bool) if inside is None else inside >= INSIDE
        drawn = draw_looks(table["picture"][0], boxes / np.array([width, height] * 2), peaks, people, looks)
        seen.shown.append(
            (
                _encode(drawn),
                f"at {second:.1f} s" if seen.frames > 1 or second else "a line to the likeliest place of each",
            )
        )
        if len(seen.shown) > 2 * FRAMES_SHOWN:
            seen.shown, seen.step = seen.shown[::2], 2 * seen.step
    if number == 1:
        shares = boxes / np.array([width, height] * 2)
        seen.maps = [
            (_encode(draw_map(table["picture"][0], table["heatmap"][row], shares[row])), f"person {people[row] + 1}")
            for row in range(min(len(boxes), MAPS_SHOWN))
        ]


def compute_spread(heatmap: NDArray[np.float32]) -> float:
    """Compute how far the map of logits (64, 64) is spread: the share of cells with half of its height or more."""
    heights = 1.0 / (1.0 + np.exp(-heatmap.astype(np.float64)))
    return float((heights >= heights.max() / 2).mean())


def draw_looks(
    picture: NDArray[np.uint8],
    boxes: NDArray[np.float64],
    peaks: NDArray[np.float64],
    people: NDArray[np.int64],
    looks: NDArray[np.bool_],
) -> NDArray[np.uint8]:
    """Draw a box around each head and a line to where it looks.

    Args:
        picture: uint8 (H, W, 3) RGB.
        boxes: (R, 4) in 0..1.
        peaks: (R, 2) in 0..1.
        people: The number of each person (R,).
        looks: Whether each looks into the picture (R,); for others only the box is drawn.

    Returns:
        The picture with the marks.
    """
    drawn = picture.copy()
    height, width = drawn.shape[:2]
    thick = max(2, round(max(height, width) / 300))
    for box, peak, person, is_in in zip(boxes, peaks, people, looks, strict=True):
        colour = COLOURS[int(person) % len(COLOURS)]
        x0, y0, x1, y1 = (round(float(value)) for value in box * [width, height, width, height])
        cv2.rectangle(drawn, (x0, y0), (x1, y1), colour, thick)
        label = str(int(person) + 1) + ("" if is_in else " out")
        cv2.putText(drawn, label, (x0, max(y0 - 5, 14)), cv2.FONT_HERSHEY_SIMPLEX, 0.3 * thick, colour, thick)
        if is_in:
            end = round(float(peak[0] * width)), round(float(peak[1] * height))
            cv2.line(drawn, ((x0 + x1) // 2, (y0 + y1) // 2), end, colour, thick, lineType=cv2.LINE_AA)
            cv2.circle(drawn, end, 3 * thick, colour, -1, lineType=cv2.LINE_AA)
    return drawn


def draw_map(
    picture: NDArray[np.uint8],
    heatmap: NDArray[np.float32],
    box: NDArray[np.float64],
    marks: NDArray[np.float32] | None = None,
) -> NDArray[np.uint8]:
    """Lay the map of a head over its picture.

    Args:
        picture: uint8 (H, W, 3) RGB.
        heatmap: Logits (64, 64).
        box: The box of the head (4,) in 0..1.
        marks: Where it looks in truth (n, 2) in 0..1, drawn as crosses; None where it is not known.

    Returns:
        The picture: grey, with the map in red, brightest at its peak.
    """
    height, width = picture.shape[:2]
    heights = 1.0 / (1.0 + np.exp(-heatmap.astype(np.float64)))
    share = cv2.resize(heights / max(heights.max(), 1e-9), (width, height), interpolation=cv2.INTER_LINEAR)[..., None]
    grey = picture.mean(2, keepdims=True) * 0.75 + 40
    drawn = np.ascontiguousarray((grey * (1 - share) + np.array([235, 40, 20]) * share).clip(0, 255).astype(np.uint8))
    thick = max(2, round(max(height, width) / 300))
    x0, y0, x1, y1 = (round(float(value)) for value in box * [width, height, width, height])
    cv2.rectangle(drawn, (x0, y0), (x1, y1), (0, 120, 190), thick)
    for mark in () if marks is None else marks:
        place = round(float(mark[0] * width)), round(float(mark[1] * height))
        cv2.drawMarker(drawn, place, (0, 150, 90), cv2.MARKER_TILTED_CROSS, 6 * thick, thick)
    return drawn


def _encode(picture: NDArray[np.uint8]) -> bytes:
    done, content = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    assert done
    return content.tobytes()


def _answer(seen: _Seen, tracker: Tracker, *, is_final: bool) -> Answer:
    rank = tracker.rank()
    people = len(rank)
    remarks = tuple(f"{reason} in {format_count_of(count, 'frame')}." for reason, count in seen.remarks.items())
    if not people:
        hint = "Faces that are turned away are not found; --head X0,Y0,X1,Y1 says where one is."
        return Answer(NO_HEAD, "No head was found.", (*remarks, hint))
    sentence = f"{format_count_of(people, 'person')} in {format_count_of(seen.frames, 'frame')}: {_tell(seen)}."
    reasons = (
        *remarks,
        "A peak is the likeliest place, not a certain one; spread is the share of the picture nearly as likely.",
        "Heads are found by their faces: who looks away from the camera may be missing.",
    )
    if not is_final:
        return Answer(LOOKS, sentence, reasons)
    pictures = {"Where each looks": tuple(seen.shown[:: max(1, -(-len(seen.shown) // FRAMES_SHOWN))])}
    if seen.maps:
        pictures["How likely each place is, in the first frame"] = tuple(seen.maps)
    rows = [(*row[:2], row[2] + 1, *row[3:]) for row in seen.rows]
    details = LookDetails(people=people, frames=seen.frames, width=seen.sizes[0], height=seen.sizes[1]).model_dump()
    return Answer(
        outcome=LOOKS,
        sentence=sentence,
        reasons=reasons,
        details=details,
        columns=COLUMNS,
        rows=rows,
        pictures=pictures,
        has_whole_pictures=True,
    )


def _tell(seen: _Seen) -> str:
    """Tell where each person looked when seen last."""
    last = {row[2]: row for row in seen.rows}
    parts: list[str] = []
    for person, row in sorted(last.items())[:PEOPLE_SHOWN]:
        x, y, inside = row[7], row[8], row[9]
        place = f"({x:.0f}, {y:.0f})" if inside is None or inside >= INSIDE else "out of the picture"
        parts.append(f"{person + 1} looks {'at ' if place.startswith('(') else ''}{place}")
    more = f", and {len(last) - PEOPLE_SHOWN} more" if len(last) > PEOPLE_SHOWN else ""
    return ", ".join(parts) + more
