"""The results of an evaluation of detectors as data: report.html, results.json, the model card and the console.

`Results` defines the form of results.json; docs/results.schema.json is its JSON Schema. Readers of schema
`sharpstudent/results/1` may rely on every key: new keys may be added under the same number, and a change of meaning
raises it. All numbers are finite. A missing value is null, with a note that says why.

Legend: K severities of a corruption, P points of a curve, M bins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from sharpstudent.report.results import MetricValue, ModelBase, PairBase, Plain, ReliabilityBins, ResultsBase, SetBase

Numbers = tuple[float, ...]
Counts = tuple[int, ...]


class CurvePoints(Plain):
    """A curve from the highest threshold down.

    Attributes:
        x_name: The name of the x axis.
        y_name: The name of the y axis.
        x: The x values in 0..1 (P,).
        y: The y values in 0..1 (P,).
        thresholds: The thresholds, log-odds (P,); null where nothing is called fake.
    """

    x_name: str
    y_name: str
    x: Numbers
    y: Numbers
    thresholds: tuple[float | None, ...]


class ScoreHistogram(Plain):
    """Samples by their probability of fake.

    Attributes:
        edges: The edges of the bins, in 0..1 (M + 1,).
        real: The number of reals in each bin (M,).
        fake: The number of fakes in each bin (M,).
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
        pr: Precision-recall curve.
        det: DET curve.
        reliability: Reliability diagram of the probabilities as the model gives them.
        histogram: Histogram of both classes over these probabilities.
        reliability_calibrated: Reliability diagram of the probabilities after the stored temperature; null without one.
        histogram_calibrated: Histogram over the same probabilities; null without a stored temperature.
    """

    level: str
    part: str
    roc: CurvePoints
    pr: CurvePoints
    det: CurvePoints
    reliability: ReliabilityBins
    histogram: ScoreHistogram
    reliability_calibrated: ReliabilityBins | None = None
    histogram_calibrated: ScoreHistogram | None = None


SCHEMA = "sharpstudent/results/1"


class OperatingPointResult(Plain):
    """A threshold with its rates on the data where it was chosen.

    Attributes:
        threshold: The threshold, log-odds before the temperature.
        tpr: The true positive rate: the share of fakes that are found.
        fpr: The false positive rate: the share of reals that are called fake.
    """

    threshold: float
    tpr: float
    fpr: float


class CalibrationResult(Plain):
    """Temperature and thresholds, chosen on `fitted_on` and on nothing else.

    Attributes:
        fitted_on: The data, in words.
        temperature: What logits are divided by.
        note: A warning where the search for the temperature ended at one of its bounds; else null.
        log_loss: The log loss before and after the temperature [nats].
        ece: The expected calibration error before and after the temperature.
        operating_points: The thresholds by level (`frame`, `video_mean`, ...) and name (`eer`, `fpr_1pct`, ...).
        notes: For which rates there is no threshold, and why.
    """

    fitted_on: str
    temperature: float
    note: str | None = None
    log_loss: tuple[float, float]
    ece: tuple[float, float]
    operating_points: Mapping[str, Mapping[str, OperatingPointResult]]
    notes: tuple[str, ...] = ()


class CorruptionPoint(Plain):
    """The AUC at one severity.

    Attributes:
        strength: The severity, in the corruption's unit.
        label: The severity for readers, such as `quality 50`.
        auc: The frame AUC.
    """

    strength: float
    label: str
    auc: MetricValue


class CorruptionCurve(Plain):
    """The AUC under one corruption at rising severities, the first of them none at all (K,).

    Attributes:
        name: The name of the corruption; `NAME@SET` where several data sets were evaluated.
        unit: The unit of the severities.
        points: The points of the curve (K,).
        area: The mean AUC along the curve in 0..1, by the trapezoid rule over equally spaced severities.
    """

    name: str
    unit: str
    points: tuple[CorruptionPoint, ...]
    area: float | None


class GroupRates(Plain):
    """The error rates of a model on the samples with one value of a column.

    Attributes:
        value: The value, such as `female`.
        real: The number of real frames.
        fake: The number of fake frames.
        people: The number of people.
        bpcer: The share of real frames that are called fake.
        apcer: The share of fake frames that are called real.
    """

    value: str
    real: int
    fake: int
    people: int
    bpcer: MetricValue
    apcer: MetricValue


class GroupGap(Plain):
    """The largest difference of an error rate between two values of a column.

    Attributes:
        rate: `bpcer` or `apcer`.
        higher: The value with the higher rate.
        lower: The value with the lower rate.
        difference: The higher rate minus the lower one; its level is that of as many intervals as there are pairs.
    """

    rate: str
    higher: str
    lower: str
    difference: MetricValue


class GroupErrors(Plain):
    """The error rates of a model by the values of one column.

    Attributes:
        column: The name of the column.
        threshold: The name of the threshold at which decisions are made.
        groups: The rates of each value.
        gaps: The largest difference of each rate.
        without: The number of frames for which the column says nothing; they are in no group.
    """

    column: str
    threshold: str
    groups: tuple[GroupRates, ...]
    gaps: tuple[GroupGap, ...] = ()
    without: int = 0


class ModelResult(ModelBase):
    """One model of an evaluation.

    Attributes:
        name: The name in reports, unique among the models.
        role: The role in the comparison of two stages; `model` for a model without one.
        file: The name of its file, without folders.
        sha256: The sha256 of that file; null where only the model's scores are kept.
        architecture: The name of the architecture; null where it is not known.
        seed_of: The name of the first model with its role, from which it differs in the seed; null for the first.
        image_size: The side of the input [px]; null where it is not known.
        trained: What the checkpoint says of its training (stage, run, epoch, seed, ...).
        validation: The validation metrics in the checkpoint.
        figures: Metrics by name, LEVEL_METRIC[_RULE][@SOURCE[/MANIPULATION]], as in evaluation/set_metrics.py.
        drawings: The curves of each level and part.
        calibration: The temperature and thresholds; null where none were fitted.
        cost: The cost of one picture; null where it was not measured.
        robustness: A curve for each corruption.
        by_group: Errors by the columns that the user named with --by; empty where none was named.
        learnt: The kinds of fake in its training data; null where its file does not say.
        wrong: How many frames it calls wrong at a probability of one half; null in results of earlier versions.
        notes: What to keep in mind.
    """

    image_size: int | None
    figures: Mapping[str, MetricValue] = Field(default_factory=dict[str, MetricValue])
    drawings: tuple[Drawing, ...] = ()
    calibration: CalibrationResult | None = None
    robustness: tuple[CorruptionCurve, ...] = ()
    by_group: tuple[GroupErrors, ...] = ()
    learnt: tuple[str, ...] | None = None
    wrong: int | None = None


class DataResult(SetBase):
    """One data set that detectors were evaluated on.

    Attributes:
        name: The name of the set, unique among the sets.
        kind: `manifest`, `folder` (cropped for this evaluation), `crops` or `validation`.
        split: The split that was read; null for sets without splits.
        fingerprint: A sha256 over the names, labels and contents of all faces.
        frames: Number of frames.
        faces: Number of faces.
        real: Frames that are real.
        fake: Frames that are fake.
        videos: Number of videos; 0 where every clip is a single picture.
        people: Number of people.
        faces_rule: Which faces of a frame count, in words.
        without_decision: The number of frames in which no face was found or that could not be read, by reason.
        manipulations: The number of fake frames of each kind.
        notes: What to keep in mind.
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
        a: Name of the first model.
        b: Name of the second model.
        figure: The name of the metric.
        difference: The metric of a minus that of b, paired.
        p_value: The two-sided p-value of the difference; null without an interval, and below 10 people.
        non_inferiority: Whether one is as good as the other; null where there is no p-value.
        seeds: Over how many seeds the difference is the mean; a and b are the first of them then.
        agreement: The share of samples that both models call the same at log-odds 0.
    """

    figure: str
    agreement: float


class MistakeResult(Plain):
    """One of a model's worst mistakes.

    Attributes:
        model: Name of the model.
        source: Name of the data set.
        sample_id: Name of the sample.
        clip_id: Name of its clip.
        manipulation: Kind of fake, "" for a real.
        label: Real 0, fake 1.
        probability: The probability of fake, as the model gives it.
        calibrated: The probability of fake after the stored temperature; null without one.
        picture: The index of its picture in the report; null where the face could not be read again.
    """

    model: str
    source: str
    sample_id: str
    clip_id: str
    manipulation: str
    label: int
    probability: float
    calibrated: float | None = None
    picture: int | None = None


class Band(Plain):
    """A value that the two-stage guide expects on FaceForensics++ at 380 px.

    Attributes:
        what: The quantity, such as `Teacher: parameters`.
        expected: The value that the guide expects, in words.
        measured: The value that was measured here, in words.
    """

    what: str
    expected: str
    measured: str


class Results(ResultsBase):
    """Everything that one evaluation of detectors found.

    Attributes:
        title: The title of the report.
        made_at: The time in ISO 8601, UTC.
        command: The command line.
        verdict: Plain sentences, the most important first.
        tiles: The three answers that the report begins with.
        limits: What limits the models, a sentence each.
        protocol: How it was done, by aspect (`samples`, `intervals`, `selection`, ...).
        data: The data sets.
        models: The models.
        comparisons: Pairs of models.
        mistakes: The worst mistakes of each model.
        training: The curves of a run; null where no run was evaluated.
        bands: The values that the guide expects, where models have roles; else empty.
        config: The resolved config of the run.
        environment: Machine and versions.
        notes: What to keep in mind.
    """

    schema_: str = Field(default=SCHEMA, alias="schema")
    data: tuple[DataResult, ...]
    models: tuple[ModelResult, ...]
    comparisons: tuple[ComparisonResult, ...] = ()
    mistakes: tuple[MistakeResult, ...] = ()
    bands: tuple[Band, ...] = ()


class Moment(Plain):
    """A face of a high score: when it was seen [s], and its margin."""

    second: float
    margin: float


class PersonDetails(Plain):
    """The answer about one person of a picture or video.

    Attributes:
        person: The number of the person, 1 for the one with the largest faces.
        outcome: `fake_likely`, `no_sign` or `inconclusive`.
        why: Why it is inconclusive; null otherwise.
        probability: The calibrated probability of fake, 0..1.
        margin: The log-odds of fake before the temperature, over all faces of the person.
        faces: How many faces were judged.
        first_second: When the first of them was seen [s].
        last_second: When the last of them was seen [s].
        side: The largest shorter side of a face [px].
        unlike: How many are unlike the material that the model was made with; null where that was not checked.
        moments: The faces of the highest margins.
    """

    person: int = Field(ge=1)
    outcome: Literal["fake_likely", "no_sign", "inconclusive"]
    why: str | None
    probability: float = Field(ge=0.0, le=1.0)
    margin: float
    faces: int
    first_second: float
    last_second: float
    side: float
    unlike: int | None
    moments: tuple[Moment, ...]


class Timeline(Plain):
    """The margins of the faces of each second: the mean, the lowest and the highest."""

    second: tuple[int, ...]
    mean: Numbers
    low: Numbers
    high: Numbers


class Thresholds(Plain):
    """The stored operating points that an answer rests on.

    Attributes:
        temperature: What margins are divided by.
        high: From this margin on, fake is likely.
        low: Below this margin, there is no sign.
        false_alarms: The share of reals beyond `high`, where the thresholds were chosen.
        found: The share of fakes beyond `low`, there.
        level: Of what the thresholds are: `frame`, or of videos by a rule, such as `video_mean`.
        chosen_on: The data on which they were chosen, in words.
    """

    temperature: float
    high: float
    low: float
    false_alarms: float
    found: float
    level: str
    chosen_on: str


class FaceDetails(Plain):
    """What predictions.json says of a picture or video besides the answer, under `details`.

    Attributes:
        kind: Whether it has one frame or several.
        frames: How many frames were looked at.
        frames_with_face: How many of them have a face that was judged.
        people: The people, the one with the largest faces first.
        timeline: A video's scores by second; null for a picture.
        thresholds: The stored thresholds; null where none are stored.
        remarks: Reasons for frames that were not judged, with their number.
    """

    kind: Literal["picture", "video"]
    frames: int
    frames_with_face: int
    people: tuple[PersonDetails, ...]
    timeline: Timeline | None
    thresholds: Thresholds | None
    remarks: Mapping[str, int]
