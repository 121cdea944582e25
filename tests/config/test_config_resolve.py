"""From the flat keys to one stage of a run: the guide's rules, and that no key is without effect."""

from __future__ import annotations

import itertools
import typing
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from config_samples import GUIDE_BLOCK, SHIPPED, WEIGHTS, resolve_keys
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from sharpstudent.config.describe import alpha_table, compute_weight_ranges, print_resolved
from sharpstudent.config.keys import FileKeys, Stage1Keys, Stage2Keys
from sharpstudent.config.load import parse_json5, read_config_file, validate_keys
from sharpstudent.config.resolve import HELD_BY, LONGEST_NAME, describe_choices, resolve
from sharpstudent.config.run_config import RunConfig, Stage, TeacherSection
from sharpstudent.core.errors import UserError
from sharpstudent.core.schedules import Constant, Staircase
from sharpstudent.tasks.deepfake.section import DeepfakeSection
from sharpstudent.tasks.deepfake.task import DeepfakeTask

GUIDE = parse_json5(GUIDE_BLOCK, "the guide")


def test_the_block_of_the_guide_parses_as_it_stands():
    assert resolve_keys(1, **GUIDE).optimizer.lr == 0.0001
    assert resolve_keys(2, **GUIDE).optimizer.lr == 0.00005


def test_the_shipped_config_says_what_the_guide_says():
    shipped = read_config_file(SHIPPED)
    own = {"pretrained_student_weights": "output/pretrain_mobilevit_*/weights/best_model.pth"}
    assert GUIDE | own == {key: shipped[key] for key in GUIDE}
    for stage in (1, 2):
        typed: Stage = stage
        assert resolve_keys(typed, **shipped) == resolve_keys(typed, **(GUIDE | own))


def test_stage_1_learns_from_hard_labels_alone_at_twice_the_flat_lr():
    config = resolve_keys(1, **GUIDE)
    assert config.stage == 1
    assert config.teachers == ()
    assert config.student.weights is None
    assert config.training.batch_size == 16
    assert config.optimizer.lr == 0.0001
    assert [(term.name, term.weight) for term in config.criterion] == [("hard", Constant(1.0))]


def test_stage_2_distils_with_a_quarter_of_the_batch_at_the_flat_lr():
    config = resolve_keys(2, **GUIDE)
    assert config.stage == 2
    assert config.teachers == (TeacherSection(name="efficientnet-b4", weights="weights/FFc23.tar"),)
    assert config.student.weights == "output/pretrain_mobilevit_*/weights/10_0.9234_val.pth"
    assert config.training.batch_size == 4
    hard, kd = config.criterion
    assert hard.weight == Staircase(start=0.95, end=0.5, epochs=20)
    assert kd.weight == Staircase(start=0.95, end=0.5, epochs=20, complement=True)
    assert kd.numbers["temperature"] == Constant(3.0)


def test_both_stages_take_the_sam_step():
    for stage in (1, 2):
        assert resolve_keys(typing.cast(Stage, stage)).optimizer.rho == 0.05


@pytest.mark.parametrize(("flat", "batch_size"), [(1, 1), (3, 1), (4, 1), (7, 1), (8, 2), (16, 4)])
def test_a_batch_of_stage_2_is_a_quarter_and_never_empty(flat: int, batch_size: int):
    assert resolve_keys(2, batch_size=flat).training.batch_size == batch_size


def test_the_groups_win_over_the_flat_keys_in_their_stage_only():
    keys = {"stage1": {"lr": 0.01, "batch_size": 3, "epoch": 2}, "stage2": {"lr": 0.02, "batch_size": 5, "epoch": 4}}
    one, two = resolve_keys(1, **keys), resolve_keys(2, **keys)
    assert (one.optimizer.lr, one.training.batch_size, one.training.epochs) == (0.01, 3, 2)
    assert (two.optimizer.lr, two.training.batch_size, two.training.epochs) == (0.02, 5, 4)


