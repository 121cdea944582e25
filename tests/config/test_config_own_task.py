"""A task of the user's own: its keys, models, metrics and terms in a config, and how its runs are resumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from config_page import build_config_docs, build_schema
from config_samples import ROOT, WEIGHTS
from own_task import fresh_imports, write_signals
from sharpstudent.config.cli import CommandLine, parse_command_line
from sharpstudent.config.run_config import RunConfig, Stage
from sharpstudent.config.stored import load_run_config
from sharpstudent.core.errors import UserError
from sharpstudent.core.schedules import Constant
from sharpstudent.registry import build_task, find_task

KEYS = {"task": "signals:Signals", "student": "small", "data": {"root": "recordings"}}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Every test runs in a folder that holds the task, a config of it, and one of the built-in task."""
    monkeypatch.chdir(tmp_path)
    write_signals(tmp_path)
    write_config()
    Path("built_in.json").write_text(json.dumps(WEIGHTS | {"image_size": 64}))
    with fresh_imports():
        yield tmp_path


def write_config(**keys: Any) -> None:
    Path("mine.json").write_text(json.dumps(KEYS | keys))


def parse(*argv: str, stage: Stage = 1) -> CommandLine:
    return parse_command_line(argv, stage=stage, find_task=find_task)


def start(*argv: str, stage: Stage = 1, **keys: Any) -> RunConfig:
    write_config(**keys)
    return parse("mine.json", "-n", "run", *argv, stage=stage).config


def refuse(*argv: str, stage: Stage = 1, **keys: Any) -> str:
    if keys:
        write_config(**keys)
    with pytest.raises(UserError) as caught:
        parse(*(argv or ("mine.json", "-n", "run")), stage=stage)
    return caught.value.as_text()


def leave_run(*argv: str, config: str = "mine.json", **keys: Any) -> Path:
    """A run folder as the engine leaves it."""
    if keys:
        write_config(**keys)
    resolved = parse(config, "-n", "run", *argv).config
    run = Path("output") / f"run_{Path(config).stem}_01_02"
    (run / "weights").mkdir(parents=True)
    (run / "weights" / "last.pth").touch()
    (run / "config.json").write_text(resolved.model_dump_json(indent=2))
    return run


def forget() -> None:
    """As in a new process, whose modules are not looked up in this folder yet."""
    sys.modules.pop("signals", None)
    sys.path[:] = [place for place in sys.path if place != str(Path().resolve())]


# --- The keys of the task -------------------------------------------------------------------------------------------


def test_the_class_comes_from_the_config_and_its_keys_from_the_group_data() -> None:
    command = parse("mine.json", "-n", "run")
    assert command.task.__name__ == "Signals"
    assert command.config.task == "signals:Signals"
    assert command.config.task_section.model_dump() == {"root": "recordings", "length": 64, "alpha": 0.5}
    task = build_task(command.config, command.task)
    assert type(task).__name__ == "Signals"
    assert task.section == command.config.task_section


def test_a_config_in_another_folder_has_its_task_beside_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert parse("../mine.json", "-n", "run").task.__name__ == "Signals"


def test_task_on_the_command_line_wins_over_the_config() -> None:
    write_config(task="nowhere:Nothing")
    command = parse("mine.json", "-n", "run", "--task", "signals:Signals")
    assert command.config.task == "signals:Signals"
    assert (
        parse("built_in.json", "-n", "run", "--task", "deepfake").config == parse("built_in.json", "-n", "run").config
    )
    assert refuse("mine.json", "-n", "run", "--task", "signls:Signals").startswith("--task: names the module signls")


def test_set_reaches_the_group_data() -> None:
    section = start("--set", "data.length=128", "--set", "data.root=there").task_section
    assert section.model_dump() == {"root": "there", "length": 128, "alpha": 0.5}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"data": {"root": "x", "lenght": 8}}, ("data.lenght: is not a known key", 'did you mean "data.length"?')),
        ({"data": {"root": 3}}, ("data.root: has a value of the wrong type", "text: folder of recordings")),
        ({"data": {"root": "x", "length": 4}}, ("data.length: is out of range", "at least 8")),
        ({"data": {"root": "x", "length": 12}}, ("data.length: must be a multiple of 8, because", "got: 12")),
        ({"data": {}}, ("data.root: is missing", "text")),
        ({"data": "recordings"}, ("data: has a value of the wrong type",)),
        ({"root": "x"}, ("root: is not a known key", "known as data.root")),
        ({"image_size": 3}, ("image_size: is not a known key",)),
    ],
)
def test_a_wrong_key_of_the_task_is_reported_as_any_other(keys: dict[str, Any], words: tuple[str, ...]) -> None:
    text = refuse(**keys)
    for word in words:
        assert word in text


