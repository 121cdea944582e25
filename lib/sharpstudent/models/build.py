"""Students and teachers from the config: architecture, and the weights that they start from.

Students and teachers from the config: architecture, where the first weights come from, what was loaded.

The weights that a model starts from: random ones, a file, or ImageNet's from a local file or timm's hub.
"""

from __future__ import annotations

import contextlib
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sharpstudent.config.resolve import name_weights_key
from sharpstudent.config.run_config import RunConfig, StudentSection, TeacherSection
from sharpstudent.core.errors import Problem, ProblemList, UserError
from sharpstudent.core.io import compute_sha256
from sharpstudent.models.classifier import EFFICIENTNET_B4, Classifier, build_classifier, check_model_name
from sharpstudent.models.hooks import describe_layers, list_layers
from sharpstudent.models.teachers import AdaptedTeacher, TeacherEnsemble, name_layer
from sharpstudent.models.weights import (
    count_head_classes,
    find_fitting_weights,
    is_head,
    load_weights,
    match_tensors,
    read_tensors,
)

HUB_TIMEOUT_S = 5.0
WEIGHTS_FOLDER = Path("weights")


def initialise(model: nn.Module, section: StudentSection, *, partial: bool) -> str:
    if section.init == "random":
        return f"{section.name}: random weights, as asked for (student_init: random)"
    if section.init != "imagenet":
        path = Path(section.init)
        if not path.is_file():
            raise UserError(
                Problem(
                    where=f"student_init = {section.init!r}",
                    what="is neither a file nor one of the words",
                    expected="imagenet, random, or a file of weights",
                    remedy="check the path; relative paths start at the current folder",
                )
            )
        return load_weights(model, read_tensors(path), where=str(path), needs_head=False, allow_partial=partial)
    return load_imagenet(model, section.name, "student_init", partial=partial)


def load_imagenet(model: nn.Module, name: str, key: str, *, partial: bool) -> str:
    local = find_local_weights(name)
    if local is not None:
        return load_weights(model, read_tensors(local), where=str(local), needs_head=False, allow_partial=partial)
    return _load_from_hub(model, name, key)


def find_local_weights(name: str) -> Path | None:
    """`weights/NAME.imagenet.{pth,safetensors}`, the place where `student_init: imagenet` looks first."""
    for suffix in (".safetensors", ".pth"):
        path = WEIGHTS_FOLDER / f"{name}.imagenet{suffix}"
        if path.is_file():
            return path
    return None


def _load_from_hub(model: Any, name: str, key: str) -> str:
    """timm's pretrained weights from its hub. The hub is asked first, briefly: timm itself retries for most of a
    minute.
    """
    import timm

    if name == EFFICIENTNET_B4:
        raise UserError(_explain_no_imagenet(name, key, "efficientnet-pytorch has no hub of its own"))
    check_model_name(name)
    pretrained = timm.get_pretrained_cfg(name)
    if pretrained is None or not pretrained.hf_hub_id:
        raise UserError(_explain_no_imagenet(name, key, "timm knows no pretrained weights for it"))
    from huggingface_hub import constants, try_to_load_from_cache

    is_cached = any(
        isinstance(try_to_load_from_cache(pretrained.hf_hub_id, file), str)
        for file in ("model.safetensors", "pytorch_model.bin")
    )
    if not is_cached:
        try:
            # The answer does not matter, only that there is one.
            urllib.request.urlopen(constants.ENDPOINT, timeout=HUB_TIMEOUT_S).close()
        except urllib.error.HTTPError:
            pass
        except OSError as error:
            raise UserError(_explain_no_imagenet(name, key, f"the hub does not answer ({error})")) from None
    try:
        source = timm.create_model(name, pretrained=True, num_classes=0)
    except (OSError, RuntimeError) as error:  # the hub answers, but not with this file
        raise UserError(_explain_no_imagenet(name, key, f"the hub does not give them ({error})")) from None
    return load_weights(model, source.state_dict(), where=f"timm hub {pretrained.hf_hub_id}", needs_head=False)


def _explain_no_imagenet(name: str, key: str, why: str) -> Problem:
    rest = (
        "or name another file in student_init; or --set student_init=random"
        if key == "student_init"
        else ("or give the teacher's whole weights in its file, and init none")
    )
    return Problem(
        where=f"{key} = 'imagenet'",
        what=f"no ImageNet weights for {name}: no file weights/{name}.imagenet.safetensors or .pth, and {why}",
        remedy=f"on a machine with a network: python -c \"import timm, torch; torch.save(timm.create_model('{name}', "
        f"pretrained=True).state_dict(), 'weights/{name}.imagenet.pth')\" and copy the file here; " + rest,
    )


