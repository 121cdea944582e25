"""Corruptions of a face crop at fixed severities, and the pictures that they are made from.

What happens to pictures on their way: JPEG, loss of resolution, blur, noise, light, and a sharing platform's chain.

Every function takes and gives uint8 (H, W, 3) RGB; sizes in pixels are those of the picture that it is given.

A face that is to be disturbed: where it is cut from its picture, and the cut.

Real H.264 recompression of one picture: encoded by libx264 and decoded again, in memory. Needs the extra `video`.

The picture becomes a stream of a single frame, coded by itself (an IDR frame), as every group of pictures of a video
begins. A constant rate factor (CRF) means what it does for videos: 23 and 40 are those of FaceForensics++ c23 and c40.
The frames between, which are predicted from their neighbours, lose somewhat more at the same factor.

Disturbances of a face crop at fixed strengths: what a detector has to stand beyond clean pictures.

All act on the crop of evaluation as it was cut, in its own pixels, before it is resized for the network:

- A strength is the same damage to the same picture whether a network looks at 112 or at 380 px; at the network's own
  scale, the 8 px blocks of JPEG or a blur of 2 px would destroy three times as much of the smaller one's input.
- It is what happens to pictures: a file is saved again at its own size. Bringing all crops to one size first would be
  a disturbance of its own, and the undisturbed end of every curve would not be the figure that the set has elsewhere.

Lengths (blur, resize, jitter) are shares of the crop's sides, so that large and small faces lose alike. Codecs and
noise work on pixels: they take more of a small face than of a large one, as they do outside.

Randomness (noise, jitter) is keyed on (seed, the face's index, disturbance, strength): the same bytes in any process,
in any order, and whichever other disturbances are asked for.
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

from sharpstudent.core.errors import UserError
from sharpstudent.core.random import build_generator
from sharpstudent.modalities.faces.crop import compute_box_margins

Picture = NDArray[np.uint8]

# One pass through a sharing platform: sent at half the size, shown as large as before and sharper, saved again.
SHARED_SIDE, SHARED_QUALITY, SAVED_QUALITY = 0.5, 60, 70
SHARPEN_SIGMA, SHARPEN_SHARE = 1.5, 0.6


def compress_jpeg(picture: Picture, quality: float) -> Picture:
    """JPEG at a quality of libjpeg's scale, 100 best, colour at half the resolution (4:2:0)."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    wanted = [cv2.IMWRITE_JPEG_QUALITY, round(quality)]
    wanted += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    _, content = cv2.imencode(".jpg", bgr, wanted)
    return np.asarray(cv2.imdecode(content, cv2.IMREAD_COLOR_RGB), np.uint8)


def lose_resolution(picture: Picture, share: float) -> Picture:
    """Down to a share of each side, 0..1, by area means, and up again bicubically."""
    height, width = picture.shape[:2]
    return _enlarge(_shrink(picture, share), height, width)


def blur(picture: Picture, share: float) -> Picture:
    """Gaussian blur; its sigma is a share of the side, of a square with the picture's area."""
    sigma = share * math.sqrt(picture.shape[0] * picture.shape[1])
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101), np.uint8)


def add_noise(picture: Picture, sigma: float, rng: np.random.Generator) -> Picture:
    """Gaussian noise, independent in each pixel and colour; sigma [levels of 255]."""
    levels = rng.standard_normal(picture.shape, dtype=np.float32)
    levels *= np.float32(sigma)
    levels += picture
    return _to_uint8(levels)


def change_light(picture: Picture, change: float) -> Picture:
    """Every level times 1 + change, cut off at 255: what is too bright is lost, as on a sensor."""
    levels = _to_uint8(np.arange(256, dtype=np.float32) * np.float32(1 + change))
    return np.asarray(cv2.LUT(picture, levels), np.uint8)


