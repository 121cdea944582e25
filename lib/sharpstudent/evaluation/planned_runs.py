"""Runs of the training scripts that another command plans: their configs, their processes, and what they cost.

Each is a process of its own with a config file of its own, so that it is locked, resumed, logged and bit-exact as any
run is, and can be repeated by hand. Finished runs are kept, one that was interrupted is resumed: the command that plans
them goes on wherever it was stopped.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sharpstudent.config.cli import parse_command_line
from sharpstudent.config.run_config import COMMANDS, SCRIPTS, RunConfig, Stage
from sharpstudent.config.stored import find_own_run
from sharpstudent.core.archive import BEST
from sharpstudent.core.errors import ExitCode, Problem, RunInterrupted, UserError
from sharpstudent.core.files import read_json, read_text
from sharpstudent.core.io import disk_errors_as_user_errors, make_folder, write_text_atomically
from sharpstudent.core.memory import count_processors
from sharpstudent.core.naming import printable
from sharpstudent.registry import find_task

STOPPED = (130, 143, -2, -15)  # exit codes of an interrupted run
LOOK_S = 1.0  # seconds between two looks at a run that may be ended early


@dataclass(frozen=True)
class PlannedRun:
    """One run of a training script.

    Attributes:
        name: The name in lines, logs and costs.
        words: The arguments of the training script.
        config: The resolved config.
        task: The class of its task.
    """

    name: str
    words: tuple[str, ...]
    config: RunConfig
    task: type[Any]

    def find_folder(self) -> Path | None:
        """Find the run folder; None before the run has saved a state."""
        return find_own_run(self.config, self.task)[0]

    def find_finished(self) -> Path | None:
        """Find the run folder, if the run has all its epochs."""
        folder = self.find_folder()
        if folder is None or not (folder / BEST).is_file():
            return None
        return folder if len(read_epochs(folder)) >= self.config.training.epochs else None


def read_epochs(folder: Path) -> list[dict[str, Any]]:
    """Read the rows of a run's metrics.csv, an epoch each."""
    from sharpstudent.report.logs import MetricsFile

    return [dict(row) for row in MetricsFile(folder / "logs" / "metrics.csv").read()]


