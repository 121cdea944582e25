"""The report of wake words: false alarms an hour with their bounds, and the worst mistakes to be heard and seen.

Legend: N rows of a table.
"""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from sharpstudent.core.errors import format_count_of
from sharpstudent.core.random import build_generator
from sharpstudent.core.types import Table
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.evaluation.evaluate import EvalResult, Evaluation, Heading
from sharpstudent.evaluation.renderer import Measurements, Renderer, Session
from sharpstudent.evaluation.tables import SplitSet
from sharpstudent.report.evaluation import OwnPage
from sharpstudent.report.text_table import Cell, Group, Row, TextTable
from sharpstudent.tasks.wakeword.recordings import FULL_SCALE
from sharpstudent.tasks.wakeword.scores import METRICS, THRESHOLD, bound_rate, count_detections, find_margin
from sharpstudent.tasks.wakeword.windows import Windows

SHOWN_OF_A_KIND = 2  # misses, and false alarms, of each set
MOST_SHOWN = 16  # mistakes on a page: each is some 70 kB
ROWS_READ = 20  # the worst rows of a set that are opened to find mistakes of different speakers
COLUMNS = ("Words heard", "False alarms", "Hours", "An hour", "At most (95 %)")


@dataclass(frozen=True)
class SoundMistake:
    """A window that a model is wrong about.

    Attributes:
        model: The name of the model.
        set: The name of the set.
        name: The name of the window.
        word: What is said in it, where the data says so.
        label: 1 for the wake word.
        probability: Of the wake word, as the model says.
        sound: The window as a WAV file, in a data URI.
        picture: Its mel spectrogram as a PNG, in a data URI.
    """

    model: str
    set: str
    name: str
    word: str
    label: int
    probability: float
    sound: str
    picture: str


@dataclass(frozen=True)
class AlarmCount:
    """What a model does on a set at its stored threshold.

    Attributes:
        model: The name of the model.
        set: The name of the set.
        heard: How many positives it calls the word.
        positives: How many there are.
        alarms: False alarms: detections of a stream, windows of other sets.
        hours: Of sound without the word.
        is_stream: Whether the set is a stream.
    """

    model: str
    set: str
    heard: int
    positives: int
    alarms: int
    hours: float
    is_stream: bool

    @property
    def bound(self) -> float:
        """The upper bound of the alarms an hour, one-sided 95 %."""
        return bound_rate(self.alarms, self.hours)

    def __str__(self) -> str:
        """A sentence for the verdict."""
        count = format_count_of(self.alarms, "false alarm")
        return (
            f"{self.model}: {count} in {self.hours:.2f} hours of {self.set}, {self.alarms / self.hours:.2f} an hour "
            f"and at most {self.bound:.2f} (95 %), at the threshold chosen on validation."
        )


CLOSE = 0.05  # of F1: how near to its teacher a student shall come


class WakewordRenderer(Renderer):
    """Adds false alarms and mistakes to the report of every task."""

    def find_mistakes(self, session: Session, evaluation: Evaluation) -> tuple[Sequence[Any], Sequence[Any]]:
        """Find the windows that the model which the report is about is most wrong about."""
        model = _choose_model(evaluation.models)
        found: list[SoundMistake] = []
        for one, table in zip(evaluation.sets, model.tables, strict=True):
            if isinstance(one, SplitSet):
                samples = one.open(model.input_key)
                if isinstance(samples, Windows) and samples.section.features == "audio":
                    found += _find_worst(model.name, one.name, samples, table)
        return found[:MOST_SHOWN], ()

    def build_results(self, session: Session, evaluation: Evaluation, measured: Measurements, heading: Heading) -> Any:
        """Build the results of every task; the verdict also tells of false alarms in streams and the teacher's F1."""
        results = super().build_results(session, evaluation, measured, heading)
        sentences = [str(one) for one in count_alarms(evaluation) if one.is_stream and one.hours > 0]
        sentences += compare_with_teacher(evaluation)
        return results.model_copy(update={"verdict": (*results.verdict, *sentences)})

    def build_own_page(self, evaluation: Evaluation, measured: Measurements) -> OwnPage:
        """Build the table of false alarms, and the mistakes."""
        parts = {"alarms": build_alarm_table(count_alarms(evaluation)), "mistakes": list(measured.mistakes)}
        return OwnPage("wakeword.html.j2", "sharpstudent.tasks.wakeword", parts)


def compare_with_teacher(evaluation: Evaluation) -> list[str]:
    """Say whether the student comes near to its teacher's F1 on the first set; nothing without a teacher."""
    teacher = next((one for one in evaluation.models if one.role == "teacher"), None)
    student = _choose_model(evaluation.models)
    if teacher is None or student is teacher or not (teacher.tables[0]["label"] == 1).any():
        return []
    own, taught = (METRICS["f1"].value(one.tables[0]) for one in (student, teacher))
    verdict = "within" if own >= taught - CLOSE else "not within"
    name = evaluation.sets[0].name
    return [f"{student.name}: F1 {own:.3f} on {name}, the teacher {taught:.3f}; {verdict} {CLOSE:g} of it."]


