"""Loads weights strictly: unless every tensor of the backbone matches, an error shows keys of the file and the model.

A file may wrap its tensors (`model`, `state_dict`, `model_state_dict`) and prefix its keys (see PREFIXES); both are
removed on both sides before the names are compared. The head may have another library's name, such as `last_layer` for
efficientnet-pytorch's `_fc`. If file and model each have one unmatched head, of equal shape, the two are matched.
"""

from __future__ import annotations

import glob
import hashlib
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sharpstudent.config.run_config import SCRIPTS, advise_stage_1
from sharpstudent.core.archive import SAFETENSORS, load_plain, verify
from sharpstudent.core.errors import UserError

WRAPPERS = ("model", "state_dict", "model_state_dict")
PREFIXES = ("module.", "net.", "model.", "student.", "backbone.", "efficientnet.")
HEAD_NAMES = ("head.", "fc.", "_fc.", "classifier.")  # of this project, of timm, of efficientnet-pytorch
RENAMED = {"last_layer.weight": "_fc.weight", "last_layer.bias": "_fc.bias"}  # in published detectors
EXAMPLES = 3


@dataclass(frozen=True)
class Match:
    """How the tensors of a file fit a model.

    Attributes:
        matched: The file's key for each key of the model.
        missing: Keys of the model that the file lacks or has in another shape.
        unexpected: Keys of the file that the model lacks.
        wrong_shape: A text for each tensor that has another shape in the file.
    """

    matched: Mapping[str, str]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shape: tuple[str, ...]

    def describe(self) -> str:
        """The line with the numbers of matched, missing and unexpected tensors, which every load prints."""
        return f"{len(self.matched)} tensors matched, {len(self.missing)} missing, {len(self.unexpected)} unexpected"

    def missing_in_backbone(self) -> list[str]:
        """The missing keys, without those of the head."""
        return [key for key in self.missing if not is_head(key)]

    def unexpected_in_backbone(self) -> list[str]:
        """The unexpected keys, without those of a head."""
        return [key for key in self.unexpected if not is_head(key)]


def is_head(key: str) -> bool:
    """Whether a state key belongs to the classification head, in any of the forms that are read.

    timm calls some last layers of a backbone `head.norm`: keys of our classifier that begin with `backbone.` are never
    of the head.
    """
    name = _normalise(key)
    return name in RENAMED.values() or ("backbone." not in key and name.startswith(HEAD_NAMES))


def read_tensors(path: Path, say: Callable[[str], None] | None = None) -> dict[str, Tensor]:
    """Read the tensors of a .pth/.tar/.pt or .safetensors file. Never runs code from the file.

    Args:
        path: The file.
        say: Called with a note if the file could not be verified, or its JSON was written with another save.

    Returns:
        The tensors by name, without their wrapper.

    Raises:
        UserError: For a file that is missing, damaged, or not a file of weights.
    """
    if not path.is_file():
        raise UserError.about(where=str(path), what="does not exist", remedy="check the path")
    for note in verify(path):
        if say is not None:
            say(note)
    if path.suffix == SAFETENSORS:
        return _read_safetensors(path)
    return unwrap_tensors(load_plain(path), where=str(path))


def unwrap_tensors(found: Any, *, where: str) -> dict[str, Tensor]:
    """Take the named tensors out of their wrapper.

    Args:
        found: What was read from a file.
        where: The file, for messages.

    Raises:
        UserError: Where there are no tensors.
    """
    for wrapper in WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    tensors = {str(k): v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, dict) else {}
    if not tensors:
        raise UserError.about(
            where=where,
            what="holds no weights",
            expected=f"named tensors, plain or under one of {', '.join(WRAPPERS)}",
            got=f"keys {list(found)[:EXAMPLES]}" if isinstance(found, dict) else type(found).__name__,
            remedy="give a checkpoint that torch.save(model.state_dict(), FILE) or this program wrote",
        )
    return tensors


