"""What a checkpoint says of its own scores: against closed forms, and small enough to stand beside it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sharpstudent.metrics.checks import MetricError
from sharpstudent.tasks.deepfake.evaluation.calibration import calibrate_on_validation, describe_frames
from sharpstudent.tasks.deepfake.evaluation.frames import ScoredFrames
from sharpstudent.tasks.deepfake.report.results import CalibrationResult


def make_frames(
    margins: list[float], labels: list[int], *, clips: list[str] | None = None, kind: str = "self-blend"
) -> ScoredFrames:
    names = [f"frame {i}" for i in range(len(labels))]
    return ScoredFrames(
        margins=np.array(margins, np.float64),
        labels=np.array(labels, np.int64),
        sample_ids=names,
        clip_ids=names if clips is None else clips,
        groups=[f"person {i % 3}" for i in range(len(labels))],
        sources=["photos"] * len(labels),
        manipulations=[kind if label else "" for label in labels],
    )


def make_overconfident(temperature: float, count: int = 4000) -> ScoredFrames:
    """Margins that are `temperature` times those whose sigmoid the labels were drawn from."""
    rng = np.random.default_rng(0)
    true = rng.normal(0.0, 2.0, count)
    labels = (rng.random(count) < 1 / (1 + np.exp(-true))).astype(int)
    return make_frames((temperature * true).tolist(), labels.tolist())


@pytest.mark.parametrize("temperature", [0.2, 1.0, 3.0, 20.0])
def test_the_temperature_that_spoiled_the_scores_is_found(temperature: float) -> None:
    found = calibrate_on_validation(make_overconfident(temperature))
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    assert found.note is None
    assert found.log_loss[1] <= found.log_loss[0]
    assert found.ece[1] < 0.03


def test_log_loss_and_ece_before_are_those_of_the_scores_themselves() -> None:
    """Four frames at a probability of 0.9 for fake, one of them real: mean of -log p, and |0.75 - 0.9|."""
    odds = float(np.log(9.0))
    found = calibrate_on_validation(make_frames([odds] * 4, [1, 1, 1, 0]))
    assert found.log_loss[0] == pytest.approx(-(3 * np.log(0.9) + np.log(0.1)) / 4, abs=1e-12)
    assert found.ece[0] == pytest.approx(0.15, abs=1e-12)
    assert found.temperature == pytest.approx(2.0, abs=1e-6)  # 9 to 1 is 3 to 1, squared
    assert found.ece[1] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("margins", "temperature", "words"),
    [([-3.0, -2.0, 2.0, 3.0], 0.01, "no sample is on the wrong side"), ([3.0, 2.0, -2.0, -3.0], 1000.0, "wrong more")],
)
def test_a_temperature_at_a_bound_has_a_note(margins: list[float], temperature: float, words: str) -> None:
    found = calibrate_on_validation(make_frames(margins, [0, 0, 1, 1]))
    assert found.temperature == temperature
    assert found.note is not None
    assert words in found.note


def test_operating_points_are_thresholds_before_the_temperature() -> None:
    frames = make_overconfident(5.0)
    found = calibrate_on_validation(frames)
    for point in found.operating_points["frame"].values():
        is_called = frames.margins >= point.threshold
        assert is_called[frames.labels == 1].mean() == point.tpr
        assert is_called[frames.labels == 0].mean() == point.fpr
    assert set(found.operating_points["frame"]) == {"eer", "youden", "fpr_1pct", "fpr_0.1pct"}
    assert found.operating_points["frame"]["fpr_1pct"].fpr <= 0.01


def test_videos_have_points_only_where_a_clip_has_more_frames_than_one() -> None:
    margins, labels = [-3.0, -2.0, 2.0, 3.0], [0, 0, 1, 1]
    assert list(calibrate_on_validation(make_frames(margins, labels)).operating_points) == ["frame"]
    frames = replace(make_frames(margins, labels), clip_ids=["a", "a", "b", "b"], groups=["p"] * 4)
    found = calibrate_on_validation(frames)
    assert list(found.operating_points) == ["frame", "video_mean", "video_max", "video_top10"]


def test_what_it_was_fitted_on_is_told_in_words() -> None:
    frames = make_frames([-1.0, 0.0, 1.0, 2.0, 3.0, 4.0], [0, 0, 1, 1, 1, 0])
    found = calibrate_on_validation(frames)
    assert found.fitted_on == "validation of this run: 6 frames of 3 people, 3 real, 3 fake (self-blend)"
    assert describe_frames(replace(frames, manipulations=["fake"] * 6)) == "6 frames of 3 people, 3 real, 3 fake"
    kinds = [f"kind {i}" for i in range(6)]
    many = replace(frames, manipulations=kinds, labels=np.ones(6, np.int64))
    assert describe_frames(many).endswith("6 fake (kind 0, kind 1, kind 2, kind 3, 2 more kinds)")


def test_frames_without_a_decision_decide_nothing() -> None:
    frames = make_overconfident(2.0, count=500)
    more = make_frames([float("nan")] * 3, [0, 1, 1])
    columns = ("margins", "labels", "sample_ids", "clip_ids", "groups", "sources", "manipulations")
    joined = ScoredFrames(
        **{
            name: np.concatenate([getattr(frames, name), getattr(more, name)])
            if name in ("margins", "labels")
            else [*getattr(frames, name), *(f"{value}" for value in getattr(more, name))]
            for name in columns
            if name not in ("sample_ids", "clip_ids")
        },
        sample_ids=[*frames.sample_ids, "x", "y", "z"],
        clip_ids=[*frames.clip_ids, "x", "y", "z"],
        decided=np.array([True] * 500 + [False] * 3),
    )
    ours, theirs = calibrate_on_validation(joined), calibrate_on_validation(frames)
    assert ours.temperature == theirs.temperature
    assert ours.operating_points == theirs.operating_points


def test_it_is_small_whole_json_and_read_back_the_same() -> None:
    frames = make_overconfident(3.0, count=20_000)
    clips = [f"clip {label} {i // 40}" for i, label in enumerate(frames.labels)]
    found = calibrate_on_validation(replace(frames, clip_ids=clips, groups=["p"] * len(clips)))
    text = json.dumps(found.model_dump(mode="json"), allow_nan=False)
    assert len(text) < 3000  # bytes, beside a checkpoint of megabytes
    assert CalibrationResult.model_validate(json.loads(text)) == found


def test_scores_that_are_no_numbers_and_one_class_are_errors() -> None:
    with pytest.raises(MetricError, match="frame 1"):
        calibrate_on_validation(make_frames([0.0, float("nan")], [0, 1]))
    with pytest.raises(MetricError):
        calibrate_on_validation(make_frames([0.0, 1.0], [1, 1]))
