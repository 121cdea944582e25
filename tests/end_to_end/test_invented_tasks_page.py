"""docs/adding-a-task.md shows a whole task, and what it shows works."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from workplace import ROOT, Ended, Workplace

PAGE = ROOT / "docs" / "adding-a-task.md"
INVENTED = ROOT / "tests" / "invented"
WORDS_A_MINUTE = 200


def read_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def read_code() -> str:
    """All the page's Python, one piece after the other."""
    return "\n\n".join(read_blocks("python"))


@pytest.fixture
def place(tmp_path: Path) -> Generator[Workplace]:
    """A user's folder with the page's two files; its module is forgotten afterwards."""
    path = list(sys.path)
    forget_module()
    place = Workplace(tmp_path)
    (place / "mine").mkdir()
    (place / "mine/digits.py").write_text(read_code())
    (place / "mine/digits.json").write_text(read_blocks("json")[0])
    yield place
    forget_module()
    sys.path[:] = path


def forget_module() -> None:
    """As a new process begins, which has not found the module yet."""
    sys.modules.pop("digits", None)
    sys.path[:] = [folder for folder in sys.path if not folder.endswith("/mine")]


def test_the_pages_code_and_config_are_those_of_the_tested_task() -> None:
    assert read_code() == (INVENTED / "digits.py").read_text()
    assert read_blocks("json") == [(INVENTED / "digits.json").read_text()]


def test_the_page_is_read_in_five_minutes() -> None:
    prose = re.sub(r"```.*?```", "", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(prose.split()) < 5 * WORDS_A_MINUTE


def test_every_file_that_the_page_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)]+)\)", PAGE.read_text(encoding="utf-8"))
    assert len(links) >= 3
    for link in links:
        assert (PAGE.parent / link).exists(), link


def test_the_pages_commands_train_a_teacher_a_student_and_distil_the_one_into_the_other(place: Workplace) -> None:
    training, comparing = read_blocks("sh")
    for line in training.splitlines():
        run(place, line)
    (before, after) = (read_best(place.find_run(name)) for name in ("first", "distilled"))
    assert 0.1 + 0.3 < before < after
    (resume,) = re.findall(r"`python (main_distillation.py [^`]*--resume [^`]+)`", PAGE.read_text(encoding="utf-8"))
    forget_module()
    assert "nothing left to do" in run(place, f"python {resume}").out
    forget_module()
    run(place, comparing)
    (report,) = place.folder.glob("output/evaluation_*/report.html")
    assert "accuracy" in report.read_text()


def run(place: Workplace, line: str) -> Ended:
    """A line of the page, with file names completed as a shell does it."""
    python, *words = shlex.split(line)
    assert python == "python"
    completed = [sorted(str(found.relative_to(place.folder)) for found in place.folder.glob(word)) for word in words]
    words = [name for word, names in zip(words, completed, strict=True) for name in (names if "*" in word else [word])]
    ended = place.call(*words)
    assert ended.code == 0, ended.err
    return ended


def read_best(run: Path) -> float:
    return json.loads((run / "weights/best_model.pth.json").read_text())["about"]["val_accuracy"]


def test_the_pages_entry_point_is_of_the_group_that_is_looked_in() -> None:
    import tomllib

    from sharpstudent.registry import GROUP

    (table,) = read_blocks("toml")
    assert tomllib.loads(table)["project"]["entry-points"] == {GROUP: {"digits": "digits:DigitsTask"}}
