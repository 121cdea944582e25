"""Callbacks: what is told of a training while it runs. They see numbers and never the step.

A callback gets copies: numbers in new dictionaries, no model, no batch, no optimiser. It runs between two steps,
outside of the transaction, and random numbers that it draws from torch or `random` do not change those of the
run. `callback_errors` in the config says what becomes of an exception: `stop` ends the run with the state saved, so
that it can be resumed; `report` prints it once and goes on without that callback.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from sharpstudent.core.arguments import advise_extra
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


class WandbLogger(Callback):
    """Sends the numbers of a run to Weights & Biases (extra `wandb`); a resumed run goes on in the same one there.

    WANDB_MODE=offline, or `mode="offline"`, writes them below the run folder; `wandb sync` sends them later.
    """

    def __init__(self, project: str = "sharpstudent", *, every: int = 10, **options: Any) -> None:
        """Say where to.

        Args:
            project: The project at Weights & Biases.
            every: Of how many steps one is sent; epochs are sent whole.
            options: Further arguments of `wandb.init`, such as `mode` or `entity`.
        """
        self._wandb = _import("wandb", "wandb")
        self._project, self._every, self._options = project, every, options
        self._run: Any = None
        self._count = self._per_epoch = 0

    def on_start(self, info: StageInfo) -> None:
        """Open the run there; its name is that of the run folder."""
        self._per_epoch = info.steps_per_epoch
        about = {"project": self._project, "name": info.folder.name, "id": info.folder.name, "resume": "allow"}
        self._run = self._wandb.init(
            dir=str(info.folder / "logs"), config=dict(info.config), **{**about, **self._options}
        )

    def on_step(self, epoch: int, step: int, values: Mapping[str, float]) -> None:
        """Send the numbers of a step, as `step/NAME`."""
        self._count = (epoch - 1) * self._per_epoch + step + 1
        if step % self._every == 0:
            self._run.log({f"step/{name}": value for name, value in values.items()}, step=self._count)

    def on_epoch(self, epoch: int, row: Mapping[str, float]) -> None:
        """Send the row of metrics.csv."""
        self._run.log({"epoch": epoch, **row}, step=self._count)

    def on_end(self, best_epoch: int, best_value: float) -> None:
        """Send which epoch was the best, and close the run."""
        self._run.summary.update({"best_epoch": best_epoch, "best_value": best_value})
        self._run.finish()


class MlflowLogger(Callback):
    """Sends the numbers of a run to MLflow (extra `mlflow`); a resumed run goes on in the same one there."""

    def __init__(self, experiment: str = "sharpstudent", *, uri: str | None = None, every: int = 10) -> None:
        """Say where to.

        Args:
            experiment: The experiment of MLflow; made where it does not exist.
            uri: The address of the server; None for that of MLFLOW_TRACKING_URI. A folder needs
                MLFLOW_ALLOW_FILE_STORE=true, as MLflow says.
            every: Of how many steps one is sent; epochs are sent whole.
        """
        self._client: Any = _import("mlflow", "mlflow-skinny").MlflowClient(uri)
        self._experiment, self._every = experiment, every
        self._run = ""
        self._per_epoch = 0

    def on_start(self, info: StageInfo) -> None:
        """Open the run there, or find it by the name of the run folder."""
        self._per_epoch, name = info.steps_per_epoch, info.folder.name
        known = self._client.get_experiment_by_name(self._experiment)
        number = known.experiment_id if known is not None else self._client.create_experiment(self._experiment)
        found = self._client.search_runs([number], f"attributes.run_name = '{name}'", max_results=1)
        self._run = (found[0] if found else self._client.create_run(number, run_name=name)).info.run_id
        if not found:
            for key, value in info.config.items():
                self._client.log_param(self._run, key, str(value)[:500])

    def on_step(self, epoch: int, step: int, values: Mapping[str, float]) -> None:
        """Send the numbers of a step, as `step/NAME`."""
        if step % self._every == 0:
            self._log({f"step/{name}": value for name, value in values.items()}, (epoch - 1) * self._per_epoch + step)

    def on_epoch(self, epoch: int, row: Mapping[str, float]) -> None:
        """Send the row of metrics.csv."""
        self._log(row, epoch)

    def on_end(self, best_epoch: int, best_value: float) -> None:
        """Send which epoch was the best, and close the run."""
        self._log({"best_epoch": best_epoch, "best_value": best_value}, best_epoch)
        self._client.set_terminated(self._run)

    def _log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._client.log_metric(self._run, name, value, step=step)


def _import(module: str, package: str) -> Any:
    """Import a package of an extra. Raises UserError where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError.about(
            f"callback of {module}", f"needs {package}, which is not installed", remedy=advise_extra(module)
        ) from None


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
