"""The values that a sweep tries: how they are written, and which are next.

Lists alone are a grid. Otherwise Optuna chooses by the trials before (tree-structured Parzen estimator, Bergstra et
al. 2011, "Algorithms for Hyper-Parameter Optimization"), and says which running trial is hopeless. Its study is built
from the trials each time.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from sharpstudent.config.load import parse_value
from sharpstudent.core.errors import UserError

OPTUNA = "optuna~=5.0.0"  # the extra `sweep`
MOST_COMBINATIONS = 1000
State = Literal["running", "complete", "pruned", "failed"]


@dataclass(frozen=True)
class Choices:
    """The values that a key may have: a list."""

    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class NumberRange:
    """The values that a key may have: all numbers from low to high."""

    key: str
    low: float
    high: float
    is_log: bool
    is_whole: bool


class Trial(BaseModel):
    """One trial, as trials.json remembers it.

    Attributes:
        values: Value by key.
        state: Whether it has all its epochs, was ended early, or diverged.
        history: The validation metric by epoch.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    values: dict[str, Any]
    state: State = "running"
    history: dict[int, float] = {}


def read_space(given: Sequence[str]) -> list[Choices | NumberRange]:
    """Read the keys that vary, with their values.

    Args:
        given: The values of `--vary`.

    Raises:
        UserError: For a text of another form, for a key that is there twice, and for no key.
    """
    if not given:
        remedy = "write --vary lr=0.0001,0.001"
        raise UserError.about("--vary", "is missing: which key shall have which values?", remedy=remedy)
    space = [_read_values(text) for text in given]
    twice = sorted(one.key for place, one in enumerate(space) if one.key in [before.key for before in space[:place]])
    if twice:
        raise UserError.about(f"--vary {twice[0]}", "is there twice", remedy="give all of its values at once")
    return space


def _read_values(text: str) -> Choices | NumberRange:
    key, _, values = text.partition("=")
    if re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", key) is None:
        raise _refuse(text, "names no key")
    low, dots, rest = values.partition("..")
    if dots:
        high, _, scale = rest.partition(":")
        return _read_range(text, key, low, high, scale)
    listed = parse_value(values) if values.lstrip().startswith("[") else [parse_value(one) for one in values.split(",")]
    if not isinstance(listed, list) or not values.strip() or "" in listed:
        raise _refuse(text, "has no list of values")
    return Choices(key, tuple(listed))


def _read_range(text: str, key: str, low: str, high: str, scale: str) -> NumberRange:
    try:
        ends = float(low), float(high)
    except ValueError:
        raise _refuse(text, "has a range whose ends are no numbers") from None
    is_log = scale == "log"
    if scale not in ("", "log") or not all(map(math.isfinite, ends)) or ends[0] >= ends[1] or (is_log and ends[0] <= 0):
        raise _refuse(text, "has a range that does not rise" if scale in ("", "log") else f"has no scale {scale!r}")
    is_whole = all(end.strip().lstrip("+-").isdecimal() for end in (low, high))
    return NumberRange(key, *ends, is_log=is_log, is_whole=is_whole)


def _refuse(text: str, what: str) -> UserError:
    return UserError.about(
        f"--vary {text}",
        what,
        expected="KEY=A,B,C, or KEY=LOW..HIGH with LOW below HIGH, and :log behind it for numbers above 0",
        remedy="write it like --vary rho=0,0.05,0.1 or --vary lr=1e-5..1e-2:log",
    )


class Grid:
    """Every combination of listed values, in order."""

    def __init__(self, space: Sequence[Choices]) -> None:
        self.listed = [
            dict(zip([one.key for one in space], values, strict=True))
            for values in itertools.product(*(one.values for one in space))
        ]

    def choose(self, trials: Sequence[Trial]) -> dict[str, Any] | None:
        """Choose the values of the next trial; None where all have been."""
        return self.listed[len(trials)] if len(trials) < len(self.listed) else None

    def is_hopeless(self, trial: Trial, others: Sequence[Trial]) -> bool:
        """Whether a trial need not be trained to its end: each combination has a place in the table."""
        return False

    @property
    def count(self) -> int:
        """The number of trials."""
        return len(self.listed)


