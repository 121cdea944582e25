"""Frozen typed models of what a run is made of (`RunConfig`), in native form, and the types that they share with the
keys of a file (`keys.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

if TYPE_CHECKING:
    from sharpstudent.config.terms import TermSpec

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
# Upper bounds catch slips of the pen before they become an infinite loss or an endless table.
LearningRate = Annotated[float, Field(gt=0.0, le=100.0, allow_inf_nan=False)]
Temperature = Annotated[float, Field(gt=0.0, le=1000.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Decay = Annotated[float, Field(gt=0.0, lt=1.0)]
Precision = Literal["fp32", "bf16", "fp16"]
Text = Annotated[str, Field(min_length=1)]

Stage = Literal[1, 2]

# The script of each stage, for messages that send the user to the right one.
SCRIPTS: dict[Stage, str] = {1: "train_student_only.py", 2: "main_distillation.py"}

# What `--allow NAME` can permit: everything that is refused "unless forced" has a name here and nowhere else.
ALLOWANCES = {
    "unpretrained-student": "stage 2 without stage-1 weights (the student then starts from `student_init`)",
    "partial-weights": "weights that do not match every tensor of the backbone",
    "changed-config": "resuming with a config that differs from the run's own",
    "shared-people": "people or identical files that stand in training and in validation",
    "weak-teacher": "a teacher that is worse than the student of stage 1 by more than `weak_teacher_margin`",
}


class Frozen(BaseModel):
    """Base of every section: unknown keys refused, no coercion of types, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)


class TaskSection(Frozen):
    """Base of a task's own keys, the group `data` of a config. A task subclasses it without importing torch.

    flat_keys: whether the keys may also stand outside the group, beside the keys of every task; then each needs a
    default. shared_defaults: other defaults for keys of every task, such as `student`.
    """

    flat_keys: ClassVar[bool] = False
    shared_defaults: ClassVar[Mapping[str, Any]] = {}


class TaskKind(Protocol):
    """What the config reads of the class of a task, `sharpstudent.task.Task`: its keys, metrics and terms by name."""

    Section: ClassVar[type[TaskSection]]
    metrics: ClassVar[Mapping[str, Any]]
    terms: ClassVar[Mapping[str, TermSpec]]


class FindTask(Protocol):
    """How the class of a task is found by its name, `sharpstudent.registry.find_task`."""

    def __call__(
        self,
        name: str,
        *,
        beside: Sequence[Path] = (),
        trusted: bool = False,
        where: str = "task",
        remedy: str | None = None,
    ) -> type[TaskKind]: ...


