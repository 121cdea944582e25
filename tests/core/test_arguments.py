"""The command line of every script: its help fits a screen, and a misspelt option is met with the nearest one."""

from __future__ import annotations

import subprocess
import sys
from argparse import ArgumentTypeError
from pathlib import Path

import pytest
from sharpstudent.core.arguments import Parser, read_number
from sharpstudent.core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = {
    "train_student_only.py": ("--nmae", "--name"),
    "main_distillation.py": ("--resum", "--resume"),
    "evaluate_model.py": ("--devise", "--device"),
    "compare_models.py": ("--befor", "--before"),
    "prepare_faces.py": ("--fram", "--frames"),
    "make_swaps.py": ("--per-fase", "--per-face"),
    "fetch_models.py": ("--hlep", "--help"),
}


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_help_of_a_script_fits_60_lines_and_ends_in_examples(script: str) -> None:
    done = run(script, "--help")
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 120
    examples = lines[lines.index("examples:") + 1 :]
    assert len(examples) >= 2
    assert all(line.startswith(f"  python {script}") for line in examples)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_misspelt_option_is_refused_with_the_nearest_one_even_where_others_are_missing(script: str) -> None:
    wrong, right = SCRIPTS[script]
    done = run(script, wrong, "3")
    assert done.returncode == 2
    assert f"error: {wrong}: is not a known option" in done.stderr
    assert f"did you mean {right}?" in done.stderr


def test_a_word_behind_two_dashes_is_no_option() -> None:
    parser = Parser("script.py", "What it does.")
    parser.add_argument("first")
    parser.add_argument("second")
    with pytest.raises(UserError, match="required: second"):
        parser.read(["--", "--first"])


@pytest.mark.parametrize(
    ("limits", "text", "words"),
    [
        ({}, "2", "from 0 to 1"),
        ({"above": True}, "0", "above 0 to 1"),
        ({"below": True}, "1", "from 0 to below 1"),
        ({"above": True, "below": True}, "nan", "between 0 and 1"),
    ],
)
def test_a_number_out_of_its_limits_is_refused_with_them(limits: dict[str, bool], text: str, words: str) -> None:
    with pytest.raises(ArgumentTypeError, match=f"is not a number {words}"):
        read_number(float, 0, 1, **limits)(text)
    assert read_number(float, 0, 1, **limits)("0.5") == 0.5
