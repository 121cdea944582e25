"""The terms that a criterion can be made of: a name, where it is computed, what can be set. No torch here. And the list
of terms with absolute weights that a config gives, read with every mistake named by its place.

A new term is one file under criterion/ and one line in TERMS (docs/adding-a-term.md), or a line in `Task.terms`.

"terms": [
  { "term": "hard", "weight": 0.6 },
  { "term": "kd", "weight": { "kind": "ramp", "value": 0.4 }, "temperature": 3.0 }
]
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from pydantic import ValidationError

from sharpstudent.config.messages import explain, show
from sharpstudent.config.run_config import ScheduleSection, TermSection
from sharpstudent.config.scheduled import check_schedule
from sharpstudent.core.errors import Problem, ProblemList

Asks = Literal["teacher", "ema"]


@dataclass(frozen=True)
class NumberSetting:
    """A number, or a schedule of it. default None: it must be given."""

    meaning: str
    default: float | None = None
    above: float | None = None  # strictly
    at_least: float | None = None
    below: float | None = None  # strictly
    may_move: bool = True  # whether a schedule may stand in its place


@dataclass(frozen=True)
class ChoiceSetting:
    """One of a few words; with no choices, any text, such as the name of a layer. default None: it must be given.

    is_silent: a term does not write it down where it has its default (a term of before it could be set is the same).
    """

    meaning: str
    choices: tuple[str, ...] = ()
    default: str | None = None
    is_silent: bool = False


# What any term may be told, unless it says otherwise. An empty default stands for what the meaning says.
SHARED_SETTINGS: Mapping[str, ChoiceSetting] = {
    "on": ChoiceSetting(
        "the output of the student that the term reads; `aux.*`: the mean over all that match",
        default="logits",
        is_silent=True,
    ),
    "of": ChoiceSetting(
        "the output of the teacher that it reads; default: the name in `on`, or logits where that holds `*`",
        default="",
        is_silent=True,
    ),
    "target": ChoiceSetting("the target that it reads", default="label", is_silent=True),
    "where": ChoiceSetting(
        "the weights of the rows, 0 for a row that it leaves out; default: those that are called as its target, if any",
        default="",
        is_silent=True,
    ),
}


@dataclass(frozen=True)
class TermSpec:
    """One kind of term. builder: `file:function` under criterion/ that makes it, and `package.module:function` for a
    task's own; asks: whose answer it reads beside the student's: that of the teachers, of the student's averaged
    weights, or nobody's. settings: its own; shared: those of SHARED_SETTINGS that mean something to it.
    """

    builder: str
    meaning: str
    asks: Asks | None = None
    settings: Mapping[str, NumberSetting | ChoiceSetting] = field(
        default_factory=dict[str, NumberSetting | ChoiceSetting]
    )
    shared: tuple[str, ...] = tuple(SHARED_SETTINGS)

    @property
    def all_settings(self) -> dict[str, NumberSetting | ChoiceSetting]:
        """Its own and the shared ones; `of` only where somebody is asked."""
        shared = [name for name in self.shared if name != "of" or self.asks is not None]
        return {**self.settings, **{name: SHARED_SETTINGS[name] for name in shared}}


_OF_LABELS, _OF_ANSWERS = ("on", "target", "where"), ("on", "of", "where")
_TEMPERATURE = NumberSetting("softens the distributions of both sides", default=3.0, above=0.0)

TERMS: dict[str, TermSpec] = {
    "hard": TermSpec(
        "classification:build_cross_entropy",
        "cross-entropy with the labels",
        settings={
            "label_smoothing": NumberSetting(
                "share of the target spread over all classes", default=0.0, at_least=0.0, below=1.0, may_move=False
            )
        },
        shared=_OF_LABELS,
    ),
    "binary": TermSpec(
        "classification:build_binary",
        "binary cross-entropy of the difference of two logits with the labels",
        shared=_OF_LABELS,
    ),
    "focal": TermSpec(
        "classification:build_focal",
        "cross-entropy with the labels, weighted down for what is easy (Lin et al. 2017)",
        settings={
            "gamma": NumberSetting("how much less the easy ones weigh", default=2.0, at_least=0.0, may_move=False)
        },
        shared=_OF_LABELS,
    ),
    "kd": TermSpec(
        "distillation:build_distillation",
        "T^2 times the divergence of the student's softened classes from the teacher's",
        asks="teacher",
        settings={
            "temperature": _TEMPERATURE,
            "over": ChoiceSetting(
                "what the softmax runs over: the classes of a row, or the pixels of a map",
                ("classes", "pixels"),
                "classes",
                is_silent=True,
            ),
        },
        shared=_OF_ANSWERS,
    ),
    "kd_sigmoid": TermSpec(
        "distillation:build_sigmoid_distillation",
        "the same for one logit: the difference of two, or the only one of a single-output head",
        asks="teacher",
        settings={"temperature": _TEMPERATURE},
        shared=_OF_ANSWERS,
    ),
    "heatmap": TermSpec(
        "heatmap:build_heatmap",
        "cross-entropy of every pixel of a map of logits with the target map; it reads the output and target `heatmap`",
        shared=_OF_LABELS,
    ),
    "features": TermSpec(
        "features:build_features",
        "distance of a feature map of the student, projected, from one of the teacher",
        asks="teacher",
        settings={
            "student_layer": ChoiceSetting("name of the student's layer; --list-layers shows them"),
            "teacher_layer": ChoiceSetting("name of the teacher's layer"),
            "distance": ChoiceSetting("mean squared difference, or one minus the cosine", ("mse", "cosine"), "mse"),
        },
        shared=("where",),
    ),
    "self": TermSpec(
        "distillation:build_self_distillation",
        "as kd, with the student's own averaged weights for a teacher; needs ema_decay",
        asks="ema",
        settings={"temperature": _TEMPERATURE},
        shared=_OF_ANSWERS,
    ),
}


OWN_KEYS = ("term", "name", "weight")
# What metrics.csv calls other figures of a step.
TAKEN_NAMES = ("loss", "perturbed_loss", "grad_norm", "agreement")


def list_terms(own: Mapping[str, TermSpec]) -> dict[str, TermSpec]:
    """Every term that a config of a task may name: those of every task, and the task's own."""
    return {**TERMS, **own}


