"""The commands of the document on distillation run as printed, from compat/skeleton."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from made_motion import CLASSES, write_motion
from sharpstudent.config.cli import parse_command_line
from sharpstudent.registry import find_task
from workplace import ENVIRONMENT, ROOT

HERE = ROOT / "compat/skeleton"
PRINTED = ("python", "scripts/train_distill.py", "--config", "configs/distillation/default.yaml")
sys.path.append(str(HERE / "src"))


def run(*words: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *PRINTED[1:], *words]
    return subprocess.run(
        command, cwd=HERE, env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout, check=False
    )


@pytest.mark.parametrize(("size", "alpha"), [("nano", 0.7), ("small", 0.6), ("base", 0.5), ("large", 0.5)])
def test_each_student_has_the_documents_alpha_and_temperature_4(size: str, alpha: float, tmp_path: Path) -> None:
    from training.distill_trainer import read_settings, read_student

    settings = read_settings(HERE / "configs/distillation/default.yaml", [f"teacher_checkpoint={tmp_path}/t.pth"])
    keys = {**settings.build_keys(read_student(size)), "pretrained_student_weights": str(tmp_path / "s.pth")}
    (tmp_path / "one.json").write_text(json.dumps(keys))
    config = parse_command_line([str(tmp_path / "one.json"), "-n", "x"], stage=2, find_task=find_task).config
    weights = {term.name: term.weight.constant for term in config.criterion}
    assert weights == {"hard": pytest.approx(alpha), "kd": pytest.approx(1.0 - alpha)}
    assert [term.numbers["temperature"].constant for term in config.criterion if term.name == "kd"] == [4.0]
    assert config.teachers[0].name == "last_v2_base"
    assert len(config.task_section.classes) == 60


def test_the_three_keys_of_the_document_are_in_the_file() -> None:
    found = yaml.safe_load((HERE / "configs/distillation/default.yaml").read_text())
    assert {"alpha", "tau", "teacher_checkpoint"} <= found.keys()


def test_a_missing_teacher_ends_the_printed_command_before_anything_is_trained(tmp_path: Path) -> None:
    ended = run("--out", str(tmp_path))
    assert ended.returncode == 2
    assert "teacher_checkpoint" in ended.stderr
    assert "train it first" in ended.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_the_training_sequence_ends_in_the_table_and_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    write_motion(tmp_path / "motion.npz")
    data = {"data_source": "npz", "data_root": str(tmp_path / "motion.npz"), "unit": "m", "skeleton": "coco17"}
    data |= {"validation_subjects": ["5"], "test_subjects": ["6"], "frames": 8, "classes": list(CLASSES)}
    settings = yaml.safe_load((HERE / "configs/distillation/default.yaml").read_text())
    settings["keys"] |= {"data": data, "epoch": 1, "lr": 0.05, "num_workers": 0, "device": "cpu"}
    settings["teacher"] = "configs/model/last_e_small.yaml"
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(settings))
    words = (
        "--config",
        str(tmp_path / "mine.yaml"),
        "--sequence",
        "--students",
        "nano",
        "--out",
        str(tmp_path / "out"),
    )
    ended = run(*words, timeout=900)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    table = (tmp_path / "out/07_Experiments.md").read_text()
    assert "| LAST-E-nano | " in table
    assert "85-87" in table
    again = run(*words, timeout=900)
    assert "distilled_nano: is there already" in again.stdout
    assert (tmp_path / "out/07_Experiments.md").read_text() == table
