"""Fine-tunes a model for int8: quantisation-aware training with the model itself, in fp32, as the teacher.

The graph that is exported is run with the error of int8 in it (Jacob et al. 2018, "Quantization and training of neural
networks for efficient integer-arithmetic-only inference"): what goes into a layer is rounded to 8 bits over the range
of its batch, weights to 7 bits by output channel, and gradients pass as if nothing had been rounded (Bengio et al.
2013, straight-through estimator). It learns to give the outputs that the model gives in fp32 for the run's training
samples, so neither labels nor the terms of a loss are needed, and it serves every task. Statistics of batch norm stay
as they are: a factor for each channel, which the exporter folds into the weights without a change to their rounding.

Legend: R rows of a batch.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from sharpstudent.core.errors import UserError
from sharpstudent.core.types import Batch
from sharpstudent.data.dataset import Samples
from sharpstudent.data.loader import load_batches
from sharpstudent.data.sampler import TrainSampler
from sharpstudent.deploy.convert import Form, trace
from sharpstudent.models.forward import evaluation_mode, run_model
from sharpstudent.task import Task

# By the name of torch's operation, the number of the dimension that counts output channels of the weight.
WEIGHTED = {"conv1d": 0, "conv2d": 0, "conv3d": 0, "linear": 0, "conv_transpose1d": 1, "conv_transpose2d": 1}
# Operations all of whose inputs become int8, as in deploy/quantize.py.
ROUNDED = ("matmul", "bmm", "mm", "add", "add_", "mul", "mul_", "sigmoid", "silu", "silu_", "hardswish", "hardswish_")
ROUNDED += ("hardsigmoid", "avg_pool2d", "adaptive_avg_pool2d", "max_pool2d")
HIGHEST = 63  # 7 bits of a weight, as much below 0 as above
STEPS = 255  # 8 bits of an activation
LR = 1e-4  # of Adam, at the first step; it falls to 0 as a cosine
SMALLEST = 1e-8  # of a scale and of a variance
PREFIX = "model."  # of the names of weights in the traced graph


class RoundedRun(fx.Interpreter):
    """Runs a traced graph with the error of int8 in the inputs and weights of its layers; gradients pass through."""

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operation."""
        name = getattr(getattr(target, "overloadpacket", None), "__name__", "")
        if name in WEIGHTED:
            args = (round_values(args[0]), round_weights(args[1], WEIGHTED[name]), *args[2:])
        elif name in ROUNDED:
            args = tuple(round_values(one) if isinstance(one, Tensor) else one for one in args)
        return super().call_function(target, args, kwargs)


def round_values(values: Tensor) -> Tensor:
    """Round activations to 256 steps between their least and greatest value and 0; constants stay as they are."""
    if not values.is_floating_point() or values.dim() == 0:
        return values
    with torch.no_grad():
        low, high = values.min().clamp(max=0.0), values.max().clamp(min=0.0)
        scale = ((high - low) / STEPS).clamp(min=SMALLEST)
        least = (low / scale).round()
        rounded = (values / scale).round().clamp(least, least + STEPS) * scale
    return values + (rounded - values).detach()


def round_weights(weights: Tensor, channels: int) -> Tensor:
    """Round weights to 7 bits, with a scale for each output channel.

    Args:
        weights: The weights.
        channels: The number of the dimension that counts output channels.

    Returns:
        The weights as int8 will have them, in float32.
    """
    with torch.no_grad():
        others = [number for number in range(weights.dim()) if number != channels]
        scale = (weights.abs().amax(others, keepdim=True) / HIGHEST).clamp(min=SMALLEST)
        rounded = (weights / scale).round() * scale
    return weights + (rounded - weights).detach()


def load_training(task: Task, samples: Samples, steps: int, *, batch_size: int, workers: int) -> Generator[Batch]:
    """Yield one batch of training samples for each step, augmented as in training, in an order that a seed decides.

    Args:
        task: The task.
        samples: The training samples.
        steps: How many batches are wanted.
        batch_size: How many samples a batch has.
        workers: How many loader processes run.
    """
    repeats = math.ceil(steps * batch_size / len(samples))
    sampler = TrainSampler(len(samples), batch_size, repeats, samples.seed)
    keys = itertools.islice(sampler.batches(1), steps)
    for batch, _ in load_batches(samples, keys, seed=samples.seed, num_workers=workers, collate=task.collate):
        yield batch


def fine_tune(form: Form, batches: Generator[Batch], steps: int, report: Callable[[], None]) -> Form:
    """Fine-tune a model so that its int8 form gives what it gives in fp32.

    Args:
        form: The model, on the CPU; it is not changed.
        batches: Batches of training samples, one for each step.
        steps: How many steps are taken.
        report: Called after each step.

    Returns:
        The form of the fine-tuned model.

    Raises:
        UserError: For a model without weights that learn, and where the outputs become infinite.
    """
    tuned = replace(form, model=copy.deepcopy(form.model).eval())  # the graph shares its weights
    tuned.model.requires_grad_(True)  # an opened model may be frozen
    module = trace(tuned).module(check_guards=False)
    rounded, weights = RoundedRun(module), dict(module.named_parameters())
    if not weights:
        raise UserError.about("--qat-steps", "is for models with weights that learn", remedy="leave it out")
    optimizer = torch.optim.Adam(weights.values(), lr=LR)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    for batch in batches:
        inputs = {name: batch.inputs[name] for name in form.inputs}
        with torch.no_grad(), evaluation_mode(form.model):
            wanted = run_model(form.model, inputs)
        found = dict(zip(form.outputs, rounded.run(*inputs.values()), strict=True))
        loss = compute_distance(wanted, found)
        if not bool(torch.isfinite(loss)):
            raise UserError.about(
                "--qat-steps",
                "the outputs became infinite while the model was fine-tuned: nothing was written",
                remedy="fewer steps, or --auto without it",
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        report()
    learnt = {name.removeprefix(PREFIX): tensor.detach() for name, tensor in weights.items()}
    tuned.model.load_state_dict({**tuned.model.state_dict(), **learnt})
    return tuned


def compute_distance(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> Tensor:
    """Compute the mean squared difference of outputs, each in units of the variance of the wanted one."""
    parts = [
        (one - wanted[name]).square().mean() / wanted[name].var(correction=0).clamp(min=SMALLEST)
        for name, one in found.items()
        if one.is_floating_point()
    ]
    return torch.stack(parts).mean()
