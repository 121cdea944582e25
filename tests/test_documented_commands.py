"""Every command in the README and the documents is accepted by its program, and its program is run by a test.

Accepted: the parser of the program takes the words, every key of `--set` and its value too; a target of make, a file
and a module exist. What is none of the project's commands stands in OTHERS with its reason.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from sharpstudent import commands
from sharpstudent.core.naming import CALLING
from sharpstudent.registry import find_task, list_tasks

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "weights/README.md")),
    *sorted(path for path in (ROOT / "docs").glob("*.md") if path.name != "commands.md"),  # that one is generated
    *sorted((ROOT / "lib/sharpstudent/shipped").glob("*.md")),
]
PROGRAM = r"(?:python3?|sharpstudent|make|pip|uv|torchrun|source|\.)(?= )"
# What another program does -> why no test runs it.
OTHERS = {
    "pip": "installs packages: tests/end_to_end/test_advice.py compares those of extras",
    "uv": "another installer; it reads the same pyproject.toml",
    "torchrun": "tests/end_to_end/test_ranks.py runs it",
    "source": "a part of the shell",
    ".": "a part of the shell",
}
# Command -> the test that runs it to its end.
RUN_BY = {
    "train": "tests/end_to_end/test_two_stages.py",
    "distill": "tests/end_to_end/test_two_stages.py",
    "evaluate": "tests/end_to_end/test_evaluate_model.py",
    "compare": "tests/end_to_end/test_demo_comparison.py",
    "ablate": "tests/end_to_end/test_ablate_command.py",
    "sweep": "tests/evaluation/test_sweep.py",
    "check": "tests/end_to_end/test_command_and_api.py",
    "predict": "tests/end_to_end/test_predict.py",
    "app": "tests/end_to_end/test_app.py",
    "export": "tests/end_to_end/test_export_model.py",
    "benchmark": "tests/end_to_end/test_export_model.py",
    "fetch": "tests/core/test_fetch.py",
    "tasks": "tests/end_to_end/test_command_and_api.py",
    "prepare": "tests/end_to_end/test_prepare_faces.py",
    "mine": "tests/tasks/wakeword/test_wakeword_run.py",
    "swaps": "tests/end_to_end/test_make_swaps.py",
    "leaks": "tests/tasks/deepfake/test_leak_probe.py",
}
OF_DOCUMENTS = ("COMMAND", "-c")  # a word that stands for others; code of several lines


def find_commands() -> list[tuple[str, str]]:
    """Find (page, command) in blocks of code, in indented lines and between backticks."""
    found: dict[tuple[str, str], None] = {}
    for page in PAGES:
        text, name = page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix()
        blocks = [match[2] for match in re.finditer(r"^ *```(|bash|sh|console)\n(.*?)^ *```", text, re.M | re.S)]
        lines = [line for block in blocks for line in re.sub(r"\\\n\s*", " ", block).splitlines()]
        lines += [match[1] for match in re.finditer(r"^    (\S.*)$", text, re.M)]
        lines += [match[1] for match in re.finditer(r"`([^`\n]+)`", text)]
        for line in lines:
            words = re.sub(r"^\$ |^(?:[A-Z_]+=\S+ )+|\s+#.*|\s*[;|>].*", "", line.strip())
            if re.match(PROGRAM, words) and not any(word in words.split() for word in OF_DOCUMENTS):
                found[name, words] = None
    return list(found)


COMMANDS = find_commands()


@functools.cache
def print_help(command: str) -> str:
    """What `sharpstudent COMMAND --help` prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        commands.run([command, "--help"])
    return out.getvalue()


