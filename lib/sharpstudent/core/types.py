"""The types of the values that the packages exchange. Importing this loads neither torch nor NumPy.

Legend: R rows of a batch, I inputs that several rows share, N rows of a table. A row is what a loss term and a metric
work on: a picture, a sound, a head in a picture. A sample is what one index of a data set gives; it has 0, 1 or more
rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    # What a model returns for a batch, by name: "logits", "heatmap", "aux.0", and feature maps as "features/LAYER".
    Outputs = Mapping[str, torch.Tensor]
    # A model's outputs for a data set as columns of N rows; the columns "id" and "group" (text) are among them.
    Table = Mapping[str, NDArray[Any]]
else:
    Outputs = Table = Mapping

Direction = Literal["higher", "lower"]  # which values of a metric are the better ones

FEATURES = "features/"  # prefix of the names of feature maps among the outputs of a model


@dataclass(frozen=True)
class Batch:
    """R rows, in the order of their samples.

    Attributes:
        inputs: What models read, (R, ...), or (I, ...) for a name in `shared`.
        targets: What the terms compare outputs with, (R, ...).
        weights: Weights of the rows, (R,) float32, by the name of a target. 0 means that the row lacks that target; a
            name that is absent means 1 for all rows.
        rows: R values each. "id" is the name of the row, "group" the unit that resampling draws as a whole (a person, a
            speaker), and "sample" the number of the sample within the batch.
        shared: The name of each input that several rows share -> the name of its index, another input, (R,) int64: it
            says which of the I elements each row reads.
    """

    inputs: Mapping[str, torch.Tensor]
    targets: Mapping[str, torch.Tensor] = field(default_factory=dict[str, "torch.Tensor"])
    weights: Mapping[str, torch.Tensor] = field(default_factory=dict[str, "torch.Tensor"])
    rows: Mapping[str, Sequence[Any]] = field(default_factory=dict[str, "Sequence[Any]"])
    shared: Mapping[str, str] = field(default_factory=dict[str, str])

    def __len__(self) -> int:
        """R, the number of rows."""
        return len(self.rows["id"])

    @property
    def device(self) -> torch.device:
        """The device of the inputs."""
        return next(iter(self.inputs.values())).device

    def to(self, device: torch.device, *, memory_format: torch.memory_format | None = None) -> Batch:
        """Copy the batch to another device; the columns of `rows` stay as they are.

        Args:
            device: The device.
            memory_format: A memory format for inputs of four dimensions; None to leave it as it is.

        Returns:
            The batch there.
        """
        inputs = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        if memory_format is not None:
            inputs = {
                name: tensor.contiguous(memory_format=memory_format) if tensor.ndim == 4 else tensor
                for name, tensor in inputs.items()
            }
        targets = {name: tensor.to(device) for name, tensor in self.targets.items()}
        weights = {name: tensor.to(device) for name, tensor in self.weights.items()}
        return replace(self, inputs=inputs, targets=targets, weights=weights)

    def __getitem__(self, rows: slice) -> Batch:
        """Make a batch of consecutive rows (a slice of step 1).

        A shared input keeps only the elements that these rows read, and its index is renumbered.
        """
        inputs = {name: tensor[rows] for name, tensor in self.inputs.items() if name not in self.shared}
        for name, index in self.shared.items():
            read, places = _renumber(inputs[index])
            inputs[name], inputs[index] = self.inputs[name][read], places
        return Batch(
            inputs=inputs,
            targets={name: tensor[rows] for name, tensor in self.targets.items()},
            weights={name: tensor[rows] for name, tensor in self.weights.items()},
            rows={name: values[rows] for name, values in self.rows.items()},
            shared=self.shared,
        )

    def split(self, parts: int) -> list[Batch]:
        """Split the batch into at most `parts` batches of consecutive samples.

        The parts have nearly the same number of samples, the larger ones first. Rows of one sample stay together,
        because batch normalisation needs them in one forward pass.
        """
        starts = self._find_starts()
        count = min(parts, len(starts))
        if count <= 1:
            return [self]
        least, larger = divmod(len(starts), count)
        bounds = [starts[part * least + min(part, larger)] for part in range(count)]
        return [self[start:end] for start, end in pairwise([*bounds, len(self)])]

    @property
    def samples(self) -> int:
        """How many samples have rows in the batch."""
        return len(self._find_starts())

    def take(self, samples: int) -> Batch:
        """Make a batch of the first samples; the batch itself if it has no more."""
        starts = self._find_starts()
        return self if samples >= len(starts) else self[: starts[samples]]

    def _find_starts(self) -> list[int]:
        """Find the first row of each sample that has rows; without the column "sample", each row is a sample."""
        owners = self.rows.get("sample", range(len(self)))
        return [row for row in range(len(self)) if row == 0 or owners[row] != owners[row - 1]]

    def tensors(self) -> Iterator[Any]:
        """List every tensor of the batch, including those among the rows."""
        for part in (self.inputs, self.targets, self.weights, self.rows):
            yield from (value for value in part.values() if hasattr(value, "share_memory_"))


def _renumber(indices: Any) -> tuple[Any, Any]:
    """Return the elements that are read, in rising order, and for each row the position of its element among them."""
    return indices.unique(return_inverse=True)


@dataclass(frozen=True)
class Sample:
    """What one index of a data set gives: the fields of a `Batch` for its k rows, as arrays.

    Attributes:
        inputs: (k, ...), or (i, ...) for a name in `shared`.
        targets: (k, ...).
        weights: (k,) float32.
        rows: k values each, "id" among them; "group" where it differs between the rows.
        shared: As in `Batch`; the index counts within this sample.
    """

    inputs: Mapping[str, NDArray[Any]]
    targets: Mapping[str, NDArray[Any]] = field(default_factory=dict[str, "NDArray[Any]"])
    weights: Mapping[str, NDArray[np.float32]] = field(default_factory=dict[str, "NDArray[np.float32]"])
    rows: Mapping[str, Sequence[Any]] = field(default_factory=dict[str, "Sequence[Any]"])
    shared: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class InputSource:
    """One input that a user wants an answer about.

    Attributes:
        name: The name in all output, printable.
        path: The file; None for a camera or a stream.
        stream: The number of a camera, or the address of a stream; None for a file.
        options: The values of the options that the task itself has added to the command line, by their names.
        skip: How many samples at the beginning are thrown away, because they are known from before a kill. A task may
            give samples without inputs in their places, where making them takes long.
    """

    name: str
    path: Path | None = None
    stream: int | str | None = None
    options: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    skip: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Answer:
    """What a task says about one input.

    Attributes:
        outcome: The answer in one word for other programs, such as the name of a class.
        sentence: The answer in one sentence.
        reasons: Further sentences: what the answer rests on, and what it does not say.
        score: The probability that the answer rests on, 0..1; None without one.
        details: JSON values of the task's own.
        columns: The columns of the table of single rows.
        rows: The values of these rows, each in the order of the columns.
        charts: Charts of the page, instances of `report.chart.Chart`.
        pictures: Pictures of the page, by title: a file's bytes (JPEG or PNG) and a caption each.
        news: A line for whoever waits at a camera or a microphone, such as what has just been heard; "" for none.
        has_whole_pictures: Whether the page shows them large and whole; otherwise as small squares, which suit crops.
    """

    outcome: str
    sentence: str
    reasons: tuple[str, ...] = ()
    score: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])
    columns: tuple[str, ...] = ()
    rows: Sequence[Sequence[Any]] = ()
    charts: tuple[Any, ...] = ()
    news: str = ""
    pictures: Mapping[str, Sequence[tuple[bytes, str]]] = field(
        default_factory=dict[str, "Sequence[tuple[bytes, str]]"]
    )
    has_whole_pictures: bool = False


@dataclass(frozen=True)
class ModelSpec:
    """The description of a model that a task shall build.

    Attributes:
        name: Name of the architecture.
        options: Further options of the model in the config, as JSON values.
        dropout: Dropout rate before the head, 0..1; None for the architecture's own.
        role: Whether the model is the student or a teacher.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    dropout: float | None = None
    role: Literal["student", "teacher"] = "student"


