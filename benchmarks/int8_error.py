"""How far int8 moves the outputs of a trained model, by what is in int8 and how its ranges are found.

    python benchmarks/int8_error.py RUN [--config CONFIG]

Each form is made of the same samples, and its outputs on the validation samples are compared with those in fp32. Error:
the mean squared difference of the outputs, in units of their variance. The last lines say what a paired interval makes
of an error: noise of that size is added to the logits of the model, and the unfavourable end of the interval of the
selection metric is shown for two draws of it. `export_model.py --to onnx-int8` makes the first form.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "lib"))

import numpy as np
import onnx  # pyright: ignore[reportMissingImports]
import onnxruntime  # pyright: ignore[reportMissingImports]
import torch
from onnxruntime.quantization import (  # pyright: ignore[reportMissingImports]
    CalibrationMethod,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process  # pyright: ignore[reportMissingImports]
from rich.console import Console
from sharpstudent.core.errors import exit_codes
from sharpstudent.data.loader import load_batches
from sharpstudent.data.sampler import evaluation_batches
from sharpstudent.deploy import convert, export, quantize
from sharpstudent.deploy.command_line import parse_export
from sharpstudent.metrics.bootstrap import compute_paired

ALL = [*quantize.WITH_WEIGHTS, *quantize.AROUND, *quantize.MOVES]
WEIGHTED = {"op_types_to_quantize": ["Conv", "Gemm"]}
PERCENTILE = {"calibrate_method": CalibrationMethod.Percentile}
FORMS: Mapping[str, dict[str, Any]] = {
    "all operations": {"op_types_to_quantize": ALL},
    "convolutions and linear layers alone": WEIGHTED,
    "  with 8 bits of weights in place of 7": {**WEIGHTED, "reduce_range": False},
    "  with one scale for all channels": {**WEIGHTED, "per_channel": False},
    "  with ranges of 99.99 % of the values": {**WEIGHTED, **PERCENTILE, "extra_options": {"CalibPercentile": 99.99}},
    "  with 16 bits of activations": {
        **WEIGHTED,
        "activation_type": QuantType.QUInt16,
        "extra_options": {"UseQDQContribOps": True},
    },
}
FIXED = {"per_channel": True, "reduce_range": True, "activation_type": QuantType.QUInt8}
ERRORS = (0.03, 0.01, 0.003, 0.001, 0.0003)
DRAWS = 2


def run_all(path: Path, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[str]) -> tuple[np.ndarray, float]:
    """The first output of all inputs, and the shortest time of one sample [ms]."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    found = np.concatenate([session.run([outputs[0]], dict(one))[0] for one in inputs])
    sample, times = {name: one[:1] for name, one in inputs[0].items()}, []
    for _ in range(30):
        begun = time.perf_counter()
        session.run(None, sample)
        times.append(1000 * (time.perf_counter() - begun))
    return found, min(times)


def compare(wanted: np.ndarray, found: np.ndarray) -> float:
    """The mean squared difference in units of the variance, of what tells classes apart: differences to the mean."""
    a, b = (one - one.mean(axis=1, keepdims=True) for one in (wanted, found))
    return float(((a - b) ** 2).mean() / a.var())


def main() -> None:
    torch.set_num_threads(1)
    renderer, request = parse_export([*sys.argv[1:], "--to", "onnx-int8"])
    opened = export._open(renderer, request, Console())
    samples, form = opened.samples, opened.form
    calibration = export._collect(opened)
    full = max(len(next(iter(one.values()))) for one in calibration)
    calibration = [one for one in calibration if len(next(iter(one.values()))) == full]  # percentiles need equal sizes
    keys = list(evaluation_batches(len(samples), 16))
    loader = load_batches(samples, keys, seed=samples.seed, num_workers=0, collate=opened.task.collate)
    inputs = [{name: batch.inputs[name].numpy() for name in form.inputs} for batch, _ in loader]
    with tempfile.TemporaryDirectory() as place:
        source, target, made = (Path(place) / name for name in ("model.onnx", "int8.onnx", "made.onnx"))
        onnx.save(convert.to_onnx(form), made)
        with convert.quiet():
            quant_pre_process(str(made), str(source), skip_symbolic_shape=True)
        wanted, fastest = run_all(source, inputs, form.outputs)
        print(f"{'fp32':42} {fastest:31.2f} ms", flush=True)
        for name, settings in FORMS.items():
            with convert.quiet():
                reader = quantize._Reader(calibration)
                quantize_static(str(source), str(target), reader, weight_type=QuantType.QInt8, **{**FIXED, **settings})
            found, fastest = run_all(target, inputs, form.outputs)
            print(f"{name:42} error {compare(wanted, found):.4f}", end="  ")
            print(f"largest {np.abs(wanted - found).max():.2f} {fastest:8.2f} ms", flush=True)
    show_noise(opened)


def show_noise(opened: Any) -> None:
    """Print what the gate's interval makes of noise in the logits."""
    gate, task = opened.gate, opened.task
    print(f"{gate._name} {gate.before:.4f} on {len(gate.table['id'])} rows of {len(set(gate.table['group']))} groups")
    logits, generator = gate.table["logits"], np.random.default_rng(0)
    spread = np.std(logits - logits.mean(axis=1, keepdims=True))
    for error in ERRORS:
        ends: list[str] = []
        for _ in range(DRAWS):
            noise = generator.normal(size=logits.shape) * spread * np.sqrt(2.0 * error)
            noisy = {**gate.table, "logits": (logits + noise).astype(np.float32)}
            found = compute_paired(gate._metric, noisy, gate.table, rounds=300, group_unit=task.group_unit)
            ends.append("-" if found.low is None else f"{found.low:+.4f} to {found.high:+.4f}")
        print(f"noise of error {error:g}: {'; '.join(ends)}", flush=True)


if __name__ == "__main__":
    with exit_codes():
        main()
