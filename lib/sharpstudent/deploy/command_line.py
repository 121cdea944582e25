"""The command lines of export_model.py and benchmark_models.py. Importing this loads no torch."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpstudent.core.arguments import EXIT_CODES, SHARED, Parser, add_option, fill, read_number, read_path
from sharpstudent.evaluation.command_line import ModelRequest, add_rounds, choose_task, split_model

if TYPE_CHECKING:
    from sharpstudent.evaluation.renderer import Renderer

EXPORT, BENCHMARK = "export_model.py", "benchmark_models.py"
WORSE, NOT_COMPARED = "worse-metric", "not-compared"  # what --allow permits
FORMATS = {
    "onnx": "ONNX in fp32, for onnxruntime on any machine and in a browser",
    "onnx-int8": "ONNX in int8, calibrated on validation samples: a quarter of the size, and faster on CPUs",
    "openvino": "OpenVINO in fp32, for CPUs and GPUs of Intel (.xml with its .bin)",
    "executorch": "ExecuTorch with XNNPACK in fp32, for phones (.pte)",
    "litert": "LiteRT: not possible here, said why",
    "coreml": "Core ML in fp32, for Apple's systems (.mlpackage); nothing here can run it",
}
_PURPOSE = """Write a trained model as a file that runs without this program, and compare the file with the model on the
validation samples of its run: it is written only where it is as good, within what the task tolerates."""
_MORE = """formats (--to):
{}

