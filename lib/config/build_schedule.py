"""From a schedule's config to the schedule itself."""

from __future__ import annotations

from lib.config.sections import ScheduleSection
from lib.schedules import Complement, Constant, Schedule, Staircase


def build_schedule(section: ScheduleSection) -> Schedule:
    """The scalar schedule that `section` describes."""
    schedule = _build_inner(section)
    return Complement(schedule) if section.complement else schedule


def _build_inner(section: ScheduleSection) -> Schedule:
    if section.kind == "constant" and section.value is not None:
        return Constant(section.value)
    if section.start is not None and section.end is not None and section.epochs is not None:
        return Staircase(section.start, section.end, section.epochs)
    raise ValueError(f"incomplete schedule: {section!r}")  # ScheduleSection refuses this on construction
