"""Generated skeletons that move in one of four ways, as an .npz of one's own data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLASSES = ("up", "down", "left", "right")
WAYS = np.array([[0, 1, 0], [0, -1, 0], [-1, 0, 0], [1, 0, 0]], np.float64)


def make_motion(subjects: int = 6, repetitions: int = 2) -> dict[str, NDArray[Any]]:
    """Arrays in metres: each person does each movement with the joints of one hand."""
    rng, parts, labels, people = np.random.default_rng(0), [], [], []
    body = rng.uniform(-0.8, 0.8, (17, 3))
    for subject in range(1, subjects + 1):
        for label in range(len(CLASSES)):
            for _ in range(repetitions):
                frames = int(rng.integers(12, 20))
                xyz = np.repeat(body[None] * (1.0 + 0.02 * subject), frames, 0)
                xyz[:, 9:11] += np.linspace(0.0, 0.5, frames)[:, None, None] * WAYS[label]
                parts.append(xyz + rng.normal(0.0, 0.01, xyz.shape))
                labels.append(label)
                people.append(str(subject))
    offsets = np.cumsum([0, *map(len, parts)])
    return {
        "xyz": np.concatenate(parts).astype(np.float32),
        "offsets": offsets,
        "label": np.array(labels),
        "subject": np.array(people),
    }


def write_motion(path: Path, **changes: NDArray[Any]) -> Path:
    np.savez(path, **{**make_motion(), **changes})
    return path


# --- The same motion in the forms of others -------------------------------------------------------------------------

LAYOUT = {
    "joints": ["hip", "left knee", "right knee", "head"],
    "bones": [["left knee", "hip"], ["right knee", "hip"], ["head", "hip"]],
    "root": "hip",
    "left_right": [["left knee", "right knee"]],
}


def list_sequences() -> list[tuple[str, int, NDArray[Any]]]:
    """Name as of NTU RGB+D, class, and positions of each generated sequence (n, 17, 3)."""
    made, found = make_motion(), []
    for number, label in enumerate(made["label"].tolist()):
        start, end = made["offsets"][number : number + 2]
        person = int(made["subject"][number])
        name = f"S001C{1 + number % 3:03}P{person:03}R{1 + number % 2:03}A{label + 1:03}"
        found.append((name, label, made["xyz"][start:end]))
    return found


def write_ntu(folder: Path) -> Path:
    """A folder of .skeleton files; the second one has two bodies."""
    from sharpstudent.tasks.skeleton.ntu import write_skeleton

    for number, (name, _, xyz) in enumerate(list_sequences()):
        bodies = np.stack([xyz, 0.5 * xyz + 1.0]) if number == 1 else xyz[None]
        (folder / f"{name}.skeleton").write_text(write_skeleton(bodies))
    return folder


def write_skeleton_file(folder: Path) -> Path:
    from sharpstudent.tasks.skeleton.ntu import write_skeleton

    path = folder / "S001C001P001R001A001.skeleton"
    path.write_text(write_skeleton(list_sequences()[0][2][None, :4]))
    return path


def write_array(folder: Path) -> Path:
    np.save(folder / "one.npy", list_sequences()[0][2])
    return folder / "one.npy"


def pad(xyz: NDArray[Any], frames: int = 24) -> NDArray[Any]:
    """Filled up with frames of 0, and with a second body that is absent (2, frames, V, 3)."""
    found = np.zeros((2, frames, *xyz.shape[1:]), np.float32)
    found[0, : len(xyz)] = xyz
    return found


def write_mib(folder: Path) -> Path:
    """Four people train, two are the test."""
    import pickle

    for word, people in (("train", "1234"), ("val", "56")):
        chosen = [one for one in list_sequences() if one[0][11] in people]
        bodies = np.stack([pad(xyz) for *_, xyz in chosen])
        np.save(folder / f"{word}_joint.npy", bodies.transpose(0, 4, 2, 3, 1))
        labels = [name for name, *_ in chosen], [label for _, label, _ in chosen]
        (folder / f"{word}_label.pkl").write_bytes(pickle.dumps(labels))
    return folder


def write_ctrgcn(folder: Path) -> Path:
    arrays = {}
    for word, people in (("train", "1234"), ("test", "56")):
        chosen = [one for one in list_sequences() if one[0][11] in people]
        arrays[f"x_{word}"] = np.stack([pad(xyz).transpose(1, 0, 2, 3).reshape(24, -1) for *_, xyz in chosen])
        arrays[f"y_{word}"] = np.eye(4, dtype=np.float32)[[label for _, label, _ in chosen]]
    np.savez(folder / "ctrgcn.npz", **arrays)
    return folder / "ctrgcn.npz"


def write_pyskl(folder: Path, *, axes: int = 3) -> Path:
    import pickle

    chosen = list_sequences()
    names = [name for name, *_ in chosen]
    split = {"xsub_train": [name for name in names if name[11] in "1234"]}
    split["xsub_val"] = [name for name in names if name[11] in "56"]
    annotations = [
        {"frame_dir": name, "label": label, "keypoint": np.stack([xyz])[..., :axes], "total_frames": len(xyz)}
        for name, label, xyz in chosen
    ]
    (folder / "pyskl.pkl").write_bytes(pickle.dumps({"split": split, "annotations": annotations}))
    return folder / "pyskl.pkl"
