"""Files of OpenVINO and ExecuTorch give what torch gives, where these are installed; damaged ones are refused."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sharpstudent.core.errors import UserError
from sharpstudent.core.onnx_file import read_program_metadata, read_xml_metadata
from sharpstudent.core.types import Batch, ExportSpec
from sharpstudent.deploy import convert
from sharpstudent.evaluation.runtimes import ExportAbout, ExportedModel, open_runtime
from torch import Tensor, nn

CPU = torch.device("cpu")
pytestmark = pytest.mark.slow  # their converters take ten seconds to import


class Two(nn.Module):
    """`x` (R, 4) and `y` (R, 2) -> `sum` (R,) and `logits` (R, 3)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"sum": x.sum(1) + y.sum(1), "logits": self.layer(torch.cat([x, y], 1)).relu()}


def make_form() -> tuple[convert.Form, dict[str, str]]:
    batch = Batch({"x": torch.rand(3, 4), "y": torch.rand(3, 2)}, rows={"id": ("a", "b", "c")})
    form = convert.build_form(Two().eval(), batch, ExportSpec())
    about = ExportAbout.model_validate({"format": "f", "inputs": form.describe_inputs(), "outputs": form.outputs})
    return form, {"export": about.model_dump_json(), "task": "mine"}


def assert_as_torch(path: Path, form: convert.Form) -> None:
    model = ExportedModel(open_runtime(path, device=CPU))
    assert model.file.runtime.about["task"] == "mine"
    for rows in (1, 2, 40):
        inputs = {"x": torch.rand(rows, 4), "y": torch.rand(rows, 2)}
        with torch.no_grad():
            wanted = form.model(**inputs)
        found = model(**inputs)
        for name in wanted:
            np.testing.assert_allclose(found[name], wanted[name], atol=1e-5)


def test_openvino_gives_what_torch_gives_and_refuses_other_weights(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="pip install '.[openvino]'")
    form, texts = make_form()
    path = tmp_path / "model.xml"
    convert.write_openvino(path, convert.to_onnx(form), texts)
    assert_as_torch(path, form)
    assert read_xml_metadata(path)["task"] == "mine"
    weights = path.with_suffix(".bin")
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 64
    weights.write_bytes(content)
    with pytest.raises(UserError, match="other weights beside it"):
        open_runtime(path, device=CPU)
    weights.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        open_runtime(path, device=CPU)
    path.write_text("<net")
    weights.write_bytes(b"")
    with pytest.raises(UserError, match="cannot be opened as OpenVINO"):
        open_runtime(path, device=CPU)


def test_executorch_gives_what_torch_gives(tmp_path: Path) -> None:
    pytest.importorskip("executorch.exir", reason="pip install '.[executorch]'")
    form, texts = make_form()
    path = tmp_path / "model.pte"
    convert.write_executorch(path, form, texts)
    assert_as_torch(path, form)
    assert read_program_metadata(path) == texts
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 64
    path.write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        open_runtime(path, device=CPU)
    path.write_bytes(b"no program")
    with pytest.raises(UserError, match="cannot be opened as ExecuTorch"):
        open_runtime(path, device=CPU)


MEMORY = "more than 4.0 GB of memory"


def check_greedy(path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=MEMORY):
        open_runtime(path, device=CPU)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB


def test_an_openvino_graph_that_asks_for_terabytes_is_one_message_and_takes_no_memory(tmp_path: Path) -> None:
    openvino: Any = pytest.importorskip("openvino", reason="pip install '.[openvino]'")
    operations = openvino.opset13
    x = operations.parameter([-1, 4], np.float32, name="x")
    total, sizes = operations.reduce_sum(x, operations.constant([0, 1])), operations.constant([2**20, 2**20])
    most = operations.reduce_max(operations.broadcast(total, sizes), operations.constant([0, 1]))
    openvino.save_model(openvino.Model([operations.add(x, most)], [x]), str(tmp_path / "greedy.xml"))
    check_greedy(tmp_path / "greedy.xml")


class Greedy(Two):
    """The same model, whose logits depend on a tensor of four terabytes."""

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        much = torch.ones(2**20, 1) * x.sum() + torch.ones(1, 2**20)
        return {"logits": self.layer(torch.cat([x, y], 1)) + much.amax()}


def test_a_program_that_plans_terabytes_is_one_message_and_takes_no_memory(tmp_path: Path) -> None:
    pytest.importorskip("executorch.exir", reason="pip install '.[executorch]'")
    form, texts = make_form()
    greedy = convert.Form(Greedy().eval(), form.inputs, ("logits",), form.free)
    convert.write_executorch(tmp_path / "greedy.pte", greedy, texts)
    check_greedy(tmp_path / "greedy.pte")


@pytest.mark.parametrize("name", ["model.onnx", "model.pte", "model.bin"])
def test_a_file_larger_than_memory_is_refused_unread(tmp_path: Path, name: str) -> None:
    (tmp_path / "model.xml").write_text("<net/>")
    with open(tmp_path / name, "wb") as file:
        file.truncate(2**42)  # takes no room on the disk
    path = tmp_path / name.replace(".bin", ".xml")
    with pytest.raises(UserError, match="does not fit into memory"):
        open_runtime(path, device=CPU)


def test_core_ml_holds_one_row_of_the_inputs_and_the_metadata(tmp_path: Path) -> None:
    tools: Any = pytest.importorskip("coremltools", reason="pip install '.[coreml]'")
    form, texts = make_form()
    path = tmp_path / "model.mlpackage"
    for _ in range(2):  # the second replaces the first
        convert.write_coreml(path, form, texts)
    about = tools.models.MLModel(str(path), skip_model_load=True).get_spec().description
    assert [(one.name, list(one.type.multiArrayType.shape)) for one in about.input] == [("x", [1, 4]), ("y", [1, 2])]
    assert [one.name for one in about.output] == ["sum", "logits"]
    assert texts.items() <= dict(about.metadata.userDefined).items()
    assert [file.name for file in tmp_path.iterdir()] == ["model.mlpackage"]


def test_without_a_converter_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(UserError, match="needs coremltools"):
        convert.write_coreml(tmp_path / "model.mlpackage", make_form()[0], {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", [".xml", ".pte"])
def test_without_the_runtime_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    import sys

    path = tmp_path / f"model{ending}"
    path.write_bytes(b"anything")
    path.with_suffix(".bin").write_bytes(b"")
    names: Any = {".xml": "openvino", ".pte": "executorch.runtime"}
    monkeypatch.setitem(sys.modules, names[ending], None)
    with pytest.raises(UserError, match="pip install "):
        open_runtime(path, device=CPU)
