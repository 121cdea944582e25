"""Sentences of the verdict about one model.

They say whether the model separates real from fake, which kinds of fake it misses, which corruptions harm it, how many
false alarms it gives, how far its probabilities can be trusted, and which frames have no decision.
"""

from __future__ import annotations

import re

from sharpstudent.core.errors import format_count_of
from sharpstudent.core.naming import clean_name
from sharpstudent.metrics.intervals import FEWEST_GROUPS
from sharpstudent.report.results import MetricValue
from sharpstudent.report.text import format_p_value
from sharpstudent.report.verdict import (
    describe_few,
    describe_rate,
    describe_share,
    explain_open,
    find_side,
    is_of_few,
    join,
)
from sharpstudent.tasks.deepfake.report.report_sets import CHANCE, GROUP, ReportSet, describe_auc
from sharpstudent.tasks.deepfake.report.results import (
    CalibrationResult,
    CorruptionCurve,
    CorruptionPoint,
    ModelResult,
)

FRAME_AUC, VIDEO_AUC = "frame_auc", "video_auc_mean"
NOT_SHOWN = ("open", "below", "few")  # sides of chance on which a model is not shown to be better
_AGAINST_CHANCE = {
    "above": "better than chance",
    "below": "worse than chance; perhaps its classes are swapped",
    "open": "which cannot be distinguished from chance (.5)",
    "unknown": "without an interval, so that whether it is better than chance cannot be told",
}


def _compare_with_chance(auc: MetricValue) -> str:
    side = find_side(auc, CHANCE)
    if side == "few":
        return f"of which it cannot be told whether it is better than chance: {describe_few(auc, GROUP)}"
    return _AGAINST_CHANCE[side]


def describe_separation(model: ModelResult, sets: list[ReportSet]) -> list[str]:
    """State frame and video AUC on each set, and whether they are better than chance.

    Args:
        model: The model, one of the results'.
        sets: The sets of the results.

    Returns:
        A sentence for each set.
    """
    lines: list[str] = []
    for dataset in sets:
        optimistic = " (which chose its checkpoint, so its metrics are optimistic)" if dataset.is_validation else ""
        where = f"On {dataset.title}{optimistic}"
        found = dataset.find(model, FRAME_AUC)
        if found is None or found.value is None:
            why = f": {clean_name(found.note)}" if found is not None and found.note else ""
            lines.append(
                f"{where} nothing is known of how well {clean_name(model.name)} separates real from fake{why}."
            )
            continue
        text = (
            f"{where} {clean_name(model.name)} separates real from fake with a frame AUC of "
            f"{describe_auc(found, dataset.describe_size(model))}, {_compare_with_chance(found)}"
        )
        video = dataset.find(model, VIDEO_AUC)
        if video is not None and video.value is not None and dataset.has_videos(model):
            text += (
                f"; by video (mean of its frames) {describe_auc(video, dataset.describe_size(model, 'video'))}, "
                f"{_compare_with_chance(video)}"
            )
        lines.append(f"{text}.")
    return lines


def describe_kinds(model: ModelResult, sets: list[ReportSet]) -> list[str]:
    """Compare the kind of fake that the model finds hardest with the easiest one.

    Args:
        model: The model, one of the results'.
        sets: The sets of the results.

    Returns:
        One text, or none where there are fewer than two kinds.
    """
    kinds = [
        (f"{clean_name(kind)} ({dataset.title}{_describe_novelty(kind, dataset, sets)})", estimate)
        for dataset in sets
        for kind, estimate in dataset.list_kinds(model).items()
    ]
    if len(kinds) < 2:
        return []
    (hard, lowest), (easy, highest) = (find(kinds, key=lambda kind: kind[1].value or 0.0) for find in (min, max))
    hard, easy = (f"{title}, frame AUC {describe_auc(auc)}" for title, auc in ((hard, lowest), (easy, highest)))
    if _is_apart(lowest, highest):
        text = (
            f"{clean_name(model.name)} is worse at some kinds of fake than at others: worst at {hard}, best at {easy}."
        )
    else:
        text = (
            f"Whether {clean_name(model.name)} is worse at some kinds of fake than at others cannot be told from these "
            f"intervals: lowest for {hard}, highest for {easy}."
        )
    blind = [title for title, auc in kinds if find_side(auc, CHANCE) in NOT_SHOWN]
    if blind:
        text += f" It is not shown to be better than chance at {join(blind)}."
    return [text]


