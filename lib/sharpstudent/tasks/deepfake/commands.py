"""The subcommands of the deepfake task: `prepare`, `swaps`, `check` of a prepared set, and `leaks`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from sharpstudent.config.cli import parse_command_line as parse_config
from sharpstudent.core.arguments import EXIT_CODES, Parser, add_option, fill, read_number, read_path
from sharpstudent.core.errors import UserError, format_count_of
from sharpstudent.registry import build_task, find_task
from sharpstudent.tasks.deepfake.options import OPTIONS
from sharpstudent.tasks.deepfake.prepare.command_line import FOUND, Inspection, parse_command_line
from sharpstudent.tasks.deepfake.swaps.people import ALL, BLENDINGS, CHOICES, SwapRequest

PURPOSE = """Turn real photos of people into classical face swaps, for evaluation: warp, colours, Poisson blending.

python make_swaps.py PEOPLE DEST        PEOPLE: ROOT/PERSON/*.jpg, or a CSV file with path,person[,split]

DEST gets real/ and fake/ (face crops, one folder a person) and swaps.csv. The same command resumes where it stopped."""

LEAKS = """Can trivial statistics, such as sharpness, noise or the size as a JPEG file, tell fakes from real faces? A
boosted tree tries it on what training sees, on people whom it has not seen. What it can use, a network learns, too.

exit codes: 0, or 1 where something outside the blend gives fakes away; 2 for what must be changed first"""


def prepare(words: Sequence[str]) -> None:
    """Prepare face crops with a manifest from videos and photos, and check or describe such a set."""
    command = parse_command_line(words)

    # OpenCV and Arrow are imported only now: a mistake in the command line costs no seconds.
    from sharpstudent.report.console import build_console, print_line

    console = build_console()
    say = partial(print_line, console)
    if not isinstance(command, Inspection):
        from sharpstudent.tasks.deepfake.prepare.run import run_preparation

        run_preparation(command, console)
        return
    if command.what == "describe":
        from sharpstudent.tasks.deepfake.prepare.describe import run_describe

        run_describe(command.manifest, say=say)
        return
    from sharpstudent.tasks.deepfake.prepare.check import run_check

    if not run_check(command.manifest, say=say, full=command.full):
        sys.exit(FOUND)


def check(words: Sequence[str]) -> None:
    """Look for leaks and duplicates in a prepared set."""
    prepare(["check", *words])


def leaks(words: Sequence[str]) -> None:
    """Can trivial statistics tell a config's fakes from its real faces?"""
    parser = Parser("sharpstudent leaks", LEAKS)
    add = parser.add_argument
    add("config", metavar="CONFIG", help="a config of the deepfake task")
    text = "change a key of CONFIG (repeatable)"
    add("--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[], help=text)
    text = "pairs of a real face and its fake that are drawn (%(default)s)"
    add("--pairs", metavar="N", type=read_number(int, 20, 100_000), default=320, help=text)
    read = parser.read(words)
    changes = [word for change in read.overrides for word in ("--set", change)]
    command = parse_config([read.config, *changes, "--print-config"], stage=1, find_task=find_task)

    from sharpstudent.report.console import build_console, print_line
    from sharpstudent.tasks.deepfake.leak_probe import measure_pairs, probe_leak
    from sharpstudent.tasks.deepfake.samples import FaceSamples
    from sharpstudent.tasks.deepfake.task import DeepfakeTask

    task, say = build_task(command.config, command.task), partial(print_line, build_console())
    if not isinstance(task, DeepfakeTask):
        got = command.config.task
        raise UserError.about(read.config, "is not of the deepfake task", got=got, remedy="name a config of faces")
    (samples,) = task.open_data("train")
    assert isinstance(samples, FaceSamples)
    for note in samples.notes:
        say(note)
    found = probe_leak(measure_pairs(samples, read.pairs, command.config.seed, say))
    for line in found.describe():
        say(line)
    if found.has_leak:
        sys.exit(FOUND)


def swaps(words: Sequence[str]) -> None:
    """Turn real photos of people into classical face swaps, for evaluation."""
    request = parse_swaps(words)

    # After the arguments are checked, because these imports cost a second.
    from sharpstudent.report.console import build_console, print_line
    from sharpstudent.tasks.deepfake.swaps.run import run_swaps

    say = partial(print_line, build_console())
    counts = run_swaps(request, say)
    fakes, faces = format_count_of(counts.fake, "fake"), format_count_of(counts.real, "real face")
    say(f"{fakes} of {faces} of {format_count_of(counts.people, 'person')} in {request.dest}")
    if counts.left_out:
        say(
            f"left out: {format_count_of(counts.left_out, 'photo')}, with the reason in {request.dest / 'left_out.csv'}"
        )


def parse_swaps(argv: Sequence[str]) -> SwapRequest:
    """Read the arguments of make_swaps.py (without the program's name). Raises UserError; `--help` exits 0."""
    examples = ["make_swaps.py people data/swaps", "make_swaps.py people.csv data/swaps --split test --picture jpg"]
    parser = Parser("make_swaps.py", PURPOSE, more=EXIT_CODES, examples=examples)
    add, seed = parser.add_argument, read_number(int, 0, 2**32 - 1)
    add("people", metavar="PEOPLE", type=read_path, help="folder or CSV file of real photos by person")
    add("dest", metavar="DEST", type=read_path, help="a new folder, or one that this command has begun")
    text = "fakes for each real face (%(default)s)"
    add("--per-face", metavar="N", type=read_number(int, 1, 100), default=1, help=text)
    text = "draws the partners among the nearest people (%(default)s)"
    add("--seed", metavar="N", type=seed, default=0, help=text)
    add("--split", choices=CHOICES, default=ALL, help="swap these people only (%(default)s)")
    text = "side of the pictures in pixels (%(default)s)"
    add_option(parser, OPTIONS, "--image-size", type=read_number(int, 32, 2048), help=text)
    add_option(parser, OPTIONS, "--picture", help="jpg has quality 95 (%(default)s)")
    text = (
        "how a face is blended in; hard leaves its edge as it is, multiband blends each frequency band over a width of "
        "its own, affine is no swap: another face is moved into place as a whole and blended as a self-blend is "
        "(%(default)s)"
    )
    add("--blending", choices=BLENDINGS, default=BLENDINGS[0], help=text)
    group = parser.add_argument_group("people without a split of their own, as data_source photos holds them out")
    share = read_number(float, 0, 1, above=True, below=True)
    add_option(group, OPTIONS, "--validation-share", type=share, help="share of the people (%(default)s)")
    add_option(group, OPTIONS, "--split-seed", help="who they are (%(default)s)")
    return fill(SwapRequest, parser.read(argv))
