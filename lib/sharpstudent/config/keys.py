"""The keys of a config file: flat keys, the groups `stage1`, `stage2` and `teachers`, and the group `data` of the task.

All of them are typed and frozen. A key is declared once: here, or in run_config.py if the resolved config has it, too.
`resolve.py` turns the keys into the sections of one stage. The keys of a task come from its section
(`build_file_model`); this package imports no task.
"""

# Without `from __future__ import annotations`: pydantic would compile the text of every annotation at each start.
import functools
from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar, get_args

from pydantic import AliasChoices, ConfigDict, Field, JsonValue, create_model

from sharpstudent.config.run_config import (
    USUAL_TEMPERATURE,
    AnySchedule,
    ComputeSection,
    Count,
    Frozen,
    LearningRate,
    NotNegative,
    OptimizerKeys,
    PathText,
    Radius,
    RunKeys,
    Share,
    Stage,
    TaskKind,
    TaskSection,
    TeacherSettings,
    Temperature,
    Text,
    TrainingKeys,
    Tune,
    either,
    usual,
)
from sharpstudent.config.terms import TermKeys, build_terms_type, list_terms
from sharpstudent.core.schedules import ConfigSchedule

Keys = TypeVar("Keys", bound=Frozen)


class ModelKeys(Frozen):
    """A model by its name; every other key is an option that the task's models know."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow")

    name: Text = Field(description="name of the architecture; the other keys of this group are its options")


if TYPE_CHECKING:
    ScheduledRate = float | ConfigSchedule
    ScheduledRadius = float | ConfigSchedule
    Architecture = str | ModelKeys
else:
    ScheduledRate = either(LearningRate, AnySchedule)
    ScheduledRadius = either(Radius, AnySchedule)
    Architecture = either(Text, ModelKeys)


def split_model(model: str | ModelKeys) -> tuple[str, dict[str, JsonValue]]:
    """Split the value of a model key into the name of the model and its options."""
    return (model, {}) if isinstance(model, str) else (model.name, dict(model.model_extra or {}))


class TeacherKeys(TeacherSettings):
    """`teachers[i].*`: one teacher of stage 2."""

    model: Architecture = Field(
        description="architecture: efficientnet-b4 or a timm name; with options as a group, as `student`"
    )


class OptionalKeys(Frozen):
    """Keys that a file may leave out and that the resolved config always has."""

    task: Text | None = Field(
        default=None,
        description="what to learn: the name of a task, or `package.module:Class` of your own, looked up beside this "
        "file and in the current folder",
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        default=5, description="seed of initialisation, order and augmentation"
    )
    selection_metric: Text | None = Field(
        default=None,
        description="validation metric that ranks epochs; the task names the metrics and their directions",
    )


class PresetKeys(Frozen):
    """Flat keys that stand for the terms of stage 2 (presets.py)."""

    distill_weight: NotNegative | None = Field(
        default=None,
        description="preset additive: weight of the teacher's term, added to the hard labels",
        json_schema_extra=usual("the labels then hardly count", high=100),
    )
    distill_temp_start: Temperature | None = Field(
        default=None,
        description="preset additive: temperature at the first step; default 1",
        json_schema_extra=USUAL_TEMPERATURE,
    )
    distill_temp_end: Temperature | None = Field(
        default=None,
        description="preset additive: temperature at the last step, along a cosine; default 4",
        json_schema_extra=USUAL_TEMPERATURE,
    )
    temperature: Temperature = Field(
        default=3.0,
        description="softens the distributions of teacher and student",
        json_schema_extra=USUAL_TEMPERATURE,
    )
    use_progressive_distillation: bool = Field(
        default=True, description="false: alpha is `alpha_end` from the first epoch"
    )
    alpha_start: Share = Field(default=0.95, description="weight of the hard labels at the start")
    alpha_end: Share = Field(default=0.5, description="weight of the hard labels at the end")
    progressive_epochs: Count = Field(
        default=20, description="epochs over which alpha falls from alpha_start to alpha_end"
    )


class FlatKeys(PresetKeys, ComputeSection, OptimizerKeys, TrainingKeys, RunKeys, OptionalKeys):
    """The flat keys, which mean what the two-stage guide says."""

    student: Architecture | None = Field(
        default=None,
        description="the model to train, by a name that the task knows (for pictures: any timm model, or "
        'efficientnet-b4); as a group, with options of the model: {"name": ..., ...}',
    )
    student_init: PathText = Field(
        default="random",
        description="first weights: `imagenet` (a file under weights/, else the hub), `random`, or a file of weights",
    )
    start: PathText | None = Field(
        default=None,
        description="stage 1 starts from this trained model, its head included, in place of student_init: a run, a "
        "checkpoint, the name of a model that comes with the package, or a glob, which takes the newest that fits",
    )
    student_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.3,
        description="dropout before the student's head",
        json_schema_extra=usual("nearly nothing of the features then reaches the head", high=0.8),
    )
    tune: Tune = Field(
        default="all",
        description="what of the model learns: `all`; `norms`, normalisation layers and the head; `lora`, low-rank "
        'adapters of linear layers and the head, with options {"kind": "lora", "rank": 8, "alpha": 16}; `head`. The '
        "rest stays as it is, in evaluation mode",
    )
    pretrained_student_weights: PathText | None = Field(
        default=None, description="stage 2 starts from this stage-1 checkpoint; a glob takes the newest run that fits"
    )
    student_use_ema: bool = Field(
        default=False,
        description="of a file that holds averaged weights (EMA) beside the plain ones, take the averaged ones",
    )
    teacher: Architecture | None = Field(
        default=None,
        description="architecture of the teacher: efficientnet-b4 or a timm name; or a group, as `student`",
    )
    teacher_weights: PathText | None = Field(
        default=None, description="the teacher's checkpoint; a glob takes the newest that fits"
    )
    teachers: tuple[TeacherKeys, ...] | None = Field(
        default=None,
        description="one or more teachers, each with its own settings, in place of `teacher` and `teacher_weights`",
    )
    epoch: Count = Field(default=100, description="epochs of each stage")
    batch_per_rank: Count | None = Field(
        default=None,
        description="samples per batch in each rank (torchrun), in place of `batch_size`: the batch then grows with "
        "the number of ranks, and `lr` does not",
    )
    lr: ScheduledRate = Field(
        default=0.00005,
        description="learning rate of stage 2; stage 1 takes twice it",
        json_schema_extra=usual("steps as long as this throw the weights far off, and the loss tends to NaN", high=1),
    )
    optimizer: Literal["sgd", "adamw"] = Field(default="sgd", description="base optimiser under SAM")
    rho: ScheduledRadius = Field(default=0.05, description="SAM radius (L2 norm over all parameters); 0 turns SAM off")
    preset: Literal["two_stage", "additive"] | None = Field(
        default=None,
        validation_alias=AliasChoices("preset", "dialect"),  # its earlier name
        description="the preset of flat keys for the loss of stage 2; default: the one whose keys the file has",
    )
    terms: tuple[TermKeys, ...] | None = Field(
        default=None,
        description="the loss of stage 2 as a list of terms with absolute weights, in place of the flat keys",
    )


_BOTH_STAGES = (
    *("epoch", "batch_size", "batch_per_rank", "lr", "optimizer", "rho", *OptimizerKeys.model_fields),
    *(
        "ema_decay",
        "start_share",
        "selection_metric",
        "patience",
        "micro_batch_size",
        "terms",
        "tune",
    ),
)
_OWN_RULES = {
    "stage1": {
        "epoch": "epochs of stage 1; default: the flat `epoch`",
        "batch_size": "samples per batch in stage 1; default: the flat `batch_size`",
        "lr": "learning rate of stage 1; default: twice the flat `lr`",
        "terms": "the loss of this stage as a list of terms; stage 1 learns from hard labels otherwise",
    },
    "stage2": {
        "epoch": "epochs of stage 2; default: the flat `epoch`",
        "batch_size": "samples per batch in stage 2; default: max(1, flat `batch_size` // 4)",
        "lr": "learning rate of stage 2; default: the flat `lr`",
    },
}


class StageKeys(Frozen):
    """A group of keys that win over the flat keys of the same name in one stage; null: take the flat key."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


