"""Joints from a video, by a pose model of the user's in ONNX.

The form of the model is told from its inputs and outputs:

- heat maps: `(1, 3, H, W)` float32 -> `(1, V, h, w)` (HRNet, ViTPose, SimpleBaseline),
- SimCC: `(1, 3, H, W)` float32 -> `(1, V, x bins)` and `(1, V, y bins)` (RTMPose),
- places: `(1, H, W, 3)` int32, uint8 or float32 -> `(1, 1, V, 3)`, rows y, x, confidence in 0..1 (MoveNet).

The whole picture is the person: one person, near the camera. Positions in depth are not known, they stay 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.arguments import advise_extra
from sharpstudent.core.errors import UserError
from sharpstudent.core.files import check_plain, explain
from sharpstudent.core.types import InputSource
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.modalities.faces.video import StreamError, open_stream
from sharpstudent.tasks.skeleton.motion import scale_pixels

MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)  # ImageNet
MOST_MODEL = 2_000_000_000  # bytes
SIDE = 256  # of the picture, for a model that takes any [px]
FORMS = "an ONNX pose model with heat maps, SimCC bins or places of its joints (docs/skeleton.md)"


class PoseModel:
    """A pose model of the user's, run by onnxruntime on the CPU."""

    def __init__(self, path: Path, joints: int) -> None:
        """Open the model.

        Args:
            path: The .onnx file.
            joints: V, the number of joints that it must find.

        Raises:
            UserError: For a file that onnxruntime does not take, one with other inputs, and without onnxruntime.
        """
        try:
            import onnxruntime
        except ImportError:
            what, remedy = "needs onnxruntime, which is not installed", advise_extra("onnx")
            raise UserError.about(str(path), what, remedy=remedy) from None
        try:
            check_plain(path, most_bytes=MOST_MODEL)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.log_severity_level = 1, 4
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 (onnxruntime has exceptions of its own)
            remedy = "correct --pose-model"
            raise UserError.about(str(path), "cannot be opened", FORMS, explain(error), remedy) from None
        self._path, self._joints, taken = path, joints, self._session.get_inputs()[0]
        self._name, self._is_last = taken.name, len(taken.shape) == 4 and taken.shape[3] == 3
        sides = [side if isinstance(side, int) else SIDE for side in taken.shape[1 if self._is_last else 2 :][:2]]
        if len(taken.shape) != 4 or not (self._is_last or taken.shape[1] in (3, "3")):
            got = f"{taken.name} {taken.shape}"
            raise UserError.about(str(path), "takes no pictures", FORMS, got, "correct --pose-model")
        self._height, self._width = sides
        kinds = {"tensor(int32)": np.int32, "tensor(uint8)": np.uint8, "tensor(float)": np.float32}
        self._dtype: Any = kinds.get(taken.type, np.float32)

    def find(self, picture: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Find the joints of the person in a picture.

        Args:
            picture: RGB uint8 (H, W, 3).

        Returns:
            Their places (V, 2) in pixels of the picture: x, y.
        """
        size = (self._width, self._height)
        resized = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        if self._is_last:
            given = resized[None].astype(self._dtype)
        else:
            given = ((resized.astype(np.float32) / 255.0 - MEAN) / STD).transpose(2, 0, 1)[None]
        outputs = [np.asarray(one) for one in self._session.run(None, {self._name: given})]
        return self._read(outputs) * np.array([picture.shape[1], picture.shape[0]])

    def _read(self, outputs: list[NDArray[Any]]) -> NDArray[np.float64]:
        """Read places (V, 2), x and y in 0..1, from whichever form the outputs have."""
        first, joints = outputs[0], self._joints
        if first.ndim == 4 and first.shape[1] == joints:
            rows, columns = first.shape[2:]
            best = first[0].reshape(joints, -1).argmax(axis=1)
            return np.stack([(best % columns + 0.5) / columns, (best // columns + 0.5) / rows], 1)
        if first.ndim == 3 and len(outputs) == 2 and first.shape[1] == joints == outputs[1].shape[1]:
            return np.stack([one[0].argmax(axis=1) / one.shape[2] for one in outputs], 1)
        if first.ndim == 4 and first.shape[2:] == (joints, 3):
            return first[0, 0, :, 1::-1].astype(np.float64)
        got = ", ".join(str(one.shape) for one in outputs)
        remedy = f"use a model of {joints} joints, the number that the action model was trained on"
        raise UserError.about(str(self._path), "finds no such joints", f"{joints} joints; {FORMS}", got, remedy)


def detect_bodies(
    source: InputSource, path: Path, joints: int
) -> tuple[Iterator[tuple[Mapping[str, NDArray[Any]], float]], float]:
    """Find a body in each frame of a video, camera or stream.

    Args:
        source: The video.
        path: The pose model.
        joints: V.

    Returns:
        The frames as they come, each with the positions (V, 3) in metres by the body's name and the share of the video
        that has been read; and the frames a second.

    Raises:
        UserError: For a pose model that does not fit.
        UnreadableSample: For what is no video.
    """
    model, place = PoseModel(path, joints), source.path if source.path is not None else source.stream
    assert place is not None
    try:
        with open_stream(place) as stream:
            rate, total = stream.rate, stream.claimed
    except StreamError as error:
        raise UnreadableSample(source.name, str(error)) from None
    return _detect(source.name, place, model, total), rate if rate and math.isfinite(rate) else 30.0


def _detect(
    name: str, place: Path | str | int, model: PoseModel, total: int
) -> Iterator[tuple[Mapping[str, NDArray[Any]], float]]:
    scale, count = 0.0, 0
    try:
        with open_stream(place) as stream:
            while stream.grab():
                count += 1
                picture = stream.retrieve()
                if picture is None:
                    yield {}, min(1.0, count / max(total, count))
                    continue
                found = model.find(picture)
                # One scale for the whole video: that of its first frame, so that nobody grows while bending down.
                scale = scale or _measure(found)
                xyz = np.concatenate([found[:, :1], -found[:, 1:], np.zeros((len(found), 1))], 1) * scale
                yield {"person": xyz}, min(1.0, count / max(total, count))
    except StreamError as error:
        raise UnreadableSample(name, str(error)) from None


def _measure(found: NDArray[np.float64]) -> float:
    """Measure how many metres a pixel is, by `scale_pixels` of one frame."""
    scaled, side = scale_pixels(found[None, None]), float((found.max(axis=0) - found.min(axis=0)).max())
    height = scaled[0, 0].max(axis=0) - scaled[0, 0].min(axis=0)
    return float(height.max()) / side if side > 0.0 else 0.0
