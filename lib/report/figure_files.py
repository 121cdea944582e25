"""The charts of a report as files beside it: figures/NAME.png and figures/NAME.csv."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lib.report.charts.chart import Chart, render_csv, render_png

FOLDER = "figures"


def render_figure_files(charts: Sequence[Chart]) -> dict[Path, bytes]:
    """What each file is to hold, by its path within the report's folder."""
    files: dict[Path, bytes] = {}
    for chart in charts:
        files[Path(FOLDER) / f"{chart.name}.png"] = render_png(chart)
        files[Path(FOLDER) / f"{chart.name}.csv"] = render_csv(chart).encode("utf-8")
    return files
