"""Finds the clips of Celeb-DF-v2.

    ROOT/Celeb-real/id0_0000.mp4              real: celebrity id0
    ROOT/YouTube-real/00170.mp4               real: people who are not named
    ROOT/Celeb-synthesis/id0_id1_0000.mp4     fake: the face of id1 on the video id0_0000
    ROOT/List_of_testing_videos.txt           lines such as `1 YouTube-real/00170.mp4`; there 1 means real

The videos may also lie in a folder videos/ below each of the three, as users of self-blended images have them. The
authors do not say which number of a fake is the target; public users' documentation (luffydod/deepfake_generation) says
target first. The label always follows from the folder.
"""

from __future__ import annotations

from pathlib import Path

from sharpstudent.core.errors import UserError
from sharpstudent.core.files import explain, read_text
from sharpstudent.tasks.deepfake.layouts.clip import ClipCollector, Found
from sharpstudent.tasks.deepfake.layouts.listing import (
    explain_broken,
    read_folder,
    split_name,
)
from sharpstudent.tasks.deepfake.layouts.names import parse_celebrities

SOURCE_SET = "Celeb-DF-v2"
SYNTHESIS = "Celeb-synthesis"
FOLDERS = {"celeb-real": 0, "youtube-real": 0, "celeb-synthesis": 1}
TEST_LIST = "List_of_testing_videos.txt"
LINE = "`1 YouTube-real/00170.mp4`"


def recognise(root: Path) -> bool:
    """Return whether the root has one of the data set's folders."""
    return (root / SYNTHESIS).is_dir() or (root / "Celeb-real").is_dir()


def find(root: Path, label: int | None) -> Found:
    """Find all videos of the three folders.

    Videos in the list are the official test set; the others have no split.

    Args:
        root: The data set's folder.
        label: Not used: the folders give the labels.

    Returns:
        The clips, what was rejected, and notes for the user.

    Raises:
        UserError: If the list of testing videos is no text.
    """
    collector = ClipCollector(root, SOURCE_SET)
    testing = _read_test_list(root / TEST_LIST, collector)
    collector.know(root / TEST_LIST)
    present: set[str] = set()
    for name in read_folder(root).folders:
        if name.lower() not in FOLDERS:
            continue
        fake = FOLDERS[name.lower()]
        for file in collector.list_videos(root / name, root / name / "videos"):
            people = parse_celebrities(file.stem)
            if people is None and name.lower() != "youtube-real":
                collector.note_unknown_people(str(root / name), "id0_0000 or id0_id1_0000")
            listed = f"{name.lower()}/{file.name}"
            present.add(listed)
            split = "test" if listed in testing else None
            collector.add_file(file, label=fake, people=people, split=split, manipulation=SYNTHESIS if fake else "")
    for listed in sorted(testing.keys() - present):
        collector.reject(testing[listed], "is in the list of testing videos, but the file is not there")
    return collector.close()


def _read_test_list(path: Path, collector: ClipCollector) -> dict[str, str]:
    """Read the test list: folder (lower case) and name of each video, and what to call it in a message."""
    if not path.exists():
        collector.note(f"{path} is missing: no video has an official split (the file comes with the data set)")
        return {}
    try:
        lines = read_text(path).splitlines()
    except (OSError, ValueError) as error:
        raise UserError(explain_broken(path, "text", explain(error), f"lines like {LINE}")) from None
    listed: dict[str, str] = {}
    contradicting = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        mark, _, name = line.strip().partition(" ")
        try:
            parts = split_name(name.strip())
        except ValueError as error:
            collector.reject(where, f"{line.strip()!r} {error}; it should look like {LINE}")
            continue
        if mark not in ("0", "1") or len(parts) != 2 or parts[0].lower() not in FOLDERS:
            collector.reject(where, f"{line.strip()!r} is not a line like {LINE}; mend it")
            continue
        contradicting += int(mark) == FOLDERS[parts[0].lower()]
        listed[f"{parts[0].lower()}/{parts[1]}"] = f"{where}: {'/'.join(parts)}"
    if contradicting:
        collector.note(f"{path}: the marks of {contradicting} lines contradict their folders; the folders decide")
    return listed
