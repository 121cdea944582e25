"""Resolves the keys of a file into one stage of one run.

This opens no file: weights and data are checked elsewhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

from sharpstudent.config.describe import describe_unusual
from sharpstudent.config.keys import FileKeys, TeacherKeys, split_model, take_section
from sharpstudent.config.messages import show
from sharpstudent.config.presets import DEFAULT_TASK, LOSS_KEYS, PRESETS, describe_idle, find_preset, resolve_loss
from sharpstudent.config.run_config import (
    ALLOWANCES,
    ComputeSection,
    OptimizerKeys,
    OptimizerSection,
    RunConfig,
    RunKeys,
    Stage,
    StudentSection,
    TaskKind,
    TeacherSection,
    TeacherSettings,
    TrainingKeys,
    TrainingSection,
    advise_stage_1,
    take_fields,
)
from sharpstudent.config.scheduled import (
    SHAPED_BY,
    check_schedules,
    compute_peak,
    describe_schedules,
    scale,
    show_number,
)
from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.schedules import ConfigSchedule


def check_teachers(keys: FileKeys) -> Iterator[Problem]:
    """Find contradictions in the list of teachers.

    Stage 1 checks the list, too, so that a mistake is found before the hours of training and not after.
    """
    if keys.teachers is None:
        return
    if not keys.teachers:
        yield Problem(
            "teachers",
            "is an empty list, and stage 2 learns from a trained teacher",
            expected="one teacher or more, or null",
            remedy='write "teachers": [{"model": "efficientnet-b4", "weights": "weights/FFc23.tar"}]',
        )
    if keys.teacher_weights is not None:
        yield Problem(
            "teachers",
            "cannot be given together with teacher_weights, which is a list of one",
            expected="one of the two",
            got=f"teacher_weights {show(keys.teacher_weights)} and {len(keys.teachers)} in teachers",
            remedy="move that file into the list, or leave teachers out (--set teacher_weights=null drops it)",
        )
    for i, teacher in enumerate(keys.teachers):
        yield from _check_teacher(teacher, f"teachers[{i}]")


def _check_teacher(teacher: TeacherKeys, where: str) -> Iterator[Problem]:
    if teacher.head == "fitted":
        yield from _check_fitted(teacher, where)
    elif teacher.weights is None and teacher.head == "loaded":
        yield Problem(
            f"{where}.weights",
            "is missing, and a teacher's head must come from its file",
            expected=f"a checkpoint of {split_model(teacher.model)[0]}",
            remedy=f'write "weights": "FILE"; with "init": "imagenet", {where}.head "fitted" fits a head; a random '
            'one teaches noise, and "random-ok" permits it',
        )
    if teacher.classes is not None and len(set(teacher.classes)) < len(teacher.classes):
        yield Problem(
            f"{where}.classes",
            "names a class twice",
            got=", ".join(map(show, teacher.classes)),
            remedy="name each class once, in the order of the teacher's logits",
        )


def _check_fitted(teacher: TeacherKeys, where: str) -> Iterator[Problem]:
    if teacher.weights is None and teacher.init == "none":
        yield Problem(
            f"{where}.weights",
            "is missing, and a head that is fitted to a random network teaches next to nothing",
            expected=f"a checkpoint of {split_model(teacher.model)[0]}, or init imagenet",
            remedy='write "weights": "FILE", which may be without a head, or "init": "imagenet"',
        )
    if teacher.classes is not None:
        yield Problem(
            f"{where}.classes",
            "gives the class order of a head in the file, and this head is fitted: its order is that of the task",
            got=", ".join(map(show, teacher.classes)),
            remedy=f'leave classes out, or {where}.head "loaded" for the head in the file',
        )


def resolve_teachers(own: FileKeys, stage: Stage) -> tuple[TeacherSection, ...]:
    """List the teachers of a stage.

    Args:
        own: The keys as the stage reads them (`take_stage`).
        stage: The stage; stage 1 has no teachers.

    Returns:
        The teachers in the list `teachers`, or the one that the two flat keys name.
    """
    if stage == 1:
        return ()
    teachers = own.teachers
    if teachers is None:  # the flat keys stand for a list of one
        teachers = ()
        if own.teacher is not None and own.teacher_weights is not None:
            teachers = (TeacherKeys(model=own.teacher, weights=own.teacher_weights),)
    named = [(split_model(teacher.model), take_fields(teacher, TeacherSettings)) for teacher in teachers]
    return tuple(TeacherSection(name=name, options=options, **settings) for (name, options), settings in named)


def name_weights_key(config: RunConfig, index: int) -> str:
    """Name the key that gives the file of a teacher's weights.

    Args:
        config: The resolved config.
        index: The place of the teacher in the list, from 0.

    Returns:
        The flat key if the teacher can be written with the two flat keys, else the key in the list.
    """
    if len(config.teachers) == 1:
        only = config.teachers[0]
        if only == TeacherSection(name=only.name, weights=only.weights, options=only.options):
            return "teacher_weights"
    return f"teachers[{index}].weights"


HELD_BY = ("l2_start", "start_share")
START_KEYS: dict[Stage, str] = {1: "start", 2: "pretrained_student_weights"}  # the trained model of a stage
USUAL_ASAM_RHO = 0.4  # papers use 0.5 to 1.0 with asam and 0.02 to 0.1 without
LONGEST_NAME = 100  # characters; a folder's name may have 255 bytes, and ours adds the config's name and the date


def resolve(
    keys: FileKeys,
    *,
    stage: Stage,
    name: str,
    config_name: str,
    task: type[TaskKind],
    allow: Sequence[str] = (),
) -> RunConfig:
    """Resolve one stage of one run.

    The same file serves both stages: `stage1.*` and `stage2.*` win over the flat keys in their stage.

    Args:
        keys: The keys of the file.
        stage: The stage.
        name: The name of the run.
        config_name: The name of the config, which becomes a part of the run folder's name.
        task: The class of the task.
        allow: The names given with `--allow`.

    Returns:
        The resolved config.

    Raises:
        UserError: With everything that is wrong.
    """
    own = take_stage(keys, stage)
    problems = [*check_name(name), *check_allow(allow), *_check_models(own), *_check_order(keys, stage)]
    problems += [*check_teachers(keys), *check_schedules(keys, own, stage), *_check_start(own, stage)]
    if stage == 2:
        problems += _check_weights(own, allow)
    criterion = resolve_loss(keys, own, stage, task, problems)
    if problems:
        raise UserError(*problems)
    student, options = split_model(own.student or "")
    run, training = take_fields(own, RunKeys), take_fields(own, TrainingKeys)
    if stage == 1:  # which has no teacher
        run["teacher_average"], training["weak_teacher_margin"] = "logits", None
    return RunConfig(
        **run,
        seed=own.seed,
        task=own.task or DEFAULT_TASK,
        name=name,
        config_name=config_name,
        stage=stage,
        task_section=take_section(own, task.Section),
        student=StudentSection(
            name=student,
            options=options,
            init=own.student_init,
            dropout=own.student_dropout,
            weights=getattr(own, START_KEYS[stage]),
            use_ema=own.student_use_ema,
            tune=own.tune,
        ),
        teachers=resolve_teachers(own, stage),
        training=TrainingSection(
            epochs=own.epoch, selection_metric=own.selection_metric or next(iter(task.metrics)), **training
        ),
        optimizer=_resolve_optimizer(own),
        compute=ComputeSection(**take_fields(own, ComputeSection)),
        criterion=criterion,
        allow=tuple(dict.fromkeys(allow)),
    )


def take_stage(keys: FileKeys, stage: Stage) -> FileKeys:
    """Compute the values that the flat keys have in one stage.

    Args:
        keys: The keys of the file.
        stage: The stage.

    Returns:
        The keys after the rules of the two-stage guide were applied, and then the group `stage1` or `stage2`.
    """
    group = keys.get_group(stage)
    given: dict[str, Any] = {name: getattr(group, name) for name in type(group).model_fields}
    given = {name: value for name, value in given.items() if value is not None}
    # The flat lr is stage 2's, half of stage 1's; a batch of stage 2 also carries the teacher, so it has a quarter.
    rules: dict[str, Any] = (
        {"lr": scale(keys.lr, 2.0), "terms": None} if stage == 1 else {"batch_size": max(1, keys.batch_size // 4)}
    )
    own = rules | given
    per_rank = own.get("batch_per_rank", keys.batch_per_rank)
    if per_rank is not None:
        own["batch_size"] = per_rank * (count_ranks() or 1)
    return keys.model_copy(update=own)


def count_ranks() -> int | None:
    """Count the processes that `torchrun` has started for this run; None where it has started none."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    count = os.environ.get("WORLD_SIZE", "")
    return int(count) if count.isdigit() else 1  # the ranks find each other later, or say that they do not


