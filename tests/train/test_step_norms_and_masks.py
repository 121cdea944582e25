"""Statistics of norm layers are those of pass 1, and both passes draw the same masks."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sharpstudent.core.types import Outputs
from sharpstudent.train.step import batchnorm_statistics_frozen
from tiny_models import (
    START,
    TinyStudent,
    are_identical,
    build_batch,
    make_batch,
    make_step,
    make_student,
    make_teacher,
)
from torch import Tensor, nn


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(1234)


class NormOf(nn.Module):
    """One BatchNorm kind on the input it wants, then a head."""

    def __init__(self, norm: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape, self.norm = shape, norm
        self.stem, self.head = nn.Linear(243, shape[0] * int(torch.tensor(shape[1:]).prod())), nn.Linear(shape[0], 2)

    def forward(self, image: Tensor) -> Outputs:
        x = self.norm(self.stem(image.flatten(1)).view(-1, *self.shape))
        return {"logits": self.head(x.flatten(2).mean(2) if x.ndim > 2 else x)}


def make_timm_norm(channels: int) -> nn.Module:
    from timm.layers import BatchNormAct2d

    return BatchNormAct2d(channels)


NORMS: dict[str, tuple[Callable[[int], nn.Module], tuple[int, ...]]] = {
    "1d": (nn.BatchNorm1d, (4,)),
    "1d of sequences": (nn.BatchNorm1d, (4, 5)),
    "2d": (nn.BatchNorm2d, (4, 3, 3)),
    "3d": (nn.BatchNorm3d, (4, 2, 2, 2)),
    "timm with activation": (make_timm_norm, (4, 3, 3)),
    "synchronised": (nn.SyncBatchNorm, (4, 3, 3)),
    "instance with statistics": (lambda c: nn.InstanceNorm2d(c, affine=True, track_running_stats=True), (4, 3, 3)),
    "cumulative average": (lambda c: nn.BatchNorm2d(c, momentum=None), (4, 3, 3)),
    "without statistics": (lambda c: nn.BatchNorm2d(c, track_running_stats=False), (4, 3, 3)),
}


@pytest.mark.parametrize("kind", NORMS)
def test_batchnorm_statistics_after_a_step_are_those_of_pass_1_alone(kind: str) -> None:
    build, shape = NORMS[kind]
    model = NormOf(build(shape[0]), shape).train()
    alone = copy.deepcopy(model)
    step = make_step(model)
    for i in range(2):
        alone.load_state_dict(model.state_dict())
        alone(make_batch(i).inputs["image"])
        assert step(make_batch(i), START).ok
        assert are_identical(dict(model.named_buffers()), dict(alone.named_buffers()))
    if kind == "instance with statistics":  # it never counts
        assert not torch.equal(model.norm.running_mean, torch.zeros(4))
    elif kind != "without statistics":
        assert int(model.norm.num_batches_tracked) == 2


def test_a_batchnorm_layer_that_is_kept_in_evaluation_mode_keeps_its_statistics_and_its_function() -> None:
    student = make_student()
    student.norm.eval()
    outputs: list[tuple[Tensor, Tensor]] = []

    def record(norm: nn.Module, args: Any, out: Tensor) -> None:
        affine = args[0] * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)
        outputs.append((affine.detach(), out.detach()))

    student.norm.register_forward_hook(record)
    before = copy.deepcopy(dict(student.named_buffers()))
    assert make_step(student)(make_batch(), START).ok
    assert are_identical(dict(student.named_buffers()), before)
    assert len(outputs) == 2
    for affine, said in outputs:  # running mean 0 and variance 1, in both passes
        torch.testing.assert_close(said, affine, rtol=0, atol=1e-4)


def test_buffers_of_any_layer_after_a_step_are_those_of_pass_1() -> None:
    """A layer of one's own that counts and averages."""

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros((), dtype=torch.int64))
            self.register_buffer("mean", torch.zeros(6))

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            self.mean.mul_(0.7).add_(x.detach().mean((0, 2, 3)), alpha=0.3)
            return x - self.mean.view(-1, 1, 1)

    student = make_student(norm=lambda _: Own())
    alone = copy.deepcopy(student)
    for i in range(2):
        alone.load_state_dict(student.state_dict())
        alone(make_batch(i).inputs["image"])
        assert make_step(student)(make_batch(i), START).ok
        assert are_identical(dict(student.named_buffers()), dict(alone.named_buffers()))
    assert int(student.norm.count) == 2


