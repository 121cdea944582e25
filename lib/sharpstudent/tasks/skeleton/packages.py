"""Files that other projects prepare of NTU RGB+D and alike: MIB arrays, the .npz of CTR-GCN, the .pkl of pyskl.

A pickle is read with a list of what it may build, plain containers and arrays of numbers, so that no code in it runs.
Legend: N sequences, n frames, M bodies, V joints, C classes.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.errors import UserError
from sharpstudent.core.files import check_plain, explain, read_plain
from sharpstudent.tasks.skeleton.graph import Skeleton
from sharpstudent.tasks.skeleton.motion import METRES, Bodies, Motion, scale_pixels
from sharpstudent.tasks.skeleton.movements import build_streams
from sharpstudent.tasks.skeleton.ntu import Name, describe_counts
from sharpstudent.tasks.skeleton.section import SkeletonSection

MOST_BYTES = 40_000_000_000  # of a file that is mapped, not read
MOST_PICKLE = 4_000_000_000
CLOSE = 1e-3  # by how much a stored stream may differ from the computed one [m]
_PLAIN = {
    "numpy": ("ndarray", "dtype"),
    "numpy.core.multiarray": ("_reconstruct", "scalar"),
    "numpy._core.multiarray": ("_reconstruct", "scalar"),
    "numpy.core.numeric": ("_frombuffer",),
    "numpy._core.numeric": ("_frombuffer",),
    "_codecs": ("encode",),
    "collections": ("OrderedDict",),
}


class _PlainUnpickler(pickle.Unpickler):
    """Builds plain containers and arrays; refuses every other class and function before it is looked up."""

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the few builders of arrays."""
        if name not in _PLAIN.get(module, ()):
            raise pickle.UnpicklingError(f"it needs {module}.{name}, which could be code; nothing in it was run")
        return super().find_class(module, name)


def read_plain_pickle(path: Path) -> Any:
    """Read a pickle of plain containers and arrays. Raises UserError for one that needs anything else."""
    try:
        return _PlainUnpickler(io.BytesIO(read_plain(path, most_bytes=MOST_PICKLE)), encoding="latin1").load()
    except Exception as error:  # noqa: BLE001 (hostile bytes can raise any exception; each becomes a message)
        what, expected = "cannot be taken", "a pickle of plain lists, dictionaries and arrays"
        remedy = "take it from its publisher again; docs/skeleton.md shows the forms that are read"
        raise UserError.about(str(path), what, expected, explain(error), remedy) from None


@dataclass(frozen=True)
class Padded:
    """Reads arrays (N, 3, n, V, M) that are filled up with frames of 0; a file is mapped, not read."""

    arrays: Sequence[NDArray[Any]]

    def __call__(self, number: int) -> Bodies:
        """Return the frames in which the first body is there, of one body or two."""
        for array in self.arrays:
            if number < len(array):
                return _cut_absent(np.asarray(array[number], np.float64).transpose(3, 1, 2, 0))
            number -= len(array)
        raise IndexError(number)


@dataclass(frozen=True)
class Flat(Padded):
    """Reads arrays (N, n, M * V * 3) of two bodies."""

    def __call__(self, number: int) -> Bodies:
        """Return the frames in which the first body is there, of one body or two."""
        for array in self.arrays:
            if number < len(array):
                one = np.asarray(array[number], np.float64)
                return _cut_absent(one.reshape(len(one), 2, -1, 3).transpose(1, 0, 2, 3))
            number -= len(array)
        raise IndexError(number)


@dataclass(frozen=True)
class Annotations:
    """Reads the entries of pyskl: `keypoint` (M, n, V, 3), or (M, n, V, 2) in pixels.

    Attributes:
        entries: The entries.
        metres: The unit of the data [m]; what pixels become is given in it, too.
    """

    entries: Sequence[Any]
    metres: float

    def __call__(self, number: int) -> Bodies:
        """Return the frames in which the first body is there, of one body or two."""
        found = np.asarray(self.entries[number]["keypoint"], np.float64)
        return _cut_absent(scale_pixels(found) / self.metres if found.shape[-1] == 2 else found)


