"""How the class of a task is found: by an installed name, or by where it is, and the message where it is not found."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from config_samples import ROOT
from own_task import SIGNALS, fresh_imports, write_signals
from sharpstudent import registry
from sharpstudent.core.errors import UserError
from sharpstudent.registry import find_task, list_tasks
from sharpstudent.tasks.deepfake.task import DeepfakeTask


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    with fresh_imports():
        yield


def refusal(name: str, *beside: Path, trusted: bool = True, **more: str) -> str:
    with pytest.raises(UserError) as caught:
        find_task(name, beside=beside, trusted=trusted, **more)
    return caught.value.as_text()


def install(folder: Path, project: str, *lines: str) -> None:
    """What pip leaves of a project that registers tasks."""
    info = folder / f"{project}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join([f"[{registry.GROUP}]", *lines, ""]))
    sys.path.append(str(folder))


# --- Names ----------------------------------------------------------------------------------------------------------


def test_a_built_in_task_is_found_by_its_name_and_a_file_may_name_it() -> None:
    assert find_task("deepfake", trusted=False) is DeepfakeTask
    assert "deepfake" in list_tasks()


def test_finding_a_built_in_task_loads_nothing_heavy() -> None:
    code = (
        "import sys; from sharpstudent.registry import find_task; find_task('deepfake'); "
        "heavy = {'torch', 'numpy', 'cv2', 'timm', 'importlib.metadata'} & set(sys.modules); "
        "sys.exit(f'imported {heavy - {\"importlib.metadata\"}}' if heavy - {'importlib.metadata'} else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "lib", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_checkout_knows_its_tasks_however_old_its_installation_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def be_absent(*_: object, **__: object) -> object:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "distribution", be_absent)
    monkeypatch.setattr(metadata, "entry_points", be_absent)
    assert find_task("deepfake") is DeepfakeTask


def test_an_installed_package_knows_its_tasks_from_its_entry_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][registry.GROUP]
    install(tmp_path, "sharpstudent", *(f"{name} = {reference}" for name, reference in entries.items()))
    sys.path.insert(0, str(tmp_path))  # before the installation of this checkout
    monkeypatch.setattr(registry, "__file__", str(tmp_path / "lib" / "sharpstudent" / "registry.py"))
    assert find_task("deepfake") is DeepfakeTask


def test_every_built_in_name_can_be_found() -> None:
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][registry.GROUP]
    for name, reference in entries.items():
        assert reference.startswith(f"sharpstudent.tasks.{name}.")
        assert find_task(name).__name__ == reference.partition(":")[2]


def test_a_task_that_another_project_has_registered_is_found_by_its_name(tmp_path: Path) -> None:
    write_signals(tmp_path)
    install(tmp_path, "recordings", "signals = signals:Signals")
    assert find_task("signals").__name__ == "Signals"
    assert {"deepfake", "signals"} <= set(list_tasks())


def test_a_name_that_two_projects_have_registered_is_refused_with_both(tmp_path: Path) -> None:
    install(tmp_path / "one", "recordings", "signals = signals:Signals")
    install(tmp_path / "two", "sounds", "signals = sounds:Signals")
    text = refusal("signals")
    for words in ("signals:Signals of recordings", "sounds:Signals of sounds", "name of several"):
        assert words in text


def test_a_registered_task_whose_module_is_gone_is_reported_with_the_module(tmp_path: Path) -> None:
    install(tmp_path, "recordings", "gone = gone_away:Signals")
    assert "there is no gone_away" in refusal("gone")


def test_an_unknown_name_is_refused_with_the_known_ones_and_the_nearest() -> None:
    text = refusal("deepfakes")
    assert text.startswith("task: is not a known task")
    assert 'one of "deepfake"' in text
    assert 'did you mean "deepfake"?' in text
    assert "--task: is not a known task" in refusal("gaze_of_cats", where="--task")


# --- Classes --------------------------------------------------------------------------------------------------------


def test_a_class_is_looked_up_beside_the_config_and_then_in_the_current_folder(tmp_path: Path) -> None:
    write_signals(tmp_path / "here", "signals_here.py")
    write_signals(tmp_path / "there", "signals_there.py")
    write_signals(tmp_path / "there", "signals_here.py")
    beside = [tmp_path / "here", tmp_path / "there"]
    first = find_task("signals_here:Signals", beside=beside, trusted=True)
    assert sys.modules[first.__module__].__file__ == str(tmp_path / "here" / "signals_here.py")
    assert find_task("signals_there:Signals", beside=beside, trusted=True).__name__ == "Signals"


def test_a_class_in_a_package_and_an_installed_one_are_found_too(tmp_path: Path) -> None:
    write_signals(tmp_path / "sounds" / "short")
    assert find_task("sounds.short.signals:Signals", beside=[tmp_path], trusted=True).__name__ == "Signals"
    assert find_task("sharpstudent.tasks.deepfake.task:DeepfakeTask", trusted=True) is DeepfakeTask


def test_the_folder_comes_last_where_modules_are_looked_up_and_stays_for_loader_processes(tmp_path: Path) -> None:
    write_signals(tmp_path)
    before = list(sys.path)
    for _ in range(2):
        find_task("signals:Signals", beside=[tmp_path], trusted=True)
    assert sys.path == [*before, str(tmp_path)]


def test_a_file_that_names_a_class_imports_nothing(tmp_path: Path) -> None:
    (tmp_path / "snare.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\n{SIGNALS}")
    sys.path.append(str(tmp_path))
    for name in ("snare:Signals", "snare:", "os:system", ":", "a b:c;d"):
        text = refusal(name, trusted=False, where="model.pth: task")
        assert text.startswith("model.pth: task: names the class")
        assert "a file does not decide what is imported" in text
        assert "--task" in text
    assert "snare" not in sys.modules
    assert not (tmp_path / "sprung").exists()
    assert "do that" in refusal("snare:Signals", trusted=False, remedy="do that")


@pytest.mark.parametrize(
    "name", ["signals.py:Signals", "tasks/signals:Signals", "signals:", ":Signals", "a::b", "a:b.c"]
)
def test_a_name_of_no_class_is_refused_with_the_form(name: str, tmp_path: Path) -> None:
    write_signals(tmp_path)
    assert "does not name a class\n    expected: package.module:Class" in refusal(name, tmp_path)


def test_a_missing_module_is_reported_with_the_places_searched(tmp_path: Path) -> None:
    text = refusal("nowhere_at_all.tasks:Signals", tmp_path)
    assert "names the module nowhere_at_all.tasks, and there is no nowhere_at_all" in text
    assert str(tmp_path) in text
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "__init__.py").touch()
    assert "there is no half.tasks" in refusal("half.tasks:Signals", tmp_path)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("import not_installed_at_all", "ModuleNotFoundError: No module named 'not_installed_at_all'"),
        ("from json import not_there", "ImportError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def (", "SyntaxError"),
    ],
)
def test_an_exception_during_import_is_reported_with_its_file_and_line(line: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "broken_one.py").write_text(f"\n\n{line}\n")
    text = refusal("broken_one:Signals", tmp_path)
    assert f"{tmp_path / 'broken_one.py'}" in text
    assert words in text
    assert "line 3" in text
    assert "importlib" not in text
    with pytest.raises(UserError) as caught:
        find_task("broken_one:Signals", beside=[tmp_path], trusted=True)
    assert caught.value.__cause__ is not None


def test_a_module_whose_name_is_taken_is_refused_before_another_one_is_imported(tmp_path: Path) -> None:
    write_signals(tmp_path, "json.py")
    text = refusal("json:Signals", tmp_path)
    assert "another one of that name comes first" in text
    assert str(tmp_path / "json.py") in text
    assert "rename json.py" in text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Signal", ("has nothing of that name", "did you mean signals:Signals?")),
        ("Plain", ("names Plain, which is no task", "derives from sharpstudent.task.Task")),
        ("a_number", ("which is no task", "got: a value of type int")),
        ("Unfinished", ("lacks build_student, rows",)),
        ("NoKeys", ("has no Section for its config keys", "Section")),
        ("NoMetrics", ("has no metrics",)),
        ("BadDefaults", ("shared_defaults have a key that no config has: studnet",)),
        (
            "BadTerms",
            (
                "3 problems",
                'BadTerms.terms: redefines the term "kd"',
                'terms["far"]: does not say where it is made',
                'terms["near"]: has settings that every term has: on',
            ),
        ),
    ],
)
def test_a_class_that_is_no_whole_task_is_refused_with_what_it_lacks(
    name: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    write_signals(tmp_path)
    text = refusal(f"signals:{name}", tmp_path)
    for word in words:
        assert word in text