@dataclass(frozen=True)
class ExportSpec:
    """What an export of a task's models needs to know besides the form of a batch.

    Attributes:
        outputs: The outputs that are exported; () for all but feature maps.
        tolerance: By the name of a metric, how much worse than the model its exported file may be, in units of the
            metric. For others it is 1 % of the way from chance to the best value.
        fall: By the name of a metric, how much worse the file's value itself may be, where that is stricter than
            `tolerance`, which is about the unfavourable end of the interval.
        picture: The input that holds pictures (R, 3, S, S) in 0..1. `--with-preprocessing` replaces it by uint8
            pictures (R, H, W, 3) of any size; None where no input is one.
        scores: The output of logits (R, C) that `--with-preprocessing` turns into calibrated probabilities.
        crop: In words, what is cut out of raw material before a model sees it; an export does not do that.
    """

    outputs: tuple[str, ...] = ()
    tolerance: Mapping[str, float] = field(default_factory=dict[str, float])
    fall: Mapping[str, float] = field(default_factory=dict[str, float])
    picture: str | None = None
    scores: str = "logits"
    crop: str = ""


@dataclass(frozen=True)
class StepResult:
    """The result of one training step.

    A skipped step leaves weights, buffers, optimiser, average and random states as they were.

    Attributes:
        status: `ok` or `skipped`.
        reason: Why the step was skipped.
        loss: The loss of pass 1, at the unperturbed weights.
        perturbed_loss: The loss of pass 2, at w + e; None in a step without SAM.
        terms: The terms of the loss in pass 1, without their weights.
        grad_norm: The L2 norm of the gradient that was applied, before clipping.
        agreement: Share of the rows, 0..1, in which student (pass 1) and teacher prefer the same class; None without
            one.
        is_overflow: Whether the step was skipped because the loss scale of fp16 was too large; it is smaller now.
    """

    status: Literal["ok", "skipped"]
    reason: str | None = None
    loss: float = float("nan")
    perturbed_loss: float | None = None
    terms: Mapping[str, float] = field(default_factory=dict[str, float])
    grad_norm: float = float("nan")
    agreement: float | None = None
    is_overflow: bool = False

    @property
    def ok(self) -> bool:
        """Whether the step was taken."""
        return self.status == "ok"


def list_class_names(task: object) -> tuple[str, ...]:
    """List the task's classes in the order of its logits; () for a task without classes."""
    return tuple(getattr(task, "classes", ()))