def test_an_instance_norm_that_is_kept_in_evaluation_mode_keeps_its_statistics_and_its_function() -> None:
    student = make_student(norm=lambda width: nn.InstanceNorm2d(width, track_running_stats=True))
    student.norm.eval()
    outputs: list[tuple[Tensor, Tensor]] = []
    student.norm.register_forward_hook(lambda _, args, out: outputs.append((args[0].detach(), out.detach())))
    assert make_step(student)(make_batch(), START).ok
    assert len(outputs) == 2
    for given, said in outputs:  # running mean 0 and variance 1, in both passes
        torch.testing.assert_close(said, given, rtol=0, atol=1e-4)
    assert torch.equal(student.norm.running_mean, torch.zeros(6))


def test_pass_2_normalises_by_its_own_batch_as_in_training() -> None:
    student = make_student()
    means: list[Tensor] = []
    student.norm.register_forward_hook(lambda norm, _, out: means.append((out.mean((0, 2, 3)) - norm.bias).detach()))
    assert make_step(student)(make_batch(), START).ok
    assert len(means) == 2
    for mean in means:
        torch.testing.assert_close(mean, torch.zeros(6), rtol=0, atol=1e-5)


def test_freezing_twice_and_leaving_by_an_error_does_not_lose_the_tracking() -> None:
    student = make_student()
    with pytest.raises(KeyError), batchnorm_statistics_frozen(student), batchnorm_statistics_frozen(student):
        raise KeyError
    assert student.norm.track_running_stats
    assert student.norm.momentum == 0.1
    student(make_batch().inputs["image"])
    assert int(student.norm.num_batches_tracked) == 1


def record_masks(student: TinyStudent) -> list[Tensor]:
    masks: list[Tensor] = []
    student.dropout.register_forward_hook(lambda _, args, out: masks.append((out == 0) & (args[0] != 0)))
    return masks


def test_dropout_and_stochastic_depth_draw_the_same_masks_in_both_passes_and_others_in_the_next_step() -> None:
    step = make_step(teacher=make_teacher())
    masks = record_masks(step.student)
    for i in range(3):
        step(make_batch(i), START)
    for drawn in (masks, step.student.depth.kept):
        assert len(drawn) == 6
        for first, second in zip(drawn[::2], drawn[1::2], strict=True):
            assert torch.equal(first, second)
            assert first.any()
            assert not first.all()
    assert not torch.equal(masks[0], masks[2])


def test_a_real_student_draws_the_same_masks_and_keeps_the_statistics_of_pass_1() -> None:
    """timm's own drop path and BatchNorm, and our head."""
    import timm
    from sharpstudent.models.vision import TimmClassifier

    student = TimmClassifier("test_resnet", classes=2, dropout=0.3)
    student.backbone = timm.create_model("test_resnet", num_classes=0, drop_path_rate=0.5, zero_init_last=False)
    student.train()
    draws: list[tuple[str, Tensor, Tensor]] = []
    for name, module in student.named_modules():
        if type(module).__name__ in ("Dropout", "DropPath"):
            module.register_forward_hook(lambda _, args, out, name=name: draws.append((name, args[0] != 0, out == 0)))
    inputs = torch.rand(4, 3, 32, 32)
    batch = build_batch(inputs, torch.tensor([0, 0, 1, 1]))
    alone = copy.deepcopy(student)
    alone(inputs)
    draws.clear()
    torch.manual_seed(5)
    assert make_step(student)(batch, START).ok
    half = len(draws) // 2
    assert half >= 3
    for (name, alive, dropped), (same, still_alive, again) in zip(draws[:half], draws[half:], strict=True):
        assert name == same
        assert torch.equal((dropped & alive)[still_alive], (again & alive)[still_alive])
        assert (alive & still_alive).any()
    counters = [b for name, b in student.named_buffers() if name.endswith("num_batches_tracked")]
    assert {int(counter) for counter in counters} == {1}


def test_the_random_state_after_a_step_is_that_of_one_pass() -> None:
    states = []
    for rho in (0.0, 0.05):
        torch.manual_seed(3)
        make_step(make_student(), rho=rho)(make_batch(), START)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)
