"""Loads weights strictly: unless every tensor of the backbone matches, an error shows keys of the file and the model.

Prefixes are removed on both sides before the names are compared: the known ones (weight_files.py), and any other one
under which the file has most of the model. The head may have another library's name, such as `last_layer` for
efficientnet-pytorch's `_fc`. If file and model each have one unmatched head, of equal shape, the two are matched.

A head of one output z, trained with binary cross-entropy, becomes the head of two outputs (0, z) for a task of two
classes: softmax(0, z) = (1 - sigmoid(z), sigmoid(z)), so every loss and metric reads it as it was trained.
"""

from __future__ import annotations

import glob
import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sharpstudent.config.run_config import SCRIPTS, advise_stage_1, advise_teacher
from sharpstudent.core.arguments import advise_make
from sharpstudent.core.errors import UserError
from sharpstudent.core.shipped import find_shipped, hint_shipped
from sharpstudent.models.weight_files import EXAMPLES, RENAMED, normalise, read_tensors

# Of this project, of timm, of efficientnet-pytorch, of torchvision.
HEAD_NAMES = ("head.", "head_dist.", "heads.", "aux_head.", "fc.", "_fc.", "classifier.", "classif.", "last_linear.")
COUNTER = "num_batches_tracked"  # of BatchNorm; files of torch before 0.4.1 lack it, and evaluation never reads it
# Tensors of the training beside those of a model: of the loss, of metrics, of the programs that keep an average.
_OF_TRAINING = re.compile(
    r"(?i)(.*criterion|.*loss(es)?(_fn|_func)?|.*metrics?|(train|val|valid|test)_.+|n_averaged|initted|step|decay"
    r"|num_updates)(\..+)?"
)


@dataclass(frozen=True)
class Match:
    """How the tensors of a file fit a model.

    Attributes:
        matched: The file's key for each key of the model.
        missing: Keys of the model that the file lacks or has in another shape.
        unexpected: Keys of the file that the model lacks.
        wrong_shape: A text for each tensor that has another shape in the file.
        tensors: The tensors of the file, changed to fit the model, without those of the training.
        notes: Sentences for the user about these changes.
    """

    matched: Mapping[str, str]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shape: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    notes: tuple[str, ...]

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
    name = normalise(key)
    return name in RENAMED.values() or ("backbone." not in key and name.startswith(HEAD_NAMES))


def match_tensors(model: nn.Module, tensors: Mapping[str, Tensor], classes: Sequence[str] = ()) -> Match:
    """Compare names and shapes; nothing is loaded.

    Args:
        model: The model.
        tensors: The tensors of a file, by name.
        classes: The classes in the order of the file's logits; () where the model is no classifier.
    """
    wanted = model.state_dict()
    tensors, notes = _fit_tensors(model, wanted, tensors, classes)
    offered = {normalise(key): key for key in tensors}
    if len(offered) != len(tensors):  # two names differ in their prefix only: compare the full names
        offered = {key: key for key in tensors}
    by_name = {key: offered[normalise(key)] for key in wanted if normalise(key) in offered}
    by_name |= _pair_heads(wanted, tensors, by_name)
    matched = {key: source for key, source in by_name.items() if _describe(wanted[key]) == _describe(tensors[source])}
    wrong_shape = tuple(
        f"{key}: wanted {_describe(wanted[key])}, file has {_describe(tensors[source])}"
        for key, source in by_name.items()
        if key not in matched
    )
    used = set(by_name.values())
    return Match(
        matched=matched,
        missing=tuple(key for key in wanted if key not in matched and not _may_lack(key, wanted)),
        unexpected=tuple(key for key in tensors if key not in used),
        wrong_shape=wrong_shape,
        tensors=tensors,
        notes=notes,
    )


