"""Helpers for the builders of terms: sections with all settings, shapes of the models' outputs, `make_*` functions.

A builder, which `TERMS` of config/terms.py or a task names, takes a term's `section` in the config and the `shapes` of
the models' outputs. It returns the term, or raises UserError where the term cannot teach these models. What a builder's
own docstring says is what it refuses.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from pydantic import SkipValidation
from torch import Tensor, nn

from sharpstudent.config.run_config import TermSection
from sharpstudent.config.terms import NumberSetting, TermSpec, as_schedule
from sharpstudent.core.errors import UserError
from sharpstudent.core.types import FEATURES, Batch, Outputs
from sharpstudent.criterion.weighted_sum import WeightedTerm


@dataclass(frozen=True)
class Shapes:
    """The shapes of the models' outputs for a batch of `rows` rows, by the names of the outputs.

    `logits` has (rows, classes); feature maps are called `features/LAYER` and have (rows, C, h, w) or (rows, N, D).

    Attributes:
        student: Shapes of the student's outputs.
        teacher: Shapes of the teacher's outputs; empty without a teacher.
        rows: How many rows they were computed for.
    """

    student: Mapping[str, tuple[int, ...]]
    teacher: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    rows: int = 2

    def count_classes(self, output: str = "logits") -> int:
        """Count the values per row in an output of the student: C for a shape (rows, C), and 1 for other shapes."""
        names = find_matches(output, self.student)
        shape = self.student[names[0]] if names else ()
        return shape[1] if len(shape) == 2 else 1


class KnownTerm(TermSection):
    """The section of a term with a value for each of its settings, and the spec of its kind."""

    spec: SkipValidation[TermSpec]


def complete_term(section: TermSection, spec: TermSpec) -> KnownTerm:
    """Fill in the defaults of the settings that a section leaves out.

    Args:
        section: The term in the config.
        spec: The spec of its kind.

    Returns:
        The section with a value for each setting.

    Raises:
        UserError: For a setting that is missing and has no default.
    """
    settings = {name: one.default for name, one in spec.settings.items()} | section.numbers | section.choices
    missing = [name for name, value in settings.items() if value is None]
    if missing:
        raise UserError.about(name_term(section), f"needs {', '.join(missing)}")
    choices = {name: value for name, value in settings.items() if isinstance(value, str)}
    numbers = {name: as_schedule(value) for name, value in settings.items() if not isinstance(value, str | None)}
    return KnownTerm(**dict(section) | {"numbers": numbers, "choices": choices}, spec=spec)


def find_matches(pattern: str, outputs: Mapping[str, Any]) -> list[str]:
    """Find the outputs that a term reads.

    Args:
        pattern: The name of an output, or a pattern such as `aux.*`.
        outputs: The outputs by name.

    Returns:
        The output of this name alone, or all names that match, sorted.
    """
    return [pattern] if pattern in outputs else sorted(fnmatch.filter(outputs, pattern))


def make_term(
    section: TermSection,
    compute: Callable[..., Tensor],
    *,
    module: nn.Module | None = None,
    student_layers: Sequence[str] = (),
    teacher_layers: Sequence[str] = (),
    couples_rows: bool = False,
    least_rows: int = 1,
    where: str | None = None,
) -> WeightedTerm:
    """Make a term: its name, weight, source and scheduled numbers come from the section.

    Args:
        section: The term in the config.
        compute: As in `WeightedTerm`. It gets scheduled numbers as arguments; the builder reads the other numbers with
            `take_constant` and binds them.
        module: A module with parameters of the term, such as a projection.
        student_layers: Layers of the student that it reads.
        teacher_layers: Layers of the teacher that it reads.
        couples_rows: Whether it gives one scalar for all rows.
        least_rows: The rows below which it says nothing.
        where: The weights of the rows, unless the section names others.

    Returns:
        The term.
    """
    spec = cast(KnownTerm, section).spec
    scheduled = [name for name, one in spec.settings.items() if isinstance(one, NumberSetting) and one.is_schedulable]
    return WeightedTerm(
        section.name,
        compute,
        section.weight,
        settings={name: section.numbers[name] for name in scheduled},
        source=spec.source,
        where=section.choices.get("where") or where,
        couples_rows=couples_rows,
        least_rows=least_rows,
        module=module,
        student_layers=tuple(student_layers),
        teacher_layers=tuple(teacher_layers),
    )


def make_target_term(
    section: TermSection,
    shapes: Shapes,
    compute: Callable[..., Tensor],
    *,
    on: str = "logits",
    target: str = "label",
    least_rows: int = 0,
) -> WeightedTerm:
    """Make a term that compares one output of the student with one target of the batch.

    An `on` such as `aux.*` takes the mean over all outputs that match. The weights of the rows are those of the batch
    with the name of the target, unless the section names others.

    Args:
        section: The term in the config; its `on` and `target` win over those given here.
        shapes: Shapes of the models' outputs.
        compute: Gives the loss of each row (R,) from the output, the target and the scheduled numbers.
        on: The output.
        target: The target.
        least_rows: For a term that couples rows: `compute` then gets the rows of a weight above 0 only, gives one
            scalar, and is not called for fewer rows than this.

    Returns:
        The term.
    """
    on, target = check_output(section, shapes, on), section.choices.get("target") or target
    where = section.choices.get("where") or target

    def compute_term(outputs: Outputs, batch: Batch, teacher_outputs: Outputs | None, **settings: float) -> Tensor:
        def compute_one(name: str) -> Tensor:
            sides = [outputs[name], batch.targets[target]]
            return _compute_together(compute, sides, batch, where, least_rows, settings)

        return _average([compute_one(name) for name in find_matches(on, outputs)])

    return make_term(
        section,
        compute_term,
        where=target,
        student_layers=find_layer(on),
        couples_rows=least_rows > 0,
        least_rows=max(1, least_rows),
    )


def make_teacher_term(
    section: TermSection,
    shapes: Shapes,
    compute: Callable[..., Tensor],
    *,
    target: str | None = None,
    least_rows: int = 0,
    module: nn.Module | None = None,
) -> WeightedTerm:
    """Make a term that compares one output of the student with one of the teacher, or of the averaged weights.

    Args:
        section: The term in the config. `on` names the student's output, as in `make_target_term`. `of` names the
            teacher's, by default the same name, or `logits` where `on` is a pattern.
        shapes: Shapes of the models' outputs.
        compute: Gives the loss of each row (R,) from both outputs, the target if there is one, and the scheduled
            numbers.
        target: The target of the batch that it reads, too; None for none.
        least_rows: As in `make_target_term`.
        module: A module with parameters of the term.

    Returns:
        The term.

    Raises:
        UserError: For an output that the student or the teacher does not give.
    """
    on, of = check_output(section, shapes), find_teacher_output(section, shapes)
    target = target and (section.choices.get("target") or target)
    where = section.choices.get("where") or target

    def compute_term(outputs: Outputs, batch: Batch, teacher_outputs: Outputs, **settings: float) -> Tensor:
        if of not in teacher_outputs:
            raise ValueError(
                f"{name_term(section)} reads {of!r} of the teacher, which gives {', '.join(teacher_outputs)}"
            )

        def compute_one(name: str) -> Tensor:
            sides = [outputs[name], teacher_outputs[of], *([] if target is None else [batch.targets[target]])]
            return _compute_together(compute, sides, batch, where, least_rows, settings)

        return _average([compute_one(name) for name in find_matches(on, outputs)])

    return make_term(
        section,
        compute_term,
        where=target,
        module=module,
        student_layers=find_layer(on),
        teacher_layers=find_layer(of),
        couples_rows=least_rows > 0,
        least_rows=max(1, least_rows),
    )


def _compute_together(
    compute: Callable[..., Tensor],
    sides: Sequence[Tensor],
    batch: Batch,
    where: str | None,
    least_rows: int,
    settings: Mapping[str, float],
) -> Tensor:
    """Compute the loss of each row or, of a term that couples rows, that of the rows of a weight above 0."""
    weights = None if where is None or not least_rows else batch.weights.get(where)
    if weights is not None:
        sides = [side[weights > 0] for side in sides]
    if len(sides[0]) < least_rows:
        return 0.0 * sides[0].float().sum()  # with its graph, so that `backward` works
    return compute(*sides, **settings)


def find_teacher_output(section: TermSection, shapes: Shapes) -> str:
    """Find the output of the teacher, or of the averaged weights, that a term reads.

    Args:
        section: The term in the config.
        shapes: Shapes of the models' outputs.

    Returns:
        The name in `of`, by default that in `on`, or `logits` where that is a pattern.

    Raises:
        UserError: For a layer of the averaged weights, which have no hooks, and for an output that the teacher lacks
            while it gives others.
    """
    on = section.choices.get("on") or "logits"
    of = section.choices.get("of") or ("logits" if "*" in on else on)
    if cast(KnownTerm, section).spec.source == "ema" and of.startswith(FEATURES):
        what = "reads a layer of the averaged weights, which give outputs only"
        raise UserError.about(name_term(section), what, got=of, remedy='name an output in "of"')
    if cast(KnownTerm, section).spec.source == "teacher" and shapes.teacher and of not in shapes.teacher:
        raise UserError.about(
            name_term(section),
            f"reads the output {of!r}, which the teacher does not give",
            expected=f"one of {', '.join(shapes.teacher)}",
            got=of,
            remedy='name an output of the teacher in "of"; "features/LAYER" is that of a layer (--list-layers)',
        )
    return of


def find_layer(output: str) -> tuple[str, ...]:
    """Find the layer that an output named `features/LAYER` comes from, as a tuple of one; () for other outputs."""
    return (output.removeprefix(FEATURES),) if output.startswith(FEATURES) else ()


def check_output(section: TermSection, shapes: Shapes, default: str = "logits") -> str:
    """Find the output of the student that a term reads.

    Args:
        section: The term in the config.
        shapes: Shapes of the models' outputs.
        default: The output where the section names none.

    Returns:
        Its name, or a pattern.

    Raises:
        UserError: If the student has no such output.
    """
    on = section.choices.get("on") or default
    if not find_matches(on, shapes.student):
        raise UserError.about(
            name_term(section),
            f"reads the output {on!r}, which the student does not give",
            expected=f"one of {', '.join(shapes.student)}",
            got=on,
            remedy='name an output of the student in "on"; "features/LAYER" is that of a layer (--list-layers)',
        )
    return on


def _average(values: Sequence[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 else torch.stack(list(values)).mean(0)


def take_constant(section: TermSection, name: str) -> float:
    """Read a setting that is a number and cannot be scheduled.

    Args:
        section: The term in the config.
        name: The setting.

    Returns:
        The number.

    Raises:
        UserError: For a schedule.
    """
    value = section.numbers[name].constant
    if value is None:
        raise UserError.about(
            name_term(section), f"has a schedule for {name}, which cannot change", expected="a number"
        )
    return value


def is_off(section: TermSection, name: str) -> bool:
    """Whether a number is 0 in the whole run, such as the weight of a part of the term."""
    return section.numbers[name].constant == 0.0


def take_choice(section: TermSection, name: str) -> str:
    """Read a setting that is a word.

    Args:
        section: The term in the config.
        name: The setting.

    Returns:
        The word.
    """
    return section.choices[name]


def check_outputs(section: TermSection, shapes: Shapes, *, least: int = 1, most: int | None = None, why: str) -> None:
    """Check how many outputs the head has.

    Args:
        section: The term in the config.
        shapes: Shapes of the models' outputs.
        least: The smallest number that works.
        most: The largest number that works; None for any.
        why: What would go wrong otherwise, as half a sentence.

    Raises:
        UserError: For a head of fewer or more outputs.
    """
    classes = shapes.count_classes(check_output(section, shapes))
    if classes < least or (most is not None and classes > most):
        wanted = f"{least} or more" if most is None else f"{least} to {most}"
        raise UserError.about(
            name_term(section),
            why,
            expected=f"a head of {wanted} outputs",
            got=f"{classes}",
            remedy="use another term; config/terms.py lists them",
        )


def name_term(section: TermSection) -> str:
    """Return the name of the term for messages."""
    return f"term {section.name!r}" if section.name == section.term else f"term {section.name!r} ({section.term})"
