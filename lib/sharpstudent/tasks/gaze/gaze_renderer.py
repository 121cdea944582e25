"""Draws the gaze task: the first batch of a training, and the heads that a model is best and worst about."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpstudent.evaluation.renderer import FinishedRun, Measurements, Renderer, Session

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sharpstudent.core.types import Batch, Table
    from sharpstudent.evaluation.evaluate import Evaluation

SHOWN = 6  # heads of each kind
BATCH_SHOWN = 12
TILE = 320  # px
NAME = "figures/best_and_worst.jpg"


@dataclass(frozen=True)
class ShownHead:
    """A head whose map is drawn.

    Attributes:
        kind: `best` or `worst`.
        distance: From the peak to the nearest mark, in sides of the picture.
        picture: The picture with its map, uint8 (TILE, TILE, 3) RGB.
    """

    kind: str
    distance: float
    picture: NDArray[np.uint8]


class GazeRenderer(Renderer):
    """Adds pictures of maps to the reports of any task."""

    def draw_batch(self, path: Path, batch: Batch) -> None:
        """Draw the heads of the first batch with their targets.

        Args:
            path: Where the picture is written.
            batch: The batch, after augmentation.
        """
        import torch

        from sharpstudent.core.io import write_bytes_atomically

        targets = batch.targets["heatmap"][:BATCH_SHOWN].float().cpu()
        logits = torch.logit(targets, eps=1e-4).numpy()
        marks = batch.targets["points"][:BATCH_SHOWN].cpu().numpy()
        tiles = [_draw_row(batch, row, logits[row], marks[row]) for row in range(len(logits))]
        rows = [tiles[start : start + 4] for start in range(0, len(tiles), 4)]
        write_bytes_atomically(path, _encode_sheet(rows, path.suffix))

    def find_mistakes(self, session: Session, evaluation: Evaluation) -> tuple[Sequence[Any], Sequence[Any]]:
        """Find the heads that the first model is best and worst about, in the first set, and draw their maps.

        Args:
            session: The session, with the opened models.
            evaluation: The tables of the models.

        Returns:
            The heads, twice: what is said of them is drawn.
        """
        import numpy as np

        table = evaluation.models[0].tables[0]
        order = np.argsort(table["min_l2"], kind="stable")
        order = order[np.isfinite(table["min_l2"][order])]
        chosen = {"best": order[:SHOWN], "worst": order[::-1][:SHOWN]}
        draw = functools.partial(_draw_head, session, evaluation, table)
        found = [draw(kind, int(row)) for kind, rows in chosen.items() for row in rows]
        return found, found

    def write(
        self, folder: Path, results: Any, evaluation: Evaluation, measured: Measurements, *, run: FinishedRun | None
    ) -> list[Path]:
        """Write all files of a report, and the sheet of maps.

        Args:
            folder: The folder that the files go to.
            results: The results.
            evaluation: The tables of all models.
            measured: The measurements, with the heads that are drawn.
            run: The run whose report it is; None for an evaluation of its own.

        Returns:
            The files of the report, the page first.
        """
        from sharpstudent.core.io import make_folder, write_bytes_atomically

        written = super().write(folder, results, evaluation, measured, run=run)
        rows = [[one for one in measured.mistakes if one.kind == kind] for kind in ("best", "worst")]
        rows = [[_label(one.picture, f"{one.kind}: {one.distance:.3f}") for one in row] for row in rows if row]
        if not rows:
            return written
        path = folder / NAME
        make_folder(path.parent)
        write_bytes_atomically(path, _encode_sheet(rows, path.suffix))
        return [*written, path]

    def say_results(self, session: Session, results: Any, folder: Path) -> None:
        """Print the tables, and where the report and the sheet of maps are.

        Args:
            session: The session, with the console.
            results: The results.
            folder: The folder of the report.
        """
        super().say_results(session, results, folder)
        if (folder / NAME).is_file():
            session.say(f"Maps of the heads that it is best and worst about: {folder / NAME}")


def _draw_head(session: Session, evaluation: Evaluation, table: Table, kind: str, row: int) -> ShownHead:
    """Run the first model on the picture of a row again, and draw the row's map."""
    import torch

    from sharpstudent.core.random import build_generator
    from sharpstudent.models.forward import evaluation_mode, run_model

    one, opened = evaluation.sets[0], session.models[0]
    samples = one.open(opened.input_key)
    index, visit, place = (int(value) for value in table["key"][row])
    sample = samples.make(index, build_generator(samples.seed, visit, index))
    batch = one.task.collate([sample], [samples.group(index)]).to(session.device)
    with torch.inference_mode(), evaluation_mode(opened.model):
        heatmap = run_model(opened.model, batch.inputs)["heatmap"][place].float().cpu().numpy()
    marks = batch.targets["points"][place].cpu().numpy()
    picture = _draw_row(batch, place, heatmap, marks)
    return ShownHead(kind, float(table["min_l2"][row]), picture)


def _draw_row(batch: Batch, row: int, heatmap: NDArray[np.float32], marks: NDArray[np.float32]) -> NDArray[np.uint8]:
    import cv2
    import numpy as np

    from sharpstudent.tasks.gaze.gaze_answer import draw_map

    image = batch.inputs["image"][int(batch.inputs["image_index"][row])].float().cpu().numpy()
    picture = (image.transpose(1, 2, 0) * 255).clip(0, 255).astype(np.uint8)
    shown = cv2.resize(picture, (TILE, TILE), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
    return draw_map(shown, heatmap, batch.inputs["box"][row].cpu().numpy(), marks[~np.isnan(marks[:, 0])])


def _label(picture: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    import cv2

    labelled = picture.copy()
    cv2.rectangle(labelled, (0, 0), (9 * len(text) + 12, 22), (255, 255, 255), -1)
    cv2.putText(labelled, text, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (20, 20, 20), 1, cv2.LINE_AA)
    return labelled


def _encode_sheet(rows: Sequence[Sequence[NDArray[np.uint8]]], suffix: str) -> bytes:
    """Encode rows of tiles as one picture, `.jpg` or `.png`; a shorter row is filled with white."""
    import cv2
    import numpy as np

    longest = max(map(len, rows))
    blank = np.full((TILE, TILE, 3), 255, np.uint8)
    sheet = np.vstack([np.hstack([*row, *[blank] * (longest - len(row))]) for row in rows])
    done, content = cv2.imencode(suffix, sheet[..., ::-1])
    assert done
    return content.tobytes()
