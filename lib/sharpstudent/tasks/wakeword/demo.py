"""Wake words in one command: the teacher's head, TinyConv alone, alone for as many further steps, and distilled.

    make demo-wakeword                      synthetic voices, spoken here
    make demo-wakeword DATA=FOLDER          recordings of people (docs/wakeword.md has the layouts)

Each part is one of the project's own command lines, printed before it runs. What needs nothing of each other runs side
by side, one thread each.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from sharpstudent.core.arguments import EXIT_CODES, Parser, read_path
from sharpstudent.core.errors import exit_codes

VOICES = Path("data/wakeword_voices")
EPOCHS = 8
ROUNDS = "500"  # of the bootstrap: twice as many take a minute more
FURTHER = ("pretrained_student_weights=output/wakeword_student_*/weights/best_model.pth",)
ALONE = 'stage2.terms=[{"term": "hard", "weight": 1.0}]'
CONDITIONS = ("test", "test-20dB", "test-10dB", "test-0dB", "test-soundalikes")
OUTSIDE, STREAM = "outside", "test-stream"
COMPARISON, ALARMS = "output/wakeword_comparison", "output/wakeword_alarms"

Part = tuple[str, tuple[str, ...]]


def main() -> None:
    """Run the demo on the data that the command line names."""
    examples = ["-m sharpstudent.tasks.wakeword.demo", "-m sharpstudent.tasks.wakeword.demo data/words"]
    parser = Parser("-m sharpstudent.tasks.wakeword.demo", str(__doc__), more=EXIT_CODES, examples=examples)
    parser.add_argument("data", nargs="?", type=read_path, help="recordings of people; default: synthetic voices")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"of each training ({EPOCHS})")
    given = parser.read(sys.argv[1:])
    started = time.monotonic()
    folder = given.data or VOICES
    rounds = plan_trainings(folder, given.epochs, speak=given.data is None)
    for number, parts in enumerate([*rounds, None], start=1):
        if parts is None:
            parts = plan_comparisons(folder)
        run_parts(parts, f"{number}/{len(rounds) + 1}")
    if given.data is None:
        print(f"\nThe voices in {VOICES} are SYNTHETIC: these figures say nothing about people.")
        print("With recordings of people: make demo-wakeword DATA=FOLDER (docs/wakeword.md shows the layouts).")
    print(
        f"\nThe reports: {COMPARISON}/report.html, {ALARMS}/report.html (false alarms an hour, mistakes to listen to)"
    )
    print(f"All of it took {_format(time.monotonic() - started)}.")


def plan_trainings(folder: Path, epochs: int, *, speak: bool) -> list[list[Part]]:
    """List what is run before the comparison: parts of one list run side by side.

    Args:
        folder: The recordings.
        epochs: Of each training.
        speak: Whether synthetic voices have to be spoken first.
    """
    fetch: Part = ("fetch the teacher", ("fetch_models.py", "wakeword"))
    talk: Part = ("speak the words", ("-m", "sharpstudent.tasks.wakeword.synthetic_voices", str(folder)))
    words = _set(f"data.data_root={folder}", f"epoch={epochs}", "num_workers=0")
    teacher = ("train_student_only.py", "configs/wakeword_teacher.json", "-n", "wakeword_teacher", *words)
    student = ("train_student_only.py", "configs/wakeword.json", "-n", "wakeword_student", *words)
    control = (
        "main_distillation.py",
        "configs/wakeword.json",
        "-n",
        "wakeword_control",
        *words,
        *_set(ALONE, *FURTHER),
    )
    distil = ("main_distillation.py", "configs/wakeword.json", "-n", "wakeword_distill", *words)
    return [
        [fetch],
        *([[talk]] if speak and not (folder / "splits" / "train.json").is_file() else []),
        [("the teacher's head", teacher), ("TinyConv alone", student)],
        [("alone for as many further steps", control), ("distilled", distil)],
    ]


def plan_comparisons(folder: Path) -> list[Part]:
    """List the comparison by condition, and that of false alarms: a teacher would take ten minutes for the stream."""
    newest = {role: _find_run(role) for role in ("teacher", "student", "control", "distill")}
    students = ("--before", f"alone={newest['student']}", "--control", f"alone longer={newest['control']}",
                "--distilled", f"distilled={newest['distill']}")  # fmt: skip
    sets = [*CONDITIONS, *([OUTSIDE] if (folder / "splits" / f"{OUTSIDE}.json").is_file() else [])]
    more = ("--workers", "0", "--device", "cpu", "--rounds", ROUNDS)
    by_condition = ("compare_models.py", "--teacher", f"teacher={newest['teacher']}", *students, "--data", *sets, *more)
    alarms = ("compare_models.py", *students, "--data", "test", STREAM, *more)
    return [
        ("compare by condition", (*by_condition, "--out", COMPARISON)),
        ("false alarms an hour", (*alarms, "--out", ALARMS)),
    ]


def _find_run(role: str) -> Path:
    found = sorted(Path("output").glob(f"wakeword_{role}_*"), key=lambda path: path.stat().st_mtime)
    return found[-1]


def _set(*changes: str) -> tuple[str, ...]:
    return tuple(word for change in changes for word in ("--set", change))


def run_parts(parts: Sequence[Part], place: str) -> None:
    """Run command lines side by side to their ends; exit with the code of the first that fails."""
    begun, running = time.monotonic(), list[tuple[subprocess.Popen[str], threading.Thread | None]]()
    for what, words in parts:
        print(f"\n[{place}] {what}: python {shlex.join(words)}", flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for what, words in parts:
        if len(parts) == 1:  # alone, it shows its own progress bar
            running.append((subprocess.Popen([sys.executable, *words], env=environment, text=True), None))
            continue
        process = subprocess.Popen(
            [sys.executable, *words], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        relay = threading.Thread(target=_relay, args=(process, what))
        relay.start()
        running.append((process, relay))
    codes = [_wait(process, relay) for process, relay in running]
    print(f"    {_format(time.monotonic() - begun)}", flush=True)
    if any(codes):
        print("\nthe demo ended here. What is done stays; run it again.")
        sys.exit(next(code for code in codes if code))


def _relay(process: subprocess.Popen[str], what: str) -> None:
    """Print the lines of a process behind its name."""
    assert process.stdout is not None
    for line in process.stdout:
        print(f"[{what}] {line}", end="", flush=True)


def _wait(process: subprocess.Popen[str], relay: threading.Thread | None) -> int:
    code = process.wait()
    if relay is not None:
        relay.join()
    return code


def _format(seconds: float) -> str:
    return f"{int(seconds) // 60} min {int(seconds) % 60:02} s"


if __name__ == "__main__":
    with exit_codes():
        main()
