"""Opens model files that another runtime than torch runs: ONNX (onnxruntime), OpenVINO and ExecuTorch.

What a file says of itself is text by key, in the format's own place for it: the metadata of ONNX, the runtime
information of OpenVINO, a method of constants in ExecuTorch. `export_model.py` writes the same keys into each, those of
a checkpoint and `export`, which has the names of the inputs and outputs.

Legend: R rows of a batch.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, NoReturn, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from sharpstudent.core.archive import verify
from sharpstudent.core.arguments import advise_extra
from sharpstudent.core.errors import UserError
from sharpstudent.core.files import check_plain, explain, parse_json
from sharpstudent.core.io import compute_sha256
from sharpstudent.core.memory import find_free_memory
from sharpstudent.core.types import Outputs
from sharpstudent.evaluation.model_files import Kind, parse_metadata
from sharpstudent.evaluation.runtime_trial import find_excess

Arrays = Mapping[str, NDArray[Any]]
EXPORT = "export"  # the key of metadata that describes an export of this program
KINDS: Mapping[str, Kind] = {".onnx": "onnx", ".xml": "openvino", ".pte": "executorch"}
MODULES: Mapping[Kind, str] = {"onnx": "onnxruntime", "openvino": "openvino", "executorch": "executorch.runtime"}
UNOPENED = "cannot be opened as {}: it is damaged, cut off, incomplete or of a kind unknown to {}"
_EXPORT_RUN = "export it anew from its run: python export_model.py RUN"
_EXPORT_ANEW = "export it anew, as a classifier of one picture tensor: torch.onnx.export(model, (images,), dynamo=True)"


def refuse(
    path: Path, what: str, expected: str | None = None, got: str | None = None, *, remedy: str = _EXPORT_ANEW
) -> UserError:
    """Build the error for a file that cannot be evaluated."""
    return UserError.about(str(path), what, expected, got, remedy)


Name = Annotated[str, Field(max_length=200)]


class ExportAbout(BaseModel):
    """What `export_model.py` writes about the form of its file.

    Attributes:
        format: The format, as `--to` names it.
        inputs: The names of the inputs, each with its shape: numbers, or what a free size counts.
        outputs: The names of the outputs.
        batch: How many rows go in at once; None where the file leaves it free.
        side: Pixels a side of the pictures that the model was made for; None for other inputs.
        picture: The input that takes pictures as (N, H, W, 3) uint8 of any size; None without preprocessing.
        parameters: The number of parameters of the model that was exported.
        macs: Its multiply-accumulates for one sample.
        kept_fp32: The layers of an int8 model that were left in fp32.
        qat_steps: How many steps an int8 model was fine-tuned for it.
        allowed: What the user let pass with `--allow`, in words; None where every check was passed.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore", frozen=True)

    format: Name
    inputs: dict[Name, tuple[int | Name, ...]]
    outputs: tuple[Name, ...]
    batch: int | None = Field(default=None, ge=1, le=4096)
    side: int | None = Field(default=None, ge=1, le=2048)
    picture: Name | None = None
    parameters: int | None = None
    macs: int | None = None
    kept_fp32: tuple[Name, ...] = ()
    qat_steps: int = 0
    allowed: str | None = None


@dataclass(frozen=True)
class Port:
    """An input or output of a graph.

    Attributes:
        name: Its name.
        shape: Its sizes: a number, or text or None where the graph leaves it free.
        type: The type of its numbers in the runtime's own words.
    """

    name: str
    shape: Sequence[Any] = ()
    type: str = ""


