"""Implements --replay: takes a skipped step again, from its files, under the NaN inspector."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sharpstudent.config.resolve import START_KEYS, name_weights_key
from sharpstudent.config.run_config import RunConfig
from sharpstudent.core.errors import UserError
from sharpstudent.core.types import Batch, StepResult
from sharpstudent.models.teachers import name_teachers
from sharpstudent.report.guide import advise_on_nan
from sharpstudent.train.build import choose_memory_format
from sharpstudent.train.debug.nan_inspector import (
    Fault,
    InspectedPass,
    find_bad_rows,
    inspect_step,
    measure,
)
from sharpstudent.train.debug.skipped import Skipped, describe_computer, load_skipped
from sharpstudent.train.oom import is_out_of_memory
from sharpstudent.train.preflight.teacher_heads import restore_heads
from sharpstudent.train.preflight.temperature import restore_calibrations
from sharpstudent.train.run import Run
from sharpstudent.train.state import list_misfits, restore_step
from sharpstudent.train.step import TrainStep, find_floats
from sharpstudent.train.tuning import start_training

MOST_NAMES = 3  # of rows, weights or differences in a line
PASSES = {"pass 1": "pass 1, at the weights", "pass 2": "pass 2, at the weights moved by rho"}


def replay_step(run: Run, step: TrainStep, path: Path) -> None:
    """Take a skipped step again and say what happens. Writes nothing.

    Args:
        run: The run whose step is replayed.
        step: Models and optimiser, as the run's config builds them.
        path: The file with the batch of the step.

    Raises:
        UserError: For a file that is damaged or holds no skipped step, for the state of another model, when the heads
            or temperatures of the teachers are gone from the run folder, and when memory runs out.
    """
    kept, folder, teachers = load_skipped(path), path.absolute().parent.parent, name_teachers(run.config, step.teacher)
    misfits = list_misfits(kept.state, step)
    if misfits:
        raise UserError.about(
            where=f"--replay {path}",
            what="was kept of another model or optimiser than the run's config.json builds",
            got="\n".join(misfits),
            remedy="replay it in the folder of its own run, with the versions that environment.json there names",
        )
    restore_heads(run.config, teachers, folder / "weights", say=run.say)
    restore_calibrations(run.config, teachers, folder / "logs")
    batch = kept.batch.to(run.device, memory_format=choose_memory_format(run.config.compute))
    try:
        _restore(step, kept)
        result = step(batch, kept.progress)
        _restore(step, kept)  # the inspected step may have updated weights and statistics
        bad_weights = _find_bad_tensors(step.student)
        seen = inspect_step(step, batch, kept.progress)
    except Exception as error:
        if is_out_of_memory(error):
            remedy = "--set device=cpu, or a machine like that of the run"
            raise UserError.about(f"--replay {path}", "memory ran out", remedy=remedy) from error
        raise
    average = None if step.average is None else step.average.model
    for line in (
        *_describe_outcome(kept, result, describe_computer(run.device)),
        _describe_settings(kept, step),
        *describe_batch(batch),
        *(f"student: weights not finite before the step: {name}" for name in bad_weights[:MOST_NAMES]),
        *_describe_model("teacher", step.teacher, seen.teacher_outputs, seen.teacher_fault, batch),
        *_describe_model("averaged weights", average, seen.average_outputs, seen.average_fault, batch),
        *(line for one in seen.passes if one.inputs for line in _describe_pass(one, batch)),
        *_describe_buffer(seen.passes[0], result.reason or ""),
        *_advise(run.config, batch, result, bad_weights),
    ):
        run.say(line)


def _restore(step: TrainStep, kept: Skipped) -> None:
    """Restore the state before the step, and the settings of the step."""
    device = next(step.student.parameters()).device.type
    random = {name: value for name, value in kept.state["rng"].items() if name in ("torch", "python", device)}
    restore_step(step, {**kept.state, "rng": random})
    step.optimizer.set_lr(kept.settings["lr"])
    step.optimizer.set_rho(kept.settings["rho"])
    step.parts = int(kept.settings["parts"])
    start_training(step.student)


def _describe_outcome(kept: Skipped, result: StepResult, computer: Mapping[str, Any]) -> list[str]:
    """Say whether the step ended as in the run, and if not, what the cause may be."""
    where = f"epoch {kept.progress.epoch} step {kept.progress.step}"
    if result.reason == kept.reason:
        return [f"{where}, taken again: the same, skipped because {result.reason}"]
    now = f"taken, with loss {result.loss:.4f}" if result.ok else f"skipped because {result.reason}"
    then = kept.computed_on
    changes = [f"{name} {then.get(name)} -> {value}" for name, value in computer.items() if then.get(name) != value]
    return [
        f"{where}, taken again: not the same. Now: {now}. In the run: skipped because {kept.reason}",
        f"  computed differently from the run: {', '.join(changes)}"
        if changes
        else "  computed on the same kind of machine: the teacher's file or this program may have changed",
    ]


def _describe_settings(kept: Skipped, step: TrainStep) -> str:
    settings = {"lr": kept.settings["lr"], "rho": kept.settings["rho"], **step.criterion.describe(kept.progress)}
    words = [f"{name.replace('/', ' ')} {value:.4g}" for name, value in settings.items()]
    words += [f"{step.parts} micro-batches"] if step.parts > 1 else []
    words += [f"loss scale {step.loss_scale.value:g}"] if step.loss_scale is not None else []
    return f"settings: {', '.join(words)}"


def describe_batch(batch: Batch) -> list[str]:
    """Describe the rows and inputs of a batch, and name the rows with an input that is not finite."""
    floats, shared = find_floats(batch.inputs), batch.shared
    shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in batch.inputs.items())
    by_row = {name: x[batch.inputs[shared[name]]] if name in shared else x for name, x in batch.inputs.items()}
    bad = find_bad_rows(find_floats(by_row))
    line = f"batch: {len(batch)} rows, {shapes}, values {measure(*floats)}"
    return [line, *([f"  inputs not finite: {_name_rows(batch, bad)}"] if bad else [])]


def _describe_model(
    who: str, model: nn.Module | None, outputs: Tensor | None, fault: Fault | None, batch: Batch
) -> list[str]:
    """Describe the outputs of a model that is not trained."""
    if model is None or outputs is None:
        return []
    lines = [f"{who}: outputs {measure(outputs)}"]
    bad = find_bad_rows([outputs])
    if bad:
        lines += [f"  not finite for {_name_rows(batch, bad)}", *_describe_fault(fault)]
        lines += [f"  weights not finite: {name}" for name in _find_bad_tensors(model)[:MOST_NAMES]]
    return lines


def _describe_pass(seen: InspectedPass, batch: Batch) -> list[str]:
    lines = [f"{PASSES[seen.name]}:"]
    outputs = [] if seen.outputs is None else [seen.outputs]
    if seen.fault is None:
        lines.append(f"  student: the output of every layer is finite; outputs {measure(*outputs)}")
    else:
        bad = find_bad_rows(outputs)
        lines += _describe_fault(seen.fault)
        lines += [f"  outputs not finite for {_name_rows(batch, bad)}"] if bad else []
    if seen.values:
        terms = ", ".join(f"{name} {value:.4g}" for name, value in seen.terms.items())
        lines.append(f"  loss {seen.loss:.4g} ({terms})")
    if seen.grad_norm is not None:
        lines.append(f"  gradient: norm {seen.grad_norm:.4g}; {_describe_gradients(seen.gradients)}")
    return lines


def _describe_buffer(first: InspectedPass, reason: str) -> list[str]:
    """Name the layer whose statistics overflowed: they hold squares of its inputs, while its output may be finite."""
    layer = next((name for name in first.inputs if name and reason.startswith(f"the buffer {name}.")), None)
    return [] if layer is None else [f"  {layer} took in {first.inputs[layer]}: statistics are squares of that"]


def _describe_fault(fault: Fault | None) -> list[str]:
    if fault is None:
        return []
    return [
        f"  first output that is not finite: {fault.name} ({fault.kind}), {fault.output}",
        f"    its input was finite: {fault.inputs}",
    ]


def _describe_gradients(gradients: Mapping[str, float]) -> str:
    """Name the weights with the largest gradients, or those whose gradients are not finite.

    `backward` goes from the loss to the inputs, so the last layers of the network are the first with such a gradient.
    """
    bad = [name for name, value in gradients.items() if not math.isfinite(value)]
    if bad:
        nearest = ", ".join(bad[: -MOST_NAMES - 1 : -1])
        return f"not finite in {len(bad)} of {len(gradients)} weights, nearest to the loss {nearest}"
    largest = sorted(gradients, key=lambda name: -gradients[name])[:MOST_NAMES]
    return f"largest in {', '.join(f'{name} {gradients[name]:.4g}' for name in largest)}"


def _advise(config: RunConfig, batch: Batch, result: StepResult, bad_weights: Sequence[str]) -> list[str]:
    """Say what to try against the first cause that is found; later ones may only follow from it."""
    if result.ok:
        return ["nothing to fix here: the step goes well. Replay it where the run was made."]
    reason, stage, optimizer = result.reason or "", f"stage{config.stage}", config.optimizer
    if find_bad_rows(find_floats(batch.inputs)):
        return [
            "to fix: the samples named above are not finite before any model sees them; repair or remove their files"
        ]
    if bad_weights:
        start = f"student_init = {config.student.init!r}"
        if config.student.weights is not None:
            start = f"{START_KEYS[config.stage]} = {config.student.weights!r}"
        return [f"to fix: the student's weights were not finite before this step; it began with {start}"]
    precision = config.compute.precision
    precise = [] if precision == "fp32" else [f"  --set precision=fp32  (now {precision})"]
    if config.teachers and "teacher" in reason:
        files = [f"{name_weights_key(config, i)} = {one.weights!r}" for i, one in enumerate(config.teachers)]
        return [f"to fix: the weights of the teacher, {' or '.join(files)}", *precise]
    lines = ["to try, one at a time, in a new run:", *precise]
    if "pass 2" in reason:  # the loss at w was finite, so the step to w + e is too long
        rho = min(0.05, optimizer.rho / 2)
        lines += [f"  --set {stage}.rho={rho:g}  (now {optimizer.rho:g}; a smaller SAM radius)"]
        rise = f"  --set {stage}.rho_warmup=0.1  (now 0; SAM's radius rises from 0)"
        return lines if optimizer.rho_warmup else [*lines, rise]
    lines += [f"  --set {stage}.lr={optimizer.lr / 10:g}  (now {optimizer.lr:g}; a lower learning rate)"]
    lines += [] if optimizer.warmup else [f"  --set {stage}.warmup=0.05  (now 0; the learning rate rises from 0)"]
    return lines + (advise_on_nan(checkpoint=config.student.weights) if config.stage == 2 else [])


def _name_rows(batch: Batch, rows: Sequence[int]) -> str:
    if len(rows) == len(batch) > MOST_NAMES:
        return f"all {len(rows)} rows"
    more = f" and {len(rows) - MOST_NAMES} more" if len(rows) > MOST_NAMES else ""
    return ", ".join(batch.rows["id"][row] for row in rows[:MOST_NAMES]) + more


def _find_bad_tensors(model: nn.Module) -> list[str]:
    """Name the weights and buffers that hold a value that is not finite."""
    return [name for name, tensor in model.state_dict().items() if measure(tensor).not_finite]
