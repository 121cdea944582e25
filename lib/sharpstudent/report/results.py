"""The results of an evaluation of any task as data: report.html, results.json and the console are made of them.

`EvaluationResults` defines the form of results.json; docs/evaluation.schema.json is its JSON Schema. Readers of schema
`sharpstudent/evaluation/1` may rely on every key: new keys may be added under the same number, and a change of meaning
raises it. All numbers are finite. A missing value is null, with a note that says why. A task whose results have a
form of their own uses the base classes of this file.

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
    """Base of all parts: immutable, finite numbers only, unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class MetricValue(Plain):
    """The value of a metric with the ends of its interval.

    Attributes:
        value: null where it cannot be computed.
        low: lower end of the interval, null where there is none.
        high: upper end of the interval, null where there is none.
        note: why there is no value or no interval, or what to keep in mind.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    note: str | None = None


class CostResult(Plain):
    """What one sample costs at batch size 1.

    Attributes:
        parameters: number of parameters.
        macs: multiply-accumulates.
        file_bytes: size of the file.
        latency_ms: median latency.
        latency_p95_ms: 95th percentile of the latency.
        memory_bytes: peak while a sample is evaluated, beyond what the process held before the model was built.
        device: where this was measured.
        notes: what to keep in mind.
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
    """The columns of metrics.csv of a run.

    Attributes:
        columns: by name, one value an epoch (E,), null where there was none.
        best_epoch: the epoch that was selected, from 1.
        metric: the column that selected it.
    """

    columns: Mapping[str, tuple[float | None, ...]]
    best_epoch: int | None
    metric: str


class MetricAbout(Plain):
    """What a metric is.

    Attributes:
        title: its name for readers.
        direction: which values are better.
        chance: the value of guessing, null where it is not known.
        format: how values are formatted, as Python's `format` takes it.
    """

    title: str
    direction: Direction
    chance: float | None = None
    format: str = ".4f"


class SetBase(Plain):
    """What the results of every task say of a data set; the subclasses explain the fields."""

    name: str
    kind: str
    split: str | None
    fingerprint: str
    notes: tuple[str, ...] = ()


class ModelBase(Plain):
    """What the results of every task say of a model; the subclasses explain the fields."""

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
    """What the results of every task say of two models; the subclasses explain the fields."""

    a: str
    b: str
    difference: MetricValue
    p_value: float | None


class ResultsBase(Plain):
    """What the results of every task say of an evaluation; the subclasses explain the fields."""

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
    """One data set that models were evaluated on.

    Attributes:
        name: unique among the sets.
        kind: `split` of the task's data, or `validation` of a run.
        split: which split of the data, null where there are none.
        fingerprint: sha256 over ids, groups and targets.
        samples: number of samples.
        rows: number of rows; a sample may have several.
        groups: number of groups.
        counts: the task's own counts.
        unreadable: samples that could not be read and were substituted, by name with the reason.
        notes: what to keep in mind.
    """

    samples: int
    rows: int
    groups: int
    counts: Mapping[str, int] = Field(default_factory=dict[str, int])
    unreadable: Mapping[str, str] = Field(default_factory=dict[str, str])


class EvaluatedModel(ModelBase):
    """One model of an evaluation.

    Attributes:
        name: as reports call it, unique.
        role: its part in the comparison of two stages, `model` where it has none.
        file: name of its file, without folders.
        sha256: of that file, null where only its outputs are kept.
        architecture: null where it is not known.
        trained: what the checkpoint says of its training (stage, run, epoch, seed, ...).
        validation: the validation metrics in the checkpoint.
        metrics: by NAME over all sets, and by NAME@SET where there are several.
        calibration: what the checkpoint keeps of its own validation, such as a temperature.
        cost: null where it was not measured.
        notes: what to keep in mind.
    """

    metrics: Mapping[str, MetricValue] = Field(default_factory=dict[str, MetricValue])
    calibration: Mapping[str, Any] | None = None


class PairResult(PairBase):
    """Two models on the same rows.

    Attributes:
        a: name of the first model.
        b: name of the second model.
        metric: NAME or NAME@SET.
        difference: the metric of a minus that of b, paired.
        p_value: two-sided.
        better: `a` or `b` where the interval leaves 0 out, else null.
    """

    metric: str
    better: Literal["a", "b"] | None


class EvaluationResults(ResultsBase):
    """Everything that one evaluation found.

    Attributes:
        title: of the report.
        made_at: time in ISO 8601, UTC.
        command: the command line.
        task: name of the task.
        unit: what a row is called.
        group_unit: what a group is called.
        verdict: plain sentences, the most important first.
        protocol: how it was done, by aspect (`intervals`, `selection`, ...).
        metrics: by name; the first one selects checkpoints.
        data: the data sets.
        models: the models.
        comparisons: pairs of models.
        training: curves of a run, null where no run was evaluated.
        config: config of the run.
        environment: machine and versions.
        notes: what to keep in mind.
    """

    schema_: str = Field(default=SCHEMA, alias="schema")
    task: str
    unit: str
    group_unit: str
    metrics: Mapping[str, MetricAbout]
    data: tuple[EvaluatedSet, ...]
    models: tuple[EvaluatedModel, ...]
    comparisons: tuple[PairResult, ...] = ()
