"""Generated words: chirps in the pitch of a speaker, over quiet noise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

RATE = 16000


def draw_word(kind: str, speaker: int, take: int, seconds: float = 0.6) -> NDArray[np.float32]:
    """A rising chirp is the word, a falling one another word, one that first rises and then falls sounds like it."""
    rng = np.random.default_rng([speaker, take, len(kind)])
    t = np.arange(round(seconds * RATE)) / seconds / RATE
    base = 300 + 15 * speaker + 10 * rng.random()
    bend = {"positive": t, "negative": 1 - t, "hard_negative": np.where(t < 0.5, t, 1 - t)}.get(kind, 0 * t)
    phase = 2 * np.pi * np.cumsum(base * (1 + 2 * bend)) / RATE
    sound = 0.2 * np.sin(phase) * np.sin(np.pi * t) + 0.1 * np.sin(2 * phase) * np.sin(np.pi * t)
    noise = rng.normal(0, 0.2 if kind == "background" else 0.002, len(t))
    return ((0 if kind == "background" else 1) * sound + noise).astype(np.float32)


def write_words(
    folder: Path, *, speakers: int = 12, takes: int = 2, change: Callable[[dict[str, Any]], None] = lambda entry: None
) -> Path:
    """splits/{train,val,test}.json and the files that they list; half of the speakers train."""
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed: the extra wakeword")
    lists: dict[str, list[dict[str, Any]]] = {"train": [], "val": [], "test": []}
    for speaker in range(speakers):
        split = "train" if speaker < speakers // 2 else "val" if speaker < 3 * speakers // 4 else "test"
        for kind in ("positive", "negative", "hard_negative", "background"):
            for take in range(takes):
                path = folder / "audio" / kind / f"{speaker}_{take}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                sound = draw_word(kind, speaker, take, 1.5 if kind == "background" else 0.6)
                soundfile.write(path, sound, RATE, subtype="PCM_16")
                entry = {"path": str(path.relative_to(folder)), "category": kind, "duration": len(sound) / RATE,
                         "sample_rate": RATE, "group": f"speaker {speaker}"}  # fmt: skip
                change(entry)
                lists[split].append(entry)
    (folder / "splits").mkdir()
    for split, files in lists.items():
        kinds = sorted({entry["category"] for entry in files})
        text = json.dumps({"files": files, "categories": kinds, "total_files": len(files)})
        (folder / "splits" / f"{split}.json").write_text(text)
    return folder
