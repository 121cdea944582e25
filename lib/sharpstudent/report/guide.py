"""Advice of the two-stage guide (seed 001) on what to do next, with the run's own numbers.

A task's renderer calls these functions, and adds what a published guide expects of the task's data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

STAGE1_ACCURACY = 0.80
STAGE1_EPOCHS = 50


@dataclass(frozen=True)
class DistillationSettings:
    """The settings of stage 2 that the advice changes.

    Attributes:
        alpha_start: The weight of the hard labels in the first epoch.
        alpha_end: The weight of the hard labels at the end.
        progressive_epochs: How many epochs alpha takes to reach `alpha_end`; None where it is constant.
        temperature: The temperature of the soft labels.
        epochs: How many epochs stage 2 has.
    """

    alpha_start: float
    alpha_end: float
    progressive_epochs: int | None  # None: alpha is constant
    temperature: float
    epochs: int


def describe_next_after_stage1(
    *, best: str, checkpoint: str, following: Sequence[str], remarks: Sequence[str] = (), advice: Sequence[str] = ()
) -> list[str]:
    """Say what to do after stage 1.

    Args:
        best: The metric and value of the best epoch, such as `val_accuracy 0.9000`.
        checkpoint: The path of the checkpoint, as it is shown.
        following: What comes next, and its command.
        remarks: Lines about the best value.
        advice: Lines about what to do before that.

    Returns:
        Lines of text.
    """
    return [f"Stage 1 is done: best {best}, {checkpoint}", *remarks, *following, *advice]


@dataclass(frozen=True)
class Gain:
    """What stage 2 has gained over the student that it began with.

    Attributes:
        value: The gain in the metric, positive where stage 2 is better.
        sentence: The sentence that states it.
        least: The smallest gain that counts; a smaller one is treated as none.
        what: The name of the metric for readers.
    """

    value: float
    sentence: str
    least: float = 0.0
    what: str = ""


def describe_next_after_stage2(
    *,
    best: str,
    checkpoint: str,
    gain: Gain | str,
    settings: DistillationSettings | None,
    remarks: Sequence[str] = (),
    control: str = """[{"term": "hard"}]""",
) -> list[str]:
    """Say what to do after stage 2.

    Args:
        best: The metric and value of the best epoch.
        checkpoint: The path of the checkpoint, as it is shown.
        gain: The gain over stage 1 on the same validation data; where it is not known, a text that names what is
            missing.
        settings: The settings of stage 2; None where the config does not use the guide's keys: the advice then names
            no key.
        remarks: Lines about the best value.
        control: The terms of the loss that need no teacher, as JSON, where `settings` is None.

    Returns:
        Lines of text.
    """
    lines = [f"Stage 2 is done: best {best}, {checkpoint}", *remarks]
    if isinstance(gain, str):
        return [*lines, f"  Not compared with stage 1: {gain} is not known."]
    lines.append(f"  {gain.sentence}")
    if gain.value < 0:
        if settings is not None:
            return [*lines, *advise_on_decline(settings, what=gain.what)]
        low = "try less weight on the teacher's terms at the start, or a lower temperature."
        return [*lines, f"  Low validation {gain.what}: {low}"]
    if gain.value < gain.least or gain.value == 0:
        return [*lines, *(_NATIVE_NO_GAIN if settings is None else advise_no_gain(settings))]
    return [
        *lines,
        "  Whether it owes that to the teacher or to the further steps, a control tells:",
        f"  the same command with {_write_native_control(control) if settings is None else _CONTROL} and another -n.",
    ]


_CONTROL = "--set use_progressive_distillation=false --set alpha_end=1"
_NATIVE_NO_GAIN = ["  No gain over stage 1: try more weight on the teacher's terms, a higher temperature, more epochs."]


def _write_native_control(terms: str) -> str:
    return f"terms that leave the teacher out, such as --set 'stage2.terms={terms}',"


def advise_on_decline(settings: DistillationSettings, *, what: str) -> list[str]:
    """Advise where stage 2 made the student worse: the soft labels came too early or too strongly.

    Args:
        settings: The settings of stage 2.
        what: The name of the metric for readers.

    Returns:
        Lines of text.
    """
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
    return _as_advice(f"Low validation {what}: the student may lean on soft labels too early. Try", changes)


def advise_no_gain(settings: DistillationSettings) -> list[str]:
    """Advise where the metric did not rise over stage 1: the student learnt little from the teacher."""
    changes = [
        _change("alpha_end", settings.alpha_end, 0.3, "more soft labels at the end", up=False),
        _change("temperature", settings.temperature, 4.0, "softer targets", up=True),
        _change("epoch", settings.epochs, 100, "longer training", up=True),
    ]
    return _as_advice("No gain over stage 1: little came over from the teacher. Try", changes)


def advise_on_nan(
    *, checkpoint: str | None, stage1_accuracy: float | None = None, stage1_epochs: int | None = None
) -> list[str]:
    """Advise where losses are not finite.

    Args:
        checkpoint: The stage-1 weights in use; None where there are none.
        stage1_accuracy: The accuracy of stage 1 in 0..1; None where it is not known.
        stage1_epochs: How many epochs stage 1 had; None where it is not known.

    Returns:
        Lines of text.
    """
    accuracy = "not known" if stage1_accuracy is None else f"{stage1_accuracy:.1%}"
    epochs = "not known" if stage1_epochs is None else str(stage1_epochs)
    used = "none: run stage 1 first" if checkpoint is None else f"{checkpoint}: was it made by stage 1 on this data?"
    return [
        "Losses are not finite. The usual cause is a student that stage 1 has not prepared. Check, in this order:",
        f"  1. stage 1 reached more than {STAGE1_ACCURACY:.0%} accuracy (here: {accuracy})",
        f"  2. the stage-1 checkpoint exists and is the one loaded (here: {used})",
        f"  3. stage 1 was long enough: {STAGE1_EPOCHS} epochs or more (here: {epochs}); set `stage1.epoch`",
    ]


def _change(key: str, now: float, wanted: float, why: str, *, up: bool) -> str | None:
    """Name one change, `--set stage2.alpha_start=0.98  (now 0.95; ...)`; None where the setting is there already.

    Keys of the stage have precedence over the flat ones, so the change takes effect whatever the file says.
    """
    done = now >= wanted if up else now <= wanted
    return None if done else f"--set stage2.{key}={wanted:g}  (now {now:g}; {why})"


def _as_advice(opening: str, changes: list[str | None]) -> list[str]:
    open_changes = [change for change in changes if change is not None]
    if not open_changes:
        return ["  The guide's changes for this case are all made already; more or other data is what is left."]
    return [f"  {opening}, one at a time:", *(f"    {change}" for change in open_changes)]
