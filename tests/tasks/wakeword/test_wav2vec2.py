"""The teacher wav2vec2 on a small random network: shapes, names, freezing, loading from a folder, refusals."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from sharpstudent.core.errors import UserError
from sharpstudent.core.types import ModelSpec
from sharpstudent.tasks.wakeword import wav2vec2
from sharpstudent.tasks.wakeword.task import WakewordTask
from sharpstudent.train.tuning import start_training

pytest.importorskip("transformers", reason="transformers is not installed: the extra wav2vec2")

SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
         "conv_dim": [8] * 7, "num_conv_pos_embeddings": 16}  # fmt: skip


def build(**more: object) -> wav2vec2.Wav2VecWakeword:
    model = WakewordTask().build_teacher(ModelSpec("wav2vec2", {**SMALL, **more}, role="teacher"))
    assert isinstance(model, wav2vec2.Wav2VecWakeword)
    return model


def test_raw_audio_gives_logits_and_an_embedding_under_the_published_names() -> None:
    model = build()
    start_training(model)
    outputs = model(torch.randn(3, 24000))
    assert outputs["logits"].shape == (3, 2)
    assert outputs["embedding"].shape == (3, 32)
    assert {name.partition(".")[0] for name in model.state_dict()} == {"wav2vec2", "classifier"}
    outputs["logits"].sum().backward()
    assert all(one.grad is None for one in model.wav2vec2.parameters())
    assert all(one.grad is not None for one in model.classifier.parameters())
    assert not model.wav2vec2.training


def test_gradient_checkpointing_is_an_option_and_without_transformers_its_installation_is_advised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert build(gradient_checkpointing=True).wav2vec2.is_gradient_checkpointing
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match="transformers") as caught:
        build()
    assert "pip install" in caught.value.as_text()


def test_the_base_form_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = wav2vec2.Wav2VecWakeword()
    assert sum(one.numel() for one in model.wav2vec2.parameters()) == 94_371_712
    assert sum(one.numel() for one in model.classifier.parameters()) == 197_378


def test_the_level_of_a_window_is_no_matter_where_the_extractor_normalises() -> None:
    model, sound = build().eval(), torch.randn(2, 16000)
    loud, quiet = model(sound)["embedding"], model(0.01 * sound)["embedding"]
    torch.testing.assert_close(loud, quiet, atol=1e-4, rtol=1e-3)


def test_a_spectrogram_an_unknown_option_and_missing_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="Teacher NOT called with spectrogram inputs"):
        build()(torch.zeros(2, 1, 64, 151))
    with pytest.raises(UserError, match="is no option"):
        build(hidden=3)
    monkeypatch.setattr(wav2vec2, "FOLDER", Path("nowhere"))
    with pytest.raises(UserError, match="finds no weights of wav2vec2"):
        wav2vec2.load_pretrained(build(), "wav2vec2", "student_init", partial=False, may_fetch=False)


def test_a_users_folder_of_the_hub_s_files_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = build()
    torch.save({**given.wav2vec2.state_dict(), "lm_head.weight": torch.zeros(3)}, tmp_path / "pytorch_model.bin")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False}))
    monkeypatch.setattr(wav2vec2, "FOLDER", tmp_path)
    model = build()
    wav2vec2.load_pretrained(model, "wav2vec2", "student_init", partial=False, may_fetch=False)
    for name, one in given.wav2vec2.state_dict().items():
        torch.testing.assert_close(model.wav2vec2.state_dict()[name], one)
    assert not model.normalize