def test_a_zero_in_a_group_wins_too():
    assert resolve_keys(1, stage1={"rho": 0}).optimizer.rho == 0


def test_without_progressive_distillation_alpha_is_alpha_end_throughout():
    config = resolve_keys(2, use_progressive_distillation=False, alpha_end=0.3)
    hard, kd = config.criterion
    assert hard.weight == Constant(0.3)
    assert kd.weight == Constant(0.3, complement=True)
    assert alpha_table(config).splitlines()[2:] == ["| 1+    | 0.30  | 30%         | 70%                   |"]


def test_the_alpha_table_is_the_guides_to_the_digit():
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in alpha_table(resolve_keys(2)).splitlines()]
    assert rows[0] == ["Epoch", "Alpha", "Hard Labels", "Soft Labels (Teacher)"]
    assert rows[2:] == [
        ["1-5", "0.95", "95%", "5%"],
        ["6-10", "0.85", "85%", "15%"],
        ["11-15", "0.75", "75%", "25%"],
        ["16-20", "0.65", "65%", "35%"],
        ["21+", "0.50", "50%", "50%"],
    ]


def test_the_table_ends_with_a_short_run_and_the_log_says_that_alpha_does_not_arrive():
    keys: dict[str, Any] = WEIGHTS | {"epoch": 7}
    assert [(row.first, row.last) for row in compute_weight_ranges(resolve_keys(2, **keys))] == [(1, 5), (6, 7)]
    notes = "\n".join(describe_choices(validate_keys(keys, DeepfakeTask), 2))
    assert "ends after epoch 7, before alpha reaches alpha_end 0.5 in epoch 21" in notes
    arrived = "\n".join(describe_choices(validate_keys(WEIGHTS | {"epoch": 21}, DeepfakeTask), 2))
    assert "before alpha reaches" not in arrived


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 60), st.integers(1, 60))
def test_the_weights_never_rise_for_hard_labels_and_always_sum_to_one(a: float, b: float, epochs: int, run: int):
    config = resolve_keys(2, alpha_start=max(a, b), alpha_end=min(a, b), progressive_epochs=epochs, epoch=run)
    ranges = compute_weight_ranges(config)
    assert all(before.hard >= after.hard for before, after in itertools.pairwise(ranges))
    assert all(abs(row.hard + row.soft - 1) < 1e-9 for row in ranges)
    assert ranges[0].first == 1
    assert all(row.last is not None and row.last + 1 == after.first for row, after in itertools.pairwise(ranges))
    assert ranges[-1].last in (None, run)


def test_print_config_shows_the_table_in_stage_2_only():
    assert "| 1-5   | 0.95  | 95%         | 5%                    |" in print_resolved(resolve_keys(2))
    assert "| Epoch |" not in print_resolved(resolve_keys(1))
    assert "Resolved config of stage 1 (train_student_only.py)" in print_resolved(resolve_keys(1))


def test_the_log_says_where_batch_size_and_lr_come_from():
    keys = validate_keys(GUIDE, DeepfakeTask)
    assert describe_choices(keys, 2)[0] == (
        "stage 2 takes batches of 4 samples: max(1, 16 // 4) of the flat batch_size; set stage2.batch_size to choose"
    )
    assert describe_choices(keys, 1)[1].startswith("stage 1 learns at lr 0.0001: twice the flat lr 0.00005")
    own = validate_keys(GUIDE | {"stage2": {"batch_size": 9}}, DeepfakeTask)
    assert describe_choices(own, 2)[0] == "stage 2 takes batches of 9 samples: set by stage2.batch_size"


def test_stage_2_without_teacher_or_stage_1_weights_is_refused_naming_both():
    with pytest.raises(UserError) as caught:
        resolve_keys(2, teacher_weights=None, pretrained_student_weights=None)
    assert [problem.where for problem in caught.value.problems] == ["teacher_weights", "pretrained_student_weights"]
    assert "--allow unpretrained-student" in caught.value.as_text()


