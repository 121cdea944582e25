"""The training loop: epochs of steps, validation, logs and best checkpoints, from the start or a saved state."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sharpstudent.checkpoint.store import save_checkpoint, save_run_state
from sharpstudent.config.run_config import SCRIPTS
from sharpstudent.config.terms import list_terms
from sharpstudent.core.errors import ExitCode, TrainingStopped, UserError
from sharpstudent.core.schedules import Progress
from sharpstudent.core.types import Batch, StepResult, list_class_names
from sharpstudent.data.loader import LoadedBatch, Replaced, load_batches
from sharpstudent.data.sampler import TrainSampler
from sharpstudent.models.teachers import TeacherEnsemble, name_teachers
from sharpstudent.optim.build import build_lr_schedule, build_rho_schedule
from sharpstudent.report.console import ProgressLine, print_line
from sharpstudent.task import Task
from sharpstudent.train.alarms import SlowSteps, find_alarms, note_unreadable, stop_if_too_many
from sharpstudent.train.build import TrainingData, choose_memory_format
from sharpstudent.train.callbacks import Callback, Callbacks, StageInfo
from sharpstudent.train.debug.skipped import SkippedSteps
from sharpstudent.train.dry_run import try_one_batch
from sharpstudent.train.logger import RunLogger, SilentLogger, build_epoch_row, collect_metrics, compare_sizes
from sharpstudent.train.oom import MemoryRetry, check_labels
from sharpstudent.train.preflight.run import preflight
from sharpstudent.train.preflight.teacher_heads import settle_heads
from sharpstudent.train.preflight.temperature import restore_calibrations
from sharpstudent.train.run import Interrupts, Run, StopRequested
from sharpstudent.train.state import (
    FitResult,
    TrainState,
    capture_step,
    describe_disk_space,
    explain_early_stop,
    explain_endings,
    is_over,
    is_save_due,
    open_selection,
    read_metrics,
    resume_run,
    seed_rank,
)
from sharpstudent.train.step import TrainStep
from sharpstudent.train.tuning import merge_state, start_training
from sharpstudent.train.validate import PREFIX, ValidationResult, Validator, drop_undefined


class Trainer:
    """Trains one stage; `fit` does the work."""

    def __init__(
        self,
        run: Run,
        task: Task,
        data: TrainingData,
        step: TrainStep,
        about: Mapping[str, Any],
        callbacks: Sequence[Callback] = (),
    ) -> None:
        """Prepare the training of a stage.

        Args:
            run: The run.
            task: The task, which makes batches and computes metrics.
            data: The training and validation samples.
            step: The models, the criterion and the optimiser.
            about: The description that checkpoints hold.
            callbacks: What is told of the training.
        """
        self._callbacks: Callbacks | None = None  # so that an epoch without any enters no further file
        if callbacks:
            stops = run.config.callback_errors == "stop"
            self._callbacks = Callbacks(callbacks, stops=stops, device_type=run.device.type, say=run.say)
        self._run, self._task, self._data, self._step, self._about = run, task, data, step, dict(about)
        config, size = run.config, run.config.training.batch_size
        self._lr_schedule = build_lr_schedule(config.optimizer)
        self._rho_schedule = build_rho_schedule(config.optimizer)
        self._chooses_ascents = config.optimizer.chooses_ascents
        self._epochs = config.training.epochs
        self._sampler = TrainSampler(len(data.train), size, data.train.repeats, config.seed)
        items = min(size, len(data.train) * data.train.repeats)
        own = items if run.ranks is None else -(-items // run.ranks.count)
        self._retry = MemoryRetry(run, step, own, task.example_batch(2))
        self._state = TrainState(started_from=self._about.pop("start", None))
        self._last_save = time.monotonic()
        self._slow_steps = SlowSteps(run.device.type, torch.get_num_threads())
        for note in data.notes:
            run.say(note)
        if items < size:
            run.say(f"a batch of {size} samples is more than there are: every batch holds all {items}")

    def fit(self) -> FitResult | None:
        """Train to the end.

        Returns:
            None after a dry run.

        Raises:
            RunInterrupted: On SIGINT or SIGTERM; the state is saved.
            TrainingStopped: When too many steps in a row are skipped, when memory runs out (the state is saved), when
                outputs on the validation samples are not finite, or when too many samples cannot be read.
        """
        run = self._run
        if run.dry_run:
            self._apply_schedules(self._progress)
            parts = (run, self._task, self._data, self._step, self._sampler, self._retry)
            return try_one_batch(*parts, self._report_unreadable)
        if run.is_resumed:  # before anything is written, so that a refused resume leaves the folder unchanged
            self._selection = open_selection(run, self._task)
            kept = self._selection if run.is_first else None
            with run.first_goes_first():
                self._state = resume_run(
                    run, self._step, self._about, kept, steps_per_epoch=self._sampler.steps_per_epoch
                )
            self._retry.restore_parts(self._state.parts)
        if (not run.is_resumed or not self._is_over()) and run.is_first:
            run.say(describe_disk_space(run, self._step))
        run.create_folder()
        if not run.is_resumed:
            self._selection = open_selection(run, self._task)
            if run.ranks is not None:
                seed_rank(run.ranks)
            self._save_state()  # so that a run killed in its first epoch can be resumed, too
        state = self._state
        log = RunLogger if run.is_first else SilentLogger
        self._logger = log(run, self._task, state.epoch, state.step, self._count_steps())
        self._skipped_steps = SkippedSteps(run.folder, run.config.stage)
        self._interrupts = Interrupts()
        # Several ranks stop after the same step, never inside a validation.
        between = self._interrupts.raise_if_asked if run.ranks is None else lambda: None
        self._validator = Validator(run, self._task, self._data, between, self._report_unreadable)
        endings = explain_endings(state, self._save_state, self._describe_stop, is_shared=run.ranks is not None)
        lost = contextlib.nullcontext() if run.ranks is None else run.ranks.explaining()
        with self._interrupts, self._logger, endings, lost:
            return self._fit()

    def _fit(self) -> FitResult | None:
        state, config = self._state, self._run.config
        first_epoch = state.epoch
        if self._step.teacher is not None and (state.start is None or not self._is_over()):
            self._settle_teachers()
        title = f"stage {config.stage}"
        with ProgressLine(self._run.console, self._epochs, self._sampler.steps_per_epoch, title) as self._progress_line:
            if self._callbacks is not None:
                self._callbacks.tell("start", self._describe_stage())
            while not self._is_over():
                self._train_epoch()
                self._progress_line.status("validating")
                self._finish_epoch()
        if not self._run.is_first:
            return None
        best, metric = self._selection.best, config.training.selection_metric
        assert best is not None
        if self._callbacks is not None:
            self._callbacks.tell("end", best.epoch, best.value)
        stopped = explain_early_stop(config.training, state, best.epoch)
        if stopped is not None:
            self._logger.note_once(stopped)
        return FitResult(
            best_epoch=best.epoch,
            best_value=best.value,
            best_metrics={**read_metrics(self._selection.best_path), metric: best.value},
            start=state.start or {},
            skipped=state.skipped,
            seconds=self._logger.elapsed,
            epochs_done=state.epoch - first_epoch,
            stopped=stopped,
        )

    @property
    def _progress(self) -> Progress:
        """The epoch and number of the next step, for schedules."""
        return Progress(self._state.epoch, self._state.step, self._epochs, self._sampler.steps_per_epoch)

    def _is_over(self) -> bool:
        best = self._selection.best
        over = is_over(self._run.config.training, self._state, None if best is None else best.epoch)
        return over if self._run.ranks is None else self._run.ranks.tell(over)

    def _settle_teachers(self) -> None:
        """Settle the teachers; of several ranks the first does so, and the others read what it has written."""
        ranks = self._run.ranks
        with self._run.first_goes_first():
            self._settle_own_teachers()
        if ranks is not None:
            self._state.start = ranks.tell(self._state.start)

    def _settle_own_teachers(self) -> None:
        """Fit, evaluate and calibrate the teachers before the first step.

        In a resumed run, their heads and temperatures are restored. They are determined again only if `--allow
        changed-config` permits it and they cannot be restored.
        """
        state, config, teachers = self._state, self._run.config, self._step.teacher
        named = name_teachers(config, teachers)
        begun, may_change = state.start is not None, "changed-config" in config.allow
        if not self._run.is_first:
            begun, may_change = True, False
        fitted = settle_heads(self._validator, named, must_be_kept=begun and not may_change, say=self._warn)
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
            say=self._warn,
        )
        if not begun:
            state.start = report.start_metrics
            metric = f"{PREFIX}{config.training.selection_metric}"
            self._run.say(f"before stage 2: {metric} {report.start_value:.4f}")

    def _train_epoch(self) -> None:
        """Take the remaining steps of the epoch."""
        start_training(self._step.student)
        config, ranks = self._run.config, self._run.ranks
        keys = self._sampler.batches(self._state.epoch, start_step=self._state.step)
        loader = load_batches(
            self._data.train,
            keys if ranks is None else map(ranks.share, keys),
            seed=config.seed,
            num_workers=config.num_workers,
            collate=self._task.collate,
            timeout_s=config.loader_timeout,
        )
        with contextlib.closing(loader):
            for loaded in loader:
                self._take_step(loaded)
        self._look_around(())

    def _take_step(self, loaded: LoadedBatch) -> None:
        """Take one step on a batch that has just been loaded, and save where a save is due."""
        state, config = self._state, self._run.config
        self._report_unreadable(self._look_around(loaded.replaced))
        check_labels(loaded.batch, len(list_class_names(self._task)))
        batch = loaded.batch.to(self._run.device, memory_format=choose_memory_format(config.compute))
        if (state.epoch, state.step) == (1, 0):
            self._logger.draw_batch(batch)
        progress = self._progress
        settings = self._apply_schedules(progress)
        begun = time.monotonic()
        result = self._retry(batch, progress)
        slower = self._slow_steps.see(time.monotonic() - begun)
        if slower is not None:  # on the console alone: logs hold nothing that depends on the clock
            print_line(self._run.console, slower)
        state.parts = self._retry.raised_parts
        self._record_step(result, batch, progress, settings)
        state.step += 1
        every = config.training.compare_ranks_every
        if every is not None and state.step % every == 0:
            self._compare_ranks()
        if self._is_save_due():
            self._save_state()
        if self._callbacks is not None:
            told = {**collect_metrics(result), **settings, "skipped": float(not result.ok)}
            self._callbacks.tell("step", progress.epoch, progress.step, told)

    def _look_around(self, replaced: tuple[Replaced, ...]) -> tuple[Replaced, ...]:
        """Stop after a signal, of several ranks after one to any of them.

        Args:
            replaced: The samples that this rank could not read.

        Returns:
            The samples that no rank could read.

        Raises:
            StopRequested: On all ranks.
        """
        ranks, asked = self._run.ranks, self._interrupts.asked
        if ranks is None:
            self._interrupts.raise_if_asked()
            return replaced
        stops, unreadable = ranks.sum([asked is not None, len(replaced)])
        if stops:
            raise StopRequested(ExitCode.TERMINATED if asked is None else asked)
        return tuple(one for part in ranks.gather(replaced) for one in part) if unreadable else ()

    def _is_save_due(self) -> bool:
        """Whether the state is to be saved; of several ranks the clock of the first decides."""
        age, ranks = time.monotonic() - self._last_save, self._run.ranks
        due = is_save_due(self._run.config, self._state.step, self._sampler.steps_per_epoch, age)
        return due if ranks is None else bool(ranks.sum([due and ranks.is_first])[0])

    def _compare_ranks(self) -> None:
        """Raise TrainingStopped where the weights of the ranks differ in any bit: they would train several models."""
        others = self._step.others
        different = None if others is None else others.find_difference(self._step.optimizer.parameters)
        if different is not None:
            raise TrainingStopped(
                f"{self._describe_stop('the last save is whole')}. The weights of rank {different} differ from those "
                f"of rank 0: memory or the network of a machine is at fault"
            )

    def _apply_schedules(self, progress: Progress) -> dict[str, float]:
        """Set the learning rate and the SAM radius of the next step, and return them."""
        lr, rho = self._lr_schedule(progress), self._rho_schedule(progress)
        self._step.optimizer.set_lr(lr)
        self._step.optimizer.set_rho(rho)
        return {"lr": lr, "rho": rho}

    def _record_step(self, result: StepResult, batch: Batch, progress: Progress, settings: Mapping[str, float]) -> None:
        """Update counters, sums and logs after a step. Raises TrainingStopped after too many skips in a row."""
        state, numbers = self._state, self._step.criterion.describe(progress)
        if result.ok:
            state.skipped_in_a_row = 0
            for name, value in {**collect_metrics(result), "steps": 1.0}.items():
                state.sums[name] = state.sums.get(name, 0.0) + value
        else:
            state.skipped_in_a_row += 1
            state.skipped += 1
        self._logger.record_step(
            self._count_steps() + 1, result, settings=settings, numbers=numbers, skipped=state.skipped
        )
        self._progress_line.step(
            progress.epoch, progress.step, loss=result.loss, lr=settings["lr"], skipped=state.skipped
        )
        if result.ok:
            self._skipped_steps.forget_state()
            self._warn(*state.watch.see_step(result, self._run.config, settings["rho"]))
            return
        names, ranks = batch.rows["id"], self._run.ranks
        names = names if ranks is None else tuple(name for part in ranks.gather(names) for name in part)
        self._logger.record_skip(progress, result, names, self._keep_skipped(result, batch, progress, settings))
        if state.skipped_in_a_row >= self._run.config.training.max_skipped_in_a_row:
            accuracy = (state.start or {}).get("accuracy")
            raise TrainingStopped(self._logger.explain_stop(state.skipped_in_a_row, result, stage1_accuracy=accuracy))

    def _keep_skipped(
        self, result: StepResult, batch: Batch, progress: Progress, settings: Mapping[str, float]
    ) -> str | None:
        """Keep the batch of a skipped step; returns a line that says where. An fp16 overflow is normal and not kept.

        Nor is a step of several ranks.
        """
        if result.is_overflow or self._run.ranks is not None:  # a rank has only its share of the batch
            return None
        return self._skipped_steps.keep(
            batch,
            progress,
            result,
            settings={**settings, "parts": self._step.parts},
            capture_state=lambda: capture_step(self._step, self._run.device),
        )

    def _warn(self, *lines: str) -> None:
        for line in lines:
            self._run.say(line)
            self._logger.note(line)

    def _finish_epoch(self) -> None:
        """Validate, select, record, and save the state from which the next epoch starts."""
        state, config = self._state, self._run.config
        validated = replace(self._validator, ranks=self._run.ranks).validate_epoch(self._step)
        last = replace(self._progress, step=self._sampler.steps_per_epoch - 1)
        numbers = self._step.criterion.describe(last)
        row = build_epoch_row(
            state.epoch,
            state.sums,
            validated.metrics,
            config.criterion,
            numbers,
            lr=self._lr_schedule(last),
            rho=self._rho_schedule(last) if config.optimizer.rho > 0.0 else None,
            skipped=state.skipped,
            chooses_ascents=self._chooses_ascents,
            known=list_terms(self._task.terms),
        )
        if self._run.is_first:
            self._record_epoch(validated, row)
        is_settled = numbers == self._step.criterion.describe(replace(last, epoch=self._epochs))
        ratio = compare_sizes(row, config.criterion, list_terms(self._task.terms))
        self._warn(*find_alarms(state, config, self._task, validated, ratio=ratio, is_settled=is_settled))
        state.epoch, state.step, state.sums = state.epoch + 1, 0, {}
        self._save_state()
        if self._callbacks is not None:
            self._callbacks.tell("validation", last.epoch, validated.metrics)
            self._callbacks.tell("epoch", last.epoch, {name: row[name] for name in row if row[name] is not None})

    def _describe_stage(self) -> StageInfo:
        """Describe the stage for callbacks."""
        run, config = self._run, self._run.config
        return StageInfo(
            folder=run.folder,
            stage=config.stage,
            name=config.name,
            config=config.model_dump(mode="json"),
            epochs=self._epochs,
            steps_per_epoch=self._sampler.steps_per_epoch,
            epoch=self._state.epoch,
            step=self._state.step,
        )

    def _record_epoch(self, validated: ValidationResult, row: Mapping[str, Any]) -> None:
        """Keep the model if it is among the best, and write the epoch to the logs."""
        new_best = self._selection.consider(
            self._state.epoch, validated.value, lambda path: self._save_model(path, validated)
        )
        best = self._selection.best
        assert best is not None
        self._progress_line.epoch(
            self._logger.record_epoch(row, self._epochs, best=(best.epoch, best.value), new_best=new_best)
        )

    def _save_model(self, path: Path, validated: ValidationResult) -> None:
        calibration = self._task.calibrate(validated.table)
        about = {
            **self._about,
            **self._describe_start(),
            "epoch": self._state.epoch,
            **drop_undefined(validated.metrics),
        }
        about |= {"calibration": calibration} if calibration else {}
        save_checkpoint(path, {"model": merge_state(validated.model)}, about=about)

    def _describe_start(self) -> dict[str, Any]:
        """The file that the run started from, with its sha256; {} for none."""
        return {} if self._state.started_from is None else {"start": self._state.started_from}

    def _save_state(self) -> None:
        """Save the state to resume from. Of several ranks all take part, and the first writes."""
        self._compare_ranks()
        tensors = capture_step(self._step, self._run.device)
        if not self._run.is_first:
            return
        save_run_state(
            self._run.weights_folder,
            tensors=tensors,
            progress={
                **self._about,
                **self._describe_start(),
                "position": self._state.to_json(),
                "selection": self._selection.state(),
            },
        )
        self._last_save = time.monotonic()

    def _report_unreadable(self, replaced: tuple[Replaced, ...]) -> None:
        """Print each unreadable sample once; stop the run when there are too many."""
        for line in note_unreadable(replaced, self._state.unreadable):
            self._run.say(line)
            if not self._run.dry_run:
                self._logger.note_once(line)
        stop_if_too_many(self._state.unreadable, len(self._data.train) + len(self._data.validation))

    def _count_steps(self) -> int:
        """Count the steps that are done since the run began."""
        return (self._state.epoch - 1) * self._sampler.steps_per_epoch + self._state.step

    def _describe_stop(self, what_is_saved: str) -> str:
        where = f"epoch {self._state.epoch}, step {self._state.step} of {self._sampler.steps_per_epoch}"
        script = SCRIPTS[self._run.config.stage]
        return f"{where}; {what_is_saved}. Go on with: python {script} --resume {shlex.quote(str(self._run.folder))}"
