"""The wake-word task: other sound 0, the wake word 1.

Importing this module loads neither torch nor NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sharpstudent.core.errors import UserError, choose
from sharpstudent.core.types import Answer, Batch, ExportSpec, InputSource, ModelSpec, Outputs, Sample, Table
from sharpstudent.data.dataset import Samples
from sharpstudent.metrics.metric import Metric
from sharpstudent.task import ClassificationTask
from sharpstudent.tasks.wakeword.scores import METRICS
from sharpstudent.tasks.wakeword.section import WakewordSection

if TYPE_CHECKING:
    from torch import nn

    from sharpstudent.tasks.wakeword.clips import VoiceClip

FORM = ("sample_rate", "duration", "n_mels")  # keys of the section that a checkpoint keeps: the form of its input
RAW = ("speech_embedding", "wav2vec2")  # models that hear the waveform
COLUMNS = ("kind", "seconds", "recording", "start")
TOLERANCE = 0.01  # of F1 and of rates, that an export may lose
UNCERTAIN = 0.03  # the same at the unfavourable end of the interval: of 138 speakers without any change it is .0215


class WakewordTask(ClassificationTask):
    """Tells the wake word from other sound.

    Inputs: `waveform` float32 (R, S) in -1..1, and `audio_features` float32 (R, 1, M, T), the mel spectrogram of the
    same window. Groups are speakers.
    """

    Section = WakewordSection
    demo = "make demo-wakeword"
    device = "microphone"
    commands: ClassVar[Mapping[str, str]] = {"mine": "sharpstudent.tasks.wakeword.mine:main"}
    section: WakewordSection
    classes = ("other", "wake word")
    metrics: ClassVar[Mapping[str, Metric]] = METRICS
    details = "sharpstudent.tasks.wakeword.spoken_answer:RecordingDetails"
    unit = "window"
    group_unit = "speaker"
    facts_of_data = ("word",)
    pretrained: ClassVar[Mapping[str, str]] = {"pretrained": "sharpstudent.tasks.wakeword.wav2vec2:load_pretrained"}
    renderer = "sharpstudent.tasks.wakeword.renderer:WakewordRenderer"

    @property
    def form(self) -> WakewordSection:
        """The section with the form of the model's input: that of the checkpoint, where there is one."""
        kept = {name: value for name, value in (self._facts or {}).items() if name in FORM}
        return self.section.model_copy(update=kept)

    def facts(self) -> dict[str, Any]:
        """Return classes, form of the input and word: what a checkpoint keeps."""
        form = self.form
        word = (self._facts or {}).get("word", self.section.word)
        return {"classes": list(self.classes), **{name: getattr(form, name) for name in FORM}, "word": word}

    def open_data(self, *splits: str) -> tuple[Samples, ...]:
        """Open splits of the data, or conditions of them, such as `test-10dB`.

        Raises UserError that names what is missing or wrong with the data.
        """
        from sharpstudent.tasks.wakeword.clip_layouts import check_files, find_clips
        from sharpstudent.tasks.wakeword.clips import check_clips, choose_word
        from sharpstudent.tasks.wakeword.recordings import load_soundfile
        from sharpstudent.tasks.wakeword.windows import open_windows

        load_soundfile()
        found = choose_word(find_clips(self.section), self.section.word)
        check_files(found.clips)
        check_clips(found, allow_shared="shared-people" in self.allow)
        if "train" in splits and self.section.check_chain and self.section.features == "audio":
            self._check_chain(found.take("train"))
        return tuple(open_windows(found, split, self.section) for split in splits)

    def _check_chain(self, clips: Sequence[VoiceClip]) -> None:
        from sharpstudent.tasks.wakeword.recording_chain import probe_chain, refuse_chain

        probe = probe_chain(clips, self.section.sample_rate)
        if probe is not None and probe.gives_away:
            raise refuse_chain(probe)

    def build_student(self, spec: ModelSpec) -> nn.Module:
        """Build a model by its name; those of RAW hear the waveform, the others read the mel spectrogram.

        Raises UserError for an unknown name or option.
        """
        from sharpstudent.tasks.wakeword.networks import BODIES, build_mel_classifier

        if spec.name not in RAW:
            choose({name: name for name in (*BODIES, *RAW)}, spec.name, spec.role)
            return build_mel_classifier(spec, self.form.n_mels)
        if self.section.features == "precomputed":
            from sharpstudent.tasks.wakeword.speech_embedding import refuse_spectrogram

            raise refuse_spectrogram("data.features = 'precomputed'")
        self._check_rate(spec.name)
        return self._build_listener(spec)

    def _build_listener(self, spec: ModelSpec) -> nn.Module:
        """Build a model that hears the waveform: a frozen body with a head that is trained."""
        if spec.name == "wav2vec2":
            from sharpstudent.tasks.wakeword.wav2vec2 import Wav2VecWakeword

            return Wav2VecWakeword(spec.options, 0.1 if spec.dropout is None else spec.dropout)
        from sharpstudent.tasks.wakeword.speech_embedding import SpeechEmbeddingClassifier

        if spec.options:
            raise UserError.about(
                f"{spec.role}.{next(iter(spec.options))}", "is no option: speech_embedding has none",
                remedy=f'write "{spec.role}": "speech_embedding"',
            )  # fmt: skip
        cache = None if self.section.teacher_cache is None else Path(self.section.teacher_cache)
        return SpeechEmbeddingClassifier(0.0 if spec.dropout is None else spec.dropout, cache)

    def _check_rate(self, name: str) -> None:
        if self.form.sample_rate != 16000:
            raise UserError.about(
                "data.sample_rate", f"is not what {name} was trained on", expected="16000",
                got=str(self.form.sample_rate), remedy="--set data.sample_rate=16000",
            )  # fmt: skip

    def rows(self, outputs: Outputs, batch: Batch) -> Table:
        """Return logits, label, and what a window is of: `kind`, `seconds`, `recording` and `start`."""
        import numpy as np

        return {**super().rows(outputs, batch), **{name: np.array(batch.rows[name]) for name in COLUMNS}}

    def example_batch(self, count: int) -> Batch:
        """Return a batch of `count` silent windows, for tracing a model."""
        import torch

        from sharpstudent.tasks.wakeword.mel import count_frames

        form, names = self.form, tuple(map(str, range(count)))
        inputs = {"audio_features": torch.zeros(count, 1, form.n_mels, count_frames(form.samples))}
        if self.section.features == "audio":
            inputs = {"waveform": torch.zeros(count, form.samples), **inputs}
        return Batch(
            inputs=inputs,
            targets={"label": torch.arange(count) % len(self.classes)},
            rows={
                "id": names,
                "group": names,
                "kind": ("negative",) * count,
                "seconds": (form.duration,) * count,
                "recording": ("",) * count,
                "start": (0.0,) * count,
            },
        )

    def calibrate(self, table: Table) -> dict[str, Any]:
        """Fit the temperature, and choose the threshold of the streaming detector on the validation windows."""
        from sharpstudent.tasks.wakeword.spoken_answer import choose_threshold

        found = super().calibrate(table)
        return {**found, "threshold": choose_threshold(table, found["temperature"])}

    def export_spec(self) -> ExportSpec:
        """Return what an export holds, the logits, and may lose."""
        return ExportSpec(
            outputs=("logits",),
            tolerance=dict.fromkeys(("f1", "accuracy", "eer"), UNCERTAIN),
            fall=dict.fromkeys(("f1", "accuracy", "eer"), TOLERANCE),
            crop=f"{self.form.duration:g} s of {self.form.sample_rate} Hz sound as a mel spectrogram of "
            f"{self.form.n_mels} bands (docs/wakeword.md describes the front end)",
        )

    def finish_export(self, path: Path) -> list[str]:
        """Write an int8 TinyConv as a C header, too."""
        from sharpstudent.tasks.wakeword.device_header import write_header

        return write_header(path)

    def list_suffixes(self) -> tuple[str, ...]:
        """List the endings of sound files."""
        from sharpstudent.tasks.wakeword.recordings import SUFFIXES

        return SUFFIXES

    def open_input(self, source: InputSource) -> Iterator[Sample]:
        """Read a recording of any length, or a microphone, as a stream of windows."""
        from sharpstudent.tasks.wakeword.spoken_answer import stream_windows

        return stream_windows(source, self.form)

    def describe(self, tables: Iterator[Table], stored: Mapping[str, Any]) -> Iterator[Answer]:
        """Say when the wake word was said, and with what confidence."""
        from sharpstudent.tasks.wakeword.spoken_answer import describe_detections

        return describe_detections(tables, stored, duration=self.form.duration)

    @property
    def headline_metrics(self) -> tuple[str, ...]:
        """The metrics that a line on the console shows."""
        return ("f1", "accuracy", "eer", "fpr", "fnr")
