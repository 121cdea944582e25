"""What of a model learns: which parameters, that the rest keeps its bits, and that adapters are merged exactly."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from sharpstudent.config.run_config import LowRankKeys, Tune
from sharpstudent.core.errors import UserError
from sharpstudent.core.types import Batch
from sharpstudent.models.vision import Classifier, build_classifier
from sharpstudent.models.weights import load_weights
from sharpstudent.optim.average import WeightAverage
from sharpstudent.optim.build import build_optimizer
from sharpstudent.train.step import TrainStep
from sharpstudent.train.tuning import merge_state, start_training, tune_model
from tiny_models import START, build_batch, make_criterion
from tiny_runs import make_config
from torch import Tensor, nn

SIDE = 32
LORA = LowRankKeys(kind="lora", rank=4, alpha=8.0)
HEAD = {"head.1.weight", "head.1.bias"}
LINEAR = r"backbone\.blocks\.\d\.(attn\.(qkv|proj)|mlp\.fc\d)\."
TUNES: list[Tune] = ["norms", LORA, "head"]


def build(name: str = "test_vit", seed: int = 1, **options: Any) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_classifier(name, classes=2, dropout=0.0, options=options, side=SIDE)


def make_pictures(seed: int = 0, count: int = 4) -> Batch:
    images = torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    return build_batch(images, torch.arange(count) % 2)


def list_learning(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def take_steps(model: nn.Module, count: int = 2, **settings: Any) -> TrainStep:
    """Steps of AdamW with SAM, weight decay, clipping, a factor of the rate, and an average."""
    keys = {"weight_decay": 0.1, "lr_factors": {"head.*": 3.0}, "rho": 0.05, "clip_norm": 0.5, "lr": 0.01}
    section = make_config(**keys).optimizer.model_copy(update={"base": "adamw"})
    average = WeightAverage(model, decay=0.9)
    step = TrainStep(
        model,
        None,
        make_criterion(hard=1.0, kd=None),
        build_optimizer(section, model),
        0.5,
        average=average,
        **settings,
    )
    start_training(model)
    for number in range(count):
        assert step(make_pictures(number), START).ok
    return step


def copy_state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize(
    ("tune", "fits"),
    [
        ("norms", lambda name: re.fullmatch(r"backbone\.(blocks\.\d\.norm[12]|norm)\.(weight|bias)", name)),
        ("lora", lambda name: re.fullmatch(LINEAR + r"parametrizations\.weight\.0\.(down|up)", name)),
        ("head", lambda name: False),
    ],
)
def test_each_mode_trains_what_its_name_says_and_the_head(tune: Tune, fits: Callable[[str], Any]) -> None:
    model = build()
    line = tune_model(model, tune)
    names = [name for name, _ in model.named_parameters()]
    assert list_learning(model) == {name for name in names if fits(name)} | HEAD
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert str(line).startswith(f"{count:,} of {sum(p.numel() for p in model.parameters()):,} parameters learn: ")


def test_all_is_the_model_as_it_was() -> None:
    model = build()
    assert tune_model(model, "all") is None
    assert list_learning(model) == {name for name, _ in build().named_parameters()}


@pytest.mark.parametrize("tune", TUNES, ids=str)
@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet"])
def test_what_does_not_learn_keeps_its_bits_through_steps_with_sam_decay_and_an_average(name: str, tune: Tune) -> None:
    if tune == LORA and name == "test_efficientnet":
        pytest.skip("it has no linear layer in its body")
    model = build(name)
    tune_model(model, tune)
    before, learning = copy_state(model), list_learning(model)
    step = take_steps(model)
    counters = {key for key in before if tune == "norms" and key.rpartition(".")[2] not in ("weight", "bias")}
    assert step.average is not None
    for state in (model.state_dict(), step.average.model.state_dict()):
        changed = {key for key, tensor in state.items() if not torch.equal(tensor, before[key])}
        assert changed - counters == learning  # with norms, BatchNorm's statistics follow the data
    assert {id(p) for p in step.optimizer.parameters} == {id(p) for p in model.parameters() if p.requires_grad}
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


def test_a_frozen_body_stays_in_evaluation_mode_and_one_that_learns_does_not() -> None:
    model = build("test_efficientnet")
    tune_model(model, "norms")
    start_training(model)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert all(module.training for module in norms)
    tune_model(model, "head")
    start_training(model)
    assert model.training
    assert model.head.training  # type: ignore[union-attr]
    assert not any(module.training for module in model.backbone.modules())  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["test_vit", "beit_tiny"])
def test_adapters_begin_as_the_plain_model_learn_and_merge_to_the_same_bits(name: str) -> None:
    """Also where attention reads `qkv.weight` itself, as in BEiT."""
    plain, batch = build(), make_pictures()
    if name != "test_vit":
        with torch.random.fork_rng():
            plain.backbone = timm.create_model(  # type: ignore[assignment]
                "beit_base_patch16_224", num_classes=0, img_size=SIDE, embed_dim=64, depth=2, num_heads=2
            )
    plain.eval()
    model = copy.deepcopy(plain)
    tune_model(model, LORA)
    model.eval()
    with torch.no_grad():
        assert torch.equal(model(**batch.inputs)["logits"], plain(**batch.inputs)["logits"])
    step = take_steps(model)
    ups = {name: p for name, p in model.named_parameters() if name.endswith(".up")}
    assert ups
    assert all(p.abs().max() > 0 for p in ups.values()), "an adapter without gradient"
    assert step.average is not None
    for trained in (model.eval(), step.average.model):
        load_weights(plain, merge_state(trained), where="merged", needs_head=True)
        with torch.no_grad():
            assert torch.equal(plain(**batch.inputs)["logits"], trained(**batch.inputs)["logits"])
    assert merge_state(plain).keys() == plain.state_dict().keys()


def test_an_adapter_is_the_product_of_its_factors() -> None:
    model = build()
    weight = model.backbone.blocks[0].attn.qkv.weight.clone()  # type: ignore[union-attr, index]
    tune_model(model, LORA)
    layer = model.backbone.blocks[0].attn.qkv  # type: ignore[union-attr, index]
    factors = layer.parametrizations.weight[0]
    nn.init.normal_(factors.up)
    torch.testing.assert_close(layer.weight, weight + 8.0 / 4 * factors.up @ factors.down, rtol=0, atol=1e-6)
    assert torch.linalg.matrix_rank(layer.weight - weight, rtol=1e-4) == 4


@pytest.mark.parametrize("tune", TUNES, ids=str)
def test_gradients_are_those_of_the_whole_model_where_something_learns(tune: Tune) -> None:
    """Also with gradient checkpointing, whose inputs need no gradient when the patches' layer is frozen."""
    grads: list[dict[str, Tensor]] = []
    for way in ("all", "tuned", "checkpointed"):
        model = build()
        if way != "all":
            torch.manual_seed(3)
            tune_model(model, tune)
        if way == "checkpointed":
            model.enable_gradient_checkpointing()
        start_training(model)
        batch = make_pictures()
        nn.functional.cross_entropy(model(**batch.inputs)["logits"], batch.targets["label"]).backward()
        grads.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    whole, tuned, checkpointed = grads
    assert tuned.keys() == checkpointed.keys()
    for name, grad in tuned.items():
        torch.testing.assert_close(checkpointed[name], grad)
        if name in whole:
            torch.testing.assert_close(whole[name], grad)


