"""A process that crops clips: a JSON line {"kind": ..., "file": ..., "landmarks": ...} a clip in, a line out.

A hang or a crash inside a decoder ends this process and not the test.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[3]), str(HERE.parent)]

from block_clips import build_cropper
from sharpstudent.core.errors import UserError
from sharpstudent.tasks.deepfake.layouts.clip import FrameFiles, RawClip
from sharpstudent.tasks.deepfake.prepare.crop_clip import ClipCropper
from sharpstudent.tasks.deepfake.prepare.settings import CropSettings
from sharpstudent.tasks.deepfake.sources.face_crops import check_model_files


def main() -> None:
    output = os.fdopen(os.dup(1), "w")
    settings = CropSettings(frames=8, faces="all")
    cropper = build_cropper(settings)
    with contextlib.suppress(UserError):  # without the model files, BlockDetector looks for faces
        check_model_files()
        cropper = ClipCropper(settings)
    for line in sys.stdin:
        job = json.loads(line)
        file = Path(job["file"])
        if job["kind"] == "frames":
            frames = (FrameFiles(0, file, Path(job["landmarks"])),)
            clip = RawClip("a", "frames", 0, ("ann",), frames=frames)
        else:
            clip = RawClip("a", job["kind"], 0, ("ann",), file=file)
        clip_crops = cropper.crop(clip)
        result = {
            "faces": len(clip_crops.faces),
            "rejected": [one.reason for one in clip_crops.rejected],
            "read": clip_crops.frames_read,
        }
        print(json.dumps(result), file=output, flush=True)


if __name__ == "__main__":
    main()
