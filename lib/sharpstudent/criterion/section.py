"""What the file of a term makes itself from: its section of the config, read by the settings that config/terms.py
lists for it, and the shapes of the models' outputs.
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
from sharpstudent.core.types import Batch, Outputs
from sharpstudent.criterion.weighted_sum import WeightedTerm


@dataclass(frozen=True)
class Shapes:
    """Shapes of the models' outputs for `rows` rows, by the names of the outputs.

    Such as `logits` (rows, classes), `heatmap`, and feature maps `features/LAYER` (rows, C, h, w) or (rows, N, D).
    """

    student: Mapping[str, tuple[int, ...]]
    teacher: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    rows: int = 2

    def count_classes(self, output: str = "logits") -> int:
        """How many outputs the student has there a row: (R, C) has C, anything else 1."""
        names = find_matches(output, self.student)
        shape = self.student[names[0]] if names else ()
        return shape[1] if len(shape) == 2 else 1


class KnownTerm(TermSection):
    """The section of a term with a value for each of its settings, and what is known of its kind."""

    spec: SkipValidation[TermSpec]


def complete_term(section: TermSection, spec: TermSpec) -> KnownTerm:
    """The section with defaults for what it leaves out. Raises UserError for a setting that has none."""
    settings = {name: one.default for name, one in spec.settings.items()} | section.numbers | section.choices
    missing = [name for name, value in settings.items() if value is None]
    if missing:
        raise UserError.about(name_term(section), f"needs {', '.join(missing)}")
    choices = {name: value for name, value in settings.items() if isinstance(value, str)}
    numbers = {name: as_schedule(value) for name, value in settings.items() if not isinstance(value, str | None)}
    return KnownTerm(**dict(section) | {"numbers": numbers, "choices": choices}, spec=spec)


def find_matches(pattern: str, outputs: Mapping[str, Any]) -> list[str]:
    """The outputs that a term reads: that of this name, or all that the pattern matches, such as `aux.*`."""
    return [pattern] if pattern in outputs else sorted(fnmatch.filter(outputs, pattern))


def make_term(
    section: TermSection,
    compute: Callable[..., Tensor],
    *,
    module: nn.Module | None = None,
    student_layers: Sequence[str] = (),
    teacher_layers: Sequence[str] = (),
    couples_rows: bool = False,
    where: str | None = None,
) -> WeightedTerm:
    """The term of this section: name, weight, source, and its numbers that may move are read here.

    compute, module, layers and couples_rows: as in `WeightedTerm`. Numbers that may not move are bound before:
    `take_constant`. where: the weights by which rows count unless the section names others.
    """
    spec = cast(KnownTerm, section).spec
    moving = [name for name, one in spec.settings.items() if isinstance(one, NumberSetting) and one.may_move]
    return WeightedTerm(
        section.name,
        compute,
        section.weight,
        settings={name: section.numbers[name] for name in moving},
        source=spec.source,
        where=section.choices.get("where") or where,
        couples_rows=couples_rows,
        module=module,
        student_layers=tuple(student_layers),
        teacher_layers=tuple(teacher_layers),
    )


def make_target_term(
    section: TermSection,
    shapes: Shapes,
    compute: Callable[[Tensor, Tensor], Tensor],
    *,
    on: str = "logits",
    target: str = "label",
) -> WeightedTerm:
    """A term of one output of the student and one target of the batch.

    compute(output, target) gives (R,). The section's `on` and `target` win over those given here; an `on` such as
    `aux.*` takes the mean over all outputs that match. Rows count by the weights of the target's name.
    """
    on, target = check_output(section, shapes, on), section.choices.get("target") or target

    def compute_term(outputs: Outputs, batch: Batch, teacher_outputs: Outputs | None) -> Tensor:
        return _average([compute(outputs[name], batch.targets[target]) for name in find_matches(on, outputs)])

    return make_term(section, compute_term, where=target)


def make_teacher_term(section: TermSection, shapes: Shapes, compute: Callable[..., Tensor]) -> WeightedTerm:
    """A term of one output of the student and one of its source, such as the teacher.

    compute(output, teacher_output, **settings) gives (R,). `on` as in `make_target_term`; `of` names the teacher's
    output, by default the one of the same name, or `logits` where `on` is a pattern.
    """
    on = check_output(section, shapes)
    of = section.choices.get("of") or ("logits" if "*" in on else on)

    def compute_term(outputs: Outputs, batch: Batch, teacher_outputs: Outputs, **settings: float) -> Tensor:
        if of not in teacher_outputs:
            raise ValueError(
                f"{name_term(section)} reads {of!r} of the teacher, which gives {', '.join(teacher_outputs)}"
            )
        return _average([compute(outputs[name], teacher_outputs[of], **settings) for name in find_matches(on, outputs)])

    return make_term(section, compute_term)


def check_output(section: TermSection, shapes: Shapes, default: str = "logits") -> str:
    """The student's output that the section reads. Raises UserError for one that the student does not give."""
    on = section.choices.get("on") or default
    if not find_matches(on, shapes.student):
        raise UserError.about(
            name_term(section),
            f"reads the output {on!r}, which the student does not give",
            expected=f"one of {', '.join(shapes.student)}",
            got=on,
            remedy='name an output of the student in "on"',
        )
    return on


def _average(values: Sequence[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 else torch.stack(list(values)).mean(0)


def take_constant(section: TermSection, name: str) -> float:
    """A number that never changes. Raises UserError for a schedule."""
    value = section.numbers[name].constant
    if value is None:
        raise UserError.about(name_term(section), f"has a schedule for {name}, which cannot move", expected="a number")
    return value


def take_choice(section: TermSection, name: str) -> str:
    """A setting that is a word."""
    return section.choices[name]


def check_outputs(section: TermSection, shapes: Shapes, *, least: int = 1, most: int | None = None, why: str) -> None:
    """Raise UserError unless the head has `least` to `most` outputs. why: what would go wrong, as half a sentence."""
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
    """The term as messages call it."""
    return f"term {section.name!r}" if section.name == section.term else f"term {section.name!r} ({section.term})"
