"""The task through the scripts, on drawn digits; refusals; MNIST's and IDX files."""

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from sharpstudent.core.errors import UserError
from sharpstudent.task import ModelSpec
from sharpstudent.tasks.tokens.section import TokensSection
from sharpstudent.tasks.tokens.small_pictures import read_digits, read_idx
from sharpstudent.tasks.tokens.task import TokensTask
from workplace import ROOT, Workplace

TASK = "sharpstudent.tasks.tokens.task:TokensTask"


def make_config(**more: Any) -> dict[str, Any]:
    import json5

    text = (ROOT / "configs" / "tokens_mnist.json").read_text()
    config: Any = json5.loads(text)
    config |= {"task": TASK, "epoch": 1, "data": {"source": "drawn"}, "rho": 0.02, "report": False}
    config["student"] |= {"clauses": 32}
    return config | more


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    place = Workplace(tmp_path_factory.mktemp("tokens"))
    (place / "tokens.json").write_text(json.dumps(make_config()))
    for name, more in (("tokens_teacher", ["--set", "student=cnn", "--set", "lr_factors={}"]), ("tokens_student", [])):
        ended = place.call("train_student_only.py", "tokens.json", "-n", name, *more)
        assert ended.code == 0, ended.out + ended.err
    ended = place.call("main_distillation.py", "tokens.json", "-n", "tokens_distilled")
    assert ended.code == 0, ended.out + ended.err
    return place


def test_a_student_is_distilled_with_all_six_terms(place: Workplace):
    header = (place.find_run("tokens_distilled") / "logs" / "metrics.csv").read_text().splitlines()[0]
    for name in ("hard", "kd", "self", "aux", "supcon", "clause_sparsity"):
        assert f"{name}/weight" in header


def test_the_checkpoint_holds_usage_that_training_has_moved(place: Workplace):
    state = torch.load(place.find_run("tokens_distilled") / "weights" / "best_model.pth", weights_only=True)
    usage = state["model"]["blocks.0.attention.usage.running_mean"]
    assert len(usage) == 4
    assert not torch.allclose(usage, torch.ones(4))


def test_log_tensorboard_and_report_have_the_usage_of_clauses_and_heads_before_and_after_gains(place: Workplace):
    run = place.find_run("tokens_distilled")
    header, row = (line.split(",") for line in (run / "logs" / "metrics.csv").read_text().splitlines()[:2])
    found = {name: float(row[header.index(name)]) for name in header if name.startswith("student_")}
    assert len(found) == 1 + 2 * 4
    assert found["student_dead_clauses"] == 0
    for when in ("before", "after"):
        assert sum(found[f"student_use_0_{head}_{when}"] for head in range(4)) == pytest.approx(4.0, abs=1e-3)
    assert any(found[f"student_use_0_{head}_before"] != found[f"student_use_0_{head}_after"] for head in range(4))
    events = b"".join(path.read_bytes() for path in (run / "logs" / "tensorboard").iterdir())
    assert b"student/use_0_0_after" in events
    ended = place.call("evaluate_model.py", str(run), "--data", "test", "--config", "tokens.json", "--out", "usage")
    assert ended.code == 0, ended.out + ended.err
    notes = json.loads((place / "usage" / "results.json").read_text())["notes"]
    assert any("32 of 32 clauses vary" in note for note in notes)
    assert any("after their gains" in note for note in notes)
    assert "after their gains" in (place / "usage" / "report.html").read_text()


def test_a_picture_is_named_and_the_model_evaluated(place: Workplace):
    picture = np.zeros((28, 28), np.uint8)
    cv2.putText(picture, "3", (6, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255,), 2)
    cv2.imwrite(str(place / "three.png"), picture)
    run = str(place.find_run("tokens_distilled"))
    ended = place.call("predict.py", run, "three.png", "--task", TASK)
    assert ended.code == 0, ended.out + ended.err
    ended = place.call("evaluate_model.py", run, "--data", "test", "--config", "tokens.json")
    assert ended.code == 0, ended.out + ended.err
    assert "ccuracy" in ended.out


