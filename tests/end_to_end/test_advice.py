"""What messages advise works: each command and option in a message of the package has its place here.

`list_advised` finds them in the source, so a new one without a line in one of these tables fails. An option is accepted
by its script in a whole command; what leads from one command to the next is pasted from the message and run.
"""

from __future__ import annotations

import ast
import functools
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from advice import list_advised
from sharpstudent.core.arguments import advise_extra, advise_make, advise_script
from sharpstudent.tasks.deepfake.sources.face import HEIF_PACKAGE
from workplace import ROOT, STAGE_1, STAGE_2, Ended, Workplace

CONFIG = "configs/tiny.json"

# Option of a training script, as messages advise it -> the words with which it is tried.
TRAINING: dict[str, str] = {
    "--allow changed-config": "--allow changed-config",
    "--allow partial-weights": "--allow partial-weights",
    "--allow shared-people": "--allow shared-people",
    "--allow unpretrained-student": "--allow unpretrained-student",
    "--allow weak-teacher": "--allow weak-teacher",
    "--dry-run": "--dry-run",
    "--set alpha_end=1": "--set use_progressive_distillation=false --set alpha_end=1",
    "--set cache_folder=FOLDER": "--set cache_folder=FOLDER",
    "--set cache_gb=200": "--set cache_gb=200",
    "--set channels_last=true": "--set channels_last=true",
    "--set compile=false": "--set compile=false",
    "--set data_root={}": "--set data_root=data/prepared",
    "--set data_source=manifest": "--set data_source=manifest",
    "--set epoch=5": "--set epoch=5",
    "--set device=auto": "--set device=auto",
    "--set device=cpu": "--set device=cpu",
    "--set ema_decay=0.999": "--set ema_decay=0.999",
    "--set gradient_checkpointing=false": "--set gradient_checkpointing=false",
    "--set gradient_checkpointing=true": "--set gradient_checkpointing=true",
    "--set halve_on_out_of_memory=false": "--set halve_on_out_of_memory=false",
    "--set halve_on_out_of_memory=true": "--set halve_on_out_of_memory=true",
    "--set image_size={}": "--set image_size=64",
    "--set keep_best=1": "--set keep_best=1",
    "--set loader_timeout={}": "--set loader_timeout=240",
    "--set keep_freed_memory=on": "--set keep_freed_memory=on",
    "--set lr=0.0001": "--set lr=0.0001",
    "--set micro_batch_size=null": "--set micro_batch_size=null",
    "--set num_workers=0": "--set num_workers=0",
    "--set num_workers={}": "--set num_workers=1",
    "--set output_root=FOLDER": "--set output_root=FOLDER",
    "--set people=files": "--set data_source=photos --set people=files",
    "--set people=folders": "--set data_source=photos --set people=folders",
    "--set precision=bf16": "--set precision=bf16",
    "--set precision=fp16": "--set precision=fp16",
    "--set precision=fp32": "--set precision=fp32",
    "--set rho=0.05": "--set rho=0.05",
    "--set sam_norm_only=false": "--set sam_norm_only=false",
    "--set sam_ranks=global": "--set sam_ranks=global",
    "--set stage{}.batch_size=null": "--set stage1.batch_size=null",
    "--set batch_per_rank=null": "--set batch_per_rank=null",
    "--set stage{}.batch_per_rank=null": "--set stage1.batch_per_rank=null",
    "--set threads=1": "--set threads=1",
    "--set sync_batch_norm=false": "--set sync_batch_norm=false",
    "--set selection_metric=auc": "--set selection_metric=auc",
    "--set selection_metric={}": "--set selection_metric=auc",
    "--set stage1.epoch=3": "--set stage1.epoch=3",
    "--set stage1.lr={}": "--set stage1.lr=0.001",
    "--set stage1.rho={}": "--set stage1.rho=0.02",
    "--set stage2.{}={}": "--set stage2.alpha_start=0.98",
    "--set stage{}.batch_size={}": "--set stage2.batch_size=3",
    "--set stage{}.lr={}": "--set stage2.lr=0.001",
    "--set student_init=random": "--set student_init=random",
    "--set use_progressive_distillation=false": "--set use_progressive_distillation=false",
    "--set {}": "--set stage2.batch_size=4",
    "--set {}=...": "--set num_workers=0",
    "--set {}=VALUE": "--set seed=1",
    "--set {}={}": "--set stage2.micro_batch_size=1",
    "--set {}={}{}": "--set stage2.batch_size=4",
    "--task": "--task deepfake",
    "--task {}": "--task sharpstudent.tasks.deepfake.task:DeepfakeTask",
    "--resume auto": "--resume auto",
}
# Option of evaluate_model.py or compare_models.py -> the words with which it is tried.
EVALUATION: dict[str, str] = {
    "--by": "--by sex,age --by-table people.csv",
    "--by COLUMN": "--by sex --by-table people.csv",
    "--by-table": "--by sex --by-table people.csv",
    "--architecture": "--architecture efficientnet-b4",
    "--classes {}": "--classes fake,real",
    "--costs": "--costs",
    "--crops": "--data SET --crops",
    "--data": "--data SET",
    "--data SET": "--data SET",
    "--data {}": "--data SET",
    "--device auto": "--device auto",
    "--faces largest": "--data SET --faces largest",
    "--image-size": "--image-size 64",
    "--image-size {}": "--image-size 64",
    "--label": "--data SET --label real",
    "--label fake": "--data SET --label fake",
    "--label real": "--data SET --label real",
    "--layout NAME": "--data SET --layout ffpp",
    "--layout {}": "--data SET --layout ffpp",
    "--out {}": "--out report",
    "--split": "--data SET --split test",
    "--split {}": "--data SET --split all",
    "--store": "--validation SET --store",
    "--validation": "--validation SET",
    "--video-rules {}": "--video-rules max",
    "--views {}": "--views flip",
    "--validation SET": "--validation SET",
    "--validation {}": "--validation SET",
}
# Option of export_model.py -> the words with which it is tried.
EXPORT: dict[str, str] = {
    "--allow {}": "--allow worse-metric not-compared",
    "--auto": "--to onnx-int8 --auto",
    "--calibration {}": "--to onnx-int8 --calibration 512",
    "--config": "--config configs/config_SBI.json",
    "--out": "--out model.onnx",
    "--out FILE": "--out model.onnx",
    "--qat-steps": "--to onnx-int8 --qat-steps 300",
    "--to": "--to onnx",
    "--to {}": "--to executorch",
    "--with-preprocessing": "--with-preprocessing",
    "python export_model.py RUN": "",
    "python {} RUN --to FORMAT [options]": "--to onnx",
}
PREPARATION: dict[str, str] = {
    "--faces all": "photos set --faces all",
    "--min-face": "photos set --min-face 20",
    "--overwrite": "photos set --overwrite",
    "--people": "photos set --people files",
    "--shards": "photos set --shards",
    "--workers": "photos set --workers 1",
    "python prepare_faces.py SOURCE DEST": "SOURCE DEST",
    "python prepare_faces.py SOURCE DEST --shards": "SOURCE s3://BUCKET/DEST --shards",
    "python prepare_faces.py {} data/prepared": "photos data/prepared",
}
# Option of predict.py -> the words with which it is tried.
PREDICTION: dict[str, str] = {
    "--fake-class": "--fake-class 1",
    "--json": "--json",
    "--out": "--out answers",
    "--reference": "--reference FOLDER",
    "--reference FOLDER": "--reference FOLDER",
}
# Option of app.py -> the words with which it is tried.
APP: dict[str, str] = {
    "--most-megabytes": "--most-megabytes 900",
    "--most-seconds": "--most-seconds 600",
    "--port": "--port 8080",
    "--port {}": "--port 8080",
}
# What is pasted and run -> the test that does so: here, or in another file.
PASTED: dict[str, str] = {
    **dict.fromkeys(
        ("--set data.word={}", "--set data.data_root=FOLDER", "--set data.features=audio", "--set data.duration=1.0",
         "--set data.sample_rate=16000", "--set data.check_chain=false", "python fetch_models.py wakeword",
         "--set data.mined={}", "--set student=tiny_conv", "--set teacher=speech_embedding",
         "--set stage2.batch_size=16",
         "python train_student_only.py configs/wakeword_teacher.json -n wakeword_teacher"),
        "tests/tasks/wakeword/test_wakeword_run.py",
    ),
    "--nproc-per-node {}": "tests/end_to_end/test_ranks.py",
    "--standalone": "tests/end_to_end/test_ranks.py",
    "--equal": "tests/end_to_end/test_ablate_command.py",
    **dict.fromkeys(
        ("--vary {}", "--vary lr=0.0001", "--vary rho=0", "--vary lr=1e-5..1e-2:log", "--trials", "--out FOLDER",
         "python {} {} -n NAME"),
        "tests/evaluation/test_sweep.py",
    ),
    **dict.fromkeys(
        ("--set data.unit={}", "--set temperature=6.0", "--window", "--unit {}", "--pose-model", "--pose-model FILE"),
        "tests/tasks/skeleton/test_skeleton_inputs.py",
    ),
    "--head": "tests/tasks/gaze/test_gaze_predict.py",
    "python compare_models.py ablate CONFIG --arms configs/gaze_weights.json": "tests/tasks/gaze/test_gaze_advice.py",
    "--list-layers": "tests/end_to_end/test_two_teachers.py",
    "--part NAME": "tests/models/test_weight_files.py",
    "--part {}": "tests/models/test_weight_files.py",
    "--replay": "tests/end_to_end/test_replay_command.py",
    "--resume": "tests/end_to_end/test_resume.py",
    "--resume RUN": "tests/end_to_end/test_resume.py",
    "--resume {}": "tests/end_to_end/test_resume.py",
    "python {} --replay {}": "tests/end_to_end/test_replay_command.py",
    "python {} --resume {} --set patience=null": "tests/end_to_end/test_selection_run.py",
    "python {} {} {} --task {}": "tests/end_to_end/test_invented_tasks.py",
    "python evaluate_model.py {}": "tests/end_to_end/test_export_model.py",
    "python compare_models.py {}": "tests/end_to_end/test_fine_tuning.py",
    "--set {}=RUN": "tests/end_to_end/test_fine_tuning.py",
}  # fmt: skip
HERE = {
    "python evaluate_model.py MODEL --validation SET --store": "test_advised_options_of_an_evaluation_are_accepted",
    "pip install {}": "test_advised_packages_are_those_of_the_extras",
    "python {} {} -n {}{}": "test_a_trained_teacher_leads_to_its_student_and_that_to_stage_2",
    "python prepare_faces.py check {}": "test_the_end_of_a_preparation_names_two_commands_that_are_accepted",
    "python train_student_only.py configs/config_SBI.json -n NAME --set data_source=manifest": (
        "test_the_end_of_a_preparation_names_two_commands_that_are_accepted"
    ),
    "python {}": "test_an_incomplete_command_names_one_that_is_accepted",
    "python {} {} -n {}": "test_a_missing_stage_1_is_run_as_its_message_says_and_then_stage_2",
    "python {} --resume {}": "test_a_run_of_the_other_stage_is_resumed_by_the_command_in_the_message",
    "python {} MODEL": "test_an_incomplete_command_names_one_that_is_accepted",
    "python {} {} {}": "test_a_run_of_the_other_stage_is_resumed_by_the_command_in_the_message",
}
# What the user has typed, or what the text only speaks of.
NO_ADVICE = {
    "--arms {}",
    "--head {}",
    "--preset",
    "python {} ablate --help",
    "python {} ablate CONFIG [options]",
    "python {} check RUN",
    "python {} sweep CONFIG --vary KEY=VALUES [options]",
    "--ray",
    "--replay {}",
    "--before",
    "--distilled",
    "--faces {}",
    "--set",
    "--shm-size",
    "--test-share",
    "--robustness",
    "--help",
    "--task MODULE",
    "python {} MODEL INPUT... [options]",
    "python {} MODEL... [options]",
}
TABLES: tuple[Any, ...] = (TRAINING, EVALUATION, EXPORT, PREPARATION, PREDICTION, APP, PASTED, HERE, NO_ADVICE)


