"""`compare_models.py ablate CONFIG`: trains the arms of an ablation from one student, and compares them.

Every arm and seed is a run of main_distillation.py of its own, `--jobs` of them side by side. They start from the same
stage-1 checkpoint and take equally many steps. Runs that are finished are kept, one that was interrupted is resumed, so
that the same command goes on at any time. Then all are evaluated on the same samples.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpstudent.config.cli import parse_command_line
from sharpstudent.config.load import apply_overrides, read_config_file
from sharpstudent.config.run_config import RunConfig
from sharpstudent.config.stored import find_own_run
from sharpstudent.core.archive import BEST
from sharpstudent.core.arguments import EXIT_CODES, Parser, read_number, read_path
from sharpstudent.core.errors import ExitCode, Problem, RunInterrupted, UserError, plural
from sharpstudent.core.files import read_json, read_text
from sharpstudent.core.io import (
    check_writable,
    disk_errors_as_user_errors,
    make_folder,
    write_bytes_atomically,
    write_text_atomically,
)
from sharpstudent.core.naming import printable
from sharpstudent.evaluation.arms import PRESETS, Arm, Plan, build_keys, find_newest, name_seeds, read_plan
from sharpstudent.evaluation.command_line import COMPARE, EVALUATE
from sharpstudent.registry import find_task

if TYPE_CHECKING:
    from sharpstudent.evaluation.evaluate import EvalResult
    from sharpstudent.evaluation.renderer import Session
    from sharpstudent.report.ablation import AblationResults, ArmCost

SCRIPT = "main_distillation.py"
STOPPED = (130, 143, -2, -15)  # exit codes of an interrupted run

PURPOSE = """What is it worth? Trains variants of stage 2 (arms) from the same stage-1 student, for equally many steps,
at several seeds, and compares them on the same samples: one table with paired intervals, a picture, a verdict."""
MORE = f"""presets:
  kd-or-not   CONFIG as it is, and alone: what the teacher is worth (the default)
  terms       CONFIG with one term more, and with another term in place of kd
  sam         CONFIG with SAM, without, and with each of its cheaper variants

Every ablation has the arm "alone for as many further steps". The same command goes on where it was stopped. Other
options are those of {EVALUATE}, such as --data SET; without it, the validation data of the runs is taken.

