"""`compare_models.py check RUN`: rules that read a run's files and say what is likely wrong, why, and what to do.

A rule is a function of a `RunRecord` that yields an `Advice` for each thing it finds. A healthy run gets none. A task
adds rules of its own in `Task.advise`.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sharpstudent.config.run_config import RunConfig
from sharpstudent.config.stored import STATE_NAMES, STORED_NAME, load_run_config
from sharpstudent.config.terms import list_terms
from sharpstudent.core.arguments import Parser, read_path
from sharpstudent.core.errors import UserError, format_count_of
from sharpstudent.core.files import read_json
from sharpstudent.core.naming import printable_lines
from sharpstudent.evaluation.command_line import COMPARE
from sharpstudent.metrics.metric import Metric
from sharpstudent.registry import find_task
from sharpstudent.report.logs import MetricsFile
from sharpstudent.task import Advice, Task
from sharpstudent.train.alarms import CHANCE_BAND, RATIO_LIMITS
from sharpstudent.train.logger import compare_sizes
from sharpstudent.train.preflight.temperature import REPORT_NAME
from sharpstudent.train.validate import PREFIX

FOUND = 1  # the exit code
CEILING = 0.01  # of the range from chance to perfect: so close to perfect no model can be told from a better one
FALL = 0.1  # of that range, from the best epoch to the last: the model has overfit
RISE = 0.05  # of that range, in the last quarter of the epochs: the model has not learnt all it can
LEAST_EPOCHS = 4  # of fewer, no trend is read
# Of the median layer between the last two saves; in healthy runs of 2 to 8 epochs at most .02 and 1.04.
MOVED, SPREAD = 0.1, 1.25
SMALLEST = 1e-5  # added to variances, as BatchNorm does
STEADY = 1e-7  # of a term's loss; what changes less from epoch to epoch does not learn

PURPOSE = """Read a run's files and say what is likely wrong: each finding with its evidence and a remedy."""
MORE = """exit codes: 0 nothing was found, 1 something was, 2 RUN is not the folder of a run"""


@dataclass(frozen=True)
class Movement:
    """How far the running statistics of a layer moved, the median over its channels.

    Attributes:
        mean: Of the mean, in deviations.
        variance: The factor of the variance, or its inverse, whichever is above 1.
    """

    mean: float
    variance: float


@dataclass(frozen=True)
class RunRecord:
    """What the files of a run say.

    Attributes:
        config: The resolved config.
        task: The class of its task.
        rows: Those of `metrics.csv`, at least one.
        models: Metrics by name of the models that stage 2 began with; {} for stage 1.
        norms: By name of each BatchNorm layer, how far its statistics moved between the last two saves of the run.
    """

    config: RunConfig
    task: type[Task]
    rows: Sequence[Mapping[str, Any]]
    models: Mapping[str, Mapping[str, Any]]
    norms: Mapping[str, Movement] = field(default_factory=dict[str, "Movement"])

    @property
    def column(self) -> str:
        """The column that ranks epochs."""
        return f"{PREFIX}{self.config.training.selection_metric}"

    @property
    def metric(self) -> Metric:
        """The metric that ranks epochs."""
        return self.task.metrics[self.config.training.selection_metric]

    @property
    def values(self) -> list[float]:
        """That metric by epoch, turned so that higher is better; NaN where it has no value."""
        sign = 1.0 if self.metric.direction == "higher" else -1.0
        found = [row.get(self.column) for row in self.rows]
        return [math.nan if one is None else sign * float(one) for one in found]

    @property
    def range(self) -> float:
        """The distance from chance to perfect; NaN where one is not known."""
        chance, perfect = self.metric.chance, self.metric.perfect
        return math.nan if chance is None or perfect is None else abs(perfect - chance)

    def show(self, place: int) -> str:
        """An epoch's value with its number."""
        row = self.rows[place]
        return f"{self.column} {row[self.column]:{self.metric.format}} in epoch {row['epoch']}"


def find_weak_teacher(run: RunRecord) -> Iterator[Advice]:
    """A teacher that is worse than the student which it teaches."""
    own = {name: float(one[run.column]) for name, one in run.models.items() if one.get(run.column) is not None}
    students = [value for name, value in own.items() if name.startswith("student")]
    for name, value in own.items():
        worse = students and (value < students[0] if run.metric.direction == "higher" else value > students[0])
        if name.startswith("teacher") and worse:
            form = run.metric.format
            yield Advice(
                "the teacher is weaker than the student that it teaches",
                f"before stage 2 {run.column} of {name} is {value:{form}}, of the student {students[0]:{form}}",
                "train the teacher longer or take a better one; or lower the weight of its terms",
            )


