"""Three tasks that the library does not know, each in a folder of its own, go through the scripts of every task: both
stages with SAM and a teacher, interrupted and resumed, and they learn.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sharpstudent.checkpoint.store import load_checkpoint
from sharpstudent.models.forward import run_model
from test_resume import assert_same_run, make_signal, read_train_state
from workplace import ROOT, STAGE_1, STAGE_2, Ended, Workplace, wait_for

INVENTED = ROOT / "tests" / "invented"


pytestmark = pytest.mark.usefixtures("clean_imports")


@dataclass(frozen=True)
class Invented:
    """One task. teacher: the architecture that teaches; alone: stage 2 without its teacher's term; least: how much
    better than chance the student has to be on the split `test`, with the whole interval; output: its name.
    """

    name: str
    reference: str
    teacher: str
    alone: str
    least: float
    output: str = "logits"


QUIET = ("--set", "report=false")  # test_invented_evaluation.py looks at the reports that such runs end with
ALONE = '[{"term": "hard", "weight": 0.5}]'
TASKS = (
    Invented("digits", "digits:DigitsTask", "wide", ALONE, least=0.4),
    Invented("signals", "signals:SignalsTask", "raw", ALONE, least=0.3),
    Invented(
        "pointing",
        "pointing:PointingTask",
        "wide",
        '[{"term": "heatmap", "weight": 2}, {"term": "binary", "weight": 0.3, "on": "inside", "target": "inside"}]',
        least=2.0,
        output="heatmap",
    ),
)


@dataclass(frozen=True)
class Trained:
    """A user's folder in which all runs of a task have ended."""

    task: Invented
    place: Workplace

    def run(self, name: str) -> Path:
        return self.place.find_run(name)


def make_place(folder: Path, task: Invented) -> Workplace:
    """A user's folder that holds the task's module and config, and nothing else of it."""
    folder.mkdir()
    place = Workplace(folder)
    for ending in ("py", "json"):
        (place / f"{task.name}.{ending}").symlink_to(INVENTED / f"{task.name}.{ending}")
    return place


def call(place: Workplace, *words: str) -> Ended:
    ended = place.call(*words)
    assert ended.code == 0, ended.err
    return ended


@pytest.fixture(scope="module", params=TASKS, ids=lambda task: task.name)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A teacher, a student of stage 1, and that student after stage 2 with its teacher and without."""
    task: Invented = request.param
    place, config = make_place(tmp_path_factory.mktemp(task.name) / "place", task), f"{task.name}.json"
    call(place, STAGE_1, config, "-n", "teacher", *QUIET, "--set", f"student={task.teacher}")
    call(place, STAGE_1, config, "-n", "first", *QUIET)
    call(place, STAGE_2, config, "-n", "second", *QUIET)
    call(place, STAGE_2, config, "-n", "alone", *QUIET, "--set", f"stage2.terms={task.alone}")
    return Trained(task, place)


def open_task(task: Invented, about: dict[str, Any] | None = None) -> Any:
    from sharpstudent.registry import find_task

    found = find_task(task.reference, beside=[INVENTED], trusted=True)
    return found(facts=None if about is None else about["facts"])


def load_best(trained: Trained, run: str) -> torch.nn.Module:
    """The best model of a run, built from what its checkpoint says."""
    from sharpstudent.core.types import ModelSpec

    saved = load_checkpoint(trained.run(run) / "weights/best_model.pth")
    task = open_task(trained.task, saved.about)
    model = task.build_student(ModelSpec(saved.about["architecture"], saved.about.get("options", {})))
    model.load_state_dict(saved.tensors["model"])
    return model.eval()


def evaluate(trained: Trained, run: str) -> Any:
    """The table of a run's best model on the split `test`."""
    from sharpstudent.evaluation.tables import compute_tables

    task = open_task(trained.task)
    (test,) = task.open_data("test")
    model, cpu = load_best(trained, run), torch.device("cpu")
    (table,), unreadable = compute_tables([model], test, task, batch_size=32, num_workers=0, device=cpu)
    assert unreadable == ()
    return table


def compute_output(trained: Trained, run: str) -> torch.Tensor:
    """The output that is taught, of a run's best model on the first samples of the split `test`."""
    task = open_task(trained.task)
    (test,) = task.open_data("test")
    samples = [test.make(index, np.random.default_rng(index)) for index in range(64)]
    batch = task.collate(samples, [test.group(index) for index in range(64)])
    with torch.no_grad():
        return run_model(load_best(trained, run), batch.inputs)[trained.task.output]