def test_every_command_and_option_that_a_message_advises_has_a_test() -> None:
    known = {advised for table in TABLES for advised in table}
    found = list_advised()
    new = {advised: places for advised, places in found.items() if advised not in known}
    assert not new, "messages advise this without a test: " + str(new)
    assert not known - set(found), f"no message advises this any more: {sorted(known - set(found))}"


def test_the_tests_that_paste_advice_are_there() -> None:
    for advised, file in PASTED.items():
        words = advised.split()
        option = ([word for word in words if word.startswith("--")] or words[1:])[0]
        assert option in (ROOT / file).read_text(encoding="utf-8"), (advised, file)
    own = {node.name for node in ast.parse(Path(__file__).read_text()).body if isinstance(node, ast.FunctionDef)}
    assert set(HERE.values()) <= own


@pytest.mark.parametrize("script", [STAGE_1, STAGE_2])
def test_advised_options_of_training_are_accepted(tiny: Workplace, script: str) -> None:
    for words in dict.fromkeys(TRAINING.values()):
        of_stage = words.replace("stage2.", "stage1.") if script == STAGE_1 and "alpha" not in words else words
        ended = tiny.call(script, CONFIG, "-n", "x", *shlex.split(of_stage), "--print-config")
        assert ended.code == 0, of_stage + ended.err


