"""Schedules: the published tables to the digit, and the shapes that hold for any numbers."""

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sharpstudent.core.schedules import (
    ConfigSchedule,
    Constant,
    Cosine,
    FlatThenLinear,
    Linear,
    Progress,
    Ramp,
    RiseThenLinear,
    Schedule,
    Staircase,
    Table,
    TwoStage,
)

SHARE = st.floats(0.0, 1.0)
GUIDE = Staircase(start=0.95, end=0.5, epochs=20)
GUIDE_TABLE = [0.95] * 5 + [0.85] * 5 + [0.75] * 5 + [0.65] * 5 + [0.5] * 5


def at_epoch(epoch: int) -> Progress:
    return Progress(epoch=epoch, step=0, epochs=100, steps_per_epoch=7)


def list_steps(epochs: int, steps_per_epoch: int) -> list[Progress]:
    return [Progress(e, s, epochs, steps_per_epoch) for e in range(1, epochs + 1) for s in range(steps_per_epoch)]


def test_the_table_of_the_guide_is_exact_for_epochs_1_to_25() -> None:
    assert [GUIDE(at_epoch(epoch)) for epoch in range(1, 26)] == GUIDE_TABLE


def test_the_soft_labels_of_the_guide_are_its_complement_to_the_digit() -> None:
    soft = replace(GUIDE, complement=True)
    assert [soft(at_epoch(e)) for e in range(1, 26)] == [0.05] * 5 + [0.15] * 5 + [0.25] * 5 + [0.35] * 5 + [0.5] * 5


def test_the_steps_within_an_epoch_do_not_move_the_staircase() -> None:
    values = {GUIDE(Progress(epoch=6, step=step, epochs=100, steps_per_epoch=7)) for step in range(7)}
    assert values == {0.85}


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [(1, [0.95, 0.5, 0.5]), (2, [0.95, 0.75, 0.5]), (4, [0.95, 0.85, 0.75, 0.65, 0.5]), (3, [0.95, 0.85, 0.75, 0.5])],
    ids=str,
)
def test_short_staircases_skip_stairs_but_keep_both_ends(epochs: int, expected: list[float]) -> None:
    schedule = Staircase(start=0.95, end=0.5, epochs=epochs)
    assert [schedule(at_epoch(epoch)) for epoch in range(1, len(expected) + 1)] == expected


@given(SHARE, SHARE, st.integers(1, 60), st.integers(1, 12))
def test_a_falling_staircase_never_rises_and_keeps_between_its_ends(
    one: float, other: float, epochs: int, stairs: int
) -> None:
    start, end = max(one, other), min(one, other)
    schedule = Staircase(start=start, end=end, epochs=epochs, stairs=stairs)
    values = [schedule(at_epoch(epoch)) for epoch in range(1, epochs + 4)]
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(start, abs=1e-12)
    assert values[epochs:] == [end] * 3
    assert all(end <= value <= start for value in values)


@given(st.integers(1, 12))
def test_the_drop_to_the_end_is_one_and_a_half_stairs_high(stairs: int) -> None:
    schedule = Staircase(start=1.0, end=0.0, epochs=stairs, stairs=stairs)
    values = [schedule(at_epoch(epoch)) for epoch in range(1, stairs + 2)]
    drops = [before - after for before, after in itertools.pairwise(values)]
    assert drops == pytest.approx([drops[-1] / 1.5] * (stairs - 1) + [drops[-1]], abs=1e-11)


@given(SHARE, SHARE, st.integers(1, 60))
def test_a_rising_staircase_is_the_falling_one_upside_down(one: float, other: float, epochs: int) -> None:
    falling = Staircase(start=max(one, other), end=min(one, other), epochs=epochs)
    rising = Staircase(start=min(one, other), end=max(one, other), epochs=epochs)
    for epoch in range(1, epochs + 2):
        assert falling(at_epoch(epoch)) + rising(at_epoch(epoch)) == pytest.approx(one + other, abs=1e-11)


@given(SHARE, st.integers(1, 60))
def test_a_staircase_without_a_drop_is_constant(value: float, epochs: int) -> None:
    schedule = Staircase(start=value, end=value, epochs=epochs)
    assert [schedule(at_epoch(epoch)) for epoch in range(1, epochs + 2)] == [value] * (epochs + 1)


@given(SHARE, SHARE, st.integers(1, 60), st.integers(1, 80))
def test_hard_and_soft_weights_add_up_to_1(start: float, end: float, epochs: int, epoch: int) -> None:
    hard = Staircase(start=start, end=end, epochs=epochs)
    assert hard(at_epoch(epoch)) + replace(hard, complement=True)(at_epoch(epoch)) == pytest.approx(1.0, abs=1e-12)


def test_constants_do_not_move() -> None:
    assert {Constant(0.3)(at_epoch(epoch)) for epoch in range(1, 101)} == {0.3}


