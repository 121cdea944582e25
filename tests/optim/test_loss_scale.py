"""The loss scale of fp16 as a value: it backs off, grows, and survives a file."""

import pytest
import torch
from sharpstudent.optim.build import LossScale
from sharpstudent.optim.sam import SAM
from torch import nn


def make_sam() -> SAM:
    return SAM(torch.optim.SGD([nn.Parameter(torch.ones(3))], lr=0.1), rho=0.0)


def take_step(scale: LossScale, sam: SAM) -> None:
    sam.zero_grad()
    scale.scale((sam.parameters[0] * 2.0).sum()).backward()
    scale.unscale(sam)
    scale.step(sam)


def test_the_scale_multiplies_the_loss_and_unscaling_gives_the_true_gradient() -> None:
    scale, sam = LossScale("cpu", initial=1024.0), make_sam()
    loss = scale.scale((sam.parameters[0] * 2.0).sum())
    assert loss.item() == 6.0 * 1024.0
    loss.backward()
    assert torch.equal(sam.parameters[0].grad, torch.full((3,), 2048.0))
    scale.unscale(sam)
    assert torch.equal(sam.parameters[0].grad, torch.full((3,), 2.0))
    scale.step(sam)
    torch.testing.assert_close(sam.parameters[0].detach(), torch.full((3,), 0.8))


def test_the_scale_starts_at_2_to_the_16() -> None:
    assert LossScale("cpu").value == 65536.0


@pytest.mark.parametrize("is_used", [False, True])
def test_backing_off_halves_the_scale_and_counts_anew(is_used: bool) -> None:
    scale, sam = LossScale("cpu", initial=64.0), make_sam()
    if is_used:
        take_step(scale, sam)
        assert scale.state_dict()["_growth_tracker"] == 1
    assert scale.back_off() == 32.0
    assert scale.value == 32.0
    assert scale.state_dict()["_growth_tracker"] == 0
    take_step(scale, sam)
    assert scale.value == 32.0


def test_the_scale_doubles_after_2000_steps_without_an_overflow() -> None:
    scale, sam = LossScale("cpu", initial=64.0), make_sam()
    assert scale.state_dict()["growth_interval"] == 2000
    scale.load_state_dict({**scale.state_dict(), "_growth_tracker": 1998})
    take_step(scale, sam)
    assert scale.value == 64.0
    take_step(scale, sam)
    assert scale.value == 128.0
    assert scale.state_dict()["_growth_tracker"] == 0


def test_an_overflow_before_the_2000th_step_starts_the_count_again() -> None:
    scale, sam = LossScale("cpu", initial=64.0), make_sam()
    scale.load_state_dict({**scale.state_dict(), "_growth_tracker": 1999})
    scale.back_off()
    take_step(scale, sam)
    assert scale.value == 32.0


def test_the_state_survives_a_file(tmp_path) -> None:
    scale, sam = LossScale("cpu", initial=64.0), make_sam()
    for _ in range(3):
        take_step(scale, sam)
    scale.back_off()
    take_step(scale, sam)
    torch.save(scale.state_dict(), tmp_path / "scale.pth")
    other = LossScale("cpu")
    other.load_state_dict(torch.load(tmp_path / "scale.pth", weights_only=True))
    assert other.state_dict() == scale.state_dict()
    assert other.value == 32.0
    take_step(other, sam)
    assert other.state_dict()["_growth_tracker"] == 2


def test_loading_forgets_a_step_that_was_not_finished() -> None:
    """Else the next step would say that the gradients are unscaled already."""
    scale, sam = LossScale("cpu", initial=64.0), make_sam()
    state = scale.state_dict()
    scale.scale((sam.parameters[0] * 2.0).sum()).backward()
    scale.unscale(sam)
    scale.load_state_dict(state)
    take_step(scale, sam)
    assert scale.value == 64.0
