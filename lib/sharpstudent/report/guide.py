"""What to do next: the two-stage guide's advice (seed 001) with the run's own figures in it, as lines of text.

The guide's bands hold for FaceForensics++ at 380 px; `bands=False` leaves them out for any other data. They and its
gains are AUCs of single pictures: where another metric selects, they are held against the AUC of the epoch selected.
"""

from __future__ import annotations

from dataclasses import dataclass

STAGE1_BAND = (0.88, 0.92)  # the guide's tables; elsewhere in it: about 0.85-0.90
STAGE1_BAND_ELSEWHERE = (0.85, 0.90)
STAGE2_BAND = (0.90, 0.94)
STAGE2_GAIN = (0.01, 0.03)  # AUC gained over stage 1
STAGE1_ACCURACY = 0.80
STAGE1_EPOCHS = 50


@dataclass(frozen=True)
class DistillationSettings:
    """The settings of stage 2 that the advice changes."""

    alpha_start: float
    alpha_end: float
    progressive_epochs: int | None  # None: alpha is constant
    temperature: float
    epochs: int


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
    """checkpoint, config: paths to show; options: further words of the command, with a space before each;
    weights_key_set: the config names stage-1 weights already; selected: metric and best value, where that is another
    metric than the AUC. val_auc: None where it is not known.
    """
    lines = [f"Stage 1 is done: best {_tell_best(val_auc, selected)}, {checkpoint}"]
    if bands and val_auc is not None:
        elsewhere = f"{STAGE1_BAND_ELSEWHERE[0]:.2f}-{STAGE1_BAND_ELSEWHERE[1]:.2f}"
        lines.append(f"  {_hold_against(val_auc, STAGE1_BAND)} (the guide also says {elsewhere})")
    lines.append("Next, stage 2: let the teacher help.")
    if weights_key_set:
        lines.append(f"  1. `pretrained_student_weights` in {config} finds this run (the newest that fits)")
    else:
        lines.append(f'  1. in {config} set "pretrained_student_weights": "{checkpoint}"')
    lines.append(f"  2. python main_distillation.py {config} -n {name}{options}")
    if bands and val_auc is not None and val_auc < STAGE1_BAND_ELSEWHERE[0]:
        lines.append(f"  Before that, longer pre-training is worth it: `stage1.epoch` of {STAGE1_EPOCHS} or more.")
    return lines


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
    known; selected: as for stage 1.

    settings: None where the loss is not written in the guide's keys; its changes of them are then left out.
    """
    lines = [f"Stage 2 is done: best {_tell_best(val_auc, selected)}, {checkpoint}"]
    if bands and val_auc is not None:
        lines.append(f"  {_hold_against(val_auc, STAGE2_BAND)}")
    if stage1_auc is None or val_auc is None:
        unknown = "its validation AUC" if stage1_auc is None else "the validation AUC of this epoch"
        return [*lines, f"  Not compared with stage 1: {unknown} is not known."]
    gain = val_auc - stage1_auc
    wanted = f"; the guide expects +{STAGE2_GAIN[0]:.2f} to +{STAGE2_GAIN[1]:.2f}" if bands else ""
    against = "Against stage 1" if selected is None else "AUC against stage 1"
    lines.append(f"  {against} ({stage1_auc:.4f}): {gain:+.4f}{wanted}")
    if gain < 0:
        return [*lines, *(_NATIVE_LOW if settings is None else advise_low_auc(settings))]
    if gain < STAGE2_GAIN[0]:
        return [*lines, *(_NATIVE_NO_GAIN if settings is None else advise_no_gain(settings))]
    return [
        *lines,
        "  Whether it owes that to the teacher or to the further steps, a control tells:",
        "  the same command with --set use_progressive_distillation=false --set alpha_end=1 and another -n.",
    ]


_NATIVE_LOW = ["  Low validation AUC: try less weight on the teacher's terms at the start, or a lower temperature."]
_NATIVE_NO_GAIN = ["  No gain over stage 1: try more weight on the teacher's terms, a higher temperature, more epochs."]


def advise_low_auc(settings: DistillationSettings) -> list[str]:
    """The AUC fell: the soft labels came too early or too strongly."""
    if settings.progressive_epochs is None:
        progressive = [_change("alpha_end", settings.alpha_end, 0.98, "more hard labels", up=True)]
    else:
        progressive = [
            _change("alpha_start", settings.alpha_start, 0.98, "more hard labels at the start", up=True),
            _change("progressive_epochs", settings.progressive_epochs, 30, "a slower hand-over", up=True),
        ]
    changes = [
        *progressive,
        _change("temperature", settings.temperature, 2.0, "sharper targets", up=False),
    ]
    return _as_advice("Low validation AUC: the student may lean on soft labels too early. Try", changes)


def advise_no_gain(settings: DistillationSettings) -> list[str]:
    """The AUC stayed that of stage 1: little came over from the teacher."""
    changes = [
        _change("alpha_end", settings.alpha_end, 0.3, "more soft labels at the end", up=False),
        _change("temperature", settings.temperature, 4.0, "softer targets", up=True),
        _change("epoch", settings.epochs, 100, "longer training", up=True),
    ]
    return _as_advice("No gain over stage 1: little came over from the teacher. Try", changes)


def advise_on_nan(
    *, checkpoint: str | None, stage1_accuracy: float | None = None, stage1_epochs: int | None = None
) -> list[str]:
    """checkpoint: the stage-1 weights in use, None for none; accuracy (0..1) and epochs of stage 1 where known."""
    accuracy = "not known" if stage1_accuracy is None else f"{stage1_accuracy:.1%}"
    epochs = "not known" if stage1_epochs is None else str(stage1_epochs)
    used = "none: run stage 1 first" if checkpoint is None else f"{checkpoint}: was it made by stage 1 on this data?"
    return [
        "Losses are not finite. The usual cause is a student that stage 1 has not prepared. Check, in this order:",
        f"  1. stage 1 reached more than {STAGE1_ACCURACY:.0%} accuracy (here: {accuracy})",
        f"  2. the stage-1 checkpoint exists and is the one loaded (here: {used})",
        f"  3. stage 1 was long enough: {STAGE1_EPOCHS} epochs or more (here: {epochs}); set `stage1.epoch`",
    ]


RATIO_LIMITS = (0.1, 10.0)


def advise_on_ratio(ratio: float, *, stage: int) -> list[str]:
    """ratio: weighted losses of the terms that ask a teacher over those that read the labels, mean of an epoch."""
    low, high = RATIO_LIMITS
    if ratio < low:
        return [
            f"note: the teacher's terms weigh {ratio:.2g} of the labels' (below {low:g}): little is distilled. Try "
            f"more weight on them (--set stage{stage}.alpha_end=..., lower; or their `weight`), or a higher temperature"
        ]
    if ratio > high:
        return [
            f"note: the teacher's terms weigh {ratio:.2g} times the labels' (above {high:g}): the labels are "
            f"drowned. Try less weight on them (--set stage{stage}.alpha_end=..., higher; or their `weight`), or a "
            "lower temperature"
        ]
    return []


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


def _change(key: str, now: float, wanted: float, why: str, *, up: bool) -> str | None:
    """`--set stage2.alpha_start=0.98  (now 0.95; ...)`; None when the setting is there already.

    Keys of the stage win over the flat ones, so the change acts whatever the file says.
    """
    done = now >= wanted if up else now <= wanted
    return None if done else f"--set stage2.{key}={wanted:g}  (now {now:g}; {why})"


def _as_advice(opening: str, changes: list[str | None]) -> list[str]:
    open_changes = [change for change in changes if change is not None]
    if not open_changes:
        return ["  The guide's changes for this case are all made already; more or other data is what is left."]
    return [f"  {opening}, one at a time:", *(f"    {change}" for change in open_changes)]
