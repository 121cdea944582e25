"""What may stand in a config file: the flat keys, the groups `stage1`, `stage2` and `teachers`, and the task's own keys
in the group `data`; all of them typed and frozen.

`resolve.py` turns them into the sections of one stage. The task's keys come from its section (`build_file_model`); this
package imports no task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import ConfigDict, Discriminator, Field, JsonValue, Tag, create_model

from sharpstudent.config.run_config import (
    Count,
    Decay,
    Frozen,
    LearningRate,
    NotNegative,
    Positive,
    Precision,
    ScheduleSection,
    Share,
    TaskKind,
    TaskSection,
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


class ModelKeys(Frozen):
    """A model by its name; every other key is an option that the task's models know."""

    model_config = ConfigDict(extra="allow")

    name: Text = Field(description="name of the architecture; the other keys of this group are its options")


def _tell_model(value: object) -> str:
    return OPTIONS_BRANCH if isinstance(value, Mapping | ModelKeys) else NAME_BRANCH


# As above, for "a name, or a name with options".
NAME_BRANCH, OPTIONS_BRANCH = "(name)", "(options)"
Architecture = Annotated[
    Annotated[Text, Tag(NAME_BRANCH)] | Annotated[ModelKeys, Tag(OPTIONS_BRANCH)], Discriminator(_tell_model)
]


def split_model(model: str | ModelKeys) -> tuple[str, dict[str, JsonValue]]:
    """The name of a model and its options."""
    return (model, {}) if isinstance(model, str) else (model.name, dict(model.model_extra or {}))


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

    model: Architecture = Field(
        description="architecture: efficientnet-b4 or a timm name; with options as a group, as `student`"
    )
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
        default=None,
        description="subtracted from each channel, 0..1; default: nothing, as self-blending weights expect",
    )
    std: tuple[Positive, Positive, Positive] | None = Field(
        default=None, description="each channel less `mean` is divided by it; default: nothing"
    )
    classes: Annotated[tuple[Text, ...], Field(min_length=2)] | None = Field(
        default=None, description="order of its logits, by the names of the classes; default: that of the task"
    )
    head: Literal["loaded", "fitted", "random-ok"] = Field(
        default="loaded",
        description="loaded: the file must hold the classification head; fitted: one is fitted to the training set "
        "before stage 2; random-ok: without one it stays random, which serves feature terms only",
    )
    reads: dict[Text, Text] = Field(
        default={},
        description="inputs that it takes from another view of the sample, "
        '{"image": "image_clean"}: its input `image` is `image_clean` of the batch',
    )
    calibrate: bool = Field(
        default=False,
        description="divide its logits by the temperature that fits them to validation; the preflight tells it",
    )


__all__ = [
    "NAME_BRANCH",
    "NUMBER_BRANCH",
    "OPTIONS_BRANCH",
    "SCHEDULE_BRANCH",
    "FileKeys",
    "ModelKeys",
    "MovingLearningRate",
    "MovingRadius",
    "Stage1Keys",
    "Stage2Keys",
    "TeacherKeys",
    "build_file_model",
    "narrow",
    "split_model",
    "take_section",
]


