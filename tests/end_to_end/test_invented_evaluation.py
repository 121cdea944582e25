"""evaluate_model.py, compare_models.py and the report that a run ends with serve tasks of anybody."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_sentences import count_words, list_parted, list_sentences
from sharpstudent.report.sentences import MOST_WORDS
from workplace import ROOT, STAGE_1, STAGE_2, Ended, Workplace

EVALUATE, COMPARE = "evaluate_model.py", "compare_models.py"
INVENTED = ROOT / "tests" / "invented"
FAST = ("--rounds", "50", "--workers", "0", "--device", "cpu")
OF_ANOTHER_TASK = re.compile(r"\b(real|fake|fakes|face|faces|deepfake|AUC|video|videos)\b", re.IGNORECASE)


pytestmark = pytest.mark.usefixtures("clean_imports")


@dataclass(frozen=True)
class Invented:
    """One task: its name, its class, the architecture that teaches, and what its metrics are called."""

    name: str
    reference: str
    teacher: str
    metrics: tuple[str, ...]


TASKS = (
    Invented("digits", "digits:DigitsTask", "wide", ("accuracy", "log_loss")),
    Invented("signals", "signals:SignalsTask", "raw", ("accuracy", "log_loss")),
    Invented("pointing", "pointing:PointingTask", "wide", ("distance", "wrong_inside")),
)


@dataclass(frozen=True)
class Runs:
    """A user's folder with three runs of an epoch each."""

    task: Invented
    place: Workplace

    def name(self, run: str) -> str:
        """The path of a run's folder, as the user writes it."""
        return str(self.place.find_run(run).relative_to(self.place.folder))

    def evaluate(self, *words: str) -> tuple[Any, Path]:
        """What evaluate_model.py or compare_models.py found, and its folder."""
        out = self.place.folder / f"found_{len(list(self.place.folder.glob('found_*')))}"
        ended = self.place.call(*words, "--task", self.task.reference, *FAST, "--out", str(out))
        assert ended.code == 0, ended.err
        return json.loads((out / "results.json").read_text()), out


@pytest.fixture(scope="module", params=TASKS, ids=lambda task: task.name)
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    task: Invented = request.param
    folder = tmp_path_factory.mktemp(task.name) / "place"
    folder.mkdir()
    place, config = Workplace(folder), f"{task.name}.json"
    for ending in ("py", "json"):
        (place / f"{task.name}.{ending}").symlink_to(INVENTED / f"{task.name}.{ending}")
    short, quiet = ("--set", "epoch=1"), ("--set", "report=false")
    check(place.call(STAGE_1, config, "-n", "teacher", *short, *quiet, "--set", f"student={task.teacher}"))
    check(place.call(STAGE_1, config, "-n", "first", *short, *quiet))
    check(place.call(STAGE_2, config, "-n", "second", *short))
    return Runs(task, place)


def check(ended: Ended) -> None:
    assert ended.code == 0, ended.err


def assert_of_no_other_task(text: str) -> None:
    assert sorted(set(OF_ANOTHER_TASK.findall(text))) == []


def assert_reads_well(results: Any, page: str) -> None:
    """The page is of this task alone, begins with three tiles in its own units, and has short sentences."""
    assert_of_no_other_task(page)
    tiles = results["tiles"]
    assert len(tiles) == 3
    first = next(iter(results["metrics"].values()))["title"]
    assert tiles[0]["title"].lower() == first.lower()
    (main,) = (model["name"] for model in results["models"] if model["role"] == "distilled")
    for tile in tiles[:2]:
        assert [one["model"] for one in tile["values"] if one["is_main"]] == [main]
        assert all(results["unit"] in one["about"] for one in tile["values"])
    assert [one for one in list_sentences(page) if count_words(one) > MOST_WORDS] == []
    assert list_parted(page) == []


def open_test(task: Invented) -> tuple[Any, Any]:
    """The task, and its samples of the split `test`."""
    from sharpstudent.registry import find_task

    opened = find_task(task.reference, beside=[INVENTED], trusted=True)()
    (samples,) = opened.open_data("test")
    return opened, samples


