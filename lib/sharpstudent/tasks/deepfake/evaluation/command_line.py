"""The options of evaluate_model.py and compare_models.py for detectors of deepfakes. Importing this loads no torch.

[NAME=]VALUE options describe a model whose file does not describe itself. Every mistake is a `UserError` with a remedy.
"""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from sharpstudent.core.arguments import add_option, fill, read_number
from sharpstudent.core.errors import Problem, ProblemList, UserError
from sharpstudent.evaluation.command_line import (
    COMPARE,
    EVALUATE,
    DataRequest,
    EvaluationRequest,
    ModelRequest,
    add_by,
    add_data,
    add_rounds,
    add_running_options,
    build_data_requests,
    build_parser,
    read_by,
    read_models,
)
from sharpstudent.modalities.faces.views import VIEWS
from sharpstudent.tasks.deepfake.evaluation.set_request import DataChoices, FacesRule, Split
from sharpstudent.tasks.deepfake.options import OPTIONS, read_label


@dataclass(frozen=True)
class FaceRequest(EvaluationRequest):
    """The request for an evaluation of detectors.

    Attributes:
        choices: How the data sets are read.
        validation: The data sets on which temperature and thresholds are chosen; empty to use the stored ones.
        fprs: Wanted false positive rates (reals called fake), 0..1, besides 1 % and 0.1 %.
        store: Whether the chosen temperature and thresholds are written into the checkpoints.
        robustness: The names of the corruptions to measure, empty for all; None to measure no robustness.
        robustness_faces: How many faces are drawn to measure robustness; None for all.
        heat_maps: Whether the worst mistakes are shown with heat maps.
        rules: The names of the rules that score videos, as in `frames.Aggregation`.
    """

    choices: DataChoices = field(default_factory=DataChoices)
    validation: tuple[DataRequest, ...] = ()
    fprs: tuple[float, ...] = ()
    store: bool = False
    robustness: tuple[str, ...] | None = None
    robustness_faces: int | None = 1000
    heat_maps: bool = False
    rules: tuple[str, ...] = ("mean", "max", "top10")


def assign_model_options(read: Namespace, models: Sequence[ModelRequest]) -> tuple[ModelRequest, ...]:
    """Give each model its values of the [NAME=]VALUE options: those with its name, else those without a name.

    Args:
        read: The parsed options.
        models: The models.

    Returns:
        The models with these values.

    Raises:
        UserError: For values that cannot be read and names that no model has, all of them together.
    """
    problems = ProblemList()
    values: dict[str, dict[str | None, Any]] = {}
    for key in _OF_MODELS:
        try:
            values[key] = _read_named(key, getattr(read, key))
        except UserError as error:
            problems.take(error)
    known = {model.name for model in models}
    for key, named in values.items():
        for name in named.keys() - known - {None}:
            what = f"is for a model called {name}, and there is none"
            got = f"models: {', '.join(sorted(name for name in known if name)) or 'none with a name'}"
            problems.add(Problem(_name_option(key), what, got=got, remedy=f"call it {name}=MODEL"))
    problems.raise_if_any()
    return tuple(
        replace(model, options={key: named.get(model.name, named.get(None)) for key, named in values.items()})
        for model in models
    )


def _read_named(key: str, words: Sequence[str]) -> dict[str | None, Any]:
    """Read the values of a [NAME=]VALUE option by name; the value for all other models has the name None."""
    reader, _, _, example = _OF_MODELS[key]
    option = _name_option(key)
    found: dict[str | None, Any] = {}
    for word in words:
        name, _, text = word.rpartition("=")
        value = reader(text) if text else None
        if value is None or (name or None) in found:
            what = "is given twice" if value is not None else "is no value for it"
            remedy = f"one {option} for all, or {option} NAME=...; such as {option} {example}"
            raise UserError.about(option, what, got=word, remedy=remedy)
        found[name or None] = value
    return found


def _read_size(text: str) -> int | None:
    return int(text) if text.isdecimal() and 32 <= int(text) <= 2048 else None


