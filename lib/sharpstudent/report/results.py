"""The results of an evaluation of any task as data: report.html, results.json and the console are made of them.

`EvaluationResults` defines the form of results.json; docs/evaluation.schema.json is its JSON Schema. Readers of schema
`sharpstudent/evaluation/1` may rely on every key: new keys may be added under the same number, and a change of meaning
raises it. All numbers are finite. A missing value is null, with a note that says why. A task whose results have a
form of their own uses the base classes of this file.

Legend: E epochs, M bins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from sharpstudent.core.types import Direction

SCHEMA = "sharpstudent/evaluation/1"

Role = Literal["teacher", "before", "distilled", "control", "model"]


class Plain(BaseModel):
    """Base of all parts: immutable, finite numbers only, unknown keys are refused."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class MetricValue(Plain):
    """The value of a metric with the ends of its interval.

    Attributes:
        value: The value; null where it cannot be computed.
        low: The lower end of the interval; null where there is none.
        high: The upper end of the interval; null where there is none.
        note: Why there is no value or no interval, or what to keep in mind.
        groups: The number of groups, such as people, that the interval rests on: where classes are in different
            groups, fewer than there are. Below 10 it supports no claim. Null where there is no interval.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    note: str | None = None
    groups: int | None = None


Word = Literal["strong", "fair", "weak", "at chance", "below chance", "inconclusive", "no chance level", "not measured"]


class TileValue(Plain):
    """What a tile says of one model.

    Attributes:
        model: The name of the model; of several seeds that of the first.
        estimate: The value with its interval; of several seeds their mean, with the spread over seeds in the interval.
        word: What the interval shows (`find_word` in report/summary.py).
        about: What the value is computed over, and what to keep in mind, in half a line.
        seeds: Over how many seeds the value is the mean.
        is_main: Whether the report is about this model.
    """

    model: str
    estimate: MetricValue
    word: Word
    about: str = ""
    seeds: int = 1
    is_main: bool = False


class SummaryTile(Plain):
    """One of the three answers that a report begins with.

    Attributes:
        title: The question in a few words, such as `Accuracy on test`.
        unit: What the number is, such as `frame AUC`; "" where the title says it.
        format: `share` (`.904`), `percent` (`60.3 %`), or as Python's `format` takes it.
        ends: The ends of the scale that intervals are drawn on.
        chance: The value of guessing; null where it is not known.
        values: A value for each model, the main one last; none where nothing was measured.
        note: What to keep in mind, or what to run where nothing was measured.
    """

    title: str
    unit: str = ""
    format: str
    ends: tuple[float, float]
    chance: float | None
    values: tuple[TileValue, ...] = ()
    note: str = ""


class CostResult(Plain):
    """What one sample costs at batch size 1.

    Attributes:
        parameters: Number of parameters.
        macs: Number of multiply-accumulates.
        file_bytes: Size of the file.
        latency_ms: Median latency.
        latency_p95_ms: 95th percentile of the latency.
        memory_bytes: Peak memory while a sample is evaluated, beyond what the process held before the model was built.
        device: The device on which this was measured.
        notes: What to keep in mind.
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
        columns: The columns by name, one value an epoch (E,); null where there was none.
        best_epoch: The epoch that was selected, from 1.
        metric: The column that selected it.
    """

    columns: Mapping[str, tuple[float | None, ...]]
    best_epoch: int | None
    metric: str


class MetricAbout(Plain):
    """What a metric is.

    Attributes:
        title: The metric's name for readers.
        direction: Which values are better.
        chance: The value that guessing gives; null where it is not known.
        format: How values are formatted, as Python's `format` takes it.
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
    seed_of: str | None = None
    trained: Mapping[str, Any] = Field(default_factory=dict[str, Any])
    validation: Mapping[str, float] = Field(default_factory=dict[str, float])
    cost: CostResult | None = None
    notes: tuple[str, ...] = ()


class NonInferiority(Plain):
    """The test whether one of two models is as good as the other, but for a margin: a claim of its own.

    Attributes:
        margin: How much worse still counts as equally good, in units of the metric.
        p_a: The one-sided p-value of "a is worse than b by the margin or more".
        p_b: The one-sided p-value of "b is worse than a by the margin or more".
        as_good: `a` and `b` where their p-value is at most 0.025.
    """

    margin: float
    p_a: float
    p_b: float
    as_good: tuple[Literal["a", "b"], ...]


class PairBase(Plain):
    """What the results of every task say of two models; the subclasses explain the fields."""

    a: str
    b: str
    difference: MetricValue
    p_value: float | None
    non_inferiority: NonInferiority | None = None
    seeds: int = 1


