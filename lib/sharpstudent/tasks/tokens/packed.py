"""Tsetlin machines as bits: masks and literals in words of 64, failing literals counted by population count.

With binary literals and hard masks a clause depends on an integer, the number m of its literals that fail:

    m = popcount(p and not x) + popcount(pbar and x),    clause = exp(-min(scale m, 10))

so that its value comes from a table. Clauses become integers of 0..255 and votes integers of -127..127 with one scale
for each output. Their products are summed exactly: in float32, which holds every integer up to 2^24, and in float64
from 519 clauses on. Attention and the projections stay as they are.

Legend: T tokens of a batch, F features, C clauses, K outputs, W words.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sharpstudent.core.errors import UserError
from sharpstudent.tasks.tokens.clauses import MOST_MISSING, FuzzyPatternTM
from sharpstudent.tasks.tokens.transformer import UnifiedTMTransformer

MOST_LEVEL, MOST_VOTE = 255, 127
BATCH = 64  # pictures in a timed batch
CHUNK = 4096  # tokens at once, so that the counts stay in the processor's cache


class PackedTM(nn.Module):
    """The bit-packed form of a `FuzzyPatternTM` with binary literals; it has the same call, and no gradient.

    Attributes:
        plain: The masks of features, uint64 (W, C).
        negated: The masks of negated features.
        levels: The value of a clause with m failing literals, in units of 1 / 255.
        votes: int8 (C, K).
        unit: What a vote of 1 with a clause of 1 / 255 is worth, for each output (K,).
        offset: What the biases of all clauses vote for together (K,).
    """

    def __init__(self, machine: FuzzyPatternTM) -> None:
        """Pack a machine.

        Args:
            machine: The machine; it is left as it is.

        Raises:
            UserError: For one with soft literals, which are no bits.
        """
        super().__init__()
        if not machine.is_binary:
            raise UserError.about("the model", "has soft literals, which cannot be packed", 'literals "binary"', "soft")
        with torch.no_grad():
            plain, negated = (mask.numpy() > 0.5 for mask in machine.masks())
            votes = machine.voting.numpy()
            self.offset = torch.from_numpy(machine.clause_bias.numpy() @ votes)
        self.plain, self.negated = pack_bits(plain).T.copy(), pack_bits(negated).T.copy()
        most = int((plain.sum(1) + negated.sum(1)).max())
        values = np.exp(-np.minimum(machine.scale * np.arange(most + 1), MOST_MISSING))
        self.levels = np.round(values * MOST_LEVEL).astype(np.float32)
        step = np.maximum(np.abs(votes).max(0), 1e-12) / MOST_VOTE
        self.votes = np.round(votes / step).astype(np.int8)
        self.unit = torch.from_numpy((step / MOST_LEVEL).astype(np.float32))
        exact = len(votes) * MOST_LEVEL * MOST_VOTE < 2**24
        self._votes = self.votes.astype(np.float32 if exact else np.float64)

    @property
    def file_bytes(self) -> int:
        """Bytes of masks, votes and scales."""
        return self.plain.nbytes + self.negated.nbytes + self.votes.nbytes + 8 * len(self.unit)

    def count_missing(self, literals: NDArray[np.uint64]) -> NDArray[np.uint16]:
        """Count the literals of each clause that fail: packed features (T, W) -> (T, C)."""
        missing = np.zeros((len(literals), self.plain.shape[1]), np.uint16)
        for word, plain, negated in zip(literals.T, self.plain, self.negated, strict=True):
            missing += np.bitwise_count(plain & ~word[:, None])
            missing += np.bitwise_count(negated & word[:, None])
        return missing

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Let the clauses vote: (..., F) -> the outputs (..., K), and the clauses (..., C)."""
        flat = inputs.reshape(-1, inputs.shape[-1]).numpy()
        parts = [self.levels[self.count_missing(pack_bits(flat[at : at + CHUNK] > 0.5))] for at in _starts(len(flat))]
        levels = np.concatenate(parts)
        outputs = torch.from_numpy((levels @ self._votes).astype(np.float32)) * self.unit + self.offset
        shape = inputs.shape[:-1]
        return outputs.reshape(*shape, -1), torch.from_numpy(levels / MOST_LEVEL).reshape(*shape, -1)


def _starts(count: int) -> range:
    return range(0, count, CHUNK)


