"""Scores of a model on items: in order, in evaluation mode, the same for any number of workers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sharpstudent.core.errors import UserError
from sharpstudent.core.types import Outputs
from sharpstudent.data.dataset import Item, UnreadableItem
from sharpstudent.evaluation.evaluate import compute_scores, compute_scores_of_several, measure_latency_ms
from sharpstudent.evaluation.task import Scores
from tiny_models import START, are_identical, make_batch, make_step, make_student, take_snapshot
from torch import Tensor, nn

CPU = torch.device("cpu")


class BrightPairs:
    """A dark picture (real) and a bright one (fake) an item, with noise from the item's own generator."""

    def __init__(self, items: int, *, broken: tuple[int, ...] = ()) -> None:
        self._items, self._broken = items, broken

    def __len__(self) -> int:
        return self._items

    def name_of(self, index: int) -> str:
        return f"item {index}"

    def make(self, index: int, rng: np.random.Generator) -> Item:
        if index in self._broken:
            raise UnreadableItem(self.name_of(index), "is broken")
        dark = rng.integers(0, 100, (12, 12, 3), dtype=np.uint8)
        names = (f"{index}#real", f"{index}#fake")
        return Item(np.stack([dark, dark + 100]), (0, 1), names, f"clip {index}", f"person {index // 2}")


