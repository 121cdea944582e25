"""`--resume auto`: one command, given again and again, finds its own run or starts one, and says which."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from config_samples import WEIGHTS
from sharpstudent.config import stored
from sharpstudent.config.cli import CommandLine, parse_command_line, read_command_line
from sharpstudent.config.run_config import Stage
from sharpstudent.core.errors import UserError
from sharpstudent.registry import find_task

COMMAND = ("mine.json", "-n", "run", "--resume", "auto")


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty folder that holds one config."""
    monkeypatch.chdir(tmp_path)
    Path("mine.json").write_text(json.dumps(WEIGHTS | {"epoch": 3}))
    return tmp_path


def parse(*argv: str, stage: Stage = 1) -> CommandLine:
    return parse_command_line(argv, stage=stage, find_task=find_task)


def refuse(*argv: str) -> str:
    with pytest.raises(UserError) as caught:
        parse(*argv)
    return caught.value.as_text()


def leave_run(
    stamp: str, *argv: str, name: str = "run", stage: Stage = 1, saved: float | None = 1000.0, root: str = "output"
) -> Path:
    """A run folder as the engine leaves it; saved: the time of its last.pth [s], None where it has none."""
    config = parse("mine.json", "-n", name, *argv, stage=stage).config
    folder = Path(root) / f"{name}_mine_{stamp}"
    (folder / "weights").mkdir(parents=True)
    (folder / "config.json").write_text(config.model_dump_json(indent=2))
    if saved is not None:
        (folder / "weights/last.pth").write_bytes(b"state")
        os.utime(folder / "weights/last.pth", (saved, saved))
    return folder


def test_without_a_run_a_new_one_is_started_as_without_the_option() -> None:
    line, plain = parse(*COMMAND), parse("mine.json", "-n", "run")
    assert line.resume is None
    assert line.config == plain.config
    note, *others = line.notes
    assert note.startswith("--resume auto: no run under output has this name")
    assert "starting a new one" in note
    assert tuple(others) == plain.notes


def test_the_run_of_the_same_command_is_found_and_goes_on_as_with_its_name() -> None:
    folder = leave_run("01_02")
    line, named = parse(*COMMAND), parse("mine.json", "-n", "run", "--resume", str(folder))
    assert line.resume == folder
    assert line.config == named.config
    assert line.notes == (f"--resume auto: found this command's run {folder}", *named.notes)


def test_of_several_the_one_saved_last_is_taken_whatever_the_date_in_its_name() -> None:
    leave_run("12_31", saved=1000)
    newest = leave_run("06_06", saved=3000)
    leave_run("01_01", saved=2000)
    assert parse(*COMMAND).resume == newest


def test_a_run_whose_last_state_is_only_the_one_before_is_found_too() -> None:
    folder = leave_run("01_01")
    (folder / "weights/last.pth").rename(folder / "weights/last_previous.pth")
    assert parse(*COMMAND).resume == folder


def test_runs_of_another_name_config_or_stage_are_not_ours_and_not_mentioned() -> None:
    leave_run("01_01", name="run_two")
    leave_run("01_02", stage=2)
    Path("other.json").write_bytes(Path("mine.json").read_bytes())
    for command in (COMMAND, ("other.json", "-n", "run", "--resume", "auto")):
        line = parse(*command)
        assert line.resume is None
        assert len([note for note in line.notes if "--resume auto" in note]) == 1
    assert parse(*COMMAND, stage=2).resume == Path("output/run_mine_01_02")


def test_a_run_with_another_config_is_passed_over_with_the_difference_even_if_it_is_newer() -> None:
    ours = leave_run("01_01", saved=1000)
    other = leave_run("01_02", "--set", "lr=0.1", "--set", "epoch=9", saved=2000)
    line = parse(*COMMAND)
    assert line.resume == ours
    passed, found = line.notes[:2]
    assert passed == (
        f"--resume auto: passed over {other}: its config differs (run -> now): training.epochs: 9 -> 3; "
        "optimizer.lr: 0.2 -> 0.0001"
    )
    assert str(ours) in found


def test_a_long_difference_is_shortened() -> None:
    changes = [f"--set={change}" for change in ("lr=0.1", "epoch=9", "rho=0.1", "seed=1", "flat=0.5", "momentum=0.5")]
    leave_run("01_01", *changes, "--set", "student=tf_x")
    (note,) = (note for note in parse(*COMMAND).notes if "passed over" in note)
    assert note.endswith("; 2 more")
    assert note.count(" -> ") == 1 + stored.MOST_CHANGES


def test_permission_to_change_a_config_does_not_make_it_ours() -> None:
    leave_run("01_01", "--set", "lr=0.1")
    assert parse(*COMMAND, "--allow", "changed-config").resume is None


def test_what_may_differ_freely_does_not_hide_the_run() -> None:
    folder = leave_run("01_01")
    line = parse(*COMMAND, "--set", "device=cpu", "--set", "num_workers=0", "--allow", "shared-people")
    assert line.resume == folder
    assert (line.config.device, line.config.num_workers, line.config.allow) == ("cpu", 0, ("shared-people",))


