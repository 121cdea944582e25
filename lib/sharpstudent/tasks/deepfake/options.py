"""Options that the deepfake task's scripts share: the preparation of faces, face swaps, evaluation."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from collections.abc import Mapping
from typing import Any

from sharpstudent.core.arguments import add_option, read_number
from sharpstudent.modalities.faces.views import VIEWS

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


def add_input_options(inputs: Any, models: Any) -> None:
    """Add the options of predict.py for pictures and videos, and for models whose files do not describe them.

    Args:
        inputs: The group of options for inputs.
        models: The group of options for models.
    """
    which = inputs.add_mutually_exclusive_group()
    text = "frames of each video, evenly spread, as in an evaluation (default: 32)"
    add_option(which, OPTIONS, "--frames", help=text)
    number = read_number(float, 0, 1000, above=True)
    which.add_argument("--fps", metavar="X", type=number, help="frames of each second of a video")
    which.add_argument("--every-frame", action="store_true", help="all frames of a video")
    add_option(inputs, OPTIONS, "--min-face", help="smaller faces are not judged, px (%(default)s)")
    text = f"score by the mean over views of a face: {', '.join(VIEWS)} (default: the crop alone)"
    inputs.add_argument("--views", choices=VIEWS, help=text)
    text = "a person's score in a video: mean (default), max, top10 (mean of the highest 10 %%) or top5frames"
    inputs.add_argument("--video-rule", metavar="RULE", type=_read_rule, help=text)
    text = "with --out: also each video with its faces marked, and its sound (extra `video`)"
    inputs.add_argument("--annotate", action="store_true", help=text)
    text = "which of its two outputs means fake: 0 or 1; needed where its file does not say it"
    models.add_argument("--fake-class", metavar="N", type=int, choices=(0, 1), help=text)
    models.add_argument("--architecture", metavar="ARCH", help="efficientnet-b4 or a timm name")
    size = read_number(int, 32, 2048)
    models.add_argument("--image-size", metavar="PX", type=size, help="side of the network's input")
    for option, text in (("--mean", "subtracted from RGB in 0..1"), ("--std", "then divided by")):
        models.add_argument(option, metavar="R,G,B", type=_read_colours, help=f"{text} (default: nothing)")
    text = "its averaged weights (EMA), where it has plain ones, too"
    models.add_argument("--use-ema", action="store_true", help=text)


def _read_rule(text: str) -> str:
    from sharpstudent.metrics.checks import MetricError
    from sharpstudent.tasks.deepfake.evaluation.frames import Aggregation

    try:
        return Aggregation(text).name
    except MetricError as error:
        raise ArgumentTypeError(str(error)) from None


def _read_colours(text: str) -> tuple[float, float, float]:
    try:
        red, green, blue = (float(word) for word in text.split(","))
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not three numbers such as 0.5,0.5,0.5") from None
    return red, green, blue
