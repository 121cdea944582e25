"""What the scores of student and teachers foretell of stage 2.

What the scores of student and teachers foretell of stage 2: figures of each model, and a sentence for each thing
that would go wrong.

What the scores of several teachers' average foretell: it is what the student learns from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from sharpstudent.evaluation.task import Scores
from sharpstudent.metrics.binary import compute_accuracy, compute_auc, compute_auc_by_rank
from sharpstudent.metrics.bootstrap import Interval, compute_interval_by_group, compute_paired_interval
from sharpstudent.metrics.calibration import (
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    compute_brier,
    compute_ece,
    compute_log_loss,
    fit_temperature,
)
from sharpstudent.models.teachers import TeacherEnsemble
from sharpstudent.report.guide import STAGE1_ACCURACY, STAGE1_EPOCHS

CHANCE, WEAK = 0.5, 0.80  # AUC
SPREAD_RATIO = 10.0  # of the standard deviations of two models' logits
USUAL_TEMPERATURE = 3.0  # the default of `temperature`: a teacher that needs no more is not too sure
ROUNDS = 1000

_TEMPERATURE_NOTES = {
    LOWEST_TEMPERATURE: "the lowest tried: no picture is on the wrong side, so any temperature could be lower still",
    HIGHEST_TEMPERATURE: "the highest tried: wrong more than right, so no temperature mends it",
}


def describe_temperature(temperature: float) -> str | None:
    """What to say beside a fitted temperature: that it is a bound of the search, and what that means."""
    return _TEMPERATURE_NOTES.get(temperature)


@dataclass(frozen=True)
class ModelRow:
    """One model on the validation pictures. log_loss [nats]; logits_*: over pictures and classes, `largest` by
    magnitude; temperature: what its logits divided by would be calibrated (`fit_temperature`), with a note at a bound.
    calibration: what they were divided by before all these figures were made (`calibrate`).
    """

    name: str
    val_auc: float
    val_accuracy: float
    ece: float
    log_loss: float
    brier: float
    logits_mean: float
    logits_sd: float
    logits_largest: float
    temperature: float
    temperature_note: str | None
    calibration: float | None = None


@dataclass(frozen=True)
class Judged:
    """A model's scores and the figures made of them."""

    row: ModelRow
    scores: Scores

    @property
    def name(self) -> str:
        return self.row.name


def compute_row(name: str, scores: Scores) -> ModelRow:
    """The figures of one model. Raises MetricError for logits that are not finite, and for one class only."""
    logits = scores.logits.astype(np.float64)
    told = {"labels": scores.labels, "sample_ids": scores.sample_ids}
    temperature = fit_temperature(logits, **told)  # first: its message is about logits, not about their difference
    return ModelRow(
        name=name,
        val_auc=compute_auc(scores.margin, **told),
        val_accuracy=compute_accuracy(scores.fake_probability, **told),
        ece=compute_ece(logits, **told),
        log_loss=compute_log_loss(logits, **told),
        brier=compute_brier(logits, **told),
        logits_mean=float(logits.mean()),
        logits_sd=float(logits.std()),
        logits_largest=float(np.abs(logits).max()),
        temperature=temperature,
        temperature_note=describe_temperature(temperature),
    )


def find_problems(student: Judged, teachers: Sequence[Judged]) -> list[str]:
    """One sentence for each, with its figures and what to do. All models were judged on the same pictures."""
    found = _find_unprepared(student)
    for model in (student, *teachers):
        found += find_constant(model)
    for teacher in teachers:
        if teacher.scores.logits.tobytes() == student.scores.logits.tobytes():
            found.append(
                f"{teacher.name} and {student.name} agree on all {len(student.scores.labels)} pictures to the last "
                "bit: the teacher's file is the student's own, and nothing can be learnt from it; name another file "
                "for it"
            )
        found += _find_bad_teacher(teacher, student)
        found += find_other_range(teacher, student)
    return found


def _find_unprepared(student: Judged) -> list[str]:
    accuracy = student.row.val_accuracy
    if accuracy >= STAGE1_ACCURACY:
        return []
    return [
        f"{student.name} is right on {accuracy:.1%} of the validation pictures, below the {STAGE1_ACCURACY:.0%} that "
        f"stage 2 needs: run stage 1 longer, `stage1.epoch` {STAGE1_EPOCHS} or more"
    ]


def find_constant(model: Judged) -> list[str]:
    """Where it says one thing of every picture."""
    logits = model.scores.logits
    if bool((logits != logits[0]).any()):
        return []
    return [
        f"{model.name} gives the same logits to all {len(logits)} pictures: it has learnt nothing, or has collapsed"
    ]


def _find_bad_teacher(teacher: Judged, student: Judged) -> list[str]:
    auc = teacher.row.val_auc
    if auc < CHANCE:
        interval = compute_interval(teacher.scores)
        is_told = interval is None or interval.high < CHANCE
        what = "its classes are probably swapped" if is_told else "it is untrained, or its classes are swapped"
        return [
            f"{teacher.name} has a validation AUC of {auc:.4f}{show_interval(interval)}, below chance: {what}; if so, "
            'write "classes": ["fake", "real"] for it in `teachers`'
        ]
    advice = "name a better teacher, or keep `alpha_end` near 1"
    return [*find_weakness(teacher, "train it longer, or name a better one"), *find_worse(teacher, student, advice)]


