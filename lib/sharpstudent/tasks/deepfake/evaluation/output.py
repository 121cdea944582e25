"""Where an evaluation goes, and what the console says of it.

scores.csv: what every model said of every frame, so that any other figure can be made of it.

Where an evaluation goes, and what the console says of it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from rich.console import Console

from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.io import make_folder, write_text_atomically
from sharpstudent.evaluation.evaluate import Judged
from sharpstudent.metrics.tables import ScoredFrames
from sharpstudent.report.card import render_model_card
from sharpstudent.report.html import ReportPicture, write_report
from sharpstudent.report.model_table import render_csv, render_markdown, render_tables
from sharpstudent.report.results import ModelResult, Results
from sharpstudent.train.run import check_writable, make_new_folder

COLUMNS = ("model", "source", "sample_id", "clip_id", "person", "manipulation", "label", "decided", "margin", "fake")


def write_scores(path: Path, models: Sequence[tuple[str, ScoredFrames]]) -> None:
    """A row a model and frame: margin, log-odds of fake, to its last digit; fake, its probability; both empty where no
    face was found. Atomic; raises UserError where the disk refuses.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for name, frames in models:
        margins = np.asarray(frames.margins, np.float64)
        probability = 0.5 * (1.0 + np.tanh(0.5 * margins))
        decided = np.ones(len(frames), np.bool_) if frames.decided is None else frames.decided
        for row in range(len(frames)):
            said = [repr(float(margins[row])), f"{probability[row]:.6f}"] if decided[row] else ["", ""]
            table.writerow(
                [
                    *(name, frames.sources[row], frames.sample_ids[row], frames.clip_ids[row], frames.groups[row]),
                    *(frames.manipulations[row], int(frames.labels[row]), int(decided[row]), *said),
                ]
            )
    write_text_atomically(path, text.getvalue())


ROOT = Path("output")
SENTENCES = 5  # of the verdict that the console shows after its first line
RESULTS, SCORES, CARD, TABLE = "results.json", "scores.csv", "model_card", "models"


def check_folder(wanted: Path | None) -> None:
    """Raise UserError where a report cannot go: a file, a folder of other things, one that cannot be written to."""
    if wanted is not None and wanted.exists() and not wanted.is_dir():
        raise UserError(Problem(f"--out {wanted}", "is a file", expected="a folder", remedy="choose another name"))
    if wanted is not None and wanted.is_dir() and any(wanted.iterdir()) and not (wanted / RESULTS).is_file():
        raise UserError(
            Problem(
                f"--out {wanted}",
                "holds other things: a report is not written among them",
                expected="a new or empty folder, or one with an earlier evaluation",
                remedy="choose another folder",
            )
        )
    check_writable(ROOT if wanted is None else wanted, f"--out {ROOT if wanted is None else wanted}")


def make_out_folder(wanted: Path | None) -> Path:
    """The folder of the report: `wanted`, or a new one under output/."""
    if wanted is None:
        return make_new_folder(ROOT / f"evaluation_{datetime.now():%m_%d_%H_%M_%S}")
    make_folder(wanted)
    return wanted


def write_evaluation(folder: Path, results: Results, pictures: Sequence[ReportPicture], judged: Judged) -> None:
    """The table, scores.csv, a model card for each model, and the report. Raises UserError where the disk refuses."""
    write_text_atomically(folder / f"{TABLE}.md", render_markdown(results))
    write_text_atomically(folder / f"{TABLE}.csv", render_csv(results))
    write_scores(folder / SCORES, [(model.opened.name, model.frames) for model in judged.models])
    cards = [folder / name_card(results.models, number) for number in range(len(results.models))]
    for card, model in zip(cards, results.models, strict=True):
        write_text_atomically(card, render_model_card(results, model))
    written = {*cards, *write_report(folder, results, pictures)}
    for path in (*folder.glob(f"{CARD}*.md"), *folder.glob("figures/*.png"), *folder.glob("figures/*.csv")):
        if path not in written:  # of an earlier evaluation: it would be taken for one of this one
            path.unlink(missing_ok=True)


def name_card(models: Sequence[ModelResult], number: int) -> str:
    """model_card.md, or model_card_2.md and so on where there are several."""
    return f"{CARD}.md" if len(models) == 1 else f"{CARD}_{number + 1}.md"


def say_results(results: Results, folder: Path, console: Console) -> None:
    """The tables, the verdict, and where the rest is."""
    for table in render_tables(results):
        console.print(table)
    if results.bands:
        console.print("What the two-stage guide expects, and what was measured here:", highlight=False)
    for band in results.bands:
        line = f"  {band.what}: {band.expected}; here {band.measured}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    headline, *sentences = results.verdict
    for line in (headline, *(f"- {sentence}" for sentence in sentences[:SENTENCES])):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if len(sentences) > SENTENCES:
        console.print(f"  ({len(sentences) - SENTENCES} more in the report)", markup=False, highlight=False)
    console.print(
        f"\nThe report: {folder / 'report.html'} (opens in any browser, without a network). Beside it: {RESULTS}, "
        f"{SCORES}, {TABLE}.csv, {CARD}*.md, figures/.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
