"""Sequences of moving skeletons: read, checked, held out by person, and turned into three streams.

Legend: N sequences, F frames of all sequences, n frames of one, T frames of a sample, V joints. Positions are in
metres, y is up.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.errors import UserError, format_count_of
from sharpstudent.core.files import explain, read_plain, read_table
from sharpstudent.core.types import Sample
from sharpstudent.data.dataset import Samples
from sharpstudent.tasks.skeleton.graph import SKELETONS, Skeleton
from sharpstudent.tasks.skeleton.section import SkeletonSection

MOST_BYTES = 4_000_000_000  # of a file of positions
PERSON = (0.3, 4.0)  # the side of the box around a person that is plausible [m]
FORM = "arrays xyz (F, V, 3), offsets (N + 1,), label (N,) and subject (N,)"


@dataclass(frozen=True)
class Motion:
    """All sequences of a data set.

    Attributes:
        xyz: The positions of all frames (F, V, 3), in the unit of the file.
        offsets: Where each sequence begins (N + 1,).
        labels: The number of each sequence's class (N,).
        subjects: The person of each sequence (N,).
        names: The name of each sequence (N,).
    """

    xyz: NDArray[Any]
    offsets: NDArray[np.int64]
    labels: NDArray[np.int64]
    subjects: Sequence[str]
    names: Sequence[str]


def load_motion(section: SkeletonSection) -> Motion:
    """Load and check the sequences that a config names.

    Raises:
        UserError: For files that are absent or of another form, and for positions that cannot be right.
    """
    root = Path(section.data_root)
    if section.data_source == "uiprmd":
        path = root / "ui_prmd_kinect.npz"
        arrays = _read_arrays(path, ("xyz_mm", "offsets"))
        _, rows = read_table(root / "index.csv", form="movement, subject, correct", remedy="copy it beside the .npz")
        try:
            labels = [2 * (int(row["movement"]) - 1) + int(row["correct"]) for _, row in rows]
            names, subjects = [row["sequence"] for _, row in rows], [row["subject"] for _, row in rows]
        except (KeyError, ValueError) as error:
            what, expected = "is no index of UI-PRMD", "columns sequence, movement, subject and correct"
            remedy = "copy the index.csv that came with the .npz"
            raise UserError.about(str(root / "index.csv"), what, expected, explain(error), remedy) from None
        motion = Motion(arrays["xyz_mm"], arrays["offsets"], np.array(labels, np.int64), subjects, names)
    else:
        path, wanted = root, ("xyz", "offsets", "label", "subject")
        arrays = _read_arrays(path, wanted)
        subjects = [str(one) for one in arrays["subject"].tolist()]
        names = [f"sequence {number}" for number in range(len(subjects))]
        motion = Motion(arrays["xyz"], arrays["offsets"], arrays["label"], subjects, names)
    _check_form(motion, path, section)
    _check_positions(motion, path, section)
    return motion


def _read_arrays(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    try:
        with np.load(io.BytesIO(read_plain(path, most_bytes=MOST_BYTES)), allow_pickle=False) as archive:
            if sum(record.file_size for record in archive.zip.infolist()) > MOST_BYTES:
                raise ValueError("it claims to be larger than any file that is read")
            return {name: archive[name] for name in names}
    except Exception as error:  # noqa: BLE001 (the parser of hostile headers may raise anything)
        expected, got = f"an .npz with {', '.join(names)}", explain(error)
        remedy = "correct data.data_root; docs/skeleton.md shows the form"
        raise UserError.about(str(path), "is no file of sequences", expected, got, remedy) from None


def _check_form(motion: Motion, path: Path, section: SkeletonSection) -> None:
    joints, xyz, offsets = SKELETONS[section.skeleton].joints, motion.xyz, motion.offsets
    if xyz.ndim != 3 or xyz.shape[1:] != (joints, 3) or xyz.dtype.kind not in "fiu":
        expected, got = f"(F, {joints}, 3) numbers", f"{xyz.dtype} {xyz.shape}"
        remedy = f"choose data.skeleton: {', '.join(f'{name} has {one.joints}' for name, one in SKELETONS.items())}"
        raise UserError.about(str(path), f"has other joints than {section.skeleton}", expected, got, remedy)
    count = len(motion.labels)
    is_right = offsets.ndim == motion.labels.ndim == 1 and len(offsets) == count + 1 == len(motion.subjects) + 1
    is_right = is_right and offsets.dtype.kind in "iu" and motion.labels.dtype.kind in "iu" and count > 0
    if not is_right or offsets[0] != 0 or offsets[-1] != len(xyz) or (np.diff(offsets.astype(np.int64)) < 2).any():
        got = f"offsets {offsets.shape}, label {motion.labels.shape}, {len(xyz)} frames"
        remedy = "offsets rise from 0 to F, by 2 frames or more: leave out sequences of one frame"
        raise UserError.about(str(path), "has arrays that do not fit together", FORM, got, remedy)
    if motion.labels.min() < 0 or motion.labels.max() >= len(section.classes):
        expected = f"0 to {len(section.classes) - 1}, for the {len(section.classes)} names in data.classes"
        got = f"{motion.labels.min()} to {motion.labels.max()}"
        raise UserError.about(str(path), "has labels without a class", expected, got, "correct data.classes")


def _check_positions(motion: Motion, path: Path, section: SkeletonSection) -> None:
    """Refuse values that are not finite, bodies of zeros, and positions in another unit."""
    bad = ~np.isfinite(motion.xyz).all(axis=(1, 2)) | ~motion.xyz.any(axis=(1, 2))
    if bad.any():
        sequence = int(np.searchsorted(motion.offsets, int(bad.argmax()), "right")) - 1
        got = f"{format_count_of(int(bad.sum()), 'frame')}, the first in {motion.names[sequence]}"
        what, remedy = "has frames without a body", "leave these sequences out"
        raise UserError.about(str(path), what, "finite positions, not all of them 0", got, remedy)
    box = motion.xyz.max(axis=1).astype(np.float64) - motion.xyz.min(axis=1)
    side = float(np.median(box.max(axis=1))) * find_metres(section)
    if not PERSON[0] <= side <= PERSON[1]:
        expected = f"people of {PERSON[0]} to {PERSON[1]} m"
        remedy = f'write "unit": "{"m" if section.unit == "mm" else "mm"}" in the group data of the config'
        got = f"{side:.3g} m with data.unit {section.unit}"
        raise UserError.about(str(path), "is in another unit than the config says", expected, got, remedy)


def find_metres(section: SkeletonSection) -> float:
    """Find how many metres the unit of the positions is."""
    return 0.001 if section.unit == "mm" else 1.0


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
    held = {"validation": set(section.validation_subjects), "test": set(section.test_subjects)}
    if split not in ("train", *held):
        raise UserError.about("data", f"has no split {split!r}", "train, validation or test", remedy="name one of them")
    both = held["validation"] & held["test"]
    if both:
        got, remedy = ", ".join(sorted(both)), "take them out of one of the two"
        raise UserError.about("data.test_subjects", "has people of data.validation_subjects", got=got, remedy=remedy)
    wanted = held.get(split, set(motion.subjects) - held["validation"] - held["test"])
    found = np.flatnonzero([subject in wanted for subject in motion.subjects])
    if not len(found):
        where = "data" if split == "train" else f"data.{split}_subjects"
        expected = f"some of {', '.join(dict.fromkeys(motion.subjects))}"
        remedy = "name people of the data, and leave some to train on"
        raise UserError.about(where, f"leaves no sequence for {split}", expected, remedy=remedy)
    return found


def resample(xyz: NDArray[np.float64], start: float, end: float, frames: int) -> NDArray[np.float64]:
    """Interpolate a sequence linearly at evenly spaced times.

    Args:
        xyz: The sequence (n, V, 3).
        start: The first time, in frames.
        end: The last time, in frames, at most n - 1.
        frames: T.

    Returns:
        The positions (T, V, 3).
    """
    times = np.linspace(start, end, frames)
    before = np.minimum(times.astype(np.int64), len(xyz) - 2)
    share = (times - before)[:, None, None]
    return (1.0 - share) * xyz[before] + share * xyz[before + 1]


def rotate(xyz: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    """Turn positions (..., 3) about the vertical axis y."""
    angle = np.deg2rad(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    return xyz @ np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]]).T


def build_streams(xyz: NDArray[np.float64], skeleton: Skeleton) -> dict[str, NDArray[np.float32]]:
    """Build the inputs of the models from one sequence.

    Args:
        xyz: The positions (T, V, 3).
        skeleton: The layout of the joints.

    Returns:
        `joint`, relative to the root of the first frame; `velocity`, the next frame minus this one, 0 in the last;
        `bone`, a joint minus its parent. Each float32 (1, 3, T, V).
    """
    joint = xyz - xyz[0, skeleton.root]
    velocity = np.zeros_like(joint)
    velocity[:-1] = joint[1:] - joint[:-1]
    bone = joint - joint[:, list(skeleton.parents)]
    streams = {"joint": joint, "velocity": velocity, "bone": bone}
    return {name: one.transpose(2, 0, 1)[None].astype(np.float32) for name, one in streams.items()}


class Sequences(Samples):
    """The sequences of one split; those of training are augmented."""

    def __init__(self, motion: Motion, split: str, section: SkeletonSection) -> None:
        """Choose the sequences of the split.

        Args:
            motion: All sequences.
            split: `train`, `validation` or `test`.
            section: The config keys.
        """
        self._motion, self._section, self._is_train = motion, section, split == "train"
        self._chosen = find_split(motion, split, section)
        people = len({motion.subjects[number] for number in self._chosen.tolist()})
        counts = f"{format_count_of(len(self), 'sequence')} of {format_count_of(people, 'person')}"
        self.notes = (f"skeletons ({section.data_source}), {split}: {counts}",)

    def __len__(self) -> int:
        return len(self._chosen)

    def name(self, index: int) -> str:
        """The name of a sequence in its data set."""
        return self._motion.names[int(self._chosen[index])]

    def group(self, index: int) -> str:
        """The person."""
        return f"subject {self._motion.subjects[int(self._chosen[index])]}"

    def make(self, index: int, rng: np.random.Generator) -> Sample:
        """Make the three streams of a sequence."""
        number, section = int(self._chosen[index]), self._section
        start, end = self._motion.offsets[number : number + 2].tolist()
        xyz = self._motion.xyz[start:end].astype(np.float64) * find_metres(section)
        first, last = 0.0, len(xyz) - 1.0
        if self._is_train:
            cut = rng.uniform(0.0, section.crop) * last
            first = rng.uniform(0.0, cut)
            last -= cut - first
        xyz = resample(xyz, first, last, section.frames)
        if self._is_train:
            turned = rotate(xyz, rng.uniform(-section.rotation, section.rotation))
            xyz = turned * rng.uniform(1.0 - section.scale, 1.0 + section.scale)
            xyz = xyz + rng.normal(0.0, section.noise, xyz.shape)
        label = self._motion.labels[number : number + 1].astype(np.int64)
        return Sample(
            inputs=build_streams(xyz, SKELETONS[section.skeleton]),
            targets={"label": label},
            rows={"id": (self.name(index),)},
        )
