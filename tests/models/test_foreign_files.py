"""Files of weights from others that are hostile: one message each, and memory bounded by the file's size."""

from __future__ import annotations

import io
import json
import resource
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from sharpstudent.checkpoint.store import load_checkpoint, save_checkpoint
from sharpstudent.core.errors import UserError
from sharpstudent.evaluation.model_files import parse_metadata, read_tensor_file, read_validation
from sharpstudent.models.weight_files import read_tensors
from sharpstudent.models.weights import load_weights
from torch import Tensor, nn

READERS: dict[str, Callable[[Path], object]] = {
    "read_tensors": read_tensors,
    "load_checkpoint": load_checkpoint,
    "read_tensor_file": read_tensor_file,
}


def make_quantised() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)


ODD: dict[str, Callable[[], Any]] = {
    "sparse": lambda: torch.eye(3).to_sparse(),
    "sparse of 10^12": lambda: torch.sparse_coo_tensor(torch.zeros(1, 1, dtype=torch.int64), [1.0], (10**12,)),
    "compressed sparse rows": lambda: torch.eye(3).to_sparse_csr(),
    "quantised": make_quantised,
    "meta": lambda: torch.empty(10**12, device="meta"),
    "float8": lambda: torch.ones(3).to(torch.float8_e4m3fn),
    "complex": lambda: torch.ones(3, dtype=torch.complex64),
    "expanded": lambda: torch.ones(1).expand(10**12),
    "expanded to 5 dimensions": lambda: torch.ones(1, 1, 1, 1, 1).expand(10**3, 10**3, 10**3, 10**3, 1),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ODD)
def test_a_tensor_of_an_odd_kind_is_one_message(tmp_path: Path, kind: str, reader: str) -> None:
    path = tmp_path / "theirs.pth"
    torch.save({"head.weight": torch.ones(2, 3), "body.weight": ODD[kind]()}, path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError) as caught:
        READERS[reader](path)
    (problem,) = caught.value.problems
    assert problem.where == str(path)
    assert problem.remedy
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kilobytes


@pytest.mark.parametrize("reader", READERS)
def test_odd_tensors_deep_inside_are_found_and_a_shared_list_is_walked_once(tmp_path: Path, reader: str) -> None:
    path = tmp_path / "theirs.pth"
    inner: list[Any] = [torch.ones(1).expand(10**12)]
    for _ in range(60):  # 2^60 paths lead to the tensor
        inner = [inner, inner]
    torch.save({"head.weight": torch.ones(2, 3), "more": inner}, path)
    with pytest.raises(UserError, match="a kind that no weights have"):
        READERS[reader](path)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64], ids=str)
def test_odd_numbers_in_safetensors_are_one_message(tmp_path: Path, dtype: torch.dtype) -> None:
    save_file({"head.weight": torch.ones(2, 3).to(dtype)}, tmp_path / "theirs.safetensors")
    for reader in ("read_tensors", "read_tensor_file"):
        with pytest.raises(UserError, match=r"a kind that no weights have|cannot be read as safetensors"):
            READERS[reader](tmp_path / "theirs.safetensors")


@pytest.mark.parametrize("reader", ["read_tensors", "read_tensor_file"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, suffix: str, reader: str, value: float) -> None:
    path, tensors = tmp_path / f"theirs{suffix}", {"head.weight": torch.full((2, 3), value)}
    torch.save(tensors, path) if suffix == ".pth" else save_file(tensors, path)
    with pytest.raises(UserError, match="1 of its 1 tensors hold values that are no numbers"):
        READERS[reader](path)


@pytest.mark.parametrize("reader", READERS)
def test_a_packed_archive_that_unpacks_to_a_thousand_times_its_size_is_refused_before_it_is_loaded(
    tmp_path: Path, reader: str
) -> None:
    buffer = io.BytesIO()
    torch.save({"head.weight": torch.zeros(2**22)}, buffer)  # 17 MB of zeros
    path = tmp_path / "theirs.pth"
    with zipfile.ZipFile(buffer) as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for record in plain.infolist():
            packed.writestr(record.filename, plain.read(record))
    del buffer
    assert path.stat().st_size < 2**20
    with pytest.raises(UserError, match="records claim more bytes than it has"):
        READERS[reader](path)


def test_integers_where_a_model_has_weights_do_not_fit(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    model.head = nn.Linear(2, 2)
    tensors = {name: tensor.to(torch.int8) for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match="of integers"):
        load_weights(model, tensors, where="theirs.pth", needs_head=True)


# --- Descriptions ---------------------------------------------------------------------------------------------------

HOSTILE: dict[str, str] = {
    "deep lists": "[" * 100_000,
    "deep objects": '{"a":' * 100_000,
    "a number of 5,000 digits": "9" * 5000,
    "a number of 400 digits": "9" * 400,
    "NaN": "NaN",
    "infinity": "1e999",
    "a list": "[1]",
    "an object": '{"a": 1}',
    "a long text": json.dumps("x" * 100_000),
    "a negative number": "-1",
    "null": "null",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_metadata_of_any_content_are_read_as_values_or_as_text(kind: str) -> None:
    keys = ("architecture", "classes", "dropout", "image_size", "val_auc", "calibration", "selected", "epoch")
    about = parse_metadata(dict.fromkeys(keys, HOSTILE[kind]))
    assert about.keys() == set(keys)
    assert all(abs(value) < 1e308 for value in read_validation(about).values())


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_description_of_any_json_in_a_checkpoint_is_an_object_or_one_message(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "theirs.pth"
    torch.save({"model": {"head.weight": torch.ones(2, 3)}, "about": HOSTILE[kind]}, path)
    try:
        about: Mapping[str, Any] = load_checkpoint(path).about
    except UserError as error:
        assert "its `about` is not JSON" in error.as_text()  # noqa: PT017 (either is right)
    else:
        assert isinstance(about, dict)


@pytest.mark.parametrize("key", ["architecture", "classes", "dropout", "image_size"])
@pytest.mark.parametrize(
    "value", [9, float("nan"), -1, 100_000, 10**400, "x" * 10_000, ["x"] * 10_000, [[[]]], {"a": 1}]
)
def test_a_hostile_description_is_one_short_message(tmp_path: Path, key: str, value: Any) -> None:
    from sharpstudent.evaluation.load_model import ModelFile, open_model

    path = tmp_path / "theirs.pth"
    about = {"architecture": "test_resnet", "classes": ["real", "fake"], "dropout": 0.0, "image_size": 32, key: value}
    torch.save({"model": {"head.1.weight": torch.ones(2, 3)}, "about": json.dumps(about)}, path)
    with pytest.raises(UserError) as caught:
        open_model(ModelFile(path), classes=("real", "fake"), device=torch.device("cpu"))
    assert str(path) in caught.value.as_text()
    assert len(caught.value.as_text()) < 2000


def test_what_this_program_writes_is_taken_by_every_reader(tmp_path: Path) -> None:
    weights = {"head.weight": torch.ones(2, 3), "count": torch.tensor(3), "mask": torch.ones(2, dtype=torch.bool)}
    weights |= {"half": torch.ones(2).half(), "bf16": torch.ones(2).bfloat16(), "view": torch.ones(4, 4).t()[1:]}
    weights["empty"] = torch.ones(0, 3)
    save_checkpoint(tmp_path / "ours.pth", {"model": weights}, about={"epoch": 1})
    for read in READERS.values():
        read(tmp_path / "ours.pth")
