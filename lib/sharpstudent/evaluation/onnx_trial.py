"""Bounds the memory of ONNX files of others: a few bytes of a graph can ask for tensors of terabytes.

Constant shapes and sizes (ConstantOfShape, Expand, Tile, Range, Resize, Pad), but also a chain of sums or products,
make tensors of any size, when the file is opened or when it runs. Where the shapes of all tensors follow from the
graph and are small, nothing more is done. Else the file is opened and run once in a process whose address space is
limited: `python -m sharpstudent.evaluation.onnx_trial FILE BYTES`.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sharpstudent.core.arguments import find_child_settings

MOST_TIMES = 8  # the size of the weights: a session holds them several times, rearranged and folded
MOST_MORE = 4 * 2**30  # bytes besides, for what one sample needs
SMALL = 2**30  # bytes of all tensors together that need no trial
SIDE = 384  # pixels a side, and one picture, where the graph leaves them free
TIMEOUT_S = 300.0
ORDINARY, TOO_LARGE = 3, 4  # exit codes of the trial: an error that a reader will find, too; memory
NUMBERS = {"tensor(uint8)": "uint8", "tensor(int64)": "int64", "tensor(float16)": "float16"}  # else float32
SUBGRAPHS = (5, 10)  # kinds of attributes: a graph, or several
_MEMORY_WORDS = ("alloc", "memory", "too large", "overflow")


def find_excess(path: Path, weights: int) -> str | None:
    """Find out whether a file needs more memory than its weights explain.

    Args:
        path: The ONNX file.
        weights: The bytes of the file and of those beside it that hold its weights.

    Returns:
        What it needs, as the rest of a sentence; None where it is bounded, or cannot be opened for another reason.
    """
    if is_small(path):
        return None
    limit = MOST_TIMES * weights + MOST_MORE
    words = [sys.executable, "-m", "sharpstudent.evaluation.onnx_trial", str(path.absolute()), str(limit)]
    try:
        ended = subprocess.run(words, capture_output=True, timeout=TIMEOUT_S, check=False, **find_child_settings())
    except subprocess.TimeoutExpired:
        return f"does not come to an end with one sample in {TIMEOUT_S:.0f} s"
    if ended.returncode in (0, 1, ORDINARY):  # 1: without onnxruntime
        return None
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
    import numpy as np
    import onnxruntime  # pyright: ignore[reportMissingImports]

    _limit_memory(int(limit))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        generator = np.random.default_rng(0)
        session.run(
            None,
            {
                one.name: generator.random(_choose_sizes(one.shape)).astype(NUMBERS.get(one.type, "float32"))
                for one in session.get_inputs()
            },
        )
    except MemoryError:
        return TOO_LARGE
    except Exception as error:  # noqa: BLE001 (onnxruntime's exceptions have no base class of their own)
        return TOO_LARGE if any(word in str(error).lower() for word in _MEMORY_WORDS) else ORDINARY
    return 0


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
