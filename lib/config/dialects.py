"""The flat keys that other recipes write, as sugar for the native list of terms.

Each dialect declares its keys; the keys that a config uses decide which one it speaks, and `dialect` may say so. Keys
of two dialects, or of one beside native `terms`, contradict each other and are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from lib.config.keys import FileKeys
from lib.config.native import build_constant_term
from lib.config.sections import ScheduleSection, TermSection
from lib.config.words import show
from lib.errors import Problem


@dataclass(frozen=True)
class Dialect:
    """keys: those that only this dialect has; resolve: the terms that they stand for."""

    meaning: str
    keys: tuple[str, ...]
    resolve: Callable[[FileKeys], tuple[TermSection, ...]]


def _resolve_two_stage(own: FileKeys) -> tuple[TermSection, ...]:
    """alpha * hard + (1 - alpha) * T^2 * KL, alpha by epoch."""
    if own.use_progressive_distillation:
        alpha = ScheduleSection(
            kind="staircase", start=own.alpha_start, end=own.alpha_end, epochs=own.progressive_epochs
        )
    else:
        alpha = ScheduleSection(kind="constant", value=own.alpha_end)
    return (
        build_constant_term("hard", alpha),
        build_constant_term("kd", alpha.model_copy(update={"complement": True}), temperature=own.temperature),
    )


def _resolve_additive(own: FileKeys) -> tuple[TermSection, ...]:
    """hard + distill_weight * T^2 * KL, T from start to end by a cosine over all steps."""
    start = 1.0 if own.distill_temp_start is None else own.distill_temp_start
    end = 4.0 if own.distill_temp_end is None else own.distill_temp_end
    temperature = ScheduleSection(kind="cosine", start=start, end=end)
    return (
        build_constant_term("hard", ScheduleSection(kind="constant", value=1.0)),
        build_constant_term(
            "kd", ScheduleSection(kind="constant", value=own.distill_weight or 0.0), temperature=temperature
        ),
    )


NATIVE = "native"  # the list of terms itself

DIALECTS: Mapping[str, Dialect] = {
    "two_stage": Dialect(
        "alpha weighs the hard labels and 1 - alpha the teacher",
        ("alpha_start", "alpha_end", "progressive_epochs", "use_progressive_distillation", "temperature"),
        _resolve_two_stage,
    ),
    "additive": Dialect(
        "the teacher's term is added to the hard labels with distill_weight",
        ("distill_weight", "distill_temp_start", "distill_temp_end"),
        _resolve_additive,
    ),
}


def choose_dialect(own: FileKeys, flat: Collection[str], group: Collection[str]) -> tuple[str, list[Problem]]:
    """The dialect that one stage's keys `own` speak, and what contradicts it.

    flat, group: the keys that the config gives, and those of the stage's group. A group that weighs the loss itself
    wins over all flat keys, as it does key by key elsewhere.
    """
    loss_keys = {"terms", *(key for dialect in DIALECTS.values() for key in dialect.keys)}
    said = loss_keys & set(group) or loss_keys & set(flat)
    spoken = {name: [key for key in dialect.keys if key in said] for name, dialect in DIALECTS.items()}
    spoken = {name: keys for name, keys in spoken.items() if keys}
    declared = own.dialect
    if own.terms is not None and "terms" in said:
        sugar = [key for keys in spoken.values() for key in keys]
        problems = [_explain_native_and_sugar(sugar)] if sugar else []
        return NATIVE, problems
    if len(spoken) > 1 or (declared is not None and set(spoken) - {declared}):
        return declared or "two_stage", [_explain_two_dialects(spoken, declared)]
    return declared or next(iter(spoken), "two_stage"), []


def _explain_native_and_sugar(sugar: list[str]) -> Problem:
    return Problem(
        "terms",
        "stands beside keys that weigh the loss in another way",
        expected="either the list of terms, or the flat keys",
        got=f"terms, and also {', '.join(sugar)}",
        remedy=f"remove {', '.join(sugar)}, or remove terms",
    )


def _explain_two_dialects(spoken: Mapping[str, list[str]], declared: str | None) -> Problem:
    told = "; ".join(f"{', '.join(keys)} ({name}: {DIALECTS[name].meaning})" for name, keys in spoken.items())
    return Problem(
        "dialect",
        "the loss is described in two ways at once"
        if declared is None
        else f"{show(declared)} does not know these keys",
        expected="the keys of one dialect",
        got=told,
        remedy="keep the keys of one, or write the native list `terms`",
    )
