"""Tables of models on samples: in order, in evaluation mode, the same for any number of workers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sharpstudent.core.errors import UserError
from sharpstudent.core.types import Outputs, Sample, Table
from sharpstudent.data.dataset import Samples, UnreadableSample
from sharpstudent.evaluation.cost import measure_latencies_ms
from sharpstudent.evaluation.tables import compute_tables
from sharpstudent.tasks.deepfake.metrics import compute_fake_probability, compute_margins
from sharpstudent.tasks.deepfake.task import DeepfakeTask
from tiny_models import START, are_identical, make_batch, make_step, make_student, take_snapshot
from torch import Tensor, nn

CPU = torch.device("cpu")


def make_picture() -> dict[str, Tensor]:
    """Inputs for one sample; no random state of the test moves."""
    return {"image": torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))}


class BrightPairs(Samples):
    """A dark picture (real) and a bright one (fake) a sample, with noise from the sample's own generator."""

    seed = 3

    def __init__(self, count: int, *, broken: tuple[int, ...] = ()) -> None:
        self._count, self._broken = count, broken

    def __len__(self) -> int:
        return self._count

    def name(self, index: int) -> str:
        return f"sample {index}"

    def group(self, index: int) -> str:
        return f"person {index // 2}"

    def make(self, index: int, rng: np.random.Generator) -> Sample:
        if index in self._broken:
            raise UnreadableSample(self.name(index), "is broken")
        dark = rng.integers(0, 100, (12, 12, 3), dtype=np.uint8)
        return Sample(
            inputs={"image": np.stack([dark, dark + 100])},
            targets={"label": np.array([0, 1])},
            rows={"id": (f"{index}#real", f"{index}#fake"), "clip": (f"clip {index}",) * 2},
        )


