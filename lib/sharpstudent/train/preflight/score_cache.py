"""Scores of models on validation items, kept from one run to the next: `OUTPUT_ROOT/.preflight/KEY.json`.

The key is a digest of everything that the scores depend on, so a file is never out of date, only unused: the files that
were used last are kept, up to a number and a size. The folder begins with a dot and holds no config.json: no search for
runs takes it for one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sharpstudent.config.run_config import RunConfig
from sharpstudent.core.errors import UserError
from sharpstudent.core.io import TEMPORARY_SUFFIX, write_text_atomically
from sharpstudent.core.random import build_generator
from sharpstudent.data.dataset import UnreadableItem
from sharpstudent.evaluation.task import Scores, Task, TaskData
from sharpstudent.models.weights import compute_weights_hash

FORMAT = 2  # 1: within a batch, reals stood before fakes
FOLDER = ".preflight"
# A run leaves a file for its student and takes those of its teachers again: 64 are two months of a run a day. A picture
# takes some 200 bytes: 256 MB hold them for 20 000 validation pictures.
MOST_FILES = 64
MOST_BYTES = 256 * 2**20
STRAY_SECONDS = 24 * 3600.0  # after which a file that is half written has lost its writer


@dataclass(frozen=True)
class ScoreCache:
    """data: a digest of the validation items, None where nothing may be kept; say: gets the notes."""

    folder: Path
    data: str | None
    device: torch.device
    image_size: int
    say: Callable[[str], None]

    def find(self, model: nn.Module) -> Path | None:
        """Where the scores of this model are or would be; None where nothing may be kept."""
        if self.data is None:
            return None
        parts = [FORMAT, self.data, self.device.type, compute_weights_hash(model), self._ask(model)]
        return self.folder / f"{_digest(parts)}.json"

    def load(self, path: Path) -> Scores | None:
        """What `save` wrote; None where there is nothing, or nothing whole: a note says which."""
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored["digest"] != _digest(stored["scores"]):
                raise ValueError("its digest is that of other scores")
            with contextlib.suppress(OSError):
                os.utime(path)  # used now: `prune` keeps it
            return _from_json(stored["scores"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.say(f"preflight: {path} cannot be read ({type(error).__name__}: {error}); judging again")
            return None

    def save(self, path: Path, scores: Scores) -> None:
        """Keep scores. A disk that refuses costs a note and nothing else: they can be computed again."""
        plain = _to_json(scores)
        try:
            write_text_atomically(path, json.dumps({"digest": _digest(plain), "scores": plain}, allow_nan=False) + "\n")
        except UserError as error:
            self.say(f"preflight: scores not kept: {path} {error.problems[0].what}")

    def prune(self, used: Collection[Path]) -> None:
        """Delete the files that were used longest ago, beyond MOST_FILES or MOST_BYTES; never those `used` just now.

        Another run may read, write and delete here at the same time: a file that is gone is no fault, and a run whose
        scores were deleted judges again. What the disk refuses is let be.
        """
        files = size = 0
        for path, about in _list_newest_first(self.folder):
            is_stray = path.name.endswith(TEMPORARY_SUFFIX)
            if is_stray and time.time() - about.st_mtime < STRAY_SECONDS:
                continue  # of a run that is writing it
            files, size = files + 1, size + about.st_size
            if is_stray or (path not in used and (files > MOST_FILES or size > MOST_BYTES)):
                with contextlib.suppress(OSError):
                    path.unlink()

    @torch.inference_mode()
    def _ask(self, model: nn.Module) -> str:
        """A digest of the model's answer to one fixed picture: what its weights do not tell, such as the order of its
        classes, is in the answer.
        """
        size = self.image_size
        picture = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)).to(self.device)
        was_training = model.training
        model.eval()
        try:
            # `forward` itself: a compiled student would be compiled for a batch of one.
            logits = model.forward(picture).logits.float().cpu()
        finally:
            model.train(was_training)
        return hashlib.sha256(logits.numpy().tobytes()).hexdigest()


def build_score_cache(
    config: RunConfig, task: Task, data: TaskData, device: torch.device, say: Callable[[str], None]
) -> ScoreCache:
    """The cache of a run's output root for the validation items of its task."""
    folder = Path(config.output_root) / FOLDER
    return ScoreCache(folder, _fingerprint(config, task, data), device, task.image_size, say)


