"""Faces from video: frames a second, where the time goes, and the share of sampled frames with a face, clip by clip.

    python benchmarks/prepare.py                       the seven clips of ../shared/data/videos, 32 frames of each
    python benchmarks/prepare.py CLIP... --frames 8 --rounds 5

Frames a second are of sampled frames. `decode` covers all frames up to the last sampled one and the pixels of the
sampled ones. The second rate is that of two processes side by side, each on all clips. Seconds are of the processor
by default, so that load on the machine matters little; --wall takes wall-clock time.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

CLIPS = ROOT.parent / "shared" / "data" / "videos"
PARTS = ("decode", "detection", "landmarks", "crop", "encode")  # crop: with sharpness and hash


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3, help="medians over so many")
    parser.add_argument("--wall", action="store_true", help="time on the wall instead of the processor's")
    options = parser.parse_args()
    clock = time.perf_counter if options.wall else time.process_time
    clips = options.clips or sorted(CLIPS.glob("*.mp4"))
    if not clips:
        sys.exit(f"no clips at {CLIPS}: name some")
    measured = [measure_clips(clips, options.frames, clock) for _ in range(options.rounds)]
    print(
        f"{'clip':<14} {'frames':>6} {'with face':>9} {'side px':>9} {'frames/s':>8}   ms a frame: {', '.join(PARTS)}"
    )
    for i, clip in enumerate(clips):
        found = measured[0][i]
        seconds = {part: statistics.median(one[i]["seconds"][part] for one in measured) for part in PARTS}
        each = "  ".join(f"{1e3 * seconds[part] / found['read']:5.1f}" for part in PARTS)
        sides = f"{found['least']:.0f}-{found['most']:.0f}"
        share = f"{100 * found['with_face'] / found['read']:.0f} %"
        rate = found["read"] / sum(seconds.values())
        print(f"{clip.stem:<14} {found['read']:>6} {share:>9} {sides:>9} {rate:>8.1f}   {each}")
    totals = {part: statistics.median(sum(clip["seconds"][part] for clip in one) for one in measured) for part in PARTS}
    whole, read = sum(totals.values()), sum(found["read"] for found in measured[0])
    print(", ".join(f"{part} {100 * seconds / whole:.0f} %" for part, seconds in totals.items()))
    print(f"one process: {read / whole:.1f} frames a second")
    rates = [sum(run_side_by_side(clips, options.frames, clock)) for _ in range(options.rounds)]
    print(f"two processes side by side: {statistics.median(rates):.1f} frames a second together")


def measure_clips(clips: list[Path], frames: int, clock: Callable[[], float]) -> list[dict[str, Any]]:
    """What cropping each clip gave, and the seconds of its parts."""
    import cv2
    from sharpstudent.modalities.faces.video import sample_video
    from sharpstudent.tasks.deepfake.layouts.clip import RawClip
    from sharpstudent.tasks.deepfake.prepare import crop_frame
    from sharpstudent.tasks.deepfake.prepare.crop_clip import ClipCropper, load_networks
    from sharpstudent.tasks.deepfake.prepare.settings import CropSettings

    networks: Any = load_networks()
    cropper = ClipCropper(CropSettings(frames=frames), networks=lambda: networks)
    spent: dict[str, float] = dict.fromkeys(PARTS, 0.0)
    networks.detector.detect = _timed(networks.detector.detect, spent, "detection", clock)
    networks.mesh.locate_81 = _timed(networks.mesh.locate_81, spent, "landmarks", clock)
    encode = crop_frame.encode_picture
    crop_frame.encode_picture = _timed(encode, spent, "encode", clock)
    found: list[dict[str, Any]] = []
    try:
        for clip in clips:
            spent.update(dict.fromkeys(PARTS, 0.0))
            threads = cv2.getNumThreads()
            cv2.setNumThreads(1)
            start = clock()
            sample_video(clip, frames, lambda index, image: None)
            spent["decode"] = clock() - start
            cv2.setNumThreads(threads)
            start = clock()
            crops = cropper.crop(RawClip(clip.stem, "video", 0, (clip.stem,), file=clip))
            spent["crop"] = max(0.0, clock() - start - sum(spent.values()))
            sides = [face.face_size for face in crops.faces] or [0.0]
            found.append(
                {
                    "read": crops.frames_read,
                    "with_face": crops.frames_with_face,
                    "least": min(sides),
                    "most": max(sides),
                    "seconds": dict(spent),
                }
            )
    finally:
        crop_frame.encode_picture = encode
    return found


def run_side_by_side(clips: list[Path], frames: int, clock: Callable[[], float]) -> list[float]:
    """Frames a second of each of two processes that crop all clips at the same time."""
    context = multiprocessing.get_context("spawn")
    barrier, rates = context.Barrier(2), context.SimpleQueue()
    workers = [context.Process(target=_measure_rate, args=(clips, frames, clock, barrier, rates)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return [rates.get() for _ in workers]


def _measure_rate(clips: list[Path], frames: int, clock: Callable[[], float], barrier: Any, rates: Any) -> None:
    from sharpstudent.tasks.deepfake.layouts.clip import RawClip
    from sharpstudent.tasks.deepfake.prepare.crop_clip import ClipCropper, load_networks
    from sharpstudent.tasks.deepfake.prepare.settings import CropSettings

    networks = load_networks()  # before the clock starts
    cropper = ClipCropper(CropSettings(frames=frames), networks=lambda: networks)
    barrier.wait()
    start = clock()
    read = sum(cropper.crop(RawClip(clip.stem, "video", 0, (clip.stem,), file=clip)).frames_read for clip in clips)
    rates.put(read / (clock() - start))


def _timed(
    call: Callable[..., Any], spent: dict[str, float], part: str, clock: Callable[[], float]
) -> Callable[..., Any]:
    def timed(*arguments: Any) -> Any:
        start = clock()
        try:
            return call(*arguments)
        finally:
            spent[part] += clock() - start

    return timed


if __name__ == "__main__":
    main()
