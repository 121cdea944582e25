"""Cost of one SAM distillation step over its floor: two student forward+backward and one teacher forward.

    python benchmarks/sam_step.py                       the demo's sizes
    python benchmarks/sam_step.py --real --pairs 3      380 px, EfficientNet-B4 -> mobilevitv2_200 (minutes on a CPU)

Step and floor are timed in turns, in one process, on the same batch; the ratio is the median over the pairs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from lib.config.sections import OptimizerSection, ScheduleSection, TermSection
from lib.criterion.build import build_criterion
from lib.engine.step import TrainStep
from lib.models.classifier import FrozenTeacher, build_classifier
from lib.optim.build import build_optimizer
from lib.schedules import Progress
from lib.types import Batch

PROGRESS = Progress(1, 0, 1, 1)
OPTIMIZER = OptimizerSection(
    base="sgd", lr=1e-5, momentum=0.9, weight_decay=0.0, rho=0.05, clip_norm=1.0, flat=0.75, warmup=0.0
)
TERMS = (
    TermSection(name="hard", weight=ScheduleSection(kind="constant", value=0.5)),
    TermSection(name="kd", weight=ScheduleSection(kind="constant", value=0.5), temperature=3.0),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", action="store_true", help="380 px, efficientnet-b4 -> mobilevitv2_200, one item")
    parser.add_argument("--items", type=int, help="items (real+fake pairs) a batch")
    parser.add_argument("--pairs", type=int, default=15, help="timed pairs of step and floor")
    options = parser.parse_args()
    teacher_name, student_name, size, items = (
        ("efficientnet-b4", "mobilevitv2_200", 380, 1)
        if options.real
        else ("tf_efficientnet_lite2", "tf_efficientnet_lite0", 112, 12)
    )
    items = options.items or items
    torch.manual_seed(0)
    student = build_classifier(student_name, classes=2, dropout=0.3).train()
    teacher = FrozenTeacher(build_classifier(teacher_name, classes=2, dropout=None))
    batch = _draw_batch(2 * items, size)
    criterion = build_criterion(TERMS)
    step = TrainStep(student, teacher, criterion, build_optimizer(OPTIMIZER, student), OPTIMIZER.clip_norm)

    def floor() -> None:
        outputs = teacher(batch.inputs)
        for _ in range(2):
            student.zero_grad(set_to_none=True)
            criterion(student(batch.inputs), batch, outputs, PROGRESS).total.backward()

    def whole() -> None:
        result = step(batch, PROGRESS)
        if not result.ok:
            raise RuntimeError(result.reason)

    _time(floor)  # warm-up
    _time(whole)
    ratios, floors, steps = [], [], []
    for number in range(options.pairs):
        order = (floor, whole) if number % 2 == 0 else (whole, floor)
        seconds = {run.__name__: _time(run) for run in order}
        floors.append(seconds["floor"])
        steps.append(seconds["whole"])
        ratios.append(seconds["whole"] / seconds["floor"])
    print(
        f"{teacher_name} -> {student_name}, {size} px, {items} items ({2 * items} images), "
        f"{torch.get_num_threads()} threads"
    )
    print(
        f"floor {statistics.median(floors):.3f} s, step {statistics.median(steps):.3f} s, "
        f"ratio median {statistics.median(ratios):.3f} "
        f"(min {min(ratios):.3f}, max {max(ratios):.3f}, {len(ratios)} pairs)"
    )


def _draw_batch(images: int, size: int) -> Batch:
    labels = torch.tensor([0] * (images // 2) + [1] * (images // 2))
    names = tuple(str(i) for i in range(images))
    return Batch(torch.rand(images, 3, size, size), labels, names, names, names)


def _time(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