def check_own_terms(own: Mapping[str, TermSpec], where: str) -> list[Problem]:
    """What is wrong with the terms of a task's own. where: what messages call the task."""
    problems: list[Problem] = []
    for name, spec in own.items():
        taken = sorted({*OWN_KEYS, *SHARED_SETTINGS} & set(spec.settings))
        if name in TERMS:
            problems.append(
                Problem(f"{where}.terms", f"redefines the term {show(name)}", remedy="give it another name")
            )
        if taken:
            what = f"has settings that every term has: {', '.join(taken)}"
            problems.append(Problem(f"{where}.terms[{show(name)}]", what, remedy="give them other names"))
        if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", spec.builder) is None:
            problems.append(
                Problem(
                    f"{where}.terms[{show(name)}]",
                    "does not say where it is made",
                    expected='builder "package.module:function"',
                    got=show(spec.builder),
                    remedy="write the module as Python imports it, a colon, and the function",
                )
            )
    return problems


def parse_terms(
    raw: Sequence[Mapping[str, Any]], where: str, *, epochs: int, known: Mapping[str, TermSpec] = TERMS
) -> tuple[TermSection, ...]:
    """Typed terms from JSON objects. Raises one UserError with all problems.

    where: the key they stand under; epochs: of the run, in which every number must stay in its range; known: the terms
    that there are, see `list_terms`.
    """
    problems = ProblemList()
    if not raw:
        problems.add(Problem(where, "is an empty list", expected="one term or more", remedy="leave the key out"))
    terms = [_parse_term(entry, f"{where}[{place}]", epochs, known, problems) for place, entry in enumerate(raw)]
    counts = Counter(term.name for term in terms if term is not None)
    for name, count in counts.items():
        if count > 1:
            problems.add(
                Problem(
                    where,
                    f"has {count} terms that are called {show(name)}",
                    expected="a name of its own for each, since logs and checkpoints go by it",
                    remedy=f'write "name": "{name}_2" in one of them',
                )
            )
    problems.raise_if_any()
    return tuple(term for term in terms if term is not None)


def build_constant_term(term: str, weight: ScheduleSection, **numbers: ScheduleSection | float) -> TermSection:
    """A term with these numbers, and defaults for the rest."""
    given = {name: setting.default for name, setting in _numbers_of(TERMS[term]).items()} | numbers
    return TermSection(
        name=term,
        term=term,
        weight=weight,
        numbers={name: as_schedule(number) for name, number in given.items() if number is not None},
    )


def as_schedule(number: ScheduleSection | float) -> ScheduleSection:
    """A number is the schedule that never moves."""
    return number if isinstance(number, ScheduleSection) else ScheduleSection(kind="constant", value=float(number))


