"""Options that the deepfake task's scripts share: the preparation of faces, face swaps, evaluation."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from sharpstudent.core.arguments import read_number

LABELS = ("real", "fake")  # by their numbers
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "--layout": {"metavar": "NAME"},
    "--label": {"choices": LABELS},
    "--people": {
        "choices": ("folders", "files"),
        "help": "what one person is in files of your own (default: folders, unless one holds most pictures)",
    },
    "--frames": {"metavar": "N", "type": read_number(int, 1, 100_000)},
    "--min-face": {"metavar": "PX", "type": read_number(int, 16, 4096), "default": 40},
    "--image-size": {"metavar": "PX", "default": 380},
    "--picture": {"choices": ("png", "jpg"), "default": "png"},
    "--split-seed": {"metavar": "N", "type": read_number(int, 0, 2**32 - 1), "default": 0},
    "--validation-share": {"metavar": "X", "type": read_number(float, 0, 1, below=True), "default": 0.2},
}


def read_label(read: Namespace) -> int | None:
    """Return the number of the label that `--label` names; None where it is not given."""
    return None if read.label is None else LABELS.index(read.label)
