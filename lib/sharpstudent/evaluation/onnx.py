"""Runs ONNX files as classifiers: the input is pictures, the output one logit for each class.

The file is opened as a session of onnxruntime (extra `onnx`), and its input and output are checked.

Legend: N or B pictures, C classes, H x W pixels or S a side.
"""

from __future__ import annotations

import hashlib
import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sharpstudent.core.archive import verify
from sharpstudent.core.arguments import advise_extra
from sharpstudent.core.errors import UserError
from sharpstudent.core.files import check_plain, explain
from sharpstudent.core.io import compute_sha256
from sharpstudent.evaluation.model_files import parse_metadata
from sharpstudent.models.vision import Classifier

LOGITS = "logits"  # the output that is taken where a file has several
_TAKES = "one input of images, (N, 3, H, W) float32, N and square H = W fixed or free"
_UNOPENED = "cannot be opened as ONNX: it is damaged, cut off, incomplete or of a kind unknown to onnxruntime"
_EXPORT_ANEW = "export it anew, as a classifier of one picture tensor: torch.onnx.export(model, (images,), dynamo=True)"


@dataclass(frozen=True)
class OnnxGraph:
    """An ONNX file, ready to run.

    Attributes:
        path: The path of the file.
        session: The session of onnxruntime.
        input_name: The input of pictures.
        output_name: The output of logits.
        batch: How many pictures go in at once; None where the graph leaves it free.
        side: Pixels a side; None where the graph leaves it free.
        about: The metadata of the file.
        runs_on: `cpu` or `cuda`.
        sha256: The digest of the file, and of those beside it that hold its weights.
        notes: Remarks for the user on the file.
    """

    path: Path
    session: Any
    input_name: str
    output_name: str
    batch: int | None
    side: int | None
    about: Mapping[str, Any]
    runs_on: str
    sha256: str
    notes: tuple[str, ...]


def read_graph(path: Path, *, device: torch.device) -> OnnxGraph:
    """Open an ONNX file on the CPU, or with CUDA where `device` has it and onnxruntime can.

    Args:
        path: The path of the file.
        device: The device that it should run on.

    Returns:
        The graph.

    Raises:
        UserError: Without onnxruntime, for a missing or damaged file, and for a graph that does not take one tensor of
            pictures, does not say which of its outputs are the logits, or has weights outside its folder.
    """
    notes = list(verify(path))
    beside = _find_beside(path, notes)
    session = _start_session(path, device)
    image = _find_input(session, path)
    batch, side = _read_shape(image, path)
    runs_on = "cuda" if session.get_providers()[0] == "CUDAExecutionProvider" else "cpu"
    if device.type == "cuda" and runs_on == "cpu":
        notes.append(f"{path.name}: this onnxruntime has no CUDA, so it runs on the CPU")
    return OnnxGraph(
        path=path,
        session=session,
        input_name=image.name,
        output_name=_find_output(session, path),
        batch=batch,
        side=side,
        about=parse_metadata(session.get_modelmeta().custom_metadata_map),
        runs_on=runs_on,
        sha256=_compute_digest(path, beside),
        notes=tuple(notes),
    )


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
            raise _refuse(graph.path, "does not give one row for each picture", rows, f"{output.shape}")
        parts.append(output[: len(chunk)])
    return np.concatenate(parts)


def _run_once(graph: OnnxGraph, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    try:
        (output,) = graph.session.run([graph.output_name], {graph.input_name: pictures})
    except _list_errors() as error:
        what = f"could not run on pictures of shape {tuple(pictures.shape)}"
        raise _refuse(graph.path, what, None, _first_words(error)) from None
    return np.asarray(output, dtype=np.float32)


def _start_session(path: Path, device: torch.device) -> Any:
    try:
        import onnxruntime  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise _refuse(path, "needs onnxruntime, which is not installed", remedy=advise_extra("onnx")) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # logs errors only; they are also raised as exceptions
    options.intra_op_num_threads = torch.get_num_threads()  # as many as torch, so that times can be compared
    providers = ["CPUExecutionProvider"]
    if device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, "CUDAExecutionProvider")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except _list_errors() as error:
        raise _refuse(path, _UNOPENED, None, _first_words(error)) from None


def _list_errors() -> tuple[type[Exception], ...]:
    """List onnxruntime's exceptions, which have no base class of their own."""
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    own = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, RuntimeError, ValueError)


def _find_input(session: Any, path: Path) -> Any:
    inputs = session.get_inputs()
    got = ", ".join(f"{each.name}: {each.shape} {each.type}" for each in inputs) or "none"
    if len(inputs) != 1:
        raise _refuse(path, f"has {len(inputs)} inputs", _TAKES, got)
    if inputs[0].type != "tensor(float)":
        raise _refuse(path, "takes other numbers than float32", _TAKES, got)
    shape = inputs[0].shape
    if len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != 3):
        raise _refuse(path, "does not take images of three colours, channels first", _TAKES, got)
    return inputs[0]


