"""What is asked of one model, and how it goes together with what its file says: the file is believed.

What the file does not say comes from the caller; what neither says is an assumption, or an error that names the remedy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.engine.model_files import Description
from lib.errors import Problem, UserError

BEST = Path("weights") / "best_model.pth"  # in a run folder

Colours = tuple[float, float, float]


@dataclass(frozen=True)
class ModelSpec:
    """What the command line says of one model.

    path: a file, or a run folder, whose best model is meant; name: as reports call it, by default the run folder's
    name, else the file's without its ending. The rest is for a file that does not say it itself: architecture,
    image_size [pixels], classes in the order of the file's logits, and mean and std of each colour for RGB in 0..1.
    """

    path: Path
    name: str | None = None
    architecture: str | None = None
    image_size: int | None = None
    classes: tuple[str, ...] | None = None
    mean: Colours | None = None
    std: Colours | None = None


def find_file(path: Path) -> Path:
    """The file that is meant: the path itself, or a run folder's best model. Raises UserError where it is absent."""
    found = path / BEST if path.is_dir() else path
    if found.is_file():
        return found
    raise UserError(
        Problem(
            where=str(path),
            what=f"is no run folder: it has no {BEST}" if path.is_dir() else "does not exist",
            expected="a checkpoint, a run folder (output/RUN), weights (.pth, .tar, .safetensors), or an .onnx file",
            remedy="check the path; the checkpoints of a run are in output/RUN/weights/",
        )
    )


def name_model(path: Path) -> str:
    """A run folder's name, also where its best model is named as a file; else the file's without its ending."""
    run = path if path.is_dir() else path.parent.parent
    if (path.is_dir() or (path.parent.name, path.stem) == (BEST.parent.name, BEST.stem)) and run.resolve().name:
        return run.resolve().name
    return path.stem


def settle(what: str, said: Any, asked: Any, path: Path, *, asker: str = "the command") -> Any:
    """What the file says, else what is asked for. Raises UserError where both speak and differ."""
    if said is not None and asked is not None and said != asked:
        raise UserError(
            Problem(
                where=str(path),
                what=f"says its {what} itself, and {asker} says another",
                expected=f"{what} {said}",
                got=f"{what} {asked}",
                remedy=f"leave {what} out for this file",
            )
        )
    return asked if said is None else said


def settle_classes(says: Description, spec: ModelSpec, path: Path, classes: tuple[str, ...]) -> tuple[str, ...]:
    """The order of the file's logits. Raises UserError for other classes than the task's."""
    order: tuple[str, ...] = settle("classes", says.classes, spec.classes, path) or classes
    if sorted(order) != sorted(classes):
        raise UserError(
            Problem(
                where=str(path),
                what="tells other classes apart than the task",
                expected=f"the task's {len(classes)} classes in the file's order: {', '.join(classes)}",
                got=f"{len(order)}: {', '.join(order)}",
                remedy="give a model of these classes",
            )
        )
    return order


def settle_size(said: int | None, spec: ModelSpec, path: Path, default: int | None) -> int:
    """Pixels a side. Raises UserError where neither the file nor the caller says them and there is no default."""
    size: int | None = settle("image_size", said, spec.image_size, path)
    size = default if size is None else size
    if size is None or size < 1:
        raise UserError(
            Problem(
                where=str(path),
                what="does not say the size of the pictures it was trained on",
                expected="pixels a side",
                got=None if size is None else str(size),
                remedy="give its image size: --image-size with the side in pixels",
            )
        )
    return size


def check_scale(spec: ModelSpec) -> None:
    """Raise UserError for a mean or std that cannot scale pictures."""
    for what, values, low in (("mean", spec.mean, -math.inf), ("std", spec.std, 0.0)):
        if values is not None and not (len(values) == 3 and all(math.isfinite(v) and v > low for v in values)):
            raise UserError(
                Problem(
                    where=f"{what} of {spec.path}",
                    what="is no scale of red, green and blue in 0..1",
                    expected="three numbers" + (" above 0" if what == "std" else ""),
                    got=", ".join(str(value) for value in values),
                    remedy="leave it out where the model takes RGB in 0..1",
                )
            )


def refuse_scale(spec: ModelSpec, path: Path) -> None:
    """Raise UserError where a file that says what it takes was given a mean or std."""
    if spec.mean is None and spec.std is None:
        return
    raise UserError(
        Problem(
            where=str(path),
            what="says itself what it takes, RGB in 0..1, and was given a mean or std as well",
            remedy="leave mean and std out for this file",
        )
    )


def tell_assumed(spec: ModelSpec, path: Path, image_size: int, classes: Sequence[str]) -> str:
    """The note that says how a file is judged which does not say it itself."""
    scale = ", as it is" if spec.mean is None and spec.std is None else ""
    scale += "" if spec.mean is None else f", minus {', '.join(map(str, spec.mean))}"
    scale += "" if spec.std is None else f", divided by {', '.join(map(str, spec.std))}"
    return (
        f"{path.name} does not say what it takes and gives; judged as: RGB in 0..1{scale}; {image_size} px; logits in "
        f"the order {', '.join(classes)}"
    )