def _build_stage(group: str, keys: Collection[str]) -> type[StageKeys]:
    """Build the pydantic model of `stage1` or `stage2`: its keys are declared as flat keys, and null by default."""
    fields: dict[str, Any] = {}
    for key in keys:
        flat = FlatKeys.model_fields[key]
        description = _OWN_RULES[group].get(key, f"in this stage: {flat.description}")
        fields[key] = (flat.rebuild_annotation() | None, Field(default=None, description=description))
    return create_model(f"{group.capitalize()}Keys", __base__=StageKeys, __doc__=f"`{group}.*`", **fields)


Stage1Keys: type[StageKeys] = _build_stage("stage1", _BOTH_STAGES)
Stage2Keys: type[StageKeys] = _build_stage("stage2", [*_BOTH_STAGES, *PresetKeys.model_fields])


class FileKeys(FlatKeys):
    """The keys of a config file that every task shares."""

    data: TaskSection = Field(default_factory=TaskSection, description="the keys of the task, as a group")
    stage1: StageKeys = Field(default_factory=Stage1Keys, description="stage 1 only: wins over the flat keys")
    stage2: StageKeys = Field(default_factory=Stage2Keys, description="stage 2 only: wins over the flat keys")

    def get_group(self, stage: Stage) -> StageKeys:
        """Return the group of keys that have precedence in a stage."""
        return self.stage1 if stage == 1 else self.stage2


