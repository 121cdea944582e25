"""Batches that are split: between samples, also where samples own unequal numbers of rows or share their inputs."""

import sys
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sharpstudent.config.run_config import TermSection
from sharpstudent.config.terms import TermSpec
from sharpstudent.core.errors import UserError
from sharpstudent.core.schedules import Constant
from sharpstudent.core.types import Batch
from sharpstudent.criterion.section import Shapes, make_term
from sharpstudent.criterion.weighted_sum import WeightedTerm
from sharpstudent.train.build import build_step
from tiny_models import make_student
from tiny_runs import TinyTask, make_config
from torch import Tensor

SIZES = st.lists(st.integers(0, 4), min_size=1, max_size=12).filter(any)  # how many rows each sample owns


def make_shared(sizes: list[int]) -> Batch:
    """One picture a sample, also of a sample without rows, that all of its rows read; each is its own number."""
    owners = [sample for sample, size in enumerate(sizes) for _ in range(size)]
    rows = len(owners)
    names = [f"row {row}" for row in range(rows)]
    return Batch(
        inputs={
            "image": torch.arange(len(sizes)).float().reshape(-1, 1),
            "image_index": torch.tensor(owners),
            "box": torch.arange(rows).float(),
        },
        targets={"label": torch.arange(rows)},
        weights={"label": torch.arange(rows).float()},
        rows={"id": names, "group": names, "sample": owners},
        shared={"image": "image_index"},
    )


@given(SIZES, st.integers(1, 14))
@settings(deadline=None, max_examples=150)
def test_each_row_of_each_part_reads_the_picture_that_it_read_in_the_whole(sizes: list[int], parts: int) -> None:
    batch = make_shared(sizes)
    pieces = batch.split(parts)
    assert len(pieces) == min(parts, sum(size > 0 for size in sizes))
    assert [name for piece in pieces for name in piece.rows["id"]] == batch.rows["id"]
    for piece in pieces:
        read = piece.inputs["image"][piece.inputs["image_index"]][:, 0]
        assert read.tolist() == piece.rows["sample"]
        rows = piece.targets["label"].tolist()
        assert piece.inputs["box"].tolist() == piece.weights["label"].tolist() == rows
        assert list(piece.rows["id"]) == [f"row {row}" for row in rows]
        if len(pieces) > 1:  # a part carries no picture that none of its rows reads
            assert len(piece.inputs["image"]) == len(set(piece.rows["sample"]))
    owners = [set(piece.rows["sample"]) for piece in pieces]
    assert sum(map(len, owners)) == len(set.union(*owners))  # no sample is parted


def test_slicing_numbers_shared_inputs_anew() -> None:
    part = make_shared([2, 1, 0, 3])[3:5]
    assert part.inputs["image"][:, 0].tolist() == [3.0]
    assert part.inputs["image_index"].tolist() == [0, 0]
    assert part.shared == {"image": "image_index"}


def test_one_part_is_the_batch_itself() -> None:
    batch = make_shared([2, 3])
    assert batch.split(1)[0] is batch


def compute_coupled(outputs: Mapping[str, Tensor], batch: Batch, teacher_outputs: None) -> Tensor:
    logits = outputs["logits"]
    return (logits @ logits.T).pow(2).mean()


def build_coupled(section: TermSection, shapes: Shapes) -> WeightedTerm:
    return make_term(section, compute_coupled, couples_rows=True)


@pytest.mark.parametrize("keys", [{"micro_batch_size": 2}, {"halve_on_out_of_memory": True}], ids=str)
def test_a_term_that_couples_rows_refuses_micro_batches_with_the_remedy(
    keys: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "made.terms", sys.modules[__name__])  # a module of somebody's own package

    class Coupled(TinyTask):
        terms = {"coupled": TermSpec("made.terms:build_coupled", "each row against each")}  # noqa: RUF012

    section = TermSection(name="coupled", term="coupled", weight=Constant(1.0))
    plain = make_config().model_copy(update={"criterion": (section,)})
    step = build_step(plain, make_student(), None, torch.device("cpu"), task=Coupled())
    assert [term.couples_rows for term in step.criterion.terms] == [True]
    config = replace_compute(plain, **keys)
    with pytest.raises(UserError, match=r"'coupled'.*couples the rows(.|\n)*micro_batch_size=null"):
        build_step(config, make_student(), None, torch.device("cpu"), task=Coupled())


def replace_compute(config, **keys: object):
    return config.model_copy(update={"compute": config.compute.model_copy(update=keys)})
