"""Metrics of gaze maps against scikit-learn and closed forms; the loss and its schedule at their ends."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from sharpstudent.core.errors import UserError
from sharpstudent.core.schedules import Cosine, Progress
from sharpstudent.criterion.distillation import compute_kd_over_pixels
from sharpstudent.tasks.gaze.map_metrics import (
    compute_distances,
    compute_picture_aucs,
    compute_rank_auc,
    compute_square_aucs,
    find_peaks,
    find_right_objects,
)
from sharpstudent.tasks.gaze.task import GazeTask
from sklearn.metrics import average_precision_score, roc_auc_score


@pytest.mark.parametrize("levels", [3, 50, 10**6])
def test_the_auc_of_a_few_pixels_equals_scikit_learns_also_with_ties(levels: int) -> None:
    rng = np.random.default_rng(levels)
    for _ in range(20):
        values = (rng.integers(0, levels, 5000) / levels).astype(np.float32)
        positives = rng.choice(5000, int(rng.integers(1, 11)), replace=False)
        labels = np.zeros(5000)
        labels[positives] = 1
        assert compute_rank_auc(values, positives) == pytest.approx(roc_auc_score(labels, values), abs=1e-9)


def test_the_auc_of_a_picture_is_that_of_the_map_at_its_size() -> None:
    rng = np.random.default_rng(0)
    heatmap, size = rng.normal(size=(64, 64)).astype(np.float32), (320, 240)
    points = np.array([[0.5, 0.25], [0.999, 1.0], [0.5, 0.25], [np.nan, np.nan]], np.float32)
    labels = np.zeros((240, 320))
    labels[60, 160] = labels[239, 319] = 1
    wanted = roc_auc_score(labels.ravel(), cv2.resize(heatmap, size).ravel())
    twice = compute_picture_aucs(np.stack([heatmap, heatmap]), np.stack([points, points]), np.array([size, size]))
    assert twice == pytest.approx([wanted, wanted], abs=1e-9)


@pytest.mark.parametrize(("point", "cells"), [((0.5, 0.5), 19 * 19), ((0.0, 0.0), 10 * 10), ((0.999, 0.5), 10 * 19)])
def test_the_square_of_videos_is_19_cells_wide_and_cut_at_the_edge(point: tuple[float, float], cells: int) -> None:
    heatmap = np.random.default_rng(1).normal(size=(64, 64)).astype(np.float32)
    column, row = (int(value * 64) for value in point)
    labels = np.zeros((64, 64))
    labels[max(row - 9, 0) : row + 10, max(column - 9, 0) : column + 10] = 1
    assert labels.sum() == cells
    (auc,) = compute_square_aucs(heatmap[None], np.array([point], np.float32))
    assert auc == pytest.approx(roc_auc_score(labels.ravel(), heatmap.ravel()), abs=1e-9)


def test_distances_are_to_the_nearest_and_to_the_mean_mark() -> None:
    maps = np.zeros((2, 64, 64), np.float32)
    maps[0, 16, 32] = 1
    points = np.full((2, 3, 2), np.nan, np.float32)
    points[0, :2] = [[0.5, 0.5], [0.5, 1.0]]
    assert find_peaks(maps)[0].tolist() == [0.5, 0.25]
    nearest, mean = compute_distances(find_peaks(maps), points)
    assert (nearest[0], mean[0]) == (0.25, 0.5)
    assert np.isnan([nearest[1], mean[1]]).all()


def test_the_right_object_is_the_one_nearest_to_the_mark() -> None:
    objects = np.array([[[0.1, 0.1], [0.9, 0.9], [np.nan, np.nan]]] * 3, np.float32)
    points = np.array([[[0.85, 0.9]], [[0.85, 0.9]], [[np.nan, np.nan]]], np.float32)
    found = find_right_objects(np.array([[0.6, 0.6], [0.4, 0.4], [0.5, 0.5]]), points, objects)
    assert found[:2].tolist() == [1.0, 0.0]
    assert np.isnan(found[2])


def test_a_map_that_is_not_finite_is_an_error_that_names_the_head() -> None:
    task = GazeTask()
    batch = task.example_batch(2)
    maps = torch.zeros(2, 64, 64)
    assert set(task.metrics) <= {*task.rows({"heatmap": maps}, batch), "inout_ap"}
    maps[1, 3, 3] = torch.nan
    with pytest.raises(UserError, match="heat map of 1: is not finite"):
        task.rows({"heatmap": maps}, batch)


def test_the_divergence_is_kldivloss_times_t_squared_over_4096_cells() -> None:
    student, teacher, t = torch.randn(3, 64, 64), torch.randn(3, 64, 64), 2.5
    loss = torch.nn.KLDivLoss(reduction="batchmean")
    wanted = t**2 * loss((student.flatten(1) / t).log_softmax(1), (teacher.flatten(1) / t).softmax(1))
    torch.testing.assert_close(compute_kd_over_pixels(student, teacher, t).mean(), wanted)
    # A teacher that gives probabilities: its logits are those of `torch.logit`.
    again = torch.logit(teacher.sigmoid().double()).float()
    torch.testing.assert_close(compute_kd_over_pixels(student, again, t).mean(), wanted, rtol=1e-4, atol=1e-5)


def test_the_temperature_is_1_at_the_first_step_and_4_at_the_last() -> None:
    schedule, epochs, steps = Cosine(1.0, 4.0), 3, 7
    values = [schedule(Progress(epoch, step, epochs, steps)) for epoch in range(1, epochs + 1) for step in range(steps)]
    assert values[0] == pytest.approx(1.0, abs=1e-12)
    assert values[-1] == pytest.approx(4.0, abs=1e-12)
    assert values[10] == pytest.approx(2.5, abs=1e-12)


def test_the_average_precision_of_inside_is_scikit_learns() -> None:
    rng = np.random.default_rng(3)
    scores, looks = rng.normal(size=200).round(1), rng.integers(0, 2, 200)
    table = {"id": np.arange(200).astype(str), "inside": scores, "looks": looks}
    assert GazeTask.metrics["inout_ap"].value(table) == pytest.approx(average_precision_score(looks, scores), abs=1e-9)
