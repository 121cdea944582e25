"""A process that cuts what it is told, one line a clip: {"kind": ..., "file": ..., "landmarks": ...} in, a line out.

A hang or a crash inside a decoder ends this process and not the test.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

from block_clips import build_cutter
from sharpstudent.core.errors import UserError
from sharpstudent.tasks.deepfake.layouts.clip import FrameFiles, RawClip
from sharpstudent.tasks.deepfake.prepare.cut import ClipCutter
from sharpstudent.tasks.deepfake.prepare.settings import CutSettings
from sharpstudent.tasks.deepfake.sources.face_crops import check_model_files


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    settings = CutSettings(frames=8, faces="all")
    cutter = build_cutter(settings)
    with contextlib.suppress(UserError):  # without the model files the stand-ins look for faces
        check_model_files()
        cutter = ClipCutter(settings)
    for line in sys.stdin:
        job = json.loads(line)
        file = Path(job["file"])
        if job["kind"] == "frames":
            frames = (FrameFiles(0, file, Path(job["landmarks"])),)
            clip = RawClip("a", "frames", 0, ("ann",), frames=frames)
        else:
            clip = RawClip("a", job["kind"], 0, ("ann",), file=file)
        cut = cutter.cut(clip)
        told = {"faces": len(cut.faces), "rejected": [item.reason for item in cut.rejected], "read": cut.frames_read}
        print(json.dumps(told), file=answers, flush=True)


if __name__ == "__main__":
    main()
