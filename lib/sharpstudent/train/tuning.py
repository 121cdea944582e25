"""What of a model learns: all of it, normalisation layers, low-rank adapters of linear layers, or the head alone.

The head always learns. What does not learn stays in evaluation mode, and training leaves its bits alone.

Adapters are LoRA (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1):

    W = W0 + (alpha / r) B A;  W0 frozen;  A random, B zero at the start, so that W is W0.

They are parametrisations of torch, which change a layer's weight and not its forward. So they also act in attention
that reads the weight itself (BEiT, EVA, Swin V2, DINOv3 with biases), and the merged weight is the very one that
training computed with. Files of weights hold merged weights alone: models like any other.

Legend: O outputs and I inputs of a linear layer, r the rank.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sharpstudent.config.run_config import LowRankKeys, Tune
from sharpstudent.core.errors import UserError
from sharpstudent.models.forward import count_parameters
from sharpstudent.models.weights import is_head

ADAPTED = "parametrizations.weight"  # where torch keeps the parts of a weight that is computed


class LowRankUpdate(nn.Module):
    """The parametrisation W0 -> W0 + (alpha / r) B A of a weight (O, I); `down` is A (r, I), `up` is B (O, r)."""

    def __init__(self, weight: Tensor, keys: LowRankKeys) -> None:
        """Draw A by torch's random state, with the bounds of torch's own linear layers; B is zero."""
        super().__init__()
        outputs, inputs = weight.shape
        self.down = nn.Parameter(weight.new_empty(keys.rank, inputs))
        self.up = nn.Parameter(weight.new_zeros(outputs, keys.rank))
        self.scale = keys.alpha / keys.rank
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """Compute the adapted weight (O, I)."""
        return weight + self.scale * (self.up @ self.down)


def tune_model(model: nn.Module, tune: Tune) -> str | None:
    """Freeze what of a model is not to learn, in place, and give it adapters where they are asked for.

    Args:
        model: The model, with the weights that it starts from; what is frozen in it already stays so.
        tune: The key of the config.

    Returns:
        A sentence with the number of parameters that learn; None for "all", which changes nothing.

    Raises:
        UserError: For a model without a head, or without layers of the kind that is to learn.
    """
    if tune == "all":
        return None
    head = [p for name, p in model.named_parameters() if p.requires_grad and is_head(name)]
    if not head:
        raise UserError.about(
            "tune", f"trains the head, and {type(model).__name__} has none that learns", remedy='--set tune="all"'
        )
    keys = LowRankKeys(kind="lora") if tune == "lora" else tune
    if isinstance(keys, LowRankKeys):
        body, named = _add_adapters(model, keys), f"adapters of rank {keys.rank}, alpha {keys.alpha:g}"
    elif keys == "norms":
        body, named = _find_norms(model, head), "normalisation layers"
    else:
        body, named = [], ""
    model.requires_grad_(False)
    for parameter in (*body, *head):
        parameter.requires_grad_(True)
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    what = f"{named} and the head" if named else "the head alone"
    return f"{count:,} of {count_parameters(model):,} parameters learn: {what}"


def _find_norms(model: nn.Module, head: list[nn.Parameter]) -> list[Tensor]:
    """Find the parameters of normalisation layers of the body that learn."""
    from sharpstudent.optim.cheap_sam import NORM_LAYERS, find_norm_parameters  # loaded only where it is asked for

    of_head = {id(p) for p in head}
    found = [p for p in find_norm_parameters(model) if id(p) not in of_head]
    if not found:
        raise UserError.about(
            'tune = "norms"',
            f"trains normalisation layers, and the body of {type(model).__name__} has none with parameters that learn",
            expected=f"layers such as {', '.join(NORM_LAYERS[:3])}",
            remedy='--set tune="head", or "all"',
        )
    return found


def _add_adapters(model: nn.Module, keys: LowRankKeys) -> list[Tensor]:
    """Give each linear layer of the body that learns an adapter; returns the parameters of all adapters."""
    layers = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.weight.requires_grad and not is_head(f"{name}.weight")
    ]
    if not layers:
        raise UserError.about(
            "tune, lora",
            f"adapts linear layers, and the body of {type(model).__name__} has none that learns",
            expected="a transformer, whose attention and MLP are linear layers",
            remedy='--set tune="norms", "head" or "all"',
        )
    name, smallest = min(layers, key=lambda layer: min(layer[1].weight.shape))
    if keys.rank > min(smallest.weight.shape):
        outputs, inputs = smallest.weight.shape
        raise UserError.about(
            "tune.rank",
            f"is above the size of the layer {name}, {outputs} x {inputs}: no product of two factors has such a rank",
            expected=f"at most {min(outputs, inputs)}; 4 to 32 is usual",
            got=str(keys.rank),
            remedy="lower it",
        )
    adapters = [LowRankUpdate(layer.weight, keys) for _, layer in layers]
    for (_, layer), adapter in zip(layers, adapters, strict=True):
        parametrize.register_parametrization(layer, "weight", adapter)
    return [p for adapter in adapters for p in adapter.parameters()]


@torch.no_grad()
def merge_state(model: nn.Module) -> dict[str, Tensor]:
    """The state of a model with its adapters merged: names, shapes and outputs of the plain model."""
    updates = ((name, _find_update(module)) for name, module in model.named_modules())
    adapted = {name: update for name, update in updates if update is not None}
    state: dict[str, Tensor] = {}
    for key, tensor in model.state_dict().items():
        name, _, part = key.partition(f".{ADAPTED}.")
        if name not in adapted or not part:
            state[key] = tensor
        elif part == "original":
            state[f"{name}.weight"] = adapted[name](tensor)
    return state


def _find_update(module: nn.Module) -> LowRankUpdate | None:
    """Find the adapter of a layer; other parametrisations, such as weight norm, are the model's own."""
    if not parametrize.is_parametrized(module, "weight"):
        return None
    first = next(iter(module.get_submodule(ADAPTED).children()), None)
    return first if isinstance(first, LowRankUpdate) else None


def start_training(model: nn.Module) -> None:
    """Put a model into training mode, except for parts of which no parameter learns.

    Those stay in evaluation mode: dropout off, statistics of BatchNorm as they are.
    """
    model.train()
    for module in model.modules():
        own = list(module.parameters())
        if own and not any(p.requires_grad for p in own):
            module.eval()
