"""The commands as a user types them, on generated words: both stages, evaluation, comparison, prediction, export."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit
from sharpstudent.tasks.wakeword.detections import HOP_SECONDS, detect
from sharpstudent.tasks.wakeword.mel import compute_mel
from spoken_words import RATE, draw_word, write_words
from workplace import ROOT, STAGE_1, STAGE_2, Ended, Workplace

soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed: the extra wakeword")

TEACHER_FILES = [ROOT / "weights" / name for name in ("speech_melspectrogram.onnx", "speech_embedding.onnx")]
SMALL = ("--set", "data.data_root=words", "--set", "num_workers=0", "--set", "data.views=2")
FAST = ("--rounds", "50", "--workers", "0", "--device", "cpu")


def check(ended: Ended) -> Ended:
    assert ended.code == 0, ended.err + ended.out
    return ended


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """Three runs by the shipped configs: the teacher's head, the student alone, and distilled."""
    if not all(path.is_file() for path in TEACHER_FILES):
        pytest.skip("the teacher's files are not there: python fetch_models.py wakeword")
    folder = tmp_path_factory.mktemp("wakeword") / "place"
    folder.mkdir()
    place = Workplace(folder)
    (folder / "weights").symlink_to(ROOT / "weights")
    (folder / "words").mkdir()
    write_words(folder / "words", speakers=8)
    quiet = ("--set", "report=false")
    check(place.call(STAGE_1, "configs/wakeword_teacher.json", "-n", "wakeword_teacher", *SMALL, *quiet,
                     "--set", "epoch=2"))  # fmt: skip
    check(place.call(STAGE_1, "configs/wakeword.json", "-n", "wakeword_student", *SMALL, *quiet, "--set", "epoch=1"))
    check(place.call(STAGE_2, "configs/wakeword.json", "-n", "wakeword_distill", *SMALL, "--set", "epoch=4"))
    return place


def test_a_distilled_student_is_better_than_chance_and_its_run_ends_with_a_report(place: Workplace) -> None:
    run = place.find_run("wakeword_distill")
    results = json.loads((run / "results.json").read_text())
    assert (run / "report.html").is_file()
    assert results["task"] == "wakeword"
    header, *rows = (run / "logs" / "metrics.csv").read_text().splitlines()
    column = header.split(",").index("val_auc")
    assert max(float(row.split(",")[column]) for row in rows if row.split(",")[column]) > 0.7
    for term in ("hard", "kd", "embedding"):
        assert term in header


def test_conditions_are_compared_in_one_command(place: Workplace) -> None:
    runs = [str(place.find_run(name).relative_to(place.folder)) for name in ("wakeword_student", "wakeword_distill")]
    words = ["--before", runs[0], "--distilled", runs[1], "--data", "test", "test-10dB", "test-soundalikes"]
    check(place.call("compare_models.py", *words, *FAST, "--out", "compared"))
    results = json.loads((place / "compared" / "results.json").read_text())
    assert "test-10dB" in json.dumps(results)
    check(place.call("evaluate_model.py", runs[1], "--data", "test-stream", *FAST, "--out", "stream"))
    assert "false_alarms_per_hour" in (place / "stream" / "results.json").read_text()


def test_a_word_in_a_long_recording_is_found_with_its_time(place: Workplace) -> None:
    rng = np.random.default_rng(1)
    sound = rng.normal(0, 0.002, 12 * RATE).astype(np.float32)
    sound[6 * RATE : 6 * RATE + 9600] += draw_word("positive", 20, 0)
    soundfile.write(place / "long.wav", sound, RATE)
    ended = check(place.call("predict.py", str(place.find_run("wakeword_distill")), "long.wav", "--json",
                             "--batch-size", "32"))  # fmt: skip
    answer = json.loads(ended.out.splitlines()[-1])
    assert answer["details"]["seconds"] == pytest.approx(12.0, abs=0.2)
    times = [one["peak"] for one in answer["details"]["detections"]]
    assert all(6.0 <= time <= 8.0 for time in times) or answer["score"] < 0.9  # a tiny run may not reach its threshold


