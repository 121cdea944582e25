"""CPU time of a self-blended pair in two checkouts, in turns, step by step, and whether the pairs are the same bits.

    OMP_NUM_THREADS=1 python benchmarks/blend.py ../before ../after --rounds 20

Faces (the largest of each picture below --faces where weights/ has the models, otherwise drawn ones) are cropped as
self-blending needs them, brought to --width pixels and stored as PNG. Each checkout makes pairs of them in a process of
its own with one thread. A round is the same faces and seeds in both, one after the other, in alternating order; the
ratio of a round is that of their CPU times. The steps are timed in rounds of their own, because the clocks cost time.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import cv2
import numpy as np

IMAGES_WANTED = 800  # a second
DRAWS = 2000  # of the interval
# What is timed: module of the package (or cv2) and function; names that a checkout lacks are passed over. Only the
# outermost of functions that call each other counts.
FACES = "sharpstudent.modalities.faces"
STEPS: dict[str, tuple[tuple[str, str], ...]] = {
    "drawing parameters": ((f"{FACES}.augment", "_draw"), (f"{FACES}.self_blend", "_draw_affine")),
    "mask: hull, deformation, softening": tuple(
        (f"{FACES}.self_blend", name) for name in ("draw_hull", "deform_elastically", "soften")
    ),
    "RGB shift, brightness, contrast": (
        ("albumentations", "RGBShift.apply"),
        ("albumentations", "RandomBrightnessContrast.apply"),
        (f"{FACES}.augment", "_apply_tables"),
    ),
    "HSV shift": (("albumentations", "HueSaturationValue.apply"), (f"{FACES}.augment", "_shift_hue")),
    "lost resolution or sharpening": (
        ("albumentations", "Downscale.apply"),
        ("albumentations", "Sharpen.apply"),
        (f"{FACES}.augment", "_lose_resolution"),
    ),
    "JPEG": (("albumentations", "ImageCompression.apply"),),
    "moving the source": (("cv2", "warpAffine"), (f"{FACES}.self_blend", "warp_part")),
    "blending": ((f"{FACES}.self_blend", "blend"), ("cv2", "blendLinear")),
    "final crop and resizing": ((f"{FACES}.sample", "_resize"),),
}


def main() -> None:
    """Read the command line, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", metavar="BEFORE", type=Path, help="folder of a checkout")
    parser.add_argument("after", metavar="AFTER", type=Path, help="folder of another")
    parser.add_argument("--size", type=int, default=380, help="side of the network's input [px]")
    parser.add_argument("--width", type=int, default=720, help="width of the stored crops [px]")
    parser.add_argument("--faces", type=Path, nargs="*", default=[], help="folders of pictures; none: drawn faces")
    parser.add_argument("--crops", type=int, default=24, help="different crops")
    parser.add_argument("--pairs", type=int, default=24, help="pairs of a round")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        kind = write_crops(Path(name), options)
        print(f"{options.size} px from {kind}, {options.pairs} pairs a round, {options.rounds} rounds")
        with Worker(options.before, Path(name)) as before, Worker(options.after, Path(name)) as after:
            compare(before, after, options)


def compare(before: Worker, after: Worker, options: argparse.Namespace) -> None:
    """Measure both workers in turns, and print what came out."""
    rounds: dict[Worker, list[dict[str, Any]]] = {before: [], after: []}
    for i in range(options.rounds + 1):
        for worker in (before, after) if i % 2 else (after, before):
            rounds[worker].append(worker.measure(i * options.pairs, options.pairs, options.size))
    both = list(zip(rounds[before][1:], rounds[after][1:], strict=True))  # the first round warms up
    same = sum(one["digest"] == two["digest"] for one, two in both)
    print(f"rounds whose pairs are the same bits: {same} of {len(both)}")
    for label, key in (("a pair", "pair"), ("decoding PNG", "decode"), ("both", "both")):
        one, two = (statistics.median(side[key] for side in sides) for sides in zip(*both, strict=True))
        ratio, low, high = compute_interval([b[key] / a[key] for a, b in both])
        print(f"{label:>34}: {one:6.2f} -> {two:6.2f} ms of CPU time, ratio {ratio:.3f} [{low:.3f}, {high:.3f}]")
    for label, key in (("pairs alone", "pair"), ("with decoding", "both")):
        one, two = (statistics.median(side[key] for side in sides) for sides in zip(*both, strict=True))
        cores = [value / 1000 * IMAGES_WANTED / 2 for value in (one, two)]
        print(f"cores for {IMAGES_WANTED} images/s, {label:>14}: {cores[0]:5.1f} -> {cores[1]:5.1f}")
    print("\nstep by step, ms of CPU time a pair (with the clocks' own cost)")
    steps = [worker.profile(options.pairs, 4 * options.pairs, options.size) for worker in (before, after)]
    for label in sorted(steps[0], key=lambda label: -steps[0][label]):
        print(f"{label:>34}: {steps[0][label]:6.2f} -> {steps[1][label]:6.2f}")


