"""Warnings during training.

They concern a model at chance, terms of the loss that are out of balance, samples that cannot be read, and training
that collapses. With too large a radius, SAM can drive a model to chance without any NaN.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ConfigDict

from sharpstudent.config.run_config import RunConfig
from sharpstudent.core.errors import TrainingStopped
from sharpstudent.core.types import StepResult
from sharpstudent.data.loader import Replaced
from sharpstudent.metrics.metric import Metric
from sharpstudent.task import Task
from sharpstudent.train.validate import PREFIX, ValidationResult

if TYPE_CHECKING:
    from sharpstudent.train.state import TrainState

RATIO_LIMITS = (0.1, 10.0)
UNREADABLE_LIMIT = 0.05  # of the samples: with more of them unreadable, the rest would be another data set
CHANCE_BAND = 0.1  # as a share of the range from chance to perfect (.05 of an AUC); below it a model is at chance
CHANCE_EPOCHS = 3  # epochs in a row at chance before a warning: the first epoch alone may be
WINDOW = 50  # steps over which the two losses are averaged
JUMP = 3.0  # the loss at w + e is far above that at w from this ratio on
SLOW_STEPS = 10  # whose median time is compared with that of as many first ones
SLOW_RATIO, SLOW_SECONDS = 5.0, 1.0  # steps are far slower from this ratio and from this time [s] on
JUMP_FLOOR = 1.0  # below this loss at w + e there is no warning (two classes at chance: 0.69)


def advise_on_ratio(ratio: float | None, *, stage: int) -> list[str]:
    """Warn of terms that are out of balance.

    Args:
        ratio: Losses of the terms that read a teacher over those that read the labels, without their weights, mean of
            an epoch; None where it is not known.
        stage: The stage whose keys the advice names.
    """
    if ratio is None or RATIO_LIMITS[0] <= ratio <= RATIO_LIMITS[1]:
        return []
    low, high = RATIO_LIMITS
    size = f"note: the losses of the teacher's terms are {ratio:.2g} times the labels'"
    if ratio < low:
        return [
            f"{size} (below {low:g}): little is distilled. Try more weight on them "
            f"(--set stage{stage}.alpha_end=..., lower; or their `weight`), or a higher temperature"
        ]
    return [
        f"{size} (above {high:g}): the labels are drowned. Try less weight on them "
        f"(--set stage{stage}.alpha_end=..., higher; or their `weight`), or a lower temperature"
    ]


def find_alarms(
    state: TrainState,
    config: RunConfig,
    task: Task,
    validated: ValidationResult,
    *,
    ratio: float | None,
    is_settled: bool,
) -> list[str]:
    """Find the warnings that the metrics of an epoch give rise to. Each kind is given once, as `state` records.

    Args:
        state: The state of the run.
        config: The config of the run.
        task: The task, whose first metric shows a model at chance.
        validated: Result of the epoch's validation.
        ratio: What `compare_sizes` says of the epoch.
        is_settled: Whether the schedules of the terms' weights have ended. Before, an imbalance is intended.
    """
    metric = task.default_metric
    name = f"{PREFIX}{metric}"
    lines = state.watch.see_epoch(name, task.metrics[metric], validated.own[name], config)
    if is_settled and not state.told_ratio:
        advice = advise_on_ratio(ratio, stage=config.stage)
        state.told_ratio = bool(advice)
        lines += advice
    return lines


def note_unreadable(replaced: Iterable[Replaced], unreadable: dict[str, str]) -> list[str]:
    """Note samples that could not be read.

    Args:
        replaced: The replaced samples of a batch or a validation.
        unreadable: Reason by path; new ones are added to it.

    Returns:
        A line for each new one.
    """
    new = {one.path: one.reason for one in replaced if one.path not in unreadable}
    unreadable |= new
    return [f"left out {path}: {reason}; another sample takes its place" for path, reason in new.items()]


def stop_if_too_many(unreadable: dict[str, str], known: int) -> None:
    """Stop the run when the share of unreadable samples exceeds `UNREADABLE_LIMIT`; one sample alone never stops it.

    Args:
        unreadable: Reason by path.
        known: The number of all samples.

    Raises:
        TrainingStopped: When too many are unreadable.
    """
    if len(unreadable) > max(1, UNREADABLE_LIMIT * known):
        raise TrainingStopped(
            f"{len(unreadable)} of {known} samples cannot be read (more than {UNREADABLE_LIMIT:.0%}); "
            "the list is above: repair or remove them"
        )


@dataclass
class CollapseWatch:
    """Counts epochs at chance, and follows the losses at w and at w + e; each warning is given once until it clears.

    Attributes:
        epochs_at_chance: Epochs in a row that ended near chance.
        steps: Steps with two losses so far.
        loss: Running mean at w.
        perturbed_loss: Running mean at w + e.
        is_jumping: Whether the mean at w + e is far above the mean at w.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    epochs_at_chance: int = 0
    steps: int = 0
    loss: float = 0.0
    perturbed_loss: float = 0.0
    is_jumping: bool = False

    def see_step(self, result: StepResult, config: RunConfig, rho: float) -> list[str]:
        """Warn in the first step in which the mean loss at w + e is far above the mean loss at w.

        Args:
            result: The result of the step.
            config: Whose keys the advice names.
            rho: Radius of the step.
        """
        if result.perturbed_loss is None:
            return []
        self.steps += 1
        share = 1.0 / min(self.steps, WINDOW)
        self.loss += share * (result.loss - self.loss)
        self.perturbed_loss += share * (result.perturbed_loss - self.perturbed_loss)
        was_jumping = self.is_jumping
        limit = max(JUMP_FLOOR, JUMP * self.loss)
        self.is_jumping = self.steps >= WINDOW and self.perturbed_loss > limit
        if was_jumping or not self.is_jumping:
            return []
        return [
            f"warning: the loss at w + e is far above that at w ({self.perturbed_loss:.2f} against {self.loss:.2f}, "
            f"mean of {WINDOW} steps): the SAM radius is too large for this model, and the training may collapse to "
            "chance. Try, one at a time:",
            *_advise_on_radius(config, rho),
        ]

    def see_epoch(self, name: str, metric: Metric, value: float, config: RunConfig) -> list[str]:
        """Warn after `CHANCE_EPOCHS` epochs near chance; never for a metric whose chance is not known.

        Args:
            name: The name of the metric, as logs have it.
            metric: The task's first metric.
            value: Its value on the validation samples.
            config: Whose keys the advice names.
        """
        if metric.chance is None or metric.perfect is None:
            return []
        band = CHANCE_BAND * abs(metric.perfect - metric.chance)
        self.epochs_at_chance = self.epochs_at_chance + 1 if abs(value - metric.chance) < band else 0
        if self.epochs_at_chance != CHANCE_EPOCHS:
            return []
        return [
            f"warning: {name} has been within {band:.3g} of {metric.chance:.3g} (chance) for {CHANCE_EPOCHS} epochs: "
            "nothing is learnt. Try, one at a time:",
            *(_advise_on_radius(config, config.optimizer.rho) if config.optimizer.rho > 0.0 else []),
            f"  --set stage{config.stage}.lr={config.optimizer.lr / 3:.2g}  (now {config.optimizer.lr:g}; "
            "or three times more, if the loss falls slowly but steadily)",
            "  and look at the samples (logs/first_batch.png, where the task draws it): are their labels right?",
        ]


