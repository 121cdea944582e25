"""The command line of both scripts: what it understands, what it refuses, and how a run is continued."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from config_samples import SHIPPED, WEIGHTS
from sharpstudent.config.cli import (
    CommandLine,
    compare_configs,
    load_run_config,
    parse_command_line,
    print_resolved,
    read_command_line,
)
from sharpstudent.config.run_config import ALLOWANCES, Stage
from sharpstudent.core.errors import UserError
from sharpstudent.registry import find_task


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty folder that holds one config."""
    monkeypatch.chdir(tmp_path)
    Path("mine.json").write_text(json.dumps(WEIGHTS | {"epoch": 3}))
    return tmp_path


def parse(*argv: str, stage: Stage = 1) -> CommandLine:
    return parse_command_line(argv, stage=stage, find_task=find_task)


def refuse(*argv: str, stage: Stage = 1) -> str:
    with pytest.raises(UserError) as caught:
        parse(*argv, stage=stage)
    return caught.value.as_text()


def start_run(*argv: str, stage: Stage = 1, folder: str = "output/run_mine_01_02_03_04_05") -> Path:
    """A run folder as the engine leaves it."""
    config = parse("mine.json", "-n", "run", *argv, stage=stage).config
    path = Path(folder)
    path.mkdir(parents=True)
    (path / "config.json").write_text(config.model_dump_json(indent=2))
    return path


@pytest.mark.parametrize(("stage", "name"), [(1, "pretrain_mobilevit"), (2, "distill_mobilevit")])
def test_the_guides_own_command_lines_are_understood(stage: Stage, name: str):
    line = parse(str(SHIPPED), "-n", name, stage=stage)
    assert line.config.name == name
    assert line.config.config_name == "config_SBI"
    assert line.config.stage == stage
    assert line.config_path == SHIPPED
    assert (line.resume, line.print_config, line.dry_run) == (None, False, False)
    assert line.notes[0].startswith(f"stage {stage} takes batches of {16 if stage == 1 else 4} samples")


def test_set_changes_flat_keys_and_groups():
    line = parse("mine.json", "-n", "a", "--set", "lr=0.1", "--set", "stage1.epoch=9", "--set=student=tf_x")
    assert line.config.optimizer.lr == 0.2
    assert line.config.training.epochs == 9
    assert line.config.student.name == "tf_x"


def test_set_reaches_the_keys_of_the_task():
    section = parse("mine.json", "-n", "a", "--set", "image_size=64").config.task_section
    assert section.model_dump()["image_size"] == 64


def test_flags_and_allowances_are_passed_on():
    line = parse("mine.json", "--dry-run", "--print-config", "--allow", "shared-people", "--allow", "partial-weights")
    assert (line.dry_run, line.print_config) == (True, True)
    assert line.config.allow == ("shared-people", "partial-weights")


@pytest.mark.parametrize("flag", ["--print-config", "--dry-run"])
def test_without_a_name_a_command_that_only_shows_uses_the_configs_own(flag: str):
    assert parse("mine.json", flag).config.name == "mine"


def test_a_run_needs_a_name_and_a_config():
    assert "-n pretrain_mobilevit" in refuse("mine.json")
    assert "-n distill_mobilevit" in refuse("mine.json", stage=2)
    assert "CONFIG" in refuse("-n", "a")


def test_a_config_whose_name_is_unsafe_in_a_path_is_cleaned():
    Path("my [best] config.json").write_text("{}")
    assert parse("my [best] config.json", "-n", "a").config.config_name == "my-best-config"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--nmae", "x"], "did you mean --name?"),
        (["--print"], "did you mean --print-config?"),
        (["--resum=x"], "did you mean --resume?"),
        (["--lr", "3"], "--set lr=3"),
        (["--image-size=64"], "--set image_size=64"),
        (["--stage1.epoch=3"], "--set stage1.epoch=3"),
        (["lr=3"], "--set lr=3"),
        (["extra"], "one argument too many"),
        (["--zzzzzz"], "known options"),
        (["--set"], "expected one argument"),
    ],
)
def test_a_wrong_argument_is_refused_with_the_right_one(argv: list[str], words: str):
    assert words in refuse("mine.json", "-n", "a", *argv)