{EXIT_CODES}"""


@dataclass(frozen=True)
class ArmRun:
    """One run of an ablation.

    Attributes:
        arm: The arm.
        seed: The seed.
        words: The arguments of the training script.
        config: The resolved config.
        task: The class of its task.
    """

    arm: Arm
    seed: int
    words: tuple[str, ...]
    config: RunConfig
    task: type[Any]

    @property
    def name(self) -> str:
        """The name in lines, logs and costs."""
        return f"s{self.seed}_{self.arm.name}"

    def find_finished(self) -> Path | None:
        """Find the run folder, if the run has all its epochs."""
        from sharpstudent.report.logs import MetricsFile

        folder, _ = find_own_run(self.config, self.task)
        if folder is None or not (folder / BEST).is_file():
            return None
        rows = MetricsFile(folder / "logs" / "metrics.csv").read()
        return folder if len(rows) >= self.config.training.epochs else None


def main(argv: Sequence[str]) -> None:
    """Run the ablation that the words behind `ablate` ask for.

    Raises:
        UserError: For every mistake, and for a run that fails.
    """
    parser = Parser(f"{COMPARE} ablate", PURPOSE, usage=f"python {COMPARE} ablate CONFIG [options]", more=MORE)
    parser.add_argument("config", metavar="CONFIG", type=read_path, help="the config of stage 2")
    group = parser.add_argument_group("arms")
    group.add_argument("--preset", choices=tuple(PRESETS), help="which arms (default: kd-or-not)")
    group.add_argument("--arms", metavar="FILE", type=read_path, help="arms of your own, as JSON (docs/ablations.md)")
    number = read_number(int, 1, 100)
    group.add_argument("--seeds", metavar="N", type=number, default=3, help="seeds of each arm (%(default)s)")
    group.add_argument(
        "--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[], help="change a key of every arm"
    )
    group = parser.add_argument_group("running")
    group.add_argument("--jobs", metavar="N", type=number, default=1, help="runs side by side (%(default)s)")
    group.add_argument("--out", metavar="FOLDER", type=read_path, help="default: output/ablation_CONFIG_PRESET")
    read, rest = parser.parse_known_args(list(argv))
    if read.arms is not None and read.preset is not None:
        what = "cannot be given together with --preset"
        raise UserError.about("--arms", what, remedy="leave one of the two out")
    arms_file: Path | None = read.arms
    preset = read.preset or "kd-or-not"
    kind = preset if arms_file is None else arms_file.stem
    out: Path = read.out or Path("output") / f"ablation_{read.config.stem}_{kind}"
    check_writable(out, f"--out {out}")
    keys = apply_overrides(read_config_file(read.config), read.overrides)
    words = [str(read.config), "-n", "ablation", *_to_sets(read.overrides)]
    command = parse_command_line(words, stage=2, find_task=find_task)
    settings = (command.config, command.task)
    plan = PRESETS[preset](*settings) if arms_file is None else read_plan(arms_file, *settings)
    _check_options(command.task, rest)
    seeds = tuple(range(1, read.seeds + 1))
    jobs = _write_jobs(plan, keys, seeds, out, read.config)
    epochs = command.config.training.epochs
    of_each = f"{epochs} epoch{'s' if epochs > 1 else ''} each"
    _say(f"{len(plan.arms)} arms at {name_seeds(seeds)}: {len(jobs)} runs, {of_each}")
    train_all(jobs, out, read.jobs, read.config.parent)
    session = _open(plan, jobs, seeds, rest)
    results = _measure(session, plan, jobs, seeds, out, f"{read.config.stem}, {kind}")
    _write(results, out)


def _check_options(task: type[Any], rest: Sequence[str]) -> None:
    """Raise UserError for options of the evaluation that it does not know: before the hours of training."""
    from sharpstudent.evaluation.renderer import load_renderer

    load_renderer(task).parse(["MODEL", *rest], script=EVALUATE)


def _to_sets(overrides: Sequence[str]) -> list[str]:
    return [word for one in overrides for word in ("--set", one)]


def _say(line: str) -> None:
    print(printable(line), flush=True)


def _write_jobs(plan: Plan, keys: Mapping[str, Any], seeds: Sequence[int], out: Path, config: Path) -> list[ArmRun]:
    """Write the config of each arm and seed, and check all of them before the first run begins.

    The stage-1 checkpoint that a pattern names is chosen once and written down: a run that begins later must not find
    a newer one.
    """
    starts_file = out / "starts.json"
    starts: dict[str, str] = _read_own(starts_file, dict[str, str])
    jobs: list[ArmRun] = []
    for seed in seeds:
        for arm in plan.arms:
            merged = build_keys(keys, arm, seed, seeds[(seeds.index(seed) + 1) % len(seeds)])
            pattern = merged.get("pretrained_student_weights")
            if isinstance(pattern, str):
                known = starts.get(pattern)
                if known is None or not Path(known).is_file():
                    known = str(find_newest(pattern, f"{config}: pretrained_student_weights"))
                starts[pattern] = merged["pretrained_student_weights"] = known
            path = out / "arms" / f"seed_{seed}" / f"{arm.name}.json"
            make_folder(path.parent)
            write_text_atomically(path, json.dumps(merged, indent=2) + "\n")
            changes = (f"seed={seed}", f"output_root={out / 'runs'}", "report=false")
            words = (str(path), "-n", f"s{seed}", *_to_sets(changes))
            command = parse_command_line(words, stage=2, find_task=_find_beside(config))
            jobs.append(ArmRun(arm, seed, words, command.config, command.task))
    write_text_atomically(starts_file, json.dumps(starts, indent=2) + "\n")
    return jobs


def _read_own(path: Path, kind: Any) -> dict[str, Any]:
    """Read a JSON object of a type that an ablation has written; {} where there is none yet.

    Raises:
        UserError: For a file that is damaged.
    """
    from pydantic import TypeAdapter

    try:
        return TypeAdapter(kind).validate_python(read_json(path), strict=True)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError.about(
            str(path),
            "is not what an ablation wrote there",
            got=str(error).splitlines()[0],
            remedy=f"rm {shlex.quote(str(path))}, then repeat the command; runs that are finished are kept",
        ) from None


def _find_beside(config: Path) -> Any:
    """Make a `find_task` that looks beside CONFIG, too, as a class that lies there is named by its module."""

    def find(name: str, *, beside: Sequence[Path] = (), **others: Any) -> Any:
        return find_task(name, beside=[config.parent, *beside], **others)

    return find


def train_all(jobs: Sequence[ArmRun], out: Path, side_by_side: int, beside: Path) -> None:
    """Train the runs that are not finished, some of them side by side.

    Args:
        jobs: All runs.
        out: The folder of the ablation.
        side_by_side: How many at once; they share the processors.
        beside: The folder of CONFIG, where a task of the user's own may lie.

    Raises:
        UserError: For a run that fails; no further one is begun then, and those that run go on to their end.
        RunInterrupted: After Ctrl-C; the runs have saved their state.
    """
    threads = str(max(1, (os.cpu_count() or 1) // side_by_side))
    environment = {"OMP_NUM_THREADS": threads, **os.environ} if side_by_side > 1 else dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(beside), os.environ.get("PYTHONPATH")]))
    costs = _Costs(out / "costs.json")
    failed = threading.Event()

    def train(job: ArmRun) -> None:
        if failed.is_set():
            return
        if job.find_finished() is not None:
            return _say(f"{job.name}: is there already")
        try:
            _train(job, out / "logs" / f"{job.name}.txt", environment, costs)
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(side_by_side) as pool:
        futures = [pool.submit(train, job) for job in jobs]
        try:
            for future in futures:
                future.result()
        except KeyboardInterrupt:
            failed.set()
            pool.shutdown(cancel_futures=True)
            raise RunInterrupted("interrupted; the same command goes on from here", ExitCode.INTERRUPTED) from None


def _train(job: ArmRun, log: Path, environment: Mapping[str, str], costs: _Costs) -> None:
    make_folder(log.parent)
    script = Path(sys.argv[0]).resolve().parent / SCRIPT
    command = [sys.executable, str(script), *job.words, "--resume", "auto"]
    begun = time.monotonic()
    with disk_errors_as_user_errors(log), open(log, "ab") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = code = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - begun
    costs.add(job.name, cpu_s=usage.ru_utime + usage.ru_stime, wall_s=seconds)
    if code in STOPPED:
        raise KeyboardInterrupt
    if code != 0:
        tail = "\n".join(read_text(log, errors="replace").splitlines()[-12:])
        remedy = f"the whole of it is in {log}; the same command goes on when it is corrected"
        raise UserError(Problem(f"run {job.name}", f"ended with exit code {code}", got=tail, remedy=remedy))
    _say(f"{job.name}: trained in {seconds:.0f} s")


class _Costs:
    """Seconds of each run, summed over its sittings, in a file."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._found: dict[str, dict[str, float]] = _read_own(path, dict[str, dict[str, float]])

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


