"""Writes the logs of a run: console lines, logs/losses.logs, logs/metrics.csv, TensorBoard, pictures.

The numbers of the steps of an epoch are averaged into its row of metrics.csv.
"""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sharpstudent.config.run_config import RunConfig, TermSection
from sharpstudent.config.terms import TERMS, TermSpec
from sharpstudent.core.errors import UserError
from sharpstudent.core.schedules import Progress
from sharpstudent.core.types import Batch, StepResult
from sharpstudent.evaluation.renderer import load_renderer
from sharpstudent.report.console import print_line
from sharpstudent.report.curves import draw_curves
from sharpstudent.report.guide import advise_on_nan
from sharpstudent.report.logs import LossesLog, MetricsFile, format_epoch_line
from sharpstudent.report.tensorboard import TensorBoardLog
from sharpstudent.task import Task
from sharpstudent.train.run import Run
from sharpstudent.train.validate import PREFIX, STUDENT


def collect_metrics(result: StepResult) -> dict[str, float]:
    """Collect the numbers of a step that are averaged over the epoch; those that were not measured are left out."""
    others = {"perturbed_loss": result.perturbed_loss, "agreement": result.agreement}
    measured = {name: value for name, value in others.items() if value is not None}
    if result.perturbed_loss is not None:
        measured["ascents"] = 1.0
    return {"loss": result.loss, **measured, "grad_norm": result.grad_norm, **result.terms}


def compare_terms(
    means: Mapping[str, float],
    terms: Sequence[TermSection],
    numbers: Mapping[str, float],
    known: Mapping[str, TermSpec] = TERMS,
) -> dict[str, float | None]:
    """Compare the weighted losses of the terms that read a second model with those of the terms that do not.

    Args:
        means: Mean loss of each term over the epoch.
        terms: The terms of the criterion.
        numbers: The weight of each term as `TERM/weight`.
        known: All kinds of terms, by name.

    Returns:
        `kd_hard_ratio`: the sum of the former divided by the sum of the latter, or None if the latter have no weight.
        {} if no term reads a second model.
    """
    sides = {True: 0.0, False: 0.0}
    for term in terms:
        weighted = numbers[f"{term.name}/weight"] * means.get(term.name, 0.0)
        sides[known[term.term].source is not None] += weighted
    if all(known[term.term].source is None for term in terms):
        return {}
    return {"kd_hard_ratio": sides[True] / sides[False] if sides[False] > 0.0 else None}


def compare_sizes(
    row: Mapping[str, Any], terms: Sequence[TermSection], known: Mapping[str, TermSpec] = TERMS
) -> float | None:
    """Compare the terms that read a second model with the others as `compare_terms` does, but without their weights.

    A share of .9 for the teacher is chosen, and is no imbalance; losses of different size are one.

    Args:
        row: The row of an epoch, with `kd_hard_ratio` and the weights of the terms.
        terms: The terms of the criterion.
        known: All kinds of terms, by name.

    Returns:
        The mean loss of the former, by their weights, divided by that of the latter; None if one of them has no weight.
    """
    ratio, sides = row.get("kd_hard_ratio"), {True: 0.0, False: 0.0}
    for term in terms:
        sides[known[term.term].source is not None] += row.get(f"{term.name}/weight") or 0.0
    return ratio * sides[False] / sides[True] if ratio and all(sides.values()) else None


def build_epoch_row(
    epoch: int,
    sums: Mapping[str, float],
    metrics: Mapping[str, Any],
    terms: Sequence[TermSection],
    numbers: Mapping[str, float],
    *,
    lr: float,
    rho: float | None,
    skipped: int,
    chooses_ascents: bool = False,
    known: Mapping[str, TermSpec] = TERMS,
) -> dict[str, Any]:
    """Build the row of an epoch in metrics.csv; it has the same columns in every epoch.

    Args:
        epoch: The epoch, from 1.
        sums: The sums of the numbers that the epoch's steps logged; `steps` is the number of these steps.
        metrics: The metrics of the validation.
        terms: The terms of the criterion.
        numbers: Weights and settings of the terms at the last step.
        lr: Learning rate of the last step.
        rho: Radius of the last step, None in a run without a second pass.
        skipped: Steps skipped since the run began.
        chooses_ascents: Whether only some steps have a second pass; their share is then a column, `train_ascents`.
        known: All kinds of terms, by name.

    Returns:
        The row; a number that was not measured is None.

    Raises:
        ValueError: When two parts of the row have a column in common.
    """
    steps = sums.get("steps", 0.0)
    means = {name: total / steps for name, total in sums.items() if name != "steps" and steps}
    if "perturbed_loss" in means:  # the mean over the steps that have one
        means["perturbed_loss"] = sums["perturbed_loss"] / sums.get("ascents", steps)
    names = ["loss", *(["perturbed_loss"] if rho is not None else []), *(term.name for term in terms), "grad_norm"]
    if any(known[term.term].source == "teacher" for term in terms):
        names.append("agreement")
    if chooses_ascents:
        names.append("ascents")
    parts = (
        {"epoch": epoch},
        {f"train_{name}": means.get(name) for name in names},
        metrics,
        {"lr": lr} if rho is None else {"lr": lr, "rho": rho},
        compare_terms(means, terms, numbers, known),
        numbers,
        {"steps": int(steps), "skipped": skipped},
    )
    columns = Counter(name for part in parts for name in part)
    clash = sorted(name for name, count in columns.items() if count > 1)
    if clash:
        raise ValueError(f"two numbers of an epoch are called {clash}")
    return {name: value for part in parts for name, value in part.items()}


