"""Finds the clips of FaceForensics++ as users of self-blended images have prepared it.

    ROOT/original_sequences/youtube/{raw,c23,c40}/frames/VIDEO/IDX.png      whole frames
                                                 /landmarks/VIDEO/IDX.npy  (faces, 81, 2), dlib order
                                                 /retina/VIDEO/IDX.npy     (faces, 7, 2): two box corners, five points
    ROOT/{train,val,test}.json                                             lists of pairs of video numbers

The given landmarks and boxes are used. A video belongs to a number by its first three characters.
"""

from __future__ import annotations

from pathlib import Path

from sharpstudent.tasks.deepfake.layouts.clip import ClipCollector, Found, FrameFiles, RawClip
from sharpstudent.tasks.deepfake.layouts.ffpp import COMPRESSIONS, SOURCE_SET, OfficialPairs
from sharpstudent.tasks.deepfake.layouts.listing import Reject, read_folder, read_names
from sharpstudent.tasks.deepfake.layouts.names import build_key, number_frames

FAMILY = ("original_sequences", "youtube")
KINDS = ("frames", "landmarks", "retina")


def recognise(root: Path) -> bool:
    """Return whether frames, landmarks and boxes of one compression are there."""
    return any(
        all(root.joinpath(*FAMILY, compression, kind).is_dir() for kind in KINDS) for compression in COMPRESSIONS
    )


def find(root: Path, label: int | None) -> Found:
    """Find the videos of which at least one frame has both arrays. All are real.

    Args:
        root: The data set's folder.
        label: Not used: everything is real.

    Returns:
        The clips, what was rejected, and notes for the user.

    Raises:
        UserError: If an official list cannot be read.
    """
    collector = ClipCollector(root, SOURCE_SET)
    pairs = OfficialPairs(root, collector)
    for compression in COMPRESSIONS:
        base = root.joinpath(*FAMILY, compression)
        for video in read_folder(base / "frames").folders:
            frames = find_frames(base, video, collector.reject)
            collector.know(base / "landmarks" / video, base / "retina" / video)  # those without a frame are counted
            if frames:
                collector.add(
                    RawClip(
                        key=build_key((*FAMILY, compression, "frames", video)),
                        kind="frames",
                        label=0,
                        identities=(video[:3],),
                        frames=frames,
                        split=pairs.find((video[:3],)),
                        source_set=SOURCE_SET,
                        compression=compression,
                    )
                )
    return collector.close()


def find_frames(base: Path, video: str, reject: Reject) -> tuple[FrameFiles, ...]:
    """Find the frames of a video that have both arrays.

    Args:
        base: The folder that holds frames/, landmarks/ and retina/.
        video: The video's folder in each of them.
        reject: Takes the folder and how many frames lack what, once a video.

    Returns:
        The frames in the order of their file names.
    """
    pictures, landmarks, boxes = (base / kind / video for kind in KINDS)
    stems = [name[:-4] for name in read_folder(pictures).files if name.endswith(".png")]
    with_landmarks, with_boxes = read_names(landmarks), read_names(boxes)
    lacking = {
        "landmarks": sum(f"{stem}.npy" not in with_landmarks for stem in stems),
        "retina": sum(f"{stem}.npy" not in with_boxes for stem in stems),
    }
    usable = [stem for stem in stems if f"{stem}.npy" in with_landmarks and f"{stem}.npy" in with_boxes]
    if len(usable) < len(stems) or not stems:
        counts = ", ".join(f"{number} lack {kind}" for kind, number in lacking.items() if number)
        reject(
            str(pictures),
            f"{len(stems) - len(usable)} of {len(stems)} frames left out: {counts}" if stems else "holds no .png",
        )
    return tuple(
        FrameFiles(index, pictures / f"{stem}.png", landmarks / f"{stem}.npy", boxes / f"{stem}.npy")
        for index, stem in zip(number_frames(usable), usable, strict=True)
    )
