"""Runs an export: opens a trained model, converts it, compares the file with the model, and writes it.

The file is first written to a temporary folder and opened as any evaluation opens it, so what is compared is the file
that a user will have.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from sharpstudent.config.run_config import RunConfig
from sharpstudent.core.errors import UserError
from sharpstudent.core.io import make_folder, remove_stray_temporaries
from sharpstudent.core.types import ExportSpec, list_class_names
from sharpstudent.data.dataset import Samples
from sharpstudent.data.loader import load_batches
from sharpstudent.data.sampler import evaluation_batches
from sharpstudent.deploy import convert
from sharpstudent.deploy.command_line import FORMATS, NOT_COMPARED, WORSE, ExportRequest
from sharpstudent.deploy.gate import Gate, GateResult, list_columns
from sharpstudent.deploy.target import ENDINGS, check_format, check_target, find_target
from sharpstudent.evaluation.command_line import ModelRequest
from sharpstudent.evaluation.cost import count_macs, measure_latencies_ms
from sharpstudent.evaluation.model_files import read_selection_metric
from sharpstudent.evaluation.opened import OpenedModel
from sharpstudent.evaluation.renderer import Renderer
from sharpstudent.evaluation.runtimes import KINDS, ExportAbout, to_bytes
from sharpstudent.evaluation.tables import (
    VALIDATION,
    build_validation_set,
    load_config,
    read_run_config,
)
from sharpstudent.metrics.checks import MetricError
from sharpstudent.models.forward import count_parameters
from sharpstudent.report.console import WorkProgress, print_line
from sharpstudent.report.text_table import draw_console_table
from sharpstudent.task import Task

TRAINING = "train"  # the split that a model learns from
LATENCY_TURNS, LATENCY_ROUNDS = 5, 4  # turns of both models, and passes in each
CALIBRATION_ROWS = 4  # samples of a batch that int8 is calibrated on


@dataclass(frozen=True)
class _Export:
    """An export in progress.

    Attributes:
        renderer: The task's renderer.
        request: The command line.
        opened: The model, on the CPU.
        config: The config of the run, or that of the user.
        task: The task, with the settings of the data and the facts of the model.
        spec: The task's own part of an export.
        form: The model as it is traced.
        samples: The validation samples.
        gate: The comparison.
        say: Prints a line.
        about: What goes into the file besides the description of its form.
    """

    renderer: Renderer
    request: ExportRequest
    opened: OpenedModel
    config: RunConfig
    task: Task
    spec: ExportSpec
    form: convert.Form
    samples: Samples
    gate: Gate
    say: Callable[[str], None]
    about: dict[str, Any] = field(default_factory=dict[str, Any])


def run_export(renderer: Renderer, request: ExportRequest, console: Console) -> Path:
    """Export the model of a request.

    Args:
        renderer: The task's renderer.
        request: The command line.
        console: The console for lines and tables.

    Returns:
        The path of the file.

    Raises:
        UserError: For what the user can correct, and for a file that is worse than the task tolerates.
    """
    check_format(request)
    target = find_target(request)
    check_target(target, request)
    export = _open(renderer, request, console)
    if request.to == "coreml":
        return _write_uncompared(export, target)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / f"model{ENDINGS[request.to].removeprefix('-int8')}"
        write, kept, result, exported = _convert(export, place)
        latencies = _time(export.opened, exported)
    description = _describe(export, kept)
    columns = list_columns(result, export.task.metrics[result.metric], export.task.title(result.metric))
    model_bytes = export.opened.path.stat().st_size
    _refuse_worse(export, result, target)
    allowed = None if result.passed else result.reason
    make_folder(target.parent)
    remove_stray_temporaries(target.parent)
    write(target, _list_metadata(export, description.model_copy(update={"allowed": allowed}), result))
    sizes = [target, *([target.with_suffix(".bin")] if target.suffix == ".xml" else [])]
    columns["bytes"] = f"{model_bytes:,} of the checkpoint, {sum(file.stat().st_size for file in sizes):,} of the file"
    columns["latency"] = f"{latencies[0]:.1f} ms in torch, {latencies[1]:.1f} ms of the file (median, batch 1)"
    table = {"": list(columns), "value": list(columns.values())}
    console.print(draw_console_table(table, words=["", "value"]))
    print_line(console, f"compared on {result.rows:,} rows of {result.groups:,} {export.task.group_unit} groups")
    if kept:
        print_line(console, f"in fp32 stay: {', '.join(kept)}")
    if allowed is not None:
        print_line(console, f"written with --allow {WORSE}, and marked: {allowed}")
    print_line(console, f"{target}: {FORMATS[request.to].partition(':')[0]}")
    for line in export.task.finish_export(target):
        print_line(console, line)
    print_line(console, f"evaluate it as any model: python evaluate_model.py {target}")
    return target


def _write_uncompared(export: _Export, target: Path) -> Path:
    """Write a file that no runtime of this machine can open, marked as not compared."""
    reason = f"not compared with the model (--allow {NOT_COMPARED})"
    make_folder(target.parent)
    description = _describe(export, ()).model_copy(update={"allowed": reason})
    convert.write_coreml(target, export.form, _list_metadata(export, description, None))
    export.say(f"{target}: {FORMATS[export.request.to].partition(':')[0]}; one row at a time; {reason}")
    return target


def _open(renderer: Renderer, request: ExportRequest, console: Console) -> _Export:
    """Open the model and its validation data, and run the model on it."""
    opened = renderer.open_model(request.model, torch.device("cpu"))
    if opened.path.suffix in KINDS:
        raise UserError.about(
            str(opened.path), "is an exported file already", remedy="name the run or the checkpoint that it was made of"
        )
    config = _find_config(renderer, request)
    task = renderer.task_class(config.task_section, opened.about.get("facts"), allow=config.allow)
    batch, spec = task.example_batch(convert.TRACED_ROWS), task.export_spec()
    _check_shapes(opened, batch.inputs)
    form = convert.build_form(opened.model, batch, spec)
    samples, *training = task.open_data(VALIDATION, *([TRAINING] if request.qat_steps else []))
    metric = _find_metric(opened, task, config)
    try:
        gate = Gate(
            task, samples, opened.model, metric,
            outputs=form.outputs, tolerance=spec.tolerance.get(metric), fall=spec.fall.get(metric),
            rounds=request.rounds, batch_size=request.batch_size, workers=request.workers,
        )  # fmt: skip
    except MetricError as error:
        raise UserError.about(
            str(opened.path), "gives no metric on its validation samples: nothing was written", got=str(error)
        ) from None
    for learning in training:
        form = _fine_tune(console, request, task, config, form, learning)
    temperature = find_temperature(opened.about)
    whole = convert.add_preprocessing(form, spec, temperature) if request.preprocessing else form
    data = build_validation_set(task, samples, config).describe(gate.table, {})
    about = {
        "data": {"validation": data.name, "fingerprint": data.fingerprint, "rows": data.rows, "groups": data.groups},
        "crop": spec.crop,
        "licence": request.licence,
        **({} if temperature is None else {"temperature": temperature}),
    }

    def say(line: str) -> None:
        print_line(console, line)

    return _Export(renderer, request, opened, config, task, spec, whole, samples, gate, say, about)


def _fine_tune(
    console: Console, request: ExportRequest, task: Task, config: RunConfig, form: convert.Form, samples: Samples
) -> convert.Form:
    """Fine-tune the model for int8 on the training samples of its run."""
    from sharpstudent.deploy import qat

    steps = request.qat_steps
    size = min(config.training.batch_size, len(samples))
    batches = qat.load_training(task, samples, steps, batch_size=size, workers=request.workers)
    with WorkProgress(console, "fine-tuning for int8", steps, "step") as progress:
        return qat.fine_tune(form, batches, steps, progress.add)


def _find_config(renderer: Renderer, request: ExportRequest) -> RunConfig:
    if request.config is not None:
        return load_config(request.config, renderer.task_class)
    config = read_run_config(request.model.path, renderer.task_class)
    if config is None:
        raise UserError.about(
            str(request.model.path),
            "lies in no run folder, so there are no validation samples to compare the file with",
            remedy="--config with the config that it was trained with",
        )
    return config


def _check_shapes(opened: OpenedModel, wanted: Mapping[str, torch.Tensor]) -> None:
    """Raise UserError where the data makes inputs of another form than the model was trained on."""
    own = opened.example(convert.TRACED_ROWS, torch.device("cpu"))
    for name, tensor in own.items():
        if name in wanted and tensor.shape[1:] != wanted[name].shape[1:]:
            raise UserError.about(
                str(opened.path),
                "takes inputs of another size than the config's data has",
                expected=f"{name}: {tuple(tensor.shape[1:])}",
                got=f"{tuple(wanted[name].shape[1:])}",
                remedy="--config with the config that it was trained with",
            )


def _find_metric(opened: OpenedModel, task: Task, config: RunConfig) -> str:
    """Find the selection metric of the model's run; the task's first one for a file that does not say."""
    named = config.training.selection_metric or task.default_metric
    metric = read_selection_metric(opened.about, default=f"val_{named}").removeprefix("val_")
    return metric if metric in task.metrics else task.default_metric


def find_temperature(about: Mapping[str, Any]) -> float | None:
    """Find the temperature that a model's description stores; None where it stores none."""
    calibration = about.get("calibration")
    found = calibration.get("temperature") if isinstance(calibration, Mapping) else None
    return float(found) if isinstance(found, int | float) and found > 0.0 else None


