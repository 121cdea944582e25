"""export_model.py and benchmark_models.py serve tasks of anybody; evaluate_model.py takes what they write."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sharpstudent.core.onnx_file import read_onnx_metadata
from sharpstudent.deploy import gate
from test_invented_evaluation import INVENTED, TASKS, Invented
from workplace import STAGE_1, Ended, Workplace

pytest.importorskip("onnxscript", reason="torch's exporter writes ONNX with onnxscript: pip install '.[export]'")
onnxruntime: Any = pytest.importorskip("onnxruntime", reason="runs ONNX files: pip install '.[onnx]'")
pytestmark = pytest.mark.usefixtures("clean_imports")

EXPORT, BENCHMARK, EVALUATE = "export_model.py", "benchmark_models.py", "evaluate_model.py"
QUICK = ("--rounds", "50", "--workers", "0")


class Exported:
    """A user's folder with a run of an epoch, and its ONNX file."""

    def __init__(self, folder: Path, task: Invented) -> None:
        self.task, self.place = task, Workplace(folder)
        for ending in ("py", "json"):
            (self.place / f"{task.name}.{ending}").symlink_to(INVENTED / f"{task.name}.{ending}")
        self.check(STAGE_1, f"{task.name}.json", "-n", "first", "--set", "epoch=1", "--set", "report=false")
        self.run = str(self.place.find_run("first").relative_to(folder))
        self.printed = self.export().out
        (self.file,) = (folder / self.run / "exports").glob("*.onnx")

    def check(self, *words: str) -> Ended:
        ended = self.place.call(*words)
        assert ended.code == 0, ended.err
        return ended

    def export(self, *words: str) -> Ended:
        return self.check(EXPORT, self.run, *words, "--task", self.task.reference, *QUICK)

    def refuse(self, *words: str) -> str:
        ended = self.place.call(EXPORT, *words, "--task", self.task.reference, *QUICK)
        assert ended.code == 2, ended.out
        return ended.err


