"""Names and paths as text: what may be printed, logged, and passed on to others.

A name on a disk is any sequence of bytes. It may be no text at all, hold a line that looks like one of a log, the
escape sequences of a terminal, or characters that turn the direction of others. `printable` makes each of these
visible, and every place that prints or logs a name uses it; a name without them is not changed. A name may also be a
formula of a spreadsheet: every CSV file is written by `format_csv`, which escapes those.

`PathHider` shortens absolute paths, which tell a user's name and how a disk is organised, in everything that a run or a
report leaves and that may be passed on.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

SOURCE_FOLDER = Path(__file__).resolve().parents[3]

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # control, format (bidi too), surrogates, no characters at all
_JOINERS = "\u200c\u200d"  # some scripts and emoji need these characters


def printable(name: str) -> str:
    """Make a name printable on one line.

    Each character that is invisible, ends a line or changes the direction of others becomes its code, such as ⟨U+202E⟩.
    So does each byte of a file's name that is no UTF-8, which Python holds as a lone surrogate.
    """
    if name.isprintable() and name.isascii():
        return name
    return "".join(f"⟨U+{ord(c):04X}⟩" if _is_hidden(c) else c for c in name)


def printable_lines(text: str) -> str:
    """Make a text of several lines printable: as `printable`, but line ends and tabs stay."""
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def clean_name(name: str) -> str:
    """Make a name that a user gave safe to show: as `printable`, and white space becomes single spaces."""
    return printable(" ".join(name.split())) or "unnamed"


@dataclass
class Calling:
    """How this process was called: by a script of the repository, or by the command `sharpstudent`.

    Attributes:
        list_commands: Lists script -> the command that is the same; None where scripts were called.
    """

    list_commands: Callable[[], Mapping[str, str]] | None = None


CALLING = Calling()  # of this process: `sharpstudent` sets it once, before anything is printed


def name_commands(text: str) -> str:
    """Write commands as this process was called: `python predict.py RUN` may be `sharpstudent predict RUN`."""
    if CALLING.list_commands is None or ".py" not in text:
        return text
    commands = CALLING.list_commands()
    scripts = "|".join(re.escape(script) for script in sorted(commands, key=len, reverse=True))
    return re.sub(rf"(?<![\w/.-])(?:python )?({scripts})(?![\w.])", lambda found: commands[found[1]], text)


_COMMAND = re.compile(r"(?:^|(?<=\s))(?:python \S+\.py|sharpstudent \w+)\b")
_WORD = re.compile(r"(?:`[^`]*`|\S)+")  # what stands in backticks is one word
_ARGUMENT = re.compile(r"(?:'[^']*'|\"[^\"]*\"|\S)+")  # a word of a command, with the spaces that are quoted


def wrap_words(text: str, width: int) -> str:
    """Wrap the lines of a text at words; further lines of a line are indented by two.

    A command (`python SCRIPT.py ...`) stays one that can be pasted: its lines end in a backslash. A word that is longer
    than a line, such as a path, stays whole.

    Args:
        text: A text of one or more lines.
        width: The number of columns of the terminal.

    Returns:
        The text, without line ends at its end that it did not have.
    """
    return "\n".join("\n".join(_wrap_line(line, width)) for line in text.split("\n"))


def _wrap_line(line: str, width: int) -> list[str]:
    if count_columns(line) <= width:
        return [line]
    further = " " * (len(line) - len(line.lstrip()) + 2)
    found = next((one for one in _COMMAND.finditer(line) if line.count("`", 0, one.start()) % 2 == 0), None)
    start = len(line) if found is None else found.start()
    lines = _fill(line[:start], _WORD, width, further)
    if found is None:
        return lines
    command = line[start:]
    together = f"{lines[-1]} {command}" if lines else command
    if count_columns(together) <= width:
        return [*lines[:-1], together]
    if lines and count_columns(further + command) <= width:
        return [*lines, further + command]
    broken = _fill(together, _ARGUMENT, width - 2, further + "  ")
    return [*lines[:-1], *(f"{part} \\" for part in broken[:-1]), broken[-1]]


def _fill(text: str, word: re.Pattern[str], width: int, further: str) -> list[str]:
    """Fill lines with the words of a text; its own indent stays, and `further` is that of the lines after the first."""
    lines: list[str] = []
    end = 0
    for found in word.finditer(text):
        between, end = text[end : found.start()], found.end()
        if lines and count_columns(lines[-1] + between + found[0]) <= width:
            lines[-1] += between + found[0]
        else:
            lines.append((further if lines else between) + found[0])
    return lines


def count_columns(text: str) -> int:
    """Count the columns that a text takes in a terminal, where a wide character takes two."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in _HIDDEN and character not in _JOINERS


