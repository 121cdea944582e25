"""Heat maps: they light the place that speaks for a fake, and leave the model as it was."""

from __future__ import annotations

import builtins
import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from sharpstudent.core.errors import UserError
from sharpstudent.core.types import Batch
from sharpstudent.deploy.heat_map import HighestPicture, compute_heat_maps, explain_no_heat_maps
from sharpstudent.evaluation.load_model import OpenedClassifier
from sharpstudent.models.vision import Classifier, PicturePreprocess, build_classifier
from torch import Tensor, nn

SIDE = 64


def need_grad_cam() -> None:
    pytest.importorskip("pytorch_grad_cam", reason='heat maps need the extra: pip install ".[heatmaps]"')


class BrightSpots(Classifier):
    """Fake is the mean over 8 x 8 px cells of what is brighter than 0.5; real is 0. The map has 8 x 8 cells."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.Conv2d(3, 1, 8, stride=8, bias=False)
        self.fires = nn.ReLU()
        self.head = nn.Linear(1, 2, bias=False)
        nn.init.constant_(self.cells.weight, 1 / (3 * 64))
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[0.0], [10.0]]))

    def get_features(self, images: Tensor) -> Tensor:
        return self.fires(self.cells(images) - 0.5)

    def compute_logits(self, images: Tensor) -> Tensor:
        return self.head(self.get_features(images).mean((2, 3)))

    def enable_gradient_checkpointing(self) -> None:
        raise NotImplementedError


def draw_spots(*corners: tuple[int, int]) -> Tensor:
    """Dark pictures, each with a bright square of 16 px; corners: its top left one."""
    images = torch.full((len(corners), 3, SIDE, SIDE), 0.2)
    for image, (top, left) in zip(images, corners, strict=True):
        image[:, top : top + 16, left : left + 16] = 1.0
    return images


@pytest.mark.parametrize("batch_size", [1, 16])
def test_the_map_is_bright_where_the_evidence_is_and_dark_elsewhere(batch_size: int) -> None:
    need_grad_cam()
    corners = [(8, 8), (40, 8), (24, 48)]
    maps = compute_heat_maps(BrightSpots(), draw_spots(*corners), batch_size=batch_size, target=1)
    assert maps is not None
    assert maps.shape == (3, SIDE, SIDE)
    assert maps.dtype == np.float32
    for heat, (top, left) in zip(maps, corners, strict=True):
        inside = heat[top + 2 : top + 14, left + 2 : left + 14]
        outside = heat.copy()
        outside[max(0, top - 6) : top + 22, max(0, left - 6) : left + 22] = 0.0
        assert inside.min() > 0.6
        assert outside.max() < 1e-6
        assert heat.max() == pytest.approx(1.0, abs=1e-5)


def test_what_speaks_for_real_is_not_lit() -> None:
    need_grad_cam()
    model = BrightSpots()
    with torch.no_grad():
        model.head.weight.neg_()
    maps = compute_heat_maps(model, draw_spots((8, 8)), target=1)
    assert maps is not None
    assert not maps.any()
    turned = compute_heat_maps(model, draw_spots((8, 8)), target=0)
    assert turned is not None
    assert turned.max() > 0.9


@pytest.mark.parametrize("target", [0, 1])
def test_the_highest_of_all_batches_is_drawn_and_no_map_without_evidence(target: int) -> None:
    need_grad_cam()
    model, spots = BrightSpots(), draw_spots((8, 8), (40, 8))
    highest = HighestPicture("images", "logits", target)
    for picture in (spots[:1] * 0.9, spots[1:], torch.full((1, 3, SIDE, SIDE), 0.2)):
        logits = model.compute_logits(picture).detach().numpy()
        highest.watch(Batch(inputs={"images": picture}, rows={"id": ("a",)}), {"logits": logits})
    drawn = highest.draw(model)
    assert drawn is not None
    plain, heat, of = drawn
    shown = np.asarray(Image.open(io.BytesIO(plain)))
    assert (of, heat is None) == (target, target == 0)  # nothing in a picture speaks for real
    assert (shown.max() > 250) == (target == 1)


def test_an_opened_model_has_maps_through_its_adaptation() -> None:
    need_grad_cam()
    model = BrightSpots()
    model.preprocess = PicturePreprocess(mean=(0.1,) * 3, std=(0.8,) * 3)
    teacher = OpenedClassifier(model, order=(1, 0))
    maps = compute_heat_maps(teacher, draw_spots((40, 40)), target=0)
    assert maps is not None
    assert np.unravel_index(maps[0].argmax(), maps[0].shape) >= (40, 40)
    assert maps[0][:32, :32].max() < 1e-6


@pytest.mark.parametrize(
    "build", [BrightSpots, lambda: build_classifier("tf_efficientnet_lite0", classes=2, dropout=0.3)]
)
def test_weights_gradients_modes_and_buffers_are_those_from_before(build: Callable[[], nn.Module]) -> None:
    need_grad_cam()
    model = build().train()
    next(model.children()).eval()
    weights = list(model.parameters())
    weights[0].requires_grad_(False)
    for weight in weights[1:]:
        weight.grad = torch.ones_like(weight)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    hooks = [len(module._forward_hooks) for module in model.modules()]
    state = torch.get_rng_state()
    compute_heat_maps(model, draw_spots((8, 8)), target=1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    assert [weight.requires_grad for weight in weights] == [False, *[True] * (len(weights) - 1)]
    assert weights[0].grad is None
    assert all(weight.grad is not None and bool((weight.grad == 1).all()) for weight in weights[1:])
    assert torch.equal(torch.get_rng_state(), state)


def test_an_error_inside_leaves_the_model_as_it_was() -> None:
    need_grad_cam()
    model = BrightSpots().train()
    with pytest.raises(RuntimeError):
        compute_heat_maps(model, torch.zeros(1, 5, SIDE, SIDE), target=1)
    assert model.training
    assert all(weight.requires_grad for weight in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_pictures_of_inference_mode_and_no_pictures_are_taken() -> None:
    need_grad_cam()
    model = BrightSpots()
    with torch.inference_mode():
        images = draw_spots((8, 8)) * 1.0
        maps = compute_heat_maps(model, images, target=1)
    assert maps is not None
    assert maps.max() > 0.9
    empty = compute_heat_maps(BrightSpots(), images[:0], target=1)
    assert empty is not None
    assert empty.shape == (0, SIDE, SIDE)


@pytest.mark.parametrize(
    "name", ["tf_efficientnet_lite0", "mobilevitv2_050", "mobilenetv3_small_050", "vit_tiny_patch16_224"]
)
def test_architectures_of_several_forms_have_maps(name: str) -> None:
    need_grad_cam()
    torch.manual_seed(0)
    size = 224 if name.startswith("vit") else SIDE
    model = build_classifier(name, classes=2, dropout=None)
    assert explain_no_heat_maps(model, side=size, target=1) is None
    images = torch.rand(2, 3, size, size)
    one, other = (compute_heat_maps(model, images, target=target) for target in (0, 1))
    assert one is not None
    assert other is not None
    assert one.shape == other.shape == (2, size, size)
    assert min(one.min(), other.min()) >= 0.0
    assert 0.9 < max(one.max(), other.max()) <= 1.0


class Foreign(nn.Module):
    """As an ONNX file: pictures in, logits out, and nothing that torch could differentiate."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.zeros(len(images), 2)


class Blind(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * SIDE * SIDE, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.flatten(1))


@pytest.mark.parametrize(("model", "why"), [(Foreign(), "ONNX"), (Blind(), "no|none of its layers gives a grid")])
def test_a_model_that_can_have_no_maps_says_why(model: nn.Module, why: str) -> None:
    reason = explain_no_heat_maps(model, side=SIDE, target=1)
    assert reason is not None
    assert any(part in reason for part in why.split("|"))
    need_grad_cam()
    assert compute_heat_maps(model, draw_spots((8, 8)), target=1) is None


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    find = builtins.__import__

    def refuse(name: str, *rest: object, **named: object) -> object:
        if name == "pytorch_grad_cam":
            raise ImportError("no module named pytorch_grad_cam")
        return find(name, *rest, **named)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UserError, match="pip install grad-cam~="):
        compute_heat_maps(BrightSpots(), draw_spots((8, 8)), target=1)