class Brightness(nn.Module):
    """Says how bright a picture is, and with what mode it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.modes: list[bool] = []
        self.dropout = nn.Dropout(0.9)

    def forward(self, images: Tensor) -> Outputs:
        self.modes.append(self.training)
        bright = self.dropout(images).mean((1, 2, 3))
        return Outputs(logits=torch.stack([-bright, bright], 1))


def evaluate(model: nn.Module, source: BrightPairs, *, workers: int = 0, **settings: object) -> tuple[Scores, tuple]:
    return compute_scores(model, source, seed=3, batch_size=3, num_workers=workers, device=CPU, **settings)


def test_every_item_is_scored_once_and_ids_labels_and_logits_belong_together() -> None:
    scores, replaced = evaluate(Brightness(), BrightPairs(7))
    assert replaced == ()
    assert scores.logits.shape == (14, 2)
    assert scores.logits.dtype == np.float32
    assert sorted(scores.sample_ids) == sorted(f"{i}#{kind}" for i in range(7) for kind in ("real", "fake"))
    for logit, label, name, clip, person in zip(
        scores.logits, scores.labels, scores.sample_ids, scores.clip_ids, scores.identities, strict=True
    ):
        index, kind = name.split("#")
        assert (clip, person) == (f"clip {index}", f"person {int(index) // 2}")
        assert label == (kind == "fake")
        assert (logit[1] > 100 / 255) == (kind == "fake")


def test_scores_come_in_the_order_of_the_items_and_of_each_items_pictures() -> None:
    scores, _ = evaluate(Brightness(), BrightPairs(5))
    assert list(scores.sample_ids) == [f"{index}#{kind}" for index in range(5) for kind in ("real", "fake")]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stand_in_takes_the_place_of_the_item_that_could_not_be_read(workers: int) -> None:
    whole, _ = evaluate(Brightness(), BrightPairs(7))
    scores, _ = evaluate(Brightness(), BrightPairs(7, broken=(4,)), workers=workers)
    others = [row for row in range(14) if row not in (8, 9)]
    assert [scores.sample_ids[row] for row in others] == [whole.sample_ids[row] for row in others]
    assert scores.logits[others].tobytes() == whole.logits[others].tobytes()
    stand_in = scores.sample_ids[8].split("#")[0]
    assert scores.sample_ids[8:10] == (f"{stand_in}#real", f"{stand_in}#fake")
    assert stand_in != "4"


def test_two_evaluations_and_any_number_of_workers_give_the_same_scores() -> None:
    model = make_student()
    first, *others = (evaluate(model, BrightPairs(7), workers=workers)[0] for workers in (0, 0, 2))
    for other in others:
        assert first.logits.tobytes() == other.logits.tobytes()
        assert (first.sample_ids, first.identities) == (other.sample_ids, other.identities)


@pytest.mark.parametrize("was_training", [True, False])
def test_the_model_is_asked_in_evaluation_mode_and_gets_its_own_mode_back(was_training: bool) -> None:
    model = Brightness().train(was_training)
    evaluate(model, BrightPairs(4))
    assert model.modes == [False, False]
    assert model.training == model.dropout.training == was_training


def evaluate_several(models: list[nn.Module], source: BrightPairs, **settings: object) -> tuple:
    return compute_scores_of_several(models, source, seed=3, batch_size=3, num_workers=0, device=CPU, **settings)


def test_several_models_in_one_pass_say_what_each_says_alone_and_each_item_is_made_once() -> None:
    class Counted(BrightPairs):
        def make(self, index: int, rng: np.random.Generator) -> Item:
            made.append(index)
            return super().make(index, rng)

    made: list[int] = []
    models = [make_student(seed) for seed in range(3)]
    together, replaced = evaluate_several(models, Counted(7, broken=(4,)))
    assert len(made) == 8  # the stand-in of the fifth too
    assert [r.path for r in replaced] == ["item 4"]
    for model, scores in zip(models, together, strict=True):
        alone, _ = evaluate(model, BrightPairs(7, broken=(4,)))
        assert scores.logits.tobytes() == alone.logits.tobytes()
        assert (scores.labels.tolist(), scores.sample_ids) == (alone.labels.tolist(), alone.sample_ids)
    assert len({scores.logits.tobytes() for scores in together}) == 3


def test_each_of_several_models_gets_its_own_mode_back_also_when_one_fails() -> None:
    learning, resting = Brightness().train(), Brightness().eval()
    for models in ([learning, resting, learning], [resting, learning]):
        evaluate_several(models, BrightPairs(4))
        assert (learning.training, resting.training) == (True, False)
    resting.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError):
        evaluate_several([learning, resting], BrightPairs(4))
    assert (learning.training, resting.training) == (True, False)


def stop() -> None:
    raise KeyboardInterrupt


def fail(*_: object) -> None:
    raise RuntimeError("injected")


@pytest.mark.parametrize("was_training", [True, False])
def test_the_mode_comes_back_also_when_an_evaluation_is_interrupted(was_training: bool) -> None:
    model = Brightness().train(was_training)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, BrightPairs(4), between_batches=stop)
    assert model.training == was_training


def test_evaluating_moves_neither_weights_nor_buffers_nor_random_states() -> None:
    step = make_step()
    before = take_snapshot(step)
    evaluate(step.student, BrightPairs(5))
    measure_latency_ms(step.student, image_size=16, device=CPU)
    assert are_identical(take_snapshot(step), before)
    assert step.student.training
    assert not any(p.is_inference() for p in step.student.parameters())


def test_the_student_can_learn_on_after_an_evaluation() -> None:
    step = make_step()
    evaluate(step.student, BrightPairs(5))
    assert step(make_batch(), START).ok


def test_items_that_cannot_be_read_are_reported_and_others_stand_in_for_them() -> None:
    model = Brightness()
    outcomes = [evaluate(model, BrightPairs(7, broken=(4,)), workers=workers) for workers in (0, 1)]
    for scores, replaced in outcomes:
        assert [(r.path, r.reason) for r in replaced] == [("item 4", "is broken")]
        assert len(scores.labels) == 14
        assert "4#real" not in scores.sample_ids
    assert outcomes[0][0].sample_ids == outcomes[1][0].sample_ids


def test_a_set_beyond_saving_is_the_users_error_and_the_mode_comes_back() -> None:
    model = Brightness().train()
    with pytest.raises(UserError, match="could not be read"):
        evaluate(model, BrightPairs(3, broken=(0, 1, 2)), workers=1)
    assert model.training


def test_margin_and_probability_are_those_of_a_softmax() -> None:
    logits = np.array([[0.0, 0.0], [1.0, 3.0], [-200.0, 900.0], [900.0, -200.0]], np.float32)
    scores = Scores(logits, np.zeros(4, np.int64), *[("a",) * 4] * 3)
    assert scores.margin.tolist() == [0.0, 2.0, 1100.0, -1100.0]
    np.testing.assert_allclose(scores.fake_probability, [0.5, 1 / (1 + np.exp(-2)), 1.0, 0.0], atol=1e-12)


@pytest.mark.parametrize("was_training", [True, False])
def test_latency_is_positive_and_measured_on_one_picture_in_evaluation_mode(was_training: bool) -> None:
    shapes: list[tuple[int, ...]] = []
    model = Brightness().train(was_training)
    model.register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape)))
    assert 0.0 < measure_latency_ms(model, image_size=16, device=CPU) < 1000.0
    assert set(shapes) == {(1, 3, 16, 16)}
    assert not any(model.modes)
    assert model.training == was_training


def test_a_failed_measurement_gives_the_mode_back_too() -> None:
    model = Brightness().train()
    model.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError):
        measure_latency_ms(model, image_size=16, device=CPU)
    assert model.training
