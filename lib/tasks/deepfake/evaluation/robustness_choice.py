"""What a robustness measurement looks at: which disturbances, and which faces."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from lib.errors import Problem, UserError
from lib.modalities.faces.disturb import DISTURBANCES, Disturbance
from lib.modalities.faces.recompress import find_obstacle
from lib.random import build_generator


def choose_disturbances(names: Sequence[str] | None, say: Callable[[str], None]) -> tuple[Disturbance, ...]:
    """Those of these names, in their own order; all for None or none. Where H.264 cannot be had it is left out, and
    `say` is told why. Raises UserError for a name that is none, and where nothing is left.
    """
    known = [disturbance.name for disturbance in DISTURBANCES]
    unknown = sorted(set(names or ()) - set(known))
    if unknown:
        raise UserError(
            Problem(
                where="robustness",
                what="no disturbance has this name",
                expected=", ".join(known),
                got=", ".join(unknown),
                remedy="name some of these, or none of them for all",
            )
        )
    wanted = [disturbance for disturbance in DISTURBANCES if not names or disturbance.name in names]
    obstacle = find_obstacle() if any(disturbance.name == "h264" for disturbance in wanted) else None
    if obstacle is None:
        return tuple(wanted)
    left = tuple(disturbance for disturbance in wanted if disturbance.name != "h264")
    if not left:
        raise UserError(Problem(where="robustness: h264", what=obstacle))
    say(f"robustness: h264 is left out: {obstacle}")
    return left


def choose_faces(
    labels: Sequence[NDArray[np.int64]], most: int | None, *, seed: int, say: Callable[[str], None]
) -> list[NDArray[np.int64]]:
    """The numbers of the faces to look at, rising, of each set: all of them, or at most so many of all sets together.

    labels: of the faces of each set, real 0 and fake 1, int64 (N,) each. Where it is fewer than all, half are real and
    half fake as far as there are, drawn by the seed alone. Raises UserError where less than one of each is allowed.
    """
    everything = np.concatenate(labels)
    if most is None or len(everything) <= most:
        return [np.arange(len(of_set)) for of_set in labels]
    if most < 2:
        raise UserError(
            Problem("robustness", "needs a real and a fake at least", expected="2 faces or more", got=str(most))
        )
    reals, fakes = (np.flatnonzero(everything == label) for label in (0, 1))
    of_reals = min(len(reals), max(most - most // 2, most - len(fakes)))
    rng = build_generator(seed, 0, 0, "order")
    some_reals = rng.permutation(reals)[:of_reals]
    some_fakes = rng.permutation(fakes)[: most - of_reals]
    say(
        f"robustness: {most:,} of {len(everything):,} faces, drawn with seed {seed}: {len(some_reals):,} of "
        f"{len(reals):,} real, {len(some_fakes):,} of {len(fakes):,} fake"
    )
    is_chosen = np.zeros(len(everything), np.bool_)
    is_chosen[some_reals] = is_chosen[some_fakes] = True
    ends = np.cumsum([len(of_set) for of_set in labels])
    return [np.flatnonzero(of_set) for of_set in np.split(is_chosen, ends[:-1])]
