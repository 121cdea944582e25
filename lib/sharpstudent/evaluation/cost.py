"""The cost of one sample with a model: parameters, multiply-accumulates, bytes on disk, time and memory at batch 1."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sharpstudent.core.arguments import advise_extra, find_child_settings
from sharpstudent.evaluation.load_model import OpenedClassifier
from sharpstudent.evaluation.onnx import OnnxClassifier, count_weights
from sharpstudent.evaluation.opened import OpenedModel
from sharpstudent.evaluation.runtimes import ExportedModel, OpenedFile, read_export
from sharpstudent.models.forward import count_parameters, evaluation_mode, run_model
from sharpstudent.report.results import CostResult

CHILD_TIMEOUT_S = 120.0
WARM_UP_ROUNDS = 3
TURNS = 5  # number of turns in which the latency of each model is measured


def count_measurements(models: Sequence[OpenedModel]) -> int:
    """Count the measurements of `measure_costs`: the turns of all models, and their other costs."""
    return (TURNS + 1) * len(models)


def measure_costs(
    models: Sequence[OpenedModel], *, device: torch.device, rounds: int = 50, tick: Callable[[], None] = lambda: None
) -> list[CostResult]:
    """Measure what one sample costs with each model.

    Latencies are taken in turns, so that other work of the machine slows all models alike. Memory on the CPU is
    measured in a process of its own, because memory that this process has used before would hide it. What cannot be
    measured is None with a note; nothing is raised for it.

    Args:
        models: The opened models, on `device`.
        device: The device of the models.
        rounds: How many samples are timed for each model.
        tick: Called after each of the measurements that `count_measurements` counts.

    Returns:
        The cost of each.
    """
    inputs = [opened.example(1, device) for opened in models]
    times: list[list[float]] = [[] for _ in models]
    for turn in range(TURNS):
        share = rounds * (turn + 1) // TURNS - rounds * turn // TURNS
        for opened, sample, taken in zip(models, inputs, times, strict=True):
            if share:
                taken += measure_latencies_ms(opened.model, sample, rounds=share)
            tick()
    costs: list[CostResult] = []
    for opened, taken in zip(models, times, strict=True):
        costs.append(_describe(opened, taken, device))
        tick()
    return costs


def _describe(opened: OpenedModel, times: Sequence[float], device: torch.device) -> CostResult:
    """Build the cost of one model from the times of single samples [ms]."""
    file = find_file_of(opened.model)
    file_bytes, notes = opened.path.stat().st_size, list[str]()
    if file is None:
        parameters, macs = count_parameters(opened.model), count_macs(opened.model, opened.example(1, device))
    else:
        file_bytes = file.file_bytes
        parameters, macs = _count_in_file(opened, file, notes)
    memory, note = _measure_memory(opened, file, device)
    return CostResult(
        parameters=parameters,
        macs=macs,
        file_bytes=file_bytes,
        latency_ms=statistics.median(times),
        latency_p95_ms=float(np.percentile(times, 95)),
        memory_bytes=memory,
        device=describe_device(device, file),
        notes=(*notes, *filter(None, [note])),
    )


@torch.no_grad()
def count_macs(model: nn.Module, inputs: Any) -> int:
    """Count multiply-accumulates, as torch counts floating-point operations (two each).

    Convolutions, matrix products and attention are counted; norms and activations are not.

    Args:
        model: The model, on the device of the inputs.
        inputs: The inputs of one sample.

    Returns:
        The number of multiply-accumulates.
    """
    with evaluation_mode(model), FlopCounterMode(display=False) as counter:
        run_model(model, inputs)
    return counter.get_total_flops() // 2


def _count_in_file(opened: OpenedModel, file: OpenedFile, notes: list[str]) -> tuple[int | None, int | None]:
    """Read the parameters and multiply-accumulates of a file of another runtime, as far as it says or shows them."""
    export = read_export(file.path, file.runtime.about)
    inner = opened.model.model if isinstance(opened.model, OpenedClassifier) else opened.model
    batch = inner.graph.batch if isinstance(inner, OnnxClassifier) else None
    if batch not in (None, 1):
        notes.append(f"time: that of {batch} pictures, the fixed batch of this {file.kind} file")
    if export is not None and export.macs is not None:
        notes.append("parameters and MACs: those of the model that was exported")
        return export.parameters, export.macs
    notes.append("MACs: not counted in ONNX files")
    try:
        parameters, _ = count_weights(opened.path)
    except ImportError:
        notes.append(f"parameters: counting them in ONNX files needs the package onnx ({advise_extra('onnx')})")
        return None, None
    notes.append("parameters: numbers in the ONNX file, where a batch norm may be part of its convolution")
    return parameters, None


def find_file_of(model: nn.Module) -> OpenedFile | None:
    """Find the file of another runtime that a model runs; None for a model of torch."""
    inner = model.model if isinstance(model, OpenedClassifier) else model
    if isinstance(inner, OnnxClassifier):
        return inner.graph.file
    return inner.file if isinstance(inner, ExportedModel) else None


def describe_device(device: torch.device, file: OpenedFile | None) -> str:
    """Say where a model runs, with how many threads and by which runtime.

    Args:
        device: The device of the evaluation.
        file: The file of another runtime; None for torch.

    Returns:
        Words such as `cpu, 2 threads, onnxruntime`.
    """
    kind = device.type if file is None else file.runtime.runs_on
    threads = torch.get_num_threads()
    text = f"cpu, {threads} thread{'s' if threads > 1 else ''}"
    if kind == "cuda":
        text = f"cuda, {torch.cuda.get_device_name(device)}"
    return text if file is None else f"{text}, {file.runtime.name}"


def _measure_memory(
    opened: OpenedModel, file: OpenedFile | None, device: torch.device
) -> tuple[int | None, str | None]:
    """Measure the memory of one sample [bytes]; None with the reason where that is not possible."""
    if device.type == "cuda" and file is None:
        return _measure_cuda_memory(opened, device), None
    if device.type != "cpu" and (file is None or file.runtime.runs_on != "cpu"):
        return None, f"memory: not measured on {device.type}" + ("" if file is None else f" with {file.runtime.name}")
    return _measure_in_child(opened)


@torch.inference_mode()
def _measure_cuda_memory(opened: OpenedModel, device: torch.device) -> int:
    """Measure the model's own tensors and the peak of memory beside them while one sample goes through."""
    inputs = opened.example(1, device)
    own = sum(tensor.nbytes for tensor in (*opened.model.parameters(), *opened.model.buffers()))
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device) - sum(tensor.nbytes for tensor in inputs.values())
    torch.cuda.reset_peak_memory_stats(device)
    for output in run_model(opened.model, inputs).values():
        output.cpu()
    return own + torch.cuda.max_memory_allocated(device) - before


