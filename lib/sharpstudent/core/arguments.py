"""The command line of every script: how options are read, and how a mistake is reported.

Every mistake is a `UserError`, with the nearest option where one is misspelt, so that it looks and exits like every
other mistake of a user.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.metadata
import math
import os
import re
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from sharpstudent.core.errors import Problem, UserError, choose
from sharpstudent.core.naming import name_commands

T = TypeVar("T")
WIDTH = 120  # characters of a line of `--help`
EXIT_CODES = "exit codes: 0 done; 2 change the command, a file, the data or the disk; 130, 143 interrupted"

RAY_HERE = "here"  # the value of `--ray` without an address

# Options that several scripts have, as `add_option` takes them.
SHARED: Mapping[str, Mapping[str, Any]] = {
    "--device": {"choices": ("auto", "cpu", "cuda", "mps"), "default": "auto", "help": "default: %(default)s"},
    "--workers": {"metavar": "N"},
    "--task": {"metavar": "NAME_OR_CLASS"},
    "--ray": {
        "nargs": "?",
        "const": RAY_HERE,
        "metavar": "ADDRESS",
        "help": "work on the nodes of a Ray cluster (HOST:PORT; without: the cluster of this machine, or a new one)",
    },
}


def add_option(group: Any, table: Mapping[str, Mapping[str, Any]], option: str, **changes: Any) -> None:
    """Add an option that several scripts have.

    Args:
        group: The parser, or a group of its options.
        table: The arguments of `add_argument` by option.
        option: The option, such as `--device`.
        changes: Arguments of `add_argument` that this script adds to those of the table, or sets differently.
    """
    group.add_argument(option, **{**table[option], **changes})


class Parser(argparse.ArgumentParser):
    """A parser that keeps the line breaks of its help texts, and that reports mistakes as `UserError`."""

    def __init__(
        self,
        script: str,
        purpose: str,
        *,
        usage: str | None = None,
        more: str = "",
        examples: Sequence[str] = (),
        add_help: bool = True,
    ) -> None:
        """Make a parser without options.

        Args:
            script: The program's name, as a command writes it behind `python`.
            purpose: What the script does, at the top of `--help`.
            usage: The usage lines of `--help`; None to let argparse write them.
            more: Text that `--help` prints below the options.
            examples: Commands, at the end of `--help`.
            add_help: Whether the parser has the option `--help`.
        """
        shown = "\n".join(("examples:", *(f"  python {example}" for example in examples)))
        super().__init__(
            prog=script,
            usage=usage,
            description=purpose,
            epilog="\n\n".join(part for part in (more, shown if examples else "") if part),
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=34, width=WIDTH),
            allow_abbrev=False,
            add_help=False,
        )
        if add_help:  # not listed among the options, because readers of the list have just used it
            self.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)
        self._words: Sequence[str] = ()
        self._examples = tuple(examples)

    def format_help(self) -> str:
        """Write the help, with commands as this process was called."""
        return name_commands(super().format_help())

    def read(self, argv: Sequence[str], find_keys: Callable[[Namespace], Mapping[str, str]] = lambda read: {}) -> Any:
        """Read the command line; `--help` exits with 0.

        Args:
            argv: The words behind the program's name.
            find_keys: Gives the config keys that the user may have meant by an unknown option -> how each is written.

        Returns:
            The namespace of argparse, untyped: it has an attribute for each option.

        Raises:
            UserError: For every mistake.
        """
        self._words = argv
        read, rest = self.parse_known_args(list(argv))
        if rest:
            # Options first: a word after an unknown option is most likely its value.
            keys = find_keys(read)
            raise UserError(*(self._explain(word, keys) for word in [w for w in rest if w[:1] == "-"] or rest))
        return read

    def error(self, message: str) -> NoReturn:
        """Raise a UserError about the misspelt options, or with the message of argparse if there are none.

        A misspelt option comes first, because it is often the reason why another one is missing.
        """
        known = self._option_string_actions
        unknown = [word for word in self._words if word.startswith("--") and word.partition("=")[0] not in known]
        if unknown and "--" not in unknown:
            raise UserError(*(self._explain(word, {}) for word in unknown))
        help_text = f"python {self.prog} --help"
        choice = re.search(r"argument (.*): invalid choice: '(.*?)' \(choose from (.*)\)", message)
        if choice is not None:
            where = choice[1] if choice[1].startswith("-") else "command line"
            choose(dict.fromkeys(re.findall(r"'([^']+)'", choice[3])), choice[2], where)
        example = f"python {self._examples[0]}; see {help_text}" if self._examples else help_text
        raise UserError.about("command line", message, remedy=example)

    def _find_value(self, word: str) -> str:
        """Find the value that the user gave for an unknown option: the word behind it."""
        rest = list(self._words)[list(self._words).index(word) + 1 :] if word in self._words else []
        return shlex.quote(rest[0]) if rest and _is_value(rest[0]) else "VALUE"

    def _explain(self, word: str, keys: Mapping[str, str]) -> Problem:
        name, equals, value = word.partition("=")
        key = name.lstrip("-").replace("-", "_")
        if word.startswith("--") and key.split(".")[0] not in keys:  # `--epochs` for the key `epoch`
            key = next(iter(difflib.get_close_matches(key, keys, n=1, cutoff=0.85)), key)
        if key.split(".")[0] in keys:
            remedy = f"write --set {keys.get(key, key)}={value if equals else self._find_value(word)}"
            return Problem(word, "is a key of the config, not an option", remedy=remedy)
        if not word.startswith("-"):
            return Problem(word, "is one argument too many", remedy=f"python {self.prog} --help")
        near = difflib.get_close_matches(name, self._option_string_actions, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known options: {', '.join(self._option_string_actions)};"
        return Problem(word, "is not a known option", remedy=f"{hint} See python {self.prog} --help")


def _is_value(word: str) -> bool:
    return not word.startswith("-") or word[1:2].isdecimal()


def advise_script(words: str) -> str:
    """Write a command of another script of this repository, as it works from the current folder.

    Args:
        words: The script's file and its arguments, such as `fetch_models.py demo`.
    """
    folder = Path(sys.argv[0]).resolve().parent
    script, _, rest = words.partition(" ")
    is_elsewhere = folder != Path.cwd() and (folder / script).is_file()
    return f"python {shlex.quote(str(folder / script)) if is_elsewhere else script} {rest}".rstrip()


def advise_make(target: str) -> str:
    """Write the command for a target of the repository's Makefile, as it works from the current folder."""
    folder = Path(sys.argv[0]).resolve().parent
    is_elsewhere = folder != Path.cwd() and (folder / "Makefile").is_file()
    return f"make -C {shlex.quote(str(folder))} {target}" if is_elsewhere else f"make {target}"


