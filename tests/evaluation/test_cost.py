"""What a picture costs: closed forms of parameters and MACs, and metrics that a failure leaves out with its reason."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sharpstudent.evaluation.cost as cost
import torch
from model_forms import CPU, SIDE, open_file, save_export, save_ours
from sharpstudent.core.types import Outputs
from sharpstudent.evaluation.cost import WARM_UP_ROUNDS, count_macs, measure_costs, measure_latencies_ms
from sharpstudent.evaluation.opened import OpenedModel
from sharpstudent.models.forward import count_parameters
from sharpstudent.models.vision import build_classifier
from sharpstudent.report.results import CostResult
from torch import Tensor, nn


def measure_cost(opened: OpenedModel, *, rounds: int) -> CostResult:
    (found,) = measure_costs([opened], device=CPU, rounds=rounds)
    return found


ON_LINUX = Path("/proc/self/clear_refs").exists()


class Plain(nn.Module):
    """A convolution of stride 2 with padding and groups, a norm, and a linear layer on all that it gives."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 12, 5, stride=2, padding=2, groups=3), nn.BatchNorm2d(12), nn.ReLU())
        self.head = nn.Linear(12 * (side // 2) ** 2, 2)

    def forward(self, image: Tensor) -> Outputs:
        return {"logits": self.head(self.body(image).flatten(1))}


@pytest.fixture
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_measure_in_child", lambda opened: (123, None))


@pytest.mark.parametrize("was_training", [True, False])
@pytest.mark.parametrize("side", [16, 32])
def test_macs_of_a_convolution_and_a_linear_layer_are_those_of_their_closed_form(side: int, was_training: bool) -> None:
    model = Plain(side).train(was_training)
    grid = (side // 2) ** 2
    assert count_macs(model, {"image": torch.zeros(1, 3, side, side)}) == grid * 12 * (3 // 3) * 5 * 5 + 12 * grid * 2
    assert count_parameters(model) == 12 * 25 + 12 + 2 * 12 + 12 * grid * 2 + 2
    assert model.training == was_training


def test_macs_are_of_the_order_that_is_published() -> None:
    # timm's tables: MobileViTv2-0.5 at 256 px 0.48 G, EfficientNet-B4 at 380 px 4.49 G (both with 1000 classes).
    for name, side, parameters, published in (("mobilevitv2_050", 256, 1_114_107, 0.48e9),):
        model = build_classifier(name, classes=2, dropout=None)
        assert count_parameters(model) == parameters
        assert count_macs(model, {"image": torch.zeros(1, 3, side, side)}) == pytest.approx(published, rel=0.05)


@pytest.mark.slow
def test_macs_of_the_papers_models_at_full_size() -> None:
    published = (("mobilevitv2_200", 384, 17.43e6, 16.24e9), ("efficientnet-b4", 380, 17.55e6, 4.49e9))
    for name, side, parameters, macs in published:
        model = build_classifier(name, classes=2, dropout=None)
        assert count_parameters(model) == pytest.approx(parameters, rel=1e-3)
        assert count_macs(model, {"image": torch.zeros(1, 3, side, side)}) == pytest.approx(macs, rel=0.03)


@pytest.mark.usefixtures("no_child")
def test_the_costs_of_a_model_are_reported_completely(tmp_path: Path) -> None:
    exported = save_export(tmp_path / "a.safetensors")
    costs = [measure_cost(open_file(path), rounds=5) for path in (exported, exported.with_suffix(".pth"))]
    for found, path in zip(costs, (exported, exported.with_suffix(".pth")), strict=True):
        assert found.parameters == count_parameters(build_classifier("test_resnet", classes=2, dropout=None))
        assert found.macs is not None
        assert found.macs > 100_000
        assert found.file_bytes == path.stat().st_size
        assert found.latency_ms is not None
        assert found.latency_p95_ms is not None
        assert 0 < found.latency_ms <= found.latency_p95_ms
        assert found.memory_bytes == 123
        threads = torch.get_num_threads()
        assert found.device == f"cpu, {threads} thread" + ("s" if threads > 1 else "")
        assert found.notes == ()
    assert costs[0].macs == costs[1].macs


@pytest.mark.usefixtures("no_child")
def test_latency_is_the_median_and_95th_percentile_of_the_rounds_after_the_warm_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = itertools.count()
    monkeypatch.setattr(
        cost, "measure_latencies_ms", lambda *_, rounds, **__: [float(next(times)) for _ in range(rounds)]
    )
    found = measure_cost(open_file(save_ours(tmp_path / "a.pth")), rounds=21)
    assert (found.latency_ms, found.latency_p95_ms) == (10.0, 19.0)


def test_a_picture_is_evaluated_once_a_round_and_a_few_times_before() -> None:
    calls: list[tuple[int, ...]] = []
    model = Plain(16)
    model.register_forward_pre_hook(lambda _, args, named: calls.append(tuple(named["image"].shape)), with_kwargs=True)
    assert len(measure_latencies_ms(model, {"image": torch.rand(1, 3, 16, 16)}, rounds=7)) == 7
    assert calls == [(1, 3, 16, 16)] * (7 + WARM_UP_ROUNDS)


@pytest.mark.skipif(not ON_LINUX, reason="resident memory is measured on Linux only")
def test_memory_grows_with_the_activations_that_a_picture_makes(tmp_path: Path) -> None:
    bare = tmp_path / "w.pth"
    torch.save(build_classifier("test_resnet", classes=2, dropout=None).state_dict(), bare)
    small = open_file(bare, architecture="test_resnet", image_size=SIDE, classes=("fake", "real"))
    large = open_file(save_ours(tmp_path / "a.pth", image_size=1024))
    (few, note), (many, _) = cost._measure_in_child(small), cost._measure_in_child(large)
    assert note is None
    assert few is not None
    assert many is not None
    assert many - few > 32 * 512 * 512 * 4  # one map of 32 channels at half the size, in float32
    assert 0 < few < 100e6


def fake_run(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Have the child run this code in place of its own."""
    real = subprocess.run
    monkeypatch.setattr(
        cost.subprocess, "run", lambda args, **settings: real([sys.executable, "-c", code, args[-1]], **settings)
    )


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os; os.kill(os.getpid(), 9)", "exit code -9"),
        ("raise MemoryError('too little')", "MemoryError: too little"),
        ("print('no number')", "exit code 0"),
        ("import time; time.sleep(60)", "took longer than 1 s"),
    ],
)
def test_a_child_process_that_dies_leaves_out_the_memory_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, words: str
) -> None:
    monkeypatch.setattr(cost, "CHILD_TIMEOUT_S", 1.0)
    fake_run(monkeypatch, code)
    found = measure_cost(open_file(save_ours(tmp_path / "a.pth")), rounds=2)
    assert found.memory_bytes is None
    assert found.macs is not None
    assert len(found.notes) == 1
    assert found.notes[0].startswith("memory: not measured")
    assert words in found.notes[0]


def test_the_child_process_gets_all_that_the_file_does_not_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: list[dict[str, Any]] = []

    def run(args: Sequence[str], **_: Any) -> Any:
        arguments.append(json.loads(args[-1]))
        raise OSError("no more processes")

    monkeypatch.setattr(cost.subprocess, "run", run)
    found, note = cost._measure_in_child(open_file(save_ours(tmp_path / "a.pth")))
    assert (found, note) == (None, "memory: not measured, its process could not be started (no more processes)")
    threads = torch.get_num_threads()
    reopen = {"architecture": "test_resnet", "image_size": SIDE, "classes": ["real", "fake"], "use_ema": False}
    assert arguments == [{"path": str((tmp_path / "a.pth").resolve()), "reopen": reopen, "threads": threads}]


def test_of_an_onnx_file_its_numbers_are_counted_and_its_macs_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = pytest.importorskip("onnx", reason="makes an ONNX file: pip install '.[onnx]'")
    pytest.importorskip("onnxruntime", reason="runs an ONNX file: pip install '.[onnx]'")
    from test_onnx import write_graph

    path = write_graph(tmp_path / "a.onnx", shape=(8, 3, SIDE, SIDE))
    found = measure_cost(open_file(path), rounds=3)
    assert (found.parameters, found.macs, found.file_bytes) == (6, None, path.stat().st_size)
    assert found.device.endswith("onnxruntime")
    assert any("8 pictures, the fixed batch" in note for note in found.notes)
    if ON_LINUX:
        assert found.memory_bytes is not None
    model = onnx.load(path)
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], location="a.onnx.data")
    onnx.save(model, path)
    monkeypatch.setattr(cost, "_measure_in_child", lambda opened: (None, None))
    beside = (tmp_path / "a.onnx.data").stat().st_size
    assert measure_cost(open_file(path), rounds=1).file_bytes == path.stat().st_size + beside
    monkeypatch.setitem(sys.modules, "onnx", None)
    found = measure_cost(open_file(path), rounds=1)
    assert found.parameters is None
    assert any("needs the package onnx" in note for note in found.notes)


def test_latencies_are_taken_in_turns_and_each_model_gets_all_its_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [open_file(save_ours(tmp_path / name)) for name in ("a.pth", "b.pth")]
    calls: list[tuple[str, int]] = []

    def take(model: nn.Module, _: object, *, rounds: int) -> list[float]:
        calls.append(("a" if model is models[0].model else "b", rounds))
        return [1.0] * rounds

    monkeypatch.setattr(cost, "measure_latencies_ms", take)
    monkeypatch.setattr(cost, "_measure_memory", lambda *_: (None, None))
    cost.measure_costs(models, device=CPU, rounds=52)
    assert [name for name, _ in calls] == ["a", "b"] * cost.TURNS
    assert [sum(rounds for name, rounds in calls if name == one) for one in "ab"] == [52, 52]
