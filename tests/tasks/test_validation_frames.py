"""Validation scores as scored frames: clips and people that figures of videos can be made of, whatever the source."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sharpstudent.evaluation.task import Scores
from sharpstudent.metrics.binary import compute_accuracy, compute_auc, compute_average_precision, compute_eer
from sharpstudent.metrics.checks import MetricError
from sharpstudent.metrics.tables import ScoredFrames
from sharpstudent.metrics.thresholds import choose_operating_points
from sharpstudent.tasks.deepfake.section import DeepfakeSection
from sharpstudent.tasks.deepfake.task import DeepfakeTask

BLENDED = DeepfakeTask(DeepfakeSection(data_source="ffpp"))
LABELLED = DeepfakeTask(DeepfakeSection(data_source="manifest", fakes="labels"))


def make_scores(rows: list[tuple[str, str, str, int, float]]) -> Scores:
    """Rows of (sample, clip, person, label, margin)."""
    samples, clips, people, labels, margins = zip(*rows, strict=True)
    logits = np.stack([-np.array(margins) / 2, np.array(margins) / 2], axis=1).astype(np.float32)
    return Scores(logits, np.array(labels, np.int64), samples, clips, people)


def make_blended(clips: int = 6, frames: int = 3, seed: int = 0) -> Scores:
    """A real and a blend of each frame, all reals before all blends."""
    rng = np.random.default_rng(seed)
    rows = [
        (f"{clip}/{i}#{'blend0' if label else 'real0'}", f"clip {clip}", f"person {clip // 2}", label, margin)
        for label in (0, 1)
        for clip in range(clips)
        for i in range(frames)
        for margin in [float(rng.normal() + label)]
    ]
    return make_scores(rows)


def test_a_self_blended_fake_of_a_clip_is_a_clip_of_its_own_and_of_the_same_person() -> None:
    frames = BLENDED.to_frames(make_blended(clips=2, frames=1))
    assert list(frames.clip_ids) == ["clip 0", "clip 1", "clip 0#blend", "clip 1#blend"]
    assert len(set(frames.groups)) == 1
    assert list(frames.manipulations) == ["", "", "self-blend", "self-blend"]
    assert set(frames.sources) == {"ffpp"}
    assert list(frames.sample_ids) == ["0/0#real0", "1/0#real0", "0/0#blend0", "1/0#blend0"]


def test_the_margins_are_those_of_the_logits_to_the_last_bit() -> None:
    scores = make_blended()
    frames = BLENDED.to_frames(scores)
    assert frames.margins.tobytes() == scores.margin.tobytes()
    assert frames.labels.tolist() == scores.labels.tolist()


def test_the_video_auc_is_that_of_the_mean_probability_of_each_clip() -> None:
    scores = make_blended(clips=9, frames=4, seed=3)
    keys = sorted(set(zip(scores.clip_ids, scores.labels.tolist(), strict=True)))
    of_row = list(zip(scores.clip_ids, scores.labels.tolist(), strict=True))
    means = [scores.fake_probability[[row == key for row in of_row]].mean() for key in keys]
    found = BLENDED.compute_metrics(scores)["val_video_auc"]
    assert found == pytest.approx(compute_auc(means, [label for _, label in keys]), abs=1e-12)
    assert found != compute_auc(scores.margin, scores.labels)


def test_figures_of_pictures_are_those_of_all_scores_and_come_in_a_fixed_order() -> None:
    scores = make_blended(seed=5)
    assert BLENDED.compute_metrics(scores) == {
        "val_auc": compute_auc(scores.margin, scores.labels),
        "val_accuracy": compute_accuracy(scores.fake_probability, scores.labels, threshold=0.5),
        "val_ap": compute_average_precision(scores.margin, scores.labels),
        "val_eer": compute_eer(scores.margin, scores.labels),
        "val_video_auc": BLENDED.compute_metrics(scores)["val_video_auc"],
    }
    assert list(BLENDED.compute_metrics(scores)) == ["val_auc", "val_accuracy", "val_ap", "val_eer", "val_video_auc"]


def test_the_order_of_the_scores_changes_no_figure() -> None:
    scores, order = make_blended(seed=1), np.random.default_rng(2).permutation(36)
    names = ("sample_ids", "clip_ids", "identities")
    mixed = Scores(
        scores.logits[order],
        scores.labels[order],
        *(tuple(np.array(getattr(scores, name))[order].tolist()) for name in names),
    )
    assert BLENDED.compute_metrics(mixed) == pytest.approx(BLENDED.compute_metrics(scores), abs=1e-12)


def test_a_picture_that_stands_in_for_an_unreadable_one_counts_once() -> None:
    scores = make_blended(clips=3)
    twice = Scores(
        np.concatenate([scores.logits, scores.logits[:1]]),
        np.append(scores.labels, scores.labels[0]),
        *((*names, names[0]) for names in (scores.sample_ids, scores.clip_ids, scores.identities)),
    )
    frames = BLENDED.to_frames(twice)
    assert list(frames.sample_ids) == list(scores.sample_ids)
    assert choose_operating_points(frames) == choose_operating_points(BLENDED.to_frames(scores))


def test_labelled_clips_keep_their_names_but_for_the_fakes_of_a_clip_with_reals() -> None:
    rows = [("a", "x", "p", 0, 0.1), ("b", "y", "q", 1, 0.3), ("c", "x", "p", 1, 0.2), ("d", "z", "r", 0, -1.0)]
    frames = LABELLED.to_frames(make_scores(rows))
    assert list(frames.clip_ids) == ["x", "y", "x#fake", "z"]
    assert list(frames.manipulations) == ["", "fake", "fake", ""]
    assert choose_operating_points(frames)["video_mean"]


def test_people_who_are_seen_in_one_clip_are_one_group_and_videos_have_figures() -> None:
    """A bystander has a name of its own; a video is still one sample, and an interval is over both people at once."""
    rows = [
        ("a", "x", "ann", 0, 0.1),
        ("b", "x", "x#1", 0, 0.3),
        ("c", "y", "ann", 1, 0.2),
        ("d", "z", "bob", 1, 0.9),
    ]
    frames = LABELLED.to_frames(make_scores(rows))
    assert frames.groups[0] == frames.groups[1] == frames.groups[2] != frames.groups[3]
    assert LABELLED.compute_metrics(make_scores(rows))["val_video_auc"] == 1.0
    assert choose_operating_points(frames)["video_mean"]["eer"].tpr == 1.0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_no_number_is_an_error_that_names_the_sample(value: float) -> None:
    scores = make_blended()
    logits = scores.logits.copy()
    logits[7, 1] = value
    with pytest.raises(MetricError, match=scores.sample_ids[7]):
        BLENDED.compute_metrics(replace(scores, logits=logits))


def test_one_class_is_an_error_and_no_figure() -> None:
    with pytest.raises(MetricError):
        LABELLED.compute_metrics(make_scores([("a", "x", "p", 0, 0.1), ("b", "y", "q", 0, 0.3)]))


def test_what_can_select_is_among_the_metrics_and_an_error_rate_falls() -> None:
    metrics = BLENDED.compute_metrics(make_blended())
    assert set(DeepfakeTask.selection_metrics) <= set(metrics)
    assert {name for name, way in DeepfakeTask.selection_metrics.items() if way == "lower"} == {"val_eer"}
    for word in DeepfakeSection.selection_metrics:
        assert DeepfakeTask(DeepfakeSection(), selection_metric=word).selection_metric in metrics
    assert BLENDED.selection_metric == "val_auc"
    assert isinstance(BLENDED.to_frames(make_blended()), ScoredFrames)
