"""One run: its device, seed, folder, console, and the signals that stop it."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import torch
from rich.console import Console

from sharpstudent.config.cli import CommandLine
from sharpstudent.config.resolve import count_ranks
from sharpstudent.config.run_config import RunConfig
from sharpstudent.config.stored import PRIVATE_NAME, STORED_NAME, split_private
from sharpstudent.core.errors import ExitCode, ProblemList, UserError
from sharpstudent.core.io import (
    FolderLock,
    check_writable,
    lock_folder,
    make_folder,
    make_new_folder,
    remove_stray_temporaries,
    write_text_atomically,
)
from sharpstudent.core.memory import choose_threads, keep_freed_memory
from sharpstudent.core.naming import PathHider
from sharpstudent.core.random import seed_everything
from sharpstudent.evaluation.opened import choose_device
from sharpstudent.report.console import build_console, print_line
from sharpstudent.report.environment import save_environment

if TYPE_CHECKING:
    from sharpstudent.core.ranks import Ranks


@dataclass
class Run:
    """One run of a script. The folder is made by `create_folder`, after everything has been checked.

    Attributes:
        config: The resolved config.
        device: The device on which the models run.
        console: The console that lines are printed to.
        resumed_from: The folder of a resumed run, None for a new one.
        dry_run: Whether only one batch is tried and nothing is written.
        replay: The skipped batch to replay, None without one.
        config_path: The config file, None for a run that was resumed without it.
        overrides: The words of `--set`.
        notes: Lines printed so far, for the log.
        folder: The folder of the run.
        lock: Keeps other processes out of the folder.
        started: When the run began, by the monotonic clock [s].
        ranks: The processes of the run, if `torchrun` started them; None for one process.
    """

    config: RunConfig
    device: torch.device
    console: Console
    resumed_from: Path | None
    dry_run: bool
    replay: Path | None = None
    config_path: Path | None = None
    overrides: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list[str])
    folder: Path = Path()
    lock: FolderLock | None = None
    started: float = field(default_factory=time.monotonic)
    ranks: Ranks | None = None

    @property
    def is_first(self) -> bool:
        """Whether this process writes: the only one, or rank 0."""
        return self.ranks is None or self.ranks.is_first

    @property
    def is_resumed(self) -> bool:
        """Whether the run continues from a saved state."""
        return self.resumed_from is not None

    @property
    def weights_folder(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / "weights"

    @property
    def logs_folder(self) -> Path:
        """The folder of the logs."""
        return self.folder / "logs"

    @functools.cached_property
    def hider(self) -> PathHider:
        """Shortens absolute paths in the files of the run that may be passed on."""
        return PathHider(self.config.model_dump(mode="json"), sys.argv, str(self.folder.absolute()))

    def say(self, line: str) -> None:
        """Print a line and keep it for the run's log."""
        self.notes.append(line)
        print_line(self.console, line)

    def first_goes_first(self) -> contextlib.AbstractContextManager[object]:
        """Context manager: of several ranks the first runs the body before the others do."""
        return contextlib.nullcontext() if self.ranks is None else self.ranks.first_goes_first()

    def lock_folder(self) -> None:
        """Keep other processes out of the run folder until `unlock_folder`, or until this process ends.

        Raises:
            UserError: When another process holds the lock.
        """
        if self.lock is None and self.is_first:
            self.lock = lock_folder(self.folder, self.say)

    def unlock_folder(self) -> None:
        """Let other processes into the run folder, where nothing more will be written."""
        if self.lock is not None:
            self.lock.release()
            self.lock = None

    def create_folder(self) -> None:
        """Make the run folder, lock it, and describe the run in it. Of several ranks the first does so for all.

        The folder is always a new one, even if two runs with the same name start at the same moment.

        Raises:
            UserError: When the disk refuses to write.
        """
        if self.is_first:
            self._create_folder()
        if self.ranks is not None:
            self.folder = self.ranks.tell(self.folder)

    def _create_folder(self) -> None:
        if self.resumed_from is None:
            self.folder = _make_run_folder(self.config)
        self.lock_folder()
        for folder in (self.folder, self.weights_folder, self.logs_folder):
            make_folder(folder)
            remove_stray_temporaries(folder)  # left by a killed process: no live one uses a locked folder
        shown, private = split_private(self.config, self.hider)
        if private is None:
            (self.folder / PRIVATE_NAME).unlink(missing_ok=True)
        else:
            write_text_atomically(self.folder / PRIVATE_NAME, private)
        write_text_atomically(self.folder / STORED_NAME, shown)
        save_environment(self.folder / "environment.json")
        self.say(f"run folder: {self.folder}")