def test_mistakes_of_the_command_and_of_the_config_are_reported_together():
    text = refuse("mine.json", "-n", "a/b", "--allow", "all", "--set", "lr=x", "--set", "zz=1")
    assert "4 problems" in text
    for word in ("-n/--name", "--allow", "lr", "zz", *ALLOWANCES):
        assert word in text


def test_help_shows_an_example_the_exit_codes_and_the_allowances(capsys: pytest.CaptureFixture[str]):
    for stage, example in ((1, "python train_student_only.py"), (2, "python main_distillation.py")):
        with pytest.raises(SystemExit) as caught:
            parse("--help", stage=stage)
        assert caught.value.code == 0
        shown = capsys.readouterr().out
        assert f"{example} configs/config_SBI.json -n" in shown
        assert "exit codes:" in shown
        assert all(name in shown for name in ALLOWANCES)


def test_a_stored_config_is_read_back_as_it_was():
    for stage in (1, 2):
        folder = start_run(stage=stage, folder=f"output/{stage}")
        config = parse("mine.json", "-n", "run", stage=stage).config
        assert load_run_config(folder, find_task) == config
        assert load_run_config(folder / "config.json", find_task) == config
        assert print_resolved(load_run_config(folder, find_task)) == print_resolved(config)


@pytest.mark.parametrize(
    "run", ["output/run_mine_01_02_03_04_05", "run_mine_01_02_03_04_05", "run_m", "output/run*", "r*"]
)
def test_a_run_is_found_by_folder_name_beginning_or_glob(run: str):
    folder = start_run()
    line = parse("--resume", run)
    assert line.resume == folder
    assert line.config == load_run_config(folder, find_task)
    assert line.config_path is None


def test_a_run_is_found_by_an_absolute_path(tmp_path: Path):
    folder = tmp_path / start_run()
    assert parse("--resume", f"{folder}/").resume == folder


def test_a_run_is_found_under_the_configs_own_output_root():
    start_run("--set", "output_root=elsewhere", folder="elsewhere/run_x")
    assert parse("--resume", "run_x", "--set", "output_root=elsewhere").resume == Path("elsewhere/run_x")


def test_the_whole_name_wins_over_a_longer_one():
    folder = start_run(folder="output/run")
    start_run(folder="output/run2")
    assert parse("--resume", "run").resume == folder
    assert "fits 2 run folders" in refuse("--resume", "ru")


def test_a_folder_that_holds_no_run_does_not_hide_one():
    Path("run").mkdir()
    assert parse("--resume", "run").resume if start_run() else None


@pytest.mark.parametrize("run", ["nothing", "", " ", "*", "[", "mine.json"])
def test_a_run_that_does_not_exist_is_refused(run: str):
    assert "is no run folder" in refuse("--resume", run)


def test_where_no_run_fits_the_existing_ones_are_listed():
    folder = start_run()
    assert str(folder) in refuse("--resume", "walk")


def test_a_run_of_the_other_stage_is_sent_to_its_script():
    folder = start_run(stage=2)
    assert f"python main_distillation.py --resume {folder}" in refuse("--resume", "run", stage=1)


def test_a_resume_with_the_same_config_changes_nothing():
    folder = start_run("--set", "lr=0.1")
    line = parse("mine.json", "--set", "lr=0.1", "--resume", "run")
    assert line.config == load_run_config(folder, find_task)


def test_a_resume_with_another_config_is_refused_key_by_key():
    start_run()
    text = refuse("mine.json", "--set", "lr=0.1", "--set", "stage1.epoch=5", "--resume", "run")
    assert "differs in 2 values" in text
    assert "optimizer.lr: 0.0001 -> 0.2" in text
    assert "training.epochs: 3 -> 5" in text
    assert "--allow changed-config" in text


