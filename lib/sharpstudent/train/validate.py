"""Validation: the metrics of the student and of its average, and what is calibrated on them.

Validation: the metrics of the student and of its averaged weights, and which of the two an epoch is judged by.

The validation data of a run as a set to judge models on, drawn as the run drew it.

What a checkpoint says of its own scores: the temperature that mends them and the thresholds to decide by, both
chosen on the validation of its run and on nothing else.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from sharpstudent.config.run_config import Direction
from sharpstudent.data.dataset import ItemSource
from sharpstudent.data.loader import Replaced
from sharpstudent.evaluation.evaluate import Samples, compute_scores, compute_scores_of_several
from sharpstudent.evaluation.task import Scores, Task, TaskData
from sharpstudent.metrics.calibration import compute_ece, compute_log_loss, fit_temperature
from sharpstudent.metrics.draws import to_logits
from sharpstudent.metrics.figures import FPRS
from sharpstudent.metrics.tables import ScoredFrames
from sharpstudent.metrics.thresholds import choose_operating_points
from sharpstudent.report.build import choose_rules
from sharpstudent.report.results import CalibrationResult, DataResult, OperatingPointResult
from sharpstudent.train.preflight.findings import describe_temperature
from sharpstudent.train.run import Run
from sharpstudent.train.step import TrainStep

EVALUATION_ITEMS = 16  # items a batch when nothing is learnt


@dataclass(frozen=True)
class Verdict:
    """metrics: all of them, those of the averaged weights with `_ema`, and which of the two was `selected`. Of the
    selected one: value: its selection metric; own: its metrics; scores: what they were made of; model: it.
    """

    metrics: dict[str, Any]
    value: float
    own: Mapping[str, float]
    scores: Scores
    model: nn.Module


@dataclass(frozen=True)
class Judge:
    """Validates models of one run, always on the same items.

    between_batches: may raise to stop; report_unreadable: gets the items that could not be read.
    """

    run: Run
    task: Task
    data: TaskData
    between_batches: Callable[[], None]
    report_unreadable: Callable[[tuple[Replaced, ...]], None]

    def validate(self, model: nn.Module) -> tuple[dict[str, float], Scores]:
        """The task's metrics of one model, and its scores. Raises MetricError for scores that are not finite."""
        scores, replaced = compute_scores(model, self.data.validation, **self._settings())
        self.report_unreadable(replaced)
        return self.task.compute_metrics(scores), scores

    def score(self, models: Sequence[nn.Module]) -> tuple[tuple[Scores, ...], tuple[Replaced, ...]]:
        """The scores of several models in one pass, and the items that could not be read (reported already)."""
        scores, replaced = compute_scores_of_several(models, self.data.validation, **self._settings())
        self.report_unreadable(replaced)
        return scores, replaced

    def _settings(self) -> dict[str, Any]:
        config = self.run.config
        return {
            "seed": self.data.evaluation_seed,
            "batch_size": EVALUATION_ITEMS,
            "num_workers": config.num_workers,
            "timeout_s": config.loader_timeout,
            "device": self.run.device,
            "between_batches": self.between_batches,
        }

    def judge(self, step: TrainStep) -> Verdict:
        """The student, and where its weights are averaged, the average too: the better one counts, of equal ones the
        student.
        """
        metric = self.task.selection_metric
        student, scores = self.validate(step.student)
        if step.average is None:
            return Verdict(dict(student), student[metric], student, scores, step.student)
        averaged, averaged_scores = self.validate(step.average.model)
        is_average = is_better(averaged[metric], student[metric], self.task.selection_metrics[metric])
        metrics = {
            **student,
            **{f"{name}_ema": value for name, value in averaged.items()},
            "selected": "ema" if is_average else "student",
        }
        if is_average:
            return Verdict(metrics, averaged[metric], averaged, averaged_scores, step.average.model)
        return Verdict(metrics, student[metric], student, scores, step.student)


def is_better(value: float, other: float, direction: Direction) -> bool:
    """Whether a value of a metric beats another: of equal ones, neither does."""
    return value > other if direction == "higher" else value < other


Build = Callable[[int], tuple[Task, TaskData]]


