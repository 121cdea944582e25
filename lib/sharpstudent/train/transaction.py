"""The snapshot of a step: copies of everything that the step may change, from which a failed step is undone.

Copies are made as late as possible: buffers, random states and the loss scale before the first forward, weights before
the move to w + e, optimiser and average just before the update, when no activations are in memory any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sharpstudent.core.random import capture_rng_state, restore_rng_state
from sharpstudent.optim.average import WeightAverage
from sharpstudent.optim.build import LossScale
from sharpstudent.optim.sam import SAM


@dataclass(frozen=True)
class _Update:
    """A copy of what the base step and the average change.

    Attributes:
        optimizer: The values of the optimiser's state, by parameter.
        average: The averaged weights.
        average_updates: How often they were updated.
    """

    optimizer: dict[Tensor, dict[str, Any]]
    average: list[Tensor]
    average_updates: int


class Transaction:
    """The copies of one step. `roll_back` restores everything bit for bit, at whatever point the step failed."""

    def __init__(
        self,
        student: nn.Module,
        optimizer: SAM,
        average: WeightAverage | None,
        loss_scale: LossScale | None,
        device_type: str,
    ) -> None:
        """Copy the state that forward passes change.

        Args:
            student: The model that learns.
            optimizer: The optimiser of the weights.
            average: The average of the weights; None without one.
            loss_scale: The loss scale of fp16; None without one.
            device_type: The type of the device on which the step is computed: `cpu`, `cuda` or `mps`.
        """
        self._student, self._optimizer, self._average, self._loss_scale = student, optimizer, average, loss_scale
        self._buffers = [buffer.detach().clone() for buffer in student.buffers()]
        self._tracking = [(layer, layer.track_running_stats) for layer in find_norm_layers(student)]
        self._scale_state = None if loss_scale is None else loss_scale.state_dict()
        self._weights: list[Tensor] | None = None
        self._update: _Update | None = None
        self._ascent = optimizer.ascent_state
        self._modes = _TorchModes(device_type)
        self.rng_before = capture_rng_state(device_type=device_type)

    def copy_weights(self) -> list[Tensor]:
        """Copy the weights before they first change; a second call returns the same copies.

        SAM restores the weights from these copies after pass 2, too, so that only one set is in memory. The copies stay
        valid until the update.
        """
        if self._weights is None:
            self._weights = self._optimizer.copy_parameters()
        return self._weights

    def copy_update(self) -> None:
        """Copy the state that the base step and the average change; called just before they do."""
        self.copy_weights()
        state = self._optimizer.base_optimizer.state
        self._update = _Update(
            optimizer={p: {name: _copy(value) for name, value in state[p].items()} for p in list(state)},
            average=[] if self._average is None else [t.detach().clone() for t in self._average.tensors],
            average_updates=0 if self._average is None else self._average.updates,
        )

    def roll_back(self) -> None:
        """Restore everything as it was when the transaction began, without gradients. May be called again."""
        torch.set_grad_enabled(False)
        self._optimizer.zero_grad()
        self._optimizer.restore_ascent(self._ascent)
        for layer, tracks in self._tracking:
            layer.track_running_stats = tracks
        _copy_back(list(self._student.buffers()), self._buffers)
        if self._weights is not None:
            _copy_back(self._optimizer.parameters, self._weights)
        if self._update is not None:
            self._restore_optimizer(self._update.optimizer)
        if self._update is not None and self._average is not None:
            _copy_back(self._average.tensors, self._update.average)
            self._average.updates = self._update.average_updates
        if self._loss_scale is not None and self._scale_state is not None:
            self._loss_scale.load_state_dict(self._scale_state)
        restore_rng_state(self.rng_before)
        self._modes.restore()

    def _restore_optimizer(self, saved: dict[Tensor, dict[str, Any]]) -> None:
        """Restore the values of the optimiser's state; entries that the step made are deleted."""
        state = self._optimizer.base_optimizer.state
        for parameter in list(state):
            if parameter in saved:
                state[parameter] = saved[parameter]
            else:
                del state[parameter]


class _TorchModes:
    """Torch's gradient and autocast modes in this thread; an interrupt of a `with` block can leave them changed."""

    def __init__(self, device_type: str) -> None:
        self._device_type = device_type
        self._grad = torch.is_grad_enabled()
        self._autocast = torch.is_autocast_enabled(device_type), torch.get_autocast_dtype(device_type)

    def restore(self) -> None:
        """Restore the modes."""
        torch.set_autocast_enabled(self._device_type, self._autocast[0])
        torch.set_autocast_dtype(self._device_type, self._autocast[1])
        torch.set_grad_enabled(self._grad)


def find_norm_layers(model: nn.Module) -> list[_BatchNorm]:
    """Find the BatchNorm layers of any dimension, synchronised or not.

    They leave their running statistics alone when `track_running_stats` is off; InstanceNorm does not.
    """
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def _copy_back(tensors: list[Tensor], saved: list[Tensor]) -> None:
    if tensors:
        torch._foreach_copy_(tensors, saved)
