"""The word of a tile follows from the ends of an interval alone, by the rules at the top of report/summary.py."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sharpstudent.metrics.binary import compute_tpr_at_fpr
from sharpstudent.report.results import MetricValue, SummaryTile, TileValue
from sharpstudent.report.summary import draw_tiles, find_ends, find_word, say_tiles
from sharpstudent.report.text import bind_units, format_in
from sharpstudent.tasks.deepfake.evaluation.assemble import read_learnt
from sharpstudent.tasks.deepfake.report.tiles import MISSED


def word(low: float, high: float, chance: float | None = 0.5, perfect: float | None = 1.0, groups: int = 42) -> str:
    return find_word(MetricValue(value=0.5 * (low + high), low=low, high=high, groups=groups), chance, perfect)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.90, 0.99, "strong"),
        (0.899, 0.99, "fair"),
        (0.75, 0.99, "fair"),
        (0.749, 0.99, "weak"),
        (0.51, 0.6, "weak"),
        (0.5, 0.6, "at chance"),
        (0.4, 0.749, "at chance"),
        (0.4, 0.75, "inconclusive"),
        (0.3, 0.49, "below chance"),
    ],
)
def test_the_word_of_an_auc(low: float, high: float, expected: str) -> None:
    assert word(low, high) == expected


def test_few_groups_an_unknown_chance_and_no_value_have_words_of_their_own() -> None:
    assert word(0.95, 0.99, groups=9) == "inconclusive"
    assert word(0.95, 0.99, groups=10) == "strong"
    assert word(0.95, 0.99, chance=None) == word(0.95, 0.99, perfect=None) == "no chance level"
    assert find_word(MetricValue(value=None), 0.5, 1.0) == "not measured"
    assert find_word(MetricValue(value=0.9), 0.5, 1.0) == "inconclusive"


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_metric_that_falls_has_the_word_of_its_mirror(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert word(low, high) == word(1.0 - high, 1.0 - low, perfect=0.0)


def test_fakes_missed_are_those_that_are_not_found_at_one_per_cent_false_alarms_and_resampling_agrees() -> None:
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 2, 400), rng.integers(0, 40, 400)
    margins = rng.normal(size=400) + 1.5 * labels
    table = {"id": np.arange(400), "group": groups, "label": labels, "margin": margins}
    assert MISSED.value(table) == pytest.approx(1.0 - compute_tpr_at_fpr(margins, labels, wanted=0.01))
    assert MISSED.on_groups is not None
    counts = rng.multinomial(40, np.full(40, 1 / 40), size=3)
    drawn = MISSED.on_groups(table, groups)(counts)
    assert drawn == pytest.approx([MISSED.compute(table, one[groups]) for one in counts])


def test_a_tile_without_values_says_what_to_run_and_one_with_a_value_draws_it_on_its_scale() -> None:
    empty = SummaryTile(title="Other", format="share", ends=(0.0, 1.0), chance=0.5, note="Run it.")
    assert say_tiles([empty]) == ["Other: not measured. Run it."]
    found = MetricValue(value=0.6, low=0.2, high=1.4)
    value = TileValue(model="m", estimate=found, word="weak", about="3 pictures", is_main=True)
    (drawn,) = draw_tiles([empty.model_copy(update={"values": (value,)})])
    assert drawn["values"][0]["strip"] == [20.0, 60.0, 100.0]
    assert drawn["marks"] == ["0", "1"]
    assert find_ends(None, 4.0, 0.0, [value]) == (0.0, 4.2)
    assert find_ends(None, 0.1, 2.0, [value]) == (0.0, 2.0)


def test_numbers_are_bound_to_their_units_and_to_the_other_end_of_an_interval() -> None:
    assert (
        bind_units("at 2 % in 3.1 ms [.1, .2] (p < .001)")
        == "at 2\u00a0% in 3.1\u00a0ms [.1,\u00a0.2] (p\u00a0<\u00a0.001)"
    )
    assert bind_units("2 models, 3 sets, 4 samples") == "2 models, 3 sets, 4 samples"
    assert [format_in(0.6031, form) for form in ("share", "percent", ".1%", ".4f")] == [
        ".603",
        "60.3\u00a0%",
        "60.3\u00a0%",
        "0.6031",
    ]


def test_what_a_model_learnt_from_is_read_from_its_file_and_never_guessed() -> None:
    fitted = {"fitted_on": "validation of this run: 9 frames of 3 people, 3 real, 6 fake (self-blend)"}
    assert read_learnt({"facts": {"fakes": ["Deepfakes", "FaceSwap"]}, "calibration": fitted}) == (
        "Deepfakes",
        "FaceSwap",
    )
    assert read_learnt({"facts": {"classes": []}, "calibration": fitted}) == ("self-blend",)
    assert (
        read_learnt({"calibration": {"fitted_on": "mine: 9 frames of 3 people, 3 real, 6 fake (self-blend)"}}) is None
    )
    assert (
        read_learnt({"calibration": {"fitted_on": "validation of this run: 2 frames, 1 fake (swap, self-blend)"}})
        is None
    )
    assert read_learnt({}) is None
