"""The kinds of terms that a loss can have: name, builder and settings of each. Importing this loads no torch.

A new term is one file under criterion/ and one line in TERMS (docs/adding-a-term.md), or a line in `Task.terms`. The
list `terms` of a config is read by pydantic, with a model for each kind of term, which is built from its `TermSpec`:

"terms": [
  { "term": "hard", "weight": 0.6 },
  { "term": "kd", "weight": { "kind": "ramp", "value": 0.4 }, "temperature": 3.0 }
]
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import InitVar, dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, create_model
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from sharpstudent.config.messages import show
from sharpstudent.config.run_config import (
    LOWEST_TEMPERATURE,
    AnySchedule,
    Frozen,
    NotNegative,
    TermSection,
    Text,
    build_union,
    either,
)
from sharpstudent.core.errors import Problem
from sharpstudent.core.schedules import ConfigSchedule, Constant

TargetSource = Literal["teacher", "ema"]


@dataclass(frozen=True)
class NumberSetting:
    """A setting of a term that is a number, or a schedule of it.

    Attributes:
        meaning: What it does, for messages and docs/config.md.
        default: The default value; None if it must be given.
        above: A bound that the number must exceed.
        at_least: The lowest number.
        below: A bound that the number must stay under.
        is_schedulable: Whether a schedule may stand in its place.
        may_move: The earlier name of `is_schedulable`.
    """

    meaning: str
    default: float | None = None
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    is_schedulable: bool = True
    may_move: InitVar[bool | None] = None

    def __post_init__(self, may_move: bool | None) -> None:
        if may_move is not None:
            object.__setattr__(self, "is_schedulable", may_move)

    @property
    def bounds(self) -> dict[str, float | None]:
        """Return its range, as `config.scheduled.check_schedule` takes it."""
        return {"above": self.above, "at_least": self.at_least, "below": self.below}


@dataclass(frozen=True)
class ChoiceSetting:
    """A setting of a term that is a word.

    Attributes:
        meaning: What it does, for messages and docs/config.md.
        choices: The allowed words; empty where any text is allowed, such as the name of a layer.
        default: The default value; None if it must be given.
        is_silent: Whether a resolved term leaves it out at its default, so that configs from before it stay equal.
    """

    meaning: str
    choices: tuple[str, ...] = ()
    default: str | None = None
    is_silent: bool = False


# Settings of every term, unless its spec names fewer. Where the default is "", the meaning says what applies.
SHARED_SETTINGS: Mapping[str, ChoiceSetting] = {
    "on": ChoiceSetting(
        "the output of the student that the term reads; `aux.*`: the mean over all that match",
        default="logits",
        is_silent=True,
    ),
    "of": ChoiceSetting(
        "the output of the teacher that it reads; default: the name in `on`, or logits where that has a `*`",
        default="",
        is_silent=True,
    ),
    "target": ChoiceSetting("the target that it reads", default="label", is_silent=True),
    "where": ChoiceSetting(
        "the weights of the rows, 0 for a row that it leaves out; default: the weights named like its target, if any",
        default="",
        is_silent=True,
    ),
}


@dataclass(frozen=True)
class TermSpec:
    """One kind of term.

    Attributes:
        builder: The function that makes it: `file:function` under criterion/, or `package.module:function` for a term
            that a task adds.
        meaning: What it is, for messages and docs/config.md.
        source: The model whose outputs are the targets: the teachers, the student's averaged weights (`ema`), or None.
        asks: The earlier name of `source`.
        settings: The settings that only this kind has.
        shared: The names of SHARED_SETTINGS that it has.
    """

    builder: str
    meaning: str
    source: TargetSource | None = None
    settings: Mapping[str, NumberSetting | ChoiceSetting] = field(
        default_factory=dict[str, NumberSetting | ChoiceSetting]
    )
    shared: tuple[str, ...] = tuple(SHARED_SETTINGS)
    asks: InitVar[TargetSource | None] = None

    def __post_init__(self, asks: TargetSource | None) -> None:
        if asks is not None:
            object.__setattr__(self, "source", asks)

    @property
    def all_settings(self) -> dict[str, NumberSetting | ChoiceSetting]:
        """Return its own settings and the shared ones; `of` is among them only for a term with a source."""
        shared = [name for name in self.shared if name != "of" or self.source is not None]
        return {**self.settings, **{name: SHARED_SETTINGS[name] for name in shared}}


_OF_LABELS, _OF_TEACHER = ("on", "target", "where"), ("on", "of", "where")
_OF_BOTH = ("on", "of", "target", "where")
_TEMPERATURE = NumberSetting("softens the distributions of both sides", default=3.0, at_least=LOWEST_TEMPERATURE)
_STANDARDISE = ChoiceSetting(
    "yes: the logits of each row, of both sides, are brought to mean 0 and deviation 1 before the temperature divides "
    "them (Sun et al. 2024)",
    ("no", "yes"),
    "no",
    is_silent=True,
)
_LAYERS = {
    "student_layer": ChoiceSetting("name of the student's layer; --list-layers shows them"),
    "teacher_layer": ChoiceSetting("name of the teacher's layer"),
}
_DISTANCE = ChoiceSetting("mean squared difference, or one minus the cosine", ("mse", "cosine"), "mse")


def _part(meaning: str, default: float = 1.0) -> NumberSetting:
    return NumberSetting(meaning, default=default, at_least=0.0)


TERMS: dict[str, TermSpec] = {
    "hard": TermSpec(
        "classification:build_cross_entropy",
        "cross-entropy with the labels",
        settings={
            "label_smoothing": NumberSetting(
                "share of the target spread over all classes",
                default=0.0,
                at_least=0.0,
                below=1.0,
                is_schedulable=False,
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
        "cross-entropy with the labels, weighted down for easy rows (Lin et al. 2017)",
        settings={
            "gamma": NumberSetting("how much less the easy rows weigh", default=2.0, at_least=0.0, is_schedulable=False)
        },
        shared=_OF_LABELS,
    ),
    "kd": TermSpec(
        "distillation:build_distillation",
        "T^2 times the divergence of the student's softened classes from the teacher's",
        source="teacher",
        settings={
            "temperature": _TEMPERATURE,
            "over": ChoiceSetting(
                "what the softmax runs over: the classes of a row, or the pixels of a map",
                ("classes", "pixels"),
                "classes",
                is_silent=True,
            ),
            "standardise": _STANDARDISE,
        },
        shared=_OF_TEACHER,
    ),
    "dkd": TermSpec(
        "distillation:build_decoupled",
        "kd in two parts with weights of their own: the share of the label's class, and how the rest is divided among "
        "the other classes (Zhao et al. 2022)",
        source="teacher",
        settings={
            "temperature": NumberSetting(_TEMPERATURE.meaning, default=4.0, at_least=LOWEST_TEMPERATURE),
            "target_weight": _part("weight of the part on the label's class, alpha in the paper"),
            "non_target_weight": _part("weight of the part on the other classes, beta in the paper", 8.0),
            "standardise": _STANDARDISE,
        },
        shared=_OF_BOTH,
    ),
    "dist": TermSpec(
        "relations:build_dist",
        "one minus the correlation of the student's probabilities with the teacher's, over the classes of a row and "
        "over the rows of a batch (Huang et al. 2022)",
        source="teacher",
        settings={
            "temperature": NumberSetting(_TEMPERATURE.meaning, default=1.0, at_least=LOWEST_TEMPERATURE),
            "inter_weight": _part("weight of the part over classes, beta in the paper"),
            "intra_weight": _part("weight of the part over rows, gamma in the paper"),
        },
        shared=_OF_TEACHER,
    ),
    "kd_sigmoid": TermSpec(
        "distillation:build_sigmoid_distillation",
        "as kd, for one logit: the difference of two, or the only one of a single-output head",
        source="teacher",
        settings={"temperature": _TEMPERATURE},
        shared=_OF_TEACHER,
    ),
    "heatmap": TermSpec(
        "classification:build_heatmap",
        "cross-entropy of every pixel of a map of logits with the target map; it reads the output and target `heatmap`",
        shared=_OF_LABELS,
    ),
    "features": TermSpec(
        "features:build_features",
        "distance of a feature map of the student, projected, from one of the teacher",
        source="teacher",
        settings={**_LAYERS, "distance": _DISTANCE},
        shared=("where",),
    ),
    "embedding": TermSpec(
        "features:build_embedding",
        "distance of an output of the student, such as an embedding, from one of the teacher",
        source="teacher",
        settings={
            "distance": _DISTANCE,
            "projection": ChoiceSetting(
                "learned: a linear layer brings the student's output to the size of the teacher's; none: they have the "
                "same size",
                ("learned", "none"),
                "learned",
            ),
        },
        shared=_OF_TEACHER,
    ),
    "attention": TermSpec(
        "features:build_attention",
        "difference of where the activations of two feature maps are large (Zagoruyko, Komodakis 2017)",
        source="teacher",
        settings=_LAYERS,
        shared=("where",),
    ),
    "rkd": TermSpec(
        "relations:build_rkd",
        "difference of the distances between rows, and of the angles among three, from those of the teacher (Park et "
        "al. 2019)",
        source="teacher",
        settings={
            "distance_weight": _part("weight of the part of the distances"),
            "angle_weight": _part("weight of the part of the angles", 2.0),
        },
        shared=_OF_TEACHER,
    ),
    "supcon": TermSpec(
        "relations:build_supcon",
        "contrast of the rows of a batch: those of one label together, all others apart (Khosla et al. 2020)",
        settings={
            "temperature": NumberSetting("how hard near rows are told apart", default=0.1, at_least=LOWEST_TEMPERATURE)
        },
        shared=_OF_LABELS,
    ),
    "clause_sparsity": TermSpec(
        "features:build_clause_sparsity",
        "mean size of the values of an output, such as clauses that are to be true for few rows; it reads `clauses`",
        shared=("on", "where"),
    ),
    "self": TermSpec(
        "distillation:build_self_distillation",
        "as kd, with the student's own averaged weights for a teacher; needs ema_decay",
        source="ema",
        settings={"temperature": _TEMPERATURE},
        shared=_OF_TEACHER,
    ),
}


OWN_KEYS = ("term", "name", "weight")
# Names of other columns of metrics.csv, which no term may have.
TAKEN_NAMES = ("loss", "perturbed_loss", "grad_norm", "agreement", "ascents")


def list_terms(own: Mapping[str, TermSpec]) -> dict[str, TermSpec]:
    """List every term that a config of a task may name: those of every task, and the task's own."""
    return {**TERMS, **own}


