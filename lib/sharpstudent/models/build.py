"""Students and teachers from the config: built by the task, with the weights that they start from.

Legend: C classes.
"""

from __future__ import annotations

import contextlib
import filecmp
import importlib
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from sharpstudent.config.resolve import START_KEYS, name_weights_key
from sharpstudent.config.run_config import RunConfig, TeacherSection
from sharpstudent.core.archive import find_file
from sharpstudent.core.errors import ProblemList, UserError
from sharpstudent.core.types import Batch, ModelSpec, list_class_names
from sharpstudent.models.forward import select_inputs
from sharpstudent.models.hooks import describe_layers, describe_shape, list_layers
from sharpstudent.models.teachers import FrozenTeacher, TeacherEnsemble, name_layer, name_teacher
from sharpstudent.models.trained_start import check_start
from sharpstudent.models.vision import UNIT_NORM
from sharpstudent.models.weight_files import read_stated_options, read_tensors, read_timm_config
from sharpstudent.models.weights import (
    advise_weights,
    count_head_classes,
    find_fitting_weights,
    is_head,
    load_weights,
    match_tensors,
)


class ModelSource(Protocol):
    """The part of a task that this package uses: it builds models.

    Attributes:
        pretrained: Further values of `student_init`, each with the `module:function` that loads its weights; it has the
            signature of `pretrained.load_imagenet`.
    """

    @property
    def pretrained(self) -> Mapping[str, str]:
        """See the class."""
        ...

    @property
    def facts_of_data(self) -> tuple[str, ...]:
        """The names of facts in which the model that a run starts from may differ."""
        ...

    def facts(self) -> dict[str, Any]:
        """JSON values that a checkpoint keeps."""
        ...

    def build_student(self, spec: ModelSpec) -> nn.Module:
        """Build a student with random weights."""
        ...

    def build_teacher(self, spec: ModelSpec) -> nn.Module:
        """Build a teacher with random weights."""
        ...

    def example_batch(self, count: int) -> Batch:
        """Make a batch of `count` samples from which shapes are found."""
        ...


def build_student(
    config: RunConfig,
    task: ModelSource,
    *,
    resumed: bool = False,
    say: Callable[[str], None] = print,
    tell_start: Callable[[Path], None] = lambda path: None,
) -> nn.Module:
    """Build the student and load the weights that it starts from.

    Stage 1 starts from `start` or `student_init`, stage 2 from a stage-1 checkpoint. Stage 2 never downloads weights.

    Args:
        config: The config of the run.
        task: Builds the model.
        resumed: Whether a run is resumed: its saved state then gives the weights, and no other file is needed.
        say: Gets the lines that say where the weights come from.
        tell_start: Gets the file of the trained model that it starts from, if it does.

    Raises:
        UserError: When weights are missing or do not fit.
    """
    section, classes = config.student, list_class_names(task)
    model = task.build_student(ModelSpec(section.name, section.options, section.dropout))
    partial = "partial-weights" in config.allow
    if resumed:
        return model
    if section.weights is not None:
        key, use_ema = START_KEYS[config.stage], section.use_ema
        path = find_trained(section.weights, model, key, say, classes=classes)
        note = check_start(path, config, task.facts(), task.facts_of_data) if config.stage == 1 else None
        _load_trained(model, path, key, "student", partial, say, classes=classes, use_ema=use_ema)
        check_form(path, section.options, f"{key} = {str(path)!r}")
        if note is not None:
            say(note)
        tell_start(path)
    elif section.init == "random":
        say(f"student {section.name}: random weights, as asked for (student_init: random)")
    elif section.init in task.pretrained:
        load, may_fetch = _find_loader(task, section.init), config.stage == 1
        say(f"student {load(model, section.name, 'student_init', partial=partial, may_fetch=may_fetch)}")
    else:
        path = Path(section.init)
        if not path.exists():
            raise UserError.about(
                where=f"student_init = {section.init!r}",
                what="is neither a file nor one of the words",
                expected=f"{', '.join([*task.pretrained, 'random'])}, or a file of weights",
                remedy="check the path; relative paths start at the current folder",
            )
        path = find_file(path)
        tensors, where = read_tensors(path, say, use_ema=section.use_ema), str(path)
        line = load_weights(model, tensors, where=where, needs_head=False, allow_partial=partial, classes=classes)
        say(f"student {line}")
    return model