def match_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> Match:
    """Compare names and shapes; nothing is loaded.

    Args:
        model: The model.
        tensors: The tensors of a file, by name.
    """
    wanted = model.state_dict()
    offered = {_normalise(key): key for key in tensors}
    if len(offered) != len(tensors):  # two names differ in their prefix only: compare the full names
        offered = {key: key for key in tensors}
    by_name = {key: offered[_normalise(key)] for key in wanted if _normalise(key) in offered}
    by_name |= _pair_heads(wanted, tensors, by_name)
    matched = {key: source for key, source in by_name.items() if wanted[key].shape == tensors[source].shape}
    wrong_shape = tuple(
        f"{key}: wanted {tuple(wanted[key].shape)}, file has {tuple(tensors[source].shape)}"
        for key, source in by_name.items()
        if key not in matched
    )
    used = set(by_name.values())
    return Match(
        matched=matched,
        missing=tuple(key for key in wanted if key not in matched),
        unexpected=tuple(key for key in tensors if key not in used),
        wrong_shape=wrong_shape,
    )


def _pair_heads(
    wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], by_name: Mapping[str, str]
) -> dict[str, str]:
    """Match a head that has another name in the file: weight and bias, if each side has one such pair of equal shape.

    Heads of other shapes (ImageNet's 1000 classes) stay unmatched.
    """
    ours = [key for key in wanted if key not in by_name and is_head(key)]
    theirs = [key for key in tensors if key not in by_name.values() and is_head(key)]
    pairs: dict[str, str] = {}
    for end in (".weight", ".bias"):
        one, other = [key for key in ours if key.endswith(end)], [key for key in theirs if key.endswith(end)]
        if len(one) == len(other) == 1 and wanted[one[0]].shape == tensors[other[0]].shape:
            pairs[one[0]] = other[0]
    return pairs if len(pairs) == len(ours) == len(theirs) else {}


def count_head_classes(tensors: Mapping[str, Tensor]) -> int | None:
    """Count the classes of the head in a file; None where it holds no head."""
    sizes = [int(t.shape[0]) for key, t in tensors.items() if is_head(key) and key.endswith("weight") and t.ndim == 2]
    return sizes[-1] if sizes else None


def load_weights(
    model: nn.Module, tensors: Mapping[str, Tensor], *, where: str, needs_head: bool, allow_partial: bool = False
) -> str:
    """Copy tensors into a model after a strict comparison.

    Args:
        model: The model that gets the weights.
        tensors: The tensors by name.
        where: The file, for messages.
        needs_head: Whether the classification head must be in the file (a trained classifier); else it is taken only
            where it fits (ImageNet weights).
        allow_partial: Whether a part of the tensors may match.

    Returns:
        The line of `Match.describe`.

    Raises:
        UserError: When the tensors do not match as required; the model is then unchanged.
    """
    match = match_tensors(model, tensors)
    missing = match.missing if needs_head else match.missing_in_backbone()
    if (missing or match.unexpected_in_backbone()) and not (allow_partial and match.matched):
        lines = [match.describe()]
        if match.wrong_shape:
            lines.append(f"other shapes: {_examples(match.wrong_shape)}")
        lines.append(f"the file's keys look like: {_examples(list(match.unexpected or tensors))}")
        raise UserError.about(
            where=where,
            what=f"does not fit the model ({type(model).__name__}); nothing was loaded",
            expected=f"tensors such as {_examples(missing or list(model.state_dict()))}",
            got="\n".join(lines),
            remedy="give weights of this very architecture, or name the file's architecture in the config; "
            "--allow partial-weights takes what matches",
        )
    state = model.state_dict()
    # Weight and bias of the head are taken together or not at all.
    head_fits = not any(is_head(key) for key in match.missing)
    for key, source in match.matched.items():
        if head_fits or not is_head(key):
            state[key] = tensors[source]
    model.load_state_dict(state, strict=True)
    head = "" if head_fits else "; the head starts from random weights"
    return f"{where}: {match.describe()}{head}"


