"""Answers about recordings and microphones: when the wake word was said, and how sure that is.

A recording is read block by block, cut into windows every HOP_SECONDS, and judged by the streaming detector with the
temperature and the threshold that the checkpoint stores. Memory does not grow with the recording, but for its
detections.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import expit

from sharpstudent.core.errors import format_count_of
from sharpstudent.core.types import Answer, InputSource, Sample, Table
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.report.results import Plain
from sharpstudent.tasks.wakeword.detections import HOP_SECONDS, Detection, StreamingDetector
from sharpstudent.tasks.wakeword.mel import compute_mel
from sharpstudent.tasks.wakeword.mixing import Wave, place_word
from sharpstudent.tasks.wakeword.recordings import read_blocks, read_info, read_microphone
from sharpstudent.tasks.wakeword.scores import THRESHOLD, find_margin
from sharpstudent.tasks.wakeword.section import WakewordSection

MOST_FPR = 0.005  # of the validation windows without the word, at the threshold that a checkpoint stores
MOST_DETECTIONS = 10_000  # of one recording that an answer lists
SHOWN = 5  # times in a sentence
PARTIAL_SECONDS = 60.0  # of a recording between two partial answers


class SpokenWord(Plain):
    """A detection: when the threshold was reached [s], when it was surest [s], and the mean probability then."""

    start: float
    peak: float
    confidence: float


class RecordingDetails(Plain):
    """What predictions.json says of a recording besides the answer: the threshold, its length [s], the detections."""

    threshold: float
    seconds: float
    detections: tuple[SpokenWord, ...]


def choose_threshold(table: Table, temperature: float) -> float:
    """Choose the threshold of the streaming detector: the lowest from THRESHOLD on with an FPR of at most MOST_FPR.

    Args:
        table: The validation windows.
        temperature: What their margins are divided by.

    Returns:
        A probability, 0..1.
    """
    probability = expit(find_margin(table) / temperature)
    negatives = np.sort(probability[table["label"] == 0])[::-1]
    if not len(negatives):
        return THRESHOLD
    allowed = min(int(MOST_FPR * len(negatives)), len(negatives) - 1)
    return float(min(max(THRESHOLD, np.nextafter(negatives[allowed], 2.0)), 1.0))


def stream_windows(source: InputSource, form: WakewordSection) -> Iterator[Sample]:
    """Cut sound into windows, every HOP_SECONDS; a shorter recording is put into the middle of one window.

    Args:
        source: A file or a microphone.
        form: Sample rate, length of a window and mel bands.

    Yields:
        A sample for each window, with the columns `start` [s] and `share`.

    Raises:
        UserError: For a microphone without what reads it.
        UnreadableSample: For what is no sound.
    """
    seconds, blocks = _open_blocks(source, form.sample_rate)
    length, hop = form.samples, round(HOP_SECONDS * form.sample_rate)
    waiting, offset, count = np.zeros(0, np.float32), 0, 0
    for block in blocks:
        waiting = np.concatenate([waiting, block])
        while len(waiting) >= length:
            yield _make_window(source, waiting[:length], offset / form.sample_rate, form, seconds)
            waiting, offset, count = waiting[hop:], offset + hop, count + 1
    if count == 0:
        yield _make_window(source, place_word(waiting, length, 0), 0.0, form, seconds)


def _open_blocks(source: InputSource, sample_rate: int) -> tuple[float, Iterator[Wave]]:
    """Open a file or a microphone: its length [s], and its sound block by block."""
    if source.path is not None:
        return max(read_info(source.path).seconds, 1e-9), read_blocks(source.path, sample_rate)
    if isinstance(source.stream, int):
        return math.inf, read_microphone(source.stream, sample_rate)
    raise UnreadableSample(source.name, "is an address: sound is read from files and microphones")


def _make_window(source: InputSource, window: Wave, start: float, form: WakewordSection, seconds: float) -> Sample:
    mel = compute_mel(window, form.n_mels, form.sample_rate)
    return Sample(
        inputs={"waveform": window[None].copy(), "audio_features": mel[None]},
        rows={
            "id": (f"{source.name} {start:.1f} s",),
            "start": (start,),
            "share": (min(1.0, (start + form.duration) / seconds),),
        },
    )


def describe_detections(tables: Iterator[Table], stored: Mapping[str, Any], *, duration: float) -> Iterator[Answer]:
    """Say when the wake word was said, as far as a recording has been read.

    Args:
        tables: The windows of the recording as they come, with `logits` and `start`.
        stored: The description of the model; its `calibration` has `temperature` and `threshold`.
        duration: The length of a window [s].

    Yields:
        Answers, the last of them final.
    """
    kept = stored.get("calibration") or {}
    temperature, threshold = float(kept.get("temperature", 1.0)), float(kept.get("threshold", THRESHOLD))
    detector, found = StreamingDetector(threshold, duration), list[Detection]()
    highest, total, last, said = 0.0, 0, 0.0, 0.0
    for table in tables:
        logits = table["logits"].astype(np.float64)
        for start, one in zip(table["start"], expit((logits[:, 1] - logits[:, 0]) / temperature), strict=True):
            ended = detector.add(float(start), float(one))
            found += [ended] if ended is not None and len(found) < MOST_DETECTIONS else []
            highest, total, last = max(highest, detector.smoothed), total + 1, float(start) + duration
            if ended is not None or last - said >= PARTIAL_SECONDS:
                said = last
                news = "" if ended is None else f"the wake word at {ended.peak:.1f} s ({ended.confidence:.0%})"
                yield replace(_describe(found, highest, total, last, threshold), news=news)
    ended = detector.finish()
    found += [ended] if ended is not None else []
    yield _describe(found, highest, total, last, threshold)


def _describe(found: list[Detection], highest: float, windows: int, seconds: float, threshold: float) -> Answer:
    times = ", ".join(f"{one.peak:.1f} s ({one.confidence:.0%})" for one in found[:SHOWN])
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    sentence = (
        f"The wake word was heard {format_count_of(len(found), 'time')}: {times}{more}."
        if found
        else f"The wake word was not heard; the highest probability was {highest:.0%}."
    )
    words = tuple(
        SpokenWord(start=round(one.start, 3), peak=round(one.peak, 3), confidence=round(one.confidence, 6))
        for one in found
    )
    return Answer(
        outcome="wake word" if found else "other",
        sentence=sentence,
        reasons=(
            f"{format_count_of(windows, 'window')} in {seconds:.1f} s of sound; a detection needs a mean probability "
            f"of {threshold:.0%} over three windows, and a time is the end of the window of the highest one.",
        ),
        score=highest,
        details=RecordingDetails(threshold=threshold, seconds=round(seconds, 3), detections=words).model_dump(
            mode="json"
        ),
        columns=tuple(SpokenWord.model_fields),
        rows=[tuple(word.model_dump().values()) for word in words],
    )
