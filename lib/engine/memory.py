"""When memory runs out: which errors mean that, and what there is to try."""

from __future__ import annotations

import torch

from lib.config.sections import RunConfig

# The CPU's allocator; CUDA, MPS; cuBLAS, cuDNN; C++.
_EXHAUSTED = ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED", "std::bad_alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of a step says that the device's or the machine's memory is exhausted.

    Only CUDA has a class of its own for it; the CPU's allocator and MPS raise a RuntimeError.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(words in text for words in _EXHAUSTED)


def advise_on_memory(config: RunConfig, device: torch.device, *, items: int, parts: int) -> list[str]:
    """What to try, the mildest change first; what is in use already is left out.

    items: of a batch; parts: micro-batches that it passes in now.
    """
    compute, now = config.compute, -(-items // parts)
    key = f"stage{config.stage}.micro_batch_size"
    ideas = [
        (now > 1, f"--set {key}={max(1, now // 2)}  (now {now}; the batch stays {items}, in more parts)"),
        (not compute.gradient_checkpointing, "--set gradient_checkpointing=true  (about a third more time)"),
        (compute.precision == "fp32" and device.type != "cpu", "--set precision=bf16"),
        (not compute.channels_last and device.type != "cpu", "--set channels_last=true"),
        (now > 1 and not compute.halve_on_out_of_memory, "--set halve_on_out_of_memory=true  (finds the size itself)"),
        (True, "a smaller image_size or student"),
    ]
    return [text for is_open, text in ideas if is_open]
