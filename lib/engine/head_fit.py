"""A classification head for a frozen backbone, fitted to the training set: multinomial logistic regression on the
backbone's pooled features (Alain, Bengio 2016, "Understanding intermediate layers using linear classifier probes").

Legend: N pictures, D features, C classes.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lib.data.items import ItemSource
from lib.data.loader import load_batches
from lib.data.order import ItemKey, Shuffle
from lib.engine.judge import EVALUATION_ITEMS, Judge
from lib.models.teachers import AdaptedTeacher
from lib.random import build_generator

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


def draw_keys(source: ItemSource, seed: int) -> list[ItemKey]:
    """The training items to fit to: all, or MOST_ITEMS drawn by the seed. With the randomness of epoch 0, which no
    training epoch has.
    """
    shuffle = Shuffle(len(source), build_generator(seed, 0, 0, "order"))
    drawn = shuffle(np.arange(min(len(source), MOST_ITEMS)))
    return [ItemKey(0, index) for index in sorted(drawn)]


@torch.inference_mode()
def collect_pooled(judge: Judge, teachers: Sequence[AdaptedTeacher]) -> Pooled:
    """What the heads of these teachers take in, of the training items, in one pass. Moves no random state.

    Raises what `judge.between_batches` raises to stop.
    """
    config, source = judge.run.config, judge.data.train
    keys = draw_keys(source, config.seed)
    values: list[list[torch.Tensor]] = [[] for _ in teachers]
    labels: list[NDArray[np.int64]] = []
    sample_ids: list[str] = []
    identities: list[str] = []
    batches = [keys[start : start + EVALUATION_ITEMS] for start in range(0, len(keys), EVALUATION_ITEMS)]
    loader = load_batches(
        source, batches, seed=config.seed, num_workers=config.num_workers, timeout_s=config.loader_timeout
    )
    with contextlib.closing(loader):
        for batch, unreadable in loader:
            judge.between_batches()
            judge.report_unreadable(unreadable)
            inputs = batch.inputs.to(judge.run.device)
            for teacher, pooled in zip(teachers, values, strict=True):
                pooled.append(teacher.pool(inputs).float().cpu())
            labels.append(batch.labels.numpy().copy())  # a view would hold the batch's shared memory
            sample_ids += batch.sample_ids
            identities += batch.identities
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
    # Imported here, as in lib/metrics/auc.py: it takes a second.
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
