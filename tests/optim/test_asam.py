"""ASAM's ascent e = rho T^2 g / ||T g||, T = |w| + 0.01 on weights and 1 on biases, against NumPy in float64.

Of the optimisers in pytorch-optimizer none is this one: their `adaptive=True` takes T = |w| for every parameter, biases
too, with no floor, so that a weight of 0 never moves (Kwon et al., section 3, add the floor; their code leaves biases
at T = 1).
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sharpstudent.optim.build import find_weights
from sharpstudent.optim.sam import SAM
from torch import Tensor, nn

ETA = 0.01  # written out: the tests must not follow a change of the constant


class Model(nn.Module):
    """Weights, a norm layer's scale and shift, a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 2)


def make_model(seed: int = 0, dtype: torch.dtype = torch.float64) -> Model:
    generator, model = torch.Generator().manual_seed(seed), Model().to(dtype)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64))
            p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(dtype)
    return model


def make_asam(model: nn.Module, rho: float = 0.5) -> SAM:
    return SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=rho, adaptive=find_weights(model))


def ascend(model: nn.Module, rho: float = 0.5) -> dict[str, Tensor]:
    """e by parameter, with the gradients in place."""
    sam, before = make_asam(model, rho), {name: p.detach().clone() for name, p in model.named_parameters()}
    with sam.perturbed(sam.compute_grad_norm()):
        return {name: p.detach() - before[name] for name, p in model.named_parameters()}


def compute_by_hand(model: nn.Module, rho: float) -> dict[str, np.ndarray]:
    w = {name: p.detach().double().numpy() for name, p in model.named_parameters()}
    g = {name: p.grad.double().numpy() for name, p in model.named_parameters()}
    biases = {"conv.bias", "norm.bias", "head.bias"}
    t = {name: np.ones_like(w[name]) if name in biases else np.abs(w[name]) + ETA for name in w}
    norm = np.sqrt(sum(((t[name] * g[name]) ** 2).sum() for name in w))
    return {name: rho * t[name] ** 2 * g[name] / norm for name in w}


@pytest.mark.parametrize("rho", [0.05, 0.5, 2.0])
def test_the_ascent_is_that_of_the_formula(rho: float) -> None:
    model = make_model()
    wanted = compute_by_hand(model, rho)
    for name, e in ascend(model, rho).items():
        np.testing.assert_allclose(e.numpy(), wanted[name], rtol=0, atol=1e-12)


def test_the_ascent_is_another_one_than_that_of_sam() -> None:
    """Else the test above could not tell them apart."""
    model = make_model()
    sam = SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.5)
    before = model.conv.weight.detach().clone()
    with sam.perturbed(sam.compute_grad_norm()):
        plain = model.conv.weight.detach() - before
    assert not torch.allclose(plain, ascend(model)["conv.weight"], atol=1e-3)


def test_a_step_applies_the_gradient_at_the_perturbed_weights() -> None:
    """L = sum a w^2 / 2: g = a w, g' = a (w + e), w -= lr g'."""
    a, w = np.array([3.0, 0.5, -1.0, 8.0]), np.array([0.7, -2.0, 0.0, 0.1])
    weight, bias = nn.Parameter(torch.tensor(w)), nn.Parameter(torch.tensor(w))
    sam = SAM(torch.optim.SGD([weight, bias], lr=0.1), rho=0.2, adaptive=[weight])

    def backward() -> None:
        sum((torch.tensor(a) * p**2).sum() / 2 for p in (weight, bias)).backward()

    backward()
    with sam.perturbed(sam.compute_grad_norm()):
        backward()
    sam.step()
    t = np.abs(w) + ETA
    norm = np.sqrt(((t * a * w) ** 2).sum() + ((a * w) ** 2).sum())
    np.testing.assert_allclose(weight.detach().numpy(), w - 0.1 * a * (w + 0.2 * t**2 * a * w / norm), atol=1e-14)
    np.testing.assert_allclose(bias.detach().numpy(), w - 0.1 * a * (w + 0.2 * a * w / norm), atol=1e-14)


def test_the_perturbation_measured_in_t_has_the_length_rho() -> None:
    model = make_model()
    parts = []
    for name, e in ascend(model, 0.3).items():
        t = 1.0 if name.endswith("bias") else dict(model.named_parameters())[name].detach().abs() + ETA
        parts.append((e / t).flatten())
    assert torch.cat(parts).norm().item() == pytest.approx(0.3, rel=1e-9)


def test_a_weight_of_zero_is_perturbed() -> None:
    model = make_model()
    with torch.no_grad():
        model.conv.weight.zero_()
    wanted = compute_by_hand(model, 0.5)["conv.weight"]
    e = ascend(model, 0.5)["conv.weight"]
    assert (e != 0).all()
    np.testing.assert_allclose(e.numpy(), wanted, rtol=1e-9)