def find_fitting_weights(pattern: str, model: nn.Module, *, key: str) -> tuple[Path, list[str]]:
    """Find the file that a path or pattern names; of several, the newest one whose tensors all fit the model.

    Metrics play no part, because runs on different data cannot be compared by them.

    Args:
        pattern: A path, or a pattern as of `glob`.
        model: The model that the file must fit.
        key: The config's key, for messages.

    Returns:
        The path, and notes on the choice.

    Raises:
        UserError: Where no file fits; the message lists what is there.
    """
    if not glob.has_magic(pattern) or Path(pattern).is_file():
        return Path(pattern), []
    # File time, then name: run folders end in their date, which breaks ties within a second.
    candidates = [Path(found) for found in glob.glob(pattern, recursive=True)]
    candidates = sorted(candidates, key=lambda path: (path.stat().st_mtime_ns, str(path)), reverse=True)
    refused: list[str] = []
    damaged: list[str] = []
    for path in candidates:
        try:
            match = match_tensors(model, read_tensors(path))
        except UserError as error:
            refused.append(f"{path}: {error.problems[0].what}")
            damaged += [f"{key}: passed over a newer file, {refused[-1]}"]
            continue
        if not match.missing and not match.unexpected:
            took = f"{key}: took the newest that fits, {path} (of {len(candidates)} that {pattern} matches)"
            return path, [took, *damaged]
        refused.append(f"{path}: {match.describe()}")
    raise UserError.about(
        where=f"{key} = {pattern!r}",
        what="no file matches this pattern" if not candidates else "no matching file fits the model",
        got="\n".join(refused[:8]) or f"beside it there is: {_list_nearby(pattern)}",
        remedy=advise_weights(key, pattern),
    )


def advise_weights(key: str, pattern: str) -> str:
    """Advise where to get the weights that a key names and that are not there.

    Args:
        key: The key, such as `pretrained_student_weights`.
        pattern: Its value, a path or a pattern.

    Returns:
        The remedy of a message.
    """
    if "teacher" not in key:
        return f"run stage 1 first: {advise_stage_1(pattern)}; or name the file"
    return (
        "put the teacher's checkpoint there (FFc23.tar is published for EfficientNet-B4; see weights/README.md), or "
        f"train a teacher with {SCRIPTS[1]}; `make demo` runs without it"
    )


def _list_nearby(pattern: str) -> str:
    """List the contents of the deepest existing folder of the pattern."""
    fixed = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts))
    while not fixed.is_dir() and fixed != fixed.parent:
        fixed = fixed.parent
    names = sorted(path.name for path in fixed.iterdir() if not path.name.startswith("."))[:10]
    return f"{fixed}/: {', '.join(names) or '(empty)'}"


def _normalise(key: str) -> str:
    """Remove the prefixes of a key, and give the key of a renamed head its usual name."""
    name = re.sub(f"^({'|'.join(map(re.escape, PREFIXES))})+", "", key)
    return RENAMED.get(name, name)


def _examples(keys: Sequence[str]) -> str:
    return ", ".join(keys[:EXAMPLES]) + (", ..." if len(keys) > EXAMPLES else "")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    import safetensors
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError.about(
            where=str(path), what="cannot be read as safetensors", got=str(error), remedy="fetch it again"
        ) from None


def compute_weights_hash(model: nn.Module) -> str:
    """Compute the sha256 (hex) over name, dtype, shape and bytes of every tensor of the state dict, in its order.

    The same on every device and in every memory layout; one changed bit or counter changes it.
    """
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def rename_by_order(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Rename tensors of another library to those of a timm model that lists the same layers in the same order.

    Args:
        tensors: The tensors by their names in the other library.
        name: Name of the timm model.

    Raises:
        ValueError: Unless there are as many tensors and every shape agrees.
    """
    import timm

    wanted = timm.create_model(name, pretrained=False).state_dict()
    shapes = [tuple(t.shape) for t in tensors.values()], [tuple(t.shape) for t in wanted.values()]
    if shapes[0] != shapes[1]:
        raise ValueError(f"{name}: the file's {len(shapes[0])} tensors are not the model's {len(shapes[1])} in order")
    return {key: tensor.contiguous() for key, tensor in zip(wanted, tensors.values(), strict=True)}
