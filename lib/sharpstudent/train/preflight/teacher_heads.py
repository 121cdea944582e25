"""Classification heads of frozen teachers, fitted to the training set before stage 2 and kept with the run.

A head is a multinomial logistic regression on the backbone's pooled features (Alain, Bengio 2016, "Understanding
intermediate layers using linear classifier probes"). It is saved as `weights/teacher_head_N.pth` in the run
folder. A resumed run and a replay load it from there, so that a teacher never changes within a run.

Legend: N pictures, D features, C classes.
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
from sharpstudent.data.sampler import SampleKey, Shuffle
from sharpstudent.models.teachers import FrozenTeacher, Named
from sharpstudent.models.weight_files import read_tensors
from sharpstudent.models.weights import compute_weights_hash, find_fitting_weights, is_head, match_tensors
from sharpstudent.train.validate import EVALUATION_SAMPLES, Validator

# Enough for a linear layer: some 4 pictures for each of the 1792 features of EfficientNet-B4, with 60 MB of features.
# Computing them takes no longer than two or three epochs of a small set.
MOST_SAMPLES = 4096
FOLDS = 3
# Inverse regularisation (C of scikit-learn), from strong to weak. Chosen by cross-validation over
# people: with more features than people, the weakest one fits all training pictures and is overconfident elsewhere.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
STRENGTH = 1e-2  # used when there are too few people for cross-validation
MOST_ROUNDS = 1000  # of the solver, which usually needs some dozens
FORMAT = 1
MOST_NAMES = 3  # of pictures in a message


@dataclass(frozen=True)
class Pooled:
    """The inputs of the heads of several teachers for the same N pictures.

    Attributes:
        values: The pooled features of each teacher, float32 (N, D).
        labels: The class indices, int64 (N,).
        sample_ids: Names of the N pictures.
        groups: The person of each picture.
        items: The number of samples that the pictures come from.
    """

    values: tuple[NDArray[np.float32], ...]
    labels: NDArray[np.int64]
    sample_ids: tuple[str, ...]
    groups: tuple[str, ...]
    items: int


@dataclass(frozen=True)
class FittedHead:
    """A linear head: logits are features @ weight.T + bias.

    Attributes:
        weight: float32 (C, D).
        bias: float32 (C,).
        accuracy: The accuracy on the pictures that it was fitted to, 0..1.
        strength: The inverse regularisation, one of STRENGTHS.
        was_chosen: Whether the strength was chosen by cross-validation.
        has_converged: Whether the solver has converged.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    accuracy: float
    strength: float
    was_chosen: bool
    has_converged: bool


def draw_keys(source: Samples, seed: int) -> list[SampleKey]:
    """Choose the training samples to fit to: all of them, or MOST_SAMPLES drawn by the seed.

    Args:
        source: The training split.
        seed: The seed of the run.

    Returns:
        Keys with the random draws of epoch 0, which differ from those of all training epochs.
    """
    shuffle = Shuffle(len(source), build_generator(seed, 0, 0, "order"))
    drawn = shuffle(np.arange(min(len(source), MOST_SAMPLES)))
    return [SampleKey(0, index) for index in sorted(drawn)]


@torch.inference_mode()
def collect_pooled(validator: Validator, teachers: Sequence[FrozenTeacher]) -> Pooled:
    """Compute the inputs of the teachers' heads in one pass over the training samples. Random states do not change.

    Args:
        validator: The validator of the run.
        teachers: The teachers whose heads are to be fitted.
    """
    config, source = validator.run.config, validator.data.train
    keys = draw_keys(source, config.seed)
    values: list[list[Tensor]] = [[] for _ in teachers]
    labels: list[NDArray[np.int64]] = []
    sample_ids: list[str] = []
    groups: list[str] = []
    loader = load_batches(
        source,
        [keys[start : start + EVALUATION_SAMPLES] for start in range(0, len(keys), EVALUATION_SAMPLES)],
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
            labels.append(batch.targets["label"].numpy().copy())  # a view would keep the batch's shared memory in use
            sample_ids += batch.rows["id"]
            groups += batch.rows["group"]
    joined = tuple(torch.cat(pooled).numpy() for pooled in values)
    return Pooled(joined, np.concatenate(labels), tuple(sample_ids), tuple(groups), len(keys))


def fit_head(features: NDArray[np.float32], labels: NDArray[np.int64], groups: Sequence[str]) -> FittedHead:
    """Fit a head. On one machine, the same arguments give bit-identical results.

    Features are standardised for the fit, and the scaling is folded into the weights. With two classes, the logits are
    minus and plus half of the decision function.

    Args:
        features: The pooled features (N, D), all finite.
        labels: The class indices (N,), 0..C-1; every class occurs.
        groups: The person of each picture.
    """
    # Imported here, as in metrics/binary.py, because the import takes a second.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    values = features.astype(np.float64)
    fit: Any = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=MOST_ROUNDS))
    folds = _split(labels, groups)
    if folds:
        fit = GridSearchCV(fit, {"logisticregression__C": STRENGTHS}, scoring="neg_log_loss", cv=folds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `has_converged` reports it
        fit.fit(values, labels)
    scaler, regression = getattr(fit, "best_estimator_", fit)
    weight = regression.coef_ / scaler.scale_
    bias = regression.intercept_ - weight @ scaler.mean_
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])
    weight, bias = weight.astype(np.float32), bias.astype(np.float32)
    accuracy = float(((features @ weight.T + bias).argmax(1) == labels).mean())
    has_converged = int(np.max(regression.n_iter_)) < MOST_ROUNDS
    return FittedHead(weight, bias, accuracy, float(regression.C), bool(folds), has_converged)


