"""The data sets of an evaluation, and the outputs of models on their samples as tables of rows.

Legend: N rows. A table has the columns `id` and `group` (text), `key` int64 (N, 3): index and visit of the sample and
the row's place in it, and the columns of `Task.rows`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from sharpstudent.config.cli import clean_name
from sharpstudent.config.load import read_config_file, read_task_name, validate_keys
from sharpstudent.config.resolve import resolve
from sharpstudent.config.run_config import RunConfig
from sharpstudent.config.stored import STORED_NAME, load_run_config
from sharpstudent.core.archive import BEST
from sharpstudent.core.errors import Problem, ProblemList, UserError
from sharpstudent.core.types import Batch, Outputs, Table
from sharpstudent.data.dataset import Samples
from sharpstudent.data.loader import Replaced, load_batches
from sharpstudent.data.sampler import evaluation_batches
from sharpstudent.evaluation.command_line import EvaluationRequest
from sharpstudent.evaluation.renderer import Session
from sharpstudent.metrics.checks import NO_SAMPLES, SHOWN, MetricError, name_some
from sharpstudent.models.forward import evaluation_mode, run_model, sharing_frozen_parts
from sharpstudent.registry import find_task
from sharpstudent.report.results import EvaluatedSet
from sharpstudent.task import Task

if TYPE_CHECKING:
    from sharpstudent.core.ranks import Ranks


@torch.inference_mode()
def compute_tables(
    models: Sequence[nn.Module],
    samples: Samples,
    task: Task,
    *,
    batch_size: int,
    num_workers: int,
    device: torch.device,
    timeout_s: float = 300.0,
    between_batches: Callable[[], None] = lambda: None,
    ranks: Ranks | None = None,
) -> tuple[tuple[Table, ...], tuple[Replaced, ...]]:
    """Compute the rows of each model on every sample, in order; a batch is loaded once and goes through all models.

    Args:
        models: The models. They run in evaluation mode; their own modes are restored afterwards.
        samples: The samples of one split; their `seed` is the key of all randomness.
        task: The task, which turns samples into batches and outputs into rows.
        batch_size: How many samples form a batch.
        num_workers: How many loader processes run.
        device: The device of the models.
        timeout_s: After so many seconds without a batch, a loader process counts as hung.
        between_batches: Called once for each batch; it stops the loop by raising.
        ranks: The processes that share the batches; each gets the whole tables, the same as of one process. None for
            one process.

    Returns:
        A table for each model, and the samples that could not be read, for which others were taken.
    """
    parts: list[list[Table]] = [[] for _ in models]
    replaced: list[Replaced] = []
    keys = evaluation_batches(len(samples), batch_size)
    if ranks is not None:
        keys = ranks.share(list(keys))  # whole batches: a sum over other rows would round differently
    loader = load_batches(
        samples, keys, seed=samples.seed, num_workers=num_workers, collate=task.collate, timeout_s=timeout_s
    )
    with evaluation_mode(*models), contextlib.closing(loader):
        for batch, unreadable in loader:
            between_batches()
            batch = batch.to(device)
            with sharing_frozen_parts() if len(models) > 1 else contextlib.nullcontext():
                for model, tables in zip(models, parts, strict=True):
                    tables.append(make_table(task, run_model(model, batch.inputs), batch))
            replaced += unreadable
    if ranks is not None:
        found = ranks.gather((parts, replaced))
        parts = [[table for tables, _ in found for table in tables[place]] for place in range(len(models))]
        replaced = [one for _, others in found for one in others]
    return tuple(join_parts(tables) for tables in parts), tuple(replaced)


def make_table(task: Task, outputs: Outputs, batch: Batch) -> Table:
    """Build the rows of one batch, as copies: a view would keep the batch's shared memory and file descriptors.

    Args:
        task: The task, which makes the rows.
        outputs: The model's outputs for the batch.
        batch: The batch that the model was given.

    Returns:
        The table of the batch.

    Raises:
        ValueError: For a column of the task that has another number of rows.
    """
    rows: dict[str, Any] = {"id": np.array(batch.rows["id"]), "group": np.array(batch.rows["group"])}
    if "key" in batch.rows:
        rows["key"] = np.array(batch.rows["key"], np.int64).reshape(-1, 3)
    columns = {**rows, **task.rows(outputs, batch)}
    for name, column in columns.items():
        if len(column) != len(batch):
            raise ValueError(f"{type(task).__name__}.rows gave {len(column)} values of {name!r} for {len(batch)} rows")
    return {name: np.array(column) for name, column in columns.items()}


def join_parts(parts: Sequence[Table]) -> Table:
    """Join tables of the same columns, one below the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def check_finite(table: Table) -> None:
    """Raise MetricError, naming rows, for a column that holds a value that is not finite, and for no rows at all.

    NaN in a column of one value a row may mean that the row has none (see `Metric.each`); infinity may not.
    """
    if len(table["id"]) == 0:
        raise MetricError(NO_SAMPLES)
    for name, column in table.items():
        if column.dtype.kind != "f":
            continue
        values = column.reshape(len(column), -1)
        bad = ~np.isfinite(values) if column.ndim > 1 else np.isinf(values)
        rows = np.flatnonzero(bad.any(axis=1)).tolist()
        if rows:
            shown = [f"{table['id'][row]} ({values[row][bad[row]][0]})" for row in rows[:SHOWN]]
            named = name_some(shown, of=len(rows))
            raise MetricError(f"{len(rows)} of {len(column)} samples with {name} that are not finite: {named}")