# The names that the seeds of this project use for their scalars.
TAGS = {
    "kd": "train/distill_loss",
    "hard": "train/hard_loss",
    "hard/weight": "train/alpha",
    "kd/weight": "train/distill_weight",
    "kd/temperature": "train/distill_temperature",
}


class RunLogger:
    """Writes all logs of a run. Rows of later epochs, left by an interrupted run, are dropped when it is opened."""

    def __init__(self, run: Run, task: Task, epoch: int, step: int, steps_done: int) -> None:
        """Open the logs of a run.

        Args:
            run: The run.
            task: The task, which names its metrics and draws batches.
            epoch: The next epoch, from 1.
            step: The next step of that epoch, from 0.
            steps_done: Steps since the run began.
        """
        self._run, self._renderer = run, load_renderer(task)
        # The task's first metric, and the selection metric if it is another one.
        selection = run.config.training.selection_metric
        self._shown = list(dict.fromkeys(f"{PREFIX}{name}" for name in (task.default_metric, selection)))
        self._best_name = "best" if len(self._shown) == 1 else f"best {PREFIX}{selection}"
        self._losses = LossesLog(run.logs_folder / "losses.logs", hide=run.hider.text)
        self._metrics = MetricsFile(run.logs_folder / "metrics.csv")
        for note in (*self._losses.repair(), *self._metrics.repair()):
            run.say(note)
        self._losses.drop_from(epoch, step)
        self._metrics.drop_after(epoch - 1)
        for note in run.notes:
            self.note(note)
        self._tensorboard = TensorBoardLog(
            run.logs_folder / "tensorboard", purge_step=steps_done + 1 if run.resumed_from else None
        )
        self._started = time.monotonic()

    def __enter__(self) -> RunLogger:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._tensorboard.close()
        except UserError:
            if kind is None:  # after an error, a second one from here would hide it
                raise

    @property
    def elapsed(self) -> float:
        """Seconds since this process began the stage."""
        return time.monotonic() - self._started

    def note(self, line: str) -> None:
        """Write a remark to logs/losses.logs."""
        self._losses.append(f"# {line}")

    def note_once(self, line: str) -> None:
        """Write a remark, unless the log holds it already, as that of a resumed run may."""
        if not self._losses.holds(f"# {line}"):
            self.note(line)

    def draw_batch(self, batch: Batch) -> None:
        """Draw logs/first_batch.png, what teacher and student see, where the task can draw it."""
        self._renderer.draw_batch(self._run.logs_folder / "first_batch.png", batch)

    def record_step(
        self,
        steps_done: int,
        result: StepResult,
        *,
        settings: Mapping[str, float],
        numbers: Mapping[str, float],
        skipped: int,
    ) -> None:
        """Write the scalars of a step to TensorBoard.

        Args:
            steps_done: Steps since the run began, this one included.
            result: The result of the step.
            settings: Learning rate and radius.
            numbers: Weights and settings of the terms.
            skipped: Steps skipped since the run began.
        """
        scalars: dict[str, float | None] = {TAGS.get(name, f"train/{name}"): value for name, value in numbers.items()}
        scalars |= {f"train/{name}": value for name, value in settings.items()}
        scalars["train/skipped_steps"] = float(skipped)
        if result.ok:
            scalars |= {TAGS.get(name, f"train/{name}"): value for name, value in result.terms.items()}
            scalars |= {"train/loss": result.loss, "train/grad_norm": result.grad_norm}
            scalars |= {"train/perturbed_loss": result.perturbed_loss, "train/agreement": result.agreement}
        self._tensorboard.scalars(scalars, steps_done)

    def record_skip(self, progress: Progress, result: StepResult, names: Sequence[str], kept: str | None) -> None:
        """Write down a skipped step.

        Args:
            progress: The epoch and number of the step.
            result: The result of the step, with the reason.
            names: The names of the rows of the batch.
            kept: A line that says where the batch is kept; None or empty for no line.
        """
        where = f"skipped epoch {progress.epoch} step {progress.step}: "
        what = f"{result.reason}; everything else is as before the step. "
        samples = f"Samples: {', '.join(names)}"
        self.note(f"{where}{what}{samples}{f'; {kept}' if kept else ''}")
        shown = f"{where}{what}{samples[:200]}"
        for line in (shown, f"  {kept}") if kept else (shown,):
            print_line(self._run.console, line)

    def record_epoch(self, row: Mapping[str, Any], epochs: int, *, best: tuple[int, float], new_best: bool) -> str:
        """Write an epoch to metrics.csv, losses.logs and TensorBoard, and draw the curves.

        Args:
            row: The row that `build_epoch_row` returned.
            epochs: The number of epochs of the stage.
            best: The best epoch so far and its selection metric.
            new_best: Whether this epoch is the best one.

        Returns:
            The line for the console, which is shorter than that of losses.logs.
        """
        row = self._metrics.drop_undefined(row)
        numbers = {name: value for name, value in row.items() if "/" in name}  # `hard/weight`, `kd/temperature`
        every = {name: row[name] for name in row if name not in ("epoch", "steps", "skipped") and name not in numbers}
        skipped = {"skipped": row["skipped"] or None}
        format_line = functools.partial(
            format_epoch_line, row["epoch"], epochs, best=best, new_best=new_best, best_name=self._best_name
        )
        self._metrics.widen(row)  # the file of a run begun by an earlier version has fewer columns
        self._metrics.append(row)
        self._losses.append(format_line({**every, **skipped}, schedules=numbers))
        for prefix in (PREFIX, STUDENT):
            measured = {name: row[name] for name in row if name.startswith(prefix)}
            tags = {f"{prefix[:-1]}/{name.removeprefix(prefix)}": value for name, value in measured.items()}
            self._tensorboard.scalars(tags, row["epoch"])
        self._tensorboard.flush()
        picture, title = self._run.logs_folder / "curves.png", self._run.folder.name
        draw_curves(picture, self._metrics.path, best_epoch=best[0], metric=self._shown[-1], title=title)
        terms = dict.fromkeys(name.split("/", 1)[0] for name in numbers)
        shorter = {"loss": row["train_loss"], **{term: row.get(f"train_{term}") for term in terms}}
        shorter |= {f"{name}{end}": row.get(f"{name}{end}") for name in self._shown for end in ("", "_ema")}
        shorter |= {"agreement": row.get("train_agreement"), **skipped}
        is_plain = list(numbers) == ["hard/weight"]  # stage 1: hard labels alone
        return format_line(shorter, schedules={} if is_plain else numbers)

    def explain_stop(self, in_a_row: int, last: StepResult, *, stage1_accuracy: float | None = None) -> str:
        """Say why the run stopped after too many skipped steps, with the guide's advice and the intact checkpoints.

        Args:
            in_a_row: Steps that were skipped one after another.
            last: The result of the last of them.
            stage1_accuracy: The accuracy of the student that stage 2 began with, 0..1; None where it is not known.
        """
        stage1 = self._run.config.student.weights
        guide = advise_on_nan(checkpoint=stage1, stage1_accuracy=stage1_accuracy)
        advice = guide if self._run.config.stage == 2 else _advise_in_stage_1(self._run.config)
        intact = [name for name in ("best_model.pth", "last.pth") if (self._run.weights_folder / name).is_file()]
        left = f"intact in {self._run.weights_folder}: {' and '.join(intact)}, as of the last whole epoch"
        return "\n".join([f"{in_a_row} steps in a row were skipped; the last because {last.reason}.", *advice, left])


