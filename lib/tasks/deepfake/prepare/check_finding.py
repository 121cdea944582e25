"""What a check says: one finding a fault, with a count, a few examples by name and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

EXAMPLES = 5


@dataclass(frozen=True)
class Finding:
    """A fault of a set. what: a sentence with the count in it; examples: all or the first of them; count: how many
    such there are; remedy: what to do about it.
    """

    what: str
    count: int
    examples: Sequence[str]
    remedy: str

    def as_text(self) -> str:
        lines = [f"PROBLEM  {self.what}"]
        lines += [f"    {example}" for example in self.examples[:EXAMPLES]]
        more = self.count - len(self.examples[:EXAMPLES])
        if more > 0 and self.examples:
            lines.append(f"    and {more:,} more")
        return "\n".join([*lines, f"    what to do: {self.remedy}"])


@dataclass(frozen=True)
class Findings:
    """What one look gave: faults, and lines that are no faults."""

    faults: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()


def count_of(number: int, one: str, many: str) -> str:
    """`1 crop is`, `2,000 crops are`."""
    return f"{number:,} {one if number == 1 else many}"