def table_to_json(table: Table) -> dict[str, Any]:
    """Turn a table into JSON values; a float32 is written as float64; when it is read back, its bits are the same."""
    return {name: {"type": column.dtype.kind, "values": column.tolist()} for name, column in table.items()}


_TYPES: Mapping[str, Any] = {"f": np.float32, "i": np.int64, "U": np.str_, "b": np.bool_}
# The columns of tables that were stored before November 2026, and their names today.
_EARLIER = {"logits": "logits", "labels": "label", "sample_ids": "id", "clip_ids": "clip", "identities": "group"}


def table_from_json(stored: Mapping[str, Any]) -> Table:
    """Build a table from what `table_to_json` or an earlier version made.

    Args:
        stored: The JSON values.

    Returns:
        The table.

    Raises:
        KeyError: For other values; also TypeError and ValueError.
    """
    if "sample_ids" in stored:
        types = {"logits": np.float32, "labels": np.int64}
        return {name: np.array(stored[key], types.get(key)) for key, name in _EARLIER.items()}
    table = {name: np.array(part["values"], _TYPES[part["type"]]) for name, part in stored.items()}
    if len({len(column) for column in table.values()}) != 1 or not {"id", "group"} <= table.keys():
        raise ValueError("columns of different lengths, or without id and group")
    return table


def compute_digest(plain: Any) -> str:
    """Compute the sha256 of JSON values."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


class EvalSet(ABC):
    """A data set of an evaluation.

    Attributes:
        name: The name in reports.
        task: The task, which turns outputs into rows.
    """

    name: str
    task: Task

    @abstractmethod
    def open(self, input_key: Hashable) -> Samples:
        """Return its samples for models of one `OpenedModel.input_key`; always the same samples."""


class SplitSet(EvalSet):
    """A set of samples that a task has opened."""

    def __init__(
        self, name: str, task: Task, samples: Samples, *, kind: str, split: str, notes: Sequence[str] = ()
    ) -> None:
        """Keep the samples.

        Args:
            name: The name of the set in reports.
            task: The task, which turns outputs into rows.
            samples: The samples, as the task opened them.
            kind: `split` of a task's data, or `validation` of a run.
            split: The name or path of the split.
            notes: Further remarks on the set for the report.
        """
        self.name, self.task, self.kind, self.split = name, task, kind, split
        self._samples, self._notes = samples, tuple(notes)

    def open(self, input_key: Hashable) -> Samples:
        """Return the samples, which are the same for all models."""
        return self._samples

    def describe(self, table: Table, unreadable: Mapping[str, str]) -> EvaluatedSet:
        """Describe the set for a report.

        Args:
            table: The table of any of the models: all have the same ids and groups.
            unreadable: The samples that could not be read and were substituted, by name with the reason.

        Returns:
            The description.
        """
        ids, groups = table["id"].tolist(), table["group"].tolist()
        text = "\n".join(f"{name}\0{group}" for name, group in zip(ids, groups, strict=True))
        digest = hashlib.sha256(f"{self._samples.seed}\n{text}".encode("utf-8", "surrogatepass"))
        return EvaluatedSet(
            name=self.name,
            kind=self.kind,
            split=self.split,
            fingerprint=digest.hexdigest(),
            samples=len(self._samples),
            rows=len(ids),
            groups=len(set(groups)),
            counts=_count_classes(self.task, table),
            unreadable=dict(unreadable),
            notes=(*self._notes, *self._samples.notes),
        )


def _count_classes(task: Task, table: Table) -> dict[str, int]:
    """Count the rows of each class, where the task has classes."""
    classes, labels = getattr(task, "classes", ()), table.get("label")
    if not classes or labels is None or labels.ndim != 1 or labels.dtype.kind not in "iu":
        return {}
    return {name: int((labels == number).sum()) for number, name in enumerate(classes)}


VALIDATION = "validation"  # the split that chooses checkpoints


def open_sets(session: Session, task_class: type[Task]) -> list[SplitSet]:
    """Open the data sets of an evaluation.

    Args:
        session: The session, with the request.
        task_class: The class of the task.

    Returns:
        The sets of the request; without any, the validation data of the run that made the last model that has one.

    Raises:
        UserError: For data that is not there.
    """
    request = session.request
    config = find_config(request, task_class)
    task = task_class() if config is None else task_class(config.task_section, allow=config.allow)
    if request.data:
        words = [str(one.path) for one in request.data]
        names = check_names([one.name or word for one, word in zip(request.data, words, strict=True)], words)
        return [
            SplitSet(name, task, samples, kind="split", split=word, notes=_note(config, word))
            for name, word, samples in zip(names, words, task.open_data(*words), strict=True)
        ]
    if config is None:
        raise UserError.about(
            "--data",
            "is not given, and none of the models lies in a run folder whose validation data could be used",
            got=", ".join(str(model.path) for model in request.models),
            remedy="--data SET: the name of a split, or a path that the task can open",
        )
    (samples,) = task.open_data(VALIDATION)
    return [build_validation_set(task, samples, config)]


def build_validation_set(task: Task, samples: Samples, config: RunConfig) -> SplitSet:
    """Build the set of a run's validation data.

    Args:
        task: The task of the run.
        samples: The run's validation samples, as opened.
        config: The config of the run.

    Returns:
        The set, with a note that it chose the checkpoint.
    """
    name = f"validation of {config.name}".replace("/", "-")
    return SplitSet(name, task, samples, kind=VALIDATION, split=VALIDATION, notes=_note(config, VALIDATION))


def _note(config: RunConfig | None, split: str) -> list[str]:
    """Return the note on a split that chose the checkpoint; no note for any other split."""
    return [] if config is None or split != VALIDATION else [note_validation(config.name)]


def note_validation(run: str) -> str:
    """Say that the validation data of a run chose the run's checkpoint."""
    return f"the validation data of the run {run}: it chose the checkpoint, so its metrics are optimistic"


