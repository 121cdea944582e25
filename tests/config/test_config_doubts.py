"""No nonsense is taken in silence: a bound refuses it, or a warning gives the reason. Every number has one of them."""

from __future__ import annotations

from typing import Any

import pytest
from config_samples import WEIGHTS
from sharpstudent.config.keys import Stage2Keys, TeacherKeys, build_file_model
from sharpstudent.config.load import validate_keys
from sharpstudent.config.presets import describe_weights
from sharpstudent.config.resolve import describe_choices, resolve
from sharpstudent.config.run_config import USUAL, Stage
from sharpstudent.config.terms import list_terms
from sharpstudent.core.errors import UserError
from sharpstudent.tasks.deepfake.task import DeepfakeTask


def describe(stage: Stage, **keys: Any) -> str:
    """What the log of a stage says of these keys."""
    given = validate_keys(WEIGHTS | keys, DeepfakeTask)
    config = resolve(given, stage=stage, name="run", config_name="config", task=DeepfakeTask)
    return "\n".join([*describe_choices(given, stage), *describe_weights(config, list_terms(DeepfakeTask.terms))])


def test_the_defaults_bring_no_warning() -> None:
    for stage in (1, 2):
        assert "warning" not in describe(stage)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("momentum", 1.0), ("weight_decay", 1e308), ("clip_norm", 5e-324), ("temperature", 1e-8)),
        *(("loader_timeout", 0.00001), ("rho", 1e300), ("rho_end", 1e300), ("distill_temp_end", 1e-8)),
        *(("data_root", ""), ("data_root", " "), ("output_root", "$HOME_OF_NOBODY_"[:0]), ("student_init", "")),
        ("teachers", [{"model": "efficientnet-b4", "weights": " "}]),
    ],
)
def test_what_can_only_be_a_mistake_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(UserError) as caught:
        describe(2, **{key: value})
    assert any(problem.where.startswith(key) for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"lr": 100.0}, "warning: lr is 100, at most 1 is usual: steps as long as this"),
        ({"stage2": {"lr": 2.0}}, "warning: stage2.lr is 2, at most 1"),
        ({"lr": {"kind": "cosine", "start": 3.0, "end": 0.1}}, "warning: lr is 3"),
        ({"momentum": 0.999}, "a gradient then steers"),
        ({"weight_decay": 1.0}, "outweighs the loss"),
        ({"clip_norm": 0.001}, "hardly move"),
        ({"temperature": 0.1}, "0.5 to 50 is usual"),
        ({"loader_timeout": 2.0}, "may take longer"),
        ({"validation_share": 0.999999}, "too little is left to train on"),
        ({"ema_decay": 1e-9}, "the average then is the weights of the last step"),
        ({"warmup": 1.0, "flat": 1.0}, "in the last step only"),
        ({"rho_warmup": 1.0}, "SAM does little"),
        ({"student_dropout": 0.95}, "reaches the head"),
        ({"save_every_minutes": 1e-6}, "goes into saving"),
        ({"distill_weight": 1e6}, "the labels then hardly count"),
        ({"keep_best": 5000}, "each of them is a file"),
        ({"num_workers": 1000}, "only wait for each other"),
        ({"patience": 100}, "patience 100 never ends a stage of 100 epochs early"),
        ({"micro_batch_size": 64}, "micro_batch_size 64 has no effect: a batch has 4 samples"),
        ({"alpha_start": 1.0, "alpha_end": 1.0}, "nothing is distilled"),
        ({"alpha_start": 1.0, "alpha_end": 1.0}, "the term kd weighs nothing in the whole run"),
        ({"distill_weight": 0.0}, "nothing is distilled"),
        ({"alpha_start": 0.0, "alpha_end": 0.0}, "the term hard weighs nothing"),
        ({"stage2": {"terms": [{"term": "hard"}]}}, "nothing is distilled"),
    ],
)
def test_what_is_odd_is_said_with_its_reason(keys: dict[str, Any], said: str) -> None:
    assert said in describe(2, **keys)


def test_odd_numbers_of_a_teacher_are_named_by_its_place() -> None:
    teacher = {"model": "efficientnet-b4", "weights": "x.tar", "mean": [123.7, 116.3, 103.5], "std": [58.4, 57.1, 57.4]}
    given = validate_keys({"teachers": [teacher], "pretrained_student_weights": "x.pth"}, DeepfakeTask)
    said = "\n".join(describe_choices(given, 2))
    assert "teachers[0].mean is 123.7, -1 to 1 is usual" in said
    assert "teachers[0].std is 58.4" in said


def test_a_term_of_weight_0_in_stage_1_is_said_and_a_loss_of_nothing_is_refused() -> None:
    terms = [{"term": "hard"}, {"term": "focal", "weight": 0.0}]
    assert "the term focal weighs nothing in the whole run" in describe(1, stage1={"terms": terms})
    with pytest.raises(UserError, match="nothing to learn from"):
        describe(1, stage1={"terms": terms[1:]})


def test_keys_without_effect_in_a_stage_bring_no_warning_there() -> None:
    assert "warning" not in describe(1, temperature=0.1, alpha_start=1.0, alpha_end=1.0)


# Numbers for which any value within their one bound is meant by somebody.
WITHOUT_RANGE = {
    "weak_teacher_margin": "in units of a metric, which differ from task to task",
    "rho_end": "as rho, whose own message knows asam",
}


def list_numbers(model: Any) -> dict[str, dict[str, Any]]:
    """The schema of each key whose value may be a number that is no whole one."""
    properties = model.model_json_schema()["properties"]
    options = {name: [found, *found.get("anyOf", ())] for name, found in properties.items()}
    return {
        name: properties[name] for name, some in options.items() if any(one.get("type") == "number" for one in some)
    }


@pytest.mark.parametrize("model", [build_file_model(DeepfakeTask), TeacherKeys], ids=["file", "teacher"])
def test_every_number_has_two_bounds_or_a_usual_range(model: Any) -> None:
    lower, upper = {"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"}
    open_keys = [
        name
        for name, found in list_numbers(model).items()
        if USUAL not in found
        and name not in WITHOUT_RANGE
        and not any(lower & one.keys() and upper & one.keys() for one in (found, *found.get("anyOf", ())))
    ]
    assert open_keys == []


def test_a_bound_of_a_flat_key_holds_in_the_groups_too() -> None:
    flat = build_file_model(DeepfakeTask).model_json_schema()["properties"]
    group = Stage2Keys.model_json_schema()["properties"]
    for name in ("momentum", "weight_decay", "clip_norm"):
        bounds = {key: value for key, value in flat[name].items() if "imum" in key}
        assert bounds
        assert bounds.items() <= group[name]["anyOf"][0].items()
