"""Sequences of moving bodies, where they come from and who is held out.

Legend: N sequences, n frames of one, M bodies, V joints. Positions are in metres, y is up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.errors import UserError, format_count_of
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.tasks.skeleton.graph import Skeleton
from sharpstudent.tasks.skeleton.section import SkeletonSection

PERSON = (0.3, 4.0)  # the side of the box around a person that is plausible [m]
HEIGHT = 1.7  # what positions in pixels are scaled to [m]
HELD_OUT = {"validation": ("7", "8"), "test": ("9", "10")}  # of UI-PRMD
EVERY = 10  # of the people of training, who validates where none is named
METRES = {"mm": 0.001, "m": 1.0}

Bodies = NDArray[Any]  # (M, n, V, 3)


class Reader(Protocol):
    """Reads the positions of a sequence by its number."""

    def __call__(self, number: int) -> Bodies:
        """Return (M, n, V, 3) in the unit of the data; a body that is absent in a frame is 0 there."""
        ...


@dataclass(frozen=True)
class Packed:
    """Sequences one after the other, of one body: positions (F, V, 3) and offsets (N + 1,)."""

    xyz: NDArray[Any]
    offsets: NDArray[np.int64]

    def __call__(self, number: int) -> Bodies:
        """Return the frames from one offset to the next."""
        start, end = self.offsets[number : number + 2].tolist()
        return self.xyz[None, start:end]


@dataclass(frozen=True)
class Motion:
    """All sequences of a data set.

    Attributes:
        read: Reads the positions of one.
        labels: The number of each sequence's class (N,).
        subjects: The person of each sequence (N,).
        names: The name of each sequence (N,).
        parts: `train` or `test` of each sequence (N,), where the data or its protocol says so; () elsewhere.
        notes: What is to be said about the data.
    """

    read: Reader
    labels: NDArray[np.int64]
    subjects: Sequence[str]
    names: Sequence[str]
    parts: Sequence[str] = ()
    notes: tuple[str, ...] = ()


def check_labels(motion: Motion, where: str, section: SkeletonSection) -> None:
    """Raise UserError for labels that are no numbers of classes, and for no sequences at all."""
    labels = motion.labels
    if not len(labels):
        raise UserError.about(where, "has no sequences", remedy="correct data.data_root or data.protocol")
    if labels.min() < 0 or labels.max() >= len(section.classes):
        expected = f"0 to {len(section.classes) - 1}, for the {len(section.classes)} names in data.classes"
        got = f"{labels.min()} to {labels.max()}"
        remedy = "name all classes in data.classes, in the order of their numbers"
        raise UserError.about(where, "has labels without a class", expected, got, remedy)


def find_bad(bodies: Bodies, skeleton: Skeleton) -> str | None:
    """Say what is wrong with the positions of a sequence (M, n, V, 3); None if nothing is."""
    if bodies.ndim != 4 or bodies.shape[2:] != (skeleton.joints, 3):
        return f"has positions of shape {bodies.shape}, and (bodies, frames, {skeleton.joints} joints, 3) is needed"
    if bodies.shape[1] < 2:
        return "has one frame alone: nothing moves in it" if bodies.shape[1] else "has no frames"
    if not np.isfinite(bodies).all():
        return "has positions that are not finite"
    absent = int((~bodies[0].any(axis=(1, 2))).sum())
    return f"has {format_count_of(absent, 'frame')} without a body" if absent else None


def measure_side(bodies: Bodies) -> float:
    """Measure the longest side of the box around the first of bodies (M, n, V, 2 or 3): its median over the frames."""
    box = bodies[0].max(axis=1).astype(np.float64) - bodies[0].min(axis=1)
    return float(np.median(box.max(axis=1)))


def check_unit(bodies: Bodies, where: str, unit: str) -> None:
    """Raise UserError where a person of a sequence cannot have such a size in this unit."""
    side = measure_side(bodies) * METRES[unit]
    if not PERSON[0] <= side <= PERSON[1]:
        remedy = f"--set data.unit={'m' if unit == 'mm' else 'mm'}"
        got, expected = f"{side:.3g} m with data.unit {unit}", f"people of {PERSON[0]} to {PERSON[1]} m"
        raise UserError.about(where, "is in another unit than the config says", expected, got, remedy)


def read_checked(motion: Motion, number: int, skeleton: Skeleton, unit: str) -> NDArray[np.float64]:
    """Read a sequence, in metres. Raises UnreadableSample for one that shows no moving body, or none of that unit."""
    bodies = motion.read(number)
    bad = find_bad(bodies, skeleton)
    found = bodies.astype(np.float64) * METRES[unit]
    if bad is None and not PERSON[0] <= (side := measure_side(found)) <= PERSON[1]:
        bad = f"shows a person of {side:.3g} m: is it in another unit than {unit}?"
    if bad is not None:
        raise UnreadableSample(motion.names[number], bad)
    return found


def scale_pixels(xy: NDArray[Any]) -> NDArray[np.float64]:
    """Turn positions in a picture, y down, into positions as of a person of HEIGHT whom nothing moves in depth.

    Args:
        xy: The positions (M, n, V, 2) in pixels; a body that is absent in a frame is 0 there.

    Returns:
        Positions (M, n, V, 3) in metres; z is 0. The box of the first body has a median side of HEIGHT.
    """
    found = np.concatenate([xy[..., :1], -xy[..., 1:], np.zeros_like(xy[..., :1])], -1).astype(np.float64)
    side = measure_side(xy)
    return found * (HEIGHT / side if side > 0.0 else 0.0)


def find_split(motion: Motion, split: str, section: SkeletonSection) -> NDArray[np.int64]:
    """Find the sequences of a split.

    Args:
        motion: All sequences.
        split: `train`, `validation` or `test`.
        section: The config keys.

    Returns:
        Their numbers, in rising order.

    Raises:
        UserError: For an unknown split, a person in two of them, and a split without sequences.
    """
    if split not in ("train", "validation", "test"):
        raise UserError.about("data", f"has no split {split!r}", "train, validation or test", remedy="name one of them")
    validation, test = find_held_out(motion, section)
    _check_people(motion, section, validation & test if not motion.parts else set(), split)
    is_test = [part == "test" for part in motion.parts] or [subject in test for subject in motion.subjects]
    wanted = {"test": (True, None), "validation": (False, True), "train": (False, False)}[split]
    found = np.flatnonzero(
        [
            of_test == wanted[0] and wanted[1] in (None, subject in validation)
            for of_test, subject in zip(is_test, motion.subjects, strict=True)
        ]
    )
    if not len(found):
        where = "data" if split == "train" or motion.parts else f"data.{split}_subjects"
        expected = f"some of {_name_people(motion)}"
        remedy = "name people of the data, and leave some to train on"
        raise UserError.about(where, f"leaves no sequence for {split}", expected, remedy=remedy)
    return found


def _check_people(motion: Motion, section: SkeletonSection, both: set[str], split: str) -> None:
    """Raise UserError for people in two splits; and, before training, for names that nobody in the data has.

    A mistyped name would put the person who is meant among those whom the model learns from.
    """
    if both:
        got, remedy = ", ".join(sorted(both)), "take them out of one of the two"
        raise UserError.about("data.test_subjects", "has people of data.validation_subjects", got=got, remedy=remedy)
    for key in ("validation_subjects", "test_subjects"):
        unknown = set(getattr(section, key) or ()).difference(motion.subjects)
        if unknown and split != "test":
            what, got = "names people whom the data does not have", ", ".join(sorted(unknown))
            expected = f"some of {_name_people(motion)}"
            raise UserError.about(f"data.{key}", what, expected, got, remedy="correct the names")


def _name_people(motion: Motion) -> str:
    return ", ".join(list(dict.fromkeys(motion.subjects))[:40])


def find_held_out(motion: Motion, section: SkeletonSection) -> tuple[set[str], set[str]]:
    """Find the people of validation and of the test; where the data has parts, the second set is empty."""
    test = section.test_subjects
    if motion.parts and test:
        remedy = "leave it out, or choose another data.data_source"
        raise UserError.about(
            "data.test_subjects", "is given, and the data itself says what the test is", remedy=remedy
        )
    if test is None:
        test = HELD_OUT["test"] if section.data_source == "uiprmd" else ()
    validation = section.validation_subjects
    if validation is None:
        validation = HELD_OUT["validation"] if section.data_source == "uiprmd" else _choose_people(motion, set(test))
    return set(validation), set(test)


def _choose_people(motion: Motion, test: set[str]) -> list[str]:
    """Choose every tenth person of those who are not tested, the last at least."""
    parts = motion.parts or ["test" if subject in test else "train" for subject in motion.subjects]
    people = dict.fromkeys(one for one, part in zip(motion.subjects, parts, strict=True) if part == "train")
    ordered = sorted(people, key=lambda one: (len(one), one))
    return ordered[EVERY - 1 :: EVERY] or ordered[-1:]
