"""The command lines of the seed's document, from its own text where it is there, and from the list in compat/tokens."""

import importlib.util
import json
import os
import re
import shlex
import struct
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Generator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import timm
import torch
from sharpstudent.config.cli import parse_command_line
from sharpstudent.core.errors import UserError
from sharpstudent.registry import find_task
from sharpstudent.tasks.tokens.small_pictures import draw_digits
from workplace import ROOT

COMPAT = ROOT / "compat" / "tokens"
DOCUMENTS = {
    "the document": sorted((ROOT.parent / "shared" / "seeds").glob("003_*.txt")),
    "compat/tokens/README.md": [COMPAT / "README.md"],
}


@pytest.fixture(autouse=True, scope="module")
def _path() -> Generator[None]:
    sys.path.insert(0, str(COMPAT / "python"))
    yield
    sys.path.remove(str(COMPAT / "python"))


def read_text(name: str) -> str:
    found = DOCUMENTS[name]
    if not found:
        pytest.skip("the seed's document is not beside this repository (../shared/seeds/003_*.txt)")
    return found[0].read_text(encoding="utf-8")


def list_commands(name: str) -> list[list[str]]:
    """The arguments of each printed command of run_mnist_equiv.py."""
    blocks = re.findall(r"```bash\n(.*?)```", read_text(name), re.DOTALL)
    lines = [shlex.split(block.replace("\\\n", " ")) for block in blocks if "run_mnist_equiv.py" in block]
    return [words[words.index("python/fptm_ste/tests/run_mnist_equiv.py") + 1 :] for words in lines]


def read_flags(words: list[str]) -> Namespace:
    from fptm_ste.flags import add_flags  # type: ignore[import-not-found]

    parser = ArgumentParser()
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--models", default="transformer")
    add_flags(parser)
    return parser.parse_args(words)


def build(words: list[str], model: str = "transformer") -> dict[str, Any]:
    from fptm_ste.flags import build_config, build_data, build_student  # type: ignore[import-not-found]

    read = read_flags(words)
    data = build_data(read, read.dataset, "data", "mnist" if read.dataset == "mnist" else "folder")
    teacher = {"model": "cnn", "weights": "teacher.pth"} if read.distill_teacher_timm else None
    return build_config(read, student=build_student(read, model), data=data, teacher=teacher)


def run(name: str, words: list[str]) -> None:
    """A script of compat/tokens with these arguments, in this process."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, COMPAT / "python" / "fptm_ste" / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        module.main(words)
    finally:
        from sharpstudent.core import io as core_io

        for lock in list(core_io._HELD.values()):
            lock.release()


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn digits as the four IDX files of MNIST: 40 for training, 20 for the test."""
    folder, drawn = tmp_path_factory.mktemp("idx"), draw_digits()
    for part, places in (("train", range(40)), ("t10k", range(40, 60))):
        pictures, labels = np.stack([drawn.pictures[i] for i in places]), drawn.labels[list(places)]
        (folder / f"{part}-images-idx3-ubyte").write_bytes(
            struct.pack(">4B3I", 0, 0, 8, 3, len(labels), 28, 28) + np.asarray(pictures, np.uint8).tobytes()
        )
        head = struct.pack(">4BI", 0, 0, 8, 1, len(labels))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(head + labels.astype(np.uint8).tobytes())
    return folder


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_printed_command_is_a_config_that_both_scripts_read(name: str, tmp_path: Path) -> None:
    commands = list_commands(name)
    assert len(commands) == 4
    for words in commands:
        config = build(words)
        path = tmp_path / "config.json"
        path.write_text(json.dumps(config))
        more = ["-n", "x", "--allow", "unpretrained-student"]
        resolved = parse_command_line([str(path), *more], stage=2, find_task=find_task).config
        assert {term.name for term in resolved.criterion} >= {"hard", "teacher_kd_loss"}


def test_the_list_is_that_of_the_document() -> None:
    assert list_commands("the document") == list_commands("compat/tokens/README.md")


