"""`compare_models.py sweep CONFIG --vary KEY=VALUES`: trains CONFIG with other values of some keys, and finds the best.

Without `--trials` every combination of the listed values is trained. With it, Optuna chooses the values of each trial,
and ends a trial whose validation metric is below the median of the others at that epoch (sweep_choice.py). Trials are
runs of their own (planned_runs.py), and `trials.json` is all that is remembered of them, so that the same command goes
on at any time.
"""

from __future__ import annotations

import copy
import json
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sharpstudent.config.cli import parse_command_line
from sharpstudent.config.load import apply_overrides, read_config_file
from sharpstudent.config.run_config import SCRIPTS, Stage
from sharpstudent.core.arguments import EXIT_CODES, Parser, read_number, read_path
from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.io import check_writable, make_folder, write_text_atomically
from sharpstudent.evaluation.command_line import COMPARE
from sharpstudent.evaluation.planned_runs import (
    PlannedRun,
    Planner,
    read_epochs,
    read_own,
    say,
    stopping_together,
    to_sets,
)
from sharpstudent.evaluation.sweep_choice import Grid, Parzen, Trial, build_chooser, read_space
from sharpstudent.metrics.metric import Metric
from sharpstudent.registry import find_task

LISTS = ("terms", "teachers")  # keys whose entries are named by their `name`, `term` or place
LONGEST_NAME = 80  # characters of the folder's name
DIVERGED = 3  # the exit code of a training that stopped itself
PURPOSE = (
    """Which values are best? Trains CONFIG with other values of some keys, and writes a table and the best config."""
)
MORE = f"""values:
  --vary distill_weight=0.1,0.3,0.5,1.0     a list; several lists: every combination
  --vary 'terms=[[...], [...]]'             a list of JSON values
  --vary lr=1e-5..1e-2:log                  a range, on a logarithmic scale; needs --trials
  --vary stage2.epoch=2..8                  a range of whole numbers
  --vary terms.kd.weight=0.1,0.3            of a term, by its name or place in the list

The same command goes on where it was stopped. Ranges and --trials need Optuna, the extra `sweep`.

{EXIT_CODES}"""


