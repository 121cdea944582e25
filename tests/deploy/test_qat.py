"""Fine-tuning for int8 learns weights that lose less when they are rounded, and leaves the model itself alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from sharpstudent.core.errors import UserError
from sharpstudent.core.types import Batch, ExportSpec
from sharpstudent.deploy import convert, qat
from torch import Tensor, nn


class Deep(nn.Module):
    """`x` (R, 6) -> `logits` (R, 2): a convolution with statistics, and layers whose weights differ much in size."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.head = nn.Conv1d(1, 4, 3, bias=False), nn.BatchNorm1d(4), nn.Linear(16, 2)
        self.gain = nn.Parameter(torch.tensor([1.0, 1.0, 1.0, 40.0]))  # one loud channel takes the steps of the others
        with torch.no_grad():
            self.head.weight[:, 12:] /= 40.0

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden = self.norm(self.first(x[:, None])).relu() * self.gain[:, None]
        return {"logits": self.head(hidden.flatten(1))}


def make_batch() -> Batch:
    return Batch({"x": torch.randn(16, 6)}, rows={"id": tuple(map(str, range(16)))})


def make_batches(count: int) -> Iterator[Batch]:
    yield from (make_batch() for _ in range(count))


def measure(form: convert.Form, wanted: nn.Module, batch: Batch) -> float:
    """How far the outputs in int8 are from those of a model in fp32."""
    with torch.no_grad():
        (found,) = qat.RoundedRun(convert.trace(form).module(check_guards=False)).run(batch.inputs["x"])
        return float(qat.compute_distance(wanted(**batch.inputs), {"logits": found}))


def test_weights_are_multiples_of_a_step_of_their_channel_and_gradients_pass() -> None:
    weights = torch.tensor([[-63.0, 10.4, 0.6], [0.0, 0.126, 0.0014]], requires_grad=True)
    rounded = qat.round_weights(weights, 0)
    torch.testing.assert_close(rounded, torch.tensor([[-63.0, 10.0, 1.0], [0.0, 0.126, 0.002]]), atol=1e-6, rtol=0)
    rounded.sum().backward()
    assert torch.equal(weights.grad, torch.ones(2, 3))


@pytest.mark.parametrize(("low", "high"), [(-3.0, 5.0), (2.0, 7.0), (-7.0, -2.0)])
def test_activations_are_rounded_as_the_formula_of_onnx_says(low: float, high: float) -> None:
    shares = torch.tensor([0.0, 1.0, *(number * 0.6180339 % 1.0 for number in range(99))])  # none between two steps
    values = low + (high - low) * shares
    scale = np.float32(max(high, 0.0) - min(low, 0.0)) / np.float32(255)
    zero = np.round(-min(low, 0.0) / scale)
    wanted = (np.clip(np.round(values.numpy() / scale) + zero, 0, 255) - zero) * scale
    np.testing.assert_allclose(qat.round_values(values), wanted, atol=float(scale) * 1e-3)


def test_what_is_no_activation_stays_as_it_is() -> None:
    for value in (torch.tensor(0.3), torch.tensor([1, 7])):
        assert qat.round_values(value) is value


def test_fine_tuning_makes_the_outputs_in_int8_those_of_the_model_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qat, "LR", 1e-3)  # a few random weights move far in 200 steps; trained ones need a tenth of it
    torch.manual_seed(1)
    model = Deep().eval().requires_grad_(False)
    form = convert.build_form(model, Batch({"x": torch.randn(3, 6)}, rows={"id": ("a", "b", "c")}), ExportSpec())
    before, steps = {name: one.clone() for name, one in model.state_dict().items()}, []
    batch = Batch({"x": torch.randn(256, 6)})
    lost = measure(form, model, batch)
    tuned = qat.fine_tune(form, make_batches(200), 200, lambda: steps.append(1))
    assert measure(tuned, model, batch) < 0.7 * lost
    assert len(steps) == 200
    for name, one in before.items():
        assert torch.equal(one, model.state_dict()[name]), name
    assert torch.equal(tuned.model.state_dict()["norm.running_var"], before["norm.running_var"])


def test_outputs_that_become_infinite_end_it_with_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qat, "LR", float("inf"))
    form = convert.build_form(
        Deep().eval(), Batch({"x": torch.randn(3, 6)}, rows={"id": ("a", "b", "c")}), ExportSpec()
    )
    with pytest.raises(UserError, match="became infinite"):
        qat.fine_tune(form, make_batches(3), 3, lambda: None)
