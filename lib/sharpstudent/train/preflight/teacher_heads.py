"""Heads of teachers that are fitted before stage 2, and kept with the run.

A classification head for a frozen backbone, fitted to the training set: multinomial logistic regression on the
backbone's pooled features (Alain, Bengio 2016, "Understanding intermediate layers using linear classifier probes").

Legend: N pictures, D features, C classes.

Heads of teachers that are fitted before stage 2: `weights/teacher_head_N.pth` in the run folder, one for each such
teacher. A resumed run and a replay take them up, so that a teacher never changes within a run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sharpstudent.checkpoint.store import load_checkpoint, save_checkpoint
from sharpstudent.config.resolve import name_weights_key
from sharpstudent.config.run_config import RunConfig
from sharpstudent.core.errors import Problem, UserError
from sharpstudent.core.random import build_generator
from sharpstudent.data.dataset import Samples
from sharpstudent.data.loader import load_batches
from sharpstudent.data.sampler import ItemKey, Shuffle
from sharpstudent.models.teachers import FrozenTeacher, Named
from sharpstudent.models.weights import compute_weights_hash, find_fitting_weights, is_head, match_tensors, read_tensors
from sharpstudent.train.validate import EVALUATION_SAMPLES, Validator

# A linear layer needs no more: some 4 pictures a weight of EfficientNet-B4's head (1792 features), 60 MB of them, and
# no more time than two or three epochs of a small set.
MOST_ITEMS = 4096
FOLDS = 3
# How little the weights are held back, from stiff to loose. Chosen on people left out: with more features than people
# the loosest fit is right on all pictures of the training set, and far too sure of all others.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
STRENGTH = 1e-2  # where there are too few people to choose it
MOST_ROUNDS = 1000  # of the solver, which needs some dozens


@dataclass(frozen=True)
class Pooled:
    """values: of each teacher float32 (N, D); labels int64 (N,); N ids of samples and people; items: they came from."""

    values: tuple[NDArray[np.float32], ...]
    labels: NDArray[np.int64]
    sample_ids: tuple[str, ...]
    identities: tuple[str, ...]
    items: int


@dataclass(frozen=True)
class FittedHead:
    """weight float32 (C, D), bias (C,): logits are features @ weight.T + bias. accuracy: on what it was fitted to,
    0..1; strength: of STRENGTHS, was_chosen: on people left out; has_converged: the solver came to its end.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    accuracy: float
    strength: float
    was_chosen: bool
    has_converged: bool


def draw_keys(source: Samples, seed: int) -> list[ItemKey]:
    """The training items to fit to: all, or MOST_ITEMS drawn by the seed. With the randomness of epoch 0, which no
    training epoch has.
    """
    shuffle = Shuffle(len(source), build_generator(seed, 0, 0, "order"))
    drawn = shuffle(np.arange(min(len(source), MOST_ITEMS)))
    return [ItemKey(0, index) for index in sorted(drawn)]


@torch.inference_mode()
def collect_pooled(validator: Validator, teachers: Sequence[FrozenTeacher]) -> Pooled:
    """What the heads of these teachers take in, of the training items, in one pass. Moves no random state.

    Raises what `validator.between_batches` raises to stop.
    """
    config, source = validator.run.config, validator.data.train
    keys = draw_keys(source, config.seed)
    values: list[list[torch.Tensor]] = [[] for _ in teachers]
    labels: list[NDArray[np.int64]] = []
    sample_ids: list[str] = []
    identities: list[str] = []
    batches = [keys[start : start + EVALUATION_SAMPLES] for start in range(0, len(keys), EVALUATION_SAMPLES)]
    loader = load_batches(
        source,
        batches,
        seed=config.seed,
        num_workers=config.num_workers,
        timeout_s=config.loader_timeout,
        collate=validator.task.collate,
    )
    with contextlib.closing(loader):
        for batch, unreadable in loader:
            validator.between_batches()
            validator.report_unreadable(unreadable)
            inputs = batch.to(validator.run.device).inputs
            for teacher, pooled in zip(teachers, values, strict=True):
                pooled.append(teacher.embed(inputs).float().cpu())
            labels.append(batch.targets["label"].numpy().copy())  # a view would hold the batch's shared memory
            sample_ids += batch.rows["id"]
            identities += batch.rows["group"]
    return Pooled(
        tuple(torch.cat(pooled).numpy() for pooled in values),
        np.concatenate(labels),
        tuple(sample_ids),
        tuple(identities),
        len(keys),
    )


