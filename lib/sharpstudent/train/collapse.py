"""The alarm for a training that collapses: SAM with too large a radius takes detectors to chance, without a NaN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sharpstudent.config.run_config import RunConfig
from sharpstudent.core.types import StepResult

CHANCE_BAND = 0.05  # an AUC this near to 0.5 says nothing
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

    def see_epoch(self, metric: str, value: float, config: RunConfig) -> list[str]:
        """Advice after `CHANCE_EPOCHS` epochs with an AUC near 0.5; else nothing."""
        if not metric.endswith("auc"):
            return []
        self.epochs_at_chance = self.epochs_at_chance + 1 if abs(value - 0.5) < CHANCE_BAND else 0
        if self.epochs_at_chance != CHANCE_EPOCHS:
            return []
        return [
            f"warning: {metric} has been within {CHANCE_BAND} of 0.5 (chance) for {CHANCE_EPOCHS} epochs: nothing is "
            "learnt. Try, one at a time:",
            *(_advise_on_radius(config, config.optimizer.rho) if config.optimizer.rho > 0.0 else []),
            f"  --set stage{config.stage}.lr={config.optimizer.lr / 3:.2g}  (now {config.optimizer.lr:g}; "
            "or three times more, if the loss falls slowly but steadily)",
            "  and look at logs/first_batch.png: are the pictures and their labels what they should be?",
        ]


def _advise_on_radius(config: RunConfig, rho: float) -> list[str]:
    stage, optimizer = f"stage{config.stage}", config.optimizer
    lines = [f"  --set {stage}.rho={optimizer.rho / 2:.2g}  (now {rho:g})"]
    if optimizer.rho_warmup == 0.0:
        lines.append(f"  --set {stage}.rho_warmup=0.1  (now 0: the radius is whole from the first step)")
    return [*lines, f"  --set {stage}.rho=0  (plain steps, to see whether SAM is the cause)"]
