"""Quantises ONNX models to int8 by onnxruntime, and finds the layers that have to stay in fp32.

Static quantisation (Jacob et al. 2018, "Quantization and training of neural networks for efficient integer-arithmetic-
only inference"): the range of each activation is measured on samples, and scale and zero point of its 8 bits follow.
Weights have a scale for each output channel. Where a layer loses too much, it is left in fp32: layers are ranked by how
far the outputs move when that layer alone is in int8, and the fewest of them that suffice are kept. Where half of them
do not, all that lies between layers with weights stays in fp32, too (`bare`): in linear attention and gated blocks most
of the loss comes from products and sums of activations.

Activations are uint8 and weights use 7 of their 8 bits: on CPUs without VNNI a sum of two products of 8 bits overflows
16, so that a file checked on one machine would be wrong on another.

Legend: K layers, R rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import onnx  # pyright: ignore[reportMissingImports]
import onnxruntime  # pyright: ignore[reportMissingImports]
from numpy.typing import NDArray
from onnxruntime import quantization  # pyright: ignore[reportMissingImports]
from onnxruntime.quantization.shape_inference import quant_pre_process  # pyright: ignore[reportMissingImports]

from sharpstudent.core.errors import UserError
from sharpstudent.deploy.convert import quiet

T = TypeVar("T")
Inputs = Mapping[str, NDArray[Any]]
WITH_WEIGHTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# What surrounds them and has a form on integers, so that numbers need not be converted back and forth. Softmax and
# normalisations have none worth its loss.
AROUND = ("Add", "Mul", "Sigmoid", "Relu", "LeakyRelu", "Clip", "AveragePool", "GlobalAveragePool", "MaxPool")
MOVES = ("Concat", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze")
BETWEEN = "all between layers with weights"  # what a bare form leaves in fp32, for the user
SENSITIVITY_SAMPLES = 8  # batches of calibration inputs on which layers are ranked


class _Reader(quantization.CalibrationDataReader):
    """Hands inputs to onnxruntime one batch at a time."""

    def __init__(self, inputs: Sequence[Inputs]) -> None:
        self._left = list(inputs)

    def get_next(self) -> Any:
        return dict(self._left.pop(0)) if self._left else None


@dataclass(frozen=True)
class Layer:
    """A node with weights, and the nodes that run on its output before the next one with weights.

    Attributes:
        name: The name of the node with weights.
        nodes: The names of all of them.
    """

    name: str
    nodes: tuple[str, ...]


class Quantizer:
    """Makes int8 forms of one model; the ranges of its activations are measured once.

    Attributes:
        layers: The layers that can be quantised.
    """

    def __init__(self, model: Any, inputs: Sequence[Inputs], *, picture: str | None) -> None:
        """Prepare a model.

        Args:
            model: The ModelProto in fp32.
            inputs: Batches of inputs, in the file's own form.
            picture: The input of pictures as bytes: what prepares them stays in fp32. None without preprocessing.

        Raises:
            UserError: For a model without any layer that int8 knows.
        """
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        self._prepared, self._ranges = folder / "prepared.onnx", folder / "ranges.json"
        source = folder / "model.onnx"
        onnx.save(model, source)
        with quiet():
            quant_pre_process(str(source), str(self._prepared), skip_symbolic_shape=True)
        self._inputs = inputs
        graph = onnx.load(self._prepared).graph
        head = _find_head(graph, picture)
        self._excluded = [node.name for node in graph.node if node.name in head]
        constants = {one.name for one in graph.initializer}
        products = [node for node in graph.node if node.op_type in WITH_WEIGHTS]
        self._products = [node.name for node in products if not constants & set(node.input)]  # of activations alone
        self.layers = _find_layers(graph, head)
        if not self.layers:
            raise UserError.about(
                "--to onnx-int8",
                "the model has no layer that int8 makes faster",
                expected=f"nodes such as {', '.join(WITH_WEIGHTS)}",
                remedy="--to onnx",
            )

    def quantize(self, keep: Sequence[Layer] = (), *, only: Layer | None = None, bare: bool = False) -> Any:
        """Quantise the model.

        Args:
            keep: Layers that stay in fp32.
            only: The only layer that does not; None for all.
            bare: Whether all that lies between layers with weights stays in fp32, too.

        Returns:
            The ModelProto in int8.
        """
        target = Path(self._folder.name) / "int8.onnx"
        kept = [name for layer in keep for name in layer.nodes]
        of_only = None if only is None else [only.name] if bare else list(only.nodes)
        with quiet():
            quantization.quantize_static(
                str(self._prepared),
                str(target),
                _Reader(self._inputs),
                op_types_to_quantize=list(WITH_WEIGHTS if bare else (*WITH_WEIGHTS, *AROUND, *MOVES)),
                per_channel=True,
                reduce_range=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                nodes_to_quantize=of_only,
                nodes_to_exclude=[*self._excluded, *kept, *(self._products if bare else ())],
                calibration_cache_path=str(self._ranges),
            )
        model = onnx.load(target)
        model.producer_name, model.producer_version = "SharpStudent", ""
        return model

    def rank(self, say: Callable[[str], None], *, bare: bool = False) -> list[Layer]:
        """Order the layers by how far the outputs move when one alone is in int8, the worst first.

        Args:
            say: Prints a line for the user.
            bare: As in `quantize`.

        Returns:
            The layers.
        """
        inputs = self._inputs[:: max(1, len(self._inputs) // SENSITIVITY_SAMPLES)][:SENSITIVITY_SAMPLES]
        wanted = [_run(onnx.load(self._prepared), one) for one in inputs]
        moved: list[float] = []
        for number, layer in enumerate(self.layers, start=1):
            model = self.quantize(only=layer, bare=bare)
            errors = [_compare(a, b) for a, b in zip(wanted, _run_all(model, inputs), strict=True)]
            moved.append(float(np.mean(errors)))
            if number % 20 == 0:
                say(f"measured {number} of {len(self.layers)} layers")
        order = sorted(range(len(moved)), key=lambda number: -moved[number])
        return [self.layers[number] for number in order]


@dataclass(frozen=True)
class Int8Form(Generic[T]):
    """What a search has found.

    Attributes:
        model: The ModelProto in int8.
        kept: The layers in fp32.
        bare: Whether all that lies between layers is in fp32, too.
        passed: Whether the check was passed.
        result: The result of the check.
    """

    model: Any
    kept: tuple[Layer, ...]
    bare: bool
    passed: bool
    result: T


def search(quantizer: Quantizer, check: Callable[[Any], tuple[bool, T]], say: Callable[[str], None]) -> Int8Form[T]:
    """Find the fewest layers that have to stay in fp32 so that a check is passed.

    Numbers are doubled until one passes, then halved; so K layers need about 2 log K checks. Where K / 2 of them do not
    pass, the same is done for the bare form, with up to K - 1 of them.

    Args:
        quantizer: The model.
        check: Takes a model in int8; returns whether it is good enough, and the result.
        say: Prints a line for the user.

    Returns:
        What passes; else the form with K / 2 layers in fp32.
    """
    count = len(quantizer.layers)
    found = _search_form(quantizer, check, say, most=max(1, count // 2), bare=False)
    if found.passed:
        return found
    say("half of them are not enough: all that lies between layers with weights stays in fp32 from here on")
    other = _search_form(quantizer, check, say, most=max(1, count - 1), bare=True)
    return other if other.passed else found


def _search_form(
    quantizer: Quantizer, check: Callable[[Any], tuple[bool, T]], say: Callable[[str], None], *, most: int, bare: bool
) -> Int8Form[T]:
    """Search within one form; at most `most` layers stay in fp32."""
    tried: dict[int, Int8Form[T]] = {}
    ranked: Sequence[Layer] = ()
    count = len(quantizer.layers)

    def try_keeping(number: int) -> bool:
        if number not in tried:
            kept = tuple(ranked[:number])
            model = quantizer.quantize(kept, bare=bare)
            tried[number] = Int8Form(model, kept, bare, *check(model))
            say(f"{number} of {count} layers in fp32: {'enough' if tried[number].passed else 'too few'}")
        return tried[number].passed

    if try_keeping(0):
        return tried[0]
    say(f"measuring how much each of {count} layers moves the outputs in int8")
    ranked = quantizer.rank(say, bare=bare)
    low, high = 0, 1
    while high < most and not try_keeping(high):
        low, high = high, min(2 * high, most)
    if not try_keeping(high):
        return tried[high]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if try_keeping(middle) else (middle, high)
    return tried[high]


def _find_head(graph: Any, picture: str | None) -> set[str]:
    """Find the nodes between the bytes of pictures and the first Resize of them."""
    if picture is None:
        return set()
    reached, head = {picture}, set[str]()
    for node in graph.node:
        if reached & set(node.input) or not node.input:
            head.add(node.name)
            reached |= set(node.output)
        if node.op_type == "Resize" and node.name in head:
            break
    return head


def _find_layers(graph: Any, head: set[str]) -> list[Layer]:
    """Find each node with weights, or a product of activations, and what follows it without any."""
    followers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            followers.setdefault(name, []).append(node)
    layers: list[Layer] = []
    taken = set(head)
    for node in graph.node:
        if node.op_type not in WITH_WEIGHTS or node.name in taken:
            continue
        names, waiting = [node.name], list(node.output)
        taken.add(node.name)
        while waiting:
            for follower in followers.get(waiting.pop(), []):
                if follower.op_type in (*AROUND, *MOVES) and follower.name not in taken:
                    taken.add(follower.name)
                    names.append(follower.name)
                    waiting += follower.output
        layers.append(Layer(node.name, tuple(names)))
    return layers


def _run_all(model: Any, inputs: Sequence[Inputs]) -> list[list[NDArray[Any]]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [[np.asarray(output) for output in session.run(None, dict(one))] for one in inputs]


def _run(model: Any, inputs: Inputs) -> list[NDArray[Any]]:
    return _run_all(model, [inputs])[0]


def _compare(wanted: Sequence[NDArray[Any]], got: Sequence[NDArray[Any]]) -> float:
    """Compute the mean squared difference of outputs, each in units of its own variance."""
    return float(
        np.mean([np.mean((a - b) ** 2) / max(float(np.var(a)), 1e-12) for a, b in zip(wanted, got, strict=True)])
    )