def _read_shape(image: Any, path: Path) -> tuple[int | None, int | None]:
    """Read batch and side, where they are fixed."""
    batch, _, height, width = (size if isinstance(size, int) and size > 0 else None for size in image.shape)
    if height != width and None not in (height, width):
        raise _refuse(path, "takes images that are not square", _TAKES, f"{image.name}: {image.shape}")
    return batch, height or width


def _find_output(session: Any, path: Path) -> str:
    names = [output.name for output in session.get_outputs()]
    if len(names) == 1:
        return names[0]
    if LOGITS in names:
        return LOGITS
    raise _refuse(path, f"has {len(names)} outputs, none of them called `{LOGITS}`", None, ", ".join(names))


def _refuse(
    path: Path, what: str, expected: str | None = None, got: str | None = None, *, remedy: str = _EXPORT_ANEW
) -> UserError:
    """Build the error for a file that cannot be evaluated."""
    return UserError.about(str(path), what, expected, got, remedy)


def _first_words(error: Exception) -> str:
    """Return onnxruntime's own words without their code, on one line."""
    text = " ".join(str(error).split()).rpartition("[ONNXRuntimeError] : ")[2]
    return text[:300] or type(error).__name__


def count_weights(path: Path) -> tuple[int, int]:
    """Count the numbers in the graph's floating-point initialisers, and the bytes in files beside it.

    Raises:
        ImportError: Without the package `onnx`.
    """
    import onnx  # pyright: ignore[reportMissingImports]

    model = onnx.load(path, load_external_data=False)
    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE}
    count = sum(math.prod(tensor.dims) for tensor in model.graph.initializer if tensor.data_type in floats)
    return count, sum((path.parent / name).stat().st_size for name in _list_locations(model))


def _find_beside(path: Path, notes: list[str]) -> list[Path]:
    """Find the files that hold weights of a graph; raise UserError for one that is missing, no file, or elsewhere."""
    try:
        import onnx  # pyright: ignore[reportMissingImports]
    except ImportError:
        notes.append(f"{path.name}: its sha256 covers this file alone, not others beside it ({advise_extra('onnx')})")
        return []
    try:
        names = sorted(_list_locations(onnx.load(path, load_external_data=False)))
    except Exception as error:  # noqa: BLE001 (the parser of hostile bytes may raise anything)
        raise _refuse(path, _UNOPENED, None, _first_words(error)) from None
    found = [path.parent / name for name in names]
    for name, file in zip(names, found, strict=True):
        try:
            if not file.resolve().is_relative_to(path.parent.resolve()):
                raise _refuse(path, "has weights outside its folder; nothing was loaded", "a file beside it", name)
            check_plain(file)
        except (OSError, ValueError, RuntimeError) as error:
            raise _refuse(path, f"has its weights in {name}, which cannot be read", None, explain(error)) from None
    if found:
        notes.append(f"{path.name}: its weights lie in {', '.join(names)} beside it; its sha256 covers them")
    return found


def _list_locations(model: Any) -> set[str]:
    """List the files that tensors of a model name, in subgraphs and functions, too."""
    locations, waiting = set[str](), [model]
    while waiting:
        message = waiting.pop()
        if message.DESCRIPTOR.name == "TensorProto":
            locations |= {entry.value for entry in message.external_data if entry.key == "location"}
            continue
        for field, value in message.ListFields():
            if field.message_type is not None:
                waiting += [value] if hasattr(value, "DESCRIPTOR") else list(value)
    return locations


def _compute_digest(path: Path, beside: Sequence[Path]) -> str:
    """Compute the sha256 of a file alone; with others beside it, of the digests of all, so that each counts."""
    digests = [compute_sha256(file) for file in (path, *beside)]
    return digests[0] if not beside else hashlib.sha256("\n".join(digests).encode()).hexdigest()


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
        raise _refuse(self.graph.path, what, remedy="give the checkpoint that it was exported from")

    def enable_gradient_checkpointing(self) -> NoReturn:
        """Raise UserError: an ONNX file cannot be trained."""
        raise _refuse(self.graph.path, "cannot be trained: it is an ONNX file", remedy="train the checkpoint")

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
        raise _refuse(
            self.graph.path,
            f"gives another number of outputs than the task has classes ({', '.join(self.classes)})",
            f"logits (N, {count})" + (f", or log-odds of {self.classes[1]}, (N, 1) or (N,)" if count == 2 else ""),
            f"{self.graph.output_name}: ({shape})",
            remedy="give a model that was trained on this task",
        )

    def _refuse_probabilities(self, seen: str) -> NoReturn:
        raise _refuse(
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
