"""Corruptions of face crops at fixed severities, for measuring how robust a detector is.

They imitate what happens to pictures on their way to a viewer: JPEG and H.264 compression, loss of resolution, blur,
noise, changed light, an inexact crop, and a sharing platform that does several of these. `CORRUPTIONS` lists them.

Each corruption acts on the crop that evaluation uses, in the crop's own pixels, before the crop is resized for a
network. Two reasons:

- A severity then means the same damage to the same picture, whether a network looks at 112 or at 380 px. At the
  network's own scale, JPEG's blocks of 8 px would destroy three times as much of the smaller input.
- Files are compressed at their own size. Resizing all crops to one size first would be a corruption of its own, and
  the clean end of each curve would not be the value that the set has elsewhere.

Lengths (blur, resize, jitter) are shares of the crop's sides, so that large and small faces lose alike. Compression and
noise work on pixels: they take more of a small face than of a large one, as they do outside.

Noise and jitter draw from a generator that is keyed on (seed, index of the face, corruption, severity). The same bytes
come in any process, in any order, and whichever other corruptions are measured.

H.264 is real compression: libx264 encodes a picture as a stream of one intra frame (IDR), as every group of pictures of
a video begins, and the stream is decoded again, all in memory. The constant rate factor (CRF) is that of videos: 23 and
40 are those of FaceForensics++ c23 and c40. Predicted frames lose somewhat more at the same factor. It
needs the extra `video`.

Legend: pictures are uint8 (H, W, 3) RGB; lengths in pixels are those of the picture that a function is given.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.arguments import advise_extra
from sharpstudent.core.errors import UserError
from sharpstudent.core.random import build_generator
from sharpstudent.modalities.faces.crop import compute_box_margins

Picture = NDArray[np.uint8]

# One pass through a sharing platform: sent at half the size, shown as large as before and sharper, saved again.
SHARED_SIDE, SHARED_QUALITY, SAVED_QUALITY = 0.5, 60, 70
SHARPEN_SIGMA, SHARPEN_SHARE = 1.5, 0.6


def compress_jpeg(picture: Picture, quality: float) -> Picture:
    """Compress a picture with JPEG and decode it again.

    Args:
        picture: uint8 (H, W, 3) RGB.
        quality: On libjpeg's scale, 100 is best. Colour is kept at half the resolution (4:2:0).

    Returns:
        The decoded picture, uint8 (H, W, 3).
    """
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    wanted = [cv2.IMWRITE_JPEG_QUALITY, round(quality)]
    wanted += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    _, content = cv2.imencode(".jpg", bgr, wanted)
    return np.asarray(cv2.imdecode(content, cv2.IMREAD_COLOR_RGB), np.uint8)


def lose_resolution(picture: Picture, share: float) -> Picture:
    """Scale a picture down by area means and up again bicubically.

    Args:
        picture: uint8 (H, W, 3) RGB.
        share: The share of each side that is left in between, 0..1.

    Returns:
        The picture at its first size, uint8 (H, W, 3).
    """
    height, width = picture.shape[:2]
    return enlarge(shrink(picture, share), height, width)


def blur(picture: Picture, share: float) -> Picture:
    """Blur a picture with a Gaussian.

    Args:
        picture: uint8 (H, W, 3) RGB.
        share: The Gaussian's sigma, as a share of the side of a square with the picture's area.

    Returns:
        The blurred picture, uint8 (H, W, 3).
    """
    sigma = share * math.sqrt(picture.shape[0] * picture.shape[1])
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101), np.uint8)


def add_noise(picture: Picture, sigma: float, rng: np.random.Generator) -> Picture:
    """Add Gaussian noise that is independent in each pixel and colour.

    Args:
        picture: uint8 (H, W, 3) RGB.
        sigma: Standard deviation of the noise [levels of 255].
        rng: Draws the noise.

    Returns:
        The noisy picture, uint8 (H, W, 3).
    """
    levels = rng.standard_normal(picture.shape, dtype=np.float32)
    levels *= np.float32(sigma)
    levels += picture
    return _to_uint8(levels)


def add_sensor_noise(picture: Picture, sigma: float, unit: NDArray[np.float32]) -> Picture:
    """Add the noise of a sensor: a part that is always there, and one that grows with the light.

    The variance at a level v is sigma^2 (1 + v / 128) / 2: at mid grey, read noise and shot noise have half of it each.

    Args:
        picture: uint8 (H, W, 3) RGB.
        sigma: Standard deviation of the noise at mid grey [levels of 255].
        unit: Normal noise of mean 0 and deviation 1, float32 (H, W, 3).

    Returns:
        The noisy picture, uint8 (H, W, 3).
    """
    deviations = (sigma * np.sqrt((1 + np.arange(256) / 128) / 2)).astype(np.float32)
    return _to_uint8(deviations[picture] * unit + picture)


def change_light(picture: Picture, change: float) -> Picture:
    """Multiply every level by 1 + change and clip it at 255, as a sensor does.

    Args:
        picture: uint8 (H, W, 3) RGB.
        change: The relative change of the light, at least -1; a negative one makes the picture darker.

    Returns:
        The changed picture, uint8 (H, W, 3).
    """
    levels = _to_uint8(np.arange(256, dtype=np.float32) * np.float32(1 + change))
    return np.asarray(cv2.LUT(picture, levels), np.uint8)


def share_online(picture: Picture, passes: float) -> Picture:
    """Imitate that a picture is shared on a platform, once or several times in a row.

    One pass scales it to half its sides, compresses it with JPEG 60, scales it up again, sharpens it and compresses it
    with JPEG 70.

    Args:
        picture: uint8 (H, W, 3) RGB.
        passes: The number of passes, rounded to a whole number.

    Returns:
        The picture at its first size, uint8 (H, W, 3).
    """
    height, width = picture.shape[:2]
    for _ in range(round(passes)):
        sent = compress_jpeg(shrink(picture, SHARED_SIDE), SHARED_QUALITY)
        shown = enlarge(sent, height, width)
        soft = cv2.GaussianBlur(shown, (0, 0), SHARPEN_SIGMA)
        sharper = cv2.addWeighted(shown, 1 + SHARPEN_SHARE, soft, -SHARPEN_SHARE, 0)
        picture = compress_jpeg(np.asarray(sharper, np.uint8), SAVED_QUALITY)
    return picture


def shrink(picture: Picture, share: float) -> Picture:
    """Scale a picture down by area means to a share of each side, 0..1; at least one pixel is left of each."""
    size = [max(1, round(share * side)) for side in (picture.shape[1], picture.shape[0])]
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def enlarge(picture: Picture, height: int, width: int) -> Picture:
    """Scale a picture bicubically to a height and a width [px]."""
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def _to_uint8(levels: NDArray[np.float32]) -> Picture:
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class BoxedCrop:
    """A picture, with the box of the crop that evaluation uses.

    Attributes:
        image: uint8 (H, W, 3) RGB.
        box: The crop's left, top, right and bottom edges in whole pixels of the image, int64 (4,), inside it.
    """

    image: NDArray[np.uint8]
    box: NDArray[np.int64]

    @property
    def picture(self) -> NDArray[np.uint8]:
        """The crop, uint8 (h, w, 3). It is a view: do not write to it."""
        left, top, right, bottom = (int(value) for value in self.box)
        return self.image[top:bottom, left:right]

    def jitter(self, share: float, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Crop the face as a less exact detector would have.

        The box moves by a share of its sides in a random direction, and grows or shrinks by the same share with equal
        chances. Where it reaches beyond the picture, the picture is mirrored.

        Args:
            share: The size of the jitter as a share of the box's sides, 0..0.5.
            rng: Draws the direction and whether the box grows.

        Returns:
            The jittered crop, uint8 (h', w', 3).
        """
        angle = rng.uniform(0, 2 * np.pi)
        factor = 1 + share if rng.random() < 0.5 else 1 / (1 + share)
        sides = (self.box[2:] - self.box[:2]).astype(np.float64)
        centre = (self.box[2:] + self.box[:2]) / 2 + share * sides * np.array([np.cos(angle), np.sin(angle)])
        # The box keeps at least one pixel a side after rounding.
        corner = np.rint(centre - factor * sides / 2).astype(np.int64)
        return self._crop_beyond(corner, corner + np.maximum(np.rint(factor * sides), 1).astype(np.int64))

    def _crop_beyond(self, start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Crop a box that may reach beyond the picture.

        Its corners are start and end, int64 (2,) x, y; at least a pixel of it is inside.
        """
        size = np.array([self.image.shape[1], self.image.shape[0]])
        (left, top), (right, bottom) = np.maximum(start, 0), np.minimum(end, size)
        (over_left, over_top), (over_right, over_bottom) = np.maximum(-start, 0), np.maximum(end - size, 0)
        inside = np.ascontiguousarray(self.image[top:bottom, left:right])
        whole = cv2.copyMakeBorder(
            inside, int(over_top), int(over_bottom), int(over_left), int(over_right), cv2.BORDER_REFLECT_101
        )
        return np.asarray(whole, np.uint8)


def find_evaluation_crop(image: NDArray[np.uint8], box: NDArray[np.generic] | None) -> BoxedCrop:
    """Find the crop that evaluation uses.

    Args:
        image: uint8 (H, W, 3) RGB.
        box: A detector's box (4,) [px], which gets margins of 12.5 %, or None to take the picture as it is.

    Returns:
        The picture with the box of the crop.
    """
    height, width = image.shape[:2]
    if box is None:
        return BoxedCrop(image, np.array([0, 0, width, height], np.int64))
    return BoxedCrop(image, compute_box_margins(box, height, width, None))


ENCODER, DECODER = "libx264", "h264"
# One thread: the same bytes on any number of cores. `medium` is x264's own default, and FaceForensics++'s.
OPTIONS = {"preset": "medium", "x264-params": "threads=1:lookahead-threads=1:log-level=none"}
PIXELS = "yuv420p"  # colour at half the resolution, as nearly all videos have it


def explain_no_h264() -> str | None:
    """Explain why H.264 cannot be used here, with the remedy; None where it can be used."""
    try:
        import av  # pyright: ignore[reportMissingImports]
    except ImportError:
        return f"H.264 recompression needs the package av: {advise_extra('video')}"
    if ENCODER not in av.codecs_available:
        return f"the installed package av has no encoder {ENCODER}: {advise_extra('video', again=True)}"
    return None


def recompress_h264(picture: NDArray[np.uint8], crf: float) -> NDArray[np.uint8]:
    """Compress a picture with H.264 at a constant rate factor and decode it again.

    The codec needs even sides: an odd one gets a copy of its last row or column, which is cut off after decoding.

    Args:
        picture: uint8 (H, W, 3) RGB.
        crf: The constant rate factor, from 0 (nearly lossless) to 51 (worst).

    Returns:
        The decoded picture, uint8 (H, W, 3).

    Raises:
        UserError: Where `explain_no_h264` gives a reason.
    """
    obstacle = explain_no_h264()
    if obstacle is not None:
        raise UserError.about(where="h264", what=obstacle)
    height, width = picture.shape[:2]
    even = cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(_decode(_encode(np.ascontiguousarray(even, np.uint8), crf))[:height, :width])


def _encode(picture: NDArray[np.uint8], crf: float) -> list[bytes]:
    import av  # pyright: ignore[reportMissingImports]

    encoder = av.CodecContext.create(ENCODER, "w")
    encoder.height, encoder.width = picture.shape[:2]
    encoder.pix_fmt, encoder.time_base, encoder.thread_count = PIXELS, Fraction(1, 25), 1
    encoder.options = {**OPTIONS, "crf": f"{crf:g}"}
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=PIXELS)
    frame.pts = 0
    return [bytes(packet) for packet in (*encoder.encode(frame), *encoder.encode(None))]


def _decode(stream: list[bytes]) -> NDArray[np.uint8]:
    import av  # pyright: ignore[reportMissingImports]

    decoder = av.CodecContext.create(DECODER, "r")
    decoder.thread_count = 1
    frames = [frame for content in stream for frame in decoder.decode(av.Packet(content))]
    (frame,) = frames + decoder.decode(None)
    return np.array(frame.to_ndarray(format="rgb24"), np.uint8)  # a copy, because the decoder owns the array


Change = Callable[[BoxedCrop, float, np.random.Generator], NDArray[np.uint8]]


@dataclass(frozen=True)
class Corruption:
    """One kind of damage at several severities.

    Attributes:
        name: The name on the command line and in reports.
        unit: The unit of the severities.
        severities: The severities in `unit`; the first is no damage at all, the last the most.
        label: The format string of a severity for readers.
        change: Applies a severity other than none; returns the crop, uint8 (h, w, 3).
    """

    name: str
    unit: str
    severities: tuple[float, ...]
    label: str
    change: Change

    def name_severity(self, level: int) -> str:
        """Name a severity by its index: `none`, `quality 50`, ..."""
        return self.label.format(self.severities[level]) if level else "none"


def _on_picture(change: Callable[[Picture, float], Picture], unit: float = 1) -> Change:
    """Make a `Change` of a function of the picture alone, which takes the severity divided by `unit`."""
    return lambda face, severity, _: change(face.picture, severity / unit)


def _add_noise(face: BoxedCrop, sigma: float, rng: np.random.Generator) -> Picture:
    return add_noise(face.picture, sigma, rng)


def _jitter(face: BoxedCrop, percent: float, rng: np.random.Generator) -> Picture:
    return face.jitter(percent / 100, rng)


_STEPS = (0, 20, 40, 60, 80)
CORRUPTIONS = (
    Corruption("jpeg", "quality", (100, 90, 70, 50, 30), "quality {:g}", _on_picture(compress_jpeg)),
    Corruption("h264", "CRF", (0, 23, 28, 35, 40), "CRF {:g}", _on_picture(recompress_h264)),
    Corruption(
        "resize", "% of the side kept", (100, 75, 50, 25), "to {:g} % and back", _on_picture(lose_resolution, 100)
    ),
    Corruption("blur", "sigma, % of the side", (0, 0.5, 1, 1.5, 2), "sigma {:g} % of the side", _on_picture(blur, 100)),
    Corruption("noise", "sigma, levels of 255", (0, 5, 10, 20, 30), "sigma {:g} levels", _add_noise),
    # Darker and brighter are two corruptions, because the area under one curve from dark through clean to bright would
    # mean nothing.
    Corruption("darker", "% of the light taken away", _STEPS, "{:g} % darker", _on_picture(change_light, -100)),
    Corruption("brighter", "% of light added", _STEPS, "{:g} % brighter", _on_picture(change_light, 100)),
    Corruption("crop_jitter", "% of the side", (0, 5, 10, 15, 20), "by {:g} % of the side", _jitter),
    Corruption("social_media", "passes", (0, 1, 2, 3), "{:g} x", _on_picture(share_online)),
)


def corrupt(face: BoxedCrop, corruption: Corruption, level: int, *, seed: int, index: int) -> NDArray[np.uint8]:
    """Apply one corruption to a face crop.

    Args:
        face: The crop in its picture.
        corruption: The corruption to apply.
        level: The index of the severity among the corruption's severities; 0 changes nothing.
        seed: The seed of the randomness.
        index: The number of the face in its set, >= 0; the randomness is keyed on it, too.

    Returns:
        The crop, uint8 (h, w, 3) RGB, of the same shape but for jitter. Do not write to it.

    Raises:
        UserError: For `h264` where the package av is absent (`explain_no_h264`).
    """
    if level == 0:
        return face.picture
    severity = corruption.severities[level]
    number = zlib.crc32(f"{corruption.name}/{severity:g}".encode())
    return corruption.change(face, severity, build_generator(seed, number, index))
