"""Overlays of clauses on pictures; skipped where matplotlib is missing."""

import json

import pytest
import torch
from fptm_ste.tm_transformer import UnifiedTMTransformer

pytest.importorskip("matplotlib")

from sharpstudent.tasks.tokens.rules import describe_pictures, write_overlays


def test_a_picture_and_its_data_are_written_for_each_sample(tmp_path):
    model = UnifiedTMTransformer(image_size=16, patch_size=4, embed_dim=(16,), num_heads=(2,), clauses=8)
    images = torch.rand(2, 1, 16, 16)
    described = describe_pictures(model, images, [3, 5], ["a", "b"], [str(k) for k in range(10)])
    paths = write_overlays(tmp_path, images, described)
    assert [path.name for path in paths] == [f"overlay_00{n}.{kind}" for n in (0, 1) for kind in ("png", "json")]
    assert paths[0].read_bytes()[:4] == b"\x89PNG"
    data = json.loads(paths[1].read_text())
    assert data["label"] == "3"
    assert len(data["evidence"]) == len(data["evidence"][0]) == 4