def share_online(picture: Picture, passes: float) -> Picture:
    """So many times through a platform: down to half the side, JPEG 60, up again, sharpened, JPEG 70."""
    height, width = picture.shape[:2]
    for _ in range(round(passes)):
        sent = compress_jpeg(_shrink(picture, SHARED_SIDE), SHARED_QUALITY)
        shown = _enlarge(sent, height, width)
        soft = cv2.GaussianBlur(shown, (0, 0), SHARPEN_SIGMA)
        sharper = cv2.addWeighted(shown, 1 + SHARPEN_SHARE, soft, -SHARPEN_SHARE, 0)
        picture = compress_jpeg(np.asarray(sharper, np.uint8), SAVED_QUALITY)
    return picture


def _shrink(picture: Picture, share: float) -> Picture:
    size = [max(1, round(share * side)) for side in (picture.shape[1], picture.shape[0])]
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _enlarge(picture: Picture, height: int, width: int) -> Picture:
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def _to_uint8(levels: NDArray[np.float32]) -> Picture:
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class BoxedCrop:
    """A picture, uint8 (H, W, 3) RGB, and the box of the final crop in it: int64 (4,), whole pixels, inside it."""

    image: NDArray[np.uint8]
    box: NDArray[np.int64]

    @property
    def picture(self) -> NDArray[np.uint8]:
        """The crop as it is, uint8 (h, w, 3), a view: not to be written to."""
        left, top, right, bottom = (int(value) for value in self.box)
        return self.image[top:bottom, left:right]

    def jitter(self, share: float, rng: np.random.Generator) -> NDArray[np.uint8]:
        """The crop as a less exact detector would have cut it: moved by a share of its sides in a direction that is
        drawn, and larger or smaller by that share, with even chances.

        share: 0..0.5. What lies outside the picture is its mirror image: so beyond a face crop that is taken as it is.
        """
        angle = rng.uniform(0, 2 * np.pi)
        factor = 1 + share if rng.random() < 0.5 else 1 / (1 + share)
        sides = (self.box[2:] - self.box[:2]).astype(np.float64)
        centre = (self.box[2:] + self.box[:2]) / 2 + share * sides * np.array([np.cos(angle), np.sin(angle)])
        # At least a pixel, wherever it is rounded to.
        corner = np.rint(centre - factor * sides / 2).astype(np.int64)
        return self._cut_beyond(corner, corner + np.maximum(np.rint(factor * sides), 1).astype(np.int64))

    def _cut_beyond(self, start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.uint8]:
        """start, end: int64 (2,) x, y of a box with at least a pixel in the picture."""
        size = np.array([self.image.shape[1], self.image.shape[0]])
        (left, top), (right, bottom) = np.maximum(start, 0), np.minimum(end, size)
        (over_left, over_top), (over_right, over_bottom) = np.maximum(-start, 0), np.maximum(end - size, 0)
        inside = np.ascontiguousarray(self.image[top:bottom, left:right])
        whole = cv2.copyMakeBorder(
            inside, int(over_top), int(over_bottom), int(over_left), int(over_right), cv2.BORDER_REFLECT_101
        )
        return np.asarray(whole, np.uint8)


def cut_face(image: NDArray[np.uint8], box: NDArray[np.generic] | None) -> BoxedCrop:
    """The crop of evaluation: a detector's box (4,) with margins of 12.5 %, or None for the picture as it is."""
    height, width = image.shape[:2]
    if box is None:
        return BoxedCrop(image, np.array([0, 0, width, height], np.int64))
    return BoxedCrop(image, compute_box_margins(box, height, width, None))


ENCODER, DECODER = "libx264", "h264"
# One thread: the same bytes on any number of cores. `medium` is x264's own default, and FaceForensics++'s.
OPTIONS = {"preset": "medium", "x264-params": "threads=1:lookahead-threads=1:log-level=none"}
PIXELS = "yuv420p"  # colour at half the resolution, as nearly all videos have it


