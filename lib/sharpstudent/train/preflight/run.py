"""Before the first step of stage 2: the student and every teacher are judged on the validation items, and what would go
wrong is said plainly.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.io import write_text_atomically
from sharpstudent.evaluation.task import Scores
from sharpstudent.metrics.checks import MetricError, check_logits
from sharpstudent.models.teachers import Named, TeacherEnsemble
from sharpstudent.train.preflight.findings import (
    Judged,
    ModelRow,
    compute_row,
    find_average_problems,
    find_problems,
    judge_average,
)
from sharpstudent.train.preflight.score_cache import build_score_cache, save_scores
from sharpstudent.train.preflight.temperature import REPORT_NAME, calibrate, find_calibrated
from sharpstudent.train.validate import Judge

FORMAT = 1
SCORES_NAME = "preflight_scores.json"  # beside the report: what it was made of, for the report at the end of the run
HEADER = ("Model", "Val AUC", "Accuracy", "ECE", "Logits mean +- sd, largest")
WIDTH = 100  # characters that a line of the table may have


@dataclass(frozen=True)
class PreflightReport:
    """rows: the student's first, then a teacher's each; average: of several teachers; findings: sentences, none where
    all is well.

    start_value: the student's selection metric; items: of the validation set.
    """

    rows: tuple[ModelRow, ...]
    findings: tuple[str, ...]
    start_value: float
    items: int
    average: ModelRow | None = None

    @property
    def start_auc(self) -> float:
        """The student's, of single pictures."""
        return self.rows[0].val_auc

    @property
    def start_accuracy(self) -> float:
        """The student's, 0..1."""
        return self.rows[0].val_accuracy


def preflight(
    judge: Judge,
    student: Named,
    teachers: Sequence[Named],
    *,
    ensemble: TeacherEnsemble | None = None,
    say: Callable[[str], None] | None = None,
) -> PreflightReport:
    """Judge the models, say a table and the findings line by line (`run.say` unless given), and write
    `logs/preflight.json` with the scores beside it. Teachers that the config asks to calibrate are, from now on.

    All models see a batch that is loaded once. Scores of earlier runs are taken again where model and data are the
    same. ensemble: the teachers as one, judged too where they are several. Neither the models' modes nor any random
    state that training uses are moved. Raises UserError for logits that are not finite and for a teacher that cannot be
    calibrated, MetricError where validation has one class only, and what `judge.between_batches` raises to stop.
    """
    say = judge.run.say if say is None else say
    models, calibrated = [student, *teachers], find_calibrated(judge.run.config, teachers)
    for teacher in calibrated.values():
        teacher.calibration = None
    judged = [
        Judged(compute_row(name, scores), scores)
        for (name, _), scores in zip(models, _judge(judge, models, say), strict=True)
    ]
    for index, teacher in calibrated.items():
        judged[index + 1] = calibrate(teacher, judged[index + 1], say)
    findings = find_problems(judged[0], judged[1:])
    average = None
    if ensemble is not None and len(teachers) > 1:
        average = judge_average(ensemble, judged[1:])
        findings += find_average_problems(average, judged[1:], judged[0])
    report = PreflightReport(
        rows=tuple(model.row for model in judged),
        findings=tuple(findings),
        start_value=judge.task.compute_metrics(judged[0].scores)[judge.task.selection_metric],
        items=len(judge.data.validation),
        average=None if average is None else average.row,
    )
    write_text_atomically(judge.run.logs_folder / REPORT_NAME, _to_json(report))
    save_scores(judge.run.logs_folder / SCORES_NAME, [model.scores for model in judged])
    rows = report.rows if report.average is None else (*report.rows, report.average)
    for line in (*format_table(rows), *(f"warning: {finding}" for finding in report.findings)):
        say(line)
    return report


def describe_work(items: int, teachers: int) -> str:
    """What the preflight of a run would do, for a dry run."""
    others = "the teacher" if teachers == 1 else f"{teachers} teachers"
    return f"the preflight would take {items} validation items through the student and {others}"


def format_table(rows: Sequence[ModelRow]) -> list[str]:
    """Aligned plain lines of at most WIDTH characters; a name that is too long loses its middle."""
    cells = [HEADER, *(_to_cells(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADER))]
    widths[0] = min(widths[0], WIDTH - sum(widths[1:]) - 3 * (len(HEADER) - 1))
    return [
        " | ".join([_shorten(row[0], widths[0]).ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
        for row in cells
    ]


def _judge(judge: Judge, models: Sequence[Named], say: Callable[[str], None]) -> list[Scores]:
    """The scores of each model: those kept from an earlier run, or of one pass for all that have none."""
    run = judge.run
    cache = build_score_cache(run.config, judge.task, judge.data, run.device, say)
    paths = [cache.find(model) for _, model in models]
    scores = [None if path is None else cache.load(path) for path in paths]
    for (name, _), path, known in zip(models, paths, scores, strict=True):
        if known is not None:
            say(f"preflight: {name} was judged on these items before, {path}")
    missing = [index for index, known in enumerate(scores) if known is None]
    if missing:
        names = ", ".join(models[index][0] for index in missing)
        say(f"preflight: {len(judge.data.validation)} validation items through {names} ...")
        computed, replaced = judge.score([models[index][1] for index in missing])
        for index, found in zip(missing, computed, strict=True):
            _check_finite(models[index][0], found, is_student=index == 0)
            scores[index] = found
            path = paths[index]
            if path is not None and not replaced:  # an item that is mended would be judged by its stand-in for ever
                cache.save(path, found)
    cache.prune([path for path in paths if path is not None])
    return [known for known in scores if known is not None]


def _check_finite(name: str, scores: Scores, *, is_student: bool) -> None:
    try:
        check_logits(scores.logits, scores.labels, sample_ids=scores.sample_ids)
    except MetricError as error:
        key = " in `pretrained_student_weights`" if is_student else " for it in the config"
        raise UserError(
            Problem(
                where=name,
                what="cannot be used: its answers to validation pictures are not numbers",
                got=str(error),
                remedy=f"its weights are damaged or were made for other pictures: name another file{key}",
            )
        ) from None


def _to_json(report: PreflightReport) -> str:
    plain = {"format": FORMAT, **asdict(report)}
    return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _to_cells(row: ModelRow) -> tuple[str, ...]:
    logits = f"{row.logits_mean:.3g} +- {row.logits_sd:.3g}, {row.logits_largest:.3g}"
    return row.name, f"{row.val_auc:.4f}", f"{row.val_accuracy:.1%}", f"{row.ece:.3f}", logits


def _shorten(name: str, width: int) -> str:
    if len(name) <= width:
        return name
    left = (width - 3) // 2
    return f"{name[:left]}...{name[len(name) - (width - 3 - left) :]}"