def test_without_the_group_its_missing_keys_are_reported_by_name() -> None:
    Path("mine.json").write_text(json.dumps({"task": "signals:Signals", "student": "small"}))
    assert "data.root: is missing" in refuse("mine.json", "-n", "run")


def test_an_option_that_is_a_key_of_the_task_is_refused_with_set_as_the_remedy() -> None:
    assert "write --set length=8" in refuse("mine.json", "-n", "run", "--length=8")


def test_a_key_of_the_tasks_own_may_be_called_alpha_and_a_key_of_the_loss_may_not() -> None:
    assert start(data={"root": "x", "alpha": 0.25}).task_section.model_dump()["alpha"] == 0.25
    assert start(student={"name": "small", "alpha": 2}).student.options == {"alpha": 2}
    assert "opposite meanings" in refuse(alpha=0.25)


def test_schema_and_page_follow_the_task() -> None:
    task = find_task("signals:Signals", beside=[Path()], trusted=True)
    schema, page = build_schema(task), build_config_docs(task, "signals")
    assert schema["properties"]["data"]["$ref"] == "#/$defs/Keys"
    assert schema["properties"]["selection_metric"]["enum"] == ["error", "accuracy"]
    assert "root" not in schema["properties"]
    assert "| `hinge` | a hinge on the lead | the targets | `lead` (1.0): the lead |" in page
    assert "| `length` | a whole number, at least 8 | `64` | samples of a recording |" in page


# --- The built-in task, whose keys have two places ------------------------------------------------------------------


def resolve_built_in(keys: dict[str, Any], *argv: str) -> dict[str, Any]:
    Path("built_in.json").write_text(json.dumps(WEIGHTS | keys))
    return parse("built_in.json", "-n", "run", *argv).config.task_section.model_dump()


def test_flat_keys_and_the_group_say_the_same() -> None:
    flat, group = resolve_built_in({"image_size": 64}), resolve_built_in({"data": {"image_size": 64}})
    assert flat == group
    assert flat["image_size"] == 64
    assert resolve_built_in({"data": {"image_size": 64}, "compression": "raw"}) == flat | {"compression": "raw"}


def test_a_key_that_stands_in_both_places_is_refused() -> None:
    with pytest.raises(UserError, match=r"image_size: stands here and as data\.image_size"):
        resolve_built_in({"image_size": 64, "data": {"image_size": 128}})


@pytest.mark.parametrize("place", [{"image_size": 64}, {"data": {"image_size": 64}}])
@pytest.mark.parametrize("key", ["image_size", "data.image_size"])
def test_set_wins_over_the_file_wherever_both_stand(place: dict[str, Any], key: str) -> None:
    assert resolve_built_in(place, "--set", f"{key}=128")["image_size"] == 128


# --- Models, metrics, terms -----------------------------------------------------------------------------------------


def test_a_task_without_words_of_its_own_starts_at_random_and_names_its_models() -> None:
    assert start().student.init == "random"
    assert start(student_init="w.pth").student.init == "w.pth"
    Path("mine.json").write_text(json.dumps({"task": "signals:Signals", "data": {"root": "x"}}))
    assert "student: is missing" in refuse("mine.json", "-n", "run")
    assert "teacher: is missing" in refuse(teacher_weights="t.pth")
    assert start(teacher_weights="t.pth", teacher="big").teachers == ()


def test_a_model_has_options_beside_its_name() -> None:
    keys = {"student": {"name": "small", "width": 32, "graph": {"edges": [[0, 1]]}}, "pretrained_student_weights": "s"}
    two = [
        {"model": {"name": "big", "depth": 4}, "weights": "t.pth", "reads": {"signal": "raw"}},
        {"model": "big", "weights": "u.pth"},
    ]
    config = start(stage=2, teachers=two, **keys)
    assert (config.student.name, config.student.options) == ("small", {"width": 32, "graph": {"edges": [[0, 1]]}})
    assert [(one.name, one.options, one.reads) for one in config.teachers] == [
        ("big", {"depth": 4}, {"signal": "raw"}),
        ("big", {}, {}),
    ]
    flat = start(stage=2, teacher={"name": "big", "depth": 2}, teacher_weights="t.pth", **keys)
    assert flat.teachers[0].options == {"depth": 2}
    assert start("--set", "student.width=8", student={"name": "small"}).student.options == {"width": 8}


