"""A teacher of which adapters alone learn: trained, resumed, replayed, evaluated, exported, and learnt from."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from sharpstudent.evaluation.load_model import ModelFile, open_model
from sharpstudent.models.vision import build_classifier
from test_replay_command import assert_same, find_command
from test_resume import assert_same_run, make_place, make_signal
from workplace import ROOT, STAGE_1, STAGE_2, Workplace

MODEL = {"name": "test_vit", "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "unit_norm": True}
FORM = {name: value for name, value in MODEL.items() if name != "name"}
LORA = {"kind": "lora", "rank": 4, "alpha": 8}
TUNED = (
    *("--set", f"student={json.dumps(MODEL)}", "--set", f"tune={json.dumps(LORA)}"),
    *("--set", "ema_decay=0.9", "--set", "optimizer=adamw"),
)
ALONE = ("--set", "pretrained_student_weights=null", "--allow", "unpretrained-student", "--set", "epoch=1")


def train(place: Workplace, *words: str) -> Any:
    return place.call(STAGE_1, "configs/tiny.json", "-n", "tuned", *TUNED, *words)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, labelled_root: Path) -> Workplace:
    place = make_place(tmp_path_factory.mktemp("tuned") / "place", labelled_root)
    ended = train(place)
    assert ended.code == 0, ended.err
    assert re.search(
        r"student test_vit: [\d,]+ of [\d,]+ parameters learn: adapters of rank 4, alpha 8 and the head", ended.out
    )
    return place


def find_best(place: Workplace, name: str = "best_model.pth") -> Path:
    return place.find_run("tuned") / "weights" / name


def open_file(path: Path) -> torch.nn.Module:
    return open_model(ModelFile(path), classes=("real", "fake"), device=torch.device("cpu")).model


def predict(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(image=torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)))["logits"]


def test_a_checkpoint_is_a_plain_model_and_says_how_it_was_trained(trained: Workplace) -> None:
    stored = torch.load(find_best(trained), weights_only=True)
    about = json.loads(stored["about"])
    assert (about["options"], about["tune"]) == (FORM, {**LORA, "alpha": 8.0})
    plain = build_classifier("test_vit", classes=2, dropout=None, options=FORM, side=32)
    plain.load_state_dict(stored["model"])
    last = torch.load(find_best(trained, "last.pth"), weights_only=True)
    kept = "backbone.blocks.0.attn.qkv"
    first, merged = last["model"][f"{kept}.parametrizations.weight.original"], stored["model"][f"{kept}.weight"]
    assert not torch.equal(first, merged)
    assert all(max(slot["exp_avg"].shape) <= 192 for slot in last["optimizer"]["base"]["state"].values())


@pytest.mark.parametrize("name", ["best_model.pth", "best_model.safetensors"])
def test_an_evaluation_opens_it_in_the_form_that_it_was_trained_in(trained: Workplace, name: str) -> None:
    plain = build_classifier("test_vit", classes=2, dropout=None, options=FORM, side=32).eval()
    plain.load_state_dict(torch.load(find_best(trained), weights_only=True)["model"])
    assert torch.equal(predict(open_file(find_best(trained, name))), predict(plain))


def test_a_run_that_is_interrupted_ends_bit_for_bit_like_one_that_is_not(
    tiny: Workplace, trained: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        make_signal(patch, signal.SIGINT, at_step=5)
        assert train(tiny).code == 130
    run = tiny.find_run("tuned")
    other = train(tiny, "--resume", "tuned", "--allow", "changed-config", "--set", "tune.rank=2")
    assert other.code == 2
    assert "cannot go on with another model" in other.err
    assert "tune: " in other.err
    resumed = tiny.call(STAGE_1, "--resume", "tuned")
    assert resumed.code == 0, resumed.err
    assert_same_run(run, trained.find_run("tuned"))


def test_a_step_that_is_skipped_is_replayed(tiny: Workplace) -> None:
    ended = train(
        tiny, "--set", "rho=1e30", "--set", "epoch=1", "--set", "ema_decay=null", "--set", "max_skipped_in_a_row=1"
    )
    assert_same(ended, tiny.call(*find_command(ended)))


def test_a_student_learns_from_it_and_it_is_never_loaded_in_another_form(trained: Workplace) -> None:
    def distil(name: str, teacher: dict[str, Any], file: str = "best_model.pth") -> Any:
        path = f"output/{trained.find_run('tuned').name}/weights/{file}"
        keys = {"teacher": json.dumps(teacher), "teacher_weights": path}
        words = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
        return trained.call(STAGE_2, "configs/tiny.json", "-n", name, *words, *ALONE)

    done = distil("taught", MODEL)
    assert done.code == 0, done.err
    for wrong in ({}, {"mean": MODEL["mean"], "std": MODEL["std"]}):
        for file in ("best_model.pth", "best_model.safetensors"):
            refused = distil("wrong", {"name": "test_vit", **wrong}, file)
            assert refused.code == 2
            assert "was trained in another form" in refused.err
            assert '"unit_norm": true' in refused.err
    unmerged = distil("wrong", MODEL, "last.pth")
    assert unmerged.code == 2
    assert "adapters (lora) are not merged" in unmerged.err


@pytest.mark.slow  # the export itself is that of any model: the checkpoint is a plain one
def test_its_export_gives_the_same_logits(trained: Workplace) -> None:
    pytest.importorskip("onnxscript", reason="torch's exporter writes ONNX with onnxscript: pip install '.[export]'")
    onnxruntime: Any = pytest.importorskip("onnxruntime", reason="runs ONNX files: pip install '.[onnx]'")
    run = trained.find_run("tuned")
    ended = trained.call("export_model.py", str(run.relative_to(trained.folder)), "--rounds", "50", "--workers", "0")
    assert ended.code == 0, ended.err
    (file,) = (run / "exports").glob("*.onnx")
    image = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(file)
    (found,) = session.run(["logits"], {"image": image.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), predict(open_file(find_best(trained))), atol=1e-4, rtol=1e-4)


def test_the_names_on_the_page_and_the_form_in_the_config_are_timms() -> None:
    import timm
    from sharpstudent.config.load import read_config_file

    named = set(re.findall(r"\bvit_\w+\.\w+", (ROOT / "docs/teachers.md").read_text(encoding="utf-8")))
    keys = read_config_file(ROOT / "configs/teacher_vit.json")
    student = keys["student"]
    assert len(named) == 5
    assert named <= set(timm.list_models("vit_*", pretrained=True))
    form = timm.get_pretrained_cfg(student["name"])
    assert form is not None
    assert (student["mean"], student["std"]) == (list(form.mean), list(form.std))
    assert (3, keys["image_size"], keys["image_size"]) == form.input_size
