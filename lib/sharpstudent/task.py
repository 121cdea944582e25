"""What a task is: all that a task, or a repository of somebody's own, imports. Importing this loads neither torch nor
NumPy, so that a mistake in a command line is told at once.

*A config names a task; the task opens samples and builds models; batches pass teacher, student and terms into one SAM
step; outputs become a table; its metrics choose the checkpoint; the report says what it was worth.*

docs/adding-a-task.md walks through a whole task. Legend: R rows of a batch, N rows of a table, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from sharpstudent.config.run_config import TaskSection
from sharpstudent.config.terms import TermSpec
from sharpstudent.core.errors import Problem, UserError, choose, plural
from sharpstudent.core.types import Batch, ModelSpec, Outputs, Sample, Table
from sharpstudent.data.dataset import Samples, UnreadableSample
from sharpstudent.metrics.metric import Counts, Metric, OnBlock, make_mean_metric

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

__all__ = [
    "Batch",
    "ClassificationTask",
    "Counts",
    "Metric",
    "ModelSpec",
    "OnBlock",
    "Outputs",
    "Problem",
    "Sample",
    "Samples",
    "Table",
    "Task",
    "TaskSection",
    "TermSpec",
    "UnreadableSample",
    "UserError",
    "choose",
    "make_mean_metric",
    "plural",
]


class Task(ABC):
    """One kind of thing to learn. It holds its section and its facts, and no state that changes.

    Section: the task's own keys in a config. metrics: by name; the first one chooses checkpoints unless the config
    says otherwise. unit, group_unit: what reports call a row and a group. terms: loss terms of the task's own, by name,
    beside those of `config.terms`. renderer: `module:Class` of what draws and reports for this task, loaded when it is
    needed; None for the general one. pretrained: for a word of `student_init`, `module:function` that loads such
    weights into a model, as `models.pretrained.load_imagenet`. allow: what the user has permitted by `--allow`.
    """

    Section: ClassVar[type[TaskSection]]
    metrics: ClassVar[Mapping[str, Metric]]
    unit: ClassVar[str] = "sample"
    group_unit: ClassVar[str] = "group"
    terms: ClassVar[Mapping[str, TermSpec]] = {}
    renderer: ClassVar[str | None] = None
    pretrained: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self, section: Any = None, facts: Mapping[str, Any] | None = None, *, allow: Sequence[str] = ()
    ) -> None:
        """From the section of a config; or from the facts of a checkpoint alone, without data.

        Args:
            section: an instance of `Section`; None for the defaults of its keys.
            facts: what `facts()` gave when the checkpoint was written; None in a training run.
            allow: words of `--allow`.
        """
        self.section = self.Section() if section is None else section
        self._facts = facts
        self.allow = tuple(allow)

    @abstractmethod
    def open_data(self, *splits: str) -> tuple[Samples, ...]:
        """The samples of these splits, in this order. A training run opens `train` and `validation`, nothing else.

        Raises UserError that names what is missing or wrong, and for a split that this data does not have.
        """

    @abstractmethod
    def build_student(self, spec: ModelSpec) -> nn.Module:
        """A model with random weights. The parameters of its `forward` are named as the inputs that it reads, and its
        outputs are a dictionary of tensors. Opens no file. Raises UserError for a name or an option that it has not.
        """

    @abstractmethod
    def rows(self, outputs: Outputs, batch: Batch) -> Table:
        """What the metrics need of a batch: R values a column, as NumPy arrays. The engine adds `id` and `group`."""

    # From here on, defaults.

    def build_teacher(self, spec: ModelSpec) -> nn.Module:
        """As `build_student`; a teacher may have no parameters at all."""
        return self.build_student(spec)

    def facts(self) -> dict[str, Any]:
        """What a checkpoint keeps so that the task can be built again without its data, as JSON values."""
        return dict(self._facts or {})

    def collate(self, samples: Sequence[Sample], groups: Sequence[str]) -> Batch:
        """One batch, rows in the order of the samples; draws nothing. groups: that of each sample."""
        from sharpstudent.data.loader import collate

        return collate(samples, groups)

    def example_batch(self, count: int) -> Batch:
        """A batch of `count` samples for shapes and costs, with the targets that the terms read; opens no file."""
        raise NotImplementedError(f"{type(self).__name__} has no example_batch: shapes and costs need one")

    def calibrate(self, table: Table) -> dict[str, Any]:
        """What a checkpoint keeps of its own validation, such as a temperature, as JSON values; {} for nothing."""
        return {}

    def check_student(self, name: str, metrics: Mapping[str, float]) -> list[str]:
        """Before stage 2: a sentence for each thing that this task knows to go wrong with a student of these metrics.

        Args:
            name: What messages call the student.
            metrics: Of the student that stage 2 begins with, on the validation samples.
        """
        return []

    @property
    def default_metric(self) -> str:
        """The first metric, which chooses checkpoints."""
        return next(iter(self.metrics))

    @classmethod
    def title(cls, metric: str) -> str:
        """What readers call a metric."""
        return cls.metrics[metric].title or metric.replace("_", " ")

    @property
    def headline_metrics(self) -> tuple[str, ...]:
        """Those that a line on the console tells; all of a task that does not choose."""
        return tuple(self.metrics)


def _find_right(table: Table) -> NDArray[np.float64]:
    """1.0 for each row (N,) whose label has the largest logit, of equal ones the first; 0.0 for the others."""
    from sharpstudent.metrics.checks import check_logits

    logits, labels = check_logits(table["logits"], table["label"])
    return (logits.argmax(axis=1) == labels).astype("float64")


def _compute_log_loss(table: Table, counts: Counts) -> float:
    from sharpstudent.metrics.calibration import compute_log_loss

    return compute_log_loss(table["logits"], table["label"], counts)


class ClassificationTask(Task):
    """A task whose models give `logits` (R, C) and whose rows have the target `label` (R,) int64, 0..C-1.

    classes: their names in the order of the logits; an attribute of the class, or a fact that the data tells.
    """

    classes: Sequence[str] = ()
    metrics: ClassVar[Mapping[str, Metric]] = {
        "accuracy": make_mean_metric(_find_right, perfect=1.0),
        "log_loss": Metric(_compute_log_loss, "lower", perfect=0.0, title="log loss"),
    }

    def __init__(
        self, section: Any = None, facts: Mapping[str, Any] | None = None, *, allow: Sequence[str] = ()
    ) -> None:
        """As `Task`; classes that are no attribute of the class come from the facts."""
        super().__init__(section, facts, allow=allow)
        if not self.classes and facts is not None:
            self.classes = tuple(facts.get("classes", ()))

    def __init_subclass__(cls, **more: Any) -> None:
        """With names of classes of its own, a task knows what guessing gives."""
        super().__init_subclass__(**more)
        if cls.classes and "metrics" not in vars(cls):
            accuracy, *rest = cls.metrics.items()
            cls.metrics = dict([(accuracy[0], replace(accuracy[1], chance=1.0 / len(cls.classes))), *rest])

    def rows(self, outputs: Outputs, batch: Batch) -> Table:
        return {
            "logits": outputs["logits"].detach().float().cpu().numpy(),
            "label": batch.targets["label"].cpu().numpy(),
        }

    def facts(self) -> dict[str, Any]:
        return {"classes": list(self.classes), **super().facts()}

    def calibrate(self, table: Table) -> dict[str, Any]:
        """The temperature that fits the logits to the labels (Guo et al. 2017, "On Calibration of Modern Neural
        Networks").
        """
        from sharpstudent.metrics.calibration import fit_temperature

        return {"temperature": fit_temperature(table["logits"], table["label"])}
