"""The options of evaluate_model.py and compare_models.py for detectors, and what they ask for. Torch-free.

[NAME=]VALUE options are what is said of a model whose file does not say it itself. Every mistake is a `UserError` with
a remedy.
"""

from __future__ import annotations

import math
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from sharpstudent.core.errors import Problem, ProblemList, UserError
from sharpstudent.evaluation.command_line import (
    COMPARE,
    EVALUATE,
    DataRequest,
    EvaluationRequest,
    ModelRequest,
    add_models,
    add_rounds,
    add_running_options,
    build_parser,
    read_models,
    read_number,
    read_running_options,
    split_name,
)
from sharpstudent.tasks.deepfake.evaluation.set_request import FacesRule, Split


@dataclass(frozen=True)
class DataChoices:
    """How all data sets are read; the meaning of each is that of the option of its name."""

    split: Split = "test"
    crops: bool = False
    layout: str | None = None
    label: int | None = None
    faces: FacesRule = "largest"
    frames: int = 32
    min_face: int = 40


@dataclass(frozen=True)
class FaceRequest(EvaluationRequest):
    """What an evaluation of detectors is asked for, beside what every evaluation is.

    validation: where temperature and thresholds are chosen, instead of what the checkpoints have stored; fprs: wanted
    rates of false alarms, 0..1; store: write them into the checkpoints. rules: by which videos are scored, as in
    `metrics.aggregation`. robustness: disturbances to run (none: all), None for no robustness.
    """

    choices: DataChoices = DataChoices()
    validation: tuple[DataRequest, ...] = ()
    fprs: tuple[float, ...] = ()
    store: bool = False
    robustness: tuple[str, ...] | None = None
    robustness_faces: int | None = 1000
    heat_maps: bool = False
    rules: tuple[str, ...] = ("mean", "max", "top10")


def tell_models(read: Namespace, models: Sequence[ModelRequest]) -> tuple[ModelRequest, ...]:
    """Each model with the values that are meant for it: those with its name, else those without a name.

    Raises UserError, all problems together, for values that are none and for names that no model has.
    """
    problems = ProblemList()
    values: dict[str, dict[str | None, Any]] = {}
    for key, reader in _READERS.items():
        try:
            values[key] = _read_named(getattr(read, key), f"--{key.replace('_', '-')}", reader)
        except UserError as error:
            problems.take(error)
    known = {model.name for model in models}
    for key, named in values.items():
        for name in named.keys() - known - {None}:
            what = f"is for a model called {name}, and there is none"
            got = f"models: {', '.join(sorted(name for name in known if name)) or 'none with a name'}"
            problems.add(Problem(f"--{key.replace('_', '-')}", what, got=got, remedy=f"call it {name}=MODEL"))
    problems.raise_if_any()
    return tuple(
        replace(model, told={key: named.get(model.name, named.get(None)) for key, named in values.items()})
        for model in models
    )


def _read_named(words: Sequence[str], option: str, reader: Callable[[str], Any]) -> dict[str | None, Any]:
    """[NAME=]VALUE by name, None for that of all others."""
    found: dict[str | None, Any] = {}
    for word in words:
        name, _, text = word.rpartition("=")
        value = reader(text) if text else None
        if value is None or (name or None) in found:
            what = "is given twice" if value is not None else "is no value for it"
            remedy = f"one {option} for all, or {option} NAME=...; such as {option} {_EXAMPLES[reader]}"
            raise UserError(Problem(option, what, got=word, remedy=remedy))
        found[name or None] = value
    return found


def _read_text(text: str) -> str:
    return text


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


_READERS: dict[str, Callable[[str], Any]] = {
    "architecture": _read_text,
    "image_size": _read_size,
    "classes": _read_classes,
    "mean": _read_colour,
    "std": _read_colour,
}
_EXAMPLES = {
    _read_text: "efficientnet-b4",
    _read_size: "380 (32 to 2048 pixels)",
    _read_classes: "fake,real",
    _read_colour: "0.5,0.5,0.5",
}


_EPILOG = """models and sets:
  MODEL   a run folder, a checkpoint (.pth, .safetensors), a teacher's file (FFc23.tar, a state dict with
          --architecture) or an .onnx file; NAME=MODEL gives it the name that the report calls it by
  SET     what prepare_faces.py has made; or a folder of whole pictures or videos (real/ and fake/, FaceForensics++,
          ...), whose faces are cut first, exactly as for training; or, with --crops, real/ and fake/ of face crops,
          such as make_swaps.py writes; NAME=SET gives it a name. Without --data: the validation data of the run that
          made the last model that has one

another task: these are the options for detectors of deepfakes. Those of a task of your own are shown by
          --config CONFIG --help, or --task MODULE:CLASS --help in the folder of the module

exit codes:
  0         done
  2         something must be mended first: the command, a file, the data, the disk
  130, 143  interrupted by Ctrl-C or SIGTERM; nothing half is left"""


