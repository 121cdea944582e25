"""Sentences about one model: what its metrics say, and whether that limits it.

They say whether the model separates real from fake, which kinds of fake it misses, which corruptions harm it, how many
fakes it misses and how many false alarms it gives, how far its probabilities can be trusted, on whom it errs most, and
which frames have no decision.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sharpstudent.core.errors import format_count_of
from sharpstudent.core.naming import clean_name
from sharpstudent.metrics.intervals import FEWEST_GROUPS
from sharpstudent.report.results import MetricValue
from sharpstudent.report.sentences import (
    describe_few,
    describe_rate,
    describe_share,
    explain_open,
    find_side,
    is_of_few,
    join,
    join_some,
)
from sharpstudent.report.text import format_p_value
from sharpstudent.tasks.deepfake.report.report_sets import CHANCE, GROUP, ReportSet, describe_auc
from sharpstudent.tasks.deepfake.report.results import (
    CalibrationResult,
    ModelResult,
)
from sharpstudent.tasks.deepfake.report.words import name_corruption

FRAME_AUC, VIDEO_AUC = "frame_auc", "video_auc_mean"
NOT_SHOWN = ("open", "below", "few")  # sides of chance on which a model is not shown to be better
_AGAINST_CHANCE = {
    "above": "better than chance",
    "below": "worse than chance, perhaps its classes are swapped",
    "open": "inconclusive against chance (.5)",
    "unknown": "inconclusive against chance (.5) without an interval",
}


@dataclass(frozen=True)
class ModelFinding:
    """What was found of a model, in one or two sentences.

    Attributes:
        text: The sentences.
        limits: Whether it limits the model: a report never folds such a finding away.
    """

    text: str
    limits: bool


def select(findings: Sequence[ModelFinding], *, limits: bool) -> list[str]:
    """Return the sentences of the findings that limit a model, or of those that do not."""
    return [one.text for one in findings if one.limits == limits]


def _compare_with_chance(auc: MetricValue) -> str:
    side = find_side(auc, CHANCE)
    return f"inconclusive, {describe_few(auc, GROUP)}" if side == "few" else _AGAINST_CHANCE[side]


def describe_separation(model: ModelResult, sets: Sequence[ReportSet]) -> list[str]:
    """State frame and video AUC on each set, and whether they are better than chance.

    Args:
        model: The model, one of the results'.
        sets: The sets of the results.

    Returns:
        A text for each set.
    """
    lines: list[str] = []
    for dataset in sets:
        found = dataset.find(model, FRAME_AUC)
        if found is None or found.value is None:
            why = f": {clean_name(found.note)}" if found is not None and found.note else ""
            name = clean_name(model.name)
            lines.append(f"Nothing is known of how well {name} separates real from fake on {dataset.title}{why}.")
            continue
        text = (
            f"On {dataset.title} {clean_name(model.name)} has a frame AUC of "
            f"{describe_auc(found, dataset.describe_size(model))}: {_compare_with_chance(found)}."
        )
        video = dataset.find(model, VIDEO_AUC)
        if video is not None and video.value is not None and dataset.has_videos(model):
            size = dataset.describe_size(model, "video")
            text += f" By video (mean of its frames) {describe_auc(video, size)}: {_compare_with_chance(video)}."
        lines.append(text)
    return lines


def describe_kinds(model: ModelResult, sets: Sequence[ReportSet]) -> list[ModelFinding]:
    """Name the kinds of fake at which a model is not shown to be better than chance, and the hardest and easiest kind.

    Args:
        model: The model, one of the results'.
        sets: The sets of the results.

    Returns:
        The findings; the second one only where there are two kinds or more.
    """
    kinds = [
        (f"{clean_name(kind)} ({dataset.title})", estimate)
        for dataset in sets
        for kind, estimate in dataset.list_kinds(model).items()
    ]
    if not kinds:
        return []
    (hard, lowest), (easy, highest) = (find(kinds, key=lambda kind: kind[1].value or 0.0) for find in (min, max))
    findings: list[ModelFinding] = []
    blind = [title for title, auc in kinds if find_side(auc, CHANCE) in NOT_SHOWN]
    if blind:
        text = f"{clean_name(model.name)} is not shown to be better than chance at {join_some(blind)}."
        worst = f" The lowest frame AUC is {describe_auc(lowest)}{f', at {hard}' if len(blind) > 1 else ''}."
        findings.append(ModelFinding(text + (worst if hard in blind else ""), limits=True))
    if len(kinds) < 2:
        return findings
    ends = f"frame AUC {describe_auc(lowest)} at {hard}, {describe_auc(highest)} at {easy}"
    if _is_apart(lowest, highest):
        text = f"{clean_name(model.name)} is worse at some kinds of fake than at others: {ends}."
        return [*findings, ModelFinding(text, limits=not blind)]
    text = f"Is {clean_name(model.name)} worse at some kinds of fake than at others? Inconclusive: {ends}."
    return [*findings, ModelFinding(text, limits=False)]


def describe_robustness(model: ModelResult) -> list[ModelFinding]:
    """Name the corruption and severity that cost most frame AUC, beside the AUC on clean pictures of the same set."""
    found = [
        (curve, point, curve.points[0].auc.value - point.auc.value)
        for curve in model.robustness
        for point in curve.points[1:]  # the first one is no corruption at all
        if point.auc.value is not None and curve.points[0].auc.value is not None
    ]
    if not found:
        return []
    harmful = [one for one in found if _is_apart(one[1].auc, one[0].points[0].auc)]
    curve, point, _ = max(harmful or found, key=lambda one: one[2])
    without = curve.points[0].auc
    base, _, part = curve.name.partition("@")
    where = f"{clean_name(name_corruption(base))} at {clean_name(point.label)}"
    count = len({one.name.partition("@")[0] for one in model.robustness})
    tried = f"of {count} corruption{'s' if count > 1 else ''} tried{f' on {clean_name(part)}' if part else ''}"
    ends = f"frame AUC {describe_auc(point.auc)}, against {describe_auc(without)} on clean pictures"
    if not _is_apart(point.auc, without):
        text = f"Does any corruption harm {clean_name(model.name)}? Inconclusive, the worst {tried} is {where}: {ends}."
        return [ModelFinding(text, limits=False)]
    chance = " There it is not shown to be better than chance." if find_side(point.auc, CHANCE) in NOT_SHOWN else ""
    text = f"{where} harms {clean_name(model.name)} most {tried}: {ends}.{chance}"
    return [ModelFinding(text, limits=True)]


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


def describe_false_alarms(model: ModelResult, sets: Sequence[ReportSet]) -> list[ModelFinding]:
    """State how many fakes are missed and how many reals are called fake.

    Decisions are made at the stored threshold or, without one, at a probability of one half.

    Args:
        model: The model, one of the results'.
        sets: The sets of the results.

    Returns:
        A finding for each set that has these rates.
    """
    name = choose_threshold(model.calibration)
    findings: list[ModelFinding] = []
    for dataset in sets:
        alarms, missed = (dataset.find(model, f"frame_{kind}_at_{name}") for kind in ("bpcer", "apcer"))
        if alarms is None or alarms.value is None:
            continue
        start = f"At {describe_threshold(name)} {clean_name(model.name)}"
        where, told = f" on {dataset.title}", ""
        if missed is not None and missed.value is not None:
            told = f"{start} misses {_describe_errors(missed, dataset, model, 'fake', where)}. "
            start, where = "It", ""
        wanted = _compare_with_wanted(alarms, name)
        told += f"{start} calls {_describe_errors(alarms, dataset, model, 'real', where)} fake{wanted}."
        findings.append(ModelFinding(told, limits=True))
    return findings


def choose_threshold(calibration: CalibrationResult | None) -> str:
    """Choose the stored threshold of frames that the verdict speaks of; `half` where none is stored."""
    stored = {} if calibration is None else calibration.operating_points.get("frame", {})
    return next((name for name in (*PREFERRED, *stored) if name in stored), HALF)


def describe_threshold(name: str) -> str:
    """Describe a threshold in words."""
    if name == HALF:
        return "a probability of one half (no threshold is stored)"
    if found := re.fullmatch(r"fpr_([\d.]+)pct", name):
        return f"its stored threshold ({found[1]} % false alarms on validation)"
    kind = {"eer": "equally many errors of both kinds", "youden": "the fewest errors of both kinds"}.get(name)
    return f"its stored threshold ({kind or clean_name(name)} on validation)"


def describe_probabilities(model: ModelResult, sets: Sequence[ReportSet]) -> list[ModelFinding]:
    """State the ECE, after the stored temperature where there is one, and whether probabilities can be trusted.

    The ECE of a perfectly calibrated model is above 0, too, the more so the fewer frames there are. So it is compared
    with that of labels drawn from the stated probabilities.

    Args:
        model: The model, one of the results'.
        sets: The sets of the results.

    Returns:
        A finding for each set that has an ECE.
    """
    findings: list[ModelFinding] = []
    for dataset in sets:
        after, before = (dataset.find(model, f"frame_ece{end}") for end in ("_calibrated", ""))
        found = before if after is None or after.value is None else after
        if found is None or found.value is None:
            continue
        end = "_calibrated" if found is after else ""
        expected, p_value = (dataset.find(model, f"frame_{name}{end}") for name in ("ece_expected", "ece_p_value"))
        how = ", after the stored temperature" if found is after else ""
        text = (
            f"The probabilities of {clean_name(model.name)} on {dataset.title} are off by {_format(found.value)} on "
            f"average (ECE{how})."
        )
        if expected is None or expected.value is None or p_value is None or p_value.value is None:
            findings.append(ModelFinding(text, limits=False))
            continue
        chance = f"Labels drawn from them give {_format(expected.value)} (p {format_p_value(p_value.value)})"
        reading, limits = _read_calibration(model, dataset, found.value - expected.value, p_value.value)
        findings.append(ModelFinding(f"{text} {chance}: {reading}.", limits))
    return findings


def _read_calibration(model: ModelResult, dataset: ReportSet, excess: float, p_value: float) -> tuple[str, bool]:
    """Say how probabilities may be read, given the ECE beyond what is expected by chance and its p-value.

    Returns the clause, and whether this limits the model.
    """
    frames, people = dataset.count(model, "frame_count"), dataset.count(model, "people_count")
    if (frames is not None and frames < FEWEST_FRAMES) or (people is not None and people < FEWEST_GROUPS):
        return f"inconclusive, {dataset.describe_size(model)} are too few to tell", True
    if p_value >= DOUBT:
        return f"they may be read as probabilities{_describe_prevalence(model, dataset)}", False
    if excess <= CLOSE:
        return "they are close to probabilities, but not exact", False
    if excess > UNBELIEVABLE:
        return "do not read them as probabilities", True
    return "take them for an order, not for probabilities", True


def _format(share: float) -> str:
    return f"{share:.3f}".removeprefix("0")


_RATES = {"bpcer": "reals called fake", "apcer": "fakes missed"}
NOT_MEASURED = "Whether it errs more often on some groups of people than on others was not measured"


def describe_group_errors(model: ModelResult) -> list[ModelFinding]:
    """Say on whom the model errs most, by each column; where there is none, that this was not measured.

    Args:
        model: The model, one of the results'.

    Returns:
        A finding for each column and rate, or one that says that nothing was measured.
    """
    if not model.by_group:
        return [ModelFinding(f"{NOT_MEASURED} (--by COLUMN measures it).", limits=True)]
    findings: list[ModelFinding] = []
    for errors in model.by_group:
        column = clean_name(errors.column)
        for gap in errors.gaps:
            names, difference = (clean_name(gap.higher), clean_name(gap.lower)), gap.difference
            text = f"{_RATES[gap.rate]}: {describe_rate(difference)} more of {names[0]} than of {names[1]}"
            if find_side(difference, 0.0) == "above":
                text = f"By {column}, {clean_name(model.name)} errs more often on {names[0]}, {text}."
                findings.append(ModelFinding(text, limits=True))
            else:
                why = explain_open(difference, "0", GROUP)
                start = f"Does {clean_name(model.name)} err more often on some of {column}? Inconclusive: {why}."
                findings.append(ModelFinding(f"{start} Largest difference in {text}.", limits=False))
        if not errors.gaps:
            text = f"By {column}, there are no two groups to compare {clean_name(model.name)} on."
            findings.append(ModelFinding(text, limits=False))
    return findings


def describe_undecided(models: Sequence[ModelResult], sets: Sequence[ReportSet]) -> list[ModelFinding]:
    """Count the frames without a face, or that could not be read; they are part of no metric.

    Args:
        models: The models of the results.
        sets: The sets of the results.

    Returns:
        A finding for each set that has such frames, and one for all other sets.
    """
    findings: list[ModelFinding] = []
    whole: list[str] = []
    for dataset in sets:
        count, total, reasons = _count_undecided(models, dataset)
        if count is None or total is None:
            continue
        if count == 0:
            whole.append(dataset.title)
        else:
            why = "; ".join(f"{clean_name(reason)}: {number:,}" for reason, number in reasons.items())
            text = (
                f"On {dataset.title} {count:,} of {total:,} frames ({describe_share(count / max(total, 1))}) have no "
                f"decision{f' ({why})' if why else ''}: they are part of no metric."
            )
            findings.append(ModelFinding(text, limits=True))
    all_of = [ModelFinding(f"Every frame of {join(whole)} has a decision.", limits=False)] if whole else []
    return findings + all_of


def _count_undecided(
    models: Sequence[ModelResult], dataset: ReportSet
) -> tuple[int | None, int | None, dict[str, int]]:
    """Count frames without a decision and all frames, with the reasons; of several models the one with most of them."""
    if dataset.about is not None:
        reasons = dict(dataset.about.without_decision)
        return sum(reasons.values()), dataset.about.frames, reasons
    counts = [(dataset.count(m, "frame_count_without_decision"), dataset.count(m, "frame_count")) for m in models]
    known = [(without, without + decided) for without, decided in counts if without is not None and decided is not None]
    return (*max(known), {}) if known else (None, None, {})


def _describe_errors(estimate: MetricValue, dataset: ReportSet, model: ModelResult, kind: str, where: str) -> str:
    """Format an error rate, `2.3 % [...] of the real frames`; where it is 0, also how many there may still be."""
    count = dataset.count(model, f"frame_count_{kind}")
    frames = (f"{kind} frames" if count is None else format_count_of(count, f"{kind} frame")) + where
    if estimate.value not in (0.0, 1.0):
        return f"{describe_rate(estimate)} of {'the ' if count is None else ''}{frames}"
    if count == 1:
        which = f"{'not ' if estimate.value == 0.0 else ''}the only {kind} frame{where}"
    else:
        which = f"none of the {frames}" if estimate.value == 0.0 else f"all of the {frames}"
    if estimate.low is None or estimate.high is None or is_of_few(estimate):
        return f"{which} (inconclusive, too few)"
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
    return words.get(side, f" (inconclusive against {wanted[1]} %)")


def _describe_prevalence(model: ModelResult, dataset: ReportSet) -> str:
    real, fake = (dataset.count(model, f"frame_count_{kind}") for kind in ("real", "fake"))
    if real is None or fake is None or real + fake == 0:
        return ", where fakes are as frequent as here"
    return f", where fakes are as frequent as here ({describe_share(fake / (real + fake))})"
