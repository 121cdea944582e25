"""Heads of teachers that are fitted before stage 2: `weights/teacher_head_N.pth` in the run folder, one for each such
teacher. A resumed run and a replay take them up, so that a teacher never changes within a run.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lib.checkpoint.store import load_checkpoint, save_checkpoint
from lib.config.sections import RunConfig
from lib.config.teachers import name_weights_key
from lib.engine.head_fit import MOST_ITEMS, FittedHead, Pooled, collect_pooled, fit_head
from lib.engine.judge import Judge
from lib.engine.named import Named
from lib.errors import Problem, UserError
from lib.models.teachers import AdaptedTeacher
from lib.models.weights import compute_weights_hash, find_fitting_weights, is_head, match_tensors, read_tensors

FORMAT = 1
MOST_NAMES = 3  # of pictures in a message


@dataclass(frozen=True)
class _Wanted:
    """A teacher whose head is to be fitted: its place in the config, what messages call it, where its head is kept, and
    a digest of everything that its features depend on.
    """

    index: int
    name: str
    teacher: AdaptedTeacher
    path: Path
    body: str


def settle_heads(
    judge: Judge, teachers: Sequence[Named], *, must_be_kept: bool, say: Callable[[str], None]
) -> list[str]:
    """Give each teacher whose head is to be fitted that of the run folder, or one that is fitted now and kept there.
    Returns the names of those that were fitted now; moves no random state that training uses.

    must_be_kept: training has begun with them, so that one which is gone, or was fitted to other features, is an error.
    Raises UserError for it, for damaged files and where nothing can be fitted; what `judge.between_batches` raises.
    """
    run = judge.run
    missing: list[_Wanted] = []
    for wanted in _find_wanted(run.config, teachers, run.weights_folder):
        problem = _take_up(wanted)
        if problem is None:
            say(f"{wanted.name}: its fitted head is that of {wanted.path}")
        elif must_be_kept:
            raise UserError(problem)
        else:
            missing.append(wanted)
    if missing:
        _fit(judge, missing, say)
    return [wanted.name for wanted in missing]


def take_up_heads(
    config: RunConfig, teachers: Sequence[Named], weights_folder: Path, *, say: Callable[[str], None]
) -> None:
    """Give the teachers of a replay the heads that their run fitted; one that was fitted to other features serves too,
    and is told. Raises UserError for one that is gone or damaged.
    """
    for wanted in _find_wanted(config, teachers, weights_folder):
        if not wanted.path.is_file():
            raise UserError(_explain_gone(wanted))
        problem = _take_up(wanted)
        if problem is not None:
            say(f"warning: {problem.where} {problem.what}")
            _put_on(wanted, load_checkpoint(wanted.path).tensors)


def describe_fits(config: RunConfig, teachers: Sequence[Named], items: int) -> list[str]:
    """What would be fitted, for a dry run; until then these heads are zero."""
    on = f"the {items}" if items <= MOST_ITEMS else f"{MOST_ITEMS} of the {items}"
    return [
        f"the head of {wanted.name} would be fitted on {on} training items; this batch met one of zeros in its place"
        for wanted in _find_wanted(config, teachers, Path())
    ]


def _find_wanted(config: RunConfig, teachers: Sequence[Named], weights_folder: Path) -> list[_Wanted]:
    """Clears the heads: a random one never teaches, and the digest is of the rest."""
    found: list[_Wanted] = []
    for index, (name, teacher) in enumerate(teachers):
        if isinstance(teacher, AdaptedTeacher) and (section := config.teachers[index]).head == "fitted":
            head = teacher.head
            teacher.replace_head(torch.zeros_like(head.weight), torch.zeros_like(head.bias))
            shown = json.dumps([teacher.input_size, section.mean, section.std])
            body = hashlib.sha256(f"{compute_weights_hash(teacher.model)} {shown}".encode()).hexdigest()
            path = weights_folder / f"teacher_head_{index + 1}.pth"
            found.append(_Wanted(index, name, teacher, path, body))
    return found


def _take_up(wanted: _Wanted) -> Problem | None:
    """Put the kept head on the teacher; a Problem where there is none, or none of this teacher. Raises UserError for a
    damaged file.
    """
    if not wanted.path.is_file():
        return _explain_gone(wanted)
    kept = load_checkpoint(wanted.path)
    if kept.about.get("body") != wanted.body:
        return Problem(
            str(wanted.path),
            f"was fitted to other features than {wanted.name} has now: its file, `init`, `input_size`, `mean` or `std` "
            "have changed",
            remedy="give the run its teacher back, or fit the head anew with --allow changed-config",
        )
    _put_on(wanted, kept.tensors)
    return None


def _put_on(wanted: _Wanted, tensors: dict[str, Tensor]) -> None:
    head = wanted.teacher.head
    weight, bias = tensors.get("weight"), tensors.get("bias")
    if weight is None or bias is None or (weight.shape, bias.shape) != (head.weight.shape, head.bias.shape):
        raise UserError(Problem(str(wanted.path), f"is no head of {wanted.name}", remedy="restore the file"))
    wanted.teacher.replace_head(weight, bias)


def _explain_gone(wanted: _Wanted) -> Problem:
    return Problem(
        str(wanted.path),
        f"does not exist, and it holds the head with which {wanted.name} has taught",
        remedy="restore the file, or fit the head anew with --allow changed-config",
    )


def _fit(judge: Judge, missing: Sequence[_Wanted], say: Callable[[str], None]) -> None:
    """One pass over the training items for all of them; then fit, keep and tell each."""
    for wanted in missing:
        replaced = _find_head_in_file(judge.run.config, wanted)
        if replaced is not None:
            say(f'{wanted.name}: the head that {replaced} holds is replaced, as "head": "fitted" asks')
    start = time.monotonic()
    pooled = collect_pooled(judge, [wanted.teacher for wanted in missing])
    seconds = (time.monotonic() - start) / len(missing)
    for wanted, features in zip(missing, pooled.values, strict=True):
        _check(wanted, features, pooled)
        start = time.monotonic()
        fitted = fit_head(features, pooled.labels, pooled.identities)
        weight, bias = torch.from_numpy(fitted.weight), torch.from_numpy(fitted.bias)
        wanted.teacher.replace_head(weight, bias)
        about = {"format": FORMAT, "teacher": wanted.name, "body": wanted.body, "items": pooled.items}
        about |= {"pictures": len(features), "accuracy": fitted.accuracy, "strength": fitted.strength}
        save_checkpoint(wanted.path, {"weight": weight, "bias": bias}, about=about)
        took = seconds + time.monotonic() - start
        say(_describe(wanted, fitted, pooled, len(judge.data.train), took))


def _describe(wanted: _Wanted, fitted: FittedHead, pooled: Pooled, items: int, seconds: float) -> str:
    drawn = f"{pooled.items} of {items} training items, drawn by the seed" if pooled.items < items else f"{items} items"
    how = "chosen on people left out" if fitted.was_chosen else "too few people to choose it"
    more = "" if fitted.has_converged else "; the fit stopped before it had converged"
    return (
        f"{wanted.name}: head fitted on {drawn} ({len(pooled.labels)} pictures) of the training set, accuracy there "
        f"{fitted.accuracy:.1%}, strength {fitted.strength:g} ({how}), {seconds:.1f} s{more}"
    )


def _find_head_in_file(config: RunConfig, wanted: _Wanted) -> Path | None:
    """The teacher's file, where it holds a head for these classes."""
    pattern, key = config.teachers[wanted.index].weights, name_weights_key(config, wanted.index)
    if pattern is None:
        return None
    path, _ = find_fitting_weights(pattern, wanted.teacher.model, key=key)
    match = match_tensors(wanted.teacher.model, read_tensors(path))
    return None if any(is_head(name) for name in match.missing) else path


def _check(wanted: _Wanted, features: np.ndarray, pooled: Pooled) -> None:
    """Raise UserError where nothing can be fitted."""
    where = f"head of {wanted.name}"
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        names = ", ".join(pooled.sample_ids[row] for row in bad[:MOST_NAMES])
        raise UserError(
            Problem(
                where,
                "cannot be fitted: its features of training pictures are not numbers",
                got=f"{len(bad)} of {len(features)} pictures, such as {names}",
                remedy="its weights are damaged or were made for other pictures: name another file for it",
            )
        )
    classes, there = wanted.teacher.head.out_features, np.unique(pooled.labels)
    if len(there) < classes:
        raise UserError(
            Problem(
                where,
                f"cannot be fitted: of {classes} classes the {len(features)} training pictures show {len(there)}",
                expected="pictures of every class in the training set",
                got=f"labels {', '.join(map(str, there))}",
                remedy="check the training data, or give a teacher whose file holds a head",
            )
        )
