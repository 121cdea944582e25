"""Whole runs that select by another metric, that stop early, and whose checkpoints hold their calibration."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import struct
from pathlib import Path
from typing import Any

import pytest
from workplace import STAGE_1, STAGE_2, TINY, Ended, Workplace

CONFIG = "configs/tiny.json"
STEPS_PER_EPOCH = 8


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    """Sums over several threads round differently."""
    import torch

    torch.set_num_threads(1)


def start(place: Workplace, *words: str, name: str = "first") -> Ended:
    ended = place.call(STAGE_1, CONFIG, "-n", name, *(word for key in words for word in ("--set", key)))
    assert "Traceback" not in ended.err
    return ended


def script_metric(patch: pytest.MonkeyPatch, name: str, values: list[float]) -> None:
    """The validation says these values of a metric, one a validation."""
    from sharpstudent.train import validate

    compute, left = validate.compute_metrics, list(values)
    patch.setattr(validate, "compute_metrics", lambda *args: {**compute(*args), name: left.pop(0)})


def interrupt(patch: pytest.MonkeyPatch, at_step: int) -> None:
    """This process gets a SIGINT while it takes its step `at_step` (from 1)."""
    from sharpstudent.train.step import TrainStep

    take, taken = TrainStep.__call__, []

    def take_and_signal(self: TrainStep, *args: object) -> object:
        taken.append(1)
        if len(taken) == at_step:
            os.kill(os.getpid(), signal.SIGINT)
        return take(self, *args)

    patch.setattr(TrainStep, "__call__", take_and_signal)


def read_rows(run: Path) -> list[dict[str, Any]]:
    with open(run / "logs/metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def read_about(run: Path, name: str = "best_model.pth") -> dict[str, Any]:
    return json.loads((run / "weights" / f"{name}.json").read_text())["about"]


def read_metadata(run: Path) -> dict[str, str]:
    content = (run / "weights/best_model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length])["__metadata__"]


def read_run(run: Path) -> dict[str, bytes]:
    """What must not depend on whether a run was interrupted."""
    files = [*run.glob("weights/*.pth"), *run.glob("weights/*.safetensors"), run / "logs/metrics.csv"]
    return {path.name: path.read_bytes() for path in files if path.name != "last_previous.pth"}


# --- The metric of choice -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("word", "averaged"), [("eer", True), ("ap", False)])
def test_epochs_are_ranked_by_the_selection_metric(tiny: Workplace, word: str, averaged: bool) -> None:
    more = ["ema_decay=0.5"] if averaged else []
    ended = start(tiny, f"selection_metric={word}", "epoch=3", "keep_best=2", "stage1.lr=0.05", *more)
    assert ended.code == 0, ended.err
    run, metric, sign = tiny.find_run("first"), f"val_{word}", 1.0 if word == "eer" else -1.0
    values = [float(row[f"{metric}_ema" if row.get("selected") == "ema" else metric]) for row in read_rows(run)]
    for row in read_rows(run) if averaged else []:
        is_average = sign * float(row[f"{metric}_ema"]) < sign * float(row[metric])
        assert row["selected"] == ("ema" if is_average else "student")
    ranked = sorted(range(1, 4), key=lambda epoch: (sign * values[epoch - 1], epoch))
    assert {path.name for path in run.glob("weights/*_val.pth")} == {
        f"{epoch}_{values[epoch - 1]:.4f}_val.pth" for epoch in ranked[:2]
    }
    assert read_about(run)["epoch"] == ranked[0]
    metadata = read_metadata(run)
    assert (metadata["metric"], int(metadata["epoch"])) == (metric, ranked[0])
    assert float(metadata["value"]) == values[ranked[0] - 1]
    assert f"best {metric} {values[ranked[0] - 1]:.4f} in epoch {ranked[0]}" in ended.out
    assert re.search(rf"Stage 1 is done: best {metric} [\d.]+ \(validation AUC [\d.]+\)", ended.out)
    assert f"best {metric} " in (run / "logs/losses.logs").read_text()


def test_stills_have_no_figure_of_videos_and_a_metric_of_videos_is_refused_before_the_first_step(
    tiny: Workplace,
) -> None:
    refused = start(tiny, "selection_metric=video_auc", "epoch=1")
    assert refused.code == 2
    assert "needs videos, and the validation data has none" in refused.err
    assert "begin the run with --set selection_metric=auc" in refused.err
    assert start(tiny, "selection_metric=auc", "epoch=1").code == 0
    run = tiny.find_run("first")
    assert not any("val_video" in (run / "logs" / name).read_text() for name in ("metrics.csv", "losses.logs"))
    assert "val_video_auc" not in read_about(run)
    rows = read_rows(run)
    with open(run / "logs/metrics.csv", "w", newline="") as file:  # as a version of before left it
        writer = csv.DictWriter(file, [*rows[0], "val_video_auc"], restval="0.75")
        writer.writeheader()
        writer.writerows(rows)
    resumed = tiny.call(
        STAGE_1, CONFIG, "--resume", run.name, "--set", "epoch=2", "--set", "report=true", "--allow", "changed-config"
    )
    assert resumed.code == 0, resumed.err
    assert [row["val_video_auc"] for row in read_rows(run)] == ["0.75", ""]
    assert not any("val_video" in (run / name).read_text() for name in ("results.json", "report.html", "model_card.md"))


def test_a_falling_metric_selects_where_a_rising_one_would_not(
    tiny: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_metric(monkeypatch, "val_eer", [0.4, 0.1, 0.3, 0.1])
    assert start(tiny, "selection_metric=eer", "epoch=4", "keep_best=2").code == 0
    run = tiny.find_run("first")
    assert {path.name for path in run.glob("weights/*_val.pth")} == {"2_0.1000_val.pth", "4_0.1000_val.pth"}
    assert read_about(run)["epoch"] == 2


def test_stage_2_reports_the_selection_metric_at_its_start_and_its_gain_in_auc(tiny: Workplace) -> None:
    import torch
    from sharpstudent.models.vision import build_classifier

    (tiny / "weights").mkdir()
    torch.save(build_classifier("test_resnet", classes=2, dropout=None).state_dict(), tiny / "weights/tiny_teacher.pth")
    assert start(tiny, "epoch=1").code == 0
    before = read_about(tiny.find_run("first"))
    ended = tiny.call(STAGE_2, CONFIG, "-n", "second", "--set", "selection_metric=eer", "--set", "epoch=2")
    assert ended.code == 0, ended.err
    assert f"before stage 2: val_eer {before['val_eer']:.4f}" in ended.out
    after = read_about(tiny.find_run("second"))
    gain = after["val_auc"] - before["val_auc"]
    assert f"AUC against stage 1 ({before['val_auc']:.4f}): {gain:+.4f}" in ended.out
    assert re.search(rf"Stage 2 is done: best val_eer {after['val_eer']:.4f} \(validation AUC ", ended.out)
    again = tiny.call(STAGE_2, "--resume", "second")
    assert f"AUC against stage 1 ({before['val_auc']:.4f}): {gain:+.4f}" in again.out


def test_no_permission_resumes_with_another_metric(tiny: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, STEPS_PER_EPOCH + 2)
        assert start(tiny).code == 130
    run = tiny.find_run("first")
    before = {**read_run(run), "config": (run / "config.json").read_bytes()}
    words = (STAGE_1, CONFIG, "--resume", "first", "--set", "selection_metric=eer")
    plain = tiny.call(*words)
    assert plain.code == 2
    assert "training.selection_metric: " in plain.err
    refused = tiny.call(*words, "--allow", "changed-config")
    assert refused.code == 2
    assert "checkpoints of another metric cannot be ranked with this run's" in refused.err
    assert {**read_run(run), "config": (run / "config.json").read_bytes()} == before


def test_a_run_begun_by_an_earlier_version_resumes_with_the_same_result(
    tiny: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its state knows no direction, its config no metric, its table fewer columns."""
    from sharpstudent.checkpoint.store import load_checkpoint, save_checkpoint

    assert start(tiny, "epoch=3", name="whole").code == 0
    with monkeypatch.context() as patch:
        interrupt(patch, STEPS_PER_EPOCH + 2)
        assert start(tiny, "epoch=3", name="parts").code == 130
    run, whole = tiny.find_run("parts"), tiny.find_run("whole")
    state = load_checkpoint(run / "weights/last.pth")
    del state.about["selection"]["direction"]
    save_checkpoint(run / "weights/last.pth", state.tensors, about=state.about)
    config = json.loads((run / "config.json").read_text())
    for key in ("selection_metric", "patience"):
        del config["training"][key]
    (run / "config.json").write_text(json.dumps(config))
    rows, new = read_rows(run), ("val_ap", "val_eer")
    with open(run / "logs/metrics.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, [name for name in rows[0] if name not in new], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    resumed = tiny.call(STAGE_1, CONFIG, "--resume", run.name, "--set", "epoch=3")
    assert resumed.code == 0, resumed.err
    ours, theirs = (load_checkpoint(folder / "weights/last.pth").tensors for folder in (run, whole))
    assert all(value.equal(theirs["model"][name]) for name, value in ours["model"].items())
    for row, wanted in zip(read_rows(run), read_rows(whole), strict=True):
        is_before = row["epoch"] == "1"
        assert all(row[name] == ("" if is_before and name in new else value) for name, value in wanted.items())


# --- Early stopping -------------------------------------------------------------------------------------------------

VALUES = [0.5, 0.3, 0.4, 0.3, 0.35, 0.2]  # patience 3: the best is epoch 2, and 5 is the last
EARLY = ("selection_metric=eer", "patience=3", "epoch=6")
REASON = "stopped early after epoch 5 of 6: no new best eer in 3 epochs (patience 3)"


def test_an_early_stop_exits_with_0_and_says_why_and_how_to_continue(
    tiny: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        script_metric(patch, "val_eer", VALUES)
        ended = start(tiny, *EARLY)
    run = tiny.find_run("first")
    assert ended.code == 0, ended.err
    command = f"python {STAGE_1} --resume output/{run.name} --set patience=null"
    assert f"{REASON}; to train the epochs that are left all the same: {command}" in ended.out
    assert "Stage 1 is done: best val_eer 0.3000" in ended.out
    assert "5 epochs in " in ended.out
    assert len(read_rows(run)) == 5
    assert read_about(run)["epoch"] == 2
    assert (run / "logs/curves.png").is_file()
    before = read_run(run)
    again = tiny.call(STAGE_1, "--resume", "first")
    assert again.code == 0
    assert f"nothing left to do: {REASON}; best val_eer 0.3000 in epoch 2" in again.out
    assert command in again.out
    assert read_run(run) == before
    assert (run / "logs/losses.logs").read_text().count(REASON) == 1


def test_a_run_resumed_without_patience_ends_like_one_that_never_had_it(
    tiny: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        script_metric(patch, "val_eer", VALUES)
        assert start(tiny, *EARLY).code == 0
        assert tiny.call(STAGE_1, "--resume", "first", "--set", "patience=null").code == 0
    stopped = tiny.find_run("first").rename(tiny / "stopped")
    with monkeypatch.context() as patch:
        script_metric(patch, "val_eer", VALUES)
        assert start(tiny, *EARLY[::2]).code == 0
    assert read_run(stopped) == read_run(tiny.find_run("first"))
    assert read_about(stopped)["epoch"] == 6


@pytest.fixture(scope="module")
def stopped_run(tmp_path_factory: pytest.TempPathFactory, labelled_root: Path) -> Path:
    """A run that stopped early and was never interrupted; read only."""
    place = Workplace(tmp_path_factory.mktemp("stopped"))
    (place / "data").mkdir()
    (place / "data/labelled").symlink_to(labelled_root)
    (place / CONFIG).write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        script_metric(patch, "val_eer", VALUES)
        assert start(place, *EARLY).code == 0
    return place.find_run("first")


@pytest.mark.parametrize("at_step", [3, 3 * STEPS_PER_EPOCH, 4 * STEPS_PER_EPOCH + 5])
def test_a_run_interrupted_before_its_early_stop_ends_like_an_uninterrupted_one(
    tiny: Workplace, monkeypatch: pytest.MonkeyPatch, at_step: int, stopped_run: Path
) -> None:
    with monkeypatch.context() as patch:
        script_metric(patch, "val_eer", VALUES)
        with patch.context() as inner:
            interrupt(inner, at_step)
            assert start(tiny, *EARLY).code == 130
        resumed = tiny.call(STAGE_1, "--resume", "first")
    assert resumed.code == 0, resumed.err
    assert REASON in resumed.out
    assert read_run(tiny.find_run("first")) == read_run(stopped_run)


def test_a_run_killed_right_after_its_last_epoch_still_stops_early(
    tiny: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state is saved, and the process dies before it says anything."""
    from sharpstudent.train import trainer

    with monkeypatch.context() as patch:
        script_metric(patch, "val_eer", VALUES)
        patch.setattr(trainer, "explain_early_stop", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert start(tiny, *EARLY).code == 130
    assert f"nothing left to do: {REASON}" in tiny.call(STAGE_1, "--resume", "first").out
    assert len(read_rows(tiny.find_run("first"))) == 5


def test_a_nan_in_validation_stops_the_run_whatever_the_selection_metric(
    tiny: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sharpstudent.train import validate

    compute, calls = validate.compute_tables, []

    def spoil_the_second(*args: Any, **settings: Any) -> Any:
        (table,), replaced = compute(*args, **settings)
        calls.append(1)
        if len(calls) == 2:
            table["logits"][3] = float("nan")
        return (table,), replaced

    with monkeypatch.context() as patch:
        patch.setattr(validate, "compute_tables", spoil_the_second)
        ended = start(tiny, "selection_metric=eer", "epoch=3", "patience=1")
    assert ended.code == 3
    assert re.search(
        r"epoch 2: 1 of 8 samples with logits that are not finite: (real|fake)/\S+\.png \(nan\)", ended.err
    )
    assert read_about(tiny.find_run("first"))["epoch"] == 1
    assert tiny.call(STAGE_1, "--resume", "first").code == 0


# --- Calibration and operating points -------------------------------------------------------------------------------


@pytest.mark.parametrize("averaged", [False, True])
def test_every_saved_epoch_holds_the_calibration_of_its_own_model(tiny: Workplace, averaged: bool) -> None:
    import torch
    from sharpstudent.checkpoint.store import load_checkpoint
    from sharpstudent.config.stored import load_run_config
    from sharpstudent.evaluation.tables import compute_tables
    from sharpstudent.models.vision import build_classifier
    from sharpstudent.registry import build_task, find_task
    from sharpstudent.tasks.deepfake.evaluation.calibration import calibrate_on_validation
    from sharpstudent.tasks.deepfake.evaluation.frames import build_frames
    from sharpstudent.tasks.deepfake.report.results import CalibrationResult
    from sharpstudent.train.build import choose_memory_format, move_model, open_training_data
    from sharpstudent.train.validate import EVALUATION_SAMPLES

    more = ["ema_decay=0.5"] if averaged else []
    ended = start(tiny, "epoch=3", "stage1.lr=0.05", *more)
    assert ended.code == 0, ended.err
    run = tiny.find_run("first")
    files = sorted(run.glob("weights/*_val.pth"))
    assert len(files) == 3
    config, before = load_run_config(run, find_task), os.getcwd()
    try:
        os.chdir(tiny.folder)
        task = build_task(config)
        validation = open_training_data(task).validation
        for file in files:
            saved = load_checkpoint(file)
            model = build_classifier("test_efficientnet", classes=2, dropout=config.student.dropout)
            model.load_state_dict(saved.tensors["model"])
            move_model(model, torch.device("cpu"), choose_memory_format(config.compute))  # or the last bits differ
            (table,), _ = compute_tables(
                [model],
                validation,
                task,
                batch_size=EVALUATION_SAMPLES,
                num_workers=0,
                device=torch.device("cpu"),
            )
            wanted = calibrate_on_validation(build_frames(table, source="labelled"))
            assert CalibrationResult.model_validate(saved.about["calibration"]) == wanted
            assert read_about(run, file.name) == saved.about
            assert len(json.dumps(saved.about)) < 4000
    finally:
        os.chdir(before)
    assert json.loads(read_metadata(run)["calibration"]) == read_about(run)["calibration"]
    assert read_about(run)["calibration"]["fitted_on"].startswith("validation of this run: 8 frames of 4 people")
