"""Models evaluated on data sets: every model on every set, a sample loaded once for all that read it in one form."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.types import Table
from sharpstudent.evaluation.opened import OpenedModel
from sharpstudent.evaluation.tables import EvalSet, check_finite, compute_tables
from sharpstudent.metrics.checks import MetricError
from sharpstudent.report.console import format_duration
from sharpstudent.report.results import Role


@dataclass(frozen=True)
class ModelRecord:
    """What reports tell of a model. name: unique; file: its name without folders; sha256: of that file, None where
    only its outputs are kept; input_key: as in `OpenedModel`; about: what the file says of itself.
    """

    name: str
    role: Role
    file: str
    sha256: str | None
    architecture: str | None
    input_key: Hashable = None
    about: Mapping[str, Any] = field(default_factory=dict[str, Any])
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvalResult:
    """What one model said: a table for each set."""

    model: ModelRecord
    tables: tuple[Table, ...]


@dataclass(frozen=True)
class Evaluation:
    """All models as they were named, the sets that they were evaluated on, and what could not be read of each."""

    models: tuple[EvalResult, ...]
    sets: tuple[EvalSet, ...]
    unreadable: tuple[dict[str, str], ...]


def evaluate_models(
    models: Sequence[OpenedModel],
    sets: Sequence[EvalSet],
    *,
    roles: Sequence[Role],
    device: torch.device,
    num_workers: int,
    batch_size: int,
    say: Callable[[str], None],
) -> Evaluation:
    """The table of each model on each set. Raises UserError for a model whose outputs are not numbers.

    Args:
        models: On `device`.
        sets: In the order of the tables.
        roles: Of each model.
        device: Where the models are.
        num_workers: Loader processes.
        batch_size: Samples a batch.
        say: Takes lines for the user.
    """
    by_key: dict[Hashable, list[int]] = defaultdict(list)
    for number, opened in enumerate(models):
        by_key[opened.input_key].append(number)
    tables: list[list[Table]] = [[] for _ in models]
    left_out: list[dict[str, str]] = []
    for one in sets:
        unreadable: dict[str, str] = {}
        for key, numbers in by_key.items():
            samples, begun = one.open(key), time.monotonic()
            named = ", ".join(models[number].name for number in numbers)
            say(f"{one.name}: {len(samples):,} items{models[numbers[0]].input_words} through {named} ...")
            found, replaced = compute_tables(
                [models[number].model for number in numbers],
                samples,
                one.task,
                batch_size=batch_size,
                num_workers=num_workers,
                device=device,
            )
            say(f"{one.name}: {format_duration(time.monotonic() - begun)}")
            unreadable |= {sample.path: sample.reason for sample in replaced}
            for number, table in zip(numbers, found, strict=True):
                _check_finite(models[number], one.name, table)
                tables[number].append(table)
        for path, reason in unreadable.items():
            say(f"not judged: {path}: {reason}")
        left_out.append(unreadable)
    results = [
        EvalResult(record_model(opened, role), tuple(of_sets))
        for opened, role, of_sets in zip(models, roles, tables, strict=True)
    ]
    return Evaluation(tuple(results), tuple(sets), tuple(left_out))


def record_model(opened: OpenedModel, role: Role) -> ModelRecord:
    """What reports tell of an opened model."""
    return ModelRecord(
        name=opened.name,
        role=role,
        file=opened.path.name,
        sha256=opened.sha256,
        architecture=opened.architecture,
        input_key=opened.input_key,
        about=opened.about,
        notes=opened.notes,
    )


def _check_finite(opened: OpenedModel, of_set: str, table: Table) -> None:
    try:
        check_finite(table)
    except MetricError as error:
        raise UserError(
            Problem(
                where=f"{opened.name} ({opened.path})",
                what=f"cannot be judged: its answers to samples of {of_set} are not numbers",
                got=str(error),
                remedy="its weights are damaged, or were made for other inputs: train or export it again",
            )
        ) from None
