"""What messages, tables and files call the models of a run."""

from __future__ import annotations

from torch import nn

from lib.config.sections import RunConfig
from lib.models.teachers import TeacherEnsemble

Named = tuple[str, nn.Module]


def name_teachers(config: RunConfig, teachers: nn.Module | None) -> list[Named]:
    """The teachers of stage 2 in their order: `teacher NAME`, or `teacher 1 NAME`, `teacher 2 NAME` and so on."""
    if not isinstance(teachers, TeacherEnsemble):
        return []
    sections = config.teachers
    numbers = [f" {number}" for number in range(1, len(sections) + 1)] if len(sections) > 1 else [""]
    names = [f"teacher{number} {section.name}" for number, section in zip(numbers, sections, strict=True)]
    return list(zip(names, teachers.members, strict=True))
