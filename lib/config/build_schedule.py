"""From a schedule's config to the schedule itself, for every scalar of a run."""

from __future__ import annotations

from lib.config.sections import OptimizerSection, ScheduleSection
from lib.schedules import (
    Complement,
    Constant,
    Cosine,
    FlatThenLinear,
    Linear,
    Ramp,
    RiseThenLinear,
    Schedule,
    Staircase,
    Table,
    TwoStage,
)


def build_schedule(section: ScheduleSection) -> Schedule:
    """The scalar schedule that `section` describes."""
    schedule = _build_inner(section)
    return Complement(schedule) if section.complement else schedule


def build_lr_schedule(section: OptimizerSection) -> Schedule:
    """The learning rate: the config's schedule, else as the reference flat, then linear to 0, rising first if asked."""
    if section.lr_schedule is not None:
        return build_schedule(section.lr_schedule)
    return FlatThenLinear(section.lr, flat=section.flat, warmup=section.warmup)


def build_rho_schedule(section: OptimizerSection) -> Schedule:
    """The SAM radius: the config's schedule, else constant unless it shall rise from 0 first or move to `rho_end`."""
    if section.rho_schedule is not None:
        return build_schedule(section.rho_schedule)
    end = section.rho if section.rho_end is None else section.rho_end
    return RiseThenLinear(section.rho, end=end, rise=section.rho_warmup)


def _build_inner(section: ScheduleSection) -> Schedule:
    """ScheduleSection refuses what is incomplete on construction, so that a field is None only where it may be."""
    match section:
        case ScheduleSection(kind="constant", value=float(value)):
            return Constant(value)
        case ScheduleSection(kind="linear", start=float(start), end=float(end)):
            return Linear(start, end)
        case ScheduleSection(kind="cosine", start=float(start), end=float(end)):
            return Cosine(start, end)
        case ScheduleSection(kind="staircase", start=float(start), end=float(end), epochs=int(epochs), stairs=stairs):
            return Staircase(start, end, epochs) if stairs is None else Staircase(start, end, epochs, stairs)
        case ScheduleSection(kind="ramp", value=float(value), epochs=epochs):
            return Ramp(value) if epochs is None else Ramp(value, epochs)
        case ScheduleSection(kind="table", points=dict(points)):
            return Table(tuple(sorted((int(epoch), value) for epoch, value in points.items())))
        case ScheduleSection(kind="two_stage", start=float(start), end=float(end), epochs=int(epochs)):
            return TwoStage(start, end, epochs)
        case _:
            raise ValueError(f"incomplete schedule: {section!r}")
