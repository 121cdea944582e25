"""A batch in micro-batches: same loss, terms, gradient and weights, one update, one forward pass of the teacher."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sharpstudent.core.schedules import Constant
from sharpstudent.core.types import Batch, Outputs, StepResult
from sharpstudent.criterion.weighted_sum import WeightedSum, WeightedTerm
from sharpstudent.models.teachers import FrozenTeacher
from sharpstudent.train.step import TrainStep
from tiny_models import (
    START,
    CountingTeacher,
    are_identical,
    build_batch,
    make_batch,
    make_criterion,
    make_full_step,
    make_plain_student,
    make_step,
    make_student,
    make_teacher,
    take_snapshot,
)
from torch import Tensor, nn
from torch.nn import functional as F


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(1234)


def make_double_criterion() -> WeightedSum:
    """Cross entropy and distillation in float64: those of the criterion compute in fp32."""

    def kd(outputs: Outputs, batch: Batch, teacher: Outputs) -> Tensor:
        ours, theirs = (F.log_softmax(x["logits"] / 3.0, dim=1) for x in (outputs, teacher))
        return 9.0 * (theirs.exp() * (theirs - ours)).sum(1)

    def hard(outputs: Outputs, batch: Batch, teacher_outputs: None) -> Tensor:
        return F.cross_entropy(outputs["logits"], batch.targets["label"], reduction="none")

    return WeightedSum(
        [WeightedTerm("hard", hard, Constant(0.6)), WeightedTerm("kd", kd, Constant(0.4), source="teacher")]
    )


def make_plain_step(parts: int, dtype: torch.dtype, *, rho: float, asam: bool = False, base: str = "sgd") -> TrainStep:
    teacher = CountingTeacher()
    teacher.net = make_plain_student(9, dtype=dtype)
    criterion = make_double_criterion() if dtype == torch.float64 else make_criterion()
    student = make_plain_student(dtype=dtype)
    return make_step(
        student, teacher=FrozenTeacher(teacher), criterion=criterion, rho=rho, asam=asam, base=base, parts=parts
    )


def make_batch_of(dtype: torch.dtype, seed: int, images: int = 8, samples: tuple[int, ...] = ()) -> Batch:
    batch = make_batch(seed, images)
    rows = {**batch.rows, "sample": list(samples) or list(range(images))}
    return replace(batch, inputs={"image": batch.inputs["image"].to(dtype)}, rows=rows)


def take_two_steps(step: TrainStep, dtype: torch.dtype, images: int, samples: tuple[int, ...] = ()) -> list[StepResult]:
    results = [step(make_batch_of(dtype, seed, images, samples), START) for seed in range(2)]
    assert all(result.ok for result in results)
    return results


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)], ids=str)
@pytest.mark.parametrize(("rho", "asam"), [(0.0, False), (0.05, False), (0.5, True)])
@pytest.mark.parametrize(
    ("parts", "images", "samples"),
    [
        (2, 8, ()),
        (3, 8, ()),
        (4, 8, ()),
        (8, 8, ()),
        (3, 7, ()),
        (20, 8, ()),
        (2, 8, (0, 1, 1, 1, 1, 1, 1, 2)),  # parts of 7 and 1
        (3, 8, (0, 0, 0, 0, 1, 2, 2, 3)),  # parts of 5, 2 and 1
        (5, 8, (0, 0, 0, 0, 0, 0, 0, 0)),
    ],
    ids=str,
)
def test_parts_give_what_the_whole_batch_gives(
    parts: int, images: int, samples: tuple[int, ...], rho: float, asam: bool, dtype: torch.dtype, tolerance: float
) -> None:
    whole, split = (make_plain_step(n, dtype, rho=rho, asam=asam) for n in (1, parts))
    ones, others = (take_two_steps(step, dtype, images, samples) for step in (whole, split))
    for one, other in zip(ones, others, strict=True):
        assert other.loss == pytest.approx(one.loss, rel=tolerance)
        assert other.perturbed_loss == (pytest.approx(one.perturbed_loss, rel=tolerance) if rho else None)
        assert other.grad_norm == pytest.approx(one.grad_norm, rel=tolerance)
        assert other.terms == pytest.approx(one.terms, rel=tolerance)
        assert other.agreement == pytest.approx(one.agreement, abs=1e-6)
        assert list(other.terms) == ["hard", "kd"]
    for p, q in zip(whole.student.parameters(), split.student.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=tolerance)


def test_with_batchnorm_parts_are_another_step() -> None:
    """Each part is normalised by itself: what the advice on memory says. And so the tests above could fail."""
    results = [make_step(make_student(), parts=n)(make_batch(), START).loss for n in (1, 2)]
    assert abs(results[0] - results[1]) > 1e-4


def test_one_part_is_the_very_batch() -> None:
    batch = make_batch()
    assert batch.split(1)[0] is batch


def test_the_teacher_runs_once_a_micro_batch_and_never_again_in_pass_2() -> None:
    step = make_plain_step(4, torch.float32, rho=0.05)
    seen: list[Tensor] = []
    step.student.register_forward_pre_hook(lambda _, args, given: seen.append(given["image"]), with_kwargs=True)
    batch = make_batch()
    assert step(batch, START).ok
    teacher_inputs = step.teacher.model.seen
    assert [len(images) for images in teacher_inputs] == [2, 2, 2, 2]
    assert len(seen) == 8
    # The same tensors in the same order: first by the teacher, then in pass 1, then in pass 2.
    for teachers, first, second in zip(teacher_inputs, seen[:4], seen[4:], strict=True):
        assert teachers is first is second
    assert torch.equal(torch.cat(teacher_inputs), batch.inputs["image"])


def test_each_part_is_compared_with_the_teachers_outputs_for_that_part() -> None:
    step = make_plain_step(3, torch.float32, rho=0.05)
    pairs: list[tuple[Batch, Outputs]] = []
    real = step.criterion

    class Spy(WeightedSum):
        def __call__(self, outputs, batch, source_outputs, progress, *, totals):
            pairs.append((batch, source_outputs["teacher"]))
            return super().__call__(outputs, batch, source_outputs, progress, totals=totals)

    step.criterion = Spy(real.terms)
    assert step(make_batch(), START).ok
    assert len(pairs) == 6
    for (batch, teacher_outputs), (again, same) in zip(pairs[:3], pairs[3:], strict=True):
        assert batch is again
        assert teacher_outputs is same
        torch.testing.assert_close(teacher_outputs["logits"], step.teacher(**batch.inputs)["logits"])


def test_both_passes_draw_the_same_masks_for_the_same_part_and_other_ones_for_the_next() -> None:
    step = make_step(make_student(), teacher=make_teacher(), parts=2)
    masks: list[Tensor] = []
    step.student.dropout.register_forward_hook(lambda _, args, out: masks.append((out == 0) & (args[0] != 0)))
    assert step(make_batch(), START).ok
    kept = step.student.depth.kept
    assert len(masks) == len(kept) == 4
    for drawn in (masks, kept):
        assert torch.equal(drawn[0], drawn[2])
        assert torch.equal(drawn[1], drawn[3])
    assert not torch.equal(masks[0], masks[1])


def test_batchnorm_statistics_are_those_of_the_parts_one_after_another_in_pass_1() -> None:
    student, alone = make_student(), make_student()
    batch = make_batch()
    for part in batch.split(3):
        alone(part.inputs["image"])
    assert make_step(student, parts=3)(batch, START).ok
    assert int(student.norm.num_batches_tracked) == 3
    assert are_identical(dict(student.named_buffers()), dict(alone.named_buffers()))


def test_the_same_steps_in_parts_from_the_same_state_are_bit_identical() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(7)
        step = make_full_step(parts=3)
        results = [step(make_batch(i), START) for i in range(3)]
        assert all(result.ok for result in results)
        states.append((take_snapshot(step), [vars(result) for result in results]))
    assert are_identical(*states)


def test_a_gradient_that_was_left_in_place_is_no_part_of_the_step() -> None:
    steps = [make_plain_step(2, torch.float32, rho=rho) for rho in (0.0, 0.0, 0.05, 0.05)]
    for step in steps[::2]:
        for p in step.student.parameters():
            p.grad = torch.full_like(p, 1e6)
    for step in steps:
        assert step(make_batch(), START).ok
    for dirty, clean in zip(steps[::2], steps[1::2], strict=True):
        assert are_identical(dirty.student.state_dict(), clean.student.state_dict())


# --- Splitting the batch --------------------------------------------------------------------------------------------

SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=20)  # how many images each sample gives


def make_sized(sizes: list[int]) -> Batch:
    """Each image is its own number; a sample's first is real, and the others are fakes."""
    samples = tuple(sample for sample, size in enumerate(sizes) for _ in range(size))
    labels = torch.tensor([int(place > 0) for size in sizes for place in range(size)])
    names = tuple(str(i) for i in range(len(samples)))
    inputs = torch.arange(len(samples), dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 3, 2, 2).clone()
    rows = {"sample": samples, "mask": inputs[:, 0]}
    return build_batch(inputs, labels, names, **rows)


