"""ImageNet weights of a classifier of pictures, from a local file or timm's hub."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from torch import nn

from sharpstudent.core.errors import UserError
from sharpstudent.models.vision import EFFICIENTNET_B4, check_model_name
from sharpstudent.models.weight_files import read_tensors
from sharpstudent.models.weights import load_weights

HUB_TIMEOUT_S = 5.0
WEIGHTS_FOLDER = Path("weights")


def load_imagenet(model: nn.Module, name: str, key: str, *, partial: bool, may_fetch: bool = True) -> str:
    """Load the backbone's ImageNet weights.

    Args:
        model: A classifier with the architecture `name`.
        name: Name of its architecture.
        key: The config key that requests them, for messages.
        partial: Whether weights that do not match every tensor of the backbone are permitted.
        may_fetch: Whether weights may be downloaded; stage 2 never does so.

    Returns:
        A sentence that says where they came from.

    Raises:
        UserError: Where there are none, or they do not fit.
    """
    local = find_local_weights(name)
    if local is not None:
        notes: list[str] = []
        tensors = read_tensors(local, notes.append)
        line = load_weights(model, tensors, where=str(local), needs_head=False, allow_partial=partial)
        return "; ".join((line, *notes))
    if not may_fetch:
        raise UserError.about(
            where="student_init = 'imagenet'",
            what=f"stage 2 never asks a hub, and there is no file weights/{name}.imagenet.safetensors or .pth",
            remedy="name a file in student_init, or --set student_init=random, or run stage 1",
        )
    return _load_from_hub(model, name, key)


def find_local_weights(name: str) -> Path | None:
    """Find `weights/NAME.imagenet.{pth,safetensors}`, where `student_init: imagenet` looks first."""
    paths = [WEIGHTS_FOLDER / f"{name}.imagenet{suffix}" for suffix in (".safetensors", ".pth")]
    return next(filter(Path.is_file, paths), None)


def _load_from_hub(model: Any, name: str, key: str) -> str:
    """Load timm's pretrained weights from its hub.

    A short request finds out whether the hub answers: timm itself retries for most of a minute.
    """
    import timm

    if name == EFFICIENTNET_B4:
        raise _explain_no_imagenet(name, key, "efficientnet-pytorch has no hub of its own")
    check_model_name(name)
    pretrained = timm.get_pretrained_cfg(name)
    if pretrained is None or not pretrained.hf_hub_id:
        raise _explain_no_imagenet(name, key, "timm knows no pretrained weights for it")
    from huggingface_hub import constants, try_to_load_from_cache

    is_cached = any(
        isinstance(try_to_load_from_cache(pretrained.hf_hub_id, file), str)
        for file in ("model.safetensors", "pytorch_model.bin")
    )
    if not is_cached:
        try:
            # Any answer will do: it shows that the hub can be reached.
            urllib.request.urlopen(constants.ENDPOINT, timeout=HUB_TIMEOUT_S).close()
        except urllib.error.HTTPError:
            pass
        except OSError as error:
            raise _explain_no_imagenet(name, key, f"the hub does not answer ({error})") from None
    try:
        source = timm.create_model(name, pretrained=True, num_classes=0, **model.sizes)
    except (OSError, RuntimeError) as error:  # the hub can be reached, but the file cannot be loaded
        raise _explain_no_imagenet(name, key, f"the hub does not give them ({error})") from None
    return load_weights(model, source.state_dict(), where=f"timm hub {pretrained.hf_hub_id}", needs_head=False)


def _explain_no_imagenet(name: str, key: str, why: str) -> UserError:
    rest = (
        "or name another file in student_init; or --set student_init=random"
        if key == "student_init"
        else ("or give the teacher's whole weights in its file, and init none")
    )
    return UserError.about(
        where=f"{key} = 'imagenet'",
        what=f"no ImageNet weights for {name}: no file weights/{name}.imagenet.safetensors or .pth, and {why}",
        remedy=f"on a machine with a network: python -c \"import timm, torch; torch.save(timm.create_model('{name}', "
        f"pretrained=True).state_dict(), 'weights/{name}.imagenet.pth')\" and copy the file here; " + rest,
    )