def test_the_output_root_of_the_command_is_searched_and_no_other() -> None:
    leave_run("01_01")
    there = leave_run("01_02", root="else where [1]")
    line = parse(*COMMAND, "--set", "output_root=else where [1]")
    assert line.resume == there
    assert parse(*COMMAND, "--set", "output_root=nowhere").resume is None
    assert parse(*COMMAND, "--set", "output_root=mine.json").resume is None  # refused later, with the other problems


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"task": "deepfake"}', b"\xff\xfe", b'{"task": "of another version"}', None]
)
def test_a_stored_config_that_cannot_be_read_is_passed_over_with_a_note(content: bytes | None) -> None:
    folder = leave_run("01_02", saved=2000)
    if content is None:
        (folder / "config.json").unlink()
    else:
        (folder / "config.json").write_bytes(content)
    line = parse(*COMMAND)
    assert line.resume is None
    assert line.notes[0].startswith(f"--resume auto: passed over {folder}: ")
    ours = leave_run("01_01", saved=1000)
    assert parse(*COMMAND).resume == ours


@pytest.mark.parametrize(("name", "noted"), [("run", True), ("other", False)])
def test_a_folder_of_another_user_is_passed_over(monkeypatch: pytest.MonkeyPatch, name: str, noted: bool) -> None:
    private, is_file = leave_run("01_02", name=name), Path.is_file

    def refuse_one(path: Path) -> bool:
        if private in path.parents:
            raise PermissionError(13, "Permission denied")
        return is_file(path)

    monkeypatch.setattr(stored.Path, "is_file", refuse_one)
    line = parse(*COMMAND)
    assert line.resume is None
    assert any(f"passed over {private}: it cannot be read (Permission denied)" in n for n in line.notes) is noted


def test_unreadable_runs_of_other_names_are_not_mentioned() -> None:
    folder = leave_run("01_02", name="other")
    (folder / "config.json").write_text("{")
    Path("output/notes").mkdir()
    Path("output/run_mine_list.txt").write_text("a file")
    assert [note for note in parse(*COMMAND).notes if "passed over" in note] == []


def test_a_run_killed_before_its_first_save_is_passed_over_with_a_note() -> None:
    folder = leave_run("01_02", saved=None)
    line = parse(*COMMAND)
    assert line.resume is None
    assert f"passed over {folder}: it has no saved state" in line.notes[0]


@pytest.mark.parametrize(
    ("argv", "missing"),
    [
        (["--resume", "auto"], "CONFIG and -n/--name"),
        (["mine.json", "--resume", "auto"], "-n/--name"),
        (["-n", "run", "--resume", "auto"], "CONFIG"),
        (["mine.json", "--resume", "auto", "--dry-run"], "-n/--name"),
    ],
)
def test_it_needs_the_config_and_the_name(argv: list[str], missing: str) -> None:
    text = refuse(*argv)
    assert f"--resume auto: needs {missing}: " in text
    assert "-n pretrain_mobilevit --resume auto" in text


def test_mistakes_in_the_config_come_first() -> None:
    leave_run("01_01")
    assert "zz" in refuse(*COMMAND, "--set", "zz=1")


def test_a_run_folder_named_auto_is_still_found_by_its_path() -> None:
    folder = leave_run("01_01").rename("output/auto")
    assert parse("--resume", "./auto").resume == folder
    assert parse(*COMMAND).resume == folder  # it is also the run of this command: its config says so


def test_print_config_shows_what_would_be_trained_and_touches_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    leave_run("01_01")
    before = sorted(Path().rglob("*"))
    with pytest.raises(SystemExit) as caught:
        read_command_line([*COMMAND, "--print-config"], stage=1, find_task=find_task)
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    with pytest.raises(SystemExit):
        read_command_line(["mine.json", "-n", "run", "--print-config"], stage=1, find_task=find_task)
    assert capsys.readouterr().out == shown
    assert sorted(Path().rglob("*")) == before


def test_an_output_root_that_cannot_be_searched_is_the_users_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_listing(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(stored.Path, "iterdir", refuse_listing)
    assert "output_root = 'output': cannot be searched for runs (Permission denied)" in refuse(*COMMAND)


def test_the_help_explains_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    shown = " ".join(capsys.readouterr().out.split())
    for words in ("`auto`: the newest run", "./auto", "relaunched by a scheduler", "exits 0 when the run is complete"):
        assert words in shown


@pytest.mark.parametrize("began", ["true", "false"])
def test_a_run_keeps_the_memory_format_that_it_began_with_where_the_config_leaves_it_open(began: str) -> None:
    folder = leave_run("11_01_00_00_00", "--set", f"channels_last={began}")
    for words in (COMMAND, ("mine.json", "--resume", str(folder))):
        line = parse(*words)
        assert line.resume == folder
        assert line.config.compute.channels_last is (began == "true")
    other = "false" if began == "true" else "true"
    assert "channels_last" in refuse("mine.json", "--resume", str(folder), "--set", f"channels_last={other}")
    assert parse("mine.json", "-n", "run").config.compute.channels_last == "auto"
