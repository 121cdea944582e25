"""The user-facing errors and the exit codes of every script.

A `UserError` carries a list of problems so that everything that is wrong is reported together.  Scripts turn it into
text and exit code 2; nothing else may turn into a traceback for a user's mistake.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import select
import sys
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NoReturn, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class ExitCode(IntEnum):
    """What the two training scripts return to the shell."""

    OK = 0
    USER_ERROR = 2
    TRAINING_STOPPED = 3
    INTERRUPTED = 130  # SIGINT, state saved
    UNREAD = 141  # nobody reads standard output any more, as in `SCRIPT | head`; the shell's number for SIGPIPE
    TERMINATED = 143  # SIGTERM, state saved


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, in the user's own terms.

    where: the config key, file, folder or sample concerned; expected/got: what was wanted and what came, each optional;
    remedy: what to do about it.
    """

    where: str
    what: str
    expected: str | None = None
    got: str | None = None
    remedy: str | None = None

    def as_text(self) -> str:
        lines = [f"{self.where}: {self.what}"]
        for name, value in (("expected", self.expected), ("got", self.got), ("remedy", self.remedy)):
            if value is not None:
                lines.append(f"    {name}: {value}".replace("\n", "\n        "))
        return "\n".join(lines)


class UserError(Exception):
    """A mistake that the user can mend. Carries one or more problems; exit code 2."""

    def __init__(self, *problems: Problem) -> None:
        if not problems:
            raise ValueError("a UserError needs at least one Problem")
        self.problems = problems
        super().__init__(self.as_text())

    @classmethod
    def about(
        cls, where: str, what: str, expected: str | None = None, got: str | None = None, remedy: str | None = None
    ) -> UserError:
        """The error of one problem; the arguments are those of `Problem`."""
        return cls(Problem(where, what, expected, got, remedy))

    def __reduce__(self) -> tuple[type[UserError], tuple[Problem, ...]]:
        return type(self), self.problems  # crosses process borders whole, not as its text

    def as_text(self) -> str:
        if len(self.problems) == 1:
            return self.problems[0].as_text()
        body = "\n".join(f"  - {p.as_text()}".replace("\n", "\n    ") for p in self.problems)
        return f"{len(self.problems)} problems:\n{body}"


class ProblemList:
    """Collects problems from several checks and raises them as one `UserError`."""

    def __init__(self) -> None:
        self._problems: list[Problem] = []

    def add(self, problem: Problem) -> None:
        self._problems.append(problem)

    def take(self, error: UserError) -> None:
        self._problems.extend(error.problems)

    def attempt(self, build: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `build` returns. After a UserError, whose problems are taken, the value is never used: the list raises
        them before.
        """
        try:
            return build(*args, **kwargs)
        except UserError as error:
            self.take(error)
            return None  # type: ignore[return-value]

    def raise_if_any(self) -> None:
        if self._problems:
            raise UserError(*self._problems)


def choose(choices: Mapping[str, T], name: str, where: str) -> T:
    """What a name stands for. Raises UserError, with the nearest name, for one that is none of the choices.

    where: what messages call the place of the name, such as a config key.
    """
    if name in choices:
        return choices[name]
    near = difflib.get_close_matches(name, choices, n=1)
    remedy = f"did you mean {near[0]!r}?" if near else "write one of these"
    raise UserError(Problem(where, f"{name!r} is not known", expected=", ".join(map(repr, choices)), remedy=remedy))


class TrainingStopped(Exception):
    """Training ended itself to protect the run (too many skipped steps, a non-finite score); exit code 3."""


class RunInterrupted(Exception):
    """SIGINT or SIGTERM arrived; the state has been saved. Carries the exit code."""

    def __init__(self, message: str, exit_code: ExitCode) -> None:
        self.exit_code = exit_code
        super().__init__(message)


@contextlib.contextmanager
def exit_codes() -> Generator[None, None, None]:
    """Wrap a script's main: the known errors become one message on standard error and their exit code. So does the end
    of those who read standard output, without a message.

    Anything else is a defect of ours and keeps its traceback.
    """
    with _quiet_when_unread():
        try:
            yield
        except UserError as error:
            print(f"error: {error.as_text()}", file=sys.stderr)
            sys.exit(ExitCode.USER_ERROR)
        except TrainingStopped as error:
            print(f"training stopped: {error}", file=sys.stderr)
            sys.exit(ExitCode.TRAINING_STOPPED)
        except RunInterrupted as error:
            print(str(error), file=sys.stderr)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            # Before or after training: nothing was in flight, so there was nothing to save.
            print("interrupted; nothing was under way that had to be saved", file=sys.stderr)
            sys.exit(ExitCode.INTERRUPTED)


@contextlib.contextmanager
def _quiet_when_unread() -> Generator[None, None, None]:
    """Standard output that nobody reads ends the program with its own code, unless another one says more; a broken pipe
    of anything else passes through.
    """
    try:
        yield
        _write_rest()
    except BrokenPipeError:
        if not _is_unread():
            raise
        _leave_unread()
    except SystemExit as end:
        # rich, which prints the lines of a run, meets a broken pipe itself, and ends with 1.
        if end.code == 1 and isinstance(end.__context__, BrokenPipeError):
            _leave_unread()
        if _is_unread():  # asked of the system: argparse swallows what it cannot print
            if not end.code:
                _leave_unread()
            _drop_output()
        raise


def _leave_unread() -> NoReturn:
    _drop_output()
    sys.exit(ExitCode.UNREAD)


def _write_rest() -> None:
    """Write what was printed and still waits. At the end of the process an error would only be complained of."""
    with contextlib.suppress(ValueError, AttributeError):  # closed, or a process that was started without one
        sys.stdout.flush()


def _drop_output() -> None:
    """Python writes what is left when it ends: the null device takes it."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a stand-in for standard output has no descriptor
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _is_unread() -> bool:
    """Whether standard output is a pipe whose reader is gone."""
    try:
        _write_rest()
        # Unbuffered output leaves nothing to be written again; the system knows.
        poll = select.poll()
        poll.register(sys.stdout.fileno(), select.POLLOUT)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except BrokenPipeError:
        return True
    except (OSError, ValueError, AttributeError):  # no descriptor, or a system without `poll`
        return False


def plural(unit: str) -> str:
    """More than one of a unit: `samples`, `people`."""
    return {"person": "people"}.get(unit, f"{unit}s")


def format_count_of(count: int, unit: str) -> str:
    """`1 person`, `1,200 people`."""
    return f"{count:,} {unit if count == 1 else plural(unit)}"