def _find_loader(task: ModelSource, word: str) -> Callable[..., str]:
    module, function = task.pretrained[word].split(":")
    return getattr(importlib.import_module(module), function)


def build_teachers(config: RunConfig, task: ModelSource, *, say: Callable[[str], None] = print) -> TeacherEnsemble:
    """Build the frozen teachers with their weights.

    A teacher's file must hold its head, unless the config permits otherwise: a random head gives random targets.

    Args:
        config: The config of the run.
        task: Builds the models.
        say: Gets the lines that say where the weights come from.

    Raises:
        UserError: When weights are missing or do not fit, with the problems of all teachers.
    """
    if not config.teachers:
        raise ValueError(f"stage {config.stage} has no teacher")
    problems = ProblemList()
    built = [problems.attempt(_build_teacher, config, index, task, say) for index in range(len(config.teachers))]
    problems.raise_if_any()
    teachers, paths = [teacher for teacher, _ in built], [path for _, path in built]
    for note in _warn_of_twins(config, paths, teachers):
        say(note)
    if len(teachers) > 1:
        total = sum(section.weight for section in config.teachers)
        shares = ", ".join(f"{section.name} {section.weight / total:.0%}" for section in config.teachers)
        say(f"{len(teachers)} teachers, the average of their {config.teacher_average}: {shares}")
    return TeacherEnsemble(
        teachers, weights=[section.weight for section in config.teachers], average=config.teacher_average
    )


SILENT_OPTIONS = ("mean", "std", UNIT_NORM)  # that change what the same tensors compute


def make_teacher_spec(section: TeacherSection) -> ModelSpec:
    """Make the spec of a teacher for its task; size, mean and std of its pictures become options."""
    form = {"input_size": section.input_size, "mean": section.mean, "std": section.std}
    options = {**section.options, **{name: value for name, value in form.items() if value is not None}}
    return ModelSpec(section.name, options, role="teacher")


def _build_teacher(
    config: RunConfig, index: int, task: ModelSource, say: Callable[[str], None]
) -> tuple[FrozenTeacher, Path | None]:
    """Build one teacher, and return the file of its weights with it."""
    section, key = config.teachers[index], name_weights_key(config, index)
    classes = list_class_names(task)
    order = _find_order(section, classes, key.removesuffix(".weights"))
    partial = "partial-weights" in config.allow
    who = name_teacher(config, index + 1)
    with _own_draws(config.seed + index) if section.head == "random-ok" else contextlib.nullcontext():
        model = task.build_teacher(make_teacher_spec(section))
    if section.init != "none":
        load = _find_loader(task, section.init)
        line = load(model, section.name, f"{key.removesuffix('weights')}init", partial=partial)
        say(f"{who} {line}")
    path = None
    if section.weights is not None:
        needs_head, named = section.head == "loaded", section.classes or classes
        use_ema = section.use_ema
        path = find_trained(section.weights, model, key, say, classes=named)
        _load_trained(model, path, key, who, partial, say, needs_head=needs_head, classes=named, use_ema=use_ema)
        check_form(path, make_teacher_spec(section).options, f"{key} = {str(path)!r}")
        _note_other_form(section, path, who, say)
    elif section.init == "none" and any(True for _ in model.parameters()):
        say(f"{who} {section.name}: random weights, as asked for (no weights, init none)")
    if section.head == "random-ok":
        say(f"warning: {who} may have a random head (head: random-ok): its logits teach noise, its features may serve")
    return FrozenTeacher(model, order=order, reads=section.reads), path


