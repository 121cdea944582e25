"""Typed, frozen models of a run: the sections of `RunConfig`, and the keys that they share with a config file."""

# Without `from __future__ import annotations`: pydantic would compile the text of every annotation at each start.
import operator
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, Union, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    PlainSerializer,
    SerializeAsAny,
    Tag,
)
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from sharpstudent.core.arguments import expand_path
from sharpstudent.core.schedules import KINDS, ConfigSchedule, Count

if TYPE_CHECKING:
    from sharpstudent.config.terms import TermSpec

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
# Bounds catch typing mistakes before they become an infinite loss or an endless table.
LearningRate = Annotated[float, Field(gt=0.0, le=100.0, allow_inf_nan=False)]
LOWEST_TEMPERATURE = 0.01  # below it, logits divided by it leave the range in which exp is exact
Temperature = Annotated[float, Field(ge=LOWEST_TEMPERATURE, le=1000.0, allow_inf_nan=False)]
Radius = Annotated[float, Field(ge=0.0, le=1e38, allow_inf_nan=False)]  # float32 ends there; resolve.py warns
Decay = Annotated[float, Field(gt=0.0, lt=1.0)]
USUAL = "x-usual"  # in the schema of a key: the range in which a number makes sense, and what goes wrong beyond it


def usual(beyond: str, *, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    """Declare in which range the number of a key makes sense; one outside is taken, with a warning.

    Args:
        beyond: What goes wrong outside, as the end of the warning.
        low: The lower end; None where only too large a number is odd.
        high: The upper end; None where only too small a number is odd.

    Returns:
        What `Field` takes as `json_schema_extra`.
    """
    return {USUAL: {"low": low, "high": high, "beyond": beyond}}


USUAL_TEMPERATURE = usual(
    "softer, all classes are alike; harder, the teacher says no more than a label", low=0.5, high=50
)
Precision = Literal["fp32", "bf16", "fp16"]
Text = Annotated[str, Field(min_length=1)]


def _read_path(text: str) -> str:
    if any(ord(char) < 32 for char in text):  # a form feed, a tab
        what = {
            "what": "is a path with a control character: JSON reads a single backslash and a letter so",
            "expected": "a file, a folder or a pattern",
            "remedy": "write / between folders, or each backslash twice",
        }
        raise PydanticCustomError("own_words", "{what}", what)
    path = expand_path(text)
    if not path.strip():
        what = {
            "what": "is a path without a name",
            "expected": "a file, a folder or a pattern",
            "remedy": "write its name",
        }
        raise PydanticCustomError("own_words", "{what}", what)
    return path


PathText = Annotated[Text, AfterValidator(_read_path)]  # a file, a folder or a pattern of them

# Options of a model. Empty ones are not written, so that a config without options looks as before they existed.
Options = Annotated[dict[str, JsonValue], Field(exclude_if=operator.not_)]

Stage = Literal[1, 2]

# The script of each stage, for messages that send the user to the right one.
SCRIPTS: dict[Stage, str] = {1: "train_student_only.py", 2: "main_distillation.py"}
COMMANDS: dict[Stage, str] = {1: "train", 2: "distill"}  # the subcommands of `sharpstudent` that are the same


def advise_stage_1(pattern: str | None = None) -> str:
    """Write the command of stage 1, for messages, with the config that this process was given.

    Args:
        pattern: The pattern of stage-1 weights in that config: the name of the run is chosen so that the pattern fits.

    Returns:
        The command; CONFIG stands for a config that is not known.
    """
    name = find_run_name(pattern or "") or "pretrain"
    return f"python {SCRIPTS[1]} {shlex.quote(_find_given_config())} -n {name}"


def advise_teacher(pattern: str) -> str | None:
    """Write the command that trains a teacher, where a config of its name lies beside the one that was given.

    Args:
        pattern: The pattern of the teacher's weights, such as `output/demo_teacher_*/weights/best_model.pth`.

    Returns:
        The command; None where there is no such config.
    """
    name, given = find_run_name(pattern), Path(_find_given_config())
    own = given.with_name(f"{name}.json")
    return f"python {SCRIPTS[1]} {shlex.quote(str(own))} -n {name}" if own.is_file() and own != given else None


def _find_given_config() -> str:
    """Find the config in the command line of this process; CONFIG stands for one that is not known."""
    return next((word for word in sys.argv[1:] if word.endswith((".json", ".json5"))), "CONFIG")


def find_run_name(pattern: str) -> str | None:
    """Find the name of the run whose folders a pattern of weights means."""
    named = re.search(r"([A-Za-z0-9_][A-Za-z0-9._-]*)_\*", pattern)
    return named[1] if named else None


# The names that `--allow NAME` takes: each permits one thing that is otherwise refused. There is no other list of them.
ALLOWANCES = {
    "unpretrained-student": "stage 2 without stage-1 weights (the student then starts from `student_init`)",
    "partial-weights": "weights that do not match every tensor of the backbone",
    "changed-config": "resuming with a config that differs from the run's own",
    "shared-people": "people or identical files that are both in training and in validation",
    "weak-teacher": "a teacher that is worse than the student of stage 1 by more than `weak_teacher_margin`",
}


class Frozen(BaseModel):
    """Base of every section: unknown keys refused, no coercion of types, immutable."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True
    )


class TaskSection(Frozen):
    """Base of a task's own keys, the group `data` of a config.

    A task subclasses it without importing torch.

    Attributes:
        flat_keys: Whether the keys may also stand outside the group, beside the keys of every task. Each then needs a
            default.
        shared_defaults: The task's own defaults for keys of every task, such as `student`.
        free_keys: The keys that a resume may change, because they do not affect what is learnt.
    """

    flat_keys: ClassVar[bool] = False
    shared_defaults: ClassVar[Mapping[str, Any]] = {}
    free_keys: ClassVar[tuple[str, ...]] = ()


class TaskKind(Protocol):
    """The part of a task's class (`sharpstudent.task.Task`) that the config reads: keys, metrics and terms by name."""

    Section: ClassVar[type[TaskSection]]
    metrics: ClassVar[Mapping[str, Any]]
    terms: ClassVar[Mapping[str, "TermSpec"]]


class FindTask(Protocol):
    """The type of the function that finds the class of a task by its name: `sharpstudent.registry.find_task`."""

    def __call__(
        self,
        name: str,
        *,
        beside: Sequence[Path] = (),
        trusted: bool = False,
        where: str = "task",
        remedy: str | None = None,
    ) -> type[TaskKind]:
        """Find the class of the task of this name."""
        ...


# Prefix of the tags of unions in the locations of pydantic's errors. No user's key has it: NUL is refused in keys.
BRANCH = "\0"
UNKNOWN_MEMBER = "unknown_member"  # type of the error for an object that fits no member of a union


def build_union(key: str, members: Mapping[str, Any]) -> Any:
    """Make a type for JSON objects of several kinds; one of their keys names the kind.

    Args:
        key: That key, such as `kind`.
        members: The model for each value of the key.

    Returns:
        The type, as an annotation for pydantic.
    """

    def find_branch(value: Any) -> str | None:
        word = cast(dict[str, Any], value).get(key) if isinstance(value, dict) else getattr(value, key, None)
        return f"{BRANCH}{word}" if isinstance(word, str) and word in members else None

    branches = tuple(Annotated[member, Tag(f"{BRANCH}{word}")] for word, member in members.items())
    choose = Discriminator(find_branch, UNKNOWN_MEMBER, "is none of the kinds")
    return Annotated[Union[branches], choose]  # noqa: UP007, a type that is put together


def either(scalar: Any, group: Any, kinds: tuple[type, ...] = (dict, BaseModel, ConfigSchedule)) -> Any:
    """Make a type for a plain value, or for a JSON object or list in its place.

    Args:
        scalar: The type of the plain value.
        group: The type of the object or list.
        kinds: What of Python counts as such an object or list.

    Returns:
        The type, as an annotation for pydantic.
    """

    def find_branch(value: Any) -> str:
        return f"{BRANCH}group" if isinstance(value, kinds) else BRANCH

    return Annotated[
        Annotated[scalar, Tag(BRANCH)] | Annotated[group, Tag(f"{BRANCH}group")], Discriminator(find_branch)
    ]


if TYPE_CHECKING:
    AnySchedule = ConfigSchedule
else:  # a named type, so that its schema is built once and not in every place
    AnySchedule = TypeAliasType(
        "AnySchedule", Annotated[build_union("kind", KINDS), PlainSerializer(ConfigSchedule.as_json)]
    )


class LowRankKeys(Frozen):
    """`tune` as an object: low-rank adapters (LoRA) of the linear layers of the body."""

    kind: Literal["lora"] = Field(description="lora")
    rank: Annotated[int, Field(ge=1, le=4096)] = Field(
        default=8,
        description="rank of each adapter; 4 to 32 is usual",
        json_schema_extra=usual("the adapters are then nearly as large as the layers", high=128),
    )
    alpha: Annotated[float, Field(gt=0.0, le=1e4)] = Field(
        default=16.0, description="an adapter counts alpha / rank: with alpha in proportion, a rank needs no other lr"
    )


if TYPE_CHECKING:
    Tune = Literal["all", "norms", "lora", "head"] | LowRankKeys
else:
    Tune = either(Literal["all", "norms", "lora", "head"], LowRankKeys)


class StudentSection(Frozen):
    """The model that learns.

    Attributes:
        name: Name of the architecture.
        init: Where its first weights come from: `imagenet`, `random`, or a file.
        dropout: Dropout rate before the head.
        weights: The trained model that the stage starts from: `start` in stage 1, in stage 2 the stage-1 checkpoint.
        use_ema: Whether the averaged weights of a file are taken where it has plain ones, too.
        options: Further options of the model.
        tune: What of it learns.
    """

    name: str
    init: str
    dropout: float
    weights: str | None = None
    use_ema: bool = Field(default=False, exclude_if=operator.not_)
    options: Options = {}
    tune: Tune = Field(default="all", exclude_if=lambda tune: tune == "all")


class TeacherSettings(Frozen):
    """The settings of a teacher besides its architecture."""

    weights: PathText | None = Field(
        default=None,
        description="its checkpoint; a glob takes the newest that fits; null only with a random head, or with init "
        "imagenet and a fitted one",
    )
    weight: Annotated[float, Field(gt=0.0, le=1000.0)] = Field(
        default=1.0, description="its share in the teachers' average; the shares are divided by their sum"
    )
    use_ema: bool = Field(
        default=False,
        exclude_if=operator.not_,
        description="of a file that holds averaged weights (EMA) beside the plain ones, take the averaged ones",
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
        description="mean of each channel, 0..1, to subtract; default: none, as weights of self-blending expect",
        json_schema_extra=usual("pictures are in 0..1 here; divide a mean for 0..255 by 255", low=-1, high=1),
    )
    std: tuple[Positive, Positive, Positive] | None = Field(
        default=None,
        description="divisor of each channel after `mean` is subtracted; default: none",
        json_schema_extra=usual("pictures are in 0..1 here; divide a deviation for 0..255 by 255", low=0.01, high=1),
    )
    classes: Annotated[tuple[Text, ...], Field(min_length=2)] | None = Field(
        default=None, description="order of its logits, by the names of the classes; default: that of the task"
    )
    head: Literal["loaded", "fitted", "random-ok"] = Field(
        default="loaded",
        description="loaded: the file must have the classification head; fitted: one is fitted to the training set "
        "before stage 2; random-ok: without one it stays random, which serves feature terms only",
    )
    reads: dict[Text, Text] = Field(
        default={},
        exclude_if=operator.not_,
        description="inputs of the batch that it reads in place of those of the same name; "
        '{"image": "image_clean"}: its input `image` is `image_clean` of the batch',
    )
    calibrate: bool = Field(
        default=False,
        description="divide its logits by the temperature that fits them to validation; the preflight reports it",
    )


class TeacherSection(TeacherSettings):
    """A frozen model that stage 2 learns from."""

    name: str
    options: Options = {}


class OptimizerKeys(Frozen):
    """Keys that a config file and the optimiser's section share."""

    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        default=0.9,
        description="SGD momentum; not used by adamw. At 1 no gradient would ever be forgotten",
        json_schema_extra=usual(
            "a gradient then steers for hundreds of steps, and training tends to diverge", high=0.99
        ),
    )
    weight_decay: Annotated[float, Field(ge=0.0, le=10.0)] = Field(
        default=0.0,
        description="weight decay, on weights only (no biases, no norm layers)",
        json_schema_extra=usual("it then outweighs the loss, and the weights shrink to nothing", high=0.5),
    )
    l2_start: Annotated[float, Field(ge=0.0, le=1e5)] = Field(
        default=0.0,
        exclude_if=operator.not_,
        description="L2-SP (Li et al. 2018): pulls every weight that learns towards its value in the trained model "
        "that the stage starts from, as weight_decay pulls towards 0: a gradient in sgd, decoupled in adamw, which "
        "needs values a thousand times as large",
    )
    rho_end: Radius | None = Field(
        default=None, description="SAM radius at the end, reached linearly after the warm-up; default: rho throughout"
    )
    rho_warmup: Share = Field(
        default=0.0,
        description="share of the steps over which rho rises from 0: the remedy for a run that collapses",
        json_schema_extra=usual("the radius reaches its value late or never, so that SAM does little", high=0.5),
    )
    asam: bool = Field(
        default=False,
        description="adaptive SAM: the radius is relative to |w| + 0.01 of each weight; rho is then 0.5 to 1.0",
    )
    sam_every: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=1,
        exclude_if=lambda every: every == 1,
        description="LookSAM (Liu et al. 2022): the second pass in every so many steps only; those between add the "
        "part of its gradient that lies across their own",
    )
    sam_norm_only: bool = Field(
        default=False,
        exclude_if=operator.not_,
        description="SAM-ON (Mueller et al. 2023): only normalisation layers are perturbed, and pass 1 computes only "
        "their gradients",
    )
    sam_subset: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        default=1.0,
        exclude_if=lambda share: share == 1.0,
        description="share of the samples of a batch that pass 1 reads; pass 2 and the teacher read all of them",
        json_schema_extra=usual("the direction of the ascent is then that of next to no samples", low=0.1),
    )
    sam_last: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        default=1.0,
        exclude_if=lambda share: share == 1.0,
        description="share of the steps, the last ones, that have a second pass (Zhou et al. 2025: SAM late in "
        "training finds as flat minima); those before are plain steps",
    )
    sam_adaptive: bool = Field(
        default=False,
        exclude_if=operator.not_,
        description="AE-SAM (Jiang et al. 2023): the second pass only in steps whose gradient is large for the run so "
        "far; few at the start, most at the end",
    )
    sam_friendly: bool = Field(
        default=False,
        exclude_if=operator.not_,
        description="Friendly-SAM (Li et al. 2024): the ascent follows only what the batch's gradient has beyond the "
        "running mean of all; costs as much as SAM",
    )
    lr_factors: dict[Text, Annotated[float, Field(gt=0.0, le=1e6)]] = Field(
        default={},
        exclude_if=operator.not_,
        description="learning rate of single parameters, as a factor of lr by patterns of their names: "
        '{"head.inout_*": 1000}; of several patterns that fit, the first one counts',
    )
    sam_ranks: Literal["global", "local"] = Field(
        default="global",
        exclude_if=lambda kind: kind == "global",
        description="of several ranks (torchrun): global, all ascend along the gradient of the whole batch, as one "
        "process does; local, each along that of its own share, with half of the exchange (m-sharpness)",
    )
    clip_norm: Annotated[float, Field(ge=1e-6, allow_inf_nan=False)] = Field(
        default=1.0,
        description="largest L2 norm of the gradient that is applied",
        json_schema_extra=usual("every gradient is then cut to next to nothing, and the weights hardly move", low=0.01),
    )
    flat: Share = Field(default=0.75, description="share of the steps with a flat learning rate; then linearly to 0")
    warmup: Share = Field(
        default=0.0,
        description="share of the steps over which the learning rate rises from 0",
        json_schema_extra=usual("the learning rate reaches its value late, at 1 in the last step only", high=0.5),
    )


