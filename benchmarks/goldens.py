"""Whether two checkouts train and evaluate alike, to the last bit: the check on a change that must change no result.

    python benchmarks/goldens.py ../before ../after

Drawn faces are made once. Each checkout then prepares them, trains a teacher, a student and stage 2 (SAM, hard labels
+ kd + features, averaged weights), evaluates and compares the models, and trains once more from labelled pictures with
another model, optimiser and selection metric, which run is terminated and resumed. Every command is the checkout's own
script in a process of its own. The exit code is 0 where all that is compared is equal, and 1 where anything differs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HELPERS = Path(__file__).resolve().parents[1] / "tests" / "helpers"
sys.path[:0] = [str(Path(__file__).resolve().parent), str(HELPERS)]

from run_differences import compare, find

STAGE_1, STAGE_2 = "train_student_only.py", "main_distillation.py"
FAST = ("--rounds", "20", "--workers", "0", "--device", "cpu")

CONFIGS: dict[str, dict[str, Any]] = {
    "blended": {
        "data_source": "manifest",
        "data_root": "prepared",
        "student": "test_efficientnet",
        "repeats": 2,
        "ema_decay": 0.8,
        "teacher": "test_resnet",
        "teacher_weights": "output/teacher_*/weights/best_model.pth",
        "pretrained_student_weights": "output/first_*/weights/best_model.pth",
        "stage2": {
            "batch_size": 4,
            "epoch": 2,
            "rho": 0.05,
            "terms": [
                {"term": "hard", "weight": 0.6, "label_smoothing": 0.05},
                {"term": "kd", "weight": {"kind": "ramp", "value": 0.4, "epochs": 2}, "temperature": 3.0},
                {
                    "term": "features",
                    "weight": 0.1,
                    "student_layer": "backbone.blocks.3",
                    "teacher_layer": "backbone.layer3",
                },
            ],
        },
    },
    "labelled": {
        "data_source": "labelled",
        "data_root": "labelled",
        "validation_share": 0.34,
        "student": "test_vit",
        "optimizer": "adamw",
        "lr": 0.0005,
        "selection_metric": "ap",
        "repeats": 8,
        "save_every_steps": 3,
    },
}
COMMON = {"image_size": 32, "student_init": "random", "epoch": 2, "batch_size": 4, "lr": 0.01, "num_workers": 0}
COMMON |= {"device": "cpu", "precision": "fp32", "report": False}


def main() -> int:
    """Read the command line, run both checkouts, print the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", metavar="OLD", type=Path, help="folder of a checkout: what is right")
    parser.add_argument("new", metavar="NEW", type=Path, help="folder of another: what must do the same")
    parser.add_argument("--keep", metavar="FOLDER", type=Path, help="leave data and runs in this new folder")
    options = parser.parse_args()
    checkouts = [path.resolve() for path in (options.old, options.new)]
    for path in checkouts:
        refuse_strange_package(path)
    if options.keep is not None:
        options.keep.mkdir(parents=True)
        return compare_checkouts(options.keep.resolve(), checkouts)
    with tempfile.TemporaryDirectory() as folder:
        return compare_checkouts(Path(folder), checkouts)


def compare_checkouts(folder: Path, checkouts: Sequence[Path]) -> int:
    """Run both checkouts below `folder` and print the table; the exit code."""
    began = time.monotonic()
    places = [folder / "old", folder / "new"]
    make_data(folder, places)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run_all, checkouts, places))
    rows = list(compare(*places))
    width = max(len(row.name) for row in rows)
    for row in rows:
        print(f"{row.name:<{width}}  {'differs: ' + row.difference if row.difference else 'equal'}")
    count = sum(bool(row.difference) for row in rows)
    print(f"\n{count or 'none'} of {len(rows)} differ, {time.monotonic() - began:.0f} s")
    return int(count > 0)


# --- What is run -----------------------------------------------------------------------------------------------------