@dataclass
class Planner:
    """Plans the runs of one command, below one folder.

    Attributes:
        out: The folder; it holds the configs, the runs below `runs/`, what they print below `logs/`, and the seconds
            that they take in `costs.json`.
        beside: The folder of CONFIG, where a task of the user's own may lie.
        stage: The stage that is trained.
        side_by_side: How many runs at once; they share the processors.
        answers: The file of the teacher's answers that the runs share; None where each run computes its own. What an
            answer took counts for every run that looks it up.
    """

    out: Path
    beside: Path
    stage: Stage = 2
    side_by_side: int = 1
    answers: Path | None = None
    costs: Costs = field(init=False)

    def __post_init__(self) -> None:
        self.costs = Costs(self.out / "costs.json")
        self._starts: dict[str, str] = read_own(self.out / "starts.json", dict[str, str])

    def plan(self, name: str, keys: Mapping[str, Any], file: str, run: str, changes: Collection[str]) -> PlannedRun:
        """Write the config of a run, and check it.

        The stage-1 checkpoint that a pattern names is chosen once and written down: a run that begins later must not
        find a newer one.

        Args:
            name: The name of the run in lines, logs and costs.
            keys: The keys of its config.
            file: The config file, relative to the folder.
            run: The name of the run for the training script.
            changes: Values of `--set` besides.

        Raises:
            UserError: For a config that cannot be trained.
        """
        shared = {} if self.answers is None else {"teacher_answers": str(self.answers)}
        merged, pattern = {**shared, **keys}, keys.get("pretrained_student_weights")
        if self.stage == 2 and isinstance(pattern, str):
            known = self._starts.get(pattern)
            if known is None or not Path(known).is_file():
                known = str(find_newest(pattern, f"{file}: pretrained_student_weights"))
                self._starts[pattern] = known
                write_text_atomically(self.out / "starts.json", json.dumps(self._starts, indent=2) + "\n")
            merged["pretrained_student_weights"] = known
        path = self.out / file
        make_folder(path.parent)
        write_text_atomically(path, json.dumps(merged, indent=2) + "\n")
        changes = (*changes, f"output_root={self.out / 'runs'}", "report=false")
        words = (str(path), "-n", run, *to_sets(changes))
        command = parse_command_line(words, stage=self.stage, find_task=self._find_task)
        return PlannedRun(name, words, command.config, command.task)

    def _find_task(self, name: str, *, beside: Sequence[Path] = (), **others: Any) -> Any:
        """Look beside CONFIG, too, as a class that lies there is named by its module."""
        return find_task(name, beside=[self.beside, *beside], **others)

    def train_all(self, runs: Sequence[PlannedRun]) -> None:
        """Train the runs that are not finished, some of them side by side.

        Raises:
            UserError: For a run that fails; no further one is begun then, and those that run go on to their end.
            RunInterrupted: After Ctrl-C; the runs have saved their state.
        """
        failed = threading.Event()

        def train(run: PlannedRun) -> None:
            if failed.is_set():
                return
            if run.find_finished() is not None:
                return say(f"{run.name}: is there already")
            try:
                self.train(run)
            except BaseException:
                failed.set()
                raise

        with ThreadPoolExecutor(self.side_by_side) as pool, stopping_together(pool, failed):
            for future in [pool.submit(train, run) for run in runs]:
                future.result()

    def train(
        self, run: PlannedRun, *, is_hopeless: Callable[[], bool] | None = None, allowed: Sequence[int] = ()
    ) -> int:
        """Train a run to its end, from where it was stopped if it has begun.

        Args:
            run: The run.
            is_hopeless: Asked every second; the run is terminated once it says so. Its state is saved.
            allowed: Exit codes beside 0 that are no failure.

        Returns:
            The exit code; that of a terminated run where it was hopeless.

        Raises:
            UserError: For a run that fails.
            KeyboardInterrupt: For a run that was interrupted.
        """
        log = self.out / "logs" / f"{run.name}.txt"
        make_folder(log.parent)
        script = Path(sys.argv[0]).resolve().parent / SCRIPTS[self.stage]
        installed = ("-m", "sharpstudent.commands", COMMANDS[self.stage])  # where the scripts of a checkout are absent
        command = [sys.executable, *((str(script),) if script.is_file() else installed), *run.words, "--resume", "auto"]
        begun = time.monotonic()
        with disk_errors_as_user_errors(log), open(log, "ab") as file:
            process = subprocess.Popen(command, env=self._build_environment(), stdout=file, stderr=subprocess.STDOUT)
            was_ended, status, usage = _wait(process, is_hopeless)
        process.returncode = code = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - begun
        self.costs.add(run.name, cpu_s=usage.ru_utime + usage.ru_stime + self._find_saved(process.pid), wall_s=seconds)
        if code in allowed or (was_ended and code in STOPPED):
            return code
        if code in STOPPED:
            raise KeyboardInterrupt
        if code != 0:
            tail = "\n".join(read_text(log, errors="replace").splitlines()[-12:])
            remedy = f"the whole of it is in {log}; the same command goes on when it is corrected"
            raise UserError(Problem(f"run {run.name}", f"ended with exit code {code}", got=tail, remedy=remedy))
        say(f"{run.name}: trained in {seconds:.0f} s")
        return code

    def _find_saved(self, process: int) -> float:
        if self.answers is None:
            return 0.0
        from sharpstudent.models.teacher_answers import take_saved_seconds

        return take_saved_seconds(self.answers, process)

    def _build_environment(self) -> dict[str, str]:
        threads = str(max(1, count_processors() // self.side_by_side))
        shared = {"OMP_NUM_THREADS": threads} if self.side_by_side > 1 else {}
        paths = os.pathsep.join(filter(None, [str(self.beside), os.environ.get("PYTHONPATH")]))
        return {**shared, **os.environ, "PYTHONPATH": paths}


def _wait(process: subprocess.Popen[bytes], is_hopeless: Callable[[], bool] | None) -> tuple[bool, int, Any]:
    """Wait for the end of a process; returns whether it was ended here, its status, and the resources that it took."""
    if is_hopeless is None:
        _, status, usage = os.wait4(process.pid, 0)
        return False, status, usage
    was_ended = False
    while True:
        found, status, usage = os.wait4(process.pid, os.WNOHANG)
        if found:
            return was_ended, status, usage
        if not was_ended and is_hopeless():
            was_ended = True
            os.kill(process.pid, signal.SIGTERM)
        time.sleep(LOOK_S)


@contextlib.contextmanager
def stopping_together(pool: ThreadPoolExecutor, stop: threading.Event) -> Generator[None]:
    """Context manager: after Ctrl-C no further run begins, and the command says that it can go on."""
    try:
        yield
    except KeyboardInterrupt:
        stop.set()
        pool.shutdown(cancel_futures=True)
        raise RunInterrupted("interrupted; the same command goes on from here", ExitCode.INTERRUPTED) from None


class Costs:
    """Seconds of each run, summed over its sittings, in a file."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._found: dict[str, dict[str, float]] = read_own(path, dict[str, dict[str, float]])

    def add(self, name: str, **seconds: float) -> None:
        """Add the seconds of a sitting."""
        with self._lock:
            one = self._found.setdefault(name, dict.fromkeys(seconds, 0.0))
            for key, value in seconds.items():
                one[key] += value
            write_text_atomically(self._path, json.dumps(self._found, indent=2) + "\n")

    def mean(self, names: Sequence[str], key: str) -> float | None:
        """The mean over runs; None where one is unknown."""
        values = [self._found[name][key] for name in names if name in self._found]
        return sum(values) / len(values) if values and len(values) == len(names) else None


def read_own(path: Path, kind: Any) -> Any:
    """Read JSON of a type that such a command has written; an empty one of its kind where there is none yet.

    Raises:
        UserError: For a file that is damaged.
    """
    from pydantic import TypeAdapter

    reader = TypeAdapter(kind)
    try:
        return reader.validate_json(json.dumps(read_json(path)), strict=True)
    except FileNotFoundError:
        return (getattr(kind, "__origin__", None) or kind)()
    except (OSError, ValueError) as error:
        raise UserError.about(
            str(path),
            "is not what this command wrote there",
            got=str(error).splitlines()[0],
            remedy=f"rm {shlex.quote(str(path))}, then repeat the command; runs that are finished are kept",
        ) from None


def to_sets(overrides: Collection[str]) -> list[str]:
    """Write values as options of a training script."""
    return [word for one in overrides for word in ("--set", one)]


def say(line: str) -> None:
    """Print a line at once."""
    print(printable(line), flush=True)


def find_newest(pattern: str, where: str) -> Path:
    """Find the newest file or folder that a path or a pattern names.

    Args:
        pattern: The path or pattern.
        where: What messages call it.

    Returns:
        The path.

    Raises:
        UserError: Where there is none.
    """
    found = [Path(one) for one in ([pattern] if Path(pattern).exists() else glob.glob(pattern, recursive=True))]
    if not found:
        raise UserError.about(where, "names nothing that is there", got=pattern, remedy="train it first, or correct it")
    return max(found, key=lambda path: (path.stat().st_mtime_ns, str(path)))
