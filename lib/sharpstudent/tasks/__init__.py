"""The registry of tasks: a name, the section model with its config keys, and where its task class is.

A new task adds its package and one line here; nothing below this room knows any task's name.
"""

from __future__ import annotations

import importlib
from typing import Any

from sharpstudent.config.run_config import RunConfig, TaskSection
from sharpstudent.tasks.deepfake.section import DeepfakeSection

SECTIONS: dict[str, type[TaskSection]] = {"deepfake": DeepfakeSection}
_CLASSES = {"deepfake": "sharpstudent.tasks.deepfake.task:DeepfakeTask"}


def build_task(config: RunConfig) -> Any:
    """The config's task, with its heavy imports made only now."""
    module, name = _CLASSES[config.task].split(":")
    made = getattr(importlib.import_module(module), name)
    return made(config.task_section, allow=config.allow, selection_metric=config.training.selection_metric)
