"""Distillation from the student's averaged weights: kd with another source."""

import pytest
import torch
from made_terms import TWO, build_one, draw, make_batch, make_section, make_shapes, take_gradient
from sharpstudent.core.errors import UserError
from sharpstudent.criterion.build import build_criterion
from sharpstudent.criterion.distillation import compute_kd


def test_it_is_kd_against_the_averages_logits() -> None:
    term = build_one("self", temperature=2.0)
    student, average = draw(seed=0).requires_grad_(), draw(seed=1).requires_grad_()
    rows = term.compute({"logits": student}, make_batch(), {"logits": average}, temperature=2.0)
    assert torch.equal(rows, compute_kd(student, average, 2.0))
    assert take_gradient(rows.mean(), student).norm() > 1e-2
    assert (term.source, term.module) == ("ema", None)


def test_no_gradient_reaches_the_average() -> None:
    student, average = draw(seed=0).requires_grad_(), draw(seed=1).requires_grad_()
    build_one("self").compute({"logits": student}, make_batch(), {"logits": average}, temperature=3.0).mean().backward()
    assert student.grad is not None
    assert average.grad is None


def test_beside_kd_each_term_gets_the_outputs_of_its_own_source() -> None:
    criterion = build_criterion([make_section("kd"), make_section("self")], TWO)
    assert criterion.sources == {"teacher", "ema"}


def test_one_output_is_refused() -> None:
    with pytest.raises(UserError, match="always 1"):
        build_one("self", make_shapes(1))
