"""The weights that a model starts from: random ones, a file, or ImageNet's from a local file or timm's hub."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from torch import nn

from lib.config.sections import StudentSection
from lib.errors import Problem, UserError
from lib.models.classifier import EFFICIENTNET_B4, check_model_name
from lib.models.weights import load_weights, read_tensors

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
