"""The results of an evaluation of detectors as data: what report.html, results.json, the model card and the console
are made of.

The form of results.json is this file's (`Results`), told as JSON Schema in docs/results.schema.json. A reader of schema
`sharpstudent/results/1` may count on every key here; keys are added under the same number, and a change of meaning
raises it. All numbers are finite; what has no value is null, with a note that says why.

Legend: K severities of a corruption, P points of a curve, M bins.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from sharpstudent.report.results import MetricValue, ModelBase, PairBase, Plain, ResultsBase, SetBase

Numbers = tuple[float, ...]
Counts = tuple[int, ...]


class CurvePoints(Plain):
    """A curve from the highest threshold down; x, y in 0..1 (P,); thresholds [log-odds] (P,): null where nothing is
    called fake.
    """

    x_name: str
    y_name: str
    x: Numbers
    y: Numbers
    thresholds: tuple[float | None, ...]


class ReliabilityBins(Plain):
    """Of the probability of fake: edges (M + 1,), counts (M,), said and true (M,): null in an empty bin."""

    edges: Numbers
    counts: Counts
    said: tuple[float | None, ...]
    true: tuple[float | None, ...]


class ScoreHistogram(Plain):
    """Samples by their probability of fake: edges (M + 1,) in 0..1, real and fake: counts (M,)."""

    edges: Numbers
    real: Counts
    fake: Counts


class Drawing(Plain):
    """The pictures of one model's scores. level: `frame` or `video_mean`; part: "" for all, or "@SOURCE"."""

    level: str
    part: str
    roc: CurvePoints
    pr: CurvePoints
    det: CurvePoints
    reliability: ReliabilityBins
    histogram: ScoreHistogram


SCHEMA = "sharpstudent/results/1"


class OperatingPointResult(Plain):
    """A threshold [log-odds before temperature], with the TPR and FPR that it has where it was chosen."""

    threshold: float
    tpr: float
    fpr: float


class CalibrationResult(Plain):
    """Temperature and thresholds, chosen on `fitted_on` and on nothing else.

    temperature: what logits are divided by; note: where the search found none. log_loss, ece: before and after.
    operating_points: by level (`frame`, `video_mean`, ...) and name (`eer`, `youden`, `fpr_1pct`, ...).
    """

    fitted_on: str
    temperature: float
    note: str | None = None
    log_loss: tuple[float, float]
    ece: tuple[float, float]
    operating_points: Mapping[str, Mapping[str, OperatingPointResult]]


class CorruptionPoint(Plain):
    """strength: severity, in the corruption's unit; label: as a reader says it, `quality 50`; auc: frame AUC."""

    strength: float
    label: str
    auc: MetricValue


class CorruptionCurve(Plain):
    """One corruption at rising severities, the first of them none at all (K,). area: mean AUC along the curve, by the
    trapezoid rule over equally spaced severities, 0..1.
    """

    name: str
    unit: str
    points: tuple[CorruptionPoint, ...]
    area: float | None


class ModelResult(ModelBase):
    """One model. name: as reports call it, unique; role: of the two-stage comparison, `model` outside it; file: its
    name without folders; sha256: of that file, null where only its scores are kept; trained: what the checkpoint says
    of its training (stage, run, epoch, seed, ...); validation: the metrics that it says chose it. figures: by name,
    LEVEL_FIGURE[_RULE][@SOURCE[/MANIPULATION]], as in metrics/figures.py.
    """

    image_size: int | None
    figures: Mapping[str, MetricValue] = Field(default_factory=dict[str, MetricValue])
    drawings: tuple[Drawing, ...] = ()
    calibration: CalibrationResult | None = None
    robustness: tuple[CorruptionCurve, ...] = ()


class DataResult(SetBase):
    """One data set as it was evaluated. kind: manifest, folder (cut for this), crops, validation; split: of a manifest;
    fingerprint: sha256 over names, labels and contents of all faces; faces_rule: which of a frame's faces count;
    without_decision: frames in which no face was found or that could not be read, by reason; manipulations: fakes of
    each kind, frames.
    """

    frames: int
    faces: int
    real: int
    fake: int
    videos: int
    people: int
    faces_rule: str
    without_decision: Mapping[str, int] = Field(default_factory=dict[str, int])
    manipulations: Mapping[str, int] = Field(default_factory=dict[str, int])


class ComparisonResult(PairBase):
    """Two models on the same samples. difference: figure of a minus that of b, paired; p_value: two-sided; agreement:
    share of samples that both call the same at log-odds 0.
    """

    figure: str
    agreement: float


class MistakeResult(Plain):
    """One of a model's worst mistakes. label: real 0, fake 1; probability: of fake; picture: its number among the
    report's pictures, null where it could not be read again.
    """

    model: str
    source: str
    sample_id: str
    clip_id: str
    manipulation: str
    label: int
    probability: float
    picture: int | None = None


class Band(Plain):
    """A value that the two-stage guide expects on FaceForensics++ at 380 px, beside what was measured here."""

    what: str
    expected: str
    measured: str


class Results(ResultsBase):
    """Everything that one evaluation found. verdict: plain sentences, the most important first; protocol: how it was
    made, by aspect (`samples`, `intervals`, `selection`, ...); made_at: ISO 8601, UTC.
    """

    schema_: str = Field(default=SCHEMA, alias="schema")
    data: tuple[DataResult, ...]
    models: tuple[ModelResult, ...]
    comparisons: tuple[ComparisonResult, ...] = ()
    mistakes: tuple[MistakeResult, ...] = ()
    bands: tuple[Band, ...] = ()
