"""The comparison of models, and what the two-stage guide expects of it.

The comparison of models, `| Model | Parameters | Val AUC | Inference time |`: Markdown, console and JSON.

What the two-stage guide (seed 001) expects, beside what was measured.

Its figures speak of FaceForensics++ at 380 px and of a machine that it does not name. Where another data set was
trained on they are shown beside the measurement, and the two are not held against each other.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from rich.box import SIMPLE_HEAD
from rich.table import Table

from sharpstudent.report.guide import STAGE1_BAND, STAGE2_BAND, STAGE2_GAIN
from sharpstudent.report.results import Band, ModelResult, Role

HEADER = ("Model", "Parameters", "Val AUC", "Inference time")


@dataclass(frozen=True)
class ComparisonRow:
    """One model: parameters (count), val_auc with its 95 % interval where known, inference_ms (one image); None where
    it is not known.

    extra: further columns by their title, already as text.
    """

    model: str
    parameters: int | None
    val_auc: float | None
    inference_ms: float | None
    extra: Mapping[str, str] = field(default_factory=dict[str, str])
    interval: tuple[float, float] | None = None


def to_markdown(rows: Sequence[ComparisonRow]) -> str:
    """The table as Markdown, ending in a newline."""
    titles = [*HEADER, *_extra_titles(rows)]
    rule = ["---", *["---:"] * (len(HEADER) - 1), *["---"] * (len(titles) - len(HEADER))]
    body = [[_fit_cell(cell) for cell in _to_cells(row, titles)] for row in rows]
    heads = [_fit_cell(title) for title in titles]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [heads, rule, *body])


def escape_markdown(text: str) -> str:
    """A name that users gave, on one line and without markup: nothing in it becomes a link, HTML or another cell."""
    return re.sub(r"([\\`*\[\]<>|&@]|:(?=//)|(?<=www)\.)", r"\\\1", " ".join(text.split()))


def to_rich(rows: Sequence[ComparisonRow], *, title: str | None = None) -> Table:
    """The table for the console."""
    # Narrow: five columns fit a terminal of 80.
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    titles = [*HEADER, *_extra_titles(rows)]
    for name in titles:
        is_number = name in HEADER[1:]
        # A long name takes several lines; numbers stay whole.
        table.add_column(name, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number)
    for row in rows:
        table.add_row(*(cell.replace("[", "\\[") for cell in _to_cells(row, titles)))  # `[` opens rich's markup
    return table


def to_json(rows: Sequence[ComparisonRow]) -> str:
    """The rows as a JSON list with full precision, ending in a newline; a value that is not known is null."""
    items = [asdict(row) | {"extra": dict(row.extra)} for row in rows]
    plain = [{k: None if v != v else v for k, v in item.items()} for item in items]  # NaN is no JSON
    return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def format_parameters(count: int | None) -> str:
    """`19.34 M`, `1.12 M`, `12.3 k`, or a dash."""
    if count is None:
        return "–"
    return f"{count / 1e6:.2f} M" if count >= 100_000 else f"{count / 1e3:.1f} k"


def format_auc(value: float | None, interval: tuple[float, float] | None = None) -> str:
    """`0.8123`, `0.8123 [0.75, 0.87]`, or a dash."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.4f}" if interval is None else f"{value:.4f} [{interval[0]:.2f}, {interval[1]:.2f}]"


def format_milliseconds(value: float | None) -> str:
    """`30.1 ms`, `0.31 ms`, or a dash."""
    if value is None:
        return "–"
    return f"{value:.1f} ms" if value >= 1 else f"{value:.2f} ms"


def _fit_cell(text: str) -> str:
    """One cell, whatever is in it; a bar that is escaped already stays as it is."""
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(text.split()))


def _extra_titles(rows: Sequence[ComparisonRow]) -> list[str]:
    return list(dict.fromkeys(title for row in rows for title in row.extra))


def _to_cells(row: ComparisonRow, titles: Sequence[str]) -> list[str]:
    fixed = [
        row.model,
        format_parameters(row.parameters),
        format_auc(row.val_auc, row.interval),
        format_milliseconds(row.inference_ms),
    ]
    return fixed + [row.extra.get(title, "") for title in titles[len(HEADER) :]]


TEACHER_BAND = (0.94, 0.96)  # validation AUC
TEACHER_PARAMETERS, STUDENT_PARAMETERS = 19e6, 18e6
TEACHER_MS, STUDENT_MS = 50.0, 30.0  # one picture
STAGE1_HOURS, STAGE2_HOURS = (2.0, 3.0), (3.0, 4.0)  # 100 epochs
GUIDES_EPOCHS = 100
ABOUT = 0.1  # "about 19 M" is met within 10 %
VALIDATION_AUCS = ("val_auc", "frame_auc", "auc")
SPEAKS_OF = "FaceForensics++, 380 px"

