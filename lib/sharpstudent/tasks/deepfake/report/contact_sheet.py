"""The contact sheet of an augmentation: what training sees of some faces, and which operations made it.

Each row is one sample, first as validation would see it, then as some epochs of training draw it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sharpstudent.core.io import atomic_path
from sharpstudent.core.random import build_generator
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.tasks.deepfake.report.pictures import KINDS
from sharpstudent.tasks.deepfake.samples import DrawnSample, FaceSamples

ROWS, EPOCHS = 8, (1, 2, 3)
LARGEST_SIDE = 256  # px of a face; a larger one is scaled down
LEAST_SIDE = 128  # px; a smaller one is shown enlarged, pixel by pixel
GAP, MARGIN, FONT_SIZE = 12, 16, 12  # px
CAPTION_LINES = 5
INK, PAPER = "#222222", "#ffffff"


def draw_contact_sheet(path: Path, plain: FaceSamples, augmented: FaceSamples, *, seed: int, title: str) -> int:
    """Draw a contact sheet to a PNG.

    Args:
        path: The path of the PNG.
        plain: The training samples without their augmentation.
        augmented: The same samples as training draws them.
        seed: The seed of the run: the sheet shows what its first epochs draw.
        title: The line above the pictures.

    Returns:
        The number of samples that are shown; with 0, no face could be read and nothing is written.

    Raises:
        UserError: Where the disk refuses.
    """
    rows: list[list[DrawnSample]] = []
    for index in _choose(augmented):
        try:
            first = plain.draw(index, build_generator(seed, 0, index))
            rows.append([first, *(augmented.draw(index, build_generator(seed, epoch, index)) for epoch in EPOCHS)])
        except UnreadableSample:  # training takes another face in its place, and names it in the log
            continue
    if rows:
        with atomic_path(path) as temporary:
            _draw_sheet(rows, title).save(temporary, "PNG")
    return len(rows)


def _choose(samples: FaceSamples) -> list[int]:
    """Choose samples evenly over the set, of different people where that is possible."""
    places = np.unique(np.linspace(0, len(samples) - 1, 4 * ROWS).round().astype(int)).tolist()
    by_person = {samples.group(place): place for place in reversed(places)}
    chosen = sorted(by_person.values())
    chosen += [place for place in places if place not in by_person.values()]
    some = np.unique(np.linspace(0, len(by_person) - 1, ROWS).round().astype(int)).tolist()
    return [chosen[at] for at in some] if len(some) == ROWS else chosen[:ROWS]


def _draw_sheet(rows: Sequence[Sequence[DrawnSample]], title: str) -> Image.Image:
    side = int(np.clip(rows[0][0].pictures[0].shape[0], LEAST_SIDE, LARGEST_SIDE))
    font = ImageFont.load_default(FONT_SIZE)
    line = FONT_SIZE + 4
    width = side * len(rows[0][0].pictures)
    height = side + CAPTION_LINES * line + GAP
    columns = ["not augmented", *(f"epoch {epoch}" for epoch in EPOCHS)]
    total = (2 * MARGIN + len(columns) * (width + GAP) - GAP, 2 * MARGIN + 4 * line + len(rows) * height)
    sheet = Image.new("RGB", total, PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), title, fill=INK, font=ImageFont.load_default(FONT_SIZE + 3))
    for column, name in enumerate(columns):
        left = MARGIN + column * (width + GAP)
        pen.text((left, MARGIN + line + 6), name, fill=INK, font=font)
        labels = rows[0][column].labels
        for place, label in enumerate(labels if len(labels) > 1 else ()):
            told, colour = KINDS[label]
            pen.text((left + place * side, MARGIN + 2 * line + 6), told, fill=colour, font=font)
        for row, drawings in enumerate(rows):
            top = MARGIN + 4 * line + row * height
            _draw_cell(sheet, pen, drawings[column], (left, top), side, font)
    return sheet


def _draw_cell(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    drawing: DrawnSample,
    corner: tuple[int, int],
    side: int,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
) -> None:
    left, top = corner
    for place, (picture, label) in enumerate(zip(drawing.pictures, drawing.labels, strict=True)):
        sheet.paste(_resize(picture, side), (left + place * side, top))
        frame = (left + place * side, top, left + (place + 1) * side - 1, top + side - 1)
        pen.rectangle(frame, outline=KINDS[label][1], width=2)
    text = "; ".join(drawing.told)
    most = int(side * len(drawing.pictures) / pen.textlength("n", font=font))
    lines = wrap(text, most)
    if len(lines) > CAPTION_LINES:
        lines = [*lines[: CAPTION_LINES - 1], f"{lines[CAPTION_LINES - 1]} ..."]
    for number, one in enumerate(lines):
        pen.text((left, top + side + 3 + number * (FONT_SIZE + 4)), one, fill=INK, font=font)


def _resize(picture: NDArray[np.uint8], side: int) -> Image.Image:
    image = Image.fromarray(picture)
    if picture.shape[0] == side:
        return image
    resampling = Image.Resampling.BOX if picture.shape[0] > side else Image.Resampling.NEAREST
    return image.resize((side, side), resampling)
