"""The skeleton task's own config keys. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from sharpstudent.config.run_config import PathText, TaskSection, Text

MOVEMENTS = (
    *("deep squat", "hurdle step", "inline lunge", "side lunge", "sit to stand", "standing active straight leg raise"),
    *("standing shoulder abduction", "standing shoulder extension", "standing shoulder rotation"),
    "standing shoulder scaption",
)
UIPRMD_CLASSES = tuple(f"{name}, {how}" for name in MOVEMENTS for how in ("wrong", "right"))


class SkeletonSection(TaskSection):
    """Where sequences come from, who is held out, and how a sequence becomes a sample."""

    shared_defaults: ClassVar[Mapping[str, Any]] = {"student": "last_e_nano", "teacher": "last_e_base"}

    data_source: Literal["uiprmd", "npz"] = Field(
        "uiprmd",
        description="uiprmd: a folder with ui_prmd_kinect.npz and index.csv; npz: a file of your own, docs/skeleton.md",
    )
    data_root: PathText = Field("data/uiprmd", description="the folder of uiprmd, or the file of npz")
    unit: Literal["mm", "m"] = Field("mm", description="unit of the positions: millimetres or metres")
    skeleton: Literal["ntu25", "uiprmd22", "coco17"] = Field("uiprmd22", description="the layout of the joints")
    classes: tuple[Text, ...] = Field(UIPRMD_CLASSES, description="names of the classes, in the order of their numbers")
    validation_subjects: tuple[Text, ...] = Field(("7", "8"), description="people whose sequences choose the epoch")
    test_subjects: tuple[Text, ...] = Field(("9", "10"), description="people of the split test, opened by evaluation")
    frames: Annotated[int, Field(ge=8, le=512)] = Field(32, description="frames that a sequence is resampled to")
    rotation: Annotated[float, Field(ge=0.0, le=180.0)] = Field(
        15.0, description="training: largest turn about the vertical axis [degrees], to both sides"
    )
    scale: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.1, description="training: largest change of size, as a share"
    )
    noise: Annotated[float, Field(ge=0.0, le=0.5)] = Field(
        0.005, description="training: standard deviation of the noise of each coordinate [m]"
    )
    crop: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.1, description="training: largest share of a sequence's frames that is cut off, at both ends together"
    )
