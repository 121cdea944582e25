"""The variants of SAM against closed forms on a quadratic, and what each keeps from step to step."""

import copy
import math
from typing import Any

import pytest
import torch
from sharpstudent.config.run_config import OptimizerSection
from sharpstudent.core.errors import UserError
from sharpstudent.core.schedules import Progress
from sharpstudent.optim.build import build_optimizer, build_rho_schedule
from sharpstudent.optim.cheap_sam import CheapSAM, SamVariant, find_norm_parameters
from sharpstudent.optim.sam import SAM
from torch import Tensor, nn

A = torch.tensor([3.0, 0.5, -1.0, 8.0], dtype=torch.float64)
RHO, LR = 0.2, 0.01


def at(step: int, steps: int = 10) -> Progress:
    return Progress(epoch=1, step=step, epochs=1, steps_per_epoch=steps)


class Quadratic:
    """L = w' A w / 2 with a diagonal A: the gradient is A w. `scale` multiplies the loss, as fp16 does."""

    def __init__(self, scale: float = 1.0, **variant: Any) -> None:
        weights = torch.randn(4, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
        self.weights, self.scale = nn.Parameter(weights), scale
        self.sam = CheapSAM(torch.optim.SGD([self.weights], lr=LR), SamVariant(**variant), rho=RHO)

    def backward(self) -> None:
        (self.scale * (A * self.weights**2).sum() / 2).backward()

    def step(self, progress: Progress) -> bool:
        """A step as the engine takes it; returns whether it had a second pass."""
        self.sam.zero_grad()
        with self.sam.first_pass():
            self.backward()
        norm = self.sam.compute_grad_norm()
        ascended = self.sam.ascends(progress, norm, self.scale)
        if ascended:
            with self.sam.perturbed(norm):
                self.backward()
        self.sam.complete_gradient(progress, ascended=ascended)
        with torch.no_grad():
            self.weights.grad /= self.scale  # type: ignore[operator]
        self.sam.step()
        return ascended


def ascend(w: Tensor, direction: Tensor) -> Tensor:
    """The gradient at w + e."""
    return A * (w + RHO * direction / direction.norm())


def test_looksam_keeps_the_part_across_the_gradient_and_adds_it_in_the_steps_between() -> None:
    quadratic = Quadratic(every=3)
    w = quadratic.weights.detach().clone()
    across = torch.zeros(4)
    for step in range(7):
        g = A * w
        if step % 3 == 0:
            applied = ascend(w, g)
            across = applied - (applied @ g) / (g @ g) * g
        else:
            applied = g + 0.7 * g.norm() * across / across.norm()
        assert quadratic.step(at(step)) == (step % 3 == 0)
        w = w - LR * applied
        torch.testing.assert_close(quadratic.weights.detach(), w, rtol=0, atol=1e-12)
        assert float(quadratic.sam.ascent_state["across"][0] @ g) == pytest.approx(
            0.0, abs=1e-9 if step % 3 == 0 else 9
        )


def test_adaptive_sam_ascends_where_the_squared_norm_exceeds_the_mean_by_a_falling_number_of_deviations() -> None:
    quadratic, steps = Quadratic(is_adaptive=True), 12
    w, mean, variance, seen = quadratic.weights.detach().clone(), None, 0.0, []
    for step in range(steps):
        g = A * w
        square = float(g @ g)
        mean = square if mean is None else 0.9 * mean + 0.1 * square
        variance = 0.9 * variance + 0.1 * (square - mean) ** 2
        ascends = square >= mean + (1 - 2 * step / (steps - 1)) * math.sqrt(variance)
        assert quadratic.step(at(step, steps)) == ascends
        seen.append(ascends)
        w = w - LR * (ascend(w, g) if ascends else g)
        torch.testing.assert_close(quadratic.weights.detach(), w, rtol=0, atol=1e-12)
    assert True in seen
    assert False in seen


def test_friendly_sam_ascends_along_what_the_gradient_has_beyond_the_mean_of_the_earlier_ones() -> None:
    quadratic = Quadratic(is_friendly=True)
    w, mean = quadratic.weights.detach().clone(), None
    for step in range(5):
        g = A * w
        direction = g if mean is None else g - mean
        mean = g if mean is None else 0.9 * mean + 0.1 * g
        assert quadratic.step(at(step))
        w = w - LR * ascend(w, direction)
        torch.testing.assert_close(quadratic.weights.detach(), w, rtol=0, atol=1e-12)


@pytest.mark.parametrize("variant", [{"every": 2}, {"is_adaptive": True}, {"is_friendly": True}], ids=str)
def test_a_loss_scale_that_changes_between_steps_changes_nothing(variant: dict[str, Any]) -> None:
    plain, scaled = Quadratic(**variant), Quadratic(**variant)
    for step in range(6):
        scaled.scale = 1024.0 / 2**step
        assert plain.step(at(step)) == scaled.step(at(step))
        torch.testing.assert_close(scaled.weights, plain.weights, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "variant", [{"every": 3}, {"is_adaptive": True}, {"is_friendly": True}, {"every": 2, "is_friendly": True}], ids=str
)
def test_a_saved_state_goes_on_bit_for_bit_and_an_undone_step_leaves_it_alone(variant: dict[str, Any]) -> None:
    quadratic = Quadratic(**variant)
    for step in range(4):
        quadratic.step(at(step))
    before = quadratic.sam.ascent_state
    state, weights = copy.deepcopy(quadratic.sam.state_dict()), quadratic.weights.detach().clone()
    resumed = Quadratic(**variant)
    resumed.sam.load_state_dict(state)
    undone = Quadratic(**variant)
    undone.sam.load_state_dict(copy.deepcopy(state))
    for one in (resumed, undone):
        with torch.no_grad():
            one.weights.copy_(weights)
    kept = undone.sam.ascent_state
    undone.step(at(4))
    undone.sam.restore_ascent(kept)
    with torch.no_grad():
        undone.weights.copy_(weights)
    for step in (4, 5, 6):
        for one in (quadratic, resumed, undone):
            one.step(at(step))
        assert torch.equal(quadratic.weights, resumed.weights)
        assert torch.equal(quadratic.weights, undone.weights)
    assert before is not quadratic.sam.ascent_state  # replaced, never changed in place


def test_a_state_of_other_shapes_is_refused_and_one_of_another_variant_dropped() -> None:
    quadratic = Quadratic(every=2)
    quadratic.step(at(0))
    state = quadratic.sam.state_dict()
    other = Quadratic(is_friendly=True)
    other.sam.load_state_dict(state)
    assert other.sam.ascent_state == {}
    state["ascent"]["across"] = {0: torch.zeros(5)}
    with pytest.raises(ValueError, match="across of parameter 0"):
        quadratic.sam.load_state_dict(state)
    Quadratic().sam.load_state_dict({"base": quadratic.sam.base_optimizer.state_dict()})


@pytest.mark.parametrize("variant", [{"every": 2}, {"is_adaptive": True}, {"is_friendly": True}], ids=str)
def test_a_radius_of_0_is_a_plain_step_and_a_gradient_of_0_makes_no_nan(variant: dict[str, Any]) -> None:
    quadratic = Quadratic(**variant)
    quadratic.step(at(0))
    state, w = quadratic.sam.ascent_state, quadratic.weights.detach().clone()
    quadratic.sam.set_rho(0.0)
    assert not quadratic.step(at(1))
    assert torch.equal(quadratic.weights, w - LR * (A * w))
    assert quadratic.sam.ascent_state is state
    quadratic.sam.set_rho(RHO)
    with torch.no_grad():
        quadratic.weights.zero_()
    for step in (2, 3, 4):
        quadratic.step(at(step))
        assert torch.isfinite(quadratic.weights).all()


def make_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))


