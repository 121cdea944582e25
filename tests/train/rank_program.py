"""Takes the steps of `test_rank_step.py`, alone or as one rank of several, and writes what came of them.

python rank_program.py OUT     in the environment that torchrun sets
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from sharpstudent.core.ranks import Ranks, join_ranks
from sharpstudent.core.schedules import Constant, Progress
from sharpstudent.core.types import Batch, StepResult
from sharpstudent.criterion.classification import compute_cross_entropy
from sharpstudent.criterion.weighted_sum import WeightedSum, WeightedTerm
from sharpstudent.optim.average import WeightAverage
from sharpstudent.optim.build import LossScale
from sharpstudent.optim.cheap_sam import CheapSAM, SamVariant, find_norm_parameters
from sharpstudent.optim.start_weights import StartWeights
from sharpstudent.train.rank_step import RankStep
from sharpstudent.train.step import TrainStep
from tiny_models import (
    are_identical,
    build_batch,
    make_criterion,
    make_plain_student,
    make_step,
    make_student,
    make_teacher,
    take_snapshot,
)
from torch import nn

ROWS = 7  # two ranks then have unlike shares
VARIANTS: Mapping[str, dict[str, Any]] = {
    "every": {"every": 3},
    "adaptive": {"is_adaptive": True},
    "friendly": {"is_friendly": True},
    "norms": {"only": True},
}


def at(step: int) -> Progress:
    return Progress(1 + step // 5, step % 5, 10, 5)


def draw(step: int, dtype: torch.dtype = torch.float64) -> Batch:
    generator = torch.Generator().manual_seed(step)
    images = torch.rand(ROWS, 3, 9, 9, generator=generator, dtype=dtype)
    batch = build_batch(images, torch.randint(2, (ROWS,), generator=generator))
    batch.weights["odd"] = (torch.arange(ROWS) % 2).to(dtype)
    return batch


def share(batch: Batch, ranks: Ranks | None) -> Batch:
    if ranks is None:
        return batch
    rows = ranks.share(range(len(batch)))
    return batch[rows[0] : rows[-1] + 1]


def join(step: TrainStep, ranks: Ranks | None, *, is_local: bool = False) -> TrainStep:
    if ranks is not None:
        step.others = RankStep(ranks, step.student, step.criterion, step.compute_loss, is_local=is_local)
    return step


def build(ranks: Ranks | None, **settings: Any) -> TrainStep:
    student = make_plain_student(dtype=torch.float64)
    teacher = make_teacher().double()
    return join(make_step(student, **{"teacher": teacher, "parts": 2, "clip_norm": 0.5, **settings}), ranks)


def vary(ranks: Ranks | None, variant: dict[str, Any]) -> TrainStep:
    step = build(None)
    only = find_norm_parameters(step.student) if "only" in variant else None
    step.optimizer = CheapSAM(step.optimizer.base_optimizer, SamVariant(**{**variant, "only": only}), rho=0.05)
    return join(step, ranks)


def build_with_projection(ranks: Ranks | None) -> TrainStep:
    """A term with a matrix of its own, on rows of weight 1 that the ranks do not have equally often."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        matrix = nn.Linear(2, 2).double()
    term = WeightedTerm(
        "projected",
        lambda o, batch, t: compute_cross_entropy(matrix(o["logits"]), batch.targets["label"]),
        Constant(0.5),
        where="odd",
        module=matrix,
    )
    criterion = WeightedSum([*make_criterion(kd=None).terms, term])
    step = build(None, teacher=None, criterion=criterion)
    step.optimizer.base_optimizer.add_param_group({"params": list(matrix.parameters())})
    return join(step, ranks)


def take(step: TrainStep, ranks: Ranks | None, count: int, dtype: torch.dtype = torch.float64) -> list[StepResult]:
    return [step(share(draw(number, dtype), ranks), at(number)) for number in range(count)]


def describe(step: TrainStep, results: list[StepResult]) -> dict[str, Any]:
    return {
        "weights": [p.detach().clone() for p in step.optimizer.parameters],
        "buffers": [b.detach().clone() for b in step.student.buffers()],
        "losses": [(one.loss, one.perturbed_loss, one.grad_norm, one.agreement, one.terms) for one in results],
        "reasons": [one.reason for one in results],
    }


def spoil(ranks: Ranks | None, place: str) -> dict[str, Any]:
    """A fault on the last rank in the third of five steps: in its pictures, or in its loss."""
    step = join(make_step(make_student(), teacher=make_teacher(), average=None), ranks)
    step.average = WeightAverage(step.student, decay=0.9)
    results, same = [], None
    for number in range(5):
        batch = share(draw(number, torch.float32), ranks)
        is_here = number == 2 and (ranks is None or ranks.number == ranks.count - 1)
        if is_here and place == "input":
            batch.inputs["image"][0, 0, 0, 0] = float("nan")
        if is_here and place == "loss":
            batch.inputs["image"][0] = 3e38  # finite, and its convolution is not
        before = take_snapshot(step)
        results.append(step(batch, at(number)))
        if number == 2:
            same = are_identical(before, take_snapshot(step))
    return {**describe(step, results), "same": same}


def overflow(ranks: Ranks | None) -> dict[str, Any]:
    scale = LossScale("cpu", initial=2.0**24)
    step = join(make_step(make_student(), autocast=torch.float16, loss_scale=scale), ranks)
    results = take(step, ranks, 4, torch.float32)
    return {**describe(step, results), "scale": scale.value}


def run_cases(ranks: Ranks | None) -> dict[str, Any]:
    torch.manual_seed(7 + (0 if ranks is None else ranks.number))
    made: dict[str, Any] = {}
    for name, settings in {
        "plain": {},
        "asam": {"asam": True},
        "one part": {"parts": 1},
        "adamw": {"base": "adamw"},
        "pulled": {},
    }.items():
        step = build(ranks, **settings)
        if name == "pulled":  # towards other weights than it has, so that the pull counts from the first step on
            step.start = StartWeights(step.student, pull=0.5)
            step.start.load_state_dict({key: 0.5 * value for key, value in step.student.state_dict().items()})
        made[name] = describe(step, take(step, ranks, 50 if name == "plain" else 8))
    for name, variant in VARIANTS.items():
        step = vary(ranks, variant)
        made[name] = describe(step, take(step, ranks, 8))
    step = build_with_projection(ranks)
    made["projection"] = describe(step, take(step, ranks, 8))
    step = join(make_step(make_student()), ranks)
    made["batch norm"] = describe(step, take(step, ranks, 200, torch.float32))
    made["input"], made["loss"], made["overflow"] = spoil(ranks, "input"), spoil(ranks, "loss"), overflow(ranks)
    if ranks is not None:
        step = build(None)
        join(step, ranks, is_local=True)
        made["local"] = describe(step, take(step, ranks, 8))
        assert step.others is not None
        made["equal"] = step.others.find_difference(step.optimizer.parameters)
        with torch.no_grad():
            step.optimizer.parameters[0].view(-1)[0] += 1e-9 * ranks.number
        made["different"] = step.others.find_difference(step.optimizer.parameters)
        made["shares"] = [ranks.share(range(size)) for size in (1, 2, 7)]
        made["told"] = ranks.tell(f"rank {ranks.number}")
    return made


if __name__ == "__main__":
    torch.set_num_threads(1)
    joined, _ = join_ranks(torch.device("cpu"), 120.0)
    torch.save(run_cases(joined), Path(sys.argv[1]) / f"rank_{joined.number}.pt")
