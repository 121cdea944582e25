"""NTU RGB+D: names, official splits, lists of samples to skip, and `.skeleton` files, read and written.

Shahroudy et al. 2016, "NTU RGB+D"; Liu et al. 2019, "NTU RGB+D 120". Legend: n frames, M bodies, V joints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.errors import UserError, format_count_of
from sharpstudent.core.files import explain, read_text
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.tasks.skeleton.graph import Skeleton
from sharpstudent.tasks.skeleton.motion import Bodies, Motion
from sharpstudent.tasks.skeleton.section import SkeletonSection

SUFFIX = ".skeleton"
MOST_BODIES, MOST_FRAMES, MOST_JOINTS = 16, 100_000, 1_000  # that a file may claim
_NAME = re.compile(r"S(?P<setup>\d{3})C(?P<camera>\d{3})P(?P<person>\d{3})R(?P<repetition>\d{3})A(?P<action>\d{3})")
# The people of the training parts, as the papers list them.
PEOPLE_60 = (1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38)
PEOPLE_120 = (
    *PEOPLE_60, 45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86, 89, 91, 92,
    93, 94, 95, 97, 98, 100, 103,
)  # fmt: skip
CAMERAS = (2, 3)  # of the training part of xview60; camera 1 is its test
COUNTS = {  # sequences of the published training and test parts, after the lists of faulty samples
    "xsub60": (40_091, 16_487),
    "xview60": (37_646, 18_932),
    "xsub120": (63_026, 50_919),
    "xset120": (54_468, 59_477),
}
MOST_ACTIONS = {"xsub60": 60, "xview60": 60, "xsub120": 120, "xset120": 120}


@dataclass(frozen=True)
class Name:
    """What the name of a sample says; all numbers count from 1."""

    setup: int
    camera: int
    person: int
    repetition: int
    action: int

    @classmethod
    def read(cls, text: str) -> Name | None:
        """Read a name such as `S001C002P003R002A013`, also within a longer one; None for another."""
        found = _NAME.search(text)
        return None if found is None else cls(**{key: int(value) for key, value in found.groupdict().items()})

    def __str__(self) -> str:
        return f"S{self.setup:03}C{self.camera:03}P{self.person:03}R{self.repetition:03}A{self.action:03}"

    def find_part(self, protocol: str) -> str | None:
        """Find the part, `train` or `test`, by an official protocol; None for an action that it does not have."""
        if self.action > MOST_ACTIONS[protocol]:
            return None
        is_train = {
            "xsub60": self.person in PEOPLE_60,
            "xview60": self.camera in CAMERAS,
            "xsub120": self.person in PEOPLE_120,
            "xset120": self.setup % 2 == 0,
        }[protocol]
        return "train" if is_train else "test"


def read_skip_list(path: Path) -> frozenset[str]:
    """Read the names of samples to leave out, one a line; other lines, such as a heading, are passed over.

    Raises:
        UserError: For a file that cannot be read, and one without names.
    """
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        raise UserError.about(
            str(path), "cannot be read", got=explain(error), remedy="correct data.skip_list"
        ) from None
    names = frozenset(str(name) for line in text.splitlines() if (name := Name.read(line)) is not None)
    if not names:
        expected = "a name such as S001C002P005R002A008 on each line"
        raise UserError.about(str(path), "names no sample", expected, remedy="correct data.skip_list")
    return names


def count_parts(names: Sequence[str], protocol: str, skipped: frozenset[str] = frozenset()) -> tuple[int, int]:
    """Count the training and test sequences of a list of names by an official protocol."""
    found = [Name.read(text) for text in names]
    parts = [one.find_part(protocol) for one in found if one is not None and str(one) not in skipped]
    return parts.count("train"), parts.count("test")


@dataclass(frozen=True)
class Files:
    """Reads `.skeleton` files."""

    paths: Sequence[Path]

    def __call__(self, number: int) -> Bodies:
        """Read a file; UnreadableSample for one that is damaged."""
        return read_skeleton_file(self.paths[number])


def load_folder(section: SkeletonSection, skeleton: Skeleton) -> Motion:
    """List the `.skeleton` files below a folder that belong to the protocol.

    Args:
        section: The config keys.
        skeleton: The layout of the joints.

    Returns:
        The sequences; a file is read when it is needed.

    Raises:
        UserError: For a folder without such files.
    """
    root, protocol = Path(section.data_root), section.protocol
    skipped = frozenset[str]() if section.skip_list is None else read_skip_list(Path(section.skip_list))
    found: list[tuple[Path, Name, str]] = []
    left_out = 0
    for path in sorted(root.rglob(f"*{SUFFIX}")):
        name = Name.read(path.name)
        part = None if name is None else name.find_part(protocol)
        if name is None or part is None or str(name) in skipped:
            left_out += 1
            continue
        found.append((path, name, part))
    if not found:
        expected = f"files such as S001C002P003R002A013{SUFFIX}, in folders at any depth"
        got = f"{format_count_of(left_out, 'file')} that {protocol} does not take" if left_out else "none"
        raise UserError.about(str(root), "has no sequences", expected, got, "correct data.data_root")
    notes = () if not left_out else (f"{format_count_of(left_out, 'file')} left out: skipped, or not of {protocol}",)
    return Motion(
        Files([path for path, *_ in found]),
        np.array([name.action - 1 for _, name, _ in found], np.int64),
        [str(name.person) for _, name, _ in found],
        [str(name) for _, name, _ in found],
        [part for *_, part in found],
        (*notes, describe_counts([part for *_, part in found], protocol)),
    )


def describe_counts(parts: Sequence[str], protocol: str) -> str:
    """Say how many sequences the parts have beside the published counts."""
    have, published = (parts.count("train"), parts.count("test")), COUNTS[protocol]
    verdict = (
        "the published counts" if have == published else f"not the published {published[0]:,} and {published[1]:,}"
    )
    return f"{protocol}: {have[0]:,} to train on and {have[1]:,} to test, {verdict}"


def read_skeleton_file(path: Path) -> Bodies:
    """Read a `.skeleton` file: the two bodies that move most, the first one in every frame.

    Frames without the first body are left out. A second body that is absent in a frame keeps its last position.

    Args:
        path: The file.

    Returns:
        The positions (M, n, V, 3) in metres, M 1 or 2.

    Raises:
        UnreadableSample: For a file that is damaged, cut off, or shows no body.
    """
    try:
        tracks, frames = _parse(read_text(path))
    except (OSError, ValueError) as error:
        raise UnreadableSample(path.name, f"is no whole {SUFFIX} file ({explain(error)})") from None
    if not tracks:
        raise UnreadableSample(path.name, "shows no body in any frame")
    if len({one.shape for track in tracks.values() for one in track.values()}) > 1:
        raise UnreadableSample(path.name, "has bodies of unlike numbers of joints")
    return join_tracks(tracks, frames)


def join_tracks(tracks: Mapping[str, Mapping[int, NDArray[Any]]], frames: int) -> Bodies:
    """Put the two bodies together that move most, the first one without gaps.

    Args:
        tracks: The positions (V, 3) of each body by frame.
        frames: n.

    Returns:
        The positions (M, n, V, 3), without the frames that the first body is absent in; a second one keeps its last
        position there.
    """
    ordered = sorted(tracks.values(), key=_measure_movement, reverse=True)[:2]
    joints, kept = next(iter(ordered[0].values())).shape[0], sorted(ordered[0])
    found = np.zeros((len(ordered), frames, joints, 3))
    for body, track in enumerate(ordered):
        last = track[min(track)]
        for frame in range(frames):
            last = track.get(frame, last)
            found[body, frame] = last
    return found[:, kept]


def _measure_movement(track: Mapping[int, NDArray[Any]]) -> float:
    """Measure how much a body moves, in how many frames: noise that a sensor takes for a body hardly does either."""
    xyz = np.stack(list(track.values()))
    return float(xyz.std(axis=0).sum()) * len(xyz)


def _parse(text: str) -> tuple[dict[str, dict[int, NDArray[np.float64]]], int]:
    """Read the positions of each body by its id and frame, and the number of frames."""
    lines = iter(text.splitlines())
    frames, tracks = read_count(lines, MOST_FRAMES), dict[str, dict[int, NDArray[np.float64]]]()
    for frame in range(frames):
        for body, xyz in read_frame(lines, frame).items():
            tracks.setdefault(body, {})[frame] = xyz
    return tracks, frames


def read_frame(lines: Iterator[str], frame: int) -> dict[str, NDArray[np.float64]]:
    """Read a frame of a `.skeleton` file.

    Args:
        lines: The lines from the frame's first one on.
        frame: Its number, from 0, for messages.

    Returns:
        The positions (V, 3) in metres by the id of the body; a body whose joints are all 0 is left out.

    Raises:
        ValueError: For a line that is not as the format says, or missing.
    """
    found = dict[str, NDArray[np.float64]]()
    for _ in range(read_count(lines, MOST_BODIES)):
        body = (_take(lines).split() or [""])[0]
        joints = [[float(word) for word in _take(lines).split()[:3]] for _ in range(read_count(lines, MOST_JOINTS))]
        if not joints or {len(joint) for joint in joints} != {3} or not np.isfinite(joints).all():
            raise ValueError(f"frame {frame + 1} has joints without three finite coordinates")
        if np.any(joints):
            found[body] = np.array(joints)
    return found


def read_count(lines: Iterator[str], most: int) -> int:
    """Read a line that is a count. Raises ValueError for another, and for one that is too large."""
    text = _take(lines).strip()
    if not text.isdigit() or not text.isascii() or int(text) > most:
        raise ValueError(f"it has {text[:40]!r} where a count of at most {most:,} is expected")
    return int(text)


def _take(lines: Iterator[str]) -> str:
    line = next(lines, None)
    if line is None:
        raise ValueError("it ends too early")
    return line


def write_skeleton(bodies: NDArray[Any]) -> str:
    """Write positions as the text of a `.skeleton` file.

    Args:
        bodies: The positions (M, n, V, 3) in metres; a body that is 0 in a frame is left out there.

    Returns:
        The text. What the positions do not tell, such as places in the picture, is 0.
    """
    lines = [str(bodies.shape[1])]
    for frame in range(bodies.shape[1]):
        present = [body for body in range(len(bodies)) if bodies[body, frame].any()]
        lines.append(str(len(present)))
        for body in present:
            lines += [f"{72057594037900000 + body} 0 1 1 1 1 0 0 0 2", str(bodies.shape[2])]
            lines += [" ".join(f"{value:.7g}" for value in joint) + " 0" * 8 + " 2" for joint in bodies[body, frame]]
    return "\n".join(lines) + "\n"
