"""Callbacks: what is told of a training while it runs. They see numbers and never the step.

A callback gets copies: numbers in new dictionaries, no model, no batch, no optimiser. It runs between two steps,
outside of the transaction, and random numbers that it draws from torch or `random` do not change those of the
run. `callback_errors` in the config says what becomes of an exception: `stop` ends the run with the state saved, so
that it can be resumed; `report` prints it once and goes on without that callback.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from sharpstudent.core.errors import UserError
from sharpstudent.core.io import append_text
from sharpstudent.core.naming import format_csv
from sharpstudent.core.random import capture_rng_state, restore_rng_state


@dataclass(frozen=True)
class StageInfo:
    """What is known when a stage begins, or goes on.

    Attributes:
        folder: The run folder.
        stage: 1 or 2.
        name: The name of the run.
        config: All settings of the run, as JSON values.
        epochs: How many epochs it has.
        steps_per_epoch: How many steps an epoch has.
        epoch: The epoch that comes next, from 1.
        step: The step of it that comes next, from 0.
    """

    folder: Path
    stage: Literal[1, 2]
    name: str
    config: Mapping[str, Any]
    epochs: int
    steps_per_epoch: int
    epoch: int
    step: int


class Callback:
    """What is told of a training. A subclass overrides what it wants to know; all methods do nothing here."""

    def on_start(self, info: StageInfo) -> None:
        """Take what is known before the first step of this process."""

    def on_step(self, epoch: int, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of a step.

        Args:
            epoch: Counted from 1.
            step: Counted from 0 within the epoch.
            values: `loss`, each term, `lr`, and `skipped` (1.0 where the step was rolled back).
        """

    def on_validation(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Take the validation metrics of an epoch, by the names of metrics.csv."""

    def on_epoch(self, epoch: int, row: Mapping[str, float]) -> None:
        """Take the row of metrics.csv of an epoch that is over and saved."""

    def on_end(self, best_epoch: int, best_value: float) -> None:
        """Take the best epoch and its value of the selection metric, when the last epoch is over."""


class CsvSteps(Callback):
    """Writes the numbers of every step into a CSV file, beside metrics.csv, which has the epochs."""

    def __init__(self, name: str = "steps.csv") -> None:
        """Name the file.

        Args:
            name: Its name in the folder `logs` of the run.
        """
        self._name = name
        self._path: Path | None = None
        self._columns: list[str] = []

    def on_start(self, info: StageInfo) -> None:
        """Open the file; a resumed run goes on in it."""
        self._path = info.folder / "logs" / self._name
        self._columns = self._path.read_text("utf-8").partition("\n")[0].split(",") if self._path.is_file() else []

    def on_step(self, epoch: int, step: int, values: Mapping[str, float]) -> None:
        """Write a row; columns that come later than the first step are left out."""
        assert self._path is not None
        head = [] if self._columns else [("epoch", "step", *values)]
        self._columns = self._columns or list(head[0])
        row = {"epoch": epoch, "step": step, **values}
        append_text(self._path, format_csv([*head, [row.get(name, "") for name in self._columns]]))


class Callbacks:
    """Tells several callbacks, and keeps what they do apart from the run."""

    def __init__(
        self, callbacks: Sequence[Callback], *, stops: bool, device_type: str, say: Callable[[str], None]
    ) -> None:
        """Keep the callbacks.

        Args:
            callbacks: They are told in this order.
            stops: Whether an exception ends the run; else it is printed, and its callback is told no more.
            device_type: The type of the run's device, whose random state is kept, too.
            say: Prints a line.
        """
        self._callbacks, self._stops, self._device_type, self._say = list(callbacks), stops, device_type, say

    def tell(self, event: str, *values: Any) -> None:
        """Call a method of every callback.

        Args:
            event: Its name without `on_`.
            values: Its arguments; dictionaries are copied.

        Raises:
            UserError: For an exception of a callback, where such exceptions end the run.
        """
        for callback in list(self._callbacks):
            with _keep_state(self._device_type):
                copies = [dict(value) if isinstance(value, Mapping) else value for value in values]
                try:
                    getattr(callback, f"on_{event}")(*copies)
                except Exception as error:  # noqa: BLE001 (code of the user; the key says what becomes of it)
                    self._fail(callback, event, error)

    def _fail(self, callback: Callback, event: str, error: Exception) -> None:
        name = f"callback {type(callback).__name__}.on_{event}"
        told = f"{type(error).__name__}: {error}"
        if self._stops:
            remedy = "correct it and resume the run; or set callback_errors to report, which goes on without it"
            raise UserError.about(name, "raised an exception", got=told, remedy=remedy) from error
        self._callbacks.remove(callback)
        self._say(f"{name} raised {told}; the run goes on without this callback")


@contextlib.contextmanager
def _keep_state(device_type: str) -> Iterator[None]:
    """Keep random states and the mode of gradients as they are."""
    state, has_gradients = capture_rng_state(device_type=device_type), torch.is_grad_enabled()
    try:
        yield
    finally:
        restore_rng_state(state)
        torch.set_grad_enabled(has_gradients)
