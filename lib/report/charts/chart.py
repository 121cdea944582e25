"""A chart as data, and its three forms: an SVG for the page, a PNG on white paper, a CSV of its numbers.

The same chart gives the same bytes: no date, no random ids, and no setting of the user's matplotlib.
"""

from __future__ import annotations

import contextlib
import csv
import io
import warnings
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Literal

from lib.report.charts.ink import PAGE_INK, PAPER_INK, Ink
from lib.report.charts.svg import make_inline_svg
from lib.report.page.text import shorten, show

WIDTH = 4.0  # inches, 288 points: about as wide as it is shown, so that letters keep their size
PNG_DPI = 160
_LEGEND_LINE = 0.19  # inches

Value = str | float | int | None


@dataclass(frozen=True)
class Key:
    """A line of the legend. number: of the series; value: the figure said beside the name; shape: how it is drawn."""

    number: int
    name: str
    value: str = ""
    shape: Literal["line", "real", "fake"] = "line"


@dataclass(frozen=True)
class Chart:
    """name: of its files, without ending; alt: the chart in words, with its main number; hint: how to read it; draw:
    draws it on a matplotlib figure; columns and rows: its numbers; height: inches; subject: what the PNG, which stands
    alone, adds to the title.
    """

    name: str
    title: str
    alt: str
    hint: str
    draw: Callable[[Any, Ink], None]
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    keys: tuple[Key, ...]
    height: float = 3.4
    subject: str = ""


def render_svg(chart: Chart) -> str:
    """An `<svg>` element in the page's colours, without title and legend, which the page has as text."""
    with _own_settings(chart.name):
        figure = _draw(chart, PAGE_INK)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return make_inline_svg(drawn.getvalue(), name=chart.name, label=show(chart.alt))


def render_png(chart: Chart) -> bytes:
    """The chart with title and legend on white."""
    with _own_settings(chart.name):
        room = 0.12 + _LEGEND_LINE * len(chart.keys)
        figure = _draw(chart, PAPER_INK, legend_room=room)
        _add_legend(figure, chart)
        written = io.BytesIO()
        figure.savefig(written, format="png", dpi=PNG_DPI, metadata={"Software": None})
    return written.getvalue()


def render_csv(chart: Chart) -> str:
    """The chart's numbers to their last digit; an empty cell where there is none."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(chart.columns)
    writer.writerows([["" if value is None else _to_cell(value) for value in row] for row in chart.rows])
    return text.getvalue()


def _to_cell(value: Value) -> str:
    return show(value) if isinstance(value, str) else repr(value)


def _draw(chart: Chart, ink: Ink, *, legend_room: float = 0.0) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = chart.height + (legend_room + 0.3 if legend_room else 0.0)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=0.06, h_pad=0.03)
    if legend_room:
        engine.set(rect=(0, legend_room / height, 1, 1 - (legend_room + 0.3) / height))
    chart.draw(figure, ink)
    return figure


def _add_legend(figure: Any, chart: Chart) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    def draw_handle(key: Key) -> Any:
        if key.shape == "real":
            return Patch(facecolor=PAPER_INK.real, alpha=0.45)
        if key.shape == "fake":
            return Line2D([], [], color=PAPER_INK.fake, linewidth=1.7)
        return Line2D([], [], **PAPER_INK.line(key.number), **PAPER_INK.marker(key.number))

    height = figure.get_size_inches()[1]
    title = shorten(show(f"{chart.title}: {chart.subject}" if chart.subject else chart.title), 46)
    figure.text(0.02, 1 - 0.08 / height, title, fontsize=11, fontweight="bold", va="top")
    labels = [f"{shorten(show(key.name), 38)}  {key.value}".strip() for key in chart.keys]
    figure.legend(
        [draw_handle(key) for key in chart.keys],
        labels,
        loc="lower left",
        bbox_to_anchor=(0.01, 0.02 / height),
        frameon=False,
        fontsize=8.5,
        handlelength=3.2,
        borderaxespad=0,
        labelspacing=0.3,
    )


@contextlib.contextmanager
def _own_settings(salt: str) -> Generator[None]:
    """matplotlib as it comes, whatever the user's settings are; names are plain text, `$` has no meaning in them."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "svg.fonttype": "none",
                "svg.hashsalt": salt,
                "text.parse_math": False,
                "axes.formatter.use_mathtext": False,
                "font.family": "DejaVu Sans",
            }
        )
        # A name in letters that the font lacks is drawn as boxes in the PNG; the page has it as text.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font")
        yield
