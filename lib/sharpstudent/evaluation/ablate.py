"""`compare_models.py ablate CONFIG`: trains the arms of an ablation from one student, and compares them.

Every arm and seed is a run of main_distillation.py of its own (planned_runs.py), `--jobs` of them side by side. They
start from the same stage-1 checkpoint and take equally many steps, or equal time. Then all are evaluated on the same
samples.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpstudent.config.cli import parse_command_line
from sharpstudent.config.load import apply_overrides, read_config_file
from sharpstudent.config.run_config import RunConfig
from sharpstudent.core.arguments import EXIT_CODES, Parser, read_number, read_path
from sharpstudent.core.errors import UserError, plural
from sharpstudent.core.io import check_writable, write_bytes_atomically, write_text_atomically
from sharpstudent.evaluation.arms import PRESETS, Arm, Plan, build_keys, find_newest, name_seeds, read_plan
from sharpstudent.evaluation.command_line import COMPARE, EVALUATE
from sharpstudent.evaluation.planned_runs import Costs, PlannedRun, Planner, read_epochs, read_own, say, to_sets
from sharpstudent.registry import find_task

if TYPE_CHECKING:
    from sharpstudent.evaluation.evaluate import EvalResult
    from sharpstudent.evaluation.renderer import Session
    from sharpstudent.report.ablation import AblationResults, ArmCost

Runs = Mapping[tuple[str, int], PlannedRun]  # by the name of the arm, and the seed

PURPOSE = """What is it worth? Trains variants of stage 2 (arms) from the same stage-1 student, for equally many steps,
at several seeds, and compares them on the same samples: one table with paired intervals, a picture, a verdict."""
MORE = f"""presets:
  kd-or-not   CONFIG as it is, and alone: what the teacher is worth (the default)
  terms       CONFIG with one term more, and with another term in place of kd
  sam         CONFIG with SAM, without, and with each of its cheaper variants

Every ablation has the arm "alone for as many further steps". The same command goes on where it was stopped. Other
options are those of {EVALUATE}, such as --data SET; without it, the validation data of the runs is taken.

