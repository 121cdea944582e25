"""What a run warns of: terms out of balance, training at chance, samples that cannot be read.

What an epoch's figures warn of: a training at chance, and terms of the loss that are out of balance.

Items that cannot be read: named once each, and too many of them stop a run.
"""

from __future__ import annotations

from collections.abc import Iterable

from sharpstudent.config.run_config import RunConfig
from sharpstudent.core.errors import TrainingStopped
from sharpstudent.data.loader import Replaced
from sharpstudent.evaluation.task import PICTURE_AUC
from sharpstudent.report.guide import advise_on_ratio
from sharpstudent.train.state import Position
from sharpstudent.train.validate import Verdict


def find_alarms(
    position: Position, config: RunConfig, verdict: Verdict, metric: str, *, ratio: float | None, is_settled: bool
) -> list[str]:
    """Lines of advice, each kind once; what has been said is noted in `position`.

    metric: that selects. Chance is told by the AUC of single pictures where the task has one. ratio: `kd_hard_ratio` of
    the epoch; is_settled: the terms' weights move no more: 5 % teacher at the start are meant.
    """
    watched = PICTURE_AUC if PICTURE_AUC in verdict.own else metric
    lines = position.watch.see_epoch(watched, verdict.own[watched], config)
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
