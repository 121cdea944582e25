"""Finds the clips of a user's own photos and videos: in a folder, or in a table of files.

    ROOT/PERSON/*.jpg, *.mp4                     a subfolder is one person, with all that is below it
    ROOT/*.jpg, *.mp4                            a file on its own is its own person
    ROOT/{real,fake}/..., ROOT/PERSON/{real,fake}/..., ROOT/{train,val,test}/{real,fake}/...
    TABLE.csv: path[,label][,person][,split][,manipulation]
                                                 one line a file; paths are relative to the table

Classes, splits and people are read by `structure.read_structure`. Where nothing speaks of classes, all files are taken
for real ones, and a note says so.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PureWindowsPath

from sharpstudent.core.arguments import expand_path
from sharpstudent.core.errors import Problem, ProblemList, UserError, format_count_of
from sharpstudent.core.files import read_table
from sharpstudent.tasks.deepfake.layouts.clip import SHOWN, SPLITS, ClipCollector, Found
from sharpstudent.tasks.deepfake.layouts.listing import (
    REMEDY,
    TABLE_SUFFIXES,
    VIDEO_SUFFIXES,
    explain_file,
    peek,
    read_folder,
    walk_files,
)
from sharpstudent.tasks.deepfake.layouts.names import CLASSES, Split, build_keys, join_words, read_name
from sharpstudent.tasks.deepfake.layouts.structure import Asks, Item, Structure, read_structure
from sharpstudent.tasks.deepfake.sources.face import PICTURE_SUFFIXES

KINDS = {"folder": PICTURE_SUFFIXES + VIDEO_SUFFIXES, "photos": PICTURE_SUFFIXES, "videos": VIDEO_SUFFIXES}
LOOKED_AT = 50  # the most folders that `recognise` lists


class OwnFiles:
    """The layouts "folder", "photos" and "videos"."""

    def __init__(self, kind: str) -> None:
        self._suffixes = KINDS[kind]

    def recognise(self, root: Path) -> bool:
        """Search at most `LOOKED_AT` folders, those nearest to the root first, for a file of this kind."""
        waiting, looked = deque([root]), 0
        while waiting and looked < LOOKED_AT:
            folder, looked = waiting.popleft(), looked + 1
            listing = read_folder(folder)
            if any(name.lower().endswith(self._suffixes) for name in listing.files):
                return True
            waiting.extend(folder / name for name in listing.folders[:LOOKED_AT])
        return False

    def find(
        self,
        root: Path,
        label: int | None,
        *,
        people: str | None = None,
        asks: Asks | None = None,
        any_name: bool = False,
    ) -> Found:
        """Find every photo and video below the root.

        Args:
            root: The folder.
            label: Real 0, fake 1; None for what the folders say.
            people: What one person is, `folders` or `files`; None for folders, unless one holds too much.
            asks: How the user says what the names leave open.
            any_name: Whether names that are not UTF-8 are taken, too: no manifest will name them.

        Returns:
            The clips, what was rejected, and notes for the user.

        Raises:
            UserError: Where class, split or person of a file can be meant in two ways.
        """
        collector = ClipCollector(root, root.absolute().name)
        files = walk_files(root, collector.reject, any_name=any_name)
        items = [
            Item(file, file.relative_to(root).parts, file.name.lower().endswith(VIDEO_SUFFIXES))
            for file in files
            if file.name.lower().endswith(self._suffixes)
        ]
        structure = read_structure(root, items, label=label, people=people, asks=asks or Asks())
        if label is None and not structure.has_classes:
            _check_tables([file for file in files if not file.name.lower().endswith(self._suffixes)])
        return _collect(items, structure, label, collector, asks or Asks(), by="folders")


_LIST_OF_LABELS = re.compile(r'"(?:label|is_?fake|fake)"\s*:|"(?:REAL|FAKE)"')


def _check_tables(files: Sequence[Path]) -> None:
    """Raise UserError where a table or list beside files without a class may say what is real."""
    for file in files:
        is_table = file.name.lower().endswith(TABLE_SUFFIXES)
        if is_table:
            columns = {join_words(word) for word in re.split(r"[,;\t|]", peek(file).partition("\n")[0])}
            says = columns & {*LABEL_COLUMNS, *FAKE_COLUMNS, *REAL_COLUMNS}
        else:
            says = file.name.lower().endswith(".json") and _LIST_OF_LABELS.search(peek(file))
        if says:
            remedy = "name it instead of its folder" if is_table else "sort the files into real/ and fake/ by it"
            raise UserError.about(
                str(file),
                "may say which files are real, and no folder does",
                remedy=f"{remedy}; or move it away, if it does not",
            )


def _collect(
    items: Sequence[Item], structure: Structure, label: int | None, collector: ClipCollector, asks: Asks, *, by: str
) -> Found:
    """Make a clip of each item, and say what was understood."""
    for path, reason in structure.left_out.items():
        collector.reject(str(path), reason)
    for item, key, place in zip(items, _build_keys(items), structure.places, strict=True):
        if place is None:
            continue
        one = place.label if place.label is not None else label or 0
        collector.add_file(
            item.path,
            key=key,
            kind="video" if item.is_video else "photo",
            people=(place.person,) if place.person else None,
            label=one,
            split=place.split,
            manipulation=(item.manipulation or "fake") if one else "",
            film=place.film,
            columns=item.columns,
        )
    says_labels = structure.has_classes or label is not None
    found = collector.close(says_labels=says_labels)
    found = replace(found, order=tuple(item.path for item in items))
    return found.with_notes(*_describe(found, structure, label, asks, by), *structure.notes)


def _build_keys(items: Sequence[Item]) -> list[str]:
    """Build the keys of items; their parts are made a path again, below a root that does not matter."""
    root = Path(os.sep)
    return build_keys(root, [root.joinpath(*item.parts) for item in items])


def _describe(found: Found, structure: Structure, label: int | None, asks: Asks, by: str) -> list[str]:
    """Say what was understood: classes, splits and people."""
    if not found.clips:
        return []
    count = Counter(clip.label for clip in found.clips)
    named = [
        f"{count[one]:,} {name}"
        + (f" ({', '.join(list(structure.class_names[one])[:4])})" if structure.class_names[one] else "")
        for one, name in enumerate(CLASSES)
        if count[one]
    ]
    if label is not None:
        named[0] += " (--label)"
    elif not structure.has_classes:
        named[0] += f": no {by.rstrip('s')} says real or fake, so all are taken for real{asks.fake}"
    splits = Counter(clip.split for clip in found.clips)
    said = ", ".join(f"{split} {splits[split]:,}" for split in SPLITS.values() if splits[split])
    people = {clip.identities[0] for clip in found.clips}
    alone = len(people & {clip.key for clip in found.clips})
    kinds = [f"{len(people) - alone:,} people or clips by name"] if len(people) > alone else []
    kinds += [f"{format_count_of(alone, 'file')} on their own"] if alone else []
    return [
        f"classes: {', '.join(named)}",
        f"splits: {f'{said} (by the {by})' if said else f'none in the {by}'}",
        f"people: {', '.join(kinds)}",
    ]


# What a table's columns are called; one with a bare 1 or 0 must say what 1 means.
_PATHS = (
    "path file filename filepath image img picture photo video clip imagepath imgpath videopath imagefile videofile "
    "imagename videoname videofilename imagefilename"
)
PATH_COLUMNS = frozenset(_PATHS.split())
LABEL_COLUMNS = frozenset(("label", "labels", "groundtruth", "gt", "classname"))
FAKE_COLUMNS = frozenset(
    (*("fake", "isfake", "deepfake", "isdeepfake"), *("manipulated", "ismanipulated", "forged", "isforged"))
)
REAL_COLUMNS = frozenset(("real", "isreal", "genuine", "isgenuine", "authentic", "isauthentic"))
PERSON_COLUMNS = frozenset(
    (*("person", "identity", "subject", "subjectid", "personid"), *("actor", "actorid", "speaker", "celebrity"))
)
SPLIT_COLUMNS = frozenset(("split",))
MANIPULATION_COLUMNS = frozenset(("manipulation", "manipulationtype", "method", "fakekind", "kindoffake"))
# Columns of these names count where all of their values fit.
MAYBE_LABEL, MAYBE_SPLIT = (
    frozenset(["class", "target", "category", "type", "y"]),
    frozenset(["set", "subset", "partition", "usage"]),
)
YES, NO = ("1", "yes", "y", "true", "t", "1.0"), ("0", "no", "n", "false", "f", "0.0")
FORM = "a first line with path, and if you like label, person and split"


def find_table(table: Path, label: int | None, *, people: str | None = None, asks: Asks | None = None) -> Found:
    """Find the files that a table names; relative paths begin at its folder.

    Args:
        table: The file: its columns may be separated by commas, semicolons, tabs or bars.
        label: Real 0, fake 1; None for what the table says.
        people: What one person is, as in `OwnFiles.find`.
        asks: How the user says what the table leaves open.

    Returns:
        The clips, what was rejected (also files that are not there, or beside the others and not named), and notes.

    Raises:
        UserError: For a table that cannot be read, or that can be meant in two ways.
    """
    columns, rows = read_table(table, form=FORM, remedy=REMEDY)
    reader = _TableReader(table, columns, [row for _, row in rows])
    lines = [(line, row) for line, row in rows if any(row.values())]
    paths = [_find_path(table, row[reader.path]) for _, row in lines]
    root = _find_root(table, paths)
    if root.is_absolute():  # files lie elsewhere, and a relative table names them by relative paths
        paths = [path.absolute() for path in paths]
    collector = ClipCollector(root, table.absolute().stem)
    items, seen = list[Item](), set[Path]()
    reader.check_all(lines)
    for (line, row), path in zip(lines, paths, strict=True):
        if path in seen:
            collector.reject(f"{table}, line {line}: {path}", "is named a second time; the first line counts")
        elif not path.is_file() and reader.read_split(row) != "test":
            collector.reject(str(path), f"is not there, but {table.name}, line {line} names it; correct the path")
        elif not path.name.lower().endswith(KINDS["folder"]):
            collector.reject(str(path), explain_file(path.name) or "is neither a picture nor a video")
        else:
            is_video = path.name.lower().endswith(VIDEO_SUFFIXES)
            parts = path.relative_to(root).parts
            said = (reader.read_label(row), reader.read_person(row), reader.read_split(row), reader.read_kind(row))
            items.append(Item(path, parts, is_video, *said, columns=reader.read_others(row)))
        seen.add(path)
    _reject_unnamed(table, seen, collector)
    structure = read_structure(table, items, label=label, people=people, asks=asks or Asks())
    return _collect(items, structure, label, collector, asks or Asks(), by="table")


def _find_path(table: Path, text: str) -> Path:
    """Return the file that a table means; backslashes are slashes where no file has them in its name."""
    path = table.parent / expand_path(text)
    if "\\" in text and not path.exists():
        path = table.parent / expand_path(PureWindowsPath(text).as_posix())
    return Path(os.path.normpath(path))


def _find_root(table: Path, paths: Sequence[Path]) -> Path:
    """Return the table's folder, or, where files lie elsewhere, the folder that holds them all."""
    folder = Path(os.path.normpath(table.parent))
    if all(path.is_relative_to(folder) for path in paths):
        return folder
    return Path(os.path.commonpath([path.absolute().parent for path in paths]))


