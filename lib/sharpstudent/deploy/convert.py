"""Turns a model of torch into a file of another runtime: ONNX, OpenVINO, ExecuTorch or Core ML.

The model is traced once with free numbers of rows. Everything that a reader of the file needs goes into it as text by
key; no path of this machine does.

Legend: R rows of a batch, C classes, H x W pixels or S a side.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sharpstudent.core.arguments import advise_extra
from sharpstudent.core.errors import UserError
from sharpstudent.core.io import disk_errors_as_user_errors, write_bytes_atomically
from sharpstudent.core.onnx_file import seal_onnx, seal_program
from sharpstudent.core.types import FEATURES, Batch, ExportSpec, Outputs
from sharpstudent.models.forward import evaluation_mode, run_model, select_inputs

OPSET = 18  # onnxruntime-web and the runtimes of phones take it; from 18 on, Resize has antialiasing
TRACED_ROWS = 3  # not 1 or 2: torch makes a constant of a size of 1, and of sizes that happen to be equal
MOST_ROWS = 64  # at once in an ExecuTorch program, which plans its memory for them
PROBABILITY = "probability"  # the output of --with-preprocessing, (R, C) float32


class Preprocessed(nn.Module):
    """A model together with what happens before and after it: bytes of pictures in, calibrated probabilities out."""

    def __init__(self, model: nn.Module, *, picture: str, side: int, scores: str, temperature: float) -> None:
        """Wrap a model.

        Args:
            model: The model; its input `picture` is (R, 3, S, S) float32 in 0..1.
            picture: The name of that input.
            side: S.
            scores: The name of the output of logits (R, C).
            temperature: What the logits are divided by before the softmax.
        """
        super().__init__()
        self.model, self.picture, self.side = model, picture, side
        self.scores, self.temperature = scores, temperature

    def forward(self, **inputs: Tensor) -> Outputs:
        """Compute `probability` (R, C), and the model's own outputs behind it; pictures are (R, H, W, 3) uint8."""
        pictures = inputs[self.picture].permute(0, 3, 1, 2).float() / 255.0
        size = (self.side, self.side)
        pictures = F.interpolate(pictures, size, mode="bilinear", align_corners=False, antialias=True)
        outputs = run_model(self.model, {**inputs, self.picture: pictures})
        return {PROBABILITY: (outputs[self.scores] / self.temperature).softmax(dim=-1), **outputs}


@dataclass(frozen=True)
class Form:
    """A model with everything that is needed to trace it.

    Attributes:
        model: The model; it returns a dictionary.
        inputs: An example of each input that it reads, in the order of its parameters.
        outputs: The outputs that are exported, in their order.
        free: For each input, what each of its free sizes counts, by the number of the dimension.
        picture: The input of pictures as bytes; None without preprocessing.
    """

    model: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    free: Mapping[str, Mapping[int, str]]
    picture: str | None = None

    def describe_inputs(self) -> dict[str, list[int | str]]:
        """Return the shape of each input, with words for free sizes."""
        return {
            name: [self.free[name].get(place, size) for place, size in enumerate(tensor.shape)]
            for name, tensor in self.inputs.items()
        }


def build_form(model: nn.Module, batch: Batch, spec: ExportSpec) -> Form:
    """Find the inputs and outputs of a model by a batch.

    Args:
        model: The model, on the CPU.
        batch: A batch of `TRACED_ROWS` samples.
        spec: The task's own part.

    Returns:
        The form; every input has a free number of rows.

    Raises:
        UserError: For outputs that are not finite, and outputs of the specification that the model does not give.
    """
    inputs = select_inputs(model, batch.inputs)
    with torch.inference_mode(), evaluation_mode(model):
        found = run_model(model, inputs)
    outputs = spec.outputs or tuple(name for name in found if not name.startswith(FEATURES))
    missing = [name for name in outputs if name not in found]
    if missing:
        raise UserError.about("export", f"the model gives no {', '.join(missing)}", got=", ".join(found))
    for name in outputs:
        if not bool(torch.isfinite(found[name]).all()):
            raise UserError.about(
                "export",
                f"the model gives values for its example that are not finite, in {name}: nothing was written",
                remedy="train it again from a checkpoint before the values became infinite",
            )
    counts = {name: f"{name}s" if name in batch.shared else "rows" for name in inputs}
    return Form(model, inputs, outputs, {name: {0: count} for name, count in counts.items()})


