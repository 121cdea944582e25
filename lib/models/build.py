"""Students and teachers from the config: architecture, where the first weights come from, what was loaded."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from lib.config.sections import RunConfig, StudentSection
from lib.errors import Problem, UserError
from lib.models.classifier import EFFICIENTNET_B4, Classifier, FrozenTeacher, build_classifier, check_model_name
from lib.models.weights import find_fitting_weights, load_weights, read_tensors

HUB_TIMEOUT_S = 5.0
WEIGHTS_FOLDER = Path("weights")


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
    if config.stage == 2 and section.init == "imagenet" and _find_local_weights(section.name) is None:
        raise UserError(_explain_no_hub_in_stage_2(section.name))
    say(f"student {_initialise(model, section, partial=partial)}")
    return model


def build_teacher(config: RunConfig, *, classes: int, say: Callable[[str], None] = print) -> FrozenTeacher:
    """The frozen teacher. Its head must be in the file: a random one teaches noise. Raises UserError as
    `build_student`.
    """
    section = config.teacher
    if section is None:
        raise ValueError(f"stage {config.stage} has no teacher")
    model = build_classifier(section.name, classes=classes, dropout=None)
    path, notes = find_fitting_weights(section.weights, model, key="teacher_weights")
    notes.append(f"teacher {_load_trained(model, path, 'teacher_weights', 'partial-weights' in config.allow)}")
    if config.student.name == section.name:
        notes.append(f"warning: teacher and student are both {section.name}; expect little from distillation")
    for note in notes:
        say(note)
    return FrozenTeacher(model)


def _load_trained(model: nn.Module, path: Path, key: str, partial: bool) -> str:
    if not path.is_file():
        raise UserError(
            Problem(
                where=f"{key} = {str(path)!r}",
                what="does not exist",
                remedy=_REMEDIES[key],
            )
        )
    return load_weights(model, read_tensors(path), where=str(path), needs_head=True, allow_partial=partial)


_REMEDIES = {
    "teacher_weights": "put the teacher's checkpoint there (FFc23.tar is published for EfficientNet-B4; see "
    "weights/README.md), or train a teacher with train_student_only.py; `make demo` runs without it",
    "pretrained_student_weights": "run stage 1 first: python train_student_only.py CONFIG -n pretrain_mobilevit",
}


def _initialise(model: nn.Module, section: StudentSection, *, partial: bool) -> str:
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
    local = _find_local_weights(section.name)
    if local is not None:
        return load_weights(model, read_tensors(local), where=str(local), needs_head=False, allow_partial=partial)
    return _load_from_hub(model, section.name)


def _find_local_weights(name: str) -> Path | None:
    """`weights/NAME.imagenet.{pth,safetensors}`, the place where `student_init: imagenet` looks first."""
    for suffix in (".safetensors", ".pth"):
        path = WEIGHTS_FOLDER / f"{name}.imagenet{suffix}"
        if path.is_file():
            return path
    return None


def _load_from_hub(model: Any, name: str) -> str:
    """timm's pretrained weights from its hub. The hub is asked first, briefly: timm itself retries for most of a
    minute.
    """
    import timm

    if name == EFFICIENTNET_B4:
        raise UserError(_explain_no_imagenet(name, "efficientnet-pytorch has no hub of its own"))
    check_model_name(name)
    pretrained = timm.get_pretrained_cfg(name)
    if pretrained is None or not pretrained.hf_hub_id:
        raise UserError(_explain_no_imagenet(name, "timm knows no pretrained weights for it"))
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
            raise UserError(_explain_no_imagenet(name, f"the hub does not answer ({error})")) from None
    try:
        source = timm.create_model(name, pretrained=True, num_classes=0)
    except (OSError, RuntimeError) as error:  # the hub answers, but not with this file
        raise UserError(_explain_no_imagenet(name, f"the hub does not give them ({error})")) from None
    return load_weights(model, source.state_dict(), where=f"timm hub {pretrained.hf_hub_id}", needs_head=False)


def _explain_no_imagenet(name: str, why: str) -> Problem:
    return Problem(
        where="student_init = 'imagenet'",
        what=f"no ImageNet weights for {name}: no file weights/{name}.imagenet.safetensors or .pth, and {why}",
        remedy=f"on a machine with a network: python -c \"import timm, torch; torch.save(timm.create_model('{name}', "
        f"pretrained=True).state_dict(), 'weights/{name}.imagenet.pth')\" and copy the file here; "
        "or name another file in student_init; or --set student_init=random",
    )


def _explain_no_hub_in_stage_2(name: str) -> Problem:
    return Problem(
        where="student_init = 'imagenet'",
        what=f"stage 2 never asks a hub, and there is no file weights/{name}.imagenet.safetensors or .pth",
        remedy="name a file in student_init, or --set student_init=random, or run stage 1",
    )