def find_imbalance(run: RunRecord) -> Iterator[Advice]:
    """Terms of the teacher whose losses are too small or too large in the last epoch."""
    ratio = compare_sizes(run.rows[-1], run.config.criterion, list_terms(run.task.terms))
    low, high = RATIO_LIMITS
    if not ratio or low <= ratio <= high:  # 0: a run without distillation, as a control is
        return
    few = ratio < low
    yield Advice(
        "little is distilled" if few else "the labels hardly count",
        f"in epoch {run.rows[-1]['epoch']} the losses of the teacher's terms are {ratio:.2g} times the labels' "
        f"(kd_hard_ratio without the weights; {low:g} to {high:g} is usual)",
        f"{'more' if few else 'less'} weight on the teacher's terms, or a {'higher' if few else 'lower'} temperature",
    )


def find_dead_terms(run: RunRecord) -> Iterator[Advice]:
    """Terms whose loss is the same in every epoch."""
    for term in run.config.criterion:
        column = f"train_{term.name}"
        found = [row[column] for row in run.rows if row.get(column) is not None]
        weighs = any(row.get(f"{term.name}/weight", 1.0) for row in run.rows)
        if len(found) > 1 and weighs and max(found) - min(found) <= STEADY * max(1.0, abs(max(found))):
            yield Advice(
                f"the term {term.name} teaches nothing: it has no gradient",
                f"{column} is {found[0]:.6g} in each of {len(found)} epochs",
                "take it out, or read in docs/terms.md for which outputs and classes it is alive",
            )


def find_ceiling(run: RunRecord) -> Iterator[Advice]:
    """A validation in which nothing is left to learn."""
    best = _find_best(run)
    if best is None or run.metric.perfect is None:
        return
    if abs(float(run.rows[best][run.column]) - run.metric.perfect) <= CEILING * run.range:
        yield Advice(
            "the validation is at its ceiling: it cannot tell a good epoch or model from a better one",
            f"{run.show(best)}, of {run.metric.perfect:g} at best",
            "validate on harder or more data; other runs cannot be compared by this metric",
        )


