"""What a report begins with: three tiles, and what limits a model.

A tile holds one value for each model, with its interval and one word. The word is read off the ends of the interval,
never off the value. Let s be 0 at chance and 1 at the perfect value of the metric:

| Word | Where |
|---|---|
| strong | the worse end of the interval is at s >= STRONG |
| fair | the worse end is at s >= FAIR |
| weak | the worse end is better than chance |
| at chance | the interval covers chance, and its better end is below FAIR |
| below chance | the better end is worse than chance |
| inconclusive | the interval covers chance and reaches FAIR; there is none; it rests on too few groups |
| no chance level | the value of guessing, or the perfect one, is not known |
| not measured | there is no value |

Legend: M models, S seeds of a model, N rows of a table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from sharpstudent.core.errors import format_count_of, plural
from sharpstudent.core.naming import clean_name
from sharpstudent.core.types import Table
from sharpstudent.metrics.bootstrap import compute_interval
from sharpstudent.metrics.intervals import FEWEST_GROUPS, LEVEL, Bounds, Estimate
from sharpstudent.metrics.metric import Metric
from sharpstudent.report.results import (
    EvaluationResults,
    MetricValue,
    ModelBase,
    SummaryTile,
    TileValue,
    Word,
)
from sharpstudent.report.sentences import (
    MOST_DIGITS,
    describe_estimate,
    describe_one_seed,
    find_main,
    find_side,
    is_of_few,
    list_parts,
    list_seeds,
)
from sharpstudent.report.text import NARROW, capitalize_first, format_in

STRONG, FAIR = 0.8, 0.5  # of the way from chance to perfect: an AUC of .9, and of .75
MOST_PARTS = 20  # classes or sets, of which the weakest is looked for


def find_word(estimate: MetricValue, chance: float | None, perfect: float | None) -> Word:
    """Choose the word for a value, by the rules at the top of this file.

    Args:
        estimate: The value with its interval.
        chance: The value of guessing; None where it is not known.
        perfect: The best possible value; None where it is not known.

    Returns:
        The word.
    """
    if estimate.value is None:
        return "not measured"
    if chance is None or perfect is None:
        return "no chance level"
    if estimate.low is None or estimate.high is None or is_of_few(estimate):
        return "inconclusive"
    ends = [round((end - chance) / (perfect - chance), MOST_DIGITS) for end in (estimate.low, estimate.high)]
    worse, better = min(ends), max(ends)
    if worse > 0:
        return "strong" if worse >= STRONG else "fair" if worse >= FAIR else "weak"
    if better < 0:
        return "below chance"
    return "at chance" if better < FAIR else "inconclusive"


def _say_value(tile: SummaryTile, value: TileValue) -> str:
    """Write a model's value in a tile on one line, for a console: `.904 [.864, .932] frame AUC: fair, ...`."""
    text = format_in(value.estimate.value, tile.format)
    if value.estimate.low is not None and value.estimate.high is not None:
        text += f" [{format_in(value.estimate.low, tile.format)}, {format_in(value.estimate.high, tile.format)}]"
    about = f" ({value.about})" if value.about and _is_own(tile, value) else ""
    return f"{text}{f' {tile.unit}' if tile.unit else ''}: {value.word}{about}"


def _is_own(tile: SummaryTile, value: TileValue) -> bool:
    """Whether to say what a value is computed over: not where the main model's is computed over the same."""
    return value is tile.values[-1] or value.about != tile.values[-1].about


def say_tiles(tiles: Sequence[SummaryTile]) -> list[str]:
    """Write the tiles for a console: a line each for one model, else a line for each model below the title."""
    lines: list[str] = []
    for tile in tiles:
        if not tile.values:
            lines.append(f"{tile.title}: not measured. {tile.note}".rstrip())
        elif len(tile.values) == 1:
            lines.append(f"{tile.title}: {_say_value(tile, tile.values[0])}")
        else:
            lines.append(f"{tile.title}:")
            lines += [f"  {clean_name(value.model)}: {_say_value(tile, value)}" for value in tile.values]
    return lines


def draw_tiles(tiles: Sequence[SummaryTile]) -> list[dict[str, Any]]:
    """Turn tiles into what the page's template draws: texts, and places on the scale in per cent."""
    return [
        {
            "tile": tile,
            "chance": None if tile.chance is None else _place(tile, tile.chance),
            "marks": [_shorten_number(format_in(end, tile.format)) for end in tile.ends],
            "chance_text": "" if tile.chance is None else _shorten_number(format_in(tile.chance, tile.format)),
            "values": [_draw_value(tile, value) for value in tile.values],
        }
        for tile in tiles
    ]


def _draw_value(tile: SummaryTile, value: TileValue) -> dict[str, Any]:
    found = value.estimate
    known = found.value is not None and found.low is not None and found.high is not None
    return {
        "value": value,
        "about": value.about if _is_own(tile, value) else "",
        "text": format_in(found.value, tile.format),
        "interval": f"[{format_in(found.low, tile.format)}, {format_in(found.high, tile.format)}]" if known else "",
        "strip": [_place(tile, end) for end in (found.low, found.value, found.high) if end is not None]
        if known
        else [],
    }


