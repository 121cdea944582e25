"""The results of an evaluation of detectors as data: report.html, results.json, the model card and the console.

`Results` defines the form of results.json; docs/results.schema.json is its JSON Schema. Readers of schema
`sharpstudent/results/1` may rely on every key: new keys may be added under the same number, and a change of meaning
raises it. All numbers are finite. A missing value is null, with a note that says why.

Legend: K severities of a corruption, P points of a curve, M bins.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from sharpstudent.report.results import MetricValue, ModelBase, PairBase, Plain, ResultsBase, SetBase

Numbers = tuple[float, ...]
Counts = tuple[int, ...]


class CurvePoints(Plain):
    """A curve from the highest threshold down.

    Attributes:
        x_name: name of the x axis.
        y_name: name of the y axis.
        x: in 0..1 (P,).
        y: in 0..1 (P,).
        thresholds: log-odds (P,), null where nothing is called fake.
    """

    x_name: str
    y_name: str
    x: Numbers
    y: Numbers
    thresholds: tuple[float | None, ...]


class ReliabilityBins(Plain):
    """A reliability diagram of the probability of fake.

    Attributes:
        edges: in 0..1 (M + 1,).
        counts: samples in each bin (M,).
        said: mean probability (M,), null in an empty bin.
        true: share that is fake (M,), null in an empty bin.
    """

    edges: Numbers
    counts: Counts
    said: tuple[float | None, ...]
    true: tuple[float | None, ...]


class ScoreHistogram(Plain):
    """Samples by their probability of fake.

    Attributes:
        edges: in 0..1 (M + 1,).
        real: counts of reals (M,).
        fake: counts of fakes (M,).
    """

    edges: Numbers
    real: Counts
    fake: Counts


class Drawing(Plain):
    """The curves of one model's scores.

    Attributes:
        level: `frame` or `video_mean`.
        part: "" for all data, or "@SOURCE".
        roc: ROC curve.
        pr: precision-recall curve.
        det: DET curve.
        reliability: reliability diagram.
        histogram: histogram of both classes.
    """

    level: str
    part: str
    roc: CurvePoints
    pr: CurvePoints
    det: CurvePoints
    reliability: ReliabilityBins
    histogram: ScoreHistogram


SCHEMA = "sharpstudent/results/1"


class OperatingPointResult(Plain):
    """A threshold with its rates on the data where it was chosen.

    Attributes:
        threshold: log-odds before temperature.
        tpr: true positive rate.
        fpr: false positive rate.
    """

    threshold: float
    tpr: float
    fpr: float


class CalibrationResult(Plain):
    """Temperature and thresholds, chosen on `fitted_on` and on nothing else.

    Attributes:
        fitted_on: the data, in words.
        temperature: what logits are divided by.
        note: why the search found none.
        log_loss: before and after, in nats.
        ece: before and after.
        operating_points: by level (`frame`, `video_mean`, ...) and name (`eer`, `youden`, `fpr_1pct`, ...).
    """

    fitted_on: str
    temperature: float
    note: str | None = None
    log_loss: tuple[float, float]
    ece: tuple[float, float]
    operating_points: Mapping[str, Mapping[str, OperatingPointResult]]


class CorruptionPoint(Plain):
    """The AUC at one severity.

    Attributes:
        strength: the severity, in the corruption's unit.
        label: the severity for readers, `quality 50`.
        auc: frame AUC.
    """

    strength: float
    label: str
    auc: MetricValue


class CorruptionCurve(Plain):
    """The AUC under one corruption at rising severities, the first of them none at all (K,).

    Attributes:
        name: of the corruption.
        unit: of the severities.
        points: (K,).
        area: mean AUC along the curve in 0..1, by the trapezoid rule over equally spaced severities.
    """

    name: str
    unit: str
    points: tuple[CorruptionPoint, ...]
    area: float | None


class ModelResult(ModelBase):
    """One model of an evaluation.

    Attributes:
        name: as reports call it, unique.
        role: its part in the comparison of two stages, `model` where it has none.
        file: name of its file, without folders.
        sha256: of that file, null where only its scores are kept.
        architecture: null where it is not known.
        image_size: side of the input in pixels, null where it is not known.
        trained: what the checkpoint says of its training (stage, run, epoch, seed, ...).
        validation: the validation metrics in the checkpoint.
        figures: metrics by name, LEVEL_METRIC[_RULE][@SOURCE[/MANIPULATION]], as in evaluation/set_metrics.py.
        drawings: curves of each level and part.
        calibration: null where none was fitted.
        cost: null where it was not measured.
        robustness: a curve for each corruption.
        notes: what to keep in mind.
    """

    image_size: int | None
    figures: Mapping[str, MetricValue] = Field(default_factory=dict[str, MetricValue])
    drawings: tuple[Drawing, ...] = ()
    calibration: CalibrationResult | None = None
    robustness: tuple[CorruptionCurve, ...] = ()


class DataResult(SetBase):
    """One data set that detectors were evaluated on.

    Attributes:
        name: unique among the sets.
        kind: manifest, folder (cropped for this evaluation), crops or validation.
        split: of a manifest, else null.
        fingerprint: sha256 over names, labels and contents of all faces.
        frames: number of frames.
        faces: number of faces.
        real: frames that are real.
        fake: frames that are fake.
        videos: number of videos.
        people: number of people.
        faces_rule: which of a frame's faces count.
        without_decision: frames in which no face was found or that could not be read, by reason.
        manipulations: fakes of each kind, in frames.
        notes: what to keep in mind.
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
    """Two models on the same samples.

    Attributes:
        a: name of the first model.
        b: name of the second model.
        figure: name of the metric.
        difference: the metric of a minus that of b, paired.
        p_value: two-sided.
        agreement: share of samples that both call the same at log-odds 0.
    """

    figure: str
    agreement: float


class MistakeResult(Plain):
    """One of a model's worst mistakes.

    Attributes:
        model: name of the model.
        source: name of the data set.
        sample_id: name of the sample.
        clip_id: name of its clip.
        manipulation: kind of fake, "" for a real.
        label: real 0, fake 1.
        probability: of fake.
        picture: its number among the report's pictures, null where it could not be read again.
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
    """A value that the two-stage guide expects on FaceForensics++ at 380 px.

    Attributes:
        what: what it is a value of.
        expected: what the guide expects.
        measured: what was measured here.
    """

    what: str
    expected: str
    measured: str


class Results(ResultsBase):
    """Everything that one evaluation of detectors found.

    Attributes:
        title: of the report.
        made_at: time in ISO 8601, UTC.
        command: the command line.
        verdict: plain sentences, the most important first.
        protocol: how it was done, by aspect (`samples`, `intervals`, `selection`, ...).
        data: the data sets.
        models: the models.
        comparisons: pairs of models.
        mistakes: the worst ones of each model.
        training: curves of a run, null where no run was evaluated.
        bands: what the guide expects, where models have roles.
        config: config of the run.
        environment: machine and versions.
        notes: what to keep in mind.
    """

    schema_: str = Field(default=SCHEMA, alias="schema")
    data: tuple[DataResult, ...]
    models: tuple[ModelResult, ...]
    comparisons: tuple[ComparisonResult, ...] = ()
    mistakes: tuple[MistakeResult, ...] = ()
    bands: tuple[Band, ...] = ()