def build_file_model(task: type[TaskKind], *, has_terms: bool = True) -> type[FileKeys]:
    """Build the pydantic model of a config file: FileKeys and the keys of a task.

    The task's keys are in the group `data`, and also beside the shared keys where its section says so.

    Args:
        task: The class of the task.
        has_terms: Whether the file may have the key `terms`. Without it the model of each kind of term is not built,
            which is a quarter of the time that the reading of a config takes.

    Returns:
        The model.
    """
    section = task.Section
    fields = _narrow_fields(FileKeys, task, has_terms)
    if section.flat_keys:
        clash = sorted(set(section.model_fields) & set(FileKeys.model_fields))
        if clash:
            raise ValueError(f"{section.__name__} redefines shared keys: {clash}")
        fields |= {name: (info.annotation, info) for name, info in section.model_fields.items()}
    stage1, stage2 = (narrow(keys, task, has_terms=has_terms) for keys in (Stage1Keys, Stage2Keys))
    for name, group in (("stage1", stage1), ("stage2", stage2), ("data", section)):
        # Built by hand, a default needs no schema of its own beside the one within the file's.
        fields[name] = (
            group,
            Field(default_factory=group.model_construct, description=FileKeys.model_fields[name].description),
        )
    return create_model(f"{section.__name__}File", __base__=FileKeys, **fields)


def narrow(keys: type[Keys], task: type[TaskKind], *, has_terms: bool = True) -> type[Keys]:
    """Adapt a model of keys to one task.

    Args:
        keys: FileKeys, or the keys of a stage.
        task: The class of the task.
        has_terms: Whether the key `terms` may be given, as for `build_file_model`.

    Returns:
        A model in which `selection_metric` is one of the task's metrics, `terms` are those that it has, and defaults
        are those of the task where it has some.
    """
    fields = _narrow_fields(keys, task, has_terms)
    return create_model(keys.__name__, __base__=keys, __module__=keys.__module__, __doc__=keys.__doc__, **fields)


def _narrow_fields(keys: type[Frozen], task: type[TaskKind], has_terms: bool) -> dict[str, Any]:
    """Return (type, field) for each key whose type or default depends on the task."""
    words = tuple(task.metrics)
    choices: Any = Literal[words]  # pyright: ignore[reportInvalidTypeForm]
    defaults: dict[str, Any] = {"selection_metric": None}
    fields: dict[str, Any] = {}
    if has_terms:
        description = keys.model_fields["terms"].description
        fields["terms"] = (_find_terms_type(task) | None, Field(None, description=description))
    if issubclass(keys, FileKeys):
        fields["task"] = (Text, Field(None, description=keys.model_fields["task"].description))
        defaults = {"selection_metric": words[0], **task.Section.shared_defaults}
    for name, default in defaults.items():
        info = keys.model_fields[name]
        kind: Any = (choices | None) if name == "selection_metric" else info.rebuild_annotation()
        fields[name] = (kind if default is None else _drop_none(kind), Field(default, description=info.description))
    return fields


@functools.cache
def _find_terms_type(task: type[TaskKind]) -> Any:
    return build_terms_type(list_terms(task.terms))


def _drop_none(kind: Any) -> Any:
    """Remove `| None` from a type, for a key that has a default."""
    parts = [part for part in get_args(kind) if part is not type(None)]
    return parts[0] if type(None) in get_args(kind) and len(parts) == 1 else kind


def take_section(keys: FileKeys, section: type[TaskSection]) -> TaskSection:
    """Collect the task's keys from the group `data`, and from the top level where the section allows that.

    Args:
        keys: The keys of a file; none of the task's keys is in both places.
        section: The class of the task's section.

    Returns:
        The section.
    """
    if not section.flat_keys:
        return keys.data
    own = {name: getattr(keys, name) for name in section.model_fields}
    return section(**own | {name: getattr(keys.data, name) for name in keys.data.model_fields_set})