def parse(command: str, words: Sequence[str]) -> None:
    """Let the parser of a command read words. Raises UserError where it refuses them."""
    from sharpstudent.config.cli import parse_command_line as parse_training
    from sharpstudent.deploy.command_line import parse_benchmark, parse_export
    from sharpstudent.deploy.inputs import parse_app, parse_prediction
    from sharpstudent.evaluation.command_line import COMPARE, EVALUATE
    from sharpstudent.evaluation.command_line import parse_command_line as parse_evaluation

    def train(words: Sequence[str]) -> object:
        stage = 1 if command == "train" else 2
        return parse_training([*words, "--print-config"], stage=stage, find_task=find_task)

    parsers: dict[str, Callable[[Sequence[str]], object]] = {
        "train": train,
        "distill": train,
        "evaluate": lambda words: parse_evaluation(words, script=EVALUATE),
        "compare": lambda words: parse_evaluation(words, script=COMPARE),
        "export": parse_export,
        "benchmark": parse_benchmark,
        "predict": parse_prediction,
        "app": parse_app,
    }
    runs_on = {"--resume", "--replay", "--list-layers", "--help"} & set(words)
    if command in parsers and not runs_on and "..." not in words:
        parsers[command](words)
        return
    helps = print_help(command) + (print_help("compare") if command in ("ablate", "sweep") else "")  # they end in one
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    unknown = [option for option in options if option not in helps and option != "--help"]
    assert not unknown, f"{command} has no {unknown}"


def fill_in(words: Sequence[str], command: str, page: str) -> list[str]:
    """A config that stands for the reader's own becomes one that is there, and a run on a task's page has that task."""
    found = ["configs/demo.json" if word == "CONFIG" or is_missing_config(word) else word for word in words]
    task, has_tasks = Path(page).stem, command in ("predict", "app", "evaluate", "compare")
    is_about_task = has_tasks and task in list_tasks() and "--task" not in words
    return [*found, "--task", task] if is_about_task else found


def is_missing_config(word: str) -> bool:
    return word.endswith(".json") and not (ROOT / word).is_file()


OF_EXTRAS = {"sounddevice"}  # modules that an extra brings


def is_module(name: str) -> bool:
    """Whether a module is there: of the package, of a folder of compat/, or of an extra."""
    if name in OF_EXTRAS:
        return True
    place = name.replace(".", "/")
    return any((folder / f"{place}.py").is_file() for folder in (ROOT / "lib", *(ROOT / "compat").iterdir())) or (
        importlib.util.find_spec(name) is not None
    )


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(ROOT / "tests" / "evaluation")  # the task `signs` of a document
    monkeypatch.setattr(CALLING, "list_commands", None)


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_a_documented_command_is_accepted(page: str, command: str) -> None:
    program, *words = shlex.split(command)
    scripts = {name.partition(" ")[0]: name for name in commands.list_script_commands()}
    if program == "make":
        targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
        assert {word for word in words if "=" not in word and word[:1] != "-"} <= targets
    elif program == "sharpstudent":
        if words[0] not in ("--version", "--help"):
            parse(words[0], fill_in(words[1:], words[0], page))
    elif program in OTHERS:
        assert OTHERS[program]
    elif words[0] == "-m":
        assert is_module(words[1])
    elif words[0] in scripts or words[0] == "export_for_mobile.py":
        joined = " ".join(words[:2])
        known = {**commands.list_script_commands(), "export_for_mobile.py": "sharpstudent export"}
        name = joined if joined in known else words[0]
        called = known[name].removeprefix("sharpstudent ")
        parse(called, fill_in(words[len(name.split()) :], called, page))
    else:
        assert any((folder / words[0]).is_file() for folder in (ROOT, *(ROOT / "compat").iterdir()))


def test_every_command_is_run_by_a_test() -> None:
    assert RUN_BY.keys() == {*commands.COMMANDS, *commands.list_task_commands()}
    scripts = {
        command.removeprefix("sharpstudent "): script for script, command in commands.list_script_commands().items()
    }
    for command, file in RUN_BY.items():
        text = (ROOT / file).read_text(encoding="utf-8")
        named = scripts.get(command, command).partition(" ")[0]
        constants = {"train_student_only.py": "STAGE_1", "main_distillation.py": "STAGE_2"}
        assert named in text or constants.get(named, named) in text or command in text, (command, file)


def test_commands_were_found_on_every_page_that_has_some() -> None:
    assert len(COMMANDS) > 150
    assert {page for page, _ in COMMANDS} >= {"README.md", "docs/train-on-photos.md", "docs/export.md"}
