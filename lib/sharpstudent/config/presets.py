"""The loss of one stage: the native list of terms, or the flat keys that other recipes write, as sugar for it.

Each dialect declares its keys; the keys that a config uses decide which one it speaks, and `dialect` may say so. Keys
of two dialects, or of one beside native `terms`, contradict each other and are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sharpstudent.config.keys import FileKeys, StageKeys
from sharpstudent.config.messages import show
from sharpstudent.config.run_config import Stage, TaskKind, TermSection
from sharpstudent.config.scheduled import check_schedule, probe
from sharpstudent.config.terms import NumberSetting, TermSpec, build_constant_term, list_terms
from sharpstudent.core.errors import Problem
from sharpstudent.core.schedules import ConfigSchedule, Constant, Cosine, Progress, Staircase

DEFAULT_TASK = "deepfake"  # of a config that names none: it is written as the two-stage guide prints it


@dataclass(frozen=True)
class Dialect:
    """keys: those that only this dialect has; resolve: the terms that they stand for."""

    meaning: str
    keys: tuple[str, ...]
    resolve: Callable[[FileKeys], tuple[TermSection, ...]]


def _resolve_two_stage(own: FileKeys) -> tuple[TermSection, ...]:
    """alpha * hard + (1 - alpha) * T^2 * KL, alpha by epoch."""
    if own.use_progressive_distillation:
        alpha: ConfigSchedule = Staircase(own.alpha_start, own.alpha_end, own.progressive_epochs)
    else:
        alpha = Constant(own.alpha_end)
    return (
        build_constant_term("hard", alpha),
        build_constant_term("kd", replace(alpha, complement=True), temperature=own.temperature),
    )


def _resolve_additive(own: FileKeys) -> tuple[TermSection, ...]:
    """hard + distill_weight * T^2 * KL, T from start to end by a cosine over all steps."""
    start = 1.0 if own.distill_temp_start is None else own.distill_temp_start
    end = 4.0 if own.distill_temp_end is None else own.distill_temp_end
    return (
        build_constant_term("hard", Constant(1.0)),
        build_constant_term("kd", Constant(own.distill_weight or 0.0), temperature=Cosine(start, end)),
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


LOSS_KEYS = ("terms", *(key for dialect in DIALECTS.values() for key in dialect.keys))


def choose_dialect(own: FileKeys, flat: Collection[str], group: Collection[str]) -> tuple[str, list[Problem]]:
    """The dialect that one stage's keys `own` speak, and what contradicts it.

    flat, group: the keys that the config gives, and those of the stage's group. A group that weighs the loss itself
    wins over all flat keys, as it does key by key elsewhere.
    """
    said = {*LOSS_KEYS} & {*group} or {*LOSS_KEYS} & {*flat}
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


def get_group(keys: FileKeys, stage: Stage) -> StageKeys:
    """The group of keys that win in a stage."""
    return keys.stage1 if stage == 1 else keys.stage2


def resolve_loss(
    keys: FileKeys, own: FileKeys, stage: Stage, task: type[TaskKind], problems: list[Problem]
) -> tuple[TermSection, ...]:
    """Stage 1: hard labels. Stage 2: what the flat keys of a dialect stand for. In both, native terms where given."""
    if own.terms is None and stage == 1:
        return (build_constant_term("hard", Constant(1.0)),)
    dialect, contradictions = find_dialect(keys, own, stage)
    problems += contradictions
    if dialect != NATIVE:
        return DIALECTS[dialect].resolve(own)
    where = f"stage{stage}.terms" if get_group(keys, stage).terms is not None else "terms"
    known = list_terms(task.terms)
    terms = tuple(term.resolve(known[term.term]) for term in own.terms or ())
    problems += _check_terms(terms, own, stage, where, known)
    return terms


def find_dialect(keys: FileKeys, own: FileKeys, stage: Stage) -> tuple[str, list[Problem]]:
    """How the loss of a stage is written: the name of a dialect, or NATIVE; and what contradicts it.

    keys: those of the file; own: as the stage reads them.
    """
    flat = keys.model_fields_set if stage == 2 else set[str]()
    return choose_dialect(own, flat, get_group(keys, stage).model_fields_set)


def describe_idle(keys: FileKeys, own: FileKeys, stage: Stage) -> list[str]:
    """For the log: the flat keys of the loss that stage 2 does not read, because its own group describes the loss."""
    dialect = find_dialect(keys, own, stage)[0]
    used = {"terms"} if dialect == NATIVE else {*DIALECTS[dialect].keys}
    said = [key for key in LOSS_KEYS if key in keys.model_fields_set and getattr(keys, key) is not None]
    idle = ", ".join(key for key in said if key not in used)
    if stage == 1 or not idle:
        return []
    source = "stage2.terms" if dialect == NATIVE else f"the keys of {dialect} in stage2"
    return [f"stage 2 takes its loss from {source}, so these flat keys have no effect: {idle}"]


def _check_terms(
    terms: Sequence[TermSection], own: FileKeys, stage: Stage, where: str, known: Mapping[str, TermSpec]
) -> Iterator[Problem]:
    """Numbers that leave their range in the run, terms that have nobody to learn from, and epochs with no weight."""
    for index, term in enumerate(terms):
        place, spec = f"{where}[{index}]", known[term.term]
        yield from check_schedule(term.weight, own.epoch, f"{place}.weight", at_least=0.0)
        for name, setting in spec.settings.items():
            if isinstance(setting, NumberSetting):
                yield from check_schedule(term.numbers[name], own.epoch, f"{place}.{name}", **setting.bounds)
        if spec.asks == "teacher" and stage == 1:
            what = f"{show(term.term)} asks a teacher, and stage 1 has none"
            yield Problem(place, what, remedy="move it to stage2.terms")
        if spec.asks == "ema" and own.ema_decay is None:
            what = f"{show(term.term)} learns from averaged weights, and none are kept: the term would do nothing"
            expected = "ema_decay, such as 0.999"
            yield Problem(place, what, expected, "ema_decay null", "--set ema_decay=0.999")
    # Between these epochs every weight goes one way only: where all of them are 0, they are so at an end, too.
    probed = sorted({epoch for term in terms for epoch, _ in probe(term.weight, own.epoch)})
    for epoch in probed:
        steps = [Progress(epoch, step, own.epoch, 2) for step in (0, 1)]
        if not any(term.weight(progress) > 0.0 for term in terms for progress in steps):
            what = f"has no term with a weight above 0 in epoch {epoch}: there is nothing to learn from"
            yield Problem(where, what, remedy="raise a weight")
            return