def _cut_absent(bodies: Bodies) -> Bodies:
    """Keep the frames of the first body, and the second one if it is there at all."""
    kept = bodies[0].any(axis=(1, 2))
    return bodies[: 2 if len(bodies) > 1 and bodies[1].any() else 1, kept]


def load_mib(section: SkeletonSection, skeleton: Skeleton) -> Motion:
    """Open `{train,val}_joint.npy` (N, 3, n, V, 2) with `{train,val}_label.pkl`; `val` is the test part.

    Velocity and bone are computed from the joints, as for all data; where their files are there, too, the first
    sequence is compared with them.

    Raises:
        UserError: For files that are absent, of another form, or do not fit together.
    """
    root, arrays = Path(section.data_root), list[NDArray[Any]]()
    labels, names, parts = list[int](), list[str](), list[str]()
    for part, word in (("train", "train"), ("test", "val")):
        array = _map_array(root / f"{word}_joint.npy")
        found = read_plain_pickle(root / f"{word}_label.pkl")
        try:
            own_names, own_labels = [str(name) for name in found[0]], [int(label) for label in found[1]]
        except (TypeError, ValueError, KeyError, IndexError) as error:
            what, expected = "holds no labels", "a pair: the names of the sequences, and their labels"
            raise UserError.about(str(root / f"{word}_label.pkl"), what, expected, explain(error)) from None
        if array.ndim != 5 or array.shape[1] != 3 or len(array) != len(own_labels) or len(own_names) != len(own_labels):
            got = f"{array.shape}, {len(own_names)} names and {len(own_labels)} labels"
            expected, remedy = "(N, 3, n, V, 2) and N labels", "take both files from one preparation"
            raise UserError.about(str(root / f"{word}_joint.npy"), "does not fit its labels", expected, got, remedy)
        _compare_streams(root, word, array, skeleton)
        arrays.append(array)
        labels, names, parts = labels + own_labels, names + own_names, parts + [part] * len(own_labels)
    return _build(Padded(arrays), labels, names, parts)


def _map_array(path: Path) -> NDArray[Any]:
    try:
        check_plain(path, most_bytes=MOST_BYTES)
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # noqa: BLE001 (the parser of hostile headers may raise anything)
        remedy = "correct data.data_root; docs/skeleton.md shows the form"
        raise UserError.about(str(path), "is no array of numbers", got=explain(error), remedy=remedy) from None


def _compare_streams(root: Path, word: str, array: NDArray[Any], skeleton: Skeleton) -> None:
    """Raise UserError where the first sequence's velocity or bone is not what its joints give."""
    whole = np.asarray(array[:1], np.float64).transpose(0, 4, 2, 3, 1)[0, :1]
    if whole.shape[2] != skeleton.joints:
        return  # said by the check of the joints
    streams = build_streams(whole, skeleton)
    for name in ("velocity", "bone"):
        path = root / f"{word}_{name}.npy"
        if not path.is_file():
            continue
        stored = _map_array(path)
        is_alike = stored.shape == array.shape and np.abs(stored[0, ..., 0] - streams[name][0]).max() <= CLOSE
        if not is_alike:
            expected = {"velocity": "the next frame minus this one", "bone": "a joint minus its parent"}[name]
            remedy = f"correct data.skeleton, or remove {path.name}: it is computed from the joints"
            raise UserError.about(str(path), "is not the stream of its joints", expected, remedy=remedy)