def find_misfit(run: RunRecord) -> Iterator[Advice]:
    """A model that has learnt its training data by heart, one that could learn more, and one that only guesses."""
    best = _find_best(run)
    if best is None or not math.isfinite(run.range):
        return
    values, last, unit, chance = run.values, len(run.rows) - 1, run.range, run.metric.chance or 0.0
    gained = values[best] - (chance if run.metric.direction == "higher" else -chance)
    if gained < CHANCE_BAND * unit:
        yield Advice(
            "underfit: the model guesses",
            f"{run.show(best)} is the best, and chance is {chance:g}",
            "look at logs/first_batch.png and the labels; then a higher or lower lr, a smaller rho, more epochs",
        )
    if len(values) < LEAST_EPOCHS:
        return
    losses = [float(row.get("train_loss") or math.nan) for row in (run.rows[best], run.rows[last])]
    if values[best] - values[last] > FALL * unit and losses[1] < losses[0]:
        yield Advice(
            "overfit: it learnt the training data by heart",
            f"{run.show(best)}, {run.show(last)}, while train_loss fell from {losses[0]:.4f} to {losses[1]:.4f}",
            "more or more varied data, more weight_decay or rho; `patience` ends a run at such a point",
        )
    quarter = last + 1 - max(1, (last + 1) // 4)
    before = [value for value in values[:quarter] if not math.isnan(value)]
    if best >= quarter and before and values[best] - max(before) > RISE * unit:
        yield Advice(
            "underfit: it was still learning when it ended",
            f"{run.show(best)}; the best before epoch {run.rows[quarter]['epoch']} is "
            f"{abs(max(before)):{run.metric.format}}",
            f"more epochs (now {run.config.training.epochs}), or a higher lr",
        )


def find_drift(run: RunRecord) -> Iterator[Advice]:
    """BatchNorm statistics that have not settled: in evaluation the model is another than in training."""
    if not run.norms or len(run.rows) < LEAST_EPOCHS:
        return
    mean = statistics.median(one.mean for one in run.norms.values())
    variance = statistics.median(one.variance for one in run.norms.values())
    if mean <= MOVED and variance <= SPREAD:
        return
    worst = max(run.norms, key=lambda name: (run.norms[name].variance, run.norms[name].mean))
    size = run.config.compute.micro_batch_size or run.config.training.batch_size
    yield Advice(
        "the statistics of BatchNorm drift: validation sees another model than training does",
        f"between the last two saves the mean of the median layer moved by {mean:.2g} deviations, its variance by a "
        f"factor of {variance:.2f} (up to {MOVED:g} and {SPREAD:g} is usual); most in {worst}, by a factor of "
        f"{run.norms[worst].variance:.2f}",
        f"more samples in the network at once (now {size}), a lower lr at the end, or training data in mixed order",
    )


def measure_movements(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Movement]:
    """Measure how far the statistics of each BatchNorm layer moved between two states of a model.

    Args:
        before: Tensors by name.
        after: The same, later.
    """
    found: dict[str, Movement] = {}
    for name in after:
        layer, ending, _ = name.rpartition(".running_mean")
        spread = f"{layer}.running_var"
        if not ending or spread not in after or name not in before or spread not in before:
            continue
        old, new = (states[spread].double() + SMALLEST for states in (before, after))
        moved = ((after[name].double() - before[name].double()).abs() / new.sqrt()).median()
        found[layer] = Movement(float(moved), float((new / old).log().abs().median().exp()))
    return found


def _read_movements(weights: Path) -> dict[str, Movement]:
    """Measure the movements between the last two saves of a run; {} where one of them is gone."""
    from sharpstudent.checkpoint.store import load_checkpoint

    files = [weights / name for name in reversed(STATE_NAMES)]
    if not all(file.is_file() for file in files):
        return {}
    before, after = (load_checkpoint(file).tensors.get("model", {}) for file in files)
    return measure_movements(before, after)


def _find_best(run: RunRecord) -> int | None:
    known = [place for place, value in enumerate(run.values) if not math.isnan(value)]
    return max(known, key=lambda place: run.values[place], default=None)


RULES: tuple[Callable[[RunRecord], Iterator[Advice]], ...] = (
    find_weak_teacher,
    find_imbalance,
    find_dead_terms,
    find_ceiling,
    find_misfit,
    find_drift,
)


def advise(run: RunRecord) -> list[Advice]:
    """Apply the rules of every run, and those of its task."""
    return [*(one for rule in RULES for one in rule(run)), *run.task.advise(run.rows)]


def read_record(folder: Path) -> RunRecord:
    """Read what the files of a run say.

    Raises:
        UserError: For a folder that holds no run, or one without an epoch.
    """
    if not (folder / STORED_NAME).is_file():
        what, expected = "is not the folder of a run", f"a folder with {STORED_NAME} and logs/, such as output/NAME_*"
        raise UserError.about(str(folder), what, expected=expected)
    config = load_run_config(folder, find_task)
    rows = MetricsFile(folder / "logs" / "metrics.csv").read()
    if not rows:
        remedy = "train on, then look again"
        raise UserError.about(str(folder / "logs" / "metrics.csv"), "has no epoch yet", remedy=remedy)
    return RunRecord(
        config,
        find_task(config.task),
        rows,
        read_models(folder / "logs" / REPORT_NAME),
        _read_movements(folder / "weights"),
    )


def read_models(report: Path) -> dict[str, dict[str, Any]]:
    """Read the rows of a preflight report by the name of their model; {} where there is no report.

    Raises:
        UserError: For a file that is no such report.
    """
    if not report.is_file():
        return {}
    try:
        return {str(one["name"]): dict(one) for one in read_json(report)["rows"]}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError.about(str(report), "is damaged", got=str(error), remedy="restore it, or remove it") from None


def main(argv: Sequence[str]) -> None:
    """Print what the rules find in the run that the words behind `check` name."""
    parser = Parser(f"{COMPARE} check", PURPOSE, usage=f"python {COMPARE} check RUN", more=MORE)
    parser.add_argument("run", metavar="RUN", type=read_path, help="the folder of a run")
    run = read_record(parser.parse_args(list(argv)).run)
    found = advise(run)
    for one in found:
        print(printable_lines(f"{one.what}\n    seen: {one.evidence}\n    try:  {one.remedy}"))
    print(printable_lines(f"{format_count_of(len(run.rows), 'epoch')}: {len(found) or 'nothing'} found"))
    if found:
        sys.exit(FOUND)
