"""The key `augmentation` of the deepfake task: a preset, or a list of operations with their parameters.

Every operation is declared here once; modalities/faces/operations.py carries it out under the same name. This module
loads no OpenCV: the command line is checked before anything heavy is imported.
"""

# Without `from __future__ import annotations`: pydantic would compile the text of every annotation at each start.
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter, create_model
from pydantic_core import PydanticCustomError

from sharpstudent.config.run_config import Frozen, Share, build_union, either
from sharpstudent.core.errors import UserError

if TYPE_CHECKING:
    from sharpstudent.modalities.faces.operations import Step

Preset = Literal["sbi", "video"]


class Operation(Frozen):
    """Base of the operations.

    Attributes:
        op: Its name.
        p: The probability that a pair gets it.
    """

    op: str
    p: Share


def _check_order(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] <= ends[1]:
        return ends
    words = {
        "what": "begins above its end",
        "expected": "[lowest, highest]",
        "remedy": f"write [{ends[1]:g}, {ends[0]:g}]",
    }
    raise PydanticCustomError("own_words", "{what}", words)


def _number(low: float, high: float) -> Any:
    return Annotated[float, Field(ge=low, le=high)]


def _range(low: float, high: float) -> Any:
    number = _number(low, high)
    return Annotated[tuple[number, number], AfterValidator(_check_order)]


def _whole(low: int, high: int) -> Any:
    number = Annotated[int, Field(ge=low, le=high)]
    return Annotated[tuple[number, number], AfterValidator(_check_order)]


def _declare(op: str, meaning: str, p: float, **parameters: tuple[Any, Any, str]) -> type[Operation]:
    """Declare an operation.

    Args:
        op: Its name.
        meaning: What it does, for messages and docs/config.md.
        p: The default of its probability.
        **parameters: Type, default and meaning of each.

    Returns:
        The model of its keys.
    """
    fields: dict[str, Any] = {
        "op": (Literal[op], Field(op, description=meaning)),
        "p": (Share, Field(p, description="probability that a pair gets it")),
        **{name: (kind, Field(default, description=told)) for name, (kind, default, told) in parameters.items()},
    }
    name = f"{op.title().replace('_', '')}Operation"
    return create_model(name, __base__=Operation, __module__=__name__, __doc__=f"{meaning}.", **fields)


OPERATIONS: Mapping[str, type[Operation]] = {
    model.model_fields["op"].default: model
    for model in (
        _declare("flip", "mirrors left and right", 0.5),
        _declare(
            "crop_jitter",
            "draws how far the final crop goes beyond the detector's box; without it, 12.5 % on each side",
            1.0,
            margin=(_range(-0.2, 0.5), (0.05, 0.2), "of each edge, drawn apart, shares of the box's sides"),
        ),
        _declare(
            "rgb_shift",
            "adds a number to each of R, G and B",
            0.3,
            levels=(_number(0, 255), 20.0, "each is drawn from -levels to levels [of 255]"),
        ),
        _declare(
            "hue_saturation",
            "turns colours about the grey axis, and scales their distance from it",
            0.3,
            hue=(_number(0, 180), 5.0, "the angle is drawn from -hue to hue [degrees]"),
            saturation=(_range(0, 4), (0.7, 1.3), "factor"),
        ),
        _declare(
            "brightness_contrast",
            "multiplies levels, and adds to them",
            0.3,
            brightness=(_number(0, 1), 0.2, "drawn from -brightness to brightness and added [of the whole range]"),
            contrast=(_number(0, 1), 0.2, "the factor is drawn from 1 - contrast to 1 + contrast"),
        ),
        _declare(
            "gamma",
            "raises levels to a power",
            0.3,
            exponent=(_range(0.1, 10), (0.7, 1.4), "the power, its logarithm uniform"),
        ),
        _declare("grey", "takes the colour away", 0.1),
        _declare(
            "blur",
            "blurs with a Gaussian",
            0.2,
            sigma=(_range(0, 0.1), (0.002, 0.012), "its deviation, shares of the face's side"),
        ),
        _declare(
            "motion_blur",
            "blurs along a line of any direction",
            0.15,
            length=(_range(0, 0.3), (0.01, 0.05), "of the line, shares of the face's side"),
        ),
        _declare(
            "noise",
            "adds a sensor's noise, half of whose variance at mid grey grows with the light",
            0.3,
            sigma=(_range(0, 100), (2.0, 10.0), "its deviation at mid grey [levels of 255]"),
        ),
        _declare(
            "downscale",
            "scales down, by area means, a face that is larger than a drawn side",
            0.7,
            side=(_range(16, 2048), (80.0, 256.0), "of the face's box [px], its logarithm uniform"),
            back=(bool, False, "scale back at once; else the operations that follow act on the small picture"),
        ),
        _declare(
            "jpeg",
            "compresses with JPEG",
            0.5,
            quality=(_whole(1, 100), (40, 100), "on libjpeg's scale"),
        ),
        _declare(
            "h264",
            "compresses with H.264, as an intra frame of a video; needs the extra `video`",
            0.5,
            crf=(_whole(0, 51), (18, 35), "the constant rate factor: FaceForensics++ c23 has 23, c40 has 40"),
        ),
        _declare(
            "social_media",
            "sends the picture through a sharing platform: half size, JPEG 60, sharpened, JPEG 70",
            0.1,
            passes=(_whole(1, 3), (1, 2), "how often in a row"),
        ),
        _declare(
            "occlusion",
            "covers a part of the face with an ellipse or a rectangle of one colour",
            0.1,
            area=(_range(0, 0.5), (0.02, 0.15), "of the cover, shares of the face's box"),
        ),
    )
}

