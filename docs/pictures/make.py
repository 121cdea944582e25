"""Make what README shows: a batch of drawn faces, and with `--demo` the curves and figures of the last `make demo`.

    python docs/pictures/make.py
    python docs/pictures/make.py --demo    # after `make demo`: docs/demo.csv and demo_curves.png, of the same run

`tests/test_readme_figures.py` holds README's table and the picture against docs/demo.csv. No photo of a person is ever
committed: the faces in the batch are drawn.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

from drawn_faces import draw_face  # noqa: E402
from sharpstudent.core.random import build_generator  # noqa: E402
from sharpstudent.modalities.faces.sample import make_pair  # noqa: E402
from sharpstudent.tasks.deepfake.report.pictures import draw_batch  # noqa: E402

from demo.compare import OUT, ROLES  # noqa: E402
from demo.measure import find_run  # noqa: E402

FACES = 4
PICTURES = ROOT / "docs" / "pictures"
FIGURES = ROOT / "docs" / "demo.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", action="store_true", help="take curves and figures from output/, after `make demo`")
    if parser.parse_args().demo:
        publish_demo()
    else:
        draw_faces()


def draw_faces() -> None:
    """Draw one augmented training batch of faces that no camera has seen."""
    pairs = []
    for seed in range(FACES):
        image, landmarks = draw_face(seed, 320)
        pairs.append(make_pair(image, landmarks, build_generator(2, 1, seed), 160, train=True))
    images = np.stack([image for pair in pairs for image in (pair.real, pair.fake)])
    masks = np.stack([mask for pair in pairs for mask in (np.zeros_like(pair.mask), pair.mask)])
    ids = [f"drawn {seed}" for seed in range(FACES) for _ in (0, 1)]
    draw_batch(
        PICTURES / "drawn_batch.png",
        images,
        [0, 1] * FACES,
        ids,
        masks=masks,
        title="one augmented training batch (drawn faces)",
    )


def publish_demo() -> None:
    """Copy the figures of the demo's comparison, and the curves of the distilled run among its models."""
    shutil.copyfile(ROOT / OUT / "models.csv", FIGURES)
    with open(FIGURES, newline="", encoding="utf-8") as file:
        best = next(row["val_auc"] for row in csv.DictReader(file) if row["role"] == "distilled")
    curves = find_run(ROLES[-1][2]).parents[1] / "logs" / "curves.png"
    # The picture says which run it shows, so that a test can hold it against the table.
    about = PngInfo()
    about.add_text("val_auc", best)
    with Image.open(curves) as picture:
        picture.save(PICTURES / "demo_curves.png", pnginfo=about, optimize=True)


if __name__ == "__main__":
    main()
