"""Finds the faces of FaceForensics++ as users of self-blended images have it on disk.

    ROOT/original_sequences/youtube/{raw|c23|c40}/frames/VIDEO/IDX.png      whole frames
                                                 /landmarks/VIDEO/IDX.npy  (faces, 81, 2) integers, dlib order
                                                 /retina/VIDEO/IDX.npy     (faces, 7, 2): two box corners, five points
    ROOT/{train,val}.json                                                  lists of pairs of video numbers

Faces are sorted by area, the largest first. The test split is never opened.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from sharpstudent.core.arguments import advise_make
from sharpstudent.core.errors import Problem, UserError, format_count_of
from sharpstudent.core.naming import name_file
from sharpstudent.modalities.faces.video import choose_frames
from sharpstudent.tasks.deepfake.layouts.clip import FrameFiles
from sharpstudent.tasks.deepfake.layouts.ffpp import read_video_numbers
from sharpstudent.tasks.deepfake.layouts.ffpp_sbi import find_frames
from sharpstudent.tasks.deepfake.sources.face import (
    Face,
    FaceSplits,
    LoadedFace,
    check_disjoint,
    read_boxes,
    read_landmarks,
    read_picture,
)

SPLIT_FILES = {"train": "train.json", "validation": "val.json"}
KINDS = {
    "frames": "the real videos' frames, IDX.png",
    "landmarks": "81 facial landmarks a face, IDX.npy",
    "retina": "detector boxes and points, IDX.npy",
}
REMEDY = (
    "get FaceForensics++ from its authors (they grant access on request), extract frames and landmarks in the layout "
    "of docs/data.md, and set data_root and compression"
)


def find_faces(root: Path, *, compression: str, frames_per_clip: int, allow_shared: bool = False) -> FaceSplits:
    """Find the usable frames of both splits, evenly spread over each clip.

    Args:
        root: The data set's folder.
        compression: "raw", "c23" or "c40".
        frames_per_clip: The most frames that are taken of a clip.
        allow_shared: Permit videos that are in both splits.

    Returns:
        The faces, all real.

    Raises:
        UserError: If paths are missing (the message names every one), a list is broken, a split has no usable frame, or
            a video is in both splits.
    """
    base = root / "original_sequences" / "youtube" / compression
    _check_layout(root, base)
    videos = {split: frozenset(read_video_numbers(root / file_name)) for split, file_name in SPLIT_FILES.items()}
    if not allow_shared:
        check_disjoint(root, *videos.values())
    splits: dict[str, tuple[Face, ...]] = {}
    notes: list[str] = []
    for split, file_name in SPLIT_FILES.items():
        clips = [folder for folder in sorted((base / "frames").iterdir()) if folder.name[:3] in videos[split]]
        faces = [face for clip in clips for face in _find_in_clip(root, base, clip.name, frames_per_clip)]
        if not faces:
            raise UserError(_explain_empty(base, root / file_name, videos[split]))
        splits[split] = tuple(faces)
        clips_told = format_count_of(len({face.clip_id for face in faces}), "clip")
        notes.append(f"{split}: {format_count_of(len(faces), 'frame')} of {clips_told} ({compression})")
    return FaceSplits(splits["train"], splits["validation"], tuple(notes))


def _check_layout(root: Path, base: Path) -> None:
    wanted = {base / kind: meaning for kind, meaning in KINDS.items()}
    wanted |= {root / name: f"the official {split} split, a list of video pairs" for split, name in SPLIT_FILES.items()}
    missing = [f"{path} ({meaning})" for path, meaning in wanted.items() if not path.exists()]
    if missing:
        raise UserError.about(
            where=f"data_root = {str(root)!r}",
            what=f"lacks {len(missing)} of the {len(wanted)} paths that data_source ffpp reads",
            got="\n".join(("missing:", *missing)),
            remedy=f"{REMEDY}; `{advise_make('demo')}` runs on portraits without it",
        )


def _find_in_clip(root: Path, base: Path, clip: str, frames_per_clip: int) -> list[Face]:
    """Find frames that have both landmark files, then take `frames_per_clip` of them, evenly spread."""
    usable = find_frames(base, clip, lambda source, reason: None)
    chosen = [usable[i] for i in choose_frames(len(usable), frames_per_clip)]
    return [
        Face(name_file(frame.picture, root), clip, clip[:3], label=0, load=partial(_load, frame)) for frame in chosen
    ]


def _load(frame: FrameFiles) -> LoadedFace:
    assert frame.landmarks is not None
    assert frame.boxes is not None
    image = read_picture(frame.picture)
    return LoadedFace(image, read_landmarks(frame.landmarks, image)[0], read_boxes(frame.boxes))


def _explain_empty(base: Path, split_file: Path, numbers: frozenset[str]) -> Problem:
    clips = sorted(path.name for path in (base / "frames").iterdir())
    return Problem(
        where=str(base),
        what=f"has no usable frame of the {len(numbers)} videos in {split_file.name}",
        expected="frames/VIDEO/IDX.png with landmarks/VIDEO/IDX.npy and retina/VIDEO/IDX.npy",
        got=f"{len(clips)} folders under frames/: {', '.join(clips[:5])}{', ...' if len(clips) > 5 else ''}",
        remedy="check that the three folders hold the same videos and frame numbers",
    )
