"""What the two-stage guide (seed 001) expects of a detector, beside the run's own figures.

The guide's bands hold for FaceForensics++ at 380 px and for a machine that it does not name; `bands=False` leaves them
out for any other data, or shows them beside the measurement without holding the two against each other. They and its
gains are AUCs of single pictures: where another metric selects, they are held against the AUC of the epoch selected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sharpstudent.report import guide
from sharpstudent.report.guide import STAGE1_EPOCHS, DistillationSettings, Gain
from sharpstudent.report.results import Role
from sharpstudent.report.text import format_milliseconds, format_parameters
from sharpstudent.tasks.deepfake.report.results import Band, ModelResult

STAGE1_BAND = (0.88, 0.92)  # the guide's tables; elsewhere in it: about 0.85-0.90
STAGE1_BAND_ELSEWHERE = (0.85, 0.90)
STAGE2_BAND = (0.90, 0.94)
STAGE2_GAIN = (0.01, 0.03)  # AUC gained over stage 1


def describe_next_after_stage1(
    *,
    val_auc: float | None,
    checkpoint: str,
    config: str,
    name: str = "run",
    options: str = "",
    weights_key_set: bool = False,
    bands: bool,
    selected: str | None = None,
) -> list[str]:
    """As the general guide's, with the bands. selected: metric and best value, where that is another metric than the
    AUC. val_auc: None where it is not known.
    """
    remarks: list[str] = []
    advice: list[str] = []
    if bands and val_auc is not None:
        elsewhere = f"{STAGE1_BAND_ELSEWHERE[0]:.2f}-{STAGE1_BAND_ELSEWHERE[1]:.2f}"
        remarks.append(f"  {_hold_against(val_auc, STAGE1_BAND)} (the guide also says {elsewhere})")
        if val_auc < STAGE1_BAND_ELSEWHERE[0]:
            advice.append(f"  Before that, longer pre-training is worth it: `stage1.epoch` of {STAGE1_EPOCHS} or more.")
    return guide.describe_next_after_stage1(
        best=_tell_best(val_auc, selected),
        checkpoint=checkpoint,
        config=config,
        name=name,
        options=options,
        weights_key_set=weights_key_set,
        remarks=remarks,
        advice=advice,
    )


def describe_next_after_stage2(
    *,
    val_auc: float | None,
    stage1_auc: float | None,
    checkpoint: str,
    settings: DistillationSettings | None,
    bands: bool,
    selected: str | None = None,
) -> list[str]:
    """stage1_auc: of the checkpoint that stage 2 started from, on the same validation data. Both AUCs: None if not
    known; selected: as for stage 1; settings: as in the general guide.
    """
    return guide.describe_next_after_stage2(
        best=_tell_best(val_auc, selected),
        checkpoint=checkpoint,
        gain=_tell_gain(val_auc, stage1_auc, bands=bands, is_selected=selected is None),
        settings=settings,
        remarks=[f"  {_hold_against(val_auc, STAGE2_BAND)}"] if bands and val_auc is not None else (),
    )


def _tell_gain(val_auc: float | None, stage1_auc: float | None, *, bands: bool, is_selected: bool) -> Gain | str:
    if stage1_auc is None or val_auc is None:
        return "its validation AUC" if stage1_auc is None else "the validation AUC of this epoch"
    gain = val_auc - stage1_auc
    wanted = f"; the guide expects +{STAGE2_GAIN[0]:.2f} to +{STAGE2_GAIN[1]:.2f}" if bands else ""
    against = "Against stage 1" if is_selected else "AUC against stage 1"
    return Gain(gain, f"{against} ({stage1_auc:.4f}): {gain:+.4f}{wanted}", least=STAGE2_GAIN[0], what="AUC")


def _tell_best(val_auc: float | None, selected: str | None) -> str:
    """`validation AUC 0.9000`, or `val_eer 0.0812 (validation AUC 0.9000)`."""
    auc = None if val_auc is None else f"validation AUC {val_auc:.4f}"
    if selected is None:
        return auc or "epoch"
    return selected if auc is None else f"{selected} ({auc})"


def _hold_against(value: float, band: tuple[float, float]) -> str:
    """Whether a measured AUC lies in one of the guide's bands."""
    where = "below" if value < band[0] else "above" if value > band[1] else "inside"
    return f"measured {value:.4f}, the guide expects {band[0]:.2f}-{band[1]:.2f}: {where} the band"


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
