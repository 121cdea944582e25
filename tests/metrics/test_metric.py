"""Metrics as functions of a table and of how often each row was drawn: the same as of the rows written out so often."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scored_tables import make_table, read_score
from sharpstudent.core.types import Table
from sharpstudent.metrics import bootstrap
from sharpstudent.metrics.binary import compute_auc, compute_average_precision, compute_eer
from sharpstudent.metrics.bootstrap import (
    compute_interval,
    compute_paired,
    draw_counts,
    find_strata,
    resample,
)
from sharpstudent.metrics.checks import MetricError
from sharpstudent.metrics.metric import Metric, make_binary_metric, make_mean_metric, repeat_rows
from sharpstudent.task import ClassificationTask
from sharpstudent.tasks.deepfake.report.results import Counts

CLASSES = 3
# Score, class, group, how often it was drawn: few values each, so that there are ties.
ROWS = st.lists(
    st.tuples(st.integers(-3, 3), st.integers(0, CLASSES - 1), st.integers(0, 5), st.integers(0, 3)),
    min_size=4,
    max_size=30,
)


def read_distance(table: Table) -> NDArray[np.float64]:
    """Of some rows only."""
    return np.where(table["score"] > 2, np.nan, np.abs(table["score"]) / 3)


def resample_metric(metric: Metric, table: Table, *, rounds: int, seed: int) -> NDArray[np.float64]:
    """The values of a metric in draws of the groups, by its fastest form."""
    group_of, strata = bootstrap._find_groups(metric, table)
    form = bootstrap._build_form(metric, table, group_of)
    return resample(form, group_of, rounds=rounds, seed=seed, must_hold=strata)


METRICS = {
    **{kind: make_binary_metric(kind, read_score) for kind in ("auc", "auc_by_rank", "average_precision", "eer")},
    "distance": make_mean_metric(read_distance, "lower"),
    **ClassificationTask.metrics,
}
EXACT = METRICS.keys() - {"auc", "average_precision", "eer"}  # of drawn rows these have a form of their own


def build(rows: list[tuple[int, int, int, int]]) -> tuple[Table, Counts]:
    """Rows that hold two groups and both labels, in what was drawn too."""
    scores, classes, groups, counts = np.array(rows, np.int64).T
    groups[:2], counts[:2] = [0, 1], [1, 2]
    labels = (classes > 0).astype(np.int64)
    labels[:2] = [0, 1]
    logits = np.stack([np.zeros(len(scores)), scores, scores[::-1] / 2], axis=1)
    made = make_table(scores, labels, [f"group {number}" for number in groups])
    return {**made, "logits": logits, "class": classes}, counts


@pytest.mark.parametrize("name", METRICS)
@given(rows=ROWS)
@settings(deadline=None, max_examples=40)
def test_a_metric_of_counts_is_that_of_repeated_rows(name: str, rows: list[tuple[int, int, int, int]]) -> None:
    table, counts = build(rows)
    metric = METRICS[name]
    found, expected = metric.compute(table, counts), metric.value(repeat_rows(table, counts))
    if name in EXACT:
        assert found == expected or (math.isnan(found) and math.isnan(expected))
    else:
        assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", METRICS)
@given(rows=ROWS)
@settings(deadline=None, max_examples=20)
def test_a_faster_form_of_draws_gives_what_compute_gives(name: str, rows: list[tuple[int, int, int, int]]) -> None:
    table, _ = build(rows)
    metric = METRICS[name]
    found = resample_metric(metric, table, rounds=5, seed=1)
    names, group_of = np.unique(table["group"], return_inverse=True)
    strata = [] if metric.strata is None else find_strata(group_of, table[metric.strata])
    draws = draw_counts(group_of, rounds=5, seed=1, must_hold=strata)
    expected = [metric.compute(table, counts[group_of]) for counts in draws]
    assert len(names) >= 2
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_values_of_whole_tables_are_those_of_the_plain_functions_to_the_last_bit() -> None:
    for seed in range(20):
        generator = np.random.default_rng(seed)
        scores, labels = generator.normal(size=200), generator.integers(0, 2, 200)
        table = make_table(scores, labels, ["g"] * 200)
        assert METRICS["auc"].value(table) == compute_auc(scores, labels)
        assert METRICS["average_precision"].value(table) == compute_average_precision(scores, labels)
        assert METRICS["eer"].value(table) == compute_eer(scores, labels)


def test_draws_without_strata_are_the_same_stream_where_nothing_is_drawn_again() -> None:
    group_of = np.arange(40) % 20
    strata = find_strata(group_of, np.arange(40) % 2)
    plain, stratified = (list(draw_counts(group_of, rounds=50, seed=3, must_hold=must)) for must in ((), strata))
    assert np.array_equal(plain, stratified)
    # Only one group of four has the stratum: a third of the plain draws are drawn again.
    rare = list(draw_counts(np.arange(4), rounds=50, seed=3, must_hold=[np.array([2])]))
    assert all(counts[2] for counts in rare)
    plain = list(draw_counts(np.arange(4), rounds=200, seed=3))
    assert np.array_equal([counts for counts in plain if counts[2]][:50], rare)


def test_strata_that_no_draw_holds_leave_no_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "MOST_TRIES", 20)
    table = {**make_table(np.arange(9.0), [0] * 9, list("abcdefghi")), "kind": np.arange(9)}
    found = compute_interval(make_mean_metric(read_score, strata="kind"), table)
    assert found.value == 4.0
    assert found.note == "no interval: of 9 groups, hardly any draw holds all 9 strata"


def test_chance_perfect_and_direction_belong_to_the_kind_and_can_be_changed() -> None:
    eer = make_binary_metric("eer", read_score, title="error", chance=None)
    assert (eer.direction, eer.perfect, eer.chance, eer.title) == ("lower", 0.0, None, "error")
    assert eer.is_better(0.1, 0.2)
    assert not METRICS["auc"].is_better(0.5, 0.5)


def test_no_class_and_no_row_have_no_value() -> None:
    table = make_table([0.1, 0.2], [0, 1], ["a", "b"])
    for kind in ("auc", "auc_by_rank", "average_precision", "eer"):
        assert math.isnan(METRICS[kind].compute(table, np.array([2, 0])))
    assert math.isnan(METRICS["distance"].compute(table, np.zeros(2, np.int64)))
    assert math.isnan(METRICS["distance"].value(make_table([3.0, 3.0], [0, 1], ["a", "b"])))


def find_reach(values: NDArray[np.float64], *, groups: int) -> float:
    return stats.t.ppf(0.975, groups - 1) * values.std() * math.sqrt(groups / (groups - 1))


def test_rows_without_a_value_do_not_count_in_any_draw() -> None:
    scores = [3.0, 1.0, 2.0, 3.0, 3.0]  # the distance of 3 is NaN
    table = make_table(scores, [0] * 5, ["a", "a", "b", "b", "c"])
    found = compute_interval(METRICS["distance"], table, rounds=500)
    assert found.value == pytest.approx(0.5)
    # One draw of 27 holds c alone, and has no value: it is left out.
    values = resample_metric(METRICS["distance"], table, rounds=500, seed=0)
    assert 0.01 < np.isnan(values).mean() < 0.05
    reach = find_reach(values[~np.isnan(values)], groups=3)
    assert (found.low, found.high) == pytest.approx((0.5 - reach, 0.5 + reach))


def test_too_many_draws_without_a_value_leave_no_interval() -> None:
    table = make_table([1.0, 3.0, 3.0], [0] * 3, ["a", "b", "c"])
    found = compute_interval(METRICS["distance"], table, rounds=100)
    assert (found.value, found.low) == (pytest.approx(1 / 3), None)
    assert found.note is not None
    assert found.note.endswith("of 100 draws have no value")
    paired = compute_paired(METRICS["distance"], table, table, rounds=100)
    assert (paired.value, paired.low, paired.p_value) == (0.0, None, None)


def test_pairs_are_joined_by_id_whatever_the_order_and_equal_ids_by_their_turn() -> None:
    generator = np.random.default_rng(0)
    table = make_table(generator.normal(size=60), [0, 1] * 30, [f"g{i % 7}" for i in range(60)])
    other = {**table, "score": table["score"] + generator.normal(size=60)}
    ids = np.array([f"row {i // 2}" for i in range(60)])  # each twice
    table, other = {**table, "id": ids, "label": np.array([0, 1] * 30)}, {**other, "id": ids}
    straight = compute_paired(METRICS["auc_by_rank"], table, other, rounds=50)
    order = np.argsort(generator.normal(size=30), kind="stable").repeat(2) * 2 + np.array([0, 1] * 30)
    shuffled = {name: column[order] for name, column in other.items()}
    assert compute_paired(METRICS["auc_by_rank"], table, shuffled, rounds=50) == straight
    stranger = {**other, "id": np.where(ids == "row 3", "row x", ids)}
    with pytest.raises(MetricError, match="different rows: id differs for row 3"):
        compute_paired(METRICS["auc_by_rank"], table, stranger)
    with pytest.raises(MetricError, match="different rows: 60 and 59 of them"):
        compute_paired(METRICS["auc_by_rank"], table, {name: column[1:] for name, column in other.items()})
    for name in ("group", "label"):
        changed = {**other, name: other[name][::-1]}
        with pytest.raises(MetricError, match=f"different rows: {name} differs for"):
            compute_paired(METRICS["auc_by_rank"], table, changed)


def test_a_paired_difference_is_raw_and_of_any_metric() -> None:
    generator = np.random.default_rng(0)
    table = make_table(generator.normal(size=200), [0, 1] * 100, [f"g{i % 20}" for i in range(200)])
    worse = {**table, "score": table["score"] * 0.5}
    found = compute_paired(METRICS["distance"], table, worse, rounds=200)
    values = [resample_metric(METRICS["distance"], one, rounds=200, seed=0) for one in (table, worse)]
    assert found.value == METRICS["distance"].value(table) - METRICS["distance"].value(worse)
    reach = find_reach(values[0] - values[1], groups=20)
    assert (found.low, found.high) == pytest.approx((found.value - reach, found.value + reach))


def test_a_task_can_name_its_metrics_without_numpy() -> None:
    code = (
        "import sys; from sharpstudent.metrics.metric import make_binary_metric, make_mean_metric; "
        "make_binary_metric('auc', len), make_mean_metric(len); assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
