"""`compare_models.py ablate` as a user types it: mistakes before anything is trained, and a whole ablation."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest
import torch
from sharpstudent.evaluation import planned_runs
from sharpstudent.evaluation.ablate import choose_epochs
from workplace import ROOT, STAGE_1, Workplace

COMPARE, CONFIG = "compare_models.py", "configs/tiny.json"
TASKS = (SimpleNamespace(name="digits"),)  # what clean_imports removes


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((CONFIG, "--preset", "everything"), "'everything' is not known"),
        ((CONFIG, "--preset", "sam", "--arms", "a.json"), "cannot be given together with --preset"),
        ((CONFIG, "--seeds", "0"), "--seeds"),
        ((CONFIG,), "pretrained_student_weights: names nothing that is there"),
        ((CONFIG, "--preset", "sam", "--set", "rho=0"), "--set rho=0.05"),
        ((CONFIG, "--bogus"), "--bogus: is not a known option"),
        ((CONFIG, "--rounds", "1"), "--rounds"),
        ((CONFIG, "--arms", "configs/absent.json"), "configs/absent.json"),
        (("configs/absent.json",), "configs/absent.json"),
        ((CONFIG, "--equal", "time", "--set", "epoch=1"), "--set epoch=5"),
    ],
    ids=str,
)
def test_a_mistake_is_one_message_before_anything_is_trained(
    tiny: Workplace, words: tuple[str, ...], said: str
) -> None:
    ended = tiny.call(COMPARE, "ablate", *words)
    assert ended.code == 2, ended.out
    assert said in ended.err
    assert "Traceback" not in ended.err
    assert not list(tiny.folder.glob("output/*/runs"))


def test_a_run_that_fails_is_shown_with_its_last_lines_and_where_the_rest_is(
    tiny: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tiny / "output/first_x/weights").mkdir(parents=True)
    (tiny / "output/first_x/weights/best_model.pth").write_bytes(b"no model")

    def fail(process: object, options: int) -> tuple[int, int, os.stat_result]:
        return 0, 2 << 8, type("Usage", (), {"ru_utime": 1.0, "ru_stime": 0.5})()  # type: ignore[return-value]

    class Process:
        def __init__(self, command: list[str], *, stdout: object, **others: object) -> None:
            assert command[1].endswith("main_distillation.py")
            assert command[-2:] == ["--resume", "auto"]
            stdout.write(b"error: something is wrong\n")  # type: ignore[attr-defined]
            self.pid = 1

    monkeypatch.setattr(planned_runs.os, "wait4", fail)
    monkeypatch.setattr(planned_runs.subprocess, "Popen", Process)
    ended = tiny.call(COMPARE, "ablate", CONFIG, "--seeds", "1")
    assert ended.code == 2
    assert "run s1_alone: ended with exit code 2" in ended.err
    assert "error: something is wrong" in ended.err
    assert "logs/s1_alone.txt" in ended.err
    costs = json.loads((tiny / "output/ablation_tiny_kd-or-not/costs.json").read_text())
    assert costs["s1_alone"]["cpu_s"] == 1.5


@pytest.mark.slow  # four commands that each train
def test_an_ablation_ends_in_table_picture_and_json_and_the_same_command_goes_on(tiny: Workplace) -> None:
    from sharpstudent.models.vision import build_classifier

    torch.manual_seed(3)
    (tiny / "weights").mkdir(exist_ok=True)
    torch.save(build_classifier("test_resnet", classes=2, dropout=None).state_dict(), tiny / "weights/tiny_teacher.pth")
    assert tiny.call(STAGE_1, CONFIG, "-n", "first").code == 0
    words = (COMPARE, "ablate", CONFIG, "--seeds", "2", "--jobs", "2", "--set", "epoch=1", "--out", "output/worth")
    ended = tiny.call(*words)
    assert ended.code == 0, ended.err
    stored = json.loads((tiny / "output/worth/ablation.json").read_text())
    jsonschema.validate(stored, json.loads((ROOT / "docs/ablation.schema.json").read_text()))
    assert [arm["name"] for arm in stored["arms"]] == ["alone", "config"]
    assert all(len(set(arm["runs"])) == 2 for arm in stored["arms"])
    assert all((tiny / f"output/worth/ablation.{kind}").is_file() for kind in ("md", "png", "csv"))
    assert "alone for as many further steps" in ended.out
    before = sorted(Path(tiny / "output/worth/runs").iterdir())
    again = tiny.call(*words)
    assert again.code == 0
    assert again.out.count("is there already") == 4
    assert sorted(Path(tiny / "output/worth/runs").iterdir()) == before
    unchanged = json.loads((tiny / "output/worth/ablation.json").read_text())
    assert [arm["by_seed"] for arm in unchanged["arms"]] == [arm["by_seed"] for arm in stored["arms"]]


FOLDS = {
    "config": "digits.json",
    "options": ["--data", "test"],
    "folds": {"a": {"keys": {"data.noise": 0.2}, "seeds": 2}, "b": {"keys": {"data.noise": 0.1}}},
    "first": {"teacher": {"keys": {"student": "wide"}, "once": True}, "student": {"keys": {"stage1.epoch": 1}}},
    "keys": {"pretrained_student_weights": "{student}", "teacher_weights": "{teacher}", "epoch": 1},
    "arms": {"distilled": {}},
}


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A folder with an invented task, and arms over two folds that name its config."""
    place = Workplace(tmp_path_factory.mktemp("folds"))
    for name in ("digits.py", "digits.json"):
        (place / name).symlink_to(ROOT / "tests/invented" / name)
    (place / "folds.json").write_text(json.dumps(FOLDS))
    return place


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--seeds", "2"), "have numbers of seeds"),
        (("--preset", "sam"), "lists arms itself, and another option names some"),
        (("--bogus",), "--bogus: is not a known option"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("clean_imports")
def test_a_mistake_in_folds_is_one_message_before_anything_is_trained(
    folds: Workplace, words: tuple[str, ...], said: str
) -> None:
    ended = folds.call(COMPARE, "ablate", "folds.json", *words)
    assert ended.code == 2, ended.out
    assert said in ended.err
    assert not list(folds.folder.glob("output/*/runs"))


@pytest.mark.slow  # eleven runs
@pytest.mark.usefixtures("clean_imports")
def test_folds_train_everything_anew_and_end_in_one_table_and_one_of_the_fold_with_seeds(folds: Workplace) -> None:
    ended = folds.call(COMPARE, "ablate", "folds.json")
    assert ended.code == 0, ended.err
    stored = json.loads((folds / "output/ablation_folds/ablation.json").read_text())
    jsonschema.validate(stored, json.loads((ROOT / "docs/ablation.schema.json").read_text()))
    assert [arm["name"] for arm in stored["arms"]] == ["alone", "distilled", "teacher", "student"]
    assert all(set(arm["by_fold"]) == {"a", "b"} and len(set(arm["runs"])) == 2 for arm in stored["arms"])
    assert "2 folds (a, b)" in stored["protocol"]["folds"]
    of_seeds = json.loads((folds / "output/ablation_folds/a/ablation.json").read_text())
    assert of_seeds["seeds"] == [1, 2]
    teacher, student = (next(arm for arm in of_seeds["arms"] if arm["name"] == name) for name in ("teacher", "student"))
    assert (len(set(teacher["runs"])), len(set(student["runs"]))) == (1, 2)  # the teacher is trained once a fold
    again = folds.call(COMPARE, "ablate", "folds.json")
    assert again.out.count("is there already") == 11


def test_equal_time_is_as_many_epochs_as_the_reference_takes_seconds_without_the_start() -> None:
    # 10 s of start-up; an epoch of the reference takes 5 s, of the others 2.5 s, 10 s, and 60 s.
    seconds = {"sam": 15.0, "rho_0": 12.5, "dear": 20.0, "dearest": 70.0}
    chosen = choose_epochs(seconds, "sam", total=10.0 + 8 * 5.0, epochs=8)
    assert chosen == {"sam": 8, "rho_0": 16, "dear": 4, "dearest": 1}
    assert choose_epochs({"sam": None, "b": 3.0}, "sam", total=None, epochs=4) == {"sam": 4, "b": 4}