def test_stage_2_from_an_unpretrained_student_may_be_allowed():
    config = resolve_keys(2, allow=("unpretrained-student",), pretrained_student_weights=None)
    assert config.student.weights is None
    assert config.allow == ("unpretrained-student",)


def test_stage_1_needs_neither_of_the_weights():
    assert resolve_keys(1, teacher_weights=None, pretrained_student_weights=None).teachers == ()


@pytest.mark.parametrize("stage", [1, 2])
def test_an_alpha_that_rises_is_refused_with_the_other_reading(stage: Stage):
    with pytest.raises(UserError, match=r"alpha_start 0\.95, alpha_end 0\.5;"):
        resolve_keys(stage, alpha_start=0.05, alpha_end=0.5)


def test_an_alpha_that_stays_equal_is_accepted_and_gives_one_row():
    assert len(compute_weight_ranges(resolve_keys(2, alpha_start=0.5))) == 1


def test_alpha_start_is_ignored_where_alpha_is_constant():
    resolve_keys(2, alpha_start=0.1, use_progressive_distillation=False)


def test_a_warm_up_beyond_the_flat_part_is_refused():
    with pytest.raises(UserError, match="warmup"):
        resolve_keys(1, stage1={"warmup": 0.8})


@pytest.mark.parametrize("name", ["a", "demo_teacher", "Run-3.1", "_x", "7", "a" * LONGEST_NAME])
def test_a_safe_name_is_accepted(name: str):
    keys = validate_keys(WEIGHTS, DeepfakeTask)
    assert resolve(keys, stage=1, name=name, config_name="c", task=DeepfakeTask).name == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a\\b", "a b", "-x", ".x", "a*", "[a]", "é", "a\n", "a\0", "a" * 101]
)
def test_a_name_that_is_no_safe_folder_name_is_refused(name: str):
    keys = validate_keys(WEIGHTS, DeepfakeTask)
    with pytest.raises(UserError, match="safe folder name"):
        resolve(keys, stage=1, name=name, config_name="c", task=DeepfakeTask)


def test_an_unknown_allowance_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"unpretrained-student.*changed-config"):
        resolve_keys(1, allow=("everything",))


def test_a_resolved_config_cannot_be_changed():
    config = resolve_keys(2)
    for section, field in ((config, "seed"), (config.optimizer, "lr")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, field, 1)
    with pytest.raises(FrozenInstanceError):
        setattr(config.criterion[0].weight, "end", 1)  # noqa: B010, the point of the test


def list_fields() -> list[tuple[str, str, FieldInfo]]:
    """(group, key, field) of every key that a deepfake file may hold."""
    groups: list[tuple[str, type[BaseModel]]] = [
        ("", FileKeys),
        ("", DeepfakeSection),
        ("stage1", Stage1Keys),
        ("stage2", Stage2Keys),
    ]
    return [
        (group, name, field)
        for group, model in groups
        for name, field in model.model_fields.items()
        if name not in ("stage1", "stage2", "data")
    ]


# A teacher that differs in every key from the one of `teacher_weights`.
OTHER_TEACHER = {
    "model": "test_resnet",
    "weights": "another.pth",
    "weight": 2.0,
    "calibrate": True,
    "init": "imagenet",
    "input_size": 64,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "classes": ["fake", "real"],
    "head": "random-ok",
    "reads": {"image": "image_clean"},
}


