"""What predict.py makes of the frames of a person by each rule, and the thresholds that hold for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sharpstudent.core.types import Answer, Table
from sharpstudent.tasks.deepfake.answer import describe_faces

MARGINS = np.linspace(-3.0, 3.0, 20)


def make_points(threshold: float) -> dict[str, Any]:
    return {"fpr_1pct": {"threshold": threshold, "tpr": 0.6, "fpr": 0.01}}


def make_calibration(**levels: float) -> dict[str, Any]:
    points = {level: make_points(threshold) for level, threshold in levels.items()}
    return {"temperature": 2.0, "fitted_on": "own", "operating_points": points}


def list_tables(people: int = 1) -> Iterator[Table]:
    """A frame for each margin; everybody in it stands still, and the second person scores 1 lower."""
    for frame, margin in enumerate(MARGINS.tolist()):
        boxes, pictures = np.empty(people, object), np.empty(people, object)
        boxes[:] = [(200.0 * i, 0.0, 200.0 * i + 100.0 - i, 100.0) for i in range(people)]
        pictures[:] = [b"jpeg"] * people
        yield {
            "id": np.array([str(frame)] * people),
            "frame": np.array([frame] * people),
            "second": np.array([frame / 25] * people),
            "box": boxes,
            "picture": pictures,
            "logits": np.array([[0.0, margin - i] for i in range(people)]),
        }


def answer(*, people: int = 1, calibration: dict[str, Any] | None = None, **asked: Any) -> Answer:
    stored = {"calibration": make_calibration(frame=0.0) if calibration is None else calibration, "asked": asked}
    *_, last = describe_faces(list_tables(people), stored)
    return last


def to_probabilities(margins: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-margins))


def to_margin(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


@pytest.mark.parametrize(
    ("rule", "margin"),
    [
        (None, to_margin(to_probabilities(MARGINS).mean())),
        ("mean", to_margin(to_probabilities(MARGINS).mean())),
        ("max", 3.0),
        ("top10", to_margin(to_probabilities(MARGINS[-2:]).mean())),
        ("top5frames", to_margin(to_probabilities(MARGINS[-5:]).mean())),
        ("mean_margin", 0.0),
    ],
)
def test_the_score_of_a_person_is_that_of_the_rule(rule: str | None, margin: float) -> None:
    calibration = make_calibration(**{f"video_{rule or 'mean'}": 0.0})
    (person,) = answer(calibration=calibration, video_rule=rule).details["people"]
    assert person["margin"] == pytest.approx(margin, abs=1e-12)
    assert person["probability"] == pytest.approx(to_probabilities(np.array(margin / 2)), abs=1e-6)


def test_the_thresholds_are_those_of_the_same_rule() -> None:
    """The maximum is 3: fake by the mean's threshold, which does not hold for it, and no sign by its own."""
    calibration = make_calibration(frame=-5.0, video_mean=2.0, video_max=4.0)
    found = answer(calibration=calibration, video_rule="max")
    assert (found.outcome, found.details["thresholds"]["level"]) == ("no_sign", "video_max")
    assert answer(calibration=calibration).details["thresholds"]["level"] == "video_mean"
    assert any("Scores are those of videos by max" in reason for reason in found.reasons)
    assert not any("Scores are those" in reason for reason in answer(calibration=calibration).reasons)


def test_thresholds_of_single_pictures_stand_in_for_the_mean_and_for_no_other_rule() -> None:
    assert answer().details["thresholds"]["level"] == "frame"
    found = answer(video_rule="top10")
    assert found.outcome == "inconclusive"
    assert "no thresholds of videos by top10 are stored" in found.sentence
    assert any("--validation SET --store --video-rules top10" in reason for reason in found.reasons)


def test_thresholds_without_views_do_not_hold_with_them() -> None:
    found = answer(views="flip")
    assert found.outcome == "inconclusive"
    assert "no thresholds in the views flip are stored" in found.sentence
    assert any("--store --views flip" in reason for reason in found.reasons)
    stored = {"calibration_of_views": {"flip": make_calibration(frame=-1.0)}, "asked": {"views": "flip"}}
    *_, held = describe_faces(list_tables(), stored)
    assert held.outcome == "fake_likely"


def test_each_person_is_scored_by_the_rule_and_the_likeliest_fake_decides() -> None:
    found = answer(people=2, calibration=make_calibration(frame=0.0, video_max=2.5), video_rule="max")
    assert [one["margin"] for one in found.details["people"]] == [3.0, 2.0]
    assert [one["outcome"] for one in found.details["people"]] == ["fake_likely", "no_sign"]
    assert found.outcome == "fake_likely"
