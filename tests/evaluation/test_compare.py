"""Metrics with intervals, paired differences and sentences of any task, from tables alone."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from sharpstudent.core.errors import UserError
from sharpstudent.evaluation.command_line import EvaluationRequest
from sharpstudent.evaluation.compare import build_results, write_tables
from sharpstudent.evaluation.evaluate import EvalResult, Evaluation, Heading
from sharpstudent.evaluation.renderer import Measurements, Renderer, Session
from sharpstudent.evaluation.run import list_pairs
from sharpstudent.evaluation.tables import SplitSet, check_names
from sharpstudent.report.evaluation import list_console_tables, write_report
from sharpstudent.report.results import CostResult, EvaluationResults, Role
from sharpstudent.task import Samples
from signs import SignTask, make_table

ROOT = Path(__file__).resolve().parents[2]


class Rows(Samples):
    """As many samples as a table has rows; they are never made."""

    notes = ("drawn by hand",)

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"sign {index}"

    def group(self, index: int) -> str:
        return f"road {index}"

    def make(self, index: int, rng: np.random.Generator) -> Any:
        raise NotImplementedError


def evaluate(models: dict[str, tuple[Role, list[dict[str, Any]]]], sets: tuple[str, ...] = ("test",)) -> Evaluation:
    """models: by name, the role and a table for each set."""
    count = len(next(iter(models.values()))[1][0]["id"])
    opened = tuple(SplitSet(name, SignTask(), Rows(count), kind="split", split=name) for name in sets)
    about = {"task": "signs", "val_accuracy": 0.75, "epoch": 3}
    results = tuple(
        EvalResult(name, role, "best_model.pth", "0" * 64, "net", tuple(tables), about=about)
        for name, (role, tables) in models.items()
    )
    return Evaluation(results, opened, tuple({} for _ in sets))


def build(evaluation: Evaluation, costs: tuple[CostResult, ...] = ()) -> EvaluationResults:
    roles = [one.role for one in evaluation.models]
    session = Session(EvaluationRequest((), rounds=200), torch.device("cpu"), ())
    heading = Heading("Signs", made_at="2026-12-01T00:00:00+00:00", command="evaluate", environment={})
    evaluation = replace(evaluation, pairs=list_pairs(roles))
    measured = Measurements(calibrations=[None for _ in costs], costs=costs)
    tiles = Renderer(SignTask).build_tiles
    return build_results(SignTask, session, evaluation, measured, heading, build_tiles=tiles)


def test_every_metric_has_its_value_and_an_interval_over_groups() -> None:
    table = make_table(0.8, 1.0)
    (model,) = build(evaluate({"one": ("model", [table])})).models
    assert set(model.metrics) == {"accuracy", "distance"}
    assert model.metrics["accuracy"].value == np.mean(table["logits"].argmax(1) == table["label"])
    for metric in model.metrics.values():
        assert metric.low is not None
        assert metric.value is not None
        assert metric.high is not None
        assert metric.low < metric.value < metric.high


def test_several_sets_are_reported_each_and_all_together_and_their_groups_stay_apart() -> None:
    tables = [make_table(0.8, 1.0), make_table(0.6, 2.0, seed=1)]
    results = build(evaluate({"one": ("model", tables)}, ("day", "night")))
    metrics = results.models[0].metrics
    assert list(metrics) == [
        *results.metrics,
        *(f"{name}@{part}" for part in ("day", "night") for name in results.metrics),
    ]
    both = [metrics[f"accuracy@{part}"].value for part in ("day", "night")]
    assert metrics["accuracy"].value == pytest.approx(np.mean(both))
    assert [(one.rows, one.groups, one.counts) for one in results.data] == [(150, 30, {"stop": 75, "go": 75})] * 2
    assert len({one.fingerprint for one in results.data}) == 1  # the same rows, whatever the models predicted


def test_the_better_of_two_depends_on_the_direction_of_each_metric() -> None:
    bad = {**make_table(0.6, 2.0), "distance": make_table(0.6, 2.0, seed=1)["distance"]}
    models = {"good": ("model", [make_table(0.9, 1.0)]), "bad": ("model", [bad])}
    results = build(evaluate(models))  # type: ignore[arg-type]
    accuracy, distance = results.comparisons
    assert (accuracy.a, accuracy.b) == ("bad", "good")
    assert accuracy.difference.value is not None
    assert distance.difference.value is not None
    assert accuracy.difference.value < 0 < distance.difference.value
    assert (accuracy.better, distance.better) == ("b", "b")
    text = " ".join(results.verdict)
    assert "good is better than bad: difference in share right +" in text
    assert "good is better than bad: difference in distance −" in text
    assert "where lower is better" in text
    assert results.verdict[0].startswith("Best share right: good (0.")


@pytest.mark.parametrize(("groups", "is_claimed"), [(9, False), (10, True)])
def test_from_fewer_than_ten_groups_nothing_is_claimed_in_results_page_and_verdict(
    tmp_path: Path, groups: int, is_claimed: bool
) -> None:
    size = {"groups": groups, "each": 20}
    models = {"a": ("model", [make_table(0.95, 1.0, **size)]), "b": ("model", [make_table(0.55, 1.0, **size, seed=1)])}
    results = build(evaluate(models))  # type: ignore[arg-type]
    (pair,) = [one for one in results.comparisons if one.metric == "accuracy"]
    assert (pair.better is not None, pair.p_value is not None) == (is_claimed, is_claimed)
    assert (pair.non_inferiority is not None) == is_claimed
    assert pair.difference.groups == groups
    page = write_report(tmp_path, results)[0].read_text(encoding="utf-8")
    text = " ".join(results.verdict)
    for claim in ("first is better", "second is better", "a is better than b", ", better than chance"):
        assert is_claimed or claim not in page + text
    assert ("inconclusive: 9 of 10 groups" in page) == (not is_claimed)
    assert ("9 roads, and a claim needs 10" in results.verdict[0]) == (not is_claimed)


def test_runs_of_one_role_are_seeds_of_one_model_and_one_seed_is_said_to_be_one() -> None:
    models = {
        f"{name}{seed}": (role, [make_table(right, 1.0, seed=seed)])
        for role, name, right in (("distilled", "D", 0.9), ("control", "C", 0.8))
        for seed in (1, 2, 3)
    }
    base = evaluate(models)  # type: ignore[arg-type]
    first = {"distilled": "D1", "control": "C1"}
    tables = base.models[0].tables[0]
    same = {name: tables[name] for name in ("id", "group", "label")}
    marked = tuple(
        replace(
            one, seed_of=None if first[one.role] == one.name else first[one.role], tables=({**one.tables[0], **same},)
        )
        for one in base.models
    )
    results = build(replace(base, models=marked))
    accuracy, _ = results.comparisons
    assert (accuracy.a, accuracy.b, accuracy.seeds) == ("D1", "C1", 3)
    values = [one.metrics["accuracy"].value for one in results.models]
    assert accuracy.difference.value == pytest.approx(np.mean(values[:3]) - np.mean(values[3:]))
    assert "means over 3 seeds" in " ".join(results.verdict)
    one_seed = build(replace(base, models=(marked[0], marked[3])))
    assert "another seed may turn the answer" in " ".join(one_seed.limits)
    assert "another seed" not in " ".join(results.limits)
    for tile in results.tiles:
        assert [(one.model, one.seeds, one.is_main) for one in tile.values] == [("C1", 3, False), ("D1", 3, True)]
    assert results.tiles[0].values[1].estimate.value == pytest.approx(np.mean(values[:3]))
    assert "mean of 3 seeds, 150 signs of 30 roads" in results.tiles[0].values[1].about


def test_models_without_a_clear_difference_are_reported_as_such() -> None:
    table = make_table(0.7, 1.0)
    other = {**table, "distance": table["distance"][::-1].copy()}
    results = build(evaluate({"a": ("model", [table]), "b": ("model", [other])}))
    assert results.comparisons[0].better is None
    assert any("Inconclusive: the interval covers 0." in line for line in results.verdict)


@pytest.mark.parametrize(
    ("before", "headline"),
    [
        (0.6, "Stage 2 as a whole helped."),
        (0.98, "Stage 2 as a whole hurt."),
        (0.85, "Whether stage 2 as a whole helped is inconclusive on this data."),
    ],
)
def test_the_headline_says_whether_distillation_helped(before: float, headline: str) -> None:
    models = {
        "T": ("teacher", [make_table(0.95, 1.0)]),
        "B": ("before", [make_table(before, 1.0)]),
        "D": ("distilled", [make_table(0.85, 1.0)]),
    }
    results = build(evaluate(models))  # type: ignore[arg-type]
    assert results.verdict[0] == headline
    assert [(one.a, one.b) for one in results.comparisons if one.metric == "accuracy"] == [
        ("D", "B"),
        ("D", "T"),
        ("B", "T"),
    ]
    text = (
        "Its teacher T is better than the student D: difference in ",
        "Which of the student D and its teacher T is ",
    )
    assert any(line.startswith(text) for line in results.verdict)


def test_a_control_decides_where_there_is_one() -> None:
    models = {
        "B": ("before", [make_table(0.6, 1.0)]),
        "C": ("control", [make_table(0.85, 1.0)]),
        "D": ("distilled", [make_table(0.85, 1.0)]),
    }
    results = build(evaluate(models))  # type: ignore[arg-type]
    assert results.verdict[0] == "Whether distillation helped is inconclusive on this data."


def test_a_model_is_compared_with_chance_where_it_is_known_and_few_groups_give_a_warning() -> None:
    guess = build(evaluate({"guess": ("model", [make_table(0.5, 1.0)])}))
    assert "inconclusive against chance (.500)" in " ".join(guess.verdict)
    assert "guess is not shown to be better than chance: share right ." in " ".join(guess.limits)
    results = build(evaluate({"guess": ("model", [make_table(0.5, 1.0, groups=8)])}))
    text = " ".join(results.verdict)
    assert "against chance (.500) it is inconclusive, it rests on 8 roads, and a claim needs 10" in results.verdict[0]
    assert "There are only 8 roads in test: a claim needs 10." in results.limits
    assert "The distance of guess is 1" in text
    assert "The distance of guess" not in next(line for line in results.verdict if "chance" in line)


def test_what_a_metric_cannot_say_is_null_with_a_note() -> None:
    table = make_table(0.8, 1.0)
    table["distance"] = np.full(len(table["id"]), np.nan)
    results = build(evaluate({"one": ("model", [table])}))
    metric = results.models[0].metrics["distance"]
    assert metric.value is None
    assert metric.note
    (line,) = [line for line in results.verdict if "The distance of one has" in line]
    assert line.startswith("The distance of one has no value: ")
    assert line.count("no value") == 1
    assert json.loads(results.to_json())["models"][0]["metrics"]["distance"]["value"] is None


def test_one_group_gives_values_without_intervals() -> None:
    results = build(evaluate({"one": ("model", [make_table(0.8, 1.0, groups=1, each=40)])}))
    metric = results.models[0].metrics["accuracy"]
    assert (metric.low, metric.note) == (None, "no interval: fewer than two roads")


def test_models_of_different_rows_are_not_compared() -> None:
    other = make_table(0.8, 1.0)
    other["id"] = np.array([f"another {row}" for row in range(len(other["id"]))])
    with pytest.raises(UserError, match="different rows"):
        build(evaluate({"a": ("model", [make_table(0.8, 1.0)]), "b": ("model", [other])}))


def test_the_results_fit_their_published_schema_and_their_page_speaks_of_this_task_alone(tmp_path: Path) -> None:
    models = {"T<1>": ("teacher", [make_table(0.9, 1.0)]), "D": ("distilled", [make_table(0.8, 1.1)])}
    cost = {"parameters": 1000, "macs": 5000, "file_bytes": 4096, "latency_ms": 0.5, "latency_p95_ms": 0.6}
    costs = tuple(CostResult(**{**cost, "parameters": size}, memory_bytes=None, device="cpu") for size in (2000, 1000))
    results = build(evaluate(models), costs)  # type: ignore[arg-type]
    written = write_report(tmp_path, results)
    charts = ["reliability-all.csv", "reliability-all.png"]
    assert [path.name for path in written] == ["report.html", "results.json", *charts]
    assert results.models[0].reliability[""].counts
    stored = json.loads((tmp_path / "results.json").read_text())
    jsonschema.validate(stored, json.loads((ROOT / "docs/evaluation.schema.json").read_text()))
    assert EvaluationResults.model_validate(stored) == results
    page = (tmp_path / "report.html").read_text()
    assert "T&lt;1&gt;" in page
    assert "<script" not in page
    for text in ("Share right", "Distance", "↑", "↓", "Cost of one sign", "Roads", "Drawn by hand.", "sha256"):
        assert text in page
    for text in ("fake", "face", "AUC", "frame"):
        assert text not in page
    assert any("D is lighter than T<1>" in line for line in results.verdict)
    shown = [[column.header for column in table.columns] for table in list_console_tables(results)]
    assert shown[0] == ["Model", "Parameters", "Share right \\[95 %]", "Inference time"]


def test_all_that_models_said_lies_beside_the_report(tmp_path: Path) -> None:
    table = {**make_table(0.8, 1.0, groups=2, each=3), "map": np.zeros((6, 8, 8), np.float32)}
    evaluation = evaluate({"one": ("model", [table]), "two": ("model", [table])})
    write_tables(tmp_path, evaluation)
    stored = np.load(tmp_path / "tables.npz")
    assert stored["models"].tolist() == ["one", "two"]
    assert stored["1/0/map"].shape == (6, 8, 8)
    np.testing.assert_array_equal(stored["0/0/logits"], table["logits"])
    rows = list(csv.DictReader((tmp_path / "tables.csv").open(newline="")))
    assert len(rows) == 12
    assert list(rows[0]) == ["model", "set", "id", "group", "label", "logits.0", "logits.1", "distance"]
    assert float(rows[7]["distance"]) == table["distance"][1]


def test_a_set_has_a_name_of_its_own_and_is_requested_once() -> None:
    assert check_names(["day", "night"], ["a", "b"]) == ["day", "night"]
    for names, words, said in (
        (["x@y"], ["a"], "cannot name a data set"),
        (["x", "x"], ["a", "b"], "names two data sets"),
        (["x", "y"], ["a", "a"], "count twice"),
    ):
        with pytest.raises(UserError, match=said):
            check_names(names, words)
