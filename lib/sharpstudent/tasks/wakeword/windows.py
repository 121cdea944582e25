"""One split as windows of a fixed length: `waveform` and `audio_features` of the same augmented sound.

The conditions of a test are views of one split, named behind a hyphen:

    test               recordings of people, in the middle of the window
    test-0dB           the same with background sound at this ratio (any number)
    test-soundalikes   the same positives against the hard negatives alone
    test-stream        no positives: everything else without gaps, a window every HOP_SECONDS

Validation, which selects checkpoints, is every recording twice, as it is and with background at a ratio between
`snr_low` and `snr_high`, so that it is harder than quiet recordings.

Legend: S samples of a window, M mel bands, T frames.
"""

from __future__ import annotations

import functools
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sharpstudent.core.errors import UserError
from sharpstudent.core.files import explain, read_plain
from sharpstudent.core.random import build_generator
from sharpstudent.core.types import Sample
from sharpstudent.data.dataset import Samples, UnreadableSample
from sharpstudent.tasks.wakeword.clips import (
    BACKGROUND,
    HARD,
    NEGATIVE,
    POSITIVE,
    ROOMS,
    FoundClips,
    VoiceClip,
    describe_split,
)
from sharpstudent.tasks.wakeword.detections import HOP_SECONDS
from sharpstudent.tasks.wakeword.mel import HOP, compute_mel
from sharpstudent.tasks.wakeword.mixing import (
    Wave,
    add_background,
    add_room,
    change_level,
    change_speed,
    mask_mel,
    measure_power,
    pass_codec,
    place_word,
)
from sharpstudent.tasks.wakeword.recordings import RecordingCache, read_recording
from sharpstudent.tasks.wakeword.section import WakewordSection

NOISE = re.compile(r"(-?\d+(?:\.\d+)?)dB")
SOUND_ALIKES, STREAM = "soundalikes", "stream"
CLEAN = "clean"
MIXED = "mixed"  # validation's copies at a drawn ratio
QUIET_SAMPLES = 2**20  # of such noise; a window is at most 480,000
PAD_NOISE = 1e-4  # deviation of what fills a window beside a short recording: digital silence would be a cue
NOISE_TRIES = 5
MOST_FEATURE_BYTES = 2**24  # of a file of one mel spectrogram


@dataclass(frozen=True)
class WindowSpec:
    """One window of an evaluated or training split.

    Attributes:
        clip: Its recording.
        part: Which of the recording's windows it is, from 0.
        parts: How many the recording has.
        condition: `clean`, `mixed`, or a ratio such as `10dB`.
        start: Where it begins in the recording [s]; None for a place that follows from `part`.
    """

    clip: VoiceClip
    part: int = 0
    parts: int = 1
    condition: str = CLEAN
    start: float | None = None

    @property
    def name(self) -> str:
        """The name for users."""
        more = "" if self.start is None and self.parts == 1 else f" window {self.part + 1}"
        return f"{self.clip.name}{more}" + ("" if self.condition == CLEAN else f" ({self.condition})")


def open_windows(found: FoundClips, split: str, section: WakewordSection) -> Windows:
    """Open a split of a data set, or one of its conditions.

    Args:
        found: All recordings.
        split: `train`, `validation`, `test` or another split of the data, with a condition behind a hyphen.
        section: The keys of the data.

    Returns:
        The windows.

    Raises:
        UserError: For a split or a condition that does not exist.
    """
    base, condition = split_condition(found, split)
    clips = found.take(base)
    if base == "train":
        specs = [spec for clip in _choose(clips, section.background_negatives) for spec in _cut(clip, section)]
        specs = _balance(specs, section.positive_share)
    elif condition == STREAM:
        specs = [spec for clip in clips if clip.category in (NEGATIVE, BACKGROUND) for spec in _follow(clip, section)]
    else:
        specs = _build_evaluated(clips, base, condition, section)
    noise = [clip for clip in clips if clip.category == BACKGROUND] or [
        clip for clip in found.clips if clip.category == BACKGROUND and clip.split == "train"
    ]
    rooms = [clip for clip in found.clips if clip.category == ROOMS]
    windows = Windows(specs, section, noise=noise, rooms=rooms, is_training=base == "train")
    windows.notes = (*found.notes, describe_split(base, clips))
    windows.depends_on = found.files
    return windows


def split_condition(found: FoundClips, name: str) -> tuple[str, str]:
    """Divide the name of a set into a split of the data and a condition, "" for none."""
    if any(clip.split == name for clip in found.clips):
        return name, ""
    base, _, condition = name.partition("-")
    return base, condition


