"""The results of an evaluation of any task as data: what report.html, results.json and the console are made of.

The form of results.json is this file's (`EvaluationResults`), told as JSON Schema in docs/evaluation.schema.json. A
reader of schema `sharpstudent/evaluation/1` may count on every key here; keys are added under the same number, and a
change of meaning raises it. All numbers are finite; what has no value is null, with a note that says why. A task whose
renderer writes results of its own form uses the small parts of this file.

Legend: E epochs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sharpstudent.core.types import Direction

SCHEMA = "sharpstudent/evaluation/1"

Role = Literal["teacher", "before", "distilled", "control", "model"]


class Plain(BaseModel):
    """Base of every part: unknown keys refused, immutable, finite numbers only."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class MetricValue(Plain):
    """A figure with the ends of its interval, where it has one. note: why it has no value or no interval, or what to
    keep in mind beside it.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    note: str | None = None


class CostResult(Plain):
    """What one sample costs (batch 1). macs: multiply-accumulates; latency_ms: median and 95th percentile; memory:
    peak while a sample is evaluated, beyond what the process held before the model was built [bytes]; device: where.
    """

    parameters: int | None
    macs: int | None
    file_bytes: int
    latency_ms: float | None
    latency_p95_ms: float | None
    memory_bytes: int | None
    device: str
    notes: tuple[str, ...] = ()


class TrainingResult(Plain):
    """metrics.csv of a run: columns by name, a value an epoch (E,), null where there was none; best_epoch, metric:
    which epoch was selected, by what.
    """

    columns: Mapping[str, tuple[float | None, ...]]
    best_epoch: int | None
    metric: str


class MetricAbout(Plain):
    """What a metric is: title: what readers call it; direction: which values are better; chance: what guessing gives,
    null where that is not known; format: of its values, as Python's `format` takes it.
    """

    title: str
    direction: Direction
    chance: float | None = None
    format: str = ".4f"


class SetBase(Plain):
    """What the results of every task say of a data set."""

    name: str
    kind: str
    split: str | None
    fingerprint: str
    notes: tuple[str, ...] = ()


class ModelBase(Plain):
    """What the results of every task say of a model."""

    name: str
    role: Role = "model"
    file: str
    sha256: str | None
    architecture: str | None
    trained: Mapping[str, Any] = Field(default_factory=dict[str, Any])
    validation: Mapping[str, float] = Field(default_factory=dict[str, float])
    cost: CostResult | None = None
    notes: tuple[str, ...] = ()


class PairBase(Plain):
    """What the results of every task say of two models."""

    a: str
    b: str
    difference: MetricValue
    p_value: float | None


class ResultsBase(Plain):
    """What the results of every task say of an evaluation."""

    schema_: str = Field(alias="schema")
    title: str
    made_at: str
    command: str
    verdict: tuple[str, ...]
    protocol: Mapping[str, str]
    training: TrainingResult | None = None
    config: Mapping[str, Any] | None = None
    environment: Mapping[str, Any] = Field(default_factory=dict[str, Any])
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """results.json, ending in a newline."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"


class EvaluatedSet(SetBase):
    """One data set as the models were evaluated on it. kind: `split` of the task's data, or `validation` of a run;
    fingerprint: sha256 over ids, groups and what else the models were not asked; counts: of the task's own; unreadable:
    samples in whose place others stood, by name with the reason.
    """

    samples: int
    rows: int
    groups: int
    counts: Mapping[str, int] = Field(default_factory=dict[str, int])
    unreadable: Mapping[str, str] = Field(default_factory=dict[str, str])


class EvaluatedModel(ModelBase):
    """One model. name: as reports call it, unique; role: of the two-stage comparison, `model` outside it; file: its
    name without folders; sha256: of that file, null where only its outputs are kept; trained: what the checkpoint says
    of its training (stage, run, epoch, seed, ...); validation: the metrics that it says chose it; metrics: by NAME for
    all sets together, and by NAME@SET where there are several; calibration: what its checkpoint keeps of its own
    validation, such as a temperature.
    """

    metrics: Mapping[str, MetricValue] = Field(default_factory=dict[str, MetricValue])
    calibration: Mapping[str, Any] | None = None


class PairResult(PairBase):
    """Two models on the same rows. metric: NAME or NAME@SET; difference: that of a minus that of b, paired; p_value:
    two-sided; better: `a` or `b` where the interval leaves 0 out, null where that cannot be told.
    """

    metric: str
    better: Literal["a", "b"] | None


class EvaluationResults(ResultsBase):
    """Everything that one evaluation found. unit, group_unit: what a row and a group are called; metrics: by name, the
    first one chooses checkpoints; verdict: plain sentences, the most important first; protocol: how it was made, by
    aspect (`intervals`, `selection`, ...); made_at: ISO 8601, UTC.
    """

    schema_: str = Field(default=SCHEMA, alias="schema")
    task: str
    unit: str
    group_unit: str
    metrics: Mapping[str, MetricAbout]
    data: tuple[EvaluatedSet, ...]
    models: tuple[EvaluatedModel, ...]
    comparisons: tuple[PairResult, ...] = ()