@pytest.mark.parametrize(
    "schedule",
    [
        GUIDE,
        replace(GUIDE, complement=True),
        Constant(0.3),
        FlatThenLinear(0.1),
        RiseThenLinear(1.0, end=0.2),
        Linear(0.9, 0.5),
        Cosine(0.9, 0.5),
        Ramp(0.4, 3),
        Table({"1": 0.9, "10": 0.5}),
        TwoStage(1.0, 0.3, 5),
    ],
    ids=str,
)
def test_a_schedule_remembers_nothing(schedule: Schedule) -> None:
    forwards = [schedule(at_epoch(epoch)) for epoch in range(1, 101)]
    backwards = [schedule(at_epoch(epoch)) for epoch in range(100, 0, -1)]
    assert forwards == backwards[::-1]


@pytest.mark.parametrize(
    ("progress", "fraction"),
    [
        (Progress(1, 0, 4, 5), 0.0),
        (Progress(1, 1, 4, 5), 0.05),
        (Progress(3, 0, 4, 5), 0.5),
        (Progress(4, 4, 4, 5), 0.95),
    ],
    ids=str,
)
def test_the_fraction_counts_the_steps_already_done(progress: Progress, fraction: float) -> None:
    assert progress.fraction == fraction


def test_the_learning_rate_of_the_reference_is_flat_to_three_quarters_then_linear() -> None:
    # 100 epochs of 1 step: 1.0 up to epoch 76 (75 done), then down by 1/25 an epoch; the last epoch still learns.
    rates = [FlatThenLinear(1.0)(step) for step in list_steps(100, 1)]
    assert rates[:76] == [1.0] * 76
    assert rates[76:] == pytest.approx([1.0 - k / 25 for k in range(1, 25)])
    assert rates[-1] == pytest.approx(0.04)


@given(st.floats(1e-6, 10.0), st.floats(0.0, 0.99), st.integers(1, 8), st.integers(1, 12))
def test_flat_then_linear_is_its_closed_form_at_every_step(
    value: float, flat: float, epochs: int, steps_per_epoch: int
) -> None:
    schedule, total = FlatThenLinear(value, flat=flat), epochs * steps_per_epoch
    for done, progress in enumerate(list_steps(epochs, steps_per_epoch)):
        share = done / total
        expected = value * min(1.0, (1.0 - share) / (1.0 - flat))
        assert schedule(progress) == pytest.approx(expected, rel=1e-9)
        assert schedule(progress) > 0.0


def test_flat_1_never_falls() -> None:
    assert {FlatThenLinear(0.2, flat=1.0)(step) for step in list_steps(5, 4)} == {0.2}


def test_a_warmup_rises_in_equal_steps_and_takes_its_first_step_above_zero() -> None:
    rates = [FlatThenLinear(1.0, warmup=0.25)(step) for step in list_steps(5, 4)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5:16] == [1.0] * 11


@given(st.floats(0.0, 0.5), st.integers(1, 8), st.integers(1, 12))
def test_a_warmup_never_falls_nor_exceeds_the_value(warmup: float, epochs: int, steps_per_epoch: int) -> None:
    schedule = FlatThenLinear(1.0, flat=0.5, warmup=warmup)
    rates = [schedule(step) for step in list_steps(epochs, steps_per_epoch) if step.fraction < 0.5]
    assert rates == sorted(rates)
    assert all(0.0 < rate <= 1.0 for rate in rates)


# --- The SAM radius: rising, then linear ----------------------------------------------------------------------------


def test_a_radius_with_nothing_said_is_constant_to_the_bit() -> None:
    assert {RiseThenLinear(0.05, end=0.05)(step) for step in list_steps(5, 4)} == {0.05}


def test_a_radius_rises_in_equal_steps_and_takes_its_first_step_above_zero() -> None:
    radii = [RiseThenLinear(1.0, end=1.0, rise=0.25)(step) for step in list_steps(5, 4)]
    assert radii == pytest.approx([0.2, 0.4, 0.6, 0.8] + [1.0] * 16)


def test_a_radius_moves_linearly_to_its_end_after_the_rise() -> None:
    radii = [RiseThenLinear(1.0, end=0.2, rise=0.5)(step) for step in list_steps(2, 4)]
    assert radii == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 0.8, 0.6, 0.4])


@given(st.floats(1e-6, 10.0), st.floats(0.0, 10.0), st.floats(0.0, 0.99), st.integers(1, 8), st.integers(1, 12))
def test_rise_then_linear_is_its_closed_form_at_every_step(
    value: float, end: float, rise: float, epochs: int, steps_per_epoch: int
) -> None:
    schedule, total = RiseThenLinear(value, end=end, rise=rise), epochs * steps_per_epoch
    for done, progress in enumerate(list_steps(epochs, steps_per_epoch)):
        share = done / total
        if share < rise:
            expected = value * min(1.0, (done + 1) / (total * rise))
        else:
            expected = value + (end - value) * (share - rise) / (1.0 - rise)
        assert schedule(progress) == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert 0.0 <= schedule(progress) <= max(value, end) * (1 + 1e-12)


