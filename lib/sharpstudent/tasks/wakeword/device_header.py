"""Writes an int8 TinyConv as one C header for a microcontroller: front end, weights, network and detector, in C99.

The header needs the C standard library alone, and no heap. Its numbers are those of the ONNX file that passed the gate:
weights of 7 bits by output channel, activations of 8, sums in int32, and the scales between them in float32.

Legend: O output channels, I input channels, M mel bands, T frames.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from sharpstudent.core.io import write_text_atomically
from sharpstudent.core.naming import printable
from sharpstudent.tasks.wakeword import detections, mel
from sharpstudent.tasks.wakeword.networks import TINY_CHANNELS, TINY_STRIDES
from sharpstudent.tasks.wakeword.scores import THRESHOLD

ENDING = ".h"
ROW = 24  # numbers in a line of the header


@dataclass(frozen=True)
class Int8Layer:
    """A convolution, or the linear head.

    Attributes:
        weights: int8 (O, I, 3, 3), of the head (O, I).
        bias: int32 (O,), in units of `scales`.
        scales: What a sum of products is multiplied by, float32 (O,).
        zero: The uint8 value of what goes in that stands for 0.
        input_scale: What one step of it stands for.
        output_scale: The same of what comes out.
        output_zero: Its uint8 value for 0.
        stride: Rows and columns from one output to the next; 1 for the head.
    """

    weights: NDArray[np.int8]
    bias: NDArray[np.int32]
    scales: NDArray[np.float32]
    zero: int
    input_scale: float
    output_scale: float
    output_zero: int
    stride: int = 1


def write_header(path: Path) -> list[str]:
    """Write the header of an int8 TinyConv beside its ONNX file.

    Args:
        path: The file, with its metadata.

    Returns:
        Lines for the user; none for a file of another kind.
    """
    if path.suffix != ".onnx":
        return []
    import onnx  # pyright: ignore[reportMissingImports] (of an extra)

    model = onnx.load(path)
    about = {entry.key: entry.value for entry in model.metadata_props}
    form = json.loads(about.get("export", "{}"))
    if about.get("architecture") != "tiny_conv" or form.get("format") != "onnx-int8":
        return []
    if form["kept_fp32"]:
        return ["no C header: it takes a TinyConv whose layers are all in int8 (leave --auto out)"]
    target = path.with_suffix(ENDING)
    write_text_atomically(target, render_header(read_layers(model), about, path.name))
    return [f"{target}: the same model for a microcontroller, with its front end (docs/wakeword.md)"]


def read_layers(model: Any) -> list[Int8Layer]:
    """Read the layers of a quantised TinyConv (an onnx ModelProto) in their order."""
    from onnx import numpy_helper  # pyright: ignore[reportMissingImports]

    stored = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    made_by = {node.output[0]: node for node in model.graph.node}
    rounded = {node.input[0]: node for node in model.graph.node if node.op_type == "QuantizeLinear"}
    found: list[Int8Layer] = []
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        given, weights, bias = (made_by[name] for name in node.input)
        leaving = rounded[node.output[0]]
        strides = [list(one.ints) for one in node.attribute if one.name == "strides"]
        found.append(
            Int8Layer(
                stored[weights.input[0]], stored[bias.input[0]], stored[bias.input[1]],
                int(stored[given.input[2]]), float(stored[given.input[1]]),
                float(stored[leaving.input[1]]), int(stored[leaving.input[2]]), strides[0][0] if strides else 1,
            )
        )  # fmt: skip
    assert [layer.stride for layer in found] == [*TINY_STRIDES, 1]
    return found


def render_header(layers: list[Int8Layer], about: Mapping[str, str], name: str) -> str:
    """Render the header.

    Args:
        layers: Those of `read_layers`.
        about: The metadata of the ONNX file.
        name: The name of that file.
    """
    facts, stored = json.loads(about["facts"]), json.loads(about.get("calibration", "{}"))
    rate, bands, samples = facts["sample_rate"], facts["n_mels"], round(facts["sample_rate"] * facts["duration"])
    frames = mel.count_frames(samples)
    templates = Environment(
        loader=PackageLoader("sharpstudent.tasks.wakeword"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    templates.filters |= {"numbers": format_numbers, "c_float": format_float, "comment": clean_comment}
    return templates.get_template("device.h.j2").render(
        name=name,
        word=facts.get("word", ""),
        licence=about["licence"],
        rate=rate,
        samples=samples,
        bands=bands,
        frames=frames,
        layers=layers,
        sizes=count_activations(bands, frames),
        filters=list_filters(bands, rate),
        mel=mel,
        cosines=np.cos(2 * np.pi * np.arange(mel.N_FFT) / mel.N_FFT),
        temperature=stored.get("temperature", 1.0),
        threshold=stored.get("threshold", THRESHOLD),
        smoothing=detections.SMOOTHING,
        refractory=round(detections.REFRACTORY_SECONDS / detections.HOP_SECONDS),
        hop=round(detections.HOP_SECONDS * rate),
    )


def clean_comment(text: str) -> str:
    """Clean a text of the user so that no comment of C ends in it."""
    return printable(text).replace("*/", "* /")


def count_activations(n_mels: int, frames: int) -> tuple[int, int]:
    """Count the bytes of the two buffers that layers read from and write to in turn, the input in the first."""
    most, rows, columns = [n_mels * frames, 0], n_mels, frames
    for number, (channels, stride) in enumerate(zip(TINY_CHANNELS, TINY_STRIDES, strict=True), start=1):
        rows, columns = -(-rows // stride), -(-columns // stride)
        most[number % 2] = max(most[number % 2], channels * rows * columns)
    return most[0], most[1]


def list_filters(n_mels: int, rate: int) -> list[tuple[int, NDArray[np.float32]]]:
    """List, for each band, its first bin with a weight, and the weights from there on; none for a band between bins."""
    found: list[tuple[int, NDArray[np.float32]]] = []
    for weights in mel.build_filters(n_mels, rate):
        used = np.flatnonzero(weights)
        found.append((int(used[0]), weights[used[0] : used[-1] + 1]) if len(used) else (0, weights[:0]))
    return found


def format_float(value: float) -> str:
    """Write a number as C's float, so that it is read back as the same float32."""
    text = f"{np.float32(value):.9g}"
    return f"{text if any(mark in text for mark in '.en') else text + '.0'}f"


def format_numbers(values: Iterable[Any]) -> str:
    """Write numbers in lines of ROW, floats as C's float."""
    texts = [format_float(float(one)) if isinstance(one, float | np.floating) else str(int(one)) for one in values]
    return ",\n  ".join(", ".join(texts[start : start + ROW]) for start in range(0, len(texts), ROW))