@pytest.mark.parametrize("words", sorted(set(EVALUATION.values())))
def test_advised_options_of_an_evaluation_are_accepted(words: str) -> None:
    from sharpstudent.evaluation.command_line import EVALUATE, parse_command_line

    parse_command_line(["model.pth", *words.split()], script=EVALUATE)


@pytest.mark.parametrize("words", sorted(set(EXPORT.values())))
def test_advised_options_of_an_export_are_accepted(words: str) -> None:
    from sharpstudent.deploy.command_line import parse_export

    parse_export(["output/RUN", *words.split()])


@pytest.mark.parametrize("words", sorted(set(PREPARATION.values())))
def test_advised_options_of_a_preparation_are_accepted(words: str) -> None:
    from sharpstudent.tasks.deepfake.prepare.command_line import parse_command_line

    parse_command_line(words.split())


@pytest.mark.parametrize("words", sorted(set(PREDICTION.values())))
def test_advised_options_of_a_prediction_are_accepted(words: str) -> None:
    from sharpstudent.deploy.inputs import parse_prediction

    parse_prediction(["model.pth", "a.jpg", *words.split()])


@pytest.mark.parametrize("words", sorted(set(APP.values())))
def test_advised_options_of_the_page_are_accepted(words: str) -> None:
    from sharpstudent.deploy.inputs import parse_app

    parse_app(["model.pth", *words.split()])