class Runtime(Protocol):
    """A file that has been opened by its runtime.

    Attributes:
        name: What the runtime is called.
        runs_on: `cpu` or `cuda`.
        about: What the file says of itself.
        inputs: Its inputs, in their order.
        outputs: Its outputs, in their order.
    """

    name: str
    runs_on: str
    about: Mapping[str, Any]
    inputs: Sequence[Port]
    outputs: Sequence[Port]

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run it once; raises any exception that the runtime has."""
        ...


@dataclass(frozen=True)
class OpenedFile:
    """A file with the runtime that has opened it.

    Attributes:
        path: The path of the file.
        kind: The kind of the file.
        runtime: The runtime.
        sha256: The digest of the file, and of those beside it that hold its weights.
        file_bytes: The size of the file and of those beside it.
        notes: Remarks for the user on the file.
    """

    path: Path
    kind: Kind
    runtime: Runtime
    sha256: str
    file_bytes: int
    notes: tuple[str, ...]

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run it once; raises UserError for inputs that it cannot take."""
        try:
            return self.runtime.run(inputs)
        except list_errors(self.runtime.name) as error:
            shapes = ", ".join(str(tuple(one.shape)) for one in inputs.values())
            raise refuse(self.path, f"could not run on inputs of shape {shapes}", None, first_words(error)) from None


def open_runtime(path: Path, *, device: torch.device) -> OpenedFile:
    """Open a file on the CPU, or with CUDA where `device` has it and onnxruntime can.

    Args:
        path: The path of an `.onnx`, `.xml` or `.pte`.
        device: The device that it should run on.

    Returns:
        The opened file.

    Raises:
        UserError: Without its runtime, and for a file that is missing, damaged, has weights outside its folder, or
            needs more memory than its weights explain.
    """
    kind = KINDS[path.suffix]
    _check_fits(path)
    notes = [] if kind == "openvino" else list(verify(path))  # the .xml states the digest of its weights
    beside = _find_beside(path, notes) if kind == "onnx" else _list_beside(path)
    for file in beside:
        _check_fits(file)
    size, digest = sum(file.stat().st_size for file in (path, *beside)), _compute_digest(path, beside)
    excess = find_excess(path, size, digest)
    if excess is not None:
        remedy = _EXPORT_ANEW if kind == "onnx" else _EXPORT_RUN
        raise refuse(path, excess, "a file whose memory is that of its weights and one sample", remedy=remedy)
    runtime = _RUNTIMES[kind](path, device)
    if device.type == "cuda" and runtime.runs_on == "cpu":
        notes.append(f"{path.name}: this {runtime.name} has no CUDA, so it runs on the CPU")
    return OpenedFile(path, kind, runtime, digest, size, tuple(notes))


def _check_fits(path: Path) -> None:
    """Raise UserError for a file that is larger than the memory that is free; of a missing one its reader tells."""
    size, free = path.stat().st_size if path.is_file() else 0, find_free_memory()
    if free is not None and size > free:
        raise refuse(path, "does not fit into memory", f"{free:,} bytes at most, which are free", f"{size:,} bytes")


class ExportedModel(nn.Module):
    """A model of any task that another runtime runs: from the inputs of a batch to outputs by name.

    It is for files that `export_model.py` wrote. Outputs come back on the CPU, and no gradient passes through.
    """

    def __init__(self, file: OpenedFile) -> None:
        """Wrap an opened file."""
        super().__init__()
        self.file = file
        export = read_export(file.path, file.runtime.about)
        self.picture = None if export is None else export.picture

    def forward(self, **inputs: Tensor) -> Outputs:
        """Compute the outputs for those inputs of a batch that the file names.

        Raises:
            UserError: Where one is missing, and for inputs that the file cannot take.
        """
        names = [port.name for port in self.file.runtime.inputs]
        missing = [name for name in names if name not in inputs]
        if missing:
            raise refuse(self.file.path, f"reads {', '.join(names)}", None, f"no {', '.join(missing)} in the batch")
        arrays = {name: self._to_array(name, inputs[name]) for name in names}
        return {name: torch.from_numpy(np.ascontiguousarray(one)) for name, one in self.file.run(arrays).items()}

    def _to_array(self, name: str, tensor: Tensor) -> NDArray[Any]:
        array = np.ascontiguousarray(tensor.detach().cpu().numpy())
        return to_bytes(array) if self.picture == name else array


def to_bytes(pictures: NDArray[Any]) -> NDArray[np.uint8]:
    """Turn pictures (R, C, H, W) in 0..1 into (R, H, W, C) uint8, which a file with preprocessing takes."""
    return np.ascontiguousarray((pictures * 255.0).round().clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1))


