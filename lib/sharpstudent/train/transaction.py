"""What a step may change, copied before it changes, so that a step that fails has not happened.

Copies are taken as late as they can be: buffers, random states and the loss scale before the first forward, weights
before the ascent, optimiser and average just before the update, when no activations are held any more.
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
    """What the base step and the average change. optimizer: by parameter, its state's values."""

    optimizer: dict[Tensor, dict[str, Any]]
    average: list[Tensor]
    average_updates: int


class Transaction:
    """One step's copies. `roll_back` puts everything back, bit for bit, whatever has happened in between."""

    def __init__(
        self,
        student: nn.Module,
        optimizer: SAM,
        average: WeightAverage | None,
        loss_scale: LossScale | None,
        device_type: str,
    ) -> None:
        self._student, self._optimizer, self._average, self._loss_scale = student, optimizer, average, loss_scale
        self._buffers = [buffer.detach().clone() for buffer in student.buffers()]
        self._tracking = [(layer, layer.track_running_stats) for layer in find_norm_layers(student)]
        self._scale_state = None if loss_scale is None else loss_scale.state_dict()
        self._weights: list[Tensor] | None = None
        self._update: _Update | None = None
        self._modes = _TorchModes(device_type)
        self.rng_before = capture_rng_state(device_type=device_type)

    def hold_weights(self) -> list[Tensor]:
        """Before the first change of a weight. Once: between the ascent's restore and the update they are the same.

        Returns the copies, for SAM to restore from: two of them would be one too many.
        """
        if self._weights is None:
            self._weights = self._optimizer.copy_parameters()
        return self._weights

    def hold_update(self) -> None:
        """Before the base step."""
        self.hold_weights()
        state = self._optimizer.base_optimizer.state
        self._update = _Update(
            optimizer={p: {name: _copy(value) for name, value in state[p].items()} for p in list(state)},
            average=[] if self._average is None else [t.detach().clone() for t in self._average.tensors],
            average_updates=0 if self._average is None else self._average.updates,
        )

    def roll_back(self) -> None:
        """Everything as it was when the transaction began; gradients are dropped. May be called again."""
        torch.set_grad_enabled(False)
        self._optimizer.zero_grad()
        for layer, tracks in self._tracking:
            layer.track_running_stats = tracks
        _copy_back(list(self._student.buffers()), self._buffers)
        if self._weights is not None:
            _copy_back(self._optimizer.parameters, self._weights)
        if self._update is not None:
            self._put_optimizer_back(self._update.optimizer)
        if self._update is not None and self._average is not None:
            _copy_back(self._average.tensors, self._update.average)
            self._average.updates = self._update.average_updates
        if self._loss_scale is not None and self._scale_state is not None:
            self._loss_scale.load_state_dict(self._scale_state)
        restore_rng_state(self.rng_before)
        self._modes.put_back()

    def _put_optimizer_back(self, saved: dict[Tensor, dict[str, Any]]) -> None:
        """Its values are put back in place; entries that the step made are taken out."""
        state = self._optimizer.base_optimizer.state
        for parameter in list(state):
            if parameter in saved:
                state[parameter] = saved[parameter]
            else:
                del state[parameter]


class _TorchModes:
    """Torch's switches of this thread. An interrupt can fall between the end of a `with` block and its exit."""

    def __init__(self, device_type: str) -> None:
        self._device_type = device_type
        self._grad = torch.is_grad_enabled()
        self._autocast = torch.is_autocast_enabled(device_type), torch.get_autocast_dtype(device_type)

    def put_back(self) -> None:
        torch.set_autocast_enabled(self._device_type, self._autocast[0])
        torch.set_autocast_dtype(self._device_type, self._autocast[1])
        torch.set_grad_enabled(self._grad)


def find_norm_layers(model: nn.Module) -> list[_BatchNorm]:
    """Every layer that keeps its running statistics to itself when told so: BatchNorm of any dimension, synchronised or
    not. InstanceNorm does not.
    """
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def _copy_back(tensors: list[Tensor], saved: list[Tensor]) -> None:
    if tensors:
        torch._foreach_copy_(tensors, saved)