def add_preprocessing(form: Form, spec: ExportSpec, temperature: float | None) -> Form:
    """Put the preparation of pictures in front of a model, and calibrated probabilities behind it.

    Args:
        form: The model.
        spec: The task's own part, which names the input of pictures.
        temperature: The temperature of the logits; None for a model without one, which counts as 1.

    Returns:
        The model that takes bytes of pictures of any size.

    Raises:
        UserError: For a task without pictures or without logits.
    """
    if spec.picture is None or spec.picture not in form.inputs or spec.scores not in form.outputs:
        raise UserError.about(
            "--with-preprocessing",
            "needs a task whose inputs are pictures of three colours and whose outputs are logits",
            got=f"inputs {', '.join(form.inputs)}; outputs {', '.join(form.outputs)}",
            remedy="leave it out",
        )
    side = form.inputs[spec.picture].shape[-1]
    model = Preprocessed(
        form.model, picture=spec.picture, side=side, scores=spec.scores, temperature=temperature or 1.0
    )
    # The example has sides of its own, none of them S: a tracer would take equal sizes for one.
    raw = torch.randint(0, 256, (TRACED_ROWS, side + 5, side + 11, 3), dtype=torch.uint8)
    inputs = {**form.inputs, spec.picture: raw}
    free = {**form.free, spec.picture: {0: "rows", 1: "height", 2: "width"}}
    return Form(model, inputs, (PROBABILITY, *form.outputs), free, picture=spec.picture)


