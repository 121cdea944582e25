"""Two ranks take the steps that one process takes; a fault of one rank is a fault of both."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import rank_program
import torch
from rank_program import VARIANTS
from tiny_models import are_identical

TESTS = Path(__file__).resolve().parents[1]
EXACT = ("plain", "asam", "one part", "adamw", "projection", *VARIANTS)


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
