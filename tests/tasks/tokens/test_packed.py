"""Bit-packed machines against the float ones, rules, and overlays."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sharpstudent.core.errors import UserError
from sharpstudent.core.shipped import find_shipped
from sharpstudent.evaluation.command_line import ModelRequest
from sharpstudent.evaluation.opened import open_checkpoint
from sharpstudent.tasks.tokens.clauses import FuzzyPatternTM
from sharpstudent.tasks.tokens.packed import PackedTM, measure_packed, pack_bits, pack_model
from sharpstudent.tasks.tokens.rules import collect_clauses, compute_votes, describe_pictures, list_rules, write_rules
from sharpstudent.tasks.tokens.section import TokensSection
from sharpstudent.tasks.tokens.task import TokensTask
from sharpstudent.tasks.tokens.transformer import UnifiedTMTransformer

DIGITS = tuple("0123456789")


def make_model(**more: Any) -> UnifiedTMTransformer:
    torch.manual_seed(0)
    options = {"patch_size": 7, "clauses": 16, "embed_dim": (16,), "num_heads": (2,)} | more
    return UnifiedTMTransformer(**options).eval()


def load_tmu() -> Any:
    """The classifier of tmu 0.8.3, whose `np.uint32(~0)` NumPy 2 refuses: it is written out here."""
    name = "tmu.clause_bank.clause_bank"
    pytest.importorskip("tmu", reason="tmu, an outside Tsetlin machine, is not installed")
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_text().replace("np.uint32(~0)", "np.uint32(0xFFFFFFFF)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    exec(compile(source, spec.origin, "exec"), module.__dict__)
    return pytest.importorskip("tmu.models.classification.vanilla_classifier", reason="tmu is not whole").TMClassifier


def test_clauses_that_tmu_has_learnt_hold_for_the_pictures_for_which_they_hold_there() -> None:
    """tmu (Granmo's group) as an oracle: its literals in our masks; a clause of ours is 1 where the one of tmu is."""
    draws = np.random.default_rng(0)
    features = draws.integers(0, 2, (300, 12)).astype(np.uint32)
    labels = ((features[:, 0] & (1 - features[:, 3])) | (features[:, 5] & features[:, 7])).astype(np.uint32)
    theirs = load_tmu()(10, T=10, s=3.0, platform="CPU", seed=1)
    for _ in range(10):
        theirs.fit(features, labels)
    banks = [theirs.clause_banks[k] for k in (0, 1)]
    included = torch.tensor([[bank.get_ta_action(c, k) for k in range(24)] for bank in banks for c in range(10)])
    machine = FuzzyPatternTM(12, 20, 2)
    logits = included.float() * 2 - 1
    machine.ta_pos.data, machine.ta_pos_inv.data = logits[:10, :12], logits[:10, 12:]
    machine.ta_neg.data, machine.ta_neg_inv.data = logits[10:, :12], logits[10:, 12:]
    inputs = torch.from_numpy(features.astype(np.float32))
    wanted = theirs.transform(features).astype(bool)
    assert 0.05 < wanted.mean() < 0.95
    assert np.array_equal(machine.evaluate_clauses(inputs).detach().numpy() == 1.0, wanted)
    assert np.array_equal(PackedTM(machine.eval()).count_missing(pack_bits(features > 0)) == 0, wanted)


def test_bits_are_packed_into_words_that_end_in_zeros() -> None:
    bits = np.zeros((2, 70), bool)
    bits[0, [0, 64]] = bits[1, 69] = True
    words = pack_bits(bits)
    assert words.shape == (2, 2)
    assert [int(np.bitwise_count(row).sum()) for row in words] == [2, 1]


@pytest.mark.parametrize("features", [5, 64, 130])
def test_a_packed_machine_counts_failing_literals_as_the_float_one_does(features: int) -> None:
    torch.manual_seed(features)
    machine = FuzzyPatternTM(features, 12, 3).eval()
    for bank in ("ta_pos", "ta_pos_inv", "ta_neg", "ta_neg_inv"):
        getattr(machine, bank).data.normal_(-1.0, 1.0)
    inputs = torch.rand(40, features)
    packed = PackedTM(machine)
    with torch.no_grad():
        literals = (inputs > 0.5).float()
        plain, negated = machine.masks()
        expected = (1 - literals) @ plain.T + literals @ negated.T
        votes, clauses = machine(inputs)
        found, levels = packed(inputs)
    assert np.array_equal(packed.count_missing(pack_bits(inputs.numpy() > 0.5)), expected.numpy().round())
    assert torch.allclose(levels, clauses, atol=0.5 / 255 + 1e-6)
    bound = 12 * (0.5 / 255 * machine.voting.abs().max() + 0.5 * packed.unit.max() * 255)
    assert (found - votes).abs().max() <= bound


def test_a_packed_model_answers_as_the_float_one_and_is_smaller() -> None:
    model, images = make_model(clauses=64), torch.rand(64, 1, 28, 28)
    answers = model(images)["logits"].detach().argmax(1).numpy()
    found = measure_packed(model, images, answers, rounds=1)
    assert found.agreement["packed"] >= 0.95
    assert found.accuracy["float"] == 1.0
    assert found.core_bytes["float"] > 10 * found.core_bytes["packed"]
    assert set(found.model_ms) == {"float", "packed"}


def test_the_shipped_model_has_no_dead_clause_needs_its_clauses_and_answers_alike_as_bits() -> None:
    path = find_shipped("tokens-mnist")
    assert path is not None
    assert path.stat().st_size < 1e6
    model: Any = open_checkpoint(ModelRequest(path), TokensTask, torch.device("cpu")).model
    (samples,) = TokensTask(TokensSection(source="drawn")).open_data("test")
    made = [samples.make(place, np.random.default_rng(0)) for place in range(len(samples))]
    images = torch.from_numpy(np.concatenate([one.inputs["image"] for one in made]))
    labels = np.array([int(one.targets["label"][0]) for one in made])
    found = measure_packed(model, images, labels, rounds=1)
    assert found.agreement["packed"] >= 0.99
    assert found.accuracy["float"] > 0.5  # of digits in fonts, of which it has seen none
    assert model.describe_usage()["dead_clauses"] == 0
    model.remove_machines()
    assert float((model(images)["logits"].argmax(1).numpy() == labels).mean()) < found.accuracy["float"] - 0.1


def test_soft_literals_and_models_without_machines_cannot_be_packed() -> None:
    with pytest.raises(UserError, match="soft"):
        pack_model(make_model(literals="soft"))
    with pytest.raises(UserError, match="no Tsetlin machine"):
        pack_model(make_model(backend="mlp"))


def test_the_clauses_of_a_machine_are_a_layer_that_terms_can_name() -> None:
    model = make_model()
    found: list[torch.Tensor] = []
    layer = dict(model.named_modules())["blocks.0.feed_forward.core.usage"]
    layer.register_forward_hook(lambda _, __, output: found.append(output))
    outputs = model(torch.rand(3, 1, 28, 28))
    assert found[0].shape == (3, 17, 16)
    assert torch.equal(found[0].mean(1), outputs["clauses"])


def test_votes_along_the_direct_path_are_the_change_of_the_logits_without_the_norm() -> None:
    model = make_model()
    model.norm = torch.nn.Identity()  # type: ignore[assignment]
    model.norm.weight = torch.ones(16)  # type: ignore[assignment]
    core: Any = dict(model.named_modules())["blocks.0.feed_forward.core"]
    image = torch.rand(1, 1, 28, 28)
    before = model(image)["logits"][0]
    core.clause_bias.data[3] += 1.0
    change = model(image)["logits"][0] - before
    assert torch.allclose(change - change.mean(), compute_votes(model)[:, 3], atol=1e-5)


def test_rules_name_literals_votes_and_pictures(tmp_path: Path) -> None:
    model, images = make_model(), torch.rand(6, 1, 28, 28)
    core: Any = model.machines[0]
    for bank in (core.ta_pos, core.ta_pos_inv, core.ta_neg, core.ta_neg_inv):
        bank.data.fill_(-9.0)
    core.ta_pos.data[0, 3] = core.ta_pos_inv.data[0, 7] = 9.0
    rules = list_rules(model, images, [0, 1, 2, 3, 4, 5], DIGITS)
    assert len(rules) == 16
    assert rules[0].literals == ("f3", "not f7")
    assert "if f3 and not f7" in rules[0].as_text()
    assert rules[1].mean == pytest.approx(1.0)
    assert rules[0].mean == pytest.approx(float(next(iter(collect_clauses(model, images).values()))[..., 0].mean()))
    write_rules(tmp_path, rules)
    assert json.loads((tmp_path / "rules.json").read_text())[0]["literals"] == ["f3", "not f7"]
    assert "f3 and not f7" in (tmp_path / "rules.md").read_text()


def test_the_evidence_of_a_picture_is_the_sum_of_its_clauses_votes() -> None:
    model, images = make_model(), torch.rand(2, 1, 28, 28)
    (one, _) = describe_pictures(model, images, [4, 5], ["a", "b"], DIGITS)
    clauses = collect_clauses(model, images)["blocks.0.feed_forward.core"][0]
    usual = model.machines[0].usage.running_mean
    said = ((clauses - usual) @ compute_votes(model)[DIGITS.index(one["predicted"])])[1:]
    assert np.allclose(one["evidence"], said.reshape(4, 4).numpy(), atol=1e-5)
    assert (one["id"], one["label"]) == ("a", "4")
