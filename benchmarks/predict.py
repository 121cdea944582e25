"""Measure how well predict.py overlaps decoding, the search for faces, and the network, and how much memory it takes.

    python benchmarks/predict.py [MODEL VIDEO [FPS]]

Without arguments a video of drawn faces is made, and an untrained detector at 112 px. Each part is timed alone, on one
core; then the whole command runs on the same frames. The bound is the smaller of the slowest part alone, and of all
cores over the summed time of the parts. The promise is 0.9 of it. All of this is done in five turns; the share of a
turn is that of its own bound, and the median counts. Peak memory is that of this process (Linux).
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a part has one core
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "helpers")]

import cv2
import numpy as np
import torch
from sharpstudent.core.types import InputSource
from sharpstudent.deploy.predictor import Predictor
from sharpstudent.evaluation.command_line import ModelRequest
from sharpstudent.evaluation.renderer import load_renderer
from sharpstudent.modalities.faces.video import iterate_video
from sharpstudent.tasks.deepfake.prepare.crop_clip import VERSION, load_networks
from sharpstudent.tasks.deepfake.prepare.crop_frame import FrameCropper, Picture
from sharpstudent.tasks.deepfake.prepare.settings import CropSettings
from sharpstudent.tasks.deepfake.read_input import read_input
from sharpstudent.tasks.deepfake.task import DeepfakeTask

SECONDS, RATE, SIZE = 20, 25, (640, 360)
TURNS = 5
PROMISED = 0.9


def make_video(path: Path, seconds: int, *, size: tuple[int, int] = SIZE) -> Path:
    """A drawn face that moves in front of noise, MPEG-4, 25 frames a second."""
    from drawn_faces import draw_face  # pyright: ignore[reportMissingImports]

    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), RATE, size)
    face = cv2.cvtColor(draw_face(3, size[1] * 3 // 4)[0], cv2.COLOR_RGB2BGR)
    side, noise = face.shape[0], np.random.default_rng(0).integers(0, 60, (size[1], size[0], 3), np.uint8)
    for frame in range(seconds * RATE):
        image = noise.copy()
        left, top = 10 + (3 * frame) % (size[0] - side - 20), 10 + frame % 20
        image[top : top + side, left : left + side] = face
        writer.write(image)
    writer.release()
    return path


def make_model(path: Path) -> Path:
    """An untrained detector of the demo's architecture and size."""
    from sharpstudent.checkpoint.store import save_checkpoint
    from sharpstudent.models.vision import build_classifier

    facts = {"classes": ["real", "fake"], "image_size": 112, "input": "RGB in 0..1, no mean/std"}
    model = build_classifier("tf_efficientnet_lite0", classes=2, dropout=0.3, side=112)
    about = {**facts, "facts": facts, "architecture": "tf_efficientnet_lite0", "dropout": 0.3, "task": "deepfake"}
    save_checkpoint(path, {"model": model.state_dict()}, about=about)
    return path


def measure(run: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    found = run()
    return time.perf_counter() - begun, found


PARTS = ("decoding", "finding", "computing")


def time_parts(
    source: InputSource, cropper: FrameCropper, opened: Any, predictor: Predictor, rate: float, side: int
) -> dict[str, Any]:
    """The seconds of each part alone and of the whole, and the numbers of frames and faces."""
    assert source.path is not None
    read = iterate_video(source.path, rate=rate)
    decoding, frames = measure(lambda: [one for one in read if one.image is not None])

    def find() -> int:
        count = 0
        for frame in frames:
            picture, _, large = cropper.find(Picture(frame.image, "v", frame.index), None)
            count += len([cropper.cut(picture, face) for face in large])
        return count

    finding, faces = measure(find)
    batches = [torch.rand(16, 3, side, side)] * max(1, faces // 16)
    with torch.inference_mode():
        computing, _ = measure(lambda: [opened.model(batch) for batch in batches])
    whole, _ = measure(lambda: sum(len(list(tables)) for _, tables in predictor.read([source], workers=2)))
    times = {"decoding": decoding, "finding": finding, "computing": computing, "whole": whole}
    return {**times, "frames": len(frames), "faces": faces}


def find_bound(turn: dict[str, Any], cores: int) -> float:
    """The least seconds that the whole can take: the slowest part alone, or all of them on all cores."""
    parts = [turn[name] for name in PARTS]
    return max(*parts, sum(parts) / cores)


def main() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        made = [str(make_model(Path(folder) / "m.pth")), str(make_video(Path(folder) / "v.mp4", SECONDS))]
        words = sys.argv[1:] or made
        model, video, rate = Path(words[0]), Path(words[1]), float(words[2]) if len(words) > 2 else 5.0
        renderer = load_renderer(DeepfakeTask)
        cpu = torch.device("cpu")
        opened = renderer.open_model(ModelRequest(model), cpu)
        task = renderer.open_task(opened)
        side = opened.input_key
        assert isinstance(side, int)
        source = InputSource(video.name, video, options={"fps": rate})
        list(itertools.islice(read_input(source, image_size=side), 3))  # everything is loaded once

        networks = load_networks()
        cropper = FrameCropper(CropSettings(faces="all", image_size=side), lambda: networks, version=VERSION)
        predictor = Predictor(opened, task, cpu, batch_size=16)
        turns = [time_parts(source, cropper, opened, predictor, rate, side) for _ in range(TURNS)]
        cores = len(os.sched_getaffinity(0))
        shares = sorted(find_bound(turn, cores) / turn["whole"] for turn in turns)
        whole = statistics.median(turn["whole"] for turn in turns)
        shown = {
            "frames": turns[0]["frames"],
            "faces": turns[0]["faces"],
            "cores": cores,
            "seconds": {name: round(statistics.median(turn[name] for turn in turns), 2) for name in (*PARTS, "whole")},
            "frames_per_second": round(turns[0]["frames"] / whole, 1),
            "share_of_bound": round(statistics.median(shares), 3),
            "share_of_each_turn": [round(share, 3) for share in shares],
            "promised": PROMISED,
            "peak_megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        }
        print(json.dumps(shown, indent=2))


if __name__ == "__main__":
    main()
