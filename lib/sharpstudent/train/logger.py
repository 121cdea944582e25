"""What a run writes down while it trains: console lines, logs/losses.logs, logs/metrics.csv, TensorBoard, pictures.

The metrics of an epoch are collected from its steps and become its row of metrics.csv.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from sharpstudent.config.run_config import TermSection
from sharpstudent.config.terms import TERMS, TermSpec
from sharpstudent.core.errors import UserError
from sharpstudent.core.schedules import Progress
from sharpstudent.core.types import Batch, StepResult
from sharpstudent.evaluation.renderer import load_renderer
from sharpstudent.report.curves import draw_curves
from sharpstudent.report.guide import advise_on_nan
from sharpstudent.report.logs import LossesLog, MetricsFile, format_epoch_line
from sharpstudent.report.tensorboard import TensorBoardLog
from sharpstudent.task import Task
from sharpstudent.train.run import Run
from sharpstudent.train.validate import PREFIX


def name_figures(result: StepResult) -> dict[str, float]:
    """The figures of a step whose means make up an epoch's."""
    others = {"perturbed_loss": result.perturbed_loss, "agreement": result.agreement}
    there = {name: value for name, value in others.items() if value is not None}
    return {"loss": result.loss, **there, "grad_norm": result.grad_norm, **result.terms}


def build_training_columns(
    means: Mapping[str, float],
    terms: Sequence[TermSection],
    *,
    with_second_pass: bool,
    known: Mapping[str, TermSpec] = TERMS,
) -> dict[str, float | None]:
    """`train_*` of an epoch, the same columns in each: None where no step was taken or a term had no weight."""
    names = ["loss", *(["perturbed_loss"] if with_second_pass else []), *(term.name for term in terms), "grad_norm"]
    if any(known[term.term].asks == "teacher" for term in terms):
        names.append("agreement")
    return {f"train_{name}": means.get(name) for name in names}


def compare_terms(
    means: Mapping[str, float],
    terms: Sequence[TermSection],
    numbers: Mapping[str, float],
    known: Mapping[str, TermSpec] = TERMS,
) -> dict[str, float | None]:
    """`kd_hard_ratio`: the weighted losses of the terms that ask somebody over those of the terms that do not; None
    where the latter weigh nothing. No column where no term asks.

    numbers: the weight of each term, as the criterion describes itself.
    """
    sides = {True: 0.0, False: 0.0}
    for term in terms:
        weighted = numbers[f"{term.name}/weight"] * means.get(term.name, 0.0)
        sides[known[term.term].asks is not None] += weighted
    if all(known[term.term].asks is None for term in terms):
        return {}
    return {"kd_hard_ratio": sides[True] / sides[False] if sides[False] > 0.0 else None}


def mean_of(sums: Mapping[str, float]) -> tuple[dict[str, float], int]:
    """Means of what steps have summed up, and how many steps those were (`sums["steps"]`)."""
    steps = sums.get("steps", 0.0)
    return {name: total / steps for name, total in sums.items() if name != "steps" and steps}, int(steps)


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
    known: Mapping[str, TermSpec] = TERMS,
) -> dict[str, Any]:
    """An epoch's row of metrics.csv. sums: of its steps; known: the terms that there are;
    numbers: those of the terms at its last step; lr and rho: of that step, None without a second pass.
    """
    means, steps = mean_of(sums)
    return join_row(
        {"epoch": epoch},
        build_training_columns(means, terms, with_second_pass=rho is not None, known=known),
        metrics,
        {"lr": lr},
        {} if rho is None else {"rho": rho},
        compare_terms(means, terms, numbers, known),
        numbers,
        {"steps": steps, "skipped": skipped},
    )


