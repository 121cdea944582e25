"""A labelled set of drawn noise, and the ways in which its files break."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np


def write_set(root: Path, *, pictures: int, side: int = 36) -> list[Path]:
    """ROOT/{real,fake}/N.png, half of them each; smooth noise, the fakes darker. Returns the paths, sorted."""
    rng = np.random.default_rng(0)
    paths = []
    for index in range(pictures):
        label = ("real", "fake")[index % 2]
        noise = rng.integers(0, 256 if label == "real" else 128, (side, side, 3)).astype(np.uint8)
        path = root / label / f"{index:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), cv2.GaussianBlur(noise, (5, 5), 2))
        paths.append(path)
    return sorted(paths)


def truncate(path: Path) -> None:
    """A copy that broke off."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def fill_with_garbage(path: Path) -> None:
    path.write_bytes(np.random.default_rng(1).bytes(3000))


def replace_by_web_page(path: Path) -> None:
    """What a download leaves when the picture is gone."""
    path.write_text("<!DOCTYPE html><html><head><title>404</title></head><body>Not found</body></html>")


def claim_to_be_huge(path: Path) -> None:
    """A header of 60,000 x 60,000 pixels, 10.8 GB when decoded, and a few bytes of them."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(180_001))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + _make_chunk(b"IHDR", header) + _make_chunk(b"IDAT", pixels) + _make_chunk(b"IEND", b"")
    )


def _make_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


KINDS: dict[str, Callable[[Path], None]] = {
    "truncated": truncate,
    "empty": empty,
    "garbage": fill_with_garbage,
    "web page": replace_by_web_page,
    "huge header": claim_to_be_huge,
}


def break_some(paths: list[Path], count: int, *, kinds: list[str], seed: int = 0) -> list[Path]:
    """Break `count` of the files, with the kinds in turn; returns their paths."""
    chosen = np.random.default_rng(seed).choice(len(paths), count, replace=False)
    for turn, index in enumerate(chosen):
        KINDS[kinds[turn % len(kinds)]](paths[index])
    return [paths[index] for index in chosen]
