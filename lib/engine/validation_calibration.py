"""What a checkpoint says of its own scores: the temperature that mends them and the thresholds to decide by, both
chosen on the validation of its run and on nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lib.engine.findings import describe_temperature
from lib.metrics.calibration import compute_ece, compute_log_loss, fit_temperature
from lib.metrics.figure_list import FPRS
from lib.metrics.group_sums import to_logits
from lib.metrics.operating_points import choose_operating_points
from lib.metrics.scored import ScoredFrames
from lib.report.build import choose_rules
from lib.report.results import CalibrationResult, OperatingPointResult

MOST_KINDS = 4  # of fakes that are named


def calibrate_on_validation(
    frames: ScoredFrames, *, where: str = "validation of this run", fprs: Sequence[float] = FPRS
) -> CalibrationResult:
    """Temperature scaling (Guo et al. 2017) of single frames, and operating points of frames; of videos too where a
    clip has more frames than one. Thresholds are log-odds before the temperature.

    where: what the frames are; fprs: wanted shares of reals called fake, 0..1, that get a threshold each. Raises
    MetricError as `choose_operating_points` does: for scores that are not finite, one class, no decision at all.
    """
    # First: it checks the frames.
    points = choose_operating_points(frames, fprs=fprs, aggregations=choose_rules(frames))
    is_decided = slice(None) if frames.decided is None else frames.decided
    logits, labels = to_logits(frames.margins[is_decided]), frames.labels[is_decided]
    temperature = fit_temperature(logits, labels)
    return CalibrationResult(
        fitted_on=f"{where}: {describe_frames(frames)}",
        temperature=temperature,
        note=describe_temperature(temperature),
        log_loss=(compute_log_loss(logits, labels), compute_log_loss(logits / temperature, labels)),
        ece=(compute_ece(logits, labels), compute_ece(logits / temperature, labels)),
        operating_points={
            level: {name: OperatingPointResult(**vars(point)) for name, point in named.items()}
            for level, named in points.items()
        },
    )


def describe_frames(frames: ScoredFrames) -> str:
    """`640 frames of 26 people, 320 real, 320 fake (self-blend)`; without a decision: counted too."""
    fakes = Counter(kind for kind, label in zip(frames.manipulations, frames.labels, strict=True) if label == 1)
    named = [kind for kind, _ in fakes.most_common(MOST_KINDS) if kind not in ("", "fake")]
    more = [f"{len(fakes) - MOST_KINDS} more kinds"] if len(fakes) > MOST_KINDS else []
    kinds = f" ({', '.join([*named, *more])})" if named else ""
    people = len(set(zip(frames.sources, frames.groups, strict=True)))
    return f"{len(frames)} frames of {people} people, {len(frames) - fakes.total()} real, {fakes.total()} fake{kinds}"
