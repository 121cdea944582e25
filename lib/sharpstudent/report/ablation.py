"""The results of an ablation: ablation.json, its table, its picture, and what may be said of it.

Readers of schema `sharpstudent/ablation/1` may rely on every key; docs/ablation.schema.json is its JSON Schema.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from sharpstudent.report.chart import Chart, Palette, style_axes
from sharpstudent.report.results import MetricAbout, MetricValue, PairResult, Plain
from sharpstudent.report.sentences import (
    NO_DIFFERENCE,
    describe_as_good,
    describe_difference,
    describe_estimate,
    describe_seeds,
    explain_open,
    find_side,
)
from sharpstudent.report.text import DASH
from sharpstudent.report.text_table import drop_empty

SCHEMA = "sharpstudent/ablation/1"
SHARE_BY_CHANCE = 20  # of so many comparisons without any effect, one interval leaves out 0


class ArmCost(Plain):
    """What the runs of an arm cost; null where they were trained elsewhere.

    Attributes:
        cpu_s: Seconds of processors a run, of all processes; the mean over seeds.
        wall_s: Seconds by the clock a run, which other processes lengthen; the mean over seeds.
        relative: `cpu_s` over that of the first reference; null without one of both.
    """

    cpu_s: float | None = None
    wall_s: float | None = None
    relative: float | None = None


class ArmResult(Plain):
    """One arm, or one of the trained models beside them.

    Attributes:
        name: Its name.
        title: What it is.
        is_arm: Whether it was trained by the ablation.
        keys: The keys that differ from CONFIG.
        runs: The run folders, one a seed, without the folders above them.
        by_seed: The primary metric at each seed; null where it cannot be computed.
        metrics: Every metric: the mean over seeds with its interval over groups and seeds.
        cost: What a run cost.
        by_fold: The primary metric of each fold at each seed, by the fold's name; {} where there is one fold.
    """

    name: str
    title: str
    is_arm: bool
    keys: Mapping[str, Any]
    runs: tuple[str, ...]
    by_seed: tuple[float | None, ...]
    metrics: Mapping[str, MetricValue]
    cost: ArmCost
    by_fold: Mapping[str, tuple[float | None, ...]] = Field(default_factory=dict[str, tuple[float | None, ...]])


class AblationResults(Plain):
    """Everything that an ablation found.

    Attributes:
        title: The title.
        made_at: ISO 8601, UTC.
        command: The command line.
        task: The name of the task.
        group_unit: What a group is called.
        metric: The primary metric, which the verdict is about.
        metrics: What each metric is.
        seeds: The seeds.
        epochs: Epochs of every arm that does not set its own.
        data: The names of the data sets, with their notes.
        protocol: How arms are trained and compared, by aspect.
        references: The arms that all others are compared with.
        arms: The arms, then the models beside them.
        comparisons: The difference of each arm to each reference, in every metric, paired over groups and seeds.
        verdict: Plain sentences.
        notes: What to keep in mind.
        environment: Machine and versions.
    """

    schema_: str = Field(default=SCHEMA, alias="schema")
    title: str
    made_at: str
    command: str
    task: str
    group_unit: str
    metric: str
    metrics: Mapping[str, MetricAbout]
    seeds: tuple[int, ...]
    epochs: int
    data: Mapping[str, tuple[str, ...]]
    protocol: Mapping[str, str]
    references: tuple[str, ...]
    arms: tuple[ArmResult, ...]
    comparisons: tuple[PairResult, ...]
    verdict: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    environment: Mapping[str, Any] = Field(default_factory=dict[str, Any])

    def to_json(self) -> str:
        """ablation.json, ending in a newline."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"


def find_pairs(results: AblationResults, reference: str) -> list[PairResult]:
    """Find the comparisons with a reference in the primary metric, in the order of the arms."""
    return [pair for pair in results.comparisons if pair.b == reference and pair.metric == results.metric]


def write_verdict(results: AblationResults) -> tuple[str, ...]:
    """Say of each arm whether it is better than each reference, as decision 9 permits.

    Args:
        results: The results.

    Returns:
        Sentences: those of the first reference first.
    """
    titles = {arm.name: arm.title for arm in results.arms}
    about = results.metrics[results.metric.partition("@")[0]]
    good = "above" if about.direction == "higher" else "below"
    lines: list[str] = []
    for reference in results.references:
        for pair in find_pairs(results, reference):
            side = find_side(pair.difference, NO_DIFFERENCE)
            names = (f"“{titles[pair.a]}”", f"“{titles[pair.b]}”")
            numbers = describe_difference(pair.difference)
            if side in ("above", "below"):
                word = "better" if side == good else "worse"
                lines.append(f"{names[0]} is {word} than {names[1]}: {about.title} {numbers}.")
            else:
                reason = explain_open(pair.difference, "0", results.group_unit)
                shown = describe_as_good(pair, names)
                lines.append(
                    f"Between {names[0]} and {names[1]} it is inconclusive, {about.title} {numbers}: {reason}{shown}."
                )
    lines += [line for line in [describe_seeds(results.comparisons)] if line]
    count = sum(len(find_pairs(results, reference)) for reference in results.references)
    if count >= SHARE_BY_CHANCE // 4:
        lines.append(
            f"These are {count} comparisons. Without any effect, about one in {SHARE_BY_CHANCE} intervals leaves out 0."
        )
    return tuple(lines)