def shorten(text: str, length: int) -> str:
    """Shorten a text to its beginning and its end, with an ellipsis between them.

    Args:
        text: Any text.
        length: The largest number of characters of the result.

    Returns:
        The text itself where it is short enough.
    """
    if len(text) <= length:
        return text
    end = (length - 1) * 2 // 5
    return f"{text[: length - 1 - end]}…{text[len(text) - end :]}"


def shorten_names(names: Sequence[str], length: int) -> dict[str, str]:
    """Shorten names so that no two become alike.

    Args:
        names: The names, which may repeat.
        length: The largest number of characters of a short name.

    Returns:
        The short form of each name.
    """
    short: dict[str, str] = {}
    for name in dict.fromkeys(names):
        found, number = shorten(printable(name), length), 2
        while found in short.values():
            found, number = f"{shorten(printable(name), length - 4)} ({number})", number + 1
        short[name] = found
    return short


def make_slug(text: str) -> str:
    """Make a part of a file name that every system accepts: a-z, 0-9, single hyphens; at most 40 characters."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].strip("-") or "unnamed"


def make_unique(names: Iterable[str]) -> list[str]:
    """Give each repeated name a number, so that no two are alike; the order stays."""
    taken: set[str] = set()
    unique: list[str] = []
    for name in names:
        found, number = name, 2
        while found in taken:
            found, number = f"{name}-{number}", number + 1
        taken.add(found)
        unique.append(found)
    return unique


def escape_markdown(text: str) -> str:
    """Put a name on one line and escape its markup: it cannot become a link, HTML or another cell."""
    return re.sub(r"([\\`*\[\]<>|&@]|:(?=//)|(?<=www)\.)", r"\\\1", " ".join(text.split()))


_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")  # the last four are wide forms, which spreadsheets take for the first
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+|inf|nan)(e[+-]?\d+)?", re.IGNORECASE)


def escape_cell(text: str) -> str:
    """Escape a cell of a CSV file that a spreadsheet would run as a formula, by an apostrophe before it (OWASP).

    These are texts that begin with `=`, `+`, `-`, `@`, a tab or a line end, unless they are numbers. `unescape_cell`
    gives any text back.
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def unescape_cell(cell: str) -> str:
    """Return the text that `escape_cell` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def format_csv(rows: Iterable[Iterable[object]]) -> str:
    """Format lines of a CSV file: every one that this project writes.

    Args:
        rows: The cells of each line. Numbers are written to their last digit, None as an empty cell, and text is
            escaped by `escape_cell`.

    Returns:
        The lines, each ending in a newline.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([escape_cell(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return text.getvalue()


def name_file(path: Path, root: Path) -> str:
    """Name a file of a data set by its path below the set's folder, or the folder of its table, as printable text.

    Its parts are joined by '/'. The name says nothing of where the set lies. A file elsewhere, such as one that a table
    names by its whole path, is called by its own name behind a digest of its folder, so that no two get the same name.

    Args:
        path: The file.
        root: The data set: its folder, or the table that lists its files.

    Returns:
        The name.
    """
    inside = os.path.relpath(path, root.parent if root.is_file() else root)
    if inside.partition(os.sep)[0] != os.pardir:
        return printable(inside.replace(os.sep, "/"))
    digest = hashlib.sha256(os.fsencode(os.path.abspath(path.parent))).hexdigest()[:8]
    return f"{HIDDEN}/{digest}/{printable(path.name)}"


HIDDEN = "…"  # stands for the folders that are left out of a path
_BEGIN = r"/|[A-Za-z]:[\\/]|\\\\"  # of an absolute path, on any system
# A word of a command line or a value of a config that is a path as a whole, spaces included: `/x y`, `data_root=/x y`.
_WHOLE = re.compile(rf"([\w.\[\]-]+=)?((?:{_BEGIN}).+)", re.DOTALL)
_HOMES = re.compile(r"(?:/home|/Users|[A-Za-z]:\\Users)[/\\][^/\\\s=:'\",;)]+")
# The folders of an absolute path within a sentence, as far as they can be told: up to a space or punctuation.
_PART = r"[^/\\\s'\"<>|:;,()=]"
_WITHIN = re.compile(rf"(?<![\w.~…:/\\*?\])-])(?:{_BEGIN})(?:{_PART}+[/\\])+(?={_PART})")
_PATTERN = re.compile(r"[*?\[]")


class PathHider:
    """Shortens absolute paths in what is passed on: config, logs, results, reports.

    A path below the working folder or the source becomes relative, a home folder becomes `~`. What the user named
    elsewhere keeps its own name and what lies below it: `…/data/a/1.png`. Of any other absolute path the last part
    stays.
    """

    def __init__(self, *named: Any) -> None:
        """Collect the paths that the user named.

        Args:
            named: Words of a command line and JSON values, such as a config; the absolute paths among them count.
        """
        own = {str(SOURCE_FOLDER): ".", os.getcwd(): ".", str(Path.home()): "~"}
        own = {folder: shown for folder, shown in own.items() if folder != os.sep}
        self._own, self._shown = tuple(own), dict[str, str]()
        for text in _list_texts(named):
            whole = _WHOLE.fullmatch(text)
            if whole is not None:
                self._add(whole[2].rstrip("/\\"))
        self._shown |= own | {f"{folder}{os.sep}": "" for folder, shown in own.items() if shown == "."}
        self._longest_first = sorted(self._shown, key=len, reverse=True)

    def _add(self, path: str) -> None:
        """Remember a path that the user named, or the folder that a pattern begins with, and the folder above."""
        if _PATTERN.search(path):
            path = os.path.dirname(_PATTERN.split(path)[0])
        for form in {path, os.path.realpath(path)} if path else ():
            if _HOMES.match(form) or any(Path(form).is_relative_to(folder) for folder in self._own):
                continue  # shown from that folder on
            self._shown[form] = _keep_last(form)
            above = os.path.dirname(form)
            if len(above) > 1:
                self._shown.setdefault(above, HIDDEN)

    def word(self, text: str) -> str:
        """Shorten the paths in a word of a command line or a value of a config, which may be a path as a whole."""
        shown = self._replace_known(text)
        whole = _WHOLE.fullmatch(shown)
        return self.text(shown) if whole is None else f"{whole[1] or ''}{_keep_last(whole[2])}"

    def text(self, text: str) -> str:
        """Shorten the paths within a sentence or a line of a log."""
        return _WITHIN.sub(f"{HIDDEN}/", self._replace_known(text))

    def within(self, value: Any, *, words: bool = False) -> Any:
        """Shorten the paths in every text within JSON values, and make sentences printable.

        Args:
            value: The values, of any depth; sequences become lists.
            words: Whether each text is a word, as in a config, and not a sentence. Names then stay as they are.

        Returns:
            The same values with other texts.
        """
        if isinstance(value, str):
            return self.word(value) if words else printable_lines(self.text(value))
        if isinstance(value, Mapping):
            items = cast(Mapping[str, Any], value).items()
            return {
                name if words else printable_lines(self.text(name)): self.within(inner, words=words)
                for name, inner in items
            }
        if isinstance(value, list | tuple):
            return [self.within(inner, words=words) for inner in cast(Sequence[Any], value)]
        return value

    def _replace_known(self, text: str) -> str:
        for folder in self._longest_first:
            if folder in text:
                known = rf"(?<![\w.~…-]){re.escape(folder)}{'' if folder.endswith(os.sep) else _END}"
                text = re.sub(known, lambda _, shown=self._shown[folder]: shown, text)
        return _HOMES.sub("~", text)


_END = r"(?![\w-]|\.\w)"  # a name ends here; `/data/ff` is not within `/data/ff2` or `/data/ff.zip`


def _keep_last(path: str) -> str:
    """Keep the last part of a path, unless it is the name of the home folder, which is the user's."""
    last = re.split(r"[/\\]", path.rstrip("/\\"))[-1]
    return HIDDEN if last in ("", Path.home().name) else f"{HIDDEN}/{last}"


def _list_texts(value: Any) -> Iterator[str]:
    """List every text within JSON values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        inner = value.values() if isinstance(value, Mapping) else value
        for one in cast(Iterable[Any], inner):
            yield from _list_texts(one)
