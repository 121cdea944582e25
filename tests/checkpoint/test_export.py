"""best_model.safetensors: the tensors of best_model.pth, seen to belong to it, and made again where they do not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sharpstudent.checkpoint import selection
from sharpstudent.checkpoint.selection import BestCheckpoints
from sharpstudent.checkpoint.store import export_model, load_checkpoint, save_checkpoint
from sharpstudent.core.archive import read_sha256
from sharpstudent.core.errors import UserError
from sharpstudent.core.io import compute_sha256
from sharpstudent.models.weight_files import read_tensors

SELECTION = {"epoch": 3, "value": 0.75, "metric": "val_auc"}


def saver(epoch: int, value: float) -> Callable[[Path], None]:
    tensors = {"model": {"b.weight": torch.full((4, 2), float(epoch)).t(), "a.steps": torch.tensor(epoch)}}
    about = {"classes": ["real", "fake"], "architecture": "tiny", "epoch": epoch, "val_auc": value}
    return lambda path: save_checkpoint(path, tensors, about=about)


def consider(best: BestCheckpoints, *values: float) -> None:
    for epoch, value in enumerate(values, start=1):
        best.consider(epoch, value, saver(epoch, value))


def read_metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.metadata()


def assert_fits(folder: Path) -> None:
    """The .safetensors is that of best_model.pth: sha256 of the whole file, and every tensor."""
    exported = folder / "best_model.safetensors"
    assert read_metadata(exported)["source_sha256"] == compute_sha256(folder / "best_model.pth")
    tensors, stored = read_tensors(exported), load_checkpoint(folder / "best_model.pth").tensors["model"]
    assert tensors.keys() == stored.keys()
    assert all(torch.equal(tensors[name], stored[name]) and tensors[name].is_contiguous() for name in stored)


def test_the_safetensors_follow_the_best_model_after_every_epoch(tmp_path: Path) -> None:
    best, values = BestCheckpoints(tmp_path, keep=2, metric="val_auc"), [0.5, 0.4, 0.6, 0.6, 0.7]
    for epoch, value in enumerate(values, start=1):
        best.consider(epoch, value, saver(epoch, value))
        assert_fits(tmp_path)
    metadata = read_metadata(tmp_path / "best_model.safetensors")
    assert (metadata["epoch"], metadata["value"], metadata["metric"]) == ("5", "0.7", "val_auc")
    assert json.loads(metadata["classes"]) == ["real", "fake"]
    assert metadata["architecture"] == "tiny"
    assert metadata["source"] == "best_model.pth"
    assert metadata["source_sha256"] == read_sha256(tmp_path / "best_model.pth")


def test_the_safetensors_are_not_written_again_while_the_best_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = BestCheckpoints(tmp_path, metric="val_auc")
    consider(best, 0.9)
    monkeypatch.setattr(selection, "export_model", lambda *_: pytest.fail("was written"))
    best.consider(2, 0.8, saver(2, 0.8))


def test_the_same_checkpoint_gives_the_same_bytes(tmp_path: Path) -> None:
    contents = set()
    for name in ("a", "b", "c"):
        saver(3, 0.75)(tmp_path / name / "best_model.pth")
        assert export_model(tmp_path / name / "best_model.pth", SELECTION) is True
        assert export_model(tmp_path / name / "best_model.pth", SELECTION) is False
        contents.add((tmp_path / name / "best_model.safetensors").read_bytes())
    assert len(contents) == 1  # the library alone writes metadata in a random order


@pytest.mark.parametrize("length", range(8))
def test_the_tensors_begin_where_the_format_wants_them(tmp_path: Path, length: int) -> None:
    save_checkpoint(tmp_path / "m.pth", {"model": {"a": torch.ones(3)}}, about={"note": "ä" + "x" * length})
    export_model(tmp_path / "m.pth", {})
    header = int.from_bytes((tmp_path / "m.safetensors").read_bytes()[:8], "little")
    assert header % 8 == 0  # a mapped file then gives aligned tensors
    assert read_metadata(tmp_path / "m.safetensors")["note"] == "ä" + "x" * length


def test_tensors_that_share_memory_are_written_twice(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    save_checkpoint(tmp_path / "m.pth", {"model": {"a": shared, "b": shared[:3], "c": shared}}, about={})
    export_model(tmp_path / "m.pth", {})
    assert {name: len(value) for name, value in read_tensors(tmp_path / "m.safetensors").items()} == {
        "a": 6, "b": 3, "c": 6,
    }  # fmt: skip


def test_a_kill_between_the_two_files_shows_and_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    best = BestCheckpoints(tmp_path, metric="val_auc")
    consider(best, 0.6)
    killed = BestCheckpoints(tmp_path, metric="val_auc")
    killed.restore(best.state())

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(selection, "export_model", die)
        with pytest.raises(KeyboardInterrupt):
            killed.consider(2, 0.9, saver(2, 0.9))
    exported = tmp_path / "best_model.safetensors"
    assert read_metadata(exported)["source_sha256"] != read_sha256(tmp_path / "best_model.pth")
    again = BestCheckpoints(tmp_path, metric="val_auc")
    notes = again.restore(killed.state())
    assert notes == ["best_model.safetensors was not that of best_model.pth; made again"]
    assert_fits(tmp_path)
    assert again.restore(killed.state()) == []


@pytest.mark.parametrize("damage", ["gone", "cut", "flip", "html"])
def test_missing_or_damaged_safetensors_are_made_again(tmp_path: Path, damage: str) -> None:
    best = BestCheckpoints(tmp_path, metric="val_auc")
    consider(best, 0.6)
    exported = tmp_path / "best_model.safetensors"
    whole = exported.read_bytes()
    if damage == "gone":
        exported.unlink()
    else:
        exported.write_bytes({"cut": whole[:-4], "flip": whole[:-1] + b"\x07", "html": b"<html>"}[damage])
    (note,) = BestCheckpoints(tmp_path, metric="val_auc").restore(best.state())
    assert note.startswith("best_model.safetensors was ")
    assert exported.read_bytes() == whole


def test_a_damaged_best_model_is_reported_on_a_resume_and_does_not_stop_it(tmp_path: Path) -> None:
    best = BestCheckpoints(tmp_path, metric="val_auc")
    consider(best, 0.6)
    path = tmp_path / "best_model.pth"
    whole = path.read_bytes()
    path.write_bytes(whole[:700] + bytes([whole[700] ^ 1]) + whole[701:])
    (note,) = BestCheckpoints(tmp_path, metric="val_auc").restore(best.state())
    assert note.startswith("best_model.pth is damaged")


def test_a_checkpoint_without_a_model_cannot_be_exported(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "m.pth", {"weights": {}}, about={})
    with pytest.raises(UserError, match="holds no `model`"):
        export_model(tmp_path / "m.pth", {})


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is empty"), (b"<html>404</html>", "is a web page"), (b"\xff" * 64, "is cut off"), (None, "is cut off")],
    ids=["empty", "html", "ff", "cut"],
)
def test_what_is_no_safetensors_is_the_users_error(tmp_path: Path, content: bytes | None, words: str) -> None:
    saver(1, 0.5)(tmp_path / "m.pth")
    export_model(tmp_path / "m.pth", {})
    path = tmp_path / "m.safetensors"
    path.write_bytes(path.read_bytes()[:-3] if content is None else content)
    with pytest.raises(UserError, match=words) as caught:
        read_tensors(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("key", ["pretrained_student_weights", "teacher_weights"])
def test_a_model_built_from_the_safetensors_is_that_of_the_pth_bit_for_bit(tmp_path: Path, key: str) -> None:
    from sharpstudent.models.build import build_student, build_teachers
    from sharpstudent.models.vision import build_classifier
    from sharpstudent.tasks.deepfake.task import DeepfakeTask

    torch.manual_seed(0)
    made = build_classifier("test_resnet", classes=2, dropout=0.3).state_dict()
    save_checkpoint(tmp_path / "best_model.pth", {"model": made}, about={"epoch": 1})
    export_model(tmp_path / "best_model.pth", SELECTION)
    states = []
    for suffix in (".pth", ".safetensors"):
        torch.manual_seed(1)
        config = make_config(key, tmp_path / f"best_model{suffix}")
        build = build_student if key == "pretrained_student_weights" else build_teachers
        states.append(build(config, DeepfakeTask(config.task_section), say=lambda _: None).state_dict())
    one, other = states
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one)
    assert sum(torch.equal(value, made[name]) for name, value in one.items() if name in made) == len(made) or (
        key == "teacher_weights"  # wrapped: its keys have a prefix
    )


def make_config(key: str, weights: Path):
    from sharpstudent.config.load import validate_keys
    from sharpstudent.config.resolve import resolve
    from sharpstudent.tasks.deepfake.task import DeepfakeTask

    keys = {"student": "test_resnet", "teacher": "test_resnet", "teacher_weights": "t", "image_size": 32}
    keys |= {"pretrained_student_weights": "s", key: str(weights)}
    checked = validate_keys(keys, DeepfakeTask)
    return resolve(checked, stage=2, name="run", config_name="config", task=DeepfakeTask)
