"""Feature hooks: the outputs of layers by name, in every mode of a run, and nothing left behind."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import pytest
import torch
from sharpstudent.core.errors import UserError
from sharpstudent.models.forward import run_model, select_inputs
from sharpstudent.models.hooks import describe_layers, find_feature_hooks, hook_features, list_layers
from sharpstudent.models.teachers import FrozenTeacher
from sharpstudent.models.vision import EFFICIENTNET_B4, Classifier, build_classifier
from sharpstudent.optim.average import WeightAverage
from small_models import OTHER, SMALL, build_small
from torch import Tensor, nn

LAYERS = ["backbone.layer2", "backbone.layer4.0"]
NAMES = [f"features/{layer}" for layer in LAYERS]
IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def make_model(*, tapped: bool = True) -> Any:
    model = build_small(0)
    assert isinstance(model, Classifier)
    if tapped:
        hook_features(model, LAYERS)
    return model


def find_by_own_hooks(model: nn.Module, layers: list[str]) -> dict[str, Tensor]:
    """The layers' outputs, found independently."""
    found: dict[str, Tensor] = {}
    modules = dict(model.named_modules())
    handles = [
        modules[layer].register_forward_hook(lambda _, args, output, layer=layer: found.update({layer: output}))
        for layer in layers
    ]
    model(IMAGES)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("training", [False, True])
def test_a_hooked_model_gives_the_outputs_of_its_layers_and_the_same_logits(training: bool) -> None:
    plain, tapped = make_model(tapped=False).train(training), make_model().train(training)
    torch.manual_seed(3)
    expected = find_by_own_hooks(plain, LAYERS)
    plain = make_model(tapped=False).train(training)
    torch.manual_seed(3)
    logits = plain(IMAGES)["logits"]
    torch.manual_seed(3)
    outputs = tapped(IMAGES)
    assert torch.equal(outputs["logits"], logits)
    assert list(outputs) == ["logits", *NAMES]
    for layer in LAYERS:
        assert torch.equal(outputs[f"features/{layer}"], expected[layer])
        assert outputs[f"features/{layer}"].requires_grad
    assert list(plain(IMAGES)) == ["logits"]


def test_the_gradient_of_a_feature_reaches_the_layers_before_it_and_none_after() -> None:
    model = make_model().train()
    model(IMAGES)["features/backbone.layer2"].square().mean().backward()
    assert model.backbone.conv1[0].weight.grad is not None
    assert model.backbone.layer4[0].conv1.weight.grad is None


def test_nothing_is_kept_between_forwards() -> None:
    model = make_model()
    outputs = model(IMAGES)
    watched = [weakref.ref(tensor) for tensor in (outputs[name] for name in NAMES)]
    del outputs
    gc.collect()
    assert [reference() for reference in watched] == [None, None]


def test_a_forward_that_raises_leaves_nothing_for_the_next() -> None:
    model = make_model().eval()
    head = model.head
    model.head = nn.Linear(3, 2)  # does not fit: raises after both layers have run
    with pytest.raises(RuntimeError):
        model(IMAGES)
    assert model._feature_hooks._recorded == {}
    model.head = head
    later = model(2 * IMAGES)
    assert torch.equal(later[NAMES[0]], make_model().eval()(2 * IMAGES)[NAMES[0]])


def test_a_part_that_is_called_alone_collects_nothing() -> None:
    model = make_model()
    model.get_features(IMAGES)
    assert model._feature_hooks._recorded == {}


def test_a_copy_has_its_own_store_and_stays_hooked() -> None:
    model = make_model().eval()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for weight in twin.parameters():
            weight.mul_(0.5)
    model._feature_hooks._is_on = True  # so that it would record what is not its own
    theirs = twin(IMAGES)
    assert model._feature_hooks._recorded == {}
    assert list(theirs) == ["logits", *NAMES]
    ours = model(IMAGES)
    assert not torch.equal(ours[NAMES[0]], theirs[NAMES[0]])
    hook_features(twin, [])
    assert list(twin(IMAGES)) == ["logits"]
    assert list(model(IMAGES)) == ["logits", *NAMES]


def test_averaged_weights_of_a_hooked_student_follow_it_and_do_not_disturb_it() -> None:
    model = make_model()
    average = WeightAverage(model, decay=0.5)
    average.update(model)
    with torch.no_grad():
        averaged = average.model(IMAGES)
    assert average.model._feature_hooks is not model._feature_hooks
    assert set(averaged) <= {"logits", *NAMES}
    assert list(average.model.state_dict()) == list(model.state_dict())


