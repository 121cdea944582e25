"""Opens the data that a config names, whichever form it has.

Legend: F frames of all sequences, N sequences, V joints.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.errors import UserError
from sharpstudent.core.files import explain, read_plain, read_table
from sharpstudent.tasks.skeleton import ntu, packages
from sharpstudent.tasks.skeleton.graph import SKELETONS, Skeleton
from sharpstudent.tasks.skeleton.motion import Motion, Packed, check_labels, check_unit, find_bad
from sharpstudent.tasks.skeleton.section import SkeletonSection

MOST_BYTES = 4_000_000_000  # of a file of positions
FORM = "arrays xyz (F, V, 3), offsets (N + 1,), label (N,) and subject (N,)"


def load_motion(section: SkeletonSection, skeleton: Skeleton) -> Motion:
    """Open the sequences that a config names.

    Args:
        section: The config keys.
        skeleton: The layout of the joints.

    Returns:
        The sequences. Those of files are read when they are needed.

    Raises:
        UserError: For files that are absent or of another form, and for positions that cannot be right.
    """
    motion = LOADERS[section.data_source](section, skeleton)
    check_labels(motion, section.data_root, section)
    if not isinstance(motion.read, Packed):
        _check_first(motion, section, skeleton)
    return motion


def _check_first(motion: Motion, section: SkeletonSection, skeleton: Skeleton) -> None:
    """Check the first sequence of data that is read when it is needed: its joints and its unit."""
    bodies = motion.read(0)
    if bodies.ndim == 4 and bodies.shape[2] != skeleton.joints:
        raise _refuse_joints(section, f"{motion.names[0]}, {bodies.shape[2]} joints", skeleton)
    if find_bad(bodies, skeleton) is None:
        check_unit(bodies, section.data_root, section.unit)


def _refuse_joints(section: SkeletonSection, got: str, skeleton: Skeleton) -> UserError:
    layouts = ", ".join(f"{name} has {one.joints}" for name, one in SKELETONS.items())
    remedy = f"choose data.skeleton ({layouts}), or describe your own layout in a file"
    what = f"has other joints than the layout {section.skeleton}"
    return UserError.about(section.data_root, what, f"{skeleton.joints} joints, three coordinates each", got, remedy)


def _load_uiprmd(section: SkeletonSection, skeleton: Skeleton) -> Motion:
    root = Path(section.data_root)
    arrays = _read_arrays(root / "ui_prmd_kinect.npz", ("xyz_mm", "offsets"))
    _, rows = read_table(root / "index.csv", form="movement, subject, correct", remedy="copy it beside the .npz")
    try:
        labels = [2 * (int(row["movement"]) - 1) + int(row["correct"]) for _, row in rows]
        names, subjects = [row["sequence"] for _, row in rows], [row["subject"] for _, row in rows]
    except (KeyError, ValueError) as error:
        what, expected = "is no index of UI-PRMD", "columns sequence, movement, subject and correct"
        remedy = "copy the index.csv that came with the .npz"
        raise UserError.about(str(root / "index.csv"), what, expected, explain(error), remedy) from None
    return _pack(arrays["xyz_mm"], arrays["offsets"], np.array(labels, np.int64), subjects, names, section, skeleton)


def _load_npz(section: SkeletonSection, skeleton: Skeleton) -> Motion:
    arrays = _read_arrays(Path(section.data_root), ("xyz", "offsets", "label", "subject"))
    subjects = [str(one) for one in arrays["subject"].tolist()]
    names = [f"sequence {number}" for number in range(len(subjects))]
    return _pack(arrays["xyz"], arrays["offsets"], arrays["label"], subjects, names, section, skeleton)


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


def _pack(
    xyz: NDArray[Any], offsets: NDArray[Any], labels: NDArray[Any], subjects: Sequence[str], names: Sequence[str],
    section: SkeletonSection, skeleton: Skeleton,
) -> Motion:  # fmt: skip
    """Check arrays that are read whole, and put them together."""
    where = section.data_root
    if xyz.ndim != 3 or xyz.shape[1:] != (skeleton.joints, 3) or xyz.dtype.kind not in "fiu":
        raise _refuse_joints(section, f"{xyz.dtype} {xyz.shape}", skeleton)
    is_right = offsets.ndim == labels.ndim == 1 and len(offsets) == len(labels) + 1 == len(subjects) + 1
    is_right = is_right and offsets.dtype.kind in "iu" and labels.dtype.kind in "iu"
    if not is_right or offsets[0] != 0 or offsets[-1] != len(xyz) or (np.diff(offsets.astype(np.int64)) < 2).any():
        got = f"offsets {offsets.shape}, label {labels.shape}, {len(xyz)} frames"
        remedy = "offsets rise from 0 to F, by 2 frames or more: leave out sequences of one frame"
        raise UserError.about(where, "has arrays that do not fit together", FORM, got, remedy)
    reader = Packed(xyz, offsets.astype(np.int64))
    for number, name in enumerate(names):
        bad = find_bad(reader(number), skeleton)
        if bad is not None:
            expected = "finite positions, not all of them 0, in every frame"
            raise UserError.about(where, f"has a sequence that shows no body: {name} {bad}", expected,
                                  remedy="leave this sequence out")  # fmt: skip
        check_unit(reader(number), f"{where}: {name}", section.unit)
    return Motion(reader, labels.astype(np.int64), subjects, names)


LOADERS: Mapping[str, Callable[[SkeletonSection, Skeleton], Motion]] = {
    "uiprmd": _load_uiprmd,
    "npz": _load_npz,
    "ntu": ntu.load_folder,
    "mib": packages.load_mib,
    "ctrgcn": packages.load_ctrgcn,
    "pyskl": packages.load_pyskl,
}