@pytest.mark.parametrize(
    ("number", "parameters"), [(0, None), (1, 36_881_894), (2, 136_976), (3, 302_722)], ids=["a", "b", "c", "d"]
)
def test_the_printed_sizes_give_students_of_the_known_numbers_of_parameters(
    number: int, parameters: int | None
) -> None:
    from sharpstudent.task import ModelSpec
    from sharpstudent.tasks.tokens.models import list_arguments
    from sharpstudent.tasks.tokens.transformer import UnifiedTMTransformer

    config = build(list_commands("compat/tokens/README.md")[number])
    options = {key: value for key, value in config["student"].items() if key != "name"}
    size, channels = config["data"]["image_size"], config["data"]["channels"]
    spec = ModelSpec(config["student"]["name"], options)
    with torch.device("meta"):
        model = UnifiedTMTransformer(**list_arguments(spec, classes=10, image_size=size, channels=channels))
    count = sum(one.numel() for one in model.parameters())
    assert parameters in (None, count)


CHANGES = [
    ("--epochs", "7"), ("--batch-size", "9"), ("--device", "cuda"), ("--seed", "3"), ("--lr", "0.1"), ("--rho", "0.1"),
    ("--tm-target-size", "32 32"), ("--transformer-arch", "swin"), ("--transformer-backend", "deeptm"),
    ("--transformer-patch", "7"), ("--transformer-embed-dims", "32"), ("--transformer-layers", "2"),
    ("--transformer-heads", "2"), ("--transformer-mlp-ratio", "2.0"), ("--transformer-clauses", "16"),
    ("--transformer-clause-specialize", ""),
    ("--transformer-clause-specialize --transformer-clause-specialize-strength", "0.7"),
    ("--transformer-self-distill-weight", "0.3"), ("--transformer-ema-decay", "0.9"),
    ("--transformer-aux-weight", "0.1"), ("--transformer-contrastive-weight", "0.1"),
    ("--transformer-clause-weight", "0.1"), ("--distill-teacher-timm", "cnn"),
    ("--dataset", "cifar10"),
    ("--transformer-arch swin --transformer-depths", "2,1"), ("--transformer-arch swin --transformer-window", "2"),
    ("--transformer-arch swin --transformer-stage-heads", "4,4"),
]  # fmt: skip


@pytest.mark.parametrize(("flag", "value"), CHANGES, ids=[flag for flag, _ in CHANGES])
def test_every_flag_changes_the_config(flag: str, value: str) -> None:
    *context, last = flag.split()
    assert build([*context, last, *value.split()]) != build(context)


def test_weights_and_temperatures_of_both_teachers_arrive_in_either_spelling() -> None:
    base = ["--distill-teacher-timm", "cnn", "--transformer-self-distill-weight", "0.4"]
    for spelling in ("--transformer-self_distill_temp", "--transformer-self-distill-temp"):
        words = [*base, spelling, "3.5", "--distill-teacher-weight", "0.9", "--distill-teacher-temp", "1.5"]
        terms = {term.get("name", term["term"]): term for term in build(words)["stage2"]["terms"]}
        assert terms["self"] == {"term": "self", "weight": 0.4, "temperature": 3.5}
        assert (terms["teacher_kd_loss"]["weight"], terms["teacher_kd_loss"]["temperature"]) == (0.9, 1.5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--transformer-self-distill-weight", "1", "--transformer-ema-decay", "0"], "would teach nothing"),
        (["--tm-target-size", "64", "32"], "not square"),
        (["--transformer-arch", "swin", "--transformer-layers", "2"], "no effect"),
        (["--transformer-depths", "2"], "no effect"),
        (["--transformer-clause-specialize-strength", ".5"], "no effect without"),
    ],
)
def test_flags_without_effect_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(words)


