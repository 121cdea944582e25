"""The loop: train an epoch, validate, record, keep the best; from the start or from where a run was left."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sharpstudent.checkpoint.store import save_checkpoint, save_run_state
from sharpstudent.config.run_config import SCRIPTS
from sharpstudent.config.terms import list_terms
from sharpstudent.core.errors import TrainingStopped, UserError
from sharpstudent.core.schedules import Progress
from sharpstudent.core.types import Batch, StepResult
from sharpstudent.data.loader import LoadedBatch, Replaced, load_batches
from sharpstudent.data.sampler import TrainOrder
from sharpstudent.models.teachers import TeacherEnsemble, name_teachers
from sharpstudent.optim.build import build_lr_schedule, build_rho_schedule
from sharpstudent.report.console import ProgressLine
from sharpstudent.task import Task
from sharpstudent.train.alarms import find_alarms, stop_if_too_many, take_in
from sharpstudent.train.build import TrainingData, choose_memory_format
from sharpstudent.train.debug.skipped import SkippedSteps
from sharpstudent.train.dry_run import try_one_batch
from sharpstudent.train.logger import Journal, build_epoch_row, name_figures
from sharpstudent.train.oom import Attempt
from sharpstudent.train.preflight.run import preflight
from sharpstudent.train.preflight.teacher_heads import settle_heads
from sharpstudent.train.preflight.temperature import restore_calibrations
from sharpstudent.train.run import Interrupts, Run
from sharpstudent.train.state import (
    FitResult,
    Position,
    build_result,
    capture_step,
    describe_room,
    explain_endings,
    is_over,
    is_save_due,
    open_selection,
    take_up_run,
)
from sharpstudent.train.step import TrainStep
from sharpstudent.train.validate import PREFIX, ValidationResult, Validator, drop_undefined


class Trainer:
    """Everything a stage needs, put together by the script. `fit` does the work."""

    def __init__(self, run: Run, task: Task, data: TrainingData, step: TrainStep, about: Mapping[str, Any]) -> None:
        config, training = run.config, run.config.training
        self._run, self._task, self._data, self._step, self._about = run, task, data, step, dict(about)
        self._lr_schedule = build_lr_schedule(config.optimizer)
        self._rho_schedule = build_rho_schedule(config.optimizer)
        self._epochs, self._max_skipped = training.epochs, training.max_skipped_in_a_row
        self._order = TrainOrder(len(data.train), training.batch_size, data.train.repeats, config.seed)
        items = min(training.batch_size, len(data.train) * data.train.repeats)
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
            self._steer(Progress(1, 0, self._epochs, self._order.steps_per_epoch))
            parts = (self._run, self._task, self._data, self._step, self._order, self._attempt)
            return try_one_batch(*parts, self._report_unreadable)
        if self._run.is_resumed:  # before anything in the folder is written: a refused resume leaves it as it was
            self._selection = open_selection(self._run, self._task)
            self._position = take_up_run(self._run, self._step, self._about, self._selection)
            self._attempt.lower_parts(self._position.parts)
        if not self._run.is_resumed or not self._is_over():
            self._run.say(describe_room(self._run, self._step))
        self._run.create_folder()
        if not self._run.is_resumed:
            self._selection = open_selection(self._run, self._task)
            self._save_state()  # so that a run killed in its first epoch can be resumed, too
        position = self._position
        self._journal = Journal(self._run, self._task, position.epoch, position.step, self._count_steps())
        self._skipped_steps = SkippedSteps(self._run.folder, self._run.config.stage)
        self._interrupts = Interrupts()
        self._validator = Validator(
            self._run, self._task, self._data, self._interrupts.raise_if_asked, self._report_unreadable
        )
        with self._interrupts, self._journal, explain_endings(self._position, self._save_state, self._describe_stop):
            return self._fit()

    def _fit(self) -> FitResult:
        position = self._position
        metrics: dict[str, Any] = {}
        first_epoch = position.epoch
        if self._step.teacher is not None and (position.start is None or not self._is_over()):
            self._settle_teachers()
        title = f"stage {self._run.config.stage}"
        with ProgressLine(self._run.console, self._epochs, self._order.steps_per_epoch, title) as progress_line:
            self._progress_line = progress_line
            while not self._is_over():
                self._train_epoch()
                progress_line.status("validating")
                metrics = self._finish_epoch()
        result = build_result(self._run.config, position, self._selection, metrics, first_epoch, self._journal.elapsed)
        if result.stopped is not None:
            self._journal.note_once(result.stopped)
        return result

    def _is_over(self) -> bool:
        best = self._selection.best
        return is_over(self._run.config.training, self._position, None if best is None else best.epoch)

    def _settle_teachers(self) -> None:
        """The teachers as they are to teach: fitted, judged and calibrated before the first step; in a resumed run as
        they were, or settled anew where a change was permitted and there is something new.
        """
        position, config, teachers = self._position, self._run.config, self._step.teacher
        named = name_teachers(config, teachers)
        begun, may_change = position.start is not None, "changed-config" in config.allow
        fitted = settle_heads(
            self._validator, named, must_be_kept=begun and not may_change, say=lambda line: self._warn([line])
        )
        if begun and not fitted:
            try:
                return restore_calibrations(config, named, self._run.logs_folder)
            except UserError:
                if not may_change:
                    raise
        report = preflight(
            self._validator,
            (f"student {config.student.name}", self._step.student),
            named,
            ensemble=teachers if isinstance(teachers, TeacherEnsemble) else None,
            say=lambda line: self._warn([line]),
        )
        if not begun:
            position.start = report.start_metrics
            metric = f"{PREFIX}{config.training.selection_metric}"
            self._run.say(f"before stage 2: {metric} {report.start_value:.4f}")

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
            collate=self._task.collate,
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
        batch = loaded.batch.to(self._run.device, memory_format=choose_memory_format(self._run.config.compute))
        if (position.epoch, position.step) == (1, 0):
            self._journal.draw_batch(batch)
        progress = Progress(position.epoch, position.step, self._epochs, self._order.steps_per_epoch)
        settings = self._steer(progress)
        result = self._attempt(batch, progress)
        position.parts = self._attempt.lowered_parts
        self._count(result, batch, progress, settings)
        position.step += 1
        age = time.monotonic() - self._last_save
        if is_save_due(self._run.config, position.step, self._order.steps_per_epoch, age):
            self._save_state()

    def _steer(self, progress: Progress) -> dict[str, float]:
        """Set learning rate and radius of the next step; returns them."""
        lr, rho = self._lr_schedule(progress), self._rho_schedule(progress)
        self._step.optimizer.set_lr(lr)
        self._step.optimizer.set_rho(rho)
        return {"lr": lr, "rho": rho}

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
        accuracy = (position.start or {}).get("accuracy")
        return self._journal.explain_stop(position.skipped_in_a_row, last, stage1_accuracy=accuracy)

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
        position = self._position
        validated = self._validator.validate_epoch(self._step)
        new_best = self._selection.consider(
            position.epoch, validated.value, lambda path: self._save_model(path, validated)
        )
        best = self._selection.best
        assert best is not None
        progress = Progress(position.epoch, self._order.steps_per_epoch - 1, self._epochs, self._order.steps_per_epoch)
        numbers = self._step.criterion.describe(progress)
        row = build_epoch_row(
            position.epoch,
            position.sums,
            validated.metrics,
            self._run.config.criterion,
            numbers,
            lr=self._lr_schedule(progress),
            rho=self._rho_schedule(progress) if self._run.config.optimizer.rho > 0.0 else None,
            skipped=position.skipped,
            known=list_terms(self._task.terms),
        )
        line = self._journal.record_epoch(row, self._epochs, best=(best.epoch, best.value), new_best=new_best)
        self._progress_line.epoch(line)
        is_settled = numbers == self._step.criterion.describe(replace(progress, epoch=self._epochs))
        ratio = row.get("kd_hard_ratio")
        self._warn(find_alarms(position, self._run.config, self._task, validated, ratio=ratio, is_settled=is_settled))
        position.epoch, position.step, position.sums = position.epoch + 1, 0, defaultdict(float)
        self._save_state()
        return validated.metrics

    def _save_model(self, path: Path, validated: ValidationResult) -> None:
        calibration = self._task.calibrate(validated.table)
        about = {**self._about, "epoch": self._position.epoch, **drop_undefined(validated.metrics)}
        about |= {"calibration": calibration} if calibration else {}
        save_checkpoint(path, {"model": validated.model.state_dict()}, about=about)

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

    def _report_unreadable(self, replaced: tuple[Replaced, ...]) -> None:
        """Name each item that could not be read once; stop when there are too many."""
        for line in take_in(replaced, self._position.unreadable):
            self._run.say(line)
            if not self._run.dry_run:
                self._journal.note_once(line)
        stop_if_too_many(self._position.unreadable, len(self._data.train) + len(self._data.validation))

    def _count_steps(self) -> int:
        """Steps done since the run began."""
        return (self._position.epoch - 1) * self._order.steps_per_epoch + self._position.step

    def _describe_stop(self, what_is_saved: str) -> str:
        where = f"epoch {self._position.epoch}, step {self._position.step} of {self._order.steps_per_epoch}"
        script = SCRIPTS[self._run.config.stage]
        return f"{where}; {what_is_saved}. Go on with: python {script} --resume {self._run.folder}"