# --- Pasted and run -------------------------------------------------------------------------------------------------


def paste(place: Workplace, message: str, script: str) -> Ended:
    """Run the command of that script that a message names, as the shell would read it."""
    found = re.search(rf"python ({re.escape(script)} [^;\n]*)", message)
    assert found is not None, message
    return place.call(*shlex.split(found[1]))


@pytest.fixture
def taught(tiny: Workplace) -> Workplace:
    """A tiny workplace whose teacher is trained."""
    (tiny / "configs/teacher.json").write_text((tiny / CONFIG).read_text().replace("test_efficientnet", "test_resnet"))
    assert tiny.call(STAGE_1, "configs/teacher.json", "-n", "teacher", "--set", "epoch=1").code == 0
    text = (tiny / CONFIG).read_text().replace("weights/tiny_teacher.pth", "output/teacher_*/weights/best_model.pth")
    (tiny / CONFIG).write_text(text.replace('"epoch": 2', '"epoch": 1'))
    return tiny


def test_a_missing_stage_1_is_run_as_its_message_says_and_then_stage_2(taught: Workplace) -> None:
    refused = taught.call(STAGE_2, CONFIG, "-n", "second", "--allow", "weak-teacher")
    assert refused.code == 2
    first = paste(taught, refused.err, STAGE_1)
    assert first.code == 0, first.err
    second = paste(taught, first.out, f"{STAGE_2} {CONFIG}")
    assert second.code == 0 or "weak-teacher" in second.err, second.err
    if second.code:  # one epoch makes weak teachers: this message, too, says what to add
        assert taught.call(STAGE_2, CONFIG, "-n", "run", "--allow", "weak-teacher").code == 0


def test_a_trained_teacher_leads_to_its_student_and_that_to_stage_2(tiny: Workplace) -> None:
    text = (tiny / CONFIG).read_text().replace('"epoch": 2', '"epoch": 1')
    (tiny / CONFIG).write_text(text)
    alone = re.sub(r'"(teacher|teacher_weights|pretrained_student_weights)": "[^"]*",?', "", text)
    (tiny / "configs/big.json").write_text(alone.replace("test_efficientnet", "test_resnet"))
    teacher = tiny.call(
        STAGE_1, "configs/big.json", "-n", "big", "--set", "data_root=data/labelled", "--set", "lr=0.02"
    )
    assert teacher.code == 0, teacher.err
    assert (
        f"configs/big.json names no teacher, so that there is no stage 2. This model can teach the student of {CONFIG}"
        in teacher.out
    )
    assert "lr=0.02" not in teacher.out.split("Next:")[1]  # the student's data are the same, its training is not
    student = paste(tiny, teacher.out, f"{STAGE_1} {CONFIG}")
    assert student.code == 0, student.err
    second = paste(tiny, student.out, f"{STAGE_2} {CONFIG}")
    assert second.code == 0 or "weak-teacher" in second.err, second.err
    assert f"teacher output/{tiny.find_run('big').name}/weights/best_model.pth" in second.out