class _Flat(nn.Module):
    """A model from tensors in the order of a form's inputs to tensors in the order of its outputs."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.model, self.names, self.outputs = form.model, tuple(form.inputs), form.outputs

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        found = run_model(self.model, dict(zip(self.names, tensors, strict=True)))
        return tuple(found[name] for name in self.outputs)


def trace(form: Form, most: int | None = None) -> Any:
    """Trace a model with free sizes.

    Args:
        form: The model, on the CPU.
        most: The largest free size; None for any.

    Returns:
        torch's ExportedProgram, from the inputs in their order to the outputs in their order.

    Raises:
        UserError: For a model that torch cannot trace.
    """
    sizes: dict[str, Any] = {}
    for counts in form.free.values():
        for word in counts.values():
            sizes.setdefault(word, torch.export.Dim(word, max=most) if most else torch.export.Dim(word))
    free = tuple({place: sizes[word] for place, word in form.free[name].items()} for name in form.inputs)
    model = _Flat(form).eval()
    with _refusals("torch.export"), torch.no_grad():
        return torch.export.export(model, tuple(form.inputs.values()), dynamic_shapes=(free,))


def to_onnx(form: Form) -> Any:
    """Convert a model to ONNX.

    Args:
        form: The model, on the CPU.

    Returns:
        The ModelProto, without remarks on how it was made.

    Raises:
        UserError: For a model that torch cannot convert, and without the packages that do.
    """
    _import("onnxscript", "export")
    with _refusals("ONNX"):
        program = torch.onnx.export(
            trace(form),
            dynamo=True,
            input_names=list(form.inputs),
            output_names=list(form.outputs),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    return _strip(program.model_proto)


def _strip(model: Any) -> Any:
    """Remove what the exporter notes of its work: the lines of source files on this machine, for each node."""
    model.producer_name, model.producer_version = "SharpStudent", ""
    del model.metadata_props[:]
    waiting = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        graph.doc_string = ""
        parts = [graph, *graph.node, *graph.value_info]
        parts += [] if not hasattr(graph, "initializer") else [*graph.initializer, *graph.input, *graph.output]
        for part in parts:
            part.doc_string = ""
            if hasattr(part, "metadata_props"):
                del part.metadata_props[:]
        waiting += [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    return model


def write_onnx(path: Path, model: Any, metadata: Mapping[str, str]) -> None:
    """Write an ONNX file with its metadata and a digest of all of it.

    Args:
        path: Where it goes.
        model: The ModelProto; its metadata are replaced.
        metadata: Texts by key.

    Raises:
        UserError: Where the disk refuses.
    """
    import onnx  # pyright: ignore[reportMissingImports]

    onnx.helper.set_model_props(model, dict(metadata))
    write_bytes_atomically(path, seal_onnx(model.SerializeToString()))


def write_openvino(path: Path, model: Any, metadata: Mapping[str, str]) -> None:
    """Write an OpenVINO file: the graph as `.xml` and its weights as `.bin` beside it.

    Args:
        path: Where the `.xml` goes.
        model: The ModelProto of the ONNX form.
        metadata: Texts by key.

    Raises:
        UserError: Without OpenVINO, for a model that it cannot convert, and where the disk refuses.
    """
    openvino, weights = _import("openvino", "openvino"), path.with_suffix(".bin")
    with tempfile.TemporaryDirectory() as folder, _refusals("OpenVINO"):
        source, target = Path(folder) / "model.onnx", Path(folder) / "model.xml"
        write_bytes_atomically(source, model.SerializeToString())
        converted = openvino.convert_model(str(source))
        openvino.save_model(converted, str(target), compress_to_fp16=False)
        content = target.with_suffix(".bin").read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        converted.set_rt_info(json.dumps({**metadata, "weights_sha256": digest}), ["sharpstudent", "metadata"])
        openvino.save_model(converted, str(target), compress_to_fp16=False)
        graph = target.read_bytes()
    write_bytes_atomically(weights, content)
    write_bytes_atomically(path, graph)


def write_executorch(path: Path, form: Form, metadata: Mapping[str, str]) -> None:
    """Write an ExecuTorch program whose convolutions and matrix products run in XNNPACK.

    Args:
        path: Where the `.pte` goes.
        form: The model.
        metadata: Texts by key; the program has a method `metadata` that gives them as bytes of JSON.

    Raises:
        UserError: Without ExecuTorch, for a model that it cannot convert, and where the disk refuses.
    """
    _refuse_preprocessing(form, "an ExecuTorch program plans its memory for sizes that are known")
    with quiet():
        exir = _import("executorch.exir", "executorch")
        partitioner = _import("executorch.backends.xnnpack.partition.xnnpack_partitioner", "executorch")
    content = json.dumps(dict(metadata)).encode()
    stated = torch.tensor(list(content), dtype=torch.uint8)
    with _refusals("ExecuTorch"), quiet():
        program = exir.to_edge_transform_and_lower(
            trace(form, MOST_ROWS),
            partitioner=[partitioner.XnnpackPartitioner()],
            constant_methods={"metadata": stated},
        )
        buffer = io.BytesIO()
        program.to_executorch().write_to_file(buffer)
    write_bytes_atomically(path, seal_program(buffer.getvalue(), content))


def write_coreml(path: Path, form: Form, metadata: Mapping[str, str]) -> None:
    """Write a package of Core ML for one row at a time; with free rows its converter takes fewer architectures.

    Args:
        path: Where the `.mlpackage` goes, a folder; one that is there is replaced.
        form: The model.
        metadata: Texts by key, which Xcode shows, too.

    Raises:
        UserError: Without coremltools, for a model that it cannot convert, and where the disk refuses.
    """
    _refuse_preprocessing(form, "its converter takes pictures of one size")
    with quiet(), contextlib.redirect_stderr(io.StringIO()):  # it draws bars of its own
        tools = _import("coremltools", "coreml")
        with _refusals("Core ML"), torch.no_grad():
            row = tuple(one[:1] for one in form.inputs.values())
            program = torch.export.export(_Flat(form).eval(), row).run_decompositions({})
            package = tools.convert(
                program,
                inputs=[tools.TensorType(name=name, shape=(1, *one.shape[1:])) for name, one in form.inputs.items()],
                outputs=[tools.TensorType(name=name) for name in form.outputs],
                compute_precision=tools.precision.FLOAT32,
                minimum_deployment_target=tools.target.iOS16,
            )
        package.user_defined_metadata.update(metadata)
        with disk_errors_as_user_errors(path), tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = Path(folder) / path.name
            package.save(str(made))
            if path.exists():
                path.rename(Path(folder) / "former.mlpackage")
            made.rename(path)


def _refuse_preprocessing(form: Form, reason: str) -> None:
    if form.picture is not None:
        raise UserError.about(
            "--with-preprocessing",
            f"needs pictures of any size, and {reason}",
            remedy="--to onnx, or leave --with-preprocessing out",
        )


def _import(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError.about(
            "export",
            f"needs {module.partition('.')[0]}, which cannot be imported ({error})",
            remedy=advise_extra(extra),
        ) from None


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Context manager: the remarks that converters make for their own authors are not shown."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@contextlib.contextmanager
def _refusals(what: str) -> Generator[None]:
    """Context manager: what a converter raises for a model becomes a UserError that says which converter it was."""
    known = (RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError, KeyError, *_list_errors())
    try:
        with quiet():
            yield
    except UserError:
        raise
    except known as error:
        words = " ".join(str(error).split())[:400] or type(error).__name__
        raise UserError.about(
            "export",
            f"{what} cannot take this model; nothing was written",
            got=words,
            remedy="export another architecture, or to another format",
        ) from error


def _list_errors() -> Sequence[type[Exception]]:
    from torch._dynamo.exc import TorchDynamoException
    from torch.onnx import OnnxExporterError

    return (TorchDynamoException, OnnxExporterError)