@pytest.mark.parametrize(
    ("student", "words"),
    [
        ({"width": 3}, ("student.name: is missing",)),
        ({"name": ""}, ("student.name: is empty",)),
        ({"name": 3}, ("student.name: has a value of the wrong type", '"name": "3"')),
        (3, ("student: has a value of the wrong type", "text, or a group")),
    ],
)
def test_a_model_without_a_name_is_refused(student: object, words: tuple[str, ...]) -> None:
    text = refuse(student=student)
    for word in words:
        assert word in text


def test_a_model_without_options_is_written_down_as_before_there_were_any() -> None:
    written = json.loads(start().model_dump_json())
    assert set(written["student"]) == {"name", "init", "dropout", "weights"}
    assert "weak_teacher_margin" not in written["training"]


def test_the_first_metric_selects_unless_another_is_named() -> None:
    assert start().training.selection_metric == "error"
    assert start(selection_metric="accuracy").training.selection_metric == "accuracy"
    assert start(stage1={"selection_metric": "accuracy"}).training.selection_metric == "accuracy"
    text = refuse(selection_metric="auc")
    assert 'one of "error", "accuracy"' in text


def test_terms_of_the_task_are_read_as_any_other_in_both_stages() -> None:
    terms = [{"term": "hinge", "lead": 2, "on": "aux.*", "target": "word", "where": "has_word"}]
    for stage in (1, 2):
        config = start(stage=stage, stage1={"terms": terms}, stage2={"terms": terms}, **WEIGHTS, teacher="big")  # type: ignore[arg-type]
        [term] = config.criterion
        assert (term.name, term.term) == ("hinge", "hinge")
        assert term.numbers == {"lead": Constant(2.0)}
        assert term.choices == {"on": "aux.*", "target": "word", "where": "has_word"}


def test_a_task_without_class_labels_has_terms_in_stage_1_alone_too() -> None:
    config = start(stage1={"terms": [{"term": "binary", "on": "inout", "target": "inout"}, {"term": "hinge"}]})
    assert [(term.term, term.choices) for term in config.criterion] == [
        ("binary", {"on": "inout", "target": "inout"}),
        ("hinge", {}),
    ]


@pytest.mark.parametrize(
    ("term", "words"),
    [
        ({"term": "hing"}, ("is not a known term", "a hinge on the lead", 'did you mean "term": "hinge"?')),
        ({"term": "hinge", "leed": 1}, ("leed: is not a known key", 'did you mean "stage1.terms[0].lead"?')),
        ({"term": "hinge", "on": 3}, ("on: has a value of the wrong type", "the output of the student")),
        ({"term": "hinge", "where": ""}, ()),
        ({"term": "hinge", "of": "x"}, ("of: is not a known key",)),
        ({"term": "hard", "of": "x"}, ("of: is not a known key",)),
        ({"term": "hard", "over": "pixels"}, ("over: is not a known key",)),
    ],
)
def test_a_wrong_setting_of_a_term_is_reported_by_its_place(term: dict[str, Any], words: tuple[str, ...]) -> None:
    if not words:
        assert start(stage1={"terms": [term]}).criterion[0].choices == {}
        return
    text = refuse(stage1={"terms": [term]})
    for word in words:
        assert f"stage1.terms[0].{word}" in text or word in text


def test_settings_that_every_term_has_are_stored_only_where_they_are_not_the_default() -> None:
    def read(**settings: str) -> dict[str, str]:
        keys = {"stage2": {"terms": [{"term": "kd", **settings}]}, "teacher": "big", **WEIGHTS}
        return start(stage=2, **keys).criterion[0].choices

    assert read() == read(on="logits", over="classes") == {}
    assert read(on="heatmap", of="map", over="pixels", where="seen") == {
        "over": "pixels",
        "on": "heatmap",
        "of": "map",
        "where": "seen",
    }
    with pytest.raises(UserError, match=r"terms\[0\]\.over: is not one of the choices"):
        read(over="rows")