Everything travels inside the file: classes, names of inputs and outputs, sizes, temperature, thresholds, digests,
the result of the comparison. evaluate_model.py and compare_models.py take it as they take a run."""
_BENCHMARK = """Measure models of any format side by side: latency, throughput, memory, size, and the metric with its
gap to the first model. Models take turns, so that other work of this machine slows all of them alike."""


@dataclass(frozen=True)
class ExportRequest:
    """The request for an export.

    Attributes:
        model: The model, as the user names it.
        to: The format, a key of `FORMATS`.
        config: A config with the task's keys, for a model outside of a run folder.
        out: Where the file goes; None for the folder `exports` of the run.
        preprocessing: Whether pictures go in as bytes of any size, and calibrated probabilities come out.
        auto: Whether layers that lose too much in int8 are found and left in fp32.
        qat_steps: How many steps the model is fine-tuned for int8; 0 for none.
        calibration: How many validation samples int8 is calibrated on.
        licence: The licence of the model, as the user states it.
        allow: What the user lets pass.
        overwrite: Whether a file that is there is replaced.
        rounds: How many resamples the interval is made of.
        workers: How many loader processes run.
        batch_size: How many samples go in at once.
    """

    model: ModelRequest
    to: str
    config: Path | None = None
    out: Path | None = None
    preprocessing: bool = False
    auto: bool = False
    qat_steps: int = 0
    calibration: int = 128
    licence: str = "not stated"
    allow: tuple[str, ...] = ()
    overwrite: bool = False
    rounds: int = 1000
    workers: int = 0
    batch_size: int = 16


@dataclass(frozen=True)
class BenchmarkRequest:
    """The request for a benchmark.

    Attributes:
        models: The models, as the user names them.
        threads: The numbers of threads to measure with.
        batches: The numbers of samples at once to measure with.
        repeats: How many passes are timed in each setting.
        config: A config with the task's keys, for models outside of a run folder.
        metric: Whether the metric is computed on validation data, where there is any.
        json: Where the results go as JSON; None for nowhere.
        rounds: How many resamples the intervals are made of.
        workers: How many loader processes run.
    """

    models: tuple[ModelRequest, ...]
    threads: tuple[int, ...] = (1,)
    batches: tuple[int, ...] = (1, 8)
    repeats: int = 40
    config: Path | None = None
    metric: bool = True
    json: Path | None = None
    rounds: int = 1000
    workers: int = 0


def parse_export(argv: Sequence[str]) -> tuple[Renderer, ExportRequest]:
    """Read the command line of export_model.py.

    Args:
        argv: The arguments, without the program's name.

    Returns:
        The renderer of the task, and the request.

    Raises:
        UserError: For every mistake.
        SystemExit: With 0, after `--help`.
    """
    width = max(map(len, FORMATS))
    more = _MORE.format("\n".join(f"  {name:{width}}  {text}" for name, text in FORMATS.items()))
    examples = (f"{EXPORT} output/RUN --to onnx", f"{EXPORT} output/RUN --to onnx-int8 --auto --with-preprocessing")
    parser = Parser(
        EXPORT, _PURPOSE, usage=f"python {EXPORT} RUN --to FORMAT [options]", more=f"{more}\n\n{EXIT_CODES}",
        examples=examples,
    )  # fmt: skip
    add = parser.add_argument
    default = ExportRequest(ModelRequest(Path()), "onnx")
    add("model", metavar="RUN", help="a run folder, or a checkpoint")
    add("--to", metavar="FORMAT", choices=FORMATS, default="onnx", help="format, see below (default: %(default)s)")
    text = "pictures of any size go in as bytes, and calibrated probabilities come out"
    add("--with-preprocessing", dest="preprocessing", action="store_true", help=text)
    add("--auto", action="store_true", help="int8: find the layers that lose too much, and leave them in fp32")
    text = "int8: steps of fine-tuning on the run's training samples, with the error of int8 in it (%(default)s)"
    number = read_number(int, 0, 1_000_000)
    add("--qat-steps", metavar="N", type=number, default=default.qat_steps, help=text)
    text = "int8: validation samples that the ranges are measured on (%(default)s)"
    number = read_number(int, 1, 100_000)
    add("--calibration", metavar="N", type=number, default=default.calibration, help=text)
    add("--out", metavar="FILE", type=read_path, help="where the file goes (default: exports/ in the run folder)")
    add("--overwrite", action="store_true", help="replace a file that is there")
    text = f"write the file, marked, where it is worse than the task tolerates: {WORSE}; or cannot run: {NOT_COMPARED}"
    add("--allow", metavar="NAME", nargs="+", action="extend", choices=(WORSE, NOT_COMPARED), default=[], help=text)
    add("--licence", metavar="TEXT", default=default.licence, help="licence of the model, to be stated in the file")
    text = "config with the task's keys, for a model outside of a run folder (default: that of the run)"
    add("--config", metavar="CONFIG", type=read_path, help=text)
    _add_common(parser, default)
    read = parser.read(argv)
    return _load_renderer(argv), fill(ExportRequest, read, model=_request(read.model, read), allow=tuple(read.allow))


def parse_benchmark(argv: Sequence[str]) -> tuple[Renderer, BenchmarkRequest]:
    """Read the command line of benchmark_models.py, as `parse_export` reads that of export_model.py."""
    usage = f"python {BENCHMARK} MODEL... [options]"
    examples = (f"{BENCHMARK} output/RUN output/RUN/exports/RUN-int8.onnx --threads 1 2 --batch-sizes 1 8 32",)
    parser = Parser(BENCHMARK, _BENCHMARK, usage=usage, more=EXIT_CODES, examples=examples)
    add, default = parser.add_argument, BenchmarkRequest(())
    text = "run folders, checkpoints, exported files; the first one is what the others are compared with; NAME=MODEL"
    add("models", metavar="MODEL", nargs="+", help=text)
    number = read_number(int, 1, 256)
    text = "numbers of threads (default: 1)"
    add("--threads", metavar="N", type=number, nargs="+", default=default.threads, help=text)
    text = "samples at once (default: 1 8)"
    add("--batch-sizes", dest="batches", metavar="N", type=number, nargs="+", default=default.batches, help=text)
    text = "passes that are timed in each setting (%(default)s)"
    add("--repeats", metavar="N", type=read_number(int, 5, 10_000), default=default.repeats, help=text)
    add("--no-metric", dest="metric", action="store_false", help="leave out the metric, which needs the run's data")
    add("--json", metavar="FILE", type=read_path, help="also write the results as JSON")
    text = "config with the task's keys, for models outside of a run folder (default: that of the last model's run)"
    add("--config", metavar="CONFIG", type=read_path, help=text)
    _add_common(parser, default)
    read = parser.read(argv)
    models = tuple(_request(word, read) for word in read.models)
    threads, batches = tuple(dict.fromkeys(read.threads)), tuple(dict.fromkeys(read.batches))
    return _load_renderer(argv), fill(BenchmarkRequest, read, models=models, threads=threads, batches=batches)


def _add_common(parser: Parser, default: Any) -> None:
    add_rounds(parser)
    number = read_number(int, 0, 256)
    add_option(parser, SHARED, "--workers", type=number, default=default.workers, help="loader processes (0)")
    add_option(parser, SHARED, "--task", help="task, by name or as MODULE:CLASS (default: as the model's file says)")


def _request(word: str, read: Namespace) -> ModelRequest:
    name, path = split_model(word)
    return ModelRequest(path, name, options={} if read.config is None else {"config": str(read.config)})


def _load_renderer(argv: Sequence[str]) -> Renderer:
    from sharpstudent.evaluation.renderer import load_renderer

    return load_renderer(choose_task(argv))
