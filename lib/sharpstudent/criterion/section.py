"""What the file of a term makes itself from: its section of the config, read by the settings that config/terms.py
lists for it, and the shapes of what the models answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from sharpstudent.config.run_config import TermSection
from sharpstudent.config.scheduled import build_schedule
from sharpstudent.config.terms import TERMS, ChoiceSetting, NumberSetting
from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.schedules import Constant, find_constant
from sharpstudent.criterion.weighted_sum import WeightedTerm


@dataclass(frozen=True)
class Shapes:
    """What the models answer to `images` pictures: logits (images, classes), and feature maps by layer, such as
    (images, C, h, w) or (images, N, D).
    """

    classes: int
    images: int = 2
    student: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    teacher: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])


def make_term(
    section: TermSection,
    compute: Callable[..., Tensor],
    *,
    module: nn.Module | None = None,
    student_layers: Sequence[str] = (),
    teacher_layers: Sequence[str] = (),
) -> WeightedTerm:
    """The term of this section: name, weight, whom it asks, and its numbers that may move are read here.

    compute, module and layers: as in `WeightedTerm`. Numbers that may not move are bound before: `take_constant`.
    """
    spec = TERMS[section.term]
    moving = {n: s for n, s in spec.settings.items() if isinstance(s, NumberSetting) and s.may_move}
    missing = [n for n, s in moving.items() if n not in section.numbers and s.default is None]
    if missing:
        raise UserError(Problem(where=name_term(section), what=f"needs {', '.join(missing)}"))
    return WeightedTerm(
        section.name,
        compute,
        build_schedule(section.weight),
        settings={
            # A number that the config leaves out has its default for ever.
            name: build_schedule(section.numbers[name]) if name in section.numbers else _make_default(setting)
            for name, setting in moving.items()
        },
        asks=spec.asks,
        module=module,
        student_layers=tuple(student_layers),
        teacher_layers=tuple(teacher_layers),
    )


def take_constant(section: TermSection, name: str) -> float:
    """A number that never moves, or its default. Raises UserError for one that moves, and where there is none."""
    setting = TERMS[section.term].settings[name]
    assert isinstance(setting, NumberSetting)
    given = section.numbers.get(name)
    value = setting.default if given is None else find_constant(build_schedule(given))
    if value is None:
        what = f"needs {name}" if given is None else f"has a schedule for {name}, which cannot move"
        raise UserError(Problem(where=name_term(section), what=what, expected=f"a number: {setting.meaning}"))
    return value


def take_choice(section: TermSection, name: str) -> str:
    """A word, or its default. Raises UserError where there is none, and for one that is none of the choices."""
    setting = TERMS[section.term].settings[name]
    assert isinstance(setting, ChoiceSetting)
    value = section.choices.get(name, setting.default)
    if value is None or (setting.choices and value not in setting.choices):
        expected = " or ".join(setting.choices) if setting.choices else setting.meaning
        raise UserError(Problem(where=f"{name_term(section)}, {name}", what="is not set", expected=expected, got=value))
    return value


def check_outputs(section: TermSection, shapes: Shapes, *, least: int = 1, most: int | None = None, why: str) -> None:
    """Raise UserError unless the head has `least` to `most` outputs. why: what would go wrong, as half a sentence."""
    if shapes.classes < least or (most is not None and shapes.classes > most):
        wanted = f"{least} or more" if most is None else f"{least} to {most}"
        raise UserError(
            Problem(
                where=name_term(section),
                what=why,
                expected=f"a head of {wanted} outputs",
                got=f"{shapes.classes}",
                remedy="use another term; config/terms.py lists them",
            )
        )


def name_term(section: TermSection) -> str:
    """The term as messages call it."""
    return f"term {section.name!r}" if section.name == section.term else f"term {section.name!r} ({section.term})"


def _make_default(setting: NumberSetting) -> Constant:
    assert setting.default is not None
    return Constant(setting.default)
