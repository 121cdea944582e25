"""Every file form of a trained model gives the logits of the model that was saved, or is refused by name."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from model_forms import CLASSES, SIDE, SMALL, build, make_pictures, open_file, predict, save_export, save_ours
from safetensors.torch import save_file
from sharpstudent.core.errors import UserError
from sharpstudent.core.io import compute_sha256
from sharpstudent.evaluation.run import note_equal_weights
from sharpstudent.evaluation.tables import find_run_folder
from sharpstudent.models.vision import EFFICIENTNET_B4
from torch import Tensor

SCALE: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def save_weights(path: Path, tensors: dict[str, Tensor], wrapper: str | None = None) -> Path:
    torch.save(tensors if wrapper is None else {wrapper: tensors, "epoch": 3}, path)
    return path


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in tensors.items()}


def refusal(path: Path, **spec: Any) -> str:
    with pytest.raises(UserError) as caught:
        open_file(path, **spec)
    text = caught.value.as_text()
    assert str(path) in text
    assert "remedy: " in text
    return text


# --- Our own files --------------------------------------------------------------------------------------------------


def test_a_checkpoint_its_run_folder_and_its_export_give_the_very_logits_of_the_model(tmp_path: Path) -> None:
    run = tmp_path / "run_a_11_23_04_33_25"
    exported = save_export(run / "weights" / "best_model.safetensors")
    checkpoint = run / "weights" / "best_model.pth"
    want = predict(build(), make_pictures())
    for path, kind in ((checkpoint, "checkpoint"), (run, "checkpoint"), (exported, "safetensors")):
        opened = open_file(path)
        assert torch.equal(predict(opened.model, make_pictures()), want)
        assert (opened.kind, opened.architecture, opened.input_key, opened.classes) == (kind, SMALL, SIDE, CLASSES)
        assert opened.name == "run_a_11_23_04_33_25"
        assert opened.path == (exported if kind == "safetensors" else checkpoint)
        assert opened.sha256 == compute_sha256(opened.path)
        assert not any(module.training for module in opened.model.modules())
        assert opened.about["run"] == "7"  # a text also where its metadata look like a number
        assert any("0 missing, 0 unexpected" in note for note in opened.notes)


def test_a_model_is_named_as_requested_or_after_its_file(tmp_path: Path) -> None:
    path = save_ours(tmp_path / "0004_0.8213_val.pth")
    assert open_file(path).name == "0004_0.8213_val"
    assert open_file(path, name="mine").name == "mine"


def test_calibration_and_every_other_word_of_a_checkpoint_stay_in_about(tmp_path: Path) -> None:
    block = {"temperature": 1.5, "operating_points": {"frame": {"eer": {"threshold": 0.25}}}}
    exported = save_export(tmp_path / "a.safetensors", calibration=block)
    for path in (exported, exported.with_suffix(".pth")):
        assert open_file(path).about["calibration"] == block


def test_logits_come_in_the_tasks_order_whatever_the_files(tmp_path: Path) -> None:
    path = save_ours(tmp_path / "a.pth", classes=["fake", "real"])
    opened = open_file(path)
    assert opened.classes == ("fake", "real")
    assert torch.equal(predict(opened.model, make_pictures()), predict(build(), make_pictures()).flip(1))
    three = save_ours(tmp_path / "b.pth", build(classes=3), classes=["c", "a", "b"])
    want = predict(build(classes=3), make_pictures())[:, [1, 2, 0]]
    assert torch.equal(predict(open_file(three, ("a", "b", "c")).model, make_pictures()), want)


def test_what_a_checkpoint_says_itself_can_be_repeated_but_not_contradicted(tmp_path: Path) -> None:
    path = save_ours(tmp_path / "a.pth")
    assert open_file(path, architecture=SMALL, image_size=SIDE, classes=CLASSES).notes == open_file(path).notes
    for spec in ({"architecture": "test_vit"}, {"image_size": 64}, {"classes": ("fake", "real")}):
        text = refusal(path, **spec)
        assert f"states its {next(iter(spec))} itself" in text
        assert f"leave {next(iter(spec))} out" in text
    assert "leave mean and std out" in refusal(path, mean=(0.5, 0.5, 0.5))


def test_a_checkpoint_of_other_classes_is_refused_with_both_lists(tmp_path: Path) -> None:
    text = refusal(save_ours(tmp_path / "a.pth", build(classes=3), classes=["real", "fake", "unsure"]))
    assert "has other classes than the task" in text
    assert "real, fake, unsure" in text


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"image_size": "large"}, "image_size = 'large'"),
        ({"image_size": 0}, "image_size = 0"),
        ({"classes": 2}, "classes = 2"),
        ({"architecture": "test_resnett"}, "did you mean test_resnet"),
    ],
)
def test_a_checkpoint_that_describes_itself_wrongly_is_refused(
    tmp_path: Path, about: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError) as caught:
        open_file(save_ours(tmp_path / "a.pth", **about))
    assert words in caught.value.as_text()


def test_a_checkpoint_whose_weights_are_of_another_architecture_is_refused_whole(tmp_path: Path) -> None:
    text = refusal(save_ours(tmp_path / "a.pth", build(name="test_efficientnet")))
    assert "nothing was loaded" in text
    assert "partial" not in text


# --- Weights of others ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "module.", "net."])
@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_a_plain_timm_state_dict_with_a_head_of_the_tasks_classes_gives_timms_logits(
    tmp_path: Path, prefix: str, wrapper: str | None
) -> None:
    source = timm.create_model(SMALL, num_classes=2).eval()
    path = save_weights(tmp_path / "teacher.tar", prefixed(prefix, source.state_dict()), wrapper)
    opened = open_file(path, architecture=SMALL, image_size=SIDE)
    assert (opened.kind, opened.about, opened.name) == ("weights", {}, "teacher")
    torch.testing.assert_close(predict(opened.model, make_pictures()), source(make_pictures()).detach())
    assert any("evaluated as: RGB in 0..1, as it is; 32 px; logits in the order real, fake" in n for n in opened.notes)


def test_the_published_teacher_is_recognised_by_its_tensors(tmp_path: Path) -> None:
    source = build(name=EFFICIENTNET_B4)
    tensors = source.state_dict()
    assert next(iter(tensors)).startswith("net._conv_stem")
    published = save_weights(tmp_path / "FFc23.tar", tensors, "model")
    benchmark = {key.replace("net.", "backbone.efficientnet.", 1): value for key, value in tensors.items()}
    benchmark = {key.replace("efficientnet._fc", "last_layer"): value for key, value in benchmark.items()}
    want = predict(source, make_pictures(1, 64))
    for path in (published, save_weights(tmp_path / "bench.pth", benchmark)):
        opened = open_file(path)
        assert (opened.architecture, opened.input_key, opened.kind) == (EFFICIENTNET_B4, 380, "weights")
        assert any("architecture is efficientnet-b4, by the names" in note for note in opened.notes)
        small = open_file(path, image_size=64)
        assert torch.equal(predict(small.model, make_pictures(1, 64)), want)


def test_mean_and_std_scale_what_bare_weights_see(tmp_path: Path) -> None:
    path = save_weights(tmp_path / "w.pth", build().state_dict())
    spec: dict[str, Any] = {"architecture": SMALL, "image_size": SIDE}
    mean, std = (torch.tensor(SCALE[name]).reshape(1, 3, 1, 1) for name in ("mean", "std"))
    opened = open_file(path, **spec, **SCALE)
    torch.testing.assert_close(predict(opened.model, make_pictures()), predict(build(), (make_pictures() - mean) / std))
    assert "minus 0.485, 0.456, 0.406, divided by 0.229, 0.224, 0.225" in opened.notes[-1]
    for wrong in ({"std": (0.5, 0.0, 0.5)}, {"mean": (float("nan"), 0.0, 0.0)}, {"std": (1.0,)}):
        assert "cannot scale red, green and blue" in refusal(path, **spec, **wrong)


def test_the_class_order_of_bare_weights_is_taken_from_the_caller(tmp_path: Path) -> None:
    path = save_weights(tmp_path / "w.pth", build().state_dict())
    opened = open_file(path, architecture=SMALL, image_size=SIDE, classes=("fake", "real"))
    assert torch.equal(predict(opened.model, make_pictures()), predict(build(), make_pictures()).flip(1))
    text = refusal(path, architecture=SMALL, image_size=SIDE, classes=("live", "fake"))
    assert "has other classes" in text


def test_bare_weights_that_do_not_say_enough_are_refused_with_the_option_that_says_it(tmp_path: Path) -> None:
    path = save_weights(tmp_path / "w.pth", build().state_dict())
    assert "give its architecture: --architecture" in refusal(path)
    assert "--image-size" in refusal(path, architecture=SMALL)
    assert "--image-size" in refusal(path, architecture=SMALL, image_size=0)


def test_weights_of_another_architecture_than_requested_are_refused_with_names_of_both_sides(tmp_path: Path) -> None:
    path = save_weights(tmp_path / "w.pth", build().state_dict())
    text = refusal(path, architecture="test_efficientnet", image_size=SIDE)
    assert "tensors matched" in text
    assert "nothing was loaded" in text
    tensors = dict(build().state_dict())
    tensors.pop("backbone.conv1.0.weight")
    text = refusal(save_weights(path, tensors), architecture=SMALL, image_size=SIDE)
    assert "1 missing" in text
    more = {**build().state_dict(), "extra": torch.ones(1)}
    text = refusal(save_weights(path, more), architecture=SMALL, image_size=SIDE)
    assert "1 unexpected" in text


@pytest.mark.parametrize(("classes", "words"), [(1000, "its head has 1000 outputs"), (3, "3 outputs")])
def test_a_head_of_another_count_is_refused_by_name(tmp_path: Path, classes: int, words: str) -> None:
    path = save_weights(tmp_path / "w.pth", timm.create_model(SMALL, num_classes=classes).state_dict())
    text = refusal(path, architecture=SMALL, image_size=SIDE)
    assert words in text
    assert "one logit for each of real, fake" in text


def test_a_head_of_one_output_gives_the_logits_of_its_onnx_export(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="runs ONNX files: pip install '.[onnx]'")
    published = timm.create_model(SMALL, num_classes=1).eval()
    path = save_weights(tmp_path / "w.pth", published.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(published, (make_pictures(5),), dynamo=True, verbose=False)
    assert program is not None
    program.save(str(tmp_path / "w.onnx"))
    for classes in (CLASSES, CLASSES[::-1]):
        spec = {"image_size": SIDE, "classes": classes}
        opened = open_file(path, architecture=SMALL, **spec)
        logits = predict(opened.model, make_pictures(5))
        with torch.no_grad():
            z = published(make_pictures(5))[:, 0]
        assert torch.allclose(logits.softmax(1)[:, CLASSES.index(classes[1])], z.sigmoid(), atol=1e-5)
        assert torch.allclose(
            logits, predict(open_file(tmp_path / "w.onnx", **spec).model, make_pictures(5)), atol=1e-5
        )
        assert any(f"log-odds of {classes[1]}" in note for note in opened.notes)


def test_averaged_weights_are_evaluated_where_asked_for(tmp_path: Path) -> None:
    torch.save({"state_dict": build(1).state_dict(), "state_dict_ema": build(2).state_dict()}, tmp_path / "w.pth")
    spec = {"architecture": SMALL, "image_size": SIDE}
    for use_ema, seed in ((False, 1), (True, 2)):
        opened = open_file(tmp_path / "w.pth", use_ema=use_ema, **spec)
        assert torch.equal(predict(opened.model, make_pictures()), predict(build(seed), make_pictures()))
        assert opened.reopen["use_ema"] is use_ema


def write_hugging_face(folder: Path, **stated: Any) -> Path:
    folder.mkdir()
    save_file(build().state_dict(), folder / "model.safetensors")
    form = {"input_size": [3, SIDE, SIDE], "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    (folder / "config.json").write_text(json.dumps({"architecture": SMALL, "pretrained_cfg": form, **stated}))
    return folder


def test_a_folder_of_hugging_face_says_what_its_weights_are(tmp_path: Path) -> None:
    plain = open_file(write_hugging_face(tmp_path / "a"))
    assert torch.allclose(
        predict(plain.model, make_pictures()), predict(build(), (make_pictures() - 0.5) / 0.25), atol=1e-5
    )
    assert any("by the config.json beside it" in note for note in plain.notes)
    turned = open_file(write_hugging_face(tmp_path / "b", label_names=["Fake", "Real"]))
    assert turned.classes == ("fake", "real")
    assert torch.equal(predict(turned.model, make_pictures()), predict(plain.model, make_pictures()).flip(1))


def test_a_folder_of_hugging_face_is_no_run_folder(tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "a")
    assert find_run_folder(folder) is None
    assert find_run_folder(folder / "model.safetensors") is None
    (folder / "weights").mkdir()
    assert find_run_folder(folder) == folder


def test_classes_of_other_names_are_not_guessed(tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "a", label_names=["LABEL_0", "LABEL_1"])
    text = refuse_folder(folder)
    assert "--classes real,fake, or --classes fake,real" in text
    assert open_file(folder, classes=("fake", "real")).classes == ("fake", "real")


def refuse_folder(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        open_file(folder)
    return caught.value.as_text()


def test_weights_without_a_head_are_refused(tmp_path: Path) -> None:
    path = save_weights(tmp_path / "w.pth", timm.create_model(SMALL, num_classes=0).state_dict())
    assert "holds no classification head" in refusal(path, architecture=SMALL, image_size=SIDE)


# --- Files that are none --------------------------------------------------------------------------------------------


def test_weights_that_are_no_numbers_are_refused_with_their_names(tmp_path: Path) -> None:
    broken = build()
    with torch.no_grad():
        broken.get_parameter("head.1.bias")[1] = float("nan")
    text = refusal(save_ours(tmp_path / "a.pth", broken))
    assert "1 of its" in text
    assert "head.1.bias" in text


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".tar"])
@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_a_file_that_is_damaged_or_missing_is_one_clear_error(
    tmp_path: Path, suffix: str, content: bytes | None
) -> None:
    path = tmp_path / f"a{suffix}"
    if content is not None:
        path.write_bytes(content)
    refusal(path)


def test_a_changed_bit_and_a_cut_off_file_are_seen(tmp_path: Path) -> None:
    exported = save_export(tmp_path / "a.safetensors")
    exported.write_bytes(exported.read_bytes()[:-100])
    refusal(exported)
    path = exported.with_suffix(".pth")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "damaged" in refusal(path)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"model": build()}, path)
    assert "nothing in it was run" in refusal(path)


def test_a_folder_without_a_best_model_and_a_stranger_with_an_about_are_refused(tmp_path: Path) -> None:
    assert "is no run folder: it has no weights/best_model.pth" in refusal(tmp_path)
    path = tmp_path / "a.pth"
    torch.save({"model": build().state_dict(), "about": "my best model"}, path)
    assert "its `about` is not JSON" in refusal(path)


# --- The opened model -----------------------------------------------------------------------------------------------


def test_pictures_of_another_size_are_resized_and_those_of_its_own_are_left_alone(tmp_path: Path) -> None:
    opened = open_file(save_ours(tmp_path / "a.pth"))
    large = make_pictures(2, 48)
    small = torch.nn.functional.interpolate(large, (SIDE, SIDE), mode="bilinear", antialias=True)
    assert torch.equal(predict(opened.model, large), predict(build(), small))
    assert not torch.equal(predict(opened.model, large), predict(build(), large))


def test_a_graph_is_kept_where_the_pictures_ask_for_a_gradient(tmp_path: Path) -> None:
    opened = open_file(save_ours(tmp_path / "a.pth"))
    pictures = make_pictures(2).requires_grad_()
    opened.model(pictures)["logits"][:, 1].sum().backward()
    assert pictures.grad is not None
    assert pictures.grad.abs().max() > 0
    assert not any(p.requires_grad for p in opened.model.parameters())


def test_opening_a_model_moves_no_draws(tmp_path: Path) -> None:
    path = save_ours(tmp_path / "a.pth")
    torch.manual_seed(3)
    before = torch.get_rng_state()
    open_file(path)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_opened_model_cannot_be_changed(tmp_path: Path) -> None:
    opened = open_file(save_ours(tmp_path / "a.pth"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        opened.name = "other"  # type: ignore[misc]


def test_a_model_that_was_named_twice_is_noted_whatever_form_its_file_has(tmp_path: Path) -> None:
    exported = save_export(tmp_path / "run" / "weights" / "a.safetensors")
    other = save_ours(tmp_path / "b.pth", build(seed=2))
    opened = [open_file(path) for path in (exported.with_suffix(".pth"), other, exported)]
    notes = [one.notes for one in note_equal_weights(opened)]
    assert notes[:2] == [one.notes for one in opened[:2]]
    assert notes[2][-1].startswith(f"its weights are those of {opened[0].name} to the last bit")
