"""A chart as data, and its three forms: an SVG for the page, a PNG on white paper, a CSV of its numbers.

The same chart always gives the same bytes: it has no date and no random ids, and ignores the user's matplotlib
settings.

The eight colours follow Okabe & Ito (2008), darkened for white and lightened for dark paper so that each has a contrast
of at least 3 to 1 there (WCAG 2.2, 1.4.11). Dashes and markers differ, too, so that no chart relies on colour alone.

All charts share thin axes, a light grid and one font size. A page can contain many of the SVGs: each has unique ids,
takes colours and font from the page, and refers to no other file.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from xml.etree import ElementTree

from sharpstudent.core.naming import format_csv, printable, shorten

LIGHT_SERIES = ("#0067a8", "#c24a00", "#00785a", "#a8357f", "#8a6400", "#4b3fae", "#2b84a6", "#50565e")
DARK_SERIES = ("#5fb4f2", "#ff8f52", "#35c99a", "#ee8fca", "#e3bd4b", "#b3a6ff", "#9adcf5", "#bcc3cb")
DASHES: tuple[Any, ...] = (
    "-", (0, (5, 1.6)), (0, (1.2, 1.4)), (0, (6, 1.5, 1.2, 1.5)),
    (0, (9, 2)), (0, (3, 1.2, 1.2, 1.2, 1.2, 1.2)), (0, (2.6, 1.2)), (0, (1, 2.6)),
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LIGHT_PAPER, DARK_PAPER = "#ffffff", "#14171b"


@dataclass(frozen=True)
class Palette:
    """The colours that a chart is drawn with, as #rrggbb.

    Attributes:
        text: The colour of letters and axes.
        grid: The colour of the grid.
        series: The colours of the series, in order.
        first: The colour of the first of two classes that are drawn over each other.
        second: The colour of the second class.
    """

    text: str
    grid: str
    series: tuple[str, ...]
    first: str
    second: str

    def line(self, number: int) -> dict[str, Any]:
        """Return matplotlib's keywords for the line of series `number`, from 0; from the ninth on the dashes differ."""
        return {
            "color": self.series[number % 8],
            "linestyle": DASHES[(number + number // 8) % 8],
            "linewidth": 1.7,
            "dash_capstyle": "butt",
        }

    def marker(self, number: int) -> dict[str, Any]:
        """Return matplotlib's keywords for the markers of series `number`."""
        return {"marker": MARKERS[(number + number // 8) % 8], "markersize": 4.2, "markeredgewidth": 0}


PAPER_PALETTE = Palette(
    text="#1c2127", grid="#dfe3e8", series=LIGHT_SERIES, first=LIGHT_SERIES[0], second=LIGHT_SERIES[1]
)

# Placeholder colours: once the SVG is drawn, they are replaced by the page's CSS colours.
PAGE_PALETTE = Palette(
    text="#00fe80",
    grid="#00fe81",
    series=tuple(f"#00fe{number:02x}" for number in range(8)),
    first="#00fe82",
    second="#00fe83",
)
PAGE_COLOURS = {
    PAGE_PALETTE.text: "currentColor",
    PAGE_PALETTE.grid: "var(--grid)",
    PAGE_PALETTE.first: "var(--first)",
    PAGE_PALETTE.second: "var(--second)",
    **{colour: f"var(--s{number})" for number, colour in enumerate(PAGE_PALETTE.series)},
}

# The same dashes and markers for the page's legend: stroke-dasharray, and a path around (15, 6).
KEY_DASHES = tuple("" if dash == "-" else " ".join(f"{1.7 * part:.3g}" for part in dash[1]) for dash in DASHES)
KEY_MARKERS = (
    "M18 6A3 3 0 1 1 12 6A3 3 0 1 1 18 6Z",
    "M12.2 3.2H17.8V8.8H12.2Z",
    "M15 2.4L18.4 8.8H11.6Z",
    "M15 2.2L18.8 6L15 9.8L11.2 6Z",
    "M15 9.6L18.4 3.2H11.6Z",
    "M13.8 2.6H16.2V4.8H18.4V7.2H16.2V9.4H13.8V7.2H11.6V4.8H13.8Z",
    "M13 2.6L15 4.6L17 2.6L18.4 4L16.4 6L18.4 8L17 9.4L15 7.4L13 9.4L11.6 8L13.6 6L11.6 4Z",
    "M15 2L16 4.7L18.9 4.8L16.6 6.6L17.4 9.4L15 7.8L12.6 9.4L13.4 6.6L11.1 4.8L14 4.7Z",
)


LETTERS, SMALL_LETTERS = 10, 9  # points


def style_axes(axes: Any, palette: Palette, *, x: str, y: str) -> None:
    """Style frame, grid and ticks, and name both axes.

    Args:
        axes: The axes of matplotlib to draw on.
        palette: The colours to draw with.
        x: Name of the x axis.
        y: Name of the y axis.
    """
    axes.set_xlabel(x, fontsize=LETTERS, color=palette.text)
    axes.set_ylabel(y, fontsize=LETTERS, color=palette.text)
    axes.tick_params(labelsize=SMALL_LETTERS, colors=palette.text, width=0.7, length=3)
    axes.grid(visible=True, color=palette.grid, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.patch.set_visible(False)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(palette.text)
        spine.set_linewidth(0.7)


def draw_line(
    axes: Any, palette: Palette, number: int, x: Any, y: Any, *, every: Any = None, steps: bool = False
) -> None:
    """Draw the line of one series.

    Args:
        axes: The axes of matplotlib to draw on.
        palette: The colours to draw with.
        number: The number of the series, from 0.
        x: Values (N,).
        y: Values (N,).
        every: Which points get markers, as in matplotlib's `markevery`; None for all.
        steps: Whether to draw a step function, constant from half a place before each point to half a place after it.
    """
    style = palette.line(number) | ({} if len(x) == 0 else palette.marker(number))
    style |= {"drawstyle": "steps-mid"} if steps else {}
    axes.plot(x, y, **style, markevery=every, clip_on=False, zorder=3 - 0.01 * number)


def draw_hollow(axes: Any, palette: Palette, number: int, x: Any, y: Any) -> None:
    """Draw hollow markers of one series, for points that rest on little.

    Args:
        axes: The axes of matplotlib to draw on.
        palette: The colours to draw with.
        number: The number of the series, from 0.
        x: Values (N,).
        y: Values (N,).
    """
    colour = palette.line(number)["color"]
    style = palette.marker(number) | {"markerfacecolor": "none", "markeredgecolor": colour, "markeredgewidth": 1.1}
    axes.plot(x, y, **style, linestyle="none", clip_on=False, zorder=3 - 0.01 * number)


def draw_reference(axes: Any, palette: Palette, x: Any, y: Any) -> None:
    """Draw a thin dashed line to compare with, such as chance.

    Args:
        axes: The axes of matplotlib to draw on.
        palette: The colours to draw with.
        x: Values (N,).
        y: Values (N,).
    """
    axes.plot(x, y, color=palette.text, alpha=0.45, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1, clip_on=False)


def set_unit_square(axes: Any) -> None:
    """Set both axes to the range 0 to 1, with ticks 0.2 apart."""
    ticks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    names = ["0", ".2", ".4", ".6", ".8", "1"]
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xticks(ticks, names)
    axes.set_yticks(ticks, names)
    axes.set_aspect("equal")


_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_FONT = re.compile(r"font:\s*(?:(?:bold|italic|oblique|\d{3})\s+)*([\d.]+)px[^;]*")
_FAMILY = re.compile(r"font-family:[^;]*;?\s*")
_COLOUR = re.compile("|".join(PAGE_COLOURS))
_DROPPED = ("style", "metadata", "clipPath")  # nothing is drawn outside its axes
_ROUNDED = ("d", "x", "y", "transform", "points", "width", "height")


def make_inline_svg(drawn: str, *, name: str, label: str) -> str:
    """Turn an SVG file into an `<svg>` element that can be put into HTML.

    Coordinates are rounded to a hundredth of a point. matplotlib's style sheet is removed, as it would style the page.

    Args:
        drawn: The SVG file that matplotlib wrote.
        name: A prefix for each id, so that no two charts of a page share one.
        label: Description for readers who cannot see the chart.

    Returns:
        The element as text.
    """
    root = ElementTree.fromstring(drawn)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.removeprefix(_SVG) in _DROPPED:
                parent.remove(child)
    used = {value[1:] for node in root.iter() for key, value in node.attrib.items() if key == f"{_XLINK}href"}
    for node in root.iter():
        node.tag = node.tag.removeprefix(_SVG)
        node.attrib = dict(sorted(_clean(node.attrib, name, used).items()))
        node.tail = None
        node.text = node.text if node.tag in ("text", "tspan") else None
    box = root.attrib.get("viewBox", "0 0 1 1")
    root.attrib = {"viewBox": box, "role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode")


def _clean(attributes: dict[str, str], name: str, used: set[str]) -> dict[str, str]:
    cleaned: dict[str, str] = {}
    for key, value in attributes.items():
        if key == "id":
            if value in used:
                cleaned[key] = f"{name}-{value}"
        elif key == f"{_XLINK}href":
            cleaned["href"] = f"#{name}-{value[1:]}"
        elif key == "style":
            plain = _FAMILY.sub("", _FONT.sub(r"font-size:\1px", value))
            cleaned[key] = _COLOUR.sub(lambda found: PAGE_COLOURS[found[0]], plain)
        elif not key.startswith("{") and key != "clip-path":
            cleaned[key] = _NUMBER.sub(_round, value) if key in _ROUNDED else value
    return cleaned


def _round(found: re.Match[str]) -> str:
    return f"{round(float(found[0]), 2) + 0.0:g}"  # + 0.0 turns -0.0 into 0.0


WIDTH = 4.0  # inches, 288 points: about as wide as it is shown, so that letters keep their size
PNG_DPI = 160
_LEGEND_LINE = 0.19  # inches

Value = str | float | int | None


@dataclass(frozen=True)
class Key:
    """A line of the legend.

    Attributes:
        number: The number of the series.
        name: The name of the series.
        value: The number beside the name.
        shape: How the series is drawn.
    """

    number: int
    name: str
    value: str = ""
    shape: Literal["line", "area", "outline"] = "line"


@dataclass(frozen=True)
class Chart:
    """A chart as data.

    Attributes:
        name: The name of its files, without suffix.
        title: What it shows.
        alt: The chart in words, with its main number.
        hint: How to read it.
        draw: Draws the chart on a figure of matplotlib, in the colours of a palette.
        columns: The names of the columns of its CSV.
        rows: The numbers of its CSV.
        keys: The legend.
        height: The height without title and legend [inches].
        subject: What the PNG, which stands alone, adds to the title.
    """

    name: str
    title: str
    alt: str
    hint: str
    draw: Callable[[Any, Palette], None]
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    keys: tuple[Key, ...]
    height: float = 3.4
    subject: str = ""


def render_svg(chart: Chart) -> str:
    """Render the chart as `<svg>` in the page's colours; the page has title and legend as text."""
    with _own_settings(chart.name):
        figure = _make_figure(WIDTH, chart.height)
        chart.draw(figure, PAGE_PALETTE)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return make_inline_svg(drawn.getvalue(), name=chart.name, label=printable(chart.alt))


def render_png(chart: Chart) -> bytes:
    """Render the chart as PNG with title and legend, on white."""
    return render_sheet([chart])


def render_sheet(charts: Sequence[Chart], title: str = "") -> bytes:
    """Draw several charts side by side, each with title and legend, on white.

    Args:
        charts: At least one.
        title: The title above all of them.

    Returns:
        A PNG.
    """
    columns = min(len(charts), 3)
    lines = [charts[start : start + columns] for start in range(0, len(charts), columns)]
    heights = [max(chart.height + 0.45 + _LEGEND_LINE * len(chart.keys) for chart in line) for line in lines]
    with _own_settings(charts[0].name):
        figure = _make_figure(WIDTH * columns, sum(heights) + (0.4 if title else 0.0))
        figure.suptitle(shorten(printable(title), 46 * columns), fontsize=12)
        grid = figure.subfigures(len(lines), columns, squeeze=False, height_ratios=heights)
        for place, chart in zip(grid.flat, charts, strict=False):  # places of the last line may stay empty
            chart.draw(place, PAPER_PALETTE)
            _add_legend(place, chart)
        written = io.BytesIO()
        figure.savefig(written, format="png", dpi=PNG_DPI, metadata={"Software": None})
    return written.getvalue()


def render_csv(chart: Chart) -> str:
    """Write the chart's numbers as CSV, to their last digit; a missing value is an empty cell."""
    rows = ([printable(value) if isinstance(value, str) else value for value in row] for row in chart.rows)
    return format_csv([chart.columns, *rows])


def _make_figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=0.06, h_pad=0.03)
    return figure


def _add_legend(figure: Any, chart: Chart) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    def draw_handle(key: Key) -> Any:
        if key.shape == "area":
            return Patch(facecolor=PAPER_PALETTE.first, alpha=0.45)
        if key.shape == "outline":
            return Line2D([], [], color=PAPER_PALETTE.second, linewidth=1.7)
        return Line2D([], [], **PAPER_PALETTE.line(key.number), **PAPER_PALETTE.marker(key.number))

    title = shorten(printable(f"{chart.title}: {chart.subject}" if chart.subject else chart.title), 46)
    figure.suptitle(title, x=0.02, ha="left", fontsize=11, fontweight="bold")
    figure.legend(
        [draw_handle(key) for key in chart.keys],
        [f"{shorten(printable(key.name), 38)}  {key.value}".strip() for key in chart.keys],
        loc="outside lower left",
        frameon=False,
        fontsize=8.5,
        handlelength=3.2,
        labelspacing=0.3,
    )


@contextlib.contextmanager
def _own_settings(salt: str) -> Generator[None]:
    """Use matplotlib's default settings; names are plain text, in which `$` has no meaning."""
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


@dataclass(frozen=True)
class ChartGroup:
    """Charts under a common title, such as `Training`.

    Attributes:
        title: The title.
        charts: The charts.
        note: What is not drawn, and why.
    """

    title: str
    charts: tuple[Chart, ...]
    note: str = ""
