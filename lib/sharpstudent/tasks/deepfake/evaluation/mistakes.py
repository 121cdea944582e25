"""The samples that a model judged worst, with their pictures: what to look at first."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from sharpstudent.core.random import build_generator
from sharpstudent.core.types import Table
from sharpstudent.data.dataset import Samples, UnreadableSample
from sharpstudent.evaluation.opened import OpenedModel
from sharpstudent.tasks.deepfake.report.pictures import ReportPicture
from sharpstudent.tasks.deepfake.report.results import MistakeResult

MOST = 12  # of each model
HeatMaps = Callable[[torch.nn.Module, torch.Tensor], NDArray[np.float32] | None]


@dataclass(frozen=True)
class Pictures:
    """N of each, in the order of a table. labels: int64, real 0, fake 1; margins: float64, log-odds of fake; names:
    as the user knows the pictures; keys int64 (N, 3): index, visit and place of the sample that each was made of.
    """

    labels: NDArray[np.int64]
    margins: NDArray[np.float64]
    names: Sequence[str]
    clip_ids: Sequence[str]
    manipulations: Sequence[str]
    keys: NDArray[np.int64]


class PictureSet(Protocol):
    """A data set whose pictures can be shown."""

    @property
    def name(self) -> str: ...

    def open(self, input_key: Hashable) -> Samples: ...

    def list_pictures(self, table: Table) -> Pictures:
        """Its pictures in the order of the table."""
        ...


@dataclass(frozen=True)
class _Wrong:
    """A sample of a set by its number, and how far it lies on the wrong side of one half [log-odds]."""

    of_set: int
    index: int
    distance: float
    name: str


def find_mistakes(
    opened: OpenedModel,
    tables: Sequence[Table],
    sets: Sequence[PictureSet],
    unreadable: Sequence[dict[str, str]],
    *,
    first_picture: int,
    heat_maps: HeatMaps | None = None,
    most: int = MOST,
) -> tuple[list[MistakeResult], list[ReportPicture]]:
    """The samples furthest on the wrong side of one half, worst first; none that was judged right.

    first_picture: number of this model's first picture in the report. Of equally wrong samples the first by name.
    """
    samples = [judged.list_pictures(table) for judged, table in zip(sets, tables, strict=True)]
    spare = most + sum(map(len, unreadable))  # stand-ins are passed over
    wrong = [one for number, of_set in enumerate(samples) for one in _list_wrong(number, of_set, spare)]
    mistakes: list[MistakeResult] = []
    pictures: list[ReportPicture] = []
    for one in sorted(wrong, key=lambda one: (-one.distance, sets[one.of_set].name, one.name)):
        if len(mistakes) == most:
            break
        if one.name in unreadable[one.of_set]:
            continue  # another face was judged in its place
        image = _load(sets[one.of_set], opened.input_key, one, samples[one.of_set])
        picture = None if image is None else ReportPicture(image, _explain(opened, image, heat_maps))
        number = None if picture is None else first_picture + len(pictures)
        mistakes.append(_describe(opened.name, sets[one.of_set].name, one.index, samples[one.of_set], number))
        pictures += [] if picture is None else [picture]
    return mistakes, pictures


def _list_wrong(of_set: int, samples: Pictures, most: int) -> list[_Wrong]:
    """The most wrong ones of a set, and those that tie with the last of them."""
    distances = np.where(samples.labels == 1, -samples.margins, samples.margins)
    wrong = np.flatnonzero(np.where(samples.labels == 1, samples.margins < 0.0, samples.margins >= 0.0))
    if len(wrong) > most:
        least = np.partition(distances[wrong], -most)[-most]
        wrong = wrong[distances[wrong] >= least]
    return [_Wrong(of_set, int(i), float(distances[i]), samples.names[i]) for i in wrong.tolist()]


def _load(judged: PictureSet, input_key: Hashable, one: _Wrong, samples: Pictures) -> NDArray[np.uint8] | None:
    """The picture as the model saw it; None where it cannot be read again."""
    source = judged.open(input_key)
    index, visit, place = samples.keys[one.index].tolist()
    try:
        sample = source.make(index, build_generator(source.seed, 0, index + visit * len(source)))
    except UnreadableSample:  # gone since it was judged
        return None
    return sample.inputs["image"][place] if sample.rows["id"][place] == one.name else None


def _explain(opened: OpenedModel, image: NDArray[np.uint8], heat_maps: HeatMaps | None) -> NDArray[np.float32] | None:
    if heat_maps is None:
        return None
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float().div(255).unsqueeze(0)
    maps = heat_maps(opened.model, tensor)
    return None if maps is None else maps[0]


def _describe(model: str, source: str, index: int, samples: Pictures, picture: int | None) -> MistakeResult:
    label = int(samples.labels[index])
    return MistakeResult(
        model=model,
        source=source,
        sample_id=samples.names[index],
        clip_id=samples.clip_ids[index],
        manipulation=samples.manipulations[index] if label == 1 else "",
        label=label,
        probability=float(0.5 * (1.0 + np.tanh(0.5 * samples.margins[index]))),
        picture=picture,
    )