def _build_evaluated(
    clips: Sequence[VoiceClip], split: str, condition: str, section: WakewordSection
) -> list[WindowSpec]:
    """List the windows of an evaluated split in one condition."""
    if condition == SOUND_ALIKES:
        chosen = [clip for clip in _take_people(clips) if clip.label] + [c for c in clips if c.category == HARD]
    elif condition in ("", CLEAN) or NOISE.fullmatch(condition):
        chosen = list(clips) if split == "validation" else _take_people(clips)
    else:
        raise UserError.about(
            f"--data {split}",
            f"names no condition: {condition!r}",
            expected=f"nothing, a ratio such as 10dB, {SOUND_ALIKES} or {STREAM}",
            remedy=f"--data {split}-10dB",
        )
    if not chosen:
        raise UserError.about(
            f"--data {split}", "holds no recordings", expected="recordings of this kind", remedy="name another split"
        )
    ways = [condition or CLEAN] if condition != SOUND_ALIKES else [CLEAN]
    if split == "validation":
        ways, chosen = [CLEAN, MIXED], _choose(chosen, section.background_negatives)
    return [
        WindowSpec(spec.clip, spec.part, spec.parts, way) for clip in chosen for spec in _cut(clip, section)
        for way in (ways if clip.category != BACKGROUND else ways[:1])
    ]  # fmt: skip


def _take_people(clips: Sequence[VoiceClip]) -> list[VoiceClip]:
    """Take positives and negatives that people say; where only machines speak, all of them."""
    speech = [clip for clip in clips if clip.category in (POSITIVE, NEGATIVE)]
    return [clip for clip in speech if not clip.is_synthetic] or speech


def _choose(clips: Sequence[VoiceClip], with_background: bool) -> list[VoiceClip]:
    return [clip for clip in clips if clip.category != ROOMS and (with_background or clip.category != BACKGROUND)]


def _cut(clip: VoiceClip, section: WakewordSection) -> list[WindowSpec]:
    parts = 1 if clip.label else min(section.windows_per_clip, max(1, round(clip.seconds / section.duration)))
    return [WindowSpec(clip, part, parts) for part in range(parts)]


def _balance(specs: Sequence[WindowSpec], share: float) -> list[WindowSpec]:
    """Repeat the positives until they are about this share of the windows; every repetition is augmented anew."""
    positives = [spec for spec in specs if spec.clip.label]
    wanted = share / (1.0 - share) * (len(specs) - len(positives))
    return [*specs, *positives * max(0, round(wanted / len(positives)) - 1)] if positives else list(specs)


def _follow(clip: VoiceClip, section: WakewordSection) -> list[WindowSpec]:
    """List the windows of a recording as a stream meets them."""
    count = max(1, math.floor((clip.seconds - section.duration) / HOP_SECONDS) + 1)
    return [WindowSpec(clip, part, count, start=part * HOP_SECONDS) for part in range(count)]


