"""A sweep: how values are read, which trials there are, what ends one early, and that the same command goes on."""

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from sharpstudent.config.cli import parse_command_line
from sharpstudent.config.load import read_config_file
from sharpstudent.core.errors import UserError
from sharpstudent.evaluation import sweep as module
from sharpstudent.evaluation.planned_runs import PlannedRun, Planner
from sharpstudent.evaluation.sweep import Sweep, main, merge
from sharpstudent.evaluation.sweep_choice import OPTUNA, Choices, Grid, NumberRange, Parzen, Trial, read_space
from sharpstudent.registry import find_task
from sharpstudent.tasks.deepfake.task import DeepfakeTask
from workplace import ROOT

KEYS: dict[str, Any] = {
    "data_source": "labelled",
    "data_root": "data",
    "student": "test_efficientnet",
    "teacher": "test_resnet",
    "teacher_weights": "weights/t.pth",
    "pretrained_student_weights": "student.pth",
    "stage2": {"epoch": 4, "lr": 0.01},
}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("rho=0,0.05", Choices("rho", (0, 0.05))),
        ("stage2.optimizer=sgd,adamw", Choices("stage2.optimizer", ("sgd", "adamw"))),
        ("asam=true", Choices("asam", (True,))),
        ('terms=[[{"term": "hard"}], null]', Choices("terms", ([{"term": "hard"}], None))),
        ("lr=1e-5..1e-2:log", NumberRange("lr", 1e-5, 1e-2, is_log=True, is_whole=False)),
        ("temperature=1.0..4.0", NumberRange("temperature", 1.0, 4.0, is_log=False, is_whole=False)),
        ("epoch=2..8", NumberRange("epoch", 2.0, 8.0, is_log=False, is_whole=True)),
    ],
)
def test_a_list_and_a_range_are_read(text: str, found: object) -> None:
    assert read_space([text]) == [found]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "--vary: is missing"),
        (["rho"], "has no list of values"),
        (["rho="], "has no list of values"),
        (["rho=1,,2"], "has no list of values"),
        (["a b=1"], "names no key"),
        (["rho=a..b"], "ends are no numbers"),
        (["rho=2..1"], "does not rise"),
        (["rho=0..1:log"], "does not rise"),
        (["rho=0..1:square"], "has no scale 'square'"),
        (["rho=1,2", "rho=3"], "rho: is there twice"),
    ],
)
def test_what_gives_no_values_is_refused_with_an_example(given: list[str], said: str) -> None:
    with pytest.raises(UserError) as refused:
        read_space(given)
    assert said in refused.value.as_text()
    assert "--vary " in refused.value.as_text()


def test_every_combination_of_lists_is_a_trial_in_order() -> None:
    grid = Grid([Choices("a", (1, 2)), Choices("b", ("x", "y"))])
    assert grid.listed == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}]
    assert grid.choose([Trial(values=grid.listed[0])]) == grid.listed[1]
    assert grid.choose([Trial(values=values) for values in grid.listed]) is None


def test_a_value_stands_where_the_config_has_its_key_in_the_stage_or_in_a_term() -> None:
    terms = [{"term": "hard"}, {"term": "kd", "weight": 1, "name": "soft"}]
    keys = {"lr": 1, "stage2": {"lr": 2, "rho": 3, "terms": terms}}
    assert merge(keys, {"lr": 5, "data.size": 7}, 2) == {
        **keys,
        "stage2": {**keys["stage2"], "lr": 5},
        "data": {"size": 7},
    }  # type: ignore[dict-item]
    assert merge(keys, {"lr": 5}, 1) == {**keys, "lr": 5}
    for key in ("terms.soft.weight", "stage2.terms.soft.weight", "terms.1.weight"):
        assert merge(keys, {key: 9}, 2)["stage2"]["terms"] == [{"term": "hard"}, {**terms[1], "weight": 9}]
    with pytest.raises(UserError, match="leads to 'kd', which is not there"):
        merge(keys, {"terms.kd.weight": 9}, 2)
    with pytest.raises(UserError, match="leads to 'terms', which is not there"):
        merge({"lr": 1}, {"terms.kd.weight": 9}, 2)
    assert terms[1]["weight"] == 1


CURVES = {1.0: (0.6, 0.7, 0.72, 0.71), 2.0: (0.6, 0.8, 0.85, 0.9), 3.0: (0.5, 0.4, 0.3, 0.2)}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which a run of a trial is a file of metrics by its temperature."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "student.pth").touch()
    (tmp_path / "config.json").write_text(json.dumps(KEYS))
    folders: dict[str, Path] = {}

    def train(self: Planner, run: PlannedRun, *, is_hopeless: Any, allowed: Any) -> int:
        config = run.config
        logs = self.out / f"runs/{config.name}_{config.config_name}_x/logs"
        logs.mkdir(parents=True)
        temperature = config.criterion[1].numbers["temperature"].constant
        assert temperature is not None
        lines = ["epoch,val_auc,val_eer,train_hard,train_kd"]
        for epoch, value in enumerate(CURVES[temperature], 1):
            lines.append(f"{epoch},{value},{1 - value},{1 / epoch},{2 / epoch}")
            (logs / "metrics.csv").write_text("\n".join(lines) + "\n")
            if is_hopeless():
                return 143
        folders[config.config_name] = logs.parent
        self.costs.add(run.name, cpu_s=10.0 * temperature, wall_s=1.0)
        return 0

    monkeypatch.setattr(Planner, "train", train)
    monkeypatch.setattr(PlannedRun, "find_folder", lambda run: folders.get(run.config.config_name))
    monkeypatch.setattr(PlannedRun, "find_finished", PlannedRun.find_folder)
    return tmp_path


