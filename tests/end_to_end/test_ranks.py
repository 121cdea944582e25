"""Runs of several processes, as torchrun starts them: one folder, one writer, and what happens when a rank ends."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from workplace import ENVIRONMENT, STAGE_1, STAGE_2, Workplace, wait_for

CONFIG = "configs/tiny.json"
SIZE = ("--set", "batch_size=4", "--set", "stage1.batch_size=4", "--set", "stage2.batch_size=4")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


def start_ranks(place: Workplace, count: int, *words: str) -> list[subprocess.Popen[str]]:
    """The processes that torchrun would start, without the seconds of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
    return [
        subprocess.Popen(
            [sys.executable, *words],
            cwd=place.folder,
            env={**ENVIRONMENT, **shared, "RANK": str(number), "LOCAL_RANK": str(number)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        for number in range(count)
    ]


def finish(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    ended = [(process.communicate(timeout=400), process.returncode) for process in processes]
    return [(code, out, err) for (out, err), code in ended]


def hash_weights(folder: Path) -> dict[str, str]:
    """A digest of the tensors of every kept model, and the metrics; the files themselves name their run."""
    from sharpstudent.checkpoint.store import load_checkpoint

    found = {"metrics": (folder / "logs/metrics.csv").read_text()}
    for path in sorted((folder / "weights").glob("*_val.pth")):
        tensors = load_checkpoint(path).tensors["model"].values()
        found[path.name] = hashlib.sha256(b"".join(one.numpy().tobytes() for one in tensors)).hexdigest()
    return found


def write_teacher(place: Workplace) -> None:
    import torch
    from sharpstudent.models.vision import build_classifier

    (place / "weights").mkdir(exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        state = build_classifier("test_resnet", classes=2, dropout=None).state_dict()
    torch.save(state, place / "weights/tiny_teacher.pth")


def test_two_ranks_make_one_run_whose_validation_is_that_of_one_process(tiny: Workplace) -> None:
    """With fewer batches of validation than ranks; a step that is skipped names the samples of both."""
    write_teacher(tiny)
    alone = ("--set", "pretrained_student_weights=null", "--allow", "unpretrained-student", "--set", "epoch=1")
    (code, out, err), (quiet_code, quiet_out, quiet_err) = finish(
        start_ranks(tiny, 2, STAGE_2, CONFIG, "-n", "x", *alone, *SIZE, "--set", "rho=1e30")
    )
    assert (code, quiet_code) == (0, 0), err + quiet_err
    assert (quiet_out, err, quiet_err) == ("", "", "")
    assert "2 ranks" in out
    run = tiny.find_run("x")
    assert len(list((run / "logs/tensorboard").iterdir())) == 1
    skips = [line for line in (run / "logs/losses.logs").read_text().splitlines() if "# skipped" in line]
    assert len(skips) == 4
    assert all(line.count(".png") == 4 for line in skips)
    from sharpstudent.checkpoint.store import load_checkpoint
    from sharpstudent.core.archive import read_about

    stored = read_about(run / "weights/best_model.pth") or {}
    before = json.loads((run / "logs/preflight.json").read_text())["start_value"]
    assert stored["val_auc"] == before  # no step was taken: the preflight of rank 0 alone has the same value
    assert len(load_checkpoint(run / "weights/last.pth").tensors["rng_of_ranks"]) == 2
    resumed = tiny.call(STAGE_2, "--resume", "x", "--set", "report=false")
    assert "the run goes on with 1 rank; it had 2" in resumed.out


def test_a_batch_smaller_than_the_ranks_is_refused_before_a_folder_is_made(tiny: Workplace) -> None:
    first, second = start_ranks(tiny, 2, STAGE_1, CONFIG, "-n", "x", "--set", "stage1.batch_size=1")
    _, err = first.communicate(timeout=400)
    os.killpg(second.pid, signal.SIGKILL)  # torchrun ends it, too; here it would say the same after some seconds
    second.communicate()
    assert first.returncode == 2
    assert err.count("error:") == 1
    assert "stage1.batch_size: is the whole batch, and 2 ranks cannot share it" in err
    assert tiny.list_output() == []


@pytest.mark.slow
def test_after_kills_of_ranks_torchrun_goes_on_in_the_same_folder_bit_for_bit(tiny: Workplace) -> None:
    words = (*TORCHRUN, "2", "--max-restarts", "2", STAGE_1, CONFIG)
    settings = (*SIZE, "--set", "epoch=6", "--set", "save_every_steps=1")
    whole = tiny.run(*words, "-n", "whole", *settings)
    assert whole.code == 0, whole.err
    process = tiny.start(*words, "-n", "killed", *settings)
    for epoch in (2, 4):
        wait_for(lambda epoch=epoch: f"Epoch {epoch}/" in read_log(tiny, "killed"), process)
        os.kill(find_rank(process.pid, epoch // 2 - 1), signal.SIGKILL)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert out.count("--resume auto: found this command's run") == 2
    assert hash_weights(tiny.find_run("killed")) == hash_weights(tiny.find_run("whole"))


def rendezvous() -> tuple[str, ...]:
    """What two machines are told: how many they are, and where they meet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{free.getsockname()[1]}"
    meeting = ("--rdzv-backend", "c10d", "--rdzv-endpoint", where, "--rdzv-id", "two")
    return ("-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", *meeting)


@pytest.mark.slow
def test_two_machines_that_meet_at_one_port_make_the_run_of_two_ranks(tiny: Workplace) -> None:
    """Each machine has a torchrun of its own; here both are this one."""
    settings = (STAGE_1, CONFIG, *SIZE, "--set", "epoch=2")
    together = tiny.run(*TORCHRUN, "2", *settings, "-n", "together")
    assert together.code == 0, together.err
    words = rendezvous()
    machines = [tiny.start(*words, *settings, "-n", "apart") for _ in range(2)]
    for machine in machines:
        _, err = machine.communicate(timeout=600)
        assert machine.returncode == 0, err
    assert hash_weights(tiny.find_run("apart")) == hash_weights(tiny.find_run("together"))


@pytest.mark.slow
def test_a_run_of_four_ranks_goes_on_with_two_and_says_so(tiny: Workplace) -> None:
    settings = (STAGE_1, CONFIG, "--set", "stage1.batch_per_rank=2", "-n", "x")
    begun = tiny.start(*TORCHRUN, "4", *settings, "--set", "save_every_steps=1")
    wait_for(lambda: "Epoch 1/" in read_log(tiny, "x"), begun)
    os.killpg(begun.pid, signal.SIGINT)
    begun.communicate(timeout=600)
    resumed = tiny.run(*TORCHRUN, "2", STAGE_1, "--resume", tiny.find_run("x").name)
    assert resumed.code == 0, resumed.err
    assert "the run goes on with 2 ranks; it had 4" in resumed.out
    assert len(list((tiny.folder / "output").iterdir())) == 1


@pytest.mark.slow
@pytest.mark.parametrize("who", ["launcher", "loader"])
def test_a_killed_launcher_or_loader_costs_no_more_than_the_same_line_again(tiny: Workplace, who: str) -> None:
    words = (*TORCHRUN, "2", STAGE_1, CONFIG, *SIZE, "--set", "save_every_steps=1", "--set", "num_workers=1")
    words = (*words, "--set", "epoch=4", "--resume", "auto")
    whole = tiny.run(*words, "-n", "whole")
    assert whole.code == 0, whole.err
    process = tiny.start(*words, "-n", "killed")
    wait_for(lambda: "Epoch 2/" in read_log(tiny, "killed"), process)
    ranks = [find_rank(process.pid, number) for number in range(2)]
    if who == "launcher":
        os.kill(process.pid, signal.SIGKILL)
    else:
        wait_for(lambda: bool(find_children(ranks[1])), process)
        os.kill(find_children(ranks[1])[0], signal.SIGKILL)
    process.communicate(timeout=600)
    wait_until_ended(ranks)
    again = tiny.run(*words, "-n", "killed")
    assert again.code == 0, again.err
    assert hash_weights(tiny.find_run("killed")) == hash_weights(tiny.find_run("whole"))


@pytest.mark.slow
def test_a_rank_that_hangs_is_named(tiny: Workplace) -> None:
    process = tiny.start(
        *TORCHRUN, "2", STAGE_1, CONFIG, "-n", "x", *SIZE, "--set", "epoch=500", "--set", "rank_timeout=5"
    )
    wait_for(lambda: "Epoch 1/" in read_log(tiny, "x"), process)
    stopped = find_rank(process.pid, 1)
    os.kill(stopped, signal.SIGSTOP)
    try:
        _, err = process.communicate(timeout=400)
    finally:
        if Path(f"/proc/{stopped}").exists():
            os.kill(stopped, signal.SIGKILL)
    assert "training stopped: rank 1 of 2 has ended or hangs" in err
    assert tiny.call(STAGE_1, "--resume", "x", "--set", "report=false", "--dry-run").code == 0


def read_log(place: Workplace, name: str) -> str:
    found = list(place.folder.glob(f"output/{name}_*/logs/losses.logs"))
    return found[0].read_text() if found else ""


def find_rank(agent: int, number: int) -> int:
    """The process of a rank, by the environment that torchrun gave it; a moment may pass until it is there."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        for folder in Path("/proc").iterdir():
            try:
                is_child = f"PPid:\t{agent}\n" in (folder / "status").read_text()
                if is_child and f"\0RANK={number}\0" in (folder / "environ").read_text():
                    return int(folder.name)
            except (OSError, ValueError):
                continue
        time.sleep(0.05)
    pytest.fail(f"no process of rank {number}")


def find_children(parent: int) -> list[int]:
    """The processes of a process, here the loaders of a rank."""
    return [
        int(number)
        for task in Path(f"/proc/{parent}/task").iterdir()
        for number in (task / "children").read_text().split()
    ]


def wait_until_ended(processes: list[int]) -> None:
    end = time.monotonic() + 300
    while any(Path(f"/proc/{process}").exists() for process in processes):
        assert time.monotonic() < end, "ranks are left running"
        time.sleep(0.05)