class OptimizerSection(OptimizerKeys):
    """SAM over a base optimiser.

    With `lr_schedule`, lr is its highest value in the run, and flat and warmup are idle (1, 0); with `rho_schedule`,
    rho is its highest value, and rho_end and rho_warmup are idle (None, 0).
    """

    base: Literal["sgd", "adamw"]
    lr: float
    rho: float
    lr_schedule: AnySchedule | None = None
    rho_schedule: AnySchedule | None = None

    @property
    def chooses_ascents(self) -> bool:
        """Whether only some of the steps have a second pass."""
        return self.sam_every > 1 or self.sam_adaptive or self.sam_last < 1.0


class TermSection(Frozen):
    """One term of the loss with its absolute weight.

    Attributes:
        name: Its name in logs, which no other term has.
        term: Its kind (config/terms.py).
        weight: Its factor.
        numbers: Settings that are numbers, each a schedule.
        choices: Settings that are words.
    """

    name: str
    term: str
    weight: AnySchedule
    numbers: dict[str, AnySchedule] = {}
    choices: dict[str, str] = {}


class TrainingKeys(Frozen):
    """Keys that a config file and the training section share."""

    batch_size: Count = Field(default=16, description="samples per batch; the task says what a sample is")
    weak_teacher_margin: NotNegative | None = Field(
        default=None,
        exclude_if=lambda margin: margin is None,
        description="in units of `selection_metric`: before stage 2, a teacher that is worse than the student of "
        "stage 1 by more than this is refused; default: such a teacher is used, with a warning",
    )
    patience: Count | None = Field(
        default=None,
        description="epochs in a row without a new best after which a stage ends early; default: it never does",
    )
    max_skipped_in_a_row: Count = Field(default=50, description="non-finite steps in a row after which training stops")
    compare_ranks_every: Count | None = Field(
        default=None,
        exclude_if=lambda steps: steps is None,
        description="of several ranks (torchrun): compare the bits of their weights after every so many steps, and "
        "stop where they differ; default: at each save",
    )
    keep_best: Count = Field(
        default=5,
        description="epoch checkpoints kept, the best by `selection_metric` first",
        json_schema_extra=usual("each of them is a file of the size of the model", high=100),
    )
    ema_decay: Decay | None = Field(
        default=None,
        description="keep an exponential moving average of the weights with this decay, such as 0.999; it is validated "
        "too, and the better of the two is kept",
        json_schema_extra=usual("the average then is the weights of the last step or two, at twice the cost", low=0.5),
    )
    start_share: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        default=0.0,
        exclude_if=operator.not_,
        description="WiSE-FT (Wortsman et al. 2022): what is validated and kept is the average of the trained weights "
        "and of the model that the stage starts from, which has this share; training itself goes on from the former",
        json_schema_extra=usual("hardly anything of what is learnt is then kept", high=0.9),
    )