def save_scores(path: Path, scores: Sequence[Scores]) -> None:
    """Scores of several models, whole or not at all. Raises UserError where the disk refuses."""
    write_text_atomically(path, json.dumps([_to_json(each) for each in scores], allow_nan=False) + "\n")


def load_scores(path: Path) -> list[Scores]:
    """What `save_scores` wrote. Raises OSError where there is no such file, ValueError, KeyError or TypeError where it
    is another.
    """
    return [_from_json(each) for each in json.loads(path.read_text(encoding="utf-8"))]


def put_in_order(scores: Scores, sample_ids: Sequence[str]) -> Scores | None:
    """The rows in the order of these names (N,); None unless they are of these very samples.

    An earlier version kept them in another order. A name may come again, where a picture stands in for one that could
    not be read: its first row goes to its first place, and so on.
    """
    rows = {key: row for row, key in enumerate(_count_occurrences(scores.sample_ids))}
    keys = _count_occurrences(sample_ids)
    if len(rows) != len(keys) or any(key not in rows for key in keys):
        return None
    order = [rows[key] for key in keys]
    names = {field.name: tuple(getattr(scores, field.name)[row] for row in order) for field in fields(Scores)[2:]}
    return Scores(scores.logits[order], scores.labels[order], **names)


def _count_occurrences(names: Sequence[str]) -> list[tuple[str, int]]:
    """Each name with how often it came before."""
    seen: Counter[str] = Counter()
    keys: list[tuple[str, int]] = []
    for name in names:
        keys.append((name, seen[name]))
        seen[name] += 1
    return keys


def _list_newest_first(folder: Path) -> list[tuple[Path, os.stat_result]]:
    """The files of kept scores, whole or half written; what cannot be looked at is left out."""
    found: list[tuple[Path, os.stat_result]] = []
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.name.endswith((".json", TEMPORARY_SUFFIX)):
                with contextlib.suppress(OSError):
                    found.append((path, path.stat()))
    return sorted(found, key=lambda file: (file[1].st_mtime_ns, file[0].name), reverse=True)


def _fingerprint(config: RunConfig, task: Task, data: TaskData) -> str | None:
    """A digest of what decides the validation pictures: names, sizes and times of their files, the task's settings, and
    the first item's pixels, which change when the making of items does. None where that item cannot be read.
    """
    items, seed = data.validation, data.evaluation_seed
    try:
        first = items.make(0, build_generator(seed, 0, 0))
    except UnreadableItem:
        return None
    parts = [
        [_describe_file(items.name_of(index)) for index in range(len(items))],
        [_describe_file(str(path)) for path in data.depends_on],
        [seed, task.image_size, list(task.classes), config.task, config.task_section.model_dump(mode="json")],
        hashlib.sha256(np.ascontiguousarray(first.images).tobytes()).hexdigest(),
    ]
    return _digest(parts)


def _describe_file(name: str) -> list[Any]:
    try:
        about = Path(name).stat()
    except (OSError, ValueError):  # a task may name its items as it likes
        return [name]
    return [name, about.st_size, about.st_mtime_ns]


def _to_json(scores: Scores) -> dict[str, Any]:
    # float32 as the shortest text of its float64 value: read back, it is the same to the last bit.
    arrays = {"logits": scores.logits.tolist(), "labels": scores.labels.tolist()}
    return arrays | {field.name: list(getattr(scores, field.name)) for field in fields(Scores)[2:]}


def _from_json(stored: dict[str, Any]) -> Scores:
    names = {field.name: tuple(stored[field.name]) for field in fields(Scores)[2:]}
    return Scores(np.array(stored["logits"], np.float32), np.array(stored["labels"], np.int64), **names)


def _digest(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
