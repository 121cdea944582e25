"""An ablation: the configs of its arms, what it says of made results, and its files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sharpstudent.config.cli import parse_command_line
from sharpstudent.core.errors import UserError
from sharpstudent.evaluation.arms import (
    ALONE,
    AS_IT_IS,
    PRESETS,
    Arm,
    Fold,
    build_keys,
    find_config,
    make_alone,
    plan_kd_or_not,
    plan_sam,
    plan_terms,
    read_plan,
)
from sharpstudent.evaluation.compare import compare_models, to_metric_value
from sharpstudent.evaluation.measure_arms import _describe_steps, _join_folds
from sharpstudent.evaluation.planned_runs import find_newest
from sharpstudent.metrics.bootstrap import compute_interval
from sharpstudent.registry import find_task
from sharpstudent.report.ablation import (
    AblationResults,
    ArmCost,
    ArmResult,
    build_chart,
    build_columns,
    render_markdown,
    write_verdict,
)
from sharpstudent.report.chart import render_png
from sharpstudent.report.results import MetricAbout
from sharpstudent.report.text_table import to_markdown
from sharpstudent.tasks.deepfake.task import DeepfakeTask

ROOT = Path(__file__).resolve().parents[2]
KEYS: dict[str, Any] = {
    "$schema": "./schema.json",
    "data_source": "labelled",
    "data_root": "data",
    "student": "test_efficientnet",
    "teacher": "test_resnet",
    "teacher_weights": "weights/t{seed}.pth",
    "pretrained_student_weights": "output/first_*/weights/best_model.pth",
    "rho": 0.05,
    "temperature": 2.0,
    "alpha_start": 0.6,
    "stage2": {"epoch": 3, "rho_warmup": 0.1},
}


def resolve(tmp_path: Path, keys: dict[str, Any]) -> Any:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(keys))
    return parse_command_line([str(path), "-n", "x"], stage=2, find_task=find_task)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_arm_of_a_preset_is_a_config_that_resolves_and_differs_from_the_others(
    tmp_path: Path, preset: str
) -> None:
    command = resolve(tmp_path, KEYS)
    plan = PRESETS[preset](command.config, command.task)
    assert plan.arms[0].name == ALONE
    seen = []
    for arm in plan.arms:
        config = resolve(tmp_path, build_keys(KEYS, arm, 7)).config
        assert config.training.epochs == 3  # equal steps
        assert config.student.weights == KEYS["pretrained_student_weights"]
        assert config.teachers[0].weights == "weights/t7.pth"
        seen.append(config.model_dump_json())
    assert len(set(seen)) == len(plan.arms)
    assert set(plan.references) <= {arm.name for arm in plan.arms}


def test_alone_has_the_labels_at_full_weight_and_nothing_of_the_teacher(tmp_path: Path) -> None:
    command = resolve(tmp_path, KEYS)
    alone = resolve(tmp_path, build_keys(KEYS, make_alone(command.config, command.task), 1)).config
    assert [(term.term, term.weight(None)) for term in alone.criterion] == [("hard", 1.0)]  # type: ignore[arg-type]
    terms = [{"term": "hard", "label_smoothing": 0.1, "weight": 0.3}, {"term": "focal", "weight": 0.2}, {"term": "kd"}]
    native = {key: value for key, value in KEYS.items() if key not in ("temperature", "alpha_start")} | {"terms": terms}
    command = resolve(tmp_path, native)
    alone = resolve(tmp_path, build_keys(native, make_alone(command.config, command.task), 1)).config
    assert [term.term for term in alone.criterion] == ["hard", "focal"]
    assert alone.criterion[0].numbers["label_smoothing"].constant == 0.1
    assert [term.weight.constant for term in alone.criterion] == [0.3, 0.2]


def test_config_as_it_is_is_the_config_and_the_arms_of_sam_differ_in_sam_alone(tmp_path: Path) -> None:
    command = resolve(tmp_path, KEYS)
    as_it_is = next(arm for arm in plan_kd_or_not(command.config, command.task).arms if arm.name == AS_IT_IS)
    keys = {**KEYS, "teacher_weights": "weights/t1.pth"}
    assert resolve(tmp_path, build_keys(keys, as_it_is, 1)).config == resolve(tmp_path, keys).config
    keys = {**keys, "sam_every": 4}
    arms = {arm.name: arm for arm in plan_sam(resolve(tmp_path, keys).config, DeepfakeTask).arms}
    configs = {name: resolve(tmp_path, build_keys(keys, arm, 1)).config.optimizer for name, arm in arms.items()}
    assert (configs["sam"].rho, configs["sam"].sam_every, configs["sam"].rho_warmup) == (0.05, 1, 0.1)
    assert (configs["rho_0"].rho, configs["rho_0"].rho_warmup) == (0.0, 0.0)
    assert configs["norm_subset"].sam_norm_only
    assert configs["norm_subset"].sam_subset == 0.25
    with pytest.raises(UserError, match="its rho is 0"):
        plan_sam(resolve(tmp_path, {**KEYS, "rho": 0.0, "stage2": {}}).config, DeepfakeTask)


def test_terms_adds_only_what_two_classes_can_learn_from(tmp_path: Path) -> None:
    command = resolve(tmp_path, KEYS)
    names = [arm.name for arm in plan_terms(command.config, command.task).arms]
    assert names == [ALONE, AS_IT_IS, "plus_rkd", "plus_supcon", "plus_regression", "plus_dist"]


def test_a_file_lists_arms_models_and_keys_of_all_and_gets_alone(tmp_path: Path) -> None:
    command = resolve(tmp_path, KEYS)
    path = tmp_path / "arms.json"
    written = {
        "keys": {"weight_decay": 0.1},
        "arms": {"mine": {"title": "mine", "keys": {"rho": 0.2}}},
        "references": ["alone", "mine"],
        "models": {"teacher": {"path": "output/s{seed}_teacher"}},
    }
    path.write_text(json.dumps(written))
    plan = read_plan(path, command.config, command.task)
    assert [arm.name for arm in plan.arms] == [ALONE, "mine"]
    assert all(arm.keys["weight_decay"] == 0.1 for arm in plan.arms)
    assert plan.models == {"teacher": ("teacher", "output/s{seed}_teacher")}


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"arms": {"a b": {}}}, "calls an arm, a run or a fold 'a b'"),
        ({"arms": {"a": {}}, "models": {"a": {"path": "x"}}}, "two of the name 'a'"),
        ({"arms": {"a": {}}, "references": ["b"]}, "no arm that there is"),
        ({"arms": {"a": {"key": {}}}}, "arms.a.key"),
        ({"arms": {"a": {}}, "folds": {"1 2": {"keys": {}}}}, "calls an arm, a run or a fold '1 2'"),
        ({"arms": {"a": {}}, "folds": {"f": {"keys": {}, "seeds": 0}}}, "folds.f.seeds"),
        ({"arms": {"a": {}}, "first": {"a": {}}}, "two of the name 'a'"),
        ({}, "arms"),
    ],
)
def test_a_file_that_lists_no_arms_is_refused_with_what_is_wrong(
    tmp_path: Path, written: dict[str, Any], said: str
) -> None:
    command = resolve(tmp_path, KEYS)
    path = tmp_path / "arms.json"
    path.write_text(json.dumps(written))
    with pytest.raises(UserError) as refused:
        read_plan(path, command.config, command.task)
    assert said in refused.value.as_text()


def test_keys_of_an_arm_replace_those_of_the_config_wherever_they_stand() -> None:
    keys = {"lr": 0.1, "rho": 0.05, "alpha_start": 0.9, "stage2": {"lr": 0.2, "alpha_end": 0.3}}
    merged = build_keys(
        keys, Arm("a", "", {"lr": 0.5, "rho": None, "terms": [], "teachers": [{"weights": "{seed}"}]}), 4
    )
    assert merged == {"teachers": [{"weights": "4"}], "stage2": {"lr": 0.5, "terms": []}}
    assert keys["stage2"] == {"lr": 0.2, "alpha_end": 0.3}


def test_arms_that_name_their_config_stand_in_its_place_and_list_folds_and_first_runs(tmp_path: Path) -> None:
    command = resolve(tmp_path, KEYS)
    path = tmp_path / "folds.json"
    written: dict[str, Any] = {
        "config": "config.json",
        "options": ["--data", "test"],
        "folds": {"one": {"keys": {"data.share": 0.5}, "seeds": 2}, "two": {"keys": {}}},
        "first": {"big": {"keys": {"student": "test_resnet"}, "once": True}, "small": {"title": "of stage 1"}},
        "keys": {"pretrained_student_weights": "{small}", "teacher_weights": "{big}"},
        "arms": {"mine": {}},
    }
    path.write_text(json.dumps(written))
    assert find_config(path) == (tmp_path / "config.json", path)
    assert find_config(tmp_path / "config.json") == (tmp_path / "config.json", None)
    plan = read_plan(path, command.config, command.task)
    assert [(fold.name, fold.seeds) for fold in plan.folds] == [("one", (1, 2)), ("two", (1,))]
    assert [fold.name_run(1, "mine") for fold in (*plan.folds, Fold("", (1,)))] == [
        "one_s1_mine",
        "two_s1_mine",
        "s1_mine",
    ]
    assert [(one.name, one.title, one.once) for one in plan.first] == [
        ("big", "big", True),
        ("small", "of stage 1", False),
    ]
    merged = build_keys(KEYS, plan.arms[1], 1, checkpoints={"small": "a.pth", "big": "b.pth"})
    assert (merged["pretrained_student_weights"], merged["teacher_weights"]) == ("a.pth", "b.pth")


def test_the_tables_of_folds_are_put_together_seed_by_seed() -> None:
    one, two = make_table(2, 0.0, 1), make_table(3, 0.0, 2)
    (seed_1,) = _join_folds([[{"": one}], [{"": two}]])
    assert seed_1[""]["logits"].tolist() == [*one["logits"].tolist(), *two["logits"].tolist()]
    assert _join_folds([[{"": one}, {"": two}]]) == [{"": one}, {"": two}]


def test_a_table_of_folds_has_the_metric_of_each(results: AblationResults) -> None:
    arms = tuple(
        arm.model_copy(update={"by_fold": {"p1": (0.5, None), "p2": (0.75,)}, "by_seed": (0.6,)})
        for arm in results.arms
    )
    columns = build_columns(results.model_copy(update={"arms": arms}), in_full=True)
    assert columns["by fold: p1, p2"][0] == "0.500, –; 0.750"
    assert "by seed" not in columns


def test_the_newest_of_a_pattern_is_taken_and_none_is_refused(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"run_{number}").touch()
    assert find_newest(str(tmp_path / "run_*"), "models.a.path") == tmp_path / "run_2"
    with pytest.raises(UserError, match="names nothing that is there"):
        find_newest(str(tmp_path / "other_*"), "models.a.path")


class AucAlone(DeepfakeTask):
    """The task with one metric, which reads these columns alone."""

    metrics = {"auc": DeepfakeTask.metrics["auc"]}  # noqa: RUF012


def make_table(people: int, effect: float, seed: int) -> dict[str, Any]:
    """Two rows of each of so many people: the larger the effect, the better they are told apart."""
    noise = np.random.default_rng(5).normal(size=2 * people) + 0.3 * np.random.default_rng(seed).normal(size=2 * people)
    label = np.arange(2 * people) % 2
    margin = noise + effect * (2 * label - 1)
    names = np.array([f"person {row // 2}" for row in range(2 * people)])
    logits = np.stack([-margin / 2, margin / 2], 1).astype(np.float32)
    ids = np.array([f"row {row}" for row in range(2 * people)])
    return {"id": ids, "group": names, "label": label, "logits": logits}


def make_results(people: int, effects: dict[str, float]) -> AblationResults:
    parts = {
        name: [{"": make_table(people, effect, 10 * seed + number)} for seed in (1, 2, 3)]
        for number, (name, effect) in enumerate(effects.items())
    }
    metric = DeepfakeTask.metrics["auc"]
    arms = tuple(
        ArmResult(
            name=name,
            title=f"arm {name}",
            is_arm=True,
            keys={},
            runs=(),
            by_seed=(0.5, 0.6, None),
            metrics={"auc": to_metric_value(compute_interval(metric, [one[""] for one in parts[name]], rounds=200))},
            cost=ArmCost(cpu_s=10.0, wall_s=9.0, relative=1.0 + 0.2 * number),
        )
        for number, name in enumerate(effects)
    )
    pairs = [compare_models(AucAlone, (name, parts[name]), ("alone", parts["alone"]), rounds=200) for name in effects]
    results = AblationResults(
        schema="sharpstudent/ablation/1",
        title="Ablation of made, arms",
        made_at="now",
        command="",
        task="deepfake",
        group_unit="person",
        metric="auc",
        metrics={"auc": MetricAbout(title="AUC", direction="higher", chance=0.5)},
        seeds=(1, 2, 3),
        epochs=3,
        data={"validation": ()},
        protocol={"steps": "equal"},
        references=("alone",),
        arms=arms,
        comparisons=tuple(pair for of_arm in pairs[1:] for pair in of_arm),
    )
    return results.model_copy(update={"verdict": write_verdict(results)})


@pytest.fixture(scope="module")
def results() -> AblationResults:
    return make_results(60, {"alone": 0.3, "better": 1.2, "worse": 0.0, "same": 0.3})


def test_the_verdict_claims_what_the_intervals_show_and_names_the_number_of_comparisons(
    results: AblationResults,
) -> None:
    lines = results.verdict
    assert lines[0].startswith("“arm better” is better than “arm alone”: AUC +")
    assert "is worse than" in lines[1]
    assert "inconclusive" in lines[2]
    assert "the interval covers 0" in lines[2]
    assert any("means over 3 seeds" in line for line in lines)


def test_from_few_people_nothing_is_claimed() -> None:
    few = make_results(8, {"alone": 0.0, "better": 3.0})
    assert "is better" not in " ".join(few.verdict)
    assert "a claim needs 10" in few.verdict[0]


def test_table_picture_page_and_json_hold_every_arm(results: AblationResults) -> None:
    columns = build_columns(results, in_full=True)
    assert list(columns["Arm"]) == ["alone", "better", "worse", "same"]
    assert columns["What it is"][1] == "arm better"
    assert columns["by seed"][0] == "0.500, 0.600, –"
    assert list(columns["CPU time"]) == ["1.00", "1.20", "1.40", "1.60"]
    assert columns["less alone"][0] == "–"
    assert set(columns) - set(build_columns(results, in_full=False)) == {"What it is", "by seed"}
    page = render_markdown(results, to_markdown(columns, words=["Arm", "What it is"]))
    assert all(arm.title in page for arm in results.arms)
    chart = build_chart(results)
    assert [row[0] for row in chart.rows] == ["better", "worse", "same"]
    assert render_png(chart).startswith(b"\x89PNG")
    assert AblationResults.model_validate_json(results.to_json()) == results


def test_unlike_numbers_of_steps_are_said(tmp_path: Path) -> None:
    def log(name: str, *steps: int) -> Path:
        (tmp_path / name / "logs").mkdir(parents=True)
        rows = "".join(f"{epoch},{count}\n" for epoch, count in enumerate(steps, 1))
        (tmp_path / name / "logs/metrics.csv").write_text(f"epoch,steps\n{rows}")
        return tmp_path / name

    a, b, longer = log("a", 40, 37), log("b", 77), log("c", 77, 77)
    assert _describe_steps({"one": [a, b], "two": [b]}) == "every arm takes 77 steps from the same stage-1 checkpoint"
    assert _describe_steps({"one": [a], "two": [longer]}).endswith("keys and steps differ: one 77, two 154")
    assert _describe_steps({"one": [a, longer]}).endswith("keys and steps differ: one 77 or 154")
