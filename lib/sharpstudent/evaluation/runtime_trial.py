"""Bounds the memory of files that other runtimes than torch open: a few bytes can ask for tensors of terabytes.

Constant shapes and sizes of ONNX (ConstantOfShape, Expand, Tile, Range, Resize, Pad), but also a chain of sums or
products, make tensors of any size, when the file is opened or when it runs; a program of ExecuTorch states how much
memory is planned for it. Where the shapes of all tensors of an ONNX graph follow from it and are small, nothing more is
done. Else the file is opened and run once in a process whose address space is limited:
`python -m sharpstudent.evaluation.runtime_trial FILE BYTES`. What crashes a runtime crashes that process alone.
"""

from __future__ import annotations

import functools
import math
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sharpstudent.core.arguments import find_child_settings
from sharpstudent.core.memory import find_free_memory

MOST_TIMES = 8  # the size of the weights: a runtime holds them several times, rearranged and folded
MOST_MORE = 4 * 2**30  # bytes besides, for what one sample needs
SMALL = 2**30  # bytes of all tensors together that need no trial
SIDE = 384  # pixels a side, and one picture, where the graph leaves them free
TIMEOUT_S = 300.0
ORDINARY, TOO_LARGE = 3, 4  # exit codes of the trial: an error that a reader will find, too; memory
NUMBERS = {"tensor(uint8)": "uint8", "tensor(int64)": "int64", "tensor(float16)": "float16"}  # else float32
CRASHES = (-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL)
SUBGRAPHS = (5, 10)  # kinds of attributes: a graph, or several
_MEMORY_WORDS = ("alloc", "memory", "too large", "overflow")


@functools.lru_cache(maxsize=64)
def find_excess(path: Path, weights: int, digest: str) -> str | None:
    """Find out whether a file needs more memory than its weights explain.

    Args:
        path: The `.onnx`, `.xml` or `.pte`.
        weights: The bytes of the file and of those beside it that hold its weights.
        digest: The digest of all of them: the same files are tried once.

    Returns:
        What is wrong, as the rest of a sentence; None where it is bounded, or cannot be opened for another reason.
    """
    if path.suffix == ".onnx" and is_small(path):
        return None
    limit = min(MOST_TIMES * weights + MOST_MORE, find_free_memory() or sys.maxsize)
    words = [sys.executable, "-m", "sharpstudent.evaluation.runtime_trial", str(path.absolute()), str(limit)]
    try:
        ended = subprocess.run(words, capture_output=True, timeout=TIMEOUT_S, check=False, **find_child_settings())
    except subprocess.TimeoutExpired:
        return f"does not come to an end with one sample in {TIMEOUT_S:.0f} s"
    if ended.returncode in (0, 1, ORDINARY):  # 1: without its runtime
        return None
    if ended.returncode in CRASHES:
        return "crashes its runtime, with one sample, in a process of its own"
    return f"needs more than {limit / 2**30:.1f} GB of memory for one sample"


def is_small(path: Path) -> bool:
    """Say whether all tensors of a graph are known to be small; False where their shapes do not follow from it."""
    try:
        import onnx  # pyright: ignore[reportMissingImports]

        model = onnx.load(path, load_external_data=False)
        graph = model.graph
        has_subgraphs = any(one.type in SUBGRAPHS for node in graph.node for one in node.attribute)
        if has_subgraphs or len(model.functions):
            return False
        _fix_free_sizes(graph)
        del graph.value_info[:]  # what the file says of itself may be wrong
        for output in graph.output:
            output.type.tensor_type.ClearField("shape")
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    except Exception:  # noqa: BLE001 (whatever hostile bytes do to the parser, the trial decides)
        return False
    shapes = {one.name: one.type.tensor_type.shape for one in (*inferred.value_info, *inferred.output)}
    return sum(_count_bytes(shapes.get(name)) for node in inferred.node for name in node.output if name) <= SMALL