def _parse_term(
    entry: Mapping[str, Any], where: str, epochs: int, known: Mapping[str, TermSpec], problems: ProblemList
) -> TermSection | None:
    kind = entry.get("term")
    if not isinstance(kind, str) or kind not in known:
        near = difflib.get_close_matches(str(kind), known, n=1)
        problems.add(
            Problem(
                f"{where}.term",
                "is missing" if kind is None else "is not a known term",
                expected="; ".join(f"{name}: {spec.meaning}" for name, spec in known.items()),
                got=None if kind is None else show(kind),
                remedy=f'did you mean "{near[0]}"?' if near else "write one of these",
            )
        )
        return None
    settings = known[kind].all_settings
    for key in entry:
        if key not in OWN_KEYS and key not in settings:
            known_keys = [*OWN_KEYS, *settings]
            near = difflib.get_close_matches(key, known_keys, n=1)
            remedy = f'did you mean "{near[0]}"?' if near else f"known here: {', '.join(known_keys)}"
            problems.add(Problem(f"{where}.{key}", f"is no setting of the term {show(kind)}", remedy=remedy))
    name = entry.get("name", kind)
    if not isinstance(name, str) or not name.replace("_", "").isalnum() or name in TAKEN_NAMES:
        problems.add(
            Problem(
                f"{where}.name",
                "is not a name",
                expected=f"letters, digits and '_', and none of {', '.join(TAKEN_NAMES)}",
                got=show(name),
                remedy="leave it out, or rename it",
            )
        )
        name = kind
    weight = _parse_number(entry.get("weight", 1.0), f"{where}.weight", _WEIGHT, epochs, problems)
    numbers: dict[str, ScheduleSection] = {}
    choices: dict[str, str] = {}
    for key, setting in settings.items():
        value = entry.get(key, setting.default)
        if isinstance(setting, ChoiceSetting) and setting.is_silent and value == setting.default:
            continue
        place = f"{where}.{key}"
        if value is None:
            problems.add(Problem(place, "is missing", expected=setting.meaning, remedy=f'write "{key}": ...'))
        elif isinstance(setting, NumberSetting):
            numbers[key] = _parse_number(value, place, setting, epochs, problems)
        else:
            choices[key] = _parse_choice(value, place, setting, problems)
    return TermSection(name=name, term=kind, weight=weight, numbers=numbers, choices=choices)


_WEIGHT = NumberSetting("absolute weight of the term", at_least=0.0)


def _parse_number(
    value: Any, where: str, setting: NumberSetting, epochs: int, problems: ProblemList
) -> ScheduleSection:
    """A number or a schedule object; what is wrong is added to `problems`, and a stand-in returned."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        section = ScheduleSection(kind="constant", value=float(value))
    elif isinstance(value, Mapping) and setting.may_move:
        try:
            section = ScheduleSection.model_validate_json(json.dumps(value))
        except ValidationError as error:
            for problem in explain(error, ScheduleSection, cast(Mapping[str, Any], value)).problems:
                inner = where if problem.where == "config" else f"{where}.{problem.where}"
                problems.add(Problem(inner, problem.what, problem.expected, problem.got, problem.remedy))
            return _STAND_IN
    else:
        problems.add(
            Problem(
                where,
                "has a value of the wrong type",
                expected=f"a number{' or a schedule' if setting.may_move else ''}: {setting.meaning}",
                got=show(value),
                remedy="see docs/config.md, Terms and schedules",
            )
        )
        return _STAND_IN
    bounds = {"at_least": setting.at_least, "above": setting.above, "below": setting.below}
    for problem in check_schedule(section, epochs, where, **bounds):
        problems.add(replace(problem, expected=f"{problem.expected}: {setting.meaning}"))
    return section


_STAND_IN = ScheduleSection(kind="constant", value=1.0)


def _parse_choice(value: Any, where: str, setting: ChoiceSetting, problems: ProblemList) -> str:
    if isinstance(value, str) and value and (not setting.choices or value in setting.choices):
        return value
    expected = f"one of {', '.join(setting.choices)}" if setting.choices else "text"
    problems.add(
        Problem(
            where,
            "is not one of the choices" if setting.choices else "has a value of the wrong type",
            expected=f"{expected}: {setting.meaning}",
            got=show(value),
            remedy="write one of these" if setting.choices else "write the name in quotation marks",
        )
    )
    return ""


def _numbers_of(spec: TermSpec) -> dict[str, NumberSetting]:
    return {name: setting for name, setting in spec.settings.items() if isinstance(setting, NumberSetting)}
