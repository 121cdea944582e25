"""Both stages and the evaluation of a skeleton student, by the scripts, on generated motion."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_motion import CLASSES, write_motion
from workplace import STAGE_1, STAGE_2, Workplace

CONFIG = {
    "task": "skeleton",
    "data": {
        **{"data_source": "npz", "data_root": "motion.npz", "unit": "m", "skeleton": "coco17", "classes": CLASSES},
        **{"validation_subjects": ["5"], "test_subjects": ["6"], "frames": 8},
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
    assert Path(trained / "found/report.html").is_file()


def test_a_missing_teacher_checkpoint_stops_stage_2(trained: Workplace) -> None:
    ended = trained.call(STAGE_2, "mine.json", "-n", "none", "--set", "teacher_weights=nowhere.pth")
    assert ended.code == 2
    assert "nowhere.pth" in ended.err
