"""Opens any trained classifier of pictures: checkpoints, exports, published weights, ONNX files.

A file's own description is taken as true, and the caller may not contradict it. What the description lacks comes from
the caller, or is an assumption that the notes name.
"""

from __future__ import annotations

import functools
import importlib
import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from sharpstudent.core.archive import find_file
from sharpstudent.core.errors import UserError
from sharpstudent.core.io import compute_sha256
from sharpstudent.core.types import Outputs
from sharpstudent.evaluation.model_files import Kind, TensorFile, find_architecture, load_classifier, read_tensor_file
from sharpstudent.evaluation.onnx import OnnxClassifier, read_graph
from sharpstudent.evaluation.opened import OpenedModel, name_model
from sharpstudent.evaluation.runtimes import KINDS, MODULES
from sharpstudent.models.teachers import FrozenTeacher
from sharpstudent.models.vision import EFFICIENTNET_B4, Classifier, PicturePreprocess
from sharpstudent.models.weight_files import read_timm_config

MOST_SIDE = 2048  # [px]; larger pictures would take gigabytes for each
MOST_LETTERS = 100  # of a name in a file, and of any value of one in a message
Colours = tuple[float, float, float]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Divisor = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


@dataclass(frozen=True)
class ModelFile:
    """One model as the caller describes it.

    Attributes:
        path: A file, or a run folder, which stands for its best model.
        name: What reports call it; None for the run folder's name, or the file's without its ending.
        architecture: The name of the architecture. This field and the next ones are for files without a description.
        image_size: The side of the pictures that it takes [px].
        classes: The names of the classes, in the order of the file's logits.
        mean: What is subtracted from each colour channel of RGB in 0..1.
        std: What each colour channel is then divided by.
        use_ema: Whether the averaged weights of a file are taken where it has plain ones, too.
    """

    path: Path
    name: str | None = None
    architecture: str | None = None
    image_size: int | None = None
    classes: tuple[str, ...] | None = None
    mean: Colours | None = None
    std: Colours | None = None
    use_ema: bool = False


class PictureOptions(BaseModel):
    """The options that a classifier of pictures was trained with, as its file states them; any other one is refused."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    input_size: int | None = Field(default=None, gt=0, le=MOST_SIDE)
    mean: tuple[Finite, Finite, Finite] | None = None
    std: tuple[Divisor, Divisor, Divisor] | None = None
    unit_norm: bool = False


class Description(BaseModel):
    """The part of a file's own description that a model is built from; None for what the file does not say."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore", frozen=True)

    architecture: str | None = Field(default=None, max_length=MOST_LETTERS)
    classes: tuple[Annotated[str, Field(max_length=MOST_LETTERS)], ...] | None = None
    dropout: float | None = Field(default=None, ge=0.0, lt=1.0, allow_inf_nan=False)
    image_size: int | None = Field(default=None, gt=0, le=MOST_SIDE)
    options: PictureOptions = PictureOptions()


def read_description(about: Mapping[str, Any], path: Path) -> Description:
    """Read what a file says of its model.

    Args:
        about: The description in the file.
        path: The path of the file, for error messages.

    Returns:
        The description, checked.

    Raises:
        UserError: For a value of another type than this program writes.
    """
    try:
        return Description.model_validate(dict(about))
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc']))} = {_shorten(e['input'])}: {e['msg']}" for e in error.errors()[:3]]
        raise UserError.about(
            where=str(path),
            what="describes itself in a form that cannot be used",
            expected="architecture: a name; classes: a list of names; dropout: from 0 to below 1; "
            f"image_size: 1 to {MOST_SIDE} pixels; options: {', '.join(PictureOptions.model_fields)}",
            got="; ".join(wrong),
            remedy="write the file anew from its run, or give bare weights: torch.save(model.state_dict(), FILE)",
        ) from None


def _shorten(value: object) -> str:
    """Write a value of any size and depth in a few letters."""
    text = reprlib.repr(value)
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}..."


def resolve_setting(what: str, stated: Any, given: Any, path: Path, *, giver: str = "the command") -> Any:
    """Choose between the value that a file states and the value that the caller gave.

    Args:
        what: The name of the setting.
        stated: The file's own value; None where it has none.
        given: The caller's value; None where it gave none.
        path: The path of the file, for error messages.
        giver: Who gave that value, for the error message.

    Returns:
        What the file says, else what was given.

    Raises:
        UserError: Where both are there and differ.
    """
    if stated is not None and given is not None and stated != given:
        raise UserError.about(
            where=str(path),
            what=f"states its {what} itself, and {giver} states another one",
            expected=f"{what} {stated}",
            got=f"{what} {given}",
            remedy=f"leave {what} out for this file",
        )
    return given if stated is None else stated