def test_a_margin_for_weak_teachers_is_of_stage_2_and_off_unless_it_is_given() -> None:
    keys = {"teacher": "big", **WEIGHTS}
    assert start(stage=2, **keys).training.weak_teacher_margin is None
    assert start(stage=2, weak_teacher_margin=0.0, **keys).training.weak_teacher_margin == 0.0
    assert start(weak_teacher_margin=0.0, **keys).training.weak_teacher_margin is None
    assert "weak_teacher_margin: is out of range" in refuse(weak_teacher_margin=-1)
    assert start("--allow", "weak-teacher").allow == ("weak-teacher",)


# --- Resumed runs --------------------------------------------------------------------------------------------------


def test_a_stored_config_is_read_back_once_its_task_is_known() -> None:
    run = leave_run(student={"name": "small", "width": 3})
    task = find_task("signals:Signals", beside=[Path()], trusted=True)
    stored = load_run_config(run, lambda name, **_: task)
    assert stored == parse("mine.json", "-n", "run").config
    assert type(stored.task_section) is task.Section


def test_a_stored_config_alone_imports_nothing_and_says_how_to_name_the_class() -> None:
    run = leave_run()
    forget()
    text = refuse("--resume", "run_m")
    assert text.startswith(f"{run}/config.json: task: names the class")
    assert "python train_student_only.py --resume run_m --task signals:Signals" in text
    with pytest.raises(UserError, match="does not decide what is imported"):
        load_run_config(run, find_task)
    assert "signals" not in sys.modules


def test_a_run_goes_on_with_its_config_with_the_class_or_by_itself() -> None:
    run = leave_run()
    for argv in (
        ("mine.json", "--resume", str(run)),
        ("--resume", "run_m", "--task", "signals:Signals"),
        ("mine.json", "-n", "run", "--resume", "auto"),
    ):
        forget()
        command = parse(*argv)
        assert command.resume == run
        assert command.task.__name__ == "Signals"
        assert command.config == parse("mine.json", "-n", "run").config


def test_a_class_that_has_moved_reads_the_runs_own_config() -> None:
    run = leave_run()
    write_signals(Path("moved"))
    command = parse("--resume", str(run), "--task", "moved.signals:Signals")
    assert command.task.__module__ == "moved.signals"
    assert command.config.task == "signals:Signals"
    write_config(task="moved.signals:Signals")
    text = refuse("mine.json", "--resume", str(run))
    assert 'task: "signals:Signals" -> "moved.signals:Signals"' in text
    changed = parse("mine.json", "--resume", str(run), "--allow", "changed-config").config
    assert changed.task == "moved.signals:Signals"


def test_a_run_of_an_installed_task_is_no_run_of_another_one() -> None:
    run = leave_run(config="built_in.json")
    assert parse("--resume", str(run), "--task", "deepfake").resume == run
    assert "names another task than the run" in refuse("--resume", str(run), "--task", "signals:Signals")
    assert 'task: "deepfake" -> "signals:Signals"' in refuse("mine.json", "--resume", str(run))


def test_resume_auto_passes_over_a_run_of_another_task_and_imports_nothing_of_it() -> None:
    run = leave_run()
    stored = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(stored | {"task": "trap:Signals"}))
    Path("trap.py").write_text("raise SystemExit('sprung')")
    command = parse("mine.json", "-n", "run", "--resume", "auto")
    assert command.resume is None
    assert any('is "trap:Signals", and "signals:Signals" is expected' in note for note in command.notes)


def test_a_step_is_taken_again_with_the_class_named() -> None:
    run = leave_run()
    skipped = run / "skipped" / "epoch_1_step_2.pth"
    skipped.parent.mkdir()
    skipped.touch()
    forget()
    assert f"--replay {skipped} --task signals:Signals" in refuse("--replay", str(skipped))
    assert parse("--replay", str(skipped), "--task", "signals:Signals").task.__name__ == "Signals"


# --- The scripts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["train_student_only.py", "main_distillation.py"])
def test_the_scripts_take_a_task_of_the_users_own_and_exit_with_code_2_on_its_mistakes(script: str) -> None:
    write_config(**WEIGHTS, teacher="big")

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(ROOT / "lib")}
        command = [sys.executable, str(ROOT / script), *argv]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    shown = run("mine.json", "--print-config")
    assert shown.returncode == 0, shown.stderr
    assert '"root": "recordings"' in shown.stdout
    Path("signals.py").write_text("import not_installed_at_all\n")
    broken = run("mine.json", "--print-config")
    assert broken.returncode == 2
    assert "No module named 'not_installed_at_all'" in broken.stderr
    assert "signals.py" in broken.stderr