def describe_robustness(model: ModelResult) -> list[str]:
    """Name the corruption and severity with the lowest frame AUC, beside the AUC on clean pictures."""
    worst: tuple[CorruptionCurve, CorruptionPoint] | None = None
    lowest = float("inf")
    for curve in model.robustness:
        for point in curve.points[1:]:  # the first one is no corruption at all
            if point.auc.value is not None and point.auc.value < lowest:
                lowest, worst = point.auc.value, (curve, point)
    if worst is None:
        return []
    curve, point = worst
    without = curve.points[0].auc
    details = f"frame AUC {describe_auc(point.auc)}, against {describe_auc(without)} on clean pictures"
    where = f"{clean_name(curve.name)} at {clean_name(point.label)}"
    tried = f"of {len(model.robustness)} corruption{'s' if len(model.robustness) > 1 else ''} tried"
    if _is_apart(point.auc, without):
        text = f"{where} harms {clean_name(model.name)} most {tried}: {details}"
    else:
        text = (
            f"That any corruption harms {clean_name(model.name)} is not shown by these intervals; lowest {tried} is "
            f"{where}: {details}"
        )
    if find_side(point.auc, CHANCE) in NOT_SHOWN:
        text += "; there it is not shown to be better than chance"
    return [f"{text}."]


def _describe_novelty(kind: str, dataset: ReportSet, sets: list[ReportSet]) -> str:
    """Say so where the validation data that selected the model held no such fakes."""
    known = {one for each in sets if each.is_validation and each.about is not None for one in each.about.manipulations}
    return "" if not known or dataset.is_validation or kind in known else "; no such fakes chose the model"


def _is_apart(lower: MetricValue, higher: MetricValue) -> bool:
    """Whether two intervals leave a gap; this is stricter than a paired test of the difference."""
    if is_of_few(lower) or is_of_few(higher) or lower.high is None or higher.low is None:
        return False
    return lower.high < higher.low


HALF = "half"
PREFERRED = ("fpr_1pct", "eer", "youden")  # the verdict uses the first of these thresholds that is stored
CLOSE, UNBELIEVABLE = 0.02, 0.10  # ECE beyond what chance gives: up to the first nearly none, above the second too much
FEWEST_FRAMES = 40  # below it, too few to tell whether probabilities can be trusted
DOUBT = 0.05  # p-value of an ECE among those of drawn labels, below which chance does not explain it


def describe_false_alarms(model: ModelResult, sets: list[ReportSet]) -> list[str]:
    """State how many reals are called fake and how many fakes are missed.

    Decisions are made at the stored threshold or, without one, at a probability of one half.

    Args:
        model: The model, one of the results'.
        sets: The sets of the results.

    Returns:
        A sentence for each set that has these rates.
    """
    name = choose_threshold(model.calibration)
    lines: list[str] = []
    for dataset in sets:
        alarms, missed = (dataset.find(model, f"frame_{kind}_at_{name}") for kind in ("bpcer", "apcer"))
        if alarms is None or alarms.value is None:
            continue
        text = (
            f"At {describe_threshold(name)} {clean_name(model.name)} calls "
            f"{_describe_errors(alarms, dataset, model, 'real')} on {dataset.title} "
            f"fake{_compare_with_wanted(alarms, name)}"
        )
        if missed is not None and missed.value is not None:
            text += f", and misses {_describe_errors(missed, dataset, model, 'fake')}"
        lines.append(f"{text}.")
    return lines


def choose_threshold(calibration: CalibrationResult | None) -> str:
    """Choose the stored threshold of frames that the verdict speaks of; `half` where none is stored."""
    stored = {} if calibration is None else calibration.operating_points.get("frame", {})
    return next((name for name in (*PREFERRED, *stored) if name in stored), HALF)