def _reject_unnamed(table: Path, named: set[Path], collector: ClipCollector) -> None:
    """Reject the pictures and videos that lie beside named files, and that the table does not name."""
    for folder in sorted({path.parent for path in named}):
        for name in read_folder(folder).files:
            path = folder / name
            if name.lower().endswith(KINDS["folder"]) and path not in named:
                collector.reject(str(path), f"is not named by {table.name}; add a line, or move it")


class _TableReader:
    """Which columns a table has, and what they mean."""

    def __init__(self, table: Path, columns: Sequence[str], rows: Sequence[dict[str, str]]) -> None:
        self._table = table
        plain = {column: join_words(column) for column in columns}
        problems = ProblemList()

        def choose(names: frozenset[str], what: str) -> str:
            found = [column for column in columns if plain[column] in names]
            exact = [column for column in found if plain[column] == what]
            if len(found) > 1 and len(exact) != 1:
                got = ", ".join(found)
                problems.add(
                    Problem(str(table), f"has several columns for {what}", got=got, remedy="rename all but one")
                )
            return (exact or found or [""])[0]

        self.path = choose(PATH_COLUMNS, "path")
        self._person, self._split = choose(PERSON_COLUMNS, "person"), choose(SPLIT_COLUMNS, "split")
        self._label = choose(LABEL_COLUMNS | FAKE_COLUMNS | REAL_COLUMNS, "label")
        self._kind = choose(MANIPULATION_COLUMNS, "manipulation")
        if not self.path:
            got = ", ".join(columns) or "an empty file"
            problems.add(Problem(str(table), "lacks the column path", FORM, got, "call the column of the files path"))
        problems.raise_if_any()
        self._rows = [row for row in rows if any(row.values())]
        others = [column for column in columns if column not in (self.path, self._person, self._split)]
        self._split = self._split or self._find_column(
            [column for column in others if plain[column] in MAYBE_SPLIT], lambda text: len(read_name(text).splits) == 1
        )
        self._label = self._label or self._find_column(
            [column for column in others if plain[column] in MAYBE_LABEL],
            lambda text: len(read_name(text).labels) == 1 or text.strip().casefold() in (*YES, *NO),
        )
        self._label = self._label or self._find_column(others, lambda text: len(read_name(text).labels) == 1)
        self._refuse_mistyped({plain[column]: column for column in others})
        self._meaning = plain.get(self._label, "")
        self._check_stated()
        self._check_split()

    def _refuse_mistyped(self, others: Mapping[str, str]) -> None:
        """Refuse columns, given by their plain names, that look like one that is missing: it would be ignored."""
        missing = {"person": self._person, "split": self._split, "label": self._label}
        problems = ProblemList()
        for what in [name for name, column in missing.items() if not column]:
            for near in difflib.get_close_matches(what, others, n=1, cutoff=0.8):
                what_is = f"has a column {others[near]!r}, which is not known, and none for {what}"
                problems.add(Problem(str(self._table), what_is, remedy=f"call it {what}, or something else"))
        problems.raise_if_any()

    def _find_column(self, columns: Sequence[str], fits: Callable[[str], bool]) -> str:
        """Return the one column whose values all fit, "" where there is none or several."""
        found = [column for column in columns if self._rows and all(fits(row[column]) for row in self._rows)]
        return found[0] if len(found) == 1 else ""

    def _check_stated(self) -> None:
        """Raise UserError where the labels are numbers or yes and no, and the column does not say of what."""
        values = {row[self._label].strip().casefold() for row in self._rows} if self._label else set[str]()
        if values & {*YES, *NO} and self._meaning not in FAKE_COLUMNS | REAL_COLUMNS:
            column, table = self._label, shlex.quote(str(self._table))
            raise UserError.about(
                str(self._table),
                f"has labels that do not say which is real: column {column}",
                expected="real and fake; or 1 and 0, yes and no in a column called fake or real",
                got=", ".join(sorted(values)[:6]),
                remedy=f"if 1 or yes is fake: sed -i '1s/{column}/fake/' {table}; if it is real: "
                f"sed -i '1s/{column}/real/' {table}",
            )

    def _check_split(self) -> None:
        """Raise UserError where some lines have a split and some have none."""
        empty = [not row[self._split].strip() for row in self._rows] if self._split else []
        if any(empty) and not all(empty):
            raise UserError.about(
                str(self._table),
                "some rows have a split and some have none",
                expected="a split in every row, or in none",
                remedy="fill the column or empty it",
            )

    def check_all(self, lines: Sequence[tuple[int, dict[str, str]]]) -> None:
        """Raise UserError that names the first few lines that cannot be read.

        Args:
            lines: The number and the values of each line.
        """
        wrong = [(line, row, reasons) for line, row in lines if (reasons := self._find_wrong(row))]
        more = f" (and {len(wrong) - SHOWN:,} more lines)" if len(wrong) > SHOWN else ""
        if wrong:
            raise UserError(
                *(
                    Problem(
                        f"{self._table}, line {line}",
                        f"cannot be read: {'; '.join(reasons)}",
                        got=", ".join(f"{column}={value!r}" for column, value in row.items()),
                        remedy=f"correct the line{more}",
                    )
                    for line, row, reasons in wrong[:SHOWN]
                )
            )

    def _find_wrong(self, row: dict[str, str]) -> list[str]:
        wrong = [] if row[self.path].strip() else ["no path"]
        if self._label and self.read_label(row) is None:
            wrong.append(f"{row[self._label]!r} is neither real nor fake")
        if self._split and row[self._split].strip() and self.read_split(row) is None:
            wrong.append(f"{row[self._split]!r} is no split (train, val, test)")
        if self._person and not row[self._person].strip():
            wrong.append("no person")
        return wrong

    def read_label(self, row: dict[str, str]) -> int | None:
        """Return the class of a line; None where there is no column, or it says none."""
        if not self._label:
            return None
        value = row[self._label].strip().casefold()
        if self._meaning in FAKE_COLUMNS | REAL_COLUMNS and value in (*YES, *NO):
            return int((value in YES) == (self._meaning in FAKE_COLUMNS))
        return next(iter(read_name(value).labels), None)

    def read_person(self, row: dict[str, str]) -> str:
        """Return who is seen, "" where no column says it."""
        return row[self._person].strip() if self._person else ""

    def read_kind(self, row: dict[str, str]) -> str:
        """Return the kind of fake of a line, "" where no column says it."""
        return row[self._kind].strip() if self._kind and self._kind != self._label else ""

    def read_others(self, row: dict[str, str]) -> tuple[tuple[str, str], ...]:
        """Return the columns of a line that have no meaning here, such as the sex of a person, with their values."""
        used = (self.path, self._label, self._person, self._split, self._kind)
        return tuple((column, value.strip()) for column, value in row.items() if column and column not in used)

    def read_split(self, row: dict[str, str]) -> Split | None:
        """Return the split of a line; None where no column says it, or it is none."""
        return next(iter(read_name(row[self._split]).splits), None) if self._split else None
