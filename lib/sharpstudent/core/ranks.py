"""The processes of one run, as `torchrun` starts them. Each is a rank: rank 0 writes, the others only compute.

Everything here goes through torch.distributed: numbers and small objects over gloo, gradients over gloo or NCCL. What
one rank does between two collective calls, all ranks do, so a rank that finds a fault does not raise alone: it brings
the fault to the next `agree`, and all of them raise.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import time
from collections.abc import Generator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from sharpstudent.core.errors import TrainingStopped, UserError
from sharpstudent.core.io import end_with_parent

T = TypeVar("T")

FOREVER = timedelta(days=365)  # of waiting for rank 0, which may fit the heads of teachers meanwhile
GRACE_SECONDS = 3.0  # in which all ranks that still run say that they wait
# In the messages of gloo and NCCL when a rank has ended or does not answer.
_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "imed out", "timeout", "NCCL")


class Ranks:
    """The ranks of a run, seen from one of them.

    Attributes:
        number: The number of this rank, from 0.
        count: The number of ranks.
    """

    def __init__(self, number: int, count: int) -> None:
        self.number: int = number
        self.count: int = count
        self._store = dist.distributed_c10d._get_default_store()  # torch has no public function for it
        self._waits = 0

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which writes."""
        return self.number == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """Take this rank's share of a list: consecutive items, as many as the other ranks take or one less."""
        whole, rest = divmod(len(items), self.count)
        start = self.number * whole + min(self.number, rest)
        return list(items[start : start + whole + (self.number < rest)])

    def sum(self, numbers: Sequence[float]) -> list[float]:
        """Add up numbers of all ranks, in double precision; every rank gets the same sums."""
        total = torch.tensor(list(numbers), dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def average(self, tensors: Sequence[torch.Tensor]) -> None:
        """Set floating-point tensors to their means over the ranks, in place, bit for bit the same on every rank."""
        if not tensors:
            return
        flat = torch.cat([tensor.detach().reshape(-1).double() for tensor in tensors])
        dist.all_reduce(flat)
        parts = (flat / self.count).split([tensor.numel() for tensor in tensors])
        with torch.no_grad():
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.reshape(tensor.shape))

    def agree(self, fault: str | None) -> str | None:
        """Exchange faults.

        Args:
            fault: The fault of this rank; None without one.

        Returns:
            The fault of the first rank that has one, with its number; None if none has.
        """
        if not self.sum([fault is not None])[0]:
            return None
        return next(f"{one} on rank {number}" for number, one in enumerate(self.gather(fault)) if one is not None)

    def gather(self, value: T) -> list[T]:
        """Collect a value from every rank, in their order. Values are pickled."""
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, value)
        return found

    def tell(self, value: T) -> T:
        """Return the value that rank 0 gives; those of the others are not read."""
        told: list[Any] = [value]
        dist.broadcast_object_list(told, src=0)
        return told[0]

    @contextlib.contextmanager
    def first_goes_first(self) -> Generator[None]:
        """Context manager: rank 0 runs the body first, however long it takes, then the others run theirs."""
        key, self._waits = f"sharpstudent/first/{self._waits}", self._waits + 1
        if not self.is_first:
            self._store.wait([key], FOREVER)
        yield
        if self.is_first:
            self._store.set(key, "done")

    @contextlib.contextmanager
    def explaining(self) -> Generator[None]:
        """Context manager: a collective call that fails because a rank has ended or hangs becomes TrainingStopped.

        Raises:
            TrainingStopped: It names the ranks that do not answer.
        """
        try:
            yield
        except RuntimeError as error:
            if not any(words in str(error) for words in _LOST):
                raise
            silent = self._find_silent()
            named = f"rank{'s' if len(silent) > 1 else ''} {', '.join(map(str, silent))}" if silent else "a rank"
            reason = str(error).strip().split("\n", 1)[0][:200]
            raise TrainingStopped(
                f"{named} of {self.count} {'have' if len(silent) > 1 else 'has'} ended or hangs ({reason}). The last "
                f"save is whole: start the same torchrun line again, with --resume auto"
            ) from error

    def _find_silent(self) -> list[int]:
        """Find the ranks that do not say within some seconds that they wait for others."""
        with contextlib.suppress(RuntimeError):  # the store is gone together with its host
            self._store.set(f"sharpstudent/waits/{self.number}", "yes")
            time.sleep(GRACE_SECONDS)
            return [n for n in range(self.count) if not self._store.check([f"sharpstudent/waits/{n}"])]
        return []


def join_ranks(device: torch.device, timeout_s: float) -> tuple[Ranks, torch.device]:
    """Join the other processes that `torchrun` has started.

    Args:
        device: The device of the config.
        timeout_s: Seconds after which a rank that takes no part in a collective call counts as hung.

    Returns:
        The ranks, and the device of this one: of several GPUs of a machine each rank has its own.

    Raises:
        UserError: For more ranks than GPUs, and where the ranks do not find each other.
    """
    end_with_parent(signal.SIGTERM)  # a torchrun that was killed leaves no rank running; they save first
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "cuda":
        there = torch.cuda.device_count()
        if local >= there:
            raise UserError.about(
                "torchrun",
                f"starts more processes than there are GPUs: rank {local} of this machine has none",
                expected=f"--nproc-per-node {there} or fewer",
                remedy=f"torchrun --nproc-per-node {there} ..., or --set device=cpu",
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
        if not dist.is_nccl_available():
            raise UserError.about(
                "torchrun", "needs NCCL for GPUs, and this build of torch has none", remedy="--set device=cpu"
            )
    elif device.type != "cpu":
        raise UserError.about(
            "device", "cannot be shared by several processes", "cpu or cuda", device.type, "--set device=cpu"
        )
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    timeout = timedelta(seconds=timeout_s)
    try:
        store, number, count = next(dist.rendezvous("env://", timeout=timeout))
        # torchrun keeps its store when it starts the ranks again: without names of their own they would read the
        # addresses of those that have ended.
        store = dist.PrefixStore(f"restart_{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=timeout)
    except (RuntimeError, ValueError) as error:
        raise UserError.about(
            "torchrun",
            "its processes did not find each other",
            got=str(error).strip().split("\n", 1)[0][:300],
            remedy="--standalone on one machine; else another port for the rendezvous, open in the firewall",
        ) from None
    atexit.register(dist.destroy_process_group)
    return Ranks(number, count), device
