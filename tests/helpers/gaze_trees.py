"""Small trees in the true form of GazeFollow and VideoAttentionTarget: drawn pictures, real layouts."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT = 96, 64


def draw_picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    cv2.imwrite(str(path), cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST))


def make_row(name: str, number: int, x: float, gaze: tuple[float, float], inout: int | None) -> str:
    """A row of GazeFollow; inout None for the test, which has no such column."""
    box = (x * WIDTH - 8, 10, x * WIDTH + 8, 28)
    cells = [name, number, 1, 2, 30, 40, x, 0.3, *gaze, *box, *([] if inout is None else [inout]), "source", "meta"]
    return ",".join(map(str, cells))


def make_gazefollow(root: Path, *, train: int = 8, test: int = 3) -> Path:
    """A tree of GazeFollow; every picture of training has two heads, one of which looks out of each third picture."""
    rows: dict[str, list[str]] = {"train": [], "test": []}
    for number in range(train):
        name = f"train/00000000/{number:08}.jpg"
        draw_picture(root / name, number)
        rows["train"] += [
            make_row(name, 2 * number, 0.3, (0.8, 0.2 + 0.05 * number), 1),
            make_row(name, 2 * number + 1, 0.6, (0.2, 0.6), 0 if number % 3 == 0 else 1),
        ]
    rows["train"].append(make_row("train/00000000/00000000.jpg", 99, 0.5, (0.5, 0.5), -1))
    for number in range(test):
        name = f"test2/00000000/{number:08}.jpg"
        draw_picture(root / name, 1000 + number)
        rows["test"] += [make_row(name, mark, 0.4, (0.7 + 0.01 * mark, 0.5), None) for mark in range(10)]
    for split, lines in rows.items():
        (root / f"{split}_annotations_release.txt").write_text("\n".join(lines) + "\n")
    return root


def make_vat(root: Path, *, shows: int = 3, frames: int = 14) -> Path:
    """A tree of VideoAttentionTarget: one clip a show, two people, the second of whom looks away now and then."""
    for split, first in (("train", 0), ("test", 100)):
        for show in range(first, first + shows):
            folder = root / "annotations" / split / f"Show {show}" / "100_200"
            folder.mkdir(parents=True)
            for person in range(2):
                lines = []
                for frame in range(frames):
                    name, x = f"{100 + frame:08}.jpg", 20 + 40 * person + frame % 3
                    gaze = (-1, -1) if person and frame % 4 > 1 else (70, 40)
                    lines.append(f"{name},{x},10,{x + 16},30,{gaze[0]},{gaze[1]}")
                    draw_picture(root / "images" / f"Show {show}" / "100_200" / name, 50 * show + frame)
                (folder / f"s{person:02}.txt").write_text("\n".join(lines) + "\n")
    return root
