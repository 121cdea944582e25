"""Clause metrics and specialisation of the transformers, as the document's checklist asks; docs/tokens.md has more."""

import pytest
import torch
from fptm_ste.tm_transformer import UnifiedTMTransformer

SWIN = {"embed_dim": (16, 32), "depths": (1, 1), "num_heads": (2, 4), "patch_size": 4}


@pytest.mark.parametrize("backend", ["ste", "deeptm"])
@pytest.mark.parametrize("more", [{"patch_size": 8, "embed_dim": (16,), "num_heads": (2,)}, SWIN])
def test_clause_metrics_are_there_for_each_architecture_and_backend(backend, more):
    architecture = "swin" if "depths" in more else "vit"
    model = UnifiedTMTransformer(
        architecture=architecture, backend=backend, image_size=16, clauses=8, clause_specialize=0.5, **more
    )
    outputs = model.train()(torch.rand(4, 1, 16, 16))
    found = model.describe_usage()
    assert 0 <= found["dead_clauses"] <= 8 * len(model.machines)
    assert outputs["clauses"].shape == (4, 8 * len(model.blocks))
    assert all(0 < value <= 1 for value in outputs["clauses"].flatten().tolist())
    heads = [name for name in found if name.endswith("_before")]
    assert len(heads) == sum(block.attention.heads for block in model.blocks)


def test_specialisation_reweights_heads_by_the_clauses_and_survives_reloading():
    torch.manual_seed(0)
    keys = {"image_size": 16, "patch_size": 8, "embed_dim": (16,), "num_heads": (2,), "clauses": 8}
    model = UnifiedTMTransformer(clause_specialize=0.6, **keys)
    for _ in range(5):
        model.train()(torch.rand(8, 1, 16, 16))
    attention = model.blocks[0].attention
    usage = attention.usage.running_mean
    assert torch.allclose(attention.gains, 0.4 + 0.6 * usage / usage.mean())
    assert not torch.allclose(attention.gains, torch.ones(2))
    again = UnifiedTMTransformer(clause_specialize=0.6, **keys)
    again.load_state_dict(model.state_dict())
    picture = torch.rand(1, 1, 16, 16)
    assert torch.equal(again.eval()(picture)["logits"], model.eval()(picture)["logits"])
