"""Splits keep people apart, whatever their number."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sharpstudent.core.errors import UserError
from sharpstudent.data.splits import (
    Assigned,
    assign_splits,
    choose_validation_identities,
    open_train_where_no_validation,
)

people = st.sets(st.text(min_size=1, max_size=5), min_size=2, max_size=40)


@given(people=people, share=st.floats(0.001, 0.999), seed=st.integers(0, 2**32))
@settings(max_examples=80, deadline=None)
def test_somebody_is_held_out_and_somebody_is_left(people: set[str], share: float, seed: int) -> None:
    chosen = choose_validation_identities(list(people) * 2, share=share, seed=seed)
    assert chosen < people
    assert 1 <= len(chosen) <= len(people) - 1
    assert abs(len(chosen) - share * len(people)) <= 1


def test_the_choice_depends_on_the_people_and_the_seed_and_on_nothing_else() -> None:
    names = [f"person {i}" for i in range(20)]
    chosen = choose_validation_identities(names, share=0.2, seed=1)
    assert choose_validation_identities([*reversed(names), *names], share=0.2, seed=1) == chosen
    assert len({choose_validation_identities(names, share=0.2, seed=seed) for seed in range(8)}) > 1
    assert len(chosen) == 4


@pytest.mark.parametrize("names", [[], ["Ann"], ["Ann"] * 9])
def test_fewer_than_two_people_cannot_be_split(names: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        choose_validation_identities(names, share=0.5, seed=0)
    text = caught.value.as_text()
    assert "at least 2 people" in text
    assert (names or ["nobody"])[0] in text


clips = st.lists(
    st.tuples(
        st.lists(st.sampled_from([f"p{i}" for i in range(12)]), min_size=1, max_size=3).map(tuple),
        st.sampled_from([None, None, None, "train", "val", "test"]),
    ),
    max_size=25,
)
shares = st.tuples(st.floats(0, 0.5), st.floats(0, 0.49))


def assign(
    people: Sequence[tuple[str, ...]],
    official: Sequence[str | None] | None = None,
    *,
    validation_share: float = 0.2,
    test_share: float = 0.0,
    seed: int = 0,
) -> list[Assigned]:
    lists = [None] * len(people) if official is None else official
    return assign_splits(people, lists, validation_share=validation_share, test_share=test_share, seed=seed)


def find_splits_of_people(people: Sequence[tuple[str, ...]], splits: Sequence[str | None]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for clip, split in zip(people, splits, strict=True):
        for person in clip:
            found[person] |= {split} - {None, "none"}  # type: ignore[arg-type]
    return found


@given(clips=clips, shares=shares, seed=st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_no_person_and_no_group_is_in_two_splits_unless_the_lists_say_so(
    clips: list[tuple[tuple[str, ...], str | None]], shares: tuple[float, float], seed: int
) -> None:
    people, official = [clip for clip, _ in clips], [split for _, split in clips]
    assigned = assign(people, official, validation_share=shares[0], test_share=shares[1], seed=seed)
    splits = [clip.split for clip in assigned]
    by_lists = find_splits_of_people(people, official)
    for person, found in find_splits_of_people(people, splits).items():
        assert len(found) < 2 or found == by_lists[person]
    by_group: dict[str, set[str | None]] = defaultdict(set)
    listed: dict[str, set[str | None]] = defaultdict(set)
    for clip, split in zip(assigned, official, strict=True):
        by_group[clip.group].add(clip.split)
        listed[clip.group].add(split)
    for group, found in by_group.items():
        assert len(found - {"none"}) < 2 or found - {"none"} == listed[group] - {None}


@given(clips=clips, seed=st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_official_splits_stay_and_listless_clips_join_train_and_val_alone(
    clips: list[tuple[tuple[str, ...], str | None]], seed: int
) -> None:
    people, official = [clip for clip, _ in clips], [split for _, split in clips]
    assigned = assign(people, official, seed=seed)
    of_group: dict[str, set[str]] = defaultdict(set)
    for clip, split in zip(assigned, official, strict=True):
        if split:
            assert clip.split == split
            of_group[clip.group].add(split)
    for clip, split in zip(assigned, official, strict=True):
        known = of_group[clip.group]
        if split is None and known:
            assert clip.split == ("none" if len(known) > 1 or "test" in known else next(iter(known)))


@given(clips=clips, seed=st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_groups_are_the_people_who_are_linked_and_their_name_is_one_of_them(
    clips: list[tuple[tuple[str, ...], str | None]], seed: int
) -> None:
    people = [clip for clip, _ in clips]
    assigned = assign(people, seed=seed)
    linked = {person: {person} for clip in people for person in clip}
    for clip in people:  # the slow and plain way
        together = set().union(*(linked[person] for person in clip))
        for person in together:
            linked[person] = together
    for clip, found in zip(people, assigned, strict=True):
        assert found.group == min(linked[clip[0]])


@given(clips=clips, seed=st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_the_order_of_the_clips_changes_nothing(clips: list[tuple[tuple[str, ...], str | None]], seed: int) -> None:
    def assign_all(
        order: list[tuple[tuple[str, ...], str | None]],
    ) -> dict[tuple[tuple[str, ...], str | None], Assigned]:
        found = assign([clip for clip, _ in order], [split for _, split in order], test_share=0.2, seed=seed)
        return dict(zip(order, found, strict=True))

    shuffled = clips[:]
    random.Random(seed).shuffle(shuffled)
    assert assign_all(shuffled) == assign_all(clips)


@given(groups=st.integers(0, 60), shares=shares, seed=st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_the_shares_are_kept_and_somebody_is_left_to_train_on(
    groups: int, shares: tuple[float, float], seed: int
) -> None:
    splits = [
        clip.split
        for clip in assign(
            [(f"p{i}",) for i in range(groups)], validation_share=shares[0], test_share=shares[1], seed=seed
        )
    ]
    assert not groups or "train" in splits
    for split, share in zip(("val", "test"), shares, strict=True):
        assert abs(splits.count(split) - share * groups) <= 2  # one at least for each of the two others
        assert share > 0 or split not in splits
    assert groups < 2 or shares[0] == 0 or "val" in splits
    assert groups < 3 or min(shares) == 0 or "test" in splits


@pytest.mark.parametrize(
    ("groups", "shares", "expected"),
    [
        (30, (0.2, 0.1), (21, 6, 3)),
        (10, (0.2, 0.0), (8, 2, 0)),
        (4, (0.2, 0.2), (2, 1, 1)),
        (5, (0.7, 0.29), (1, 3, 1)),
        (3, (0.01, 0.01), (1, 1, 1)),
        (2, (0.4, 0.4), (1, 1, 0)),
        (1, (0.5, 0.4), (1, 0, 0)),
    ],
)
def test_so_many_groups_come_to_train_val_and_test(
    groups: int, shares: tuple[float, float], expected: tuple[int, int, int]
) -> None:
    people = [(f"p{i}",) for i in range(groups)]
    splits = [clip.split for clip in assign(people, validation_share=shares[0], test_share=shares[1])]
    assert tuple(splits.count(split) for split in ("train", "val", "test")) == expected


def test_another_seed_draws_other_people() -> None:
    people = [(f"p{i}",) for i in range(30)]
    assert len({tuple(clip.split for clip in assign(people, seed=seed)) for seed in range(6)}) > 1


def test_the_one_free_group_goes_to_val_where_the_lists_fill_train_only() -> None:
    splits = [clip.split for clip in assign([("a",), ("b",)], ["train", None])]
    assert splits == ["train", "val"]
    assert [clip.split for clip in assign([("a",), ("b",)], ["test", None])] == ["test", "train"]
    assert [clip.split for clip in assign([("a",), ("b",)], ["val", None])] == ["val", "train"]


def test_clips_that_share_a_person_with_the_official_test_set_are_kept_out() -> None:
    people = [("id0",), ("id1", "id0"), ("id2", "id1"), ("id9",), ("id8",)]
    assigned = assign(people, ["test", None, None, None, None])
    assert [clip.split for clip in assigned[:3]] == ["test", "none", "none"]
    assert {clip.group for clip in assigned[:3]} == {"id0"}
    assert {clip.split for clip in assigned[3:]} == {"train", "val"}


def test_a_train_part_is_opened_only_where_the_lists_have_no_val_part() -> None:
    assert open_train_where_no_validation(["train", "test", None]) == [None, "test", None]
    assert open_train_where_no_validation(["train", "val", None]) == ["train", "val", None]


@pytest.mark.parametrize(
    ("people", "official", "shares"),
    [
        ([("a",), ()], [None, None], (0.2, 0)),
        ([("a",)], ["holdout"], (0.2, 0)),
        ([("a",)], ["none"], (0.2, 0)),
        ([("a",)], [None, None], (0.2, 0)),
        ([("a",)], [None], (-0.1, 0)),
        ([("a",)], [None], (0.5, 0.5)),
        ([("a",)], [None], (float("nan"), 0)),
    ],
)
def test_arguments_without_sense_are_refused(
    people: list[tuple[str, ...]], official: list[str | None], shares: tuple[float, float]
) -> None:
    with pytest.raises(ValueError, match=r"people|official|shares"):
        assign(people, official, validation_share=shares[0], test_share=shares[1])


def test_a_hundred_thousand_clips_take_seconds() -> None:
    people = [(f"p{i}", f"p{i + 1}") if i % 3 else (f"p{i}",) for i in range(100_000)]
    start = time.process_time()
    assert len(assign(people)) == 100_000
    assert time.process_time() - start < 10