def test_a_model_is_evaluated_on_a_split_by_its_tasks_metrics_with_intervals(runs: Runs) -> None:
    results, out = runs.evaluate(EVALUATE, runs.name("second"), "--data", "test")
    task, samples = open_test(runs.task)
    (model,), (data,) = results["models"], results["data"]
    assert tuple(results["metrics"]) == runs.task.metrics
    assert set(model["metrics"]) == set(runs.task.metrics)
    assert (results["unit"], results["group_unit"]) == (task.unit, task.group_unit)
    assert (data["split"], data["samples"], data["groups"]) == ("test", len(samples), len(samples.find_groups()))
    assert data["unreadable"] == {}
    for name, metric in results["metrics"].items():
        found = model["metrics"][name]
        assert found["low"] <= found["value"] <= found["high"]
        assert metric["direction"] == task.metrics[name].direction
    assert (out / "report.html").stat().st_size > 1000


def test_metrics_are_reported_by_the_columns_of_a_table_and_of_the_rows(runs: Runs) -> None:
    task, samples = open_test(runs.task)
    groups = sorted(samples.find_groups())
    table = runs.place / "columns.csv"
    lines = [f"{name};{'old' if number % 2 else 'new'}\n" for number, name in enumerate(groups[:-1])]
    table.write_text(f"{task.group_unit};age\n" + "".join(lines))
    words = (EVALUATE, runs.name("second"), "--data", "test")
    own = () if runs.task.name == "pointing" else ("label",)  # a column of the rows themselves
    results, out = runs.evaluate(*words, "--by", ",".join(("age", *own)), "--by-table", str(table))
    found, *others = results["models"][0]["by_column"]
    assert [one["column"] for one in others] == [*own]
    assert (found["column"], [one["value"] for one in found["values"]]) == ("age", ["new", "old"])
    assert [one["groups"] for one in found["values"]] == [len(lines[::2]), len(lines[1::2])]
    assert found["without"] == results["data"][0]["rows"] - sum(one["rows"] for one in found["values"])
    first = runs.task.metrics[0]
    of_value = {one["value"]: one["metrics"][first]["value"] for one in found["values"]}
    gap = next(one for one in found["gaps"] if one["metric"] == first)
    assert gap["difference"]["value"] == pytest.approx(of_value[gap["higher"]] - of_value[gap["lower"]])
    assert gap["difference"]["low"] <= gap["difference"]["value"] <= gap["difference"]["high"]
    page = (out / "report.html").read_text()
    assert "By age" in page
    assert "Largest difference" in page
    for more, expected in (
        (("--by", "hat", "--by-table", str(table)), "lacks the column hat"),
        (("--by-table", str(table)), "add --by COLUMN"),
    ):
        refused = runs.place.call(*words, "--task", runs.task.reference, *FAST, *more)
        assert refused.code == 2
        assert expected in refused.err


def test_the_value_of_a_metric_is_that_of_the_stored_table(runs: Runs) -> None:
    results, out = runs.evaluate(EVALUATE, f"mine={runs.name('second')}", "--data", "test")
    task, _ = open_test(runs.task)
    stored = np.load(out / "tables.npz")
    table = {key.split("/")[-1]: stored[key] for key in stored.files}
    for name, metric in task.metrics.items():
        assert results["models"][0]["metrics"][name]["value"] == pytest.approx(metric.value(table), rel=1e-6)


def test_models_are_compared_by_paired_differences_of_their_tasks_metrics(runs: Runs) -> None:
    roles = ("--teacher", runs.name("teacher"), "--before", runs.name("first"), "--distilled", runs.name("second"))
    results, out = runs.evaluate(COMPARE, *roles, "--data", "test", "--no-costs")
    assert [model["role"] for model in results["models"]] == ["teacher", "before", "distilled"]
    values = {model["name"]: model["metrics"][runs.task.metrics[0]]["value"] for model in results["models"]}
    (pair,) = (
        pair
        for pair in results["comparisons"]
        if pair["metric"] == runs.task.metrics[0]
        and (pair["a"], pair["b"]) == (results["models"][2]["name"], results["models"][1]["name"])
    )
    assert pair["difference"]["value"] == pytest.approx(values[pair["a"]] - values[pair["b"]], abs=1e-9)
    assert 0.0 <= pair["p_value"] <= 1.0
    if pair["better"] is not None:
        is_lower = results["metrics"][runs.task.metrics[0]]["direction"] == "lower"
        assert (pair["better"] == "a") == ((pair["difference"]["value"] < 0) == is_lower)
    assert results["verdict"]
    assert_reads_well(results, (out / "report.html").read_text())


