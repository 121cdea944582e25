"""scores.csv: what every model said of every frame, so that any other figure can be made of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lib.files import write_text_atomically
from lib.metrics.scored import ScoredFrames

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