def _open(plan: Plan, jobs: Sequence[ArmRun], seeds: Sequence[int], rest: Sequence[str]) -> Session:
    """Open every trained model and the data, as evaluate_model.py does: arm by arm, seed by seed; then other models."""
    from sharpstudent.evaluation.opened import choose_device
    from sharpstudent.evaluation.renderer import Session, load_renderer
    from sharpstudent.report.console import build_console

    paths: dict[str, Path] = {}
    for arm in plan.arms:
        for job in (one for one in jobs if one.arm is arm):
            folder = job.find_finished() or find_own_run(job.config, job.task)[0]  # ended early by its patience
            assert folder is not None, f"{job.name} has just been trained"
            paths[job.name] = folder
    for name, (_, pattern) in plan.models.items():
        for seed in seeds:
            paths[f"s{seed}_{name}"] = find_newest(pattern.replace("{seed}", str(seed)), f"models.{name}.path")
    renderer = load_renderer(jobs[0].task)
    request = renderer.parse([*(f"{name}={path}" for name, path in paths.items()), *rest], script=EVALUATE)
    device = choose_device(request.device, remedy="--device auto")
    console = build_console()
    renderer.console = console
    models = tuple(renderer.open_model(wanted, device) for wanted in request.models)
    session = Session(request, device, models, console=console)
    renderer.check(session)
    return replace(session, sets=tuple(renderer.open_sets(session)))


