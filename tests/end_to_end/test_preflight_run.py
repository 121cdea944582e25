"""The preflight of stage 2 as a user meets it: printed, stored, interruptible, and without effect on training."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from workplace import STAGE_1, STAGE_2, TINY, Ended, Workplace, note_passes

CONFIG = "configs/tiny.json"
TEACHER = "weights/tiny_teacher.pth"
STUDENT, TAUGHT = "student test_efficientnet", "teacher test_resnet"
LONGER = (
    "--set",
    "stage1.epoch=8",
    "--set",
    "stage1.lr=0.04",
    "--set",
    "seed=6",
)  # of a seed whose student says enough


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, labelled_root: Path) -> Path:
    """A folder with a stage-1 run, `first`, and a teacher that is right on every validation picture; read only."""
    folder = tmp_path_factory.mktemp("trained")
    place = Workplace(folder)
    (place / "data").mkdir()
    (place / "data/labelled").symlink_to(labelled_root)
    (place / CONFIG).write_text(TINY)
    for name, words in (("first", LONGER), ("tutor", (*LONGER, "--set", "student=test_resnet"))):
        ended = place.call(STAGE_1, CONFIG, "-n", name, *words)
        assert ended.code == 0, ended.err
        assert "preflight" not in ended.out
    (place / "weights").mkdir()
    shutil.copyfile(place.find_run("tutor") / "weights/best_model.pth", place / TEACHER)
    return folder


@pytest.fixture
def taught(tiny: Workplace, trained: Path) -> Workplace:
    """A copy of `trained`."""
    for name in ("output", "weights"):
        shutil.copytree(trained / name, tiny / name)
    return tiny


def start(place: Workplace, name: str = "second", *words: str) -> Ended:
    return place.call(STAGE_2, CONFIG, "-n", name, "--set", "epoch=1", *words)


def change_file(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the tensors of a checkpoint, which stays plain weights."""
    import torch

    tensors = torch.load(path, weights_only=True)["model"]
    change(tensors)
    torch.save(tensors, path)


def exchange_head(tensors: dict[str, Any]) -> None:
    for name in ("head.1.weight", "head.1.bias"):
        tensors[name] = tensors[name].flip(0)


def clear_head(tensors: dict[str, Any]) -> None:
    tensors["head.1.weight"].zero_()


def enlarge_head(tensors: dict[str, Any]) -> None:
    for name in ("head.1.weight", "head.1.bias"):
        tensors[name] *= 1000


def break_head(tensors: dict[str, Any]) -> None:
    """Weights that are finite, and sums that are not."""
    tensors["head.1.weight"][:] = 3e38


def find_warnings(ended: Ended) -> list[str]:
    return [line for line in ended.out.splitlines() if line.startswith("warning: ") and "'s terms weigh" not in line]


def find_row(ended: Ended, name: str) -> list[str]:
    (line,) = [line for line in ended.out.splitlines() if re.match(rf"{name} +\|", line)]
    return [cell.strip() for cell in line.split("|")]


def test_student_and_teacher_are_evaluated_before_the_first_step_and_the_result_is_stored(taught: Workplace) -> None:
    ended = start(taught)
    assert ended.code == 0, ended.err
    about = json.loads((taught.find_run("first") / "weights/best_model.pth.json").read_text())["about"]
    assert find_row(ended, STUDENT)[1] == f"{about['val_auc']:.4f}"
    assert find_row(ended, TAUGHT)[1] == "1.0000"
    assert f"before stage 2: val_auc {about['val_auc']:.4f}" in ended.out
    assert ended.out.index(TAUGHT + " ") < ended.out.index("Epoch 1/1")
    logs = taught.find_run("second") / "logs"
    stored = json.loads((logs / "preflight.json").read_text())
    assert [row["name"] for row in stored["rows"]] == [STUDENT, TAUGHT]
    assert stored["rows"][0]["val_auc"] == about["val_auc"]
    written = (logs / "losses.logs").read_text()
    for line in (*find_warnings(ended), *(f"{name} |" for name in (STUDENT,))):
        assert f"# {line}" in written


def test_a_teacher_file_with_swapped_classes_is_reported(taught: Workplace) -> None:
    change_file(taught / TEACHER, exchange_head)
    ended = start(taught)
    assert ended.code == 0, ended.err
    (warning,) = [line for line in find_warnings(ended) if "below chance" in line]
    assert f"warning: {TAUGHT} has a validation AUC of 0.0000 (0.0000 to 0.5271 over people), below chance" in warning
    assert 'write "classes": ["fake", "real"] for it' in warning


def test_a_stage_1_head_a_thousand_times_too_large_is_reported(taught: Workplace) -> None:
    before = start(taught, "before")
    assert f"the logits of {STUDENT} spread" not in "".join(find_warnings(before))
    change_file(taught.find_run("first") / "weights/best_model.pth", enlarge_head)
    ended = start(taught)
    (warning,) = [line for line in find_warnings(ended) if f"the logits of {STUDENT} spread" in line]
    assert "check the stage-1 checkpoint" in warning


def test_a_weak_teacher_is_reported(taught: Workplace) -> None:
    change_file(taught / TEACHER, clear_head)
    warnings = "\n".join(find_warnings(start(taught)))
    assert f"{TAUGHT} is weak, with a validation AUC of 0.5000 (below 0.80)" in warnings
    assert f"{TAUGHT} gives the same logits to all 8 pictures" in warnings


def test_a_teacher_that_is_the_students_own_file_is_reported(taught: Workplace) -> None:
    shutil.copyfile(taught.find_run("first") / "weights/best_model.pth", taught / TEACHER)
    ended = start(taught, "second", "--set", "teacher=test_efficientnet")
    assert any("agree on all 8 pictures to the last bit" in line for line in find_warnings(ended))


