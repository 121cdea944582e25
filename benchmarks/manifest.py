"""A manifest of a million rows: how fast it opens and gives rows, and what it adds to the memory of a loader.

    python benchmarks/manifest.py --rows 1000000
    python benchmarks/manifest.py --rows 4000000 --large     no loader: opening, leak check and order alone

The rows are drawn from a seed: 32 a clip, 4 clips a person, half of them fakes, landmarks of 81 points, paths and names
of usual length; 80 % train, 10 % val, 10 % test. Every row names the same crop of 64 px, which is there: manifest,
source, reading, decoding, blending and loader are the real ones, only the crop is always the same. The empty manifest
gives no samples, so its loader works on one face kept in memory; a manifest of 1280 rows goes the whole way.

Memory: the sum of Pss (/proc/PID/smaps) over the training process and its loader processes, fifty times during the run;
the largest is quoted. Pages of libraries that other programs use count less in it while those run. What they cannot
change is therefore given separately: private memory of the processes, and the manifest's pages.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

import numpy as np

ROWS_A_CLIP, CLIPS_A_PERSON = 32, 4
CROP_SIDE, IMAGE_SIZE, BATCH = 64, 32, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=8_000, help="samples that the loader makes of random rows")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--keep-pages", action="store_true", help="never let go of what was read, for comparison")
    parser.add_argument("--open", type=Path, metavar="FILE", help="time and memory of opening alone, in this process")
    parser.add_argument("--measure", nargs=2, metavar=("KIND", "FOLDER"), help="memory alone, in this process")
    parser.add_argument("--large", action="store_true", help="only how opening, leak check and order grow")
    parser.add_argument("--step", nargs=2, metavar=("STEP", "FILE"), help="one of these alone, in this process")
    options = parser.parse_args()
    if options.step is not None:
        print(measure_step(options.step[0], Path(options.step[1]), options.rows))
        return
    if options.open is not None:
        print(measure_opening(options.open))
        return
    if options.measure is not None:
        print(json.dumps(measure_memory(options)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.perf_counter()
        write(folder / "full", options.rows)
        if options.large:
            print(f"{options.rows:,} rows drawn and written in {time.perf_counter() - start:.0f} s")
            for step in STEPS:
                words = [sys.executable, __file__, "--step", step, str(folder / "full" / "manifest.arrow")]
                words += ["--rows", str(options.rows)]
                print(subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip(), flush=True)
            return
        write(folder / "empty", 0)
        write(folder / "small", 1280)
        size = (folder / "full" / "manifest.arrow").stat().st_size
        seconds = time.perf_counter() - start
        print(f"{options.rows:,} rows, {size / 1e6:,.0f} MB, drawn and written in {seconds:.0f} s")
        time_reading(folder / "full" / "manifest.arrow")
        compare_memory(folder, options)


def write(folder: Path, count: int) -> None:
    """FOLDER/manifest.arrow of so many rows, and the crop that they all name."""
    import cv2
    from sharpstudent.tasks.deepfake.dataset.manifest import write_manifest

    from tests.helpers.drawn_faces import draw_face

    image, landmarks = draw_face(0, CROP_SIDE)
    content = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
    (folder / "crops").mkdir(parents=True)
    (folder / "crops" / "one.png").write_bytes(content)
    write_manifest(
        folder / "manifest.arrow", draw_rows(count, content, landmarks), {"made by": "benchmarks/manifest.py"}
    )


def draw_rows(count: int, content: bytes, landmarks: np.ndarray) -> Iterator[Any]:
    """FaceRow after FaceRow; the landmarks are those of the crop, moved by less than a pixel."""
    rng = np.random.default_rng(0)
    first = _make_first_row(content, landmarks)
    for i in range(count):
        clip = i // ROWS_A_CLIP
        person = clip // CLIPS_A_PERSON
        share = person * CLIPS_A_PERSON * ROWS_A_CLIP / count  # of the rows before this person's
        kind = ("original_sequences/youtube", "manipulated_sequences/Deepfakes")[clip % 2]
        yield replace(
            first,
            label=clip % 2,
            clip_id=f"{kind}/c23/videos/{clip:06d}",
            identity=f"person {person:06d}",
            group=f"person {person:06d}",
            split=("train", "val", "test")[(share >= 0.8) + (share >= 0.9)],
            source=f"/data/FaceForensics++/{kind}/c23/videos/{clip:06d}.mp4",
            manipulation=("", "Deepfakes")[clip % 2],
            frame_index=i % ROWS_A_CLIP * 10,
            sharpness=float(rng.random() * 500),
            landmarks=landmarks + rng.random(landmarks.shape, np.float32),
            phash=int(rng.integers(2**64, dtype=np.uint64)),
        )


def _make_first_row(content: bytes, landmarks: np.ndarray) -> Any:
    from sharpstudent.tasks.deepfake.dataset.manifest import FaceRow

    return FaceRow(
        path="crops/one.png",
        offset=0,
        size=len(content),
        crc32=zlib.crc32(content),
        label=0,
        clip_id="",
        identity="",
        group="",
        split="train",
        source_set="FaceForensics++",
        manipulation="",
        compression="c23",
        source="",
        frame_index=0,
        face_index=0,
        score=0.9,
        sharpness=0.0,
        face_size=40.0,
        frame_size=(1920, 1080),
        box_xyxy=np.concatenate([landmarks[:68].min(axis=0), landmarks[:68].max(axis=0)]),
        crop_xyxy=(0, 0, CROP_SIDE, CROP_SIDE),
        scale=1.0,
        landmarks=landmarks,
        detector="face_detection_yunet_2023mar+face_landmark",
        phash=0,
    )


def time_reading(path: Path) -> None:
    """Opening, with all checks, in a process of its own; making the source of it; random rows; all rows in order."""
    from sharpstudent.tasks.deepfake.dataset.manifest import Manifest
    from sharpstudent.tasks.deepfake.sources.manifest import find_faces

    words = [sys.executable, __file__, "--open", str(path)]
    print(subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip())
    ready = statistics.median(_time(lambda: find_faces(path, fakes="blend")) for _ in range(5))
    print(f"open as data source, with the check for shared people: {ready:.3f} s (median of 5)")
    manifest = Manifest.open(path)
    wanted = np.random.default_rng(1).integers(len(manifest), size=5000).tolist()
    cpu = time.process_time()
    seconds = _time(lambda: [manifest.face(i) for i in wanted])
    cpu = time.process_time() - cpu
    print(f"random rows a second, one process: {5000 / seconds:,.0f} ({cpu / 5000 * 1e3:.2f} ms of its CPU time a row)")
    print(f"every byte checked (verify): {_time(manifest.verify):.2f} s")


STEPS = ("open", "leaks", "order")


def measure_step(step: str, path: Path, rows: int) -> str:
    """One step of a start of training: its time, its CPU time, and what it adds to the memory of this process."""
    from sharpstudent.data.sampler import TrainSampler
    from sharpstudent.tasks.deepfake.dataset.manifest import Manifest
    from sharpstudent.tasks.deepfake.sources.manifest import find_faces

    before, cpu, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time(), time.perf_counter()
    if step == "open":
        Manifest.open(path)
    elif step == "leaks":  # opening, and the check that no person, group or clip is in two splits
        find_faces(path, fakes="labels")
    else:  # the order of an epoch of as many samples, batch by batch
        for _ in TrainSampler(rows, BATCH, 1, seed=0).batches(1):
            pass
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return f"{step:<5} {rows:>11,} rows: {seconds:.2f} s, {cpu:.2f} s of CPU time, {more:,.0f} MB of memory"


def measure_opening(path: Path) -> str:
    """Opening with every byte verified: the time, and what it adds to the memory of this process at its most."""
    from sharpstudent.tasks.deepfake.dataset.manifest import Manifest

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu = time.process_time()
    seconds = [_time(lambda: Manifest.open(path)) for _ in range(5)]
    cpu = (time.process_time() - cpu) / len(seconds)
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return (
        f"open, every byte verified: {statistics.median(seconds):.3f} s (median of 5; {cpu:.3f} s of CPU time), "
        f"{more:,.0f} MB at its most above the process before"
    )


def _time(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare_memory(folder: Path, options: argparse.Namespace) -> None:
    """Each in a process of its own, with the same loader and the same number of samples."""
    found: dict[str, dict[str, float]] = {}
    for name in ("empty", "small", "full"):
        words = [sys.executable, __file__, "--measure", name, str(folder / name), "--items", str(options.items)]
        words += ["--workers", str(options.workers), *(["--keep-pages"] if options.keep_pages else [])]
        found[name] = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
        about = found[name]
        print(
            f"{name:<5} summed Pss of {1 + options.workers} processes {about['all']:,.0f} MB, of it their own "
            f"{about['own']:,.0f} MB, the manifest's pages {about['manifest']:,.1f} MB; {about['rate']:,.0f} samples a "
            f"second, {options.items:,} samples"
        )
    for name in ("empty", "small"):
        more = {key: found["full"][key] - found[name][key] for key in ("all", "own", "manifest")}
        print(f"full over {name}: {more['all']:,.0f} MB; own memory and pages {more['own'] + more['manifest']:,.0f} MB")


def measure_memory(options: argparse.Namespace) -> dict[str, float]:
    """Megabytes over all processes while they make samples, the largest of each kind, and samples a second."""
    import sharpstudent.tasks.deepfake.dataset.manifest as module
    from sharpstudent.data.loader import load_batches
    from sharpstudent.data.sampler import TrainSampler
    from sharpstudent.tasks.deepfake.samples import BlendedPairs
    from sharpstudent.tasks.deepfake.task import DeepfakeTask

    if options.keep_pages:
        module.Manifest.release = lambda self: None
    kept = module.Manifest.open(Path(options.measure[1]) / "manifest.arrow")  # open, also where it is empty
    faces = _find_faces(options.measure[0], kept)
    source = BlendedPairs(faces, image_size=IMAGE_SIZE, train=True)
    order = TrainSampler(len(source), BATCH, max(1, -(-options.items // len(source))), seed=0)
    steps, samples, start = options.items // BATCH, list[dict[str, float]](), time.perf_counter()
    collate, workers = DeepfakeTask().collate, options.workers
    batches = load_batches(source, order.batches(1), seed=0, num_workers=workers, collate=collate)
    for step, _ in enumerate(itertools.islice(batches, steps)):
        if step % max(1, steps // 50) == 0:
            samples.append(_sum_pss())
    seconds = time.perf_counter() - start
    batches.close()
    largest = {kind: max(sample[kind] for sample in samples) for kind in samples[0]}
    return {**largest, "rate": options.items / seconds}


def _find_faces(kind: str, manifest: Any) -> Sequence[Any]:
    from sharpstudent.tasks.deepfake.sources.face import Face, LoadedFace
    from sharpstudent.tasks.deepfake.sources.manifest import find_faces

    from tests.helpers.drawn_faces import draw_face

    if kind != "empty":
        return find_faces(manifest.path, fakes="blend").train
    loaded = LoadedFace(*draw_face(0, CROP_SIDE))
    return [Face("one", "clip", "person", 0, lambda: loaded)] * 10_000


def _sum_pss() -> dict[str, float]:
    """Of this process and its children [MB]: all, their own (written to), and the manifest's pages."""
    import multiprocessing

    pids = ["self", *(str(process.pid) for process in multiprocessing.active_children())]
    sums = {"all": 0.0, "own": 0.0, "manifest": 0.0}
    for pid in pids:
        path = ""
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            words = line.split()
            if not words[0].endswith(":"):
                path = line
            elif words[0] == "Pss:":
                sums["all"] += int(words[1]) / 1024
                sums["manifest"] += int(words[1]) / 1024 * path.endswith("manifest.arrow")
            elif words[0] == "Pss_Dirty:":
                sums["own"] += int(words[1]) / 1024
    return sums


if __name__ == "__main__":
    main()
