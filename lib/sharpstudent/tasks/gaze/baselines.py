"""What gaze maps are worth that know nothing of the head, or nothing of the picture: the figures to measure models by.

    python -m sharpstudent.tasks.gaze.baselines configs/demo_gaze.json [MODEL]

They are computed for rendered scenes, where it is known what can be looked at. With MODEL also what that model gives
when it is not told which head is asked about: the box of the head is then the whole picture.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.arguments import EXIT_CODES, Parser, read_path
from sharpstudent.core.errors import UserError, exit_codes
from sharpstudent.core.io import make_folder, write_text_atomically
from sharpstudent.core.naming import printable
from sharpstudent.core.types import Table
from sharpstudent.metrics.bootstrap import compute_interval
from sharpstudent.tasks.gaze.map_metrics import (
    METRICS,
    compute_distances,
    compute_picture_aucs,
    find_peaks,
    find_right_objects,
)
from sharpstudent.tasks.gaze.scenes import GazeScenes, draw_target
from sharpstudent.tasks.gaze.section import GazeSection
from sharpstudent.tasks.gaze.task import GazeTask

PROGRAM = "-m sharpstudent.tasks.gaze.baselines"
SHOWN = ("min_l2", "right_object", "auc")
Points = NDArray[np.float64]


class Heads:
    """The labelled heads of rendered scenes, as arrays of N rows in 0..1.

    Attributes:
        middle: Of each head's box (N, 2).
        target: Where it looks (N, 2).
        objects: What can be looked at (N, O, 2), NaN where there is none.
        person: Who it is (N,).
        size: Of its picture (N, 2) [px].
    """

    def __init__(self, samples: GazeScenes) -> None:
        """Collect the heads that look into the picture. Raises UserError where objects are not known."""
        rows = [(scene, head) for scene in samples.scenes for head in scene.heads if head.points and scene.size]
        if not rows or not all(scene.objects for scene, _ in rows):
            what = "has pictures without `objects`: baselines need to know what can be looked at"
            raise UserError.about(str(samples.root), what, remedy="render scenes: " + RENDER)
        most = max(len(scene.objects) for scene, _ in rows)
        self.objects = np.full((len(rows), most, 2), np.nan)
        for row, (scene, _) in enumerate(rows):
            self.objects[row, : len(scene.objects)] = scene.objects
        self.size = np.array([scene.size for scene, _ in rows])
        boxes = np.array([head.box for _, head in rows]) / np.tile(self.size, 2)
        self.middle = (boxes[:, :2] + boxes[:, 2:]) / 2
        self.target = np.array([head.points[0] for _, head in rows])
        self.person = np.array([head.person or scene.group for scene, head in rows])

    def __len__(self) -> int:
        """The number of heads."""
        return len(self.target)


RENDER = "python -m sharpstudent.tasks.gaze.render_scenes PHOTOS data/gaze_scenes"


def place_peaks(train: Heads, test: Heads) -> dict[str, Points]:
    """Compute where each baseline puts its peak (N, 2), by its name.

    Args:
        train: The heads that a baseline may learn from.
        test: The heads that it answers about.
    """
    count = len(test)
    ray = test.target - test.middle
    length = np.linalg.norm(ray, axis=1, keepdims=True)
    usual = float(np.linalg.norm(train.target - train.middle, axis=1).mean())
    from_head = np.linalg.norm(test.objects - test.middle[:, None], axis=2)
    steps = test.objects - test.middle[:, None]
    along = (steps * (ray / length)[:, None]).sum(2) / np.maximum(from_head, 1e-9)
    prior = sum(draw_target((x, y), 3.0).astype(np.float64) for x, y in train.target)
    peak = find_peaks(np.asarray(prior, np.float32)[None])[0]
    rows = np.arange(count)
    return {
        "the centre": np.full((count, 2), 0.5),
        "the usual place of training": np.tile(peak, (count, 1)),
        "the head itself": test.middle,
        "the object nearest to the head": test.objects[rows, np.nanargmin(from_head, axis=1)],
        "any object, all alike": test.objects[:, 0],
        "the true ray, without the picture": (test.middle + usual * ray / length).clip(0.0, 1.0),
        "the true ray, with the objects": test.objects[rows, np.nanargmax(along, axis=1)],
    }


def make_table(heads: Heads, peaks: Points, aucs: NDArray[np.float64]) -> Table:
    """Make the table that metrics read.

    Args:
        heads: The heads.
        peaks: (N, 2).
        aucs: (N,).
    """
    marks = heads.target[:, None].astype(np.float32)
    nearest, mean = compute_distances(peaks, marks)
    right = find_right_objects(peaks, marks, heads.objects.astype(np.float32))
    names = np.arange(len(heads)).astype(str)
    return {
        **{"id": names, "group": heads.person, "min_l2": nearest, "avg_l2": mean},
        **{"right_object": right, "auc": aucs},
    }


def draw_maps(name: str, heads: Heads, peaks: Points) -> NDArray[np.float32]:
    """Draw the maps (N, 64, 64) of a baseline: a bell at its peak, or one at each object."""
    if name != "any object, all alike":
        return np.stack([draw_target((float(x), float(y)), 9.0) for x, y in peaks])
    known = [row[~np.isnan(row[:, 0])] for row in heads.objects]
    return np.stack([np.max([draw_target((float(x), float(y)), 3.0) for x, y in row], axis=0) for row in known])


def blank_heads(path: Path, test: GazeScenes) -> Table:
    """Compute the table of a model that is not told which head is asked about."""
    import torch

    from sharpstudent.evaluation.command_line import ModelRequest
    from sharpstudent.evaluation.renderer import load_renderer
    from sharpstudent.evaluation.tables import compute_tables

    opened = load_renderer(GazeTask).open_model(ModelRequest(path, "model", "model"), torch.device("cpu"))

    class Blanked(torch.nn.Module):
        def forward(self, image: Any, image_index: Any, box: Any) -> Any:
            whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(len(box), 4)
            return opened.model(image=image, image_index=image_index, box=whole)

    task = GazeTask(test.section)
    return compute_tables([Blanked()], test, task, batch_size=32, num_workers=0, device=torch.device("cpu"))[0][0]


def measure(tables: Mapping[str, Table]) -> dict[str, dict[str, list[float | None]]]:
    """Compute each metric of each table with its 95 % interval over people: value, low, high."""
    found: dict[str, dict[str, list[float | None]]] = {}
    for name, table in tables.items():
        estimates = {
            metric: compute_interval(METRICS[metric], table, rounds=1000, seed=0, group_unit="person")
            for metric in SHOWN
        }
        found[name] = {metric: [one.value, one.low, one.high] for metric, one in estimates.items()}
    return found


def main(argv: Sequence[str]) -> None:
    """Compute the baselines of the test scenes of a config, print them, and write output/gaze_baselines.json."""
    parser = Parser(PROGRAM, str(__doc__).split("\n", maxsplit=1)[0], more=EXIT_CODES)
    parser.add_argument("config", metavar="CONFIG", type=read_path, help="a config of the task gaze")
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", type=read_path, help="a run or checkpoint to blank heads of"
    )
    parser.add_argument("--out", metavar="FILE", type=read_path, default=Path("output/gaze_baselines.json"))
    read = parser.read(argv)
    train, test = GazeTask(_read_section(read.config)).open_data("train", "test")
    assert isinstance(train, GazeScenes)
    assert isinstance(test, GazeScenes)
    heads = Heads(test)
    tables: dict[str, Table] = {}
    for name, peaks in place_peaks(Heads(train), heads).items():
        aucs = compute_picture_aucs(draw_maps(name, heads, peaks), heads.target[:, None].astype(np.float32), heads.size)
        tables[name] = make_table(heads, peaks, aucs)
    if read.model is not None:
        tables["a model that is not told the head"] = blank_heads(read.model, test)
    found = measure(tables)
    make_folder(read.out.parent)
    write_text_atomically(read.out, json.dumps(found, indent=2) + "\n")
    for name, metrics in found.items():
        cells = ", ".join(f"{METRICS[metric].title} {_show(values)}" for metric, values in metrics.items())
        print(printable(f"{name}: {cells}"), flush=True)


def _read_section(path: Path) -> GazeSection:
    from sharpstudent.config.load import read_config_file

    return GazeSection(**read_config_file(path).get("data", {}))


def _show(values: Sequence[float | None]) -> str:
    value, low, high = values
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    with exit_codes():
        main(sys.argv[1:])
