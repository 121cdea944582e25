"""The verdict: its sentences in each case, and that none claims more than an interval allows."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sharpstudent.models.widths import Lighter
from sharpstudent.report.results import CostResult, MetricValue, NonInferiority, Role
from sharpstudent.report.text import format_macs
from sharpstudent.tasks.deepfake.report.decisions import ModelFinding, describe_kinds, describe_probabilities
from sharpstudent.tasks.deepfake.report.report_sets import list_sets
from sharpstudent.tasks.deepfake.report.results import (
    CalibrationResult,
    ComparisonResult,
    CorruptionCurve,
    CorruptionPoint,
    DataResult,
    ModelResult,
    OperatingPointResult,
    Results,
)
from sharpstudent.tasks.deepfake.report.tiles import list_limits
from sharpstudent.tasks.deepfake.report.verdict import write_headed_verdict, write_verdict

Triple = tuple[float, float, float]
CLAIMS = ("helped", "hurt", "better than", "ahead of", "behind its", "lighter")


def figure(value: Triple | float | None, note: str | None = None) -> MetricValue:
    if isinstance(value, tuple):
        return MetricValue(value=value[0], low=value[1], high=value[2], note=note)
    return MetricValue(value=value, note=note)


def cost(**changes: Any) -> CostResult:
    made: dict[str, Any] = {
        "parameters": 3_370_000,
        "macs": 390_000_000,
        "file_bytes": 13_700_000,
        "latency_ms": 10.4,
        "latency_p95_ms": 11.0,
        "memory_bytes": 80_000_000,
        "device": "CPU",
    }
    return CostResult(**(made | changes))


def model(name: str, role: Role = "model", **changes: Any) -> ModelResult:
    figures: Mapping[str, MetricValue] = {
        "frame_auc@test": figure((0.902, 0.88, 0.927)),
        "frame_count@test": figure(336.0),
        "frame_count_real@test": figure(168.0),
        "frame_count_fake@test": figure(168.0),
        "people_count@test": figure(42.0),
    }
    made: dict[str, Any] = {
        "file": "best_model.pth",
        "sha256": "0" * 64,
        "architecture": "tf_efficientnet_lite0",
        "image_size": 112,
        "figures": figures,
    }
    return ModelResult(name=name, role=role, **(made | changes))


def data(name: str = "test", **changes: Any) -> DataResult:
    made: dict[str, Any] = {
        "kind": "manifest",
        "split": "test",
        "fingerprint": "f" * 64,
        "frames": 336,
        "faces": 336,
        "real": 168,
        "fake": 168,
        "videos": 336,
        "people": 42,
        "faces_rule": "largest",
    }
    return DataResult(name=name, **(made | changes))


def compare(a: str, b: str, difference: Triple | float | None, of: str = "frame_auc@test") -> ComparisonResult:
    return ComparisonResult(a=a, b=b, figure=of, difference=figure(difference), p_value=None, agreement=0.912)


def results(*models: ModelResult, comparisons: tuple[ComparisonResult, ...] = (), **changes: Any) -> Results:
    made: dict[str, Any] = {
        "title": "t",
        "made_at": "2026-11-23T00:00:00Z",
        "command": "c",
        "verdict": (),
        "protocol": {},
        "data": (data(),),
    }
    return Results(models=models, comparisons=comparisons, **(made | changes))


def four(difference: Triple | float | None, **changes: Any) -> Results:
    """Teacher, before, distilled and control; difference: distilled minus control."""
    return results(
        model("teacher", "teacher"),
        model("before", "before"),
        model("student", "distilled"),
        model("hard", "control"),
        comparisons=(
            compare("student", "hard", difference),
            compare("student", "before", (0.107, 0.074, 0.142)),
            compare("student", "teacher", (-0.025, -0.048, -0.003)),
        ),
        **changes,
    )


@pytest.mark.parametrize(
    ("difference", "starts"),
    [
        ((0.02, 0.004, 0.036), "Distillation helped on test: "),
        ((-0.02, -0.036, -0.004), "Distillation hurt on test: "),
        ((-0.008, -0.026, 0.009), "Did distillation help on test? Inconclusive: the interval covers 0. "),
        ((0.01, 0.0, 0.02), "Did distillation help on test? Inconclusive: the interval covers 0. "),
        (0.02, "Did distillation help on test? Inconclusive: there is no interval. "),
        (None, "Did distillation help on test? Inconclusive: there is no interval. "),
    ],
)
def test_the_first_sentence_answers_whether_distillation_helped(difference: Triple | float | None, starts: str) -> None:
    first = write_verdict(four(difference))[0]
    assert first.startswith(starts)
    assert "as many further steps with hard labels" in first


def test_a_metric_is_given_with_its_interval_and_its_data() -> None:
    first = write_verdict(four((0.02, 0.004, 0.0361)))[0]
    assert "+.020 [+.004, +.036] (336 frames of 42 people)" in first


def test_a_comparison_in_the_other_order_is_inverted() -> None:
    turned = results(
        model("student", "distilled"),
        model("hard", "control"),
        comparisons=(compare("hard", "student", (-0.02, -0.03, -0.01)),),
    )
    assert write_verdict(turned)[0].startswith("Distillation helped on test: ")
    assert "+.020 [+.010, +.030] (" in write_verdict(turned)[0]


def test_without_a_control_the_gain_is_that_of_stage_2_as_a_whole() -> None:
    made = results(
        model("before", "before"),
        model("student", "distilled"),
        comparisons=(compare("student", "before", (0.107, 0.074, 0.142)),),
    )
    first = write_verdict(made)[0]
    assert first.startswith("Stage 2 as a whole helped on test: ")
    assert "against before, which took fewer steps" in first
    assert "stage 2 also trained longer" in write_verdict(made)[1]
    assert not any(line.startswith("Distillation helped") for line in write_verdict(made))


def test_without_control_and_stage_1_nothing_is_claimed() -> None:
    lines = write_verdict(results(model("student", "distilled")))
    assert "Inconclusive" in lines[0]
    assert not any(claim in lines[0] for claim in CLAIMS)


def test_models_without_a_comparison_are_reported_as_not_compared() -> None:
    first = write_verdict(results(model("student", "distilled"), model("hard", "control")))[0]
    assert "were not compared on the same samples" in first


def test_videos_have_a_result_of_their_own() -> None:
    made = four((0.02, 0.004, 0.036))
    video = compare("student", "hard", (0.01, -0.02, 0.04), of="video_auc_mean@test")
    first = write_verdict(made.model_copy(update={"comparisons": (*made.comparisons, video)}))[0]
    assert "By video +.010 [−.020, +.040] (336 videos of 42 people), inconclusive." in first


def test_videos_of_one_frame_each_are_not_reported_separately() -> None:
    figures = {**model("x").figures, "video_auc_mean@test": figure((0.9, 0.8, 0.95)), "video_count@test": figure(336.0)}
    assert "By video" not in write_verdict(results(model("one", figures=figures)))[0]
    fewer = figures | {"video_count@test": figure(30.0)}
    line = write_verdict(results(model("one", figures=fewer)))[0]
    assert "By video (mean of its frames) .900 [.800, .950] (30 videos of 42 people)" in line


def test_validation_data_is_used_only_if_there_is_no_other() -> None:
    chosen_on = data("val", kind="validation", split="val")
    both = four((0.02, 0.004, 0.036), data=(chosen_on, data()))
    assert not any("helped on val" in line for line in write_verdict(both))
    alone = results(
        model("student", "distilled"),
        model("hard", "control"),
        data=(chosen_on,),
        comparisons=(compare("student", "hard", (0.02, 0.004, 0.036), of="frame_auc"),),
    )
    assert write_verdict(alone)[0].startswith("Distillation helped on val (which chose the checkpoints): ")


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        ((-0.02, -0.04, -0.001), "The student is behind its teacher on test"),
        ((0.02, 0.001, 0.04), "The student is ahead of its teacher on test"),
        (
            (-0.014, -0.037, 0.009),
            "Is the student or its teacher better on test? Inconclusive: the interval covers 0, which is not to say",
        ),
        (-0.014, "Is the student or its teacher better on test? Inconclusive: there is no interval."),
    ],
)
def test_the_distance_to_the_teacher_and_how_often_they_agree(difference: Triple | float, words: str) -> None:
    made = results(
        model("teacher", "teacher"),
        model("student", "distilled"),
        comparisons=(compare("student", "teacher", difference),),
    )
    line = next(line for line in write_verdict(made) if words in line)
    assert "call 91.2 % of the frames alike" in line


def with_costs(student: CostResult | None, teacher: CostResult | None, lighter: Lighter | None = None) -> list[str]:
    made = results(model("teacher", "teacher", cost=teacher), model("student", "distilled", cost=student))
    return [line for line in write_verdict(made, lighter=lighter) if "lighter" in line or "Latenc" in line]


HEAVY = {"parameters": 17_550_000, "macs": 4_390_000_000, "file_bytes": 70_600_000, "latency_ms": 50.0}
AS_HEAVY = {"parameters": 17_430_000, "macs": 15_960_000_000, "file_bytes": 70_000_000, "latency_ms": 80.0}


def test_a_lighter_student_is_called_lighter_with_every_number() -> None:
    line, speed = with_costs(cost(), cost(**HEAVY, latency_p95_ms=52.0))
    assert line.startswith("student is lighter than teacher: ")
    for words in (
        "parameters 3.37 M against 17.55 M (81 % less)",
        f"multiply-accumulates {format_macs(390_000_000)} against 4.39 G (91 % less)",
        "File size 13.7 MB against 70.6 MB (81 % less)",
    ):
        assert words in line
    assert "differ, the first is faster: 10.4 ms and 50.0 ms a picture" in speed


def test_a_student_that_is_not_lighter_is_reported_with_a_width_that_is() -> None:
    width = Lighter("mobilevitv2_100", 4_390_000, 4_040_000_000)
    line, named, _ = with_costs(cost(**AS_HEAVY), cost(**HEAVY), width)
    assert line.startswith("student is not lighter than teacher: ")
    assert "17.43 M against 17.55 M (about as much)" in line
    assert "15.96 G against 4.39 G (3.6 times as much)" in line
    assert "mobilevitv2_100: 4.39 M parameters, 4.04 G multiply-accumulates" in named


def test_a_student_lighter_in_one_respect_is_called_lighter_in_that_one() -> None:
    line, *_ = with_costs(cost(**AS_HEAVY | {"parameters": 9_000_000}), cost(**HEAVY))
    assert line.startswith("student is lighter than teacher in parameters but not in multiply-accumulates: ")


def test_cost_that_was_not_measured_is_reported_as_unknown() -> None:
    (line,) = with_costs(None, cost())
    assert "is inconclusive: no cost was measured" in line
    line, *_ = with_costs(cost(parameters=None, macs=None), cost(**HEAVY))
    assert line.startswith("Whether student is lighter than teacher is inconclusive")
    line, *_ = with_costs(cost(macs=None), cost(**HEAVY))
    assert line.startswith("student is lighter than teacher in parameters: ")
    assert "The multiply-accumulates of both are not known" in line


def same_speed(**changes: Any) -> str:
    made = results(
        model("before", "before", cost=cost(latency_ms=10.5)), model("student", "distilled", cost=cost(**changes))
    )
    (line,) = [line for line in write_verdict(made) if line.startswith("Latencies of ")]
    return line


def test_latencies_within_noise_are_called_equal() -> None:
    assert "are equal within noise: 10.4 ms and 10.5 ms a picture (median, batch 1), on CPU." in same_speed()
    assert "equal within noise" in same_speed(latency_ms=11.5, latency_p95_ms=15.0)  # single pictures vary by 3.5 ms
    assert "are inconclusive, for single pictures vary" in same_speed(latency_ms=14.0, latency_p95_ms=18.0)
    assert "measure again" in same_speed(latency_ms=14.0, latency_p95_ms=14.1)
    assert "different devices" in same_speed(device="NVIDIA H100")


@pytest.mark.parametrize(
    ("auc", "words"),
    [
        (
            (0.902, 0.88, 0.927),
            "frame AUC of .902 [.880, .927] (336 frames of 42 people): better than chance",
        ),
        ((0.55, 0.48, 0.63), "inconclusive against chance (.5)"),
        ((0.5002, 0.50004, 0.51), "[.50004, .510]"),
        ((0.2, 0.1, 0.3), "worse than chance"),
        (0.9, "inconclusive against chance (.5) without an interval"),
    ],
)
def test_a_single_model_is_compared_with_chance(auc: Triple | float, words: str) -> None:
    one = model("one", figures={**model("x").figures, "frame_auc@test": figure(auc)})
    assert words in write_verdict(results(one))[0]


def test_metrics_of_all_data_are_those_of_the_only_set() -> None:
    plain = {name.removesuffix("@test"): value for name, value in model("x").figures.items()}
    assert write_verdict(results(model("one", figures=plain)))[0].startswith("On test one has a frame AUC of")


def test_a_set_of_one_class_has_no_metric_and_the_reason_is_given() -> None:
    one = model("one", figures={"frame_auc@test": figure(None, "no value: no fakes")})
    assert (
        "Nothing is known of how well one separates real from fake on test: no value: no fakes"
        in write_verdict(results(one))[0]
    )


def test_metrics_alone_are_enough_and_no_models_are_no_error() -> None:
    one = ModelResult(name="m", file="f", sha256="0", architecture=None, image_size=None)
    assert write_verdict(results(one, data=()))[0].startswith(
        "Nothing is known of how well m separates real from fake on the"
    )
    named = one.model_copy(update={"figures": {"frame_auc@a": figure((0.9, 0.8, 0.95)), "frame_auc@b": figure(0.5)}})
    lines = write_verdict(results(named, data=()))
    assert lines[0].startswith("On a m has a frame AUC of")
    assert lines[1].startswith("On b m has a frame AUC of")
    assert write_verdict(results()) == ("No model was evaluated.",)


def with_kinds(first: Triple, second: Triple) -> list[ModelFinding]:
    figures = {
        **model("x").figures,
        "frame_auc@test/self-blend": figure(first),
        "frame_auc@swaps": figure(second),
        "frame_auc@swaps/swap": figure(second),
    }
    made = results(model("one", figures=figures), data=(data(), data("swaps")))
    return describe_kinds(made.models[0], list_sets(made))


def test_kinds_at_chance_and_the_hardest_kind_limit_a_model() -> None:
    (worse,) = with_kinds((0.902, 0.88, 0.927), (0.618, 0.52, 0.72))
    assert worse.limits
    assert worse.text.startswith(
        "one is worse at some kinds of fake than at others: frame AUC .618 [.520, .720] at swap"
    )
    assert ".902 [.880, .927] at self-blend (test)" in worse.text
    blind, further = with_kinds((0.902, 0.88, 0.927), (0.55, 0.48, 0.63))
    assert blind == ModelFinding(
        "one is not shown to be better than chance at swap (swaps). The lowest frame AUC is .550 [.480, .630].", True
    )
    assert not further.limits
    (alike,) = with_kinds((0.7, 0.6, 0.8), (0.65, 0.51, 0.72))
    assert alike.text.startswith("Is one worse at some kinds of fake than at others? Inconclusive: ")
    assert not alike.limits


def test_what_a_model_learnt_from_is_set_beside_what_it_was_evaluated_on() -> None:
    def limit(learnt: tuple[str, ...] | None, **kinds: int) -> str:
        return " ".join(list_limits(results(model("one", learnt=learnt), data=(data(manipulations=kinds),))))

    assert "how it fares at other kinds of fake was not measured" in limit(("blend",), blend=3)
    assert "The file of one does not say which kinds of fake it learnt from." in limit(None, blend=3)
    assert "their kind is not named" in limit(("blend",), fake=3)
    assert "learnt from" not in limit(("Blend",), blend=3, swap=2)


POINT = OperatingPointResult(threshold=1.2, tpr=0.5, fpr=0.01)
CALIBRATION = CalibrationResult(
    fitted_on="validation of this run",
    temperature=1.5,
    log_loss=(0.5, 0.4),
    ece=(0.1, 0.05),
    operating_points={"frame": {"fpr_1pct": POINT, "eer": POINT}},
)


def decide(alarms: Triple, missed: Triple, name: str = "fpr_1pct", *, stored: bool = True) -> str:
    figures = {
        **model("x").figures,
        f"frame_bpcer_at_{name}@test": figure(alarms),
        f"frame_apcer_at_{name}@test": figure(missed),
    }
    lines = list_limits(results(model("one", figures=figures, calibration=CALIBRATION if stored else None)))
    (line,) = [line for line in lines if line.startswith("At ")]
    return line


def test_false_alarms_are_those_at_the_stored_threshold_and_compared_with_its_target() -> None:
    line = decide((0.06, 0.03, 0.09), (0.4, 0.3, 0.5))
    assert line.startswith(
        "At its stored threshold (1 % false alarms on validation) one misses 40.0 % [30.0 %, 50.0 %]"
    )
    assert "of 168 fake frames on test. It calls 6.0 % [3.0 %, 9.0 %] of 168 real frames fake, more than it was" in line
    assert "chosen for" not in decide((0.02, 0.0, 0.04), (0.4, 0.3, 0.5))
    assert decide((0.1, 0.0, 0.2), (0.4, 0.3, 0.5), "half", stored=False).startswith("At a probability of one half")


def test_zero_observed_errors_are_not_reported_as_an_error_rate_of_zero() -> None:
    line = decide((0.0, 0.0, 0.069), (1.0, 0.931, 1.0))
    assert "calls none of the 168 real frames (up to 6.9 % of others cannot be ruled out)" in line
    assert "inconclusive against 1 %" in line
    assert "fewer than" not in line
    assert "misses all of the 168 fake frames on test" in line


@pytest.mark.parametrize(
    ("ece", "expected", "p_value", "changes", "words"),
    [
        (
            0.064,
            0.061,
            0.43,
            {},
            "may be read as probabilities, where fakes are as",
        ),
        (0.064, 0.061, 0.43, {"frame_count": 39}, "39 frames of 42 people are too few to tell"),
        (0.064, 0.061, 0.43, {"people_count": 9}, "336 frames of 9 people are too few to tell"),
        (0.3, 0.061, 0.001, {"frame_count": 39}, "39 frames of 42 people are too few to tell"),
        (0.024, 0.014, 0.001, {}, "they are close to probabilities, but not exact"),
        (0.104, 0.061, 0.001, {}, "take them for an order, not for probabilities"),
        (0.204, 0.061, 0.001, {}, "do not read them as probabilities"),
    ],
)
def test_calibration_is_judged_by_what_a_calibrated_model_would_have(
    ece: float, expected: float, p_value: float, changes: dict[str, int], words: str
) -> None:
    named = {"": 0.3, "_calibrated": ece, "_expected_calibrated": expected, "_p_value_calibrated": p_value}
    figures = {**model("x").figures, **{f"frame_ece{end}@test": figure(value) for end, value in named.items()}}
    figures |= {f"{name}@test": figure(float(count)) for name, count in changes.items()}
    made = results(model("one", figures=figures))
    (found,) = describe_probabilities(made.models[0], list_sets(made))
    assert words in found.text
    assert "after the stored temperature). Labels drawn from them give ." in found.text
    assert found.limits == ("may be read" not in words and "close to" not in words)
    assert (found.text in list_limits(made)) == found.limits != (found.text in write_verdict(made))


def test_frames_without_a_face_are_counted_with_their_reasons() -> None:
    sets = (data(frames=348, without_decision={"no face": 10, "cannot be read": 2}), data("other"))
    made = results(model("one"), data=sets)
    lines = [*list_limits(made), *write_verdict(made)]
    assert (
        "On test 12 of 348 frames (3.4 %) have no decision (no face: 10; cannot be read: 2): they are part of no "
        "metric." in lines
    )
    assert "Every frame of other has a decision." in lines


def write_corruption_sentence(worst: Triple) -> str:
    def curve(name: str, auc: Triple) -> CorruptionCurve:
        aucs = ((0.9, 0.88, 0.92), auc)
        points = [
            CorruptionPoint(strength=i, label="none" if i == 0 else "quality 30", auc=figure(one))
            for i, one in enumerate(aucs)
        ]
        return CorruptionCurve(name=name, unit="quality", points=tuple(points), area=0.8)

    one = model("one", robustness=(curve("blur", (0.89, 0.86, 0.91)), curve("JPEG", worst)))
    made = results(one)
    (line,) = [line for line in (*list_limits(made), *write_verdict(made)) if "corruption" in line]
    return line


def test_the_worst_corruption_is_named_with_its_severity() -> None:
    assert write_corruption_sentence((0.7, 0.65, 0.75)).startswith(
        "JPEG at quality 30 harms one most of 2 corruptions tried: frame AUC .700"
    )
    assert write_corruption_sentence((0.88, 0.85, 0.9)).startswith("Does any corruption harm one? Inconclusive")
    assert "not shown to be better than chance" in write_corruption_sentence((0.53, 0.48, 0.58))


def test_models_without_roles_are_compared_by_name() -> None:
    made = results(
        model("a"),
        model("b"),
        model("c"),
        comparisons=(compare("a", "b", (-0.03, -0.05, -0.01)), compare("a", "c", (0.01, -0.01, 0.03))),
    )
    lines = write_verdict(made)
    assert lines[0].startswith("b separates real from fake better than a on test: difference in frame AUC +.030")
    assert lines[1].startswith("Which of a and c is better on test? Inconclusive: the interval covers 0. ")


def test_many_comparisons_bring_a_warning_of_chance() -> None:
    names = "abcd"
    pairs = [(a, b) for a in names for b in names if a < b]
    made = results(*map(model, names), comparisons=tuple(compare(a, b, (0.02, 0.01, 0.03)) for a, b in pairs))
    assert any(line.startswith("These are 6 comparisons") for line in write_verdict(made))


def test_hostile_names_stay_on_one_line_and_show_what_they_hide() -> None:
    lines = write_verdict(results(model("a\nDistillation helped\u202e"), data=(data("x\ty"),)))
    assert not any("\n" in line or "\u202e" in line for line in lines)


def triples() -> st.SearchStrategy[Triple]:
    ends = st.one_of(st.floats(-1, 1), st.floats(-1e-5, 1e-5), st.sampled_from((0.0, 1e-6, -1e-6)))
    return st.tuples(ends, ends, ends).map(lambda three: (sorted(three)[1], min(three), max(three)))


@settings(max_examples=150, deadline=None)
@given(triples(), triples(), triples(), st.booleans())
def test_no_sentence_claims_a_difference_whose_interval_covers_0(
    control: Triple, before: Triple, teacher: Triple, has_control: bool
) -> None:
    models = [model("teacher", "teacher"), model("before", "before"), model("student", "distilled")]
    comparisons = [compare("student", "before", before), compare("student", "teacher", teacher)]
    if has_control:
        models.append(model("hard", "control"))
        comparisons.append(compare("hard", "student", (-control[0], -control[2], -control[1])))
    lines = write_verdict(results(*models, comparisons=tuple(comparisons)))

    def has_line(starts: str) -> bool:
        return any(line.startswith(starts) for line in lines)

    for said, triple, up, down in (
        (has_control, control, "Distillation helped", "Distillation hurt"),
        (True, before, "Stage 2 as a whole helped", "Stage 2 as a whole hurt"),
        (True, teacher, "The student is ahead", "The student is behind"),
    ):
        _, low, high = triple
        assert has_line(up) <= (said and low > 0)
        assert has_line(down) <= (said and high < 0)
        if said and low > 1e-5:
            assert has_line(up)
    helped = [line for line in lines if "helped" in line]
    assert len(helped) == has_line("Distillation helped") + has_line("Stage 2 as a whole helped")


@pytest.mark.parametrize(("groups", "is_claimed"), [(9, False), (10, True), (42, True)])
def test_below_the_fewest_people_no_sentence_and_no_headline_claims_anything_and_both_say_why(
    groups: int, is_claimed: bool
) -> None:
    def limit(one: MetricValue) -> MetricValue:
        return one if one.low is None else one.model_copy(update={"groups": groups})

    def limit_figures(one: ModelResult) -> ModelResult:
        return one.model_copy(update={"figures": {name: limit(found) for name, found in one.figures.items()}})

    whole = four((0.02, 0.004, 0.036))
    models = tuple(map(limit_figures, whole.models))
    compared = tuple(one.model_copy(update={"difference": limit(one.difference)}) for one in whole.comparisons)
    made = [whole.model_copy(update={"models": models, "comparisons": compared})]
    alone = tuple(one.model_copy(update={"role": "model"}) for one in models[:2])
    made.append(results(*alone, comparisons=(compared[1].model_copy(update={"a": "teacher"}),)))
    made.append(results(alone[0]))
    for one in made:
        headline, *lines = write_headed_verdict(one)
        claims = [line for line in lines if any(claim in line for claim in CLAIMS)]
        assert bool(claims) == is_claimed, claims
        assert (f"rests on {groups} people, and a claim needs 10" in headline) == (not is_claimed)
        assert is_claimed or "helped on" not in headline


def test_as_good_within_the_margin_is_said_only_where_its_own_test_shows_it() -> None:
    def write(*as_good: str) -> str:
        test = NonInferiority.model_validate({"margin": 0.01, "p_a": 0.004, "p_b": 0.3, "as_good": as_good})
        pair = compare("student", "hard", (-0.002, -0.008, 0.004)).model_copy(update={"non_inferiority": test})
        return write_verdict(results(model("student", "distilled"), model("hard", "control"), comparisons=(pair,)))[0]

    assert "student is as good as hard within .01 (p .004)" in write("a")
    assert "hard is as good as student within .01" in write("b")
    assert "each is as good as the other within .01 (p .300)" in write("a", "b")
    assert "as good" not in write()


@settings(max_examples=100, deadline=None)
@given(triples(), triples())
def test_printed_ends_lie_on_the_side_that_the_sentence_claims(difference: Triple, other: Triple) -> None:
    made = results(
        model("a"),
        model("b"),
        model("c"),
        comparisons=(compare("a", "b", difference), compare("c", "b", other)),
    )
    for line in write_verdict(made)[:2]:
        found = re.search(r"AUC \S+ \[(\S+), (\S+)\]", line)
        assert found is not None
        low, high = (float(end.replace("−", "-")) for end in found.groups())
        assert (low > 0) == ("better than" in line)
        assert low <= high


def test_the_verdict_loads_without_torch() -> None:
    code = (
        "import sys, sharpstudent.tasks.deepfake.report.verdict\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'timm')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
