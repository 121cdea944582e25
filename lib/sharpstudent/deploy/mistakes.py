"""The samples that a model judged worst, with their pictures: what to look at first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sharpstudent.core.random import build_generator
from sharpstudent.data.dataset import ItemSource, UnreadableItem
from sharpstudent.evaluation.evaluate import JudgedModel, JudgedSet, Samples
from sharpstudent.report.html import ReportPicture
from sharpstudent.report.results import MistakeResult

MOST = 12  # of each model
HeatMaps = Callable[[torch.nn.Module, torch.Tensor], NDArray[np.float32] | None]


@dataclass(frozen=True)
class _Wrong:
    """A sample of a set by its number, and how far it lies on the wrong side of one half [log-odds]."""

    of_set: int
    index: int
    distance: float
    name: str


def find_mistakes(
    model: JudgedModel,
    sets: Sequence[JudgedSet],
    unreadable: Sequence[dict[str, str]],
    *,
    first_picture: int,
    heat_maps: HeatMaps | None = None,
    most: int = MOST,
) -> tuple[list[MistakeResult], list[ReportPicture]]:
    """The samples furthest on the wrong side of one half, worst first; none that was judged right, and none that could
    not be read: another was judged in its place.

    first_picture: number of this model's first picture in the report. Of equally wrong samples the first by name.
    """
    samples = [judged.list_samples(scores) for judged, scores in zip(sets, model.scores, strict=True)]
    wrong = [
        one
        for number, of_set in enumerate(samples)
        for one in _list_wrong(number, of_set, unreadable=unreadable[number], most=most)
    ]
    mistakes: list[MistakeResult] = []
    pictures: list[ReportPicture] = []
    for one in sorted(wrong, key=lambda one: (-one.distance, sets[one.of_set].name, one.name))[:most]:
        judged, of_set = sets[one.of_set], samples[one.of_set]
        image = _load(judged.build_source(model.opened.image_size), judged.seed, of_set.names, one.name)
        picture = None if image is None else ReportPicture(image, _explain(model, image, heat_maps))
        number = None if picture is None else first_picture + len(pictures)
        mistakes.append(_describe(model, judged.name, one.index, of_set, number))
        pictures += [] if picture is None else [picture]
    return mistakes, pictures


def _list_wrong(of_set: int, samples: Samples, *, unreadable: Mapping[str, str], most: int) -> list[_Wrong]:
    """The most wrong ones of a set, each once, and those that tie with the last of them."""
    distances = np.where(samples.labels == 1, -samples.margins, samples.margins)
    wrong = np.flatnonzero(np.where(samples.labels == 1, samples.margins < 0.0, samples.margins >= 0.0))
    # A sample that stood in for another has two rows. One that could not be read has the score of its stand-in.
    first = {samples.names[row]: row for row in reversed(wrong.tolist()) if samples.names[row] not in unreadable}
    least = np.sort(distances[list(first.values())])[-most:][0] if first else 0.0
    return [_Wrong(of_set, row, float(distances[row]), name) for name, row in first.items() if distances[row] >= least]


def _load(source: ItemSource, seed: int, names: Sequence[str], name: str) -> NDArray[np.uint8] | None:
    """The picture of this name as the model saw it; None where it cannot be read again. names: of all rows; each item
    has as many of them.
    """
    per_item = len(names) // len(source)
    for row in (row for row, other in enumerate(names) if other == name):
        index, place = divmod(row, per_item)
        try:
            item = source.make(index, build_generator(seed, 0, index))
        except UnreadableItem:  # gone since it was judged, or another stood in for it
            continue
        if item.sample_ids[place] == name:
            return item.images[place]
    return None


def _explain(model: JudgedModel, image: NDArray[np.uint8], heat_maps: HeatMaps | None) -> NDArray[np.float32] | None:
    if heat_maps is None:
        return None
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float().div(255).unsqueeze(0)
    maps = heat_maps(model.opened.model, tensor)
    return None if maps is None else maps[0]


def _describe(model: JudgedModel, source: str, index: int, samples: Samples, picture: int | None) -> MistakeResult:
    label = int(samples.labels[index])
    return MistakeResult(
        model=model.opened.name,
        source=source,
        sample_id=samples.names[index],
        clip_id=samples.clip_ids[index],
        manipulation=samples.manipulations[index] if label == 1 else "",
        label=label,
        probability=float(0.5 * (1.0 + np.tanh(0.5 * samples.margins[index]))),
        picture=picture,
    )
