"""A disk that is soon full: of bytes, or of files."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(folder: Path, size: str = "24m", *, files: int | None = None) -> Iterator[Path]:
    """A disk of `size` (such as `100k` or `2m`), mounted at `folder`, that takes `files` files.

    Skips the test with the reason where no disk can be mounted: that needs Linux and its administrator.
    """
    folder.mkdir(exist_ok=True)
    options = f"size={size}" + ("" if files is None else f",nr_inodes={files}")
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no mount program: {error}")
    if done.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
