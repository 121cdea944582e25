"""The base class of all tasks; it also exports every other name that the code of a task imports.

Importing this loads neither torch nor NumPy, so that a mistake in a command line is reported at once.

*A config names a task; the task opens samples and builds models; batches pass teacher, student and terms into one SAM
step; outputs become a table; its metrics choose the checkpoint; the report says what it was worth.*

docs/adding-a-task.md walks through a whole task. Legend: R rows of a batch, N rows of a table, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from sharpstudent.config.run_config import TaskSection
from sharpstudent.config.terms import TermSpec
from sharpstudent.core.errors import Problem, UserError, choose, plural
from sharpstudent.core.types import Answer, Batch, ExportSpec, InputSource, ModelSpec, Outputs, Sample, Table
from sharpstudent.data.dataset import Samples, UnreadableSample
from sharpstudent.metrics.metric import Counts, Metric, OnBlock, make_mean_metric

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

__all__ = [
    "Advice",
    "Answer",
    "Batch",
    "ClassificationTask",
    "Counts",
    "ExportSpec",
    "InputSource",
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


@dataclass(frozen=True)
class Advice:
    """What is likely wrong with a run.

    Attributes:
        what: What it is.
        evidence: The numbers that show it.
        remedy: What to do.
    """

    what: str
    evidence: str
    remedy: str


class Task(ABC):
    """A learning task: its data, models and metrics. A task holds its section and facts, and is immutable.

    Attributes:
        Section: The class of the task's own keys in a config.
        metrics: The metrics by name. The first one chooses checkpoints, unless the config names another.
        unit: What reports call a row.
        group_unit: What reports call a group.
        terms: The task's own loss terms by name, beside those of `config.terms`.
        renderer: `module:Class` that draws and reports for this task, loaded when needed; None for the general one.
        details: `module:Class` of the pydantic model of the details that `describe` gives, for the published schema of
            predictions.json; a task with a `describe` of its own names its own, or has none there.
        pretrained: Further values of the key `student_init`, each with the `module:function` that loads such weights
            into a model, as `models.pretrained.load_imagenet` does.
        facts_of_data: The names of the facts (`facts`) that say what a model learnt from and not what it reads: the
            model that a run starts from may differ in them.
        heat_map_class: The number of the class that heat maps show the evidence for; None for the likeliest one.
        commands: Further subcommands of `sharpstudent`, each with the `module:function` that takes its words.
        scripts: Scripts of the repository, each with the subcommand that is the same.
        device: What the number of an input stands for, such as a camera.
        demo: The command that tries the task out; None without one.
        allow: The names that the user gave with `--allow`: what is permitted in this run.
    """

    Section: ClassVar[type[TaskSection]]
    metrics: ClassVar[Mapping[str, Metric]]
    unit: ClassVar[str] = "sample"
    group_unit: ClassVar[str] = "group"
    terms: ClassVar[Mapping[str, TermSpec]] = {}
    renderer: ClassVar[str | None] = None
    details: ClassVar[str | None] = "sharpstudent.report.predictions:ValueDetails"
    pretrained: ClassVar[Mapping[str, str]] = {}
    facts_of_data: ClassVar[tuple[str, ...]] = ()
    heat_map_class: ClassVar[int | None] = None
    commands: ClassVar[Mapping[str, str]] = {}
    scripts: ClassVar[Mapping[str, str]] = {}
    device: ClassVar[str] = "camera"
    demo: ClassVar[str | None] = None

    def __init__(
        self, section: Any = None, facts: Mapping[str, Any] | None = None, *, allow: Sequence[str] = ()
    ) -> None:
        """Build the task from its section of a config, or without data, from the facts of a checkpoint.

        Args:
            section: An instance of `Section`; None for the defaults of its keys.
            facts: What `facts()` gave when the checkpoint was written; None in a training run.
            allow: The names given with `--allow`.
        """
        self.section: Any = self.Section() if section is None else section
        self._facts = facts
        self.allow: tuple[str, ...] = tuple(allow)

    @abstractmethod
    def open_data(self, *splits: str) -> tuple[Samples, ...]:
        """Open the samples of these splits, in this order.

        A training run opens `train` and `validation` and no other split. Raises UserError that names what is missing or
        wrong, also for a split that the data does not have.
        """

    @abstractmethod
    def build_student(self, spec: ModelSpec) -> nn.Module:
        """Build a model with random weights; this opens no file.

        The parameters of its `forward` have the names of the inputs that it reads, and it returns a dictionary of
        tensors. Raises UserError for a name or an option that the task does not know.
        """

    @abstractmethod
    def rows(self, outputs: Outputs, batch: Batch) -> Table:
        """Collect what the metrics need of a batch.

        Args:
            outputs: What the model returned for the batch.
            batch: The batch.

        Returns:
            Columns of R values, as NumPy arrays. The engine adds `id` and `group`.
        """

    # A task may replace the methods from here on.

    def build_teacher(self, spec: ModelSpec) -> nn.Module:
        """Build a teacher, as `build_student` does; it may have no parameters at all."""
        return self.build_student(spec)

    def facts(self) -> dict[str, Any]:
        """JSON values that a checkpoint keeps, so that the task can be built again without its data."""
        return dict(self._facts or {})

    def collate(self, samples: Sequence[Sample], groups: Sequence[str]) -> Batch:
        """Put samples into one batch, with the rows in their order; this draws nothing.

        Args:
            samples: The samples.
            groups: The group of each sample.

        Returns:
            The batch.
        """
        from sharpstudent.data.loader import collate

        return collate(samples, groups)

    def example_batch(self, count: int) -> Batch:
        """Make a batch of `count` samples with the targets that the terms read, to compute shapes and costs.

        It opens no file.

        Raises:
            UserError: For a task that does not define it.
        """
        raise UserError.about(
            f"task {type(self).__name__}",
            "has no example_batch: the shapes of the models' outputs and their costs need one",
            expected="example_batch(self, count), a Batch of `count` samples that opens no file",
            remedy="define it in the class; docs/adding-a-task.md shows one",
        )

    def calibrate(self, table: Table) -> dict[str, Any]:
        """Compute JSON values for the checkpoint from its validation table, such as a temperature; {} for none."""
        return {}

    @classmethod  # noqa: B027 (a task without options of its own leaves it empty)
    def add_input_options(cls, inputs: Any, models: Any) -> None:
        """Add the task's own options to the command line of predict.py; the general task has none.

        Args:
            inputs: The group of options that say how an input is read; `open_input` finds their values in its source.
                One whose help begins with "with --out" is refused where no folder for answers is named.
            models: The group of options for a model whose file does not describe itself; `Renderer.open_model` gets
                their values.
        """

    def list_suffixes(self) -> tuple[str, ...]:
        """List the endings of the files that are taken from a folder, in lower case."""
        return (".npy", ".npz")

    def open_input(self, source: InputSource) -> Iterator[Sample]:
        """Read unlabelled material, sample by sample, so that no more than one is in memory.

        A sample without inputs is not given to the model, and its rows come without outputs: a frame that shows nothing
        to judge. A column `share` tells how much of the source has been read, 0..1. The general task reads arrays: an
        .npy file holds the only input of the models, an .npz file each input by its name.

        Args:
            source: The file or stream.

        Yields:
            Samples without targets.

        Raises:
            UnreadableSample: If the source cannot be read.
        """
        from sharpstudent.data.arrays import read_arrays

        yield read_arrays(source, self.example_batch(1))

    def make_example_input(self) -> tuple[str, bytes]:
        """Make a file to try a model on: its name and its content. The general task writes its `example_batch`."""
        from sharpstudent.data.arrays import write_arrays

        return "example.npz", write_arrays(self.example_batch(1))

    def describe(self, tables: Iterator[Table], stored: Mapping[str, Any]) -> Iterator[Answer]:
        """Say what the model's outputs for one source mean; the general task tells their values.

        Args:
            tables: The rows of the source as they come: `id`, the columns of its samples and, where the model was run,
                each of its outputs. The pictures among them are not to be kept.
            stored: The description that is stored with the model, such as its `calibration`; under `asked` the values
                of the options that `add_input_options` added, by name.

        Yields:
            Answers, of which the last one is final and the others are as far as the source has been read.
        """
        from sharpstudent.data.arrays import describe_outputs

        yield describe_outputs(list(tables), unit=self.unit)

    def finish_input(self, source: InputSource, answer: Answer, folder: Path) -> list[str]:
        """Write further files about one input, beside its page; the general task has none.

        Args:
            source: The input.
            answer: The final answer.
            folder: The folder of the answers.

        Returns:
            Lines for the user.
        """
        return []

    def check_student(self, name: str, metrics: Mapping[str, float]) -> list[str]:
        """Warn of what is known to go wrong in stage 2 with such a student.

        Args:
            name: What messages call the student.
            metrics: Metrics of the student on the validation samples, before stage 2.

        Returns:
            Sentences for the log.
        """
        return []

    @classmethod
    def advise(cls, rows: Sequence[Mapping[str, Any]]) -> list[Advice]:
        """Find what is wrong with a run beyond what `compare_models.py check RUN` finds in every task's.

        Args:
            rows: Those of the run's `metrics.csv`, one an epoch.

        Returns:
            What was found; a healthy run has nothing.
        """
        return []

    def inspect_student(self, model: nn.Module) -> Mapping[str, float]:
        """Measure what the log of each epoch shall keep of the student beside its metrics; {} for nothing.

        Args:
            model: The student, after an epoch.

        Returns:
            Numbers by name. metrics.csv has them as `student_NAME`, TensorBoard as `student/NAME`.
        """
        return {}

    def export_spec(self) -> ExportSpec:
        """Say what an export of the task's models may lose, and which of their inputs are pictures.

        Names and free sizes follow from `forward` and from `example_batch`: every input has R rows, or I where it is
        `shared`.
        """
        return ExportSpec()

    def finish_export(self, path: Path) -> list[str]:
        """Write further files beside an exported one, which has passed its gate; the general task has none.

        Args:
            path: The exported file, with its metadata.

        Returns:
            Lines for the user.
        """
        return []

    def check_metric(self, metric: str, validation: Samples) -> None:
        """Check that a metric can select checkpoints; without this, a run learns it after its first epoch.

        Args:
            metric: The name of the metric that selects.
            validation: The validation samples, as `open_data` opened them.

        Raises:
            UserError: For a metric that has no value on these samples.
        """
        return

    def preview_augmentation(self, path: Path, seed: int) -> list[str]:
        """Draw what training sees of some samples, for `--preview-augmentation`.

        Args:
            path: The PNG to write.
            seed: The seed of the run.

        Returns:
            Lines for the user.

        Raises:
            UserError: For what the user can correct; for a task without such a picture.
        """
        raise UserError.about(
            "--preview-augmentation", "is not known to this task", remedy="run --dry-run, which draws a batch"
        )

    @property
    def default_metric(self) -> str:
        """The first metric, which chooses checkpoints."""
        return next(iter(self.metrics))

    @classmethod
    def title(cls, metric: str) -> str:
        """The name of a metric for readers."""
        return cls.metrics[metric].title or metric.replace("_", " ")

    @property
    def headline_metrics(self) -> tuple[str, ...]:
        """List the metrics that a line on the console shows: all of them, unless the task overrides this."""
        return tuple(self.metrics)


def _find_correct(table: Table) -> NDArray[np.float64]:
    """Return 1.0 for each row whose label has the largest logit (of equal ones the first), else 0.0 (N,)."""
    from sharpstudent.metrics.checks import check_logits

    logits, labels = check_logits(table["logits"], table["label"])
    return (logits.argmax(axis=1) == labels).astype("float64")


def _compute_log_loss(table: Table, counts: Counts) -> float:
    from sharpstudent.metrics.calibration import compute_log_loss

    return compute_log_loss(table["logits"], table["label"], counts)


class ClassificationTask(Task):
    """A task whose models return `logits` (R, C), and whose rows have the target `label` (R,) int64, 0..C-1.

    Attributes:
        classes: The names of the classes, in the order of the logits. A subclass sets them, or its facts have them.
    """

    classes: Sequence[str] = ()
    details: ClassVar[str | None] = "sharpstudent.report.predictions:ClassDetails"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "accuracy": make_mean_metric(_find_correct, perfect=1.0),
        "log_loss": Metric(_compute_log_loss, "lower", perfect=0.0, title="log loss", bounds=(0.0, float("inf"))),
    }

    def __init__(
        self, section: Any = None, facts: Mapping[str, Any] | None = None, *, allow: Sequence[str] = ()
    ) -> None:
        """Build the task as `Task` does; where the subclass names no classes, they come from the facts.

        Args:
            section: An instance of `Section`; None for the defaults of its keys.
            facts: What `facts()` gave when the checkpoint was written; None in a training run.
            allow: The names given with `--allow`.
        """
        super().__init__(section, facts, allow=allow)
        if not self.classes and facts is not None:
            self.classes = tuple(facts.get("classes", ()))

    def __init_subclass__(cls, **more: Any) -> None:
        """For a subclass that names its classes, set the accuracy of guessing: 1 / number of classes."""
        super().__init_subclass__(**more)
        if cls.classes and "metrics" not in vars(cls):
            accuracy, *rest = cls.metrics.items()
            cls.metrics = dict([(accuracy[0], replace(accuracy[1], chance=1.0 / len(cls.classes))), *rest])

    @classmethod
    def name_classes(cls, classes: Sequence[str]) -> type[Self]:
        """Build the class of this task for classes that only its data or a checkpoint names, with their chance level.

        Args:
            classes: Their names.

        Returns:
            A subclass; the class itself where it names its classes, or its accuracy has a chance level of its own.
        """
        accuracy = cls.metrics.get("accuracy")
        if cls.classes or not classes or accuracy is None or accuracy.chance is not None:
            return cls
        named = {"classes": tuple(classes), "__module__": cls.__module__, "__qualname__": cls.__qualname__}
        metrics = {**cls.metrics, "accuracy": replace(accuracy, chance=1.0 / len(classes))}
        return cast(type[Self], type(cls.__name__, (cls,), {**named, "metrics": metrics}))

    def rows(self, outputs: Outputs, batch: Batch) -> Table:
        """Collect logits and labels of a batch.

        Args:
            outputs: What the model returned for the batch.
            batch: The batch.

        Returns:
            The columns `logits` (R, C) and `label` (R,).
        """
        return {
            "logits": outputs["logits"].detach().float().cpu().numpy(),
            "label": batch.targets["label"].cpu().numpy(),
        }

    def facts(self) -> dict[str, Any]:
        """The names of the classes, and the facts of the task."""
        return {"classes": list(self.classes), **super().facts()}

    def calibrate(self, table: Table) -> dict[str, Any]:
        """Fit the temperature of the logits to the labels.

        Guo et al. 2017, "On Calibration of Modern Neural Networks".
        """
        from sharpstudent.metrics.calibration import fit_temperature

        return {"temperature": fit_temperature(table["logits"], table["label"])}

    def describe(self, tables: Iterator[Table], stored: Mapping[str, Any]) -> Iterator[Answer]:
        """Name the class of each row with its calibrated probability.

        Args:
            tables: As for `Task`, with the output `logits`.
            stored: The description that is stored with the model; its `calibration` has the temperature.

        Yields:
            One answer. With several rows, it is about the row of the largest probability.
        """
        from sharpstudent.data.arrays import describe_classes

        temperature = (stored.get("calibration") or {}).get("temperature")
        yield describe_classes(list(tables), self.classes, temperature, unit=self.unit)
