"""The arms of an ablation: which runs are compared, and the config of each. Importing this loads no torch.

An arm is CONFIG with some keys changed in stage 2. A preset or a JSON file lists them:

    {
      "keys": {"pretrained_student_weights": "output/s{seed}_student_*/weights/best_model.pth"},
      "arms": {"mine": {"title": "with relations", "keys": {"terms": [...]}}, "plain": {"keys": {"rho": 0}}},
      "references": ["alone", "plain"],
      "models": {"teacher": {"title": "the teacher", "path": "output/s{seed}_teacher_*"}}
    }

`keys` are those of all arms, `references` the arms that all others are compared with, `models` trained models that are
evaluated beside them. With `"equal": "time"` each arm takes the time of the first reference in place of its steps.
`{seed}` in a text is the seed, `{next_seed}` the one after it. The arm `alone` is always there: the same further steps
from the same student, without a teacher.

A file that names its CONFIG may be given in place of it, and may repeat everything for each of several folds:

    {
      "config": "demo_skeleton.json", "options": ["--data", "test"],
      "folds": {"1-2": {"keys": {"data.test_subjects": ["1", "2"]}, "seeds": 1}},
      "first": {"teacher": {"keys": {"student": "last_e_base"}, "once": true}, "student": {}},
      "keys": {"pretrained_student_weights": "{student}", "teacher_weights": "{teacher}"},
      "arms": {"distilled": {}}
    }

`first` are runs of stage 1 that each fold begins with, whose names in braces are their checkpoints.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sharpstudent.config.keys import Stage2Keys
from sharpstudent.config.load import read_config_file
from sharpstudent.config.presets import LOSS_KEYS
from sharpstudent.config.resolve import SAM_KEYS
from sharpstudent.config.run_config import RunConfig, TaskKind, TermSection
from sharpstudent.config.terms import NumberSetting, TermSpec, list_terms
from sharpstudent.core.errors import UserError
from sharpstudent.core.types import list_class_names

ALONE = "alone"
AS_IT_IS = "config"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,39}")
DROP: Any = None  # the value of a key that an arm takes out of the config


@dataclass(frozen=True)
class Arm:
    """One way to take the further steps.

    Attributes:
        name: Its name in tables and folders.
        title: What it is, for readers.
        keys: The keys of stage 2 that differ from CONFIG; one whose value is null is taken out of CONFIG.
    """

    name: str
    title: str
    keys: Mapping[str, Any]


@dataclass(frozen=True)
class Fold:
    """A division of the data, for which everything is trained and evaluated anew.

    Attributes:
        name: Its name in tables and folders; "" where there is one alone, CONFIG's own.
        seeds: The seeds.
        keys: The keys that differ from CONFIG, as `--set` names them.
    """

    name: str
    seeds: tuple[int, ...]
    keys: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def name_run(self, seed: int, run: str) -> str:
        """The name of a run at a seed, in lines, logs and folders."""
        return "_".join([*filter(None, [self.name]), f"s{seed}", run])


@dataclass(frozen=True)
class FirstRun:
    """A run of stage 1 that the arms begin with, and that is evaluated beside them.

    Attributes:
        name: Its name; in braces, its checkpoint.
        title: What it is, for readers.
        keys: The keys that differ from CONFIG, as `--set` names them.
        once: Whether the first seed of a fold serves the others, too.
    """

    name: str
    title: str
    keys: Mapping[str, Any]
    once: bool


@dataclass(frozen=True)
class Plan:
    """What an ablation compares.

    Attributes:
        arms: The arms, `alone` first.
        references: The names of the arms that all others are compared with.
        equal: What every arm takes as much of as the first reference.
        models: Trained models that are evaluated, too: pairs of title and path by name.
        folds: Divisions of the data, each with a number of seeds; () for CONFIG's own.
        first: Runs of stage 1, which are trained before the arms.
        options: Options of the evaluation.
    """

    arms: tuple[Arm, ...]
    references: tuple[str, ...] = (ALONE,)
    equal: Literal["steps", "time"] = "steps"
    models: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    folds: tuple[Fold, ...] = ()
    first: tuple[FirstRun, ...] = ()
    options: tuple[str, ...] = ()


class _Strict(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)


class _ArmKeys(_Strict):
    title: str = ""
    keys: dict[str, Any] = {}


class _ModelKeys(_Strict):
    title: str = ""
    path: str


class _FoldKeys(_Strict):
    keys: dict[str, Any]
    seeds: int = Field(1, ge=1, le=100)


class _FirstKeys(_Strict):
    title: str = ""
    keys: dict[str, Any] = {}
    once: bool = False


class _PlanKeys(_Strict):
    config: str | None = None
    options: list[str] = []
    folds: dict[str, _FoldKeys] = {}
    first: dict[str, _FirstKeys] = {}
    keys: dict[str, Any] = {}
    arms: dict[str, _ArmKeys]
    references: list[str] = [ALONE]
    equal: Literal["steps", "time"] = "steps"
    models: dict[str, _ModelKeys] = {}


def find_config(path: Path) -> tuple[Path, Path | None]:
    """Find the CONFIG that a file is or names.

    Args:
        path: A config, or a file of arms that names its config beside it.

    Returns:
        The path of CONFIG, and that of the file of arms; None for a config.
    """
    keys = read_config_file(path)
    named = keys.get("config")
    return (path.parent / named, path) if isinstance(named, str) and "arms" in keys else (path, None)


def read_plan(path: Path, config: RunConfig, task: type[TaskKind]) -> Plan:
    """Read the arms of a JSON file.

    Args:
        path: The file.
        config: The resolved CONFIG.
        task: The class of its task.

    Returns:
        The plan.

    Raises:
        UserError: For a file of another form, and for names that cannot be used.
    """
    try:
        read = _PlanKeys.model_validate(read_config_file(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError.about(
            f"--arms {path}: {where}",
            first["msg"],
            expected='{"arms": {"NAME": {"title": "...", "keys": {...}}, ...}}; also keys, references, equal, models, '
            "config, options, folds, first",
            remedy="docs/ablations.md shows such a file",
        ) from None
    arms = [Arm(name, one.title or name, {**read.keys, **one.keys}) for name, one in read.arms.items()]
    if ALONE not in read.arms:
        alone = make_alone(config, task)
        arms.insert(0, Arm(ALONE, alone.title, {**read.keys, **alone.keys}))
    models = {name: (one.title or name, one.path) for name, one in read.models.items()}
    plan = Plan(
        tuple(arms),
        tuple(read.references),
        read.equal,
        models,
        tuple(Fold(name, tuple(range(1, one.seeds + 1)), one.keys) for name, one in read.folds.items()),
        tuple(FirstRun(name, one.title or name, one.keys, one.once) for name, one in read.first.items()),
        tuple(read.options),
    )
    _check_plan(plan, f"--arms {path}")
    return plan


def _check_plan(plan: Plan, where: str) -> None:
    names = [arm.name for arm in plan.arms]
    given = [*names, *plan.models, *(one.name for one in plan.first)]
    for name in (*given, *(fold.name for fold in plan.folds)):
        if NAME.fullmatch(name) is None or given.count(name) > 1:
            what = (
                f"calls an arm, a run or a fold {name!r}"
                if NAME.fullmatch(name) is None
                else f"has two of the name {name!r}"
            )
            expected = "letters, digits, '.', '_' and '-', each name once"
            raise UserError.about(where, what, expected=expected, remedy="rename it")
    unknown = [name for name in plan.references if name not in names]
    if unknown or not plan.references:
        raise UserError.about(
            f"{where}: references",
            "names no arm that there is" if unknown else "is empty",
            expected=f"one or more of {', '.join(names)}",
            got=", ".join(unknown),
            remedy=f'write "references": ["{ALONE}"]',
        )


def make_alone(config: RunConfig, task: type[TaskKind]) -> Arm:
    """Make the control: the terms of CONFIG that need no teacher, at full weight if there is one only."""
    known = list_terms(task.terms)
    own = [term for term in config.criterion if known[term.term].source is None]
    terms = [to_entry(term, known[term.term]) for term in own] or [{"term": "hard"}]
    if len(terms) == 1:
        terms[0]["weight"] = 1.0
    return Arm(ALONE, "alone for as many further steps", {"terms": terms})


def to_entry(term: TermSection, spec: TermSpec) -> dict[str, Any]:
    """Write a resolved term as an entry of the list `terms`."""
    entry: dict[str, Any] = {"term": term.term, "weight": term.weight.as_json()}
    if term.name != term.term:
        entry["name"] = term.name
    for name, number in term.numbers.items():
        setting = spec.settings.get(name)
        is_fixed = isinstance(setting, NumberSetting) and not setting.is_schedulable
        entry[name] = number.constant if is_fixed else number.as_json()
    return {**entry, **term.choices}


def plan_kd_or_not(config: RunConfig, task: type[TaskKind]) -> Plan:
    """CONFIG as it is, and alone: what the teacher is worth."""
    return Plan((make_alone(config, task), Arm(AS_IT_IS, "CONFIG as it is", {})))


def plan_terms(config: RunConfig, task: type[TaskKind]) -> Plan:
    """CONFIG as it is, with one term more, and with another term in place of `kd`."""
    known = list_terms(task.terms)
    entries = [to_entry(term, known[term.term]) for term in config.criterion]
    outputs = len(list_class_names(task))
    more: dict[str, dict[str, Any]] = {
        "rkd": {"term": "rkd", "weight": 0.2},
        "supcon": {"term": "supcon", "weight": 0.1},
        "regression": {"term": "embedding", "name": "regression", "weight": 0.1, "projection": "none"},
        "dist": {"term": "dist", "weight": 0.2, **({} if outputs > 2 else {"inter_weight": 0.0})},
    }
    given = {term.name for term in config.criterion}
    arms = [
        Arm(f"plus_{name}", f"and {name}, weight {entry['weight']}", {"terms": [*entries, entry]})
        for name, entry in more.items()
        if entry.get("name", name) not in given
    ]
    instead: dict[str, dict[str, Any]] = {}
    if outputs > 2:
        instead = {"dkd": {"term": "dkd"}, "standardised": {"term": "kd", "standardise": "yes"}}
    for name, entry in instead.items():
        swapped = [{**entry, "weight": one["weight"]} if one["term"] == "kd" else one for one in entries]
        if swapped != entries:
            arms.append(Arm(name, f"{name} in place of kd", {"terms": swapped}))
    return Plan((*plan_kd_or_not(config, task).arms, *arms), (ALONE, AS_IT_IS))


def plan_sam(config: RunConfig, task: type[TaskKind]) -> Plan:
    """CONFIG with SAM, without, and with each of its cheaper variants.

    Raises:
        UserError: For a CONFIG whose rho is 0.
    """
    if config.optimizer.rho == 0.0:
        raise UserError.about(
            "--preset sam",
            "compares SAM with its variants, and CONFIG has none: its rho is 0",
            expected="rho above 0",
            remedy="--set rho=0.05",
        )
    none = dict.fromkeys(SAM_KEYS, DROP)
    kept: dict[str, Any] = {"asam": config.optimizer.asam or DROP}
    kept |= {"rho_warmup": config.optimizer.rho_warmup or DROP, "rho_end": config.optimizer.rho_end}
    plain = {**none, **kept}
    arms = (
        Arm("sam", "SAM", plain),
        Arm("rho_0", "without SAM", {**none, "rho": 0.0}),
        Arm("norm_only", "sam_norm_only", {**plain, "sam_norm_only": True}),
        Arm("subset", "sam_subset 0.25", {**plain, "sam_subset": 0.25}),
        Arm("norm_subset", "sam_norm_only, sam_subset 0.25", {**plain, "sam_norm_only": True, "sam_subset": 0.25}),
        Arm("every", "sam_every 5", {**plain, "sam_every": 5}),
        Arm("last", "sam_last 0.2", {**plain, "sam_last": 0.2}),
        Arm("adaptive", "sam_adaptive", {**plain, "sam_adaptive": True}),
        Arm("friendly", "sam_friendly", {**plain, "sam_friendly": True}),
    )
    return Plan((make_alone(config, task), *arms), ("sam", "rho_0", ALONE))


PRESETS: Mapping[str, Callable[[RunConfig, type[TaskKind]], Plan]] = {
    "kd-or-not": plan_kd_or_not,
    "terms": plan_terms,
    "sam": plan_sam,
}


def build_keys(
    config: Mapping[str, Any],
    arm: Arm,
    seed: int,
    next_seed: int | None = None,
    checkpoints: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Build the config file of an arm at a seed.

    A key of the arm replaces that of CONFIG wherever it stands there: beside the other keys, or in the group `stage2`.

    Args:
        config: The keys of CONFIG.
        arm: The arm.
        seed: The seed, for the texts that name it.
        next_seed: The seed after it, round and round; None for the same.
        checkpoints: The checkpoints of the runs that the arms begin with, by name; None for none.

    Returns:
        The keys of the file.
    """
    keys = deepcopy(dict(config))
    group: dict[str, Any] = dict(keys.get("stage2") or {})
    dropped = {*arm.keys}
    if "terms" in arm.keys:
        dropped |= {*LOSS_KEYS, "preset", "dialect"}
    if "teachers" in arm.keys:
        dropped |= {"teacher_weights"}
    for key in dropped:
        keys.pop(key, None)
        group.pop(key, None)
    for key, value in arm.keys.items():
        if value is not DROP:
            (group if key in Stage2Keys.model_fields else keys)[key] = value
    keys.pop("$schema", None)
    words = {"seed": str(seed), "next_seed": str(seed if next_seed is None else next_seed), **(checkpoints or {})}
    return _fill({**keys, "stage2": group}, words)


def _fill(value: Any, words: Mapping[str, str]) -> Any:
    """Replace each `{name}` in the texts of JSON values."""
    if isinstance(value, str):
        for name, word in words.items():
            value = value.replace(f"{{{name}}}", word)
        return value
    if isinstance(value, Mapping):
        return {key: _fill(inner, words) for key, inner in value.items()}
    return [_fill(inner, words) for inner in value] if isinstance(value, list) else value


def name_seeds(seeds: Sequence[int]) -> str:
    """Name the seeds for readers: `seeds 1, 2, 3`."""
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
