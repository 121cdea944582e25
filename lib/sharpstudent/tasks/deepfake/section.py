"""Declares the deepfake task's own config keys.

It loads no torch: the command line is checked before anything heavy is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from sharpstudent.config.run_config import Count, PathText, TaskSection, usual
from sharpstudent.tasks.deepfake.augmentation import Augmentation

CACHE_GB = 100.0  # the default of `cache_gb`


class DeepfakeSection(TaskSection):
    """The keys that say where faces come from and how samples are made of them.

    A sample is a real face and the fake blended from it, or one labelled picture. `image_size` is the side of the
    square input [px].
    """

    flat_keys: ClassVar[bool] = True
    shared_defaults: ClassVar[Mapping[str, Any]] = {
        "student": "mobilevitv2_200",
        "student_init": "imagenet",
        "teacher": "efficientnet-b4",
        "channels_last": "auto",
    }
    free_keys: ClassVar[tuple[str, ...]] = ("cache_folder", "cache_gb")

    data_source: Literal["ffpp", "photos", "labelled", "manifest"] = Field(
        "ffpp",
        description="ffpp: FaceForensics++ in the SBI layout; photos: real faces by person, fakes by self-blending; "
        "labelled: one folder a class, no self-blending; manifest: what prepare_faces.py has made, of any size",
    )
    data_root: PathText = Field(
        "data/FaceForensics++",
        description="folder that holds the faces (photos, labelled: or a table of files; manifest: prepare_faces.py's "
        "DEST, or the manifest.arrow in it; s3://BUCKET/FOLDER for one in a storage)",
    )
    cache_folder: PathText | None = Field(
        None,
        description="where files of a data_root in a storage are kept on this machine; null: sharpstudent/storage in "
        "the user's cache",
    )
    cache_gb: Annotated[float, Field(gt=0.0)] = Field(
        CACHE_GB,
        description="the most that cache_folder may hold, GB of 10^9 bytes; with less than the set has, a part of the "
        "crops is read one by one",
        json_schema_extra=usual("with less, hardly a shard has room, and most crops are read one by one", low=1.0),
    )
    fakes: Literal["blend", "labels"] = Field(
        "blend",
        description="with manifest: blend makes fakes from its real faces by self-blending; labels takes its real and "
        "fake faces as they are",
    )
    augmentation: Augmentation = Field(
        "sbi",
        exclude_if=lambda choice: choice == "sbi",
        description="sbi: as published; video: degraded to the quality of videos, for photos that must serve them "
        "(needs the extra `video`); or a list of operations, each drawn once for a real face and its fake",
    )
    compression: Literal["raw", "c23", "c40"] = Field("c23", description="compression of ffpp: raw, c23 or c40")
    image_size: Annotated[int, Field(ge=32, le=2048)] = Field(380, description="side of the network's input, pixels")
    frames_per_clip: Count = Field(8, description="frames taken from each ffpp clip, evenly over its usable frames")
    repeats: Count = Field(1, description="times an epoch visits each training sample, newly augmented each time")
    validation_repeats: Count = Field(1, description="self-blends drawn for each validation sample")
    validation_share: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.2,
        description="share of people held out for validation where the source has no split of its own",
        json_schema_extra=usual(
            "with less, the metrics that choose an epoch are chance; with more, too little is left to train on",
            low=0.02,
            high=0.5,
        ),
    )
    people: Literal["folders", "files"] | None = Field(
        None,
        description="photos, labelled: what one person (or clip) is, each of the folders or each of the files; null: "
        "folders, and one that holds many pictures and most of its class is refused",
    )
    split_seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        0, description="which people are held out; independent of `seed`"
    )
