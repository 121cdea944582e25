"""Validation scores as scored frames: clips and people for the metrics of videos, whatever the source."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sharpstudent.core.types import Batch, Table
from sharpstudent.evaluation import tables
from sharpstudent.metrics.binary import compute_accuracy, compute_auc, compute_average_precision, compute_eer
from sharpstudent.metrics.checks import MetricError
from sharpstudent.tasks.deepfake.evaluation.calibration import calibrate_on_validation, choose_operating_points
from sharpstudent.tasks.deepfake.evaluation.frames import ScoredFrames, build_frames, count_videos, join_frames
from sharpstudent.tasks.deepfake.evaluation.set_metrics import compute_set_metrics
from sharpstudent.tasks.deepfake.metrics import compute_fake_probability, compute_margins
from sharpstudent.tasks.deepfake.report.from_frames import build_comparisons, build_drawings, choose_rules
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
    frames = build_frames(make_blended(clips=2, frames=2), source="ffpp")
    assert list(frames.clip_ids) == [f"clip {clip}{end}" for end in ("", "#blend") for clip in (0, 0, 1, 1)]
    assert len(set(frames.groups)) == 1
    assert list(frames.manipulations) == [""] * 4 + ["self-blend"] * 4
    assert set(frames.sources) == {"ffpp"}
    assert list(frames.sample_ids)[::4] == ["0/0#real0", "0/0#blend0"]


def test_the_real_of_a_face_that_was_blended_several_times_counts_once_and_its_blends_are_no_video() -> None:
    rows = [
        (f"p{i}#{kind}{n}", f"p{i}", f"p{i}", label, float(label))
        for i in range(3)
        for n in range(4)
        for label, kind in enumerate(("real", "blend"))
    ]
    frames = build_frames(make_table(BLENDED, rows))
    assert [name for name, label in zip(frames.sample_ids, frames.labels, strict=True) if label == 0] == [
        "p0#real0",
        "p1#real0",
        "p2#real0",
    ]
    assert frames.labels.sum() == 12
    assert count_videos(frames) == 0
    assert choose_rules(frames) == ()


def test_a_source_of_stills_has_no_metric_of_videos_beside_one_of_videos() -> None:
    videos = build_frames(make_blended(), source="videos")
    rows = [(f"p{i}", f"p{i}", f"p{i}", i % 2, i * 0.1) for i in range(40)]
    stills = build_frames(make_table(LABELLED, rows), source="stills")
    both = join_frames([videos, stills])
    names = set(compute_set_metrics(both).values)
    assert "video_auc_mean@videos" in names
    assert not any(name.startswith("video_") and "@stills" in name for name in names)
    assert compute_set_metrics(both).values["video_count"] == compute_set_metrics(videos).values["video_count"]
    assert "video_mean" not in calibrate_on_validation(stills).operating_points
    compared = build_comparisons(("a", [both]), ("b", [both]), rounds=20)
    assert {one.figure for one in compared if one.figure.startswith("video")} == {
        "video_auc_mean",
        "video_auc_mean@videos",
    } - {"video_auc_mean@videos"}
    assert {(one.level, one.part) for one in build_drawings(both) if one.level != "frame"} == {
        ("video_mean", ""),
        ("video_mean", "@videos"),
    }


@pytest.mark.parametrize(("reals", "offered"), [(34, set()), (100, {"fpr_1pct"}), (1000, {"fpr_1pct", "fpr_0.1pct"})])
def test_thresholds_are_offered_only_at_rates_that_the_reals_can_show(reals: int, offered: set[str]) -> None:
    rows = [(f"p{i}", f"p{i}", f"p{i}", label, i * 0.01 + label) for i in range(reals) for label in (0, 1)]
    rows = [(f"{name}/{label}", clip, group, label, margin) for name, clip, group, label, margin in rows]
    found = calibrate_on_validation(build_frames(make_table(LABELLED, [(one[0], one[0], *one[2:]) for one in rows])))
    assert set(found.operating_points["frame"]) == {"eer", "youden"} | offered
    assert len(found.notes) == 2 - len(offered)
    assert (f"no threshold for 1 % false alarms: {reals} real frames" in " ".join(found.notes)) == (reals < 100)


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
    assert list(frames.clip_ids) == ["x", "b", "x#fake", "d"]
    assert list(frames.manipulations) == ["", "fake", "fake", ""]
    assert set(choose_operating_points(frames)) == {"frame"}


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
