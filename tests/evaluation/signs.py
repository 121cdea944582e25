"""An invented task whose tables can be written down: two metrics, one of them better where it is lower."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from sharpstudent.task import ClassificationTask, Metric, ModelSpec, Samples, TaskSection, make_mean_metric


class SignSection(TaskSection):
    noise: float = 0.5


class SignTask(ClassificationTask):
    Section = SignSection
    classes = ("stop", "go")
    unit, group_unit = "sign", "road"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "accuracy": Metric(
            lambda table, counts: float(np.average(table["logits"].argmax(1) == table["label"], weights=counts)),
            "higher",
            chance=0.5,
            perfect=1.0,
            title="share right",
            bounds=(0.0, 1.0),
        ),
        "distance": make_mean_metric(lambda table: table["distance"], "lower", perfect=0.0, format=".2f"),
    }

    def open_data(self, *splits: str) -> tuple[Samples, ...]:
        raise NotImplementedError

    def build_student(self, spec: ModelSpec) -> Any:
        raise NotImplementedError


def make_table(right: float, distance: float, *, groups: int = 30, each: int = 5, seed: int = 0) -> dict[str, Any]:
    """A model that is right in about this share of the rows, and about so far off; the same rows for all models."""
    rng, count = np.random.default_rng(seed), groups * each
    label = np.arange(count) % 2
    is_right = rng.random(count) < right
    chosen = np.where(is_right, label, 1 - label)
    return {
        "id": np.array([f"sign {row}" for row in range(count)]),
        "group": np.array([f"road {row // each}" for row in range(count)]),
        "label": label,
        "logits": np.eye(2, dtype=np.float32)[chosen],
        "distance": np.abs(distance + rng.normal(0, 0.1, count)),
    }
