"""The options of the training scripts as argparse reads them; every mistake is a `UserError` with a remedy."""

from __future__ import annotations

import argparse
import difflib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from lib.config.keys import FileKeys
from lib.config.sections import ALLOWANCES, SCRIPTS, Stage, TaskSection
from lib.config.stored import AUTO
from lib.errors import Problem, UserError

PURPOSE: dict[Stage, str] = {
    1: "Stage 1: train a model on hard labels, with SAM. Makes the student's starting point, or a teacher.",
    2: "Stage 2: distil a frozen teacher into the student of stage 1, with SAM.",
}
EXAMPLE: dict[Stage, str] = {
    1: "python train_student_only.py configs/config_SBI.json -n pretrain_mobilevit",
    2: "python main_distillation.py configs/config_SBI.json -n distill_mobilevit",
}
EXIT_CODES = """exit codes:
  0         the run is complete
  2         something must be mended first: the command, the config, the data, the weights, the disk; mostly nothing was
            trained yet, and what a run had saved is intact
  3         training stopped itself (non-finite steps in a row, or a non-finite score); the last good state is saved
  130, 143  interrupted by Ctrl-C or SIGTERM; the state is saved and --resume goes on from it
  141       nobody reads the output any more, as in `... | head`; what a run had saved is intact

relaunched by a scheduler: the same command each time, with --resume auto. It goes on with its own run (the newest of
this -n, CONFIG and stage under output_root whose config does not differ), starts one where there is none, and exits 0
when the run is complete. Whatever a kill leaves, no run is trained by two processes."""


@dataclass(frozen=True)
class Options:
    """The command line, word by word."""

    config_path: Path | None
    name: str | None
    overrides: tuple[str, ...]
    allow: tuple[str, ...]
    resume: str | None
    replay: Path | None
    print_config: bool
    dry_run: bool
    list_layers: bool = False


class _Parser(argparse.ArgumentParser):
    """Mistakes become a `UserError`, so that they look and exit like every other mistake."""

    def error(self, message: str) -> NoReturn:
        raise UserError(Problem("command line", message, remedy=f"python {self.prog} --help"))


def parse_options(argv: Sequence[str], stage: Stage, sections: Mapping[str, type[TaskSection]]) -> Options:
    """The options of one script; `sections` supply the keys that a user may have meant by an unknown option."""
    parser = _build_parser(stage)
    read, rest = parser.parse_known_args(list(argv))
    if rest:
        known_keys = [name for model in (FileKeys, *sections.values()) for name in model.model_fields]
        raise UserError(*(_explain_unknown(word, parser, known_keys) for word in _pick_unknown(rest)))
    options = Options(
        config_path=None if read.config is None else Path(read.config),
        name=read.name,
        overrides=tuple(read.overrides),
        allow=tuple(read.allow),
        resume=read.resume,
        replay=None if read.replay is None else Path(read.replay),
        print_config=read.print_config,
        dry_run=read.dry_run,
        list_layers=read.list_layers,
    )
    if options.replay is not None:
        _refuse_beside_replay(options, options.replay, stage)
        return options
    if options.resume == AUTO:
        _refuse_half_an_auto(options, stage)
    if options.name is None and not (
        options.print_config or options.list_layers or options.dry_run or options.resume is not None
    ):
        raise UserError(Problem("-n/--name", "is missing: the run needs a name", remedy=EXAMPLE[stage]))
    return options


def _refuse_beside_replay(options: Options, file: Path, stage: Stage) -> None:
    """A replay takes everything from the run that kept the step; `--set` may move it to another device."""
    asked = {
        "CONFIG": options.config_path,
        "-n/--name": options.name,
        "--resume": options.resume,
        "--allow": options.allow or None,
        "--print-config": options.print_config or None,
        "--dry-run": options.dry_run or None,
        "--list-layers": options.list_layers or None,
    }
    given = [word for word, value in asked.items() if value is not None]
    if given:
        raise UserError(
            Problem(
                "--replay",
                f"cannot be combined with {', '.join(given)}: the run that kept the step says everything",
                remedy=f"python {SCRIPTS[stage]} --replay {shlex.quote(str(file))}",
            )
        )


def _refuse_half_an_auto(options: Options, stage: Stage) -> None:
    """`--resume auto` must know what a new run would be, and which runs could be its own."""
    missing = [word for word, value in (("CONFIG", options.config_path), ("-n/--name", options.name)) if value is None]
    if missing:
        raise UserError(
            Problem(
                "--resume auto",
                f"needs {' and '.join(missing)}: they tell which run is meant, or what a new one is",
                remedy=f"{EXAMPLE[stage]} --resume auto; or --resume RUN for a run that you name yourself",
            )
        )


def _build_parser(stage: Stage) -> _Parser:
    allowances = "\n".join(f"  {name:<21} {meaning}" for name, meaning in ALLOWANCES.items())
    parser = _Parser(
        prog=SCRIPTS[stage],
        description=PURPOSE[stage],
        epilog=f"names for --allow:\n{allowances}\n\n{EXIT_CODES}\n\nexample:\n  {EXAMPLE[stage]}\n\n"
        "every key of CONFIG is explained in docs/config.md",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("config", metavar="CONFIG", nargs="?", help="JSON file with comments; one file serves both stages")
    add("-n", "--name", help="name of the run; its folder is OUTPUT_ROOT/NAME_CONFIG_mm_dd_HH_MM_SS")
    add(
        "--set",
        dest="overrides",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="change a key of CONFIG, for example --set lr=0.0001 --set stage1.epoch=3 (repeatable)",
    )
    add("--print-config", action="store_true", help="print the resolved config and the weights by epoch; open nothing")
    add(
        "--list-layers",
        action="store_true",
        help="print the layers of the models by name, with the shapes of their outputs; needs no data and no weights",
    )
    add("--dry-run", action="store_true", help="take one batch through everything, then stop")
    add(
        "--resume",
        metavar="RUN",
        help="continue a run: its folder, its name, or a beginning that fits one; `auto`: the newest run of this "
        "CONFIG and NAME, or a new one where there is none (a folder named auto is ./auto)",
    )
    add(
        "--replay",
        metavar="FILE",
        help="take a skipped step again, output/RUN/skipped/epoch_E_step_S.pth, and say where its values stop being "
        "finite; needs no data and writes nothing",
    )
    add(
        "--allow",
        metavar="NAME",
        action="append",
        default=[],
        help="permit something that is refused otherwise, see below (repeatable)",
    )
    return parser


def _pick_unknown(rest: Sequence[str]) -> Sequence[str]:
    """The words to complain about: options first, since a word after an unknown option is most likely its value."""
    return [word for word in rest if word.startswith("-")] or rest


def _explain_unknown(word: str, parser: _Parser, known_keys: Sequence[str]) -> Problem:
    bare = word.lstrip("-").split("=")[0]
    key = bare.replace("-", "_")
    if key.split(".")[0] in known_keys:
        value = word.split("=", 1)[1] if "=" in word else "VALUE"
        return Problem(word, "is a key of the config, not an option", remedy=f"write --set {key}={value}")
    if not word.startswith("-"):
        return Problem(word, "is one argument too many", expected="one CONFIG", remedy=f"python {parser.prog} --help")
    known = [option for action in parser._actions for option in action.option_strings]  # pyright: ignore[reportPrivateUsage]
    near = difflib.get_close_matches(word.split("=")[0], known, n=1)
    remedy = f"did you mean {near[0]}?" if near else f"known options: {', '.join(known)}"
    return Problem(word, "is not a known option", remedy=remedy)