def test_a_radius_that_rises_over_the_whole_run_never_divides_by_zero() -> None:
    radii = [RiseThenLinear(0.5, end=0.1, rise=1.0)(step) for step in list_steps(2, 5)]
    assert radii == pytest.approx([0.05 * k for k in range(1, 11)])


# --- From one value to another over the run -------------------------------------------------------------------------

NUMBER = st.floats(-1e6, 1e6)
ANY = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize("kind", [Linear, Cosine])
@given(start=ANY, end=ANY, epochs=st.integers(1, 9), steps=st.integers(1, 9))
def test_linear_and_cosine_meet_both_ends_to_the_bit(
    kind: type[Linear] | type[Cosine], start: float, end: float, epochs: int, steps: int
) -> None:
    values = [kind(start, end)(step) for step in list_steps(epochs, steps)]
    assert values[0] == start
    assert values[-1] == (end if len(values) > 1 else start)
    assert all(min(start, end) <= value <= max(start, end) for value in values)


@given(NUMBER, NUMBER, st.integers(1, 9), st.integers(1, 9))
def test_a_linear_schedule_takes_equal_strides(start: float, end: float, epochs: int, steps: int) -> None:
    values = [Linear(start, end)(step) for step in list_steps(epochs, steps)]
    strides = [after - before for before, after in itertools.pairwise(values)]
    assert strides == pytest.approx([(end - start) / max(1, len(strides))] * len(strides), rel=1e-9, abs=1e-8)


@given(NUMBER, NUMBER, st.integers(1, 9), st.integers(2, 9))
def test_a_cosine_schedule_is_its_closed_form_at_every_step(start: float, end: float, epochs: int, steps: int) -> None:
    total = epochs * steps
    for index, progress in enumerate(list_steps(epochs, steps)):
        expected = start + 0.5 * (1 - math.cos(math.pi * index / (total - 1))) * (end - start)
        assert Cosine(start, end)(progress) == pytest.approx(expected, rel=1e-9, abs=1e-8)


def test_half_way_a_cosine_is_half_way_and_before_that_behind_a_line() -> None:
    steps = list_steps(1, 101)
    line, cosine = ([kind(1.0, 0.0)(step) for step in steps] for kind in (Linear, Cosine))
    assert cosine[50] == pytest.approx(0.5)
    assert all(c > straight for c, straight in zip(cosine[1:50], line[1:50], strict=True))
    assert all(c < straight for c, straight in zip(cosine[51:100], line[51:100], strict=True))


# --- Ramps, tables, two stages --------------------------------------------------------------------------------------


def test_a_ramp_rises_by_equal_steps_from_above_0_over_its_epochs_and_stays() -> None:
    assert [Ramp(1.0)(step) for step in list_steps(2, 4)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert [Ramp(1.0, 2)(step) for step in list_steps(2, 2)] == [0.25, 0.5, 0.75, 1.0]


@given(NUMBER, st.integers(1, 5), st.integers(1, 9))
def test_a_ramp_has_its_whole_value_from_its_last_step_on(value: float, epochs: int, steps: int) -> None:
    values = [Ramp(value, epochs)(step) for step in list_steps(epochs + 1, steps)]
    assert set(values[epochs * steps - 1 :]) == {value}
    assert [abs(v) for v in values] == sorted(abs(v) for v in values)


def test_a_table_holds_each_value_from_its_epoch_to_the_next() -> None:
    table = Table({"6": 0.8, "1": 0.9, "3": 0.7})
    assert [table(at_epoch(epoch)) for epoch in range(1, 9)] == [0.9, 0.9, 0.7, 0.7, 0.7, 0.8, 0.8, 0.8]


def test_two_stages_change_once_after_the_last_epoch_of_the_first() -> None:
    schedule = TwoStage(1.0, 0.3, epochs=3)
    assert [schedule(at_epoch(epoch)) for epoch in range(1, 7)] == [1.0, 1.0, 1.0, 0.3, 0.3, 0.3]
    assert {schedule(Progress(3, step, 100, 7)) for step in range(7)} == {1.0}


# --- Whether a schedule moves ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "constant"),
    [
        (Constant(0.3), 0.3),
        (GUIDE, None),
        (Staircase(0.4, 0.4, 9), 0.4),
        (Linear(0.4, 0.4), 0.4),
        (Linear(0.4, 0.5), None),
        (Cosine(0.0, 0.0), 0.0),
        (Cosine(0.0, 0.1), None),
        (TwoStage(0.2, 0.2, 3), 0.2),
        (TwoStage(0.2, 0.0, 3), None),
        (Table({"1": 0.5, "4": 0.5}), 0.5),
        (Table({"1": 0.5, "4": 0.4}), None),
        (Ramp(0.0), 0.0),
        (Ramp(0.5), None),
        (Constant(1.0, complement=True), 0.0),
        (replace(GUIDE, complement=True), None),
    ],
    ids=str,
)
def test_a_schedule_that_never_moves_is_known_by_its_value(schedule: ConfigSchedule, constant: float | None) -> None:
    assert schedule.constant == constant
    if constant is not None:
        assert {schedule(progress) for progress in list_steps(12, 3)} == {constant}