@given(st.floats(-20.0, 20.0))
@settings(deadline=None, max_examples=30)
def test_a_scaled_loss_has_the_same_ascent(exponent: float) -> None:
    """What the loss scale of fp16 relies on: the gradients need no unscaling before the ascent."""
    model, scaled = make_model(), make_model()
    for p in scaled.parameters():
        p.grad.mul_(2.0**exponent)
    for one, two in zip(ascend(model).values(), ascend(scaled).values(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=0)  # 1e-12 keeps the division finite


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_loss_scaled_by_a_power_of_two_has_the_same_ascent_to_the_bit_or_nearly(dtype: torch.dtype) -> None:
    model, scaled = make_model(dtype=dtype), make_model(dtype=dtype)
    for p in scaled.parameters():
        p.grad.mul_(2.0**16)
    for one, two in zip(ascend(model).values(), ascend(scaled).values(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5 if dtype == torch.float32 else 1e-11, atol=1e-7)


@given(st.integers(-6, 6), st.integers(0, 20))
@settings(deadline=None, max_examples=30)
def test_rescaling_two_layers_against_each_other_rescales_the_ascent_with_them(power: int, seed: int) -> None:
    """The point of ASAM. (a w1, w2 / a) is the same network; its gradients are (g1 / a, a g2). Then e scales as w does,
    and the network at w + e is the same one again; SAM's ball is another one. Exact for weights far above the floor.
    """
    a = 2.0**power
    rng = np.random.default_rng(seed)
    w1, w2 = (rng.uniform(100.0, 300.0, 6) * rng.choice([-1, 1], 6) * 64 for _ in range(2))
    g1, g2 = (rng.normal(size=6) for _ in range(2))

    def compute_e(first: np.ndarray, second: np.ndarray, grads: tuple[np.ndarray, np.ndarray]) -> list[np.ndarray]:
        parameters = [nn.Parameter(torch.tensor(first)), nn.Parameter(torch.tensor(second))]
        for p, g in zip(parameters, grads, strict=True):
            p.grad = torch.tensor(g)
        sam = SAM(torch.optim.SGD(parameters, lr=0.1), rho=0.5, adaptive=parameters)
        with sam.perturbed(sam.compute_grad_norm()):
            return [p.detach().numpy() - w for p, w in zip(parameters, (first, second), strict=True)]

    one = compute_e(w1, w2, (g1, g2))
    two = compute_e(a * w1, w2 / a, (g1 / a, a * g2))
    np.testing.assert_allclose(two[0], a * one[0], rtol=0.02)
    np.testing.assert_allclose(two[1], one[1] / a, rtol=0.02)


def test_parameters_without_a_gradient_stay_and_count_for_nothing() -> None:
    model = make_model()
    model.head.weight.grad = None
    e = ascend(model)
    assert (e["head.weight"] == 0).all()
    other = make_model()
    other.head.weight.grad = torch.zeros_like(other.head.weight)
    for name, value in ascend(other).items():
        torch.testing.assert_close(e[name], value, rtol=0, atol=1e-15)


def test_no_gradient_at_all_moves_nothing() -> None:
    model = make_model()
    for p in model.parameters():
        p.grad = None
    assert all((e == 0).all() for e in ascend(model).values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_weights_come_back_bit_for_bit(dtype: torch.dtype) -> None:
    model = make_model(dtype=dtype)
    before = [p.detach().clone() for p in model.parameters()]
    sam = make_asam(model, rho=3.0)

    def body() -> None:
        with sam.perturbed(sam.compute_grad_norm()):
            assert not torch.equal(model.conv.weight.detach(), before[0])
            raise KeyError

    with pytest.raises(KeyError):
        body()
    for p, q in zip(model.parameters(), before, strict=True):
        assert torch.equal(p.detach().view(torch.uint8), q.view(torch.uint8))


def test_rho_may_change_between_steps() -> None:
    model = make_model()
    sam = make_asam(model, rho=0.1)
    sam.set_rho(0.7)
    assert sam.rho == 0.7
    before, wanted = model.conv.weight.detach().clone(), compute_by_hand(model, 0.7)["conv.weight"]
    with sam.perturbed(sam.compute_grad_norm()):
        np.testing.assert_allclose((model.conv.weight.detach() - before).numpy(), wanted, atol=1e-12)


def test_a_radius_of_zero_perturbs_nothing() -> None:
    assert all((e == 0).all() for e in ascend(make_model(), 0.0).values())


@pytest.mark.parametrize("rho", [-0.1, float("nan"), float("inf")])
def test_a_radius_that_is_no_length_is_refused_later_too(rho: float) -> None:
    sam = make_asam(make_model())
    with pytest.raises(ValueError, match="rho must be a finite number"):
        sam.set_rho(rho)
    assert sam.rho == 0.5


def test_adaptive_tensors_must_be_parameters_of_the_optimiser() -> None:
    model = make_model()
    with pytest.raises(ValueError, match="1 adaptive tensors are not parameters"):
        SAM(torch.optim.SGD(model.conv.parameters(), lr=0.1), rho=0.1, adaptive=[model.head.weight])


def test_what_t_measures_are_weights_and_scales_that_learn_and_no_biases() -> None:
    model = make_model()
    model.conv.requires_grad_(False)
    found = {id(p) for p in find_weights(model)}
    assert found == {id(p) for p in (model.norm.weight, model.head.weight)}


def test_parameters_that_are_neither_weight_nor_bias_by_name_are_scaled_unlike_in_the_authors_code() -> None:
    model = make_model()
    own = [name for name, p in model.named_parameters() if "weight" in name]  # the rule of the authors' code
    assert {id(model.get_parameter(name)) for name in own} == {id(p) for p in find_weights(model)}
    model.position = nn.Parameter(torch.ones(1, 4, 3))
    assert id(model.position) in {id(p) for p in find_weights(model)}