@pytest.mark.parametrize(
    ("name", "tune", "words"),
    [
        ("test_efficientnet", "lora", "adapts linear layers"),
        ("test_vit", LowRankKeys(kind="lora", rank=65), r"192 x 64.*at most 64.*got: 65"),
    ],
)
def test_adapters_that_cannot_be_are_refused(name: str, tune: Tune, words: str) -> None:
    with pytest.raises(UserError) as caught:
        tune_model(build(name), tune)
    assert re.search(words, caught.value.as_text(), re.DOTALL)


def test_norms_of_a_body_without_any_and_a_model_without_a_head_are_refused() -> None:
    bare = nn.Sequential()
    bare.add_module("body", nn.Linear(3, 4))
    bare.add_module("head", nn.Linear(4, 2))
    with pytest.raises(UserError, match="has none with parameters that learn"):
        tune_model(bare, "norms")
    with pytest.raises(UserError, match="has none that learns"):
        tune_model(nn.Sequential(nn.Linear(3, 4)), "head")


def test_parts_that_are_frozen_already_get_no_adapters() -> None:
    model = build()
    model.backbone.requires_grad_(False)  # type: ignore[union-attr]
    with pytest.raises(UserError, match="has none that learns"):
        tune_model(model, "lora")


def test_features_of_unit_norm_reach_the_head_whatever_their_scale() -> None:
    model, batch, seen = build(unit_norm=True).eval(), make_pictures(), list[Tensor]()
    model.head[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))  # type: ignore[index]
    with torch.no_grad():
        first = model(**batch.inputs)["logits"]
        model.backbone.norm.weight.mul_(7.0)  # type: ignore[union-attr]
        model.backbone.norm.bias.mul_(7.0)  # type: ignore[union-attr]
        torch.testing.assert_close(model(**batch.inputs)["logits"], first)
    torch.testing.assert_close(seen[0].norm(dim=1), torch.ones(4))
    for name, options in (("test_vit", {"unit_norm": 1}), ("efficientnet-b4", {"unit_norm": True})):
        with pytest.raises(UserError, match="unit_norm"):
            build_classifier(name, classes=2, dropout=None, options=options)