Operations = tuple[build_union("op", OPERATIONS), ...]  # pyright: ignore[reportInvalidTypeForm]
if TYPE_CHECKING:
    Augmentation = str | tuple[Operation, ...]
    Degradation = Augmentation
else:
    Augmentation = either(Preset, Operations, (list, tuple))
    Degradation = either(Literal["video"], Operations, (list, tuple))  # what validation may have

# For photos that must serve videos. The order is that of a camera and a platform: the scene, the lens, the sensor, the
# processing, the size of a face in a frame, compression.
VIDEO: tuple[Mapping[str, Any], ...] = (
    {"op": "flip"},
    {"op": "crop_jitter", "margin": [0.0, 0.25]},
    {"op": "occlusion"},
    {"op": "blur"},
    {"op": "motion_blur"},
    {"op": "noise"},
    {"op": "rgb_shift", "levels": 15},
    {"op": "hue_saturation"},
    {"op": "brightness_contrast"},
    {"op": "gamma"},
    {"op": "grey"},
    {"op": "downscale"},
    {"op": "h264", "p": 0.6, "crf": [18, 38]},
    {"op": "jpeg", "p": 0.3},
    {"op": "social_media"},
)


@cache
def _find_adapter() -> TypeAdapter[tuple[Operation, ...]]:
    return TypeAdapter(Operations)


def list_operations(augmentation: str | Sequence[Operation]) -> tuple[Operation, ...] | None:
    """List the operations of an augmentation; None for `sbi`, which is not a list of these."""
    if augmentation == "sbi":
        return None
    if augmentation == "video":
        import json

        return _find_adapter().validate_json(json.dumps(VIDEO))
    return tuple(one for one in augmentation if isinstance(one, Operation))


def build_steps(augmentation: str | Sequence[Operation], key: str = "augmentation") -> "tuple[Step, ...] | None":
    """Build what `make_pair` and `make_single` take as `steps`.

    Args:
        augmentation: The value of the key.
        key: The key, for messages.

    Returns:
        The operations in order; None for `sbi`.

    Raises:
        UserError: Where an operation needs a package that is not installed.
    """
    operations = list_operations(augmentation)
    if operations is None:
        return None
    from sharpstudent.modalities.faces.corruptions import explain_no_h264
    from sharpstudent.modalities.faces.operations import Step

    obstacle = explain_no_h264() if any(one.op == "h264" and one.p > 0 for one in operations) else None
    if obstacle is not None:
        what, _, remedy = obstacle.partition(": ")
        raise UserError.about(key, f"has the operation h264: {what}", remedy=remedy)
    return tuple(Step(one.op, one.p, one.model_dump(exclude={"op", "p"})) for one in operations)
