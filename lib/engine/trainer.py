"""The loop: train an epoch, validate, record, keep the best; from the start or from where a run was left."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib.checkpoint.resume import load_run_state, save_run_state
from lib.checkpoint.room import check_room
from lib.checkpoint.selection import BestCheckpoints
from lib.checkpoint.store import save_checkpoint
from lib.config.sections import SCRIPTS
from lib.data.loader import LoadedBatch, Replaced, load_batches
from lib.data.order import TrainOrder
from lib.engine.attempt import Attempt, OutOfMemory
from lib.engine.build import choose_memory_format
from lib.engine.calibration import take_up_calibrations
from lib.engine.figures import build_training_columns, compare_terms, join_row, mean_of, name_figures
from lib.engine.fitted_heads import describe_fits, settle_heads
from lib.engine.journal import Journal
from lib.engine.judge import Judge, Verdict
from lib.engine.memory import is_out_of_memory
from lib.engine.named import name_teachers
from lib.engine.position import Position, capture_step, refuse_other_model, restore_step
from lib.engine.preflight import describe_work, preflight
from lib.engine.run import Interrupts, Run, StopRequested
from lib.engine.skipped import SkippedSteps
from lib.engine.step import TrainStep
from lib.engine.task import Task, TaskData
from lib.engine.unreadable import stop_if_too_many, take_in
from lib.errors import ExitCode, RunInterrupted, TrainingStopped, UserError
from lib.metrics.checks import MetricError
from lib.models.teachers import TeacherEnsemble
from lib.optim.build import build_lr_schedule, build_rho_schedule
from lib.report.console import ProgressLine
from lib.report.guide import advise_on_ratio
from lib.schedules import Progress
from lib.types import Batch, StepResult


@dataclass(frozen=True)
class FitResult:
    """What a stage ended with. best: epoch and value of the selection metric; start_value: before the first step
    (stage 2).
    """

    best_epoch: int
    best_value: float
    last_metrics: Mapping[str, Any]
    start_value: float | None
    skipped: int
    seconds: float
    epochs_done: int


class Trainer:
    """Everything a stage needs, put together by the script. `fit` does the work."""

    def __init__(self, run: Run, task: Task, data: TaskData, step: TrainStep, about: Mapping[str, Any]) -> None:
        config, training = run.config, run.config.training
        self._run, self._task, self._data, self._step, self._about = run, task, data, step, dict(about)
        self._lr_schedule = build_lr_schedule(config.optimizer)
        self._rho_schedule = build_rho_schedule(config.optimizer)
        self._epochs, self._max_skipped = training.epochs, training.max_skipped_in_a_row
        self._order = TrainOrder(len(data.train), training.batch_size, data.repeats, config.seed)
        items = min(training.batch_size, len(data.train) * data.repeats)
        self._attempt = Attempt(run, step, items)
        self._position = Position()
        self._last_save = time.monotonic()
        for note in data.notes:
            run.say(note)
        if items < training.batch_size:
            run.say(f"a batch of {training.batch_size} items is more than there are: every batch holds all {items}")

    def fit(self) -> FitResult | None:
        """Train to the end. None after a dry run.

        Raises RunInterrupted (state saved) on SIGINT or SIGTERM, TrainingStopped when too many steps in a row are
        skipped, when memory runs out (state saved), when a validation score is not finite, or when too many items
        cannot be read.
        """
        if self._run.dry_run:
            return self._try_one_batch()
        if self._run.is_resumed:
            self._restore()  # before anything in the folder is written: a refused resume leaves it as it was
        if self._position.epoch <= self._epochs:
            self._run.say(self._check_room())
        self._run.create_folder()
        if not self._run.is_resumed:
            self._selection = self._open_selection()
            self._save_state()  # so that a run killed in its first epoch can be resumed, too
        self._journal = Journal(self._run, self._position.epoch, self._position.step, self._count_steps())
        self._skipped_steps = SkippedSteps(self._run.folder, self._run.config.stage)
        self._interrupts = Interrupts()
        self._judge = Judge(self._run, self._task, self._data, self._interrupts.raise_if_asked, self._report_unreadable)
        with self._interrupts, self._journal:
            try:
                return self._fit()
            except StopRequested as stop:
                self._save_state()
                raise RunInterrupted(f"interrupted at {self._describe_stop('saved')}", stop.exit_code) from None
            except KeyboardInterrupt:
                told = self._describe_stop("this point is not saved; the last save is whole")
                raise RunInterrupted(f"stopped at once in {told}", ExitCode.INTERRUPTED) from None
            except OutOfMemory as error:
                self._save_state()
                raise TrainingStopped(f"{error}\n{self._describe_stop('saved')}") from error
            except MetricError as error:
                raise TrainingStopped(f"epoch {self._position.epoch}: {error}") from error
            except (RuntimeError, MemoryError) as error:  # outside a step, that is in a validation
                if not is_out_of_memory(error):
                    raise
                self._save_state()
                told = self._describe_stop("saved")
                raise TrainingStopped(f"out of memory while validating ({error}).\n{told}") from error

    def _fit(self) -> FitResult:
        position = self._position
        metrics: dict[str, Any] = {}
        first_epoch = position.epoch
        if self._step.teacher is not None and (position.start_auc is None or position.epoch <= self._epochs):
            self._settle_teachers()
        title = f"stage {self._run.config.stage}"
        with ProgressLine(self._run.console, self._epochs, self._order.steps_per_epoch, title) as progress_line:
            self._progress_line = progress_line
            while position.epoch <= self._epochs:
                self._train_epoch()
                progress_line.status("validating")
                metrics = self._finish_epoch()
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

    def _settle_teachers(self) -> None:
        """The teachers as they are to teach: fitted, judged and calibrated before the first step; in a resumed run as
        they were, or settled anew where a change was permitted and there is something new.
        """
        position, config, teachers = self._position, self._run.config, self._step.teacher
        named = name_teachers(config, teachers)
        begun, may_change = position.start_auc is not None, "changed-config" in config.allow
        fitted = settle_heads(
            self._judge, named, must_be_kept=begun and not may_change, say=lambda line: self._warn([line])
        )
        if begun and not fitted:
            try:
                return take_up_calibrations(config, named, self._run.logs_folder)
            except UserError:
                if not may_change:
                    raise
        report = preflight(
            self._judge,
            (f"student {config.student.name}", self._step.student),
            named,
            ensemble=teachers if isinstance(teachers, TeacherEnsemble) else None,
            say=lambda line: self._warn([line]),
        )
        if not begun:
            position.start_auc, position.start_accuracy = report.start_value, report.start_accuracy
            self._run.say(f"before stage 2: {self._task.selection_metric} {position.start_auc:.4f}")

    def _train_epoch(self) -> None:
        """Take the steps of the epoch that are still to do."""
        self._step.student.train()
        batches = self._order.batches(self._position.epoch, start_step=self._position.step)
        config = self._run.config
        loader = load_batches(
            self._data.train,
            batches,
            seed=config.seed,
            num_workers=config.num_workers,
            timeout_s=config.loader_timeout,
        )
        with contextlib.closing(loader):
            for loaded in loader:
                self._take(loaded)
        self._interrupts.raise_if_asked()

    def _take(self, loaded: LoadedBatch) -> None:
        """One step on a batch that has just been loaded; a save where one is due."""
        position = self._position
        self._interrupts.raise_if_asked()
        self._report_unreadable(loaded.replaced)
        batch = self._place(loaded.batch)
        if (position.epoch, position.step) == (1, 0):
            self._journal.draw_batch(batch)
        progress = Progress(position.epoch, position.step, self._epochs, self._order.steps_per_epoch)
        settings = self._steer(progress)
        result = self._attempt(batch, progress)
        position.parts = self._attempt.lowered_parts
        self._count(result, batch, progress, settings)
        position.step += 1
        if self._is_save_due():
            self._save_state()

    def _place(self, batch: Batch) -> Batch:
        return batch.to(self._run.device, memory_format=choose_memory_format(self._run.config.compute))

    def _steer(self, progress: Progress) -> dict[str, float]:
        """Set learning rate and radius of the next step; returns them."""
        lr, rho = self._lr_schedule(progress), self._rho_schedule(progress)
        self._step.optimizer.set_lr(lr)
        self._step.optimizer.set_rho(rho)
        return {"lr": lr, "rho": rho}

    def _is_save_due(self) -> bool:
        """Whether the state is to be saved inside an epoch; its end saves anyway."""
        config, step = self._run.config, self._position.step
        if step == self._order.steps_per_epoch:
            return False
        by_steps = config.save_every_steps is not None and step % config.save_every_steps == 0
        age = time.monotonic() - self._last_save
        return by_steps or (config.save_every_minutes is not None and age >= 60 * config.save_every_minutes)

    def _count(self, result: StepResult, batch: Batch, progress: Progress, settings: Mapping[str, float]) -> None:
        """Counters, sums and logs advance here, once a step."""
        position = self._position
        position.skipped_in_a_row = 0 if result.ok else position.skipped_in_a_row + 1
        position.skipped += not result.ok
        if result.ok:
            for name, value in name_figures(result).items():
                position.sums[name] += value
            position.sums["steps"] += 1
        self._journal.record_step(
            self._count_steps() + 1,
            result,
            settings=settings,
            steering=self._step.criterion.describe(progress),
            skipped=position.skipped,
        )
        self._progress_line.step(
            progress.epoch, progress.step, loss=result.loss, lr=settings["lr"], skipped=position.skipped
        )
        if result.ok:
            self._skipped_steps.forget_state()
            self._warn(position.watch.see_step(result, self._run.config, settings["rho"]))
        else:
            self._journal.record_skip(progress, result, batch, self._keep_skipped(result, batch, progress, settings))
        if position.skipped_in_a_row >= self._max_skipped:
            raise TrainingStopped(self._explain_stop(result))

    def _explain_stop(self, last: StepResult) -> str:
        position = self._position
        return self._journal.explain_stop(position.skipped_in_a_row, last, stage1_accuracy=position.start_accuracy)

    def _keep_skipped(
        self, result: StepResult, batch: Batch, progress: Progress, settings: Mapping[str, float]
    ) -> str | None:
        """Where the batch of a skipped step was kept. An overflow of fp16 mends itself and is no fault to look at."""
        if result.is_overflow:
            return None
        return self._skipped_steps.keep(
            batch,
            progress,
            result,
            settings={**settings, "parts": self._step.parts},
            capture_state=lambda: capture_step(self._step, self._run.device),
        )

    def _warn(self, lines: list[str]) -> None:
        for line in lines:
            self._run.say(line)
            self._journal.note(line)

    def _finish_epoch(self) -> dict[str, Any]:
        """Validate, select, record, and save the state from which the next epoch starts; returns the metrics."""
        position, optimizer = self._position, self._run.config.optimizer
        verdict = self._judge.judge(self._step)
        new_best = self._selection.consider(position.epoch, verdict.value, lambda path: self._save_model(path, verdict))
        best = self._selection.best
        assert best is not None
        means, steps = mean_of(position.sums)
        progress = Progress(position.epoch, self._order.steps_per_epoch - 1, self._epochs, self._order.steps_per_epoch)
        terms, numbers = self._run.config.criterion, self._step.criterion.describe(progress)
        balance = compare_terms(means, terms, numbers)
        row = join_row(
            {"epoch": position.epoch},
            build_training_columns(means, terms, with_second_pass=optimizer.rho > 0.0),
            verdict.metrics,
            {"lr": self._lr_schedule(progress)},
            {"rho": self._rho_schedule(progress)} if optimizer.rho > 0.0 else {},
            balance,
            numbers,
            {"steps": steps, "skipped": position.skipped},
        )
        line = self._journal.record_epoch(row, self._epochs, best=(best.epoch, best.value), new_best=new_best)
        self._progress_line.epoch(line)
        self._warn(position.watch.see_epoch(self._task.selection_metric, verdict.value, self._run.config))
        self._advise_on_balance(balance.get("kd_hard_ratio"), numbers, progress)
        position.epoch, position.step, position.sums = position.epoch + 1, 0, defaultdict(float)
        self._save_state()
        return verdict.metrics

    def _advise_on_balance(self, ratio: float | None, numbers: Mapping[str, float], progress: Progress) -> None:
        """Once, and only of weights that move no more: 5 % teacher at the start are meant."""
        is_settled = numbers == self._step.criterion.describe(replace(progress, epoch=self._epochs))
        if ratio is not None and is_settled and not self._position.told_ratio:
            advice = advise_on_ratio(ratio, stage=self._run.config.stage)
            self._position.told_ratio = bool(advice)
            self._warn(advice)

    def _save_model(self, path: Path, verdict: Verdict) -> None:
        about = {**self._about, "epoch": self._position.epoch, **verdict.metrics}
        save_checkpoint(path, {"model": verdict.model.state_dict()}, about=about)

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
        self._last_save = time.monotonic()

    def _check_room(self) -> str:
        """What the run will need of its disk. Raises UserError where the first saves do not fit."""
        config = self._run.config
        return check_room(
            self._run.folder if self._run.is_resumed else Path(config.output_root),
            self._step.student.state_dict(),
            optimizer_copies={"sgd": 1, "adamw": 2}[config.optimizer.base] + (config.training.ema_decay is not None),
            keep_best=min(config.training.keep_best, config.training.epochs),
            resumed=self._run.is_resumed,
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
        self._attempt.lower_parts(self._position.parts)
        notes = [*state.notes, *self._selection.restore(state.progress["selection"])]
        at = f"epoch {self._position.epoch}, step {self._position.step}"
        for note in [f"resuming {self._run.resumed_from} at {at}", *notes]:
            self._run.say(note)

    def _report_unreadable(self, replaced: tuple[Replaced, ...]) -> None:
        """Name each item that could not be read once; stop when there are too many."""
        for line in take_in(replaced, self._position.unreadable):
            self._run.say(line)
            if not self._run.dry_run:
                self._journal.note_once(line)
        stop_if_too_many(self._position.unreadable, len(self._data.train) + len(self._data.validation))

    def _try_one_batch(self) -> None:
        """--dry-run: one batch through loading, teacher and step; nothing is written."""
        first = next(iter(self._order.batches(1)))
        loaded: LoadedBatch = next(load_batches(self._data.train, [first], seed=self._run.config.seed, num_workers=0))
        self._report_unreadable(loaded.replaced)
        progress = Progress(1, 0, self._epochs, self._order.steps_per_epoch)
        self._steer(progress)
        self._step.student.train()
        teachers = name_teachers(self._run.config, self._step.teacher)
        fits = describe_fits(self._run.config, teachers, len(self._data.train))
        try:
            result = self._attempt(self._place(loaded.batch), progress)
        except OutOfMemory as error:
            raise TrainingStopped(str(error)) from error
        terms = ", ".join(f"{name} {value:.4f}" for name, value in result.terms.items())
        shape = tuple(loaded.batch.inputs.shape)
        self._run.say(
            f"dry run: batch {shape}, step {result.status}"
            + (f", loss {result.loss:.4f} ({terms})" if result.ok else f": {result.reason}")
        )
        if teachers:
            for line in (*fits, describe_work(len(self._data.validation), len(teachers))):
                self._run.say(f"dry run: {line}")
        self._run.say(
            f"dry run: {self._order.steps_per_epoch} steps an epoch, {self._epochs} epochs; nothing was written"
        )

    def _count_steps(self) -> int:
        """Steps done since the run began."""
        return (self._position.epoch - 1) * self._order.steps_per_epoch + self._position.step

    def _describe_stop(self, what_is_saved: str) -> str:
        where = f"epoch {self._position.epoch}, step {self._position.step} of {self._order.steps_per_epoch}"
        script = SCRIPTS[self._run.config.stage]
        return f"{where}; {what_is_saved}. Go on with: python {script} --resume {self._run.folder}"