def check_own_terms(own: Mapping[str, TermSpec], where: str) -> Iterator[Problem]:
    """Check the terms that a task adds.

    Args:
        own: The terms by name.
        where: What messages call the task.

    Returns:
        The problems.
    """
    for name, spec in own.items():
        clashes = sorted({*OWN_KEYS, *SHARED_SETTINGS} & set(spec.settings))
        if name in TERMS:
            yield Problem(f"{where}.terms", f"redefines the term {show(name)}", remedy="give it another name")
        if clashes:
            what = f"has settings that every term has: {', '.join(clashes)}"
            yield Problem(f"{where}.terms[{show(name)}]", what, remedy="give them other names")
        if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", spec.builder) is None:
            yield Problem(
                f"{where}.terms[{show(name)}]",
                "does not say where it is made",
                expected='builder "package.module:function"',
                got=show(spec.builder),
                remedy="write the module as Python imports it, a colon, and the function",
            )


class TermKeys(Frozen):
    """The keys of every entry of `terms`; the model of each kind of term adds its settings."""

    term: str
    name: str | None = None
    weight: Any = 1.0

    def resolve(self, spec: TermSpec) -> TermSection:
        """Build the section that a run keeps of the term; `is_silent` settings at their default are left out."""
        given = {name: (setting, getattr(self, name)) for name, setting in spec.all_settings.items()}
        words = {name: value for name, (setting, value) in given.items() if isinstance(setting, ChoiceSetting)}
        silent = {name for name, (setting, value) in given.items() if _is_silent(setting, value)}
        # The parts are checked already. A second check needs a schema of its own, beside the one within RunConfig's.
        return TermSection.model_construct(
            name=self.name or self.term,
            term=self.term,
            weight=as_schedule(self.weight),
            numbers={name: as_schedule(value) for name, (_, value) in given.items() if name not in words},
            choices={name: value for name, value in words.items() if name not in silent},
        )


