"""The errors that users see, and the exit codes of every script.

A `UserError` carries a list of problems, so that everything that is wrong is reported together. Scripts turn it into
text and exit code 2. A user's mistake must never end in a traceback.
"""

from __future__ import annotations

import atexit
import contextlib
import difflib
import gc
import os
import select
import shutil
import sys
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NoReturn, ParamSpec, TypeVar

from sharpstudent.core.naming import name_commands, printable, printable_lines, wrap_words

RANK_SECONDS = 5.0  # many times the interval at which torchrun looks after its processes
P = ParamSpec("P")
T = TypeVar("T")


class ExitCode(IntEnum):
    """The exit codes of the scripts; only the two training scripts can return 3."""

    OK = 0
    USER_ERROR = 2
    TRAINING_STOPPED = 3
    INTERRUPTED = 130  # SIGINT, state saved
    UNREAD = 141  # the reader of standard output has closed it, as in `SCRIPT | head`; the shell's number for SIGPIPE
    TERMINATED = 143  # SIGTERM, state saved


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, in the user's own terms.

    Attributes:
        where: The config key, file, folder or sample that the problem is about.
        what: What is wrong with it, as the rest of a sentence that begins with `where`.
        expected: What would be right; None where `what` says it.
        got: What was found; None where `what` says it.
        remedy: What to do about it.
    """

    where: str
    what: str
    expected: str | None = None
    got: str | None = None
    remedy: str | None = None

    def as_text(self) -> str:
        """Write the problem as a message of several lines."""
        lines = [f"{printable(self.where)}: {self.what}".replace("\n", "\n    ")]
        for name, value in (("expected", self.expected), ("got", self.got), ("remedy", self.remedy)):
            if value is not None:
                lines.append(f"    {name}: {value}".replace("\n", "\n        "))
        return printable_lines("\n".join(lines))


class UserError(Exception):
    """A mistake that the user can correct. It carries one or more problems; the exit code is 2."""

    def __init__(self, *problems: Problem) -> None:
        if not problems:
            raise ValueError("a UserError needs at least one Problem")
        self.problems = problems
        super().__init__(self.as_text())

    @classmethod
    def about(
        cls, where: str, what: str, expected: str | None = None, got: str | None = None, remedy: str | None = None
    ) -> UserError:
        """Build the error of one problem.

        Args:
            where: The config key, file, folder or sample that the problem is about.
            what: What is wrong with it.
            expected: What would be right.
            got: What was found.
            remedy: What to do about it.

        Returns:
            The error, to be raised.
        """
        return cls(Problem(where, what, expected, got, remedy))

    def __reduce__(self) -> tuple[type[UserError], tuple[Problem, ...]]:
        """Pickle the error as its problems, so that another process gets those and not only their text."""
        return type(self), self.problems

    def as_text(self) -> str:
        """Write all problems as one message."""
        if len(self.problems) == 1:
            return self.problems[0].as_text()
        body = "\n".join(f"  - {p.as_text()}".replace("\n", "\n    ") for p in self.problems)
        return f"{len(self.problems)} problems:\n{body}"


class ProblemList:
    """Collects problems from several checks and raises them as one `UserError`."""

    def __init__(self) -> None:
        self._problems: list[Problem] = []

    def add(self, problem: Problem) -> None:
        """Remember one problem."""
        self._problems.append(problem)

    def take(self, error: UserError) -> None:
        """Remember all problems of an error."""
        self._problems.extend(error.problems)

    def attempt(self, build: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function, and remember the problems of its UserError.

        Args:
            build: The function.
            args: Its arguments.
            kwargs: Its keyword arguments.

        Returns:
            What the function returns. After a UserError it is None and must not be used; call `raise_if_any` first.
        """
        try:
            return build(*args, **kwargs)
        except UserError as error:
            self.take(error)
            return None  # type: ignore[return-value]

    def raise_if_any(self) -> None:
        """Raise one UserError with all problems, if there are any; one that several checks have found is said once."""
        if self._problems:
            raise UserError(*dict.fromkeys(self._problems))


def choose(choices: Mapping[str, T], name: str, where: str) -> T:
    """Look a name up among the choices.

    Args:
        choices: What each name stands for.
        name: The name that the user gave.
        where: What messages call the place of the name, such as a config key.

    Returns:
        What the name stands for.

    Raises:
        UserError: For a name that is none of the choices; the message suggests the nearest one.
    """
    if name in choices:
        return choices[name]
    near = difflib.get_close_matches(name, choices, n=1)
    remedy = f"did you mean {near[0]!r}?" if near else "write one of these"
    raise UserError(Problem(where, f"{name!r} is not known", expected=", ".join(map(repr, choices)), remedy=remedy))


class TrainingStopped(Exception):
    """Training stopped because going on was useless (too many skipped steps, a non-finite score); exit code 3."""


