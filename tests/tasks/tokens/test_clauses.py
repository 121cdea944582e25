"""Closed forms, gradients and sizes of the layers with clauses."""

import math
from typing import Any

import pytest
import torch
from sharpstudent.tasks.tokens.clauses import FuzzyPatternTM, UsageMeter, straight_through
from sharpstudent.tasks.tokens.transformer import UnifiedTMTransformer

BANKS = ("ta_pos", "ta_pos_inv", "ta_neg", "ta_neg_inv")
SWIN: dict[str, Any] = {
    "architecture": "swin", "image_size": 64, "patch_size": 2, "embed_dim": (48, 96), "depths": (1, 1),
    "num_heads": (2, 4),
}  # fmt: skip


def count(model: torch.nn.Module) -> int:
    return sum(one.numel() for one in model.parameters())


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"image_size": 64}, 136_976),
        ({"image_size": 64, "patch_size": 16}, 136_976),
        ({"image_size": 28}, 123_728),
        (SWIN, 302_722),
    ],
)
def test_the_transformers_have_the_documented_numbers_of_parameters(options: dict[str, Any], size: int):
    assert count(UnifiedTMTransformer(**options)) == size


def test_a_clause_is_the_exponential_of_the_literals_that_fail():
    machine = FuzzyPatternTM(3, 2, 1).double()
    for bank in BANKS:
        getattr(machine, bank).data.fill_(-9.0)
    machine.ta_pos.data[0, 0] = machine.ta_pos.data[0, 1] = machine.ta_pos_inv.data[0, 2] = 9.0
    machine.voting.data = torch.tensor([[2.0], [-1.0]], dtype=torch.float64)
    machine.clause_bias.data.fill_(0.5)
    inputs = torch.tensor([[0.9, 0.2, 0.8], [0.9, 0.9, 0.1]], dtype=torch.float64)
    expected = torch.tensor([[math.exp(-0.25 * 2), 1.0], [1.0, 1.0]], dtype=torch.float64)
    assert torch.allclose(machine.evaluate_clauses(inputs), expected)
    assert torch.allclose(machine(inputs)[0], (expected + 0.5) @ machine.voting)


def test_soft_literals_weigh_by_four_over_the_features_as_printed():
    machine = FuzzyPatternTM(8, 2, 1, "soft").double()
    for bank in BANKS:
        getattr(machine, bank).data.fill_(-9.0)
    machine.ta_neg.data[0, :4] = 9.0
    value = machine.evaluate_clauses(torch.full((1, 8), 0.25, dtype=torch.float64))[0, 1]
    assert float(value.detach()) == pytest.approx(math.exp(-4 / 8 * 4 * 0.75))


def test_single_literals_start_with_one_a_clause_that_reads_every_feature_equally_often():
    torch.manual_seed(0)
    machine = FuzzyPatternTM(6, 12, 3, "single")
    plain, negated = machine.masks()
    assert (plain + negated).sum(1).tolist() == [1.0] * 12
    assert (plain + negated).sum(0).tolist() == [2.0] * 6
    bits = torch.cat([torch.eye(6), 1 - torch.eye(6)])  # each feature is true in half of the rows
    centred = machine.evaluate_clauses(bits) + machine.clause_bias
    assert torch.allclose(centred.mean(0), torch.zeros(12), atol=1e-6)
    assert torch.allclose(centred.max(), torch.tensor((1 - math.exp(-1)) / 2))


def test_a_mask_is_exactly_0_or_1_and_has_the_gradient_of_its_soft_value():
    soft = torch.tensor([0.2, 0.7], requires_grad=True)
    hard = straight_through(soft)
    hard.mul(torch.tensor([3.0, 5.0])).sum().backward()
    assert hard.tolist() == [0.0, 1.0]
    assert soft.grad is not None
    assert soft.grad.tolist() == [3.0, 5.0]


def test_all_four_banks_have_the_gradient_that_finite_differences_of_the_soft_form_give():
    torch.manual_seed(0)
    machine = FuzzyPatternTM(5, 4, 3).double().eval()
    machine.is_hard = False
    inputs = torch.rand(6, 5, dtype=torch.float64)
    weights = torch.randn(6, 3, dtype=torch.float64)

    def loss() -> torch.Tensor:
        return (machine(inputs)[0] * weights).sum()

    loss().backward()
    for bank in BANKS:
        logits = getattr(machine, bank)
        numeric = torch.zeros_like(logits)
        for place in range(logits.numel()):
            values = []
            for step in (1e-6, -1e-6):
                with torch.no_grad():
                    logits.view(-1)[place] += step
                    values.append(float(loss()))
                    logits.view(-1)[place] -= step
            numeric.view(-1)[place] = (values[0] - values[1]) / 2e-6
        assert torch.allclose(logits.grad, numeric, atol=1e-6)
        assert numeric.abs().max() > 1e-3