def test_a_run_of_the_other_stage_is_resumed_by_the_command_in_the_message(tiny: Workplace) -> None:
    assert tiny.call(STAGE_1, CONFIG, "-n", "first", "--set", "epoch=1").code == 0
    refused = tiny.call(STAGE_2, "--resume", "output/" + tiny.find_run("first").name)
    assert refused.code == 2
    assert paste(tiny, refused.err, STAGE_1).code == 0


@pytest.mark.parametrize(
    "words", [("--resume", "auto"), (CONFIG,), (), (CONFIG, "-n", "x", "--ressume"), (CONFIG, "one", "too many")]
)
def test_an_incomplete_command_names_one_that_is_accepted(tiny: Workplace, words: tuple[str, ...]) -> None:
    refused = tiny.call(STAGE_1, *words)
    assert refused.code == 2
    found = re.search(r"python (train_student_only\.py [^;\n]*)", refused.err)
    assert found is not None, refused.err
    again = shlex.split(found[1])
    assert tiny.call(*again, *([] if "--help" in again else ["--print-config"])).code == 0


def test_the_end_of_a_preparation_names_two_commands_that_are_accepted(
    tiny: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sharpstudent.tasks.deepfake.prepare.command_line import Inspection, parse_command_line
    from sharpstudent.tasks.deepfake.prepare.progress import describe_next

    dest = tiny / "my set"
    dest.mkdir()
    text = "\n".join(describe_next(str(dest)))
    check = re.search(r"python prepare_faces\.py (check [^;\n]*)", text)
    assert check is not None
    assert isinstance(read := parse_command_line(shlex.split(check[1])), Inspection)
    assert read.manifest == dest / "manifest.arrow"
    train = re.search(rf"python ({STAGE_1} [^;\n]*)", text)
    assert train is not None
    assert tiny.call(*shlex.split(train[1]), "--print-config").code == 0


# --- Commands that `core.arguments` writes, as they work from the current folder -------------------------------------


@functools.cache
def list_calls() -> dict[str, set[Any]]:
    """The functions that the package calls by their names -> the constants with which it does, as first arguments."""
    found = defaultdict[str, set[Any]](set)
    for file in (ROOT / "lib").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                found[node.func.id] |= {arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)}
    return found


def find_calls(function: str) -> set[str]:
    """The texts with which the package calls a function."""
    return list_calls()[function]


@pytest.fixture(params=["in the repository", "elsewhere"])
def standing(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the user stands, while a script of the repository runs."""
    monkeypatch.setattr(sys, "argv", [str(ROOT / STAGE_1)])
    folder = ROOT if request.param == "in the repository" else tmp_path
    monkeypatch.chdir(folder)
    return folder


def test_advised_targets_of_make_exist(standing: Path) -> None:
    assert find_calls("advise_make") == {"demo"}
    command = shlex.split(advise_make("demo"))
    assert (command == ["make", "demo"]) == (standing == ROOT)
    done = subprocess.run(["make", "-n", *command[1:]], cwd=standing, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_advised_scripts_run_where_the_user_stands(standing: Path) -> None:
    assert find_calls("advise_script") <= {"fetch_models.py face-models"}
    _, script, group = shlex.split(advise_script("fetch_models.py face-models"))
    assert (script == "fetch_models.py") == (standing == ROOT)
    assert (standing / script).is_file()
    groups = json.loads((ROOT / "lib/sharpstudent/shipped/MANIFEST.json").read_text(encoding="utf-8"))["files"]
    assert group in {name for entry in groups for name in entry["groups"]}


def test_advised_packages_are_those_of_the_extras() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert find_calls("advise_extra") == {"video", "onnx", "heatmaps", "ray"}
    for extra in find_calls("advise_extra"):
        assert advise_extra(extra) == f"pip install {' '.join(project['optional-dependencies'][extra])}"
    assert project["optional-dependencies"]["heic"] == [HEIF_PACKAGE]
