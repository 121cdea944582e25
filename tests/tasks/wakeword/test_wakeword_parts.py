"""Mel spectrogram, mixing, students, metrics and the streaming detector, against formulas and other libraries."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sharpstudent.core.errors import UserError
from sharpstudent.core.types import ModelSpec
from sharpstudent.tasks.wakeword import detections, mel, mixing, scores
from sharpstudent.tasks.wakeword.recordings import PACKAGES
from sharpstudent.tasks.wakeword.section import WakewordSection
from sharpstudent.tasks.wakeword.speech_embedding import check_waveform
from sharpstudent.tasks.wakeword.spoken_answer import choose_threshold
from sharpstudent.tasks.wakeword.task import WakewordTask
from sklearn import metrics as sklearn_metrics

RNG = np.random.default_rng(0)


def make_table(rows: int = 400, groups: int = 20) -> dict[str, Any]:
    label = RNG.integers(0, 2, rows)
    margin = np.round(RNG.normal(label * 1.5 - 0.7, 1.0), 2).astype(np.float32)
    return {
        "id": np.array([str(row) for row in range(rows)]), "group": RNG.integers(0, groups, rows).astype(str),
        "logits": np.stack([np.zeros_like(margin), margin], 1), "label": label,
        "kind": np.where(label == 1, "positive", "negative"), "seconds": np.full(rows, 1.5),
        "recording": np.full(rows, ""), "start": np.zeros(rows),
    }  # fmt: skip


# --- The front end ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "n_mels", "frames"), [(1.5, 64, 151), (1.0, 40, 101)])
def test_the_mel_spectrogram_equals_that_of_torch(seconds: float, n_mels: int, frames: int) -> None:
    sound = RNG.normal(0, 0.1, round(16000 * seconds)).astype(np.float32)
    found = mel.compute_mel(sound, n_mels, 16000)
    assert found.shape == (1, n_mels, frames)
    window = torch.hann_window(400)
    power = torch.stft(torch.from_numpy(sound), 400, 160, window=window, return_complex=True).abs() ** 2
    bands = torch.from_numpy(mel.build_filters(n_mels, 16000)) @ power
    decibels = 10 * torch.log10(bands.clamp(min=1e-10))
    decibels = torch.maximum(decibels, decibels.max() - 80)
    np.testing.assert_allclose(found[0], (decibels.numpy() + 20) / 25, atol=2e-4)


def test_each_filter_is_a_triangle_of_height_one_between_its_neighbours() -> None:
    filters = mel.build_filters(8, 16000)  # wide enough for bins near each peak
    assert ((filters > 0).sum(1) >= 2).all()
    np.testing.assert_allclose(filters[:, 20:120].sum(0), 1.0, atol=1e-5)  # rising and falling sides add up


# --- Mixing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("snr", [-5.0, 0.0, 20.0])
def test_background_is_mixed_at_the_ratio_that_is_asked_for(snr: float) -> None:
    word, noise = (RNG.normal(0, level, 16000).astype(np.float32) for level in (0.01, 0.05))
    added = mixing.add_background(word, noise, snr) - word
    assert 10 * np.log10(np.mean(word**2) / np.mean(added**2)) == pytest.approx(snr, abs=0.01)


def test_a_room_keeps_power_and_the_place_of_the_direct_sound() -> None:
    sound, response = np.zeros(8000, np.float32), np.zeros(500, np.float32)
    sound[3000], response[40], response[300] = 0.5, 1.0, 0.4
    wet = mixing.add_room(sound, response)
    assert int(np.abs(wet).argmax()) == 3000
    assert wet[3260] > 0
    assert np.mean(wet**2) == pytest.approx(np.mean(sound**2), rel=1e-4)


@pytest.mark.parametrize("percent", [85, 100, 107])
def test_a_sound_that_is_played_faster_is_higher_and_shorter_by_the_same_factor(percent: int) -> None:
    sound = np.zeros(16000, np.float32)
    sound[:8000] = np.sin(2 * np.pi * 400 * np.arange(8000) / 16000)  # half a second of 400 Hz
    played = mixing.change_speed(sound, percent, 16000)
    assert played.shape == (16000,)
    spectrum = np.abs(np.fft.rfft(played * np.hanning(16000)))
    assert int(spectrum.argmax()) == pytest.approx(4 * percent, abs=2)  # bins of 1 Hz
    assert int(np.flatnonzero(np.abs(played) > 0.1)[-1]) == pytest.approx(8000 * 100 / percent, abs=30)


def test_a_level_is_never_raised_beyond_full_scale_and_the_codec_stays_near() -> None:
    sound = RNG.uniform(-0.5, 0.5, 1000).astype(np.float32)
    assert np.abs(mixing.change_level(sound, 40.0)).max() <= 1.0
    np.testing.assert_allclose(mixing.pass_codec(sound), sound, atol=0.03)


def test_masks_blank_one_stretch_of_frames_and_one_of_bands() -> None:
    full = RNG.normal(0, 1, (1, 40, 100)).astype(np.float32)
    masked = mixing.mask_mel(full, np.random.default_rng(1), most_frames=20, most_bands=8)
    changed = masked[0] != full[0]
    assert 0 < changed.all(0).sum() <= 20
    assert 0 < changed.all(1).sum() <= 8


# --- Students ---------------------------------------------------------------------------------------------------------

COUNTS = {"tiny_conv": 60530, "mobilenetv3": 1519618, "resnet18": 11171266, "lstm": 594434, "gru": 445954}


@pytest.mark.parametrize("name", [*COUNTS, "tcn"])
def test_every_student_has_its_number_of_parameters_and_gives_two_logits(name: str) -> None:
    task = WakewordTask()
    model = task.build_student(ModelSpec(name)).eval()
    assert sum(one.numel() for one in model.parameters()) == COUNTS.get(name, 441026)
    outputs = model(task.example_batch(2).inputs["audio_features"])
    assert outputs["logits"].shape == (2, 2)
    assert outputs["embedding"].ndim == 2


def test_a_teacher_of_raw_audio_refuses_spectrograms_with_the_seed_s_own_words() -> None:
    with pytest.raises(UserError, match="Teacher NOT called with spectrogram inputs"):
        check_waveform(torch.zeros(2, 1, 64, 151))
    task = WakewordTask(WakewordSection(features="precomputed"))
    with pytest.raises(UserError, match="return_raw_audio=True"):
        task.build_teacher(ModelSpec("speech_embedding", role="teacher"))


def test_an_unknown_student_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(UserError, match="tiny_conv"):
        WakewordTask().build_student(ModelSpec("tiny_cov"))


# --- Metrics ----------------------------------------------------------------------------------------------------------


def test_metrics_equal_those_of_scikit_learn() -> None:
    table = make_table()
    margin, label = scores.find_margin(table), table["label"]
    called = margin >= 0
    value = {name: metric.value(table) for name, metric in scores.METRICS.items()}
    assert value["f1"] == pytest.approx(sklearn_metrics.f1_score(label, called), abs=1e-12)
    assert value["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(label, called), abs=1e-12)
    assert value["auc"] == sklearn_metrics.roc_auc_score(label, margin)
    assert value["partial_auc"] == pytest.approx(sklearn_metrics.roc_auc_score(label, margin, max_fpr=0.1), abs=1e-9)
    (tn, fp), (fn, tp) = sklearn_metrics.confusion_matrix(label, called)
    assert value["fpr"] == pytest.approx(fp / (fp + tn), abs=1e-12)
    assert value["fnr"] == pytest.approx(fn / (fn + tp), abs=1e-12)
    assert value["false_alarms_per_hour"] == pytest.approx(fp / ((fp + tn) * 1.5 / 3600))
    fpr, tpr, _ = sklearn_metrics.roc_curve(label, margin)
    crossing = int(np.argmin(np.abs(fpr - (1 - tpr))))
    assert value["eer"] == pytest.approx(fpr[crossing], abs=0.02)


def test_draws_of_groups_give_the_metric_of_the_repeated_rows() -> None:
    table = make_table()
    _, group_of = np.unique(table["group"], return_inverse=True)
    drawn = RNG.multinomial(20, [1 / 20] * 20, 5)
    for name in ("f1", "false_alarms_per_hour", "partial_auc", "recall_at_1", "recall_at_half"):
        metric = scores.METRICS[name]
        assert metric.on_groups is not None
        expected = [metric.compute(table, counts[group_of]) for counts in drawn]
        np.testing.assert_allclose(metric.on_groups(table, group_of)(drawn), expected, rtol=1e-12)


def test_recall_at_a_rate_is_the_best_of_the_thresholds_that_keep_it() -> None:
    table = make_table()
    margin, label = scores.find_margin(table), table["label"]
    hours = 1.5 * (label == 0).sum() / 3600
    best = max(
        (margin[label == 1] >= t).mean()
        for t in [*margin, np.inf]
        if (margin[label == 0] >= t).sum() <= 40 * hours
    )  # fmt: skip
    assert scores._make_recall_at(40.0).value(table) == pytest.approx(best)


def test_no_alarm_in_an_hour_means_at_most_three_an_hour() -> None:
    assert scores.bound_rate(0, 1.0) == pytest.approx(2.996, abs=1e-3)
    assert scores.bound_rate(2, 2.0) == pytest.approx(6.296 / 2, abs=1e-3)


def test_messages_name_the_packages_of_the_extra() -> None:
    text = (Path(__file__).resolve().parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    assert PACKAGES.split() == extras["wakeword"]


# --- Streams ----------------------------------------------------------------------------------------------------------


def test_the_detector_smooths_and_says_each_word_once() -> None:
    starts = np.arange(60) / 10
    probability = np.zeros(60)
    probability[[5, 20, 21, 22, 23, 40, 41, 42, 43, 46, 47, 48, 49]] = 0.9
    found = detections.detect(starts, probability, 0.7, 1.5)
    assert [round(one.start, 1) for one in found] == [
        3.7,
        5.7,
    ]  # a single peak is smoothed away, a second word too near
    assert found[0].confidence == pytest.approx(0.9)


def test_alarms_of_a_stream_are_those_of_its_detector_in_any_order_of_rows() -> None:
    table, starts = make_table(60), np.arange(60) / 10
    margin = np.full(60, -3.0, np.float32)
    margin[20:24] = 3.0
    table |= {"label": np.zeros(60, int), "start": starts, "recording": np.full(60, "a"), "seconds": np.full(60, 0.1)}
    table["logits"] = np.stack([0 * margin, margin], 1)
    order = RNG.permutation(60)
    shuffled = {name: column[order] for name, column in table.items()}
    assert scores.METRICS["false_alarms_per_hour"].value(shuffled) == pytest.approx(1 / (6 / 3600))


def test_the_stored_threshold_lets_few_of_the_negatives_pass() -> None:
    table = make_table(2000)
    threshold = choose_threshold(table, 1.0)
    assert (scores.find_probability(table)[table["label"] == 0] >= threshold).mean() <= 0.005
    quiet = {**table, "logits": table["logits"] - np.array([[0, 50.0]])}
    assert choose_threshold(quiet, 1.0) == 0.5
