"""Feature hooks: outputs of layers by name, recorded while the model runs; nothing is kept between two forwards.

Legend: B images, C channels, h x w the grid of a feature map, N tokens, D their width.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.types import FEATURES
from sharpstudent.models.forward import evaluation_mode, select_inputs

NEAREST = 4  # similar names that an error message suggests
MOST_INDICES = 2  # numbers in a listed name: that of a stage, and that of a block in it


class FeatureHooks:
    """The hooks of one model and the outputs that they record during one forward; `hook_features` registers them.

    The hooks stay on the modules and do nothing outside a forward of the whole model: not while a checkpointed block is
    computed again in `backward`, not when a part of the model is called alone. They are bound methods, which
    `copy.deepcopy` of the model copies with their object: a copy and its original never see each other's tensors.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str]) -> None:
        """Register the hooks.

        Args:
            model: The model.
            layers: Names as in `named_modules()`.

        Raises:
            UserError: For a name that the model does not have.
        """
        known = dict(model.named_modules())
        problems = [_explain_unknown(layer, list(known)) for layer in layers if not layer or layer not in known]
        if problems:
            raise UserError(*problems)
        self.layers = tuple(dict.fromkeys(layers))
        self._recorded: dict[str, Tensor] = {}
        self._is_on = False
        self._handles = [
            module.register_forward_hook(functools.partial(self._record, layer))
            for layer in self.layers
            for module in _find_ends(known[layer])
        ]
        if self.layers:
            self._handles.append(model.register_forward_pre_hook(self._begin))
            self._handles.append(model.register_forward_hook(self._finish, always_call=True))

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    def _begin(self, module: nn.Module, args: Any) -> None:
        """Start recording the outputs of layers: a forward of the whole model begins."""
        self._recorded, self._is_on = {}, True

    def _record(self, layer: str, module: nn.Module, args: Any, output: Any) -> None:
        """Keep the output of a layer, and the last one if the layer runs several times in a forward."""
        if not self._is_on:
            return
        if not isinstance(output, Tensor):
            raise UserError.about(
                where=f"layer {layer!r}",
                what="cannot be tapped: its output is no tensor",
                expected="a layer whose output is one tensor",
                got=type(output).__name__,
                remedy="tap a layer inside it or after it; --list-layers lists layers that can be tapped",
            )
        self._recorded[layer] = output

    def _finish(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Stop recording, and add the recorded outputs to the model's. If the forward raised, `output` is None."""
        recorded, self._recorded, self._is_on = self._recorded, {}, False
        if output is None:
            return None
        silent = [layer for layer in self.layers if layer not in recorded]
        if silent:
            raise UserError.about(
                where=f"layer {silent[0]!r}",
                what="cannot be tapped: the model has it, but does not call it",
                remedy="tap another one; --list-layers lists layers that can be tapped",
            )
        return {**output, **{f"{FEATURES}{layer}": tensor for layer, tensor in recorded.items()}}


def hook_features(model: nn.Module, layers: Sequence[str]) -> None:
    """Let each forward of the model, from now on, also give the outputs of some layers, as `features/LAYER`.

    State keys stay as they are. The tensors are not copied: in training they have a graph, and a next layer that works
    in place changes them, as an activation after a norm does (the output of a whole block is safe). Under
    `torch.compile` call this before the first forward; a later call compiles anew, and each hooked layer keeps its
    output from being fused away. Under gradient checkpointing a hooked layer inside a checkpointed block costs the
    memory of its output.

    Args:
        model: The model.
        layers: Names as in `named_modules()`, such as `backbone.stages.3` or `net._blocks.31`. They replace those of an
            earlier call; an empty list ends the recording.

    Raises:
        UserError: For a name that the model does not have; the message suggests similar ones. The forward raises it for
            a layer whose output is not a tensor, or that is never called.
    """
    hooks = FeatureHooks(model, layers)
    earlier = find_feature_hooks(model)
    if earlier is not None:
        earlier.remove()
    model._feature_hooks = hooks  # type: ignore[assignment]


def find_feature_hooks(model: nn.Module) -> FeatureHooks | None:
    """The feature hooks of a model, None without any."""
    hooks = model.__dict__.get("_feature_hooks")
    return hooks if hooks is not None and hooks.layers else None


def _find_ends(module: nn.Module) -> list[nn.Module]:
    """Find the modules that have the same output as this one: itself, and the last member of an `nn.Sequential`.

    They are hooked, too, because timm's gradient checkpointing calls the members of a stage and not the stage.
    """
    ends = [module]
    while isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward and len(module):
        module = module[-1]
        ends.append(module)
    return ends


def list_layers(model: nn.Module, inputs: Mapping[str, Tensor]) -> list[tuple[str, tuple[int, ...]]]:
    """List the stages and blocks of a model with the shapes of their outputs.

    A layer is listed when it has layers of its own, an output (B, C, h, w) or (B, N, D), and at most a stage's and a
    block's number in its name; in a model without such layers, every layer with such an output. Any other name of
    `named_modules()` can be tapped, too. One forward runs in evaluation mode without a graph; modes, statistics and
    random states stay as they are.

    Args:
        model: The model.
        inputs: The inputs of a batch.

    Returns:
        Name and shape of each layer, in the order of the model.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def _note(name: str, module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim in (3, 4):
            shapes[name] = tuple(output.shape)

    listed = [(name, module) for name, module in model.named_modules() if name]
    handles = [module.register_forward_hook(functools.partial(_note, name)) for name, module in listed]
    weight = next(iter(model.parameters()))
    devices = [weight.device] if weight.device.type == "cuda" else []
    try:
        with evaluation_mode(model), torch.random.fork_rng(devices), torch.no_grad():
            # `forward` is called directly: calling a compiled model would compile it for this batch.
            model.forward(**select_inputs(model, inputs))
    finally:
        for handle in handles:
            handle.remove()
    found = [one for one in listed if one[0] in shapes]
    return [(name, shapes[name]) for name, _ in [one for one in found if _is_block(*one)] or found]


def describe_layers(layers: Sequence[tuple[str, tuple[int, ...]]]) -> list[str]:
    """Write a line for each layer: its name, then its shape for a batch of B."""
    width = max((len(name) for name, _ in layers), default=0)
    return [f"{name:<{width}}  {describe_shape(shape)}" for name, shape in layers]


def describe_shape(shape: Sequence[int]) -> str:
    """Write a shape for a batch of B, as `(B, 24, 7, 7)`."""
    return f"({', '.join(['B', *map(str, shape[1:])])})"


def _is_block(name: str, module: nn.Module) -> bool:
    """Whether a layer has layers of its own, and a name like `stages.3`, `stages.3.1` or, without a number, `stem`."""
    parts = name.split(".")
    numbers = sum(part.isdecimal() for part in parts)
    is_whole = numbers == 0 or (numbers <= MOST_INDICES and parts[-1].isdecimal())
    return name != "" and is_whole and next(module.children(), None) is not None


def _explain_unknown(layer: str, known: list[str]) -> Problem:
    names = [name for name in known if name]
    # The commonest mistake is `stages.3` without `backbone.`, which difflib does not find.
    near = [name for name in names if layer and name.endswith(f".{layer}")]
    near += [name for name in difflib.get_close_matches(layer, names, n=NEAREST, cutoff=0.5) if name not in near]
    return Problem(
        where=f"layer {layer!r}",
        what="is no layer of this model",
        expected="a name of the model's layers, as --list-layers prints them",
        remedy=f"did you mean {', '.join(near[:NEAREST])}?" if near else "run the script with --list-layers",
    )
