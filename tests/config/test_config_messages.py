"""Messages about wrong keys: the key, what was expected, what came, the remedy; all of them at once."""

from __future__ import annotations

from typing import Any

import pytest
from config_samples import WEIGHTS
from sharpstudent.config.load import read_task_name, validate_keys
from sharpstudent.core.errors import Problem, UserError
from sharpstudent.tasks.deepfake.task import DeepfakeTask


def problems_of(keys: dict[str, Any]) -> dict[str, Problem]:
    with pytest.raises(UserError) as caught:
        validate_keys(keys, DeepfakeTask)
    problems = caught.value.problems
    assert len({problem.where for problem in problems}) == len(problems), "one problem a key"
    assert all(problem.remedy for problem in problems)
    return {problem.where: problem for problem in problems}


@pytest.mark.parametrize(
    ("keys", "where", "remedy"),
    [
        ({"temprature": 3}, "temprature", 'did you mean "temperature"?'),
        ({"batchSize": 3}, "batchSize", 'did you mean "batch_size"?'),
        ({"batch-size": 3}, "batch-size", 'did you mean "batch_size"?'),
        ({"LR": 0.1}, "LR", 'did you mean "lr"?'),
        ({"epochs": 3}, "epochs", 'did you mean "epoch"?'),
        ({"learning_rate": 3}, "learning_rate", 'did you mean "lr"?'),
        ({"image_sise": 3}, "image_sise", 'did you mean "image_size"?'),
        ({"stage1": {"epocs": 3}}, "stage1.epocs", 'did you mean "stage1.epoch"?'),
        ({"stage2": {"alpha_strat": 1}}, "stage2.alpha_strat", 'did you mean "stage2.alpha_start"?'),
        ({"stage1": {"temperature": 3}}, "stage1.temperature", "known as temperature and as stage2.temperature"),
        ({"stage2": {"image_size": 64}}, "stage2.image_size", "known as image_size"),
        ({"stage1.epoch": 3}, "stage1.epoch", '"stage1": { "epoch": ... }'),
        ({"zzz": 3}, "zzz", "the nearest keys here: "),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(keys: dict[str, Any], where: str, remedy: str):
    problem = problems_of(keys)[where]
    assert "is not a known key" in problem.what
    assert remedy in str(problem.remedy)


@pytest.mark.parametrize(
    ("key", "value", "expected", "remedy"),
    [
        ("lr", "0.1", "a number, above 0", '"lr": 0.1'),
        ("lr", "big", "a number, above 0", "0.00005 (the default)"),
        ("lr", True, "a number", "0.00005"),
        ("lr", None, "a number", "leave the key out"),
        ("lr", 0, "above 0", "0.00005"),
        ("lr", 1000, "at most 100", "0.00005"),
        ("epoch", 3.0, "a whole number", '"epoch": 3'),
        ("epoch", 3.5, "a whole number", "100 (the default)"),
        ("epoch", "3", "a whole number", '"epoch": 3'),
        ("epoch", 0, "at least 1", "100"),
        ("epoch", 10**30, "at most 1000000", "100"),
        ("num_workers", True, "a whole number", "2 (the default)"),
        ("use_progressive_distillation", "True", "true or false", '"use_progressive_distillation": true'),
        ("use_progressive_distillation", 1, "true or false", "true (the default)"),
        ("device", "gpu", 'one of "auto", "cpu", "cuda", "mps"', '"auto"'),
        ("compression", "c24", 'one of "raw", "c23", "c40"', '"c23"'),
        ("student", 5, "text", '"student": "5"'),
        ("student", ["a"], "text", '"mobilevitv2_200"'),
        ("student", "", "text", '"mobilevitv2_200"'),
        ("teacher_weights", "", "text, or null", "null"),
        ("teacher_weights", 5, "text, or null", '"5"'),
        ("alpha_end", 1.5, "at most 1", "0.5"),
        ("stage1", 3, "a group of keys", "docs/config.md"),
        ("stage1", None, "a group of keys", "docs/config.md"),
    ],
)
def test_a_wrong_value_is_refused_with_what_was_expected_and_a_remedy(
    key: str, value: object, expected: str, remedy: str
):
    problem = problems_of({key: value})[key]
    assert expected in str(problem.expected)
    assert remedy in str(problem.remedy)
    assert problem.got is not None


def test_a_wrong_value_in_a_group_is_named_with_its_group():
    assert set(problems_of({"stage2": {"lr": -1, "optimizer": "x"}})) == {"stage2.lr", "stage2.optimizer"}


def test_all_mistakes_are_reported_together_in_the_order_of_the_file():
    keys = {"zz": 1, "lr": "x", "alpha": 0.3, "stage2": {"alpha_end": 2, "epocs": 1}, "device": "gpu", "image_size": 1}
    assert set(problems_of(keys)) == {"alpha", "zz", "lr", "stage2.alpha_end", "stage2.epocs", "device", "image_size"}


def test_a_long_value_is_shortened_in_the_message():
    assert len(str(problems_of({"lr": "x" * 10_000})["lr"].got)) <= 80


@pytest.mark.parametrize("keys", [{"alpha": 0.3}, {"Alpha": 0.3}, {"stage2": {"alpha": 0.3}}, {"kd": [{"alpha": 0.3}]}])
def test_a_bare_alpha_anywhere_is_refused_with_both_readings(keys: dict[str, Any]):
    problem = next(problem for where, problem in problems_of(WEIGHTS | keys).items() if "lpha" in where)
    assert "opposite meanings" in problem.what
    remedy = str(problem.remedy)
    assert "weight of the HARD labels" in remedy
    assert '"alpha_end": 0.3' in remedy
    assert "weight of the TEACHER" in remedy
    assert '"alpha_end": 0.7' in remedy
    assert '"alpha_start" and "alpha_end"' in str(problem.expected)


@pytest.mark.parametrize("value", ["0.3", 3, None, True, {"start": 1}])
def test_a_bare_alpha_of_any_type_is_refused(value: object):
    assert "opposite meanings" in problems_of({"alpha": value})["alpha"].what


@pytest.mark.parametrize("text", ["\ud800", "a\0b"])
def test_text_that_no_file_or_path_can_hold_is_refused(text: str):
    assert "not valid text" in problems_of({"data_root": text})["data_root"].what
    with pytest.raises(UserError, match="not valid text"):
        validate_keys({text: 1}, DeepfakeTask)


@pytest.mark.parametrize("task", [3, None, ["deepfake"], ""])
def test_a_task_that_is_no_name_is_refused_with_an_example(task: object):
    with pytest.raises(UserError, match=r'is not a known task\n.*such as "deepfake"'):
        read_task_name({"task": task})


def test_the_task_of_a_config_that_names_none_is_that_of_the_guide():
    assert read_task_name({}) == "deepfake"


def test_a_misspelt_task_is_reported_before_the_keys_of_another_task_are_found_wrong():
    with pytest.raises(UserError, match=r'^taks: is not a known key\n.*\n.*did you mean "task"'):
        read_task_name({"taks": "mine:Mine", "data": {"root": "x"}})
