"""Runs files of other runtimes as classifiers: the input is pictures, the output one logit for each class.

ONNX files may come from anywhere; those of OpenVINO and ExecuTorch are read where `export_model.py` wrote them. The
file is opened by its runtime, and its input and output are checked.

Legend: N or B pictures, C classes, H x W pixels or S a side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sharpstudent.evaluation.runtimes import (
    OpenedFile,
    Port,
    list_locations,
    open_runtime,
    read_export,
    refuse,
    refuse_gradient,
    to_bytes,
)
from sharpstudent.models.vision import Classifier

LOGITS = "logits"  # the output that is taken where a file has several
_TAKES = "one input of images, (N, 3, H, W) float32, N and square H = W fixed or free"


@dataclass(frozen=True)
class OnnxGraph:
    """A file of another runtime, ready to run.

    Attributes:
        file: The opened file.
        input_name: The input of pictures.
        output_name: The output of logits.
        batch: How many pictures go in at once; None where the graph leaves it free.
        side: Pixels a side; None where the graph leaves it free.
        takes_bytes: Whether the pictures go in as (N, H, W, 3) uint8, which the graph itself scales.
    """

    file: OpenedFile
    input_name: str
    output_name: str
    batch: int | None
    side: int | None
    takes_bytes: bool = False

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self.file.path

    @property
    def about(self) -> Mapping[str, Any]:
        """The metadata of the file."""
        return self.file.runtime.about


def read_graph(path: Path, *, device: torch.device) -> OnnxGraph:
    """Open a file on the CPU, or with CUDA where `device` has it and onnxruntime can.

    Args:
        path: The path of the file.
        device: The device that it should run on.

    Returns:
        The graph.

    Raises:
        UserError: Without its runtime, for a missing or damaged file, and for a graph that does not take one tensor of
            pictures, does not say which of its outputs are the logits, or has weights outside its folder.
    """
    file = open_runtime(path, device=device)
    export, output = read_export(path, file.runtime.about), _find_output(file)
    if export is not None and len(file.runtime.inputs) == 1:  # the sizes are those of the model that it was made of
        (name,) = [port.name for port in file.runtime.inputs]
        return OnnxGraph(file, name, output, export.batch, export.side, takes_bytes=export.picture == name)
    image = _find_input(file)
    return OnnxGraph(file, image.name, output, *_read_shape(image, path))


def run_graph(graph: OnnxGraph, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run a graph on pictures.

    A fixed batch is filled up with copies of the last picture, whose rows are dropped.

    Args:
        graph: The graph.
        pictures: (N, 3, H, W) float32.

    Returns:
        The output, of N rows.

    Raises:
        UserError: Where the graph cannot take such pictures, or does not give one row for each.
    """
    step = graph.batch or len(pictures)
    parts: list[NDArray[np.float32]] = []
    for start in range(0, len(pictures), step):
        chunk = pictures[start : start + step]
        spare = step - len(chunk)
        full = chunk if spare == 0 else np.concatenate([chunk, np.repeat(chunk[-1:], spare, axis=0)])
        output = _run_once(graph, full)
        if output.ndim == 0 or len(output) != len(full):
            rows = f"{len(full)} row{'s' if len(full) > 1 else ''} for a batch of {len(full)}"
            raise refuse(graph.path, "does not give one row for each picture", rows, f"{output.shape}")
        parts.append(output[: len(chunk)])
    return np.concatenate(parts)


def _run_once(graph: OnnxGraph, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    found = graph.file.run({graph.input_name: to_bytes(pictures) if graph.takes_bytes else pictures})
    return np.asarray(found[graph.output_name], dtype=np.float32)


def _find_input(file: OpenedFile) -> Port:
    inputs = file.runtime.inputs
    got = ", ".join(f"{each.name}: {each.shape} {each.type}" for each in inputs) or "none"
    if len(inputs) != 1:
        raise refuse(file.path, f"has {len(inputs)} inputs", _TAKES, got)
    if inputs[0].type not in ("tensor(float)", "f32"):
        raise refuse(file.path, "takes other numbers than float32", _TAKES, got)
    shape = inputs[0].shape
    if len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != 3):
        raise refuse(file.path, "does not take images of three colours, channels first", _TAKES, got)
    return inputs[0]


def _read_shape(image: Any, path: Path) -> tuple[int | None, int | None]:
    """Read batch and side, where they are fixed."""
    batch, _, height, width = (size if isinstance(size, int) and size > 0 else None for size in image.shape)
    if height != width and None not in (height, width):
        raise refuse(path, "takes images that are not square", _TAKES, f"{image.name}: {image.shape}")
    return batch, height or width


def _find_output(file: OpenedFile) -> str:
    names = [port.name for port in file.runtime.outputs]
    if len(names) == 1:
        return names[0]
    if LOGITS in names:
        return LOGITS
    raise refuse(file.path, f"has {len(names)} outputs, none of them called `{LOGITS}`", None, ", ".join(names))


