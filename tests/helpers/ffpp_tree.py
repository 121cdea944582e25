"""A small FaceForensics++ in exactly the layout that users of self-blended images have, and weights in their file
forms.

Faces are the photos of ../shared/data with the landmarks of this project's own mesh; where the photos or the two face
models are absent, drawn faces stand in, so that no test has to skip.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from drawn_faces import draw_face
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = ROOT.parent / "shared" / "data" / "faces"
MODEL_FILES = (ROOT / "weights" / "face_detection_yunet_2023mar.onnx", ROOT / "weights" / "face_landmark.tflite")
FRAME_HEIGHT, FRAME_WIDTH, FACE_SIDE = 360, 480, 300  # [px]
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Annotated:
    """A picture uint8 (H, W, 3) RGB with its faces, the largest first: landmarks (n, 81, 2), retina (n, 7, 2)."""

    image: NDArray[np.uint8]
    landmarks: NDArray[np.int64]
    retina: NDArray[np.float32]


def has_photos() -> bool:
    """Whether real faces and the models that annotate them are at hand."""
    return (PHOTOS / "index.csv").is_file() and all(path.is_file() for path in MODEL_FILES)


def build_tree(root: Path, *, train_clips: int = 4, val_clips: int = 2, frames: int = 2) -> Path:
    """Write ROOT/original_sequences/youtube/c23/{frames,landmarks,retina} and the three split files; returns ROOT.

    Each clip is one person. Clip numbers are even-sized pairs as in the original. Two traps: every clip has one more
    frame that lacks its retina file, and the frames of the test split are not pictures: whoever opens them notices.
    """
    base = root / "original_sequences" / "youtube" / "c23"
    faces = _make_frames()
    number = 0
    for split, clips in zip(SPLITS, (train_clips, val_clips, 2), strict=True):
        names = [f"{number + i:03d}" for i in range(clips)]
        number += clips
        for name in names:
            if split == "test":
                _write_bytes(base / "frames" / name / "000.png", b"the test split is never opened")
                continue
            for index, frame in enumerate(next(faces) for _ in range(frames)):
                _write_frame(base, name, 13 * index, frame)
            _write_frame(base, name, 13 * frames, frame)
            (base / "retina" / name / f"{13 * frames:03d}.npy").unlink()
        pairs = [names[i : i + 2] for i in range(0, len(names), 2)]
        _write_bytes(root / f"{split}.json", json.dumps(pairs).encode())
    return root


def write_photos(folder: Path, *, people: int, photos: int = 2) -> Path:
    """`folder/PERSON/IDX.png` for data_source photos; returns the folder."""
    frames = _make_frames()
    for person in range(people):
        for index in range(photos):
            _write_picture(folder / f"person_{person:02d}" / f"{index}.png", next(frames).image)
    return folder


def write_labelled(folder: Path, *, people: int, size: int = 64) -> Path:
    """`folder/{real,fake}/PERSON/0.png`: drawn faces, the fakes with a green cast; returns the folder."""
    for person in range(people):
        image, _ = draw_face(person, size)
        _write_picture(folder / "real" / f"person_{person:02d}" / "0.png", image)
        fake = np.clip(image.astype(int) + np.array([-25, 25, -25]), 0, 255).astype(np.uint8)
        _write_picture(folder / "fake" / f"person_{person:02d}" / "0.png", fake)
    return folder


def write_teacher(path: Path, *, seed: int = 0) -> Path:
    """A checkpoint as FFc23.tar is one: EfficientNet-B4 of efficientnet-pytorch held in `net`, random weights."""
    import torch
    from efficientnet_pytorch import EfficientNet

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = EfficientNet.from_name("efficientnet-b4", num_classes=2)
    tensors = {f"net.{name}": value for name, value in net.state_dict().items()}
    groups = [{"lr": 0.001, "momentum": 0.9, "rho": 0.05, "params": list(range(5))}]
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": tensors, "optimizer": {"state": {}, "param_groups": groups}, "epoch": 99}, path)
    return path


def write_student_init(path: Path, name: str, *, seed: int = 1) -> Path:
    """A timm state dict with timm's own 1000-class head, as ImageNet weights come; random weights."""
    import timm
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = timm.create_model(name, pretrained=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), path)
    return path


def _make_frames() -> Iterator[Annotated]:
    """Frames of ever new people, the first with a second, smaller face."""
    for index, frame in enumerate(_make_photo_frames() if has_photos() else _make_drawn_frames()):
        yield _add_small_face(frame) if index == 0 else frame


def _make_photo_frames() -> Iterator[Annotated]:
    from sharpstudent.modalities.faces.detect import FaceDetector
    from sharpstudent.modalities.faces.landmarks import LandmarkMesh

    detector, mesh = FaceDetector(MODEL_FILES[0]), LandmarkMesh(MODEL_FILES[1])
    with open(PHOTOS / "index.csv", newline="", encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: (row["person"], row["file"]))
    for row in rows:
        frame, _ = _place(cv2.imread(str(PHOTOS / row["file"]), cv2.IMREAD_COLOR_RGB))
        found = detector.detect(frame)
        if found:
            retina = np.concatenate([found[0].box_xyxy.reshape(2, 2), found[0].points])
            landmarks = mesh.locate_81(frame, found[0])
            yield Annotated(frame, np.rint(landmarks)[None].astype(np.int64), retina[None].astype(np.float32))


def _make_drawn_frames() -> Iterator[Annotated]:
    for seed in range(10_000):
        image, landmarks = draw_face(seed, FACE_SIDE)
        frame, offset = _place(image)
        yield Annotated(frame, np.rint(landmarks + offset)[None].astype(np.int64), _box(landmarks + offset)[None])


def _place(photo: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A square photo in a video frame of its backdrop's colour; also where its corner is (x, y)."""
    photo = cv2.resize(photo, (FACE_SIDE, FACE_SIDE), interpolation=cv2.INTER_AREA)
    frame = np.empty((FRAME_HEIGHT, FRAME_WIDTH, 3), np.uint8)
    frame[:] = photo[0].mean(axis=0)
    top, left = FRAME_HEIGHT - FACE_SIDE, (FRAME_WIDTH - FACE_SIDE) // 2
    frame[top:, left : left + FACE_SIDE] = photo
    return frame, np.array([left, top], np.float32)


def _add_small_face(frame: Annotated) -> Annotated:
    image, landmarks = draw_face(999, 80)
    canvas = frame.image.copy()
    canvas[:80, :80] = image
    return Annotated(
        canvas,
        np.concatenate([frame.landmarks, np.rint(landmarks)[None].astype(np.int64)]),
        np.concatenate([frame.retina, _box(landmarks)[None]]),
    )


def _box(landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """A detector's row from exact landmarks: two corners, then eyes, nose, corners of the mouth (7, 2)."""
    points = [landmarks[36:42].mean(axis=0), landmarks[42:48].mean(axis=0), *landmarks[[30, 48, 54]]]
    return np.stack([landmarks.min(axis=0), landmarks.max(axis=0), *points]).astype(np.float32)


def _write_frame(base: Path, clip: str, index: int, frame: Annotated) -> None:
    _write_picture(base / "frames" / clip / f"{index:03d}.png", frame.image)
    for kind, array in (("landmarks", frame.landmarks), ("retina", frame.retina)):
        path = base / kind / clip / f"{index:03d}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, array)


def _write_picture(path: Path, image: NDArray[np.uint8]) -> None:
    _write_bytes(path, cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes())


def _write_bytes(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
