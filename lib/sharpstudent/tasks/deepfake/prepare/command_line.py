"""The command line of prepare_faces.py. Every mistake is a `UserError` with a remedy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sharpstudent.core.arguments import SHARED, Parser, add_option, fill, read_number, read_path
from sharpstudent.core.errors import UserError
from sharpstudent.core.storage import read_place
from sharpstudent.tasks.deepfake.options import OPTIONS, read_label
from sharpstudent.tasks.deepfake.prepare.settings import CropSettings, Request

SCRIPT = "prepare_faces.py"
MOST_WORKERS = 1024
FOUND = 1  # exit code of `check` when it finds a fault
USAGE = f"""python {SCRIPT} SOURCE DEST [options]
       python {SCRIPT} check MANIFEST [--full]
       python {SCRIPT} describe MANIFEST"""
PURPOSE = """Cut the faces out of what you have on disk: photos, videos or a data set. DEST gets the crops and the
manifest.arrow that training reads (data_source: manifest). Killed or stopped at any instant, the same command goes on
where it was; the result is the same to the last byte for any number of workers and interruptions.

  check MANIFEST     look for people, clips, equal and nearly equal pictures in two splits or under two labels
  describe MANIFEST  print what is in a set, and draw a contact sheet
  (a SOURCE that is really called check: ./check)"""
MORE = """what is refused, and what is allowed:
  other --layout, --frames, --faces, --image-size, --min-face or --picture for a DEST that holds crops is refused, as is
  a SOURCE that lost finished clips: choose another DEST, or permit it with --overwrite. Other shares, seed, --label or
  --shards write the manifest anew; clips that are new or changed in SOURCE are cropped, the others are kept.
  SOURCE, DEST or both may lie in a storage, such as s3://BUCKET/FOLDER (extra s3) or gs://... (extra gs): see
  docs/scale.md. Such a DEST needs --shards.
  A clip in which a decoder crashes or hangs costs its worker process, goes to quarantine.csv with the reason and is
  not tried again, so that each repetition gives the same set: --retry tries such clips once more, and a longer
  --clip-timeout those that took too long.

