"""Ranks that cannot join each other: one message each, at once or after the time that a rank is given."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from sharpstudent.core import ranks
from sharpstudent.core.errors import UserError


@pytest.fixture(autouse=True)
def launched(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torchrun starts rank 1 of two, without the signal that such a process gets when its parent ends."""
    monkeypatch.setattr(ranks, "end_with_parent", lambda number: None)
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def taken_port() -> Iterator[str]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield str(other.getsockname()[1])


def test_a_rank_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="rank 1 of this machine has none") as caught:
        ranks.join_ranks(torch.device("cuda"), 1.0)
    assert "torchrun --nproc-per-node 1" in str(caught.value)


def test_gpus_without_nccl_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(dist, "is_nccl_available", lambda: False)
    with pytest.raises(UserError, match="needs NCCL for GPUs"):
        ranks.join_ranks(torch.device("cuda"), 1.0)


def test_a_device_that_ranks_cannot_share_is_refused() -> None:
    with pytest.raises(UserError, match="cannot be shared by several processes"):
        ranks.join_ranks(torch.device("mps"), 1.0)


def test_two_runs_on_one_port_are_refused(monkeypatch: pytest.MonkeyPatch, taken_port: str) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("MASTER_PORT", taken_port)
    with pytest.raises(UserError, match="did not find each other") as caught:
        ranks.join_ranks(torch.device("cpu"), 1.0)
    assert "another port" in str(caught.value)
    assert not dist.is_initialized()


def test_fewer_processes_than_the_world_size_says_are_waited_for_as_long_as_a_rank_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("MASTER_PORT", "0")
    with pytest.raises(UserError, match="did not find each other"):
        ranks.join_ranks(torch.device("cpu"), 0.5)
    assert not dist.is_initialized()
