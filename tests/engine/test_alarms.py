"""What an epoch's figures warn of, whichever metric selects."""

from __future__ import annotations

from typing import Any

from sharpstudent.train.alarms import find_alarms
from sharpstudent.train.state import Position
from sharpstudent.train.validate import Verdict
from tiny_runs import make_config

CONFIG = make_config()


def make_verdict(**own: float) -> Verdict:
    nothing: Any = None
    return Verdict(dict(own), next(iter(own.values())), own, nothing, nothing)


def see(position: Position, verdict: Verdict, metric: str, ratio: float | None = None, settled: bool = True) -> str:
    return "\n".join(find_alarms(position, CONFIG, verdict, metric, ratio=ratio, is_settled=settled))


def test_chance_is_told_by_the_auc_of_pictures_whatever_selects() -> None:
    position = Position()
    told = [see(position, make_verdict(val_eer=0.1, val_auc=0.5), "val_eer") for _ in range(3)]
    assert told[:2] == ["", ""]
    assert "val_auc has been within" in told[2]
    assert see(Position(), make_verdict(val_eer=0.5, val_auc=0.9), "val_eer") == ""


def test_a_task_without_that_auc_is_watched_by_its_own_metric() -> None:
    position = Position()
    assert "auc has been within" in [see(position, make_verdict(auc=0.5), "auc") for _ in range(3)][2]


def test_terms_out_of_balance_are_told_once_and_only_when_they_move_no_more() -> None:
    position, fine = Position(), make_verdict(val_auc=0.9)
    assert see(position, fine, "val_auc", ratio=0.01, settled=False) == ""
    assert "little is distilled" in see(position, fine, "val_auc", ratio=0.01)
    assert see(position, fine, "val_auc", ratio=0.01) == ""