def read_metrics(run: Path) -> list[dict[str, str]]:
    header, *lines = (run / "logs/metrics.csv").read_text().splitlines()
    return [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]


def test_both_stages_take_sharpness_aware_steps_and_the_second_one_has_a_teacher(trained: Trained) -> None:
    for name in ("first", "second"):
        config = json.loads((trained.run(name) / "config.json").read_text())
        assert config["optimizer"]["rho"] > 0.0
        rows = read_metrics(trained.run(name))
        assert len(rows) == config["training"]["epochs"]
        assert all(float(row["train_perturbed_loss"]) != float(row["train_loss"]) for row in rows)
        assert all(row["skipped"] == "0" for row in rows)
        assert ("train_kd" in rows[0]) == (name == "second")


def test_the_student_beats_chance_by_a_margin_on_samples_it_was_not_trained_on(trained: Trained) -> None:
    from sharpstudent.metrics.bootstrap import compute_interval

    task = open_task(trained.task)
    metric = task.metrics[task.default_metric]
    assert metric.chance is not None
    for name in ("first", "second"):
        found = compute_interval(metric, evaluate(trained, name), group_unit=task.group_unit)
        assert found.low is not None, found.note
        assert found.high is not None
        print(f"{trained.task.name}, {name}: {found.value:.3f} ({found.low:.3f} to {found.high:.3f})")
        if name == "second" and metric.direction == "higher":
            assert found.low > metric.chance + trained.task.least
        elif name == "second":
            assert found.high < metric.chance - trained.task.least


def test_the_teacher_changes_the_student_and_draws_it_nearer(trained: Trained) -> None:
    taught, alone = load_best(trained, "second").state_dict(), load_best(trained, "alone").state_dict()
    assert any(not torch.equal(taught[name], alone[name]) for name in taught)
    outputs = {run: compute_output(trained, run) for run in ("teacher", "second", "alone")}
    moved = (outputs["second"] - outputs["alone"]).std() / outputs["alone"].std()
    distance = {run: compare(outputs[run], outputs["teacher"]) for run in ("second", "alone")}
    print(f"{trained.task.name}: moved {moved:.3f}, distance to the teacher {distance}")
    assert moved > 0.02
    assert distance["second"] < distance["alone"]


def compare(student: torch.Tensor, teacher: torch.Tensor) -> float:
    """The mean divergence of the softened outputs of a row, as the term `kd` has it."""
    ours, theirs = ((output.flatten(1) / 2.0).log_softmax(1) for output in (student, teacher))
    return float((theirs.exp() * (theirs - ours)).sum(1).mean())


def test_checkpoints_are_chosen_by_the_tasks_own_metric(trained: Trained) -> None:
    task = open_task(trained.task)
    column = f"val_{task.default_metric}"
    values = [float(row[column]) for row in read_metrics(trained.run("second"))]
    choose = max if task.metrics[task.default_metric].direction == "higher" else min
    about = json.loads((trained.run("second") / "weights/best_model.pth.json").read_text())["about"]
    assert about["selection_metric"] == column
    assert about[column] == pytest.approx(choose(values), abs=1e-6)
    assert about["task"] == trained.task.reference


