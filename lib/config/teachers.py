"""The teachers of stage 2, out of the list or of the two flat keys that stand for a list of one."""

from __future__ import annotations

from lib.config.keys import FileKeys, TeacherKeys
from lib.config.sections import RunConfig, Stage, TeacherSection
from lib.config.words import show
from lib.errors import Problem


def check_teachers(keys: FileKeys) -> list[Problem]:
    """What contradicts itself in the list of teachers. Stage 1 says so too: before the hours, not after."""
    if keys.teachers is None:
        return []
    problems: list[Problem] = []
    if not keys.teachers:
        problems.append(
            Problem(
                "teachers",
                "is an empty list, and stage 2 learns from a trained teacher",
                expected="one teacher or more, or null",
                remedy='write "teachers": [{"model": "efficientnet-b4", "weights": "weights/FFc23.tar"}]',
            )
        )
    if keys.teacher_weights is not None:
        problems.append(
            Problem(
                "teachers",
                "cannot be given together with teacher_weights, which is a list of one",
                expected="one of the two",
                got=f"teacher_weights {show(keys.teacher_weights)} and {len(keys.teachers)} in teachers",
                remedy="move that file into the list, or leave teachers out (--set teacher_weights=null drops it)",
            )
        )
    for i, teacher in enumerate(keys.teachers):
        problems += _check_teacher(teacher, f"teachers[{i}]")
    return problems


def _check_teacher(teacher: TeacherKeys, where: str) -> list[Problem]:
    problems: list[Problem] = []
    if teacher.head == "fitted":
        problems += _check_fitted(teacher, where)
    elif teacher.weights is None and teacher.head == "loaded":
        problems.append(
            Problem(
                f"{where}.weights",
                "is missing, and a teacher's head must come from its file",
                expected=f"a checkpoint of {teacher.model}",
                remedy=f'write "weights": "FILE"; with "init": "imagenet", {where}.head "fitted" fits a head; a random '
                'one teaches noise, and "random-ok" permits it',
            )
        )
    if teacher.classes is not None and len(set(teacher.classes)) < len(teacher.classes):
        problems.append(
            Problem(
                f"{where}.classes",
                "names a class twice",
                got=", ".join(map(show, teacher.classes)),
                remedy="name each class once, in the order of the teacher's logits",
            )
        )
    return problems


def _check_fitted(teacher: TeacherKeys, where: str) -> list[Problem]:
    problems: list[Problem] = []
    if teacher.weights is None and teacher.init == "none":
        problems.append(
            Problem(
                f"{where}.weights",
                "is missing, and a head that is fitted to a random network teaches next to nothing",
                expected=f"a checkpoint of {teacher.model}, or init imagenet",
                remedy='write "weights": "FILE", which may be without a head, or "init": "imagenet"',
            )
        )
    if teacher.classes is not None:
        problems.append(
            Problem(
                f"{where}.classes",
                "says the order of a head in the file, and this one is fitted: its order is that of the task",
                got=", ".join(map(show, teacher.classes)),
                remedy=f'leave classes out, or {where}.head "loaded" for the head in the file',
            )
        )
    return problems


def resolve_teachers(own: FileKeys, stage: Stage) -> tuple[TeacherSection, ...]:
    if stage == 1:
        return ()
    if own.teachers is not None:
        return tuple(
            TeacherSection(name=teacher.model, **teacher.model_dump(exclude={"model"})) for teacher in own.teachers
        )
    return () if own.teacher_weights is None else (TeacherSection(name=own.teacher, weights=own.teacher_weights),)


def name_weights_key(config: RunConfig, index: int) -> str:
    """The key that names a teacher's file: the flat one where it can say all that the list says."""
    if len(config.teachers) == 1:
        only = config.teachers[0]
        if only == TeacherSection(name=only.name, weights=only.weights):
            return "teacher_weights"
    return f"teachers[{index}].weights"