class Brightness(nn.Module):
    """Returns how bright a picture is, and records its mode at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.modes: list[bool] = []
        self.dropout = nn.Dropout(0.9)

    def forward(self, image: Tensor) -> Outputs:
        self.modes.append(self.training)
        bright = self.dropout(image).mean((1, 2, 3))
        return {"logits": torch.stack([-bright, bright], 1)}


def evaluate(model: nn.Module, samples: BrightPairs, *, workers: int = 0, **settings: Any) -> tuple[Table, tuple]:
    (table,), replaced = evaluate_several([model], samples, workers=workers, **settings)
    return table, replaced


def evaluate_several(models: list[nn.Module], samples: BrightPairs, *, workers: int = 0, **settings: Any) -> tuple:
    return compute_tables(models, samples, DeepfakeTask(), batch_size=3, num_workers=workers, device=CPU, **settings)


def test_every_sample_is_read_once_and_ids_labels_and_logits_belong_together() -> None:
    table, replaced = evaluate(Brightness(), BrightPairs(7))
    assert replaced == ()
    assert table["logits"].shape == (14, 2)
    assert table["logits"].dtype == np.float32
    assert sorted(table["id"]) == sorted(f"{i}#{kind}" for i in range(7) for kind in ("real", "fake"))
    assert table["key"].tolist() == [[index, 0, place] for index in range(7) for place in range(2)]
    columns = (table[name].tolist() for name in ("logits", "label", "id", "clip", "group"))
    for logit, label, name, clip, person in zip(*columns, strict=True):
        index, kind = name.split("#")
        assert (clip, person) == (f"clip {index}", f"person {int(index) // 2}")
        assert label == (kind == "fake")
        assert (logit[1] > 100 / 255) == (kind == "fake")


def test_outputs_come_in_the_order_of_the_samples_and_of_the_pictures_of_each() -> None:
    table, _ = evaluate(Brightness(), BrightPairs(5))
    assert table["id"].tolist() == [f"{index}#{kind}" for index in range(5) for kind in ("real", "fake")]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_substitute_takes_the_place_of_the_sample_that_could_not_be_read(workers: int) -> None:
    whole, _ = evaluate(Brightness(), BrightPairs(7))
    table, _ = evaluate(Brightness(), BrightPairs(7, broken=(4,)), workers=workers)
    others = [row for row in range(14) if row not in (8, 9)]
    for name in ("id", "group", "logits"):
        np.testing.assert_array_equal(table[name][others], whole[name][others])
    substitute = table["id"][8].split("#")[0]
    assert table["id"][8:10].tolist() == [f"{substitute}#real", f"{substitute}#fake"]
    assert substitute != "4"
    assert table["key"][8:10].tolist() == [[int(substitute), 0, 0], [int(substitute), 0, 1]]


def test_two_evaluations_and_any_number_of_workers_give_the_same_scores() -> None:
    model = make_student()
    first, *others = (evaluate(model, BrightPairs(7), workers=workers)[0] for workers in (0, 0, 2))
    for other in others:
        assert first.keys() == other.keys()
        assert all(first[name].tobytes() == other[name].tobytes() for name in first)


@pytest.mark.parametrize("was_training", [True, False])
def test_the_model_runs_in_evaluation_mode_and_gets_its_own_mode_back(was_training: bool) -> None:
    model = Brightness().train(was_training)
    evaluate(model, BrightPairs(4))
    assert model.modes == [False, False]
    assert model.training == model.dropout.training == was_training


def test_several_models_in_one_pass_give_what_each_gives_alone_and_each_sample_is_made_once() -> None:
    class Counted(BrightPairs):
        def make(self, index: int, rng: np.random.Generator) -> Sample:
            made.append(index)
            return super().make(index, rng)

    made: list[int] = []
    models = [make_student(seed) for seed in range(3)]
    together, replaced = evaluate_several(models, Counted(7, broken=(4,)))
    assert len(made) == 8  # the substitute of the fifth too
    assert [r.path for r in replaced] == ["sample 4"]
    for model, table in zip(models, together, strict=True):
        alone, _ = evaluate(model, BrightPairs(7, broken=(4,)))
        assert all(table[name].tobytes() == alone[name].tobytes() for name in alone)
    assert len({table["logits"].tobytes() for table in together}) == 3


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
    measure_latencies_ms(step.student, make_picture(), rounds=3)
    assert are_identical(take_snapshot(step), before)
    assert step.student.training
    assert not any(p.is_inference() for p in step.student.parameters())


def test_the_student_can_learn_on_after_an_evaluation() -> None:
    step = make_step()
    evaluate(step.student, BrightPairs(5))
    assert step(make_batch(), START).ok


def test_samples_that_cannot_be_read_are_reported_and_substituted_by_others() -> None:
    model = Brightness()
    outcomes = [evaluate(model, BrightPairs(7, broken=(4,)), workers=workers) for workers in (0, 1)]
    for table, replaced in outcomes:
        assert [(r.path, r.reason) for r in replaced] == [("sample 4", "is broken")]
        assert len(table["label"]) == 14
        assert "4#real" not in table["id"]
    assert outcomes[0][0]["id"].tolist() == outcomes[1][0]["id"].tolist()


def test_a_set_beyond_saving_is_the_users_error_and_the_mode_comes_back() -> None:
    model = Brightness().train()
    with pytest.raises(UserError, match="could not be read"):
        evaluate(model, BrightPairs(3, broken=(0, 1, 2)), workers=1)
    assert model.training


def test_margin_and_probability_are_those_of_a_softmax() -> None:
    logits = np.array([[0.0, 0.0], [1.0, 3.0], [-200.0, 900.0], [900.0, -200.0]], np.float32)
    assert compute_margins({"logits": logits}).tolist() == [0.0, 2.0, 1100.0, -1100.0]
    np.testing.assert_allclose(
        compute_fake_probability({"logits": logits}), [0.5, 1 / (1 + np.exp(-2)), 1.0, 0.0], atol=1e-12
    )


@pytest.mark.parametrize("was_training", [True, False])
def test_latency_is_positive_and_measured_on_one_picture_in_evaluation_mode(was_training: bool) -> None:
    shapes: list[tuple[int, ...]] = []
    model = Brightness().train(was_training)
    model.register_forward_pre_hook(lambda _, args, named: shapes.append(tuple(named["image"].shape)), with_kwargs=True)
    assert all(0.0 < time < 1000.0 for time in measure_latencies_ms(model, make_picture(), rounds=5))
    assert set(shapes) == {(1, 3, 16, 16)}
    assert not any(model.modes)
    assert model.training == was_training


def test_a_failed_measurement_gives_the_mode_back_too() -> None:
    model = Brightness().train()
    model.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError):
        measure_latencies_ms(model, make_picture(), rounds=5)
    assert model.training
