"""Measures models of any format side by side: latency, throughput, memory, size, and the metric with its gap.

In each setting of threads and batch size the models take turns, so that other work of the machine slows all alike. The
factor of each model against the first one is the median over the turns of the ratio of their fastest passes: what
another process takes away only ever adds to a time.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from sharpstudent.core.errors import ProblemList, UserError
from sharpstudent.core.io import write_text_atomically
from sharpstudent.core.naming import PathHider, clean_name
from sharpstudent.core.types import Table
from sharpstudent.deploy.command_line import BenchmarkRequest
from sharpstudent.deploy.gate import AGREEMENT
from sharpstudent.evaluation.command_line import EvaluationRequest
from sharpstudent.evaluation.cost import CostResult, describe_device, find_file_of, measure_costs, measure_latencies_ms
from sharpstudent.evaluation.model_files import read_selection_metric
from sharpstudent.evaluation.opened import OpenedModel
from sharpstudent.evaluation.renderer import Renderer
from sharpstudent.evaluation.tables import VALIDATION, check_finite, compute_tables, find_config
from sharpstudent.metrics.bootstrap import compute_paired
from sharpstudent.metrics.checks import MetricError
from sharpstudent.report.console import print_line
from sharpstudent.report.environment import describe_environment
from sharpstudent.report.text_table import draw_console_table
from sharpstudent.task import Task

TURNS = 5  # of all models in one setting
CPU = torch.device("cpu")
RUNTIMES = ("onnxruntime", "openvino", "executorch")
EVALUATION_SAMPLES = 16  # in a batch when the metric is computed


@dataclass(frozen=True)
class Timing:
    """The latency of one model in one setting.

    Attributes:
        model: The name of the model.
        device: Where it ran, with threads and runtime.
        threads: How many threads it was given.
        batch: How many samples went in at once.
        best_ms: Shortest time of a batch.
        p50_ms: Median time of it.
        p95_ms: 95th percentile of it.
        samples_per_s: Samples a second at the median.
        factor: How many times as fast as the first model: median over the turns of the ratio of fastest passes.
        factor_range: The lowest and the highest such ratio of a turn.
    """

    model: str
    device: str
    threads: int
    batch: int
    best_ms: float
    p50_ms: float
    p95_ms: float
    samples_per_s: float
    factor: float
    factor_range: tuple[float, float]


@dataclass(frozen=True)
class Gap:
    """The metric of one model on the validation samples.

    Attributes:
        metric: The name of the metric.
        value: Its value; None where the model gives none.
        difference: The model minus the first one; None where there is none.
        low: The lower end of its paired interval; None without one.
        high: The upper end.
        note: Why something is missing.
    """

    metric: str
    value: float | None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    note: str | None = None


def run_benchmark(renderer: Renderer, request: BenchmarkRequest, console: Console) -> dict[str, Any]:
    """Measure the models of a request, and print a table.

    Args:
        renderer: The task's renderer.
        request: The command line.
        console: The console for lines and tables.

    Returns:
        The results as JSON values, which `--json` also writes to a file.

    Raises:
        UserError: For models that cannot be opened, and for two of one name.
    """
    before = torch.get_num_threads()
    try:
        timings: list[Timing] = []
        for threads in request.threads:
            models = open_models(renderer, request, threads)  # anew: other runtimes take their threads when they open
            for batch in request.batches:
                print_line(console, f"{threads} thread{'s' if threads > 1 else ''}, batch {batch} ...")
                timings += time_models(models, threads=threads, batch=batch, repeats=request.repeats)
        print_line(console, "memory, size, parameters and MACs ...")
        models = open_models(renderer, request, request.threads[0])
        costs = measure_costs(models, device=CPU, rounds=TURNS)
    finally:
        torch.set_num_threads(before)
    gaps = _measure_gaps(renderer, request, models, lambda line: print_line(console, line))
    _print(console, renderer, models, timings, costs, gaps)
    results = _list_results(models, timings, costs, gaps)
    if request.json is not None:
        write_text_atomically(request.json, json.dumps(results, indent=2, ensure_ascii=False) + "\n")
        print_line(console, f"the results as JSON: {request.json}")
    return results


def open_models(renderer: Renderer, request: BenchmarkRequest, threads: int) -> list[OpenedModel]:
    """Open the models for a number of threads; raise UserError with the problems of all together."""
    torch.set_num_threads(threads)
    problems = ProblemList()
    models = [problems.attempt(renderer.open_model, wanted, CPU) for wanted in request.models]
    problems.raise_if_any()
    names = [model.name for model in models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        files = ", ".join(str(model.path) for model in models if model.name in twice)
        what = f"two models would be called {' and '.join(twice)}"
        raise UserError.about("command line", what, got=files, remedy="give them names: NAME=MODEL")
    return models


def time_models(models: Sequence[OpenedModel], *, threads: int, batch: int, repeats: int) -> list[Timing]:
    """Time all models in one setting, in turns.

    Args:
        models: The models, opened for so many threads.
        threads: How many threads.
        batch: How many samples at once.
        repeats: How many passes are timed for each, over all turns.

    Returns:
        The timing of each.
    """
    samples = [model.example(batch, CPU) for model in models]
    turns: list[list[list[float]]] = [[] for _ in models]
    for _ in range(TURNS):
        for number, (model, sample) in enumerate(zip(models, samples, strict=True)):
            turns[number].append(measure_latencies_ms(model.model, sample, rounds=math.ceil(repeats / TURNS)))
    fastest = [[min(taken) for taken in of_model] for of_model in turns]
    found: list[Timing] = []
    for model, of_model, own in zip(models, turns, fastest, strict=True):
        times = [time for taken in of_model for time in taken]
        ratios = [first / one for first, one in zip(fastest[0], own, strict=True)]
        p50 = statistics.median(times)
        found.append(
            Timing(
                model=model.name,
                device=describe_device(CPU, find_file_of(model.model)),
                threads=threads,
                batch=batch,
                best_ms=min(times),
                p50_ms=p50,
                p95_ms=float(np.percentile(times, 95)),
                samples_per_s=1000.0 * batch / p50,
                factor=statistics.median(ratios),
                factor_range=(min(ratios), max(ratios)),
            )
        )
    return found


def _measure_gaps(
    renderer: Renderer, request: BenchmarkRequest, models: Sequence[OpenedModel], say: Callable[[str], None]
) -> list[Gap] | None:
    """Compute the metric of each model on validation samples; None, said aloud, where there are none."""
    if not request.metric:
        return None
    wanted = EvaluationRequest(request.models, config=request.config)
    config = find_config(wanted, renderer.task_class)
    if config is None:
        say("no metric: none of the models lies in a run folder; --config with the config of a run names its data")
        return None
    task = renderer.task_class(config.task_section, allow=config.allow)
    (samples,) = task.open_data(VALIDATION)
    selects = config.training.selection_metric or task.default_metric
    metric = read_selection_metric(models[0].about, default=f"val_{selects}").removeprefix("val_")
    say(f"{task.title(metric)} on {len(samples)} validation samples ...")
    tables, _ = compute_tables(
        [model.model for model in models],
        samples, task, batch_size=EVALUATION_SAMPLES, num_workers=request.workers, device=CPU,
    )  # fmt: skip
    return [_compare(task, metric, table, tables[0], request.rounds) for table in tables]


def _compare(task: Task, name: str, table: Table, first: Table, rounds: int) -> Gap:
    metric = task.metrics[name]
    try:
        check_finite(table)
        value = metric.value(table)
        if table is first:
            return Gap(name, value)
        found = compute_paired(metric, table, first, rounds=rounds, group_unit=task.group_unit)
    except MetricError as error:
        return Gap(name, None, note=str(error))
    if _agree(table, first):  # then the two are one model, and an interval over people says nothing
        return Gap(name, value, found.value, note="the outputs agree")
    return Gap(name, value, found.value, found.low, found.high, found.note)


def _agree(one: Table, other: Table) -> bool:
    """Whether the rows of two models are as equal as those of one model in two runtimes in fp32."""
    return all(
        np.allclose(one[name], other[name], rtol=AGREEMENT, atol=AGREEMENT, equal_nan=True)
        if np.issubdtype(one[name].dtype, np.floating)
        else np.array_equal(one[name], other[name])
        for name in other
    )


def _print(
    console: Console,
    renderer: Renderer,
    models: Sequence[OpenedModel],
    timings: Sequence[Timing],
    costs: Sequence[CostResult],
    gaps: Sequence[Gap] | None,
) -> None:
    first = models[0].name
    timed = {
        "model": [clean_name(one.model) for one in timings],
        "threads": [str(one.threads) for one in timings],
        "batch": [str(one.batch) for one in timings],
        "best ms": [f"{one.best_ms:.1f}" for one in timings],
        "p50": [f"{one.p50_ms:.1f}" for one in timings],
        "p95": [f"{one.p95_ms:.1f}" for one in timings],
        "per s": [f"{one.samples_per_s:.0f}" for one in timings],
        "factor": [f"{one.factor:.1f} ({one.factor_range[0]:.1f}-{one.factor_range[1]:.1f})" for one in timings],
    }
    measured = {
        "model": [clean_name(model.name) for model in models],
        "size MB": [f"{cost.file_bytes / 1e6:.2f}" for cost in costs],
        "memory MB": ["-" if cost.memory_bytes is None else f"{cost.memory_bytes / 1e6:.1f}" for cost in costs],
        "parameters": ["-" if cost.parameters is None else f"{cost.parameters / 1e6:.2f} M" for cost in costs],
        "MACs": ["-" if cost.macs is None else f"{cost.macs / 1e6:.1f} M" for cost in costs],
    }
    tables = [timed, measured]
    if gaps is not None:
        form, title = renderer.task.metrics[gaps[0].metric].format, renderer.task_class.title(gaps[0].metric)
        values = ["-" if gap.value is None else format(gap.value, form) for gap in gaps]
        shown = [_show_gap(gap, form) for gap in gaps]
        tables.append({"model": measured["model"], title: values, f"minus that of {first}": shown})
    for columns in tables:
        console.print(draw_console_table(columns, words=["model"]))
    print_line(console, f"factor: times as fast as {first} by the fastest pass of each of {TURNS} turns, and the range")
    print_line(console, "per s: samples a second at the median; memory: the peak of one sample, beyond the libraries")
    for note in dict.fromkeys(note for cost in costs for note in cost.notes):
        print_line(console, note)


def _show_gap(gap: Gap, form: str) -> str:
    if gap.difference is None:
        return gap.note or "-"
    remark = f", {gap.note}" if gap.note else ""
    interval = remark if gap.low is None or gap.high is None else f" ({gap.low:+{form}} to {gap.high:+{form}})"
    return f"{gap.difference:+{form}}{interval}"


def _list_results(
    models: Sequence[OpenedModel], timings: Sequence[Timing], costs: Sequence[CostResult], gaps: Sequence[Gap] | None
) -> dict[str, Any]:
    found = [
        {
            "name": model.name,
            "file": Path(model.path).name,
            "sha256": model.sha256,
            "kind": model.kind,
            "architecture": model.architecture,
            "cost": cost.model_dump(mode="json"),
            "metric": None if gaps is None else asdict(gaps[number]),
        }
        for number, (model, cost) in enumerate(zip(models, costs, strict=True))
    ]
    environment: Mapping[str, Any] = describe_environment()
    runtimes = {name: importlib.metadata.version(name) for name in RUNTIMES if importlib.util.find_spec(name)}
    timed = [asdict(one) for one in timings]
    results = {"models": found, "timings": timed, "environment": environment, "runtimes": runtimes}
    return PathHider({}).within(results)
