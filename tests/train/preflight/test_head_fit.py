"""A head fitted to pooled features: its probabilities, its regularisation, and the samples that it is fitted on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sharpstudent.metrics.calibration import compute_ece, compute_log_loss
from sharpstudent.train.preflight.teacher_heads import MOST_SAMPLES, STRENGTH, STRENGTHS, draw_keys, fit_head

Drawn = tuple[NDArray[np.float32], NDArray[np.int64], list[str]]


def draw(pictures: int = 300, width: int = 8, *, seed: int = 0, classes: int = 2, people: int = 30) -> Drawn:
    """Features of which the first few say the class, noisily, at scales and places of their own."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, pictures)
    features = rng.normal(size=(pictures, width))
    features[:, :classes] += 1.5 * np.eye(classes)[labels]
    scales = np.random.default_rng(9).uniform(0.01, 50.0, width)
    features = features * scales + 3 * scales
    return features.astype(np.float32), labels, [f"person {index % people}" for index in range(pictures)]


def say(head: Any, features: NDArray[np.float32]) -> NDArray[np.float32]:
    return features @ head.weight.T + head.bias


def test_the_head_is_the_logistic_regression_with_its_scaling_folded_in() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    features, labels, people = draw()
    head = fit_head(features, labels, people)
    scaled = StandardScaler().fit_transform(features.astype(np.float64))
    expected = LogisticRegression(C=head.strength, max_iter=1000).fit(scaled, labels).predict_proba(scaled)
    logits = say(head, features).astype(np.float64)
    np.testing.assert_allclose(1 / (1 + np.exp(logits[:, 0] - logits[:, 1])), expected[:, 1], atol=1e-4)
    np.testing.assert_allclose(logits[:, 0], -logits[:, 1], atol=1e-4)
    assert head.accuracy == (logits.argmax(1) == labels).mean()
    assert head.weight.dtype == head.bias.dtype == np.float32


def test_three_classes_have_three_logits() -> None:
    features, labels, people = draw(classes=3)
    head = fit_head(features, labels, people)
    assert (head.weight.shape, head.bias.shape) == ((3, 8), (3,))
    assert head.accuracy > 0.7


def test_the_same_arguments_give_the_same_bits() -> None:
    one, two = fit_head(*draw()), fit_head(*draw())
    assert one.weight.tobytes() + one.bias.tobytes() == two.weight.tobytes() + two.bias.tobytes()
    assert one.strength == two.strength


def test_many_features_of_few_people_give_a_regularised_head_that_is_calibrated_on_others() -> None:
    """More features than pictures: every regularisation separates the training set, and the weakest is far too sure."""
    features, labels, people = draw(120, 400, people=12)
    head = fit_head(features, labels, people)
    assert head.was_chosen
    assert head.strength < STRENGTHS[-1]
    others, truth, _ = draw(400, 400, seed=1)
    logits = say(head, others)
    assert compute_log_loss(logits, truth) < np.log(2)
    assert compute_ece(logits, truth) < 0.15


def test_people_are_left_out_whole() -> None:
    """A feature that knows each person by heart is worth nothing on others, and only folds by person can tell."""
    rng = np.random.default_rng(3)
    people = np.repeat(np.arange(20), 15)
    labels = np.repeat(rng.integers(0, 2, 20), 15)  # of a person, all pictures alike
    known = np.eye(20)[people] * 5 + 0.1 * rng.normal(size=(300, 20))
    head = fit_head(known.astype(np.float32), labels, [str(person) for person in people])
    assert head.was_chosen
    assert head.strength == STRENGTHS[0]


@pytest.mark.parametrize("change", ["one person", "two of a class"])
def test_too_few_people_leave_the_regularisation_at_its_default(change: str) -> None:
    features, labels, people = draw(40)
    if change == "one person":
        people = ["one"] * 40
    else:
        labels = np.array([1, 1] + [0] * 38)
    head = fit_head(features, labels, people)
    assert (head.was_chosen, head.strength) == (False, STRENGTH)


def test_a_constant_feature_has_no_influence() -> None:
    features, labels, people = draw()
    features[:, 5] = 7.25
    head = fit_head(features, labels, people)
    assert head.weight[:, 5].tolist() == [0.0, 0.0]
    assert np.isfinite(head.weight).all()


class ManySamples:
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count


@pytest.mark.parametrize("count", [1, 5, MOST_SAMPLES])
def test_a_small_set_is_taken_whole_and_in_order(count: int) -> None:
    keys = draw_keys(ManySamples(count), 3)  # type: ignore[arg-type]
    assert [key.index for key in keys] == list(range(count))
    assert {(key.epoch, key.visit) for key in keys} == {(0, 0)}


def test_of_a_large_set_some_are_drawn_by_the_seed() -> None:
    drawn = [[key.index for key in draw_keys(ManySamples(20_000), seed)] for seed in (3, 3, 4)]  # type: ignore[arg-type]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == MOST_SAMPLES
    assert drawn[0] == sorted(drawn[0])
    assert 0.4 < np.mean(np.array(drawn[0]) < 10_000) < 0.6
