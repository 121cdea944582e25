"""`--replay FILE`: a step of a run, with that run's own config, and nothing beside it but where it is computed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from config_samples import WEIGHTS
from sharpstudent.config.cli import CommandLine, load_run_config, parse_command_line
from sharpstudent.config.run_config import Stage
from sharpstudent.core.errors import UserError
from sharpstudent.registry import find_task


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty folder that holds one config."""
    monkeypatch.chdir(tmp_path)
    Path("mine.json").write_text(json.dumps(WEIGHTS | {"epoch": 3}))
    return tmp_path


def parse(*argv: str, stage: Stage = 2) -> CommandLine:
    return parse_command_line(argv, stage=stage, find_task=find_task)


def refuse(*argv: str, stage: Stage = 2) -> str:
    with pytest.raises(UserError) as caught:
        parse(*argv, stage=stage)
    return caught.value.as_text()


@pytest.fixture
def file(inside: Path) -> str:
    """A skipped step in the folder of a run of stage 2, as the engine leaves it, but for its content."""
    folder = Path("output/run_mine_01_02")
    (folder / "skipped").mkdir(parents=True)
    command = ("mine.json", "-n", "run", "--set", "lr=0.1", "--set", "seed=9", "--allow", "partial-weights")
    (folder / "config.json").write_text(parse(*command).config.model_dump_json(indent=2))
    path = folder / "skipped/epoch_1_step_3.pth"
    path.write_bytes(b"batch")
    return str(path)


def test_the_config_is_that_of_the_run_whose_folder_holds_the_file(file: str) -> None:
    line = parse("--replay", file)
    assert line.replay == Path(file)
    assert line.config == load_run_config(Path("output/run_mine_01_02"), find_task)
    assert (line.config.optimizer.lr, line.config.seed, line.config.allow) == (0.1, 9, ("partial-weights",))
    assert (line.resume, line.config_path, line.print_config) == (None, None, False)
    assert line.notes == (f"replaying {file} with its run's own config; nothing is written",)


def test_other_command_lines_replay_nothing(file: str) -> None:
    assert parse("mine.json", "-n", "x").replay is None
    assert parse("--resume", "output/run_mine_01_02").replay is None


def test_it_counts_as_a_dry_run_which_writes_nothing(file: str) -> None:
    assert parse("--replay", file).dry_run


@pytest.mark.parametrize("where", [".", "output/run_mine_01_02", "output/run_mine_01_02/skipped", "output"])
def test_the_file_may_be_named_from_any_folder(file: str, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    named = os.path.relpath(file, where)
    monkeypatch.chdir(where)
    assert parse("--replay", named).config.seed == 9


def test_a_run_folder_that_was_moved_is_as_good(file: str) -> None:
    shutil.move("output/run_mine_01_02", "elsewhere")
    assert parse("--replay", "elsewhere/skipped/epoch_1_step_3.pth").config.seed == 9


def test_the_device_may_be_another(file: str) -> None:
    config = parse("--replay", file, "--set", "device=cpu", "--set", "num_workers=0").config
    assert (config.device, config.num_workers, config.seed) == ("cpu", 0, 9)


@pytest.mark.parametrize("change", ["lr=0.5", "rho=0", "seed=1", "stage2.lr=0.5", "image_size=64"])
def test_what_the_step_depends_on_may_not(file: str, change: str) -> None:
    text = refuse("--replay", file, "--set", change)
    assert f"--set: cannot change {change.split('=')[0].split('.')[0]}: a step is replayed as it was" in text
    assert "CONFIG" not in text


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("mine.json",), "CONFIG"),
        (("-n", "x"), "-n/--name"),
        (("--resume", "auto"), "--resume"),
        (("--resume", "run"), "--resume"),
        (("--print-config",), "--print-config"),
        (("--dry-run",), "--dry-run"),
        (("--allow", "changed-config"), "--allow"),
        (("mine.json", "-n", "x", "--print-config"), "CONFIG, -n/--name, --print-config"),
    ],
)
def test_nothing_else_goes_with_it(file: str, words: tuple[str, ...], named: str) -> None:
    text = refuse("--replay", file, *words)
    assert f"--replay: cannot be combined with {named}: " in text
    assert f"remedy: python main_distillation.py --replay {file}" in text


def test_the_script_of_the_other_stage_names_the_right_one(file: str) -> None:
    text = refuse("--replay", file, stage=1)
    assert "is of a run of stage 2, and this script trains stage 1" in text
    assert f"remedy: python main_distillation.py --replay {file}" in text


def test_a_missing_file_is_refused(file: str) -> None:
    text = refuse("--replay", f"{file}x")
    assert f"--replay {file}x: does not exist" in text
    assert "logs/losses.logs" in text


def test_a_file_outside_a_run_folder_is_refused(file: str, inside: Path) -> None:
    shutil.copy(file, "alone.pth")
    assert "has no config.json of a run two folders above it" in refuse("--replay", "alone.pth")
    assert "does not exist" in refuse("--replay", "/")
    assert "does not exist" in refuse("--replay", "")


def test_a_folder_is_no_file(file: str) -> None:
    assert "does not exist" in refuse("--replay", str(Path(file).parent))


def test_a_config_that_cannot_be_read_is_named(file: str) -> None:
    Path("output/run_mine_01_02/config.json").write_text("{")
    assert "output/run_mine_01_02/config.json" in refuse("--replay", file)


def test_help_tells_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "--replay FILE" in shown
    assert "writes nothing" in shown