def test_a_change_may_be_allowed_and_is_reported():
    start_run()
    line = parse("mine.json", "--set", "epoch=5", "--resume", "run", "--allow", "changed-config")
    assert line.config.training.epochs == 5
    assert "changed since the run began: training.epochs: 3 -> 5" in line.notes


def test_the_permission_to_change_is_given_anew_each_time():
    folder = start_run("--allow", "changed-config", "--allow", "partial-weights")
    assert "differs" in refuse("mine.json", "--set", "epoch=5", "--resume", "run")
    assert parse("--resume", str(folder)).config.allow == ("partial-weights",)


def test_device_workers_and_output_may_change_freely_with_and_without_the_config():
    start_run()
    for argv in (["mine.json"], []):
        changes = ["--set", "device=cpu", "--set", "num_workers=0", "--set", "output_root=there"]
        line = parse(*argv, *changes, "--resume", "output/run", "--allow", "shared-people")
        assert (line.config.device, line.config.num_workers, line.config.output_root) == ("cpu", 0, "there")
        assert line.config.allow == ("shared-people",)


def test_other_keys_of_a_resumed_run_need_the_config():
    start_run()
    text = refuse("--resume", "run", "--set", "epoch=9", "--set", "device=cpu")
    assert "cannot change epoch" in text


def test_another_name_or_an_unknown_allowance_is_refused_on_resume_too():
    start_run()
    assert "name: " in refuse("--resume", "run", "-n", "other")
    assert "safe folder name" in refuse("--resume", "run", "-n", "a/b")
    assert "known allowance" in refuse("--resume", "run", "--allow", "zz")


def test_a_stored_config_that_was_tampered_with_is_refused_by_key():
    folder = start_run()
    stored: dict[str, Any] = json.loads((folder / "config.json").read_text())
    stored["optimizer"]["lr"] = "fast"
    stored["optimizer"]["rhoo"] = 1
    del stored["seed"]
    stored["criterion"][0]["weight"]["value"] = None
    (folder / "config.json").write_text(json.dumps(stored))
    text = refuse("--resume", "run")
    for word in ("optimizer.lr", "optimizer.rhoo", "seed", "criterion[0].weight"):
        assert word in text


@pytest.mark.parametrize("content", ["", "[]", "{", "{}", '{"task": "deepfake"}', '{"task": 3}', '{"task_section": 3}'])
def test_a_broken_stored_config_is_a_message(content: str):
    folder = start_run()
    (folder / "config.json").write_text(content)
    refuse("--resume", "run")


def test_compare_configs_names_terms_and_absent_parts():
    two = parse("mine.json", "-n", "run", stage=2).config
    constant = parse("mine.json", "-n", "run", "--set", "use_progressive_distillation=false", stage=2).config
    changes = compare_configs(two, constant)
    assert 'criterion.hard.weight.kind: "staircase" -> "constant"' in changes
    assert "criterion.kd.weight.value: nothing -> 0.5" in changes
    assert compare_configs(two, two) == []


def test_print_config_prints_and_exits_0_like_help(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        read_command_line(["mine.json", "--print-config"], stage=2, find_task=find_task)
    assert caught.value.code == 0
    assert capsys.readouterr().out == print_resolved(parse("mine.json", "--print-config", stage=2).config) + "\n"


def test_without_print_config_the_command_is_returned():
    assert read_command_line(["mine.json", "-n", "a"], stage=1, find_task=find_task) == parse("mine.json", "-n", "a")


def test_the_command_keeps_its_set_words_for_the_commands_that_messages_advise():
    assert parse("mine.json", "-n", "a", "--set", "seed=3", "--set", "lr=0.1").overrides == ("seed=3", "lr=0.1")
    assert parse("mine.json", "-n", "a").overrides == ()
