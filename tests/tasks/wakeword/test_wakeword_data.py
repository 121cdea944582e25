"""What recordings are read, in which layouts, and what is refused."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sharpstudent.core.errors import UserError
from sharpstudent.core.random import build_generator
from sharpstudent.core.types import Answer, InputSource, Sample
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.tasks.wakeword import recordings, scores
from sharpstudent.tasks.wakeword.mel import compute_mel
from sharpstudent.tasks.wakeword.scores import count_detections
from sharpstudent.tasks.wakeword.section import WakewordSection
from sharpstudent.tasks.wakeword.spoken_answer import describe_detections, stream_windows
from sharpstudent.tasks.wakeword.task import WakewordTask
from sharpstudent.tasks.wakeword.windows import Windows
from spoken_words import RATE, draw_word, write_words

soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed: the extra wakeword")


def open_split(folder: Path, split: str, allow: tuple[str, ...] = (), **keys: Any) -> Windows:
    task = WakewordTask(WakewordSection(data_root=str(folder), **keys), allow=allow)
    (samples,) = task.open_data(split)
    assert isinstance(samples, Windows)
    return samples


def count_kinds(samples: Windows) -> dict[str, int]:
    kinds = [spec.clip.category for spec in samples.specs]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


# --- Layouts ----------------------------------------------------------------------------------------------------------


def test_the_seed_s_lists_are_read_and_validation_has_every_word_with_and_without_noise(words: Path) -> None:
    assert count_kinds(open_split(words, "train")) == dict.fromkeys(
        ("background", "hard_negative", "negative", "positive"), 12
    )
    validation = count_kinds(open_split(words, "validation"))
    assert validation == {"background": 6, "hard_negative": 12, "negative": 12, "positive": 12}
    assert count_kinds(open_split(words, "test")) == {"negative": 6, "positive": 6}
    assert count_kinds(open_split(words, "test-soundalikes")) == {"hard_negative": 6, "positive": 6}
    assert set(count_kinds(open_split(words, "test-stream"))) == {"background", "negative"}
    with pytest.raises(UserError, match="names no condition"):
        open_split(words, "test-loud")


def test_folders_by_class_are_split_by_speaker(tmp_path: Path) -> None:
    for speaker in range(8):
        for kind in ("positive", "negative"):
            (tmp_path / kind / f"anna{speaker}").mkdir(parents=True)
            soundfile.write(tmp_path / kind / f"anna{speaker}" / "1.flac", draw_word(kind, speaker, 0), RATE)
    groups = [open_split(tmp_path, split).find_groups() for split in ("train", "validation", "test")]
    assert sum(map(len, groups)) == len(frozenset().union(*groups)) == 8


def test_speech_commands_are_read_with_its_own_lists(tmp_path: Path) -> None:
    for word, kind in (("yes", "positive"), ("no", "negative")):
        (tmp_path / word).mkdir()
        for speaker in range(6):
            soundfile.write(tmp_path / word / f"{speaker:08x}_nohash_0.wav", draw_word(kind, speaker, 0), RATE)
    (tmp_path / "_background_noise_").mkdir()
    soundfile.write(tmp_path / "_background_noise_" / "hum.wav", draw_word("background", 0, 0, 3.0), RATE)
    held = [[f"{word}/{speaker:08x}_nohash_0.wav" for word in ("yes", "no")] for speaker in (4, 5)]
    (tmp_path / "validation_list.txt").write_text("\n".join(held[0]))
    (tmp_path / "testing_list.txt").write_text("\n".join(held[1]))
    assert count_kinds(open_split(tmp_path, "train", word="yes")) == {"background": 2, "negative": 4, "positive": 4}
    assert count_kinds(open_split(tmp_path, "test", word="yes")) == {"negative": 1, "positive": 1}
    with pytest.raises(UserError, match=r"data\.word"):
        open_split(tmp_path, "train")


def test_another_word_of_the_same_lists_can_be_the_wake_word(tmp_path: Path) -> None:
    def name_word(entry: dict[str, Any]) -> None:
        entry["word"] = {"positive": "computer", "negative": "jarvis"}.get(entry["category"], "")

    write_words(tmp_path / "words", change=name_word) if (tmp_path / "words").mkdir() is None else None
    assert count_kinds(open_split(tmp_path / "words", "train", word="jarvis"))["positive"] == 12
    with pytest.raises(UserError, match="which no recording says"):
        open_split(tmp_path / "words", "train", word="alexa")


# --- Windows ----------------------------------------------------------------------------------------------------------


def test_teacher_and_student_get_the_same_augmented_window(words: Path) -> None:
    samples = open_split(words, "train", background_noise_prob=1.0, codec_prob=0.5, n_mels=40, duration=1.0)
    for index in (0, 20, 40):
        sample = samples.make(index, build_generator(1, 1, index))
        mel = compute_mel(sample.inputs["waveform"][0], 40, RATE)
        np.testing.assert_array_equal(sample.inputs["audio_features"][0], mel)
        again = samples.make(index, build_generator(1, 1, index))
        np.testing.assert_array_equal(again.inputs["waveform"], sample.inputs["waveform"])
        other = samples.make(index, build_generator(1, 2, index))
        assert (other.inputs["waveform"] != sample.inputs["waveform"]).any()


def test_views_recur(words: Path) -> None:
    samples = open_split(words, "train", views=2)
    seen = {samples.make(3, build_generator(1, epoch, 3)).inputs["waveform"].tobytes() for epoch in range(20)}
    assert len(seen) == 2


def test_speed_is_drawn_for_training_windows_alone_and_none_leaves_them_as_they_were(words: Path) -> None:
    for split, changes in (("train", True), ("validation", False)):
        plain, fast, same = (open_split(words, split, **keys) for keys in ({}, {"speed": 0.1}, {"speed": 0.0}))
        made = [samples.make(0, build_generator(5, 0, 0)).inputs["waveform"] for samples in (plain, fast, same)]
        assert made[1].shape == made[0].shape
        assert bool((made[0] != made[1]).any()) is changes
        np.testing.assert_array_equal(made[0], made[2])


def test_masks_are_drawn_anew_where_the_sound_recurs(words: Path) -> None:
    samples = open_split(words, "train", views=1, time_mask=0.3, mel_mask=8)
    made = [samples.make(3, build_generator(1, epoch, 3)).inputs for epoch in range(5)]
    assert len({one["waveform"].tobytes() for one in made}) == 1
    assert len({one["audio_features"].tobytes() for one in made}) == 5


def test_a_hard_negative_has_its_own_weight(words: Path) -> None:
    samples = open_split(words, "train", hard_negative_weight=3.0)
    weights = {spec.clip.category: float(samples.make(index, build_generator(0, 0, index)).weights["label"][0])
               for index, spec in enumerate(samples.specs)}  # fmt: skip
    assert weights == {"background": 1.0, "hard_negative": 3.0, "negative": 1.0, "positive": 1.0}


def test_precomputed_spectrograms_are_read_and_others_are_refused(tmp_path: Path) -> None:
    def save_mel(entry: dict[str, Any]) -> None:
        entry["npy_path"] = entry["path"] + ".npy"
        np.save(tmp_path / "words" / entry["npy_path"], np.zeros((64, 151), np.float32))

    (tmp_path / "words").mkdir()
    write_words(tmp_path / "words", speakers=4, change=save_mel)
    samples = open_split(tmp_path / "words", "train", features="precomputed")
    assert samples.make(0, build_generator(0, 0, 0)).inputs["audio_features"].shape == (1, 1, 64, 151)
    path = samples.specs[0].clip.features
    assert path is not None
    np.save(path, np.zeros((40, 101), np.float32))
    with pytest.raises(UnreadableSample, match="is no mel spectrogram"):
        samples.make(0, build_generator(0, 0, 0))


# --- Refusals ---------------------------------------------------------------------------------------------------------


def test_a_speaker_in_two_splits_is_refused_unless_it_is_allowed(words: Path) -> None:
    path = words / "splits" / "val.json"
    listed = json.loads(path.read_text())
    listed["files"][0]["group"] = "speaker 0"
    path.write_text(json.dumps(listed))
    with pytest.raises(UserError, match="speakers in more than one split") as caught:
        open_split(words, "train")
    assert "--allow shared-people" in caught.value.as_text()
    open_split(words, "train", allow=("shared-people",))


def test_mixed_sample_rates_are_refused(tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    write_words(tmp_path / "words", change=lambda entry: entry.update(
        sample_rate=8000 if entry["category"] == "positive" else RATE))  # fmt: skip
    with pytest.raises(UserError, match="several sample rates"):
        open_split(tmp_path / "words", "train")


def test_a_split_without_positives_and_a_folder_that_is_not_there_are_refused(words: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        open_split(tmp_path / "nowhere", "train")
    path = words / "splits" / "val.json"
    listed = json.loads(path.read_text())
    listed["files"] = [entry for entry in listed["files"] if entry["category"] != "positive"]
    path.write_text(json.dumps(listed))
    with pytest.raises(UserError, match="has no positives"):
        open_split(words, "train")
    path.write_text("[")
    with pytest.raises(UserError, match="is no list of recordings"):
        open_split(words, "train")


SOUND = draw_word("positive", 1, 1)
BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "silent": (lambda path: soundfile.write(path, np.zeros(8000), RATE), "is silent"),
    "empty": (lambda path: soundfile.write(path, np.zeros(0), RATE), "is empty"),
    "clipped": (lambda path: soundfile.write(path, np.clip(30 * SOUND, -1, 1), RATE), "is clipped"),
    "stereo": (lambda path: soundfile.write(path, np.stack([SOUND, SOUND], 1), RATE), "has 2 channels"),
    "8 bits": (lambda path: soundfile.write(path, SOUND, RATE, subtype="PCM_U8"), "has 8 bits"),
    "no numbers": (
        lambda path: soundfile.write(path, np.full(8000, np.nan, np.float32), RATE, subtype="FLOAT"), "no numbers",
    ),
    "text": (lambda path: path.write_bytes(b"no sound"), "is no sound file"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_recording_that_cannot_be_learnt_from_is_refused_with_the_reason(kind: str, tmp_path: Path) -> None:
    write, reason = BAD[kind]
    write(tmp_path / "x.wav")
    with pytest.raises(UnreadableSample, match=reason):
        recordings.read_recording(tmp_path / "x.wav", RATE)


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "opus"])
def test_a_file_that_is_cut_off_is_refused_or_shorter(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{ending}"
    kind = {"opus": {"format": "OGG", "subtype": "OPUS"}}.get(ending, {})
    soundfile.write(path, np.tile(SOUND, 5), RATE, **kind)
    whole = recordings.read_recording(path, RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with contextlib.suppress(UnreadableSample):
        assert len(recordings.read_recording(path, RATE)) < len(whole)


# --- Streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [16000, 44100])
def test_a_long_recording_is_read_in_blocks_that_join_without_a_seam(rate: int, tmp_path: Path) -> None:
    t = np.arange(25 * rate) / rate
    soundfile.write(tmp_path / "long.wav", 0.3 * np.sin(2 * np.pi * 440 * t), rate)
    blocks = list(recordings.read_blocks(tmp_path / "long.wav", RATE))
    assert len(blocks) == 3
    assert max(map(len, blocks)) <= 11 * RATE
    joined = np.concatenate(blocks)
    expected = 0.3 * np.sin(2 * np.pi * 440 * np.arange(25 * RATE) / RATE)
    assert len(joined) == 25 * RATE
    np.testing.assert_allclose(joined[100:-100], expected[100:-100], atol=2e-3)


def draw_evening() -> np.ndarray:
    """20 s of quiet noise with three loud words."""
    sound = np.random.default_rng(0).normal(0, 0.002, 20 * RATE).astype(np.float32)
    for second in (4, 5, 12):
        sound[second * RATE : second * RATE + 9600] += draw_word("positive", second, 0)
    return sound


def score(sample: Sample) -> np.ndarray:
    """Logits of a model that hears whether it is loud."""
    return np.array([[0.0, 40.0 * (sample.inputs["audio_features"].mean() + 0.32)]])


def tabulate(samples: Iterable[Sample]) -> Iterator[dict[str, Any]]:
    """Tables as the predictor makes them, one a window."""
    return ({"logits": score(one), "start": np.array(one.rows["start"])} for one in samples)


def test_the_streaming_detector_gives_the_scores_and_detections_of_the_evaluation(tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    write_words(tmp_path / "words", speakers=4, change=lambda entry: entry.update(duration=20.0))
    samples = open_split(tmp_path / "words", "test-stream")
    path = next(spec.clip.path for spec in samples.specs if spec.clip.category == "background")
    soundfile.write(path, draw_evening(), RATE)
    made = [samples.make(index, build_generator(0, 0, 0)) for index, spec in enumerate(samples.specs)
            if spec.clip.path == path]  # fmt: skip
    columns = {name: np.array([one.rows[name][0] for one in made]) for name in ("start", "recording")}
    table = {**columns, "logits": np.concatenate([score(one) for one in made]), "label": np.zeros(len(made), int)}
    streamed = list(stream_windows(InputSource("x", path), samples.section))
    np.testing.assert_allclose(np.concatenate([score(one) for one in streamed]), table["logits"], atol=0.02)
    *_, answer = describe_detections(tabulate(streamed), {"calibration": {"threshold": 0.8}}, duration=1.5)
    alarms = count_detections(table, scores.find_probability(table), 0.8)
    assert alarms.sum() == len(answer.details["detections"]) == 2  # two words within a second are one


class FakeMicrophone:
    """sounddevice's stream over the same 20 s, after which the device is gone."""

    PortAudioError = OSError
    InputStream: Any

    def __init__(self, rate: int, size: int, device: int, **form: Any) -> None:
        assert (rate, device, form) == (RATE, 3, {"channels": 1, "dtype": "float32"})
        self.left = draw_evening()

    def __enter__(self) -> FakeMicrophone:
        return self

    def __exit__(self, *error: object) -> None: ...

    def read(self, size: int) -> tuple[np.ndarray, bool]:
        if not len(self.left):
            raise self.PortAudioError("device unavailable")
        block, self.left = self.left[:size], self.left[size:]
        return block[:, None], False


def test_a_microphone_is_heard_as_a_file_is_and_each_word_is_news(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeMicrophone.InputStream = FakeMicrophone
    monkeypatch.setitem(sys.modules, "sounddevice", FakeMicrophone)
    soundfile.write(tmp_path / "x.wav", draw_evening(), RATE, subtype="FLOAT")
    heard = tabulate(stream_windows(InputSource("microphone 3", stream=3), WakewordSection()))
    answers: list[Answer] = []
    with pytest.raises(UnreadableSample, match="device unavailable"):
        answers.extend(describe_detections(heard, {}, duration=1.5))
    read = tabulate(stream_windows(InputSource("x", tmp_path / "x.wav"), WakewordSection()))
    news = [one.news for one in describe_detections(read, {}, duration=1.5) if one.news]
    assert [one.news for one in answers if one.news] == news
    assert len(news) == 2
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(UserError, match="pip install sounddevice"):
        next(stream_windows(InputSource("microphone 3", stream=3), WakewordSection()))
