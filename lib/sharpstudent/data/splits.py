"""Splits by person: nobody appears both in training and in validation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import DisjointSet

from sharpstudent.core.errors import UserError

OFFICIAL = ("train", "val", "test")
KEPT_OUT = "none"


def choose_validation_identities(identities: Collection[str], *, share: float, seed: int) -> frozenset[str]:
    """Draw the people who are held out for validation: at least one and never all of them.

    Args:
        identities: The person of each picture; only the distinct people count.
        share: The share of distinct people to hold out, 0..1.
        seed: The seed of the draw; nothing else affects it.

    Raises:
        UserError: When there are fewer than two people: nobody could be held out.
    """
    people = sorted(set(identities))
    if len(people) < 2:
        raise UserError.about(
            where="validation",
            what="needs people who are not in training, but all pictures show one person",
            expected="at least 2 people",
            got=f"{len(people)}: {', '.join(people) or 'nobody'}",
            remedy="add pictures of other people, one folder a person",
        )
    held_out = min(max(1, round(share * len(people))), len(people) - 1)
    chosen = np.random.default_rng(seed).permutation(len(people))[:held_out]
    return frozenset(people[i] for i in chosen)


@dataclass(frozen=True)
class Assigned:
    """Where a clip goes.

    Attributes:
        split: train, val, test, or none (kept out of all three).
        group: The name of the clip's group: the first one, in sorted order, of the people in it (see `find_groups`).
    """

    split: str
    group: str


def assign_splits(
    people: Sequence[tuple[str, ...]],
    official: Sequence[str | None],
    *,
    validation_share: float,
    test_share: float,
    seed: int,
) -> list[Assigned]:
    """Assign a split and a group to each clip.

    People who appear together, directly or through others, are one group. The order of the clips does not matter.

    - A clip with an official split keeps it.
    - A group in which no clip has an official split is assigned as a whole to train, val or test, according to the
      shares. A split whose share is above 0 and that no list fills gets at least one group, as long as one is left to
      train on.
    - Where only some clips of a group have an official split, the others get the same one if it is train alone or val
      alone, else `none`. So no person is in two splits, unless the data set's own lists put them there.

    Args:
        people: The people of each clip, one or more.
        official: The split of each clip in the data set's own lists; None where they do not name it.
        validation_share: Share of the groups without official split, 0 or more; below 1 together with `test_share`.
        test_share: Share of the groups without official split, 0 or more.
        seed: The seed of the draw.

    Raises:
        ValueError: For clips without people, unknown splits, and other shares.
    """
    _check_arguments(people, official, validation_share, test_share)
    groups = find_groups(people)
    splits_of: dict[str, set[str]] = {group: set() for group in groups}
    for group, split in zip(groups, official, strict=True):
        if split is not None:
            splits_of[group].add(split)
    free = sorted(group for group, splits in splits_of.items() if not splits)
    drawn = _draw(free, {split for split in official if split}, validation_share, test_share, seed)
    for group, splits in splits_of.items():
        if splits:
            drawn[group] = KEPT_OUT if len(splits) > 1 or "test" in splits else next(iter(splits))
    return [Assigned(split or drawn[group], group) for group, split in zip(groups, official, strict=True)]


def open_train_where_no_validation(official: Sequence[str | None]) -> list[str | None]:
    """Let `assign_splits` divide the official train part if the lists have no val part.

    The official test part stays as it is.

    Args:
        official: The split of each clip in the data set's own lists.

    Returns:
        The official splits with None in place of train; unchanged where there is a val part.
    """
    if "val" in official:
        return list(official)
    return [None if split == "train" else split for split in official]


def _check_arguments(
    people: Sequence[tuple[str, ...]], official: Sequence[str | None], validation_share: float, test_share: float
) -> None:
    if len(people) != len(official):
        raise ValueError(f"{len(people)} clips, but {len(official)} official splits")
    if not all(people):
        raise ValueError("a clip without people: give it a name of its own")
    strange = set(official) - {None, *OFFICIAL}
    if strange:
        raise ValueError(f"official splits are {', '.join(OFFICIAL)} or None, got {sorted(map(str, strange))}")
    if min(validation_share, test_share) < 0 or not validation_share + test_share < 1:
        raise ValueError(f"shares {validation_share} and {test_share}: expected 0 or more, below 1 together")


def find_groups(people: Sequence[tuple[str, ...]]) -> list[str]:
    """Name the group of each clip: people who appear together, directly or through others, are one group.

    Args:
        people: The people of each clip, one or more.

    Returns:
        For each clip the first name, in sorted order, of the people of its group.
    """
    names = sorted({person for clip in people for person in clip})
    linked, first = DisjointSet(names), dict[str, str]()
    for clip in people:
        for other in clip[1:]:
            linked.merge(clip[0], other)
    for name in names:
        first.setdefault(linked[name], name)
    return [first[linked[clip[0]]] for clip in people]


def _draw(
    groups: Sequence[str], official: Collection[str], validation_share: float, test_share: float, seed: int
) -> dict[str, str]:
    """Draw a split for each group without an official one; `official` holds the splits that already have members."""
    total = len(groups)
    counts = _share_out(total, official, validation_share, test_share)
    order: list[int] = np.random.default_rng(seed).permutation(total).tolist()
    splits = ["val"] * counts["val"] + ["test"] * counts["test"]
    splits += ["train"] * (total - len(splits))
    return {groups[index]: split for index, split in zip(order, splits, strict=True)}


def _share_out(total: int, official: Collection[str], validation_share: float, test_share: float) -> dict[str, int]:
    """Compute how many groups each split gets.

    First, each split that must not be empty gets one, as far as there are groups (in the order train, val, test). Each
    remaining group goes to the split that is furthest below its share.
    """
    shares = {"train": 1 - validation_share - test_share, "val": validation_share, "test": test_share}
    counts: dict[str, int] = {}
    for split, share in shares.items():
        least = (split == "train" or share > 0) and split not in official
        counts[split] = min(int(least), total - sum(counts.values()))
    for _ in range(total - sum(counts.values())):
        counts[max(counts, key=lambda split: shares[split] * total - counts[split])] += 1
    return counts