def check_form(path: Path, options: Mapping[str, Any], where: str) -> None:
    """Check that a checkpoint is used as it was trained, where its tensors alone do not tell.

    Args:
        path: The file; one that does not describe itself passes.
        options: The options of the model that it was loaded into.
        where: The config's key with the file, for the message.

    Raises:
        UserError: Where `mean`, `std` or `unit_norm` of the file's own model are others.
    """
    stated = read_stated_options(path)
    if stated is None:
        return
    wanted, given = ({name: _plain(one.get(name)) for name in SILENT_OPTIONS} for one in (stated, options))
    if wanted != given:
        differ = [name for name in SILENT_OPTIONS if wanted[name] != given[name]]
        raise UserError.about(
            where,
            "was trained in another form, says the file: its tensors fit, and its outputs would mean nothing",
            expected=", ".join(f'"{name}": {json.dumps(wanted[name])}' for name in differ),
            got=", ".join(f'"{name}": {json.dumps(given[name])}' for name in differ),
            remedy="write them in the config beside the model's name, or leave out what is null",
        )


def _plain(value: Any) -> Any:
    """What JSON makes of an option; one that is switched off is as one that is absent."""
    return list(value) if isinstance(value, tuple) else value or None


def _note_other_form(section: TeacherSection, path: Path, who: str, say: Callable[[str], None]) -> None:
    """Warn where the config.json beside a teacher's weights states pictures of another form than the config does."""
    stated = read_timm_config(path)
    given = {"input_size": section.input_size, "mean": section.mean, "std": section.std}
    differ = {name: stated[name] for name in given if stated.get(name) is not None and stated[name] != given[name]}
    if differ:
        wanted = ", ".join(f'"{name}": {json.dumps(value)}' for name, value in differ.items())
        say(f"warning: {who} was trained on pictures of another form, says {path.parent}/config.json: {wanted}")


@contextlib.contextmanager
def _own_draws(seed: int) -> Generator[None]:
    """Context manager: weights are drawn from a seed of their own, and the random state is restored afterwards.

    A random head must be the same in a run that is resumed, whatever was drawn before it. (Models are built on the
    CPU.)
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _find_order(section: TeacherSection, classes: Sequence[str], where: str) -> list[int] | None:
    """Find the index of each class of the task in the teacher's logits."""
    if section.classes is None:
        return None
    if sorted(section.classes) != sorted(classes):
        raise UserError.about(
            where=f"{where}.classes",
            what=f"teacher {section.name} has other classes than the task",
            expected=f"the task's {len(classes)} classes in the teacher's order: {', '.join(classes)}",
            got=f"{len(section.classes)}: {', '.join(section.classes)}",
            remedy="give a teacher of these classes, and name them in the order of its logits",
        )
    return [section.classes.index(name) for name in classes]


def _warn_of_twins(config: RunConfig, paths: Sequence[Path | None], teachers: Sequence[FrozenTeacher]) -> list[str]:
    """Warn of teachers that share the student's architecture or weights, or the weights of another teacher."""
    notes: list[str] = []
    for index, (section, path) in enumerate(zip(config.teachers, paths, strict=True)):
        key = name_weights_key(config, index)
        if config.student.name == section.name:
            notes.append(f"warning: teacher and student are both {section.name}; expect little from distillation")
            if _is_same_file(path, _find_student_file(config, teachers[index].model)):
                notes.append(
                    f"warning: {key} and pretrained_student_weights are the same weights ({path}): the student begins "
                    "as its own teacher and learns nothing from it"
                )
        for earlier in range(index):
            if _is_same_file(path, paths[earlier]):
                first = name_weights_key(config, earlier)
                notes.append(f"warning: {key} and {first} are the same weights ({path}): one teacher, counted twice")
    return notes


