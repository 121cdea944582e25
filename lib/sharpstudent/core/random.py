"""Random generators for samples, and the random states of a run.

Each sample draws from its own Philox generator, keyed on (seed, epoch, index). So a sample does not depend on the
number of workers, on the order of loading, or on a restart (Salmon et al. 2011, "Parallel random numbers: as easy as 1,
2, 3").
"""

from __future__ import annotations

import random as python_random
from typing import Any

import numpy as np

# Purposes that draw with the same (seed, epoch, index) and must be independent of each other.
STREAMS = {"sample": 0, "order": 1, "replacement": 2}


def build_generator(seed: int, epoch: int, index: int, stream: str = "sample") -> np.random.Generator:
    """Build the generator of one (seed, epoch, index).

    The generator counts its draws in the lowest word of the counter, which therefore begins at 0. So the random numbers
    of different keys never overlap.

    Args:
        seed: The seed of the run, >= 0.
        epoch: The epoch, >= 0.
        index: The number of the sample, >= 0.
        stream: What the numbers are used for, one of STREAMS.

    Returns:
        A NumPy generator.
    """
    if min(seed, epoch, index) < 0:
        raise ValueError(f"seed, epoch and index must be >= 0, got {(seed, epoch, index)}")
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, index, epoch, STREAMS[stream]]))


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices), which initialisation and dropout draw from."""
    import torch

    python_random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def capture_rng_state(*, device_type: str = "cpu") -> dict[str, Any]:
    """Return the random states that a training step can advance.

    They are in a form that `torch.load(weights_only=True)` accepts. The legacy state of NumPy is not among them:
    `weights_only` refuses it, and nothing in a step draws from it.
    """
    import torch

    state: dict[str, Any] = {"torch": torch.get_rng_state(), "python": python_random.getstate()}
    if device_type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state_all()
    elif device_type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def restore_rng_state(state: dict[str, Any]) -> None:
    """Restore the states that `capture_rng_state` returned."""
    import torch

    torch.set_rng_state(state["torch"].cpu())  # it may have been loaded onto a device with its checkpoint
    version, words, gauss = state["python"]
    python_random.setstate((version, tuple(words), gauss))
    if "cuda" in state:
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
    if "mps" in state:
        torch.mps.set_rng_state(state["mps"].cpu())
