"""Train the deepfake model that comes with the package, from freely licensed photos only, and write its card.

    make train-free DATA=FOLDER

One recipe, written down once: configs/free.json (hard labels, SAM, averaged weights; fakes of three kinds, degraded as
videos are). The test people of data/free/faces.csv are looked at after it, once: two kinds of fake that it learnt from,
and one that it never saw, face swaps with a hard edge. The card gets these figures whatever they are. Stopped, the same
command goes on.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sharpstudent.config.load import read_config_file
from sharpstudent.core.arguments import EXIT_CODES, Parser, read_path
from sharpstudent.core.errors import UserError, exit_codes
from sharpstudent.core.io import write_text_atomically
from sharpstudent.core.shipped import FOLDER

NAME = "deepfake-small"
CONFIG = "configs/free.json"
PHOTOS, BLENDS = "data/free/faces.csv", "data/free/blends"
SWAPS = {"face swaps": ("data/free/swaps", "poisson"), "face swaps with a hard edge": ("data/free/hard_swaps", "hard")}
REPORT = Path("output/free_evaluation")
METRICS = (
    ("frame_auc", "AUC (chance: .5)"),
    ("frame_tpr_at_fpr_1pct", "fakes found at 1 % false alarms"),
    ("frame_eer", "equal error rate"),
)
CARD = ROOT / "demo" / "free_card.md"


def main() -> None:
    """Run all parts; each is one of the project's own commands."""
    parser = Parser("demo/train_free.py", str(__doc__), more=EXIT_CODES, examples=["demo/train_free.py ../photos"])
    parser.add_argument("data", metavar="DATA", type=read_path, help="folder with the three sets of photos")
    data = parser.read(sys.argv[1:]).data
    run("fetch_models.py", "demo")
    run("demo/free_photos.py", str(data))
    run("train_student_only.py", CONFIG, "-n", "free", "--resume", "auto")
    judge()


def judge() -> None:
    """Ship the best model of the run, evaluate it on the test people, and write its card."""
    run("demo/ship_model.py", str(find_run()), NAME)
    run("demo/write_blends.py", PHOTOS, BLENDS, CONFIG)
    side = str(read_config_file(ROOT / CONFIG)["image_size"])
    for folder, blending in SWAPS.values():
        options = ["--split", "test", "--per-face", "2", "--image-size", side, "--blending", blending]
        run("make_swaps.py", PHOTOS, folder, *options)
    sets = [f"self-blends={BLENDS}/blends.csv", *(f"{name}={folder}" for name, (folder, _) in SWAPS.items())]
    run("evaluate_model.py", NAME, "--data", *sets, "--crops", "--costs", "--out", str(REPORT))
    write_text_atomically(FOLDER / f"{NAME}.md", write_card(json.loads((REPORT / "results.json").read_text("utf-8"))))
    print(f"{FOLDER / NAME}.md is written; {REPORT}/report.html has everything")


def run(*words: str) -> None:
    """Run a script of this project. Raises UserError where it fails."""
    print(f"\n$ python {' '.join(words)}", flush=True)
    code = subprocess.run([sys.executable, *words], cwd=ROOT, check=False).returncode
    if code != 0:
        raise UserError.about(words[0], f"ended with exit code {code}", remedy="see above; the same command goes on")


def find_run() -> Path:
    """Find the newest run of configs/free.json."""
    return max((ROOT / "output").glob("free_[0-9][0-9]_*/"), key=lambda path: path.stat().st_mtime)


def write_card(results: dict[str, Any]) -> str:
    """Write the card with the figures of an evaluation."""
    (model,) = results["models"]
    sets = [data["name"] for data in results["data"]]
    rows = [
        f"| {title} | {' | '.join(_tell(model['figures'].get(f'{metric}@{one}')) for one in sets)} |"
        for metric, title in METRICS
    ]
    photos = [line.split(",") for line in (ROOT / PHOTOS).read_text("utf-8").splitlines()[1:]]
    people = {split: len({one[-2] for one in photos if one[-1] == split}) for split in ("train", "val", "test")}
    return CARD.read_text("utf-8").format(
        name=NAME,
        architecture=model["architecture"],
        epoch=model["trained"]["epoch"],
        validated=len((find_run() / "logs" / "metrics.csv").read_text("utf-8").splitlines()) - 1,
        epochs=read_config_file(ROOT / CONFIG)["epoch"],
        parameters=model["cost"]["parameters"] / 1e6,
        megabytes=model["cost"]["file_bytes"] / 1e6,
        side=model["image_size"],
        grey=sum(one[-2].startswith("congress") for one in photos),
        people=f"{people['train']} people train, {people['val']} choose the epoch, {people['test']} test",
        sets=" | ".join(
            f"{data['name']} ({data['frames']:,} faces of {data['people']} people)" for data in results["data"]
        ),
        rules="|".join("---" for _ in sets),
        rows="\n".join(rows),
    )


def _tell(figure: dict[str, Any] | None) -> str:
    if figure is None or figure["value"] is None:
        return "not defined"
    ends = "" if figure["low"] is None else f" [{figure['low']:.3f}, {figure['high']:.3f}]"
    return f"{figure['value']:.3f}{ends}"


if __name__ == "__main__":
    with exit_codes():
        main()
