"""Keeps what a frozen teacher computed of windows, in memory and in a folder, so that no window is computed twice.

An answer is found by the digest of the very samples of its window: another augmentation never finds it. The folder has
files of up to PART_ROWS answers, each named by the digest of its content, so that processes which write at the same
time never meet, and a damaged file is left aside.

Legend: R rows, D values of an answer.
"""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.files import read_plain
from sharpstudent.core.io import make_folder, write_bytes_atomically

DIGEST_BYTES = 16
PART_ROWS = 256
MOST_ROWS = 100_000  # in memory, of 1.5 kB each
ENDING = ".npz"

Values = NDArray[np.float32]


class KeptAnswers:
    """The answers of one teacher by window."""

    def __init__(self, folder: Path | None) -> None:
        """Start with what the folder holds; it is read at the first window.

        Args:
            folder: Where answers outlive the process, a folder for this teacher alone; None for memory only.
        """
        self._folder, self._is_read = folder, folder is None
        self._kept: OrderedDict[bytes, Values] = OrderedDict()
        self._unwritten: list[bytes] = []

    def answer(self, windows: Values, compute: Callable[[Values], Values]) -> Values:
        """Look windows up, and compute those that are not there.

        Args:
            windows: float32 (R, S).
            compute: Turns some of the windows, (r, S), into their answers, (r, D).

        Returns:
            float32 (R, D).
        """
        self._read()
        keys = [hashlib.blake2b(row.tobytes(), digest_size=DIGEST_BYTES).digest() for row in windows]
        new = [number for number, key in enumerate(keys) if key not in self._kept]
        if new:
            for number, found in zip(new, compute(windows[new]), strict=True):
                self._kept[keys[number]] = found
                self._unwritten.append(keys[number])
        result = np.stack([self._kept[key] for key in keys])
        if len(self._unwritten) >= PART_ROWS:
            self._write()
        while len(self._kept) > MOST_ROWS:
            self._kept.popitem(last=False)
        return result

    def _read(self) -> None:
        if self._is_read:
            return
        self._is_read = True
        assert self._folder is not None
        for path in sorted(self._folder.glob(f"*{ENDING}")):
            content = _read_whole(path)
            if content is not None:
                with np.load(io.BytesIO(content), allow_pickle=False) as part:
                    keys, values = part["keys"], part["values"]
                self._kept.update((key.tobytes(), one) for key, one in zip(keys, values, strict=True))

    def _write(self) -> None:
        """Write the answers that are not in the folder yet."""
        keys, self._unwritten = [key for key in self._unwritten if key in self._kept], []
        if self._folder is None or not keys:
            return
        content = io.BytesIO()
        digests = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, DIGEST_BYTES)
        np.savez(content, keys=digests, values=np.stack([self._kept[key] for key in keys]))
        make_folder(self._folder)
        write_bytes_atomically(self._folder / f"{_compute_digest(content.getvalue())}{ENDING}", content.getvalue())


def _read_whole(path: Path) -> bytes | None:
    """Read a file whose name is the digest of its content; None for one that is damaged: it is computed again."""
    try:
        content = read_plain(path)
    except OSError:
        return None
    return content if _compute_digest(content) == path.stem else None


def _compute_digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).hexdigest()
