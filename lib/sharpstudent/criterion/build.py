"""Builds the criterion from the terms of the config, and checks that each term has a gradient.

Each term is built by the function that config/terms.py names for it. Some losses that work with a thousand classes are
constant with two classes: their value looks like a loss, but their gradient is 0. So before a run begins, the gradient
of each term is computed on random outputs.
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
from sharpstudent.criterion.section import Shapes, complete_term, find_layer, name_term
from sharpstudent.criterion.weighted_sum import WeightedSum, WeightedTerm, check_values

LEAST_SHARE = 1e-4  # of the sensitivity of kd; the rounding errors of a gradient that is 0 lie far below
SEEDS = range(5)
ROWS = 16
START = Progress(epoch=1, step=0, epochs=1, steps_per_epoch=1)


def check_gradient(term: WeightedTerm, shapes: Shapes, example: Batch | None = None) -> None:
    """Check that the gradient of a term does not vanish, and that its values have the right shape.

    The check takes the median over several seeds, so that the rounding errors of one draw do not matter. It uses random
    generators of its own, and leaves no gradient behind.

    Args:
        term: The term.
        shapes: Shapes of the models' outputs.
        example: A batch whose targets the term may read; None for labels of as many classes as there are logits.

    Raises:
        UserError: If the gradient vanishes or is not finite.
        ValueError: If the term does not give a value for each row.
    """
    share = compute_gradient_share(term, shapes, example)
    if not share >= LEAST_SHARE:  # a nan is refused, too
        classes = shapes.count_classes()
        raise UserError.about(
            f"term {term.name!r}",
            f"cannot teach a head of {classes} output{'s' if classes > 1 else ''}: "
            "its gradient vanishes, whatever the outputs of the student are",
            expected=f"a gradient of at least {LEAST_SHARE:g} of that of kd on random outputs",
            got=f"{share:.1g}",
            remedy="remove the term, or change its settings; kd or kd_sigmoid teach two classes",
        )


def compute_gradient_share(term: WeightedTerm, shapes: Shapes, example: Batch | None = None) -> float:
    """Measure how sensitive a term is to the outputs of the student, relative to kd (T = 3).

    The sensitivity is the sum of |gradient| |input| (L2 norms) over the student's outputs and feature maps: a bound on
    how much the loss changes, to first order, if they change by their own norm. So maps of any size can be compared.

    Args:
        term: The term.
        shapes: Shapes of the models' outputs.
        example: As in `check_gradient`.

    Returns:
        The median over several seeds of the sensitivity, as a share of that of kd on logits of the same size.
    """
    return statistics.median(_compute_share(term, shapes, seed, example) for seed in SEEDS)


def _compute_share(term: WeightedTerm, shapes: Shapes, seed: int, example: Batch | None) -> float:
    generator = torch.Generator().manual_seed(seed)
    classes = max(shapes.count_classes(), 2)
    pair = [2.0 * torch.randn(ROWS, classes, generator=generator) for _ in range(2)]
    logits = pair[0].clone().requires_grad_()
    kd_sensitivity = _compute_sensitivity(compute_kd(logits, pair[1], 3.0).mean(), [logits])
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
        return _compute_sensitivity(value.mean(), inputs) / kd_sensitivity


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
    """Draw random values for each output; an output called `logits` with as many rows gets the given logits."""
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


def find_layers(sections: Sequence[TermSection], more: Mapping[str, TermSpec] | None = None) -> Layers:
    """Find the layers that the terms name: in the settings of layers, and as `features/LAYER` in `on` and `of`.

    The models need hooks on them before `build_criterion` can know the shapes of all outputs.

    Args:
        sections: The terms of the config.
        more: The task's own terms, by name.
    """
    student: list[str] = []
    teacher: list[str] = []
    known = list_terms(more or {})
    for section in sections:
        words = section.choices
        student += [words["student_layer"]] if "student_layer" in words else find_layer(words.get("on", ""))
        if "teacher_layer" in words:
            teacher.append(words["teacher_layer"])
        elif section.term in known and known[section.term].source == "teacher":
            teacher += find_layer(words.get("of") or words.get("on", ""))
    return Layers(tuple(dict.fromkeys(student)), tuple(dict.fromkeys(teacher)))


def build_criterion(
    sections: Sequence[TermSection],
    shapes: Shapes,
    example: Batch | None = None,
    more: Mapping[str, TermSpec] | None = None,
) -> WeightedSum:
    """Build the weighted sum of the config's terms, in their order.

    Projections are on the CPU, in fp32. Their initial weights depend on the seed. The random state is restored after
    that, so that runs with and without projections see the same dropout masks.

    Args:
        sections: The terms of the config.
        shapes: Shapes of the models' outputs.
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
    # A ModuleDict has its modules as attributes, so a term must not have the name of one of its methods.
    if term.module is not None and hasattr(nn.ModuleDict(), term.name):
        raise UserError.about(name_term(section), "has a name that torch uses itself", remedy="give it another name")
    check_gradient(term, shapes, example)
    return term


def _find_builder(name: str, builder: str) -> Callable[[TermSection, Shapes], WeightedTerm]:
    """Find the function that makes a term, in a file beside this one or in a module of the task."""
    module, function = builder.split(":")
    try:
        return getattr(importlib.import_module(f"{__package__}.{module}" if name in TERMS else module), function)
    except (ImportError, AttributeError) as error:
        remedy = f"correct `terms` of the task: {name!r} is made by module.of.yours:function"
        raise UserError.about(f"term {name}", f"cannot be made: {error}", got=builder, remedy=remedy) from error
