"""What the scores themselves look like: whether probabilities are kept (reliability), and how the classes lie apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from sharpstudent.report.chart import (
    SMALL_LETTERS,
    Chart,
    Ink,
    Key,
    draw_line,
    draw_reference,
    set_unit_square,
    style_axes,
)
from sharpstudent.report.charts.curves import Drawn, Values
from sharpstudent.report.text import shorten_names

ROW_HEIGHT = 0.95  # inches of one model's histogram


def build_reliability(models: Drawn, values: Values, *, place: str, stem: str) -> Chart:
    """Of the probability of fake: what was said against what was true, a point a bin that is not empty."""

    def draw(figure: Any, ink: Ink) -> None:
        axes = figure.add_subplot()
        draw_reference(axes, ink, [0, 1], [0, 1])
        for number, _, drawing in models:
            bins = drawing.reliability
            filled = [(s, t) for s, t in zip(bins.said, bins.true, strict=True) if s is not None and t is not None]
            draw_line(axes, ink, number, [s for s, _ in filled], [t for _, t in filled])
        set_unit_square(axes)
        style_axes(axes, ink, x="said: probability of fake", y="true: share that is fake")

    said = ", ".join(f"{name} {values[name]}" for _, name, _ in models if name in values)
    return Chart(
        name=f"reliability-{stem}",
        title="Reliability",
        alt=f"Reliability diagram, {place}. Expected calibration error: {said or 'not known'}.",
        hint="On the dashed line, 80 % fake is true of 80 % of samples. Below it, too much is called fake.",
        draw=draw,
        columns=("model", "bin_low", "bin_high", "count", "said", "true"),
        rows=tuple(
            (name, *row)
            for _, name, drawing in models
            for row in zip(
                drawing.reliability.edges[:-1],
                drawing.reliability.edges[1:],
                drawing.reliability.counts,
                drawing.reliability.said,
                drawing.reliability.true,
                strict=True,
            )
        ),
        keys=tuple(Key(number, name, f"ECE {values[name]}" if name in values else "") for number, name, _ in models),
        height=3.75,
        subject=place,
    )


def build_histograms(models: Drawn, *, place: str, stem: str) -> Chart:
    """A row a model: reals as an area, fakes as a line, each as shares of its class."""
    short = shorten_names([name for _, name, _ in models], 30)

    def draw(figure: Any, ink: Ink) -> None:
        rows = figure.subplots(len(models), 1, sharex=True, squeeze=False)[:, 0]
        for place_in_figure, (axes, (_, name, drawing)) in enumerate(zip(rows, models, strict=True)):
            edges = np.array(drawing.histogram.edges)
            real, fake = (_to_shares(counts) for counts in (drawing.histogram.real, drawing.histogram.fake))
            axes.stairs(real, edges, fill=True, color=ink.real, alpha=0.45, linewidth=0, clip_on=False)
            axes.stairs(fake, edges, color=ink.fake, linewidth=1.6, clip_on=False)
            is_last = place_in_figure == len(models) - 1
            style_axes(axes, ink, x="probability of fake" if is_last else "", y="")
            axes.set_xlim(0, 1)
            axes.set_ylim(0, max(1e-9, float(max(real.max(), fake.max()))) * 1.05)
            axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
            axes.set_title(short[name], fontsize=SMALL_LETTERS, color=ink.text, loc="left", pad=3)

    counts = ", ".join(
        f"{name} {sum(drawing.histogram.real[-1:])} of {sum(drawing.histogram.real)} reals in the highest bin"
        for _, name, drawing in models
    )
    return Chart(
        name=f"scores-{stem}",
        title="Scores",
        alt=f"Histograms of the probability of fake, {place}: {counts}.",
        hint="Reals belong left, fakes right; where they overlap the model cannot tell. Shares of each class.",
        draw=draw,
        columns=("model", "bin_low", "bin_high", "real", "fake"),
        rows=tuple(
            (name, *row)
            for _, name, drawing in models
            for row in zip(
                drawing.histogram.edges[:-1],
                drawing.histogram.edges[1:],
                drawing.histogram.real,
                drawing.histogram.fake,
                strict=True,
            )
        ),
        keys=(Key(0, "real", shape="real"), Key(0, "fake", shape="fake")),
        height=max(2.2, 0.45 + ROW_HEIGHT * len(models)),
        subject=place,
    )


def _to_shares(counts: tuple[int, ...]) -> Any:
    return np.array(counts) / max(1, sum(counts))
