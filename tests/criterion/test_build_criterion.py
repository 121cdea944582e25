"""From the config's terms to the criterion."""

import importlib
from pathlib import Path

import pytest
import torch
from made_terms import TWO, build_one, make_batch, make_section, make_shapes
from sharpstudent.config.run_config import TermSection
from sharpstudent.config.terms import TERMS, TermSpec
from sharpstudent.core.errors import UserError
from sharpstudent.core.schedules import Constant, Progress, Staircase
from sharpstudent.criterion.build import build_criterion
from sharpstudent.criterion.distillation import compute_kd

ALPHA = Staircase(start=0.95, end=0.5, epochs=20)
HARD = TermSection(name="hard", term="hard", weight=ALPHA)
KD = TermSection(
    name="kd",
    term="kd",
    weight=Staircase(start=0.95, end=0.5, epochs=20, complement=True),
    numbers={"temperature": Constant(3.0)},
)
ONE = Constant(1.0)


def at_epoch(epoch: int) -> Progress:
    return Progress(epoch=epoch, step=0, epochs=100, steps_per_epoch=4)


@pytest.mark.parametrize(("epoch", "alpha"), [(1, 0.95), (5, 0.95), (6, 0.85), (11, 0.75), (20, 0.65), (21, 0.5)])
def test_stage_2_follows_the_table_of_the_guide(epoch: int, alpha: float) -> None:
    numbers = build_criterion([HARD, KD], TWO).describe(at_epoch(epoch))
    assert (numbers["hard/weight"], numbers["kd/weight"]) == (alpha, round(1 - alpha, 12))


def test_stage_1_is_hard_labels_alone_and_needs_no_teacher() -> None:
    criterion = build_criterion([TermSection(name="hard", term="hard", weight=ONE)], TWO)
    assert criterion.describe(at_epoch(1)) == {"hard/weight": 1.0}
    assert criterion.sources == frozenset()
    assert list(criterion.module) == []


def test_kd_reaches_the_teachers_logits_at_its_temperature() -> None:
    student, teacher = torch.tensor([[1.0, -1.0], [0.0, 2.0]]), torch.tensor([[2.0, 0.0], [1.0, 0.0]])
    batch = make_batch(2)
    criterion = build_criterion(
        [TermSection(name="kd", term="kd", weight=ONE, numbers={"temperature": Constant(2.5)})],
        TWO,
    )
    total = criterion({"logits": student}, batch, {"teacher": {"logits": teacher}}, at_epoch(1)).total
    assert torch.equal(total, compute_kd(student, teacher, 2.5).mean())
    assert criterion.sources == {"teacher"}
    assert criterion.describe(at_epoch(1)) == {"kd/weight": 1.0, "kd/temperature": 2.5}


def test_the_columns_of_hard_and_kd_are_three_whatever_else_is_set() -> None:
    sections = [make_section("hard", label_smoothing=0.1), make_section("kd")]
    assert list(build_criterion(sections, TWO).describe(at_epoch(1))) == ["hard/weight", "kd/weight", "kd/temperature"]


def test_a_temperature_may_move_and_a_smoothing_may_not() -> None:
    falling = Staircase(start=4.0, end=1.0, epochs=8)
    kd = TermSection(name="kd", term="kd", weight=ONE, numbers={"temperature": falling})
    criterion = build_criterion([kd], TWO)
    assert [criterion.describe(at_epoch(epoch))["kd/temperature"] for epoch in (1, 9)] == [4.0, 1.0]
    hard = TermSection(name="hard", term="hard", weight=ONE, numbers={"label_smoothing": falling})
    with pytest.raises(UserError, match="label_smoothing, which cannot change"):
        build_criterion([hard], TWO)


def test_a_number_that_is_left_out_has_its_default() -> None:
    kd = TermSection(name="kd", term="kd", weight=ONE)
    assert build_criterion([kd], TWO).describe(at_epoch(1))["kd/temperature"] == 3.0


def test_every_registered_term_names_a_function_of_a_file() -> None:
    for spec in TERMS.values():
        file, function = spec.builder.split(":")
        assert callable(getattr(importlib.import_module(f"sharpstudent.criterion.{file}"), function))


def test_a_projection_by_a_name_that_torch_keeps_for_itself_is_refused() -> None:
    shapes = make_shapes(2, student={"a": (2, 3, 4, 4)}, teacher={"a": (2, 5, 4, 4)})
    with pytest.raises(UserError, match="another name"):
        build_one("features", shapes, name="train", student_layer="a", teacher_layer="a")


def test_a_task_s_own_term_is_made_by_a_module_without_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_losses.py").write_text(
        "from sharpstudent.criterion.section import make_term\n\n\n"
        "def build(section, shapes):\n"
        "    def compute(outputs, batch, teacher_outputs):\n"
        "        return -outputs['logits'].log_softmax(1).gather(1, batch.targets['label'][:, None])[:, 0]\n\n"
        "    return make_term(section, compute)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    own = {"mine": TermSpec("my_losses:build", "the cross-entropy, once more")}
    assert build_criterion([TermSection(name="mine", term="mine", weight=ONE)], TWO, more=own).describe(at_epoch(1))


@pytest.mark.parametrize("builder", ["no_such_module:build", "json:no_such_function"])
def test_a_task_s_own_term_that_cannot_be_made_is_reported_with_its_builder(builder: str) -> None:
    section = TermSection(name="mine", term="mine", weight=ONE)
    with pytest.raises(UserError, match=rf"term mine.*cannot be made(.|\n)*{builder}"):
        build_criterion([section], TWO, more={"mine": TermSpec(builder, "nobody makes it")})
