"""The soft-label term against formulas written elsewhere: NumPy in float64, torch's own KL, timm, and by hand."""

import math

import numpy as np
import pytest
import torch
from made_terms import mean_of
from numpy.typing import NDArray
from sharpstudent.criterion import distillation
from torch import Tensor, nn
from torch.nn import functional as F

compute_kd = mean_of(distillation.compute_kd)
TEMPERATURES = [0.5, 1.0, 3.0, 10.0]


def draw_logits(images: int = 8, classes: int = 2, *, seed: int = 0, spread: float = 3.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student = spread * torch.randn(images, classes, generator=generator)
    return student, spread * torch.randn(images, classes, generator=generator)


def softmax_float64(logits: Tensor, temperature: float) -> NDArray[np.float64]:
    scaled = logits.detach().numpy().astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def kd_rows_float64(student: Tensor, teacher: Tensor, temperature: float) -> NDArray[np.float64]:
    p_student, p_teacher = softmax_float64(student, temperature), softmax_float64(teacher, temperature)
    return temperature**2 * np.sum(p_teacher * np.log(p_teacher / p_student), axis=1)


def kd_float64(student: Tensor, teacher: Tensor, temperature: float) -> float:
    return float(np.mean(kd_rows_float64(student, teacher, temperature)))


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("classes", [2, 5, 1000])
def test_it_equals_numpy_in_float64(classes: int, temperature: float) -> None:
    student, teacher = draw_logits(classes=classes)
    expected = kd_float64(student, teacher, temperature)
    assert compute_kd(student, teacher, temperature).item() == pytest.approx(expected, rel=2e-6)
    rows = distillation.compute_kd(student, teacher, temperature)
    expected_rows = kd_rows_float64(student, teacher, temperature)
    np.testing.assert_allclose(rows.numpy(), expected_rows, rtol=5e-6, atol=1e-6 * temperature**2)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_it_equals_kl_div_with_the_teachers_softmax(temperature: float) -> None:
    student, teacher = draw_logits(classes=4)
    target = F.softmax(teacher / temperature, dim=1)
    reference = temperature**2 * F.kl_div(F.log_softmax(student / temperature, 1), target, reduction="batchmean")
    torch.testing.assert_close(compute_kd(student, teacher, temperature), reference)


def test_it_equals_timms_distillation_task() -> None:
    from timm.task.distillation import LogitDistillationTask

    class Probe(nn.Sequential):
        def __init__(self, seed: int) -> None:
            torch.manual_seed(seed)
            super().__init__(nn.Flatten(), nn.Linear(12, 2))
            self.num_classes, self.in_chans = 2, 3
            self.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}

    student, teacher = Probe(0), Probe(1)
    images, labels = torch.rand(6, 3, 2, 2), torch.tensor([0, 1, 0, 1, 1, 0])
    task = LogitDistillationTask(student, teacher, nn.CrossEntropyLoss(), temperature=3.0, verbose=False)
    torch.testing.assert_close(compute_kd(student(images), teacher(images), 3.0), task(images, labels)["kd_loss"])


def test_it_equals_a_case_worked_by_hand() -> None:
    # At T = 1 the teacher says (3/4, 1/4) and the student (1/4, 3/4): KL = (3/4 - 1/4) log 3.
    student, teacher = torch.tensor([[0.0, math.log(3)]]), torch.tensor([[math.log(3), 0.0]])
    assert compute_kd(student, teacher, 1.0).item() == pytest.approx(0.5 * math.log(3), rel=1e-6)
    # At T = 2 the odds are sqrt(3) to 1: KL = (p - q) log sqrt(3), and T^2 = 4.
    p, q = math.sqrt(3) / (1 + math.sqrt(3)), 1 / (1 + math.sqrt(3))
    assert compute_kd(student, teacher, 2.0).item() == pytest.approx(4 * (p - q) * math.log(3) / 2, rel=1e-6)


def test_the_teacher_is_the_reference_distribution() -> None:
    # KL is not symmetric, so a swap of the arguments would show.
    student, teacher = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.5]])
    assert compute_kd(student, teacher, 1.0).item() == pytest.approx(kd_float64(student, teacher, 1.0), rel=1e-5)
    assert kd_float64(student, teacher, 1.0) != pytest.approx(kd_float64(teacher, student, 1.0), rel=0.05)


def test_a_row_is_of_its_own_image_and_a_sum_over_classes() -> None:
    student, teacher = draw_logits(images=3, classes=4)
    one_by_one = [distillation.compute_kd(student[i : i + 1], teacher[i : i + 1], 2.0) for i in range(3)]
    torch.testing.assert_close(distillation.compute_kd(student, teacher, 2.0), torch.cat(one_by_one))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_computed_in_fp32(dtype: torch.dtype) -> None:
    student, teacher = (logits.to(dtype) for logits in draw_logits())
    value = compute_kd(student, teacher, 3.0)
    assert distillation.compute_kd(student, teacher, 3.0).dtype == value.dtype == torch.float32
    assert value.item() == pytest.approx(kd_float64(student.float(), teacher.float(), 3.0), rel=2e-6)


