"""How a stage ends before its time: what is saved then, and what the user is told."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from lib.engine.attempt import OutOfMemory
from lib.engine.memory import is_out_of_memory
from lib.engine.position import Position
from lib.engine.run import StopRequested
from lib.errors import ExitCode, RunInterrupted, TrainingStopped
from lib.metrics.checks import MetricError


@contextlib.contextmanager
def explain_endings(
    position: Position, save_state: Callable[[], None], describe_stop: Callable[[str], str]
) -> Iterator[None]:
    """Turn what ends the block into RunInterrupted (a signal) or TrainingStopped (no memory, scores that are not
    numbers), after saving the state where it is whole; every other exception passes.

    describe_stop: where the run stands and how to go on, given what is saved.
    """
    try:
        yield
    except StopRequested as stop:
        save_state()
        raise RunInterrupted(f"interrupted at {describe_stop('saved')}", stop.exit_code) from None
    except KeyboardInterrupt:
        told = describe_stop("this point is not saved; the last save is whole")
        raise RunInterrupted(f"stopped at once in {told}", ExitCode.INTERRUPTED) from None
    except OutOfMemory as error:
        save_state()
        raise TrainingStopped(f"{error}\n{describe_stop('saved')}") from error
    except MetricError as error:
        raise TrainingStopped(f"epoch {position.epoch}: {error}") from error
    except (RuntimeError, MemoryError) as error:  # outside a step, that is in a validation
        if not is_out_of_memory(error):
            raise
        save_state()
        told = describe_stop("saved")
        raise TrainingStopped(f"out of memory while validating ({error}).\n{told}") from error