def compute_interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """The median of the rounds' ratios, and its 95 % interval by bootstrap."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(ratios, (DRAWS, len(ratios))), axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    return statistics.median(ratios), float(low), float(high)


# --- Crops -----------------------------------------------------------------------------------------------------------


def write_crops(folder: Path, options: argparse.Namespace) -> str:
    """Write crops as FOLDER/N.png with their landmarks; says what they are."""
    import loader

    pictures = sorted(p for root in options.faces for p in root.rglob("*") if p.suffix in (".jpg", ".png"))
    pictures = pictures[:: max(1, len(pictures) // options.crops)]
    found: Iterator[Any] = loader.crop_real_faces(pictures, options.size) if pictures else loader.draw(options.size)
    heights: list[int] = []
    for i, (image, landmarks) in enumerate(itertools.islice(found, options.crops)):
        scale = options.width / image.shape[1]
        size = (options.width, round(scale * image.shape[0]))
        scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{i:04d}.png"), scaled[..., ::-1])
        np.save(folder / f"{i:04d}.npy", landmarks * scale)
        heights.append(size[1])
    kind = "real" if pictures else "drawn"
    return f"{len(heights)} {kind} faces in crops of {options.width} x {int(statistics.median(heights))} px (median)"


# --- Processes -------------------------------------------------------------------------------------------------------


class Worker:
    """A process that makes pairs with the package of one checkout, and answers in JSON, a line a question."""

    def __init__(self, checkout: Path, folder: Path) -> None:
        """Start it. Raises SystemExit where the package would be imported from elsewhere."""
        self._checkout, words = checkout.resolve(), [sys.executable, __file__, "--worker", str(folder)]
        environment = {**os.environ, "PYTHONPATH": str(self._checkout / "lib"), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder
        )
        package = self._ask(["where"])
        if not str(package).startswith(f"{self._checkout}{os.sep}"):
            sys.exit(f"{checkout}: its package is not what is imported, but {package}")

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait()

    def measure(self, seed: int, pairs: int, size: int) -> dict[str, Any]:
        """Mean milliseconds a pair, those of decoding, and both; and the digest of all pairs."""
        return self._ask(["measure", seed, pairs, size])

    def profile(self, seed: int, pairs: int, size: int) -> dict[str, float]:
        """Mean milliseconds of each step of a pair."""
        return self._ask(["profile", seed, pairs, size])

    def _ask(self, question: list[Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(question), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


def answer_questions(folder: Path) -> None:
    """Answer until the input ends."""
    cv2.setNumThreads(1)
    clocks = Clocks()
    clocks.watch_transforms()  # before the package binds their methods
    from sharpstudent.modalities.faces import sample

    faces = [(path, np.load(path.with_suffix(".npy"))) for path in sorted(folder.glob("*.png"))]
    for line in sys.stdin:
        command, *rest = json.loads(line)
        if command == "where":
            found: Any = sample.__file__
        else:
            if command == "profile":
                clocks.watch_functions()
            clocks.spent.clear()
            found = make_pairs(faces, sample.make_pair, *rest)
            if command == "profile":
                steps = {label: 1000 * clocks.spent[label] / rest[1] for label in STEPS}
                found = {**steps, "all else": found["pair"] - sum(steps.values())}
        print(json.dumps(found), flush=True)


def make_pairs(faces: Sequence[tuple[Path, Any]], make: Callable[..., Any], seed: int, pairs: int, size: int) -> Any:
    """Make pairs of the faces in turn; the clock stands still while they are digested."""
    digest, decoding, making = hashlib.sha256(), 0.0, 0.0
    for number in range(seed, seed + pairs):
        path, landmarks = faces[number % len(faces)]
        start = time.process_time()
        image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR_RGB)
        middle = time.process_time()
        pair = make(image, landmarks, np.random.default_rng(number), size, train=True)
        end = time.process_time()
        decoding, making = decoding + middle - start, making + end - middle
        for one in (pair.real, pair.fake, pair.mask):
            digest.update(one.tobytes())
    decode, pair_time = (1000 * seconds / pairs for seconds in (decoding, making))
    return {"pair": pair_time, "decode": decode, "both": decode + pair_time, "digest": digest.hexdigest()}


class Clocks:
    """Adds up the CPU time of functions under their step's label, the outermost call alone."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, float] = defaultdict(float)
        self._is_running, self._is_on = False, False

    def watch_transforms(self) -> None:
        """Wrap the methods of albumentations; they cost nothing to speak of until the rest is watched, too."""
        self._watch("albumentations")

    def watch_functions(self) -> None:
        """Wrap the functions of the package and of OpenCV, and start to count."""
        if not self._is_on:
            self._is_on = True
            for module in sorted({module for names in STEPS.values() for module, _ in names} - {"albumentations"}):
                self._watch(module)

    def _watch(self, module: str) -> None:
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        owner = __import__(module, fromlist=["_"])
        for label, names in STEPS.items():
            for place, name in names:
                *path, last = name.split(".")
                holder = getattr(owner, path[0], None) if path else owner
                if place == module and hasattr(holder, last):
                    setattr(holder, last, self._wrap(getattr(holder, last), label))

    def _wrap(self, function: Callable[..., Any], label: str) -> Callable[..., Any]:
        def timed(*positional: Any, **named: Any) -> Any:
            if self._is_running or not self._is_on:
                return function(*positional, **named)
            self._is_running, start = True, time.process_time()
            try:
                return function(*positional, **named)
            finally:
                self.spent[label] += time.process_time() - start
                self._is_running = False

        return timed


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        answer_questions(Path(sys.argv[2]))
    else:
        main()
