"""When memory runs out in a step: which errors mean it, smaller micro-batches, and the advice at the end."""

import gc
import os
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sharpstudent.core.errors import UserError
from sharpstudent.train.oom import MemoryRetry, OutOfMemory, advise_on_memory, is_out_of_memory
from sharpstudent.train.step import TrainStep
from tiny_models import (
    START,
    are_identical,
    make_batch,
    make_full_step,
    make_plain_student,
    make_step,
    take_snapshot,
)
from tiny_runs import make_config, make_run
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SAMPLES = 4  # a batch of 8 images: each sample is two


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(1234)


def fail_over(step: TrainStep, images: int, *, passes: int = 1) -> list[int]:
    """The student runs out of memory with more images than that, from the n-th forward of a step on; returns the list
    of sizes that it is given.
    """
    sizes: list[int] = []

    def check(_: Any, args: tuple[()], given: dict[str, Tensor]) -> None:
        sizes.append(len(given["image"]))
        if len(given["image"]) > images and len(sizes) >= passes:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"
            )

    step.student.register_forward_pre_hook(check, with_kwargs=True)
    return sizes


# --- Which errors mean it -------------------------------------------------------------------------------------------


def test_the_error_of_a_real_allocation_that_fails_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        MemoryError(),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("std::bad_alloc"),
    ],
    ids=str,
)
def test_the_errors_of_devices_and_allocators_are_recognised(error: BaseException) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("size mismatch"),
        ValueError("out of memory"),
        KeyboardInterrupt(),
        RuntimeError("CUDA error: device-side assert triggered"),
    ],
    ids=repr,
)
def test_other_errors_are_not(error: BaseException) -> None:
    assert not is_out_of_memory(error)