def other_value(name: str, field: FieldInfo) -> object:
    """A valid value that differs from the default, from the field's type alone."""
    special: dict[str, object] = {"terms": [{"term": "focal"}], "preset": "additive", "teachers": [OTHER_TEACHER]}
    special["people"] = "files"  # null to the core: its words are the task's
    special["lr_factors"] = {"head.*": 10.0}
    special["threads"] = 2
    special["tune"] = {"kind": "lora", "rank": 4}
    special["augmentation"] = special["validation_augmentation"] = "video"
    special["fakes"] = special["validation_fakes"] = "labels"
    special["selection_metric"] = "eer"  # text to the core: the task tells which there are
    if name in special:
        return special[name]
    default = field.default if field.default is not None else getattr(FileKeys.model_fields.get(name), "default", None)
    parts = typing.get_args(field.annotation)
    literal = next((part for part in parts if typing.get_origin(part) is typing.Literal), None)
    if default is None and literal is not None:
        return typing.get_args(literal)[0]
    if default is None:
        kinds = {
            (typing.get_origin(part) and typing.get_args(part)[0]) or part for part in typing.get_args(field.annotation)
        }
        return 7 if int in kinds else 0.5 if float in kinds else "another.pth"
    annotation = next((part for part in typing.get_args(field.annotation) if part is not type(None)), None)
    for literal in (field.annotation, annotation):
        if typing.get_origin(literal) is typing.Literal:
            return next(choice for choice in typing.get_args(literal) if choice != default)
    if isinstance(default, bool):
        return not default
    if isinstance(default, int):
        return default + 1
    if isinstance(default, float):
        return default * 0.9 if default else 0.5
    return f"{default}-other"


@pytest.mark.parametrize(
    ("group", "name", "field"), list_fields(), ids=lambda part: part if isinstance(part, str) else ""
)
def test_every_key_of_a_file_has_an_effect_on_the_run(group: str, name: str, field: FieldInfo):
    value = other_value(name, field)
    said = {name: value}
    if name.startswith("distill_temp"):
        said["distill_weight"] = 0.3
    if name == "teachers":
        said["teacher_weights"] = None
    keys = {group: said} if group else said
    stages: tuple[Stage, ...] = (1, 2) if not group else ((1,) if group == "stage1" else (2,))
    needed = {"start": "old.pth"} if name in HELD_BY else {}
    assert any(resolve_keys(stage, **needed, **keys) != resolve_keys(stage, **needed) for stage in stages)


@pytest.mark.parametrize("name", list(Stage2Keys.model_fields))
def test_every_key_of_a_group_is_a_flat_key_too(name: str):
    assert name in FileKeys.model_fields


def test_every_value_of_the_resolved_config_can_be_changed_by_some_key():
    """No dead weight in the native form: each leaf differs for some key, apart from names and derived structure."""

    def leaves(config: RunConfig) -> dict[str, object]:
        flat: dict[str, object] = {}

        def collect(value: Any, path: str) -> None:
            if isinstance(value, dict):
                for key, inner in value.items():
                    collect(inner, f"{path}.{key}")
            elif isinstance(value, list | tuple):
                for index, inner in enumerate(value):
                    collect(inner, f"{path}[{index}]")
            else:
                flat[path] = value

        collect(config.model_dump(), "")
        return flat

    base = leaves(resolve_keys(2))
    touched: set[str] = set()
    fields = [(group, name, other_value(name, field)) for group, name, field in list_fields()]
    fields += [("", name, {"kind": "linear", "start": 0.02, "end": 0.01}) for name in ("lr", "rho")]
    for group, name, value in fields:
        said = {name: value} | ({"teacher_weights": None} if name == "teachers" else {})
        other = leaves(resolve_keys(2, **({group: said} if group else said)))
        absent = object()
        touched |= {path for path in {*base, *other} if base.get(path, absent) != other.get(path, absent)}
    # The terms as a whole are a key's; what stands in them is the form of a schedule.
    structure = {".name", ".config_name", ".stage"}
    untouched = {path for path in set(base) - touched if not path.startswith(".criterion")}
    assert untouched == structure


def test_batch_per_rank_says_the_batch_the_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_keys(2, batch_per_rank=3).training.batch_size == 3
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert resolve_keys(2, batch_per_rank=3).training.batch_size == 12
    assert resolve_keys(1, batch_per_rank=3, stage1={"batch_per_rank": 5}).training.batch_size == 20
    with pytest.raises(UserError, match="cannot be given together with batch_per_rank"):
        resolve_keys(2, batch_per_rank=3, stage2={"batch_size": 8})
