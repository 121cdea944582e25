"""Two ranks take the steps that one process takes; a fault of one rank is a fault of both."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import rank_program
import torch
from rank_program import VARIANTS
from sharpstudent.core.errors import UserError
from sharpstudent.core.ranks import Ranks
from sharpstudent.core.schedules import Constant
from sharpstudent.criterion.weighted_sum import WeightedSum, WeightedTerm
from sharpstudent.models.vision import build_classifier
from sharpstudent.train.rank_step import check_ranks
from tiny_models import are_identical
from tiny_runs import make_config
from torch import nn

TESTS = Path(__file__).resolve().parents[1]
EXACT = ("plain", "asam", "one part", "adamw", "pulled", "projection", *VARIANTS)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two ranks has made of every case."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = os.pathsep.join([str(TESTS / "helpers"), str(TESTS.parent / "lib")])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PYTHONPATH": path}
    started = [
        subprocess.Popen(
            [sys.executable, str(TESTS / "train/rank_program.py"), str(folder)],
            env={**os.environ, **shared, "OMP_NUM_THREADS": "1", "RANK": str(number), "LOCAL_RANK": str(number)},
            text=True,
            stderr=subprocess.PIPE,
        )
        for number in range(2)
    ]
    for process in started:
        _, err = process.communicate(timeout=400)
        assert process.returncode == 0, err
    return [torch.load(folder / f"rank_{number}.pt", weights_only=False) for number in range(2)]


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    torch.set_num_threads(1)
    return rank_program.run_cases(None)


@pytest.mark.parametrize("case", EXACT)
def test_two_ranks_learn_what_one_process_learns(ranks: list[dict[str, Any]], alone: dict[str, Any], case: str) -> None:
    """In double precision, for a student without batch statistics; 50 steps of plain SAM with micro-batches."""
    for one, other in zip(ranks[0][case]["weights"], alone[case]["weights"], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    for one, other in zip(ranks[0][case]["losses"], alone[case]["losses"], strict=True):
        assert one[:4] == pytest.approx(other[:4], abs=1e-6)
        assert one[4] == pytest.approx(other[4], abs=1e-6)


@pytest.mark.parametrize("case", [*EXACT, "batch norm", "local", "input", "loss", "overflow"])
def test_all_ranks_have_the_same_weights_and_statistics_bit_for_bit(ranks: list[dict[str, Any]], case: str) -> None:
    assert are_identical(ranks[0][case]["weights"], ranks[1][case]["weights"])
    assert are_identical(ranks[0][case]["buffers"], ranks[1][case]["buffers"])
    assert ranks[0][case]["reasons"] == ranks[1][case]["reasons"]
    assert repr(ranks[0][case]["losses"]) == repr(ranks[1][case]["losses"])


@pytest.mark.parametrize("case", ["input", "loss"])
def test_a_fault_on_one_rank_is_skipped_on_all_which_are_then_as_before(ranks: list[dict[str, Any]], case: str) -> None:
    for rank in ranks:
        assert [reason is None for reason in rank[case]["reasons"]] == [True, True, False, True, True]
        assert rank[case]["reasons"][2].endswith("not finite on rank 1")
        assert rank[case]["same"]


def test_an_overflow_on_one_rank_lowers_the_loss_scale_of_all(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["overflow"]["scale"] == ranks[1]["overflow"]["scale"] < 2.0**24
    assert "the gradient of pass 1 is not finite" in ranks[0]["overflow"]["reasons"][0]


def test_local_sam_ascends_along_other_directions_and_steps_together(
    ranks: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    local, both = ranks[0]["local"], alone["plain"]["losses"][:8]
    assert local["losses"][0][0] == pytest.approx(both[0][0], abs=1e-6)  # pass 1 of step 1 is at the same weights
    assert abs(local["losses"][0][1] - both[0][1]) > 1e-6


def test_weights_that_differ_in_one_bit_are_found(ranks: list[dict[str, Any]]) -> None:
    assert [rank["equal"] for rank in ranks] == [None, None]
    assert [rank["different"] for rank in ranks] == ["1", "1"]


def test_every_item_has_one_rank_and_the_first_speaks_for_all(ranks: list[dict[str, Any]]) -> None:
    for size, *shares in zip((1, 2, 7), *(rank["shares"] for rank in ranks), strict=True):
        assert [item for share in shares for item in share] == list(range(size))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert [rank["told"] for rank in ranks] == ["rank 0", "rank 0"]


def test_settings_that_ranks_cannot_share_are_refused_each_with_a_remedy() -> None:
    coupled = WeightedTerm("rkd", lambda o, batch, t: o["logits"].mean(), Constant(1.0), couples_rows=True)
    keys = {"batch_size": 1, "halve_on_out_of_memory": True, "sam_ranks": "local", "sam_friendly": True}
    two = cast(Ranks, SimpleNamespace(count=2))
    with pytest.raises(UserError) as caught:
        check_ranks(make_config(**keys), WeightedSum([coupled]), two)
    where = [problem.where for problem in caught.value.problems]
    assert where == ["stage2.batch_size", "term 'rkd'", "halve_on_out_of_memory", "sam_ranks = local"]
    assert all(problem.remedy for problem in caught.value.problems)


def test_batch_norm_over_ranks_keeps_names_values_and_activations_and_needs_a_gpu() -> None:
    """How SyncBatchNorm itself adds up needs GPUs and NCCL: not run."""
    from sharpstudent.train.build import share_batch_norm

    two = cast(Ranks, SimpleNamespace(count=2))
    student = build_classifier("test_efficientnet", classes=2, dropout=None).eval()
    state, images = {name: value.clone() for name, value in student.state_dict().items()}, torch.rand(2, 3, 32, 32)
    expected = student(images)
    share_batch_norm(student, torch.device("cuda"), None)
    assert not any(isinstance(layer, nn.SyncBatchNorm) for layer in student.modules())
    share_batch_norm(student, torch.device("cuda"), two)
    assert sum(isinstance(layer, nn.SyncBatchNorm) for layer in student.modules()) > 3
    assert are_identical(state, student.state_dict())
    assert torch.equal(student(images)["logits"], expected["logits"])
    with pytest.raises(UserError, match="sync_batch_norm: is for GPUs"):
        share_batch_norm(student, torch.device("cpu"), two)
