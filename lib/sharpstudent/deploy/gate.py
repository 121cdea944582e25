"""Compares an exported file with the model that it was made of, and decides whether it may be written.

One rule for every task and format, on the validation samples of the model's run. The file is good enough if, at the
unfavourable end of the paired interval, it is worse in the selection metric by no more than the task tolerates. Where
outputs agree as well as two runtimes in fp32 do, the two are one model, and the difference itself counts: an interval
then would say how few groups there are, and nothing about the file.

Legend: R rows of a batch, N rows of a table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sharpstudent.core.types import Outputs
from sharpstudent.data.dataset import Samples
from sharpstudent.evaluation.tables import check_finite, compute_tables
from sharpstudent.metrics.bootstrap import compute_paired
from sharpstudent.metrics.checks import MetricError
from sharpstudent.metrics.intervals import Estimate
from sharpstudent.metrics.metric import Metric
from sharpstudent.models.forward import run_model
from sharpstudent.task import Task

# Of the largest value of an output, at least 1: the difference that sums in another order make in fp32.
AGREEMENT = 1e-3
DEFAULT_SHARE = 0.01  # tolerance as a share of the way from chance to the best value, where the task names none


@dataclass(frozen=True)
class GateResult:
    """What became of a model in its file.

    Attributes:
        metric: The name of the selection metric.
        before: Its value for the model.
        after: Its value for the file; NaN where the file gives no usable values.
        difference: The file minus the model, with its paired interval.
        loss: How much worse the file is at the unfavourable end, in units of the metric; NaN where that is not known.
        tolerance: How much is tolerated.
        largest: By output, the largest difference over all rows.
        rows: How many rows were compared.
        groups: How many groups they are of.
        agrees: Whether all outputs agree as well as two runtimes in fp32 do.
        reason: Why the file is not good enough; None where it is.
    """

    metric: str
    before: float
    after: float
    difference: Estimate
    loss: float
    tolerance: float
    largest: Mapping[str, float]
    rows: int
    groups: int
    agrees: bool
    reason: str | None

    @property
    def passed(self) -> bool:
        """Whether the file is good enough."""
        return self.reason is None

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values, with None for what is not known."""
        found = {
            "metric": self.metric,
            "before": self.before,
            "after": self.after,
            "difference": self.difference.value,
            "low": self.difference.low,
            "high": self.difference.high,
            "loss": self.loss,
            "tolerance": self.tolerance,
            "largest_difference": dict(self.largest),
            "rows": self.rows,
            "groups": self.groups,
            "agrees": self.agrees,
            "passed": self.passed,
        }
        return {name: None if isinstance(one, float) and math.isnan(one) else one for name, one in found.items()}


class Gate:
    """The comparison of one model with files that are made of it; the model itself runs once."""

    def __init__(
        self,
        task: Task,
        samples: Samples,
        model: nn.Module,
        metric: str,
        *,
        outputs: Sequence[str],
        tolerance: float | None,
        fall: float | None = None,
        rounds: int,
        batch_size: int,
        workers: int,
    ) -> None:
        """Run the model on all samples.

        Args:
            task: The task, with the settings of the data.
            samples: The validation samples.
            model: The model, on the CPU.
            metric: The name of the selection metric.
            outputs: The outputs that are compared.
            tolerance: What the task tolerates for this metric; None where it does not say.
            fall: How much worse the value itself may be; None for as much as is tolerated.
            rounds: How many resamples the interval is made of.
            batch_size: How many samples go in at once.
            workers: How many loader processes run.

        Raises:
            MetricError: Where the model's own values are not finite.
        """
        self._task, self._samples, self._name = task, samples, metric
        self._metric, self._rounds, self._fall = task.metrics[metric], rounds, fall
        self._loading = {"batch_size": batch_size, "num_workers": workers, "device": torch.device("cpu")}
        recorder = _Recorder(model, outputs)
        (self.table,), _ = compute_tables([recorder], samples, task, **self._loading)
        check_finite(self.table)
        self._kept, self.before = recorder.kept, self._metric.value(self.table)
        self.tolerance = find_tolerance(self._metric, self.before) if tolerance is None else tolerance

    def check(self, exported: nn.Module) -> GateResult:
        """Compare a file with the model on all samples.

        Args:
            exported: The opened file.

        Returns:
            The result.
        """
        comparer = _Comparer(exported, self._kept)
        (table,), _ = compute_tables([comparer], self._samples, self._task, **self._loading)
        try:
            check_finite(table)
            found = compute_paired(
                self._metric, table, self.table, rounds=self._rounds, group_unit=self._task.group_unit
            )
            after, broken = self._metric.value(table), None
        except MetricError as error:
            found, after, broken = Estimate(math.nan), math.nan, str(error)
        loss = self._find_loss(found, comparer.agrees)
        return GateResult(
            metric=self._name,
            before=self.before,
            after=after,
            difference=found,
            loss=loss,
            tolerance=self.tolerance,
            largest=comparer.largest,
            rows=len(self.table["id"]),
            groups=len(np.unique(self.table["group"])),
            agrees=comparer.agrees,
            reason=broken or self._find_reason(found, loss),
        )

    def _find_loss(self, found: Estimate, agrees: bool) -> float:
        """Find by how much the file is worse, at the unfavourable end of the interval unless the outputs agree."""
        is_higher = self._metric.direction == "higher"
        if agrees:
            return max(0.0, -found.value if is_higher else found.value)
        edge = found.low if is_higher else found.high
        return math.nan if edge is None else max(0.0, -edge if is_higher else edge)

    def _find_reason(self, found: Estimate, loss: float) -> str | None:
        name, value = self._task.title(self._name), format(found.value, f"+{self._metric.format}")
        if math.isnan(loss):
            return f"the difference in {name} ({value}) has no interval: {found.note or 'no value'}"
        worse = -found.value if self._metric.direction == "higher" else found.value
        if self._fall is not None and worse > self._fall:
            return f"{name} changes by {value}, and a loss of {self._fall:g} is tolerated"
        if loss <= self.tolerance:
            return None
        shown = [format(end, f"+{self._metric.format}") for end in (found.low, found.high) if end is not None]
        interval = f" ({' to '.join(shown)})" if len(shown) == 2 else ""
        return f"{name} changes by {value}{interval}, and a loss of {self.tolerance:g} is tolerated"


