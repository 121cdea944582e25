"""What may stand in the groups of a config file (`stage1`, `stage2`, each of `teachers`), and numbers that may move."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from lib.config.sections import (
    Count,
    Decay,
    Frozen,
    LearningRate,
    NotNegative,
    Positive,
    ScheduleSection,
    Share,
    Temperature,
    Text,
)


def _tell_branch(value: object) -> str:
    return SCHEDULE_BRANCH if isinstance(value, Mapping | ScheduleSection) else NUMBER_BRANCH


# The two branches of "a number or a schedule". pydantic puts them into the place of an error, where messages.py drops
# them; the brackets keep them apart from keys.
NUMBER_BRANCH, SCHEDULE_BRANCH = "(number)", "(schedule)"
_Schedule = Annotated[ScheduleSection, Tag(SCHEDULE_BRANCH)]
MovingLearningRate = Annotated[Annotated[LearningRate, Tag(NUMBER_BRANCH)] | _Schedule, Discriminator(_tell_branch)]
MovingRadius = Annotated[Annotated[NotNegative, Tag(NUMBER_BRANCH)] | _Schedule, Discriminator(_tell_branch)]


class Stage1Keys(Frozen):
    """`stage1.*`: wins over the flat keys in stage 1."""

    epoch: Count | None = Field(default=None, description="epochs of stage 1; default: the flat `epoch`")
    batch_size: Count | None = Field(
        default=None, description="items a batch in stage 1; default: the flat `batch_size`"
    )
    lr: MovingLearningRate | None = Field(
        default=None, description="learning rate of stage 1; default: twice the flat `lr`"
    )
    optimizer: Literal["sgd", "adamw"] | None = Field(default=None, description="base optimiser of this stage")
    momentum: Share | None = Field(default=None, description="SGD momentum of this stage")
    weight_decay: NotNegative | None = Field(default=None, description="weight decay of this stage")
    rho: MovingRadius | None = Field(
        default=None, description="SAM radius of this stage (L2 norm); 0 takes plain steps"
    )
    clip_norm: Positive | None = Field(
        default=None, description="largest L2 norm of the applied gradient in this stage"
    )
    flat: Share | None = Field(default=None, description="share of the steps with a flat learning rate in this stage")
    warmup: Share | None = Field(
        default=None, description="share of the steps over which the learning rate rises from 0"
    )
    asam: bool | None = Field(default=None, description="relative SAM radius in this stage")
    rho_end: NotNegative | None = Field(default=None, description="SAM radius at the end of this stage")
    rho_warmup: Share | None = Field(default=None, description="share of the steps over which rho rises from 0")
    ema_decay: Decay | None = Field(default=None, description="decay of the averaged weights of this stage")
    selection_metric: Text | None = Field(default=None, description="the metric that ranks epochs of this stage")
    patience: Count | None = Field(default=None, description="epochs without a new best that end this stage early")
    micro_batch_size: Count | None = Field(default=None, description="items in the network at once in this stage")
    terms: tuple[dict[str, Any], ...] | None = Field(
        default=None, description="the loss of this stage as a list of terms; stage 1 learns from hard labels otherwise"
    )


class Stage2Keys(Stage1Keys):
    """`stage2.*`: wins over the flat keys in stage 2."""

    epoch: Count | None = Field(default=None, description="epochs of stage 2; default: the flat `epoch`")
    batch_size: Count | None = Field(
        default=None, description="items a batch in stage 2; default: max(1, flat `batch_size` // 4)"
    )
    lr: MovingLearningRate | None = Field(default=None, description="learning rate of stage 2; default: the flat `lr`")
    distill_weight: NotNegative | None = Field(default=None, description="dialect additive, in stage 2")
    distill_temp_start: Temperature | None = Field(default=None, description="dialect additive, in stage 2")
    distill_temp_end: Temperature | None = Field(default=None, description="dialect additive, in stage 2")
    temperature: Temperature | None = Field(default=None, description="distillation temperature of stage 2")
    use_progressive_distillation: bool | None = Field(default=None, description="progressive alpha table in stage 2")
    alpha_start: Share | None = Field(default=None, description="weight of the hard labels at the start of stage 2")
    alpha_end: Share | None = Field(default=None, description="weight of the hard labels at the end of stage 2")
    progressive_epochs: Count | None = Field(default=None, description="epochs over which alpha falls in stage 2")


class TeacherKeys(Frozen):
    """`teachers[i].*`: one teacher of stage 2."""

    model: Text = Field(description="architecture: efficientnet-b4 or a timm name")
    weights: Text | None = Field(
        default=None,
        description="its checkpoint; a glob takes the newest that fits; null only with a random head, or with init "
        "imagenet and a fitted one",
    )
    weight: Annotated[float, Field(gt=0.0, le=1000.0)] = Field(
        default=1.0, description="its share in the teachers' average; the shares are divided by their sum"
    )
    init: Literal["none", "imagenet"] = Field(
        default="none",
        description="imagenet: weights/NAME.imagenet.*, else timm's hub, are loaded first, and `weights` after them",
    )
    input_size: Annotated[int, Field(ge=8, le=4096)] | None = Field(
        default=None, description="the batch is resized to this side [px] for this teacher; default: as it is"
    )
    mean: tuple[float, float, float] | None = Field(
        default=None, description="subtracted from RGB in 0..1; default: nothing, as self-blending weights expect"
    )
    std: tuple[Positive, Positive, Positive] | None = Field(
        default=None, description="RGB less `mean` is divided by it; default: nothing"
    )
    classes: Annotated[tuple[Text, ...], Field(min_length=2)] | None = Field(
        default=None, description='order of its logits, such as ["fake", "real"]; default: that of the task'
    )
    head: Literal["loaded", "fitted", "random-ok"] = Field(
        default="loaded",
        description="loaded: the file must hold the classification head; fitted: one is fitted to the training set "
        "before stage 2; random-ok: without one it stays random, which serves feature terms only",
    )
    calibrate: bool = Field(
        default=False,
        description="divide its logits by the temperature that fits them to validation; the preflight tells it",
    )
