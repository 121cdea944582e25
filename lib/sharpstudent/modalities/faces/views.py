"""Views of one face, whose scores are averaged: its crop, the mirror image, and crops with other margins.

The first view is always the crop that is scored without views, to the last bit. Importing this loads no NumPy, because
the command line names views.

Legend: V views, S side of the pictures [px].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FLIP, CROPS = "flip", "crops"
VIEWS: Mapping[str, str] = {
    FLIP: "the crop and its mirror image",
    CROPS: "three crops, with margins of 12.5, 5 and 20 % of the face's box (of a ready crop, whose box is not known, "
    "the whole, and its inner 88 and 94 %)",
    f"{FLIP}+{CROPS}": "the three crops of `crops`, and their mirror images",
}


class FaceView(NamedTuple):
    """One view of a face.

    Attributes:
        factor: The factor of the margins, as in `crop.MARGIN_SHARE`.
        inner: The share of the sides that is kept of a picture without a box, 0..1.
        is_mirrored: Whether left and right are exchanged.
    """

    factor: float
    inner: float
    is_mirrored: bool


def list_views(name: str | None) -> tuple[FaceView, ...]:
    """List the views of a name.

    The margins are the one of evaluation and both ends of the range that training draws from. A ready crop has the
    margins of evaluation as a rule: 5 % of the box leave 1.10 / 1.25 = 88 % of its sides; there is nothing around it
    for wider ones, so that the third view is half as close.

    Args:
        name: A key of `VIEWS`; None for the plain crop alone.

    Returns:
        The V views, the plain crop first.
    """
    from sharpstudent.modalities.faces.crop import EVALUATION_MARGIN, TRAIN_MARGIN_RANGE

    words = () if name is None else name.split("+")
    near, far = TRAIN_MARGIN_RANGE
    crops = ((EVALUATION_MARGIN, 1.0), (near, 0.88), (far, 0.94))[: 3 if CROPS in words else 1]
    mirrored = (False, True) if FLIP in words else (False,)
    return tuple(FaceView(factor, inner, flip) for factor, inner in crops for flip in mirrored)


def make_views(
    image: NDArray[np.uint8], box_xyxy: NDArray[np.generic] | None, image_size: int, views: Sequence[FaceView]
) -> NDArray[np.uint8]:
    """Make the views of one face; nothing about them is random.

    Args:
        image: uint8 (H, W, 3) RGB.
        box_xyxy: The detector's box (4,) [px]; None for a ready crop.
        image_size: The side S of the pictures that come out [px].
        views: The V views.

    Returns:
        The pictures, uint8 (V, S, S, 3) RGB.

    Raises:
        ValueError: For another shape of image.
    """
    import numpy as np

    from sharpstudent.modalities.faces.sample import make_single

    rng = np.random.default_rng(0)  # draws nothing: there is no augmentation
    pictures = [make_single(_cut(image, box_xyxy, view), None, rng, image_size, train=False) for view in views]
    shown = [picture[:, ::-1] if view.is_mirrored else picture for picture, view in zip(pictures, views, strict=True)]
    return np.stack(shown)


def _cut(image: NDArray[np.uint8], box_xyxy: NDArray[np.generic] | None, view: FaceView) -> NDArray[np.uint8]:
    """Cut the part of the image that a view shows."""
    import numpy as np

    from sharpstudent.modalities.faces.crop import MARGIN_SHARE, expand_box

    height, width = image.shape[:2]
    if box_xyxy is None:
        high, wide = max(1, round(height * view.inner)), max(1, round(width * view.inner))
        top, left = (height - high) // 2, (width - wide) // 2
        return image[top : top + high, left : left + wide]
    shares = MARGIN_SHARE * np.full(4, view.factor)
    left, top, right, bottom = expand_box(np.asarray(box_xyxy, np.float32), shares, height, width)
    return image[top:bottom, left:right]
