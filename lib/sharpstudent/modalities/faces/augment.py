"""The adapter to albumentations: the augmentation that real and fake share, and the colour shift of self-blending.

albumentations draws from generators of its own. Before every call they are replaced by ones that are derived from the
caller's generator, so that the same generator state gives the same bytes and no global state is touched.
(`set_random_seed` will not do: it gives every transform the same seed, so that all of them would be applied, or none.)

What is drawn does not depend on pixels, and of a self-blend's loose crop (2 x 2.4 faces) the final crop keeps about a
third. So a pipeline only draws, and its transforms are then applied where the result is needed. The bits are those of
the whole picture: a transform of single pixels needs that part of its input only, a filter some pixels around it, JPEG
the squares that the part touches.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Without this variable, importing albumentations asks PyPI whether there is a newer version.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import cv2
import numpy as np
from albucore import sz_lut
from numpy.typing import NDArray

from sharpstudent.modalities.faces.picture_parts import PicturePart, Window, flatten_view, get_whole, take_whole

RGB_SHIFT = (-20, 20)  # of 255
# In OpenCV's units (hue 0-180, saturation and value 0-255), as in the SBI reference: a shift of at most 0.3 units, not
# of 30 %, so that it changes almost nothing.
HSV_SHIFT = (-0.3, 0.3)
JPEG_QUALITY = (40, 100)
SHARPEN_ALPHA, SHARPEN_LIGHTNESS = (0.2, 0.5), (0.5, 1.0)
# Coefficients of JPEG (4:2:0) depend on a square of this side alone, counted from the picture's upper left corner.
# Decoded chroma is interpolated between neighbours, which reaches over the square's edge.
JPEG_SQUARE, JPEG_REACH = 16, 2  # px

Picture = NDArray[np.uint8]


class _Pipelines(threading.local):
    """The two pipelines, built once a thread, because they hold the generator of the call that uses them."""

    def __init__(self) -> None:
        # Both images have one size by contract; checking it again costs time.
        self.shared = A.Compose(
            [
                A.RGBShift(RGB_SHIFT, RGB_SHIFT, RGB_SHIFT, p=0.3),
                A.HueSaturationValue(HSV_SHIFT, HSV_SHIFT, HSV_SHIFT, p=0.3),
                A.RandomBrightnessContrast((-0.3, 0.3), (-0.3, 0.3), p=0.3),
                A.ImageCompression(quality_range=JPEG_QUALITY, compression_type="jpeg", p=0.5),
            ],
            additional_targets={"fake": "image"},
        )
        self.color_shift = A.Compose(
            [
                A.RGBShift(RGB_SHIFT, RGB_SHIFT, RGB_SHIFT, p=0.3),
                A.HueSaturationValue(HSV_SHIFT, HSV_SHIFT, HSV_SHIFT, p=1),
                A.RandomBrightnessContrast((-0.1, 0.1), (-0.1, 0.1), p=1),
                # A member's p is its weight among the alternatives: downscaling 1/2, shared by its two factors.
                A.OneOf(
                    [
                        _build_downscale(1 / 2, 0.5),
                        _build_downscale(1 / 4, 0.5),
                        A.Sharpen(alpha=SHARPEN_ALPHA, lightness=SHARPEN_LIGHTNESS, p=1.0),
                    ],
                    p=1,
                ),
            ]
        )


def _build_downscale(scale: float, weight: float) -> A.Downscale:
    return A.Downscale(
        scale_range=(scale, scale),
        interpolation_pair={"downscale": cv2.INTER_NEAREST, "upscale": cv2.INTER_LINEAR},
        p=weight,
    )


_PIPELINES = _Pipelines()


@dataclass(frozen=True)
class DrawnTransform:
    """A transform of albumentations with the parameters that were drawn for one call.

    Attributes:
        transform: The transform.
        params: Its parameters, as `transform.apply` takes them.
    """

    transform: A.ImageOnlyTransform
    params: dict[str, Any]

    @property
    def is_table(self) -> bool:
        """Whether it maps each level of a channel to another, whatever the other channels and pixels are."""
        return type(self.transform) in (A.RGBShift, A.RandomBrightnessContrast)

    @property
    def is_pointwise(self) -> bool:
        """Whether it changes every pixel by itself."""
        return type(self.transform) in (A.RGBShift, A.RandomBrightnessContrast, A.HueSaturationValue)

    def find_input(self, window: Window, whole: Window, known: Window | None = None) -> Window:
        """Find the part of its input on which a part of its output depends, within what is known of the input."""
        kind = type(self.transform)
        if self.is_pointwise:
            return window.fill_vectors(whole, known or whole) if kind is A.HueSaturationValue else window
        if kind is A.Sharpen:
            return window.grow(1, whole)
        return window.grow(JPEG_REACH, whole, JPEG_SQUARE) if kind is A.ImageCompression else whole

    def find_output(self, window: Window, whole: Window) -> Window:
        """Find the part of its output that may change where a part of its input does."""
        if self.is_pointwise:
            return window
        if type(self.transform) is A.ImageCompression:
            return window.grow(0, whole, JPEG_SQUARE).grow(JPEG_REACH, whole)
        return self.find_input(window, whole)

    def apply(self, picture: Picture) -> Picture:
        """Apply it to a picture, uint8 (H, W, 3) RGB."""
        if type(self.transform) is A.HueSaturationValue:
            return _shift_hue(picture, self)
        return self.transform.apply(picture, **self.params)


def find_input(drawn: Sequence[DrawnTransform], window: Window, whole: Window) -> Window:
    """Find the part of a picture on which a part of what transforms make of it depends."""
    return _list_needed(drawn, window, whole, whole)[0]


def find_output(drawn: Sequence[DrawnTransform], window: Window, whole: Window) -> Window:
    """Find the part of what transforms make of a picture that may change where a part of the picture does."""
    for one in drawn:
        window = one.find_output(window, whole)
    return window


def _list_needed(drawn: Sequence[DrawnTransform], window: Window, whole: Window, known: Window) -> list[Window]:
    """List the parts that each transform needs, and the one that comes out of the last."""
    needed = [window]
    for one in reversed(drawn):
        needed.insert(0, one.find_input(needed[0], whole, known))
    return needed


def apply_drawn(part: PicturePart, drawn: Sequence[DrawnTransform], window: Window) -> Picture:
    """Apply transforms one after another, and compute only a part of the result.

    Args:
        part: What is known of the picture: `find_input` of a window around the wanted one.
        drawn: The transforms with their parameters.
        window: The part that is wanted.

    Returns:
        That part of what the transforms make of the whole picture, to the bit; a view where `drawn` is empty.
    """
    if drawn and type(drawn[-1].transform) is A.Downscale and all(one.is_pointwise for one in drawn[:-1]):
        return _lose_resolution(part.pixels, drawn, window)
    needed = _list_needed(drawn, window, part.whole, part.window)
    pixels = flatten_view(part.cut(needed[0]))
    for group, start in _group_tables(drawn):
        given, wanted = needed[start], needed[start + len(group)]
        result = _apply_tables(pixels, group) if group[0].is_table else group[0].apply(pixels)
        pixels = wanted.move_into(given).cut(result)
    return pixels


def _group_tables(drawn: Sequence[DrawnTransform]) -> list[tuple[list[DrawnTransform], int]]:
    """Put neighbours that are tables together: groups, and the place of their first one."""
    groups: list[tuple[list[DrawnTransform], int]] = []
    for i, one in enumerate(drawn):
        if groups and one.is_table and groups[-1][0][0].is_table:
            groups[-1][0].append(one)
        else:
            groups.append(([one], i))
    return groups


def _apply_tables(picture: Picture, drawn: Sequence[DrawnTransform]) -> Picture:
    """Apply transforms of levels as one table a channel: what they make of a picture of all levels."""
    table = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    for one in drawn:
        table = one.apply(table)
    if np.array_equal(table[..., 0], table[..., 1]) and np.array_equal(table[..., 0], table[..., 2]):
        return _look_up(picture, table[0, :, 0])
    channels = [_look_up(one, table[0, :, i]) for i, one in enumerate(cv2.split(picture))]
    return np.asarray(cv2.merge(channels), np.uint8)


def _look_up(levels: NDArray[Any], table: Picture) -> Picture:
    """Map levels, uint8 of any shape, through a table (256,); many times as fast as cv2.LUT."""
    return sz_lut(np.ascontiguousarray(levels), np.ascontiguousarray(table), inplace=False)


def _shift_hue(picture: Picture, drawn: DrawnTransform) -> Picture:
    """Do what A.HueSaturationValue does, without its copies of channels that stay as they are.

    albumentations truncates shifts of saturation and value to whole units, so that those below one change nothing.
    """
    hue, *others = (drawn.params[key] for key in ("hue_shift", "sat_shift", "val_shift"))
    if any(abs(shift) >= 1 for shift in others) or not any((hue, *others)):
        return drawn.transform.apply(np.ascontiguousarray(picture), **drawn.params)
    hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)
    table = np.mod(np.arange(256) + hue, 180).astype(np.uint8)
    if not np.array_equal(table[:180], np.arange(180)):  # OpenCV's hues are below 180
        cv2.insertChannel(_look_up(np.asarray(cv2.extractChannel(hsv, 0), np.uint8), table), hsv, 0)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)


def _lose_resolution(picture: Picture, drawn: Sequence[DrawnTransform], window: Window) -> Picture:
    """Apply transforms of single pixels and then a downscaling, of which only the rows and columns it keeps matter.

    The picture that is enlarged again is undefined where the window does not need it.
    """
    transform, scale, whole = drawn[-1].transform, drawn[-1].params["scale"], get_whole(picture)
    assert isinstance(transform, A.Downscale)
    step, up = round(1 / scale), transform.interpolation_pair["upscale"]
    assert (step * scale, transform.interpolation_pair["downscale"]) == (1, cv2.INTER_NEAREST)
    small = np.empty((round(whole.bottom * scale), round(whole.right * scale), 3), np.uint8)
    across, down = small.shape[1] / whole.right, small.shape[0] / whole.bottom
    kept = Window(
        int(window.left * across) - 2,
        int(window.top * down) - 2,
        int(window.right * across) + 2,
        int(window.bottom * down) + 2,
    ).intersect(get_whole(small))
    rows = picture[::step]  # nearest: the first of `step`
    columns = kept._replace(left=kept.left * step, right=(kept.right - 1) * step + 1)
    pixels = np.ascontiguousarray(apply_drawn(take_whole(rows), drawn[:-1], columns))
    pixel = np.dtype("V3")  # copied as one element
    kept.cut(small).view(pixel)[...] = pixels.view(pixel)[:, ::step]
    return window.cut(np.asarray(cv2.resize(small, picture.shape[1::-1], interpolation=up), np.uint8))


# Parameters do not depend on pixels, so that what is drawn for this picture serves for any other.
_ANY = np.zeros((8, 8, 3), np.uint8)


def _draw(pipeline: A.Compose, rng: np.random.Generator) -> tuple[DrawnTransform, ...]:
    """Draw which transforms of a pipeline are applied, and their parameters, in the order of its own draws."""
    python = random.Random(int(rng.integers(2**63)))
    pipeline.set_random_state(rng, python)
    python.random()  # whether the pipeline is applied, which it always is
    drawn: list[DrawnTransform] = []
    one: Any
    for one in pipeline.transforms:
        members: list[Any] = one.transforms if isinstance(one, A.OneOf) else [one]
        for member in members:
            member.params = {}
        if isinstance(one, A.OneOf):
            python.random()  # whether any of them is applied, which one always is
            drawn.append(_draw_params(members[rng.choice(len(members), p=one.transforms_ps)]))
        elif one.should_apply():
            drawn.append(_draw_params(one))
    return tuple(drawn)


def _draw_params(transform: Any) -> DrawnTransform:
    """Draw the parameters of one transform, which remembers them as it does when it is called."""
    params = transform.get_params()
    transform.params = params | transform.get_params_dependent_on_data(params, {"image": _ANY})
    return DrawnTransform(transform, transform.params)


def draw_shared(rng: np.random.Generator) -> tuple[DrawnTransform, ...]:
    """Draw the augmentation that real and fake share: RGB shift, HSV shift, brightness and contrast, JPEG."""
    return _draw(_PIPELINES.shared, rng)


def name_drawn(drawn: Sequence[DrawnTransform]) -> tuple[str, ...]:
    """Name transforms of the shared augmentation for people to read, by the operations that do the same in a list."""
    names = {A.RGBShift: "rgb_shift", A.HueSaturationValue: "hue_saturation", A.ImageCompression: "jpeg"}
    told = ((names.get(type(one.transform), "brightness_contrast"), one.params.get("quality", "")) for one in drawn)
    return tuple(f"{name} {quality}".strip() for name, quality in told)


def draw_color_shift(height: int, width: int, rng: np.random.Generator) -> tuple[DrawnTransform, ...]:
    """Draw what changes the colour and sharpness of one side of a self-blend.

    RGB shift with probability 0.3, HSV shift, brightness and contrast, and then either a loss of resolution or
    sharpening.

    Args:
        height: The height of the picture [px]. With a side below 8 px it is too small for this, and nothing is drawn.
        width: Its width [px].
        rng: Draws the parameters.

    Returns:
        The transforms in their order.
    """
    return _draw(_PIPELINES.color_shift, rng) if min(height, width) >= 8 else ()


def augment_pair(
    real: NDArray[np.uint8], fake: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Augment two images with the same parameters: RGB shift, HSV shift, brightness and contrast, JPEG.

    Args:
        real: uint8 (H, W, 3) RGB.
        fake: An image of the same shape.
        rng: Draws the parameters.

    Returns:
        Two images of that shape, which may be those that were given.
    """
    drawn = draw_shared(rng)
    return apply_drawn(take_whole(real), drawn, get_whole(real)), apply_drawn(take_whole(fake), drawn, get_whole(fake))


def color_shift_source(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Change the colour and sharpness of an image as `draw_color_shift` says.

    Args:
        image: uint8 (H, W, 3) RGB.
        rng: Draws the parameters.

    Returns:
        An image of that shape, which may be the one that was given.
    """
    height, width = image.shape[:2]
    return apply_drawn(take_whole(image), draw_color_shift(height, width, rng), get_whole(image))
