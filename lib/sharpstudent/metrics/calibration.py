"""Calibration: expected calibration error, log loss, Brier score, temperature scaling and the reliability diagram.

Temperature scaling is that of Guo et al. 2017, "On calibration of modern neural networks". The reliability diagram
shows, for samples with about the same predicted probability of a class, which share of them is of that class
(DeGroot & Fienberg 1983).

All functions take logits (N, C), never probabilities: near 0 and 1 these are rounded, and their logarithm is wrong.

Legend: N samples, C classes, M bins ((m-1)/M, m/M]; labels 0..C-1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sharpstudent.metrics.checks import check_logits
from sharpstudent.metrics.metric import Counts

BINS = 15  # as in Guo et al.
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.01, 1000.0


def compute_ece(logits: ArrayLike, labels: ArrayLike, *, bins: int = BINS) -> float:
    """Compute the expected calibration error: |accuracy - confidence| of each bin, weighted by its share of samples.

    Confidence is the probability of the predicted class (of equal ones the first); the bins ((m-1)/bins, m/bins] are
    equally wide (Guo et al., eqs. 3 and 5). Two classes fill the upper half of the bins only.

    Args:
        logits: (N, C).
        labels: (N,), 0 to C - 1.
        bins: How many, M.

    Returns:
        The error, 0 to 1.

    Raises:
        MetricError: As `check_logits`.
    """
    if bins < 1:
        raise ValueError(f"bins must be >= 1, got {bins}")
    values, classes = check_logits(logits, labels)
    confidence, right = find_confidence(values, classes)
    # The share of a bin times its mean gap equals the sum of its gaps, divided by N.
    gaps = np.bincount(find_bins(confidence, bins), right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(classes))


@dataclass(frozen=True)
class DrawnLabels:
    """The ECE of a model beside that of labels drawn from its own probabilities, as a perfectly calibrated model has.

    Attributes:
        ece: The ECE of the model.
        expected: The mean ECE of drawn labels: with few samples a bin it is far from 0.
        p_value: The share of drawn label sets with an ECE as large as the model's, which itself counts as one.
    """

    ece: float
    expected: float
    p_value: float


DRAWS = 1000
MANY = 500  # samples in a bin from which on the sum of their gaps is drawn from the normal distribution


def compare_with_drawn_labels(
    logits: ArrayLike, labels: ArrayLike, *, bins: int = BINS, draws: int = DRAWS, seed: int = 0
) -> DrawnLabels:
    """Compare the ECE with that of labels drawn from the stated probabilities (Vaicenavicius et al. 2019, section 5).

    A predicted class is right with the probability that is stated for it; so what is drawn is whether it is right.

    Args:
        logits: (N, C).
        labels: (N,), 0 to C - 1.
        bins: How many, as in `compute_ece`.
        draws: How many sets of labels are drawn.
        seed: The seed of the draws.

    Returns:
        The ECE, what is expected of it, and the p-value of a larger one.

    Raises:
        MetricError: As `check_logits`.
    """
    values, classes = check_logits(logits, labels)
    confidence, right = find_confidence(values, classes)
    bin_of = find_bins(confidence, bins)
    generator, size = np.random.default_rng(seed), len(classes)
    ece = float(np.abs(np.bincount(bin_of, right - confidence, minlength=bins)).sum() / size)
    drawn = np.zeros(draws)
    for number in np.unique(bin_of).tolist():
        drawn += np.abs(_draw_gaps(confidence[bin_of == number], draws, generator)) / size
    as_large = int(np.count_nonzero(drawn >= ece - 1e-12))
    return DrawnLabels(ece, float(drawn.mean()), (1 + as_large) / (1 + draws))


def _draw_gaps(confidence: NDArray[np.float64], draws: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Draw sums of (right - confidence) over the samples of a bin."""
    if len(confidence) > MANY:
        return generator.normal(0.0, np.sqrt((confidence * (1.0 - confidence)).sum()), draws)
    right = generator.random((draws, len(confidence))) < confidence
    return right.sum(axis=1) - confidence.sum()