Write = Callable[[Path, Mapping[str, str]], None]


def _convert(export: _Export, place: Path) -> tuple[Write, tuple[str, ...], GateResult, OpenedModel]:
    """Convert the model; return what writes the file, its layers in fp32, the comparison and the opened file."""
    request = export.request
    if request.to == "executorch":
        return (
            (lambda path, texts: convert.write_executorch(path, export.form, texts)),
            (),
            *_try(export, place, lambda path, texts: convert.write_executorch(path, export.form, texts)),
        )
    export.say("tracing the model ...")
    model = convert.to_onnx(export.form)
    if request.to != "onnx-int8":
        writer = convert.write_openvino if request.to == "openvino" else convert.write_onnx
        return _bind(writer, model), (), *_try(export, place, _bind(writer, model))
    return _quantize(export, model, place)


def _bind(writer: Callable[[Path, Any, Mapping[str, str]], None], model: Any) -> Write:
    return lambda path, texts: writer(path, model, texts)


def _try(export: _Export, place: Path, write: Write, kept: tuple[str, ...] = ()) -> tuple[GateResult, OpenedModel]:
    """Write a file to a temporary place, open it as an evaluation does, and compare it with the model."""
    write(place, _list_metadata(export, _describe(export, kept), None))
    exported = export.renderer.open_model(ModelRequest(place, "exported"), torch.device("cpu"))
    return export.gate.check(exported.model), exported


