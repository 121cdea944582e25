"""Who is who over the frames of a clip: number the people, keep the largest or all, and name every frame left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lib.modalities.faces.tracking import number_tracks
from lib.tasks.deepfake.layouts.clip import Rejected
from lib.tasks.deepfake.prepare.settings import CutClip, CutFace


@dataclass(frozen=True)
class LookedAt:
    """One frame: its faces, people's numbers still open, and what is to be said of it in the quarantine, if anything.

    index: its number in the video, None for a photo.
    """

    source: str
    index: int | None
    faces: tuple[CutFace, ...] = ()
    reason: str = ""


def sort_out(frames: Sequence[LookedAt], *, keep_all: bool, rejected: tuple[Rejected, ...] = ()) -> CutClip:
    """The clip: its faces by frame and then by person, 0 for the person whose boxes have the largest summed area.

    keep_all: every person's faces, else the largest person's. rejected: what else was left out.
    """
    numbers = number_tracks([np.array([face.box_xyxy for face in frame.faces]) for frame in frames])
    kept: list[CutFace] = []
    left_out = list(rejected)
    for frame, people in zip(frames, numbers, strict=True):
        faces = [replace(face, face_index=int(person)) for face, person in zip(frame.faces, people, strict=True)]
        chosen = sorted((face for face in faces if keep_all or face.face_index == 0), key=lambda face: face.face_index)
        kept.extend(chosen)
        reason = frame.reason or ("" if chosen else "the clip's largest person is not in it")
        if reason:
            left_out.append(Rejected(frame.source, reason, frame.index))
    return CutClip(
        faces=tuple(kept),
        rejected=tuple(left_out),
        frames_read=len(frames),
        frames_with_face=sum(bool(frame.faces) for frame in frames),
    )
