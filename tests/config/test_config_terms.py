"""The loss as a list of terms, and the flat keys of other recipes as sugar for it."""

from __future__ import annotations

from typing import Any

import pytest
from config_samples import WEIGHTS, resolve_keys
from sharpstudent.config.keys import FileKeys, Stage2Keys
from sharpstudent.config.load import validate_keys
from sharpstudent.config.presets import PRESETS
from sharpstudent.config.resolve import describe_choices
from sharpstudent.config.run_config import TermSection
from sharpstudent.config.terms import TERMS, NumberSetting
from sharpstudent.core.errors import UserError
from sharpstudent.core.schedules import Constant, Cosine, Ramp
from sharpstudent.tasks.deepfake.task import DeepfakeTask


def constant(value: float) -> Constant:
    return Constant(value)


def refusal(**keys: Any) -> str:
    with pytest.raises(UserError) as caught:
        resolve_keys(2, **keys)
    return str(caught.value)


# --- The native list ------------------------------------------------------------------------------------------------


def test_terms_are_read_with_their_weights_settings_and_defaults() -> None:
    ramp = {"kind": "ramp", "value": 0.4}
    hard, kd, features = resolve_keys(
        2,
        terms=[
            {"term": "hard", "weight": 0.6, "label_smoothing": 0.1},
            {"term": "kd", "name": "soft", "weight": ramp},
            {"term": "features", "weight": 2, "student_layer": "a.b", "teacher_layer": "c"},
        ],
    ).criterion
    assert hard == TermSection(
        name="hard", term="hard", weight=constant(0.6), numbers={"label_smoothing": constant(0.1)}
    )
    assert kd == TermSection(
        name="soft",
        term="kd",
        weight=Ramp(0.4),
        numbers={"temperature": constant(3.0)},
    )
    assert features.weight == constant(2.0)
    assert features.choices == {"student_layer": "a.b", "teacher_layer": "c", "distance": "mse"}


def test_terms_of_a_stage_win_over_the_flat_keys_of_the_file() -> None:
    keys = {"alpha_end": 0.4, "stage2": {"terms": [{"term": "hard"}]}, "stage1": {"terms": [{"term": "focal"}]}}
    assert [term.term for term in resolve_keys(2, **keys).criterion] == ["hard"]
    assert [term.term for term in resolve_keys(1, **keys).criterion] == ["focal"]


def test_the_flat_list_is_that_of_stage_2_and_stage_1_learns_from_hard_labels() -> None:
    keys = {"terms": [{"term": "kd"}]}
    assert [term.term for term in resolve_keys(1, **keys).criterion] == ["hard"]
    assert [term.term for term in resolve_keys(2, **keys).criterion] == ["kd"]


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ([], ("terms: is an empty list",)),
        ([{"weight": 1}], ("terms[0].term: is missing", "hard: cross-entropy")),
        ([{"term": "kdd"}], ("terms[0].term: is not a known term", 'did you mean "term": "kd"?')),
        (
            [{"term": "kd", "tempreature": 2}],
            ("terms[0].tempreature: is not", '"terms[0].temperature"?'),
        ),
        (
            [{"term": "kd", "temperature": 0}],
            ("terms[0].temperature: is out of range", "a number, at least 0.01", "got: 0"),
        ),
        ([{"term": "hard", "weight": -0.5}], ("terms[0].weight: is out of range", "at least 0", "got: -0.5")),
        ([{"term": "hard", "weight": "much"}], ("terms[0].weight: has a value of the wrong type", "a schedule")),
        ([{"term": "hard", "weight": True}], ("terms[0].weight: has a value of the wrong type",)),
        (
            [{"term": "hard", "label_smoothing": {"kind": "ramp", "value": 0.1}}],
            ("label_smoothing: has", "share of the target"),
        ),
        (
            [{"term": "hard"}, {"term": "kd", "weight": {"kind": "linear", "start": 0.5}}],
            ("weight.end: is missing",),
        ),
        (
            [{"term": "kd", "weight": {"kind": "linear", "start": 0.5, "end": -1}}],
            ("terms[0].weight.end",),
        ),
        (
            [{"term": "kd", "temperature": {"kind": "ramp", "value": -3}}],
            ("terms[0].temperature.value", "at least 0.01"),
        ),
        ([{"term": "features"}], ("terms[0].student_layer: is missing", "terms[0].teacher_layer: is missing")),
        ([{"term": "features", "distance": "l2"}], ("distance: is not one of the choices", '"mse", "cosine"')),
        ([{"term": "kd", "name": "a/b"}], ("terms[0].name: is not a name",)),
        ([{"term": "kd"}, {"term": "kd"}], ('2 terms that are called "kd"', '"name": "kd_2"')),
        ([{"term": "self"}], ("terms[0]", "none are kept", "--set ema_decay=0.999")),
        ([{"term": "hard", "weight": 0}], ("no term with a weight above 0 in epoch 1",)),
    ],
)
def test_a_list_that_cannot_be_meant_is_refused_by_place_with_the_remedy(terms: Any, words: tuple[str, ...]) -> None:
    text = refusal(terms=terms)
    for word in words:
        assert word in text
    assert "remedy" in text


