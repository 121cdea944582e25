"""From the keys of a file to one stage of one run. Pure: opens no file, so weights and data are checked elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lib.config.sections import (
    ALLOWANCES,
    ComputeSection,
    FileKeys,
    OptimizerSection,
    RunConfig,
    ScheduleSection,
    Stage,
    StudentSection,
    TaskSection,
    TeacherSection,
    TermSection,
    TrainingSection,
)
from lib.config.terms import TERMS, NumberSetting
from lib.config.words import show
from lib.errors import Problem, ProblemList

USUAL_ASAM_RHO = 0.4  # papers use 0.5 to 1.0 with asam and 0.02 to 0.1 without
LONGEST_NAME = 100  # characters; a folder's name holds 255 bytes, and ours adds the config's name and the date


def resolve(
    keys: FileKeys,
    *,
    stage: Stage,
    name: str,
    config_name: str,
    section_model: type[TaskSection],
    allow: Sequence[str] = (),
) -> RunConfig:
    """One stage of one run. The same file serves both stages unedited; `stage1.*`/`stage2.*` win over the flat keys."""
    own = take_stage(keys, stage)
    problems = ProblemList()
    for problem in (*check_name(name), *check_allow(allow), *_check_order(keys, stage)):
        problems.add(problem)
    if stage == 2:
        for problem in _check_weights(own, allow):
            problems.add(problem)
    problems.raise_if_any()
    return RunConfig(
        name=name,
        config_name=config_name,
        stage=stage,
        seed=own.seed,
        device=own.device,
        num_workers=own.num_workers,
        output_root=own.output_root,
        save_every_steps=own.save_every_steps,
        save_every_minutes=own.save_every_minutes,
        loader_timeout=own.loader_timeout,
        task=own.task,
        task_section=section_model(**{field: getattr(own, field) for field in section_model.model_fields}),
        student=StudentSection(
            name=own.student,
            init=own.student_init,
            dropout=own.student_dropout,
            weights=own.pretrained_student_weights if stage == 2 else None,
        ),
        teacher=_resolve_teacher(own, stage),
        training=TrainingSection(
            epochs=own.epoch,
            batch_size=own.batch_size,
            max_skipped_in_a_row=own.max_skipped_in_a_row,
            keep_best=own.keep_best,
            ema_decay=own.ema_decay,
        ),
        optimizer=_resolve_optimizer(own),
        compute=ComputeSection(**{field: getattr(own, field) for field in ComputeSection.model_fields}),
        criterion=_resolve_criterion(own, stage),
        allow=tuple(dict.fromkeys(allow)),
    )


def take_stage(keys: FileKeys, stage: Stage) -> FileKeys:
    """The flat keys as one stage reads them: the guide's rules first, then what `stage1` or `stage2` says itself."""
    group = keys.stage1 if stage == 1 else keys.stage2
    said: dict[str, Any] = {name: getattr(group, name) for name in type(group).model_fields}
    said = {name: value for name, value in said.items() if value is not None}
    # The flat lr is stage 2's, half of stage 1's; a batch of stage 2 also carries the teacher, so it holds a quarter.
    rules = {"lr": 2 * keys.lr} if stage == 1 else {"batch_size": max(1, keys.batch_size // 4)}
    return keys.model_copy(update=rules | said)


def describe_choices(keys: FileKeys, stage: Stage) -> list[str]:
    """One sentence for each value that a stage does not take straight from the flat key; for the log."""
    own = take_stage(keys, stage)
    group = keys.stage1 if stage == 1 else keys.stage2
    batch_rule = "the flat batch_size" if stage == 1 else f"max(1, {keys.batch_size} // 4) of the flat batch_size"
    lr_rule = f"twice the flat lr {show(keys.lr)}, which is stage 2's" if stage == 1 else "the flat lr"
    batch_source = _name_source(f"stage{stage}.batch_size", group.batch_size is not None, batch_rule)
    lr_source = _name_source(f"stage{stage}.lr", group.lr is not None, lr_rule)
    notes = [
        f"stage {stage} takes batches of {own.batch_size} item{'s' if own.batch_size > 1 else ''}: {batch_source}",
        f"stage {stage} learns at lr {show(own.lr)}: {lr_source}",
    ]
    return notes + _describe_radius(own) + (_describe_alpha(own) if stage == 2 else [])


def check_name(name: str) -> list[Problem]:
    """The name becomes part of a folder's name, so it may hold nothing that means something in a path or a glob."""
    if len(name) <= LONGEST_NAME and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
        return []
    return [
        Problem(
            "-n/--name",
            "is not a safe folder name",
            expected=f"letters, digits, '.', '_' and '-', {LONGEST_NAME} at most, not starting with '.' or '-'",
            got=show(name),
            remedy="write it like -n pretrain_mobilevit",
        )
    ]


def check_allow(allow: Sequence[str]) -> list[Problem]:
    """`--allow` knows a few names and nothing else."""
    known = "; ".join(f"{name}: {meaning}" for name, meaning in ALLOWANCES.items())
    return [
        Problem(
            "--allow", "is not a known allowance", expected=known, got=show(name), remedy="write one of these names"
        )
        for name in dict.fromkeys(allow)
        if name not in ALLOWANCES
    ]


def _check_order(keys: FileKeys, stage: Stage) -> list[Problem]:
    """Alpha never rises and a warm-up ends before the decline.

    A rising alpha contradicts the guide (a gradual shift towards the teacher), and nearly always means that the two
    numbers were copied from a recipe whose alpha weighs the teacher. Stage 1 says so too: before the hours, not after.
    """
    two, own = take_stage(keys, 2), take_stage(keys, stage)
    problems: list[Problem] = []
    if two.use_progressive_distillation and two.alpha_start < two.alpha_end:
        problems.append(
            Problem(
                "alpha_start",
                "is below alpha_end, but alpha (the weight of the HARD labels) may not rise",
                expected=f"alpha_start of at least {show(two.alpha_end)}",
                got=f"alpha_start {show(two.alpha_start)}, alpha_end {show(two.alpha_end)}",
                remedy="if these numbers weigh the TEACHER, write one minus each: "
                f"alpha_start {show(round(1 - two.alpha_start, 12))}, alpha_end {show(round(1 - two.alpha_end, 12))}; "
                "for a constant weight set use_progressive_distillation to false and alpha_end to it",
            )
        )
    if own.rho == 0.0 and (own.asam or own.rho_warmup or own.rho_end):
        problems.append(
            Problem(
                "rho",
                "is 0, which takes plain steps, but other keys shape its radius",
                expected="rho above 0, or none of asam, rho_warmup and rho_end",
                got=f"asam {show(own.asam)}, rho_warmup {show(own.rho_warmup)}, rho_end {show(own.rho_end)}",
                remedy="--set rho=0.05 (0.5 with asam), or leave the other keys out",
            )
        )
    if own.warmup > own.flat:
        problems.append(
            Problem(
                "warmup",
                "ends after the learning rate has begun to fall",
                expected=f"at most `flat`, {show(own.flat)}",
                got=show(own.warmup),
                remedy="lower warmup or raise flat; both are shares of all steps",
            )
        )
    return problems


def _check_weights(own: FileKeys, allow: Sequence[str]) -> list[Problem]:
    """What stage 2 cannot do without."""
    problems: list[Problem] = []
    if own.teacher_weights is None:
        problems.append(
            Problem(
                "teacher_weights",
                "is missing, and stage 2 learns from a trained teacher",
                expected=f"a checkpoint of {own.teacher}",
                remedy='write "teacher_weights": "weights/FFc23.tar" (weights/README.md says where to get it), '
                "or train a teacher with train_student_only.py",
            )
        )
    if own.pretrained_student_weights is None and "unpretrained-student" not in allow:
        problems.append(
            Problem(
                "pretrained_student_weights",
                "is missing, and stage 2 continues from a stage-1 checkpoint",
                expected="the file or glob of a stage-1 checkpoint",
                remedy="run train_student_only.py first and write "
                '"pretrained_student_weights": "output/NAME_*/weights/best_model.pth", '
                "or start from student_init with --allow unpretrained-student",
            )
        )
    return problems


def _resolve_teacher(own: FileKeys, stage: Stage) -> TeacherSection | None:
    if stage == 1 or own.teacher_weights is None:
        return None
    return TeacherSection(name=own.teacher, weights=own.teacher_weights)


def _resolve_optimizer(own: FileKeys) -> OptimizerSection:
    return OptimizerSection(
        base=own.optimizer,
        lr=own.lr,
        momentum=own.momentum,
        weight_decay=own.weight_decay,
        rho=own.rho,
        clip_norm=own.clip_norm,
        flat=own.flat,
        warmup=own.warmup,
        asam=own.asam,
        rho_end=own.rho_end,
        rho_warmup=own.rho_warmup,
    )


def _resolve_criterion(own: FileKeys, stage: Stage) -> tuple[TermSection, ...]:
    """Stage 1: hard labels. Stage 2: alpha * hard + (1 - alpha) * T^2 * KL, alpha by epoch."""
    if stage == 1:
        return (build_term("hard", ScheduleSection(kind="constant", value=1.0)),)
    if own.use_progressive_distillation:
        alpha = ScheduleSection(
            kind="staircase", start=own.alpha_start, end=own.alpha_end, epochs=own.progressive_epochs
        )
    else:
        alpha = ScheduleSection(kind="constant", value=own.alpha_end)
    return (
        build_term("hard", alpha),
        build_term("kd", alpha.model_copy(update={"complement": True}), temperature=own.temperature),
    )


def build_term(term: str, weight: ScheduleSection, **numbers: float) -> TermSection:
    """A term with these numbers and defaults for the rest."""
    spec = TERMS[term]
    settings = {
        name: numbers.get(name, setting.default)
        for name, setting in spec.settings.items()
        if isinstance(setting, NumberSetting)
    }
    return TermSection(
        name=term,
        term=term,
        weight=weight,
        numbers={
            name: ScheduleSection(kind="constant", value=value) for name, value in settings.items() if value is not None
        },
    )


def _name_source(key: str, said: bool, rule: str) -> str:
    return f"{key} says so" if said else f"{rule}; set {key} to choose"


def _describe_radius(own: FileKeys) -> list[str]:
    """What is likely a slip of the pen about rho."""
    if own.asam and 0.0 < own.rho < USUAL_ASAM_RHO:
        return [
            f"asam measures rho in units of |w| + 0.01: 0.5 to 1.0 is usual, and {show(own.rho)} does next to nothing"
        ]
    if not own.asam and own.rho >= USUAL_ASAM_RHO:
        return [
            f"rho {show(own.rho)} is a radius for asam; without it 0.02 to 0.1 is usual, and more tends to collapse"
        ]
    return []


def _describe_alpha(own: FileKeys) -> list[str]:
    if not own.use_progressive_distillation:
        return [f"alpha (weight of the hard labels) is {show(own.alpha_end)} throughout; the teacher has the rest"]
    notes = [
        f"alpha (weight of the hard labels) goes from {show(own.alpha_start)} to {show(own.alpha_end)} in stairs over "
        f"{own.progressive_epochs} epochs; the teacher has the rest"
    ]
    if own.epoch <= own.progressive_epochs:
        notes.append(
            f"the run ends after epoch {own.epoch}, before alpha reaches alpha_end {show(own.alpha_end)} "
            f"in epoch {own.progressive_epochs + 1}; lower progressive_epochs or raise epoch to get there"
        )
    return notes