def pack_bits(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Pack rows of bits (T, F) into words (T, W); the last word ends in zeros."""
    packed = np.packbits(bits, axis=1)
    padded = np.zeros((len(packed), -(-packed.shape[1] // 8) * 8), np.uint8)
    padded[:, : packed.shape[1]] = packed
    return padded.view(np.uint64)


def pack_model(model: UnifiedTMTransformer) -> UnifiedTMTransformer:
    """Copy a model with each of its machines in bit-packed form, in evaluation mode.

    Raises:
        UserError: For a model without machines, or with soft literals.
    """
    if not model.machines:
        raise UserError.about("the model", "has no Tsetlin machine to pack", "tm_vit, tm_swin, deeptm_vit, deeptm_swin")
    packed = copy.deepcopy(model).cpu().eval()
    for parent in list(packed.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, FuzzyPatternTM):
                setattr(parent, name, PackedTM(child))
    return packed


def soften_model(model: UnifiedTMTransformer) -> UnifiedTMTransformer:
    """Copy a model with soft masks and literals, as gradients see them, in evaluation mode."""
    soft = copy.deepcopy(model).eval()
    for machine in soft.machines:
        machine.is_hard = False
    return soft


@dataclass(frozen=True)
class PackedReport:
    """What packing a model costs and gains.

    Attributes:
        accuracy: Share of right answers of the hard float model, of the packed one and of the soft one.
        agreement: Share of pictures with the arg max of the hard float model, of the packed and of the soft one.
        core_bytes: Bytes of the machines, as float32 and packed.
        core_ms: Median processor time of the machines for a batch, as float32 and packed, one thread.
        model_ms: Median processor time of each whole model for a batch, by name, one thread.
    """

    accuracy: dict[str, float]
    agreement: dict[str, float]
    core_bytes: dict[str, int]
    core_ms: dict[str, float]
    model_ms: dict[str, float]


@torch.no_grad()
def measure_packed(
    model: UnifiedTMTransformer,
    images: Tensor,
    labels: NDArray[np.int64],
    *,
    others: Sequence[tuple[str, nn.Module]] = (),
    rounds: int = 9,
) -> PackedReport:
    """Compare a model with its packed form, and with others such as its int8 export.

    Args:
        model: The model.
        images: The pictures (R, channels, S, S).
        labels: Their classes (R,).
        others: Further models to time, with their names; they read `image`.
        rounds: How often each is timed, in turns.

    Returns:
        The figures.
    """
    packed = pack_model(model)
    forms = {"float": model.eval(), "packed": packed, "soft": soften_model(model)}
    answers = {name: _classify(form, images) for name, form in forms.items()}
    cores = {"float": model.machines, "packed": [one for one in packed.modules() if isinstance(one, PackedTM)]}
    core_ms, model_ms = _time_all(cores, {"float": model, "packed": packed, **dict(others)}, images[:BATCH], rounds)
    floats = sum(4 * one.numel() for core in model.machines for one in core.parameters())
    return PackedReport(
        accuracy={name: float((answer == labels).mean()) for name, answer in answers.items()},
        agreement={name: float((answers[name] == answers["float"]).mean()) for name in ("packed", "soft")},
        core_bytes={"float": floats, "packed": sum(core.file_bytes for core in cores["packed"])},
        core_ms=core_ms,
        model_ms=model_ms,
    )


def _classify(model: nn.Module, images: Tensor) -> NDArray[np.int64]:
    return torch.cat([model(image=part)["logits"].argmax(1) for part in images.split(BATCH)]).numpy()


def _time_all(
    cores: dict[str, Any], models: dict[str, nn.Module], images: Tensor, rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Time the machines on what they read of a batch, and whole models on the batch, with one thread [ms]."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        inputs = _collect_inputs(cores["float"], models["float"], images)
        pairs = {name: list(zip(found, inputs, strict=True)) for name, found in cores.items()}
        core_ms = _time({name: lambda of=of: [core(x) for core, x in of] for name, of in pairs.items()}, rounds)
        model_ms = _time({name: lambda one=one: one(image=images) for name, one in models.items()}, rounds)
    finally:
        torch.set_num_threads(threads)
    return core_ms, model_ms


def _collect_inputs(machines: Sequence[nn.Module], model: nn.Module, images: Tensor) -> list[Tensor]:
    """Collect what each machine reads of a batch."""
    found: list[Tensor] = []
    hooks = [one.register_forward_pre_hook(lambda _, given: found.append(given[0])) for one in machines]
    model(image=images)
    for hook in hooks:
        hook.remove()
    return found


def _time(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Take the processor time of calls in turns, which other processes hardly change; the median of each [ms]."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            begun = time.process_time()
            call()
            taken[name].append(1000.0 * (time.process_time() - begun))
    return {name: statistics.median(times[1:]) for name, times in taken.items()}