_NAMES: dict[Role, str] = {
    "teacher": "Teacher",
    "before": "Student pre-trained (stage 1)",
    "distilled": "Student + distillation (stage 2)",
}
_AUC: dict[Role, tuple[float, float]] = {"teacher": TEACHER_BAND, "before": STAGE1_BAND, "distilled": STAGE2_BAND}
_HOURS: dict[Role, tuple[float, float]] = {"before": STAGE1_HOURS, "distilled": STAGE2_HOURS}


def list_bands(
    models: Sequence[ModelResult],
    *,
    is_guides_data: bool = False,
    epoch_seconds: Mapping[str, float] | None = None,
) -> tuple[Band, ...]:
    """One band for each figure that the guide expects of a model that is here; nothing without roles.

    is_guides_data: trained on FaceForensics++ at 380 px; epoch_seconds: seconds an epoch of training took, by model
    name. Of several models of a role the first one is taken. What was not measured is said so.
    """
    first: dict[Role, ModelResult] = {}
    for model in models:
        first.setdefault(model.role, model)
    bands: list[Band] = []
    for role in _NAMES:
        if role in first:
            bands += _list_of(role, first[role], is_guides_data, epoch_seconds or {})
    if "before" in first and "distilled" in first:
        gain = _find_gain(first["before"], first["distilled"])
        low, high = (100 * end for end in STAGE2_GAIN)
        bands.append(
            _compare(
                "Gain of stage 2 over stage 1, validation AUC",
                f"{low:.0f}-{high:.0f} %",
                None if gain is None else f"{100 * gain:+.1f} %",
                None if gain is None else _place(gain, STAGE2_GAIN),
                is_guides_data,
            )
        )
    return tuple(bands)


def find_validation_auc(model: ModelResult) -> float | None:
    """The frame AUC on validation that the checkpoint says of itself."""
    return next((model.validation[name] for name in VALIDATION_AUCS if name in model.validation), None)


def _list_of(role: Role, model: ModelResult, is_guides_data: bool, epoch_seconds: Mapping[str, float]) -> list[Band]:
    name, auc = _NAMES[role], find_validation_auc(model)
    wanted = TEACHER_PARAMETERS if role == "teacher" else STUDENT_PARAMETERS
    wanted_ms = TEACHER_MS if role == "teacher" else STUDENT_MS
    parameters = None if model.cost is None else model.cost.parameters
    latency = None if model.cost is None else model.cost.latency_ms
    around = (wanted * (1 - ABOUT), wanted * (1 + ABOUT))
    bands = [
        _compare(
            f"{name}: parameters",
            f"about {wanted / 1e6:.0f} M",
            None if parameters is None else format_parameters(parameters),
            None if parameters is None else _place(parameters, around),
            is_guides_data,
        ),
        _compare(
            f"{name}: best validation AUC",
            f"{_AUC[role][0]:.2f}-{_AUC[role][1]:.2f}",
            None if auc is None else f"{auc:.4f}",
            None if auc is None else _place(auc, _AUC[role]),
            is_guides_data,
        ),
        _compare(
            f"{name}: time for one picture",
            f"{wanted_ms:.0f} ms",
            None if latency is None or model.cost is None else f"{format_milliseconds(latency)} on {model.cost.device}",
            None if latency is None else _place(latency, (wanted_ms * (1 - ABOUT), wanted_ms * (1 + ABOUT))),
            is_guides_data,
        ),
    ]
    if role in _HOURS:
        seconds = epoch_seconds.get(model.name)
        hours = None if seconds is None else seconds * GUIDES_EPOCHS / 3600
        bands.append(
            _compare(
                f"{name}: {GUIDES_EPOCHS} epochs of training",
                f"{_HOURS[role][0]:.0f}-{_HOURS[role][1]:.0f} hours",
                None if hours is None else f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes",
                None if hours is None else _place(hours, _HOURS[role]),
                is_guides_data,
            )
        )
    return bands


def _find_gain(before: ModelResult, after: ModelResult) -> float | None:
    first, second = find_validation_auc(before), find_validation_auc(after)
    return None if first is None or second is None else second - first


def _place(value: float, band: tuple[float, float]) -> str:
    return "below" if value < band[0] else "above" if value > band[1] else "inside"


def _compare(what: str, expected: str, measured: str | None, place: str | None, is_guides_data: bool) -> Band:
    """place: where the measured value lies, None where there is none."""
    if measured is None or place is None:
        text = "not measured"
    else:
        text = f"{measured}: {place} the band" if is_guides_data else f"{measured} (another data set)"
    return Band(what=what, expected=f"{expected} ({SPEAKS_OF})", measured=text)
