"""`--set a.b=value`: how a value is read, and what is refused."""

from __future__ import annotations

import pytest
from sharpstudent.config.load import apply_overrides, parse_value
from sharpstudent.core.errors import UserError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1", 0.1),
        ("3", 3),
        (" 3 ", 3),
        ("1e-4", 1e-4),
        ("true", True),
        ("null", None),
        ('"123"', "123"),
        ("'nan'", "nan"),
        ("[1, 2]", [1, 2]),
        ("{epoch: 3}", {"epoch": 3}),
        ("", ""),
        ("tf_efficientnet_lite0", "tf_efficientnet_lite0"),
        ("1.pth", "1.pth"),
        ("10_0.9234_val.pth", "10_0.9234_val.pth"),
        ("output/a_*/weights/best_model.pth", "output/a_*/weights/best_model.pth"),
        ("a=b", "a=b"),
        ("nan", "nan"),
        ("NaN", "NaN"),
        ("Infinity", "Infinity"),
        ("1e999", "1e999"),
        ("1//2", "1//2"),
        ("1/*2*/", "1/*2*/"),
        ("[a].pth", "[a].pth"),
        ("[" * 5000, "[" * 5000),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_a_value_is_json_where_it_reads_as_json_and_else_the_text_itself(text: str, value: object):
    read = parse_value(text)
    assert read == value
    assert type(read) is type(value)


def test_dots_lead_into_groups_that_need_not_exist_yet():
    assert apply_overrides({"lr": 1.0}, ["stage1.epoch=3", "stage1.lr=0.1", "lr=2"]) == {
        "lr": 2,
        "stage1": {"epoch": 3, "lr": 0.1},
    }


def test_the_last_value_of_a_key_wins():
    assert apply_overrides({}, ["lr=1", "lr=2"]) == {"lr": 2}


def test_the_given_keys_are_left_alone():
    keys = {"stage1": {"epoch": 1}}
    apply_overrides(keys, ["stage1.epoch=2", "lr=1"])
    assert keys == {"stage1": {"epoch": 1}}


@pytest.mark.parametrize("item", ["lr", "", "=3", ".=3", "a..b=3", ".a=3", "a.=3", "a b=3", "$schema=x", "a-b=1"])
def test_an_item_that_is_not_key_and_value_is_refused_with_the_form(item: str):
    with pytest.raises(UserError, match="is not of the form key=value"):
        apply_overrides({}, [item])


def test_a_key_with_too_many_dots_is_refused():
    with pytest.raises(UserError, match="key=value"):
        apply_overrides({}, [".".join("a" * 3000) + "=1"])


def test_a_dot_into_a_single_value_is_refused_by_name():
    with pytest.raises(UserError, match="student has a single value"):
        apply_overrides({"student": "x"}, ["student.init=random"])


def test_an_object_with_a_key_twice_is_refused():
    with pytest.raises(UserError, match="written twice"):
        apply_overrides({}, ["stage1={lr: 1, lr: 2}"])


def test_all_malformed_items_are_reported_together():
    with pytest.raises(UserError) as caught:
        apply_overrides({}, ["a", "b=1", "c"])
    assert len(caught.value.problems) == 2
