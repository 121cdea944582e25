"""All metrics of a set: each equals its own function, whatever the order of frames and their split over sets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scored_sets import THRESHOLDS, compute, draw_frames, find_decided, score_clips, take
from sharpstudent.core.types import Table
from sharpstudent.metrics.binary import (
    compute_accuracy,
    compute_auc,
    compute_average_precision,
    compute_balanced_accuracy,
    compute_eer,
    compute_fnr,
    compute_fpr,
    compute_tpr_at_fpr,
    to_logits,
)
from sharpstudent.metrics.bootstrap import compute_interval
from sharpstudent.metrics.calibration import compute_brier, compute_ece, compute_log_loss
from sharpstudent.metrics.checks import MetricError
from sharpstudent.metrics.curves import choose_thresholds
from sharpstudent.metrics.metric import make_binary_metric
from sharpstudent.tasks.deepfake.evaluation.calibration import choose_operating_points
from sharpstudent.tasks.deepfake.evaluation.frames import (
    MAX,
    MEAN,
    ScoredFrames,
    join_frames,
)
from sharpstudent.tasks.deepfake.evaluation.set_metrics import Resampling, compute_set_metrics


def find_worst(margins: NDArray[np.float64], labels: NDArray[np.int64], kinds: list[str], threshold: float) -> float:
    """The largest share of missed fakes of any kind."""
    missed: dict[str, list[bool]] = {}
    for margin, label, kind in zip(margins, labels, kinds, strict=True):
        if label == 1:
            missed.setdefault(kind, []).append(bool(margin < threshold))
    return max(sum(each) / len(each) for each in missed.values())


def compute_by_hand(
    margins: NDArray[np.float64], labels: NDArray[np.int64], kinds: list[str], thresholds: dict[str, float]
) -> dict[str, float]:
    found = {
        "auc": compute_auc(margins, labels),
        "ap": compute_average_precision(margins, labels),
        "eer": compute_eer(margins, labels),
        "tpr_at_fpr_1pct": compute_tpr_at_fpr(margins, labels, wanted=0.01),
        "tpr_at_fpr_0.1pct": compute_tpr_at_fpr(margins, labels, wanted=0.001),
        "brier": compute_brier(to_logits(margins), labels),
        "ece": compute_ece(to_logits(margins), labels),
        "log_loss": compute_log_loss(to_logits(margins), labels),
    }
    for name, threshold in thresholds.items():
        found |= {
            f"accuracy_at_{name}": compute_accuracy(margins, labels, threshold=threshold),
            f"balanced_accuracy_at_{name}": compute_balanced_accuracy(margins, labels, threshold=threshold),
            f"apcer_at_{name}": compute_fnr(margins, labels, threshold=threshold),
            f"bpcer_at_{name}": compute_fpr(margins, labels, threshold=threshold),
            f"worst_apcer_at_{name}": find_worst(margins, labels, kinds, threshold),
        }
    return found


@pytest.mark.parametrize(
    ("suffix", "source", "kind"),
    [("", None, None), ("@a", "a", None), ("@b", "b", None), ("@a/swap", "a", "swap"), ("@a/mask", "a", "mask")],
)
def test_each_frame_metric_equals_its_function_on_the_subset(suffix: str, source: str | None, kind: str | None) -> None:
    frames = draw_frames()
    values = compute_set_metrics(frames, thresholds=THRESHOLDS).values
    part = find_decided(frames, source=source, kind=kind)
    kinds = [f"{s}/{k}" for s, k in zip(part.sources, part.manipulations, strict=True)]
    expected = compute_by_hand(part.margins, part.labels, kinds, {"half": 0.0, "eer": 0.4})
    if kind is not None:
        expected = {name: value for name, value in expected.items() if not name.startswith("worst_")}
    found = {name: values[f"frame_{name}{suffix}"] for name in expected}
    assert found == pytest.approx(expected, abs=1e-12)
    assert (f"frame_worst_apcer_at_half{suffix}" in values) == (kind is None)


@pytest.mark.parametrize("rule", ["mean", "max", "top10"])
def test_each_video_metric_equals_its_function_on_the_clips(rule: str) -> None:
    frames = draw_frames()
    values = compute_set_metrics(frames, thresholds=THRESHOLDS).values
    part = find_decided(frames, source="a")
    clips, margins, labels = score_clips(part.margins, part.labels, part.clip_ids, rule)
    kind_of = dict(zip(part.clip_ids, part.manipulations, strict=True))
    thresholds = {"half": 0.0, **({"eer": 0.2} if rule == "mean" else {})}
    expected = compute_by_hand(margins, labels, [kind_of[clip] for clip in clips], thresholds)
    assert {name: values[f"video_{name}_{rule}@a"] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert (f"video_accuracy_at_eer_{rule}" in values) == (rule == "mean")


def test_frames_are_metrics_of_accuracy_at_a_probability_of_one_half() -> None:
    frames = draw_frames(has_undecided=False)
    probability = 1 / (1 + np.exp(-frames.margins))
    expected = compute_accuracy(probability, frames.labels, threshold=0.5)
    assert compute_set_metrics(frames).values["frame_accuracy_at_half"] == expected


def test_every_metric_but_counts_and_the_worst_kind_has_an_interval_around_it() -> None:
    found = compute(draw_frames())
    without = {
        name for name in found.values if any(word in name for word in ("count", "worst", "_expected", "p_value"))
    }
    assert set(found.intervals) == set(found.values) - without
    for name, interval in found.intervals.items():
        assert interval.value == found.values[name]
        assert interval.low <= interval.high
    auc = found.intervals["frame_auc"]
    assert auc.low < auc.value < auc.high


AUC = make_binary_metric("auc", lambda table: table["margin"])


def make_table(frames: ScoredFrames, groups: Sequence[str]) -> Table:
    names = np.array(frames.sample_ids)
    return {"id": names, "group": np.array(groups), "label": frames.labels, "margin": frames.margins}


def test_the_interval_of_a_source_is_that_of_the_plain_bootstrap_over_its_people() -> None:
    frames = draw_frames()
    part = find_decided(frames, source="b")
    options = {"rounds": 20, "seed": 0}
    expected = compute_interval(AUC, make_table(part, part.groups), **options)
    found = compute(frames).intervals["frame_auc@b"]
    assert (found.value, found.low, found.high) == pytest.approx(
        (expected.value, expected.low, expected.high), abs=1e-12
    )


def test_people_and_clips_of_two_sources_are_never_the_same() -> None:
    frames = draw_frames(has_undecided=False)
    renamed = replace(
        frames,
        groups=[f"{s} {g}" for s, g in zip(frames.sources, frames.groups, strict=True)],
        clip_ids=[f"{s} {c}" for s, c in zip(frames.sources, frames.clip_ids, strict=True)],
    )
    assert compute(renamed) == compute(frames)
    assert compute(frames).values["video_count"] == 48
    assert compute(frames).values["people_count"] == 24


def test_intervals_are_computed_only_on_request() -> None:
    frames = draw_frames()
    assert compute_set_metrics(frames).intervals == {}
    some = Resampling(rounds=20, metrics=("auc", "ece"), of_parts=False)
    assert set(compute_set_metrics(frames, aggregations=[MEAN], resampling=some).intervals) == {
        "frame_auc",
        "frame_ece",
        "video_auc_mean",
        "video_ece_mean",
    }
    with pytest.raises(ValueError, match="rounds must be >= 1"):
        Resampling(rounds=0)


@pytest.mark.parametrize("seed", range(3))
def test_neither_the_order_of_frames_nor_their_sharing_out_changes_a_bit_of_any_metric(seed: int) -> None:
    frames = draw_frames(seed=seed)
    expected = compute(frames)
    order = np.random.default_rng(seed).permutation(len(frames))
    shuffled = take(frames, order)
    assert compute(shuffled) == expected
    by_two_processes = join_frames([take(frames, order[0::2]), take(frames, order[1::2])])
    assert compute(by_two_processes) == expected
    one_decides_all = [take(frames, range(0, 30)), replace(take(frames, range(30, len(frames))))]
    assert compute(join_frames(one_decides_all[::-1])) == expected


def test_parts_that_say_nothing_of_decisions_are_decided() -> None:
    frames = draw_frames(has_undecided=False)
    parts = [take(frames, range(0, 100)), replace(take(frames, range(100, 240)), decided=np.ones(140, np.bool_))]
    joined = join_frames(parts)
    assert joined.decided.all()
    assert compute(joined) == compute(frames)
    assert parts[0].decided.all()
    with pytest.raises(MetricError, match="no parts"):
        join_frames([])


def test_metric_names_do_not_depend_on_the_scores() -> None:
    one, other = compute(draw_frames(seed=0)), compute(draw_frames(seed=1))
    assert list(one.values) == list(other.values)
    json.dumps(one.values, allow_nan=False)


def test_one_source_with_one_kind_of_fake_has_the_same_metrics_three_times() -> None:
    frames = find_decided(draw_frames(has_undecided=False), source="b")
    found = compute(frames)
    for name in ("frame_auc", "video_eer_mean", "frame_ece"):
        assert len({found.values[f"{name}{s}"] for s in ("", "@b", "@b/swap")}) == 1
        assert len({found.intervals[f"{name}{s}"] for s in ("", "@b", "@b/swap")}) == 1
    whole_only = compute_set_metrics(frames, resampling=Resampling(rounds=5, of_parts=False))
    assert all("@" not in name for name in whole_only.intervals)


def test_the_same_kind_of_fake_in_two_sources_is_two_kinds() -> None:
    frames = draw_frames(has_undecided=False)
    margins = np.where(np.array(frames.sources) == "a", 5.0, -5.0)
    values = compute_set_metrics(replace(frames, margins=margins)).values
    assert values["frame_worst_apcer_at_half"] == values["frame_worst_apcer_at_half@b"] == 1.0
    assert values["frame_worst_apcer_at_half@a"] == values["frame_apcer_at_half@a/swap"] == 0.0


def test_operating_points_are_those_of_each_level_and_serve_as_thresholds() -> None:
    validation, test = draw_frames(seed=1), draw_frames(seed=2)
    points = choose_operating_points(validation, fprs=[0.2], aggregations=[MEAN, MAX])
    assert list(points) == ["frame", "video_mean", "video_max"]
    part = find_decided(validation)
    assert points["frame"]["eer"] == choose_thresholds(part.margins, part.labels, fprs=[])["eer"]
    names = [f"{s}/{c}" for s, c in zip(part.sources, part.clip_ids, strict=True)]
    _, margins, labels = score_clips(part.margins, part.labels, names, "max")
    assert points["video_max"]["fpr_20pct"] == choose_thresholds(margins, labels, fprs=[0.2])["fpr_20pct"]
    thresholds = {level: {n: point.threshold for n, point in named.items()} for level, named in points.items()}
    on_validation = compute_set_metrics(validation, thresholds=thresholds, aggregations=[MEAN, MAX]).values
    assert on_validation["video_bpcer_at_fpr_20pct_max"] == points["video_max"]["fpr_20pct"].fpr
    assert on_validation["frame_apcer_at_eer"] == pytest.approx(1 - points["frame"]["eer"].tpr, abs=1e-12)
    on_test = compute_set_metrics(test, thresholds=thresholds, aggregations=[MEAN, MAX]).values
    assert "video_apcer_at_fpr_20pct_mean" in on_test