def test_a_weight_that_is_not_a_number_never_gets_as_far_as_a_term() -> None:
    for weight in (float("nan"), float("inf")):
        with pytest.raises(UserError):
            resolve_keys(2, terms=[{"term": "hard", "weight": weight}])


def test_all_mistakes_of_a_list_are_reported_together() -> None:
    text = refusal(terms=[{"term": "kd", "temperature": -1, "weight": -1}, {"term": "nothing"}])
    assert text.startswith("3 problems")


def test_stage_1_has_no_teacher_to_ask() -> None:
    with pytest.raises(UserError, match=r"stage1\.terms\[0\]: \"kd\" learns from a teacher"):
        resolve_keys(1, stage1={"terms": [{"term": "kd"}]})


def test_every_setting_of_every_term_has_a_default_in_its_own_range() -> None:
    for name, spec in TERMS.items():
        for key, setting in spec.settings.items():
            if isinstance(setting, NumberSetting) and setting.default is not None:
                entry = {"term": name, key: setting.default, "student_layer": "a", "teacher_layer": "b"}
                entry = {k: v for k, v in entry.items() if k == "term" or k in spec.settings}
                resolve_keys(2, ema_decay=0.9, terms=[entry])


# --- Presets --------------------------------------------------------------------------------------------------------


def test_the_additive_preset_adds_the_teachers_term_with_a_cosine_temperature() -> None:
    hard, kd = resolve_keys(2, distill_weight=0.3).criterion
    assert hard.weight == constant(1.0)
    assert kd.weight == constant(0.3)
    assert kd.numbers["temperature"] == Cosine(start=1.0, end=4.0)
    _, kd = resolve_keys(2, distill_weight=0.3, distill_temp_start=2.0, distill_temp_end=6.0).criterion
    assert kd.numbers["temperature"] == Cosine(start=2.0, end=6.0)


def test_the_additive_preset_without_a_weight_is_hard_labels_alone() -> None:
    hard, kd = resolve_keys(2, preset="additive").criterion
    assert (hard.weight, kd.weight) == (constant(1.0), constant(0.0))


def test_the_earlier_name_of_the_preset_still_names_it_and_both_names_at_once_are_refused() -> None:
    assert resolve_keys(2, dialect="additive") == resolve_keys(2, preset="additive")
    assert "dialect: is not a known key" in (text := refusal(dialect="additive", preset="two_stage"))
    assert 'did you mean "preset"?' in text
    assert '"two_stage", "additive"' in refusal(dialect="other")


def test_without_any_of_its_keys_a_config_uses_the_two_stage_preset() -> None:
    assert resolve_keys(2).criterion == resolve_keys(2, preset="two_stage").criterion


def test_a_group_with_another_preset_wins_over_the_flat_keys() -> None:
    keys = {"alpha_start": 0.9, "alpha_end": 0.5, "stage2": {"distill_weight": 0.2}}
    assert resolve_keys(2, **keys).criterion[1].weight == constant(0.2)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"distill_weight": 0.3, "alpha_end": 0.5}, ("in two ways at once", "alpha_end", "distill_weight")),
        ({"preset": "additive", "alpha_end": 0.5}, ('"additive" does not know these keys', "alpha_end")),
        ({"preset": "two_stage", "distill_weight": 0.5}, ('"two_stage" does not know these keys', "distill_weight")),
        ({"terms": [{"term": "hard"}], "temperature": 2.0}, ("terms: stands beside keys", "remove temperature")),
        ({"terms": [{"term": "hard"}], "distill_weight": 0.1}, ("terms: stands beside keys", "distill_weight")),
    ],
)
def test_two_descriptions_of_one_loss_are_refused(keys: dict[str, Any], words: tuple[str, ...]) -> None:
    text = refusal(**keys)
    for word in words:
        assert word in text


def test_an_alpha_that_rises_matters_to_nobody_who_does_not_use_it() -> None:
    resolve_keys(2, preset="additive")
    resolve_keys(2, alpha_start=0.1, alpha_end=0.5, stage2={"terms": [{"term": "hard"}]})


def test_every_key_of_a_preset_is_a_key_of_the_file_and_of_stage_2() -> None:
    for preset in PRESETS.values():
        assert set(preset.keys) <= set(FileKeys.model_fields)
        assert set(preset.keys) <= set(Stage2Keys.model_fields)


def test_what_a_schedule_does_not_say_is_not_written_down() -> None:
    assert constant(0.5).as_json() == {"kind": "constant", "value": 0.5}
    kd = resolve_keys(2).criterion[1]
    assert TermSection.model_validate_json(kd.model_dump_json()) == kd


def test_flat_keys_that_a_stage_does_not_read_are_reported() -> None:
    keys = {"alpha_end": 0.4, "stage2": {"terms": [{"term": "hard"}]}}
    notes = describe_choices(validate_keys(WEIGHTS | keys, DeepfakeTask), 2)
    assert "stage 2 takes its loss from stage2.terms, so these flat keys have no effect: alpha_end" in notes
    assert not any("no effect" in note for note in describe_choices(validate_keys(WEIGHTS | keys, DeepfakeTask), 1))
