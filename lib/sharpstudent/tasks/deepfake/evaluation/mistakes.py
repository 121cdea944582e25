"""Finds the faces that models are most wrong about, with the pictures of a gallery: what to look at first.

The gallery shows many people rather than one many times: of each person one picture at most, and no picture twice,
over all models and sets. People are the same where their names are, also in different sets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sharpstudent.core.random import build_generator
from sharpstudent.core.types import Table
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.evaluation.opened import OpenedModel
from sharpstudent.modalities.faces.crop import compute_phash
from sharpstudent.tasks.deepfake.evaluation.evaluation_set import FaceSet, find_input
from sharpstudent.tasks.deepfake.evaluation.frames import ScoredFrames
from sharpstudent.tasks.deepfake.metrics import compute_probabilities
from sharpstudent.tasks.deepfake.report.pictures import MOST_CARDS, ReportPicture
from sharpstudent.tasks.deepfake.report.results import MistakeResult

MOST = 12  # of each model
ALIKE = 8  # bits of 64 in which the perceptual hashes of one picture differ at most, as in prepare/check_near.py
HeatMaps = Callable[[torch.nn.Module, torch.Tensor], NDArray[np.float32] | None]


@dataclass(frozen=True)
class Judged:
    """A model with what it was asked.

    Attributes:
        opened: The opened model.
        tables: The model's table of each set.
        temperature: The temperature that is stored with it; None without one.
        heat_maps: Computes heat maps of the model; None for no heat maps.
    """

    opened: OpenedModel
    tables: Sequence[Table]
    temperature: float | None = None
    heat_maps: HeatMaps | None = None


@dataclass(frozen=True)
class _Wrong:
    """A face on the wrong side of one half: its set and row, and how far it is on the wrong side [log-odds]."""

    distance: float
    place: int
    row: int
    face: ScoredFrames

    @property
    def person(self) -> str:
        return self.face.groups[0]


def find_mistakes(
    models: Sequence[Judged],
    sets: Sequence[FaceSet],
    unreadable: Sequence[dict[str, str]],
    *,
    most: int = MOST,
    tick: Callable[[], None] = lambda: None,
) -> tuple[list[MistakeResult], list[ReportPicture]]:
    """Find the faces furthest on the wrong side of a probability of one half, and choose those that are shown.

    The models take turns: each shows its worst face of a person who is not shown yet, until there are `MOST_CARDS`.

    Args:
        models: The models.
        sets: The data sets.
        unreadable: Faces of each set that could not be read, by name with the reason; their substitutes are passed
            over.
        most: The largest number of mistakes of each model besides those that are shown, at most one of each person. Of
            equally wrong faces the first by name are taken.
        tick: Called for each picture that is chosen.

    Returns:
        The mistakes of each model, the worst first, and the pictures of those that are shown.
    """
    wrong = [_list_wrong(one, sets, unreadable) for one in models]
    gallery = _Gallery(models, sets, wrong, tick)
    gallery.fill()
    mistakes = [
        _describe(models[number], sets, one, gallery.shown.get((number, place)))
        for number, of_model in enumerate(wrong)
        for place, one in enumerate(of_model)
        if place < most or (number, place) in gallery.shown
    ]
    return mistakes, gallery.pictures


class _Gallery:
    """The pictures that are shown. `shown` says which: the number of each by the numbers of model and mistake."""

    def __init__(
        self, models: Sequence[Judged], sets: Sequence[FaceSet], wrong: Sequence[list[_Wrong]], tick: Callable[[], None]
    ) -> None:
        self.pictures: list[ReportPicture] = []
        self.shown: dict[tuple[int, int], int] = {}
        self._models, self._sets, self._tick = models, sets, tick
        self._left = [iter(enumerate(of_model)) for of_model in wrong]
        self._people: set[str] = set()
        self._hashes: list[int] = []

    def fill(self) -> None:
        """Let the models take turns, until there are enough pictures or none is left."""
        left = set(range(len(self._models)))
        while left:
            for number in sorted(left):
                if len(self.pictures) == MOST_CARDS:
                    return
                if not self._show_next(number):
                    left.remove(number)

    def _show_next(self, number: int) -> bool:
        """Show the worst mistake of a model of a person who is not shown yet; return whether there is one."""
        for place, one in self._left[number]:
            image = None if one.person in self._people else _load(self._models[number], self._sets, one)
            if image is None or self._is_shown(own := compute_phash(image)):
                continue
            self.shown[number, place] = len(self.pictures)
            self.pictures.append(ReportPicture(image, _explain(self._models[number], image)))
            self._people.add(one.person)
            self._hashes.append(own)
            self._tick()
            return True
        return False

    def _is_shown(self, own: int) -> bool:
        return any((own ^ other).bit_count() <= ALIKE for other in self._hashes)


def _list_wrong(model: Judged, sets: Sequence[FaceSet], unreadable: Sequence[dict[str, str]]) -> list[_Wrong]:
    """List the faces that a model is wrong about, of each person the worst, the worst person first."""
    worst: dict[str, tuple[float, str, str, _Wrong]] = {}
    for place, (of_set, table) in enumerate(zip(sets, model.tables, strict=True)):
        faces = of_set.list_faces(table)
        distances = np.where(faces.labels == 1, -faces.margins, faces.margins)
        is_wrong = np.where(faces.labels == 1, faces.margins < 0.0, faces.margins >= 0.0)
        for row in np.flatnonzero(is_wrong).tolist():
            name, person = faces.sample_ids[row], faces.groups[row]
            rank = (-float(distances[row]), of_set.name, name)
            if name in unreadable[place] or (person in worst and worst[person][:3] <= rank):
                continue
            worst[person] = (*rank, _Wrong(float(distances[row]), place, row, faces.take(np.array([row]))))
    return [one for *_, one in sorted(worst.values(), key=lambda ranked: ranked[:3])]


def _load(model: Judged, sets: Sequence[FaceSet], one: _Wrong) -> NDArray[np.uint8] | None:
    """Load the picture of a face as the model saw it, without views; None where it cannot be read again."""
    source = sets[one.place].open(find_input(model.opened.input_key).image_size)
    index, visit, place = model.tables[one.place]["key"][one.row].tolist()
    try:
        sample = source.make(index, build_generator(source.seed, 0, index + visit * len(source)))
    except UnreadableSample:  # gone since it was evaluated
        return None
    return sample.inputs["image"][place] if sample.rows["id"][place] == one.face.sample_ids[0] else None


def _explain(model: Judged, image: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    if model.heat_maps is None:
        return None
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float().div(255).unsqueeze(0)
    maps = model.heat_maps(model.opened.model, tensor)
    return None if maps is None else maps[0]


def _describe(model: Judged, sets: Sequence[FaceSet], one: _Wrong, picture: int | None) -> MistakeResult:
    label = int(one.face.labels[0])
    calibrated = None if model.temperature is None else compute_probabilities(one.face.margins, model.temperature)
    return MistakeResult(
        model=model.opened.name,
        source=sets[one.place].name,
        sample_id=one.face.sample_ids[0],
        clip_id=one.face.clip_ids[0],
        manipulation=one.face.manipulations[0] if label == 1 else "",
        label=label,
        probability=float(compute_probabilities(one.face.margins)[0]),
        calibrated=None if calibrated is None else float(calibrated[0]),
        picture=picture,
    )