def build_environment(checkout: Path) -> dict[str, str]:
    """The package of this checkout comes first, in `lib` itself or in a folder below it."""
    paths = [checkout]
    if find_package(checkout) != "lib":  # a folder `lib` that is the package has names of the standard library in it
        paths.append(checkout / "lib")
    path = os.pathsep.join(str(path) for path in paths)
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "PYTHONPATH": path}


def find_package(checkout: Path) -> str:
    return "sharpstudent" if (checkout / "lib/sharpstudent").is_dir() else "lib"


def refuse_strange_package(checkout: Path) -> None:
    """End where Python would import the package from elsewhere, such as from an installed copy."""
    code = f"import {find_package(checkout)} as package; print(package.__file__)"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=build_environment(checkout), cwd="/", capture_output=True, text=True)
    if not done.stdout.startswith(f"{checkout}{os.sep}"):
        sys.exit(f"{checkout}: its package is not what is imported, but {done.stdout.strip() or done.stderr.strip()}")


def make_data(folder: Path, places: Sequence[Path]) -> None:
    """Drawn faces as a small FaceForensics++ and as labelled crops, once; links to them and configs for each place."""
    ffpp_tree: Any = importlib.import_module("ffpp_tree")
    ffpp_tree.has_photos = lambda: False  # drawn faces on every machine
    ffpp_tree.build_tree(folder / "data/ffpp", train_clips=6, val_clips=4)
    ffpp_tree.write_labelled(folder / "data/labelled", people=9, size=48)
    for place in places:
        place.mkdir()
        for name in ("ffpp", "labelled"):
            (place / name).symlink_to(f"../data/{name}")
        for name, keys in CONFIGS.items():
            (place / f"{name}.json").write_text(json.dumps({**COMMON, **keys}))


def run_all(checkout: Path, place: Path) -> None:
    """Everything that is compared, by the scripts of `checkout` in the folder `place`."""

    def run(script: str, *words: str, is_terminated: bool = False) -> None:
        run_script(checkout, place, script, *words, is_terminated=is_terminated)

    run("prepare_faces.py", "ffpp", "prepared", "--image-size", "32", "--workers", "1")
    run(STAGE_1, "blended.json", "-n", "teacher", "--set", "student=test_resnet", "--set", "epoch=1")
    run(STAGE_1, "blended.json", "-n", "first")
    run(STAGE_2, "blended.json", "-n", "second")
    first, second, teacher = (str(find(place, f"output/{name}_*")) for name in ("first", "second", "teacher"))
    run("evaluate_model.py", second, "--out", "evaluated", *FAST)  # on the run's own validation: the prepared set
    models = ("--teacher", teacher, "--before", first, "--distilled", second)
    run("compare_models.py", *models, "--data", "labelled", "--crops", "--out", "compared", "--no-costs", *FAST)
    run(STAGE_1, "labelled.json", "-n", "cut", is_terminated=True)
    run(STAGE_1, "--resume", "cut")


def run_script(checkout: Path, place: Path, script: str, *words: str, is_terminated: bool = False) -> None:
    """Run it to its end, or until it is terminated in its second epoch. Raises SystemExit where it fails."""
    with (place / "said.txt").open("a") as said:
        process = subprocess.Popen(
            [sys.executable, str(checkout / script), *words],
            cwd=place,
            env=build_environment(checkout),
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        while is_terminated and process.poll() is None and find(place, "output/cut_*/weights/best_model.pth") is None:
            time.sleep(0.005)
        if is_terminated:
            process.terminate()
        code = process.wait()
    if code not in ((0, 143) if is_terminated else (0,)):  # a fast machine may be done before the signal comes
        tail = (place / "said.txt").read_text()[-3000:]
        sys.exit(f"{checkout / script} {' '.join(words)}: exit code {code}\n{tail}")


if __name__ == "__main__":
    sys.exit(main())
