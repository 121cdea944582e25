"""Calls a model with the inputs of a batch that it reads: those that its `forward` has as parameters.

Legend: R rows of a batch.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
from collections.abc import Generator, Mapping
from contextvars import ContextVar

from torch import Tensor, nn

from sharpstudent.core.errors import UserError
from sharpstudent.core.types import Outputs
from sharpstudent.models.weights import compute_weights_hash

_kept: ContextVar[dict[tuple[str, str], Tensor] | None] = ContextVar("kept", default=None)


@functools.cache
def _read_signature(kind: type[nn.Module]) -> tuple[tuple[str, ...], frozenset[str], bool]:
    """Find the inputs that `forward` names, those without a default, and whether it takes all others (`**kwargs`)."""
    parameters = list(inspect.signature(kind.forward).parameters.values())[1:]
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    required = frozenset(p.name for p in named if p.default is p.empty)
    return tuple(p.name for p in named), required, any(p.kind is p.VAR_KEYWORD for p in parameters)


def select_inputs(model: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Select the inputs that the model's `forward` names.

    Args:
        model: The model.
        inputs: The inputs of a batch, (R, ...) each.

    Raises:
        UserError: When an input is missing; the message names it.
    """
    names, required, takes_all = _read_signature(type(model))
    missing = [name for name in names if name in required and name not in inputs]
    if missing:
        raise UserError.about(
            f"{type(model).__name__}.forward",
            f"reads {', '.join(names)}, and the batch has {', '.join(inputs)}: {', '.join(missing)} is missing",
            remedy="name its parameters as the inputs of the task's samples",
        )
    return dict(inputs) if takes_all else {name: inputs[name] for name in names if name in inputs}


def run_model(model: nn.Module, inputs: Mapping[str, Tensor]) -> Outputs:
    """Run the model on the inputs of a batch that it reads.

    Args:
        model: The model.
        inputs: The inputs of a batch, (R, ...) each.

    Returns:
        Its outputs by name, (R, ...) each.

    Raises:
        UserError: When an input is missing, and when the model does not return a dictionary.
    """
    outputs = model(**select_inputs(model, inputs))
    if not isinstance(outputs, Mapping):
        raise UserError.about(
            f"{type(model).__name__}.forward",
            "must return a dictionary of tensors, by the names of the outputs",
            got=type(outputs).__name__,
            remedy='return {"logits": ...}, or the names that the terms and metrics of the task read',
        )
    return outputs


@contextlib.contextmanager
def evaluation_mode(*models: nn.Module) -> Generator[None]:
    """Context manager: inside, the models are in evaluation mode; afterwards each module has its former mode."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def count_parameters(model: nn.Module) -> int:
    """Count trainable and frozen parameters."""
    return sum(p.numel() for p in model.parameters())


@contextlib.contextmanager
def sharing_frozen_parts() -> Generator[None]:
    """Let models that run on one batch, one after the other, share what equal frozen parts of theirs compute."""
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def run_frozen(part: nn.Module, values: Tensor) -> Tensor:
    """Compute `part(values)`; within `sharing_frozen_parts` once for all parts of equal weights and equal values.

    Args:
        part: A frozen part of a model, which draws nothing and has no state that a call changes.
        values: Its input.
    """
    kept = _kept.get()
    if kept is None:
        return part(values)
    digest = hashlib.sha256(f"{values.dtype}{tuple(values.shape)}".encode())
    digest.update(values.detach().cpu().contiguous().numpy().tobytes())
    key = (compute_weights_hash(part), digest.hexdigest())
    if key not in kept:
        kept[key] = part(values)
    return kept[key]