def test_a_list_ends_in_a_table_and_the_best_config_and_goes_on_where_it_was_stopped(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["config.json", "--vary", "temperature=1.0,2.0", "--set", "rho=0.1", "--out", "swept"]
    main(words)
    said = capsys.readouterr().out
    assert "2 trials, 0 of them are there already" in said
    assert "best: trial 1, val_auc 0.9000" in said
    table = (place / "swept/sweep.md").read_text().splitlines()
    assert table[2].startswith("| Trial | temperature | State | Epoch | val_auc | val_eer | train_hard | train_kd |")
    assert table[4].startswith("| 001 | 2 | complete | 4 | 0.9 | 0.1 | 0.25 | 0.5 |")
    best = read_config_file(place / "swept/best.json")
    assert (best["temperature"], best["rho"]) == (2.0, 0.1)
    assert "train it by python main_distillation.py swept/best.json -n NAME" in said
    config = parse_command_line(["swept/best.json", "-n", "x"], stage=2, find_task=find_task).config
    assert config.training.epochs == 4
    main(words)
    assert "2 trials, 2 of them are there already" in capsys.readouterr().out
    stored = json.loads((place / "swept/trials.json").read_text())
    stored[1] |= {"state": "running", "history": {}}  # as a kill leaves it
    (place / "swept/trials.json").write_text(json.dumps(stored))
    main(words)
    assert json.loads((place / "swept/trials.json").read_text())[1]["state"] == "complete"
    with pytest.raises(UserError, match="began with another rho"):
        main([*words[:-4], "--set", "rho=0.2", "--out", "swept"])
    assert read_config_file(place / "swept/settings.json")["config"]["rho"] == 0.1


def test_what_cannot_be_trained_is_refused_before_the_first_trial(place: Path) -> None:
    for vary, said in (("temprature=1,2", "did you mean"), ("temperature=1.0,-3", "temperature")):
        with pytest.raises(UserError) as refused:
            main(["config.json", "--vary", vary, "--out", f"swept_{vary[-1]}"])
        assert said in refused.value.as_text()
        assert not list(place.glob("swept*/runs"))
    main(["config.json", "--vary", "temperature=1.0", "--out", "swept_3"])  # a corrected command is another sweep
    with pytest.raises(UserError, match="--trials: is missing: lr is a range"):
        main(["config.json", "--vary", "lr=0.1..0.2"])


def test_without_optuna_trials_are_refused_with_what_installs_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError) as refused:
        main(["config.json", "--vary", "lr=0.1..0.2", "--trials", "3"])
    assert "--trials: needs Optuna" in refused.value.as_text()
    assert f"pip install {OPTUNA}, or" in refused.value.as_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["sweep"] == [OPTUNA]


def build_parzen(count: int = 8) -> Parzen:
    optuna = pytest.importorskip("optuna", reason="needs Optuna, the extra `sweep`")
    space = read_space(["temperature=1.0..4.0", "epoch=1..9", "terms=[[1], null]"])
    return Parzen(space, count, 1, side_by_side=1, prunes=True, optuna=optuna)


def test_optuna_chooses_within_the_space_the_same_again_and_by_what_was_before() -> None:
    trials: list[Trial] = []
    parzen = build_parzen(24)
    while (values := parzen.choose(trials)) is not None:
        assert build_parzen(24).choose(trials) == values
        assert 1.0 <= values["temperature"] <= 4.0
        assert values["epoch"] in range(1, 10)
        assert values["terms"] in ([1], None)
        trials.append(Trial(values=values, state="complete", history={1: -((values["temperature"] - 3.0) ** 2)}))
    assert len(trials) == 24
    late = [abs(one.values["temperature"] - 3.0) for one in trials[-8:]]
    assert sum(late) / 8 < sum(abs(one.values["temperature"] - 3.0) for one in trials[:10]) / 10


def test_a_trial_below_the_median_of_the_others_is_hopeless_and_a_better_one_is_not() -> None:
    parzen = build_parzen()
    values = {"temperature": 2.0, "epoch": 3, "terms": None}
    others = [Trial(values=values, state="complete", history={1: 0.5, 2: 0.6, 3: 0.7}) for _ in range(4)]
    assert parzen.is_hopeless(Trial(values=values, history={1: 0.5, 2: 0.5, 3: 0.5}), others)
    assert not parzen.is_hopeless(Trial(values=values, history={1: 0.5, 2: 0.7, 3: 0.8}), others)
    assert not parzen.is_hopeless(Trial(values=values, history={1: 0.1}), others)  # of one epoch nothing is said
    assert not parzen.is_hopeless(Trial(values=values, history={1: 0.5, 2: 0.5}), others[:3])


def test_a_pruned_and_a_diverged_trial_are_results_and_never_the_best(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = iter((1.0, 2.0, 1.0, 2.0, 3.0, 1.0, None))

    class Chooser(Grid):
        def choose(self, trials: Any) -> dict[str, Any] | None:
            value = next(chosen)
            return None if value is None else {"temperature": value}

        def is_hopeless(self, trial: Trial, others: Any) -> bool:
            return trial.values["temperature"] == 3.0 and len(trial.history) == 2

    planner = Planner(place / "swept", place)
    swept = Sweep(planner, KEYS, Chooser([]), DeepfakeTask.metrics["auc"], "val_auc")
    train = Planner.train
    monkeypatch.setattr(Planner, "train", lambda self, run, **k: 3 if "005" in run.name else train(self, run, **k))
    swept.train_all()
    assert [one.state for one in swept.trials] == ["complete"] * 4 + ["pruned", "failed"]
    assert swept.trials[4].history == {1: 0.5, 2: 0.4}
    assert swept.best == 1
    assert module.build_table(swept)["Trial"][0] == "001"
