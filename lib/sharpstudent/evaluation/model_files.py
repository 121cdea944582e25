"""Reads trained models from files of tensors: our own, which describe themselves, and bare weights of other programs.

Everything is loaded strictly (models/weights.py): the whole backbone and a head of the task's classes, or an error
that shows the names of both sides. The last functions read facts about the training from a checkpoint's description.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from sharpstudent.checkpoint.store import load_checkpoint
from sharpstudent.core.archive import is_safetensors
from sharpstudent.core.errors import UserError
from sharpstudent.core.files import parse_json
from sharpstudent.models.vision import EFFICIENTNET_B4, Classifier, build_classifier
from sharpstudent.models.weight_files import check_finite, read_metadata, read_tensors, unwrap_tensors
from sharpstudent.models.weights import count_head_classes, load_weights, match_tensors

Kind = Literal["checkpoint", "safetensors", "weights", "onnx", "openvino", "executorch"]

# The keys of a checkpoint's description whose values are texts: in metadata they have no quotes.
_TEXTS = ("architecture", "input", "task", "run", "metric", "source", "source_sha256", "format", "licence")
_STEM = "_conv_stem.weight"  # efficientnet-pytorch's first tensor, under any prefix


@dataclass(frozen=True)
class TensorFile:
    """The content of a file of tensors.

    Attributes:
        path: The path of the file.
        kind: `weights` where the file does not name its architecture.
        tensors: The weights, out of their wrapper.
        about: The description in the file; {} where it has none.
        notes: Remarks for the user on what was read.
    """

    path: Path
    kind: Kind
    tensors: Mapping[str, Tensor]
    about: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def read_tensor_file(path: Path, *, use_ema: bool = False) -> TensorFile:
    """Read a checkpoint of this program, or weights of any other, onto the CPU; never runs code from it.

    Args:
        path: The path of the file.
        use_ema: Whether averaged weights are wanted where the file has both.

    Returns:
        Its weights and description.

    Raises:
        UserError: For a missing, damaged or foreign file, and for weights that are NaN or infinite.
    """
    about: dict[str, Any] = {}
    kind: Kind = "safetensors" if is_safetensors(path) else "checkpoint"
    if kind == "safetensors" or path.suffix == ".json":  # an index of several files
        notes: list[str] = []
        tensors = read_tensors(path, notes.append, use_ema=use_ema)
        about = parse_metadata(read_metadata(path)) if kind == "safetensors" else {}
    else:
        checkpoint = load_checkpoint(path)
        tensors, notes = unwrap_tensors(checkpoint.tensors, where=str(path), use_ema=use_ema)
        notes = [*checkpoint.notes, *notes]
        about = checkpoint.about
        check_finite(tensors, path)
    return TensorFile(path, kind if "architecture" in about else "weights", tensors, about, tuple(notes))


def parse_metadata(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Parse a description that was stored as strings: texts as they are or in quotes, everything else as JSON."""
    return {key: _parse(key, text) for key, text in metadata.items()}


def find_architecture(tensors: Mapping[str, Tensor]) -> str | None:
    """Recognise EfficientNet-B4 of efficientnet-pytorch by its tensors; None for any other architecture."""
    if not any(key.endswith(_STEM) for key in tensors):
        return None
    match = match_tensors(_build(EFFICIENTNET_B4, classes=2, dropout=None), tensors)
    return EFFICIENTNET_B4 if not match.missing_in_backbone() and not match.unexpected_in_backbone() else None


def load_classifier(
    file: TensorFile,
    *,
    architecture: str,
    dropout: float | None,
    classes: Sequence[str],
    side: int,
    options: Mapping[str, Any] | None = None,
) -> tuple[Classifier, str]:
    """Build a classifier with the weights of a file.

    Args:
        file: The weights.
        architecture: The name of the architecture.
        dropout: The dropout of the head; None for the architecture's default.
        classes: The task's classes in the order of the file's logits.
        side: The side of the pictures [px].
        options: The options that it was trained with, as `build_classifier` takes them.

    Returns:
        The classifier in evaluation mode, and a line that counts its tensors.

    Raises:
        UserError: For an unknown architecture, weights of another one, and a head that is missing or has another
            number of classes.
    """
    model = _build(architecture, classes=len(classes), dropout=dropout, side=side, options=options)
    match = match_tensors(model, file.tensors, classes)
    if not match.missing_in_backbone() and not match.unexpected_in_backbone():
        _check_head(file.path, count_head_classes(match.tensors), classes)
    try:
        line = load_weights(model, file.tensors, where=file.path.name, needs_head=True, classes=classes)
    except UserError as error:  # its remedy, --allow partial-weights, is for training only
        remedy = f"give weights of {architecture}, or the architecture that these are of"
        if not match.missing_in_backbone() and not match.unexpected_in_backbone():
            remedy = "its backbone fits; give weights whose head is one linear layer on pooled features"
        raise UserError(*(replace(p, where=str(file.path), remedy=remedy) for p in error.problems)) from None
    counts, *changes = line.split("; ")
    return model.eval(), "; ".join((f"{counts} of {architecture}", *changes))


def _build(architecture: str, **settings: Any) -> Classifier:
    with torch.random.fork_rng(devices=[]):  # opening a model within a run must not change the run's random numbers
        return build_classifier(architecture, **settings)


def _parse(key: str, text: str) -> Any:
    try:
        value = parse_json(text)
    except ValueError:
        return text
    return text if key in _TEXTS and not isinstance(value, str) else value


def _check_head(path: Path, found: int | None, classes: Sequence[str]) -> None:
    if found == len(classes):
        return
    what = "holds no classification head, and a random one would give random results"
    if found is not None:
        outputs = f"{found} output{'' if found == 1 else 's'}"
        what = f"does not fit the task: its head has {outputs}, and the task has {len(classes)} classes"
    raise UserError.about(
        where=str(path),
        what=what,
        expected=f"one logit for each of {', '.join(classes)}",
        remedy="give a model that was trained on this task; ImageNet weights are none",
    )


TRAINED = ("stage", "run", "seed", "epoch", "task", "input", "selection_metric")


def read_trained(about: Mapping[str, Any]) -> dict[str, Any]:
    """Read how a model was trained, from its description."""
    return {name: about[name] for name in TRAINED if name in about}


def read_validation(about: Mapping[str, Any]) -> dict[str, float]:
    """Read a model's metrics on the validation data of its run; those of averaged weights end in `_ema`."""
    return {name: float(value) for name, value in about.items() if name.startswith("val_") and _is_number(value)}


def _is_number(value: object) -> bool:
    """Return whether a value of a file is a finite number, and one that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) < 2**1000


def read_selection_metric(about: Mapping[str, Any], *, default: str) -> str:
    """Read which metric selected the epoch.

    Args:
        about: The description of the checkpoint.
        default: The name for checkpoints of earlier versions, which had one metric only and do not store it.

    Returns:
        Its name, such as `val_accuracy`.
    """
    return str(about.get("selection_metric", default))


def read_selection(about: Mapping[str, Any], *, default: str) -> dict[str, object]:
    """Read what an export of the best model says of the selection.

    Args:
        about: The description of the checkpoint.
        default: The name for checkpoints of earlier versions, as in `read_selection_metric`.

    Returns:
        Epoch, value and metric; the value is that of the student or of its average, whichever was saved.
    """
    metric = read_selection_metric(about, default=default)
    value = about.get(f"{metric}_ema" if about.get("selected") == "ema" else metric)
    return {"epoch": about.get("epoch"), "value": value, "metric": metric}
