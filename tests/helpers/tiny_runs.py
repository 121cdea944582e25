"""A run's config and console without a file, a folder or a task."""

from __future__ import annotations

import io
from typing import Any

import torch
from rich.console import Console
from sharpstudent.config.run_config import (
    ComputeSection,
    OptimizerSection,
    RunConfig,
    StudentSection,
    TaskSection,
    TermSection,
    TrainingSection,
)
from sharpstudent.core.schedules import Constant
from sharpstudent.core.types import Batch, ModelSpec
from sharpstudent.data.dataset import Samples
from sharpstudent.task import ClassificationTask
from sharpstudent.train.run import Run
from torch import nn


def make_config(*, stage: int = 2, student: str = "test_efficientnet", **keys: Any) -> RunConfig:
    """keys: of the compute, the optimiser or the training section."""

    def build(section: type, **defaults: Any) -> Any:
        return section(**{**defaults, **{key: value for key, value in keys.items() if key in section.model_fields}})

    optimizer = build(
        OptimizerSection,
        base="sgd",
        lr=0.1,
        momentum=0.9,
        weight_decay=0.0,
        rho=0.05,
        clip_norm=1.0,
        flat=0.75,
        warmup=0.0,
    )
    return RunConfig(
        name="run",
        config_name="config",
        stage=stage,
        seed=1,
        device="cpu",
        num_workers=0,
        output_root="output",
        task="deepfake",
        task_section=TaskSection(),
        student=StudentSection(name=student, init="random", dropout=0.3),
        teachers=(),
        training=build(
            TrainingSection, epochs=2, batch_size=4, max_skipped_in_a_row=5, keep_best=1, selection_metric="auc"
        ),
        optimizer=optimizer,
        compute=build(ComputeSection),
        criterion=(TermSection(name="hard", term="hard", weight=Constant(1.0)),),
    )


def make_run(config: RunConfig | None = None, device: str = "cpu", **keys: Any) -> Run:
    return Run(
        config=config or make_config(**keys),
        device=torch.device(device),
        console=Console(file=io.StringIO()),
        resumed_from=None,
        dry_run=False,
    )


class TinyTask(ClassificationTask):
    """Pictures of 9 x 9 of two classes, for code that needs some task; it has no data and builds no model."""

    Section = TaskSection
    classes = ("one", "two")

    def open_data(self, *splits: str) -> tuple[Samples, ...]:
        raise AssertionError("no test of a step opens data")

    def build_student(self, spec: ModelSpec) -> nn.Module:
        raise AssertionError("no test of a step has the task build a model")

    def example_batch(self, count: int) -> Batch:
        names = [str(row) for row in range(count)]
        return Batch(
            inputs={"image": torch.zeros(count, 3, 9, 9)},
            targets={"label": torch.arange(count) % 2},
            rows={"id": names, "group": names, "sample": list(range(count))},
        )
