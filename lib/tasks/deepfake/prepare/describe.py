"""`prepare_faces.py describe`: what is in a prepared set, as tables and as a picture beside its manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from lib.tasks.deepfake.prepare.check_columns import open_faces
from lib.tasks.deepfake.prepare.describe_picture import draw_set
from lib.tasks.deepfake.prepare.describe_sheet import build_sheet
from lib.tasks.deepfake.prepare.describe_tables import show_manipulations, show_quality, show_sizes, show_splits

PICTURE = "describe.png"


def run_describe(manifest_path: Path, *, say: Callable[[str], None]) -> Path:
    """Say what is in a set and draw describe.png beside the manifest; returns its path.

    manifest_path: the file, or the folder that holds it. Faces that cannot be read are empty tiles, counted by their
    reason. Raises UserError where there is no usable manifest, or the picture cannot be written.
    """
    faces = open_faces(manifest_path)
    say(f"{faces.manifest.path}: {len(faces):,} faces")
    for show in (show_splits, show_manipulations, show_sizes, show_quality):
        say(show(faces))
    sheet = build_sheet(faces)
    path = faces.manifest.folder / PICTURE
    draw_set(path, faces, sheet)
    tiles = [tile for part in sheet for tile in part.tiles]
    for reason, count in Counter(tile.reason for tile in tiles if tile.picture is None).most_common():
        say(f"{count:,} of the {len(tiles):,} faces drawn cannot be read: {reason}")
    say(f"drawn: {path}")
    return path
