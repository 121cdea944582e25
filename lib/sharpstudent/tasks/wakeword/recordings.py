"""Reads recordings: WAV, FLAC, OGG, Opus and what else libsndfile knows, as mono float32 of one sample rate.

What cannot be learnt from is refused with a reason: no samples, silence, values that are no numbers, a level that is
cut off, two channels, 8 bits.

Legend: S samples.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.errors import UserError
from sharpstudent.core.files import check_plain, explain
from sharpstudent.data.dataset import UnreadableSample

PACKAGES = "soundfile~=0.14.0 onnxruntime~=1.32.0"  # of the extra wakeword
SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif")
MOST_BYTES = 2**31  # of one file
MOST_SECONDS = 600.0  # of a recording that is read whole, for training
KEPT_BYTES = 2**29  # of decoded recordings that a process keeps
FULL_SCALE = 32767.0
CLIPPED_SHARE = 0.01  # of the samples at full scale: more than a few peaks
SILENCE = 10.0 ** (-80 / 20)  # the largest value of a recording that counts as silent


@dataclass(frozen=True)
class SoundInfo:
    """What the header of a sound file says.

    Attributes:
        rate: Samples a second.
        seconds: Length.
        channels: How many channels it has.
        subtype: How a sample is stored, in libsndfile's words, such as PCM_16.
    """

    rate: int
    seconds: float
    channels: int
    subtype: str


def load_soundfile() -> Any:
    """Import soundfile; raise UserError that says how to install it."""
    try:
        import soundfile  # pyright: ignore[reportMissingImports] (of an extra)
    except (ImportError, OSError) as error:
        raise UserError.about(
            "soundfile",
            "is not installed, and it reads the recordings",
            got=str(error),
            remedy=f"pip install {PACKAGES}",
        ) from None
    return soundfile


def read_info(path: Path) -> SoundInfo:
    """Read the header of a sound file.

    Raises:
        UnreadableSample: For a file that is no sound.
    """
    soundfile = load_soundfile()
    try:
        check_plain(path, most_bytes=MOST_BYTES)
        found = soundfile.info(str(path))
    except (OSError, soundfile.SoundFileError) as error:
        raise UnreadableSample(str(path), f"is no sound file ({explain(error)})") from None
    return SoundInfo(found.samplerate, found.frames / found.samplerate, found.channels, found.subtype)


def read_recording(path: Path, sample_rate: int) -> NDArray[np.float32]:
    """Read a whole recording.

    Args:
        path: The file.
        sample_rate: Samples a second of the result; a recording of another rate is resampled.

    Returns:
        float32 (S,) in -1..1.

    Raises:
        UnreadableSample: For a file that cannot be read or learnt from.
    """
    info = read_info(path)
    reason = explain_unusable(info)
    if reason is None and info.seconds > MOST_SECONDS:
        reason = f"lasts {info.seconds:.0f} s, and recordings of up to {MOST_SECONDS:.0f} s are learnt from: cut it"
    if reason is not None:
        raise UnreadableSample(str(path), reason)
    soundfile = load_soundfile()
    try:
        samples, rate = soundfile.read(str(path), dtype="float32")
    except (OSError, soundfile.SoundFileError) as error:
        raise UnreadableSample(str(path), f"cannot be decoded ({explain(error)})") from None
    missing = round(info.seconds * rate) - len(samples)
    reason = f"is cut off: {missing:,} samples are missing" if missing > rate // 20 else explain_sound(samples)
    if reason is not None:
        raise UnreadableSample(str(path), reason)
    return resample(samples, rate, sample_rate)


def explain_unusable(info: SoundInfo) -> str | None:
    """Explain why no recording with this header is taken; None for one that may be taken."""
    if info.seconds <= 0:
        return "is empty: it has no samples"
    if info.channels != 1:
        return f"has {info.channels} channels, and one is expected: keep the channel of the microphone"
    if info.subtype in ("PCM_U8", "PCM_S8"):
        return "has 8 bits a sample, whose noise would be learnt: record with 16 bits"
    return None


def explain_sound(samples: NDArray[np.float32]) -> str | None:
    """Explain why these samples (S,) cannot be learnt from; None for those that can."""
    if not len(samples):
        return "is empty: it has no samples"
    if not np.isfinite(samples).all():
        return "has samples that are no numbers"
    loudest = float(np.abs(samples).max())
    if loudest < SILENCE:
        return "is silent"
    if loudest >= 0.999 and float((np.abs(samples) >= 0.999 * loudest).mean()) > CLIPPED_SHARE:
        return f"is clipped: more than {CLIPPED_SHARE:.0%} of its samples are at full scale"
    return None


def resample(samples: NDArray[np.float32], rate: int, wanted: int) -> NDArray[np.float32]:
    """Resample a recording with scipy's polyphase filter.

    Args:
        samples: float32 (S,).
        rate: Its samples a second.
        wanted: Those of the result.

    Returns:
        float32 (about S * wanted / rate,).
    """
    if rate == wanted:
        return samples
    from scipy.signal import resample_poly

    common = math.gcd(rate, wanted)
    return resample_poly(samples, wanted // common, rate // common).astype(np.float32)


BLOCK_SECONDS = 10  # of a long recording that is in memory at once
MARGIN_SECONDS = 1  # on both sides of a block that is resampled, so that its ends are as if there were no blocks


def read_blocks(path: Path, sample_rate: int) -> Iterator[NDArray[np.float32]]:
    """Read a recording of any length, block by block; several channels are averaged.

    Args:
        path: The file.
        sample_rate: Samples a second of the blocks.

    Yields:
        float32 (S,), which joined are the recording.

    Raises:
        UnreadableSample: For a file that cannot be read.
    """
    soundfile, info = load_soundfile(), read_info(path)
    if info.seconds <= 0:
        raise UnreadableSample(str(path), "is empty: it has no samples")
    block, margin = BLOCK_SECONDS * info.rate, MARGIN_SECONDS * info.rate
    kept = np.zeros(0, np.float32)  # the margin before the next block, and the block itself as far as it is read
    try:
        with soundfile.SoundFile(str(path)) as file:
            is_first = True
            while True:
                read = file.read(block, dtype="float32", always_2d=True).mean(axis=1)
                if not np.isfinite(read).all():
                    raise UnreadableSample(str(path), "has samples that are no numbers")
                kept = np.concatenate([kept, read])
                is_last = len(read) < block
                start = 0 if is_first else margin
                end = len(kept) if is_last else len(kept) - margin
                if end > start:
                    whole = resample(kept, info.rate, sample_rate)
                    yield whole[start * sample_rate // info.rate : end * sample_rate // info.rate]
                if is_last:
                    return
                kept, is_first = kept[max(0, end - margin) :], False
    except (OSError, soundfile.SoundFileError) as error:
        raise UnreadableSample(str(path), f"cannot be decoded ({explain(error)})") from None


MICROPHONE_SECONDS = 0.1  # of sound that is taken from a microphone at once
MICROPHONE_PACKAGE = "sounddevice~=0.5.6"


def read_microphone(number: int, sample_rate: int) -> Iterator[NDArray[np.float32]]:
    """Listen to a microphone without an end.

    Args:
        number: The number of the device, as `python -m sounddevice` lists them.
        sample_rate: Samples a second of the blocks.

    Yields:
        float32 (S,).

    Raises:
        UserError: Where sounddevice or PortAudio is not installed.
        UnreadableSample: For a device that is not there or does not give sound.
    """
    try:
        import sounddevice  # pyright: ignore[reportMissingImports] (of an extra)
    except (ImportError, OSError) as error:
        raise UserError.about(
            "sounddevice", "is not installed, and it reads microphones", got=str(error),
            remedy=f"pip install {MICROPHONE_PACKAGE}, on Debian also apt-get install libportaudio2; or record to a "
            "file and name that",
        ) from None  # fmt: skip
    size = round(MICROPHONE_SECONDS * sample_rate)
    try:
        with sounddevice.InputStream(sample_rate, size, number, channels=1, dtype="float32") as stream:
            while True:
                yield stream.read(size)[0][:, 0].copy()
    except (sounddevice.PortAudioError, ValueError) as error:
        raise UnreadableSample(
            f"microphone {number}", f"is no microphone that gives sound ({explain(error)})"
        ) from None


class RecordingCache:
    """Keeps decoded recordings as 16-bit numbers, those used last, up to a number of bytes."""

    def __init__(self, sample_rate: int, most_bytes: int = KEPT_BYTES) -> None:
        """Start with nothing.

        Args:
            sample_rate: Samples a second of what is read.
            most_bytes: How much is kept.
        """
        self._rate, self._most, self._size = sample_rate, most_bytes, 0
        self._kept: OrderedDict[Path, NDArray[np.int16]] = OrderedDict()

    def read(self, path: Path) -> NDArray[np.float32]:
        """Read a recording as `read_recording` does, rounded to 16 bits; raise UnreadableSample as it does."""
        found = self._kept.get(path)
        if found is None:
            samples = read_recording(path, self._rate)
            found = np.round(np.clip(samples, -1.0, 1.0) * FULL_SCALE).astype(np.int16)
            self._kept[path] = found
            self._size += found.nbytes
            while self._size > self._most and len(self._kept) > 1:
                self._size -= self._kept.popitem(last=False)[1].nbytes
        else:
            self._kept.move_to_end(path)
        return found.astype(np.float32) / np.float32(FULL_SCALE)

    def __getstate__(self) -> dict[str, object]:
        """Give a loader process the settings and none of the recordings."""
        return {"_rate": self._rate, "_most": self._most, "_size": 0, "_kept": OrderedDict()}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
