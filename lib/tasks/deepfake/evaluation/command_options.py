"""Texts, options and readers of values that evaluate_model.py and compare_models.py share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, get_args

from lib.errors import Problem, UserError
from lib.tasks.deepfake.evaluation.set_request import FacesRule, Split
from lib.tasks.deepfake.evaluation.wishes import DataChoices, EvaluationRequest

EPILOG = """models and sets:
  MODEL   a run folder, a checkpoint (.pth, .safetensors), a teacher's file (FFc23.tar, a state dict with
          --architecture) or an .onnx file; NAME=MODEL gives it the name that the report calls it by
  SET     what prepare_faces.py has made; or a folder of whole pictures or videos (real/ and fake/, FaceForensics++,
          ...), whose faces are cut first, exactly as for training; or, with --crops, real/ and fake/ of face crops,
          such as make_swaps.py writes; NAME=SET gives it a name. Without --data: the validation data of the run that
          made the last model that has one

exit codes:
  0         done
  2         something must be mended first: the command, a file, the data, the disk
  130, 143  interrupted by Ctrl-C or SIGTERM; nothing half is left"""


class Parser(argparse.ArgumentParser):
    """Mistakes become a `UserError`, so that they look and exit like every other mistake."""

    def error(self, message: str) -> NoReturn:
        raise UserError(Problem("command line", message, remedy=f"python {self.prog} --help"))


def build_parser(script: str, usage: str, purpose: str) -> Parser:
    return Parser(
        prog=script,
        usage=usage,
        description=purpose,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_options(parser: argparse.ArgumentParser, *, costs: bool) -> None:
    _add_data_options(parser.add_argument_group("data"))
    _add_judging_options(parser.add_argument_group("judging"))
    add = parser.add_argument_group("models that do not describe themselves (NAME=: of that model alone)").add_argument
    add("--architecture", metavar="[NAME=]ARCH", action="append", default=[], help="efficientnet-b4 or a timm name")
    add("--image-size", metavar="[NAME=]PX", action="append", default=[], help="side of the network's input")
    text = "order of its logits (default: real,fake)"
    add("--classes", metavar="[NAME=]A,B", action="append", default=[], help=text)
    text = "subtracted from RGB in 0..1 (default: nothing)"
    add("--mean", metavar="[NAME=]R,G,B", action="append", default=[], help=text)
    add("--std", metavar="[NAME=]R,G,B", action="append", default=[], help="then divided by (default: nothing)")
    add = parser.add_argument_group("running").add_argument
    default = EvaluationRequest(())
    text = "measure parameters, MACs, memory and latency too"
    if costs:
        add("--no-costs", dest="costs", action="store_false", help="leave out MACs, memory and latency")
    else:
        add("--costs", action="store_true", help=text)
    add("--device", choices=("auto", "cpu", "cuda", "mps"), default=default.device, help="default: %(default)s")
    add("--workers", metavar="N", type=_number(int, 0, 256), default=default.workers, help="loader processes")
    add("--batch-size", metavar="N", type=_number(int, 1, 4096), default=default.batch_size, help="faces at once")
    add("--out", metavar="FOLDER", type=Path, help="where the report goes (default: a new folder under output/)")


def _add_data_options(group: Any) -> None:
    add, default = group.add_argument, DataChoices()
    add("--data", metavar="SET", nargs="+", action="extend", default=[], help="data sets, see below")
    add("--split", choices=get_args(Split), default=default.split, help="rows of a prepared set (%(default)s)")
    add("--crops", action="store_true", help="the folders hold face crops already: nothing is detected or cut")
    add("--layout", metavar="NAME", help="form of a folder, as in prepare_faces.py (default: recognised)")
    add("--label", choices=("real", "fake"), help="of all in the folders (default: what folders or lists say)")
    text = "which faces of a frame count: the largest person's, or all, scored by their maximum or mean (%(default)s)"
    add("--faces", choices=get_args(FacesRule), default=default.faces, help=text)
    add("--frames", metavar="N", type=_number(int, 1, 100_000), default=default.frames, help="of a video (%(default)s)")
    text = "smaller faces are not judged, px (%(default)s)"
    add("--min-face", metavar="PX", type=_number(int, 16, 4096), default=default.min_face, help=text)


def _add_judging_options(group: Any) -> None:
    add, default = group.add_argument, EvaluationRequest(())
    text = "choose temperature and thresholds on these instead of what the checkpoints have stored; never on --data"
    add("--validation", metavar="SET", nargs="+", action="extend", default=[], help=text)
    text = "with --validation: also thresholds for these shares of false alarms, such as 0.05"
    add("--fpr", metavar="X", nargs="+", type=_number(float, 0, 1, open_ends=True), default=[], help=text)
    add("--store", action="store_true", help="with --validation: write them into the checkpoints' JSON, for later use")
    text = "how videos are scored: mean, max, top10 (mean of the highest 10 %%), top5frames, ... (default: these three)"
    add("--video-rules", metavar="RULE", nargs="+", default=list(default.rules), help=text)
    text = "also disturbed: all, or by name jpeg h264 resize blur noise darker brighter crop_jitter social_media"
    add("--robustness", metavar="NAME", nargs="*", help=text)
    text = "faces for that, drawn once (%(default)s; 0: all)"
    most = _number(int, 0, 10_000_000)
    add("--robustness-faces", metavar="N", type=most, default=default.robustness_faces, help=text)
    add("--heat-maps", action="store_true", help="Grad-CAM over the worst mistakes (extra `heatmaps`)")
    text = "bootstrap rounds of the intervals (%(default)s)"
    add("--rounds", metavar="N", type=_number(int, 10, 100_000), default=default.rounds, help=text)


def _number(kind: Callable[[str], float], low: float, high: float, *, open_ends: bool = False) -> Callable[[str], Any]:
    """A reader of numbers from `low` to `high`; open_ends: without these two."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (low < value < high if open_ends else low <= value <= high):
            noun = "a whole number" if kind is int else "a number"
            between = f"between {low:g} and {high:g}" if open_ends else f"from {low:g} to {high:g}"
            raise argparse.ArgumentTypeError(f"{text!r} is not {noun} {between}")
        return value

    return read