def main(argv: Sequence[str]) -> None:
    """Run the sweep that the words behind `sweep` ask for.

    Raises:
        UserError: For every mistake, and for a run that fails.
    """
    parser = Parser(
        f"{COMPARE} sweep", PURPOSE, usage=f"python {COMPARE} sweep CONFIG --vary KEY=VALUES [options]", more=MORE
    )
    parser.add_argument("config", metavar="CONFIG", type=read_path, help="the config")
    add = parser.add_argument_group("what is tried").add_argument
    add(
        "--vary", metavar="KEY=VALUES", action="append", default=[], help="a key and its values (repeatable), see below"
    )
    add("--trials", metavar="N", type=read_number(int, 1, 10_000), help="trials whose values Optuna chooses")
    add("--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[], help="change a key of every trial")
    add("--stage", type=int, choices=(1, 2), default=2, help="the stage that is trained (%(default)s)")
    add("--seed", type=read_number(int, 0, 10**6), default=1, help="seed of the choices (%(default)s)")
    add("--no-pruning", action="store_true", help="train every trial to its end")
    add = parser.add_argument_group("running").add_argument
    add("--jobs", metavar="N", type=read_number(int, 1, 100), default=1, help="runs side by side (%(default)s)")
    add("--out", metavar="FOLDER", type=read_path, help="default: output/sweep_CONFIG_KEYS")
    read = parser.parse_args(list(argv))
    space = read_space(read.vary)
    keys = apply_overrides(read_config_file(read.config), read.overrides)
    keys.pop("$schema", None)
    stage: Stage = read.stage
    words = [str(read.config), "-n", "sweep", *to_sets(read.overrides)]
    command = parse_command_line(words, stage=stage, find_task=find_task)
    named = "_".join([read.config.stem, *(one.key.rpartition(".")[2] for one in space)])
    out: Path = read.out or Path("output") / f"sweep_{named[:LONGEST_NAME]}"
    check_writable(out, f"--out {out}")
    chooser = build_chooser(space, read.trials, read.seed, side_by_side=read.jobs, prunes=not read.no_pruning)
    metric = command.task.metrics[command.config.training.selection_metric]
    planner = Planner(out, read.config.parent, stage=stage, side_by_side=read.jobs)
    sweep = Sweep(planner, keys, chooser, metric, f"val_{command.config.training.selection_metric}")
    settings, path = {"config": keys, "stage": stage, "vary": sorted(read.vary)}, out / "settings.json"
    if sweep.trials:
        _check_settings(path, settings)
    sweep.check_all()
    write_text_atomically(path, json.dumps(settings, indent=2) + "\n")
    sweep.train_all()
    _write(sweep, read.config, stage)


def _check_settings(path: Path, settings: dict[str, Any]) -> None:
    """Raise UserError where a sweep began with other settings: trials of two kinds would stand in one table."""
    kept = read_own(path, dict[str, Any])
    for name in settings if kept else ():
        before, now = kept.get(name), settings[name]
        if before == now:
            continue
        if isinstance(before, dict) and isinstance(now, dict):
            name = next(key for key in {**before, **now} if before.get(key) != now.get(key))
            before, now = before.get(name), now.get(name)
        raise UserError.about(
            f"sweep in {path.parent}",
            f"began with another {name}",
            expected=json.dumps(before),
            got=json.dumps(now),
            remedy="write --out FOLDER for a new sweep, or repeat the command as it was",
        )


class Sweep:
    """The trials of a sweep, and the record of them."""

    def __init__(
        self, planner: Planner, keys: Mapping[str, Any], chooser: Grid | Parzen, metric: Metric, column: str
    ) -> None:
        """Read the record of an earlier sitting.

        Args:
            planner: Plans and trains the runs.
            keys: The keys of CONFIG.
            chooser: Chooses the values.
            metric: The validation metric.
            column: Its column in metrics.csv.
        """
        self.planner, self.keys, self.column = planner, keys, column
        self._chooser, self._metric, self._lock = chooser, metric, threading.Lock()
        self._path = planner.out / "trials.json"
        make_folder(planner.out)
        self.trials: list[Trial] = read_own(self._path, list[Trial])

    def check_all(self) -> None:
        """Raise UserError for combinations of a list that cannot be trained, before the first of them is."""
        for place, values in enumerate(self._chooser.listed):
            self.plan(place, values)

    def train_all(self) -> None:
        """Train the trials that are not finished, then further ones until there are enough.

        Raises:
            UserError: For a run that fails, but for one that diverges: that is a result.
            RunInterrupted: After Ctrl-C; the runs have saved their state.
        """
        stop, begun = threading.Event(), [place for place, one in enumerate(self.trials) if one.state == "running"]
        say(f"{self._chooser.count} trials, {len(self.trials) - len(begun)} of them are there already")
        left = iter(begun)
        with ThreadPoolExecutor(self.planner.side_by_side) as pool, stopping_together(pool, stop):
            for future in [pool.submit(self._train_some, left, stop) for _ in range(self.planner.side_by_side)]:
                future.result()

    def _train_some(self, left: Iterator[int], stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                with self._lock:
                    place = next(left, None)
                    place = self._begin() if place is None else place
                if place is None:
                    return
                self._train(place)
        except BaseException:
            stop.set()
            raise

    def _begin(self) -> int | None:
        """Choose and record a further trial; None where there are enough."""
        while (values := self._chooser.choose(self.trials)) is not None:
            place, state = len(self.trials), "running"
            try:
                self.plan(place, values)
            except UserError as error:
                if not self.trials:
                    raise  # such as a key that there is not
                say(error.as_text())
                state = "failed"
            self.trials.append(Trial(values=values, state=state))
            self._save()
            if state == "running":
                return place
        return None

    def _train(self, place: int) -> None:
        trial = self.trials[place]
        run = self.plan(place, trial.values)
        say(f"{run.name}: {_list_values(trial.values)}")
        code = 0
        if run.find_finished() is None:
            code = self.planner.train(run, is_hopeless=lambda: self._look(place, run), allowed=(DIVERGED,))
        self._look(place, run)
        with self._lock:
            is_whole = code == 0 and bool(trial.history)
            trial.state = "complete" if is_whole else "failed" if code in (0, DIVERGED) else "pruned"
            self._save()
        best = max(trial.history.values(), default=None)
        say(f"{run.name}: {trial.state}, {self.column} {'-' if best is None else format(self.turn(best), '.4f')}")

    def plan(self, place: int, values: Mapping[str, Any]) -> PlannedRun:
        """Plan the run of a trial.

        Args:
            place: Its place among the trials.
            values: Value by key.

        Raises:
            UserError: For values that cannot be trained.
        """
        name = f"trial_{place:03}"
        try:
            keys = merge(self.keys, values, self.planner.stage)
            return self.planner.plan(name, keys, f"trials/{name}.json", "t", ())
        except UserError as error:
            problem = Problem(name, "has values that cannot be trained", got=_list_values(values))
            raise UserError(problem, *error.problems) from None

    def _look(self, place: int, run: PlannedRun) -> bool:
        """Take over what the epochs of a trial gave; returns whether it is hopeless."""
        # By the name of the folder, which is asked every second: no other trial has it.
        logs = self.planner.out.glob(f"runs/{run.config.folder_stem}_*/logs/metrics.csv")
        newest = max(logs, key=lambda path: path.stat().st_mtime_ns, default=None)
        rows = [] if newest is None else read_epochs(newest.parents[1])
        history = {int(row["epoch"]): self.turn(row[self.column]) for row in rows if row.get(self.column) is not None}
        with self._lock:
            trial = self.trials[place]
            if history == trial.history:
                return False
            trial.history = history
            others = [one for number, one in enumerate(self.trials) if number != place]
            return len(rows) < run.config.training.epochs and self._chooser.is_hopeless(trial, others)

    def turn(self, value: float) -> float:
        """The metric so that higher is better, and back."""
        return float(value) if self._metric.direction == "higher" else -float(value)

    def _save(self) -> None:
        stored = [one.model_dump(mode="json") for one in self.trials]
        write_text_atomically(self._path, json.dumps(stored, indent=2) + "\n")

    @property
    def keys_that_vary(self) -> list[str]:
        """The keys of `--vary`."""
        return list(dict.fromkeys(key for one in self.trials for key in one.values))

    @property
    def best(self) -> int | None:
        """The place of the best trial that was trained to its end."""
        done = [place for place, one in enumerate(self.trials) if one.state == "complete" and one.history]
        return max(done, key=lambda place: max(self.trials[place].history.values()), default=None)


def merge(keys: Mapping[str, Any], values: Mapping[str, Any], stage: Stage) -> dict[str, Any]:
    """Put values into a copy of CONFIG's keys.

    A dot leads into a group, or to the entry of a list by its `name`, `term` or place: `terms.kd.weight`. A key that
    the group of the stage has, too, is that of the group, which wins.

    Args:
        keys: The keys of CONFIG.
        values: Value by key.
        stage: The stage that is trained.

    Raises:
        UserError: For an entry that a list does not have.
    """
    merged = copy.deepcopy(dict(keys))
    group = merged.get(f"stage{stage}")
    for key, value in values.items():
        *above, last = key.split(".")
        place: Any = group if isinstance(group, dict) and [*above, last][0] in group else merged
        for part in above:
            place = _enter(place, part, key)
        if isinstance(place, list):
            place[place.index(_enter(place, last, key))] = value
        else:
            place[last] = value
    return merged


def _enter(place: Any, part: str, key: str) -> Any:
    """Find a group, which is made where there is none, or the entry of a list."""
    if isinstance(place, dict) and (part in place or part not in LISTS):
        return place.setdefault(part, {})
    entries = place if isinstance(place, list) else []
    names = [str(one.get("name", one.get("term"))) if isinstance(one, dict) else "" for one in entries]
    if part in names:
        return entries[names.index(part)]
    if part.isdecimal() and int(part) < len(entries):
        return entries[int(part)]
    raise UserError.about(
        f"--vary {key}",
        f"leads to {part!r}, which is not there",
        expected=", ".join(filter(None, names)) or "a key of CONFIG, which has no such list",
        remedy="name a key as CONFIG has it, such as lr or, where it has a list of terms, terms.kd.weight",
    )


def _list_values(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {json.dumps(value)}" for key, value in values.items())


def _write(sweep: Sweep, config: Path, stage: Stage) -> None:
    """Write the table and the best config, and print them."""
    from sharpstudent.report.console import build_console, print_line
    from sharpstudent.report.text_table import draw_console_table, to_markdown

    out, words = sweep.planner.out, ["Trial", "State"]
    columns = build_table(sweep)
    write_text_atomically(out / "sweep.md", f"# Sweep of {config.stem}\n\n" + to_markdown(columns, words=words))
    console, short = build_console(), ["Trial", *sweep.keys_that_vary, "State", "Epoch", sweep.column, "CPU s"]
    shown = {name: cells for name, cells in columns.items() if name in short}
    console.print(draw_console_table(shown, words=words))
    place = sweep.best
    if place is None:
        raise UserError.about("sweep", "has no trial that was trained to its end", remedy=f"see {out / 'sweep.md'}")
    best = sweep.trials[place]
    value = format(sweep.turn(max(best.history.values())), ".4f")
    path, found = out / "best.json", json.dumps(merge(sweep.keys, best.values, stage), indent=2)
    write_text_atomically(path, f"// Trial {place} of the sweep of {config.name}: {sweep.column} {value}\n{found}\n")
    print_line(
        console, f"best: trial {place}, {sweep.column} {value}; it was chosen by this metric, which is therefore"
    )
    print_line(console, "too good for it: evaluate the run on data of its own")
    print_line(console, f"written: {path}, sweep.md, trials.json")
    print_line(console, f"train it by python {SCRIPTS[stage]} {path} -n NAME")


def build_table(sweep: Sweep) -> dict[str, Sequence[str]]:
    """Build the table: a trial a row, best first, with its values, the losses and metrics of its best epoch, its cost.

    Args:
        sweep: The sweep.

    Returns:
        The cells of each column, by its head.
    """
    from sharpstudent.report.text import DASH
    from sharpstudent.report.text_table import drop_empty

    def rank(place: int) -> tuple[bool, float]:
        one = sweep.trials[place]
        return one.state != "complete", -max(one.history.values(), default=-math.inf)

    order = sorted(range(len(sweep.trials)), key=rank)
    rows = {place: _find_best_row(sweep, place) for place in order}
    named = [name for place in order for name in rows[place] if name.startswith(("val_", "train_"))]
    columns: dict[str, Sequence[str]] = {
        "Trial": [f"{place:03}" for place in order],
        **{key: [_show(sweep.trials[place].values.get(key)) for place in order] for key in sweep.keys_that_vary},
        "State": [sweep.trials[place].state for place in order],
        "Epoch": [str(rows[place].get("epoch", DASH)) for place in order],
    }
    for name in sorted(dict.fromkeys(named), key=lambda name: (name != sweep.column, name.startswith("train_"))):
        values = [rows[place].get(name) for place in order]
        columns[name] = [DASH if value is None else f"{value:.4g}" for value in values]
    costs = [sweep.planner.costs.mean([f"trial_{place:03}"], "cpu_s") for place in order]
    columns["CPU s"] = [DASH if cost is None else f"{cost:.0f}" for cost in costs]
    return drop_empty(columns)


def _find_best_row(sweep: Sweep, place: int) -> dict[str, Any]:
    history = sweep.trials[place].history
    folder = sweep.plan(place, sweep.trials[place].values).find_folder() if history else None
    if folder is None:
        return {}
    epoch = max(history, key=lambda epoch: history[epoch])
    return next((row for row in read_epochs(folder) if row["epoch"] == epoch), {})


def _show(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