def _add_options(parser: ArgumentParser, *, script: str) -> None:
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
    add_running_options(parser.add_argument_group("running"), script=script, unit="face")


def _add_data_options(group: Any) -> None:
    add, default = group.add_argument, DataChoices()
    add("--data", metavar="SET", nargs="+", action="extend", default=[], help="data sets, see below")
    add("--split", choices=get_args(Split), default=default.split, help="rows of a prepared set (%(default)s)")
    add("--crops", action="store_true", help="the folders hold face crops already: nothing is detected or cut")
    add("--layout", metavar="NAME", help="form of a folder, as in prepare_faces.py (default: recognised)")
    add("--label", choices=("real", "fake"), help="of all in the folders (default: what folders or lists say)")
    text = "which faces of a frame count: the largest person's, or all, scored by their maximum or mean (%(default)s)"
    add("--faces", choices=get_args(FacesRule), default=default.faces, help=text)
    add(
        "--frames",
        metavar="N",
        type=read_number(int, 1, 100_000),
        default=default.frames,
        help="of a video (%(default)s)",
    )
    text = "smaller faces are not judged, px (%(default)s)"
    add("--min-face", metavar="PX", type=read_number(int, 16, 4096), default=default.min_face, help=text)


def _add_judging_options(group: Any) -> None:
    add, default = group.add_argument, FaceRequest(())
    text = "choose temperature and thresholds on these instead of what the checkpoints have stored; never on --data"
    add("--validation", metavar="SET", nargs="+", action="extend", default=[], help=text)
    text = "with --validation: also thresholds for these shares of false alarms, such as 0.05"
    add("--fpr", metavar="X", nargs="+", type=read_number(float, 0, 1, open_ends=True), default=[], help=text)
    add("--store", action="store_true", help="with --validation: write them into the checkpoints' JSON, for later use")
    text = "how videos are scored: mean, max, top10 (mean of the highest 10 %%), top5frames, ... (default: these three)"
    add("--video-rules", metavar="RULE", nargs="+", default=list(default.rules), help=text)
    text = "also disturbed: all, or by name jpeg h264 resize blur noise darker brighter crop_jitter social_media"
    add("--robustness", metavar="NAME", nargs="*", help=text)
    text = "faces for that, drawn once (%(default)s; 0: all)"
    most = read_number(int, 0, 10_000_000)
    add("--robustness-faces", metavar="N", type=most, default=default.robustness_faces, help=text)
    add("--heat-maps", action="store_true", help="Grad-CAM over the worst mistakes (extra `heatmaps`)")
    add_rounds(group)


_USAGES = {
    EVALUATE: f"""python {EVALUATE} MODEL... [--data SET...] [options]
       python {EVALUATE} output/RUN --data data/mine --split test""",
    COMPARE: f"""python {COMPARE} --teacher MODEL --before MODEL --distilled MODEL [--control MODEL] [options]
       python {COMPARE} FIRST=output/RUN_A SECOND=output/RUN_B --data data/mine""",
}
_PURPOSES = {
    EVALUATE: """Judge trained models: figures by frame and by video, by source and by kind of fake, with
intervals over people, as a report that opens from disk, results.json, scores.csv, pictures and a model card.""",
    COMPARE: """Hold models against each other on the same pictures: did distillation help, and is the student
lighter at all? The guide's table (Model | Parameters | Val AUC | Inference time) with cost, paired differences and
plain sentences.""",
}


def parse_request(argv: Sequence[str], *, script: str) -> FaceRequest:
    """Arguments of a script (without its name). Raises UserError; `--help` exits 0."""
    parser = build_parser(script, _USAGES[script], _PURPOSES[script], _EPILOG)
    add_models(parser, script=script)
    _add_options(parser, script=script)
    read = parser.parse_args(list(argv))
    return _build_request(read, read_models(read, script=script))


def _build_request(read: Namespace, models: Sequence[ModelRequest]) -> FaceRequest:
    told = tell_models(read, models)
    if not read.validation and (read.store or read.fpr):
        option = "--store" if read.store else "--fpr"
        raise UserError(Problem(option, "needs --validation SET: thresholds are chosen there", remedy="add it"))
    return FaceRequest(
        models=told,
        data=tuple(DataRequest(path, name) for name, path in map(split_name, read.data)),
        choices=DataChoices(
            split=read.split,
            crops=read.crops,
            layout=read.layout,
            label=None if read.label is None else ("real", "fake").index(read.label),
            faces=read.faces,
            frames=read.frames,
            min_face=read.min_face,
        ),
        validation=tuple(DataRequest(path, name) for name, path in map(split_name, read.validation)),
        fprs=tuple(read.fpr),
        store=read.store,
        robustness=None if read.robustness is None else tuple(name for name in read.robustness if name != "all"),
        robustness_faces=read.robustness_faces or None,
        heat_maps=read.heat_maps,
        rules=tuple(dict.fromkeys(read.video_rules)),
        **read_running_options(read),
    )