def describe_choices(keys: FileKeys, stage: Stage) -> list[str]:
    """Explain each value that a stage does not take directly from its flat key.

    Args:
        keys: The keys of the file.
        stage: The stage.

    Returns:
        Sentences for the log.
    """
    own = take_stage(keys, stage)
    group = keys.get_group(stage)
    batch_rule = "the flat batch_size" if stage == 1 else f"max(1, {keys.batch_size} // 4) of the flat batch_size"
    flat_lr = show_number(keys.lr, own.epoch)
    lr_rule = f"twice the flat lr {flat_lr}, which is stage 2's" if stage == 1 else "the flat lr"
    batch_source = _name_source(f"stage{stage}.batch_size", group.batch_size is not None, batch_rule)
    if own.batch_per_rank is not None:
        batch_source = f"batch_per_rank {own.batch_per_rank}, times the number of ranks (torchrun)"
    lr_source = _name_source(f"stage{stage}.lr", group.lr is not None, lr_rule)
    notes = [
        f"stage {stage} takes batches of {own.batch_size} sample{'s' if own.batch_size > 1 else ''}: {batch_source}",
        f"stage {stage} learns at lr {show_number(own.lr, own.epoch)}: {lr_source}",
    ]
    return (
        notes
        + describe_schedules(keys, own, stage)
        + describe_idle(keys, own, stage)
        + _describe_radius(own)
        + _describe_unusual(keys, own, stage)
        + (_describe_alpha(own) if stage == 2 and find_preset(keys, own, 2)[0] == "two_stage" else [])
    )