def test_autocast_does_not_lower_the_precision() -> None:
    student, teacher = draw_logits()
    outside = distillation.compute_kd(student, teacher, 3.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = distillation.compute_kd(student, teacher, 3.0)
    assert torch.equal(inside, outside)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_extreme_logits_give_finite_values_and_gradients(temperature: float, dtype: torch.dtype) -> None:
    student = torch.tensor([[1e4, -1e4], [-1e4, 1e4], [1e4, 1e4]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-1e4, 1e4], [-1e4, 1e4], [1e4, -1e4]], dtype=dtype)
    value = compute_kd(student, teacher, temperature)
    value.backward()
    assert student.grad is not None
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_it_is_zero_with_zero_gradient_when_both_agree(temperature: float) -> None:
    logits, _ = draw_logits()
    student = logits.clone().requires_grad_()
    value = compute_kd(student, logits + 7.0, temperature)  # a shift of all logits changes no probability
    value.backward()
    assert student.grad is not None
    assert value.item() == pytest.approx(0.0, abs=1e-6 * temperature**2)
    assert student.grad.abs().max() < 1e-6 * temperature


@pytest.mark.parametrize("seed", range(5))
def test_it_is_never_negative(seed: int) -> None:
    student, teacher = draw_logits(images=64, classes=3, seed=seed)
    assert distillation.compute_kd(student, teacher, 2.0).min().item() > 0.0


@pytest.mark.parametrize("temperature", [1.0, 3.0, 10.0])
def test_the_gradient_is_alive_at_two_classes(temperature: float) -> None:
    logits, teacher = draw_logits(images=16, spread=1.0)
    student = logits.requires_grad_()
    compute_kd(student, teacher, temperature).backward()
    assert student.grad is not None
    assert student.grad.norm() > 1e-3


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_gradient_is_t_times_the_difference_of_the_softened_probabilities(temperature: float) -> None:
    logits, teacher = draw_logits(images=4)
    student = logits.requires_grad_()
    compute_kd(student, teacher, temperature).backward()
    difference = softmax_float64(student, temperature) - softmax_float64(teacher, temperature)
    assert student.grad is not None
    np.testing.assert_allclose(student.grad.numpy(), temperature * difference / 4, rtol=2e-4, atol=1e-7)


def test_t_squared_keeps_the_gradient_in_size_as_the_temperature_grows() -> None:
    # Hinton et al., equation 4: for T far above the logits (here of zero mean) the gradient tends to (s - t) / (B C).
    student, teacher = torch.tensor([[1.0, -1.0]], requires_grad=True), torch.tensor([[0.4, -0.4]])
    compute_kd(student, teacher, 100.0).backward()
    assert student.grad is not None
    torch.testing.assert_close(student.grad, torch.tensor([[0.3, -0.3]]), rtol=1e-3, atol=1e-4)


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher = (logits.requires_grad_() for logits in draw_logits())
    compute_kd(student, teacher, 3.0).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_the_softened_teacher_grows_in_entropy_with_the_temperature() -> None:
    # Against a uniform student, KL = log C - entropy of the teacher at T.
    _, teacher = draw_logits(images=32, classes=5)
    temperatures = [0.5, 1.0, 2.0, 3.0, 4.0, 8.0, 16.0]
    kl = [compute_kd(torch.zeros_like(teacher), teacher, t).item() / t**2 for t in temperatures]
    entropies = [math.log(5) - value for value in kl]
    assert entropies == sorted(entropies)
    assert 0.0 < entropies[0] < entropies[-1] < math.log(5)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_that_is_not_positive_and_finite_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be a finite number > 0"):
        compute_kd(torch.zeros(1, 2), torch.zeros(1, 2), temperature)


@pytest.mark.parametrize("shape", [(4, 3), (3, 2), (2,), (1, 2)], ids=str)
def test_a_teacher_of_another_shape_is_refused_and_both_shapes_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"student \(4, 2\) and teacher"):
        compute_kd(torch.zeros(4, 2), torch.zeros(shape), 3.0)


def test_one_output_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="softmax is always 1"):
        compute_kd(torch.zeros(4, 1), torch.zeros(4, 1), 3.0)


@pytest.mark.parametrize("shape", [(2,), (0, 2), (2, 2, 2)], ids=str)
def test_logits_that_are_not_a_batch_of_classes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"needs logits \(B, C\)"):
        compute_kd(torch.zeros(shape), torch.zeros(shape), 3.0)