def _find_student_file(config: RunConfig, model: nn.Module) -> Path | None:
    """Find the stage-1 file that the student starts from; `model` has its architecture."""
    if config.student.weights is None:
        return None
    try:
        return find_fitting_weights(config.student.weights, model, key="pretrained_student_weights")[0]
    except UserError:  # reported where the student is built; a resumed run needs no such file
        return None


def _is_same_file(one: Path | None, other: Path | None) -> bool:
    """Whether both files are there and hold the same bytes."""
    return one is not None and other is not None and other.is_file() and filecmp.cmp(one, other, shallow=False)


def print_layers(config: RunConfig, task: ModelSource, *, say: Callable[[str], None] = print) -> None:
    """Print the layers of the student and of each teacher that a term can name, with shapes; no file is opened.

    Names are those that a config uses: a second teacher's begin with `2.`.

    Args:
        config: The config of the run.
        task: Builds the models.
        say: Gets the lines.

    Raises:
        UserError: For an unknown model.
    """
    student = ModelSpec(config.student.name, config.student.options, config.student.dropout)
    parts = [("student", student, task.build_student, 1)]
    for number, section in enumerate(config.teachers, 1):
        parts.append((name_teacher(config, number), make_teacher_spec(section), task.build_teacher, number))
    inputs = task.example_batch(1).inputs
    for who, spec, build, number in parts:
        model = build(spec)
        layers = list_layers(model, inputs)
        read = [f"{name} {describe_shape(tensor.shape)}" for name, tensor in select_inputs(model, inputs).items()]
        say(f"{who} {spec.name}, {', '.join(read)}:")
        for line in describe_layers([(name_layer(number, layer), shape) for layer, shape in layers]):
            say(f"  {line}")


def find_trained(
    pattern: str, model: nn.Module, key: str, say: Callable[[str], None], *, classes: Sequence[str] = ()
) -> Path:
    """Find the file of trained weights that a key of the config names, and print notes on the choice.

    Args:
        pattern: A path, a pattern as of `glob`, or the name of a model that comes with the package.
        model: The model that the file must fit.
        key: The key, for messages.
        say: Gets the notes.
        classes: The classes in the order of the file's logits.

    Raises:
        UserError: Where there is none, or none that fits.
    """
    path, notes = find_fitting_weights(pattern, model, key=key, classes=classes)
    for note in notes:
        say(note)
    if not path.exists():
        raise UserError.about(
            where=f"{key} = {str(path)!r}",
            what="does not exist",
            remedy=advise_weights(key, pattern),
        )
    return find_file(path)


def _load_trained(
    model: nn.Module,
    path: Path,
    key: str,
    who: str,
    partial: bool,
    say: Callable[[str], None],
    *,
    needs_head: bool = True,
    classes: Sequence[str] = (),
    use_ema: bool = False,
) -> None:
    """Load trained weights and print a line about them.

    With `classes`, in the order of the file's logits, a required head with another number of classes is an error that
    names both numbers.
    """
    tensors = read_tensors(path, say, use_ema=use_ema)
    match = match_tensors(model, tensors, classes)
    found = count_head_classes(match.tensors)
    is_ours = not match.missing_in_backbone() and not match.unexpected_in_backbone()
    if needs_head and is_ours and classes and found not in (None, len(classes)):
        heads = [key for key in model.state_dict() if is_head(key)]
        raise UserError.about(
            where=f"{key} = {str(path)!r}",
            what=f"does not fit: this {who} tells {found} classes apart, and the task has {len(classes)}",
            expected=f"a head of {len(classes)} classes, {', '.join(classes)}, as {', '.join(heads)} of the model",
            got=f"a head of {found} classes",
            remedy="give a model trained on this task; for a teacher's features alone, head: random-ok in `teachers`",
        )
    where = str(path)
    line = load_weights(model, tensors, where=where, needs_head=needs_head, allow_partial=partial, classes=classes)
    say(f"{who} {line}")
