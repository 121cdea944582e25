"""What a new user types in the first ten minutes, right and wrong: one answer each, no traceback, no dead end.

Each row is a command and what its answer has to hold. Long runs of these commands have tests of their own.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from sharpstudent.config.cli import parse_command_line
from sharpstudent.registry import find_task
from workplace import ROOT, Ended, Workplace

TEACHER = "train_student_only.py configs/demo_teacher.json -n x"
RANDOM = f"{TEACHER} --set student_init=random"  # without it, weights are looked for on the hub
STUDENT = "main_distillation.py configs/demo.json -n x"
RIGHT = {
    f"{TEACHER} --print-config": '"name": "x"',
    f"{STUDENT} --print-config": "kd/weight by epoch",
    "main_distillation.py demo --print-config": "kd/weight by epoch",
    "main_distillation.py configs/demo.json --print-config": "kd/weight by epoch",
    f"{STUDENT} --print-config --set epoch=3 --set stage2.epoch=3": "in 3",
    f"{STUDENT} --print-config --set stage2.lr=0.01 --set seed=7": '"seed": 7',
    "train_student_only.py --help": "configs/config_SBI.json -n pretrain_mobilevit",
    "main_distillation.py -h": "--resume",
    "evaluate_model.py --help": "--data",
    "compare_models.py --help": "--before",
    "compare_models.py ablate --help": "--preset",
    "compare_models.py sweep --help": "--vary",
    "predict.py --help": "--json",
    "app.py --help": "--port",
    "export_model.py --help": "--to",
    "benchmark_models.py --help": "--repeats",
    "prepare_faces.py --help": "check",
    "make_swaps.py --help": "--per-face",
    "fetch_models.py --help": "demo",
}
WRONG = {
    "train_student_only.py": "-n pretrain_mobilevit",
    "train_student_only.py configs/demo_teacher.json": "-n",
    "main_distillation.py configs/demo.jsn -n x": "configs/demo.json",
    "main_distillation.py configs -n x": "configs",
    f"{TEACHER} --epochs 3": "write --set epoch=3",
    f"{TEACHER} --lr 0.1": "write --set stage1.lr=0.1",
    f"{TEACHER} --lr=0.1": "write --set stage1.lr=0.1",
    f"{STUDENT} --batch-size 4": "batch_size=4",
    f"{TEACHER} --set epochs=3": 'did you mean "epoch"',
    f"{TEACHER} --set epochz=3": 'did you mean "epoch"',
    f"{TEACHER} --set epoch": "key=value",
    f"{TEACHER} --set epoch=many": "epoch",
    f"{RANDOM} --set student=mobilenet9": "mobilenet9",
    f"{RANDOM} --set data_root=nowhere": "nowhere",
    f"{TEACHER} --resume output/nothing": "output/nothing",
    f"{STUDENT} --teacher weights/FFc23.tar": "--set teacher=",
    f"{STUDENT} --dry-rn": "--dry-run",
    STUDENT: "train_student_only.py configs/demo_teacher.json -n demo_teacher",
    f"{STUDENT} --set pretrained_student_weights=none.pth": "none.pth",
    "train_student_only.py configs/demo.json -n 'a b/c'": "-n",
    "evaluate_model.py": "MODEL",
    "evaluate_model.py output/nothing": "output/nothing",
    "evaluate_model.py deepfake-smal": "deepfake-small",
    "compare_models.py": "MODEL",
    "compare_models.py check nothing": "nothing",
    "compare_models.py ablate": "CONFIG",
    "predict.py": "MODEL, INPUT",
    "predict.py deepfake-small": "INPUT",
    "predict.py deepfake-small none.jpg": "none.jpg",
    "app.py nothing.pth --port 99999": "--port",
    "export_model.py output/nothing": "output/nothing",
    "export_model.py output/nothing --to tflite": "onnx",
    "prepare_faces.py": "SOURCE, DEST",
    "prepare_faces.py nowhere data/x": "nowhere",
    "prepare_faces.py chek data/x": "chek",
    "make_swaps.py": "PEOPLE, DEST",
    "make_swaps.py nowhere data/x": "nowhere",
    "fetch_models.py": "fetch_models.py demo",
    "fetch_models.py dmeo": "did you mean 'demo'?",
}


def type_in(workplace: Workplace, line: str) -> Ended:
    ended = workplace.call(*shlex.split(line))
    assert "Traceback" not in ended.err
    return ended


@pytest.mark.parametrize("line", RIGHT)
def test_what_is_right_does_what_it_says(workplace: Workplace, line: str) -> None:
    ended = type_in(workplace, line)
    assert ended.code == 0, ended.err
    assert RIGHT[line] in ended.out + ended.err


@pytest.mark.parametrize("line", WRONG)
def test_what_is_wrong_is_one_message_with_a_way_on(workplace: Workplace, line: str) -> None:
    ended = type_in(workplace, line)
    assert ended.code == 2, ended.out
    assert WRONG[line] in ended.err
    assert "remedy: " in ended.err


def test_a_changed_key_that_the_stage_sets_itself_is_said_to_have_no_effect() -> None:
    words = ["configs/demo_teacher.json", "-n", "x", "--set", "lr=0.1"]
    notes = parse_command_line(words, stage=1, find_task=find_task).notes
    assert any("--set lr has no effect" in note and "stage1.lr=0.1" in note for note in notes)
    notes = parse_command_line([*words[:-1], "stage1.lr=0.1"], stage=1, find_task=find_task).notes
    assert not any("no effect" in note for note in notes)


def test_the_scripts_of_the_table_are_those_of_the_repository() -> None:
    typed = {shlex.split(line)[0] for line in (*RIGHT, *WRONG)}
    assert {path.name for path in Path(ROOT).glob("*.py")} - {"export_for_mobile.py"} == typed
    assert len(RIGHT) + len(WRONG) >= 40
