"""Heat maps of where in a picture a model sees evidence for a class, through the `grad-cam` package (extra `heatmaps`).

The method is Grad-CAM (Selvaraju et al., ICCV 2017) of the log-odds of that class. A map shows where the last feature
map is evidence for the class, at that map's resolution (a few cells a side). It is scaled so that its highest value is
1, so it does not show how sure the model is.

Legend: B images, C channels, h x w a grid of features, N tokens of width D, H x W pixels.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Generator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from sharpstudent.core.arguments import advise_extra
from sharpstudent.core.errors import UserError
from sharpstudent.core.types import Batch
from sharpstudent.models.forward import evaluation_mode

# The layer whose output is used, and what turns that output into (B, C, h, w); None where it has this shape already.
_Layer = tuple[nn.Module, Callable[[Tensor], Tensor] | None]


def compute_heat_maps(
    model: nn.Module, images: Tensor, *, target: int, batch_size: int = 16
) -> NDArray[np.float32] | None:
    """Compute the heat maps of one class.

    Weights, gradients, modes, buffers and `requires_grad` of the model are restored afterwards, also after an error.

    Args:
        model: images -> `Outputs` or logits; logits (B, classes).
        images: (B, 3, H, W) float32, 0 to 1.
        target: The number of the class.
        batch_size: How many images go through the model at once.

    Returns:
        Maps (B, H, W) float32, 0 to 1; all 0 where nothing in the last feature map is evidence for the class. None
        where `explain_no_heat_maps` gives a reason.

    Raises:
        UserError: Where the extra `heatmaps` is not installed.
    """
    grad_cam = _import_grad_cam()
    if len(images) == 0:
        return np.zeros((0, *images.shape[2:]), np.float32)
    with _restored(model), torch.inference_mode(False), torch.enable_grad():
        evidence = _Evidence(model, target)
        device = _find_device(model)
        layer = _find_layer(evidence, images[:1].clone().to(device))
        if isinstance(layer, str):
            return None
        module, to_grid = layer
        targets = [lambda log_odds: log_odds] * batch_size
        cam = grad_cam(model=evidence, target_layers=[module], reshape_transform=to_grid)
        try:  # not by `with cam`, which swallows an IndexError
            maps = [
                cam(input_tensor=part.clone().to(device).requires_grad_(), targets=targets[: len(part)])
                for part in images.detach().split(batch_size)
            ]
        finally:
            cam.activations_and_grads.release()
    return np.clip(np.concatenate(maps), 0.0, 1.0).astype(np.float32, copy=False)


class HighestPicture:
    """Keeps the picture that is the strongest evidence for a class while batches pass, and draws its heat map.

    Attributes:
        score: The log-odds of the class for the picture that is kept.
    """

    def __init__(self, picture: str, scores: str, target: int | None) -> None:
        """Begin without a picture.

        Args:
            picture: The name of the input that holds pictures, as in `ExportSpec`.
            scores: The name of the output of logits.
            target: The number of the class; None for the likeliest class of each picture.
        """
        self._picture, self._scores, self._target = picture, scores, target
        self.reset()

    def reset(self) -> None:
        """Forget the picture."""
        self.score, self._kept = -math.inf, None

    def watch(self, batch: Batch, outputs: Mapping[str, Any]) -> None:
        """Look at a batch.

        Args:
            batch: The batch, its pictures (R, 3, S, S) in 0..1, or views of them (R, V, 3, S, S), of which the first is
                drawn.
            outputs: The model's outputs by name, logits (R, C) among them.
        """
        if self._picture not in batch.inputs or self._scores not in outputs:
            return
        logits = outputs[self._scores].astype(np.float64)
        total = np.logaddexp.reduce(logits, axis=1)
        targets = logits.argmax(axis=1) if self._target is None else np.full(len(logits), self._target)
        shares = logits[np.arange(len(logits)), targets] - total
        row = int(shares.argmax())
        if shares[row] > self.score:
            self.score = float(shares[row])
            picture = batch.inputs[self._picture][row : row + 1]
            self._kept = ((picture[:, 0] if picture.ndim == 5 else picture).detach().clone(), int(targets[row]))

    def draw(self, model: nn.Module) -> tuple[bytes, bytes | None, int] | None:
        """Draw the picture, and the picture under its heat map.

        Args:
            model: The model, as in `compute_heat_maps`.

        Returns:
            Both as PNG, the second None where nothing is evidence for the class, and the number of the class. None
            where there is no picture, or no heat map of this model.
        """
        if self._kept is None:
            return None
        from matplotlib import colormaps

        picture, target = self._kept
        maps = compute_heat_maps(model, picture, target=target)
        if maps is None:
            return None
        plain = picture[0].permute(1, 2, 0).cpu().numpy()
        if not maps.any():
            return _to_png(plain), None, target
        heat = maps[0][..., None]
        colours = colormaps["inferno"](maps[0])[..., :3]
        return _to_png(plain), _to_png(plain * (1.0 - 0.6 * heat) + colours * 0.6 * heat), target


def _to_png(picture: NDArray[Any]) -> bytes:
    """Write a picture (H, W, 3) in 0..1 as PNG."""
    file = io.BytesIO()
    Image.fromarray(np.clip(255 * picture, 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def explain_no_heat_maps(model: nn.Module, *, side: int, target: int) -> str | None:
    """Say why a model can have no heat maps.

    Args:
        model: The model, as in `compute_heat_maps`.
        side: Pixels a side of its pictures.
        target: The number of the class.

    Returns:
        The reason; None where it can have heat maps.
    """
    with _restored(model), torch.inference_mode(False), torch.enable_grad():
        picture = torch.zeros(1, 3, side, side, device=_find_device(model))
        found = _find_layer(_Evidence(model, target), picture)
    return found if isinstance(found, str) else None


class _Evidence(nn.Module):
    """A model with the log-odds of one class as its output (B,): log p - log(1 - p)."""

    def __init__(self, model: nn.Module, target: int) -> None:
        super().__init__()
        self.model, self.target = model, target

    def forward(self, images: Tensor) -> Tensor:
        outputs: Any = self.model(images)
        logits: Tensor = outputs if isinstance(outputs, Tensor) else outputs["logits"]
        others = [place for place in range(logits.shape[1]) if place != self.target]
        return logits[:, self.target] - logits[:, others].logsumexp(dim=1)


def _find_layer(evidence: _Evidence, image: Tensor) -> _Layer | str:
    """Find the last layer whose output is the last feature map, or why there is none; image: (1, 3, H, W)."""
    if next(evidence.parameters(), None) is None:
        return "torch holds none of its weights (as with an ONNX file), so no gradient flows through it"
    calls, log_odds = _record(evidence, image)
    if not log_odds.requires_grad:
        return "no gradient flows through it"
    shape = _find_feature_shape(evidence.model, image)
    if shape is not None and len(shape) == 3:
        return _find_token_layer(evidence, shape, calls)
    ends_in_channels = any(getattr(module, "output_fmt", None) == "NHWC" for module in evidence.modules())
    for module, found in reversed(calls):
        is_map = len(found) == 4 and min(found[1:3] if ends_in_channels else found[2:]) > 1
        # A layer that runs more than once, such as a shared activation, has several outputs.
        if is_map and shape in (None, found) and [one for one, _ in calls].count(module) == 1:
            return module, (lambda features: features.permute(0, 3, 1, 2)) if ends_in_channels else None
    return "none of its layers gives a grid of features"


def _record(evidence: _Evidence, image: Tensor) -> tuple[list[tuple[nn.Module, tuple[int, ...]]], Tensor]:
    """Run the model; return its layers with their output shapes, in the order in which they ended, and the log-odds."""
    calls: list[tuple[nn.Module, tuple[int, ...]]] = []

    def _note(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and module is not evidence:
            calls.append((module, tuple(output.shape)))

    handles = [module.register_forward_hook(_note) for module in evidence.modules()]
    try:
        return calls, evidence(image.requires_grad_())
    finally:
        for handle in handles:
            handle.remove()


def _find_feature_shape(model: nn.Module, image: Tensor) -> tuple[int, ...] | None:
    """Find the shape of the last feature map by the model's own `get_features`; None for a model without one."""
    for module in model.modules():
        get_features = getattr(module, "get_features", None)
        if callable(get_features):
            with torch.no_grad():
                features = get_features(image)
            return tuple(features.shape) if isinstance(features, Tensor) else None
    return None


