"""Checks the inputs of metrics, with errors that name the samples; and turns names into numbers.

With numbers in place of names, a million samples can be counted and split without comparing texts.

Legend: N samples, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sharpstudent.core.types import Table


def number_names(values: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Return the n distinct names, sorted, and for each of the N values the number of its name, 0 to n - 1 (N,)."""
    names = sorted({str(value) for value in values})
    number_of = {name: number for number, name in enumerate(names)}
    return names, np.fromiter((number_of[value] for value in values), np.int64, count=len(values))


def number_pairs(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the distinct pairs of two columns.

    Args:
        first: (N,), whole numbers from 0.
        second: (N,), whole numbers from 0.

    Returns:
        The number of each row's pair, 0 to n - 1 (N,), in the order of the pairs.
    """
    _, numbers = np.unique(first * (int(second.max()) + 1) + second, return_inverse=True)
    return numbers.astype(np.int64)


SHOWN = 5  # samples named in a message; the rest are counted
NO_SAMPLES = "no samples at all: an empty split has no metric"


class MetricError(ValueError):
    """A metric is undefined on these samples. No substitute such as 0.5 may be used."""


def check_samples(
    scores: ArrayLike, labels: ArrayLike, *, sample_ids: Sequence[str] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Check the scores and labels of two classes.

    Args:
        scores: (N,), one or more, finite.
        labels: (N,), 0 and 1.
        sample_ids: N names for error messages.

    Returns:
        Scores as float64 (N,) and labels as int64 (N,).

    Raises:
        MetricError: Naming samples, for anything else.
    """
    score_array, label_array = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if score_array.ndim != 1 or score_array.shape != label_array.shape:
        shapes = f"scores {score_array.shape}, labels {label_array.shape}"
        raise MetricError(f"scores and labels must be two lists of the same length, got {shapes}")
    if sample_ids is not None and len(sample_ids) != len(score_array):
        raise MetricError(f"{len(sample_ids)} sample ids for {len(score_array)} samples")
    _refuse(~np.isfinite(score_array), score_array, "scores that are not finite", sample_ids)
    _refuse(~np.isin(label_array, (0, 1)), label_array, "labels that are neither 0 nor 1", sample_ids)
    return score_array, label_array.astype(np.int64)


def check_two_classes(
    scores: ArrayLike, labels: ArrayLike, *, sample_ids: Sequence[str] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Check scores and labels as `check_samples` does, and that both classes occur.

    Args:
        scores: (N,), one or more, finite.
        labels: (N,), 0 and 1, both of which occur.
        sample_ids: N names for error messages.

    Returns:
        Scores as float64 (N,) and labels as int64 (N,).

    Raises:
        MetricError: Naming samples, for anything else.
    """
    score_array, label_array = check_samples(scores, labels, sample_ids=sample_ids)
    check_both_classes(label_array, sample_ids=sample_ids)
    return score_array, label_array


def check_logits(logits: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Check the logits and labels of C classes.

    Args:
        logits: (N, C), finite, of one sample or more and two classes or more.
        labels: (N,), 0 to C - 1.

    Returns:
        Logits as float64 (N, C) and labels as int64 (N,).

    Raises:
        MetricError: Naming samples by their number, for anything else.
    """
    values, label_array = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if values.ndim != 2 or values.shape[1] < 2 or label_array.shape != values.shape[:1]:
        shapes = f"logits {values.shape}, labels {label_array.shape}"
        raise MetricError(f"logits must be (samples, classes) with a label for each sample, got {shapes}")
    bad = np.logical_not(np.isfinite(values))
    first_bad = values[np.arange(len(values)), bad.argmax(axis=1)]
    _refuse(np.any(bad, axis=1, keepdims=True)[:, 0], first_bad, "samples with logits that are not finite")
    _refuse(~np.isin(label_array, range(values.shape[1])), label_array, f"labels outside 0..{values.shape[1] - 1}")
    return values, label_array.astype(np.int64)


def check_both_classes(labels: NDArray[np.int64], *, sample_ids: Sequence[str] | None = None) -> None:
    """Check that 0 and 1 both occur.

    Args:
        labels: (N,), one or more.
        sample_ids: N names for the error message.

    Raises:
        MetricError: Where all labels are equal.
    """
    if labels.min() == labels.max():
        such = "" if sample_ids is None else f" ({name_some(sample_ids)})"
        raise MetricError(
            f"one class only: all {len(labels)} samples have label {labels[0]}{such}; this metric needs both, 0 and 1"
        )


def explain_undefined(table: Table, strata: str | None) -> str:
    """Say why a metric has no value on a table.

    Args:
        table: The rows.
        strata: The column of classes, where the metric needs all of them.

    Returns:
        The reason, with the names of some rows.
    """
    names = [str(name) for name in table["id"]]
    if not names:
        return NO_SAMPLES
    if strata is not None and bool((table[strata] == table[strata][0]).all()):
        return f"one class only: all {len(names)} samples have {strata} {table[strata][0]} ({name_some(names)})"
    return f"it is undefined on these {len(names)} samples ({name_some(names)})"


def check_class_occurs(labels: NDArray[np.int64], label: int) -> None:
    """Check that a class occurs.

    Args:
        labels: (N,), one or more.
        label: The class.

    Raises:
        MetricError: Where no sample has it.
    """
    if not bool((labels == label).any()):
        raise MetricError(f"none of the {len(labels)} samples has label {label}; this metric is about those")


def check_threshold(threshold: float) -> None:
    """Raise MetricError unless the threshold is a finite number."""
    if not np.isfinite(threshold):
        raise MetricError(f"the threshold must be finite, got {threshold}")


def check_rate(rate: float) -> None:
    """Raise MetricError unless the rate is a share above 0 and below 1."""
    if not 0.0 < rate < 1.0:
        raise MetricError(f"a wanted rate must lie between 0 and 1, got {rate}")


def name_some(names: Sequence[str], *, of: int | None = None) -> str:
    """Name the first few and count the rest.

    Args:
        names: What is named.
        of: How many there are in all, where `names` are the first ones only.

    Returns:
        The names, and how many more there are.
    """
    more = (len(names) if of is None else of) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _refuse(
    bad: NDArray[np.bool_], values: NDArray[np.generic], what: str, sample_ids: Sequence[str] | None = None
) -> None:
    """Raise MetricError for no samples at all, and for those that are bad."""
    if len(values) == 0:
        raise MetricError(NO_SAMPLES)
    positions = np.flatnonzero(bad).tolist()
    if not positions:
        return
    names = [
        f"{sample_ids[i] if sample_ids is not None else f'sample {i}'} ({values[i].item()})" for i in positions[:SHOWN]
    ]
    raise MetricError(f"{len(positions)} of {len(values)} {what}: {name_some(names, of=len(positions))}")