def describe_threshold(name: str) -> str:
    """Describe a threshold in words."""
    if name == HALF:
        return "a probability of one half (no threshold is stored with it)"
    if found := re.fullmatch(r"fpr_([\d.]+)pct", name):
        return f"the threshold stored with it, chosen on validation for {found[1]} % false alarms,"
    kind = {"eer": "equally many errors of both kinds", "youden": "the fewest errors of both kinds together"}.get(name)
    return f"the threshold stored with it, chosen on validation {f'for {kind}' if kind else f'as {clean_name(name)}'},"


def describe_probabilities(model: ModelResult, sets: list[ReportSet]) -> list[str]:
    """State the ECE, after the stored temperature where there is one, and whether probabilities can be trusted.

    The ECE of a perfectly calibrated model is above 0, too, the more so the fewer frames there are. So it is compared
    with that of labels drawn from the stated probabilities.

    Args:
        model: The model, one of the results'.
        sets: The sets of the results.

    Returns:
        A sentence for each set that has an ECE.
    """
    lines: list[str] = []
    for dataset in sets:
        after, before = (dataset.find(model, f"frame_ece{end}") for end in ("_calibrated", ""))
        found = before if after is None or after.value is None else after
        if found is None or found.value is None:
            continue
        end = "_calibrated" if found is after else ""
        expected, p_value = (dataset.find(model, f"frame_{name}{end}") for name in ("ece_expected", "ece_p_value"))
        how = ", after the stored temperature" if found is after else ""
        text = f"The probabilities of {clean_name(model.name)} on {dataset.title} are off by {_format(found.value)}"
        if expected is None or expected.value is None or p_value is None or p_value.value is None:
            lines.append(f"{text} on average (ECE{how}).")
            continue
        chance = f"labels drawn from them give {_format(expected.value)}, p {format_p_value(p_value.value)}"
        reading = _read_calibration(model, dataset, found.value - expected.value, p_value.value)
        lines.append(f"{text} on average (ECE{how}; {chance}): {reading}.")
    return lines


def _read_calibration(model: ModelResult, dataset: ReportSet, excess: float, p_value: float) -> str:
    """Say how probabilities may be read, given the ECE beyond what is expected by chance and its p-value."""
    frames, people = dataset.count(model, "frame_count"), dataset.count(model, "people_count")
    if (frames is not None and frames < FEWEST_FRAMES) or (people is not None and people < FEWEST_GROUPS):
        few = dataset.describe_size(model)
        return f"{few} are too few to tell whether they may be read as probabilities"
    if p_value >= DOUBT:
        return f"they may be read as probabilities, as far as these frames show{_describe_prevalence(model, dataset)}"
    if excess <= CLOSE:
        return "they are close to probabilities, but not exact"
    if excess > UNBELIEVABLE:
        return "do not read them as probabilities"
    return "take them for an order, not for probabilities"


def _format(share: float) -> str:
    return f"{share:.3f}".removeprefix("0")


_RATES = {"bpcer": "reals called fake", "apcer": "fakes missed"}
NOT_MEASURED = "Whether it errs more often on some groups of people than on others was not measured"


def describe_group_errors(model: ModelResult) -> list[str]:
    """Say on whom the model errs most, by each column; where there is none, that this was not measured.

    Args:
        model: The model, one of the results'.

    Returns:
        A sentence for each column and rate, or one that says that nothing was measured.
    """
    if not model.by_group:
        return [f"{NOT_MEASURED} (--by COLUMN measures it)."]
    lines: list[str] = []
    for errors in model.by_group:
        column = clean_name(errors.column)
        for gap in errors.gaps:
            names, difference = (clean_name(gap.higher), clean_name(gap.lower)), gap.difference
            text = f"{_RATES[gap.rate]}: {describe_rate(difference)} more of {names[0]} than of {names[1]}"
            side = find_side(difference, 0.0)
            if side == "above":
                lines.append(f"By {column}, {clean_name(model.name)} errs more often on {names[0]}, {text}.")
            else:
                why = explain_open(difference, "0", GROUP)
                lines.append(
                    f"Whether {clean_name(model.name)} errs more often on some of {column} cannot be told, {why}; "
                    f"largest difference in {text}."
                )
        if not errors.gaps:
            lines.append(f"By {column}, there are no two groups to compare {clean_name(model.name)} on.")
    return lines


