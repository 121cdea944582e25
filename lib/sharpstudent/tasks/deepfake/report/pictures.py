"""Pictures of a report and of a run.

A report shows the worst mistakes as cards (the face, where the model looked, its score), and those without a picture as
a table. A run shows one augmented batch as the student sees it: pairs real | fake | mask, or a labelled grid.

Only matplotlib's objects are used, never pyplot, so that no global state is touched. Legend: N images of H x W pixels.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.io import atomic_path
from sharpstudent.core.types import Batch
from sharpstudent.report.text import DASH, format_probability
from sharpstudent.report.text_table import Cell, Group, Row, TextTable, text_cell
from sharpstudent.tasks.deepfake.report.results import MistakeResult

MOST_CARDS = 24
SIDE = 160  # pixels, the longer side of a thumbnail
JPEG_QUALITY = 82
HEAT_MAP = "inferno"
MOST_HEAT = 0.62  # opacity of the heat map over the face, where it is hottest


@dataclass(frozen=True)
class ReportPicture:
    """A face for the report; `MistakeResult.picture` is its place among them.

    Attributes:
        image: uint8 (H, W, 3) RGB.
        heat: The heat map (Grad-CAM), float32 in 0..1, of any size with the picture's proportions; or None.
    """

    image: NDArray[np.uint8]
    heat: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Card:
    """A mistake as the page shows it.

    Attributes:
        mistake: The mistake, as the results hold it.
        score: The formatted probability of fake, calibrated where a temperature is stored.
        basis: ` (calibrated)` where the probability is.
        truth: `real` or `fake`.
        face: The data URI of the face.
        heat: The data URI of the heat map; empty where there is none.
        width: The width of both pictures [px].
        height: The height of both pictures [px].
    """

    mistake: MistakeResult
    score: str
    basis: str
    truth: str
    face: str
    heat: str
    width: int
    height: int


@dataclass(frozen=True)
class Mistakes:
    """The mistakes of a report.

    Attributes:
        by_model: The name of each model, with its cards.
        rest: The mistakes without a picture, and those for which there is no room.
    """

    by_model: tuple[tuple[str, tuple[Card, ...]], ...]
    rest: tuple[MistakeResult, ...]

    @property
    def has_heat(self) -> bool:
        """Whether any card shows where the model looked."""
        return any(card.heat for _, cards in self.by_model for card in cards)


def build_mistakes(mistakes: Sequence[MistakeResult], pictures: Sequence[ReportPicture]) -> Mistakes:
    """Choose the mistakes that are shown as cards, at most `MOST_CARDS`: each model's worst, then the second ones, ...

    Args:
        mistakes: The mistakes of all models, the worst first.
        pictures: The faces; `MistakeResult.picture` is an index into them.

    Returns:
        The cards and the rest.

    Raises:
        ValueError: A picture is missing or has a wrong form.
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
        score=_format_score(mistake),
        basis="" if mistake.calibrated is None else " (calibrated)",
        truth="fake" if mistake.label else "real",
        face=_to_uri(face),
        heat="" if heat is None else _to_uri(heat),
        width=width,
        height=height,
    )


def _format_score(mistake: MistakeResult) -> str:
    return format_probability(mistake.probability if mistake.calibrated is None else mistake.calibrated)


