"""Draw the README's picture of a batch, on drawn faces: no photo of a person is ever committed.

python docs/pictures/make.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from drawn_faces import draw_face  # noqa: E402
from sharpstudent.core.random import build_generator  # noqa: E402
from sharpstudent.modalities.faces.item import make_pair  # noqa: E402
from sharpstudent.tasks.deepfake.report.batch_picture import draw_batch  # noqa: E402

FACES = 4


def main() -> None:
    pairs = [make_pair(*draw_face(seed, 320), build_generator(2, 1, seed), 160, train=True) for seed in range(FACES)]
    images = np.stack([pair.real for pair in pairs] + [pair.fake for pair in pairs])
    masks = np.stack([np.zeros_like(pair.mask) for pair in pairs] + [pair.mask for pair in pairs])
    ids = [f"drawn {seed}" for seed in range(FACES)] * 2
    draw_batch(
        ROOT / "docs" / "pictures" / "drawn_batch.png",
        images,
        [0] * FACES + [1] * FACES,
        ids,
        masks=masks,
        title="one augmented training batch (drawn faces)",
    )


if __name__ == "__main__":
    main()