def find_config(request: EvaluationRequest, task_class: type[Task]) -> RunConfig | None:
    """Find the config that names the task's data.

    Args:
        request: The request, with the models and the user's config.
        task_class: The class of the task.

    Returns:
        The user's own config, or that of the run of the last model that lies in a run folder; None without either.

    Raises:
        UserError: For a config that cannot be read, and a run of another task.
    """
    if request.config is not None:
        return load_config(request.config, task_class)
    found = (read_run_config(model.path, task_class) for model in reversed(request.models))
    return next((config for config in found if config is not None), None)


def read_run_config(path: Path, task_class: type[Task]) -> RunConfig | None:
    """Read the config of the run that a model lies in.

    Args:
        path: The model's file or run folder.
        task_class: The class of the task.

    Returns:
        The config; None for a file elsewhere.

    Raises:
        UserError: For a run of another task.
    """
    folder = find_run_folder(path)
    return None if folder is None else load_config(folder, task_class)


def find_run_folder(checkpoint: Path) -> Path | None:
    """Find the run folder that a checkpoint lies in, or that `checkpoint` itself is; None for a file elsewhere."""
    folder = checkpoint if checkpoint.is_dir() else checkpoint.absolute().parent.parent
    # A folder of Hugging Face has a file of this name, too, and no folder of checkpoints.
    return folder if (folder / STORED_NAME).is_file() and (folder / BEST.parent).is_dir() else None


def load_config(path: Path, task_class: type[Task]) -> RunConfig:
    """Load the config of a run, or a config file of the user's.

    Args:
        path: A run folder, or a config file.
        task_class: The class of the task; a class that the file names is never imported.

    Returns:
        The config, resolved.

    Raises:
        UserError: For a config that cannot be read, and for a run of another task.
    """
    if path.is_dir():
        _check_task(path, task_class)
        return load_run_config(path, lambda *_, **__: task_class)
    keys = validate_keys(read_config_file(path), task_class)
    name = clean_name(path.stem)
    return resolve(keys, stage=1, name=name, config_name=name, task=task_class)


def _check_task(folder: Path, task_class: type[Task]) -> None:
    name = read_task_name(read_config_file(folder / STORED_NAME))
    if ":" not in name and find_task(name, where=f"{folder / STORED_NAME}: task") is not task_class:
        raise UserError.about(
            str(folder),
            f"is a run of the task {name}",
            expected=f"a run of {task_class.__module__}:{task_class.__qualname__}",
            remedy="leave --task out, or name another run",
        )


def check_names(wanted: Sequence[str], words: Sequence[str], *, sign: str = "@") -> list[str]:
    """Check the names of data sets in results.

    Args:
        wanted: The names that were given.
        words: The word on the command line that named each data set.
        sign: What separates a set's name from a metric's in results, and so must not be in it.

    Returns:
        The names.

    Raises:
        UserError: For a name that is empty, there twice, or holds that sign, and for a set that was named twice.
    """
    problems = ProblemList()
    for word in dict.fromkeys(words):
        if words.count(word) > 1:
            problems.add(Problem(word, "is named twice: its rows would count twice", remedy="name it once"))
    for name in dict.fromkeys(wanted):
        if not name.strip() or sign in name or wanted.count(name) > 1:
            what = "names two data sets" if wanted.count(name) > 1 else "cannot name a data set"
            problems.add(Problem(repr(name), what, f"a name of its own without {sign}", remedy="NAME=SET"))
    problems.raise_if_any()
    return list(wanted)
