"""The values that the two-stage guide expects of a detector, beside those that the run measured.

The guide's bands hold for FaceForensics++ at 380 px and for a machine that it does not name. `bands=False` leaves them
out for any other data, or shows them without comparing. Bands and gains are AUCs of single pictures; where another
metric selects, the AUC of the selected epoch is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sharpstudent.report import guide
from sharpstudent.report.guide import STAGE1_EPOCHS, Gain
from sharpstudent.report.results import Role
from sharpstudent.report.text import format_milliseconds, format_parameters
from sharpstudent.tasks.deepfake.report.results import Band, ModelResult

STAGE1_BAND = (0.88, 0.92)  # the guide's tables; elsewhere in it: about 0.85-0.90
STAGE1_BAND_ELSEWHERE = (0.85, 0.90)
STAGE2_BAND = (0.90, 0.94)
STAGE2_GAIN = (0.01, 0.03)  # AUC gained over stage 1


def describe_next_after_stage1(
    *, val_auc: float | None, bands: bool, selected: str | None = None, **others: Any
) -> list[str]:
    """Say what to do next as the general guide does, with the bands.

    Args:
        val_auc: The validation AUC of the best epoch; None where it is not known.
        bands: Whether the guide's bands hold for this data.
        selected: The metric and its best value, where another metric than the AUC selects; else None.
        others: Further arguments of the general guide's function: `checkpoint` and `following`.

    Returns:
        The lines at the end of stage 1.
    """
    remarks: list[str] = []
    advice: list[str] = []
    if bands and val_auc is not None:
        elsewhere = f"{STAGE1_BAND_ELSEWHERE[0]:.2f}-{STAGE1_BAND_ELSEWHERE[1]:.2f}"
        remarks.append(f"  {_compare_with_band(val_auc, STAGE1_BAND)} (the guide also says {elsewhere})")
        if val_auc < STAGE1_BAND_ELSEWHERE[0]:
            advice.append(f"  Before that, longer pre-training is worth it: `stage1.epoch` of {STAGE1_EPOCHS} or more.")
    best = _format_best(val_auc, selected)
    return guide.describe_next_after_stage1(best=best, remarks=remarks, advice=advice, **others)


def describe_next_after_stage2(
    *, val_auc: float | None, stage1_auc: float | None, bands: bool, selected: str | None = None, **others: Any
) -> list[str]:
    """Say what to do next as the general guide does, with the bands.

    Args:
        val_auc: The validation AUC of the best epoch; None where it is not known.
        stage1_auc: The AUC of the checkpoint that stage 2 started from, on the same data; None where it is not known.
        bands: Whether the guide's bands hold for this data.
        selected: The metric and its best value, where another metric than the AUC selects; else None.
        others: Further arguments of the general guide's function: `checkpoint` and `settings`.

    Returns:
        The lines at the end of stage 2.
    """
    return guide.describe_next_after_stage2(
        best=_format_best(val_auc, selected),
        gain=_describe_gain(val_auc, stage1_auc, bands=bands, is_selected=selected is None),
        remarks=[f"  {_compare_with_band(val_auc, STAGE2_BAND)}"] if bands and val_auc is not None else (),
        **others,
    )


def _describe_gain(val_auc: float | None, stage1_auc: float | None, *, bands: bool, is_selected: bool) -> Gain | str:
    if stage1_auc is None or val_auc is None:
        return "its validation AUC" if stage1_auc is None else "the validation AUC of this epoch"
    gain = val_auc - stage1_auc
    wanted = f"; the guide expects +{STAGE2_GAIN[0]:.2f} to +{STAGE2_GAIN[1]:.2f}" if bands else ""
    against = "Against stage 1" if is_selected else "AUC against stage 1"
    return Gain(gain, f"{against} ({stage1_auc:.4f}): {gain:+.4f}{wanted}", least=STAGE2_GAIN[0], what="AUC")


def _format_best(val_auc: float | None, selected: str | None) -> str:
    """Format the best value: `validation AUC 0.9000`, or `val_eer 0.0812 (validation AUC 0.9000)`."""
    auc = None if val_auc is None else f"validation AUC {val_auc:.4f}"
    if selected is None:
        return auc or "epoch"
    return selected if auc is None else f"{selected} ({auc})"


def _compare_with_band(value: float, band: tuple[float, float]) -> str:
    """Say whether a measured AUC lies in one of the guide's bands."""
    return f"measured {value:.4f}, the guide expects {band[0]:.2f}-{band[1]:.2f}: {_place(value, band)} the band"


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


