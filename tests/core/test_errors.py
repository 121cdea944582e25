"""The user's errors: every problem in one message, and the exit codes that scripts return."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sharpstudent.core.errors import (
    ExitCode,
    Problem,
    ProblemList,
    RunInterrupted,
    TrainingStopped,
    UserError,
    exit_codes,
)

ROOT = Path(__file__).resolve().parents[2]
MISSING = Problem(
    where="weights/FFc23.tar",
    what="does not exist",
    expected="the teacher's checkpoint",
    got="nothing",
    remedy="download it, or run `make demo`",
)
UNKNOWN = Problem(where="config_SBI.json: bath_size", what="unknown key", remedy="did you mean batch_size?")


def test_one_problem_names_the_place_what_was_expected_what_came_and_the_remedy() -> None:
    assert str(UserError(MISSING)) == (
        "weights/FFc23.tar: does not exist\n"
        "    expected: the teacher's checkpoint\n"
        "    got: nothing\n"
        "    remedy: download it, or run `make demo`"
    )


def test_parts_that_are_not_known_are_left_out() -> None:
    assert Problem(where="alpha", what="has two readings").as_text() == "alpha: has two readings"


def test_several_problems_are_counted_and_listed_in_order() -> None:
    assert str(UserError(MISSING, UNKNOWN)) == (
        "2 problems:\n"
        "  - weights/FFc23.tar: does not exist\n"
        "        expected: the teacher's checkpoint\n"
        "        got: nothing\n"
        "        remedy: download it, or run `make demo`\n"
        "  - config_SBI.json: bath_size: unknown key\n"
        "        remedy: did you mean batch_size?"
    )


def test_a_value_of_several_lines_stays_under_its_name() -> None:
    text = Problem(where="weights", what="do not fit", got="head.1.weight\nhead.1.bias").as_text()
    assert text == "weights: do not fit\n    got: head.1.weight\n        head.1.bias"


def test_an_error_without_a_problem_is_our_own_defect() -> None:
    with pytest.raises(ValueError, match="at least one Problem"):
        UserError()


def test_an_empty_list_of_problems_raises_nothing() -> None:
    ProblemList().raise_if_any()


def test_a_list_gathers_problems_and_other_errors_into_one_and_says_each_once() -> None:
    problems = ProblemList()
    problems.add(MISSING)
    problems.take(UserError(UNKNOWN, MISSING))
    with pytest.raises(UserError) as caught:
        problems.raise_if_any()
    assert caught.value.problems == (MISSING, UNKNOWN)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            UserError(UNKNOWN),
            2,
            "error: config_SBI.json: bath_size: unknown key\n    remedy: did you mean batch_size?\n",
        ),
        (TrainingStopped("50 steps in a row were skipped"), 3, "training stopped: 50 steps in a row were skipped\n"),
        (RunInterrupted("saved last.pth", ExitCode.INTERRUPTED), 130, "saved last.pth\n"),
        (RunInterrupted("saved last.pth", ExitCode.TERMINATED), 143, "saved last.pth\n"),
        (KeyboardInterrupt(), 130, "interrupted; there was nothing to save\n"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_known_error_becomes_one_message_and_its_exit_code(
    error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught, exit_codes():
        raise error
    assert caught.value.code == code
    assert capsys.readouterr() == ("", message)


def test_a_good_end_exits_nothing_and_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with exit_codes():
        pass
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("error", [ZeroDivisionError("ours"), FileNotFoundError("ours"), ValueError("ours")], ids=repr)
def test_a_defect_of_ours_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error), match="ours"), exit_codes():
        raise error


def test_an_exit_that_a_script_chose_passes_through() -> None:
    with pytest.raises(SystemExit) as caught, exit_codes():
        sys.exit(7)
    assert caught.value.code == 7


def test_the_shell_sees_the_code_and_no_traceback() -> None:
    script = (
        "from sharpstudent.core.errors import *\nwith exit_codes():\n    raise UserError(Problem('lr', 'is missing'))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: lr: is missing\n")


def test_the_codes_are_those_of_the_documentation() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "OK": 0,
        "USER_ERROR": 2,
        "TRAINING_STOPPED": 3,
        "INTERRUPTED": 130,
        "UNREAD": 141,
        "TERMINATED": 143,
    }


# --- Output that nobody reads ----------------------------------------------------------------------------------------


PLACE: dict[str, Any] = {
    "text": True,
    "cwd": ROOT,
    "env": {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
}


def run_unread(script: str, *words: str) -> tuple[int, str]:
    """Exit code and standard error of a script whose standard output is a pipe without a reader."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, *words, "-c", script]
    with subprocess.Popen(command, stdout=write, stderr=subprocess.PIPE, **PLACE) as process:
        os.close(write)
        return process.wait(60), process.communicate(timeout=400)[1]