def test_models_names_the_students_and_refuses_others() -> None:
    from fptm_ste.flags import BACKENDS, list_names  # type: ignore[import-not-found]

    names = [build([], model)["student"]["name"] for model in list_names("transformer,mlp,plain", BACKENDS, "--models")]
    assert names == ["tm_vit", "mlp_vit", "plain_vit"]
    with pytest.raises(UserError, match="tsetlin"):
        list_names("tsetlin", BACKENDS, "--models")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_vit_check_runs_with_a_teacher_and_its_snippet_reloads_it(
    name: str, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The printed line with a larger patch and fewer clauses; there is no hub, so that the teacher is trained first."""
    from fptm_ste import training  # type: ignore[import-not-found]
    from sharpstudent.models import pretrained

    snippet = re.search(r"```python\n(.*?)```", read_text(name), re.DOTALL)
    assert snippet is not None
    if name != next(iter(DOCUMENTS)) and DOCUMENTS["the document"]:
        pytest.skip("the same line and snippet have run from the document's own text")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "TEACHER_EPOCHS", 1)
    monkeypatch.setattr(pretrained, "_load_from_hub", _refuse_hub)
    saved = tmp_path / "saved" / "vit.pth"
    words = [*list_commands(name)[2], "--data-root", str(digits), "--transformer-patch", "16"]
    words += ["--transformer-clauses", "16", "--transformer-save-path", str(saved), "--test-batch-size", "7"]
    words += ["--report-epoch-acc", "--visualize-overlays", "overlays", "--visualize-samples", "2"]
    run("tests/run_mnist_equiv.py", words)
    printed = capsys.readouterr().out
    for part in (
        "trained for 1 epochs first",
        "epoch 1: val_acc",
        "test_acc",
        "teacher_kd_loss",
        "snapshot: test_acc 0.41",
    ):
        assert part in printed, part
    assert sorted(path.name for path in (tmp_path / "overlays").glob("*.png")) == ["overlay_000.png", "overlay_001.png"]
    names: dict[str, Any] = {}
    exec(snippet[1].replace("/tmp/mnist_vit_tm_distilled.pth", str(saved)), names)
    student, kept = names["student"], names["ckpt"]
    assert {"model_state", "model_kwargs", "config", "metrics"} <= set(kept)
    folder = training.find_run("mnist_tm_vit")
    assert "train_teacher_kd_loss" in (folder / "logs" / "metrics.csv").read_text()
    assert b"train/teacher_kd_loss" in b"".join(path.read_bytes() for path in folder.glob("logs/tensorboard/*"))
    model, task = training.open_run(folder)
    image = task.example_batch(3).inputs["image"]
    assert torch.equal(student(image)["logits"], model(image)["logits"])
    assert "main_distillation.py" in json.loads((folder / "results.json").read_text())["command"]
    assert (tmp_path / "overlays" / "results.json").is_file()
    assert json.loads((tmp_path / "overlays" / "overlay_000.json").read_text())["id"] == "test 0"


def _refuse_hub(model: object, name: str, key: str) -> str:
    raise UserError.about(f"{key} = 'imagenet'", f"no ImageNet weights for {name}: the hub does not answer")


def test_a_resnets_checkpoint_teaches_and_pictures_are_tested_in_batches_of_the_size_that_the_flag_says(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fptm_ste import training  # type: ignore[import-not-found]

    monkeypatch.chdir(tmp_path)
    sizes: list[int] = []
    words = ["--data-root", str(digits), "--transformer-patch", "14", "--transformer-clauses", "8"]
    words += ["--transformer-embed-dims", "8", "--batch-size", "40", "--test-batch-size", "7"]
    teacher = timm.create_model("test_resnet", num_classes=10)
    torch.save(teacher.state_dict(), tmp_path / "resnet.pth")
    words += ["--distill-teacher-timm", "test_resnet", "--distill-teacher-checkpoint", "resnet.pth"]
    open_run = training.open_run

    def open_and_watch(folder: Path) -> Any:
        model, task = open_run(folder)
        model.register_forward_hook(lambda _, __, outputs: sizes.append(len(outputs["logits"])))
        return model, task

    monkeypatch.setattr(training, "open_run", open_and_watch)
    run("tests/run_mnist_equiv.py", words)
    assert sizes == [7, 7, 6]
    assert "resnet.pth has all its weights" in capsys.readouterr().out


def test_an_absent_device_is_refused(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="cuda"):
        run("tests/run_mnist_equiv.py", ["--data-root", str(digits), "--device", "cuda"])


def test_data_that_are_not_there_and_a_checkpoint_without_a_name_are_refused(tmp_path: Path) -> None:
    from fptm_ste.training import find_teacher, open_data  # type: ignore[import-not-found]

    with pytest.raises(UserError, match="--data-root"):
        open_data(read_flags(["--data-root", str(tmp_path)]), "cifar10")
    with pytest.raises(UserError, match="name of its model"):
        find_teacher(read_flags(["--distill-teacher-checkpoint", "x.pth"]), {})
    entry = find_teacher(
        read_flags(["--distill-teacher-checkpoint", "x.pth", "--distill-teacher-timm", "resnet18"]), {}
    )
    assert entry == {"model": "resnet18", "weights": "x.pth"}


def test_a_sweep_takes_a_folder_in_the_form_of_imagenet_and_a_timm_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val"):
        for label in ("n01", "n02"):
            (tmp_path / "data" / split / label).mkdir(parents=True)
            for number in range(6):
                noise = np.random.default_rng(number).integers(0, 255, (40, 40, 3), np.uint8)
                cv2.imwrite(str(tmp_path / "data" / split / label / f"{number}.JPEG"), noise)
    (tmp_path / "weights").mkdir()
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "weights" / "test_vit.imagenet.pth")
    monkeypatch.chdir(tmp_path)
    words = ["data", "--distill-teacher-timm", "test_vit", "--tm-target-size", "32", "32", "--transformer-patch", "16"]
    words += ["--transformer-clauses", "8", "--transformer-embed-dims", "8", "--strengths", "0.5"]
    run("imagenet_sweeps.py", [*words, "--architectures", "vit", "--backends", "ste"])
    rows = json.loads((tmp_path / "output" / "imagenet_sweep.json").read_text())
    assert [(row["arch"], row["strength"]) for row in rows] == [("vit", 0.5)]
    assert all("teacher_kd_loss" in row for row in rows)
    assert "a head that is fitted" in capsys.readouterr().out


def test_the_two_printed_test_files_run_and_the_second_skips_without_matplotlib() -> None:
    code = "import sys, pytest; sys.modules['matplotlib'] = None; sys.exit(pytest.main(sys.argv[1:]))"
    files = [f"python/fptm_ste/tests/test_{name}.py" for name in ("tm_transformer", "visualization")]
    words = [sys.executable, "-c", code, *files, "-q", "-rs", "-p", "no:cacheprovider", "-c", "/dev/null"]
    ended = subprocess.run(
        words, cwd=COMPAT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "python"}
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "could not import 'matplotlib'" in ended.stdout
    assert re.search(r"5 passed, 1 skipped", ended.stdout), ended.stdout


def test_source_this_activates_the_environment_and_sets_the_path() -> None:
    if not (ROOT / ".venv" / "bin" / "activate").is_file():
        pytest.skip("there is no .venv: make setup makes it")
    line = "source SOURCE.THIS && echo $VIRTUAL_ENV && echo $PYTHONPATH"
    ended = subprocess.run(["bash", "-c", line], cwd=COMPAT, capture_output=True, text=True, check=True)
    environment, path = ended.stdout.split()
    assert environment
    assert path.split(os.pathsep)[0] == str(COMPAT / "python")


@pytest.mark.slow
@pytest.mark.parametrize("number", range(4), ids=["cifar_vit", "cifar_swin", "mnist_vit", "mnist_swin"])
def test_every_printed_command_runs_with_its_epochs_cut(
    number: int, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fptm_ste import training  # type: ignore[import-not-found]
    from sharpstudent.models import pretrained

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "TEACHER_EPOCHS", 1)
    monkeypatch.setattr(pretrained, "_load_from_hub", _refuse_hub)
    root = digits
    if number < 2:
        root = tmp_path / "pictures"
        for split in ("train", "test"):
            for label in range(10):
                (root / split / str(label)).mkdir(parents=True)
                for place in range(2):
                    noise = np.random.default_rng(place).integers(0, 255, (32, 32, 3), np.uint8)
                    cv2.imwrite(str(root / split / str(label) / f"{place}.png"), noise)
    words = [*list_commands("compat/tokens/README.md")[number], "--epochs", "1", "--data-root", str(root)]
    words += ["--transformer-save-path", "saved.pth"]
    run("tests/run_mnist_equiv.py", words + (["--visualize-overlays", "overlays"] if number == 0 else []))
    assert (tmp_path / "saved.pth").is_file()
