"""Whether a term can teach at all at the number of classes at hand.

Some terms that serve a thousand classes are constant at two: their value looks like a loss, and their gradient is 0.
So each is tried on drawn answers before a run begins.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.schedules import Progress
from sharpstudent.core.types import Batch, Outputs
from sharpstudent.criterion.distillation import compute_kd
from sharpstudent.criterion.section import Shapes
from sharpstudent.criterion.weighted_sum import WeightedTerm

LEAST_SHARE = 1e-4  # of the sensitivity of kd; what rounding leaves of a gradient that is 0 lies far below
SEEDS = range(5)
IMAGES = 16
START = Progress(epoch=1, step=0, epochs=1, steps_per_epoch=1)


def check_liveness(term: WeightedTerm, shapes: Shapes) -> None:
    """Raise UserError where the gradient of the term vanishes, or is not finite, at these shapes.

    Judged by the median over several draws, so that one row of rounding, or one batch that a term has nothing to say
    of, decides nothing. Draws from generators of its own, and leaves no gradient behind.
    """
    share = compute_liveness(term, shapes)
    if not share >= LEAST_SHARE:  # a nan is refused, too
        raise UserError(
            Problem(
                where=f"term {term.name!r}",
                what=f"cannot teach a head of {shapes.classes} output{'s' if shapes.classes > 1 else ''}: "
                "its gradient vanishes, whatever the student says",
                expected=f"a gradient of at least {LEAST_SHARE:g} of that of kd on drawn answers",
                got=f"{share:.1g}",
                remedy="remove the term, or set it otherwise; kd or kd_sigmoid teach two classes",
            )
        )


def compute_liveness(term: WeightedTerm, shapes: Shapes) -> float:
    """Median over seeds of the term's sensitivity, as a share of that of kd (T = 3) on logits of the same size.

    Sensitivity: |gradient| |input| for the student's logits and feature maps together (L2 norms), that is how far the
    loss would move if they moved by their own size. Maps of any size can be compared by it.
    """
    return statistics.median(_compute_share(term, shapes, seed) for seed in SEEDS)


def _compute_share(term: WeightedTerm, shapes: Shapes, seed: int) -> float:
    generator = torch.Generator().manual_seed(seed)
    classes = max(shapes.classes, 2)
    pair = [2.0 * torch.randn(IMAGES, classes, generator=generator) for _ in range(2)]
    logits = pair[0].clone().requires_grad_()
    yardstick = _compute_sensitivity(compute_kd(logits, pair[1], 3.0).mean(), [logits])
    student, answer = (
        Outputs(one[:, : shapes.classes].clone(), _draw_maps(maps, generator))
        for one, maps in zip(pair, (shapes.student, shapes.teacher), strict=True)
    )
    student = replace(student, features={name: student.features[name] for name in term.student_layers})
    inputs = [student.logits.requires_grad_(), *(value.requires_grad_() for value in student.features.values())]
    names = tuple(str(row) for row in range(IMAGES))
    batch = Batch(torch.zeros(IMAGES, 3, 8, 8), torch.arange(IMAGES) % classes, names, names, names)
    with torch.enable_grad():
        rows = term.compute_rows(student, batch, None if term.asks is None else answer, START)
        return _compute_sensitivity(rows.mean(), inputs) / yardstick


def _compute_sensitivity(value: Tensor, inputs: list[Tensor]) -> float:
    if not value.requires_grad:
        return 0.0
    gradients = torch.autograd.grad(value, inputs, allow_unused=True)
    products = [g.norm() * x.detach().norm() for g, x in zip(gradients, inputs, strict=True) if g is not None]
    return float(torch.stack(products).sum()) if products else 0.0


def _draw_maps(shapes: Mapping[str, tuple[int, ...]], generator: torch.Generator) -> dict[str, Tensor]:
    """Maps of as many images as there are logits."""
    return {name: torch.randn(IMAGES, *shape[1:], generator=generator) for name, shape in shapes.items()}
