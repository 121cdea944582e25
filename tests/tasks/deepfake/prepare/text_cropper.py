"""A cropper that does what a text file says; a module of its own, so that worker processes import little."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from pathlib import Path

import numpy as np
from sharpstudent.tasks.deepfake.layouts.clip import RawClip, Rejected
from sharpstudent.tasks.deepfake.prepare.parts import ClipCrops, FaceCrop
from sharpstudent.tasks.deepfake.prepare.settings import CropSettings


class TextCropper:
    """Does what the text says. The bytes of a crop depend on clip, frame and settings only."""

    def __init__(self, settings: CropSettings) -> None:
        self._settings = settings

    def crop(self, clip: RawClip) -> ClipCrops:
        assert clip.file is not None
        lines = clip.file.read_text().splitlines()
        if lines and lines[0] not in ("face", "none"):
            act(lines.pop(0))
        lines = lines[: self._settings.frames]
        faces = [
            make_face(f"{clip.key} {index} {self._settings.image_size}", str(clip.file), index)
            for index, line in enumerate(lines)
            if line == "face"
        ]
        rejected = [
            Rejected(str(clip.file), f"no face in {clip.file}", index)
            for index, line in enumerate(lines)
            if line == "none"
        ]
        return ClipCrops(tuple(faces), tuple(rejected), len(lines), len(faces))


def act(word: str) -> None:
    if word == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if word == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "exit":
        os._exit(7)
    if word == "hang":
        time.sleep(1000)
    if word == "fail":
        raise ValueError("a strange file")
    if word.startswith("wait"):
        while not Path(word.partition(" ")[2]).exists():
            time.sleep(0.02)
    if word.startswith("slow"):
        time.sleep(float(word.split()[1]))


def make_face(text: str, source: str, index: int) -> FaceCrop:
    content = hashlib.sha256(text.encode()).digest() * 30
    seed = int.from_bytes(content[:4])
    return FaceCrop(
        content=content,
        source=source,
        frame_index=10 * index,
        face_index=0,
        score=0.5,
        sharpness=float(seed % 1000),
        face_size=100.0,
        frame_size=(640, 480),
        box_xyxy=np.array([1, 2, 101, 102], np.float32),
        crop_xyxy=(0, 0, 200, 200),
        scale=1.0,
        landmarks=np.random.default_rng(seed).random((68, 2), np.float32),
        detector="made 1",
        phash=seed,
    )