def test_names_of_weights_stay_as_they_are() -> None:
    assert list(make_model().state_dict()) == list(make_model(tapped=False).state_dict())


def test_a_later_call_replaces_the_layers_and_leaves_no_hook() -> None:
    model = make_model()
    hook_features(model, ["backbone.layer3"])
    assert find_feature_hooks(model).layers == ("backbone.layer3",)
    assert list(model(IMAGES)) == ["logits", "features/backbone.layer3"]
    hook_features(model, [])
    assert find_feature_hooks(model) is None
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("name", "layers"),
    [(OTHER, ["backbone.blocks.1", "backbone.blocks.2.0"]), (EFFICIENTNET_B4, ["net._blocks.1", "net._blocks.31"])],
)
def test_checkpointed_blocks_give_the_same_features_gradients_and_no_leftovers(name: str, layers: list[str]) -> None:
    results: list[tuple[list[Tensor], list[Tensor]]] = []
    for checkpointed in (False, True):
        model: Any = build_small(0, name)
        hook_features(model, layers)
        if checkpointed:
            model.enable_gradient_checkpointing()
        model.train()
        torch.manual_seed(1)
        outputs = model(IMAGES)
        features = [outputs[f"features/{layer}"] for layer in layers]
        (outputs["logits"].square().mean() + sum(feature.square().mean() for feature in features)).backward()
        assert model._feature_hooks._recorded == {}  # the blocks were computed again in backward
        results.append(([f.detach() for f in features], [p.grad for p in model.parameters() if p.grad is not None]))
    (features, gradients), (others, other_gradients) = results
    assert all(torch.equal(a, b) for a, b in zip(features, others, strict=True))
    for a, b in zip(gradients, other_gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_compiled_model_gives_the_features_of_the_plain_one() -> None:
    plain = make_model().eval()
    compiled = make_model().eval()
    compiled.compile(backend="eager")
    for images in (IMAGES, 0.5 * IMAGES):
        ours, theirs = plain(images), compiled(images)
        assert list(theirs) == ["logits", *NAMES]
        for layer in LAYERS:
            torch.testing.assert_close(theirs[f"features/{layer}"], ours[f"features/{layer}"])
    assert compiled._feature_hooks._recorded == {}


def test_a_frozen_teacher_passes_the_features_on_without_a_graph() -> None:
    model = make_model()
    outputs = FrozenTeacher(model)(image=IMAGES)
    assert list(outputs) == ["logits", *NAMES]
    assert not any(feature.requires_grad for feature in outputs.values())


@pytest.mark.parametrize(
    ("requested", "offered"),
    [("layer2", "backbone.layer2"), ("backbone.layr2", "backbone.layer2"), ("", "--list-layers")],
)
def test_an_unknown_layer_is_refused_with_the_nearest_names(requested: str, offered: str) -> None:
    model = make_model()
    with pytest.raises(UserError) as caught:
        hook_features(model, ["backbone.layer3", requested])
    assert offered in (caught.value.problems[0].remedy or "")
    assert find_feature_hooks(model).layers == tuple(LAYERS)  # as before


def test_a_layer_whose_output_is_no_tensor_is_refused() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    model = make_model(tapped=False)
    pair = Pair()
    model.head = nn.Sequential(pair, _First(), model.head)
    hook_features(model, ["head.0"])
    with pytest.raises(UserError, match="output is no tensor"):
        model(IMAGES)


class _First(nn.Module):
    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        return pair[0]


def test_a_layer_that_is_never_called_is_refused() -> None:
    model = make_model(tapped=False)
    model.spare = nn.Linear(2, 2)
    hook_features(model, ["spare"])
    with pytest.raises(UserError, match="does not call it"):
        model(IMAGES)


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        (EFFICIENTNET_B4, 380, {"net._blocks.0": (1, 24, 190, 190), "net._blocks.31": (1, 448, 12, 12)}),
        ("mobilevitv2_200", 64, {"backbone.stages.4": (1, 1024, 2, 2), "backbone.stages.4.1": (1, 1024, 2, 2)}),
        ("test_vit", 160, {"backbone.blocks.5": (1, 101, 64)}),
        ("test_convnext", 64, {"backbone.stages.3": (1, 64, 2, 2)}),
    ],
)
def test_layers_are_listed_by_block_with_their_shapes(name: str, size: int, expected: dict[str, Any]) -> None:
    model = build_classifier(name, classes=2, dropout=0.3)
    layers = dict(list_layers(model, {"image": torch.rand(1, 3, size, size)}))
    assert expected.items() <= layers.items()
    assert len(layers) < len(list(model.modules())) / 3  # blocks, not every activation
    hook_features(model, list(layers))  # each name is one that can be tapped
    with torch.no_grad():
        outputs = model.eval()(torch.rand(1, 3, size, size))
    found = {name: tuple(tensor.shape) for name, tensor in outputs.items() if name != "logits"}
    assert found == {f"features/{layer}": shape for layer, shape in layers.items()}


