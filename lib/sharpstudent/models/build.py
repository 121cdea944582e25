"""Students and teachers from the config: built by the task, with the weights that they start from.

Legend: C classes.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from sharpstudent.config.resolve import name_weights_key
from sharpstudent.config.run_config import RunConfig, TeacherSection
from sharpstudent.core.errors import Problem, ProblemList, UserError
from sharpstudent.core.io import compute_sha256
from sharpstudent.core.types import Batch, ModelSpec
from sharpstudent.models.forward import select_inputs
from sharpstudent.models.hooks import describe_layers, list_layers
from sharpstudent.models.teachers import FrozenTeacher, TeacherEnsemble, name_layer
from sharpstudent.models.weights import (
    count_head_classes,
    find_fitting_weights,
    is_head,
    load_weights,
    match_tensors,
    read_tensors,
)


class ModelSource(Protocol):
    """What builds models: a task, as this package sees it.

    pretrained: for a word of `student_init`, `module:function` that loads such weights, as `pretrained.load_imagenet`
    does.
    """

    @property
    def pretrained(self) -> Mapping[str, str]: ...

    def build_student(self, spec: ModelSpec) -> nn.Module: ...

    def build_teacher(self, spec: ModelSpec) -> nn.Module: ...

    def example_batch(self, count: int) -> Batch: ...


def build_student(
    config: RunConfig, task: ModelSource, *, resumed: bool = False, say: Callable[[str], None] = print
) -> nn.Module:
    """The model that learns; `say` gets the lines that tell where its weights come from.

    Stage 1 starts from `student_init`; stage 2 from a stage-1 checkpoint, and never touches a hub. A resumed run takes
    its weights from its own state, so none are looked for. Raises UserError when weights are missing or do not fit.
    """
    section = config.student
    model = task.build_student(ModelSpec(section.name, section.options, section.dropout))
    partial = "partial-weights" in config.allow
    if resumed:
        return model
    if config.stage == 2 and section.weights is not None:
        path, notes = find_fitting_weights(section.weights, model, key="pretrained_student_weights")
        for note in [*notes, f"student {_load_trained(model, path, 'pretrained_student_weights', partial)}"]:
            say(note)
        return model
    say(f"student {_initialise(model, config, task, partial=partial)}")
    return model


def _initialise(model: nn.Module, config: RunConfig, task: ModelSource, *, partial: bool) -> str:
    """Give the student the weights that `student_init` asks for; returns the line that tells so."""
    section = config.student
    if section.init == "random":
        return f"{section.name}: random weights, as asked for (student_init: random)"
    if section.init in task.pretrained:
        load = _find_loader(task, section.init)
        return load(model, section.name, "student_init", partial=partial, may_fetch=config.stage == 1)
    path = Path(section.init)
    if not path.is_file():
        words = [*task.pretrained, "random"]
        raise UserError(
            Problem(
                where=f"student_init = {section.init!r}",
                what="is neither a file nor one of the words",
                expected=f"{', '.join(words)}, or a file of weights",
                remedy="check the path; relative paths start at the current folder",
            )
        )
    return load_weights(model, read_tensors(path), where=str(path), needs_head=False, allow_partial=partial)


def _find_loader(task: ModelSource, word: str) -> Callable[..., str]:
    module, function = task.pretrained[word].split(":")
    return getattr(importlib.import_module(module), function)


def build_teachers(config: RunConfig, task: ModelSource, *, say: Callable[[str], None] = print) -> TeacherEnsemble:
    """The frozen teachers. A teacher's head must be in its file unless the config permits otherwise: a random one
    teaches noise. Raises UserError as `build_student`, with the problems of all teachers.
    """
    if not config.teachers:
        raise ValueError(f"stage {config.stage} has no teacher")
    problems = ProblemList()
    teachers: list[FrozenTeacher] = []
    paths: list[Path | None] = []
    for index in range(len(config.teachers)):
        try:
            teacher, path = _build_teacher(config, index, task, say)
        except UserError as error:
            problems.take(error)
            continue
        teachers.append(teacher)
        paths.append(path)
    problems.raise_if_any()
    for note in _warn_of_twins(config, paths, teachers):
        say(note)
    if len(teachers) > 1:
        say(_describe_average(config))
    return TeacherEnsemble(
        teachers, weights=[section.weight for section in config.teachers], average=config.teacher_average
    )


def make_teacher_spec(section: TeacherSection) -> ModelSpec:
    """What a task is asked to build for this teacher: with the form of pictures that it expects, where it has one."""
    form = {"input_size": section.input_size, "mean": section.mean, "std": section.std}
    options = {**section.options, **{name: value for name, value in form.items() if value is not None}}
    return ModelSpec(section.name, options, role="teacher")


def list_class_names(task: ModelSource) -> tuple[str, ...]:
    """The task's classes in the order of its logits; () for a task without classes."""
    return tuple(getattr(task, "classes", ()))