def join_row(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """One row out of its parts; ValueError where two of them have a column in common."""
    row: dict[str, Any] = {}
    for part in parts:
        clash = sorted(set(row) & set(part))
        if clash:
            raise ValueError(f"two figures of an epoch are called {clash}")
        row |= part
    return row


# The names that the seeds of this project use for their scalars.
TAGS = {
    "kd": "train/distill_loss",
    "hard": "train/hard_loss",
    "hard/weight": "train/alpha",
    "kd/weight": "train/distill_weight",
    "kd/temperature": "train/distill_temperature",
}


class Journal:
    """Opened for the epochs that are still to do: rows of later epochs, left by an interrupted run, are dropped."""

    def __init__(self, run: Run, task: Task, epoch: int, step: int, steps_done: int) -> None:
        self._run, self._renderer = run, load_renderer(task)
        self._metric = f"{PREFIX}{run.config.training.selection_metric}"  # which ranks epochs
        self._headline = f"{PREFIX}{task.default_metric}"  # which everybody knows
        self._losses = LossesLog(run.logs_folder / "losses.logs")
        self._metrics = MetricsFile(run.logs_folder / "metrics.csv")
        self._losses.drop_from(epoch, step)
        self._metrics.drop_after(epoch - 1)
        for note in run.notes:
            self.note(note)
        self._tensorboard = TensorBoardLog(
            run.logs_folder / "tensorboard", purge_step=steps_done + 1 if run.resumed_from else None
        )
        self._started = time.monotonic()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._tensorboard.close()
        except UserError:
            if kind is None:  # else what ended the run is to be told, not that the last scalars were lost with it
                raise

    @property
    def elapsed(self) -> float:
        """Seconds since this process began the stage."""
        return time.monotonic() - self._started

    def note(self, line: str) -> None:
        """A remark for logs/losses.logs."""
        self._losses.append(f"# {line}")

    def note_once(self, line: str) -> None:
        """A remark that a resumed run would otherwise make again."""
        if f"# {line}" not in self._losses.read():
            self.note(line)

    def draw_batch(self, batch: Batch) -> None:
        """logs/first_batch.png: what teacher and student see, where the task can draw it."""
        self._renderer.draw_batch(self._run.logs_folder / "first_batch.png", batch)

    def record_step(
        self,
        steps_done: int,
        result: StepResult,
        *,
        settings: Mapping[str, float],
        steering: Mapping[str, float],
        skipped: int,
    ) -> None:
        """One step's scalars for TensorBoard, at the number of steps done with it."""
        scalars: dict[str, float | None] = {TAGS.get(name, f"train/{name}"): value for name, value in steering.items()}
        scalars |= {f"train/{name}": value for name, value in settings.items()}
        scalars["train/skipped_steps"] = float(skipped)
        if result.ok:
            scalars |= {TAGS.get(name, f"train/{name}"): value for name, value in result.terms.items()}
            scalars |= {"train/loss": result.loss, "train/grad_norm": result.grad_norm}
            scalars |= {"train/perturbed_loss": result.perturbed_loss, "train/agreement": result.agreement}
        self._tensorboard.scalars(scalars, steps_done)

    def record_skip(self, progress: Progress, result: StepResult, batch: Batch, kept: str | None) -> None:
        """A skipped step, with the samples that were in it and where they are kept."""
        where = f"skipped epoch {progress.epoch} step {progress.step}: "
        what = f"{result.reason}; everything else is as before the step. "
        samples = f"Samples: {', '.join(batch.rows['id'])}"
        self.note(f"{where}{what}{samples}{f'; {kept}' if kept else ''}")
        shown = f"{where}{what}{samples[:200]}"
        for line in (shown, f"  {kept}") if kept else (shown,):
            self._run.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def record_epoch(self, row: Mapping[str, Any], epochs: int, *, best: tuple[int, float], new_best: bool) -> str:
        """The epoch's row in metrics.csv, its line in losses.logs, its scalars, the curves; returns the line."""
        left_out = ("epoch", "steps", "skipped")
        shown = {name: value for name, value in row.items() if name not in left_out and "/" not in name}
        if row["skipped"]:
            shown["skipped"] = row["skipped"]
        steering = _find_steering(row)
        named = {"best": best, "new_best": new_best, "best_name": self._name_best()}
        line = format_epoch_line(row["epoch"], epochs, shown, **named, steering=steering)
        self._metrics.widen(row)  # a run that an earlier version began has fewer figures
        self._metrics.append(row)
        self._losses.append(line)
        validation = {f"val/{name.removeprefix('val_')}": row[name] for name in row if name.startswith("val_")}
        self._tensorboard.scalars(validation, row["epoch"])
        self._tensorboard.flush()
        picture, title = self._run.logs_folder / "curves.png", self._run.folder.name
        draw_curves(picture, self._metrics.path, best_epoch=best[0], metric=self._metric, title=title)
        return self._shorten(row, epochs, best, new_best)

    def _name_best(self) -> str:
        """`best` alone for the metric that everybody knows."""
        return "best" if self._metric == self._headline else f"best {self._metric}"

    def _shorten(self, row: Mapping[str, Any], epochs: int, best: tuple[int, float], new_best: bool) -> str:
        """The console's line: what a person follows; everything else is in the files."""
        told = dict.fromkeys((self._headline, f"{self._headline}_ema", self._metric, f"{self._metric}_ema"))
        shown = {
            "loss": row["train_loss"],
            **{name.removeprefix("train_"): row[name] for name in _find_term_losses(row)},
            **{name: row.get(name) for name in told},
            "agreement": row.get("train_agreement"),
            "skipped": row["skipped"] or None,
        }
        steering = _find_steering(row)
        is_plain = list(steering) == ["hard/weight"]  # stage 1: hard labels alone
        return format_epoch_line(
            row["epoch"],
            epochs,
            shown,
            best=best,
            new_best=new_best,
            best_name=self._name_best(),
            steering={} if is_plain else steering,
        )

    def explain_stop(self, in_a_row: int, last: StepResult, *, stage1_accuracy: float | None = None) -> str:
        """Why training stopped itself, with the guide's advice and what is left intact; stage1_accuracy: 0..1, of the
        student that stage 2 began with, where it is known.
        """
        stage1 = self._run.config.student.weights
        told = advise_on_nan(checkpoint=stage1, stage1_accuracy=stage1_accuracy)
        advice = told if self._run.config.stage == 2 else _ADVICE_STAGE_1
        intact = [name for name in ("best_model.pth", "last.pth") if (self._run.weights_folder / name).is_file()]
        left = f"intact in {self._run.weights_folder}: {' and '.join(intact)}, as of the last whole epoch"
        return "\n".join([f"{in_a_row} steps in a row were skipped; the last because {last.reason}.", *advice, left])


_ADVICE_STAGE_1 = [
    "Losses are not finite. Check, in this order:",
    "  1. the pictures of the samples named in logs/losses.logs",
    "  2. a lower learning rate: --set stage1.lr=...",
    "  3. a smaller SAM radius: --set rho=0.02",
]


def _find_steering(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that steer the terms: `hard/weight`, `kd/temperature` and the like."""
    return {name: value for name, value in row.items() if "/" in name}


def _find_term_losses(row: Mapping[str, Any]) -> list[str]:
    """The columns of the terms' mean losses, in order."""
    terms = dict.fromkeys(name.split("/", 1)[0] for name in _find_steering(row))
    return [f"train_{term}" for term in terms if f"train_{term}" in row]
