"""What a report on detectors begins with: fakes it learnt from, other fakes, fakes missed; and what limits the model.

A kind of fake counts as learnt where the model's own file says that its training data held it. Fakes without a name
are neither one nor the other. Real pictures of different sets are unlike, so no value is over several sets: of several
that hold such fakes the one counts that the main model is worst at, with an interval that allows for the choice.

Legend: N frames, S seeds of a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.errors import format_count_of
from sharpstudent.core.naming import clean_name
from sharpstudent.core.types import Table
from sharpstudent.metrics import binary_draws as drawn
from sharpstudent.metrics.binary import compute_tpr_at_fpr
from sharpstudent.metrics.bootstrap import GroupCounts, compute_interval
from sharpstudent.metrics.intervals import FEWEST_GROUPS, LEVEL
from sharpstudent.metrics.metric import Counts, Metric, OnBlock, make_binary_metric
from sharpstudent.report.results import SummaryTile, TileValue
from sharpstudent.report.sentences import describe_one_seed, describe_share, find_main, join_some, list_seeds
from sharpstudent.report.summary import make_value, mark_main
from sharpstudent.report.text import Unit
from sharpstudent.tasks.deepfake.evaluation.frames import ScoredFrames
from sharpstudent.tasks.deepfake.report.decisions import (
    describe_false_alarms,
    describe_group_errors,
    describe_kinds,
    describe_probabilities,
    describe_robustness,
    describe_undecided,
    select,
)
from sharpstudent.tasks.deepfake.report.report_sets import GROUP, ReportSet, exclude_validation, list_sets
from sharpstudent.tasks.deepfake.report.results import ModelResult, Results

UNNAMED = ("", "fake", "unnamed")  # what sets call fakes whose kind they do not know
RATE = 0.01  # of reals that may be called fake
FEWEST_REALS = round(1 / RATE)  # below it, one false alarm is more than RATE


def _compute_missed(table: Table, counts: Counts) -> float:
    margins, labels = (np.repeat(table[name], counts) for name in ("margin", "label"))
    return 1.0 - compute_tpr_at_fpr(margins, labels, wanted=RATE)


def _build_missed_form(table: Table, group_of: NDArray[np.int64]) -> OnBlock:
    grouped = drawn.GroupedScores(table["margin"], table["label"], group_of)

    def on_block(counts: GroupCounts) -> NDArray[np.float64]:
        return 1.0 - drawn.compute_tprs_at_fpr(grouped.draw(counts), wanted=RATE)

    return on_block


AUC = make_binary_metric("auc_by_rank", lambda table: table["margin"])
MISSED = Metric(
    _compute_missed,
    "lower",
    chance=1.0 - RATE,
    perfect=0.0,
    strata="label",
    bounds=(0.0, 1.0),
    falls_with_share=False,
    on_groups=_build_missed_form,
)


@dataclass(frozen=True)
class KindsOfSet:
    """The reals of a set and some of its kinds of fake.

    Attributes:
        source: The name of the set.
        kinds: The kinds of fake.
        among: Of how many such parts the main model is worst at this one.
    """

    source: str
    kinds: tuple[str, ...]
    among: int = 1

    def find_rows(self, frames: ScoredFrames) -> NDArray[np.bool_]:
        """Find which frames (N,) are in it, with a decision or without."""
        is_kind = np.array([(kind or UNNAMED[-1]) in self.kinds for kind in frames.manipulations])
        return (np.array(frames.sources) == self.source) & (is_kind | (frames.labels == 0))


@dataclass(frozen=True)
class Kinds:
    """The fakes of the evaluated data, by what the main model learnt from.

    Attributes:
        learnt: Fakes of kinds in its training data, a part for each set that holds any.
        other: Fakes of other kinds.
        unknown: Fakes of which it is not known: the set does not name them, or the model's file names no kinds.
    """

    learnt: tuple[KindsOfSet, ...]
    other: tuple[KindsOfSet, ...]
    unknown: tuple[KindsOfSet, ...]


def sort_kinds(results: Results) -> Kinds:
    """Sort the kinds of fake of each set by whether the main model learnt from such fakes."""
    learnt = _find_main(results).learnt
    found: dict[str, list[KindsOfSet]] = {"learnt": [], "other": [], "unknown": []}
    for one in results.data:
        of_set: dict[str, list[str]] = {}
        for kind in one.manipulations:
            group = "learnt" if one.kind == "validation" else _sort_kind(kind, learnt)
            of_set.setdefault(group, []).append(kind)
        for group, kinds in of_set.items():
            found[group].append(KindsOfSet(one.name, tuple(kinds)))
    return Kinds(**{group: tuple(parts) for group, parts in found.items()})


def _sort_kind(kind: str, learnt: tuple[str, ...] | None) -> str:
    if learnt is None or kind in UNNAMED:
        return "unknown"
    return "learnt" if kind.casefold() in {one.casefold() for one in learnt} else "other"


def _find_main(results: Results) -> ModelResult:
    model, _ = list_seeds(results.models)[-1]
    assert isinstance(model, ModelResult)
    return model


def build_tiles(results: Results, frames: Sequence[ScoredFrames], *, rounds: int) -> tuple[SummaryTile, ...]:
    """Build the three tiles of a report on detectors.

    Args:
        results: The results, with models and data.
        frames: The scored frames of each model, in the order of the results.
        rounds: How many resamples intervals are made of.

    Returns:
        Fakes of the kinds that the main model learnt from, other kinds, and fakes missed at 1 % false alarms.
    """
    kinds = sort_kinds(results)
    seeds = [[frames[number] for number in numbers] for _, numbers in list_seeds(results.models)]
    learnt = _find_worst(kinds.learnt, seeds[-1])
    others = _find_worst(kinds.other or kinds.unknown, seeds[-1])
    is_named = bool(kinds.other) or not kinds.unknown
    second = "Other kinds of fake" if is_named else "Fakes whose kind is not known"
    tiles = (
        _build_tile("Kinds of fake it learnt from", learnt, _explain_no_learnt(results), results, seeds, rounds),
        _build_tile(second, others, _NO_OTHERS, results, seeds, rounds),
    )
    shown, beside = (others, learnt) if others is not None else (learnt, None)
    name = "Fakes missed at 1 % false alarms"
    return (*tiles, _build_missed(name, shown, beside, results, seeds, rounds))


_NO_OTHERS = (
    "No set here holds such fakes. make_swaps.py makes some of real photos: give its folder as --data, with --crops."
)


def _explain_no_learnt(results: Results) -> str:
    learnt = _find_main(results).learnt
    if learnt is None:
        return "Its file does not say which fakes it learnt from."
    return f"It learnt from {join_some(list(map(clean_name, learnt)))}, and no set here names such fakes."


def _find_worst(parts: Sequence[KindsOfSet], of_seeds: Sequence[ScoredFrames]) -> KindsOfSet | None:
    """Find the part with the lowest frame AUC of the main model, over its seeds; None where none has both classes."""
    values = {part: _compute_auc(part, of_seeds) for part in parts}
    known = {part: value for part, value in values.items() if not np.isnan(value)}
    return replace(min(known, key=lambda one: known[one]), among=len(known)) if known else None


def _compute_auc(part: KindsOfSet, of_seeds: Sequence[ScoredFrames]) -> float:
    return float(np.mean([AUC.value(table) for table in _list_tables(part, of_seeds)]))


def _list_tables(part: KindsOfSet, of_seeds: Sequence[ScoredFrames]) -> list[Table]:
    """List the tables of a part, one a seed: the frames on which each seed has a decision."""
    rows = part.find_rows(of_seeds[0]) & np.all([one.decided for one in of_seeds], axis=0)
    return [_to_table(one, rows) for one in of_seeds]


def _to_table(frames: ScoredFrames, rows: NDArray[np.bool_]) -> Table:
    return {
        "id": np.array(frames.sample_ids)[rows],
        "group": np.array(frames.groups)[rows],
        "label": np.asarray(frames.labels, np.int64)[rows],
        "margin": np.asarray(frames.margins, np.float64)[rows],
    }


def _build_tile(
    title: str,
    part: KindsOfSet | None,
    note: str,
    results: Results,
    seeds: Sequence[Sequence[ScoredFrames]],
    rounds: int,
) -> SummaryTile:
    if part is None:
        return _make_tile(title, "frame AUC", "share", AUC, (), note)
    values = _measure(AUC, part, results, seeds, rounds)
    return _make_tile(title, "frame AUC", "share", AUC, values, _describe_part(part))


def _build_missed(
    title: str,
    part: KindsOfSet | None,
    beside: KindsOfSet | None,
    results: Results,
    seeds: Sequence[Sequence[ScoredFrames]],
    rounds: int,
) -> SummaryTile:
    if part is None:
        return _make_tile(title, "", "percent", MISSED, (), "It needs real and fake faces in one set.")
    values = [_limit_resolution(one, part, seeds[-1][0]) for one in _measure(MISSED, part, results, seeds, rounds)]
    note = _describe_part(part)
    if beside is not None:
        missed = float(np.mean([MISSED.value(table) for table in _list_tables(beside, seeds[-1])]))
        note += f" Of the kinds it learnt from, it misses {describe_share(missed)}."
    return _make_tile(title, "", "percent", MISSED, values, note)


def _make_tile(
    title: str, unit: str, form: Unit, metric: Metric, values: Sequence[TileValue], note: str
) -> SummaryTile:
    return SummaryTile(
        title=title,
        unit=unit,
        format=form,
        ends=(0.0, 1.0),
        chance=metric.chance,
        values=mark_main(values),
        note=note,
    )


def _describe_part(part: KindsOfSet) -> str:
    name, kinds = clean_name(part.source), [clean_name(kind) for kind in part.kinds if kind not in UNNAMED]
    text = f"On {name}{f': {join_some(kinds)}' if kinds and kinds != [name] else ''}."
    return f"{text} The lowest of {part.among} sets; the interval allows for that." if part.among > 1 else text


def _measure(
    metric: Metric, part: KindsOfSet, results: Results, seeds: Sequence[Sequence[ScoredFrames]], rounds: int
) -> list[TileValue]:
    values: list[TileValue] = []
    for (model, _), of_seeds in zip(list_seeds(results.models), seeds, strict=True):
        tables = _list_tables(part, of_seeds)
        labels: Any = tables[0]["label"]
        people = len(np.unique(tables[0]["group"]))
        size = (
            f"{format_count_of(int((labels == 1).sum()), 'fake')}, {format_count_of(int((labels == 0).sum()), 'real')}"
            f" of {format_count_of(people, GROUP)}"
        )
        level = 1.0 - (1.0 - LEVEL) / part.among
        if len(np.unique(labels)) < 2:
            continue
        found = compute_interval(metric, tables, rounds=rounds, level=level, group_unit=GROUP)
        values.append(make_value(model, found, metric.chance, metric.perfect, size, seeds=len(tables)))
    return values


def _limit_resolution(value: TileValue, part: KindsOfSet, frames: ScoredFrames) -> TileValue:
    """With too few reals to show the rate, more fakes may be missed at it: no good word is given."""
    reals = int((part.find_rows(frames) & (frames.labels == 0) & frames.decided).sum())
    if reals >= FEWEST_REALS:
        return value
    word = "inconclusive" if value.word in ("strong", "fair") else value.word
    about = f"{value.about}; 1 % needs {FEWEST_REALS} reals"
    return value.model_copy(update={"word": word, "about": about})


def list_limits(results: Results) -> tuple[str, ...]:
    """List what limits the models that the report is about, the gravest first, a sentence or two each."""
    if not results.models:
        return ()
    sets, kinds = list_sets(results), sort_kinds(results)
    independent, models = exclude_validation(sets), find_main(results.models)
    lines = [line for model in models for line in select(describe_kinds(model, sets), limits=True)]
    lines += _describe_training(results, kinds)
    lines += [line for model in models for line in select(describe_false_alarms(model, independent), limits=True)]
    lines += [line for model in models for line in select(describe_robustness(model), limits=True)]
    lines += [line for model in models for line in select(describe_probabilities(model, independent), limits=True)]
    lines += _warn_of_few(results, sets)
    lines += select(describe_undecided(results.models, sets), limits=True)
    by_group = [line for model in models for line in select(describe_group_errors(model), limits=True)]
    return (*lines, *describe_one_seed(results.models), *dict.fromkeys(by_group))


def _describe_training(results: Results, kinds: Kinds) -> list[str]:
    """Say what the main model learnt from beside what it was evaluated on."""
    model = _find_main(results)
    name, learnt = clean_name(model.name), None if model.learnt is None else list(map(clean_name, model.learnt))
    lines: list[str] = []
    if learnt is None:
        lines.append(f"The file of {name} does not say which kinds of fake it learnt from.")
    elif not kinds.other and not kinds.unknown:
        lines.append(
            f"{name} learnt from {join_some(learnt)}, and how it fares at other kinds of fake was not measured."
        )
    elif kinds.unknown:
        named = join_some([clean_name(part.source) for part in kinds.unknown])
        lines.append(f"Whether {name} learnt from fakes like those of {named} is not known: their kind is not named.")
    chose = [clean_name(one.name) for one in results.data if one.kind == "validation"]
    if chose:
        lines.append(f"{join_some(chose).capitalize()} chose the checkpoint, so these metrics are optimistic.")
    return lines


def _warn_of_few(results: Results, sets: Sequence[ReportSet]) -> list[str]:
    """Say which sets have too few people for any claim (metrics/intervals.py)."""
    counts = {dataset.title: dataset.count(results.models[0], "people_count") for dataset in sets}
    few = {title: count for title, count in counts.items() if count is not None and count < FEWEST_GROUPS}
    return [
        f"{title} has only {format_count_of(count, 'person')}: a claim needs {FEWEST_GROUPS}."
        for title, count in few.items()
    ]
