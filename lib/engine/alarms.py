"""What an epoch's figures warn of: a training at chance, and terms of the loss that are out of balance."""

from __future__ import annotations

from lib.config.sections import RunConfig
from lib.engine.judge import Verdict
from lib.engine.position import Position
from lib.engine.task import PICTURE_AUC
from lib.report.guide import advise_on_ratio


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
