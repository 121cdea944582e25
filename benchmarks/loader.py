"""Samples a second of the training loader from a manifest: loose files and shards, with 0, 2 and 4 loader processes.

    python benchmarks/loader.py --size 112 --items 512 --rounds 5
    python benchmarks/loader.py --size 380 --items 64 --rounds 3

Crops of real faces (--faces FOLDER of pictures; detector and mesh from weights/) or, where there are none, of drawn
ones. They are cropped and scaled as self-blending needs them at that size and stored as PNG; each is visited several
times. A sample is a real face and a fake made of it. Each round measures every way once, in turn; the first batch of
each loader process, which includes its start, is left out. Medians and ratios of pairs of one round are quoted.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

import numpy as np

BATCH = 8
WORKERS = (0, 2, 4)
SPARE = 1.25  # a crop's face is at most this times the network's input


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=112, help="side of the network's input [px]")
    parser.add_argument("--items", type=int, default=512, help="samples timed in each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--crops", type=int, default=48, help="different crops")
    parser.add_argument("--faces", type=Path, default=Path("../shared/data/faces"), help="folder of pictures")
    parser.add_argument("--cpu-time", action="store_true", help="samples a second of processor time, 0 processes alone")
    options = parser.parse_args()
    workers_tried = WORKERS[:1] if options.cpu_time else WORKERS
    with tempfile.TemporaryDirectory() as name:
        kind = write_sets(Path(name), options)
        print(f"{options.size} px, {kind}, {options.items} samples per measurement, {options.rounds} rounds")
        rates: dict[tuple[str, int], list[float]] = {}
        for _ in range(options.rounds):
            for workers in workers_tried:
                for storage in ("loose", "shards"):
                    rate = measure(Path(name) / storage, options, workers)
                    rates.setdefault((storage, workers), []).append(rate)
    for workers in workers_tried:
        loose, shards = rates["loose", workers], rates["shards", workers]
        alone = [rate / rates["loose", 0][i] for i, rate in enumerate(loose)]
        print(
            f"{workers} loader processes: loose files {statistics.median(loose):6.1f} samples/s, shards "
            f"{statistics.median(shards):6.1f}; shards over loose "
            f"{statistics.median(s / f for s, f in zip(shards, loose, strict=True)):.2f}; over 0 processes "
            f"{statistics.median(alone):.2f}"
        )


def measure(root: Path, options: argparse.Namespace, workers: int) -> float:
    """Samples a second of the task's own training samples, through the loader of a run."""
    from sharpstudent.data.loader import load_batches
    from sharpstudent.data.sampler import TrainSampler
    from sharpstudent.tasks.deepfake.section import DeepfakeSection
    from sharpstudent.tasks.deepfake.task import DeepfakeTask

    keys = {"data_source": "manifest", "data_root": str(root), "image_size": options.size}
    task = DeepfakeTask(DeepfakeSection.model_validate(keys))
    (source,) = task.open_data("train")
    left_out = max(1, 3 * workers)  # with those that a process has made ahead by then
    steps = left_out + -(-options.items // BATCH)
    order = TrainSampler(len(source), BATCH, -(-steps * BATCH // len(source)), seed=0)
    batches = load_batches(source, order.batches(1), seed=0, num_workers=workers, collate=task.collate)
    start, clock = 0.0, time.process_time if options.cpu_time else time.perf_counter
    for step, _ in enumerate(itertools.islice(batches, steps)):
        if step == left_out - 1:
            start = clock()
    seconds = clock() - start
    batches.close()
    return (steps - left_out) * BATCH / seconds


def write_sets(folder: Path, options: argparse.Namespace) -> str:
    """FOLDER/loose and FOLDER/shards of the same crops; says what kind of faces they are."""
    from tests.tasks.deepfake.prepared_set import SetFace, write_set

    pictures = sorted(path for path in options.faces.rglob("*") if path.suffix in (".jpg", ".png"))
    has_models = Path("weights/face_landmark.tflite").is_file()
    kind = "real faces" if pictures and has_models else "drawn faces"
    found = crop_real_faces(pictures, options.size) if kind == "real faces" else draw(options.size)
    faces: list[SetFace] = []
    for i, (image, landmarks) in enumerate(itertools.islice(found, options.crops + 1)):
        faces.append(SetFace(image, landmarks, "val" if i == 0 else "train", 0, f"clip {i}", f"person {i}", {}))
    for storage in ("loose", "shards"):
        write_set(folder / storage, faces, shards=storage == "shards", per_shard=1000)
    sides = [face.image.shape[:2] for face in faces]
    return f"{len(faces) - 1} {kind} in crops of about {int(np.median(sides, axis=0)[1])} px width"


def draw(size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Drawn faces in the box that self-blending crops, and their landmarks."""
    from tests.helpers.drawn_faces import draw_face

    seed = 0
    while True:
        yield crop_for_blending(*draw_face(seed, round(2.2 * SPARE * size)), size)
        seed += 1


def crop_real_faces(pictures: list[Path], size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The largest face of each picture that has one."""
    from sharpstudent.modalities.faces.detect import FaceDetector
    from sharpstudent.modalities.faces.landmarks import LandmarkMesh
    from sharpstudent.tasks.deepfake.sources.face import read_picture
    from sharpstudent.tasks.deepfake.sources.face_crops import DETECTOR_FILE, MESH_FILE

    detector, mesh = FaceDetector(DETECTOR_FILE), LandmarkMesh(MESH_FILE)
    for path in pictures:
        image = read_picture(path)
        for face in detector.detect(image)[:1]:
            yield crop_for_blending(image, mesh.locate_81(image, face), size)


def crop_for_blending(image: np.ndarray, landmarks: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    import cv2
    from sharpstudent.modalities.faces.crop import compute_landmark_box, compute_loose_box, crop

    box = compute_landmark_box(landmarks[:68])
    loose = crop(image, compute_loose_box(landmarks, *image.shape[:2]), landmarks=landmarks, boxes=box[None])
    scale = min(1.0, SPARE * size / float(np.max(box[2:] - box[:2])))
    scaled = cv2.resize(loose.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.asarray(scaled, np.uint8), (loose.landmarks * scale).astype(np.float32)


if __name__ == "__main__":
    main()
