"""`python -m sharpstudent.evaluation.cost_child JSON`: the memory of one sample on the CPU, in a fresh process.

JSON holds `path`, `reopen` (as in `OpenedModel`) and `threads`. The process prints a number of bytes: the peak of
resident memory while one sample goes through the model, minus the resident memory before the model was built, when
every library had been imported and used.
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
_PEAK_RESET = Path("/proc/self/clear_refs")  # writing 5 resets VmHWM, the peak of resident memory (Linux, proc(5))


def main(text: str) -> int:
    """Measure and print; return the exit code."""
    if not _PEAK_RESET.exists():
        print("resident memory is measured on Linux only", file=sys.stderr)
        return 1
    import torch
    from torch import nn

    from sharpstudent.models.forward import run_model

    request = json.loads(text)
    torch.set_num_threads(request["threads"])
    with torch.inference_mode():
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 30 * 30, 2))(torch.rand(1, 3, 32, 32))
    build = _prepare(Path(request["path"]), request["reopen"])
    _release()
    before = _read_bytes("VmRSS")
    model, inputs = build()
    _release()
    _PEAK_RESET.write_text("5")
    with torch.inference_mode():
        run_model(model, inputs)
    print(max(_read_bytes("VmHWM") - before, 0))
    return 0


def _prepare(path: Path, reopen: dict[str, Any]) -> Callable[[], tuple[Any, Any]]:
    """Import what the model needs; return a function that builds it, with a sample for it."""
    import torch

    if "task" not in reopen:
        from sharpstudent.evaluation.load_model import prepare_reopening

        return prepare_reopening(path, reopen)
    from sharpstudent.evaluation.command_line import ModelRequest
    from sharpstudent.evaluation.renderer import load_renderer
    from sharpstudent.models.forward import run_model
    from sharpstudent.registry import find_task

    sys.path += [folder for folder in reopen["folders"] if folder not in sys.path]
    renderer, cpu = load_renderer(find_task(reopen["task"], trusted=True)), torch.device("cpu")

    def build() -> tuple[Any, Any]:
        opened = renderer.open_model(ModelRequest(path, options=reopen["options"]), cpu)
        return opened.model, opened.example(1, cpu)

    with torch.inference_mode():
        run_model(*build())  # imports everything that the task needs, before the first measurement
    return build


def _release() -> None:
    """Return free memory to the system: reading a file leaves as much free memory behind as the model needs."""
    gc.collect()
    with contextlib.suppress(
        OSError, AttributeError
    ):  # malloc_trim exists in glibc only; without it the result is a little larger
        ctypes.CDLL(None).malloc_trim(0)


def _read_bytes(name: str) -> int:
    """Read a line of this process's status, such as `VmRSS:  123456 kB`."""
    (line,) = [line for line in _STATUS.read_text(encoding="utf-8").splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
