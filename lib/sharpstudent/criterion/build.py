"""Builds the criterion of the config's terms, and checks that each term has a gradient.

Each term is built by the function that config/terms.py names for it. Some terms that work with a thousand classes are
constant with two: their value looks like a loss, and their gradient is 0. So each term is tried on random outputs
before a run begins.
"""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sharpstudent.config.run_config import TermSection
from sharpstudent.config.terms import TERMS, TermSpec, list_terms
from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.schedules import Progress
from sharpstudent.core.types import FEATURES, Batch
from sharpstudent.criterion.distillation import compute_kd
from sharpstudent.criterion.section import Shapes, complete_term, name_term
from sharpstudent.criterion.weighted_sum import WeightedSum, WeightedTerm, check_values

LEAST_SHARE = 1e-4  # of the sensitivity of kd; what rounding leaves of a gradient that is 0 lies far below
SEEDS = range(5)
ROWS = 16
START = Progress(epoch=1, step=0, epochs=1, steps_per_epoch=1)


def check_liveness(term: WeightedTerm, shapes: Shapes, example: Batch | None = None) -> None:
    """Check that the gradient of a term does not vanish, and that its values have the right shape.

    The check takes the median over several draws, so that the rounding of one row decides nothing. It draws from its
    own generators, and leaves no gradient behind.

    Args:
        term: The term.
        shapes: Of the outputs of the models.
        example: A batch whose targets the term may read; None for labels of as many classes as there are logits.

    Raises:
        UserError: If the gradient vanishes or is not finite.
        ValueError: If the term does not give a value for each row.
    """
    share = compute_liveness(term, shapes, example)
    if not share >= LEAST_SHARE:  # a nan is refused, too
        classes = shapes.count_classes()
        raise UserError.about(
            f"term {term.name!r}",
            f"cannot teach a head of {classes} output{'s' if classes > 1 else ''}: "
            "its gradient vanishes, whatever the student says",
            expected=f"a gradient of at least {LEAST_SHARE:g} of that of kd on drawn outputs",
            got=f"{share:.1g}",
            remedy="remove the term, or set it otherwise; kd or kd_sigmoid teach two classes",
        )


def compute_liveness(term: WeightedTerm, shapes: Shapes, example: Batch | None = None) -> float:
    """Measure how sensitive a term is to the outputs of the student, relative to kd (T = 3).

    The sensitivity is |gradient| |input| for the outputs and feature maps of the student together (L2 norms): how far
    the loss would change if they changed by their own size. So maps of any size can be compared.

    Args:
        term: The term.
        shapes: Of the outputs of the models.
        example: As in `check_liveness`.

    Returns:
        The median over several seeds of the sensitivity, as a share of that of kd on logits of the same size.
    """
    return statistics.median(_compute_share(term, shapes, seed, example) for seed in SEEDS)


def _compute_share(term: WeightedTerm, shapes: Shapes, seed: int, example: Batch | None) -> float:
    generator = torch.Generator().manual_seed(seed)
    classes = max(shapes.count_classes(), 2)
    pair = [2.0 * torch.randn(ROWS, classes, generator=generator) for _ in range(2)]
    logits = pair[0].clone().requires_grad_()
    yardstick = _compute_sensitivity(compute_kd(logits, pair[1], 3.0).mean(), [logits])
    batch = _make_batch(classes) if example is None else example
    student, teacher_outputs = (
        _draw_outputs(of_model, one, len(batch), generator)
        for one, of_model in zip(pair, (shapes.student, shapes.teacher or shapes.student), strict=True)
    )
    hooked = {f"{FEATURES}{layer}" for layer in term.student_layers}
    student = {name: value for name, value in student.items() if not name.startswith(FEATURES) or name in hooked}
    inputs = [value.requires_grad_() for value in student.values()]
    settings = {name: schedule(START) for name, schedule in term.settings.items()}
    with torch.enable_grad():
        value = term.compute(student, batch, None if term.source is None else teacher_outputs, **settings)
        check_values(term, value, len(batch))
        return _compute_sensitivity(value.mean(), inputs) / yardstick