def check_name(name: str) -> list[Problem]:
    """Check that a name can be a part of a folder name: it may have no character with a meaning in a path or a glob."""
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
    """Return a problem for each name that `--allow` does not know."""
    known = "; ".join(f"{name}: {meaning}" for name, meaning in ALLOWANCES.items())
    return [
        Problem(
            "--allow", "is not a known allowance", expected=known, got=show(name), remedy="write one of these names"
        )
        for name in dict.fromkeys(allow)
        if name not in ALLOWANCES
    ]


def _check_models(own: FileKeys) -> list[Problem]:
    """Return a problem for each model that the config does not name and for which the task has no default."""
    wanted = {"student": own.student}
    if own.teachers is None and own.teacher_weights is not None:
        wanted["teacher"] = own.teacher
    return [
        Problem(
            key,
            "is missing",
            expected="the name of a model that the task builds",
            remedy=f'write "{key}": "NAME", or {{"name": "NAME", ...}} with options',
        )
        for key, model in wanted.items()
        if model is None
    ]


def _check_order(keys: FileKeys, stage: Stage) -> Iterator[Problem]:
    """Check the keys that must fit each other: alpha may not rise, and a warm-up must end before the decline.

    A rising alpha contradicts the guide (a gradual shift towards the teacher), and nearly always means that the two
    numbers come from a recipe whose alpha weighs the teacher. Stage 1 checks it, too, before the hours of training.
    """
    two, own = take_stage(keys, 2), take_stage(keys, stage)
    is_two_stage = find_preset(keys, two, 2)[0] == "two_stage"
    if is_two_stage and two.use_progressive_distillation and two.alpha_start < two.alpha_end:
        yield Problem(
            "alpha_start",
            "is below alpha_end, but alpha (the weight of the HARD labels) may not rise",
            expected=f"alpha_start of at least {show(two.alpha_end)}",
            got=f"alpha_start {show(two.alpha_start)}, alpha_end {show(two.alpha_end)}",
            remedy="if these numbers weigh the TEACHER, write one minus each: "
            f"alpha_start {show(round(1 - two.alpha_start, 12))}, alpha_end {show(round(1 - two.alpha_end, 12))}; "
            "for a constant weight set use_progressive_distillation to false and alpha_end to it",
        )
    yield from _check_sam(own)
    if own.batch_per_rank is not None and keys.get_group(stage).batch_size is not None:
        yield Problem(
            f"stage{stage}.batch_size",
            "cannot be given together with batch_per_rank, which says it the other way",
            expected="one of the two",
            got=f"stage{stage}.batch_size {keys.get_group(stage).batch_size}, batch_per_rank {own.batch_per_rank}",
            remedy=f"--set stage{stage}.batch_size=null, or --set batch_per_rank=null and "
            f"--set stage{stage}.batch_per_rank=null",
        )
    if own.warmup > own.flat and not isinstance(own.lr, ConfigSchedule):
        yield Problem(
            "warmup",
            "ends after the learning rate has begun to fall",
            expected=f"at most `flat`, {show(own.flat)}",
            got=show(own.warmup),
            remedy="lower warmup or raise flat; both are shares of all steps",
        )