class TrainingSection(TrainingKeys):
    """How long a stage trains, on which batches, and how its best epochs are chosen."""

    epochs: int
    selection_metric: str


class ComputeSection(Frozen):
    """How a step is computed: precision, memory layout, what is traded for memory."""

    micro_batch_size: Count | None = Field(
        default=None,
        description="samples in the network at once: a larger batch passes in parts and still gives one update; "
        "default: the whole batch",
    )
    precision: Precision = Field(
        default="fp32", description="bf16 and fp16 compute under autocast; fp16 scales the loss, and weights stay fp32"
    )
    channels_last: Literal[True, False, "auto"] = Field(
        default=False,
        description="store images and weights channels last in memory; auto: on a CPU, where convolutions are faster "
        "so (false in tasks that do not set it); a run that is resumed keeps what it began with",
    )
    gradient_checkpointing: bool = Field(
        default=False, description="keep fewer activations and compute them again: less memory, about a third more time"
    )
    compile: bool = Field(default=False, description="compile the student with torch.compile; needs a C++ compiler")
    sync_batch_norm: bool = Field(
        default=False,
        exclude_if=lambda choice: not choice,
        description="of several ranks (torchrun) on GPUs: BatchNorm normalises by the whole batch (SyncBatchNorm), not "
        "by the rows of its rank",
    )
    halve_on_out_of_memory: bool = Field(
        default=False, description="when memory runs out, halve micro_batch_size and take the step again; else stop"
    )