def _shorten_number(text: str) -> str:
    """Leave out zeros at the end of a number: `.000` becomes `0`, `100.0 %` becomes `100 %`."""
    number, space, unit = text.partition(NARROW)
    short = number.rstrip("0").rstrip(".") if "." in number else number
    return f"{short or '0'}{space}{unit}"


def _place(tile: SummaryTile, value: float) -> float:
    """Find the place of a value on a tile's scale, in per cent."""
    low, high = tile.ends
    return round(100.0 * min(max((value - low) / (high - low), 0.0), 1.0), 1)


@dataclass(frozen=True)
class Measure:
    """What a tile of any task measures.

    Attributes:
        title: The title of the tile.
        name: The name of the metric.
        part: The part of the data, "" or `@SET`.
        label: The class whose rows alone count; None for all rows.
        among: Of how many parts this one is the weakest; the interval allows for the choice.
    """

    title: str
    name: str
    part: str
    label: int | None = None
    among: int = 1


def build_tiles(
    metrics: Mapping[str, Metric],
    results: EvaluationResults,
    parts: Sequence[Mapping[str, Table]],
    *,
    classes: Sequence[str] = (),
    rounds: int,
) -> tuple[SummaryTile, ...]:
    """Build the tiles of a task that brings none of its own.

    They are the metric that chooses checkpoints, on the first set; the weakest of the other sets or, with one set, the
    weakest class; and the next metric, or where there is none, the number of parameters.

    Args:
        metrics: The metrics of the task.
        results: The results, with models and metrics.
        parts: The tables of each model (M,), by part of the data, as the metrics were computed from.
        classes: The names of the classes, by the column `label`; none where there are no classes.
        rounds: How many resamples intervals are made of.

    Returns:
        The three tiles.
    """
    rows = list_seeds(results.models)
    tables = [[parts[number] for number in numbers] for _, numbers in rows]
    main = tables[-1][0]
    first, *others = metrics
    sets = [part for part in main if part] or [""]
    measures = [Measure(_name_measure(results, first, sets[0]), first, sets[0])]
    measures += _find_weakest_set(metrics[first], results, first, sets[1:], main)
    measures += _find_weakest_class(metrics[first], results, first, sets, main, classes)
    measures += [Measure(_name_measure(results, name, sets[0]), name, sets[0]) for name in others]
    tiles = [_build_tile(metrics[one.name], results, one, tables, rounds) for one in measures[:3]]
    return (*tiles, *[_build_cost_tile(results)][: 3 - len(tiles)])


def _name_measure(results: EvaluationResults, name: str, part: str) -> str:
    where = f" on {clean_name(part.removeprefix('@'))}" if part else ""
    return f"{capitalize_first(results.metrics[name].title)}{where}"


def _find_weakest_set(
    metric: Metric, results: EvaluationResults, name: str, sets: Sequence[str], main: Mapping[str, Table]
) -> list[Measure]:
    values = {part: metric.value(main[part]) for part in sets}
    known = {part: value for part, value in values.items() if isfinite(value)}
    if not known:
        return []
    part = min(known, key=lambda one: known[one] if metric.direction == "higher" else -known[one])
    weakest = ", the weakest of the others" if len(known) > 1 else ""
    return [Measure(f"{_name_measure(results, name, part)}{weakest}", name, part, among=len(known))]


def _find_weakest_class(
    metric: Metric,
    results: EvaluationResults,
    name: str,
    sets: Sequence[str],
    main: Mapping[str, Table],
    classes: Sequence[str],
) -> list[Measure]:
    """Find the class that the main model is worst at, where there is one set of some classes."""
    table = main[sets[0]]
    if len(sets) > 1 or "label" not in table or not 1 < len(classes) <= MOST_PARTS:
        return []
    values = {label: metric.value(_select(table, label)) for label in np.unique(table["label"]).tolist()}
    known = {label: value for label, value in values.items() if isfinite(value) and 0 <= label < len(classes)}
    if len(known) < 2:
        return []
    label: int = min(known, key=lambda one: known[one] if metric.direction == "higher" else -known[one])
    title = f"{_name_measure(results, name, '')} at “{clean_name(classes[label])}”, the weakest class"
    return [Measure(title, name, sets[0], label=label, among=len(known))]


def _select(table: Table, label: int | None) -> Table:
    return table if label is None else {name: column[table["label"] == label] for name, column in table.items()}


def _build_tile(
    metric: Metric,
    results: EvaluationResults,
    one: Measure,
    tables: Sequence[Sequence[Mapping[str, Table]]],
    rounds: int,
) -> SummaryTile:
    about, values = results.metrics[one.name], list[TileValue]()
    for (model, _), of_seeds in zip(list_seeds(results.models), tables, strict=True):
        rows = [_select(table[one.part], one.label) for table in of_seeds]
        found = compute_interval(
            metric, rows, rounds=rounds, level=1.0 - (1.0 - LEVEL) / one.among, group_unit=results.group_unit
        )
        size = f"{format_count_of(len(rows[0]['id']), results.unit)} of "
        size += format_count_of(len(np.unique(rows[0]["group"])), results.group_unit)
        values.append(make_value(model, found, metric.chance, metric.perfect, size, seeds=len(rows)))
    return SummaryTile(
        title=one.title,
        format=about.format,
        ends=find_ends(metric.bounds, metric.chance, metric.perfect, values),
        chance=metric.chance,
        values=mark_main(values),
        note=f"Chosen as the weakest of {one.among}; the interval allows for that." if one.among > 1 else "",
    )


