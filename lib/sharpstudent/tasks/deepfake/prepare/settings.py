"""What the user asked for, what of it the set remembers, and how faces are cut: what decides the bytes of a crop, and
nothing else.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class CropSettings:
    """frames: sampled from each video by linspace over its decodable frames; faces: the largest person of a clip, or
    all; image_size: the network's input that the crops shall serve [px], larger faces are scaled down to 1.25 times
    it; min_face: faces whose box is narrower or lower are rejected [px of the frame]; picture: how crops are stored.
    """

    frames: int = 32
    faces: Literal["largest", "all"] = "largest"
    image_size: int = 380
    min_face: int = 40
    picture: Literal["png", "jpg"] = "png"


@dataclass(frozen=True)
class Request:
    """One preparation, as the command line names it. label: 0, 1, or None for what the folders say; clip_timeout:
    for one clip [s]; overwrite: what is finished in dest may be replaced or removed; retry: clips whose worker was
    lost are tried again.
    """

    source: Path
    dest: Path
    layout: str | None = None
    label: int | None = None
    crop: CropSettings = field(default_factory=CropSettings)
    shards: bool = False
    workers: int = 1
    validation_share: float = 0.2
    test_share: float = 0.0
    split_seed: int = 0
    clip_timeout: float = 600.0
    overwrite: bool = False
    retry: bool = False

    def describe(self, layout: str) -> dict[str, Any]:
        """What decides the set, as plain JSON: no path of this machine, nothing of workers and time."""
        return {
            "source": self.source.resolve().name.encode("utf-8", "backslashreplace").decode(),
            "layout": layout,
            **asdict(self.crop),
            "label": None if self.label is None else ("real", "fake")[self.label],
            "validation_share": self.validation_share,
            "test_share": self.test_share,
            "split_seed": self.split_seed,
            "shards": self.shards,
        }


# What the crops do not depend on: with other values of these only the manifest is written anew.
MANIFEST_SETTINGS = ("label", "validation_share", "test_share", "split_seed", "shards")