def _find_token_layer(
    evidence: _Evidence, shape: tuple[int, ...], calls: list[tuple[nn.Module, tuple[int, ...]]]
) -> _Layer | str:
    """Find the layer of a plain vision transformer, whose features are (1, N, D): the first norm of its last block.

    The output of that block is too late: there the class token has already collected what the other tokens carry.
    """
    known = [(module, int(getattr(module, "num_prefix_tokens", 0))) for module in evidence.modules()]
    owner, prefix = next(((m, n) for m, n in known if hasattr(m, "num_prefix_tokens")), (None, 0))
    side = math.isqrt(shape[1] - prefix)
    blocks = getattr(owner, "blocks", None)
    norm = getattr(blocks[-1], "norm1", None) if isinstance(blocks, nn.Sequential | nn.ModuleList) else None
    if side * side != shape[1] - prefix or (norm, shape) not in calls:
        return "its features are tokens of no square grid"
    assert isinstance(norm, nn.Module)
    return norm, (lambda tokens: tokens[:, prefix:].transpose(1, 2).unflatten(2, (side, side)))


def _find_device(model: nn.Module) -> torch.device:
    return next(model.parameters(), torch.empty(0)).device


@contextlib.contextmanager
def _restored(model: nn.Module) -> Generator[None]:
    """Put the model in evaluation mode and turn off the gradients of its weights; restore everything afterwards."""
    weights = [(weight, weight.requires_grad, weight.grad) for weight in model.parameters()]
    try:
        with evaluation_mode(model):
            model.requires_grad_(False)
            yield
    finally:
        for weight, needs, gradient in weights:
            weight.requires_grad_(needs)
            weight.grad = gradient


def _import_grad_cam() -> Any:
    try:
        from pytorch_grad_cam import GradCAM  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError.about(
            where="heat maps",
            what=f"need the package grad-cam, which cannot be imported ({error})",
            remedy=f"{advise_extra('heatmaps')}, or leave the heat maps out",
        ) from None
    return GradCAM