def make_section(**keys: Any) -> OptimizerSection:
    return OptimizerSection(base="sgd", lr=0.1, rho=0.05, **keys)


def test_sam_on_moves_and_differentiates_normalisation_layers_only_and_applies_the_whole_gradient() -> None:
    model, images = make_network(), torch.randn(8, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    sam = build_optimizer(make_section(sam_norm_only=True), model)
    norms = find_norm_parameters(model)
    before = [p.detach().clone() for p in model.parameters()]
    with sam.first_pass():
        assert [p.requires_grad for p in model.parameters()] == [False, False, True, True, False, False]
        model(images).square().mean().backward()
    assert all(p.requires_grad for p in model.parameters())
    assert [p.grad is not None for p in model.parameters()] == [False, False, True, True, False, False]
    grads = [p.grad.clone() for p in norms]  # type: ignore[union-attr]
    norm = torch.cat(grads).norm()
    with sam.perturbed(sam.compute_grad_norm()):
        for p, q in zip(model.parameters(), before, strict=True):
            assert torch.equal(p, q) != any(p is one for one in norms)
        for p, q, g in zip(norms, [before[2], before[3]], grads, strict=True):
            torch.testing.assert_close(p.detach() - q, 0.05 * g / norm, rtol=0, atol=1e-7)
        model(images).square().mean().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_the_parameters_require_their_gradients_again_when_pass_1_raises() -> None:
    model = make_network()
    sam = build_optimizer(make_section(sam_norm_only=True), model)
    with pytest.raises(KeyboardInterrupt), sam.first_pass():
        raise KeyboardInterrupt
    assert all(p.requires_grad for p in model.parameters())


def test_normalisation_layers_of_timm_are_found_and_a_student_without_any_is_refused() -> None:
    timm = pytest.importorskip("timm")
    for name in ("test_efficientnet", "test_vit"):
        model = timm.create_model(name)
        found = {id(p) for p in find_norm_parameters(model)}
        named = [name for name, p in model.named_parameters() if id(p) in found]
        assert named
        assert all(".bn" in one or "norm" in one or one.startswith("bn") for one in named)
        assert all(p.ndim == 1 for p in find_norm_parameters(model))
    with pytest.raises(UserError) as refused:
        build_optimizer(make_section(sam_norm_only=True), nn.Linear(3, 2))
    assert "--set sam_norm_only=false" in refused.value.as_text()


def test_without_a_key_it_is_plain_sam() -> None:
    assert type(build_optimizer(make_section(), make_network())) is SAM
    for keys in ({"sam_every": 2}, {"sam_subset": 0.5}, {"sam_adaptive": True}, {"sam_friendly": True}):
        assert type(build_optimizer(make_section(**keys), make_network())) is CheapSAM


def test_sam_in_the_last_share_of_the_steps_has_its_radius_there_and_none_before() -> None:
    section = OptimizerSection(base="sgd", lr=0.1, rho=0.05, sam_last=0.25)
    schedule = build_rho_schedule(section)
    assert [schedule(Progress(epoch, step, 2, 4)) for epoch in (1, 2) for step in range(4)] == [0.0] * 6 + [0.05] * 2
    assert section.chooses_ascents
    assert not section.model_copy(update={"sam_last": 1.0}).chooses_ascents
    rising = build_rho_schedule(section.model_copy(update={"rho_end": 0.1}))
    assert rising(Progress(2, 3, 2, 4)) == pytest.approx(0.05 + 0.05 * 7 / 8)
