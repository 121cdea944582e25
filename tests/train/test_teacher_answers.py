"""Teacher's answers that runs share: the steps are the same to the last bit, and no other batch gets them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sharpstudent.core.errors import UserError
from sharpstudent.core.schedules import Progress
from sharpstudent.models.teacher_answers import TeacherAnswers, take_saved_seconds
from sharpstudent.models.teachers import FrozenTeacher
from sharpstudent.train.build import build_step
from sharpstudent.train.debug.nan_inspector import inspect_step
from sharpstudent.train.step import TrainStep
from tiny_models import are_identical, make_batch, make_step, make_student, make_teacher, take_snapshot
from tiny_runs import TinyTask, make_config

CPU = torch.device("cpu")


def start(path: Path | None, teacher: FrozenTeacher, setting: str = "cpu fp32", seed: int = 0) -> TrainStep:
    torch.manual_seed(seed)
    step = make_step(teacher=teacher, parts=2)
    return step if path is None else replace(step, answers=TeacherAnswers(path, teacher, setting))


def run(step: TrainStep, batches: range) -> list[Any]:
    return [step(make_batch(number), Progress(1, number, 1, 8)) for number in batches]


def count(teacher: FrozenTeacher) -> int:
    return len(teacher.model.seen)  # type: ignore[arg-type]


def test_a_second_run_asks_the_teacher_nothing_and_takes_the_same_steps(tmp_path: Path) -> None:
    path, found = tmp_path / "shared/answers.sqlite", []
    for place in (None, path, path):
        teacher = make_teacher()
        step = start(place, teacher)
        found.append((run(step, range(3)), take_snapshot(step), count(teacher)))
    assert found[0][0] == found[1][0] == found[2][0]
    assert are_identical(found[0][1], found[2][1])
    assert [asked for *_, asked in found] == [6, 6, 0]  # two parts of each batch
    saved = take_saved_seconds(path, os.getpid())
    assert saved > 0.0
    assert take_saved_seconds(path, os.getpid()) == 0.0
    assert take_saved_seconds(tmp_path / "none.sqlite", 1) == 0.0


def test_the_size_of_what_a_run_keeps_is_said(tmp_path: Path) -> None:
    answers, example = TeacherAnswers(tmp_path / "answers.sqlite", make_teacher(), "cpu fp32"), make_batch(0)
    outputs = answers.teacher(**example.inputs)
    each = sum(value.nbytes for value in outputs.values()) / len(example)
    line = answers.describe(example, samples=40_091, epochs=2)
    assert f"{each:.0f} bytes a sample, {each * 40_091 / 1e6:.2f} MB an epoch, {each * 2 * 40_091 / 1e6:.2f} MB" in line


@pytest.mark.parametrize("what", ["batch", "teacher", "setting", "temperature"])
def test_what_the_answer_depends_on_makes_another_answer(tmp_path: Path, what: str) -> None:
    path, first = tmp_path / "answers.sqlite", make_teacher()
    run(start(path, first), range(1))
    teacher = make_teacher(seed=10 if what == "teacher" else 9)
    teacher.calibration = 2.0 if what == "temperature" else None
    step = start(path, teacher, setting="cuda fp16" if what == "setting" else "cpu fp32")
    run(step, range(1, 2) if what == "batch" else range(1))
    assert count(teacher) == 2


def test_the_inspector_of_a_step_asks_the_teacher_itself(tmp_path: Path) -> None:
    path, teacher = tmp_path / "answers.sqlite", make_teacher()
    step = start(path, teacher)
    run(step, range(1))
    inspect_step(step, make_batch(0), Progress(1, 1, 1, 8))
    assert count(teacher) == 4


def test_a_damaged_file_ends_the_step_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    path.write_bytes(b"no database" * 100)
    with pytest.raises(UserError, match="cannot be used") as refused:
        run(start(path, make_teacher()), range(1))
    assert f"rm {path}" in refused.value.as_text()


def test_the_key_opens_the_file_and_without_it_there_is_none(tmp_path: Path) -> None:
    for path in (None, str(tmp_path / "answers.sqlite")):
        config = make_config().model_copy(update={"teacher_answers": path})
        teacher = make_teacher()
        step = build_step(config, make_student(), teacher, CPU, task=TinyTask())
        assert (step.answers is None) == (path is None)