def _draw(picture: ReportPicture) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Make the thumbnail, and the thumbnail with the heat map over it."""
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
    """Colour the face by the heat map and leave cold places grey."""
    from matplotlib import colormaps

    grey = (face @ np.array([0.299, 0.587, 0.114], np.float32))[..., np.newaxis]
    colour = 255 * colormaps[HEAT_MAP](0.25 + 0.7 * heat)[..., :3]
    weight = (MOST_HEAT * heat**0.75)[..., np.newaxis]
    return np.rint((1 - weight) * grey + weight * colour).clip(0, 255).astype(np.uint8)


def _to_uri(image: NDArray[np.uint8]) -> str:
    from PIL import Image

    written = io.BytesIO()
    Image.fromarray(image).save(written, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode('ascii')}"


MOST_ROWS = 200


def build_mistakes_table(mistakes: Sequence[MistakeResult]) -> TextTable:
    """Build the table of mistakes: a group a model, a row a sample, at most `MOST_ROWS`."""
    shown = mistakes[:MOST_ROWS]
    groups = tuple(
        Group(model, tuple(_build_row(mistake) for mistake in shown if mistake.model == model))
        for model in dict.fromkeys(mistake.model for mistake in shown)
    )
    left = len(mistakes) - len(shown)
    notes = (("1", f"{left:,} more are in results.json."),) if left else ()
    columns = (Cell("Probability of fake"), text_cell("Truth"), text_cell("Source"), text_cell("Kind of fake"))
    return TextTable("Further mistakes", "Sample", columns, groups, notes)


def _build_row(mistake: MistakeResult) -> Row:
    kind = mistake.manipulation if mistake.label and mistake.manipulation else DASH
    truth = "fake" if mistake.label else "real"
    score = Cell(_format_score(mistake), small="" if mistake.calibrated is None else "calibrated")
    return Row(text_cell(mistake.sample_id), (score, text_cell(truth), text_cell(mistake.source), text_cell(kind)))


CELL_INCHES = 1.5
KINDS = {0: ("real", "#2e7d32"), 1: ("fake", "#c62828")}  # name and colour of a label
MASK = ("mask", "#37474f")
GridCell = tuple[np.ndarray, str, str, str]  # picture, name, colour, id


def draw_first_batch(path: Path, batch: Batch) -> None:
    """Draw a batch as the student sees it, with `draw_batch`.

    Args:
        path: The path of the PNG.
        batch: The batch of face crops.
    """
    masks = batch.rows.get("mask")
    draw_batch(
        path,
        (batch.inputs["image"].permute(0, 2, 3, 1) * 255).round().byte().cpu().numpy(),
        batch.targets["label"].cpu().numpy(),
        [name.rsplit("/", 1)[-1] for name in batch.rows["id"]],
        masks=None if masks is None else np.asarray(masks),
    )


def draw_batch(
    path: Path,
    images: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    ids: Sequence[str],
    *,
    masks: np.ndarray | None = None,
    max_items: int = 8,
    title: str = "one augmented training batch",
) -> None:
    """Draw images with their labels to a PNG.

    With masks, and images in pairs of a real and a fake, each pair is drawn as real | fake | mask of the fake; else the
    first images are drawn in a grid.

    Args:
        path: The path of the PNG.
        images: uint8 (N, H, W, 3) RGB.
        labels: (N,), real 0, fake 1.
        ids: The names of the images (N,).
        masks: (N, H, W) in 0..1, None for none.
        max_items: The largest number of pairs that are drawn; without masks, twice as many images.
        title: The title above the images.

    Raises:
        ValueError: The arrays have a wrong form or do not belong together.
        UserError: The disk refuses.
    """
    labels = np.asarray(labels)
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise ValueError(f"images must be (N, H, W, 3) uint8, got {images.shape} {images.dtype}")
    if not len(images) == len(labels) == len(ids) or len(images) == 0:
        raise ValueError(f"images, labels and ids must be equally many, got {len(images)}, {len(labels)}, {len(ids)}")
    kinds = [KINDS.get(label, (f"class {label}", MASK[1])) for label in labels.tolist()]
    cells: list[GridCell] = [(images[at], *kinds[at], ids[at]) for at in range(len(images))]
    pairs = None if masks is None else _find_pairs(labels.tolist())
    if pairs is None or masks is None:
        shown = cells[: 2 * max_items]
        _draw_grid(path, shown, columns=min(4, len(shown)), title=title)
        return
    triples = [(cells[real], cells[fake], (masks[fake], *MASK, "")) for real, fake in pairs[:max_items]]
    columns = 3 if len(triples) <= 4 else 6
    _draw_grid(path, [cell for triple in triples for cell in triple], columns=columns, title=title)


def _find_pairs(labels: Sequence[int]) -> list[tuple[int, int]] | None:
    """Find the real and the fake of each two images; None unless all images are such pairs."""
    starts = range(0, len(labels), 2)
    if any(sorted(labels[start : start + 2]) != [0, 1] for start in starts):
        return None
    return [(start, start + 1) if labels[start] == 0 else (start + 1, start) for start in starts]


def _draw_grid(path: Path, cells: Sequence[GridCell], *, columns: int, title: str) -> None:
    """Draw the cells row by row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-len(cells) // columns)
    width = max(3.2, columns * CELL_INCHES + 0.2)  # wide enough for the title
    figure = Figure(figsize=(width, rows * (CELL_INCHES + 0.28) + 0.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    grid: Any = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(cells) :]:
        axes.set_axis_off()
    for axes, (picture, name, colour, sample_id) in zip(grid.flat[: len(cells)], cells, strict=True):
        shades = {"cmap": "gray", "vmin": 0, "vmax": 1} if picture.ndim == 2 else {}
        axes.imshow(picture, interpolation="nearest", **shades)
        shown = sample_id if len(sample_id) <= 22 else f"…{sample_id[-21:]}"
        axes.set_title(name, fontsize=7.5, color=colour, fontweight="bold", loc="left", pad=2.5)
        axes.set_title(shown, fontsize=5.5, color="#555555", loc="right", pad=2.5)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color(colour)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