{EXIT_CODES}"""


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
    text = "what every arm takes as much of (default: steps). time: of the processors, by whole epochs"
    group.add_argument("--equal", choices=("steps", "time"), help=text)
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
    words = [str(read.config), "-n", "ablation", *to_sets(read.overrides)]
    command = parse_command_line(words, stage=2, find_task=find_task)
    settings = (command.config, command.task)
    plan = PRESETS[preset](*settings) if arms_file is None else read_plan(arms_file, *settings)
    plan = replace(plan, equal=read.equal or plan.equal)
    _check_options(command.task, rest)
    seeds = tuple(range(1, read.seeds + 1))
    # Arms of one seed see the same batches, so that the teacher need not answer each of them anew.
    planner = Planner(out, read.config.parent, side_by_side=read.jobs, answers=out / "teacher_answers.sqlite")
    epochs = command.config.training.epochs
    if plan.equal == "time":
        plan = match_times(plan, keys, seeds, planner, epochs)
    runs = plan_runs(plan, keys, seeds, planner)
    of_each = f"{epochs} epoch{'s' if epochs > 1 else ''} each" if plan.equal == "steps" else "equal time"
    say(f"{len(plan.arms)} arms at {name_seeds(seeds)}: {len(runs)} runs, {of_each}")
    planner.train_all(list(runs.values()))
    session = _open(plan, runs, seeds, rest)
    results = _measure(session, plan, runs, seeds, planner.costs, f"{read.config.stem}, {kind}")
    _write(results, out)


def _check_options(task: type[Any], rest: Sequence[str]) -> None:
    """Raise UserError for options of the evaluation that it does not know: before the hours of training."""
    from sharpstudent.evaluation.renderer import load_renderer

    load_renderer(task).parse(["MODEL", *rest], script=EVALUATE)


def plan_runs(plan: Plan, keys: Mapping[str, Any], seeds: Sequence[int], planner: Planner) -> Runs:
    """Write the config of each arm and seed, and check all of them before the first run begins."""
    return {
        (arm.name, seed): _plan_run(arm, keys, seeds, seed, planner, f"s{seed}", ())
        for seed in seeds
        for arm in plan.arms
    }


def _plan_run(
    arm: Arm,
    keys: Mapping[str, Any],
    seeds: Sequence[int],
    seed: int,
    planner: Planner,
    run: str,
    changes: Sequence[str],
) -> PlannedRun:
    merged = build_keys(keys, arm, seed, seeds[(seeds.index(seed) + 1) % len(seeds)])
    file = f"arms/seed_{seed}/{arm.name}.json"
    return planner.plan(f"{run}_{arm.name}", merged, file, run, (f"seed={seed}", *changes))


def match_times(plan: Plan, keys: Mapping[str, Any], seeds: Sequence[int], planner: Planner, epochs: int) -> Plan:
    """Give each arm as many epochs as take the time of the first reference.

    Start-up and validation included, an arm's epoch is measured by a run of one epoch at the first seed. What a run
    takes besides is the difference of the reference's two runs. The epochs are chosen once, and kept in `epochs.json`.

    Args:
        plan: The plan.
        keys: The keys of CONFIG.
        seeds: The seeds.
        planner: Plans and trains the runs.
        epochs: Epochs of the reference.

    Returns:
        The plan, in which the arms have a key `epoch`.

    Raises:
        UserError: Where an arm has epochs of its own, and for a reference of one epoch.
    """
    own = [arm.name for arm in plan.arms if "epoch" in arm.keys]
    if own or epochs < 2:
        what = (
            f"sets the epochs, and the arm {own[0]} does, too"
            if own
            else "is matched by whole epochs, and CONFIG has 1"
        )
        remedy = "leave one of the two out" if own else "--set epoch=5 or more"
        raise UserError.about("--equal time", what, remedy=remedy)
    first, reference = seeds[0], plan.references[0]
    path, names = planner.out / "epochs.json", [arm.name for arm in plan.arms]
    chosen: dict[str, int] = read_own(path, dict[str, int])
    if set(names) - set(chosen):
        probes = [_plan_run(arm, keys, seeds, first, planner, "probe", ("stage2.epoch=1",)) for arm in plan.arms]
        arm = next(arm for arm in plan.arms if arm.name == reference)
        whole = _plan_run(arm, keys, seeds, first, planner, f"s{first}", ())
        say(f"--equal time: {len(probes)} runs of one epoch, and {whole.name}, show what an epoch of each arm takes")
        planner.train_all([*probes, whole])
        clock = _name_clock(whole.config)
        seconds = {name: planner.costs.mean([f"probe_{name}"], clock) for name in names}
        total = planner.costs.mean([whole.name], clock)
        chosen = choose_epochs(seconds, reference, total, epochs)
        write_text_atomically(path, json.dumps(chosen, indent=2) + "\n")
    say("--equal time: epochs " + ", ".join(f"{name} {chosen[name]}" for name in names))
    arms = tuple(replace(arm, keys={**arm.keys, "epoch": chosen[arm.name]}) for arm in plan.arms)
    return replace(plan, arms=arms)


def _name_clock(config: RunConfig) -> str:
    """Name the cost that counts: processor time, but the clock's where no processor does the work."""
    from sharpstudent.evaluation.opened import choose_device

    return "cpu_s" if choose_device(config.device, remedy="--set device=auto").type == "cpu" else "wall_s"


def choose_epochs(
    seconds: Mapping[str, float | None], reference: str, total: float | None, epochs: int
) -> dict[str, int]:
    """Choose the epochs of each arm.

    With S seconds of start-up and c of an epoch, the reference's runs take S + c and S + epochs c, and an arm's S + a.
    It gets epochs c / a, rounded, at least 1.

    Args:
        seconds: Seconds of a run of one epoch, by arm.
        reference: The arm whose time is matched.
        total: Seconds of its whole run.
        epochs: Epochs of its whole run.

    Returns:
        Epochs by arm.
    """
    one = seconds[reference]
    if total is None or one is None or total <= one:
        return dict.fromkeys(seconds, epochs)
    epoch = (total - one) / (epochs - 1)
    start = max(0.0, one - epoch)
    return {
        name: epochs if took is None or took <= start else max(1, round(epochs * epoch / (took - start)))
        for name, took in seconds.items()
    }


