"""`python -m sharpstudent.evaluation.cost_child JSON`: the memory of one sample on the CPU, in a fresh process.

JSON: path; again: as in `OpenedModel`; threads. Prints bytes: the most that is resident while a sample is judged, less
what was resident before the model was built, when every library had been imported and used once.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_STATUS = Path("/proc/self/status")
_PEAK_RESET = Path("/proc/self/clear_refs")  # 5: VmHWM, the most that was resident, begins anew (Linux, proc(5))


def main(text: str) -> int:
    """Measure and print; the exit code."""
    if not _PEAK_RESET.exists():
        print("resident memory is measured on Linux only", file=sys.stderr)
        return 1
    import torch
    from torch import nn

    from sharpstudent.models.forward import run_model

    asked = json.loads(text)
    torch.set_num_threads(asked["threads"])
    with torch.inference_mode():
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 30 * 30, 2))(torch.rand(1, 3, 32, 32))
    build = _prepare(Path(asked["path"]), asked["again"])
    _release()
    before = _read_bytes("VmRSS")
    model, inputs = build()
    _release()
    _PEAK_RESET.write_text("5")
    with torch.inference_mode():
        run_model(model, inputs)
    print(max(_read_bytes("VmHWM") - before, 0))
    return 0


def _prepare(path: Path, again: dict[str, Any]) -> Callable[[], tuple[Any, Any]]:
    """Imports what the model needs; the result builds it, with a sample for it."""
    import torch

    if "task" not in again:
        from sharpstudent.evaluation.load_model import prepare_again

        return prepare_again(path, again)
    from sharpstudent.evaluation.command_line import ModelRequest
    from sharpstudent.evaluation.renderer import load_renderer
    from sharpstudent.models.forward import run_model
    from sharpstudent.registry import find_task

    sys.path += [folder for folder in again["folders"] if folder not in sys.path]
    renderer, cpu = load_renderer(find_task(again["task"], trusted=True)), torch.device("cpu")

    def build() -> tuple[Any, Any]:
        opened = renderer.open_model(ModelRequest(path, told=again["told"]), cpu)
        return opened.model, opened.example(1, cpu)

    with torch.inference_mode():
        run_model(*build())  # which imports what the task needs on the way
    return build


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
