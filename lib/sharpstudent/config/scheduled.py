"""Evaluates and checks the schedules of a config over the epochs of a run.

Values are computed at the first and last step of the epochs at which a schedule can turn: between those, every kind
only rises or only falls.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence

from sharpstudent.config.keys import FileKeys
from sharpstudent.config.messages import show
from sharpstudent.config.run_config import OptimizerSection, Stage
from sharpstudent.core.errors import Problem
from sharpstudent.core.schedules import (
    ConfigSchedule,
    FlatThenLinear,
    Progress,
    Ramp,
    RiseThenLinear,
    Schedule,
    Staircase,
    Table,
    TwoStage,
    ZeroUntil,
)


def build_lr_schedule(section: OptimizerSection) -> Schedule:
    """Build the schedule of the learning rate.

    It is the config's schedule, if there is one. Otherwise the rate is constant, after a warm-up if there is one, and
    then falls linearly to 0.
    """
    if section.lr_schedule is not None:
        return section.lr_schedule
    return FlatThenLinear(section.lr, flat=section.flat, warmup=section.warmup)


def build_rho_schedule(section: OptimizerSection) -> Schedule:
    """Build the schedule of the SAM radius.

    It is the config's schedule, if there is one. Otherwise the radius is constant, unless it has a warm-up or changes
    to `rho_end`. With `sam_last` it is 0 before.
    """
    end = section.rho if section.rho_end is None else section.rho_end
    radius = section.rho_schedule or RiseThenLinear(section.rho, end=end, rise=section.rho_warmup)
    return radius if section.sam_last == 1.0 else ZeroUntil(radius, last=section.sam_last)


# The keys that change a plain number in the course of a run, and the value at which each has no effect.
SHAPED_BY: dict[str, dict[str, float | None]] = {
    "lr": {"flat": 1.0, "warmup": 0.0},
    "rho": {"rho_end": None, "rho_warmup": 0.0},
}


def scale(number: float | ConfigSchedule, factor: float) -> float | ConfigSchedule:
    """Multiply a number, or every value of a schedule.

    Args:
        number: The number or the schedule.
        factor: The factor.

    Returns:
        The product; a schedule keeps its epochs.
    """
    return number.scale(factor) if isinstance(number, ConfigSchedule) else number * factor


def show_number(number: float | ConfigSchedule, epochs: int) -> str:
    """Write a number, or the first and last value of a schedule within a run, as text.

    Args:
        number: The number or the schedule.
        epochs: Number of epochs of the run.

    Returns:
        Text such as `0.1 to 0.001 (cosine)`.
    """
    if not isinstance(number, ConfigSchedule):
        return show(number)
    values = [value for _, value in probe(number, epochs)]
    first = 0.0 if number.kind == "ramp" else values[0]
    return f"{_show(first)} to {_show(values[-1])} ({number.kind})"


def compute_peak(number: float | ConfigSchedule, epochs: int) -> float:
    """Compute the highest value within a run.

    Args:
        number: The number or the schedule.
        epochs: Number of epochs of the run.

    Returns:
        The value.
    """
    if not isinstance(number, ConfigSchedule):
        return number
    return max(value for _, value in probe(number, epochs))


def probe(schedule: ConfigSchedule, epochs: int) -> list[tuple[int, float]]:
    """Compute a schedule at points of a run that include its lowest and its highest value.

    Args:
        schedule: The schedule.
        epochs: Number of epochs of the run.

    Returns:
        Pairs (epoch, value): the first and the last step of each such epoch.
    """
    turns = sorted(epoch for epoch in {1, epochs, *schedule.turns} if epoch <= epochs)
    # With two steps an epoch, the first step and the last are all there is.
    steps = [Progress(epoch, step, epochs, 2) for epoch in turns for step in (0, 1)]
    return [(progress.epoch, schedule(progress)) for progress in steps]


_FITS = {"at_least": operator.ge, "above": operator.gt, "below": operator.lt, "at_most": operator.le}


def check_schedule(section: ConfigSchedule, epochs: int, where: str, **bounds: float | None) -> list[Problem]:
    """Check that a schedule stays in its range throughout a run.

    A value that only a longer run would reach is no problem. Neither is the 0 from which a ramp rises, because its
    first step is above it.

    Args:
        section: The schedule.
        epochs: Number of epochs of the run.
        where: The key path of the schedule.
        bounds: Any of `at_least`, `above`, `below` and `at_most`; None is no bound.

    Returns:
        At most one problem: the first value out of range, at the field that it comes from.
    """
    given = {name: bound for name, bound in bounds.items() if bound is not None}
    expected = " and ".join(f"{name.replace('_', ' ')} {_show(bound)}" for name, bound in given.items())

    def fits(value: float) -> bool:
        return all(_FITS[name](value, bound) for name, bound in given.items())

    for epoch, value in probe(section, epochs):
        if not fits(value):
            what = "is out of range" if section.kind == "constant" else f"is out of range in epoch {epoch}"
            remedy = f"write a number {expected}"
            if given.get("above") == value == section.numbers.get("end"):
                remedy += f"; to end practically at {_show(value)}, end a little above it"
            place = where + _find_field(section, value, fits)
            return [Problem(place, what, f"a number {expected}, in the whole run", _show(value), remedy)]
    return []


def describe_schedule(schedule: ConfigSchedule, epochs: int, where: str) -> list[str]:
    """Say which values of a schedule a run is too short to reach.

    Args:
        schedule: The schedule.
        epochs: Number of epochs of the run.
        where: The key path of the schedule.

    Returns:
        One sentence, or none where the run reaches everything.
    """
    begin = f"the run ends after epoch {epochs}, "
    match schedule:
        case Staircase(end=value, epochs=last) | TwoStage(end=value, epochs=last) if epochs <= last:
            late = f"reaches its end {_show(value)} in epoch {last + 1}"
        case Ramp(value=value, epochs=last) if epochs < last:
            late = f"has risen to {_show(value)} in epoch {last}"
        case Table() if max(schedule.turns) > epochs:
            first = min(epoch for epoch in schedule.turns if epoch > epochs)
            return [f"{begin}so the points of {where} from epoch {first} on have no effect"]
        case _:
            return []
    return [f"{begin}before {where} {late}; lower {where}.epochs or raise epoch to get there"]


def check_schedules(keys: FileKeys, own: FileKeys, stage: Stage) -> Iterator[Problem]:
    """Check the schedules of lr and rho.

    They must stay in range and have no complement, and no other key may change the same number. A key outside the group
    of the schedule (a flat `flat` beside `stage1.lr`) counts for the other stage; `describe_schedules` says so.

    Args:
        keys: The keys of the file.
        own: The keys as the stage reads them (`resolve.take_stage`).
        stage: The stage.

    Returns:
        The problems.
    """
    for name, where, section in _list_schedules(keys, own, stage):
        if section.complement:
            yield Problem(
                f"{where}.complement",
                "has no meaning here: one minus the schedule is for weights of the loss",
                remedy="leave it out, and write the values themselves",
            )
            continue
        if name == "lr":
            yield from check_schedule(section, own.epoch, where, above=0.0, at_most=100.0)
        else:
            yield from check_schedule(section, own.epoch, where, at_least=0.0, at_most=100.0)
        for rival in _list_rivals(keys, stage, name, within=where):
            yield Problem(
                rival,
                f"contradicts {where}, which is a schedule and alone determines {name}",
                expected=f"a number for {name}, or no {' and no '.join(SHAPED_BY[name])}",
                got=f"{where} {show(section.as_json())}",
                remedy=f"leave {rival} out, or write {where} as a number",
            )


def describe_schedules(keys: FileKeys, own: FileKeys, stage: Stage) -> list[str]:
    """Say which values of the schedules of lr and rho a run never reaches, and which keys have no effect beside them.

    Args:
        keys: The keys of the file.
        own: The keys as the stage reads them (`resolve.take_stage`).
        stage: The stage.

    Returns:
        Sentences for the log.
    """
    notes: list[str] = []
    for name, where, section in _list_schedules(keys, own, stage):
        notes += describe_schedule(section, own.epoch, where)
        idle = [key for key in SHAPED_BY[name] if _is_given(keys, key)]
        if idle:
            notes.append(f"in stage {stage} the schedule {where} replaces {' and '.join(idle)}")
    return notes


def _list_schedules(keys: FileKeys, own: FileKeys, stage: Stage) -> list[tuple[str, str, ConfigSchedule]]:
    """List (name, key path, schedule) for lr and rho, for each of them that is a schedule."""
    group = keys.get_group(stage)
    places = {name: name if getattr(group, name) is None else f"stage{stage}.{name}" for name in SHAPED_BY}
    found = [(name, where, getattr(own, name)) for name, where in places.items()]
    return [one for one in found if isinstance(one[2], ConfigSchedule)]


def _list_rivals(keys: FileKeys, stage: Stage, name: str, *, within: str) -> Sequence[str]:
    """List the keys that the user set and that would change the same number as the schedule at `within`."""
    group = keys.get_group(stage)
    inner = [f"stage{stage}.{key}" for key in SHAPED_BY[name] if _is_given(group, key)]
    outer = [key for key in SHAPED_BY[name] if within == name and _is_given(keys, key)]
    return outer + inner


def _is_given(keys: object, key: str) -> bool:
    """Return whether the user gave a key, with a value that has an effect."""
    idle = {name: value for shapes in SHAPED_BY.values() for name, value in shapes.items()}
    given: set[str] = getattr(keys, "model_fields_set")  # noqa: B009, of either model
    value = getattr(keys, key)
    return key in given and value is not None and value != idle[key]


def _find_field(schedule: ConfigSchedule, value: float, fits: Callable[[float], bool]) -> str:
    """Find the field that makes a value wrong, such as `.start` or `.points.10`; "" where there is only one."""
    if schedule.kind == "constant" or schedule.complement:
        return ""
    equal = [f".{name}" for name, number in schedule.numbers.items() if number == value]
    # The value may lie between two fields, on a stair or a ramp; then one of the fields is out of range, too.
    return next(iter(equal or [f".{name}" for name, number in schedule.numbers.items() if not fits(number)]), "")


def _show(value: float | None) -> str:
    """Write a number as text: 2 and not 2.0."""
    return str(int(value)) if value is not None and value.is_integer() and abs(value) < 1e7 else show(value)