def _build_teacher(
    config: RunConfig, index: int, task: ModelSource, say: Callable[[str], None]
) -> tuple[FrozenTeacher, Path | None]:
    """One teacher and the file it came from."""
    section, key = config.teachers[index], name_weights_key(config, index)
    classes = list_class_names(task)
    order = _find_order(section, classes, key.removesuffix(".weights"))
    partial = "partial-weights" in config.allow
    who = "teacher" if len(config.teachers) == 1 else f"teacher {index + 1}"
    with _own_draws(config.seed + index) if section.head == "random-ok" else contextlib.nullcontext():
        model = task.build_teacher(make_teacher_spec(section))
    if section.init != "none":
        load = _find_loader(task, section.init)
        line = load(model, section.name, f"{key.removesuffix('weights')}init", partial=partial)
        say(f"{who} {line}")
    path = None
    if section.weights is not None:
        path, notes = find_fitting_weights(section.weights, model, key=key)
        for note in notes:
            say(note)
        needs_head = section.head == "loaded"
        say(f"{who} {_load_trained(model, path, key, partial, needs_head=needs_head, classes=classes)}")
    elif section.init == "none" and any(True for _ in model.parameters()):
        say(f"{who} {section.name}: random weights, as asked for (no weights, init none)")
    if section.head == "random-ok":
        say(f"warning: {who} may have a random head (head: random-ok): its logits teach noise, its features may serve")
    return FrozenTeacher(model, order=order, reads=section.reads), path


@contextlib.contextmanager
def _own_draws(seed: int) -> Generator[None]:
    """Draw weights from a seed of their own: a random head must be the same in a run that is resumed, whatever else
    was drawn before it. Other draws go on as if nothing had happened here. (Models are built on the CPU.)
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _find_order(section: TeacherSection, classes: Sequence[str], where: str) -> list[int] | None:
    """For each class of the task its place in the teacher's logits."""
    if section.classes is None:
        return None
    if sorted(section.classes) != sorted(classes):
        raise UserError(
            Problem(
                where=f"{where}.classes",
                what=f"teacher {section.name} tells other classes apart than the task",
                expected=f"the task's {len(classes)} classes in the teacher's order: {', '.join(classes)}",
                got=f"{len(section.classes)}: {', '.join(section.classes)}",
                remedy="give a teacher of these classes, and name them in the order of its logits",
            )
        )
    return [section.classes.index(name) for name in classes]


def _warn_of_twins(config: RunConfig, paths: Sequence[Path | None], teachers: Sequence[FrozenTeacher]) -> list[str]:
    """Teachers from which little can be learnt: the student's architecture, its very file, or each other's."""
    notes: list[str] = []
    for index, (section, path) in enumerate(zip(config.teachers, paths, strict=True)):
        key = name_weights_key(config, index)
        if config.student.name == section.name:
            notes.append(f"warning: teacher and student are both {section.name}; expect little from distillation")
            if path is not None and _is_same_file(path, _find_student_file(config, teachers[index].model)):
                notes.append(
                    f"warning: {key} and pretrained_student_weights are the same weights ({path}): the student begins "
                    "as its own teacher and learns nothing from it"
                )
        for earlier in range(index):
            other = paths[earlier]
            if path is not None and other is not None and _is_same_file(path, other):
                first = name_weights_key(config, earlier)
                notes.append(f"warning: {key} and {first} are the same weights ({path}): one teacher, counted twice")
    return notes


