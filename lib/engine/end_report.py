"""The report at the end of a run: the best model on the run's own validation data, beside the student that it started
from and the teacher that it learnt from, in RUN/report.html.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lib.checkpoint.selection import BEST_NAME
from lib.config.sections import StudentSection, TeacherSection
from lib.engine.checkpoint_about import read_trained, read_validation
from lib.engine.judge import EVALUATION_ITEMS
from lib.engine.judging import judge_models
from lib.engine.mistakes import find_mistakes
from lib.engine.open_model import ModelSpec, open_model
from lib.engine.preflight import SCORES_NAME
from lib.engine.run import Run
from lib.engine.score_cache import load_scores
from lib.engine.task import Scores, Task, TaskData
from lib.engine.validation_set import ValidationSet
from lib.files import write_text_atomically
from lib.metrics.scored import ScoredFrames
from lib.report.build import LEVEL, ROUNDS, SEED, build_drawings, build_figures, choose_rules
from lib.report.build_comparison import PAIRED_ROUNDS, build_comparisons
from lib.report.card.render import render_model_card
from lib.report.environment import describe_environment, hide_home, hide_homes
from lib.report.html import write_report
from lib.report.results import CalibrationResult, ModelResult, Results, Role
from lib.report.training import read_training
from lib.report.verdict.write import write_headed_verdict

CARD = "model_card.md"
BEFORE = "student before"


def write_run_report(run: Run, task: Task, data: TaskData) -> Path:
    """Judge RUN/weights/best_model.pth on the run's validation data and write report.html, results.json, figures/ and
    model_card.md into the run folder; returns the report.

    In stage 2 the scores of its first student and of its teachers are those of the preflight; where they are gone, the
    report is about the best model alone. Raises UserError where the disk refuses, MetricError where the
    validation data has no figures.
    """
    config = run.config
    opened = open_model(
        ModelSpec(run.weights_folder / BEST_NAME, name=config.name), classes=task.classes, device=run.device
    )
    validation = ValidationSet(config.name, task.image_size, lambda _: (task, data))
    judged = judge_models(
        [opened],
        [validation],
        device=run.device,
        num_workers=config.num_workers,
        batch_size=EVALUATION_ITEMS,
        say=lambda _: None,
    )
    best = judged.models[0]
    others = _read_others(run, validation, best.scores[0])
    mistakes, pictures = find_mistakes(
        best, [validation], judged.unreadable, batch_size=EVALUATION_ITEMS, first_picture=0
    )
    stored = opened.about.get("calibration")  # absent where an earlier version saved it
    calibration = None if stored is None else CalibrationResult.model_validate(stored)
    model = ModelResult(
        name=opened.name,
        role="distilled" if config.stage == 2 else "model",
        file=opened.path.name,
        sha256=opened.sha256,
        architecture=opened.architecture,
        image_size=opened.image_size,
        trained=read_trained(opened.about),
        validation=read_validation(opened.about),
        figures=build_figures(best.frames, calibration=calibration),
        drawings=build_drawings(best.frames),
        calibration=calibration,
    )
    results = Results(
        title=f"Stage {config.stage}: {config.name}",
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        command=shlex.join(hide_home(sys.argv)),
        verdict=(),
        protocol=_describe_protocol(best.frames),
        data=judged.data,
        models=(model, *(_describe(kept) for kept in others)),
        comparisons=tuple(
            found
            for kept in others
            for found in build_comparisons((opened.name, best.frames), (kept.name, kept.frames))
        ),
        mistakes=tuple(mistakes),
        training=read_training(
            run.logs_folder / "metrics.csv", best_epoch=opened.about.get("epoch"), metric=task.selection_metric
        ),
        config=hide_homes(config.model_dump(mode="json")),
        environment=describe_environment(),
    )
    results = results.model_copy(update={"verdict": write_headed_verdict(results)})
    write_text_atomically(run.folder / CARD, render_model_card(results, model))
    return write_report(run.folder, results, pictures)[0]


@dataclass(frozen=True)
class _Kept:
    """A model whose scores the preflight has kept."""

    name: str
    role: Role
    architecture: str
    file: str
    frames: ScoredFrames


def _read_others(run: Run, validation: ValidationSet, own: Scores) -> list[_Kept]:
    """The student that stage 2 began with, and each teacher, where their scores are of these very pictures."""
    config, path = run.config, run.logs_folder / SCORES_NAME
    if not path.is_file():  # stage 1, or a run that an earlier version began
        return []
    try:
        kept = load_scores(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        run.say(f"report: {path} cannot be read ({type(error).__name__}: {error}); the best model stands alone")
        return []
    is_alone = len(config.teachers) == 1
    named: list[tuple[str, Role, StudentSection | TeacherSection]] = [(BEFORE, "before", config.student)]
    for number, section in enumerate(config.teachers, 1):
        named.append(("teacher" if is_alone else f"teacher {number}", "teacher" if is_alone else "model", section))
    if len(kept) != len(named) or any(scores.sample_ids != own.sample_ids for scores in kept):
        run.say(f"report: {path} is of other models or pictures; the best model stands alone")
        return []
    return [
        _Kept(name, role, section.name, Path(section.weights or "none").name, validation.to_frames(scores, {}))
        for (name, role, section), scores in zip(named, kept, strict=True)
    ]


def _describe(kept: _Kept) -> ModelResult:
    """Of a model whose scores alone are at hand."""
    return ModelResult(
        name=kept.name,
        role=kept.role,
        file=kept.file,
        sha256=None,
        architecture=kept.architecture,
        image_size=None,
        figures=build_figures(kept.frames),
        drawings=build_drawings(kept.frames),
    )


def _describe_protocol(frames: ScoredFrames) -> dict[str, str]:
    return {
        "data": "the run's own validation data: it chose the checkpoint, so these figures flatter it; "
        "evaluate_model.py --data judges on data that nothing was chosen on",
        "videos": "the mean of their frames' probabilities, their maximum, the mean of the highest tenth"
        if choose_rules(frames)
        else "none: every clip is a single picture",
        "intervals": f"{LEVEL:.0%}, percentile bootstrap over people, {ROUNDS} rounds, seed {SEED}",
        "comparisons": f"paired bootstrap over people, {PAIRED_ROUNDS} rounds",
        "thresholds": "a probability of one half, and those chosen on this same data: their rates are optimistic",
    }
