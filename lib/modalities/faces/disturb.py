"""Disturbances of a face crop at fixed strengths: what a detector has to stand beyond clean pictures.

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

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib.modalities.faces.disturb_cut import FaceCut
from lib.modalities.faces.disturb_pixels import (
    add_noise,
    blur,
    change_light,
    compress_jpeg,
    lose_resolution,
    share_online,
)
from lib.modalities.faces.recompress import recompress_h264
from lib.random import build_generator

Change = Callable[[FaceCut, float, np.random.Generator], NDArray[np.uint8]]


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


DISTURBANCES = (
    Disturbance("jpeg", "quality", (100, 90, 70, 50, 30), "quality {:g}", lambda f, s, _: compress_jpeg(f.picture, s)),
    Disturbance("h264", "CRF", (0, 23, 28, 35, 40), "CRF {:g}", lambda f, s, _: recompress_h264(f.picture, s)),
    Disturbance(
        "resize",
        "% of the side kept",
        (100, 75, 50, 25),
        "to {:g} % and back",
        lambda f, s, _: lose_resolution(f.picture, s / 100),
    ),
    Disturbance(
        "blur",
        "sigma, % of the side",
        (0, 0.5, 1, 1.5, 2),
        "sigma {:g} % of the side",
        lambda f, s, _: blur(f.picture, s / 100),
    ),
    Disturbance(
        "noise",
        "sigma, levels of 255",
        (0, 5, 10, 20, 30),
        "sigma {:g} levels",
        lambda f, s, rng: add_noise(f.picture, s, rng),
    ),
    # Two curves: the area under one that ran from dark over undisturbed to bright would mean nothing.
    Disturbance(
        "darker",
        "% of the light taken away",
        (0, 20, 40, 60, 80),
        "{:g} % darker",
        lambda f, s, _: change_light(f.picture, 1 - s / 100),
    ),
    Disturbance(
        "brighter",
        "% of light added",
        (0, 20, 40, 60, 80),
        "{:g} % brighter",
        lambda f, s, _: change_light(f.picture, 1 + s / 100),
    ),
    Disturbance(
        "crop_jitter",
        "% of the side",
        (0, 5, 10, 15, 20),
        "by {:g} % of the side",
        lambda f, s, rng: f.jitter(s / 100, rng),
    ),
    Disturbance("social_media", "passes", (0, 1, 2, 3), "{:g} x", lambda f, s, _: share_online(f.picture, s)),
)


def disturb(face: FaceCut, disturbance: Disturbance, level: int, *, seed: int, index: int) -> NDArray[np.uint8]:
    """The crop after one disturbance: uint8 (h, w, 3) RGB, the crop's shape but for jitter; not to be written to.

    level: place among its strengths, 0 none; index: which face of its set this is, >= 0. Raises UserError for `h264`
    where the package av is absent (`find_obstacle`).
    """
    if level == 0:
        return face.picture
    strength = disturbance.strengths[level]
    number = zlib.crc32(f"{disturbance.name}/{strength:g}".encode())
    return disturbance.change(face, strength, build_generator(seed, number, index))