def find_weakness(teacher: Judged, advice: str) -> list[str]:
    """Below an AUC from which there is something to learn."""
    auc = teacher.row.val_auc
    if auc >= WEAK:
        return []
    return [
        f"{teacher.name} is weak, with a validation AUC of {auc:.4f} (below {WEAK:.2f}): expect little from it; "
        f"{advice}"
    ]


def find_worse(model: Judged, other: Judged, advice: str) -> list[str]:
    """Where `model` ranks worse than `other` by more than the noise over people."""
    if model.row.val_auc >= other.row.val_auc:
        return []
    interval = _compute_difference(model.scores, other.scores)
    if interval is None or interval.high >= 0.0:
        return []
    return [
        f"{model.name} is worse than {other.name}: AUC {model.row.val_auc:.4f} against {other.row.val_auc:.4f}, a "
        f"difference of {interval.value:+.4f}{show_interval(interval)}; {advice}"
    ]


def find_other_range(teacher: Judged, student: Judged) -> list[str]:
    """Of very different spreads, the softened distributions of one side are all but one-hot where the other's are
    flat.
    """
    wide, narrow = sorted((teacher, student), key=lambda model: model.row.logits_sd, reverse=True)
    if wide.row.logits_sd <= SPREAD_RATIO * narrow.row.logits_sd or narrow.row.logits_sd == 0.0:
        return []  # without any spread a model is constant, which is told already
    ratio = wide.row.logits_sd / narrow.row.logits_sd
    return [
        f"the logits of {wide.name} spread {ratio:.3g} times as widely as those of {narrow.name} (standard deviations "
        f"{wide.row.logits_sd:.3g} and {narrow.row.logits_sd:.3g}, largest {wide.row.logits_largest:.3g} and "
        f"{narrow.row.logits_largest:.3g}), a frequent cause of losses that are not finite: "
        + _advise_on_range(wide, student)
    ]


def _advise_on_range(wide: Judged, student: Judged) -> str:
    """What to do where one side's logits are so much wider: that side is too sure, or the other says next to
    nothing.
    """
    if wide is student:
        return "check the stage-1 checkpoint, or raise `temperature`"
    if wide.row.temperature <= USUAL_TEMPERATURE:
        return f"{student.name} says little as yet; run stage 1 longer, or raise `temperature`"
    fitted = "" if wide.row.temperature_note else f" ({wide.row.temperature:.3g} would calibrate {wide.name} alone)"
    return f"raise `temperature`{fitted}, or check its weights"


def compute_interval(scores: Scores) -> Interval | None:
    """Of the AUC over people; None where there is only one."""
    if len(set(scores.identities)) < 2:
        return None
    return compute_interval_by_group(
        compute_auc_by_rank, scores.margin, scores.labels, scores.identities, rounds=ROUNDS, seed=0
    )


def _compute_difference(one: Scores, other: Scores) -> Interval | None:
    """Of the first's AUC minus the second's over people, paired; None where there is only one person."""
    if len(set(one.identities)) < 2:
        return None
    return compute_paired_interval(
        compute_auc_by_rank,
        one.margin,
        other.margin,
        one.labels,
        one.identities,
        rounds=ROUNDS,
        seed=0,
    )


def show_interval(interval: Interval | None) -> str:
    """In brackets, after a figure; nothing where there is none."""
    return "" if interval is None else f" ({interval.low:.4f} to {interval.high:.4f} over people)"


def judge_average(ensemble: TeacherEnsemble, members: Sequence[Judged]) -> Judged:
    """The average of the members' scores, as the ensemble averages: no model is asked again."""
    logits = [torch.from_numpy(member.scores.logits).to(ensemble.shares.device) for member in members]
    scores = replace(members[0].scores, logits=ensemble.combine(logits).cpu().numpy())
    return Judged(compute_row(f"average of {len(members)} teachers", scores), scores)


def find_average_problems(average: Judged, members: Sequence[Judged], student: Judged) -> list[str]:
    """A sentence for each, as `find_problems` for the members; what is told of a member already is left out."""
    found = find_constant(average)
    if average.row.val_auc < CHANCE:
        shown = show_interval(compute_interval(average.scores))
        found.append(
            f"{average.name} has a validation AUC of {average.row.val_auc:.4f}{shown}, below chance: leave out the "
            "teacher that spoils it, or mend its `classes`"
        )
    else:
        best = max(members, key=lambda member: member.row.val_auc)
        found += find_weakness(average, "name better teachers, or leave the weak ones out")
        found += find_worse(average, student, "name better teachers, or keep `alpha_end` near 1")
        found += find_worse(average, best, "give that one a larger `weight`, or let it teach alone")
    if not any(find_other_range(member, student) for member in members):
        found += find_other_range(average, student)
    return found