# Keys of SAM that need a radius, with the value that does nothing.
SAM_KEYS = {
    **{"asam": False, "rho_warmup": 0.0, "rho_end": None},
    **{"sam_every": 1, "sam_norm_only": False, "sam_subset": 1.0, "sam_last": 1.0},
    **{"sam_adaptive": False, "sam_friendly": False},
}
# Pairs of variants of SAM that exclude each other.
SAM_CONFLICTS = {
    ("sam_every", "sam_adaptive"): "both decide which steps have a second pass",
    ("sam_every", "sam_norm_only"): "the steps between need the whole gradient of pass 1, and it computes a part",
    ("sam_every", "sam_subset"): "the steps between need the gradients of both passes on the same samples",
    ("sam_adaptive", "sam_norm_only"): "a step without a second pass takes the whole gradient of pass 1, and it "
    "computes a part",
    ("sam_adaptive", "sam_subset"): "a step without a second pass takes the gradient of pass 1, which reads a part of "
    "the samples",
}


def _check_sam(own: FileKeys) -> Iterator[Problem]:
    """Check that the keys of SAM have a radius, and that its variants do not contradict each other."""
    given = {key: getattr(own, key) for key, idle in SAM_KEYS.items() if getattr(own, key) not in (idle, 0.0)}
    if given and compute_peak(own.rho, own.epoch) == 0.0:
        yield Problem(
            "rho",
            "is 0, which takes plain steps, but other keys shape its radius",
            expected=f"rho above 0, or no {' and no '.join(given)}",
            got=", ".join(f"{key} {show(value)}" for key, value in given.items()),
            remedy="--set rho=0.05 (0.5 with asam), or leave the other keys out",
        )
    for (one, other), why in SAM_CONFLICTS.items():
        if one in given and other in given:
            yield Problem(
                one,
                f"cannot be combined with {other}: {why}",
                expected="one of the two",
                got=f"{one} {show(given[one])} and {other} {show(given[other])}",
                remedy=f"leave {one} or {other} out",
            )


def _check_start(own: FileKeys, stage: Stage) -> Iterator[Problem]:
    """Check that the keys which hold a model near its start have one, and can do what they say."""
    given = {key: getattr(own, key) for key in HELD_BY if getattr(own, key)}
    key = START_KEYS[stage]
    if given and getattr(own, key) is None:
        yield Problem(
            " and ".join(given),
            f"{'need' if len(given) > 1 else 'needs'} the model that stage {stage} starts from, and there is none",
            expected=f"{key}: a run, a checkpoint, or a model that comes with the package",
            got=f"{key} null",
            remedy=f"for stage {3 - stage} alone, move it into the group stage{3 - stage}; else --set {key}=RUN",
        )
    longest = compute_peak(own.lr, own.epoch) * own.l2_start
    if longest > 1.0:
        yield Problem(
            "l2_start",
            "is so large that a step would carry each weight beyond its value at the start",
            expected=f"at most 1 / lr, {show(1.0 / compute_peak(own.lr, own.epoch))}",
            got=show(own.l2_start),
            remedy="lower it, or lr",
        )
    if own.start_share and own.tune not in ("all", "norms", "head"):
        yield Problem(
            "start_share",
            "averages weights, and the factors of low-rank adapters (tune lora) are none",
            expected='tune "all", "norms" or "head"',
            remedy="take l2_start, which acts on adapters, too; or another tune",
        )


