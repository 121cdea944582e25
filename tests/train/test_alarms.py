"""What an epoch's figures warn of, whichever metric selects."""

from __future__ import annotations

from typing import Any, ClassVar

from sharpstudent.metrics.metric import Metric
from sharpstudent.train.alarms import find_alarms
from sharpstudent.train.state import TrainState
from sharpstudent.train.validate import ValidationResult
from tiny_runs import TinyTask, make_config

CONFIG = make_config()


class AucTask(TinyTask):
    """Its first metric has its chance at one half."""

    metrics: ClassVar[dict[str, Metric]] = {
        "auc": Metric(lambda table, counts: float("nan"), chance=0.5, perfect=1.0),
        "eer": Metric(lambda table, counts: float("nan"), "lower", chance=0.5, perfect=0.0),
    }


def make_result(**own: float) -> ValidationResult:
    nothing: Any = None
    return ValidationResult(dict(own), next(iter(own.values())), own, nothing, nothing)


def see(
    position: TrainState,
    result: ValidationResult,
    *,
    task: TinyTask | None = None,
    ratio: float | None = None,
    settled: bool = True,
) -> str:
    task = AucTask() if task is None else task
    return "\n".join(find_alarms(position, CONFIG, task, result, ratio=ratio, is_settled=settled))


def test_chance_is_told_by_the_tasks_first_metric_whatever_selects() -> None:
    position = TrainState()
    told = [see(position, make_result(val_eer=0.1, val_auc=0.5)) for _ in range(3)]
    assert told[:2] == ["", ""]
    assert "val_auc has been within" in told[2]
    position = TrainState()
    assert [see(position, make_result(val_eer=0.5, val_auc=0.9)) for _ in range(3)] == ["", "", ""]


def test_a_task_without_an_auc_is_watched_by_its_own_metric() -> None:
    position = TrainState()
    told = [see(position, make_result(val_accuracy=0.5), task=TinyTask()) for _ in range(3)]
    assert told[:2] == ["", ""]
    assert "val_accuracy has been within" in told[2]


def test_terms_out_of_balance_are_told_once_and_only_when_they_move_no_more() -> None:
    position, fine = TrainState(), make_result(val_auc=0.9)
    assert see(position, fine, ratio=0.01, settled=False) == ""
    assert "little is distilled" in see(position, fine, ratio=0.01)
    assert see(position, fine, ratio=0.01) == ""
