"""Declares the deepfake task's own config keys.

It loads no torch: the command line is checked before anything heavy is imported.
"""

# Without `from __future__ import annotations`: pydantic would compile the text of every annotation at each start.
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from sharpstudent.config.run_config import Count, Frozen, PathText, Share, TaskSection, either, usual
from sharpstudent.core.errors import Problem, ProblemList
from sharpstudent.tasks.deepfake.augmentation import Augmentation, Degradation

CACHE_GB = 100.0  # the default of `cache_gb`
# What each kind of fake is called in tables and reports.
FAKE_NAMES = {
    "self_blend": "self-blend",
    "sbi_published": "self-blend",
    "blend_other": "blend of two people",
    "swap": "face swap",
    "labels": "fake",
}


class FakeShares(Frozen):
    """Kinds of fake by their shares of the samples, which are divided by their sum."""

    self_blend: Share = Field(0.0, description="self-blends in this project's own form")
    sbi_published: Share = Field(
        0.0,
        description="self-blends with the published distributions: larger components, the factors of both axes apart",
    )
    blend_other: Share = Field(
        0.0, description="the face of another person of the same split whose landmarks are near, blended in"
    )
    swap: Share = Field(0.0, description="classical swaps with such a person, as make_swaps.py makes them")
    labels: Share = Field(0.0, description="fakes that the set has, each beside a real face; only with manifest")

    @model_validator(mode="after")
    def _check_sum(self) -> "FakeShares":
        if any(self.list_shares().values()):
            return self
        words = {
            "what": "has no share above 0",
            "expected": f"shares of {', '.join(FakeShares.model_fields)}",
            "remedy": 'write for instance {"self_blend": 0.8, "blend_other": 0.2}',
        }
        raise PydanticCustomError("own_words", "{what}", words)

    def list_shares(self) -> dict[str, float]:
        """Return the share of every kind above 0, the sum of which is 1."""
        given = {name: getattr(self, name) for name in type(self).model_fields if getattr(self, name) > 0}
        return {name: share / sum(given.values()) for name, share in given.items()}


if TYPE_CHECKING:
    Fakes = str | FakeShares
else:
    Fakes = either(Literal["blend", "labels"], FakeShares)


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
    fakes: Fakes = Field(
        "blend",
        description="blend makes fakes from real faces by self-blending; labels, only with manifest, takes its real "
        "and fake faces as they are; or the shares of several kinds in braces",
    )
    validation_fakes: Fakes | None = Field(
        None,
        exclude_if=lambda choice: choice is None,
        description="the fakes that validation, and so the choice of an epoch, rests on; null: as `fakes`",
    )
    augmentation: Augmentation = Field(
        "sbi",
        exclude_if=lambda choice: choice == "sbi",
        description="sbi: as published; video: degraded to the quality of videos, for photos that must serve them "
        "(needs the extra `video`); or a list of operations, each drawn once for a real face and its fake",
    )
    validation_augmentation: Degradation | None = Field(
        None,
        exclude_if=lambda choice: choice is None,
        description="a list of operations, or video: what happens to validation's pictures, the same in every epoch; "
        "null: nothing",
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


def check_fakes(section: DeepfakeSection) -> None:
    """Raise UserError where the source of the faces cannot give the fakes that are asked for."""
    problems = ProblemList()
    source = section.data_source
    for key in ("fakes", "validation_fakes"):
        fakes = getattr(section, key)
        is_asked = isinstance(fakes, FakeShares) or (key == "validation_fakes" and fakes is not None)
        if source == "labelled" and is_asked:
            what = "asks for fakes that are made, and data_source = 'labelled' takes pictures as they are"
            plain = f"--set {key}={'labels' if key == 'fakes' else 'null'}"
            problems.add(Problem(key, what, remedy=f"{plain}; or prepare the set and set data_source to manifest"))
        elif isinstance(fakes, FakeShares) and fakes.labels > 0 and source != "manifest":
            what = f"has a share of labels, and data_source = {source!r} reads real faces alone"
            problems.add(
                Problem(key, what, remedy="prepare the set with prepare_faces.py and set data_source to manifest")
            )
    problems.raise_if_any()
