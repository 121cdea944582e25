"""Speaks words with espeak-ng, for machines without recordings of people: a data set in the form of the splits.

The voices are a machine's: formants of tables, not of throats. A model of them says nothing about people, and every
list marks them as synthetic (`"pool": "tts"`). The library comes in the wheel `espeakng-loader` (espeak-ng itself is
GPL-3.0-or-later) and is called by way of ctypes.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.arguments import EXIT_CODES, Parser, read_path
from sharpstudent.core.errors import UserError, exit_codes
from sharpstudent.core.io import make_folder, write_bytes_atomically, write_text_atomically
from sharpstudent.core.naming import printable
from sharpstudent.core.random import build_generator
from sharpstudent.tasks.wakeword.clips import BACKGROUND, HARD, NEGATIVE, POSITIVE
from sharpstudent.tasks.wakeword.recordings import resample
from sharpstudent.tasks.wakeword.renderer import write_wav

PACKAGE = "espeakng-loader~=0.2.4"  # of the extra wakeword-voices
RATE = 16000
LICENCE = "spoken by espeak-ng; no rights are claimed"
ACCENTS = ("en-us", "en-gb-x-rp", "en-gb-scotland", "en-us-nyc")
TIMBRES = (
    "m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5", "Alex", "Andy", "Annie", "Denis", "Gene",
    "Hugo", "Lee", "Mario", "Michael", "Reed", "adam", "anika", "aunty", "belinda", "benjamin", "boris", "caleb",
    "david", "ed", "edward", "ian", "iven", "john", "linda", "marcelo", "max", "miguel", "paul", "quincy", "rob",
    "Mike", "shelby", "steph", "travis", "victor", "zac",
)  # fmt: skip
HELD_OUT = {"val": 10, "test": 14}  # voices; the others train
WORDS = (
    "jarvis", "snowboy", "smart mirror", "view glass", "weather", "kitchen", "yesterday", "number seven",
    "good morning", "banana", "please stop", "open the door", "telephone", "radio", "happy birthday", "window",
    "orange juice", "all right then", "tomorrow", "music", "twenty five", "thank you", "elephant", "doctor",
)  # fmt: skip
ALIKES = (
    "commuter", "competitor", "compute", "computation", "compete", "come sooner", "confuser", "composer", "conductor",
    "pewter", "recruiter", "com pewter pot", "committee", "complete her", "compost", "the tutor",
)  # fmt: skip
SENTENCES = (
    "I will be a little late this evening, so please start without me.",
    "There is some bread on the table, and the milk is in the fridge.",
    "We could take the early train and walk from the station to the lake.",
    "Turn left behind the bridge, then follow the road until you see the church.",
)
TAKES = 6  # of the word by each voice
NOISES = {"train": 40, "val": 12, "test": 16}  # recordings of background
NOISE_SECONDS = 5.0


class Speaker:
    """The library of espeak-ng, once a process."""

    def __init__(self) -> None:
        """Load it.

        Raises:
            UserError: Where it is not installed or does not start.
        """
        try:
            import espeakng_loader  # pyright: ignore[reportMissingImports] (of an extra)
        except ImportError:
            raise UserError.about(
                "espeakng-loader", "is not installed, and it speaks the words", remedy=f"pip install {PACKAGE}"
            ) from None
        self._library: Any = ctypes.CDLL(espeakng_loader.get_library_path())
        path = espeakng_loader.get_data_path().encode()
        self._rate = self._library.espeak_Initialize(2, 0, path, 0)  # 2: samples are handed over, none are played
        if self._rate <= 0:
            raise UserError.about(
                "espeakng-loader", "does not start", got=path.decode(), remedy=f"pip install {PACKAGE}"
            )
        self._heard = list[NDArray[np.int16]]()
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self._callback = kind(self._take)  # kept: the library calls it later
        self._library.espeak_SetSynthCallback(self._callback)

    def _take(self, samples: Any, count: int, _: Any) -> int:
        if samples and count > 0:
            self._heard.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def say(self, text: str, voice: str, *, speed: int, pitch: int) -> NDArray[np.float32]:
        """Speak a text.

        Args:
            text: English.
            voice: An accent and a timbre of espeak-ng, such as `en-us+m3`.
            speed: Words a minute.
            pitch: 0..99.

        Returns:
            float32 (S,) in -1..1 of RATE, without the silence at both ends but for a tenth of a second.

        Raises:
            UserError: For a voice that the library does not know.
        """
        self._heard.clear()
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise UserError.about("espeak-ng", f"knows no voice {voice}", remedy=f"pip install {PACKAGE}")
        self._library.espeak_SetParameter(1, speed, 0)
        self._library.espeak_SetParameter(3, pitch, 0)
        content = text.encode() + b"\0"
        self._library.espeak_Synth(content, len(content), 0, 1, 0, 1, None, None)  # UTF-8
        self._library.espeak_Synchronize()
        sound = np.concatenate([*self._heard, np.zeros(1, np.int16)]).astype(np.float32) / 32768.0
        loud = np.flatnonzero(np.abs(sound) > 0.02 * np.abs(sound).max(initial=1e-6))
        margin = self._rate // 10
        kept = sound[max(0, loud[0] - margin) : loud[-1] + margin] if len(loud) else sound
        return resample(kept, self._rate, RATE)


@dataclass(frozen=True)
class Utterance:
    """What is said, and as which category."""

    text: str
    category: str
    take: int = 0


def list_utterances(word: str) -> Iterator[Utterance]:
    """List what every voice says."""
    yield from (Utterance(word, POSITIVE, take) for take in range(TAKES))
    yield from (Utterance(text, NEGATIVE) for text in (*WORDS, *SENTENCES) if text != word)
    yield from (Utterance(text, HARD) for text in ALIKES)


def list_voices() -> list[tuple[str, str]]:
    """List the voices, each with its split; a timbre is in one split only."""
    voices = [f"{ACCENTS[number % len(ACCENTS)]}+{timbre}" for number, timbre in enumerate(TIMBRES)]
    order = np.random.default_rng(0).permutation(len(voices))
    splits = [split for split, count in HELD_OUT.items() for _ in range(count)]
    splits += ["train"] * (len(voices) - len(splits))
    return [(voices[place], split) for place, split in zip(order.tolist(), splits, strict=True)]


def write_voices(folder: Path, word: str, show: Callable[[str], None]) -> None:
    """Write the recordings of all voices, and lists of them as `splits/{train,val,test}.json`.

    Args:
        folder: Where they go.
        word: The wake word.
        show: Gets a line after every few voices.
    """
    speaker, lists = Speaker(), {split: list[dict[str, Any]]() for split in ("train", "val", "test")}
    voices = list_voices()
    for number, (voice, split) in enumerate(voices, start=1):
        for place, said in enumerate(list_utterances(word)):
            rng = build_generator(0, number, place)
            speed, pitch = int(rng.integers(130, 210)), int(rng.integers(25, 75))
            sound = speaker.say(said.text, voice, speed=speed, pitch=pitch)
            name = f"{voice.replace('+', '_')}_{place:02}.wav"
            lists[split].append(_save(folder, said.category, name, _set_level(sound, rng), voice, said.text))
        if number % 8 == 0 or number == len(voices):
            show(f"{number} of {len(voices)} voices")
    for split, count in NOISES.items():
        for number in range(count):
            rng = build_generator(1, number, len(split))
            lists[split].append(_save(folder, BACKGROUND, f"{split}_{number:02}.wav", _draw_noise(rng), split, ""))
    for split, files in lists.items():
        listed = {"files": files, "categories": sorted({one["category"] for one in files}), "total_files": len(files)}
        write_text_atomically(folder / "splits" / f"{split}.json", json.dumps({**listed, "licence": LICENCE}, indent=1))


def _save(folder: Path, category: str, name: str, sound: NDArray[np.float32], who: str, text: str) -> dict[str, Any]:
    """Write a recording; return its entry in the list of its split."""
    path = Path("audio") / category / name
    make_folder((folder / path).parent)
    write_bytes_atomically(folder / path, write_wav(sound, RATE))
    group = who if category != BACKGROUND else f"noise {who}"
    return {"path": str(path), "category": category, "duration": len(sound) / RATE, "sample_rate": RATE,
            "group": group, "word": text, "pool": "tts"}  # fmt: skip


def _set_level(sound: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Bring a recording to a drawn level, and add the hiss of a microphone, the same for all categories."""
    peak = 10.0 ** (rng.uniform(-18.0, -3.0) / 20.0) / max(float(np.abs(sound).max()), 1e-6)
    return sound * np.float32(peak) + rng.normal(0.0, 10.0 ** (-65 / 20), len(sound)).astype(np.float32)


