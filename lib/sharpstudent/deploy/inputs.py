"""The command lines of predict.py and app.py, and the files, cameras and streams that its words stand for.

Importing this loads no torch. Nothing is opened here: what cannot be read is said when its turn comes, and the others
are answered.
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sharpstudent.core.arguments import (
    EXIT_CODES,
    SHARED,
    Parser,
    add_option,
    expand_path,
    fill,
    read_number,
    read_path,
)
from sharpstudent.core.errors import UserError, format_count_of
from sharpstudent.core.naming import printable
from sharpstudent.core.types import InputSource
from sharpstudent.evaluation.command_line import ModelRequest, choose_task, split_model
from sharpstudent.task import Task

PREDICT, APP = "predict.py", "app.py"
STDIN = "-"  # the word for a list of inputs on standard input, one a line
MOST_CAMERAS = 100
WITH_OUT = "with --out"  # with these words begins the help of an option that needs the other one
SHOWN = 5  # endings that a line names
_PURPOSE = """Answer about single files: what a trained model says of each, in a sentence, as JSON, as a table and as a
page that opens without a network. No labels are needed."""
_MORE = """model and inputs:
  MODEL   a run folder; a checkpoint (.pth, .safetensors); an export (.onnx, .xml, .pte); the name of a model that
          comes with the package; NAME=MODEL sets its name
  INPUT   a file; a folder, with all that is below it; a pattern such as 'films/*.mp4'; - for a list on standard
          input, one a line; the number of a camera or microphone; the address of a stream (rtsp://..., https://...)

OUT gets predictions.json (docs/predictions.schema.json), predictions.csv, and a page for each input. Answers are
written as they come: after Ctrl-C or a kill the same command goes on."""


@dataclass(frozen=True)
class PredictionCommand:
    """The command line of predict.py.

    Attributes:
        model: The model, with what the command says of a file that does not describe itself.
        inputs: The words that name inputs.
        options: The values of the task's own options, by name.
        device: The value of `--device`, such as `auto`.
        batch_size: How many samples pass the model at once.
        workers: How many inputs are read at the same time.
        out: The folder for the answers; None to print them only.
        as_json: Whether a line of JSON is printed for each input, and nothing else.
        reference: Inputs that are ordinary for this model, to compare others with; empty to use what is stored.
        ray: The address of a Ray cluster whose nodes read and judge the inputs; None for this process.
    """

    model: ModelRequest
    inputs: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    device: str = "auto"
    batch_size: int = 16
    workers: int = 2
    out: Path | None = None
    as_json: bool = False
    reference: tuple[str, ...] = ()
    ray: str | None = None


def parse_prediction(argv: Sequence[str]) -> tuple[type[Task], PredictionCommand]:
    """Read the command line of predict.py.

    Args:
        argv: The arguments, without the program's name.

    Returns:
        The class of the task, and the command.

    Raises:
        UserError: For every mistake.
        SystemExit: With 0, after `--help`.
    """
    task = choose_task(argv)
    parser = Parser(
        PREDICT,
        _PURPOSE,
        usage=f"python {PREDICT} MODEL INPUT... [options]",
        more=f"{_MORE}\n\n{EXIT_CODES}\n2 also where no input could be read; 0 whatever the answers are",
        examples=(f"{PREDICT} output/RUN my_files --out answers", f"{PREDICT} output/RUN one.file --json"),
    )
    group = parser.add_argument_group("model and inputs")
    group.add_argument("model", metavar="MODEL", help="the model, see below")
    group.add_argument("inputs", metavar="INPUT", nargs="+", help="what to judge, see below")
    inputs, models = _add_task_options(parser, task)
    _add_running_options(parser.add_argument_group("output and running"))
    read = parser.read(argv)
    name, path = split_model(read.model)
    for action in inputs._group_actions if read.out is None else ():
        if str(action.help).startswith(WITH_OUT) and getattr(read, action.dest):
            option = action.option_strings[0]
            raise UserError.about(option, "writes files, and no folder for them is named", remedy="add --out answers")
    of_model, of_inputs = _split_options(read, models, inputs)
    command = fill(
        PredictionCommand,
        read,
        model=ModelRequest(path, name, options=of_model),
        inputs=tuple(read.inputs),
        options=of_inputs,
        reference=tuple(read.reference),
    )
    return task, command


def _add_task_options(parser: Parser, task: type[Task]) -> tuple[Any, Any]:
    """Add the options of a task in two groups: how inputs are read, and what a model is that does not say it."""
    inputs = parser.add_argument_group("how inputs are read")
    models = parser.add_argument_group("a model whose file does not describe it")
    task.add_input_options(inputs, models)
    return inputs, models


def _add_running_options(group: Any) -> None:
    add, default = group.add_argument, PredictionCommand(ModelRequest(Path()), ())
    add("--out", metavar="FOLDER", type=read_path, help="folder for the answers (default: they are printed only)")
    add("--json", dest="as_json", action="store_true", help="print a line of JSON for each input, and nothing else")
    text = "ordinary files for this model: what is unlike them is said; stored beside the model's file"
    add("--reference", metavar="INPUT", nargs="+", default=[], help=text)
    text = "inputs that are read at the same time (%(default)s)"
    add_option(group, SHARED, "--workers", type=read_number(int, 1, 64), default=default.workers, help=text)
    add_option(group, SHARED, "--ray")
    _add_model_options(group, default.batch_size)


def _add_model_options(group: Any, batch_size: int) -> None:
    add_option(group, SHARED, "--device")
    text = "samples that pass the model at once (%(default)s)"
    group.add_argument("--batch-size", metavar="N", type=read_number(int, 1, 4096), default=batch_size, help=text)
    add_option(
        group, SHARED, "--task", help="task of the model, by name or as MODULE:CLASS (default: as its file says)"
    )


@dataclass(frozen=True)
class AppCommand:
    """The command line of app.py.

    Attributes:
        models: The models, with what the command says of files that do not describe themselves.
        options: The values of the task's own options, by name.
        device: The value of `--device`, such as `auto`.
        batch_size: How many samples pass a model at once.
        port: The port on 127.0.0.1; 0 for a free one.
        most_megabytes: The largest file that is taken [MB].
        most_seconds: How long one answer may take [s].
        most_waiting: How many files may wait while one is judged.
    """

    models: tuple[ModelRequest, ...]
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    device: str = "auto"
    batch_size: int = 16
    port: int = 7860
    most_megabytes: float = 500.0
    most_seconds: float = 300.0
    most_waiting: int = 4


def parse_app(argv: Sequence[str]) -> tuple[type[Task], AppCommand]:
    """Read the command line of app.py, as `parse_prediction` reads that of predict.py."""
    task = choose_task(argv)
    parser = Parser(
        APP,
        "Serve a page on this machine: drop a file on it, and read what a trained model says of it.",
        usage=f"python {APP} MODEL... [options]",
        more=f"{EXIT_CODES}\n0 also after Ctrl-C, which ends it",
        examples=(f"{APP} output/RUN", f"{APP} small=output/A large=output/B --port 8080"),
    )
    default = AppCommand(())
    text = "run folders, checkpoints, exported files; the page offers all of them; NAME=MODEL sets a name"
    parser.add_argument("models", metavar="MODEL", nargs="+", help=text)
    inputs, models = _add_task_options(parser, task)
    group = parser.add_argument_group("limits and running")
    add = group.add_argument
    number = read_number(int, 0, 65_535)
    add("--port", metavar="N", type=number, default=default.port, help="port on 127.0.0.1 (%(default)s); 0: any")
    most = read_number(float, 0, 100_000, above=True)
    text = "largest file that is taken, in megabytes (%(default)g)"
    add("--most-megabytes", metavar="X", type=most, default=default.most_megabytes, help=text)
    text = "how long one answer may take, in seconds (%(default)g)"
    add("--most-seconds", metavar="X", type=most, default=default.most_seconds, help=text)
    text = "files that may wait while one is judged (%(default)s)"
    add("--most-waiting", metavar="N", type=read_number(int, 0, 1000), default=default.most_waiting, help=text)
    _add_model_options(group, default.batch_size)
    read = parser.read(argv)
    of_model, of_inputs = _split_options(read, models, inputs)
    requests = [ModelRequest(path, name, options=of_model) for name, path in map(split_model, read.models)]
    return task, fill(AppCommand, read, models=tuple(requests), options=of_inputs)


def _split_options(read: Any, *groups: Any) -> tuple[dict[str, Any], ...]:
    """Give the values of the options of each group."""
    return tuple({action.dest: getattr(read, action.dest) for action in group._group_actions} for group in groups)


@dataclass(frozen=True)
class FoundInputs:
    """The inputs that words stand for.

    Attributes:
        sources: The inputs, each once, in the order of the words.
        notes: Lines for the user on what was passed over.
    """

    sources: tuple[InputSource, ...]
    notes: tuple[str, ...] = ()


def find_inputs(
    words: Sequence[str], suffixes: Sequence[str], options: Mapping[str, Any], *, device: str = "camera"
) -> FoundInputs:
    """Find the inputs that words stand for.

    Args:
        words: The words of the command line.
        suffixes: The endings of the files that are taken from folders, in lower case.
        options: The values of the task's own options, for each source.
        device: What a number stands for.

    Returns:
        The inputs. A word for which nothing is there is an input, too, so that it gets its row.

    Raises:
        UserError: If the words stand for nothing at all.
    """
    found: dict[str, InputSource] = {}
    passed_over = 0
    for word in _expand_stdin(words):
        for name, path, stream in _expand(word, device):
            if path is not None and stream == _FROM_FOLDER and not path.name.lower().endswith(tuple(suffixes)):
                passed_over += 1
                continue
            stream = None if stream == _FROM_FOLDER else stream
            found.setdefault(name, InputSource(printable(name), path, stream, options))
    kinds = ", ".join(suffixes[:SHOWN]) + (f" and {len(suffixes) - SHOWN} more" if len(suffixes) > SHOWN else "")
    others = f"{format_count_of(passed_over, 'file')} in folders passed over: of other kinds than {kinds}"
    notes = (others,) if passed_over else ()
    if not found:
        raise UserError.about(
            "INPUT",
            "names no file: the folders and patterns are empty",
            expected=f"files of these kinds in folders: {kinds}",
            got=", ".join(map(printable, words)) + (f" ({others})" if passed_over else ""),
            remedy="name the files themselves, or another folder",
        )
    return FoundInputs(tuple(found.values()), notes)


_FROM_FOLDER = "folder"  # marks a file that nobody named
_Named = tuple[str, Path | None, int | str | None]


def _expand_stdin(words: Sequence[str]) -> Iterator[str]:
    for word in words:
        if word != STDIN:
            yield word
            continue
        for line in sys.stdin.buffer:  # as bytes: a name on a disk need not be text
            if line.rstrip(b"\r\n"):
                yield os.fsdecode(line.rstrip(b"\r\n"))


def _expand(word: str, device: str) -> Iterator[_Named]:
    """List name, path and stream of what one word stands for."""
    text = expand_path(word)
    if word.isdecimal() and int(word) < MOST_CAMERAS and not os.path.lexists(word):
        yield f"{device} {word}", None, int(word)
    elif "://" in word and not os.path.lexists(word):
        yield word, None, word
    elif os.path.isdir(text):
        if os.path.isfile(os.path.join(text, "config.json")) and os.path.isdir(os.path.join(text, "weights")):
            what = "is the folder of a run, and no input: of a pattern that fits several runs, the first one is MODEL"
            raise UserError.about(word, what, remedy="name one run, and then the inputs")
        yield from _walk(text)
    elif not os.path.lexists(text) and glob.has_magic(text):
        matches = sorted(glob.glob(text, recursive=True))
        for match in matches:
            yield from _walk(match) if os.path.isdir(match) else ((match, Path(match), None),)
        if not matches:
            yield word, Path(text), None
    else:
        yield text, Path(text), None


def _walk(folder: str) -> Iterator[_Named]:
    """List the files in a folder and below it, sorted, without hidden ones; links to folders are not followed.

    A folder that cannot be listed is named itself, so that it gets its row.
    """
    unlisted: list[OSError] = []
    for here, folders, files in os.walk(folder, onerror=unlisted.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                path = os.path.join(here, name)
                yield path, Path(path), _FROM_FOLDER
    for error in unlisted:
        yield str(error.filename), Path(str(error.filename)), None