def _find_student_file(config: RunConfig, model: nn.Module) -> Path | None:
    """The stage-1 file that the student starts from; `model` has its architecture."""
    if config.student.weights is None:
        return None
    try:
        return find_fitting_weights(config.student.weights, model, key="pretrained_student_weights")[0]
    except UserError:  # told where the student is built; a resumed run needs no such file
        return None


def _is_same_file(one: Path, other: Path | None) -> bool:
    if other is None or not other.is_file():
        return False
    if one.samefile(other):
        return True
    return one.stat().st_size == other.stat().st_size and compute_sha256(one) == compute_sha256(other)


def _describe_average(config: RunConfig) -> str:
    total = sum(section.weight for section in config.teachers)
    shares = ", ".join(f"{section.name} {section.weight / total:.0%}" for section in config.teachers)
    return f"{len(config.teachers)} teachers, the average of their {config.teacher_average}: {shares}"


def print_layers(config: RunConfig, task: ModelSource, *, say: Callable[[str], None] = print) -> None:
    """The layers of the student and of each teacher that a term can name, with shapes; opens no weights and no data.

    Names are those that a config uses: a second teacher's begin with `2.`. Raises UserError for an unknown model.
    """
    student = ModelSpec(config.student.name, config.student.options, config.student.dropout)
    parts = [("student", student, task.build_student, 1)]
    for number, section in enumerate(config.teachers, 1):
        who = "teacher" if len(config.teachers) == 1 else f"teacher {number}"
        parts.append((who, make_teacher_spec(section), task.build_teacher, number))
    inputs = task.example_batch(1).inputs
    for who, spec, build, number in parts:
        model = build(spec)
        layers = list_layers(model, inputs)
        say(f"{who} {spec.name}, {_describe_inputs(select_inputs(model, inputs))}:")
        for line in describe_layers([(name_layer(number, layer), shape) for layer, shape in layers]):
            say(f"  {line}")


def _describe_inputs(inputs: Mapping[str, Tensor]) -> str:
    """`image (B, 3, 380, 380)`."""
    return ", ".join(f"{name} ({', '.join(['B', *map(str, tensor.shape[1:])])})" for name, tensor in inputs.items())


def _load_trained(
    model: nn.Module,
    path: Path,
    key: str,
    partial: bool,
    *,
    needs_head: bool = True,
    classes: Sequence[str] = (),
) -> str:
    """The counting line. With `classes`, a head that is needed and has another number of them is refused by name."""
    if not path.is_file():
        raise UserError(
            Problem(
                where=f"{key} = {str(path)!r}",
                what="does not exist",
                remedy=_REMEDIES["teacher_weights" if "teacher" in key else key],
            )
        )
    tensors = read_tensors(path)
    found, match = count_head_classes(tensors), match_tensors(model, tensors)
    is_ours = not match.missing_in_backbone() and not match.unexpected_in_backbone()
    if needs_head and is_ours and classes and found not in (None, len(classes)):
        heads = [key for key in model.state_dict() if is_head(key)]
        raise UserError(
            Problem(
                where=f"{key} = {str(path)!r}",
                what=f"does not fit: this teacher tells {found} classes apart, and the task has {len(classes)}",
                expected=f"a head of {len(classes)} classes, {', '.join(classes)}, as {', '.join(heads)} of the model",
                got=f"a head of {found} classes",
                remedy="give a teacher trained on this task; for its features alone, head: random-ok in `teachers`",
            )
        )
    return load_weights(model, tensors, where=str(path), needs_head=needs_head, allow_partial=partial)


_REMEDIES = {
    "teacher_weights": "put the teacher's checkpoint there (FFc23.tar is published for EfficientNet-B4; see "
    "weights/README.md), or train a teacher with train_student_only.py; `make demo` runs without it",
    "pretrained_student_weights": "run stage 1 first: python train_student_only.py CONFIG -n pretrain_mobilevit",
}
