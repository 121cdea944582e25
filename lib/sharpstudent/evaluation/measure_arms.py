"""Evaluates the trained arms of an ablation on the same samples, compares them, and writes what was found.

Importing this loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpstudent.core.errors import plural
from sharpstudent.core.io import write_bytes_atomically, write_text_atomically
from sharpstudent.evaluation.arms import Fold, Plan
from sharpstudent.evaluation.command_line import EVALUATE
from sharpstudent.evaluation.planned_runs import Costs, PlannedRun, find_newest, read_epochs

if TYPE_CHECKING:
    from sharpstudent.evaluation.evaluate import EvalResult
    from sharpstudent.evaluation.renderer import Session
    from sharpstudent.report.ablation import AblationResults, ArmCost, ArmResult

Runs = Mapping[tuple[str, str, int], PlannedRun]  # by the names of fold and arm, and the seed
Parts = Mapping[str, Any]  # tables, as `list_parts` gives them


@dataclass(frozen=True)
class _Row:
    """What has a row in the table: an arm, a run that the arms begin with, or a model beside them."""

    name: str
    title: str
    keys: Mapping[str, Any]
    is_arm: bool


@dataclass(frozen=True)
class Measuring:
    """Measures the trained runs of a plan.

    Attributes:
        plan: The plan.
        runs: The trained runs of arms, and those that they begin with.
        costs: What the runs cost.
    """

    plan: Plan
    runs: Runs
    costs: Costs

    @property
    def rows(self) -> list[_Row]:
        """What is compared, arms first."""
        plan = self.plan
        rows = [_Row(arm.name, arm.title, dict(arm.keys), True) for arm in plan.arms]
        rows += [_Row(one.name, one.title, dict(one.keys), False) for one in plan.first]
        return rows + [_Row(name, title, {}, False) for name, (title, _) in plan.models.items()]

    def measure(self, folds: Sequence[Fold], seeds: Sequence[int], title: str) -> AblationResults:
        """Evaluate all models of some folds, each on the data of its fold, and compare each arm with the references.

        Args:
            folds: The folds. Their tables are put together: each row comes from a model that did not train on it.
            seeds: Seeds that each of the folds has.
            title: The title.

        Returns:
            The results.
        """
        from sharpstudent.evaluation.compare import list_parts
        from sharpstudent.evaluation.evaluate import evaluate_models

        sessions = [self._open(fold, seeds) for fold in folds]
        tables: dict[str, list[list[Parts]]] = {row.name: [] for row in self.rows}  # by row, fold and seed
        for session in sessions:
            found: Sequence[EvalResult] = evaluate_models(session, session.sets).models
            sets: Any = session.sets
            for number, row in enumerate(self.rows):
                of_row = found[number * len(seeds) : (number + 1) * len(seeds)]
                tables[row.name].append([list_parts(one, sets) for one in of_row])
        return _compare(self, folds, seeds, sessions, tables, title)

    def _open(self, fold: Fold, seeds: Sequence[int]) -> Session:
        """Open every model and the data of a fold, as evaluate_model.py does: row by row, seed by seed."""
        from sharpstudent.evaluation.opened import choose_device
        from sharpstudent.evaluation.renderer import Session, load_renderer
        from sharpstudent.report.console import build_console

        paths: dict[str, Path] = {}
        for row in self.rows:
            for seed in seeds:
                paths[fold.name_run(seed, row.name)] = self._find_path(fold, row.name, seed)
        first = next(iter(self.runs.values()))
        renderer = load_renderer(first.task)
        words = [*(f"{name}={path}" for name, path in paths.items()), *self.plan.options]
        request = renderer.parse(words, script=EVALUATE)
        device = choose_device(request.device, remedy="--device auto")
        console = build_console()
        renderer.console = console
        models = tuple(renderer.open_model(wanted, device) for wanted in request.models)
        session = Session(request, device, models, console=console)
        renderer.check(session)
        return replace(session, sets=tuple(renderer.open_sets(session)))

    def _find_path(self, fold: Fold, name: str, seed: int) -> Path:
        run = self.runs.get((fold.name, name, seed))
        if run is None:
            return find_newest(self.plan.models[name][1].replace("{seed}", str(seed)), f"models.{name}.path")
        folder = run.find_finished() or run.find_folder()  # ended early by its patience
        assert folder is not None, f"{run.name} has just been trained"
        return folder


def _compare(
    measuring: Measuring,
    folds: Sequence[Fold],
    seeds: Sequence[int],
    sessions: Sequence[Session],
    tables: Mapping[str, Sequence[Sequence[Parts]]],
    title: str,
) -> AblationResults:
    from sharpstudent.evaluation.compare import compare_models, describe_intervals
    from sharpstudent.evaluation.evaluate import Heading
    from sharpstudent.report.ablation import AblationResults, write_verdict
    from sharpstudent.report.results import MetricAbout

    plan, rows = measuring.plan, measuring.rows
    first = next(iter(measuring.runs.values()))
    task, rounds = first.task, sessions[0].request.rounds
    pooled = {name: _join_folds(found) for name, found in tables.items()}
    folders = {
        row.name: [
            session.models[number * len(seeds) + place].path.parent.parent
            for session in sessions
            for place in range(len(seeds))
        ]
        for number, row in enumerate(rows)
    }
    heading, groups = Heading(f"Ablation of {title}"), plural(task.group_unit)
    sets = {
        (fold.name, one.name): tuple(getattr(one, "notes", ()))
        for fold, session in zip(folds, sessions, strict=True)
        for one in session.sets
    }
    arms = tuple(
        _describe_row(measuring, row, folds, seeds, tables[row.name], rounds).model_copy(
            update={"runs": tuple(folder.name for folder in folders[row.name])}
        )
        for row in rows
    )
    results = AblationResults(
        schema="sharpstudent/ablation/1",
        title=heading.title,
        made_at=heading.made_at,
        command=heading.command,
        task=first.config.task,
        group_unit=task.group_unit,
        metric=first.config.training.selection_metric,
        metrics={
            name: MetricAbout(title=task.title(name), direction=one.direction, chance=one.chance, format=one.format)
            for name, one in task.metrics.items()
        },
        seeds=tuple(seeds),
        epochs=first.config.training.epochs,
        data={" ".join(filter(None, key)): notes for key, notes in sets.items()},
        protocol={
            **_describe_folds(folds),
            "equal": f"as much of each arm: {plan.equal}" + (", in whole epochs" if plan.equal == "time" else ""),
            "steps": _describe_steps({arm.name: folders[arm.name] for arm in plan.arms}),
            "intervals": describe_intervals(f"{groups} and seeds", groups, rounds),
            "cost": f"seconds of processors a run, over those of “{_find_title(rows, plan.references[0])}”; what "
            "the teacher took counts for each, although it answers a batch that several arms see once",
        },
        references=plan.references,
        arms=arms,
        comparisons=tuple(
            pair
            for reference in plan.references
            for row in rows
            if row.name != reference
            for pair in compare_models(
                task, (row.name, pooled[row.name]), (reference, pooled[reference]), rounds=rounds
            )
        ),
        notes=tuple(dict.fromkeys(note for notes in sets.values() for note in notes)),
        environment=heading.environment,
    )
    return results.model_copy(update={"verdict": write_verdict(results)})


def _join_folds(found: Sequence[Sequence[Parts]]) -> list[Parts]:
    """Put the tables of all folds together: for each seed, one below the other."""
    from sharpstudent.evaluation.tables import join_parts

    if len(found) == 1:
        return list(found[0])
    return [
        {part: join_parts([of[part] for of in of_seed]) for part in of_seed[0]} for of_seed in zip(*found, strict=True)
    ]


def _describe_row(
    measuring: Measuring,
    row: _Row,
    folds: Sequence[Fold],
    seeds: Sequence[int],
    found: Sequence[Sequence[Parts]],
    rounds: int,
) -> ArmResult:
    from sharpstudent.evaluation.compare import to_metric_value
    from sharpstudent.metrics.bootstrap import compute_interval
    from sharpstudent.metrics.intervals import Estimate
    from sharpstudent.report.ablation import ArmResult

    first = next(iter(measuring.runs.values()))
    task, primary, pooled = first.task, first.config.training.selection_metric, _join_folds(found)

    def compute(one: Parts) -> float | None:
        return to_metric_value(Estimate(task.metrics[primary].value(one[""]), None, None)).value

    by_fold = {fold.name: tuple(map(compute, of)) for fold, of in zip(folds, found, strict=True)}

    return ArmResult(
        name=row.name,
        title=row.title,
        is_arm=row.is_arm,
        keys=row.keys,
        runs=(),
        by_seed=tuple(compute(one) for one in pooled),
        by_fold=by_fold if len(folds) > 1 else {},
        metrics={
            f"{key}{part}": to_metric_value(
                compute_interval(one, [of[part] for of in pooled], rounds=rounds, group_unit=task.group_unit)
            )
            for part in pooled[0]
            for key, one in task.metrics.items()
        },
        cost=_find_cost(measuring, row.name, folds, seeds),
    )


def _describe_folds(folds: Sequence[Fold]) -> dict[str, str]:
    """Say that each fold was trained for itself; {} for one fold."""
    if len(folds) == 1:
        return {}
    names = ", ".join(fold.name for fold in folds)
    return {
        "folds": f"{len(folds)} folds ({names}): in each, everything is trained anew, stage 1 included, and evaluated "
        "on what the fold holds out; the table is over the rows of all of them"
    }


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


def _find_title(rows: Sequence[_Row], name: str) -> str:
    return next(row.title for row in rows if row.name == name)


def _find_cost(measuring: Measuring, name: str, folds: Sequence[Fold], seeds: Sequence[int]) -> ArmCost:
    from sharpstudent.report.ablation import ArmCost

    def mean(of: str, key: str) -> float | None:
        runs = [measuring.runs.get((fold.name, of, seed)) for fold in folds for seed in seeds]
        return measuring.costs.mean(list(dict.fromkeys(run.name if run else "" for run in runs)), key)

    own, other = mean(name, "cpu_s"), mean(measuring.plan.references[0], "cpu_s")
    relative = own / other if own is not None and other else None
    return ArmCost(cpu_s=own, wall_s=mean(name, "wall_s"), relative=relative)


def write_ablation(results: AblationResults, out: Path) -> None:
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