def _quantize(export: _Export, model: Any, place: Path) -> tuple[Write, tuple[str, ...], GateResult, OpenedModel]:
    from sharpstudent.deploy import quantize

    request = export.request
    inputs = _collect(export)
    rows = sum(len(next(iter(one.values()))) for one in inputs)
    export.say(f"measuring the ranges of activations on {rows} rows ...")
    quantizer = quantize.Quantizer(model, inputs, picture=export.form.picture)

    def check(candidate: Any) -> tuple[bool, tuple[GateResult, OpenedModel]]:
        found = _try(export, place, _bind(convert.write_onnx, candidate))
        return found[0].passed, found

    if not request.auto:
        int8 = quantizer.quantize()
        return _bind(convert.write_onnx, int8), (), *check(int8)[1]
    found = quantize.search(quantizer, check, export.say)
    kept = (*((quantize.BETWEEN,) if found.bare else ()), *(layer.name for layer in found.kept))
    return _bind(convert.write_onnx, found.model), kept, *found.result


def _collect(export: _Export) -> list[dict[str, Any]]:
    """Collect the inputs of validation samples, evenly over all of them, in the form that the file takes."""
    request, samples = export.request, export.samples
    keys = list(evaluation_batches(len(samples), CALIBRATION_ROWS))
    wanted = max(1, min(len(keys), request.calibration // CALIBRATION_ROWS))
    chosen = [keys[number * len(keys) // wanted] for number in range(wanted)]
    found: list[dict[str, Any]] = []
    loader = load_batches(samples, chosen, seed=samples.seed, num_workers=request.workers, collate=export.task.collate)
    for batch, _ in loader:
        inputs = {name: batch.inputs[name].numpy() for name in export.form.inputs}
        if export.form.picture is not None:
            inputs[export.form.picture] = to_bytes(inputs[export.form.picture])
        found.append(inputs)
    return found


def _describe(export: _Export, kept: tuple[str, ...]) -> ExportAbout:
    form, batch = export.form, export.task.example_batch(1)
    picture = None if export.spec.picture is None else batch.inputs.get(export.spec.picture)
    return ExportAbout.model_validate(
        {
            "format": export.request.to,
            "inputs": form.describe_inputs(),
            "outputs": form.outputs,
            "side": None if picture is None else picture.shape[-1],
            "picture": form.picture,
            "parameters": count_parameters(export.opened.model),
            "macs": count_macs(export.opened.model, batch.inputs),
            "kept_fp32": kept,
            "qat_steps": export.request.qat_steps,
        }
    )


def _list_metadata(export: _Export, description: ExportAbout, result: GateResult | None) -> dict[str, str]:
    """List all that the file says of itself: the checkpoint's description, its form, its origin and the comparison."""
    opened = export.opened
    classes = list_class_names(export.task)
    about = {
        **opened.about,
        **({"classes": list(classes)} if classes else {}),
        "architecture": opened.architecture,
        **export.about,
        "source": opened.path.name,
        "source_sha256": opened.sha256,
        "program": f"SharpStudent {importlib.metadata.version('sharpstudent')}",
        "gate": None if result is None else result.as_json(),
        "export": description.model_dump(mode="json"),
    }
    return {
        name: one if isinstance(one, str) else json.dumps(one, ensure_ascii=False)
        for name, one in about.items()
        if one is not None
    }


def _time(opened: OpenedModel, exported: OpenedModel) -> tuple[float, float]:
    """Measure the median latency of the model and of its file, in turns [ms]."""
    cpu = torch.device("cpu")
    models: list[nn.Module] = [opened.model, exported.model]
    times: list[list[float]] = [[], []]
    sample = opened.example(1, cpu)
    for _ in range(LATENCY_TURNS):
        for model, taken in zip(models, times, strict=True):
            taken += measure_latencies_ms(model, sample, rounds=LATENCY_ROUNDS)
    first, second = (sorted(taken)[len(taken) // 2] for taken in times)
    return first, second


def _refuse_worse(export: _Export, result: GateResult, target: Path) -> None:
    is_usable = not math.isnan(result.after)
    if result.passed or (is_usable and WORSE in export.request.allow):
        return
    advice: list[str] = []
    is_int8 = export.request.to == "onnx-int8"
    per_channel = "; its weights have a scale for each channel already" if is_int8 else ""
    if is_int8:
        advice += [] if export.request.auto else ["--auto, which leaves the layers that lose most in fp32"]
        advice += [] if export.request.qat_steps else ["--qat-steps 300, which fine-tunes the weights for int8"]
        advice.append(f"--calibration {4 * export.request.calibration}, which measures ranges on more samples")
        advice.append("--to onnx, which stays in fp32")
    if result.difference.low is None or abs(result.difference.value) <= result.tolerance:
        advice.append("more validation samples: it is the interval that is too wide")
    raise UserError.about(
        str(target),
        f"was not written: {result.reason}{per_channel}",
        expected=f"a loss of {result.metric} of {result.tolerance:g} at most, at the unfavourable end of its interval",
        got=f"{result.before:.4f} before, {result.after:.4f} after, on {result.rows} rows of {result.groups} groups",
        remedy="; ".join([*advice, *([f"--allow {WORSE} writes it all the same, marked"] if is_usable else [])]),
    )
