"""Splits that keep people apart."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from lib.errors import Problem, UserError


def choose_validation_identities(identities: Collection[str], *, share: float, seed: int) -> frozenset[str]:
    """A `share` of the distinct identities, at least one and never all of them, drawn by `seed` alone.

    Raises UserError when there are fewer than two people: nobody could be held out.
    """
    people = sorted(set(identities))
    if len(people) < 2:
        raise UserError(
            Problem(
                where="validation",
                what="needs people who are not in training, but all pictures show one person",
                expected="at least 2 people",
                got=f"{len(people)}: {', '.join(people) or 'nobody'}",
                remedy="add pictures of other people, one folder a person",
            )
        )
    held_out = min(max(1, round(share * len(people))), len(people) - 1)
    chosen = np.random.default_rng(seed).permutation(len(people))[:held_out]
    return frozenset(people[i] for i in chosen)
