"""Make what README shows: a batch of drawn faces, and with `--demo` the curves and figures of the last `make demo`.

    python docs/pictures/make.py
    python docs/pictures/make.py --demo    # after `make demo`: docs/demo.csv and demo_curves.png, of the same run
    python docs/pictures/make.py --pages output/RUN    # pages of predict.py and app.py, in a headless Chromium

`tests/test_readme_figures.py` holds README's table and the picture against docs/demo.csv. No photo of a person is ever
committed: the faces in the batch are drawn.
"""

from __future__ import annotations

import argparse
import csv
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers"), str(ROOT / "tests/tasks/deepfake/report")]

from browser import Page, find_browser, start_browser  # noqa: E402  # pyright: ignore[reportMissingImports]
from drawn_faces import draw_face  # noqa: E402
from made_videos import write_video  # noqa: E402  # pyright: ignore[reportMissingImports]
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
    parser.add_argument("--pages", metavar="RUN", type=Path, help="draw the pages of answers with the model of a run")
    read = parser.parse_args()
    if read.demo:
        publish_demo()
    elif read.pages:
        with tempfile.TemporaryDirectory() as folder:
            draw_pages(read.pages.absolute(), Path(folder))
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


def draw_pages(model: Path, folder: Path) -> None:
    """Draw the page of a film of a drawn face, and that of app.py with its example."""
    face = np.pad(draw_face(3, 160)[0], ((20, 20), (60, 60), (0, 0)))
    write_video(folder / "film.avi", [np.roll(face, 40 - abs(40 - i), axis=1) for i in range(80)])
    (folder / "weights").symlink_to(ROOT / "weights")
    words = [sys.executable, str(ROOT / "predict.py"), str(model), "film.avi", "--every-frame", "--out", "answers"]
    subprocess.run(words, cwd=folder, check=True)
    (answer,) = (folder / "answers").glob("*.html")
    words = [sys.executable, str(ROOT / "app.py"), str(model), "--port", "0"]
    app = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert app.stdout is not None
    address = next(found[0] for line in app.stdout if (found := re.search(r"http://[\d.:]+/", line)))
    program = find_browser()
    assert program is not None, "no Chromium here: make browser"
    try:
        with start_browser(program, folder) as browser:
            page = browser.open_page()
            page.open(answer.as_uri(), width=900, scheme="light")
            take_picture(page, PICTURES / "prediction.webp")
            page.open(address, width=900, scheme="light")
            page.evaluate("document.querySelector('button[name=example]').click()")
            while not page.evaluate("document.readyState === 'complete' && !!document.getElementById('answer')"):
                time.sleep(0.2)
            take_picture(page, PICTURES / "app.webp")
    finally:
        app.terminate()
        app.wait()


def take_picture(page: Page, path: Path) -> None:
    """Take a picture of a whole page as WebP, which is a quarter of its PNG."""
    raw = path.with_suffix(".raw.png")
    page.take_picture(raw)
    with Image.open(raw) as picture:
        picture.convert("RGB").save(path, quality=80, method=6)
    raw.unlink()


if __name__ == "__main__":
    main()
