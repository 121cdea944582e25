"""Crops the faces of one clip: a pure function of the clip and the settings.

Every frame that is read gives a crop or a reason; bad data never raises. In each frame the faces are found (YuNet) or
taken as given, located (468-point mesh), cropped and encoded at once, so that no two whole frames are in memory
together. Which faces of different frames are one person is decided at the end, by the boxes: people are numbered, the
largest or all are kept, and every frame left out is named. Where a mask tells which region was manipulated, only people
in it count.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sharpstudent.core.io import compute_sha256
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.modalities.faces.detect import number_tracks
from sharpstudent.modalities.faces.video import UnreadableVideo, choose_frames, sample_video, silence_opencv
from sharpstudent.tasks.deepfake.layouts.clip import USED, FrameFiles, RawClip, Rejected
from sharpstudent.tasks.deepfake.prepare.crop_frame import FrameCropper, Networks, Picture, slice_box
from sharpstudent.tasks.deepfake.prepare.parts import ClipCrops, FaceCrop
from sharpstudent.tasks.deepfake.prepare.settings import CropSettings
from sharpstudent.tasks.deepfake.sources.face import read_picture
from sharpstudent.tasks.deepfake.sources.face_crops import DETECTOR_FILE, MESH_FILE, load_face_models, locate


@dataclass(frozen=True)
class CroppedFrame:
    """The crops of one frame; its people have no numbers yet.

    Attributes:
        source: The file as the user knows it.
        index: The frame's number in the video, None for a photo.
        faces: Its crops, the largest face first.
        reason: Why the quarantine names it, "" where it does not.
    """

    source: str
    index: int | None
    faces: tuple[FaceCrop, ...] = ()
    reason: str = ""


VERSION = "2"  # raise when a crop made by this code, or what the manifest says of it, would differ
# Where only the largest person is wanted, this many faces of each frame are cropped until it is known who that is.
CANDIDATES = 3
# A mask is bright on black; compression and soft edges leave some grey outside of the region.
MASK_LEVEL = 64
# A manipulated face has at least this share of its box in the mask, and half as much as the person who has most. The
# mask of a mouth alone fills about .15 of a box; that of a neighbour may reach into a corner of it.
LEAST_MASKED = 0.1
OUTSIDE_MASK = "not in the mask of the manipulated region"


class ClipCropper:
    """Crops clips. One instance serves one thread at a time."""

    def __init__(self, settings: CropSettings, *, networks: Callable[[], Networks] | None = None) -> None:
        """Prepare to crop; nothing is loaded yet.

        Args:
            settings: How faces are cropped.
            networks: Loads what finds faces, by default the two files under weights/. It is called when the first face
                has to be found, so that clips that bring their landmarks need none.
        """
        self._settings = settings
        self._frames = FrameCropper(settings, networks or load_networks, version=VERSION)

    def crop(self, clip: RawClip) -> ClipCrops:
        """Return the clip's faces by frame and person, and the frames without any, with the reasons.

        Never raises for bad data. Raises UserError where a face has to be found and a model file is missing.
        """
        with silence_opencv():
            if clip.kind in ("frames", "crops"):
                return self._crop_frames(clip)
            if clip.file is None:
                return ClipCrops((), (Rejected(clip.key, "names no file"),), 0, 0)
            if clip.kind == "photo":
                frames = self._crop_file(FrameFiles(0, clip.file), None, most=self._count_candidates(1))
                return self._number_people([frames])
            return self._crop_video(clip.file, clip.mask)

    def _crop_video(self, file: Path, mask: Path | None) -> ClipCrops:
        count = self._settings.frames
        most = None if mask is not None else self._count_candidates(count)

        def _crop(index: int, image: NDArray[np.uint8]) -> CroppedFrame:
            picture = Picture(image, str(file), index)
            return _try_crop(str(file), index, lambda: self._frames.crop(picture, None, most=most))

        try:
            video = sample_video(file, count, _crop)
        except UnreadableVideo as error:
            return ClipCrops((), (Rejected(str(file), error.reason),), 0, 0)
        failed = {index: CroppedFrame(str(file), index, reason=reason) for index, reason in video.failed.items()}
        frames = [(video.results | failed)[index] for index in video.indices]
        if video.backend != "opencv":  # where its FFmpeg is another than OpenCV's, pixels may differ
            package = {"pyav": "av"}.get(video.backend, video.backend)
            name = f"{video.backend} {importlib.metadata.version(package)}"
            frames = [
                replace(frame, faces=tuple(replace(face, detector=f"{face.detector}, {name}") for face in frame.faces))
                for frame in frames
            ]
        if mask is None:
            return self._number_people(frames)
        try:
            return self._number_people(frames, masked=_measure_masked(mask, count, frames))
        except UnreadableVideo as error:
            crops = self._number_people(frames)
            remark = Rejected(str(file), f"{USED}but without its mask, which {error.reason}")
            return replace(crops, rejected=(*crops.rejected, remark)) if crops.faces else crops

    def _crop_frames(self, clip: RawClip) -> ClipCrops:
        """Crop whole pictures or face crops; `settings.frames` are taken, evenly spread over those on disk."""
        usable: list[FrameFiles] = []
        rejected: list[Rejected] = [] if clip.frames else [Rejected(clip.key, "has no frames")]
        for frame in clip.frames:
            absent = _find_absent(frame)
            if absent is None:
                usable.append(frame)
            else:
                rejected.append(
                    Rejected(str(frame.picture), _name_reason(absent, frame.picture, "is no file"), frame.index)
                )
        chosen = [usable[i] for i in choose_frames(len(usable), self._settings.frames)]
        most = self._count_candidates(len(chosen))
        whole = clip.kind == "crops"
        frames = [self._crop_file(frame, frame.index, most=most, whole=whole) for frame in chosen]
        return self._number_people(frames, tuple(rejected))

    def _crop_file(
        self, files: FrameFiles, index: int | None, *, most: int | None, whole: bool = False
    ) -> CroppedFrame:
        source = str(files.picture)

        def make() -> tuple[list[FaceCrop], str]:
            picture = Picture(read_picture(files.picture), source, files.index)
            return self._frames.crop(picture, files, most=most, whole=whole)

        return _try_crop(source, index, make)

    def _count_candidates(self, frames: int) -> int | None:
        """Return how many faces of each frame have to be cropped before people are numbered; None for all."""
        # Of one frame the first is the largest; the second tells that there are bystanders.
        return None if self._settings.faces == "all" else 2 if frames == 1 else CANDIDATES

    def _number_people(
        self,
        frames: list[CroppedFrame],
        rejected: tuple[Rejected, ...] = (),
        *,
        masked: Sequence[NDArray[np.float64]] | None = None,
    ) -> ClipCrops:
        """Number the people, 0 for the one whose boxes have the largest summed area, and keep the wanted faces.

        masked: of each frame's faces, the share of the box in the mask (n,); None where there is no mask. Only people
        in the mask are numbered and kept.
        """
        tracks = number_tracks([np.array([face.box_xyxy for face in frame.faces]) for frame in frames])
        people = _list_people(tracks) if masked is None else _find_masked(tracks, masked)
        number = {person: place for place, person in enumerate(people)}
        kept: list[FaceCrop] = []
        left_out = list(rejected)
        for frame, track in zip(frames, tracks, strict=True):
            faces = [
                replace(face, face_index=number[person])
                for face, person in zip(frame.faces, track.tolist(), strict=True)
                if person in number
            ]
            chosen = [face for face in faces if self._settings.faces == "all" or face.face_index == 0]
            kept.extend(sorted(chosen, key=lambda face: face.face_index))
            reason = self._explain(frame, known=len(faces), chosen=len(chosen))
            if reason:
                left_out.append(Rejected(frame.source, reason, frame.index))
        most = max((len(frame.faces) for frame in frames), default=0)
        return ClipCrops(
            tuple(kept),
            tuple(left_out),
            frames_read=len(frames),
            frames_with_face=sum(bool(frame.faces) for frame in frames),
            bystanders=max(most - 1, 0) if masked is None else 0,
        )

    def _explain(self, frame: CroppedFrame, *, known: int, chosen: int) -> str:
        """Return why the quarantine names a frame, "" where it does not.

        known: how many of its faces are of people who count. chosen: how many of these are kept.
        """
        outside = len(frame.faces) - known
        if not chosen and (not frame.reason or frame.reason.startswith(USED)):
            return f"its faces are {OUTSIDE_MASK}" if not known else "the clip's largest person is not in it"
        if chosen and outside and self._settings.faces == "all":
            remark = f"{outside} more left out: {OUTSIDE_MASK}"
            return f"{frame.reason}; {remark}" if frame.reason else f"{USED}{remark}"
        return frame.reason


def _list_people(tracks: Sequence[NDArray[np.int64]]) -> list[int]:
    return sorted({person for track in tracks for person in track.tolist()})


def _find_masked(tracks: Sequence[NDArray[np.int64]], masked: Sequence[NDArray[np.float64]]) -> list[int]:
    """Find the people whose boxes lie in the mask, ascending; frames without a mask (NaN) are not counted."""
    people, shares = np.concatenate(tracks), np.concatenate(masked)
    seen = np.isfinite(shares)
    means = {person: float(shares[seen & (people == person)].mean()) for person in np.unique(people[seen]).tolist()}
    least = max(LEAST_MASKED, 0.5 * max(means.values(), default=0.0))
    return [person for person, share in means.items() if share >= least]


def _measure_masked(mask: Path, count: int, frames: Sequence[CroppedFrame]) -> list[NDArray[np.float64]]:
    """Compute for each face of each frame the share of its box in the manipulated region.

    Args:
        mask: A video of the region.
        count: How many frames were chosen of the clip and are chosen of the mask.
        frames: The clip's frames.

    Returns:
        float64 (n,) of each frame; NaN where its mask has no region, no pixels or another size.

    Raises:
        UnreadableVideo: Where the mask gives no frames, others than the clip's, or no region in any frame with a face.
    """
    boxes = {frame.index: frame.faces for frame in frames}

    def measure(index: int, image: NDArray[np.uint8]) -> NDArray[np.float64] | None:
        faces = boxes.get(index, ())
        region = image.max(axis=2, keepdims=True) >= MASK_LEVEL
        if not region.any() or any(face.frame_size != image.shape[1::-1] for face in faces):
            return None
        return np.array([slice_box(region.astype(np.uint8), face.box_xyxy).mean() for face in faces], np.float64)

    video = sample_video(mask, count, measure)
    if video.indices != tuple(frame.index for frame in frames):
        raise UnreadableVideo(str(mask), f"has other frames than the clip ({video.frames})")
    found = [video.results.get(index) for index in video.indices]
    if not any(shares is not None and len(shares) for shares in found):
        raise UnreadableVideo(str(mask), "shows no region of the clip's size in the frames with a face")
    return [
        np.full(len(frame.faces), np.nan) if shares is None else shares
        for frame, shares in zip(frames, found, strict=True)
    ]


def _try_crop(source: str, index: int | None, make: Callable[[], tuple[list[FaceCrop], str]]) -> CroppedFrame:
    """Crop a frame; any exception that its bytes cause becomes the reason why it gives no crop."""
    try:
        faces, remark = make()
        return CroppedFrame(source, index, tuple(faces), remark)
    except UnreadableSample as error:
        return CroppedFrame(source, index, reason=_name_reason(Path(error.path), Path(source), error.reason))
    except (cv2.error, ValueError, ArithmeticError, MemoryError) as error:
        first = (str(error).strip().splitlines() or ["no more is known"])[0]
        return CroppedFrame(source, index, reason=f"cannot be cut ({type(error).__name__}: {first})")


def _name_reason(about: Path, source: Path, reason: str) -> str:
    """Return the reason, with the file that it is about where that is another one than the source."""
    return reason if about == source else f"{about}: {reason}"


def _find_absent(frame: FrameFiles) -> Path | None:
    """Return the first of the frame's files that is needed and is not there."""
    needed = (frame.picture, frame.landmarks, frame.boxes if frame.landmarks is not None else None)
    return next((path for path in needed if path is not None and not os.path.isfile(path)), None)


def load_networks() -> Networks:
    """Load YuNet and the mesh from weights/. Raises UserError when one is missing."""
    detector, mesh = load_face_models(
        min_side=0
    )  # too small a face is dropped later, where it can be distinguished from none
    hashes = [compute_sha256(locate(path))[:8] for path in (DETECTOR_FILE, MESH_FILE)]
    return Networks(detector, mesh, found_by=f"yunet 2023mar {hashes[0]}, face mesh 468 {hashes[1]}")
