"""The command line of prepare_faces.py; every mistake is a `UserError` with a remedy."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from sharpstudent.core.errors import UserError
from sharpstudent.tasks.deepfake.prepare.settings import CutSettings, Request

SCRIPT = "prepare_faces.py"
FOUND = 1  # exit code of `check` when it finds something
USAGE = f"""python {SCRIPT} SOURCE DEST [options]
       python {SCRIPT} check MANIFEST [--full]
       python {SCRIPT} describe MANIFEST"""
PURPOSE = """Cut the faces out of what you have on disk: photos, videos or a data set. DEST gets the crops and the
manifest.arrow that training reads (data_source: manifest). Killed or stopped at any instant, the same command goes on
where it was; the result is the same to the last byte for any number of workers and interruptions.

  check MANIFEST     look for people, clips, equal and nearly equal pictures in two splits or under two labels
  describe MANIFEST  print what is in a set, and draw a contact sheet
  (a SOURCE that is really called check: ./check)"""
EPILOG = f"""what is refused, and what is not:
  other --layout, --frames, --faces, --image-size, --min-face or --picture for a DEST that holds crops is refused, as is
  a SOURCE that lost finished clips: choose another DEST, or permit it with --overwrite. Other shares, seed, --label or
  --shards write the manifest anew; clips that are new or changed in SOURCE are cut, the others are kept.
  A clip in which a decoder crashes or hangs costs its worker process, goes to quarantine.csv with the reason and is
  not tried again, so that each repetition gives the same set: --retry tries such clips once more, and a longer
  --clip-timeout those that took too long.

exit codes:
  0         the set is finished; check: nothing was found
  1         check found something
  2         something must be mended first: the command, the data, the disk; what is finished is kept
  130, 143  interrupted by Ctrl-C or SIGTERM; the same command goes on

examples:
  python {SCRIPT} ~/FaceForensics++ data/ffpp --shards
  python {SCRIPT} my_videos data/mine --frames 16 --label real
  python {SCRIPT} check data/mine"""


@dataclass(frozen=True)
class Inspection:
    """`check` or `describe` of a manifest's file; full: `check` looks at everything, however large the set."""

    what: Literal["check", "describe"]
    manifest: Path
    full: bool = False


class _Parser(argparse.ArgumentParser):
    """Mistakes become a `UserError`, so that they look and exit like every other mistake."""

    def error(self, message: str) -> NoReturn:
        raise UserError.about("command line", message, remedy=f"python {SCRIPT} --help")


def parse_command_line(argv: Sequence[str]) -> Request | Inspection:
    """Read the arguments (without the program's name). Raises UserError; `--help` exits 0."""
    if argv and argv[0] in ("check", "describe"):
        return _parse_inspection(argv)
    read = _build_parser().parse_args(list(argv))
    if read.validation_share + read.test_share >= 1:
        what = "and --test-share leave nothing to train on"
        got = f"{read.validation_share:g} and {read.test_share:g}"
        raise UserError.about("--validation-share", what, expected="a sum below 1", got=got, remedy="lower them")
    cut = CutSettings(read.frames, read.faces, read.image_size, read.min_face, read.picture)
    return Request(
        source=read.source,
        dest=read.dest,
        layout=read.layout,
        label=None if read.label is None else ("real", "fake").index(read.label),
        cut=cut,
        shards=read.shards,
        workers=read.workers,
        validation_share=read.validation_share,
        test_share=read.test_share,
        split_seed=read.split_seed,
        clip_timeout=read.clip_timeout,
        overwrite=read.overwrite,
        retry=read.retry,
    )


def _parse_inspection(argv: Sequence[str]) -> Inspection:
    what: Literal["check", "describe"] = "check" if argv[0] == "check" else "describe"
    purpose = {
        "check": "Look for leaks and duplicates in a prepared set; exits 1 when it finds any.",
        "describe": "Print what is in a prepared set, and draw a contact sheet beside its manifest.",
    }
    parser = _Parser(prog=f"{SCRIPT} {what}", description=purpose[what], allow_abbrev=False)
    parser.add_argument("manifest", metavar="MANIFEST", type=Path, help="manifest.arrow, or the folder it lies in")
    if what == "check":
        text = "read every crop and compare every near pair, of sets of more than 20,000 faces too"
        parser.add_argument("--full", action="store_true", help=text)
    read = parser.parse_args(list(argv[1:]))
    path: Path = read.manifest
    return Inspection(what, path / "manifest.arrow" if path.is_dir() else path, getattr(read, "full", False))


def _build_parser() -> _Parser:
    parser = _Parser(
        prog=SCRIPT,
        usage=USAGE,
        description=PURPOSE,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    default = CutSettings()
    share, size = _number(float, 0, 1, below=True), _number(int, 16, 4096)
    add("source", metavar="SOURCE", type=Path, help="folder of photos, videos or a data set; never written to")
    add("dest", metavar="DEST", type=Path, help="folder for the set: new, empty, or made by this script")
    add("--layout", metavar="NAME", choices=_list_layouts(), help=f"form of SOURCE: {', '.join(_list_layouts())}")
    add("--frames", metavar="N", type=_number(int, 1, 100_000), default=default.frames, help=_say("a video, evenly"))
    add("--label", choices=("real", "fake"), help="of everything in SOURCE (default: what its folders or lists say)")
    add("--faces", choices=("largest", "all"), default=default.faces, help=_say("of the largest person of a clip"))
    add("--image-size", metavar="PX", type=size, default=default.image_size, help=_say("the network's input"))
    add("--min-face", metavar="PX", type=size, default=default.min_face, help=_say("smaller faces are rejected"))
    add("--picture", choices=("png", "jpg"), default=default.picture, help=_say("how crops are stored"))
    add("--shards", action="store_true", help="pack the crops into WebDataset shards of about 256 MB")
    processors = count_processors()
    add("--workers", metavar="N", type=_number(int, 1, 1024), default=processors, help=_say("processes"))
    add("--validation-share", metavar="X", type=share, default=0.2, help=_say("people held out where no list says"))
    add("--test-share", metavar="X", type=share, default=0.0, help=_say("people kept for the test"))
    add("--split-seed", metavar="N", type=_number(int, 0, 2**32 - 1), default=0, help=_say("draws those people"))
    seconds = _number(float, 0.1, 1e6)
    add("--clip-timeout", metavar="S", type=seconds, default=600.0, help=_say("a clip may take, in seconds"))
    add("--overwrite", action="store_true", help="finished work in DEST may be replaced or removed, see below")
    add("--retry", action="store_true", help="try the clips again whose decoder crashed, failed or hung")
    return parser


def _say(text: str) -> str:
    return f"{text} (default: %(default)s)"


def _list_layouts() -> tuple[str, ...]:
    from sharpstudent.tasks.deepfake.layouts.registry import LAYOUTS

    return tuple(LAYOUTS)


def count_processors() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _number(kind: Callable[[str], float], low: float, high: float, *, below: bool = False) -> Callable[[str], float]:
    """A reader of numbers from `low` to `high`; below: `high` itself is too high."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (low <= value < high or (value == high and not below)):
            noun = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(
                f"{text!r} is not {noun} from {low:g} to {'below ' if below else ''}{high:g}"
            )
        return value

    return read