def resolve_classes(described: Description, spec: ModelFile, path: Path, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Find the order of the file's logits.

    Args:
        described: The file's own description.
        spec: The caller's description.
        path: The path of the file, for error messages.
        classes: The task's classes; their order is taken where neither says one.

    Returns:
        The classes in the order of the logits.

    Raises:
        UserError: For other classes than the task's.
    """
    order: tuple[str, ...] = resolve_setting("classes", described.classes, spec.classes, path) or classes
    if sorted(order) != sorted(classes):
        raise UserError.about(
            where=str(path),
            what="has other classes than the task",
            expected=f"the task's {len(classes)} classes in the file's order: {', '.join(classes)}",
            got=f"{len(order)}: {', '.join(order)[: 5 * MOST_LETTERS]}",
            remedy="give a model of these classes",
        )
    return order


def resolve_image_size(stated: int | None, spec: ModelFile, path: Path, default: int | None) -> int:
    """Find the side of a model's pictures.

    Args:
        stated: The side by the file's own description [px].
        spec: The caller's description.
        path: The path of the file, for error messages.
        default: The side where neither says it [pixels]; None for an error.

    Returns:
        Pixels a side.

    Raises:
        UserError: Where neither says it and there is no default.
    """
    size: int | None = resolve_setting("image_size", stated, spec.image_size, path)
    size = default if size is None else size
    if size is not None and size > MOST_SIDE:
        raise UserError.about(
            str(path),
            "takes larger pictures than any network here",
            expected=f"at most {MOST_SIDE} pixels a side",
            got=str(size),
            remedy="give a model of smaller pictures",
        )
    if size is None or size < 1:
        raise UserError.about(
            where=str(path),
            what="does not say the size of the pictures it was trained on",
            expected="pixels a side",
            got=None if size is None else str(size),
            remedy="give its image size: --image-size with the side in pixels",
        )
    return size


def check_scale(spec: ModelFile) -> None:
    """Raise UserError for a mean or std that cannot scale pictures."""
    for what, values, low in (("mean", spec.mean, -math.inf), ("std", spec.std, 0.0)):
        if values is not None and not (len(values) == 3 and all(math.isfinite(v) and v > low for v in values)):
            raise UserError.about(
                where=f"{what} of {spec.path}",
                what="cannot scale red, green and blue in 0..1",
                expected="three numbers" + (" above 0" if what == "std" else ""),
                got=", ".join(str(value) for value in values),
                remedy="leave it out where the model takes RGB in 0..1",
            )


def note_assumptions(
    spec: ModelFile, path: Path, image_size: int, classes: Sequence[str], *, describes_itself: bool
) -> list[str]:
    """Note what is assumed about a file that does not describe itself.

    Args:
        spec: The caller's description.
        path: The path of the file.
        image_size: The side of the pictures [px].
        classes: The names of the classes, in the order of its logits.
        describes_itself: Whether the file states its input, which is then RGB in 0..1.

    Returns:
        A note, where anything is assumed.

    Raises:
        UserError: For a mean or std beside a file that describes itself.
    """
    if describes_itself and spec.mean is None and spec.std is None:
        return []
    if describes_itself:
        raise UserError.about(
            where=str(path),
            what="states its input itself, RGB in 0..1, and a mean or std was given as well",
            remedy="leave mean and std out for this file",
        )
    scale = ", as it is" if spec.mean is None and spec.std is None else ""
    scale += "" if spec.mean is None else f", minus {', '.join(map(str, spec.mean))}"
    scale += "" if spec.std is None else f", divided by {', '.join(map(str, spec.std))}"
    return [
        f"{path.name} does not describe its input and output; evaluated as: RGB in 0..1{scale}; {image_size} px; "
        f"logits in the order {', '.join(classes)}"
    ]


B4_IMAGE_SIZE = 380  # the side at which the published weights of EfficientNet-B4 were trained


class OpenedClassifier(FrozenTeacher):
    """A frozen model that scales pictures as it needs, and gives logits in the task's order of classes.

    Unlike a teacher it keeps a graph where the images require a gradient, as heat maps do.
    """

    def forward(self, image: Tensor) -> Outputs:
        """Compute the outputs of images.

        Where there are several views of each, its logits are the mean of theirs. So its log-odds are the mean, too,
        which a temperature divides to the same whether it is applied before or after; of probabilities it would not.

        Args:
            image: (B, 3, H, W), or V views of each (B, V, 3, H, W), float32 RGB in 0..1.

        Returns:
            The outputs, logits (B, classes).
        """
        views = image.shape[1] if image.ndim == 5 else None
        outputs = self.model(image if views is None else image.flatten(0, 1))
        if self.order is None and views is None:
            return outputs
        logits = outputs["logits"] if self.order is None else outputs["logits"][:, list(self.order)]
        return {**outputs, "logits": logits if views is None else logits.unflatten(0, (-1, views)).mean(1)}


@dataclass(frozen=True)
class _Found:
    """A classifier from a file, before it is adapted to the task."""

    classifier: Classifier
    kind: Kind
    architecture: str | None
    image_size: int
    classes: tuple[str, ...]
    about: Mapping[str, Any]
    spec: ModelFile
    sha256: str
    notes: list[str] = field(default_factory=list[str])
    options: PictureOptions = field(default_factory=PictureOptions)


def open_model(
    spec: ModelFile, *, classes: Sequence[str], device: torch.device, unstated: str | None = None
) -> OpenedModel:
    """Open one model.

    Args:
        spec: The file, with the caller's description of it.
        classes: The task's classes, in the order that the logits shall have.
        device: The device that the model goes to.
        unstated: The remedy for a model of which neither the file nor the caller states the order of the classes, which
            is then refused; None to take it for the task's order.

    Returns:
        The model, in evaluation mode.

    Raises:
        UserError: For a file that is missing, damaged or does not fit; for one that does not say its architecture or
            image size where `spec` does not either; and where `spec` contradicts the file.
    """
    path = find_file(spec.path)
    check_scale(spec)
    find = _open_graph if path.suffix in KINDS else _open_tensors
    found = find(spec, path, tuple(classes), device)
    if unstated is not None and found.spec.classes is None and read_description(found.about, path).classes is None:
        raise UserError.about(
            where=str(path),
            what="does not say which of its outputs means what, and a wrong guess would turn every answer round",
            expected=f"the order of {', '.join(classes)}",
            remedy=unstated,
        )
    order = [found.classes.index(name) for name in classes]
    form = found.options
    found.classifier.preprocess = PicturePreprocess(
        input_size=form.input_size or found.image_size,
        mean=form.mean or found.spec.mean,
        std=form.std or found.spec.std,
    )
    model = OpenedClassifier(found.classifier, order=order).to(device)
    return OpenedModel(
        name=spec.name or name_model(spec.path),
        path=path,
        sha256=found.sha256,
        kind=found.kind,
        model=model,
        architecture=found.architecture,
        about=found.about,
        notes=tuple(found.notes),
        example=functools.partial(make_pictures, found.image_size),
        classes=found.classes,
        input_key=found.image_size,
        input_words=f" at {found.image_size} px",
        reopen={
            "architecture": found.architecture,
            "image_size": found.image_size,
            "classes": found.classes,
            "use_ema": bool(spec.use_ema),
        },
    )


def make_pictures(side: int, count: int, device: torch.device) -> dict[str, Tensor]:
    """Make random pictures, always the same ones.

    They have a generator of their own, because measuring must not change the random numbers of a run.

    Args:
        side: The side of the pictures [px].
        count: How many pictures are made.
        device: The device that they go to.

    Returns:
        The input `image` (count, 3, side, side) float32, 0 to 1.
    """
    return {"image": torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)}


def prepare_reopening(path: Path, reopen: Mapping[str, Any]) -> Callable[[], tuple[nn.Module, dict[str, Tensor]]]:
    """Import what a classifier of pictures needs, so that memory can be measured without its libraries.

    Args:
        path: The path of the file.
        reopen: The settings that the model was opened with, as in `OpenedModel`.

    Returns:
        A function that opens the model, and makes a picture for it.
    """
    classes, side, cpu = tuple(reopen["classes"]), reopen["image_size"], torch.device("cpu")
    library = "timm" if reopen["architecture"] != EFFICIENTNET_B4 else "efficientnet_pytorch"
    importlib.import_module(MODULES[KINDS[path.suffix]] if path.suffix in KINDS else library)
    picture = make_pictures(side, reopen.get("views", 1), cpu)

    def build() -> tuple[nn.Module, dict[str, Tensor]]:
        if path.suffix in KINDS:  # not by open_model, which runs four pictures at once and thus needs more memory
            return OnnxClassifier(read_graph(path, device=cpu), classes=classes), picture
        use_ema = reopen.get("use_ema", False)
        file = ModelFile(path, architecture=reopen["architecture"], image_size=side, classes=classes, use_ema=use_ema)
        return open_model(file, classes=classes, device=cpu).model, picture

    return build


def _open_tensors(spec: ModelFile, path: Path, classes: tuple[str, ...], device: torch.device) -> _Found:
    file = read_tensor_file(path, use_ema=bool(spec.use_ema))
    described = read_description(file.about, path)
    notes = list(file.notes)
    if file.kind == "weights":
        spec = _complete(spec, path, classes, notes)
    architecture = resolve_setting("architecture", described.architecture, spec.architecture, path)
    architecture = architecture or _guess_architecture(file, notes)
    order = resolve_classes(described, spec, path, classes)
    image_size = resolve_image_size(
        described.image_size, spec, path, B4_IMAGE_SIZE if architecture == EFFICIENTNET_B4 else None
    )
    classifier, line = load_classifier(
        file,
        architecture=architecture,
        dropout=described.dropout,
        classes=order,
        side=image_size,
        options=described.options.model_dump(exclude_defaults=True),
    )
    notes.append(line)
    notes += note_assumptions(spec, path, image_size, order, describes_itself=file.kind != "weights")
    return _Found(
        classifier, file.kind, architecture, image_size, order, file.about, spec, compute_sha256(path), notes,
        described.options,
    )  # fmt: skip


def _complete(spec: ModelFile, path: Path, classes: tuple[str, ...], notes: list[str]) -> ModelFile:
    """Take what the caller does not say from the config.json of a Hugging Face folder, where there is one."""
    stated = read_timm_config(path)
    stated |= {"image_size": stated.pop("input_size")} if stated else {}
    names = tuple(name.lower() for name in stated.pop("classes", ()))
    if spec.classes is None and names and sorted(names) != sorted(classes):
        raise UserError.about(
            where=f"{path.parent}/config.json",
            what="calls the classes by other names than the task",
            expected=", ".join(classes),
            got=", ".join(names),
            remedy=f"say which is which, in this order: --classes {','.join(classes)}, or --classes "
            f"{','.join(reversed(classes))}",
        )
    stated |= {"classes": names} if names else {}
    taken = {name: value for name, value in stated.items() if getattr(spec, name) is None}
    if taken:
        shown = ", ".join(f"{name} {_show(value)}" for name, value in taken.items())
        notes.append(f"{path.name}: {shown}, by the config.json beside it")
    return replace(spec, **taken)


def _show(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _open_graph(spec: ModelFile, path: Path, classes: tuple[str, ...], device: torch.device) -> _Found:
    graph = read_graph(path, device=device)
    described = read_description(graph.about, path)
    order = resolve_classes(described, spec, path, classes)
    stated_size = resolve_setting("image_size", graph.side, described.image_size, path, giver="its metadata")
    image_size = resolve_image_size(stated_size, spec, path, None)
    classifier = OnnxClassifier(graph, classes=order)
    classifier.check_outputs(image_size)
    is_complete = described.architecture is not None and described.classes is not None
    notes = [*graph.file.notes, *note_assumptions(spec, path, image_size, order, describes_itself=is_complete)]
    architecture = resolve_setting("architecture", described.architecture, spec.architecture, path)
    file = graph.file
    return _Found(classifier, file.kind, architecture, image_size, order, graph.about, spec, file.sha256, notes)


def _guess_architecture(file: TensorFile, notes: list[str]) -> str:
    found = find_architecture(file.tensors)
    if found is None:
        raise UserError.about(
            where=str(file.path),
            what=f"does not name the architecture of its weights, and they are not those of {EFFICIENTNET_B4}",
            got=f"tensors such as {', '.join(list(file.tensors)[:3])}",
            remedy=f"give its architecture: --architecture with {EFFICIENTNET_B4} or a timm model name",
        )
    notes.append(f"{file.path.name}: its architecture is {found}, by the names and shapes of its tensors")
    return found
