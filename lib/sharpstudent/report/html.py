"""The report of an evaluation as files: the page, the data, every chart.

The charts of a report as files beside it: figures/NAME.png and figures/NAME.csv.

The report of an evaluation: report.html, results.json, and every chart as PNG and CSV.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sharpstudent.core.io import write_bytes_atomically
from sharpstudent.report.chart import Chart, render_csv, render_png
from sharpstudent.report.charts.all_charts import build_charts
from sharpstudent.report.page.page import render_page
from sharpstudent.report.page.pictures import ReportPicture
from sharpstudent.report.results import Results

FOLDER = "figures"


def render_figure_files(charts: Sequence[Chart]) -> dict[Path, bytes]:
    """What each file is to hold, by its path within the report's folder."""
    files: dict[Path, bytes] = {}
    for chart in charts:
        files[Path(FOLDER) / f"{chart.name}.png"] = render_png(chart)
        files[Path(FOLDER) / f"{chart.name}.csv"] = render_csv(chart).encode("utf-8")
    return files


__all__ = ["ReportPicture", "write_report"]


def write_report(folder: Path, results: Results, pictures: Sequence[ReportPicture] = ()) -> list[Path]:
    """Write all files of the report into `folder`, which is made; returns them, report.html first.

    Everything is made before the first file is written, and each file is whole or as it was; report.html comes last, so
    that it never speaks of files that are not there. The same results and pictures give the same bytes. pictures: N of
    them, which `MistakeResult.picture` numbers. Raises UserError where the disk refuses, ValueError for a picture of
    another form or one that is not there.
    """
    charts = build_charts(results)
    page = render_page(results, charts, pictures)
    files = render_figure_files(charts.list_all())
    files[Path("results.json")] = results.to_json().encode("utf-8")
    files[Path("report.html")] = page.encode("utf-8")
    for name, content in files.items():
        write_bytes_atomically(folder / name, content)
    return [folder / name for name in reversed(files)]