def _split(labels: NDArray[np.int64], groups: Sequence[str]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Split into folds that share no person and have every class on both sides; [] if there are too few people."""
    from sklearn.model_selection import StratifiedGroupKFold

    if len(set(groups)) < FOLDS or np.unique(labels, return_counts=True)[1].min() < FOLDS:
        return []
    folds = list(StratifiedGroupKFold(FOLDS).split(np.zeros(len(labels)), labels, list(groups)))
    classes = len(np.unique(labels))
    return folds if all(len(np.unique(labels[side])) == classes for fold in folds for side in fold) else []


@dataclass(frozen=True)
class _KeptHead:
    """The fitted head of one teacher and its file in the run folder.

    Attributes:
        index: The index of the teacher in the config.
        name: The name of the teacher in messages.
        teacher: The teacher.
        path: The file of the head.
        body: A digest of everything that the teacher's features depend on.
    """

    index: int
    name: str
    teacher: FrozenTeacher
    path: Path
    body: str

    def restore(self, *, force: bool = False) -> Problem | None:
        """Load the saved head into the teacher.

        Args:
            force: Load it even if it was fitted to other features.

        Returns:
            The problem if there is no saved head, or if it was fitted to other features; else None.

        Raises:
            UserError: For a damaged file, and for the head of another network.
        """
        if not self.path.is_file():
            return Problem(
                str(self.path),
                f"does not exist, and it holds the head with which {self.name} has taught",
                remedy="restore the file, or fit the head anew with --allow changed-config",
            )
        kept, problem = load_checkpoint(self.path), None
        if kept.about.get("body") != self.body:
            problem = Problem(
                str(self.path),
                f"was fitted to other features than {self.name} has now: its file, `init`, `input_size`, `mean` or "
                "`std` have changed",
                remedy="give the run its teacher back, or fit the head anew with --allow changed-config",
            )
        if problem is None or force:
            head, weight, bias = self.teacher.head, kept.tensors.get("weight"), kept.tensors.get("bias")
            if weight is None or bias is None or (weight.shape, bias.shape) != (head.weight.shape, head.bias.shape):
                raise UserError.about(str(self.path), f"is no head of {self.name}", remedy="restore the file")
            self.teacher.replace_head(weight, bias)
        return problem


def settle_heads(
    validator: Validator, teachers: Sequence[Named], *, must_be_kept: bool, say: Callable[[str], None]
) -> list[str]:
    """Load the heads that are to be fitted from the run folder; fit and save those that are not there.

    The random states of training do not change.

    Args:
        validator: The validator of the run.
        teachers: All teachers of the run, in the order of the config.
        must_be_kept: Whether a head that is gone, or was fitted to other features, is an error, because training has
            begun with it.
        say: Prints a line.

    Returns:
        The names of the teachers whose heads were fitted now.

    Raises:
        UserError: When a file is damaged, and when no head can be fitted.
    """
    run = validator.run
    missing: list[_KeptHead] = []
    for kept in _find_heads(run.config, teachers, run.weights_folder):
        problem = kept.restore()
        if problem is None:
            say(f"{kept.name}: its fitted head is that of {kept.path}")
        elif must_be_kept:
            raise UserError(problem)
        else:
            missing.append(kept)
    if missing:
        _fit(validator, missing, say)
    return [kept.name for kept in missing]


def restore_heads(
    config: RunConfig, teachers: Sequence[Named], weights_folder: Path, *, say: Callable[[str], None]
) -> None:
    """Load the heads that a run fitted, to replay one of its steps.

    A head that was fitted to other features is loaded with a warning.

    Args:
        config: The config of the run.
        teachers: All teachers of the run, in the order of the config.
        weights_folder: The folder of the weights of the run.
        say: Prints a line.

    Raises:
        UserError: When the file of a head is missing or damaged.
    """
    for kept in _find_heads(config, teachers, weights_folder):
        problem = kept.restore(force=True)
        if problem is not None:
            if not kept.path.is_file():
                raise UserError(problem)
            say(f"warning: {problem.where} {problem.what}")


def describe_fits(config: RunConfig, teachers: Sequence[Named], items: int) -> list[str]:
    """Describe which heads would be fitted, for a dry run, in which these heads are zero.

    Args:
        config: The config of the run.
        teachers: All teachers of the run, in the order of the config.
        items: The number of training samples.
    """
    on = f"the {items}" if items <= MOST_SAMPLES else f"{MOST_SAMPLES} of the {items}"
    return [
        f"the head of {kept.name} would be fitted on {on} training samples; this batch met one of zeros in its place"
        for kept in _find_heads(config, teachers, Path())
    ]


def _find_heads(config: RunConfig, teachers: Sequence[Named], weights_folder: Path) -> list[_KeptHead]:
    """Find the heads to fit, and set them to zero, so that no random weights affect the teacher's digest."""
    found: list[_KeptHead] = []
    for index, (name, teacher) in enumerate(teachers):
        if isinstance(teacher, FrozenTeacher) and (section := config.teachers[index]).head == "fitted":
            head = teacher.head
            teacher.replace_head(torch.zeros_like(head.weight), torch.zeros_like(head.bias))
            shown = json.dumps([section.input_size, section.mean, section.std])
            body = hashlib.sha256(f"{compute_weights_hash(teacher.model)} {shown}".encode()).hexdigest()
            found.append(_KeptHead(index, name, teacher, weights_folder / f"teacher_head_{index + 1}.pth", body))
    return found


def _fit(validator: Validator, missing: Sequence[_KeptHead], say: Callable[[str], None]) -> None:
    """Fit and save several heads, in one pass over the training samples."""
    for kept in missing:
        replaced = _find_head_in_file(validator.run.config, kept)
        if replaced is not None:
            say(f'{kept.name}: the head that {replaced} holds is replaced, as "head": "fitted" asks')
    start = time.monotonic()
    pooled = collect_pooled(validator, [kept.teacher for kept in missing])
    seconds = (time.monotonic() - start) / len(missing)
    for kept, features in zip(missing, pooled.values, strict=True):
        _check(kept, features, pooled)
        start = time.monotonic()
        fitted = fit_head(features, pooled.labels, pooled.groups)
        weight, bias = torch.from_numpy(fitted.weight), torch.from_numpy(fitted.bias)
        kept.teacher.replace_head(weight, bias)
        about = {"format": FORMAT, "teacher": kept.name, "body": kept.body, "items": pooled.items}
        about |= {"pictures": len(features), "accuracy": fitted.accuracy, "strength": fitted.strength}
        save_checkpoint(kept.path, {"weight": weight, "bias": bias}, about=about)
        text = _describe(fitted, pooled, len(validator.data.train))
        say(f"{kept.name}: {text.format(seconds=seconds + time.monotonic() - start)}")


def _describe(fitted: FittedHead, pooled: Pooled, items: int) -> str:
    """Describe a fitted head and its data; `{seconds}` stands for the duration."""
    drawn = (
        f"{pooled.items} of {items} training samples, drawn by the seed" if pooled.items < items else f"{items} samples"
    )
    how = "chosen on people left out" if fitted.was_chosen else "too few people to choose it"
    more = "" if fitted.has_converged else "; the fit stopped before it had converged"
    return (
        f"head fitted on {drawn} ({len(pooled.labels)} pictures) of the training set, accuracy there "
        f"{fitted.accuracy:.1%}, strength {fitted.strength:g} ({how}), {{seconds:.1f}} s{more}"
    )


def _find_head_in_file(config: RunConfig, kept: _KeptHead) -> Path | None:
    """Return the teacher's file if it holds a head for these classes, else None."""
    pattern, key = config.teachers[kept.index].weights, name_weights_key(config, kept.index)
    if pattern is None:
        return None
    path, _ = find_fitting_weights(pattern, kept.teacher.model, key=key)
    match = match_tensors(kept.teacher.model, read_tensors(path))
    return None if any(is_head(name) for name in match.missing) else path


def _check(kept: _KeptHead, features: NDArray[np.float32], pooled: Pooled) -> None:
    """Raise UserError when no head can be fitted to this data."""
    where, classes, found = f"head of {kept.name}", kept.teacher.head.out_features, np.unique(pooled.labels)
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise UserError.about(
            where,
            "cannot be fitted: its features of training pictures are not numbers",
            got=f"{len(bad)} of {len(features)} pictures, such as "
            + ", ".join(pooled.sample_ids[row] for row in bad[:MOST_NAMES]),
            remedy="its weights are damaged or were made for other pictures: name another file for it",
        )
    if len(found) < classes:
        raise UserError.about(
            where,
            f"cannot be fitted: of {classes} classes the {len(features)} training pictures show {len(found)}",
            expected="pictures of every class in the training set",
            got=f"labels {', '.join(map(str, found))}",
            remedy="check the training data, or give a teacher whose file holds a head",
        )