def advise_extra(extra: str, *, again: bool = False) -> str:
    """Write the command that installs the packages of an extra, in the versions of this program, from any folder.

    Args:
        extra: The extra, as pyproject.toml names it.
        again: Whether packages that are installed have to be installed anew.
    """
    return f"pip install {'--force-reinstall ' if again else ''}{' '.join(_list_packages(extra))}"


def _list_packages(extra: str) -> list[str]:
    """List the packages of an extra; a checkout's pyproject.toml may be newer than the installed metadata."""
    try:
        text = (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    except OSError:
        text = ""
    if '\nname = "sharpstudent"\n' in text:
        import tomllib  # here, because a command line without this advice need not wait for it

        return tomllib.loads(text)["project"]["optional-dependencies"][extra]
    marked = (line.partition(";") for line in importlib.metadata.requires("sharpstudent") or ())
    return [name.strip() for name, _, marker in marked if re.search(rf"extra\s*==\s*['\"]{extra}['\"]", marker)]


def expand_path(text: str) -> str:
    """Expand `~`, `~user`, `$NAME` and `${NAME}` as a shell does.

    A variable that is not set stays as it is, and so does a path that exists as it is written. Otherwise backslashes,
    which other systems put between folders, are slashes.
    """
    if os.path.exists(text):
        return text
    return os.path.expanduser(os.path.expandvars(text.replace("\\", "/")))


def read_path(text: str) -> Path:
    """Read a path, for the `type` of an option: no shell expands `NAME=~/data` or a quoted path."""
    return Path(expand_path(text))


def read_number(
    kind: Callable[[str], float], low: float, high: float, *, above: bool = False, below: bool = False
) -> Callable[[str], Any]:
    """Make a reader of numbers for the `type` of an option.

    Args:
        kind: `int` or `float`.
        low: The lowest number.
        high: The highest number.
        above: Whether `low` itself is refused.
        below: Whether `high` itself is refused.

    Returns:
        A function from the text of an option to its number.
    """

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or (above and value == low) or (below and value == high):
            noun = "a whole number" if kind is int else "a number"
            limits = f"{'above' if above else 'from'} {low:g} to {'below ' if below else ''}{high:g}"
            limits = f"between {low:g} and {high:g}" if above and below else limits
            raise argparse.ArgumentTypeError(f"{text!r} is not {noun} {limits}")
        return value

    return read


def fill(kind: type[T], read: Namespace, **others: Any) -> T:
    """Build a dataclass from the options that have the names of its fields.

    Args:
        kind: The dataclass.
        read: The options.
        others: Values of other fields; they win over an option of the same name.

    Returns:
        The dataclass.
    """
    given = {field.name: getattr(read, field.name) for field in fields(kind) if hasattr(read, field.name)}  # pyright: ignore[reportArgumentType]
    return kind(**given | others)


def find_child_settings() -> dict[str, Any]:
    """Return folder and environment for a process that runs a module of this very package, without CUDA."""
    root = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    # `-m` looks in the working folder first.
    return {"cwd": root, "env": {**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""}}
