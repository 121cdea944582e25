"""Which frame of its video a picture is."""

from __future__ import annotations

from collections.abc import Sequence

LONGEST_NUMBER = 9  # digits


def number_frames(stems: Sequence[str]) -> list[int]:
    """The numbers that the file names are; where one is no number, or two are the same, their places in the list.

    No two are alike: crops are named by them.
    """
    if all(stem.isascii() and stem.isdecimal() and len(stem) <= LONGEST_NUMBER for stem in stems):
        numbers = [int(stem) for stem in stems]
        if len(set(numbers)) == len(numbers):
            return numbers
    return list(range(len(stems)))
