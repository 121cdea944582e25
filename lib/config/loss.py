"""The loss of one stage: native terms, or what the flat keys of a dialect stand for."""

from __future__ import annotations

from collections.abc import Sequence

from lib.config.build_schedule import build_schedule
from lib.config.dialects import DIALECTS, NATIVE, choose_dialect
from lib.config.keys import FileKeys, Stage1Keys
from lib.config.moving import probe
from lib.config.native import build_constant_term, parse_terms
from lib.config.sections import ScheduleSection, Stage, TermSection
from lib.config.terms import TERMS
from lib.config.words import show
from lib.errors import Problem, ProblemList, UserError
from lib.schedules import Progress


def get_group(keys: FileKeys, stage: Stage) -> Stage1Keys:
    """The group of keys that win in a stage."""
    return keys.stage1 if stage == 1 else keys.stage2


def resolve_loss(keys: FileKeys, own: FileKeys, stage: Stage, problems: ProblemList) -> tuple[TermSection, ...]:
    """Stage 1: hard labels. Stage 2: what the flat keys of a dialect stand for. In both, native terms where given."""
    if own.terms is None and stage == 1:
        return (build_constant_term("hard", ScheduleSection(kind="constant", value=1.0)),)
    dialect, contradictions = find_dialect(keys, own, stage)
    for problem in contradictions:
        problems.add(problem)
    if dialect != NATIVE:
        return DIALECTS[dialect].resolve(own)
    where = f"stage{stage}.terms" if get_group(keys, stage).terms is not None else "terms"
    try:
        terms = parse_terms(own.terms or (), where, epochs=own.epoch)
    except UserError as error:
        problems.take(error)
        return ()
    for problem in _check_terms(terms, own, stage, where):
        problems.add(problem)
    return terms


def find_dialect(keys: FileKeys, own: FileKeys, stage: Stage) -> tuple[str, list[Problem]]:
    """How the loss of a stage is written: the name of a dialect, or NATIVE; and what contradicts it.

    keys: those of the file; own: as the stage reads them.
    """
    flat = keys.model_fields_set if stage == 2 else set[str]()
    return choose_dialect(own, flat, get_group(keys, stage).model_fields_set)


def _check_terms(terms: Sequence[TermSection], own: FileKeys, stage: Stage, where: str) -> list[Problem]:
    """Terms that have nobody to ask, or nothing to learn from."""
    problems: list[Problem] = []
    for place, term in enumerate(terms):
        asks = TERMS[term.term].asks
        if asks == "teacher" and stage == 1:
            problems.append(
                Problem(
                    f"{where}[{place}]",
                    f"{show(term.term)} asks a teacher, and stage 1 has none",
                    remedy="move it to stage2.terms",
                )
            )
        if asks == "ema" and own.ema_decay is None:
            problems.append(
                Problem(
                    f"{where}[{place}]",
                    f"{show(term.term)} learns from averaged weights, and none are kept: the term would do nothing",
                    expected="ema_decay, such as 0.999",
                    got="ema_decay null",
                    remedy="--set ema_decay=0.999",
                )
            )
    schedules = [build_schedule(term.weight) for term in terms]
    # Between these epochs every weight goes one way only: where all of them are 0, they are so at an end, too.
    turns = {epoch for term in terms for epoch, _ in probe(term.weight, own.epoch)}
    for epoch in sorted(turns):
        steps = [Progress(epoch, step, own.epoch, 2) for step in (0, 1)]
        if not any(schedule(progress) > 0.0 for schedule in schedules for progress in steps):
            problems.append(
                Problem(
                    where,
                    f"has no term with a weight above 0 in epoch {epoch}: there is nothing to learn from",
                    remedy="raise a weight",
                )
            )
            break
    return problems
