"""The loss of one stage, written as the native list `terms` or with the flat keys of a preset.

A preset is a set of flat keys, as other recipes use them, that stands for a list of terms. The keys that a config has
decide which preset is meant, and the key `preset` may name it. Keys of two presets, or of one beside native `terms`,
contradict each other and are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sharpstudent.config.keys import FileKeys
from sharpstudent.config.messages import show
from sharpstudent.config.run_config import RunConfig, Stage, TaskKind, TermSection
from sharpstudent.config.scheduled import check_schedule, probe
from sharpstudent.config.terms import NumberSetting, TermSpec, build_constant_term, list_terms
from sharpstudent.core.errors import Problem
from sharpstudent.core.schedules import ConfigSchedule, Constant, Cosine, Progress, Staircase

DEFAULT_TASK = "deepfake"  # for a config without `task`, such as the one that the two-stage guide prints


@dataclass(frozen=True)
class Preset:
    """Flat keys that stand for a list of terms.

    Attributes:
        meaning: What the keys mean, for messages and docs/config.md.
        keys: The keys that only this preset has.
        resolve: Computes the terms that the keys stand for.
    """

    meaning: str
    keys: tuple[str, ...]
    resolve: Callable[[FileKeys], tuple[TermSection, ...]]


def _resolve_two_stage(own: FileKeys) -> tuple[TermSection, ...]:
    """Build the terms of alpha * hard + (1 - alpha) * T^2 * KL, where alpha changes by epoch."""
    if own.use_progressive_distillation:
        alpha: ConfigSchedule = Staircase(own.alpha_start, own.alpha_end, own.progressive_epochs)
    else:
        alpha = Constant(own.alpha_end)
    return (
        build_constant_term("hard", alpha),
        build_constant_term("kd", replace(alpha, complement=True), temperature=own.temperature),
    )


def _resolve_additive(own: FileKeys) -> tuple[TermSection, ...]:
    """Build the terms of hard + distill_weight * T^2 * KL, where T follows half a cosine from start to end."""
    start = 1.0 if own.distill_temp_start is None else own.distill_temp_start
    end = 4.0 if own.distill_temp_end is None else own.distill_temp_end
    return (
        build_constant_term("hard", Constant(1.0)),
        build_constant_term("kd", Constant(own.distill_weight or 0.0), temperature=Cosine(start, end)),
    )


NATIVE = "native"  # the list of terms itself

PRESETS: Mapping[str, Preset] = {
    "two_stage": Preset(
        "alpha weighs the hard labels and 1 - alpha the teacher",
        ("alpha_start", "alpha_end", "progressive_epochs", "use_progressive_distillation", "temperature"),
        _resolve_two_stage,
    ),
    "additive": Preset(
        "the teacher's term is added to the hard labels with distill_weight",
        ("distill_weight", "distill_temp_start", "distill_temp_end"),
        _resolve_additive,
    ),
}


LOSS_KEYS = ("terms", *(key for preset in PRESETS.values() for key in preset.keys))


def find_preset(keys: FileKeys, own: FileKeys, stage: Stage) -> tuple[str, list[Problem]]:
    """Find out which keys describe the loss of a stage, and what contradicts them.

    If the group `stage1` or `stage2` describes the loss, all flat keys of the loss are ignored together;
    any other key of the group replaces only the flat key of its name.

    Args:
        keys: The keys of the file.
        own: The keys as the stage reads them (`resolve.take_stage`).
        stage: The stage.

    Returns:
        The name of a preset, or NATIVE; and a problem where the loss is written in two ways.
    """
    flat = keys.model_fields_set if stage == 2 else set[str]()
    given = {*LOSS_KEYS} & keys.get_group(stage).model_fields_set or {*LOSS_KEYS} & flat
    named = {name: [key for key in preset.keys if key in given] for name, preset in PRESETS.items()}
    named = {name: found for name, found in named.items() if found}
    if own.terms is not None and "terms" in given:
        flat_keys = ", ".join(key for found in named.values() for key in found)
        return NATIVE, [_explain_native_and_flat(flat_keys)] if flat_keys else []
    if len(named) > 1 or (own.preset is not None and set(named) - {own.preset}):
        return own.preset or "two_stage", [_explain_two_presets(named, own.preset)]
    return own.preset or next(iter(named), "two_stage"), []


def _explain_native_and_flat(flat_keys: str) -> Problem:
    return Problem(
        "terms",
        "stands beside keys that weigh the loss in another way",
        expected="either the list of terms, or the flat keys",
        got=f"terms, and also {flat_keys}",
        remedy=f"remove {flat_keys}, or remove terms",
    )


def _explain_two_presets(named: Mapping[str, list[str]], declared: str | None) -> Problem:
    shown = "; ".join(f"{', '.join(keys)} ({name}: {PRESETS[name].meaning})" for name, keys in named.items())
    what = (
        "the loss is described in two ways at once"
        if declared is None
        else f"{show(declared)} does not know these keys"
    )
    remedy = "keep the keys of one, or write the native list `terms`"
    return Problem("preset", what, expected="the keys of one preset", got=shown, remedy=remedy)


def resolve_loss(
    keys: FileKeys, own: FileKeys, stage: Stage, task: type[TaskKind], problems: list[Problem]
) -> tuple[TermSection, ...]:
    """Compute the terms of the loss of one stage.

    Stage 1 learns from hard labels, and stage 2 from what the flat keys of a preset stand for; in both, native terms
    have precedence.

    Args:
        keys: The keys of the file.
        own: The keys as the stage reads them (`resolve.take_stage`).
        stage: The stage.
        task: The class of the task, which may have terms of its own.
        problems: The list to which problems are added.

    Returns:
        The terms.
    """
    if own.terms is None and stage == 1:
        return (build_constant_term("hard", Constant(1.0)),)
    preset, contradictions = find_preset(keys, own, stage)
    problems += contradictions
    if preset != NATIVE:
        return PRESETS[preset].resolve(own)
    where = f"stage{stage}.terms" if keys.get_group(stage).terms is not None else "terms"
    known = list_terms(task.terms)
    terms = tuple(term.resolve(known[term.term]) for term in own.terms or ())
    problems += _check_terms(terms, own, stage, where, known)
    return terms


def describe_idle(keys: FileKeys, own: FileKeys, stage: Stage) -> list[str]:
    """Name the flat keys of the loss that stage 2 ignores, because its own group describes the loss.

    Args:
        keys: The keys of the file.
        own: The keys as the stage reads them (`resolve.take_stage`).
        stage: The stage.

    Returns:
        One sentence for the log, or none.
    """
    preset = find_preset(keys, own, stage)[0]
    used = {"terms"} if preset == NATIVE else {*PRESETS[preset].keys}
    given = [key for key in LOSS_KEYS if key in keys.model_fields_set and getattr(keys, key) is not None]
    idle = ", ".join(key for key in given if key not in used)
    if stage == 1 or not idle:
        return []
    source = "stage2.terms" if preset == NATIVE else f"the keys of {preset} in stage2"
    return [f"stage 2 takes its loss from {source}, so these flat keys have no effect: {idle}"]


def describe_weights(config: RunConfig, known: Mapping[str, TermSpec]) -> list[str]:
    """Warn of terms of the loss that weigh nothing in the whole run, and of a stage 2 without a teacher.

    Args:
        config: The resolved config.
        known: All kinds of terms, by name.

    Returns:
        Sentences for the log.
    """
    epochs = config.training.epochs
    heavy = {term.name for term in config.criterion if any(value > 0.0 for _, value in probe(term.weight, epochs))}
    notes = [
        f"warning: the term {term.name} weighs nothing in the whole run: it is computed and has no effect; raise its "
        "weight, or leave it out"
        for term in config.criterion
        if term.name not in heavy
    ]
    taught = any(known[term.term].source is not None for term in config.criterion if term.name in heavy)
    if config.stage == 2 and not taught:
        notes.append(
            "warning: nothing is distilled: no term that learns from a teacher weighs anything, and stage 2 goes on "
            "with labels alone. That is right for a control; else lower alpha_end, or raise the teacher's weight"
        )
    return notes


def _check_terms(
    terms: Sequence[TermSection], own: FileKeys, stage: Stage, where: str, known: Mapping[str, TermSpec]
) -> Iterator[Problem]:
    """Find numbers that leave their range, terms without the model that they learn from, epochs without any weight."""
    for index, term in enumerate(terms):
        place, spec = f"{where}[{index}]", known[term.term]
        yield from check_schedule(term.weight, own.epoch, f"{place}.weight", at_least=0.0)
        for name, setting in spec.settings.items():
            if isinstance(setting, NumberSetting):
                yield from check_schedule(term.numbers[name], own.epoch, f"{place}.{name}", **setting.bounds)
        if spec.source == "teacher" and stage == 1:
            what = f"{show(term.term)} learns from a teacher, and stage 1 has none"
            yield Problem(place, what, remedy="move it to stage2.terms")
        if spec.source == "ema" and own.ema_decay is None:
            what = f"{show(term.term)} learns from averaged weights, and none are kept: the term would do nothing"
            expected = "ema_decay, such as 0.999"
            yield Problem(place, what, expected, "ema_decay null", "--set ema_decay=0.999")
    # Between these epochs every weight only rises or only falls: if all are 0 somewhere, they are 0 here, too.
    probed = sorted({epoch for term in terms for epoch, _ in probe(term.weight, own.epoch)})
    for epoch in probed:
        steps = [Progress(epoch, step, own.epoch, 2) for step in (0, 1)]
        if not any(term.weight(progress) > 0.0 for term in terms for progress in steps):
            what = f"has no term with a weight above 0 in epoch {epoch}: there is nothing to learn from"
            yield Problem(where, what, remedy="raise a weight")
            return