def test_listing_layers_moves_neither_modes_nor_statistics_nor_random_states() -> None:
    model = build_small(0, SMALL).train()
    model.backbone.bn_frozen = nn.BatchNorm2d(2).eval()  # type: ignore[union-attr]
    modes = [module.training for module in model.modules()]
    state, before = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    assert list_layers(model, {"image": IMAGES[:1]})
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_layers_are_printed_in_columns_for_a_batch() -> None:
    assert describe_layers([("a.b", (1, 24, 7, 7)), ("c", (1, 5, 8))]) == ["a.b  (B, 24, 7, 7)", "c    (B, 5, 8)"]


class Signal(nn.Module):
    """No picture and no class of ours: a convolution over sequences, two inputs, and a dictionary of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU())
        self.out = nn.Linear(4, 3)
        self.fails = False

    def forward(self, wave: Tensor, gain: Tensor | None = None) -> dict[str, Tensor]:
        x = self.net(wave if gain is None else wave * gain)
        if self.fails:
            raise RuntimeError("on purpose")
        return {"scores": self.out(x.mean(2)), "aux.0": x.mean(2)}


def test_any_module_can_be_hooked_and_goes_on_after_an_exception() -> None:
    model, wave = Signal(), torch.rand(2, 1, 16)
    hook_features(model, ["net", "net.0"])
    outputs = run_model(model, {"wave": wave, "other": wave})
    assert list(outputs) == ["scores", "aux.0", "features/net.0", "features/net"]
    assert torch.equal(outputs["features/net"], outputs["features/net.0"].relu())
    model.fails = True
    with pytest.raises(RuntimeError, match="on purpose"):
        model(wave)
    hooks = find_feature_hooks(model)
    assert hooks is not None
    assert hooks._recorded == {}
    model.fails = False
    twin = copy.deepcopy(model)
    twin.compile(backend="eager")
    again = twin(wave=2 * wave)
    torch.testing.assert_close(again["features/net.0"], model(2 * wave)["features/net.0"])
    assert list(again) == list(model(wave))
    assert hooks._recorded == {}


def test_a_model_is_given_what_its_forward_names_and_nothing_else() -> None:
    model, inputs = Signal(), {"wave": torch.rand(2, 1, 16), "image": torch.rand(2, 3), "gain": torch.tensor(2.0)}
    assert select_inputs(model, inputs).keys() == {"wave", "gain"}
    expected = model(2.0 * inputs["wave"])["scores"]
    torch.testing.assert_close(run_model(model, inputs)["scores"], expected)
    del inputs["gain"]  # it has a default
    torch.testing.assert_close(run_model(model, inputs)["scores"], model(inputs["wave"])["scores"])


def test_an_input_that_the_batch_lacks_is_reported_with_what_there_is() -> None:
    with pytest.raises(UserError, match=r"Signal\.forward: reads wave, gain, and the batch has image: wave is missing"):
        run_model(Signal(), {"image": torch.rand(2, 3)})


def test_a_model_that_gives_no_dictionary_is_refused_with_what_to_return() -> None:
    class Bare(nn.Module):
        def forward(self, wave: Tensor) -> Tensor:
            return wave

    with pytest.raises(UserError, match=r"Bare\.forward: must return a dictionary(.|\n)*Tensor(.|\n)*logits"):
        run_model(Bare(), {"wave": torch.rand(2, 3)})


def test_a_model_that_takes_any_input_gets_all_of_them() -> None:
    class Anything(nn.Module):
        def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
            return inputs

    inputs = {"a": torch.rand(2), "b": torch.rand(2)}
    assert run_model(Anything(), inputs).keys() == {"a", "b"}


def test_a_model_without_blocks_lists_every_layer_that_has_a_map() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = model

        def forward(self, image: Tensor) -> dict[str, Tensor]:
            return {"logits": self.body(image)}

    listed = list_layers(Plain(), {"image": torch.rand(2, 1, 8, 8)})
    assert [name for name, _ in listed] == ["body.0", "body.1", "body.2"]
    assert listed[0][1] == (2, 2, 6, 6)
