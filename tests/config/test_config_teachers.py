"""The list of teachers in a config: one flat pair of keys or a list, never both, and every mistake in it named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from config_samples import resolve_keys
from sharpstudent.config.resolve import name_weights_key
from sharpstudent.config.run_config import RunConfig, TeacherSection
from sharpstudent.config.stored import compare_configs, load_run_config
from sharpstudent.core.errors import UserError
from sharpstudent.registry import find_task

TWO = [
    {"model": "efficientnet-b4", "weights": "a.tar", "weight": 3.0, "classes": ["fake", "real"], "input_size": 380},
    {"model": "test_resnet", "weights": "b.pth", "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
]


def resolve_teachers(*teachers: dict[str, Any], **keys: Any) -> RunConfig:
    return resolve_keys(2, teacher_weights=None, teachers=list(teachers), **keys)


def refuse(**keys: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        resolve_keys(2, **keys)
    return caught.value


def test_the_flat_keys_are_a_list_of_one() -> None:
    flat = resolve_keys(2, teacher="test_resnet", teacher_weights="t.pth")
    listed = resolve_teachers({"model": "test_resnet", "weights": "t.pth"})
    assert flat == listed
    assert flat.teachers == (TeacherSection(name="test_resnet", weights="t.pth"),)


def test_each_teacher_of_a_list_keeps_its_own_settings_and_order() -> None:
    config = resolve_teachers(*TWO, teacher_average="probabilities")
    assert [teacher.name for teacher in config.teachers] == ["efficientnet-b4", "test_resnet"]
    assert (config.teachers[0].weight, config.teachers[1].weight) == (3.0, 1.0)
    assert config.teachers[0].classes == ("fake", "real")
    assert config.teachers[1].mean == (0.5, 0.5, 0.5)
    assert config.teacher_average == "probabilities"


def test_stage_1_has_no_teachers() -> None:
    assert resolve_keys(1, teacher_weights=None, teachers=TWO).teachers == ()


@pytest.mark.parametrize("stage", [1, 2])
def test_a_list_beside_the_flat_key_is_refused_in_both_stages(stage: Any) -> None:
    with pytest.raises(UserError) as caught:
        resolve_keys(stage, teachers=TWO)
    assert [problem.where for problem in caught.value.problems] == ["teachers"]
    assert "together with teacher_weights" in str(caught.value)


@pytest.mark.parametrize(
    ("teacher", "where"),
    [
        ({"model": "x"}, "teachers[0].weights"),
        ({"model": "x", "head": "fitted"}, "teachers[0].weights"),
        ({"model": "x", "weights": "t", "head": "fitted", "classes": ["fake", "real"]}, "teachers[0].classes"),
        ({"model": "x", "weights": "t", "head": "fited"}, "teachers[0].head"),
        ({"model": "x", "weights": "t", "calibrate": 1}, "teachers[0].calibrate"),
        ({"model": "x", "weights": "t", "classes": ["real", "real"]}, "teachers[0].classes"),
        ({"weights": "t"}, "teachers[0].model"),
        ({"model": "x", "weights": "t", "weight": 0}, "teachers[0].weight"),
        ({"model": "x", "weights": "t", "input_size": 2}, "teachers[0].input_size"),
        ({"model": "x", "weights": "t", "std": [1.0, 0.0, 1.0]}, "teachers[0].std"),
        ({"model": "x", "weights": "t", "mean": [1.0, 0.0]}, "teachers[0].mean"),
        ({"model": "x", "weights": "t", "wieght": 2}, "teachers[0].wieght"),
        ({"model": "x", "weights": "t", "head": "random"}, "teachers[0].head"),
    ],
)
def test_a_mistake_in_a_teacher_is_named_by_its_place(teacher: dict[str, Any], where: str) -> None:
    error = refuse(teacher_weights=None, teachers=[teacher])
    assert [problem.where.startswith(where) for problem in error.problems] == [True], error.as_text()


def test_a_list_without_members_is_refused() -> None:
    assert refuse(teacher_weights=None, teachers=[]).problems[0].where == "teachers"


def test_a_teacher_without_a_file_needs_the_permission_of_a_random_head() -> None:
    config = resolve_teachers({"model": "test_resnet", "init": "imagenet", "head": "random-ok"})
    assert config.teachers[0].weights is None


@pytest.mark.parametrize("source", [{"weights": "t"}, {"init": "imagenet"}, {"weights": "t", "init": "imagenet"}])
def test_a_fitted_head_needs_a_trained_network_and_no_head_in_its_file(source: dict[str, Any]) -> None:
    config = resolve_teachers({"model": "test_resnet", "head": "fitted", "calibrate": True, **source})
    assert (config.teachers[0].head, config.teachers[0].calibrate) == ("fitted", True)
    assert name_weights_key(config, 0) == "teachers[0].weights"


def test_teachers_are_calibrated_only_where_it_is_asked_for() -> None:
    assert [teacher.calibrate for teacher in resolve_teachers(*TWO).teachers] == [False, False]
    changes = compare_configs(resolve_teachers(*TWO), resolve_teachers(TWO[0], TWO[1] | {"calibrate": True}))
    assert changes == ["teachers.1.calibrate: false -> true"]


def test_the_key_that_a_message_names_is_the_one_that_the_user_can_write() -> None:
    assert name_weights_key(resolve_keys(2), 0) == "teacher_weights"
    two = resolve_teachers(*TWO)
    assert [name_weights_key(two, i) for i in (0, 1)] == ["teachers[0].weights", "teachers[1].weights"]
    assert name_weights_key(resolve_teachers(TWO[1]), 0) == "teachers[0].weights"


def test_a_difference_in_one_teacher_is_reported_by_its_place() -> None:
    changed = [TWO[0], TWO[1] | {"weight": 2.0}]
    changes = compare_configs(resolve_teachers(*TWO), resolve_teachers(*changed))
    assert changes == ["teachers.1.weight: 1 -> 2"] or changes == ["teachers.1.weight: 1.0 -> 2.0"]


def test_a_difference_at_the_end_of_a_long_path_is_seen() -> None:
    long = "weights/" + 90 * "x"
    assert len(compare_configs(resolve_keys(2, teacher_weights=f"{long}1"), resolve_keys(2, teacher_weights=long))) == 1


def test_a_run_of_a_version_that_knew_one_teacher_is_read(tmp_path: Path) -> None:
    for stage, teachers in ((1, ()), (2, (TeacherSection(name="efficientnet-b4", weights="t.tar"),))):
        stored = json.loads(resolve_keys(stage, teacher_weights="t.tar").model_dump_json())
        del stored["teachers"], stored["teacher_average"]
        stored["teacher"] = {"name": "efficientnet-b4", "weights": "t.tar"} if teachers else None
        (tmp_path / "config.json").write_text(json.dumps(stored))
        assert load_run_config(tmp_path, find_task).teachers == teachers


def test_a_run_with_two_teachers_is_read_as_it_was_written(tmp_path: Path) -> None:
    config = resolve_teachers(*TWO)
    (tmp_path / "config.json").write_text(config.model_dump_json(indent=2))
    assert load_run_config(tmp_path, find_task) == config
