"""Preparation on a Ray cluster: the bytes of one machine, whatever happens to a node. Needs the extra `ray`."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from sharpstudent.core import ray_pool
from sharpstudent.core.errors import UserError
from text_clips import prepare, read_all, write_clips, write_many

MODELS = "sharpstudent.tasks.deepfake.sources.face_crops.check_model_files"
HELPERS = os.pathsep.join([str(Path(__file__).parent), *sys.path])


@pytest.fixture(autouse=True)
def without_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODELS, lambda: None)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes on this machine, with one processor each."""
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    from ray.cluster_utils import Cluster  # pyright: ignore[reportMissingImports]

    monkeypatch.setenv("PYTHONPATH", HELPERS)  # for the workers
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    made.second = made.add_node(num_cpus=1)
    made.wait_for_nodes()
    yield made
    made.shutdown()


def test_without_the_package_the_message_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"--ray: needs the package ray") as caught:
        prepare(write_many(tmp_path / "source"), tmp_path / "set", ray="here")
    assert "pip install ray" in str(caught.value)


@pytest.mark.slow
def test_two_nodes_one_killed_in_the_middle_give_the_bytes_of_one_machine(cluster: Any, tmp_path: Path) -> None:
    source = write_many(tmp_path / "source", 12, slow=1.0)
    write_clips(source, {"real/broken": "crash"})
    prepare(source, tmp_path / "alone")

    def kill_when_half_is_done() -> None:
        while len(list((tmp_path / "set" / "parts").glob("*.arrow"))) < 5:
            threading.Event().wait(0.05)
        cluster.remove_node(cluster.second, allow_graceful=False)

    killer = threading.Thread(target=kill_when_half_is_done)
    killer.start()
    _, text = prepare(source, tmp_path / "set", ray=cluster.address, workers=2)
    killer.join()
    workers = {line.split()[2]: line.split()[5] for line in text.splitlines() if line.startswith("ray worker")}
    assert len(workers) == 2
    assert len(set(workers.values())) == 2, "both on one node"
    assert "its task runs again" in text
    assert read_all(tmp_path / "set") == read_all(tmp_path / "alone")
    _, again = prepare(source, tmp_path / "set", ray=cluster.address, workers=2)
    assert "done already" in again


@pytest.mark.slow
def test_two_nodes_give_a_set_in_a_storage_the_bytes_of_one_machine(cluster: Any, tmp_path: Path) -> None:
    """They fetch the clips, and what they crop goes back to the machine that asked: no folder is shared."""
    source = write_many(tmp_path / "source", 8)
    prepare(source, tmp_path / "alone", shards=True)
    stored = {"stored_source": f"file://{source}", "stored_dest": f"file://{tmp_path}/set"}
    _, text = prepare(
        Path("source"),
        Path("set"),
        ray=cluster.address,
        workers=2,
        shards=True,
        scratch=tmp_path / "scratch",
        **stored,
    )
    assert text.count("ray worker") == 2
    found, wanted = read_all(tmp_path / "set"), read_all(tmp_path / "alone")
    for name in ("manifest.arrow", "quarantine.csv", "preparation.json", "shards/000000.tar"):
        assert found[name] == wanted[name], name


class FakeRay(ModuleType):
    """A node of a cluster, as a worker sees it."""

    class Context:
        def get_node_id(self) -> str:
            return "0123456789abcdef"

    def __init__(self) -> None:
        super().__init__("ray")
        self.get_runtime_context = FakeRay.Context

    def init(self, **_: object) -> None:
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.50.0\n    Python: 3.11.7")


def test_a_node_with_other_versions_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", FakeRay())
    versions = {**ray_pool._list_versions(), "torch": "1.0"}
    with pytest.raises(UserError, match="ray node 0123456789ab: has other versions") as caught:
        ray_pool._Worker().begin(lambda: print, versions, Path.cwd())
    assert "here 1.0" in str(caught.value)


def test_a_cluster_of_another_ray_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", FakeRay())
    with pytest.raises(UserError, match=r"--ray: cannot connect\n") as caught:
        prepare(write_many(tmp_path / "source"), tmp_path / "set", ray="here")
    assert "Ray: 2.50.0" in str(caught.value)


@pytest.mark.parametrize(("address", "reason"), [("127.0.0.1:1", "refused"), ("nowhere", "HOST:PORT")])
def test_a_cluster_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, reason: str
) -> None:
    """Without Ray's own client, which would try again for many minutes."""
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))
    with pytest.raises(UserError, match=f"--ray: cannot connect to {address}") as caught:
        prepare(write_many(tmp_path / "source"), tmp_path / "set", ray=address)
    assert reason in str(caught.value)
    assert not (tmp_path / "set" / "manifest.arrow").exists()