def find_obstacle() -> str | None:
    """Why nothing can be recompressed here, in words that end with the remedy; None where it can."""
    try:
        import av  # pyright: ignore[reportMissingImports]
    except ImportError:
        return 'H.264 recompression needs the package av: pip install ".[video]"'
    if ENCODER not in av.codecs_available:
        return f'the installed package av has no encoder {ENCODER}: pip install --force-reinstall ".[video]"'
    return None


def recompress_h264(picture: NDArray[np.uint8], crf: float) -> NDArray[np.uint8]:
    """The picture after H.264 at a constant rate factor, 0 (nearly lossless) to 51 (worst).

    picture: uint8 (H, W, 3) RGB; the same comes back. An odd side is padded by a copy of its last row or column, which
    is cut off again. Raises UserError where `find_obstacle` has a reason.
    """
    obstacle = find_obstacle()
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
    return np.array(frame.to_ndarray(format="rgb24"), np.uint8)  # a copy: the decoder owns the other


Change = Callable[[BoxedCrop, float, np.random.Generator], NDArray[np.uint8]]


@dataclass(frozen=True)
class Disturbance:
    """One kind of damage. strengths: in `unit`, the first of them none at all, then with more and more damage; label:
    how a reader says a strength; change: gives the crop, uint8 (h, w, 3), at a strength other than none.
    """

    name: str
    unit: str
    strengths: tuple[float, ...]
    label: str
    change: Change

    def tell(self, level: int) -> str:
        """`none`, `quality 50`, ...; level: place among the strengths."""
        return self.label.format(self.strengths[level]) if level else "none"


def _on_picture(change: Callable[[Picture, float], Picture], unit: float = 1) -> Change:
    """A change of the picture alone, which is given the strength in units of its own."""
    return lambda face, strength, _: change(face.picture, strength / unit)


def _add_noise(face: BoxedCrop, sigma: float, rng: np.random.Generator) -> Picture:
    return add_noise(face.picture, sigma, rng)


def _jitter(face: BoxedCrop, percent: float, rng: np.random.Generator) -> Picture:
    return face.jitter(percent / 100, rng)


_STEPS = (0, 20, 40, 60, 80)
DISTURBANCES = (
    Disturbance("jpeg", "quality", (100, 90, 70, 50, 30), "quality {:g}", _on_picture(compress_jpeg)),
    Disturbance("h264", "CRF", (0, 23, 28, 35, 40), "CRF {:g}", _on_picture(recompress_h264)),
    Disturbance(
        "resize", "% of the side kept", (100, 75, 50, 25), "to {:g} % and back", _on_picture(lose_resolution, 100)
    ),
    Disturbance(
        "blur", "sigma, % of the side", (0, 0.5, 1, 1.5, 2), "sigma {:g} % of the side", _on_picture(blur, 100)
    ),
    Disturbance("noise", "sigma, levels of 255", (0, 5, 10, 20, 30), "sigma {:g} levels", _add_noise),
    # Two curves: the area under one that ran from dark over undisturbed to bright would mean nothing.
    Disturbance("darker", "% of the light taken away", _STEPS, "{:g} % darker", _on_picture(change_light, -100)),
    Disturbance("brighter", "% of light added", _STEPS, "{:g} % brighter", _on_picture(change_light, 100)),
    Disturbance("crop_jitter", "% of the side", (0, 5, 10, 15, 20), "by {:g} % of the side", _jitter),
    Disturbance("social_media", "passes", (0, 1, 2, 3), "{:g} x", _on_picture(share_online)),
)


def disturb(face: BoxedCrop, disturbance: Disturbance, level: int, *, seed: int, index: int) -> NDArray[np.uint8]:
    """The crop after one disturbance: uint8 (h, w, 3) RGB, the crop's shape but for jitter; not to be written to.

    level: place among its strengths, 0 none; index: which face of its set this is, >= 0. Raises UserError for `h264`
    where the package av is absent (`find_obstacle`).
    """
    if level == 0:
        return face.picture
    strength = disturbance.strengths[level]
    number = zlib.crc32(f"{disturbance.name}/{strength:g}".encode())
    return disturbance.change(face, strength, build_generator(seed, number, index))