def _read_classes(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


def _read_colour(text: str) -> tuple[float, float, float] | None:
    try:
        red, green, blue = (float(word) for word in text.split(","))
    except ValueError:
        return None
    return (red, green, blue) if all(map(math.isfinite, (red, green, blue))) else None


def _read_views(text: str) -> str | None:
    return text if text in VIEWS else None


def _read_yes(text: str) -> bool | None:
    return {"yes": True, "no": False}.get(text)


# The [NAME=]VALUE options: how the value is read, its name and text in --help, an example.
_OF_MODELS: dict[str, tuple[Callable[[str], Any], str, str, str]] = {
    "architecture": (str, "ARCH", "efficientnet-b4 or a timm name", "efficientnet-b4"),
    "image_size": (_read_size, "PX", "side of the network's input", "380 (32 to 2048 pixels)"),
    "classes": (_read_classes, "A,B", "order of its logits (default: real,fake)", "fake,real"),
    "mean": (_read_colour, "R,G,B", "subtracted from RGB in 0..1 (default: nothing)", "0.5,0.5,0.5"),
    "std": (_read_colour, "R,G,B", "then divided by (default: nothing)", "0.5,0.5,0.5"),
    "use_ema": (_read_yes, "YES", "yes: its averaged weights (EMA), where it has plain ones, too", "yes"),
    "views": (_read_views, "VIEWS", f"score by the mean over views of a face: {', '.join(VIEWS)}", next(iter(VIEWS))),
}
_OF_SCORES = ("views",)  # of these options: those that say how a model is used, not what it is


def _name_option(key: str) -> str:
    return f"--{key.replace('_', '-')}"


_MORE = """models and sets (NAME=MODEL, NAME=SET: with names; options of another task: --task MODULE:CLASS --help):
  MODEL   a run folder; a checkpoint (.pth, .safetensors); a teacher's file or folder (FFc23.tar, Hugging Face); .onnx
  SET     a prepared set; a folder or table of pictures or videos, with --crops of face crops (default: validation)"""
_PURPOSES = {
    EVALUATE: """Evaluate trained models: metrics by frame and by video, by source and by kind of fake, with intervals
over people, as a report that opens from disk, results.json, scores.csv, pictures and a model card.""",
    COMPARE: "Compare models on the same pictures: did distillation help, is the student lighter, what does it cost?",
}


def _add_data_options(group: Any) -> None:
    add, default = group.add_argument, DataChoices()
    add_data(group)
    add(
        "--split",
        choices=get_args(Split),
        default=default.split,
        help="part that is read where a set has splits (%(default)s)",
    )
    add("--crops", action="store_true", help="the folders hold face crops: no face is detected or cropped")
    add("--clips", action="store_true", help="with --crops: each subfolder holds the frames of one video")
    add_option(group, OPTIONS, "--layout", help="form of a folder, as in prepare_faces.py (default: recognised)")
    add_option(group, OPTIONS, "--label", help="label of everything in the folders (default: by folders or lists)")
    add_option(group, OPTIONS, "--people", help="what one person is in a folder of your own (default: folders)")
    text = "largest of a clip; max, mean of a frame; person: a clip's likeliest fake (%(default)s)"
    add("--faces", choices=get_args(FacesRule), metavar="RULE", default=default.faces, help=text)
    add_option(group, OPTIONS, "--frames", default=default.frames, help="frames of each video (%(default)s)")
    add_option(group, OPTIONS, "--min-face", help="smaller faces are not evaluated, px (%(default)s)")


def _add_evaluation_options(group: Any) -> None:
    add, default = group.add_argument, FaceRequest(())
    text = "choose temperature and thresholds on these (default: as stored)"
    add("--validation", metavar="SET", nargs="+", action="extend", default=[], help=text)
    rate = read_number(float, 0, 1, above=True, below=True)
    text = "with --validation: also thresholds for these shares of false alarms, such as 0.05"
    add("--fpr", dest="fprs", metavar="X", nargs="+", type=rate, default=[], help=text)
    add("--store", action="store_true", help="with --validation: write them into the checkpoints' JSON, for later use")
    text = "rules that score videos: mean, max, top10 (of the highest 10 %%; default: these)"
    add("--video-rules", dest="rules", metavar="RULE", nargs="+", default=list(default.rules), help=text)
    text = "also on corrupted faces: all, or jpeg h264 resize blur noise darker crop_jitter ..."
    add("--robustness", metavar="NAME", nargs="*", help=text)
    text = "faces drawn for --robustness (%(default)s; 0: all)"
    most = read_number(int, 0, 10_000_000)
    add("--robustness-faces", metavar="N", type=most, default=default.robustness_faces, help=text)
    keys = "person, clip or sample of scores.csv"
    add_by(group, what="count errors", keys=keys, default="the data's own table")
    add("--heat-maps", action="store_true", help="Grad-CAM over the worst mistakes (extra `heatmaps`)")
    add_rounds(group)


def parse_request(argv: Sequence[str], *, script: str) -> FaceRequest:
    """Read the arguments of a script.

    Args:
        argv: The arguments, without the program's name.
        script: EVALUATE or COMPARE.

    Returns:
        The request.

    Raises:
        UserError: For every mistake.
        SystemExit: With 0, after `--help`.
    """
    parser = build_parser(script, _PURPOSES[script], _MORE, data="data/mine")
    _add_data_options(parser.add_argument_group("data"))
    evaluation = parser.add_argument_group("evaluation")
    _add_evaluation_options(evaluation)
    group = parser.add_argument_group("models whose files do not describe them (NAME=VALUE: for that model only)")
    for key, (_, value, text, _) in _OF_MODELS.items():
        (evaluation if key in _OF_SCORES else group).add_argument(
            _name_option(key), metavar=f"[NAME=]{value}", action="append", default=[], help=text
        )
    add_running_options(parser.add_argument_group("running"), script=script, unit="face")
    read = parser.read(argv)
    models = assign_model_options(read, read_models(read, script=script))
    if not read.validation and (read.store or read.fprs):
        option = "--store" if read.store else "--fpr"
        raise UserError.about(option, "needs --validation SET: thresholds are chosen there", remedy="add it")
    return fill(
        FaceRequest,
        read,
        models=models,
        data=build_data_requests(read.data),
        choices=fill(DataChoices, read, label=read_label(read)),
        validation=build_data_requests(read.validation),
        fprs=tuple(read.fprs),
        robustness=None if read.robustness is None else tuple(name for name in read.robustness if name != "all"),
        robustness_faces=read.robustness_faces or None,
        rules=tuple(dict.fromkeys(read.rules)),
        by=read_by(read),
    )