class ScheduleSection(Frozen):
    """A scalar over the run; epochs count from 1. What each kind needs:

    constant: value. linear, cosine: start, end, over all steps. staircase: start, end, epochs (and stairs, 4). ramp:
    value, reached from 0 after `epochs` epochs (1). table: points, epoch -> value from then on. two_stage: start until
    the epoch `epochs`, then end. `complement` takes one minus it. Formulas: core/schedules.py.
    """

    kind: Literal["constant", "linear", "cosine", "staircase", "ramp", "table", "two_stage"] = Field(
        description="the shape; what each kind needs: docs/config.md, Schedules"
    )
    value: float | None = Field(default=None, description="constant: the value; ramp: where it arrives, from 0")
    start: float | None = Field(default=None, description="value at the first step")
    end: float | None = Field(default=None, description="value at the last step; staircase, two_stage: after `epochs`")
    epochs: Count | None = Field(
        default=None, description="staircase, two_stage: epochs before `end`; ramp: epochs until `value`, 1 by default"
    )
    stairs: Count | None = Field(default=None, description="staircase: how many stairs, 4 by default")
    points: dict[str, float] | None = Field(
        default=None, description='table: epoch -> value from then on, "1" among them: {"1": 0.9, "10": 0.5}'
    )
    complement: bool = Field(default=False, description="one minus the schedule, for weights of the loss")

    @model_validator(mode="after")
    def _check_complete(self) -> Self:
        needed, optional = SCHEDULE_FIELDS[self.kind]
        given = {name for name in type(self).model_fields if getattr(self, name) is not None} - {"kind", "complement"}
        missing, extra = needed - given, given - needed - optional
        if missing or extra:
            also = f" (and may have {_join(optional)})" if optional else ""
            needs = f"a {self.kind} schedule needs {_join(needed)}{also}"
            # The lists let config/messages.py name each field by its path.
            context = {"needs": needs, "missing": sorted(missing), "extra": sorted(extra)}
            raise PydanticCustomError("schedule_fields", "{needs}, got {given}", context | {"given": _join(given)})
        if self.points is not None:
            _check_points(self.points)
        return self

    @model_serializer(mode="wrap")
    def _write_what_is_said(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the fields that this kind has no use for."""
        written: dict[str, Any] = write(self)
        return {name: value for name, value in written.items() if value is not None and value is not False}


# What each kind of schedule must have, and what it may have.
SCHEDULE_FIELDS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "constant": (frozenset({"value"}), frozenset()),
    "linear": (frozenset({"start", "end"}), frozenset()),
    "cosine": (frozenset({"start", "end"}), frozenset()),
    "staircase": (frozenset({"start", "end", "epochs"}), frozenset({"stairs"})),
    "ramp": (frozenset({"value"}), frozenset({"epochs"})),
    "table": (frozenset({"points"}), frozenset()),
    "two_stage": (frozenset({"start", "end", "epochs"}), frozenset()),
}


def _join(names: frozenset[str] | set[str]) -> str:
    return ", ".join(f"`{name}`" for name in ScheduleSection.model_fields if name in names) or "nothing"


def _check_points(points: dict[str, float]) -> None:
    """Epochs as JSON writes them, as text, each in one way only; the first must be there."""
    wrong = sorted(epoch for epoch in points if re.fullmatch("[1-9][0-9]{0,6}", epoch) is None)
    if wrong or "1" not in points:
        raise PydanticCustomError(
            "schedule_points", 'the points of a table are epochs, "1" among them', {"wrong": wrong}
        )


class _Terse(Frozen):
    """A section without those of its keys in `omitted` that have their default, as it was before there were any."""

    omitted: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _write_what_is_said(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        idle = {name for name in self.omitted if getattr(self, name) == type(self).model_fields[name].default}
        return {name: value for name, value in written.items() if name not in idle}


class StudentSection(_Terse):
    """The model that learns. `weights` is the stage-1 checkpoint that stage 2 starts from; `options` are what the
    config says of the model beside its name.
    """

    omitted: ClassVar[frozenset[str]] = frozenset({"options"})

    name: str
    init: str
    dropout: float
    weights: str | None = None
    options: dict[str, JsonValue] = {}


class TeacherSection(_Terse):
    """A frozen model that stage 2 learns from. See `TeacherKeys`."""

    omitted: ClassVar[frozenset[str]] = frozenset({"options", "reads"})

    name: str
    weights: str | None = None
    weight: float = 1.0
    init: Literal["none", "imagenet"] = "none"
    input_size: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    classes: tuple[str, ...] | None = None
    head: Literal["loaded", "fitted", "random-ok"] = "loaded"
    calibrate: bool = False
    options: dict[str, JsonValue] = {}
    reads: dict[str, str] = {}


class OptimizerSection(Frozen):
    """SAM over a base optimiser; rho, rho_end and clip_norm [L2 norm], flat and the warm-ups [share of all steps].

    With `lr_schedule`, lr is its highest value in the run, and flat and warmup are idle (1, 0); with `rho_schedule`,
    rho is its highest value, and rho_end and rho_warmup are idle (None, 0).
    """

    base: Literal["sgd", "adamw"]
    lr: float
    momentum: float
    weight_decay: float
    rho: float
    clip_norm: float
    flat: float
    warmup: float
    asam: bool = False
    rho_end: float | None = None
    rho_warmup: float = 0.0
    lr_schedule: ScheduleSection | None = None
    rho_schedule: ScheduleSection | None = None


class TermSection(Frozen):
    """One term of the loss with its absolute weight.

    name: what logs call it, unique; term: which one (config/terms.py); numbers: settings that are numbers, each a
    schedule; choices: settings that are words.
    """

    name: str
    term: str
    weight: ScheduleSection
    numbers: dict[str, ScheduleSection] = {}
    choices: dict[str, str] = {}


class TrainingSection(_Terse):
    """How long and in what portions, and which epochs are the best ones: `selection_metric` is one of the task's.

    patience: epochs without a new best that end the stage; None: it has all its epochs. weak_teacher_margin: how much
    worse than the student a teacher may be, in units of the metric; None: as much as it likes.
    """

    omitted: ClassVar[frozenset[str]] = frozenset({"weak_teacher_margin"})

    epochs: int
    batch_size: int
    max_skipped_in_a_row: int
    keep_best: int
    ema_decay: float | None = None
    selection_metric: str
    patience: int | None = None
    weak_teacher_margin: float | None = None


class ComputeSection(Frozen):
    """How a step is computed: precision, memory layout, what is traded for memory. See `FileKeys`."""

    precision: Precision = "fp32"
    channels_last: bool = False
    gradient_checkpointing: bool = False
    compile: bool = False
    micro_batch_size: int | None = None
    halve_on_out_of_memory: bool = False


class RunConfig(Frozen):
    """One stage of one run, resolved: what the run folder keeps and what the `build_*` functions read."""

    name: str
    config_name: str
    stage: Stage
    seed: int
    device: str
    num_workers: int
    output_root: str
    save_every_steps: int | None = None
    save_every_minutes: float | None = None
    loader_timeout: float = 300.0
    report: bool = True
    task: str
    task_section: SerializeAsAny[TaskSection]
    student: StudentSection
    teachers: tuple[TeacherSection, ...] = ()
    teacher_average: Literal["logits", "probabilities"] = "logits"
    training: TrainingSection
    optimizer: OptimizerSection
    compute: ComputeSection = ComputeSection()
    criterion: tuple[TermSection, ...]
    allow: tuple[str, ...] = ()
