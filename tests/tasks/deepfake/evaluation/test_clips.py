"""Scores of clips from those of frames: each rule by hand, in any order of frames, also where probabilities round."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scored_sets import score_clips
from sharpstudent.metrics.checks import MetricError
from sharpstudent.tasks.deepfake.evaluation.frames import (
    MAX,
    MEAN,
    TOP10,
    Aggregation,
    ScoredFrames,
    aggregate,
    build_frame_table,
)

FRAMES = st.lists(st.tuples(st.integers(0, 3), st.floats(-30, 30)), min_size=1, max_size=40)
RULES = ["mean", "max", "top10", "top50", "top3frames", "mean_margin", "top50_margin", "top3frames_margin"]


def to_margin(probability: float) -> float:
    return math.log(probability / (1 - probability))


def to_probability(margin: float) -> float:
    return 1 / (1 + math.exp(-margin))


def average(margins: list[float], rule: str) -> float:
    """Of one clip, as a reader would."""
    highest = sorted(margins, reverse=True)
    kept = {
        "mean": len(highest),
        "max": 1,
        "top10": math.ceil(len(highest) / 10),
        "top50": math.ceil(len(highest) / 2),
        "top3frames": 3,
    }[rule.removesuffix("_margin")]
    chosen = highest[:kept]
    if rule.endswith("_margin"):
        return sum(chosen) / len(chosen)
    of_fake, of_real = (math.fsum(to_probability(s * m) for m in chosen) for s in (1, -1))
    return math.log(of_fake / of_real)


@pytest.mark.parametrize(
    ("rule", "expected"), [("mean", 0.5), ("max", 0.9), ("top50", 0.75), ("top1frames", 0.9), ("top9frames", 0.5)]
)
def test_cases_worked_by_hand(rule: str, expected: float) -> None:
    margins = [to_margin(p) for p in (0.9, 0.2, 0.6, 0.3)]
    _, found, _ = score_clips(margins, [1] * 4, ["a"] * 4, rule)
    assert found[0] == pytest.approx(to_margin(expected), abs=1e-12)


@pytest.mark.parametrize("rule", RULES)
@given(FRAMES)
def test_each_clip_is_averaged_as_by_hand_in_any_order_of_frames(rule: str, frames: list[tuple[int, float]]) -> None:
    clips, margins = [f"clip {c}" for c, _ in frames], [m for _, m in frames]
    names, found, labels = score_clips(margins, [c % 2 for c, _ in frames], clips, rule)
    assert names == sorted(set(clips))
    for clip, margin, label in zip(names, found, labels, strict=True):
        own = [m for c, m in zip(clips, margins, strict=True) if c == clip]
        assert margin == pytest.approx(average(own, rule), rel=1e-9, abs=1e-9)
        assert label == int(clip[-1]) % 2
    _, again, _ = score_clips(margins[::-1], [c % 2 for c, _ in frames][::-1], clips[::-1], rule)
    assert again.tolist() == found.tolist()


def test_where_probabilities_round_to_one_and_zero_clips_still_differ() -> None:
    margins = np.array([50.0, 60.0, 50.0, 70.0, -800.0, -900.0])
    found = aggregate(margins, np.array([0, 0, 1, 1, 2, 2]), MEAN)
    assert 50.0 < found[0] < found[1] < 51.0  # the mean of 1 - p is half of exp(-50), whatever is smaller
    assert found[2] == pytest.approx(-800.0 - math.log(2), abs=1e-9)


def test_a_clip_of_one_frame_has_its_score_by_every_rule() -> None:
    margins = np.array([-40.0, -1.0, 0.0, 0.3, 12.0, 700.0])
    for rule in RULES:
        np.testing.assert_allclose(aggregate(margins, np.arange(6), Aggregation(rule)), margins, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("frames", "kept"), [(1, 1), (9, 1), (10, 1), (11, 2), (30, 3), (100, 10)])
def test_a_share_is_rounded_up_and_exact(frames: int, kept: int) -> None:
    assert TOP10.count_kept(np.array([frames])).tolist() == [kept]


def test_the_highest_100_percent_are_all_frames() -> None:
    margins, clips = np.array([0.1, 2.0, -3.0, 0.4]), np.array([0, 0, 0, 1])
    assert aggregate(margins, clips, Aggregation("top100")).tolist() == aggregate(margins, clips, MEAN).tolist()
    assert aggregate(margins, clips, MAX).tolist() == [2.0, 0.4]


@pytest.mark.parametrize("name", ["median", "", "top", "top0", "top-1", "top1.5", "max_margin", "mean_", "Mean"])
def test_unknown_rules_are_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(MetricError, match="known: mean, max, top10"):
        Aggregation(name)


def test_a_share_above_100_percent_is_refused_with_a_suggestion() -> None:
    with pytest.raises(MetricError, match="for a number write top101frames"):
        Aggregation("top101")


def test_a_clip_with_two_labels_is_an_error_that_names_it_and_a_frame_of_each() -> None:
    frames = ScoredFrames(
        margins=np.array([0.1, 0.2, 0.3, 0.4]),
        labels=np.array([0, 1, 0, 0]),
        sample_ids=["x/0", "x/1", "y/0", "x/2"],
        clip_ids=["x", "x", "y", "x"],
        groups=["p"] * 4,
        sources=["s"] * 4,
        manipulations=["fake"] * 4,
    )
    with pytest.raises(MetricError) as caught:
        build_frame_table(frames)
    assert str(caught.value) == "1 of 2 clips have more than one label: s/x (x/0 real and x/1 fake)"