def explain_no_hub(name: str) -> Problem:
    return Problem(
        where="student_init = 'imagenet'",
        what=f"stage 2 never asks a hub, and there is no file weights/{name}.imagenet.safetensors or .pth",
        remedy="name a file in student_init, or --set student_init=random, or run stage 1",
    )


def build_student(
    config: RunConfig, *, classes: int, resumed: bool = False, say: Callable[[str], None] = print
) -> Classifier:
    """The model that learns; `say` gets the lines that tell where its weights come from.

    Stage 1 starts from `student_init`; stage 2 from a stage-1 checkpoint, and never touches a hub. A resumed run takes
    its weights from its own state, so none are looked for. Raises UserError when weights are missing or do not fit.
    """
    section = config.student
    model = build_classifier(section.name, classes=classes, dropout=section.dropout)
    partial = "partial-weights" in config.allow
    if resumed:
        return model
    if config.stage == 2 and section.weights is not None:
        path, notes = find_fitting_weights(section.weights, model, key="pretrained_student_weights")
        for note in [*notes, f"student {_load_trained(model, path, 'pretrained_student_weights', partial)}"]:
            say(note)
        return model
    if config.stage == 2 and section.init == "imagenet" and find_local_weights(section.name) is None:
        raise UserError(explain_no_hub(section.name))
    say(f"student {initialise(model, section, partial=partial)}")
    return model


def build_teachers(config: RunConfig, *, classes: Sequence[str], say: Callable[[str], None] = print) -> TeacherEnsemble:
    """The frozen teachers; `classes` are the task's names in its order. A teacher's head must be in its file unless
    the config permits otherwise: a random one teaches noise. Raises UserError as `build_student`, with the problems of
    all teachers.
    """
    if not config.teachers:
        raise ValueError(f"stage {config.stage} has no teacher")
    problems = ProblemList()
    teachers: list[AdaptedTeacher] = []
    paths: list[Path | None] = []
    for index in range(len(config.teachers)):
        try:
            teacher, path = _build_teacher(config, index, classes, say)
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


def _build_teacher(
    config: RunConfig, index: int, classes: Sequence[str], say: Callable[[str], None]
) -> tuple[AdaptedTeacher, Path | None]:
    """One teacher and the file it came from."""
    section, key = config.teachers[index], name_weights_key(config, index)
    order = _find_order(section, classes, key.removesuffix(".weights"))
    partial = "partial-weights" in config.allow
    who = "teacher" if len(config.teachers) == 1 else f"teacher {index + 1}"
    with _own_draws(config.seed + index) if section.head == "random-ok" else contextlib.nullcontext():
        model = build_classifier(section.name, classes=len(classes), dropout=None)
    if section.init == "imagenet":
        line = load_imagenet(model, section.name, f"{key.removesuffix('weights')}init", partial=partial)
        say(f"{who} {line}")
    path = None
    if section.weights is not None:
        path, notes = find_fitting_weights(section.weights, model, key=key)
        for note in notes:
            say(note)
        needs_head = section.head == "loaded"
        say(f"{who} {_load_trained(model, path, key, partial, needs_head=needs_head, classes=classes)}")
    elif section.init == "none":
        say(f"{who} {section.name}: random weights, as asked for (no weights, init none)")
    if section.head == "random-ok":
        say(f"warning: {who} may have a random head (head: random-ok): its logits teach noise, its features may serve")
    return AdaptedTeacher(model, input_size=section.input_size, mean=section.mean, std=section.std, order=order), path


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


def _warn_of_twins(config: RunConfig, paths: Sequence[Path | None], teachers: Sequence[AdaptedTeacher]) -> list[str]:
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


def print_layers(config: RunConfig, *, classes: int, image_size: int, say: Callable[[str], None] = print) -> None:
    """The layers of the student and of each teacher that a tap can name, with shapes; opens no weights and no data.

    Names are those that a config uses: a second teacher's begin with `2.`. Raises UserError for an unknown model.
    """
    parts = [("student", config.student.name, image_size, 1)]
    for number, section in enumerate(config.teachers, 1):
        who = "teacher" if len(config.teachers) == 1 else f"teacher {number}"
        parts.append((who, section.name, section.input_size or image_size, number))
    for who, name, size, number in parts:
        layers = list_layers(build_classifier(name, classes=classes, dropout=None), size)
        say(f"{who} {name}, images (B, 3, {size}, {size}):")
        for line in describe_layers([(name_layer(number, layer), shape) for layer, shape in layers]):
            say(f"  {line}")


def _load_trained(
    model: nn.Module,
    path: Path,
    key: str,
    partial: bool,
    *,
    needs_head: bool = True,
    classes: Sequence[str] | None = None,
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
    if needs_head and is_ours and classes is not None and found not in (None, len(classes)):
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