def _fit_tensors(
    model: nn.Module, wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], classes: Sequence[str]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Remove what surrounds the model in a file, and give a head of one output its second one."""
    names, notes = {normalise(key) for key in wanted}, list[str]()
    prefix = _find_prefix(names, tensors)
    fitted = {_remove_prefix(key, prefix): tensor for key, tensor in tensors.items()} if prefix else dict(tensors)
    if len(fitted) != len(tensors):
        fitted, prefix = dict(tensors), ""
    if prefix:
        notes.append(f"the names of its tensors begin with `{prefix}`")
    others = [key for key in fitted if normalise(key) not in names and _OF_TRAINING.fullmatch(normalise(key))]
    if others:
        notes.append(f"{len(others)} tensors of the training are left out: {_examples(others)}")
    fitted = {key: tensor for key, tensor in fitted.items() if key not in others}
    body = {normalise(key) for key in wanted if not is_head(key)}
    by_name = {normalise(key): tensor for key, tensor in fitted.items()}
    if hasattr(model, "adapt_tensors") and len(by_name) == len(fitted):
        foreign = {key: tensor for key, tensor in by_name.items() if is_head(key) and key not in names}
        rows = 0 if len(foreign) <= 2 else count_head_classes(foreign) or 0
        adapted, more = model.adapt_tensors(by_name, rows)  # pyright: ignore[reportCallIssue]
        fitted, notes = adapted if more else fitted, [*notes, *more]
    heads = [key for key in fitted if is_head(key) and normalise(key) not in body]
    fitted |= {
        key: fitted[key].flatten(1) for key in heads if fitted[key].shape[2:] == (1, 1)
    }  # a convolution of 1 x 1
    outputs = [int(tensor.shape[0]) for key, tensor in wanted.items() if is_head(key) and key.endswith("weight")]
    if outputs[-1:] == [2] == [len(classes)] and heads and all(fitted[key].shape[:1] == (1,) for key in heads):
        for key in heads:
            fitted[key] = torch.cat([torch.zeros_like(fitted[key]), fitted[key]])
        notes.append(f"its one output is read as the log-odds of {classes[1]}, logits (0, z)")
    return fitted, tuple(notes)


def _find_prefix(names: Collection[str], tensors: Collection[str]) -> str:
    """Find the prefix, besides the known ones, under which a file has more than half of a model; "" for none."""
    counts: Counter[str] = Counter()
    for key in map(normalise, tensors):
        places = [0, *(found.end() for found in re.finditer(r"\.", key))]
        counts.update(key[:place] for place in places if normalise(key[place:]) in names)
    found, count = max(counts.items(), key=lambda item: (item[1], -len(item[0])), default=("", 0))
    return found if 2 * count > len(names) else ""


def _remove_prefix(key: str, prefix: str) -> str:
    """Remove a prefix, or for a head that lies beside the backbone as much of it as the name has."""
    name = normalise(key)
    while prefix and not name.startswith(prefix):
        prefix = prefix.rstrip(".").rpartition(".")[0]
        prefix += "." if prefix else ""
    return name.removeprefix(prefix)


def _may_lack(key: str, wanted: Mapping[str, Tensor]) -> bool:
    return key.endswith(f".{COUNTER}") and wanted[key].ndim == 0


def _describe(tensor: Tensor) -> str:
    """Describe what must be equal in a file and a model: integers for weights would be those of a quantised model."""
    return f"{tuple(tensor.shape)}{'' if tensor.is_floating_point() else ' of integers'}"


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
    sizes = [
        int(t.shape[0]) for key, t in tensors.items() if is_head(key) and key.endswith("weight") and t.ndim in (2, 4)
    ]
    return sizes[-1] if sizes else None


def load_weights(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    where: str,
    needs_head: bool,
    allow_partial: bool = False,
    classes: Sequence[str] = (),
) -> str:
    """Copy tensors into a model after a strict comparison.

    Args:
        model: The model that gets the weights.
        tensors: The tensors by name.
        where: The file, for messages.
        needs_head: Whether the classification head must be in the file (a trained classifier); else it is taken only
            where it fits (ImageNet weights).
        allow_partial: Whether a part of the tensors may match.
        classes: The classes in the order of the file's logits; () where the model is no classifier.

    Returns:
        The line of `Match.describe`, and what was changed in the tensors.

    Raises:
        UserError: When the tensors do not match as required; the model is then unchanged.
    """
    match = match_tensors(model, tensors, classes)
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
            remedy=_advise(model, match),
        )
    state = model.state_dict()
    # Weight and bias of the head are taken together or not at all.
    head_fits = not any(is_head(key) for key in match.missing)
    for key, source in match.matched.items():
        if head_fits or not is_head(key):
            state[key] = match.tensors[source]
    model.load_state_dict(state, strict=True)
    head = () if head_fits else ("the head starts from random weights",)
    return "; ".join((f"{where}: {match.describe()}", *match.notes, *head))


_REMEDY = (
    "give weights of this very architecture, or name the file's architecture in the config; --allow partial-weights "
    "takes what matches"
)
_SIZE_REMEDY = (
    "the model is built for pictures of {} px, and weights of this family cannot be resampled from another size: give "
    "the model pictures of the size that they were trained on, a teacher by input_size in `teachers`"
)
_HEAD_REMEDY = (
    "its backbone fits, and its head is no linear layer of these outputs on pooled features: give other weights; for a "
    'teacher "head": "fitted" in `teachers` fits one to the training set'
)


_ADAPTED_REMEDY = (
    "its low-rank adapters (lora) are not merged, as in the state that a run resumes from: give best_model.pth of that "
    "run, whose weights are merged"
)


def _advise(model: nn.Module, match: Match) -> str:
    """Write the remedy for weights that do not fit a model."""
    if any(".parametrizations.weight.0.down" in key for key in match.unexpected):
        return _ADAPTED_REMEDY
    if not match.missing_in_backbone() and not match.unexpected_in_backbone():
        return _HEAD_REMEDY
    size: Any = getattr(model, "sizes", None)
    is_size_alone = not match.unexpected_in_backbone() and len(match.missing_in_backbone()) <= len(match.wrong_shape)
    return _SIZE_REMEDY.format(size["img_size"]) if size and is_size_alone else _REMEDY


def find_fitting_weights(
    pattern: str, model: nn.Module, *, key: str, classes: Sequence[str] = ()
) -> tuple[Path, list[str]]:
    """Find the file that a path or pattern names; of several, the newest one whose tensors all fit the model.

    Metrics play no part, because runs on different data cannot be compared by them.

    Args:
        pattern: A path, a pattern as of `glob`, or the name of a model that comes with the package.
        model: The model that the file must fit.
        key: The config's key, for messages.
        classes: The classes in the order of the file's logits.

    Returns:
        The path, and notes on the choice.

    Raises:
        UserError: Where no file fits; the message lists what is there.
    """
    shipped = find_shipped(pattern)
    if shipped is not None or not glob.has_magic(pattern) or Path(pattern).is_file():
        return shipped or Path(pattern), []
    # File time, then name: run folders end in their date, which breaks ties within a second.
    candidates = [Path(found) for found in glob.glob(pattern, recursive=True)]
    candidates = sorted(candidates, key=lambda path: (path.stat().st_mtime_ns, str(path)), reverse=True)
    refused: list[str] = []
    damaged: list[str] = []
    for path in candidates:
        try:
            match = match_tensors(model, read_tensors(path), classes)
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
    if key == "start":
        return f"name a run, a checkpoint or a glob of them; {hint_shipped(pattern)}"
    if "teacher" not in key:
        return f"run stage 1 first: {advise_stage_1(pattern)}; or name the file"
    if command := advise_teacher(pattern):
        return f"train it first: {command}; or name the file"
    trained = f"or train a teacher with {SCRIPTS[1]}"
    if Path(pattern).parts[:1] != ("weights",):
        return f"put the teacher's checkpoint there, {trained}"
    return (
        f"put the teacher's checkpoint there (weights/README.md says which are published), {trained}; "
        f"`{advise_make('demo')}` runs without it"
    )


def _list_nearby(pattern: str) -> str:
    """List the contents of the deepest existing folder of the pattern."""
    fixed = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts))
    while not fixed.is_dir() and fixed != fixed.parent:
        fixed = fixed.parent
    names = sorted(path.name for path in fixed.iterdir() if not path.name.startswith("."))[:10]
    return f"{fixed}/: {', '.join(names) or '(empty)'}"


def _examples(keys: Sequence[str]) -> str:
    return ", ".join(keys[:EXAMPLES]) + (", ..." if len(keys) > EXAMPLES else "")


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