def make_value(
    model: ModelBase, found: Estimate, chance: float | None, perfect: float | None, about: str, *, seeds: int
) -> TileValue:
    """Build a model's value in a tile.

    Args:
        model: The model.
        found: The value with its interval.
        chance: The value of guessing.
        perfect: The best possible value.
        about: What it is computed over.
        seeds: Over how many seeds it is the mean.

    Returns:
        The value, with its word.
    """
    value = None if np.isnan(found.value) else found.value
    estimate = MetricValue(value=value, low=found.low, high=found.high, note=found.note, groups=found.groups)
    word = find_word(estimate, chance, perfect)
    several = f"mean of {seeds} seeds, " if seeds > 1 else ""
    few = f", and a claim needs {FEWEST_GROUPS}" if is_of_few(estimate) else ""
    return TileValue(model=model.name, estimate=estimate, word=word, about=f"{several}{about}{few}", seeds=seeds)


def mark_main(values: Sequence[TileValue]) -> tuple[TileValue, ...]:
    """Mark the last value as that of the model that the report is about."""
    return (*values[:-1], values[-1].model_copy(update={"is_main": True})) if values else ()


def find_ends(
    bounds: Bounds | None, chance: float | None, perfect: float | None, values: Sequence[TileValue]
) -> tuple[float, float]:
    """Find the ends of a tile's scale: the bounds of the metric, else so that chance and all intervals fit in."""
    if bounds is not None and all(map(isfinite, bounds)):
        return bounds
    shown = [
        chance,
        perfect,
        *(end for one in values for end in (one.estimate.low, one.estimate.value, one.estimate.high)),
    ]
    known = [one for one in shown if one is not None] or [0.0, 1.0]
    low, high = min(0.0, *known), max(known)
    if high == perfect:
        return low, high
    return (low, high * 1.05) if high > low else (low, low + 1.0)


def _build_cost_tile(results: EvaluationResults) -> SummaryTile:
    """Build a tile of the number of parameters; without a value where no cost was measured."""
    values = [
        TileValue(
            model=model.name,
            estimate=MetricValue(value=float(model.cost.parameters)),
            word="no chance level",
            about=f"on {clean_name(model.cost.device)}",
        )
        for model, _ in list_seeds(results.models)
        if model.cost is not None and model.cost.parameters is not None
    ]
    note = "" if values else "Costs were left out; the option --costs measures them."
    return SummaryTile(
        title="Parameters",
        format=",.0f",
        ends=find_ends(None, None, 0.0, values),
        chance=None,
        values=mark_main(values),
        note=note,
    )


def list_limits(results: EvaluationResults) -> tuple[str, ...]:
    """List what limits a model of any task: metrics that are not better than chance, few groups, one seed, its data.

    Args:
        results: The results, with tiles.

    Returns:
        A sentence each, with its number.
    """
    lines = [
        f"{clean_name(model.name)} is not shown to be better than chance{f' on {clean_name(part)}' if part else ''}: "
        f"{about.title} {describe_estimate(model.metrics[_name(name, part)], references=(about.chance,))}."
        for model in find_main(results.models)
        for part in list_parts(results)
        for name, about in results.metrics.items()
        if about.chance is not None
        and find_side(model.metrics.get(_name(name, part)), about.chance)
        in ("open", "below" if about.direction == "higher" else "above")
    ]
    lines += [
        f"{tile.title}: {clean_name(value.model)} is not shown to be better than chance, "
        f"{describe_estimate(value.estimate, references=() if tile.chance is None else (tile.chance,))}."
        for tile in results.tiles
        for value in tile.values
        if value.is_main
        and value.word in ("at chance", "below chance", "inconclusive")
        and "weakest class" in tile.title
    ]
    lines += [
        f"There {'is' if one.groups == 1 else 'are'} only {format_count_of(one.groups, results.group_unit)} in "
        f"{clean_name(one.name)}: a claim needs {FEWEST_GROUPS}."
        for one in results.data
        if one.groups < FEWEST_GROUPS
    ]
    lines += [
        f"{clean_name(one.name)} chose the checkpoint, so its {one.rows:,} {plural(results.unit)} give metrics that "
        "are optimistic: evaluate it on data of its own."
        for one in results.data
        if one.kind == "validation"
    ]
    lines += [
        f"{len(one.unreadable):,} of {one.samples:,} samples of {clean_name(one.name)} could not be read."
        for one in results.data
        if one.unreadable
    ]
    return (*lines, *describe_one_seed(results.models))


def _name(metric: str, part: str) -> str:
    return f"{metric}@{part}" if part else metric
