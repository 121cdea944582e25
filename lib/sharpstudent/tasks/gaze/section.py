"""Declares the gaze task's own config keys. It loads no torch: the command line is checked before anything heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from sharpstudent.config.run_config import Count, PathText, Share, TaskSection, usual


class GazeSection(TaskSection):
    """The keys that say where pictures with heads come from, and how samples are made of them.

    A sample is a picture with all its labelled heads; a row is a head.
    """

    shared_defaults: ClassVar[Mapping[str, Any]] = {
        "student": "gazelle_dinov3_vit_tiny",
        "teacher": "gazelle_dinov3_vits16plus",
    }

    layout: Literal["gazefollow", "vat"] = Field(
        "gazefollow",
        description="gazefollow: tables of single pictures (GazeFollow, GazeFollow extended); vat: a text file of each "
        "person of each clip (VideoAttentionTarget). Either one also as {train,test}_preprocessed.json",
    )
    data_root: PathText = Field("data/gazefollow_extended", description="folder of the data set, as it is unpacked")
    image_size: Annotated[int, Field(ge=32, le=2048)] = Field(
        448, description="side of the square that pictures are resized to, pixels; a model may resize it to its own"
    )
    validation_share: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.1,
        description="share of the pictures (gazefollow) or shows (vat) of the training part that is held out to choose "
        "epochs, where the data has no validation part; the test part is never opened for that",
        json_schema_extra=usual(
            "with less, the metrics that choose an epoch are chance; with more, too little is left to train on",
            low=0.01,
            high=0.5,
        ),
    )
    split_seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(0, description="seed of the split")
    every: Count = Field(
        6, description="with vat: every so many frames of a clip are used in training and validation; the test has all"
    )
    smooth: Count = Field(
        11, description="with vat: frames over which head boxes are averaged, an odd number; 1: as they are"
    )
    crop: Share = Field(
        0.5, description="share of the training pictures that are cropped, with their heads and targets"
    )
    flip: Share = Field(0.5, description="share of the training pictures that are mirrored")
    jitter: Share = Field(0.5, description="share of the training heads whose box is moved and scaled a little")
    sigma: Annotated[float, Field(gt=0.0, le=32.0)] = Field(
        3.0, description="deviation of the target's bell, in cells of the map of 64 x 64"
    )
    feature_cache: PathText | None = Field(
        None,
        description="folder that keeps, in training, what frozen backbones compute of pictures that were seen before; "
        "it is worth it only without augmentation (crop, flip and jitter 0)",
    )