def list_bands(models: Sequence[ModelResult], *, epoch_seconds: Mapping[str, float] | None = None) -> tuple[Band, ...]:
    """Compare each value that the guide expects with what was measured with the guide's data.

    Args:
        models: The models of the results. Of several models with one role the first counts; models without a role
            are left out.
        epoch_seconds: How many seconds an epoch of training took, by the model's name.

    Returns:
        One band for each value; what was not measured is stated.
    """
    first: dict[Role, ModelResult] = {}
    for model in models:
        first.setdefault(model.role, model)
    bands = [
        _compare(f"{_NAMES[role]}: {what}", *measured)
        for role in _NAMES
        if role in first
        for what, measured in _list_measured(role, first[role], epoch_seconds or {}).items()
    ]
    if "before" in first and "distilled" in first:
        gain, (low, high) = _find_gain(first["before"], first["distilled"]), STAGE2_GAIN
        expected, what = f"{100 * low:.0f}-{100 * high:.0f} %", "Gain of stage 2 over stage 1, validation AUC"
        measured = (expected, STAGE2_GAIN, gain, lambda value: f"{100 * value:+.1f} %")
        bands.append(_compare(what, *measured))
    return tuple(bands)


def find_validation_auc(model: ModelResult) -> float | None:
    """Find the frame AUC on validation that the checkpoint stores."""
    return next((model.validation[name] for name in VALIDATION_AUCS if name in model.validation), None)


# The expectation in words; its lowest and highest value; the measured value, None where there is none; and its text.
Measured = tuple[str, tuple[float, float], float | None, Callable[[float], str]]


def _list_measured(role: Role, model: ModelResult, epoch_seconds: Mapping[str, float]) -> dict[str, Measured]:
    """List the guide's expectations of a model with a role, beside the measured values."""
    auc, cost, seconds = _AUC[role], model.cost, epoch_seconds.get(model.name)
    parameters, latency = (TEACHER_PARAMETERS, TEACHER_MS) if role == "teacher" else (STUDENT_PARAMETERS, STUDENT_MS)
    found: dict[str, Measured] = {
        "parameters": (
            f"about {parameters / 1e6:.0f} M",
            _widen(parameters),
            None if cost is None else cost.parameters,
            lambda count: format_parameters(round(count)),
        ),
        "best validation AUC": (f"{auc[0]:.2f}-{auc[1]:.2f}", auc, find_validation_auc(model), "{:.4f}".format),
        "time for one picture": (
            f"{latency:.0f} ms",
            _widen(latency),
            None if cost is None else cost.latency_ms,
            lambda value: f"{format_milliseconds(value)} on {cost and cost.device}",
        ),
    }
    if role in _HOURS:
        hours = None if seconds is None else seconds * GUIDES_EPOCHS / 3600
        expected = f"{_HOURS[role][0]:.0f}-{_HOURS[role][1]:.0f} hours"
        found[f"{GUIDES_EPOCHS} epochs of training"] = (expected, _HOURS[role], hours, _format_hours)
    return found


def _widen(value: float) -> tuple[float, float]:
    return value * (1 - ABOUT), value * (1 + ABOUT)


def _format_hours(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes"


def _find_gain(before: ModelResult, after: ModelResult) -> float | None:
    first, second = find_validation_auc(before), find_validation_auc(after)
    return None if first is None or second is None else second - first


def _place(value: float, band: tuple[float, float]) -> str:
    return "below" if value < band[0] else "above" if value > band[1] else "inside"


def _compare(
    what: str, expected: str, band: tuple[float, float], value: float | None, tell: Callable[[float], str]
) -> Band:
    text = "not measured" if value is None else f"{tell(value)}: {_place(value, band)} the band"
    return Band(what=what, expected=f"{expected} ({SPEAKS_OF})", measured=text)
