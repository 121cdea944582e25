"""What each term of the loss costs, as a share of a step with hard labels alone: student, SAM, no teacher.

    python benchmarks/terms.py --images 8 --rounds 11          the demo's sizes
    python benchmarks/terms.py --size real --images 4 --rounds 4

All losses are timed in turns, in one process, on the same batch, each right after a step with hard labels alone; the
numbers are medians over the rounds of ratios to that step. Forward: passes of the teacher or the average, once a step.
Loss itself: from logits and maps to their gradient, in both passes. What is left is what else differs, such as
updating averaged weights. On a machine that others use, --cpu-time counts the processor's time instead of the clock's.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import torch
from sharpstudent.config.run_config import TermSection
from sharpstudent.config.terms import build_constant_term
from sharpstudent.core.schedules import Constant
from sharpstudent.core.types import Batch
from sharpstudent.criterion.build import build_criterion
from sharpstudent.models.forward import run_model
from sharpstudent.models.teachers import FrozenTeacher, TeacherEnsemble
from sharpstudent.models.vision import build_classifier
from sharpstudent.optim.average import WeightAverage
from sharpstudent.optim.build import build_optimizer
from sharpstudent.train.build import hook_layers
from sharpstudent.train.step import TrainStep
from step_setup import OPTIMIZER, PROGRESS, SIZES, Setup, draw_batch, measure_seconds, take_step

HALF = Constant(0.5)
LAYERS = {  # of student and teacher, whose maps the features are
    "demo": ("backbone.blocks.6", "backbone.blocks.6"),
    "real": ("backbone.stages.4", "net._blocks.31"),
}
ALONE = "hard labels alone"


@dataclass(frozen=True)
class Loss:
    """One loss: its terms in words of the config, how many teachers it has, whether the student is averaged."""

    name: str
    terms: tuple[str, ...]
    teachers: int = 0
    averages: bool = False


LOSSES = (
    Loss(ALONE, ("hard",)),
    Loss("hard + kd", ("hard", "kd"), teachers=1),
    Loss("hard + kd_sigmoid", ("hard", "kd_sigmoid"), teachers=1),
    Loss("hard + features", ("hard", "features"), teachers=1),
    Loss("hard + attention", ("hard", "attention"), teachers=1),
    Loss("hard + embedding", ("hard", "embedding"), teachers=1),
    Loss("hard + rkd", ("hard", "rkd"), teachers=1),
    Loss("hard + dist", ("hard", "dist"), teachers=1),
    Loss("hard + supcon", ("hard", "supcon")),
    Loss("hard + kd, two teachers", ("hard", "kd"), teachers=2),
    Loss("hard, weights averaged", ("hard",), averages=True),
    Loss("hard + self", ("hard", "self"), averages=True),
    Loss("binary alone", ("binary",)),
    Loss("focal alone", ("focal",)),
)


def build_loss(loss: Loss, size: str, batch: Batch, device: torch.device) -> Setup:
    """A step of its own for each loss: the same first weights, nothing shared."""
    teacher_name, student_name, _ = SIZES[size]
    torch.manual_seed(0)
    student = build_classifier(student_name, classes=2, dropout=0.3).train().to(device)
    teacher = None
    if loss.teachers:
        models = [build_classifier(teacher_name, classes=2, dropout=None) for _ in range(loss.teachers)]
        teacher = TeacherEnsemble([FrozenTeacher(model) for model in models]).to(device)
    average = WeightAverage(student, decay=0.999) if loss.averages else None
    sections = [build_section(name, size) for name in loss.terms]
    criterion = build_criterion(sections, hook_layers(sections, student, teacher, batch[:2]))
    criterion.module.to(device)
    optimizer = build_optimizer(OPTIMIZER, student, extra=criterion.module)
    return Setup(TrainStep(student, teacher, criterion, optimizer, OPTIMIZER.clip_norm, average=average), batch)


def build_section(name: str, size: str) -> TermSection:
    """The term with its defaults and half of the weight."""
    section = build_constant_term(name, HALF, **({"inter_weight": 0.0} if name == "dist" else {}))
    if name in ("rkd", "supcon"):  # between embeddings
        pooled = {"demo": ("backbone.global_pool", "backbone.global_pool"), "real": ("dropout", "net._dropout")}[size]
        return section.model_copy(update={"choices": {"on": f"features/{pooled[0]}", "of": f"features/{pooled[1]}"}})
    if name not in ("features", "attention"):
        return section
    ours, theirs = LAYERS[size]
    return section.model_copy(update={"choices": {"student_layer": ours, "teacher_layer": theirs}})


def run_sources(setup: Setup) -> None:
    """Forward passes of the sources that the loss learns from, as the step makes them."""
    setup.step._run_sources(setup.batch)


def build_term(setup: Setup) -> Callable[[Setup], None]:
    """The loss alone, twice: from the models' outputs, which are leaves here, to the gradient of logits and maps."""
    target_outputs = setup.step._run_sources(setup.batch)
    with torch.no_grad():
        student_outputs = run_model(setup.step.student, setup.batch.inputs)

    def take(setup: Setup) -> None:
        for _ in range(2):
            outputs = {name: tensor.detach().requires_grad_() for name, tensor in student_outputs.items()}
            setup.step.criterion(outputs, setup.batch, target_outputs, PROGRESS).total.backward()

    return take


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="demo")
    parser.add_argument("--images", type=int, default=24, help="images per batch (two per sample)")
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds of all losses")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cpu-time", action="store_true", help="seconds of the processor, all threads together")
    options = parser.parse_args()
    device, side = torch.device(options.device), SIZES[options.size][2]
    torch.manual_seed(0)
    batch = draw_batch(options.images, side).to(device)
    setups = {loss.name: build_loss(loss, options.size, batch, device) for loss in LOSSES}
    measured = measure_all(setups, options.rounds, measure_cpu_seconds if options.cpu_time else measure_seconds)
    teacher, student, _ = SIZES[options.size]
    step = statistics.median(measured.alone)
    print(f"{teacher} -> {student}, {setups[ALONE]}, {options.rounds} rounds; {ALONE} {step:.3f} s\n")
    for line in format_table(measured):
        print(line)