class ValidationSet:
    """run: its name; image_size: of its pictures [px]; build: the task and its data at a size of input."""

    def __init__(self, run: str, image_size: int, build: Build) -> None:
        self._run, self._image_size, self._build = run, image_size, build
        self.name = f"validation of {run}".replace("/", "-")
        self._built: dict[int, tuple[Task, TaskData]] = {}
        self._frames: ScoredFrames | None = None

    @property
    def seed(self) -> int:
        """What keys the randomness of the items: that of every validation of the run."""
        return self._get(self._image_size)[1].evaluation_seed

    def build_source(self, image_size: int) -> ItemSource:
        """Its items at the size of a network's input. Raises UserError where the run's data is no longer there."""
        return self._get(image_size)[1].validation

    def to_frames(self, scores: Scores, unreadable: dict[str, str]) -> ScoredFrames:
        """As the run itself was judged: items that could not be read were replaced there too; `describe` names them."""
        frames = self._get(self._image_size)[0].to_frames(scores)
        self._frames = replace(frames, sources=[self.name] * len(frames))
        return self._frames

    def list_samples(self, scores: Scores) -> Samples:
        frames = self._get(self._image_size)[0].to_frames(scores)
        # A picture that stood in for another has two rows and one frame.
        frame_of = {name: frame for frame, name in enumerate(frames.sample_ids)}
        rows = [frame_of[name] for name in scores.sample_ids]
        return Samples(
            labels=scores.labels,
            margins=scores.margin,
            names=scores.sample_ids,
            clip_ids=[frames.clip_ids[row] for row in rows],
            manipulations=[frames.manipulations[row] for row in rows],
        )

    def describe(self, unreadable: dict[str, str]) -> DataResult:
        """After `to_frames`. The fingerprint is over names, labels and the seed of the items' randomness."""
        frames = self._frames
        assert frames is not None
        labels = frames.labels.tolist()
        text = "\n".join(f"{name} {label}" for name, label in zip(frames.sample_ids, labels, strict=True))
        kinds = Counter(kind for kind, label in zip(frames.manipulations, labels, strict=True) if label == 1)
        notes = [f"the validation data of the run {self._run}: it chose the checkpoint, so its figures flatter it"]
        notes += [f"{name} could not be read ({reason}); another item stood in" for name, reason in unreadable.items()]
        return DataResult(
            name=self.name,
            kind="validation",
            split="val",
            fingerprint=hashlib.sha256(f"{self.seed}\n{text}".encode("utf-8", "surrogatepass")).hexdigest(),
            frames=len(frames),
            faces=len(frames),
            real=labels.count(0),
            fake=labels.count(1),
            videos=len(set(frames.clip_ids)),
            people=len(set(frames.groups)),
            faces_rule="one face a picture, as the run's own validation",
            manipulations=dict(sorted(kinds.items())),
            notes=tuple(notes),
        )

    def _get(self, image_size: int) -> tuple[Task, TaskData]:
        if image_size not in self._built:
            self._built[image_size] = self._build(image_size)
        return self._built[image_size]


MOST_KINDS = 4  # of fakes that are named


def calibrate_on_validation(
    frames: ScoredFrames, *, where: str = "validation of this run", fprs: Sequence[float] = FPRS
) -> CalibrationResult:
    """Temperature scaling (Guo et al. 2017) of single frames, and operating points of frames; of videos too where a
    clip has more frames than one. Thresholds are log-odds before the temperature.

    where: what the frames are; fprs: wanted shares of reals called fake, 0..1, that get a threshold each. Raises
    MetricError as `choose_operating_points` does: for scores that are not finite, one class, no decision at all.
    """
    # First: it checks the frames.
    points = choose_operating_points(frames, fprs=fprs, aggregations=choose_rules(frames))
    is_decided = slice(None) if frames.decided is None else frames.decided
    logits, labels = to_logits(frames.margins[is_decided]), frames.labels[is_decided]
    temperature = fit_temperature(logits, labels)
    return CalibrationResult(
        fitted_on=f"{where}: {describe_frames(frames)}",
        temperature=temperature,
        note=describe_temperature(temperature),
        log_loss=(compute_log_loss(logits, labels), compute_log_loss(logits / temperature, labels)),
        ece=(compute_ece(logits, labels), compute_ece(logits / temperature, labels)),
        operating_points={
            level: {name: OperatingPointResult(**vars(point)) for name, point in named.items()}
            for level, named in points.items()
        },
    )


def describe_frames(frames: ScoredFrames) -> str:
    """`640 frames of 26 people, 320 real, 320 fake (self-blend)`; without a decision: counted too."""
    fakes = Counter(kind for kind, label in zip(frames.manipulations, frames.labels, strict=True) if label == 1)
    named = [kind for kind, _ in fakes.most_common(MOST_KINDS) if kind not in ("", "fake")]
    more = [f"{len(fakes) - MOST_KINDS} more kinds"] if len(fakes) > MOST_KINDS else []
    kinds = f" ({', '.join([*named, *more])})" if named else ""
    people = len(set(zip(frames.sources, frames.groups, strict=True)))
    return f"{len(frames)} frames of {people} people, {len(frames) - fakes.total()} real, {fakes.total()} fake{kinds}"
