"""SAM against formulas written out by hand, against another library, and against whatever interrupts it."""

import copy

import numpy as np
import pytest
import torch
from sharpstudent.optim.sam import SAM
from torch import Tensor, nn
from torch.nn import functional as F


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def make_model(dtype: torch.dtype = torch.float32) -> nn.Module:
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1)).to(dtype)
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.copy_(draw(*p.shape, seed=100 + i, dtype=dtype))
    return model


def make_sam(model: nn.Module, *, rho: float = 0.05, lr: float = 0.1, momentum: float = 0.9) -> SAM:
    return SAM(torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum), rho=rho)


def compute_loss(model: nn.Module, seed: int) -> Tensor:
    dtype = next(model.parameters()).dtype
    inputs, signs = draw(11, 5, seed=seed, dtype=dtype), draw(11, 1, seed=seed + 50, dtype=dtype).sign()
    return F.softplus(-signs * model(inputs)).mean()


def take_step(sam: SAM, model: nn.Module, seed: int, *, clip: float | None = None) -> Tensor:
    """A step as the engine takes it; returns the norm of the applied gradient before clipping."""
    sam.zero_grad()
    compute_loss(model, seed).backward()
    norm = sam.compute_grad_norm()
    with sam.perturbed(norm):
        compute_loss(model, seed).backward()
    norm = sam.compute_grad_norm()
    if clip is not None:
        sam.clip(norm, clip)
    sam.step()
    return norm


