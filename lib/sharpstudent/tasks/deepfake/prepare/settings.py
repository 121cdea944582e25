"""The request for a preparation, and which of its settings decide the set and the bytes of its crops."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from sharpstudent.core.naming import printable


@dataclass(frozen=True)
class CropSettings:
    """How faces are cropped: all settings that decide the bytes of a crop, and no others.

    Attributes:
        frames: Frames sampled from each video, evenly over its decodable frames.
        faces: "largest" for the largest person of a clip, or "all".
        image_size: The side of the network's input [px]; faces larger than 1.25 times this are scaled down to it.
        min_face: Faces whose box is narrower or lower are rejected [px of the frame].
        picture: How crops are stored, "png" or "jpg".
    """

    frames: int = 32
    faces: Literal["largest", "all"] = "largest"
    image_size: int = 380
    min_face: int = 40
    picture: Literal["png", "jpg"] = "png"


@dataclass(frozen=True)
class Request:
    """One preparation, as the command line names it.

    Attributes:
        source: The folder of photos, videos or a data set, or a table of files.
        dest: The folder for the set.
        layout: The name of the source's layout; None to recognise it.
        label: Real 0, fake 1, or None for what the folders say.
        people: What one person is, "folders" or "files"; None for folders, unless one holds too much.
        crop: How faces are cropped.
        shards: Whether crops are packed into shards.
        workers: How many processes crop clips.
        validation_share: The share of people held out for validation, where no list says it.
        test_share: The share of people kept for the test.
        split_seed: The seed that draws these people.
        clip_timeout: The time limit of one clip [s].
        overwrite: Whether finished clips in dest may be replaced or removed.
        retry: Whether clips whose worker crashed, failed or hung are tried again.
        ray: The address of a Ray cluster whose nodes crop the clips; None for processes of this machine.
        stored_source: The address of SOURCE in a storage; "" for a path, which `source` is.
        stored_dest: The address of DEST in a storage; "" for a path, which `dest` is.
        scratch: The folder of this machine for what stands for them; None for the user's cache.
    """

    source: Path
    dest: Path
    layout: str | None = None
    label: int | None = None
    people: Literal["folders", "files"] | None = None
    crop: CropSettings = field(default_factory=CropSettings)
    shards: bool = False
    workers: int = 1
    validation_share: float = 0.2
    test_share: float = 0.0
    split_seed: int = 0
    clip_timeout: float = 600.0
    overwrite: bool = False
    retry: bool = False
    ray: str | None = None
    stored_source: str = ""
    stored_dest: str = ""
    scratch: Path | None = None

    @property
    def shown_source(self) -> str:
        """SOURCE as the user wrote it."""
        return self.stored_source or str(self.source)

    @property
    def shown_dest(self) -> str:
        """DEST as the user wrote it."""
        return self.stored_dest or str(self.dest)

    def describe(self, layout: str) -> dict[str, Any]:
        """Return what decides the set as plain JSON, with nothing of this machine, of workers and of time."""
        return {
            "source": printable(self.source.resolve().name),
            "layout": layout,
            **asdict(self.crop),
            "label": None if self.label is None else ("real", "fake")[self.label],
            **({} if self.people is None else {"people": self.people}),
            "validation_share": self.validation_share,
            "test_share": self.test_share,
            "split_seed": self.split_seed,
            "shards": self.shards,
        }


# The crops do not depend on these: when they change, only the manifest is written anew.
MANIFEST_SETTINGS = ("label", "people", "validation_share", "test_share", "split_seed", "shards")
