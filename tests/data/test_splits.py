"""Splits keep people apart, whatever their number."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data.splits import choose_validation_identities
from lib.errors import UserError

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