@given(SIZES, st.integers(1, 25))
@settings(deadline=None, max_examples=150)
def test_every_image_is_in_exactly_one_part_with_all_that_belongs_to_it(sizes: list[int], parts: int) -> None:
    batch = make_sized(sizes)
    pieces = batch.split(parts)
    assert [int(i) for piece in pieces for i in piece.inputs["image"][:, 0, 0, 0]] == list(range(len(batch)))
    for piece in pieces:
        rows = [int(i) for i in piece.inputs["image"][:, 0, 0, 0]]
        assert piece.targets["label"].tolist() == [batch.targets["label"][i].item() for i in rows]
        for names in (piece.rows["id"], piece.rows["clip"], piece.rows["group"]):
            assert list(names) == [str(i) for i in rows]
        assert piece.rows["mask"][:, 0, 0].tolist() == rows
        assert list(piece.rows["sample"]) == [batch.rows["sample"][i] for i in rows]


@given(SIZES, st.integers(1, 25))
@settings(deadline=None, max_examples=150)
def test_no_sample_is_split_and_the_parts_have_nearly_equally_many_samples(sizes: list[int], parts: int) -> None:
    pieces = [set(piece.rows["sample"]) for piece in make_sized(sizes).split(parts)]
    assert len(pieces) == min(parts, len(sizes))
    assert sum(map(len, pieces)) == len(set.union(*pieces)) == len(sizes)
    counts = [len(piece) for piece in pieces]
    assert min(counts) >= 1
    assert max(counts) - min(counts) <= 1
    assert counts[0] == max(counts)  # where memory runs out, it does so at once


