"""What the file of a term makes itself from: its section of the config, read by the settings that config/terms.py
lists for it, and the shapes of what the models answer.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import SkipValidation
from torch import Tensor, nn

from sharpstudent.config.run_config import TermSection
from sharpstudent.config.terms import TERMS, ChoiceSetting, NumberSetting, TermSpec
from sharpstudent.core.errors import UserError
from sharpstudent.core.schedules import Constant
from sharpstudent.core.types import Batch, Outputs
from sharpstudent.criterion.weighted_sum import WeightedTerm


@dataclass(frozen=True)
class Shapes:
    """What the models answer to `rows` rows, by the names of their outputs: `logits` (rows, classes), `heatmap`, and
    feature maps such as `features/LAYER` (rows, C, h, w) or (rows, N, D).
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
    """The section of a term together with what is known of its kind: of those in `TERMS`, or of the task's own."""

    spec: SkipValidation[TermSpec]


def _find_spec(section: TermSection) -> TermSpec:
    return section.spec if isinstance(section, KnownTerm) else TERMS[section.term]


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
    """The term of this section: name, weight, whom it asks, and its numbers that may move are read here.

    compute, module, layers and couples_rows: as in `WeightedTerm`. Numbers that may not move are bound before:
    `take_constant`. where: the weights by which rows count unless the section names others.
    """
    spec = _find_spec(section)
    moving = {n: s for n, s in spec.settings.items() if isinstance(s, NumberSetting) and s.may_move}
    missing = [n for n, s in moving.items() if n not in section.numbers and s.default is None]
    if missing:
        raise UserError.about(name_term(section), f"needs {', '.join(missing)}")
    return WeightedTerm(
        section.name,
        compute,
        section.weight,
        settings={
            # A number that the config leaves out has its default for ever.
            name: section.numbers[name] if name in section.numbers else _make_default(setting)
            for name, setting in moving.items()
        },
        asks=spec.asks,
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

    def compute_term(outputs: Outputs, batch: Batch, answer: Outputs | None) -> Tensor:
        return _average([compute(outputs[name], batch.targets[target]) for name in find_matches(on, outputs)])

    return make_term(section, compute_term, where=target)


def make_answer_term(section: TermSection, shapes: Shapes, compute: Callable[..., Tensor]) -> WeightedTerm:
    """A term of one output of the student and one of whom it asks.

    compute(output, answer, **settings) gives (R,). `on` as in `make_target_term`; `of` names the teacher's output, by
    default the one of the same name, or `logits` where `on` is a pattern.
    """
    on = check_output(section, shapes)
    of = section.choices.get("of") or ("logits" if "*" in on else on)

    def compute_term(outputs: Outputs, batch: Batch, answer: Outputs, **settings: float) -> Tensor:
        if of not in answer:
            raise ValueError(f"{name_term(section)} reads {of!r} of the teacher, which gives {', '.join(answer)}")
        return _average([compute(outputs[name], answer[of], **settings) for name in find_matches(on, outputs)])

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
    """A number that never moves, or its default. Raises UserError for one that moves, and where there is none."""
    setting = _find_spec(section).settings[name]
    assert isinstance(setting, NumberSetting)
    given = section.numbers.get(name)
    value = setting.default if given is None else given.constant
    if value is None:
        what = f"needs {name}" if given is None else f"has a schedule for {name}, which cannot move"
        raise UserError.about(name_term(section), what, expected=f"a number: {setting.meaning}")
    return value


def take_choice(section: TermSection, name: str) -> str:
    """A word, or its default. Raises UserError where there is none, and for one that is none of the choices."""
    setting = _find_spec(section).settings[name]
    assert isinstance(setting, ChoiceSetting)
    value = section.choices.get(name, setting.default)
    if value is None or (setting.choices and value not in setting.choices):
        expected = " or ".join(setting.choices) if setting.choices else setting.meaning
        raise UserError.about(f"{name_term(section)}, {name}", "is not set", expected=expected, got=value)
    return value


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


def _make_default(setting: NumberSetting) -> Constant:
    assert setting.default is not None
    return Constant(setting.default)