def build_columns(results: AblationResults, *, in_full: bool) -> dict[str, Sequence[str]]:
    """Build the table: an arm a row, with the primary metric, its differences to the references, and the cost.

    Args:
        results: The results.
        in_full: Whether it has the titles of the arms, the metric at each seed and every reference, for which a console
            has no room.

    Returns:
        The cells of each column, by its head.
    """
    about = results.metrics[results.metric.partition("@")[0]]
    folds = next((list(arm.by_fold) for arm in results.arms if arm.by_fold), [])
    columns: dict[str, list[str]] = {
        "Arm": [arm.name for arm in results.arms],
        "What it is": [arm.title if in_full else DASH for arm in results.arms],
        f"{about.title} [95 %]": [describe_estimate(arm.metrics[results.metric]) for arm in results.arms],
        "by seed": [_list_values(arm.by_seed) if in_full and not folds else DASH for arm in results.arms],
        f"by fold: {', '.join(folds)}": [
            "; ".join(_list_values(arm.by_fold[fold]) for fold in folds) if in_full and folds else DASH
            for arm in results.arms
        ],
    }
    for reference in results.references if in_full else results.references[:1]:
        found = {pair.a: pair for pair in find_pairs(results, reference)}
        columns[f"less {reference}"] = [
            describe_difference(found[arm.name].difference) if arm.name in found else DASH for arm in results.arms
        ]
    columns["CPU time"] = [DASH if arm.cost.relative is None else f"{arm.cost.relative:.2f}" for arm in results.arms]
    return drop_empty(columns)


def _list_values(values: Sequence[float | None]) -> str:
    return ", ".join(DASH if value is None else f"{value:.3f}" for value in values)


def render_markdown(results: AblationResults, table: str) -> str:
    """Write ablation.md: the table, the verdict, how it was done.

    Args:
        results: The results.
        table: The table as Markdown.
    """
    lines = [f"# {results.title}", "", table, "## What it shows", "", *(f"- {line}" for line in results.verdict)]
    lines += ["", "## How it was done", "", *(f"- {line}" for line in results.protocol.values())]
    if results.notes:
        lines += ["", "## Notes", "", *(f"- {line}" for line in results.notes)]
    return "\n".join(lines) + "\n"


def build_chart(results: AblationResults) -> Chart:
    """Build the picture: the difference of each arm to the first reference with its interval, against its cost.

    Args:
        results: The results.

    Returns:
        The chart; without costs the arms stand side by side.
    """
    reference = results.references[0]
    by_name = {arm.name: arm for arm in results.arms}
    about = results.metrics[results.metric.partition("@")[0]]
    has_cost = all(by_name[pair.a].cost.relative is not None for pair in find_pairs(results, reference))
    rows = [
        (
            pair.a,
            by_name[pair.a].cost.relative if has_cost else float(number),
            pair.difference.value,
            pair.difference.low,
            pair.difference.high,
        )
        for number, pair in enumerate(find_pairs(results, reference))
        if pair.difference.value is not None
    ]
    x = f"CPU time over that of {reference}" if has_cost else "arm, in the order of the table"

    def draw(figure: Any, palette: Palette) -> None:
        axes = figure.add_subplot()
        style_axes(axes, palette, x=x, y=f"{about.title} less {reference}")
        axes.axhline(0.0, color=palette.text, linewidth=0.7)
        for number, (name, place, value, low, high) in enumerate(rows):
            colour = palette.series[number % len(palette.series)]
            if low is not None and high is not None:
                axes.plot([place, place], [low, high], color=colour, linewidth=1.7)
            axes.plot([place], [value], color=colour, **palette.marker(number))
            axes.annotate(
                name, (place, value), xytext=(5, 3), textcoords="offset points", fontsize=7, color=palette.text
            )
        axes.margins(x=0.15)

    return Chart(
        name="ablation",
        title="Effect against cost",
        alt=f"{len(rows)} arms: difference in {about.title} to {reference}, and the cost of each",
        hint="An interval that touches the line at 0 shows no difference. Further left is cheaper.",
        draw=draw,
        columns=("arm", "cost", "difference", "low", "high"),
        rows=tuple(rows),
        keys=(),
    )