class Parzen:
    """Optuna's choice: the next trial by those before."""

    def __init__(
        self,
        space: Sequence[Choices | NumberRange],
        count: int,
        seed: int,
        *,
        side_by_side: int,
        prunes: bool,
        optuna: Any,
    ) -> None:
        self._optuna, self.count, self._seed, self._prunes = optuna, count, seed, prunes
        self.listed: list[dict[str, Any]] = []  # none is known before
        self._waits = side_by_side > 1
        self._space = {one.key: _to_distribution(one, optuna) for one in space}
        self._values = {one.key: one.values for one in space if isinstance(one, Choices)}
        optuna.logging.set_verbosity(optuna.logging.WARNING)

    def choose(self, trials: Sequence[Trial]) -> dict[str, Any] | None:
        """Choose the values of the next trial; None after the last. They follow from the seed and the trials before."""
        if len(trials) >= self.count:
            return None
        found = self._build_study(trials).ask(self._space).params
        return {key: self._values[key][value] if key in self._values else value for key, value in found.items()}

    def is_hopeless(self, trial: Trial, others: Sequence[Trial]) -> bool:
        """Whether the trial is below the median of the others at its last epoch."""
        if not self._prunes or not trial.history:
            return False
        study = self._build_study(others)
        found = self._freeze(trial, self._optuna.trial.TrialState.RUNNING)
        return bool(study.pruner.prune(study, found))

    def _build_study(self, trials: Sequence[Trial]) -> Any:
        optuna, states = self._optuna, self._optuna.trial.TrialState
        sampler = optuna.samplers.TPESampler(seed=self._seed * 10_007 + len(trials), constant_liar=self._waits)
        pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2)  # from epoch 2 on
        study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
        named = {"complete": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL, "running": states.RUNNING}
        study.add_trials([self._freeze(one, named[one.state]) for one in trials])
        return study

    def _freeze(self, trial: Trial, state: Any) -> Any:
        """Write a trial as Optuna's. A list's value is named by its place, since Optuna knows no lists and objects."""
        params = {
            key: list(self._values[key]).index(value) if key in self._values else value
            for key, value in trial.values.items()
        }
        is_over = state == self._optuna.trial.TrialState.COMPLETE
        return self._optuna.trial.create_trial(
            state=state,
            value=max(trial.history.values()) if is_over else None,
            params=params,
            distributions=self._space,
            intermediate_values=trial.history,
        )


def _to_distribution(one: Choices | NumberRange, optuna: Any) -> Any:
    kinds = optuna.distributions
    if isinstance(one, Choices):
        return kinds.CategoricalDistribution(tuple(range(len(one.values))))
    if one.is_whole:
        return kinds.IntDistribution(int(one.low), int(one.high), log=one.is_log)
    return kinds.FloatDistribution(one.low, one.high, log=one.is_log)


def build_chooser(
    space: Sequence[Choices | NumberRange], trials: int | None, seed: int, *, side_by_side: int, prunes: bool
) -> Grid | Parzen:
    """Build what chooses the values: a grid of lists, or Optuna.

    Args:
        space: The keys with their values.
        trials: How many trials Optuna chooses; None for the grid.
        seed: The seed of the choices.
        side_by_side: How many trials are trained at once.
        prunes: Whether hopeless trials are ended.

    Raises:
        UserError: For ranges or too many combinations without `trials`, and where Optuna is not installed.
    """
    if trials is None:
        ranges = [one.key for one in space if isinstance(one, NumberRange)]
        listed = [one for one in space if isinstance(one, Choices)]
        count = math.prod(len(one.values) for one in listed)
        if ranges or count > MOST_COMBINATIONS:
            what = f"is missing: {ranges[0]} is a range" if ranges else f"is missing: there are {count:,} combinations"
            raise UserError.about("--trials", what, remedy="write --trials 20, or list a few values")
        return Grid(listed)
    try:
        import optuna  # pyright: ignore[reportMissingImports]
    except ImportError:
        what = "needs Optuna, which is not installed"
        remedy = f"pip install {OPTUNA}, or list the values and leave --trials out"
        raise UserError.about("--trials", what, remedy=remedy) from None
    return Parzen(space, trials, seed, side_by_side=side_by_side, prunes=prunes, optuna=optuna)
