"""Files with preprocessing take bytes of any size; int8 leaves in fp32 what the search says; seals find flips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sharpstudent.core.onnx_file import compare_seal, read_onnx_metadata, seal_onnx
from sharpstudent.core.types import Batch, ExportSpec
from torch import Tensor, nn

pytest.importorskip("onnxscript", reason="torch's exporter writes ONNX with onnxscript: pip install '.[export]'")
onnxruntime: Any = pytest.importorskip("onnxruntime", reason="runs ONNX files: pip install '.[onnx]'")

from sharpstudent.deploy import convert
from sharpstudent.deploy.quantize import Layer, Quantizer, search

SIDE, TEMPERATURE = 16, 2.5


class Small(nn.Module):
    """Pictures (R, 3, S, S) -> `logits` (R, 2)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU())
        self.head = nn.Linear(8, 2)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"logits": 10 * self.head(self.body(image).mean((2, 3)))}


def make_form() -> tuple[convert.Form, Any]:
    inputs = {"image": torch.rand(convert.TRACED_ROWS, 3, SIDE, SIDE)}
    spec = ExportSpec(picture="image")
    form = convert.build_form(Small().eval(), Batch(inputs, rows={"id": ("a", "b", "c")}), spec)
    with_pictures = convert.add_preprocessing(form, spec, TEMPERATURE)
    return with_pictures, convert.to_onnx(with_pictures)


@pytest.fixture(scope="module")
def made() -> tuple[convert.Form, Any]:
    return make_form()


def run(content: bytes, pictures: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": pictures}), strict=True))


def test_bytes_of_any_size_give_the_calibrated_probability_that_torch_computes(made: tuple[convert.Form, Any]) -> None:
    form, model = made
    content = model.SerializeToString()
    for rows, height, width in ((1, SIDE, SIDE), (2, 40, 23), (5, 9, 64)):
        pictures = np.random.default_rng(rows).integers(0, 256, (rows, height, width, 3), np.uint8)
        found = run(content, pictures)
        with torch.no_grad():
            wanted = form.model(image=torch.from_numpy(pictures))
        np.testing.assert_allclose(found["probability"], wanted["probability"].numpy(), atol=1e-4)
        np.testing.assert_allclose(found["logits"], wanted["logits"].numpy(), atol=2e-3)
    pictures = np.random.default_rng(9).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)  # of S already: not resized
    with torch.no_grad():
        plain = Small().eval()(torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255)["logits"]
    np.testing.assert_allclose(run(content, pictures)["probability"], (plain / TEMPERATURE).softmax(1), atol=1e-5)


def test_no_path_of_this_machine_is_in_the_file(made: tuple[convert.Form, Any]) -> None:
    content = made[1].SerializeToString()
    assert str(Path(__file__).parent).encode() not in content
    assert b"site-packages" not in content


def test_int8_moves_the_outputs_a_little_and_leaves_the_preprocessing_alone(made: tuple[convert.Form, Any]) -> None:
    generator = np.random.default_rng(1)
    inputs = [{"image": generator.integers(0, 256, (4, SIDE, SIDE, 3), np.uint8)} for _ in range(4)]
    quantizer = Quantizer(made[1], inputs, picture="image")
    model = quantizer.quantize()
    types = [node.op_type for node in model.graph.node]
    assert "DequantizeLinear" in types
    assert types.index("Resize") < types.index("QuantizeLinear")
    wanted, found = (run(one.SerializeToString(), inputs[0]["image"]) for one in (made[1], model))
    difference = np.abs(wanted["logits"] - found["logits"]).max()
    assert 0.0 < difference < 0.1 * np.abs(wanted["logits"]).max()
    kept = quantizer.quantize(quantizer.layers)
    np.testing.assert_allclose(run(kept.SerializeToString(), inputs[0]["image"])["logits"], wanted["logits"], atol=1e-4)
    bare = quantizer.quantize(bare=True)
    conversions = [[node.op_type for node in one.graph.node].count("QuantizeLinear") for one in (bare, model)]
    assert 0 < conversions[0] < conversions[1]
    assert {layer.name for layer in quantizer.rank(lambda line: None)} == {layer.name for layer in quantizer.layers}


class Counted:
    """A quantizer whose int8 form is how many layers it keeps, and 100 more where it is bare."""

    def __init__(self, count: int) -> None:
        self.layers = [Layer(str(number), (str(number),)) for number in range(count)]

    def quantize(self, keep: Any = (), *, bare: bool = False) -> int:
        return len(keep) + 100 * bare

    def rank(self, say: Any, *, bare: bool = False) -> list[Layer]:
        return self.layers[::-1]


def search_counted(count: int, needed: int) -> tuple[Any, int]:
    """What a search finds where so many are needed, and how many checks it took."""
    checks: list[int] = []

    def check(model: int) -> tuple[bool, int]:
        checks.append(model)
        return model >= needed, model

    quantizer: Any = Counted(count)
    return search(quantizer, check, lambda line: None), len(checks)


@pytest.mark.parametrize("needed", [0, 1, 2, 3, 5, 6])
def test_the_search_finds_the_fewest_layers_that_have_to_stay(needed: int) -> None:
    found, checks = search_counted(13, needed)
    assert (found.model, found.result, found.passed, found.bare) == (needed, needed, True, False)
    assert found.kept == tuple(Counted(13).layers[::-1][:needed])
    assert checks <= 8


@pytest.mark.parametrize("needed", [7, 100, 101, 105, 112])
def test_where_half_the_layers_do_not_suffice_all_between_them_stays_in_fp32(needed: int) -> None:
    found, checks = search_counted(13, needed)
    assert (found.passed, found.bare, found.model) == (True, True, max(100, needed))
    assert len(found.kept) == found.model - 100
    assert checks <= 14


def test_a_search_in_vain_ends_with_half_the_layers() -> None:
    found, _ = search_counted(8, 1000)
    assert (found.passed, found.bare, len(found.kept), found.result) == (False, False, 4, 4)


def test_the_seal_finds_every_flip_and_metadata_are_read(made: tuple[convert.Form, Any], tmp_path: Path) -> None:
    import onnx

    path = tmp_path / "model.onnx"
    convert.write_onnx(path, made[1], {"task": "mine", "long": "ä" * 5000})
    stated, found = compare_seal(path) or ("", "-")
    assert stated == found
    props = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert read_onnx_metadata(path) == props
    assert props["long"] == "ä" * 5000
    whole = path.read_bytes()
    for place in range(0, len(whole) - 84, len(whole) // 40):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        stated, found = compare_seal(path) or ("", "")
        assert stated != found
    path.write_bytes(whole[: len(whole) // 2])
    assert compare_seal(path) is None
    with pytest.raises(ValueError, match="cut off"):
        read_onnx_metadata(path)
    assert seal_onnx(b"") != b""