class RunKeys(Frozen):
    """Keys that a config file and the resolved config share."""

    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="auto takes cuda, then mps, then cpu"
    )
    num_workers: Annotated[int, Field(ge=0, le=1024)] = Field(
        default=2,
        description="loader processes; 0 loads in the training process",
        json_schema_extra=usual("each takes memory, and more of them than cores only wait for each other", high=128),
    )
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = Field(
        default="auto",
        exclude_if=lambda count: count == "auto",
        description="threads that compute on a CPU; auto: as torch chooses, and no more than the processors that this "
        "process may use (affinity mask, quota of the control group)",
    )
    callback_errors: Literal["stop", "report"] = Field(
        default="stop",
        exclude_if=lambda choice: choice == "stop",
        description="an exception in a callback of the Python API: stop ends the run, which can be resumed; report "
        "prints it and goes on without that callback",
    )
    keep_freed_memory: Literal["auto", "on", "off"] = Field(
        default="auto",
        exclude_if=lambda choice: choice == "auto",
        description="whether freed memory stays with the process, which makes steps on a CPU faster; auto: on a CPU "
        "with glibc and 4 GiB or more free",
    )
    output_root: PathText = Field(default="output", description="folder of the run folders")
    save_every_steps: Count | None = Field(
        default=None, description="save the state to resume from every so many steps too, not only after each epoch"
    )
    save_every_minutes: Positive | None = Field(
        default=10.0,
        description="save the state to resume from inside an epoch as soon as the last save is this old",
        json_schema_extra=usual("most of the time then goes into saving", low=0.1),
    )
    loader_timeout: Annotated[float, Field(ge=1.0, allow_inf_nan=False)] = Field(
        default=300.0,
        description="seconds without a batch after which a loader process counts as hung",
        json_schema_extra=usual(
            "a slow disk or the first batch alone may take longer, which would stop the run", low=10
        ),
    )
    rank_timeout: Annotated[float, Field(ge=1.0, allow_inf_nan=False)] = Field(
        default=600.0,
        exclude_if=lambda seconds: seconds == 600.0,
        description="of several ranks (torchrun): seconds after which one that takes no part in a step counts as hung",
        json_schema_extra=usual("a save or a slow batch of one rank may take longer, which would stop the run", low=30),
    )
    report: bool = Field(default=True, description="whether a run ends with report.html and results.json in its folder")
    teacher_answers: PathText | None = Field(
        default=None,
        exclude_if=lambda path: path is None,
        description="file of the teacher's outputs that several runs share, such as the arms of an ablation: batches "
        "that are the same to the last bit are answered once; the steps do not change",
    )
    teacher_average: Literal["logits", "probabilities"] = Field(
        default="logits", description="what is averaged over several teachers"
    )


class RunConfig(RunKeys):
    """One stage of one run, resolved: what the run folder keeps and what the `build_*` functions read."""

    name: str
    config_name: str
    stage: Stage
    seed: int
    task: str
    task_section: SerializeAsAny[TaskSection]
    student: StudentSection
    teachers: tuple[TeacherSection, ...] = ()
    training: TrainingSection
    optimizer: OptimizerSection
    compute: ComputeSection = Field(default_factory=ComputeSection)  # an instance would build its schema at import
    criterion: tuple[TermSection, ...]
    allow: tuple[str, ...] = ()

    @property
    def folder_stem(self) -> str:
        """What the name of a run folder begins with, before its time: `NAME_CONFIG`, or `NAME` where both are equal."""
        return self.name if self.name == self.config_name else f"{self.name}_{self.config_name}"


def take_fields(source: BaseModel, model: type[BaseModel]) -> dict[str, Any]:
    """Take the values of a section's fields from another object.

    Args:
        source: An object with attributes of these names, such as the keys of a file.
        model: The section.

    Returns:
        Values by field.
    """
    return {name: getattr(source, name) for name in model.model_fields}
