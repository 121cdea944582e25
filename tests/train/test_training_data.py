"""What a training run opens: the splits train and validation, which have samples and share no group."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from made_samples import MadeSamples
from sharpstudent.core.errors import UserError
from sharpstudent.data.dataset import Samples
from sharpstudent.task import ClassificationTask, ModelSpec, TaskSection
from sharpstudent.train.build import open_training_data
from torch import nn


class Part(MadeSamples):
    """Samples of the people of these numbers."""

    def __init__(self, *people: int, notes: tuple[str, ...] = (), depends_on: tuple[Path, ...] = ()) -> None:
        super().__init__(len(people))
        self.people, self.notes, self.depends_on = people, notes, depends_on

    def group(self, index: int) -> str:
        return f"person {self.people[index]:02d}"


class RecordingTask(ClassificationTask):
    """Records which splits were requested."""

    class Section(TaskSection):
        pass

    classes = ("no", "yes")
    group_unit = "speaker"
    splits: ClassVar[dict[str, Samples]] = {}

    def open_data(self, *splits: str) -> tuple[Samples, ...]:
        self.requested.append(splits)
        return tuple(self.splits[split] for split in splits)

    def build_student(self, spec: ModelSpec) -> nn.Module:
        raise NotImplementedError

    @property
    def requested(self) -> list[tuple[str, ...]]:
        return self.__dict__.setdefault("_requested", [])


def make_task(train: Samples, validation: Samples, *, allow: tuple[str, ...] = ()) -> RecordingTask:
    task = RecordingTask(allow=allow)
    task.splits = {"train": train, "validation": validation}  # type: ignore[misc]
    return task


def test_training_opens_train_and_validation_at_once_and_nothing_else() -> None:
    task = make_task(Part(0, 1, 1), Part(2))
    data = open_training_data(task)
    assert task.requested == [("train", "validation")]
    assert (len(data.train), len(data.validation)) == (3, 1)


def test_a_group_in_training_and_validation_is_refused_by_name_in_the_words_of_the_task() -> None:
    with pytest.raises(UserError) as caught:
        open_training_data(make_task(Part(0, 1, 2, 2), Part(2, 3, 1)))
    (problem,) = caught.value.problems
    assert problem.what == "2 speakers in training and in validation at once"
    assert problem.got == "person 01, person 02"
    assert "--allow shared-people" in str(problem.remedy)


def test_many_shared_groups_are_counted_and_some_of_them_named() -> None:
    with pytest.raises(UserError) as caught:
        open_training_data(make_task(Part(*range(12)), Part(*range(12))))
    (problem,) = caught.value.problems
    assert problem.what.startswith("12 speakers")
    assert problem.got == "person 00, person 01, person 02, person 03, person 04, ..."


def test_allow_shared_people_permits_shared_groups() -> None:
    data = open_training_data(make_task(Part(0, 1), Part(1), allow=("shared-people",)))
    assert data.train.find_groups() & data.validation.find_groups() == {"person 01"}


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_split_without_samples_is_refused_by_name(split: str) -> None:
    parts = {"train": Part(0), "validation": Part(1)} | {split: Part()}
    with pytest.raises(UserError, match=f"split {split}"):
        open_training_data(make_task(parts["train"], parts["validation"]))


def test_notes_and_dependencies_of_both_splits_are_listed_once() -> None:
    listed = (Path("list.csv"),)
    train = Part(0, notes=("from list.csv", "2 left out"), depends_on=listed)
    validation = Part(1, notes=("from list.csv",), depends_on=(*listed, Path("more.csv")))
    data = open_training_data(make_task(train, validation))
    assert data.notes == ("from list.csv", "2 left out")
    assert data.depends_on == (Path("list.csv"), Path("more.csv"))


def test_groups_are_known_without_making_a_sample() -> None:
    class Unmakeable(Part):
        def make(self, index: int, rng: np.random.Generator) -> None:  # type: ignore[override]
            raise AssertionError("a sample was made")

    open_training_data(make_task(Unmakeable(0, 1), Unmakeable(2)))
