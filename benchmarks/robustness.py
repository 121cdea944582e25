"""The robustness suite: seconds by corruption on one core, and of the whole suite as `evaluate_model.py` runs it.

    python benchmarks/robustness.py --faces 1000 --workers 2                the demo's student on the demo's swaps
    python benchmarks/robustness.py --faces 1000 --workers 2 --side 300     the same crops, 300 px wide

The faces are the demo's swaps (`make demo`), or drawn ones where there are none, repeated to the wanted number; the
model is the demo's distilled student, or an untrained tf_efficientnet_lite0. The load average is printed: on a machine
that others use the wall clock says little without it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from sharpstudent.modalities.faces.corruptions import CORRUPTIONS, corrupt, explain_no_h264, find_evaluation_crop
from sharpstudent.tasks.deepfake.evaluation.crops_set import read_crops_set
from sharpstudent.tasks.deepfake.evaluation.robustness import measure_robustness
from sharpstudent.tasks.deepfake.evaluation.set_request import SetRequest
from sharpstudent.tasks.deepfake.sources.face import load_picture
from torch import nn

TIMED = 30  # faces of the first table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=1000)
    parser.add_argument("--image-size", type=int, default=112, help="side of the network's input [px]")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--side", type=int, help="bring the crops to this side [px]; default: as they are")
    parser.add_argument("--crops", type=Path, default=Path("data/demo/swaps"), help="folder with real/ and fake/")
    parser.add_argument("--checkpoint", type=Path, help="default: the newest output/demo_distill_*")
    options = parser.parse_args()
    model, named = load_model(options.checkpoint)
    pictures = read_crops(options)
    sides = [picture.shape[1] for _, picture in pictures]
    print(f"{named}; {options.faces} faces, crops of {np.median(sides):.0f} px, {options.image_size} px input")
    print(f"load average before: {os.getloadavg()[0]:.2f}")
    time_corruptions([picture for _, picture in pictures], options)
    with tempfile.TemporaryDirectory() as name:
        write_crops(Path(name), pictures, options.faces)
        face_set = read_crops_set(SetRequest(path=Path(name), crops=True), name="crops")
        begun, processor = time.perf_counter(), sum_processor_seconds()
        found = measure_robustness(
            [("student", model)],
            [face_set],
            image_size=options.image_size,
            num_workers=options.workers,
            device=torch.device("cpu"),
            say=print,
        )
        seconds, processor = time.perf_counter() - begun, sum_processor_seconds() - processor
    for curve in found["student"]:
        points = "  ".join(f"{point.label} {point.auc.value:.3f}" for point in curve.points)
        print(f"{curve.name:<13} area {curve.area:.3f}   {points}")
    print(
        f"the whole suite with {options.workers} loader processes: {seconds:.1f} s on the wall, "
        f"{processor:.1f} s of the processor"
    )
    print(f"load average after: {os.getloadavg()[0]:.2f}")


def sum_processor_seconds() -> float:
    """Of this process and of those that it has ended."""
    return sum(os.times()[:4])


def time_corruptions(pictures: list[NDArray[np.uint8]], options: argparse.Namespace) -> None:
    """Seconds that all the faces would take on one core, without reading them."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    some = [find_evaluation_crop(picture, None) for picture in (pictures * TIMED)[:TIMED]]
    size, total = (options.image_size, options.image_size), 0.0
    for corruption in CORRUPTIONS:
        if corruption.name == "h264" and (obstacle := explain_no_h264()):
            print(f"h264           left out: {obstacle}")
            continue
        begun = time.process_time()
        for index, face in enumerate(some):
            for level in range(1, len(corruption.severities)):
                cv2.resize(corrupt(face, corruption, level, seed=0, index=index), size)
        seconds = (time.process_time() - begun) / TIMED * options.faces
        total += seconds
        print(f"{corruption.name:<13} {seconds:6.1f} s of a core for {len(corruption.severities) - 1} severities")
    print(f"{'together':<13} {total:6.1f} s")
    cv2.setNumThreads(before)


def load_model(checkpoint: Path | None) -> tuple[nn.Module, str]:
    from sharpstudent.checkpoint.store import load_checkpoint
    from sharpstudent.models.vision import build_classifier

    from demo.measure import find_run

    if checkpoint is None and not any(Path("output").glob("demo_distill_*/weights/best_model.pth")):
        torch.manual_seed(0)
        return build_classifier("tf_efficientnet_lite0", classes=2, dropout=0.0).eval(), "untrained lite0"
    trained = load_checkpoint(checkpoint or find_run("demo_distill_*"))
    name = str(trained.about["architecture"])
    model = build_classifier(name, classes=len(trained.about["classes"]), dropout=trained.about["dropout"])
    model.load_state_dict(trained.tensors["model"])
    return model.eval(), name


def read_crops(options: argparse.Namespace) -> list[tuple[str, NDArray[np.uint8]]]:
    """Class and picture, resized to the requested side."""
    if any((options.crops / name).is_dir() for name in ("real", "fake")):
        faces = read_crops_set(options.crops, name="crops").faces
        pictures = [(("real", "fake")[face.label], load_picture(Path(face.name)).image) for face in faces]
    else:
        from tests.helpers.drawn_faces import draw_face

        print(f"no pictures at {options.crops}: drawn faces, which no model knows")
        pictures = [(("real", "fake")[i % 2], draw_face(i, 256)[0]) for i in range(40)]
    if options.side is None:
        return pictures
    return [
        (name, np.asarray(cv2.resize(picture, (options.side, options.side), interpolation=cv2.INTER_CUBIC), np.uint8))
        for name, picture in pictures
    ]


def write_crops(root: Path, pictures: list[tuple[str, NDArray[np.uint8]]], count: int) -> None:
    """So many, each repeated as often as need be, as persons of their own."""
    for i in range(count):
        name, picture = pictures[i % len(pictures)]
        (root / name).mkdir(exist_ok=True)
        cv2.imwrite(str(root / name / f"{i:06d}.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main()
