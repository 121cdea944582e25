"""`compare_models.py ablate CONFIG`: trains the arms of an ablation from one student, and compares them.

Every arm and seed is a run of main_distillation.py of its own (planned_runs.py), `--jobs` of them side by side. They
start from the same stage-1 checkpoint and take equally many steps, or equal time. Then all are evaluated on the same
samples (measure_arms.py). With folds all of it is repeated for each, runs of stage 1 included.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sharpstudent.config.cli import parse_command_line
from sharpstudent.config.load import apply_overrides, read_config_file
from sharpstudent.config.run_config import RunConfig
from sharpstudent.core.archive import BEST
from sharpstudent.core.arguments import EXIT_CODES, Parser, read_number, read_path
from sharpstudent.core.errors import UserError
from sharpstudent.core.io import check_writable, write_text_atomically
from sharpstudent.evaluation.arms import PRESETS, Arm, Fold, Plan, build_keys, find_config, name_seeds, read_plan
from sharpstudent.evaluation.command_line import COMPARE, EVALUATE
from sharpstudent.evaluation.measure_arms import Measuring, Runs, write_ablation
from sharpstudent.evaluation.planned_runs import PlannedRun, Planner, read_own, say, to_sets
from sharpstudent.registry import find_task

SEEDS = 3  # of each arm
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
    read, rest = _build_parser().parse_known_args(list(argv))
    path, named = find_config(read.config)
    arms_file: Path | None = named or read.arms
    _check_arguments(read, named)
    preset = read.preset or "kd-or-not"
    kind = preset if arms_file is None else arms_file.stem
    title = kind if named is not None else f"{path.stem}, {kind}"
    out: Path = read.out or Path("output") / f"ablation_{title.replace(', ', '_')}"
    check_writable(out, f"--out {out}")
    keys = apply_overrides(read_config_file(path), read.overrides)
    words = [str(path), "-n", "ablation", *to_sets(read.overrides)]
    command = parse_command_line(words, stage=2, find_task=find_task)
    settings = (command.config, command.task)
    plan = PRESETS[preset](*settings) if arms_file is None else read_plan(arms_file, *settings)
    plan = replace(plan, equal=read.equal or plan.equal, options=(*plan.options, *rest))
    _check_options(command.task, plan.options)
    if plan.folds and read.seeds is not None:
        what, remedy = f"cannot be given: the folds of {arms_file} have numbers of seeds", "change `seeds` there"
        raise UserError.about("--seeds", what, remedy=remedy)
    folds = plan.folds or (Fold("", tuple(range(1, (read.seeds or SEEDS) + 1))),)
    # Arms of one seed see the same batches, so that the teacher need not answer each of them anew.
    planner = Planner(out, path.parent, side_by_side=read.jobs, answers=out / "teacher_answers.sqlite")
    begun = train_first(plan, keys, folds, planner)
    if plan.equal == "time":
        plan = match_times(plan, keys, folds[0], planner, command.config.training.epochs, begun)
    runs = {**train_arms(plan, keys, folds, planner, begun), **begun}
    measuring = Measuring(plan, runs, planner.costs)
    shared = tuple(seed for seed in folds[0].seeds if all(seed in fold.seeds for fold in folds))
    write_ablation(measuring.measure(folds, shared, title), out)
    for fold in folds:
        if fold.seeds != shared:
            write_ablation(measuring.measure([fold], fold.seeds, f"{title}, fold {fold.name}"), out / fold.name)


def _build_parser() -> Parser:
    parser = Parser(f"{COMPARE} ablate", PURPOSE, usage=f"python {COMPARE} ablate CONFIG [options]", more=MORE)
    text = "the config of stage 2, or arms that name theirs"
    parser.add_argument("config", metavar="CONFIG", type=read_path, help=text)
    group = parser.add_argument_group("arms")
    group.add_argument("--preset", choices=tuple(PRESETS), help="which arms (default: kd-or-not)")
    group.add_argument("--arms", metavar="FILE", type=read_path, help="arms of your own, as JSON (docs/ablations.md)")
    number = read_number(int, 1, 100)
    group.add_argument("--seeds", metavar="N", type=number, help=f"seeds of each arm (default: {SEEDS})")
    text = "what every arm takes as much of (default: steps). time: of the processors, by whole epochs"
    group.add_argument("--equal", choices=("steps", "time"), help=text)
    group.add_argument(
        "--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[], help="change a key of every arm"
    )
    group = parser.add_argument_group("running")
    group.add_argument("--jobs", metavar="N", type=number, default=1, help="runs side by side (%(default)s)")
    group.add_argument("--out", metavar="FOLDER", type=read_path, help="default: output/ablation_CONFIG_PRESET")
    return parser


def _check_arguments(read: Any, named: Path | None) -> None:
    """Raise UserError for arms that are named twice."""
    if read.arms is not None and read.preset is not None:
        what = "cannot be given together with --preset"
        raise UserError.about("--arms", what, remedy="leave one of the two out")
    if named is not None and (read.arms is not None or read.preset is not None):
        what, remedy = "lists arms itself, and another option names some", "leave that option out"
        raise UserError.about(str(named), what, remedy=remedy)


def _check_options(task: type[Any], rest: Sequence[str]) -> None:
    """Raise UserError for options of the evaluation that it does not know: before the hours of training."""
    from sharpstudent.evaluation.renderer import load_renderer

    load_renderer(task).parse(["MODEL", *rest], script=EVALUATE)


def train_first(plan: Plan, keys: Mapping[str, Any], folds: Sequence[Fold], planner: Planner) -> Runs:
    """Train the runs of stage 1 that the arms begin with.

    Args:
        plan: The plan.
        keys: The keys of CONFIG.
        folds: The folds.
        planner: Plans and trains the arms.

    Returns:
        The runs; one that serves several seeds is there for each of them.
    """
    own = Planner(planner.out, planner.beside, stage=1, side_by_side=planner.side_by_side)
    runs: dict[tuple[str, str, int], PlannedRun] = {}
    for fold in folds:
        of_fold = _change(keys, fold.keys)
        for one in plan.first:
            for seed in fold.seeds:
                key, first = (fold.name, one.name, seed), (fold.name, one.name, fold.seeds[0])
                if one.once and first in runs:
                    runs[key] = runs[first]
                    continue
                name, file = fold.name_run(seed, one.name), _name_file("first", fold, seed, one.name)
                runs[key] = own.plan(
                    name, _change(of_fold, one.keys), file, name.removesuffix(f"_{one.name}"), (f"seed={seed}",)
                )
    own.train_all(list({run.name: run for run in runs.values()}.values()))
    planner.costs = own.costs
    return runs


def _name_file(folder: str, fold: Fold, seed: int, name: str) -> str:
    return "/".join(filter(None, [folder, fold.name, f"seed_{seed}", f"{name}.json"]))


def _change(keys: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return apply_overrides(dict(keys), [f"{key}={json.dumps(value)}" for key, value in changes.items()])


def plan_runs(
    plan: Plan, keys: Mapping[str, Any], folds: Sequence[Fold], planner: Planner, begun: Runs | None = None
) -> Runs:
    """Write the config of each arm, fold and seed, and check all of them before the first run begins.

    Args:
        plan: The plan.
        keys: The keys of CONFIG.
        folds: The folds.
        planner: Plans the runs.
        begun: The runs of stage 1 that the arms begin with; None for none.

    Returns:
        The runs.
    """
    return {
        (fold.name, arm.name, seed): _plan_run(
            arm, _change(keys, fold.keys), fold, seed, planner, checkpoints=_find_checkpoints(begun or {}, fold, seed)
        )
        for fold in folds
        for seed in fold.seeds
        for arm in plan.arms
    }


def train_arms(plan: Plan, keys: Mapping[str, Any], folds: Sequence[Fold], planner: Planner, begun: Runs) -> Runs:
    """Train the arms; the arguments are those of `plan_runs`."""
    runs = plan_runs(plan, keys, folds, planner, begun)
    epochs = next(iter(runs.values())).config.training.epochs
    of_each = f"{epochs} epoch{'s' if epochs > 1 else ''} each" if plan.equal == "steps" else "equal time"
    seeds = [f"{fold.name}: " * bool(fold.name) + name_seeds(fold.seeds) for fold in folds]
    say(f"{len(plan.arms)} arms at {'; '.join(seeds)}: {len(runs)} runs, {of_each}")
    planner.train_all(list(runs.values()))
    return runs


def _find_checkpoints(begun: Runs, fold: Fold, seed: int) -> dict[str, str]:
    found = {name: run.find_folder() for (of, name, at), run in begun.items() if (of, at) == (fold.name, seed)}
    return {name: str(folder / BEST) for name, folder in found.items() if folder is not None}


def _plan_run(
    arm: Arm,
    keys: Mapping[str, Any],
    fold: Fold,
    seed: int,
    planner: Planner,
    *,
    probe: bool = False,
    checkpoints: Mapping[str, str] | None = None,
) -> PlannedRun:
    seeds = fold.seeds
    merged = build_keys(keys, arm, seed, seeds[(seeds.index(seed) + 1) % len(seeds)], checkpoints)
    file = _name_file("arms", fold, seed, arm.name)
    name = f"probe_{arm.name}" if probe else fold.name_run(seed, arm.name)
    changes = (f"seed={seed}", *(("stage2.epoch=1",) if probe else ()))
    run = name.removesuffix(f"_{arm.name}")
    return planner.plan(name, merged, file, run, changes)


def match_times(
    plan: Plan, keys: Mapping[str, Any], fold: Fold, planner: Planner, epochs: int, begun: Runs | None = None
) -> Plan:
    """Give each arm as many epochs as take the time of the first reference.

    Start-up and validation included, an arm's epoch is measured by a run of one epoch at the first seed. What a run
    takes besides is the difference of the reference's two runs. The epochs are chosen once, and kept in `epochs.json`.

    Args:
        plan: The plan.
        keys: The keys of CONFIG.
        fold: The fold, at whose first seed the arms are measured.
        planner: Plans and trains the runs.
        epochs: Epochs of the reference.
        begun: The runs of stage 1 that the arms begin with; None for none.

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
    first, reference = fold.seeds[0], plan.references[0]
    path, names = planner.out / "epochs.json", [arm.name for arm in plan.arms]
    chosen: dict[str, int] = read_own(path, dict[str, int])
    if set(names) - set(chosen):
        of_fold, found = _change(keys, fold.keys), _find_checkpoints(begun or {}, fold, first)

        def plan_run(arm: Arm, *, probe: bool) -> PlannedRun:
            return _plan_run(arm, of_fold, fold, first, planner, probe=probe, checkpoints=found)

        probes = [plan_run(arm, probe=True) for arm in plan.arms]
        whole = plan_run(next(arm for arm in plan.arms if arm.name == reference), probe=False)
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
