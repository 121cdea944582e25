"""Tiny classifiers and weight files for the tests of the models."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from sharpstudent.core.types import Batch, ModelSpec
from sharpstudent.models.vision import Classifier, build_classifier
from torch import Tensor, nn

SMALL = "test_resnet"  # 0.4 M parameters
OTHER = "test_efficientnet"


class PictureModels:
    """What builds the models of a config: classifiers of pictures of 32 x 32, two classes."""

    classes = ("real", "fake")
    pretrained: Mapping[str, str] = {"imagenet": "sharpstudent.models.pretrained:load_imagenet"}

    facts_of_data: tuple[str, ...] = ("fakes",)

    def facts(self) -> dict[str, Any]:
        return {"classes": list(self.classes), "image_size": 32}

    def build_student(self, spec: ModelSpec) -> Classifier:
        return build_classifier(spec.name, classes=len(self.classes), dropout=spec.dropout, options=spec.options)

    def build_teacher(self, spec: ModelSpec) -> Classifier:
        return self.build_student(spec)

    def example_batch(self, count: int) -> Batch:
        names = [str(row) for row in range(count)]
        return Batch(inputs={"image": torch.zeros(count, 3, 32, 32)}, rows={"id": names, "group": names})


def build_small(seed: int, name: str = SMALL, classes: int = 2) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_classifier(name, classes=classes, dropout=0.3)


def build_timm(seed: int, name: str = SMALL) -> nn.Module:
    """As the hub gives it: timm's own names, a head of 1000 classes."""
    import timm

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return timm.create_model(name)


def save_run(path: Path, *, name: str = SMALL, seed: int = 1, time_s: int | None = None) -> Path:
    """A checkpoint of stage 1 where a run leaves it; `time_s` sets the file's time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": build_small(seed, name).state_dict(), "epoch": 3}, path)
    if time_s is not None:
        os.utime(path, (time_s, time_s))
    return path


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def are_equal(one: Mapping[str, Any], two: Mapping[str, Any]) -> bool:
    return list(one) == list(two) and all(torch.equal(one[key], two[key]) for key in one)
