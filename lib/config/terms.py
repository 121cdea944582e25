"""The terms that a criterion can be made of: a name, where it is computed, and what can be set. No torch here.

A new term is one file under lib/criterion/ and one line in TERMS (docs/adding-a-term.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

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
    """One of a few words; with no choices, any text, such as the name of a layer. default None: it must be given."""

    meaning: str
    choices: tuple[str, ...] = ()
    default: str | None = None


@dataclass(frozen=True)
class TermSpec:
    """One kind of term. module: the file under lib/criterion/ whose `build` makes it; asks: whose answer it reads
    beside the student's: that of the teachers, of the student's averaged weights, or nobody's.
    """

    module: str
    meaning: str
    asks: Asks | None = None
    settings: Mapping[str, NumberSetting | ChoiceSetting] = field(
        default_factory=dict[str, NumberSetting | ChoiceSetting]
    )


_TEMPERATURE = NumberSetting("softens the distributions of both sides", default=3.0, above=0.0)

TERMS: dict[str, TermSpec] = {
    "hard": TermSpec(
        "cross_entropy",
        "cross-entropy with the labels",
        settings={
            "label_smoothing": NumberSetting(
                "share of the target spread over all classes", default=0.0, at_least=0.0, below=1.0, may_move=False
            )
        },
    ),
    "binary": TermSpec("binary", "binary cross-entropy of the difference of two logits with the labels"),
    "focal": TermSpec(
        "focal",
        "cross-entropy with the labels, weighted down for what is easy (Lin et al. 2017)",
        settings={
            "gamma": NumberSetting("how much less the easy ones weigh", default=2.0, at_least=0.0, may_move=False)
        },
    ),
    "kd": TermSpec(
        "distillation",
        "T^2 times the divergence of the student's softened classes from the teacher's",
        asks="teacher",
        settings={"temperature": _TEMPERATURE},
    ),
    "kd_sigmoid": TermSpec(
        "distillation_sigmoid",
        "the same for one logit: the difference of two, or the only one of a single-output head",
        asks="teacher",
        settings={"temperature": _TEMPERATURE},
    ),
    "features": TermSpec(
        "features",
        "distance of a feature map of the student, projected, from one of the teacher",
        asks="teacher",
        settings={
            "student_layer": ChoiceSetting("name of the student's layer; --list-layers shows them"),
            "teacher_layer": ChoiceSetting("name of the teacher's layer"),
            "distance": ChoiceSetting("mean squared difference, or one minus the cosine", ("mse", "cosine"), "mse"),
        },
    ),
    "self": TermSpec(
        "self_distillation",
        "as kd, with the student's own averaged weights for a teacher; needs ema_decay",
        asks="ema",
        settings={"temperature": _TEMPERATURE},
    ),
}
