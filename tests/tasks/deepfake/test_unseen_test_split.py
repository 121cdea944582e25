"""No test split ever reaches the trainer: with its files gone or spoiled, and any access to them raising, both stages
run to the end, preflight, selection and calibration included, and leave the same bytes.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import ffpp_tree
import pytest
from drawn_faces import draw_face
from drawn_sources import LookupDetector, LookupMesh, draw_registered_face, write_picture
from prepared_set import SetFace, write_set
from sharpstudent.tasks.deepfake.dataset.manifest import Manifest
from sharpstudent.tasks.deepfake.sources import face_crops
from sharpstudent.tasks.deepfake.sources.face import FaceSplits
from sharpstudent.tasks.deepfake.task import DeepfakeTask
from sharpstudent.train.build import TrainingData
from workplace import STAGE_1, STAGE_2, Workplace

CONFIG = {
    "image_size": 32,
    "student": "test_efficientnet",
    "student_init": "random",
    "epoch": 2,
    "batch_size": 2,
    "stage2": {"batch_size": 2, "epoch": 1},
    "lr": 0.01,
    "num_workers": 0,
    "device": "cpu",
    "report": False,
    "ema_decay": 0.5,
    "teacher": "test_resnet",
    "teacher_weights": "weights/teacher.pth",
    "pretrained_student_weights": "output/one_*/weights/best_model.pth",
}
FORBIDDEN: list[str] = []  # real paths; who opens or lists one, or anything below it, fails


def _refuse(event: str, args: tuple[Any, ...]) -> None:
    if not FORBIDDEN or event not in ("open", "os.listdir", "os.scandir", "mmap.__new__"):
        return
    if args and isinstance(args[0], str | bytes | os.PathLike):
        path = os.path.realpath(os.fsdecode(args[0]))
        if any(path == place or path.startswith(place + os.sep) for place in FORBIDDEN):
            raise AssertionError(f"{event} of the test split: {path}")


@contextmanager
def forbidding(paths: list[Path]) -> Iterator[None]:
    """While it lasts, Python opens none of these files and lists none of these folders; others may be gone."""
    if not getattr(sys, "_test_split_is_watched", False):
        sys.addaudithook(_refuse)  # for the life of the process, and idle outside this block
        sys._test_split_is_watched = True  # type: ignore[attr-defined]
    FORBIDDEN.extend(os.path.realpath(path) for path in paths)
    try:
        yield
    finally:
        FORBIDDEN.clear()


@dataclass(frozen=True)
class Source:
    """A data set in `place/data`: its keys, and the files and folders of its test split."""

    keys: dict[str, Any]
    tests: list[Path]


def build_manifest(place: Path, *, shards: bool = False) -> Source:
    splits = ["train"] * 8 + ["val"] * 6 + ["test"] * 6
    faces = [
        SetFace(*draw_face(i, 100), split, i % 2, f"clip {i // 2}", f"person {i // 2}", {})
        for i, split in enumerate(splits)
    ]
    # A shard holds faces of one split only, so that one of the test split can be taken away.
    manifest = write_set(place / "data/set", faces, shards=shards, per_shard=2)
    rows = [row for row in Manifest.open(manifest) if row.split == "test"]
    tests = sorted({manifest.parent / row.path for row in rows})
    return Source({"data_source": "manifest", "data_root": "data/set", "fakes": "labels"}, tests)


def build_shards(place: Path) -> Source:
    return build_manifest(place, shards=True)


def build_ffpp(place: Path) -> Source:
    root = ffpp_tree.build_tree(place / "data/ffpp", train_clips=4, val_clips=2, frames=1)
    numbers = [number for pair in json.loads((root / "test.json").read_text()) for number in pair]
    frames = [root / "original_sequences/youtube/c23/frames" / number for number in numbers]
    return Source({"data_source": "ffpp", "data_root": "data/ffpp"}, [root / "test.json", *frames])


def build_photos(place: Path) -> Source:
    lines = ["path,person,split"]
    for i, split in enumerate(["train"] * 4 + ["val"] * 3 + ["test"] * 3):
        write_picture(place / f"data/photos/{i}.png", draw_registered_face(i))
        lines.append(f"{i}.png,person {i},{split}")
    (place / "data/photos/faces.csv").write_text("\n".join(lines) + "\n")
    tests = [place / f"data/photos/{i}.png" for i in range(7, 10)]
    return Source({"data_source": "photos", "data_root": "data/photos/faces.csv"}, tests)


def build_labelled(place: Path) -> Source:
    ffpp_tree.write_labelled(place / "data/all", people=6)
    for person in range(6):
        split = "train" if person < 3 else "val" if person < 5 else "test"
        for label in ("real", "fake"):
            target = place / "data/labelled" / split / label
            target.mkdir(parents=True, exist_ok=True)
            shutil.move(place / f"data/all/{label}/person_{person:02d}", target)
    return Source({"data_source": "labelled", "data_root": "data/labelled"}, [place / "data/labelled/test"])


SOURCES: dict[str, Callable[[Path], Source]] = {
    "manifest": build_manifest,
    "shards": build_shards,
    "ffpp": build_ffpp,
    "photos": build_photos,
    "labelled": build_labelled,
}


@pytest.fixture(autouse=True)
def _networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face_crops, "load_face_models", lambda: (LookupDetector(), LookupMesh()))


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def spoil(path: Path) -> None:
    """Other bytes in the file, or in every file below the folder."""
    for file in [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]:
        file.write_bytes(b"spoiled")


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def make_place(folder: Path, build: Callable[[Path], Source]) -> tuple[Workplace, Source]:
    import torch
    from sharpstudent.models.vision import build_classifier

    folder.mkdir()
    place, source = Workplace(folder), build(folder)
    (folder / "weights").mkdir()
    torch.manual_seed(0)
    teacher = build_classifier("test_resnet", classes=2, dropout=None)
    torch.save(teacher.state_dict(), folder / "weights/teacher.pth")
    (folder / "configs/c.json").write_text(json.dumps(CONFIG | source.keys))
    return place, source


def run_both(place: Workplace) -> dict[str, bytes]:
    """Both stages; what they leave that says anything about the data."""
    left: dict[str, bytes] = {}
    for script, name in ((STAGE_1, "one"), (STAGE_2, "two")):
        ended = place.call(script, "configs/c.json", "-n", name)
        assert ended.code == 0, ended.out + ended.err
        run = place.find_run(name)
        files = [*run.glob("weights/*.pth"), *run.glob("weights/*.safetensors"), run / "logs/metrics.csv"]
        files += run.glob("logs/preflight.json")
        left |= {f"{name}/{path.name}": path.read_bytes() for path in files if path.name != "last_previous.pth"}
        about = json.loads((run / "weights/best_model.pth.json").read_text())["about"]
        assert about["calibration"]["operating_points"]["frame"]
        assert "val_auc" in about
    assert "two/preflight.json" in left
    return left


FAST = ("manifest", "photos")  # the other sources open their splits alike; the test of what is opened has them all


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in SOURCES]
)
def test_without_the_test_split_everything_is_the_same_to_the_last_bit(tmp_path: Path, name: str) -> None:
    place, source = make_place(tmp_path / "with", SOURCES[name])
    assert source.tests
    assert all(path.exists() for path in source.tests)
    wanted = run_both(place)
    place, source = make_place(tmp_path / "without", SOURCES[name])
    for number, path in enumerate(source.tests):
        (spoil if number % 2 else remove)(path)
    with forbidding(source.tests):
        found = run_both(place)
    assert sorted(found) == sorted(wanted)
    assert [file for file in wanted if found[file] != wanted[file]] == []


def test_the_guard_catches_any_access_to_the_test_split(tmp_path: Path) -> None:
    """The guard itself: without it the test above would say nothing of reads."""
    _, source = make_place(tmp_path / "place", build_labelled)
    picture = next(source.tests[0].rglob("*.png"))
    import numpy as np

    with forbidding(source.tests):
        for touch in (picture.read_bytes, lambda: np.fromfile(picture, np.uint8), lambda: os.listdir(picture.parent)):
            with pytest.raises(AssertionError, match="of the test split"):
                touch()
    assert picture.read_bytes()


def test_training_data_has_no_field_for_a_test_split() -> None:
    """A field more is a decision: it may not be one for test data."""
    assert [field.name for field in fields(TrainingData)] == ["train", "validation"]
    assert [field.name for field in fields(FaceSplits)] == ["train", "validation", "notes", "depends_on", "kinds"]


@pytest.mark.parametrize("name", list(SOURCES))
def test_a_training_run_opens_only_the_splits_train_and_validation(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, ...]] = []
    open_data = DeepfakeTask.open_data

    def record(self: DeepfakeTask, *splits: str) -> Any:
        opened.append(splits)
        return open_data(self, *splits)

    monkeypatch.setattr(DeepfakeTask, "open_data", record)
    place, _ = make_place(tmp_path / "place", SOURCES[name])
    run_both(place)
    assert opened == [("train", "validation")] * 2
