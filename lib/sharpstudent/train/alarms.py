"""What a run warns of: a training at chance, terms of the loss that are out of balance, samples that cannot be read,
and a training that collapses (SAM with too large a radius takes models to chance, without a NaN).

A sample that cannot be read is named once; too many of them stop a run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sharpstudent.config.run_config import RunConfig
from sharpstudent.core.errors import TrainingStopped
from sharpstudent.core.types import StepResult
from sharpstudent.data.loader import Replaced
from sharpstudent.metrics.metric import Metric
from sharpstudent.task import Task
from sharpstudent.train.validate import PREFIX, ValidationResult

if TYPE_CHECKING:
    from sharpstudent.train.state import Position


RATIO_LIMITS = (0.1, 10.0)


def advise_on_ratio(ratio: float, *, stage: int) -> list[str]:
    """ratio: weighted losses of the terms that ask a teacher over those that read the labels, mean of an epoch."""
    low, high = RATIO_LIMITS
    if ratio < low:
        return [
            f"note: the teacher's terms weigh {ratio:.2g} of the labels' (below {low:g}): little is distilled. Try "
            f"more weight on them (--set stage{stage}.alpha_end=..., lower; or their `weight`), or a higher temperature"
        ]
    if ratio > high:
        return [
            f"note: the teacher's terms weigh {ratio:.2g} times the labels' (above {high:g}): the labels are "
            f"drowned. Try less weight on them (--set stage{stage}.alpha_end=..., higher; or their `weight`), or a "
            "lower temperature"
        ]
    return []


def find_alarms(
    position: Position,
    config: RunConfig,
    task: Task,
    validated: ValidationResult,
    *,
    ratio: float | None,
    is_settled: bool,
) -> list[str]:
    """Lines of advice, each kind once; what has been said is noted in `position`.

    Chance is told by the task's first metric. ratio: `kd_hard_ratio` of the epoch; is_settled: the terms' weights move
    no more: 5 % teacher at the start are meant.
    """
    name = f"{PREFIX}{task.default_metric}"
    lines = position.watch.see_epoch(name, task.metrics[task.default_metric], validated.own[name], config)
    if ratio is not None and is_settled and not position.told_ratio:
        advice = advise_on_ratio(ratio, stage=config.stage)
        position.told_ratio = bool(advice)
        lines += advice
    return lines


UNREADABLE_LIMIT = 0.05  # above this share of the set, training on what is left would be another data set


def take_in(replaced: Iterable[Replaced], unreadable: dict[str, str]) -> list[str]:
    """Add what is new to `unreadable` (path -> reason); a line for each of these."""
    lines: list[str] = []
    for item in replaced:
        if item.path not in unreadable:
            unreadable[item.path] = item.reason
            lines.append(f"left out {item.path}: {item.reason}; another item takes its place")
    return lines


def stop_if_too_many(unreadable: dict[str, str], known: int) -> None:
    """Raise TrainingStopped above `UNREADABLE_LIMIT` of the `known` items; one alone never stops a run."""
    if len(unreadable) > max(1, UNREADABLE_LIMIT * known):
        raise TrainingStopped(
            f"{len(unreadable)} of {known} items cannot be read (more than {UNREADABLE_LIMIT:.0%}); "
            "the list is above: mend or remove them"
        )


CHANCE_BAND = 0.1  # of the way from chance to perfect: a value this near to chance says nothing (.05 of an AUC)
CHANCE_EPOCHS = 3  # so many in a row are no accident of a first epoch
WINDOW = 50  # steps over which the two losses are averaged
JUMP = 3.0  # times the loss at w
JUMP_FLOOR = 1.0  # a loss at w + e below this is that of a working model (two classes at chance: 0.69)


@dataclass
class CollapseWatch:
    """Counts epochs at chance, and follows the losses at w and at w + e; each alarm is said once until it clears."""

    epochs_at_chance: int = 0
    steps: int = 0
    loss: float = 0.0
    perturbed_loss: float = 0.0
    is_jumping: bool = False

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))

    def see_step(self, result: StepResult, config: RunConfig, rho: float) -> list[str]:
        """Advice in the step at which the mean loss at w + e comes to stand far above that at w; else nothing."""
        if result.perturbed_loss is None:
            return []
        self.steps += 1
        share = 1.0 / min(self.steps, WINDOW)
        self.loss += share * (result.loss - self.loss)
        self.perturbed_loss += share * (result.perturbed_loss - self.perturbed_loss)
        was_jumping = self.is_jumping
        self.is_jumping = (
            self.steps >= WINDOW
            and self.perturbed_loss > JUMP_FLOOR
            and self.perturbed_loss > JUMP * max(self.loss, 0.0)
        )
        if was_jumping or not self.is_jumping:
            return []
        times = f"{self.perturbed_loss:.2f} against {self.loss:.2f}"
        return [
            f"warning: the loss at w + e is far above that at w ({times}, mean of {WINDOW} steps): the SAM radius is "
            "too large for this model, and the training may collapse to chance. Try, one at a time:",
            *_advise_on_radius(config, rho),
        ]

    def see_epoch(self, name: str, metric: Metric, value: float, config: RunConfig) -> list[str]:
        """Advice after `CHANCE_EPOCHS` epochs near chance; nothing for a metric of which chance is not known."""
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


def _advise_on_radius(config: RunConfig, rho: float) -> list[str]:
    stage, optimizer = f"stage{config.stage}", config.optimizer
    lines = [f"  --set {stage}.rho={optimizer.rho / 2:.2g}  (now {rho:g})"]
    if optimizer.rho_warmup == 0.0:
        lines.append(f"  --set {stage}.rho_warmup=0.1  (now 0: the radius is whole from the first step)")
    return [*lines, f"  --set {stage}.rho=0  (plain steps, to see whether SAM is the cause)"]