def read_export(path: Path, about: Mapping[str, Any]) -> ExportAbout | None:
    """Read how `export_model.py` describes its file.

    Args:
        path: The path of the file, for messages.
        about: What the file says of itself.

    Returns:
        The description; None for a file from elsewhere.

    Raises:
        UserError: For a description in another form.
    """
    if EXPORT not in about:
        return None
    try:
        return ExportAbout.model_validate(about[EXPORT])
    except ValidationError as error:
        first = error.errors()[0]
        got = f"{'.'.join(map(str, first['loc']))[:100]}: {first['msg'][:200]}"
        raise refuse(path, f"has a description ({EXPORT}) that cannot be used", got=got, remedy=_EXPORT_RUN) from None


# --- The runtimes ---------------------------------------------------------------------------------------------------


class _OnnxRuntime:
    """A session of onnxruntime, with as many threads as torch has, so that times can be compared."""

    name = "onnxruntime"

    def __init__(self, path: Path, device: torch.device) -> None:
        onnxruntime: Any = _import(MODULES["onnx"], path, "onnx")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # logs errors only; they are also raised as exceptions
        options.intra_op_num_threads = torch.get_num_threads()
        providers = ["CPUExecutionProvider"]
        if device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            providers.insert(0, "CUDAExecutionProvider")
        try:
            self.session: Any = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except list_errors(self.name) as error:
            raise refuse(path, UNOPENED.format("ONNX", self.name), None, first_words(error)) from None
        self.runs_on = "cuda" if self.session.get_providers()[0] == "CUDAExecutionProvider" else "cpu"
        self.about = parse_metadata(self.session.get_modelmeta().custom_metadata_map)
        self.inputs = [Port(one.name, one.shape, one.type) for one in self.session.get_inputs()]
        self.outputs = [Port(one.name, one.shape, one.type) for one in self.session.get_outputs()]

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        names = [port.name for port in self.outputs]
        return dict(zip(names, self.session.run(names, dict(inputs)), strict=True))


class _OpenVino:
    """A model that OpenVINO has compiled for the CPU, with as many threads as torch has."""

    name, runs_on = "OpenVINO", "cpu"

    def __init__(self, path: Path, device: torch.device) -> None:
        openvino: Any = _import(MODULES["openvino"], path, "openvino")
        core, root = openvino.Core(), ["sharpstudent"]
        try:
            model = core.read_model(str(path), str(path.with_suffix(".bin")))
            stated = model.get_rt_info([*root, "metadata"]).value if model.has_rt_info([*root, "metadata"]) else "{}"
            self.about = parse_metadata(parse_json(stated))
            precision = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
            self.compiled: Any = core.compile_model(model, "CPU", precision)
        except list_errors(self.name) as error:
            raise refuse(path, UNOPENED.format(self.name, self.name), None, first_words(error)) from None
        self.inputs = [_describe_openvino(one) for one in self.compiled.inputs]
        self.outputs = [_describe_openvino(one) for one in self.compiled.outputs]
        stated_digest = self.about.get("weights_sha256")
        if stated_digest is not None and stated_digest != compute_sha256(path.with_suffix(".bin")):
            raise refuse(path, "has other weights beside it than it was written with", remedy=_EXPORT_RUN)

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        found = self.compiled(dict(inputs))
        return {port.name: np.array(found[port.name]) for port in self.outputs}


def _describe_openvino(port: Any) -> Port:
    shape = [size.get_length() if size.is_static else None for size in port.get_partial_shape()]
    return Port(port.get_any_name(), shape, port.get_element_type().get_type_name())


