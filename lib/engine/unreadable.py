"""Items that cannot be read: named once each, and too many of them stop a run."""

from __future__ import annotations

from collections.abc import Iterable

from lib.data.loader import Replaced
from lib.errors import TrainingStopped

UNREADABLE_LIMIT = 0.05  # above this share of the set, training on what is left would be another data set


def take_in(replaced: Iterable[Replaced], unreadable: dict[str, str]) -> list[str]:
    """Add what is new to `unreadable` (path -> reason); a line for each of these."""
    lines: list[str] = []
    for item in replaced:
        if item.path not in unreadable:
            unreadable[item.path] = item.reason
            lines.append(f"left out {item.path}: {item.reason}; another item takes its place")
    return lines


def stop_if_too_many(unreadable: dict[str, str], known: int) -> None:
    """Raise TrainingStopped above `UNREADABLE_LIMIT` of the `known` items; one alone never stops a run."""
    if len(unreadable) > max(1, UNREADABLE_LIMIT * known):
        raise TrainingStopped(
            f"{len(unreadable)} of {known} items cannot be read (more than {UNREADABLE_LIMIT:.0%}); "
            "the list is above: mend or remove them"
        )
