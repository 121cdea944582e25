"""Small students, teachers and batches for the tests of the engine, and the snapshots they are compared by."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from sharpstudent.config.terms import TargetSource
from sharpstudent.core.random import capture_rng_state
from sharpstudent.core.schedules import Constant, Progress
from sharpstudent.core.types import Batch, Outputs
from sharpstudent.criterion.classification import compute_cross_entropy
from sharpstudent.criterion.distillation import compute_kd
from sharpstudent.criterion.weighted_sum import LossValue, WeightedSum, WeightedTerm
from sharpstudent.models.teachers import FrozenTeacher
from sharpstudent.optim.average import WeightAverage
from sharpstudent.optim.build import LossScale, find_weights
from sharpstudent.optim.sam import SAM
from sharpstudent.train.step import TrainStep
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

START = Progress(epoch=1, step=0, epochs=2, steps_per_epoch=5)


class StochasticDepth(nn.Module):
    """Drops a whole sample's branch, as timm's DropPath does; `kept` remembers the draws."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        keep = torch.rand(x.shape[0], 1, 1, 1, device=x.device) > 0.4
        self.kept.append(keep.clone())
        return x * keep


class TinyStudent(nn.Module):
    """A convolution, BatchNorm, stochastic depth, dropout and a head: everything that a step must treat with care."""

    def __init__(self, norm: Callable[[int], nn.Module] = nn.BatchNorm2d, *, width: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2, bias=False)
        self.norm = norm(width)
        self.branch = nn.Conv2d(width, width, 1)
        self.depth = StochasticDepth()
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(width, 2)

    def forward(self, image: Tensor) -> Outputs:
        x = torch.relu(self.norm(self.stem(image)))
        x = x + self.depth(self.branch(x))
        return {"logits": self.head(self.dropout(x.mean((2, 3))))}


class CountingTeacher(nn.Module):
    """A teacher with buffers and dropout that counts its calls and keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.net = TinyStudent()
        self.seen: list[Tensor] = []

    def forward(self, image: Tensor) -> Outputs:
        self.seen.append(image)
        return self.net(image)


def make_student(seed: int = 0, **settings: Any) -> TinyStudent:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TinyStudent(**settings).train()


def make_plain_student(seed: int = 0, *, dtype: torch.dtype = torch.float32) -> TinyStudent:
    """No layer mixes images, and none draws random numbers: a batch may be split anywhere."""
    student = make_student(seed, norm=lambda width: nn.GroupNorm(2, width))
    student.depth, student.dropout = nn.Identity(), nn.Identity()
    return student.to(dtype)


def make_teacher(seed: int = 9) -> FrozenTeacher:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return FrozenTeacher(CountingTeacher())


def build_batch(images: Tensor, labels: Tensor, names: Sequence[str] | None = None, **rows: Sequence[Any]) -> Batch:
    """Pictures and their labels, each a sample of its own unless `rows` says otherwise."""
    names = [f"image {i}" for i in range(len(images))] if names is None else list(names)
    return Batch(
        inputs={"image": images},
        targets={"label": labels},
        rows={"id": names, "group": names, "clip": names, "sample": list(range(len(images))), **rows},
    )


def make_batch(seed: int = 0, images: int = 8) -> Batch:
    inputs = torch.rand(images, 3, 9, 9, generator=torch.Generator().manual_seed(seed))
    return build_batch(inputs, torch.arange(images) % 2)


def make_criterion(*, hard: float = 0.6, kd: float | None = 0.4) -> WeightedSum:
    terms = [
        WeightedTerm(
            "hard", lambda o, batch, t: compute_cross_entropy(o["logits"], batch.targets["label"]), Constant(hard)
        )
    ]
    if kd is not None:
        terms.append(
            WeightedTerm(
                "kd",
                lambda o, batch, t, *, temperature: compute_kd(o["logits"], t["logits"], temperature),
                Constant(kd),
                settings={"temperature": Constant(3.0)},
                source="teacher",
            )
        )
    return WeightedSum(terms)


def make_step(
    student: nn.Module | None = None,
    *,
    teacher: nn.Module | None = None,
    criterion: WeightedSum | None = None,
    rho: float = 0.05,
    base: str = "sgd",
    lr: float | None = None,
    asam: bool = False,
    **settings: Any,
) -> TrainStep:
    """settings: those of TrainStep itself."""
    student = make_student() if student is None else student
    if base == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(student.parameters(), lr=lr or 0.1, momentum=0.9)
    else:
        optimizer = torch.optim.AdamW(student.parameters(), lr=lr or 0.01)
    criterion = criterion or make_criterion(kd=None if teacher is None else 0.4)
    sam = SAM(optimizer, rho=rho, adaptive=find_weights(student) if asam else ())
    return TrainStep(student, teacher, criterion, sam, **{"clip_norm": 1.0, **settings})


def make_full_step(
    student: nn.Module | None = None, *, base: str = "sgd", scale: float = 1024.0, **settings: Any
) -> TrainStep:
    """A step with everything switched on: teacher, ASAM, weight average, fp16 and its loss scale, micro-batches."""
    student = make_student() if student is None else student
    return make_step(
        student,
        **{
            "teacher": make_teacher(),
            "base": base,
            "rho": 0.5,
            "asam": True,
            "average": WeightAverage(student, decay=0.9),
            "autocast": torch.float16,
            "loss_scale": LossScale("cpu", initial=scale),
            "parts": 2,
            **settings,
        },
    )


def take_snapshot(step: TrainStep) -> dict[str, Any]:
    """Everything a step can move: weights, buffers, optimiser, average, loss scale, random states; and the switches
    that it turns on its way.
    """
    state = {
        "student": step.student.state_dict(),
        "optimizer": step.optimizer.state_dict(),
        "rng": capture_rng_state(),
        "hidden": dict(step.student.named_buffers()),
        "average": None if step.average is None else step.average.state_dict(),
        "loss_scale": None if step.loss_scale is None else step.loss_scale.state_dict(),
        "tracking": [module.track_running_stats for module in step.student.modules() if isinstance(module, _NormBase)],
        "training": [module.training for module in step.student.modules()],
        "grad": torch.is_grad_enabled(),
        "autocast": (torch.is_autocast_enabled("cpu"), str(torch.get_autocast_dtype("cpu"))),
    }
    return copy.deepcopy(state)


def are_identical(one: Any, two: Any) -> bool:
    """Equality down to the bits of every tensor, NaN included."""
    if isinstance(one, Tensor):
        return isinstance(two, Tensor) and one.dtype == two.dtype and _bytes(one) == _bytes(two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(are_identical(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(are_identical(a, b) for a, b in zip(one, two, strict=True))
    return one == two


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def compute_weights_hash(model: nn.Module) -> str:
    """sha256 over all tensors in order: equal before and after training for a teacher that was only read."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(
            tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
            if tensor.ndim
            else repr(tensor.item()).encode()
        )
    return digest.hexdigest()


class RecordingSum(WeightedSum):
    """A criterion that records the outputs of one source in each pass."""

    def __init__(self, terms: Sequence[WeightedTerm], source: TargetSource) -> None:
        super().__init__(terms)
        self.source, self.recorded = source, list[Outputs]()

    def __call__(
        self,
        outputs: Outputs,
        batch: Batch,
        source_outputs: Mapping[TargetSource, Outputs],
        progress: Progress,
        *,
        totals: Mapping[str, float] | None = None,
    ) -> LossValue:
        self.recorded.append(source_outputs[self.source])
        return super().__call__(outputs, batch, source_outputs, progress, totals=totals)
