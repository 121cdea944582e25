"""What one picture costs with a model: parameters, multiply-accumulates, bytes on disk, time and memory at batch 1."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import sharpstudent
from sharpstudent.evaluation.evaluate import measure_latencies_ms
from sharpstudent.evaluation.load_model import OpenedClassifier, OpenedModel
from sharpstudent.evaluation.onnx import OnnxClassifier, count_weights
from sharpstudent.models.classifier import count_parameters
from sharpstudent.report.results import CostResult

CHILD_TIMEOUT_S = 120.0
TURNS = 5  # of every model, in which its latency is taken


def measure_costs(models: Sequence[OpenedModel], *, device: torch.device, rounds: int = 50) -> list[CostResult]:
    """As `measure_cost`, of each; their latencies are taken in turns, so that what else the machine does slows all of
    them alike.
    """
    times: list[list[float]] = [[] for _ in models]
    for turn in range(TURNS):
        share = rounds * (turn + 1) // TURNS - rounds * turn // TURNS
        for opened, taken in zip(models, times, strict=True):
            if share:
                taken += measure_latencies_ms(opened.model, image_size=opened.image_size, device=device, rounds=share)
    return [_describe(opened, taken, device) for opened, taken in zip(models, times, strict=True)]


def measure_cost(opened: OpenedModel, *, device: torch.device, rounds: int = 50) -> CostResult:
    """What one picture of the model's own size costs on `device`, where the model is; rounds: pictures timed.

    Memory on the CPU is measured in a process of its own, because what this one has used before hides it. A figure
    that cannot be had is None with a note; nothing is raised for it.
    """
    return measure_costs([opened], device=device, rounds=rounds)[0]


def _describe(opened: OpenedModel, times: Sequence[float], device: torch.device) -> CostResult:
    """times: of single pictures [ms]."""
    onnx = _find_onnx(opened.model)
    file_bytes, notes = opened.path.stat().st_size, list[str]()
    if onnx is None:
        parameters, macs = count_parameters(opened.model), count_macs(opened.model, opened.image_size, device)
    else:
        parameters, macs = None, None
        notes.append("MACs: not counted in ONNX files")
        try:
            parameters, beside = count_weights(opened.path)
            file_bytes += beside
            notes.append("parameters: numbers in the ONNX file, where a batch norm may be part of its convolution")
        except ImportError:
            notes.append('parameters: counting them in ONNX files needs the package onnx (pip install ".[onnx]")')
        if onnx.graph.batch not in (None, 1):
            notes.append(f"time: that of {onnx.graph.batch} pictures, the fixed batch of this ONNX file")
    memory, note = _measure_memory(opened, onnx, device)
    return CostResult(
        parameters=parameters,
        macs=macs,
        file_bytes=file_bytes,
        latency_ms=statistics.median(times),
        latency_p95_ms=float(np.percentile(times, 95)),
        memory_bytes=memory,
        device=_describe_device(device, onnx),
        notes=(*notes, *([] if note is None else [note])),
    )


@torch.no_grad()
def count_macs(model: nn.Module, image_size: int, device: torch.device) -> int:
    """Multiply-accumulates of one picture (1, 3, S, S): those of convolutions, matrix products and attention, as torch
    counts them (two floating-point operations each); norms and activations count nothing.
    """
    was_training = model.training
    model.eval()
    try:
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, image_size, image_size, device=device))
    finally:
        model.train(was_training)
    return counter.get_total_flops() // 2


def _find_onnx(model: nn.Module) -> OnnxClassifier | None:
    inner = model.model if isinstance(model, OpenedClassifier) else model
    return inner if isinstance(inner, OnnxClassifier) else None


def _describe_device(device: torch.device, onnx: OnnxClassifier | None) -> str:
    kind = device.type if onnx is None else onnx.graph.runs_on
    threads = torch.get_num_threads()
    text = f"cpu, {threads} thread{'s' if threads > 1 else ''}"
    if kind == "cuda":
        text = f"cuda, {torch.cuda.get_device_name(device)}"
    return text if onnx is None else f"{text}, onnxruntime"


def _measure_memory(
    opened: OpenedModel, onnx: OnnxClassifier | None, device: torch.device
) -> tuple[int | None, str | None]:
    """Bytes, or None with the reason."""
    if device.type == "cuda" and onnx is None:
        return _measure_cuda_memory(opened, device), None
    if device.type != "cpu" and (onnx is None or onnx.graph.runs_on != "cpu"):
        return None, f"memory: not measured on {device.type}" + ("" if onnx is None else " with onnxruntime")
    return _measure_in_child(opened)


@torch.inference_mode()
def _measure_cuda_memory(opened: OpenedModel, device: torch.device) -> int:
    """The model's own tensors and the most that is held beside them while it judges one picture."""
    picture = torch.zeros(1, 3, opened.image_size, opened.image_size, device=device)
    tensors = [*opened.model.parameters(), *opened.model.buffers()]
    held = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device) - picture.numel() * picture.element_size()
    torch.cuda.reset_peak_memory_stats(device)
    opened.model(picture).logits.cpu()
    return held + torch.cuda.max_memory_allocated(device) - before


def _measure_in_child(opened: OpenedModel) -> tuple[int | None, str | None]:
    """As deploy/cost_child.py measures it. A child that fails costs the figure only."""
    asked = {
        "path": str(opened.path.resolve()),
        "architecture": opened.architecture,
        "image_size": opened.image_size,
        "classes": opened.classes,
        "threads": torch.get_num_threads(),
    }
    root = str(Path(sharpstudent.__file__).resolve().parent.parent)
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "sharpstudent.deploy.cost_child", json.dumps(asked)],
            capture_output=True,
            text=True,
            timeout=CHILD_TIMEOUT_S,
            env={**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""},
            cwd=root,  # `-m` looks in the working folder first
        )
    except subprocess.TimeoutExpired:
        return None, f"memory: not measured, its process took longer than {CHILD_TIMEOUT_S:.0f} s"
    except OSError as error:
        return None, f"memory: not measured, its process could not be started ({error})"
    said = ended.stdout.strip().splitlines()
    if ended.returncode == 0 and said and said[-1].isdecimal():
        return int(said[-1]), None
    why = (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1]
    return None, f"memory: not measured, its process failed ({why[:200]})"
