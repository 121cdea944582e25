"""Fuzzing of cropping: seeded damage to videos, pictures and landmark files, which a watched process then crops."""

from __future__ import annotations

import json
import random
import select
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from block_clips import place_landmarks, write_picture
from drawn_faces import draw_face
from made_videos import write_video

ROOT = Path(__file__).resolve().parents[4]
SHARED = ROOT.parent / "shared" / "data"
LARGEST_CLIP = 1_100_000  # bytes


def collect_originals(folder: Path) -> list[Path]:
    """Undamaged files in every format: drawn ones, and real ones where they are present."""
    faces = [draw_face(seed, 160)[0] for seed in range(3)]
    videos = [("FFV1", "avi"), ("FFV1", "mkv"), ("mp4v", "mp4"), ("MJPG", "avi"), ("VP80", "webm")]
    found = [
        write_video(folder / f"{codec}.{suffix}", [faces[i // 4] for i in range(12)], codec=codec)
        for codec, suffix in videos
    ]
    found += [write_picture(folder / f"a{suffix}", faces[0]) for suffix in (".png", ".jpg", ".webp", ".bmp")]
    np.save(folder / "a.npy", place_landmarks((40, 40, 120, 120))[None].astype(np.int64))
    found.append(folder / "a.npy")
    clips = sorted((SHARED / "videos").glob("*.mp4"))
    found += [clip for clip in clips if clip.stat().st_size < LARGEST_CLIP]
    return found + sorted((SHARED / "faces").glob("*/*.jpg"))[:3]


def mutate(original: Path, others: list[Path], rng: random.Random) -> bytes:
    """One of seven kinds of damage."""
    content = bytearray(original.read_bytes())
    kind = rng.randrange(7)
    place, length = rng.randrange(len(content)), rng.choice([1, 16, 300, 5000])
    if kind == 0:  # single bits anywhere
        for _ in range(rng.choice([1, 8, 64, 512])):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif kind == 1:  # bytes of the header
        for _ in range(rng.choice([1, 4, 16])):
            content[rng.randrange(min(len(content), 400))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
    elif kind == 2:
        del content[place:]
    elif kind == 3:
        del content[place : place + length]
    elif kind == 4:
        content[place : place + length] = rng.randbytes(min(length, len(content) - place))
    elif kind == 5:  # the head of this file, the tail of another
        other = rng.choice(others).read_bytes()
        content[place:] = other[rng.randrange(len(other)) :]
    else:  # a part twice, and the end of a video's index, where MP4 keeps it
        content[place:place] = content[place : place + length]
        for _ in range(8):
            content[-1 - rng.randrange(min(len(content), 2000))] ^= 1 << rng.randrange(8)
    return bytes(content)


@dataclass
class Tally:
    """What became of the damaged files. died, hung: their numbers."""

    cropped: int = 0
    rejected: int = 0
    died: list[int] = field(default_factory=list)
    hung: list[int] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)


def crop_damaged_clips(count: int, folder: Path, *, seed: int, seconds: float) -> Tally:
    """Crop `count` damaged files in a child process, which is killed after `seconds` on one of them."""
    originals = collect_originals(folder)
    tally, child = Tally(), _Child()
    for i in range(count):
        rng = random.Random(f"{seed} {i}")
        original = originals[i % len(originals)]
        damaged = folder / f"damaged{original.suffix}"
        damaged.write_bytes(mutate(original, originals, rng))
        result = child.crop(_describe(damaged, folder), seconds)
        if isinstance(result, dict):
            tally.cropped += result["faces"] > 0
            tally.rejected += result["faces"] == 0
            tally.reasons.update(reason.split("(")[0][:60] for reason in set(result["rejected"]))
            assert result["faces"] > 0 or result["rejected"], (
                f"file {i}, damaged {original.name}: neither face nor reason"
            )
        else:
            (tally.hung if result == "hung" else tally.died).append(i)
            child.end()
            child = _Child()
    child.end()
    return tally


def _describe(damaged: Path, folder: Path) -> dict[str, str]:
    if damaged.suffix == ".npy":
        return {"kind": "frames", "file": str(folder / "a.png"), "landmarks": str(damaged)}
    photo = damaged.suffix in (".png", ".jpg", ".webp", ".bmp")
    return {"kind": "photo" if photo else "video", "file": str(damaged)}


class _Child:
    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("crop_process.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            text=True,
        )

    def crop(self, job: dict[str, str], seconds: float) -> dict[str, Any] | str:
        """The result, "died" or "hung"."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps(job), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            return "died"
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            return "hung"
        line = self._process.stdout.readline()
        return json.loads(line) if line else "died"

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()
