"""The samples that a model judged worst, with their pictures: what to look at first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    batch_size: int,
    first_picture: int,
    heat_maps: HeatMaps | None = None,
    most: int = MOST,
) -> tuple[list[MistakeResult], list[ReportPicture]]:
    """The samples furthest on the wrong side of one half, worst first; none that was judged right.

    batch_size: with which they were judged; first_picture: number of this model's first picture in the report. Of
    equally wrong samples the first by name.
    """
    samples = [judged.list_samples(scores) for judged, scores in zip(sets, model.scores, strict=True)]
    spare = most + sum(map(len, unreadable))  # stand-ins are passed over
    wrong = [one for number, of_set in enumerate(samples) for one in _list_wrong(number, of_set, spare)]
    mistakes: list[MistakeResult] = []
    pictures: list[ReportPicture] = []
    for one in sorted(wrong, key=lambda one: (-one.distance, sets[one.of_set].name, one.name)):
        if len(mistakes) == most:
            break
        if one.name in unreadable[one.of_set]:
            continue  # another face was judged in its place
        image = _load(sets[one.of_set], model.opened.image_size, one, samples[one.of_set], batch_size)
        picture = None if image is None else ReportPicture(image, _explain(model, image, heat_maps))
        number = None if picture is None else first_picture + len(pictures)
        mistakes.append(_describe(model, sets[one.of_set].name, one.index, samples[one.of_set], number))
        pictures += [] if picture is None else [picture]
    return mistakes, pictures


def _list_wrong(of_set: int, samples: Samples, most: int) -> list[_Wrong]:
    """The most wrong ones of a set, and those that tie with the last of them."""
    distances = np.where(samples.labels == 1, -samples.margins, samples.margins)
    wrong = np.flatnonzero(np.where(samples.labels == 1, samples.margins < 0.0, samples.margins >= 0.0))
    if len(wrong) > most:
        least = np.partition(distances[wrong], -most)[-most]
        wrong = wrong[distances[wrong] >= least]
    return [_Wrong(of_set, int(i), float(distances[i]), samples.names[i]) for i in wrong.tolist()]


def _load(
    judged: JudgedSet, image_size: int, one: _Wrong, samples: Samples, batch_size: int
) -> NDArray[np.uint8] | None:
    """The picture as the model saw it; None where it cannot be found or read again.

    Within a batch the loader may have sorted the samples: their item is looked for among those of the batch.
    """
    source = judged.build_source(image_size)
    per_batch = batch_size * (len(samples.names) // max(1, len(source)))
    start = one.index // max(1, per_batch) * batch_size
    for item_index in range(start, min(start + batch_size, len(source))):
        if one.name.startswith(source.name_of(item_index)):
            image = _make(source, item_index, one.name, judged.seed)
            if image is not None:
                return image
    return None


def _make(source: ItemSource, item_index: int, name: str, seed: int) -> NDArray[np.uint8] | None:
    try:
        item = source.make(item_index, build_generator(seed, 0, item_index))
    except UnreadableItem:  # gone since it was judged
        return None
    return item.images[item.sample_ids.index(name)] if name in item.sample_ids else None


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
