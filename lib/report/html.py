"""The report of an evaluation: report.html, results.json, and every chart as PNG and CSV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lib.files import write_bytes_atomically
from lib.report.charts.all_charts import build_charts
from lib.report.figure_files import render_figure_files
from lib.report.page.page import render_page
from lib.report.page.pictures import ReportPicture
from lib.report.results import Results

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
