"""The progress of a stage, in a terminal and where there is none."""

import io
import re
import shlex
import time

import pytest
from rich.cells import cell_len
from rich.console import Console
from sharpstudent.core.naming import wrap_words
from sharpstudent.report.console import ProgressLine, WorkProgress, build_console, format_duration, print_line


class Clock:
    """A clock that moves when a test sets it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def plain_console(width: int = 80) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, width=width, highlight=False), file


def terminal_console(width: int = 80) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, width=width, force_terminal=True, color_system=None), file


def list_terminal_lines(text: str) -> list[str]:
    """What was drawn, line by line, without the codes that move the cursor."""
    return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text))


def test_without_a_terminal_there_is_a_line_every_thirty_seconds_and_one_an_epoch() -> None:
    console, file = plain_console()
    clock = Clock()
    with ProgressLine(console, 2, 75, "stage 2", clock=clock) as progress:
        for epoch in (1, 2):
            for step in range(75):
                clock.now += 0.9
                progress.step(epoch, step, loss=0.6123, lr=5e-5, skipped=3 if epoch == 2 else 0)
            progress.epoch(
                f"Epoch {epoch}/2 | train loss 0.61 | a name [with brackets] that is longer than a line is wide"
            )
    assert file.getvalue().splitlines() == [
        "stage 2: 2 epochs of 75 steps",
        "stage 2: epoch 1/2 step 34/75 loss 0.6123 lr 5.00e-05 | 0:31 elapsed, 1:44 left",
        "stage 2: epoch 1/2 step 68/75 loss 0.6123 lr 5.00e-05 | 1:01 elapsed, 1:14 left",
        "Epoch 1/2 | train loss 0.61 | a name [with brackets] that is longer than a line is wide"
        " | 1:08 elapsed, 1:08 left",
        "stage 2: epoch 2/2 step 34/75 loss 0.6123 lr 5.00e-05, 3 skipped | 1:38 elapsed, 0:37 left",
        "stage 2: epoch 2/2 step 68/75 loss 0.6123 lr 5.00e-05, 3 skipped | 2:09 elapsed, 0:06 left",
        "Epoch 2/2 | train loss 0.61 | a name [with brackets] that is longer than a line is wide"
        " | 2:15 elapsed, 0:00 left",
        "stage 2: 150 of 150 steps done in 2:15",
    ]
    assert "\x1b" not in file.getvalue()


def test_after_a_resume_the_time_left_comes_from_the_steps_done_since() -> None:
    console, file = plain_console()
    clock = Clock()
    with ProgressLine(console, 10, 10, "stage 1", clock=clock, line_seconds=0) as progress:
        clock.now += 2
        progress.step(9, 0, loss=1.0, lr=0.1)  # 80 steps were done before; 19 are left at 2 s each
    assert "0:02 elapsed, 0:38 left" in file.getvalue()


def test_in_a_terminal_the_bar_shows_share_times_and_the_last_step_within_eighty_columns() -> None:
    console, file = terminal_console()
    clock = Clock()
    with ProgressLine(console, 100, 75, "stage 2 demo_distill", clock=clock) as progress:
        for step in range(75):
            clock.now += 1
            progress.step(3, step, loss=0.6123, lr=5e-5, skipped=3)
        progress.status("validating")
        progress.epoch("Epoch 3/100 | train loss 0.61")
    text = file.getvalue()
    assert "stage 2 demo_distill" in text
    assert "3% 1:15 elapsed, 2:01:15 left" in text
    assert "epoch 3/100 step 75/75 loss 0.6123 lr 5.00e-05, 3 skipped" in text
    assert "validating" in text
    assert "Epoch 3/100 | train loss 0.61\n" in text
    assert "…" not in text


def test_a_stage_that_fails_leaves_the_terminal_usable_and_claims_nothing() -> None:
    console, file = terminal_console()

    def fail() -> None:
        with ProgressLine(console, 1, 2, "stage 1") as progress:
            progress.step(1, 0, loss=1.0, lr=0.1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert file.getvalue().rstrip().endswith("\x1b[?25h")  # the cursor is shown again
    assert "steps done" not in file.getvalue()


@pytest.mark.parametrize("make_console", [plain_console, terminal_console])
def test_a_step_that_draws_nothing_costs_less_than_a_tenth_of_a_millisecond_of_cpu(make_console) -> None:
    console, _ = make_console()
    with ProgressLine(console, 1, 20_000, "stage 1") as progress:
        started = time.process_time()
        for step in range(20_000):
            progress.step(1, step, loss=0.5, lr=0.1)
        mean = (time.process_time() - started) / 20_000
    assert mean < 100e-6


def test_no_thread_draws_the_bar() -> None:
    import threading

    console, _ = terminal_console()
    before = threading.active_count()
    with ProgressLine(console, 1, 2, "stage 1") as progress:
        progress.step(1, 0, loss=1.0, lr=0.1)
        assert threading.active_count() == before


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (125, "2:05"), (3725, "1:02:05"), (float("nan"), "-:--"), (-1, "-:--")],
)
def test_durations_read_as_on_a_clock(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_the_console_of_the_scripts_prints_numbers_plainly(capsys: pytest.CaptureFixture[str]) -> None:
    build_console().print("val_auc 0.8123")
    assert capsys.readouterr().out == "val_auc 0.8123\n"


def work(progress: WorkProgress, clock: Clock, *, units: int, seconds: float) -> None:
    with progress:
        for _ in range(units):
            clock.now += seconds
            progress.add()


def test_work_of_a_moment_prints_nothing_and_longer_work_a_line_from_time_to_time() -> None:
    console, file = plain_console()
    clock = Clock()
    work(WorkProgress(console, "validation", 9, "batch", clock=clock), clock, units=9, seconds=1)
    assert file.getvalue() == ""
    work(WorkProgress(console, "robustness: faces", 1200, "face", clock=clock), clock, units=80, seconds=1)
    assert file.getvalue().splitlines() == [
        "robustness: faces: 10 of 1,200 faces, 0:10 elapsed, 19:50 left",
        "robustness: faces: 40 of 1,200 faces, 0:40 elapsed, 19:20 left",
        "robustness: faces: 70 of 1,200 faces, 1:10 elapsed, 18:50 left",
    ]


def test_in_a_terminal_work_is_one_line_that_fits_and_is_gone_at_the_end() -> None:
    console, file = terminal_console()
    clock = Clock()
    title = "a very long name of a data set, " * 4 + "測試"
    work(WorkProgress(console, title, 1200, "batch", clock=clock), clock, units=80, seconds=1)
    shown = list_terminal_lines(file.getvalue())
    assert any("80 of 1,200 batches, 1:20 elapsed, 18:40 left" in line for line in shown)
    assert max(map(cell_len, shown)) <= 80
    assert file.getvalue().endswith("\x1b[?25h\r\x1b[1A\x1b[2K")  # the cursor goes back, and the line is erased


def test_work_without_a_console_shows_nothing() -> None:
    clock = Clock()
    work(WorkProgress(None, "quiet", 3, "batch", clock=clock), clock, units=3, seconds=100)


def test_long_lines_are_wrapped_at_words_in_a_terminal_and_stay_whole_in_a_log() -> None:
    line = "- The student's AUC on the kinds of fake [those it did not learn from] is .512 [.430, .590], 測試測試測試."
    log, logged = plain_console()
    print_line(log, line)
    assert logged.getvalue() == line + "\n"
    terminal, shown = terminal_console()
    print_line(terminal, line)
    lines = shown.getvalue().splitlines()
    assert len(lines) == 2
    assert max(map(cell_len, lines)) <= 80
    assert lines[1].startswith("  ")
    assert " ".join(part.strip() for part in lines) == line


def test_a_wrapped_command_can_be_pasted() -> None:
    command = (
        "python main_distillation.py configs/config_SBI.json -n 'a name with a space' --set data_root=data/a_folder"
    )
    for line in (
        command,
        f"next: {command}",
        f"a sentence that is long enough to fill most of a line; then: {command}",
    ):
        lines = wrap_words(line, 80).split("\n")
        assert max(map(len, lines)) <= 80
        pasted = "\n".join(lines)
        pasted = pasted[pasted.index("python") :].replace("\\\n", "")  # as a shell joins lines
        assert shlex.split(pasted) == shlex.split(command)
    assert wrap_words(f"word {'x/' * 60}", 80).split("\n") == ["word", f"  {'x/' * 60}"]  # a path stays whole
    assert wrap_words("`python evaluate_model.py " + "x" * 60 + "` shows it", 80).count("\n") == 1
