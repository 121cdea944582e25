"""SOURCE and DEST in a storage: the bytes of folders, nothing half, and what is finished is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from in_process_pool import InProcessPool
from sharpstudent.core.errors import UserError
from sharpstudent.core.storage import Storage
from sharpstudent.tasks.deepfake.dataset.stored_set import read_contents
from sharpstudent.tasks.deepfake.prepare import finished, remote, run, stored_source
from sharpstudent.tasks.deepfake.prepare.command_line import parse_command_line
from sharpstudent.tasks.deepfake.prepare.settings import Request
from text_clips import prepare, read_all, write_clips, write_many
from text_cropper import TextCropper

SAME = ("manifest.arrow", "preparation.json", "quarantine.csv", "shards/000000.tar")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sharpstudent.tasks.deepfake.sources.face_crops.check_model_files", lambda: None)
    monkeypatch.setattr(run, "WorkerPool", InProcessPool)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "other.bad").write_text("")
    return write_many(tmp_path / "source")


@pytest.fixture
def place(tmp_path: Path) -> str:
    return f"memory://bucket{tmp_path}"


def upload(source: Path, address: str) -> Storage:
    storage = Storage(address)
    for path in source.rglob("*"):
        if path.is_file():
            storage.put(path, path.relative_to(source).as_posix())
    return storage


def prepare_stored(tmp_path: Path, place: str, **settings: Any) -> str:
    """From PLACE/source to PLACE/set, with what stands for them below `scratch`."""
    names = {"stored_source": f"{place}/source", "stored_dest": f"{place}/set", "scratch": tmp_path / "scratch"}
    return prepare(Path("source"), Path("set"), **{"shards": True, **names, **settings})[1]


def read_stored(place: str) -> dict[str, bytes]:
    storage = Storage(f"{place}/set")
    return {name: storage.read(name) for name in storage.list_files()}


def refuse_puts(monkeypatch: pytest.MonkeyPatch, is_refused: Callable[[str], bool]) -> list[str]:
    """Refuse some files; returns the names of those that are written from now on."""
    put, written = Storage.put, list[str]()

    def try_to_put(self: Storage, path: Path, name: str) -> None:
        if is_refused(name):
            raise UserError.about(self.address, "is gone")
        written.append(name)
        put(self, path, name)

    monkeypatch.setattr(Storage, "put", try_to_put)
    return written


def test_a_set_in_a_storage_has_the_bytes_of_one_in_a_folder(tmp_path: Path, source: Path, place: str) -> None:
    upload(source, f"{place}/source")
    text = prepare_stored(tmp_path, place)
    prepare(source, tmp_path / "set", shards=True)
    found, wanted = read_stored(place), read_all(tmp_path / "set")
    assert set(found) == {*SAME, "contents.json", "parts.tar"}
    assert {name: found[name] for name in SAME} == {name: wanted[name] for name in SAME}
    files = read_contents(Storage(f"{place}/set"))
    assert set(files) == {*SAME, "parts.tar"}
    assert all(files[name].size == len(found[name]) for name in files)
    assert list((tmp_path / "scratch").iterdir()) == []
    assert f"check it:   python prepare_faces.py check {place}/set" in text
    assert f"{place}/source: texts, 8 photos" in text
    assert str(tmp_path / "scratch").encode() not in b"".join(found.values())


def test_a_second_run_crops_and_writes_nothing(
    tmp_path: Path, source: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(source, f"{place}/source")
    prepare_stored(tmp_path, place)
    before = Storage(f"{place}/set").list_files()
    monkeypatch.setattr(run, "WorkerPool", None)
    assert "done already" in prepare_stored(tmp_path, place)
    assert Storage(f"{place}/set").list_files() == before


@pytest.mark.parametrize("killed", [False, True], ids=["on another machine", "after a kill"])
def test_a_set_that_grows_keeps_its_clips(
    tmp_path: Path, source: Path, place: str, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    """Nothing is left on this machine but, after the kill, a folder to which the crops had not been fetched."""
    storage = upload(source, f"{place}/source")
    prepare_stored(tmp_path, place)
    new = write_clips(tmp_path / "source", {"real/new": "face face"}) / "real" / "new.txt"
    storage.put(new, "real/new.txt")
    if killed:
        with monkeypatch.context() as patch:
            patch.setattr(remote.StoredSet, "fetch_rest", lambda self: (_ for _ in ()).throw(KeyboardInterrupt()))
            with pytest.raises(KeyboardInterrupt):
                prepare_stored(tmp_path, place)
        assert len(list((tmp_path / "scratch").rglob("preparation.json"))) == 1
    assert "8 clips finished already, 1 left" in prepare_stored(tmp_path, place)
    prepare(source, tmp_path / "fresh", shards=True)
    found, wanted = read_stored(place), read_all(tmp_path / "fresh")
    assert [name for name in SAME if found[name] != wanted[name]] == []


def test_an_upload_that_was_interrupted_is_no_set_and_goes_on(
    tmp_path: Path, source: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(source, f"{place}/source")
    with monkeypatch.context() as patch:
        refuse_puts(patch, lambda name: name.startswith("shards/"))
        with pytest.raises(UserError, match="is gone"):
            prepare_stored(tmp_path, place)
    assert set(read_stored(place)) == {"preparation.json", "parts.tar", "quarantine.csv"}
    with pytest.raises(UserError, match="is no prepared set in a storage"):
        read_contents(Storage(f"{place}/set"))
    monkeypatch.setattr(run, "WorkerPool", None)
    written = refuse_puts(monkeypatch, lambda name: False)
    prepare_stored(tmp_path, place)
    assert written == ["preparation.json", "shards/000000.tar", "contents.json", "manifest.arrow"]
    assert set(read_stored(place)) == {*SAME, "contents.json", "parts.tar"}


def test_a_set_that_is_replaced_is_none_until_its_new_manifest_is_there(
    tmp_path: Path, source: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(source, f"{place}/source")
    prepare_stored(tmp_path, place)
    with monkeypatch.context() as patch:
        refuse_puts(patch, lambda name: name == "manifest.arrow")
        with pytest.raises(UserError, match="is gone"):
            prepare_stored(tmp_path, place, validation_share=0.5)
    assert "manifest.arrow" not in read_stored(place)
    prepare_stored(tmp_path, place, validation_share=0.5)
    prepare(source, tmp_path / "set", shards=True, validation_share=0.5)
    assert read_stored(place)["manifest.arrow"] == (tmp_path / "set/manifest.arrow").read_bytes()


@pytest.mark.parametrize("fault", ["contents.json", "shards/000000.tar", "parts.tar"])
def test_a_set_that_was_damaged_in_the_storage_is_made_again(
    tmp_path: Path, source: Path, place: str, fault: str
) -> None:
    upload(source, f"{place}/source")
    prepare_stored(tmp_path, place)
    before = read_stored(place)
    (tmp_path / "bad").write_bytes(b"{")
    Storage(f"{place}/set").put(tmp_path / "bad", fault)
    assert "done already" not in prepare_stored(tmp_path, place)
    assert read_stored(place) == before


def test_each_clip_is_here_for_its_turn_only(
    tmp_path: Path, source: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(source, f"{place}/source")
    crop, seen = TextCropper.crop, list[int]()

    def count_and_crop(self: TextCropper, clip: Any) -> Any:
        seen.append(len(list((tmp_path / "scratch").glob("*/clips/**/*.txt"))))
        assert clip.file.read_text() == (source / f"{clip.key}.txt").read_text()
        return crop(self, clip)

    monkeypatch.setattr(TextCropper, "crop", count_and_crop)
    # find_texts finds text files, which are fetched as lists: here they stand for videos.
    monkeypatch.setattr(stored_source, "LISTS", (".json",))
    prepare_stored(tmp_path, place)
    assert seen == [1] * 8


def test_a_bucket_that_goes_in_the_middle_ends_the_run_and_what_is_finished_is_kept(
    tmp_path: Path, source: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(source, f"{place}/source")
    fetch, fetched = Storage.fetch, list[str]()

    def lose_after_four(self: Storage, name: str, path: Path) -> None:
        fetched.append(name)
        fetch(self, name if len(fetched) <= 4 else "gone", path)

    monkeypatch.setattr(stored_source, "LISTS", (".json",))
    with monkeypatch.context() as patch:
        patch.setattr(Storage, "fetch", lose_after_four)
        with pytest.raises(UserError, match="is not there"):
            prepare_stored(tmp_path, place)
    assert list((tmp_path / "scratch").glob("*/clips/*")) == []
    assert "4 clips finished already, 4 left" in prepare_stored(tmp_path, place)
    assert set(read_stored(place)) == {*SAME, "contents.json", "parts.tar"}


def test_errors_name_the_address_and_not_the_folder_that_stands_for_it(tmp_path: Path, place: str) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "notes.json").write_text("{}")
    upload(tmp_path / "source", f"{place}/source")
    with pytest.raises(UserError) as caught:
        prepare_stored(tmp_path, place)
    assert str(caught.value).startswith(f"{place}/source: ")


def test_an_address_without_files_or_with_others_is_refused(tmp_path: Path, source: Path, place: str) -> None:
    with pytest.raises(UserError, match="holds no file"):
        prepare_stored(tmp_path, place)
    upload(source, f"{place}/source")
    upload(source, f"{place}/set")
    with pytest.raises(UserError, match="holds something else"):
        prepare_stored(tmp_path, place)
    assert "manifest.arrow" not in read_stored(place)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["videos", "s3://b/set"], "add --shards"),
        (["s3://b/videos", "s3://b/videos/set", "--shards"], "lie in each other"),
        (["s3://b/set/videos", "s3://b/set/", "--shards"], "lie in each other"),
        (["videos", "set", "--scratch", "x"], "leave it out"),
    ],
)
def test_a_command_that_no_storage_takes_is_refused(words: list[str], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        parse_command_line(words)


def test_a_command_keeps_addresses_and_names_the_set_after_its_folder() -> None:
    read = parse_command_line(["s3://b/my videos/", "gs://c/set", "--shards"])
    assert isinstance(read, Request)
    assert (read.stored_source, read.stored_dest) == ("s3://b/my videos", "gs://c/set")
    assert read.describe("folder")["source"] == "my videos"


def test_a_table_in_a_storage_stands_among_the_files_that_it_names(tmp_path: Path, place: str) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "table.csv").write_text("path,person\nclips/a.mp4,Ann\n")
    (tmp_path / "source" / "clips").mkdir()
    (tmp_path / "source" / "clips" / "a.mp4").write_bytes(b"a film")
    upload(tmp_path / "source", f"{place}/source")
    request = Request(Path(), tmp_path / "set", stored_source=f"{place}/source/table.csv", scratch=tmp_path / "scratch")
    request, work = remote.open_work(request)
    source = remote._open_source(request, stored_source.ClipFolder(tmp_path / "clips"))
    assert work is not None
    assert source is not None
    source.mirror(print)
    assert request.source.read_text().startswith("path,person")
    assert (request.source.parent / "clips" / "a.mp4").read_bytes() == bytes(6)
    assert (request.source.parent / "clips" / "a.mp4").stat().st_blocks == 0


def test_names_that_lead_outside_are_left_out(tmp_path: Path, place: str) -> None:
    (tmp_path / "one").write_text("x")
    storage = Storage(f"{place}/source")
    for name in ("a//b.mp4", "../c.mp4", "fine.mp4"):
        storage.put(tmp_path / "one", name)
    lines = list[str]()
    stored_source.StoredSource(storage, tmp_path / "mirror", stored_source.ClipFolder(tmp_path)).mirror(lines.append)
    assert [path.name for path in (tmp_path / "mirror").rglob("*") if path.is_file()] == ["fine.mp4"]
    assert not (tmp_path / "c.mp4").exists()


def test_what_a_killed_worker_had_fetched_is_removed(tmp_path: Path) -> None:
    clips = stored_source.ClipFolder(tmp_path / "clips")
    with clips.fresh() as folder:
        dead = folder.with_name(folder.name.rpartition(".")[0].rpartition(".")[0] + ".4194305.x")  # above any number
        elsewhere = folder.with_name("another machine.1.x")
        for one in (dead, elsewhere):
            one.mkdir()
        with clips.fresh():
            assert not dead.exists()
            assert elsewhere.exists()
            assert folder.exists()
    assert not folder.exists()


def test_nodes_that_do_not_see_dest_send_what_they_cropped(
    tmp_path: Path, source: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool of a cluster within this process; two nodes of a real one are in test_ray.py."""

    class Pool(InProcessPool):
        def __init__(self, build: Any, address: str, *, count: int | None, say: Any) -> None:
            super().__init__(build, 1, timeout_s=1.0)

    carried = list[finished.Carried]()

    def note(build: Callable[[], Any], timeout_s: float) -> Any:
        worker = build()
        return lambda job: carried.append(worker(job)) or carried[-1]

    monkeypatch.setattr(run, "RayPool", Pool)
    monkeypatch.setattr(run, "IsolatedWork", note)
    upload(source, f"{place}/source")
    prepare_stored(tmp_path, place, ray="here")
    prepare(source, tmp_path / "set", shards=True)
    assert len(carried) == 8
    assert {name: read_stored(place)[name] for name in SAME} == {
        name: read_all(tmp_path / "set")[name] for name in SAME
    }
