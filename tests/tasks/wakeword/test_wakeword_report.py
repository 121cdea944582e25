"""Kept answers, false alarms with bounds, mistakes to listen to, the probe of recording chains, synthetic voices."""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from sharpstudent.core.errors import UserError
from sharpstudent.tasks.wakeword import recording_chain, renderer, synthetic_voices
from sharpstudent.tasks.wakeword.clips import NEGATIVE, POSITIVE, VoiceClip
from sharpstudent.tasks.wakeword.kept_answers import PART_ROWS, KeptAnswers
from spoken_words import RATE

soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed: the extra wakeword")
RNG = np.random.default_rng(0)


def test_an_answer_is_computed_once_even_by_another_process_and_damage_is_left_aside(tmp_path: Path) -> None:
    asked = list[int]()

    def compute(windows: np.ndarray) -> np.ndarray:
        asked.append(len(windows))
        return windows[:, :3] * 2

    windows = RNG.normal(0, 1, (PART_ROWS, 8)).astype(np.float32)
    first = KeptAnswers(tmp_path)
    np.testing.assert_array_equal(first.answer(windows, compute), windows[:, :3] * 2)
    first.answer(windows[:5], compute)
    np.testing.assert_array_equal(KeptAnswers(tmp_path).answer(windows[3:6], compute), windows[3:6, :3] * 2)
    assert asked == [PART_ROWS]
    (part,) = tmp_path.glob("*.npz")
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    KeptAnswers(tmp_path).answer(windows[:2], compute)
    assert asked == [PART_ROWS, 2]


def test_no_false_alarm_is_told_with_its_bound() -> None:
    count = renderer.AlarmCount("student", "test-stream", 0, 0, 0, 0.5, is_stream=True)
    assert "0 false alarms in 0.50 hours of test-stream" in str(count)
    assert "at most 5.99 (95 %)" in str(count)
    table = renderer.build_alarm_table([count])
    assert [cell.text for cell in table.groups[0].rows[0].cells] == ["–", "0", "0.50", "0.00", "5.99"]


def test_whether_a_student_comes_near_its_teacher_is_told() -> None:
    label = np.array([1] * 10 + [0] * 10)

    def name(role: str, misses: int) -> SimpleNamespace:
        margin = np.where(np.arange(20) < 10 - misses, 3.0, -3.0)
        table = {"label": label, "logits": np.stack([0 * margin, margin], 1), "id": label.astype(str)}
        return SimpleNamespace(name=role, role=role, tables=(table,))

    def tell(*models: SimpleNamespace) -> list[str]:
        return renderer.compare_with_teacher(
            cast(Any, SimpleNamespace(models=models, sets=[SimpleNamespace(name="test")]))
        )

    assert tell(name("teacher", 1), name("distilled", 1)) == [
        "distilled: F1 0.947 on test, the teacher 0.947; within 0.05 of it."
    ]
    assert "not within 0.05" in tell(name("teacher", 1), name("distilled", 3))[0]
    assert tell(name("distilled", 1)) == []


def test_a_mistake_can_be_played_and_seen() -> None:
    sound = np.sin(np.arange(RATE) / 10).astype(np.float32) / 2
    with wave.open(io.BytesIO(renderer.write_wav(sound, RATE))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate(), file.getnframes()) == (1, 2, RATE, RATE)
        played = np.frombuffer(file.readframes(RATE), "<i2") / 32767
    np.testing.assert_allclose(played, sound, atol=1e-4)
    assert renderer.draw_mel(RNG.normal(0, 1, (64, 151)).astype(np.float32)).startswith(b"\x89PNG")
    assert base64.b64decode(renderer._to_uri("audio/wav", b"abc").partition(",")[2]) == b"abc"


def make_clips(folder: Path, noise_of: dict[str, float]) -> Iterator[VoiceClip]:
    """Recordings of six speakers in each class: half a second of noise of the class around a tone."""
    for category, noise in noise_of.items():
        for number in range(24):
            path = folder / f"{category}_{number}.wav"
            hiss = RNG.normal(0, 1, RATE // 2)
            sound = 0.002 * np.convolve(hiss, [1, noise], "same")
            sound[3000:5000] += 0.3 * np.sin(np.arange(2000) / (5 + number % 6))
            soundfile.write(path, sound, RATE)
            group = f"{number % 6} of {category}"
            yield VoiceClip(path, path.name, category, group, 0.5, RATE, "train")


def test_two_recording_chains_are_refused_and_one_is_not(tmp_path: Path) -> None:
    other = recording_chain.probe_chain([*make_clips(tmp_path, {POSITIVE: 0.9, NEGATIVE: -0.9})], RATE)
    assert other is not None
    assert other.gives_away
    message = recording_chain.refuse_chain(other).as_text()
    assert "recording chains" in message
    assert "data.check_chain=false" in message
    same = recording_chain.probe_chain([*make_clips(tmp_path, {POSITIVE: 0.5, NEGATIVE: 0.5})], RATE)
    assert same is not None
    assert not same.gives_away


def test_of_few_recordings_nothing_is_said(tmp_path: Path) -> None:
    assert recording_chain.probe_chain([*make_clips(tmp_path, {POSITIVE: 0.9})], RATE) is None


def test_no_timbre_speaks_in_two_splits() -> None:
    voices = synthetic_voices.list_voices()
    timbres = [voice.partition("+")[2] for voice, _ in voices]
    assert len(set(timbres)) == len(timbres) == len(synthetic_voices.TIMBRES)
    assert [split for _, split in voices].count("test") == synthetic_voices.HELD_OUT["test"]


def test_words_are_spoken_by_voices_that_differ() -> None:
    pytest.importorskip("espeakng_loader", reason="espeakng-loader is not installed: the extra wakeword-voices")
    speaker = synthetic_voices.Speaker()
    one, other = (speaker.say("computer", voice, speed=170, pitch=50) for voice in ("en-us+f2", "en-us+m3"))
    assert 0.3 * RATE < len(one) < 2 * RATE
    assert len(one) != len(other) or not np.allclose(one, other)
    with pytest.raises(UserError, match="knows no voice"):
        speaker.say("computer", "nobody", speed=170, pitch=50)