def find_confidence(
    logits: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the confidence in the predicted class, and whether it is right.

    Args:
        logits: (N, C), checked.
        labels: (N,), 0 to C - 1.

    Returns:
        The probability of the predicted class (N,), and 1.0 where that is the label, else 0.0 (N,).
    """
    confidence = np.exp(compute_log_softmax(logits)).max(axis=1)
    return confidence, (logits.argmax(axis=1) == labels).astype(np.float64)


def find_bins(probabilities: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """Find the bin of each probability.

    Args:
        probabilities: (N,), 0 to 1.
        bins: How many bins ((m-1)/bins, m/bins] there are.

    Returns:
        The number of each one's bin (N,), 0 to bins - 1; 0 itself is in the first.
    """
    return np.clip(np.ceil(probabilities * bins).astype(np.int64) - 1, 0, bins - 1)


def compute_log_loss(logits: ArrayLike, labels: ArrayLike, counts: Counts | None = None) -> float:
    """Compute the mean of minus the logarithm of the label's probability [nats].

    Args:
        logits: (N, C).
        labels: (N,), 0 to C - 1.
        counts: How often each sample counts (N,); None for once each.

    Returns:
        The loss; NaN where no sample counts.

    Raises:
        MetricError: As `check_logits`.
    """
    values, classes = check_logits(logits, labels)
    of_label = compute_log_softmax(values)[np.arange(len(classes)), classes]
    drawn = of_label if counts is None else np.repeat(of_label, counts)
    # `0.0 -`: the loss of a certain and correct model is 0, not -0.
    return 0.0 - float(drawn.mean()) if drawn.size else float("nan")


def compute_brier(logits: ArrayLike, labels: ArrayLike) -> float:
    """Compute half the mean squared distance of the probabilities from the label as a unit vector (Brier 1950).

    With this factor 1/2, the score of two classes is the usual mean of (probability of class 1 - label)^2.

    Args:
        logits: (N, C).
        labels: (N,), 0 to C - 1.

    Returns:
        The score, 0 to 1.

    Raises:
        MetricError: As `check_logits`.
    """
    values, classes = check_logits(logits, labels)
    difference = np.exp(compute_log_softmax(values))
    difference[np.arange(len(classes)), classes] -= 1.0
    return float(0.5 * (difference**2).sum(axis=1).mean())


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Find the T for which logits / T have the smallest log loss (temperature scaling, Guo et al., section 4.2).

    In 1/T the log loss is convex, so its slope has one root at most. Where there is none within the bounds, the result
    is the nearer bound: LOWEST_TEMPERATURE for a model that is always right (any T could be smaller still),
    HIGHEST_TEMPERATURE for one that is wrong more than it is right. Where the logits of each sample are all equal, the
    result is 1.

    Args:
        logits: (N, C).
        labels: (N,), 0 to C - 1.

    Returns:
        The temperature.

    Raises:
        MetricError: As `check_logits`.
    """
    # Imported here, as scikit-learn in metrics/binary.py; scipy ships no types.
    from scipy.optimize import brentq  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

    values, classes = check_logits(logits, labels)
    if bool((values == values[:, :1]).all()):
        return 1.0
    relative = values - values[np.arange(len(classes)), classes, np.newaxis]  # logits relative to that of the label

    def slope(log_temperature: float) -> float:
        """Derivative of the log loss in 1/T: the mean over samples of (expected logit - logit of the label)."""
        probabilities = np.exp(compute_log_softmax(relative * np.exp(-log_temperature)))
        return float((probabilities * relative).sum(axis=1).mean())

    low, high = np.log(LOWEST_TEMPERATURE), np.log(HIGHEST_TEMPERATURE)
    if slope(low) <= 0.0:
        return LOWEST_TEMPERATURE
    if slope(high) >= 0.0:
        return HIGHEST_TEMPERATURE
    return float(np.exp(cast(float, brentq(slope, low, high, xtol=1e-10))))


_TEMPERATURE_NOTES = {
    LOWEST_TEMPERATURE: "the lowest tried: no sample is on the wrong side, so a lower temperature always fits better",
    HIGHEST_TEMPERATURE: "the highest tried: wrong more often than right, so no temperature corrects it",
}


def describe_temperature(temperature: float) -> str | None:
    """Say that a fitted temperature is a bound of the search, and what that means; None for any other."""
    return _TEMPERATURE_NOTES.get(temperature)


def compute_log_softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the log-softmax of logits (N, C) along the classes."""
    shifted = values - values.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram of M bins of equal width.

    Attributes:
        edges: float64 (M + 1,), 0 to 1.
        counts: int64 (M,), the samples in each bin.
        predicted: float64 (M,), their mean probability of the class; NaN in an empty bin.
        observed: float64 (M,), the share of them that are of the class; NaN in an empty bin.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]


def compute_reliability(logits: ArrayLike, labels: ArrayLike, *, bins: int = BINS) -> Reliability:
    """Compute the reliability diagram of the predicted class: its probability, and how often it is the label.

    Args:
        logits: (N, C).
        labels: (N,), 0 to C - 1.
        bins: How many, M.

    Returns:
        The diagram; `compute_ece` is the mean distance of its bins from the diagonal.

    Raises:
        MetricError: As `check_logits`.
    """
    return _fill_bins(*find_confidence(*check_logits(logits, labels)), bins)


def compute_reliability_of_positive(logits: ArrayLike, labels: ArrayLike, *, bins: int = BINS) -> Reliability:
    """Compute the reliability diagram of the probability of class 1.

    Args:
        logits: (N, C).
        labels: (N,), 0 to C - 1.
        bins: How many, M.

    Returns:
        The diagram.

    Raises:
        MetricError: As `check_logits`.
    """
    if bins < 1:
        raise ValueError(f"bins must be >= 1, got {bins}")
    values, classes = check_logits(logits, labels)
    return _fill_bins(np.exp(compute_log_softmax(values)[:, 1]), (classes == 1).astype(np.float64), bins)


def _fill_bins(predicted: NDArray[np.float64], observed: NDArray[np.float64], bins: int) -> Reliability:
    bin_of = find_bins(predicted, bins)
    counts = np.bincount(bin_of, minlength=bins)
    some = np.where(counts > 0, counts, np.nan)
    return Reliability(
        edges=np.linspace(0.0, 1.0, bins + 1),
        counts=counts,
        predicted=np.bincount(bin_of, predicted, minlength=bins) / some,
        observed=np.bincount(bin_of, observed, minlength=bins) / some,
    )