def _compute_sensitivity(value: Tensor, inputs: list[Tensor]) -> float:
    if not value.requires_grad:
        return 0.0
    gradients = torch.autograd.grad(value, inputs, allow_unused=True)
    products = [g.norm() * x.detach().norm() for g, x in zip(gradients, inputs, strict=True) if g is not None]
    return float(torch.stack(products).sum()) if products else 0.0


def _make_batch(classes: int) -> Batch:
    names = tuple(str(row) for row in range(ROWS))
    labels = torch.arange(ROWS) % classes
    return Batch(inputs={}, targets={"label": labels}, rows={"id": names, "group": names})


def _draw_outputs(
    shapes: Mapping[str, tuple[int, ...]], logits: Tensor, rows: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """An output of each name for these rows: the logits that are given, and random values for the others."""
    outputs: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        if name == "logits" and len(logits) == rows:
            outputs[name] = logits[:, : shape[1]].clone()
        else:
            outputs[name] = torch.randn(rows, *shape[1:], generator=generator)
    return outputs


@dataclass(frozen=True)
class Layers:
    """Names of the layers whose feature maps the terms read, each once, in the order of the terms.

    Attributes:
        student: Layers of the student.
        teacher: Layers of the teacher.
    """

    student: tuple[str, ...]
    teacher: tuple[str, ...]


def find_layers(sections: Sequence[TermSection]) -> Layers:
    """The layers that need hooks before the shapes are known which `build_criterion` needs.

    They are the choices `student_layer` and `teacher_layer` of the terms.
    """
    names = (
        tuple(dict.fromkeys(section.choices[choice] for section in sections if choice in section.choices))
        for choice in ("student_layer", "teacher_layer")
    )
    return Layers(*names)


def build_criterion(
    sections: Sequence[TermSection],
    shapes: Shapes,
    example: Batch | None = None,
    more: Mapping[str, TermSpec] | None = None,
) -> WeightedSum:
    """Build the weighted sum of the config's terms, in their order.

    Projections are on the CPU, in fp32. Their first weights follow the seed, and the random state is left as it was, so
    that runs with and without projections see the same samples and dropout masks.

    Args:
        sections: The terms of the config.
        shapes: Of the outputs of the models.
        example: A batch with the targets that the terms read; None for labels.
        more: The task's own terms, by name.

    Returns:
        The criterion.

    Raises:
        UserError: With every problem, for terms that do not fit these shapes or whose gradient vanishes.
    """
    problems: list[Problem] = []
    terms: list[WeightedTerm] = []
    with torch.random.fork_rng(devices=[]):
        for section in sections:
            try:
                terms.append(_build_term(section, shapes, example, list_terms(more or {})))
            except UserError as error:
                problems += error.problems
    if problems:
        raise UserError(*problems)
    return WeightedSum(terms)


def _build_term(
    section: TermSection, shapes: Shapes, example: Batch | None, terms: Mapping[str, TermSpec]
) -> WeightedTerm:
    build = _find_builder(section.term, terms[section.term].builder)
    term = build(complete_term(section, terms[section.term]), shapes)
    # torch keeps a container's own attributes and its parts in one namespace.
    if term.module is not None and hasattr(nn.ModuleDict(), term.name):
        raise UserError.about(
            name_term(section), "has a name that torch keeps for itself", remedy="give it another name"
        )
    check_liveness(term, shapes, example)
    return term


def _find_builder(name: str, builder: str) -> Callable[[TermSection, Shapes], WeightedTerm]:
    """The function that makes a term: of a file beside this one, or of a module of the task."""
    module, function = builder.split(":")
    try:
        return getattr(importlib.import_module(f"{__package__}.{module}" if name in TERMS else module), function)
    except (ImportError, AttributeError) as error:
        remedy = f"correct `terms` of the task: {name!r} is made by module.of.yours:function"
        raise UserError.about(f"term {name}", f"cannot be made: {error}", got=builder, remedy=remedy) from error
