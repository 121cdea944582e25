"""The loop: train an epoch, validate, record, keep the best; from the start or from where a run was left."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lib.checkpoint.resume import load_run_state, save_run_state
from lib.checkpoint.selection import BestCheckpoints
from lib.checkpoint.store import save_checkpoint
from lib.config.sections import SCRIPTS
from lib.data.loader import LoadedBatch, Replaced, load_batches
from lib.data.order import TrainOrder
from lib.engine.evaluate import compute_scores
from lib.engine.journal import Journal
from lib.engine.position import Position, capture_step, refuse_other_model, restore_step
from lib.engine.run import Interrupts, Run, StopRequested
from lib.engine.step import TrainStep
from lib.engine.task import Task, TaskData
from lib.errors import ExitCode, Problem, RunInterrupted, TrainingStopped, UserError
from lib.metrics.checks import MetricError
from lib.report.console import ProgressLine
from lib.schedules import Progress, Schedule
from lib.types import Batch, StepResult

UNREADABLE_LIMIT = 0.05  # above this share of the set, training on what is left would be another data set
EVALUATION_ITEMS = 16  # items a batch when nothing is learnt


@dataclass(frozen=True)
class FitResult:
    """What a stage ended with. best: epoch and value of the selection metric; start_value: before the first step
    (stage 2).
    """

    best_epoch: int
    best_value: float
    last_metrics: Mapping[str, float]
    start_value: float | None
    skipped: int
    seconds: float
    epochs_done: int


class Trainer:
    """Everything a stage needs, put together by the script. `fit` does the work."""

    def __init__(
        self, run: Run, task: Task, data: TaskData, step: TrainStep, lr_schedule: Schedule, about: Mapping[str, Any]
    ) -> None:
        training = run.config.training
        self._run, self._task, self._data, self._step = run, task, data, step
        self._lr_schedule, self._about = lr_schedule, dict(about)
        self._epochs, self._max_skipped = training.epochs, training.max_skipped_in_a_row
        self._order = TrainOrder(len(data.train), training.batch_size, data.repeats, run.config.seed)
        self._position = Position()
        self._unreadable: dict[str, str] = {}
        for note in data.notes:
            run.say(note)
        items = len(data.train) * data.repeats
        if items < training.batch_size:
            run.say(f"a batch of {training.batch_size} items is more than there are: every batch holds all {items}")

    def fit(self) -> FitResult | None:
        """Train to the end. None after a dry run.

        Raises RunInterrupted (state saved) on SIGINT or SIGTERM, TrainingStopped when too many steps in a row are
        skipped, when a validation score is not finite, or when too many items cannot be read.
        """
        if self._run.dry_run:
            return self._try_one_batch()
        if self._run.is_resumed:
            self._restore()  # before anything in the folder is written: a refused resume leaves it as it was
        self._run.create_folder()
        if not self._run.is_resumed:
            self._selection = self._open_selection()
            self._save_state()  # so that a run killed in its first epoch can be resumed, too
        self._journal = Journal(self._run, self._position.epoch, self._count_steps(self._position))
        with Interrupts() as self._interrupts, self._journal:
            try:
                return self._fit()
            except StopRequested as stop:
                self._save_state()
                raise RunInterrupted(f"interrupted at {self._describe_stop('saved')}", stop.exit_code) from None
            except KeyboardInterrupt:
                told = self._describe_stop("this point is not saved; the last save is whole")
                raise RunInterrupted(f"stopped at once in {told}", ExitCode.INTERRUPTED) from None
            except MetricError as error:
                raise TrainingStopped(f"epoch {self._position.epoch}: {error}") from error

    def _fit(self) -> FitResult:
        position = self._position
        metrics: dict[str, float] = {}
        first_epoch = position.epoch
        if self._step.teacher is not None and position.start_auc is None:
            self._run.say("validating the student as it came from stage 1 ...")
            position.start_auc = self._validate()[self._task.selection_metric]
            self._run.say(f"before stage 2: {self._task.selection_metric} {position.start_auc:.4f}")
        title = f"stage {self._run.config.stage}"
        with ProgressLine(self._run.console, self._epochs, self._order.steps_per_epoch, title) as progress_line:
            self._progress_line = progress_line
            while position.epoch <= self._epochs:
                self._train_epoch()
                progress_line.status("validating")
                metrics = self._validate()
                self._finish_epoch(metrics)
        best = self._selection.best
        assert best is not None
        return FitResult(
            best_epoch=best.epoch,
            best_value=best.value,
            last_metrics=metrics,
            start_value=position.start_auc,
            skipped=position.skipped,
            seconds=self._journal.elapsed,
            epochs_done=self._epochs - first_epoch + 1,
        )

    def _train_epoch(self) -> None:
        """Take the steps of the epoch that are still to do."""
        position, step = self._position, self._step
        step.student.train()
        batches = self._order.batches(position.epoch, start_step=position.step)
        loader = load_batches(
            self._data.train, batches, seed=self._run.config.seed, num_workers=self._run.config.num_workers
        )
        for loaded in loader:
            self._interrupts.raise_if_asked()
            self._report_unreadable(loaded.replaced)
            batch = loaded.batch.to(self._run.device)
            if (position.epoch, position.step) == (1, 0):
                self._journal.draw_batch(batch)
            progress = Progress(position.epoch, position.step, self._epochs, self._order.steps_per_epoch)
            lr = self._lr_schedule(progress)
            step.optimizer.set_lr(lr)
            result = self._take_step(batch, progress)
            self._count(result, batch, progress, lr)
            position.step += 1
        self._interrupts.raise_if_asked()

    def _take_step(self, batch: Batch, progress: Progress) -> StepResult:
        try:
            return self._step(batch, progress)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            stage = self._run.config.stage
            raise UserError(
                Problem(
                    where=f"stage{stage}.batch_size",
                    what="is too small: BatchNorm cannot normalise one picture whose last feature map is one pixel",
                    got=f"batches of {tuple(batch.inputs.shape)}",
                    remedy=f"--set stage{stage}.batch_size={2 * len(batch)}, or a larger image_size",
                )
            ) from None

    def _count(self, result: StepResult, batch: Batch, progress: Progress, lr: float) -> None:
        """Counters, sums and logs advance here, once a step."""
        position = self._position
        position.skipped_in_a_row = 0 if result.ok else position.skipped_in_a_row + 1
        position.skipped += not result.ok
        if result.ok:
            values = {"loss": result.loss, "grad_norm": result.grad_norm, **result.terms}
            for name, value in values.items():
                position.sums[name] += value
            position.sums["steps"] += 1
        self._journal.record_step(
            self._count_steps(position) + 1,
            result,
            lr=lr,
            steering=self._step.criterion.describe(progress),
            skipped=position.skipped,
        )
        self._progress_line.step(progress.epoch, progress.step, loss=result.loss, lr=lr, skipped=position.skipped)
        if not result.ok:
            self._journal.record_skip(progress, result, batch)
        if position.skipped_in_a_row >= self._max_skipped:
            raise TrainingStopped(self._journal.explain_stop(position.skipped_in_a_row, result))

    def _validate(self) -> dict[str, float]:
        scores, replaced = compute_scores(
            self._step.student,
            self._data.validation,
            seed=self._data.evaluation_seed,
            batch_size=EVALUATION_ITEMS,
            num_workers=self._run.config.num_workers,
            device=self._run.device,
            between_batches=self._interrupts.raise_if_asked,
        )
        self._report_unreadable(replaced)
        return self._task.compute_metrics(scores)

    def _finish_epoch(self, metrics: Mapping[str, float]) -> None:
        """Select, record, and save the state from which the next epoch starts."""
        position = self._position
        value = metrics[self._task.selection_metric]
        new_best = self._selection.consider(position.epoch, value, lambda path: self._save_model(path, metrics))
        best = self._selection.best
        assert best is not None
        steps = position.sums.pop("steps", 0.0)
        means = {name: total / steps for name, total in position.sums.items()}
        progress = Progress(position.epoch, self._order.steps_per_epoch - 1, self._epochs, self._order.steps_per_epoch)
        row = {
            "epoch": position.epoch,
            **{f"train_{name}": means.get(name) for name in ("loss", *self._term_names(), "grad_norm")},
            **metrics,
            "lr": self._lr_schedule(progress),
            **self._step.criterion.describe(progress),
            "steps": int(steps),
            "skipped": position.skipped,
        }
        line = self._journal.record_epoch(row, self._epochs, best=(best.epoch, best.value), new_best=new_best)
        self._progress_line.epoch(line)
        position.epoch, position.step, position.sums = position.epoch + 1, 0, defaultdict(float)
        self._save_state()

    def _term_names(self) -> list[str]:
        return [term.name for term in self._step.criterion.terms]

    def _save_model(self, path: Any, metrics: Mapping[str, float]) -> None:
        about = {**self._about, "epoch": self._position.epoch, **metrics}
        save_checkpoint(path, {"model": self._step.student.state_dict()}, about=about)

    def _save_state(self) -> None:
        save_run_state(
            self._run.weights_folder,
            tensors=capture_step(self._step, self._run.device),
            progress={
                **self._about,
                "position": self._position.to_json(),
                "selection": self._selection.state(),
            },
        )

    def _open_selection(self) -> BestCheckpoints:
        keep = self._run.config.training.keep_best
        return BestCheckpoints(self._run.weights_folder, keep=keep, metric=self._task.selection_metric)

    def _restore(self) -> None:
        """Take up the run where its last state was saved: weights, optimiser, random states, position, selection."""
        state = load_run_state(self._run.weights_folder)
        refuse_other_model(state, self._step, self._about, self._run.folder)
        self._selection = self._open_selection()
        restore_step(self._step, state.tensors)
        self._position = Position.from_json(state.progress["position"])
        notes = [*state.notes, *self._selection.restore(state.progress["selection"])]
        at = f"epoch {self._position.epoch}, step {self._position.step}"
        for note in [f"resuming {self._run.resumed_from} at {at}", *notes]:
            self._run.say(note)

    def _report_unreadable(self, replaced: tuple[Replaced, ...]) -> None:
        """Name each item that could not be read once; stop when there are too many."""
        for item in replaced:
            if item.path not in self._unreadable:
                self._unreadable[item.path] = item.reason
                line = f"left out {item.path}: {item.reason}; another item takes its place"
                self._run.say(line)
                if not self._run.dry_run:
                    self._journal.note(line)
        known = len(self._data.train) + len(self._data.validation)
        if len(self._unreadable) > max(1, UNREADABLE_LIMIT * known):
            raise TrainingStopped(
                f"{len(self._unreadable)} of {known} items cannot be read (more than {UNREADABLE_LIMIT:.0%}); "
                "the list is above: mend or remove them"
            )

    def _try_one_batch(self) -> None:
        """--dry-run: one batch through loading, teacher and step; nothing is written."""
        first = next(iter(self._order.batches(1)))
        loaded: LoadedBatch = next(load_batches(self._data.train, [first], seed=self._run.config.seed, num_workers=0))
        self._report_unreadable(loaded.replaced)
        progress = Progress(1, 0, self._epochs, self._order.steps_per_epoch)
        self._step.optimizer.set_lr(self._lr_schedule(progress))
        self._step.student.train()
        result = self._take_step(loaded.batch.to(self._run.device), progress)
        terms = ", ".join(f"{name} {value:.4f}" for name, value in result.terms.items())
        shape = tuple(loaded.batch.inputs.shape)
        self._run.say(
            f"dry run: batch {shape}, step {result.status}"
            + (f", loss {result.loss:.4f} ({terms})" if result.ok else f": {result.reason}")
        )
        self._run.say(
            f"dry run: {self._order.steps_per_epoch} steps an epoch, {self._epochs} epochs; nothing was written"
        )

    def _count_steps(self, position: Position) -> int:
        """Steps done since the run began."""
        return (position.epoch - 1) * self._order.steps_per_epoch + position.step

    def _describe_stop(self, what_is_saved: str) -> str:
        where = f"epoch {self._position.epoch}, step {self._position.step} of {self._order.steps_per_epoch}"
        script = SCRIPTS[self._run.config.stage]
        return f"{where}; {what_is_saved}. Go on with: python {script} --resume {self._run.folder}"