class FileKeys(Frozen):
    """The keys of a config file that every task shares. Flat keys mean what the two-stage guide says."""

    task: Text | None = Field(
        default=None,
        description="what is learnt: the name of a task, or `package.module:Class` of your own, looked up beside this "
        "file and in the current folder",
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        default=5, description="seed of initialisation, order and augmentation"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="auto takes cuda, then mps, then cpu"
    )
    num_workers: Annotated[int, Field(ge=0, le=1024)] = Field(
        default=2, description="loader processes; 0 loads in the training process"
    )
    output_root: Text = Field(default="output", description="folder that holds the run folders")

    student: Architecture | None = Field(
        default=None,
        description="a model that the task builds, by name (of pictures: any timm model, or efficientnet-b4); with "
        'options of the model as a group: {"name": ..., ...}',
    )
    student_init: Text = Field(
        default="random",
        description="`imagenet` (a local file under weights/, else the hub), `random`, or a file of weights",
    )
    student_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.3, description="dropout before the student's head"
    )
    pretrained_student_weights: Text | None = Field(
        default=None, description="stage 2 starts from this stage-1 checkpoint; a glob takes the newest run that fits"
    )
    teacher: Architecture | None = Field(
        default=None,
        description="architecture of the teacher: efficientnet-b4 or a timm name; or a group, as `student`",
    )
    teacher_weights: Text | None = Field(
        default=None, description="the teacher's checkpoint; a glob takes the newest that fits"
    )
    teachers: tuple[TeacherKeys, ...] | None = Field(
        default=None,
        description="one or more teachers, each with its own settings, in place of `teacher` and `teacher_weights`",
    )
    teacher_average: Literal["logits", "probabilities"] = Field(
        default="logits", description="what is averaged over several teachers"
    )

    epoch: Count = Field(default=100, description="epochs a stage")
    batch_size: Count = Field(default=16, description="items a batch; the task says what an item is")
    lr: MovingLearningRate = Field(default=0.00005, description="learning rate of stage 2; stage 1 takes twice it")
    optimizer: Literal["sgd", "adamw"] = Field(default="sgd", description="base optimiser under SAM")
    momentum: Share = Field(default=0.9, description="SGD momentum; not used by adamw")
    weight_decay: NotNegative = Field(
        default=0.0, description="weight decay, on weights only (no biases, no norm layers)"
    )
    rho: MovingRadius = Field(default=0.05, description="SAM radius (L2 norm over all parameters); 0 takes plain steps")
    rho_end: NotNegative | None = Field(
        default=None, description="SAM radius at the end, reached linearly after the warm-up; default: rho throughout"
    )
    rho_warmup: Share = Field(
        default=0.0, description="share of the steps over which rho rises from 0: the remedy for a run that collapses"
    )
    asam: bool = Field(
        default=False,
        description="adaptive SAM: the radius is relative to |w| + 0.01 of each weight; rho is then 0.5 to 1.0",
    )
    clip_norm: Positive = Field(default=1.0, description="largest L2 norm of the gradient that is applied")
    flat: Share = Field(default=0.75, description="share of the steps with a flat learning rate; then linearly to 0")
    warmup: Share = Field(default=0.0, description="share of the steps over which the learning rate rises from 0")
    selection_metric: Text | None = Field(
        default=None,
        description="validation metric that ranks epochs; the task tells which there are and which way is better",
    )
    weak_teacher_margin: NotNegative | None = Field(
        default=None,
        description="in units of `selection_metric`: before stage 2, a teacher that is worse than the student of "
        "stage 1 by more than this is refused; default: such a teacher is told and taken",
    )
    patience: Count | None = Field(
        default=None,
        description="epochs in a row without a new best after which a stage ends early; default: it never does",
    )
    max_skipped_in_a_row: Count = Field(default=50, description="non-finite steps in a row after which training stops")
    keep_best: Count = Field(default=5, description="epoch checkpoints kept, the best by `selection_metric` first")
    ema_decay: Decay | None = Field(
        default=None,
        description="keep an exponential moving average of the weights with this decay, such as 0.999; it is validated "
        "too, and the better of the two is kept",
    )

    micro_batch_size: Count | None = Field(
        default=None,
        description="items in the network at once: a larger batch passes in parts and still gives one update; default: "
        "the whole batch",
    )
    precision: Precision = Field(
        default="fp32", description="bf16 and fp16 compute under autocast; fp16 scales the loss, and weights stay fp32"
    )
    channels_last: bool = Field(default=False, description="store images and weights channels last in memory")
    gradient_checkpointing: bool = Field(
        default=False, description="keep fewer activations and compute them again: less memory, about a third more time"
    )
    compile: bool = Field(default=False, description="compile the student with torch.compile; needs a C++ compiler")
    halve_on_out_of_memory: bool = Field(
        default=False, description="when memory runs out, halve micro_batch_size and take the step again; else stop"
    )

    save_every_steps: Count | None = Field(
        default=None, description="save the state to resume from every so many steps too, not only after each epoch"
    )
    save_every_minutes: Positive | None = Field(
        default=10.0, description="save the state to resume from inside an epoch as soon as the last save is this old"
    )
    loader_timeout: Positive = Field(
        default=300.0, description="seconds without a batch after which a loader process counts as hung"
    )
    report: bool = Field(default=True, description="whether a run ends with report.html and results.json in its folder")

    dialect: Literal["two_stage", "additive"] | None = Field(
        default=None, description="which flat keys weigh the loss of stage 2; default: the one whose keys are there"
    )
    terms: tuple[dict[str, Any], ...] | None = Field(
        default=None,
        description="the loss of stage 2 as a list of terms with absolute weights, in place of the flat keys",
    )
    distill_weight: NotNegative | None = Field(
        default=None, description="dialect additive: weight of the teacher's term, added to the hard labels"
    )
    distill_temp_start: Temperature | None = Field(
        default=None, description="dialect additive: temperature at the first step; default 1"
    )
    distill_temp_end: Temperature | None = Field(
        default=None, description="dialect additive: temperature at the last step, by a cosine; default 4"
    )
    temperature: Temperature = Field(default=3.0, description="softens the distributions of teacher and student")
    use_progressive_distillation: bool = Field(
        default=True, description="false: alpha is `alpha_end` from the first epoch"
    )
    alpha_start: Share = Field(default=0.95, description="weight of the hard labels at the start")
    alpha_end: Share = Field(default=0.5, description="weight of the hard labels at the end")
    progressive_epochs: Count = Field(
        default=20, description="epochs over which alpha falls from alpha_start to alpha_end"
    )

    data: TaskSection = Field(default_factory=TaskSection, description="the keys of the task, as a group")
    stage1: Stage1Keys = Field(default_factory=Stage1Keys, description="stage 1 only: wins over the flat keys")
    stage2: Stage2Keys = Field(default_factory=Stage2Keys, description="stage 2 only: wins over the flat keys")