def _is_silent(setting: NumberSetting | ChoiceSetting, value: object) -> bool:
    return isinstance(setting, ChoiceSetting) and setting.is_silent and value == setting.default


def _check_name(name: str) -> str:
    if not name.replace("_", "").isalnum() or name in TAKEN_NAMES:
        expected = f"letters, digits and '_', and none of {', '.join(TAKEN_NAMES)}"
        raise _refuse("is not a name", expected, "leave it out, or rename it")
    return name


_Name: Any = Annotated[str, AfterValidator(_check_name)]


def _check_names(terms: tuple[TermKeys, ...]) -> tuple[TermKeys, ...]:
    if not terms:
        raise _refuse("is an empty list", "one term or more", "leave the key out")
    for name, count in Counter(term.name or term.term for term in terms).items():
        if count > 1:
            expected = "a name of its own for each, since logs and checkpoints go by it"
            raise _refuse(f'has {count} terms that are called "{name}"', expected, f'write "name": "{name}_2" in one')
    return terms


def _refuse(what: str, expected: str, remedy: str) -> PydanticCustomError:
    """Build an error of pydantic that messages.py shows in these words."""
    return PydanticCustomError("own_words", "{what}", {"what": what, "expected": expected, "remedy": remedy})


_WEIGHT = Field(1.0, description="absolute weight of the term, a number or a schedule")
_NAME = Field(None, description="what logs call the term; default: its kind")


