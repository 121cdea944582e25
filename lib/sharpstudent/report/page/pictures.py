"""The worst mistakes as cards and as a table.

The worst mistakes as cards: the face, where the model looked, what it said; pictures as data within the page.

Legend: H, W: a picture's height and width.

The mistakes for which the page has no picture, as a table.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from sharpstudent.report.results import MistakeResult
from sharpstudent.report.text import DASH, Cell, Group, Row, Table, format_probability, word

MOST_CARDS = 24
SIDE = 160  # pixels, the longer side of a thumbnail
JPEG_QUALITY = 82
HEAT_MAP = "inferno"
MOST_HEAT = 0.62  # of the colour over the face, where it is hottest


@dataclass(frozen=True)
class ReportPicture:
    """A face for the report; MistakeResult.picture is its place among them.

    image: uint8 (H, W, 3) RGB; heat: where the model looked, Grad-CAM, float32 in 0..1, of any size with the picture's
    sides in proportion, or None.
    """

    image: NDArray[np.uint8]
    heat: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Card:
    """A mistake; face and heat: data URIs, empty where there is no picture."""

    mistake: MistakeResult
    said: str
    truth: str
    face: str
    heat: str
    width: int
    height: int


@dataclass(frozen=True)
class Mistakes:
    """Cards of those with pictures, by model; rest: those for which there is no picture or no room."""

    by_model: tuple[tuple[str, tuple[Card, ...]], ...]
    rest: tuple[MistakeResult, ...]

    @property
    def has_heat(self) -> bool:
        """Whether any card shows where the model looked."""
        return any(card.heat for _, cards in self.by_model for card in cards)


def build_mistakes(mistakes: Sequence[MistakeResult], pictures: Sequence[ReportPicture]) -> Mistakes:
    """The first of each model in turn, at most MOST_CARDS in all. Raises ValueError for a picture that is not there or
    has another form than ReportPicture says.
    """
    shown = _choose(mistakes)
    models = dict.fromkeys(mistake.model for mistake in mistakes if id(mistake) in shown)
    cards = tuple(
        (model, tuple(_build_card(m, pictures) for m in mistakes if m.model == model and id(m) in shown))
        for model in models
    )
    return Mistakes(cards, tuple(mistake for mistake in mistakes if id(mistake) not in shown))


def _choose(mistakes: Sequence[MistakeResult]) -> set[int]:
    queues: dict[str, list[MistakeResult]] = {}
    for mistake in mistakes:
        if mistake.picture is not None:
            queues.setdefault(mistake.model, []).append(mistake)
    turns = [queue[turn] for turn in range(MOST_CARDS) for queue in queues.values() if turn < len(queue)]
    return {id(mistake) for mistake in turns[:MOST_CARDS]}


def _build_card(mistake: MistakeResult, pictures: Sequence[ReportPicture]) -> Card:
    number = mistake.picture
    if number is None or not 0 <= number < len(pictures):
        raise ValueError(f"the mistake {mistake.sample_id!r} has picture {number}, of {len(pictures)}")
    face, heat = _draw(pictures[number])
    height, width = face.shape[:2]
    return Card(
        mistake=mistake,
        said=format_probability(mistake.probability),
        truth="fake" if mistake.label else "real",
        face=_to_uri(face),
        heat="" if heat is None else _to_uri(heat),
        width=width,
        height=height,
    )


def _draw(picture: ReportPicture) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """The thumbnail, and the thumbnail with the heat over it."""
    from PIL import Image

    image = picture.image
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f"a report's picture must be (H, W, 3) uint8, got {image.shape} {image.dtype}")
    scale = SIDE / max(image.shape[:2])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    face = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    if picture.heat is None:
        return face, None
    if picture.heat.ndim != 2:
        raise ValueError(f"a heat map must be (H, W), got {picture.heat.shape}")
    whole = np.nan_to_num(np.asarray(picture.heat, np.float32), nan=0.0)
    heat = np.asarray(Image.fromarray(whole).resize(size, Image.Resampling.BILINEAR)).clip(0.0, 1.0)
    return face, _lay_over(face, heat)


def _lay_over(face: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The face in grey, coloured the more the hotter: cold places stay to be seen."""
    grey = (face @ np.array([0.299, 0.587, 0.114], np.float32))[..., np.newaxis].repeat(3, axis=-1)
    colour = _read_colours()[np.rint(heat * 255).astype(np.int64)]
    weight = (MOST_HEAT * heat**0.75)[..., np.newaxis]
    return np.rint((1 - weight) * grey + weight * colour).clip(0, 255).astype(np.uint8)


@cache
def _read_colours() -> NDArray[np.float32]:
    """(256, 3), 0..255."""
    from matplotlib import colormaps

    return (255 * colormaps[HEAT_MAP](np.linspace(0.25, 0.95, 256))[:, :3]).astype(np.float32)


def _to_uri(image: NDArray[np.uint8]) -> str:
    from PIL import Image

    written = io.BytesIO()
    Image.fromarray(image).save(written, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode('ascii')}"


MOST_ROWS = 200


def build_mistakes_table(mistakes: Sequence[MistakeResult]) -> Table:
    """A group a model, a row a sample; the first MOST_ROWS, and a note where there are more."""
    shown = mistakes[:MOST_ROWS]
    groups = tuple(
        Group(model, tuple(_build_row(mistake) for mistake in shown if mistake.model == model))
        for model in dict.fromkeys(mistake.model for mistake in shown)
    )
    left = len(mistakes) - len(shown)
    notes = (("1", f"{left:,} more are in results.json."),) if left else ()
    columns = (Cell("Probability of fake"), word("Truth"), word("Source"), word("Kind of fake"))
    return Table("Further mistakes", "Sample", columns, groups, notes)


def _build_row(mistake: MistakeResult) -> Row:
    kind = mistake.manipulation if mistake.label and mistake.manipulation else DASH
    truth = "fake" if mistake.label else "real"
    said = Cell(format_probability(mistake.probability))
    return Row(word(mistake.sample_id), (said, word(truth), word(mistake.source), word(kind)))