def test_a_teacher_whose_outputs_overflow_is_refused_before_the_first_step(taught: Workplace) -> None:
    change_file(taught / TEACHER, break_head)
    ended = start(taught)
    assert ended.code == 2
    assert f"error: {TAUGHT}: cannot be used" in ended.err
    assert re.search(r"8 of 8 samples with logits that are not finite: (real|fake)/\S+\.png \(\w+\)", ended.err)
    assert "Traceback" not in ended.err
    assert "Epoch 1/1" not in ended.out


def test_a_second_run_with_the_same_models_makes_no_pass_over_the_samples(
    taught: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = note_passes(monkeypatch)
    first = start(taught, "one")
    assert passes == [2, 1]  # student and teacher in the preflight, the student at the end of its epoch
    passes.clear()
    second = start(taught, "two")
    assert second.code == 0, second.err
    assert passes == [1]
    assert second.out.count("was evaluated on these samples before, output/.preflight/") == 2
    for name in (STUDENT, TAUGHT):
        assert find_row(second, name) == find_row(first, name)
    assert find_warnings(second) == find_warnings(first)


def test_damaged_files_of_cached_scores_are_reported_and_replaced(taught: Workplace) -> None:
    first = start(taught, "one")
    kept = sorted((taught / "output/.preflight").iterdir())
    whole = [path.read_bytes() for path in kept]
    for path in kept:
        path.write_bytes(path.read_bytes()[:200])
    second = start(taught, "two")
    assert second.code == 0, second.err
    assert second.out.count("cannot be read") == len(kept) == 2
    assert find_row(second, TAUGHT) == find_row(first, TAUGHT)
    assert [path.read_bytes() for path in kept] == whole


def read_state(run: Path) -> dict[str, Any]:
    """Weights, optimiser and random states that the run ended with."""
    import torch

    state = torch.load(run / "weights/last.pth", weights_only=True)
    state.pop("about")
    return state


def assert_same_end(run: Path, other: Path) -> None:
    from io import BytesIO

    import torch

    def to_bytes(folder: Path) -> bytes:
        buffer = BytesIO()
        torch.save(read_state(folder), buffer)
        return buffer.getvalue()

    assert to_bytes(run) == to_bytes(other)
    assert (run / "logs/metrics.csv").read_text() == (other / "logs/metrics.csv").read_text()


@pytest.mark.parametrize("workers", ["0", "2"])
def test_training_is_the_same_to_the_last_bit_with_and_without_a_preflight(
    taught: Workplace, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    from sharpstudent.tasks.deepfake.task import DeepfakeTask
    from sharpstudent.train import trainer
    from sharpstudent.train.preflight.model_checks import CheckedModel
    from sharpstudent.train.preflight.run import PreflightReport

    words = ("--set", f"num_workers={workers}")
    assert start(taught, "with", *words).code == 0  # a pass
    assert start(taught, "kept", *words).code == 0  # scores of the first
    row = CheckedModel("x", {"auc": 0.5, "accuracy": 0.5}, None, {}, DeepfakeTask())
    report = PreflightReport((row,), None, (), start_value=0.5, samples=8)
    monkeypatch.setattr(trainer, "preflight", lambda *_, **__: report)
    assert "preflight:" not in start(taught, "without", *words).out
    for name in ("kept", "without"):
        assert_same_end(taught.find_run(name), taught.find_run("with"))


def test_a_run_terminated_in_its_preflight_repeats_it_and_ends_like_an_uninterrupted_one(
    taught: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sharpstudent.train import validate

    compute = validate.compute_tables

    def terminate_and_compute(*args: Any, **settings: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return compute(*args, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(validate, "compute_tables", terminate_and_compute)
        stopped = start(taught, "parts")
    assert stopped.code == 143
    assert not (taught.find_run("parts") / "logs/preflight.json").exists()
    resumed = taught.call(STAGE_2, "--resume", "parts")
    assert resumed.code == 0, resumed.err
    assert find_row(resumed, TAUGHT)[1] == "1.0000"
    assert start(taught, "whole").code == 0
    assert_same_end(taught.find_run("parts"), taught.find_run("whole"))


def test_a_run_resumed_after_its_first_step_does_not_repeat_the_preflight(
    taught: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sharpstudent.train.step import TrainStep

    take, taken = TrainStep.__call__, []

    def take_and_signal(self: TrainStep, *args: Any) -> Any:
        taken.append(1)
        if len(taken) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return take(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "__call__", take_and_signal)
        assert start(taught).code == 143
    position = json.loads((taught.find_run("second") / "weights/last.pth.json").read_text())["about"]["position"]
    stored = json.loads((taught.find_run("second") / "logs/preflight.json").read_text())
    assert position["start"]["accuracy"] == stored["rows"][0]["val_accuracy"]
    resumed = taught.call(STAGE_2, "--resume", "second")
    assert resumed.code == 0, resumed.err
    assert "preflight:" not in resumed.out


def test_a_dry_run_says_how_many_passes_the_preflight_needs_and_makes_none(taught: Workplace) -> None:
    before = taught.list_output()
    ended = start(taught, "x", "--dry-run")
    assert ended.code == 0, ended.err
    assert "dry run: the preflight would take 8 validation samples through the student and the teacher" in ended.out
    assert "Val AUC" not in ended.out
    assert taught.list_output() == before


def test_cached_scores_are_not_mistaken_for_a_run_to_resume(taught: Workplace) -> None:
    start(taught, "one")
    assert (taught / "output/.preflight").is_dir()
    again = start(taught, "one", "--resume", "auto")
    assert "found this command's run output/one_" in again.out
    assert "passed over" not in again.out