WAYS = {
    "a little": "print('one line')",
    "more than a buffer": "print('x' * 100_000)",
    "an exit of 0": "print('one line'); sys.exit(0)",
    "help": "import argparse; argparse.ArgumentParser(description='x' * 20_000).parse_args(['--help'])",
    "rich": "from rich.console import Console; Console().print('one line')",
}


@pytest.mark.parametrize("words", [(), ("-u",)], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("way", WAYS)
def test_output_that_nobody_reads_ends_the_script_quietly(way: str, words: tuple[str, ...]) -> None:
    script = f"import sys\nfrom sharpstudent.core.errors import *\nwith exit_codes():\n    {WAYS[way]}"
    assert run_unread(script, *words) == (141, "")


def test_an_error_says_more_than_output_that_nobody_reads() -> None:
    script = (
        "from sharpstudent.core.errors import *\nwith exit_codes():\n    print('x')\n"
        "    raise UserError(Problem('lr', 'is missing'))"
    )
    assert run_unread(script) == (2, "error: lr: is missing\n")


def test_a_good_script_whose_output_was_read_ends_with_0_though_the_reader_has_left() -> None:
    script = (
        "import sys\nfrom sharpstudent.core.errors import *\nwith exit_codes():\n"
        "    print('one line', flush=True)\n    input()"
    )
    words = [sys.executable, "-c", script]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **PLACE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "one line\n"
        process.stdout.close()
        process.stdin.write("\n")
        process.stdin.close()
        assert process.wait(60) == 0


@pytest.mark.parametrize("words", [(), ("-u",)], ids=["buffered", "unbuffered"])
def test_a_broken_pipe_of_anything_else_keeps_its_traceback(words: tuple[str, ...]) -> None:
    script = (
        "import os\nfrom sharpstudent.core.errors import *\nwith exit_codes():\n"
        "    print('before')\n    r, w = os.pipe()\n"
        "    os.close(r)\n    os.write(w, b'x')"
    )
    done = subprocess.run([sys.executable, *words, "-c", script], capture_output=True, check=False, timeout=99, **PLACE)
    assert (done.returncode, done.stdout) == (1, "before\n")
    assert "Traceback" in done.stderr
    assert "BrokenPipeError" in done.stderr


@pytest.mark.parametrize("option", ["--print-config", "--help"])
def test_the_first_line_alone_may_be_read(option: str) -> None:
    """Bash's own pipe; `true` reads nothing."""
    command = (
        f'"{sys.executable}" main_distillation.py configs/config_SBI.json {option} | true; exit ${{PIPESTATUS[0]}}'
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=False, timeout=400, **PLACE)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_path_without_permission_is_the_users_error_wherever_it_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as end, exit_codes():
        raise PermissionError(13, "Permission denied", "data/photos/x.jpg")
    assert end.value.code == ExitCode.USER_ERROR
    assert capsys.readouterr().err.startswith("error: data/photos/x.jpg: cannot be used (Permission denied)\n")


def test_a_character_that_the_console_cannot_show_does_not_end_the_program() -> None:
    """Windows consoles may have cp1252, which lacks the minus sign and the arrows of tables."""
    code = "from sharpstudent.core.errors import exit_codes\nwith exit_codes():\n    print('AUC \\u2191 \\u2212.1')"
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "AUC ? ?.1")
