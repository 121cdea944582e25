"""Damaged files of weights: with a digest or checksums, no reader takes a changed value; without, one note says so."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from sharpstudent.checkpoint.store import export_model, load_checkpoint, save_checkpoint
from sharpstudent.core.archive import path_of_json, verify
from sharpstudent.core.errors import UserError
from sharpstudent.evaluation.model_files import read_tensor_file
from sharpstudent.models.weight_files import read_tensors
from torch import Tensor

FLIPS = 200
Tensors = Mapping[str, Tensor]
READERS: dict[str, Callable[[Path], Tensors]] = {
    "read_tensors": read_tensors,
    "load_checkpoint": lambda path: load_checkpoint(path).tensors["model"],
    "read_tensor_file": lambda path: read_tensor_file(path).tensors,
}


def make_weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {"head.weight": torch.randn(2, 300, generator=generator), "head.bias": torch.randn(2, generator=generator)}


def write_checkpoint(folder: Path, *, has_json: bool = True) -> Path:
    path = folder / "best_model.pth"
    save_checkpoint(path, {"model": make_weights()}, about={"architecture": "test", "classes": ["real", "fake"]})
    if not has_json:
        path_of_json(path).unlink()
    return path


def write_safetensors(folder: Path) -> Path:
    path = write_checkpoint(folder)
    export_model(path, {"epoch": 1})
    return path.with_suffix(".safetensors")


def are_equal(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def count_changed_values(path: Path, read: Callable[[Path], Tensors]) -> int:
    """How many of `FLIPS` single-bit flips are read with other values and without an error."""
    whole, expected, rng = path.read_bytes(), read(path), random.Random(7)
    changed = 0
    for _ in range(FLIPS):
        place, bit = rng.randrange(len(whole)), 1 << rng.randrange(8)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        try:
            changed += not are_equal(read(path), expected)
        except UserError:
            continue
    return changed


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("has_json", [True, False], ids=["with its JSON", "without"])
def test_no_reader_takes_a_flipped_bit_of_a_checkpoint(tmp_path: Path, reader: str, has_json: bool) -> None:
    assert count_changed_values(write_checkpoint(tmp_path, has_json=has_json), READERS[reader]) == 0


@pytest.mark.parametrize("reader", ["read_tensors", "read_tensor_file"])
def test_no_reader_takes_a_flipped_bit_of_our_safetensors(tmp_path: Path, reader: str) -> None:
    assert count_changed_values(write_safetensors(tmp_path), READERS[reader]) == 0


def test_a_changed_class_name_in_the_metadata_is_damage(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"fake", b"fakE", 1))
    with pytest.raises(UserError, match="does not match the digest"):
        verify(path)


def test_safetensors_of_another_program_are_said_to_be_unverified(tmp_path: Path) -> None:
    path = tmp_path / "theirs.safetensors"
    save_file(make_weights(), path)
    notes: list[str] = []
    assert are_equal(read_tensors(path, notes.append), make_weights())
    assert notes == [*verify(path)]
    assert "theirs.safetensors is not verified" in notes[0]


def test_weights_in_the_oldest_format_of_torch_are_said_to_be_unverified(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save(make_weights(), path, _use_new_zipfile_serialization=False)
    notes: list[str] = []
    assert are_equal(read_tensors(path, notes.append), make_weights())
    assert "old.pth is not verified" in notes[0]


def test_a_verified_file_has_no_note(tmp_path: Path) -> None:
    assert verify(write_safetensors(tmp_path)) == ()
    assert verify(tmp_path / "best_model.pth") == ()


def test_a_fetched_file_is_checked_against_the_list_in_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "detector.onnx"
    path.write_bytes(b"a graph")
    entry = {"file": path.name, "sha256": hashlib.sha256(b"a graph").hexdigest()}
    (tmp_path / "MANIFEST.json").write_text(json.dumps({"files": [entry]}))
    assert verify(path) == ()
    path.write_bytes(b"a grapi")
    with pytest.raises(UserError, match=r"is not the file that MANIFEST\.json lists for it"):
        verify(path)


@pytest.mark.parametrize("content", ["", "[]", '{"files": 3}', '{"files": [{}]}', "[" * 100_000])
def test_a_broken_list_in_the_folder_leaves_the_file_unverified(tmp_path: Path, content: str) -> None:
    path = tmp_path / "detector.onnx"
    path.write_bytes(b"a graph")
    (tmp_path / "MANIFEST.json").write_text(content)
    assert "detector.onnx is not verified" in verify(path)[0]