def fit_head(features: NDArray[np.float32], labels: NDArray[np.int64], identities: Sequence[str]) -> FittedHead:
    """The head for features (N, D), finite, and labels (N,), 0..C-1, each class there. The same arguments give the same
    bits on one machine.

    Features are standardised for the fit, and the scaling is folded into the weights. Two classes: the logits are minus
    and plus half of the decision.
    """
    # Imported here, as in metrics/binary.py: it takes a second.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    values = features.astype(np.float64)
    fit: Any = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=MOST_ROUNDS))
    folds = _split(labels, identities)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # told by `has_converged`
        if folds:
            search = {"logisticregression__C": STRENGTHS}
            fit = GridSearchCV(fit, search, scoring="neg_log_loss", cv=folds).fit(values, labels).best_estimator_
        else:
            fit.fit(values, labels)
    scaler, regression = fit[0], fit[1]
    weight = regression.coef_ / scaler.scale_
    bias = regression.intercept_ - weight @ scaler.mean_
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])
    weight, bias = weight.astype(np.float32), bias.astype(np.float32)
    choices = (features @ weight.T + bias).argmax(1)
    return FittedHead(
        weight,
        bias,
        accuracy=float((choices == labels).mean()),
        strength=float(regression.C),
        was_chosen=bool(folds),
        has_converged=int(np.max(regression.n_iter_)) < MOST_ROUNDS,
    )


def _split(labels: NDArray[np.int64], identities: Sequence[str]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Folds that share no person, each with every class on both sides; none where there are too few people for that."""
    from sklearn.model_selection import StratifiedGroupKFold

    if len(set(identities)) < FOLDS or np.unique(labels, return_counts=True)[1].min() < FOLDS:
        return []
    folds = list(StratifiedGroupKFold(FOLDS).split(np.zeros(len(labels)), labels, list(identities)))
    classes = len(np.unique(labels))
    is_whole = all(len(np.unique(labels[side])) == classes for fold in folds for side in fold)
    return folds if is_whole else []


FORMAT = 1
MOST_NAMES = 3  # of pictures in a message


@dataclass(frozen=True)
class _Wanted:
    """A teacher whose head is to be fitted: its place in the config, what messages call it, where its head is kept, and
    a digest of everything that its features depend on.
    """

    index: int
    name: str
    teacher: FrozenTeacher
    path: Path
    body: str


def settle_heads(
    validator: Validator, teachers: Sequence[Named], *, must_be_kept: bool, say: Callable[[str], None]
) -> list[str]:
    """Give each teacher whose head is to be fitted that of the run folder, or one that is fitted now and kept there.
    Returns the names of those that were fitted now; moves no random state that training uses.

    must_be_kept: training has begun with them, so that one which is gone, or was fitted to other features, is an error.
    Raises UserError for it, for damaged files and where nothing can be fitted; what `validator.between_batches` raises.
    """
    run = validator.run
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
        _fit(validator, missing, say)
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
        if isinstance(teacher, FrozenTeacher) and (section := config.teachers[index]).head == "fitted":
            head = teacher.head
            teacher.replace_head(torch.zeros_like(head.weight), torch.zeros_like(head.bias))
            shown = json.dumps([section.input_size, section.mean, section.std])
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


def _fit(validator: Validator, missing: Sequence[_Wanted], say: Callable[[str], None]) -> None:
    """One pass over the training items for all of them; then fit, keep and tell each."""
    for wanted in missing:
        replaced = _find_head_in_file(validator.run.config, wanted)
        if replaced is not None:
            say(f'{wanted.name}: the head that {replaced} holds is replaced, as "head": "fitted" asks')
    start = time.monotonic()
    pooled = collect_pooled(validator, [wanted.teacher for wanted in missing])
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
        say(_describe(wanted, fitted, pooled, len(validator.data.train), took))


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
