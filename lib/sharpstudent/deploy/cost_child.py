"""`python -m sharpstudent.deploy.cost_child JSON`: the memory of one picture on the CPU, in a fresh process.

JSON: path, architecture, image_size, classes, threads. Prints bytes: the most that is resident while a picture is
judged, less what was resident before the model was built, when every library had been imported and used once.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_PEAK_RESET = Path("/proc/self/clear_refs")  # 5: VmHWM, the most that was resident, begins anew (Linux, proc(5))


def main(text: str) -> int:
    """Measure and print; the exit code."""
    if not _PEAK_RESET.exists():
        print("resident memory is measured on Linux only", file=sys.stderr)
        return 1
    import torch
    from torch import nn

    from sharpstudent.evaluation.load_model import ONNX, ModelSpec, open_model
    from sharpstudent.evaluation.onnx import OnnxClassifier, read_graph
    from sharpstudent.models.classifier import EFFICIENTNET_B4

    asked = json.loads(text)
    path, classes, size, cpu = Path(asked["path"]), tuple(asked["classes"]), asked["image_size"], torch.device("cpu")
    torch.set_num_threads(asked["threads"])
    with torch.inference_mode():
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 30 * 30, 2))(torch.rand(1, 3, 32, 32))
    library = "timm" if asked["architecture"] != EFFICIENTNET_B4 else "efficientnet_pytorch"
    importlib.import_module("onnxruntime" if path.suffix == ONNX else library)
    picture = torch.rand(1, 3, size, size)
    _release()
    before = _read_bytes("VmRSS")
    if path.suffix == ONNX:  # not through open_model, which tries four pictures at once
        model = OnnxClassifier(read_graph(path, device=cpu), classes=classes)
    else:
        spec = ModelSpec(path, architecture=asked["architecture"], image_size=size)
        model = open_model(spec, classes=classes, device=cpu).model
    _release()
    _PEAK_RESET.write_text("5")
    with torch.inference_mode():
        model(picture)
    print(max(_read_bytes("VmHWM") - before, 0))
    return 0


def _release() -> None:
    """Give back to the system what is free: a file that was read leaves as much again behind as the model needs."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc's own; elsewhere the figure is a little larger
        ctypes.CDLL(None).malloc_trim(0)


def _read_bytes(name: str) -> int:
    """A line of this process's status, such as `VmRSS:  123456 kB`."""
    (line,) = [line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
