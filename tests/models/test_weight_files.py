"""Weights as people publish them are read for what they are: forms, averages, heads of one output, other objects."""

from __future__ import annotations

import argparse
import collections
import gzip
import io
import itertools
import json
import os
import pathlib
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sharpstudent.core.archive import find_file
from sharpstudent.core.errors import UserError
from sharpstudent.models.build import build_student, build_teachers
from sharpstudent.models.weight_files import main, normalise, read_inert, read_tensors, unwrap_tensors
from sharpstudent.models.weights import load_weights, match_tensors
from small_models import SMALL, PictureModels, are_equal, build_small, state_of
from test_build_models import TeacherSection, make_config
from torch import Tensor, nn

CLASSES = ("real", "fake")


def load(path: Path, *, use_ema: bool = False, **settings: Any) -> tuple[nn.Module, list[str]]:
    """A model with the weights of a file, and every line that was said."""
    said: list[str] = []
    model = build_small(0)
    tensors = read_tensors(path, said.append, use_ema=use_ema)
    settings = {"needs_head": True, "classes": CLASSES} | settings
    said.append(load_weights(model, tensors, where=path.name, **settings))
    return model, said


def refuse(path: Path, **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(path, **settings)
    return caught.value.as_text()


def rename(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


SOURCE = state_of(build_small(1))
AVERAGE = {key: value + 1 if value.is_floating_point() else value for key, value in SOURCE.items()}


# --- Names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix",
    [
        *("".join(parts) for parts in itertools.permutations(["_orig_mod.", "module.", "net."])),
        *("model._orig_mod.", "_fsdp_wrapped_module._orig_mod.", "detector.", "model.encoder.module.", "a.b.c."),
    ],
)
def test_wrappers_in_any_combination_are_undone(tmp_path: Path, prefix: str) -> None:
    torch.save({"state_dict": rename(SOURCE, prefix)}, tmp_path / "w.pth")
    model, _ = load(tmp_path / "w.pth")
    assert are_equal(model.state_dict(), SOURCE)


def test_a_marker_within_a_name_is_undone() -> None:
    assert normalise("module.backbone._orig_mod.conv.weight") == "conv.weight"
    assert normalise("layer._checkpoint_wrapped_module.0.bias") == "layer.0.bias"


def test_a_backbone_and_a_head_under_different_prefixes_are_found(tmp_path: Path) -> None:
    timm_names = {normalise(key).replace("head.1.", "fc."): value for key, value in SOURCE.items()}
    state = {("det." if key.startswith("fc") else "det.trunk.") + key: value for key, value in timm_names.items()}
    torch.save(state, tmp_path / "w.pth")
    model, said = load(tmp_path / "w.pth")
    assert are_equal(model.state_dict(), SOURCE)
    assert "the names of its tensors begin with `det.trunk.`" in said[-1]


def test_tensors_of_loss_and_metrics_are_left_out_and_named(tmp_path: Path) -> None:
    beside = {"criterion.weight": torch.ones(2), "val_auc.preds": torch.ones(9), "n_averaged": torch.tensor(3)}
    torch.save({"state_dict": rename(SOURCE, "model.") | beside}, tmp_path / "w.ckpt")
    model, said = load(tmp_path / "w.ckpt")
    assert are_equal(model.state_dict(), SOURCE)
    assert "3 tensors of the training are left out: criterion.weight" in said[-1]


def test_a_second_branch_of_another_architecture_is_never_left_out(tmp_path: Path) -> None:
    torch.save(rename(SOURCE, "rgb.") | {"frequency.conv.weight": torch.ones(3)}, tmp_path / "w.pth")
    assert "1 unexpected" in refuse(tmp_path / "w.pth")


def test_a_file_of_torch_before_0_4_1_lacks_counters_only(tmp_path: Path) -> None:
    torch.save({k: v for k, v in SOURCE.items() if "num_batches" not in k}, tmp_path / "w.pth")
    model, said = load(tmp_path / "w.pth")
    assert "0 missing, 0 unexpected" in said[-1]
    assert torch.equal(model.get_parameter("head.1.weight"), SOURCE["head.1.weight"])


@pytest.mark.parametrize("wrapper", ["net", "network", "params", "generator"])
def test_the_only_table_of_tensors_is_found_under_any_name(wrapper: str) -> None:
    optimizer = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": []}
    tensors, _ = unwrap_tensors({wrapper: SOURCE, "optimizer": optimizer, "epoch": 3}, where="w")
    assert are_equal(tensors, SOURCE)


def test_several_models_in_a_file_are_listed_and_none_is_taken() -> None:
    with pytest.raises(UserError, match="holds the weights of 2 models") as caught:
        unwrap_tensors({"generator": SOURCE, "discriminator": AVERAGE}, where="w.pth")
    assert "`generator`: " in caught.value.as_text()
    assert "--part NAME" in caught.value.as_text()


# --- Averaged weights -----------------------------------------------------------------------------------------------


FORMS: dict[str, Callable[[], dict[str, Any]]] = {
    "timm": lambda: {"state_dict": SOURCE, "state_dict_ema": rename(AVERAGE, "module.")},
    "convnext": lambda: {"model": SOURCE, "model_ema": AVERAGE},
    "this program": lambda: {"model": SOURCE, "average": {"model": AVERAGE, "updates": 3}},
    "in a table": lambda: {"state_dict": SOURCE, "callbacks": {}, "ema": {"state_dict": AVERAGE, "decay": 0.9}},
    "lightning": lambda: {"state_dict": rename(SOURCE, "model.") | rename(AVERAGE, "model_ema.module.")},
    "ema_pytorch": lambda: rename(SOURCE, "online_model.") | rename(AVERAGE, "ema_model.") | {"step": torch.tensor(4)},
    "without dots": lambda: {
        "state_dict": rename(SOURCE, "model.")
        | {f"model_ema.{key.replace('.', '')}": value for key, value in AVERAGE.items()}
        | {"model_ema.decay": torch.tensor(0.9)}
    },
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("use_ema", [False, True])
def test_plain_weights_are_taken_unless_the_averaged_ones_are_asked_for(
    tmp_path: Path, form: str, use_ema: bool
) -> None:
    torch.save(FORMS[form](), tmp_path / "w.pth")
    model, said = load(tmp_path / "w.pth", use_ema=use_ema)
    assert are_equal(model.state_dict(), AVERAGE if use_ema else SOURCE)
    words = "its averaged weights" if use_ema else "its plain weights are taken; use_ema takes the averaged ones"
    assert any(words in line for line in said)


def test_an_average_without_buffers_keeps_the_plain_ones() -> None:
    parameters = {key for key, _ in build_small(0).named_parameters()}
    half = {key: value for key, value in AVERAGE.items() if key in parameters}
    tensors, _ = unwrap_tensors({"model": SOURCE, "model_ema": half}, where="w", use_ema=True)
    assert are_equal(tensors, {key: half.get(key, value) for key, value in SOURCE.items()})


def test_averaged_weights_alone_are_taken_with_a_note(tmp_path: Path) -> None:
    torch.save({"model_ema": AVERAGE}, tmp_path / "w.pth")
    model, said = load(tmp_path / "w.pth")
    assert are_equal(model.state_dict(), AVERAGE)
    assert "its only weights are averaged ones" in said[0]


def test_an_average_that_is_not_there_is_refused(tmp_path: Path) -> None:
    torch.save(SOURCE, tmp_path / "w.pth")
    assert "holds no averaged weights" in refuse(tmp_path / "w.pth", use_ema=True)


def test_a_module_called_ema_is_a_part_of_its_architecture() -> None:
    state = {"stem.weight": torch.ones(3), "conv.weight": torch.ones(2), "ema.gate.weight": torch.ones(2)}
    tensors, notes = unwrap_tensors(state, where="w")
    assert are_equal(tensors, state)
    assert notes == []


def test_the_keys_of_student_and_teacher_choose_the_average(tmp_path: Path) -> None:
    torch.save(FORMS["timm"](), tmp_path / "w.pth")
    file = str(tmp_path / "w.pth")
    config = make_config(stage=2, weights=file, teachers=(TeacherSection(name=SMALL, weights=file, use_ema=True),))
    student = config.student.model_copy(update={"use_ema": True})
    config = config.model_copy(update={"student": student})
    teachers = build_teachers(config, PictureModels(), say=lambda _: None)
    assert are_equal(teachers.members[0].model.state_dict(), AVERAGE)
    assert are_equal(build_student(config, PictureModels(), say=lambda _: None).state_dict(), AVERAGE)


# --- Heads of one output --------------------------------------------------------------------------------------------


def make_one_output() -> dict[str, Tensor]:
    return {key: value[:1] if key.startswith("head.1.") else value for key, value in SOURCE.items()}


@torch.no_grad()
def compute_z(image: Tensor) -> Tensor:
    """The output of the published model itself: its backbone and one linear layer."""
    model = build_small(1).eval()
    pooled = model.backbone(image)  # type: ignore[operator]
    return pooled @ SOURCE["head.1.weight"][:1].T + SOURCE["head.1.bias"][:1]


def test_a_head_of_one_output_teaches_as_log_odds_of_the_second_class(tmp_path: Path) -> None:
    torch.save(make_one_output(), tmp_path / "w.pth")
    image = torch.rand(3, 3, 32, 32)
    for classes, place in ((None, 1), (("real", "fake"), 1), (("fake", "real"), 0)):
        section = TeacherSection(name=SMALL, weights=str(tmp_path / "w.pth"), classes=classes)
        said: list[str] = []
        teachers = build_teachers(make_config(stage=2, teachers=(section,)), PictureModels(), say=said.append)
        logits = teachers(image=image)["logits"]
        expected = torch.zeros(3, 2)
        expected[:, place] = compute_z(image)[:, 0]
        assert torch.allclose(logits, expected, atol=1e-5)
        assert torch.allclose(logits.softmax(1)[:, place], compute_z(image).sigmoid()[:, 0], atol=1e-6)
        assert any(f"the log-odds of {(classes or CLASSES)[1]}, logits (0, z)" in line for line in said)


def test_a_student_may_start_from_a_head_of_one_output(tmp_path: Path) -> None:
    torch.save(make_one_output(), tmp_path / "w.pth")
    for settings in ({"init": str(tmp_path / "w.pth")}, {"stage": 2, "weights": str(tmp_path / "w.pth")}):
        student = build_student(make_config(**settings), PictureModels(), say=lambda _: None)  # type: ignore[arg-type]
        assert torch.equal(student.get_parameter("head.1.weight")[1], SOURCE["head.1.weight"][0])
        assert student.get_parameter("head.1.weight")[0].abs().sum() == 0


@pytest.mark.parametrize("classes", [(), ("a", "b", "c")])
def test_a_head_of_one_output_stays_what_it_is_for_other_tasks(classes: tuple[str, ...]) -> None:
    match = match_tensors(build_small(0), make_one_output(), classes)
    assert set(match.missing) == {"head.1.weight", "head.1.bias"}


# --- Files and folders ----------------------------------------------------------------------------------------------


def write_forms(folder: Path) -> dict[str, Path]:
    """The same weights in every kind of file and folder."""
    (folder / "hf").mkdir()
    save_file(SOURCE, folder / "hf" / "model.safetensors")
    (folder / "hf_bin").mkdir()
    torch.save(SOURCE, folder / "hf_bin" / "pytorch_model.bin")
    snapshot = folder / "models--me--it" / "snapshots" / "0a1b"
    snapshot.mkdir(parents=True)
    save_file(SOURCE, snapshot / "model.safetensors")
    shards = folder / "shards"
    shards.mkdir()
    names = list(SOURCE)
    for number, part in enumerate((names[:9], names[9:])):
        save_file({key: SOURCE[key] for key in part}, shards / f"model-{number}.safetensors")
    index = {key: f"model-{int(i >= 9)}.safetensors" for i, key in enumerate(names)}
    (shards / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    lightning = folder / "lightning_logs" / "version_0" / "checkpoints"
    lightning.mkdir(parents=True)
    hyper = {"hyper_parameters": argparse.Namespace(lr=0.1), "epoch": 3, "callbacks": {"best": torch.tensor(0.5)}}
    torch.save({"state_dict": rename(SOURCE, "model."), **hyper}, lightning / "epoch=3-step=9.ckpt")
    save_file(SOURCE, folder / "safetensors.bin")
    torch.save(SOURCE, folder / "old.tar", _use_new_zipfile_serialization=False)
    return {
        "Hugging Face": folder / "hf",
        "Hugging Face .bin": folder / "hf_bin",
        "cache of Hugging Face": folder / "models--me--it",
        "shards": shards,
        "Lightning": folder / "lightning_logs" / "version_0",
        "all of Lightning": folder,
        "safetensors called .bin": folder / "safetensors.bin",
        "the oldest format": folder / "old.tar",
    }


def test_every_form_of_file_and_folder_gives_the_same_model(tmp_path: Path) -> None:
    for name, path in write_forms(tmp_path).items():
        model, _ = load(path)
        assert are_equal(model.state_dict(), SOURCE), name


def test_a_folder_of_several_files_is_refused_with_their_names(tmp_path: Path) -> None:
    for name in ("epoch=1.ckpt", "last.ckpt"):
        torch.save(SOURCE, tmp_path / name)
    with pytest.raises(UserError, match="a folder with 2 files of weights") as caught:
        find_file(tmp_path)
    assert "epoch=1.ckpt, last.ckpt" in caught.value.as_text()


def test_a_teacher_may_be_a_folder_and_its_stated_pictures_are_told(tmp_path: Path) -> None:
    save_file(SOURCE, tmp_path / "model.safetensors")
    form = {"input_size": [3, 64, 64], "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": SMALL, "pretrained_cfg": form}))
    said: list[str] = []
    section = TeacherSection(name=SMALL, weights=str(tmp_path), mean=(0.5, 0.5, 0.5))
    build_teachers(make_config(stage=2, teachers=(section,)), PictureModels(), say=said.append)
    (warning,) = [line for line in said if "pictures of another form" in line]
    assert warning.endswith('"input_size": 64, "std": [0.25, 0.25, 0.25]')


def write_foreign(folder: Path) -> dict[str, tuple[bytes, str, str]]:
    torch.save(SOURCE, folder / "whole.pth")
    whole = (folder / "whole.pth").read_bytes()
    save_file(SOURCE, folder / "whole.safetensors")
    safe = (folder / "whole.safetensors").read_bytes()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("release/w.pth", whole[:100])
    return {
        "web page": (b"\n<!DOCTYPE html><html>Sign in</html>", "is a web page", "download it again"),
        "drive": (b"<html><head><title>Virus scan warning", "is a web page", "download it again"),
        "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer", "git lfs pull"),
        "error": (b'{"error":"Repository not found"}', "error message of a server", "download it again"),
        "empty": (b"", "is empty", "download it again"),
        "cut": (whole[: len(whole) // 2], "is cut off", "download it again"),
        "cut safetensors": (safe[:-7], "is cut off", "download it again"),
        "cut header": (safe[:60], "is cut off", "download it again"),
        "zip": (packed.getvalue(), "is a packed archive", "unpack it"),
        "gzip": (gzip.compress(whole), "is a packed archive", "unpack it"),
        "keras": (b"\x89HDF\r\n\x1a\n", "HDF5", "torch model"),
        "flipped": (whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:], "is damaged", "download it again"),
    }


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin"])
def test_what_lies_in_the_place_of_a_download_is_named(tmp_path: Path, suffix: str) -> None:
    for name, (content, what, remedy) in write_foreign(tmp_path).items():
        if name in ("flipped", "zip") and suffix == ".safetensors":
            continue  # an archive by the name of safetensors: the length in it tells
        path = tmp_path / f"file{suffix}"
        path.write_bytes(content)
        text = refuse(path)
        assert what in text, name
        assert remedy in text, name


# --- Objects beside the tensors, and whole models -------------------------------------------------------------------


def test_numbers_of_numpy_and_a_namespace_beside_the_tensors_are_no_obstacle(tmp_path: Path) -> None:
    beside = {
        "args": argparse.Namespace(lr=0.1, sizes=[1, 2]),
        "best_auc": np.float64(0.9),
        "half": np.float16(0.5),
        "steps": np.int64(3),
        "done": np.bool_(True),
        "name": np.str_("run"),
        "history": np.arange(3),
    }
    for is_new in (True, False):
        torch.save({"state_dict": SOURCE, **beside}, tmp_path / "w.pth", _use_new_zipfile_serialization=is_new)
        model, _ = load(tmp_path / "w.pth")
        assert are_equal(model.state_dict(), SOURCE)


class Settings(collections.UserDict):  # type: ignore[type-arg]
    """A class of somebody's training code."""


class Attributes(dict):  # type: ignore[type-arg]
    __getattr__ = dict.__getitem__


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("is_new", [True, False], ids=["archive", "oldest format"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_whole_model_and_any_object_are_read_without_being_built(tmp_path: Path, is_new: bool) -> None:
    mark, path = tmp_path / "mark", tmp_path / "w.pth"
    beside: dict[str, Any] = {
        "settings": Settings(a=1),
        "attributes": Attributes(b=2),
        "path": pathlib.PurePosixPath("/x"),
        "counts": collections.defaultdict(int, {"c": 3}),
        "evil": Evil(mark),
    }
    torch.save({"model": nn.DataParallel(build_small(1)), **beside}, path, _use_new_zipfile_serialization=is_new)
    assert "nothing in it was run" in refuse(path)
    tensors, _ = unwrap_tensors(read_inert(path), where="w")
    assert are_equal(tensors, rename(SOURCE, "module."))
    torch.save(build_small(1), path, _use_new_zipfile_serialization=is_new)
    assert are_equal(read_inert(path), SOURCE)
    assert not mark.exists()


def test_the_remedy_for_a_file_with_objects_is_a_command_that_works(tmp_path: Path) -> None:
    path, out = tmp_path / "w.pth", tmp_path / "w.safetensors"
    torch.save({"model": build_small(1), "settings": Settings(a=1), "evil": Evil(tmp_path / "mark")}, path)
    text = refuse(path)
    assert f"remedy: take its tensors alone: python -m sharpstudent.models.weight_files {path} {out}" in text
    command = [sys.executable, "-m", "sharpstudent.models.weight_files", str(path), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"wrote {out}: {len(SOURCE)} tensors of w.pth; nothing in it was run" in done.stdout
    model, said = load(out)
    assert are_equal(model.state_dict(), SOURCE)
    assert not any("not verified" in line for line in said)
    assert not (tmp_path / "mark").exists()


def test_the_command_overwrites_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(SOURCE, tmp_path / "w.pth")
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "w.pth"), str(tmp_path / "w.pth")])
    with pytest.raises(UserError, match="exists already"):
        main()


def test_one_of_several_models_is_taken_out_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, out = tmp_path / "w.pth", tmp_path / "one.safetensors"
    torch.save({"generator": SOURCE, "discriminator": AVERAGE}, path)
    monkeypatch.setattr(sys, "argv", ["x", str(path), str(out), "--part", "discriminator"])
    main()
    assert are_equal(load(out)[0].state_dict(), AVERAGE)
    monkeypatch.setattr(sys, "argv", ["x", str(path), str(tmp_path / "two.safetensors"), "--part", "critic"])
    with pytest.raises(UserError, match="one of discriminator, generator"):
        main()