def open_run(command: CommandLine) -> Run:
    """Choose the device, set all seeds, and print what the run will do. Writes nothing.

    The folder of a resumed run is locked here, before its state is read and before checks that may take a minute.

    Raises:
        UserError: When the device is absent, and when another process is training the run.
    """
    device = choose_device(command.config.device)
    has_ranks = count_ranks() is not None
    if has_ranks and (command.dry_run or command.replay is not None):
        option = "--dry-run" if command.replay is None else "--replay"
        raise UserError.about(option, "is for one process", got="torchrun", remedy="the same line with `python` alone")
    ranks, device = _join_ranks(device, command.config.rank_timeout) if has_ranks else (None, device)
    # Rank 0 decides what is resumed: the others might see the folder that it has just made.
    resumed_from = command.resume if ranks is None else ranks.tell(command.resume)
    run = Run(
        config=_choose_layout(command.config, device),
        device=device,
        console=build_console(quiet=ranks is not None and not ranks.is_first),
        resumed_from=resumed_from,
        folder=resumed_from or Path(),
        dry_run=command.dry_run,
        replay=command.replay,
        config_path=command.config_path,
        overrides=command.overrides,
        ranks=ranks,
    )
    if run.device.type == "cpu":
        torch.set_num_threads(choose_threads(command.config.threads, torch.get_num_threads()))
    kept = keep_freed_memory(command.config.keep_freed_memory, run.device.type)
    seed_everything(command.config.seed)
    threads = torch.get_num_threads()
    on_cpu = f", {threads} thread{'s' if threads > 1 else ''}" if run.device.type == "cpu" else ""
    by = "" if ranks is None else f", {ranks.count} rank{'s' if ranks.count > 1 else ''}"
    run.say(f"stage {run.config.stage}: {run.config.name} on {run.device}{on_cpu}{by}, seed {run.config.seed}")
    for note in (*command.notes, *([] if kept is None else [kept])):
        run.say(note)
    if run.is_resumed and not run.dry_run:
        run.lock_folder()
    return run


def _choose_layout(config: RunConfig, device: torch.device) -> RunConfig:
    """Choose the memory format where the config leaves it to the device; the run keeps it when it is resumed."""
    if config.compute.channels_last != "auto":
        return config
    compute = config.compute.model_copy(update={"channels_last": device.type == "cpu"})
    return config.model_copy(update={"compute": compute})


def _join_ranks(device: torch.device, timeout_s: float) -> tuple[Ranks, torch.device]:
    from sharpstudent.core.ranks import join_ranks  # what one process never loads

    return join_ranks(device, timeout_s)


@contextlib.contextmanager
def checking(run: Run) -> Iterator[ProblemList]:
    """Collect problems of data, weights and output folder; they are raised as one error at the end of the block."""
    problems = ProblemList()
    if not run.dry_run:
        root = Path(run.config.output_root)
        problems.attempt(check_writable, root, f"output_root = {str(root)!r}", remedy="--set output_root=FOLDER")
    yield problems
    problems.raise_if_any()


class StopRequested(Exception):
    """Raised between steps after a signal has asked for a stop; the state is then consistent."""

    def __init__(self, exit_code: ExitCode) -> None:
        self.exit_code = exit_code
        super().__init__(exit_code.name)


STOPPING = "\nstopping after this step; a second Ctrl-C stops at once, without saving\n"


class Interrupts:
    """Turns SIGINT and SIGTERM into a request to stop after the current step; a second SIGINT stops at once."""

    def __init__(self) -> None:
        self._asked: ExitCode | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Interrupts:
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):  # raised in other threads, which need no handlers
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @property
    def asked(self) -> ExitCode | None:
        """The exit code of the stop that a signal has asked for; None without one."""
        return self._asked

    def raise_if_asked(self) -> None:
        """Raise StopRequested after a signal."""
        if self._asked is not None:
            raise StopRequested(self._asked)

    def _receive(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and self._asked is not None:
            raise KeyboardInterrupt
        self._asked = ExitCode.INTERRUPTED if number == signal.SIGINT else ExitCode.TERMINATED
        with contextlib.suppress(OSError):  # without the console, which may be printing at this moment
            os.write(2, STOPPING.encode())


def _make_run_folder(config: RunConfig) -> Path:
    """Make `output/<name>_<config>_<mm_dd_HH_MM_SS>`; a name that is also the config's is written once."""
    stamp = datetime.now().strftime("%m_%d_%H_%M_%S")
    return make_new_folder(Path(config.output_root) / f"{config.folder_stem}_{stamp}")
