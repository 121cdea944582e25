"""The moving average of the weights against its formula, and its state."""

import copy

import numpy as np
import pytest
import torch
from sharpstudent.optim.average import WeightAverage
from torch import nn


def make_student(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2)).train()


def move(student: nn.Module, seed: int) -> None:
    """Any change of weights, statistics and counters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in student.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape, generator=generator))
            else:
                tensor.add_(seed)


def as_arrays(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: t.detach().double().numpy().copy() for name, t in model.state_dict().items()}


@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_the_average_follows_its_formula_with_a_decay_that_rises(decay: float) -> None:
    """d(k) = min(decay, 1 - k^(-2/3)): 0, 0.37, 0.52, 0.60 ... then `decay`; statistics too, counters are copied."""
    student = make_student()
    average = WeightAverage(student, decay=decay)
    wanted = as_arrays(student)
    decays = []
    for k in range(1, 60):
        move(student, k)
        average.update(student)
        d = min(decay, 1.0 - k ** (-2.0 / 3.0))
        decays.append(d)
        for name, value in as_arrays(student).items():
            wanted[name] = value if name.endswith("tracked") else d * wanted[name] + (1 - d) * value
        for name, value in as_arrays(average.model).items():
            np.testing.assert_allclose(value, wanted[name], rtol=0, atol=2e-5)
    assert decays[0] == 0.0
    assert decays[-1] == decay
    assert sorted(decays) == decays
    assert average.updates == 59


def test_the_first_update_copies_the_student_bit_for_bit() -> None:
    student = make_student()
    average = WeightAverage(student, decay=0.999)
    move(student, 3)
    average.update(student)
    for name, value in student.state_dict().items():
        assert torch.equal(average.model.state_dict()[name], value)


def test_the_average_is_a_model_of_its_own_in_evaluation_mode_that_never_learns() -> None:
    student = make_student()
    average = WeightAverage(student, decay=0.9)
    before = as_arrays(average.model)
    move(student, 1)
    assert all((as_arrays(average.model)[name] == value).all() for name, value in before.items())
    assert not any(module.training for module in average.model.modules())
    assert not any(p.requires_grad for p in average.model.parameters())
    average.update(student)
    assert student.training
    assert all(p.requires_grad for p in student.parameters())
    assert not any(module.training for module in average.model.modules())


@pytest.mark.parametrize("through_file", [False, True])
def test_the_state_keeps_the_count_so_that_the_next_update_is_the_same(tmp_path, through_file: bool) -> None:
    student = make_student()
    average = WeightAverage(student, decay=0.99)
    for k in range(5):
        move(student, k)
        average.update(student)
    state = copy.deepcopy(average.state_dict())
    if through_file:
        torch.save(state, tmp_path / "state.pth")
        state = torch.load(tmp_path / "state.pth", weights_only=True)
    resumed = WeightAverage(make_student(7), decay=0.99)
    resumed.load_state_dict(state)
    forgetful = WeightAverage(make_student(7), decay=0.99)
    forgetful.load_state_dict({**state, "updates": 1})
    move(student, 9)
    for one in (average, resumed, forgetful):
        one.update(student)
    assert resumed.updates == average.updates == 6
    ours, theirs = average.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not torch.equal(forgetful.model.state_dict()["0.weight"], ours["0.weight"])


def test_an_update_draws_no_random_numbers() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        student = make_student().to(dtype)
        average = WeightAverage(student, decay=0.9)
        before = torch.get_rng_state()
        average.update(student)
        average.update(student)
        assert torch.equal(torch.get_rng_state(), before)


def test_the_same_update_of_the_same_state_is_the_same_in_bf16_too() -> None:
    """Nothing that decides an update may lie outside of what a transaction copies."""
    student = make_student().to(torch.bfloat16)
    average = WeightAverage(student, decay=0.9)
    average.update(student)
    move(student, 2)
    state, results = copy.deepcopy(average.state_dict()), []
    for _ in range(2):
        average.load_state_dict(state)
        average.update(student)
        results.append({name: t.clone() for name, t in average.model.state_dict().items()})
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5, 2.0])
def test_a_decay_that_is_none_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        WeightAverage(make_student(), decay=decay)
