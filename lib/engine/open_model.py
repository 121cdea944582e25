"""Any trained model as one thing to evaluate: our checkpoints and exports, published weights, ONNX files.

What a file says of itself is believed and cannot be contradicted; what it does not say comes from the caller, or is an
assumption that the notes tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lib.engine.model_files import (
    TensorFile,
    find_architecture,
    load_classifier,
    read_description,
    read_tensor_file,
)
from lib.engine.model_spec import (
    ModelSpec,
    check_scale,
    find_file,
    name_model,
    refuse_scale,
    settle,
    settle_classes,
    settle_size,
    tell_assumed,
)
from lib.engine.onnx_graph import read_graph
from lib.engine.onnx_model import OnnxClassifier
from lib.errors import Problem, UserError
from lib.files import compute_sha256
from lib.models.classifier import EFFICIENTNET_B4, Classifier
from lib.models.teachers import AdaptedTeacher
from lib.types import Outputs

__all__ = ["ModelSpec", "OpenedClassifier", "OpenedModel", "open_model"]

ONNX = ".onnx"
B4_IMAGE_SIZE = 380  # that the published weights of EfficientNet-B4 were trained at

Kind = Literal["checkpoint", "safetensors", "weights", "onnx"]


@dataclass(frozen=True)
class OpenedModel:
    """A model, ready to judge.

    model: images (B, 3, H, W) float32 RGB in 0..1 -> lib.types.Outputs with logits (B, C) in the task's order of
    classes, in evaluation mode; pictures of another size than image_size are resized to it. about: what the file says
    of itself, {} where it says nothing; notes: what was matched, guessed or assumed; classes: the order of the file's
    own logits.
    """

    name: str
    path: Path
    sha256: str
    kind: Kind
    model: nn.Module
    architecture: str | None
    image_size: int
    about: Mapping[str, Any]
    notes: tuple[str, ...]
    classes: tuple[str, ...] = ()


class OpenedClassifier(AdaptedTeacher):
    """A frozen model that sees pictures at its own size and scale, and answers in the task's order of classes.

    Unlike a teacher it keeps a graph where the images ask for a gradient, as heat maps do.
    """

    def forward(self, images: Tensor) -> Outputs:
        outputs = self.model(self.prepare(images))
        if self.order is None:
            return outputs
        return Outputs(logits=outputs.logits[:, list(self.order)], features=outputs.features)


@dataclass(frozen=True)
class _Found:
    """A classifier before it is adapted to the task."""

    classifier: Classifier
    kind: Kind
    architecture: str | None
    image_size: int
    classes: tuple[str, ...]
    about: Mapping[str, Any]
    notes: list[str] = field(default_factory=list[str])


def open_model(spec: ModelSpec, *, classes: Sequence[str], device: torch.device) -> OpenedModel:
    """Open one model of the task's `classes`, on `device`.

    Raises UserError for a file that is missing, damaged or does not fit; for one that does not say its architecture or
    image size where `spec` does not either; and where `spec` contradicts the file.
    """
    path = find_file(spec.path)
    check_scale(spec)
    find = _open_onnx if path.suffix == ONNX else _open_tensors
    found = find(spec, path, tuple(classes), device)
    order = [found.classes.index(name) for name in classes]
    model = OpenedClassifier(
        found.classifier, input_size=found.image_size, mean=spec.mean, std=spec.std, order=order
    ).to(device)
    return OpenedModel(
        name=spec.name or name_model(spec.path),
        path=path,
        sha256=compute_sha256(path),
        kind=found.kind,
        model=model,
        architecture=found.architecture,
        image_size=found.image_size,
        about=found.about,
        notes=tuple(found.notes),
        classes=found.classes,
    )


def _open_tensors(spec: ModelSpec, path: Path, classes: tuple[str, ...], device: torch.device) -> _Found:
    file = read_tensor_file(path)
    says = read_description(file.about, path)
    notes = list(file.notes)
    architecture = settle("architecture", says.architecture, spec.architecture, path)
    architecture = architecture or _guess_architecture(file, notes)
    order = settle_classes(says, spec, path, classes)
    classifier, line = load_classifier(file, architecture=architecture, dropout=says.dropout, classes=order)
    notes.append(line)
    image_size = settle_size(says.image_size, spec, path, B4_IMAGE_SIZE if architecture == EFFICIENTNET_B4 else None)
    if file.kind == "weights":
        notes.append(tell_assumed(spec, path, image_size, order))
    else:
        refuse_scale(spec, path)
    return _Found(classifier, file.kind, architecture, image_size, order, file.about, notes)


def _open_onnx(spec: ModelSpec, path: Path, classes: tuple[str, ...], device: torch.device) -> _Found:
    graph = read_graph(path, device=device)
    says = read_description(graph.about, path)
    order = settle_classes(says, spec, path, classes)
    said_size = settle("image_size", graph.image_size, says.image_size, path, asker="its metadata")
    image_size = settle_size(said_size, spec, path, None)
    classifier = OnnxClassifier(graph, classes=order)
    classifier.check_outputs(image_size)
    notes = list(graph.notes)
    if says.architecture is None or says.classes is None:
        notes.append(tell_assumed(spec, path, image_size, order))
    else:
        refuse_scale(spec, path)
    architecture = settle("architecture", says.architecture, spec.architecture, path)
    return _Found(classifier, "onnx", architecture, image_size, order, graph.about, notes)


def _guess_architecture(file: TensorFile, notes: list[str]) -> str:
    found = find_architecture(file.tensors)
    if found is None:
        raise UserError(
            Problem(
                where=str(file.path),
                what=f"does not say which architecture its weights are of, and they are not those of {EFFICIENTNET_B4}",
                got=f"tensors such as {', '.join(list(file.tensors)[:3])}",
                remedy=f"give its architecture: --architecture with {EFFICIENTNET_B4} or a timm model name",
            )
        )
    notes.append(f"{file.path.name}: its architecture is {found}, by the names and shapes of its tensors")
    return found