@pytest.mark.parametrize(
    ("name", "options", "word"),
    [
        ("tm_vit", {"patch_size": 5}, "patch_size must divide"),
        ("tm_vit", {"clauses": 33}, "even"),
        ("tm_vit", {"claus": 32}, "claus"),
        ("tm_vit", {"num_heads": 5}, "num_heads must divide"),
        ("tm_vit", {"clause_specialize": 2}, "0..1"),
        ("tm_vit", {"attention_scale": -0.1}, "attention_scale"),
        ("tm_vit", {"position_deviation": "wide"}, "position_deviation"),
        ("tm_vit", {"literals": "double"}, "single"),
        ("tm_swin", {"window_size": 5}, "window_size"),
    ],
)
def test_models_that_do_not_fit_are_refused(name: str, options: dict[str, Any], word: str):
    with pytest.raises(UserError, match=word):
        TokensTask().build_student(ModelSpec(name, options))


def test_a_timm_teacher_gets_three_channels_and_its_own_normalisation():
    model: Any = TokensTask().build_teacher(ModelSpec("test_resnet", role="teacher"))
    image = TokensTask().example_batch(2).inputs["image"]
    assert model(image=image)["logits"].shape == (2, 10)
    assert model.preprocess.mean.numel() == 3


def test_a_timm_model_with_another_normalisation_than_its_own_is_refused_unless_it_is_said_to_be_its_own():
    wrong: dict[str, Any] = {"mean": [0.1, 0.1, 0.1], "std": [0.5, 0.5, 0.5]}
    with pytest.raises(UserError, match="other pictures"):
        TokensTask().build_teacher(ModelSpec("test_resnet", wrong, role="teacher"))
    model: Any = TokensTask().build_teacher(ModelSpec("test_resnet", wrong | {"own_normalisation": True}))
    assert model.preprocess.mean.flatten().tolist() == pytest.approx([0.1, 0.1, 0.1])


def test_a_teacher_may_see_the_picture_that_training_has_not_moved():
    section = TokensSection(source="drawn", clean_view=True, shift=3)
    task = TokensTask(section)
    (train,) = task.open_data("train")
    one = train.make(0, np.random.default_rng(3)).inputs
    plain = TokensTask(TokensSection(source="drawn", shift=0)).open_data("train")[0].make(0, np.random.default_rng(0))
    assert np.array_equal(one["image_clean"], plain.inputs["image"])
    assert not np.array_equal(one["image"], one["image_clean"])
    assert "image_clean" in task.example_batch(2).inputs


def test_no_picture_is_in_two_splits():
    splits = TokensTask(TokensSection(source="drawn")).open_data("train", "validation", "test")
    names = [{one.name(index) for index in range(len(one))} for one in splits]
    assert sum(map(len, names)) == len(set.union(*names)) == 600


def test_idx_files_are_read_and_a_cut_one_is_refused(tmp_path: Path):
    body = struct.pack(">4B3I", 0, 0, 8, 3, 2, 2, 2) + bytes(range(8))
    (tmp_path / "a.gz").write_bytes(gzip.compress(body))
    assert read_idx(tmp_path / "a.gz", 3).tolist() == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    (tmp_path / "b").write_bytes(body[:-1])
    with pytest.raises(UserError, match="not whole"):
        read_idx(tmp_path / "b", 3)


def test_a_damaged_table_of_digits_is_refused(tmp_path: Path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"1,2,3\n"))
    with pytest.raises(UserError, match="no table of digits"):
        read_digits(tmp_path / "a.gz")
    (tmp_path / "a.gz").write_bytes(b"no gzip")
    with pytest.raises(UserError, match="damaged"):
        read_digits(tmp_path / "a.gz")


def test_pictures_of_folders_make_their_classes(tmp_path: Path):
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (tmp_path / split / label).mkdir(parents=True)
            for number in range(4):
                cv2.imwrite(str(tmp_path / split / label / f"{number}.png"), np.full((20, 20, 3), 99, np.uint8))
    section = TokensSection(source="folder", data_root=str(tmp_path), image_size=16, channels=3)
    task = TokensTask(section)
    assert task.classes == ("cat", "dog")
    train, validation = task.open_data("train", "validation")
    assert (len(train), len(validation)) == (7, 1)
    assert train.make(0, np.random.default_rng(0)).inputs["image"].shape == (1, 3, 16, 16)