def find_tolerance(metric: Metric, value: float) -> float:
    """Find how much worse a file may be in a metric for which its task says nothing.

    Args:
        metric: The metric.
        value: Its value for the model.

    Returns:
        1 % of the way from chance to the best value; else of the way between the bounds; else of the value.
    """
    if metric.chance is not None and metric.perfect is not None:
        return DEFAULT_SHARE * abs(metric.perfect - metric.chance)
    if metric.bounds is not None and all(map(math.isfinite, metric.bounds)):
        return DEFAULT_SHARE * (metric.bounds[1] - metric.bounds[0])
    return DEFAULT_SHARE * abs(value)


class _Recorder(nn.Module):
    """A model that keeps its outputs for each batch."""

    def __init__(self, model: nn.Module, outputs: Sequence[str]) -> None:
        super().__init__()
        self.model, self.outputs = model, tuple(outputs)
        self.kept: list[dict[str, NDArray[Any]]] = []

    def forward(self, **inputs: Tensor) -> Outputs:
        found = run_model(self.model, inputs)
        self.kept.append({name: found[name].float().numpy() for name in self.outputs})
        return found


class _Comparer(nn.Module):
    """A model whose outputs are compared with those that were kept, batch by batch."""

    def __init__(self, model: nn.Module, kept: Sequence[Mapping[str, NDArray[Any]]]) -> None:
        super().__init__()
        self.model, self.kept, self.done = model, kept, 0
        self.largest: dict[str, float] = {}
        self.agrees = True

    def forward(self, **inputs: Tensor) -> Outputs:
        found = run_model(self.model, inputs)
        for name, wanted in self.kept[self.done].items():
            if name not in found or not wanted.size:
                continue
            difference = float(np.abs(found[name].float().numpy() - wanted).max())
            self.agrees &= difference <= AGREEMENT * max(1.0, float(np.abs(wanted).max()))
            self.largest[name] = float(np.fmax(self.largest.get(name, 0.0), difference))
        self.done += 1
        return found


def list_columns(result: GateResult, metric: Metric, title: str) -> dict[str, str]:
    """List what a user reads of a result, as words by what they are about.

    Args:
        result: The result.
        metric: The selection metric.
        title: What readers call it.

    Returns:
        The cells by their titles.
    """
    found, form = result.difference, metric.format
    interval = ", the outputs agree" if result.agrees else ""
    if not result.agrees and found.low is not None and found.high is not None:
        interval = f" ({found.low:+{form}} to {found.high:+{form}})"
    largest = ", ".join(f"{name} {one:.2g}" for name, one in result.largest.items())
    return {
        f"{title} of the model": format(result.before, form),
        f"{title} of the file": format(result.after, form),
        "difference": f"{found.value:+{form}}{interval}",
        "worse by at most": f"{result.loss:.4g}, tolerated {result.tolerance:.4g}",
        "largest difference of outputs": largest,
    }
