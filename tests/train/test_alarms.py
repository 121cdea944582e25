"""What the metrics of an epoch warn of, whichever metric selects."""

from __future__ import annotations

from typing import Any, ClassVar

from sharpstudent.metrics.metric import Metric
from sharpstudent.train.alarms import SlowSteps, find_alarms
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


def find(
    state: TrainState,
    result: ValidationResult,
    *,
    task: TinyTask | None = None,
    ratio: float | None = None,
    settled: bool = True,
) -> str:
    task = AucTask() if task is None else task
    return "\n".join(find_alarms(state, CONFIG, task, result, ratio=ratio, is_settled=settled))


def test_chance_is_detected_by_the_tasks_first_metric_whatever_selects() -> None:
    state = TrainState()
    alarms = [find(state, make_result(val_eer=0.1, val_auc=0.5)) for _ in range(3)]
    assert alarms[:2] == ["", ""]
    assert "val_auc has been within" in alarms[2]
    state = TrainState()
    assert [find(state, make_result(val_eer=0.5, val_auc=0.9)) for _ in range(3)] == ["", "", ""]


def test_a_task_without_an_auc_is_watched_by_its_own_metric() -> None:
    state = TrainState()
    alarms = [find(state, make_result(val_accuracy=0.5), task=TinyTask()) for _ in range(3)]
    assert alarms[:2] == ["", ""]
    assert "val_accuracy has been within" in alarms[2]


def test_terms_out_of_balance_are_reported_once_and_only_after_the_schedules_end() -> None:
    state, fine = TrainState(), make_result(val_auc=0.9)
    assert find(state, fine, ratio=0.01, settled=False) == ""
    assert "little is distilled" in find(state, fine, ratio=0.01)
    assert find(state, fine, ratio=0.01) == ""


def test_steps_that_become_far_slower_on_several_threads_are_said_once() -> None:
    def watch(device_type: str, threads: int, seconds: float) -> list[str]:
        slow = SlowSteps(device_type, threads)
        seen = [slow.see(one) for one in [0.5] * 10 + [0.6] * 10 + [seconds] * 40]
        return [line for line in seen if line is not None]

    (line,) = watch("cpu", 2, 30.0)
    assert "the last 10 steps took 15 s each, the first ones 0.5 s" in line  # the median of 0.6 and 30 s
    assert line.endswith("go on with --resume and --set threads=1")
    assert watch("cpu", 2, 2.0) == []  # less than five times
    assert watch("cpu", 1, 30.0) == watch("cuda", 2, 30.0) == []
    fast = SlowSteps("cpu", 2)
    assert [fast.see(one) for one in [0.01] * 10 + [0.5] * 40] == [None] * 50  # nobody waits for such steps
