"""A step that several ranks take together: gradients by DistributedDataParallel, everything else by agreement.

Each rank computes the loss of its share of the batch, divided by the weights of the rows of the whole batch. So the
sum of the ranks' gradients is the gradient of the batch: DDP adds them up (its own choice is the mean), and a student
without batch statistics learns the same from any number of ranks.

SAM has two forms. `global`: pass 1 adds the gradients up, too, and all ranks move to the same w + e. `local`: each rank
moves along the gradient of its own share, and only pass 2 adds them up (m-sharpness: Foret et al. 2021, section 4.1).
"""

# Without `from __future__ import annotations`: DDP compares the annotation of its hook's bucket with the class itself.
import contextlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sharpstudent.config.run_config import RunConfig
from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.ranks import Ranks
from sharpstudent.core.schedules import Progress
from sharpstudent.core.types import Outputs
from sharpstudent.criterion.weighted_sum import LossValue, WeightedSum


class _Rest:
    """What `_LossModule` returns besides the loss. No container, so that DDP does not look for tensors in it."""

    def __init__(self, value: LossValue, outputs: Outputs) -> None:
        self.value, self.outputs = value, outputs


class _LossModule(nn.Module):
    """The student and the criterion's own parameters as one module, whose output is the loss: as DDP needs it."""

    def __init__(self, student: nn.Module, criterion: WeightedSum, compute: Any) -> None:
        super().__init__()
        self.student, self.projections = student, criterion.module
        self._compute = compute

    def forward(self, part: Any, progress: Progress, totals: Mapping[str, float]) -> tuple[Tensor, _Rest]:
        value, outputs = self._compute(part, progress, totals)
        return value.total, _Rest(value, outputs)


class RankStep:
    """What a step needs of the other ranks.

    Attributes:
        ranks: The ranks.
        is_local: Whether each rank ascends along the gradient of its own share in pass 1.
    """

    def __init__(
        self, ranks: Ranks, student: nn.Module, criterion: WeightedSum, compute: Any, *, is_local: bool
    ) -> None:
        """Wrap the student for the exchange of gradients.

        Args:
            ranks: The ranks.
            student: The model that learns, the same on all ranks.
            criterion: The loss.
            compute: Computes the loss and the outputs of a micro-batch, with its totals.
            is_local: Whether each rank ascends along the gradient of its own share in pass 1.
        """
        self.ranks, self._student, self.is_local = ranks, student, is_local
        self._model = DistributedDataParallel(
            _LossModule(student, criterion, compute),
            forward_sync_buffers=False,  # `average_buffers` makes them equal after each step
            find_unused_parameters=True,  # SAM-ON, terms of weight 0 and frozen layers leave some without gradient
        )
        self._model.register_comm_hook(None, _add_up)  # pyright: ignore[reportUnknownMemberType]

    def count(self, totals: Mapping[str, float], rows: int) -> tuple[dict[str, float], int]:
        """Add up the divisors of the terms, and the rows of the batch, over the ranks."""
        *sums, all_rows = self.ranks.sum([*totals.values(), rows])
        return dict(zip(totals, sums, strict=True)), int(all_rows)

    def exchanging(self, is_on: bool) -> AbstractContextManager[object]:
        """Context manager for forward and backward of a micro-batch.

        Args:
            is_on: Whether its backward exchanges the gradients that the rank has accumulated; it does so after the last
                micro-batch of a pass, apart from a pass of `local` SAM whose gradient stays with its rank.
        """
        return contextlib.nullcontext() if is_on else self._model.no_sync()

    def compute_loss(self, part: Any, progress: Progress, totals: Mapping[str, float]) -> tuple[LossValue, Outputs]:
        """Compute the loss and the outputs of a micro-batch in such a way that DDP sees it."""
        total, rest = self._model(part, progress, totals)
        return LossValue(total, rest.value.terms), rest.outputs

    def add_up(
        self, loss: Tensor, terms: Mapping[str, Tensor], agreement: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
        """Add up the shares that the ranks have of the loss, its terms and the agreement with the teacher."""
        values = [loss, 0.0 if agreement is None else agreement, *terms.values()]
        sums = torch.tensor(self.ranks.sum([float(value) for value in values]), dtype=torch.float64)
        return sums[0], dict(zip(terms, sums[2:], strict=True)), None if agreement is None else sums[1]

    def average_buffers(self) -> None:
        """Give all ranks the mean of their running statistics.

        These are moving averages, so the mean of the averages is the average of the means: it does not matter whether
        ranks agree after every step or before every save, and after every step a save needs no exchange.
        """
        self.ranks.average([buffer for buffer in self._student.buffers() if buffer.is_floating_point()])

    def find_difference(self, tensors: Sequence[Tensor]) -> str | None:
        """Compare the bits of the weights over the ranks; returns the numbers of ranks that differ, None for none."""
        digests = self.ranks.gather([_digest(tensor) for tensor in tensors])
        other = [str(number) for number, digest in enumerate(digests) if digest != digests[0]]
        return ", ".join(other) or None


def _add_up(_: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """Add the gradients of the ranks up; DDP itself would divide them by the number of ranks."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    return work.get_future().then(lambda done: done.value()[0])


def _digest(tensor: Tensor) -> int:
    """A checksum of the bits of a tensor."""
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    places = torch.arange(1, flat.numel() + 1, device=flat.device, dtype=torch.int64)
    return int((flat.long() * places).sum())


def check_ranks(config: RunConfig, criterion: WeightedSum, ranks: Ranks) -> None:
    """Check that several ranks can share the steps of a run.

    Args:
        config: The config of the run.
        criterion: The loss.
        ranks: The ranks.

    Raises:
        UserError: For fewer samples in a batch than ranks, terms that compare rows of different ranks, and keys that
            one rank would decide for itself.
    """
    problems: list[Problem] = []
    items = config.training.batch_size
    if items < ranks.count:
        key = f"stage{config.stage}.batch_size"
        problems.append(
            Problem(
                key,
                f"is the whole batch, and {ranks.count} ranks cannot share it",
                expected=f"{ranks.count} samples or more",
                got=str(items),
                remedy=f"--set {key}={ranks.count} or torchrun --nproc-per-node {items}",
            )
        )
    problems += [
        Problem(
            f"term {term.name!r}",
            "couples the rows of a batch, and cannot be computed on several ranks",
            remedy="one process, or a criterion without it",
        )
        for term in criterion.terms
        if term.couples_rows
    ]
    if config.compute.halve_on_out_of_memory:
        what = "would divide the batch of one rank only"
        problems.append(Problem("halve_on_out_of_memory", what, remedy="--set halve_on_out_of_memory=false"))
    optimizer = config.optimizer
    cheap = optimizer.sam_every > 1 or optimizer.sam_last < 1 or optimizer.sam_adaptive or optimizer.sam_friendly
    if optimizer.sam_ranks == "local" and cheap:
        what = (
            "is for plain SAM: sam_every, sam_adaptive and sam_friendly read the gradient of pass 1 of the whole batch"
        )
        problems.append(Problem("sam_ranks = local", what, remedy="--set sam_ranks=global"))
    if problems:
        raise UserError(*problems)
