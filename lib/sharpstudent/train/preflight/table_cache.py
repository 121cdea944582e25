"""A cache, shared by runs, of the outputs of models on validation samples: `OUTPUT_ROOT/.preflight/KEY.json`.

The key is a digest of everything that a table depends on, so a file is never out of date. The most recently used files
are kept, up to a number and a total size. The folder is not mistaken for a run, because its name begins with a dot and
it holds no config.json.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sharpstudent.config.run_config import RunConfig
from sharpstudent.core.errors import UserError
from sharpstudent.core.files import read_json
from sharpstudent.core.io import TEMPORARY_SUFFIX, write_text_atomically
from sharpstudent.core.random import build_generator
from sharpstudent.core.types import Table
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.evaluation.tables import compute_digest, table_from_json, table_to_json
from sharpstudent.metrics.checks import MetricError
from sharpstudent.models.forward import evaluation_mode, select_inputs
from sharpstudent.models.weights import compute_weights_hash
from sharpstudent.task import Task
from sharpstudent.train.build import TrainingData
from sharpstudent.train.preflight.model_checks import evaluate_table

FORMAT = 2
FOLDER = ".preflight"
# Each run adds a file for its student and reuses those of its teachers, so 64 files last two months at a run a day. A
# picture takes some 200 bytes, so 256 MB hold 64 files of 20 000 validation pictures each.
MOST_FILES = 64
MOST_BYTES = 256 * 2**20
STRAY_SECONDS = 24 * 3600.0  # older temporary files were left by a killed process


@dataclass(frozen=True)
class TableCache:
    """The cached tables of one output root.

    Attributes:
        folder: The folder of the cache.
        data: A digest of the validation samples, None if nothing may be cached.
        device: The device on which the models run.
        task: The task. Outputs for its example batch are a part of the key.
        say: Prints a line.
    """

    folder: Path
    data: str | None
    device: torch.device
    task: Task
    say: Callable[[str], None]

    def find(self, model: nn.Module) -> Path | None:
        """Find the path of this model's table, whether it exists or not; None if nothing may be cached."""
        if self.data is None:
            return None
        parts = [FORMAT, self.data, self.device.type, compute_weights_hash(model), self._compute_answer(model)]
        return self.folder / f"{compute_digest(parts)}.json"

    def load(self, path: Path) -> Table | None:
        """Read a table; None if there is no file or, after a note, a damaged one."""
        try:
            stored = read_json(path, most_bytes=MOST_BYTES)
            if stored["digest"] != compute_digest(stored["table"]):
                raise ValueError("its digest is that of another table")
            with contextlib.suppress(OSError):
                os.utime(path)  # marks it as used, for `prune`
            table = table_from_json(stored["table"])
            evaluate_table(path.stem, table, self.task)  # a table that no metric takes would end the run later
            return table
        except FileNotFoundError:
            return None
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            OverflowError,
            IndexError,
            MetricError,
        ) as error:
            self.say(f"preflight: {path} cannot be read ({type(error).__name__}: {error}); evaluating again")
            return None

    def save(self, path: Path, table: Table) -> None:
        """Write a table. An error of the disk only prints a note, because the table can be computed again.

        Args:
            path: The path that `find` returned.
            table: The table of the model.
        """
        plain = table_to_json(table)
        try:
            write_text_atomically(path, json.dumps({"digest": compute_digest(plain), "table": plain}) + "\n")
        except UserError as error:
            self.say(f"preflight: table not kept: {path} {error.problems[0].what}")

    def prune(self, used: Collection[Path]) -> None:
        """Delete the files that were used longest ago, beyond MOST_FILES or MOST_BYTES.

        Other runs may read, write and delete files here at the same time. So a missing file is no error, and a run
        whose table was deleted evaluates its model again. Files that the disk refuses to delete are left.

        Args:
            used: Files to keep whatever their age.
        """
        found: list[tuple[Path, os.stat_result]] = []
        with contextlib.suppress(OSError):
            for path in self.folder.iterdir():
                if path.name.endswith((".json", TEMPORARY_SUFFIX)):
                    with contextlib.suppress(OSError):
                        found.append((path, path.stat()))
        files = size = 0
        for path, about in sorted(found, key=lambda file: (file[1].st_mtime_ns, file[0].name), reverse=True):
            is_stray = path.name.endswith(TEMPORARY_SUFFIX)
            if is_stray and time.time() - about.st_mtime < STRAY_SECONDS:
                continue  # a run may still be writing it
            files, size = files + 1, size + about.st_size
            if is_stray or (path not in used and (files > MOST_FILES or size > MOST_BYTES)):
                with contextlib.suppress(OSError):
                    path.unlink()

    @torch.inference_mode()
    def _compute_answer(self, model: nn.Module) -> str:
        """Digest the model's outputs for one fixed row, which also depend on settings such as the order of classes."""
        generator = torch.Generator().manual_seed(0)
        inputs = {
            name: torch.rand(tensor.shape, generator=generator) if tensor.is_floating_point() else tensor
            for name, tensor in self.task.example_batch(1).inputs.items()
        }
        inputs = {name: tensor.to(self.device) for name, tensor in inputs.items()}
        with evaluation_mode(model):
            # `forward` is called directly: calling a compiled student would compile it for a batch of one.
            outputs = model.forward(**select_inputs(model, inputs))
        digest = hashlib.sha256()
        for name in sorted(outputs):
            digest.update(name.encode() + outputs[name].float().cpu().numpy().tobytes())
        return digest.hexdigest()


def build_table_cache(
    config: RunConfig, task: Task, data: TrainingData, device: torch.device, say: Callable[[str], None]
) -> TableCache:
    """Build the cache of a run's output root.

    Args:
        config: The config of the run.
        task: Its task.
        data: The data, whose validation samples are evaluated.
        device: The device on which the models run.
        say: Prints a line.
    """
    return TableCache(Path(config.output_root) / FOLDER, _fingerprint(config, task, data), device, task, say)


def save_tables(path: Path, tables: Sequence[Table]) -> None:
    """Write the tables of several models.

    Args:
        path: The file.
        tables: The tables, in the order of the models.

    Raises:
        UserError: When the disk refuses to write.
    """
    write_text_atomically(path, json.dumps([table_to_json(each) for each in tables]) + "\n")


def load_tables(path: Path) -> list[Table]:
    """Read the tables that `save_tables` of this or an earlier version wrote.

    Raises:
        OSError: When there is no such file.
        ValueError: When it is not a file of tables; KeyError and TypeError are possible, too.
    """
    return [table_from_json(each) for each in read_json(path)]


def _fingerprint(config: RunConfig, task: Task, data: TrainingData) -> str | None:
    """Digest everything that the validation samples depend on; None if the first of them cannot be read.

    These are the names, sizes and times of their files, the task's settings, and the arrays of the first sample, which
    change with the code that makes samples.
    """
    samples = data.validation
    try:
        first = samples.make(0, build_generator(samples.seed, 0, 0))
    except UnreadableSample:
        return None
    parts = [
        [_describe_file(samples.name(index)) for index in range(len(samples))],
        [_describe_file(str(path)) for path in data.depends_on],
        [samples.seed, task.facts(), config.task, config.task_section.model_dump(mode="json")],
        [
            [name, hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()]
            for arrays in (first.inputs, first.targets)
            for name, array in arrays.items()
        ],
    ]
    return compute_digest(parts)


def _describe_file(name: str) -> list[Any]:
    try:
        about = Path(name).stat()
    except (OSError, ValueError):  # the name of a sample need not be a path
        return [name]
    return [name, about.st_size, about.st_mtime_ns]