exit codes:
  0         the set is finished; check: nothing was found
  1         check found something
  2         something must be changed first: the command, the data, the disk; what is finished is kept
  130, 143  interrupted by Ctrl-C or SIGTERM; the same command continues"""
EXAMPLES = (
    f"{SCRIPT} ~/FaceForensics++ data/ffpp --shards",
    f"{SCRIPT} my_videos data/mine --frames 16 --label real",
    f"{SCRIPT} check data/mine",
)
INSPECTIONS = {
    "check": "Look for leaks and duplicates in a prepared set; exits 1 when it finds any.",
    "describe": "Print what is in a prepared set, and draw a contact sheet beside its manifest.",
}


@dataclass(frozen=True)
class Inspection:
    """The arguments of `check` and `describe`.

    Attributes:
        what: `check` or `describe`.
        manifest: The manifest of the set; a text is the address of a set in a storage.
        full: Whether `check` reads everything, however large the set is.
    """

    what: Literal["check", "describe"]
    manifest: Path | str
    full: bool = False


def parse_command_line(argv: Sequence[str]) -> Request | Inspection:
    """Read the arguments, without the program's name.

    Raises UserError for every mistake; `--help` exits with 0.
    """
    if argv and argv[0] in INSPECTIONS:
        return _parse_inspection(argv[0], argv[1:])
    read = _build_parser().read(argv)
    if read.validation_share + read.test_share >= 1:
        what = "and --test-share leave nothing to train on"
        got = f"{read.validation_share:g} and {read.test_share:g}"
        raise UserError.about("--validation-share", what, "a sum below 1", got, "lower them")
    workers = read.workers or (count_processors() if read.ray is None else MOST_WORKERS)
    stored = _read_addresses(read)
    return fill(Request, read, label=read_label(read), crop=fill(CropSettings, read), workers=workers, **stored)


def _read_addresses(read: Any) -> dict[str, Any]:
    """Return the fields of a request that tell paths from addresses. Raises UserError for what no storage takes."""
    found: dict[str, Any] = {}
    for name in ("source", "dest"):
        place: Path | str = getattr(read, name)
        if isinstance(place, str):
            found |= {f"stored_{name}": place, name: Path(place.rpartition("/")[2])}
    if "stored_dest" in found and not read.shards:
        what = "would get a file for each face, which a storage is slow and dear for"
        raise UserError.about(found["stored_dest"], what, remedy="add --shards")
    _check_apart(found.get("stored_source", ""), found.get("stored_dest", ""))
    if read.scratch is not None and not found:
        raise UserError.about("--scratch", "is for SOURCE or DEST in a storage", remedy="leave it out")
    return found


def _check_apart(source: str, dest: str) -> None:
    if source and dest and (f"{dest}/".startswith(f"{source}/") or f"{source}/".startswith(f"{dest}/")):
        what = "and SOURCE lie in each other: the files of the set would be found as those of a source"
        raise UserError.about(dest, what, got=f"SOURCE {source}", remedy="name an address beside it")


def _parse_inspection(what: Any, argv: Sequence[str]) -> Inspection:
    parser = Parser(f"{SCRIPT} {what}", INSPECTIONS[what], examples=[f"{SCRIPT} {what} data/mine"])
    text = "manifest.arrow, the folder it lies in, or the address of a set in a storage"
    parser.add_argument("manifest", metavar="MANIFEST", type=read_place, help=text)
    if what == "check":
        text = "read every crop and compare every near pair, also where a set has more than 20,000 faces"
        parser.add_argument("--full", action="store_true", help=text)
    read = parser.read(argv)
    path: Path | str = read.manifest
    if isinstance(path, Path) and path.is_dir():
        path = path / "manifest.arrow"
    return fill(Inspection, read, what=what, manifest=path)


def _build_parser() -> Parser:
    parser = Parser(SCRIPT, PURPOSE, usage=USAGE, more=MORE, examples=EXAMPLES)
    add, default = parser.add_argument, CropSettings()

    def add_shared(option: str, text: str, **changes: Any) -> None:
        add_option(parser, OPTIONS, option, help=_add_default(text), **changes)

    text = "folder of photos, videos or a data set, or a table (path,label,person,split); never written to"
    add("source", metavar="SOURCE", type=read_place, help=text)
    add("dest", metavar="DEST", type=read_place, help="folder for the set: new, empty, or made by this script")
    layouts = _list_layouts()
    add_option(
        parser,
        OPTIONS,
        "--layout",
        choices=layouts,
        help=f"layout of SOURCE: {', '.join(layouts)} (default: recognised)",
    )
    add_shared("--frames", "frames of each video, evenly spread", default=default.frames)
    text = "label of everything in SOURCE (default: by its folders or lists)"
    add_option(parser, OPTIONS, "--label", help=text)
    add_option(parser, OPTIONS, "--people")
    add(
        "--faces",
        choices=("largest", "all"),
        default=default.faces,
        help=_add_default("keep the largest person of a clip, or all"),
    )
    add_shared("--image-size", "side of the network's input, px", type=read_number(int, 16, 4096))
    add_shared("--min-face", "smaller faces are rejected")
    add_shared("--picture", "format of the stored crops")
    add("--shards", action="store_true", help="pack the crops into WebDataset shards of about 256 MB")
    number, text = (
        read_number(int, 1, MOST_WORKERS),
        "worker processes (default: one a processor, of the cluster with --ray)",
    )
    add_option(parser, SHARED, "--workers", type=number, help=text)
    add_option(parser, SHARED, "--ray")
    add_shared("--validation-share", "share of people held out where no list gives a split")
    number = read_number(float, 0, 1, below=True)
    add(
        "--test-share",
        metavar="X",
        type=number,
        default=0.0,
        help=_add_default("share of people kept for the test split"),
    )
    add_shared("--split-seed", "seed that draws those people")
    number = read_number(float, 0.1, 1e6)
    add("--clip-timeout", metavar="S", type=number, default=600.0, help=_add_default("time limit of a clip, seconds"))
    text = "folder for what is at hand of a SOURCE or DEST in a storage (default: in the user's cache)"
    add("--scratch", metavar="FOLDER", type=read_path, help=text)
    add("--overwrite", action="store_true", help="finished work in DEST may be replaced or removed, see below")
    add("--retry", action="store_true", help="try the clips again whose decoder crashed, failed or hung")
    return parser


def _add_default(text: str) -> str:
    return f"{text} (default: %(default)s)"


def _list_layouts() -> tuple[str, ...]:
    from sharpstudent.tasks.deepfake.layouts.registry import LAYOUTS

    return tuple(LAYOUTS)


def count_processors() -> int:
    """Count the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