def _open(plan: Plan, runs: Runs, seeds: Sequence[int], rest: Sequence[str]) -> Session:
    """Open every trained model and the data, as evaluate_model.py does: arm by arm, seed by seed; then other models."""
    from sharpstudent.evaluation.opened import choose_device
    from sharpstudent.evaluation.renderer import Session, load_renderer
    from sharpstudent.report.console import build_console

    paths: dict[str, Path] = {}
    for arm in plan.arms:
        for seed in seeds:
            run = runs[arm.name, seed]
            folder = run.find_finished() or run.find_folder()  # ended early by its patience
            assert folder is not None, f"{run.name} has just been trained"
            paths[run.name] = folder
    for name, (_, pattern) in plan.models.items():
        for seed in seeds:
            paths[f"s{seed}_{name}"] = find_newest(pattern.replace("{seed}", str(seed)), f"models.{name}.path")
    renderer = load_renderer(next(iter(runs.values())).task)
    request = renderer.parse([*(f"{name}={path}" for name, path in paths.items()), *rest], script=EVALUATE)
    device = choose_device(request.device, remedy="--device auto")
    console = build_console()
    renderer.console = console
    models = tuple(renderer.open_model(wanted, device) for wanted in request.models)
    session = Session(request, device, models, console=console)
    renderer.check(session)
    return replace(session, sets=tuple(renderer.open_sets(session)))


def _measure(
    session: Session, plan: Plan, runs: Runs, seeds: Sequence[int], costs: Costs, title: str
) -> AblationResults:
    """Evaluate all models on the same samples, and compare each arm with the references."""
    from sharpstudent.evaluation.compare import compare_models, describe_intervals, list_parts, to_metric_value
    from sharpstudent.evaluation.evaluate import Heading, evaluate_models
    from sharpstudent.metrics.bootstrap import compute_interval
    from sharpstudent.report.ablation import AblationResults, ArmResult, write_verdict
    from sharpstudent.report.results import MetricAbout

    evaluation = evaluate_models(session, session.sets)
    sets: Any = session.sets
    first = next(iter(runs.values()))
    task, rounds, count = first.task, session.request.rounds, len(seeds)
    titles = [(arm.name, arm.title, dict(arm.keys), True) for arm in plan.arms]
    titles += [(name, text, {}, False) for name, (text, _) in plan.models.items()]
    parts: dict[str, list[Mapping[str, Any]]] = {}
    found: dict[str, list[EvalResult]] = {}
    for number, (name, *_) in enumerate(titles):
        found[name] = list(evaluation.models[number * count : (number + 1) * count])
        parts[name] = [list_parts(one, sets) for one in found[name]]
    metric = first.config.training.selection_metric
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
        task=first.config.task,
        group_unit=task.group_unit,
        metric=metric,
        metrics={
            name: MetricAbout(title=task.title(name), direction=one.direction, chance=one.chance, format=one.format)
            for name, one in task.metrics.items()
        },
        seeds=tuple(seeds),
        epochs=first.config.training.epochs,
        data={one.name: tuple(getattr(one, "notes", ())) for one in session.sets},
        protocol={
            "equal": f"as much of each arm: {plan.equal}" + (", in whole epochs" if plan.equal == "time" else ""),
            "steps": _describe_steps(
                {
                    arm.name: [session.models[number * count + place].path.parent.parent for place in range(count)]
                    for number, arm in enumerate(plan.arms)
                }
            ),
            "intervals": describe_intervals(f"{groups} and seeds", groups, rounds),
            "cost": f"seconds of processors a run, over those of “{_find_title(titles, plan.references[0])}”; what "
            "the teacher took counts for each, although it answers a batch that several arms see once",
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

    def count(run: Path) -> int:
        return sum(int(row["steps"] or 0) for row in read_epochs(run))

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


def _find_cost(costs: Costs, name: str, reference: str, seeds: Sequence[int]) -> ArmCost:
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