def load_ctrgcn(section: SkeletonSection, skeleton: Skeleton) -> Motion:
    """Open the `.npz` of CTR-GCN: `x_train` (N, n, 2 * V * 3), `y_train` (N, C) one-hot, `x_test` and `y_test`.

    It names no people. Each sequence counts as a person of its own, and a tenth of the training part validates.

    Raises:
        UserError: For another form.
    """
    path = Path(section.data_root)
    try:
        with np.load(io.BytesIO(read_plain(path, most_bytes=MOST_PICKLE)), allow_pickle=False) as archive:
            if sum(record.file_size for record in archive.zip.infolist()) > MOST_BYTES:
                raise ValueError("it claims to be larger than any file that is read")
            arrays = {name: archive[name] for name in ("x_train", "y_train", "x_test", "y_test")}
        xs, ys = (
            [arrays[f"x_{part}"] for part in ("train", "test")],
            [arrays[f"y_{part}"] for part in ("train", "test")],
        )
        if any(x.ndim != 3 or y.ndim != 2 or len(x) != len(y) or x.shape[2] != 6 * skeleton.joints
               for x, y in zip(xs, ys, strict=True)):  # fmt: skip
            raise ValueError(f"it has {', '.join(f'{name} {array.shape}' for name, array in arrays.items())}")
    except Exception as error:  # noqa: BLE001 (the parser of hostile headers may raise anything)
        expected = f"x_train (N, n, {6 * skeleton.joints}), y_train (N, classes), x_test and y_test"
        remedy = "correct data.data_root and data.skeleton"
        raise UserError.about(str(path), "is no .npz of CTR-GCN", expected, explain(error), remedy) from None
    counts = [len(y) for y in ys]
    labels = [int(label) for y in ys for label in y.argmax(axis=1)]
    parts = ["train"] * counts[0] + ["test"] * counts[1]
    names = [f"{part} {number}" for number, part in enumerate(parts)]
    note = "this file names no people: sequences of one person may train and validate, and intervals are too narrow"
    return Motion(Flat(xs), np.array(labels, np.int64), names, names, parts, (note,))


def load_pyskl(section: SkeletonSection, skeleton: Skeleton) -> Motion:
    """Open the `.pkl` of pyskl: `split` with lists of names, and `annotations` with `frame_dir`, `label`, `keypoint`.

    Raises:
        UserError: For a file without them, and without the split of the protocol.
    """
    path, wanted = Path(section.data_root), section.protocol.rstrip("0126") if section.protocol else ""
    found = read_plain_pickle(path)
    try:
        splits = {str(name): {str(one) for one in names} for name, names in found["split"].items()}
        chosen = {"train": splits[f"{wanted}_train"], "test": splits[f"{wanted}_val"]}
        kept = [
            (entry, part)
            for entry in found["annotations"]
            for part, names in chosen.items()
            if str(entry["frame_dir"]) in names and np.asarray(entry["keypoint"]).ndim == 4
        ]
        labels = [int(entry["label"]) for entry, _ in kept]
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        expected = f"split with {wanted}_train and {wanted}_val, and annotations"
        remedy = "choose data.protocol by the splits that the file has"
        raise UserError.about(str(path), "is no .pkl of pyskl", expected, explain(error), remedy) from None
    entries, parts = [entry for entry, _ in kept], [part for _, part in kept]
    names = [str(entry["frame_dir"]) for entry in entries]
    motion = _build(Annotations(entries, METRES[section.unit]), labels, names, parts)
    return motion if Name.read("".join(names[:1])) is None else Motion(
        motion.read, motion.labels, motion.subjects, motion.names, parts, (describe_counts(parts, section.protocol),)
    )  # fmt: skip


def _build(read: Any, labels: Sequence[int], names: Sequence[str], parts: Sequence[str]) -> Motion:
    """Put sequences together; the person is the one that an NTU name says, elsewhere the sequence itself."""
    found = [Name.read(name) for name in names]
    subjects = [name if one is None else str(one.person) for name, one in zip(names, found, strict=True)]
    return Motion(read, np.array(labels, np.int64), subjects, names, parts)