def test_a_batch_with_unequal_samples_is_split_between_them() -> None:
    batch = make_sized([1, 3, 2, 1])
    assert [piece.rows["id"] for piece in batch.split(2)] == [["0", "1", "2", "3"], ["4", "5", "6"]]
    assert [len(piece) for piece in batch.split(3)] == [4, 2, 1]
    assert [len(piece) for piece in batch.split(4)] == [1, 3, 2, 1]
    assert [len(piece) for piece in batch.split(9)] == [1, 3, 2, 1]


@given(st.integers(1, 16), st.integers(1, 20))
@settings(deadline=None, max_examples=150)
def test_parts_of_pairs_hold_as_many_reals_as_fakes(pairs: int, parts: int) -> None:
    for piece in make_sized([2] * pairs).split(parts):
        assert piece.targets["label"].tolist() == [0, 1] * (len(piece) // 2)


@given(st.integers(1, 40), st.integers(1, 40))
@settings(deadline=None, max_examples=150)
def test_a_batch_of_samples_of_one_image_is_split_anywhere(images: int, parts: int) -> None:
    batch = make_sized([1] * images)
    batch = replace(batch, rows={name: values for name, values in batch.rows.items() if name != "sample"})
    sizes = [len(piece) for piece in batch.split(parts)]
    assert (len(sizes), sum(sizes)) == (min(parts, images), images)
    assert max(sizes) - min(sizes) <= 1


def test_a_batch_without_masks_stays_without() -> None:
    assert all("mask" not in part.rows for part in make_batch().split(3))


def test_parts_of_images_stored_channels_last_give_the_same_step() -> None:
    """A part is a view of the whole; it must not be read as something else."""
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        step = make_plain_step(3, torch.float32, rho=0.05)
        step.student.to(memory_format=memory_format)
        batch = make_batch().to(torch.device("cpu"), memory_format=memory_format)
        results.append(step(batch, START))
    assert results[1].loss == pytest.approx(results[0].loss, rel=1e-5)
    assert results[1].grad_norm == pytest.approx(results[0].grad_norm, rel=1e-4)
    assert nn.Identity is type(step.student.depth)
