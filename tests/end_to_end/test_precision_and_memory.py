"""How a step is computed (precision, micro-batches, averaged weights, radius) does not make a run less safe."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sharpstudent.checkpoint.store import load_checkpoint
from sharpstudent.train.step import TrainStep
from workplace import STAGE_1, Ended, Workplace

CONFIG = "configs/tiny.json"


def start(place: Workplace, *settings: str) -> Ended:
    return place.call(STAGE_1, CONFIG, "-n", "first", *(word for setting in settings for word in ("--set", setting)))


def make_reference(place: Workplace, *settings: str) -> Path:
    """The same run without interruption, moved out of the way."""
    ended = start(place, *settings)
    assert ended.code == 0, ended.err
    return place.find_run("first").rename(place / "reference")


def assert_same_run(run: Path, reference: Path) -> None:
    """Every checkpoint but the spare one, and the metrics, to the last byte."""
    ours, theirs = (
        {path.name: path.read_bytes() for path in [*folder.glob("weights/*.pth"), folder / "logs/metrics.csv"]}
        for folder in (run, reference)
    )
    assert sorted(ours) == sorted(theirs)
    assert [name for name in theirs if ours[name] != theirs[name] and name != "last_previous.pth"] == []


def read_rows(run: Path) -> list[dict[str, str]]:
    with open(run / "logs/metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def read_train_state(run: Path) -> dict[str, Any]:
    return json.loads((run / "weights/last.pth.json").read_text())["about"]["position"]


class Crash(BaseException):
    """As sudden as a kill: nothing in the program expects it."""


def at_step(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], None]) -> None:
    """Do something when this process takes its step `number` (from 1)."""
    take, taken = TrainStep.__call__, []

    def take_and_act(self: TrainStep, *args: Any) -> object:
        taken.append(1)
        if len(taken) == number:
            act()
        return take(self, *args)

    monkeypatch.setattr(TrainStep, "__call__", take_and_act)


def crash() -> None:
    raise Crash


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


# --- Whatever is switched on, a resumed run is the run that was not interrupted -------------------------------------

WAYS = {
    "averaged weights": ("ema_decay=0.9",),
    "asam with a radius that rises and falls": ("asam=true", "rho=0.5", "rho_warmup=0.3", "rho_end=0.1"),
    "bf16 in micro-batches": ("precision=bf16", "micro_batch_size=2"),
    "fp16 with adamw and averaged weights": ("precision=fp16", "optimizer=adamw", "ema_decay=0.9"),
    "channels last with gradient checkpointing": ("channels_last=true", "gradient_checkpointing=true"),
}


@pytest.mark.parametrize("way", WAYS)
def test_an_interrupted_run_ends_like_one_that_was_not(
    tiny: Workplace, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    settings = ("batch_size=4", *WAYS[way])
    reference = make_reference(tiny, *settings)
    with monkeypatch.context() as patch:
        at_step(patch, 6, terminate)
        assert start(tiny, *settings).code == 143
    resumed = tiny.call(STAGE_1, "--resume", "first")
    assert resumed.code == 0, resumed.err
    assert_same_run(tiny.find_run("first"), reference)


def are_same(one: Any, two: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(are_same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(are_same, one, two))
    return one == two


# --- Saves inside an epoch ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("setting", "saved"), [("save_every_steps=3", 3), ("save_every_minutes=0.0000001", 4)])
def test_a_crash_in_an_epoch_costs_only_the_steps_since_the_last_save(
    tiny: Workplace, monkeypatch: pytest.MonkeyPatch, setting: str, saved: int
) -> None:
    reference = make_reference(tiny, setting)
    with monkeypatch.context() as patch:
        at_step(patch, 5, crash)
        with pytest.raises(Crash):
            start(tiny, setting)
    assert read_train_state(tiny.find_run("first"))["step"] == saved
    resumed = tiny.call(STAGE_1, "--resume", "first")
    assert f"at epoch 1, step {saved}" in resumed.out
    assert_same_run(tiny.find_run("first"), reference)


def test_the_save_interval_may_change_at_a_resume_without_permission(
    tiny: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, 3, terminate)
        assert start(tiny).code == 143
    settings = ("--set", "save_every_steps=2", "--set", "save_every_minutes=1.5", "--set", "loader_timeout=60")
    assert tiny.call(STAGE_1, "--resume", "first", *settings).code == 0


# --- Averaged weights -----------------------------------------------------------------------------------------------


def test_averaged_weights_are_evaluated_separately_and_the_better_ones_are_kept(tiny: Workplace) -> None:
    ended = start(tiny, "ema_decay=0.9", "epoch=4")
    assert ended.code == 0, ended.err
    run = tiny.find_run("first")
    for row in read_rows(run):
        student, average = float(row["val_auc"]), float(row["val_auc_ema"])
        assert row["selected"] == ("ema" if average > student else "student")
        kept = run / "weights" / f"{row['epoch']}_{max(student, average):.4f}_val.pth"
        assert load_checkpoint(kept).about["selected"] == row["selected"]
    state = load_checkpoint(run / "weights/last.pth").tensors
    last = load_checkpoint(kept)
    expected = state["average"]["model"] if last.about["selected"] == "ema" else state["model"]
    assert are_same(last.tensors["model"], expected)
    assert not are_same(state["average"]["model"], state["model"])
    assert "val_auc_ema" in ended.out


# --- Memory ---------------------------------------------------------------------------------------------------------


def limit_memory(monkeypatch: pytest.MonkeyPatch, images: int) -> list[int]:
    """A device that holds so many images and no more; returns the sizes that went through."""
    passed: list[int] = []
    real = TrainStep._forward_backward

    def forward_backward(self: TrainStep, parts: Any, progress: Any, which: str) -> Any:
        largest = max(len(part.batch) for part in parts)
        if largest > images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        passed.append(largest)
        return real(self, parts, progress, which)

    monkeypatch.setattr(TrainStep, "_forward_backward", forward_backward)
    return passed


def test_out_of_memory_stops_with_what_to_try_and_loses_nothing(
    tiny: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        limit_memory(patch, 3)
        ended = start(tiny, "batch_size=4")
    assert ended.code == 3
    assert "Traceback" not in ended.err
    for words in (
        "out of memory (CUDA out of memory. Tried to allocate 20.00 GiB)",
        "--set stage1.micro_batch_size=2  (now 4; the batch stays 4, in more parts)",
        "--set gradient_checkpointing=true",
        "--set halve_on_out_of_memory=true",
        "--resume output/first_",
    ):
        assert words in ended.err
    resumed = tiny.call(STAGE_1, "--resume", "first")  # with more memory
    assert resumed.code == 0, resumed.err


def test_the_micro_batch_is_halved_until_it_fits_where_that_is_allowed_and_stays_so_after_a_resume(
    tiny: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("batch_size=4", "image_size=64", "halve_on_out_of_memory=true")  # larger maps than one pixel
    with monkeypatch.context() as patch:
        limit_memory(patch, 1)
        reference = make_reference(tiny, *settings)
    with monkeypatch.context() as patch:
        passed = limit_memory(patch, 1)
        at_step(patch, 5, terminate)
        ended = start(tiny, *settings)
        assert ended.code == 143
        assert "taken again in 2 micro-batches instead of 1" in ended.out
        assert "taken again in 4 micro-batches instead of 2" in ended.out
        assert set(passed) == {1}
        assert read_train_state(tiny.find_run("first"))["parts"] == 4
        resumed = tiny.call(STAGE_1, "--resume", "first")
        assert "taken again" not in resumed.out
    assert_same_run(tiny.find_run("first"), reference)


def test_a_dry_run_says_out_of_memory_before_the_run_does(tiny: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_memory(monkeypatch, 1)
    ended = tiny.call(STAGE_1, CONFIG, "--dry-run")
    assert ended.code == 3
    assert "micro_batch_size=1" in ended.err
    assert tiny.list_output() == []


def test_a_batch_in_micro_batches_counts_as_one_step(tiny: Workplace) -> None:
    assert start(tiny, "batch_size=4", "micro_batch_size=2").code == 0
    assert {row["steps"] for row in read_rows(tiny.find_run("first"))} == {"4"}


# --- The radius -----------------------------------------------------------------------------------------------------


def test_a_radius_that_is_far_too_large_gives_a_warning_with_a_change_to_try(tiny: Workplace) -> None:
    ended = start(tiny, "rho=30", "repeats=8", "epoch=3")
    assert ended.code == 0, ended.err
    assert ended.out.count("the loss at w + e is far above that at w") >= 1
    assert "--set stage1.rho=15  (now 30)" in ended.out
    assert "--set stage1.rho_warmup=0.1" in ended.out
    assert "far above" in (tiny.find_run("first") / "logs/losses.logs").read_text()


def test_a_healthy_run_gives_no_warning(tiny: Workplace) -> None:
    ended = start(tiny, "repeats=8", "epoch=2")
    assert ended.code == 0
    assert "warning" not in ended.out


def test_the_radius_of_each_epoch_is_in_the_metrics(tiny: Workplace) -> None:
    assert start(tiny, "rho=0.1", "rho_warmup=0.5", "rho_end=0.02", "epoch=4").code == 0
    rows = read_rows(tiny.find_run("first"))
    assert [round(float(row["rho"]), 6) for row in rows] == [0.05, 0.1, 0.065, 0.025]
    assert all(float(row["train_perturbed_loss"]) > 0 for row in rows)


def test_plain_steps_have_neither_a_radius_nor_a_second_loss(tiny: Workplace) -> None:
    assert start(tiny, "rho=0").code == 0
    assert {"rho", "train_perturbed_loss"}.isdisjoint(read_rows(tiny.find_run("first"))[0])