def test_a_run_ends_with_a_report_of_its_own_validation(runs: Runs) -> None:
    folder = runs.place.find_run("second")
    results = json.loads((folder / "results.json").read_text())
    assert results["data"][0]["kind"] == "validation"
    assert tuple(results["metrics"]) == runs.task.metrics
    about = json.loads((folder / "weights/best_model.pth.json").read_text())["about"]
    value = results["models"][0]["metrics"][runs.task.metrics[0]]["value"]
    assert value == pytest.approx(about[f"val_{runs.task.metrics[0]}"], abs=1e-6)
    assert any("chose the checkpoint" in line for line in results["limits"])
    assert_reads_well(results, (folder / "report.html").read_text())


def test_the_class_is_named_by_the_user_and_not_by_the_checkpoint(runs: Runs) -> None:
    refused = runs.place.call(EVALUATE, runs.name("second"), "--data", "test", *FAST)
    assert refused.code == 2
    assert f"--task {runs.task.reference}" in refused.err
    by_config = ("--config", f"{runs.task.name}.json", "--data", "validation")
    ended = runs.place.call(EVALUATE, runs.name("second"), *by_config, *FAST, "--out", "by_config")
    assert ended.code == 0, ended.err
    assert json.loads((runs.place / "by_config/results.json").read_text())["data"][0]["split"] == "validation"


def test_an_unknown_split_is_refused_by_name(runs: Runs) -> None:
    words = (EVALUATE, runs.name("second"), "--task", runs.task.reference, "--data", "tset", *FAST)
    refused = runs.place.call(*words)
    assert refused.code == 2
    assert "did you mean 'test'?" in refused.err


def test_the_cost_of_models_is_measured_for_any_inputs(runs: Runs) -> None:
    results, _ = runs.evaluate(EVALUATE, runs.name("second"), "--data", "test", "--costs")
    cost = results["models"][0]["cost"]
    assert cost["parameters"] > 0
    assert cost["latency_ms"] > 0.0
    assert sys.platform != "linux" or cost["memory_bytes"] > 0, cost["notes"]


def test_a_model_outside_of_a_run_has_the_keys_of_the_users_config(runs: Runs) -> None:
    alone = runs.place / "alone"
    alone.mkdir()
    for file in (runs.place.find_run("second") / "weights").glob("best_model.pth*"):
        shutil.copy(file, alone)
    words = ("alone/best_model.pth", "--config", f"{runs.task.name}.json", "--data", "test")
    (by_hand, _), (own, _) = runs.evaluate(EVALUATE, *words), runs.evaluate(EVALUATE, runs.name("second"), *words[3:])
    assert by_hand["models"][0]["metrics"] == own["models"][0]["metrics"]


@pytest.mark.parametrize("runs", TASKS[:1], indirect=True, ids=lambda task: task.name)
def test_charts_of_an_earlier_evaluation_are_removed(runs: Runs) -> None:
    words = (EVALUATE, runs.name("second"), "--task", runs.task.reference, "--data", "test", *FAST, "--out", "twice")
    check(runs.place.call(*words))
    figures = runs.place / "twice/figures"
    before = sorted(figures.iterdir())
    for kind in ("png", "csv"):
        (figures / f"earlier.{kind}").write_bytes(b"")
    check(runs.place.call(*words))
    assert before
    assert sorted(figures.iterdir()) == before
    has_classes = "log_loss" in runs.task.metrics
    assert (figures / "reliability-all.csv" in before) == has_classes
    assert ('id="reliability"' in (runs.place / "twice/report.html").read_text()) == has_classes
