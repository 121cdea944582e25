"""Schedules in a config: the schedule itself, what it does in a run of so many epochs, and what is wrong with it.

Epochs are asked where a schedule can turn, at their first and last step: between those every kind goes one way only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sharpstudent.config.keys import FileKeys
from sharpstudent.config.messages import show
from sharpstudent.config.run_config import OptimizerSection, ScheduleSection, Stage
from sharpstudent.core.errors import Problem
from sharpstudent.core.schedules import (
    Complement,
    Constant,
    Cosine,
    FlatThenLinear,
    Linear,
    Progress,
    Ramp,
    RiseThenLinear,
    Schedule,
    Staircase,
    TableSchedule,
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
            return TableSchedule(tuple(sorted((int(epoch), value) for epoch, value in points.items())))
        case ScheduleSection(kind="two_stage", start=float(start), end=float(end), epochs=int(epochs)):
            return TwoStage(start, end, epochs)
        case _:
            raise ValueError(f"incomplete schedule: {section!r}")


# The keys that shape a plain number, and the value with which each does nothing.
SHAPED_BY: dict[str, dict[str, float | None]] = {
    "lr": {"flat": 1.0, "warmup": 0.0},
    "rho": {"rho_end": None, "rho_warmup": 0.0},
}


def scale(number: float | ScheduleSection, factor: float) -> float | ScheduleSection:
    """`factor` times a number, or times every value of a schedule; its epochs stay."""
    if not isinstance(number, ScheduleSection):
        return number * factor
    scaled = {name: getattr(number, name) for name in ("value", "start", "end")}
    update: dict[str, object] = {name: value * factor for name, value in scaled.items() if value is not None}
    if number.points is not None:
        update["points"] = {epoch: value * factor for epoch, value in number.points.items()}
    return number.model_copy(update=update)


def show_moving(number: float | ScheduleSection, epochs: int) -> str:
    """A number, or where a schedule begins and ends within the run: `0.1 to 0.001 (cosine)`."""
    if not isinstance(number, ScheduleSection):
        return show(number)
    values = [value for _, value in probe(number, epochs)]
    first = 0.0 if number.kind == "ramp" else values[0]
    return f"{_show(first)} to {_show(values[-1])} ({number.kind})"


def compute_peak(number: float | ScheduleSection, epochs: int) -> float:
    """The highest value within the run."""
    if not isinstance(number, ScheduleSection):
        return number
    return max(value for _, value in probe(number, epochs))


def probe(section: ScheduleSection, epochs: int) -> list[tuple[int, float]]:
    """(epoch, value) wherever the lowest and the highest value of the run can lie."""
    schedule = build_schedule(section)
    turns = {1, epochs, *map(int, section.points or {})}
    if section.kind in ("staircase", "ramp", "two_stage"):
        turns.add((section.epochs or 1) + 1)  # no new extreme, but the epoch that a message shall name
    steps = [Progress(epoch, step, epochs, 2) for epoch in sorted(turns) if epoch <= epochs for step in (0, 1)]
    return [(progress.epoch, schedule(progress)) for progress in steps]


def list_turns(section: ScheduleSection) -> list[int]:
    """The epochs that begin with another value than the one before, for the kinds that move from epoch to epoch."""
    if section.kind == "staircase" and section.epochs is not None:
        # Stair k begins in the first epoch e with stairs (e - 1) >= k epochs; not more stairs than epochs are climbed.
        stairs = section.stairs or 4
        climbed = range(min(stairs, section.epochs) + 1)
        return [-(-stair * section.epochs // min(stairs, section.epochs)) + 1 for stair in climbed]
    if section.kind == "two_stage" and section.epochs is not None:
        return [1, section.epochs + 1]
    return sorted(map(int, section.points or {}))


def check_schedule(
    section: ScheduleSection,
    epochs: int,
    where: str,
    *,
    at_least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> list[Problem]:
    """At most one problem: the first value out of range in a run of `epochs` epochs, at the field that it comes from.

    where: the key path of the schedule. `above` and `below` are strict. A value that only a longer run would reach is
    no problem; neither is the 0 that a ramp rises from, for its first step is above it.
    """
    bounds = (("at least", at_least), ("above", above), ("below", below), ("at most", at_most))
    expected = " and ".join(f"{word} {_show(bound)}" for word, bound in bounds if bound is not None)

    def fits(value: float) -> bool:  # nothing does that is nan
        return (
            (at_least is None or value >= at_least)
            and (above is None or value > above)
            and (below is None or value < below)
            and (at_most is None or value <= at_most)
        )

    for epoch, value in probe(section, epochs):
        if not fits(value):
            what = "is out of range" if section.kind == "constant" else f"is out of range: it counts in epoch {epoch}"
            remedy = f"write a number {expected}"
            if above == value == section.end:
                remedy += f"; a schedule that shall all but end at {_show(above)} ends a little above it"
            place = where + _find_field(section, value, fits)
            return [Problem(place, what, f"a number {expected}, in the whole run", _show(value), remedy)]
    return []


def describe_schedule(section: ScheduleSection, epochs: int, where: str) -> list[str]:
    """One sentence for what the run is too short to reach; none where it reaches everything."""
    last = section.epochs or 1
    if section.kind in ("staircase", "two_stage") and epochs <= last:
        return [
            f"the run ends after epoch {epochs}, before {where} reaches its end {_show(section.end)} in epoch "
            f"{last + 1}; lower {where}.epochs or raise epoch to get there"
        ]
    if section.kind == "ramp" and epochs < last:
        return [
            f"the run ends after epoch {epochs}, before {where} has risen to {_show(section.value)} in epoch {last}; "
            f"lower {where}.epochs or raise epoch to get there"
        ]
    late = sorted(int(epoch) for epoch in section.points or {} if int(epoch) > epochs)
    if late:
        return [f"the run ends after epoch {epochs}, so the points of {where} from epoch {late[0]} on have no effect"]
    return []


def check_moving(keys: FileKeys, own: FileKeys, stage: Stage) -> list[Problem]:
    """Schedules of lr and rho: within range throughout, no complement, and no other key that shapes the same number.

    own: the keys as the stage reads them. A key that shapes it from farther out than the schedule itself (a flat `flat`
    beside `stage1.lr`) is for the other stage: `describe_moving` says that it is idle.
    """
    problems: list[Problem] = []
    for name, where, section in _list_moving(keys, own, stage):
        if section.complement:
            problems.append(
                Problem(
                    f"{where}.complement",
                    "has no meaning here: one minus the schedule is for weights of the loss",
                    remedy="leave it out, and write the values themselves",
                )
            )
            continue
        if name == "lr":
            problems += check_schedule(section, own.epoch, where, above=0.0, at_most=100.0)
        else:
            problems += check_schedule(section, own.epoch, where, at_least=0.0)
        for rival in _list_rivals(keys, stage, name, within=where):
            problems.append(
                Problem(
                    rival,
                    f"contradicts {where}, which is a schedule and says everything about {name}",
                    expected=f"a number for {name}, or no {' and no '.join(SHAPED_BY[name])}",
                    got=f"{where} {show(section.model_dump())}",
                    remedy=f"leave {rival} out, or write {where} as a number",
                )
            )
    return problems


def describe_moving(keys: FileKeys, own: FileKeys, stage: Stage) -> list[str]:
    """For the log: what the schedules of lr and rho never reach, and which keys they make idle."""
    notes: list[str] = []
    for name, where, section in _list_moving(keys, own, stage):
        notes += describe_schedule(section, own.epoch, where)
        idle = [key for key in SHAPED_BY[name] if _is_said(keys, key)]
        if idle:
            notes.append(f"in stage {stage} the schedule {where} stands in the place of {' and '.join(idle)}")
    return notes


def find_source(keys: FileKeys, stage: Stage, name: str) -> str:
    """The key that a stage reads `name` from: `stage1.lr` where the group says so, else `lr`."""
    group = keys.stage1 if stage == 1 else keys.stage2
    return name if getattr(group, name) is None else f"stage{stage}.{name}"


def _list_moving(keys: FileKeys, own: FileKeys, stage: Stage) -> list[tuple[str, str, ScheduleSection]]:
    """(name, key path, schedule) of lr and rho, as far as they are schedules."""
    found = [(name, find_source(keys, stage, name), getattr(own, name)) for name in SHAPED_BY]
    return [(name, where, value) for name, where, value in found if isinstance(value, ScheduleSection)]


def _list_rivals(keys: FileKeys, stage: Stage, name: str, *, within: str) -> Sequence[str]:
    """The keys set beside the schedule, or in a group inside its reach, that would shape the same number."""
    group = keys.stage1 if stage == 1 else keys.stage2
    inner = [f"stage{stage}.{key}" for key in SHAPED_BY[name] if _is_said(group, key)]
    outer = [key for key in SHAPED_BY[name] if within == name and _is_said(keys, key)]
    return outer + inner


def _is_said(keys: object, key: str) -> bool:
    """Whether a key was written, with a value that shapes anything."""
    idle = {name: value for shapes in SHAPED_BY.values() for name, value in shapes.items()}
    said: set[str] = getattr(keys, "model_fields_set")  # noqa: B009, of either model
    value = getattr(keys, key)
    return key in said and value is not None and value != idle[key]


def _find_field(section: ScheduleSection, value: float, fits: Callable[[float], bool]) -> str:
    """`.start`, `.points.10` and so on: what to mend for a value to fit; nothing where it is the only one."""
    if section.kind == "constant" or section.complement:
        return ""
    points = {f".points.{epoch}": point for epoch, point in (section.points or {}).items()}
    fields = {f".{name}": getattr(section, name) for name in ("start", "end", "value")} | points
    given = {name: number for name, number in fields.items() if number is not None}
    equal = [name for name, number in given.items() if number == value]
    # A stair or a step of a ramp is no field's value; the field that it leads to is beyond the bound too.
    return next(iter(equal or [name for name, number in given.items() if not fits(number)]), "")


def _show(value: float | None) -> str:
    """2 and not 2.0."""
    return str(int(value)) if value is not None and value.is_integer() and abs(value) < 1e7 else show(value)