def test_false_alarms_of_a_run_are_mined(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    from sharpstudent.tasks.wakeword import mine

    monkeypatch.chdir(place.folder)
    rng = np.random.default_rng(2)
    soundfile.write("quiet.wav", rng.normal(0, 0.01, 4 * RATE), RATE)
    mine.main([str(place.find_run("wakeword_distill")), "quiet.wav", "--out", "mined"])
    assert (place / "mined" / "hard_negative").is_dir()


PROGRAM = """
#include <stdio.h>
#include "wake.h"
int main(void) {
  static int16_t samples[WAKE_SAMPLES];
  static float features[WAKE_BANDS * WAKE_FRAMES];
  static WakeDetector detector;
  float found[4];
  while (fread(samples, 2, WAKE_SAMPLES, stdin) == WAKE_SAMPLES) {
    wake_features(samples, features);
    wake_logits(features, found);
    found[2] = wake_probability(samples);
    found[3] = (float)wake_add(&detector, found[2]);
    fwrite(features, 4, WAKE_BANDS * WAKE_FRAMES, stdout);
    fwrite(found, 4, 4, stdout);
  }
  return 0;
}
"""


@pytest.fixture(scope="module")
def exported(place: Workplace) -> Path:
    """The distilled student in int8, fine-tuned for it in two steps."""
    run = place.find_run("wakeword_distill")
    ended = check(place.call("export_model.py", str(run), "--to", "onnx-int8", "--qat-steps", "2", "--rounds", "20",
                             "--workers", "0", "--allow", "worse-metric", "--out", "wake.onnx"))  # fmt: skip
    assert "wake.h: the same model for a microcontroller" in ended.out
    return place / "wake.onnx"


def test_an_int8_export_takes_audio_features_gives_the_logits_and_is_small(exported: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: the extra onnx")
    session = onnxruntime.InferenceSession(str(exported))
    assert [one.name for one in session.get_inputs()] == ["audio_features"]
    assert [one.name for one in session.get_outputs()] == ["logits"]
    for rows in (1, 3):
        given = np.zeros((rows, 1, 64, 151), np.float32)
        assert session.run(None, {"audio_features": given})[0].shape == (rows, 2)
    assert exported.stat().st_size <= 80_000


def test_the_c_header_gives_the_features_logits_and_detections_of_the_python_code(exported: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: the extra onnx")
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler here")
    folder = exported.parent
    (folder / "main.c").write_text(PROGRAM)
    flags = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    subprocess.run([compiler, *flags, "main.c", "-o", "wake", "-lm"], cwd=folder, check=True, timeout=300)
    rng = np.random.default_rng(3)
    words = [
        np.tile(draw_word(kind, 20 + take, take), 3)[:24000] for take in range(3) for kind in ("positive", "negative")
    ]
    sound = np.stack([np.round(32767 * (word + rng.normal(0, 1e-3, 24000))).astype("<i2") for word in words])
    done = subprocess.run([folder / "wake"], input=sound.tobytes(), stdout=subprocess.PIPE, check=True, timeout=300)
    found = np.frombuffer(done.stdout, "<f4").reshape(len(words), -1)
    features = np.stack([compute_mel(one / np.float32(32767), 64, RATE) for one in sound.astype(np.float32)])
    np.testing.assert_allclose(found[:, :-4], features.reshape(len(words), -1), atol=1e-3)
    session = onnxruntime.InferenceSession(str(exported))
    given = found[:, :-4].reshape(-1, 1, 64, 151)
    step = np.ptp(found[:, -4:-2]) / 255  # logits are of 8 bits: a sum at the edge between two may fall to either
    logits = session.run(None, {"audio_features": given})[0]
    np.testing.assert_allclose(found[:, -4:-2], logits, atol=2.5 * max(step, 0.05))
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: the extra onnx")
    about = json.loads({one.key: one.value for one in onnx.load(exported).metadata_props}["calibration"])
    probability = expit((found[:, -3] - found[:, -4]) / about["temperature"])
    np.testing.assert_allclose(found[:, -2], probability, atol=1e-5)
    starts = HOP_SECONDS * np.arange(len(words))
    ends = [one.start for one in detect(starts, probability, about["threshold"], 0.0)]
    np.testing.assert_allclose(starts[found[:, -1] == 1], ends)


def test_distillation_from_a_head_that_nobody_trained_is_refused(place: Workplace) -> None:
    ended = place.call(STAGE_2, "configs/wakeword.json", "-n", "x", *SMALL, "--set", "teacher_weights=null")
    assert ended.code == 2
    assert "teacher_weights" in ended.err


def test_what_messages_advise_is_accepted(place: Workplace) -> None:
    for words in ("data.word=yes", "data.data_root=FOLDER", "data.features=audio", "data.duration=1.0",
                  "data.sample_rate=16000", "data.check_chain=false", "data.mined=FOLDER", "student=tiny_conv",
                  "teacher=speech_embedding", "stage2.batch_size=16"):  # fmt: skip
        check(place.call(STAGE_1, "configs/wakeword.json", "-n", "x", "--set", words, "--print-config"))
    check(
        place.call("train_student_only.py", "configs/wakeword_teacher.json", "-n", "wakeword_teacher", "--print-config")
    )
    check(place.call("fetch_models.py", "wakeword"))


def test_the_shipped_model_hears_its_word_and_not_silence(tmp_path: Path, real_words: Path) -> None:
    (tmp_path / "place").mkdir()
    place = Workplace(tmp_path / "place")
    soundfile.write(place / "quiet.wav", np.random.default_rng(0).normal(0, 1e-3, 3 * RATE), RATE)
    listed = json.loads((real_words / "splits" / "test.json").read_text())["files"]
    said = [str(real_words / one["path"]) for one in listed if one["category"] == "positive" and one["pool"] == "pv"]
    ended = check(
        place.call("predict.py", "wakeword-computer", "quiet.wav", *said[:40:4], "--json", "--batch-size", "8")
    )
    quiet, *heard = [json.loads(line)["outcome"] for line in ended.out.splitlines()]
    assert quiet == "other"
    assert heard.count("wake word") >= 4  # of 10: it misses four of ten


@pytest.mark.slow
def test_real_speech_is_learnt_by_the_shipped_config(place: Workplace, real_words: Path) -> None:
    data = ("--set", f"data.data_root={real_words}", "--set", "report=false", "--set", "num_workers=0")
    check(place.call(STAGE_1, "configs/wakeword.json", "-n", "real", *data, "--set", "epoch=2"))
    rows = (place.find_run("real") / "logs" / "metrics.csv").read_text().splitlines()
    assert float(rows[-1].split(",")[rows[0].split(",").index("val_auc")]) > 0.8
