"""Schedules in the config: every kind can be written, and what is wrong is reported with its key before training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from config_page import EXAMPLES, build_config_docs, build_schema
from config_samples import WEIGHTS, resolve_keys
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from sharpstudent.config.describe import describe_scheduled, print_resolved
from sharpstudent.config.load import validate_keys
from sharpstudent.config.resolve import describe_choices
from sharpstudent.config.run_config import (
    AnySchedule,
    OptimizerSection,
    RunConfig,
    Stage,
    TermSection,
)
from sharpstudent.config.scheduled import (
    build_lr_schedule,
    build_rho_schedule,
    check_schedule,
    compute_peak,
    probe,
)
from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.schedules import KINDS, ConfigSchedule, Progress
from sharpstudent.tasks.deepfake.task import DeepfakeTask

FALLING = {"kind": "linear", "start": 0.1, "end": 0.01}
RISING = {"kind": "linear", "start": 0.02, "end": 0.1}


READER: TypeAdapter[ConfigSchedule] = TypeAdapter(AnySchedule)


def section(**fields: Any) -> ConfigSchedule:
    return READER.validate_python(fields)


def problems_of(stage: Stage = 2, **keys: Any) -> dict[str, Problem]:
    with pytest.raises(UserError) as caught:
        resolve_keys(stage, **keys)
    return {problem.where: problem for problem in caught.value.problems}


def resolve_or_error(stage: Stage, **keys: Any) -> RunConfig | UserError:
    try:
        return resolve_keys(stage, **keys)
    except UserError as error:
        return error


def notes_of(stage: Stage, **keys: Any) -> str:
    return "\n".join(describe_choices(validate_keys(WEIGHTS | keys, DeepfakeTask), stage))


def values_of(config: RunConfig, which: str, steps: int = 2) -> list[float]:
    schedule = (build_lr_schedule if which == "lr" else build_rho_schedule)(config.optimizer)
    epochs = config.training.epochs
    return [schedule(Progress(epoch, step, epochs, steps)) for epoch in range(1, epochs + 1) for step in range(steps)]


# --- What is written is what runs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"kind": "constant", "value": 0.5}, [0.5] * 6),
        ({"kind": "linear", "start": 1.0, "end": 0.0}, [1.0, 0.8, 0.6, 0.4, 0.2, 0.0]),
        ({"kind": "cosine", "start": 1.0, "end": 0.0}, [1.0, 0.9045085, 0.6545085, 0.3454915, 0.0954915, 0.0]),
        ({"kind": "staircase", "start": 0.95, "end": 0.5, "epochs": 2}, [0.95, 0.95, 0.75, 0.75, 0.5, 0.5]),
        ({"kind": "staircase", "start": 1.0, "end": 0.0, "epochs": 2, "stairs": 1}, [1.0, 1.0, 1.0, 1.0, 0.0, 0.0]),
        ({"kind": "ramp", "value": 0.4}, [0.2, 0.4, 0.4, 0.4, 0.4, 0.4]),
        ({"kind": "ramp", "value": 0.4, "epochs": 2}, [0.1, 0.2, 0.3, 0.4, 0.4, 0.4]),
        ({"kind": "table", "points": {"3": 0.5, "1": 0.9}}, [0.9, 0.9, 0.9, 0.9, 0.5, 0.5]),
        ({"kind": "two_stage", "start": 1.0, "end": 0.3, "epochs": 1}, [1.0, 1.0, 0.3, 0.3, 0.3, 0.3]),
        ({"kind": "linear", "start": 1.0, "end": 0.0, "complement": True}, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
    ],
    ids=lambda part: part["kind"] if isinstance(part, dict) else "",
)
def test_every_kind_of_schedule_can_be_written(fields: dict[str, Any], expected: list[float]):
    schedule = section(**fields)
    steps = [Progress(epoch, step, 3, 2) for epoch in (1, 2, 3) for step in (0, 1)]
    assert [schedule(progress) for progress in steps] == pytest.approx(expected, abs=1e-7)


def test_the_page_has_an_example_of_every_kind_that_can_be_built():
    assert [example["kind"] for _, example in EXAMPLES] == list(KINDS)
    for _, example in EXAMPLES:
        assert section(**example)
    page = build_config_docs(DeepfakeTask)
    assert '`{"kind": "cosine", "start": 0.9, "end": 0.5}`' in page
    assert "a number, at least 0 and at most 1e+38, or a schedule in braces" in page


def test_the_schema_lets_an_editor_complete_a_schedule_in_place_of_a_number():
    schema = build_schema(DeepfakeTask)
    assert {"$ref": "#/$defs/AnySchedule"} in schema["properties"]["lr"]["oneOf"]
    for name, kind in KINDS.items():
        assert {"$ref": f"#/$defs/{kind.__name__}"} in schema["$defs"]["AnySchedule"]["oneOf"]
        assert schema["$defs"][kind.__name__]["properties"]["kind"]["const"] == name


# --- lr and rho ------------------------------------------------------------------------------------------------------


def test_a_schedule_of_rho_reaches_the_optimizer_and_its_peak_stands_for_the_number():
    config = resolve_keys(2, epoch=3, rho=RISING)
    assert values_of(config, "rho") == pytest.approx([0.02, 0.036, 0.052, 0.068, 0.084, 0.1])
    assert config.optimizer.rho == 0.1
    assert config.optimizer.rho_schedule == section(**RISING)
    assert config.optimizer.lr_schedule is None


def test_a_schedule_of_lr_reaches_the_optimizer_and_the_flat_shape_is_idle():
    config = resolve_keys(2, epoch=2, lr=FALLING)
    assert values_of(config, "lr") == pytest.approx([0.1, 0.07, 0.04, 0.01])
    assert (config.optimizer.lr, config.optimizer.flat, config.optimizer.warmup) == (0.1, 1.0, 0.0)


def test_a_number_keeps_the_flat_shape():
    config = resolve_keys(2, epoch=2, lr=0.1)
    assert values_of(config, "lr") == pytest.approx([0.1, 0.1, 0.1, 0.1])
    assert values_of(resolve_keys(2, epoch=2, lr=0.1, flat=0.5), "lr") == pytest.approx([0.1, 0.1, 0.1, 0.05])


@pytest.mark.parametrize(
    ("fields", "doubled"),
    [
        (FALLING, {"kind": "linear", "start": 0.2, "end": 0.02}),
        ({"kind": "ramp", "value": 0.3, "epochs": 2}, {"kind": "ramp", "value": 0.6, "epochs": 2}),
        ({"kind": "table", "points": {"1": 0.1, "5": 0.2}}, {"kind": "table", "points": {"1": 0.2, "5": 0.4}}),
    ],
    ids=lambda part: part["kind"],
)
def test_stage_1_takes_twice_every_value_of_the_flat_schedule_and_its_own_as_it_stands(
    fields: dict[str, Any], doubled: dict[str, Any]
):
    assert resolve_keys(1, lr=fields).optimizer.lr_schedule == section(**doubled)
    assert resolve_keys(2, lr=fields).optimizer.lr_schedule == section(**fields)
    assert resolve_keys(1, stage1={"lr": fields}).optimizer.lr_schedule == section(**fields)
    assert resolve_keys(2, stage1={"lr": fields}).optimizer.lr_schedule is None


def test_a_stage_may_have_a_number_where_the_flat_key_is_a_schedule():
    config = resolve_keys(2, lr=FALLING, stage2={"lr": 0.3, "flat": 0.5})
    assert (config.optimizer.lr, config.optimizer.lr_schedule, config.optimizer.flat) == (0.3, None, 0.5)


@pytest.mark.parametrize(
    ("stage", "keys", "where"),
    [
        (2, {"lr": FALLING, "flat": 0.75}, "flat"),
        (1, {"lr": FALLING, "warmup": 0.1}, "warmup"),
        (2, {"lr": FALLING, "stage2": {"flat": 0.5}}, "stage2.flat"),
        (2, {"stage2": {"lr": FALLING, "warmup": 0.5}}, "stage2.warmup"),
        (2, {"rho": RISING, "rho_end": 0.0}, "rho_end"),
        (1, {"rho": RISING, "stage1": {"rho_warmup": 0.5}}, "stage1.rho_warmup"),
        (1, {"stage1": {"rho": RISING, "rho_end": 0.2}}, "stage1.rho_end"),
    ],
)
def test_a_schedule_and_a_key_that_shapes_the_same_number_contradict(stage: Stage, keys: dict[str, Any], where: str):
    found = problems_of(stage, **keys)
    assert set(found) == {where}
    assert "contradicts" in found[where].what
    assert str(found[where].remedy).startswith(f"leave {where} out")


@pytest.mark.parametrize("keys", [{"flat": 1.0}, {"warmup": 0.0}, {"stage1": {"flat": 0.5}}])
def test_an_idle_key_or_one_of_the_other_stage_contradicts_nothing(keys: dict[str, Any]):
    assert resolve_keys(2, lr=FALLING, **keys).optimizer.lr_schedule is not None


def test_a_flat_key_beside_a_schedule_of_one_stage_serves_the_other_and_the_log_says_so():
    keys = {"flat": 0.5, "stage2": {"lr": FALLING}}
    assert "in stage 2 the schedule stage2.lr replaces flat" in notes_of(2, **keys)
    assert "in the place of" not in notes_of(1, **keys)
    assert resolve_keys(2, **keys).optimizer.flat == 1.0
    assert resolve_keys(1, **keys).optimizer.flat == 0.5


def test_the_log_says_where_a_schedule_of_lr_goes():
    assert "stage 1 learns at lr 0.2 to 0.02 (linear): twice the flat lr 0.1 to 0.01 (linear)" in notes_of(
        1, lr=FALLING
    )


@pytest.mark.parametrize(
    ("keys", "where", "got"),
    [
        ({"lr": {"kind": "cosine", "start": 0.1, "end": 0.0}}, "lr.end", "0"),
        ({"lr": {"kind": "linear", "start": -0.1, "end": 0.1}}, "lr.start", "-0.1"),
        ({"lr": {"kind": "constant", "value": 0.0}}, "lr", "0"),
        ({"lr": {"kind": "table", "points": {"1": 0.1, "7": 101.0}}}, "lr.points.7", "101"),
        ({"stage2": {"rho": {"kind": "ramp", "value": -1.0}}}, "stage2.rho.value", "-0.5"),
        ({"rho": {"kind": "two_stage", "start": 0.1, "end": -0.1, "epochs": 3}}, "rho.end", "-0.1"),
    ],
)
def test_a_schedule_that_leaves_its_range_is_refused_at_the_field_at_fault(keys: dict[str, Any], where: str, got: str):
    found = problems_of(2, **keys)
    assert set(found) == {where}
    assert "out of range" in found[where].what
    assert found[where].got == got
    assert str(found[where].remedy).startswith("write a number")


def test_the_message_names_the_first_epoch_that_is_out_of_range():
    late = {"kind": "two_stage", "start": 0.1, "end": -0.1, "epochs": 3}
    assert "out of range in epoch 4" in problems_of(2, rho=late)["rho.end"].what


def test_a_value_that_only_a_longer_run_would_reach_is_a_note_and_no_mistake():
    rho = {"kind": "two_stage", "start": 0.1, "end": 0.2, "epochs": 20}
    assert resolve_keys(2, epoch=7, rho=rho).optimizer.rho == 0.1
    assert "before rho reaches its end 0.2 in epoch 21" in notes_of(2, epoch=7, rho=rho)
    assert "before rho" not in notes_of(2, epoch=21, rho=rho)
    assert "before stage2.lr has risen to 1 in epoch 9" in notes_of(
        2, epoch=8, stage2={"lr": {"kind": "ramp", "value": 1.0, "epochs": 9}}
    )
    assert "has risen" not in notes_of(2, epoch=9, stage2={"lr": {"kind": "ramp", "value": 1.0, "epochs": 9}})
    late = {"kind": "table", "points": {"1": 0.1, "9": 0.2}}
    assert "the points of rho from epoch 9 on have no effect" in notes_of(2, epoch=8, rho=late)
    assert "no effect" not in notes_of(2, epoch=9, rho=late)


def test_one_minus_a_learning_rate_is_refused():
    assert "no meaning" in problems_of(2, lr=FALLING | {"complement": True})["lr.complement"].what


def test_a_schedule_of_rho_that_is_always_0_cannot_be_adaptive():
    assert "plain steps" in problems_of(2, rho={"kind": "constant", "value": 0.0}, asam=True)["rho"].what


@pytest.mark.parametrize("key", ["sam_norm_only", "sam_adaptive", "sam_friendly"])
def test_a_variant_of_sam_needs_a_radius(key):
    assert key in problems_of(2, rho=0.0, **{key: True})["rho"].got
    assert "sam_every 3" in problems_of(2, rho=0.0, sam_every=3)["rho"].got


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"sam_every": 3}, {"sam_adaptive": True}),
        ({"sam_every": 3}, {"sam_norm_only": True}),
        ({"sam_every": 3}, {"sam_subset": 0.5}),
        ({"sam_adaptive": True}, {"sam_norm_only": True}),
        ({"sam_adaptive": True}, {"sam_subset": 0.5}),
    ],
    ids=str,
)
def test_variants_of_sam_that_contradict_each_other_are_refused_and_each_alone_is_not(one, other):
    problem = problems_of(2, **one, **other)[next(iter(one))]
    assert "cannot be combined with" in problem.what
    for keys in (one, other, {**one, "sam_friendly": True}, {"sam_norm_only": True, "sam_subset": 0.5}):
        assert isinstance(resolve_or_error(2, **keys), RunConfig)


# --- Ranges of any schedule ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "bounds", "where"),
    [
        ({"kind": "linear", "start": -0.1, "end": 1.0}, {"at_least": 0.0}, ["terms[1].weight.start"]),
        ({"kind": "linear", "start": 0.0, "end": 1.0}, {"at_least": 0.0}, []),
        ({"kind": "linear", "start": 0.0, "end": 1.0}, {"above": 0.0}, ["terms[1].weight.start"]),
        ({"kind": "cosine", "start": 4.0, "end": 0.0}, {"above": 0.0}, ["terms[1].weight.end"]),
        ({"kind": "cosine", "start": 0.5, "end": 1.0}, {"below": 1.0}, ["terms[1].weight.end"]),
        ({"kind": "cosine", "start": 0.5, "end": 1.0}, {"at_most": 1.0}, []),
        ({"kind": "ramp", "value": 0.5}, {"above": 0.0}, []),
        ({"kind": "constant", "value": -1.0}, {"at_least": 0.0}, ["terms[1].weight"]),
        ({"kind": "staircase", "start": 1.0, "end": -1.0, "epochs": 9}, {"at_least": 0.0}, ["terms[1].weight.end"]),
        ({"kind": "staircase", "start": 1.0, "end": -0.1, "epochs": 10}, {"at_least": 0.0}, []),
        ({"kind": "table", "points": {"1": 1.0, "10": -1.0}}, {"at_least": 0.0}, ["terms[1].weight.points.10"]),
        ({"kind": "table", "points": {"1": 1.0, "11": -1.0}}, {"at_least": 0.0}, []),
        ({"kind": "linear", "start": 0.5, "end": 1.5, "complement": True}, {"at_least": 0.0}, ["terms[1].weight"]),
    ],
    ids=str,
)
def test_only_values_that_a_run_of_ten_epochs_takes_are_out_of_range(
    fields: dict[str, Any], bounds: dict[str, float], where: list[str]
):
    found = check_schedule(section(**fields), 10, "terms[1].weight", **bounds)
    assert [problem.where for problem in found] == where
    assert all(problem.expected and problem.got and problem.remedy for problem in found)


NUMBERS = st.floats(-10.0, 10.0)
EPOCHS = st.integers(1, 12)
ENDS: dict[str, Any] = {"start": NUMBERS, "end": NUMBERS}
SECTIONS = st.one_of(
    st.fixed_dictionaries({"kind": st.sampled_from(["linear", "cosine"]), **ENDS}),
    st.fixed_dictionaries({"kind": st.just("staircase"), **ENDS, "epochs": EPOCHS, "stairs": EPOCHS}),
    st.fixed_dictionaries({"kind": st.just("two_stage"), **ENDS, "epochs": EPOCHS}),
    st.fixed_dictionaries({"kind": st.just("ramp"), "value": NUMBERS, "epochs": EPOCHS}),
    st.dictionaries(EPOCHS.map(str), NUMBERS).map(lambda points: {"kind": "table", "points": {"1": 0.0} | points}),
).flatmap(lambda fields: st.booleans().map(lambda flip: section(**fields, complement=flip)))


@given(SECTIONS, st.integers(1, 15), st.integers(2, 5))
def test_the_probed_values_enclose_every_value_of_the_run(schedule: ConfigSchedule, epochs: int, steps: int):
    probed = [value for _, value in probe(schedule, epochs)]
    if schedule.kind == "ramp":
        probed.append(1.0 if schedule.complement else 0.0)  # which it rises from and never takes
    built = schedule
    for epoch in range(1, epochs + 1):
        for step in range(steps):
            value = built(Progress(epoch, step, epochs, steps))
            assert min(probed) - 1e-11 <= value <= max(probed) + 1e-11


def test_the_peak_is_the_highest_value_within_the_run():
    stairs = section(kind="staircase", start=0.1, end=1.0, epochs=10)
    assert compute_peak(stairs, 11) == 1.0
    assert compute_peak(stairs, 10) == pytest.approx(0.7)
    assert compute_peak(0.3, 10) == 0.3


# --- Bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "where", "what", "remedy"),
    [
        (
            {"kind": "linaer", "start": 1, "end": 0},
            "lr.kind",
            "is not a known kind",
            'did you mean "kind": "linear"',
        ),
        ({"kind": 7}, "lr.kind", "is not a known kind", '"kind": "linear"'),
        ({}, "lr.kind", "is missing", '"kind": "linear"'),
        ({"kind": "linear", "start": 1}, "lr.end", "is missing", '"end": 0.5'),
        ({"kind": "constant", "value": 1, "epochs": 2}, "lr.epochs", "does not belong", "staircase, ramp, two_stage"),
        (
            {"kind": "linear", "start": 1, "end": 0, "strat": 1},
            "lr.strat",
            "is not a known key",
            'did you mean "lr.start"?',
        ),
        ({"kind": "linear", "start": "1", "end": 0}, "lr.start", "wrong type", '"start": 1'),
        ({"kind": "linear", "start": [1], "end": 0}, "lr.start", "wrong type", '"start": 0.9'),
        ({"kind": "ramp", "value": 1, "epochs": 0}, "lr.epochs", "out of range", '"epochs": 20'),
        ({"kind": "table", "points": {"2": 1}}, "lr.points", "has no value for epoch 1", '{"1": 0.9, "10": 0.5}'),
        ({"kind": "table", "points": {}}, "lr.points", "has no value for epoch 1", '{"1": 0.9, "10": 0.5}'),
        ({"kind": "table", "points": {"1": 1, "01": 2}}, "lr.points", 'no epoch: "01"', '{"1": 0.9, "10": 0.5}'),
        ({"kind": "table", "points": {"1": 1, "0": 2}}, "lr.points", 'no epoch: "0"', '{"1": 0.9, "10": 0.5}'),
        ({"kind": "table", "points": {"1": "x"}}, "lr.points.1", "wrong type", ""),
        ({"kind": "table", "points": [1, 2]}, "lr.points", "wrong type", '{"1": 0.9, "10": 0.5}'),
        ([1], "lr", "wrong type", "0.00005"),
        ("cosine", "lr", "wrong type", "0.00005"),
    ],
    ids=str,
)
@pytest.mark.parametrize("group", ["", "stage2"])
def test_a_wrong_schedule_is_refused_at_its_key_with_a_remedy(
    group: str, value: object, where: str, what: str, remedy: str
):
    found = problems_of(2, **({group: {"lr": value}} if group else {"lr": value}))
    place = f"{group}.{where}" if group else where
    assert list(found) == [place]
    assert what in found[place].what
    if not (group and where == "lr"):  # there null is the remedy
        assert remedy.replace("lr.", f"{group}.lr." if group else "lr.") in str(found[place].remedy)
    assert "(schedule)" not in found[place].as_text()
    assert "(number)" not in found[place].as_text()


def test_all_missing_and_superfluous_keys_of_a_schedule_are_reported_at_once():
    found = problems_of(2, rho={"kind": "linear", "value": 1.0, "points": {"1": 0.5}})
    assert set(found) == {"rho.start", "rho.end", "rho.value", "rho.points"}


@pytest.mark.parametrize(
    ("weight", "where"),
    [
        ({"kind": "linear", "start": -1.0, "end": 0.5}, "terms[1].weight"),
        ({"kind": "linear", "end": 0.5}, "terms[1].weight.start"),
        ({"kind": "cosin", "start": 0.1, "end": 0.5}, "terms[1].weight.kind"),
    ],
)
def test_a_wrong_schedule_of_a_term_is_named_by_its_place(weight: dict[str, Any], where: str):
    found = problems_of(2, terms=[{"term": "hard"}, {"term": "kd", "weight": weight}])
    assert any(place.startswith(where) for place in found)


ANYTHING = st.none() | st.booleans() | st.integers(-2, 30) | st.floats() | st.floats(0, 1) | st.text(max_size=3)
POINTS = st.dictionaries(st.integers(0, 200).map(str) | st.text(max_size=3), ANYTHING, max_size=4)
NAMES = ["kind", "complement", "value", "start", "end", "epochs", "stairs", "points", "epoch", "start_value"]
NEARLY = st.fixed_dictionaries(
    {"kind": st.sampled_from(list(KINDS)) | ANYTHING},
    optional={name: POINTS if name == "points" else ANYTHING for name in NAMES if name != "kind"},
)


@settings(max_examples=150, deadline=None)
@given(
    NEARLY | SECTIONS.map(ConfigSchedule.as_json),
    st.sampled_from(["lr", "rho", "weight", "temperature"]),
    st.sampled_from([1, 2]),
    st.integers(1, 40),
)
def test_anything_like_a_schedule_gives_a_run_that_can_be_kept_and_shown_or_a_message(
    value: dict[str, Any], name: str, stage: Stage, epochs: int
):
    term = {"term": "kd" if stage == 2 else "hard", name: value}
    keys: dict[str, Any] = {name: value} if name in ("lr", "rho") else {f"stage{stage}": {"terms": [term]}}
    config = resolve_or_error(stage, **keys, epoch=epochs)
    if isinstance(config, UserError):
        assert all(problem.where and problem.what and problem.remedy for problem in config.problems)
        return
    assert print_resolved(config)
    for section_type, part in ((OptimizerSection, config.optimizer), (TermSection, config.criterion[0])):
        assert section_type.model_validate_json(part.model_dump_json()) == part
    assert all(rate > 0.0 for rate in values_of(config, "lr"))
    assert all(radius >= 0.0 for radius in values_of(config, "rho"))


# --- What --print-config says of them --------------------------------------------------------------------------------


def test_a_falling_line_is_described_by_its_two_ends():
    assert describe_scheduled(resolve_keys(1, epoch=30, stage1={"lr": FALLING})) == [
        "lr: 0.1 at the first step, 0.01 at the last"
    ]


def test_values_that_change_between_epochs_are_named_with_their_epochs():
    weight = {"kind": "table", "points": {"1": 0.9, "2": 1.0, "10": 0.5, "40": 0.1}}
    lines = describe_scheduled(resolve_keys(2, epoch=30, terms=[{"term": "hard", "weight": weight}, {"term": "kd"}]))
    assert lines[0] == "hard/weight by epoch: 0.9 in 1, 1 in 2-9, 0.5 in 10-30"


def test_every_number_that_changes_has_a_line_whatever_the_terms_and_no_other():
    terms = [
        {"term": "focal", "name": "first", "weight": FALLING},
        {"term": "kd", "temperature": {"kind": "cosine", "start": 8.0, "end": 2.0}},
        {"term": "kd_sigmoid", "weight": {"kind": "two_stage", "start": 0.1, "end": 0.2, "epochs": 500}},
    ]
    config = resolve_keys(2, terms=terms, lr={"kind": "constant", "value": 0.1}, rho=RISING)
    named = [line.split(":")[0].removesuffix(" by epoch") for line in describe_scheduled(config)]
    assert named == ["first/weight", "kd/temperature", "rho"]


def test_print_config_has_the_table_of_alpha_for_the_flat_keys_and_the_schedules_below_it():
    text = print_resolved(resolve_keys(2))
    assert text.index("| 21+   | 0.50  | 50%         | 50%                   |") < text.index("hard/weight by epoch")
    assert "kd/weight by epoch: 0.05 in 1-5, 0.15 in 6-10, 0.25 in 11-15, 0.35 in 16-20, 0.5 in 21-100" in text
    assert "\nlr: 0.00005 at the first step" in text
    assert "\nrho" not in text


def test_print_config_has_no_table_of_alpha_where_there_is_no_alpha():
    weight = {"kind": "linear", "start": 0.9, "end": 0.5}
    for terms in ([{"term": "hard"}], [{"term": "hard", "weight": weight}, {"term": "kd"}]):
        assert "| Epoch |" not in print_resolved(resolve_keys(2, terms=terms))


def test_a_config_without_a_schedule_has_no_line_of_one():
    text = print_resolved(resolve_keys(1, flat=1.0))
    assert "Schedules" not in text


@settings(max_examples=50, deadline=None)
@given(SECTIONS, st.integers(1, 15))
def test_a_line_of_a_schedule_is_ascii_and_fits_a_terminal_of_100_columns(schedule: ConfigSchedule, epochs: int):
    rho = replace(schedule, complement=False)
    config = resolve_keys(1, epoch=epochs)
    config = config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"rho_schedule": rho})})
    for line in describe_scheduled(config):
        assert line.isascii()
        assert max(map(len, line.splitlines())) <= 100


def test_a_staircase_of_a_million_stairs_is_described_at_once():
    weight = {"kind": "staircase", "start": 1.0, "end": 0.0, "epochs": 1_000_000, "stairs": 1_000_000}
    config = resolve_keys(1, epoch=30, stage1={"rho": weight})
    assert describe_scheduled(config)
