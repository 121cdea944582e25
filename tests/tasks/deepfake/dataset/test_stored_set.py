"""A prepared set in a storage as training reads it: whole, verified, and through a bounded folder of this machine."""

from __future__ import annotations

import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from drawn_faces import draw_face
from sharpstudent.core.errors import UserError
from sharpstudent.core.storage import Storage
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.tasks.deepfake.dataset.manifest import Manifest
from sharpstudent.tasks.deepfake.prepare import describe
from sharpstudent.tasks.deepfake.section import DeepfakeSection
from sharpstudent.tasks.deepfake.sources.manifest import find_faces, open_manifest
from sharpstudent.tasks.deepfake.task import DeepfakeTask

sys.path.append(str(Path(__file__).resolve().parents[1]))

from prepared_set import SetFace, store_set, write_set

ROOM = 1.0  # GB: for all


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of two shards of five crops each."""
    root = tmp_path_factory.mktemp("stored") / "set"
    faces = [
        SetFace(*draw_face(i, 60), "train" if i < 6 else "val", i % 2, f"clip {i // 2}", f"person {i // 2}", {})
        for i in range(10)
    ]
    write_set(root, faces, shards=True)
    store_set(root)
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "set")
    return tmp_path / "set"


def open_stored(root: Path, gb: float = ROOM) -> Manifest:
    return open_manifest(f"file://{root}", cache_folder=str(root.parent / "cache"), cache_gb=gb)


def read_crops(manifest: Manifest) -> list[bytes]:
    return [manifest.read_crop(index) for index in range(len(manifest))]


def list_shards(root: Path) -> list[Path]:
    return sorted((root.parent / "cache").glob("*.tar"))


def measure_one(root: Path) -> float:
    """Room for the manifest and one shard [GB]."""
    sizes = [(root / name).stat().st_size for name in ("manifest.arrow", "shards/000000.tar")]
    return (sizes[0] + 1.5 * sizes[1]) / 1e9


@pytest.mark.parametrize("kept", [2, 1])
def test_crops_are_the_same_with_and_without_room_for_the_shards(root: Path, kept: int) -> None:
    stored = open_stored(root, ROOM if kept == 2 else measure_one(root))
    assert read_crops(stored) == read_crops(Manifest.open(root / "manifest.arrow"))
    assert len(list_shards(root)) == kept
    assert stored.place == f"file://{root}/manifest.arrow"
    assert stored.name == "set"


def test_a_pickled_copy_reads_on_and_fetches_the_manifest_where_it_has_gone(root: Path) -> None:
    stored = open_stored(root)
    content = pickle.dumps(stored)
    stored.path.unlink()
    copy = pickle.loads(content)
    assert read_crops(copy) == read_crops(Manifest.open(root / "manifest.arrow"))


def test_a_shard_that_changed_on_this_disk_is_fetched_again(root: Path) -> None:
    stored = open_stored(root)
    wanted = read_crops(stored)
    shard = list_shards(root)[0]
    shard.write_bytes(bytes(shard.stat().st_size))
    assert read_crops(stored) == wanted


def test_a_shard_that_changed_in_the_storage_ends_the_run(root: Path) -> None:
    stored = open_stored(root)
    shard = root / "shards/000000.tar"
    shard.write_bytes(bytes(shard.stat().st_size))
    with pytest.raises(UserError, match="its digest differs"):
        read_crops(stored)


def test_a_crop_that_changed_in_the_storage_is_found_where_it_is_read_alone(root: Path) -> None:
    stored = open_stored(root, measure_one(root))
    stored.read_crop(0)
    shard = root / "shards/000001.tar"
    shard.write_bytes(bytes(shard.stat().st_size))
    with pytest.raises(UnreadableSample, match="checksum"):
        stored.read_crop(len(stored) - 1)


def test_a_bucket_that_goes_in_the_middle_ends_the_run_with_one_message(root: Path) -> None:
    stored = open_stored(root)
    shutil.rmtree(root)
    with pytest.raises(UserError, match=r"shards/00000\d\.tar: is not there"):
        read_crops(stored)


def test_a_cache_without_room_for_the_manifest_names_the_keys(root: Path) -> None:
    with pytest.raises(UserError, match="has no room for the manifest") as caught:
        open_stored(root, 1e-6)
    assert "--set cache_gb=" in str(caught.value)
    assert "--set cache_folder=" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("contents.json", None, "no contents.json"),
        ("manifest.arrow", None, "its upload has not ended"),
        ("contents.json", b"{}", "contents.json: 'format'"),
        ("contents.json", b"[", "contents.json: "),
        ("contents.json", b'{"format": "sharpstudent stored set 9", "files": {}}', "its format is"),
        (
            "contents.json",
            b'{"format": "sharpstudent stored set 1", "files": {"x": {"size": 1, "sha256": "../x"}}}',
            "x has no size and digest",
        ),
        ("contents.json", b'{"format": "sharpstudent stored set 1", "files": {}}', "does not list manifest.arrow"),
    ],
)
def test_what_is_no_whole_set_is_refused(root: Path, name: str, content: bytes | None, reason: str) -> None:
    if content is None:
        (root / name).unlink()
    else:
        (root / name).write_bytes(content)
    with pytest.raises(UserError, match="is no prepared set in a storage") as caught:
        open_stored(root)
    assert reason in str(caught.value)
    assert "prepare_faces.py SOURCE DEST --shards" in str(caught.value)


def test_the_source_reads_a_set_in_a_storage_and_says_how_much_is_kept(root: Path) -> None:
    words = {"cache_folder": str(root.parent / "cache"), "cache_gb": measure_one(root)}
    found = find_faces(f"file://{root}", fakes="labels", **words)
    assert found.notes[0] == f"file://{root}/manifest.arrow"
    assert "the rest is read crop by crop, which is slow (cache_gb, cache_folder)" in found.notes[1]
    assert found.train[0].load().image.shape == (60, 60, 3)


def test_the_task_s_samples_are_those_of_a_folder(root: Path, tmp_path: Path) -> None:
    """By the keys of a config; whole runs are in tests/end_to_end/test_object_storage.py."""
    keys = {"data_source": "manifest", "fakes": "labels", "image_size": 32}
    stored = {"data_root": f"file://{root}", "cache_folder": str(tmp_path / "cache"), "cache_gb": measure_one(root)}
    samples = [
        DeepfakeTask(DeepfakeSection.model_validate({**keys, **more})).open_data("train", "validation")
        for more in ({"data_root": str(root)}, stored)
    ]
    for here, there in zip(*samples, strict=True):
        assert len(here) == len(there) > 0
        for index in range(len(here)):
            one, other = (kind.make(index, np.random.default_rng(index)) for kind in (here, there))
            assert all((one.inputs[name] == other.inputs[name]).all() for name in one.inputs)
    assert len(list((tmp_path / "cache").glob("*.tar"))) == 1


def test_other_sources_refuse_an_address() -> None:
    task = DeepfakeTask(DeepfakeSection(data_source="photos", data_root="s3://bucket/photos"))
    with pytest.raises(UserError, match="data_source = 'photos' does not read") as caught:
        task.open_data("train")
    assert "--set data_source=manifest" in str(caught.value)


def test_the_contact_sheet_of_a_set_in_a_storage_is_drawn_here(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    drawn, lines = list[Path](), list[str]()
    monkeypatch.setattr(describe, "draw_set", lambda path, *_: drawn.append(path))
    describe.run_describe(f"file://{root}", say=lines.append)
    assert drawn == [Path("describe.png")]
    assert lines[0] == f"file://{root}/manifest.arrow: 10 faces"


def test_loader_processes_read_through_the_same_folder(root: Path) -> None:
    """A forked process opens the storage anew."""
    import multiprocessing

    stored = open_stored(root)
    Storage(f"file://{root}").list_files()  # the file system of this process is open
    with multiprocessing.get_context("fork").Pool(2) as pool:
        crops = pool.map(stored.read_crop, range(len(stored)))
    assert crops == read_crops(Manifest.open(root / "manifest.arrow"))
    assert len(list_shards(root)) == 2