def count_alarms(evaluation: Evaluation) -> list[AlarmCount]:
    """Count hits and false alarms of every model on every set, at the threshold that its checkpoint stores."""
    return [
        _count(model, one.name, table)
        for place, one in enumerate(evaluation.sets)
        for model in evaluation.models
        for table in model.tables[place : place + 1]
    ]


def _count(model: EvalResult, name: str, table: Table) -> AlarmCount:
    kept = model.about.get("calibration") or {}
    temperature, threshold = float(kept.get("temperature", 1.0)), float(kept.get("threshold", THRESHOLD))
    probability, positive = expit(find_margin(table) / temperature), table["label"] == 1
    is_stream = bool((table["recording"] != "").any())
    called = count_detections(table, probability, threshold) if is_stream else probability >= threshold
    hours = float(table["seconds"][~positive].sum()) / 3600.0
    heard = int((probability >= threshold)[positive].sum())
    return AlarmCount(
        model.name, name, heard, int(positive.sum()), int(called[~positive].sum()), hours, is_stream
    )  # fmt: skip


def build_alarm_table(counts: Sequence[AlarmCount]) -> TextTable:
    """Build the table: a group of rows for each set, a row for each model."""
    groups = [
        Group(name, tuple(Row(Cell(one.model, kind="words"), tuple(_list_cells(one))) for one in counts
                          if one.set == name))
        for name in dict.fromkeys(one.set for one in counts)
    ]  # fmt: skip
    return TextTable("False alarms", "Model", tuple(Cell(title) for title in COLUMNS), tuple(groups))


def _list_cells(one: AlarmCount) -> Iterator[Cell]:
    yield Cell(f"{one.heard} of {one.positives}" if one.positives else "–")
    yield Cell(str(one.alarms))
    yield Cell(f"{one.hours:.2f}")
    yield Cell(f"{one.alarms / one.hours:.2f}" if one.hours > 0 else "–")
    yield Cell(f"{one.bound:.2f}" if one.hours > 0 else "–")


def _choose_model(models: Sequence[EvalResult]) -> EvalResult:
    """Choose the model whose mistakes are shown: the distilled one, else the last that is no teacher."""
    students = [one for one in models if one.role != "teacher"] or list(models)
    return next((one for one in students if one.role == "distilled"), students[-1])


def _find_worst(model: str, name: str, samples: Windows, table: Table) -> Iterator[SoundMistake]:
    """Yield the worst misses and the worst false alarms of a set, each of another speaker."""
    probability = expit(find_margin(table))
    wrong = np.where(table["label"] == 1, 1.0 - probability, probability)
    for label in (1, 0):
        rows = np.flatnonzero((table["label"] == label) & (wrong >= 0.5))
        rows = rows[np.argsort(-wrong[rows], kind="stable")][:ROWS_READ]
        seen = dict[str, int]()
        for row in rows.tolist():
            seen.setdefault(str(table["group"][row]), row)
        for row in list(seen.values())[:SHOWN_OF_A_KIND]:
            mistake = _hear(samples, int(table["key"][row][0]))
            if mistake is not None:
                yield replace(mistake, model=model, set=name, label=label, probability=float(probability[row]))


def _hear(samples: Windows, index: int) -> SoundMistake | None:
    """Make a window again as sound and picture; None where its recording is gone."""
    try:
        inputs: Mapping[str, NDArray[Any]] = samples.make(index, build_generator(samples.seed, 0, index)).inputs
    except UnreadableSample:
        return None
    sound = _to_uri("audio/wav", write_wav(inputs["waveform"][0], samples.section.sample_rate))
    picture = _to_uri("image/png", draw_mel(inputs["audio_features"][0, 0]))
    return SoundMistake("", "", samples.name(index), samples.specs[index].clip.word, 0, 0.0, sound, picture)


def write_wav(sound: NDArray[np.float32], sample_rate: int) -> bytes:
    """Write sound (S,) in -1..1 as a WAV file of 16 bits."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(np.round(np.clip(sound, -1.0, 1.0) * FULL_SCALE).astype("<i2").tobytes())
    return content.getvalue()


def draw_mel(mel: NDArray[np.float32]) -> bytes:
    """Draw a mel spectrogram (M, T) as a grey PNG, loud bright, low tones below."""
    from PIL import Image

    low, high = float(mel.min()), float(mel.max())
    grey = np.round(255.0 * (mel[::-1] - low) / max(high - low, 1e-6)).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(grey).save(content, "PNG")
    return content.getvalue()


def _to_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
