"""Validation scores as scored frames: clips and people for the metrics of videos, whatever the source."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sharpstudent.core.types import Batch, Table
from sharpstudent.evaluation import tables
from sharpstudent.metrics.binary import compute_accuracy, compute_auc, compute_average_precision, compute_eer
from sharpstudent.metrics.checks import MetricError
from sharpstudent.tasks.deepfake.evaluation.calibration import choose_operating_points
from sharpstudent.tasks.deepfake.evaluation.frames import ScoredFrames, build_frames
from sharpstudent.tasks.deepfake.metrics import compute_fake_probability, compute_margins
from sharpstudent.tasks.deepfake.section import DeepfakeSection
from sharpstudent.tasks.deepfake.task import DeepfakeTask
from sharpstudent.train.validate import compute_metrics

BLENDED = DeepfakeTask(DeepfakeSection(data_source="ffpp"))
LABELLED = DeepfakeTask(DeepfakeSection(data_source="manifest", fakes="labels"))


def make_table(task: DeepfakeTask, rows: list[tuple[str, str, str, int, float]]) -> Table:
    """Rows of (sample, clip, person, label, margin), as the task makes them of the outputs of a model."""
    samples, clips, people, labels, margins = zip(*rows, strict=True)
    logits = np.stack([-np.array(margins) / 2, np.array(margins) / 2], axis=1).astype(np.float32)
    batch = Batch(
        inputs={},
        targets={"label": torch.tensor(labels)},
        rows={"id": samples, "group": people, "clip": clips},
    )
    return tables.make_table(task, {"logits": torch.from_numpy(logits)}, batch)


def make_blended(clips: int = 6, frames: int = 3, seed: int = 0) -> Table:
    """A real and a blend of each frame, all reals before all blends."""
    rng = np.random.default_rng(seed)
    rows = [
        (f"{clip}/{i}#{'blend0' if label else 'real0'}", f"clip {clip}", f"person {clip // 2}", label, margin)
        for label in (0, 1)
        for clip in range(clips)
        for i in range(frames)
        for margin in [float(rng.normal() + label)]
    ]
    return make_table(BLENDED, rows)


def test_a_self_blended_fake_of_a_clip_is_a_clip_of_its_own_and_of_the_same_person() -> None:
    frames = build_frames(make_blended(clips=2, frames=1), source="ffpp")
    assert list(frames.clip_ids) == ["clip 0", "clip 1", "clip 0#blend", "clip 1#blend"]
    assert len(set(frames.groups)) == 1
    assert list(frames.manipulations) == ["", "", "self-blend", "self-blend"]
    assert set(frames.sources) == {"ffpp"}
    assert list(frames.sample_ids) == ["0/0#real0", "1/0#real0", "0/0#blend0", "1/0#blend0"]


def test_the_margins_are_those_of_the_logits_to_the_last_bit() -> None:
    table = make_blended()
    frames = build_frames(table)
    logits = table["logits"].astype(np.float64)
    assert frames.margins.tobytes() == (logits[:, 1] - logits[:, 0]).tobytes()
    assert frames.labels.tolist() == table["label"].tolist()


def compute(table: Table, word: str = "auc") -> dict[str, float]:
    return compute_metrics(BLENDED, table, word)


def test_the_video_auc_is_that_of_the_mean_probability_of_each_clip() -> None:
    table = make_blended(clips=9, frames=4, seed=3)
    of_row = list(zip(table["clip"].tolist(), table["label"].tolist(), strict=True))
    keys = sorted(set(of_row))
    probabilities = compute_fake_probability(table)
    means = [probabilities[[row == key for row in of_row]].mean() for key in keys]
    found = compute(table)["val_video_auc"]
    assert found == pytest.approx(compute_auc(means, [label for _, label in keys]), abs=1e-12)
    assert found != compute_auc(compute_margins(table), table["label"])


def test_frame_metrics_are_those_of_all_scores_and_come_in_a_fixed_order() -> None:
    table = make_blended(seed=5)
    margins, labels = compute_margins(table), table["label"]
    assert compute(table) == {
        "val_auc": compute_auc(margins, labels),
        "val_accuracy": compute_accuracy(compute_fake_probability(table), labels, threshold=0.5),
        "val_ap": compute_average_precision(margins, labels),
        "val_eer": compute_eer(margins, labels),
        "val_video_auc": compute(table)["val_video_auc"],
    }
    assert list(compute(table)) == ["val_auc", "val_accuracy", "val_ap", "val_eer", "val_video_auc"]


def test_the_order_of_the_scores_changes_no_metric() -> None:
    table, order = make_blended(seed=1), np.random.default_rng(2).permutation(36)
    mixed = {name: column[order] for name, column in table.items()}
    assert mixed["id"].tolist() != table["id"].tolist()
    assert compute(mixed) == pytest.approx(compute(table), abs=1e-12)


def test_a_substitute_for_an_unreadable_picture_counts_once() -> None:
    table = make_blended(clips=3)
    rows = np.append(np.arange(len(table["id"])), 0)
    twice = {name: column[rows] for name, column in table.items()}
    assert len(twice["id"]) == len(table["id"]) + 1
    frames = build_frames(twice)
    assert list(frames.sample_ids) == table["id"].tolist()
    assert choose_operating_points(frames) == choose_operating_points(build_frames(table))


def test_labelled_clips_keep_their_names_but_for_the_fakes_of_a_clip_with_reals() -> None:
    rows = [("a", "x", "p", 0, 0.1), ("b", "y", "q", 1, 0.3), ("c", "x", "p", 1, 0.2), ("d", "z", "r", 0, -1.0)]
    frames = build_frames(make_table(LABELLED, rows))
    assert list(frames.clip_ids) == ["x", "y", "x#fake", "z"]
    assert list(frames.manipulations) == ["", "fake", "fake", ""]
    assert choose_operating_points(frames)["video_mean"]


def test_people_of_one_clip_are_one_group_and_videos_have_metrics() -> None:
    """A bystander has a name of its own; a video is still one sample, and an interval is over both people at once."""
    rows = [
        ("a", "x", "ann", 0, 0.1),
        ("b", "x", "x#1", 0, 0.3),
        ("c", "y", "ann", 1, 0.2),
        ("d", "z", "bob", 1, 0.9),
    ]
    frames = build_frames(make_table(LABELLED, rows))
    assert frames.groups[0] == frames.groups[1] == frames.groups[2] != frames.groups[3]
    assert compute_metrics(LABELLED, make_table(LABELLED, rows), "auc")["val_video_auc"] == 1.0
    assert choose_operating_points(frames)["video_mean"]["eer"].tpr == 1.0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_nan_score_is_an_error_that_names_the_sample(value: float) -> None:
    table = make_blended()
    logits = table["logits"].copy()
    logits[7, 1] = value
    with pytest.raises(MetricError, match=table["id"][7]):
        compute({**table, "logits": logits})


def test_one_class_is_an_error() -> None:
    one_class = make_table(LABELLED, [("a", "x", "p", 0, 0.1), ("b", "y", "q", 0, 0.3)])
    for word in ("auc", "ap", "eer", "video_auc"):
        with pytest.raises(MetricError, match="one class only"):
            compute_metrics(LABELLED, one_class, word)


def test_the_selection_metrics_exist_and_an_error_rate_is_minimised() -> None:
    metrics = compute(make_blended())
    assert {f"val_{word}" for word in DeepfakeTask.metrics} == set(metrics)
    assert {word for word, metric in DeepfakeTask.metrics.items() if metric.direction == "lower"} == {"eer"}
    for word in DeepfakeTask.metrics:
        assert compute(make_blended(), word) == metrics
    assert BLENDED.default_metric == "auc"
    assert isinstance(build_frames(make_blended()), ScoredFrames)