def describe_undecided(models: tuple[ModelResult, ...], sets: list[ReportSet]) -> list[str]:
    """Count the frames without a face, or that could not be read; they are part of no metric.

    Args:
        models: The models of the results.
        sets: The sets of the results.

    Returns:
        A sentence for each set that has such frames, and one for all other sets.
    """
    lines: list[str] = []
    whole: list[str] = []
    for dataset in sets:
        count, total, reasons = _count_undecided(models, dataset)
        if count is None or total is None:
            continue
        if count == 0:
            whole.append(dataset.title)
        else:
            why = "; ".join(f"{clean_name(reason)}: {number:,}" for reason, number in reasons.items())
            lines.append(
                f"On {dataset.title} {count:,} of {total:,} frames ({describe_share(count / max(total, 1))}) have no "
                f"decision{f' ({why})' if why else ''}: they are part of no metric."
            )
    return lines + ([f"Every frame of {join(whole)} has a decision."] if whole else [])


def _count_undecided(
    models: tuple[ModelResult, ...], dataset: ReportSet
) -> tuple[int | None, int | None, dict[str, int]]:
    """Count frames without a decision and all frames, with the reasons; of several models the one with most of them."""
    if dataset.about is not None:
        reasons = dict(dataset.about.without_decision)
        return sum(reasons.values()), dataset.about.frames, reasons
    counts = [(dataset.count(m, "frame_count_without_decision"), dataset.count(m, "frame_count")) for m in models]
    known = [(without, without + decided) for without, decided in counts if without is not None and decided is not None]
    return (*max(known), {}) if known else (None, None, {})


def _describe_errors(estimate: MetricValue, dataset: ReportSet, model: ModelResult, kind: str) -> str:
    """Format an error rate, `2.3 % (...) of the real frames`; where it is 0, also how many there may still be."""
    count = dataset.count(model, f"frame_count_{kind}")
    frames = f"{kind} frames" if count is None else format_count_of(count, f"{kind} frame")
    if estimate.value not in (0.0, 1.0):
        return f"{describe_rate(estimate)} of {'the ' if count is None else ''}{frames}"
    if count == 1:
        which = f"{'not ' if estimate.value == 0.0 else ''}the only {kind} frame"
    else:
        which = f"none of the {frames}" if estimate.value == 0.0 else f"all of the {frames}"
    if estimate.low is None or estimate.high is None or is_of_few(estimate):
        return f"{which} (too few to say how rare the other case is)"
    others = estimate.high if estimate.value == 0.0 else 1.0 - estimate.low
    over = "" if estimate.groups is None else f"of {format_count_of(estimate.groups, GROUP)}: "
    return f"{which} ({over}up to {describe_share(others)} of others cannot be ruled out)"


def _compare_with_wanted(alarms: MetricValue, name: str) -> str:
    """Compare the false alarms with the rate that the threshold was chosen for."""
    wanted = re.fullmatch(r"fpr_([\d.]+)pct", name)
    side = "open" if wanted is None else find_side(alarms, float(wanted[1]) / 100)
    if wanted is None:
        return ""
    words = {"above": ", more than it was chosen for", "below": ", fewer than it was chosen for"}
    return words.get(side, f" (whether this is more or less than {wanted[1]} % cannot be told)")


def _describe_prevalence(model: ModelResult, dataset: ReportSet) -> str:
    real, fake = (dataset.count(model, f"frame_count_{kind}") for kind in ("real", "fake"))
    if real is None or fake is None or real + fake == 0:
        return ", where fakes are as frequent as here"
    return f", where fakes are as frequent as here ({describe_share(fake / (real + fake))})"
