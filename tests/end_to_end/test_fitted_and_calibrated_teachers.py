"""Teachers with a fitted head or calibrated logits: made before the first step of stage 2, and the same through every
resume and in a replay.
"""

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
import torch
from workplace import STAGE_1, STAGE_2, TINY, Ended, Workplace, note_passes

CONFIG = "configs/tiny.json"
TEACHER = "weights/tiny_teacher.pth"
HEAD = "weights/teacher_head_1.pth"
# Stage 2 without stage 1.
ALONE = ("--set", "pretrained_student_weights=null", "--allow", "unpretrained-student", "--set", "teacher_weights=null")
LONGER = ("--set", "stage1.epoch=8", "--set", "stage1.lr=0.04")
FITTED = {"head": "fitted"}
CALIBRATED = {"calibrate": True}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    """As in the subprocesses: sums over several threads round differently."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def trained_teacher(tmp_path_factory: pytest.TempPathFactory, labelled_root: Path) -> Path:
    """A teacher that knows the drawn faces, and data in which a person of validation has its classes exchanged, so that
    no teacher is always right; read only.
    """
    place = Workplace(tmp_path_factory.mktemp("taught"))
    (place / "data").mkdir()
    shutil.copytree(labelled_root, place / "data/labelled")
    (place / CONFIG).write_text(TINY)
    assert place.call(STAGE_1, CONFIG, "-n", "tutor", *LONGER, "--set", "student=test_resnet").code == 0
    (place / "weights").mkdir()
    shutil.copyfile(place.find_run("tutor") / "weights/best_model.pth", place / TEACHER)
    shutil.rmtree(place / "output")
    assert start(place, "look").code == 0
    (kept, *_) = (place / "output/.preflight").iterdir()
    real = next(name for name in json.loads(kept.read_text())["table"]["id"]["values"] if name.startswith("real/"))
    data = place / "data/labelled"
    exchange(data / real, data / real.replace("real/", "fake/", 1))
    shutil.rmtree(place / "output")
    return place.folder


def exchange(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


@pytest.fixture
def place(workplace: Workplace, trained_teacher: Path) -> Workplace:
    """A copy of it."""
    for name in ("data", "weights"):
        shutil.copytree(trained_teacher / name, workplace / name)
    (workplace / CONFIG).write_text(TINY)
    return workplace


def start(place: Workplace, name: str = "run", *words: str, teachers: int = 1, **teacher: Any) -> Ended:
    section = {"model": "test_resnet", "weights": TEACHER, **teacher}
    listed = ("--set", f"teachers={json.dumps([section] * teachers)}")
    return place.call(STAGE_2, CONFIG, "-n", name, *listed, *ALONE, "--set", "epoch=1", *words)


def change_teacher(place: Workplace, change: Callable[[dict[str, Any]], None]) -> None:
    tensors = torch.load(place / TEACHER, weights_only=True)["model"]
    change(tensors)
    torch.save(tensors, place / TEACHER)


def drop_head(tensors: dict[str, Any]) -> None:
    for name in ("head.1.weight", "head.1.bias"):
        del tensors[name]


def enlarge_head(tensors: dict[str, Any]) -> None:
    for name in ("head.1.weight", "head.1.bias"):
        tensors[name] *= 20


def exchange_head(tensors: dict[str, Any]) -> None:
    for name in ("head.1.weight", "head.1.bias"):
        tensors[name] = tensors[name].flip(0)


def find_row(ended: Ended, name: str) -> list[str]:
    (line,) = [line for line in ended.out.splitlines() if re.match(rf"{name} +\|", line)]
    return [cell.strip() for cell in line.split("|")]


def read_end(run: Path) -> bytes:
    """Weights, optimiser and random states that the run ended with, and its metrics."""
    from io import BytesIO

    state = torch.load(run / "weights/last.pth", weights_only=True)
    state.pop("about")
    buffer = BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue() + (run / "logs/metrics.csv").read_bytes()


def terminate_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> pytest.MonkeyPatch:
    from sharpstudent.train.step import TrainStep

    take, taken = TrainStep.__call__, []

    def take_and_signal(self: TrainStep, *args: Any) -> Any:
        taken.append(1)
        if len(taken) == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return take(self, *args)

    monkeypatch.setattr(TrainStep, "__call__", take_and_signal)
    return monkeypatch


# --- Fitted heads ---------------------------------------------------------------------------------------------------


def test_a_teacher_without_a_head_is_fitted_evaluated_and_used_and_stays_out_of_checkpoints(place: Workplace) -> None:
    change_teacher(place, drop_head)
    ended = start(place, **FITTED)
    assert ended.code == 0, ended.err
    told = re.search(
        r"^teacher test_resnet: head fitted on 16 samples \(16 pictures\) .*accuracy there 100\.0%", ended.out, re.M
    )
    assert told is not None, ended.out
    assert told.start() < ended.out.index("preflight: 8 validation samples") < ended.out.index("Epoch 1/1")
    assert float(find_row(ended, "teacher test_resnet")[1]) > 0.5
    run = place.find_run("run")
    assert "head fitted on 16 samples" in (run / "logs/losses.logs").read_text()
    student = set(torch.load(run / "weights/best_model.pth", weights_only=True)["model"])
    for path in run.rglob("*.pth"):
        if path != run / HEAD:
            assert set(torch.load(path, weights_only=True)["model"]) == student, path
    assert sorted(torch.load(run / HEAD, weights_only=True)) == ["about", "bias", "weight"]


def test_the_same_run_twice_fits_the_same_head_and_ends_the_same(place: Workplace) -> None:
    change_teacher(place, drop_head)
    for name, words in (("one", ()), ("two", ("--set", "num_workers=2"))):
        assert start(place, name, *words, **FITTED).code == 0
    one, two = place.find_run("one"), place.find_run("two")
    assert (one / HEAD).read_bytes() == (two / HEAD).read_bytes()
    assert read_end(one) == read_end(two)


@pytest.mark.parametrize("teacher", [FITTED, FITTED | {"input_size": 48}, CALIBRATED], ids=str)
def test_a_resumed_run_ends_like_an_uninterrupted_one_and_fits_nothing_again(
    place: Workplace, monkeypatch: pytest.MonkeyPatch, teacher: dict[str, Any]
) -> None:
    from sharpstudent.train.preflight import teacher_heads as fitted_heads

    change_teacher(place, enlarge_head)
    assert start(place, "whole", **teacher).code == 0
    with monkeypatch.context() as patch:
        terminate_after(patch, 3)
        assert start(place, "parts", **teacher).code == 143
    with monkeypatch.context() as patch:
        patch.delattr(fitted_heads, "collect_pooled")  # any use of it fails
        passes = note_passes(patch)
        resumed = place.call(STAGE_2, "--resume", "parts")
    assert resumed.code == 0, resumed.err
    assert passes == [1]  # the student alone, at the end of its epoch: no preflight
    assert read_end(place.find_run("parts")) == read_end(place.find_run("whole"))
    assert ("its fitted head is that of" in resumed.out) == ("head" in teacher)


def test_a_run_stopped_between_fit_and_preflight_resumes_with_its_fitted_head(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sharpstudent.train import validate

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(validate, "compute_tables", stop)
        assert start(place, "parts", **FITTED).code == 130
    before = (place.find_run("parts") / HEAD).read_bytes()
    resumed = place.call(STAGE_2, "--resume", "parts")
    assert resumed.code == 0, resumed.err
    assert "its fitted head is that of" in resumed.out
    assert (place.find_run("parts") / HEAD).read_bytes() == before
    assert start(place, "whole", **FITTED).code == 0
    assert read_end(place.find_run("parts")) == read_end(place.find_run("whole"))


def test_a_head_in_the_file_is_replaced_with_a_message(place: Workplace) -> None:
    change_teacher(place, exchange_head)
    ended = start(place, **FITTED)
    assert f"teacher test_resnet: the head that {TEACHER} holds is replaced" in ended.out
    assert "below chance" not in ended.out


def test_weights_of_imagenet_without_a_file_of_its_own_are_enough(place: Workplace) -> None:
    import timm

    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet").state_dict(), place / "weights/test_resnet.imagenet.pth")
    ended = start(place, **FITTED, weights=None, init="imagenet")
    assert ended.code == 0, ended.err
    assert "teacher weights/test_resnet.imagenet.pth: " in ended.out
    assert "teacher test_resnet: head fitted on 16 samples" in ended.out


def test_a_complete_run_needs_no_fitted_head_to_resume(place: Workplace) -> None:
    assert start(place, **FITTED).code == 0
    (place.find_run("run") / HEAD).unlink()
    again = place.call(STAGE_2, "--resume", "run")
    assert again.code == 0, again.err


def test_two_fitted_teachers_have_a_head_each_and_their_average_a_row(place: Workplace) -> None:
    ended = start(place, teachers=2, **FITTED)
    assert ended.code == 0, ended.err
    assert "teacher 2 test_resnet: head fitted on" in ended.out
    run = place.find_run("run")
    assert (run / HEAD).is_file()
    assert (run / HEAD.replace("1", "2")).is_file()
    # The same teacher twice: the average is that teacher.
    assert find_row(ended, "average of 2 teachers")[1:] == find_row(ended, "teacher 1 test_resnet")[1:]
    stored = json.loads((run / "logs/preflight.json").read_text())
    assert stored["average"]["val_auc"] == stored["rows"][1]["val_auc"]


def test_training_pictures_of_one_class_are_refused_before_the_first_step(place: Workplace) -> None:
    from dataclasses import replace

    from sharpstudent.train.preflight import teacher_heads as head_fit

    collect = head_fit.load_batches

    def load_reals(*args: Any, **settings: Any) -> Any:
        for batch, replaced in collect(*args, **settings):
            yield replace(batch, targets={"label": torch.zeros_like(batch.targets["label"])}), replaced

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head_fit, "load_batches", load_reals)
        ended = start(place, **FITTED)
    assert ended.code == 2
    assert (
        "error: head of teacher test_resnet: cannot be fitted: of 2 classes the 16 training pictures show 1"
        in ended.err
    )
    assert "Epoch 1/1" not in ended.out


def test_a_dry_run_fits_nothing_and_says_what_a_run_would_fit(place: Workplace) -> None:
    ended = start(place, "x", "--dry-run", **FITTED)
    assert ended.code == 0, ended.err
    assert "dry run: the head of teacher test_resnet would be fitted on the 16 training samples" in ended.out
    assert place.list_output() == []


def stop_after_a_step(place: Workplace, monkeypatch: pytest.MonkeyPatch, **teacher: Any) -> Path:
    with monkeypatch.context() as patch:
        terminate_after(patch, 2)
        assert start(place, **teacher).code == 143
    return place.find_run("run")


@pytest.mark.parametrize(
    ("teacher", "file", "told"),
    [
        (FITTED, HEAD, "head fitted on 16 samples"),
        (CALIBRATED, "logs/preflight.json", "its logits are divided by"),
    ],
)
def test_lost_head_or_calibration_stops_a_resume_and_is_made_anew_with_permission(
    place: Workplace, monkeypatch: pytest.MonkeyPatch, teacher: dict[str, Any], file: str, told: str
) -> None:
    change_teacher(place, enlarge_head)
    run = stop_after_a_step(place, monkeypatch, **teacher)
    before = json.loads((run / "weights/last.pth.json").read_text())["about"]["position"]
    (run / file).unlink()
    refused = place.call(STAGE_2, "--resume", "run")
    assert refused.code == 2
    assert file in refused.err
    assert "--allow changed-config" in refused.err
    permitted = place.call(STAGE_2, "--resume", "run", "--allow", "changed-config")
    assert permitted.code == 0, permitted.err
    assert told in permitted.out
    assert (run / file).is_file()
    assert "before stage 2" not in permitted.out
    after = json.loads((run / "weights/last.pth.json").read_text())["about"]["position"]
    assert after["start"] == before["start"]
    assert before["start"]["auc"] > 0


def test_a_permitted_change_of_the_config_fits_and_calibrates_the_new_teacher(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_teacher(place, enlarge_head)
    run = stop_after_a_step(place, monkeypatch)
    section = {"model": "test_resnet", "weights": TEACHER, **FITTED, "calibrate": True}
    listed = ("--set", f"teachers={json.dumps([section])}", "--set", "epoch=1", *ALONE)
    refused = place.call(STAGE_2, CONFIG, "--resume", str(run), *listed)
    assert refused.code == 2
    assert "teachers.0.calibrate: false -> true" in refused.err
    ended = place.call(STAGE_2, CONFIG, "--resume", str(run), *listed, "--allow", "changed-config")
    assert ended.code == 0, ended.err
    assert "head fitted on 16 samples" in ended.out
    assert "its logits are divided by" in ended.out


# --- Calibration ----------------------------------------------------------------------------------------------------


def test_a_calibrated_teacher_keeps_its_auc_and_is_less_confident(place: Workplace) -> None:
    change_teacher(place, enlarge_head)
    plain, calibrated = start(place, "plain"), start(place, "calibrated", **CALIBRATED)
    assert calibrated.code == 0, calibrated.err
    stored = [
        json.loads((place.find_run(name) / "logs/preflight.json").read_text())["rows"][1]
        for name in ("plain", "calibrated")
    ]
    assert stored[1]["calibration"] == stored[0]["temperature"] > 3.0
    assert stored[1]["val_auc"] == stored[0]["val_auc"] < 1.0
    assert stored[1]["log_loss"] < stored[0]["log_loss"]
    assert f"its logits are divided by {stored[1]['calibration']:.4g} (calibrate)" in calibrated.out
    assert "spread" in plain.out
    assert read_end(place.find_run("plain")) != read_end(place.find_run("calibrated"))


def test_a_calibrated_teacher_of_swapped_classes_is_refused(place: Workplace) -> None:
    change_teacher(place, exchange_head)
    ended = start(place, **CALIBRATED)
    assert ended.code == 2
    assert "error: teacher test_resnet: cannot be calibrated: it is below chance" in ended.err
    assert "Traceback" not in ended.err


# --- Replays --------------------------------------------------------------------------------------------------------


def find_logits(ended: Ended, who: str) -> tuple[float, float]:
    found = re.search(rf"^{who}: outputs (\S+) \.\. (\S+)$", ended.out, re.MULTILINE)
    assert found is not None, ended.out + ended.err
    return float(found[1]), float(found[2])


def find_file(ended: Ended) -> str:
    found = re.search(r"^  to look at it: python \S+ --replay (\S+)$", ended.out, re.MULTILINE)
    assert found is not None, ended.out + ended.err
    return found[1]


@pytest.mark.parametrize("teacher", [FITTED, CALIBRATED, FITTED | CALIBRATED], ids=str)
def test_a_replay_uses_the_fitted_and_calibrated_teacher(
    place: Workplace, monkeypatch: pytest.MonkeyPatch, teacher: dict[str, Any]
) -> None:
    from sharpstudent.train.step import TrainStep

    change_teacher(place, enlarge_head)
    said: list[torch.Tensor] = []
    run_sources = TrainStep._run_sources

    def ask_and_note(self: TrainStep, part: Any) -> Any:
        target_outputs = run_sources(self, part)
        said.append(target_outputs["teacher"]["logits"])
        return target_outputs

    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "_run_sources", ask_and_note)
        ended = start(place, "run", "--set", "rho=1e30", **teacher)
    file = find_file(ended)
    again = place.call(STAGE_2, "--replay", file)
    assert again.code == 0, again.err
    assert "taken again: the same, skipped because" in again.out
    expected = float(f"{said[0].min():.4g}"), float(f"{said[0].max():.4g}")
    assert find_logits(again, "teacher") == expected
    kept = place.find_run("run") / ("logs/preflight.json" if "calibrate" in teacher else HEAD)
    kept.unlink()
    refused = place.call(STAGE_2, "--replay", file)
    assert refused.code == 2
    assert kept.name in refused.err


def test_a_replay_shows_the_averaged_weights_logits_too(place: Workplace) -> None:
    ended = start(place, "run", "--set", "rho=1e30", "--set", "ema_decay=0.9")
    again = place.call(STAGE_2, "--replay", find_file(ended))
    low, high = find_logits(again, "averaged weights")
    assert low < high
    # The step is the first: the average is the student.
    student = re.search(r"student: the output of every layer is finite; outputs (\S+) \.\. (\S+)", again.out)
    assert student is not None
    without = place.call(STAGE_2, "--replay", find_file(start(place, "other", "--set", "rho=1e30")))
    assert "averaged weights" not in without.out