DIGITS, SIGNALS, POINTING = TASKS
PARAMETERS = [DIGITS, POINTING, pytest.param(SIGNALS, marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=PARAMETERS, ids=lambda task: task.name)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp(request.param.name) / "place"
    folder.mkdir()
    return Exported(folder, request.param)


only_digits = pytest.mark.parametrize("exported", [DIGITS], indirect=True, ids=["digits"])


def test_the_file_is_evaluated_as_the_run_by_the_command_that_is_printed(exported: Exported) -> None:
    found = re.search(r"python (evaluate_model\.py \S+)", exported.printed)
    assert found is not None
    words = (
        *shlex.split(found[1]),
        f"run={exported.run}",
        "--task",
        exported.task.reference,
        *QUICK,
        "--device",
        "cpu",
    )
    exported.check(*words, "--out", "both")
    file, run = json.loads((exported.place / "both/results.json").read_text())["models"]
    for name in exported.task.metrics:
        assert file["metrics"][name]["value"] == pytest.approx(run["metrics"][name]["value"], abs=1e-4)
    assert file["architecture"] == run["architecture"]


@pytest.mark.slow  # their converters take ten seconds to import
@only_digits
@pytest.mark.parametrize(("form", "ending"), [("openvino", "xml"), ("executorch", "pte")])
def test_a_file_of_another_runtime_is_evaluated_and_compared_without_an_option(
    exported: Exported, form: str, ending: str
) -> None:
    pytest.importorskip(form, reason=f"pip install '.[{form}]'")
    exported.export("--to", form)
    (path,) = (exported.place / exported.run / "exports").glob(f"*.{ending}")
    words = ("--task", exported.task.reference, *QUICK, "--device", "cpu", "--out")
    exported.check(EVALUATE, f"file={path}", f"run={exported.run}", *words, f"both_{form}")
    exported.check("compare_models.py", "--before", exported.run, "--distilled", f"file={path}", *words, f"pair_{form}")
    for folder in (f"both_{form}", f"pair_{form}"):
        first, second = json.loads((exported.place / folder / "results.json").read_text())["models"]
        for name in exported.task.metrics:
            assert first["metrics"][name]["value"] == pytest.approx(second["metrics"][name]["value"], abs=1e-4)


def test_predict_answers_by_the_file_as_by_the_run(exported: Exported) -> None:
    from sharpstudent.registry import find_task

    task = find_task(exported.task.reference, beside=[INVENTED], trusted=True)()
    inputs = {name: one.numpy()[0] for name, one in task.example_batch(1).inputs.items()}
    np.savez(exported.place / "one.npz", **inputs)
    words = ("one.npz", "--task", exported.task.reference, "--json", "--device", "cpu")
    run, file = (
        json.loads(exported.check("predict.py", one, *words).out) for one in (exported.run, str(exported.file))
    )
    assert (run["status"], file["outcome"]) == ("answered", run["outcome"])
    assert file["score"] == pytest.approx(run["score"], abs=1e-4)


def test_the_file_says_what_it_is_and_takes_any_number_of_rows(exported: Exported) -> None:
    from sharpstudent.models.forward import run_model, select_inputs
    from sharpstudent.registry import find_task
    from sharpstudent.task import ModelSpec

    assert exported.file.with_suffix(".map.txt").exists() == (exported.task is POINTING)  # a file of the task's own
    about = {key: read_json_text(text) for key, text in read_onnx_metadata(exported.file).items()}
    checkpoint = json.loads((exported.place / exported.run / "weights/best_model.pth.json").read_text())["about"]
    assert about["export"]["format"] == "onnx"
    assert about["export"]["allowed"] is None
    assert about["gate"]["passed"] is True
    assert about["gate"]["metric"] == exported.task.metrics[0]
    assert about["architecture"] == checkpoint["architecture"]
    assert {"licence", "data", "source_sha256", "program", "content_sha256"} <= about.keys()
    assert str(exported.place.folder).encode() not in exported.file.read_bytes()

    task = find_task(exported.task.reference, beside=[INVENTED], trusted=True)()
    model = task.build_student(ModelSpec(name=about["architecture"], options=checkpoint.get("options") or {})).eval()
    model.load_state_dict(torch.load(exported.place / exported.run / "weights/best_model.pth")["model"])
    session = onnxruntime.InferenceSession(str(exported.file), providers=["CPUExecutionProvider"])
    for count in (1, 2, 7):
        inputs = select_inputs(model, task.example_batch(count).inputs)
        with torch.no_grad():
            wanted = run_model(model, inputs)
        assert [port.name for port in session.get_inputs()] == list(inputs)
        given = session.run(about["export"]["outputs"], {name: one.numpy() for name, one in inputs.items()})
        for name, output in zip(about["export"]["outputs"], given, strict=True):
            np.testing.assert_allclose(output, wanted[name].numpy(), atol=1e-4)


def read_json_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


@only_digits
def test_int8_that_is_worse_than_tolerated_is_written_on_request_only_and_marked(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "find_tolerance", lambda *_: -1.0)
    alone, place = exported.place / "alone", exported.place
    alone.mkdir()
    for file in (place / exported.run / "weights").glob("best_model.pth*"):
        shutil.copy(file, alone)
    words = ("--to", "onnx-int8", "--calibration", "32", "--config", "digits.json", "--licence", "MIT")
    tuned = ("--qat-steps", "3")
    refused = exported.refuse("alone/best_model.pth", *words)
    assert "was not written" in refused
    assert "--auto" in refused
    assert "--qat-steps 300" in refused
    assert not (alone / "best_model-int8.onnx").exists()
    allow = re.findall(r"--allow \S+", refused)[0].split()
    exported.check(EXPORT, "alone/best_model.pth", *words, *tuned, *allow, *QUICK)
    texts = read_onnx_metadata(alone / "best_model-int8.onnx")
    about = json.loads(texts["export"])
    assert (about["format"], about["qat_steps"], texts["licence"]) == ("onnx-int8", 3, "MIT")
    assert "tolerated" in about["allowed"]
    session = onnxruntime.InferenceSession(str(alone / "best_model-int8.onnx"), providers=["CPUExecutionProvider"])
    assert session.run(None, {"image": np.zeros((3, 1, 8, 8), np.float32)})[0].shape == (3, 10)


@only_digits
def test_what_cannot_be_exported_is_refused_by_name(exported: Exported) -> None:
    file, run = str(exported.file.relative_to(exported.place.folder)), exported.run
    before = exported.place.list_output()
    refusals = {
        (run,): "is there already",
        (run, "--auto", "--overwrite"): "--to onnx-int8",
        (run, "--qat-steps", "5", "--overwrite"): "--to onnx-int8",
        (run, "--to", "litert"): "litert-torch",
        (run, "--to", "coreml"): "--allow not-compared",
        (run, "--out", "model.pth"): ".onnx",
        (run, "--with-preprocessing"): "pictures of three colours",
        (file, "--out", "again.onnx"): "is an exported file already",
        (str(Path(run) / "nothing.pth"), "--config", "digits.json"): "does not exist",
    }
    for words, expected in refusals.items():
        assert expected in exported.refuse(*words), words
    assert exported.place.list_output() == before
    second = exported.place.call("export_for_mobile.py", run, "--task", exported.task.reference)
    assert "is there already" in second.err
    copy = exported.place / "copy.pth"
    shutil.copy(exported.place / run / "weights/best_model.pth", copy)
    assert "--config" in exported.refuse("copy.pth")


@only_digits
def test_a_model_that_gives_nan_is_refused_and_nothing_is_written(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    import digits as module

    forward = module.ConvNet.forward
    monkeypatch.setattr(
        module.ConvNet, "forward", lambda self, image: {"logits": forward(self, image)["logits"] / 0.0 * 0}
    )
    assert "not finite" in exported.refuse(exported.run, "--out", "nan.onnx")
    assert not (exported.place / "nan.onnx").exists()


@only_digits
def test_the_benchmark_measures_models_in_turns_with_their_gap(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sharpstudent.evaluation import cost

    monkeypatch.setattr(cost, "_measure_in_child", lambda opened: (12_000_000, None))
    words = (f"torch={exported.run}", f"file={exported.file}", "--task", exported.task.reference, *QUICK)
    ended = exported.check(
        BENCHMARK, *words, "--threads", "1", "2", "--batch-sizes", "1", "4", "--repeats", "5", "--json", "b.json"
    )
    found = json.loads((exported.place / "b.json").read_text())
    settings = [(one["model"], one["threads"], one["batch"]) for one in found["timings"]]
    assert settings == [(m, t, b) for t in (1, 2) for b in (1, 4) for m in ("torch", "file")]
    for one in found["timings"]:
        assert 0.0 < one["best_ms"] <= one["p50_ms"] <= one["p95_ms"]
        assert one["samples_per_s"] == pytest.approx(1000 * one["batch"] / one["p50_ms"])
    torch_model, file = found["models"]
    assert file["cost"]["macs"] == torch_model["cost"]["macs"] > 0
    assert file["cost"]["parameters"] == torch_model["cost"]["parameters"]
    assert file["metric"]["difference"] == pytest.approx(0.0, abs=1e-6)
    assert (file["metric"]["low"], file["metric"]["note"]) == (None, "the outputs agree")
    assert "times as fast" in ended.out
    assert ", the outputs agree" in ended.out
    assert "file" in ended.out