def _check_weights(own: FileKeys, allow: Sequence[str]) -> Iterator[Problem]:
    """Return a problem for each file of weights (the student's and the teacher's) that stage 2 needs and lacks."""
    if own.teacher_weights is None and own.teachers is None:
        yield Problem(
            "teacher_weights",
            "is missing, and stage 2 learns from a trained teacher",
            expected=f"a checkpoint of {'the teacher' if own.teacher is None else split_model(own.teacher)[0]}",
            remedy='write "teacher_weights": "weights/FFc23.tar" (weights/README.md says where to get it), '
            "or train a teacher with train_student_only.py",
        )
    if own.pretrained_student_weights is None and "unpretrained-student" not in allow:
        yield Problem(
            "pretrained_student_weights",
            "is missing, and stage 2 continues from a stage-1 checkpoint",
            expected="the file or glob of a stage-1 checkpoint",
            remedy=f"run stage 1 first ({advise_stage_1()}) and write "
            '"pretrained_student_weights": "output/pretrain_*/weights/best_model.pth", '
            "or start from student_init with --allow unpretrained-student",
        )


def _resolve_optimizer(own: FileKeys) -> OptimizerSection:
    """Build the section of the optimiser. Beside a schedule, the keys that change a plain number have no effect."""
    schedules = {name: getattr(own, name) for name in SHAPED_BY if isinstance(getattr(own, name), ConfigSchedule)}
    idle: dict[str, Any] = {key: value for name in schedules for key, value in SHAPED_BY[name].items()}
    return OptimizerSection.model_construct(  # of values that are checked already
        **take_fields(own, OptimizerKeys) | idle,
        base=own.optimizer,
        lr=compute_peak(own.lr, own.epoch),
        rho=compute_peak(own.rho, own.epoch),
        lr_schedule=schedules.get("lr"),
        rho_schedule=schedules.get("rho"),
    )


def _name_source(key: str, is_given: bool, rule: str) -> str:
    return f"set by {key}" if is_given else f"{rule}; set {key} to choose"


def _describe_radius(own: FileKeys) -> list[str]:
    """Warn of a value of rho that is probably a mistake."""
    rho = compute_peak(own.rho, own.epoch)
    if own.asam and 0.0 < rho < USUAL_ASAM_RHO:
        return [f"asam measures rho in units of |w| + 0.01: 0.5 to 1.0 is usual, and {show(rho)} does next to nothing"]
    if not own.asam and rho >= USUAL_ASAM_RHO:
        return [f"rho {show(rho)} is a radius for asam; without it 0.02 to 0.1 is usual, and more tends to collapse"]
    return []


def _describe_unusual(keys: FileKeys, own: FileKeys, stage: Stage) -> list[str]:
    """Warn of numbers that a mistake may have made, and of keys that can have no effect."""
    preset = find_preset(keys, own, stage)[0]
    used = PRESETS[preset].keys if stage == 2 and preset in PRESETS else ()
    idle = {*LOSS_KEYS} - {*used}
    name = f"stage{stage}"
    notes = describe_unusual(own, own.epoch, group=keys.get_group(stage), name=name, idle=idle)
    for place, teacher in enumerate(own.teachers or () if stage == 2 else ()):
        notes += describe_unusual(teacher, own.epoch, group=None, name=f"teachers[{place}]")
    if own.patience is not None and own.patience >= own.epoch:
        notes.append(f"patience {own.patience} never ends a stage of {own.epoch} epochs early")
    if own.micro_batch_size is not None and own.micro_batch_size > own.batch_size:
        notes.append(f"micro_batch_size {own.micro_batch_size} has no effect: a batch has {own.batch_size} samples")
    return notes


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
