"""The skeleton task's own config keys. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from sharpstudent.config.run_config import PathText, Share, TaskSection, Text

MOVEMENTS = (
    *("deep squat", "hurdle step", "inline lunge", "side lunge", "sit to stand", "standing active straight leg raise"),
    *("standing shoulder abduction", "standing shoulder extension", "standing shoulder rotation"),
    "standing shoulder scaption",
)
UIPRMD_CLASSES = tuple(f"{name}, {how}" for name in MOVEMENTS for how in ("wrong", "right"))


class SkeletonSection(TaskSection):
    """Where sequences come from, who is held out, and how a sequence becomes a sample."""

    shared_defaults: ClassVar[Mapping[str, Any]] = {"student": "last_e_nano", "teacher": "last_e_base"}

    data_source: Literal["uiprmd", "npz", "ntu", "mib", "ctrgcn", "pyskl"] = Field(
        "uiprmd",
        description="uiprmd: a folder with ui_prmd_kinect.npz and index.csv; npz: a file of your own; ntu: a folder of "
        ".skeleton files; mib: a folder of train_joint.npy, train_label.pkl and so on; ctrgcn: the .npz of CTR-GCN; "
        "pyskl: the .pkl of pyskl (docs/skeleton.md shows each)",
    )
    data_root: PathText = Field("data/uiprmd", description="the folder or file of data_source")
    protocol: Literal["xsub60", "xview60", "xsub120", "xset120"] = Field(
        "xsub60", description="the official split of NTU RGB+D, for ntu and pyskl"
    )
    skip_list: PathText | None = Field(
        None,
        description="a text file of names that ntu leaves out, one a line: the lists of 302 and 535 faulty samples",
    )
    unit: Literal["mm", "m"] = Field("mm", description="unit of the positions: millimetres or metres")
    skeleton: Text = Field(
        "uiprmd22", description="the layout of the joints: ntu25, uiprmd22, coco17, or a .json file (docs/skeleton.md)"
    )
    partition: Literal["distance", "truncated"] = Field(
        "distance",
        description="how a joint's neighbours are divided: by their distance to the root, or counting no further than "
        "one bone, as LAST's origin does",
    )
    bodies: Literal[1, 2] = Field(
        1, description="bodies of a sample; LAST-E judges the first, a LAST-v2 teacher the mean of both"
    )
    classes: tuple[Text, ...] = Field(UIPRMD_CLASSES, description="names of the classes, in the order of their numbers")
    validation_subjects: tuple[Text, ...] | None = Field(
        None,
        description="people of the training part whose sequences choose the epoch; null: 7 and 8 of uiprmd, of other "
        "data every tenth person",
    )
    test_subjects: tuple[Text, ...] | None = Field(
        None,
        description="people of the split test, opened by evaluation alone; null: 9 and 10 of uiprmd, of other data its "
        "own test part",
    )
    frames: Annotated[int, Field(ge=8, le=512)] = Field(32, description="frames that a sequence is resampled to")
    rate: Annotated[float, Field(gt=0.0, le=1000.0)] = Field(
        30.0, description="frames a second of the recordings, for the speed at which a report shows them"
    )
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
    mirror: Share = Field(0.0, description="training: share of the sequences that are mirrored, left joints with right")
    reverse: Share = Field(0.0, description="training: share of the sequences that run backwards")