STARVED = """
import resource, sys, torch
sys.path[:0] = [".", "tests/helpers"]
from tiny_models import START, are_identical, build_batch, make_full_step, make_student, take_snapshot
from tiny_runs import make_run
from sharpstudent.train.oom import MemoryRetry

torch.set_num_threads(1)
inputs = torch.rand(8, 3, 257, 257)
batch = build_batch(inputs, torch.arange(8) % 2)
small = build_batch(inputs[:, :, :9, :9], batch.targets["label"])
step = make_full_step(make_student(width=64), parts=1, autocast=None, loss_scale=None)
assert step(small, START).ok
before = take_snapshot(step)
run = make_run(halve_on_out_of_memory=True)
for mebibytes in (4, 110):
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * resource.getpagesize() + mebibytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    retry = MemoryRetry(run, step, 4)
    try:
        line = f"{retry(batch, START).status} in {step.parts} parts"
    except Exception as error:
        line = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
    print(line, are_identical(take_snapshot(step), before))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc and RLIMIT_AS (Linux)")
def test_a_step_that_really_runs_out_of_memory_is_rolled_back_and_taken_in_parts() -> None:
    """An address space that is too small for any part of the batch; and one that is too small for the whole (which
    needs about 150 MiB), but not for a part.
    """
    # glibc keeps freed blocks below this size in its heap, where they lie in the way of others.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", STARVED], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    too_small, enough = done.stdout.splitlines()
    assert too_small.startswith("OutOfMemory: out of memory ([enforce fail")
    assert too_small.endswith(" True")
    assert enough in ("ok in 2 parts False", "ok in 4 parts False")


# --- Smaller micro-batches ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("images", "parts", "sizes"), [(4, 2, [8, 4, 4, 4, 4]), (2, 4, [8, 4, *[2] * 8])])
def test_micro_batches_are_halved_until_they_fit_and_the_result_is_that_of_so_many_parts(
    images: int, parts: int, sizes: list[int]
) -> None:
    run = make_run(halve_on_out_of_memory=True)
    step, direct = make_full_step(parts=1), make_full_step(parts=parts)
    torch.manual_seed(7)
    wanted = direct(make_batch(), START)
    retry, seen = MemoryRetry(run, step, SAMPLES), fail_over(step, images)
    assert retry.raised_parts is None
    torch.manual_seed(7)
    assert retry(make_batch(), START) == wanted
    assert seen == sizes
    assert step.parts == retry.raised_parts == parts
    assert are_identical(take_snapshot(step), take_snapshot(direct))
    seen.clear()
    assert retry(make_batch(1), START).ok
    assert set(seen) == {8 // parts}  # it stays so
    assert len(run.notes) == {2: 1, 4: 2}[parts]
    assert f"taken again in {parts} micro-batches instead of {parts // 2}" in run.notes[-1]


def test_running_out_of_memory_in_pass_2_is_handled_alike() -> None:
    run, step, direct = make_run(halve_on_out_of_memory=True), make_full_step(parts=1), make_full_step(parts=2)
    seen = fail_over(step, 4, passes=2)
    torch.manual_seed(7)
    result = MemoryRetry(run, step, SAMPLES)(make_batch(), START)
    torch.manual_seed(7)
    assert result == direct(make_batch(), START)
    assert seen == [8, 8, 4, 4, 4, 4]
    assert are_identical(take_snapshot(step), take_snapshot(direct))


def test_the_activations_of_the_step_that_did_not_fit_are_gone_when_it_is_taken_again() -> None:
    """Else the second attempt would have less memory than the first."""
    run, step = make_run(halve_on_out_of_memory=True), make_step(make_plain_student())
    alive: list[weakref.ref[Tensor]] = []
    left: list[int] = []

    def watch(_: Any, args: Any, out: Tensor) -> None:
        left.append(sum(ref() is not None for ref in alive))
        alive.append(weakref.ref(out))
        if len(out) > 4:
            raise RuntimeError("out of memory")

    step.student.branch.register_forward_hook(watch)
    gc.collect()
    gc.disable()  # by reference counts alone: a collection may come too late
    try:
        assert MemoryRetry(run, step, SAMPLES)(make_batch(), START).ok
    finally:
        gc.enable()
    assert left[:2] == [0, 0]


def test_the_config_says_in_how_many_parts_to_begin() -> None:
    for size, parts in ((None, 1), (1, 4), (2, 2), (3, 2), (4, 1), (100, 1)):
        step = make_step()
        retry = MemoryRetry(make_run(micro_batch_size=size), step, SAMPLES)
        assert step.parts == parts
        assert retry.raised_parts is None


def test_there_are_never_more_parts_than_samples_and_there_the_run_ends() -> None:
    run, step = make_run(halve_on_out_of_memory=True, micro_batch_size=2), make_full_step()
    seen = fail_over(step, 0)
    retry = MemoryRetry(run, step, 5)
    before = take_snapshot(step)
    batch = make_batch(images=10)
    batch = replace(batch, rows={**batch.rows, "sample": (0, 0, 1, 1, 2, 2, 3, 3, 4, 4)})
    with pytest.raises(OutOfMemory, match="out of memory"):
        retry(batch, START)
    assert seen == [4, 2]  # three parts of 10 images, then five: six would tear pairs apart
    assert step.parts == 5
    assert are_identical(take_snapshot(step), before)


def test_without_permission_the_first_failure_ends_it() -> None:
    run, step = make_run(), make_full_step(parts=1)
    seen, before = fail_over(step, 4), take_snapshot(step)
    with pytest.raises(OutOfMemory, match=r"out of memory \(\[enforce fail"):
        MemoryRetry(run, step, SAMPLES)(make_batch(), START)
    assert seen == [8]
    assert step.parts == 1
    assert are_identical(take_snapshot(step), before)


def test_other_exceptions_pass_through_as_they_are() -> None:
    step = make_step()
    error = RuntimeError("size mismatch")

    def fail(*_: Any) -> None:
        raise error

    step.student.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="size mismatch") as caught:
        MemoryRetry(make_run(halve_on_out_of_memory=True), step, SAMPLES)(make_batch(), START)
    assert caught.value is error


@pytest.mark.parametrize(
    ("may", "size", "stored", "parts"),
    [
        (True, None, 4, 4),
        (True, None, None, 1),
        (True, 1, 2, 4),  # the config asks for more of them by now
        (True, 2, 3, 3),
        (False, None, 4, 1),  # no longer permitted
    ],
)
def test_a_resumed_run_goes_on_in_as_many_parts(may: bool, size: int | None, stored: int | None, parts: int) -> None:
    step = make_step()
    retry = MemoryRetry(make_run(halve_on_out_of_memory=may, micro_batch_size=size), step, SAMPLES)
    retry.restore_parts(stored)
    assert step.parts == parts
    configured = 1 if size is None else -(-SAMPLES // size)
    assert retry.raised_parts == (parts if parts > configured else None)


# --- Compiling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_compiled", [True, False])
def test_a_compiler_that_fails_is_a_users_mistake_where_compile_is_set(is_compiled: bool) -> None:
    from torch._dynamo.exc import BackendCompilerFailed, TorchDynamoException

    step = make_step()

    class Failed(TorchDynamoException):
        __module__ = BackendCompilerFailed.__module__

    def fail(*_: Any) -> None:
        raise Failed("no compiler\nand much more")

    step.student.register_forward_pre_hook(fail)
    before = take_snapshot(step)
    with pytest.raises(UserError if is_compiled else Failed) as caught:
        MemoryRetry(make_run(compile=is_compiled), step, SAMPLES)(make_batch(), START)
    assert ("--set compile=false" in str(caught.value)) == is_compiled
    assert are_identical(take_snapshot(step), before)


# --- Advice ---------------------------------------------------------------------------------------------------------

KEYS = [
    "stage2.micro_batch_size",
    "gradient_checkpointing",
    "precision",
    "channels_last",
    "halve_on_out_of_memory",
]


def list_keys(advice: list[str]) -> list[str]:
    return [line.split("--set ", 1)[1].split("=", 1)[0] for line in advice if "--set " in line]


@pytest.mark.parametrize(
    ("device", "used", "parts", "keys"),
    [
        (CUDA, {}, 1, KEYS),
        (CPU, {}, 1, [KEYS[0], KEYS[1], KEYS[4]]),
        (CUDA, {"gradient_checkpointing": True}, 1, [KEYS[0], *KEYS[2:]]),
        (CUDA, {"precision": "bf16"}, 1, [*KEYS[:2], *KEYS[3:]]),
        (CUDA, {"precision": "fp16", "channels_last": True}, 1, [*KEYS[:2], KEYS[4]]),
        (CUDA, {"halve_on_out_of_memory": True}, 1, KEYS[:4]),
        (CUDA, {}, SAMPLES, KEYS[1:4]),  # one sample at once already
        (CPU, {"gradient_checkpointing": True, "halve_on_out_of_memory": True}, SAMPLES, []),
    ],
)
def test_the_advice_names_what_is_not_in_use_yet(
    device: torch.device, used: dict[str, Any], parts: int, keys: list[str]
) -> None:
    advice = advise_on_memory(make_config(**used), device, items=SAMPLES, parts=parts)
    assert list_keys(advice) == keys
    assert advice[-1] == "smaller inputs, such as pictures of a smaller side, or a smaller student"


def test_the_advised_micro_batch_is_half_of_the_present_one() -> None:
    for items, parts, line in (
        (16, 1, "=8  (now 16"),
        (16, 4, "=2  (now 4"),
        (3, 1, "=1  (now 3"),
        (3, 2, "=1  (now 2"),
    ):
        assert f"micro_batch_size{line}" in advise_on_memory(make_config(), CPU, items=items, parts=parts)[0]


def test_the_keys_that_the_advice_names_are_keys_of_a_config() -> None:
    from sharpstudent.config.keys import FileKeys

    for key in list_keys(advise_on_memory(make_config(), CUDA, items=8, parts=1)):
        section, _, name = key.rpartition(".")
        model: Any = FileKeys.model_fields[section].default_factory if section else FileKeys
        assert name in model.model_fields


# --- A batch of one pixel -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("parts", "key"), [(1, "stage2.batch_size"), (2, "stage2.micro_batch_size")])
def test_a_batch_too_small_for_batchnorm_is_a_users_mistake(parts: int, key: str) -> None:
    step = make_step()
    size = None if parts == 1 else 1
    retry = MemoryRetry(make_run(micro_batch_size=size), step, parts)
    batch = make_batch(images=parts)
    tiny = replace(batch, inputs={"image": batch.inputs["image"][:, :, :3, :3]})
    before = take_snapshot(step)
    with pytest.raises(UserError, match="is too small") as caught:
        retry(tiny, START)
    assert key in str(caught.value)
    assert are_identical(take_snapshot(step), before)
