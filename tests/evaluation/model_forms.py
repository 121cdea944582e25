"""One small classifier in every file form that can be opened, for the tests of open_model and of costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sharpstudent.checkpoint.store import export_model, save_checkpoint
from sharpstudent.evaluation.load_model import ModelFile, open_model
from sharpstudent.evaluation.opened import OpenedModel
from sharpstudent.models.vision import Classifier, build_classifier
from torch import Tensor, nn

SMALL = "test_resnet"  # of timm, 0.4 M parameters
SIDE = 32
CLASSES = ("real", "fake")
CPU = torch.device("cpu")


def build(seed: int = 1, name: str = SMALL, classes: int = 2) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_classifier(name, classes=classes, dropout=0.3).eval()


def make_pictures(count: int = 5, side: int = SIDE) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(7))


def save_ours(path: Path, model: nn.Module | None = None, **about: Any) -> Path:
    """As a run saves it; `about` replaces what it says, None leaves a key out."""
    model = build() if model is None else model
    says = {"architecture": SMALL, "classes": list(CLASSES), "dropout": 0.3, "image_size": SIDE, "run": "7"} | about
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, {"model": model.state_dict()}, about={k: v for k, v in says.items() if v is not None})
    return path


def save_export(path: Path, model: nn.Module | None = None, **about: Any) -> Path:
    """best_model.safetensors as a run exports it."""
    checkpoint = save_ours(path.with_suffix(".pth"), model, **about)
    export_model(checkpoint, {"epoch": 3, "value": 0.75, "metric": "val_auc"})
    return path


def open_file(path: Path, task: Sequence[str] = CLASSES, **spec: Any) -> OpenedModel:
    return open_model(ModelFile(path, **spec), classes=task, device=CPU)


@torch.inference_mode()
def predict(model: nn.Module, pictures: Tensor) -> Tensor:
    return model(pictures)["logits"].clone()
