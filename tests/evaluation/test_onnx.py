"""ONNX files predict as the classifiers that they were exported from; what cannot be understood is refused by name."""

from __future__ import annotations

import json
import os
import resource
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_forms import SIDE, SMALL, build, make_pictures, open_file, predict
from sharpstudent.core.errors import UserError
from sharpstudent.core.io import compute_sha256
from sharpstudent.evaluation.onnx import OnnxClassifier
from torch import Tensor, nn

onnx = pytest.importorskip("onnx", reason="makes ONNX files with the package onnx: pip install '.[onnx]'")
pytest.importorskip("onnxruntime", reason="runs ONNX files: pip install '.[onnx]'")
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


class Logits(nn.Module):
    """A classifier as exporters want it: tensors in, a tensor out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)["logits"]


def export(path: Path, model: nn.Module, *, batch: int | None = None, free_size: bool = False) -> Path:
    pytest.importorskip("onnxscript", reason="torch's exporter writes ONNX with onnxscript: pip install '.[onnx]'")
    free: dict[int, Any] = {} if batch else {0: torch.export.Dim("batch")}
    free |= {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC} if free_size else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Logits(model).eval(),
            (make_pictures(batch or 2),),
            dynamo=True,
            dynamic_shapes=(free,),
            output_names=["logits"],
            verbose=False,
        )
    assert program is not None
    program.save(str(path))
    return path


def describe(path: Path, **about: Any) -> Path:
    """Put metadata into the file, each value as JSON text."""
    model = onnx.load(path)
    helper.set_model_props(model, {key: json.dumps(value) for key, value in about.items()})
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("onnx") / "small.onnx", build())


# Small graphs by hand: the mean of each colour (N, 3), then a linear map to the outputs.


def write_graph(
    path: Path,
    *,
    outputs: Sequence[str] = ("said",),
    columns: int = 2,
    shape: Sequence[int | str] = ("N", 3, SIDE, SIDE),
    kind: int = FLOAT,
    then: str | None = None,
    flatten: bool = False,
    inputs: int = 1,
) -> Path:
    """columns: numbers a picture; then: an operator on them, such as Softmax; flatten: (N,) in place of (N, 1)."""
    weights = np.random.default_rng(1).normal(size=(3, columns)).astype(np.float32)
    weights = weights.astype(np.float16) if kind == TensorProto.FLOAT16 else weights
    wanted = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.array([2, 3]), "axes")]
    wanted += [numpy_helper.from_array(np.array([-1]), "flat")]
    nodes = [helper.make_node("ReduceMean", ["images", "axes"], ["means"], keepdims=0)]
    nodes += [helper.make_node("MatMul", ["means", "w"], ["mapped"])]
    nodes += [helper.make_node(then or "Identity", ["mapped"], ["shaped"])]
    nodes += [helper.make_node("Reshape" if flatten else "Identity", ["shaped", "flat"][: 1 + flatten], ["row"])]
    nodes += [helper.make_node("Identity", ["row"], [name]) for name in outputs]
    images = [helper.make_tensor_value_info("images", kind, shape)]
    images += [helper.make_tensor_value_info(f"more{i}", kind, shape) for i in range(1, inputs)]
    if len(shape) != 4 or shape[1] != 3:  # no such means: what it takes is all that is looked at
        nodes = [helper.make_node("Identity", ["images"], [name]) for name in outputs]
    graph = helper.make_graph(
        nodes, "g", images, [helper.make_tensor_value_info(name, kind, None) for name in outputs], wanted
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def expect(columns: int) -> np.ndarray:
    """What such a graph says of `make_pictures()`, (5, columns)."""
    weights = np.random.default_rng(1).normal(size=(3, columns)).astype(np.float32)
    return make_pictures().numpy().mean((2, 3)) @ weights


def refusal(path: Path, **spec: Any) -> str:
    with pytest.raises(UserError) as caught:
        open_file(path, **spec)
    text = caught.value.as_text()
    assert str(path) in text
    assert "remedy: " in text
    return text


# --- Exported classifiers -------------------------------------------------------------------------------------------


def test_an_exported_classifier_gives_its_logits_for_any_number_of_pictures(exported: Path) -> None:
    opened = open_file(exported)
    assert (opened.kind, opened.input_key, opened.architecture, opened.name) == ("onnx", SIDE, None, "small")
    assert opened.sha256 == compute_sha256(exported)
    assert any("evaluated as: RGB in 0..1, as it is; 32 px; logits in the order real, fake" in n for n in opened.notes)
    for count in (1, 2, 5):
        pictures = make_pictures(count)
        torch.testing.assert_close(predict(opened.model, pictures), predict(build(), pictures), atol=1e-4, rtol=0)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch_is_padded_and_the_padding_removed(tmp_path: Path, batch: int) -> None:
    opened = open_file(export(tmp_path / "fixed.onnx", build(), batch=batch))
    for count in (1, 4, 7):
        pictures = make_pictures(count)
        torch.testing.assert_close(predict(opened.model, pictures), predict(build(), pictures), atol=1e-4, rtol=0)


def test_a_free_size_needs_one_and_takes_it(tmp_path: Path) -> None:
    path = export(tmp_path / "free.onnx", build(), free_size=True)
    assert "--image-size" in refusal(path)
    opened = open_file(path, image_size=48)
    pictures = make_pictures(2, 48)
    torch.testing.assert_close(predict(opened.model, pictures), predict(build(), pictures), atol=1e-4, rtol=0)
    assert open_file(describe(path, image_size=64)).input_key == 64


def test_metadata_are_believed(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "described.onnx"
    path.write_bytes(exported.read_bytes())
    block = {"temperature": 1.5}
    describe(path, architecture=SMALL, classes=["fake", "real"], image_size=SIDE, calibration=block)
    opened = open_file(path)
    assert (opened.architecture, opened.classes) == (SMALL, ("fake", "real"))
    assert ["is not verified" in note for note in opened.notes] == [True]  # nothing is assumed
    assert opened.about["calibration"] == block
    want = predict(build(), make_pictures()).flip(1)
    torch.testing.assert_close(predict(opened.model, make_pictures()), want, atol=1e-4, rtol=0)
    assert "leave classes out" in refusal(path, classes=("real", "fake"))
    assert "leave mean and std out" in refusal(path, mean=(0.5, 0.5, 0.5))


def test_metadata_that_contradict_the_graph_are_refused(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "wrong.onnx"
    path.write_bytes(exported.read_bytes())
    assert "its metadata states another" in refusal(describe(path, image_size=64))
    assert "image_size = 'big'" in refusal(describe(path, image_size="big"))
    assert "states its image_size itself" in refusal(exported, image_size=64)


def test_mean_and_std_scale_what_a_file_without_metadata_sees(exported: Path) -> None:
    opened = open_file(exported, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    want = predict(build(), 2 * make_pictures() - 1)
    torch.testing.assert_close(predict(opened.model, make_pictures()), want, atol=1e-4, rtol=0)


def test_an_onnx_file_gives_no_feature_maps_and_cannot_be_trained(exported: Path) -> None:
    model = open_file(exported).model.model
    assert isinstance(model, OnnxClassifier)
    for call in (lambda: model.get_features(make_pictures()), model.enable_gradient_checkpointing):
        with pytest.raises(UserError, match=r"small\.onnx"):
            call()


# --- Other outputs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flatten", [False, True])
def test_one_number_a_picture_is_the_log_odds_of_the_second_class(tmp_path: Path, flatten: bool) -> None:
    path = write_graph(tmp_path / "odds.onnx", columns=1, flatten=flatten)
    odds = expect(1)[:, 0]
    logits = predict(open_file(path).model, make_pictures()).numpy()
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], odds, atol=1e-6)
    swapped = predict(open_file(path, classes=("fake", "real")).model, make_pictures()).numpy()
    np.testing.assert_allclose(swapped[:, 1] - swapped[:, 0], -odds, atol=1e-6)


def test_of_several_outputs_the_one_called_logits_is_taken_else_they_are_named(tmp_path: Path) -> None:
    path = write_graph(tmp_path / "two.onnx", outputs=("features", "logits"))
    np.testing.assert_allclose(predict(open_file(path).model, make_pictures()).numpy(), expect(2), atol=1e-6)
    text = refusal(write_graph(path, outputs=("features", "scores")))
    assert "has 2 outputs, none of them called `logits`" in text
    assert "features, scores" in text


@pytest.mark.parametrize(
    ("columns", "then", "flatten"), [(2, "Softmax", False), (1, "Sigmoid", False), (1, "Sigmoid", True)]
)
def test_probabilities_are_refused_with_the_remedy(tmp_path: Path, columns: int, then: str, flatten: bool) -> None:
    text = refusal(write_graph(tmp_path / "p.onnx", columns=columns, then=then, flatten=flatten))
    assert "gives probabilities, not logits" in text
    assert "without its last softmax or sigmoid" in text


def test_logits_that_happen_to_be_small_are_no_probabilities(tmp_path: Path) -> None:
    """Within 0..1 for every picture in 0..1, and beyond it only where no picture is."""
    path = write_graph(tmp_path / "weak.onnx", columns=1, then="Abs")
    assert 0 <= np.abs(expect(1)).min() <= np.abs(expect(1)).max() <= 1
    opened = open_file(path)
    np.testing.assert_allclose(predict(opened.model, make_pictures())[:, 1], np.abs(expect(1))[:, 0], atol=1e-6)


@pytest.mark.parametrize("columns", [1000, 3])
def test_another_number_of_outputs_is_refused(tmp_path: Path, columns: int) -> None:
    text = refusal(write_graph(tmp_path / "many.onnx", columns=columns))
    assert "real, fake" in text
    assert f"said: (N, {columns})" in text


def test_outputs_that_are_not_one_row_a_picture_are_refused(tmp_path: Path) -> None:
    text = refusal(write_graph(tmp_path / "flat.onnx", columns=2, flatten=True))
    assert "does not give one row for each picture" in text


# --- Other inputs and files that are none ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"shape": ("N", SIDE, SIDE, 3)}, "three colours, channels first"),
        ({"shape": ("N", 1, SIDE, SIDE)}, "three colours, channels first"),
        ({"shape": ("N", 3, SIDE, 64)}, "not square"),
        ({"shape": ("N", 3, SIDE, SIDE, 2)}, "three colours, channels first"),
        ({"kind": TensorProto.FLOAT16}, "other numbers than float32"),
        ({"inputs": 2}, "has 2 inputs"),
    ],
)
def test_an_input_that_is_no_batch_of_pictures_is_refused(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    text = refusal(write_graph(tmp_path / "a.onnx", **settings))
    assert words in text
    assert "images" in text


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_a_damaged_or_missing_file_is_one_clear_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.onnx"
    if content is not None:
        path.write_bytes(content)
    words = {None: "does not exist", b"": "is empty (0 bytes)"}.get(content, "cannot be opened as ONNX")
    assert words in refusal(path)


def test_a_file_that_is_cut_off_or_lacks_its_weights_cannot_be_opened(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(exported.read_bytes()[:5000])
    assert "cannot be opened as ONNX" in refusal(path)
    onnx.save(onnx.load(exported), path, save_as_external_data=True, location="a.onnx.data", size_threshold=1024)
    before = open_file(path)
    assert any("a.onnx.data beside it; its sha256 covers them" in note for note in before.notes)
    data = tmp_path / "a.onnx.data"
    whole = data.read_bytes()
    data.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert open_file(path).sha256 != before.sha256
    data.unlink()
    assert "has its weights in a.onnx.data, which cannot be read" in refusal(path)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "sub/../../secret.bin", "link", "pipe", "."])
def test_weights_outside_the_folder_of_a_file_are_not_read(exported: Path, tmp_path: Path, location: str) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret.bin").write_bytes(bytes(2**20))
    (folder / "link").symlink_to(tmp_path / "secret.bin")
    os.mkfifo(folder / "pipe")
    model = onnx.load(exported)
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, location="placeholder")
    tensor.ClearField("raw_data")
    next(entry for entry in tensor.external_data if entry.key == "location").value = location
    tensor.data_location = onnx.TensorProto.EXTERNAL
    (folder / "a.onnx").write_bytes(model.SerializeToString())
    text = refusal(folder / "a.onnx")
    assert "outside its folder" in text or "cannot be read" in text


def test_sizes_that_no_memory_holds_are_refused(tmp_path: Path) -> None:
    claims = TensorProto(name="w", data_type=FLOAT, dims=[2**40, 2])
    huge = helper.make_tensor("s", TensorProto.INT64, [2], [2**20, 2**20])
    ones = helper.make_node("ConstantOfShape", ["s"], ["c"])
    graphs = {
        "claimed.onnx": ([helper.make_node("Gemm", ["m", "w"], ["said"])], claims),
        "made.onnx": ([ones, helper.make_node("Gemm", ["m", "c"], ["said"])], huge),
    }
    takes = helper.make_tensor_value_info("image", FLOAT, ["N", 3, SIDE, SIDE])
    gives = helper.make_tensor_value_info("said", FLOAT, ["N", 2])
    for name, (nodes, constant) in graphs.items():
        flat = helper.make_node("Flatten", ["image"], ["m"])
        graph = helper.make_graph([flat, *nodes], "g", [takes], [gives], [constant])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        (tmp_path / name).write_bytes(model.SerializeToString())
        assert str(tmp_path / name) in refusal(tmp_path / name)


# --- Memory ---------------------------------------------------------------------------------------------------------

NUMBER, HUGE = np.array(0, np.float32), np.array([2**36], np.int64)
# What is computed besides, and its constants: each asks for terabytes.
GREEDY: dict[str, tuple[list[tuple[str, list[str], str]], dict[str, Any]]] = {
    "ConstantOfShape": ([("ConstantOfShape", ["size"], "much")], {"size": HUGE}),
    "Expand": ([("Expand", ["one", "size"], "much")], {"one": NUMBER[None], "size": HUGE}),
    "Tile": ([("Flatten", ["images"], "pixels"), ("Tile", ["pixels", "size"], "much")], {"size": np.array([1, 2**36])}),
    "Range": (
        [("Range", ["from", "to", "step"], "much")],
        {"from": NUMBER, "to": NUMBER + np.float32(3e10), "step": NUMBER + np.float32(1)},
    ),
    "Pad": ([("Pad", ["images", "size"], "much")], {"size": np.array([0, 0, 0, 0, 0, 0, 300_000, 300_000])}),
    "Resize": ([("Resize", ["images", "", "size"], "much")], {"size": np.array([1, 1, 2e4, 2e4], np.float32)}),
    "outer sum": (
        [("ConstantOfShape", ["wide"], "a"), ("ConstantOfShape", ["high"], "b"), ("Add", ["a", "b"], "much")],
        {"wide": np.array([1, 2**18]), "high": np.array([2**18, 1])},
    ),
}


def write_greedy(path: Path, kind: str) -> Path:
    """A small classifier whose logits depend on a huge tensor, which a session cannot leave out."""
    nodes, constants = GREEDY[kind]
    model = onnx.load(write_graph(path))
    graph = model.graph
    graph.node.pop()  # the last one gave the output
    graph.node.extend(helper.make_node(name, inputs, [output]) for name, inputs, output in nodes)
    graph.node.append(helper.make_node("ReduceMax", ["much"], ["largest"], keepdims=0))
    graph.node.append(helper.make_node("Add", ["row", "largest"], ["said"]))
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("kind", ["ConstantOfShape", "Tile"])
def test_a_graph_that_asks_for_terabytes_is_one_message_and_takes_no_memory(tmp_path: Path, kind: str) -> None:
    check_greedy(tmp_path, kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", GREEDY)
def test_graphs_that_ask_for_terabytes_in_any_way_are_one_message(tmp_path: Path, kind: str) -> None:
    check_greedy(tmp_path, kind)


def check_greedy(folder: Path, kind: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    text = refusal(write_greedy(folder / "greedy.onnx", kind))
    assert "more than 4.0 GB of memory for one sample" in text or "would require more than 4294967296 bytes" in text
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB


def test_a_graph_whose_tensors_are_known_to_be_small_is_not_tried_in_another_process(
    exported: Path, tmp_path: Path
) -> None:
    from sharpstudent.evaluation.runtime_trial import is_small

    assert is_small(exported)
    assert is_small(write_graph(tmp_path / "small.onnx"))
    assert not any(is_small(write_greedy(tmp_path / "greedy.onnx", kind)) for kind in GREEDY)


def test_what_a_file_says_of_the_shapes_of_its_tensors_is_not_believed(tmp_path: Path) -> None:
    from sharpstudent.evaluation.runtime_trial import is_small

    path = write_greedy(tmp_path / "greedy.onnx", "Expand")
    model = onnx.load(path)
    model.graph.value_info.append(helper.make_tensor_value_info("much", FLOAT, [1]))
    onnx.save(model, path)
    assert not is_small(path)


def test_without_onnxruntime_the_extra_is_named(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # an import of it raises ImportError
    assert "pip install onnxruntime~=" in refusal(exported)