def test_hard_masks_have_gradients_in_all_four_banks_and_values_of_the_hard_form():
    torch.manual_seed(0)
    machine = FuzzyPatternTM(5, 4, 3)
    machine(torch.rand(32, 5))[0].square().sum().backward()
    assert all(getattr(machine, bank).grad.abs().sum() > 0 for bank in BANKS)


def test_an_odd_number_of_clauses_is_refused():
    with pytest.raises(ValueError, match="even"):
        FuzzyPatternTM(4, 3, 2)


def test_usage_follows_training_inputs_only_and_stands_still_without_tracking():
    meter = UsageMeter(2).train()
    meter.track_running_stats = False
    meter(torch.rand(4, 2))
    assert meter.running_mean.tolist() == [1.0, 1.0]
    meter.track_running_stats = True
    meter(torch.zeros(4, 2))
    assert meter.running_mean.tolist() == pytest.approx([0.9, 0.9])
    meter.eval()(torch.ones(4, 2))
    assert meter.running_mean.tolist() == pytest.approx([0.9, 0.9])


def test_attention_starts_at_its_scale_and_positions_with_their_deviation():
    torch.manual_seed(0)
    model = UnifiedTMTransformer(patch_size=4, clauses=8, attention_scale=0.0, position_deviation=0.5).eval()
    assert float(model.positions.detach().std()) == pytest.approx(0.5, rel=0.05)
    block: Any = model.blocks[0]
    tokens = torch.randn(2, 5, 64)
    assert torch.equal(block(tokens)[1].attended, tokens)
    block.scale1.data.fill_(0.1)
    assert torch.allclose(block(tokens)[1].attended - tokens, 0.1 * block.attention(block.norm1(tokens))[0], atol=1e-6)


def test_the_random_start_of_a_seed_is_the_one_that_earlier_versions_had():
    torch.manual_seed(0)
    model = UnifiedTMTransformer(patch_size=7, clauses=8)
    assert float(model.positions.detach().double().sum()) == pytest.approx(-0.5377776371, abs=1e-9)
    assert float(model.machines[0].ta_neg_inv.detach().double().sum()) == pytest.approx(-149.2380751331, abs=1e-9)


def test_gains_follow_the_formula_change_the_logits_and_survive_saving():
    model = UnifiedTMTransformer(patch_size=7, clause_specialize=0.5)
    attention: Any = model.blocks[0].attention
    before = model.eval()(torch.ones(2, 1, 28, 28))["logits"]
    attention.usage.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0, 2.0]))
    assert attention.gains.tolist() == pytest.approx([0.75, 1.0, 1.25, 1.0])
    after = model(torch.ones(2, 1, 28, 28))["logits"]
    assert not torch.allclose(before, after, atol=1e-6)
    again = UnifiedTMTransformer(patch_size=7, clause_specialize=0.5).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(torch.ones(2, 1, 28, 28))["logits"], after)


@pytest.mark.parametrize("backend", ["ste", "deeptm"])
@pytest.mark.parametrize("more", [{"patch_size": 7}, {**SWIN, "image_size": 16}])
def test_each_backend_learns_in_both_architectures(backend: Any, more: dict[str, Any]):
    torch.manual_seed(0)
    model = UnifiedTMTransformer(backend=backend, clauses=16, **more)
    side = more.get("image_size", 28)
    outputs = model(torch.rand(4, 1, side, side))
    sum(value.square().sum() for value in outputs.values()).backward()  # type: ignore[union-attr]
    unused = [name for name, one in model.named_parameters() if one.grad is None or not one.grad.abs().sum() > 0]
    assert unused in ([], ["class_token"])


@pytest.mark.parametrize("more", [{"patch_size": 7}, {**SWIN, "image_size": 16}])
def test_both_architectures_are_traced_for_any_number_of_rows(more: dict[str, Any]):
    model = UnifiedTMTransformer(clauses=16, **more).eval()
    side = more.get("image_size", 28)
    rows = torch.export.Dim("rows")
    traced = torch.export.export(model, (torch.rand(3, 1, side, side),), dynamic_shapes={"image": {0: rows}}).module()
    image = torch.rand(5, 1, side, side)
    assert torch.allclose(traced(image)["logits"], model(image)["logits"], atol=1e-5)