def _measure(
    session: Session, plan: Plan, jobs: Sequence[ArmRun], seeds: Sequence[int], out: Path, title: str
) -> AblationResults:
    """Evaluate all models on the same samples, and compare each arm with the references."""
    from sharpstudent.evaluation.compare import compare_models, describe_intervals, list_parts, to_metric_value
    from sharpstudent.evaluation.evaluate import Heading, evaluate_models
    from sharpstudent.metrics.bootstrap import compute_interval
    from sharpstudent.report.ablation import AblationResults, ArmResult, write_verdict
    from sharpstudent.report.results import MetricAbout

    evaluation = evaluate_models(session, session.sets)
    sets: Any = session.sets
    task, rounds, count = jobs[0].task, session.request.rounds, len(seeds)
    titles = [(arm.name, arm.title, dict(arm.keys), True) for arm in plan.arms]
    titles += [(name, text, {}, False) for name, (text, _) in plan.models.items()]
    parts: dict[str, list[Mapping[str, Any]]] = {}
    found: dict[str, list[EvalResult]] = {}
    for number, (name, *_) in enumerate(titles):
        found[name] = list(evaluation.models[number * count : (number + 1) * count])
        parts[name] = [list_parts(one, sets) for one in found[name]]
    metric = jobs[0].config.training.selection_metric
    costs = _Costs(out / "costs.json")
    arms = tuple(
        ArmResult(
            name=name,
            title=text,
            is_arm=is_arm,
            keys=keys,
            runs=tuple(session.models[number * count + place].path.parent.parent.name for place in range(count)),
            by_seed=tuple(to_metric_value(_compute(task.metrics[metric], one[""])).value for one in parts[name]),
            metrics={
                f"{key}{part}": to_metric_value(
                    compute_interval(one, [of[part] for of in parts[name]], rounds=rounds, group_unit=task.group_unit)
                )
                for part in parts[name][0]
                for key, one in task.metrics.items()
            },
            cost=_find_cost(costs, name, plan.references[0], seeds),
        )
        for number, (name, text, keys, is_arm) in enumerate(titles)
    )
    comparisons = tuple(
        pair
        for reference in plan.references
        for name, *_ in titles
        if name != reference
        for pair in compare_models(task, (name, parts[name]), (reference, parts[reference]), rounds=rounds)
    )
    heading, groups = Heading(f"Ablation of {title}"), plural(task.group_unit)
    notes = tuple(note for one in session.sets for note in getattr(one, "notes", ()))
    results = AblationResults(
        schema="sharpstudent/ablation/1",
        title=heading.title,
        made_at=heading.made_at,
        command=heading.command,
        task=jobs[0].config.task,
        group_unit=task.group_unit,
        metric=metric,
        metrics={
            name: MetricAbout(title=task.title(name), direction=one.direction, chance=one.chance, format=one.format)
            for name, one in task.metrics.items()
        },
        seeds=tuple(seeds),
        epochs=jobs[0].config.training.epochs,
        data={one.name: tuple(getattr(one, "notes", ())) for one in session.sets},
        protocol={
            "steps": _describe_steps(
                {
                    arm.name: [session.models[number * count + place].path.parent.parent for place in range(count)]
                    for number, arm in enumerate(plan.arms)
                }
            ),
            "intervals": describe_intervals(f"{groups} and seeds", groups, rounds),
            "cost": f"seconds of processors a run, over those of “{_find_title(titles, plan.references[0])}”",
        },
        references=plan.references,
        arms=arms,
        comparisons=comparisons,
        notes=notes,
        environment=heading.environment,
    )
    return results.model_copy(update={"verdict": write_verdict(results)})


def _describe_steps(folders: Mapping[str, Sequence[Path]]) -> str:
    """Say how many steps the runs of each arm took, from their logs/metrics.csv."""
    from sharpstudent.report.logs import MetricsFile

    def count(run: Path) -> int:
        return sum(int(row["steps"] or 0) for row in MetricsFile(run / "logs/metrics.csv").read())

    taken = {name: sorted({count(run) for run in runs}) for name, runs in folders.items()}
    each = {name: " or ".join(f"{count:,}" for count in counts) for name, counts in taken.items()}
    if len(set(each.values())) == 1 and " or " not in (same := next(iter(each.values()))):
        return f"every arm takes {same} steps from the same stage-1 checkpoint"
    listed = ", ".join(f"{name} {counts}" for name, counts in each.items())
    return f"from the same stage-1 checkpoint the arms take unlike numbers of steps, so keys and steps differ: {listed}"


def _compute(metric: Any, table: Any) -> Any:
    from sharpstudent.metrics.intervals import Estimate

    return Estimate(metric.value(table), None, None)


def _find_title(titles: Sequence[tuple[Any, ...]], name: str) -> str:
    return next(text for one, text, *_ in titles if one == name)


def _find_cost(costs: _Costs, name: str, reference: str, seeds: Sequence[int]) -> ArmCost:
    from sharpstudent.report.ablation import ArmCost

    def mean(of: str, key: str) -> float | None:
        return costs.mean([f"s{seed}_{of}" for seed in seeds], key)

    own, other = mean(name, "cpu_s"), mean(reference, "cpu_s")
    relative = own / other if own is not None and other else None
    return ArmCost(cpu_s=own, wall_s=mean(name, "wall_s"), relative=relative)


def _write(results: AblationResults, out: Path) -> None:
    """Write ablation.json, ablation.md and ablation.png, and print the table and the verdict."""
    from sharpstudent.report.ablation import build_chart, build_columns, render_markdown
    from sharpstudent.report.chart import render_csv, render_png
    from sharpstudent.report.console import build_console, print_line
    from sharpstudent.report.text_table import draw_console_table, to_markdown

    columns, words = build_columns(results, in_full=True), ["Arm", "What it is"]
    chart = build_chart(results)
    write_text_atomically(out / "ablation.json", results.to_json())
    write_text_atomically(out / "ablation.md", render_markdown(results, to_markdown(columns, words=words)))
    write_bytes_atomically(out / "ablation.png", render_png(chart))
    write_text_atomically(out / "ablation.csv", render_csv(chart))
    console = build_console()
    console.print(draw_console_table(build_columns(results, in_full=False), words=words))
    for line in results.verdict:
        print_line(console, line)
    print_line(console, f"written: {out / 'ablation.json'}, ablation.md, ablation.png, ablation.csv")