def _draw_noise(rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw background: noise whose spectrum falls by a drawn power of the frequency, whose level swells, and a hum."""
    samples = round(NOISE_SECONDS * RATE)
    spectrum = np.fft.rfft(rng.normal(0.0, 1.0, samples))
    frequencies = np.maximum(np.fft.rfftfreq(samples, 1.0 / RATE), 20.0)
    noise = np.fft.irfft(spectrum / frequencies ** rng.uniform(0.0, 1.0), samples)
    time = np.arange(samples) / RATE
    swell = 1.0 + 0.7 * np.sin(2 * np.pi * rng.uniform(0.2, 3.0) * time + rng.uniform(0, 6))
    hum = rng.uniform(0.0, 0.3) * np.sin(2 * np.pi * rng.choice([50.0, 60.0, 100.0, 120.0]) * time)
    found = noise / np.abs(noise).max() * swell + hum
    return (found / np.abs(found).max() * rng.uniform(0.05, 0.5)).astype(np.float32)


def main(argv: Sequence[str] | None = None) -> None:
    """Write a data set of synthetic voices to the folder that the command line names."""
    examples = ["-m sharpstudent.tasks.wakeword.synthetic_voices data/voices"]
    parser = Parser("-m sharpstudent.tasks.wakeword.synthetic_voices", str(__doc__), more=EXIT_CODES, examples=examples)
    parser.add_argument("folder", type=read_path, help="where the recordings go")
    parser.add_argument("--word", default="computer", help="the wake word (computer)")
    given = parser.read(sys.argv[1:] if argv is None else argv)
    write_voices(given.folder, given.word, partial(print, flush=True))
    print(printable(f"{given.folder}: the voices are SYNTHETIC; a model of them says nothing about people"))


if __name__ == "__main__":
    with exit_codes():
        main()
