"""Writes report.html and the files beside it; the pages of all tasks share this code.

A page is one file without scripts that fetches nothing. A renderer with a page of its own gives a template that extends
`base.html.j2`. Legend: M models.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from sharpstudent.core.io import write_bytes_atomically
from sharpstudent.core.naming import make_unique, printable_lines, shorten_names
from sharpstudent.report.chart import (
    DARK_PAPER,
    DARK_SERIES,
    KEY_DASHES,
    KEY_MARKERS,
    LIGHT_PAPER,
    LIGHT_SERIES,
    Chart,
    ChartGroup,
    render_csv,
    render_png,
    render_svg,
)
from sharpstudent.report.console import WorkProgress
from sharpstudent.report.results import ModelBase, ResultsBase
from sharpstudent.report.summary import draw_tiles
from sharpstudent.report.text import DASH, bind_units, capitalize_first, format_moment
from sharpstudent.report.text_table import SHORT

FIGURES = "figures"  # the folder of the charts as files
FIGURE_FILES = (f"{FIGURES}/*.png", f"{FIGURES}/*.csv")
MOST_CHART_BYTES = 2_000_000  # of SVG in the page; the charts of further groups are files only
_SOFT = re.compile(r"(?<=[_/])(?=\w)|(?<=[a-zA-Z][.-])(?=[a-zA-Z])")  # where a name may be broken into lines

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class DrawnGroup:
    """A group of charts with their SVGs; there are none where the page would grow too large."""

    group: ChartGroup
    svgs: tuple[str, ...]


def render_template(
    template: str,
    results: ResultsBase,
    models: Sequence[ModelBase],
    *,
    package: str | None = None,
    parts: Mapping[str, Any],
) -> str:
    """Render a page.

    Args:
        template: The name of the template: `base.html.j2`, or one that extends it.
        results: The results of the evaluation.
        models: The models of the results (M,).
        package: The Python package whose folder `templates` holds the template; None for this one's.
        parts: Further values that the template reads, by name.

    Returns:
        HTML.
    """
    return (
        build_templates(package)
        .get_template(template)
        .render(
            results=results,
            short=shorten_names([model.name for model in models], SHORT),
            dashes=KEY_DASHES,
            markers=KEY_MARKERS,
            protocol=[(capitalize_first(name.replace("_", " ")), text) for name, text in results.protocol.items()],
            colours={"light": (LIGHT_PAPER, LIGHT_SERIES), "dark": (DARK_PAPER, DARK_SERIES)},
            tiles=draw_tiles(results.tiles),
            command=_to_code(format_command(results.command)),
            config=None if results.config is None else _to_code(_to_json(results.config)),
            environment=flatten(results.environment),
            **parts,
        )
    )


def draw_within(groups: Sequence[ChartGroup]) -> list[DrawnGroup]:
    """Draw groups in order until the page has `MOST_CHART_BYTES`; the charts of later groups are files only."""
    drawn: list[DrawnGroup] = []
    size = 0
    for group in groups:
        one = draw_group(group) if size < MOST_CHART_BYTES else DrawnGroup(group, ())
        size += sum(map(len, one.svgs))
        drawn.append(one if size < MOST_CHART_BYTES or len(drawn) == 0 else DrawnGroup(group, ()))
    return drawn


def draw_group(group: ChartGroup) -> DrawnGroup:
    """Draw all charts of a group."""
    return DrawnGroup(group, tuple(render_svg(chart) for chart in group.charts))


def make_chart_names_unique(charts: Sequence[Chart]) -> tuple[Chart, ...]:
    """Rename charts so that no two share a name."""
    names = make_unique(chart.name for chart in charts)
    return tuple(replace(chart, name=name) for chart, name in zip(charts, names, strict=True))


def write_files(
    folder: Path, *, page: str, results: str, charts: Sequence[Chart], console: Console | None = None
) -> list[Path]:
    """Write report.html, results.json and every chart as PNG and CSV.

    All content is built before the first file is written, and each file is replaced as a whole. report.html comes last,
    so that it never refers to files that are missing. The same results give the same bytes.

    Args:
        folder: Where the files go; it is made.
        page: The content of report.html.
        results: The content of results.json.
        charts: The charts, whose names are unique.
        console: Where progress is shown; None for nowhere.

    Returns:
        The files, report.html first.

    Raises:
        UserError: The disk refuses.
    """
    files: dict[Path, bytes] = {}
    with WorkProgress(console, "writing the report", len(charts), "chart") as progress:
        for chart in charts:
            files[Path(FIGURES) / f"{chart.name}.png"] = render_png(chart)
            files[Path(FIGURES) / f"{chart.name}.csv"] = render_csv(chart).encode("utf-8", "backslashreplace")
            progress.add()
    files[Path("results.json")] = results.encode("utf-8", "backslashreplace")
    files[Path("report.html")] = page.encode("utf-8", "backslashreplace")
    for name, content in files.items():
        write_bytes_atomically(folder / name, content)
    return [folder / name for name in reversed(files)]


def remove_earlier(folder: Path, patterns: Sequence[str], written: Sequence[Path]) -> None:
    """Remove files of an earlier evaluation, which a reader would take for results of this one.

    Args:
        folder: The folder of the report.
        patterns: Globs that match the files of an evaluation.
        written: The files of this evaluation, which stay.
    """
    for path in {path for pattern in patterns for path in folder.glob(pattern)} - {*written}:
        path.unlink(missing_ok=True)


def format_pairs(values: Mapping[str, Any]) -> str:
    """Format names with their values on one line."""
    return ", ".join(f"{name.replace('_', ' ')} {format_json_value(value)}" for name, value in values.items())


def format_json_value(value: Any) -> str:
    """Format a JSON value for readers: `yes`, `–`, `0.893`, `a, b`; nested values stay JSON."""
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple) and not any(isinstance(item, dict | list | tuple) for item in value):
        return ", ".join(map(format_json_value, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def flatten(values: Mapping[str, Any], prefix: str = "") -> Pairs:
    """Turn nested mappings into pairs of a dotted name and a formatted value.

    Args:
        values: Nested mappings.
        prefix: A prefix for each name.

    Returns:
        The pairs in order.
    """
    pairs: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            pairs += flatten(value, f"{prefix}{name}.")
        elif name == "command" and isinstance(value, list | tuple):
            pairs.append((f"{prefix}{name}", shlex.join(map(str, value))))
        else:
            pairs.append((f"{prefix}{name}", DASH if value in ({}, []) else format_json_value(value)))
    return tuple(pairs)


def format_command(command: str) -> str:
    """Write the command of an evaluation so that it can be pasted: a script is run by python."""
    script = command.partition(" ")[0]
    return f"python {command}" if script.endswith(".py") else command


def _to_code(text: str) -> Any:
    """Escape a text that is shown as it is, for pasting: without spaces at which no line breaks."""
    from markupsafe import escape

    return escape(printable_lines(text))


def _to_json(config: Any) -> str:
    return json.dumps(config, indent=2, ensure_ascii=False, default=str)


def _print(value: Any) -> Any:
    return printable_lines(value) if type(value) is str else value  # not text that is HTML already


def finalize(value: Any) -> Any:
    """Make a text of the page printable, and let no number part from its unit."""
    return bind_units(printable_lines(value)) if type(value) is str else value


def build_templates(package: str | None = None, *, is_html: bool = True) -> Any:
    """Build the Jinja environment for the templates of this package.

    Args:
        package: A package whose folder `templates` is searched first.
        is_html: Whether values are escaped for HTML.

    Returns:
        The environment, a `jinja2.Environment`.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    packages = ["sharpstudent.report"] if package is None else [package, "sharpstudent.report"]
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name, "templates") for name in packages]),
        autoescape=is_html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=finalize if is_html else _print,
    )
    environment.filters["moment"] = format_moment
    environment.filters["mark"] = lambda text: text.replace(" ", "-")
    environment.filters["sentence"] = capitalize_first
    environment.filters["soft"] = lambda text: Markup("<wbr>").join(_SOFT.split(bind_units(printable_lines(text))))
    return environment
