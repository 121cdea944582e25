"""Data sets to judge models on, opened: prepared sets, folders whose faces are cut first, and face crops."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np
from rich.console import Console

from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.types import Table
from sharpstudent.data.dataset import Samples
from sharpstudent.evaluation.tables import EvalSet
from sharpstudent.metrics.checks import name_some
from sharpstudent.tasks.deepfake.dataset.manifest import MANIFEST
from sharpstudent.tasks.deepfake.evaluation.crops_set import read_crops_set
from sharpstudent.tasks.deepfake.evaluation.evaluation_set import EvaluationSet
from sharpstudent.tasks.deepfake.evaluation.frames import ScoredFrames
from sharpstudent.tasks.deepfake.evaluation.mistakes import Pictures
from sharpstudent.tasks.deepfake.evaluation.set_request import FacesRule, SetRequest, Split, choose_names
from sharpstudent.tasks.deepfake.metrics import compute_margins
from sharpstudent.tasks.deepfake.report.results import DataResult
from sharpstudent.tasks.deepfake.sources.manifest import CLASSES
from sharpstudent.tasks.deepfake.swaps.folder import TABLE
from sharpstudent.tasks.deepfake.task import DeepfakeTask

__all__ = ["EvaluationSet", "FacesRule", "SetRequest", "Split", "open_sets"]


def open_sets(
    requests: Sequence[SetRequest], *, say: Callable[[str], None], console: Console | None = None
) -> list[EvaluationSet]:
    """The sets in the order asked for. say: takes lines for the user; console: draws the bar of a long cutting, where
    there is one.

    Raises UserError for no set, bad names and paths, a set that cannot be used, and where all sets together hold one
    class only. What costs nothing is opened first: a mistake in the last set does not come after hours of cutting.
    """
    names = choose_names(requests)
    opened: dict[int, EvaluationSet] = {}
    for number in sorted(range(len(requests)), key=lambda number: find_kind(requests[number]) == "folder"):
        opened[number] = _open(requests[number], names[number], say, console)
    sets = [opened[number] for number in range(len(requests))]
    for found in sets:
        for line in _describe(found):
            say(line)
    _check_both_classes(sets)
    return sets


def find_kind(request: SetRequest) -> str:
    """`crops`, `manifest`, or `folder` of what has to be cut first."""
    if request.crops:
        return "crops"
    path = request.path
    is_manifest = path.suffix == ".arrow" if path.is_file() else (path / MANIFEST).exists()
    return "manifest" if is_manifest else "folder"


def _open(request: SetRequest, name: str, say: Callable[[str], None], console: Console | None) -> EvaluationSet:
    kind = find_kind(request)
    if kind == "crops":
        return read_crops_set(request.path, name=name)
    if kind == "manifest":
        from sharpstudent.tasks.deepfake.evaluation.manifest_set import read_manifest_set  # Arrow: not needed for crops

        return read_manifest_set(request.path, name=name, split=request.split, faces=request.faces)
    if (request.path / TABLE).is_file():
        raise UserError(
            Problem(
                str(request.path),
                f"holds face crops, as its {TABLE} says: cutting faces out of them would cut them twice",
                remedy="say --crops",
            )
        )
    from sharpstudent.tasks.deepfake.evaluation.crops_set import read_folder_set

    return read_folder_set(request, name=name, say=say, console=console)


def _describe(found: EvaluationSet) -> list[str]:
    about = found.about
    left_out = sum(about.without_decision.values())
    line = (
        f"data {about.name} ({about.kind}{f', split {about.split}' if about.split else ''}): {about.frames:,} frames, "
        f"{about.real:,} real and {about.fake:,} fake, of {about.videos:,} videos and {about.people:,} people"
    )
    reasons = "; ".join(f"{count:,} x {reason}" for reason, count in about.without_decision.items())
    told = [f"without a decision: {left_out:,} ({reasons})"] if left_out else []
    return [line, *(f"  {further}" for further in (*told, *about.notes))]


def _check_both_classes(sets: Sequence[EvaluationSet]) -> None:
    """Of frames with a face; a set alone may hold one class."""
    labels = {label for found in sets for label in np.unique(found.labels).tolist()}
    if len(labels) == len(CLASSES):
        return
    there = " and ".join(CLASSES[label] for label in labels)
    samples = [f"{found.name}: {found.frames.sample_ids[frame]}" for found in sets for frame in found.frame_of[:3]]
    remedy = "name a set of the other class as well"
    if any(found.about.kind == "manifest" and found.about.split != "all" for found in sets):
        remedy += ", or another --split"
    raise UserError(
        Problem(
            ", ".join(found.name for found in sets),
            f"all {sum(len(found) for found in sets):,} faces are {there}: nothing can be told apart",
            expected="real and fake faces, over all data sets together",
            got=name_some(samples),
            remedy=remedy,
        )
    )


class FacesSet(EvalSet):
    """Faces with labels of their own; nothing about them is random."""

    def __init__(self, faces: EvaluationSet) -> None:
        self.faces, self.name, self.task = faces, faces.name, DeepfakeTask()

    def open(self, input_key: Hashable) -> Samples:
        """The faces at the size of a network's input [px]."""
        assert isinstance(input_key, int)
        return self.faces.build_source(input_key)

    def to_frames(self, table: Table, unreadable: Mapping[str, str]) -> ScoredFrames:
        """table: of its faces in their order; unreadable: faces by name with the reason; they have no decision."""
        return self.faces.build_frames(compute_margins(table), unreadable)

    def list_pictures(self, table: Table) -> Pictures:
        columns, frame_of = self.faces.frames, self.faces.frame_of.tolist()
        return Pictures(
            labels=self.faces.labels,
            margins=compute_margins(table),
            names=self.faces.name_faces(),
            clip_ids=[columns.clip_ids[frame] for frame in frame_of],
            manipulations=[columns.manipulations[frame] for frame in frame_of],
            keys=table["key"],
        )

    def describe(self, unreadable: Mapping[str, str]) -> DataResult:
        return self.faces.describe(unreadable)