def test_stage_2_terminated_and_resumed_ends_bit_for_bit_like_an_uninterrupted_run(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, place = trained.task, make_place(tmp_path / "place", trained.task)
    for name in ("teacher", "first"):
        shutil.copytree(trained.run(name), place / "output" / trained.run(name).name)
    with monkeypatch.context() as patch:
        make_signal(patch, signal.SIGTERM, at_step=13)
        assert place.call(STAGE_2, f"{task.name}.json", "-n", "second", *QUIET).code == 143
    run = place.find_run("second")
    assert read_train_state(run) in [(1, 13), (2, 3)]  # of ten steps an epoch, or more
    call(place, STAGE_2, "--resume", "second", "--task", task.reference)
    assert_same_run(run, trained.run("second"))


def test_a_run_of_an_unregistered_task_is_resumed_only_with_its_class_named(trained: Trained) -> None:
    task, place = trained.task, trained.place
    refused = place.call(STAGE_1, "--resume", "first")
    assert refused.code == 2
    assert f"python {STAGE_1} --resume first --task {task.reference}" in refused.err
    run = place.find_run("first")
    done = call(place, STAGE_1, "--resume", run.name, "--task", task.reference)
    assert "nothing left to do" in done.out
    assert "nothing left to do" in call(place, STAGE_1, f"{task.name}.json", "--resume", run.name).out


def test_a_killed_run_resumes_from_its_last_save_in_another_process(tmp_path: Path) -> None:
    task = TASKS[0]
    quiet = make_place(tmp_path / "quiet", task)
    often = (*QUIET, "--set", "save_every_steps=4", "--set", "epoch=2", "--set", "data.share=0.5")
    call(quiet, STAGE_1, f"{task.name}.json", "-n", "first", *often)
    place = make_place(tmp_path / "place", task)
    process = place.start(STAGE_1, f"{task.name}.json", "-n", "first", *often)
    wait_for(lambda: is_past(place, (1, 8)), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert read_train_state(place.find_run("first"))[0] < 3
    call(place, STAGE_1, "--resume", "first", "--task", task.reference)
    assert_same_run(place.find_run("first"), quiet.find_run("first"))


def is_past(place: Workplace, position: tuple[int, int]) -> bool:
    """Whether a state at this epoch and step, or after it, is on the disk."""
    found = list(place.folder.glob("output/first_*/weights/last.pth.json"))
    return bool(found) and read_train_state(found[0].parents[1]) >= position


def test_a_class_is_looked_up_beside_the_config_from_any_folder(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    (tmp_path / "mine").mkdir()
    shutil.copy(INVENTED / "digits.json", tmp_path / "mine" / "digits.json")
    shutil.copy(INVENTED / "digits.py", tmp_path / "mine" / "own_digits.py")
    words = (STAGE_1, "mine/digits.json", "-n", "first", "--print-config")
    ended = place.call(*words, "--task", "own_digits:DigitsTask")
    sys.modules.pop("own_digits", None)
    assert ended.code == 0, ended.err
    (tmp_path / "mine" / "own_digits.py").unlink()
    assert "there is no own_digits" in place.call(*words, "--task", "own_digits:DigitsTask").err


def test_a_run_predicts_from_files_of_arrays_by_the_same_script(trained: Trained, tmp_path: Path) -> None:
    task, run = open_task(trained.task), trained.run("second")
    (test,) = task.open_data("test")
    sample = test.make(0, np.random.default_rng(0))
    np.savez(tmp_path / "one.npz", **sample.inputs)
    np.save(tmp_path / "other.npy", np.zeros((3, 5, 7)))
    words = (str(run), str(tmp_path), "--task", trained.task.reference, "--json", "--out", str(tmp_path / "out"))
    one, other = map(json.loads, call(trained.place, "predict.py", *words).out.splitlines())
    assert other["status"] == "unreadable"
    assert one["status"] == "answered"
    assert (tmp_path / "out" / one["page"]).is_file()
    with torch.no_grad():
        batch = task.collate([sample], ["x"])
        output = run_model(load_best(trained, "second"), batch.inputs)[trained.task.output]
    if hasattr(task, "classes"):
        calibration = load_checkpoint(run / "weights/best_model.pth").about["calibration"]
        probabilities = (output[0].double() / calibration["temperature"]).softmax(0)
        assert one["outcome"] == task.classes[int(probabilities.argmax())]
        assert one["score"] == pytest.approx(float(probabilities.max()), abs=1e-6)
    else:
        assert one["details"]["rows"][0]["heatmap"]["high"] == pytest.approx(float(output[0].max()), abs=1e-5)


def test_the_page_serves_the_task_and_answers_about_its_example(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console
    from sharpstudent.deploy.app import App, open_served
    from sharpstudent.deploy.inputs import parse_app
    from sharpstudent.deploy.uploads import UploadFolder
    from werkzeug.test import Client

    monkeypatch.chdir(trained.place.folder)
    monkeypatch.setenv("TMPDIR", str(trained.place.folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    words = [str(trained.run("second")), "--device", "cpu", "--task", trained.task.reference]
    task, command = parse_app(words)
    folder = UploadFolder()
    try:
        client = Client(App(open_served(command, task, Console(quiet=True)), command, folder))
        found = client.post("/predict", data={"example": "1"})
        assert found.status_code == 200, found.text
        assert found.json is not None
        assert found.json["predictions"][0]["status"] == "answered"
        assert found.json["predictions"][0]["sentence"] in client.post(
            "/", data={"example": "1"}, follow_redirects=True
        ).text.replace("\u00a0", " ")
    finally:
        folder.close()