class Windows(Samples):
    """Windows of one split."""

    def __init__(
        self,
        specs: Sequence[WindowSpec],
        section: WakewordSection,
        *,
        noise: Sequence[VoiceClip],
        rooms: Sequence[VoiceClip],
        is_training: bool,
    ) -> None:
        """Keep what windows are made of; no recording is opened.

        Args:
            specs: The windows.
            section: The keys of the data.
            noise: Background recordings.
            rooms: Room responses.
            is_training: Whether windows are augmented.
        """
        self.specs, self.section, self.is_training = list(specs), section, is_training
        self.noise, self.rooms = list(noise), list(rooms)
        self.seed = section.split_seed
        self.recordings = RecordingCache(section.sample_rate)

    def __len__(self) -> int:
        return len(self.specs)

    def name(self, index: int) -> str:
        """Return the recording, the number of its window, and the condition."""
        return self.specs[index].name

    def group(self, index: int) -> str:
        """Return the speaker."""
        return self.specs[index].clip.group

    def make(self, index: int, rng: np.random.Generator) -> Sample:
        """Make a window; training windows are augmented. Raises UnreadableSample as `read_recording` does."""
        spec, section = self.specs[index], self.section
        if section.features == "precomputed":
            return self._describe(index, {"audio_features": self._load_features(spec.clip)})
        of_sound = rng  # the masks are of this visit, also where the sound recurs
        if self.is_training and section.views:
            of_sound = build_generator(self.seed, int(rng.integers(section.views)), index)
        window = self.make_sound(index, of_sound)
        mel = compute_mel(window, section.n_mels, section.sample_rate)
        if self.is_training and (section.time_mask > 0 or section.mel_mask):
            frames = round(section.time_mask * section.sample_rate / HOP)
            mel = mask_mel(mel, rng, most_frames=frames, most_bands=section.mel_mask)
        return self._describe(index, {"waveform": window[None], "audio_features": mel[None]})

    def make_sound(self, index: int, rng: np.random.Generator) -> Wave:
        """Make the sound of a window, float32 (S,), as the teacher hears it."""
        spec, section = self.specs[index], self.section
        recording = self.recordings.read(spec.clip.path)
        window = self._play(spec, recording, rng)
        if not self.is_training:
            if spec.condition == CLEAN:
                return window
            drawn = rng.uniform(section.snr_low, section.snr_high)
            ratio = drawn if spec.condition == MIXED else float(spec.condition.removesuffix("dB"))
            return add_background(window, self._draw_noise(rng), ratio, level=measure_power(recording))
        if rng.random() < section.rir_prob and self.rooms:
            room = self.rooms[int(rng.integers(len(self.rooms)))]
            window = add_room(window, read_recording(room.path, section.sample_rate))
        if rng.random() < section.background_noise_prob and self.noise and spec.clip.category != BACKGROUND:
            ratio = rng.uniform(section.snr_low, section.snr_high)
            window = add_background(window, self._draw_noise(rng), ratio, level=measure_power(recording))
        window = change_level(window, rng.uniform(-section.gain_db, section.gain_db))
        return pass_codec(window) if rng.random() < section.codec_prob else window

    def _play(self, spec: WindowSpec, recording: Wave, rng: np.random.Generator) -> Wave:
        """Take the window at the speed of the recording, or of training at a drawn one."""
        length, most = self.section.samples, round(100 * self.section.speed)
        if not (self.is_training and most):
            return self._cut_window(spec, recording, rng, length)
        percent = int(rng.integers(100 - most, 100 + most + 1))
        return change_speed(self._cut_window(spec, recording, rng, math.ceil(length * percent / 100)), percent, length)

    def _cut_window(self, spec: WindowSpec, recording: Wave, rng: np.random.Generator, length: int) -> Wave:
        """Cut a window out of its recording, or put a short recording into it, over very quiet noise."""
        section = self.section
        if spec.start is not None:
            start = round(spec.start * section.sample_rate)
            window = place_word(recording[start : start + length], length, 0)
            if start + length <= len(recording):
                return window  # as the streaming detector hears it
        elif spec.parts > 1 or (len(recording) > length and not spec.clip.label):
            room = len(recording) - length
            share = (spec.part + (rng.random() if self.is_training else 0.5)) / spec.parts
            start = max(0, round(share * room))
            window = place_word(recording[start : start + length], length, 0)
        else:
            most = section.shift * section.sample_rate if self.is_training else 0.0
            window = place_word(recording, length, round(rng.uniform(-most, most)))
        quiet = _build_quiet_noise()
        first = int(rng.integers(len(quiet) - length))
        return window + quiet[first : first + length]

    def _draw_noise(self, rng: np.random.Generator) -> Wave:
        """Draw a window of background; white noise where the data has none, or none that can be read."""
        length = self.section.samples
        for _ in range(NOISE_TRIES if self.noise else 0):
            clip = self.noise[int(rng.integers(len(self.noise)))]
            try:
                found = self.recordings.read(clip.path)
            except UnreadableSample:
                continue  # it is reported where it is a sample of its own; another one serves as well here
            start = int(rng.integers(max(1, len(found) - length + 1)))
            found = found[start : start + length]
            return np.resize(found, length) if len(found) < length else found
        return rng.normal(0.0, 0.1, length).astype(np.float32)

    def _load_features(self, clip: VoiceClip) -> Wave:
        """Read the mel spectrogram of a recording (1, 1, M, T)."""
        section = self.section
        wanted = (1, section.n_mels, section.samples // HOP + 1)
        if clip.features is None:
            raise UnreadableSample(clip.name, "has no npy_path, and data.features is precomputed")
        try:
            found = np.load(io.BytesIO(read_plain(clip.features, most_bytes=MOST_FEATURE_BYTES)), allow_pickle=False)
        except Exception as error:  # noqa: BLE001 (the parser of hostile headers may raise anything)
            raise UnreadableSample(str(clip.features), f"is no array ({explain(error)})") from None
        if not isinstance(found, np.ndarray):
            raise UnreadableSample(str(clip.features), "is an archive of several arrays")
        if found.size != math.prod(wanted) or found.dtype.kind != "f" or not np.isfinite(found).all():
            raise UnreadableSample(str(clip.features), f"is no mel spectrogram of shape {wanted}: {found.shape}")
        return found.reshape(1, *wanted).astype(np.float32)

    def _describe(self, index: int, inputs: dict[str, Wave]) -> Sample:
        """Add label, weight and columns to the inputs of a window."""
        spec, section = self.specs[index], self.section
        weight = section.hard_negative_weight if spec.clip.category == HARD else 1.0
        is_stream = spec.start is not None
        seconds = HOP_SECONDS if is_stream else min(section.duration, spec.clip.seconds or section.duration)
        return Sample(
            inputs=inputs,
            targets={"label": np.array([spec.clip.label])},
            weights={"label": np.array([weight], np.float32)},
            rows={
                "id": (spec.name,),
                "kind": (spec.clip.category,),
                "seconds": (seconds,),
                "recording": (spec.clip.name if is_stream else "",),
                "start": (spec.start if spec.start is not None else 0.0,),
            },
        )


@functools.cache
def _build_quiet_noise() -> Wave:
    """Build the noise that windows take a stretch of: drawing it anew took a third of the time of a window."""
    return np.random.default_rng(0).normal(0.0, PAD_NOISE, QUIET_SAMPLES).astype(np.float32)
