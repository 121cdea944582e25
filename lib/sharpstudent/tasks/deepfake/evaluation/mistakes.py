"""Finds the faces that a model is most wrong about, with their pictures: what to look at first."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from sharpstudent.core.random import build_generator
from sharpstudent.core.types import Table
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.evaluation.opened import OpenedModel
from sharpstudent.tasks.deepfake.evaluation.evaluation_set import FaceSet
from sharpstudent.tasks.deepfake.evaluation.frames import ScoredFrames
from sharpstudent.tasks.deepfake.report.pictures import ReportPicture
from sharpstudent.tasks.deepfake.report.results import MistakeResult

MOST = 12  # of each model
HeatMaps = Callable[[torch.nn.Module, torch.Tensor], NDArray[np.float32] | None]


def find_mistakes(
    opened: OpenedModel,
    tables: Sequence[Table],
    sets: Sequence[FaceSet],
    unreadable: Sequence[dict[str, str]],
    *,
    first_picture: int,
    heat_maps: HeatMaps | None = None,
    most: int = MOST,
) -> tuple[list[MistakeResult], list[ReportPicture]]:
    """Find the faces furthest on the wrong side of a probability of one half, the worst first.

    Args:
        opened: The opened model.
        tables: The model's table of each set.
        sets: The data sets.
        unreadable: Faces of each set that could not be read, by name with the reason; their substitutes are passed
            over.
        first_picture: The index that this model's first picture gets in the report.
        heat_maps: Computes heat maps of the model; None for no heat maps.
        most: The largest number of mistakes. Of equally wrong faces the first by name are taken.

    Returns:
        The mistakes, and the pictures of those that could be read again.
    """
    samples = [one.list_faces(table) for one, table in zip(sets, tables, strict=True)]
    spare = most + sum(map(len, unreadable))  # substitutes are passed over
    wrong = sorted(
        (-distance, sets[number].name, of_set.sample_ids[row], number, row)
        for number, of_set in enumerate(samples)
        for row, distance in _list_wrong(of_set, spare)
    )
    mistakes: list[MistakeResult] = []
    pictures: list[ReportPicture] = []
    for _, source, name, number, row in [one for one in wrong if one[2] not in unreadable[one[3]]][:most]:
        image = _load(sets[number], opened.input_key, tables[number]["key"][row].tolist(), name)
        place = None if image is None else first_picture + len(pictures)
        pictures += [] if image is None else [ReportPicture(image, _explain(opened, image, heat_maps))]
        face = samples[number].take(np.array([row]))
        label = int(face.labels[0])
        mistakes.append(
            MistakeResult(
                model=opened.name,
                source=source,
                sample_id=name,
                clip_id=face.clip_ids[0],
                manipulation=face.manipulations[0] if label == 1 else "",
                label=label,
                probability=float(0.5 * (1.0 + np.tanh(0.5 * face.margins[0]))),
                picture=place,
            )
        )
    return mistakes, pictures


def _list_wrong(samples: ScoredFrames, most: int) -> list[tuple[int, float]]:
    """List the most wrong rows, and those that tie with the last of them.

    Each comes with how far it is on the wrong side of one half [log-odds].
    """
    distances = np.where(samples.labels == 1, -samples.margins, samples.margins)
    wrong = np.flatnonzero(np.where(samples.labels == 1, samples.margins < 0.0, samples.margins >= 0.0))
    if len(wrong) > most:
        least = np.partition(distances[wrong], -most)[-most]
        wrong = wrong[distances[wrong] >= least]
    return list(zip(wrong.tolist(), distances[wrong].tolist(), strict=True))


def _load(of_set: FaceSet, input_key: Hashable, key: Sequence[int], name: str) -> NDArray[np.uint8] | None:
    """Load the picture of this name as the model saw it; None where it cannot be read again. key: as in the table."""
    source = of_set.open(input_key)
    index, visit, place = key
    try:
        sample = source.make(index, build_generator(source.seed, 0, index + visit * len(source)))
    except UnreadableSample:  # gone since it was evaluated
        return None
    return sample.inputs["image"][place] if sample.rows["id"][place] == name else None


def _explain(opened: OpenedModel, image: NDArray[np.uint8], heat_maps: HeatMaps | None) -> NDArray[np.float32] | None:
    if heat_maps is None:
        return None
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float().div(255).unsqueeze(0)
    maps = heat_maps(opened.model, tensor)
    return None if maps is None else maps[0]
