"""Both stages and the evaluation of a skeleton student, by the scripts, on generated motion."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from made_motion import CLASSES, write_motion, write_ntu, write_skeleton_file
from sharpstudent.tasks.skeleton.section import MOVEMENTS
from workplace import ROOT, STAGE_1, STAGE_2, Workplace

CONFIG = {
    "task": "skeleton",
    "data": {
        **{"data_source": "npz", "data_root": "motion.npz", "unit": "m", "skeleton": "coco17", "classes": CLASSES},
        **{"validation_subjects": ["5"], "test_subjects": ["6"], "frames": 8, "rate": 10},
    },
    **{"student": "last_e_nano", "teacher": "last_e_small", "epoch": 1, "batch_size": 16, "lr": 0.02},
    "teacher_weights": "output/teacher_*/weights/best_model.pth",
    "pretrained_student_weights": "output/first_*/weights/best_model.pth",
    **{"use_progressive_distillation": False, "alpha_end": 0.7, "temperature": 4.0},
    **{"num_workers": 0, "device": "cpu", "report": False, "stage2": {"batch_size": 16}},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    place = Workplace(tmp_path_factory.mktemp("skeleton"))
    write_motion(place / "motion.npz")
    (place / "mine.json").write_text(json.dumps(CONFIG))
    for words in (
        (STAGE_1, "mine.json", "-n", "teacher", "--set", "student=last_e_small"),
        (STAGE_1, "mine.json", "-n", "first"),
        (STAGE_2, "mine.json", "-n", "distilled", "--allow", "weak-teacher"),
    ):
        ended = place.call(*words)
        assert ended.code == 0, ended.out + ended.err
    return place


def test_models_are_evaluated_on_held_out_people_by_class_and_person(trained: Workplace) -> None:
    run = trained.find_run("distilled")
    words = ("--data", "test", "--by", "subject,action", "--out", "found", "--workers", "0")
    ended = trained.call("evaluate_model.py", str(run), *words)
    assert ended.code == 0, ended.out + ended.err
    found = json.loads((trained / "found/results.json").read_text())
    assert {"accuracy", "top5", "log_loss"} <= found["models"][0]["metrics"].keys()
    assert found["models"][0]["metrics"]["top5"]["value"] == 1.0  # of four classes
    assert found["metrics"]["accuracy"]["chance"] == 0.25
    assert found["tiles"][0]["chance"] == 0.25
    assert Path(trained / "found/report.html").is_file()


def test_a_missing_teacher_checkpoint_stops_stage_2(trained: Workplace) -> None:
    ended = trained.call(STAGE_2, "mine.json", "-n", "none", "--set", "teacher_weights=nowhere.pth")
    assert ended.code == 2
    assert "nowhere.pth" in ended.err
    assert f"or train a teacher with {STAGE_1}" in ended.err
    assert "EfficientNet" not in ended.err


def test_the_report_has_what_is_taken_for_what_and_moving_bodies_of_mistakes(trained: Workplace) -> None:
    words = ("--data", "test", "--out", "page", "--workers", "0")
    ended = trained.call("evaluate_model.py", str(trained.find_run("first")), *words)
    assert ended.code == 0, ended.out + ended.err
    page = (trained / "page/report.html").read_text()
    assert "What is taken for what" in page
    wrong = json.loads((trained / "page/results.json").read_text())["models"][0]["metrics"]["accuracy"]["value"] < 1.0
    assert ("<animate " in page and "taken for <strong>" in page) == wrong
    assert set(re.findall(r'dur="([0-9.]+)s"', page)) <= {f"{frames / 10:.2f}" for frames in range(12, 20)}
    assert "<script" not in page


def test_a_skeleton_file_is_judged_window_by_window(trained: Workplace) -> None:
    run, path = str(trained.find_run("distilled")), str(write_skeleton_file(trained.folder))
    ended = trained.call("predict.py", run, path, "--window", "3", "--json", "--workers", "1")
    assert ended.code == 0, ended.out + ended.err
    found = json.loads(ended.out.splitlines()[0])
    assert found["details"]["actions"][0]["action"] in CLASSES
    assert found["details"]["windows"] >= 1


@pytest.mark.slow
def test_an_export_answers_as_its_run(trained: Workplace) -> None:
    run, path = str(trained.find_run("distilled")), str(write_skeleton_file(trained.folder))
    ended = trained.call("export_model.py", run, "--out", "model.onnx")
    assert ended.code == 0, ended.out + ended.err
    answers = [trained.call("predict.py", model, path, "--json", "--workers", "1") for model in (run, "model.onnx")]
    scores = [json.loads(one.out.splitlines()[0])["score"] for one in answers]
    assert scores[1] == pytest.approx(scores[0], abs=1e-4)


@pytest.mark.slow
def test_one_epoch_is_distilled_from_last_v2_base_with_two_bodies(trained: Workplace) -> None:
    folder = trained / "ntu"
    folder.mkdir()
    write_ntu(folder)
    data = {"data_source": "ntu", "data_root": "ntu", "unit": "m", "skeleton": "coco17", "classes": CLASSES}
    config = {**CONFIG, "data": {**data, "frames": 8, "bodies": 2}, "teacher": "last_v2_base"}
    config["teacher_weights"] = "output/wide_*/weights/best_model.pth"
    (trained / "wide.json").write_text(json.dumps(config))
    for words in (
        (STAGE_1, "wide.json", "-n", "wide", "--set", "student=last_v2_base", "--set", "rho=0"),
        (STAGE_2, "wide.json", "-n", "from_wide", "--allow", "weak-teacher"),
    ):
        ended = trained.call(*words)
        assert ended.code == 0, ended.out + ended.err
    assert (trained.find_run("from_wide") / "weights/best_model.pth").is_file()


def test_an_answer_about_a_folder_names_files_that_cannot_be_read(trained: Workplace) -> None:
    folder = trained / "motions"
    folder.mkdir()
    write_skeleton_file(folder)
    (folder / "broken.skeleton").write_text("3\n1\n")
    ended = trained.call(
        "predict.py", str(trained.find_run("first")), str(folder), "--out", "answers", "--workers", "1"
    )
    assert ended.code == 0, ended.out + ended.err
    assert "broken.skeleton" in ended.out + ended.err
    assert "ends too early" in (trained / "answers/predictions.json").read_text()


def test_the_model_that_comes_with_the_package_names_movements_of_people_whom_it_has_not_seen(
    tmp_path: Path,
) -> None:
    place = Workplace(tmp_path)
    arrays = np.load(ROOT / "demo/skeleton/ui_prmd_kinect.npz", allow_pickle=False)
    rows = list(csv.DictReader((ROOT / "demo/skeleton/index.csv").read_text().splitlines()))
    numbers = [number for number, row in enumerate(rows) if row["subject"] == "9" and row["repetition"] == "1"][:10]
    folder = place / "people"
    folder.mkdir()
    for number in numbers:
        start, end = arrays["offsets"][number : number + 2]
        np.save(folder / f"m{int(rows[number]['movement']):02}.npy", arrays["xyz_mm"][start:end])
    ended = place.call("predict.py", "skeleton-nano", str(folder), "--unit", "mm", "--out", "found", "--workers", "1")
    assert ended.code == 0, ended.err
    found = json.loads((place / "found/predictions.json").read_text())["predictions"]
    movements = [one["details"]["actions"][0]["action"].partition(",")[0] for one in found]
    assert sum(name == MOVEMENTS[number] for number, name in enumerate(movements)) >= 8  # of ten
