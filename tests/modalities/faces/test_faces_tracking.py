"""Boxes of frames far apart become people: by overlap, else by nearness; numbered by summed area."""

from __future__ import annotations

import numpy as np
import pytest
from sharpstudent.modalities.faces.detect import number_tracks


def box(x: float, y: float, side: float = 100) -> list[float]:
    return [x, y, x + side, y + side]


def number(*frames: list[list[float]]) -> list[list[int]]:
    found = number_tracks([np.array(frame, np.float32) for frame in frames])
    assert [len(numbers) for numbers in found] == [len(frame) for frame in frames]
    assert all(numbers.dtype == np.int64 for numbers in found)
    assert all(len(set(numbers.tolist())) == len(numbers) for numbers in found)
    return [numbers.tolist() for numbers in found]


def test_no_frames_and_empty_frames_give_nothing() -> None:
    assert number() == []
    assert number([], [box(0, 0)], []) == [[], [0], []]


def test_two_people_keep_their_numbers_whatever_the_order_in_a_frame() -> None:
    large, small = box(0, 0, 120), box(400, 0, 80)
    assert number([large, small], [small, large], [large, small]) == [[0, 1], [1, 0], [0, 1]]


def test_the_number_follows_the_summed_area_not_one_frame() -> None:
    """Who is largest in one frame only is not the clip's largest person."""
    passer, speaker = box(600, 0, 200), box(0, 0, 110)
    frames = [[speaker], [passer, speaker], [speaker], [speaker], [speaker]]
    assert number(*frames) == [[0], [1, 0], [0], [0], [0]]


def test_a_face_that_moved_off_its_box_is_the_same_person_while_it_is_near() -> None:
    assert number([box(0, 0)], [box(130, 0)], [box(250, 40)]) == [[0], [0], [0]]
    assert number([box(0, 0)], [box(400, 0, 99)]) == [[0], [1]]


def test_a_near_face_of_quite_another_size_is_someone_else() -> None:
    assert number([box(0, 0, 100)], [box(110, 0, 40)]) == [[0], [1]]


def test_overlap_goes_before_nearness() -> None:
    """The left person went; the right one moved a little to the left, and stays the right one."""
    assert number([box(0, 0), box(200, 0)], [box(170, 0)], [box(170, 0)]) == [[1, 0], [0], [0]]


def test_a_person_who_is_missing_for_some_frames_keeps_the_number() -> None:
    assert number([box(0, 0), box(400, 0, 80)], [box(400, 0, 80)], [], [box(10, 0), box(400, 0, 80)]) == [
        [0, 1],
        [1],
        [],
        [0, 1],
    ]


def test_equal_areas_are_numbered_by_first_appearance() -> None:
    assert number([box(0, 0), box(400, 0)]) == [[0, 1]]
    assert number([box(400, 0)], [box(0, 0)]) == [[0], [1]]


def test_people_who_do_not_cross_keep_their_numbers_below_a_face_width_per_frame() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        people = int(rng.integers(1, 6))
        start = np.arange(people) * 500.0
        sides = 100 + 10.0 * np.arange(people)[::-1]
        frames, truth = [], []
        for _ in range(12):
            start = start + rng.uniform(-60, 60, people)
            start = np.clip(start, np.arange(people) * 500 - 100, np.arange(people) * 500 + 100)
            seen = rng.permutation(np.flatnonzero(rng.random(people) < 0.8))
            frames.append([box(float(start[i]), 50, float(sides[i])) for i in seen])
            truth.append(seen.tolist())
        found = number(*frames)
        person_of: dict[int, int] = {}
        for numbers, people_seen in zip(found, truth, strict=True):
            for got, person in zip(numbers, people_seen, strict=True):
                assert person_of.setdefault(got, person) == person


@pytest.mark.parametrize("bad", [[0, 0, 0, 0], [10, 10, 5, 5]])
def test_a_box_without_area_raises_no_error(bad: list[float]) -> None:
    assert number([bad, box(0, 0)], [bad, box(0, 0)])[0][1] == 0


def test_a_crowd_is_numbered_in_reasonable_time() -> None:
    rng = np.random.default_rng(1)
    frames = [np.concatenate([c := rng.uniform(0, 4000, (60, 2)), c + 50], axis=1) for _ in range(60)]
    assert len(number_tracks(frames)) == 60
