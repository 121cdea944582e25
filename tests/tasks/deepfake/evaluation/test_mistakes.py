"""The gallery of mistakes: many people, each once, and no picture twice, over all models and sets."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sharpstudent.core.types import Sample
from sharpstudent.tasks.deepfake.evaluation.frames import ScoredFrames
from sharpstudent.tasks.deepfake.evaluation.mistakes import Judged, find_mistakes
from sharpstudent.tasks.deepfake.report.pictures import MOST_CARDS


def make_picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)


class MadeSet:
    """Fakes of people; `pictures` are the numbers of their pictures. Equal numbers are equal pictures."""

    seed = 0

    def __init__(self, name: str, people: list[str], pictures: list[int]) -> None:
        self.name, self._people, self._pictures = name, people, pictures

    def __len__(self) -> int:
        return len(self._people)

    def open(self, _: object) -> Any:
        return self

    def name_face(self, index: int) -> str:
        return f"{self._people[index]}/{index}.png"

    def make(self, index: int, _: object) -> Sample:
        image = make_picture(self._pictures[index])[np.newaxis]
        return Sample(inputs={"image": image}, targets={}, rows={"id": [self.name_face(index)]})

    def list_faces(self, table: Any) -> ScoredFrames:
        names = [self.name_face(index) for index in range(len(self))]
        return ScoredFrames(
            margins=table["margin"],
            labels=np.ones(len(self), np.int64),
            sample_ids=names,
            clip_ids=names,
            groups=self._people,
            sources=[self.name] * len(self),
            manipulations=["swap"] * len(self),
        )

    def judge(self, margins: list[float]) -> Any:
        key = np.array([[index, 0, 0] for index in range(len(self))])
        return {"margin": np.array(margins), "key": key}


def find(sets: list[MadeSet], *margins: list[list[float]], temperature: float | None = None) -> tuple[list[Any], int]:
    judged = [
        Judged(
            SimpleNamespace(name=f"m{number}", input_key=32),  # type: ignore[arg-type]
            [one.judge(of_set) for one, of_set in zip(sets, of_model, strict=True)],
            temperature,
        )
        for number, of_model in enumerate(margins)
    ]
    mistakes, pictures = find_mistakes(judged, sets, [{} for _ in sets])  # type: ignore[arg-type]
    return mistakes, len(pictures)


def test_a_person_is_shown_once_over_all_models_and_sets_and_the_models_take_turns() -> None:
    sets = [MadeSet("a", ["ann", "ann", "ben", "cid"], [0, 1, 2, 3]), MadeSet("b", ["ann", "dan"], [4, 5])]
    mistakes, pictures = find(sets, [[-4, -5, -3, -2], [-9, -1]], [[-4, -5, -3, -2], [-9, -1]])
    shown = [(one.model, one.sample_id) for one in mistakes if one.picture is not None]
    assert shown == [("m0", "ann/0.png"), ("m0", "cid/3.png"), ("m1", "ben/2.png"), ("m1", "dan/1.png")]
    assert pictures == 4
    assert [one.source for one in mistakes if one.sample_id == "ann/0.png"] == ["b", "b"]  # its worst is there
    assert sorted(one.picture for one in mistakes if one.picture is not None) == [0, 1, 2, 3]


def test_one_picture_under_two_names_is_shown_once() -> None:
    sets = [MadeSet("a", ["ann", "ben"], [7, 8]), MadeSet("b", ["zoe"], [7])]
    mistakes, pictures = find(sets, [[-3, -1], [-2]])
    assert [one.sample_id for one in mistakes if one.picture is not None] == ["ann/0.png", "ben/1.png"]
    assert pictures == 2
    assert len(mistakes) == 3  # the other is in the table


def test_a_probability_is_the_calibrated_one_too_where_a_temperature_is_stored() -> None:
    sets = [MadeSet("a", ["ann"], [1])]
    (plain,), _ = find(sets, [[-2.0]])
    (after,), _ = find(sets, [[-2.0]], temperature=2.0)
    assert plain.calibrated is None
    assert after.probability == plain.probability == pytest.approx(1 / (1 + np.exp(2.0)))
    assert after.calibrated == pytest.approx(1 / (1 + np.exp(1.0)))


def test_there_are_no_more_pictures_than_the_page_shows() -> None:
    many = MadeSet("a", [f"p{number}" for number in range(60)], list(range(60)))
    _, pictures = find([many], [[-1.0 - number for number in range(60)]])
    assert pictures == MOST_CARDS
