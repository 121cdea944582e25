"""The first line of a verdict: short, and no bolder than the intervals."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sharpstudent.report.results import MetricValue, Role
from sharpstudent.tasks.deepfake.report.results import ComparisonResult, ModelResult, Results
from sharpstudent.tasks.deepfake.report.tiles import list_limits
from sharpstudent.tasks.deepfake.report.verdict import write_headed_verdict, write_verdict

Ends = tuple[float, float, float]


def make_model(name: str, role: Role, **aucs: Ends) -> ModelResult:
    figures = {
        f"frame_auc@{source}": MetricValue(value=value, low=low, high=high)
        for source, (value, low, high) in aucs.items()
    }
    return ModelResult(
        name=name, role=role, file=f"{name}.pth", sha256=None, architecture=None, image_size=None, figures=figures
    )


def make_results(*models: ModelResult, **differences: Ends) -> Results:
    """differences: of the first model minus the second, by set."""
    comparisons = tuple(
        ComparisonResult(
            a=models[0].name,
            b=models[1].name,
            figure=f"frame_auc@{source}",
            difference=MetricValue(value=value, low=low, high=high),
            p_value=None,
            agreement=0.9,
        )
        for source, (value, low, high) in differences.items()
    )
    return Results(
        title="t", made_at="", command="", verdict=(), protocol={}, data=(), models=models, comparisons=comparisons
    )


def write(results: Results) -> str:
    headline, *rest = write_headed_verdict(results)
    assert tuple(rest) == write_verdict(results)
    return headline


def compare_stages(other: Role, **differences: Ends) -> str:
    auc = dict.fromkeys(differences, (0.8, 0.7, 0.9))
    return write(make_results(make_model("D", "distilled", **auc), make_model("O", other, **auc), **differences))


def test_each_set_gets_the_word_that_its_interval_allows() -> None:
    sentence = compare_stages("before", blends=(0.1, 0.07, 0.14), swaps=(0.06, -0.02, 0.16))
    assert sentence == "Stage 2 as a whole helped on blends, inconclusive on swaps."
    assert compare_stages("control", blends=(-0.1, -0.14, -0.07)) == "Distillation hurt on blends."
    assert (
        compare_stages("control", a=(0.1, 0.05, 0.2), b=(-0.1, -0.2, -0.05))
        == "Distillation helped on a and hurt on b."
    )
    assert compare_stages("before", swaps=(0.0, -0.1, 0.1)) == (
        "Whether stage 2 as a whole helped is inconclusive on this data."
    )


@settings(max_examples=200, deadline=None)
@given(st.floats(-0.5, 0.5), st.floats(0.0, 0.3), st.floats(0.0, 0.3), st.sampled_from(["before", "control"]))
def test_helped_and_hurt_are_said_only_where_the_interval_leaves_0_out(
    value: float, below: float, above: float, other: Role
) -> None:
    low, high = value - below, value + above
    sentence = compare_stages(other, data=(value, low, high))
    if "helped on" in sentence:
        assert low > 0.0
    if "hurt on" in sentence:
        assert high < 0.0


def test_one_model_is_given_with_its_auc_on_each_set_and_where_it_may_be_chance() -> None:
    sentence = write(make_results(make_model("M", "model", blends=(0.902, 0.88, 0.92), swaps=(0.55, 0.45, 0.65))))
    assert sentence == "Frame AUC .902 on blends; .550 on swaps, not shown to be better than chance."


def test_of_several_models_the_highest_is_named_for_each_set() -> None:
    models = (
        make_model("A", "model", x=(0.9, 0.8, 0.95), y=(0.6, 0.5, 0.7)),
        make_model("B", "model", x=(0.8, 0.7, 0.9), y=(0.7, 0.6, 0.8)),
    )
    assert write(make_results(*models)) == "Highest frame AUC: A on x (.900); B on y (.700)."


@pytest.mark.parametrize("role", ["model", "distilled"])
def test_without_metrics_nothing_is_claimed(role: Role) -> None:
    assert "Nothing is known" in write(make_results(make_model("M", role)))


@pytest.mark.parametrize(("people", "is_warned"), [(4, True), (9, True), (10, False), (42, False)])
def test_people_too_few_for_any_claim_are_said_to_be_so(people: int, is_warned: bool) -> None:
    model = make_model("M", "model", data=(0.9, 0.8, 0.95))
    counted = model.model_copy(update={"figures": {**model.figures, "people_count@data": MetricValue(value=people)}})
    warned = [line for line in list_limits(make_results(counted)) if "a claim needs" in line]
    assert warned == ([f"data has only {people} people: a claim needs 10."] * is_warned)
