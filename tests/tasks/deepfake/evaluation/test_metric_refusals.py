"""Metrics that a set does not have: absent with a note, or an error that names samples; never a made-up number."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scored_sets import compute, draw_frames, find_decided, take
from sharpstudent.metrics.checks import MetricError
from sharpstudent.tasks.deepfake.evaluation.set_metrics import compute_set_metrics


def test_frames_without_a_decision_are_counted_and_never_scored() -> None:
    frames = draw_frames(has_undecided=False)
    decided = np.ones(len(frames), np.bool_)
    decided[[0, 1, 2, 3, 4, 7]] = False  # the whole of a real clip, and a frame of the next
    margins = frames.margins.copy()
    margins[~decided] = [math.nan, 0.0, 1e9, -1e9, math.inf, 0.5]
    found = compute(replace(frames, margins=margins, decided=decided))
    without = compute(take(frames, np.flatnonzero(decided)))
    counted = {n: v for n, v in found.values.items() if "without_decision" in n and v}
    assert counted == {
        **{f"frame_count_without_decision{s}": 6 for s in ("", "@a")},
        **{f"video_count_without_decision{s}": 1 for s in ("", "@a")},
        "frame_count_without_decision@a/mask": 5,
        "frame_count_without_decision@a/swap": 6,
        "video_count_without_decision@a/mask": 1,
        "video_count_without_decision@a/swap": 1,
    }
    assert {n: v for n, v in found.values.items() if "without" not in n} == {
        n: v for n, v in without.values.items() if "without" not in n
    }
    assert found.intervals == without.intervals


def test_no_decision_at_all_is_an_error_that_names_frames() -> None:
    frames = draw_frames()
    with pytest.raises(MetricError, match=r"no face was found in any of 240 frames \(000/0, 000/1, .* and 235 more\)"):
        compute_set_metrics(replace(frames, decided=np.zeros(len(frames), np.bool_)))


def test_a_part_of_one_class_has_the_metrics_that_it_can_have_and_a_note_for_the_others() -> None:
    frames = draw_frames(has_undecided=False)
    only_reals_in_b = take(frames, [i for i in range(240) if frames.sources[i] == "a" or frames.labels[i] == 0])
    found = compute(only_reals_in_b)
    assert {n for n in found.values if n.startswith("frame_") and n.endswith("@b") and "count" not in n} == {
        f"frame_{name}@b"
        for name in (
            "accuracy_at_half",
            "bpcer_at_half",
            "accuracy_at_eer",
            "bpcer_at_eer",
            "brier",
            "ece",
            "ece_expected",
            "ece_p_value",
            "log_loss",
        )
    }
    assert found.notes["frame_auc@b"] == found.notes["video_eer_max@b"] == "no value: no fakes"
    assert found.notes["frame_brier@b"] == "no interval: one class only"
    assert "frame_auc@b/swap" not in found.notes


def test_a_part_of_one_person_has_metrics_and_no_interval() -> None:
    frames = draw_frames(has_undecided=False)
    groups = ["one" if s == "b" else g for s, g in zip(frames.sources, frames.groups, strict=True)]
    found = compute(replace(frames, groups=groups))
    assert "frame_auc@b" in found.values
    assert "frame_auc@b" not in found.intervals
    assert found.notes["frame_auc@b"] == "no interval: fewer than two people"
    assert found.notes["frame_tpr_at_fpr_1pct@b"].endswith("; no interval: fewer than two people")
    assert "frame_auc" in found.intervals


def test_a_rate_over_too_few_reals_has_a_note() -> None:
    found = compute_set_metrics(draw_frames(has_undecided=False))
    assert found.values["frame_count_real"] == 100
    assert "frame_tpr_at_fpr_1pct" not in found.notes
    assert "100 reals, where 1000 are needed" in found.notes["frame_tpr_at_fpr_0.1pct"]
    assert "40 reals, where 100 are needed" in found.notes["frame_tpr_at_fpr_1pct@a/swap"]


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("margins", math.nan, r"scores that are not finite: 000/1 \(nan\)"),
        ("labels", 2, r"neither 0 nor 1: 000/1 \(2\)"),
        ("labels", 1, r"1 of 48 clips have more than one label: a/000 \(000/0 real and 000/1 fake\)"),
        ("groups", "other", r"more than one person: a/000 \(000/0 person 0 and 000/1 other\)"),
        ("sample_ids", "000/0", r"1 of 240 samples are there twice: a: 000/0$"),
    ],
)
def test_impossible_columns_are_an_error_that_names_samples(column: str, value: object, words: str) -> None:
    frames = draw_frames(has_undecided=False)
    changed = getattr(frames, column).copy()
    changed[1] = value
    with pytest.raises(MetricError, match=words):
        compute_set_metrics(replace(frames, **{column: changed}))


def test_a_clip_with_two_kinds_of_fake_is_refused() -> None:
    frames = draw_frames(has_undecided=False)
    kinds = list(frames.manipulations)
    kinds[5] = "mask"
    with pytest.raises(MetricError, match=r"more than one manipulation: a/001 \(001/0 mask and 001/1 swap\)"):
        compute_set_metrics(replace(frames, manipulations=kinds))


def test_pairs_of_a_photo_and_its_fake_share_a_clip_where_no_videos_are_asked_for() -> None:
    frames = draw_frames(has_undecided=False)
    pairs = replace(frames, clip_ids=["photo"] * len(frames))
    found = compute_set_metrics(pairs, aggregations=())
    assert found.values["frame_auc"] == compute_set_metrics(frames).values["frame_auc"]
    assert not any(name.startswith("video_") for name in found.values)
    with pytest.raises(MetricError, match="more than one label"):
        compute_set_metrics(pairs)


def test_an_empty_set_one_class_and_columns_that_differ_are_refused() -> None:
    frames = draw_frames(has_undecided=False)
    with pytest.raises(MetricError, match="no samples"):
        compute_set_metrics(take(frames, []))
    with pytest.raises(MetricError, match=r"all 100 samples have label 0 \(000/0, "):
        compute_set_metrics(take(frames, np.flatnonzero(frames.labels == 0)))
    with pytest.raises(MetricError, match="columns of scored frames differ in length"):
        replace(frames, groups=["one"])
    with pytest.raises(MetricError, match="a source cannot be named 'x/y'"):
        compute_set_metrics(replace(find_decided(frames, source="b"), sources=["x/y"] * 120))


def test_a_fake_without_manipulation_is_reported_as_unnamed_and_that_of_a_real_is_ignored() -> None:
    frames = find_decided(draw_frames(has_undecided=False), source="b")
    kinds = ["" if label else "anything" for label in frames.labels]
    assert "frame_auc@b/unnamed" in compute_set_metrics(replace(frames, manipulations=kinds)).values


def test_a_threshold_that_is_not_finite_is_refused() -> None:
    with pytest.raises(MetricError, match="threshold must be finite"):
        compute_set_metrics(draw_frames(), thresholds={"frame": {"eer": math.nan}})
