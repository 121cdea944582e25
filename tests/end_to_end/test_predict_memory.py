"""A video of two hours takes no more memory than one of two minutes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_faces import draw_face
from test_predict import MODELS, make_about
from workplace import ENVIRONMENT, ROOT

RATE = 2  # frames a second of the made videos: what is between the judged ones only costs time here
MOST_BYTES = 1_500_000_000


def make_film(path: Path, seconds: int) -> Path:
    """A drawn face that moves, 320 x 180 px."""
    face = cv2.cvtColor(draw_face(3, 120)[0], cv2.COLOR_RGB2BGR)
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), RATE, (320, 180))
    for frame in range(seconds * RATE):
        image = np.full((180, 320, 3), 60, np.uint8)
        left = 10 + frame % 180
        image[30:150, left : left + 120] = face
        writer.write(image)
    writer.release()
    return path


def find_peak(folder: Path, film: Path) -> tuple[int, int]:
    """The peak memory of the command [bytes], and how many frames it judged."""
    words = [
        sys.executable,
        str(ROOT / "predict.py"),
        "model.pth",
        str(film),
        "--fps",
        "1",
        "--json",
        "--out",
        str(film.with_suffix(".answers")),
        "--device",
        "cpu",
    ]
    (folder / "line.json").touch()
    with open(folder / "line.json", "wb") as out:
        process = os.posix_spawn(
            sys.executable,
            words,
            {**ENVIRONMENT},
            file_actions=[(os.POSIX_SPAWN_DUP2, out.fileno(), 1)],
        )
        _, status, usage = os.wait4(process, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    details = json.loads((folder / "line.json").read_text())["details"]
    return usage.ru_maxrss * 1024, details["frames"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux only")
def test_two_hours_take_the_memory_of_two_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from sharpstudent.checkpoint.store import save_checkpoint
    from sharpstudent.models.vision import build_classifier

    model = build_classifier("test_efficientnet", classes=2, dropout=0.2, side=64)
    save_checkpoint(tmp_path / "model.pth", {"model": model.state_dict()}, about=make_about(90.0, -90.0))
    (tmp_path / "weights").symlink_to(MODELS)
    monkeypatch.chdir(tmp_path)
    assert isinstance(model, torch.nn.Module)
    short, frames = find_peak(tmp_path, make_film(tmp_path / "short.mp4", 120))
    assert frames == 120
    long, frames = find_peak(tmp_path, make_film(tmp_path / "long.mp4", 7200))
    assert frames == 7200
    print(f"peak of two minutes {short / 1e6:.0f} MB, of two hours {long / 1e6:.0f} MB")
    assert long < MOST_BYTES
    assert long <= 1.1 * short