_Keys = TypeVar("_Keys", FileKeys, Stage1Keys, Stage2Keys)


def build_file_model(task: type[TaskKind]) -> type[FileKeys]:
    """FileKeys plus a task's own keys, as one model: what a file of that task may hold.

    The keys are in the group `data`, and beside the shared ones too where the section says so.
    """
    section = task.Section
    fields = _narrow_fields(FileKeys, task)
    if section.flat_keys:
        clash = sorted(set(section.model_fields) & set(FileKeys.model_fields))
        if clash:
            raise ValueError(f"{section.__name__} redefines shared keys: {clash}")
        fields |= {name: (info.annotation, info) for name, info in section.model_fields.items()}
    for name, group in (("stage1", narrow(Stage1Keys, task)), ("stage2", narrow(Stage2Keys, task)), ("data", section)):
        fields[name] = (group, Field(default_factory=group, description=FileKeys.model_fields[name].description))
    return create_model(f"{section.__name__}File", __base__=FileKeys, **fields)


def narrow(keys: type[_Keys], task: type[TaskKind]) -> type[_Keys]:
    """A model of keys that takes, for `selection_metric`, the names of the task's metrics and no other text, and whose
    defaults are those of the task where it has its own.
    """
    fields = _narrow_fields(keys, task)
    return create_model(keys.__name__, __base__=keys, __module__=keys.__module__, __doc__=keys.__doc__, **fields)


def _narrow_fields(keys: type[Stage1Keys | FileKeys], task: type[TaskKind]) -> dict[str, Any]:
    """(type, field) of the keys that a task has a say in."""
    words = tuple(task.metrics)
    choices: Any = Literal[words]  # pyright: ignore[reportInvalidTypeForm]
    defaults: dict[str, Any] = {"selection_metric": None}
    fields: dict[str, Any] = {}
    if issubclass(keys, FileKeys):
        fields["task"] = (Text, Field(None, description=keys.model_fields["task"].description))
        defaults = {"selection_metric": words[0], **task.Section.shared_defaults}
    for name, default in defaults.items():
        info = keys.model_fields[name]
        kind: Any = (choices | None) if name == "selection_metric" else info.rebuild_annotation()
        fields[name] = (kind if default is None else _drop_none(kind), Field(default, description=info.description))
    return fields


def _drop_none(kind: Any) -> Any:
    """A type without `| None`, for a key that has a default."""
    parts = [part for part in get_args(kind) if part is not type(None)]
    return parts[0] if type(None) in get_args(kind) and len(parts) == 1 else kind


def take_section(keys: FileKeys, section: type[TaskSection]) -> TaskSection:
    """The task's own keys, from the group `data` and from beside the shared keys; no key stands in both."""
    if not section.flat_keys:
        return keys.data
    own = {name: getattr(keys, name) for name in section.model_fields}
    return section(**own | {name: getattr(keys.data, name) for name in keys.data.model_fields_set})
