"""The rules under `sharpstudent.task`: what a task promises to the engine, and what the engine promises to a task."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sharpstudent.checkpoint.store import load_checkpoint, save_checkpoint
from sharpstudent.config.stored import load_run_config
from sharpstudent.core.errors import UserError
from sharpstudent.models.forward import run_model, select_inputs
from sharpstudent.registry import find_task
from sharpstudent.task import (
    Batch,
    ClassificationTask,
    Metric,
    ModelSpec,
    Sample,
    Samples,
    Task,
    TaskSection,
    make_mean_metric,
    plural,
)
from sharpstudent.tasks.deepfake.task import DeepfakeTask
from sharpstudent.train.build import open_training_data
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
INVENTED = ROOT / "tests" / "invented"
# Each task with a student of its own, and the facts of a checkpoint beside which no data need be there.
FACTS: dict[str, Any] = {"classes": ["real", "fake"], "image_size": 32, "input": "RGB in 0..1, no mean/std"}
STUDENTS = {
    "digits:DigitsTask": ModelSpec("narrow"),
    "signals:SignalsTask": ModelSpec("spectrum", {"width": 6}),
    "pointing:PointingTask": ModelSpec("narrow"),
    "deepfake": ModelSpec("test_efficientnet", dropout=0.2),
}


@pytest.fixture(autouse=True)
def _kept_path() -> Generator[None]:
    path = list(sys.path)
    yield
    sys.path[:] = path


def find(name: str) -> type[Any]:
    return find_task(name, beside=[INVENTED], trusted=True)


# --- A checkpoint names registered tasks only -----------------------------------------------------------------------


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder holds a module that leaves a mark when it is imported; returns where the mark would be."""
    (tmp_path / "trap.py").write_text("from pathlib import Path\nPath(__file__).with_name('mark').touch()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "mark"


def test_a_checkpoint_that_names_a_class_imports_nothing(trap: Path, tmp_path: Path) -> None:
    about = {"architecture": "any", "task": "trap:Task", "facts": {}, "classes": ["a", "b"]}
    save_checkpoint(tmp_path / "model.pth", {"model": {"head.weight": torch.zeros(2, 2)}}, about=about)
    named = load_checkpoint(tmp_path / "model.pth").about["task"]
    with pytest.raises(UserError) as caught:
        find_task(named, beside=[tmp_path], where="model.pth")
    assert "a file does not decide what is imported" in caught.value.as_text()
    assert "--task trap:Task" in caught.value.as_text()
    assert not trap.exists()
    assert "trap" not in sys.modules
    with pytest.raises(UserError, match="has nothing of that name"):
        find_task(named, beside=[tmp_path], trusted=True)
    assert trap.exists(), "the trap itself works"


def test_a_stored_config_that_names_a_class_imports_nothing(trap: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps({"task": "trap:Task", "task_section": {}, "stage": 1}))
    with pytest.raises(UserError, match="a file does not decide what is imported"):
        load_run_config(tmp_path / "run", find_task)
    assert not trap.exists()


@pytest.mark.parametrize("script", ["train_student_only.py", "main_distillation.py", "evaluate_model.py"])
def test_no_script_imports_what_a_file_names(trap: Path, tmp_path: Path, script: str) -> None:
    weights = tmp_path / "output" / "run" / "weights"
    weights.mkdir(parents=True)
    stage = 2 if script == "main_distillation.py" else 1
    stored = {"task": "trap:Task", "task_section": {}, "stage": stage}
    (weights.parent / "config.json").write_text(json.dumps(stored))
    about = {"architecture": "any", "task": "trap:Task", "facts": {}, "classes": ["a", "b"]}
    save_checkpoint(weights / "best_model.pth", {"model": {"head.weight": torch.zeros(2, 2)}}, about=about)
    words = ["output/run"] if script == "evaluate_model.py" else ["--resume", "run"]
    ended = subprocess.run([sys.executable, str(ROOT / script), *words], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    assert not trap.exists()


# --- Facts ----------------------------------------------------------------------------------------------------------


def test_the_facts_of_a_checkpoint_rebuild_the_deepfake_task_without_its_data(tmp_path: Path) -> None:
    facts = json.loads(json.dumps(DeepfakeTask(DeepfakeTask.Section(image_size=48)).facts()))
    task = DeepfakeTask(facts=facts)
    assert task.facts() == facts
    assert task.example_batch(3).inputs["image"].shape == (3, 3, 48, 48)
    model = task.build_student(STUDENTS["deepfake"]).eval()
    assert run_model(model, task.example_batch(2).inputs)["logits"].shape == (2, 2)


def test_the_facts_of_a_checkpoint_rebuild_the_digits_without_their_data(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = find("digits:DigitsTask")
    facts = json.loads(json.dumps(kind().facts()))
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda **_: pytest.fail("opened the data"))
    task = kind(facts=facts)
    assert task.facts() == facts == {"classes": list("0123456789")}
    batch = task.example_batch(4)
    table = task.rows(run_model(task.build_student(ModelSpec("narrow")), batch.inputs), batch)
    assert table["logits"].shape == (4, 10)


def test_classes_that_the_data_tells_come_back_with_the_facts() -> None:
    task = Named(facts={"classes": ["ant", "bee"]})
    assert tuple(task.classes) == ("ant", "bee")
    assert task.facts() == {"classes": ["ant", "bee"]}
    assert tuple(DeepfakeTask(facts={**FACTS, "classes": ["fake", "real"]}).classes) == ("real", "fake"), "its own"


# --- Models ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STUDENTS)
def test_a_loaded_student_passes_torch_export(name: str, tmp_path: Path) -> None:
    kind = find(name)
    task = kind(facts=FACTS) if name == "deepfake" else kind()
    source = task.build_student(STUDENTS[name])
    save_checkpoint(tmp_path / "model.pth", {"model": source.state_dict()}, about={"facts": task.facts()})
    saved = load_checkpoint(tmp_path / "model.pth")
    model = kind(facts=saved.about["facts"]).build_student(STUDENTS[name])
    model.load_state_dict(saved.tensors["model"])
    inputs = {
        key: value if value.dtype == torch.int64 else torch.rand_like(value)
        for key, value in select_inputs(model.eval(), task.example_batch(2).inputs).items()
    }
    with torch.no_grad():
        expected = run_model(source.eval(), inputs)
        found = torch.export.export(model, (), inputs).module()(**inputs)
    assert sorted(found) == sorted(expected)
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor)


@pytest.mark.parametrize("name", STUDENTS)
def test_outputs_targets_and_columns_have_a_value_for_each_row_of_the_example(name: str) -> None:
    kind = find(name)
    task = kind(facts=FACTS) if name == "deepfake" else kind()
    batch, model = task.example_batch(3), task.build_student(STUDENTS[name]).eval()
    assert len(batch) == 3
    with torch.no_grad():
        outputs = run_model(model, batch.inputs)
    assert {len(tensor) for part in (outputs, batch.targets, batch.weights) for tensor in part.values()} == {3}
    table = task.rows(outputs, batch)
    assert {len(column) for column in table.values()} == {3}
    whole = {**table, "id": np.array(batch.rows["id"]), "group": np.array(batch.rows["group"])}
    for metric in task.metrics.values():
        assert isinstance(metric.value(whole), float)


@pytest.mark.parametrize("name", [name for name in STUDENTS if name != "deepfake"])
def test_a_model_and_a_split_that_a_task_has_not_are_the_users_error_with_the_names_it_has(name: str) -> None:
    task = find(name)()
    with pytest.raises(UserError) as caught:
        task.build_student(ModelSpec(f"{STUDENTS[name].name}s"))
    assert f"student: '{STUDENTS[name].name}s' is not known" in caught.value.as_text()
    assert f"did you mean '{STUDENTS[name].name}'?" in caught.value.as_text()
    with pytest.raises(UserError, match="split: 'evening' is not known"):
        task.open_data("evening")


# --- Data -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in STUDENTS if name != "deepfake"])
def test_training_opens_the_splits_train_and_validation_and_no_other(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, opened = find(name), []
    real_open = kind.open_data
    monkeypatch.setattr(kind, "open_data", lambda self, *splits: opened.append(splits) or real_open(self, *splits))
    data = open_training_data(kind())
    assert opened == [("train", "validation")]
    assert not data.train.find_groups() & data.validation.find_groups()


class Few(Samples):
    """A sample for each group that is named."""

    def __init__(self, *groups: str) -> None:
        self.groups = groups

    def __len__(self) -> int:
        return len(self.groups)

    def name(self, index: int) -> str:
        return f"sample {index}"

    def group(self, index: int) -> str:
        return self.groups[index]

    def make(self, index: int, rng: np.random.Generator) -> Sample:
        label, value = np.array([index % 2]), np.zeros((1, 2), np.float32)
        return Sample({"x": value}, {"label": label}, rows={"id": (self.name(index),)})


class Least(Task):
    """As little as a task can be."""

    Section = TaskSection
    metrics = {  # noqa: RUF012
        "far": make_mean_metric(lambda table: table["far"], "lower"),
        "near": Metric(lambda table, counts: 1.0, title="how near"),
    }
    group_unit = "person"
    splits: tuple[Samples, ...] = ()

    def open_data(self, *splits: str) -> tuple[Samples, ...]:
        return self.splits

    def build_student(self, spec: ModelSpec) -> nn.Module:
        return nn.Linear(2, 2)

    def rows(self, outputs: Any, batch: Batch) -> Any:
        return {"far": np.zeros(len(batch))}


def test_a_group_in_both_splits_is_refused_in_the_tasks_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Least, "splits", (Few("a", "b"), Few("b", "c")))
    with pytest.raises(UserError) as caught:
        open_training_data(Least())
    assert "1 person in training and in validation" in caught.value.as_text()
    assert "--allow shared-people" in caught.value.as_text()
    assert len(open_training_data(Least(allow=("shared-people",))).train) == 2
    monkeypatch.setattr(Least, "splits", (Few("a"), Few()))
    with pytest.raises(UserError, match="split validation: holds no samples"):
        open_training_data(Least())


# --- Defaults -------------------------------------------------------------------------------------------------------


def test_a_task_gets_everything_else_from_its_base() -> None:
    task = Least()
    assert isinstance(task.section, TaskSection)
    assert (task.facts(), Least(facts={"a": 1}).facts()) == ({}, {"a": 1})
    assert (task.default_metric, task.headline_metrics) == ("far", ("far", "near"))
    assert (task.title("far"), task.title("near")) == ("far", "how near")
    assert (task.unit, task.terms, task.renderer, task.pretrained, task.allow) == ("sample", {}, None, {}, ())
    assert task.calibrate({}) == {}
    assert task.check_student("first", {}) == []
    task.check_metric("far", Few("a"))
    assert isinstance(task.build_teacher(ModelSpec("any", role="teacher")), nn.Linear)
    samples = Few("a", "b")
    batch = task.collate([samples.make(i, np.random.default_rng(0)) for i in range(2)], ["a", "b"])
    assert batch.rows["id"] == ("sample 0", "sample 1")
    assert batch.rows["group"] == ("a", "b")
    with pytest.raises(UserError, match="task Least: has no example_batch"):
        task.example_batch(2)
    assert (plural("sample"), plural("person")) == ("samples", "people")


class Named(ClassificationTask):
    """Classes that are no attribute of the class."""

    Section = TaskSection
    open_data = Least.open_data
    build_student = Least.build_student


def test_a_classification_task_knows_chance_where_it_names_its_classes() -> None:
    class Three(Named):
        classes = ("a", "b", "c")

    class Own(Named):
        classes = ("a", "b")
        metrics = {"right": Metric(lambda table, counts: 1.0)}  # noqa: RUF012

    assert Three.metrics["accuracy"].chance == pytest.approx(1 / 3)
    assert list(Three.metrics) == ["accuracy", "log_loss"]
    assert Named.metrics["accuracy"].chance is None
    assert list(Own.metrics) == ["right"]
    assert Three().facts() == {"classes": ["a", "b", "c"]}


def test_a_classification_task_tells_logits_and_labels_and_fits_a_temperature() -> None:
    task = find("digits:DigitsTask")()
    batch = task.example_batch(20)
    logits = torch.nn.functional.one_hot(batch.targets["label"], 10).to(torch.bfloat16) * 4
    logits[0] = logits[1]  # one mistake, so that there is a temperature
    table = task.rows({"logits": logits}, batch)
    assert (table["logits"].dtype, table["label"].dtype) == (np.float32, np.int64)
    whole = {**table, "id": np.array(batch.rows["id"])}
    assert task.metrics["accuracy"].value(whole) == pytest.approx(0.95)
    assert task.calibrate(whole)["temperature"] > 0.0


# --- The command line's way -----------------------------------------------------------------------------------------


def test_the_class_of_a_task_loads_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, sharpstudent.task, sharpstudent.tasks.deepfake.task, sharpstudent.registry; "
        "print(sorted({'torch', 'numpy', 'cv2', 'timm', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_digits_are_a_whole_task_in_120_lines() -> None:
    assert len((INVENTED / "digits.py").read_text().splitlines()) <= 120
