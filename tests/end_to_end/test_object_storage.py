"""The scripts with data in object storage, against a real S3 server (moto) of this machine.

It needs packages that no extra for tests has: pip install s3fs "moto[s3,server]".
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import workplace as helpers
from ffpp_tree import build_tree
from sharpstudent.core.storage import Storage
from workplace import ROOT, STAGE_1, Ended, Workplace, wait_for

pytestmark = pytest.mark.slow
SCRIPT = str(ROOT / "prepare_faces.py")
SIZE = ("--shards", "--image-size", "64")
CONFIG = """{
  "data_source": "manifest", "data_root": "set", "image_size": 32, "student": "test_efficientnet",
  "student_init": "random", "epoch": 2, "batch_size": 2, "lr": 0.01, "num_workers": 2, "device": "cpu", "report": false
}
"""
SAME = ("manifest.arrow", "preparation.json", "quarantine.csv", "shards/000000.tar")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server; its data is gone with it."""
    for package in ("s3fs", "moto", "flask_cors"):
        pytest.importorskip(package, reason='pip install s3fs "moto[s3,server]"')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address, end = f"http://127.0.0.1:{port}", time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"{address}/moto-api/", timeout=5).close()
            break
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
    yield address
    process.kill()
    process.wait()


@pytest.fixture
def bucket(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a new bucket, with everything that this process and the scripts need to use it."""
    for name, value in (
        ("AWS_ENDPOINT_URL", server),
        ("AWS_ACCESS_KEY_ID", "name"),
        ("AWS_SECRET_ACCESS_KEY", "word"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("XDG_CACHE_HOME", str(tmp_path / "user")),
    ):
        monkeypatch.setenv(name, value)
        monkeypatch.setitem(helpers.ENVIRONMENT, name, value)
    import fsspec

    name = f"bucket-{os.getpid()}-{time.monotonic_ns()}"
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(name)
    return f"s3://{name}"


def reset(server: str) -> None:
    """Take away all buckets."""
    urllib.request.urlopen(urllib.request.Request(f"{server}/moto-api/reset", method="POST"), timeout=10).close()


def upload(folder: Path, address: str) -> None:
    storage = Storage(address)
    for path in folder.rglob("*"):
        if path.is_file():
            storage.put(path, path.relative_to(folder).as_posix())


def read_stored(address: str) -> dict[str, bytes]:
    storage = Storage(address)
    return {name: storage.read(name) for name in storage.list_files()}


def find_losses(ended: Ended) -> list[str]:
    assert ended.code == 0, ended.err
    return re.findall(r"(?:loss|val_auc)\D{0,3}(\d+\.\d+)", ended.out)


def wait_until_none_is_left(group: int) -> None:
    """Until no process of the group runs: those that have ended may wait for somebody to take note of it."""
    end = time.monotonic() + 300
    while True:
        left = list[str]()
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                state, _, number = path.read_text().rpartition(")")[2].split()[:3]
                left += [path.parent.name] if int(number) == group and state != "Z" else []
        if not left:
            return
        assert time.monotonic() < end, left
        time.sleep(0.05)


def test_from_bucket_to_bucket_the_bytes_are_those_of_a_folder_and_so_is_what_is_learnt(
    bucket: str, workplace: Workplace, ffpp_root: Path
) -> None:
    upload(ffpp_root, f"{bucket}/ffpp")
    (workplace / "ffpp").symlink_to(ffpp_root)
    stored = workplace.run(SCRIPT, f"{bucket}/ffpp", f"{bucket}/set", *SIZE, "--workers", "2")
    assert (stored.code, stored.err) == (0, "")
    assert workplace.run(SCRIPT, "ffpp", "set", *SIZE).code == 0
    found = read_stored(f"{bucket}/set")
    wanted = {name: (workplace / "set" / name).read_bytes() for name in SAME[1:]}
    assert {name: found[name] for name in SAME[1:]} == {
        **wanted,
        "preparation.json": wanted["preparation.json"].replace(ffpp_root.name.encode(), b"ffpp"),
    }
    assert "everything is done already" in workplace.run(SCRIPT, f"{bucket}/ffpp", f"{bucket}/set", *SIZE).out

    (workplace / "tiny.json").write_text(CONFIG)
    here = find_losses(workplace.run(STAGE_1, "tiny.json", "-n", "here"))
    words = ("--set", f"data_root={bucket}/set", "--set", "cache_folder=cache")
    assert find_losses(workplace.run(STAGE_1, "tiny.json", "-n", "there", *words)) == here != []
    assert find_losses(workplace.run(STAGE_1, "tiny.json", "-n", "again", *words, "--set", "cache_gb=0.0001")) == here
    assert len(list((workplace / "cache").glob("*.tar"))) == 1
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", STAGE_1, "tiny.json")
    ranks = [
        find_losses(workplace.run(*torchrun, "-n", f"ranks_{number}", *more))
        for number, more in enumerate([(), (*words, "--set", "cache_folder=another")])
    ]
    assert ranks[0] == ranks[1] != []
    assert len(list((workplace / "another").glob("*.tar"))) == 1


def test_a_preparation_that_is_killed_again_and_again_gives_the_same_bytes(
    bucket: str, workplace: Workplace, tmp_path: Path
) -> None:
    tree = build_tree(tmp_path / "trees" / "ffpp", train_clips=12)
    upload(tree, f"{bucket}/ffpp")
    words = (SCRIPT, f"{bucket}/ffpp", f"{bucket}/set", *SIZE, "--workers", "1")
    for seconds in (1.5, 2.5, 3.0, 3.5, 4.0):
        process = workplace.start(*words)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    ended = workplace.run(*words)
    assert (ended.code, ended.err) == (0, "")
    assert workplace.run(SCRIPT, str(tree), "set", *SIZE).code == 0
    found = read_stored(f"{bucket}/set")
    assert {name: found[name] for name in SAME} == {name: (workplace / "set" / name).read_bytes() for name in SAME}


def expect_one_message(process: subprocess.Popen[str], said: str) -> None:
    """Wait until the process has ended with exit code 2, one message, and nothing left running."""
    _, text = process.communicate(timeout=300)
    assert process.returncode == 2
    assert text.count("error: ") == 1
    assert said in text
    assert "Traceback" not in text
    wait_until_none_is_left(process.pid)


def test_a_bucket_that_goes_in_the_middle_ends_a_preparation_with_one_message(
    server: str, bucket: str, workplace: Workplace, tmp_path: Path
) -> None:
    upload(build_tree(tmp_path / "trees" / "ffpp", train_clips=40), f"{bucket}/ffpp")
    process = workplace.start(SCRIPT, f"{bucket}/ffpp", f"{bucket}/set", *SIZE, "--workers", "1")
    wait_for(lambda: any((tmp_path / "user").glob("sharpstudent/prepare/*/set/set/parts/*.arrow")), process)
    reset(server)
    expect_one_message(process, "bucket does not exist")


def test_a_bucket_that_goes_in_the_middle_ends_a_training_with_one_message(
    server: str, bucket: str, workplace: Workplace, ffpp_root: Path
) -> None:
    upload(ffpp_root, f"{bucket}/ffpp")
    assert workplace.run(SCRIPT, f"{bucket}/ffpp", f"{bucket}/set", *SIZE).code == 0
    (workplace / "tiny.json").write_text(CONFIG)
    words = ("--set", f"data_root={bucket}/set", "--set", "cache_gb=0.00005", "--set", "epoch=1000")
    process = workplace.start(STAGE_1, "tiny.json", "-n", "run", *words)
    wait_for(lambda: any((workplace / "output").glob("run_*/weights/last.pth")), process)
    reset(server)
    expect_one_message(process, "is not there")


def test_missing_credentials_are_one_message(
    bucket: str, workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delitem(helpers.ENVIRONMENT, name)
    monkeypatch.setitem(helpers.ENVIRONMENT, "AWS_EC2_METADATA_DISABLED", "true")
    ended = workplace.run(SCRIPT, f"{bucket}/ffpp", f"{bucket}/set", *SIZE)
    assert ended.code == 2
    assert "without credentials" in ended.err
    assert "AWS_ACCESS_KEY_ID" in ended.err
    assert "Traceback" not in ended.err