class SlowSteps:
    """Watches the wall-clock time of steps on a CPU, and says once when they have become far slower.

    The usual cause is that others compute on the same processors: threads that wait for one spin against each other.
    Nothing of this is a part of the training's state.
    """

    def __init__(self, device_type: str, threads: int) -> None:
        """Begin to watch.

        Args:
            device_type: The type of the device; only a `cpu` is watched.
            threads: How many threads compute; one alone has nothing to wait for.
        """
        self._is_watching = device_type == "cpu" and threads > 1
        self._threads = threads
        self._first: list[float] = []
        self._last: deque[float] = deque(maxlen=SLOW_STEPS)

    def see(self, seconds: float) -> str | None:
        """Take in what a step took [s]; returns a line for the user when it is time for one."""
        if not self._is_watching:
            return None
        if len(self._first) < SLOW_STEPS:
            self._first.append(seconds)
            return None
        self._last.append(seconds)
        begun, now = statistics.median(self._first), statistics.median(self._last)
        if len(self._last) < SLOW_STEPS or now < SLOW_SECONDS or now < SLOW_RATIO * begun:
            return None
        self._is_watching = False
        return (
            f"note: the last {SLOW_STEPS} steps took {now:.2g} s each, the first ones {begun:.2g} s. Perhaps others "
            f"use these processors, on which the {self._threads} threads of this run wait for each other: stop it with "
            "Ctrl-C, and go on with --resume and --set threads=1"
        )


def _advise_on_radius(config: RunConfig, rho: float) -> list[str]:
    stage, optimizer = f"stage{config.stage}", config.optimizer
    lines = [f"  --set {stage}.rho={optimizer.rho / 2:.2g}  (now {rho:g})"]
    if optimizer.rho_warmup == 0.0:
        lines.append(f"  --set {stage}.rho_warmup=0.1  (now 0: the radius is whole from the first step)")
    return [*lines, f"  --set {stage}.rho=0  (plain steps, to see whether SAM is the cause)"]