class ResultsBase(Plain):
    """What the results of every task say of an evaluation; the subclasses explain the fields."""

    schema_: str = Field(alias="schema")
    title: str
    made_at: str
    command: str
    verdict: tuple[str, ...]
    tiles: tuple[SummaryTile, ...] = ()
    limits: tuple[str, ...] = ()
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
        name: The name of the set, unique among the sets.
        kind: `split` of the task's data, or `validation` of a run.
        split: The split of the data; null where the data has no splits.
        fingerprint: A sha256 over the seed of the samples and the ids and groups of the rows.
        samples: Number of samples.
        rows: Number of rows; a sample may have several.
        groups: Number of groups.
        counts: The task's own counts.
        unreadable: Samples that could not be read and were substituted, by name with the reason.
        notes: What to keep in mind.
    """

    samples: int
    rows: int
    groups: int
    counts: Mapping[str, int] = Field(default_factory=dict[str, int])
    unreadable: Mapping[str, str] = Field(default_factory=dict[str, str])


class ColumnValue(Plain):
    """The metrics of a model on the rows with one value of a column.

    Attributes:
        value: The value, such as `female`.
        rows: The number of rows.
        groups: The number of groups.
        metrics: The metrics by name.
    """

    value: str
    rows: int
    groups: int
    metrics: Mapping[str, MetricValue]


class ColumnGap(Plain):
    """The largest difference of a metric between two values of a column.

    Attributes:
        metric: The name of the metric.
        higher: The value with the higher metric.
        lower: The value with the lower one.
        difference: The higher metric minus the lower one; its level is that of as many intervals as there are pairs.
    """

    metric: str
    higher: str
    lower: str
    difference: MetricValue


class ColumnResult(Plain):
    """The metrics of a model by the values of one column.

    Attributes:
        column: The name of the column.
        values: The metrics of each value.
        gaps: The largest difference of each metric.
        without: The number of rows for which the column says nothing; they are in no group.
    """

    column: str
    values: tuple[ColumnValue, ...]
    gaps: tuple[ColumnGap, ...]
    without: int


class ReliabilityBins(Plain):
    """A reliability diagram: of the predicted class, or of the one class that a task names.

    Attributes:
        edges: The edges of the bins, in 0..1 (M + 1,).
        counts: The number of samples in each bin (M,).
        said: The mean predicted probability in each bin (M,); null in an empty bin.
        true: The observed share of samples of that class in each bin (M,); null in an empty bin.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    said: tuple[float | None, ...]
    true: tuple[float | None, ...]


class EvaluatedModel(ModelBase):
    """One model of an evaluation.

    Attributes:
        name: The name in reports, unique among the models.
        role: The role in the comparison of two stages; `model` for a model without one.
        file: The name of its file, without folders.
        sha256: The sha256 of that file; null where only the model's outputs are kept.
        architecture: The name of the architecture; null where it is not known.
        seed_of: The name of the first model with its role, from which it differs in the seed; null for the first.
        trained: What the checkpoint says of its training (stage, run, epoch, seed, ...).
        validation: The validation metrics in the checkpoint.
        metrics: The metrics: NAME over all sets and, where there are several sets, NAME@SET for each.
        by_column: The metrics by the columns that the user named with --by; empty where none was named.
        calibration: What the checkpoint keeps of its own validation, such as a temperature.
        reliability: For a task of classes, the reliability diagram of the predicted class, after the stored temperature
            where there is one, by set: under "" where there is one set, else under @SET.
        cost: The cost of one sample; null where it was not measured.
        notes: What to keep in mind.
    """

    metrics: Mapping[str, MetricValue] = Field(default_factory=dict[str, MetricValue])
    by_column: tuple[ColumnResult, ...] = ()
    calibration: Mapping[str, Any] | None = None
    reliability: Mapping[str, ReliabilityBins] = Field(default_factory=dict[str, ReliabilityBins])


class PairResult(PairBase):
    """Two models on the same rows.

    Attributes:
        a: Name of the first model.
        b: Name of the second model.
        metric: The metric that is compared, NAME or NAME@SET.
        difference: The metric of a minus that of b, paired.
        p_value: The two-sided p-value of the difference; null without an interval, and below 10 groups.
        non_inferiority: Whether one is as good as the other; null where there is no p-value, and for a metric that is
            no share.
        seeds: Over how many seeds the difference is the mean; a and b are the first of them then.
        better: `a` or `b` where the interval leaves 0 out and rests on 10 groups or more, else null.
    """

    metric: str
    better: Literal["a", "b"] | None


class EvaluationResults(ResultsBase):
    """Everything that one evaluation found.

    Attributes:
        title: The title of the report.
        made_at: The time in ISO 8601, UTC.
        command: The command line.
        task: The name of the task.
        unit: What a row is called.
        group_unit: What a group is called.
        verdict: Plain sentences, the most important first.
        tiles: The three answers that the report begins with.
        limits: What limits the models, a sentence each.
        protocol: How the evaluation was done, by aspect (`intervals`, `comparisons`, ...).
        metrics: The metrics by name; the first one selects checkpoints.
        data: The data sets.
        models: The models.
        comparisons: Pairs of models.
        training: The curves of a run; null where no run was evaluated.
        config: The resolved config of the run.
        environment: Machine and versions.
        notes: What to keep in mind.
    """

    schema_: str = Field(default=SCHEMA, alias="schema")
    task: str
    unit: str
    group_unit: str
    metrics: Mapping[str, MetricAbout]
    data: tuple[EvaluatedSet, ...]
    models: tuple[EvaluatedModel, ...]
    comparisons: tuple[PairResult, ...] = ()
