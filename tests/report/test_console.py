"""The progress of a stage, in a terminal and where there is none."""

import io
import time

import pytest
from rich.console import Console
from sharpstudent.report.console import ProgressLine, build_console, format_duration


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
