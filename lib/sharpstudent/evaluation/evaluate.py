"""Evaluation of models on data sets: every model on every set.

A sample is loaded once for all models that read inputs of the same form.
"""

from __future__ import annotations

import math
import shlex
import sys
import time
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sharpstudent.core.errors import UserError
from sharpstudent.core.types import Table
from sharpstudent.evaluation.model_files import read_trained, read_validation
from sharpstudent.evaluation.opened import OpenedModel
from sharpstudent.evaluation.renderer import Session
from sharpstudent.evaluation.tables import EvalSet, check_finite, compute_tables
from sharpstudent.metrics.checks import MetricError
from sharpstudent.report.console import format_duration
from sharpstudent.report.environment import describe_environment, hide_command
from sharpstudent.report.results import Role, TrainingResult


@dataclass(frozen=True)
class EvalResult:
    """The outputs of one model on each set, and the facts about the model that reports show.

    Attributes:
        name: The name of the model, which no other has.
        role: The role in the comparison of two stages; `model` for a model without one.
        file: The name of its file, without folders.
        sha256: The sha256 of that file; None where only the model's outputs are kept.
        architecture: The name of the architecture; None where it is not known.
        tables: The model's outputs on each set, in the order of the sets.
        input_key: The form of its inputs, as in `OpenedModel`.
        about: The description in the file.
        seed_of: The name of the first model with its role, where this is a further seed; else None.
    """

    name: str
    role: Role
    file: str
    sha256: str | None
    architecture: str | None
    tables: tuple[Table, ...]
    input_key: Hashable = None
    about: Mapping[str, Any] = field(default_factory=dict[str, Any])
    seed_of: str | None = None

    def describe(self) -> dict[str, Any]:
        """Return the fields that every form of results has for a model, by their names."""
        named = {name: getattr(self, name) for name in ("name", "role", "file", "sha256", "architecture", "seed_of")}
        return {**named, "trained": read_trained(self.about), "validation": read_validation(self.about)}


Pair = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Evaluation:
    """The outputs of all models on all sets.

    Attributes:
        models: The results of all models, in the order in which they were named.
        sets: The data sets, in the order of each model's tables.
        unreadable: For each set, the samples that could not be read, by name with the reason.
        pairs: Which models are compared, by number, first minus second; of several seeds all numbers, in their order.
    """

    models: tuple[EvalResult, ...]
    sets: tuple[EvalSet, ...]
    unreadable: tuple[dict[str, str], ...]
    pairs: Sequence[Pair] = ()


@dataclass(frozen=True)
class Heading:
    """The facts that a report states besides measurements. The attributes have the names of the results' fields.

    Attributes:
        title: The title of the report.
        training: The training history of the model that the report is about.
        config: The resolved config of that model's run.
        notes: Remarks on the models.
        made_at: ISO 8601, UTC.
        command: The command line.
        environment: Machine and versions.
    """

    title: str
    training: TrainingResult | None = None
    config: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    made_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    command: str = field(default_factory=lambda: shlex.join(hide_command(sys.argv)))
    environment: Mapping[str, Any] = field(default_factory=describe_environment)


def evaluate_models(session: Session, sets: Sequence[EvalSet]) -> Evaluation:
    """Compute the table of each opened model on each set.

    Args:
        session: The session, with the opened models and the request.
        sets: The data sets, in the order of the tables.

    Returns:
        The tables, and the samples that could not be read.

    Raises:
        UserError: For a model whose outputs are not numbers.
    """
    models, request = session.models, session.request
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
            session.say(f"{one.name}: {len(samples):,} samples{models[numbers[0]].input_words} through {named} ...")
            batches = math.ceil(len(samples) / request.batch_size)
            with session.progress(one.name, batches, "batch") as progress:
                found, replaced = compute_tables(
                    [models[number].model for number in numbers],
                    samples,
                    one.task,
                    batch_size=request.batch_size,
                    num_workers=request.workers,
                    device=session.device,
                    between_batches=progress.add,
                )
            session.say(f"{one.name}: {format_duration(time.monotonic() - begun)}")
            unreadable |= {sample.path: sample.reason for sample in replaced}
            for number, table in zip(numbers, found, strict=True):
                _check_finite(models[number], one.name, table)
                tables[number].append(table)
        for path, reason in unreadable.items():
            session.say(f"not evaluated: {path}: {reason}")
        left_out.append(unreadable)
    first = {wanted.role: opened.name for opened, wanted in reversed(list(zip(models, request.models, strict=True)))}
    results = [
        EvalResult(
            name=opened.name,
            role=wanted.role,
            file=opened.path.name,
            sha256=opened.sha256,
            architecture=opened.architecture,
            tables=tuple(of_sets),
            input_key=opened.input_key,
            about=opened.about,
            seed_of=None if wanted.role == "model" or first[wanted.role] == opened.name else first[wanted.role],
        )
        for opened, wanted, of_sets in zip(models, request.models, tables, strict=True)
    ]
    return Evaluation(tuple(results), tuple(sets), tuple(left_out))


def _check_finite(opened: OpenedModel, of_set: str, table: Table) -> None:
    try:
        check_finite(table)
    except MetricError as error:
        raise UserError.about(
            where=f"{opened.name} ({opened.path})",
            what=f"cannot be evaluated: its outputs for samples of {of_set} are not numbers",
            got=str(error),
            remedy="its weights are damaged, or were made for other inputs: train or export it again",
        ) from None
