"""docs/adding-a-term.md does what it says."""

import json
import re
import sys
from collections.abc import Generator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from made_terms import TWO, draw, make_batch, make_labels, make_shapes, to_float64
from sharpstudent.config import terms
from sharpstudent.config.run_config import TermSection
from sharpstudent.core.errors import UserError
from sharpstudent.core.schedules import Constant, Progress
from sharpstudent.criterion.build import build_criterion

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-term.md"


def read_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Generator[ModuleType]:
    """The page's file in its place, and its line in the table."""
    file, line = read_blocks("python")
    module = ModuleType("sharpstudent.criterion.margin_loss")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(file, str(PAGE), "exec"), vars(module))
    kept = dict(terms.TERMS)
    exec(compile(line, str(PAGE), "exec"), vars(terms))
    yield module
    terms.TERMS.clear()
    terms.TERMS.update(kept)


def make_sections() -> list[TermSection]:
    """The page's config, with its numbers as schedules."""
    entries = json.loads("{" + read_blocks("json")[0] + "}")["terms"]
    constant = {key: Constant(v) for e in entries for key, v in e.items() if key != "term"}
    return [
        TermSection(
            name=entry["term"],
            term=entry["term"],
            weight=constant["weight"],
            numbers={key: constant[key] for key in entry if key not in ("term", "weight")},
        )
        for entry in entries
    ]


def test_the_page_adds_a_term_that_is_summed_and_logged(page: ModuleType) -> None:
    criterion, progress = build_criterion(make_sections(), TWO), Progress(1, 0, 1, 1)
    outputs, batch = {"logits": draw().requires_grad_()}, make_batch()
    value = criterion(outputs, batch, {}, progress)
    assert list(value.terms) == ["hard", "margin"]
    rows = page.compute_margin_loss(outputs["logits"], batch.targets["label"], 2.0)
    assert value.terms["margin"].item() == rows.mean().item()
    assert value.total.item() == pytest.approx(0.5 * sum(term.item() for term in value.terms.values()), rel=1e-6)
    assert list(criterion.describe(progress)) == ["hard/weight", "margin/weight", "margin/margin"]


@pytest.mark.parametrize("classes", [2, 5])
def test_the_pages_function_equals_its_formula(page: ModuleType, classes: int) -> None:
    logits, labels = draw(16, classes, spread=1.0), make_labels(16, classes)
    z, y = to_float64(logits), labels.numpy()
    leads = [z[i, y[i]] - np.delete(z[i], y[i]).max() for i in range(16)]
    expected = [max(0.0, 1.5 - lead) for lead in leads]
    rows = page.compute_margin_loss(logits, labels, 1.5)
    assert rows.tolist() == pytest.approx(expected, rel=2e-6, abs=1e-6)
    assert rows.mean().item() == pytest.approx(np.mean(expected), rel=2e-6)


def test_the_pages_term_is_alive_and_refuses_a_single_output(page: ModuleType) -> None:
    logits = draw(spread=0.5).requires_grad_()
    page.compute_margin_loss(logits, make_labels(), 1.0).mean().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.norm() > 1e-2
    with pytest.raises(UserError, match="leads no other"):
        build_criterion(make_sections()[1:], make_shapes(1))
