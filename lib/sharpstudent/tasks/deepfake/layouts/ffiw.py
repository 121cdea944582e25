"""Finds the clips of Face Forensics in the Wild (FFIW10K).

    ROOT/source/{train,val,test}/*.mp4      real
    ROOT/target/{train,val,test}/*.mp4      fake; the same name is the same scene
    ROOT/target_mask/...                    not read

ROOT may also be the folder above (it holds FFIW10K-v1-release and the like), and the videos may lie in a folder videos/
below each part. This layout follows documentation only: source, target and target_mask with train and val are from the
authors' README; test (a second download) and the pairing by name are from public code that reads it.
"""

from __future__ import annotations

from pathlib import Path

from sharpstudent.tasks.deepfake.layouts.clip import SPLITS, ClipCollector, Found
from sharpstudent.tasks.deepfake.layouts.listing import read_folder

SOURCE_SET = "FFIW10K"
BRANCHES = {"source": 0, "target": 1}


def recognise(root: Path) -> bool:
    """Return whether both branches have a split."""
    return any(
        all(any((base / branch / part).is_dir() for part in SPLITS) for branch in BRANCHES)
        for base in _list_bases(root)
    )


def find(root: Path, label: int | None) -> Found:
    """Find all videos of both branches.

    Who is seen in them is not known, but real and fake of one name belong together.

    Args:
        root: The data set's folder, or the one above it.
        label: Not used: the folders give the labels.

    Returns:
        The clips, what was rejected, and notes for the user.
    """
    collector = ClipCollector(root, SOURCE_SET)
    for base in _list_bases(root):
        collector.know(base / "target_mask")
        for branch, fake in BRANCHES.items():
            for part in SPLITS:
                folder, manipulation = base / branch / part, SOURCE_SET if fake else ""
                for file in collector.list_videos(folder, folder / "videos"):
                    people = (f"{part}/{file.stem}",)
                    collector.add_file(file, label=fake, people=people, split=part, manipulation=manipulation)
    return collector.close()


def _list_bases(root: Path) -> list[Path]:
    return [root, *(root / name for name in read_folder(root).folders if name.upper().startswith("FFIW"))]