def build_terms_type(known: Mapping[str, TermSpec]) -> Any:
    """Build the type of the key `terms`: a list in which the kind of each entry decides the model that reads it."""
    models = {name: _build_model(name, spec) for name, spec in known.items()}
    entry = build_union("term", models)
    # A named type, as AnySchedule: its schema is built once for the file and both stages.
    terms: Any = Annotated[tuple[entry, ...], AfterValidator(_check_names)]
    return TypeAliasType("Terms", terms)  # pyright: ignore[reportGeneralTypeIssues] (it is made when the program runs)


def _build_model(name: str, spec: TermSpec) -> type[TermKeys]:
    fields: dict[str, Any] = {
        "term": (Literal[name], Field(description=spec.meaning)),  # pyright: ignore[reportInvalidTypeForm]
        "name": (_Name | None, _NAME),
        "weight": (either(NotNegative, AnySchedule), _WEIGHT),
    }
    for key, setting in spec.all_settings.items():
        default = ... if setting.default is None else setting.default
        fields[key] = (_find_type(setting), Field(default, description=setting.meaning))
    return create_model(f"Term_{name}", __base__=TermKeys, **fields)


def _find_type(setting: NumberSetting | ChoiceSetting) -> Any:
    if isinstance(setting, ChoiceSetting):
        words: Any = Literal[setting.choices]  # pyright: ignore[reportInvalidTypeForm]
        return words if setting.choices else str if setting.default == "" else Text
    number = Annotated[float, Field(gt=setting.above, ge=setting.at_least, lt=setting.below)]
    return either(number, AnySchedule) if setting.is_schedulable else number


def build_constant_term(term: str, weight: ConfigSchedule, **numbers: ConfigSchedule | float) -> TermSection:
    """Build a term with these numbers, and with defaults for the others.

    Args:
        term: Its kind, which is also its name.
        weight: Its factor.
        numbers: Settings that are numbers.

    Returns:
        The term.
    """
    settings = {name: one for name, one in TERMS[term].settings.items() if isinstance(one, NumberSetting)}
    given = {name: numbers.get(name, setting.default) for name, setting in settings.items()}
    schedules = {name: as_schedule(number) for name, number in given.items() if number is not None}
    return TermSection.model_construct(name=term, term=term, weight=weight, numbers=schedules)


def as_schedule(number: ConfigSchedule | float) -> ConfigSchedule:
    """Turn a number into a constant schedule; a schedule is returned as it is."""
    return number if isinstance(number, ConfigSchedule) else Constant(float(number))