class RunInterrupted(Exception):
    """SIGINT or SIGTERM arrived, and the state has been saved. It carries the exit code."""

    def __init__(self, message: str, exit_code: ExitCode) -> None:
        self.exit_code = exit_code
        super().__init__(message)


@contextlib.contextmanager
def exit_codes() -> Generator[None, None, None]:
    """Turn the known errors of a script into one message on standard error and their exit code.

    If the reader of standard output has closed it, the script ends without a message and with `ExitCode.UNREAD`. Any
    other error is a defect of the program and keeps its traceback.
    """
    atexit.register(gc.freeze)  # the last search for unused objects takes a second, and frees nothing of use
    _print_any_character()
    with _quiet_when_unread():
        try:
            yield
        except UserError as error:
            _complain(f"error: {error.as_text()}")
            sys.exit(ExitCode.USER_ERROR)
        except TrainingStopped as error:
            _complain(f"training stopped: {printable_lines(str(error))}")
            sys.exit(ExitCode.TRAINING_STOPPED)
        except RunInterrupted as error:
            _complain(printable_lines(str(error)))
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            # During training, Ctrl-C becomes RunInterrupted; so this Ctrl-C came before or after training.
            _complain("interrupted; there was nothing to save")
            sys.exit(ExitCode.INTERRUPTED)
        except PermissionError as error:
            # A folder that this user may not enter makes every question about a path in it fail, wherever it is asked.
            what = f"cannot be used ({error.strerror})"
            remedy = "give this user the permission, or name another path"
            _complain(f"error: {Problem(str(error.filename), what, remedy=remedy).as_text()}")
            sys.exit(ExitCode.USER_ERROR)


def _print_any_character() -> None:
    """Let standard output print `?` for a character that its encoding lacks, as that of a Windows console may.

    Python's own way is to end the program; for standard error it writes the code of such a character.
    """
    reconfigure = getattr(sys.stdout, "reconfigure", None)  # a substitute for standard output has none
    if reconfigure is not None:
        reconfigure(errors="replace")


def _complain(text: str) -> None:
    """Print a message on standard error; in a terminal its long lines are wrapped at words.

    Of several ranks the first speaks for all: `torchrun` ends the others while they wait here, unless the message is
    about one of them alone.
    """
    text = name_commands(text)
    if os.environ.get("RANK", "0") != "0" and "TORCHELASTIC_RUN_ID" in os.environ:
        time.sleep(RANK_SECONDS)
        text = f"rank {os.environ['RANK']}: {text}"
    if sys.stderr.isatty():
        text = wrap_words(text, shutil.get_terminal_size().columns)
    print(text, file=sys.stderr)


@contextlib.contextmanager
def _quiet_when_unread() -> Generator[None, None, None]:
    """Exit with `ExitCode.UNREAD` where nobody reads standard output any more; another error code is kept.

    A BrokenPipeError of any other pipe is raised as usual.
    """
    try:
        yield
        _write_rest()
    except BrokenPipeError:
        if not _is_unread():
            raise
        _leave_unread()
    except SystemExit as end:
        # rich, which prints the lines of a run, catches the broken pipe itself and exits with 1.
        if end.code == 1 and isinstance(end.__context__, BrokenPipeError):
            _leave_unread()
        if _is_unread():  # ask the system, because argparse swallows the errors of its own printing
            if not end.code:
                _leave_unread()
            _drop_output()
        raise


def _leave_unread() -> NoReturn:
    _drop_output()
    sys.exit(ExitCode.UNREAD)


def _write_rest() -> None:
    """Flush standard output now, because an error of the flush at exit could not be caught any more."""
    with contextlib.suppress(ValueError, AttributeError):  # closed, or a process that was started without one
        sys.stdout.flush()


def _drop_output() -> None:
    """Send output that is still buffered to the null device, because Python flushes it at exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a substitute for standard output has no descriptor
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _is_unread() -> bool:
    """Return whether standard output is a pipe whose reader has closed it."""
    try:
        _write_rest()
        # With unbuffered output there is nothing to flush, so no error above; the system tells the state of the pipe.
        poll = select.poll()
        poll.register(sys.stdout.fileno(), select.POLLOUT)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except BrokenPipeError:
        return True
    except (OSError, ValueError, AttributeError):  # no descriptor, or a system without `poll`
        return False


def plural(unit: str) -> str:
    """Return the plural of a unit: `samples`, `people`."""
    return {"person": "people", "batch": "batches", "severity": "severities"}.get(unit, f"{unit}s")


def format_count_of(count: int, unit: str) -> str:
    """Write a number of units in words.

    Args:
        count: How many.
        unit: The unit in the singular.

    Returns:
        Text such as `1 person` or `1,200 people`.
    """
    return f"{count:,} {unit if count == 1 else plural(unit)}"
