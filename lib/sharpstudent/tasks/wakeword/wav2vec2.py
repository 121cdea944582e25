"""The teacher `wav2vec2`: Wav2Vec2 of the transformers library on the waveform, the mean over time, and a head.

Baevski et al. 2020, "wav2vec 2.0: A Framework for Self-Supervised Learning of Speech Representations". The backbone of
wav2vec2-base has 94,371,712 parameters, the head (768-256-ReLU-dropout-2) 197,378. Tensors are called `wav2vec2.*` and
`classifier.*`. The backbone is frozen: stage 1 trains the head alone.

Legend: R rows, S samples of a window, D size of a hidden state.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sharpstudent.core.errors import UserError
from sharpstudent.core.files import explain, read_json
from sharpstudent.models.weight_files import read_tensors
from sharpstudent.models.weights import load_weights
from sharpstudent.tasks.wakeword.networks import CLASSES
from sharpstudent.tasks.wakeword.speech_embedding import check_waveform

PACKAGE = "transformers~=5.23.0"  # of the extra wav2vec2
BASE = "facebook/wav2vec2-base-960h"
HIDDEN_UNITS = 256
SMALLEST_VARIANCE = 1e-7  # as the feature extractor of the library
OWN = ("normalize", "train_backbone", "gradient_checkpointing")  # options that are not of the library's config
FOLDER = Path("weights") / BASE.partition("/")[2]  # where a user puts the hub's files
FILES = ("model.safetensors", "pytorch_model.bin")


def load_transformers() -> Any:
    """Import transformers; raise UserError that says how to install it."""
    try:
        import transformers  # pyright: ignore[reportMissingImports] (of an extra)
    except ImportError as error:
        raise UserError.about(
            "transformers",
            "library is required for Wav2VecWakeword",
            got=str(error),
            remedy=f"pip install {PACKAGE}",
        ) from None
    return transformers


class Wav2VecWakeword(nn.Module):
    """`waveform` (R, S) -> `logits` (R, 2), and `embedding` (R, D), the mean of the hidden states."""

    def __init__(self, options: Mapping[str, Any] | None = None, dropout: float = 0.1) -> None:
        """Build the model with random weights; no file is opened.

        Args:
            options: `normalize` (default true): each window is brought to mean 0 and deviation 1, as `do_normalize` of
                the feature extractor asks; `train_backbone` (default false); `gradient_checkpointing`; and any key of
                transformers' Wav2Vec2Config.
            dropout: Rate before the last layer.

        Raises:
            UserError: Without transformers, and for an option that its config does not have.
        """
        super().__init__()
        transformers, given = load_transformers(), dict(options or {})
        own = {name: given.pop(name) for name in OWN if name in given}
        known = transformers.Wav2Vec2Config()
        unknown = sorted(name for name in given if not hasattr(known, name))
        if unknown:
            raise UserError.about(
                f"wav2vec2.{unknown[0]}", "is no option of this model", expected=f"{', '.join(OWN)}, or a key of "
                "transformers' Wav2Vec2Config", remedy="take it out",
            )  # fmt: skip
        config = transformers.Wav2Vec2Config(**given)
        config.apply_spec_augment = False  # features are never masked; the tensor for it stays, as files have it
        self.normalize = bool(own.get("normalize", True))
        self.wav2vec2 = transformers.Wav2Vec2Model(config)
        self.wav2vec2.requires_grad_(bool(own.get("train_backbone", False)))
        if own.get("gradient_checkpointing"):
            self.wav2vec2.gradient_checkpointing_enable()
        size = config.hidden_size
        self.classifier = nn.Sequential(
            nn.Linear(size, HIDDEN_UNITS), nn.ReLU(), nn.Dropout(dropout), nn.Linear(HIDDEN_UNITS, CLASSES)
        )

    def forward(self, waveform: Tensor) -> dict[str, Tensor]:
        """Compute `logits` and `embedding`."""
        sound = check_waveform(waveform)
        if self.normalize:
            mean, variance = sound.mean(1, keepdim=True), sound.var(1, unbiased=False, keepdim=True)
            sound = (sound - mean) / torch.sqrt(variance + SMALLEST_VARIANCE)
        embedding = self.wav2vec2(sound).last_hidden_state.mean(1)
        return {"logits": self.classifier(embedding), "embedding": embedding}


def load_pretrained(model: nn.Module, name: str, key: str, *, partial: bool, may_fetch: bool = True) -> str:
    """Load the backbone of a wav2vec2 folder, `weights/wav2vec2-base-960h/`, or of the hub.

    Args:
        model: A `Wav2VecWakeword`.
        name: Its architecture.
        key: The config key that asks for it, for messages.
        partial: Whether tensors may be missing.
        may_fetch: Whether the hub may be asked.

    Returns:
        A sentence that says where the weights come from.

    Raises:
        UserError: Where there are none, or they do not fit.
    """
    found = next((FOLDER / file for file in FILES if (FOLDER / file).is_file()), None)
    if found is None and may_fetch:
        found = _fetch(key)
    if found is None or name != "wav2vec2":
        raise UserError.about(
            f"{key} = 'pretrained'", f"finds no weights of {name}",
            expected=f"{FOLDER}/{FILES[0]}, a copy of the hub's {BASE}",
            remedy=f"put the file there, or name your own file or folder in {key}",
        )  # fmt: skip
    tensors = {key: value for key, value in read_tensors(found).items() if not key.startswith("lm_head.")}
    if not any(key.startswith("wav2vec2.") for key in tensors):
        tensors = {f"wav2vec2.{key}": value for key, value in tensors.items()}
    _honour_extractor(model, found.parent / "preprocessor_config.json")
    return load_weights(model, tensors, where=str(found), needs_head=False, allow_partial=partial)


def _honour_extractor(model: nn.Module, path: Path) -> None:
    """Take `do_normalize` from the feature extractor's own file, where there is one."""
    if path.is_file() and isinstance(model, Wav2VecWakeword):
        try:
            model.normalize = bool(read_json(path).get("do_normalize", True))
        except (OSError, ValueError, AttributeError) as error:
            raise UserError.about(
                str(path), f"cannot be read ({explain(error)})", remedy="copy it again from the hub"
            ) from None


def _fetch(key: str) -> Path | None:
    """Fetch the weights from the hub into its own cache; None where it cannot be reached."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        hf_hub_download(BASE, "preprocessor_config.json")
        return Path(hf_hub_download(BASE, FILES[0]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError):
        return None