class SilentLogger(RunLogger):
    """Writes nothing: the log of a rank that only computes."""

    def __init__(self, run: Run, task: Task, epoch: int, step: int, steps_done: int) -> None:
        """Open nothing.

        Args:
            run: The run.
            task: The task.
            epoch: The next epoch, from 1.
            step: The next step of that epoch, from 0.
            steps_done: Steps since the run began.
        """
        self._run, self._started = run, time.monotonic()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        pass

    def note(self, line: str) -> None:
        """Write nothing."""

    def note_once(self, line: str) -> None:
        """Write nothing."""

    def draw_batch(self, batch: Batch) -> None:
        """Draw nothing."""

    def record_step(
        self,
        steps_done: int,
        result: StepResult,
        *,
        settings: Mapping[str, float],
        numbers: Mapping[str, float],
        skipped: int,
    ) -> None:
        """Write nothing."""

    def record_skip(self, progress: Progress, result: StepResult, names: Sequence[str], kept: str | None) -> None:
        """Write nothing."""


def _advise_in_stage_1(config: RunConfig) -> list[str]:
    return [
        "Losses are not finite. Check, in this order:",
        "  1. the pictures of the samples named in logs/losses.logs",
        f"  2. a lower learning rate: --set stage1.lr={config.optimizer.lr / 10:g}",
        f"  3. a smaller SAM radius: --set stage1.rho={min(0.02, config.optimizer.rho / 2):g}",
    ]