@dataclass(frozen=True)
class Measured:
    """alone: seconds of each step with hard labels alone; ratios: to the one just before, by loss and part."""

    alone: list[float]
    ratios: dict[tuple[str, str], list[float]]


Clock = Callable[[Callable[[Setup], None], Setup], float]


def measure_cpu_seconds(run: Callable[[Setup], None], setup: Setup) -> float:
    """Processor time of one call."""
    start = time.process_time()
    run(setup)
    return time.process_time() - start


def measure_all(setups: dict[str, Setup], rounds: int, measure: Clock) -> Measured:
    """Time each loss's step, its sources and the loss itself in each round; the order rotates by one."""
    ways: dict[str, dict[str, Callable[[Setup], None]]] = {}
    for name, setup in setups.items():
        ways[name] = {"step": take_step, "loss": build_term(setup)}
        if setup.step.criterion.sources:
            ways[name]["forward"] = run_sources
        for way in ways[name].values():  # warm-up
            measure(way, setup)
    measured = Measured([], {(name, part): [] for name, parts in ways.items() for part in parts})
    for number in range(rounds):
        names = list(ways)
        first = number % len(names)
        for name in names[first:] + names[:first]:
            alone = measure(take_step, setups[ALONE])
            measured.alone.append(alone)
            for part, way in ways[name].items():
                measured.ratios[name, part].append(measure(way, setups[name]) / alone)
    return measured


def format_table(measured: Measured) -> list[str]:
    """Markdown, a row for each loss."""
    lines = [
        f"| Loss | Step over {ALONE} (quartiles) | Forward of its sources | Loss itself, both passes |",
        "|---|---|---|---|",
    ]
    for loss in LOSSES:
        ratios = measured.ratios[loss.name, "step"]
        low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        step = f"**{statistics.median(ratios):.3f}** ({low:.3f} to {high:.3f})"
        forward, itself = (show(measured.ratios.get((loss.name, part))) for part in ("forward", "loss"))
        lines.append(f"| {loss.name} | {step} | {forward} | {itself} |")
    return lines


def show(ratios: list[float] | None) -> str:
    return "none" if ratios is None else f"{100 * statistics.median(ratios):.2g} %"


if __name__ == "__main__":
    main()
