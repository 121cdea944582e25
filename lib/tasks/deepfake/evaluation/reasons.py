"""Reasons why frames have no decision, counted so that a report can show them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

MOST = 20  # reasons told one by one
OTHERS = "other reasons"
_NUMBER = re.compile(r"\d[\d.,]*")
_SOURCE = re.compile(r" \(cut from .*\)$", re.DOTALL)  # which file it was: not another reason


def count_reasons(reasons: Iterable[str]) -> dict[str, int]:
    """How often each reason came, the most frequent first. Those that differ in numbers alone are one, with N for the
    numbers; what a crop was cut from is left out; from the 21st kind on they are `OTHERS`.
    """
    exact = Counter(_SOURCE.sub("", reason) for reason in reasons)
    alike: dict[str, list[str]] = {}
    for reason in exact:
        alike.setdefault(_NUMBER.sub("N", reason), []).append(reason)
    counts = {
        (wordings[0] if len(wordings) == 1 else form): sum(exact[wording] for wording in wordings)
        for form, wordings in alike.items()
    }
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    told, others = dict(ordered[:MOST]), sum(count for _, count in ordered[MOST:])
    return told | ({OTHERS: others} if others else {})
