"""What all charts share: quiet axes, a light grid, letters of one size."""

from __future__ import annotations

from typing import Any

from lib.report.charts.ink import Ink

LETTERS, SMALL_LETTERS = 10, 9  # points


def style_axes(axes: Any, ink: Ink, *, x: str, y: str) -> None:
    """Frame, grid, ticks and the names of both axes."""
    axes.set_xlabel(x, fontsize=LETTERS, color=ink.text)
    axes.set_ylabel(y, fontsize=LETTERS, color=ink.text)
    axes.tick_params(labelsize=SMALL_LETTERS, colors=ink.text, width=0.7, length=3)
    axes.grid(visible=True, color=ink.grid, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.patch.set_visible(False)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(ink.text)
        spine.set_linewidth(0.7)


def draw_line(axes: Any, ink: Ink, number: int, x: Any, y: Any, *, every: Any = None) -> None:
    """A line of series `number`; every: where its markers stand, as matplotlib's `markevery`, None for each point."""
    markers = {} if len(x) == 0 else ink.marker(number)
    axes.plot(x, y, **ink.line(number), **markers, markevery=every, clip_on=False, zorder=3 - 0.01 * number)


def draw_reference(axes: Any, ink: Ink, x: Any, y: Any) -> None:
    """A thin dashed line to compare with: chance, or perfection."""
    axes.plot(x, y, color=ink.text, alpha=0.45, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1, clip_on=False)


def set_unit_square(axes: Any) -> None:
    """Both axes 0..1, ticks every fifth."""
    ticks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    names = ["0", ".2", ".4", ".6", ".8", "1"]
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xticks(ticks, names)
    axes.set_yticks(ticks, names)
    axes.set_aspect("equal")