def _fix_free_sizes(graph: Any) -> None:
    """Give the free sizes of the input values: one picture of SIDE a side."""
    given = {one.name for one in graph.initializer}
    for one in graph.input:
        for place, dim in enumerate(one.type.tensor_type.shape.dim if one.name not in given else ()):
            if not dim.HasField("dim_value"):
                dim.dim_value = 1 if place == 0 else SIDE


def _count_bytes(shape: Any) -> float:
    """Count the bytes of a tensor, eight for each number; infinite for an unknown shape."""
    if shape is None or not all(dim.HasField("dim_value") and dim.dim_value >= 0 for dim in shape.dim):
        return math.inf
    return 8.0 * math.prod(dim.dim_value for dim in shape.dim)


def main(path: str, limit: str) -> int:
    """Open and run a file once, within a limit of address space beyond what the libraries take.

    Args:
        path: The file.
        limit: The limit [bytes].

    Returns:
        The exit code.
    """
    run = _RUNS[Path(path).suffix]()
    _limit_memory(int(limit))
    try:
        run(path)
    except MemoryError:
        return TOO_LARGE
    except Exception as error:  # noqa: BLE001 (the runtimes' exceptions have no base class of their own)
        return TOO_LARGE if any(word in str(error).lower() for word in _MEMORY_WORDS) else ORDINARY
    return 0


def _load_onnx() -> Callable[[str], object]:
    import onnxruntime  # pyright: ignore[reportMissingImports]

    def run(path: str) -> object:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        inputs = {one.name: _draw(_choose_sizes(one.shape), one.type) for one in session.get_inputs()}
        return session.run(None, inputs)

    return run


def _load_openvino() -> Callable[[str], object]:
    import openvino  # pyright: ignore[reportMissingImports]

    core = openvino.Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")  # loads the plugin, which takes address space

    def run(path: str) -> object:
        compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_NUM_THREADS": 1})
        shapes = [
            [size.get_length() if size.is_static else None for size in one.partial_shape] for one in compiled.inputs
        ]
        types = [one.get_element_type().to_dtype() for one in compiled.inputs]
        return compiled([_draw(_choose_sizes(shape), kind) for shape, kind in zip(shapes, types, strict=True)])

    return run


def _load_executorch() -> Callable[[str], object]:
    import torch
    from executorch.runtime import Runtime  # pyright: ignore[reportMissingImports]

    runtime = Runtime.get()

    def run(path: str) -> object:
        method = runtime.load_program(path).load_method("forward")
        about = [method.metadata.input_tensor_meta(place) for place in range(method.metadata.num_inputs())]
        return method.execute([torch.zeros((1, *one.sizes()[1:])) for one in about])

    return run


# By the ending of the file, what imports its runtime and returns the function that opens and runs it.
_RUNS = {".onnx": _load_onnx, ".xml": _load_openvino, ".pte": _load_executorch}


def _draw(sizes: Sequence[int], kind: Any) -> Any:
    """Draw random numbers of a type in a runtime's own words, or of a type of NumPy."""
    import numpy as np

    return (
        np.random.default_rng(0).random(sizes).astype(NUMBERS.get(kind, "float32") if isinstance(kind, str) else kind)
    )


def _choose_sizes(shape: Sequence[int | str | None]) -> list[int]:
    """Choose sizes for one sample: SIDE for those of a picture that are free, else 1."""
    known = [size if isinstance(size, int) and size > 0 else None for size in shape]
    side = next((size for size in known[2:] if size), SIDE) if len(known) == 4 else 1
    return [
        size or (1 if place == 0 else 3 if place == 1 and len(known) == 4 else side) for place, size in enumerate(known)
    ]


def _limit_memory(limit: int) -> None:
    """Limit the address space of this process; where the system cannot, its memory decides."""
    try:
        import resource
    except ImportError:  # Windows
        return
    used = 0
    status = Path("/proc/self/statm")
    if status.exists():
        used = int(status.read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
    wanted = used + limit
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