def weights_of(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def are_same_bits(one: list[Tensor], two: list[Tensor]) -> bool:
    return all(torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for a, b in zip(one, two, strict=True))


def oracle_gradient(w: list[np.ndarray], x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Gradient of mean log(1 + exp(-y z)), z = tanh(x A' + a) B' + b, derived by hand in float64."""
    a_weight, a_bias, b_weight, b_bias = w
    hidden = np.tanh(x @ a_weight.T + a_bias)
    z = hidden @ b_weight.T + b_bias
    dz = -y / (1 + np.exp(y * z)) / len(x)
    dhidden = dz @ b_weight * (1 - hidden**2)
    return [dhidden.T @ x, dhidden.sum(0), dz.T @ hidden, dz.sum(0)]


def test_the_gradient_that_is_applied_is_the_oracles_gradient_at_the_perturbed_weights() -> None:
    model = make_model(torch.float64)
    sam = make_sam(model, rho=0.3)
    x, y = draw(11, 5, seed=3, dtype=torch.float64).numpy(), draw(11, 1, seed=53, dtype=torch.float64).sign().numpy()
    w = [p.detach().numpy().copy() for p in model.parameters()]
    g = oracle_gradient(w, x, y)
    norm = np.sqrt(sum((part**2).sum() for part in g))
    expected = oracle_gradient([p + 0.3 * part / norm for p, part in zip(w, g, strict=True)], x, y)

    compute_loss(model, 3).backward()
    with sam.perturbed(sam.compute_grad_norm()):
        compute_loss(model, 3).backward()

    for p, wanted, plain in zip(model.parameters(), expected, g, strict=True):
        np.testing.assert_allclose(p.grad.numpy(), wanted, rtol=0, atol=1e-12)
        assert not np.allclose(plain, wanted, atol=1e-6)  # the test could not tell otherwise


def test_three_steps_of_sgd_with_momentum_follow_the_oracle() -> None:
    model = make_model(torch.float64)
    sam = make_sam(model, rho=0.05, lr=0.1, momentum=0.9)
    w = [p.detach().numpy().copy() for p in model.parameters()]
    velocity = [np.zeros_like(p) for p in w]
    for seed in (1, 2, 3):
        take_step(sam, model, seed)
        x, y = (
            a.numpy()
            for a in (
                draw(11, 5, seed=seed, dtype=torch.float64),
                draw(11, 1, seed=seed + 50, dtype=torch.float64).sign(),
            )
        )
        g = oracle_gradient(w, x, y)
        norm = np.sqrt(sum((part**2).sum() for part in g))
        g = oracle_gradient([p + 0.05 * part / norm for p, part in zip(w, g, strict=True)], x, y)
        velocity = [0.9 * v + part for v, part in zip(velocity, g, strict=True)]
        w = [p - 0.1 * v for p, v in zip(w, velocity, strict=True)]
    for p, wanted in zip(model.parameters(), w, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rho", [0.05, 0.5, 2.0])
def test_the_perturbation_has_the_length_rho_over_all_parameters_together(rho: float) -> None:
    model = make_model(torch.float64)
    sam = make_sam(model, rho=rho)
    compute_loss(model, 1).backward()
    before = weights_of(model)
    with sam.perturbed(sam.compute_grad_norm()):
        moved = [p.detach() - q for p, q in zip(model.parameters(), before, strict=True)]
        length = torch.linalg.vector_norm(torch.cat([m.flatten() for m in moved]))
    assert length.item() == pytest.approx(rho, rel=1e-9)


def test_the_perturbation_points_along_the_gradient() -> None:
    model = make_model(torch.float64)
    sam = make_sam(model)
    compute_loss(model, 1).backward()
    before, grads = weights_of(model), [p.grad.clone() for p in model.parameters()]
    norm = sam.compute_grad_norm()
    with sam.perturbed(norm):
        for p, q, g in zip(model.parameters(), before, grads, strict=True):
            torch.testing.assert_close(p.detach() - q, 0.05 * g / norm, rtol=0, atol=1e-12)


def test_the_gradient_norm_is_that_of_all_gradients_as_one_vector() -> None:
    model = make_model()
    sam = make_sam(model)
    assert sam.compute_grad_norm().item() == 0.0  # none yet
    compute_loss(model, 1).backward()
    together = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert sam.compute_grad_norm().item() == pytest.approx(together.double().norm().item(), rel=1e-6)


def test_on_a_quadratic_one_step_is_the_closed_form() -> None:
    """L = w' A w / 2 with A = diag(a): g = A w, g' = A (w + rho A w / ||A w||)."""
    a, w = torch.tensor([3.0, 0.5, -1.0, 8.0], dtype=torch.float64), draw(4, seed=9, dtype=torch.float64)
    parameter = nn.Parameter(w.clone())
    sam = SAM(torch.optim.SGD([parameter], lr=0.01), rho=0.2)
    (a * parameter**2).sum().div(2).backward()
    with sam.perturbed(sam.compute_grad_norm()):
        (a * parameter**2).sum().div(2).backward()
    sam.step()
    g = a * w
    expected = w - 0.01 * a * (w + 0.2 * g / g.norm())
    torch.testing.assert_close(parameter.detach(), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("base", ["sgd", "adamw"])
def test_rho_zero_is_the_base_optimiser_bit_for_bit_over_several_steps(base: str) -> None:
    def build(model: nn.Module) -> torch.optim.Optimizer:
        if base == "sgd":
            return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        return torch.optim.AdamW(model.parameters(), lr=0.01)

    model, plain_model = make_model(), make_model()
    sam, plain = SAM(build(model), rho=0.0), build(plain_model)
    for seed in range(6):
        take_step(sam, model, seed)
        plain.zero_grad()
        compute_loss(plain_model, seed).backward()
        plain.step()
        assert are_same_bits(weights_of(model), weights_of(plain_model))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_at_learning_rate_zero_a_hundred_steps_leave_the_weights_bit_identical(dtype: torch.dtype) -> None:
    model = make_model(dtype)
    before = weights_of(model)
    sam = make_sam(model, lr=0.0, rho=0.7)
    for seed in range(100):
        take_step(sam, model, seed, clip=1.0)
    assert are_same_bits(weights_of(model), before)


@pytest.mark.parametrize("rho", [0.05, 0.5])
def test_the_steps_agree_with_those_of_another_library(rho: float) -> None:
    pytorch_optimizer = pytest.importorskip("pytorch_optimizer")
    model, their_model = make_model(), make_model()
    sam = make_sam(model, rho=rho)
    theirs = pytorch_optimizer.SAM(
        their_model.parameters(), base_optimizer=torch.optim.SGD, rho=rho, lr=0.1, momentum=0.9
    )
    for seed in (4, 5):
        take_step(sam, model, seed)
        compute_loss(their_model, seed).backward()
        theirs.first_step(zero_grad=True)
        compute_loss(their_model, seed).backward()
        theirs.second_step(zero_grad=True)
        for p, q in zip(model.parameters(), their_model.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=0, atol=1e-6)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_weights_come_back_bit_for_bit_when_the_body_raises(error: type[BaseException], dtype: torch.dtype) -> None:
    model = make_model(dtype)
    sam = make_sam(model, rho=3.0)
    compute_loss(model, 1).backward()
    before = weights_of(model)

    def body() -> None:
        with sam.perturbed(sam.compute_grad_norm()):
            compute_loss(model, 1).backward()
            assert not are_same_bits(weights_of(model), before)
            raise error

    with pytest.raises(error):
        body()
    assert are_same_bits(weights_of(model), before)


def test_the_weights_come_back_also_where_the_second_gradient_is_none_or_the_first_was() -> None:
    always, only_first, only_second, never = (nn.Parameter(draw(3, seed=i)) for i in range(4))
    parameters = [always, only_first, only_second, never]
    sam = SAM(torch.optim.SGD(parameters, lr=0.0), rho=1.0)
    before = [p.detach().clone() for p in parameters]
    (always.square().sum() + only_first.square().sum()).backward()
    with sam.perturbed(sam.compute_grad_norm()):
        assert not torch.equal(only_first.detach(), before[1])
        assert torch.equal(only_second.detach(), before[2])
        (always.square().sum() + only_second.square().sum()).backward()
    assert only_first.grad is None
    assert are_same_bits([p.detach() for p in parameters], before)
    sam.step()
    assert are_same_bits([p.detach() for p in parameters], before)


def test_gradients_are_dropped_on_entering_so_that_the_second_pass_stands_alone() -> None:
    model = make_model()
    sam = make_sam(model)
    compute_loss(model, 1).backward()
    with sam.perturbed(sam.compute_grad_norm()):
        assert all(p.grad is None for p in model.parameters())
        assert torch.is_grad_enabled()


def test_clipping_acts_once_and_on_the_gradient_that_is_applied() -> None:
    """The applied gradient's norm becomes the limit; the ascent is that of the unclipped gradient."""
    model, twin = make_model(torch.float64), make_model(torch.float64)
    sam, unclipped = make_sam(model, momentum=0.0, lr=1.0), make_sam(twin, momentum=0.0, lr=1.0)
    before = weights_of(model)
    norm = take_step(sam, model, 1, clip=0.01)
    full = take_step(unclipped, twin, 1)
    assert norm.item() == full.item() > 0.01
    step = torch.cat([(q - p.detach()).flatten() for p, q in zip(model.parameters(), before, strict=True)])
    whole = torch.cat([(q - p.detach()).flatten() for p, q in zip(twin.parameters(), before, strict=True)])
    assert step.norm().item() == pytest.approx(0.01, rel=1e-3)
    torch.testing.assert_close(step / step.norm(), whole / whole.norm(), rtol=0, atol=1e-12)


def test_clipping_leaves_a_short_gradient_as_it_is() -> None:
    model = make_model()
    sam = make_sam(model)
    compute_loss(model, 1).backward()
    before = [p.grad.clone() for p in model.parameters()]
    sam.clip(sam.compute_grad_norm(), 1000.0)
    assert are_same_bits([p.grad for p in model.parameters()], before)


def test_a_gradient_of_zero_moves_nothing_and_makes_no_nan() -> None:
    parameter = nn.Parameter(draw(4))
    sam = SAM(torch.optim.SGD([parameter], lr=0.1, momentum=0.9), rho=0.05)
    before = parameter.detach().clone()
    (0.0 * parameter.sum()).backward()
    with sam.perturbed(sam.compute_grad_norm()):
        assert torch.equal(parameter.detach(), before)
        (0.0 * parameter.sum()).backward()
    sam.clip(sam.compute_grad_norm(), 1.0)
    sam.step()
    assert torch.equal(parameter.detach(), before)


def test_no_gradient_at_all_is_no_step() -> None:
    model = make_model()
    before = weights_of(model)
    sam = make_sam(model)
    norm = sam.compute_grad_norm()
    with sam.perturbed(norm):
        pass
    sam.clip(norm, 1.0)
    sam.step()
    assert are_same_bits(weights_of(model), before)


@pytest.mark.parametrize("through_file", [False, True])
def test_the_state_keeps_the_momentum_so_that_the_next_step_is_the_same(tmp_path, through_file: bool) -> None:
    model = make_model()
    sam = make_sam(model)
    for seed in range(3):
        take_step(sam, model, seed)
    state = copy.deepcopy(sam.state_dict())
    if through_file:
        torch.save(state, tmp_path / "state.pth")
        state = torch.load(tmp_path / "state.pth", weights_only=True)
    resumed_model = copy.deepcopy(model)
    resumed = make_sam(resumed_model)
    resumed.load_state_dict(state)
    forgetful_model = copy.deepcopy(model)
    forgetful = make_sam(forgetful_model)
    for optimizer, its_model in ((sam, model), (resumed, resumed_model), (forgetful, forgetful_model)):
        take_step(optimizer, its_model, 77)
    assert are_same_bits(weights_of(resumed_model), weights_of(model))
    assert not are_same_bits(weights_of(forgetful_model), weights_of(model))


@pytest.mark.parametrize("rho", [-0.1, float("nan"), float("inf")])
def test_a_radius_that_is_no_length_is_refused(rho: float) -> None:
    with pytest.raises(ValueError, match="rho must be a finite number"):
        make_sam(make_model(), rho=rho)