def _measure_in_child(opened: OpenedModel) -> tuple[int | None, str | None]:
    """Measure memory by evaluation/cost_child.py; where that process fails, memory is None with the reason."""
    request = {"path": str(opened.path.resolve()), "reopen": opened.reopen, "threads": torch.get_num_threads()}
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "sharpstudent.evaluation.cost_child", json.dumps(request)],
            capture_output=True,
            text=True,
            timeout=CHILD_TIMEOUT_S,
            **find_child_settings(),
        )
    except subprocess.TimeoutExpired:
        return None, f"memory: not measured, its process took longer than {CHILD_TIMEOUT_S:.0f} s"
    except OSError as error:
        return None, f"memory: not measured, its process could not be started ({error})"
    printed = ended.stdout.strip().splitlines()
    if ended.returncode == 0 and printed and printed[-1].isdecimal():
        return int(printed[-1]), None
    why = (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1]
    return None, f"memory: not measured, its process failed ({why[:200]})"


@torch.inference_mode()
def measure_latencies_ms(model: nn.Module, inputs: Any, *, rounds: int) -> list[float]:
    """Measure the time of one sample (batch 1), from inputs on the model's device to outputs on the CPU.

    Args:
        model: The model, which runs in evaluation mode.
        inputs: The inputs of one sample.
        rounds: How many passes are timed, after a few that warm up.

    Returns:
        The times [ms].
    """
    times: list[float] = []
    with evaluation_mode(model):
        for _ in range(WARM_UP_ROUNDS + rounds):
            start = time.perf_counter()
            for output in run_model(model, inputs).values():
                output.cpu()
            times.append(1000 * (time.perf_counter() - start))
    return times[WARM_UP_ROUNDS:]