class _ExecuTorch:
    """A program of ExecuTorch, run by its own runtime through Python; its thread pool cannot be set from there."""

    name, runs_on = "ExecuTorch", "cpu"

    def __init__(self, path: Path, device: torch.device) -> None:
        runtime: Any = _import(MODULES["executorch"], path, "executorch")
        try:
            program = runtime.Runtime.get().load_program(str(path))
            self.method: Any = program.load_method("forward")
            stated = program.load_method("metadata").execute([])[0] if "metadata" in program.method_names else b"{}"
            self.about = parse_metadata(parse_json(bytes(stated.tolist()) if isinstance(stated, Tensor) else stated))
        except list_errors(self.name) as error:
            raise refuse(path, UNOPENED.format(self.name, self.name), None, first_words(error)) from None
        described = read_export(path, self.about)
        if described is None:
            raise refuse(path, "does not name its inputs", remedy=_EXPORT_RUN)
        self.inputs = [Port(name, shape) for name, shape in described.inputs.items()]
        self.outputs = [Port(name) for name in described.outputs]
        self._most = int(self.method.metadata.input_tensor_meta(0).sizes()[0])  # rows that its memory is planned for

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        tensors = [torch.from_numpy(inputs[port.name]) for port in self.inputs]
        is_shared = len({port.shape[0] for port in self.inputs}) > 1  # then a part of the rows reads any element
        parts = [tensors] if is_shared else list(zip(*(one.split(self._most) for one in tensors), strict=True))
        found = [[one.clone() for one in self.method.execute(list(part))] for part in parts]
        outputs = zip(self.outputs, zip(*found, strict=True), strict=True)
        return {port.name: torch.cat(pieces).numpy() for port, pieces in outputs}


_RUNTIMES: Mapping[str, Any] = {"onnx": _OnnxRuntime, "openvino": _OpenVino, "executorch": _ExecuTorch}


def _import(module: str, path: Path, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        name = module.partition(".")[0]
        raise refuse(path, f"needs {name}, which is not installed", remedy=advise_extra(extra)) from None


def list_errors(runtime: str) -> tuple[type[Exception], ...]:
    """List the exceptions of a runtime; those of onnxruntime have no base class of their own."""
    common = (RuntimeError, ValueError, KeyError, TypeError)
    if runtime != "onnxruntime":
        return common
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    own = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, *common)


def first_words(error: Exception) -> str:
    """Return a runtime's own words without their code, on one line."""
    text = " ".join(str(error).split()).rpartition("[ONNXRuntimeError] : ")[2]
    return text[:300] or type(error).__name__


# --- Files beside the file ------------------------------------------------------------------------------------------


def _list_beside(path: Path) -> list[Path]:
    """List the file of weights beside an `.xml`; raise UserError where it cannot be read."""
    if path.suffix != ".xml":
        return []
    weights = path.with_suffix(".bin")
    try:
        check_plain(weights)
    except OSError as error:
        raise refuse(path, f"has its weights in {weights.name}, which cannot be read", None, explain(error)) from None
    return [weights]


def _find_beside(path: Path, notes: list[str]) -> list[Path]:
    """Find the files that hold weights of a graph; raise UserError for one that is missing, no file, or elsewhere."""
    try:
        import onnx  # pyright: ignore[reportMissingImports]
    except ImportError:
        notes.append(f"{path.name}: its sha256 covers this file alone, not others beside it ({advise_extra('onnx')})")
        return []
    try:
        names = sorted(list_locations(onnx.load(path, load_external_data=False)))
    except Exception as error:  # noqa: BLE001 (the parser of hostile bytes may raise anything)
        raise refuse(path, UNOPENED.format("ONNX", "onnxruntime"), None, first_words(error)) from None
    found = [path.parent / name for name in names]
    for name, file in zip(names, found, strict=True):
        try:
            if not file.resolve().is_relative_to(path.parent.resolve()):
                raise refuse(path, "has weights outside its folder; nothing was loaded", "a file beside it", name)
            check_plain(file)
        except (OSError, ValueError, RuntimeError) as error:
            raise refuse(path, f"has its weights in {name}, which cannot be read", None, explain(error)) from None
    if found:
        notes.append(f"{path.name}: its weights lie in {', '.join(names)} beside it; its sha256 covers them")
    return found


def list_locations(model: Any) -> set[str]:
    """List the files that tensors of an ONNX model name, in subgraphs and functions, too."""
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


def refuse_gradient(path: Path) -> NoReturn:
    """Raise UserError: a file of another runtime cannot be trained."""
    raise refuse(path, "cannot be trained: another runtime runs it", remedy="train the checkpoint")