def count_weights(path: Path) -> tuple[int, int]:
    """Count the numbers in the graph's floating-point initialisers, and the bytes in files beside it.

    Raises:
        ImportError: Without the package `onnx`.
    """
    import onnx  # pyright: ignore[reportMissingImports]

    model = onnx.load(path, load_external_data=False)
    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE}
    count = sum(math.prod(tensor.dims) for tensor in model.graph.initializer if tensor.data_type in floats)
    return count, sum((path.parent / name).stat().st_size for name in list_locations(model))


_SUM_TOLERANCE = 1e-3  # of probabilities; half precision rounds to 5e-4


class OnnxClassifier(Classifier):
    """A classifier that runs on onnxruntime.

    Logits come back on the device of the images, and no gradient passes through.
    """

    def __init__(self, graph: OnnxGraph, *, classes: Sequence[str]) -> None:
        """Wrap a graph as a classifier.

        Args:
            graph: The graph; its output is (B, C) logits or, of two classes, (B, 1) or (B,) log-odds of the second.
            classes: The names of the classes, in the order of its logits.
        """
        super().__init__()
        self.graph, self.classes = graph, tuple(classes)

    def compute_logits(self, image: Tensor) -> Tensor:
        """Compute the logits (B, C) of images (B, 3, H, W)."""
        pictures = np.ascontiguousarray(image.detach().cpu().numpy(), dtype=np.float32)
        return torch.from_numpy(self._to_logits(run_graph(self.graph, pictures))).to(image.device)

    def get_features(self, image: Tensor) -> NoReturn:
        """Raise UserError: an ONNX file has no feature maps."""
        what = "gives logits alone: an ONNX file has no feature maps"
        raise refuse(self.graph.path, what, remedy="give the checkpoint that it was exported from")

    def enable_gradient_checkpointing(self) -> NoReturn:
        """Raise UserError: a file of another runtime cannot be trained."""
        refuse_gradient(self.graph.path)

    def check_outputs(self, side: int) -> None:
        """Run the graph on a few very different pictures of S = side.

        Raises:
            UserError: For outputs of another shape, and for probabilities: a softmax would be applied to them twice.
        """
        pictures = _make_varied(side)
        output = run_graph(self.graph, pictures)
        self._to_logits(output)
        if _lies_in_unit_range(output):
            # A number in 0..1 may be a weak model's log-odds. For pictures far outside 0..1, only a sigmoid stays so.
            alone = output.ndim == 1 or output.shape[1] == 1
            if alone and _lies_in_unit_range(run_graph(self.graph, 200.0 * pictures - 100.0)):
                self._refuse_probabilities("every output for 8 very different pictures is within 0 and 1")
            if not alone and np.all(np.abs(output.sum(axis=1) - 1.0) <= _SUM_TOLERANCE):
                self._refuse_probabilities("for 4 very different pictures the outputs of each add up to 1")

    def _to_logits(self, output: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn the output of the graph into logits (B, C)."""
        count = len(self.classes)
        if output.ndim == 2 and output.shape[1] == count:
            return output
        if count == 2 and (output.ndim == 1 or (output.ndim == 2 and output.shape[1] == 1)):
            odds = output.reshape(-1)
            return np.stack([np.zeros_like(odds), odds], axis=1)
        shape = ", ".join(["N", *(str(size) for size in output.shape[1:])])
        raise refuse(
            self.graph.path,
            f"gives another number of outputs than the task has classes ({', '.join(self.classes)})",
            f"logits (N, {count})" + (f", or log-odds of {self.classes[1]}, (N, 1) or (N,)" if count == 2 else ""),
            f"{self.graph.output_name}: ({shape})",
            remedy="give a model that was trained on this task",
        )

    def _refuse_probabilities(self, seen: str) -> NoReturn:
        raise refuse(
            self.graph.path,
            "gives probabilities, not logits",
            "logits (before softmax or sigmoid), which thresholds and calibration are made of",
            f"{self.graph.output_name}: {seen}",
            remedy="export the model without its last softmax or sigmoid",
        )


def _make_varied(side: int) -> NDArray[np.float32]:
    """Make four very different pictures (4, 3, S, S) in 0..1: black, white, a gradient of each colour, noise."""
    pictures = np.zeros((4, 3, side, side), np.float32)
    pictures[1] = 1.0
    slope = np.linspace(0.0, 1.0, side, dtype=np.float32)
    pictures[2] = np.stack(np.broadcast_arrays(slope[None], slope[:, None], slope[None, ::-1]))
    pictures[3] = np.random.default_rng(0).random((3, side, side), dtype=np.float32)
    return pictures


def _lies_in_unit_range(output: NDArray[np.float32]) -> bool:
    """Return whether every value is within 0..1, as probabilities are."""
    return bool(np.all((output >= 0.0) & (output <= 1.0)))
